//! Which torrent is searched and announced next: pure, in virtual time.
//!
//! Limits: one entry for each torrent. Two orders by due time, downloads before seeds; every call
//! costs O(log torrents).

use crate::lsd::PeerSink;
use engine::dht::{Family, Node};
use engine::random::Random;
use engine::time::Time;
use proto::ids::InfoHashV1;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// After a search that told nobody of us or found nobody, the next one comes so soon at first.
pub(super) const RETRY_MIN: Duration = Duration::from_secs(5);
/// While a download runs, it looks for more peers so often.
pub(super) const FIND_EVERY: Duration = Duration::from_secs(5 * 60);
/// A download that has nobody to fetch from looks again after so long.
pub(super) const HURRY_AFTER: Duration = Duration::from_secs(15);
/// An announce is overdue after so long.
const OVERDUE_AFTER: Duration = Duration::from_secs(60);

/// What a torrent is in the DHT for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    /// Its peers are looked for, and nobody is told that we have to do with it: it may be private.
    Look,
    /// Its peers are looked for, and we are announced as one.
    Download,
    /// We are announced. Whoever is found on the way is taken, too.
    Seed,
}

impl Role {
    fn is_looking(self) -> bool {
        self != Role::Seed
    }

    /// Whether we are announced.
    pub(super) fn is_told(self) -> bool {
        self != Role::Look
    }
}

/// Of IPv4 and of IPv6.
pub(super) type Families = [bool; 2];

/// Where a family's things are kept.
pub(super) fn index(family: Family) -> usize {
    match family {
        Family::V4 => 0,
        Family::V6 => 1,
    }
}

/// Whose nodes can be asked.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Ready {
    /// They know somebody, which is enough to find peers: who is asked knows others.
    pub(super) known: Families,
    /// They know those near them, too: thousands of seeds do not all begin with the nodes that
    /// everybody begins with.
    pub(super) settled: Families,
}

impl Ready {
    /// What these nodes, each of its family, know now.
    pub(super) fn of_nodes<'a>(nodes: impl Iterator<Item = &'a Node>) -> Ready {
        let mut ready = Ready::default();
        for node in nodes {
            let family = index(node.family());
            ready.known[family] = !node.table().is_empty();
            ready.settled[family] = node.is_ready();
        }
        ready
    }

    pub(super) fn of(self, role: Role) -> Families {
        match role.is_looking() {
            true => self.known,
            false => self.settled,
        }
    }
}

struct Entry {
    role: Role,
    /// The role that the search under way was begun in, and the last one was.
    begun_as: Role,
    /// Of which families the nodes were that took part in those.
    begun_on: Families,
    sink: Arc<dyn PeerSink>,
    /// When its next search begins; `None` while one is under way.
    due: Option<Time>,
    /// When its last search ended.
    ended: Time,
    /// Searches under way, one for each family.
    running: usize,
    /// Peers found and nodes told by those.
    found: usize,
    announced: usize,
    /// After how long it is tried again when nothing came of it.
    retry: Duration,
}

impl Entry {
    /// Whether its last search was for less than it is there for now: nobody has been told of us,
    /// peers were not looked for, or there was no node yet of a family that has one now.
    fn is_behind(&self, ready: Ready) -> bool {
        let looks_now = self.role.is_looking() && !self.begun_as.is_looking();
        let is_told_now = self.role.is_told() && !self.begun_as.is_told();
        looks_now || is_told_now || self.lacks(ready)
    }

    fn lacks(&self, ready: Ready) -> bool {
        is_more(ready.of(self.role), self.begun_on)
    }
}

/// Whether there is a family in `now` that was not in `before`.
fn is_more(now: Families, before: Families) -> bool {
    let mut both = now.iter().zip(before);
    both.any(|(now, before)| *now && !before)
}

/// See the module.
pub(super) struct Schedule {
    interval: Duration,
    random: Random,
    ready: Ready,
    torrents: HashMap<InfoHashV1, Entry>,
    downloads: BTreeSet<(Time, InfoHashV1)>,
    seeds: BTreeSet<(Time, InfoHashV1)>,
}

