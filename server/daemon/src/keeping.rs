//! The torrents that a server keeps: their store opened, their manager started, and both ended.
//!
//! `seed` keeps nothing, and has a store that is begun anew each time: what it serves is shown by
//! the same API.

use crate::failure::Failure;
use crate::settings;
use anyhow::{Context, anyhow};
use control::command::ServerLimits;
use control::config::{self, Config};
use control::roots::Roots;
use seedring_io::fetch::{Allocation, PastCache};
use seedring_io::plane::SleepPolicy;
use state::{Options, ReadError, Store};
use std::path::{Path, PathBuf};
use tokio::sync::oneshot;
use torrents::{Enough, LimitRules, Manager, Settings};

/// Where the store of a server is that keeps nothing.
fn passing_dir(state_dir: &Path) -> PathBuf {
    state_dir.join("seed")
}

/// Opens the store.
///
/// # Errors
///
/// Why it cannot be.
pub fn open(state_dir: &Path, keeps: bool) -> Result<Store, Failure> {
    let directory = match keeps {
        true => state_dir.to_owned(),
        false => {
            // The state folder is this process's alone: its lock is held.
            let passing = passing_dir(state_dir);
            let _ = std::fs::remove_dir_all(&passing);
            passing
        }
    };
    let store = Store::open(&directory, Options::default());
    store.map_err(|error| Failure::Failed(error.into()))
}

/// Closes the store.
pub fn close(store: Store, state_dir: &Path, keeps: bool) {
    store.close();
    if !keeps {
        let _ = std::fs::remove_dir_all(passing_dir(state_dir));
    }
}

/// How torrents are kept.
///
/// # Errors
///
/// A file of certificates is none.
pub fn settings(config: &Config, keeps: bool, state_dir: &Path) -> anyhow::Result<Settings> {
    let library = &config.library;
    let save_path = library.save_path.clone();
    Ok(Settings {
        keeps,
        save_path: save_path.unwrap_or_else(|| state_dir.join("downloads")),
        category_paths: library
            .category_paths
            .iter()
            .map(|rule| (rule.name.clone(), rule.path.clone()))
            .collect(),
        roots: Roots::new(&library.roots),
        sleep: SleepPolicy {
            awake_max: library.awake_max as usize,
            idle_min: library.idle_min_s.duration(),
        },
        downloads_max: library.downloads_max as usize,
        stalled_after: library.stalled_after_s.duration(),
        enough: Enough {
            ratio_permille: u64::from(library.ratio_permille),
            seeding_time_s: library.seeding_time_s.duration().as_secs(),
            action: torrents::action_of(library.at_limit),
        },
        partial_suffix: config.fetch.partial_suffix.clone(),
        allocation: allocation(config.fetch.allocation),
        past_cache: past_cache(config.fetch.past_cache),
        always_hash: settings::always_hash(config),
        web: settings::announce(config)?,
        limits: LimitRules {
            server: ServerLimits {
                upload_rate: Some(config.limits.upload_rate.0),
                download_rate: Some(config.limits.download_rate.0),
            },
            labels: config.limits.labels.clone(),
            categories: config.limits.categories.clone(),
            schedule: config.limits.schedule.clone(),
            ..LimitRules::default()
        },
    })
}

/// How the space of files is taken.
pub fn allocation(configured: config::Allocation) -> Allocation {
    match configured {
        config::Allocation::Sparse => Allocation::Sparse,
        config::Allocation::Full => Allocation::Full,
    }
}

/// What is written past the page cache.
pub fn past_cache(configured: config::PastCache) -> PastCache {
    match configured {
        config::PastCache::Auto => PastCache::Unasked,
        config::PastCache::Always => PastCache::Always,
        config::PastCache::Never => PastCache::Never,
    }
}

/// The torrents that are being read at the start.
pub struct Reading(oneshot::Receiver<Result<(), ReadError>>);

/// Reads the torrents, then runs their manager.
pub fn run(mut manager: Manager) -> Reading {
    let (done, read) = oneshot::channel();
    tokio::spawn(async move {
        let loaded = manager.load().await;
        let is_loaded = loaded.is_ok();
        let _ = done.send(loaded);
        if is_loaded {
            manager.run().await;
        }
    });
    Reading(read)
}

impl Reading {
    /// Ready when all are read.
    ///
    /// # Errors
    ///
    /// Why they are not.
    pub async fn done(&mut self) -> Result<(), Failure> {
        let read = (&mut self.0).await;
        let read =
            read.map_err(|_| anyhow!("the manager of torrents has ended, which is a bug"))?;
        Ok(read.context("the torrents that are kept cannot be read")?)
    }
}
