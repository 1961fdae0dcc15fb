//! Downloads as the rest of the server sees them: begin one, look at it, steer it, hear what is
//! safe on disk.
//!
//! A torrent that is not complete has one home shard, which owns its pieces, its files and its
//! peers; what is here talks to that shard by bounded channels and reads published numbers. The way
//! of a block is told in docs/adr/0012-downloads.md.
//!
//! What a caller may rely on: a piece is told as synced ([`FetchEvent::Synced`]) only when its hash
//! was right and its bytes have been forced to the disk after they were written. Whoever stores
//! these and nothing else claims after a crash no piece that was not.
//!
//! Not here: trackers and other sources of peers, the record of what is synced, whether files are
//! still what they were when this process did not run: those are the caller's.

pub(crate) mod connecting;
mod disk;
mod finishing;
mod foreseen;
pub(crate) mod hashing;
pub(crate) mod home;
mod homes;
pub(crate) mod members;
pub(crate) mod memory;
pub(crate) mod metadata;
mod pacing;
mod pieces;
pub(crate) mod receiving;
mod syncing;
mod troubles;

pub use disk::DESCRIPTORS_MAX;
pub(crate) use homes::home_of;
pub use receiving::UNDECODED_BYTES_MAX;
pub use troubles::TROUBLES_MAX;

use crate::own_limits::TorrentLimits;
use crate::torrent::{AddError, Fault, SeededTorrent};
use engine::layout::{FileIndex, FileStamp};
use engine::metadata::Place;
use engine::peer_list::{PeerSource, SourceCounts};
use engine::picker::Priority;
use proto::ids::{InfoHashV1, PieceIndex};
use proto::limits::PATH_COMPONENT_BYTES_MAX;
use proto::metainfo::Metainfo;
use proto::path::fold_case;
use std::collections::{BTreeMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::net::SocketAddr;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use troubles::Troubles;

/// Orders that may wait for a download; a caller waits beyond that.
const ORDERS_MAX: usize = 64;

/// Events that may wait to be read. Those that say what is safe wait for room, the rest is dropped.
const EVENTS_MAX: usize = 64;

/// How all downloads of a data plane work.
#[derive(Clone, Debug)]
pub struct FetchConfig {
    /// Memory for pieces that are coming, being hashed and being written, over all shards, in
    /// bytes.
    pub buffer_bytes: usize,
    /// Threads that hash; 0 for one per core.
    pub hash_threads: usize,
    /// How long what was written may wait until it is forced to the disk and remembered.
    pub sync_period: Duration,
    /// How long after a failed write it is tried again. After a failed sync, twice as long each
    /// time, up to some minutes: what was written is fetched again then.
    pub retry_period: Duration,
    /// How long a connection that we begin may take.
    pub connect_timeout: Duration,
    /// Connections of one torrent that are being begun.
    pub connecting_max: usize,
    /// Connections of one torrent, whoever began them. A quarter is kept for those that we begin.
    pub peers_max: usize,
    /// Connections that we began, over all torrents, complete ones among them.
    pub outgoing_max: usize,
    /// Those of them that nobody has taken yet.
    pub half_open_max: usize,
    /// How many requests one peer gets at most.
    pub requests_per_peer_max: u32,
    /// How long a peer may be of no use before its place goes to another, when all places are
    /// taken.
    pub patience: Duration,
    /// Whole pieces first, for hosts that work for one owner (the choker has the other half of
    /// this).
    pub datacenter: bool,
}

impl Default for FetchConfig {
    fn default() -> FetchConfig {
        FetchConfig {
            buffer_bytes: 128 << 20,
            hash_threads: 0,
            sync_period: Duration::from_secs(5),
            retry_period: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(10),
            connecting_max: 16,
            peers_max: 200,
            outgoing_max: 1_000,
            half_open_max: 256,
            requests_per_peer_max: 8_192,
            patience: Duration::from_secs(30),
            datacenter: false,
        }
    }
}

/// How the space of a file is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Allocation {
    /// As bytes come: a file has holes until it is complete.
    #[default]
    Sparse,
    /// All of it before the first byte of the file is written.
    Full,
}

/// What is written past the page cache, where it lies at page boundaries of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PastCache {
    /// Nothing.
    Never,
    /// What nobody may ask for at once, if the disk is quick at it.
    #[default]
    Unasked,
    /// Everything.
    Always,
}

