//! `seedring serve` in a child process, and the commands that ask it.
//!
//! It listens at a socket in its state folder and at any port of loopback; nothing outside is
//! asked.

use crate::content::write_file;
use crate::process::{Process, run};
use crate::server::{SHORT, event, metrics_of, seedring};
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The configuration, if there is one.
const CONFIGURATION: &str = "seedring.toml";
/// Longest wait for the server to be ready, and for what it is asked for to be so.
const READY: Duration = Duration::from_secs(60);
/// How often the server is asked whether it is so.
const POLL: Duration = Duration::from_millis(100);

/// A running server, and folders for it.
#[derive(Debug)]
pub struct Served {
    /// The process.
    pub process: Process,
    /// The folder that holds all others.
    pub root: TempDir,
    /// Where the API is over TCP.
    pub api: String,
    /// Keys of the configuration.
    settings: Vec<(String, String)>,
}

/// What a command has said.
#[derive(Debug)]
pub struct Said {
    /// The exit code.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Said {
    /// The lines of JSON on standard output.
    pub fn json(&self) -> Vec<Value> {
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{self:?}"));
        self.stdout.lines().map(parse).collect()
    }
}

impl Served {
    /// Starts one that knows no torrents.
    pub fn start() -> Served {
        Served::start_with(&[])
    }

    /// The same with keys of the configuration, such as `SEEDRING_API__AUTH`.
    pub fn start_with(settings: &[(&str, &str)]) -> Served {
        Served::start_below(TempDir::new().unwrap(), settings)
    }

    /// The same with everything below this folder.
    pub fn start_below(root: TempDir, settings: &[(&str, &str)]) -> Served {
        let own = |text: &&str| (*text).to_owned();
        let settings = settings.iter().map(|(key, value)| (own(key), own(value)));
        let settings: Vec<(String, String)> = settings.collect();
        let (process, api) = launch(root.path(), &settings);
        Served {
            process,
            root,
            api,
            settings,
        }
    }

    /// Starts one that has the torrents of this state folder, whose store is copied.
    pub fn of_state(state: &Path) -> Served {
        let root = TempDir::new().unwrap();
        let own = root.path().join("state");
        std::fs::create_dir(&own).unwrap();
        std::fs::copy(state.join("store.redb"), own.join("store.redb")).unwrap();
        Served::start_below(root, &[])
    }

    /// The same with a configuration, in which `@` stands for the folder that holds all others: it
    /// is there, with the folders `in` and `out`, when `prepare` is called.
    pub fn start_configured(text: &str, prepare: impl FnOnce(&Path)) -> Served {
        let root = TempDir::new().unwrap();
        for folder in ["in", "out"] {
            std::fs::create_dir(root.path().join(folder)).unwrap();
        }
        prepare(root.path());
        let text = text.replace('@', root.path().to_str().unwrap());
        std::fs::write(root.path().join(CONFIGURATION), text).unwrap();
        let (process, api) = launch(root.path(), &[]);
        Served {
            process,
            root,
            api,
            settings: Vec::new(),
        }
    }

    /// Has it read another configuration, in which `@` stands for the folder that holds all others,
    /// and waits until that holds.
    pub fn reload(&mut self, text: &str) {
        const READ: &str = "the configuration has been read again";
        let text = text.replace('@', self.root.path().to_str().unwrap());
        std::fs::write(self.root.path().join(CONFIGURATION), text).unwrap();
        let count = |process: &Process| process.stderr().matches(READ).count();
        let before = count(&self.process);
        self.process.signal(Signal::HUP);
        let read = |process: &Process| (count(process) > before).then_some(());
        self.process.wait_for(READ, READY, read);
    }

    /// Where peers connect on this machine.
    pub fn peers(&self) -> SocketAddr {
        let server = self.say(["stats", "--json"]).json()[0]["server"].clone();
        let port = u16::try_from(server["peer_port"].as_u64().unwrap()).unwrap();
        SocketAddr::from((Ipv4Addr::LOCALHOST, port))
    }

    /// The metrics.
    pub fn metrics(&self) -> BTreeMap<String, f64> {
        metrics_of(&self.api)
    }

