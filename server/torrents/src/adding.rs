//! Torrents are added: what the user gave becomes what is kept, beside everything else, since it
//! may have to be fetched from the web or hashed.
//!
//! Adding what is there already changes nothing and is no error.

use crate::keeping::{Next, refusal};
use crate::manager::{Inner, Manager, Services, Settings};
use crate::sharing::Claim;
use control::catalog::{Torrent, describe};
use control::command::{AddSource, AddTorrent, Added, CommandError, Reply};
use control::create::{self, CreateOptions};
use control::hooks::HookEvent;
use control::library::Ready;
use control::web;
use engine::layout::FileStamp;
use engine::picker::Priority;
use proto::ids::InfoHashV1;
use proto::magnet::Magnet;
use proto::metainfo::Metainfo;
use state::{Condition, Details, Intent, NewTorrent, Place, Summary, Verified, Write, WriteError};
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Torrents that are being added, at a time: the bytes of each are in memory. Who brings one more
/// is told to try again.
pub(crate) const ADDS_MAX: usize = 256;

/// Those of them that are fetched from the web or hashed, at a time; the others wait.
pub(crate) const LONG_ADDS_MAX: usize = 4;

/// A torrent that is to be kept, and which files it names, if that is known.
type Made = (InfoHashV1, NewTorrent, Option<Claim>);

/// A torrent that is ready to be kept, or why it cannot be.
pub(crate) struct Prepared {
    result: Result<Made, CommandError>,
    peers: Vec<SocketAddr>,
    reply: Reply<Added>,
}

impl Manager {
    /// Begins to add a torrent.
    pub(crate) fn add(&mut self, mut add: AddTorrent, reply: Reply<Added>) {
        let keeps = self.settings.keeps;
        if let Err(error) = check(&add, keeps) {
            let _ = reply.send(Err(error));
            return;
        }
        let Ok(room) = Arc::clone(&self.adds).try_acquire_owned() else {
            let _ = reply.send(Err(CommandError::Busy));
            return;
        };
        let long_adds = Arc::clone(&self.long_adds);
        let takes_long = matches!(add.source, AddSource::Path(_) | AddSource::Url(_));
        let (settings, services) = (self.settings.clone(), Arc::clone(&self.services));
        let (inner, now_s) = (self.inner.clone(), self.clock.now_s());
        tokio::spawn(async move {
            let _turn = match takes_long {
                true => long_adds.acquire_owned().await.ok(),
                false => None,
            };
            let peers = std::mem::take(&mut add.peers);
            let result = prepare(add, settings, services, now_s).await;
            let prepared = Prepared {
                result,
                peers,
                reply,
            };
            let _ = inner.send(Inner::Added(Box::new(prepared)));
            drop(room);
        });
    }

    /// Keeps a torrent that is ready to be.
    pub(crate) async fn prepared(&mut self, prepared: Prepared) {
        let Prepared {
            result,
            peers,
            reply,
        } = prepared;
        let (info_hash, new, claim) = match result {
            Ok(new) => new,
            Err(error) => {
                let _ = reply.send(Err(error));
                return;
            }
        };
        let is_leaving = self.removals.runs(&info_hash) || self.leaving.contains_key(&info_hash);
        if is_leaving || self.burials.runs(&info_hash) {
            let why = "it is being removed, or was just now, and its files are being closed or \
                       deleted; try again in a moment";
            let _ = reply.send(Err(CommandError::Conflict(why.into())));
            return;
        }
        if self.damaged.contains(&info_hash) {
            let why = "what is kept of it is damaged: remove it (without its data), then add it";
            let _ = reply.send(Err(CommandError::Conflict(why.into())));
            return;
        }
        if let Some(name) = self.name_of(info_hash) {
            let _ = reply.send(Ok(added(info_hash, name, true)));
            return;
        }
        let torrent = Torrent {
            info_hash,
            summary: new.summary.clone(),
            totals: new.totals,
            pieces_verified: new.verified.count(new.summary.pieces),
            live: Default::default(),
        };
        // Whoever deletes files from now on leaves these.
        if let Some(claim) = &claim {
            self.sharing.claim(info_hash, claim.clone());
        }
        let place = new.place;
        let notice = self.note(&torrent, HookEvent::Added, None);
        let waited = self.burials.waits(&info_hash);
        self.burials.forget(&info_hash);
        let after = move |manager: &mut Manager, written: Result<(), WriteError>| {
            let name = torrent.summary.name.clone();
            if written.is_err() {
                manager.sharing.unclaim(&info_hash);
                if waited && manager.name_of(info_hash).is_none() {
                    manager.bury_after_all(info_hash);
                }
            } else if waited {
                tracing::info!(torrent = %info_hash, "it was removed with its data, which were not \
                    deleted yet, and is added again: what is there of them stays");
            }
            match written {
                Ok(()) => {
                    manager.seat.change(|catalog| catalog.add(torrent));
                    manager.sharing.keep(info_hash, claim.as_ref());
                    manager.queue.place(info_hash, place);
                    if !peers.is_empty() {
                        let mut peers = peers;
                        peers.truncate(crate::downloading::NAMED_MAX);
                        manager.named.insert(info_hash, peers);
                    }
                    let _ = reply.send(Ok(added(info_hash, name, false)));
                    Next::Restart(info_hash)
                }
                // Two were added at once.
                Err(WriteError::Exists(_)) if manager.name_of(info_hash).is_some() => {
                    let _ = reply.send(Ok(added(info_hash, name, true)));
                    Next::Done
                }
                Err(error) => {
                    let _ = reply.send(Err(refusal(error)));
                    Next::Done
                }
            }
        };
        // What was not deleted when it was removed is its own again.
        let writes = vec![
            Write::Add(info_hash, Box::new(new)),
            Write::Intent(Intent::Delete, info_hash, None),
        ];
        let after = Box::new(after);
        self.keeping.write_telling(writes, notice, after).await;
    }

