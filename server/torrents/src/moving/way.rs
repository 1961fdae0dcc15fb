//! From where to where a torrent's data are moved and how far that is, as it is kept.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// How far a move is: what a run that takes it up may do follows from that, not from what it finds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Phase {
    /// Nothing was made but, perhaps, second names of the same files.
    #[default]
    Waiting,
    /// The same as [`Phase::Copying`] as an earlier version began it, which put no mark there.
    Unmarked,
    /// The torrent is in the new folder; what is left is to take the old names away.
    Switched,
    /// No name was taken in the new folder; it has a mark now, by which it is known again, and
    /// copies are made there.
    Copying,
}

impl Phase {
    /// By the numbers that are kept.
    const ALL: [Phase; 4] = [
        Phase::Waiting,
        Phase::Unmarked,
        Phase::Switched,
        Phase::Copying,
    ];

    /// Whether copies have been made, or may have been.
    pub(crate) fn is_copying(self) -> bool {
        matches!(self, Phase::Unmarked | Phase::Copying)
    }

    /// Whether the new folder is there, if its disk is: it must not be made a second time, in the
    /// place where that disk should be.
    pub(crate) fn needs_target(self) -> bool {
        self != Phase::Waiting
    }
}

/// From where to where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Way {
    pub(crate) from: PathBuf,
    pub(crate) to: PathBuf,
    pub(crate) phase: Phase,
}

impl Way {
    /// The new folder, the old one and the phase, with a NUL between them, which no path has.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let (from, to) = (self.from.as_os_str(), self.to.as_os_str());
        let phase = [self.phase as u8];
        [to.as_bytes(), from.as_bytes(), &phase].join(&0)
    }

    /// A way that was kept; none if these are no such bytes. One without a phase waits.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Way> {
        let mut parts = bytes.splitn(3, |byte| *byte == 0);
        let path = |bytes: &[u8]| PathBuf::from(OsString::from_vec(bytes.to_vec()));
        let (to, from) = (path(parts.next()?), path(parts.next()?));
        let phase = match parts.next() {
            None => Phase::Waiting,
            Some([number]) => *Phase::ALL.get(usize::from(*number))?,
            Some(_) => return None,
        };
        Some(Way { from, to, phase })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_comes_back_as_it_was_kept_and_nothing_else_is_one() {
        for phase in Phase::ALL {
            let way = Way {
                from: "/a/\u{1}b".into(),
                to: "/c d".into(),
                phase,
            };
            assert_eq!(Way::decode(&way.encode()), Some(way));
        }
        let before = Way::decode(b"/to\0/from").unwrap();
        assert_eq!(before.phase, Phase::Waiting);
        for bytes in [
            &b"/to"[..],
            b"/to\0/from\0",
            b"/to\0/from\0\x04",
            b"/to\0/from\0\x01\x01",
        ] {
            assert_eq!(Way::decode(bytes), None, "{bytes:?}");
        }
    }
}
