#!/usr/bin/python3
"""Downloads one torrent with several libtorrent sessions that know each other and one peer.

usage: libtorrent_leechers.py TORRENT HOST:PORT FOLDER...

Ends when all have everything. Nobody is asked for peers but those.
"""

import sys
import time

import libtorrent


def begin(torrent, folder):
    session = libtorrent.session(
        {
            "listen_interfaces": "127.0.0.1:0",
            "enable_dht": False,
            "enable_lsd": False,
            "enable_upnp": False,
            "enable_natpmp": False,
            "enable_incoming_utp": False,
            "enable_outgoing_utp": False,
            "allow_multiple_connections_per_ip": True,
        }
    )
    parameters = libtorrent.add_torrent_params()
    parameters.ti = libtorrent.torrent_info(torrent)
    parameters.save_path = folder
    return session, session.add_torrent(parameters)


def main():
    torrent, peer, *folders = sys.argv[1:]
    host, _, port = peer.rpartition(":")
    leechers = [begin(torrent, folder) for folder in folders]
    while not all(session.listen_port() for session, _ in leechers):
        time.sleep(0.05)
    for number, (_, handle) in enumerate(leechers):
        for session, _ in leechers[number + 1 :]:
            handle.connect_peer(("127.0.0.1", session.listen_port()))
    for _, handle in leechers:
        handle.connect_peer((host, int(port)))
    while not all(handle.status().is_seeding for _, handle in leechers):
        time.sleep(0.1)


main()
