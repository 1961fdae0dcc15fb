//! What the HTTP API says and is told, as JSON: one set of types for the server, which writes the
//! answers and reads the requests, and for whoever asks it from Rust.
//!
//! Bytes, and bytes per second, are integers; times are seconds since 1970; parts of a whole are
//! thousandths; info-hashes are lower-case hex. A field that may be absent is left out when it is.
//! Requests take no fields that they do not know; whoever reads answers ignores such fields, which
//! later versions add.
//!
//! Does not: check what is said beyond its shape; the crate's `api::convert` does.

use serde::{Deserialize, Deserializer, Serialize};
use utoipa::{IntoParams, ToSchema};

// By its path, because this file is compiled by the fuzz targets, too.
#[path = "types/request.rs"]
mod request;

pub use request::{
    AddTorrent, Bulk, BulkAction, BulkEdit, ChangesQuery, EditFiles, EditLimits, EditServerLimits,
    EditTorrent, FilePriority, Filter, ListQuery, LogQuery, MoveTorrent, NewPeers, NewTrackers,
    Order, Place, QueuePlace, RemoveQuery, RenameFile, RenamePath, SecretsQuery, SortKey,
};

/// What a torrent is doing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// The user has stopped it.
    Paused,
    /// It waits for its turn.
    Queued,
    /// Its metainfo is being fetched.
    Metadata,
    /// Its data are being hashed.
    Checking,
    /// Its data are being moved.
    Moving,
    /// Pieces are missing and wanted.
    Downloading,
    /// What is wanted is there, and served.
    Seeding,
    /// Its data are not there, such as on a file system that is not mounted.
    Offline,
    /// It needs somebody: see its last error.
    Failed,
}

/// A torrent as lists have it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Torrent {
    /// By which it is known: 40 hex digits.
    pub info_hash: String,
    /// The version 2 info-hash of a hybrid torrent (BEP 52): 64 hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub info_hash_v2: Option<String>,
    /// Its name, or another that the user gave it.
    pub name: String,
    /// What it is doing.
    pub status: Status,
    /// Of a check or a move, how much is done, in thousandths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done_permille: Option<u16>,
    /// The last thing that went wrong with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<LastError>,
    /// Whether it is private (BEP 27).
    pub private: bool,
    /// The length of all its files; 0 until its metainfo is known.
    pub total_bytes: u64,
    /// Bytes of it that are verified and there.
    pub verified_bytes: u64,
    /// The length of a piece; 0 until its metainfo is known.
    pub piece_bytes: u32,
    /// How many pieces it has; 0 until its metainfo is known.
    pub pieces: u32,
    /// How many of them are verified and there.
    pub pieces_verified: u32,
    /// How many files it has; 0 until its metainfo is known.
    pub files: u32,
    /// The folder that holds its file or folder.
    pub save_path: String,
    /// The category that it is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// Its labels.
    pub labels: Vec<String>,
    /// When it was added.
    pub added_at_s: u64,
    /// When it became complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at_s: Option<u64>,
    /// When payload last went either way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_active_at_s: Option<u64>,
    /// Whether the user has stopped it.
    pub paused: bool,
    /// Whether its data were taken to be complete when it was added.
    pub seed_mode: bool,
    /// Whether pieces are wanted in their order.
    pub sequential: bool,
    /// Whether it is super-seeded (BEP 16).
    pub super_seeding: bool,
    /// Limits of its own.
    pub limits: TorrentLimits,
    /// Payload sent, over all runs.
    pub uploaded_bytes: u64,
    /// Payload received, over all runs.
    pub downloaded_bytes: u64,
    /// Payload sent since the server was started.
    pub uploaded_session_bytes: u64,
    /// Payload received since then.
    pub downloaded_session_bytes: u64,
    /// Payload received that was of no use.
    pub wasted_bytes: u64,
    /// Payload sent for a thousand bytes of its length.
    pub ratio_permille: u64,
    /// Seconds that it was not paused.
    pub active_s: u64,
    /// Seconds that it was complete and not paused.
    pub seeding_s: u64,
    /// Payload sent per second, now.
    pub upload_rate: u64,
    /// Payload received per second, now.
    pub download_rate: u64,
    /// Connected peers.
    pub peers: u32,
    /// Those of them that have all of it.
    pub seeds: u32,
}

/// Something that went wrong.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct LastError {
    /// When.
    pub at_s: u64,
    /// What, in a sentence.
    pub text: String,
}

/// Limits of a torrent. One that is absent is that of its label, its category or the server; 0
/// means that there is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TorrentLimits {
    /// Upload, in bytes per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload_rate: Option<u64>,
    /// Download, in bytes per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub download_rate: Option<u64>,
    /// Connected peers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peers_max: Option<u64>,
    /// Uploaded bytes for a thousand of the torrent's, after which `at_limit` is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ratio_permille: Option<u64>,
    /// Seconds of seeding, after which `at_limit` is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seeding_time_s: Option<u64>,
    /// What is done then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_limit: Option<LimitAction>,
}