impl Schedule {
    pub(super) fn new(interval: Duration, seed: u64) -> Schedule {
        Schedule {
            interval,
            random: Random::new(seed),
            ready: Ready::default(),
            torrents: HashMap::new(),
            downloads: BTreeSet::new(),
            seeds: BTreeSet::new(),
        }
    }

    /// A torrent has a part from now on; peers that are found go to `sink`. One that is there keeps
    /// its time, unless it is looked for or announced only now.
    pub(super) fn add(
        &mut self,
        now: Time,
        info_hash: InfoHashV1,
        role: Role,
        sink: Arc<dyn PeerSink>,
    ) {
        self.unqueue_keeping(info_hash);
        let entry = self.torrents.entry(info_hash).or_insert_with(|| Entry {
            role,
            begun_as: role,
            begun_on: [false; 2],
            sink: Arc::clone(&sink),
            due: Some(now),
            ended: Time(0),
            running: 0,
            found: 0,
            announced: 0,
            retry: RETRY_MIN,
        });
        (entry.role, entry.sink) = (role, sink);
        if entry.is_behind(self.ready)
            && let Some(due) = entry.due
        {
            entry.due = Some(due.min(now));
        }
        let due = entry.due;
        self.queue(info_hash, due);
    }

    /// False if it is not there.
    pub(super) fn remove(&mut self, info_hash: InfoHashV1) -> bool {
        self.unqueue(info_hash);
        self.torrents.remove(&info_hash).is_some()
    }

    /// The torrent whose search is due, if one is; `begun` has to follow if it is begun.
    pub(super) fn next(&self, now: Time) -> Option<(InfoHashV1, Role)> {
        let first = |queue: &BTreeSet<(Time, InfoHashV1)>| {
            let (due, info_hash) = queue.first()?;
            (*due <= now).then_some(*info_hash)
        };
        let next = first(&self.downloads).or_else(|| first(&self.seeds))?;
        Some((next, self.torrents.get(&next)?.role))
    }

    /// When the next search is due.
    pub(super) fn due(&self) -> Option<Time> {
        let first = |queue: &BTreeSet<(Time, InfoHashV1)>| queue.first().map(|(due, _)| *due);
        first(&self.downloads)
            .into_iter()
            .chain(first(&self.seeds))
            .min()
    }

    /// Says whose nodes can be asked; searches that begin take in all of these. When a family comes
    /// later than the other, as it may by minutes, what was searched without it is due: else nobody
    /// there would find it before the next interval. O(torrents) then.
    pub(super) fn set_ready(&mut self, now: Time, ready: Ready) {
        let before = std::mem::replace(&mut self.ready, ready);
        if !is_more(ready.known, before.known) && !is_more(ready.settled, before.settled) {
            return;
        }
        let late = |entry: &Entry| entry.lacks(ready) && entry.due.is_some_and(|due| due > now);
        let late = self.torrents.iter().filter(|(_, entry)| late(entry));
        let late: Vec<InfoHashV1> = late.map(|(info_hash, _)| *info_hash).collect();
        for info_hash in late {
            self.unqueue(info_hash);
            self.queue(info_hash, Some(now));
        }
    }

    /// So many searches for a torrent have begun.
    pub(super) fn begun(&mut self, info_hash: InfoHashV1, searches: usize) {
        self.unqueue(info_hash);
        if let Some(entry) = self.torrents.get_mut(&info_hash) {
            entry.running = searches;
            (entry.begun_as, entry.begun_on) = (entry.role, self.ready.of(entry.role));
            (entry.found, entry.announced) = (0, 0);
        }
    }

    /// A search has found peers; who takes them?
    pub(super) fn found(
        &mut self,
        info_hash: InfoHashV1,
        peers: usize,
    ) -> Option<Arc<dyn PeerSink>> {
        let entry = self.torrents.get_mut(&info_hash)?;
        entry.found += peers;
        Some(Arc::clone(&entry.sink))
    }

