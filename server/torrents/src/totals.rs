//! What torrents have sent and received: shown every second, kept every few.
//!
//! Only torrents that are doing something are looked at. Times of those that sleep go on by
//! themselves ([`control::catalog::Torrent::totals_at`]) and are kept when they change or the
//! server stops.

use crate::keeping::Next;
use crate::manager::{Inner, Manager, Phase};
use crate::moving::MoveEvent;
use control::catalog::Catalog;
use proto::ids::InfoHashV1;
use seedring_io::fetch::Fetch;
use seedring_io::torrent::SeededTorrent;
use state::{Progress, ReadError, Totals, Update, Write};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;

/// How often totals that have changed are kept, and torrents put to sleep, in ticks.
const KEEP_TICKS: u64 = 5;

/// Totals that are written together when the server stops.
const BATCH: usize = 5_000;

/// How long what was acknowledged last may take.
const LAST: Duration = Duration::from_secs(2);

/// How long the last downloads may take to end.
const STOP: Duration = Duration::from_secs(12);

/// What of a torrent was counted before: sent, received, wasted, in bytes.
type Counted = (u64, u64, u64);

/// When it is, and what is to be kept.
pub(crate) struct Clock {
    /// When it was begun, by both clocks: from then on the steady one counts, so that a step of the
    /// other makes no torrent older than it is.
    begun: (u64, Instant),
    ticks: u64,
    last: Option<Instant>,
    changed: HashSet<InfoHashV1>,
    /// The server's totals that were kept last.
    ever: Totals,
}

impl Default for Clock {
    fn default() -> Clock {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Clock {
            begun: (now.map_or(0, |now| now.as_secs()), Instant::now()),
            ticks: 0,
            last: None,
            changed: HashSet::new(),
            ever: Totals::default(),
        }
    }
}

impl Clock {
    /// Now, in seconds since 1970, as far as was known at the start.
    pub(crate) fn now_s(&self) -> u64 {
        let (begun_s, begun) = self.begun;
        begun_s + begun.elapsed().as_secs()
    }

    /// The totals of a torrent are to be kept anew.
    pub(crate) fn note(&mut self, info_hash: InfoHashV1) {
        self.changed.insert(info_hash);
    }
}

/// Bytes a second.
fn rate(bytes: u64, seconds: f64) -> u64 {
    (bytes as f64 / seconds.max(0.001)) as u64
}

impl Manager {
    /// Reads what the server has sent and received in earlier runs.
    ///
    /// # Errors
    ///
    /// The store cannot be read.
    pub(crate) async fn load_totals(&mut self) -> Result<(), ReadError> {
        let before = self.keeping.store.read(|view| view.server_totals()).await?;
        self.seat.change(|catalog| catalog.begin_totals(before));
        self.clock.ever = before;
        Ok(())
    }

    /// Once a second.
    pub(crate) async fn tick(&mut self) {
        let now = Instant::now();
        let seconds = self
            .clock
            .last
            .map_or(1.0, |last| (now - last).as_secs_f64());
        self.clock.last = Some(now);
        self.clock.ticks += 1;
        self.tell_limits();
        let (sent, wanting) = self.renew(seconds);
        for info_hash in wanting {
            self.wants_more(info_hash).await;
        }
        self.limit(&sent).await;
        let checks = self.checks.progress().into_iter();
        for (info_hash, done) in checks.chain(self.moves.progress()) {
            self.show(info_hash, |torrent| torrent.live.done_permille = Some(done));
        }
        if self.clock.ticks.is_multiple_of(KEEP_TICKS) {
            self.keep_totals().await;
            self.rest().await;
            self.pass_turns_on().await;
            self.write_unkept().await;
            // One that hangs keeps no other waiting.
            self.next_check();
        }
        // Whatever has given its turn back.
        self.next_downloads().await;
    }

