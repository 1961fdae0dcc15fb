//! The server under test: `seedring seed` in a child process, and its other commands.
//!
//! Every port is 0 and every folder temporary, so tests do not meet.

use crate::http;
use crate::peer::Peer;
use crate::process::Process;
use crate::torrent::Torrent;
use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Longest wait for the ready line; hashing a few hundred MiB in a debug build included.
const READY: Duration = Duration::from_secs(60);
/// Longest wait for a short command.
pub const SHORT: Duration = Duration::from_secs(30);
/// Longest wait for a metric to be as it should be: for searches in a DHT, say.
const METRIC: Duration = Duration::from_secs(180);

/// The path of the server binary: `SEEDRING_BIN`, else beside the test's own profile folder.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("SEEDRING_BIN") {
        return PathBuf::from(path);
    }
    let test = std::env::current_exe().unwrap();
    let profile = test.ancestors().nth(2).unwrap();
    let path = profile.join("seedring");
    assert!(
        path.is_file(),
        "{} is missing: build it with `cargo build -p seedring`, or name one in SEEDRING_BIN",
        path.display()
    );
    path
}

/// A command line of the binary.
pub fn seedring<I: IntoIterator<Item = S>, S: Into<OsString>>(arguments: I) -> Command {
    let mut command = Command::new(binary());
    command.args(arguments.into_iter().map(Into::into));
    clean_environment(&mut command);
    command
}

/// The server takes settings from `SEEDRING_…` variables: those of the tests are no business of
/// its.
pub fn clean_environment(command: &mut Command) {
    command.env_remove("RUST_BACKTRACE").env_remove("RUST_LOG");
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SEEDRING_") {
            command.env_remove(name);
        }
    }
    // Only tests of the DHT take part in one, and name their own nodes.
    command.env("SEEDRING_DHT__ENABLED", "false");
}

/// How to start `seedring seed`.
#[derive(Debug, Default)]
pub struct Seed {
    arguments: Vec<OsString>,
    prefix: Vec<OsString>,
    settings: Vec<(String, String)>,
    api: Option<String>,
    state: Option<PathBuf>,
}

impl Seed {
    /// Seeds one file or folder.
    pub fn path(path: &Path) -> Self {
        Self::default().and_path(path)
    }

    /// Seeds the data of an existing torrent that lies in `folder`.
    pub fn torrent(torrent: &Path, folder: &Path) -> Self {
        let mut seed = Self::default();
        seed.arguments.extend([
            "--torrent".into(),
            torrent.into(),
            "-d".into(),
            folder.into(),
        ]);
        seed
    }

    /// Seeds another file or folder as well.
    pub fn and_path(mut self, path: &Path) -> Self {
        self.arguments.push(path.into());
        self
    }

    /// Adds options as they are.
    pub fn options<S: Into<OsString>>(mut self, options: impl IntoIterator<Item = S>) -> Self {
        self.arguments.extend(options.into_iter().map(Into::into));
        self
    }

    /// Overrides a configuration key by its environment variable.
    pub fn setting(mut self, section: &str, key: &str, value: &str) -> Self {
        let variable = format!(
            "SEEDRING_{}__{}",
            section.to_uppercase(),
            key.to_uppercase()
        );
        self.settings.push((variable, value.to_owned()));
        self
    }

    /// Keeps state in a folder that outlives the server.
    pub fn state_dir(mut self, folder: &Path) -> Self {
        self.state = Some(folder.to_owned());
        self
    }

    /// Puts the API on this address; the port is any.
    pub fn api_address(mut self, address: IpAddr) -> Self {
        self.api = Some(SocketAddr::new(address, 0).to_string());
        self
    }

    /// Runs the server under another command, such as `prlimit`.
    pub fn under<S: Into<OsString>>(mut self, prefix: impl IntoIterator<Item = S>) -> Self {
        self.prefix = prefix.into_iter().map(Into::into).collect();
        self
    }

