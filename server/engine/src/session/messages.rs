//! What each message of the peer does to a [`Session`].

use proto::extension::{Extension, ExtensionHandshake, HANDSHAKE_ID, MessageIds, MetadataMessage};
use proto::extension::{dont_have, metadata_blocks};
use proto::ids::PieceIndex;
use proto::pex::PexMessage;
use proto::wire::{self, BlockRequest, Message};

use super::{Disconnect, Heard, Pieces, Session};
use crate::pex::TooOften;
use crate::queue::Batch;
use crate::time::Time;
use std::net::SocketAddr;

/// Requests outside the torrent or too long that are rejected before the peer is closed: a peer
/// that heeds rejects never comes near.
pub(super) const INVALID_REQUESTS_MAX: u32 = 500;

/// Requests for metadata that are rejected before the peer is closed.
pub(super) const METADATA_REFUSALS_MAX: u32 = 500;

impl Session {
    pub(super) fn queue_pieces(&mut self) {
        match &self.pieces {
            Pieces::All if self.fast => Message::HaveAll.encode(&mut self.control),
            Pieces::All => queue_full_bitfield(self.torrent.piece_count, &mut self.control),
            Pieces::Some(bits) => Message::Bitfield(bits).encode(&mut self.control),
            Pieces::Growing(bits) | Pieces::Told(bits) => match bits.set_count() {
                0 if self.fast => Message::HaveNone.encode(&mut self.control),
                // A bitfield may be left out where there is no piece (BEP 3).
                0 => {}
                _ => Message::Bitfield(&bits.to_bytes()).encode(&mut self.control),
            },
        }
    }

    pub(super) fn queue_extension_handshake(&mut self) {
        if !self.peer.reserved.extension_protocol() {
            return;
        }
        let mut taken = vec![Extension::UploadOnly];
        if self.torrent.metadata_bytes.is_some() {
            taken.push(Extension::Metadata);
        }
        if self.may_exchange_peers() {
            taken.push(Extension::PeerExchange);
        }
        // Whoever is super-seeded is not to know that we have everything: it might leave (BEP 21).
        let mut upload_only = self.pieces.is_all();
        if let Pieces::Growing(bits) = &self.pieces {
            taken.push(Extension::DontHave);
            upload_only = !bits.wants_more();
        }
        let messages = MessageIds::ours(&taken);
        let handshake = ExtensionHandshake {
            messages,
            client: Some(self.config.client_version.clone()),
            listen_port: self.config.listen_port,
            request_queue: Some(self.config.requests_max),
            your_ip: self.peer.ip,
            metadata_bytes: self.torrent.metadata_bytes,
            upload_only,
            ..ExtensionHandshake::default()
        };
        let mut payload = Vec::new();
        handshake.encode(&mut payload);
        let message = Message::Extended {
            id: HANDSHAKE_ID,
            payload: &payload,
        };
        message.encode(&mut self.control);
    }

    pub(super) fn handle_request(
        &mut self,
        block: BlockRequest,
        now: Time,
    ) -> Result<(), Disconnect> {
        self.counters.requests += 1;
        self.useful_at = now;
        let length_max = self.config.block_length_max;
        let piece_length = self.torrent.piece_length_of(block.piece);
        let end = block.begin.checked_add(block.length);
        if block.length == 0 || end.is_none_or(|end| end > piece_length) {
            return self.refuse_invalid(block, Disconnect::RequestOutside(block));
        }
        if block.length > length_max {
            let length = block.length;
            return self.refuse_invalid(block, Disconnect::RequestTooLong { length, length_max });
        }
        if self.choked && !self.is_allowed_fast(block) {
            return self.refuse_choked(block);
        }
        if !self.pieces.has(block.piece) {
            let piece = block.piece;
            return self.refuse_or(block, Disconnect::PieceLost { piece });
        }
        if self.queue.push(block) {
            self.counters.requests_accepted += 1;
            if self.choked {
                self.allowed_fast_bytes -= u64::from(block.length);
            }
        } else if self.fast {
            self.refuse(block);
        } else {
            self.counters.requests_ignored += 1;
        }
        Ok(())
    }

    /// Whether a block is sent although the peer is choked.
    fn is_allowed_fast(&self, block: BlockRequest) -> bool {
        let allowed = self.allowed_fast.as_deref().unwrap_or_default();
        allowed.contains(&block.piece) && u64::from(block.length) <= self.allowed_fast_bytes
    }

    /// Refuses what can never be served.
    fn refuse_invalid(&mut self, block: BlockRequest, cause: Disconnect) -> Result<(), Disconnect> {
        self.invalid_requests += 1;
        let count = self.invalid_requests;
        self.refuse_or(block, cause)?;
        if count > INVALID_REQUESTS_MAX {
            return Err(Disconnect::InvalidRequests { count });
        }
        Ok(())
    }

