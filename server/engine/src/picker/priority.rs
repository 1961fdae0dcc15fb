//! How much a piece is wanted, and how that follows from the files that are.

use crate::layout::{FileIndex, StorageLayout};

/// How many priorities there are, [`Priority::SKIP`] counted.
pub(super) const PRIORITIES: usize = 8;

/// How much a piece or a file is wanted: from 0, not at all, to 7.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Priority(u8);

impl Priority {
    /// Not wanted: it is never requested.
    pub const SKIP: Priority = Priority(0);
    /// What everything has until somebody says otherwise.
    pub const NORMAL: Priority = Priority(4);
    /// Before everything else.
    pub const HIGHEST: Priority = Priority(7);

    /// All of them, lowest first.
    pub(super) const ALL: [Priority; PRIORITIES] = [
        Priority(0),
        Priority(1),
        Priority(2),
        Priority(3),
        Priority(4),
        Priority(5),
        Priority(6),
        Priority(7),
    ];

    /// The priority of this number, if there is one.
    pub fn new(number: u8) -> Option<Priority> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// Its number, 0 to 7.
    pub fn number(self) -> u8 {
        self.0
    }

    pub(super) fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl Default for Priority {
    fn default() -> Priority {
        Priority::NORMAL
    }
}

/// The priority of each piece: the highest of the files that it touches. `files` are those of the
/// layout, in its order; what lacks is skipped. Give pad files (BEP 47) [`Priority::SKIP`]: nobody
/// needs their zeros.
///
/// Cost: O(pieces + files).
pub fn piece_priorities(layout: &StorageLayout, files: &[Priority]) -> Vec<Priority> {
    let mut pieces = vec![Priority::SKIP; layout.piece_count() as usize];
    for (file, &priority) in (0..layout.file_count()).zip(files) {
        if priority == Priority::SKIP {
            continue;
        }
        let touched = layout.pieces_of_file(FileIndex(file));
        for piece in &mut pieces[touched.start as usize..touched.end as usize] {
            *piece = priority.max(*piece);
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_piece_has_the_highest_priority_of_its_files() {
        // Pieces of 10: 0..10, 10..20, 20..30, 30..35.
        let files = [(5, false), (10, false), (0, false), (15, false), (5, true)];
        let layout = StorageLayout::new(&files, 10).unwrap();
        let [low, high] = [Priority(1), Priority(7)];
        let files = [low, high, high, Priority::SKIP, Priority::SKIP];
        assert_eq!(
            piece_priorities(&layout, &files),
            [high, high, Priority::SKIP, Priority::SKIP]
        );
        assert_eq!(Priority::new(7), Some(high));
        assert_eq!(Priority::new(8), None);
    }

    proptest! {
        #[test]
        fn priorities_are_those_of_the_bytes(
            files in proptest::collection::vec((0_u64..40, 0_u8..8), 0..20),
            piece_length in 1_u32..30,
        ) {
            let lengths: Vec<_> = files.iter().map(|&(length, _)| (length, false)).collect();
            let layout = StorageLayout::new(&lengths, piece_length).unwrap();
            let priorities: Vec<_> = files.iter().map(|&(_, number)| Priority(number)).collect();
            let mut bytes = Vec::new();
            for &(length, number) in &files {
                bytes.extend((0..length).map(|_| Priority(number)));
            }
            let expected: Vec<_> = bytes
                .chunks(piece_length as usize)
                .map(|bytes| bytes.iter().copied().max().unwrap())
                .collect();
            prop_assert_eq!(piece_priorities(&layout, &priorities), expected);
        }
    }
}