    /// Starts it without waiting for anything.
    pub fn launch(self) -> (Process, Option<TempDir>) {
        let own = self.state.is_none().then(|| TempDir::new().unwrap());
        let state = self
            .state
            .unwrap_or_else(|| own.as_ref().unwrap().path().to_owned());
        let api = self.api.unwrap_or_else(|| "127.0.0.1:0".to_owned());
        let mut arguments: Vec<OsString> = vec!["seed".into()];
        arguments.extend(self.arguments);
        arguments.extend(["--port", "0", "--tracker-port", "0", "--api", &api].map(Into::into));
        arguments.extend(["--state-dir".into(), state.into(), "--json".into()]);
        let mut command = match self.prefix.split_first() {
            Some((program, rest)) => {
                let mut command = Command::new(program);
                command.args(rest).arg(binary()).args(arguments);
                clean_environment(&mut command);
                command
            }
            None => seedring(arguments),
        };
        command.envs(self.settings);
        (Process::spawn("seedring", &command), own)
    }

    /// Starts it and waits for the ready line.
    pub fn start(self) -> Server {
        let (mut process, state) = self.launch();
        let ready = process.wait_for("ready line", READY, |process| event(process, "ready"));
        let ready_after = process.started().elapsed();
        Server {
            process,
            ready: Ready::parse(&ready),
            ready_after,
            _state: state,
        }
    }
}

/// What the ready line says.
#[derive(Debug, Clone)]
pub struct Ready {
    /// The port that peers connect to.
    pub peer_port: u16,
    /// The base URL of the API.
    pub api: String,
    /// The announce URL of the server's own tracker.
    pub tracker: Option<String>,
    /// Where the server's DHT nodes listen.
    pub dht: Vec<SocketAddr>,
    /// The torrents in the order given.
    pub torrents: Vec<Seeded>,
    /// The bytes of memory that the server promises to stay under.
    pub memory_bytes_max: Option<u64>,
    /// The descriptors that the server promises to stay under.
    pub descriptors_max: Option<u64>,
}

/// One torrent of the ready line.
#[derive(Debug, Clone)]
pub struct Seeded {
    /// The path of the .torrent file.
    pub torrent: PathBuf,
    /// The magnet link.
    pub magnet: String,
    /// The v1 info-hash in hexadecimal.
    pub info_hash_v1: String,
    /// The name.
    pub name: String,
}

impl Ready {
    fn parse(value: &Value) -> Self {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let field = |value: &Value, key: &str| {
            text(&value[key]).unwrap_or_else(|| panic!("the ready line has no {key}: {value}"))
        };
        let torrents = value["torrents"]
            .as_array()
            .expect("torrents in the ready line");
        Self {
            peer_port: u16::try_from(value["peer_port"].as_u64().expect("peer_port")).unwrap(),
            api: field(value, "api"),
            tracker: text(&value["tracker"]),
            dht: value["dht"]
                .as_array()
                .expect("the nodes in the ready line")
                .iter()
                .map(|address| text(address).unwrap().parse().unwrap())
                .collect(),
            torrents: torrents
                .iter()
                .map(|torrent| Seeded {
                    torrent: field(torrent, "torrent").into(),
                    magnet: field(torrent, "magnet"),
                    info_hash_v1: field(torrent, "info_hash_v1"),
                    name: field(torrent, "name"),
                })
                .collect(),
            memory_bytes_max: value["memory_bytes_max"].as_u64(),
            descriptors_max: value["descriptors_max"].as_u64(),
        }
    }
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    /// The process.
    pub process: Process,
    /// What it said when it was ready.
    pub ready: Ready,
    /// How long that took from its start.
    pub ready_after: Duration,
    _state: Option<TempDir>,
}

