//! Peers come, tell what they have, and go; how interesting they are follows.

use proto::ids::PieceIndex;

use super::bits::Bits;
use super::peers::{Has, Peer, PeerPlace};
use super::{PeerPieces, Picker, Sharing};
use crate::choker::PeerKey;

impl Picker {
    /// A peer with a new key has come. O(1) if it has all or nothing, else O(pieces): see
    /// [`Work`](super::Work).
    pub fn peer_joined(&mut self, key: PeerKey, pieces: PeerPieces<'_>) {
        let count = self.pieces.count();
        let bits = match pieces {
            PeerPieces::Bitfield(bits) => Bits::from_wire(bits, count),
            PeerPieces::None | PeerPieces::All => Bits::default(),
        };
        let has = bits.count();
        let mut peer = Peer {
            key,
            has: Has::All,
            lost_some: false,
            interesting: 0,
            rate_bytes_per_s: 0,
            fast: self.is_fast(0),
            late: true,
            assigned: Vec::new(),
            barren_at: None,
        };
        if pieces != PeerPieces::All && has < count {
            self.pieces.raise_all(&bits);
            let open = self.open.iter().map(|(_, open)| open.piece);
            peer.interesting = self.pieces.count_wanted(&bits, open);
            let bits = if has == 0 { Bits::default() } else { bits };
            peer.has = Has::Some { bits, count: has };
        }
        self.peers.add(peer);
    }

    /// A peer has gone: its requests are given back, and its pieces are rarer. Costs what its
    /// coming cost, and O(open pieces).
    pub fn peer_left(&mut self, key: PeerKey) {
        self.requests_dropped(key);
        let Some(place) = self.peers.find(key) else {
            return;
        };
        self.open.disown(place);
        if let Some(peer) = self.peers.remove(place)
            && let Has::Some { bits, .. } = &peer.has
            && bits.has_room()
        {
            self.pieces.lower_all(bits);
        }
    }

    /// The peer has got a piece (BEP 3). Tells whether that is news. O(1), but for the sweep when
    /// the last one that it lacked has come.
    pub fn have(&mut self, key: PeerKey, piece: PieceIndex) -> bool {
        let Some(place) = self.peers.find(key) else {
            return false;
        };
        let pieces = self.pieces.count();
        let wanted = self.pieces.contains(piece) && self.pieces.is_wanted(piece);
        let peer = self.peers.get_mut(place);
        let Has::Some { bits, count } = &mut peer.has else {
            return false;
        };
        if piece.0 >= pieces || bits.contains(piece) {
            return false;
        }
        if !bits.has_room() {
            *bits = Bits::with_room_for(pieces);
        }
        bits.insert(piece);
        *count += 1;
        let complete = *count == pieces && !peer.lost_some;
        peer.interesting += u32::from(wanted);
        peer.barren_at = None;
        self.pieces.raise(piece);
        if complete {
            self.pieces.shift_down();
            self.peers.set_has(place, Has::All);
        }
        true
    }

    /// The peer has lost a piece (BEP 54). Tells whether that is news. Requests for it stay until
    /// they are answered or given back. O(1), but for one sweep if the peer had all.
    pub fn peer_lost(&mut self, key: PeerKey, piece: PieceIndex) -> bool {
        let Some(place) = self.peers.find(key) else {
            return false;
        };
        if !self.pieces.contains(piece) || !self.peers.get(place).has(piece) {
            return false;
        }
        if matches!(self.peers.get(place).has, Has::All) {
            let count = self.pieces.count();
            let bits = Bits::full(count);
            self.peers.set_has(place, Has::Some { bits, count });
            self.pieces.shift_up();
            let peer = self.peers.get_mut(place);
            peer.interesting = self.pieces.wanted();
            peer.lost_some = true;
        }
        let peer = self.peers.get_mut(place);
        if let Has::Some { bits, count } = &mut peer.has {
            bits.remove(piece);
            *count -= 1;
        }
        peer.interesting -= u32::from(self.pieces.is_wanted(piece));
        self.pieces.lower(piece);
        true
    }

