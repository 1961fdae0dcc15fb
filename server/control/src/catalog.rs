//! All torrents of a server as its API, its screens and its metrics see them: in memory, current,
//! and cheap to ask, so that no question waits for the data plane or the disk.
//!
//! A change of one torrent costs O(log n), whatever the number of torrents; a page costs one pass
//! over them, and a sort of what it shows. What has changed since a revision is found without a
//! pass ([`Catalog::changes`]), so that whoever watches 100,000 torrents is sent what is new and
//! nothing else.
//!
//! Limits: [`GONE_MAX`] removed torrents are remembered for those who watch; who was away for
//! longer is told to begin again. The torrents themselves are bounded by whoever adds them.
//!
//! Does not: decide anything about a torrent, or keep anything over a restart (the store does).

use ::state::{Summary, Totals};
use proto::ids::InfoHashV1;
use proto::metainfo::Metainfo;
use std::collections::{BTreeMap, HashMap, VecDeque};

mod query;

pub use query::{Filter, PAGE_MAX, Page, Query, SortKey};

/// Removed torrents that are remembered. When there are more, the one removed first is forgotten.
pub const GONE_MAX: usize = 10_000;

/// What a torrent is doing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Status {
    /// The user has stopped it.
    #[default]
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

impl Status {
    /// Every status, in the order in which a sort by it has them.
    pub const ALL: [Status; 9] = [
        Status::Paused,
        Status::Queued,
        Status::Metadata,
        Status::Checking,
        Status::Moving,
        Status::Downloading,
        Status::Seeding,
        Status::Offline,
        Status::Failed,
    ];
}

/// What is true of a torrent now and is not kept.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Live {
    /// What it is doing.
    pub status: Status,
    /// Payload sent, in bytes per second.
    pub upload_rate: u64,
    /// Payload received, in bytes per second.
    pub download_rate: u64,
    /// Peers that are connected.
    pub peers: u32,
    /// Those of them that have all of it.
    pub seeds: u32,
    /// Of a check or a move, how much is done, in thousandths.
    pub done_permille: Option<u16>,
    /// Payload sent since the server was started, in bytes.
    pub uploaded_session: u64,
    /// Payload received since then, in bytes.
    pub downloaded_session: u64,
    /// Since when it has been doing something, in seconds since 1970: what [`Totals`] do not have
    /// yet. None while it is paused or waits for its data.
    pub active_since_s: Option<u64>,
    /// Whether it is named in the configuration or on the command line: it is not kept, and stays
    /// until that changes.
    pub declared: bool,
}

/// A torrent.
#[derive(Clone, PartialEq, Debug)]
pub struct Torrent {
    /// By which it is known.
    pub info_hash: InfoHashV1,
    /// What the store keeps of it.
    pub summary: Summary,
    /// Payload over all runs.
    pub totals: Totals,
    /// Pieces that are verified and there.
    pub pieces_verified: u32,
    /// What is true of it now.
    pub live: Live,
}

impl Torrent {
    /// Bytes that are verified and there, of [`Summary::total_bytes`]: those of whole pieces, the
    /// last of which may be shorter.
    pub fn bytes_verified(&self) -> u64 {
        let pieces = u64::from(self.pieces_verified);
        let bytes = pieces * u64::from(self.summary.piece_bytes);
        bytes.min(self.summary.total_bytes)
    }

    /// Whether all its pieces are there.
    pub fn is_complete(&self) -> bool {
        self.summary.total_bytes > 0 && self.pieces_verified == self.summary.pieces
    }

    /// Whether all that is wanted of it is there, and that is not all.
    fn is_partial_seed(&self) -> bool {
        let has_some = self.pieces_verified > 0 && !self.is_complete();
        has_some && self.live.status == Status::Seeding
    }

    /// The totals as they are at `now_s`, in seconds since 1970: those of time go on by themselves.
    pub fn totals_at(&self, now_s: u64) -> Totals {
        let mut totals = self.totals;
        let since = |began: u64| now_s.saturating_sub(began);
        if let Some(began) = self.live.active_since_s {
            totals.active_s += since(began);
            if let Some(completed) = self.summary.completed_at_s.filter(|_| self.is_complete()) {
                totals.seeding_s += since(began.max(completed));
            } else if self.is_partial_seed() {
                totals.seeding_s += since(began);
            }
        }
        totals
    }

