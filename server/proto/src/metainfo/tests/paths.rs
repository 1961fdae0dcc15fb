//! Names from strangers: inside the root, distinct, and findable where they lie on disk already.

use proptest::prelude::*;

use super::*;

fn paths(raw: &[&[&[u8]]]) -> Vec<String> {
    let metainfo = parse(&torrent_with_paths(raw));
    metainfo
        .files
        .iter()
        .map(|file| file.path[1..].join("/"))
        .collect()
}

#[test]
fn hostile_paths_stay_inside_the_root() {
    let raw: &[&[&[u8]]] = &[
        &[b"..", b"..", b"etc", b"passwd"],
        &[b"", b"tmp", b"x"],
        &[b"/etc/shadow"],
        &[b"a/../../b"],
        &[b"nul\0byte"],
        &[b"esc\x1b[31m"],
        &["rtl\u{202e}gnp.exe".as_bytes()],
        &[b".", b"dot"],
        &[b".."],
        &[b"", b"."],
    ];
    assert_eq!(
        paths(raw),
        [
            "__/__/etc/passwd",
            "tmp/x",
            "_etc_shadow",
            "a_.._.._b",
            "nul_byte",
            "esc_[31m",
            "rtl_gnp.exe",
            "dot",
            // `..` would be `__`, which is a directory already.
            "__~8",
            "_",
        ]
    );
}

#[test]
fn hostile_torrent_names_stay_inside_the_data_directory() {
    let name = |raw: &[u8]| {
        let builder = Builder {
            name: raw.to_vec(),
            ..single_builder()
        };
        parse(&builder.encode())
    };
    assert_eq!(name(b"../../x").files[0].path, [".._.._x"]);
    assert_eq!(name(b"..").files[0].path, ["__"]);
    assert_eq!(name(b"/").files[0].path, ["_"]);
    assert_eq!(name(&[b'n'; 300]).name.len(), 255);
    for nothing in [&b""[..], b"."] {
        let metainfo = name(nothing);
        assert_eq!(metainfo.name, metainfo.info_hash_v1.unwrap().to_string());
        assert_eq!(metainfo.literal_path(&metainfo.files[0]), None);
    }
}

#[test]
fn colliding_names_are_renamed_apart() {
    assert_eq!(
        paths(&[
            &[b"a.txt"],
            &[b"a.txt"],
            &[b"A.TXT"],
            &[b"a~1.txt"],
            &[b"d", b"x"],
            &[b"D", b"X"]
        ]),
        ["a.txt", "a~1-1.txt", "A~2.TXT", "a~1.txt", "d/x", "D/X~5"]
    );
    let sharp = ["straße".as_bytes(), "STRASSE".as_bytes()];
    assert_eq!(paths(&[&[sharp[0]], &[sharp[1]]]), ["straße", "STRASSE~1"]);
}

#[test]
fn a_file_that_is_also_a_directory_is_renamed() {
    assert_eq!(paths(&[&[b"a"], &[b"a", b"b"]]), ["a~0", "a/b"]);
    assert_eq!(
        paths(&[&[b"a", b"b"], &[b"A"], &[b"a", b"b", b"c"]]),
        ["a/b~0", "A~1", "a/b/c"]
    );
    assert_eq!(
        paths(&[&[b"a"], &[b"a"], &[b"a", b"b"]]),
        ["a~0", "a~1", "a/b"]
    );
}

#[test]
fn names_of_255_bytes_collide_and_stay_within_255() {
    let mut long = vec![b'x'; 300];
    long.extend(b".mkv");
    let mut other = long.clone();
    other[299] = b'y';
    let metainfo = parse(&torrent_with_paths(&[&[&long], &[&other]]));
    let names: Vec<&str> = metainfo
        .files
        .iter()
        .map(|file| file.path[1].as_str())
        .collect();
    assert!(
        names
            .iter()
            .all(|name| name.len() == 255 && name.ends_with(".mkv"))
    );
    assert!(names[1].ends_with("xx~1.mkv"));
}

#[test]
fn pad_files_may_share_names_and_are_known_by_attribute_or_name() {
    let file = |path: &[&str], length: u64, attributes: &str| BuilderFile {
        path: path.iter().map(|name| name.as_bytes().to_vec()).collect(),
        length,
        attributes: attributes.to_owned(),
    };
    let builder = Builder {
        name: b"n".to_vec(),
        piece_length: 64,
        pieces: vec![0; 80],
        files: vec![
            file(&["a"], 32, ""),
            file(&[".pad", "32"], 32, "p"),
            file(&["b"], 32, ""),
            file(&[".pad", "32"], 32, "xp"),
            file(&["_____padding_file_0_if you see this file_____"], 64, ""),
            file(&[".pad"], 64, ""),
        ],
        ..Builder::default()
    };
    let metainfo = parse(&builder.encode());
    let pads: Vec<bool> = metainfo.files.iter().map(|file| file.pad).collect();
    assert_eq!(pads, [false, true, false, true, true, false]);
    assert_eq!(metainfo.files[3].path, ["n", ".pad", "32"]);
    assert_eq!(
        metainfo.files[5].path,
        ["n", ".pad"],
        "a pad file's directory takes no name"
    );
    assert_eq!(metainfo.content_length(), 128);
}

