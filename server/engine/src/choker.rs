//! Which peers of a seed may request: upload slots.
//!
//! By default slots are unlimited: whoever is interested is unchoked at once, which is the fastest ramp and
//! what a seed with enough bandwidth wants. With a limit a round every 15 s chooses by policy, and some slots
//! go to peers at random (optimistic unchoke, BEP 3), so that each is tried in time.
//!
//! Cost: O(n) without a limit, with no allocation but the caller's list of changes; with a limit O(n) by
//! selection, and a scratch list that is kept.
//!
//! Not here: which connection is closed, and how slots are shared between torrents: a shard's choker sees all
//! its peers alike. The global number is divided over shards by [`lease_slots`].

use std::cmp::Reverse;
use std::time::Duration;

use crate::random::Random;
use crate::time::Time;

mod lease;

pub use lease::lease_slots;

/// A peer that connected less than this ago is three times as likely to be chosen optimistically (BEP 3).
const NEW_PEER_AGE: Duration = Duration::from_secs(60);

/// How long a peer keeps a round-robin slot at least, as in libtorrent.
const ROUND_ROBIN_SLOT_MIN: Duration = Duration::from_secs(60);

/// How a peer is called by whoever calls the choker.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct PeerKey(pub u64);

/// A peer as the choker sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeerView {
    /// The caller's name for it, unique in a round.
    pub key: PeerKey,
    /// The peer wants something.
    pub interested: bool,
    /// We choke it.
    pub choked: bool,
    /// When it connected.
    pub connected_at: Time,
    /// When it was last unchoked; zero if never.
    pub unchoked_at: Time,
    /// Bytes sent to it in the last round.
    pub uploaded_in_round: u64,
    /// Bytes sent to it since it was last unchoked.
    pub uploaded_since_unchoke: u64,
    /// How much of the torrent it has, in bytes: what it says or what we sent it, whichever is more.
    pub progress_bytes: u64,
    /// The length of its torrent, in bytes.
    pub total_length: u64,
    /// The piece length of its torrent, in bytes.
    pub piece_length: u32,
}

/// Which peers a seed prefers when slots are limited. Names and meanings are libtorrent's
/// (`seed_choking_algorithm`, implemented in its `src/choker.cpp`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SeedPolicy {
    /// Keeps a peer until it got its quota ([`ChokerConfig::quota_pieces`] and a minute), then lets others
    /// have the slot; among the rest the fastest, then whoever waits longest. libtorrent's `round_robin`.
    #[default]
    RoundRobin,
    /// Prefers the peers to whom we sent most in the last round, then whoever waits longest. Gets the most
    /// out of a link, and starves slow peers but for optimistic slots. libtorrent's `fastest_upload`.
    FastestUpload,
    /// Prefers peers that have just begun or are almost done over those in the middle, which can best trade
    /// with each other: Chow, Golubchik, Misra, "Improving BitTorrent: A Simple Approach" (IPTPS 2008).
    /// libtorrent's `anti_leech`.
    AntiLeech,
}

/// How a choker works. Its own slots may change later: [`Choker::set_slots`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChokerConfig {
    /// Peers that may be unchoked at a time; 0: unlimited.
    pub slots: u32,
    /// How many of the slots are optimistic; 0: a fifth of them, at least one, as in libtorrent.
    pub optimistic_slots: u32,
    /// Who gets the other slots.
    pub policy: SeedPolicy,
    /// How often slots are chosen anew.
    pub round_interval: Duration,
    /// How long an optimistic slot lasts.
    pub optimistic_interval: Duration,
    /// Round-robin: how many pieces a peer gets before its slot goes to another.
    pub quota_pieces: u32,
}

impl Default for ChokerConfig {
    fn default() -> ChokerConfig {
        ChokerConfig {
            slots: 0,
            optimistic_slots: 0,
            policy: SeedPolicy::default(),
            round_interval: Duration::from_secs(15),
            optimistic_interval: Duration::from_secs(30),
            quota_pieces: 20,
        }
    }
}

/// What to do with one peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChokeChange {
    /// The peer.
    pub key: PeerKey,
    /// Choke it, or unchoke it.
    pub choke: bool,
}

/// Chooses whom to unchoke: see the module.
pub struct Choker {
    config: ChokerConfig,
    random: Random,
    next_round: Time,
    optimistic_until: Time,
    /// The peers in optimistic slots.
    optimistic: Vec<PeerKey>,
    /// Indices of the candidates, kept for its memory.
    candidates: Vec<u32>,
}

impl Choker {
    /// A choker whose first round is due one interval from `now`. The same seed makes the same choices.
    pub fn new(config: ChokerConfig, seed: u64, now: Time) -> Choker {
        Choker {
            config,
            random: Random::new(seed),
            next_round: now + config.round_interval,
            optimistic_until: now,
            optimistic: Vec::new(),
            candidates: Vec::new(),
        }
    }

    /// Changes how many peers may be unchoked at a time; 0: unlimited. Takes effect in the next round, which
    /// the caller may hold at once.
    pub fn set_slots(&mut self, slots: u32) {
        self.config.slots = slots;
    }

    /// How many peers may be unchoked at a time; 0: unlimited.
    pub fn slots(&self) -> u32 {
        self.config.slots
    }

    /// When the next round is due.
    pub fn next_timeout(&self) -> Time {
        self.next_round
    }

    /// Whether a peer that has just become interested may be unchoked at once, without waiting for a round,
    /// when `unchoked` peers are unchoked already.
    pub fn may_unchoke(&self, unchoked: u32) -> bool {
        self.config.slots == 0 || unchoked < self.config.slots
    }

