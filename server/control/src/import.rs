//! Taking over the torrents of other clients: reads their state folders and makes of each torrent
//! what the store of torrents keeps, with no byte of its data read.
//!
//! - [`qbittorrent`], [`transmission`], [`rtorrent`] decode what one client writes, from bytes.
//! - [`folder`] finds and reads those files.
//! - [`upheld`] decides which pieces are believed; the rest has to be hashed.
//! - [`Importer`] puts that together, torrent by torrent: the memory of one at a time.
//!
//! The other client's files are as little trusted as a stranger's: decoders are bounded, and no
//! path leads out of a torrent's save folder.
//!
//! Does not: write anything; read qBittorrent's data base (`torrents.db`); take over settings of
//! the whole client.

pub mod folder;
mod note;
pub mod qbittorrent;
mod resume;
pub mod rtorrent;
#[cfg(test)]
mod tests;
pub mod transmission;
mod upheld;

pub use note::Note;
pub use resume::{DataPlace, Exact, Hashed, Resume, ResumeError, Stamps};

use crate::catalog::describe;
use crate::verify::PieceSet;
use engine::layout::{LayoutError, StorageLayout};
use engine::picker::Priority;
use folder::{Folder, Source};
use proto::bencode::{Document, Limits};
use proto::ids::InfoHashV1;
use proto::magnet::{Magnet, MagnetError};
use proto::metainfo::{Metainfo, MetainfoError};
use state::{Condition, Details, LastError, NewTorrent, Place, Summary, Verified};
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

/// A client whose torrents can be taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// qBittorrent 4 and 5.
    Qbittorrent,
    /// Transmission 2 to 4.
    Transmission,
    /// rTorrent, with or without ruTorrent.
    Rtorrent,
}

impl Client {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Client::Qbittorrent => "qBittorrent",
            Client::Transmission => "Transmission",
            Client::Rtorrent => "rTorrent",
        }
    }

    /// Where its torrents are, in words.
    fn place(self) -> &'static str {
        match self {
            Client::Qbittorrent => "BT_backup with .fastresume files",
            Client::Transmission => "folders torrents and resume",
            Client::Rtorrent => "session folder with .torrent files",
        }
    }
}

/// Nothing can be taken over.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// A folder cannot be read.
    #[error("cannot read the folder {folder:?}: {error}")]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What the system answered.
        error: io::Error,
    },
    /// The folder holds no state of the client.
    #[error("{folder:?} has no torrents of {}: no {}", client.name(), client.place())]
    Nothing {
        /// Whose state was looked for.
        client: Client,
        /// The folder.
        folder: PathBuf,
    },
    /// qBittorrent keeps them in a data base.
    #[error(
        "qBittorrent keeps its resume data in the data base {0:?}, which is not read; let it write \
         files: Options, Advanced, \"Resume data storage type\": \"Fastresume files\", restart it, \
         then quit it"
    )]
    DataBase(PathBuf),
    /// There are more torrents than are taken.
    #[error("{0:?} has more torrents than {max}", max = folder::TORRENTS_MAX)]
    TooMany(PathBuf),
}

