//! One download on its home shard: its pieces, its peers, its files, and what is to be done about
//! them.
//!
//! The pure [`Download`] decides; [`ActiveFetch::drive`] does what it says. What takes time is a
//! task of its own: each whole piece ([`crate::fetch::finishing`]), each connection that is being
//! begun ([`crate::fetch::connecting`]), a sync ([`crate::fetch::syncing`]). The task of the
//! download itself ([`run`]) obeys orders and ticks.
//!
//! Limits: peers and connections being begun by [`FetchConfig`], memory by the shard's pool.

use crate::closing::CloseReason;
use crate::fetch::disk::{Disk, DiskError};
use crate::fetch::finishing::Work;
use crate::fetch::members::{Departed, Member};
use crate::fetch::pacing::{self, Granting, Pacing};
use crate::fetch::pieces::OpenPieces;
use crate::fetch::syncing::Beat;
use crate::fetch::{FetchConfig, FetchError, FetchEvent, FetchSeat, Needs, Order, Published};
use crate::roster::TorrentUse;
use crate::shard::Shard;
use crate::torrent::{Fault, SeededTorrent};
use engine::choker::PeerKey;
use engine::download::{Action, Download, DownloadConfig};
use engine::layout::FileIndex;
use engine::peer_list::{PeerList, PeerListConfig, PeerSource};
use engine::picker::{PeerPieces, PickerConfig, PieceOrder, Priority, Sharing, piece_priorities};
use engine::pipeline::PipelineConfig;
use engine::session::PieceBits;
use engine::time::Time;
use proto::ids::PieceIndex;
use proto::wire::Message;
use seedring_metrics::Counter;
use slab::Slab;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval};
use tokio_uring::net::TcpStream;

/// How often timeouts are looked at and progress is published.
const TICK: Duration = Duration::from_secs(1);

/// How many segments a download gives up for those who wait on other shards, at a time.
const SEGMENTS_PER_TICK: usize = 16;

/// How often it is looked where peers see us.
const LOCATE_PERIOD: Duration = Duration::from_secs(30);

/// Hosts that work for one owner share a piece between so many.
const DATACENTER_PEERS_PER_PIECE: u32 = 2;

/// See the module.
pub(crate) struct ActiveFetch {
    pub(crate) torrent: Arc<SeededTorrent>,
    /// A torrent does not fall asleep while its download has not ended.
    _in_use: Option<TorrentUse>,
    pub(crate) pieces: Arc<PieceBits>,
    pub(crate) download: RefCell<Download>,
    pub(crate) pacing: Pacing,
    pub(crate) open: RefCell<OpenPieces>,
    pub(crate) disk: Disk,
    pub(crate) published: Arc<Published>,
    pub(crate) events: mpsc::Sender<FetchEvent>,
    pub(crate) members: RefCell<HashMap<PeerKey, Member>>,
    pub(crate) departed: RefCell<Departed>,
    next_key: Cell<u64>,
    pub(crate) list: RefCell<PeerList>,
    /// When peers are asked again where they see us.
    locate_at: Cell<Time>,
    /// Connections that are being begun.
    pub(crate) connecting: RefCell<Slab<Option<Rc<TcpStream>>>>,
    /// Pieces that are written and not synced.
    pub(crate) unsynced: RefCell<Vec<PieceIndex>>,
    /// When they are to be.
    pub(crate) beat: Cell<Beat>,
    /// One sync at a time.
    pub(crate) syncing: tokio::sync::Mutex<()>,
    /// Pieces that are being written to, and in which of their lives by each who does.
    pub(crate) writing: RefCell<HashMap<PieceIndex, Vec<u32>>>,
    /// Told when one of them has been, and when those who rest are to look around.
    pub(crate) written: Notify,
    /// How often pieces were forgotten, of those that were.
    incarnations: RefCell<HashMap<PieceIndex, u32>>,
    /// Failed syncs whose consequences were drawn.
    pub(crate) doubts: Cell<u64>,
    /// Failed syncs since the last good one.
    pub(crate) failed_syncs: Cell<u32>,
    /// Tasks that wait before the disk is said to work again.
    pub(crate) resting: Cell<u32>,
    /// Writes that have failed and have not got through yet.
    pub(crate) failing: Cell<u32>,
    /// What each task holds that waits for the disk to take it, in bytes, and how many of them are
    /// to give it up.
    pub(crate) holding: RefCell<Vec<usize>>,
    pub(crate) to_give_up: Cell<usize>,
    pub(crate) stored: Cell<u32>,
    paused_by_user: Cell<bool>,
    /// Why the disk is to blame that nothing is requested, and what it takes to go on.
    disk_trouble: RefCell<Option<(String, Needs)>>,
    /// Tasks of this download that have not ended.
    tasks: Cell<usize>,
    quiet: Notify,
    /// No more is to be begun.
    ending: Cell<bool>,
    /// It no longer is: what peers still send is of no use.
    is_over: Cell<bool>,
    fault: RefCell<Option<Fault>>,
    /// Told when something of that has changed, or when all that is wanted may be there.
    pub(crate) news: Notify,
    /// Whether the selection has been told to be there.
    selection_told: Cell<bool>,
    shard: Weak<Shard>,
    this: Weak<ActiveFetch>,
}

