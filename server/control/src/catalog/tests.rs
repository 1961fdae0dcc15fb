//! The catalog beside a list that is searched from end to end.

use super::query::PAGE_MAX;
use super::*;
use std::collections::BTreeSet;

fn hash(number: u32) -> InfoHashV1 {
    let mut bytes = [0; 20];
    // Not in the order of the numbers.
    bytes[..4].copy_from_slice(&number.wrapping_mul(0x9e37_79b9).to_be_bytes());
    bytes[4..8].copy_from_slice(&number.to_be_bytes());
    InfoHashV1(bytes)
}

fn torrent(number: u32, random: &mut fastrand::Rng) -> Torrent {
    let pieces = random.u32(1..100);
    let labels = ["linux", "music"].map(str::to_owned).into_iter();
    Torrent {
        info_hash: hash(number),
        summary: Summary {
            name: format!(
                "{}Torrent {}",
                ["a ", "B ", "c ", "Ä ", "É "][number as usize % 5],
                random.u32(0..50)
            ),
            total_bytes: u64::from(pieces) * 1000 - 7,
            piece_bytes: 1000,
            pieces,
            category: random.bool().then(|| "films".to_owned()),
            labels: labels.filter(|_| random.bool()).collect(),
            // As after a restart: entered in another order than added.
            added_at_s: random.u64(0..20),
            completed_at_s: random.bool().then(|| random.u64(0..50)),
            ..Summary::default()
        },
        totals: Totals {
            uploaded_bytes: random.u64(0..1_000_000),
            ..Totals::default()
        },
        pieces_verified: random.u32(0..=pieces),
        live: Live {
            status: Status::ALL[random.usize(0..Status::ALL.len())],
            upload_rate: random.u64(0..20),
            ..Live::default()
        },
    }
}

/// A catalog, and its torrents in the order in which they were added.
struct Both {
    catalog: Catalog,
    naive: Vec<Torrent>,
    random: fastrand::Rng,
    next: u32,
}

impl Both {
    fn new(seed: u64) -> Both {
        Both {
            catalog: Catalog::default(),
            naive: Vec::new(),
            random: fastrand::Rng::with_seed(seed),
            next: 0,
        }
    }

    fn add(&mut self) {
        // Now and then one that was removed, or is there.
        let number = match self.random.u8(0..4) {
            0 if self.next > 0 => self.random.u32(0..self.next),
            _ => {
                self.next += 1;
                self.next
            }
        };
        let torrent = torrent(number, &mut self.random);
        let is_new = self
            .naive
            .iter()
            .all(|one| one.info_hash != torrent.info_hash);
        assert_eq!(self.catalog.add(torrent.clone()), is_new);
        if is_new {
            let added_at_s = torrent.summary.added_at_s;
            let is_before = |one: &Torrent| one.summary.added_at_s <= added_at_s;
            let place = self.naive.partition_point(is_before);
            self.naive.insert(place, torrent);
        }
    }

    /// Does one thing.
    fn step(&mut self) {
        let some = (!self.naive.is_empty()).then(|| self.random.usize(0..self.naive.len()));
        match (self.random.u8(0..10), some) {
            (0..=3, _) | (_, None) => self.add(),
            (4..=8, Some(some)) => {
                let (status, rate) = (Status::ALL[self.random.usize(0..9)], self.random.u64(0..9));
                let info_hash = self.naive[some].info_hash;
                let label = self.random.bool().then(|| "films".to_owned());
                let change = |torrent: &mut Torrent| {
                    torrent.live.status = status;
                    torrent.live.upload_rate = rate;
                    if rate == 0 {
                        torrent.summary.labels = label.iter().cloned().collect();
                        torrent.summary.category.clone_from(&label);
                    }
                };
                change(&mut self.naive[some]);
                assert!(self.catalog.change(&info_hash, change));
            }
            (_, Some(some)) => {
                let removed = self.naive.remove(some);
                assert_eq!(self.catalog.remove(&removed.info_hash), Some(removed));
            }
        }
    }

    fn check(&self) {
        assert!(self.catalog.iter().eq(&self.naive));
        assert_eq!(self.catalog.len(), self.naive.len());
        let bytes: u64 = self.naive.iter().map(|one| one.summary.total_bytes).sum();
        assert_eq!(self.catalog.bytes(), bytes);
        for status in Status::ALL {
            let due = self.naive.iter().filter(|one| one.live.status == status);
            assert_eq!(self.catalog.count_of(status), due.count(), "{status:?}");
        }
        let sum = |number: fn(&Torrent) -> u64| self.naive.iter().map(number).sum::<u64>();
        let sums = self.catalog.sums();
        assert_eq!(sums.upload_rate, sum(|one| one.live.upload_rate));
        assert_eq!(sums.uploaded_bytes, sum(|one| one.totals.uploaded_bytes));
        let mut labels = BTreeMap::new();
        let mut categories = BTreeMap::new();
        for one in &self.naive {
            for label in &one.summary.labels {
                *labels.entry(label.as_str()).or_insert(0) += 1;
            }
            if let Some(category) = &one.summary.category {
                *categories.entry(category.as_str()).or_insert(0) += 1;
            }
        }
        assert!(self.catalog.labels().eq(labels));
        assert!(self.catalog.categories().eq(categories));
    }
}

