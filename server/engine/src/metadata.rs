//! Getting a torrent's `info` dictionary from peers, when only its hash is known (BEP 9).
//!
//! Blocks of 16 KiB are asked of several peers at a time. When all are here, [`Action::Check`]
//! hands them over to whoever can hash them; the answer is [`MetadataExchange::checked`]. There is
//! one hash for the whole, so a bad one does not say which block is wrong:
//! - all blocks came from one peer: it lied, [`Action::Ban`];
//! - they came from several: what the peer with the most of them sent is kept and the rest asked of
//!   it alone, so that the next bad hash has one culprit. From then on one peer at a time is asked.
//!
//! How long the dictionary is, is hearsay too, and a peer says it once: peers that say the same
//! length are asked together. The next length's turn comes when none of them can be asked any more,
//! or when they have had [`MetadataConfig::turn`] while others wait, which doubles with each of
//! their turns: who answers just before it is late could keep the others away for days. The most
//! numerous come first, and every second turn is for who has waited the longest, so that nobody's
//! numbers keep another away. A *stranger* (an address, as its caller counts them) has one voice,
//! however many connections. What a length has got is put aside for its next turn ([`turns`]).
//!
//! Limits: one set of blocks at a time, so at most `proto::limits::METAINFO_BYTES_MAX`, and
//! [`turns::ASIDE_MAX`] sets, together [`turns::ASIDE_BYTES_MAX`], put aside; of all links together
//! what [`room`] has; only what has come takes memory; [`MetadataConfig::requests_max`] of each
//! peer. An input costs O(log blocks), a refill O(peers).
//!
//! Not here: messages, hashes, and whether what has the right hash is a torrent. A peer's key is
//! used once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use proto::extension::{MetadataMessage, metadata_block_bytes, metadata_blocks};

use crate::choker::PeerKey;
use crate::time::Time;

mod room;
mod turns;

use room::{AsidePlace, Share};
pub use room::{MEMORY_BYTES_MAX, MetadataRoom, Place};

/// How often a rest doubles, at most.
const REST_DOUBLINGS_MAX: u32 = 5;

/// How the exchange works.
#[derive(Clone, Copy, Debug)]
pub struct MetadataConfig {
    /// Requests to one peer that wait for an answer. rTorrent drops each that comes before it has
    /// sent its last answer.
    pub requests_max: usize,
    /// How long a peer may take for an answer. Then the block is asked of others, and the peer
    /// rests.
    pub answer_timeout: Duration,
    /// How long a peer that gave no answer, or a reject, is left alone; it doubles each time.
    pub rest: Duration,
    /// How long peers of one length are asked while those of another wait; it doubles each time.
    pub turn: Duration,
}

impl Default for MetadataConfig {
    fn default() -> MetadataConfig {
        MetadataConfig {
            requests_max: 1,
            answer_timeout: Duration::from_secs(8),
            rest: Duration::from_secs(5),
            turn: Duration::from_secs(30),
        }
    }
}

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Ask this peer for a block of metadata.
    Request {
        /// The peer.
        peer: PeerKey,
        /// The index of the block.
        block: u32,
    },
    /// All blocks are here: take them by [`MetadataExchange::take_info`], hash them, and answer by
    /// [`MetadataExchange::checked`].
    Check,
    /// All that came from this peer had the wrong hash: close it and keep its address away.
    Ban(PeerKey),
}

/// A peer that says it has the metadata.
struct Source {
    stranger: IpAddr,
    /// Its place among those who wait for a turn: the lower, the longer.
    number: u64,
    /// How many turns it has had.
    turns: u32,
    /// How long it says they are.
    total_bytes: u32,
    asked: Vec<Asked>,
    /// How often it gave no answer or a reject since the last good one.
    failures: u32,
    /// It is not asked before this.
    rests_until: Time,
}

/// A block that a peer was asked for.
struct Asked {
    block: u32,
    at: Time,
    /// It took too long and may be asked of others; an answer is taken all the same.
    late: bool,
}