/// What to download, and what of it is there.
#[derive(Clone, Debug)]
pub struct FetchSpec {
    /// The torrent.
    pub metainfo: Arc<Metainfo>,
    /// The directory that its paths are relative to; it exists.
    pub data_dir: PathBuf,
    /// The pieces that are on disk and verified, as a bitfield message has them (BEP 3); empty for
    /// none.
    pub verified: Vec<u8>,
    /// What each file was that holds verified pieces, in the torrent's order; may be empty. A file
    /// that is another one now ([`FileStamp::device`], [`FileStamp::inode`]) or shorter ends the
    /// download before it is written to.
    pub stamps: Vec<Option<FileStamp>>,
    /// Paths of files that lie elsewhere than the metainfo says, by their index.
    pub paths: BTreeMap<u32, PathBuf>,
    /// How much each file is wanted, in the torrent's order; empty for [`Priority::NORMAL`] all
    /// over.
    pub priorities: Vec<Priority>,
    /// Lowest pieces first, in place of the rarest.
    pub sequential: bool,
    /// What is appended to the name of a file until all that is wanted is there, such as ".part";
    /// may be empty. A file that exists under its own name is taken as it is and keeps it; so does
    /// one whose name would become too long.
    pub suffix: String,
    /// How the space of files is taken.
    pub allocation: Allocation,
    /// What is written past the page cache.
    pub past_cache: PastCache,
    /// Limits of the torrent.
    pub limits: TorrentLimits,
}

impl FetchSpec {
    /// All of `metainfo` into `data_dir`, of which nothing is there.
    pub fn new(metainfo: Arc<Metainfo>, data_dir: &Path) -> FetchSpec {
        FetchSpec {
            metainfo,
            data_dir: data_dir.to_owned(),
            verified: Vec::new(),
            stamps: Vec::new(),
            paths: BTreeMap::new(),
            priorities: Vec::new(),
            sequential: false,
            suffix: ".part".to_owned(),
            allocation: Allocation::Sparse,
            past_cache: PastCache::default(),
            limits: TorrentLimits::default(),
        }
    }

    /// Gives files `suffix` until they are whole, or none: see [`suffix_of`].
    pub fn set_suffix(&mut self, suffix: &str) {
        suffix_of(&self.metainfo, &self.paths, suffix).clone_into(&mut self.suffix);
    }
}

/// What files of a torrent have at the end of their names until they are whole: `suffix`, or
/// nothing if with it one of them would lie where another file or a folder of the torrent does, on a
/// file system that knows no case too: two files must never share one on disk. `paths` are those of
/// files that lie elsewhere than the metainfo says, by their index.
pub fn suffix_of<'a>(
    metainfo: &Metainfo,
    paths: &BTreeMap<u32, PathBuf>,
    suffix: &'a str,
) -> &'a str {
    let folded = |path: &Path| fold_case(&path.to_string_lossy());
    let files = || {
        let files = (0..).zip(&metainfo.files).filter(|(_, file)| !file.pad);
        files.map(|(index, file)| {
            let said = || file.path.iter().collect();
            paths.get(&index).cloned().unwrap_or_else(said)
        })
    };
    let taken: HashSet<String> = files()
        .flat_map(|path| path.ancestors().map(folded).collect::<Vec<_>>())
        .collect();
    let end = fold_case(suffix);
    match files().any(|path| taken.contains(&(folded(&path) + &end))) {
        true => "",
        false => suffix,
    }
}

/// Where `file` of a torrent lies while it is being downloaded: below `data_dir`, with `suffix`
/// unless it exists under its own name or that name would become too long.
pub fn file_on_disk(
    metainfo: &Metainfo,
    file: FileIndex,
    data_dir: &Path,
    suffix: &str,
) -> Option<PathBuf> {
    let file = metainfo.files.get(file.0 as usize)?;
    let own = data_dir.join(file.path.iter().collect::<PathBuf>());
    match takes_suffix(&own, suffix) {
        true => Some(with_suffix(&own, suffix)),
        false => Some(own),
    }
}

/// Whether a file, which has its `own` path, gets a suffix: not if it is there already, and not if
/// no file system could hold the name.
pub(crate) fn takes_suffix(own: &Path, suffix: &str) -> bool {
    let name = own.file_name().map_or(0, OsStr::len);
    let fits = name + suffix.len() <= PATH_COMPONENT_BYTES_MAX;
    !suffix.is_empty() && fits && own.symlink_metadata().is_err()
}

/// The path with `suffix` at its end.
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

