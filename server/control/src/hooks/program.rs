//! Runs a program: no shell, nothing on its standard input, a process group of its own.
//!
//! It gets of our environment what says where things are ([`INHERITED`]) and nothing that
//! configures us, which may hold passwords; beside it `SEEDRING_EVENT` and what else is told.
//! What it prints is read to the end, so that it never waits for us; the first
//! [`OUTPUT_BYTES_MAX`] are logged, escaped, if it fails.
//!
//! At the end of its time the group is asked to end (SIGTERM), and killed [`GRACE`] later. What a
//! program that has ended by itself leaves running in the background stays, and is not listened to.

use super::argument::{Argument, variables};
use super::event::Happened;
use super::running::Outcome;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use std::ffi::OsString;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// Variables of ours that a program has.
const INHERITED: [&str; 9] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "XDG_RUNTIME_DIR",
];

/// What is logged of what a program prints, in bytes, of each of its two streams.
const OUTPUT_BYTES_MAX: usize = 2048;

/// How long a group that was asked to end may take for it.
const GRACE: Duration = Duration::from_secs(2);

/// How often it is looked whether it has.
const LOOK: Duration = Duration::from_millis(50);

/// How long a program may go on when the server stops.
pub(super) const STOP: Duration = Duration::from_secs(2);

/// How long the last of what a program has printed is waited for.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// A group that is killed if nobody has waited for its first process: until then its number is its
/// own.
struct Group(Option<Pid>);

impl Group {
    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.0 {
            // It may have ended just now.
            let _ = kill_process_group(pid, signal);
        }
    }

    /// Whether its first process has ended.
    fn has_ended(&self) -> bool {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        self.0
            .is_none_or(|pid| !matches!(waitid(WaitId::Pid(pid), look), Ok(None)))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// Runs a program for an event; ends when it has ended, or was ended.
pub(super) async fn run(
    arguments: &[Argument],
    limit: Duration,
    (id, happened): (u64, &Happened),
    mut stopping: watch::Receiver<bool>,
) -> Outcome {
    let torrent = happened.torrent.info_hash.as_str();
    let event = happened.event.name();
    let mut filled = arguments.iter().map(|argument| argument.fill(id, happened));
    let Some(program) = filled.next() else {
        return Outcome::Failed;
    };
    // Beside the tasks: whoever starts a program waits until the disk that it is on has read it.
    let (start, filled) = (program.clone(), filled.collect());
    let variables = variables(id, happened);
    let started = spawn_blocking(move || spawn(&start, filled, variables));
    let started = tokio::select! {
        started = started => started.unwrap_or_else(|error| Err(error.into())),
        _ = stopping.wait_for(|is_stopping| *is_stopping) => return Outcome::Interrupted,
    };
    let mut child = match started {
        Ok(child) => child,
        Err(error) => {
            tracing::warn!(torrent, event, ?program, %error, "a hook cannot be run");
            return Outcome::Failed;
        }
    };
    let pid = child.id().and_then(|pid| Pid::from_raw(pid as i32));
    let mut group = Group(pid);
    let streams = (child.stdout.take(), child.stderr.take());
    let mut reading = tokio::spawn(async move { tokio::join!(read(streams.0), read(streams.1)) });
    let end = ended(&mut child, &group, limit, stopping).await;
    // The number may be another's from now on.
    group.0 = None;
    let said = match timeout(LAST_WORDS, &mut reading).await {
        Ok(Ok(said)) => said,
        _ => Default::default(),
    };
    reading.abort();
    let (stdout, stderr) = (said.0.as_str(), said.1.as_str());
    match end {
        End::Exited(Ok(status)) if status.success() => {
            tracing::debug!(torrent, event, ?program, stdout, stderr, "a hook has run");
            Outcome::Done
        }
        End::Exited(Ok(status)) => {
            tracing::warn!(torrent, event, ?program, %status, ?stdout, ?stderr,
                "a hook has failed");
            Outcome::Failed
        }
        End::Exited(Err(error)) => {
            tracing::warn!(torrent, event, ?program, %error, "a hook cannot be waited for");
            Outcome::Failed
        }
        End::OutOfTime => {
            tracing::warn!(
                torrent,
                event,
                ?program,
                ?stdout,
                ?stderr,
                "a hook was ended: it took longer than its timeout_s, {} s",
                limit.as_secs()
            );
            Outcome::OutOfTime
        }
        End::Stopped => {
            tracing::warn!(
                torrent,
                event,
                ?program,
                "a hook was ended since the server stops: it is run again at the next start"
            );
            Outcome::Interrupted
        }
    }
}

fn spawn(
    program: &OsString,
    arguments: Vec<OsString>,
    variables: Vec<(String, OsString)>,
) -> std::io::Result<Child> {
    let own = INHERITED
        .iter()
        .filter_map(|name| Some((*name, std::env::var_os(name)?)));
    Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(own)
        .envs(variables)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        // One that is started when nobody waits for it any more.
        .kill_on_drop(true)
        .spawn()
}

/// How a program ended.
enum End {
    Exited(std::io::Result<ExitStatus>),
    OutOfTime,
    Stopped,
}

/// Waits until the program has ended, and ends it when its time is over or the server's is.
async fn ended(
    child: &mut Child,
    group: &Group,
    limit: Duration,
    mut stopping: watch::Receiver<bool>,
) -> End {
    let until = Instant::now() + limit;
    let end = tokio::select! {
        status = child.wait() => return End::Exited(status),
        () = sleep_until(until) => End::OutOfTime,
        () = stop(&mut stopping) => End::Stopped,
    };
    group.signal(Signal::TERM);
    // Its first process is not waited for yet, so that the number stays its group's.
    let grace = Instant::now() + GRACE;
    while Instant::now() < grace && !group.has_ended() {
        sleep(LOOK).await;
    }
    group.signal(Signal::KILL);
    let _ = child.wait().await;
    end
}

/// Ready when the server has been stopping for a while.
pub(super) async fn stop(stopping: &mut watch::Receiver<bool>) {
    // Whoever tells is there as long as hooks are.
    let _ = stopping.wait_for(|stopping| *stopping).await;
    tokio::time::sleep(STOP).await;
}

/// Reads to the end, and returns how it begins.
async fn read(stream: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut stream) = stream else {
        return String::new();
    };
    let (mut said, mut buffer) = (Vec::new(), vec![0; 8192]);
    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
        let room = OUTPUT_BYTES_MAX - said.len();
        said.extend_from_slice(&buffer[..length.min(room)]);
    }
    String::from_utf8_lossy(&said).into_owned()
}