/// A block that is here.
struct Block {
    from: PeerKey,
    bytes: Box<[u8]>,
}

/// The blocks of one length.
struct Assembly {
    total_bytes: u32,
    /// The only peer that is asked.
    alone: Option<PeerKey>,
    here: BTreeMap<u32, Block>,
    /// Neither here nor asked of a peer in time.
    wanted: BTreeSet<u32>,
    /// When its turn is over, if others wait.
    until: Time,
}

/// Blocks that are put aside, and the room that they take.
struct Aside {
    here: BTreeMap<u32, Block>,
    _place: AsidePlace,
}

/// Where the exchange is.
enum Stage {
    /// Nobody can be asked, or there is no room.
    Idle,
    /// Blocks are on their way.
    Assembling(Assembly),
    /// The blocks are with whoever hashes them; who sent how many of them is kept, and the blocks
    /// of the one who sent the most if there were several.
    Checking {
        senders: BTreeMap<PeerKey, u32>,
        kept: Assembly,
        info: Option<Vec<u8>>,
    },
    /// The right bytes were here.
    Done,
}

/// The exchange of one torrent's metadata: see the module.
pub struct MetadataExchange {
    config: MetadataConfig,
    peers: BTreeMap<PeerKey, Source>,
    stage: Stage,
    /// Sets of blocks whose turn is over, by their length and who alone was asked.
    aside: BTreeMap<(u32, Option<PeerKey>), Aside>,
    share: Share,
    /// The turns so far.
    turns: u64,
    /// The next [`Source::number`].
    next_number: u64,
    /// A hash was wrong and had several senders: from now on one peer at a time.
    one_by_one: bool,
    actions: VecDeque<Action>,
}

impl MetadataExchange {
    /// An exchange without peers, with a part in the room of all.
    pub fn new(config: MetadataConfig, room: Arc<MetadataRoom>) -> MetadataExchange {
        MetadataExchange {
            config,
            peers: BTreeMap::new(),
            stage: Stage::Idle,
            aside: BTreeMap::new(),
            share: Share::new(room),
            turns: 0,
            next_number: 0,
            one_by_one: false,
            actions: VecDeque::new(),
        }
    }

    /// What is still to be done because of the inputs so far; `None` when all is.
    pub fn take_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Whether the metadata were here and right.
    pub fn is_done(&self) -> bool {
        matches!(self.stage, Stage::Done)
    }

    /// Bytes that are here, and their length as the peers say it; zeros while nobody can be asked.
    pub fn progress(&self) -> (u64, u64) {
        match &self.stage {
            Stage::Assembling(assembly) => {
                let here = assembly.here.values().map(|block| block.bytes.len() as u64);
                (here.sum(), assembly.total_bytes.into())
            }
            Stage::Checking { kept, .. } => (kept.total_bytes.into(), kept.total_bytes.into()),
            Stage::Idle | Stage::Done => (0, 0),
        }
    }

    /// A peer has said that the metadata are so long (`metadata_size` of its extension handshake)
    /// and takes requests. `stranger` is by which its connections are counted. False if it has said
    /// another length before, which no peer has a reason for: the first stands.
    #[must_use]
    pub fn peer_joined(&mut self, peer: PeerKey, stranger: IpAddr, total_bytes: u32) -> bool {
        if metadata_blocks(total_bytes) == 0 || self.is_done() {
            return true;
        }
        let number = self.next_number;
        self.next_number += 1;
        let source = self.peers.entry(peer).or_insert(Source {
            stranger,
            number,
            turns: 0,
            total_bytes,
            asked: Vec::new(),
            failures: 0,
            rests_until: Time(0),
        });
        source.total_bytes == total_bytes
    }

    /// A peer has gone. What it sent stays: it may be right.
    pub fn peer_left(&mut self, peer: PeerKey) {
        if let Some(source) = self.peers.remove(&peer) {
            self.give_back(source.asked.iter());
        }
        // Nobody goes on with these.
        self.aside.retain(|&(_, alone), _| alone != Some(peer));
    }

