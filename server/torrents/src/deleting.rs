//! The files of a torrent that is gone: which they are, as that is kept, and their deletion.
//!
//! Files are deleted beneath the save folder and nowhere else, with no link on the way; folders of
//! the torrent go when they are empty. Files that another kept torrent names stay
//! ([`crate::sharing`]), and so do those that have changed since the torrent was removed, if that
//! was a while ago: somebody has put them there. Both are logged.
//!
//! Does not: know when to try again ([`crate::burying`]).

use crate::beneath::Beneath;
use crate::moving::naming::is_own;
use crate::moving::way::{Phase, Way};
use crate::reading::{Kept, KeptError};
use crate::renaming::intent;
use crate::sharing::{Remaining, Sharing, own_paths};
use proto::ids::InfoHashV1;
use rustix::io::Errno;
use seedring_io::torrent::Place;
use state::{Handle, Intent};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What a record of files that are to be deleted begins with.
const VERSION: &[u8] = b"1";

/// How long after a torrent is removed its files may still change: its download ends meanwhile.
pub(crate) const ENDING: Duration = Duration::from_secs(60);

/// The files of a torrent that is gone.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Remains {
    /// Where they are, and which of what is there is theirs; the first has all of them.
    folders: Vec<(PathBuf, Whose)>,
    /// Below each of these folders.
    files: Vec<PathBuf>,
    /// What is appended to names of files that are not complete.
    suffix: String,
    /// Whether some of them had data.
    had_data: bool,
    /// The device that they were on, if it was known.
    device: Option<u64>,
    /// When the torrent was removed, in seconds since 1970.
    pub removed_at_s: u64,
    /// Whether what is kept of it says otherwise.
    pub is_other: bool,
}

/// What of a folder is a torrent's that is gone. By the numbers that are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Whose {
    /// What has the names of its files.
    All,
    /// Of that, what is a second name of a file in the first folder.
    Twins,
    /// What a move has copied, under names of its own: others may have put files there since.
    Copies,
}

impl Whose {
    const ALL: [Whose; 3] = [Whose::All, Whose::Twins, Whose::Copies];

    /// What is a torrent's in the folder that a move goes to.
    fn while_at(phase: Phase) -> Whose {
        match phase {
            Phase::Waiting => Whose::Twins,
            Phase::Unmarked | Phase::Copying => Whose::Copies,
            Phase::Switched => Whose::All,
        }
    }
}

/// What came of deleting files.
pub(crate) type Deleted = Result<(), String>;

/// Now, by the clock that files have their times of.
pub(crate) fn now_s() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs())
}

/// The names that a file may have.
pub(crate) fn names(own: PathBuf, suffix: &str) -> Vec<PathBuf> {
    let mut names = Vec::new();
    if !suffix.is_empty() {
        let mut partial = OsString::from(&own);
        partial.push(suffix);
        names.push(partial.into());
    }
    names.push(own);
    names
}

impl Remains {
    /// The files of a torrent that is about to be removed, if it has any; blocks on the disk.
    pub(crate) fn read(
        store: &Handle,
        info_hash: InfoHashV1,
        suffix: &str,
    ) -> Result<Option<Box<Remains>>, KeptError> {
        let kept = Kept::read(store, info_hash)?;
        let intents = store.read_blocking(|view| {
            let intent = |kind| view.intent(kind, &info_hash);
            Ok((intent(Intent::Move)?, intent(Intent::Rename)?))
        })?;
        let Some((_, metainfo)) = &kept.metainfo else {
            return Ok(None);
        };
        let mut files = own_paths(metainfo, &kept.details.renames);
        // What is being moved or renamed may have either name, if that is cut off.
        let renamed = intents.1.and_then(|bytes| intent::decode(&bytes));
        for file in renamed.into_iter().flatten() {
            files.extend([file.change.old, file.change.new]);
        }
        let mut folders = vec![(kept.summary.save_path.clone(), Whose::All)];
        if let Some(way) = intents.0.and_then(|bytes| Way::decode(&bytes)) {
            let whose = Whose::while_at(way.phase);
            let others = [way.to, way.from].into_iter();
            let others = others.filter(|folder| *folder != kept.summary.save_path);
            folders.extend(others.map(|folder| (folder, whose)));
        }
        let device = kept
            .stamps
            .iter()
            .flatten()
            .map(|stamp| stamp.device)
            .next();
        Ok(Some(Box::new(Remains {
            folders,
            files,
            suffix: suffix.to_owned(),
            had_data: kept.pieces_said() > 0,
            device,
            removed_at_s: now_s(),
            is_other: false,
        })))
    }

    /// The same files where a move or a rename, which has ended since, has them: it is this far,
    /// and the torrent is at `place` by it, if it is. What else was known stays so: files that are
    /// left in the old folder are this torrent's, too.
    pub(crate) fn after(mut self, way: &Way, phase: Phase, place: Option<&Place>) -> Remains {
        let renamed = place.into_iter().flat_map(|place| place.paths.values());
        self.files.extend(renamed.cloned());
        let (here, other) = match phase {
            Phase::Switched => (&way.to, &way.from),
            _ => (&way.from, &way.to),
        };
        let mut folders = vec![(here.clone(), Whose::All)];
        if other != here {
            folders.push((other.clone(), Whose::while_at(phase)));
        }
        self.folders
            .retain(|(folder, _)| folder != here && folder != other);
        folders.append(&mut self.folders);
        Remains {
            folders,
            is_other: true,
            ..self
        }
    }

