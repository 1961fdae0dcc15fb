//! The task that owns all torrents: takes commands, events of the data plane and what comes back
//! from work beside it, one after another.

use crate::burying::{Burials, Buried};
use crate::checking::{Checks, Finished};
use crate::declaring::{Declared, DeclaredTorrents};
use crate::deleting::Remains;
use crate::doubting::{Doubt, Looked, Returned};
use crate::downloading::{Download, Prepared};
use crate::finding::Finding;
use crate::keeping::{After, Keeping, Next};
use crate::limiting::{Dates, Enough};
use crate::metadata::Metadata;
use crate::moving::{Folders, Found, MoveEvent, Moves};
use crate::phases::Phases;
use crate::queue::Queue;
use crate::removing::Removals;
use crate::renaming::Planned;
use crate::seeding::{Awake, Loaded};
use crate::sharing::Sharing;
use crate::throttling::{LimitRules, Limits};
use crate::totals::Clock;
use crate::unkept::Unkept;
use control::announce::{AnnounceConfig, AnnounceHandle};
use control::catalog::{Status, Torrent};
use control::command::{Command, CommandError, Seat, Server};
use control::dht::DhtHandle;
use control::hashing::Disk;
use control::hooks::Hooks;
use control::lsd::LsdHandle;
use control::roots::{Outside, Roots};
use control::tracker::TrackerHandle;
use proto::ids::{InfoHashV1, PeerId};
use seedring_io::fetch::{Allocation, FetchEvent, GatheredInfo, PastCache};
use seedring_io::plane::{Plane, SleepPolicy};
use seedring_io::roster::Wanted;
use seedring_io::torrent::Fault;
use seedring_metrics::ControlCells;
use state::{Handle, WriteError};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, oneshot};

/// Torrents whose files are looked at, at a time, because they were in doubt.
const LOOKS_MAX: usize = 32;

/// Torrents whose data are looked at, at a time, before they are downloaded.
const PREPARES_MAX: usize = 32;

/// How often rates are renewed.
const TICK: Duration = Duration::from_secs(1);

/// How torrents are kept.
#[derive(Clone)]
pub struct Settings {
    /// Whether torrents may be added: what is not kept over a restart takes none.
    pub keeps: bool,
    /// Where data come that nobody said a folder for.
    pub save_path: PathBuf,
    /// The same for the torrents of some categories.
    pub category_paths: BTreeMap<String, PathBuf>,
    /// Where data may be: see [`Roots`].
    pub roots: Roots,
    /// Which complete torrents without peers stay in memory.
    pub sleep: SleepPolicy,
    /// Downloads at a time, fetches of metadata among them; the others wait in the queue. 0 for no
    /// limit.
    pub downloads_max: usize,
    /// How long a download may get nothing before its turn is another's, if one waits.
    pub stalled_after: Duration,
    /// When complete torrents have given enough.
    pub enough: Enough,
    /// What is appended to the names of files until they are complete.
    pub partial_suffix: String,
    /// How the space of files is taken.
    pub allocation: Allocation,
    /// What is written past the page cache.
    pub past_cache: PastCache,
    /// Whether what has not changed is hashed at each start of a download, too.
    pub always_hash: bool,
    /// How .torrent files are fetched from the web.
    pub web: AnnounceConfig,
    /// Limits of the server and of torrents.
    pub limits: LimitRules,
}

/// What torrents are handed to.
pub struct Services {
    /// The data plane.
    pub plane: Arc<Plane>,
    /// Our own tracker.
    pub tracker: Option<TrackerHandle>,
    /// Its announce URL: complete torrents are listed there directly, not announced.
    pub own_tracker: Option<String>,
    /// Who announces to trackers.
    pub announcer: Option<AnnounceHandle>,
    /// Local discovery.
    pub lsd: Option<LsdHandle>,
    /// The DHT.
    pub dht: Option<DhtHandle>,
    /// How what is hashed is read.
    pub disk: &'static dyn Disk,
    /// Where hashing is counted.
    pub cells: Arc<ControlCells>,
    /// Who is told what happens to torrents.
    pub hooks: Option<Hooks>,
    /// How we name ourselves to peers.
    pub peer_id: PeerId,
    /// Where they reach us.
    pub peer_port: u16,
}