    /// Refuses a request that came while the peer is choked: rightly, if our choke was still on its
    /// way, but then no more than a whole queue of them.
    fn refuse_choked(&mut self, block: BlockRequest) -> Result<(), Disconnect> {
        self.choked_requests = self.choked_requests.saturating_add(1);
        if self.fast {
            self.refuse(block);
        } else {
            self.counters.requests_ignored += 1;
        }
        let count = self.choked_requests;
        if count
            > self
                .config
                .requests_max
                .saturating_mul(2)
                .max(INVALID_REQUESTS_MAX)
        {
            return Err(Disconnect::RequestsWhileChoked { count });
        }
        Ok(())
    }

    /// Rejects the request; closes with `cause` where there is no reject.
    fn refuse_or(&mut self, block: BlockRequest, cause: Disconnect) -> Result<(), Disconnect> {
        if !self.fast {
            self.counters.requests_ignored += 1;
            return Err(cause);
        }
        self.refuse(block);
        Ok(())
    }

    fn refuse(&mut self, block: BlockRequest) {
        self.counters.requests_refused += 1;
        Message::Reject(block).encode(&mut self.control);
    }

    pub(super) fn handle_cancel(&mut self, block: BlockRequest) {
        self.counters.cancels += 1;
        // Not found: it is on its way, or was answered. Either way there is nothing to say (BEP 6).
        if self.queue.cancel(block) {
            self.give_up(block);
        }
    }

    /// Ends an accepted request that gets no block.
    pub(super) fn give_up(&mut self, block: BlockRequest) {
        if self.fast {
            self.counters.requests_rejected += 1;
            Message::Reject(block).encode(&mut self.control);
        } else {
            self.counters.requests_dropped += 1;
        }
    }

    pub(super) fn give_up_queue(&mut self) {
        if self.fast {
            self.control
                .reserve(self.queue.len() as usize * wire::REQUEST_FRAME_BYTES);
        }
        while let Some(block) = self.queue.pop() {
            self.give_up(block);
        }
    }

    pub(super) fn take_off_flight(&mut self, batch: &Batch) {
        let count = u64::from(batch.count);
        assert!(count <= self.in_flight_blocks, "a batch is given back once");
        self.in_flight_blocks -= count;
    }

    pub(super) fn set_not_interested(&mut self, now: Time) {
        if self.interested {
            self.useful_at = now;
        }
        self.interested = false;
    }

    pub(super) fn handle_have(&mut self, piece: PieceIndex, now: Time) -> Result<(), Disconnect> {
        let piece_count = self.torrent.piece_count;
        if piece.0 >= piece_count {
            return Err(Disconnect::HaveOutside { piece, piece_count });
        }
        self.hear(|| Heard::Has(piece));
        if self.peer_pieces < piece_count {
            self.peer_pieces += 1;
            self.useful_at = now;
        }
        Ok(())
    }

    /// A block: whether it was asked for is the download's to say.
    pub(super) fn handle_piece(&mut self, piece: PieceIndex, now: Time) -> Result<(), Disconnect> {
        if !self.fetching {
            return Err(Disconnect::UnrequestedPiece { piece });
        }
        self.useful_at = now;
        Ok(())
    }

    pub(super) fn handle_bitfield(&mut self, bits: &[u8], now: Time) -> Result<(), Disconnect> {
        let piece_count = self.torrent.piece_count;
        wire::check_bitfield(bits, piece_count)?;
        let pieces = bits.iter().map(|byte| byte.count_ones()).sum();
        self.count_statement(pieces, now)?;
        self.hear(|| match pieces == piece_count {
            true => Heard::All,
            false => Heard::These(bits.to_vec()),
        });
        self.set_peer_pieces(pieces, now);
        Ok(())
    }

    /// Also for a second time and later: BEP 3 knows one bitfield, but aria2 sends a new one in
    /// place of many haves, and a seed that closed on it would leave that client without its only
    /// peer.
    pub(super) fn set_peer_pieces(&mut self, pieces: u32, now: Time) {
        if pieces != self.peer_pieces {
            self.useful_at = now;
        }
        self.peer_pieces = pieces;
        self.peer_complete = pieces == self.torrent.piece_count;
        if !self.peer_complete {
            self.tell_untold();
        }
    }

    /// Tells a peer that is no seed any more of the piece that it was not told of: it may want from
    /// us what it had when we got it.
    fn tell_untold(&mut self) {
        if let Some(piece) = self.untold.take() {
            Message::Have(piece).encode(&mut self.control);
        }
    }

    pub(super) fn require_fast(&self, message: &Message<'_>) -> Result<(), Disconnect> {
        if self.fast {
            return Ok(());
        }
        let message = message.id().map_or("keep-alive", wire::id::name);
        Err(Disconnect::FastNotAgreed { message })
    }

