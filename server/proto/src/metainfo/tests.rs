//! Fixtures as real programs write them, built here byte by byte where a builder would hide the
//! point.

mod hostile;
mod paths;
mod rewriting;
mod v2;

use super::*;
use crate::bencode::Encoder;

/// A single file of 40,000 bytes, with every key that a torrent usually has.
fn single_builder() -> Builder {
    Builder {
        name: b"disk.iso".to_vec(),
        piece_length: 16_384,
        pieces: (0u8..60).collect(),
        length: 40_000,
        trackers: vec![
            vec!["http://a.example/announce".to_owned()],
            vec![
                "udp://b.example:6969".to_owned(),
                "udp://c.example:6969".to_owned(),
            ],
        ],
        web_seeds: vec!["http://w.example/".to_owned()],
        private: true,
        source: Some("TRK".to_owned()),
        comment: Some("for people".to_owned()),
        created_by: Some("Seedring".to_owned()),
        creation_date: Some(1_700_000_000),
        ..Builder::default()
    }
}

fn multi_builder() -> Builder {
    let file = |path: &[&str], length: u64, attributes: &str| BuilderFile {
        path: path.iter().map(|name| name.as_bytes().to_vec()).collect(),
        length,
        attributes: attributes.to_owned(),
    };
    Builder {
        name: "Größe".as_bytes().to_vec(),
        piece_length: 100,
        pieces: vec![7; 60],
        files: vec![
            file(&["a", "run.sh"], 130, "x"),
            file(&[".pad", "70"], 70, "p"),
            file(&["empty"], 0, ""),
            file(&["ünï.txt"], 50, "h"),
        ],
        ..Builder::default()
    }
}

/// A torrent around an `info` whose entries are written by `entries`.
fn torrent_with_info(entries: impl FnOnce(&mut Encoder)) -> Vec<u8> {
    let mut encoder = Encoder::new();
    encoder.begin_dict().key(b"info").begin_dict();
    entries(&mut encoder);
    encoder.end().end();
    encoder.finish()
}

/// A version 1 directory `root` of files of one byte each (raw paths), and one piece.
fn torrent_with_paths(paths: &[&[&[u8]]]) -> Vec<u8> {
    let files: Vec<BuilderFile> = paths
        .iter()
        .map(|path| BuilderFile {
            path: path.iter().map(|name| name.to_vec()).collect(),
            length: 1,
            attributes: String::new(),
        })
        .collect();
    let name = b"root".to_vec();
    Builder {
        name,
        piece_length: 1 << 20,
        pieces: vec![0; 20],
        files,
        ..Builder::default()
    }
    .encode()
}

fn parse(torrent: &[u8]) -> Metainfo {
    let metainfo = Metainfo::parse(torrent).unwrap();
    metainfo.check_invariants();
    metainfo
}

fn refusal(torrent: &[u8]) -> MetainfoError {
    Metainfo::parse(torrent).expect_err("must be refused")
}

/// The offset of the first occurrence of `needle`.
fn find(haystack: &[u8], needle: &[u8]) -> usize {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
        .unwrap()
}

#[test]
fn a_single_file_torrent_reads_back_as_written() {
    let builder = single_builder();
    let torrent = builder.encode();
    let metainfo = parse(&torrent);
    assert_eq!(metainfo.name, "disk.iso");
    assert_eq!((metainfo.piece_length, metainfo.piece_count), (16_384, 3));
    assert_eq!(
        (metainfo.total_length, metainfo.content_length()),
        (40_000, 40_000)
    );
    assert!(!metainfo.is_multi_file && metainfo.private);
    assert_eq!(metainfo.files.len(), 1);
    assert_eq!(metainfo.files[0].path, ["disk.iso"]);
    assert_eq!(metainfo.trackers, builder.trackers);
    assert_eq!(metainfo.web_seeds, builder.web_seeds);
    assert_eq!(metainfo.source.as_deref(), Some("TRK"));
    assert_eq!(metainfo.comment.as_deref(), Some("for people"));
    assert_eq!(metainfo.created_by.as_deref(), Some("Seedring"));
    assert_eq!(metainfo.creation_date, Some(1_700_000_000));
    assert_eq!(metainfo.encoding.as_deref(), Some("UTF-8"));
    assert_eq!(metainfo.piece_hashes(), builder.pieces);
    assert_eq!(
        &metainfo.piece_hash(PieceIndex(2)).unwrap()[..],
        &builder.pieces[40..]
    );
    assert_eq!(metainfo.piece_size(PieceIndex(0)), Some(16_384));
    assert_eq!(
        metainfo.piece_size(PieceIndex(2)),
        Some(40_000 - 2 * 16_384)
    );
    assert_eq!(metainfo.info_hash_v2, None);
    assert_eq!(metainfo.literal_path(&metainfo.files[0]), None);
}