    /// Whether a peer waits for the turn of its length, or for room, and so is not to blame for
    /// giving nothing.
    pub fn is_waiting(&self, peer: PeerKey, now: Time) -> bool {
        let Some(source) = self.peers.get(&peer) else {
            return false;
        };
        let is_its_turn = match &self.stage {
            Stage::Assembling(assembly) => assembly.is_of(peer, source),
            Stage::Idle => self.share.awaited().is_none(),
            Stage::Checking { .. } | Stage::Done => true,
        };
        source.rests_until <= now && !is_its_turn
    }

    /// Who sent what is here, or being checked: one of them may turn out to have lied, though gone.
    pub fn senders(&self) -> BTreeSet<PeerKey> {
        let here = match &self.stage {
            Stage::Assembling(assembly) => Some(&assembly.here),
            Stage::Checking { senders, .. } => return self.senders_aside(senders.keys().copied()),
            Stage::Idle | Stage::Done => None,
        };
        let here = here.into_iter().flat_map(BTreeMap::values);
        self.senders_aside(here.map(|block| block.from))
    }

    /// The same, of what was put aside and these.
    fn senders_aside(&self, others: impl Iterator<Item = PeerKey>) -> BTreeSet<PeerKey> {
        let aside = self.aside.values().flat_map(|aside| aside.here.values());
        aside.map(|block| block.from).chain(others).collect()
    }

    /// Takes a data or reject message; others are not for this. Whether it was a block that the
    /// peer was asked for.
    pub fn handle_message(
        &mut self,
        peer: PeerKey,
        message: &MetadataMessage<'_>,
        now: Time,
    ) -> bool {
        match *message {
            MetadataMessage::Data {
                piece,
                total_bytes,
                block,
            } => self.data(peer, piece, total_bytes, block, now),
            MetadataMessage::Reject { piece } => {
                self.rejected(peer, piece, now);
                false
            }
            MetadataMessage::Request { .. } | MetadataMessage::Unknown { .. } => false,
        }
    }

    fn data(
        &mut self,
        peer: PeerKey,
        index: u32,
        total_bytes: u32,
        bytes: &[u8],
        now: Time,
    ) -> bool {
        let Some(source) = self.peers.get_mut(&peer) else {
            return false;
        };
        let Some(place) = source.asked.iter().position(|asked| asked.block == index) else {
            // Not asked for, or twice.
            return false;
        };
        let asked = source.asked.swap_remove(place);
        if total_bytes != source.total_bytes {
            // It contradicts its own handshake.
            self.rest(peer, now);
            self.give_back([asked].iter());
            return false;
        }
        source.failures = 0;
        source.rests_until = Time(0);
        // It answers again: what it owes is asked anew, of whomever.
        source.asked.retain(|asked| !asked.late);
        let Stage::Assembling(assembly) = &mut self.stage else {
            return false;
        };
        let due = metadata_block_bytes(assembly.total_bytes, index);
        let fits = assembly.total_bytes == total_bytes && due == u32::try_from(bytes.len()).ok();
        if !fits || assembly.alone.is_some_and(|alone| alone != peer) {
            return false;
        }
        assembly.wanted.remove(&index);
        assembly.here.entry(index).or_insert_with(|| Block {
            from: peer,
            bytes: bytes.into(),
        });
        if assembly.here.len() == metadata_blocks(total_bytes) as usize {
            self.hand_over();
        }
        true
    }

    fn rejected(&mut self, peer: PeerKey, index: u32, now: Time) {
        let Some(source) = self.peers.get_mut(&peer) else {
            return;
        };
        if let Some(place) = source.asked.iter().position(|asked| asked.block == index) {
            let asked = source.asked.swap_remove(place);
            self.rest(peer, now);
            self.give_back([asked].iter());
        }
    }

    /// Leaves a peer alone for a while.
    fn rest(&mut self, peer: PeerKey, now: Time) {
        let rest = self.config.rest;
        if let Some(source) = self.peers.get_mut(&peer) {
            let doublings = source.failures.min(REST_DOUBLINGS_MAX);
            source.failures = source.failures.saturating_add(1);
            source.rests_until = now + rest.saturating_mul(1 << doublings);
        }
    }

