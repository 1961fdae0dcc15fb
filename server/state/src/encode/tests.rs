//! Round trips, truncations and hostile records.

use super::*;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

fn text() -> impl Strategy<Value = String> {
    vec(any::<char>(), 0..12).prop_map(String::from_iter)
}

fn path() -> impl Strategy<Value = PathBuf> {
    vec(any::<u8>(), 0..12).prop_map(|bytes| super::path(&bytes))
}

fn limits() -> impl Strategy<Value = TorrentLimits> {
    let some = || option::of(any::<u64>());
    (some(), some(), some(), some(), some(), option::of(0..4u64)).prop_map(
        |(upload_rate, download_rate, peers_max, ratio_permille, seeding_time_s, action)| {
            TorrentLimits {
                upload_rate,
                download_rate,
                peers_max,
                ratio_permille,
                seeding_time_s,
                at_limit: action.map(|action| limit_action(action).unwrap()),
            }
        },
    )
}

prop_compose! {
    fn summary()(
        name in text(),
        magnet in option::of(text()),
        hash in option::of(any::<[u8; 32]>()),
        flags in any::<[bool; 6]>(),
        sizes in any::<(u64, u32, u32, u32)>(),
        save_path in path(),
        category in option::of(text()),
        labels in vec(text(), 0..4),
        times in (any::<u64>(), option::of(any::<u64>())),
        limits in limits(),
        waits_for in 0..4u64,
        error in option::of((any::<u64>(), text())),
    ) -> Summary {
        Summary {
            name,
            info_hash_v2: hash.map(InfoHashV2),
            magnet,
            private: flags[0],
            total_bytes: sizes.0,
            piece_bytes: sizes.1,
            pieces: sizes.2,
            files: sizes.3,
            save_path,
            category,
            labels,
            added_at_s: times.0,
            completed_at_s: times.1,
            paused: flags[1],
            seed_mode: flags[2],
            sequential: flags[3],
            super_seeding: flags[4],
            completion_untold: flags[5],
            limits,
            condition: condition(waits_for).unwrap(),
            last_error: error.map(|(at_s, text)| LastError { at_s, text }),
        }
    }
}

prop_compose! {
    fn details()(
        priorities in vec((0..8u8, 1..300usize), 0..5),
        renames in btree_map(any::<u32>(), path(), 0..5),
        trackers in option::of(vec(vec(text(), 0..3), 0..3)),
        web_seeds in option::of(vec(text(), 0..3)),
    ) -> Details {
        let runs = priorities.into_iter();
        let runs = runs.flat_map(|(number, run)| vec![Priority::new(number).unwrap(); run]);
        Details { priorities: runs.collect(), renames, trackers, web_seeds }
    }
}

proptest! {
    #[test]
    fn records_come_back(summary in summary(), details in details(), numbers in any::<[u64; 6]>()) {
        prop_assert_eq!(decode_summary(&encode_summary(&summary)), Ok(summary));
        let kept = encode_details(&details);
        let back = kept.map_or(Ok(Details::default()), |kept| decode_details(&kept));
        prop_assert_eq!(back, Ok(details));
        let totals = Totals {
            uploaded_bytes: numbers[0],
            downloaded_bytes: numbers[1],
            wasted_bytes: numbers[2],
            active_s: numbers[3],
            seeding_s: numbers[4],
            last_active_at_s: numbers[5],
        };
        prop_assert_eq!(decode_totals(&encode_totals(&totals)), Ok(totals));
        let [device, inode, size, mtime, ctime, _] = numbers;
        let (mtime_ns, ctime_ns) = (mtime.cast_signed(), ctime.cast_signed());
        let stamp = FileStamp { device, inode, size, mtime_ns, ctime_ns };
        prop_assert_eq!(decode_stamp(&encode_stamp(&stamp)), Ok(stamp));
    }

    /// What is cut short is another record or none: never what it was, and never a panic.
    #[test]
    fn no_truncation_is_taken_for_the_whole(summary in summary(), details in details()) {
        let whole = encode_summary(&summary);
        for end in 0..whole.len() {
            let read = decode_summary(&whole[..end]);
            prop_assert_ne!(read.as_ref(), Ok(&summary));
        }
        if let Some(whole) = encode_details(&details) {
            for end in 0..whole.len() {
                let read = decode_details(&whole[..end]);
                prop_assert_ne!(read.as_ref(), Ok(&details));
            }
        }
    }

    #[test]
    fn hostile_bytes_are_refused_or_read_but_never_panic(
        start in summary(),
        noise in vec((any::<u16>(), any::<u8>()), 0..4),
    ) {
        let mut bytes = encode_summary(&start);
        for (at, value) in noise {
            let at = usize::from(at) % bytes.len();
            bytes[at] = value;
        }
        if let Ok(read) = decode_summary(&bytes) {
            prop_assert_eq!(decode_summary(&encode_summary(&read)), Ok(read));
        }
        for bytes in [&bytes[..], &bytes[1..]] {
            let _ = (decode_details(bytes), decode_totals(bytes), decode_stamp(bytes));
            let _ = decode_verified(bytes, 77);
        }
    }
}

