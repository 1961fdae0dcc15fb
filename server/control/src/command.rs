//! What can be asked of a running server: the HTTP API turns its requests into these, and whoever
//! keeps the torrents (the crate `torrents`) carries them out, one after another.
//!
//! What is only looked at and known of every torrent is not asked here: it is in the [`Catalog`],
//! which [`Server::catalog`] has. A command that changes something is answered when the change is
//! durable; one that takes long (a check, a move) when it has begun.
//!
//! Limits: [`COMMANDS_MAX`] wait; who brings one more waits, and is told [`CommandError::Busy`]
//! after [`PATIENCE`]. Does not: know HTTP or JSON.

use crate::announce::TrackerStatus;
use crate::catalog::Catalog;
use ::state::{Details, LimitAction, Place, TorrentLimits};
use engine::picker::Priority;
use proto::ids::InfoHashV1;
use proto::magnet::Magnet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, oneshot, watch};

/// Commands that may wait.
pub const COMMANDS_MAX: usize = 256;

/// How long a command may wait until it is taken.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Changes for each millisecond that a run lasts, as a power of two, before revisions of the next
/// could be told before. All revisions stay below 2^53, which every reader of JSON takes.
const REVISION_BITS: u32 = 10;

/// A torrent to add, with all that the user may say of it.
#[derive(Clone, Debug)]
pub struct AddTorrent {
    /// What describes it.
    pub source: AddSource,
    /// The folder that its data are in or come into; the category's or the server's if none.
    pub save_path: Option<PathBuf>,
    /// The name that is shown; the metainfo's if none.
    pub name: Option<String>,
    /// The one category that it is in.
    pub category: Option<String>,
    /// Its labels.
    pub labels: Vec<String>,
    /// Whether it waits until it is resumed.
    pub paused: bool,
    /// Whether its data are taken to be complete: they are hashed before they are first served, and
    /// not before.
    pub seed_mode: bool,
    /// Whether pieces are wanted in their order.
    pub sequential: bool,
    /// Whether it is super-seeded (BEP 16).
    pub super_seeding: bool,
    /// How much files are wanted, by index; those that are not named as usual.
    pub priorities: Vec<(u32, Priority)>,
    /// Whether files that are not named in `priorities` are not wanted.
    pub only_named: bool,
    /// Limits of its own.
    pub limits: TorrentLimits,
    /// Trackers that are asked before its own, in their tiers.
    pub trackers: Vec<Vec<String>>,
    /// Peers to ask at once.
    pub peers: Vec<SocketAddr>,
    /// Whether it comes before all others in the queue.
    pub first_in_queue: bool,
}

impl AddTorrent {
    /// One with nothing said but what it is.
    pub fn new(source: AddSource) -> AddTorrent {
        AddTorrent {
            source,
            save_path: None,
            name: None,
            category: None,
            labels: Vec::new(),
            paused: false,
            seed_mode: false,
            sequential: false,
            super_seeding: false,
            priorities: Vec::new(),
            only_named: false,
            limits: TorrentLimits::default(),
            trackers: Vec::new(),
            peers: Vec::new(),
            first_in_queue: false,
        }
    }
}

/// What describes a torrent.
#[derive(Clone, Debug)]
pub enum AddSource {
    /// The bytes of its .torrent file.
    Metainfo(Vec<u8>),
    /// A magnet link: peers are asked for the rest.
    Magnet(Box<Magnet>),
    /// Where on the web its .torrent file is.
    Url(String),
    /// A file or folder on the server, of which a torrent is made.
    Path(PathBuf),
}

/// A torrent that was added, or was there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Added {
    /// By which it is known.
    pub info_hash: InfoHashV1,
    /// Its name, as far as it is known.
    pub name: String,
    /// Whether it was there already: nothing has changed then.
    pub was_there: bool,
}

