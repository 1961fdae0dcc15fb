//! A bounded queue of log lines and the thread that writes them, so that no other thread waits
//! for stderr.

use seedring_metrics::{ControlCells, ControlCounter};
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::Duration;
use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait; at some hundreds of bytes each, a MiB or so.
const LINES_MAX: usize = 4_096;

/// How long the end of the process waits for a reader of stderr.
const LAST_LINES_TIMEOUT: Duration = Duration::from_secs(1);

/// What the thread is sent.
enum Message {
    Line(Vec<u8>),
    /// Write what came before, then end.
    Stop,
}

/// The queue: makes a writer for each line.
#[derive(Clone)]
pub(super) struct Queue {
    sender: SyncSender<Message>,
    cells: Arc<ControlCells>,
}

/// Writes out what is queued when it is dropped, waiting at most a second.
#[derive(Debug)]
pub struct LogGuard {
    thread: Option<(SyncSender<Message>, Receiver<()>)>,
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Message::Line(line) => write!(f, "Line({} bytes)", line.len()),
            Message::Stop => write!(f, "Stop"),
        }
    }
}

/// Starts the thread that writes to stderr.
pub(super) fn start(cells: Arc<ControlCells>) -> io::Result<(Queue, LogGuard)> {
    start_with(cells, LINES_MAX, io::stderr())
}

pub(super) fn start_with(
    cells: Arc<ControlCells>,
    lines_max: usize,
    output: impl Write + Send + 'static,
) -> io::Result<(Queue, LogGuard)> {
    let (sender, receiver) = sync_channel(lines_max);
    let (ended, end) = sync_channel(1);
    std::thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || {
            write_lines(&receiver, output);
            // Nobody may be waiting.
            let _ = ended.try_send(());
        })?;
    let guard = LogGuard {
        thread: Some((sender.clone(), end)),
    };
    Ok((Queue { sender, cells }, guard))
}

fn write_lines(receiver: &Receiver<Message>, mut output: impl Write) {
    while let Ok(Message::Line(line)) = receiver.recv() {
        // A log that cannot be written has nowhere to say so.
        let _ = output.write_all(&line);
    }
    let _ = output.flush();
}

impl LogGuard {
    /// For a log that queues nothing.
    pub(super) fn nothing_queued() -> Self {
        Self { thread: None }
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        let Some((sender, end)) = self.thread.take() else {
            return;
        };
        let step = LAST_LINES_TIMEOUT / 20;
        let mut stop_sent = false;
        for _ in 0..20 {
            // A full queue takes the stop once a line has been written.
            if !stop_sent {
                stop_sent = !matches!(sender.try_send(Message::Stop), Err(TrySendError::Full(_)));
            }
            match end.recv_timeout(step) {
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

/// The writer of one line; the formatter writes each line in one piece.
pub(super) struct Line<'a>(&'a Queue);

impl<'a> MakeWriter<'a> for Queue {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(self)
    }
}

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self
            .0
            .sender
            .try_send(Message::Line(line.to_vec()))
            .is_err()
        {
            self.0.cells.increment(ControlCounter::LogDropped);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
