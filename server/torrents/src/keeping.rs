//! Writes to the store, and what is done when they are durable: in the order in which they were
//! handed over, so that what is in memory never says what the store does not have.
//!
//! Limits: those of the store; what waits there holds the manager up.

use crate::manager::Inner;
use control::command::CommandError;
use control::hooks::Notice;
use proto::ids::InfoHashV1;
use state::{Ack, Handle, Progress, Summary, Update, Write, WriteError};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::mpsc;

/// A change of a summary, done to what is kept and to what is in memory alike.
pub(crate) type Change = Arc<dyn Fn(&mut Summary) + Send + Sync>;

/// What is done when a write is durable, or has failed.
pub(crate) type After<T> = Box<dyn FnOnce(&mut T, Result<(), WriteError>) -> Next + Send>;

/// What follows a write.
pub(crate) enum Next {
    /// Nothing.
    Done,
    /// Moves whose turn it is are to begin.
    Move,
    /// The next change of the server's limits is to be written.
    Limits,
    /// The torrent is to do what its summary says.
    Restart(InfoHashV1),
    /// What the torrent is doing follows a change that is kept.
    Edited(Box<crate::editing::Edited>),
    /// What a download says again and again could not be written: the store does when it can.
    Soon(InfoHashV1, Progress),
    /// It is kept that a torrent is complete, and shown then.
    Completed(InfoHashV1),
    /// The torrent is to go, and with it its data as [`crate::deleting::Remains`] says.
    Leave(InfoHashV1, Option<Box<crate::deleting::Remains>>),
}

/// Writes that are under way, how many of them were asked for, and what is done then.
type Asked = (Option<Ack>, usize, After<crate::Manager>);

/// Writes that wait to be acknowledged.
pub(crate) struct Keeping {
    pub store: Handle,
    written: mpsc::UnboundedSender<Asked>,
    /// Writes whose acknowledgement has not been taken yet.
    pending: AtomicUsize,
}

impl Keeping {
    /// Acknowledgements arrive as [`Inner::Written`].
    pub(crate) fn new(store: Handle, inner: mpsc::UnboundedSender<Inner>) -> Keeping {
        // Bounded by the store, which takes so many requests and no more.
        let (written, mut acks) = mpsc::unbounded_channel::<Asked>();
        tokio::spawn(async move {
            while let Some((ack, asked, after)) = acks.recv().await {
                let result = match ack {
                    // What is written beside has no say.
                    Some(ack) => ack.await.into_iter().take(asked).collect(),
                    None => Err(WriteError::Closed),
                };
                if inner.send(Inner::Written(result, after)).is_err() {
                    return;
                }
            }
        });
        Keeping {
            store,
            written,
            pending: AtomicUsize::new(0),
        }
    }

    /// A write has been begun elsewhere whose acknowledgement comes here.
    pub(crate) fn begun(&self) {
        self.pending.fetch_add(1, Ordering::Relaxed);
    }

    /// An acknowledgement has been taken.
    pub(crate) fn taken(&self) {
        self.pending.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether there are acknowledgements to come.
    pub(crate) fn is_waiting(&self) -> bool {
        self.pending.load(Ordering::Relaxed) > 0
    }

    /// Writes, and has `after` be done then.
    pub(crate) async fn write(&self, write: Write, after: After<crate::Manager>) {
        self.write_all(vec![write], after).await;
    }

    /// Writes in one transaction, and has `after` be done then with the first refusal, if any.
    pub(crate) async fn write_all(&self, writes: Vec<Write>, after: After<crate::Manager>) {
        self.write_telling(writes, None, after).await;
    }

    /// The same, and has hooks be told when it is durable: what they are to be told is kept by the
    /// same transaction.
    pub(crate) async fn write_telling(
        &self,
        writes: Vec<Write>,
        notice: Option<Notice>,
        after: After<crate::Manager>,
    ) {
        let kept = notice.as_ref().and_then(Notice::write);
        let after: After<crate::Manager> = match notice {
            None => after,
            Some(notice) => Box::new(move |manager, written| {
                let is_written = written.is_ok();
                let next = after(manager, written);
                manager.told(notice, is_written);
                next
            }),
        };
        self.write_beside(writes, kept, after).await;
    }

    /// Writes in one transaction, with something that has no say in how it went.
    pub(crate) async fn write_beside(
        &self,
        mut writes: Vec<Write>,
        beside: Option<Write>,
        after: After<crate::Manager>,
    ) {
        self.pending.fetch_add(1, Ordering::Relaxed);
        let asked = writes.len();
        writes.extend(beside);
        let ack = self.store.submit(writes).await.ok();
        let _ = self.written.send((ack, asked, after));
    }

    /// Writes what of a download has reached the disk. If the state disk fails the store writes it
    /// when it can, unless something newer comes before.
    pub(crate) async fn note_progress(&self, info_hash: InfoHashV1, progress: Progress) {
        let write = Write::Update(info_hash, Box::new(progress.clone().into()));
        let after: After<crate::Manager> = Box::new(move |_, written| match written {
            Err(WriteError::Failed(_)) => Next::Soon(info_hash, progress),
            Err(error) => {
                tracing::warn!(torrent = %info_hash, %error, "cannot be kept");
                Next::Done
            }
            Ok(()) => Next::Done,
        });
        self.write(write, after).await;
    }

    /// Writes an update that nobody waits for; a failure is logged.
    pub(crate) async fn note(&self, info_hash: InfoHashV1, update: Update) {
        let write = Write::Update(info_hash, Box::new(update));
        let after: After<crate::Manager> = Box::new(move |_, written| {
            if let Err(error) = written {
                tracing::warn!(torrent = %info_hash, %error, "cannot be kept");
            }
            Next::Done
        });
        self.write(write, after).await;
    }
}

/// What the user is told of a write that was not done.
pub(crate) fn refusal(error: WriteError) -> CommandError {
    match error {
        WriteError::Unknown(info_hash) => CommandError::Unknown(info_hash),
        WriteError::Exists(_) | WriteError::NotQueued(_) => {
            CommandError::Conflict(error.to_string())
        }
        WriteError::Closed => CommandError::Stopping,
        other => CommandError::Failed(other.to_string()),
    }
}
