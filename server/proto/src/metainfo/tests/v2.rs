//! Version 2 and hybrid torrents (BEP 52), with trees built by the book: from the blocks up.

use sha2::{Digest, Sha256};

use super::*;
use crate::limits::BLOCK_LENGTH;

const PIECE_LENGTH: u32 = 2 * BLOCK_LENGTH;

/// A file's bytes that differ in every block.
fn content(length: usize) -> Vec<u8> {
    (0..length)
        .map(|index| (index / 1000 + index) as u8)
        .collect()
}

fn pair(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    Sha256::new()
        .chain_update(left)
        .chain_update(right)
        .finalize()
        .into()
}

/// The layer of pieces and the root of a file, as BEP 52 describes them.
fn tree(content: &[u8]) -> (Vec<u8>, [u8; 32]) {
    let mut layer: Vec<[u8; 32]> = content
        .chunks(BLOCK_LENGTH as usize)
        .map(|block| Sha256::digest(block).into())
        .collect();
    let is_long = content.len() > PIECE_LENGTH as usize;
    let blocks = layer.len().next_power_of_two();
    layer.resize(blocks, [0; 32]);
    let mut pieces = Vec::new();
    let mut width = 1;
    while layer.len() > 1 {
        layer = layer.chunks(2).map(|two| pair(&two[0], &two[1])).collect();
        width *= 2;
        if width * BLOCK_LENGTH == PIECE_LENGTH && is_long {
            let count = content.len().div_ceil(PIECE_LENGTH as usize);
            pieces = layer[..count].concat();
        }
    }
    (pieces, layer[0])
}

struct V2File {
    path: Vec<&'static str>,
    content: Vec<u8>,
}

pub(super) struct Fixture {
    pub torrent: Vec<u8>,
    roots: Vec<Option<[u8; 32]>>,
}

fn files() -> Vec<V2File> {
    vec![
        V2File {
            path: vec!["a", "long"],
            content: content(5 * PIECE_LENGTH as usize + 77),
        },
        V2File {
            path: vec!["a", "short"],
            content: content(300),
        },
        V2File {
            path: vec!["b"],
            content: Vec::new(),
        },
        V2File {
            path: vec!["c"],
            content: content(PIECE_LENGTH as usize),
        },
    ]
}

/// Writes the tree; `files` are sorted and at most two deep.
fn write_tree(info: &mut Encoder, files: &[V2File]) {
    info.begin_dict();
    let mut open: Option<&str> = None;
    for file in files {
        let directory = (file.path.len() == 2).then(|| file.path[0]);
        if open != directory {
            if open.is_some() {
                info.end();
            }
            if let Some(name) = directory {
                info.key(name.as_bytes()).begin_dict();
            }
            open = directory;
        }
        let name = file.path[file.path.len() - 1];
        info.key(name.as_bytes()).begin_dict().key(b"").begin_dict();
        info.key(b"length").integer(file.content.len() as i64);
        if !file.content.is_empty() {
            info.key(b"pieces root").bytes(&tree(&file.content).1);
        }
        info.end().end();
    }
    if open.is_some() {
        info.end();
    }
    info.end();
}

/// The version 1 description of the same files, with pads where `pads`; its pieces.
fn write_v1_files(info: &mut Encoder, files: &[V2File], pads: bool) -> usize {
    let mut total = 0;
    info.begin_list();
    for (index, file) in files.iter().enumerate() {
        info.begin_dict()
            .key(b"length")
            .integer(file.content.len() as i64);
        info.key(b"path").begin_list();
        file.path
            .iter()
            .for_each(|name| _ = info.bytes(name.as_bytes()));
        info.end().end();
        total += file.content.len();
        let pad = total.next_multiple_of(PIECE_LENGTH as usize) - total;
        if pads && pad > 0 && index + 1 < files.len() {
            info.begin_dict()
                .key(b"attr")
                .bytes(b"p")
                .key(b"length")
                .integer(pad as i64);
            info.key(b"path")
                .begin_list()
                .bytes(b".pad")
                .bytes(pad.to_string().as_bytes());
            info.end().end();
            total += pad;
        }
    }
    info.end();
    total.div_ceil(PIECE_LENGTH as usize)
}

