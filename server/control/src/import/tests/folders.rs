//! Imports of whole folders: what is believed of which files.

use super::*;

/// When Transmission hashed the files, and rTorrent saw them change, in the kept samples.
const HASHED_AT_S: u64 = 1_795_337_207;
const CHANGED_AT_S: u64 = 1_795_337_202;
const SINGLE_CHANGED_AT_S: u64 = 1_704_164_645;

/// A client's folder and the data of its torrents.
struct Fixture {
    client: Client,
    root: TempDir,
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn touch(path: &Path, seconds: u64) {
    let file = File::options().write(true).open(path).unwrap();
    file.set_modified(at(seconds)).unwrap();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).unwrap()),
        }
    }
}

impl Fixture {
    fn new(client: Client, folder: &str) -> Fixture {
        let root = TempDir::new().unwrap();
        let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/import/testdata");
        copy(&samples.join(folder), &root.path().join("client"));
        let fixture = Fixture { client, root };
        let mtime = match client {
            Client::Rtorrent => CHANGED_AT_S,
            _ => HASHED_AT_S,
        };
        let files = [
            ("single.bin", 100_000),
            ("multi é/a.bin", 70_000),
            ("multi é/sub/b.bin", 50_000),
            ("multi é/empty", 0),
            ("part/x", 40_000),
            ("part/y", 200_000),
        ];
        for (name, length) in files {
            let path = fixture.data(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            File::create(&path).unwrap().set_len(length).unwrap();
            let single = name == "single.bin" && client == Client::Rtorrent;
            touch(&path, if single { SINGLE_CHANGED_AT_S } else { mtime });
        }
        if client == Client::Qbittorrent {
            for hash in [SINGLE, MULTI, PART] {
                touch(&fixture.state(&format!("{hash}.fastresume")), HASHED_AT_S);
            }
        }
        fixture
    }

    fn data(&self, name: &str) -> PathBuf {
        self.root.path().join("data").join(name)
    }

    fn state(&self, name: &str) -> PathBuf {
        self.root.path().join("client").join(name)
    }

    fn maps(&self) -> Maps {
        Maps {
            paths: vec![(DATA.into(), self.data(""))],
            categories: Vec::new(),
        }
    }

    fn importer(&self, maps: Maps) -> Importer {
        Importer::new(self.client, &self.state(""), maps, 7).unwrap()
    }

    fn read(&self, hash: &str) -> Imported {
        self.read_with(hash, self.maps()).unwrap()
    }

    fn read_with(&self, hash: &str, maps: Maps) -> Result<Imported, SkipReason> {
        let importer = self.importer(maps);
        let mut sources = importer.folder().sources.iter();
        let source = sources.find(|source| source.stem.eq_ignore_ascii_case(hash));
        importer.read(source.unwrap())
    }
}

fn all() -> [Fixture; 3] {
    [
        Fixture::new(Client::Qbittorrent, "qbittorrent"),
        Fixture::new(Client::Transmission, "transmission"),
        Fixture::new(Client::Rtorrent, "rtorrent"),
    ]
}

fn condition(imported: &Imported) -> Condition {
    imported.torrent.summary.condition
}

fn stamped(imported: &Imported) -> Vec<bool> {
    imported
        .torrent
        .stamps
        .iter()
        .map(Option::is_some)
        .collect()
}

#[test]
fn files_that_have_not_changed_are_believed() {
    for fixture in all() {
        let client = fixture.client;
        for hash in [SINGLE, MULTI] {
            let imported = fixture.read(hash);
            let torrent = &imported.torrent;
            assert_eq!(torrent.verified, Verified::All, "{client:?}");
            assert_eq!(torrent.summary.condition, Condition::Ready);
            assert_eq!(torrent.summary.save_path, fixture.data("."));
            assert_eq!(torrent.place, Place::Out);
            assert_eq!(imported.info_hash.to_string(), hash);
            assert!(torrent.details.renames.is_empty(), "{:?}", torrent.details);
            assert!(torrent.summary.completed_at_s.is_some());
            let kept = torrent.metainfo.as_ref().unwrap();
            assert_eq!(
                Metainfo::parse(kept).unwrap().info_hash_v1,
                Some(imported.info_hash)
            );
        }
        // Nothing rests on a file that has no bytes.
        assert_eq!(stamped(&fixture.read(MULTI)), [true, true, false]);
        let part = fixture.read(PART).torrent;
        assert_eq!(
            part.verified,
            Verified::Pieces(vec![0b1000_0111]),
            "{client:?}"
        );
        assert_eq!(
            (part.summary.condition, part.place),
            (Condition::Ready, Place::Last)
        );
        let summary = (
            part.summary.total_bytes,
            part.summary.pieces,
            part.summary.files,
        );
        assert_eq!(summary, (240_000, 8, 2));
    }
}

#[test]
fn a_file_that_changed_later_has_to_be_hashed() {
    for fixture in all() {
        let client = fixture.client;
        touch(&fixture.data("multi é/a.bin"), HASHED_AT_S + 1);
        let imported = fixture.read(MULTI);
        assert_eq!(condition(&imported), Condition::NeedsCheck, "{client:?}");
        // Piece 3 lies in the other file alone.
        assert_eq!(
            imported.torrent.verified,
            Verified::Pieces(vec![0b0001_0000])
        );
        assert_eq!((imported.pieces_claimed, imported.pieces_upheld), (4, 1));
        assert_eq!(stamped(&imported), [false, true, false]);
        assert_eq!(condition(&fixture.read(SINGLE)), Condition::Ready);
    }
}

#[test]
fn a_file_that_is_older_is_believed_only_where_that_can_be() {
    for fixture in all() {
        touch(&fixture.data("single.bin"), 1_000_000_000);
        let expected = match fixture.client {
            Client::Rtorrent => Condition::NeedsCheck,
            _ => Condition::Ready,
        };
        assert_eq!(
            condition(&fixture.read(SINGLE)),
            expected,
            "{:?}",
            fixture.client
        );
    }
}

#[test]
fn a_file_of_another_length_has_to_be_hashed() {
    for fixture in all() {
        let client = fixture.client;
        for (length, upheld) in [(99_999, 3), (32_767, 0), (100_001, 0), (0, 0)] {
            let path = fixture.data("single.bin");
            let file = File::options().write(true).open(&path).unwrap();
            file.set_len(length).unwrap();
            let seconds = match client {
                Client::Rtorrent => SINGLE_CHANGED_AT_S,
                _ => HASHED_AT_S,
            };
            touch(&path, seconds);
            let imported = fixture.read(SINGLE);
            assert_eq!(
                condition(&imported),
                Condition::NeedsCheck,
                "{client:?} {length}"
            );
            assert_eq!(imported.pieces_upheld, upheld, "{client:?} {length}");
        }
    }
}

#[test]
fn what_is_not_there_or_no_file_has_to_be_hashed() {
    for fixture in all() {
        let client = fixture.client;
        fs::remove_file(fixture.data("single.bin")).unwrap();
        let imported = fixture.read(SINGLE);
        // Transmission was told that it is not wanted.
        let expected = match client {
            Client::Transmission => (Condition::Ready, vec![Note::UnwantedParts]),
            _ => (Condition::Offline, vec![]),
        };
        let notes: Vec<Note> = imported.notes.iter().copied().collect();
        let notes = notes.into_iter().filter(|&note| note != Note::TiedFile);
        assert_eq!(
            (condition(&imported), notes.collect()),
            expected,
            "{client:?}"
        );
        assert_eq!(imported.torrent.verified, Verified::None);
        fs::remove_file(fixture.data("multi é/a.bin")).unwrap();
        fs::create_dir(fixture.data("multi é/a.bin")).unwrap();
        assert_eq!(condition(&fixture.read(MULTI)), Condition::NeedsCheck);
    }
}

#[test]
fn a_link_out_of_the_save_folder_is_not_followed() {
    for fixture in all() {
        let (inside, outside) = (
            fixture.data("single.bin"),
            fixture.root.path().join("outside"),
        );
        fs::rename(&inside, &outside).unwrap();
        std::os::unix::fs::symlink(&outside, &inside).unwrap();
        assert_eq!(fixture.read(SINGLE).torrent.verified, Verified::None);
    }
}

#[test]
fn a_folder_that_is_not_there_is_said() {
    for fixture in all() {
        let imported = fixture.read_with(MULTI, Maps::default()).unwrap();
        assert_eq!(condition(&imported), Condition::Offline);
        assert!(imported.notes.contains(&Note::FolderMissing));
        // That it was complete is what keeps it from being fetched again.
        assert_eq!(imported.torrent.verified, Verified::None);
        let summary = &imported.torrent.summary;
        assert!(summary.completed_at_s.is_some() && !summary.seed_mode);
        let error = summary.last_error.as_ref().unwrap();
        assert!(error.text.contains(DATA), "{}", error.text);
        // Of one that was not, what the client had is kept aside, with no stamp that would have it
        // believed.
        let imported = fixture.read_with(PART, Maps::default()).unwrap();
        assert_eq!(condition(&imported), Condition::Offline);
        let verified = &imported.torrent.verified;
        assert_eq!((verified.count(8), imported.pieces_upheld), (4, 0));
        assert!(imported.torrent.stamps.iter().all(Option::is_none));
        assert_eq!(imported.torrent.summary.completed_at_s, None);
        assert_eq!(imported.torrent.summary.save_path, Path::new(DATA));
    }
}

#[test]
fn categories_and_labels_are_mapped() {
    let category = |fixture: &Fixture, from: &str, to: &str| {
        let categories = vec![
            ("none".to_owned(), "x".to_owned()),
            (from.into(), to.into()),
        ];
        let maps = Maps {
            categories,
            ..fixture.maps()
        };
        let summary = fixture.read_with(MULTI, maps).unwrap().torrent.summary;
        (summary.category, summary.labels)
    };
    let [qbittorrent, transmission, rtorrent] = all();
    let some = |name: &str| Some(name.to_owned());
    let tags = vec!["a".to_owned(), "tag ü".to_owned()];
    assert_eq!(
        category(&qbittorrent, "movies", "film"),
        (some("film"), tags.clone())
    );
    assert_eq!(category(&qbittorrent, "movies", ""), (None, tags.clone()));
    assert_eq!(category(&qbittorrent, "x", "film"), (some("movies"), tags));
    let rest = vec!["tv ä".to_owned()];
    assert_eq!(
        category(&transmission, "movies", "film"),
        (some("film"), rest)
    );
    assert_eq!(category(&rtorrent, "tv shäws", "tv"), (some("tv"), vec![]));
}

#[test]
fn the_longest_path_that_fits_is_mapped() {
    let fixture = Fixture::new(Client::Rtorrent, "rtorrent");
    let to = |path: &str| fixture.root.path().join(path);
    let maps = Maps {
        paths: vec![
            ("/srv".into(), to("short")),
            ("/srv/torrents/".into(), to("data")),
            ("/srv/torr".into(), to("part")),
        ],
        categories: Vec::new(),
    };
    let imported = fixture.read_with(MULTI, maps).unwrap();
    assert_eq!(imported.torrent.summary.save_path, to("data"));
    assert_eq!(condition(&imported), Condition::Ready);
}

#[test]
fn a_content_folder_of_another_name_is_a_rename_of_its_files() {
    let fixture = Fixture::new(Client::Rtorrent, "rtorrent");
    fs::rename(fixture.data("multi é"), fixture.data("other")).unwrap();
    let maps = Maps {
        paths: vec![("/srv/torrents/multi é".into(), fixture.data("other"))],
        categories: Vec::new(),
    };
    let imported = fixture.read_with(MULTI, maps).unwrap();
    assert_eq!(imported.torrent.verified, Verified::All);
    assert_eq!(
        imported.torrent.summary.save_path,
        fixture.root.path().join("data")
    );
    let renames = ["other/a.bin", "other/sub/b.bin", "other/empty"].map(PathBuf::from);
    let renames: BTreeMap<u32, PathBuf> = (0..).zip(renames).collect();
    assert_eq!(imported.torrent.details.renames, renames);
}

#[test]
fn incomplete_files_are_found_by_the_clients_names() {
    for (client, folder, suffix) in [
        (Client::Qbittorrent, "qbittorrent", ".!qB"),
        (Client::Transmission, "transmission", ".part"),
    ] {
        let fixture = Fixture::new(client, folder);
        let name = format!("y{suffix}");
        let to = fixture.data("part").join(&name);
        fs::rename(fixture.data("part/y"), to).unwrap();
        let imported = fixture.read(PART);
        assert_eq!(imported.pieces_upheld, 4);
        let renamed = Path::new("part").join(name);
        assert_eq!(
            imported.torrent.details.renames,
            BTreeMap::from([(1, renamed)])
        );
    }
}

#[test]
fn pieces_in_an_unwanted_file_that_is_not_there_are_fetched_again() {
    let fixture = Fixture::new(Client::Qbittorrent, "qbittorrent");
    let resume = fixture.state(&format!("{PART}.fastresume"));
    let bytes = fs::read(&resume).unwrap();
    let at = bytes.windows(8).position(|at| at == b"li1ei1ee").unwrap();
    let mut changed = bytes.clone();
    changed[at + 5] = b'0';
    fs::write(&resume, changed).unwrap();
    fs::remove_file(fixture.data("part/y")).unwrap();
    let imported = fixture.read(PART);
    assert_eq!(
        imported.torrent.details.priorities,
        [Priority::NORMAL, Priority::SKIP]
    );
    assert_eq!(condition(&imported), Condition::Ready);
    assert_eq!((imported.pieces_claimed, imported.pieces_upheld), (4, 1));
    assert!(imported.notes.contains(&Note::UnwantedParts));
}

#[test]
fn torrents_that_cannot_be_taken_over_say_why() {
    let reason = |fixture: &Fixture, hash: &str| {
        let read = fixture.read_with(hash, fixture.maps());
        read.unwrap_err().to_string()
    };
    let [qbittorrent, transmission, rtorrent] = all();
    fs::remove_file(qbittorrent.state(&format!("{MULTI}.fastresume"))).unwrap();
    assert!(reason(&qbittorrent, MULTI).contains("no resume data"));
    fs::remove_file(qbittorrent.state(&format!("{PART}.torrent"))).unwrap();
    // Its resume data are enough for a magnet link.
    let imported = qbittorrent.read(PART);
    let magnet = imported.torrent.summary.magnet.unwrap();
    assert!(magnet.contains(PART) && magnet.contains("part"), "{magnet}");
    assert_eq!(imported.torrent.metainfo, None);
    assert_eq!(imported.torrent.summary.save_path, qbittorrent.data("."));
    fs::write(qbittorrent.state(&format!("{SINGLE}.fastresume")), b"d1:").unwrap();
    assert!(reason(&qbittorrent, SINGLE).contains("its resume data: bencode"));
    fs::write(
        transmission.state(&format!("torrents/{MULTI}.torrent")),
        b"x",
    )
    .unwrap();
    assert!(reason(&transmission, MULTI).contains("its .torrent file"));
    fs::remove_file(transmission.state(&format!("torrents/{PART}.torrent"))).unwrap();
    assert!(reason(&transmission, PART).contains("no magnet link"));
    let link = format!("magnet:?xt=urn:btih:{PART}&dn=linked");
    fs::write(transmission.state(&format!("torrents/{PART}.magnet")), link).unwrap();
    // The resume data know the name.
    assert_eq!(transmission.read(PART).torrent.summary.name, "part");
    let session = format!("{}.torrent.rtorrent", MULTI.to_uppercase());
    fs::remove_file(rtorrent.state(&session)).unwrap();
    assert!(reason(&rtorrent, MULTI).contains("no resume data"));
    let library = format!("{}.torrent.libtorrent_resume", SINGLE.to_uppercase());
    fs::remove_file(rtorrent.state(&library)).unwrap();
    assert_eq!(condition(&rtorrent.read(SINGLE)), Condition::NeedsCheck);
}

#[test]
fn folders_are_found_from_above_and_others_are_refused() {
    let fixture = Fixture::new(Client::Qbittorrent, "qbittorrent");
    let root = TempDir::new().unwrap();
    let backup = root.path().join("qBittorrent/data/BT_backup");
    copy(&fixture.state(""), &backup);
    let config = root.path().join("qBittorrent/config");
    fs::create_dir(&config).unwrap();
    fs::rename(
        backup.join("categories.json"),
        config.join("categories.json"),
    )
    .unwrap();
    fs::write(backup.join("queue"), format!("{PART}\n{MULTI}\n")).unwrap();
    let find = |path: &Path| folder::find(Client::Qbittorrent, path);
    for path in [
        "",
        "qBittorrent",
        "qBittorrent/data",
        "qBittorrent/data/BT_backup",
    ] {
        let found = find(&root.path().join(path)).unwrap();
        let stems: Vec<&str> = found.sources.iter().map(|one| one.stem.as_str()).collect();
        assert_eq!(stems, [PART, MULTI, SINGLE]);
        assert_eq!(found.categories.len(), 2);
        assert!(!found.data_base);
    }
    let empty = TempDir::new().unwrap();
    for client in [Client::Qbittorrent, Client::Transmission, Client::Rtorrent] {
        let error = folder::find(client, empty.path()).unwrap_err();
        assert!(matches!(error, ImportError::Nothing { .. }), "{error}");
        let error = folder::find(client, &empty.path().join("no")).unwrap_err();
        assert!(matches!(error, ImportError::Folder { .. }), "{error}");
    }
    fs::write(empty.path().join("torrents.db"), b"SQLite format 3").unwrap();
    let error = find(empty.path()).unwrap_err().to_string();
    assert!(error.contains("Fastresume files"), "{error}");
}
