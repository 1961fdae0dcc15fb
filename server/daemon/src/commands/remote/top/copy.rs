//! A copy of the server's torrents, kept up by its changes.
//!
//! Limits: [`TORRENTS_MAX`]; of a server that has more, those that come later are left out, and the
//! screen says so.

use crate::commands::remote::columns::{eta, status_word};
use control::api::types::{Changes, Status, Torrent};
use std::cmp::Ordering;
use std::collections::HashMap;

/// Torrents that are kept: some 140 MB.
pub const TORRENTS_MAX: usize = 200_000;

/// The torrents of a server.
#[derive(Default)]
pub struct Copy {
    torrents: HashMap<String, Torrent>,
    /// Whether some are left out.
    pub is_cut: bool,
}

impl Copy {
    /// Takes what has changed.
    pub fn apply(&mut self, changes: Changes) {
        self.apply_within(changes, TORRENTS_MAX);
    }

    fn apply_within(&mut self, changes: Changes, torrents_max: usize) {
        if changes.begins_anew {
            self.torrents.clear();
            self.is_cut = false;
        }
        for hash in &changes.removed {
            self.torrents.remove(hash);
        }
        for torrent in changes.changed {
            let is_known = self.torrents.contains_key(&torrent.info_hash);
            if is_known || self.torrents.len() < torrents_max {
                self.torrents.insert(torrent.info_hash.clone(), torrent);
            } else {
                self.is_cut = true;
            }
        }
    }

    /// One of them.
    pub fn torrent(&self, hash: &str) -> Option<&Torrent> {
        self.torrents.get(hash)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.torrents.len()
    }

    /// The hashes of those that pass, in order.
    pub fn ordered(&self, view: &View) -> Vec<String> {
        let text = view.text.to_lowercase();
        let mut shown: Vec<&Torrent> = self
            .torrents
            .values()
            .filter(|torrent| view.passes(torrent, &text))
            .collect();
        if view.sort == Sort::Name {
            // A hundred thousand names are made small once each, and not for each comparison.
            shown.sort_by_cached_key(|torrent| (torrent.name.to_lowercase(), &torrent.info_hash));
            if view.is_reversed {
                shown.reverse();
            }
        } else {
            // Those that are alike are in the order of their hashes, so that no line jumps about.
            shown.sort_unstable_by(|a, b| {
                let order = view.sort.compare(a, b);
                let order = if view.is_reversed {
                    order.reverse()
                } else {
                    order
                };
                order.then_with(|| a.info_hash.cmp(&b.info_hash))
            });
        }
        shown
            .iter()
            .map(|torrent| torrent.info_hash.clone())
            .collect()
    }
}

/// Which torrents are shown, and in which order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct View {
    /// By what they are sorted.
    pub sort: Sort,
    /// The other way round than is usual for that.
    pub is_reversed: bool,
    /// Those with this in their names.
    pub text: String,
    /// Those that are doing this.
    pub status: Option<Status>,
    /// Those with this label.
    pub label: Option<String>,
}

impl View {
    fn passes(&self, torrent: &Torrent, text: &str) -> bool {
        self.status.is_none_or(|status| torrent.status == status)
            && self
                .label
                .as_ref()
                .is_none_or(|label| torrent.labels.contains(label))
            && (text.is_empty() || torrent.name.to_lowercase().contains(text))
    }

    /// Whether some torrents may be left out.
    pub fn is_filtered(&self) -> bool {
        !self.text.is_empty() || self.status.is_some() || self.label.is_some()
    }

    /// All torrents, in the same order.
    pub fn clear(&mut self) {
        self.text.clear();
        self.status = None;
        self.label = None;
    }

    /// What is left out, in words.
    pub fn words(&self) -> String {
        let mut words = Vec::new();
        if let Some(status) = self.status {
            words.push(status_word(status).to_owned());
        }
        if let Some(label) = &self.label {
            words.push(format!(
                "label {}",
                crate::commands::remote::text::name(label)
            ));
        }
        if !self.text.is_empty() {
            words.push(format!("{:?}", self.text));
        }
        words.join(", ")
    }
}

/// By what torrents are sorted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Sort {
    /// The last added first.
    #[default]
    Added,
    /// By name.
    Name,
    /// The largest first.
    Size,
    /// The nearest to its end first.
    Done,
    /// By status.
    Status,
    /// The fastest first.
    Down,
    /// The fastest first.
    Up,
    /// The highest first.
    Ratio,
    /// The soonest there first.
    Eta,
    /// Those with most peers first.
    Peers,
}

impl Sort {
    /// All, in the order in which one comes behind another.
    pub const ALL: [Sort; 10] = [
        Sort::Added,
        Sort::Name,
        Sort::Size,
        Sort::Done,
        Sort::Status,
        Sort::Down,
        Sort::Up,
        Sort::Ratio,
        Sort::Eta,
        Sort::Peers,
    ];

