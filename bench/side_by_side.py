#!/usr/bin/env python3
"""Measures BitTorrent seeds beside each other with `seedring-bench seed`.

Each round starts each seed by its own means, waits until it serves every piece, loads it with each
number of peers, and stops it by the process id that it started. Rounds are interleaved, and the
order of the seeds turns from round to round, so that a drifting machine harms all alike. Prints a table
(Markdown) and writes every single run to a JSON file. Python's standard library only; Linux only.
docs/BENCHMARKING.md explains what to install, how to run it and how to read it.
"""

import argparse
import contextlib
import hashlib
import json
import os
import platform
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
PIECE_BYTES = 1 << 20
CONGESTION_CONTROL = Path("/proc/sys/net/ipv4/tcp_congestion_control")
# A seed must have checked its data and serve within this time.
READY_SECONDS = 180
# A port that nothing listens on: rTorrent wants an announce URL when it has no DHT.
NO_TRACKER = "http://127.0.0.1:9/announce"


class Failure(Exception):
    """Something that the person at the keyboard must know, in one line."""


# ----------------------------------------------------------------------------------------- torrent

def bencode(value) -> bytes:
    """The bencoding of integers, bytes, strings, lists and dictionaries with string keys."""
    if isinstance(value, int):
        return b"i%de" % value
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, bytes):
        return b"%d:%s" % (len(value), value)
    if isinstance(value, list):
        return b"l" + b"".join(map(bencode, value)) + b"e"
    items = sorted((key.encode(), item) for key, item in value.items())
    return b"d" + b"".join(bencode(key) + bencode(item) for key, item in items) + b"e"


