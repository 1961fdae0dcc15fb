//! A load of announces over UDP (BEP 15), on one thread: many peers of many torrents, from some
//! sockets, each of which keeps a number of announces under way.
//!
//! A peer is a torrent and a port: that is all by which a tracker tells those of one address apart.
//! Sockets are asked in turn and never waited for as long as one has something, so the load spends
//! its time in `send` and `recv` alone. A reply that does not come within [`LOST_AFTER`] is lost, and
//! another announce takes its place.
//!
//! Limits: the load and the tracker share the kernel's loopback; [`SOCKETS_MAX`] sockets. Does not
//! stop or complete: every announce is of a peer that is there, most of them known already.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use proto::ids::{InfoHashV1, PeerId};
use proto::tracker::AnnounceEvent;
use proto::tracker::udp::{
    AddressFamily, TransactionId, UdpAnnounce, UdpConnectionId, UdpReply, UdpRequest, UrlData,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::latency::Latency;
use crate::measure::{ProcessSample, ThreadSample};

/// As many addresses of loopback are used, one for each socket.
pub const SOCKETS_MAX: usize = 250;
/// After this a reply will not come any more.
const LOST_AFTER: Duration = Duration::from_millis(500);
/// How long a tracker that was just started may take to give out connection ids.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// The first port that a peer announces.
const FIRST_PORT: u16 = 1024;
/// Where replies are read: longer ones are cut, which only loses peers.
const READ_BYTES: usize = 4096;

/// What is asked of whom.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The tracker.
    pub tracker: SocketAddr,
    /// Its process.
    pub pid: u32,
    /// The torrents; each is announced equally often.
    pub torrents: Vec<InfoHashV1>,
    /// Peers of each torrent, over all sockets.
    pub peers_per_torrent: usize,
    /// Sockets, at most [`SOCKETS_MAX`].
    pub sockets: usize,
    /// Announces under way on each.
    pub depth: usize,
    /// Peers asked for.
    pub peers_wanted: u32,
    /// Not measured: connects, and peers that the tracker learns.
    pub warmup: Duration,
    /// Measured.
    pub duration: Duration,
}

/// What came of it, in the measured window.
#[derive(Debug)]
pub struct Outcome {
    /// Announces that were answered.
    pub answered: u64,
    /// Those that were not.
    pub lost: u64,
    /// Peers in the replies.
    pub peers: u64,
    /// The length of the window.
    pub window: Duration,
    /// From sending an announce to having read its reply.
    pub latency: Latency,
    /// The tracker's CPU time in it.
    pub cpu_s: f64,
    /// The share of the window in which the load was on its core or waited for it: near 1, and the
    /// tracker could have done more.
    pub load_busy: f64,
}

/// One socket, with what it has under way.
struct Asker {
    socket: UdpSocket,
    connection: UdpConnectionId,
    connected: Instant,
    /// When the announce in each place was sent; none: the place is free.
    sent: Vec<Option<Instant>>,
    /// Counts announces; the low part of a transaction is its place, the rest this.
    round: u32,
    /// The peer that announces next.
    next: usize,
}

/// Loads the tracker.
///
/// # Errors
/// It gives out no connection ids, it refuses an announce, its process ends, a socket fails.
pub fn run(plan: &Plan) -> anyhow::Result<Outcome> {
    ensure!(
        plan.tracker.is_ipv4(),
        "the load announces from addresses of 127.0.0.0/8"
    );
    let places = plan.sockets.clamp(1, SOCKETS_MAX);
    let mut askers = (0..places)
        .map(|number| Asker::connect(plan, number))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let mut counts = Counts::default();
    let warm = Instant::now() + plan.warmup;
    while Instant::now() < warm {
        turn(plan, &mut askers, &mut counts)?;
    }
    let (process, thread) = (
        ProcessSample::of(plan.pid)?,
        ThreadSample::of_this_thread()?,
    );
    let begin = Instant::now();
    counts = Counts::default();
    counts.latency.start();
    while begin.elapsed() < plan.duration {
        turn(plan, &mut askers, &mut counts)?;
    }
    let window = begin.elapsed();
    let thread = ThreadSample::of_this_thread()?.since(&thread);
    let after = ProcessSample::of(plan.pid)?;
    let cpu_s = |sample: &ProcessSample| sample.user_s + sample.system_s;
    Ok(Outcome {
        answered: counts.answered,
        lost: counts.lost,
        peers: counts.peers,
        window,
        latency: counts.latency,
        cpu_s: cpu_s(&after) - cpu_s(&process),
        load_busy: (thread.cpu_ns + thread.waiting_ns) as f64 / window.as_nanos() as f64,
    })
}

#[derive(Default)]
struct Counts {
    answered: u64,
    lost: u64,
    peers: u64,
    latency: Latency,
}