/// What is done with a torrent that has reached its ratio or its seeding time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
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

/// A page of torrents.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct TorrentList {
    /// How many there are on all pages together.
    pub total: usize,
    /// How many come before this page.
    pub offset: usize,
    /// By which `GET /changes` tells what has changed since.
    pub revision: u64,
    /// Those of the page. Where `fields` was given, they have these fields and no others.
    pub torrents: Vec<Torrent>,
}

/// All that is known of one torrent.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct TorrentDetails {
    /// What lists have of it.
    #[serde(flatten)]
    pub torrent: Torrent,
    /// Its comment: a stranger's text, as the next two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// By what it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// When it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at_s: Option<u64>,
    /// The link that stands for it; without trackers that may hold a passkey, unless secrets are
    /// asked for.
    pub magnet: String,
    /// Its trackers in their tiers; of each scheme, host and port, unless secrets are asked for.
    pub trackers: Vec<Vec<String>>,
    /// Its web seeds; of each scheme, host and port, unless secrets are asked for.
    pub web_seeds: Vec<String>,
    /// Its place in the queue, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_position: Option<u64>,
    /// What each source of peers gave; empty while the torrent sleeps.
    #[serde(default)]
    pub sources: Vec<SourceStatus>,
}

/// Peers of a torrent that one source gave.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct SourceStatus {
    /// Its name: `tracker`, `dht`, `pex`, `lsd`, `incoming` (they came by themselves) or `given`.
    pub source: String,
    /// Addresses that it has named and that were not known, since the torrent woke or its download
    /// began.
    pub named: u32,
    /// Peers of it that are connected.
    pub connected: u32,
}

/// A torrent that was added, or was there.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Added {
    /// By which it is known.
    pub info_hash: String,
    /// Its name, as far as it is known.
    pub name: String,
    /// Whether it was there already: nothing has changed then.
    pub was_there: bool,
}

/// What became of something that was done to many torrents.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct BulkResult {
    /// To how many it was done.
    pub done: usize,
    /// To how many it was not.
    pub failed_total: usize,
    /// The first thousand of those.
    pub failed: Vec<BulkFailure>,
}

/// A torrent to which something was not done.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct BulkFailure {
    /// Which.
    pub info_hash: String,
    /// Why.
    pub problem: Problem,
}

/// A file of a torrent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct FileStatus {
    /// Its number in the torrent, from 0.
    pub index: u32,
    /// Its path below the save path.
    pub path: String,
    /// Its length.
    pub total_bytes: u64,
    /// Bytes of it that are verified.
    pub verified_bytes: u64,
    /// How much it is wanted: 0 not at all, 4 as usual, 7 before everything else.
    pub priority: u8,
}

/// A torrent's files.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct FileList {
    /// All of them.
    pub files: Vec<FileStatus>,
}

/// A connected peer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct PeerStatus {
    /// Where it is, with its port.
    pub address: String,
    /// The program that it says it is; empty if it says nothing.
    pub client: String,
    /// Whether it connected to us.
    pub incoming: bool,
    /// By which source we know of it.
    pub source: String,
    /// Pieces that it has, in thousandths of all.
    pub has_permille: u16,
    /// Payload sent to it.
    pub uploaded_bytes: u64,
    /// Payload received of it.
    pub downloaded_bytes: u64,
    /// Payload sent to it per second.
    pub upload_rate: u64,
    /// Payload received of it per second.
    pub download_rate: u64,
    /// Whether we are choking it (BEP 3), and so on.
    pub am_choking: bool,
    /// Whether we want something of it.
    pub am_interested: bool,
    /// Whether it is choking us.
    pub peer_choking: bool,
    /// Whether it wants something of us.
    pub peer_interested: bool,
}

/// A torrent's peers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct PeerList {
    /// Those that are connected.
    pub peers: Vec<PeerStatus>,
}

/// What a tracker is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TrackerState {
    /// Not asked yet, because one before it works or its turn is to come.
    Waiting,
    /// An announce is under way.
    Announcing,
    /// It answered the last announce.
    Working,
    /// It did not, and waits for its back-off to end.
    Failing,
    /// It is not used.
    Disabled,
}

/// A tracker of a torrent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct TrackerStatus {
    /// Scheme, host and port; several that are alike by that are numbered.
    pub tracker: String,
    /// Its tier, from 0.
    pub tier: usize,
    /// What it is about.
    pub state: TrackerState,
    /// Seconds since the last announce ended, well or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_last_s: Option<u64>,
    /// Seconds that its answer has been waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asking_for_s: Option<u64>,
    /// Seconds until it may be asked again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_next_s: Option<u64>,
    /// Complete peers that it counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seeders: Option<u32>,
    /// Incomplete peers that it counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leechers: Option<u32>,
    /// How often the torrent was completed, as it counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub downloaded: Option<u32>,
    /// Peers in its last reply.
    pub peers: usize,
    /// The last failure or warning: a stranger's text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// A torrent's trackers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct TrackerList {
    /// Their URLs in their tiers; of each scheme, host and port, unless secrets are asked for.
    pub tiers: Vec<Vec<String>>,
    /// How each does.
    pub trackers: Vec<TrackerStatus>,
}