    /// A search has ended.
    pub(super) fn ended(&mut self, now: Time, info_hash: InfoHashV1, announced: usize) {
        let Some(entry) = self.torrents.get_mut(&info_hash) else {
            return;
        };
        entry.announced += announced;
        entry.running = entry.running.saturating_sub(1);
        if entry.running > 0 || entry.due.is_some() {
            return;
        }
        entry.ended = now;
        if entry.is_behind(self.ready) {
            self.queue(info_hash, Some(now));
            return;
        }
        let (enough, regular) = match entry.role.is_looking() {
            true => (entry.found > 0, FIND_EVERY.min(self.interval)),
            false => (entry.announced > 0, self.interval),
        };
        let pause = if enough {
            entry.retry = RETRY_MIN;
            regular
        } else {
            let retry = entry.retry;
            entry.retry = (retry * 2).min(regular);
            retry
        };
        let late = self.random.below(pause.as_millis() as u64 / 10 + 1);
        let due = now + pause + Duration::from_millis(late);
        self.queue(info_hash, Some(due));
    }

    /// A download has nobody to fetch from: its next search comes soon. True if that is sooner than
    /// it was.
    pub(super) fn hurry(&mut self, info_hash: InfoHashV1) -> bool {
        let Some(entry) = self.torrents.get(&info_hash) else {
            return false;
        };
        let soon = entry.ended + HURRY_AFTER;
        let sooner = entry.role.is_looking() && entry.due.is_some_and(|due| due > soon);
        if sooner {
            self.unqueue(info_hash);
            self.queue(info_hash, Some(soon));
        }
        sooner
    }

    /// Peers that the searches for a torrent have found, if one has ended: the last or the one under
    /// way.
    pub(super) fn found_lately(&self, info_hash: InfoHashV1) -> Option<usize> {
        let entry = self.torrents.get(&info_hash)?;
        (entry.ended != Time(0) || entry.found > 0).then_some(entry.found)
    }

    /// Torrents.
    pub(super) fn len(&self) -> usize {
        self.torrents.len()
    }

    /// Searches that should have begun a minute ago. O(those).
    pub(super) fn overdue(&self, now: Time) -> usize {
        let late = |(due, _): &&(Time, InfoHashV1)| now.since(*due) >= OVERDUE_AFTER;
        let queues = [&self.downloads, &self.seeds];
        queues
            .iter()
            .map(|queue| queue.iter().take_while(late).count())
            .sum()
    }

    fn queue(&mut self, info_hash: InfoHashV1, due: Option<Time>) {
        let Some(entry) = self.torrents.get_mut(&info_hash) else {
            return;
        };
        entry.due = due;
        if let Some(due) = due {
            let queue = match entry.role.is_looking() {
                true => &mut self.downloads,
                false => &mut self.seeds,
            };
            queue.insert((due, info_hash));
        }
    }

    fn unqueue(&mut self, info_hash: InfoHashV1) {
        self.unqueue_keeping(info_hash);
        if let Some(entry) = self.torrents.get_mut(&info_hash) {
            entry.due = None;
        }
    }