/// What is known after an answer.
fn next(changes: &Changes<'_>) -> Known {
    Known {
        revision: changes.revision,
        begun: changes.begun,
    }
}

#[test]
fn whoever_watches_holds_what_is_there() {
    let mut both = Both::new(1);
    let mut held: BTreeMap<InfoHashV1, Torrent> = BTreeMap::new();
    let mut known = Known::default();
    for _ in 0..600 {
        for _ in 0..both.random.u32(0..8) {
            both.step();
        }
        both.check();
        // A few at a time, so that things change between the questions.
        let changes = both.catalog.changes(known, both.random.usize(1..8));
        assert!(!changes.begins_anew);
        for gone in &changes.removed {
            held.remove(gone);
        }
        for changed in &changes.changed {
            held.insert(changed.info_hash, (*changed).clone());
        }
        assert!(changes.revision >= known.revision);
        known = next(&changes);
        if !changes.has_more {
            assert_eq!(known.begun, None);
            let due = both.naive.iter().map(|one| (one.info_hash, one.clone()));
            assert_eq!(held, due.collect());
        }
    }
    while both.catalog.changes(known, 50).has_more {
        known = next(&both.catalog.changes(known, 50));
    }
    assert_eq!(
        both.catalog.changes(known, 50).revision,
        both.catalog.revision()
    );
}

#[test]
fn a_change_that_changes_nothing_is_not_told() {
    let mut both = Both::new(2);
    both.add();
    let (since, info_hash) = (both.catalog.revision(), both.naive[0].info_hash);
    assert!(both.catalog.change(&info_hash, |_| ()));
    assert_eq!(
        both.catalog.changes(since.into(), 10).changed,
        Vec::<&Torrent>::new()
    );
    assert!(
        both.catalog
            .change(&info_hash, |torrent| torrent.live.peers += 1)
    );
    let changes = both.catalog.changes(since.into(), 10);
    assert_eq!((changes.changed.len(), changes.has_more), (1, false));
    assert!(
        !both
            .catalog
            .change(&hash(99), |_| panic!("it is not there"))
    );
}

#[test]
fn who_was_away_for_too_long_begins_anew() {
    let mut both = Both::new(3);
    both.add();
    let early = both.catalog.revision();
    let stays = both.naive[0].info_hash;
    for number in 1_000..1_000 + GONE_MAX as u32 + 1 {
        let one = torrent(number, &mut both.random);
        assert!(both.catalog.add(one));
        assert!(both.catalog.remove(&hash(number)).is_some());
    }
    assert_eq!(both.catalog.gone.len(), GONE_MAX);
    let changes = both.catalog.changes(early.into(), usize::MAX);
    assert!(changes.begins_anew && changes.removed.is_empty());
    let all: Vec<_> = changes.changed.iter().map(|one| one.info_hash).collect();
    assert_eq!(all, [stays]);
    // So does who has a revision of another run.
    assert!(
        both.catalog
            .changes((both.catalog.revision() + 1).into(), 10)
            .begins_anew
    );
    assert!(
        !both
            .catalog
            .changes(both.catalog.revision().into(), 10)
            .begins_anew
    );
}

/// A reader that takes a few at a time is done in the end, however many were removed before it
/// began; what is removed while it reads it hears of, or begins anew.
#[test]
fn who_reads_in_parts_after_many_removals_comes_to_an_end() {
    let mut both = Both::new(5);
    (0..100).for_each(|_| both.add());
    let remove_many = |both: &mut Both| {
        for number in 1_000..1_000 + GONE_MAX as u32 + 1 {
            let one = torrent(number, &mut both.random);
            assert!(both.catalog.add(one));
            assert!(both.catalog.remove(&hash(number)).is_some());
        }
    };
    remove_many(&mut both);
    let (mut known, mut held) = (Known::default(), BTreeSet::new());
    let (mut parts, mut begun_anew) = (0, 0);
    loop {
        let changes = both.catalog.changes(known, 7);
        parts += 1;
        if changes.begins_anew {
            held.clear();
            begun_anew += 1;
        }
        held.extend(changes.changed.iter().map(|one| one.info_hash));
        for gone in &changes.removed {
            held.remove(gone);
        }
        known = next(&changes);
        if !changes.has_more {
            break;
        }
        match parts {
            5 => {
                // One that it has been told of.
                let told = *held.first().unwrap();
                both.catalog.remove(&told).unwrap();
            }
            10 => remove_many(&mut both),
            11.. => assert_eq!(begun_anew, 1),
            _ => assert_eq!(begun_anew, 0),
        }
        assert!(parts < 100);
    }
    let due: BTreeSet<_> = both.catalog.iter().map(|one| one.info_hash).collect();
    assert_eq!(held, due);
}

