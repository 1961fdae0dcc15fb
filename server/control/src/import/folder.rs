//! Where the clients keep their state, and reading it: a thin layer over the file system.

use super::{Client, ImportError};
use proto::bencode::Limits;
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The most torrents that are taken out of one folder. One with more is refused.
pub const TORRENTS_MAX: usize = 4 << 20;
/// The longest settings file that is read, in bytes.
const SETTINGS_BYTES_MAX: u64 = 16 << 20;
/// What rTorrent puts behind the name of a torrent's file.
const RTORRENT_SESSION: &str = "rtorrent";
const RTORRENT_RESUME: &str = "libtorrent_resume";

/// The files of one torrent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// The name that its files have in common: for most clients the info-hash in hex.
    pub stem: String,
    /// Its `.torrent` file.
    pub torrent: Option<PathBuf>,
    /// Its `.magnet` file.
    pub magnet: Option<PathBuf>,
    /// What the client remembers of it.
    pub resume: Option<PathBuf>,
    /// What rTorrent's library remembers of it.
    pub library: Option<PathBuf>,
}

/// A client's folder.
#[derive(Clone, Debug, Default)]
pub struct Folder {
    /// Its torrents in the order of the client's queue, then of their names.
    pub sources: Vec<Source>,
    /// The categories that have a save path.
    pub categories: Vec<(String, PathBuf)>,
    /// The peers of a torrent that has no number of its own.
    pub peers_max: u64,
    /// Whether the client looks to be running.
    pub in_use: bool,
    /// Whether there is a data base beside the files, which is not read.
    pub data_base: bool,
}

/// A file's bytes and when it was written, in nanoseconds since 1970.
pub struct Bytes {
    /// All of it.
    pub bytes: Vec<u8>,
    /// Its modification time.
    pub written_ns: i64,
}

/// Reads a file of at most as many bytes as we read of bencode.
///
/// # Errors
///
/// Why not, in words.
pub fn read(path: &Path) -> Result<Bytes, String> {
    read_at_most(path, u64::from(Limits::METAINFO_OWN.bytes_max))
}

fn read_at_most(path: &Path, bytes_max: u64) -> Result<Bytes, String> {
    let failed = |error: std::io::Error| format!("{path:?}: {error}");
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    let mut bytes = Vec::new();
    let read = file.take(bytes_max + 1).read_to_end(&mut bytes);
    if read.map_err(failed)? as u64 > bytes_max {
        return Err(format!("{path:?} has more than {bytes_max} bytes"));
    }
    let written_ns = crate::hashing::stamp_of(&metadata).mtime_ns;
    Ok(Bytes { bytes, written_ns })
}

/// Finds the torrents of a client in `folder`.
///
/// # Errors
///
/// [`ImportError`].
pub fn find(client: Client, folder: &Path) -> Result<Folder, ImportError> {
    match client {
        Client::Qbittorrent => qbittorrent(folder),
        Client::Transmission => transmission(folder),
        Client::Rtorrent => rtorrent(folder),
    }
}

fn qbittorrent(folder: &Path) -> Result<Folder, ImportError> {
    let inside = [
        "",
        "BT_backup",
        "data/BT_backup",
        "qBittorrent/data/BT_backup",
    ];
    let has = |extension, path: &PathBuf| has_files(path, extension);
    let mut places = inside.iter().map(|inside| folder.join(inside));
    let Some(backup) = places.find(|place| has("fastresume", place)) else {
        let near = [
            folder.to_owned(),
            folder.join("data"),
            folder.join("qBittorrent/data"),
        ];
        return Err(
            match near.iter().find(|near| near.join("torrents.db").exists()) {
                Some(near) => ImportError::DataBase(near.join("torrents.db")),
                None => nothing(Client::Qbittorrent, folder),
            },
        );
    };
    let mut sources = pairs(&backup, "torrent", &backup, "fastresume")?;
    if let Ok(queue) = read_at_most(&backup.join("queue"), SETTINGS_BYTES_MAX) {
        let queue = String::from_utf8_lossy(&queue.bytes).into_owned();
        let place: HashMap<&str, usize> = queue.lines().map(str::trim).zip(0..).collect();
        // Those that are not in the queue come last.
        sources.sort_by_key(|source| {
            let place = place.get(source.stem.as_str());
            place.copied().unwrap_or(usize::MAX)
        });
    }
    // Beside the folder, in a profile of its own, or in the user's folder for settings.
    let settings = [".", "..", "../../config", "../../../../.config/qBittorrent"];
    let settings = settings.map(|place| backup.join(place).join("categories.json"));
    let settings = settings
        .iter()
        .find_map(|path| read_at_most(path, SETTINGS_BYTES_MAX).ok());
    let categories = settings.map(|json| super::qbittorrent::categories(&json.bytes));
    Ok(Folder {
        sources,
        categories: categories.unwrap_or_default(),
        data_base: backup.join("../torrents.db").exists(),
        ..Folder::default()
    })
}

