//! Every limit of the store, by name, with what happens when it is reached.

use std::time::Duration;

/// The longest summary of a torrent, in bytes. A longer one is refused.
pub const SUMMARY_BYTES_MAX: usize = 256 << 10;
/// The longest details of a torrent, in bytes: a rename of each of a million files. Longer ones are
/// refused.
pub const DETAILS_BYTES_MAX: usize = 256 << 20;
/// The longest metainfo, in bytes: what `proto` reads of torrents of one's own. Longer ones are
/// refused.
pub const METAINFO_BYTES_MAX: usize = 1 << 30;
/// The most files that a torrent can have here. More are refused, and in a record they are damage.
pub const FILES_MAX: usize = 1 << 22;
/// The longest name of a setting, in bytes. A longer one is refused.
pub const SETTING_NAME_BYTES_MAX: usize = 128;
/// The longest value of a setting, in bytes. A longer one is refused.
pub const SETTING_BYTES_MAX: usize = 1 << 20;
/// The most settings. One more is refused.
pub const SETTINGS_MAX: u64 = 4096;
/// The longest intent, in bytes: both names of each of a million files. A longer one is refused.
pub const INTENT_BYTES_MAX: usize = 512 << 20;

/// Requests that wait for the writer. Who brings one more waits for room.
pub const REQUESTS_MAX: usize = 1024;
/// Bytes of requests that wait for the writer or are being written, in KiB, unless the options say
/// otherwise. Who brings more waits for room; what is larger than all of it waits until it is
/// alone.
pub const REQUESTS_KIB: u32 = 64 << 10;
/// Writes in one request. A request of more is refused whole.
pub const WRITES_MAX: usize = 10_000;
/// Requests that are committed together. The next ones wait for the next commit.
pub const GROUP_MAX: usize = 4096;
/// Torrents of which something waits for the end of a period. When there are more they are written
/// at once; when that fails, the newest are dropped and counted.
pub const SOON_TORRENTS_MAX: usize = 8192;
/// Bytes of what waits for the end of a period, about: what is said twice counts twice. More is
/// treated in the same way.
pub const SOON_BYTES_MAX: usize = 64 << 20;
/// How long what may wait does wait, unless the options say otherwise.
pub const SOON_PERIOD: Duration = Duration::from_secs(5);
/// Views that asynchronous callers have open at once. The next one waits.
pub const VIEWS_MAX: usize = 4;
/// The most torrents in one page of the list.
pub const PAGE_MAX: usize = 10_000;
/// Memory for pages of the file, read and not yet written, unless the options say otherwise. What
/// is over it is read again, or written before its commit.
pub const CACHE_BYTES: usize = 32 << 20;
/// Bytes that a backup writes in one transaction.
pub const COPY_BYTES_MAX: usize = 32 << 20;
/// The most problems that a check names. The others are counted.
pub const PROBLEMS_MAX: usize = 100;
