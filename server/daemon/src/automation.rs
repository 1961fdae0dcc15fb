//! Watch folders and hooks of `serve`: made of the configuration, started and stopped in order.
//! `seed` has neither: what it serves is on its command line.
//!
//! After a reload both go by what it says; those that have not changed go on as they were.

use crate::failure::Failure;
use crate::server::Plan;
use crate::settings;
use anyhow::Context;
use control::announce::Authority;
use control::command::Server;
use control::config::{Config, HookEntry, WatchEntry};
use control::hooks::{Hook, HookError, Hooks, Target, Webhook};
use control::watching::Watching;
use seedring_metrics::ControlCells;
use state::Handle;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

/// The most that is read of a file with a secret, in bytes.
const SECRET_BYTES_MAX: u64 = 4096;

/// What the configuration says of it, with its secrets read.
pub struct Wanted {
    hooks: Vec<Hook>,
    watches: Vec<WatchEntry>,
    authorities: Vec<Authority>,
}

impl Wanted {
    /// Reads it, and the files that it names.
    ///
    /// # Errors
    ///
    /// A file cannot be used.
    pub fn read(config: &Config) -> anyhow::Result<Wanted> {
        let hooks = config.hooks.iter().map(hook).collect::<Result<_, _>>()?;
        Ok(Wanted {
            hooks,
            watches: config.watches.clone(),
            authorities: settings::authorities(config)?,
        })
    }
}

/// What of it runs.
pub struct Automation {
    wanted: Wanted,
    store: Handle,
    cells: Arc<ControlCells>,
    hooks: Option<Hooks>,
    watching: Option<Watching>,
}

impl Automation {
    /// Starts the hooks, which are told what an earlier run has left.
    ///
    /// # Errors
    ///
    /// A file that the configuration names cannot be used.
    pub async fn start(
        plan: &Plan,
        store: Handle,
        cells: Arc<ControlCells>,
    ) -> Result<Automation, Failure> {
        let wanted = Wanted::read(&plan.config)?;
        let mut hooks = None;
        if plan.keeps {
            let (store, cells) = (store.clone(), Arc::clone(&cells));
            let all = wanted.hooks.clone();
            let started = Hooks::start(all, &wanted.authorities, store, cells).await;
            hooks = Some(started.context("the hooks cannot be started")?);
        }
        Ok(Automation {
            wanted,
            store,
            cells,
            hooks,
            watching: None,
        })
    }

    /// Goes by what a reload says. Nothing here waits for a disk.
    pub fn renew(&mut self, wanted: Wanted, server: Server) {
        if let Some(hooks) = &self.hooks
            && wanted.hooks != self.wanted.hooks
        {
            match hooks.replace(wanted.hooks.clone(), &wanted.authorities) {
                Ok(()) => tracing::info!(
                    hooks = wanted.hooks.len(),
                    "other hooks are told from now on"
                ),
                Err(error) => tracing::error!(%error, "the hooks stay as they were"),
            }
        }
        let are_others = wanted.watches != self.wanted.watches;
        self.wanted = wanted;
        // Where they are not watched yet, they will be as they are now.
        if are_others && self.watching.is_some() {
            self.watch(server);
            let folders = self.wanted.watches.len();
            tracing::info!(folders, "other folders are watched from now on");
        }
    }

    /// The way to the hooks.
    pub fn hooks(&self) -> Option<Hooks> {
        self.hooks.clone()
    }

    /// Begins to watch folders, in the place of those that were watched: when the torrents that are
    /// kept have been read, so that adding one does not wait for that.
    pub fn watch(&mut self, server: Server) {
        if self.hooks.is_none() {
            return;
        }
        let folders = self.wanted.watches.clone();
        let (store, cells) = (self.store.clone(), Arc::clone(&self.cells));
        let before = self.watching.take();
        self.watching = Some(Watching::start(folders, server, store, cells, before));
    }

    /// Ends the watch: nothing is added from here on.
    pub async fn stop_watching(&mut self) {
        if let Some(watching) = self.watching.take() {
            watching.stop().await;
        }
    }

    /// Ends the hooks: to be done when nothing happens any more, and before the store is closed.
    pub async fn stop_hooks(&self) {
        if let Some(hooks) = &self.hooks {
            hooks.stop().await;
        }
    }
}

/// A hook, with its secrets read.
fn hook(entry: &HookEntry) -> Result<Hook, HookError> {
    let target = match &entry.url.0 {
        None => Target::Run(entry.run.0.clone()),
        Some(url) => {
            let read = |path: &Option<_>| path.as_deref().map(secret).transpose();
            Target::Post(Webhook {
                url: url.clone(),
                secret: read(&entry.secret_file)?.map(String::into_bytes),
                token: read(&entry.token_file)?,
            })
        }
    };
    Ok(Hook {
        on: entry.on.0.clone(),
        categories: entry.categories.0.clone(),
        labels: entry.labels.0.clone(),
        target,
        timeout: entry.timeout_s.duration(),
        concurrency: entry.concurrency as usize,
    })
}

/// A secret: one line of visible ASCII.
fn secret(path: &Path) -> Result<String, HookError> {
    let wrong = |why: String| HookError::Secret {
        path: path.to_owned(),
        why,
    };
    let failed = |error: std::io::Error| wrong(error.to_string());
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode();
    if mode & 0o007 != 0 {
        tracing::warn!(file = ?path,
            "everybody on this machine can read a hook's secret: chmod o= it");
    }
    let mut text = String::new();
    let mut file = file.take(SECRET_BYTES_MAX + 1);
    file.read_to_string(&mut text).map_err(failed)?;
    let line = text.trim_end_matches(['\r', '\n']);
    let is_line = !line.is_empty()
        && line
            .bytes()
            .all(|byte| byte.is_ascii_graphic() || byte == b' ');
    match is_line && text.len() as u64 <= SECRET_BYTES_MAX {
        true => Ok(line.to_owned()),
        false => Err(wrong("it is not one line of visible ASCII".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            secret(&path).map_err(|error| error.to_string())
        };
        assert_eq!(read("s3 cret\n").unwrap(), "s3 cret");
        assert_eq!(read(&"x".repeat(4096)).unwrap().len(), 4096);
        for text in ["", "\n", "a\nb", "ä", &"x".repeat(4097)] {
            let refused = read(text).unwrap_err();
            assert!(refused.contains("one line"), "{refused}");
        }
        assert!(secret(&folder.path().join("absent")).is_err());
    }
}
