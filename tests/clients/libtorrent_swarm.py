#!/usr/bin/python3
"""Is a peer of one torrent with libtorrent until it is ended, and says whom it meets and how it found them.

usage: libtorrent_swarm.py TORRENT FOLDER BIND [--peer HOST:PORT] [--lsd] [--rate BYTES_PER_S]

Peers come from the torrent's trackers, --peer, peer exchange, and with --lsd from local discovery. Prints
`listening PORT`, `peer HOST SOURCE[,SOURCE...]` whenever that is new, and `complete`.
"""

import argparse
import sys
import time

import libtorrent

SOURCES = {1: "tracker", 2: "dht", 4: "pex", 8: "lsd", 16: "resume", 32: "incoming"}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("torrent")
    parser.add_argument("folder")
    parser.add_argument("bind")
    parser.add_argument("--peer")
    parser.add_argument("--lsd", action="store_true")
    parser.add_argument("--rate", type=int, default=0)
    options = parser.parse_args()

    session = libtorrent.session(
        {
            "listen_interfaces": options.bind + ":0",
            "enable_dht": False,
            "enable_lsd": options.lsd,
            "enable_upnp": False,
            "enable_natpmp": False,
            # As the servers that it meets: peers come over TCP.
            "enable_incoming_utp": False,
            "enable_outgoing_utp": False,
            "allow_multiple_connections_per_ip": True,
            "download_rate_limit": options.rate,
            "alert_mask": libtorrent.alert.category_t.error_notification
            | libtorrent.alert.category_t.peer_notification,
        }
    )
    parameters = libtorrent.add_torrent_params()
    parameters.ti = libtorrent.torrent_info(options.torrent)
    parameters.save_path = options.folder
    torrent = session.add_torrent(parameters)
    if options.peer:
        host, _, port = options.peer.rpartition(":")
        torrent.connect_peer((host.strip("[]"), int(port)))

    told = set()

    def tell(line):
        if line not in told:
            told.add(line)
            print(line, flush=True)

    while True:
        if session.listen_port():
            tell(f"listening {session.listen_port()}")
        for peer in torrent.get_peer_info():
            # Only those whose handshake is done.
            if peer.flags & (libtorrent.peer_info.handshake | libtorrent.peer_info.connecting):
                continue
            sources = [name for bit, name in SOURCES.items() if int(peer.source) & bit]
            tell(f"peer {peer.ip[0]} {','.join(sources)}")
        if torrent.status().is_seeding:
            tell("complete")
        for alert in session.pop_alerts():
            # One that calls us, fetches or gives everything and leaves may not be there when we look.
            if isinstance(alert, libtorrent.incoming_connection_alert):
                tell(f"peer {alert.endpoint[0]} incoming")
            print(alert.what(), alert.message(), file=sys.stderr, flush=True)
        time.sleep(0.1)


main()