    /// How fast the peer sends, in bytes per second as the caller estimates it: it decides whether
    /// the peer gets pieces of its own ([`Sharing`]). 0 for a peer that has stopped sending frees
    /// its pieces for others.
    pub fn set_rate(&mut self, key: PeerKey, bytes_per_s: u64) {
        if let Some(place) = self.peers.find(key) {
            let fast = self.is_fast(bytes_per_s);
            let peer = self.peers.get_mut(place);
            peer.rate_bytes_per_s = bytes_per_s;
            peer.fast = fast;
        }
    }

    /// Whether what the peer was asked for takes so long that others may be asked for it in the
    /// end-game; so it is until this is said. Twice the payload of whoever answers at once is only
    /// waste.
    pub fn set_late(&mut self, key: PeerKey, late: bool) {
        if let Some(place) = self.peers.find(key) {
            self.peers.get_mut(place).late = late;
        }
    }

    /// Changes how peers share pieces, from the next block on.
    pub fn set_sharing(&mut self, sharing: Sharing) {
        self.config.sharing = sharing;
        let piece_length = self.piece_length;
        for peer in self.peers.iter_mut() {
            peer.fast = is_fast(sharing, piece_length, peer.rate_bytes_per_s);
        }
    }

    /// How many pieces the peer has that are wanted and not verified. O(1).
    pub fn interesting_pieces(&self, key: PeerKey) -> u32 {
        self.peers
            .find(key)
            .map_or(0, |place| self.interesting_at(place))
    }

    /// Whether the peer has anything that we want. O(1).
    pub fn is_interesting(&self, key: PeerKey) -> bool {
        self.interesting_pieces(key) > 0
    }

    pub(super) fn interesting_at(&self, place: PeerPlace) -> u32 {
        let peer = self.peers.get(place);
        match peer.has {
            Has::All => self.pieces.wanted(),
            Has::Some { .. } => peer.interesting,
        }
    }

    fn is_fast(&self, bytes_per_s: u64) -> bool {
        is_fast(self.config.sharing, self.piece_length, bytes_per_s)
    }

    /// Panics if what is kept of the peers contradicts the pieces and the blocks.
    pub(super) fn check_peers(&self) {
        let mut availability = vec![0_u16; self.pieces.count() as usize];
        let mut seeds = 0;
        let mut peers_of = vec![0_u32; self.open.place_count() as usize];
        let mut requests = 0;
        for peer in self.peers.iter() {
            let place = self.peers.find(peer.key).expect("its key leads to it");
            assert_eq!(self.peers.get(place).key, peer.key);
            assert_eq!(peer.fast, self.is_fast(peer.rate_bytes_per_s));
            match &peer.has {
                Has::All => seeds += 1,
                Has::Some { bits, count } => {
                    assert_eq!(bits.count(), *count);
                    let wanted = bits.iter().filter(|&piece| self.pieces.is_wanted(piece));
                    assert_eq!(wanted.count(), peer.interesting as usize);
                    bits.iter()
                        .for_each(|piece| availability[piece.0 as usize] += 1);
                }
            }
            for assigned in &peer.assigned {
                peers_of[assigned.place.0 as usize] += 1;
                let blocks = self.open.get(assigned.place).blocks().iter();
                let requested = blocks.filter(|block| block.is_requested_from(place));
                assert_eq!(requested.count(), assigned.requests as usize);
                assert!(assigned.requests > 0);
                requests += assigned.requests;
            }
        }
        assert_eq!(seeds, self.peers.seeds());
        for piece in (0..self.pieces.count()).map(PieceIndex) {
            let expected = availability[piece.0 as usize];
            assert_eq!(self.pieces.availability(piece), expected, "piece {piece}");
        }
        let mut open_requests = 0;
        for (place, open) in self.open.iter() {
            assert_eq!(open.peers, peers_of[place.0 as usize]);
            open_requests += open.requests();
            if let Some(owner) = open.owner {
                assert_eq!(self.peers.find(self.peers.get(owner).key), Some(owner));
            }
        }
        assert_eq!(requests, open_requests);
    }
}

/// Whether a peer of this rate gets pieces of its own.
fn is_fast(sharing: Sharing, piece_length: u32, bytes_per_s: u64) -> bool {
    match sharing {
        Sharing::BySpeed { whole_piece_s } => {
            bytes_per_s.saturating_mul(u64::from(whole_piece_s)) >= u64::from(piece_length)
        }
        Sharing::WholePieces { .. } => true,
    }
}