/// The manager has ended, all is kept that was to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ended;

/// What comes from outside.
enum Outer {
    Fault(Fault),
    Wanted(Wanted),
    Declare(Box<Declared>, oneshot::Sender<()>),
    Withdrawn(InfoHashV1, String),
    Undeclare(InfoHashV1, oneshot::Sender<()>),
    Reload(Box<Settings>),
    /// What others serve is declared.
    Settled,
    Stop(oneshot::Sender<Ended>),
}

/// What comes back from work beside the manager.
pub(crate) enum Inner {
    Written(Result<(), WriteError>, After<Manager>),
    Added(Box<crate::adding::Prepared>),
    Loaded(Box<Loaded>),
    Looked(Box<Looked>),
    Checked(Box<Finished>),
    Prepared(Box<Prepared>),
    Fetch(InfoHashV1, u64, Box<FetchEvent>),
    /// The events of a download have ended.
    FetchEnded(InfoHashV1, u64),
    Described(InfoHashV1, u64, GatheredInfo),
    /// The trackers of torrents, in their tiers.
    Trackers(Vec<(InfoHashV1, Vec<Vec<String>>)>),
    /// A torrent of this phase is to be begun again.
    Later(InfoHashV1, u64),
    /// Checks may begin again.
    ChecksAgain,
    /// A command whose folders are inside the roots.
    Admitted(Box<Command>),
    /// Folders of torrents that are outside of them.
    Outside(HashMap<PathBuf, Outside>),
    /// The files of a torrent that was removed are gone, or not.
    Buried(Buried),
    /// They are to be deleted, which could not be done before.
    BuryAgain(InfoHashV1, u64),
    Moved(InfoHashV1, u64, MoveEvent),
    /// Which disks moves between two folders need.
    Disks(Box<(Folders, Found)>),
    /// The rest of a move with this number is over.
    MoveAgain(InfoHashV1, u64),
    /// Files of a torrent can be renamed as the user says, or not.
    Rename(Box<Planned>),
    /// Stamps of the torrent's files count whole again, unless they have got other names since.
    Strict(InfoHashV1, u64),
}

/// What a torrent is doing, where that is anything.
pub(crate) enum Phase {
    /// Its data wait to be hashed, or are being hashed.
    Checking,
    /// Its data are looked at, before it is downloaded.
    Preparing(u64),
    Downloading(Box<Download>),
    Metadata(Box<Metadata>),
    /// A download that ends.
    Stopping(u64),
    Awake(Awake),
    /// The store could not be read for it: it is begun again in a while.
    Later(u64),
    /// Its data were in doubt, and are looked at from time to time.
    Doubtful(Box<Doubt>),
}

/// See the crate.
pub struct Manager {
    pub(crate) settings: Settings,
    pub(crate) services: Arc<Services>,
    pub(crate) seat: Seat,
    pub(crate) finding: Arc<Finding>,
    pub(crate) keeping: Keeping,
    pub(crate) inner: mpsc::UnboundedSender<Inner>,
    pub(crate) declared: DeclaredTorrents,
    pub(crate) phases: Phases,
    pub(crate) checks: Checks,
    pub(crate) queue: Queue,
    /// Whether all torrents are there: nobody gets a turn before, because who is the first is not
    /// known.
    pub(crate) is_loaded: bool,
    /// Torrents that are gone but for a download that ends, and what is to be done with their data.
    pub(crate) leaving: HashMap<InfoHashV1, Option<Box<Remains>>>,
    /// Torrents that are gone and whose files are being deleted.
    pub(crate) burials: Burials,
    pub(crate) removals: Removals,
    /// Which torrents name the same files.
    pub(crate) sharing: Arc<Sharing>,
    /// Looks and preparations at a time: a disk that hangs must not take all threads.
    pub(crate) looks: Arc<Semaphore>,
    pub(crate) prepares: Arc<Semaphore>,
    /// Torrents that are being added, at a time; and those of them that take long.
    pub(crate) adds: Arc<Semaphore>,
    pub(crate) long_adds: Arc<Semaphore>,
    /// Torrents that are being read because peers want them.
    pub(crate) loading: HashSet<InfoHashV1>,
    pub(crate) moves: Moves,
    /// Peers that were named when a torrent was added.
    pub(crate) named: BTreeMap<InfoHashV1, Vec<std::net::SocketAddr>>,
    /// Writes that are tried again.
    pub(crate) unkept: Unkept<Manager>,
    /// Torrents that have given enough and were resumed: their limits do not end them again.
    pub(crate) waived: HashSet<InfoHashV1>,
    /// Torrents that have given enough, and are paused, or super-seeded, when that is kept.
    pub(crate) ending: HashSet<InfoHashV1>,
    /// Torrents of which what is kept is damaged.
    pub(crate) damaged: HashSet<InfoHashV1>,
    /// Torrents that were in doubt and have come back lately.
    pub(crate) returned: Returned,
    pub(crate) clock: Clock,
    pub(crate) dates: Dates,
    pub(crate) limits: Limits,
    next_number: u64,
    received: Option<mpsc::UnboundedReceiver<Inner>>,
    outer: mpsc::UnboundedReceiver<Outer>,
}