#[test]
fn the_info_hash_is_that_of_the_raw_span() {
    // Computed by `python3 -c "import hashlib; …"` over the same bytes.
    let info = b"d6:lengthi1e4:name1:a12:piece lengthi1e6:pieces20:aaaaaaaaaaaaaaaaaaaae";
    let torrent = [b"d4:info".as_slice(), info, b"e"].concat();
    let metainfo = parse(&torrent);
    assert_eq!(&metainfo.info[..], info);
    assert_eq!(
        metainfo.info_hash_v1.unwrap().to_string(),
        "6c75d6c2b65879af45f5faa2f1fac2fa0a570384"
    );
    // Unknown keys and unsorted ones are part of it.
    let odd = b"d4:name1:a6:lengthi1e12:piece lengthi1e6:pieces20:aaaaaaaaaaaaaaaaaaaa1:zlee";
    let metainfo = parse(&[b"d4:info".as_slice(), odd, b"e"].concat());
    assert_eq!(&metainfo.info[..], odd);
    assert_eq!(
        metainfo.info_hash_v1.unwrap().to_string(),
        "5dc643634d424b53d1ba6d926e0c6d7f78ec110a"
    );
    assert_eq!(Metainfo::parse_info(odd).unwrap(), metainfo);
}

#[test]
fn a_directory_reads_back_with_offsets_attributes_and_pads() {
    let metainfo = parse(&multi_builder().encode());
    let paths: Vec<String> = metainfo
        .files
        .iter()
        .map(|file| file.path.join("/"))
        .collect();
    assert_eq!(
        paths,
        [
            "Größe/a/run.sh",
            "Größe/.pad/70",
            "Größe/empty",
            "Größe/ünï.txt"
        ]
    );
    let offsets: Vec<u64> = metainfo.files.iter().map(|file| file.offset).collect();
    assert_eq!(offsets, [0, 130, 200, 200]);
    assert!(metainfo.is_multi_file && !metainfo.private);
    assert!(metainfo.files[0].executable && metainfo.files[1].pad && metainfo.files[3].hidden);
    assert_eq!(
        (metainfo.total_length, metainfo.content_length()),
        (250, 180)
    );
    assert_eq!(metainfo.piece_size(PieceIndex(2)), Some(50));
    assert_eq!(metainfo.trackers, Vec::<Vec<String>>::new());
}

#[test]
fn a_torrent_of_empty_files_has_no_pieces() {
    let builder = Builder {
        name: b"e".to_vec(),
        piece_length: 16_384,
        ..Builder::default()
    };
    let metainfo = parse(&builder.encode());
    assert_eq!((metainfo.piece_count, metainfo.total_length), (0, 0));
}

#[test]
fn odd_optional_fields_are_tolerated() {
    let info = b"d6:lengthi1e4:name1:a12:piece lengthi1e6:pieces20:aaaaaaaaaaaaaaaaaaaae";
    let with = |outer: &str| {
        let torrent = [
            b"d".as_slice(),
            outer.as_bytes(),
            b"4:info",
            info,
            b"e trailing",
        ]
        .concat();
        parse(&torrent)
    };
    let none: [&[&str]; 0] = [];
    // Wrong kinds read as absent.
    let odd =
        with("8:announcei1e13:announce-list3:abc7:commentle13:creation date3:now8:url-listi0e");
    assert_eq!(odd.trackers, none);
    assert_eq!(
        (odd.comment, odd.creation_date, odd.web_seeds),
        (None, None, vec![])
    );
    // A flat announce-list, empty tiers, duplicates, blanks, control characters, other kinds.
    let tiers = with("13:announce-listl1:alelel1:b1:bi1ee0:l3: c 3:x\nyel1:aee");
    assert_eq!(tiers.trackers, [&["a"][..], &["b"], &["c"]]);
    // An unusable list falls back to announce (BEP 12 prefers a usable one).
    assert_eq!(
        with("8:announce1:z13:announce-listll0:ee").trackers,
        [["z"]]
    );
    assert_eq!(
        with("8:announce1:z13:announce-listll1:aee").trackers,
        [["a"]]
    );
    assert_eq!(with("8:announcel1:y1:ze").trackers, [["y"]]);
    // Web seeds as one string or a list.
    assert_eq!(with("8:url-list1:u").web_seeds, ["u"]);
    assert_eq!(with("8:url-listl1:u0:1:ve").web_seeds, ["u", "v"]);
    assert_eq!(with("8:url-list0:").web_seeds, Vec::<String>::new());
    assert_eq!(with("9:httpseedsl1:he").http_seeds, ["h"]);
    let nodes = with("5:nodesll1:hi7eel1:hi0eel1:hi65536eel1:heli1ei2eee");
    assert_eq!(nodes.nodes, [("h".to_owned(), 7)]);
    // The UTF-8 spelling wins, and text that is not UTF-8 is shown anyhow.
    assert_eq!(
        with("7:comment1:x13:comment.utf-81:y").comment.as_deref(),
        Some("y")
    );
    assert_eq!(with("7:comment1:\u{7f}").comment.as_deref(), Some("\u{7f}"));
}