    /// Holds a round: appends to `changes` what must change so that at most `slots` peers, all of them
    /// interested, are unchoked. No peer is named twice.
    pub fn round(&mut self, peers: &[PeerView], now: Time, changes: &mut Vec<ChokeChange>) {
        self.next_round = now + self.config.round_interval;
        if self.config.slots == 0 {
            self.optimistic.clear();
            unchoke_all(peers, changes);
            return;
        }
        self.candidates.clear();
        let interested = (0_u32..).zip(peers).filter(|(_, peer)| peer.interested);
        self.candidates.extend(interested.map(|(index, _)| index));
        let chosen = self.choose(peers, now);
        // The chosen ones are in front; the rest, and whoever is not interested, is choked.
        let (unchoke, choke) = self.candidates.split_at(chosen);
        let at = |index: &u32| &peers[*index as usize];
        let not_interested = peers.iter().filter(|peer| !peer.interested);
        for peer in choke
            .iter()
            .map(at)
            .chain(not_interested)
            .filter(|peer| !peer.choked)
        {
            changes.push(ChokeChange {
                key: peer.key,
                choke: true,
            });
        }
        for peer in unchoke.iter().map(at).filter(|peer| peer.choked) {
            changes.push(ChokeChange {
                key: peer.key,
                choke: false,
            });
        }
    }

    /// Moves the chosen candidates to the front, and returns how many they are.
    fn choose(&mut self, peers: &[PeerView], now: Time) -> usize {
        let slots = self.config.slots as usize;
        if self.candidates.len() <= slots {
            self.optimistic.clear();
            return self.candidates.len();
        }
        let optimistic_slots = self.optimistic_slots();
        let regular = slots - optimistic_slots;
        if regular > 0 {
            let config = self.config;
            self.candidates
                .select_nth_unstable_by_key(regular - 1, |&index| {
                    rank(&peers[index as usize], &config, now)
                });
        }
        self.choose_optimistic(peers, regular, optimistic_slots, now);
        slots
    }

    /// Moves the optimistic choices behind the `regular` ones at the front: those of the last choice while it
    /// lasts, and new ones in the place of those who left, or got a regular slot.
    fn choose_optimistic(
        &mut self,
        peers: &[PeerView],
        regular: usize,
        optimistic_slots: usize,
        now: Time,
    ) {
        if now >= self.optimistic_until {
            self.optimistic.clear();
            self.optimistic_until = now + self.config.optimistic_interval;
        }
        self.optimistic.sort_unstable();
        let waiting = &mut self.candidates[regular..];
        let mut front = 0;
        for place in 0..waiting.len() {
            let key = peers[waiting[place] as usize].key;
            if front < optimistic_slots && self.optimistic.binary_search(&key).is_ok() {
                waiting.swap(front, place);
                front += 1;
            }
        }
        while front < optimistic_slots {
            let chance = |index: u32| chance(&peers[index as usize], now);
            let total = waiting[front..].iter().map(|&index| chance(index)).sum();
            let mut ticket = self.random.below(total);
            let drawn = waiting[front..].iter().position(|&index| {
                let hit = ticket < chance(index);
                ticket = ticket.saturating_sub(chance(index));
                hit
            });
            waiting.swap(front, front + drawn.unwrap_or(0));
            front += 1;
        }
        self.optimistic.clear();
        let chosen = &self.candidates[regular..regular + optimistic_slots];
        self.optimistic
            .extend(chosen.iter().map(|&index| peers[index as usize].key));
    }

    /// How many of the slots are optimistic. One slot alone is not: it would go round without policy.
    fn optimistic_slots(&self) -> usize {
        let ChokerConfig {
            slots,
            optimistic_slots,
            ..
        } = self.config;
        let wanted = if optimistic_slots == 0 {
            (slots / 5).max(1)
        } else {
            optimistic_slots
        };
        wanted.min(slots - 1) as usize
    }
}

/// Unchokes whoever is interested. A peer that is no longer so keeps its slot: it takes nothing from others,
/// and need not wait when it wants something again.
fn unchoke_all(peers: &[PeerView], changes: &mut Vec<ChokeChange>) {
    let waiting = peers.iter().filter(|peer| peer.interested && peer.choked);
    changes.extend(waiting.map(|peer| ChokeChange {
        key: peer.key,
        choke: false,
    }));
}

/// The weight of a peer in the optimistic draw.
fn chance(peer: &PeerView, now: Time) -> u64 {
    if now.since(peer.connected_at) < NEW_PEER_AGE {
        3
    } else {
        1
    }
}

/// Where a peer stands: the lowest ranks get the slots. The key makes it a total order.
type Rank = (bool, Reverse<u64>, Time, PeerKey);

fn rank(peer: &PeerView, config: &ChokerConfig, now: Time) -> Rank {
    let (served, preference) = match config.policy {
        SeedPolicy::FastestUpload => (false, peer.uploaded_in_round),
        SeedPolicy::AntiLeech => (false, anti_leech_score(peer)),
        SeedPolicy::RoundRobin => {
            let quota = u64::from(peer.piece_length) * u64::from(config.quota_pieces);
            let served = !peer.choked
                && peer.uploaded_since_unchoke > quota
                && now.since(peer.unchoked_at) > ROUND_ROBIN_SLOT_MIN;
            // What was still under way to a peer that was just choked must not bring it back.
            (
                served,
                if peer.choked {
                    0
                } else {
                    peer.uploaded_in_round
                },
            )
        }
    };
    (served, Reverse(preference), peer.unchoked_at, peer.key)
}

/// How far a peer is from having half the torrent: 0 in the middle, 1,000 at either end.
fn anti_leech_score(peer: &PeerView) -> u64 {
    let half = peer.total_length / 2;
    let distance = u128::from(peer.progress_bytes.abs_diff(half));
    let score = distance * 2_000 / u128::from(peer.total_length.max(1));
    u64::try_from(score).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
