//! What other clients keep that has no counterpart here: said once each, with the number of
//! torrents that it is true of.

/// Something that is not taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Note {
    /// The client's place for incomplete downloads.
    IncompleteFolder,
    /// A path of a file that is not below the save folder.
    PathOutside,
    /// The save folder is not there.
    FolderMissing,
    /// Pieces of files that are not wanted, which the client keeps elsewhere.
    UnwantedParts,
    /// Trackers whose URLs are none.
    UnusableTrackers,
    /// A limit on idle seeding.
    IdleLimit,
    /// Freedom from the limits of the whole client.
    IgnoresGlobalLimits,
    /// A group that shares a rate limit.
    BandwidthGroup,
    /// A rank among the torrents.
    TorrentPriority,
    /// First and last pieces first.
    FirstLastPiece,
    /// A condition after which the client stops it.
    StopCondition,
    /// DHT, peer exchange or local discovery that are off for it alone.
    DiscoveryOff,
    /// What the client does at a limit that it has for all torrents.
    LimitAction,
    /// A ratio group of ruTorrent.
    RatioGroup,
    /// A remark of ruTorrent.
    Remark,
    /// A tie to a file in a watched folder.
    TiedFile,
}

impl Note {
    /// What is said of it.
    pub fn text(self) -> &'static str {
        match self {
            Note::IncompleteFolder => {
                "data in the client's folder for incomplete downloads are taken over there"
            }
            Note::PathOutside => {
                "a file outside the save folder is not looked for there, and has to be moved"
            }
            Note::FolderMissing => {
                "the save folder is not there: mount it, or say where it is with --path-map"
            }
            Note::UnwantedParts => {
                "pieces that lie partly in unwanted files are in a file of the client's, and are \
                 fetched again if they are wanted"
            }
            Note::UnusableTrackers => "trackers whose URLs are none are left out",
            Note::IdleLimit => "the limit on idle seeding is left out",
            Note::IgnoresGlobalLimits => "freedom from the whole client's limits is left out",
            Note::BandwidthGroup => "the group that shares a rate limit is left out",
            Note::TorrentPriority => "the priority among the torrents is left out",
            Note::FirstLastPiece => "first and last pieces are not wanted first",
            Note::StopCondition => "the condition at which it is to be stopped is left out",
            Note::DiscoveryOff => {
                "DHT, peer exchange or local discovery are off for it alone, which is left out"
            }
            Note::LimitAction => "the action at its limit is not known here and left out",
            Note::RatioGroup => "the ratio group of ruTorrent is left out",
            Note::Remark => "the remark of ruTorrent is left out",
            Note::TiedFile => {
                "the tie to a file in a watched folder is left out: removing that removes nothing"
            }
        }
    }

    /// Its name for programs.
    pub fn name(self) -> &'static str {
        match self {
            Note::IncompleteFolder => "incomplete-folder",
            Note::PathOutside => "path-outside",
            Note::FolderMissing => "folder-missing",
            Note::UnwantedParts => "unwanted-parts",
            Note::UnusableTrackers => "unusable-trackers",
            Note::IdleLimit => "idle-limit",
            Note::IgnoresGlobalLimits => "ignores-global-limits",
            Note::BandwidthGroup => "bandwidth-group",
            Note::TorrentPriority => "torrent-priority",
            Note::FirstLastPiece => "first-last-piece",
            Note::StopCondition => "stop-condition",
            Note::DiscoveryOff => "discovery-off",
            Note::LimitAction => "limit-action",
            Note::RatioGroup => "ratio-group",
            Note::Remark => "remark",
            Note::TiedFile => "tied-file",
        }
    }
}
