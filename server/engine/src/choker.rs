//! Which peers may request: upload slots.
//!
//! *Of a complete torrent*: by default slots are unlimited. Whoever is interested is unchoked at
//! once, which is the fastest ramp and what a seed with enough bandwidth wants. With a limit a
//! round every 15 s chooses by [`SeedPolicy`].
//!
//! *Of a torrent that we still download*: a round every 10 s chooses by [`LeechPolicy`], by default
//! those from whom we download fastest; without a limit there are as many slots as the upload rate
//! is good for.
//!
//! In both, some slots go to peers at random (optimistic unchoke, BEP 3), so that each is tried in
//! time. Peers of both kinds share the slots by demand. Which kind a peer is of says its view, so a
//! torrent that completes needs nothing done: its peers keep their slots until the next round,
//! which judges them as a seed does.
//!
//! Cost: O(n) without a limit, with no allocation but the caller's list of changes; with a limit
//! O(n) by selection, and a draw of O(n) for each optimistic slot that is free; scratch lists are
//! kept.
//!
//! Not here: which connection is closed, and how slots are shared between torrents: a shard's
//! choker sees all its peers alike. The global number is divided over shards by [`lease_slots`].

use std::cmp::Reverse;
use std::time::Duration;

use crate::random::Random;
use crate::time::Time;

mod lease;
mod leech;

pub use lease::lease_slots;
pub use leech::LeechPolicy;

use leech::SlotsByRate;

/// A peer that connected less than this ago is three times as likely to be chosen optimistically
/// (BEP 3).
const NEW_PEER_AGE: Duration = Duration::from_secs(60);

/// How long a peer keeps a round-robin slot at least, as in libtorrent.
const ROUND_ROBIN_SLOT_MIN: Duration = Duration::from_secs(60);

/// How a peer is called by whoever calls the choker.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct PeerKey(pub u64);

/// What we do with a torrent, and so how its peers are judged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// We have all of it: by [`SeedPolicy`].
    Seeding,
    /// We still download it: by [`LeechPolicy`].
    Downloading,
}

/// A peer as the choker sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeerView {
    /// The caller's name for it, unique in a round.
    pub key: PeerKey,
    /// What we do with its torrent.
    pub role: Role,
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
    /// How much of the torrent it has, in bytes: what it says or what we sent it, whichever is
    /// more.
    pub progress_bytes: u64,
    /// The length of its torrent, in bytes.
    pub total_length: u64,
    /// The piece length of its torrent, in bytes.
    pub piece_length: u32,
    /// What it sends to us, in bytes per second over the last seconds ([`crate::meter`]).
    pub download_rate: u64,
    /// It owes us blocks and sends none ([`crate::pipeline::Pipeline::is_snubbed`]).
    pub snubbed: bool,
}

/// Which peers a seed prefers when slots are limited. Names and meanings are libtorrent's
/// (`seed_choking_algorithm`, implemented in its `src/choker.cpp`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SeedPolicy {
    /// Keeps a peer until it got its quota ([`ChokerConfig::quota_pieces`] and a minute), then lets
    /// others have the slot; among the rest the fastest, then whoever waits longest. libtorrent's
    /// `round_robin`.
    #[default]
    RoundRobin,
    /// Prefers the peers to whom we sent most in the last round, then whoever waits longest. Gets
    /// the most out of a link, and starves slow peers but for optimistic slots. libtorrent's
    /// `fastest_upload`.
    FastestUpload,
    /// Prefers peers that have just begun or are almost done over those in the middle, which can
    /// best trade with each other: Chow, Golubchik, Misra, "Improving BitTorrent: A Simple
    /// Approach" (IPTPS 2008). libtorrent's `anti_leech`.
    AntiLeech,
}

/// How a choker works. Its own slots may change later: [`Choker::set_slots`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChokerConfig {
    /// Peers that may be unchoked at a time; 0: unlimited.
    pub slots: u32,
    /// How many of the slots are optimistic; 0: a fifth of them, at least one, as in libtorrent.
    pub optimistic_slots: u32,
    /// Who gets the other slots in complete torrents.
    pub policy: SeedPolicy,
    /// Who gets the other slots in torrents that we download, and how many those are.
    pub leech: LeechPolicy,
    /// How often slots are chosen anew.
    pub round_interval: Duration,
    /// How often slots are chosen anew while a torrent is downloaded.
    pub leech_round_interval: Duration,
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
            leech: LeechPolicy::default(),
            round_interval: Duration::from_secs(15),
            leech_round_interval: Duration::from_secs(10),
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
    /// The peers in optimistic slots, sorted.
    optimistic: Vec<PeerKey>,
    /// The optimistic choices of the round that is held, kept for its memory.
    drawn: Vec<PeerKey>,
    /// Indices of the candidates, those of complete torrents first, kept for its memory.
    candidates: Vec<u32>,
    slots_by_rate: SlotsByRate,
    /// Slots for peers of torrents that we download, that the last round had left.
    leech_slots_free: u32,
}

