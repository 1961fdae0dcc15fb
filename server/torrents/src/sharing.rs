//! Which kept torrents name the same files: cross-seeds of one folder, a torrent that lies within
//! another's. Who deletes the files of one asks here, and leaves what another has.
//!
//! Of each torrent it is known in memory by which names its files begin below its save folder:
//! mostly one, that of its only file or folder. Others that may share a file are those of which
//! such a name is on the way to it, by any name of its folder ([`places`]); only their metainfo are
//! read, and their paths compared by device and inode. That index is filled beside the reading of
//! trackers after a start, and with what is still missing then by the first deletion.
//!
//! What the configuration names is not known by its files before it is loaded. Until then no file
//! goes, and none ever that lies where something is named that could not be loaded.
//!
//! A torrent that is changed or added while files are being deleted is looked at before the next
//! one goes.
//!
//! Limits: [`claims::NAMES_MAX`] names of a torrent, one with more is always looked at; [`READS_MAX`]
//! torrents are read for one deletion, which else leaves all files; [`RECENT_MAX`] changes are
//! remembered, after more of them all torrents are looked at again. Does not: know of files that no
//! torrent names, or see a folder through a view of it with other inodes (a union of disks).

mod claims;
mod mounts;
pub(crate) mod places;

use crate::reading::{Kept, KeptError};
use claims::{ANY, names_in};
pub(crate) use claims::{Claim, own_paths, short};
use control::command::Server;
use places::{Named, Places};
use proto::bencode::Limits;
use proto::ids::InfoHashV1;
use proto::metainfo::Metainfo;
use state::Handle;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Torrents whose metainfo are read for one deletion.
const READS_MAX: usize = 10_000;

/// Changes that are remembered for deletions that are under way.
const RECENT_MAX: usize = 4_096;

/// See the file.
pub(crate) struct Sharing {
    server: Server,
    store: Handle,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// Torrents that are kept, and whose names are not known yet.
    unknown: BTreeSet<InfoHashV1>,
    names: HashMap<InfoHashV1, Box<[u64]>>,
    by_name: BTreeSet<(u64, InfoHashV1)>,
    /// Those that are being added.
    claims: HashMap<InfoHashV1, Claim>,
    /// Those that others serve, whether they are kept, too, or not.
    declared: HashMap<InfoHashV1, Claim>,
    /// Whether others are still finding out what they are to serve.
    held: bool,
    /// What they were to serve, but could not load, or serve from elsewhere.
    unloaded: Arc<[PathBuf]>,
    /// Grows with each change.
    generation: u64,
    /// The last changes.
    recent: VecDeque<(u64, InfoHashV1)>,
}

impl Known {
    /// Notes that something of a torrent is other than before.
    fn changed(&mut self, info_hash: InfoHashV1) {
        self.generation += 1;
        self.recent.push_back((self.generation, info_hash));
        if self.recent.len() > RECENT_MAX {
            self.recent.pop_front();
        }
    }

    fn set_names(&mut self, info_hash: InfoHashV1, names: Box<[u64]>) {
        self.forget(&info_hash);
        for name in &names {
            self.by_name.insert((*name, info_hash));
        }
        self.names.insert(info_hash, names);
    }

    fn forget(&mut self, info_hash: &InfoHashV1) {
        self.unknown.remove(info_hash);
        for name in self.names.remove(info_hash).into_iter().flatten() {
            self.by_name.remove(&(name, *info_hash));
        }
    }

    /// Torrents that have one of these names.
    fn with(&self, names: &HashSet<u64>) -> BTreeSet<InfoHashV1> {
        let (first, last) = (InfoHashV1([0; 20]), InfoHashV1([u8::MAX; 20]));
        let of = |name: &u64| {
            let range = self.by_name.range((*name, first)..=(*name, last));
            range.map(|(_, info_hash)| *info_hash)
        };
        names.iter().chain([&ANY]).flat_map(of).collect()
    }