/// What is done to torrents.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Serve and download no more until [`Action::Resume`].
    Pause,
    /// Go on, also after a failure.
    Resume,
    /// Forget it.
    Remove {
        /// Whether its files are deleted, too.
        with_data: bool,
    },
    /// Hash all its data.
    Recheck,
    /// Announce to its trackers and ask the other sources of peers, as soon as they allow it.
    Announce,
    /// Move it in the queue.
    Queue(Place),
}

/// A change of what is kept of a torrent. What is `None` stays.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Edit {
    /// The name that is shown; its files keep theirs.
    pub name: Option<String>,
    /// Its category; `Some(None)` for none.
    pub category: Option<Option<String>>,
    /// Its labels, in place of those it has.
    pub labels: Option<Vec<String>>,
    /// Labels that it gets beside others.
    pub labels_added: Vec<String>,
    /// Labels that it loses.
    pub labels_removed: Vec<String>,
    /// Its limits.
    pub limits: LimitsEdit,
    /// Whether pieces are wanted in their order.
    pub sequential: Option<bool>,
    /// Whether it is super-seeded.
    pub super_seeding: Option<bool>,
    /// How much these files are wanted, by index.
    pub priorities: Vec<(u32, Priority)>,
    /// Trackers in their tiers, in place of those it has.
    pub trackers: Option<Vec<Vec<String>>>,
}

/// A change of a torrent's limits. What is `None` stays; `Some(None)` leaves it to the torrent's
/// label, its category or the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LimitsEdit {
    /// See [`TorrentLimits::upload_rate`].
    pub upload_rate: Option<Option<u64>>,
    /// See [`TorrentLimits::download_rate`].
    pub download_rate: Option<Option<u64>>,
    /// See [`TorrentLimits::peers_max`].
    pub peers_max: Option<Option<u64>>,
    /// See [`TorrentLimits::ratio_permille`].
    pub ratio_permille: Option<Option<u64>>,
    /// See [`TorrentLimits::seeding_time_s`].
    pub seeding_time_s: Option<Option<u64>>,
    /// See [`TorrentLimits::at_limit`].
    pub at_limit: Option<Option<LimitAction>>,
}

impl LimitsEdit {
    /// Changes limits as it says.
    pub fn apply(&self, limits: &mut TorrentLimits) {
        *limits = TorrentLimits {
            upload_rate: self.upload_rate.unwrap_or(limits.upload_rate),
            download_rate: self.download_rate.unwrap_or(limits.download_rate),
            peers_max: self.peers_max.unwrap_or(limits.peers_max),
            ratio_permille: self.ratio_permille.unwrap_or(limits.ratio_permille),
            seeding_time_s: self.seeding_time_s.unwrap_or(limits.seeding_time_s),
            at_limit: self.at_limit.unwrap_or(limits.at_limit),
        };
    }
}

/// Where a torrent's data are to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Move {
    /// The folder.
    pub save_path: PathBuf,
    /// Whether the data are there already, and nothing is to be moved.
    pub data_are_there: bool,
}

/// All that is known of one torrent beside what [`Catalog`] has of it.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Described {
    /// What is kept with its metainfo.
    pub details: Details,
    /// Its comment, by whom and when (seconds since 1970) it was made: a stranger's texts.
    pub comment: Option<String>,
    /// See `comment`.
    pub created_by: Option<String>,
    /// See `comment`.
    pub created_at_s: Option<u64>,
    /// The link that stands for it.
    pub magnet: String,
    /// Its trackers in their tiers, whole: they may hold passkeys.
    pub trackers: Vec<Vec<String>>,
    /// Its web seeds.
    pub web_seeds: Vec<String>,
    /// Its place in the queue, from 0; none if it is not in it.
    pub queue_position: Option<u64>,
    /// What each source of peers gave, as long as it is awake or being downloaded; nothing while
    /// it sleeps.
    pub sources: Vec<SourceStatus>,
}

