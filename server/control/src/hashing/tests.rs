//! Files of every awkward size against a plain loop over the concatenated bytes, and every way to
//! fail.

use super::*;
use std::collections::BTreeMap;
use std::fs;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// A directory of files, and what a hasher needs to know of them.
struct Content {
    dir: tempfile::TempDir,
    root: Root,
    files: Vec<DataFile>,
    layout: StorageLayout,
    bytes: Vec<u8>,
}

/// Files `0`, `1`, … of these lengths, the `true` ones padding, which is zeros and on no disk.
fn content(lengths: &[(u64, bool)], piece_length: u32) -> Content {
    let dir = tempfile::tempdir().unwrap();
    let mut bytes = Vec::new();
    let mut files = Vec::new();
    for (index, &(length, pad)) in lengths.iter().enumerate() {
        let value = |at: u64| {
            if pad {
                0
            } else {
                (at * 31 + at / 251 + index as u64 * 7) as u8
            }
        };
        let data: Vec<u8> = (0..length).map(value).collect();
        let name = index.to_string();
        if !pad {
            fs::write(dir.path().join(&name), &data).unwrap();
        }
        bytes.extend(data);
        files.push(DataFile {
            path: name.into_bytes().into(),
            stamp: None,
        });
    }
    let root = Root::open(dir.path(), Links::Refused).unwrap();
    for (file, _) in files.iter_mut().zip(lengths).filter(|(_, (_, pad))| !pad) {
        let metadata = settled(|| Ok(root.open_file(file.path())?.1)).unwrap();
        file.stamp = Some(stamp_of(&metadata));
    }
    let layout = StorageLayout::new(lengths, piece_length).unwrap();
    Content {
        dir,
        root,
        files,
        layout,
        bytes,
    }
}

/// Digests and faults by piece.
type Outcome = (BTreeMap<u32, Sha1Digest>, BTreeMap<u32, String>);

/// What a disk in these tests does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// It has nothing in memory and brings all that it is asked for.
    Good,
    /// It has some in memory, refuses some reads, fails some, and cuts some short.
    Moody,
    /// It fails every read.
    Broken,
}

/// A disk that brings nothing before it is waited for, and watches that its rules are kept.
#[derive(Debug)]
struct ScriptedDisk {
    kind: Kind,
    reads: Arc<AtomicU64>,
}

struct ScriptedReader {
    kind: Kind,
    memory: Vec<u8>,
    under_way: BTreeMap<u32, (Arc<File>, u64, Range<usize>)>,
    started: u32,
    reads: Arc<AtomicU64>,
}

impl ScriptedDisk {
    fn new(kind: Kind) -> ScriptedDisk {
        let reads = Arc::default();
        ScriptedDisk { kind, reads }
    }
}

impl Disk for ScriptedDisk {
    fn reader(&self) -> Box<dyn DiskReader> {
        Box::new(ScriptedReader {
            kind: self.kind,
            memory: Vec::new(),
            under_way: BTreeMap::new(),
            started: 0,
            reads: Arc::clone(&self.reads),
        })
    }
}

impl DiskReader for ScriptedReader {
    fn is_resident(&self, _: &File, offset: u64, _: u64) -> bool {
        self.kind == Kind::Moody && offset % 7 < 2
    }

    fn make_memory(&mut self, bytes: usize) -> bool {
        assert!(self.memory.is_empty(), "memory is asked for once");
        self.memory = vec![0xaa; bytes];
        true
    }