    /// Its word, which is its column's, too.
    pub fn word(self) -> &'static str {
        match self {
            Sort::Added => "added",
            Sort::Name => "name",
            Sort::Size => "size",
            Sort::Done => "done",
            Sort::Status => "status",
            Sort::Down => "down",
            Sort::Up => "up",
            Sort::Ratio => "ratio",
            Sort::Eta => "eta",
            Sort::Peers => "peers",
        }
    }

    /// The one that is so many further.
    pub fn step(self, forward: bool) -> Sort {
        let all = Sort::ALL;
        let at = all.iter().position(|one| *one == self).unwrap_or(0);
        let steps = if forward { 1 } else { all.len() - 1 };
        all[(at + steps) % all.len()]
    }

    fn compare(self, a: &Torrent, b: &Torrent) -> Ordering {
        let done = |t: &Torrent| {
            let whole = u128::from(t.total_bytes.max(1));
            u128::from(t.verified_bytes) * 1_000_000_000 / whole
        };
        match self {
            Sort::Added => b.added_at_s.cmp(&a.added_at_s),
            Sort::Name => a.name.cmp(&b.name),
            Sort::Size => b.total_bytes.cmp(&a.total_bytes),
            Sort::Done => done(b).cmp(&done(a)),
            Sort::Status => a.status.cmp(&b.status),
            Sort::Down => b.download_rate.cmp(&a.download_rate),
            Sort::Up => b.upload_rate.cmp(&a.upload_rate),
            Sort::Ratio => b.ratio_permille.cmp(&a.ratio_permille),
            Sort::Eta => eta(a).unwrap_or(u64::MAX).cmp(&eta(b).unwrap_or(u64::MAX)),
            Sort::Peers => b.peers.cmp(&a.peers),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::remote::columns::tests::torrent;

    fn changes(changed: Vec<Torrent>, removed: &[&str], begins_anew: bool) -> Changes {
        Changes {
            revision: 1,
            begun: None,
            begins_anew,
            has_more: false,
            changed,
            removed: removed.iter().map(|hash| (*hash).to_owned()).collect(),
        }
    }

    #[test]
    fn changes_replace_remove_and_begin_anew() {
        let mut copy = Copy::default();
        copy.apply(changes(
            vec![torrent("a", "x"), torrent("b", "y")],
            &[],
            false,
        ));
        copy.apply(changes(vec![torrent("a", "z")], &["b", "c"], false));
        assert_eq!(copy.len(), 1);
        assert_eq!(copy.torrent("a").unwrap().name, "z");
        copy.apply(changes(vec![torrent("c", "new")], &[], true));
        assert!(copy.torrent("a").is_none() && copy.torrent("c").is_some());
    }

    #[test]
    fn no_more_are_kept_than_may_be() {
        let mut copy = Copy::default();
        copy.apply_within(
            changes(vec![torrent("a", "x"), torrent("b", "y")], &[], false),
            1,
        );
        assert_eq!((copy.len(), copy.is_cut), (1, true));
        copy.apply_within(changes(vec![torrent("a", "z")], &[], false), 1);
        assert_eq!(
            copy.torrent("a").unwrap().name,
            "z",
            "those that are kept go on"
        );
        copy.apply_within(changes(vec![], &[], true), 1);
        assert!(!copy.is_cut);
    }

    #[test]
    fn torrents_are_sorted_and_filtered() {
        let mut copy = Copy::default();
        let mut all = Vec::new();
        for (number, name) in ["Beta", "alpha", "gamma"].iter().enumerate() {
            let mut one = torrent(&format!("{number}"), name);
            one.added_at_s = number as u64;
            one.total_bytes = 100 + number as u64 % 2;
            one.download_rate = number as u64;
            one.status = if number == 2 {
                Status::Seeding
            } else {
                Status::Paused
            };
            one.labels = vec![format!("l{}", number % 2)];
            all.push(one);
        }
        copy.apply(changes(all, &[], false));
        let order = |view: &View| copy.ordered(view).concat();
        let sorted = |sort, is_reversed| {
            order(&View {
                sort,
                is_reversed,
                ..View::default()
            })
        };
        assert_eq!(sorted(Sort::Added, false), "210");
        assert_eq!(sorted(Sort::Added, true), "012");
        assert_eq!(sorted(Sort::Name, false), "102");
        assert_eq!(sorted(Sort::Size, false), "102", "alike: by hash");
        assert_eq!(sorted(Sort::Size, true), "021", "alike: by hash, too");
        assert_eq!(sorted(Sort::Down, false), "210");
        assert_eq!(sorted(Sort::Status, false), "012");
        let mut view = View {
            text: "A".to_owned(),
            ..View::default()
        };
        assert_eq!(order(&view), "210");
        view.text = "ALP".to_owned();
        assert_eq!(order(&view), "1");
        view.clear();
        view.label = Some("l0".to_owned());
        assert_eq!(order(&view), "20");
        view.status = Some(Status::Seeding);
        assert_eq!(order(&view), "2");
        assert_eq!(view.words(), "seeding, label l0");
    }

    #[test]
    fn sort_keys_go_round() {
        let mut sort = Sort::default();
        for _ in Sort::ALL {
            sort = sort.step(true);
        }
        assert_eq!(sort, Sort::default());
        assert_eq!(sort.step(false).step(true), sort);
    }
}
