//! The content that is served: one file of pseudo-random bytes and its torrent, kept from run to
//! run; and whether it is in the page cache.
//!
//! The bytes are the same on every machine (a seeded generator), so reports of two machines are
//! about the same data. `fincore` (util-linux) tells what is cached, `vmtouch` keeps it there if it
//! is installed.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use proto::bencode::Encoder;
use sha1::{Digest, Sha1};

use crate::harness::children::{Program, Running};
use crate::harness::content::NO_TRACKER;
use crate::harness::folder::Folder;
use crate::harness::page_cache;
use crate::load::blocks::Random;
use crate::torrent::Torrent;

/// The length of every piece: the unit in which HTTP ranges are asked for, too.
pub const PIECE_BYTES: usize = 1 << 20;

/// The content and its torrent.
#[derive(Debug)]
pub struct DataSet {
    /// Where the content is; absolute.
    pub directory: PathBuf,
    /// Its file, in the directory; the name is plain ASCII.
    pub name: String,
    /// Its torrent's file; absolute.
    pub torrent_file: PathBuf,
    /// What is in it.
    pub torrent: Torrent,
}

impl DataSet {
    /// Makes what is not there yet in `directory`, and reads the torrent. `tell` hears of what
    /// takes long.
    pub fn prepare(directory: &Path, bytes: u64, tell: impl Fn(&str)) -> anyhow::Result<Self> {
        Self::prepare_named("seedring-bench", directory, bytes, tell)
    }

    /// The same under names that begin with `prefix`: content of the same size beside other.
    pub fn prepare_named(
        prefix: &str,
        directory: &Path,
        bytes: u64,
        tell: impl Fn(&str),
    ) -> anyhow::Result<Self> {
        let pieces = bytes / PIECE_BYTES as u64;
        if pieces == 0 || !bytes.is_multiple_of(PIECE_BYTES as u64) {
            bail!("the content must be a whole number of MiB, not {bytes} B");
        }
        let cannot = |what: &Path| format!("cannot write {}", what.display());
        std::fs::create_dir_all(directory).with_context(|| cannot(directory))?;
        let directory = directory.canonicalize()?;
        let name = format!("{prefix}-{pieces}MiB.bin");
        let file = directory.join(&name);
        let torrent_file = directory.join(format!("{prefix}-{pieces}MiB.torrent"));
        let is_whole = |path: &Path| path.metadata().is_ok_and(|meta| meta.len() == bytes);
        // The torrent is written last: where it is, everything is.
        if !is_whole(&file) || !torrent_file.exists() {
            tell(&format!(
                "writing {pieces} MiB of content to {}",
                file.display()
            ));
            let hashes = write_content(&file, pieces).with_context(|| cannot(&file))?;
            let encoded = encode_torrent(&name, bytes, &hashes);
            std::fs::write(&torrent_file, encoded).with_context(|| cannot(&torrent_file))?;
        }
        let nobody = ([127, 0, 0, 1], 0).into();
        let torrent = Torrent::open(&torrent_file.display().to_string(), nobody)?;
        if torrent.total_bytes != bytes || torrent.name != name {
            bail!(
                "{} is not the torrent of {name}: remove both",
                torrent_file.display()
            );
        }
        Ok(Self {
            directory,
            name,
            torrent_file,
            torrent,
        })
    }

    /// The content's file; absolute.
    pub fn file(&self) -> PathBuf {
        self.directory.join(&self.name)
    }

    /// The share of the content that is in the page cache.
    pub fn cached_share(&self) -> anyhow::Result<f64> {
        let bytes = page_cache::cached_bytes(&self.file())
            .context("fincore (package util-linux) does not tell what is cached")?;
        Ok(bytes as f64 / self.torrent.total_bytes as f64)
    }

    /// Reads what is missing into the page cache. Returns the share that was there before.
    pub fn cache(&self) -> anyhow::Result<f64> {
        let before = self.cached_share()?;
        page_cache::warm(&self.file())?;
        Ok(before)
    }

    /// Keeps the content in the page cache as long as the lock lives, if `vmtouch` is installed.
    pub fn lock(&self) -> Option<Lock> {
        let vmtouch = Program::new("vmtouch").args(["-q", "-l"]).arg(self.file());
        if !vmtouch.is_installed() {
            return None;
        }
        let directory = Folder::new("seedring-bench-lock-", None).ok()?;
        // Ended as servers are: memory that stays locked would harm the whole machine.
        let process = vmtouch.start(&directory.path().join("log")).ok()?;
        Some(Lock {
            process,
            _directory: directory,
        })
    }
}

/// A process that holds the content in memory. Ends it when dropped.
#[derive(Debug)]
pub struct Lock {
    process: Running,
    /// Removed after the process has ended: fields are dropped in this order.
    _directory: Folder,
}

impl Lock {
    /// Whether it still holds: it ends at once where locking is not allowed.
    pub fn holds(&mut self) -> bool {
        self.process.ended().is_none()
    }
}

/// Writes the content; returns the SHA-1 of every piece, one after the other.
fn write_content(path: &Path, pieces: u64) -> std::io::Result<Vec<u8>> {
    let mut out = BufWriter::with_capacity(PIECE_BYTES, File::create(path)?);
    let mut random = Random::new(1);
    let mut hashes = Vec::new();
    let mut piece = vec![0u8; PIECE_BYTES];
    for _ in 0..pieces {
        random.fill(&mut piece);
        hashes.extend_from_slice(&Sha1::digest(&piece));
        out.write_all(&piece)?;
    }
    // On the disk, so that a cold run reads it from there and no write-back disturbs a run.
    out.into_inner()?.sync_all()?;
    Ok(hashes)
}

fn encode_torrent(name: &str, bytes: u64, hashes: &[u8]) -> Vec<u8> {
    let mut encoder = Encoder::new();
    encoder.begin_dict();
    encoder.key(b"announce").bytes(NO_TRACKER.as_bytes());
    encoder.key(b"info").begin_dict();
    encoder.key(b"length").integer(bytes as i64);
    encoder.key(b"name").bytes(name.as_bytes());
    encoder.key(b"piece length").integer(PIECE_BYTES as i64);
    encoder.key(b"pieces").bytes(hashes);
    encoder.end();
    encoder.end();
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_made_once_and_is_what_its_torrent_says() {
        let directory = tempfile::tempdir().unwrap();
        let data = DataSet::prepare(directory.path(), 2 << 20, |_| ()).unwrap();
        assert_eq!(data.torrent.geometry.piece_count, 2);
        let content = std::fs::read(data.file()).unwrap();
        let second: [u8; 20] = Sha1::digest(&content[PIECE_BYTES..]).into();
        assert_eq!(data.torrent.hashes[1], second);
        assert_ne!(data.torrent.hashes[0], second);
        let again = DataSet::prepare(directory.path(), 2 << 20, |what| panic!("{what}")).unwrap();
        assert_eq!(again.torrent, data.torrent);
        let other = DataSet::prepare_named("other", directory.path(), 2 << 20, |_| ()).unwrap();
        assert_ne!(other.torrent.info_hash, data.torrent.info_hash);
        for wrong in [0, 1, (1 << 20) + 1] {
            assert!(DataSet::prepare(directory.path(), wrong, |_| ()).is_err());
        }
    }
}