#[test]
fn private_is_any_number_but_zero() {
    for (value, private) in [("i1e", true), ("i0e", false), ("i2e", true), ("1:1", false)] {
        let torrent =
            format!("d4:infod6:lengthi0e4:name1:a12:piece lengthi1e6:pieces0:7:private{value}ee");
        assert_eq!(parse(torrent.as_bytes()).private, private, "{value}");
    }
}

#[test]
fn md5sums_are_read_where_they_are_hex() {
    let with = |md5sum: &str| {
        let torrent = torrent_with_info(|info| {
            info.key(b"length")
                .integer(0)
                .key(b"md5sum")
                .bytes(md5sum.as_bytes());
            info.key(b"name")
                .bytes(b"n")
                .key(b"piece length")
                .integer(1)
                .key(b"pieces")
                .bytes(b"");
        });
        parse(&torrent).files[0].md5sum
    };
    assert_eq!(
        with("000102030405060708090a0b0c0d0eFF").unwrap()[10..],
        [10, 11, 12, 13, 14, 255]
    );
    assert_eq!(with("000102030405060708090a0b0c0d0exx"), None);
    assert_eq!(with("00"), None);
}

/// A directory of one file, whose entries are written by `file`, and no pieces.
fn torrent_with_file(file: impl FnOnce(&mut Encoder)) -> Vec<u8> {
    torrent_with_info(|info| {
        info.key(b"files").begin_list().begin_dict();
        file(info);
        info.end().end();
        info.key(b"name")
            .bytes(b"n")
            .key(b"piece length")
            .integer(1)
            .key(b"pieces")
            .bytes(b"");
    })
}

#[test]
fn links_are_kept_inside_the_root_and_have_no_length() {
    for length in [0, 5, -5] {
        let torrent = torrent_with_file(|file| {
            file.key(b"attr").bytes(b"l").key(b"length").integer(length);
            file.key(b"path").begin_list().bytes(b"link").end();
            file.key(b"symlink path")
                .begin_list()
                .bytes(b"..")
                .bytes(b"/etc")
                .end();
        });
        let link = &parse(&torrent).files[0];
        assert_eq!(
            link.symlink_target.as_deref(),
            Some(&["__".into(), "_etc".into()][..])
        );
        assert_eq!(link.length, 0);
    }
    let torrent = torrent_with_file(|file| {
        file.key(b"attr")
            .bytes(b"l")
            .key(b"path")
            .begin_list()
            .bytes(b"link")
            .end();
    });
    assert_eq!(parse(&torrent).files[0].symlink_target, None);
}

#[test]
fn a_pad_file_needs_no_path() {
    let torrent = torrent_with_file(|file| {
        file.key(b"attr").bytes(b"p").key(b"length").integer(0);
    });
    let pad = &parse(&torrent).files[0];
    assert!(pad.pad);
    assert_eq!(pad.path, ["n", "_"]);
}

#[test]
fn the_magnet_link_names_the_torrent() {
    let metainfo = parse(&single_builder().encode());
    let magnet = metainfo.magnet();
    assert_eq!(Magnet::parse(&magnet.to_string()).unwrap(), magnet);
    assert_eq!(magnet.info_hash_v1, metainfo.info_hash_v1);
    assert_eq!(magnet.trackers.len(), 3);
    assert_eq!(magnet.length, Some(40_000));
}

#[test]
fn a_torrent_of_our_own_may_have_a_million_files() {
    // 9 tokens for a file two directories deep: d, length, its number, path, l, 2 names, e, e.
    const { assert!(crate::limits::BENCODE_TOKENS_OWN_MAX > 9 * 1_000_000) };
    let torrent = multi_builder().encode();
    let few = Limits {
        tokens_max: 40,
        ..Limits::METAINFO
    };
    let error = Metainfo::parse_within(&torrent, &few).unwrap_err();
    assert!(matches!(
        error.reason,
        Reason::Bencode(crate::bencode::ErrorKind::TooManyTokens(40))
    ));
    assert!(Metainfo::parse_within(&torrent, &Limits::METAINFO_OWN).is_ok());
}
