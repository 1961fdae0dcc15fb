//! What requests say.

use super::{IntoParams, LimitAction, LogLevel, Status, ToSchema, TorrentLimits, present};
use serde::{Deserialize, Serialize};

/// Torrents of a page if nothing is said.
fn limit_default() -> usize {
    100
}

/// Changes that are told at a time if nothing is said.
fn changes_default() -> usize {
    1000
}

/// Whether something is as if it had not been said.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// By what a list is sorted. Torrents that are alike in it are in the order in which they were
/// added.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SortKey {
    /// When it was added.
    #[default]
    Added,
    /// Its name, without regard to case.
    Name,
    /// Its length.
    Size,
    /// How much of it is there, in parts of its length.
    Progress,
    /// What it is doing.
    Status,
    /// Payload sent per second.
    UploadRate,
    /// Payload received per second.
    DownloadRate,
    /// Payload sent over all runs.
    Uploaded,
    /// Payload received over all runs.
    Downloaded,
    /// Payload sent for each byte of its length.
    Ratio,
    /// Connected peers.
    Peers,
    /// When it became complete; those that are not come last.
    Completed,
    /// When payload last went either way.
    Active,
}

/// Which way a list is sorted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// The least first.
    #[default]
    Asc,
    /// The most first.
    Desc,
}

/// The query of `GET /torrents`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// Torrents of the page; at most 10,000.
    #[serde(default = "limit_default")]
    #[param(default = 100, maximum = 10_000)]
    pub limit: usize,
    /// How many are left out before it.
    #[serde(default)]
    pub offset: usize,
    /// By what they are sorted.
    #[serde(default)]
    #[param(inline)]
    pub sort: SortKey,
    /// Which way.
    #[serde(default)]
    #[param(inline)]
    pub order: Order,
    /// Only those with one of these, parted by commas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Only those with this label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Only those in this category; empty for those in none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// Only those with this in their name, without regard to case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub q: Option<String>,
    /// Only these fields of each, parted by commas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fields: Option<String>,
}

impl Default for ListQuery {
    fn default() -> ListQuery {
        ListQuery {
            limit: limit_default(),
            offset: 0,
            sort: SortKey::default(),
            order: Order::default(),
            status: None,
            label: None,
            category: None,
            q: None,
            fields: None,
        }
    }
}

/// Which torrents: those to which all holds that is said. Nothing said is all of them.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// With one of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub status: Vec<Status>,
    /// With this label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// In this category; empty for those in none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// With this in their name, without regard to case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub q: Option<String>,
}

/// How much a file is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FilePriority {
    /// Its number in the torrent, from 0.
    pub index: u32,
    /// 0 not at all, 4 as usual, 7 before everything else.
    #[schema(maximum = 7)]
    pub priority: u8,
}

/// A torrent to add: by one of `metainfo`, `magnet`, `url` and `path`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AddTorrent {
    /// Its .torrent file, in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metainfo: Option<String>,
    /// Its magnet link.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub magnet: Option<String>,
    /// Where on the web its .torrent file is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// A file or folder on the server, of which a torrent is made: an absolute path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The folder that its data are in or come into: an absolute path; the category's or the
    /// server's if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub save_path: Option<String>,
    /// The name that is shown; its own if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The category that it is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// Its labels.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// Whether it waits until it is resumed.
    #[serde(skip_serializing_if = "is_default")]
    pub paused: bool,
    /// Whether its data are taken to be complete: they are hashed before they are first served.
    #[serde(skip_serializing_if = "is_default")]
    pub seed_mode: bool,
    /// Whether pieces are wanted in their order.
    #[serde(skip_serializing_if = "is_default")]
    pub sequential: bool,
    /// Whether it is super-seeded (BEP 16).
    #[serde(skip_serializing_if = "is_default")]
    pub super_seeding: bool,
    /// How much files are wanted; those that are not named as usual.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FilePriority>,
    /// Whether files that are not named are not wanted.
    #[serde(skip_serializing_if = "is_default")]
    pub only_named: bool,
    /// Limits of its own.
    #[serde(skip_serializing_if = "is_default")]
    pub limits: TorrentLimits,
    /// Trackers that are asked before its own, in their tiers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub trackers: Vec<Vec<String>>,
    /// Peers to ask at once: addresses with ports.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<String>,
    /// Whether it comes before all others in the queue.
    #[serde(skip_serializing_if = "is_default")]
    pub first_in_queue: bool,
}

/// A change of a torrent. What is absent stays.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EditTorrent {
    /// The name that is shown; its files keep theirs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its category; null for none.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub category: Option<Option<String>>,
    /// Its labels, in place of those it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<Vec<String>>,
    /// Labels that it gets beside others.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub labels_added: Vec<String>,
    /// Labels that it loses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub labels_removed: Vec<String>,
    /// Limits of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<EditLimits>,
    /// Whether pieces are wanted in their order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sequential: Option<bool>,
    /// Whether it is super-seeded (BEP 16).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub super_seeding: Option<bool>,
    /// How much these files are wanted; the others stay.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FilePriority>,
    /// Its trackers in their tiers, in place of those it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trackers: Option<Vec<Vec<String>>>,
}