/// What a round gives to the peers of one role.
#[derive(Clone, Copy, Debug)]
struct Share {
    role: Role,
    /// How many are interested.
    candidates: usize,
    slots: usize,
}

impl Choker {
    /// A choker whose first round is due the shorter interval from `now`. The same seed makes the
    /// same choices.
    pub fn new(config: ChokerConfig, seed: u64, now: Time) -> Choker {
        let slots_by_rate = SlotsByRate::new(now);
        Choker {
            config,
            random: Random::new(seed),
            next_round: now + config.round_interval.min(config.leech_round_interval),
            optimistic_until: now,
            optimistic: Vec::new(),
            drawn: Vec::new(),
            candidates: Vec::new(),
            slots_by_rate,
            leech_slots_free: config.leech.slots(&slots_by_rate),
        }
    }

    /// Changes how many peers may be unchoked at a time; 0: unlimited. Takes effect in the next
    /// round, which the caller may hold at once.
    pub fn set_slots(&mut self, slots: u32) {
        self.config.slots = slots;
    }

    /// Chooses by these rules from the next round on. How many slots there are stays as it is.
    pub fn set_rules(&mut self, rules: ChokerConfig) {
        let slots = self.config.slots;
        self.config = ChokerConfig { slots, ..rules };
    }

    /// How many peers may be unchoked at a time; 0: unlimited.
    pub fn slots(&self) -> u32 {
        self.config.slots
    }

    /// When the next round is due.
    pub fn next_timeout(&self) -> Time {
        self.next_round
    }

    /// Whether a peer that has just become interested may be unchoked at once, without waiting for
    /// a round, when `unchoked` peers are unchoked already.
    pub fn may_unchoke(&self, role: Role, unchoked: u32) -> bool {
        let room = self.config.slots == 0 || unchoked < self.config.slots;
        room && (role == Role::Seeding || self.leech_slots_free > 0)
    }

    /// Takes a slot without waiting for a round, if [`Self::may_unchoke`]: the caller unchokes the
    /// peer.
    pub fn claim(&mut self, role: Role, unchoked: u32) -> bool {
        let may = self.may_unchoke(role, unchoked);
        self.leech_slots_free -= u32::from(may && role == Role::Downloading);
        may
    }

    /// Holds a round: appends to `changes` what must change so that at most `slots` peers, all of
    /// them interested, are unchoked. No peer is named twice.
    pub fn round(&mut self, peers: &[PeerView], now: Time, changes: &mut Vec<ChokeChange>) {
        let [seeding, downloading] = self.start_round(peers, now);
        if self.config.slots == 0 && !peers.iter().any(|peer| peer.role == Role::Downloading) {
            self.optimistic.clear();
            self.leech_slots_free = u32::try_from(downloading.slots).unwrap_or(u32::MAX);
            unchoke_all(peers, changes);
            return;
        }
        self.list_candidates(peers);
        if now >= self.optimistic_until {
            self.optimistic.clear();
            self.optimistic_until = now + self.config.optimistic_interval;
        }
        let mut candidates = std::mem::take(&mut self.candidates);
        let (of_seeding, of_downloading) = candidates.split_at_mut(seeding.candidates);
        let chosen_seeding = self.choose(of_seeding, seeding, peers, now);
        let chosen_downloading = self.choose(of_downloading, downloading, peers, now);
        self.leech_slots_free =
            u32::try_from(downloading.slots - chosen_downloading).unwrap_or(u32::MAX);
        std::mem::swap(&mut self.optimistic, &mut self.drawn);
        self.optimistic.sort_unstable();
        self.drawn.clear();

        // The chosen ones are in front; the rest, and whoever is not interested, is choked. First
        // the chokes, so that slots are free when they are given.
        let parts = [
            of_seeding.split_at(chosen_seeding),
            of_downloading.split_at(chosen_downloading),
        ];
        let at = |index: &u32| &peers[*index as usize];
        let rest = parts.iter().flat_map(|(_, rest)| rest.iter().map(at));
        let idle = peers
            .iter()
            .filter(|peer| !peer.interested && !self.keeps_idle(peer.role));
        let choke = rest.chain(idle).filter(|peer| !peer.choked);
        changes.extend(choke.map(|peer| peer.change(true)));
        let chosen = parts.iter().flat_map(|(chosen, _)| chosen.iter().map(at));
        let unchoke = chosen.filter(|peer| peer.choked);
        changes.extend(unchoke.map(|peer| peer.change(false)));
        self.candidates = candidates;
    }

