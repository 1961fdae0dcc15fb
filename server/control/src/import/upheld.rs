//! Which of the pieces that resume data claim the files on disk still bear out, with no byte of
//! them read: the one place where an import decides what is believed. The rule for operators is in
//! `docs/IMPORT.md`.
//!
//! A piece is believed if every file that it lies in is a regular file that can be opened beneath
//! the save folder, is not longer than the torrent says, reaches over the piece, and has a stamp
//! that the resume data uphold ([`Stamps`]).

use super::note::Note;
use super::resume::{DataPlace, Resume, Stamps};
use crate::hashing::{Links, Root, settled, stamp_of};
use crate::verify::{PieceSet, is_on_disk};
use engine::layout::{FileIndex, FileStamp, StorageLayout};
use engine::picker::Priority;
use proto::ids::PieceIndex;
use proto::metainfo::{File, Metainfo};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// What was found of a torrent's data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Upheld {
    /// The folder that holds the torrent's file or folder.
    pub save_path: PathBuf,
    /// The paths below it of files that lie elsewhere than the metainfo says.
    pub renames: BTreeMap<u32, PathBuf>,
    /// The pieces that are believed.
    pub pieces: PieceSet,
    /// What the files are that all believed pieces in them rest on.
    pub stamps: Vec<Option<FileStamp>>,
    /// Whether pieces that are claimed are not believed, so that the data have to be hashed.
    pub needs_check: bool,
    /// Whether the client knew data of it and none of its files is there: more likely a file system
    /// is not mounted than all of it is gone.
    pub is_absent: bool,
}

/// A file as it was found.
#[derive(Clone, Copy)]
struct Found {
    stamp: FileStamp,
    /// Whether the resume data claim all of its pieces.
    complete: bool,
}

/// What the resume data are held against.
struct Ground<'a> {
    layout: &'a StorageLayout,
    stamps: &'a Stamps,
    priorities: &'a [Priority],
    files: Vec<Option<Found>>,
    /// When the resume data were written, in nanoseconds since 1970.
    written_ns: i64,
}

/// What becomes of a claimed piece.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Holds,
    /// Part of it is in a file that is not wanted and not there.
    Unwanted,
    Fails,
}

/// Looks at the files of a torrent. `written_ns` is when its resume data were written, in
/// nanoseconds since 1970. Adds to the notes of `resume`.
pub fn look(
    metainfo: &Metainfo,
    layout: &StorageLayout,
    resume: &mut Resume,
    written_ns: i64,
) -> Upheld {
    let claimed = resume.claimed.clone();
    let mut upheld = place(metainfo, resume);
    let root = Root::open(&upheld.save_path, Links::Beneath).ok();
    let root = root.filter(|_| upheld.save_path.is_absolute());
    upheld.needs_check = claimed.is_none() && metainfo.piece_count > 0 || resume.uncertain;
    let claims = claimed.unwrap_or_else(|| PieceSet::new(metainfo.piece_count));
    let had_data = !claims.is_empty() || resume.seed_mode;
    resume.note(Note::FolderMissing, root.is_none() && had_data);
    let mut files = Vec::with_capacity(metainfo.files.len());
    for (index, file) in (0..).zip(&metainfo.files) {
        let found = root.as_ref().filter(|_| is_on_disk(file));
        let found = found.and_then(|root| find(root, metainfo, index, resume, &mut upheld));
        let complete = |stamp| Found {
            stamp,
            complete: all_of(layout, &claims, FileIndex(index)),
        };
        files.push(found.map(complete));
    }
    let ground = Ground {
        layout,
        stamps: &resume.stamps,
        priorities: &resume.priorities,
        files,
        written_ns,
    };
    upheld.pieces = PieceSet::new(metainfo.piece_count);
    for piece in claims.iter() {
        match ground.verdict(piece) {
            Verdict::Holds => upheld.pieces.insert(piece),
            // The client has it in a file of its own, not in that which is not wanted.
            Verdict::Unwanted if root.is_some() => {
                resume.notes.insert(Note::UnwantedParts);
            }
            Verdict::Unwanted | Verdict::Fails => upheld.needs_check = true,
        }
    }
    upheld.stamps = ground.stamps_under(&upheld.pieces);
    let mut files = ground.files.iter().zip(&metainfo.files);
    upheld.is_absent = had_data
        && !ground.is_wholly_unwanted()
        && !files.any(|(found, file)| found.is_some() && file.length > 0);
    upheld
}

