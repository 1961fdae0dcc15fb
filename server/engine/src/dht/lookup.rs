//! One search: nearer and nearer nodes are asked until the nearest have answered.
//!
//! It ends when the [`BUCKET_NODES`] nearest of all that live have answered, and of those whose ids
//! their addresses allow (BEP 42) the [`BOUND_NODES`] nearest: who makes up ids next to a torrent
//! cannot be the only one who is asked, or to whom is announced.
//!
//! Limits: [`CANDIDATES_MAX`] nodes are remembered, the nearest; [`QUERIES_MAX`] are asked; one of
//! a site, and [`NEIGHBOURS_MAX`] of a neighbourhood.

use super::site::{Site, neighbourhood};
use super::table::BUCKET_NODES;
use crate::time::Time;
use proto::dht::{Contact, Distance, NodeId, Token};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// Nodes that are asked at a time: the *alpha* of Kademlia.
pub(super) const PARALLEL: usize = 4;
/// Nodes with ids that their addresses allow which have to answer.
pub(super) const BOUND_NODES: usize = 4;
/// See the module.
const CANDIDATES_MAX: usize = 128;
/// See the module.
const QUERIES_MAX: u32 = 128;
/// See the module.
const NEIGHBOURS_MAX: usize = 4;

/// Names a search; no two have the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LookupId(pub u64);

/// What a search is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Goal {
    /// To know nodes.
    Nodes,
    /// To find peers of a torrent, and to announce that it is at this port.
    Peers { announce: Option<u16> },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Progress {
    New,
    Asked,
    /// Asked, and so slow that another is asked meanwhile.
    Slow,
    Answered,
    Failed,
}

#[derive(Clone, Debug)]
struct Candidate {
    distance: Distance,
    /// Unknown of those that stand in a configuration.
    id: Option<NodeId>,
    address: SocketAddr,
    bound: bool,
    progress: Progress,
    token: Option<Token>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Lookup {
    pub(super) target: NodeId,
    pub(super) goal: Goal,
    /// Nodes of the other family are asked for, too.
    pub(super) both_families: bool,
    /// When it ends, finished or not.
    pub(super) deadline: Time,
    /// Announces that wait for their answers; none before the search has ended.
    pub(super) announcing: Option<usize>,
    /// Announces that were taken.
    pub(super) announced: usize,
    /// By distance.
    candidates: Vec<Candidate>,
    sites: BTreeSet<Site>,
    neighbours: BTreeMap<u128, usize>,
    asked: u32,
    in_flight: usize,
}

impl Lookup {
    pub(super) fn new(target: NodeId, goal: Goal, deadline: Time) -> Lookup {
        Lookup {
            target,
            goal,
            both_families: false,
            deadline,
            announcing: None,
            announced: 0,
            candidates: Vec::new(),
            sites: BTreeSet::new(),
            neighbours: BTreeMap::new(),
            asked: 0,
            in_flight: 0,
        }
    }

    /// Adds a node that may be asked, unless there is one of its site.
    pub(super) fn add(&mut self, id: Option<NodeId>, address: SocketAddr) {
        let site = Site::of(address);
        if self.announcing.is_some() || self.sites.contains(&site) {
            return;
        }
        // Nobody gives way to who is not taken.
        let here = neighbourhood(address.ip());
        let count = here.and_then(|here| self.neighbours.get(&here));
        if count.is_some_and(|count| *count >= NEIGHBOURS_MAX) {
            return;
        }
        let distance = id.map_or(Distance::MAX, |id| self.target.distance(&id));
        if self.candidates.len() >= CANDIDATES_MAX {
            match self.candidates.last() {
                Some(last) if last.progress == Progress::New && last.distance > distance => {
                    let last = last.address;
                    self.candidates.pop();
                    self.forget(last);
                }
                _ => return,
            }
        }
        if let Some(here) = here {
            *self.neighbours.entry(here).or_insert(0) += 1;
        }
        self.sites.insert(site);
        let candidate = Candidate {
            distance,
            id,
            address,
            bound: id.is_some_and(|id| id.is_bound_to(address.ip())),
            progress: Progress::New,
            token: None,
        };
        self.insert(candidate);
    }