    /// Renews what is shown of torrents that are doing something; returns those that have sent
    /// something and have all that is wanted of them, and downloads that had that and want more now.
    fn renew(&mut self, seconds: f64) -> (Vec<InfoHashV1>, Vec<InfoHashV1>) {
        let (mut senders, mut wanting) = (Vec::new(), Vec::new());
        let now_s = self.clock.now_s();
        let Manager {
            phases,
            declared,
            seat,
            clock,
            queue,
            ..
        } = self;
        seat.change(|catalog| {
            for (info_hash, shown) in declared.iter_mut() {
                let uploaded = shown.torrent.uploaded_bytes();
                let sent = uploaded - shown.counted;
                shown.counted = uploaded;
                show_seed(catalog, info_hash, &shown.torrent, sent, (seconds, now_s));
            }
            phases.for_each_active(|info_hash, phase| match phase {
                Phase::Awake(awake) => {
                    let uploaded = awake.torrent.uploaded_bytes();
                    let sent = uploaded - awake.counted;
                    awake.counted = uploaded;
                    show_seed(catalog, info_hash, &awake.torrent, sent, (seconds, now_s));
                    if sent > 0 {
                        clock.changed.insert(*info_hash);
                        senders.push(*info_hash);
                    }
                }
                Phase::Downloading(download) => {
                    let progress = download.fetch.progress();
                    let new = since(&progress, download.counted);
                    download.counted = (progress.uploaded, progress.downloaded, progress.wasted);
                    catalog.transferred(new);
                    catalog.change(info_hash, |torrent| {
                        add(torrent, new, now_s);
                        torrent.live.upload_rate = rate(new.0, seconds);
                        torrent.live.download_rate = rate(new.1, seconds);
                        torrent.live.peers = progress.peers;
                        torrent.live.seeds = progress.seeds;
                    });
                    if new != (0, 0, 0) {
                        clock.changed.insert(*info_hash);
                    }
                    if new.1 > 0 {
                        download.gained = Instant::now();
                        queue.note_gain(info_hash);
                    }
                    if download.has_all_wanted && progress.bytes_wanted > 0 {
                        wanting.push(*info_hash);
                    } else if download.has_all_wanted && new.0 > 0 {
                        senders.push(*info_hash);
                    }
                }
                Phase::Metadata(metadata) => {
                    let peers = metadata.fetch.peers();
                    catalog.change(info_hash, |torrent| torrent.live.peers = peers);
                }
                _ => {}
            });
        });
        (senders, wanting)
    }

    /// Counts what a torrent has sent that is being stopped.
    pub(crate) fn count_uploaded(
        &mut self,
        info_hash: InfoHashV1,
        torrent: &Arc<SeededTorrent>,
        counted: u64,
    ) {
        let sent = torrent.uploaded_bytes().saturating_sub(counted);
        self.count(info_hash, (sent, 0, 0));
    }

    /// Counts what a download has sent and received that is being stopped.
    pub(crate) fn count_fetched(&mut self, info_hash: InfoHashV1, fetch: &Fetch, counted: Counted) {
        self.count(info_hash, since(&fetch.progress(), counted));
    }

    fn count(&mut self, info_hash: InfoHashV1, new: Counted) {
        if new == (0, 0, 0) {
            return;
        }
        let now_s = self.clock.now_s();
        self.seat.change(|catalog| {
            catalog.transferred(new);
            catalog.change(&info_hash, |torrent| add(torrent, new, now_s));
        });
        self.clock.changed.insert(info_hash);
    }

    /// Has totals be kept that have changed.
    async fn keep_totals(&mut self) {
        let now_s = self.clock.now_s();
        let ever = self.seat.catalog().totals();
        if self.clock.ever != ever {
            self.clock.ever = ever;
            if self.keeping.store.server_totals_soon(ever).await.is_err() {
                return;
            }
        }
        for info_hash in std::mem::take(&mut self.clock.changed) {
            let totals = {
                let catalog = self.seat.catalog();
                catalog
                    .get(&info_hash)
                    .map(|torrent| torrent.totals_at(now_s))
            };
            let Some(totals) = totals else { continue };
            let progress = Progress {
                totals: Some(totals),
                ..Progress::default()
            };
            if self.keeping.store.soon(info_hash, progress).await.is_err() {
                return;
            }
        }
    }