    fn name_of(&self, info_hash: InfoHashV1) -> Option<String> {
        let catalog = self.seat.catalog();
        let torrent = catalog.get(&info_hash)?;
        Some(torrent.summary.name.clone())
    }
}

fn added(info_hash: InfoHashV1, name: String, was_there: bool) -> Added {
    Added {
        info_hash,
        name,
        was_there,
    }
}

fn invalid(field: &'static str, reason: impl std::fmt::Display) -> CommandError {
    CommandError::Invalid {
        field,
        reason: reason.to_string(),
    }
}

/// What can be refused before anything is done.
fn check(add: &AddTorrent, keeps: bool) -> Result<(), CommandError> {
    if !keeps {
        let why = "`seedring seed` serves what its command line names and takes no other torrents; \
                   `seedring serve` does";
        return Err(CommandError::Unsupported(why.into()));
    }
    if let Some(path) = &add.save_path {
        absolute("save_path", path)?;
    }
    if let AddSource::Path(path) = &add.source {
        absolute("path", path)?;
        if add.save_path.is_some() {
            return Err(invalid(
                "save_path",
                "of a path on the server it is where that lies",
            ));
        }
    }
    Ok(())
}

/// Refuses paths that are not absolute: the server's own folder is nobody's business.
pub(crate) fn absolute(field: &'static str, path: &Path) -> Result<(), CommandError> {
    use std::path::Component;
    let plain =
        |component: Component<'_>| matches!(component, Component::RootDir | Component::Normal(_));
    match path.is_absolute() && path.components().all(plain) {
        true => Ok(()),
        false => Err(invalid(
            field,
            format!("{path:?} is not an absolute path without .."),
        )),
    }
}

/// Makes of what the user gave what is kept.
async fn prepare(
    mut add: AddTorrent,
    settings: Settings,
    services: Arc<Services>,
    now_s: u64,
) -> Result<Made, CommandError> {
    if let AddSource::Url(url) = &add.source {
        let fetched = web::fetch_torrent(url, &settings.web).await;
        let bytes = fetched.map_err(|error| CommandError::Fetch(error.to_string()))?;
        add.source = AddSource::Metainfo(bytes);
    }
    let made = move || {
        let (info_hash, new) = make(&add, &settings, &services, now_s)?;
        let claim = Claim::of(&new);
        Ok((info_hash, new, claim))
    };
    let made = tokio::task::spawn_blocking(made).await;
    made.unwrap_or_else(|error| Err(CommandError::Failed(error.to_string())))
}

fn make(
    add: &AddTorrent,
    settings: &Settings,
    services: &Services,
    now_s: u64,
) -> Result<(InfoHashV1, NewTorrent), CommandError> {
    let folder = add.save_path.clone();
    let category = add.category.as_ref();
    let usual = category.and_then(|name| settings.category_paths.get(name));
    let usual = usual.unwrap_or(&settings.save_path);
    let folder = folder.unwrap_or_else(|| usual.clone());
    if !matches!(add.source, AddSource::Path(_)) {
        let checked = settings.roots.check(&folder);
        checked.map_err(|outside| invalid("save_path", outside))?;
    }
    match &add.source {
        AddSource::Metainfo(bytes) => {
            let metainfo = Metainfo::parse(bytes).map_err(|error| invalid("metainfo", error))?;
            let only_v2 = "it has version 2 hashes only (BEP 52), which are not served yet";
            let info_hash = metainfo.info_hash_v1;
            let info_hash = info_hash.ok_or_else(|| CommandError::Unsupported(only_v2.into()))?;
            let mut new = new_torrent(add, Some(&metainfo), folder, now_s)?;
            new.metainfo = Some(bytes.clone());
            if !add.seed_mode {
                new.summary.condition = Condition::NeedsCheck;
            }
            Ok((info_hash, new))
        }
        AddSource::Magnet(magnet) => of_link(add, magnet, folder, now_s),
        AddSource::Path(path) => of_path(add, path, (settings, services), now_s),
        AddSource::Url(_) => Err(CommandError::Failed("the URL was not fetched".into())),
    }
}