impl ActiveFetch {
    /// The download of `seat` on `shard`.
    fn new(shard: &Rc<Shard>, seat: &FetchSeat) -> Rc<ActiveFetch> {
        let config = &shard.config.fetch;
        let (spec, torrent) = (&seat.spec, &seat.torrent);
        let verified = match spec.verified.is_empty() {
            true => PeerPieces::None,
            false => PeerPieces::Bitfield(&spec.verified),
        };
        let download_config = download_config(config, spec.sequential);
        let layout = torrent.layout();
        let mut download = Download::new(download_config, layout, verified, shard.draw());
        let files = file_priorities(torrent, &spec.priorities);
        download.set_priorities(&piece_priorities(layout, &files));
        let pieces = torrent.pieces().map(Arc::clone).unwrap_or_else(|| {
            let none = PieceBits::new(layout.piece_count(), &[]);
            Arc::new(none)
        });
        let disk = Disk::new(
            Arc::clone(torrent),
            spec.allocation,
            spec.past_cache,
            spec.stamps.clone(),
        );
        disk.set_unwanted(unwanted(&files));
        Rc::new_cyclic(|this| ActiveFetch {
            stored: Cell::new(pieces.set_count()),
            pieces,
            download: RefCell::new(download),
            pacing: Pacing::new(shard.rates.download_levels(torrent, shard.now())),
            open: RefCell::new(OpenPieces::new(layout.piece_length())),
            disk,
            torrent: Arc::clone(torrent),
            _in_use: shard.roster.claim(torrent),
            published: Arc::clone(&seat.published),
            events: seat.events.clone(),
            members: RefCell::default(),
            departed: RefCell::default(),
            next_key: Cell::new(1),
            list: RefCell::new(PeerList::new(PeerListConfig::default())),
            locate_at: Cell::new(Time::default()),
            connecting: RefCell::default(),
            unsynced: RefCell::default(),
            beat: Cell::default(),
            syncing: tokio::sync::Mutex::new(()),
            writing: RefCell::default(),
            written: Notify::new(),
            incarnations: RefCell::default(),
            doubts: Cell::new(0),
            failed_syncs: Cell::new(0),
            resting: Cell::new(0),
            failing: Cell::new(0),
            holding: RefCell::default(),
            to_give_up: Cell::new(0),
            paused_by_user: Cell::new(false),
            disk_trouble: RefCell::default(),
            tasks: Cell::new(0),
            quiet: Notify::new(),
            ending: Cell::new(false),
            is_over: Cell::new(false),
            fault: RefCell::default(),
            news: Notify::new(),
            selection_told: Cell::new(false),
            shard: Rc::downgrade(shard),
            this: Weak::clone(this),
        })
    }

