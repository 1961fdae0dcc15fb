//! From a path to the sorted list of the files that a torrent of it holds.
//!
//! Order: files are sorted by the bytes of their whole path below the root, `/` counted as a byte
//! among the others (`a.txt` before `a/b`, `B` before `a`). That is the order of mktorrent, and of
//! transmission-create wherever it does not ignore case (it sorts `a` before `B`); libtorrent keeps
//! the order that its caller gives for version 1. So the info-hashes agree.
//!
//! What is in: regular files, empty ones and hidden ones too, under every name that is UTF-8. What
//! is left out: empty directories, which version 1 cannot hold; FIFOs, sockets and devices, which
//! are never opened; symbolic links, unless [`SymlinkPolicy::Follow`].
//!
//! Memory: about 100 bytes for each file, and a note for each of the first [`SKIPS_SHOWN_MAX`]
//! things left out. Limits: [`FILES_MAX`], and the depth that a torrent's path may have.

use super::CreateError;
use crate::hashing::{DataFile, FileFault, Links, settled, special_kind, stamp_of};
use proto::limits::PATH_DEPTH_MAX;
use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::fs::{DirEntry, Metadata};
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Files in one torrent: more make a `.torrent` that no client loads.
pub const FILES_MAX: usize = 4_000_000;

/// How many of the things left out are named; the rest are counted.
pub const SKIPS_SHOWN_MAX: usize = 100;

/// After how many entries the caller is asked whether to go on.
const REPORT_ENTRIES: usize = 1024;

/// What to do with a symbolic link below the root. The root itself is always followed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SymlinkPolicy {
    /// Leave it out, with a note.
    #[default]
    Skip,
    /// Take what it points to as if it were there, if the link is relative and its target lies
    /// beneath the root; leave it out with a note otherwise.
    Follow,
    /// Refuse.
    Error,
}

/// Something that is not in the torrent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Skip {
    /// Its path below the root.
    pub path: PathBuf,
    /// Why.
    pub reason: String,
}

/// What is not in the torrent.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Skips {
    /// The first [`SKIPS_SHOWN_MAX`].
    pub shown: Vec<Skip>,
    /// How many there are in all.
    pub count: u64,
}

impl Skips {
    fn add(&mut self, path: &[u8], reason: impl Into<String>) {
        self.count += 1;
        if self.shown.len() < SKIPS_SHOWN_MAX {
            let path = as_path(path).to_owned();
            self.shown.push(Skip {
                path,
                reason: reason.into(),
            });
        }
    }
}

/// What a torrent is made of.
#[derive(Debug)]
pub struct Walked {
    /// The directory that the paths of the files start from.
    pub root: PathBuf,
    /// The name of the file or directory.
    pub name: String,
    /// Whether the torrent is a directory.
    pub is_directory: bool,
    /// The files in order, each with a settled stamp.
    pub files: Vec<DataFile>,
    /// What was left out.
    pub skips: Skips,
}

impl Walked {
    /// The bytes of all files.
    pub fn content_length(&self) -> u64 {
        self.files
            .iter()
            .filter_map(|file| file.stamp)
            .map(|stamp| stamp.size)
            .sum()
    }

    /// The directory that holds a file or directory of the torrent's name, which is the content.
    pub fn data_dir(&self) -> Option<PathBuf> {
        let (content, parent) = if self.is_directory {
            (self.root.file_name()?.as_bytes(), self.root.parent()?)
        } else {
            (&*self.files.first()?.path, self.root.as_path())
        };
        (content == self.name.as_bytes()).then(|| parent.to_owned())
    }
}

