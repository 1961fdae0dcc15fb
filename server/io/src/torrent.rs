//! A torrent as shards see it: shared by `Arc`, immutable but for a few totals and, while it is
//! being downloaded, for what of it is there.
//!
//! A complete one is served by every shard, and its files are those that were verified, by their
//! stamps. One that is being downloaded ([`crate::fetch`]) is its home shard's alone: its files
//! change, so they have no stamps, and what may be served says its bitfield. It becomes a complete
//! one in place, once.

use crate::exchange::SharedSwarm;
use crate::fetch::{takes_suffix, with_suffix};
use crate::own_limits::OwnLimits;
use crate::presence::Presence;
use crate::roster::Uses;
use crate::super_seeding::SharedSuperSeed;
use engine::layout::{FileIndex, FileStamp, LayoutError, StorageLayout};
use engine::peer_list::{PeerSource, SourceCounts};
use engine::session::{PieceBits, Pieces, TorrentView};
use proto::extension::{METADATA_BLOCK_BYTES, metadata_block_bytes};
use proto::ids::InfoHashV1;
use proto::metainfo::{File, Metainfo};
use seedring_metrics::Counter;
use std::collections::BTreeMap;
use std::ffi::CString;
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

/// Numbers torrents of one process apart, so that a torrent added again is not taken for its past
/// self.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// A torrent whose every byte on disk has been verified, or will have been.
pub struct SeededTorrent {
    id: u64,
    info_hash: InfoHashV1,
    metainfo: Arc<Metainfo>,
    layout: StorageLayout,
    /// Of a complete torrent; set together with `stamps`.
    view: OnceLock<Arc<TorrentView>>,
    data_dir: PathBuf,
    /// What each file was when it was verified; `None` for files without data on disk (pad files).
    /// Not set while the torrent is being downloaded.
    stamps: OnceLock<Vec<Option<FileStamp>>>,
    /// What is known of a torrent that is or was being downloaded.
    partial: Option<Partial>,
    /// Paths of files that lie elsewhere than the metainfo says, by their index.
    paths: BTreeMap<u32, PathBuf>,
    /// Where its files are now, if they were moved while it was served: locked when a file is
    /// opened.
    moved: RwLock<Option<Arc<Place>>>,
    /// How often they were moved.
    place_number: AtomicU32,
    /// Whether its files are getting other names just now.
    renaming: AtomicBool,
    uploaded_bytes: AtomicU64,
    stopped: AtomicBool,
    limits: OwnLimits,
    presence: Presence,
    /// The peers that are connected for it.
    swarm: SharedSwarm,
    super_seeding: SharedSuperSeed,
    uses: Uses,
}

/// Where the files of a complete torrent are, and what they were when they were verified there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The directory that paths are relative to.
    pub data_dir: PathBuf,
    /// One for each file, in the torrent's order; `None` for pad files.
    pub stamps: Vec<Option<FileStamp>>,
    /// Paths of files that lie elsewhere than the metainfo says, by their index.
    pub paths: BTreeMap<u32, PathBuf>,
}

/// A place that a torrent was moved to, and which one it is: 0 is where it began.
pub(crate) type NumberedPlace = (u32, Option<Arc<Place>>);

/// A torrent that is being downloaded.
struct Partial {
    pieces: Arc<PieceBits>,
    suffix: String,
    /// Whether the file lies under its name with the suffix.
    suffixed: Box<[AtomicBool]>,
    /// Device and inode of files that were opened for writing: another one in their place is not
    /// ours.
    identities: Box<[OnceLock<(u64, u64)>]>,
}

/// Why a torrent can not be handed to the shards.
#[derive(Debug, thiserror::Error)]
pub enum AddError {
    /// The torrent has no v1 info-hash.
    #[error("torrent {name:?} has only v2 hashes (BEP 52); serving those comes later")]
    OnlyV2 {
        /// The torrent's name.
        name: String,
    },
    /// Its files do not add up.
    #[error("torrent {name:?}: {error}")]
    Layout {
        /// The torrent's name.
        name: String,
        /// What is wrong.
        error: LayoutError,
    },
    /// The number of stamps is not the number of files: a bug of ours.
    #[error("torrent {name:?} came with {stamps} file stamps for {files} files")]
    Stamps {
        /// The torrent's name.
        name: String,
        /// The number of stamps.
        stamps: usize,
        /// The number of files.
        files: usize,
    },
}