/// A record of the first version has none of the fields that come later: they have their defaults.
#[test]
fn a_record_without_a_field_has_its_default() {
    let mut out = FieldWriter::new();
    out.bytes(1, b"only a name");
    let read = decode_summary(&out.finish()).unwrap();
    let expected = Summary {
        name: "only a name".into(),
        ..Summary::default()
    };
    assert_eq!(read, expected);
}

/// The bytes of version 1, which later versions have to read.
#[test]
fn the_bytes_of_a_record_are_these() {
    let summary = Summary {
        name: "a".into(),
        paused: true,
        pieces: 300,
        save_path: "/d".into(),
        labels: vec!["x".into(), "yz".into()],
        limits: TorrentLimits {
            upload_rate: Some(0),
            ..TorrentLimits::default()
        },
        condition: Condition::Offline,
        ..Summary::default()
    };
    let expected = b"\x01\x03\x01a\x08\x02\x0e\xac\x02\x13\x02/d\x17\x05\x01x\x02yz\x1c\0\x28\x02";
    assert_eq!(encode_summary(&summary), expected);
    assert_eq!(encode_verified(&Verified::All), Some(vec![1]));
}

#[test]
fn a_run_of_priorities_does_not_grow_beyond_the_most_files() {
    for run in [0, limits::FILES_MAX as u64 + 1, u64::MAX] {
        let mut priorities = Vec::new();
        put_number(&mut priorities, run);
        put_number(&mut priorities, 4);
        let mut out = FieldWriter::new();
        out.bytes(1, &priorities);
        assert_eq!(decode_details(&out.finish()), Err(DecodeError::Value(1)));
    }
}

#[test]
fn verified_pieces_have_the_length_of_the_torrent_and_one_form() {
    let pieces = |bits: &[u8]| Verified::Pieces(bits.to_vec());
    assert_eq!(pieces(&[0xff, 0x80]).normal(9), Some(Verified::All));
    assert_eq!(pieces(&[0, 0]).normal(9), Some(Verified::None));
    assert_eq!(pieces(&[0x7f, 0x80]).normal(9), Some(pieces(&[0x7f, 0x80])));
    for (bits, count) in [
        (&[0xff, 0xc0][..], 9),
        (&[0xff], 9),
        (&[0xff, 0, 0], 9),
        (&[0], 0),
        (&[1], 1),
    ] {
        assert_eq!(pieces(bits).normal(count), None, "{bits:?} of {count}");
    }
    assert_eq!(decode_verified(&[ALL], 9), Ok(Verified::All));
    assert!(decode_verified(&[ALL, 0], 9).is_err());
    assert!(decode_verified(&[PIECES, 0xff], 9).is_err());
    assert!(decode_verified(&[], 9).is_err());
}