#[test]
fn utf8_spellings_win_and_wrong_ones_are_ignored() {
    let with = |utf8: &dyn Fn(&mut Encoder)| {
        let torrent = torrent_with_info(|info| {
            info.key(b"files")
                .begin_list()
                .begin_dict()
                .key(b"length")
                .integer(1);
            info.key(b"path").begin_list().bytes(b"caf\xe9").end();
            info.key(b"path.utf-8");
            utf8(info);
            info.end().end();
            info.key(b"name")
                .bytes(b"n\xe9")
                .key(b"name.utf-8")
                .bytes("né".as_bytes());
            info.key(b"piece length")
                .integer(1)
                .key(b"pieces")
                .bytes(&[0; 20]);
        });
        parse(&torrent).files[0].path.clone()
    };
    let good = with(&|info| _ = info.begin_list().bytes("café".as_bytes()).end());
    assert_eq!(good, ["né", "café"]);
    assert_eq!(with(&|info| _ = info.bytes(b"flat")), ["né", "caf\u{fffd}"]);
    assert_eq!(
        with(&|info| _ = info.begin_list().end()),
        ["né", "caf\u{fffd}"]
    );
    assert_eq!(
        with(&|info| _ = info.begin_list().integer(1).end()),
        ["né", "caf\u{fffd}"]
    );
}

#[test]
fn the_literal_path_leads_to_data_that_exists() {
    let metainfo = parse(&torrent_with_paths(&[
        &[b"plain"],
        &[b"caf\xe9"],
        &[b"caf\xe8"],
        &[b"PLAIN"],
        &[b"plain"],
        &[b"..", b"x"],
        &[b"d\n", b"e"],
    ]));
    let literal = |index: usize| {
        let path = metainfo.literal_path(&metainfo.files[index])?;
        Some(path.join(&b'/').escape_ascii().to_string())
    };
    assert_eq!(metainfo.files[1].path, ["root", "caf\u{fffd}"]);
    assert_eq!(metainfo.files[2].path, ["root", "caf\u{fffd}~2"]);
    assert_eq!(literal(0), None, "its path is as it is spelled");
    assert_eq!(literal(1).as_deref(), Some("root/caf\\xe9"));
    assert_eq!(literal(2).as_deref(), Some("root/caf\\xe8"));
    assert_eq!(literal(3).as_deref(), Some("root/PLAIN"));
    assert_eq!(literal(4), None, "two files never share bytes");
    assert_eq!(literal(5), None, "it leads out of the root");
    assert_eq!(literal(6).as_deref(), Some("root/d\\n/e"));
    let builder = Builder {
        name: b"caf\xe9".to_vec(),
        ..single_builder()
    };
    let single = parse(&builder.encode());
    assert_eq!(
        single.literal_path(&single.files[0]),
        Some(vec![b"caf\xe9".to_vec()])
    );
    let long = Builder {
        name: vec![b'n'; 256],
        ..single_builder()
    };
    let single = parse(&long.encode());
    assert_eq!(
        single.literal_path(&single.files[0]),
        None,
        "no file system holds it"
    );
}

#[test]
fn many_equal_names_are_each_renamed_at_the_first_attempt() {
    // So the work is linear: no file tries the names that the files before it took.
    let one: &[&[u8]] = &[b"same"];
    let metainfo = parse(&torrent_with_paths(&vec![one; 2_000]));
    for (index, file) in metainfo.files.iter().enumerate().skip(1) {
        assert_eq!(file.path[1], format!("same~{index}"));
    }
    // Names of full length, in pairs, whose shortened forms are alike.
    let long: Vec<Vec<u8>> = (0..2_000)
        .map(|index| [vec![b'x'; 247], format!("{:08}", index / 2).into_bytes()].concat())
        .collect();
    let long: Vec<[&[u8]; 1]> = long.iter().map(|name| [name.as_slice()]).collect();
    let long: Vec<&[&[u8]]> = long.iter().map(|path| path.as_slice()).collect();
    for (index, file) in parse(&torrent_with_paths(&long))
        .files
        .iter()
        .enumerate()
        .skip(1)
        .step_by(2)
    {
        assert!(file.path[1].ends_with(&format!("~{index}")));
    }
}

proptest! {
    #[test]
    fn any_paths_come_out_safe_and_distinct(
        choices in proptest::collection::vec(proptest::collection::vec(0usize..15, 1..4), 1..24),
    ) {
        let names: [&[u8]; 15] = [
            b"a", b"A", b"b", b"a~0", b"a~1", b"a~1-1", b"..", b"", b".", b"_", b"__", b"\xff",
            b"\xfe", b"a\0", "ſ".as_bytes(),
        ];
        let raw: Vec<Vec<&[u8]>> =
            choices.iter().map(|path| path.iter().map(|&name| names[name]).collect()).collect();
        let raw: Vec<&[&[u8]]> = raw.iter().map(Vec::as_slice).collect();
        // The invariants that `parse` checks are the point.
        let metainfo = parse(&torrent_with_paths(&raw));
        prop_assert_eq!(metainfo.files.len(), raw.len());
    }
}
