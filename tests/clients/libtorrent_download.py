#!/usr/bin/python3
"""Downloads one torrent with libtorrent and exits 0 when it has all of it.

usage: libtorrent_download.py SOURCE FOLDER [--bind ADDRESS] [--peer HOST:PORT]

SOURCE is a .torrent file or a magnet link. Peers come from the torrent's trackers, or from --peer. Every
other way of finding peers is off, so nothing but the test's own hosts is contacted.
"""

import argparse
import sys
import time

import libtorrent


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("source")
    parser.add_argument("folder")
    parser.add_argument("--bind", default="0.0.0.0")
    parser.add_argument("--peer")
    options = parser.parse_args()

    session = libtorrent.session(
        {
            "listen_interfaces": options.bind + ":0",
            "enable_dht": False,
            "enable_lsd": False,
            "enable_upnp": False,
            "enable_natpmp": False,
            "alert_mask": libtorrent.alert.category_t.error_notification
            | libtorrent.alert.category_t.tracker_notification
            | libtorrent.alert.category_t.peer_notification
            | libtorrent.alert.category_t.connect_notification
            | libtorrent.alert.category_t.status_notification,
        }
    )
    if options.source.startswith("magnet:"):
        parameters = libtorrent.parse_magnet_uri(options.source)
    else:
        parameters = libtorrent.add_torrent_params()
        parameters.ti = libtorrent.torrent_info(options.source)
    parameters.save_path = options.folder
    torrent = session.add_torrent(parameters)
    if options.peer:
        host, _, port = options.peer.rpartition(":")
        torrent.connect_peer((host.strip("[]"), int(port)))

    while not torrent.status().is_seeding:
        for alert in session.pop_alerts():
            print(alert.what(), alert.message(), file=sys.stderr, flush=True)
            if isinstance(alert, libtorrent.hash_failed_alert):
                sys.exit("a piece failed its hash: " + alert.message())
        time.sleep(0.05)
    print("complete", flush=True)


main()