    /// Claims of those that are being added, if they have one of these names, and of all that others
    /// serve: these may have files by links of other names.
    fn claims_with(
        &self,
        names: &HashSet<u64>,
        is_asked: impl Fn(&InfoHashV1) -> bool,
    ) -> Vec<(InfoHashV1, Claim)> {
        let has_one = |claim: &Claim| {
            let mut own = claim.names.iter();
            own.any(|name| *name == ANY || names.contains(name))
        };
        let added = self.claims.iter().filter(|(_, claim)| has_one(claim));
        let claims = added.chain(&self.declared);
        let claims = claims.filter(|(other, _)| is_asked(other));
        let claims = claims.map(|(other, claim)| (*other, claim.clone()));
        claims.collect()
    }

    /// What has changed after `generation`; none if that is not remembered.
    fn since(&self, generation: u64) -> Option<BTreeSet<InfoHashV1>> {
        let missed = self.generation - generation;
        let recent = self.recent.iter().rev();
        (missed <= self.recent.len() as u64).then(|| {
            let new = recent.take_while(|(at, _)| *at > generation);
            new.map(|(_, info_hash)| *info_hash).collect()
        })
    }
}

/// Why it is not known which files others have.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SharingError {
    #[error(transparent)]
    Store(#[from] state::ReadError),
    #[error("torrent {0} may have some of them, and what is kept of it cannot be read: {1}")]
    Torrent(InfoHashV1, KeptError),
    #[error("torrents that the configuration names are still being loaded, and may have them")]
    Held,
    #[error(
        "the configuration names {0:?}, from where nothing is served, and they may be part of it"
    )]
    Unloaded(PathBuf),
    #[error("{0} torrents may have some of them, more than are looked at")]
    TooMany(usize),
}

