//! The tracker over UDP (BEP 15): one thread for each address that it listens on.
//!
//! A datagram is answered on the thread that received it, from the store that HTTP fills too;
//! up to [`BATCH`] are taken from the kernel at a time. The thread sleeps in `poll` until there is
//! one, or until it is told to stop.
//!
//! **Policies.**
//! - A connection id is a keyed hash of the address and of the minute: nothing is remembered of
//!   who asked for one, and it holds for one to two minutes. Whoever has none that holds is told
//!   so in fewer bytes than it sent, so that nobody is flooded by asking in their name.
//! - Requests with a connection id count against the rate of their address, as those over HTTP do.
//!   Connects do not: a flood of them in the name of another must not use up that one's rate, and
//!   their replies are as long as they are.
//! - A reply leaves from the address that was asked, and is at most [`REPLY_BYTES_MAX`] long, so
//!   that it needs no fragments. It has peers of the asker's family only; that is all it can say.
//! - What cannot be decoded, or cannot be sent at once, is dropped and counted.
//!
//! Does not: tell users apart by the URL data of BEP 41, which are ignored, or keep anything of its
//! own.

use std::hash::{BuildHasher, RandomState};
use std::io::{ErrorKind, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use engine::time::Time;
use proto::tracker::udp::{
    AddressFamily, TransactionId, UdpAnnounce, UdpAnnounceCounts, UdpConnectionId, UdpReply,
    UdpRequest, encode_announce_reply, udp_request_head,
};
use proto::tracker::{Failure, ScrapeFile};
use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use seedring_metrics::ControlCounter;
use socket2::{Domain, Protocol, Socket, Type};

use super::swarm::{Announce, Found};
use super::{Inner, NUMWANT_DEFAULT, NUMWANT_MAX, answer};

/// Reads of the socket that one system call may answer.
const BATCH: usize = quinn_udp::BATCH_SIZE;
/// Batches after which a thread that always has one looks whether it is to stop.
const BATCHES_MAX: u64 = 64;
/// Room for one of them. The kernel may join datagrams of one sender into one (UDP_GRO), 64 KiB at
/// most.
const READ_BYTES_MAX: usize = 64 << 10;
/// A reply at most: what IPv6 carries everywhere (1,280) without its own and UDP's header.
const REPLY_BYTES_MAX: usize = 1232;
/// An announce reply without peers.
const ANNOUNCE_REPLY_BYTES: usize = 20;
/// How long one connection id is given out; it holds for as long again.
const CONNECTION_PERIOD: Duration = Duration::from_secs(60);
/// Datagrams that the kernel holds for us while we are busy, in bytes; it may give less.
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;
/// How long the thread rests when the socket fails, which it does where a network is gone.
const PAUSE: Duration = Duration::from_millis(100);

/// A socket that is bound but not served yet.
pub(super) struct Endpoint {
    socket: UdpSocket,
    state: UdpSocketState,
    address: SocketAddr,
}

/// The threads that serve; they end when this is dropped.
pub(super) struct Serving {
    threads: Vec<JoinHandle<()>>,
    /// The other ends of what the threads wait for: closed to stop them.
    stop: Option<OwnedFd>,
}

impl Endpoint {
    pub fn bind(address: SocketAddr) -> std::io::Result<Endpoint> {
        let domain = Domain::for_address(address);
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
        socket.bind(&address.into())?;
        let socket = UdpSocket::from(socket);
        let state = UdpSocketState::new((&socket).into())?;
        let address = socket.local_addr()?;
        Ok(Endpoint {
            socket,
            state,
            address,
        })
    }

    /// Serves until the pipe is closed at its other end, which is looked at when nothing has come,
    /// and under a flood after every [`BATCHES_MAX`] batches.
    fn serve(self, inner: &Inner, stopping: &OwnedFd) {
        let mut server = Server::new(inner);
        let mut memory = vec![0; BATCH * READ_BYTES_MAX];
        let mut metas = [RecvMeta::default(); BATCH];
        for turn in 0u64.. {
            if turn % BATCHES_MAX == 0 && is_closed(stopping) {
                return;
            }
            let mut reads: Vec<IoSliceMut<'_>> = memory
                .chunks_mut(READ_BYTES_MAX)
                .map(IoSliceMut::new)
                .collect();
            let count = match self
                .state
                .recv((&self.socket).into(), &mut reads, &mut metas)
            {
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if self.wait(stopping) {
                        return;
                    }
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    // An earlier reply that could not be delivered shows here too.
                    tracing::debug!(%error, address = %self.address, "the tracker cannot receive");
                    std::thread::sleep(PAUSE);
                    if is_closed(stopping) {
                        return;
                    }
                    continue;
                }
            };
            let now = inner.now();
            for (read, meta) in reads.iter().zip(&metas).take(count) {
                let local = meta.dst_ip.unwrap_or(self.address.ip());
                let joined = read.get(..meta.len).unwrap_or_default();
                for datagram in joined.chunks(meta.stride.max(1)) {
                    if let Some(reply) = server.answer(now, meta.addr, local, datagram) {
                        self.send(inner, reply, meta);
                    }
                }
            }
        }
    }

    fn send(&self, inner: &Inner, reply: &[u8], to: &RecvMeta) {
        let transmit = Transmit {
            destination: to.addr,
            ecn: None,
            contents: reply,
            segment_size: None,
            src_ip: to.dst_ip,
        };
        if self
            .state
            .try_send((&self.socket).into(), &transmit)
            .is_err()
        {
            inner.cells.increment(ControlCounter::TrackerUnsentReplies);
        }
    }

    /// Waits for a datagram; true if it is time to stop.
    fn wait(&self, stopping: &OwnedFd) -> bool {
        let mut both = [
            PollFd::new(&self.socket, PollFlags::IN),
            PollFd::new(stopping, PollFlags::IN),
        ];
        // An interrupted wait shows nothing ready, and is begun again by the caller.
        poll(&mut both, None).is_ok() && !both[1].revents().is_empty()
    }
}