    /// The bytes under which it is kept, with a NUL between all parts, which no path has.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let number = |number: u64| number.to_string().into_bytes();
        let mut parts = vec![
            VERSION.to_vec(),
            number(self.removed_at_s),
            number(u64::from(self.had_data)),
            self.device.map(number).unwrap_or_default(),
            self.suffix.clone().into_bytes(),
            number(self.folders.len() as u64),
        ];
        for (folder, whose) in &self.folders {
            parts.push(folder.as_os_str().as_bytes().to_vec());
            parts.push(number(*whose as u64));
        }
        let files = self.files.iter().map(|file| file.as_os_str());
        parts.extend(files.map(|file| file.as_bytes().to_vec()));
        parts.join(&0)
    }

    /// What was kept; none if these are no such bytes.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Remains> {
        let mut parts = bytes.split(|byte| *byte == 0);
        let text = |part: &[u8]| String::from_utf8(part.to_vec()).ok();
        let number = |part: &[u8]| text(part)?.parse::<u64>().ok();
        let path = |part: &[u8]| PathBuf::from(OsString::from_vec(part.to_vec()));
        if parts.next()? != VERSION {
            return None;
        }
        let removed_at_s = number(parts.next()?)?;
        let had_data = number(parts.next()?)? != 0;
        let device = match parts.next()? {
            [] => None,
            device => Some(number(device)?),
        };
        let suffix = text(parts.next()?)?;
        let mut folders = Vec::new();
        for _ in 0..number(parts.next()?)? {
            let (folder, whose) = (path(parts.next()?), number(parts.next()?)?);
            let whose = Whose::ALL.get(usize::try_from(whose).ok()?)?;
            folders.push((folder, *whose));
        }
        Some(Remains {
            folders,
            files: parts.map(path).collect(),
            suffix,
            had_data,
            device,
            removed_at_s,
            is_other: false,
        })
    }

    /// Where they are, for people.
    pub(crate) fn place(&self) -> &Path {
        let first = self.folders.first();
        first.map_or(Path::new(""), |(folder, _)| folder)
    }

    /// Deletes those that no other torrent names, and those of their folders that are empty then;
    /// blocks on the disk. If it `is_late`, others may have put files there meanwhile: what has
    /// changed since stays. An error says what stays for now, because it was away or could not be
    /// deleted.
    pub(crate) fn delete(&self, mine: InfoHashV1, sharing: &Sharing, is_late: bool) -> Deleted {
        let mut result = Ok(());
        // As long as the first are there it is known which the second names of them are.
        let is_twin = |whose: &Whose| *whose == Whose::Twins;
        let of = self.folders.iter();
        let (twins, others): (Vec<_>, Vec<_>) = of.partition(|(_, whose)| is_twin(whose));
        for (folder, whose) in twins.into_iter().chain(others) {
            let deletion = Deletion {
                mine,
                remains: self,
                folder,
                is_late,
                twin_of: is_twin(whose).then(|| self.place()),
            };
            let deleted = match whose {
                Whose::Copies => deletion.delete_copies(),
                _ => deletion.delete(sharing),
            };
            result = deleted.and(result);
        }
        result
    }
}

/// Files in one folder that are being deleted.
struct Deletion<'r> {
    mine: InfoHashV1,
    remains: &'r Remains,
    folder: &'r Path,
    is_late: bool,
    /// The folder that has the same files, if only those are to go.
    twin_of: Option<&'r Path>,
}

