//! Torrents that must be refused, each with the field and the offset that are wrong.

use super::*;
use crate::bencode::{ErrorKind, Kind};
use crate::limits::{PATH_DEPTH_MAX, PIECE_LENGTH_MAX, PIECES_MAX};

/// A single file torrent in text, with one part replaced.
fn single(from: &str, to: &str) -> Vec<u8> {
    let torrent = "d4:infod6:lengthi1e4:name1:a12:piece lengthi1e6:pieces20:aaaaaaaaaaaaaaaaaaaaee";
    assert!(torrent.contains(from));
    torrent.replacen(from, to, 1).into_bytes()
}

/// A directory of two files in text, with one part replaced.
fn multi(from: &str, to: &str) -> Vec<u8> {
    let torrent = "d4:infod5:filesld6:lengthi1e4:pathl1:aeed6:lengthi2e4:pathl1:b1:ceee4:name1:n\
                   12:piece lengthi9e6:pieces20:aaaaaaaaaaaaaaaaaaaaee";
    assert!(torrent.contains(from));
    torrent.replacen(from, to, 1).into_bytes()
}

#[test]
fn the_unchanged_samples_are_valid() {
    parse(&single("", ""));
    parse(&multi("", ""));
}

#[test]
fn a_single_file_torrent_that_is_wrong_is_refused() {
    let kind = |found, expected| Reason::WrongKind { found, expected };
    let piece_length = Reason::OutOfRange {
        min: 1,
        max: u64::from(PIECE_LENGTH_MAX),
    };
    let length = Reason::OutOfRange {
        min: 0,
        max: i64::MAX as u64,
    };
    // Replaced, by, field, what the offset points to in the result, reason.
    let cases: &[(&str, &str, &str, &str, Reason)] = &[
        ("d4:info", "d4:inf_", "info", "d4:inf_", Reason::Missing),
        (
            "6:length",
            "6:lengtx",
            "info.length or info.files",
            "d6:lengtx",
            Reason::Missing,
        ),
        (
            "4:name",
            "4:nama",
            "info.name",
            "d6:length",
            Reason::Missing,
        ),
        (
            "piece length",
            "piece lengtx",
            "info.piece length",
            "d6:length",
            Reason::Missing,
        ),
        (
            "6:pieces",
            "6:piecex",
            "info.pieces",
            "d6:length",
            Reason::Missing,
        ),
        (
            "4:name1:a",
            "4:namei7e",
            "info.name",
            "i7e",
            kind(Kind::Integer, Kind::Bytes),
        ),
        (
            "i1e4:name",
            "1:x4:name",
            "info.length",
            "1:x",
            kind(Kind::Bytes, Kind::Integer),
        ),
        ("i1e4:name", "i-1e4:name", "info.length", "i-1e", length),
        (
            "i1e4:name",
            "i9223372036854775808e4:name",
            "info.length",
            "i92",
            length,
        ),
        (
            "i1e4:name",
            "i99999999999999999999999e4:name",
            "info.length",
            "i99",
            length,
        ),
        (
            "i1e4:name",
            "i9223372036854775807e4:name",
            "info: the sum of all lengths",
            "i92",
            Reason::TooManyPieces,
        ),
        (
            "i1e6:pieces",
            "i0e6:pieces",
            "info.piece length",
            "i0e",
            piece_length,
        ),
        (
            "i1e6:pieces",
            "i-1e6:pieces",
            "info.piece length",
            "i-1e",
            piece_length,
        ),
        (
            "i1e6:pieces",
            "i536870913e6:pieces",
            "info.piece length",
            "i536870913e",
            piece_length,
        ),
        (
            "i1e6:pieces",
            "le6:pieces",
            "info.piece length",
            "le6:p",
            kind(Kind::List, Kind::Integer),
        ),
        (
            "20:aaaaaaaaaaaaaaaaaaaa",
            "i5e",
            "info.pieces",
            "i5e",
            kind(Kind::Integer, Kind::Bytes),
        ),
        (
            "20:a",
            "19:",
            "info.pieces",
            "19:",
            Reason::PiecesNotHashes(19),
        ),
        (
            "20:aaaaaaaaaaaaaaaaaaaa",
            "0:",
            "info.pieces",
            "0:",
            Reason::HashCount {
                found: 0,
                expected: 1,
            },
        ),
        (
            "i1e4:name",
            "i2e4:name",
            "info.pieces",
            "20:",
            Reason::HashCount {
                found: 1,
                expected: 2,
            },
        ),
        (
            "i1e4:name",
            "i0e4:name",
            "info.pieces",
            "20:",
            Reason::HashCount {
                found: 1,
                expected: 0,
            },
        ),
        (
            "4:name",
            "5:filesle4:name",
            "info.files",
            "le4:",
            Reason::LengthAndFiles,
        ),
        (
            "i1e4:name",
            "i1e6:lengthi1e4:name",
            "info: key \"length\"",
            "6:lengthi1e4",
            Reason::DuplicateKey,
        ),
        (
            "4:name1:a",
            "1:xld1:ai0e1:ai0eee4:name1:a",
            "info: key \"a\"",
            "1:ai0eee",
            Reason::DuplicateKey,
        ),
        (
            "4:infod",
            "4:infode4:infod",
            "info",
            "4:infod6",
            Reason::DuplicateKey,
        ),
        (
            "6:length",
            "12:meta versioni3e6:length",
            "info.meta version",
            "i3e",
            Reason::UnsupportedVersion,
        ),
        (
            "6:length",
            "12:meta versioni0e6:length",
            "info.meta version",
            "i0e",
            Reason::UnsupportedVersion,
        ),
    ];
    for (from, to, field, pointed, reason) in cases {
        let torrent = single(from, to);
        let error = refusal(&torrent);
        assert_eq!(
            (error.field.as_str(), error.reason),
            (*field, *reason),
            "{from} -> {to}"
        );
        assert_eq!(
            error.offset,
            find(&torrent, pointed.as_bytes()),
            "{from} -> {to}"
        );
    }
}