    /// Ends all downloads, then keeps all totals, those of time among them.
    pub(crate) async fn stop(&mut self, inner: &mut mpsc::UnboundedReceiver<Inner>) {
        self.checks.cancel_all();
        self.moves.cancel_all();
        self.queue.stop();
        self.renew(1.0);
        let now_s = self.clock.now_s();
        let downloads = self.phases.take_downloads();
        let mut ending = HashSet::new();
        for (info_hash, phase) in downloads {
            let number = match phase {
                Phase::Downloading(download) => {
                    let number = download.number;
                    self.end_download(info_hash, *download);
                    number
                }
                Phase::Stopping(number) => number,
                _ => continue,
            };
            ending.insert((info_hash, number));
        }
        let until = tokio::time::Instant::now() + STOP;
        while !ending.is_empty() {
            match tokio::time::timeout_at(until, inner.recv()).await {
                Ok(Some(Inner::FetchEnded(info_hash, number))) => {
                    ending.remove(&(info_hash, number));
                    self.bury_leaving(info_hash);
                }
                // Of a removed torrent it says where its files are.
                Ok(Some(Inner::Moved(
                    info_hash,
                    _,
                    MoveEvent::Ended(_) | MoveEvent::TakenBack | MoveEvent::Renamed(_),
                ))) => {
                    self.end_move(info_hash);
                }
                Ok(Some(Inner::Buried(buried))) => self.buried(buried).await,
                // Nothing is begun any more.
                Ok(Some(Inner::Fetch(info_hash, number, event))) => {
                    self.fetch_event(info_hash, number, *event).await;
                }
                Ok(Some(Inner::Written(result, after))) => {
                    self.keeping.taken();
                    let next = after(self, result);
                    let is_ending = |hash| ending.iter().any(|(ending, _)| *ending == hash);
                    self.last(next, is_ending);
                }
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => break,
            }
        }
        // A disk that hangs has had its time.
        let moves = &self.moves;
        let left = self.leaving.keys().filter(|left| !moves.runs(left));
        for info_hash in left.copied().collect::<Vec<_>>() {
            self.bury_leaving(info_hash);
        }
        self.write_unkept().await;
        // Seeds have gone on sending meanwhile.
        self.renew(1.0);
        self.keep_totals().await;
        self.keep_all_totals(now_s).await;
        let _ = self.keeping.store.flush().await;
        // What was acknowledged meanwhile is done: of removed torrents the files go, those that are
        // left at the next start.
        let until = tokio::time::Instant::now() + LAST;
        while self.keeping.is_waiting() || self.burials.any_runs() || self.moves_away() {
            match tokio::time::timeout_at(until, inner.recv()).await {
                Ok(Some(Inner::Moved(
                    info_hash,
                    _,
                    MoveEvent::Ended(_) | MoveEvent::TakenBack | MoveEvent::Renamed(_),
                ))) => {
                    self.end_move(info_hash);
                }
                Ok(Some(Inner::Written(result, after))) => {
                    self.keeping.taken();
                    let next = after(self, result);
                    self.last(next, |_| false);
                }
                Ok(Some(Inner::Buried(buried))) => self.buried(buried).await,
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => break,
            }
        }
    }

    /// Whether a torrent that was removed is being moved still.
    fn moves_away(&self) -> bool {
        let mut leaving = self.leaving.keys();
        leaving.any(|info_hash| self.moves.runs(info_hash))
    }

    /// Does what is left of a write when the server stops. The files of a torrent that is removed
    /// go when its download or its move has ended, which would else make them again.
    fn last(&mut self, next: Next, is_ending: impl Fn(InfoHashV1) -> bool) {
        match next {
            Next::Leave(info_hash, remains)
                if is_ending(info_hash) || self.moves.runs(&info_hash) =>
            {
                self.leaving.insert(info_hash, remains);
            }
            Next::Leave(info_hash, remains) => self.bury(info_hash, remains),
            _ => {}
        }
    }

    fn bury_leaving(&mut self, info_hash: InfoHashV1) {
        if let Some(remains) = self.leaving.remove(&info_hash) {
            self.bury(info_hash, remains);
        }
    }