impl Ground<'_> {
    /// Whether nothing of it is wanted, so that nothing of it is missed.
    fn is_wholly_unwanted(&self) -> bool {
        let skipped = |priority: &Priority| *priority == Priority::SKIP;
        self.priorities.len() >= self.files.len() && self.priorities.iter().all(skipped)
    }

    fn verdict(&self, piece: PieceIndex) -> Verdict {
        let mut verdict = Verdict::Holds;
        for range in self.layout.piece_ranges(piece) {
            let Some(file) = range.file else {
                continue;
            };
            let found = self.files.get(file.0 as usize).copied().flatten();
            let Some(found) = found else {
                let priority = self.priorities.get(file.0 as usize);
                match priority == Some(&Priority::SKIP) {
                    true => verdict = Verdict::Unwanted,
                    false => return Verdict::Fails,
                }
                continue;
            };
            let first = self.layout.pieces_of_file(file).start;
            let within = (piece.0 - first) as usize;
            let end = range.offset + u64::from(range.length);
            let sizes = end..=self.layout.file_length(file);
            let stamps = self.stamps;
            if !sizes.contains(&found.stamp.size)
                || !bears_out(stamps, file.0, within, found, self.written_ns)
            {
                return Verdict::Fails;
            }
        }
        verdict
    }

    /// The stamps of those files that hold bytes of `pieces`.
    fn stamps_under(&self, pieces: &PieceSet) -> Vec<Option<FileStamp>> {
        let stamp = |(index, found): (u32, &Option<Found>)| {
            let mut parts = self.layout.pieces_of_file(FileIndex(index));
            let rests = parts.any(|piece| pieces.contains(PieceIndex(piece)));
            found.filter(|_| rests).map(|found| found.stamp)
        };
        (0..).zip(&self.files).map(stamp).collect()
    }
}

/// Whether the resume data uphold what the file is now, for the piece that is number `within` of
/// the file's. `written_ns` is when they were written.
fn bears_out(stamps: &Stamps, index: u32, within: usize, found: Found, written_ns: i64) -> bool {
    let FileStamp { size, mtime_ns, .. } = found.stamp;
    let mtime_s = mtime_ns.div_euclid(1_000_000_000);
    match stamps {
        Stamps::None => false,
        Stamps::WrittenAfter => mtime_ns <= written_ns,
        Stamps::Exact(files) => files
            .get(index as usize)
            .copied()
            .flatten()
            .is_some_and(|was| was.mtime_s == mtime_s && was.size.is_none_or(|was| was == size)),
        Stamps::Hashed(files) => files.get(index as usize).is_some_and(|hashed| {
            // Writing the other pieces of an incomplete file makes it younger than those that were
            // hashed before; of a complete one, all were hashed after the last was written.
            let at = match found.complete {
                true => hashed.at(within),
                false => hashed.at(within).and_then(|_| hashed.newest()),
            };
            at.is_some_and(|at| mtime_s <= at)
        }),
    }
}

fn all_of(layout: &StorageLayout, claims: &PieceSet, file: FileIndex) -> bool {
    let mut pieces = layout.pieces_of_file(file).map(PieceIndex);
    pieces.all(|piece| claims.contains(piece))
}