/// What is changed in a fixture to make it wrong.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    NoPads,
    NoLayers,
    LayerFlipped,
    LayerShort,
    LayerOdd,
    OtherName,
}

fn fixture(hybrid: bool, fault: Fault) -> Fixture {
    let files = files();
    let mut encoder = Encoder::new();
    encoder.begin_dict().key(b"info").begin_dict();
    encoder.key(b"file tree");
    write_tree(&mut encoder, &files);
    let mut pieces = 0;
    if hybrid {
        let mut v1_files = self::files();
        if fault == Fault::OtherName {
            v1_files[3].path = vec!["C"];
        }
        encoder.key(b"files");
        pieces = write_v1_files(&mut encoder, &v1_files, fault != Fault::NoPads);
    }
    encoder
        .key(b"meta version")
        .integer(2)
        .key(b"name")
        .bytes(b"v2");
    encoder
        .key(b"piece length")
        .unsigned(u64::from(PIECE_LENGTH));
    if hybrid {
        encoder.key(b"pieces").bytes(&vec![1; pieces * 20]);
    }
    encoder.end();
    if fault != Fault::NoLayers {
        let (mut layer, root) = tree(&files[0].content);
        match fault {
            Fault::LayerFlipped => layer[40] ^= 1,
            Fault::LayerShort => layer.truncate(layer.len() - 32),
            Fault::LayerOdd => layer.truncate(layer.len() - 1),
            _ => {}
        }
        encoder
            .key(b"piece layers")
            .begin_dict()
            .key(&root)
            .bytes(&layer)
            .end();
    }
    encoder.end();
    let root = |file: &V2File| (!file.content.is_empty()).then(|| tree(&file.content).1);
    Fixture {
        torrent: encoder.finish(),
        roots: files.iter().map(root).collect(),
    }
}

pub(super) fn hybrid() -> Fixture {
    fixture(true, Fault::None)
}

#[test]
fn a_version_2_torrent_is_read_and_its_trees_are_verified() {
    let fixture = fixture(false, Fault::None);
    let metainfo = parse(&fixture.torrent);
    assert_eq!(metainfo.info_hash_v1, None);
    let hash: [u8; 32] = Sha256::digest(&metainfo.info).into();
    assert_eq!(metainfo.info_hash_v2, Some(InfoHashV2(hash)));
    let paths: Vec<String> = metainfo
        .files
        .iter()
        .map(|file| file.path.join("/"))
        .collect();
    assert_eq!(paths, ["v2/a/long", "v2/a/short", "v2/b", "v2/c"]);
    let roots: Vec<_> = metainfo.files.iter().map(|file| file.pieces_root).collect();
    assert_eq!(roots, fixture.roots);
    let piece = u64::from(PIECE_LENGTH);
    let offsets: Vec<u64> = metainfo.files.iter().map(|file| file.offset).collect();
    assert_eq!(offsets, [0, 6 * piece, 7 * piece, 7 * piece]);
    assert_eq!(metainfo.piece_count, 8);
    assert_eq!(metainfo.piece_size(PieceIndex(5)), Some(77));
    assert_eq!(metainfo.piece_size(PieceIndex(6)), Some(300));
    assert_eq!(metainfo.piece_size(PieceIndex(7)), Some(PIECE_LENGTH));
    assert_eq!(metainfo.content_length(), 6 * piece + 377);
    assert_eq!(
        metainfo
            .piece_layer(&fixture.roots[0].unwrap())
            .unwrap()
            .len(),
        6
    );
    assert_eq!(metainfo.piece_layer(&fixture.roots[1].unwrap()), None);
    assert_eq!(metainfo.piece_hash(PieceIndex(0)), None);
    assert_eq!(metainfo.magnet().info_hash_v2, metainfo.info_hash_v2);
}

#[test]
fn the_info_alone_comes_without_layers() {
    let whole = parse(&hybrid().torrent);
    let metainfo = Metainfo::parse_info(&whole.info).unwrap();
    metainfo.check_invariants();
    assert_eq!(
        metainfo.piece_layer(&whole.files[0].pieces_root.unwrap()),
        None
    );
    assert_eq!(metainfo.files, whole.files);
    assert_eq!(metainfo.info_hash_v2, whole.info_hash_v2);
}