/// A download on its way to its home shard.
pub(crate) struct FetchSeat {
    pub(crate) spec: FetchSpec,
    pub(crate) torrent: Arc<SeededTorrent>,
    pub(crate) published: Arc<Published>,
    pub(crate) orders: mpsc::Receiver<Order>,
    pub(crate) events: mpsc::Sender<FetchEvent>,
}

/// A fetch of metadata on its way to its shard.
pub(crate) struct MetadataSeat {
    pub(crate) info_hash: InfoHashV1,
    pub(crate) published: Arc<Published>,
    pub(crate) orders: mpsc::Receiver<Order>,
    pub(crate) events: mpsc::Sender<MetadataEvent>,
}

/// What stays with the caller, what goes to the shard, and the events.
pub(crate) type Begun = (Fetch, FetchSeat, mpsc::Receiver<FetchEvent>);

/// Checks `spec` and makes the two ends of its download.
pub(crate) fn begin(spec: FetchSpec) -> Result<Begun, FetchError> {
    let metainfo = &spec.metainfo;
    let files = metainfo.files.len();
    let check = |what, due, given| match given == 0 || given == due {
        true => Ok(()),
        false => Err(FetchError::Mismatch {
            name: metainfo.name.clone(),
            what,
            due,
            given,
        }),
    };
    if spec.suffix.contains(['/', '\0']) {
        return Err(FetchError::Suffix(spec.suffix.clone()));
    }
    let bitfield_bytes = metainfo.piece_count.div_ceil(8) as usize;
    check("bytes of bitfield", bitfield_bytes, spec.verified.len())?;
    check("files with stamps", files, spec.stamps.len())?;
    check("files with priorities", files, spec.priorities.len())?;
    let torrent = SeededTorrent::partial(
        Arc::clone(metainfo),
        &spec.data_dir,
        &spec.verified,
        &spec.suffix,
        spec.paths.clone(),
    )?;
    let torrent = Arc::new(torrent);
    let published = Arc::new(Published::default());
    let (orders, inbox) = mpsc::channel(ORDERS_MAX);
    let (events, told) = mpsc::channel(EVENTS_MAX);
    let fetch = Fetch {
        torrent: Arc::clone(&torrent),
        published: Arc::clone(&published),
        orders,
    };
    let seat = FetchSeat {
        spec,
        torrent,
        published,
        orders: inbox,
        events,
    };
    Ok((fetch, seat, told))
}

/// Makes the two ends of a fetch of metadata.
pub(crate) fn begin_metadata(
    info_hash: InfoHashV1,
) -> (MetadataFetch, MetadataSeat, mpsc::Receiver<MetadataEvent>) {
    let published = Arc::new(Published::default());
    let (orders, inbox) = mpsc::channel(ORDERS_MAX);
    let (events, told) = mpsc::channel(1);
    let fetch = MetadataFetch {
        orders,
        published: Arc::clone(&published),
    };
    let seat = MetadataSeat {
        info_hash,
        published,
        orders: inbox,
        events,
    };
    (fetch, seat, told)
}

/// Why a download can not be begun.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The torrent is not one that we can have.
    #[error(transparent)]
    Torrent(#[from] AddError),
    /// What was given does not fit the torrent: a bug of ours.
    #[error("torrent {name:?} has {due} {what}, {given} were given")]
    Mismatch {
        /// The torrent's name.
        name: String,
        /// What was counted.
        what: &'static str,
        /// How many there should be.
        due: usize,
        /// How many there were.
        given: usize,
    },
    /// The suffix would lead elsewhere.
    #[error("{0:?} can not be the end of a file's name")]
    Suffix(String),
    /// The torrent is here already.
    #[error("the torrent {0} is being served or downloaded already")]
    Present(InfoHashV1),
    /// The data plane is stopping.
    #[error("the server is stopping")]
    Stopping,
}