    /// The next node to ask, if one is to be asked now; it is taken as asked.
    pub(super) fn next(&mut self) -> Option<(Option<NodeId>, SocketAddr)> {
        if self.announcing.is_some() || self.in_flight >= PARALLEL || self.asked >= QUERIES_MAX {
            return None;
        }
        let index = self.first_needed(|progress| progress == Progress::New)?;
        let candidate = &mut self.candidates[index];
        candidate.progress = Progress::Asked;
        self.asked += 1;
        self.in_flight += 1;
        Some((candidate.id, candidate.address))
    }

    /// The node that was said to be next could not be asked now.
    pub(super) fn not_asked(&mut self, address: SocketAddr) {
        if let Some(candidate) = self.find(address)
            && candidate.progress == Progress::Asked
        {
            candidate.progress = Progress::New;
            self.asked -= 1;
            self.in_flight -= 1;
        }
    }

    /// A node has answered, by this id.
    pub(super) fn answered(&mut self, address: SocketAddr, id: NodeId, token: Option<Token>) {
        let found = |candidate: &Candidate| candidate.address == address;
        let Some(index) = self.candidates.iter().position(found) else {
            return;
        };
        let mut candidate = self.candidates.remove(index);
        if candidate.progress == Progress::Asked {
            self.in_flight -= 1;
        }
        candidate.id = Some(id);
        candidate.bound = id.is_bound_to(address.ip());
        candidate.distance = self.target.distance(&id);
        candidate.progress = Progress::Answered;
        candidate.token = token;
        self.insert(candidate);
    }

    /// A node takes long.
    pub(super) fn slow(&mut self, address: SocketAddr) {
        self.set_progress(address, Progress::Slow);
    }

    /// A node did not answer, or not as it should.
    pub(super) fn failed(&mut self, address: SocketAddr) {
        self.set_progress(address, Progress::Failed);
    }

    /// Whether nothing is left to ask and nothing to wait for.
    pub(super) fn is_finished(&self) -> bool {
        if let Some(waiting) = self.announcing {
            return waiting == 0;
        }
        let open = |progress| match progress {
            Progress::New => self.asked < QUERIES_MAX,
            Progress::Asked | Progress::Slow => true,
            Progress::Answered | Progress::Failed => false,
        };
        self.first_needed(open).is_none()
    }

    /// Whether nothing is left to ask, and nobody to wait for but those who take long: dead, most
    /// likely.
    pub(super) fn is_settled(&self) -> bool {
        let open = |progress| match progress {
            Progress::New => self.asked < QUERIES_MAX,
            Progress::Asked => true,
            Progress::Slow | Progress::Answered | Progress::Failed => false,
        };
        self.first_needed(open).is_none()
    }

    /// Nodes that have answered.
    pub(super) fn answers(&self) -> usize {
        let answered = |candidate: &&Candidate| candidate.progress == Progress::Answered;
        self.candidates.iter().filter(answered).count()
    }

    /// Whom to announce to: the nodes that the search ended with, with what they want to see.
    pub(super) fn nearest(&self) -> Vec<(Contact, Token)> {
        let mut nearest = Vec::new();
        let (mut answered, mut bound) = (0, 0);
        for candidate in &self.candidates {
            if candidate.progress != Progress::Answered {
                continue;
            }
            let due = answered < BUCKET_NODES || (candidate.bound && bound < BOUND_NODES);
            answered += 1;
            bound += usize::from(candidate.bound);
            if let (true, Some(id), Some(token)) = (due, candidate.id, candidate.token) {
                let address = candidate.address;
                nearest.push((Contact { id, address }, token));
            }
        }
        nearest
    }

    /// The first of those that have to answer whose progress is such.
    fn first_needed(&self, such: impl Fn(Progress) -> bool) -> Option<usize> {
        let (mut answered, mut bound) = (0, 0);
        for (index, candidate) in self.candidates.iter().enumerate() {
            if answered >= BUCKET_NODES && bound >= BOUND_NODES {
                return None;
            }
            let needed = answered < BUCKET_NODES || candidate.bound;
            if needed && such(candidate.progress) {
                return Some(index);
            }
            if candidate.progress == Progress::Answered {
                answered += 1;
                bound += usize::from(candidate.bound);
            }
        }
        None
    }