/// As one is that was made of what peers gave for a magnet link.
#[test]
fn a_hybrid_torrent_without_layers_has_all_but_them() {
    let whole = parse(&hybrid().torrent);
    let bare = fixture(true, Fault::NoLayers);
    let metainfo = parse(&bare.torrent);
    metainfo.check_invariants();
    assert_eq!(metainfo, Metainfo::parse_info(&whole.info).unwrap());
    assert_eq!(metainfo.piece_layer(&bare.roots[0].unwrap()), None);
    assert_eq!(metainfo.piece_hashes(), whole.piece_hashes());
}

#[test]
fn a_hybrid_torrent_has_both_hashes_and_the_pads_of_version_1() {
    let metainfo = parse(&hybrid().torrent);
    assert!(metainfo.info_hash_v1.is_some() && metainfo.info_hash_v2.is_some());
    let pads = metainfo.files.iter().filter(|file| file.pad).count();
    assert_eq!((metainfo.files.len(), pads), (6, 2));
    assert_eq!(metainfo.piece_count, 8);
    assert_eq!(metainfo.piece_hashes().len(), 160);
    assert!(metainfo.magnet().to_string().contains("urn:btmh:1220"));
}

#[test]
fn wrong_trees_and_mismatched_hybrids_are_refused() {
    let cases = [
        (false, Fault::NoLayers, "piece layers", Reason::Missing),
        (
            false,
            Fault::LayerFlipped,
            "piece layers[",
            Reason::PieceLayerWrong,
        ),
        (
            false,
            Fault::LayerShort,
            "piece layers[",
            Reason::PieceLayerWrong,
        ),
        (false, Fault::LayerOdd, "piece layers[", Reason::NotSha256),
        (
            true,
            Fault::LayerFlipped,
            "piece layers[",
            Reason::PieceLayerWrong,
        ),
        (true, Fault::NoPads, "info.files", Reason::HybridUnaligned),
        (true, Fault::OtherName, "info.files", Reason::HybridMismatch),
    ];
    for (hybrid, fault, field, reason) in cases {
        let error = refusal(&fixture(hybrid, fault).torrent);
        assert_eq!(error.reason, reason);
        assert!(error.field.starts_with(field), "{error}");
    }
}

/// A version 2 torrent of 10 bytes, with `tree` for its file tree.
fn with_tree(tree: &str, rest: &str) -> Vec<u8> {
    format!("d4:infod9:file tree{tree}12:meta versioni2e4:name1:n12:piece lengthi16384e{rest}ee")
        .into_bytes()
}

fn leaf(length: u64) -> String {
    format!(
        "d0:d6:lengthi{length}e11:pieces root32:{}ee",
        "r".repeat(32)
    )
}

#[test]
fn a_file_called_like_the_torrent_is_a_single_file() {
    let single = parse(&with_tree(&format!("d1:n{}e", leaf(10)), ""));
    assert!(!single.is_multi_file);
    assert_eq!(single.files[0].path, ["n"]);
    let directory = parse(&with_tree(&format!("d1:m{}e", leaf(10)), ""));
    assert!(directory.is_multi_file);
    assert_eq!(directory.files[0].path, ["n", "m"]);
    let both = parse(&with_tree(
        &format!("d1:n{}e", leaf(10)),
        "6:lengthi10e6:pieces20:aaaaaaaaaaaaaaaaaaaa",
    ));
    assert!(!both.is_multi_file && both.info_hash_v1.is_some());
}

