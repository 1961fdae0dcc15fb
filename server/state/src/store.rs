//! The open store and the handle to it.

use crate::backup::{self, BackupError};
use crate::error::{Failure, OpenError, ReadError, WriteError};
use crate::file::{self, FileMedium, Medium, Open, STORE_FILE};
use crate::limits;
use crate::lock::Lock;
use crate::panics::caught;
use crate::record::Totals;
use crate::tables::{self, SCHEMA};
use crate::view::View;
use crate::waiting::wait;
use crate::write::{Progress, Write};
use crate::writer::{Outcome, Request, Waiting, Writer};
use proto::ids::InfoHashV1;
use redb::ReadableDatabase;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, oneshot};

/// How a store is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Memory for pages of the file, in bytes.
    pub cache_bytes: usize,
    /// Memory for what waits to be written, in KiB: who brings more waits for room.
    pub requests_kib: u32,
    /// How long what may wait ([`Handle::soon`]) does wait: as much of it is lost at most.
    pub soon_period: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cache_bytes: limits::CACHE_BYTES,
            requests_kib: limits::REQUESTS_KIB,
            soon_period: limits::SOON_PERIOD,
        }
    }
}

/// How the store does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Whether all of the file had to be read to put it in order when it was opened: not after any
    /// crash.
    pub repaired: bool,
    /// Transactions that were committed.
    pub commits: u64,
    /// Transactions that failed.
    pub failures: u64,
    /// Why the last one failed; none if it did not.
    pub failing: Option<Arc<Failure>>,
    /// Progress that was dropped because too much of it waited while the disk failed.
    pub progress_dropped: u64,
}

pub(crate) enum Slot {
    Open(Open),
    Failed(Arc<Failure>),
    Closed,
}

pub(crate) struct Shared {
    path: PathBuf,
    slot: RwLock<Slot>,
    status: Mutex<Status>,
    /// What is left of the memory for what waits to be written, in KiB.
    room: Arc<Semaphore>,
    room_kib: u32,
    views: Semaphore,
}

impl Shared {
    // A panic under these locks has been caught where it matters.
    pub fn slot(&self) -> RwLockReadGuard<'_, Slot> {
        self.slot.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn slot_mut(&self) -> RwLockWriteGuard<'_, Slot> {
        self.slot.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn status_mut(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The open store. Dropping it writes what waits and closes it.
pub struct Store {
    handle: Handle,
    writer: Option<JoinHandle<()>>,
    /// Given back after the writer has ended.
    _lock: Option<Lock>,
}

impl Store {
    /// Opens the store in `directory`, making both if they are not there. Metainfo is not read.
    ///
    /// # Errors
    ///
    /// [`OpenError`], which says what to do.
    pub fn open(directory: &Path, options: Options) -> Result<Store, OpenError> {
        let refused = |error| OpenError::Directory {
            path: directory.to_owned(),
            error,
        };
        std::fs::create_dir_all(directory).map_err(refused)?;
        let path = directory.join(STORE_FILE);
        let lock = Lock::take(directory, &path)?;
        if !path.try_exists().map_err(refused)? {
            file::create(&path, options.cache_bytes)?;
        }
        Store::start(Box::new(FileMedium(path)), Some(lock), options)
    }

    pub(crate) fn start(
        medium: Box<dyn Medium>,
        lock: Option<Lock>,
        options: Options,
    ) -> Result<Store, OpenError> {
        let path = medium.path().to_owned();
        let mut open = file::open(&*medium, options.cache_bytes, false)?;
        if open.identity.schema < SCHEMA {
            upgrade(&open).map_err(|error| OpenError::Failed {
                path: path.clone(),
                error: error.to_string(),
            })?;
            open.identity.schema = SCHEMA;
        }
        let status = Status {
            repaired: open.repaired,
            ..Status::default()
        };
        let shared = Arc::new(Shared {
            path: path.clone(),
            slot: RwLock::new(Slot::Open(open)),
            status: Mutex::new(status),
            room: Arc::new(Semaphore::new(options.requests_kib as usize)),
            room_kib: options.requests_kib,
            views: Semaphore::new(limits::VIEWS_MAX),
        });
        let (requests, receiver) = mpsc::channel(limits::REQUESTS_MAX);
        let writer = Writer::new(shared.clone(), medium, options, receiver);
        let thread = std::thread::Builder::new().name("state".into());
        let writer = thread.spawn(move || writer.run());
        let writer = writer.map_err(|error| OpenError::Failed {
            path,
            error: format!("a thread for it cannot be started: {error}"),
        })?;
        Ok(Store {
            handle: Handle { shared, requests },
            writer: Some(writer),
            _lock: lock,
        })
    }

    /// A handle to it, of which there can be many. After the store is closed they say so.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Writes what waits and closes the store. It waits for views that are open.
    pub fn close(self) {
        drop(self);
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // A writer that has ended is closed already.
        let _ended = wait(self.handle.requests.send(Request::Close));
        if let Some(writer) = self.writer.take() {
            let _panicked = writer.join();
        }
    }
}

fn upgrade(open: &Open) -> Result<(), redb::Error> {
    let mut transaction = open.database.begin_write()?;
    transaction.set_quick_repair(true);
    tables::upgrade(&transaction, open.identity.schema)?;
    transaction.commit()?;
    Ok(())
}

/// Reads and writes the store, from any thread.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
    requests: mpsc::Sender<Request>,
}

/// Writes that are under way: a future that is ready when they are durable, or refused. Dropping it
/// does not take them back.
#[derive(Debug)]
pub struct Ack {
    outcome: oneshot::Receiver<Outcome>,
    count: usize,
}

impl Ack {
    /// Waits, blocking.
    pub fn wait(self) -> Vec<Result<(), WriteError>> {
        wait(self)
    }
}

impl Future for Ack {
    type Output = Vec<Result<(), WriteError>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let count = self.count;
        Pin::new(&mut self.outcome)
            .poll(context)
            .map(|outcome| outcome.unwrap_or_else(|_| vec![Err(WriteError::Closed); count]))
    }
}

