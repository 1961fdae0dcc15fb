//! Runs a program: no shell, nothing on its standard input, a process group of its own.
//!
//! It gets of our environment what says where things are ([`INHERITED`]) and nothing that
//! configures us, which may hold passwords; beside it `SEEDRING_EVENT` and what else is told.
//! What it prints is read to the end, so that it never waits for us; the first
//! [`OUTPUT_BYTES_MAX`] are logged, escaped, if it fails.
//!
//! Its time begins with its start, which takes as long as the disk that it is on: where that hangs,
//! the start is given up, and keeps the one of the hook's places for starts ([`Starts`]) that it
//! has, with its thread, until it ends.
//!
//! At the end of its time the group is asked to end (SIGTERM), and killed [`GRACE`] later. What a
//! program that has ended by itself leaves running in the background stays, and is not listened to.

use super::argument::{Argument, variables};
use super::event::Happened;
use super::running::Outcome;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use std::ffi::OsString;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::sync::{Semaphore, watch};
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

/// A program that has been started. It ends with its group if nobody waits for it any more.
struct Running {
    // Dropped first: the number is its group's until the program has been waited for.
    group: Group,
    child: Child,
}

/// How many programs of a hook may be being started at once. So a disk that hangs takes that many
/// threads of those for blocking work, however many events come meanwhile.
pub(super) struct Starts(Arc<Semaphore>);

/// What came of starting a program.
#[derive(Debug)]
enum Start<T> {
    Ended(io::Result<T>),
    OutOfTime,
    Stopped,
}

impl Starts {
    pub(super) fn new(max: usize) -> Starts {
        Starts(Arc::new(Semaphore::new(max)))
    }

    /// Starts something, beside the tasks: whoever starts a program waits until the disk that it is
    /// on has read it. What starts too late is dropped.
    async fn start<T: Send + 'static>(
        &self,
        until: Instant,
        stopping: &mut watch::Receiver<bool>,
        start: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Start<T> {
        let starting = async {
            let place = Arc::clone(&self.0).acquire_owned().await;
            let start = move || {
                let started = start();
                drop(place);
                started
            };
            let started = spawn_blocking(start).await;
            started.unwrap_or_else(|error| Err(error.into()))
        };
        tokio::select! {
            started = starting => Start::Ended(started),
            () = sleep_until(until) => Start::OutOfTime,
            _ = stopping.wait_for(|is_stopping| *is_stopping) => Start::Stopped,
        }
    }
}

/// Runs a program for an event; ends when it has ended, or was ended.
pub(super) async fn run(
    arguments: &[Argument],
    starts: &Starts,
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
    let until = Instant::now() + limit;
    let (start, filled) = (program.clone(), filled.collect());
    let variables = variables(id, happened);
    let spawn = move || spawn(&start, filled, variables);
    let mut running = match starts.start(until, &mut stopping, spawn).await {
        Start::Ended(Ok(running)) => running,
        Start::Ended(Err(error)) => {
            tracing::warn!(torrent, event, ?program, %error, "a hook cannot be run");
            return Outcome::Failed;
        }
        Start::OutOfTime => {
            tracing::error!(
                torrent,
                event,
                ?program,
                "a hook was not run: its program could not be started within its timeout_s, {} s; \
                 the disk that it is on may hang",
                limit.as_secs()
            );
            return Outcome::OutOfTime;
        }
        Start::Stopped => return Outcome::Interrupted,
    };
    let Running { group, child } = &mut running;
    let streams = (child.stdout.take(), child.stderr.take());
    let mut reading = tokio::spawn(async move { tokio::join!(read(streams.0), read(streams.1)) });
    let end = ended(child, group, until, stopping).await;
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
) -> io::Result<Running> {
    let own = INHERITED
        .iter()
        .filter_map(|name| Some((*name, std::env::var_os(name)?)));
    let child = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(own)
        .envs(variables)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    let group = Group(child.id().and_then(|pid| Pid::from_raw(pid as i32)));
    Ok(Running { group, child })
}

/// How a program ended.
enum End {
    Exited(io::Result<ExitStatus>),
    OutOfTime,
    Stopped,
}

/// Waits until the program has ended, and ends it when its time is over or the server's is.
async fn ended(
    child: &mut Child,
    group: &Group,
    until: Instant,
    mut stopping: watch::Receiver<bool>,
) -> End {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// On a disk that hangs a start takes for ever: it is given up at its time, and those after it
    /// take no further thread.
    #[tokio::test]
    async fn a_start_that_hangs_is_given_up_and_keeps_its_place() {
        let starts = Starts::new(1);
        let (stop, mut stopping) = watch::channel(false);
        let (go_on, hangs) = mpsc::channel::<()>();
        let (told, ended) = mpsc::channel::<()>();
        let soon = || Instant::now() + Duration::from_millis(20);
        let hang = move || {
            let _ = hangs.recv();
            Ok(told)
        };
        let start = starts.start(soon(), &mut stopping, hang).await;
        assert!(matches!(start, Start::OutOfTime), "{start:?}");
        let next = starts.start(soon(), &mut stopping, || Ok(())).await;
        assert!(matches!(next, Start::OutOfTime), "{next:?}");
        // The disk is back: what started too late is dropped, and its place is free.
        go_on.send(()).unwrap();
        assert_eq!(ended.recv(), Err(mpsc::RecvError));
        let later = Instant::now() + Duration::from_secs(600);
        let next = starts.start(later, &mut stopping, || Ok(())).await;
        assert!(matches!(next, Start::Ended(Ok(()))), "{next:?}");
        stop.send_replace(true);
        let (_go_on, hangs) = mpsc::channel::<()>();
        let hang = move || Ok(hangs.recv().is_err());
        let next = starts.start(later, &mut stopping, hang).await;
        assert!(matches!(next, Start::Stopped), "{next:?}");
    }
}