impl Server {
    /// The address that peers connect to.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), self.ready.peer_port)
    }

    /// The parsed torrent file number `index`.
    pub fn torrent(&self, index: usize) -> Torrent {
        Torrent::read(&self.ready.torrents[index].torrent)
    }

    /// A raw peer that may request from that torrent.
    pub fn peer(&self, torrent: &Torrent) -> Peer {
        let mut peer = Peer::connect(self.address(), &torrent.info_hash)
            .unwrap_or_else(|error| panic!("a peer connects: {error}"));
        peer.unchoked()
            .unwrap_or_else(|error| panic!("a peer is unchoked: {error}"));
        peer
    }

    /// All JSON events of that name so far.
    pub fn events(&self, name: &str) -> Vec<Value> {
        events(&self.process, name)
    }

    /// Waits for an event of that name which `accept` likes.
    pub fn wait_event(
        &mut self,
        name: &str,
        limit: Duration,
        accept: impl Fn(&Value) -> bool,
    ) -> Value {
        self.process.wait_for(name, limit, |process| {
            events(process, name)
                .into_iter()
                .find(|event| accept(event))
        })
    }

    /// The metrics, each series with its labels as printed, and its value.
    pub fn metrics(&self) -> BTreeMap<String, f64> {
        metrics_of(&self.ready.api)
    }

    /// Waits until a metric is at least so much.
    pub fn wait_for_metric(&mut self, series: &str, least: f64) {
        self.wait_until_metric(series, |value| value >= least);
    }

    /// Waits until a metric is as it should be.
    pub fn wait_until_metric(&mut self, series: &str, is_right: impl Fn(f64) -> bool) {
        let api = self.ready.api.clone();
        self.process.wait_for(series, METRIC, |_| {
            is_right(metrics_of(&api)[series]).then_some(())
        });
    }

    /// Open descriptors of the process.
    pub fn descriptors(&self) -> usize {
        entries(&format!("/proc/{}/fd", self.process.pid()))
    }

    /// The names of the threads that stay for the process's life, sorted. Left out are workers that
    /// io_uring and the control plane's runtime start and end as they need them.
    pub fn threads(&self) -> Vec<String> {
        let folder = format!("/proc/{}/task", self.process.pid());
        let tasks = std::fs::read_dir(folder).unwrap().flatten();
        let names = tasks.map(|task| std::fs::read_to_string(task.path().join("comm")));
        let names = names.flatten().map(|name| name.trim().to_owned());
        let mut names: Vec<String> = names
            .filter(|name| !name.starts_with("iou-") && name != "control")
            .collect();
        names.sort();
        names
    }

    /// Resident memory that belongs to the process alone (file pages excluded), in bytes.
    pub fn memory_bytes(&self) -> u64 {
        let path = format!("/proc/{}/status", self.process.pid());
        let status = std::fs::read_to_string(path).unwrap();
        let kib = |key: &str| {
            let line = status.lines().find(|line| line.starts_with(key)).unwrap();
            line.split_whitespace()
                .nth(1)
                .unwrap()
                .parse::<u64>()
                .unwrap()
        };
        kib("RssAnon:") * 1024
    }

    /// Sends SIGTERM and waits for the end.
    pub fn stop(&mut self, limit: Duration) -> (ExitStatus, Duration) {
        let start = Instant::now();
        self.process.terminate();
        let status = self.process.wait_exit(limit);
        (status, start.elapsed())
    }
}

/// The metrics of the server whose API is at this URL, as [`Server::metrics`].
pub fn metrics_of(api: &str) -> BTreeMap<String, f64> {
    let reply = http::get(&format!("{}/metrics", api.trim_end_matches('/')));
    assert_eq!(reply.status, 200, "/metrics");
    parse_metrics(&reply.text())
}

/// Parses the Prometheus text format as far as these tests need it.
pub fn parse_metrics(text: &str) -> BTreeMap<String, f64> {
    let lines = text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').expect("series and value");
            (series.to_owned(), value.parse().unwrap_or(f64::NAN))
        })
        .collect()
}

/// The first JSON event of that name on standard output.
pub fn event(process: &Process, name: &str) -> Option<Value> {
    events(process, name).into_iter().next()
}

/// All JSON events of that name on standard output.
pub fn events(process: &Process, name: &str) -> Vec<Value> {
    let stdout = process.stdout();
    // The last line may be half written.
    let complete = stdout.rfind('\n').map_or("", |end| &stdout[..end]);
    complete
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|value| value["event"] == name)
        .collect()
}

fn entries(folder: &str) -> usize {
    std::fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{folder}: {error}"))
        .count()
}
