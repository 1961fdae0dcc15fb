//! Which shard is the home of a download, as the shards know it of each other.
//!
//! A download begins and ends at its home; the others only know where that is, so that they can
//! send peers there. A torrent that has become complete is every shard's.
//!
//! Limits: the commands that may wait for a shard. A peer that would be one more is closed: it
//! comes again.

use crate::connection::Elsewhere;
use crate::fetch::home::{self, ActiveFetch};
use crate::fetch::{FetchError, FetchSeat};
use crate::plane::{Adopted, Command};
use crate::shard::{Found, Shard, Visit};
use crate::sockets;
use crate::torrent::SeededTorrent;
use proto::ids::InfoHashV1;
use seedring_metrics::Counter;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use tokio_uring::net::TcpStream;

/// Which of `shards` is the home of a torrent: hashes spread over shards evenly.
pub(crate) fn home_of(info_hash: InfoHashV1, shards: usize) -> usize {
    let bytes = info_hash.0.iter().take(8);
    let number = bytes.fold(0_u64, |number, &byte| number << 8 | u64::from(byte));
    usize::try_from(number % shards.max(1) as u64).unwrap_or(0)
}

impl Shard {
    /// Gives a socket to the shard that downloads its torrent; closes it where that is not
    /// possible.
    pub(crate) fn hand_over(
        &self,
        socket: &Rc<TcpStream>,
        peer: SocketAddr,
        visit: &mut Visit,
        elsewhere: Elsewhere,
    ) {
        let home = self.shards.get(elsewhere.home);
        let (Some(home), Some(admission)) = (
            home.and_then(mpsc::WeakSender::upgrade),
            visit.admission.take(),
        ) else {
            return;
        };
        match sockets::duplicate(&**socket) {
            Ok(socket) => {
                let adopted = Adopted {
                    socket,
                    peer,
                    received: elsewhere.received,
                    admission,
                };
                // A shard with so many commands waiting has no time for peers: this one comes
                // again.
                let _ = home.try_send(Command::Adopt(Box::new(adopted)));
            }
            Err(error) => tracing::warn!(%error, %peer, "cannot hand a peer over"),
        }
    }

    /// Takes over a socket from another shard.
    pub(crate) fn adopt(self: &Rc<Self>, adopted: Adopted) {
        let Adopted {
            socket,
            peer,
            received,
            admission,
        } = adopted;
        // The list may have changed on the way.
        if self.is_filtered(peer.ip()) {
            return self.cells.increment(Counter::RefusedFilter);
        }
        let socket = Rc::new(TcpStream::from_std(socket));
        self.receive(socket, peer, admission, received);
    }

    /// Notes which other shard downloads a torrent, or that none does any more.
    pub(crate) fn set_elsewhere(&self, info_hash: InfoHashV1, home: Option<usize>) {
        let mut elsewhere = self.elsewhere.borrow_mut();
        match home.filter(|&home| home != self.index) {
            Some(home) => elsewhere.insert(info_hash, home),
            None => elsewhere.remove(&info_hash),
        };
    }

    /// Begins a download; the answer comes when all shards know where it is.
    pub(crate) fn begin_fetch(
        self: &Rc<Self>,
        seat: FetchSeat,
        done: oneshot::Sender<Result<(), FetchError>>,
    ) {
        let info_hash = seat.torrent.info_hash();
        let refused = if self.is_stopping() {
            Some(FetchError::Stopping)
        } else if self.is_here(info_hash) || self.fetches.borrow().contains_key(&info_hash) {
            Some(FetchError::Present(info_hash))
        } else {
            None
        };
        match refused {
            Some(error) => {
                let _ = done.send(Err(error));
            }
            None => {
                let fetch = home::start(self, seat, done);
                self.fetches.borrow_mut().insert(info_hash, fetch);
                self.begun.notify_waiters();
            }
        }
    }

    /// Whether a torrent is served or downloaded, by any shard.
    fn is_here(&self, info_hash: InfoHashV1) -> bool {
        match self.find(info_hash) {
            Some(Found::Resolving(_)) | None => false,
            Some(Found::Here(_) | Found::Elsewhere(_) | Found::Dormant) => true,
        }
    }

    /// Tells all other shards that this one is the home of a download. By the task that tells them
    /// of its end, too, so that they hear of it in that order.
    pub(crate) async fn tell_home(&self, info_hash: InfoHashV1) {
        self.tell_others(|| Command::Elsewhere(info_hash, Some(self.index)))
            .await;
    }

    /// The download of this torrent, if this is its home.
    pub(crate) fn fetch(&self, info_hash: InfoHashV1) -> Option<Rc<ActiveFetch>> {
        let fetches = self.fetches.borrow();
        let fetch = fetches.get(&info_hash)?;
        (!fetch.is_ending()).then(|| Rc::clone(fetch))
    }

    /// Makes room in memory for `fetch`: of what downloads hold whose disk takes nothing, which
    /// have no use for it; else of its own segments if it has any, else of another download's.
    pub(crate) fn make_room(self: &Rc<Self>, fetch: &ActiveFetch) {
        let all: Vec<_> = self.fetches.borrow().values().cloned().collect();
        let mut stuck = all.iter().filter(|other| other.is_stuck());
        let has_room = stuck.any(|other| other.make_room(self)) || fetch.make_room(self);
        if !has_room {
            let _ = all.iter().any(|other| other.make_room(self));
        }
    }

    /// A download has become complete: every shard serves the torrent.
    pub(crate) async fn serve_completed(&self, torrent: &Arc<SeededTorrent>) {
        self.roster.enter(torrent);
        self.serve(Arc::clone(torrent));
        self.tell_others(|| {
            let (done, _nobody_waits) = oneshot::channel();
            Command::Add(Arc::clone(torrent), done)
        })
        .await;
    }

    /// A download has ended.
    pub(crate) async fn fetch_ended(&self, fetch: &ActiveFetch) {
        let info_hash = fetch.torrent.info_hash();
        self.fetches.borrow_mut().remove(&info_hash);
        if self.fetches.borrow().is_empty() {
            self.segments.shrink();
        }
        self.tell_gone();
        if !fetch.torrent.is_complete() {
            self.tell_others(|| Command::Elsewhere(info_hash, None))
                .await;
        }
    }

    /// Tells all other shards, unless this one is being stopped with them.
    async fn tell_others(&self, command: impl Fn() -> Command) {
        let others = self.shards.iter().enumerate();
        for (_, shard) in others.filter(|(index, _)| *index != self.index) {
            if self.is_stopping() {
                return;
            }
            if let Some(shard) = shard.upgrade() {
                let _ = shard.send(command()).await;
            }
        }
    }
}