class Content:
    """One file of random bytes and its torrent, in a directory of its own."""

    def __init__(self, directory: Path, mebibytes: int):
        self.directory = directory
        self.mebibytes = mebibytes
        self.file = directory / f"random-{mebibytes}MiB.bin"
        self.torrent = directory / f"random-{mebibytes}MiB.torrent"
        self.info_hash = b""

    def prepare(self) -> None:
        """Makes what is not there yet, and reads the info-hash."""
        self.directory.mkdir(parents=True, exist_ok=True)
        size = self.mebibytes << 20
        if not self.file.exists() or self.file.stat().st_size != size:
            progress(f"writing {self.mebibytes} MiB of random bytes to {self.file}")
            with open(self.file, "wb") as out:
                for _ in range(self.mebibytes):
                    out.write(os.urandom(1 << 20))
        stamp = self.directory / f"random-{self.mebibytes}MiB.info-hash"
        newer = stamp.exists() and stamp.stat().st_mtime >= self.file.stat().st_mtime
        if not (newer and self.torrent.exists()):
            progress(f"hashing it to {self.torrent}")
            with open(self.file, "rb") as data:
                digests = [hashlib.sha1(data.read(PIECE_BYTES)).digest()
                           for _ in range(self.mebibytes)]
            info = {"length": size, "name": self.file.name, "piece length": PIECE_BYTES,
                    "pieces": b"".join(digests)}
            self.torrent.write_bytes(bencode({"announce": NO_TRACKER, "info": info}))
            stamp.write_text(hashlib.sha1(bencode(info)).hexdigest())
        self.info_hash = bytes.fromhex(stamp.read_text())

    def cached_share(self) -> float:
        """The share of the file that is in the page cache, by fincore (util-linux)."""
        line = subprocess.run(["fincore", "--bytes", "--noheadings", "--output", "RES", self.file],
                              capture_output=True, text=True, check=True)
        return int(line.stdout) / (self.mebibytes << 20)

    @contextlib.contextmanager
    def locked_in_cache(self):
        """Keeps the file in the page cache: locked by vmtouch if that is there, else read once."""
        locker = None
        if shutil.which("vmtouch"):
            locker = subprocess.Popen(["vmtouch", "-q", "-l", self.file],
                                      stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        else:
            progress("vmtouch is not installed: the file is read into the cache, not locked there")
            with open(self.file, "rb") as data:
                while data.read(8 << 20):
                    pass
        try:
            deadline = time.monotonic() + 120
            while self.cached_share() < 1.0:
                if time.monotonic() > deadline:
                    raise Failure(f"{self.file} does not stay in the page cache: is memory short?")
                time.sleep(0.2)
            yield locker is not None
        finally:
            if locker:
                locker.terminate()
                locker.wait()


# ------------------------------------------------------------------------------------------- seeds

class Seed:
    """A program that seeds the content on one port. Subclasses say how it is started."""

    name = ""
    what = ""

    def __init__(self, arguments, content: Content):
        self.arguments = arguments
        self.content = content
        self.process = None
        self.port = 0
        self.log = None

    def command(self, work: Path) -> list:
        """The command line; files that it needs are written into `work`."""
        raise NotImplementedError

    def missing(self) -> str:
        """What is not installed, or nothing."""
        return ""

    def version(self) -> str:
        """How the program calls itself."""
        raise NotImplementedError

    def start(self, work: Path) -> None:
        self.port = free_port()
        command = [str(part) for part in self.command(work)]
        core = self.arguments.server_core
        self.log = open(work / "log", "wb")
        self.process = subprocess.Popen(
            command, cwd=work, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
            start_new_session=True, preexec_fn=lambda: os.sched_setaffinity(0, {core}))
        deadline = time.monotonic() + READY_SECONDS
        while not serves_everything(self.port, self.content):
            if self.process.poll() is not None:
                raise Failure(f"{self.name} ended with {self.process.returncode}: {tail(work)}")
            if time.monotonic() > deadline:
                raise Failure(f"{self.name} does not serve after {READY_SECONDS} s: {tail(work)}")
            time.sleep(0.3)

    def stop(self) -> None:
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.log.close()
        self.process = None


class Seedring(Seed):
    name = "seedring"
    what = "this project"

    def missing(self):
        path = self.arguments.seedring
        return "" if path.exists() else f"{path} (cargo build --release)"

    def version(self):
        return first_line([self.arguments.seedring, "--version"])

    def command(self, work):
        return [self.arguments.seedring, "seed", "--torrent", self.content.torrent,
                "-d", self.content.directory, "--port", self.port, "--no-tracker",
                "--api", "127.0.0.1:0", "--shards", "1", "--json"]


class Rtorrent(Seed):
    name = "rtorrent"
    what = "rTorrent, unlimited slots, limits raised"

    def missing(self):
        return missing_program("rtorrent")

    def version(self):
        return next((line for line in output(["rtorrent", "-h"]).splitlines() if "version" in line),
                    "rTorrent")

    def command(self, work):
        (work / "session").mkdir()
        (work / "rtorrent.rc").write_text(f"""
system.daemon.set = true
session.path.set = {work}/session
directory.default.set = {self.content.directory}
network.bind_address.set = 127.0.0.1
network.port_range.set = {self.port}-{self.port}
network.port_random.set = no
dht.mode.set = disable
protocol.pex.set = no
trackers.use_udp.set = no
protocol.encryption.set = none
throttle.max_uploads.set = 60000
throttle.max_uploads.global.set = 0
throttle.max_peers.normal.set = 10000
throttle.max_peers.seed.set = 10000
network.max_open_sockets.set = 10000
network.max_open_files.set = 600
network.send_buffer.size.set = 4M
network.receive_buffer.size.set = 128K
pieces.memory.max.set = 8192M
pieces.preload.type.set = 0
load.start = {self.content.torrent}
""")
        return ["rtorrent", "-n", "-o", f"import={work}/rtorrent.rc"]


class Libtorrent(Seed):
    name = "libtorrent"
    what = "libtorrent, preset high_performance_seed, checked before it serves"

    def missing(self):
        python = self.arguments.libtorrent_python
        found = subprocess.run([python, "-c", "import libtorrent"], capture_output=True,
                               check=False)
        return "" if found.returncode == 0 else f"the libtorrent module of {python}"

    def version(self):
        python = self.arguments.libtorrent_python
        code = "import libtorrent; print(libtorrent.version)"
        return "libtorrent " + first_line([python, "-c", code])

    def command(self, work):
        script = HERE / "rivals" / "libtorrent_seed.py"
        return [self.arguments.libtorrent_python, script, self.content.torrent,
                self.content.directory, self.port]


class Aria2(Seed):
    name = "aria2"
    what = "aria2, no peer limit (it unchokes 3 or 4 peers whatever its options say)"

    def missing(self):
        return missing_program("aria2c")

    def version(self):
        return first_line(["aria2c", "--version"])

    def command(self, work):
        return ["aria2c", "--no-conf", f"--dir={self.content.directory}",
                f"--listen-port={self.port}", "--seed-ratio=0.0", "--check-integrity=true",
                "--enable-dht=false", "--enable-dht6=false", "--enable-peer-exchange=false",
                "--bt-enable-lpd=false", "--bt-max-peers=0", "--disable-ipv6=true",
                "--bt-hash-check-seed=true", "--file-allocation=none", "--summary-interval=0",
                "--console-log-level=warn", self.content.torrent]


class Transmission(Seed):
    name = "transmission"
    what = "Transmission, slots and peer limits raised"

    def missing(self):
        return missing_program("transmission-daemon")

    def version(self):
        text = output(["transmission-daemon", "--version"])
        return text.strip().splitlines()[0] if text.strip() else "Transmission"

    def command(self, work):
        (work / "watch").mkdir()
        shutil.copy(self.content.torrent, work / "watch")
        settings = {
            "download-dir": str(self.content.directory), "start-added-torrents": True,
            "watch-dir": str(work / "watch"), "watch-dir-enabled": True,
            "rpc-enabled": False, "dht-enabled": False, "lpd-enabled": False,
            "pex-enabled": False, "utp-enabled": False, "port-forwarding-enabled": False,
            "peer-port": self.port, "bind-address-ipv4": "127.0.0.1", "encryption": 0,
            "peer-limit-global": 10000, "peer-limit-per-torrent": 10000,
            "upload-slots-per-torrent": 10000, "speed-limit-up-enabled": False,
            "ratio-limit-enabled": False, "queue-stalled-enabled": False, "cache-size-mb": 64,
            "incomplete-dir-enabled": False, "message-level": 1,
        }
        (work / "settings.json").write_text(json.dumps(settings))
        return ["transmission-daemon", "--foreground", "--config-dir", work]


SEEDS = {seed.name: seed for seed in (Seedring, Rtorrent, Libtorrent, Aria2, Transmission)}


def serves_everything(port: int, content: Content) -> bool:
    """Greets the seed as a peer does, and says whether it answers that it has every piece."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as peer:
            peer.settimeout(2)
            # No reserved bits, so that a whole bitfield must come. aria2 wants nothing before it.
            peer.sendall(b"\x13BitTorrent protocol" + bytes(8) + content.info_hash
                         + b"-SB0100-waits-ready0")
            stream = peer.makefile("rb")
            if len(stream.read(68)) < 68:
                return False
            while True:
                prefix = stream.read(4)
                if len(prefix) < 4:
                    return False
                message = stream.read(struct.unpack(">I", prefix)[0])
                if message[:1] == b"\x05":
                    return sum(byte.bit_count() for byte in message[1:]) == content.mebibytes
    except OSError:
        return False


def free_port() -> int:
    """A free port below those that the kernel gives to outgoing connections."""
    for port in range(20_000 + os.getpid() % 5_000, 32_000):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise Failure("no free port from 20000 to 32000")


def missing_program(program: str) -> str:
    return "" if shutil.which(program) else f"{program} (apt-get install)"


def output(command: list) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def first_line(command: list) -> str:
    return (output(command).strip().splitlines() or ["unknown"])[0]


def tail(work: Path) -> str:
    lines = (work / "log").read_text(errors="replace").strip().splitlines()
    return repr(" / ".join(lines[-3:]))


def progress(line: str) -> None:
    print(f"side_by_side: {line}", file=sys.stderr, flush=True)


# --------------------------------------------------------------------------------------- measuring

@contextlib.contextmanager
def congestion_control(name: str):
    """Sets the system's congestion control for the run and restores it, whatever happens."""
    before = CONGESTION_CONTROL.read_text().strip()
    if name in ("", before):
        yield before
        return
    try:
        CONGESTION_CONTROL.write_text(name)
    except OSError as error:
        raise Failure(f"cannot set TCP {name} ({error}): run as root, or say "
                      "--congestion-control ''")
    try:
        yield name
    finally:
        CONGESTION_CONTROL.write_text(before)


def controls_in_use(port: int) -> list:
    """The congestion controls of the sockets that serve on `port`, as the kernel tells (ss)."""
    text = output(["ss", "-tinH", f"sport = :{port}"])
    known = Path("/proc/sys/net/ipv4/tcp_available_congestion_control").read_text().split()
    return sorted({word for word in text.split() if word in known})


def load(arguments, seed: Seed, peers: int) -> dict:
    """One run of seedring-bench; its report, and what is known beside it."""
    last = 1 + peers
    spread = f"127.0.1.1-127.0.{1 + last // 256}.{last % 256}"
    command = [arguments.bench, "seed", "--torrent", seed.content.torrent,
               "--address", f"127.0.0.1:{seed.port}", "--peers", peers, "--depth", arguments.depth,
               "--duration", arguments.duration, "--warmup", arguments.warmup,
               "--mode", arguments.mode, "--pid", seed.process.pid,
               "--pin", arguments.load_core, "--local-addresses", spread, "--json"]
    cached = seed.content.cached_share()
    child = subprocess.Popen([str(part) for part in command], text=True, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE)
    time.sleep(arguments.warmup + arguments.duration / 2)
    controls = controls_in_use(seed.port)
    out, err = child.communicate()
    run = {"seed": seed.name, "peers": peers, "cached_share": cached,
           "congestion_control": controls, "load_average": os.getloadavg()[0]}
    if child.returncode != 0:
        run["error"] = err.strip().splitlines()[-1] if err.strip() else f"exit {child.returncode}"
    if out.strip():
        run["report"] = json.loads(out)
    return run


def measure(arguments, seeds: list) -> list:
    """All rounds. Each seed is fresh in each round; the numbers of peers ascend within it."""
    runs = []
    for number in range(arguments.rounds):
        turn = number % len(seeds)
        for seed in seeds[turn:] + seeds[:turn]:
            with tempfile.TemporaryDirectory(prefix=f"side-by-side-{seed.name}-") as work:
                try:
                    seed.start(Path(work))
                    for peers in arguments.peers:
                        run = load(arguments, seed, peers)
                        run["round"] = number + 1
                        runs.append(run)
                        progress(line_of(run))
                finally:
                    seed.stop()
    return runs


def line_of(run: dict) -> str:
    start = f"round {run['round']} {run['seed']} N={run['peers']}:"
    if "report" not in run:
        return f"{start} {run['error']}"
    report = run["report"]
    return (f"{start} {report['served']['gigabytes_per_s']:.2f} GB/s, "
            f"{report['server']['cpu_s_per_gib']:.3f} CPU-s/GiB, {report['verdict']}")


# --------------------------------------------------------------------------------------- reporting

COLUMNS = (
    ("GB/s", lambda r: r["served"]["gigabytes_per_s"], "{:.2f}"),
    ("CPU-s/GiB", lambda r: r["server"]["cpu_s_per_gib"], "{:.3f}"),
    ("p50 ms", lambda r: r["latency_us"]["p50"] / 1e3, "{:.2f}"),
    ("p99 ms", lambda r: r["latency_us"]["p99"] / 1e3, "{:.2f}"),
    ("p99.9 ms", lambda r: r["latency_us"]["p99_9"] / 1e3, "{:.2f}"),
    ("resident MiB", lambda r: r["server"]["resident_bytes"] / 2**20, "{:.0f}"),
    ("anonymous MiB", lambda r: r["server"]["anonymous_bytes"] / 2**20, "{:.0f}"),
)


def cell(values: list, form: str) -> str:
    """The median, and the extremes in brackets when they differ."""
    low, middle, high = (form.format(value) for value in
                         (min(values), statistics.median(values), max(values)))
    return middle if low == high else f"{middle} ({low}–{high})"


def reports_of(runs: list, seed: str, peers: int) -> list:
    return [run["report"] for run in runs
            if (run["seed"], run["peers"]) == (seed, peers) and "report" in run]


def figures(runs: list, seeds: list, peers: list) -> str:
    """One row for each seed and number of peers: medians over the rounds, with their spread."""
    names = [name for name, _, _ in COLUMNS] + ["per peer MiB, min / median / max", "remarks"]
    lines = ["| seed | N | " + " | ".join(names) + " |", "|---" * (len(names) + 2) + "|"]
    for count in peers:
        for seed in seeds:
            reports = reports_of(runs, seed.name, count)
            if not reports:
                errors = {run["error"] for run in runs if (run["seed"], run["peers"])
                          == (seed.name, count) and "error" in run}
                lines.append(f"| {seed.name} | {count} | " + " | " * (len(names) - 1)
                             + "; ".join(sorted(errors)) + " |")
                continue
            cells = [cell([value(report) for report in reports], form)
                     for _, value, form in COLUMNS]
            fair = [statistics.median(report["fairness"][key] for report in reports) / 2**20
                    for key in ("bytes_min", "bytes_median", "bytes_max")]
            cells.append(" / ".join(f"{value:.0f}" for value in fair))
            lines.append(f"| {seed.name} | {count} | " + " | ".join(cells)
                         + f" | {remarks(reports)} |")
    return "\n".join(lines)


def remarks(reports: list) -> str:
    found = []
    limited = sum(report["load_limited"] for report in reports)
    if limited:
        found.append(f"load-limited in {limited} of {len(reports)}: no verdict")
    for key in ("chokes", "rejects", "disconnects", "unrequested_blocks"):
        total = sum(report["events"][key] for report in reports)
        if total:
            found.append(f"{total} {key.replace('_', ' ')}")
    starved = max(report["fairness"]["peers_without_data"] for report in reports)
    if starved:
        found.append(f"up to {starved} peers got nothing")
    elsewhere = max(report["elsewhere_cpu_s"] / report["window_s"] for report in reports)
    if elsewhere > 0.1:
        found.append(f"up to {elsewhere:.1f} cores busy elsewhere: not a quiet machine")
    stolen = max(report["stolen_cpu_s"] / report["window_s"] for report in reports)
    if stolen > 0.02:
        found.append(f"up to {stolen:.0%} of a core stolen by the host")
    return "; ".join(found)


def ratios(runs: list, seeds: list, peers: list) -> str:
    """Ours against each other seed: the ratio within each round, and the median of the ratios."""
    lines = ["| seedring / | N | CPU per GiB | throughput |", "|---|---|---|---|"]
    for count in peers:
        for seed in seeds:
            if seed.name == "seedring":
                continue
            pairs = pairs_of(runs, seed.name, count)
            if pairs:
                cpu = [a["server"]["cpu_s_per_gib"] / b["server"]["cpu_s_per_gib"]
                       for a, b in pairs if b["server"]["cpu_s_per_gib"]]
                rate = [a["served"]["gigabytes_per_s"] / b["served"]["gigabytes_per_s"]
                        for a, b in pairs]
                cpu = cell(cpu, "{:.2f}") if cpu else "–"
                lines.append(f"| {seed.name} | {count} | {cpu} | {cell(rate, '{:.2f}')} |")
    return "\n".join(lines) if len(lines) > 2 else ""


def pairs_of(runs: list, rival: str, peers: int) -> list:
    by_round = {}
    for run in runs:
        if run["peers"] == peers and "report" in run:
            by_round.setdefault(run["round"], {})[run["seed"]] = run["report"]
    return [(both["seedring"], both[rival]) for both in by_round.values()
            if "seedring" in both and rival in both]


def conditions(arguments, seeds: list, content: Content, runs: list, locked: bool) -> list:
    """What the figures depend on, as bullet points."""
    host = next((run["report"]["host"] for run in runs if "report" in run), {})
    used = {seed.name: sorted({name for run in runs if run["seed"] == seed.name
                               for name in run["congestion_control"]}) for seed in seeds}
    used = ", ".join(f"{name} {'/'.join(found) or '?'}" for name, found in used.items())
    cached = min((run["cached_share"] for run in runs), default=0.0)
    return [
        f"host: {host.get('cpu', platform.processor())}, {host.get('cores', '?')} cores, "
        f"Linux {platform.release()}, loopback, plaintext",
        f"TCP congestion control of the seeds' sockets, as ss shows it: {used}",
        f"content: one file of {content.mebibytes} MiB, 1 MiB pieces, in the page cache "
        f"({cached:.0%} before each run, {'locked' if locked else 'not locked'})",
        f"load: depth {arguments.depth}, 16 KiB blocks in order, random pieces, mode "
        f"{arguments.mode}; {arguments.duration:g} s after {arguments.warmup:g} s; one address a "
        "peer",
        f"seed pinned to core {arguments.server_core}, load to core {arguments.load_core}",
        f"{arguments.rounds} interleaved rounds, each with fresh seeds; median (lowest–highest)",
        "CPU: user + system of all threads of the seed; loopback charges receiving to the sender",
    ] + [f"{seed.name}: {seed.version()} ({seed.what})" for seed in seeds]


# -------------------------------------------------------------------------------------------- main

def parse() -> argparse.Namespace:
    root = HERE.parent
    target = Path(os.environ.get("CARGO_TARGET_DIR", root / "target")) / "release"
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="seedring,rtorrent,libtorrent",
                        help="of " + ",".join(SEEDS) + " (default: %(default)s)")
    parser.add_argument("--peers", default="1,16,200",
                        help="numbers of peers (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--duration", type=float, default=4, help="measured seconds of each run")
    parser.add_argument("--warmup", type=float, default=1.5, help="seconds of load before them")
    parser.add_argument("--depth", type=int, default=64, help="requests under way at each peer")
    parser.add_argument("--mode", choices=("discard", "read", "verify"), default="read")
    parser.add_argument("--mebibytes", type=int, default=4096, help="size of the content")
    parser.add_argument("--directory", type=Path, default=Path("/var/tmp/side-by-side"),
                        help="where the content is kept (default: %(default)s)")
    parser.add_argument("--server-core", type=int, default=0)
    parser.add_argument("--load-core", type=int, default=1)
    parser.add_argument("--congestion-control", default="cubic",
                        help="set for the run, then restored; '' keeps the system's "
                             "(default: cubic)")
    parser.add_argument("--bench", type=Path, default=target / "seedring-bench")
    parser.add_argument("--seedring", type=Path, default=target / "seedring")
    parser.add_argument("--libtorrent-python", default=sys.executable,
                        help="a Python that can import libtorrent (default: this one)")
    parser.add_argument("--output", type=Path, help="write every run to this JSON file")
    arguments = parser.parse_args()
    try:
        arguments.peers = sorted(int(count) for count in arguments.peers.split(","))
        arguments.seeds = [SEEDS[name] for name in arguments.seeds.split(",")]
    except (ValueError, KeyError) as error:
        parser.error(f"--peers wants numbers, --seeds wants names of {', '.join(SEEDS)}: {error}")
    if arguments.rounds < 1 or arguments.peers[0] < 1:
        parser.error("--rounds and --peers must be at least 1")
    return arguments


