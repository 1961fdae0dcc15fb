//! What holds for every [`Metainfo`] that was parsed, for tests and fuzzing.

use std::collections::HashSet;

use super::{File, Metainfo};
use crate::ids::PieceIndex;
use crate::limits::{PATH_DEPTH_MAX, PIECE_LENGTH_MAX, PIECES_MAX};
use crate::path;

/// The sizes of more pieces than this are not added up, so that fuzzing stays fast.
const PIECES_SUMMED_MAX: u32 = 10_000;

impl Metainfo {
    /// Asserts what parsing promises. Linear in the torrent's size; for tests and fuzzing.
    ///
    /// # Panics
    /// A promise is broken, which is a bug of ours whatever the input was.
    pub fn check_invariants(&self) {
        assert!(self.info_hash_v1.is_some() || self.info_hash_v2.is_some());
        assert!(self.info.starts_with(b"d") && self.info.ends_with(b"e"));
        assert!((1..=PIECE_LENGTH_MAX).contains(&self.piece_length));
        assert!(self.piece_count <= PIECES_MAX);
        assert!(!self.files.is_empty());
        assert!(self.is_multi_file || self.files.len() == 1);
        self.check_lengths();
        self.check_paths();
        for file in self
            .files
            .iter()
            .filter(|file| file.length > 0 && !file.pad)
        {
            assert_eq!(file.pieces_root.is_some(), self.info_hash_v2.is_some());
        }
        let mut trackers = HashSet::new();
        for tier in &self.trackers {
            assert!(!tier.is_empty());
            assert!(
                tier.iter()
                    .all(|url| !url.is_empty() && trackers.insert(url))
            );
        }
    }

    fn check_lengths(&self) {
        let has_v1 = self.info_hash_v1.is_some();
        let mut end = 0u64;
        for file in &self.files {
            assert!(file.offset >= end, "files do not overlap");
            assert!(!has_v1 || file.offset == end, "version 1 leaves no gaps");
            if file.length > 0 {
                end = file
                    .offset
                    .checked_add(file.length)
                    .expect("offsets fit 64 bits");
            }
            assert!(file.symlink_target.is_none() || file.length == 0);
        }
        assert_eq!(end, self.total_length);
        let hashes = if has_v1 { self.piece_count as usize } else { 0 };
        assert_eq!(self.piece_hashes().len(), hashes * 20);
        if self.piece_count <= PIECES_SUMMED_MAX {
            let size = |piece| {
                self.piece_size(PieceIndex(piece))
                    .expect("a piece has a size")
            };
            let pieces: u64 = (0..self.piece_count)
                .map(|piece| u64::from(size(piece)))
                .sum();
            let lengths: u64 = self.files.iter().map(|file| file.length).sum();
            assert_eq!(
                pieces, lengths,
                "the pieces cover the files and nothing else"
            );
        }
        assert_eq!(self.piece_size(PieceIndex(self.piece_count)), None);
        assert_eq!(self.piece_hash(PieceIndex(self.piece_count)), None);
        assert_eq!(self.piece_hash(PieceIndex(u32::MAX)), None);
    }

    fn check_paths(&self) {
        let mut files = HashSet::new();
        let mut exact: HashSet<Vec<Vec<u8>>> = HashSet::new();
        for file in &self.files {
            check_path(file);
            assert_eq!(file.path[0], self.name);
            assert!(file.path.len() <= PATH_DEPTH_MAX + 1);
            assert_eq!(file.path.len() > 1, self.is_multi_file);
            if !file.pad {
                assert!(
                    files.insert(folded(&file.path)),
                    "two files share the path {:?}",
                    file.path
                );
                exact.insert(
                    file.path
                        .iter()
                        .map(|name| name.clone().into_bytes())
                        .collect(),
                );
            }
        }
        for file in self.files.iter().filter(|file| !file.pad) {
            let mut directory = folded(&file.path);
            while directory.pop().is_some() {
                assert!(
                    !files.contains(&directory),
                    "{directory:?} is a file and a directory"
                );
            }
        }
        let mut literal: HashSet<Vec<Vec<u8>>> = HashSet::new();
        for spelled in self.files.iter().filter_map(|file| self.literal_path(file)) {
            assert!(spelled.iter().all(|name| path::is_literal_component(name)));
            if self.raw_name.is_none() {
                assert!(
                    !exact.contains(&spelled),
                    "a spelling is another file's path"
                );
            }
            assert!(literal.insert(spelled), "two files share a spelling");
        }
    }
}

fn check_path(file: &File) {
    for name in file.path.iter().chain(file.symlink_target.iter().flatten()) {
        let again = path::sanitise_component(name.as_bytes());
        assert_eq!(again.as_deref(), Some(name.as_str()), "a name is safe");
    }
}

fn folded(path: &[String]) -> Vec<String> {
    path.iter().map(|name| path::fold_case(name)).collect()
}
