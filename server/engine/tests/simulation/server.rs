//! The I/O layer of the simulation: sockets of limited size, reads that take time, limits on two
//! shards.

use std::sync::Arc;
use std::time::Duration;

use engine::choker::{ChokeChange, Choker, ChokerConfig, PeerKey, SeedPolicy};
use engine::queue::Batch;
use engine::random::Random;
use engine::rate::{self, Demand, RateLimit, ShardBucket, ShardIndex, SharedBucket};
use engine::session::{Disconnect, Pieces, Session, SessionConfig, SessionCounters, TorrentView};
use engine::time::Time;
use proto::wire::{self, Decoded, Message};

use super::peer::Peer;

pub const PIECE_COUNT: u32 = 64;
pub const PIECE_LENGTH: u32 = 4_096;
pub const TOTAL_LENGTH: u64 = 63 * PIECE_LENGTH as u64 + 1_000;
const METADATA: u32 = 20_000;
const SOCKET_BYTES_MAX: usize = 8 << 10;
const SHARDS: u16 = 2;

/// What both directions of a connection hold on the way.
#[derive(Default)]
pub struct Socket {
    to_server: Vec<u8>,
    to_peer: Vec<u8>,
}

impl Socket {
    /// Takes as much as there is room for; returns how much.
    pub fn write_to_server(&mut self, bytes: &[u8]) -> usize {
        let room = SOCKET_BYTES_MAX - self.to_server.len();
        let taken = bytes.len().min(room);
        self.to_server.extend_from_slice(&bytes[..taken]);
        taken
    }

    pub fn read_from_server(&mut self, most: usize, into: &mut Vec<u8>) {
        let count = most.min(self.to_peer.len());
        into.extend_from_slice(&self.to_peer[..count]);
        self.to_peer.drain(..count);
    }
}

pub struct Connection {
    session: Session,
    socket: Socket,
    received: Vec<u8>,
    /// What is being sent; the batch it is, unless it is control.
    sending: Vec<u8>,
    sending_batch: Option<Batch>,
    /// A batch that is being read from the disk, and when it is there.
    reading: Option<(Batch, Time)>,
    wait_until: Time,
}

impl Connection {
    pub fn socket(&mut self) -> &mut Socket {
        &mut self.socket
    }
}

pub struct Server {
    config: Arc<SessionConfig>,
    connections: Vec<Option<Connection>>,
    /// The sessions of closed connections, and why they were closed.
    closed: Vec<Option<(Session, Disconnect)>>,
    choker: Choker,
    shared: SharedBucket,
    locals: Vec<ShardBucket>,
    /// What the limit allows since the start, in bytes; `None` once there was no limit.
    allowance: u64,
    allowance_at: Time,
    sent: u64,
    /// Who is unchoked; counted anew each tick.
    unchoked: u32,
}

impl Server {
    pub fn new(peers: &[Peer], seed: u64, now: Time) -> Server {
        let config = Arc::new(SessionConfig {
            requests_max: 50,
            block_length_max: 1_024,
            idle_timeout: Duration::from_secs(20),
            keep_alive_interval: Duration::from_secs(4),
            stall_timeout: Duration::from_secs(10),
            redundant_grace: Duration::from_secs(2),
            control_bytes_max: 2_000,
            ..SessionConfig::default()
        });
        let torrent = Arc::new(TorrentView {
            piece_count: PIECE_COUNT,
            piece_length: PIECE_LENGTH,
            total_length: TOTAL_LENGTH,
            metadata_bytes: Some(METADATA),
            private: false,
            pieces: Pieces::All,
        });
        let connect = |peer: &Peer| Connection {
            session: Session::new(config.clone(), torrent.clone(), peer.identity(), now),
            socket: Socket::default(),
            received: Vec::new(),
            sending: Vec::new(),
            sending_batch: None,
            reading: None,
            wait_until: now,
        };
        let policies = [
            SeedPolicy::RoundRobin,
            SeedPolicy::FastestUpload,
            SeedPolicy::AntiLeech,
        ];
        let choker_config = ChokerConfig {
            policy: policies[seed as usize % 3],
            round_interval: Duration::from_secs(1),
            ..ChokerConfig::default()
        };
        let limit = RateLimit::new(1_000_000);
        Server {
            connections: peers.iter().map(|peer| Some(connect(peer))).collect(),
            closed: peers.iter().map(|_| None).collect(),
            config,
            choker: Choker::new(choker_config, seed, now),
            shared: SharedBucket::new(Some(limit), SHARDS, now),
            locals: (0..SHARDS)
                .map(|shard| ShardBucket::new(ShardIndex(shard)))
                .collect(),
            allowance: limit.burst_bytes(),
            allowance_at: now,
            sent: 0,
            unchoked: 0,
        }
    }

