//! The decoders on what real clients wrote (qBittorrent 4.5.2, Transmission 3.00, rTorrent 0.9.8)
//! and on what other versions write; imports of whole folders; hostile bytes.

use super::*;
use state::{LimitAction, TorrentLimits, Totals};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::time::{Duration, SystemTime};
use tempfile::TempDir;

mod folders;
mod hostile;
mod versions;

/// A torrent of one file, 100,000 bytes in 4 pieces.
const SINGLE: &str = "a7e015750cdb586e9124c0205ae28917f680061a";
/// A torrent of three files in 4 pieces.
const MULTI: &str = "7d80c727672d873667e5eda9651bcada00b6f4ab";
/// A torrent of two files in 8 pieces, of which 4 were there.
const PART: &str = "7fce35c6444849fa805f33a1c572c91f9336ab8f";
/// The folder of their data, as the clients knew it.
const DATA: &str = "/srv/torrents";

fn sample(path: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/import/testdata");
    fs::read(folder.join(path)).unwrap()
}

fn metainfo(hash: &str) -> Metainfo {
    Metainfo::parse(&sample(&format!("qbittorrent/{hash}.torrent"))).unwrap()
}

fn bits(pieces: Option<&PieceSet>) -> Vec<u32> {
    pieces.unwrap().iter().map(|piece| piece.0).collect()
}

fn save(path: &str) -> Vec<DataPlace> {
    vec![DataPlace::Save(path.into())]
}

/// Bencode, with the keys of a dictionary in the order given.
fn dict(pairs: &[(&str, String)]) -> String {
    let pairs = pairs.iter().map(|(key, value)| text(key) + value);
    format!("d{}e", pairs.collect::<String>())
}

fn list<'a>(items: impl IntoIterator<Item = &'a String>) -> String {
    let items: Vec<&str> = items.into_iter().map(String::as_str).collect();
    format!("l{}e", items.concat())
}

fn text(text: &str) -> String {
    format!("{}:{text}", text.len())
}

fn int(number: i64) -> String {
    format!("i{number}e")
}

#[test]
fn a_complete_torrent_of_qbittorrent() {
    let bytes = sample(&format!("qbittorrent/{SINGLE}.fastresume"));
    let resume = qbittorrent::decode(&bytes, Some(&metainfo(SINGLE))).unwrap();
    assert_eq!(bits(resume.claimed.as_ref()), [0, 1, 2, 3]);
    assert_eq!(resume.stamps, Stamps::WrittenAfter);
    assert_eq!(resume.places, save(DATA));
    assert_eq!(resume.category.as_deref(), Some("movies"));
    assert_eq!(resume.labels, ["a", "tag ü"]);
    assert_eq!(resume.name, None);
    assert_eq!(resume.added_at_s, Some(1_795_337_206));
    assert_eq!(resume.completed_at_s, Some(1_795_337_207));
    let limits = TorrentLimits {
        upload_rate: Some(100_000),
        ratio_permille: Some(1500),
        seeding_time_s: Some(6000),
        ..TorrentLimits::default()
    };
    assert_eq!(resume.limits, limits);
    let totals = Totals {
        active_s: 4,
        seeding_s: 5,
        ..Totals::default()
    };
    assert_eq!(resume.totals, totals);
    let trackers = vec![vec!["http://127.0.0.1:9/announce".to_owned()]];
    assert_eq!(resume.trackers, Some(trackers));
    assert_eq!(resume.web_seeds, Some(Vec::new()));
    assert!(!resume.paused && !resume.seed_mode && resume.notes.is_empty());
}

#[test]
fn an_incomplete_torrent_of_qbittorrent_claims_what_was_there() {
    let bytes = sample(&format!("qbittorrent/{PART}.fastresume"));
    let resume = qbittorrent::decode(&bytes, Some(&metainfo(PART))).unwrap();
    assert_eq!(bits(resume.claimed.as_ref()), [0, 5, 6, 7]);
    assert_eq!(resume.completed_at_s, None);
    assert_eq!(resume.priorities, [Priority::NORMAL; 2]);
}

