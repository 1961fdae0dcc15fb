//! Programs that are measured: started in a process group of their own, on the cores that they are
//! given, and ended when the measurement is, whatever happens.
//!
//! Each is started through `setpriv --pdeathsig` (and `taskset`) of util-linux, which become the
//! program by `exec`: its process id is the one that we started, and the kernel kills it should
//! this process be killed, but not what it started itself: that goes on then. The signal follows the
//! thread that started it, so programs are started from the main thread only.
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

use crate::harness::stopping::Stop;
use crate::measure::{ProcessSample, peak_resident_bytes};

/// How long a program may take to end after SIGTERM before it is killed.
const GRACE: Duration = Duration::from_secs(15);

/// How often memory is looked at, and signals are noticed, while a program runs.
const LOOK_MS: i64 = 50;

/// How much of a failed program's log is shown.
const LOG_TAIL_BYTES: usize = 600;

/// A command line, and where it is to run.
#[derive(Debug, Clone)]
pub struct Program {
    /// The program and its arguments.
    words: Vec<OsString>,
    /// Cores that it may use; empty: all.
    cores: Vec<usize>,
    /// Its working directory and home; none: ours.
    directory: Option<PathBuf>,
}

impl Program {
    /// A program without arguments yet.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            words: vec![program.as_ref().to_owned()],
            cores: Vec::new(),
            directory: None,
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

    /// Runs it in this directory, which it also takes for its user's home: nothing of the user's
    /// own settings is read or written.
    pub fn at_home_in(mut self, directory: &Path) -> Self {
        self.directory = Some(directory.to_owned());
        self
    }

    /// The program, as it is looked up.
    fn path(&self) -> &OsStr {
        &self.words[0]
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
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
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
        if let Some(directory) = &self.directory {
            command.current_dir(directory).env("HOME", directory);
        }
        let output = File::create(log).with_context(|| format!("cannot create {log:?}"))?;
        command.stdin(Stdio::null());
        command.stdout(output.try_clone().context("cannot share a log file")?);
        command.stderr(output);
        command.process_group(0);
        let started = Instant::now();
        let child = command.spawn().with_context(|| {
            format!(
                "cannot start {:?} (setpriv and taskset are from util-linux)",
                self.name()
            )
        })?;
        Ok(Running {
            child,
            started,
            name: self.name(),
            log: log.to_owned(),
            peak_bytes: 0,
            status: None,
        })
    }

    /// Runs it to its end, which must be a success.
    pub fn run(&self, log: &Path, stop: &Stop, within: Duration) -> anyhow::Result<Finished> {
        let mut running = self.start(log)?;
        let finished = running.wait(stop, within)?;
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
        match installed(self.path()) {
            None => Err("not installed".to_owned()),
            Some(_) => self
                .first_line()
                .ok_or_else(|| "it does not run".to_owned()),
        }
    }

    /// The first line that it prints; none if it does not run.
    fn first_line(&self) -> Option<String> {
        let mut command = Command::new(&self.words[0]);
        let output = command
            .args(&self.words[1..])
            .stdin(Stdio::null())
            .output()
            .ok()?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        let line = text.lines().map(str::trim).find(|line| !line.is_empty())?;
        Some(line.to_owned())
    }
}

/// Where `program` is in the `PATH`, or itself if it is a path to a file.
fn installed(program: &OsStr) -> Option<PathBuf> {
    if Path::new(program).components().count() > 1 {
        return Path::new(program).is_file().then(|| PathBuf::from(program));
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
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
    started: Instant,
    name: String,
    log: PathBuf,
    peak_bytes: u64,
    /// How it ended, once it is buried; its id may be somebody else's then.
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

    /// The end of what it printed, on one line.
    pub fn log_tail(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let tail = &text[text.len().saturating_sub(LOG_TAIL_BYTES)..];
        String::from_utf8_lossy(tail)
            .trim()
            .escape_debug()
            .to_string()
    }

    /// What it printed so far.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// An error if it has ended although it should serve.
    pub fn check(&mut self) -> anyhow::Result<()> {
        if self.is_over() {
            let status = self.bury().context("cannot ask for a child")?;
            bail!("{} ended with {status}: {}", self.name, self.log_tail());
        }
        Ok(())
    }

    /// Waits for its end. At the end of `within`, or when the user wants an end, it is stopped.
    pub fn wait(&mut self, stop: &Stop, within: Duration) -> anyhow::Result<Finished> {
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
            stop.check()?;
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
        if self.status.is_some() {
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
        self.status.is_some() || !matches!(waitid(WaitId::Pid(pid), options), Ok(None))
    }

    /// Kills what is left of the group, what it started and left behind included, and lets the kernel
    /// forget the process. In this order: afterwards the group's number may be somebody else's.
    fn bury(&mut self) -> io::Result<ExitStatus> {
        if let Some(status) = self.status {
            return Ok(status);
        }
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let status = self.child.wait()?;
        self.status = Some(status);
        Ok(status)
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
        let finished = busy.run(&log, &Stop::default(), long).unwrap();
        assert!(finished.cpu_s > 0.0 && finished.wall_s >= finished.cpu_s - 0.02);
        let output = fs::read_to_string(&log).unwrap();
        let lines: Vec<&str> = output.lines().collect();
        assert!(lines.len() == 2 && lines[0] == lines[1], "{output}");
        let error = shell("echo broken; exit 3")
            .run(&log, &Stop::default(), long)
            .unwrap_err();
        let text = error.to_string();
        assert!(text.contains("broken") && text.contains('3'), "{text}");
        let error = shell("sleep 60")
            .run(&log, &Stop::default(), Duration::ZERO)
            .unwrap_err();
        assert!(error.to_string().contains("did not finish"));
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
        program.run(&log, &Stop::default(), long).unwrap();
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
        assert!(installed(OsStr::new("sh")).is_some());
        assert!(installed(OsStr::new("no such program")).is_none());
        assert!(installed(OsStr::new("/no/such/program")).is_none());
        assert!(
            Program::new("sh")
                .args(["-c", "echo; echo 1.2"])
                .first_line()
                .unwrap()
                == "1.2"
        );
    }
}