/// Why one torrent is not taken over.
#[derive(Debug, thiserror::Error)]
pub enum SkipReason {
    /// A file cannot be read.
    #[error("{0}")]
    File(String),
    /// The client remembers nothing of it.
    #[error("there are no resume data beside its .torrent file")]
    NoResume,
    /// There is neither metainfo nor a magnet link.
    #[error("there is no .torrent file beside its resume data, and no magnet link in them")]
    NoTorrent,
    /// Its `.torrent` file is none.
    #[error("its .torrent file: {0}")]
    Metainfo(#[from] MetainfoError),
    /// Its magnet link is none.
    #[error("its magnet link: {0}")]
    Magnet(#[from] MagnetError),
    /// It has only version 2 hashes.
    #[error("it has version 2 hashes only (BEP 52), which are not served yet")]
    OnlyV2,
    /// It is a magnet link that rTorrent has no metadata of yet.
    #[error("it is a magnet link whose metadata rTorrent does not have yet; add the link again")]
    RtorrentMagnet,
    /// Its files do not add up.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// Its resume data cannot be read.
    #[error("its resume data: {0}")]
    Resume(#[from] ResumeError),
}

/// What of the other client's is to be called otherwise here.
#[derive(Clone, Debug, Default)]
pub struct Maps {
    /// Folders and what they are here; the longest that fits is taken.
    pub paths: Vec<(PathBuf, PathBuf)>,
    /// Categories or labels and the category that they are here; none if that is empty.
    pub categories: Vec<(String, String)>,
}

/// A torrent as it is to be kept.
#[derive(Clone, Debug)]
pub struct Imported {
    /// Which one.
    pub info_hash: InfoHashV1,
    /// What is kept of it.
    pub torrent: NewTorrent,
    /// How many pieces the other client has.
    pub pieces_claimed: u32,
    /// How many of them are believed.
    pub pieces_upheld: u32,
    /// What has no counterpart here.
    pub notes: BTreeSet<Note>,
}

/// Reads a client's torrents, one by one.
pub struct Importer {
    client: Client,
    folder: Folder,
    maps: Maps,
    /// Now, in seconds since 1970: when torrents were added that do not say.
    now_s: u64,
}

impl Importer {
    /// Finds the torrents of `client` in `path`.
    ///
    /// # Errors
    ///
    /// [`ImportError`].
    pub fn new(
        client: Client,
        path: &Path,
        maps: Maps,
        now_s: u64,
    ) -> Result<Importer, ImportError> {
        let folder = folder::find(client, path)?;
        Ok(Importer {
            client,
            folder,
            maps,
            now_s,
        })
    }

    /// What was found.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Reads one of the torrents, and looks at its files.
    ///
    /// # Errors
    ///
    /// [`SkipReason`].
    pub fn read(&self, source: &Source) -> Result<Imported, SkipReason> {
        let Some(torrent) = &source.torrent else {
            return self.read_magnet(source);
        };
        let torrent = folder::read(torrent).map_err(SkipReason::File)?;
        let metainfo = match Metainfo::parse_within(&torrent.bytes, &Limits::METAINFO_OWN) {
            Ok(metainfo) => metainfo,
            Err(_) if self.has_magnet(&torrent.bytes) => return self.read_magnet(source),
            Err(error) => return Err(error.into()),
        };
        if self.client == Client::Rtorrent && is_rtorrent_magnet(&torrent.bytes) {
            return Err(SkipReason::RtorrentMagnet);
        }
        let info_hash = metainfo.info_hash_v1.ok_or(SkipReason::OnlyV2)?;
        let files = metainfo.files.iter().map(|file| (file.length, file.pad));
        let layout = StorageLayout::new(&files.collect::<Vec<_>>(), metainfo.piece_length)?;
        let (mut resume, written_ns) = self.resume(source, &torrent.bytes, &metainfo)?;
        self.maps.apply(&mut resume);
        let upheld = upheld::look(&metainfo, &layout, &mut resume, written_ns);
        let claimed = resume.claimed.as_ref().map_or(0, PieceSet::len);
        let complete = resume.seed_mode || claimed == metainfo.piece_count;
        let pieces_upheld = upheld.pieces.len();
        let notes = std::mem::take(&mut resume.notes);
        let mut summary = summary(&mut resume, complete, self.now_s);
        describe(&mut summary, &metainfo);
        summary.save_path = upheld.save_path;
        // Data that were never hashed are believed no more where a claim has failed.
        summary.seed_mode = resume.seed_mode && !upheld.needs_check;
        let mut known = verified(&upheld.pieces);
        if upheld.is_absent {
            // What the client knew is not forgotten, and the data are waited for: they are hashed
            // when they are there, and never fetched again because a mount was missing.
            summary.condition = Condition::Offline;
            summary.seed_mode = resume.seed_mode;
            summary.last_error = Some(LastError {
                at_s: self.now_s,
                text: format!(
                    "none of its files was in {:?} when it was taken over; mount what they lie on, \
                     or say where its data are",
                    summary.save_path
                ),
            });
            if !complete {
                known = resume.claimed.as_ref().map_or(Verified::None, verified);
            }
        } else if upheld.needs_check {
            summary.condition = Condition::NeedsCheck;
        }
        let torrent = NewTorrent {
            summary,
            details: Details {
                renames: upheld.renames,
                ..details(&mut resume, &metainfo)
            },
            metainfo: Some(torrent.bytes),
            verified: known,
            stamps: upheld.stamps,
            totals: resume.totals,
            place: if complete { Place::Out } else { Place::Last },
        };
        Ok(Imported {
            info_hash,
            torrent,
            pieces_claimed: claimed,
            pieces_upheld,
            notes,
        })
    }

    fn resume(
        &self,
        source: &Source,
        torrent: &[u8],
        metainfo: &Metainfo,
    ) -> Result<(Resume, i64), SkipReason> {
        let Some(path) = &source.resume else {
            let inside = || rtorrent::decode_inside(torrent, metainfo);
            let inside = (self.client == Client::Rtorrent).then(inside).flatten();
            return Ok((inside.ok_or(SkipReason::NoResume)?, i64::MIN));
        };
        let kept = folder::read(path).map_err(SkipReason::File)?;
        let resume = match self.client {
            Client::Qbittorrent => qbittorrent::decode(&kept.bytes, Some(metainfo))?,
            Client::Transmission => {
                transmission::decode(&kept.bytes, Some(metainfo), self.folder.peers_max)?
            }
            Client::Rtorrent => {
                let library = source.library.as_ref().map(|path| folder::read(path));
                let library = library.transpose().map_err(SkipReason::File)?;
                let library = library.as_ref().map(|library| library.bytes.as_slice());
                rtorrent::decode(&kept.bytes, library, metainfo)?
            }
        };
        Ok((resume, kept.written_ns))
    }

    fn has_magnet(&self, torrent: &[u8]) -> bool {
        self.client == Client::Transmission && transmission::magnet(torrent).is_some()
    }

    /// Reads a torrent of which the client has no metadata yet.
    fn read_magnet(&self, source: &Source) -> Result<Imported, SkipReason> {
        let resume = source.resume.as_ref().ok_or(SkipReason::NoResume)?;
        let resume = folder::read(resume).map_err(SkipReason::File)?;
        let magnet = match self.client {
            Client::Qbittorrent => qbittorrent::magnet(&resume.bytes),
            Client::Transmission => match (&source.magnet, &source.torrent) {
                (Some(link), _) => {
                    let link = folder::read(link).map_err(SkipReason::File)?;
                    Some(Magnet::parse(String::from_utf8_lossy(&link.bytes).trim())?)
                }
                (None, Some(torrent)) => {
                    let torrent = folder::read(torrent).map_err(SkipReason::File)?;
                    transmission::magnet(&torrent.bytes)
                }
                (None, None) => None,
            },
            Client::Rtorrent => None,
        };
        let magnet = magnet.ok_or(SkipReason::NoTorrent)?;
        let info_hash = magnet.info_hash_v1.ok_or(SkipReason::OnlyV2)?;
        let mut resume = match self.client {
            Client::Transmission => {
                transmission::decode(&resume.bytes, None, self.folder.peers_max)?
            }
            _ => qbittorrent::decode(&resume.bytes, None)?,
        };
        self.maps.apply(&mut resume);
        let notes = std::mem::take(&mut resume.notes);
        let mut summary = summary(&mut resume, false, self.now_s);
        if summary.name.is_empty() {
            summary.name = magnet.name.clone().unwrap_or_else(|| info_hash.to_string());
        }
        summary.info_hash_v2 = magnet.info_hash_v2;
        summary.magnet = Some(magnet.to_string());
        if let Some(DataPlace::Save(place)) = resume.places.first() {
            summary.save_path.clone_from(place);
        }
        let torrent = NewTorrent {
            summary,
            totals: resume.totals,
            place: Place::Last,
            ..NewTorrent::default()
        };
        Ok(Imported {
            info_hash,
            torrent,
            pieces_claimed: 0,
            pieces_upheld: 0,
            notes,
        })
    }
}

impl Maps {
    /// Puts other folders and categories in the place of the client's.
    fn apply(&self, resume: &mut Resume) {
        for place in &mut resume.places {
            let (DataPlace::Save(path) | DataPlace::Incomplete(path) | DataPlace::Content(path)) =
                place;
            let fits = self.paths.iter().filter_map(|(from, to)| {
                let rest = path.strip_prefix(from).ok()?;
                Some((from.components().count(), to, rest))
            });
            if let Some((_, to, rest)) = fits.max_by_key(|(length, _, _)| *length) {
                // Without a slash behind it where nothing follows.
                *path = to.components().chain(rest.components()).collect();
            }
        }
        for (from, to) in &self.categories {
            let is_category = resume.category.as_ref() == Some(from);
            if !is_category && !resume.labels.contains(from) {
                continue;
            }
            resume.labels.retain(|label| label != from);
            resume.category = Some(to.clone()).filter(|to| !to.is_empty());
            break;
        }
    }
}

/// Whether a `.torrent` file of rTorrent stands for a magnet link.
fn is_rtorrent_magnet(torrent: &[u8]) -> bool {
    let document = Document::parse(torrent, &Limits::METAINFO_OWN);
    document.is_ok_and(|document| document.root().get(b"magnet-uri").is_some())
}

/// What the resume data say of the summary.
fn summary(resume: &mut Resume, complete: bool, now_s: u64) -> Summary {
    let added_at_s = resume.added_at_s.unwrap_or(now_s);
    Summary {
        name: resume.name.take().unwrap_or_default(),
        category: resume.category.take(),
        labels: std::mem::take(&mut resume.labels),
        added_at_s,
        // One that was complete when it was added does not always say so.
        completed_at_s: complete.then(|| resume.completed_at_s.unwrap_or(added_at_s)),
        paused: resume.paused,
        sequential: resume.sequential,
        super_seeding: resume.super_seeding,
        limits: resume.limits,
        ..Summary::default()
    }
}

/// What the user has set otherwise than the metainfo say.
fn details(resume: &mut Resume, metainfo: &Metainfo) -> Details {
    let mut priorities = std::mem::take(&mut resume.priorities);
    if priorities
        .iter()
        .all(|&priority| priority == Priority::NORMAL)
    {
        priorities.clear();
    }
    Details {
        priorities,
        trackers: resume.trackers.take().filter(|it| *it != metainfo.trackers),
        web_seeds: resume
            .web_seeds
            .take()
            .filter(|it| *it != metainfo.web_seeds),
        ..Details::default()
    }
}

fn verified(pieces: &PieceSet) -> Verified {
    match pieces.len() {
        0 => Verified::None,
        count if count == pieces.piece_count() => Verified::All,
        _ => Verified::Pieces(pieces.as_bitfield().to_vec()),
    }
}
