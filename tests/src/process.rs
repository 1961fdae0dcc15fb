//! A child process that a test owns: its output is kept in files, it is ended by its pid when the test
//! drops it, and what it said is printed when the test fails.
//!
//! Every wait has a limit and fails at once when the process ends early.

use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How often a condition is looked at again.
pub(crate) const POLL: Duration = Duration::from_millis(20);
/// How much of a failed child's output is shown.
const TAIL_BYTES: usize = 12_000;

/// A child process and what it has printed so far.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    started: Instant,
    output: TempDir,
}

impl Process {
    /// Starts `command` with no input. It dies with the thread that starts it, whatever happens to that.
    pub fn spawn(name: &str, command: &Command) -> Self {
        let output = TempDir::new().unwrap();
        let stdout = File::create(output.path().join("stdout")).unwrap();
        let stderr = File::create(output.path().join("stderr")).unwrap();
        let mut command = bound_to_parent(command);
        command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("start {name}: {error}"));
        Self {
            name: name.to_owned(),
            child,
            started: Instant::now(),
            output,
        }
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// When it was started.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// What it has printed on standard output.
    pub fn stdout(&self) -> String {
        read_lossy(&self.output.path().join("stdout"))
    }

    /// What it has printed on standard error.
    pub fn stderr(&self) -> String {
        read_lossy(&self.output.path().join("stderr"))
    }

    /// False once it has ended.
    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits until `look` finds something, at most `limit`; fails when the process ends first.
    pub fn wait_for<T>(
        &mut self,
        what: &str,
        limit: Duration,
        mut look: impl FnMut(&Self) -> Option<T>,
    ) -> T {
        let until = Instant::now() + limit;
        loop {
            let ended = self.child.try_wait().unwrap();
            if let Some(found) = look(self) {
                return found;
            }
            if let Some(status) = ended {
                panic!(
                    "{} ended ({status}) before {what}\n{}",
                    self.name,
                    self.transcript()
                );
            }
            assert!(
                Instant::now() < until,
                "{}: no {what} within {limit:?}\n{}",
                self.name,
                self.transcript()
            );
            std::thread::sleep(POLL);
        }
    }

    /// Waits for its end, at most `limit`.
    pub fn wait_exit(&mut self, limit: Duration) -> ExitStatus {
        let until = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(
                Instant::now() < until,
                "{} still runs after {limit:?}\n{}",
                self.name,
                self.transcript()
            );
            std::thread::sleep(POLL);
        }
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Sends a signal; a process that is already gone is no error.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).unwrap()).unwrap();
        let _gone = kill_process(pid, signal);
    }

    /// The end of both outputs, for a failure message.
    pub fn transcript(&self) -> String {
        let (stdout, stderr) = (self.stdout(), self.stderr());
        format!(
            "--- {} stdout\n{}\n--- {} stderr\n{}\n---",
            self.name,
            tail(&without_progress(&stdout)),
            self.name,
            tail(&stderr)
        )
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.child.try_wait().ok().flatten().is_none() {
            let _gone = self.child.kill();
            let _reaped = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("{}", self.transcript());
        }
    }
}

/// Runs a command to its end, at most `limit`, and returns it for its status and outputs.
pub fn run(name: &str, command: &Command, limit: Duration) -> (ExitStatus, Process) {
    let mut process = Process::spawn(name, command);
    let status = process.wait_exit(limit);
    (status, process)
}

/// Runs a command that must succeed, and returns its standard output.
pub fn run_ok(name: &str, command: &Command, limit: Duration) -> String {
    let (status, process) = run(name, command, limit);
    assert!(
        status.success(),
        "{name} failed ({status})\n{}",
        process.transcript()
    );
    process.stdout()
}

/// The same command under `setpriv --pdeathsig`, so that no child outlives a killed test.
fn bound_to_parent(command: &Command) -> Command {
    let setpriv = Path::new("/usr/bin/setpriv");
    let mut bound = if setpriv.exists() {
        let mut bound = Command::new(setpriv);
        bound
            .args(["--pdeathsig", "KILL", "--"])
            .arg(command.get_program());
        bound
    } else {
        Command::new(command.get_program())
    };
    bound.args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => bound.env(key, value),
            None => bound.env_remove(key),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        bound.current_dir(folder);
    }
    bound
}

fn read_lossy(path: &PathBuf) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}

/// The output without the lines of a running progress display, which would push the cause out of sight.
fn without_progress(text: &str) -> String {
    let lines = text.split(['\n', '\r']).filter(|line| {
        let progress = ["{\"event\":\"progress\"", "Progress: ", "[#"];
        !progress.iter().any(|start| line.starts_with(start)) && !line.is_empty()
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn tail(text: &str) -> &str {
    let mut start = text.len().saturating_sub(TAIL_BYTES);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}
