//! Metainfo: torrents, `info` dictionaries alone, and what we write ourselves.
//!
//! The first byte chooses. Raw torrents seldom survive mutation, so two modes build a well-formed
//! torrent around hostile names and sizes. Checked beyond "no panic": `Metainfo::check_invariants`
//! (lengths add up, every path is inside the root and no two files share one), hashes, and round
//! trips.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use proto::bencode::Encoder;
use proto::magnet::Magnet;
use proto::metainfo::{Builder, BuilderFile, Metainfo, MetainfoError, with_trackers};

fuzz_target!(|data: &[u8]| {
    let Some((&kind, input)) = data.split_first() else {
        return;
    };
    match kind % 4 {
        0 => torrent(input),
        1 => drop(checked(Metainfo::parse_info(input), input.len())),
        2 => version_1(input),
        _ => version_2(input),
    }
});

/// What was parsed, with its promises checked; an error must be fit for a log.
fn checked(result: Result<Metainfo, MetainfoError>, input_bytes: usize) -> Option<Metainfo> {
    match result {
        Ok(metainfo) => {
            metainfo.check_invariants();
            Some(metainfo)
        }
        Err(error) => {
            assert!(error.offset <= input_bytes);
            let text = error.to_string();
            assert!(
                text.len() < 2_000 && !text.chars().any(char::is_control),
                "{text}"
            );
            None
        }
    }
}

fn torrent(input: &[u8]) {
    let tiers = vec![
        vec!["http://tracker.example/a".to_owned()],
        vec!["udp://b".to_owned()],
    ];
    let rewritten = with_trackers(input, &tiers);
    let Some(metainfo) = checked(Metainfo::parse(input), input.len()) else {
        return;
    };
    let magnet = metainfo.magnet();
    assert_eq!(Magnet::parse(&magnet.to_string()), Ok(magnet));

    let rewritten = rewritten.expect("a valid torrent is a dictionary");
    let mut again = Metainfo::parse(&rewritten).expect("only the trackers changed");
    assert_eq!(again.trackers, tiers);
    again.trackers.clone_from(&metainfo.trackers);
    assert_eq!(again, metainfo);

    let alone = Metainfo::parse_info(&metainfo.info).expect("info is valid by itself");
    assert_eq!(alone.info_hash_v1, metainfo.info_hash_v1);
    assert_eq!(alone.info_hash_v2, metainfo.info_hash_v2);
    assert_eq!(alone.files, metainfo.files);
}

/// Files as lines: a byte of length, a byte of attributes, then a path with `/` between the names.
fn files(input: &[u8]) -> Vec<BuilderFile> {
    input
        .split(|&byte| byte == b'\n')
        .map(|line| {
            let (length, attributes, path) = match line {
                [length, attributes, path @ ..] => (*length, *attributes, path),
                _ => (0, b'-', line),
            };
            BuilderFile {
                path: path
                    .split(|&byte| byte == b'/')
                    .map(<[u8]>::to_vec)
                    .collect(),
                length: length.into(),
                attributes: match attributes {
                    b'p' => "p".to_owned(),
                    b'x' => "hx".to_owned(),
                    _ => String::new(),
                },
            }
        })
        .collect()
}

fn version_1(input: &[u8]) {
    let Some((&[piece_length, options], lines)) = input.split_first_chunk() else {
        return;
    };
    let (name, lines) = lines.split_at(lines.len().min(usize::from(options) % 32));
    let is_single = options & 32 != 0;
    let files = if is_single { Vec::new() } else { files(lines) };
    let length = u64::from(options) << (piece_length % 8);
    let total = if is_single {
        length
    } else {
        files.iter().map(|file| file.length).sum()
    };
    let piece_length = u32::from(piece_length) + 1;
    let builder = Builder {
        name: name.to_vec(),
        piece_length,
        pieces: vec![options; total.div_ceil(piece_length.into()) as usize * 20],
        length,
        files,
        private: options & 64 != 0,
        comment: Some(String::from_utf8_lossy(name).into_owned()),
        ..Builder::default()
    };
    let torrent = builder.encode();
    let Some(metainfo) = checked(Metainfo::parse(&torrent), torrent.len()) else {
        // The one thing that lines can do wrong is to be too deep.
        assert!(builder.files.iter().any(|file| file.path.len() > 100));
        return;
    };
    assert_eq!(metainfo.total_length, total);
    assert_eq!(metainfo.piece_hashes(), builder.pieces);
    assert_eq!(metainfo.private, builder.private);
    assert_eq!(metainfo.comment, builder.comment);
    for (file, built) in metainfo.files.iter().zip(&builder.files) {
        assert_eq!(file.length, built.length);
        assert!(file.pad || !built.attributes.contains('p'));
        // A path is either as it was spelled, or the spelling is kept.
        let as_spelled = file.path[1..]
            .iter()
            .map(|name| name.as_bytes())
            .eq(built.path.iter().map(Vec::as_slice));
        assert_eq!(file.raw_path.as_ref(), (!as_spelled).then_some(&built.path));
    }
}

/// A directory of a version 2 file tree; a name maps to a file's length or to a directory.
#[derive(Default)]
struct Directory<'input>(BTreeMap<&'input [u8], Node<'input>>);

enum Node<'input> {
    File(u64),
    Directory(Directory<'input>),
}

impl<'input> Directory<'input> {
    fn insert(&mut self, path: &'input [u8], length: u64) {
        match path.iter().position(|&byte| byte == b'/') {
            None => _ = self.0.entry(path).or_insert(Node::File(length)),
            Some(at) => {
                let empty = || Node::Directory(Self::default());
                if let Node::Directory(child) = self.0.entry(&path[..at]).or_insert_with(empty) {
                    child.insert(&path[at + 1..], length);
                }
            }
        }
    }

    fn write(&self, encoder: &mut Encoder) {
        encoder.begin_dict();
        for (name, node) in &self.0 {
            encoder.key(name);
            match node {
                Node::Directory(child) => child.write(encoder),
                Node::File(length) => {
                    encoder
                        .begin_dict()
                        .key(b"")
                        .begin_dict()
                        .key(b"length")
                        .unsigned(*length);
                    if *length > 0 {
                        encoder.key(b"pieces root").bytes(&[7; 32]);
                    }
                    encoder.end().end();
                }
            }
        }
        encoder.end();
    }
}

fn version_2(input: &[u8]) {
    let Some((&options, lines)) = input.split_first() else {
        return;
    };
    let (name, lines) = lines.split_at(lines.len().min(usize::from(options) % 32));
    let mut tree = Directory::default();
    for line in lines.split(|&byte| byte == b'\n') {
        let (length, path) = match line {
            [length, path @ ..] => (u64::from(*length) << (length % 16), path),
            [] => (0, line),
        };
        // Deeper trees are refused by the bencode reader, and would recurse here.
        if path.iter().filter(|&&byte| byte == b'/').count() < 90 {
            tree.insert(path, length);
        }
    }
    let mut encoder = Encoder::new();
    encoder.begin_dict().key(b"file tree");
    tree.write(&mut encoder);
    encoder
        .key(b"meta version")
        .integer(2)
        .key(b"name")
        .bytes(name);
    encoder
        .key(b"piece length")
        .unsigned(16_384 << (options >> 6))
        .end();
    let info = encoder.finish();
    if let Some(metainfo) = checked(Metainfo::parse_info(&info), info.len()) {
        assert_eq!(&metainfo.info[..], info);
        assert!(metainfo.info_hash_v1.is_none() && metainfo.info_hash_v2.is_some());
    }
}