def main() -> None:
    arguments = parse()
    if not arguments.bench.exists():
        raise Failure(f"{arguments.bench} is missing: cargo build --release -p seedring-bench")
    # Absolute, because each seed is started in a directory of its own.
    arguments.bench, arguments.seedring = arguments.bench.resolve(), arguments.seedring.resolve()
    content = Content(arguments.directory.resolve(), arguments.mebibytes)
    seeds = [kind(arguments, content) for kind in arguments.seeds]
    for seed in seeds:
        if missing := seed.missing():
            raise Failure(f"{seed.name} needs {missing}; or leave it out of --seeds")
    content.prepare()
    # Ctrl-C and SIGTERM both unwind, so that seeds stop and the congestion control comes back.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with content.locked_in_cache() as locked, congestion_control(arguments.congestion_control):
        runs = measure(arguments, seeds)
    points = conditions(arguments, seeds, content, runs, locked)
    tables = [figures(runs, seeds, arguments.peers), ratios(runs, seeds, arguments.peers)]
    print("\n".join(f"- {point}" for point in points))
    for table in filter(None, tables):
        print(f"\n{table}")
    if arguments.output:
        document = {"conditions": points, "runs": runs}
        arguments.output.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    try:
        main()
    except Failure as failure:
        sys.exit(f"side_by_side: {failure}")
