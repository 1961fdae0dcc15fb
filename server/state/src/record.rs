//! What is kept of a torrent: the records, as the rest of the server sees them. How they are
//! written is in [`crate::encode`].

use engine::layout::FileStamp;
use engine::picker::Priority;
use proto::ids::InfoHashV2;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What a list of torrents shows and a start needs of each: small, because all of them are in
/// memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The name that is shown: the metainfo's, or another that the user gave.
    pub name: String,
    /// The version 2 info-hash of a hybrid torrent (BEP 52).
    pub info_hash_v2: Option<InfoHashV2>,
    /// The magnet link that it came from; needed until its metainfo is known.
    pub magnet: Option<String>,
    /// Whether its metainfo says that it is private (BEP 27).
    pub private: bool,
    /// The bytes of all its files but padding; 0 until the metainfo is known.
    pub total_bytes: u64,
    /// The bytes of a piece; 0 until the metainfo is known.
    pub piece_bytes: u32,
    /// How many pieces it has; 0 until the metainfo is known.
    pub pieces: u32,
    /// How many files it has; 0 until the metainfo is known.
    pub files: u32,
    /// The folder that holds its file or folder.
    pub save_path: PathBuf,
    /// The one category that it is in.
    pub category: Option<String>,
    /// Its labels.
    pub labels: Vec<String>,
    /// When it was added, in seconds since 1970.
    pub added_at_s: u64,
    /// When it became complete, in seconds since 1970.
    pub completed_at_s: Option<u64>,
    /// Whether the user has stopped it.
    pub paused: bool,
    /// Whether its data are taken to be complete, and a piece is verified when it is first asked
    /// for.
    pub seed_mode: bool,
    /// Whether pieces are wanted in their order.
    pub sequential: bool,
    /// Whether it is super-seeded (BEP 16).
    pub super_seeding: bool,
    /// Whether something that is wanted of it was missing, and nobody has been told yet that all of
    /// it has come. Since schema 3.
    pub completion_untold: bool,
    /// Limits of its own.
    pub limits: TorrentLimits,
    /// What it waits for, if for anything.
    pub condition: Condition,
    /// The last thing that went wrong with it.
    pub last_error: Option<LastError>,
}

/// Limits of a torrent. `None` leaves one to its label, category or the server; 0 means that there
/// is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TorrentLimits {
    /// Upload, in bytes per second.
    pub upload_rate: Option<u64>,
    /// Download, in bytes per second.
    pub download_rate: Option<u64>,
    /// Connected peers.
    pub peers_max: Option<u64>,
    /// Uploaded bytes for a thousand of the torrent's, after which [`TorrentLimits::at_limit`] is
    /// done.
    pub ratio_permille: Option<u64>,
    /// Seconds of seeding, after which [`TorrentLimits::at_limit`] is done.
    pub seeding_time_s: Option<u64>,
    /// What is done then.
    pub at_limit: Option<LimitAction>,
}

/// What is done with a torrent that has reached its ratio or seeding time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitAction {
    /// It is paused.
    Pause,
    /// It is removed, its data stay.
    Remove,
    /// It is removed with its data.
    RemoveWithData,
    /// It is super-seeded from then on.
    SuperSeed,
}

/// What a torrent that is not paused waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    /// For nothing.
    #[default]
    Ready,
    /// For its data to be hashed.
    NeedsCheck,
    /// For its data to be there again, such as a file system that is not mounted.
    Offline,
    /// For somebody to mend what [`Summary::last_error`] says.
    Failed,
}

/// The last thing that went wrong with a torrent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LastError {
    /// When, in seconds since 1970.
    pub at_s: u64,
    /// What, in a sentence.
    pub text: String,
}

/// What of a torrent's metainfo the user has set otherwise: needed with the metainfo, and as
/// seldom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// How much each file is wanted; short of files, those are wanted as usual.
    pub priorities: Vec<Priority>,
    /// The paths below the save path of those files that lie elsewhere than the metainfo says, by
    /// index.
    pub renames: BTreeMap<u32, PathBuf>,
    /// The trackers in their tiers, in place of the metainfo's.
    pub trackers: Option<Vec<Vec<String>>>,
    /// The web seeds, in place of the metainfo's.
    pub web_seeds: Option<Vec<String>>,
}

/// Numbers that only grow, of a torrent or of the server, over all runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Payload sent, in bytes.
    pub uploaded_bytes: u64,
    /// Payload received, in bytes.
    pub downloaded_bytes: u64,
    /// Payload received that was of no use, in bytes: there already, or wrong.
    pub wasted_bytes: u64,
    /// Seconds not paused.
    pub active_s: u64,
    /// Seconds complete and not paused.
    pub seeding_s: u64,
    /// When payload last went either way, in seconds since 1970; 0 if it never did.
    pub last_active_at_s: u64,
}

/// Which pieces of a torrent are verified and on stable storage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Verified {
    /// None.
    #[default]
    None,
    /// All.
    All,
    /// Those of a bitfield message (BEP 3): the first piece is the highest bit of the first byte,
    /// spare bits are 0.
    Pieces(Vec<u8>),
}

impl Verified {
    /// How many of `pieces` they are.
    pub fn count(&self, pieces: u32) -> u32 {
        match self {
            Verified::None => 0,
            Verified::All => pieces,
            Verified::Pieces(bits) => bits.iter().map(|byte| byte.count_ones()).sum(),
        }
    }

    /// The same as `All` or `None` where it is; none if it is no bitfield of so many pieces.
    pub(crate) fn normal(self, pieces: u32) -> Option<Verified> {
        let Verified::Pieces(bits) = &self else {
            return Some(self);
        };
        let spare = bits.len() as u64 * 8;
        let spare = spare.checked_sub(u64::from(pieces))?;
        let last = bits.last().copied().unwrap_or(0);
        if spare >= 8 || last.trailing_zeros() < spare as u32 && last != 0 {
            return None;
        }
        Some(match self.count(pieces) {
            0 => Verified::None,
            count if count == pieces => Verified::All,
            _ => self,
        })
    }
}

/// A torrent that is added: all of it is kept in one transaction, or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewTorrent {
    /// Its summary.
    pub summary: Summary,
    /// Its details.
    pub details: Details,
    /// The bytes of its .torrent file; `None` as long as only a magnet link is known.
    pub metainfo: Option<Vec<u8>>,
    /// Its verified pieces.
    pub verified: Verified,
    /// What its files were when these were verified; short of files, and of pad files, none.
    pub stamps: Vec<Option<FileStamp>>,
    /// Its totals, such as those of another client that it is taken over from.
    pub totals: Totals,
    /// Its place in the queue.
    pub place: crate::Place,
}