impl SeededTorrent {
    /// A torrent with its data below `data_dir`, verified when its files had these `stamps` (one
    /// per file of the torrent, in its order; `None` for pad files). `paths` has the paths of those
    /// files that lie elsewhere than the metainfo says, by their index.
    ///
    /// # Errors
    ///
    /// [`AddError`]; nothing has been started then.
    pub fn new(
        metainfo: Arc<Metainfo>,
        data_dir: &Path,
        stamps: Vec<Option<FileStamp>>,
        paths: BTreeMap<u32, PathBuf>,
    ) -> Result<Self, AddError> {
        if stamps.len() != metainfo.files.len() {
            return Err(AddError::Stamps {
                name: metainfo.name.clone(),
                stamps: stamps.len(),
                files: metainfo.files.len(),
            });
        }
        let torrent = Self::unfilled(metainfo, data_dir, paths, None)?;
        torrent.complete(stamps);
        Ok(torrent)
    }

    /// A torrent that is being downloaded to `data_dir`, of which the pieces of the bitfield
    /// `verified` (empty: none) are there. A file has `suffix` at the end of its name unless it
    /// exists under its own. `paths` as of [`SeededTorrent::new`].
    pub(crate) fn partial(
        metainfo: Arc<Metainfo>,
        data_dir: &Path,
        verified: &[u8],
        suffix: &str,
        paths: BTreeMap<u32, PathBuf>,
    ) -> Result<Self, AddError> {
        let suffixed = |(index, file): (u32, &File)| {
            let said = || file.path.iter().collect::<PathBuf>();
            let own = data_dir.join(paths.get(&index).cloned().unwrap_or_else(said));
            AtomicBool::new(takes_suffix(&own, suffix))
        };
        let partial = Partial {
            pieces: Arc::new(PieceBits::new(metainfo.piece_count, verified)),
            suffix: suffix.to_owned(),
            suffixed: (0..).zip(&metainfo.files).map(suffixed).collect(),
            identities: metainfo.files.iter().map(|_| OnceLock::new()).collect(),
        };
        Self::unfilled(metainfo, data_dir, paths, Some(partial))
    }

    /// A torrent without stamps.
    fn unfilled(
        metainfo: Arc<Metainfo>,
        data_dir: &Path,
        paths: BTreeMap<u32, PathBuf>,
        partial: Option<Partial>,
    ) -> Result<Self, AddError> {
        let name = || metainfo.name.clone();
        let Some(info_hash) = metainfo.info_hash_v1 else {
            return Err(AddError::OnlyV2 { name: name() });
        };
        let files = &metainfo.files;
        let lengths: Vec<(u64, bool)> = files.iter().map(|file| (file.length, file.pad)).collect();
        let layout = StorageLayout::new(&lengths, metainfo.piece_length).map_err(|error| {
            AddError::Layout {
                name: name(),
                error,
            }
        })?;
        Ok(SeededTorrent {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            info_hash,
            layout,
            view: OnceLock::new(),
            metainfo,
            data_dir: data_dir.to_owned(),
            stamps: OnceLock::new(),
            partial,
            paths,
            moved: RwLock::new(None),
            place_number: AtomicU32::new(0),
            renaming: AtomicBool::new(false),
            uploaded_bytes: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            limits: OwnLimits::default(),
            presence: Presence::default(),
            swarm: SharedSwarm::default(),
            super_seeding: SharedSuperSeed::default(),
            uses: Uses::default(),
        })
    }

    /// Its number in this process.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Its v1 info-hash.
    pub fn info_hash(&self) -> InfoHashV1 {
        self.info_hash
    }

    /// Its metainfo.
    pub fn metainfo(&self) -> &Arc<Metainfo> {
        &self.metainfo
    }

    /// Where its bytes lie in its files.
    pub fn layout(&self) -> &StorageLayout {
        &self.layout
    }

    /// What each file was when it was verified; `None` for files without data on disk (pad files),
    /// nothing while it is being downloaded.
    pub fn stamps(&self) -> &[Option<FileStamp>] {
        self.stamps.get().map_or(&[], Vec::as_slice)
    }

    /// The directory that its paths are relative to.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// It does not fall asleep, whether peers use it or not. To be said before it is added.
    pub fn keep_awake(&self) {
        self.uses.pin();
    }

    /// Its files, of a complete torrent, are at `place` from now on: what is opened from here on is
    /// opened there. Those that are open where they were go on being read, and are to stay as they
    /// are until nobody does.
    pub fn move_to(&self, place: Place) {
        let mut moved = self.moved.write().unwrap_or_else(PoisonError::into_inner);
        *moved = Some(Arc::new(place));
        self.place_number.fetch_add(1, Ordering::Release);
    }