    /// Whether it begins nothing more.
    pub(crate) fn is_ending(&self) -> bool {
        self.ending.get()
    }

    /// Whether it has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over.get()
    }

    /// Ends it as soon as its task hears of it.
    pub(crate) fn end(&self) {
        self.ending.set(true);
        self.news.notify_one();
        self.written.notify_waiters();
    }

    /// Ends it because of a file that is not what it was.
    pub(crate) fn fail(&self, fault: Fault) {
        self.fault.borrow_mut().get_or_insert(fault);
        self.end();
    }

    /// A key for a peer that comes; never given twice.
    pub(crate) fn new_key(&self) -> PeerKey {
        let key = self.next_key.get();
        self.next_key.set(key + 1);
        PeerKey(key)
    }

    /// Does what the download wants done, and asks peers for more.
    pub(crate) fn drive(&self, shard: &Shard, now: Time) {
        self.do_actions(shard);
        if !self.is_ending() {
            self.refill(now);
            self.do_actions(shard);
        }
        if self.download.borrow().is_done() && !self.selection_told.get() {
            self.news.notify_one();
        }
    }

    fn do_actions(&self, shard: &Shard) {
        loop {
            let action = self.download.borrow_mut().take_action();
            let Some(action) = action else { return };
            match action {
                Action::SetInterested { peer, interested } => self.tell(
                    peer,
                    &match interested {
                        true => Message::Interested,
                        false => Message::NotInterested,
                    },
                ),
                Action::Request { peer, block } => self.tell(peer, &Message::Request(block)),
                Action::Cancel { peer, block } => self.tell(peer, &Message::Cancel(block)),
                Action::Forget(piece) => {
                    *self.incarnations.borrow_mut().entry(piece).or_insert(0) += 1;
                    self.open.borrow_mut().forget(piece, &shard.segments);
                    self.written.notify_waiters();
                }
                Action::Check(piece) => self.check(piece),
                Action::Announce(piece) => self.announce(shard, piece),
                Action::Ban(peer) => self.ban(shard, peer),
            }
        }
    }

    fn tell(&self, peer: PeerKey, message: &Message<'_>) {
        if let Some(member) = self.members.borrow().get(&peer) {
            member.connection.session.borrow_mut().tell(message);
            member.connection.wake_writer();
        }
    }

    /// Has a whole piece hashed and written.
    fn check(&self, piece: PieceIndex) {
        let taken = self.open.borrow_mut().take(piece);
        let (Some(open), Some(this)) = (taken, self.this.upgrade()) else {
            return;
        };
        // What would come after the last sync would be lost anyway.
        if self.is_ending() {
            return;
        }
        if let Some(work) = Work::begin(&this, piece) {
            self.spawn(work.finish(open));
        }
    }

    /// Which of its lives a piece is in: it begins another one whenever it is forgotten. What is
    /// under way for an earlier one is of no meaning.
    pub(crate) fn incarnation(&self, piece: PieceIndex) -> u32 {
        self.incarnations.borrow().get(&piece).copied().unwrap_or(0)
    }

    /// A piece is verified and written: it can be served.
    fn announce(&self, shard: &Shard, piece: PieceIndex) {
        self.pieces.set(piece, true);
        self.stored.set(self.stored.get() + 1);
        self.note_stored(piece, shard.now());
        shard.cells.increment(Counter::PiecesStored);
        self.publish_pieces();
        let is_last = self.stored.get() == self.torrent.layout().piece_count();
        for member in self.members.borrow().values() {
            let mut session = member.connection.session.borrow_mut();
            session.announce(piece, is_last);
            drop(session);
            member.connection.wake_writer();
        }
    }

    /// What was written of these pieces is not to be believed: those that were `stored`, and those
    /// that were `begun`.
    pub(crate) fn lose(&self, shard: &Shard, stored: &[PieceIndex], begun: &[PieceIndex]) {
        for &piece in stored {
            self.pieces.set(piece, false);
            self.stored.set(self.stored.get().saturating_sub(1));
            let bytes = self.torrent.layout().piece_length_of(piece);
            self.waste(shard, u64::from(bytes));
            for member in self.members.borrow().values() {
                member.connection.session.borrow_mut().take_back(piece);
                member.connection.wake_writer();
            }
        }
        for &piece in stored.iter().chain(begun) {
            self.download.borrow_mut().piece_lost(piece);
        }
        self.publish_pieces();
        self.drive(shard, shard.now());
    }

    /// Notes that the disk does not take what is written. Nothing more is requested until it does.
    pub(crate) fn disk_failed(&self, shard: &Rc<Shard>, error: DiskError) {
        shard.cells.increment(Counter::WriteErrors);
        match error {
            DiskError::Lasting(fault) => self.fail(fault),
            DiskError::Full(reason) => self.pause(reason, Needs::Space),
            DiskError::Passing(reason) => self.pause(reason, Needs::Disk),
            DiskError::Denied(reason) => self.pause(reason, Needs::Permission),
        }
        self.face_doubts(shard);
    }

    fn pause(&self, reason: String, needs: Needs) {
        // What else fails while it is paused is the same trouble: each file of a full disk has its
        // own words for it. What only somebody's help can end is another one.
        let known = self.disk_trouble.borrow().as_ref().map(|(_, needs)| *needs);
        let is_new = known.is_none_or(|known| needs == Needs::Permission && known != needs);
        if !is_new {
            return;
        }
        *self.disk_trouble.borrow_mut() = Some((reason.clone(), needs));
        self.follow_pauses();
        let info_hash = self.torrent.info_hash();
        tracing::warn!(torrent = %info_hash, %reason, "the download is paused");
        let _ = self.events.try_send(FetchEvent::Paused { reason, needs });
    }

    /// Notes that the disk takes what is written, or may do so again after a rest. It goes on when
    /// that is so of all that was to be written: what a small file still takes says nothing of a
    /// large one.
    pub(crate) fn disk_works(&self, shard: &Shard) {
        let is_all = self.resting.get() == 0 && self.failing.get() == 0;
        if is_all && self.disk_trouble.borrow_mut().take().is_some() {
            self.to_give_up.set(0);
            self.follow_pauses();
            tracing::info!(torrent = %self.torrent.info_hash(), "the download goes on");
            let _ = self.events.try_send(FetchEvent::Resumed);
            self.drive(shard, shard.now());
        }
    }

    /// Whether the disk takes nothing that is written.
    pub(crate) fn is_stuck(&self) -> bool {
        self.disk_trouble.borrow().is_some()
    }

    fn follow_pauses(&self) {
        let is_paused = self.is_paused();
        self.download.borrow_mut().set_paused(is_paused);
        self.publish();
    }

    fn is_paused(&self) -> bool {
        self.paused_by_user.get() || self.is_stuck()
    }

    /// Counts payload that was of no use.
    pub(crate) fn waste(&self, shard: &Shard, bytes: u64) {
        shard.cells.add(Counter::WastedBytes, bytes);
        self.published.wasted.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Whether connections are worth beginning.
    pub(crate) fn wants_peers(&self) -> bool {
        !self.is_ending() && !self.is_paused() && self.download.borrow().picker().wanted() > 0
    }

    /// Runs a task of this download, which its end waits for.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + 'static) {
        let Some(this) = self.this.upgrade() else {
            return;
        };
        this.tasks.set(this.tasks.get() + 1);
        let guard = TaskGuard { fetch: this };
        tokio_uring::spawn(async move {
            let _guard = guard;
            work.await;
        });
    }

    /// Waits until no task of it is left.
    async fn quiet(&self) {
        while self.tasks.get() > 0 {
            self.quiet.notified().await;
        }
    }

    /// Itself, for a task.
    pub(crate) fn handle(&self) -> Option<Rc<ActiveFetch>> {
        self.this.upgrade()
    }

    /// Its shard; `None` when that is going.
    pub(crate) fn shard(&self) -> Option<Rc<Shard>> {
        self.shard.upgrade()
    }

    /// Once a second.
    fn tick(&self, shard: &Rc<Shard>) {
        let now = shard.now();
        self.download.borrow_mut().tick(now);
        self.pacing.tick(now);
        self.look_at_members(now);
        self.compare_namesakes(now);
        if now >= self.locate_at.get() {
            self.locate_at.set(now + LOCATE_PERIOD);
            self.learn_own_address(shard);
        }
        self.drive(shard, now);
        // By other shards, which can write or forget only what is their own.
        let wanted = shard.segments.wanted_elsewhere();
        if wanted > 0 {
            shard.segments.shrink();
            let _ = (0..wanted.min(SEGMENTS_PER_TICK)).all(|_| self.make_room(shard));
        }
        self.publish();
    }

    /// Tells the rest of the server where it is.
    pub(crate) fn publish(&self) {
        self.publish_pieces();
        let seeds = self
            .members
            .borrow()
            .values()
            .filter(|member| member.connection.session.borrow().is_peer_complete())
            .count();
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let known_by_source = self.list.borrow().sources();
        self.published.change(|progress| {
            progress.known_by_source = known_by_source;
            progress.seeds = count(seeds);
            progress.connecting = count(self.connecting.borrow().len());
            progress.candidates = count(self.list.borrow().waiting());
            let trouble = self.disk_trouble.borrow();
            progress.paused = trouble.as_ref().map(|(reason, _)| reason.clone());
            progress.paused_by_user = self.paused_by_user.get();
        });
    }

    /// Tells which pieces are there. Whenever one is: it costs no more with many peers.
    fn publish_pieces(&self) {
        let download = self.download.borrow();
        let picker = download.picker();
        let layout = self.torrent.layout();
        let length = u64::from(layout.piece_length());
        let bytes_of = |pieces: u32| (u64::from(pieces) * length).min(layout.total_length());
        let stored = self.stored.get();
        // Those that are right and not written yet are still to come: a full disk may never take
        // them.
        let wanted = picker.wanted() + picker.verified().saturating_sub(stored);
        self.published.change(|progress| {
            progress.pieces = layout.piece_count();
            progress.pieces_stored = stored;
            progress.pieces_wanted = wanted;
            progress.bytes = layout.total_length();
            progress.bytes_stored = bytes_of(stored);
            progress.bytes_wanted = bytes_of(wanted);
        });
    }

    /// Takes addresses to try, and who named them.
    pub(crate) fn add_peers(
        &self,
        shard: &Shard,
        peers: impl IntoIterator<Item = SocketAddr>,
        source: PeerSource,
    ) {
        if !self.torrent.may_call(source) {
            return;
        }
        let now = shard.now();
        let mut list = self.list.borrow_mut();
        for peer in peers {
            let is_new = list.add(peer, source, now);
            shard.count_found_for(&self.torrent, source, is_new);
        }
    }

    fn obey(&self, shard: &Rc<Shard>, order: Order, stops: &mut Vec<oneshot::Sender<()>>) {
        match order {
            Order::Peers(peers, source) => self.add_peers(shard, peers, source),
            Order::Pause(paused) => {
                self.paused_by_user.set(paused);
                self.follow_pauses();
            }
            Order::Priorities(priorities) => self.set_priorities(&priorities),
            Order::Sequential(sequential) => {
                let order = order_of(sequential);
                self.download.borrow_mut().set_order(order);
            }
            Order::Stop(done) => {
                stops.push(done);
                self.end();
            }
        }
        self.drive(shard, shard.now());
    }

    fn set_priorities(&self, priorities: &[Priority]) {
        let files = file_priorities(&self.torrent, priorities);
        self.disk.set_unwanted(unwanted(&files));
        let priorities = piece_priorities(self.torrent.layout(), &files);
        let mut download = self.download.borrow_mut();
        download.set_priorities(&priorities);
        if download.picker().wanted() > 0 {
            self.selection_told.set(false);
            self.pieces.set_wants_more(true);
        }
    }

    /// All that is wanted is there: syncs it and gives files their names. True if that was all of
    /// the torrent.
    async fn conclude(&self, shard: &Rc<Shard>) -> bool {
        if !self.sync(shard).await || !self.name_files(shard).await {
            return false;
        }
        if self.torrent.is_complete() {
            return true;
        }
        // More may have been wanted meanwhile, and have come.
        if self.download.borrow().is_done() && self.unsynced.borrow().is_empty() {
            self.selection_told.set(true);
            self.pieces.set_wants_more(false);
            for member in self.members.borrow().values() {
                member
                    .connection
                    .session
                    .borrow_mut()
                    .tell_upload_only(true);
                member.connection.wake_writer();
            }
            self.publish();
            let _ = self.events.send(FetchEvent::SelectionDone).await;
        }
        false
    }

    /// The torrent is complete: it is every shard's now, and the peers' sessions go on as a seed's.
    async fn complete(&self, shard: &Rc<Shard>) {
        self.is_over.set(true);
        for member in self.members.borrow().values() {
            member.connection.session.borrow_mut().complete();
            member.connection.wake_writer();
        }
        shard.serve_completed(&self.torrent).await;
        self.disk.close().await;
        self.publish();
        let torrent = Arc::clone(&self.torrent);
        let _ = self.events.send(FetchEvent::Complete(torrent)).await;
    }

    /// Ends without being complete: closes peers, waits for what is being written, syncs.
    async fn wind_up(&self, shard: &Rc<Shard>) {
        self.ending.set(true);
        // What peers still send is of no use: nothing would write it before the last sync.
        self.is_over.set(true);
        self.written.notify_waiters();
        self.torrent.stop();
        self.stop_calling();
        for member in self.members.borrow().values() {
            member.connection.close(CloseReason::TorrentStopped);
        }
        self.quiet().await;
        self.open.borrow_mut().forget_all(&shard.segments);
        let fault = self.fault.borrow_mut().take();
        match fault {
            // What was written to is not what we believed it to be, so nothing more is claimed.
            Some(fault) => {
                let _ = self.events.send(FetchEvent::Failed(fault)).await;
            }
            None => {
                let _synced = self.sync(shard).await;
            }
        }
        self.disk.close().await;
        shard.files.forget(&self.torrent);
        self.publish();
    }
}