fn of_link(
    add: &AddTorrent,
    magnet: &Magnet,
    folder: PathBuf,
    now_s: u64,
) -> Result<(InfoHashV1, NewTorrent), CommandError> {
    let only_v2 =
        "the link names a version 2 hash only (btmh, BEP 52), which cannot be fetched yet";
    let info_hash = magnet.info_hash_v1;
    let info_hash = info_hash.ok_or_else(|| CommandError::Unsupported(only_v2.into()))?;
    let mut magnet = magnet.clone();
    for url in add.trackers.iter().flatten() {
        if !magnet.trackers.contains(url) {
            magnet.trackers.push(url.clone());
        }
    }
    let mut new = new_torrent(add, None, folder, now_s)?;
    if new.summary.name.is_empty() {
        let name = magnet.name.clone();
        new.summary.name = name.unwrap_or_else(|| info_hash.to_string());
    }
    new.summary.info_hash_v2 = magnet.info_hash_v2;
    new.summary.magnet = Some(magnet.to_string());
    // They are the link's.
    new.details.trackers = None;
    Ok((info_hash, new))
}

fn of_path(
    add: &AddTorrent,
    path: &Path,
    (settings, services): (&Settings, &Services),
    now_s: u64,
) -> Result<(InfoHashV1, NewTorrent), CommandError> {
    let own = services.own_tracker.iter().map(|url| vec![url.clone()]);
    let options = CreateOptions {
        trackers: own.chain(add.trackers.iter().cloned()).collect(),
        ..CreateOptions::default()
    };
    let path = path
        .canonicalize()
        .map_err(|error| invalid("path", error))?;
    // Its data are in the folder that it is in.
    let folder = path.parent().unwrap_or(&path);
    let checked = settings.roots.check(folder);
    checked.map_err(|outside| invalid("path", outside))?;
    let created = create::create(&path, &options, services.disk, &mut |_| {
        ControlFlow::Continue(())
    });
    let created = created.map_err(|error| invalid("path", error))?;
    let ready = Ready::of_created(created);
    let ready = ready.ok_or_else(|| invalid("path", "no torrent can be made of it"))?;
    let folder = ready.data_dir.clone();
    let checked = settings.roots.check(&folder);
    checked.map_err(|outside| invalid("path", outside))?;
    let mut new = new_torrent(add, Some(&ready.metainfo), folder, now_s)?;
    new.details.trackers = None;
    new.details.renames = ready.paths;
    new.metainfo = Some(ready.torrent);
    new.verified = Verified::All;
    new.stamps = ready.stamps as Vec<Option<FileStamp>>;
    new.summary.completed_at_s = Some(now_s);
    new.summary.seed_mode = false;
    new.place = Place::Out;
    Ok((ready.info_hash, new))
}

/// What the user said of a torrent, and its metainfo.
fn new_torrent(
    add: &AddTorrent,
    metainfo: Option<&Metainfo>,
    folder: PathBuf,
    now_s: u64,
) -> Result<NewTorrent, CommandError> {
    let mut summary = Summary {
        name: add.name.clone().unwrap_or_default(),
        category: add.category.clone(),
        labels: add.labels.clone(),
        save_path: folder,
        added_at_s: now_s,
        paused: add.paused,
        seed_mode: add.seed_mode,
        sequential: add.sequential,
        super_seeding: add.super_seeding,
        limits: add.limits,
        ..Summary::default()
    };
    let mut details = Details::default();
    if let Some(metainfo) = metainfo {
        describe(&mut summary, metainfo);
        let files = metainfo.files.len();
        details.priorities = priorities(&add.priorities, add.only_named, files, Vec::new())
            .map_err(|reason| invalid("files", reason))?;
        if !add.trackers.is_empty() {
            let mut tiers = add.trackers.clone();
            tiers.extend(metainfo.trackers.iter().cloned());
            details.trackers = Some(tiers);
        }
    } else if !add.priorities.is_empty() {
        return Err(invalid(
            "files",
            "a link's files are not known yet; the link itself can name \
            those that are wanted (so=), or set them when its metadata are there",
        ));
    }
    let place = match (add.first_in_queue, add.seed_mode) {
        (_, true) => Place::Out,
        (true, false) => Place::First,
        (false, false) => Place::Last,
    };
    Ok(NewTorrent {
        summary,
        details,
        place,
        ..NewTorrent::default()
    })
}

/// `before`, or all as usual, with what is named changed; none if all are wanted as usual.
pub(crate) fn priorities(
    named: &[(u32, Priority)],
    only_named: bool,
    files: usize,
    before: Vec<Priority>,
) -> Result<Vec<Priority>, String> {
    let mut priorities = before;
    if only_named {
        priorities.clear();
    }
    let other = match only_named {
        true => Priority::SKIP,
        false => Priority::NORMAL,
    };
    priorities.resize(files, other);
    for (index, priority) in named {
        let last = files.saturating_sub(1);
        let place = priorities.get_mut(*index as usize);
        *place.ok_or_else(|| format!("there is no file {index}: the last is {last}"))? = *priority;
    }
    if priorities
        .iter()
        .all(|priority| *priority == Priority::NORMAL)
    {
        priorities.clear();
    }
    Ok(priorities)
}