    pub(super) fn handle_extended(
        &mut self,
        id: u8,
        payload: &[u8],
        now: Time,
    ) -> Result<(), Disconnect> {
        if id == HANDSHAKE_ID {
            let handshake = ExtensionHandshake::parse(payload)?;
            self.peer_extensions.update(&handshake.messages);
            self.set_upload_only(handshake.upload_only, now);
            if handshake.client.is_some() {
                self.peer_client = handshake.client;
            }
            self.peer_request_queue = handshake.request_queue.or(self.peer_request_queue);
            self.peer_listen_port = handshake.listen_port.or(self.peer_listen_port);
            self.our_ip = handshake.your_ip.or(self.our_ip);
            return Ok(());
        }
        match Extension::from_our_id(id) {
            Some(Extension::Metadata) => {
                if let MetadataMessage::Request { piece } = MetadataMessage::parse(payload)? {
                    return self.handle_metadata_request(piece, now);
                }
            }
            Some(Extension::UploadOnly) => {
                let upload_only = payload.first().is_some_and(|&byte| byte != 0);
                self.set_upload_only(upload_only, now);
            }
            Some(Extension::PeerExchange) if self.may_exchange_peers() => {
                return self.handle_exchange(payload, now);
            }
            Some(Extension::DontHave) if dont_have(payload).is_some() => {
                self.peer_pieces = self.peer_pieces.saturating_sub(1);
                self.peer_complete = false;
                self.tell_untold();
            }
            // We did not offer them; a peer that sends them all the same is ignored.
            _ => {}
        }
        Ok(())
    }

    /// The peer tells of others.
    fn handle_exchange(&mut self, payload: &[u8], now: Time) -> Result<(), Disconnect> {
        let listener = self.listener.get_or_insert_default();
        let is_heeded = listener
            .heed(now)
            .map_err(|TooOften { count }| Disconnect::ExchangeFlood { count })?;
        if !is_heeded {
            self.counters.exchanges_ignored += 1;
            return Ok(());
        }
        let message = PexMessage::parse(payload)?;
        self.counters.exchanges_received += 1;
        let Some(source) = self.peer.ip else {
            return Ok(());
        };
        let port = self.config.listen_port;
        let own = self.own_ip.zip(port);
        let own = own.map(|(ip, port)| SocketAddr::new(ip.to_canonical(), port.get()));
        // What nobody has taken is replaced, so there is no more of it than one message has.
        self.named = listener.accept(&message, source, own, now);
        Ok(())
    }

    fn set_upload_only(&mut self, upload_only: bool, now: Time) {
        if upload_only != self.peer_upload_only {
            self.peer_upload_only = upload_only;
            self.useful_at = now;
        }
    }

    fn handle_metadata_request(&mut self, piece: u32, now: Time) -> Result<(), Disconnect> {
        let blocks = metadata_blocks(self.torrent.metadata_bytes.unwrap_or(0));
        // A small torrent's peer may ask again a few times.
        let accepted_max = blocks
            .saturating_mul(self.config.metadata_copies_max)
            .max(8);
        let serve = piece < blocks
            && self.metadata_accepted < accepted_max
            && self.metadata_queue.len() < self.config.metadata_requests_max;
        if serve {
            self.metadata_accepted += 1;
            self.metadata_queue.push_back(piece);
            self.useful_at = now;
            return Ok(());
        }
        self.metadata_refused += 1;
        self.counters.metadata_refused += 1;
        let count = self.metadata_refused;
        if count > METADATA_REFUSALS_MAX {
            return Err(Disconnect::MetadataFlood { count });
        }
        self.queue_metadata(&MetadataMessage::Reject { piece });
        Ok(())
    }

    /// Queues a message under the id that the peer gave; one without an id cannot be answered.
    pub(super) fn queue_metadata(&mut self, message: &MetadataMessage<'_>) {
        let Some(id) = self.peer_extensions.get(Extension::Metadata) else {
            return;
        };
        let mut payload = Vec::new();
        message.encode(&mut payload);
        Message::Extended {
            id: id.get(),
            payload: &payload,
        }
        .encode(&mut self.control);
    }

    /// Whether neither side has anything for the other, as far as the peer has told.
    pub(super) fn is_redundant(&self) -> bool {
        let idle = self.queue.is_empty()
            && self.in_flight_blocks == 0
            && self.metadata_queue.is_empty()
            && self.metadata_in_flight == 0;
        // Haves may be said twice, so they prove nothing while the peer still wants something.
        let done = self.peer_pieces == self.torrent.piece_count || self.peer_upload_only;
        idle && self.pieces.is_seed() && (self.peer_complete || (done && !self.interested))
    }
}

/// Queues the bitfield of one who has every piece. Where there is no piece, there is nothing to
/// say.
fn queue_full_bitfield(piece_count: u32, out: &mut Vec<u8>) {
    if piece_count == 0 {
        return;
    }
    let mut bits = vec![0xff; piece_count.div_ceil(8) as usize];
    if let Some(last) = bits.last_mut()
        && !piece_count.is_multiple_of(8)
    {
        *last = 0xff << (8 - piece_count % 8);
    }
    Message::Bitfield(&bits).encode(out);
}