    /// Says whether its files get other names, or lose some, by our own hand: then the time of
    /// their last change of status (ctime), which that moves, tells nothing. Their device, inode,
    /// size and time of the last write still do.
    pub fn set_renaming(&self, renaming: bool) {
        self.renaming.store(renaming, Ordering::Release);
    }

    /// Whether `found` is what was verified as `known`.
    pub(crate) fn is_as_verified(&self, known: Option<FileStamp>, found: FileStamp) -> bool {
        let Some(known) = known else {
            return false;
        };
        let ctime_ns = match self.renaming.load(Ordering::Acquire) {
            true => found.ctime_ns,
            false => known.ctime_ns,
        };
        FileStamp { ctime_ns, ..known } == found
    }

    /// How often its files were moved.
    pub(crate) fn place_number(&self) -> u32 {
        self.place_number.load(Ordering::Acquire)
    }

    /// Where its files are now.
    pub(crate) fn place(&self) -> NumberedPlace {
        let moved = self.moved.read().unwrap_or_else(PoisonError::into_inner);
        // Both are written under the lock.
        (self.place_number(), moved.clone())
    }

    /// Payload bytes sent to peers since the process started.
    pub fn uploaded_bytes(&self) -> u64 {
        self.uploaded_bytes.load(Ordering::Relaxed)
    }

    /// How many peers are connected for it, and how many of them only upload or have all of it, as
    /// of the last second.
    pub fn peers(&self) -> (usize, usize) {
        self.presence.counts()
    }

    /// By which source those that are connected are known.
    pub fn peers_by_source(&self) -> SourceCounts {
        self.presence.connected()
    }

    /// How many addresses each source has named that were not known; who came by himself is his own
    /// source.
    pub fn named_by_source(&self) -> SourceCounts {
        self.presence.named()
    }