fn transmission(folder: &Path) -> Result<Folder, ImportError> {
    let inside = ["", ".config/transmission-daemon", "info"];
    let mut places = inside.iter().map(|inside| folder.join(inside));
    let Some(home) = places.find(|place| has_files(&place.join("resume"), "resume")) else {
        return Err(nothing(Client::Transmission, folder));
    };
    let (torrents, resume) = (home.join("torrents"), home.join("resume"));
    let mut sources = pairs(&torrents, "torrent", &resume, "resume")?;
    for source in &mut sources {
        let magnet = torrents.join(format!("{}.magnet", source.stem));
        source.magnet = Some(magnet).filter(|path| path.exists());
    }
    let settings = read_at_most(&home.join("settings.json"), SETTINGS_BYTES_MAX);
    let settings = settings.map_or_else(|_| Vec::new(), |settings| settings.bytes);
    Ok(Folder {
        sources,
        peers_max: super::transmission::peers_max(&settings),
        ..Folder::default()
    })
}

fn rtorrent(folder: &Path) -> Result<Folder, ImportError> {
    let inside = ["", ".session", "session", ".rtorrent.session"];
    let mut places = inside.iter().map(|inside| folder.join(inside));
    let Some(session) = places.find(|place| has_files(place, "torrent")) else {
        return Err(nothing(Client::Rtorrent, folder));
    };
    let mut sources: Vec<Source> = Vec::new();
    for (stem, torrent) in files(&session, "torrent")? {
        let beside = |extension: &str| {
            let path = session.join(format!("{stem}.torrent.{extension}"));
            Some(path).filter(|path| path.exists())
        };
        sources.push(Source {
            resume: beside(RTORRENT_SESSION),
            library: beside(RTORRENT_RESUME),
            torrent: Some(torrent),
            magnet: None,
            stem,
        });
    }
    Ok(Folder {
        sources,
        in_use: session.join("rtorrent.lock").symlink_metadata().is_ok(),
        ..Folder::default()
    })
}

fn nothing(client: Client, folder: &Path) -> ImportError {
    let folder = folder.to_owned();
    match folder.is_dir() {
        true => ImportError::Nothing { client, folder },
        false => ImportError::Folder {
            error: std::io::Error::from(std::io::ErrorKind::NotFound),
            folder,
        },
    }
}

/// The torrents whose files have these extensions, by the rest of their names.
fn pairs(
    torrents: &Path,
    torrent: &str,
    resumes: &Path,
    resume: &str,
) -> Result<Vec<Source>, ImportError> {
    let mut sources: BTreeMap<String, Source> = BTreeMap::new();
    let mut entry = |stem: String, put: &dyn Fn(&mut Source)| {
        let source = sources.entry(stem.clone()).or_default();
        source.stem = stem;
        put(source);
    };
    if torrents.is_dir() {
        for (stem, path) in files(torrents, torrent)? {
            entry(stem, &|source| source.torrent = Some(path.clone()));
        }
    }
    for (stem, path) in files(resumes, resume)? {
        entry(stem, &|source| source.resume = Some(path.clone()));
    }
    Ok(sources.into_values().collect())
}

/// Whether there is a file with this extension.
fn has_files(folder: &Path, extension: &str) -> bool {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return false;
    };
    let mut names = entries
        .flatten()
        .map(|entry| PathBuf::from(entry.file_name()));
    names.any(|name| name.extension() == Some(OsStr::new(extension)))
}

/// The files with this extension, by the rest of their names, in order.
fn files(folder: &Path, extension: &str) -> Result<BTreeMap<String, PathBuf>, ImportError> {
    let failed = |error| ImportError::Folder {
        folder: folder.to_owned(),
        error,
    };
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let name = PathBuf::from(entry.map_err(failed)?.file_name());
        if name.extension() != Some(OsStr::new(extension)) {
            continue;
        }
        if found.len() == TORRENTS_MAX {
            return Err(ImportError::TooMany(folder.to_owned()));
        }
        // The clients' names are info-hashes, or at worst a torrent's name in UTF-8.
        if let Some(stem) = name.file_stem().and_then(OsStr::to_str) {
            found.insert(stem.to_owned(), folder.join(&name));
        }
    }
    Ok(found)
}
