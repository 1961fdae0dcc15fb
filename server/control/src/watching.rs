//! Folders whose .torrent files, and links in .magnet and .url files, are added as they come.
//!
//! Each folder has a task, which looks into it once in [`LOOK`](folder): at the times of its
//! folders first, which costs next to nothing, and at its files when one of those has changed, and
//! at all of them once a minute. So it needs no notification by the kernel, of which file systems
//! of the network have none, and nothing is missed. A folder that is not there is looked for until
//! it is.
//!
//! A .torrent file is taken as soon as it is whole, which its own structure shows; a link when it
//! ends with a line or has been quiet for a while. What stays wrong while nobody writes is no
//! torrent, and is renamed. Torrents are added by [`command`](crate::command), as the API adds
//! them.
//!
//! Nothing is watched before it is known which files have stayed: as long as the store cannot be
//! read, all would be taken for new.
//!
//! Limits: files that are read or added at a time, of a folder ([`ADDS_MAX`]) and of all
//! ([`MEMORY_BYTES_MAX`], taken in turn); files of a folder that are minded at once and folders
//! below it (`look.rs`); files that are remembered because they stay (`seen.rs`). Does not: follow
//! symbolic links below the folder, or open what is no ordinary file.

mod content;
mod files;
mod folder;
mod job;
mod look;
mod seen;
mod spot;

use crate::command::Server;
use crate::config::WatchEntry;
use ::state::Handle;
use seedring_metrics::ControlCells;
use seen::Seen;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, watch};

/// Files of one folder that are read or added at a time.
const ADDS_MAX: usize = 16;

/// Memory of the files that are read or being added, in bytes; a file that is larger than what is
/// left of it waits, and those after it do.
pub const MEMORY_BYTES_MAX: u64 = 128 << 20;

/// What a file counts at least, in KiB: what it takes to add a torrent, whatever its size.
const FILE_KIB_MIN: u32 = 256;

/// Descriptors of one folder: those that its files and a look at it take.
pub const DESCRIPTORS: u64 = 2 * ADDS_MAX as u64 + 4;

/// How long the end of a watch may take: a disk may hang.
const STOP: Duration = Duration::from_secs(2);

/// How long after a failure the store is read again.
const READ_AGAIN: Duration = Duration::from_secs(5);

/// What all folders share.
struct Shared {
    server: Server,
    cells: Arc<ControlCells>,
    seen: Seen,
    /// What is left of [`MEMORY_BYTES_MAX`], in KiB.
    room: Arc<Semaphore>,
}

/// The watch over folders; it ends when this is dropped, or by [`Watching::stop`].
pub struct Watching {
    stop: watch::Sender<bool>,
}

impl Watching {
    /// Begins to watch, once the watch `before` has ended and the store has been read: neither is
    /// waited for here. What was there already is found like what comes.
    pub fn start(
        folders: Vec<WatchEntry>,
        server: Server,
        store: Handle,
        cells: Arc<ControlCells>,
        before: Option<Watching>,
    ) -> Watching {
        let (stop, stopped) = watch::channel(false);
        let mut stopping = stopped.clone();
        tokio::spawn(async move {
            if let Some(before) = before {
                before.stop().await;
            }
            let reading = || Seen::read(store.clone());
            let begin = async {
                if folders.is_empty() {
                    return;
                }
                let shared = Arc::new(Shared {
                    server,
                    cells,
                    seen: until_done(reading, READ_AGAIN).await,
                    room: Arc::new(Semaphore::new((MEMORY_BYTES_MAX >> 10) as usize)),
                });
                begin(folders, &shared, &stopped);
            };
            tokio::select! {
                biased;
                _ = stopping.wait_for(|stopping| *stopping) => {}
                () = begin => {}
            }
        });
        Watching { stop }
    }

    /// Ends it. What is being added is, or is not and is found at the next start.
    pub async fn stop(&self) {
        self.stop.send_replace(true);
        let _ = tokio::time::timeout(STOP, self.stop.closed()).await;
    }
}

fn begin(folders: Vec<WatchEntry>, shared: &Arc<Shared>, stopped: &watch::Receiver<bool>) {
    for entry in folders {
        if let Some(path) = entry.path.0.clone() {
            let (shared, stopped) = (Arc::clone(shared), stopped.clone());
            tokio::spawn(folder::watch(path, entry, shared, stopped));
        }
    }
}

/// Tries until it works; each reason why it does not is told once.
async fn until_done<T, E: Display, F: Future<Output = Result<T, E>>>(
    mut attempt: impl FnMut() -> F,
    pause: Duration,
) -> T {
    let mut told = String::new();
    loop {
        let error = match attempt().await {
            Ok(done) => return done,
            Err(error) => error.to_string(),
        };
        if error != told {
            tracing::error!(
                error,
                "no folder is watched yet: which files of watch folders were added is not known; \
                 the store is read again until it can be"
            );
            told = error;
        }
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
mod tests;