/// Reads and asks on every socket once; waits if none had anything.
fn turn(plan: &Plan, askers: &mut [Asker], counts: &mut Counts) -> anyhow::Result<()> {
    let mut read = 0;
    for asker in askers.iter_mut() {
        read += asker.read(counts)?;
        asker.fill(plan)?;
    }
    if read > 0 {
        return Ok(());
    }
    let mut ready: Vec<PollFd<'_>> = askers
        .iter()
        .map(|asker| PollFd::new(&asker.socket, PollFlags::IN))
        .collect();
    let within = Timespec {
        tv_sec: 0,
        tv_nsec: LOST_AFTER.as_nanos() as i64 / 4,
    };
    if poll(&mut ready, Some(&within)) == Ok(0) {
        // Nothing for a long time: what is missing is looked for only now.
        drop(ready);
        askers.iter_mut().for_each(|asker| asker.give_up(counts));
    }
    Ok(())
}

impl Asker {
    fn connect(plan: &Plan, number: usize) -> anyhow::Result<Asker> {
        let address = IpAddr::from(Ipv4Addr::new(127, 0, 1, number as u8 + 1));
        let socket = UdpSocket::bind((address, 0)).context("cannot open a UDP socket")?;
        socket
            .connect(plan.tracker)
            .context("cannot use a UDP socket")?;
        let peers = plan.peers_per_torrent.div_ceil(plan.sockets.max(1));
        ensure!(
            peers <= usize::from(u16::MAX - FIRST_PORT),
            "{peers} peers of one torrent on one address are more than it has ports: use more --sockets"
        );
        let mut asker = Asker {
            connection: connection_id(plan, &socket)?,
            socket,
            connected: Instant::now(),
            sent: vec![None; plan.depth.clamp(1, usize::from(u16::MAX))],
            round: 0,
            // Sockets begin at different torrents.
            next: number * plan.torrents.len() / plan.sockets.max(1),
        };
        asker
            .socket
            .set_nonblocking(true)
            .context("cannot use a UDP socket")?;
        asker.fill(plan)?;
        Ok(asker)
    }

    /// Takes what is there; answers how many replies that were.
    fn read(&mut self, counts: &mut Counts) -> anyhow::Result<usize> {
        let mut memory = [0; READ_BYTES];
        let mut read = 0;
        loop {
            let length = match self.socket.recv(&mut memory) {
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(read),
                Err(error) => bail!("the tracker cannot be asked any more: {error}"),
            };
            let reply = UdpReply::decode(&memory[..length], AddressFamily::V4)
                .context("the tracker's reply is none")?;
            read += 1;
            match reply {
                UdpReply::Announce {
                    transaction,
                    success,
                } => {
                    let place = usize::from(transaction.0 as u16);
                    // One that was given up already leaves its place alone.
                    let sent = self.sent.get_mut(place).and_then(Option::take);
                    let Some(sent) = sent else { continue };
                    counts.answered += 1;
                    counts.peers += success.peers.len() as u64;
                    counts.latency.record_ns(sent.elapsed().as_nanos() as u64);
                }
                UdpReply::Connect { connection, .. } => self.connection = connection,
                UdpReply::Error { failure, .. } => {
                    bail!("the tracker refuses an announce: {}", failure.reason)
                }
                UdpReply::Scrape { .. } => bail!("the tracker answers what it was not asked"),
            }
        }
    }

    /// Announces in every free place.
    fn fill(&mut self, plan: &Plan) -> anyhow::Result<()> {
        if self.connected.elapsed() > Duration::from_secs(30) {
            self.connected = Instant::now();
            let mut request = Vec::new();
            let transaction = TransactionId(0);
            UdpRequest::Connect { transaction }.encode(&mut request);
            self.send(&request)?;
        }
        let mut request = Vec::with_capacity(128);
        for place in 0..self.sent.len() {
            if self.sent[place].is_some() {
                continue;
            }
            self.round = self.round.wrapping_add(1);
            request.clear();
            let announce = UdpRequest::Announce {
                connection: self.connection,
                transaction: TransactionId(self.round << 16 | place as u32),
                announce: self.announce(plan),
                url_data: UrlData::NONE,
            };
            announce.encode(&mut request);
            self.sent[place] = Some(Instant::now());
            self.send(&request)?;
        }
        Ok(())
    }

    fn send(&self, request: &[u8]) -> anyhow::Result<()> {
        match self.socket.send(request) {
            Ok(_) => Ok(()),
            // No room: it is lost, like one that the network loses.
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error).context("cannot ask the tracker"),
        }
    }

    /// The next peer: all torrents, then the next port of each.
    fn announce(&mut self, plan: &Plan) -> UdpAnnounce {
        let torrents = plan.torrents.len().max(1);
        let peers = plan.peers_per_torrent.div_ceil(plan.sockets.max(1)).max(1);
        let (torrent, peer) = (self.next % torrents, self.next / torrents % peers);
        self.next = self.next.wrapping_add(1);
        let port = FIRST_PORT + peer as u16;
        let mut id = *b"-SB0001-............";
        let local = self.socket.local_addr().map_or(0, |address| address.port());
        id[8..10].copy_from_slice(&port.to_be_bytes());
        id[10..12].copy_from_slice(&local.to_be_bytes());
        UdpAnnounce {
            info_hash: plan
                .torrents
                .get(torrent)
                .copied()
                .unwrap_or(InfoHashV1([0; 20])),
            peer_id: PeerId(id),
            downloaded_bytes: 0,
            left_bytes: u64::from(!port.is_multiple_of(4)),
            uploaded_bytes: 0,
            event: AnnounceEvent::None,
            ip: 0,
            key: port.into(),
            peers_wanted: Some(plan.peers_wanted),
            port,
        }
    }

    /// Frees the places whose replies are lost.
    fn give_up(&mut self, counts: &mut Counts) {
        for place in &mut self.sent {
            if place.is_some_and(|sent| sent.elapsed() > LOST_AFTER) {
                *place = None;
                counts.lost += 1;
            }
        }
    }
}

