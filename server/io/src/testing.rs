//! What the tests of this crate share: a configuration, and torrents with their files.

use crate::fetch::FetchConfig;
use crate::fetch::hashing::HashPool;
use crate::fetch::memory::MemoryBudget;
use crate::limits::SharedLimits;
use crate::plane::{Event, PlaneConfig, RateLimits};
use crate::roster::{Roster, WakeLimits};
use crate::shard::ShardSeat;
use crate::sockets::SocketOptions;
use crate::torrent::SeededTorrent;
use engine::choker::ChokerConfig;
use engine::layout::FileStamp;
use engine::session::SessionConfig;
use proto::ids::PeerId;
use proto::metainfo::Metainfo;
use seedring_metrics::Registry;
use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::mpsc;

/// Reports that `test` cannot run here, to whoever counts that (`./test`).
pub(crate) fn skip(test: &str, reason: &str) {
    eprintln!("SKIP {test}: {reason}");
    if let Some(path) = std::env::var_os("SEEDRING_SKIPS") {
        let file = fs::File::options().append(true).create(true).open(path);
        writeln!(file.unwrap(), "{test}: {reason}").unwrap();
    }
}

/// The piece length of [`Data::torrent`], in bytes.
pub(crate) const PIECE_BYTES: usize = 256 << 10;

/// One shard on loopback, on any port, with room for all tests.
pub(crate) fn config() -> PlaneConfig {
    PlaneConfig {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        shards: 1,
        pin: false,
        sockets: SocketOptions {
            backlog: 16,
            congestion_control: String::new(),
            interface: None,
        },
        connections_max: 16,
        connections_per_stranger_max: 0,
        handshakes_max: 16,
        handshake_timeout: Duration::from_secs(10),
        buffer_bytes: 4 << 20,
        batch_bytes: 256 << 10,
        cache_bytes: 4 << 20,
        mapped_bytes: 0,
        registration: crate::buffers::Registration::Auto,
        send_path: crate::plane::SendPath::Auto,
        pipes_per_shard: 4,
        open_files_max: 16,
        session: SessionConfig::default(),
        choker: ChokerConfig::default(),
        upload_slots: 0,
        rates: RateLimits::default(),
        peer_id: PeerId(*b"-SR0100-testtesttest"),
        fetch: FetchConfig::default(),
        waking: WakeLimits::default(),
        call_leechers: true,
        ip_filter: Arc::default(),
    }
}

/// What a shard starts with that nobody commands, and that has no memory for downloads.
pub(crate) fn seat(config: PlaneConfig) -> ShardSeat {
    let (_, commands) = mpsc::channel(1);
    let (events, _) = mpsc::unbounded_channel();
    ShardSeat {
        index: 0,
        count: 1,
        core: None,
        session_config: Arc::new(config.session.clone()),
        seed: 1,
        limits: Arc::new(SharedLimits::new(&config, 1)),
        cells: Registry::new(1).shard(0),
        listeners: Vec::new(),
        config: Arc::new(config),
        shards: Vec::new(),
        fetch_memory: MemoryBudget::new(0),
        hashing: Arc::new(HashPool::new(1)),
        commands,
        events,
        dht: Arc::default(),
        roster: roster().0,
        resolving: Arc::default(),
    }
}

/// A roster, and what it tells.
pub(crate) fn roster() -> (Arc<Roster>, mpsc::UnboundedReceiver<Event>) {
    let (events, received) = mpsc::unbounded_channel();
    let cells = Registry::new(0).control();
    let roster = Roster::new(WakeLimits::default(), events.downgrade(), cells);
    (Arc::new(roster), received)
}

