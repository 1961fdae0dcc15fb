//! What must be undone however a run ends: processes, directories, a setting of the whole system.
//!
//! Everything is registered as soon as it is there, and undone by its guard or, on SIGINT, SIGTERM
//! and SIGHUP, by the thread of [`on_signals`], which then ends the process: it waits for nobody,
//! so that no other code has to look for signals. SIGKILL cannot be caught: then the kernel ends
//! the programs (see [`super::children`]), but folders and a changed setting stay, and
//! docs/BENCHMARKING.md says how to put it back.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::console::tell;

/// How often removing a directory is tried: who writes into it may not have ended yet.
const REMOVALS: u32 = 20;

/// The pause between two tries.
const REMOVAL_PAUSE: Duration = Duration::from_millis(10);

/// Something to undo.
#[derive(Debug, Clone)]
pub enum Undo {
    /// End every process of a group.
    KillGroup(Pid),
    /// Write a file's former content back.
    WriteBack {
        /// The file.
        path: PathBuf,
        /// What was in it.
        content: String,
    },
    /// Remove a directory with what is in it.
    RemoveDirectory(PathBuf),
}

impl Undo {
    fn run(&self) {
        // Each may be done already, and nothing more could be tried.
        match self {
            Self::KillGroup(group) => {
                let _ = kill_process_group(*group, Signal::KILL);
            }
            Self::WriteBack { path, content } => {
                if let Err(error) = std::fs::write(path, content) {
                    let path = path.display();
                    tell(format_args!(
                        "seedring-bench: cannot write {content:?} back to {path}: {error}"
                    ));
                }
            }
            Self::RemoveDirectory(path) => {
                for _ in 0..REMOVALS {
                    if std::fs::remove_dir_all(path).is_ok() || !path.exists() {
                        break;
                    }
                    std::thread::sleep(REMOVAL_PAUSE);
                }
            }
        }
    }
}

struct Pending {
    next: u64,
    entries: Vec<(u64, Undo)>,
}

impl Pending {
    fn add(&mut self, undo: Undo) -> Guard {
        let id = self.next;
        self.next += 1;
        self.entries.push((id, undo));
        Guard(id)
    }
}

static PENDING: Mutex<Pending> = Mutex::new(Pending {
    next: 0,
    entries: Vec::new(),
});

fn pending() -> MutexGuard<'static, Pending> {
    PENDING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Undoes its entry when it is dropped.
#[derive(Debug)]
#[must_use = "what is registered is undone at once when the guard is dropped"]
pub struct Guard(u64);

impl Guard {
    /// Undoes nothing any more, after `done` has run. No signal is handled meanwhile: a process id
    /// that `done` gives back to the system is not killed later under its new owner.
    pub fn forget_after<T>(self, done: impl FnOnce() -> T) -> T {
        let mut pending = pending();
        let result = done();
        pending.entries.retain(|(id, _)| *id != self.0);
        drop(pending);
        result
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut pending = pending();
        let at = pending.entries.iter().position(|(id, _)| *id == self.0);
        if let Some(at) = at {
            let (_, undo) = pending.entries.remove(at);
            undo.run();
        }
    }
}

/// Registers what to undo.
pub fn register(undo: Undo) -> Guard {
    pending().add(undo)
}

/// Makes something and registers how it is undone. No signal is handled meanwhile: nothing is made
/// that nobody undoes.
pub fn make<T, E>(make: impl FnOnce() -> Result<(T, Undo), E>) -> Result<(T, Guard), E> {
    let mut pending = pending();
    let (made, undo) = make()?;
    Ok((made, pending.add(undo)))
}

/// From now on, SIGINT, SIGTERM and SIGHUP undo everything, the latest first, and end the process
/// with 128 + the signal's number.
pub fn on_signals() -> std::io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    let body = move || {
        let Some(number) = signals.forever().next() else {
            return;
        };
        // Held to the end, so that nobody starts anything more, or undoes it a second time.
        let pending = pending();
        pending
            .entries
            .iter()
            .rev()
            .for_each(|(_, undo)| undo.run());
        tell("seedring-bench: interrupted; programs stopped, settings restored");
        std::process::exit(128 + number);
    };
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(body)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guard_undoes_once_or_never() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("setting");
        std::fs::write(&path, "after").unwrap();
        let undo = Undo::WriteBack {
            path: path.clone(),
            content: "before".to_owned(),
        };
        let kept = register(undo.clone());
        assert_eq!(kept.forget_after(|| 7), 7);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "after");
        drop(register(undo));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "before");
        let inner = directory.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        let made = make(|| Ok::<_, ()>((7, Undo::RemoveDirectory(inner.clone()))));
        let (seven, guard) = made.unwrap();
        assert!(seven == 7 && inner.exists());
        drop(guard);
        assert!(!inner.exists());
    }
}