/// Peers of a torrent that one source gave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SourceStatus {
    /// Its name.
    pub source: &'static str,
    /// Addresses that it has named and that were not known, since the torrent woke or its download
    /// began.
    pub named: u32,
    /// Peers of it that are connected.
    pub connected: u32,
}

/// A file of a torrent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileStatus {
    /// Its number in the torrent, from 0.
    pub index: u32,
    /// Its path below the save path.
    pub path: PathBuf,
    /// Its length, in bytes.
    pub length: u64,
    /// Bytes of it that are verified.
    pub bytes_verified: u64,
    /// How much it is wanted.
    pub priority: Priority,
}

/// A connected peer of a torrent.
#[derive(Clone, PartialEq, Debug)]
pub struct PeerStatus {
    /// Where it is.
    pub address: SocketAddr,
    /// The program that it says it is, escaped; empty if it says nothing.
    pub client: String,
    /// Whether it connected to us.
    pub incoming: bool,
    /// By which source we know of it.
    pub source: &'static str,
    /// Pieces that it has, in thousandths of all.
    pub has_permille: u16,
    /// Payload sent to it, in bytes.
    pub uploaded: u64,
    /// Payload received of it, in bytes.
    pub downloaded: u64,
    /// Payload sent to it, in bytes per second.
    pub upload_rate: u64,
    /// Payload received of it, in bytes per second.
    pub download_rate: u64,
    /// Whether we are choking it, it is interested, it is choking us, and we are interested (BEP 3).
    pub am_choking: bool,
    /// See `am_choking`.
    pub peer_interested: bool,
    /// See `am_choking`.
    pub peer_choking: bool,
    /// See `am_choking`.
    pub am_interested: bool,
}

/// Verified pieces of a torrent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pieces {
    /// How many it has.
    pub count: u32,
    /// The verified ones, as a bitfield message has them (BEP 3).
    pub verified: Vec<u8>,
}

/// Limits of the whole server, in bytes per second; 0 for none. Those that are set are kept over a
/// restart, where they come before the configuration's; both give way to its schedule while that
/// says otherwise. Answers have all of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ServerLimits {
    /// Payload that is sent.
    pub upload_rate: Option<u64>,
    /// Payload that is received.
    pub download_rate: Option<u64>,
}

/// A change of the server's limits. What is `None` stays; `Some(None)` leaves it to the configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ServerLimitsEdit {
    /// See [`ServerLimits::upload_rate`].
    pub upload_rate: Option<Option<u64>>,
    /// See [`ServerLimits::download_rate`].
    pub download_rate: Option<Option<u64>>,
}

impl ServerLimitsEdit {
    /// What is set when it is applied to what was set.
    #[must_use]
    pub fn of(&self, set: ServerLimits) -> ServerLimits {
        ServerLimits {
            upload_rate: self.upload_rate.unwrap_or(set.upload_rate),
            download_rate: self.download_rate.unwrap_or(set.download_rate),
        }
    }
}

/// Files of a torrent, and what they are to be called: paths below the save path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Rename {
    /// One file, by its number.
    File {
        /// Its number.
        index: u32,
        /// Its path from now on.
        to: PathBuf,
    },
    /// The file at a path, or all files below it.
    Path {
        /// The path of now.
        from: PathBuf,
        /// The path from now on.
        to: PathBuf,
    },
}

impl Rename {
    /// The field of the request that says what they are to be called.
    pub fn field(&self) -> &'static str {
        match self {
            Rename::File { .. } => "path",
            Rename::Path { .. } => "to",
        }
    }
}

/// By which an answer comes.
pub type Reply<T> = oneshot::Sender<Result<T, CommandError>>;

