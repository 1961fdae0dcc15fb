#!/usr/bin/python3
"""Seeds one torrent with libtorrent until it is ended: the reference seed that the tests of the other
clients' set-up use, so that a failure tells the client's set-up from our server.

usage: libtorrent_seed.py TORRENT FOLDER ADDRESS PORT
"""

import sys
import time

import libtorrent

torrent_path, folder, address, port = sys.argv[1:]
session = libtorrent.session(
    {
        "listen_interfaces": f"{address}:{port}",
        "enable_dht": False,
        "enable_lsd": False,
        "enable_upnp": False,
        "enable_natpmp": False,
        # Like our server: peers come over TCP.
        "enable_incoming_utp": False,
        "enable_outgoing_utp": False,
    }
)
parameters = libtorrent.add_torrent_params()
parameters.ti = libtorrent.torrent_info(torrent_path)
parameters.save_path = folder
torrent = session.add_torrent(parameters)
while not torrent.status().is_seeding:
    time.sleep(0.05)
print("seeding", flush=True)
while True:
    for alert in session.pop_alerts():
        print(alert.what(), alert.message(), file=sys.stderr, flush=True)
    time.sleep(0.2)