/// Whether the pipe is closed at its other end.
fn is_closed(stopping: &OwnedFd) -> bool {
    let now = Timespec::default();
    let mut one = [PollFd::new(stopping, PollFlags::IN)];
    poll(&mut one, Some(&now)).is_ok() && !one[0].revents().is_empty()
}

impl Serving {
    /// A thread for each endpoint.
    ///
    /// # Errors
    /// No thread or no pipe is to be had.
    pub fn start(inner: &Arc<Inner>, endpoints: Vec<Endpoint>) -> std::io::Result<Serving> {
        let (stopping, stop) = rustix::pipe::pipe()?;
        let mut serving = Serving {
            threads: Vec::new(),
            stop: Some(stop),
        };
        for endpoint in endpoints {
            let (inner, stopping) = (Arc::clone(inner), stopping.try_clone()?);
            let thread = std::thread::Builder::new().name("tracker-udp".to_owned());
            let thread = thread.spawn(move || endpoint.serve(&inner, &stopping))?;
            serving.threads.push(thread);
        }
        Ok(serving)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.stop = None;
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so.
            drop(thread.join());
        }
    }
}

/// What a thread needs to answer, apart from sockets.
struct Server<'a> {
    inner: &'a Inner,
    random: fastrand::Rng,
    found: Vec<Found>,
    reply: Vec<u8>,
}