#[test]
fn a_directory_that_is_wrong_is_refused() {
    let kind = |found, expected| Reason::WrongKind { found, expected };
    let length = Reason::OutOfRange {
        min: 0,
        max: i64::MAX as u64,
    };
    let cases: &[(&str, &str, &str, &str, Reason)] = &[
        (
            "ld6:lengthi1e4:pathl1:aeed6:lengthi2e4:pathl1:b1:ceee",
            "le",
            "info.files",
            "le4:name",
            Reason::Empty,
        ),
        (
            "d6:lengthi1e4:pathl1:aee",
            "i7e",
            "info.files[0]",
            "i7e",
            kind(Kind::Integer, Kind::Dict),
        ),
        (
            "d6:lengthi2e",
            "d6:lengtxi2e",
            "info.files[1].length",
            "d6:lengtx",
            Reason::Missing,
        ),
        ("i2e", "i-2e", "info.files[1].length", "i-2e", length),
        (
            "i2e",
            "1:2",
            "info.files[1].length",
            "1:24",
            kind(Kind::Bytes, Kind::Integer),
        ),
        (
            "i2e",
            "i9223372036854775807e",
            "info: the sum of all lengths",
            "ld6",
            Reason::TooManyPieces,
        ),
        (
            "4:pathl1:b1:ce",
            "4:patxl1:b1:ce",
            "info.files[1].path",
            "d6:lengthi2e",
            Reason::Missing,
        ),
        ("l1:b1:ce", "le", "info.files[1].path", "lee", Reason::Empty),
        (
            "l1:b1:ce",
            "1:b",
            "info.files[1].path",
            "1:be",
            kind(Kind::Bytes, Kind::List),
        ),
        (
            "1:b1:c",
            "1:bi5e",
            "info.files[1].path[1]",
            "i5e",
            kind(Kind::Integer, Kind::Bytes),
        ),
        (
            "5:filesl",
            "5:filesi0e1:zl",
            "info.files",
            "i0e",
            kind(Kind::Integer, Kind::List),
        ),
    ];
    for (from, to, field, pointed, reason) in cases {
        let torrent = multi(from, to);
        let error = refusal(&torrent);
        assert_eq!(
            (error.field.as_str(), error.reason),
            (*field, *reason),
            "{from} -> {to}"
        );
        assert_eq!(
            error.offset,
            find(&torrent, pointed.as_bytes()),
            "{from} -> {to}"
        );
    }
}