/// What a download tells of its own accord.
#[derive(Debug)]
pub enum FetchEvent {
    /// These pieces are verified, and are on the disk itself.
    Synced {
        /// The pieces, those of earlier events not among them.
        pieces: Vec<PieceIndex>,
        /// The files that were written to since the last time, as they are now. One that is not
        /// whole yet goes on being written to, so of its stamp only device and inode will still
        /// hold after a crash.
        stamps: Vec<(FileIndex, FileStamp)>,
    },
    /// Nothing is requested any more because of this; it goes on by itself when it can. Told once
    /// until it does, whatever else fails meanwhile, and once more when a permission turns out to
    /// be missing.
    Paused {
        /// For people: what could not be done, with which file or folder, and what the system said.
        reason: String,
        /// What it takes to go on.
        needs: Needs,
    },
    /// It goes on after [`FetchEvent::Paused`].
    Resumed,
    /// A peer sent bytes that are not the torrent's, and is kept away.
    Banned {
        /// Its address.
        peer: SocketAddr,
    },
    /// All files that are wanted are here and synced, and have their own names; others were left
    /// out, so the torrent goes on as a partial seed (BEP 21). Comes again when more was wanted
    /// since.
    SelectionDone,
    /// All is here and synced, files have their own names, and all shards serve it. It is the last
    /// event, but what peers there are stay connected. The torrent is to be dealt with as any other
    /// one from here on.
    Complete(Arc<SeededTorrent>),
    /// A file that was being written to was replaced, or left its place: the download has ended. It
    /// is the last event.
    Failed(Fault),
}

/// What a paused download needs to go on. It looks by itself whether it has it, from time to time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Needs {
    /// Space on the disk, or more of the user's share of it.
    Space,
    /// A disk that works: there is hope that it will, when it is back.
    Disk,
    /// Permission, or a file system that takes writes: nobody gives it without being asked.
    Permission,
}

/// Where a download is: its pieces as they are, the rest as of the last second.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FetchProgress {
    /// Pieces in all.
    pub pieces: u32,
    /// Pieces that are verified and written.
    pub pieces_stored: u32,
    /// Pieces that are wanted and not verified and written.
    pub pieces_wanted: u32,
    /// The length of the content in bytes, padding included.
    pub bytes: u64,
    /// Bytes of the pieces that are verified and written.
    pub bytes_stored: u64,
    /// Bytes of the pieces that are wanted and not verified and written.
    pub bytes_wanted: u64,
    /// Payload received from peers, wasted bytes included.
    pub downloaded: u64,
    /// Payload sent to peers.
    pub uploaded: u64,
    /// Payload that was of no use: sent twice, never asked for, or of a piece whose hash was wrong.
    pub wasted: u64,
    /// Pieces whose hash was wrong.
    pub hash_failures: u64,
    /// Peers whose handshake is done.
    pub peers: u32,
    /// Those of them that have all of the torrent.
    pub seeds: u32,
    /// Connections that are being begun.
    pub connecting: u32,
    /// Addresses that are known and not connected.
    pub candidates: u32,
    /// Who named the addresses that are known, connected or not.
    pub known_by_source: SourceCounts,
    /// Who named the peers whose handshake is done; those that connected to us are their own
    /// source.
    pub peers_by_source: SourceCounts,
    /// Why nothing is requested, if the disk is to blame.
    pub paused: Option<String>,
    /// Whether somebody called [`Fetch::pause`].
    pub paused_by_user: bool,
}

/// What is told to a download.
pub(crate) enum Order {
    /// Addresses to try, and who named them.
    Peers(Vec<SocketAddr>, PeerSource),
    /// Ask for nothing more, or go on.
    Pause(bool),
    /// How much each file is wanted.
    Priorities(Vec<Priority>),
    /// In which order pieces are begun.
    Sequential(bool),
    /// End; the answer says that all is synced and closed.
    Stop(oneshot::Sender<()>),
}

/// What the home shard publishes of a download.
#[derive(Default)]
pub(crate) struct Published {
    progress: Mutex<FetchProgress>,
    /// These change with every block, so they are not under the lock.
    pub(crate) downloaded: AtomicU64,
    pub(crate) wasted: AtomicU64,
    pub(crate) hash_failures: AtomicU64,
    pub(crate) peers: AtomicU32,
    pub(crate) ended: AtomicBool,
    troubles: Mutex<Troubles>,
}

impl Published {
    /// Changes what is published.
    pub(crate) fn change(&self, change: impl FnOnce(&mut FetchProgress)) {
        change(&mut self.lock());
    }

    /// Notes why a peer that was called is of no use.
    pub(crate) fn note_trouble(&self, peer: SocketAddr, reason: impl Into<String>) {
        self.lock_troubles().note(peer, reason.into());
    }

    fn lock_troubles(&self) -> MutexGuard<'_, Troubles> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, FetchProgress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One download. Dropping it does not end it: [`Fetch::stop`] does, or the end of the data plane.
pub struct Fetch {
    torrent: Arc<SeededTorrent>,
    published: Arc<Published>,
    orders: mpsc::Sender<Order>,
}

impl Fetch {
    /// Its torrent; not complete before [`FetchEvent::Complete`].
    pub fn torrent(&self) -> &Arc<SeededTorrent> {
        &self.torrent
    }

