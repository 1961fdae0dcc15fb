//! Connections that we begin: to addresses that trackers, peers or the user named. Those over which
//! a torrent's metadata came ([`crate::fetch::metadata`]) go on as the download's.
//!
//! Limits: [`crate::fetch::FetchConfig`] says how many of a torrent are being begun, how many it
//! has, and how many we began and are beginning over all; and what is begun counts among the
//! connections of the server as what is accepted does. An address that fails is left alone for a
//! while ([`engine::peer_list`]).

use crate::closing::CloseReason;
use crate::connection::{self, Opened};
use crate::fetch::home::ActiveFetch;
use crate::fetch::{Published, troubles};
use crate::limits::CallPlace;
use crate::ring;
use crate::shard::{Shard, Visit};
use crate::sockets;
use engine::peer_list::{PeerList, PeerSource};
use engine::time::Time;
use proto::ids::InfoHashV1;
use seedring_metrics::Counter;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::rc::Rc;
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_uring::net::TcpStream;

/// A peer that closes a connection within this time has not looked at what we want.
const HASTE: Duration = Duration::from_secs(5);

/// How long a connection over which metadata came waits for the download: until what is on the disk
/// has been looked at.
const DOWNLOAD_WAIT: Duration = Duration::from_secs(60);

/// One connection that is being begun, until its handshake is done.
pub(crate) struct Begun {
    fetch: Rc<ActiveFetch>,
    key: usize,
}

impl Begun {
    fn new(fetch: &Rc<ActiveFetch>) -> Begun {
        let key = fetch.connecting.borrow_mut().insert(None);
        let fetch = Rc::clone(fetch);
        Begun { fetch, key }
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.fetch.connecting.borrow_mut().remove(self.key);
        self.fetch.news.notify_one();
    }
}

impl ActiveFetch {
    /// Begins as many connections as may be.
    pub(crate) fn call_peers(&self, shard: &Rc<Shard>) {
        let config = &shard.config.fetch;
        let Some(fetch) = self.handle() else { return };
        if shard.is_cut_off() {
            return put_off(&mut self.list.borrow_mut(), &self.published, shard.now());
        }
        // Nobody gives way before there is somebody to take its place.
        let connecting_max = config.connecting_max.min(self.places_to_call(shard));
        while self.wants_peers() && self.connecting.borrow().len() < connecting_max {
            let Some(place) = shard.limits.call(config.outgoing_max, config.half_open_max) else {
                return;
            };
            let address = self.list.borrow_mut().take(shard.now());
            let Some(address) = address else { return };
            let (shard, fetch) = (Rc::clone(shard), Rc::clone(&fetch));
            let begun = Begun::new(&fetch);
            self.spawn(async move { call(&shard, &fetch, address, begun, place).await });
        }
    }
}

impl ActiveFetch {
    /// Has the end of the download break off the connection that is being begun as `key`.
    fn set_connecting(&self, key: usize, socket: &Rc<TcpStream>) {
        if let Some(place) = self.connecting.borrow_mut().get_mut(key) {
            *place = Some(Rc::clone(socket));
        }
    }

    /// Notes why a peer that was called gives nothing, if it is to blame.
    fn note_call(&self, shard: &Shard, address: SocketAddr, called: &Called) {
        if let Some(trouble) = troubles::of_call(called, shard.is_cut_off()) {
            self.published.note_trouble(address, trouble);
        }
    }

    /// Breaks off what is being begun.
    pub(crate) fn stop_calling(&self) {
        for (_, socket) in self.connecting.borrow().iter() {
            if let Some(socket) = socket {
                let _ = socket.shutdown(Shutdown::Both);
            }
        }
    }
}

/// Calls a peer for a download, and serves the connection until it ends.
async fn call(
    shard: &Rc<Shard>,
    fetch: &Rc<ActiveFetch>,
    address: SocketAddr,
    begun: Begun,
    place: CallPlace,
) {
    let info_hash = fetch.torrent.info_hash();
    let key = begun.key;
    let begins = |socket: &Rc<TcpStream>| fetch.set_connecting(key, socket);
    let peer = (address, fetch.list.borrow().source_of_taken(address));
    let called = call_peer(shard, peer, info_hash, begun, begins, place).await;
    fetch.note_call(shard, address, &called);
    give_back(&mut fetch.list.borrow_mut(), address, &called, shard.now());
}

