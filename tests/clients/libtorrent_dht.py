#!/usr/bin/python3
"""Runs DHT nodes of libtorrent on one address until it is ended, and maybe seeds or downloads by the first.

usage: libtorrent_dht.py ADDRESS COUNT [--node PORT] [--seed TORRENT FOLDER] [--get MAGNET FOLDER]

Each node is a session. The first knows the node on PORT, if one is given, the others know the first. Prints
"nodes PORT …" when all listen, and "complete" when the download is.
"""

import argparse
import sys
import time

import libtorrent

parser = argparse.ArgumentParser()
parser.add_argument("address")
parser.add_argument("count", type=int)
parser.add_argument("--node", type=int)
parser.add_argument("--seed", nargs=2)
parser.add_argument("--get", nargs=2)
options = parser.parse_args()
v6 = ":" in options.address


def session():
    return libtorrent.session(
        {
            "listen_interfaces": (f"[{options.address}]" if v6 else options.address) + ":0",
            "enable_dht": True,
            "enable_lsd": False,
            "enable_upnp": False,
            "enable_natpmp": False,
            "enable_incoming_utp": False,
            "enable_outgoing_utp": False,
            "allow_multiple_connections_per_ip": True,
            "dht_bootstrap_nodes": "",
            # All nodes share one address here, where libtorrent takes them for one host.
            "dht_restrict_routing_ips": False,
            "dht_restrict_search_ips": False,
            "dht_enforce_node_id": False,
            "dht_prefer_verified_node_ids": False,
            "dht_ignore_dark_internet": False,
            "dht_block_ratelimit": 100000,
            "dht_upload_rate_limit": 1000000,
            "dht_announce_interval": 20,
            "alert_mask": libtorrent.alert.category_t.error_notification
            | libtorrent.alert.category_t.dht_notification
            | libtorrent.alert.category_t.connect_notification
            | libtorrent.alert.category_t.status_notification,
        }
    )


sessions = [session() for _ in range(options.count)]
deadline = time.monotonic() + 30
while not all(s.listen_port() for s in sessions) and time.monotonic() < deadline:
    time.sleep(0.05)
ports = [s.listen_port() for s in sessions]
if options.node:
    sessions[0].add_dht_node((options.address, options.node))
for other in sessions[1:]:
    other.add_dht_node((options.address, ports[0]))

torrent = None
if options.seed:
    parameters = libtorrent.add_torrent_params()
    parameters.ti = libtorrent.torrent_info(options.seed[0])
    parameters.save_path = options.seed[1]
    seed = sessions[0].add_torrent(parameters)
    while not seed.status().is_seeding:
        time.sleep(0.05)
if options.get:
    parameters = libtorrent.parse_magnet_uri(options.get[0])
    parameters.save_path = options.get[1]
    torrent = sessions[0].add_torrent(parameters)
print("nodes", *ports, flush=True)

told = False
while True:
    for s in sessions:
        alerts = s.pop_alerts()
        for alert in alerts:
            if s is sessions[0] or alert.what() == "dht_announce":
                print(alert.what(), alert.message(), file=sys.stderr, flush=True)
    if torrent and not told and torrent.status().is_seeding:
        told = True
        print("complete", flush=True)
    time.sleep(0.1)