    /// What was asked of a peer that does not answer may be asked of others.
    fn give_back<'a>(&mut self, asked: impl Iterator<Item = &'a Asked>) {
        let Stage::Assembling(assembly) = &mut self.stage else {
            return;
        };
        let blocks = metadata_blocks(assembly.total_bytes);
        for asked in asked.filter(|asked| !asked.late && asked.block < blocks) {
            if !assembly.here.contains_key(&asked.block) {
                assembly.wanted.insert(asked.block);
            }
        }
    }

    /// Everything is here: to be hashed.
    fn hand_over(&mut self) {
        let Stage::Assembling(mut assembly) = std::mem::replace(&mut self.stage, Stage::Idle)
        else {
            return;
        };
        let mut senders = BTreeMap::new();
        let mut info = Vec::with_capacity(assembly.total_bytes as usize);
        for block in assembly.here.values() {
            *senders.entry(block.from).or_insert(0) += 1;
            info.extend_from_slice(&block.bytes);
        }
        let most = senders.iter().max_by_key(|&(_, &count)| count);
        let most = most.map(|(&peer, _)| peer).filter(|_| senders.len() > 1);
        assembly.here.retain(|_, block| Some(block.from) == most);
        assembly.alone = most;
        self.stage = Stage::Checking {
            senders,
            kept: assembly,
            info: Some(info),
        };
        self.actions.push_back(Action::Check);
    }

    /// The bytes that [`Action::Check`] is about: once each time.
    pub fn take_info(&mut self) -> Option<Vec<u8>> {
        match &mut self.stage {
            Stage::Checking { info, .. } => info.take(),
            Stage::Idle | Stage::Assembling(_) | Stage::Done => None,
        }
    }

    /// The room in memory that the right bytes take, to be kept as long as they are: once, after
    /// [`Self::checked`].
    pub fn take_place(&mut self) -> Option<Place> {
        self.share.take_place()
    }

    /// Whether what was handed over had the torrent's hash.
    pub fn checked(&mut self, good: bool) {
        let stage = std::mem::replace(&mut self.stage, Stage::Idle);
        let Stage::Checking {
            senders, mut kept, ..
        } = stage
        else {
            self.stage = stage;
            return;
        };
        if good {
            self.stage = Stage::Done;
            self.peers.clear();
            self.aside.clear();
            self.share.leave_line();
            return;
        }
        for source in self.peers.values_mut() {
            // An answer to what was asked for the bytes that are dropped now is dropped, too.
            source.asked.clear();
        }
        if senders.len() == 1 {
            for &liar in senders.keys() {
                self.peer_left(liar);
                self.actions.push_back(Action::Ban(liar));
            }
            self.share.give_back();
            return;
        }
        if !self.one_by_one {
            self.one_by_one = true;
            // What several sent is of no use any more.
            self.aside.clear();
        }
        if kept
            .alone
            .is_some_and(|alone| self.peers.contains_key(&alone))
        {
            let blocks = 0..metadata_blocks(kept.total_bytes);
            kept.wanted = blocks
                .filter(|block| !kept.here.contains_key(block))
                .collect();
            self.stage = Stage::Assembling(kept);
        } else {
            self.share.give_back();
        }
    }

    /// When [`Self::refill`] has something to do although nothing has come.
    pub fn next_timeout(&self) -> Time {
        let timeout = self.config.answer_timeout;
        let of_peer = |source: &Source| {
            let asked = source.asked.iter().filter(|asked| !asked.late);
            let answer = asked.map(|asked| asked.at + timeout).min();
            let rested = (source.rests_until > Time(0)).then_some(source.rests_until);
            answer.into_iter().chain(rested).min()
        };
        match self.stage {
            Stage::Checking { .. } | Stage::Done => Time::NEVER,
            Stage::Idle | Stage::Assembling(_) => {
                let first = self.peers.values().filter_map(of_peer).min();
                first.unwrap_or(Time::NEVER).min(self.turn_ends())
            }
        }
    }

    /// When the present turn is over because others wait.
    fn turn_ends(&self) -> Time {
        let Stage::Assembling(assembly) = &self.stage else {
            return Time::NEVER;
        };
        let mut peers = self.peers.iter();
        let waits = |(&peer, source): (&PeerKey, &Source)| {
            source.rests_until == Time(0) && !assembly.is_of(peer, source)
        };
        match peers.any(waits) {
            true => assembly.until,
            false => Time::NEVER,
        }
    }

    /// Asks for what is missing, and gives up waiting for what took too long. To be called after
    /// inputs, at [`Self::next_timeout`], and, because nobody is told of room, from time to time.
    pub fn refill(&mut self, now: Time) {
        if matches!(self.stage, Stage::Checking { .. } | Stage::Done) {
            return;
        }
        self.give_up_late(now);
        self.choose_assembly(now);
        let Stage::Assembling(assembly) = &mut self.stage else {
            return;
        };
        let requests_max = self.config.requests_max;
        for (&peer, source) in &mut self.peers {
            if !assembly.may_ask(peer, source, now) {
                continue;
            }
            while source.asked.len() < requests_max
                && let Some(block) = assembly.wanted.pop_first()
            {
                source.asked.push(Asked {
                    block,
                    at: now,
                    late: false,
                });
                self.actions.push_back(Action::Request { peer, block });
            }
        }
    }

    fn give_up_late(&mut self, now: Time) {
        let timeout = self.config.answer_timeout;
        let is_late = |asked: &Asked| !asked.late && asked.at + timeout <= now;
        let late: Vec<PeerKey> = self
            .peers
            .iter()
            .filter(|(_, source)| source.asked.iter().any(is_late))
            .map(|(&peer, _)| peer)
            .collect();
        for peer in late {
            self.rest(peer, now);
            let asked = match self.peers.get_mut(&peer) {
                Some(source) => std::mem::take(&mut source.asked),
                None => continue,
            };
            self.give_back(asked.iter());
            if let Some(source) = self.peers.get_mut(&peer) {
                let late = asked.into_iter().map(|asked| Asked {
                    late: true,
                    ..asked
                });
                source.asked = late.collect();
            }
        }
        for source in self.peers.values_mut() {
            if source.rests_until > Time(0) && source.rests_until <= now {
                // Rested: what it never answered does not count any more.
                source.rests_until = Time(0);
                source.asked.retain(|asked| !asked.late);
            }
        }
    }

    /// Panics if the state contradicts itself. For tests: O(peers and blocks).
    pub fn check_invariants(&self) {
        for source in self.peers.values() {
            assert!(
                source.asked.len() <= self.config.requests_max,
                "requests of one peer"
            );
        }
        let Stage::Assembling(assembly) = &self.stage else {
            return;
        };
        for block in 0..metadata_blocks(assembly.total_bytes) {
            let asked = self.peers.values().flat_map(|source| &source.asked);
            let asked = asked
                .filter(|asked| asked.block == block && !asked.late)
                .count();
            let wanted = usize::from(assembly.wanted.contains(&block));
            match assembly.here.get(&block) {
                Some(here) => {
                    assert_eq!(wanted, 0, "block {block} is here");
                    let due = metadata_block_bytes(assembly.total_bytes, block);
                    assert_eq!(Some(here.bytes.len() as u32), due);
                }
                None => assert_eq!(
                    wanted + asked,
                    1,
                    "block {block} is looked for in one place"
                ),
            }
        }
    }
}

impl Assembly {
    /// Whether this peer may be asked for blocks of it.
    fn may_ask(&self, peer: PeerKey, source: &Source, now: Time) -> bool {
        source.rests_until <= now && self.is_of(peer, source)
    }

    /// Whether it is this peer's turn.
    fn is_of(&self, peer: PeerKey, source: &Source) -> bool {
        source.total_bytes == self.total_bytes && self.alone.is_none_or(|alone| alone == peer)
    }
}

#[cfg(test)]
mod tests;