/// How a call ended.
pub(crate) enum Called {
    /// It was not made: we have no room.
    NoRoom,
    /// It was not made: what peers are met by is not there.
    NoInterface,
    /// It was not made: the address is kept away.
    Filtered,
    /// Nobody took it, because of this.
    Unreachable(String),
    /// There was a connection.
    Ended {
        reason: CloseReason,
        is_greeted: bool,
        lasted: Duration,
    },
}

/// Calls a peer, and serves the connection until it ends. `begun` is dropped when the handshakes
/// are done; `begins` is told of the socket.
pub(crate) async fn call_peer<B>(
    shard: &Rc<Shard>,
    (address, source): (SocketAddr, PeerSource),
    info_hash: InfoHashV1,
    begun: B,
    begins: impl FnOnce(&Rc<TcpStream>),
    place: CallPlace,
) -> Called {
    if shard.is_filtered(address.ip()) {
        shard.cells.increment(Counter::ConnectsFiltered);
        return Called::Filtered;
    }
    let Ok(admission) = shard.limits.admit(address.ip()) else {
        return Called::NoRoom;
    };
    let socket = match sockets::begin_connect(address, &shard.config.sockets) {
        Ok(socket) => Rc::new(TcpStream::from_std(socket)),
        Err(error) if sockets::is_interface_gone(&error) => return Called::NoInterface,
        Err(error) => {
            tracing::debug!(peer = %address, %error, "cannot connect");
            shard.cells.increment(Counter::ConnectsRefused);
            return Called::Unreachable(troubles::of_connect(&error));
        }
    };
    begins(&socket);
    let mut visit = shard.visit(&socket, address, admission);
    let connected = finish_connect(shard, &socket, address).await;
    if let Err(error) = connected {
        return match shard.is_filtered(address.ip()) {
            true => Called::Filtered,
            false => Called::Unreachable(troubles::of_connect(&error)),
        };
    }
    place.connected();
    let connected_at = shard.now();
    let served = connection::call(
        shard,
        Rc::clone(&socket),
        (address, source),
        &mut visit,
        info_hash,
        begun,
    );
    let reason = Box::pin(served).await;
    note_end(shard, address, &visit, connected_at, reason)
}

/// Counts the end of a connection that we began.
pub(crate) fn note_end(
    shard: &Shard,
    address: SocketAddr,
    visit: &Visit,
    connected_at: Time,
    reason: CloseReason,
) -> Called {
    let is_greeted = visit.is_greeted();
    let reason = shard.why_closed(address, reason);
    shard.cells.increment(reason.counter(is_greeted));
    tracing::debug!(peer = %address, ?reason, "connection closed");
    Called::Ended {
        reason,
        is_greeted,
        lasted: shard.now().since(connected_at),
    }
}

/// Puts off those whose turn it is, and says why: what peers are met by is not there, and trying it
/// would take a socket for each.
pub(crate) fn put_off(list: &mut PeerList, published: &Published, now: Time) {
    while let Some(address) = list.take(now) {
        published.note_trouble(address, troubles::NO_INTERFACE);
        list.postponed(address, now);
    }
}

/// Says to a list of peers how the call of an address that was taken from it has ended.
pub(crate) fn give_back(list: &mut PeerList, address: SocketAddr, called: &Called, now: Time) {
    let &Called::Ended {
        reason,
        is_greeted,
        lasted,
    } = called
    else {
        return match called {
            // It is we who have no room, or no way.
            Called::NoRoom | Called::NoInterface => list.postponed(address, now),
            Called::Filtered => list.remove(address),
            _ => list.failed(address, now),
        };
    };
    match reason {
        CloseReason::SelfConnection => list.exclude(address),
        CloseReason::Banned => {}
        CloseReason::Filtered => list.remove(address),
        // It is we who had no place, or gave it to another.
        CloseReason::Full => list.postponed(address, now),
        CloseReason::Duplicate | CloseReason::Pointless => list.failed(address, now),
        CloseReason::PeerClosed | CloseReason::Reset if lasted < HASTE => {
            list.hung_up(address, now);
        }
        _ if is_greeted => list.left(address, now),
        _ => list.failed(address, now),
    }
}

/// Waits until the torrent is being downloaded on this shard; `None` if it is not in time.
pub(crate) async fn download_of(shard: &Shard, info_hash: InfoHashV1) -> Option<Rc<ActiveFetch>> {
    let until = Instant::now() + DOWNLOAD_WAIT;
    loop {
        let begun = shard.begun.notified();
        if shard.is_stopping() {
            return None;
        }
        if let Some(fetch) = shard.fetch(info_hash) {
            return Some(fetch);
        }
        timeout_at(until, begun).await.ok()?;
    }
}