impl<'a> Server<'a> {
    fn new(inner: &'a Inner) -> Server<'a> {
        Server {
            inner,
            random: fastrand::Rng::new(),
            found: Vec::with_capacity(NUMWANT_MAX),
            reply: Vec::with_capacity(REPLY_BYTES_MAX),
        }
    }

    /// The reply to a datagram that came from `source` to our address `local`; none if it deserves
    /// none.
    fn answer(
        &mut self,
        now: Time,
        source: SocketAddr,
        local: IpAddr,
        datagram: &[u8],
    ) -> Option<&[u8]> {
        self.reply.clear();
        let family = AddressFamily::of(source);
        let cells = &self.inner.cells;
        let request = match UdpRequest::decode(datagram) {
            Ok(request) => request,
            Err(error) => {
                cells.increment(ControlCounter::TrackerRefusedInvalid);
                // Who has proved its address is told what is wrong, if that is an address of ours.
                let (connection, transaction) = udp_request_head(datagram)?;
                if !self.holds(now, source, connection) {
                    return None;
                }
                self.refuse(transaction, &error.to_string());
                return Some(&self.reply);
            }
        };
        match request {
            UdpRequest::Connect { transaction } => {
                let connection = self.inner.connection_ids.issue(now, source.ip());
                let reply = UdpReply::Connect {
                    transaction,
                    connection,
                };
                reply.encode(family, &mut self.reply);
            }
            UdpRequest::Announce {
                connection,
                transaction,
                announce,
                ..
            } => {
                if self.may(now, source, connection, transaction) {
                    self.announce(now, source, local, transaction, &announce);
                }
            }
            UdpRequest::Scrape {
                connection,
                transaction,
                info_hashes,
            } => {
                if self.may(now, source, connection, transaction) {
                    cells.increment(ControlCounter::TrackerScrapes);
                    let counts = |info_hash| self.inner.store.scrape(now, info_hash);
                    let counts = info_hashes
                        .iter()
                        .map(|hash| counts(hash).unwrap_or_default());
                    let files = counts.map(|counts| ScrapeFile {
                        complete: counts.complete,
                        incomplete: counts.incomplete,
                        downloaded: counts.downloaded,
                    });
                    let files = files.collect();
                    UdpReply::Scrape { transaction, files }.encode(family, &mut self.reply);
                }
            }
        }
        (!self.reply.is_empty()).then_some(&*self.reply)
    }

    fn holds(&self, now: Time, source: SocketAddr, connection: UdpConnectionId) -> bool {
        self.inner
            .connection_ids
            .holds(now, source.ip(), connection)
    }

    /// Whether a request is to be answered; refuses it if not.
    fn may(
        &mut self,
        now: Time,
        source: SocketAddr,
        connection: UdpConnectionId,
        transaction: TransactionId,
    ) -> bool {
        let cells = &self.inner.cells;
        if !self.holds(now, source, connection) {
            cells.increment(ControlCounter::TrackerRefusedConnectionId);
            // Shorter than any announce or scrape.
            self.refuse(transaction, "connect again");
            return false;
        }
        if !self.inner.flood.allows(now, source.ip()) {
            cells.increment(ControlCounter::TrackerRefusedRate);
            return false;
        }
        true
    }

    fn refuse(&mut self, transaction: TransactionId, reason: &str) {
        let failure = Failure {
            reason: reason.to_owned(),
            retry_in: None,
        };
        let refusal = UdpReply::Error {
            transaction,
            failure,
        };
        refusal.encode(AddressFamily::V4, &mut self.reply);
    }

    fn announce(
        &mut self,
        now: Time,
        source: SocketAddr,
        local: IpAddr,
        transaction: TransactionId,
        announce: &UdpAnnounce,
    ) {
        let family = AddressFamily::of(source);
        let inner = self.inner;
        let fitting = (REPLY_BYTES_MAX - ANNOUNCE_REPLY_BYTES) / family.peer_bytes();
        let announce = taken(inner, source.ip(), announce, fitting);
        self.found.clear();
        let (random, found) = (&mut self.random, &mut self.found);
        match inner.store.announce(now, &announce, local, random, found) {
            Ok(counts) => {
                inner.cells.increment(ControlCounter::TrackerAnnounces);
                let counts = UdpAnnounceCounts {
                    interval_seconds: answer::interval(inner, random).seconds,
                    leechers: counts.incomplete,
                    seeders: counts.complete,
                };
                let peers = found.iter().map(|found| found.endpoint);
                encode_announce_reply(transaction, counts, peers, family, &mut self.reply);
            }
            Err(refused) => {
                inner.cells.increment(answer::refused_counter(refused));
                self.refuse(transaction, &refused.to_string());
            }
        }
    }
}

/// What of an announce the store takes: its address is where it came from.
fn taken(inner: &Inner, ip: IpAddr, announce: &UdpAnnounce, fitting: usize) -> Announce {
    let wanted = announce
        .peers_wanted
        .map_or(NUMWANT_DEFAULT, |wanted| wanted as usize);
    Announce {
        info_hash: announce.info_hash,
        peer_id: announce.peer_id,
        key: Some(answer::key(&announce.key.to_be_bytes())),
        endpoint: SocketAddr::new(ip, announce.port),
        zone: inner.zone_of(ip),
        seed: announce.left_bytes == 0,
        event: answer::event(announce.event),
        numwant: wanted.min(NUMWANT_MAX).min(fitting),
        ids_wanted: false,
    }
}

/// Gives out connection ids and knows them again without remembering any.
pub(super) struct ConnectionIds {
    key: RandomState,
}

impl ConnectionIds {
    /// With a key of its own, drawn by the system.
    pub fn new() -> ConnectionIds {
        ConnectionIds {
            key: RandomState::new(),
        }
    }

    fn issue(&self, now: Time, ip: IpAddr) -> UdpConnectionId {
        self.of_period(now.0 / CONNECTION_PERIOD.as_nanos() as u64, ip)
    }

    /// Those of this period and of the one before hold.
    fn holds(&self, now: Time, ip: IpAddr, id: UdpConnectionId) -> bool {
        let period = now.0 / CONNECTION_PERIOD.as_nanos() as u64;
        id == self.of_period(period, ip) || id == self.of_period(period.saturating_sub(1), ip)
    }

    fn of_period(&self, period: u64, ip: IpAddr) -> UdpConnectionId {
        UdpConnectionId(self.key.hash_one((period, ip)))
    }
}

#[cfg(test)]
mod tests;