    fn start(
        &mut self,
        file: &Arc<File>,
        offset: u64,
        place: Range<usize>,
        way: Way,
    ) -> Option<ReadId> {
        assert!(place.end <= self.memory.len());
        for (_, _, other) in self.under_way.values() {
            assert!(
                place.end <= other.start || other.end <= place.start,
                "two reads to one place"
            );
        }
        if way == Way::Direct {
            assert!(offset.is_multiple_of(ALIGNMENT_BYTES as u64));
            assert!(place.start.is_multiple_of(ALIGNMENT_BYTES));
            assert!(place.len().is_multiple_of(ALIGNMENT_BYTES));
        }
        self.started += 1;
        if self.kind == Kind::Moody && self.started.is_multiple_of(5) {
            return None;
        }
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.under_way
            .insert(self.started, (Arc::clone(file), offset, place));
        Some(ReadId(self.started))
    }

    fn submit(&mut self) {}

    fn wait(&mut self, id: ReadId) -> io::Result<usize> {
        let (file, offset, place) = self.under_way.remove(&id.0).expect("waited for once");
        let target = &mut self.memory[place];
        match (self.kind, id.0 % 7) {
            (Kind::Broken, _) | (Kind::Moody, 1) => Err(io::ErrorKind::Other.into()),
            (Kind::Moody, 2) => {
                let half = target.len() / 2;
                file.read_at(&mut target[..half], offset)
            }
            _ => {
                let mut filled = 0;
                while filled < target.len() {
                    match file.read_at(&mut target[filled..], offset + filled as u64)? {
                        0 => break,
                        count => filled += count,
                    }
                }
                Ok(filled)
            }
        }
    }

    fn bytes(&self, place: Range<usize>) -> &[u8] {
        for (_, _, other) in self.under_way.values() {
            assert!(
                place.end <= other.start || other.end <= place.start,
                "looked at too early"
            );
        }
        &self.memory[place]
    }
}

impl Drop for ScriptedReader {
    fn drop(&mut self) {
        if !std::thread::panicking() && self.kind != Kind::Moody {
            assert!(self.under_way.is_empty(), "a read that nobody waited for");
        }
    }
}

impl Content {
    fn job(&self, threads: usize) -> HashJob<'_> {
        let (root, files, layout) = (&self.root, &self.files, &self.layout);
        HashJob {
            root,
            files,
            layout,
            threads: NonZeroUsize::new(threads),
            disk: &PageCache,
        }
    }

    fn pieces(&self) -> impl Iterator<Item = PieceIndex> + Clone + Send + use<> {
        (0..self.layout.piece_count()).map(PieceIndex)
    }

    /// Hashes all pieces, however the disk is read, and returns the digests, and the faults in
    /// words.
    fn hash(&self, threads: usize, lanes: usize) -> Outcome {
        let outcome = self.hash_on(&PageCache, threads, lanes);
        for kind in [Kind::Good, Kind::Moody, Kind::Broken] {
            let disk = ScriptedDisk::new(kind);
            assert_eq!(self.hash_on(&disk, threads, lanes), outcome, "{kind:?}");
        }
        outcome
    }

    fn hash_on(&self, disk: &dyn Disk, threads: usize, lanes: usize) -> Outcome {
        let results = Mutex::new((BTreeMap::new(), BTreeMap::new()));
        let on_piece = |piece: PieceIndex, result: PieceResult| {
            let mut results = lock(&results);
            match result {
                Ok(digest) => assert_eq!(results.0.insert(piece.0, digest), None),
                Err((file, fault)) => {
                    assert_eq!(
                        results.1.insert(piece.0, format!("{}: {fault}", file.0)),
                        None
                    );
                }
            }
            ControlFlow::Continue(())
        };
        let mut last = 0;
        let mut progress = |progress: &Progress<'_>| {
            assert_eq!(progress.bytes_total, self.bytes.len() as u64);
            last = progress.bytes_done;
            ControlFlow::Continue(())
        };
        hash_files_in_lanes(
            &HashJob {
                disk,
                ..self.job(threads)
            },
            self.pieces(),
            &on_piece,
            &mut progress,
            lanes,
        )
        .unwrap();
        assert_eq!(
            last,
            self.bytes.len() as u64,
            "the last report says that all is done"
        );
        results.into_inner().unwrap()
    }

    fn expected(&self) -> BTreeMap<u32, Sha1Digest> {
        let pieces = self.bytes.chunks(self.layout.piece_length() as usize);
        (0..)
            .zip(pieces)
            .map(|(index, piece)| (index, hash::sha1(piece)))
            .collect()
    }
}