/// Keeps a connection over which a torrent's metadata came until the torrent is being downloaded,
/// and goes on with it then. One that its peer has closed, for which the download has no use, or
/// that a private one may not have begun, is dropped: it may call that peer itself. Its end is
/// counted, whichever it is.
pub(crate) async fn keep(shard: &Rc<Shard>, opened: Opened, visit: &mut Visit) {
    let (address, info_hash) = (opened.peer, opened.theirs.info_hash);
    let dropped = |visit: &Visit, reason| {
        note_end(shard, address, visit, shard.now(), reason);
    };
    let Some(fetch) = download_of(shard, info_hash).await else {
        return dropped(visit, CloseReason::TorrentStopped);
    };
    // Only now it is known whether the torrent is private (BEP 27).
    if !fetch.torrent.may_call(opened.source) {
        return dropped(visit, CloseReason::Pointless);
    }
    let now = shard.now();
    if let Some(reason) = is_of_no_use(shard, &fetch, &opened) {
        return dropped(visit, reason);
    }
    let source = opened.source;
    if !fetch.list.borrow_mut().connected(address, source, now) {
        return dropped(visit, CloseReason::Pointless);
    }
    let reason = Box::pin(connection::go_on(shard, opened, visit, &fetch)).await;
    let called = note_end(shard, address, visit, now, reason);
    fetch.note_call(shard, address, &called);
    give_back(&mut fetch.list.borrow_mut(), address, &called, shard.now());
}

/// The same with a connection that its peer began, which has `place` until the download takes it;
/// returns why it has ended.
pub(crate) async fn keep_visitor<P>(
    shard: &Rc<Shard>,
    opened: Opened,
    visit: &mut Visit,
    place: P,
) -> CloseReason {
    let Some(fetch) = download_of(shard, opened.theirs.info_hash).await else {
        return CloseReason::TorrentStopped;
    };
    // It may have heard of us from this network, which was asked while nobody knew that the torrent
    // is private (BEP 27).
    if !fetch.torrent.may_call(opened.source) {
        return CloseReason::Pointless;
    }
    if let Some(reason) = is_of_no_use(shard, &fetch, &opened) {
        return reason;
    }
    drop(place);
    Box::pin(connection::go_on(shard, opened, visit, &fetch)).await
}

/// Why `fetch` has no use for a connection over which its metadata were asked for, if it has none.
fn is_of_no_use(shard: &Shard, fetch: &ActiveFetch, opened: &Opened) -> Option<CloseReason> {
    if shard.is_filtered(opened.peer.ip()) {
        return Some(CloseReason::Filtered);
    }
    if sockets::has_hung_up(&*opened.socket) {
        return Some(CloseReason::PeerClosed);
    }
    // Its peer was told that we have nothing.
    let is_of_use = fetch.stored.get() == 0 && fetch.wants_peers();
    (!is_of_use).then_some(CloseReason::Pointless)
}

/// Waits until the connection to `peer` is there, or is not to be had, and counts which.
pub(crate) async fn finish_connect(
    shard: &Shard,
    socket: &Rc<TcpStream>,
    peer: SocketAddr,
) -> io::Result<()> {
    let connected = connect_in_time(shard, socket).await;
    shard.cells.increment(match &connected {
        Ok(()) => Counter::ConnectsDone,
        Err(_) if shard.is_filtered(peer.ip()) => Counter::ConnectsFiltered,
        Err(error) if error.kind() == io::ErrorKind::TimedOut => Counter::ConnectsTimedOut,
        Err(_) => Counter::ConnectsRefused,
    });
    if let Err(error) = &connected {
        tracing::debug!(%peer, %error, "cannot connect");
    }
    connected
}

async fn connect_in_time(shard: &Shard, socket: &Rc<TcpStream>) -> io::Result<()> {
    let mut ready = ring::poll(Rc::clone(socket), libc::POLLOUT);
    if timeout(shard.config.fetch.connect_timeout, &mut ready)
        .await
        .is_err()
    {
        // Breaks it off, which ends the poll that is in flight.
        let _ = socket.shutdown(Shutdown::Both);
        let _ = ready.await;
        return Err(io::ErrorKind::TimedOut.into());
    }
    sockets::connect_result(&**socket)
}
