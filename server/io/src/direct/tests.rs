//! The cache over real files, without sockets: what is read, how often, and what happens when files
//! change.

use super::*;
use crate::files::OpenFile;
use crate::plane::SendPath;
use crate::testing::{self, Data, PIECE_BYTES};
use engine::choker::PeerKey;
use engine::queue::BATCH_BYTES_MAX;
use engine::session::PeerIdentity;
use engine::time::Time;
use proto::handshake::{Reserved, ReservedBit};
use proto::ids::PeerId;
use proto::wire::{BlockRequest, Message};
use std::future::Future;
use std::os::unix::fs::FileExt;

const BLOCK: u32 = 16 << 10;
const CHUNK: u32 = PIECE_BYTES as u32;

/// Runs `test` in a shard whose cache has [`SLOTS_MIN`] slots.
fn in_shard<F: Future<Output = ()>>(test: impl FnOnce(Rc<Shard>) -> F) {
    let mut config = testing::config();
    config.send_path = SendPath::Direct;
    config.cache_bytes = 0;
    let seat = testing::seat(config);
    tokio_uring::start(async {
        let shard = Shard::new(&seat).unwrap();
        test(Rc::clone(&shard)).await;
        let direct = shard.direct.as_ref().unwrap();
        direct.drained().await;
        direct.cache.borrow().check_invariants();
        let idle = direct.cache.borrow().idle() as usize;
        assert_eq!(direct.idle.available_permits(), idle, "a permit a slot");
        assert_eq!(idle, SLOTS_MIN, "nothing is pinned any more");
    });
}

/// A peer without a socket.
struct Guest {
    torrent: Arc<SeededTorrent>,
    session: RefCell<Session>,
    reader: Reader,
}

impl Guest {
    fn new(shard: &Shard, torrent: &Arc<SeededTorrent>) -> Guest {
        let identity = PeerIdentity {
            peer_id: PeerId(*b"-XX0000-testtesttest"),
            reserved: Reserved::NONE.with(ReservedBit::FAST),
            ip: None,
        };
        let config = shard.session_config();
        let mut session = Session::new(config, torrent.view(), identity, Time(0));
        session
            .handle_message(&Message::Interested, Time(0))
            .unwrap();
        session.set_choked(false, Time(0));
        assert!(!session.choke_view(PeerKey(0)).choked);
        Guest {
            torrent: Arc::clone(torrent),
            session: RefCell::new(session),
            reader: Reader::default(),
        }
    }

    fn request(&self, piece: u32, begin: u32, length: u32) {
        let request = Message::Request(BlockRequest {
            piece: PieceIndex(piece),
            begin,
            length,
        });
        let mut session = self.session.borrow_mut();
        session.handle_message(&request, Time(0)).unwrap();
        session.check_invariants();
    }

    /// Takes the next batch of what was requested, and has its bytes in the cache.
    async fn next(&self, shard: &Shard) -> Result<ChunkSlices, Fault> {
        let batch = self.session.borrow_mut().next_batch(BATCH_BYTES_MAX);
        let peer = Peer {
            torrent: &self.torrent,
            session: &self.session,
            reader: &self.reader,
        };
        let direct = shard.direct.as_ref().unwrap();
        read_batch(shard, direct, peer, &batch.unwrap()).await
    }

    /// Requests one run of bytes, and has them.
    async fn read(
        &self,
        shard: &Shard,
        piece: u32,
        begin: u32,
        length: u32,
    ) -> Result<ChunkSlices, Fault> {
        let mut at = begin;
        while at < begin + length {
            let block = (begin + length - at).min(BLOCK);
            self.request(piece, at, block);
            at += block;
        }
        self.next(shard).await
    }
}

fn bytes(slices: &ChunkSlices) -> Vec<u8> {
    slices.iter().flatten().copied().collect()
}