    /// Where it is. Cheap: to be asked as often as one likes.
    pub fn progress(&self) -> FetchProgress {
        let published = &self.published;
        FetchProgress {
            downloaded: published.downloaded.load(Ordering::Relaxed),
            wasted: published.wasted.load(Ordering::Relaxed),
            hash_failures: published.hash_failures.load(Ordering::Relaxed),
            uploaded: self.torrent.uploaded_bytes(),
            ..published.lock().clone()
        }
    }

    /// The last reason, for people, why each of the peers that were called is of no use: of the
    /// last [`TROUBLES_MAX`] such.
    pub fn troubles(&self) -> Vec<(SocketAddr, String)> {
        self.published.lock_troubles().all()
    }

    /// Addresses of peers that the user named.
    pub fn add_peers(&self, peers: &[SocketAddr]) {
        self.found(peers, PeerSource::Given);
    }

    /// Addresses of peers to try, which `source` has named. When too many wait already they are
    /// dropped: sources name them again.
    pub fn found(&self, peers: &[SocketAddr], source: PeerSource) {
        let _ = self.orders.try_send(Order::Peers(peers.to_vec(), source));
    }

    /// Asks peers for nothing more; they stay connected and are served.
    pub async fn pause(&self) {
        let _ = self.orders.send(Order::Pause(true)).await;
    }

    /// Goes on after [`Self::pause`].
    pub async fn resume(&self) {
        let _ = self.orders.send(Order::Pause(false)).await;
    }

    /// Changes how much each file is wanted: one for each, in the torrent's order.
    pub async fn set_priorities(&self, priorities: Vec<Priority>) {
        let _ = self.orders.send(Order::Priorities(priorities)).await;
    }

    /// Lowest pieces first, or the rarest.
    pub async fn set_sequential(&self, sequential: bool) {
        let _ = self.orders.send(Order::Sequential(sequential)).await;
    }

    /// Ends the download: peers are closed, what was written is synced and told
    /// ([`FetchEvent::Synced`], to be read meanwhile or after). After completion it does nothing:
    /// the torrent is [`crate::plane::Plane::remove`]'s then.
    ///
    /// False if it has not ended within `deadline`, because a disk hangs: it goes on ending, and
    /// what was not told as synced is fetched again by whoever comes next.
    pub async fn stop(&self, deadline: Duration) -> bool {
        let (done, stopped) = oneshot::channel();
        let stop = async {
            if self.orders.send(Order::Stop(done)).await.is_ok() {
                let _ = stopped.await;
            }
        };
        timeout(deadline, stop).await.is_ok()
    }
}

/// What a fetch of metadata tells.
#[derive(Debug)]
pub enum MetadataEvent {
    /// The `info` dictionary, whose SHA-1 is the info-hash. It is the last event.
    Complete(GatheredInfo),
}

/// The bytes of an `info` dictionary. They count among the metadata that are being gathered, for
/// which there is only so much room, until this is dropped.
pub struct GatheredInfo {
    bytes: Vec<u8>,
    _place: Option<Place>,
}

impl GatheredInfo {
    pub(crate) fn new(bytes: Vec<u8>, place: Option<Place>) -> GatheredInfo {
        let _place = place;
        GatheredInfo { bytes, _place }
    }
}

impl Deref for GatheredInfo {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for GatheredInfo {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} bytes of metadata", self.bytes.len())
    }
}

/// The fetch of a torrent's `info` dictionary from peers (BEP 9). It ends when it is dropped.
pub struct MetadataFetch {
    orders: mpsc::Sender<Order>,
    published: Arc<Published>,
}

impl MetadataFetch {
    /// Addresses of peers that the user named.
    pub fn add_peers(&self, peers: &[SocketAddr]) {
        self.found(peers, PeerSource::Given);
    }

    /// Addresses of peers to try, which `source` has named.
    pub fn found(&self, peers: &[SocketAddr], source: PeerSource) {
        let _ = self.orders.try_send(Order::Peers(peers.to_vec(), source));
    }

    /// The same as [`Fetch::troubles`].
    pub fn troubles(&self) -> Vec<(SocketAddr, String)> {
        self.published.lock_troubles().all()
    }

    /// Peers that are connected.
    pub fn peers(&self) -> u32 {
        self.published.peers.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests;
