//! What is known of every peer: its pieces, how many of them we want, how fast it is, and in which
//! open pieces it has requests.
//!
//! Memory for each peer: a bit for each piece if it has some but not all, else nothing; 8 bytes for
//! each open piece that it has requests in; about 100 bytes besides.

use std::collections::HashMap;

use proto::ids::PieceIndex;

use super::bits::Bits;
use super::open::OpenPlace;
use crate::choker::PeerKey;

/// Peers of one torrent, at most: what a place can number.
pub const PEERS_MAX: usize = u16::MAX as usize;

/// Where a peer is. It names the same peer until that leaves, and may name another one then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct PeerPlace(u16);

impl PeerPlace {
    /// No peer.
    pub const NONE: PeerPlace = PeerPlace(u16::MAX);

    fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// The pieces that a peer has.
#[derive(Clone, Debug)]
pub(super) enum Has {
    /// All: it is counted in one number with the others of its kind.
    All,
    /// These, `count` of them; no words as long as it has none.
    Some { bits: Bits, count: u32 },
}

/// Requests under way to a peer in one open piece.
#[derive(Clone, Copy, Debug)]
pub(super) struct Assigned {
    pub place: OpenPlace,
    pub requests: u32,
}

/// One peer.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub key: PeerKey,
    pub has: Has,
    /// It had all once and told that it lost some: it is never counted as having all again, because
    /// each such turn costs a sweep over all pieces.
    pub lost_some: bool,
    /// How many pieces it has that we want; not kept for those that have all.
    pub interesting: u32,
    /// How fast it sends.
    pub rate_bytes_per_s: u64,
    /// Fast enough for pieces of its own.
    pub fast: bool,
    /// What it was asked for may be asked of others in the end-game.
    pub late: bool,
    /// Where it has requests, oldest first.
    pub assigned: Vec<Assigned>,
    /// A search for a new piece found nothing when [`super::pieces::Pieces::entries`] was this, and
    /// the peer has got no piece since.
    pub barren_at: Option<u64>,
}

impl Peer {
    pub fn has(&self, piece: PieceIndex) -> bool {
        match &self.has {
            Has::All => true,
            Has::Some { bits, .. } => bits.contains(piece),
        }
    }

    /// Its pieces; `None` if these are all.
    pub fn bits(&self) -> Option<&Bits> {
        match &self.has {
            Has::All => None,
            Has::Some { bits, .. } => Some(bits),
        }
    }
}

/// All peers: see the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Peers {
    places: Vec<Option<Peer>>,
    vacant: Vec<PeerPlace>,
    /// Never iterated over: its order is chance.
    by_key: HashMap<PeerKey, PeerPlace>,
    /// How many have all pieces.
    seeds: u32,
}

impl Peers {
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    pub fn seeds(&self) -> u32 {
        self.seeds
    }

    pub fn find(&self, key: PeerKey) -> Option<PeerPlace> {
        self.by_key.get(&key).copied()
    }

    pub fn get(&self, place: PeerPlace) -> &Peer {
        self.places[place.index()]
            .as_ref()
            .expect("the place of a peer")
    }

    pub fn get_mut(&mut self, place: PeerPlace) -> &mut Peer {
        self.places[place.index()]
            .as_mut()
            .expect("the place of a peer")
    }

    pub fn iter(&self) -> impl Iterator<Item = &Peer> {
        self.places.iter().flatten()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Peer> {
        self.places.iter_mut().flatten()
    }

    /// Takes a peer in whose key is new.
    pub fn add(&mut self, peer: Peer) {
        assert!(self.len() < PEERS_MAX, "connections are limited below this");
        self.seeds += u32::from(matches!(peer.has, Has::All));
        let place = self.vacant.pop().unwrap_or_else(|| {
            self.places.push(None);
            // Below the limit, so it is not `NONE` either.
            PeerPlace((self.places.len() - 1) as u16)
        });
        let known = self.by_key.insert(peer.key, place);
        assert!(known.is_none(), "a peer joins once");
        self.places[place.index()] = Some(peer);
    }

    pub fn remove(&mut self, place: PeerPlace) -> Option<Peer> {
        let peer = self.places[place.index()].take()?;
        self.seeds -= u32::from(matches!(peer.has, Has::All));
        self.by_key.remove(&peer.key);
        self.vacant.push(place);
        Some(peer)
    }

    /// Changes what a peer has; the pieces' availability is the caller's.
    pub fn set_has(&mut self, place: PeerPlace, has: Has) {
        let before = matches!(self.get(place).has, Has::All);
        let after = matches!(has, Has::All);
        self.seeds = self.seeds - u32::from(before) + u32::from(after);
        self.get_mut(place).has = has;
    }

    /// A piece is wanted, or not any longer: the peers that have it are more or less interesting.
    pub fn change_interest(&mut self, piece: PieceIndex, wanted: bool) {
        for peer in self.iter_mut() {
            if let Has::Some { bits, .. } = &peer.has
                && bits.contains(piece)
            {
                peer.interesting = if wanted {
                    peer.interesting + 1
                } else {
                    peer.interesting - 1
                };
            }
        }
    }

    /// A block of the open piece at `open` is requested from the peer. Tells whether it is its
    /// first there.
    pub fn assign(&mut self, place: PeerPlace, open: OpenPlace) -> bool {
        let assigned = &mut self.get_mut(place).assigned;
        // Mostly it is the piece that it was last given blocks of.
        match assigned.iter_mut().rev().find(|one| one.place == open) {
            Some(one) => {
                one.requests += 1;
                false
            }
            None => {
                assigned.push(Assigned {
                    place: open,
                    requests: 1,
                });
                true
            }
        }
    }

    /// One of its requests there has ended. Tells whether it was its last one there.
    pub fn unassign(&mut self, place: PeerPlace, open: OpenPlace) -> bool {
        let assigned = &mut self.get_mut(place).assigned;
        // Mostly it is the piece that it has worked on longest.
        let found = assigned.iter().position(|one| one.place == open);
        let found = found.expect("a request is assigned");
        assigned[found].requests -= 1;
        let last = assigned[found].requests == 0;
        if last {
            assigned.remove(found);
        }
        last
    }
}