    /// Counts payload bytes sent.
    pub fn add_uploaded(&self, bytes: u64) {
        self.uploaded_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Ends the serving of this torrent on all shards, before their next block. True the first
    /// time.
    pub(crate) fn stop(&self) -> bool {
        !self.stopped.swap(true, Ordering::AcqRel)
    }

    /// Whether it was stopped: removed, or its data are no longer what was verified.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Its own limits.
    pub(crate) fn limits(&self) -> &OwnLimits {
        &self.limits
    }

    /// The numbers of its peers.
    pub(crate) fn presence(&self) -> &Presence {
        &self.presence
    }

    /// Whether peers that `source` names may be called: of a private torrent only those of its
    /// trackers and of the user (BEP 27).
    pub(crate) fn may_call(&self, source: PeerSource) -> bool {
        !(self.metainfo.private && source.is_hearsay())
    }

    /// The peers that are connected for it.
    pub(crate) fn swarm(&self) -> &SharedSwarm {
        &self.swarm
    }

    /// Super-seeds it from now on (BEP 16), or does not any more. Peers that are connected are told
    /// of everything at once when that ends, and go on as they are when it begins. One that is
    /// being downloaded is super-seeded when it is complete.
    pub fn set_super_seeding(&self, on: bool) {
        self.super_seeding.set(on);
    }

    /// What its connections share for that.
    pub(crate) fn super_seeding(&self) -> &SharedSuperSeed {
        &self.super_seeding
    }

    /// How many use it.
    pub(crate) fn uses(&self) -> &Uses {
        &self.uses
    }

    /// Whether all of it is there.
    pub fn is_complete(&self) -> bool {
        self.stamps.get().is_some()
    }

    /// Makes it a complete one, whose files have these stamps. Once.
    pub(crate) fn complete(&self, stamps: Vec<Option<FileStamp>>) {
        let is_new = self.stamps.set(stamps).is_ok();
        assert!(is_new, "a torrent becomes complete once");
    }

    /// What its sessions need to know of it.
    pub(crate) fn view(&self) -> Arc<TorrentView> {
        match &self.partial {
            Some(partial) if !self.is_complete() => {
                let pieces = Pieces::Growing(Arc::clone(&partial.pieces));
                Arc::new(self.view_of(pieces))
            }
            _ => Arc::clone(
                self.view
                    .get_or_init(|| Arc::new(self.view_of(Pieces::All))),
            ),
        }
    }

    fn view_of(&self, pieces: Pieces) -> TorrentView {
        TorrentView {
            piece_count: self.layout.piece_count(),
            piece_length: self.layout.piece_length(),
            total_length: self.layout.total_length(),
            metadata_bytes: u32::try_from(self.metainfo.info.len()).ok(),
            private: self.metainfo.private,
            pieces,
        }
    }

    /// Which pieces are there, while it is being downloaded.
    pub(crate) fn pieces(&self) -> Option<&Arc<PieceBits>> {
        self.partial.as_ref().map(|partial| &partial.pieces)
    }

    /// Whether `file` lies under its name with the suffix; its two paths relative to the data
    /// directory, for system calls.
    pub(crate) fn suffixed_paths(&self, file: FileIndex) -> Option<(CString, CString)> {
        let partial = self.partial.as_ref()?;
        let is_suffixed = partial.suffixed.get(file.0 as usize)?;
        if !is_suffixed.load(Ordering::Relaxed) {
            return None;
        }
        let own = self.own_path(file);
        let suffixed = with_suffix(&own, &partial.suffix);
        Some((c_string(&suffixed), c_string(&own)))
    }

    /// Notes that `file` has got its own name.
    pub(crate) fn set_renamed(&self, file: FileIndex) {
        let partial = self.partial.as_ref();
        if let Some(suffixed) = partial.and_then(|one| one.suffixed.get(file.0 as usize)) {
            suffixed.store(false, Ordering::Relaxed);
        }
    }

    /// Device and inode of `file`, once it was opened for writing.
    pub(crate) fn identity(&self, file: FileIndex) -> Option<(u64, u64)> {
        let identities = &self.partial.as_ref()?.identities;
        identities.get(file.0 as usize)?.get().copied()
    }

    /// Notes what was opened for writing as `file`. Another one later on is not it.
    pub(crate) fn set_identity(&self, file: FileIndex, stamp: &FileStamp) {
        let identities = self.partial.as_ref().map(|partial| &partial.identities);
        if let Some(identity) = identities.and_then(|all| all.get(file.0 as usize)) {
            let _ = identity.set((stamp.device, stamp.inode));
        }
    }

    /// Block `piece` of the `info` dictionary (BEP 9).
    pub(crate) fn metadata_block(&self, piece: u32) -> Option<&[u8]> {
        let info = &self.metainfo.info;
        let length = metadata_block_bytes(u32::try_from(info.len()).ok()?, piece)? as usize;
        let start = METADATA_BLOCK_BYTES as usize * piece as usize;
        info.get(start..start + length)
    }

    /// What `file` was when it was verified.
    pub(crate) fn stamp(&self, file: FileIndex) -> Option<FileStamp> {
        self.stamps.get()?.get(file.0 as usize).copied().flatten()
    }

    /// The path of `file` relative to the data directory.
    fn path(&self, file: FileIndex) -> PathBuf {
        let own = self.own_path(file);
        let partial = self.partial.as_ref();
        let suffixed = partial.and_then(|partial| {
            let is_suffixed = partial.suffixed.get(file.0 as usize)?;
            is_suffixed.load(Ordering::Relaxed).then_some(partial)
        });
        match suffixed {
            Some(partial) => with_suffix(&own, &partial.suffix),
            None => own,
        }
    }

    /// The same without a suffix. (Parsing has made it relative and free of NULs.)
    fn own_path(&self, file: FileIndex) -> PathBuf {
        match self.paths.get(&file.0) {
            Some(path) => path.clone(),
            None => self.said_path(file),
        }
    }

    /// Where the metainfo says that `file` is.
    fn said_path(&self, file: FileIndex) -> PathBuf {
        let files = &self.metainfo.files;
        files
            .get(file.0 as usize)
            .map(|file| file.path.iter().collect())
            .unwrap_or_default()
    }

    /// The data directory and the path of `file` below it, for system calls.
    pub(crate) fn paths_for_kernel(&self, file: FileIndex) -> (CString, CString) {
        (c_string(&self.data_dir), c_string(&self.path(file)))
    }

    /// The same in a place that it was moved to.
    pub(crate) fn paths_at(&self, place: &Place, file: FileIndex) -> (CString, CString) {
        let path = place.paths.get(&file.0).cloned();
        let path = path.unwrap_or_else(|| self.said_path(file));
        (c_string(&place.data_dir), c_string(&path))
    }

    /// A fault of `file`.
    pub(crate) fn fault(&self, file: FileIndex, cause: FaultCause) -> Fault {
        let path = match self.place().1 {
            Some(place) => {
                let path = place.paths.get(&file.0).cloned();
                let path = path.unwrap_or_else(|| self.said_path(file));
                place.data_dir.join(path)
            }
            None => self.data_dir.join(self.path(file)),
        };
        Fault {
            info_hash: self.info_hash,
            file: path,
            cause,
        }
    }
}

fn c_string(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap_or_default()
}

impl fmt::Debug for SeededTorrent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("SeededTorrent");
        shown.field("info_hash", &self.info_hash);
        shown.field("name", &self.metainfo.name);
        shown.finish_non_exhaustive()
    }
}