/// Where the data are: the first place in which a file of the torrent is, else the first at all.
fn place(metainfo: &Metainfo, resume: &mut Resume) -> Upheld {
    let candidates: Vec<Upheld> = resume
        .places
        .iter()
        .map(|place| candidate(metainfo, resume, place))
        .collect();
    let has_some = |place: &Upheld| {
        let Ok(root) = Root::open(&place.save_path, Links::Beneath) else {
            return false;
        };
        let filled = (0..)
            .zip(&metainfo.files)
            .filter(|(_, file)| file.length > 0);
        let mut filled = filled
            .filter(|(_, file)| is_on_disk(file))
            .take(LOOKED_AT_MAX);
        filled.any(|(index, file)| {
            let mut names = names(metainfo, file, index, resume, place).into_iter();
            names.any(|name| root.open_file(&name).is_ok())
        })
    };
    let chosen = match candidates.len() {
        0 | 1 => 0,
        _ => candidates.iter().position(has_some).unwrap_or(0),
    };
    let incomplete = matches!(resume.places.get(chosen), Some(DataPlace::Incomplete(_)));
    resume.note(Note::IncompleteFolder, incomplete);
    candidates.into_iter().nth(chosen).unwrap_or_default()
}

/// Files of a torrent that are looked for to find its place among several.
const LOOKED_AT_MAX: usize = 64;

/// A place as a save folder and the paths below it.
fn candidate(metainfo: &Metainfo, resume: &Resume, place: &DataPlace) -> Upheld {
    let renames = resume.paths.clone();
    let folder = match place {
        DataPlace::Save(folder) | DataPlace::Incomplete(folder) => {
            let save_path = folder.clone();
            return Upheld {
                save_path,
                renames,
                ..Upheld::default()
            };
        }
        DataPlace::Content(folder) => folder,
    };
    let name = folder.file_name().unwrap_or_default();
    let known = metainfo
        .raw_name
        .as_deref()
        .unwrap_or(metainfo.name.as_bytes());
    let (Some(parent), false) = (folder.parent(), name.is_empty()) else {
        let save_path = folder.clone();
        return Upheld {
            save_path,
            renames,
            ..Upheld::default()
        };
    };
    let mut upheld = Upheld {
        save_path: parent.to_owned(),
        renames,
        ..Upheld::default()
    };
    if name.as_bytes() != known {
        // The folder has another name than the torrent, and every file lies in it.
        for (index, file) in (0..)
            .zip(&metainfo.files)
            .filter(|(_, file)| is_on_disk(file))
        {
            let below: PathBuf = file.path.iter().skip(1).collect();
            upheld
                .renames
                .entry(index)
                .or_insert_with(|| Path::new(name).join(below));
        }
    }
    upheld
}

/// The names below the save folder that a file may have, the likeliest first.
fn names(
    metainfo: &Metainfo,
    file: &File,
    index: u32,
    resume: &Resume,
    place: &Upheld,
) -> Vec<PathBuf> {
    let mut names = match place.renames.get(&index) {
        Some(renamed) => vec![renamed.clone()],
        None => {
            let literal = metainfo.literal_path(file);
            let literal = literal.map(|literal| OsString::from_vec(literal.join(&b'/')).into());
            std::iter::once(file.path.iter().collect())
                .chain(literal)
                .collect()
        }
    };
    if let Some(suffix) = resume.partial_suffix {
        let partial = names.iter().map(|name| {
            let mut name = name.clone().into_os_string();
            name.push(suffix);
            PathBuf::from(name)
        });
        let partial: Vec<PathBuf> = partial.collect();
        names.extend(partial);
    }
    names
}

/// Finds a file, and notes in `place` where it lies if that is not where the metainfo says.
fn find(
    root: &Root,
    metainfo: &Metainfo,
    index: u32,
    resume: &Resume,
    place: &mut Upheld,
) -> Option<FileStamp> {
    let file = metainfo.files.get(index as usize)?;
    let names = names(metainfo, file, index, resume, place);
    for name in names {
        let Ok(metadata) = settled(|| Ok(root.open_file(&name)?.1)) else {
            continue;
        };
        if name != file.path.iter().collect::<PathBuf>() {
            place.renames.insert(index, name);
        }
        return Some(stamp_of(&metadata));
    }
    None
}