/// What is asked.
#[derive(Debug)]
pub enum Command {
    /// Add a torrent.
    Add(Box<AddTorrent>, Reply<Added>),
    /// Do something to a torrent.
    Act(InfoHashV1, Action, Reply<()>),
    /// Change what is kept of a torrent.
    Edit(InfoHashV1, Box<Edit>, Reply<()>),
    /// Have a torrent's data elsewhere.
    Move(InfoHashV1, Move, Reply<()>),
    /// Call files of a torrent otherwise.
    Rename(InfoHashV1, Rename, Reply<()>),
    /// Ask these peers for a torrent.
    AddPeers(InfoHashV1, Vec<SocketAddr>, Reply<()>),
    /// Tell more of a torrent.
    Describe(InfoHashV1, Reply<Box<Described>>),
    /// Tell its files.
    Files(InfoHashV1, Reply<Vec<FileStatus>>),
    /// Tell its peers.
    Peers(InfoHashV1, Reply<Vec<PeerStatus>>),
    /// Tell how its trackers do.
    Trackers(InfoHashV1, Reply<Vec<TrackerStatus>>),
    /// Tell its pieces.
    Pieces(InfoHashV1, Reply<Pieces>),
    /// The bytes of its .torrent file.
    Metainfo(InfoHashV1, Reply<Vec<u8>>),
    /// Tell the server's limits.
    Limits(Reply<ServerLimits>),
    /// Change the server's limits.
    SetLimits(ServerLimitsEdit, Reply<ServerLimits>),
}

/// Why something was not done.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CommandError {
    /// There is no such torrent.
    #[error("there is no torrent {0}")]
    Unknown(InfoHashV1),
    /// What was given cannot be used.
    #[error("{field}: {reason}")]
    Invalid {
        /// The field of the request, by its name there.
        field: &'static str,
        /// What is wrong with it, and what would do.
        reason: String,
    },
    /// It cannot be done in the torrent's present state.
    #[error("{0}")]
    Conflict(String),
    /// It is nothing that this server does.
    #[error("{0}")]
    Unsupported(String),
    /// Something outside failed: a disk.
    #[error("{0}")]
    Failed(String),
    /// The web did not give what a URL names.
    #[error("{0}")]
    Fetch(String),
    /// Too much waits.
    #[error("the server has too much to do; try again later")]
    Busy,
    /// The server is stopping.
    #[error("the server is stopping")]
    Stopping,
}

/// The running server as the API has it.
#[derive(Clone)]
pub struct Server {
    commands: mpsc::Sender<Command>,
    catalog: Arc<RwLock<Catalog>>,
    revision: watch::Receiver<u64>,
}

/// The other end of a [`Server`].
pub struct Seat {
    /// What is asked.
    pub commands: mpsc::Receiver<Command>,
    catalog: Arc<RwLock<Catalog>>,
    revision: watch::Sender<u64>,
}

/// A server and its other end, without torrents yet. Its catalog's revisions are higher than those
/// of earlier runs, so that who watched one of those is told to begin again.
pub fn pair() -> (Server, Seat) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    // No two runs begin in the same millisecond.
    let now_ms = u64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(0);
    let first = now_ms << REVISION_BITS;
    let (sender, commands) = mpsc::channel(COMMANDS_MAX);
    let (revision, watched) = watch::channel(first);
    let catalog = Arc::new(RwLock::new(Catalog::beginning_at(first)));
    let server = Server {
        commands: sender,
        catalog: Arc::clone(&catalog),
        revision: watched,
    };
    let seat = Seat {
        commands,
        catalog,
        revision,
    };
    (server, seat)
}

impl Server {
    /// All torrents. Not to be held while anything is waited for.
    pub fn catalog(&self) -> RwLockReadGuard<'_, Catalog> {
        self.catalog.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of each change of the catalog by its new revision; several may come as one.
    pub fn revisions(&self) -> watch::Receiver<u64> {
        self.revision.clone()
    }