/// A torrent's pieces.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Pieces {
    /// How many it has.
    pub count: u32,
    /// How many are verified and there.
    pub verified_count: u32,
    /// Which, in base64: a bit each, the highest of the first byte is piece 0 (BEP 3).
    pub verified: String,
}

/// What is new since a revision.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Changes {
    /// What to ask `since` next.
    pub revision: u64,
    /// What to ask `begun` next, while one is told of all torrents a part at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun: Option<u64>,
    /// Whether all that is known from before is to be forgotten first.
    pub begins_anew: bool,
    /// Whether there is more: ask again at once.
    pub has_more: bool,
    /// Torrents that are new or have changed, whole.
    pub changed: Vec<Torrent>,
    /// Info-hashes of those that were removed.
    pub removed: Vec<String>,
}

/// Torrents that have one thing in common.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Group {
    /// What: a label, a category.
    pub name: String,
    /// How many torrents.
    pub torrents: usize,
}

/// Labels, or categories, of all torrents.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct GroupList {
    /// Those that any torrent has, by name.
    pub groups: Vec<Group>,
}

/// The server.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ServerStatus {
    /// Its version.
    pub version: String,
    /// The commit that it was built from.
    pub commit: String,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// The port at which peers reach it; 0 until it is open.
    pub peer_port: u16,
    /// See [`Changes::revision`].
    pub revision: u64,
    /// How many torrents there are.
    pub torrents: usize,
    /// How many of them have which status.
    pub by_status: StatusCounts,
    /// The length of all of them.
    pub total_bytes: u64,
    /// Payload sent over all runs, of torrents that are gone, too.
    pub uploaded_bytes: u64,
    /// Payload received over all runs.
    pub downloaded_bytes: u64,
    /// Payload sent since the start.
    pub uploaded_session_bytes: u64,
    /// Payload received since the start.
    pub downloaded_session_bytes: u64,
    /// Payload sent per second.
    pub upload_rate: u64,
    /// Payload received per second.
    pub download_rate: u64,
}

/// How many torrents have which status.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct StatusCounts {
    /// See [`Status::Paused`].
    pub paused: usize,
    /// See [`Status::Queued`].
    pub queued: usize,
    /// See [`Status::Metadata`].
    pub metadata: usize,
    /// See [`Status::Checking`].
    pub checking: usize,
    /// See [`Status::Moving`].
    pub moving: usize,
    /// See [`Status::Downloading`].
    pub downloading: usize,
    /// See [`Status::Seeding`].
    pub seeding: usize,
    /// See [`Status::Offline`].
    pub offline: usize,
    /// See [`Status::Failed`].
    pub failed: usize,
}

/// Limits of the whole server, in bytes per second; 0 is none. Those that are set come before the
/// configuration's; `limits.schedule` comes before both while one of its times holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct ServerLimits {
    /// Payload that is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload_rate: Option<u64>,
    /// Payload that is received.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub download_rate: Option<u64>,
}

/// How important a line of the log is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// Something failed.
    Error,
    /// An operator should look at it.
    Warn,
    /// Something happened to the server as a whole.
    Info,
    /// Something happened to a single peer or request.
    Debug,
    /// All else.
    #[default]
    Trace,
}

/// A line of the server's log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct LogLine {
    /// Higher than those before it, also than those of earlier runs.
    pub number: u64,
    /// When it was logged, in milliseconds since 1970.
    pub at_ms: u64,
    /// How important it is.
    pub level: LogLevel,
    /// The part of the program that has logged it.
    pub target: String,
    /// What it says, and its fields, with strangers' text escaped.
    pub text: String,
}

/// Lines of the server's log, in their order.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct LogLines {
    /// The lines.
    pub lines: Vec<LogLine>,
    /// What to ask for as `since` next.
    pub last: u64,
    /// Whether there are more now.
    pub has_more: bool,
    /// Whether lines since then are kept no more.
    pub missed: bool,
}

/// Why something was not done (RFC 9457), as `application/problem+json`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// What kind of problem it is, for programs; `docs/API.md` lists them.
    #[serde(rename = "type")]
    pub kind: String,
    /// The same in a few words.
    pub title: String,
    /// The status of the answer.
    pub status: u16,
    /// What is wrong, and what would do.
    pub detail: String,
    /// The field of the request that is at fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

/// A field of which `null` says something else than its absence does.
fn present<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(deserializer).map(Some)
}

#[cfg(test)]
#[path = "types/tests.rs"]
mod tests;
