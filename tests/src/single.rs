//! The content of most tests: one file, in a folder of its own, and its torrent.

use crate::content::{assert_same_tree, write_file};
use crate::process::run_ok;
use crate::server::{SHORT, Seed, seedring};
use crate::torrent::Torrent;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// One file and its torrent.
#[derive(Debug)]
pub struct Single {
    root: TempDir,
    /// The .torrent file.
    pub torrent: PathBuf,
}

impl Single {
    /// A file of so many bytes, which `seed` decides, and a torrent made with these options: it
    /// names no tracker if they do not.
    pub fn new(bytes: u64, seed: u64, options: &[&str]) -> Self {
        let root = TempDir::new().unwrap();
        let file = root.path().join("data/one.bin");
        write_file(&file, bytes, seed);
        let torrent = root.path().join("it.torrent");
        let mut create = seedring(["create"]);
        create.arg(file).arg("-o").arg(&torrent).args(options);
        run_ok("seedring create", &create, SHORT);
        Self { root, torrent }
    }

    /// The folder of all of it.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// The folder with the file.
    pub fn data_dir(&self) -> PathBuf {
        self.root.path().join("data")
    }

    /// A seed of ours without a tracker of its own.
    pub fn seed(&self) -> Seed {
        Seed::torrent(&self.torrent, &self.data_dir()).options(["--no-tracker"])
    }

    /// The info-hash in hexadecimal.
    pub fn info_hash(&self) -> String {
        Torrent::read(&self.torrent).info_hash_hex()
    }

    /// The link with the hash alone.
    pub fn magnet(&self) -> String {
        format!("magnet:?xt=urn:btih:{}", self.info_hash())
    }

    /// Checks that a folder has the same file and nothing else.
    pub fn assert_copied(&self, folder: &TempDir) {
        assert_same_tree(&self.data_dir(), folder.path());
    }
}
