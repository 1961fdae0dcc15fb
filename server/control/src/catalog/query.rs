//! Pages of torrents: which, in which order, from where.

use super::{Added, Catalog, Status, Torrent};
use proto::ids::InfoHashV1;
use std::cmp::Ordering;

/// Torrents of one page at most; who asks for more gets so many.
pub const PAGE_MAX: usize = 10_000;

/// Torrents that are kept while a page is made, if it has fewer.
const KEPT_MIN: usize = 16;

/// By what a page is sorted. Torrents that are alike in it are in the order in which they were
/// added.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum SortKey {
    /// When it was added here.
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

/// Which torrents.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Filter {
    /// With one of these; empty for any.
    pub status: Vec<Status>,
    /// With this label.
    pub label: Option<String>,
    /// In this category; `""` for those in none.
    pub category: Option<String>,
    /// With this in their name, without regard to case.
    pub text: Option<String>,
}

/// A question for a page.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Query {
    /// Which torrents.
    pub filter: Filter,
    /// In which order.
    pub sort: SortKey,
    /// The other way round, those that are alike too.
    pub descending: bool,
    /// So many are left out at the beginning.
    pub offset: usize,
    /// So many are shown, and [`PAGE_MAX`] at most.
    pub limit: usize,
}

/// Some of the torrents.
#[derive(PartialEq, Debug)]
pub struct Page<'a> {
    /// Those of the page.
    pub torrents: Vec<&'a Torrent>,
    /// How many there are on all pages together.
    pub total: usize,
}

impl Filter {
    /// Whether all pass.
    fn is_any(&self) -> bool {
        *self == Filter::default()
    }

    /// Whether this torrent passes. `text`: [`Filter::text`] in lower case, not empty.
    fn passes(&self, torrent: &Torrent, text: Option<&str>) -> bool {
        let summary = &torrent.summary;
        let label = |label: &String| summary.labels.contains(label);
        let category = |category: &String| summary.category.as_deref().unwrap_or("") == category;
        (self.status.is_empty() || self.status.contains(&torrent.live.status))
            && self.label.as_ref().is_none_or(label)
            && self.category.as_ref().is_none_or(category)
            && text.is_none_or(|text| contains(&summary.name, text))
    }

    /// [`Filter::text`] in lower case; none if it is empty, which everything contains.
    fn text_in_lower_case(&self) -> Option<String> {
        let text = self.text.as_ref().filter(|text| !text.is_empty());
        text.map(|text| text.to_lowercase())
    }
}

/// Whether a name contains a text that is in lower case. Most names are ASCII and cost no memory.
fn contains(name: &str, text: &str) -> bool {
    if !name.is_ascii() {
        return name.to_lowercase().contains(text);
    }
    let mut parts = name.as_bytes().windows(text.len());
    parts.any(|part| part.eq_ignore_ascii_case(text.as_bytes()))
}

/// What is compared of a torrent.
#[derive(PartialEq, Eq)]
enum Rank<'a> {
    Number(u64),
    Text(&'a str),
}

impl Ord for Rank<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Rank::Number(one), Rank::Number(other)) => one.cmp(other),
            (Rank::Text(one), Rank::Text(other)) if one.is_ascii() && other.is_ascii() => {
                let one = one.bytes().map(|byte| byte.to_ascii_lowercase());
                one.cmp(other.bytes().map(|byte| byte.to_ascii_lowercase()))
            }
            (Rank::Text(one), Rank::Text(other)) => one.to_lowercase().cmp(&other.to_lowercase()),
            // Never of one key.
            (Rank::Number(_), Rank::Text(_)) => Ordering::Less,
            (Rank::Text(_), Rank::Number(_)) => Ordering::Greater,
        }
    }
}