/// Lists the files of `path`. `exclude` names files to leave out, such as the one about to be
/// written; `progress` is told now and then how many files there are so far, and may stop the walk.
pub fn walk(
    path: &Path,
    policy: SymlinkPolicy,
    exclude: &[PathBuf],
    progress: &mut dyn FnMut(u64) -> ControlFlow<()>,
) -> Result<Walked, CreateError> {
    let path = path
        .canonicalize()
        .map_err(|error| io_error("find", path, error))?;
    let metadata = path
        .metadata()
        .map_err(|error| io_error("look at", &path, error))?;
    let name = path
        .file_name()
        .map(|name| utf8(Path::new(name)))
        .transpose()?
        .unwrap_or_default();
    let name = name.to_owned();
    if metadata.is_file() {
        let root = path.parent().unwrap_or(Path::new("/")).to_owned();
        let stamped = settled_metadata(&path, || path.symlink_metadata())?;
        let file = DataFile {
            path: name.as_bytes().into(),
            stamp: Some(stamp_of(&stamped)),
        };
        check_readable(&path)?;
        let (files, skips) = (vec![file], Skips::default());
        return Ok(Walked {
            root,
            name,
            is_directory: false,
            files,
            skips,
        });
    }
    if let (false, Some(kind)) = (metadata.is_dir(), special_kind(&metadata.file_type())) {
        return Err(CreateError::File {
            path,
            fault: FileFault::NotRegular { kind },
        });
    }
    let excluded = exclude
        .iter()
        .filter_map(|path| path.metadata().ok())
        .map(|m| identity(&m));
    let mut walk = Walk {
        root: path,
        policy,
        excluded: excluded.collect(),
        files: Vec::new(),
        skips: Skips::default(),
        directories: Vec::new(),
        entries: 0,
        progress,
    };
    let ancestors = vec![identity(&metadata)];
    walk.directories.push(Directory {
        path: Vec::new(),
        depth: 0,
        ancestors,
    });
    while let Some(directory) = walk.directories.pop() {
        walk.directory(&directory)?;
    }
    let Walk {
        root,
        mut files,
        skips,
        ..
    } = walk;
    files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    files.shrink_to_fit();
    Ok(Walked {
        root,
        name,
        is_directory: true,
        files,
        skips,
    })
}

/// Device and inode.
type Identity = (u64, u64);

fn identity(metadata: &Metadata) -> Identity {
    (metadata.dev(), metadata.ino())
}

/// A directory that is still to be listed.
struct Directory {
    /// Below the root; empty for the root itself.
    path: Vec<u8>,
    depth: usize,
    /// The directories that it lies in and itself, to tell a link into a loop. Kept only where
    /// links are followed.
    ancestors: Vec<Identity>,
}

struct Walk<'a> {
    root: PathBuf,
    policy: SymlinkPolicy,
    excluded: Vec<Identity>,
    files: Vec<DataFile>,
    skips: Skips,
    directories: Vec<Directory>,
    entries: usize,
    progress: &'a mut dyn FnMut(u64) -> ControlFlow<()>,
}

