//! Folders of a run, which are removed with all that is in them when the run is over or
//! interrupted.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::harness::undo::{self, Guard, Undo};

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