impl Sharing {
    pub(crate) fn new(server: Server, store: Handle) -> Sharing {
        Sharing {
            server,
            store,
            known: Mutex::default(),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Others find out from now on what they are to serve: no files may go meanwhile.
    pub(crate) fn hold(&self) {
        let mut known = self.known();
        known.held = true;
        known.generation += 1;
    }

    /// What others serve is declared, all but what is at these paths: that stays.
    pub(crate) fn settle(&self, unloaded: Vec<PathBuf>) {
        let mut known = self.known();
        known.held = false;
        known.unloaded = unloaded.into();
        known.generation += 1;
    }

    /// Whether others are still finding out what they are to serve.
    pub(crate) fn is_held(&self) -> bool {
        self.known().held
    }

    /// Refuses where others may have some of the files at `places` that nobody could look at; blocks
    /// on the disk.
    fn look_unloaded(&self, places: &Places) -> Result<(), SharingError> {
        let unloaded = {
            let known = self.known();
            match known.held {
                true => return Err(SharingError::Held),
                false => Arc::clone(&known.unloaded),
            }
        };
        match unloaded.iter().find(|path| places.touch(path)) {
            Some(path) => Err(SharingError::Unloaded(path.clone())),
            None => Ok(()),
        }
    }

    /// These are kept; what they name is not known yet.
    pub(crate) fn enter(&self, torrents: impl IntoIterator<Item = InfoHashV1>) {
        let mut known = self.known();
        for info_hash in torrents {
            known.forget(&info_hash);
            known.unknown.insert(info_hash);
            known.changed(info_hash);
        }
    }

    /// Where a torrent's files are is other than before, and kept.
    pub(crate) fn changed(&self, info_hash: InfoHashV1) {
        self.enter([info_hash]);
    }

    /// A torrent is kept no more.
    pub(crate) fn gone(&self, info_hash: &InfoHashV1) {
        self.known().forget(info_hash);
    }

    /// Others serve a torrent, whose files are theirs.
    pub(crate) fn declare(&self, info_hash: InfoHashV1, claim: Claim) {
        let mut known = self.known();
        known.declared.insert(info_hash, claim);
        known.changed(info_hash);
    }

    /// Others serve a torrent no more.
    pub(crate) fn undeclare(&self, info_hash: &InfoHashV1) {
        self.known().declared.remove(info_hash);
    }

    /// A torrent names files that the store does not know of yet.
    pub(crate) fn claim(&self, info_hash: InfoHashV1, claim: Claim) {
        let mut known = self.known();
        known.claims.insert(info_hash, claim);
        known.changed(info_hash);
    }

    /// The store knows now of a torrent that names this.
    pub(crate) fn keep(&self, info_hash: InfoHashV1, claim: Option<&Claim>) {
        let names = claim.map_or(Box::default(), |claim| claim.names[..].into());
        let mut known = self.known();
        known.claims.remove(&info_hash);
        known.set_names(info_hash, names);
        known.changed(info_hash);
    }

    /// The store knows of it, or nobody does.
    pub(crate) fn unclaim(&self, info_hash: &InfoHashV1) {
        self.known().claims.remove(info_hash);
    }

    /// How many changes there have been.
    fn generation(&self) -> u64 {
        self.known().generation
    }

    /// When what is read from now on is read, for [`Sharing::note`].
    pub(crate) fn begin_reading(&self) -> u64 {
        self.generation()
    }

    /// A torrent was read that the store has, after `begun`.
    pub(crate) fn note(&self, info_hash: InfoHashV1, kept: &Kept, begun: u64) {
        let names = names_kept(kept);
        let mut known = self.known();
        let changed = known.since(begun);
        let is_new = changed.is_some_and(|changed| !changed.contains(&info_hash));
        if is_new && known.unknown.contains(&info_hash) {
            known.set_names(info_hash, names);
        }
    }

    /// Reads what is not known yet, but for `mine`; blocks on the disk.
    fn learn(&self, mine: &InfoHashV1) -> Result<(), SharingError> {
        loop {
            let (begun, unknown) = {
                let known = self.known();
                let unknown = known.unknown.iter().filter(|unknown| *unknown != mine);
                (
                    known.generation,
                    unknown.take(64).copied().collect::<Vec<_>>(),
                )
            };
            if unknown.is_empty() {
                return Ok(());
            }
            for info_hash in unknown {
                match Kept::read(&self.store, info_hash) {
                    Ok(kept) => self.note(info_hash, &kept, begun),
                    // Removed meanwhile, or read by nobody.
                    Err(KeptError::Gone | KeptError::Metainfo(_)) => self.gone(&info_hash),
                    Err(error) if error.is_passing() => return Err(passing(error)),
                    // Whoever looks at it finds out, and only where it matters.
                    Err(_) => self.learn_damaged(info_hash)?,
                }
            }
        }
    }

    /// Reads the names of a torrent whose other records are damaged: those of its metainfo.
    fn learn_damaged(&self, info_hash: InfoHashV1) -> Result<(), SharingError> {
        let bytes = self.store.read_blocking(|view| view.metainfo(&info_hash))?;
        let parse = |bytes: Vec<u8>| Metainfo::parse_within(&bytes, &Limits::METAINFO_OWN).ok();
        let metainfo = bytes.and_then(parse);
        let names = metainfo.map(|metainfo| names_in(&metainfo, &BTreeMap::new()));
        let names = names.unwrap_or_default();
        self.known().set_names(info_hash, names);
        Ok(())
    }

    /// Whether the files at `places` of the torrent `mine`, which is gone, are others', too: those
    /// of `asked`, or of all; blocks on the disk. One that is declared or added has them, also if it
    /// is this one.
    fn look(
        &self,
        mine: &InfoHashV1,
        places: &Places,
        asked: Option<&BTreeSet<InfoHashV1>>,
        suffix: &str,
    ) -> Result<BTreeMap<PathBuf, InfoHashV1>, SharingError> {
        self.look_unloaded(places)?;
        self.learn(mine)?;
        let is_asked = |it: &InfoHashV1| asked.is_none_or(|asked| asked.contains(it));
        let (mut others, claims) = {
            let known = self.known();
            let claims = known.claims_with(places.names(), is_asked);
            (known.with(places.names()), claims)
        };
        others.retain(|other| is_asked(other) && other != mine);
        let mut shared = BTreeMap::new();
        for (other, claim) in claims {
            let named = Named::new(claim.folder.clone(), claim.files());
            places.find(&named, suffix, |path| {
                shared.insert(path, other);
            });
        }
        let others = self.near(&others, places);
        if others.len() > READS_MAX {
            return Err(SharingError::TooMany(others.len()));
        }
        for other in others {
            let kept = match Kept::read(&self.store, other) {
                Ok(kept) => kept,
                Err(KeptError::Gone | KeptError::Metainfo(_)) => continue,
                Err(error) if error.is_passing() => return Err(passing(error)),
                Err(error) => return Err(SharingError::Torrent(other, error)),
            };
            let Some((_, metainfo)) = &kept.metainfo else {
                continue;
            };
            let files = own_paths(metainfo, &kept.details.renames);
            let mut named = Named::new(kept.summary.save_path.clone(), files);
            named.stamps = kept.stamps;
            places.find(&named, suffix, |path| {
                shared.insert(path, other);
            });
        }
        Ok(shared)
    }

    /// Those of `others` whose save folder is on the way to one of the places, or is not there, or
    /// is not known: of one that others serve another folder is shown.
    fn near(&self, others: &BTreeSet<InfoHashV1>, places: &Places) -> Vec<InfoHashV1> {
        let folders: Vec<(InfoHashV1, Option<PathBuf>)> = {
            let catalog = self.server.catalog();
            let folder = |other: &InfoHashV1| {
                let torrent = catalog.get(other).filter(|torrent| !torrent.live.declared);
                let folder = torrent.map(|torrent| torrent.summary.save_path.clone());
                (*other, folder)
            };
            others.iter().map(folder).collect()
        };
        let mut seen: HashMap<PathBuf, bool> = HashMap::new();
        let mut is_near = |folder: &Path| match seen.get(folder) {
            Some(is_near) => *is_near,
            None => {
                let is_near = places.is_on_the_way(folder);
                seen.insert(folder.to_owned(), is_near);
                is_near
            }
        };
        let near = folders.into_iter();
        let near = near.filter(|(_, folder)| folder.as_deref().is_none_or(&mut is_near));
        near.map(|(other, _)| other).collect()
    }
}

fn passing(error: KeptError) -> SharingError {
    match error {
        KeptError::Store(error) => SharingError::Store(error),
        _ => SharingError::Store(state::ReadError::Closed),
    }
}

fn names_kept(kept: &Kept) -> Box<[u64]> {
    let metainfo = kept.metainfo.as_ref();
    let names = metainfo.map(|(_, metainfo)| names_in(metainfo, &kept.details.renames));
    names.unwrap_or_default()
}

/// The files of a torrent that is gone, which are being deleted, and which of them others have.
pub(crate) struct Remaining<'s> {
    sharing: &'s Sharing,
    mine: InfoHashV1,
    places: Places,
    suffix: String,
    /// What others have, and one of those.
    pub shared: BTreeMap<PathBuf, InfoHashV1>,
    seen: u64,
}

impl<'s> Remaining<'s> {
    /// Looks at the files of the torrent `mine` in `folder`; blocks on the disk.
    pub(crate) fn look(
        sharing: &'s Sharing,
        mine: InfoHashV1,
        (folder, files): (&Path, &[PathBuf]),
        suffix: &str,
    ) -> Result<Remaining<'s>, SharingError> {
        let places = Places::of(folder, files);
        let seen = sharing.generation();
        let shared = sharing.look(&mine, &places, None, suffix)?;
        Ok(Remaining {
            sharing,
            mine,
            places,
            suffix: suffix.to_owned(),
            shared,
            seen,
        })
    }

    /// Whether a file may be deleted now, because nobody else names it.
    pub(crate) fn may_go(&mut self, path: &Path) -> Result<bool, SharingError> {
        let now = self.sharing.generation();
        if now != self.seen {
            let changed = self.sharing.known().since(self.seen);
            let new =
                self.sharing
                    .look(&self.mine, &self.places, changed.as_ref(), &self.suffix)?;
            self.shared.extend(new);
            self.seen = now;
        }
        Ok(!self.shared.contains_key(path))
    }
}

#[cfg(test)]
impl Sharing {
    /// One that knows of no torrent, and its store.
    pub(crate) fn of_nobody() -> ((tempfile::TempDir, state::Store), Sharing) {
        let folder = tempfile::tempdir().unwrap();
        let store = state::Store::open(folder.path(), state::Options::default()).unwrap();
        let (server, _) = control::command::pair();
        let sharing = Sharing::new(server, store.handle());
        ((folder, store), sharing)
    }
}

#[cfg(test)]
mod tests;
