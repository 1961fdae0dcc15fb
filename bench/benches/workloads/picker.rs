//! The piece picker of the largest torrent: 2^21 pieces of 64 blocks, 1,000 peers, of whom 100 have
//! all pieces, 10 nearly all and the others 1,024 each, at random places.
//!
//! Every run ends where it began, so that runs are alike. 228 MiB are the peers' bitfields.

use engine::choker::PeerKey;
use engine::layout::StorageLayout;
use engine::picker::{PeerPieces, Picker, PickerConfig, Wish};
use engine::random::Random;
use proto::ids::PieceIndex;
use proto::limits::{BLOCK_LENGTH, PIECES_MAX};

use super::{Amount, Run, Workload};

const BLOCKS: u32 = 64;
const SEEDS: u64 = 100;
const NEARLY_SEEDS: u64 = 10;
const PEERS: u64 = 1_000;
const PIECES_EACH: u64 = 1_024;
const HAVES: u64 = 1_024;
/// A peer that comes and goes.
const GUEST: PeerKey = PeerKey(PEERS);

pub fn workloads() -> Vec<Workload> {
    let workload = |name, elements, prepare, result| Workload {
        name,
        amount: Amount::Elements(elements),
        prepare,
        result,
    };
    let pieces = u64::from(PIECES_MAX);
    let blocks = u64::from(BLOCKS);
    vec![
        workload("picker/1,024 haves, and back", HAVES * 2, haves, HAVES * 2),
        workload(
            "picker/a piece of 64, from a seed",
            blocks,
            || piece(0),
            blocks,
        ),
        workload(
            "picker/a piece of 64, from a peer with 1,024",
            blocks,
            || piece(PEERS - 1),
            blocks,
        ),
        workload(
            "picker/a seed joins and leaves",
            1,
            || guest(|_| true),
            pieces,
        ),
        workload(
            "picker/a peer with 1 % joins and leaves",
            pieces / 100,
            || guest(|piece| piece % 100 == 0),
            pieces.div_ceil(100),
        ),
        workload(
            "picker/a peer with 99 % joins and leaves",
            pieces,
            || guest(|piece| piece % 100 > 0),
            pieces - pieces.div_ceil(100),
        ),
        workload(
            "picker/a peer with half joins and leaves",
            pieces,
            || guest(|piece| piece % 2 == 0),
            pieces / 2,
        ),
    ]
}

fn bitfield(has: impl Fn(u32) -> bool) -> Vec<u8> {
    let mut bytes = vec![0; PIECES_MAX as usize / 8];
    for piece in (0..PIECES_MAX).filter(|piece| has(*piece)) {
        bytes[piece as usize / 8] |= 0x80 >> (piece % 8);
    }
    bytes
}

fn picker() -> Picker {
    let length = u64::from(PIECES_MAX) * u64::from(BLOCKS * BLOCK_LENGTH);
    let layout = StorageLayout::new(&[(length, false)], BLOCKS * BLOCK_LENGTH);
    let layout = layout.expect("a torrent that may exist");
    let mut picker = Picker::new(PickerConfig::default(), &layout, PeerPieces::None, 1);
    let mut random = Random::new(1);
    let mut bits = bitfield(|_| false);
    for key in 0..PEERS {
        let pieces = match key {
            0..SEEDS => PeerPieces::All,
            _ => {
                bits.fill(if key < SEEDS + NEARLY_SEEDS { 255 } else { 0 });
                for _ in 0..PIECES_EACH {
                    let piece = random.below(PIECES_MAX.into());
                    bits[piece as usize / 8] ^= 0x80 >> (piece % 8);
                }
                PeerPieces::Bitfield(&bits)
            }
        };
        picker.peer_joined(PeerKey(key), pieces);
        picker.set_rate(PeerKey(key), 10 << 20);
    }
    picker
}

/// A peer gets pieces one by one, and loses them. Runs return how many were news.
fn haves() -> Run {
    let mut picker = picker();
    picker.peer_joined(GUEST, PeerPieces::None);
    let mut random = Random::new(2);
    let pieces: Vec<PieceIndex> = (0..HAVES)
        .map(|step| {
            let places = u64::from(PIECES_MAX) / HAVES;
            PieceIndex((step * places + random.below(places)) as u32)
        })
        .collect();
    Box::new(move || {
        let haves = pieces.iter().filter(|&&piece| picker.have(GUEST, piece));
        let haves = haves.count();
        let losses = pieces
            .iter()
            .filter(|&&piece| picker.peer_lost(GUEST, piece));
        (haves + losses.count()) as u64
    })
}

/// A piece from its choice to its verification, 16 blocks at a time, and then it is lost again.
/// Runs return the blocks.
fn piece(key: u64) -> Run {
    let mut picker = picker();
    let key = PeerKey(key);
    let mut requests = Vec::new();
    Box::new(move || {
        let mut blocks = 0;
        for _ in 0..BLOCKS / 16 {
            let wish = Wish {
                count: 16,
                ..Wish::default()
            };
            requests.clear();
            picker.pick(key, wish, &mut requests);
            for &request in &requests {
                picker.block_received(key, request);
            }
            blocks += requests.len() as u64;
        }
        let piece = requests.last().expect("blocks were picked").piece;
        picker.piece_verified(piece);
        picker.piece_lost(piece);
        blocks
    })
}

/// A peer comes and goes. Runs return how many wanted pieces it brings.
fn guest(has: fn(u32) -> bool) -> Run {
    let mut picker = picker();
    let bits = bitfield(has);
    let all = has(0) && has(1) && has(99);
    Box::new(move || {
        let pieces = if all {
            PeerPieces::All
        } else {
            PeerPieces::Bitfield(&bits)
        };
        picker.peer_joined(GUEST, pieces);
        let interesting = picker.interesting_pieces(GUEST);
        picker.peer_left(GUEST);
        interesting.into()
    })
}
