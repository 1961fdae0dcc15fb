//! Whose turn it is: a part of [`super::MetadataExchange`].
//!
//! A turn begins when there is room for its length ([`super::room`]). While there is none, another
//! length that fits has a turn, and the one that waits has the next as soon as there is.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use proto::extension::metadata_blocks;

use super::{Aside, Assembly, Block, MetadataExchange, Source, Stage};
use crate::choker::PeerKey;
use crate::time::Time;

/// How often a turn doubles, at most.
const TURN_DOUBLINGS_MAX: u32 = 3;

/// Sets of blocks that are put aside; of more, that with the most bytes is dropped, since what is
/// long is seldom right.
pub(super) const ASIDE_MAX: usize = 32;

/// Their bytes, with the same policy.
pub(super) const ASIDE_BYTES_MAX: usize = 8 << 20;

/// A length, and who alone is asked.
type Turn = (u32, Option<PeerKey>);

impl MetadataExchange {
    /// Goes on with the blocks at hand while somebody can be asked for the rest and its turn is not
    /// over; else goes on with other peers, if some can be asked and there is room.
    pub(super) fn choose_assembly(&mut self, now: Time) {
        if self.share.is_to_make_room(now) && matches!(self.stage, Stage::Assembling(_)) {
            self.put_aside();
            self.share.make_room();
        }
        if let Some(turn) = self.awaited_turn(now) {
            if self.share.take(turn.0, now) {
                self.begin_turn(turn, now);
            }
            return;
        }
        if let Stage::Assembling(assembly) = &self.stage {
            let mut peers = self.peers.iter();
            let goes_on = peers.any(|(&peer, source)| assembly.may_ask(peer, source, now));
            if goes_on && now < assembly.until {
                return;
            }
        }
        // Who is in line stays there, whatever else is done meanwhile.
        if self.share.awaited().is_none()
            && let Some(turn) = self.next_turn(now, |_| true)
            && self.share.take(turn.0, now)
        {
            return self.begin_turn(turn, now);
        }
        let fits = |total_bytes| self.share.fits(total_bytes);
        if let Some(turn) = self.next_turn(now, fits)
            && self.share.take(turn.0, now)
        {
            self.begin_turn(turn, now);
        }
    }

    /// The turn of the length that waits for room, if there is room now. It waits no more when
    /// nobody says it, or nobody who does can be asked when there is.
    fn awaited_turn(&mut self, now: Time) -> Option<Turn> {
        let awaited = self.share.awaited()?;
        let mut peers = self.peers.values();
        if !peers.any(|source| source.total_bytes == awaited) {
            self.share.leave_line();
            return None;
        }
        if !self.share.fits(awaited) {
            return None;
        }
        let turn = self.next_turn(now, |total_bytes| total_bytes == awaited);
        if turn.is_none() {
            self.share.leave_line();
        }
        turn
    }