/// Files in a directory of their own.
pub(crate) struct Data {
    pub(crate) dir: TempDir,
    files: Vec<(&'static str, usize)>,
}

impl Data {
    /// Files of these names and lengths, of no particular bytes. One whose name starts with "pad"
    /// is a pad file, which is on no disk.
    pub(crate) fn new(files: &[(&'static str, usize)]) -> Data {
        let dir = TempDir::new().unwrap();
        for (name, length) in files.iter().filter(|(name, _)| !is_pad(name)) {
            let bytes: Vec<u8> = (0..*length).map(|at| (at % 251) as u8).collect();
            fs::write(dir.path().join(name), bytes).unwrap();
        }
        let files = files.to_vec();
        Data { dir, files }
    }

    pub(crate) fn path(&self, file: usize) -> std::path::PathBuf {
        self.dir.path().join(self.files[file].0)
    }

    /// The torrent of these files as they are now. Its hashes are not theirs: the data plane takes
    /// none.
    pub(crate) fn torrent(&self) -> Arc<SeededTorrent> {
        self.torrent_of_pieces(PIECE_BYTES)
    }

    /// The same with pieces of another length.
    pub(crate) fn torrent_of_pieces(&self, piece_bytes: usize) -> Arc<SeededTorrent> {
        self.torrent_named("t", piece_bytes)
    }

    /// The same with another name, which makes it another torrent.
    pub(crate) fn torrent_named(&self, name: &str, piece_bytes: usize) -> Arc<SeededTorrent> {
        let total: usize = self.files.iter().map(|(_, length)| length).sum();
        let mut info = b"d5:filesl".to_vec();
        for (name, length) in &self.files {
            let attributes = if is_pad(name) { "4:attr1:p" } else { "" };
            let path = format!("4:pathl{}:{name}e", name.len());
            let entry = format!("d{attributes}6:lengthi{length}e{path}e");
            info.extend(entry.as_bytes());
        }
        let hashes = total.div_ceil(piece_bytes) * 20;
        let name = format!("{}:{name}", name.len());
        info.extend(
            format!("e4:name{name}12:piece lengthi{piece_bytes}e6:pieces{hashes}:").as_bytes(),
        );
        info.resize(info.len() + hashes, 0);
        info.push(b'e');
        let metainfo = Arc::new(Metainfo::parse_info(&info).unwrap());
        let stamps = (0..self.files.len()).map(|file| stamp(&self.path(file)));
        let paths = self.files.iter().map(|(name, _)| name.into());
        let paths: BTreeMap<_, _> = (0..).zip(paths).collect();
        let torrent = SeededTorrent::new(metainfo, self.dir.path(), stamps.collect(), paths);
        Arc::new(torrent.unwrap())
    }
}

fn is_pad(name: &str) -> bool {
    name.starts_with("pad")
}

/// What a file is now.
pub(crate) fn stamp(path: &Path) -> Option<FileStamp> {
    let of = |found: Metadata| FileStamp {
        device: found.dev(),
        inode: found.ino(),
        size: found.size(),
        mtime_ns: found.mtime() * 1_000_000_000 + found.mtime_nsec(),
        ctime_ns: found.ctime() * 1_000_000_000 + found.ctime_nsec(),
    };
    fs::symlink_metadata(path).ok().map(of)
}

/// Bytes that are to be downloaded, with their right hashes.
#[derive(Clone)]
pub(crate) struct Content {
    pub(crate) metainfo: Arc<Metainfo>,
    /// All of them, padding included.
    pub(crate) bytes: Arc<[u8]>,
    folder: Arc<TempDir>,
}

impl Content {
    /// Files of these names and lengths in a folder `t`, of no particular bytes; those whose name
    /// starts with "pad" are pad files.
    pub(crate) fn new(files: &[(&'static str, usize)], piece_bytes: usize) -> Content {
        Self::make(files, piece_bytes, "")
    }

    /// The same of a private torrent (BEP 27).
    pub(crate) fn private(files: &[(&'static str, usize)], piece_bytes: usize) -> Content {
        Self::make(files, piece_bytes, "7:privatei1e")
    }

    fn make(files: &[(&'static str, usize)], piece_bytes: usize, more: &str) -> Content {
        let folder = Arc::new(TempDir::new().unwrap());
        fs::create_dir(folder.path().join("t")).unwrap();
        let mut bytes = Vec::new();
        let mut state = 1_u32;
        let mut info = b"d5:filesl".to_vec();
        for (name, length) in files {
            let start = bytes.len();
            bytes.resize_with(start + length, || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                if is_pad(name) { 0 } else { (state >> 24) as u8 }
            });
            if !is_pad(name) {
                let path = folder.path().join("t").join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, &bytes[start..]).unwrap();
            }
            let attributes = if is_pad(name) { "4:attr1:p" } else { "" };
            let parts = name.split('/').map(|part| format!("{}:{part}", part.len()));
            let path = format!("4:pathl{}e", parts.collect::<String>());
            info.extend(format!("d{attributes}6:lengthi{length}e{path}e").as_bytes());
        }
        let hashes: Vec<u8> = bytes.chunks(piece_bytes).flat_map(hash::sha1).collect();
        let pieces = format!("6:pieces{}:", hashes.len());
        info.extend(format!("e4:name1:t12:piece lengthi{piece_bytes}e{pieces}").as_bytes());
        info.extend(hashes);
        info.extend(more.as_bytes());
        info.push(b'e');
        let mut torrent = b"d4:info".to_vec();
        torrent.extend(info);
        torrent.push(b'e');
        Content {
            metainfo: Arc::new(Metainfo::parse(&torrent).unwrap()),
            bytes: bytes.into(),
            folder,
        }
    }

    /// The torrent of these files, to seed.
    pub(crate) fn seeded(&self) -> Arc<SeededTorrent> {
        let folder = self.folder.path();
        let files = self.metainfo.files.iter();
        let stamps = files.map(|file| stamp(&folder.join(file.path.iter().collect::<PathBuf>())));
        let metainfo = Arc::clone(&self.metainfo);
        let torrent = SeededTorrent::new(metainfo, folder, stamps.collect(), BTreeMap::new());
        Arc::new(torrent.unwrap())
    }

    /// Whether all files are below `folder`, byte by byte.
    pub(crate) fn assert_is_in(&self, folder: &Path) {
        for file in self.metainfo.files.iter().filter(|file| !file.pad) {
            let path: PathBuf = file.path.iter().collect();
            let found = fs::read(folder.join(&path)).unwrap();
            let start = file.offset as usize;
            let due = &self.bytes[start..start + file.length as usize];
            assert!(found == due, "{}", path.display());
        }
    }
}