#[test]
fn pages_are_what_a_sort_of_everything_gives() {
    let mut both = Both::new(4);
    (0..500).for_each(|_| both.step());
    let any = |random: &mut fastrand::Rng, texts: &[&str]| -> Option<String> {
        let text = texts[random.usize(0..texts.len())];
        random.bool().then(|| text.to_owned())
    };
    use SortKey::*;
    let keys = [
        Added,
        Name,
        Size,
        Progress,
        Status,
        UploadRate,
        DownloadRate,
        Uploaded,
        Downloaded,
        Ratio,
        Peers,
        Completed,
        Active,
    ];
    let mut shown = BTreeSet::new();
    for _ in 0..2_000 {
        let random = &mut both.random;
        let query = Query {
            filter: Filter {
                status: super::Status::ALL
                    .into_iter()
                    .filter(|_| random.u8(0..4) == 0)
                    .collect(),
                label: any(random, &["linux", "music", "none"]),
                category: any(random, &["films", ""]),
                text: any(random, &["TORRENT 1", "b ", "x"]),
            },
            sort: keys[random.usize(0..keys.len())],
            descending: random.bool(),
            offset: [0, 0, 3, 1_000, usize::MAX][random.usize(0..5)],
            limit: [0, 1, 7, 100, usize::MAX][random.usize(0..5)],
        };
        let page = both.catalog.page(&query);
        let due = naive_page(&both.naive, &query);
        assert_eq!(page.total, due.0, "{query:?}");
        assert_eq!(page.torrents, due.1, "{query:?}");
        shown.insert(page.torrents.len().min(2));
    }
    assert_eq!(shown.len(), 3, "empty pages, short ones and long ones");
}

/// All that match, and of them the page.
fn naive_page<'a>(torrents: &'a [Torrent], query: &Query) -> (usize, Vec<&'a Torrent>) {
    let filter = &query.filter;
    let mut found: Vec<&Torrent> = torrents.iter().collect();
    found.retain(|one| filter.status.is_empty() || filter.status.contains(&one.live.status));
    if let Some(label) = &filter.label {
        found.retain(|one| one.summary.labels.iter().any(|one| one == label));
    }
    if let Some(category) = &filter.category {
        found.retain(|one| one.summary.category.clone().unwrap_or_default() == *category);
    }
    if let Some(text) = &filter.text {
        let text = text.to_lowercase();
        found.retain(|one| one.summary.name.to_lowercase().contains(&text));
    }
    // A stable sort keeps the order of adding.
    match query.sort {
        SortKey::Added => {}
        SortKey::Name => found.sort_by_key(|one| one.summary.name.to_lowercase()),
        SortKey::Size => found.sort_by_key(|one| one.summary.total_bytes),
        SortKey::Progress => found.sort_by(|one, other| {
            let of = |one: &Torrent| one.bytes_verified() * 1_000_000 / one.summary.total_bytes;
            of(one).cmp(&of(other))
        }),
        SortKey::Status => found.sort_by_key(|one| one.live.status),
        SortKey::UploadRate => found.sort_by_key(|one| one.live.upload_rate),
        SortKey::DownloadRate => found.sort_by_key(|one| one.live.download_rate),
        SortKey::Uploaded => found.sort_by_key(|one| one.totals.uploaded_bytes),
        SortKey::Downloaded => found.sort_by_key(|one| one.totals.downloaded_bytes),
        SortKey::Ratio => {
            found.sort_by_key(|one| one.totals.uploaded_bytes * 1000 / one.summary.total_bytes);
        }
        SortKey::Peers => found.sort_by_key(|one| one.live.peers),
        SortKey::Completed => found.sort_by_key(|one| {
            let at = one.summary.completed_at_s;
            (at.is_none(), at)
        }),
        SortKey::Active => found.sort_by_key(|one| one.totals.last_active_at_s),
    }
    if query.descending {
        found.reverse();
    }
    let total = found.len();
    let page = found.into_iter().skip(query.offset);
    (total, page.take(query.limit.min(PAGE_MAX)).collect())
}

#[test]
fn what_is_there_of_a_torrent_is_never_more_than_it_has() {
    let mut random = fastrand::Rng::with_seed(5);
    let mut one = torrent(1, &mut random);
    one.pieces_verified = one.summary.pieces;
    assert_eq!(one.bytes_verified(), one.summary.total_bytes);
    one.pieces_verified = 1;
    one.summary.pieces = 2;
    one.summary.total_bytes = 1993;
    assert_eq!(one.bytes_verified(), 1000);
    one.totals.uploaded_bytes = 1993;
    assert_eq!(one.ratio_permille(), 1000);
    one.summary.total_bytes = 0;
    assert_eq!((one.bytes_verified(), one.ratio_permille()), (0, 0));
}
