//! What other versions write than those whose files are kept here, by hand.

use super::*;

fn qbittorrent_with(more: &[(&str, String)]) -> Resume {
    let resume = dict(more);
    qbittorrent::decode(resume.as_bytes(), Some(&metainfo(MULTI))).unwrap()
}

fn transmission_with(more: &[(&str, String)]) -> Resume {
    let resume = dict(more);
    transmission::decode(resume.as_bytes(), Some(&metainfo(PART)), 50).unwrap()
}

fn rtorrent_with(session: &[(&str, String)], library: &[(&str, String)]) -> Resume {
    let (session, library) = (dict(session), dict(library));
    let metainfo = metainfo(PART);
    rtorrent::decode(session.as_bytes(), Some(library.as_bytes()), &metainfo).unwrap()
}

#[test]
fn limits_of_qbittorrent_5() {
    let limits = |ratio, minutes, action: &str| {
        let resume = qbittorrent_with(&[
            ("download_rate_limit", int(-1)),
            ("qBt-ratioLimit", int(ratio)),
            ("qBt-seedingTimeLimit", int(minutes)),
            ("qBt-shareLimitAction", text(action)),
            ("upload_rate_limit", int(0)),
        ]);
        assert_eq!(
            (resume.limits.upload_rate, resume.limits.download_rate),
            (None, None)
        );
        let known = !resume.notes.contains(&Note::LimitAction);
        let limits = resume.limits;
        (
            limits.ratio_permille,
            limits.seeding_time_s,
            limits.at_limit,
            known,
        )
    };
    assert_eq!(limits(-2000, -2, "Default"), (None, None, None, true));
    let pause = Some(LimitAction::Pause);
    assert_eq!(limits(-1000, -1, "Stop"), (Some(0), Some(0), pause, true));
    let remove = Some(LimitAction::Remove);
    assert_eq!(limits(0, 0, "Remove"), (Some(1), Some(1), remove, true));
    let with_data = Some(LimitAction::RemoveWithData);
    assert_eq!(
        limits(2345, 7, "RemoveWithContent"),
        (Some(2345), Some(420), with_data, true)
    );
    let super_seed = Some(LimitAction::SuperSeed);
    let most = i64::MAX;
    let permille = Some(most.unsigned_abs());
    let found = limits(most, most, "EnableSuperSeeding");
    assert_eq!(found, (permille, Some(u64::MAX), super_seed, true));
    assert_eq!(limits(-5, -5, "Explode"), (None, None, None, false));
}

#[test]
fn paths_and_places_of_qbittorrent() {
    let paths = ["a.bin", "multi é/sub/b.bin", "/etc/passwd"].map(text);
    let resume = qbittorrent_with(&[
        ("file_priority", list(&[0, 6, 7].map(int))),
        ("mapped_files", list(&paths)),
        ("qBt-downloadPath", text("/srv/incomplete")),
        ("qBt-savePath", text("/srv/done")),
        ("save_path", text("/srv/incomplete")),
    ]);
    assert_eq!(resume.paths, BTreeMap::from([(0, PathBuf::from("a.bin"))]));
    assert_eq!(resume.notes, BTreeSet::from([Note::PathOutside]));
    let high = Priority::new(6).unwrap();
    assert_eq!(resume.priorities, [Priority::SKIP, high, Priority::HIGHEST]);
    let places = [
        DataPlace::Incomplete("/srv/incomplete".into()),
        DataPlace::Save("/srv/done".into()),
    ];
    assert_eq!(resume.places, places);
}

#[test]
fn who_is_paused_in_qbittorrent() {
    let paused = |paused, managed| {
        let keys = [("auto_managed", int(managed)), ("paused", int(paused))];
        qbittorrent_with(&keys).paused
    };
    assert!(paused(1, 0));
    // Waits in the client's queue.
    assert!(!paused(1, 1));
    assert!(!paused(0, 0) && !paused(0, 1));
}

#[test]
fn seed_mode_of_qbittorrent_claims_only_what_was_hashed() {
    let resume = qbittorrent_with(&[
        ("pieces", text("\u{1}\u{3}\u{1}\u{0}")),
        ("seed_mode", int(1)),
    ]);
    assert!(resume.seed_mode);
    assert_eq!(bits(resume.claimed.as_ref()), [1]);
}

#[test]
fn sizes_and_times_of_older_libtorrents() {
    let pair = |size, mtime| list(&[int(size), int(mtime)]);
    let sizes = list(&[pair(70_000, 7), pair(50_000, 0), int(3)]);
    let resume = qbittorrent_with(&[("file sizes", sizes)]);
    let exact = Exact {
        mtime_s: 7,
        size: Some(70_000),
    };
    assert_eq!(resume.stamps, Stamps::Exact(vec![Some(exact), None, None]));
    // Pieces are not said: everything has to be hashed.
    assert_eq!(resume.claimed, None);
}

