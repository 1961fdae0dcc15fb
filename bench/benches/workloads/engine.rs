//! The state machines: request queue, choker, storage layout, rate limits, and a session's round
//! from received bytes to the batches that are sent.

use std::sync::Arc;

use engine::choker::{Choker, ChokerConfig, PeerKey, PeerView, Role, SeedPolicy};
use engine::layout::StorageLayout;
use engine::queue::{BATCH_BYTES_MAX, RequestQueue};
use engine::random::Random;
use engine::rate::{Demand, RateLimit, ShardBucket, ShardIndex, SharedBucket, take};
use engine::session::{PeerIdentity, Pieces, Session, SessionConfig, TorrentView};
use engine::time::Time;
use proto::handshake::{Reserved, ReservedBit};
use proto::ids::{PeerId, PieceIndex};
use proto::wire::{self, BlockRequest, Decoded, Message};

use super::wire::{pipeline, requests};
use super::{Amount, Run, Workload};

const REQUESTS: u64 = 64;
const BATCHES: u64 = 4;
const PEERS: u64 = 1_000;
const SLOTS: u32 = 100;
const LOOKUPS: u64 = 256;
const TAKES: u64 = 64;

pub fn workloads() -> Vec<Workload> {
    let workload = |name, elements, prepare, result| Workload {
        name,
        amount: Amount::Elements(elements),
        prepare,
        result,
    };
    vec![
        workload(
            "queue/64 pushes, 4 batches",
            REQUESTS,
            queue_batches,
            BATCHES,
        ),
        workload(
            "queue/64 pushes, 64 cancels",
            REQUESTS,
            queue_cancels,
            REQUESTS,
        ),
        workload(
            "choker/1,000 peers, unlimited",
            PEERS,
            || choker(0, SeedPolicy::RoundRobin),
            PEERS,
        ),
        workload(
            "choker/1,000 peers, round robin",
            PEERS,
            || choker(SLOTS, SeedPolicy::RoundRobin),
            100,
        ),
        workload(
            "choker/1,000 peers, fastest",
            PEERS,
            || choker(SLOTS, SeedPolicy::FastestUpload),
            100,
        ),
        workload(
            "choker/1,000 peers, anti-leech",
            PEERS,
            || choker(SLOTS, SeedPolicy::AntiLeech),
            100,
        ),
        workload(
            "layout/256 batches, 1 file",
            LOOKUPS,
            || block_ranges(1),
            LOOKUPS << 18,
        ),
        workload(
            "layout/256 batches, 10,000 files",
            LOOKUPS,
            || block_ranges(10_000),
            LOOKUPS << 18,
        ),
        workload("rate/64 takes, 3 levels", TAKES, rate_takes, TAKES << 18),
        workload(
            "session/64 requests, 4 batches",
            REQUESTS,
            session_round,
            BATCHES,
        ),
        workload(
            "session/64 requests from bytes",
            REQUESTS,
            session_from_bytes,
            BATCHES,
        ),
    ]
}

fn queue_batches() -> Run {
    let blocks: Vec<BlockRequest> = requests().collect();
    let mut queue = RequestQueue::new(2_000);
    Box::new(move || {
        let pushed = blocks.iter().filter(|&&block| queue.push(block)).count();
        assert_eq!(pushed, blocks.len(), "the queue has room for them");
        let mut batches = 0;
        while let Some(batch) = queue.next_batch(BATCH_BYTES_MAX) {
            std::hint::black_box(&batch);
            batches += 1;
        }
        batches
    })
}

fn queue_cancels() -> Run {
    let blocks: Vec<BlockRequest> = requests().collect();
    let mut queue = RequestQueue::new(2_000);
    Box::new(move || {
        let pushed = blocks.iter().filter(|&&block| queue.push(block)).count();
        assert_eq!(pushed, blocks.len(), "the queue has room for them");
        blocks.iter().filter(|&&block| queue.cancel(block)).count() as u64
    })
}

/// A round over peers of which none is unchoked yet: runs return how many then are.
fn choker(slots: u32, policy: SeedPolicy) -> Run {
    let config = ChokerConfig {
        slots,
        policy,
        ..ChokerConfig::default()
    };
    let mut random = Random::new(1);
    let peers: Vec<PeerView> = (0..PEERS)
        .map(|key| choked_peer(key, &mut random))
        .collect();
    let mut choker = Choker::new(config, 1, Time::default());
    let mut now = Time(3_600_000_000_000);
    let mut changes = Vec::new();
    Box::new(move || {
        now = now + config.round_interval;
        changes.clear();
        choker.round(&peers, now, &mut changes);
        changes.iter().filter(|change| !change.choke).count() as u64
    })
}