#[test]
fn files_that_straddle_pieces_are_hashed_as_one_stream() {
    let lengths = [0, 1, 16384, 0, 16383, 5, 100_000, 3, 0, 300_001, 77, 0];
    let lengths: Vec<(u64, bool)> = lengths.map(|length| (length, false)).to_vec();
    for piece_length in [16 << 10, 64 << 10, 1 << 20] {
        let content = content(&lengths, piece_length);
        for (threads, lanes) in [(1, 1), (1, 3), (2, 1), (3, 16), (8, 2)] {
            let (digests, faults) = content.hash(threads, lanes);
            assert_eq!(
                digests,
                content.expected(),
                "{piece_length} {threads} {lanes}"
            );
            assert!(faults.is_empty());
        }
    }
}

#[test]
fn padding_is_hashed_as_zeros_and_read_from_nowhere() {
    let content = content(
        &[(10_000, false), (6384, true), (5000, false), (11384, true)],
        16 << 10,
    );
    assert_eq!(content.hash(2, 1).0, content.expected());
    assert_eq!(content.hash(1, 2).0, content.expected());
}

#[test]
fn one_byte_pieces_and_one_huge_piece_work() {
    let content_small = content(&[(100, false), (33, false)], 1);
    assert_eq!(content_small.hash(2, 4).0, content_small.expected());
    let content_large = content(&[(3_000_000, false)], 512 << 20);
    assert_eq!(content_large.hash(2, 4).0, content_large.expected());
}

#[test]
fn a_fault_fails_the_pieces_of_its_file_and_no_other() {
    let mut content = content(
        &[(40_000, false), (40_000, false), (40_000, false)],
        16 << 10,
    );
    content.files[1].stamp = None;
    for lanes in [1, 2, 16] {
        let (digests, faults) = content.hash(2, lanes);
        let failed: Vec<u32> = faults.keys().copied().collect();
        assert_eq!(
            failed,
            content
                .layout
                .pieces_of_file(FileIndex(1))
                .collect::<Vec<_>>()
        );
        let mut expected = content.expected();
        expected.retain(|piece, _| !failed.contains(piece));
        assert_eq!(digests, expected);
        assert!(
            faults
                .values()
                .all(|fault| fault == "1: there is no such file"),
            "{faults:?}"
        );
    }
}

#[test]
fn a_file_that_changed_since_its_stamp_is_a_fault() {
    let content = content(&[(40_000, false), (100, false)], 16 << 10);
    let path = content.dir.path().join("0");
    let mut bytes = fs::read(&path).unwrap();
    bytes[39_999] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let (digests, faults) = content.hash(1, 1);
    assert!(
        digests.is_empty(),
        "not even the pieces before the change are believed"
    );
    assert!(
        faults
            .values()
            .all(|fault| fault.starts_with("0: it changed while")),
        "{faults:?}"
    );
}

#[test]
fn a_file_replaced_by_a_link_or_truncated_is_a_fault() {
    let content = content(&[(40_000, false), (40_000, false)], 16 << 10);
    fs::rename(
        content.dir.path().join("0"),
        content.dir.path().join("moved"),
    )
    .unwrap();
    std::os::unix::fs::symlink("moved", content.dir.path().join("0")).unwrap();
    fs::File::options()
        .write(true)
        .open(content.dir.path().join("1"))
        .unwrap()
        .set_len(10)
        .unwrap();
    let (digests, faults) = content.hash(2, 2);
    assert!(digests.is_empty());
    assert!(faults[&0].starts_with("0: a symbolic link"), "{faults:?}");
    assert!(faults[&4].starts_with("1: it changed"), "{faults:?}");
}