/// A change of a torrent's limits. What is absent stays; null is that of its label, its category
/// or the server; 0 is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EditLimits {
    /// See [`TorrentLimits::upload_rate`].
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub upload_rate: Option<Option<u64>>,
    /// See [`TorrentLimits::download_rate`].
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub download_rate: Option<Option<u64>>,
    /// See [`TorrentLimits::peers_max`].
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub peers_max: Option<Option<u64>>,
    /// See [`TorrentLimits::ratio_permille`].
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub ratio_permille: Option<Option<u64>>,
    /// See [`TorrentLimits::seeding_time_s`].
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub seeding_time_s: Option<Option<u64>>,
    /// See [`TorrentLimits::at_limit`].
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<LimitAction>)]
    pub at_limit: Option<Option<LimitAction>>,
}

/// The query of `DELETE /torrents/{hash}`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct RemoveQuery {
    /// Whether its files are deleted, too.
    pub with_data: bool,
}

/// The query of what may hold passkeys.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct SecretsQuery {
    /// Whether URLs are told whole, for those who have proven who they are.
    pub secrets: bool,
}

/// Where a torrent's data are to be.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MoveTorrent {
    /// The folder: an absolute path.
    pub save_path: String,
    /// Whether the data are there already, and nothing is to be moved.
    #[serde(default)]
    pub data_are_there: bool,
}

/// A place in the queue: `"first"`, `{"before": HASH}`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// Before all others.
    First,
    /// Behind all others.
    Last,
    /// Nowhere.
    Out,
    /// Right before another one, which is queued.
    Before(String),
    /// Right behind another one, which is queued.
    After(String),
}

/// Where in the queue a torrent is to be.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct QueuePlace {
    /// There.
    pub place: Place,
}

/// What is done to many torrents.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BulkAction {
    /// Serve and download no more until they are resumed; also `stop`.
    #[serde(alias = "stop")]
    Pause,
    /// Go on; also `start`.
    #[serde(alias = "start")]
    Resume,
    /// Forget them.
    Remove,
    /// Hash all their data.
    Recheck,
    /// Announce to their trackers, as soon as these allow it.
    Announce,
    /// Change what is kept of them, by `edit`.
    Edit,
}

/// What of a torrent can be changed of many at once. What is absent stays.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BulkEdit {
    /// Their category; null for none.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub category: Option<Option<String>>,
    /// Their labels, in place of those they have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<Vec<String>>,
    /// Labels that they get beside others.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub labels_added: Vec<String>,
    /// Labels that they lose.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub labels_removed: Vec<String>,
    /// Their limits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<EditLimits>,
}

/// Something to do to many torrents: those of `torrents`, or those that pass `filter`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Bulk {
    /// What.
    pub action: BulkAction,
    /// To these info-hashes; at most 10,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub torrents: Option<Vec<String>>,
    /// To these, instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<Filter>,
    /// Of `remove`: whether their files are deleted, too.
    #[serde(default, skip_serializing_if = "is_default")]
    pub with_data: bool,
    /// Of `edit`: what is changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edit: Option<BulkEdit>,
}

/// How much files are wanted; those that are not named stay.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EditFiles {
    /// These.
    pub files: Vec<FilePriority>,
}

/// What a file is to be called.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RenameFile {
    /// Its path below the save path.
    pub path: String,
}

/// What a file, or a folder with all in it, is to be called: paths below the save path.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RenamePath {
    /// What it is called now.
    pub from: String,
    /// What it is to be called.
    pub to: String,
}

/// Peers to ask.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPeers {
    /// Their addresses with their ports.
    pub peers: Vec<String>,
}

/// Trackers in place of those that a torrent has.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewTrackers {
    /// Their URLs in their tiers.
    pub tiers: Vec<Vec<String>>,
}

/// The query of `GET /changes` and `GET /events`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct ChangesQuery {
    /// The revision that is known; 0 tells of all torrents.
    pub since: u64,
    /// `begun` of the last answer, if it had one: without it who is told of all torrents a part at
    /// a time may have to begin anew when many are removed meanwhile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub begun: Option<u64>,
    /// Torrents that are told of at a time; at most 10,000.
    #[param(default = 1000, maximum = 10_000)]
    pub limit: usize,
}

impl Default for ChangesQuery {
    fn default() -> ChangesQuery {
        ChangesQuery {
            since: 0,
            begun: None,
            limit: changes_default(),
        }
    }
}

/// The query of `GET /log`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct LogQuery {
    /// The number of the last line that is known; without it the last lines are told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// The least important level that is told.
    #[param(inline)]
    pub level: LogLevel,
    /// Lines that are told at a time; at most 1,000.
    #[param(default = 200, maximum = 1000)]
    pub limit: usize,
}

impl Default for LogQuery {
    fn default() -> LogQuery {
        LogQuery {
            since: None,
            level: LogLevel::default(),
            limit: 200,
        }
    }
}

/// A change of the server's limits. What is absent stays; null leaves it to the configuration; 0 is
/// none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EditServerLimits {
    /// Payload that is sent, in bytes per second.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub upload_rate: Option<Option<u64>>,
    /// Payload that is received, in bytes per second.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub download_rate: Option<Option<u64>>,
}