fn choked_peer(key: u64, random: &mut Random) -> PeerView {
    PeerView {
        key: PeerKey(key),
        role: Role::Seeding,
        interested: true,
        choked: true,
        connected_at: Time(random.below(3_600_000_000_000)),
        unchoked_at: Time(random.below(3_600_000_000_000)),
        uploaded_in_round: random.below(1 << 30),
        uploaded_since_unchoke: random.below(1 << 32),
        progress_bytes: random.below(4 << 30),
        total_length: 4 << 30,
        piece_length: 1 << 20,
        download_rate: 0,
        snubbed: false,
    }
}

/// Where batches of 256 KiB at random lie in 4 GB of `files` files: runs return the bytes.
fn block_ranges(files: u64) -> Run {
    let length = 4_000_000_000 / files;
    let files: Vec<(u64, bool)> = (0..files).map(|_| (length, false)).collect();
    let layout = StorageLayout::new(&files, 1 << 20).expect("a torrent that may exist");
    let mut random = Random::new(1);
    // Not the last piece, which is shorter.
    let pieces = u64::from(layout.piece_count()) - 1;
    let places: Vec<(PieceIndex, u32)> = (0..LOOKUPS)
        .map(|_| {
            (
                PieceIndex(random.below(pieces) as u32),
                (random.below(4) << 18) as u32,
            )
        })
        .collect();
    Box::new(move || {
        let ranges = places
            .iter()
            .flat_map(|&(piece, begin)| layout.block_ranges(piece, begin, 1 << 18));
        ranges.map(|range| u64::from(range.length)).sum()
    })
}

/// A sender's way to its bytes: server, torrent and peer class, each with slices to renew. Runs
/// return the bytes that were granted.
fn rate_takes() -> Run {
    let mut now = Time(1);
    // Fast enough that what is taken has always come back, slow enough that slices end.
    let limit = Some(RateLimit::new(1 << 36));
    let mut shared = [(); 3].map(|()| SharedBucket::new(limit, 1, now));
    let mut local = [(); 3].map(|()| ShardBucket::new(ShardIndex(0)));
    let demand = Demand {
        bytes_min: 1 << 14,
        bytes_max: 1 << 18,
    };
    Box::new(move || {
        let mut bytes = 0;
        for _ in 0..TAKES {
            // A batch at 1 GB/s.
            now = Time(now.0 + 262_144);
            bytes += loop {
                let [first, second, third] = &mut local;
                match take(&mut [first, second, third], demand, now) {
                    Ok(granted) => break u64::from(granted),
                    Err(level) => shared[level]
                        .exchange(&mut local[level], demand, now)
                        .expect("more comes than is taken"),
                }
            };
        }
        bytes
    })
}

/// 64 decoded requests into a session, and its batches out, as sent. Runs return the batches.
fn session_round() -> Run {
    let blocks: Vec<BlockRequest> = requests().collect();
    let mut session = unchoked_session();
    Box::new(move || {
        for &block in &blocks {
            let taken = session.handle_message(&Message::Request(block), Time(1));
            taken.expect("the requests are valid");
        }
        send_all(&mut session)
    })
}

/// The same from the bytes in a receive buffer.
fn session_from_bytes() -> Run {
    let stream = pipeline();
    let mut session = unchoked_session();
    let limits = session.frame_limits();
    Box::new(move || {
        let mut rest = stream.as_slice();
        while let Ok(Decoded::Message { message, consumed }) = wire::decode(rest, &limits) {
            let taken = session.handle_message(&message, Time(1));
            taken.expect("the requests are valid");
            rest = &rest[consumed..];
        }
        send_all(&mut session)
    })
}

fn send_all(session: &mut Session) -> u64 {
    let mut batches = 0;
    while let Some(batch) = session.next_batch(BATCH_BYTES_MAX) {
        session.batch_sent(&batch, Time(1));
        batches += 1;
    }
    batches
}

fn unchoked_session() -> Session {
    let torrent = TorrentView {
        piece_count: 4_096,
        piece_length: 1 << 20,
        total_length: 4 << 30,
        metadata_bytes: None,
        private: false,
        pieces: Pieces::All,
    };
    let peer = PeerIdentity {
        peer_id: PeerId([7; 20]),
        reserved: Reserved::NONE.with(ReservedBit::FAST),
        ip: None,
    };
    let config = Arc::new(SessionConfig::default());
    let mut session = Session::new(config, Arc::new(torrent), peer, Time(0));
    let interested = session.handle_message(&Message::Interested, Time(0));
    interested.expect("a peer may be interested");
    session.set_choked(false, Time(0));
    session.take_control(&mut Vec::new());
    session
}