    pub fn connection(&mut self, index: usize) -> Option<&mut Connection> {
        self.connections[index].as_mut()
    }

    pub fn closed(&self, index: usize) -> Option<Disconnect> {
        self.closed[index].as_ref().map(|(_, reason)| *reason)
    }

    /// Other slots and another rate; while draining, slots and rate for all.
    pub fn change_limits(&mut self, random: &mut Random, draining: bool, now: Time) {
        let slots = [0, 5, 60, 200][random.below(4) as usize];
        self.choker.set_slots(if draining { 0 } else { slots });
        let rate = if draining {
            5_000_000
        } else {
            200_000 + random.below(2_000_000)
        };
        self.allow(now);
        let limit = RateLimit::new(rate);
        self.allowance += limit.burst_bytes();
        self.shared.set_limit(Some(limit), now);
    }

    pub fn hold_choke_round(&mut self, now: Time) {
        self.unchoked = self.count_unchoked();
        if now < self.choker.next_timeout() {
            return;
        }
        let open = || {
            (0_u64..)
                .zip(&self.connections)
                .filter_map(|(key, open)| Some((key, open.as_ref()?)))
        };
        let views: Vec<_> = open()
            .map(|(key, open)| open.session.choke_view(PeerKey(key)))
            .collect();
        let mut changes = Vec::new();
        self.choker.round(&views, now, &mut changes);
        for ChokeChange { key, choke } in changes {
            let connection = self.connections[key.0 as usize]
                .as_mut()
                .expect("it was in the views");
            connection.session.set_choked(choke, now);
        }
        self.connections
            .iter_mut()
            .flatten()
            .for_each(|open| open.session.start_choke_round());
        self.unchoked = self.count_unchoked();
        assert!(self.choker.slots() == 0 || self.unchoked <= self.choker.slots());
    }

    /// One tick of one connection: receive, time out, send.
    pub fn drive(&mut self, index: usize, peer: &Peer, now: Time, random: &mut Random) {
        let Some(mut connection) = self.connections[index].take() else {
            return;
        };
        let result = self.drive_open(index, &mut connection, now, random);
        connection.session.check_invariants();
        assert!(connection.session.queued_requests() <= self.config.requests_max);
        let control_max =
            self.config.control_bytes_max + 51 * wire::REQUEST_FRAME_BYTES + (17 << 10);
        assert!(
            connection.session.control_bytes() <= control_max,
            "{:?}",
            peer.kind()
        );
        match result {
            Ok(()) => self.connections[index] = Some(connection),
            Err(reason) => self.closed[index] = Some((connection.session, reason)),
        }
    }

    /// That what was sent is within what the limits of all times allow.
    pub fn check_rate(&mut self, now: Time) {
        self.allow(now);
        assert!(
            self.sent <= self.allowance,
            "sent {} of {} bytes",
            self.sent,
            self.allowance
        );
    }

    /// That the peer and the session agree on what became of each request.
    pub fn check_account(&self, index: usize, peer: &Peer) -> SessionCounters {
        let closed = self.closed[index].as_ref().map(|(session, _)| session);
        let open = self.connections[index].as_ref().map(|open| &open.session);
        let session = closed.or(open).expect("open or closed");
        let counters = *session.counters();
        if open.is_some() && peer.settles() {
            let rejects = counters.requests_refused + counters.requests_rejected;
            let silent = counters.requests_ignored + counters.requests_dropped;
            assert_eq!(
                session.queued_requests(),
                0,
                "peer {index}, {:?}, drained",
                peer.kind()
            );
            assert_eq!(
                peer.blocks,
                counters.blocks_sent,
                "peer {index}, {:?}",
                peer.kind()
            );
            assert_eq!(peer.rejects, rejects, "peer {index}, {:?}", peer.kind());
            assert_eq!(peer.unanswered(), silent, "peer {index}, {:?}", peer.kind());
            if peer.identity().reserved.fast() {
                assert_eq!(silent, 0, "with BEP 6 each request has its answer");
            }
        }
        counters
    }

    fn count_unchoked(&self) -> u32 {
        self.connections
            .iter()
            .flatten()
            .filter(|open| !open.session.is_choked())
            .count() as u32
    }

    fn allow(&mut self, now: Time) {
        let limit = self.shared.limit().expect("there is always one");
        self.allowance += limit.bytes_in(now.since(self.allowance_at)) + 1;
        self.allowance_at = now;
    }

