//! Bytes that no client wrote.

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;
use std::sync::LazyLock;

struct Sample {
    metainfo: Metainfo,
    files: [Vec<u8>; 4],
}

/// What the clients wrote of each torrent.
static SAMPLES: LazyLock<Vec<Sample>> = LazyLock::new(|| {
    let sample = |hash: &str| {
        let upper = hash.to_uppercase();
        let files = [
            format!("qbittorrent/{hash}.fastresume"),
            format!("transmission/resume/{hash}.resume"),
            format!("rtorrent/{upper}.torrent.rtorrent"),
            format!("rtorrent/{upper}.torrent.libtorrent_resume"),
        ];
        Sample {
            metainfo: metainfo(hash),
            files: files.map(|file| super::sample(&file)),
        }
    };
    [SINGLE, MULTI, PART].map(sample).into()
});

/// Reads the bytes as each client's, and checks what every torrent can rely on.
fn decode_all(bytes: &[u8], metainfo: &Metainfo) -> Vec<Resume> {
    let qbittorrent = qbittorrent::decode(bytes, Some(metainfo));
    let transmission = transmission::decode(bytes, Some(metainfo), 50);
    let session = rtorrent::decode(bytes, None, metainfo);
    let library = rtorrent::decode(b"de", Some(bytes), metainfo);
    let without = [
        qbittorrent::decode(bytes, None),
        transmission::decode(bytes, None, 50),
    ];
    let _ = (qbittorrent::magnet(bytes), transmission::magnet(bytes));
    let _ = rtorrent::decode_inside(bytes, metainfo);
    let decoded = [qbittorrent, transmission, session, library].into_iter();
    let resumes: Vec<Resume> = decoded.chain(without).flatten().collect();
    for resume in &resumes {
        let count = metainfo.files.len();
        if let Some(claimed) = &resume.claimed {
            assert_eq!(claimed.piece_count(), metainfo.piece_count);
            assert!(claimed.iter().all(|piece| piece.0 < metainfo.piece_count));
        }
        assert!(resume.priorities.len() <= count);
        assert!(resume.labels.len() <= resume::LABELS_MAX);
        assert!(resume.labels.iter().all(|label| !label.is_empty()));
        for (index, path) in &resume.paths {
            assert!((*index as usize) < count);
            let mut components = path.components();
            assert!(components.all(|part| matches!(part, std::path::Component::Normal(_))));
        }
    }
    resumes
}

proptest! {
    #[test]
    fn random_bytes_do_not_panic(bytes in vec(any::<u8>(), 0..300)) {
        decode_all(&bytes, &SAMPLES[0].metainfo);
    }

    #[test]
    fn changed_bytes_do_not_panic(
        torrent in 0usize..3,
        file in 0usize..4,
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        digits in any::<bool>(),
    ) {
        let sample = &SAMPLES[torrent];
        let mut bytes = sample.files[file].clone();
        for (index, byte) in changes {
            // A digit for a digit keeps it bencode more often than not.
            let at = index.index(bytes.len());
            match bytes[at].is_ascii_digit() && digits {
                true => bytes[at] = b'0' + byte % 10,
                false if digits => {}
                false => bytes[at] = byte,
            }
        }
        decode_all(&bytes, &sample.metainfo);
        // Also of a torrent with other files and pieces.
        decode_all(&bytes, &SAMPLES[(torrent + 1) % 3].metainfo);
    }

    #[test]
    fn kinds_of_values_that_are_not_expected_do_not_panic(
        torrent in 0usize..3,
        file in 0usize..4,
        kinds in vec(0usize..6, 64),
    ) {
        let sample = &SAMPLES[torrent];
        let document = Document::parse(&sample.files[file], &Limits::METAINFO_OWN).unwrap();
        let mut bytes = b"d".to_vec();
        for (entry, kind) in document.root().dict().unwrap().entries().zip(kinds) {
            bytes.extend(format!("{}:", entry.key.len()).bytes());
            bytes.extend_from_slice(entry.key);
            let other: &[u8] = match kind {
                0 => b"i-1e",
                1 => b"i18446744073709551615e",
                2 => b"li1e3:abcdee",
                3 => b"3:\xff\x00/",
                4 => b"d1:ai1ee",
                _ => entry.value.raw(),
            };
            bytes.extend_from_slice(other);
        }
        bytes.push(b'e');
        prop_assert!(!decode_all(&bytes, &sample.metainfo).is_empty());
    }
}

#[test]
fn every_truncation_is_refused() {
    for sample in SAMPLES.iter() {
        for file in &sample.files {
            for end in 0..file.len() {
                let resumes = decode_all(&file[..end], &sample.metainfo);
                // The session of rTorrent alone was whole.
                assert!(resumes.is_empty(), "{end}");
            }
        }
    }
}
