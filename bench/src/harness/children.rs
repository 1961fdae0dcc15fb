//! Programs that are measured: started in a process group of their own, on the cores that they are
//! given, and ended when the measurement is, whatever happens.
//!
//! Each is started through `setpriv --pdeathsig` and `taskset` of util-linux, which become the
//! program by `exec`: its process id is the one that we started, and the kernel ends it should
//! this process be killed, but not what it started itself: that goes on then. The signal follows
//! the thread that started it, so programs are started from the main thread only.
//!
//! CPU time is user + system of all threads, read between the program's end and its burial, in
//! clock ticks of 10 ms.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open, waitid,
};

use crate::harness::undo::{self, Guard, Undo};
use crate::measure::{ProcessSample, peak_resident_bytes};

/// How long a program may take to end after SIGTERM before it is killed.
const GRACE: Duration = Duration::from_secs(15);

/// How often memory is looked at while a program runs.
const LOOK_MS: i64 = 50;

/// How much of a failed program's log is shown: its last lines, and of those no more bytes.
const LOG_TAIL_LINES: usize = 3;
const LOG_TAIL_BYTES: usize = 600;

/// A shell's way to become the program of `"$@"`, unless its parent is not `$0` any more: then the
/// parent died before the kernel knew that it must tell.
const UNLESS_ORPHANED: &str = r#"test "$PPID" -eq "$0" && exec "$@""#;

/// A command line, and where it is to run.
#[derive(Debug, Clone)]
pub struct Program {
    /// The program and its arguments.
    words: Vec<OsString>,
    /// Cores that it may use; empty: all.
    cores: Vec<usize>,
    /// Its working directory; none: ours.
    directory: Option<PathBuf>,
    /// What its environment has that ours has not, or has otherwise; none: lacks.
    environment: Vec<(OsString, Option<OsString>)>,
    /// What the kernel sends it should this process die.
    death_signal: &'static str,
}

impl Program {
    /// A program without arguments yet.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            words: vec![program.as_ref().to_owned()],
            cores: Vec::new(),
            directory: None,
            environment: Vec::new(),
            death_signal: "KILL",
        }
    }

    /// Adds an argument.
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.words.push(argument.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    pub fn args<T: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = T>) -> Self {
        let words = arguments
            .into_iter()
            .map(|argument| argument.as_ref().to_owned());
        self.words.extend(words);
        self
    }

    /// Keeps it on these cores; none: all.
    pub fn on_cores(mut self, cores: &[usize]) -> Self {
        self.cores = cores.to_vec();
        self
    }

    /// Sets a variable of its environment.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        let variable = (name.as_ref().to_owned(), Some(value.as_ref().to_owned()));
        self.environment.push(variable);
        self
    }

    /// Runs it in this directory.
    pub fn in_directory(mut self, directory: &Path) -> Self {
        self.directory = Some(directory.to_owned());
        self
    }

    /// Runs it in this directory, which it also takes for its user's home: nothing of the user's
    /// own settings is read or written.
    pub fn at_home_in(self, directory: &Path) -> Self {
        let mut program = self.in_directory(directory).env("HOME", directory);
        let elsewhere = ["XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"];
        let without = elsewhere.map(|name| (OsString::from(name), None));
        program.environment.extend(without);
        program
    }

    /// Lets the kernel ask it to end, instead of killing it, should this process die: for programs
    /// that alone can end what they started.
    pub fn gently(mut self) -> Self {
        self.death_signal = "TERM";
        self
    }

    /// Its file name, for messages.
    pub fn name(&self) -> String {
        let name = Path::new(&self.words[0])
            .file_name()
            .unwrap_or(&self.words[0]);
        name.to_string_lossy().into_owned()
    }

    /// Starts it; what it prints goes to the file `log`.
    pub fn start(&self, log: &Path) -> anyhow::Result<Running> {
        let output = File::create(log).with_context(|| format!("cannot create {log:?}"))?;
        let mut command = self.command(std::process::id());
        command.stdin(Stdio::null());
        command.stdout(output.try_clone().context("cannot share a log file")?);
        command.stderr(output);
        let started = Instant::now();
        let spawned = undo::make(|| {
            let child = command.spawn()?;
            let group = Pid::from_child(&child);
            Ok::<_, io::Error>((child, Undo::KillGroup(group)))
        });
        let (child, guard) = spawned.with_context(|| {
            let name = self.name();
            format!("cannot start {name:?} (setpriv and taskset are from util-linux)")
        })?;
        Ok(Running {
            child,
            guard: Some(guard),
            started,
            name: self.name(),
            log: log.to_owned(),
            peak_bytes: 0,
            status: None,
        })
    }

    /// The command line by which it is started as a child of `parent`, and ends with it.
    fn command(&self, parent: u32) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", self.death_signal]);
        command.args(["sh", "-c", UNLESS_ORPHANED, &parent.to_string()]);
        if !self.cores.is_empty() {
            let cores: Vec<String> = self.cores.iter().map(usize::to_string).collect();
            command.args(["taskset", "--cpu-list", &cores.join(",")]);
        }
        command.args(&self.words);
        // The caller's settings of our server must not decide figures.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("SEEDRING_") {
                command.env_remove(name);
            }
        }
        // Nobody outside is to know of a measurement, or to take part in it.
        command.env("SEEDRING_DHT__ENABLED", "false");
        for (name, value) in &self.environment {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        command.process_group(0);
        command
    }

    /// Runs it to its end, which must be a success.
    pub fn run(&self, log: &Path, within: Duration) -> anyhow::Result<Finished> {
        let mut running = self.start(log)?;
        let finished = running.wait(within)?;
        if !finished.status.success() {
            bail!(
                "{} ended with {}: {}",
                self.name(),
                finished.status,
                running.log_tail()
            );
        }
        Ok(finished)
    }

    /// What it prints first when it is asked for its version, or why it does not.
    pub fn version(&self) -> Result<String, String> {
        if !self.is_installed() {
            return Err("not installed".to_owned());
        }
        let text = self.output().unwrap_or_default();
        let mut lines = text.lines().map(str::trim);
        let first = lines.find(|line| !line.is_empty());
        first.map_or_else(
            || Err("it does not run".to_owned()),
            |line| Ok(line.to_owned()),
        )
    }

    /// Whether it is in the `PATH`, or is a path to a file.
    pub fn is_installed(&self) -> bool {
        let program = Path::new(&self.words[0]);
        if program.components().count() > 1 {
            return program.is_file();
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
    }

    /// Runs it as it is, not measured, and returns what it prints on both streams; none if it
    /// does not run.
    pub fn output(&self) -> Option<String> {
        let mut command = Command::new(&self.words[0]);
        let command = command.args(&self.words[1..]).stdin(Stdio::null());
        let output = command.output().ok()?;
        let text = [output.stdout, output.stderr].concat();
        Some(String::from_utf8_lossy(&text).into_owned())
    }
}