impl Handle {
    /// Hands writes over, waiting for room if many wait. They are done in order, in one
    /// transaction, after all that was handed over before; each is refused or done by itself. None
    /// is done if the transaction fails.
    ///
    /// # Errors
    ///
    /// [`WriteError::TooMuch`] of more than [`limits::WRITES_MAX`], [`WriteError::Closed`].
    pub async fn submit(&self, writes: Vec<Write>) -> Result<Ack, WriteError> {
        let count = writes.len();
        if count > limits::WRITES_MAX {
            return Err(WriteError::TooMuch {
                what: "writes at once",
                found: count as u64,
                max: limits::WRITES_MAX as u64,
            });
        }
        let bytes = writes.iter().map(Write::bytes);
        let bytes = bytes.fold(0usize, usize::saturating_add);
        let room = self.room(bytes).await?;
        let (reply, outcome) = oneshot::channel();
        let waiting = Waiting {
            writes,
            reply,
            room,
        };
        self.send(Request::Write(waiting)).await?;
        Ok(Ack { outcome, count })
    }

    /// Writes; durable on return.
    ///
    /// # Errors
    ///
    /// [`WriteError`]. After [`WriteError::Failed`] it may be there or not, and reading tells.
    pub async fn write(&self, write: Write) -> Result<(), WriteError> {
        let outcome = self.submit(vec![write]).await?.await;
        outcome.into_iter().next().unwrap_or(Ok(()))
    }

    /// The same, blocking: not from asynchronous code.
    ///
    /// # Errors
    ///
    /// See [`Handle::write`].
    pub fn write_blocking(&self, write: Write) -> Result<(), WriteError> {
        wait(self.write(write))
    }

    /// The same as [`Handle::submit`], blocking until there is room.
    ///
    /// # Errors
    ///
    /// See [`Handle::submit`].
    pub fn submit_blocking(&self, writes: Vec<Write>) -> Result<Ack, WriteError> {
        wait(self.submit(writes))
    }

    /// Keeps what a torrent says again and again: it is durable at the end of the period
    /// ([`Options::soon_period`]), or with the next write of this torrent, or when the store is
    /// closed. What is said later takes its place. Views do not see it before. Where the torrent is
    /// gone by then nothing is kept.
    ///
    /// # Errors
    ///
    /// [`WriteError::Closed`].
    pub async fn soon(&self, torrent: InfoHashV1, progress: Progress) -> Result<(), WriteError> {
        let room = self.room(progress.bytes()).await?;
        self.send(Request::Soon(torrent, progress, room)).await
    }

