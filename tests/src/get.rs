//! `seedring get` in a child process, and what it says of its download.

use crate::process::Process;
use crate::server::{binary, clean_environment, event, events};
use rustix::process::Signal;
use serde_json::Value;
use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;
use tempfile::TempDir;

/// How to start `seedring get`.
#[derive(Debug)]
pub struct Get {
    arguments: Vec<OsString>,
    settings: Vec<(String, String)>,
    state: Option<PathBuf>,
}

/// A download under way.
#[derive(Debug)]
pub struct Getting {
    /// The process.
    pub process: Process,
    _state: Option<TempDir>,
}

impl Get {
    /// Downloads a `.torrent` file, a URL or a magnet link into `folder`.
    pub fn new(source: impl AsRef<OsStr>, folder: &Path) -> Self {
        let source = source.as_ref().to_owned();
        Self {
            arguments: vec!["get".into(), source, "-d".into(), folder.into()],
            settings: Vec::new(),
            state: None,
        }
    }

    /// Asks this peer.
    pub fn peer(self, peer: SocketAddr) -> Self {
        self.options(["--peer".to_owned(), peer.to_string()])
    }

    /// Adds options as they are.
    pub fn options<S: Into<OsString>>(mut self, options: impl IntoIterator<Item = S>) -> Self {
        self.arguments.extend(options.into_iter().map(Into::into));
        self
    }

    /// Overrides a configuration key by its environment variable.
    pub fn setting(mut self, section: &str, key: &str, value: &str) -> Self {
        let (section, key) = (section.to_uppercase(), key.to_uppercase());
        let variable = format!("SEEDRING_{section}__{key}");
        self.settings.push((variable, value.to_owned()));
        self
    }

    /// Keeps state in a folder that outlives the process.
    pub fn state_dir(mut self, folder: &Path) -> Self {
        self.state = Some(folder.to_owned());
        self
    }

    /// Starts it.
    pub fn start(self) -> Getting {
        self.start_on(&|program| Command::new(program))
    }

    /// Starts it on another host, for which `host` makes commands.
    pub fn start_on(self, host: &dyn Fn(&OsStr) -> Command) -> Getting {
        let own = self.state.is_none().then(|| TempDir::new().unwrap());
        let state = self
            .state
            .unwrap_or_else(|| own.as_ref().unwrap().path().to_owned());
        let mut command = host(binary().as_os_str());
        command.args(self.arguments);
        command.arg("--json").arg("--state-dir").arg(state);
        clean_environment(&mut command);
        command.envs(self.settings);
        Getting {
            process: Process::spawn("seedring get", &command),
            _state: own,
        }
    }
}

impl Getting {
    /// Waits for its end, which must be a good one, and returns what it said then.
    pub fn complete(mut self, limit: Duration) -> Value {
        let status = self.process.wait_exit(limit);
        assert!(status.success(), "{status}\n{}", self.process.transcript());
        event(&self.process, "complete").expect("a download that ended well says so")
    }

    /// Waits until so many bytes are there and written.
    pub fn bytes_done(&mut self, least: u64, limit: Duration) {
        self.process.wait_for("progress", limit, |process| {
            let progress = last(process, "progress")?;
            let done = progress["bytes_done"].as_u64()?;
            (progress["action"] == "fetching" && done >= least).then_some(())
        });
    }

    /// Waits for an event of that name.
    pub fn event(&mut self, name: &str, limit: Duration) -> Value {
        self.process
            .wait_for(name, limit, |process| event(process, name))
    }

    /// Stops it as Ctrl-C does.
    pub fn interrupt(&mut self, limit: Duration) -> ExitStatus {
        self.process.signal(Signal::INT);
        self.process.wait_exit(limit)
    }

    /// Kills it.
    pub fn kill(&mut self, limit: Duration) {
        self.process.signal(Signal::KILL);
        self.process.wait_exit(limit);
    }
}

/// The last event of that name.
pub fn last(process: &Process, name: &str) -> Option<Value> {
    events(process, name).pop()
}