/// The way to a running manager, for the data plane's events.
#[derive(Clone)]
pub struct ManagerHandle {
    outer: mpsc::UnboundedSender<Outer>,
    sharing: Arc<Sharing>,
}

impl ManagerHandle {
    /// A torrent's data are in doubt; the data plane has stopped it.
    pub fn fault(&self, fault: Fault) {
        let _ = self.outer.send(Outer::Fault(fault));
    }

    /// Peers want a dormant torrent.
    pub fn wanted(&self, wanted: Wanted) {
        let _ = self.outer.send(Outer::Wanted(wanted));
    }

    /// Shows a torrent that others serve. When this returns it is theirs alone.
    pub async fn declare(&self, declared: Declared) {
        let (done, shown) = oneshot::channel();
        if self
            .outer
            .send(Outer::Declare(Box::new(declared), done))
            .is_ok()
        {
            let _ = shown.await;
        }
    }

    /// Others find out from now on what they are to serve. Until they have said so by
    /// [`ManagerHandle::settle`] no torrent's files are deleted, and no move begins. It is so after the
    /// start.
    pub fn hold(&self) {
        self.sharing.hold();
    }

    /// All that others serve is declared. What they were to serve and do not is at these paths, and
    /// nothing that is there, or below, is deleted.
    pub fn settle(&self, unloaded: Vec<PathBuf>) {
        self.sharing.settle(unloaded);
        let _ = self.outer.send(Outer::Settled);
    }

    /// A torrent that others serve is not served any more, for this reason; until it is declared
    /// anew.
    pub fn withdrawn(&self, info_hash: InfoHashV1, why: String) {
        let _ = self.outer.send(Outer::Withdrawn(info_hash, why));
    }

    /// Shows a torrent no more that others served, and have stopped serving. When this returns it is
    /// not theirs any more: if it is kept, it goes on as such.
    pub async fn undeclare(&self, info_hash: InfoHashV1) {
        let (done, gone) = oneshot::channel();
        if self.outer.send(Outer::Undeclare(info_hash, done)).is_ok() {
            let _ = gone.await;
        }
    }

    /// Goes by these settings from now on; limits also where something is under way.
    pub fn reload(&self, settings: Settings) {
        let _ = self.outer.send(Outer::Reload(Box::new(settings)));
    }

    /// Ends downloads, keeps what is to be kept, and ends. Returns when that is done.
    pub async fn stop(&self) {
        let (done, ended) = oneshot::channel();
        if self.outer.send(Outer::Stop(done)).is_ok() {
            let _ = ended.await;
        }
    }
}