impl Deletion<'_> {
    fn delete(&self, sharing: &Sharing) -> Deleted {
        let (folder, remains) = (self.folder, self.remains);
        let root = match Beneath::open(folder) {
            Ok(root) => root,
            // Nothing was ever there, or it is a second place.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !self.must_be_there() => {
                return Ok(());
            }
            Err(error) => return Err(format!("{}: {error}", folder.display())),
        };
        let own = remains.files.iter().cloned();
        let files: Vec<_> = own.flat_map(|own| names(own, &remains.suffix)).collect();
        let own = (folder, files.as_slice());
        let remaining = Remaining::look(sharing, self.mine, own, &remains.suffix);
        let mut remaining = remaining.map_err(|error| error.to_string())?;
        let (mut folders, mut found) = (BTreeSet::new(), false);
        let (mut failed, mut changed) = (None, 0);
        for file in &files {
            let may_go = remaining.may_go(file).map_err(|error| error.to_string())?;
            match self.take(&root, file, may_go) {
                Ok(Taken::NotThere) => {}
                Ok(Taken::Gone | Taken::Shared) => found = true,
                Ok(Taken::Changed) => changed += 1,
                Err(error) => {
                    failed = Some(format!("{}: {error}", folder.join(file).display()));
                }
            }
            let above = file.ancestors().skip(1);
            folders.extend(above.filter(|path| !path.as_os_str().is_empty()));
        }
        // The deepest first; one that holds something else, or something of others, stays.
        let shared = remaining.shared.keys();
        let others: BTreeSet<_> = shared.flat_map(|path| path.ancestors()).collect();
        for folder in folders.iter().rev().filter(|path| !others.contains(*path)) {
            let _ = root.remove_folder(folder);
        }
        // When it is kept that they are gone, they must not come back by a loss of power.
        for folder in folders.iter().copied().chain([Path::new("")]) {
            let _ = root.sync_folder(folder);
        }
        self.tell(&remaining.shared, changed);
        match failed {
            Some(why) => Err(why),
            None if found || changed > 0 || !self.must_be_there() => Ok(()),
            None => self.nothing_there(&root),
        }
    }

    /// Takes away what a move has copied there, which no other torrent can have.
    fn delete_copies(&self) -> Deleted {
        let failed = |error: std::io::Error| Err(format!("{}: {error}", self.folder.display()));
        let root = match Beneath::open(self.folder) {
            Ok(root) => root,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return failed(error),
        };
        let files = self.remains.files.iter();
        let folders: BTreeSet<_> = files.flat_map(|file| file.ancestors().skip(1)).collect();
        for folder in folders.iter().rev() {
            // A folder that is not there has no copies.
            for name in root.names_beside(&folder.join("x")).unwrap_or_default() {
                if is_own(&self.mine, &name)
                    && let Err(error) = root.unlink(&folder.join(name))
                {
                    return failed(error.into());
                }
            }
            let _ = root.sync_folder(folder);
            if !folder.as_os_str().is_empty() {
                let _ = root.remove_folder(folder);
            }
        }
        Ok(())
    }

    /// Whether there were files in this folder.
    fn must_be_there(&self) -> bool {
        self.remains.had_data && self.folder == self.remains.place()
    }

    /// None of the files is there: their disk may be away.
    fn nothing_there(&self, root: &Beneath) -> Deleted {
        let folder = self.folder.display();
        let here = root.folder_of(Path::new("x")).map(|(device, _)| device);
        match self.remains.device {
            Some(device) if here != Some(device) => Err(format!(
                "none of them is in {folder}, which is on another disk now"
            )),
            _ => {
                tracing::warn!(torrent = %self.mine, %folder, "none of the files of a removed \
                    torrent was there to be deleted");
                Ok(())
            }
        }
    }

    fn take(&self, root: &Beneath, file: &Path, may_go: bool) -> Result<Taken, Errno> {
        if !may_go {
            return Ok(Taken::Shared);
        }
        let path = self.folder.join(file);
        let found = std::fs::symlink_metadata(&path).ok();
        if let (Some(twin_of), Some(found)) = (self.twin_of, &found) {
            let twin = std::fs::symlink_metadata(twin_of.join(file)).ok();
            let is_same =
                |twin: std::fs::Metadata| (twin.dev(), twin.ino()) == (found.dev(), found.ino());
            if !twin.is_some_and(is_same) {
                return Ok(Taken::NotThere);
            }
        }
        let until_s = self.remains.removed_at_s.saturating_add(ENDING.as_secs());
        let is_new = found.is_some_and(|found| found.ctime() > until_s.cast_signed());
        if self.is_late && is_new {
            return Ok(Taken::Changed);
        }
        match root.unlink_if_there(file) {
            Ok(true) => Ok(Taken::Gone),
            // A folder of it is not there, or is none, or it is no path below.
            Ok(false) | Err(Errno::NOTDIR | Errno::LOOP | Errno::INVAL) => Ok(Taken::NotThere),
            Err(error) => Err(error),
        }
    }

    /// Tells which files stay because others have them, or have put them there.
    fn tell(&self, shared: &BTreeMap<PathBuf, InfoHashV1>, changed: usize) {
        let folder = self.folder.display();
        let there = shared
            .iter()
            .filter(|(path, _)| self.folder.join(path).exists());
        let there: Vec<_> = there.collect();
        if let Some((first, other)) = there.first() {
            let files = there.len();
            tracing::info!(torrent = %self.mine, files, ?first, %folder, of = %other,
                "files of a removed torrent stay: another torrent has them, too");
        }
        if changed > 0 {
            tracing::warn!(torrent = %self.mine, files = changed, %folder, "files under the names \
                of a removed torrent's stay: they have changed since it was removed");
        }
    }
}

/// What came of one name.
enum Taken {
    Gone,
    NotThere,
    /// Another torrent has it.
    Shared,
    /// Somebody has put it there since.
    Changed,
}

#[cfg(test)]
impl Remains {
    pub(crate) fn of_files(folder: &Path, files: &[&str]) -> Remains {
        Remains {
            folders: vec![(folder.to_owned(), Whose::All)],
            files: files.iter().map(PathBuf::from).collect(),
            suffix: ".part".into(),
            had_data: true,
            removed_at_s: now_s(),
            ..Remains::default()
        }
    }
}

#[cfg(test)]
mod tests;
