//! Data to hash and to share: random bytes in files, and their torrents.
//!
//! The same seed gives the same bytes, so that a run can be repeated; they do not compress, so that
//! no file system or SSD gains by them.

use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use proto::ids::{InfoHashV1, PieceIndex};
use proto::metainfo::{Builder, Metainfo};

use crate::load::blocks::Random;

/// A tracker where nobody listens: rTorrent wants an announce URL when it has no DHT.
pub const NO_TRACKER: &str = "http://127.0.0.1:9/announce";

/// How much is written at once.
const CHUNK_BYTES: usize = 8 << 20;

/// One file and its torrent.
#[derive(Debug, Clone)]
pub struct Content {
    /// The folder that holds the file: what `-d` wants.
    pub directory: PathBuf,
    /// The file.
    pub file: PathBuf,
    /// Its torrent.
    pub torrent: PathBuf,
    /// Names it on the wire.
    pub info_hash: InfoHashV1,
    /// How many pieces it has.
    pub pieces: u32,
    /// Its length in bytes.
    pub bytes: u64,
}

impl Content {
    /// Writes `bytes` random bytes to `directory/name`, and the torrent to `torrent`.
    pub fn make(
        directory: &Path,
        name: &str,
        torrent: &Path,
        shape: Shape<'_>,
    ) -> anyhow::Result<Self> {
        let file = directory.join(name);
        write_random(&file, shape.bytes, shape.seed)?;
        Self::of(&file, torrent, shape.piece_bytes, shape.tracker)
    }

    /// The torrent of a `file` that is there, written to `torrent`.
    pub fn of(
        file: &Path,
        torrent: &Path,
        piece_bytes: u32,
        tracker: Option<&str>,
    ) -> anyhow::Result<Self> {
        let name = file
            .file_name()
            .with_context(|| format!("{file:?} has no name"))?;
        let bytes = fs::metadata(file)
            .with_context(|| format!("cannot look at {file:?}"))?
            .len();
        let pieces = piece_hashes(file, piece_bytes)?;
        let builder = Builder {
            name: name.as_encoded_bytes().to_vec(),
            piece_length: piece_bytes,
            pieces,
            length: bytes,
            trackers: tracker.iter().map(|&url| vec![url.to_owned()]).collect(),
            ..Builder::default()
        };
        let encoded = builder.encode();
        fs::write(torrent, &encoded).with_context(|| format!("cannot write {torrent:?}"))?;
        let metainfo = Metainfo::parse(&encoded).context("our own torrent")?;
        Ok(Self {
            directory: file.parent().unwrap_or(Path::new("/")).to_owned(),
            file: file.to_owned(),
            torrent: torrent.to_owned(),
            info_hash: metainfo
                .info_hash_v1
                .context("our own torrent has no version 1 hash")?,
            pieces: u32::try_from(builder.pieces.len() / 20)?,
            bytes,
        })
    }

    /// Whether `copy` holds every byte of it: an error names the first piece that is wrong.
    pub fn check_copy(&self, copy: &Path) -> anyhow::Result<()> {
        let text =
            fs::read(&self.torrent).with_context(|| format!("cannot read {:?}", self.torrent))?;
        let metainfo = Metainfo::parse(&text)?;
        let length = fs::metadata(copy)
            .with_context(|| format!("cannot look at {copy:?}"))?
            .len();
        if length != self.bytes {
            bail!("{copy:?} has {length} bytes instead of {}", self.bytes);
        }
        let piece_bytes = metainfo
            .piece_size(PieceIndex(0))
            .context("a torrent without pieces")?;
        let found = piece_hashes(copy, piece_bytes)?;
        let pairs = found.chunks(20).zip(metainfo.piece_hashes().chunks(20));
        match pairs.into_iter().position(|(found, right)| found != right) {
            Some(piece) => bail!("piece {piece} of {copy:?} is wrong"),
            None => Ok(()),
        }
    }
}

/// What a torrent is to be like.
#[derive(Debug, Clone, Copy)]
pub struct Shape<'a> {
    /// The length of the data.
    pub bytes: u64,
    /// The length of a piece.
    pub piece_bytes: u32,
    /// Decides the bytes.
    pub seed: u64,
    /// The tracker, if there is one.
    pub tracker: Option<&'a str>,
}

/// Writes `bytes` random bytes to `file`.
pub fn write_random(file: &Path, bytes: u64, seed: u64) -> anyhow::Result<()> {
    let failed = || format!("cannot write {file:?}");
    let mut out = BufWriter::with_capacity(0, File::create(file).with_context(failed)?);
    let mut random = Random::new(seed);
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut left = bytes;
    while left > 0 {
        let length = usize::try_from(left).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES));
        random.fill(&mut chunk[..length]);
        out.write_all(&chunk[..length]).with_context(failed)?;
        left -= length as u64;
    }
    out.flush().with_context(failed)
}

/// The SHA-1 of each piece of `file`, one after the other; as many at a time as are worth it.
fn piece_hashes(file: &Path, piece_bytes: u32) -> anyhow::Result<Vec<u8>> {
    let mut data = File::open(file).with_context(|| format!("cannot open {file:?}"))?;
    let mut pieces = vec![Vec::new(); hash::lanes().clamp(1, hash::LANES_MAX)];
    let mut hashes = Vec::new();
    loop {
        for piece in &mut pieces {
            piece.clear();
            let mut limited = Read::by_ref(&mut data).take(u64::from(piece_bytes));
            limited
                .read_to_end(piece)
                .with_context(|| format!("cannot read {file:?}"))?;
        }
        let filled: Vec<&[u8]> = pieces
            .iter()
            .map(Vec::as_slice)
            .take_while(|piece| !piece.is_empty())
            .collect();
        let mut digests = vec![[0; 20]; filled.len()];
        hash::hash_pieces(&filled, &mut digests);
        hashes.extend_from_slice(digests.as_flattened());
        if filled.len() < pieces.len() {
            return Ok(hashes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torrent_matches_its_data_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let shape = Shape {
            bytes: (20 << 14) + 5,
            piece_bytes: 1 << 14,
            seed: 7,
            tracker: Some(NO_TRACKER),
        };
        let torrent = folder.path().join("data.torrent");
        let content = Content::make(folder.path(), "data", &torrent, shape).unwrap();
        assert_eq!((content.pieces, content.bytes), (21, shape.bytes));
        content.check_copy(&content.file).unwrap();
        let metainfo = Metainfo::parse(&fs::read(&torrent).unwrap()).unwrap();
        let data = fs::read(&content.file).unwrap();
        let last = metainfo.piece_hash(PieceIndex(20)).unwrap();
        assert_eq!(*last, hash::sha1(&data[20 << 14..]));
        let copy = folder.path().join("copy");
        let mut wrong = data.clone();
        wrong[3 << 14] ^= 1;
        fs::write(&copy, &wrong).unwrap();
        let error = content.check_copy(&copy).unwrap_err().to_string();
        assert!(error.starts_with("piece 3 of"), "{error}");
        fs::write(&copy, &data[1..]).unwrap();
        assert!(content.check_copy(&copy).is_err());
    }
}