impl Manager {
    /// A manager of the torrents in `store`, which runs when it is told to.
    pub fn new(
        settings: Settings,
        services: Services,
        (server, seat): (Server, Seat),
        store: Handle,
    ) -> (Manager, ManagerHandle) {
        let services = Arc::new(services);
        // Bounded by the work: a few events for each torrent that is doing something. Whoever brings
        // one must not wait: the threads for blocking work would all wait here while the manager
        // waits for one of them.
        let (inner, received) = mpsc::unbounded_channel();
        // Bounded by the data plane: a fault for each torrent that is awake, wishes by its limit.
        let (way, outer) = mpsc::unbounded_channel();
        let sharing = Arc::new(Sharing::new(server.clone(), store.clone()));
        sharing.hold();
        let handle = ManagerHandle {
            outer: way,
            sharing: Arc::clone(&sharing),
        };
        let manager = Manager {
            sharing,
            finding: Arc::new(Finding::new(&services, server)),
            keeping: Keeping::new(store, inner.clone()),
            limits: Limits::new(settings.limits.clone()),
            settings,
            services,
            seat,
            declared: DeclaredTorrents::default(),
            inner,
            phases: Phases::default(),
            checks: Checks::default(),
            queue: Queue::default(),
            is_loaded: false,
            leaving: HashMap::new(),
            burials: Burials::default(),
            removals: Removals::default(),
            looks: Arc::new(Semaphore::new(LOOKS_MAX)),
            prepares: Arc::new(Semaphore::new(PREPARES_MAX)),
            adds: Arc::new(Semaphore::new(crate::adding::ADDS_MAX)),
            long_adds: Arc::new(Semaphore::new(crate::adding::LONG_ADDS_MAX)),
            loading: HashSet::new(),
            moves: Moves::default(),
            named: BTreeMap::new(),
            unkept: Unkept::default(),
            waived: HashSet::new(),
            ending: HashSet::new(),
            damaged: HashSet::new(),
            returned: Returned::default(),
            clock: Clock::default(),
            dates: Dates::default(),
            next_number: 0,
            received: Some(received),
            outer,
        };
        (manager, handle)
    }

    /// What comes back to a manager that does not run.
    #[cfg(test)]
    pub(crate) fn take_events(&mut self) -> Option<mpsc::UnboundedReceiver<Inner>> {
        self.received.take()
    }