/// A program that has ended.
#[derive(Debug, Clone, Copy)]
pub struct Finished {
    /// From before its start to its end, in seconds.
    pub wall_s: f64,
    /// CPU time of all its threads, in seconds.
    pub cpu_s: f64,
    /// The most memory that was resident, as far as looking every 50 ms shows it.
    pub peak_bytes: u64,
    /// How it ended.
    pub status: ExitStatus,
}

/// A program that runs; dropping it ends it and all that it started.
#[derive(Debug)]
pub struct Running {
    child: Child,
    /// There until it is buried; its id may be somebody else's then.
    guard: Option<Guard>,
    started: Instant,
    name: String,
    log: PathBuf,
    peak_bytes: u64,
    /// How it ended, once it is buried.
    status: Option<ExitStatus>,
}

impl Running {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// When it was started.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Its last words, on one line.
    pub fn log_tail(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = &text[text.len().saturating_sub(LOG_TAIL_BYTES)..];
        let text = String::from_utf8_lossy(text);
        let lines = text.lines().filter(|line| !line.trim().is_empty());
        let lines: Vec<&str> = lines.collect();
        let tail = lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join(" / ");
        match tail.is_empty() {
            true => "it printed nothing".to_owned(),
            false => format!("it printed {tail:?}"),
        }
    }

