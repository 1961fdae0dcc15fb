//! What other clients keep of their torrents: the first byte says whose it is and of which torrent,
//! the rest is what that client wrote. The decoders are compiled from their files: the crate that
//! they are in would bring its HTTP and TLS with it.
#![no_main]

#[path = "../../server/control/src/import/note.rs"]
#[allow(dead_code)]
mod note;
#[path = "../../server/control/src/verify/piece_set.rs"]
#[allow(dead_code)]
mod piece_set;
#[path = "../../server/control/src/import/qbittorrent.rs"]
mod qbittorrent;
#[path = "../../server/control/src/import/resume.rs"]
#[allow(dead_code)]
mod resume;
#[path = "../../server/control/src/import/rtorrent.rs"]
mod rtorrent;
#[path = "../../server/control/src/import/transmission.rs"]
mod transmission;
mod verify {
    pub use crate::piece_set::PieceSet;
}

use libfuzzer_sys::fuzz_target;
use proto::metainfo::Metainfo;
use resume::{Resume, Stamps};
use std::path::Component;
use std::sync::LazyLock;

macro_rules! torrent {
    ($hash:literal) => {
        include_bytes!(concat!(
            "../../server/control/src/import/testdata/qbittorrent/",
            $hash,
            ".torrent"
        ))
    };
}

/// Torrents of one file, of three, and of two with a piece in both.
static TORRENTS: LazyLock<Vec<Metainfo>> = LazyLock::new(|| {
    let torrents: [&[u8]; 3] = [
        torrent!("a7e015750cdb586e9124c0205ae28917f680061a"),
        torrent!("7d80c727672d873667e5eda9651bcada00b6f4ab"),
        torrent!("7fce35c6444849fa805f33a1c572c91f9336ab8f"),
    ];
    let read = |torrent: &&[u8]| Metainfo::parse(torrent).ok();
    torrents.iter().filter_map(read).collect()
});

fuzz_target!(|data: &[u8]| {
    let Some((&first, bytes)) = data.split_first() else {
        return;
    };
    let metainfo = &TORRENTS[usize::from(first) % TORRENTS.len()];
    match first / 3 % 6 {
        0 => check(qbittorrent::decode(bytes, Some(metainfo)).ok(), metainfo),
        1 => check(
            transmission::decode(bytes, Some(metainfo), 50).ok(),
            metainfo,
        ),
        2 => check(rtorrent::decode(bytes, None, metainfo).ok(), metainfo),
        3 => check(
            rtorrent::decode(b"de", Some(bytes), metainfo).ok(),
            metainfo,
        ),
        4 => check(rtorrent::decode_inside(bytes, metainfo), metainfo),
        _ => {
            let _ = qbittorrent::decode(bytes, None);
            let _ = transmission::decode(bytes, None, 50);
            for magnet in [qbittorrent::magnet(bytes), transmission::magnet(bytes)] {
                if let Some(magnet) = magnet {
                    assert!(magnet.info_hash_v1.is_some());
                }
            }
            let _ = qbittorrent::categories(bytes);
            let _ = transmission::peers_max(bytes);
        }
    }
});

fn check(resume: Option<Resume>, metainfo: &Metainfo) {
    let Some(resume) = resume else {
        return;
    };
    let files = metainfo.files.len();
    if let Some(claimed) = &resume.claimed {
        assert_eq!(claimed.piece_count(), metainfo.piece_count);
        assert!(claimed.iter().all(|piece| piece.0 < metainfo.piece_count));
    }
    assert!(resume.priorities.len() <= files);
    match &resume.stamps {
        Stamps::None | Stamps::WrittenAfter => {}
        Stamps::Exact(stamps) => assert!(stamps.len() <= files),
        Stamps::Hashed(stamps) => assert!(stamps.len() <= files),
    }
    assert!(resume.labels.len() <= 256 && resume.labels.iter().all(|label| !label.is_empty()));
    for (index, path) in &resume.paths {
        assert!((*index as usize) < files);
        assert!(
            path.components()
                .all(|part| matches!(part, Component::Normal(_)))
        );
    }
}