    /// Payload sent for a thousand bytes of the torrent; 0 while its length is not known.
    pub fn ratio_permille(&self) -> u64 {
        let sent = u128::from(self.totals.uploaded_bytes) * 1000;
        let ratio = sent.checked_div(u128::from(self.summary.total_bytes));
        u64::try_from(ratio.unwrap_or(0)).unwrap_or(u64::MAX)
    }
}

/// Enters into `summary` what `metainfo` say.
pub fn describe(summary: &mut Summary, metainfo: &Metainfo) {
    if summary.name.is_empty() {
        summary.name.clone_from(&metainfo.name);
    }
    summary.info_hash_v2 = metainfo.info_hash_v2;
    summary.private = metainfo.private;
    summary.total_bytes = metainfo.content_length();
    summary.piece_bytes = metainfo.piece_length;
    summary.pieces = metainfo.piece_count;
    // No more than metainfo can hold.
    summary.files = metainfo.files.len() as u32;
}

/// When a torrent was added, in seconds since 1970, and as the how many-th of this run. The first
/// outlives a restart, after which they are entered in any order; the second parts those of one
/// second, as far as it is known.
type Added = (u64, u64);

/// A torrent and its places in the orders.
struct Entry {
    torrent: Torrent,
    /// Its place in the order in which they were added.
    added: Added,
    /// The revision of its last change.
    revision: u64,
}

/// See the module.
#[derive(Default)]
pub struct Catalog {
    entries: HashMap<InfoHashV1, Entry>,
    by_added: BTreeMap<Added, InfoHashV1>,
    by_revision: BTreeMap<u64, InfoHashV1>,
    next_number: u64,
    revision: u64,
    /// What was removed, and at which revision; the oldest first.
    gone: VecDeque<(u64, InfoHashV1)>,
    /// Since which revision all removals are known.
    gone_since: u64,
    counts: BTreeMap<Status, usize>,
    bytes: u64,
    sums: Sums,
    labels: Groups,
    categories: Groups,
    /// What the server has sent and received, torrents among them that are gone.
    totals: Totals,
    /// What of it was before this run.
    totals_before: Totals,
}

/// Sums over all torrents.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sums {
    /// Payload sent of them, over all runs.
    pub uploaded_bytes: u64,
    /// Payload received of them, over all runs.
    pub downloaded_bytes: u64,
    /// Payload sent per second.
    pub upload_rate: u64,
    /// Payload received per second.
    pub download_rate: u64,
}

impl Sums {
    /// With this torrent, or without it.
    fn changed(self, torrent: &Torrent, change: impl Fn(u64, u64) -> u64) -> Sums {
        let Torrent { totals, live, .. } = torrent;
        Sums {
            uploaded_bytes: change(self.uploaded_bytes, totals.uploaded_bytes),
            downloaded_bytes: change(self.downloaded_bytes, totals.downloaded_bytes),
            upload_rate: change(self.upload_rate, live.upload_rate),
            download_rate: change(self.download_rate, live.download_rate),
        }
    }
}

/// Names, and how many torrents have each; those that none has are not there.
#[derive(Default)]
struct Groups(BTreeMap<String, usize>);

impl Groups {
    fn join<'a>(&mut self, names: impl IntoIterator<Item = &'a String>) {
        for name in names {
            match self.0.get_mut(name) {
                Some(count) => *count += 1,
                None => {
                    self.0.insert(name.clone(), 1);
                }
            }
        }
    }

    fn leave<'a>(&mut self, names: impl IntoIterator<Item = &'a String>) {
        for name in names {
            match self.0.get_mut(name) {
                Some(count) if *count > 1 => *count -= 1,
                _ => {
                    self.0.remove(name);
                }
            }
        }
    }

    fn iter(&self) -> impl Iterator<Item = (&str, usize)> {
        self.0.iter().map(|(name, count)| (name.as_str(), *count))
    }
}

