//! A server's process: started pinned and in a group of its own, and gone for certain afterwards.
//!
//! Unsafe code is forbidden here, so nothing can run between fork and exec; instead the server is
//! started through this program itself ([`Launch`], a hidden command), which pins itself, asks the
//! kernel for a signal should its parent die, and becomes the server. The process id stays the
//! same.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, kill_process_group, set_parent_process_death_signal, waitid,
};
use rustix::thread::{CpuSet, sched_setaffinity};

use super::undo::{self, Guard, Undo};

/// How long a server may take to end after SIGTERM.
const STOP: Duration = Duration::from_secs(15);

/// How often a condition is looked at again.
const POLL: Duration = Duration::from_millis(10);

/// Becomes another program: pinned, and ended with its parent. Used by `rivals` for its servers.
#[derive(Args)]
pub struct Launch {
    /// Cores to run on; none: as now.
    #[arg(long, value_delimiter = ',')]
    cores: Vec<usize>,

    /// The process that must be the parent; if it is gone already, nothing is started.
    #[arg(long)]
    parent: u32,

    /// Get SIGTERM when the parent dies, instead of SIGKILL.
    #[arg(long)]
    gently: bool,

    /// The program and its arguments.
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

impl Launch {
    /// Returns only if it failed.
    pub fn run(&self) -> anyhow::Result<std::convert::Infallible> {
        let signal = if self.gently {
            Signal::TERM
        } else {
            Signal::KILL
        };
        set_parent_process_death_signal(Some(signal))
            .context("cannot ask for a signal at the parent's death")?;
        let parent = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get());
        if parent.and_then(|pid| u32::try_from(pid).ok()) != Some(self.parent) {
            bail!("the process that wanted this server is gone");
        }
        if !self.cores.is_empty() {
            pin(&self.cores)?;
        }
        let (program, arguments) = self.command.split_first().context("no program")?;
        let error = Command::new(program).args(arguments).exec();
        Err(error).with_context(|| format!("cannot start {}", program.display()))
    }
}

/// Pins the calling thread.
fn pin(cores: &[usize]) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    for &core in cores {
        if core >= CpuSet::MAX_CPU {
            bail!("cannot pin to core {core}: at most {}", CpuSet::MAX_CPU - 1);
        }
        set.set(core);
    }
    sched_setaffinity(None, &set)
        .with_context(|| format!("cannot pin to cores {cores:?}: does the machine have them?"))
}

/// A running server. Dropping it stops it.
#[derive(Debug)]
pub struct Server {
    child: Child,
    pid: Pid,
    guard: Option<Guard>,
    log: PathBuf,
}

impl Server {
    /// Starts `command` in `work`, with both outputs in the file `log` there.
    pub fn start(
        command: &Command,
        work: &Path,
        cores: &[usize],
        gently: bool,
    ) -> anyhow::Result<Self> {
        let log = work.join("log");
        let out = File::create(&log)
            .with_context(|| format!("cannot write the server's log {}", log.display()))?;
        let mut launch = launch(command, cores, gently)?;
        launch
            .current_dir(work)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out);
        let child = launch
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        let pid = Pid::from_child(&child);
        let guard = Some(undo::register(Undo::KillGroup(pid)));
        Ok(Self {
            child,
            pid,
            guard,
            log,
        })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if !self.is_zombie() {
            return None;
        }
        self.reap()
    }

    /// What it printed on both streams.
    pub fn log(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The last lines that it printed, in one.
    pub fn log_tail(&self) -> String {
        let text = self.log();
        let lines: Vec<&str> = text
            .lines()
            .filter(|line| !line.trim().is_empty())
            .collect();
        let tail = lines[lines.len().saturating_sub(3)..].join(" / ");
        if tail.is_empty() {
            "it printed nothing".to_owned()
        } else {
            format!("it printed {:?}", tail)
        }
    }

    /// Asks it to end, waits, and ends it: with every process of its group.
    pub fn stop(&mut self) {
        if self.guard.is_none() {
            return;
        }
        // It may have ended by itself.
        let _ = kill_process_group(self.pid, Signal::TERM);
        let until = Instant::now() + STOP;
        while !self.is_zombie() && Instant::now() < until {
            std::thread::sleep(POLL);
        }
        self.reap();
    }

    /// Whether it has ended; its id is still its own then.
    fn is_zombie(&self) -> bool {
        if self.guard.is_none() {
            return true;
        }
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        !matches!(waitid(WaitId::Pid(self.pid), options), Ok(None))
    }

    /// Ends what is left of the group, and lets the kernel forget the process.
    fn reap(&mut self) -> Option<ExitStatus> {
        let guard = self.guard.take()?;
        guard.forget_after(|| {
            let _ = kill_process_group(self.pid, Signal::KILL);
            self.child.wait().ok()
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The same command through [`Launch`], with the same environment.
fn launch(command: &Command, cores: &[usize], gently: bool) -> anyhow::Result<Command> {
    let own = std::env::current_exe().context("cannot find this program's own file")?;
    let mut launch = Command::new(own);
    launch
        .arg("launch")
        .args(["--parent", &std::process::id().to_string()]);
    if !cores.is_empty() {
        let cores: Vec<String> = cores.iter().map(usize::to_string).collect();
        launch.args(["--cores", &cores.join(",")]);
    }
    if gently {
        launch.arg("--gently");
    }
    launch
        .arg("--")
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => launch.env(name, value),
            None => launch.env_remove(name),
        };
    }
    Ok(launch)
}