#[test]
fn a_write_between_two_reads_of_a_file_is_noticed() {
    let content = content(&[(64 << 10, false)], 16 << 10);
    let path = content.dir.path().join("0");
    let results = Mutex::new(Vec::new());
    let on_piece = |piece: PieceIndex, result: PieceResult| {
        if piece.0 == 1 {
            fs::write(&path, vec![0; 64 << 10]).unwrap();
        }
        lock(&results).push((piece.0, result.is_ok()));
        ControlFlow::Continue(())
    };
    let mut progress = |_: &Progress<'_>| ControlFlow::Continue(());
    hash_files_in_lanes(
        &content.job(1),
        content.pieces(),
        &on_piece,
        &mut progress,
        1,
    )
    .unwrap();
    let results = results.into_inner().unwrap();
    assert_eq!(results, [(0, true), (1, true), (2, false), (3, false)]);
}

#[test]
fn what_is_not_in_memory_is_read_ahead_in_large_reads() {
    let content = content(
        &[(5 << 20, false), (100, false), (3_000_001, false)],
        1 << 20,
    );
    let disk = ScriptedDisk::new(Kind::Good);
    assert_eq!(content.hash_on(&disk, 1, 16).0, content.expected());
    // Eight pieces of at most 1 MiB, one of which lies in two files.
    assert_eq!(disk.reads.load(Ordering::Relaxed), 9);
}

#[test]
fn pieces_longer_than_what_is_read_ahead_are_read_stretch_by_stretch() {
    let length = 40 << 20;
    let content = content(&[(1000, false), (length, false)], 16 << 20);
    for (threads, lanes) in [(1, 16), (2, 1)] {
        assert_eq!(content.hash(threads, lanes).0, content.expected());
    }
}

#[test]
fn callbacks_stop_the_work() {
    let content = content(&[(1 << 20, false)], 16);
    let count = AtomicU32::new(0);
    let on_piece = |_: PieceIndex, _: PieceResult| {
        if count.fetch_add(1, Ordering::Relaxed) == 10 {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    };
    let mut progress = |_: &Progress<'_>| ControlFlow::Continue(());
    let result = hash_files(&content.job(2), content.pieces(), &on_piece, &mut progress);
    assert!(matches!(result, Err(HashError::Stopped)));
    assert!(count.into_inner() < 65_536, "the rest was not hashed");

    // The other threads wait for ever in their callback unless the report stops the work.
    let stopped = AtomicBool::new(false);
    let on_piece = |_: PieceIndex, _: PieceResult| {
        while !stopped.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
        ControlFlow::Continue(())
    };
    let mut progress = |_: &Progress<'_>| {
        stopped.store(true, Ordering::Relaxed);
        ControlFlow::Break(())
    };
    let result = hash_files(&content.job(2), content.pieces(), &on_piece, &mut progress);
    assert!(matches!(result, Err(HashError::Stopped)));
}

#[test]
fn a_subset_of_the_pieces_is_hashed_alone() {
    let content = content(&[(100_000, false)], 16 << 10);
    let results = Mutex::new(BTreeMap::new());
    let on_piece = |piece: PieceIndex, result: PieceResult| {
        lock(&results).insert(piece.0, result.unwrap());
        ControlFlow::Continue(())
    };
    let mut total = 0;
    let mut progress = |progress: &Progress<'_>| {
        total = progress.bytes_total;
        ControlFlow::Continue(())
    };
    let pieces = [5, 1, 6].map(PieceIndex);
    hash_files(
        &content.job(2),
        pieces.into_iter(),
        &on_piece,
        &mut progress,
    )
    .unwrap();
    let mut expected = content.expected();
    expected.retain(|piece, _| [1, 5, 6].contains(piece));
    assert_eq!(results.into_inner().unwrap(), expected);
    assert_eq!(total, 16384 + 16384 + (100_000 - 6 * 16384));
}