#[test]
fn a_file_tree_that_is_wrong_is_refused() {
    let file = leaf(10);
    let cases: &[(String, &str, Reason)] = &[
        ("de".to_owned(), "info.file tree", Reason::Empty),
        ("d1:adee".to_owned(), "info.file tree", Reason::Empty),
        (
            format!("d0:{file}e"),
            "info.file tree",
            Reason::FileAndDirectory,
        ),
        (
            format!("d1:b{file}1:a{file}e"),
            "info.file tree",
            Reason::UnsortedKeys,
        ),
        (
            format!("d1:ad0:de1:b{file}ee"),
            "info.file tree[\"a\"]",
            Reason::FileAndDirectory,
        ),
        (
            "d1:ad0:deee".to_owned(),
            "info.file tree[\"a\"].length",
            Reason::Missing,
        ),
        (
            "d1:ad0:d6:lengthi5eeee".to_owned(),
            "info.file tree[\"a\"].pieces root",
            Reason::Missing,
        ),
        (
            "d1:ad0:d6:lengthi5e11:pieces root3:abceee".to_owned(),
            "info.file tree[\"a\"].pieces root",
            Reason::NotSha256,
        ),
        (
            leaf(10)
                .replace(&"r".repeat(32), &"\0".repeat(32))
                .replacen("d0:", "d1:ad0:", 1)
                + "e",
            "info.file tree[\"a\"].pieces root",
            Reason::NotSha256,
        ),
        (
            "d1:ad0:d4:attr1:p6:lengthi0eeee".to_owned(),
            "info.file tree[\"a\"].attr",
            Reason::PadInFileTree,
        ),
        (
            "d1:ad0:d6:lengthi-5eeee".to_owned(),
            "info.file tree[\"a\"].length",
            Reason::OutOfRange {
                min: 0,
                max: i64::MAX as u64,
            },
        ),
        (
            format!("d1:a{}e", leaf(i64::MAX as u64)),
            "info.file tree",
            Reason::TooManyPieces,
        ),
        (
            format!("d1:a{0}1:b{0}1:c{0}e", leaf((1 << 21) * 16_384 - 1)),
            "info.file tree",
            Reason::TooManyPieces,
        ),
    ];
    for (tree, field, reason) in cases {
        let error = refusal(&with_tree(tree, ""));
        assert_eq!(
            (error.field.as_str(), error.reason),
            (*field, *reason),
            "{tree}"
        );
    }
    let odd = String::from_utf8(with_tree(&format!("d1:a{file}e"), "")).unwrap();
    for length in ["16385", "8192", "1"] {
        let torrent = odd.replace("i16384e", &format!("i{length}e"));
        let error = refusal(torrent.as_bytes());
        assert_eq!(error.reason, Reason::PieceLengthNotPowerOfTwo);
    }
}

#[test]
fn a_tree_cannot_unfold_to_gigabytes() {
    // 90 shared directories of 3,000 bytes over 1,000 files: 300 KB of input, 270 MB of paths.
    let name = "d".repeat(3_000);
    let mut tree = format!("d{}:{name}", name.len()).repeat(90) + "d";
    for index in 0..1_000 {
        tree.push_str(&format!("8:{index:08}d0:d6:lengthi0eee"));
    }
    tree.push_str(&"e".repeat(91));
    let error = refusal(&with_tree(&tree, ""));
    assert_eq!(error.reason, Reason::PathsTooLong);
    assert!(error.to_string().len() < 600);
}

#[test]
fn files_that_share_a_root_share_one_verified_layer() {
    // Verifying the layer for each file again would hash 100 × 1,000 nodes.
    let layer: Vec<[u8; 32]> = (0..1_000u32)
        .map(|n| Sha256::digest(n.to_le_bytes()).into())
        .collect();
    let root = merkle::root_of_piece_layer(&layer, BLOCK_LENGTH);
    let mut encoder = Encoder::new();
    encoder
        .begin_dict()
        .key(b"info")
        .begin_dict()
        .key(b"file tree")
        .begin_dict();
    for index in 0..100u32 {
        encoder
            .key(format!("{index:04}").as_bytes())
            .begin_dict()
            .key(b"")
            .begin_dict();
        encoder
            .key(b"length")
            .unsigned(1_000 * u64::from(BLOCK_LENGTH));
        encoder.key(b"pieces root").bytes(&root).end().end();
    }
    encoder
        .end()
        .key(b"meta version")
        .integer(2)
        .key(b"name")
        .bytes(b"n");
    encoder
        .key(b"piece length")
        .unsigned(u64::from(BLOCK_LENGTH))
        .end();
    encoder
        .key(b"piece layers")
        .begin_dict()
        .key(&root)
        .bytes(&layer.concat())
        .end()
        .end();
    let metainfo = parse(&encoder.finish());
    assert_eq!(metainfo.piece_layer(&root).unwrap().len(), 1_000);
    assert_eq!(metainfo.piece_count, 100_000);
}