    /// What it printed so far.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.is_over() {
            let _: io::Result<ExitStatus> = self.bury();
        }
        self.status
    }

    /// An error if it has ended although it should serve.
    pub fn check(&mut self) -> anyhow::Result<()> {
        match self.ended() {
            None => Ok(()),
            Some(status) => bail!("it ended ({status}); {}", self.log_tail()),
        }
    }

    /// Waits for its end; an error if that is not within `within`.
    pub fn wait(&mut self, within: Duration) -> anyhow::Result<Finished> {
        let pid = Pid::from_child(&self.child);
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).context("pidfd_open")?;
        let look = rustix::time::Timespec {
            tv_sec: 0,
            tv_nsec: LOOK_MS * 1_000_000,
        };
        loop {
            // Readable when the process is dead; it is not buried yet, so its times can be read.
            let mut ended = [PollFd::new(&pidfd, PollFlags::IN)];
            match poll(&mut ended, Some(&look)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => break,
                Err(error) => return Err(error).context("cannot wait for a child"),
            }
            self.peak_bytes = self.peak_bytes.max(peak_resident_bytes(self.pid()));
            if self.started.elapsed() > within {
                bail!(
                    "{} did not finish within {} s: {}",
                    self.name,
                    within.as_secs(),
                    self.log_tail()
                );
            }
        }
        let wall_s = self.started.elapsed().as_secs_f64();
        let sample = ProcessSample::of_ended(self.pid())?;
        Ok(Finished {
            wall_s,
            cpu_s: sample.user_s + sample.system_s,
            peak_bytes: self.peak_bytes,
            status: self.bury().context("cannot wait for a child")?,
        })
    }

    /// Asks it to end, and kills it if it does not.
    pub fn end(mut self) {
        self.terminate();
    }

    fn terminate(&mut self) {
        if self.guard.is_none() {
            return;
        }
        // A process that is gone already is what is wanted.
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::TERM);
        let asked = Instant::now();
        while asked.elapsed() < GRACE && !self.is_over() {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _: io::Result<ExitStatus> = self.bury();
    }

    /// Whether it has ended; it is not buried, so its id is still its own.
    fn is_over(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let pid = Pid::from_child(&self.child);
        self.guard.is_none() || !matches!(waitid(WaitId::Pid(pid), options), Ok(None))
    }

    /// Kills what is left of the group, what it started and left behind included, and lets the
    /// kernel forget the process. In this order: afterwards the group's number may be somebody
    /// else's.
    fn bury(&mut self) -> io::Result<ExitStatus> {
        if let Some(guard) = self.guard.take() {
            let ended = guard.forget_after(|| {
                let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
                self.child.wait()
            });
            self.status = Some(ended?);
        }
        self.status
            .ok_or_else(|| io::Error::other("it was buried and did not say how it ended"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.terminate();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Program {
        Program::new("sh").arg("-c").arg(script)
    }

    #[test]
    fn a_program_is_timed_and_its_failure_told() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let long = Duration::from_secs(60);
        let busy = shell("i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; echo \"$HOME\"; pwd")
            .at_home_in(folder.path());
        let finished = busy.run(&log, long).unwrap();
        assert!(finished.cpu_s > 0.0 && finished.wall_s >= finished.cpu_s - 0.02);
        let output = fs::read_to_string(&log).unwrap();
        let lines: Vec<&str> = output.lines().collect();
        assert!(lines.len() == 2 && lines[0] == lines[1], "{output}");
        let error = shell("echo broken; exit 3").run(&log, long).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("broken") && text.contains('3'), "{text}");
        let error = shell("sleep 60").run(&log, Duration::ZERO).unwrap_err();
        assert!(error.to_string().contains("did not finish"));
    }

    #[test]
    fn nothing_is_started_for_a_parent_that_is_gone() {
        let started = |parent: u32| {
            let output = shell("echo started").command(parent).output().unwrap();
            (output.status.success(), output.stdout)
        };
        assert_eq!(started(std::process::id()), (true, b"started\n".to_vec()));
        assert_eq!(started(std::process::id() + 1), (false, Vec::new()));
    }

    #[test]
    fn an_environment_is_what_was_set() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let show = shell("echo \"$SEEDRING_X $HOME ${XDG_DATA_HOME-none}\"")
            .env("XDG_DATA_HOME", "theirs")
            .at_home_in(Path::new("/"))
            .env("SEEDRING_X", "ours");
        show.run(&log, Duration::from_secs(60)).unwrap();
        assert_eq!(fs::read_to_string(&log).unwrap(), "ours / none\n");
    }

    #[test]
    fn nothing_outlives_its_handle() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        // A child that does not listen, and a grandchild.
        let mut running = shell("trap '' TERM; sleep 1000 & echo $!; exec sleep 1000")
            .start(&log)
            .unwrap();
        while running.output().trim().is_empty() {
            std::thread::sleep(Duration::from_millis(5));
        }
        running.check().unwrap();
        assert!(!running.is_over());
        let grandchild = running.output().trim().to_owned();
        let group = Pid::from_child(&running.child);
        kill_process_group(group, Signal::KILL).unwrap();
        running.end();
        let state = fs::read_to_string(format!("/proc/{grandchild}/stat")).unwrap_or_default();
        assert!(state.is_empty() || state.contains(") Z"), "{state}");
    }

    #[test]
    fn what_an_ended_program_left_behind_is_ended_too() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let long = Duration::from_secs(60);
        let program = shell("sleep 1000 >/dev/null & echo $!");
        program.run(&log, long).unwrap();
        let grandchild = fs::read_to_string(&log).unwrap().trim().to_owned();
        // It was killed; what remains is that its new parent buries it.
        let stat = Path::new("/proc").join(&grandchild).join("stat");
        while fs::read_to_string(&stat).is_ok_and(|state| !state.contains(") Z")) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let mut running = shell("exit 4").start(&log).unwrap();
        while !running.is_over() {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(running.check().unwrap_err().to_string().contains('4'));
        assert!(running.check().is_err(), "it stays ended");
    }

    #[test]
    fn programs_are_looked_up_as_a_shell_does() {
        assert!(Program::new("sh").is_installed());
        assert!(!Program::new("no such program").is_installed());
        assert!(!Program::new("/no/such/program").is_installed());
        assert_eq!(shell("echo; echo 1.2").version(), Ok("1.2".to_owned()));
        assert!(Program::new("no such program").version().is_err());
    }
}