struct TaskGuard {
    fetch: Rc<ActiveFetch>,
}

impl Drop for TaskGuard {
    fn drop(&mut self) {
        self.fetch.tasks.set(self.fetch.tasks.get() - 1);
        self.fetch.quiet.notify_one();
    }
}

/// The files that are not wanted.
fn unwanted(priorities: &[Priority]) -> BTreeSet<FileIndex> {
    let files = (0..).map(FileIndex).zip(priorities);
    let skipped = files.filter(|(_, priority)| **priority == Priority::SKIP);
    skipped.map(|(index, _)| index).collect()
}

fn order_of(sequential: bool) -> PieceOrder {
    match sequential {
        true => PieceOrder::Sequential,
        false => PieceOrder::RarestFirst,
    }
}

fn download_config(config: &FetchConfig, sequential: bool) -> DownloadConfig {
    let sharing = match config.datacenter {
        true => Sharing::WholePieces {
            peers_per_piece: DATACENTER_PEERS_PER_PIECE,
        },
        false => Sharing::default(),
    };
    let random_first_pieces = match sequential {
        true => 0,
        false => PickerConfig::default().random_first_pieces,
    };
    // Half of the memory may wait for hashes and the disk; a quarter may be on its way.
    let memory = config.buffer_bytes as u64;
    DownloadConfig {
        picker: PickerConfig {
            order: order_of(sequential),
            sharing,
            random_first_pieces,
            ..PickerConfig::default()
        },
        pipeline: PipelineConfig {
            requests_max: config.requests_per_peer_max,
            ..PipelineConfig::default()
        },
        request_bytes_max: memory / 4,
        unstored_bytes_max: memory / 2,
    }
}

