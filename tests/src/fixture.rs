//! A server with two small torrents: one to be attacked, one to prove that the rest goes on.

use crate::content::{KIB, write_file};
use crate::server::{Seed, Server};
use crate::torrent::Torrent;
use std::path::PathBuf;
use tempfile::TempDir;

/// The pieces of the fixture's torrents.
pub const PIECE: u64 = 256 * KIB;

/// A running server with two torrents of 20 pieces each.
#[derive(Debug)]
pub struct Fixture {
    /// The server.
    pub server: Server,
    /// The folder that holds both torrents' data.
    pub data: TempDir,
    /// The torrent that a test does things to.
    pub target: Torrent,
    /// The torrent that must go on being served.
    pub other: Torrent,
}

impl Fixture {
    /// Starts it with the default options and no tracker.
    pub fn start() -> Self {
        Self::start_with(|seed| seed)
    }

    /// Starts it with more options.
    pub fn start_with(adjust: impl FnOnce(Seed) -> Seed) -> Self {
        let data = TempDir::new().unwrap();
        write_file(&data.path().join("target/a.bin"), 3 * 1_000_000, 11);
        write_file(
            &data.path().join("target/deep/b.bin"),
            20 * PIECE - 3 * 1_000_000 - 5,
            12,
        );
        write_file(&data.path().join("other.bin"), 20 * PIECE - 77, 13);
        let seed = Seed::path(&data.path().join("target"))
            .and_path(&data.path().join("other.bin"))
            .options([
                "--no-tracker".to_owned(),
                "--piece-size".into(),
                PIECE.to_string(),
            ]);
        let server = adjust(seed).start();
        let (target, other) = (server.torrent(0), server.torrent(1));
        assert_eq!(target.pieces.len(), 20, "the fixture's first torrent");
        assert_eq!(other.pieces.len(), 20, "the fixture's second torrent");
        Self {
            server,
            data,
            target,
            other,
        }
    }

    /// The path of one of the target's files.
    pub fn target_file(&self, name: &str) -> PathBuf {
        self.data.path().join("target").join(name)
    }
}