    /// The same, blocking.
    ///
    /// # Errors
    ///
    /// See [`Handle::soon`].
    pub fn soon_blocking(&self, torrent: InfoHashV1, progress: Progress) -> Result<(), WriteError> {
        wait(self.soon(torrent, progress))
    }

    /// Keeps the totals of the server, in the same way.
    ///
    /// # Errors
    ///
    /// [`WriteError::Closed`].
    pub async fn server_totals_soon(&self, totals: Totals) -> Result<(), WriteError> {
        self.send(Request::ServerTotalsSoon(totals)).await
    }

    /// Makes durable what waits for the end of the period.
    ///
    /// # Errors
    ///
    /// [`WriteError::Failed`]: it goes on to wait. [`WriteError::Closed`].
    pub async fn flush(&self) -> Result<(), WriteError> {
        let (reply, outcome) = oneshot::channel();
        self.send(Request::Flush(reply)).await?;
        outcome.await.unwrap_or(Err(WriteError::Closed))
    }

    /// Reads, on a thread for blocking work of the runtime that this is called from. At most
    /// [`limits::VIEWS_MAX`] do so at once.
    ///
    /// # Errors
    ///
    /// [`ReadError`], and what `look` returns.
    pub async fn read<R: Send + 'static>(
        &self,
        look: impl FnOnce(&View) -> Result<R, ReadError> + Send + 'static,
    ) -> Result<R, ReadError> {
        let _room = self.shared.views.acquire().await;
        let handle = self.clone();
        let looking = tokio::task::spawn_blocking(move || handle.read_blocking(look));
        looking.await.unwrap_or(Err(ReadError::Closed))
    }

    /// Reads, blocking on the disk.
    ///
    /// # Errors
    ///
    /// [`ReadError`], and what `look` returns.
    pub fn read_blocking<R>(
        &self,
        look: impl FnOnce(&View) -> Result<R, ReadError>,
    ) -> Result<R, ReadError> {
        let slot = self.shared.slot();
        let open = match &*slot {
            Slot::Open(open) => open,
            Slot::Failed(failure) => return Err(ReadError::Failed(failure.clone())),
            Slot::Closed => return Err(ReadError::Closed),
        };
        let failed = |text: String| {
            ReadError::Failed(Arc::new(Failure {
                path: self.shared.path.clone(),
                text,
                disk_full: false,
            }))
        };
        let read = || {
            let transaction = open.database.begin_read();
            let transaction = transaction.map_err(|error| failed(error.to_string()))?;
            look(&View::new(transaction, self.shared.path.clone()))
        };
        let read = caught(read).unwrap_or_else(|panic| Err(failed(panic)));
        if let Err(ReadError::Failed(_)) = &read {
            // With no room for it, writes come that find out themselves.
            let _full = self.requests.try_send(Request::Mend);
        }
        read
    }

    /// Writes a consistent copy of the store to `target` while it is in use, which replaces a file
    /// there only if `replace` says so.
    ///
    /// # Errors
    ///
    /// [`BackupError`]; `target` is as it was then.
    pub async fn backup(&self, target: PathBuf, replace: bool) -> Result<u64, BackupError> {
        let copied = self.read(move |view| Ok(backup::copy(view, &target, replace)));
        copied.await?
    }

    /// How the store does.
    pub fn status(&self) -> Status {
        self.shared.status_mut().clone()
    }

    async fn room(&self, bytes: usize) -> Result<tokio::sync::OwnedSemaphorePermit, WriteError> {
        let kib = u32::try_from(bytes / 1024 + 1).unwrap_or(u32::MAX);
        // What is larger than all of it waits until it is alone.
        let kib = kib.min(self.shared.room_kib);
        let room = self.shared.room.clone().acquire_many_owned(kib).await;
        room.map_err(|_| WriteError::Closed)
    }

    async fn send(&self, request: Request) -> Result<(), WriteError> {
        let sent = self.requests.send(request).await;
        sent.map_err(|_| WriteError::Closed)
    }
}