    /// Asks for what `command` makes of the way back.
    ///
    /// # Errors
    ///
    /// Why it was not done; [`CommandError::Busy`] or [`CommandError::Stopping`] if it was not
    /// begun.
    pub async fn ask<T>(
        &self,
        command: impl FnOnce(Reply<T>) -> Command,
    ) -> Result<T, CommandError> {
        let (reply, answer) = oneshot::channel();
        let sent = self.commands.send_timeout(command(reply), PATIENCE).await;
        sent.map_err(|error| match error {
            mpsc::error::SendTimeoutError::Timeout(_) => CommandError::Busy,
            mpsc::error::SendTimeoutError::Closed(_) => CommandError::Stopping,
        })?;
        answer.await.map_err(|_| CommandError::Stopping)?
    }
}

impl Seat {
    /// Changes the catalog, and tells those who watch it.
    pub fn change<R>(&self, change: impl FnOnce(&mut Catalog) -> R) -> R {
        let mut catalog = self.catalog.write().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut catalog);
        let revision = catalog.revision();
        drop(catalog);
        self.revision.send_if_modified(|told| {
            let is_new = *told != revision;
            *told = revision;
            is_new
        });
        result
    }

    /// Looks at the catalog.
    pub fn catalog(&self) -> RwLockReadGuard<'_, Catalog> {
        self.catalog.read().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Torrent;
    use ::state::{Summary, Totals};

    #[test]
    fn limits_that_are_not_named_stay_and_named_ones_can_be_left_to_others() {
        let mut limits = TorrentLimits {
            upload_rate: Some(1),
            download_rate: Some(2),
            at_limit: Some(LimitAction::Pause),
            ..TorrentLimits::default()
        };
        let edit = LimitsEdit {
            upload_rate: Some(None),
            peers_max: Some(Some(3)),
            ..LimitsEdit::default()
        };
        edit.apply(&mut limits);
        let expected = TorrentLimits {
            download_rate: Some(2),
            peers_max: Some(3),
            at_limit: Some(LimitAction::Pause),
            ..TorrentLimits::default()
        };
        assert_eq!(limits, expected);
    }

    /// Who watched a run that has ended may come with any revision of it.
    #[test]
    fn a_run_tells_whoever_watched_an_earlier_one_to_begin_again() {
        let (server, seat) = pair();
        let first = server.catalog().revision();
        assert!((1 << 50..1 << 53).contains(&first));
        seat.change(|catalog| assert!(catalog.add(torrent())));
        for since in [1, first - 1, first + 2] {
            let catalog = server.catalog();
            let changes = catalog.changes(since.into(), 10);
            assert!(changes.begins_anew, "{since}");
            assert_eq!(changes.changed.len(), 1);
        }
        let catalog = server.catalog();
        assert!(!catalog.changes(first.into(), 10).begins_anew);
    }

    fn torrent() -> Torrent {
        Torrent {
            info_hash: InfoHashV1([7; 20]),
            summary: Summary::default(),
            totals: Totals::default(),
            pieces_verified: 0,
            live: Default::default(),
        }
    }

    #[tokio::test]
    async fn a_question_is_answered_by_the_other_end_and_changes_are_told() {
        let (server, mut seat) = pair();
        let mut revisions = server.revisions();
        let asking = tokio::spawn({
            let server = server.clone();
            async move {
                let metainfo = |reply| Command::Metainfo(InfoHashV1([7; 20]), reply);
                server.ask(metainfo).await
            }
        });
        let Some(Command::Metainfo(info_hash, reply)) = seat.commands.recv().await else {
            panic!("another command");
        };
        reply.send(Err(CommandError::Unknown(info_hash))).unwrap();
        assert_eq!(asking.await.unwrap(), Err(CommandError::Unknown(info_hash)));
        assert!(!revisions.has_changed().unwrap());
        seat.change(|catalog| assert!(catalog.add(torrent())));
        assert_eq!(*revisions.borrow_and_update(), server.catalog().revision());
        // A change of nothing is none.
        seat.change(|catalog| assert!(!catalog.add(torrent())));
        assert!(!revisions.has_changed().unwrap());
        drop(seat);
        let refused = server.ask(Command::Limits).await;
        assert_eq!(refused, Err(CommandError::Stopping));
    }
}