/// The content of all files, one after another; nothing in it is at two places.
fn write_content(data: &Data, files: &[(&'static str, usize)]) -> Vec<u8> {
    let mut content: Vec<u8> = Vec::new();
    for (index, (name, length)) in files.iter().enumerate() {
        let start = content.len();
        let byte = |at: usize| (at.wrapping_mul(0x9e37_79b9) >> 11) as u8;
        if name.starts_with("pad") {
            content.resize(start + length, 0);
        } else {
            content.extend((start..start + length).map(byte));
            std::fs::write(data.path(index), &content[start..]).unwrap();
        }
    }
    content
}

fn read_bytes(shard: &Shard) -> u64 {
    shard.cells.counter(Counter::DiskReadBytes)
}

#[test]
fn every_byte_comes_from_its_place_whatever_the_files_are_like() {
    let files: &[(&str, usize)] = &[
        ("first", 1),
        ("small", 511),
        ("pad1", 3584),
        ("aligned", 8192),
        ("odd", 100_003),
        ("pad2", 77),
        ("tiny1", 3),
        ("tiny2", 4097),
        ("tiny3", 4095),
        ("long", 3 * PIECE_BYTES + 12_345),
        ("last", 700),
    ];
    let data = Data::new(files);
    let content = write_content(&data, files);
    let places = [
        (0, CHUNK),
        (1, 70_000),
        (4095, 2),
        (33_333, 131_072),
        (CHUNK - 20_000, 40_000),
    ];
    in_shard(async |shard| {
        for piece_bytes in [16 << 10, PIECE_BYTES, 1 << 20] {
            let torrent = data.torrent_of_pieces(piece_bytes);
            for (offset, length) in places {
                for (piece, start) in (0..).zip((0..content.len()).step_by(piece_bytes)) {
                    let piece_bytes = torrent.layout().piece_length_of(PieceIndex(piece));
                    let length = length.min(piece_bytes.saturating_sub(offset));
                    let start = start + offset as usize;
                    for _again in 0..if length > 0 { 2 } else { 0 } {
                        // A guest of its own each time, so that no read is widened.
                        let guest = Guest::new(&shard, &torrent);
                        let slices = guest.read(&shard, piece, offset, length).await.unwrap();
                        assert!(
                            bytes(&slices) == content[start..start + length as usize],
                            "{length} bytes at {offset} of piece {piece} of {piece_bytes}"
                        );
                    }
                }
                // So that the next place finds nothing.
                shard.direct.as_ref().unwrap().forget(&torrent);
            }
        }
    });
}

#[test]
fn a_message_of_two_chunks_continues_at_every_byte() {
    let files = [("a", 2 * PIECE_BYTES)];
    let data = Data::new(&files);
    let content = write_content(&data, &files);
    let torrent = data.torrent_of_pieces(2 * PIECE_BYTES);
    in_shard(async |shard| {
        let guest = Guest::new(&shard, &torrent);
        let (begin, length) = (CHUNK - 50, 80);
        let mut outgoing = crate::outgoing::Outgoing::new();
        for split in 0..=(13 + length as usize + 13 + 20) {
            let slices = guest.read(&shard, 0, begin, length + 20).await.unwrap();
            assert_eq!(slices.iter().count(), 2);
            // The first block lies in both chunks.
            assert!(outgoing.push_block([1; 13], length) && outgoing.push_block([2; 13], 20));
            outgoing.seal(Some(payload::Payload::Chunks(slices)));
            let whole = outgoing.gathered();
            let (start, end) = (begin as usize, (begin + length) as usize);
            let expected = [
                &[1; 13],
                &content[start..end],
                &[2; 13],
                &content[end..end + 20],
            ];
            assert!(whole == expected.concat());
            assert_eq!(outgoing.advance(split), split == whole.len());
            assert_eq!(outgoing.gathered(), whole[split..]);
            outgoing.clear();
        }
    });
}

#[test]
fn one_read_serves_all_who_want_it_and_a_cached_chunk_is_not_read_again() {
    let data = Data::new(&[("a", 2 * PIECE_BYTES)]);
    let torrent = data.torrent();
    in_shard(async |shard| {
        let guests: Vec<_> = (0..5).map(|_| Guest::new(&shard, &torrent)).collect();
        let (first, second) = tokio::join!(
            guests[0].read(&shard, 0, 0, CHUNK),
            guests[1].read(&shard, 0, 0, CHUNK)
        );
        assert_eq!(bytes(&first.unwrap()), bytes(&second.unwrap()));
        assert_eq!(read_bytes(&shard), u64::from(CHUNK));
        for guest in &guests[2..] {
            guest.read(&shard, 0, BLOCK, 3 * BLOCK).await.unwrap();
        }
        assert_eq!(read_bytes(&shard), u64::from(CHUNK));
        let count = |counter| shard.cells.counter(counter);
        assert_eq!(count(Counter::CacheMisses), 1);
        assert_eq!(count(Counter::CacheJoined), 1);
        assert_eq!(count(Counter::CacheHits), 3);
    });
}

#[test]
fn a_lone_block_is_read_alone_and_one_who_goes_on_gets_the_rest_of_the_chunk() {
    let data = Data::new(&[("a", 2 * PIECE_BYTES)]);
    let torrent = data.torrent();
    in_shard(async |shard| {
        let guest = Guest::new(&shard, &torrent);
        guest.read(&shard, 0, 4 * BLOCK, BLOCK).await.unwrap();
        assert_eq!(read_bytes(&shard), u64::from(BLOCK));
        guest.read(&shard, 1, 9 * BLOCK, BLOCK).await.unwrap();
        assert_eq!(read_bytes(&shard), u64::from(2 * BLOCK));
        guest.read(&shard, 1, 10 * BLOCK, BLOCK).await.unwrap();
        assert_eq!(read_bytes(&shard), u64::from(8 * BLOCK));
        for block in 11..16 {
            guest.read(&shard, 1, block * BLOCK, BLOCK).await.unwrap();
        }
        assert_eq!(read_bytes(&shard), u64::from(8 * BLOCK));
        // Another peer wants of the same chunk what is not there: both want it, so all of it comes.
        let other = Guest::new(&shard, &torrent);
        other.read(&shard, 1, 0, BLOCK).await.unwrap();
        assert_eq!(read_bytes(&shard), u64::from(8 * BLOCK + CHUNK));
    });
}

#[test]
fn what_a_peer_has_queued_is_read_before_its_turn() {
    let data = Data::new(&[("a", 4 * PIECE_BYTES)]);
    let torrent = data.torrent();
    in_shard(async |shard| {
        let guest = Guest::new(&shard, &torrent);
        // Opened before, so that all reads are under way at once.
        payload::open(&shard, &torrent, FileIndex(0)).await.unwrap();
        for piece in 0..4 {
            (0..16).for_each(|block| guest.request(piece, block * BLOCK, BLOCK));
        }
        guest.next(&shard).await.unwrap();
        let direct = shard.direct.as_ref().unwrap();
        direct.drained().await;
        // As many chunks ahead as a quarter of the slots.
        assert_eq!(read_bytes(&shard), u64::from(3 * CHUNK));
        assert_eq!(direct.cache.borrow().ahead(), 2);
        for _ in 0..3 {
            guest.next(&shard).await.unwrap();
        }
        assert_eq!(
            read_bytes(&shard),
            u64::from(4 * CHUNK),
            "each was read once"
        );
        let count = |counter| shard.cells.counter(counter);
        assert_eq!(count(Counter::CacheMisses), 1);
    });
}

#[test]
fn who_finds_every_slot_in_use_waits_for_one() {
    let data = Data::new(&[("a", 20 * PIECE_BYTES)]);
    let torrent = data.torrent();
    in_shard(async |shard| {
        let guest = Guest::new(&shard, &torrent);
        let mut held = Vec::new();
        for piece in 0..SLOTS_MIN as u32 {
            held.push(guest.read(&shard, piece, 0, CHUNK).await.unwrap());
        }
        let direct = shard.direct.as_ref().unwrap();
        assert!(direct.is_exhausted());
        assert_eq!(direct.used_bytes(), SLOTS_MIN * SLOT_BYTES);
        let others: Vec<_> = (0..3).map(|_| Guest::new(&shard, &torrent)).collect();
        let mut waiting = Box::pin(others[0].read(&shard, 9, 0, CHUNK));
        let at_once = tokio::time::timeout(std::time::Duration::ZERO, &mut waiting);
        assert!(at_once.await.is_err());
        assert_eq!(shard.cells.counter(Counter::CacheWaits), 1);
        held.pop();
        waiting.await.unwrap();
        // One who leaves the line takes nothing with him.
        held.push(others[1].read(&shard, 10, 0, CHUNK).await.unwrap());
        let mut leaving = Box::pin(others[2].read(&shard, 11, 0, CHUNK));
        let at_once = tokio::time::timeout(std::time::Duration::ZERO, &mut leaving);
        assert!(at_once.await.is_err());
        held.clear();
        drop(leaving);
    });
}

#[test]
fn a_reader_that_goes_leaves_its_read_to_the_others() {
    let data = Data::new(&[("a", PIECE_BYTES)]);
    let torrent = data.torrent();
    in_shard(async |shard| {
        let (first, second) = (Guest::new(&shard, &torrent), Guest::new(&shard, &torrent));
        let mut starting = Box::pin(first.read(&shard, 0, 0, CHUNK));
        let at_once = tokio::time::timeout(std::time::Duration::ZERO, &mut starting);
        assert!(at_once.await.is_err());
        drop(starting);
        let slices = second.read(&shard, 0, 0, CHUNK).await.unwrap();
        assert_eq!(bytes(&slices), std::fs::read(data.path(0)).unwrap());
        assert_eq!(read_bytes(&shard), u64::from(CHUNK));
    });
}

#[test]
fn a_changed_file_shows_even_when_its_bytes_are_cached() {
    let data = Data::new(&[("a", 2 * PIECE_BYTES)]);
    let torrent = data.torrent();
    in_shard(async |shard| {
        let guest = Guest::new(&shard, &torrent);
        let before = guest.read(&shard, 0, 0, CHUNK).await.unwrap();
        let verified = bytes(&before);
        let file = std::fs::File::options()
            .write(true)
            .open(data.path(0))
            .unwrap();
        file.write_all_at(b"other", 0).unwrap();
        let cached = guest.read(&shard, 0, 0, CHUNK).await;
        assert_eq!(cached.err().unwrap().cause, FaultCause::Changed);
        let new = guest.read(&shard, 1, 0, CHUNK).await;
        assert_eq!(new.err().unwrap().cause, FaultCause::Changed);
        assert!(
            bytes(&before) == verified,
            "what was verified stays as it was"
        );
    });
}

#[test]
fn a_file_that_shrinks_or_goes_names_itself_to_all_who_wait() {
    let data = Data::new(&[("a", PIECE_BYTES), ("b", PIECE_BYTES)]);
    let torrent = data.torrent();
    let file = std::fs::File::options()
        .write(true)
        .open(data.path(0))
        .unwrap();
    file.set_len(1000).unwrap();
    std::fs::remove_file(data.path(1)).unwrap();
    in_shard(async |shard| {
        let (one, two) = (Guest::new(&shard, &torrent), Guest::new(&shard, &torrent));
        let (first, second) =
            tokio::join!(one.read(&shard, 0, 0, CHUNK), two.read(&shard, 0, 0, CHUNK));
        let (expected, found) = (PIECE_BYTES as u64, 1000);
        for fault in [first.err().unwrap(), second.err().unwrap()] {
            assert_eq!(fault.cause, FaultCause::Truncated { expected, found });
            assert_eq!(fault.file, data.path(0));
        }
        let gone = one.read(&shard, 1, 0, CHUNK).await;
        assert_eq!(gone.err().unwrap().cause, FaultCause::Missing);
    });
}

#[test]
fn a_refused_read_is_done_through_the_page_cache() {
    let data = Data::new(&[("a", PIECE_BYTES + 1000)]);
    let torrent = data.torrent();
    in_shard(async |shard| {
        let file = payload::open(&shard, &torrent, FileIndex(0)).await.unwrap();
        if !file.bypasses_cache() {
            return; // There is nothing to refuse on this file system.
        }
        file.claim_alignment(2);
        let guest = Guest::new(&shard, &torrent);
        let slices = guest
            .read(&shard, 0, 7 * BLOCK + 3, 5 * BLOCK)
            .await
            .unwrap();
        let from = 7 * BLOCK as usize + 3;
        let expected = &std::fs::read(data.path(0)).unwrap()[from..from + 5 * BLOCK as usize];
        assert!(bytes(&slices) == expected);
        assert!(!OpenFile::bypasses_cache(&file));
    });
}

#[test]
fn a_torrent_that_left_is_read_anew() {
    let data = Data::new(&[("a", PIECE_BYTES)]);
    let torrent = data.torrent();
    in_shard(async |shard| {
        let guest = Guest::new(&shard, &torrent);
        let held = guest.read(&shard, 0, 0, CHUNK).await.unwrap();
        shard.direct.as_ref().unwrap().forget(&torrent);
        guest.read(&shard, 0, 0, CHUNK).await.unwrap();
        assert_eq!(read_bytes(&shard), u64::from(2 * CHUNK));
        assert_eq!(bytes(&held), std::fs::read(data.path(0)).unwrap());
    });
}
