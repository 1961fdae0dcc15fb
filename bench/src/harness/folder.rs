//! Folders of a run, which are removed with all that is in them when the run is over or
//! interrupted.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::harness::undo::{self, Guard, Undo};

/// Writes the file `name`, which may lie in folders that are still to be made, into `folder`;
/// returns where it is.
pub fn write(folder: &Path, name: &str, text: impl AsRef<[u8]>) -> anyhow::Result<PathBuf> {
    let path = folder.join(name);
    let parent = path.parent().unwrap_or(folder);
    fs::create_dir_all(parent).with_context(|| format!("cannot make {parent:?}"))?;
    fs::write(&path, text).with_context(|| format!("cannot write {path:?}"))?;
    Ok(path)
}

/// See the head of this file.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// Removes it.
    _guard: Guard,
}

impl Folder {
    /// A new folder whose name begins with `prefix`, in `parent` or the system's folder for
    /// temporary files.
    pub fn new(prefix: &str, parent: Option<&Path>) -> anyhow::Result<Self> {
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_owned);
        let made = undo::make(|| {
            let folder = tempfile::Builder::new()
                .prefix(prefix)
                .tempdir_in(&parent)?;
            let path = folder.keep();
            Ok::<_, std::io::Error>((path.clone(), Undo::RemoveDirectory(path)))
        });
        let (path, guard) = made.with_context(|| format!("cannot make a folder in {parent:?}"))?;
        Ok(Self {
            path,
            _guard: guard,
        })
    }

    /// Where it is: absolute if its parent is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_written_with_its_folders_or_named() {
        let here = tempfile::tempdir().unwrap();
        let path = write(here.path(), "a/b/file", "text").unwrap();
        assert_eq!(path, here.path().join("a/b/file"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "text");
        let error = write(&path, "below", "text").unwrap_err();
        assert!(error.to_string().starts_with("cannot "), "{error}");
        assert!(error.to_string().contains("a/b/file"), "{error}");
    }
}