    fn drive_open(
        &mut self,
        index: usize,
        connection: &mut Connection,
        now: Time,
        random: &mut Random,
    ) -> Result<(), Disconnect> {
        receive(connection, now)?;
        let session = &mut connection.session;
        if session.wants_unchoke() && self.choker.claim(session.role(), self.unchoked) {
            self.unchoked += 1;
            session.set_choked(false, now);
        }
        while let Some(piece) = session.take_metadata_request() {
            session.send_metadata(piece, &vec![1; if piece == 0 { 16_384 } else { 3_616 }]);
        }
        if now >= session.next_timeout() {
            session.handle_timeout(now)?;
            assert!(
                session.next_timeout() > now,
                "a timeout that comes again at once"
            );
        }
        // Control, then at most a few batches a tick.
        for _ in 0..4 {
            if !flush(connection, now) {
                return Ok(());
            }
            self.start_control(connection, now);
            if connection.sending.is_empty() {
                self.start_reading(index, connection, now, random);
                self.start_batch(connection, now, random);
            }
        }
        Ok(())
    }

    fn start_control(&mut self, connection: &mut Connection, now: Time) {
        let mut control = Vec::new();
        connection.session.take_control(&mut control);
        connection.session.send_started(control.len() as u64, now);
        connection.sending = control;
    }

    /// Asks the rate limit, takes a batch and begins to read it.
    fn start_reading(
        &mut self,
        index: usize,
        connection: &mut Connection,
        now: Time,
        random: &mut Random,
    ) {
        if connection.reading.is_some() || now < connection.wait_until {
            return;
        }
        let Some(wanted) = connection.session.peek_batch(u32::MAX) else {
            return;
        };
        let demand = Demand {
            bytes_min: wanted.lengths[0],
            bytes_max: wanted.bytes,
        };
        let local = &mut self.locals[index % usize::from(SHARDS)];
        let granted = loop {
            match rate::take(&mut [&mut *local], demand, now) {
                Ok(granted) => break granted,
                Err(_) => match self.shared.exchange(local, demand, now) {
                    Ok(()) => {}
                    Err(until) => return connection.wait_until = until,
                },
            }
        };
        let batch = connection
            .session
            .next_batch(granted)
            .expect("the first block was granted");
        local.give_back(u64::from(granted - batch.bytes));
        let ready = now + Duration::from_millis(random.below(60));
        connection.reading = Some((batch, ready));
    }

    /// Sends the batch that was read, unless the disk failed.
    fn start_batch(&mut self, connection: &mut Connection, now: Time, random: &mut Random) {
        let Some((batch, _)) = connection.reading.take_if(|(_, ready)| *ready <= now) else {
            return;
        };
        if random.below(100) == 0 {
            connection.session.batch_failed(&batch);
            return;
        }
        for block in batch.blocks() {
            let header = wire::piece_header(block.piece, block.begin, block.length);
            connection.sending.extend_from_slice(&header);
            let end = connection.sending.len() + block.length as usize;
            connection.sending.resize(end, 0);
        }
        self.sent += u64::from(batch.bytes);
        connection
            .session
            .send_started(connection.sending.len() as u64, now);
        connection.sending_batch = Some(batch);
    }
}

/// Takes what the peer sent, message by message, as long as the session wants any.
fn receive(connection: &mut Connection, now: Time) -> Result<(), Disconnect> {
    let Connection {
        session,
        socket,
        received,
        ..
    } = connection;
    let limits = session.frame_limits();
    while session.wants_input() {
        match wire::decode(received, &limits)? {
            Decoded::Message { message, consumed } => {
                session.handle_message(&message, now)?;
                assert!(!matches!(message, Message::Piece { .. }));
                received.drain(..consumed);
            }
            Decoded::Incomplete { .. } if socket.to_server.is_empty() => break,
            Decoded::Incomplete { .. } => received.append(&mut socket.to_server),
        }
    }
    Ok(())
}

/// Gives the socket what it takes; whether all of it is gone.
fn flush(connection: &mut Connection, now: Time) -> bool {
    let Connection {
        session,
        socket,
        sending,
        sending_batch,
        ..
    } = connection;
    let count = sending.len().min(SOCKET_BYTES_MAX - socket.to_peer.len());
    if count > 0 {
        socket.to_peer.extend_from_slice(&sending[..count]);
        sending.drain(..count);
        session.send_progressed(count as u64, now);
    }
    if sending.is_empty()
        && let Some(batch) = sending_batch.take()
    {
        session.batch_sent(&batch, now);
    }
    sending.is_empty()
}