impl Walk<'_> {
    fn directory(&mut self, directory: &Directory) -> Result<(), CreateError> {
        let path = self.root.join(as_path(&directory.path));
        let failed = |error| io_error("list the folder", &path, error);
        for entry in std::fs::read_dir(&path).map_err(failed)? {
            self.entry(directory, &entry.map_err(failed)?)?;
            self.entries += 1;
            if self.entries.is_multiple_of(REPORT_ENTRIES) {
                let files = self.files.len() as u64;
                if (self.progress)(files).is_break() {
                    return Err(CreateError::Stopped);
                }
            }
        }
        Ok(())
    }

    fn entry(&mut self, directory: &Directory, entry: &DirEntry) -> Result<(), CreateError> {
        let mut path = directory.path.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(entry.file_name().as_bytes());
        let whole = entry.path();
        let file_type = entry
            .file_type()
            .map_err(|error| io_error("look at", &whole, error))?;
        if file_type.is_file() {
            let metadata = settled_metadata(&whole, || entry.metadata())?;
            self.file(path, &whole, &metadata)
        } else if file_type.is_dir() {
            self.subdirectory(directory, path, &whole, || entry.metadata())
        } else if file_type.is_symlink() {
            self.link(directory, path, &whole)
        } else {
            let kind = special_kind(&file_type).unwrap_or("a special file");
            self.skips.add(&path, format!("it is {kind}"));
            Ok(())
        }
    }

    fn file(
        &mut self,
        path: Vec<u8>,
        whole: &Path,
        metadata: &Metadata,
    ) -> Result<(), CreateError> {
        // Between listing and looking it may have become something else.
        if let Some(kind) = special_kind(&metadata.file_type()) {
            let fault = FileFault::NotRegular { kind };
            return Err(CreateError::File {
                path: whole.to_owned(),
                fault,
            });
        }
        if self.excluded.contains(&identity(metadata)) {
            self.skips
                .add(&path, "it is the file that the torrent is written to");
            return Ok(());
        }
        utf8(as_path(&path))?;
        check_readable(whole)?;
        if self.files.len() == FILES_MAX {
            return Err(CreateError::TooManyFiles {
                root: self.root.clone(),
            });
        }
        self.files.push(DataFile {
            path: path.into(),
            stamp: Some(stamp_of(metadata)),
        });
        Ok(())
    }

    fn subdirectory(
        &mut self,
        parent: &Directory,
        path: Vec<u8>,
        whole: &Path,
        metadata: impl FnOnce() -> std::io::Result<Metadata>,
    ) -> Result<(), CreateError> {
        let depth = parent.depth + 1;
        if depth >= PATH_DEPTH_MAX {
            return Err(CreateError::TooDeep {
                path: whole.to_owned(),
            });
        }
        let mut ancestors = Vec::new();
        if self.policy == SymlinkPolicy::Follow {
            let metadata = metadata().map_err(|error| io_error("look at", whole, error))?;
            if parent.ancestors.contains(&identity(&metadata)) {
                self.skips
                    .add(&path, "it leads back to a folder that it lies in");
                return Ok(());
            }
            ancestors.clone_from(&parent.ancestors);
            ancestors.push(identity(&metadata));
        }
        self.directories.push(Directory {
            path,
            depth,
            ancestors,
        });
        Ok(())
    }

    fn link(
        &mut self,
        directory: &Directory,
        path: Vec<u8>,
        whole: &Path,
    ) -> Result<(), CreateError> {
        match self.policy {
            SymlinkPolicy::Error => Err(CreateError::Symlink {
                path: whole.to_owned(),
            }),
            SymlinkPolicy::Skip => {
                self.skips.add(&path, "it is a symbolic link");
                Ok(())
            }
            SymlinkPolicy::Follow => match self.target_beneath(&path) {
                Ok(metadata) if metadata.is_dir() => {
                    self.subdirectory(directory, path, whole, || Ok(metadata))
                }
                Ok(metadata) if metadata.is_file() => {
                    let metadata = settled_metadata(whole, || self.target_beneath(&path))?;
                    self.file(path, whole, &metadata)
                }
                Ok(metadata) => {
                    let kind = special_kind(&metadata.file_type()).unwrap_or("a special file");
                    self.skips
                        .add(&path, format!("it is a symbolic link to {kind}"));
                    Ok(())
                }
                Err(error) => {
                    self.skips.add(&path, reason_of_link(&error));
                    Ok(())
                }
            },
        }
    }

    /// What the link at `path` leads to, if that lies beneath the root. Nothing is opened for
    /// reading.
    fn target_beneath(&self, path: &[u8]) -> std::io::Result<Metadata> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let root = rustix::fs::open(&self.root, flags | OFlags::DIRECTORY, Mode::empty())?;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let target = rustix::fs::openat2(root, as_path(path), flags, Mode::empty(), resolve)?;
        std::fs::File::from(target).metadata()
    }
}

/// How links are treated when the files of a walk are opened.
pub(super) fn links_of(policy: SymlinkPolicy) -> Links {
    match policy {
        SymlinkPolicy::Follow => Links::Beneath,
        SymlinkPolicy::Skip | SymlinkPolicy::Error => Links::Refused,
    }
}

/// Why a link was not followed.
fn reason_of_link(error: &std::io::Error) -> String {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOENT) => "it is a symbolic link to nothing".into(),
        Some(Errno::LOOP) => "it is a symbolic link to itself".into(),
        Some(Errno::XDEV) => {
            "it is a symbolic link that is absolute or leads outside the folder".into()
        }
        _ => format!("it is a symbolic link that cannot be followed: {error}"),
    }
}

/// Metadata of the file at `path` whose stamp shows every later change.
fn settled_metadata(
    path: &Path,
    mut metadata: impl FnMut() -> std::io::Result<Metadata>,
) -> Result<Metadata, CreateError> {
    let metadata = || {
        metadata().map_err(|error| FileFault::Io {
            operation: "read its metadata",
            error,
        })
    };
    settled(metadata).map_err(|fault| CreateError::File {
        path: path.to_owned(),
        fault,
    })
}