    /// Waits until something is so.
    pub fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        let until = Instant::now() + READY;
        while !is_so() {
            let transcript = || self.process.transcript();
            assert!(Instant::now() < until, "no {what}\n{}", transcript());
            std::thread::sleep(POLL);
        }
    }

    /// Ends it and starts another with its state.
    pub fn restart(&mut self) {
        self.stop();
        self.again();
    }

    /// Ends it.
    pub fn stop(&mut self) {
        self.process.terminate();
        self.process.wait_exit(READY);
    }

    /// Starts another with the state of one that has ended.
    pub fn again(&mut self) {
        (self.process, self.api) = launch(self.root.path(), &self.settings);
    }

    /// The state folder.
    pub fn state(&self) -> PathBuf {
        self.root.path().join("state")
    }

    /// A path below the folder that holds all others.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Writes data of this name and length and makes a torrent of them: the torrent.
    pub fn make(&self, name: &str, length: u64) -> PathBuf {
        let data = self.path("data").join(name);
        write_file(&data, length, length);
        let torrent = self.path(&format!("{name}.torrent"));
        let mut command = seedring(["create"]);
        command.arg(&data).arg("-o").arg(&torrent);
        crate::process::run_ok("create", &command, SHORT);
        torrent
    }

    /// A command line that asks this server.
    pub fn command<S: Into<OsString>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = seedring(arguments);
        command.arg("--state-dir").arg(self.state());
        command
    }

    /// What a command says.
    pub fn say<S: Into<OsString>>(&self, arguments: impl IntoIterator<Item = S>) -> Said {
        said(&self.command(arguments))
    }

    /// What a command that succeeds prints.
    pub fn ok<S: Into<OsString>>(&self, arguments: impl IntoIterator<Item = S>) -> String {
        let said = self.say(arguments);
        assert_eq!(said.code, 0, "{said:?}\n{}", self.process.transcript());
        said.stdout
    }

    /// All torrents.
    pub fn torrents(&self) -> Vec<Value> {
        let said = self.say(["list", "--all", "--json"]);
        assert_eq!(said.code, 0, "{said:?}");
        said.json()
    }

    /// Waits until the torrents are as they should be.
    pub fn wait(&self, what: &str, is_so: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let until = Instant::now() + READY;
        loop {
            let torrents = self.torrents();
            if is_so(&torrents) {
                return torrents;
            }
            let transcript = || self.process.transcript();
            assert!(
                Instant::now() < until,
                "no {what}: {torrents:?}\n{}",
                transcript()
            );
            std::thread::sleep(POLL);
        }
    }

    /// Waits until the only torrent, or all, have this status.
    pub fn wait_status(&self, status: &str) -> Vec<Value> {
        self.wait(status, |torrents| {
            !torrents.is_empty() && torrents.iter().all(|torrent| torrent["status"] == status)
        })
    }
}

/// What any command says.
pub fn said(command: &Command) -> Said {
    let (status, process) = run("seedring", command, READY);
    let stderr = process.stderr();
    assert!(!stderr.contains("panicked"), "{stderr}");
    Said {
        code: status.code().unwrap(),
        stdout: process.stdout(),
        stderr,
    }
}

fn launch(root: &Path, settings: &[(String, String)]) -> (Process, String) {
    let file = root.join(CONFIGURATION);
    let configured = file
        .exists()
        .then(|| [OsString::from("--config"), file.into()]);
    let mut command = seedring(["serve", "--json"]);
    command
        .arg("--state-dir")
        .arg(root.join("state"))
        .env("HOME", root)
        .env("SEEDRING_PEERS__PORT", "0")
        .env("SEEDRING_API__LISTEN", "127.0.0.1:0")
        .args(configured.into_iter().flatten())
        .envs(settings.iter().map(|(key, value)| (key, value)));
    let mut process = Process::spawn("serve", &command);
    let ready = process.wait_for("ready line", READY, |process| event(process, "ready"));
    let api = ready["api"].as_str().unwrap().trim_end_matches('/');
    (process, api.to_owned())
}