    async fn keep_all_totals(&mut self, now_s: u64) {
        let totals: Vec<(InfoHashV1, Totals)> = {
            let catalog = self.seat.catalog();
            let kept = catalog.iter().filter(|torrent| !torrent.live.declared);
            let active = kept.filter(|torrent| torrent.live.active_since_s.is_some());
            active
                .map(|torrent| (torrent.info_hash, torrent.totals_at(now_s)))
                .collect()
        };
        for batch in totals.chunks(BATCH) {
            let write = |(info_hash, totals): &(InfoHashV1, Totals)| {
                let update = Update::new().totals(*totals);
                Write::Update(*info_hash, Box::new(update))
            };
            match self
                .keeping
                .store
                .submit(batch.iter().map(write).collect())
                .await
            {
                Ok(ack) => drop(ack.await),
                Err(error) => tracing::warn!(%error, "totals of this run are not kept"),
            }
        }
    }
}

/// Shows how a complete torrent does that has sent so much in so many seconds.
fn show_seed(
    catalog: &mut Catalog,
    info_hash: &InfoHashV1,
    seeded: &SeededTorrent,
    sent: u64,
    (seconds, now_s): (f64, u64),
) {
    let (peers, seeds) = seeded.peers();
    catalog.transferred((sent, 0, 0));
    catalog.change(info_hash, |torrent| {
        add(torrent, (sent, 0, 0), now_s);
        torrent.live.upload_rate = rate(sent, seconds);
        torrent.live.peers = peers as u32;
        torrent.live.seeds = seeds as u32;
    });
}

/// What is new since `counted`.
fn since(progress: &seedring_io::fetch::FetchProgress, counted: Counted) -> Counted {
    (
        progress.uploaded.saturating_sub(counted.0),
        progress.downloaded.saturating_sub(counted.1),
        progress.wasted.saturating_sub(counted.2),
    )
}

/// Adds to a torrent's totals.
fn add(torrent: &mut control::catalog::Torrent, (sent, received, wasted): Counted, now_s: u64) {
    let totals = &mut torrent.totals;
    totals.uploaded_bytes += sent;
    totals.downloaded_bytes += received;
    totals.wasted_bytes += wasted;
    torrent.live.uploaded_session += sent;
    torrent.live.downloaded_session += received;
    if sent + received > 0 {
        totals.last_active_at_s = now_s;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::idle::Idle;
    use crate::seeding::Awake;
    use control::catalog::Status;
    use proto::metainfo::Metainfo;
    use state::Summary;

    /// The end waits for a download, and what seeds send meanwhile is sent.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_sent_while_the_server_stops_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let mut idle = Idle::new(folder.path());
        let summary = Summary {
            pieces: 1,
            ..Summary::default()
        };
        let info_hash = idle.keep(summary, Status::Seeding).await;
        let hash = "x".repeat(20);
        let info = format!("d6:lengthi1e4:name1:a12:piece lengthi16384e6:pieces20:{hash}e");
        let metainfo = Arc::new(Metainfo::parse(format!("d4:info{info}e").as_bytes()).unwrap());
        let torrent = SeededTorrent::new(metainfo, folder.path(), vec![None], Default::default());
        let torrent = Arc::new(torrent.unwrap());
        torrent.add_uploaded(100);
        let (sending, counted) = (Arc::clone(&torrent), 0);
        let awake = Phase::Awake(Awake { torrent, counted });
        idle.manager.phases.insert(info_hash, awake);
        let other = InfoHashV1([2; 20]);
        idle.manager.phases.insert(other, Phase::Stopping(7));
        let (server, inner) = (idle.server.clone(), idle.manager.inner.clone());
        tokio::spawn(async move {
            let counted = || server.catalog().totals().uploaded_bytes;
            while counted() < 100 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            sending.add_uploaded(50);
            let _ = inner.send(Inner::FetchEnded(other, 7));
        });
        idle.stop().await;
        let read = |view: &state::View| {
            let torrent = view.totals(&info_hash)?.uploaded_bytes;
            Ok((torrent, view.server_totals()?.uploaded_bytes))
        };
        let kept = idle.store.handle().read_blocking(read).unwrap();
        assert_eq!(kept, (150, 150));
    }
}