#[test]
fn errors_read_well() {
    let error = refusal(&multi("i2e", "i-2e"));
    assert_eq!(
        error.to_string(),
        "info.files[1].length at byte 49: is not between 0 and 9223372036854775807"
    );
    let error = refusal(&single("i1e4:name", "i01e4:name"));
    assert_eq!(error.offset, 16);
    assert!(
        error
            .to_string()
            .starts_with("bencode at byte 16: the integer is not canonical")
    );
    assert_eq!(
        refusal(b"le").to_string(),
        "torrent at byte 0: is a list, expected a dictionary"
    );
    assert_eq!(
        refusal(b"").reason,
        Reason::Bencode(ErrorKind::UnexpectedEnd)
    );
}

#[test]
fn a_strangers_name_in_an_error_is_escaped_and_cut() {
    let key = format!("\u{1b}{}", "k".repeat(5_000));
    let twice = format!("1:x d{0}:{key}i0e{0}:{key}i0ee4:name", key.len()).replace("x d", "xd");
    let error = refusal(&single("4:name", &twice));
    assert_eq!(error.reason, Reason::DuplicateKey);
    let text = error.to_string();
    assert!(
        text.len() < 250 && text.contains("\\x1bkkk") && !text.contains('\u{1b}'),
        "{text}"
    );
}

#[test]
fn sums_that_overflow_are_refused_before_anything_is_allocated() {
    let most = i64::MAX.to_string();
    let torrent = multi("i1e", &format!("i{most}e"));
    let torrent = String::from_utf8(torrent)
        .unwrap()
        .replace("i2e", &format!("i{most}e"));
    assert_eq!(refusal(torrent.as_bytes()).reason, Reason::TooManyPieces);
    let three = torrent.replace(
        "d6:length",
        &format!("d6:lengthi{most}e4:pathl1:xeed6:length"),
    );
    assert_eq!(refusal(three.as_bytes()).reason, Reason::TooManyPieces);
}

#[test]
fn the_limit_of_pieces_is_exact() {
    let with = |length: u32| refusal(&single("i1e4:name", &format!("i{length}e4:name"))).reason;
    assert_eq!(
        with(PIECES_MAX),
        Reason::HashCount {
            found: 1,
            expected: u64::from(PIECES_MAX)
        }
    );
    assert_eq!(with(PIECES_MAX + 1), Reason::TooManyPieces);
}

#[test]
fn the_limit_of_the_piece_length_is_exact() {
    let length = format!("i{PIECE_LENGTH_MAX}e6:pieces");
    assert_eq!(
        parse(&single("i1e6:pieces", &length)).piece_length,
        PIECE_LENGTH_MAX
    );
}

#[test]
fn the_limit_of_the_path_depth_is_exact() {
    let deep: Vec<&[u8]> = vec![b"d"; PATH_DEPTH_MAX];
    let metainfo = parse(&torrent_with_paths(&[&deep]));
    assert_eq!(metainfo.files[0].path.len(), PATH_DEPTH_MAX + 1);
    let deeper: Vec<&[u8]> = vec![b"d"; PATH_DEPTH_MAX + 1];
    let error = refusal(&torrent_with_paths(&[&deeper]));
    assert_eq!(
        (error.field.as_str(), error.reason),
        ("info.files[0].path", Reason::PathTooDeep)
    );
}

#[test]
fn every_truncation_is_refused_and_every_bit_flip_is_survived() {
    for sample in [
        single_builder().encode(),
        multi_builder().encode(),
        super::v2::hybrid().torrent,
    ] {
        let original = parse(&sample);
        for length in 0..sample.len() {
            let error = refusal(&sample[..length]);
            assert!(error.offset <= length);
        }
        for index in 0..sample.len() {
            for bit in 0..8 {
                let mut flipped = sample.clone();
                flipped[index] ^= 1 << bit;
                if let Ok(metainfo) = Metainfo::parse(&flipped) {
                    metainfo.check_invariants();
                    // Two torrents with one hash would be the same torrent.
                    let same_hash = metainfo.info_hash_v1 == original.info_hash_v1;
                    assert_eq!(same_hash, metainfo.info == original.info);
                }
            }
        }
    }
}
