//! What we write: deterministic, readable by others, and with `info` untouched where trackers
//! change.

use proptest::prelude::*;

use super::*;

#[test]
fn the_layout_is_that_of_other_programs() {
    let builder = Builder {
        name: b"n".to_vec(),
        piece_length: 16_384,
        pieces: vec![b'h'; 20],
        length: 5,
        trackers: vec![vec!["http://t".to_owned()]],
        ..Builder::default()
    };
    let expected = "d8:announce8:http://t8:encoding5:UTF-84:infod6:lengthi5e4:name1:n\
                    12:piece lengthi16384e6:pieces20:hhhhhhhhhhhhhhhhhhhhee";
    assert_eq!(String::from_utf8(builder.encode()).unwrap(), expected);
    assert_eq!(builder.encode(), builder.encode());
}

#[test]
#[should_panic(expected = "a hash for every piece")]
fn the_number_of_hashes_is_asserted() {
    let _ = Builder {
        pieces: vec![0; 40],
        ..single_builder()
    }
    .encode();
}

#[test]
fn rewritten_trackers_leave_everything_else_as_it_is() {
    let torrent = single_builder().encode();
    let before = parse(&torrent);
    let tiers = vec![
        vec!["udp://x:1".to_owned()],
        vec![],
        vec!["udp://y:2".to_owned()],
    ];
    let after = parse(&with_trackers(&torrent, &tiers).unwrap());
    assert_eq!(after.trackers, [["udp://x:1"], ["udp://y:2"]]);
    assert_eq!(
        Metainfo {
            trackers: before.trackers.clone(),
            ..after.clone()
        },
        before
    );
    assert_eq!(with_trackers(&torrent, &before.trackers).unwrap(), torrent);
    let without = with_trackers(&torrent, &[]).unwrap();
    assert_eq!(parse(&without).trackers, Vec::<Vec<String>>::new());
    assert_eq!(find(&without, &before.info), find(&without, b"4:info") + 6);
}

#[test]
fn rewriting_keeps_an_odd_info_and_sorts_the_root() {
    let info = "d4:name1:a6:lengthi1e12:piece lengthi1e6:pieces20:aaaaaaaaaaaaaaaaaaaa1:zlee";
    let odd = format!("d4:info{info}8:announce1:q1:xi7e1:xi8e13:announce-list3:odde trailing");
    let tiers = vec![vec!["t".to_owned()]];
    let rewritten = with_trackers(odd.as_bytes(), &tiers).unwrap();
    assert_eq!(
        String::from_utf8(rewritten).unwrap(),
        format!("d8:announce1:t4:info{info}1:xi7ee")
    );
    assert!(with_trackers(b"le", &tiers).is_err());
    assert!(with_trackers(b"d", &tiers).is_err());
}

proptest! {
    #[test]
    fn what_is_built_is_read(
        piece_length in 1u32..200,
        lengths in proptest::collection::vec(0u64..500, 1..8),
        private in any::<bool>(),
        single in any::<bool>(),
        date in any::<Option<i64>>(),
    ) {
        let total: u64 = if single { lengths[0] } else { lengths.iter().sum() };
        let pieces = vec![9u8; total.div_ceil(u64::from(piece_length)) as usize * 20];
        let files: Vec<BuilderFile> = (0u32..).zip(&lengths).map(|(index, &length)| BuilderFile {
            path: vec![b"d".to_vec(), index.to_string().into_bytes()],
            length,
            attributes: String::new(),
        }).collect();
        let builder = Builder {
            name: b"name".to_vec(),
            piece_length,
            pieces: pieces.clone(),
            length: if single { total } else { 0 },
            files: if single { Vec::new() } else { files },
            private,
            creation_date: date,
            ..Builder::default()
        };
        let metainfo = parse(&builder.encode());
        prop_assert_eq!(metainfo.total_length, total);
        prop_assert_eq!(metainfo.is_multi_file, !single);
        prop_assert_eq!(metainfo.piece_hashes(), pieces);
        prop_assert_eq!(metainfo.private, private);
        prop_assert_eq!(metainfo.creation_date, date);
        let read: Vec<u64> = metainfo.files.iter().map(|file| file.length).collect();
        prop_assert_eq!(read, if single { vec![total] } else { lengths });
    }
}