    fn set_progress(&mut self, address: SocketAddr, progress: Progress) {
        let Some(candidate) = self.find(address) else {
            return;
        };
        let was = std::mem::replace(&mut candidate.progress, progress);
        if was == Progress::Asked {
            self.in_flight -= 1;
        }
    }

    fn find(&mut self, address: SocketAddr) -> Option<&mut Candidate> {
        self.candidates
            .iter_mut()
            .find(|candidate| candidate.address == address)
    }

    fn insert(&mut self, candidate: Candidate) {
        let nearer = |other: &Candidate| other.distance <= candidate.distance;
        let index = self.candidates.partition_point(nearer);
        self.candidates.insert(index, candidate);
    }

    fn forget(&mut self, address: SocketAddr) {
        self.sites.remove(&Site::of(address));
        if let Some(here) = neighbourhood(address.ip())
            && let Some(count) = self.neighbours.get_mut(&here)
        {
            *count -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn lookup() -> Lookup {
        let goal = Goal::Peers { announce: Some(1) };
        Lookup::new(NodeId([0; 20]), goal, Time::NEVER)
    }

    /// A node at an address of its own whose distance is `distance`, with an id that its address
    /// does not allow.
    fn node(distance: u8) -> (NodeId, SocketAddr) {
        let mut id = [0; 20];
        id[2] = distance;
        let ip = Ipv4Addr::from(0x0900_0001 + (u32::from(distance) << 8));
        (NodeId(id), (ip, 1).into())
    }

    /// A node on loopback, where any id is allowed.
    fn bound(distance: u8) -> (NodeId, SocketAddr) {
        let (id, _) = node(distance);
        (
            id,
            SocketAddr::from(([127, 0, 0, 1], 1 + u16::from(distance))),
        )
    }

    fn token() -> Option<Token> {
        Token::new(b"token")
    }

    #[test]
    fn the_nearest_are_asked_first_and_four_at_a_time() {
        let mut lookup = lookup();
        for distance in [9, 3, 7, 1, 5] {
            let (id, address) = bound(distance);
            lookup.add(Some(id), address);
        }
        let asked: Vec<_> = std::iter::from_fn(|| lookup.next()).collect();
        let expected = [1, 3, 5, 7].map(|distance| (Some(bound(distance).0), bound(distance).1));
        assert_eq!(asked, expected);
        // Who is slow does not hold the others up, and counts when it answers after all.
        lookup.slow(bound(1).1);
        assert_eq!(lookup.next().unwrap().1, bound(9).1);
        assert!(lookup.next().is_none() && !lookup.is_finished());
        for distance in [1, 3, 5, 9] {
            lookup.answered(bound(distance).1, bound(distance).0, token());
        }
        assert!(!lookup.is_finished());
        lookup.failed(bound(7).1);
        assert!(lookup.is_finished());
        assert_eq!(lookup.answers(), 4);
        assert_eq!(lookup.nearest().len(), 4);
    }

    #[test]
    fn a_neighbourhood_that_has_its_places_drives_nobody_out() {
        let mut lookup = lookup();
        for number in 0..CANDIDATES_MAX as u32 {
            let ip = Ipv4Addr::from(0x0900_0001 + (number << 8));
            lookup.add(Some(NodeId([0xff; 20])), (ip, 1).into());
        }
        for host in 1..100 {
            let near = SocketAddr::from(([8, 8, 8, host], 1));
            lookup.add(Some(NodeId([1; 20])), near);
        }
        assert_eq!(lookup.candidates.len(), CANDIDATES_MAX);
        let far = |candidate: &&Candidate| candidate.id == Some(NodeId([0xff; 20]));
        let left = lookup.candidates.iter().filter(far).count();
        assert_eq!(left, CANDIDATES_MAX - NEIGHBOURS_MAX);
    }

    #[test]
    fn it_ends_when_the_eight_nearest_have_answered() {
        let mut lookup = lookup();
        for distance in 1..100 {
            let (id, address) = bound(distance);
            lookup.add(Some(id), address);
        }
        let mut asked = 0;
        while let Some((_, address)) = lookup.next() {
            asked += 1;
            let id = bound((address.port() - 1) as u8).0;
            match asked % 3 {
                0 => lookup.failed(address),
                _ => lookup.answered(address, id, token()),
            }
        }
        assert!(lookup.is_finished());
        assert_eq!(lookup.answers(), BUCKET_NODES);
        assert_eq!(asked, 11);
    }

    /// Ids next to the torrent that no address allows do not end the search alone.
    #[test]
    fn four_with_allowed_ids_are_asked_however_near_others_are() {
        let mut lookup = lookup();
        for distance in 1..60 {
            let (id, address) = node(distance);
            lookup.add(Some(id), address);
        }
        for distance in 200..210 {
            let (id, address) = bound(distance);
            lookup.add(Some(id), address);
        }
        while let Some((id, address)) = lookup.next() {
            lookup.answered(address, id.unwrap(), token());
        }
        assert!(lookup.is_finished());
        let nearest = lookup.nearest();
        let bound = nearest
            .iter()
            .filter(|(contact, _)| contact.address.ip().is_loopback());
        assert_eq!(bound.count(), BOUND_NODES);
        assert_eq!(nearest.len(), BUCKET_NODES + BOUND_NODES);
    }

    #[test]
    fn one_of_a_site_and_four_of_a_neighbourhood_are_asked() {
        let mut lookup = lookup();
        for port in 1..100 {
            let (id, _) = node(port as u8);
            lookup.add(Some(id), SocketAddr::from(([9, 9, 9, 9], port)));
            lookup.add(Some(id), SocketAddr::from(([9, 9, 8, port as u8], 1)));
        }
        assert_eq!(lookup.candidates.len(), 1 + NEIGHBOURS_MAX);
    }

    #[test]
    fn the_farthest_make_room_and_are_forgotten() {
        let mut lookup = lookup();
        for distance in (1..=u8::MAX).rev() {
            let (id, address) = node(distance);
            lookup.add(Some(id), address);
        }
        assert_eq!(lookup.candidates.len(), CANDIDATES_MAX);
        assert_eq!(lookup.sites.len(), CANDIDATES_MAX);
        assert_eq!(lookup.candidates[0].address, node(1).1);
        let far = node(255);
        lookup.add(Some(far.0), far.1);
        assert_eq!(lookup.candidates.len(), CANDIDATES_MAX);
    }

    #[test]
    fn nodes_without_a_known_id_are_asked_and_then_known() {
        let mut lookup = lookup();
        let (id, address) = bound(5);
        lookup.add(None, address);
        assert_eq!(lookup.next(), Some((None, address)));
        lookup.answered(address, id, token());
        assert!(lookup.is_finished());
        assert_eq!(lookup.nearest()[0].0, Contact { id, address });
    }

    #[test]
    fn a_query_that_could_not_be_sent_is_sent_later() {
        let mut lookup = lookup();
        let (id, address) = bound(5);
        lookup.add(Some(id), address);
        assert!(lookup.next().is_some());
        lookup.not_asked(address);
        assert!(!lookup.is_finished());
        assert_eq!(lookup.next(), Some((Some(id), address)));
    }

    #[test]
    fn whatever_is_answered_it_ends_after_so_many_queries() {
        let mut lookup = lookup();
        let mut named = 0_u32;
        let mut asked = 0;
        lookup.add(None, node(255).1);
        while let Some((_, address)) = lookup.next() {
            asked += 1;
            // Each answer names eight more, each nearer than all before, who do not answer.
            lookup.failed(address);
            for _ in 0..8 {
                named += 1;
                let mut id = [0; 20];
                id[16..].copy_from_slice(&(u32::MAX - named).to_be_bytes());
                let ip = Ipv4Addr::from(0x0b00_0000 + (named << 8));
                lookup.add(Some(NodeId(id)), (ip, 1).into());
            }
        }
        assert_eq!(asked, QUERIES_MAX);
        assert!(lookup.is_finished());
    }
}
