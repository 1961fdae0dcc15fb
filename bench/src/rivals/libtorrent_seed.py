#!/usr/bin/env python3
"""Seeds one torrent with libtorrent-rasterbar, tuned as its own preset for seeding tunes it.

Usage: libtorrent_seed.py TORRENT DIRECTORY PORT

Needs the Python binding: Debian's python3-libtorrent, or `pip install libtorrent` in a virtual
environment. Prints one line when its check of the data is over and it serves, then runs until it is
told to stop.
Nothing of it talks to anything but its peers: no DHT, trackers, UPnP, local discovery or uTP.
"""

import signal
import sys
import time

import libtorrent as lt


def settings(port: int) -> dict:
    """The preset `high_performance_seed`, and what the preset leaves to the operator."""
    tuned = dict(lt.high_performance_seed())
    tuned.update({
        "listen_interfaces": f"127.0.0.1:{port}",
        "unchoke_slots_limit": -1,
        "connections_limit": 10_000,
        "max_peerlist_size": 10_000,
        "listen_queue_size": 3_000,
        "allow_multiple_connections_per_ip": True,
        "max_allowed_in_request_queue": 2_000,
        "max_out_request_queue": 2_000,
        "enable_incoming_utp": False,
        "enable_outgoing_utp": False,
        "enable_dht": False,
        "enable_lsd": False,
        "enable_upnp": False,
        "enable_natpmp": False,
        "alert_mask": 0,
    })
    known = lt.default_settings()
    return {name: value for name, value in tuned.items() if name in known}


def main() -> None:
    torrent, directory, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
    session = lt.session(settings(port))
    parameters = lt.add_torrent_params()
    parameters.ti = lt.torrent_info(torrent)
    parameters.save_path = directory
    parameters.max_uploads = -1
    parameters.max_connections = 10_000
    # Not in seed mode: that would hash each piece at its first upload, inside the measured window.
    parameters.flags &= ~lt.torrent_flags.auto_managed
    parameters.flags &= ~lt.torrent_flags.paused
    parameters.flags &= ~lt.torrent_flags.seed_mode
    handle = session.add_torrent(parameters)
    while not handle.status().is_seeding:
        if handle.status().errc.value() != 0:
            sys.exit(f"libtorrent: {handle.status().errc.message()}")
        time.sleep(0.1)
    print(f"libtorrent {lt.version} seeds on port {session.listen_port()}", flush=True)
    stop = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stop)
    signal.sigwait(stop)


if __name__ == "__main__":
    main()