    /// Begins a turn, for which there is room.
    fn begin_turn(&mut self, (total_bytes, alone): Turn, now: Time) {
        self.put_aside();
        let turns = self.note_turn(total_bytes, alone);
        for source in self.peers.values_mut() {
            source.asked.clear();
        }
        let turn = self.config.turn;
        let aside = self.aside.remove(&(total_bytes, alone));
        let here = aside.map(|aside| aside.here).unwrap_or_default();
        let blocks = 0..metadata_blocks(total_bytes);
        self.stage = Stage::Assembling(Assembly {
            total_bytes,
            alone,
            wanted: blocks.filter(|block| !here.contains_key(block)).collect(),
            here,
            until: now + turn.saturating_mul(1 << turns.min(TURN_DOUBLINGS_MAX)),
        });
    }
    /// Whose turn is next, of those whose length `may` be: a length, and who alone is asked. Not
    /// those whose turn it is: they go on unless others can be asked.
    fn next_turn(&self, now: Time, may: impl Fn(u32) -> bool) -> Option<Turn> {
        // The voice of each stranger is that of its connections that has waited the longest.
        let mut voices = BTreeMap::<IpAddr, (PeerKey, &Source)>::new();
        for (&peer, source) in &self.peers {
            let is_its_turn = match &self.stage {
                Stage::Assembling(assembly) => assembly.is_of(peer, source),
                _ => false,
            };
            if is_its_turn || source.rests_until > now || !may(source.total_bytes) {
                continue;
            }
            let voice = voices.entry(source.stranger).or_insert((peer, source));
            if source.number < voice.1.number {
                *voice = (peer, source);
            }
        }
        let voices = voices.into_values();
        let waited = |voice: &(PeerKey, &Source)| voice.1.number;
        let by_waiting = !self.turns.is_multiple_of(2);
        if self.one_by_one {
            let (peer, source) = match by_waiting {
                true => voices.min_by_key(waited),
                // Those who have failed the least first.
                false => voices.min_by_key(|voice| (voice.1.failures, waited(voice))),
            }?;
            return Some((source.total_bytes, Some(peer)));
        }
        if by_waiting {
            let (_, source) = voices.min_by_key(waited)?;
            return Some((source.total_bytes, None));
        }
        let mut counts = BTreeMap::new();
        for (_, source) in voices {
            *counts.entry(source.total_bytes).or_insert(0_usize) += 1;
        }
        // Of as many the smaller: it is soon known to be right or not.
        let most = counts.into_iter();
        let most = most.max_by_key(|&(total_bytes, count)| (count, Reverse(total_bytes)));
        most.map(|(total_bytes, _)| (total_bytes, None))
    }

    /// Sends all connections of the strangers whose turn it is to the end of the line, the ones
    /// that have the turn last; returns how many turns these had before.
    fn note_turn(&mut self, total_bytes: u32, alone: Option<PeerKey>) -> u32 {
        self.turns += 1;
        let has_turn = |peer: PeerKey, source: &Source| {
            source.total_bytes == total_bytes && alone.is_none_or(|alone| alone == peer)
        };
        let having = self.peers.iter();
        let having = having.filter(|&(&peer, source)| has_turn(peer, source));
        let strangers: BTreeSet<IpAddr> = having.map(|(_, source)| source.stranger).collect();
        let theirs = self.peers.iter();
        let theirs = theirs.filter(|(_, source)| strangers.contains(&source.stranger));
        let mut line: Vec<(bool, u64, PeerKey)> = theirs
            .map(|(&peer, source)| (has_turn(peer, source), source.number, peer))
            .collect();
        line.sort_unstable();
        let mut turns = 0;
        for (has_turn, _, peer) in line {
            let Some(source) = self.peers.get_mut(&peer) else {
                continue;
            };
            source.number = self.next_number;
            self.next_number += 1;
            if has_turn {
                turns = turns.max(source.turns);
                source.turns = source.turns.saturating_add(1);
            }
        }
        turns
    }

    /// Keeps the blocks at hand for the next turn of their length, as far as there is room.
    pub(super) fn put_aside(&mut self) {
        let stage = std::mem::replace(&mut self.stage, Stage::Idle);
        let Stage::Assembling(assembly) = stage else {
            return;
        };
        let is_of_use = |alone| self.peers.contains_key(&alone);
        if assembly.here.is_empty() || !assembly.alone.is_none_or(is_of_use) {
            return;
        }
        let bytes = |here: &BTreeMap<u32, Block>| {
            here.values().map(|block| block.bytes.len()).sum::<usize>()
        };
        let here = assembly.here;
        let Some(place) = self.share.put_aside(bytes(&here)) else {
            return;
        };
        let key = (assembly.total_bytes, assembly.alone);
        let aside = Aside {
            here,
            _place: place,
        };
        self.aside.insert(key, aside);
        let bytes = |aside: &Aside| bytes(&aside.here);
        while self.aside.len() > ASIDE_MAX
            || self.aside.values().map(bytes).sum::<usize>() > ASIDE_BYTES_MAX
        {
            let most = self.aside.iter().max_by_key(|(_, aside)| bytes(aside));
            let Some(key) = most.map(|(&key, _)| key) else {
                return;
            };
            self.aside.remove(&key);
        }
    }
}