impl PartialOrd for Rank<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl SortKey {
    /// `None` stands for the order in which they were added.
    fn rank(self, torrent: &Torrent) -> Option<Rank<'_>> {
        let number = match self {
            SortKey::Added => return None,
            SortKey::Name => return Some(Rank::Text(&torrent.summary.name)),
            SortKey::Size => torrent.summary.total_bytes,
            SortKey::Progress => {
                let done = u128::from(torrent.bytes_verified()) * 1_000_000;
                let done = done.checked_div(u128::from(torrent.summary.total_bytes));
                u64::try_from(done.unwrap_or(0)).unwrap_or(u64::MAX)
            }
            SortKey::Status => torrent.live.status as u64,
            SortKey::UploadRate => torrent.live.upload_rate,
            SortKey::DownloadRate => torrent.live.download_rate,
            SortKey::Uploaded => torrent.totals.uploaded_bytes,
            SortKey::Downloaded => torrent.totals.downloaded_bytes,
            SortKey::Ratio => torrent.ratio_permille(),
            SortKey::Peers => u64::from(torrent.live.peers),
            SortKey::Completed => torrent.summary.completed_at_s.unwrap_or(u64::MAX),
            SortKey::Active => torrent.totals.last_active_at_s,
        };
        Some(Rank::Number(number))
    }
}

impl Catalog {
    /// All that pass a filter, in the order in which they were added.
    pub fn hashes(&self, filter: &Filter) -> Vec<InfoHashV1> {
        let text = filter.text_in_lower_case();
        let passing = self
            .iter()
            .filter(|torrent| filter.passes(torrent, text.as_deref()));
        passing.map(|torrent| torrent.info_hash).collect()
    }

    /// A page of the torrents.
    pub fn page(&self, query: &Query) -> Page<'_> {
        let limit = query.limit.min(PAGE_MAX);
        if query.sort == SortKey::Added && query.filter.is_any() {
            return self.page_as_added(query, limit);
        }
        let text = query.filter.text_in_lower_case();
        // As they lie in memory: to look each up in the order in which they were added costs more
        // than to compare its number.
        let entries = self.entries.values();
        let passing = entries.filter(|entry| query.filter.passes(&entry.torrent, text.as_deref()));
        type Found<'a> = (Option<Rank<'a>>, Added, &'a Torrent);
        let order = |one: &Found<'_>, other: &Found<'_>| -> Ordering {
            let order = one.0.cmp(&other.0).then(one.1.cmp(&other.1));
            match query.descending {
                true => order.reverse(),
                false => order,
            }
        };
        // What comes after the page need not be kept: of twice as many as it ends with, the half
        // that is behind goes, so that a page costs no memory for the others. What comes after
        // the last of the other half is passed over from then on, for one comparison each.
        let end = query.offset.saturating_add(limit);
        let kept = end.max(KEPT_MIN);
        let (mut found, mut total): (Vec<Found<'_>>, _) = (Vec::new(), 0);
        let mut is_bounded = false;
        for entry in passing {
            total += 1;
            let rank = query.sort.rank(&entry.torrent);
            let one = (rank, entry.added, &entry.torrent);
            if is_bounded && order(&one, &found[kept - 1]).is_gt() {
                continue;
            }
            found.push(one);
            if found.len() >= kept.saturating_mul(2) {
                // The last of those that stay is in its place then.
                found.select_nth_unstable_by(kept - 1, order);
                found.truncate(kept);
                is_bounded = true;
            }
        }
        if 0 < end && end < found.len() {
            found.select_nth_unstable_by(end - 1, order);
            found.truncate(end);
        }
        found.sort_unstable_by(order);
        let torrents = found.into_iter().skip(query.offset).take(limit);
        Page {
            torrents: torrents.map(|(_, _, torrent)| torrent).collect(),
            total,
        }
    }

    /// The same without a pass over what comes after the page.
    fn page_as_added(&self, query: &Query, limit: usize) -> Page<'_> {
        let torrents = match query.descending {
            true => self.iter().rev().skip(query.offset).take(limit).collect(),
            false => self.iter().skip(query.offset).take(limit).collect(),
        };
        Page {
            torrents,
            total: self.len(),
        }
    }
}