    /// Takes a torrent out of its queue, which changes with its role.
    fn unqueue_keeping(&mut self, info_hash: InfoHashV1) {
        if let Some(entry) = self.torrents.get(&info_hash)
            && let Some(due) = entry.due
        {
            self.downloads.remove(&(due, info_hash));
            self.seeds.remove(&(due, info_hash));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::dht::{NodeConfig, Output};
    use engine::peer_list::PeerSource;
    use proto::dht::{Body, Message, NodeId, Query, Reply};
    use std::net::SocketAddr;

    const INTERVAL: Duration = Duration::from_secs(1_200);

    fn torrent(number: u32) -> InfoHashV1 {
        let mut hash = [0; 20];
        hash[..4].copy_from_slice(&number.to_be_bytes());
        InfoHashV1(hash)
    }

    fn at(seconds: u64) -> Time {
        Time(0) + Duration::from_secs(seconds)
    }

    fn schedule() -> Schedule {
        Schedule::new(INTERVAL, 1)
    }

    struct Nobody;

    impl PeerSink for Nobody {
        fn found(&self, _: &[SocketAddr], _: PeerSource) {}
    }

    fn add(schedule: &mut Schedule, now: Time, info_hash: InfoHashV1, role: Role) {
        schedule.add(now, info_hash, role, Arc::new(Nobody));
    }

    /// Who is known is settled.
    fn both(families: Families) -> Ready {
        Ready {
            known: families,
            settled: families,
        }
    }

    fn next(schedule: &Schedule, now: Time) -> Option<InfoHashV1> {
        schedule.next(now).map(|(next, _)| next)
    }

    #[test]
    fn a_seed_is_announced_once_an_interval_and_sooner_when_nobody_was_told() {
        let mut schedule = schedule();
        add(&mut schedule, at(0), torrent(1), Role::Seed);
        assert_eq!(next(&schedule, at(0)), Some(torrent(1)));
        schedule.begun(torrent(1), 2);
        assert_eq!((next(&schedule, at(9)), schedule.due()), (None, None));
        schedule.ended(at(10), torrent(1), 8);
        assert_eq!(schedule.due(), None, "the other family's is under way");
        schedule.ended(at(20), torrent(1), 0);
        let due = schedule.due().unwrap();
        assert!(due >= at(1_220) && due <= at(1_341), "{due:?}");
        let mut waits = Vec::new();
        for _ in 0..12 {
            schedule.begun(torrent(1), 1);
            schedule.ended(at(2_000), torrent(1), 0);
            waits.push(schedule.due().unwrap().since(at(2_000)).as_secs());
        }
        assert!(waits[0] <= 5 && waits[1] <= 11, "{waits:?}");
        assert!(waits[11] >= 1_200, "{waits:?}");
    }

    #[test]
    fn downloads_come_first_and_look_again_soon() {
        let mut schedule = schedule();
        for number in 0..100 {
            add(&mut schedule, at(0), torrent(number), Role::Seed);
        }
        add(&mut schedule, at(5), torrent(500), Role::Download);
        assert_eq!(next(&schedule, at(5)), Some(torrent(500)));
        schedule.begun(torrent(500), 1);
        assert!(next(&schedule, at(5)).is_some_and(|next| next != torrent(500)));
        assert!(schedule.found(torrent(500), 3).is_some());
        assert!(schedule.found(torrent(999), 3).is_none());
        schedule.ended(at(6), torrent(500), 0);
        assert_eq!(next(&schedule, at(6 + 331)), Some(torrent(500)));
        // When all is there, it is a seed, and keeps its time.
        add(&mut schedule, at(7), torrent(500), Role::Seed);
        assert_ne!(next(&schedule, at(6 + 331)), Some(torrent(500)));
        assert_eq!(schedule.len(), 101);
    }

    #[test]
    fn who_has_nobody_looks_again_soon() {
        let mut schedule = schedule();
        assert!(!schedule.hurry(torrent(1)));
        add(&mut schedule, at(0), torrent(1), Role::Download);
        assert!(!schedule.hurry(torrent(1)), "it is due already");
        schedule.begun(torrent(1), 1);
        assert!(!schedule.hurry(torrent(1)), "its search is under way");
        schedule.found(torrent(1), 3);
        schedule.ended(at(10), torrent(1), 0);
        assert!(schedule.due().unwrap() >= at(310));
        assert!(schedule.hurry(torrent(1)));
        assert!(!schedule.hurry(torrent(1)));
        assert_eq!(schedule.due(), Some(at(25)));
        // A seed waits to be found.
        add(&mut schedule, at(11), torrent(2), Role::Seed);
        schedule.begun(torrent(2), 1);
        schedule.ended(at(11), torrent(2), 8);
        assert!(!schedule.hurry(torrent(2)));
    }

    #[test]
    fn what_is_removed_is_gone_also_while_it_is_searched() {
        let mut schedule = schedule();
        add(&mut schedule, at(0), torrent(1), Role::Download);
        schedule.begun(torrent(1), 1);
        assert!(schedule.remove(torrent(1)));
        assert!(!schedule.remove(torrent(1)));
        schedule.ended(at(1), torrent(1), 1);
        assert_eq!((schedule.due(), schedule.len()), (None, 0));
    }

    #[test]
    fn what_is_added_again_keeps_its_time_and_is_searched_once() {
        let mut schedule = schedule();
        add(&mut schedule, at(0), torrent(1), Role::Seed);
        schedule.begun(torrent(1), 1);
        add(&mut schedule, at(1), torrent(1), Role::Download);
        assert_eq!(schedule.due(), None, "its search is under way");
        schedule.ended(at(2), torrent(1), 1);
        // It was not for finding anybody.
        assert_eq!(next(&schedule, at(2)), Some(torrent(1)));
        schedule.begun(torrent(1), 1);
        schedule.found(torrent(1), 3);
        schedule.ended(at(3), torrent(1), 1);
        add(&mut schedule, at(4), torrent(1), Role::Download);
        assert!(schedule.due().unwrap() >= at(303));
    }

    /// Of a magnet link nobody is told before its torrent is known not to be private; then at once.
    #[test]
    fn what_was_only_looked_for_is_announced_as_soon_as_it_may_be() {
        let mut schedule = schedule();
        add(&mut schedule, at(0), torrent(1), Role::Look);
        assert_eq!(schedule.next(at(0)), Some((torrent(1), Role::Look)));
        schedule.begun(torrent(1), 1);
        schedule.found(torrent(1), 3);
        schedule.ended(at(1), torrent(1), 0);
        assert_eq!(schedule.next(at(2)), None);
        assert!(schedule.hurry(torrent(1)), "it looks for peers");
        add(&mut schedule, at(2), torrent(1), Role::Download);
        assert_eq!(schedule.next(at(2)), Some((torrent(1), Role::Download)));
        // The same while a search is under way: the next follows it at once.
        add(&mut schedule, at(2), torrent(2), Role::Look);
        schedule.begun(torrent(2), 1);
        add(&mut schedule, at(3), torrent(2), Role::Download);
        assert_eq!(next(&schedule, at(1)), None);
        schedule.found(torrent(2), 3);
        schedule.ended(at(1), torrent(2), 0);
        assert_eq!(schedule.next(at(1)), Some((torrent(2), Role::Download)));
        schedule.begun(torrent(2), 1);
        schedule.found(torrent(2), 3);
        schedule.ended(at(1), torrent(2), 8);
        assert_eq!(next(&schedule, at(1)), None);
    }

    #[test]
    fn who_was_searched_before_a_family_was_there_is_searched_again_when_it_is() {
        let mut schedule = schedule();
        for number in 1..=3 {
            add(&mut schedule, at(0), torrent(number), Role::Seed);
        }
        schedule.set_ready(at(0), both([true, false]));
        for number in 1..=2 {
            schedule.begun(torrent(number), 1);
        }
        schedule.ended(at(5), torrent(1), 8);
        schedule.set_ready(at(6), both([true, false]));
        assert_eq!(next(&schedule, at(6)), Some(torrent(3)), "never searched");
        schedule.begun(torrent(3), 1);
        schedule.ended(at(7), torrent(3), 8);
        assert_eq!(next(&schedule, at(59)), None);
        // The other family comes, also while the search of one is under way.
        schedule.set_ready(at(60), both([true, true]));
        schedule.ended(at(61), torrent(2), 8);
        let mut again = Vec::new();
        while let Some(next) = next(&schedule, at(61)) {
            again.push(next);
            schedule.begun(next, 2);
            schedule.ended(at(62), next, 8);
            schedule.ended(at(62), next, 8);
        }
        again.sort();
        assert_eq!(again, [torrent(1), torrent(2), torrent(3)]);
        // Which goes and comes again has had its searches.
        schedule.set_ready(at(70), both([true, false]));
        schedule.set_ready(at(80), both([true, true]));
        assert_eq!(next(&schedule, at(1_200)), None);
        assert!(next(&schedule, at(1_400)).is_some());
    }

    /// 10,000 torrents that were added at once do not stay in step.
    #[test]
    fn torrents_spread_and_are_counted_when_they_are_late() {
        let mut schedule = schedule();
        for number in 0..10_000 {
            add(&mut schedule, at(0), torrent(number), Role::Seed);
        }
        assert_eq!(schedule.overdue(at(59)), 0);
        assert_eq!(schedule.overdue(at(60)), 10_000);
        while let Some(next) = next(&schedule, at(0)) {
            schedule.begun(next, 1);
            schedule.ended(at(0), next, 8);
        }
        let mut per_second = HashMap::new();
        for (due, _) in &schedule.seeds {
            *per_second.entry(due.since(at(0)).as_secs()).or_insert(0) += 1;
        }
        let most = per_second.values().max().unwrap();
        assert!(*most < 200, "{most} in one second");
    }

    /// Who waits for peers does not wait until those near us are known; a seed does.
    #[test]
    fn a_download_begins_when_anybody_is_known() {
        let mut schedule = schedule();
        add(&mut schedule, at(0), torrent(1), Role::Look);
        add(&mut schedule, at(0), torrent(2), Role::Seed);
        let (v4, none) = ([true, false], [false, false]);
        let known = Ready {
            known: v4,
            settled: none,
        };
        schedule.set_ready(at(1), known);
        assert_eq!(known.of(Role::Look), v4);
        assert_eq!(known.of(Role::Download), v4);
        assert_eq!(known.of(Role::Seed), none);
        schedule.begun(torrent(1), 1);
        schedule.found(torrent(1), 3);
        assert_eq!(schedule.found_lately(torrent(1)), Some(3));
        schedule.ended(at(2), torrent(1), 0);
        // What it has is no less than before, so it is not searched once more.
        schedule.set_ready(at(3), both(v4));
        assert!(schedule.torrents[&torrent(1)].due > Some(at(60)));
        assert_eq!(next(&schedule, at(3)), Some(torrent(2)));
        schedule.begun(torrent(2), 1);
        schedule.ended(at(4), torrent(2), 8);
        assert_eq!(next(&schedule, at(60)), None);
        // A family that comes later is searched, too.
        schedule.set_ready(at(61), both([true, true]));
        assert!(next(&schedule, at(61)).is_some());
        assert_eq!(schedule.found_lately(torrent(3)), None);
    }

    /// What a node wants sent.
    fn sent(node: &mut Node) -> Vec<(SocketAddr, Message)> {
        let outputs = std::iter::from_fn(|| node.poll());
        let of = |output| match output {
            Output::Send { to, datagram } => Some((to, Message::decode(&datagram).unwrap())),
            Output::Event(_) => None,
        };
        outputs.filter_map(of).collect()
    }

    /// The same with a node to decide it: of two that are asked to begin with one answers, and long
    /// before the other is given up a link's torrent is searched; its seeds wait.
    #[test]
    fn a_dead_node_does_not_hold_up_a_download() {
        let hosts: [SocketAddr; 2] = [([9, 9, 1, 1], 6881).into(), ([9, 9, 2, 1], 6881).into()];
        let [answering, deaf] = hosts;
        let config = NodeConfig::default();
        let mut node = Node::new(config, Family::V4, [7; 16], None, None, at(0));
        let mut schedule = schedule();
        add(&mut schedule, at(0), torrent(1), Role::Seed);
        add(&mut schedule, at(0), torrent(2), Role::Look);
        node.bootstrap(&[(None, answering), (None, deaf)], at(0));
        let asked = sent(&mut node);
        assert!(
            hosts
                .iter()
                .all(|host| asked.iter().any(|(to, _)| to == host))
        );
        let ready = Ready::of_nodes([&node].into_iter());
        assert_eq!(ready, Ready::default(), "nobody can be asked");

        let now = Time(0) + Duration::from_millis(100);
        let (_, question) = asked.iter().find(|(to, _)| *to == answering).unwrap();
        let answer = Message {
            transaction: question.transaction,
            body: Body::Reply(Reply::of(NodeId([0x44; 20]))),
            seen: None,
        };
        node.handle(answering, &answer.encode(), None, now);
        sent(&mut node);
        let ready = Ready::of_nodes([&node].into_iter());
        let (v4, none) = ([true, false], [false, false]);
        assert_eq!((ready.known, ready.settled), (v4, none));
        schedule.set_ready(now, ready);
        assert_eq!(schedule.next(now), Some((torrent(2), Role::Look)));
        assert_eq!((ready.of(Role::Look), ready.of(Role::Seed)), (v4, none));
        assert!(node.can_search() && node.search(torrent(2), None, now).is_some());
        let is_get_peers = |(to, message): &(SocketAddr, Message)| {
            let Body::Query { query, .. } = &message.body else {
                return false;
            };
            *to == answering
                && matches!(query, Query::GetPeers { info_hash, .. } if *info_hash == torrent(2))
        };
        assert!(sent(&mut node).iter().any(is_get_peers));
    }
}