#[test]
fn resume_data_of_another_torrent_are_refused() {
    let bytes = sample(&format!("qbittorrent/{PART}.fastresume"));
    let decoded = qbittorrent::decode(&bytes, Some(&metainfo(SINGLE)));
    assert_eq!(decoded, Err(ResumeError::OtherTorrent));
}

#[test]
fn categories_of_qbittorrent() {
    let categories = qbittorrent::categories(&sample("qbittorrent/categories.json"));
    let expected = [("movies", DATA), ("nopath", "")];
    let expected = expected.map(|(name, path)| (name.to_owned(), PathBuf::from(path)));
    assert_eq!(categories, expected);
    assert_eq!(qbittorrent::categories(b"[1]"), []);
}

#[test]
fn torrents_of_transmission() {
    let decoded = |hash: &str| {
        let bytes = sample(&format!("transmission/resume/{hash}.resume"));
        transmission::decode(&bytes, Some(&metainfo(hash)), 50).unwrap()
    };
    let multi = decoded(MULTI);
    assert_eq!(bits(multi.claimed.as_ref()), [0, 1, 2, 3]);
    let hashed = Hashed::At(1_795_337_207);
    assert_eq!(multi.stamps, Stamps::Hashed(vec![hashed; 3]));
    assert_eq!(multi.places, save(DATA));
    assert_eq!(multi.labels, ["movies", "tv ä"]);
    assert_eq!(
        (multi.added_at_s, multi.completed_at_s),
        (Some(1_795_337_206), None)
    );
    assert_eq!(multi.limits, TorrentLimits::default());
    assert_eq!((multi.totals.seeding_s, multi.totals.active_s), (9, 9));
    assert!(!multi.paused && multi.notes.is_empty(), "{:?}", multi.notes);

    let part = decoded(PART);
    // 15 blocks of 16 KiB, two to a piece; the last piece has one.
    assert_eq!(bits(part.claimed.as_ref()), [0, 5, 6, 7]);
    let limits = TorrentLimits {
        upload_rate: Some(100_000),
        ratio_permille: Some(2500),
        peers_max: Some(7),
        ..TorrentLimits::default()
    };
    assert_eq!(part.limits, limits);
    assert_eq!((part.totals.seeding_s, part.totals.active_s), (0, 8));

    let single = decoded(SINGLE);
    assert!(single.paused);
    assert_eq!(single.priorities, [Priority::SKIP]);
}

#[test]
fn torrents_of_rtorrent() {
    let decoded = |hash: &str| {
        let hash = hash.to_uppercase();
        let session = sample(&format!("rtorrent/{hash}.torrent.rtorrent"));
        let library = sample(&format!("rtorrent/{hash}.torrent.libtorrent_resume"));
        let metainfo = metainfo(&hash.to_lowercase());
        rtorrent::decode(&session, Some(&library), &metainfo).unwrap()
    };
    let exact = |mtime_s| {
        Some(Exact {
            mtime_s,
            size: None,
        })
    };
    let multi = decoded(MULTI);
    assert_eq!(bits(multi.claimed.as_ref()), [0, 1, 2, 3]);
    assert_eq!(multi.stamps, Stamps::Exact(vec![exact(1_795_337_202); 3]));
    let content = DataPlace::Content("/srv/torrents/multi é".into());
    assert_eq!(multi.places, [content]);
    assert_eq!(multi.labels, ["tv shäws"]);
    assert_eq!(multi.added_at_s, Some(1_795_337_202));
    assert_eq!(multi.completed_at_s, Some(1_795_337_202));
    assert_eq!(multi.trackers, None);
    let notes = [Note::TorrentPriority, Note::TiedFile];
    assert_eq!(multi.notes, BTreeSet::from(notes));
    let part = decoded(PART);
    assert_eq!(bits(part.claimed.as_ref()), [0, 5, 6, 7]);
    assert!(part.labels.is_empty() && part.completed_at_s.is_none() && !part.paused);
    let single = decoded(SINGLE);
    assert_eq!(single.stamps, Stamps::Exact(vec![exact(1_704_164_645)]));
    // ruTorrent's own.
    assert_eq!(single.added_at_s, Some(1_700_000_000));
    assert_eq!(single.places, save(DATA));
}
