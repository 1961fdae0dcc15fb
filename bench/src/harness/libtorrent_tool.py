#!/usr/bin/env python3
"""Creates, checks, downloads or serves torrents with libtorrent-rasterbar, for `seedring-bench`.

Usage: libtorrent_tool.py
  create PATH TORRENT PIECE_BYTES      hashes PATH, writes TORRENT
  check TORRENT DIRECTORY THREADS      checks the data, prints wall and CPU seconds
  get TORRENT DIRECTORY                downloads it from its tracker's peers, then leaves
  remember TORRENTS DIRECTORY RESUME   checks all data, writes resume files to the folder RESUME
  serve RESUME PORT                    serves from resume files until it is told to stop
  seed TORRENT DIRECTORY PORT          checks the data, then serves the one torrent to many peers

Needs the Python binding: Debian's python3-libtorrent, or `pip install libtorrent` in a virtual
environment. Nothing of it talks to anything but peers and the torrent's tracker: no DHT, UPnP,
local discovery or uTP.
"""

import signal
import sys
import time
from pathlib import Path

import libtorrent as lt


def settings(port: int, **more) -> dict:
    """The preset `high_performance_seed`, and what the preset leaves to the operator."""
    tuned = dict(lt.high_performance_seed())
    tuned.update({
        "listen_interfaces": f"127.0.0.1:{port}",
        "unchoke_slots_limit": -1,
        "connections_limit": 10_000,
        "allow_multiple_connections_per_ip": True,
        "max_out_request_queue": 2_000,
        "enable_incoming_utp": False,
        "enable_outgoing_utp": False,
        "enable_dht": False,
        "enable_lsd": False,
        "enable_upnp": False,
        "enable_natpmp": False,
        "alert_mask": 0,
    })
    tuned.update(more)
    known = lt.default_settings()
    return {name: value for name, value in tuned.items() if name in known}


def parameters_of(torrent: str, directory: str):
    parameters = lt.add_torrent_params()
    parameters.ti = lt.torrent_info(torrent)
    parameters.save_path = directory
    start(parameters)
    return parameters


def start(parameters) -> None:
    """Runs at once, and knows nothing of the data that it did not check."""
    flags = lt.torrent_flags
    parameters.flags &= ~(flags.auto_managed | flags.paused | flags.seed_mode)


def wait_until_complete(handle) -> None:
    while not handle.status().is_seeding:
        if handle.status().errc.value() != 0:
            sys.exit(f"libtorrent: {handle.status().errc.message()}")
        time.sleep(0.005)


def create(path: str, torrent: str, piece_bytes: str) -> None:
    files = lt.file_storage()
    lt.add_files(files, path)
    made = lt.create_torrent(files, int(piece_bytes), lt.create_torrent.v1_only)
    lt.set_piece_hashes(made, str(Path(path).parent))
    Path(torrent).write_bytes(lt.bencode(made.generate()))


def check(torrent: str, directory: str, threads: str) -> None:
    session = lt.session(settings(0, hashing_threads=int(threads)))
    started, cpu = time.monotonic(), time.process_time()
    wait_until_complete(session.add_torrent(parameters_of(torrent, directory)))
    print(f"{time.monotonic() - started:.4f} {time.process_time() - cpu:.4f}", flush=True)


def get(torrent: str, directory: str) -> None:
    # The seed may be at any address of this machine.
    session = lt.session(settings(0, listen_interfaces="0.0.0.0:0"))
    wait_until_complete(session.add_torrent(parameters_of(torrent, directory)))
    # What was received lies in the session until the torrent is gone.
    for handle in session.get_torrents():
        handle.flush_cache()
        session.remove_torrent(handle)


def remember(torrents: str, directory: str, resume: str) -> None:
    category = lt.alert.category_t
    alerts = category.storage_notification | category.error_notification
    session = lt.session(settings(0, active_checking=4, alert_mask=alerts))
    handles = [session.add_torrent(parameters_of(str(path), directory))
               for path in sorted(Path(torrents).glob("*.torrent"))]
    for handle in handles:
        wait_until_complete(handle)
    for handle in handles:
        handle.save_resume_data(lt.save_resume_flags_t.save_info_dict)
    left = len(handles)
    while left:
        session.wait_for_alert(1000)
        for alert in session.pop_alerts():
            if isinstance(alert, lt.save_resume_data_alert):
                name = str(alert.params.info_hashes.v1)
                (Path(resume) / name).write_bytes(lt.write_resume_data_buf(alert.params))
                left -= 1
            elif isinstance(alert, lt.save_resume_data_failed_alert):
                sys.exit(f"libtorrent: {alert.message()}")


def serve(resume: str, port: str) -> None:
    session = lt.session(settings(int(port)))
    for path in Path(resume).iterdir():
        parameters = lt.read_resume_data(path.read_bytes())
        start(parameters)
        session.async_add_torrent(parameters)
    wait_until_told_to_stop()


def seed(torrent: str, directory: str, port: str) -> None:
    session = lt.session(settings(int(port), max_peerlist_size=10_000, listen_queue_size=3_000,
                                  max_allowed_in_request_queue=2_000))
    # Not in seed mode: that would hash each piece at its first upload, while it is measured.
    parameters = parameters_of(torrent, directory)
    parameters.max_uploads = -1
    parameters.max_connections = 10_000
    wait_until_complete(session.add_torrent(parameters))
    wait_until_told_to_stop()


def wait_until_told_to_stop() -> None:
    stop = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stop)
    signal.sigwait(stop)


if __name__ == "__main__":
    commands = (create, check, get, remember, serve, seed)
    named = {command.__name__: command for command in commands}
    named[sys.argv[1]](*sys.argv[2:])