/// Refuses an unreadable file now, not after hours of hashing.
fn check_readable(path: &Path) -> Result<(), CreateError> {
    match rustix::fs::accessat(CWD, path, Access::READ_OK, AtFlags::EACCESS) {
        Err(Errno::ACCESS) => {
            let fault = FileFault::Io {
                operation: "open it",
                error: Errno::ACCESS.into(),
            };
            Err(CreateError::File {
                path: path.to_owned(),
                fault,
            })
        }
        // Any other answer says nothing about reading; opening the file will.
        _ => Ok(()),
    }
}

/// The path as text, or a refusal that shows its bytes.
fn utf8(path: &Path) -> Result<&str, CreateError> {
    path.to_str().ok_or_else(|| CreateError::NotUtf8 {
        path: path.as_os_str().as_bytes().escape_ascii().to_string(),
    })
}

fn as_path(bytes: &[u8]) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(bytes))
}

fn io_error(operation: &'static str, path: &Path, error: std::io::Error) -> CreateError {
    CreateError::Io {
        operation,
        path: path.to_owned(),
        error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn write(root: &Path, files: &[&str]) {
        for file in files {
            let path = root.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, file).unwrap();
        }
    }

    fn walk_with(root: &Path, policy: SymlinkPolicy) -> Result<Walked, CreateError> {
        walk(root, policy, &[], &mut |_| ControlFlow::Continue(()))
    }

    fn paths(walked: &Walked) -> Vec<&str> {
        walked
            .files
            .iter()
            .map(|file| file.path().to_str().unwrap())
            .collect()
    }

    fn skips(walked: &Walked) -> Vec<(&str, &str)> {
        let mut skips: Vec<_> = walked
            .skips
            .shown
            .iter()
            .map(|skip| (skip.path.to_str().unwrap(), skip.reason.as_str()))
            .collect();
        skips.sort_unstable();
        skips
    }

    #[test]
    fn files_come_in_the_order_of_their_whole_paths() {
        let dir = tempfile::tempdir().unwrap();
        let files = [
            "é/ü", "a/x", "a.b/x", "a!", "a/Z", "Zz", "ab/c", ".hid", "ab.txt", "_u",
        ];
        write(dir.path(), &files);
        fs::write(dir.path().join("empty"), "").unwrap();
        fs::create_dir_all(dir.path().join("no/files/here")).unwrap();
        let walked = walk_with(dir.path(), SymlinkPolicy::Skip).unwrap();
        let expected = [
            ".hid", "Zz", "_u", "a!", "a.b/x", "a/Z", "a/x", "ab.txt", "ab/c", "empty", "é/ü",
        ];
        assert_eq!(paths(&walked), expected);
        assert!(walked.is_directory && walked.skips.count == 0);
        assert_eq!(
            walked.name,
            dir.path().file_name().unwrap().to_str().unwrap()
        );
        let sizes: u64 = files.iter().map(|file| file.len() as u64).sum();
        assert_eq!(walked.content_length(), sizes);
    }

    #[test]
    fn a_single_file_is_named_alone_and_found_through_a_link() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &["file", "other"]);
        symlink("file", dir.path().join("link")).unwrap();
        for path in ["file", "link"] {
            let walked = walk_with(&dir.path().join(path), SymlinkPolicy::Error).unwrap();
            assert_eq!(paths(&walked), ["file"]);
            assert_eq!((walked.name.as_str(), walked.is_directory), ("file", false));
            assert_eq!(walked.root, dir.path().canonicalize().unwrap());
        }
    }

    #[test]
    fn links_are_skipped_refused_or_followed_beneath_the_root() {
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("root");
        write(outer.path(), &["outside", "root/folder/file"]);
        for (target, link) in [
            ("folder/file", "to-file"),
            ("folder", "to-folder"),
            ("../outside", "to-outside"),
            ("/etc/passwd", "to-absolute"),
            ("nothing", "to-nothing"),
            ("to-itself", "to-itself"),
            ("..", "folder/to-root"),
        ] {
            symlink(target, root.join(link)).unwrap();
        }
        let skipped = walk_with(&root, SymlinkPolicy::Skip).unwrap();
        assert_eq!(paths(&skipped), ["folder/file"]);
        assert_eq!(skipped.skips.count, 7);
        assert!(matches!(
            walk_with(&root, SymlinkPolicy::Error),
            Err(CreateError::Symlink { path }) if path.starts_with(&root)
        ));
        let followed = walk_with(&root, SymlinkPolicy::Follow).unwrap();
        assert_eq!(
            paths(&followed),
            ["folder/file", "to-file", "to-folder/file"]
        );
        let outside = "it is a symbolic link that is absolute or leads outside the folder";
        let back = "it leads back to a folder that it lies in";
        assert_eq!(
            skips(&followed),
            [
                ("folder/to-root", back),
                ("to-absolute", outside),
                ("to-folder/to-root", back),
                ("to-itself", "it is a symbolic link to itself"),
                ("to-nothing", "it is a symbolic link to nothing"),
                ("to-outside", outside),
            ]
        );
    }

    #[test]
    fn special_files_and_the_output_are_left_out() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &["file", "out.torrent"]);
        let fifo = dir.path().join("fifo");
        rustix::fs::mknodat(CWD, &fifo, rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
        let exclude = [dir.path().join("out.torrent"), dir.path().join("absent")];
        let mut go_on = |_| ControlFlow::Continue(());
        let walked = walk(dir.path(), SymlinkPolicy::Skip, &exclude, &mut go_on).unwrap();
        assert_eq!(paths(&walked), ["file"]);
        assert_eq!(
            skips(&walked),
            [
                ("fifo", "it is a FIFO"),
                (
                    "out.torrent",
                    "it is the file that the torrent is written to"
                ),
                ("socket", "it is a socket"),
            ]
        );
        assert!(matches!(
            walk_with(&fifo, SymlinkPolicy::Skip),
            Err(CreateError::File {
                fault: FileFault::NotRegular { kind: "a FIFO" },
                ..
            })
        ));
    }

    #[test]
    fn names_that_are_not_utf8_are_refused_and_shown_escaped() {
        let dir = tempfile::tempdir().unwrap();
        let name = std::ffi::OsStr::from_bytes(b"caf\xe9\x1b[2J");
        fs::create_dir(dir.path().join(name)).unwrap();
        assert!(
            walk_with(dir.path(), SymlinkPolicy::Skip).is_ok(),
            "no file has the name"
        );
        fs::write(dir.path().join(name).join("x"), "").unwrap();
        let Err(CreateError::NotUtf8 { path }) = walk_with(dir.path(), SymlinkPolicy::Skip) else {
            panic!("accepted")
        };
        assert_eq!(path, "caf\\xe9\\x1b[2J/x");
    }

    #[test]
    fn depth_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let deep = |depth| format!("{}x", "d/".repeat(depth - 1));
        write(dir.path(), &[&deep(PATH_DEPTH_MAX)]);
        assert_eq!(
            walk_with(dir.path(), SymlinkPolicy::Skip)
                .unwrap()
                .files
                .len(),
            1
        );
        write(dir.path(), &[&deep(PATH_DEPTH_MAX + 1)]);
        let refused = walk_with(dir.path(), SymlinkPolicy::Skip);
        assert!(matches!(refused, Err(CreateError::TooDeep { .. })));
    }

    #[test]
    fn the_caller_can_stop_a_walk() {
        let dir = tempfile::tempdir().unwrap();
        for file in 0..REPORT_ENTRIES {
            fs::write(dir.path().join(file.to_string()), "").unwrap();
        }
        let stopped = walk(dir.path(), SymlinkPolicy::Skip, &[], &mut |_| {
            ControlFlow::Break(())
        });
        assert!(matches!(stopped, Err(CreateError::Stopped)));
    }

    #[test]
    fn notes_are_bounded() {
        let mut skips = Skips::default();
        for _ in 0..1000 {
            skips.add(b"x", "reason");
        }
        assert_eq!((skips.shown.len(), skips.count), (SKIPS_SHOWN_MAX, 1000));
    }
}