#[test]
fn a_magnet_link_of_qbittorrent() {
    let hash = "aaaaaaaaaaaaaaaaaaaa";
    let resume = dict(&[
        ("info-hash", text(hash)),
        ("name", text("x y")),
        (
            "trackers",
            list(&[list(&[text("udp://t:1/a"), text("no url")])]),
        ),
    ]);
    let magnet = qbittorrent::magnet(resume.as_bytes()).unwrap();
    assert_eq!(magnet.info_hash_v1, Some(InfoHashV1([b'a'; 20])));
    assert_eq!(magnet.name.as_deref(), Some("x y"));
    assert_eq!(magnet.trackers, ["udp://t:1/a"]);
    let resume = qbittorrent::decode(resume.as_bytes(), None).unwrap();
    assert_eq!(resume.notes, BTreeSet::from([Note::UnusableTrackers]));
}

#[test]
fn progress_of_transmission_4() {
    let progress = |blocks: &str, pieces: &str| {
        let mtimes = list(&[int(11), int(0)]);
        let progress = [
            ("blocks", text(blocks)),
            ("mtimes", mtimes),
            ("pieces", text(pieces)),
        ];
        transmission_with(&[("progress", dict(&progress))])
    };
    let exact = Exact {
        mtime_s: 11,
        size: None,
    };
    let resume = progress("all", "all");
    assert_eq!(resume.stamps, Stamps::Exact(vec![Some(exact), None]));
    assert_eq!(resume.claimed.as_ref().map(PieceSet::len), Some(8));
    assert!(!resume.uncertain);
    // Of all that is there, only these were hashed.
    let resume = progress("all", "\u{41}");
    assert_eq!(bits(resume.claimed.as_ref()), [1, 7]);
    assert!(resume.uncertain);
    let resume = progress("none", "all");
    assert!(bits(resume.claimed.as_ref()).is_empty());
    let resume = progress("none", "none");
    assert!(!resume.uncertain);
    for wrong in ["", "a", "abc"] {
        assert_eq!(progress(wrong, "all").claimed, None, "{wrong:?}");
    }
    assert_eq!(progress("all", "ab").claimed, None);
}

#[test]
fn hashing_times_of_transmission_piece_by_piece() {
    let each = list(&[100, 1, 0, 5].map(int));
    let times = list(&[each, int(0)]);
    let progress = dict(&[("have", text("all")), ("time-checked", times)]);
    let resume = transmission_with(&[("progress", progress)]);
    let hashed = Hashed::Each(vec![101, 0, 105]);
    assert_eq!(
        (hashed.at(0), hashed.at(1), hashed.at(3)),
        (Some(101), None, None)
    );
    assert_eq!(hashed.newest(), Some(105));
    assert_eq!(resume.stamps, Stamps::Hashed(vec![hashed, Hashed::Never]));
}

#[test]
fn blocks_of_odd_pieces_in_transmission() {
    // 3 pieces of 24,000 bytes: halved to two blocks each by versions up to 3, while later ones
    // have 5 blocks of 16 KiB that cross pieces.
    let info = dict(&[
        ("length", int(72_000)),
        ("name", text("x")),
        ("piece length", int(24_000)),
        ("pieces", text(&"h".repeat(60))),
    ]);
    let torrent = dict(&[("info", info)]);
    let metainfo = Metainfo::parse(torrent.as_bytes()).unwrap();
    let claimed = |blocks: &str, key: &str, value: String| {
        let progress = dict(&[("blocks", text(blocks)), (key, value)]);
        let resume = dict(&[("progress", progress)]);
        transmission::decode(resume.as_bytes(), Some(&metainfo), 50)
            .unwrap()
            .claimed
    };
    // 0011_1000: blocks 2, 3, 4 of six of 12,000 bytes.
    let pieces = claimed("\u{38}", "time-checked", list(&[]));
    assert_eq!(bits(pieces.as_ref()), [1]);
    // The same bits of blocks of 16,384 bytes: from 32,768 to the end.
    let pieces = claimed("\u{38}", "mtimes", list(&[]));
    assert_eq!(bits(pieces.as_ref()), [2]);
}

#[test]
fn more_of_transmission() {
    let limit = |on, speed: (&str, i64)| {
        let pairs = [
            (speed.0, int(speed.1)),
            ("use-global-speed-limit", int(0)),
            ("use-speed-limit", int(on)),
        ];
        dict(&pairs)
    };
    let ratio = dict(&[("ratio-limit", text("0.5")), ("ratio-mode", int(2))]);
    let resume = transmission_with(&[
        ("bandwidth-priority", int(1)),
        ("corrupt", int(4)),
        ("destination", text("/d")),
        ("dnd", list(&[0, 1].map(int))),
        ("files", list(&["part/x", "renamed/y"].map(text))),
        ("group", text("slow")),
        (
            "idle-limit",
            dict(&[("idle-limit", int(3)), ("idle-mode", int(1))]),
        ),
        ("incomplete-dir", text("/i")),
        ("max-peers", int(50)),
        ("name", text("renamed")),
        ("priority", list(&[-1, 1].map(int))),
        ("ratio-limit", ratio),
        ("speed-limit-down", limit(0, ("speed-Bps", 9))),
        ("speed-limit-up", limit(1, ("speed", 5))),
    ]);
    assert_eq!(
        resume.paths,
        BTreeMap::from([(1, PathBuf::from("renamed/y"))])
    );
    assert_eq!(resume.name.as_deref(), Some("renamed"));
    let places = [
        DataPlace::Save("/d".into()),
        DataPlace::Incomplete("/i".into()),
    ];
    assert_eq!(resume.places, places);
    assert_eq!(
        resume.priorities,
        [Priority::new(2).unwrap(), Priority::SKIP]
    );
    let limits = TorrentLimits {
        upload_rate: Some(5000),
        ratio_permille: Some(0),
        ..TorrentLimits::default()
    };
    assert_eq!((resume.limits, resume.totals.wasted_bytes), (limits, 4));
    let notes = [
        Note::IdleLimit,
        Note::IgnoresGlobalLimits,
        Note::BandwidthGroup,
        Note::TorrentPriority,
    ];
    assert_eq!(resume.notes, BTreeSet::from(notes));
    assert_eq!(
        transmission::peers_max(b"{\"peer-limit-per-torrent\": 60}"),
        60
    );
    assert_eq!(
        transmission::peers_max(b"{"),
        transmission::PEERS_MAX_DEFAULT
    );
}