/// How much each file is wanted, padding not at all.
fn file_priorities(torrent: &SeededTorrent, given: &[Priority]) -> Vec<Priority> {
    let files = torrent.metainfo().files.iter().enumerate();
    let priority = |(index, file): (usize, &proto::metainfo::File)| match file.pad {
        true => Priority::SKIP,
        false => given.get(index).copied().unwrap_or_default(),
    };
    files.map(priority).collect()
}

/// The end of a download on its way: whether it is complete.
type Concluding = Pin<Box<dyn Future<Output = bool>>>;

/// Waits for what is under way, for ever if nothing is.
async fn finished(concluding: &mut Option<Concluding>) -> bool {
    match concluding {
        Some(under_way) => {
            let is_complete = under_way.await;
            *concluding = None;
            is_complete
        }
        None => std::future::pending().await,
    }
}

/// Runs a download until it is complete or stopped.
pub(crate) async fn run(
    shard: Rc<Shard>,
    fetch: Rc<ActiveFetch>,
    mut orders: mpsc::Receiver<Order>,
) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stops = Vec::new();
    let mut is_complete = false;
    let mut is_steered = true;
    // Beside everything else: the disk may take as long as it likes.
    let mut concluding: Option<Concluding> = None;
    let mut granting: Option<Granting> = None;
    while !fetch.is_ending() && !is_complete {
        tokio::select! {
            order = orders.recv(), if is_steered => match order {
                Some(order) => fetch.obey(&shard, order, &mut stops),
                // Nobody steers it any more; it goes on.
                None => is_steered = false,
            },
            _ = ticks.tick() => fetch.tick(&shard),
            () = fetch.sync_due(&shard), if concluding.is_none() => fetch.sync_aside(&shard),
            () = fetch.news.notified() => {}
            complete = finished(&mut concluding) => is_complete = complete,
            bytes = pacing::arrive(&mut granting) => fetch.granted(&shard, bytes),
        }
        fetch.stand_in_line(&shard, &mut granting);
        fetch.call_peers(&shard);
        let is_done = fetch.download.borrow().is_done() && !fetch.selection_told.get();
        let is_due = is_done && !fetch.is_ending() && !fetch.is_stuck() && !is_complete;
        if is_due && concluding.is_none() {
            let (shard, fetch) = (Rc::clone(&shard), Rc::clone(&fetch));
            concluding = Some(Box::pin(async move { fetch.conclude(&shard).await }));
        }
    }
    if let Some(concluding) = concluding {
        // What is being synced and renamed is not left halfway.
        is_complete = concluding.await;
    }
    match is_complete {
        true => fetch.complete(&shard).await,
        false => fetch.wind_up(&shard).await,
    }
    fetch.published.ended.store(true, Ordering::Relaxed);
    shard.fetch_ended(&fetch).await;
    for done in stops {
        let _ = done.send(());
    }
}

/// Begins the download of `seat`; `done` is told when all shards know of it.
pub(crate) fn start(
    shard: &Rc<Shard>,
    seat: FetchSeat,
    done: oneshot::Sender<Result<(), FetchError>>,
) -> Rc<ActiveFetch> {
    let active = ActiveFetch::new(shard, &seat);
    active.publish();
    let (shard, fetch, orders) = (Rc::clone(shard), Rc::clone(&active), seat.orders);
    tokio_uring::spawn(async move {
        shard.tell_home(fetch.torrent.info_hash()).await;
        let _ = done.send(Ok(()));
        run(shard, fetch, orders).await;
    });
    active
}