/// Why a file can not be served any more.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}: {cause}", .file.display())]
pub struct Fault {
    /// The torrent.
    pub info_hash: InfoHashV1,
    /// The file on disk.
    pub file: PathBuf,
    /// What is wrong with it.
    pub cause: FaultCause,
}

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FaultCause {
    /// It is gone.
    #[error("the file is missing")]
    Missing,
    /// It is shorter than it was.
    #[error("the file was truncated from {expected} to {found} bytes")]
    Truncated {
        /// Its verified length, in bytes.
        expected: u64,
        /// Its length now, in bytes.
        found: u64,
    },
    /// It was written to, replaced, unlinked or had its attributes changed.
    #[error("the file was changed, replaced or unlinked since it was verified")]
    Changed,
    /// Something else stands in its place.
    #[error("not a regular file")]
    NotRegular,
    /// Something else stands in the place of a folder.
    #[error("not a folder")]
    NotFolder,
    /// Another download writes to it.
    #[error("another program is writing to it, as a second download into the same folder does")]
    InUse,
    /// It has other names, under which it would be written to as well.
    #[error("the file has other names (hard links), whose content would be overwritten too")]
    OtherNames,
    /// It cannot get its own name.
    #[error("another file has taken its name")]
    Taken,
    /// Its path leads out of the data directory.
    #[error("the path leads out of the data directory")]
    Escapes,
    /// We may not read it.
    #[error("permission denied")]
    Denied,
    /// The file system can hold no such file.
    #[error("the file system cannot hold it: {0}")]
    Unfit(String),
    /// No descriptor or memory is left, or something was in the way for a moment: not the torrent's
    /// fault.
    #[error("no resources: {0}")]
    Resources(String),
    /// The disk failed.
    #[error("input/output failed: {0}")]
    Io(String),
}

impl FaultCause {
    /// The cause behind a failed open.
    pub(crate) fn of_open(error: &io::Error) -> FaultCause {
        match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR) => FaultCause::Missing,
            Some(libc::EXDEV) => FaultCause::Escapes,
            Some(libc::EACCES | libc::EPERM) => FaultCause::Denied,
            Some(libc::ELOOP | libc::ENXIO | libc::EISDIR) => FaultCause::NotRegular,
            Some(libc::EMFILE | libc::ENFILE) => FaultCause::Resources(error.to_string()),
            _ => FaultCause::of_io(error),
        }
    }

    /// The cause behind any other failed operation on an open file. What passes by itself (no
    /// memory, a signal, a lease or a rename in the way) says nothing about the data.
    pub(crate) fn of_io(error: &io::Error) -> FaultCause {
        match error.raw_os_error() {
            Some(libc::ENOMEM | libc::ENOBUFS | libc::EAGAIN | libc::EINTR) => {
                FaultCause::Resources(error.to_string())
            }
            _ => FaultCause::Io(error.to_string()),
        }
    }

    /// The counter of this cause.
    pub(crate) fn counter(&self) -> Counter {
        match self {
            FaultCause::Truncated { .. } => Counter::DiskErrorTruncated,
            FaultCause::Changed => Counter::DiskErrorChanged,
            FaultCause::Io(_) => Counter::DiskErrorRead,
            _ => Counter::DiskErrorOpen,
        }
    }

    /// Whether the torrent's data are in doubt, as against a passing lack of resources.
    pub fn condemns(&self) -> bool {
        !matches!(self, FaultCause::Resources(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lasting_errors_condemn_a_torrent() {
        let condemns =
            |number| FaultCause::of_open(&io::Error::from_raw_os_error(number)).condemns();
        for passing in [
            libc::EMFILE,
            libc::ENFILE,
            libc::ENOMEM,
            libc::EAGAIN,
            libc::EINTR,
        ] {
            assert!(!condemns(passing), "{passing}");
        }
        for lasting in [
            libc::ENOENT,
            libc::EACCES,
            libc::EXDEV,
            libc::EIO,
            libc::ELOOP,
        ] {
            assert!(condemns(lasting), "{lasting}");
        }
    }
}