#[test]
fn a_magnet_link_of_transmission_3() {
    let info = dict(&[
        ("display-name", text("n")),
        ("info_hash", text(&"h".repeat(20))),
    ]);
    let magnet = transmission::magnet(dict(&[("magnet-info", info)]).as_bytes()).unwrap();
    assert_eq!(magnet.info_hash_v1, Some(InfoHashV1([b'h'; 20])));
    assert_eq!(magnet.name.as_deref(), Some("n"));
    let torrent = sample(&format!("qbittorrent/{SINGLE}.torrent"));
    assert_eq!(transmission::magnet(&torrent), None);
}

#[test]
fn more_of_rtorrent() {
    let tracker = |pairs: &[(&str, String)]| dict(pairs);
    let trackers = dict(&[
        ("dht://", tracker(&[("enabled", int(0))])),
        (
            "http://127.0.0.1:9/announce",
            tracker(&[("enabled", int(0))]),
        ),
        (
            "http://new/a",
            tracker(&[("enabled", int(1)), ("extra_tracker", int(1))]),
        ),
    ]);
    let file = |mtime, priority| dict(&[("mtime", int(mtime)), ("priority", int(priority))]);
    let library = [
        ("bitfield", int(8)),
        ("files", list(&[file(-2, 0), file(5, 2)])),
        ("trackers", trackers),
        ("uncertain_pieces", text("\0\0\0\u{2}\0\0\u{1}\0abc")),
    ];
    let session = [
        ("connection_seed", text("initial_seed")),
        ("custom2", text("VRS24mrker")),
        ("state", int(0)),
        ("throttle_name", text("slow")),
        ("total_downloaded", int(3)),
        ("total_uploaded", int(2)),
        ("views", list(&[text("rat_1")])),
    ];
    let resume = rtorrent_with(&session, &library);
    // Piece 2 may not have reached the disk.
    assert_eq!(bits(resume.claimed.as_ref()), [0, 1, 3, 4, 5, 6, 7]);
    assert!(resume.uncertain && resume.paused && resume.super_seeding);
    let exact = Exact {
        mtime_s: 5,
        size: None,
    };
    assert_eq!(resume.stamps, Stamps::Exact(vec![None, Some(exact)]));
    assert_eq!(
        resume.priorities,
        [Priority::SKIP, Priority::new(6).unwrap()]
    );
    assert_eq!(resume.trackers, Some(vec![vec!["http://new/a".to_owned()]]));
    assert_eq!(
        (resume.totals.uploaded_bytes, resume.totals.downloaded_bytes),
        (2, 3)
    );
    let notes = [Note::BandwidthGroup, Note::RatioGroup, Note::Remark];
    assert_eq!(resume.notes, BTreeSet::from(notes));
    for wrong in [int(7), int(-1), text("ab"), list(&[])] {
        let resume = rtorrent_with(&[], &[("bitfield", wrong)]);
        assert_eq!(resume.claimed, None);
    }
}

#[test]
fn older_rtorrents_keep_all_of_it_in_the_torrent_file() {
    let torrent = sample(&format!("qbittorrent/{PART}.torrent"));
    let info = &torrent[torrent.windows(6).position(|at| at == b"4:info").unwrap()..];
    let library = dict(&[("bitfield", int(8))]);
    let session = dict(&[("custom1", text("l"))]);
    let mut whole = b"d".to_vec();
    whole.extend_from_slice(info.strip_suffix(b"e").unwrap());
    whole.extend(format!("17:libtorrent_resume{library}8:rtorrent{session}e").bytes());
    let metainfo = Metainfo::parse(&whole).unwrap();
    let resume = rtorrent::decode_inside(&whole, &metainfo).unwrap();
    assert_eq!(resume.labels, ["l"]);
    assert_eq!(bits(resume.claimed.as_ref()).len(), 8);
    assert_eq!(rtorrent::decode_inside(&torrent, &metainfo), None);
}