    /// Runs until it is told to stop.
    pub async fn run(mut self) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let Some(mut inner) = self.received.take() else {
            return;
        };
        loop {
            tokio::select! {
                Some(event) = inner.recv() => self.inner(event).await,
                event = self.outer.recv() => match event {
                    Some(Outer::Fault(fault)) => self.fault(fault).await,
                    Some(Outer::Wanted(wanted)) => self.wanted(wanted),
                    Some(Outer::Declare(declared, done)) => {
                        self.declare(*declared).await;
                        let _ = done.send(());
                    }
                    Some(Outer::Withdrawn(info_hash, why)) => self.withdrawn(info_hash, why),
                    Some(Outer::Undeclare(info_hash, done)) => {
                        self.undeclare(info_hash).await;
                        let _ = done.send(());
                    }
                    Some(Outer::Reload(settings)) => self.reload(*settings).await,
                    Some(Outer::Settled) => self.go_on_settled().await,
                    Some(Outer::Stop(done)) => {
                        self.stop(&mut inner).await;
                        let _ = done.send(Ended);
                        return;
                    }
                    None => return,
                },
                Some(command) = self.seat.commands.recv() => self.command(command).await,
                _ = ticks.tick() => self.tick().await,
            }
        }
    }

    pub(crate) async fn inner(&mut self, event: Inner) {
        match event {
            Inner::Written(result, after) => {
                self.keeping.taken();
                match after(self, result) {
                    Next::Done => {}
                    Next::Move => self.next_move().await,
                    Next::Limits => self.next_limits().await,
                    Next::Restart(info_hash) => self.restart(info_hash).await,
                    Next::Completed(info_hash) => self.completed(info_hash),
                    Next::Soon(info_hash, progress) => {
                        // A store that is closed says so elsewhere.
                        let _ = self.keeping.store.soon(info_hash, progress).await;
                    }
                    Next::Edited(edited) => self.edited(*edited).await,
                    Next::Leave(info_hash, remains) => self.leave(info_hash, remains).await,
                }
            }
            Inner::Added(prepared) => self.prepared(*prepared).await,
            Inner::Loaded(loaded) => self.loaded(*loaded).await,
            Inner::Looked(looked) => self.looked(*looked).await,
            Inner::Checked(finished) => self.checked(*finished).await,
            Inner::Prepared(prepared) => self.begin(*prepared).await,
            Inner::Fetch(info_hash, number, event) => {
                self.fetch_event(info_hash, number, *event).await;
            }
            Inner::FetchEnded(info_hash, number) => self.fetch_ended(info_hash, number).await,
            Inner::Described(info_hash, number, info) => {
                self.described(info_hash, number, info).await;
            }
            Inner::Later(info_hash, number) => self.begin_again(info_hash, number).await,
            Inner::ChecksAgain => self.checks_again(),
            Inner::Admitted(command) => self.obey(*command).await,
            Inner::Outside(folders) => self.outside(folders).await,
            Inner::Buried(buried) => self.buried(buried).await,
            Inner::BuryAgain(info_hash, number) => self.bury_again(info_hash, number),
            Inner::Moved(info_hash, number, event) => {
                self.moved(info_hash, number, event).await;
            }
            Inner::Disks(found) => self.found_disks(*found).await,
            Inner::MoveAgain(info_hash, number) => self.move_again(info_hash, number).await,
            Inner::Rename(planned) => self.planned(*planned).await,
            Inner::Strict(info_hash, number) => self.strict(info_hash, number),
            Inner::Trackers(trackers) => {
                for (info_hash, tiers) in trackers {
                    self.announce_to(info_hash, &tiers);
                }
            }
        }
    }

    /// Does a command.
    pub(crate) async fn obey(&mut self, command: Command) {
        match command {
            Command::Add(add, reply) => self.add(*add, reply),
            Command::Act(info_hash, action, reply) => self.act(info_hash, action, reply).await,
            Command::Edit(info_hash, edit, reply) => self.edit(info_hash, *edit, reply).await,
            Command::Move(info_hash, to, reply) => self.relocate(info_hash, to, reply).await,
            Command::Rename(info_hash, rename, reply) => {
                self.rename(info_hash, rename, reply).await;
            }
            Command::AddPeers(info_hash, peers, reply) => {
                let _ = reply.send(self.add_peers(info_hash, &peers));
            }
            Command::Describe(info_hash, reply) => self.describe(info_hash, reply),
            Command::Files(info_hash, reply) => self.files(info_hash, reply),
            Command::Peers(info_hash, reply) => self.peers(info_hash, reply),
            Command::Trackers(info_hash, reply) => {
                let _ = reply.send(self.trackers(info_hash));
            }
            Command::Pieces(info_hash, reply) => self.pieces(info_hash, reply),
            Command::Metainfo(info_hash, reply) => self.metainfo(info_hash, reply),
            Command::Limits(reply) => {
                let _ = reply.send(Ok(self.server_limits()));
            }
            Command::SetLimits(limits, reply) => self.set_limits(limits, reply).await,
        }
    }

    /// A torrent that commands may be about, and that is kept.
    pub(crate) fn kept(&self, info_hash: InfoHashV1) -> Result<(), CommandError> {
        match self.seat.catalog().get(&info_hash) {
            None => Err(CommandError::Unknown(info_hash)),
            Some(torrent) if torrent.live.declared => Err(CommandError::Conflict(format!(
                "torrent {info_hash} is named in the configuration or on the command line; change \
                 it there"
            ))),
            Some(_) => Ok(()),
        }
    }

    /// A number that no other phase has.
    pub(crate) fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    /// Changes what is shown of a torrent.
    pub(crate) fn show(&self, info_hash: InfoHashV1, change: impl FnOnce(&mut Torrent)) {
        self.seat
            .change(|catalog| catalog.change(&info_hash, change));
    }

    pub(crate) fn set_status(&mut self, info_hash: InfoHashV1, status: Status) {
        let now_s = self.clock.now_s();
        let mut was_active = false;
        self.show(info_hash, |torrent| {
            was_active = torrent.live.active_since_s.is_some();
            let is_active = matches!(
                status,
                Status::Seeding | Status::Downloading | Status::Metadata | Status::Moving
            );
            torrent.totals = torrent.totals_at(now_s);
            torrent.live.active_since_s = is_active.then_some(now_s);
            torrent.live.status = status;
            torrent.live.done_permille = None;
            if !is_active {
                torrent.live.upload_rate = 0;
                torrent.live.download_rate = 0;
                torrent.live.peers = 0;
                torrent.live.seeds = 0;
            }
        });
        // Else they are what is kept of it.
        if was_active {
            self.clock.note(info_hash);
        }
        self.date(info_hash);
    }
}
