//! A session whose peer is super-seeded (BEP 16): it is told of pieces one after another, and what
//! it says that it has is passed on to [`crate::super_seed`], which decides of which.

use super::{Disconnect, PeerIdentity, PieceBits, Pieces, Session, SessionConfig, TorrentView};
use crate::queue::Batch;
use crate::time::Time;
use proto::ids::PieceIndex;
use proto::wire::Message;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Times that a peer says by one message what it has (BEP 3 bitfield, BEP 6 have-all and have-none)
/// though that is no more than it has said so before, faster than one in [`STATEMENT_PERIOD`].
/// One that says more is no flood: aria2 sends a bitfield in place of 20 haves, as fast as it gets
/// pieces.
pub(super) const STATEMENTS_MAX: u32 = 128;

/// What each of them takes to be forgotten.
const STATEMENT_PERIOD: Duration = Duration::from_secs(1);

/// Pieces of which a peer was sent a part, but not all, that are remembered. Of more it is not known
/// before it says that it has them.
const SENT_PIECES_MAX: usize = 64;

/// What a peer has said that it has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Heard {
    /// This piece; also one that it was sent.
    Has(PieceIndex),
    /// The pieces of a bitfield message (BEP 3).
    These(Vec<u8>),
    /// All pieces.
    All,
}

/// What is to be known of a peer that is super-seeded.
#[derive(Default)]
pub(super) struct SuperSeeded {
    /// What it has said since that was taken.
    heard: Vec<Heard>,
    /// It has said that it has everything, after which there is nothing to hear.
    has_all: bool,
    /// The most pieces that it has said to have by one message.
    stated: u32,
    /// When what it has said so in vain is forgotten.
    statements_until: Time,
    /// How much of each piece it was sent that it was not sent all of, in bytes: of
    /// [`SENT_PIECES_MAX`].
    pub(super) sent: HashMap<PieceIndex, u32>,
    /// When it is told of everything: of the pieces before this one it has been.
    rest_from: u32,
}

impl SuperSeeded {
    /// Notes that it was sent so many bytes of a piece; returns how many in all.
    fn sent_bytes(&mut self, piece: PieceIndex, bytes: u32) -> u32 {
        if self.sent.len() >= SENT_PIECES_MAX && !self.sent.contains_key(&piece) {
            let least = self
                .sent
                .iter()
                .min_by_key(|(piece, sent)| (**sent, **piece));
            if let Some(piece) = least.map(|(piece, _)| *piece) {
                self.sent.remove(&piece);
            }
        }
        let sent = self.sent.entry(piece).or_default();
        *sent = sent.saturating_add(bytes);
        *sent
    }
}

impl Session {
    /// The session of a peer that is super-seeded, whose handshakes are done: to it we have
    /// nothing. `torrent` is one that we have all of.
    pub fn super_seeding(
        config: Arc<SessionConfig>,
        torrent: Arc<TorrentView>,
        peer: PeerIdentity,
        now: Time,
    ) -> Session {
        assert!(torrent.pieces.is_all(), "who has everything super-seeds");
        let bits = PieceBits::new(torrent.piece_count, &[]);
        let mut session = Session::silent(config, torrent, peer, now);
        session.pieces = Pieces::Told(Arc::new(bits));
        session.super_seeded = Some(Box::default());
        session.queue_pieces();
        session.queue_extension_handshake();
        session
    }

    /// Notes what the peer says that it has, if anybody wants to know and it may be new.
    pub(super) fn hear(&mut self, heard: impl FnOnce() -> Heard) {
        if let (Some(seeded), Pieces::Told(_)) = (&mut self.super_seeded, &self.pieces)
            && !seeded.has_all
        {
            let heard = heard();
            seeded.has_all = heard == Heard::All;
            seeded.heard.push(heard);
        }
    }

    /// Counts what a super-seeded peer says at once of all that it has, so many pieces: everybody
    /// there waits while a bitfield is looked at, for which there must be a reason.
    pub(super) fn count_statement(&mut self, pieces: u32, now: Time) -> Result<(), Disconnect> {
        let Some(seeded) = &mut self.super_seeded else {
            return Ok(());
        };
        if pieces > seeded.stated {
            seeded.stated = pieces;
            return Ok(());
        }
        let until = seeded.statements_until.max(now) + STATEMENT_PERIOD;
        if until.since(now) > STATEMENT_PERIOD * STATEMENTS_MAX {
            let count_max = STATEMENTS_MAX;
            return Err(Disconnect::StatementFlood { count_max });
        }
        seeded.statements_until = until;
        Ok(())
    }

    /// Notes what the peer was sent: it has a piece that it was sent all of, though it may say so
    /// late. rTorrent says it with its next request, and it has nothing to ask for before it is
    /// told of the next piece.
    pub(super) fn note_sent(&mut self, batch: &Batch) {
        let Some(seeded) = &mut self.super_seeded else {
            return;
        };
        for block in batch.blocks() {
            let sent_bytes = seeded.sent_bytes(block.piece, block.length);
            if sent_bytes >= self.torrent.piece_length_of(block.piece) {
                seeded.sent.remove(&block.piece);
                seeded.heard.push(Heard::Has(block.piece));
            }
        }
    }

    /// What the peer has said that it has, since the last call, in its order.
    pub fn take_heard(&mut self) -> Vec<Heard> {
        let heard = self.super_seeded.as_mut().map(|one| &mut one.heard);
        heard.map_or_else(Vec::new, std::mem::take)
    }

    /// Tells a peer that is super-seeded of pieces.
    pub fn tell_pieces(&mut self, pieces: &[PieceIndex]) {
        let Pieces::Told(told) = &self.pieces else {
            return;
        };
        for piece in pieces.iter().filter(|piece| !told.has(**piece)) {
            told.set(*piece, true);
            Message::Have(*piece).encode(&mut self.control);
        }
    }

    /// Tells a peer that is super-seeded of everything, of so many pieces at once: to be called
    /// until there is nothing left to tell, which it says by false. From then on this is a seed's
    /// session.
    pub fn tell_rest(&mut self, haves_max: usize) -> bool {
        let (Pieces::Told(told), Some(seeded)) = (&self.pieces, &mut self.super_seeded) else {
            return false;
        };
        let rest = (seeded.rest_from..self.torrent.piece_count).map(PieceIndex);
        let untold = rest.filter(|piece| !told.has(*piece)).take(haves_max);
        let mut end = self.torrent.piece_count;
        let mut count = 0;
        for piece in untold {
            told.set(piece, true);
            Message::Have(piece).encode(&mut self.control);
            count += 1;
            if count == haves_max {
                end = piece.0 + 1;
            }
        }
        seeded.rest_from = end;
        if end == self.torrent.piece_count {
            self.super_seeded = None;
            self.complete();
        }
        true
    }
}