/// What is new since a revision.
#[derive(PartialEq, Debug, Default)]
pub struct Changes<'a> {
    /// By which the next question begins.
    pub revision: u64,
    /// While a reader is being told of all torrents for the first time: when that began. It is to
    /// bring it with the next question, for it holds nothing that was removed before.
    pub begun: Option<u64>,
    /// Whether what is held from before is to be forgotten first: too much has happened since.
    pub begins_anew: bool,
    /// Whether there is more since [`Changes::revision`].
    pub has_more: bool,
    /// The torrents that are new or have changed, the longest ago first.
    pub changed: Vec<&'a Torrent>,
    /// Those that were removed. One that was added again since is among the changed ones only.
    pub removed: Vec<InfoHashV1>,
}

/// What a reader of [`Catalog::changes`] knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Known {
    /// The last [`Changes::revision`] that it was told; 0: nothing.
    pub revision: u64,
    /// [`Changes::begun`] beside it.
    pub begun: Option<u64>,
}

impl From<u64> for Known {
    fn from(revision: u64) -> Known {
        Known {
            revision,
            begun: None,
        }
    }
}

impl Catalog {
    /// One without torrents, the revisions of which are higher than `revision`: who knows an
    /// earlier one is told to begin again.
    pub fn beginning_at(revision: u64) -> Catalog {
        Catalog {
            revision,
            gone_since: revision,
            ..Catalog::default()
        }
    }

    /// Adds a torrent. False if it is there already: nothing changes then.
    pub fn add(&mut self, torrent: Torrent) -> bool {
        let info_hash = torrent.info_hash;
        if self.entries.contains_key(&info_hash) {
            return false;
        }
        self.next_number += 1;
        self.revision += 1;
        let (added, revision) = (
            (torrent.summary.added_at_s, self.next_number),
            self.revision,
        );
        self.count(&torrent, 1);
        self.labels.join(&torrent.summary.labels);
        self.categories.join(&torrent.summary.category);
        self.by_added.insert(added, info_hash);
        self.by_revision.insert(revision, info_hash);
        let entry = Entry {
            torrent,
            added,
            revision,
        };
        self.entries.insert(info_hash, entry);
        true
    }

    /// Changes a torrent. False if it is not there. A change that changes nothing is none; its
    /// info-hash stays what it is.
    pub fn change(&mut self, info_hash: &InfoHashV1, change: impl FnOnce(&mut Torrent)) -> bool {
        let Some(mut entry) = self.entries.remove(info_hash) else {
            return false;
        };
        let before = entry.torrent.clone();
        change(&mut entry.torrent);
        entry.torrent.info_hash = *info_hash;
        if entry.torrent != before {
            self.count(&before, -1);
            self.count(&entry.torrent, 1);
            self.regroup(&before.summary, &entry.torrent.summary);
            self.by_revision.remove(&entry.revision);
            self.revision += 1;
            entry.revision = self.revision;
            self.by_revision.insert(self.revision, *info_hash);
            self.by_added.remove(&entry.added);
            entry.added.0 = entry.torrent.summary.added_at_s;
            self.by_added.insert(entry.added, *info_hash);
        }
        self.entries.insert(*info_hash, entry);
        true
    }

    /// Removes a torrent, and returns it.
    pub fn remove(&mut self, info_hash: &InfoHashV1) -> Option<Torrent> {
        let entry = self.entries.remove(info_hash)?;
        self.count(&entry.torrent, -1);
        self.labels.leave(&entry.torrent.summary.labels);
        self.categories.leave(&entry.torrent.summary.category);
        self.by_added.remove(&entry.added);
        self.by_revision.remove(&entry.revision);
        self.revision += 1;
        self.gone.push_back((self.revision, *info_hash));
        if self.gone.len() > GONE_MAX
            && let Some((revision, _)) = self.gone.pop_front()
        {
            self.gone_since = revision;
        }
        Some(entry.torrent)
    }