/// Asks for a connection id until there is one: the tracker may not listen yet.
fn connection_id(plan: &Plan, socket: &UdpSocket) -> anyhow::Result<UdpConnectionId> {
    let asked = TransactionId(0x5eed_5eed);
    let mut request = Vec::new();
    UdpRequest::Connect { transaction: asked }.encode(&mut request);
    let begin = Instant::now();
    socket
        .set_read_timeout(Some(Duration::from_millis(100)))
        .context("cannot use a UDP socket")?;
    while begin.elapsed() < CONNECT_WITHIN {
        ProcessSample::of(plan.pid)?;
        let mut memory = [0; READ_BYTES];
        // Both fail as long as nobody listens there.
        let Ok(length) = socket.send(&request).and_then(|_| socket.recv(&mut memory)) else {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        };
        if let Ok(UdpReply::Connect {
            transaction,
            connection,
        }) = UdpReply::decode(&memory[..length], AddressFamily::V4)
            && transaction == asked
        {
            return Ok(connection);
        }
    }
    bail!(
        "it gave out no connection id within {} s",
        CONNECT_WITHIN.as_secs()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread::JoinHandle;

    type Peer = (InfoHashV1, IpAddr, u16);

    /// A tracker that answers on its own thread, and leaves out every `silent`th announce.
    fn tracker(
        silent: usize,
        stop: &'static AtomicBool,
    ) -> (SocketAddr, JoinHandle<HashSet<Peer>>) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        let address = socket.local_addr().unwrap();
        let serve = move || {
            let mut seen = HashSet::new();
            let (mut memory, mut count) = ([0; READ_BYTES], 0);
            while !stop.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut memory) else {
                    continue;
                };
                let mut reply = Vec::new();
                match UdpRequest::decode(&memory[..length]).unwrap() {
                    UdpRequest::Connect { transaction } => {
                        let connection = UdpConnectionId(77);
                        UdpReply::Connect {
                            transaction,
                            connection,
                        }
                    }
                    UdpRequest::Announce {
                        connection,
                        transaction,
                        announce,
                        ..
                    } => {
                        assert_eq!(connection, UdpConnectionId(77));
                        seen.insert((announce.info_hash, from.ip(), announce.port));
                        count += 1;
                        if count % silent == 0 {
                            continue;
                        }
                        UdpReply::Announce {
                            transaction,
                            success: Default::default(),
                        }
                    }
                    UdpRequest::Scrape { .. } => panic!("a scrape"),
                }
                .encode(AddressFamily::V4, &mut reply);
                socket.send_to(&reply, from).unwrap();
            }
            seen
        };
        (address, std::thread::spawn(serve))
    }

    #[test]
    fn every_peer_of_every_torrent_announces_and_what_is_lost_is_replaced() {
        static STOP: AtomicBool = AtomicBool::new(false);
        let (address, served) = tracker(50, &STOP);
        let torrents: Vec<InfoHashV1> = (0..3).map(|of| InfoHashV1([of; 20])).collect();
        let plan = Plan {
            tracker: address,
            pid: std::process::id(),
            torrents,
            peers_per_torrent: 8,
            sockets: 2,
            depth: 4,
            peers_wanted: 50,
            warmup: Duration::ZERO,
            duration: Duration::from_secs(2),
        };
        let outcome = run(&plan).unwrap();
        STOP.store(true, Ordering::Relaxed);
        let seen = served.join().unwrap();
        assert_eq!(seen.len(), 3 * 8, "{seen:?}");
        assert!(outcome.answered > 24 && outcome.lost > 0, "{outcome:?}");
        assert_eq!(outcome.latency.count(), outcome.answered);
    }

    #[test]
    fn nobody_listens() {
        let nobody = UdpSocket::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let plan = Plan {
            tracker: nobody,
            pid: u32::MAX,
            torrents: vec![InfoHashV1([1; 20])],
            peers_per_torrent: 1,
            sockets: 1,
            depth: 1,
            peers_wanted: 1,
            warmup: Duration::ZERO,
            duration: Duration::from_secs(1),
        };
        let error = format!("{:#}", run(&plan).unwrap_err());
        assert!(error.contains("is not running"), "{error}");
    }
}