    /// Says when the next round is due, and divides the slots over the roles by demand.
    fn start_round(&mut self, peers: &[PeerView], now: Time) -> [Share; 2] {
        let due = now >= self.next_round;
        let (mut downloads, mut uploaded) = (false, 0_u64);
        let (mut seeding, mut downloading) = (0, 0);
        for peer in peers {
            match peer.role {
                Role::Seeding => seeding += u32::from(peer.interested),
                Role::Downloading => {
                    downloads = true;
                    downloading += u32::from(peer.interested);
                    uploaded = uploaded.saturating_add(peer.uploaded_in_round);
                }
            }
        }
        let interval = match downloads {
            true => self.config.leech_round_interval,
            false => self.config.round_interval,
        };
        self.next_round = now + interval;
        self.slots_by_rate.measure(uploaded, due, now);
        let leech_slots = self.config.leech.slots(&self.slots_by_rate);
        let (seed_part, leech_part) = match (self.config.slots, downloads) {
            (0, _) => (seeding, leech_slots),
            (slots, false) => (slots, leech_slots),
            (slots, true) => {
                let demand = [seeding, downloading.min(leech_slots)];
                let parts = lease_slots(slots, &demand);
                (parts[0], parts[1].min(leech_slots))
            }
        };
        let share = |role, candidates: u32, slots: u32| Share {
            role,
            candidates: candidates as usize,
            slots: slots as usize,
        };
        [
            share(Role::Seeding, seeding, seed_part),
            share(Role::Downloading, downloading, leech_part),
        ]
    }

    /// Lists who is interested, peers of complete torrents first.
    fn list_candidates(&mut self, peers: &[PeerView]) {
        self.candidates.clear();
        for role in [Role::Seeding, Role::Downloading] {
            let of_role = (0_u32..).zip(peers);
            let interested = of_role.filter(|(_, peer)| peer.interested && peer.role == role);
            self.candidates.extend(interested.map(|(index, _)| index));
        }
    }

    /// Moves the chosen candidates to the front, and returns how many they are.
    fn choose(
        &mut self,
        candidates: &mut [u32],
        share: Share,
        peers: &[PeerView],
        now: Time,
    ) -> usize {
        if candidates.len() <= share.slots {
            return candidates.len();
        }
        let config = self.config;
        let optimistic_slots = optimistic_slots(share.slots, config.optimistic_slots);
        let mut regular = share.slots - optimistic_slots;
        if share.role == Role::Downloading {
            // What nobody deserves is given by chance.
            let deserve = |index: &&u32| config.leech.deserves(&peers[**index as usize]);
            regular = regular.min(candidates.iter().filter(deserve).count());
        }
        if regular > 0 {
            candidates.select_nth_unstable_by_key(regular - 1, |&index| {
                let peer = &peers[index as usize];
                match share.role {
                    Role::Seeding => rank(peer, &config, now),
                    Role::Downloading => leech::rank(peer, &config),
                }
            });
        }
        self.draw(
            &mut candidates[regular..],
            share.slots - regular,
            peers,
            now,
        );
        share.slots
    }

    /// Moves `count` optimistic choices to the front of who waits: those of the last choice while
    /// it lasts, and new ones in the place of those who left, or got a regular slot.
    fn draw(&mut self, waiting: &mut [u32], count: usize, peers: &[PeerView], now: Time) {
        let mut front = 0;
        for place in 0..waiting.len() {
            let key = peers[waiting[place] as usize].key;
            if front < count && self.optimistic.binary_search(&key).is_ok() {
                waiting.swap(front, place);
                front += 1;
            }
        }
        while front < count {
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
        let keys = waiting[..count]
            .iter()
            .map(|&index| peers[index as usize].key);
        self.drawn.extend(keys);
    }

    /// Whether a peer that is not interested any more keeps its slot: where slots are unlimited it
    /// takes nothing from others, and need not wait when it wants something again.
    fn keeps_idle(&self, role: Role) -> bool {
        self.config.slots == 0 && role == Role::Seeding
    }
}

impl PeerView {
    fn change(&self, choke: bool) -> ChokeChange {
        ChokeChange {
            key: self.key,
            choke,
        }
    }
}

/// How many of the slots are optimistic, if so many are `wanted` (0: a fifth). One slot alone is
/// not: it would go round without policy.
fn optimistic_slots(slots: usize, wanted: u32) -> usize {
    let wanted = match wanted {
        0 => (slots / 5).max(1),
        wanted => wanted as usize,
    };
    wanted.min(slots.saturating_sub(1))
}

/// Unchokes whoever is interested; see [`Choker::keeps_idle`] for who is not.
fn unchoke_all(peers: &[PeerView], changes: &mut Vec<ChokeChange>) {
    let waiting = peers.iter().filter(|peer| peer.interested && peer.choked);
    changes.extend(waiting.map(|peer| peer.change(false)));
}

/// The weight of a peer in the optimistic draw.
fn chance(peer: &PeerView, now: Time) -> u64 {
    if now.since(peer.connected_at) < NEW_PEER_AGE {
        3
    } else {
        1
    }
}

/// Where a peer stands: the lowest ranks get the slots. The key makes it a total order. The second
/// flag is whether it must wait behind its equals.
type Rank = (bool, Reverse<u64>, bool, Time, PeerKey);

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
    (
        served,
        Reverse(preference),
        false,
        peer.unchoked_at,
        peer.key,
    )
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
