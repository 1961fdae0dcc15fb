//! Torrents whose data are where they must not be ([`control::roots`]): commands that would touch them
//! are refused, and those that are kept are offline until their folder is allowed again.
//!
//! Whether a folder is inside is asked beside the manager, because it is asked of a disk.
//!
//! Limits: one look at all folders at a time comes back for each reload; a command that is looked at
//! is one of those that the API waits for. Does not: look at torrents that the configuration names.

use crate::manager::{Inner, Manager};
use control::command::{Action, Command, CommandError};
use control::roots::Outside;
use proto::ids::InfoHashV1;
use state::Condition;
use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;

/// Torrents that are named in the log, of those that are outside; the list has the rest.
const NAMED_MAX: usize = 5;

impl Manager {
    /// Does a command, once it is known that the folders that it touches are inside the roots.
    pub(crate) async fn command(&mut self, command: Command) {
        let info_hash = match &command {
            Command::Move(info_hash, ..)
            | Command::Rename(info_hash, ..)
            | Command::Act(info_hash, Action::Remove { with_data: true }, _) => *info_hash,
            _ => return self.obey(command).await,
        };
        if self.settings.roots.is_anywhere() || self.kept(info_hash).is_err() {
            return self.obey(command).await;
        }
        // Who says that the data are elsewhere now has nobody touch them where they were.
        let own = match &command {
            Command::Move(_, to, _) if to.data_are_there => None,
            _ => self.folder_of(info_hash),
        };
        let (roots, inner) = (self.settings.roots.clone(), self.inner.clone());
        tokio::task::spawn_blocking(move || {
            let refused = match &command {
                Command::Move(_, to, _) => roots.check(&to.save_path).err(),
                _ => None,
            };
            let refused = refused.map(|outside| CommandError::Invalid {
                field: "save_path",
                reason: outside.to_string(),
            });
            let where_it_is = || {
                let outside = roots.check(own.as_deref()?).err()?;
                Some(CommandError::Conflict(format!(
                    "its data are not touched: {outside}"
                )))
            };
            match refused.or_else(where_it_is) {
                None => {
                    let _ = inner.send(Inner::Admitted(Box::new(command)));
                }
                Some(error) => match command {
                    Command::Move(_, _, reply) | Command::Act(_, _, reply) => {
                        let _ = reply.send(Err(error));
                    }
                    Command::Rename(_, _, reply) => {
                        let _ = reply.send(Err(error));
                    }
                    _ => {}
                },
            }
        });
    }

    fn folder_of(&self, info_hash: InfoHashV1) -> Option<PathBuf> {
        let catalog = self.seat.catalog();
        let torrent = catalog.get(&info_hash)?;
        Some(torrent.summary.save_path.clone())
    }

    /// Finds out which torrents are outside the roots, beside everything else.
    pub(crate) fn look_for_outsiders(&self) {
        if self.settings.roots.is_anywhere() {
            return;
        }
        let folders: BTreeSet<PathBuf> = {
            let catalog = self.seat.catalog();
            let kept = catalog.iter().filter(|torrent| !torrent.live.declared);
            kept.map(|torrent| torrent.summary.save_path.clone())
                .collect()
        };
        let (roots, inner) = (self.settings.roots.clone(), self.inner.clone());
        tokio::task::spawn_blocking(move || {
            let outside = |folder: PathBuf| roots.check(&folder).err().map(|why| (folder, why));
            let outside: HashMap<_, _> = folders.into_iter().filter_map(outside).collect();
            let _ = inner.send(Inner::Outside(outside));
        });
    }

    /// Has torrents in these folders be offline.
    pub(crate) async fn outside(&mut self, folders: HashMap<PathBuf, Outside>) {
        let mut outside = Vec::new();
        {
            let catalog = self.seat.catalog();
            for torrent in catalog.iter().filter(|torrent| !torrent.live.declared) {
                let summary = &torrent.summary;
                let why = folders.get(&summary.save_path);
                let is_known = matches!(summary.condition, Condition::Offline | Condition::Failed);
                if let Some(why) = why {
                    outside.push((torrent.info_hash, summary.name.clone(), why, is_known));
                }
            }
        }
        if outside.is_empty() {
            return;
        }
        tracing::warn!(
            torrents = outside.len(),
            "torrents are not served or downloaded, because their data are outside library.roots; \
             move them by hand and say so (`seedring move --data-are-there`), or name their folders there"
        );
        for (info_hash, name, why, _) in outside.iter().take(NAMED_MAX) {
            tracing::warn!(torrent = %info_hash, %name, "{why}");
        }
        for (info_hash, _, why, is_known) in outside {
            if !is_known {
                self.condemn(info_hash, Condition::Offline, why.to_string(), true)
                    .await;
            }
        }
    }

    /// Other folders are allowed: who was outside may be inside, and the other way round.
    pub(crate) async fn look_again_at_roots(&mut self) {
        let offline: Vec<InfoHashV1> = {
            let catalog = self.seat.catalog();
            let offline = catalog.iter().filter(|torrent| {
                !torrent.live.declared && torrent.summary.condition == Condition::Offline
            });
            offline.map(|torrent| torrent.info_hash).collect()
        };
        for info_hash in offline {
            self.restart(info_hash).await;
        }
        self.look_for_outsiders();
    }
}