    /// A torrent.
    pub fn get(&self, info_hash: &InfoHashV1) -> Option<&Torrent> {
        self.entries.get(info_hash).map(|entry| &entry.torrent)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many have this status.
    pub fn count_of(&self, status: Status) -> usize {
        self.counts.get(&status).copied().unwrap_or(0)
    }

    /// The length of all of them together.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Sums over all of them.
    pub fn sums(&self) -> Sums {
        self.sums
    }

    /// The server's totals of earlier runs. Torrents may say more, who were taken over from another
    /// client with what that had counted.
    pub fn begin_totals(&mut self, before: Totals) {
        let sums = self.sums;
        let before = Totals {
            uploaded_bytes: before.uploaded_bytes.max(sums.uploaded_bytes),
            downloaded_bytes: before.downloaded_bytes.max(sums.downloaded_bytes),
            ..before
        };
        (self.totals, self.totals_before) = (before, before);
    }

    /// Payload was sent, received, and received for nothing, in bytes.
    pub fn transferred(&mut self, (sent, received, wasted): (u64, u64, u64)) {
        self.totals.uploaded_bytes += sent;
        self.totals.downloaded_bytes += received;
        self.totals.wasted_bytes += wasted;
    }

    /// What the server has sent and received in all its runs.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// What it has sent and received in this run, in bytes.
    pub fn session(&self) -> (u64, u64) {
        let (now, before) = (self.totals, self.totals_before);
        (
            now.uploaded_bytes - before.uploaded_bytes,
            now.downloaded_bytes - before.downloaded_bytes,
        )
    }

    /// Labels that torrents have, by name, and how many have each.
    pub fn labels(&self) -> impl Iterator<Item = (&str, usize)> {
        self.labels.iter()
    }

    /// Categories that torrents are in, by name, and how many are in each.
    pub fn categories(&self) -> impl Iterator<Item = (&str, usize)> {
        self.categories.iter()
    }

    /// By which [`Catalog::changes`] tells of what is not there yet.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// All of them, in the order in which they were added.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Torrent> {
        let entries = self.by_added.values();
        entries.filter_map(|info_hash| self.get(info_hash))
    }

    /// What is new to who knows so much; at most `max` torrents, of which the removed ones come
    /// first.
    pub fn changes(&self, known: Known, max: usize) -> Changes<'_> {
        // Before this revision it can have been told of no torrent.
        let begun = known.begun.unwrap_or(known.revision).max(known.revision);
        let begins_anew = known.revision != 0 && (begun < self.gone_since || begun > self.revision);
        let is_first = begins_anew || known.revision == 0;
        let (since, begun) = match is_first {
            true => (0, self.revision),
            false => (known.revision, begun),
        };
        let mut changed = self.by_revision.range(since.saturating_add(1)..).peekable();
        let mut told = Changes {
            revision: since,
            begins_anew,
            ..Changes::default()
        };
        // Both are in the order of their revisions.
        let first = self
            .gone
            .partition_point(|(revision, _)| *revision <= begun);
        let mut gone = self.gone.range(first..).peekable();
        while told.changed.len() + told.removed.len() < max {
            let next_changed = changed.peek().map_or(u64::MAX, |(revision, _)| **revision);
            let next_gone = gone.peek().map_or(u64::MAX, |(revision, _)| *revision);
            if next_gone < next_changed {
                let Some((revision, info_hash)) = gone.next() else {
                    break;
                };
                told.revision = *revision;
                if !self.entries.contains_key(info_hash) {
                    told.removed.push(*info_hash);
                }
            } else if let Some((revision, info_hash)) = changed.next() {
                told.revision = *revision;
                told.changed.extend(self.get(info_hash));
            } else {
                break;
            }
        }
        told.has_more = changed.peek().is_some() || gone.peek().is_some();
        if !told.has_more {
            told.revision = self.revision;
        }
        told.begun = (told.revision < begun).then_some(begun);
        told
    }

    fn count(&mut self, torrent: &Torrent, by: isize) {
        let count = self.counts.entry(torrent.live.status).or_default();
        *count = count.saturating_add_signed(by);
        let bytes = torrent.summary.total_bytes;
        self.bytes = match by {
            1.. => self.bytes.saturating_add(bytes),
            _ => self.bytes.saturating_sub(bytes),
        };
        self.sums = match by {
            1.. => self.sums.changed(torrent, u64::saturating_add),
            _ => self.sums.changed(torrent, u64::saturating_sub),
        };
    }

    fn regroup(&mut self, before: &Summary, after: &Summary) {
        if before.labels != after.labels {
            self.labels.leave(&before.labels);
            self.labels.join(&after.labels);
        }
        if before.category != after.category {
            self.categories.leave(&before.category);
            self.categories.join(&after.category);
        }
    }
}

#[cfg(test)]
mod tests;
