//! The messages of the peer wire protocol: one length-prefixed frame in, one [`Message`] out, and
//! back.
//!
//! Covers BEP 3 (choke … cancel), BEP 5 (port), BEP 6 (fast extension) and the envelope of BEP 10
//! (extended); what is inside an extended message is [`crate::extension`]'s. A message borrows its
//! bytes from the input: decoding allocates nothing and copies no payload.
//!
//! Limits: [`FrameLimits`], applied to the length prefix as soon as it and the message's id are
//! there, so nobody waits for (or makes room for) the body of a message that will be refused. A
//! frame is decoded only when it is whole, so a receive buffer of [`FrameLimits::frame_bytes_max`]
//! always makes progress.
//!
//! Not here: whether a piece index or a block lies inside the torrent, and whether a message is
//! allowed in the state of the connection. Both need the torrent, and are the engine's.

use crate::ids::PieceIndex;
use crate::limits;

/// Bytes of a frame before its body: the length prefix.
pub const LENGTH_PREFIX_BYTES: usize = 4;

/// Bytes of a piece message before its block: length prefix, id, piece, begin.
pub const PIECE_HEADER_BYTES: usize = 13;

/// Bytes of a whole request (or cancel, or reject) message.
pub const REQUEST_FRAME_BYTES: usize = 17;

/// The ids of the messages, as on the wire.
pub mod id {
    /// BEP 3.
    pub const CHOKE: u8 = 0;
    /// BEP 3.
    pub const UNCHOKE: u8 = 1;
    /// BEP 3.
    pub const INTERESTED: u8 = 2;
    /// BEP 3.
    pub const NOT_INTERESTED: u8 = 3;
    /// BEP 3.
    pub const HAVE: u8 = 4;
    /// BEP 3.
    pub const BITFIELD: u8 = 5;
    /// BEP 3.
    pub const REQUEST: u8 = 6;
    /// BEP 3.
    pub const PIECE: u8 = 7;
    /// BEP 3.
    pub const CANCEL: u8 = 8;
    /// BEP 5: the UDP port of the peer's DHT node.
    pub const PORT: u8 = 9;
    /// BEP 6.
    pub const SUGGEST: u8 = 13;
    /// BEP 6.
    pub const HAVE_ALL: u8 = 14;
    /// BEP 6.
    pub const HAVE_NONE: u8 = 15;
    /// BEP 6.
    pub const REJECT: u8 = 16;
    /// BEP 6.
    pub const ALLOWED_FAST: u8 = 17;
    /// BEP 10.
    pub const EXTENDED: u8 = 20;

    /// What to call a message of this id in an error, a log line or a metric's label.
    pub const fn name(id: u8) -> &'static str {
        match id {
            CHOKE => "choke",
            UNCHOKE => "unchoke",
            INTERESTED => "interested",
            NOT_INTERESTED => "not interested",
            HAVE => "have",
            BITFIELD => "bitfield",
            REQUEST => "request",
            PIECE => "piece",
            CANCEL => "cancel",
            PORT => "port",
            SUGGEST => "suggest",
            HAVE_ALL => "have all",
            HAVE_NONE => "have none",
            REJECT => "reject",
            ALLOWED_FAST => "allowed fast",
            EXTENDED => "extended",
            _ => "unknown",
        }
    }
}

/// A block as a request, cancel or reject names it. Whether it lies in the torrent is the engine's
/// check.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct BlockRequest {
    /// The piece that the block is in.
    pub piece: PieceIndex,
    /// Where the block starts in its piece, in bytes.
    pub begin: u32,
    /// The length of the block, in bytes.
    pub length: u32,
}

/// One message of the peer wire protocol. Payloads are borrowed from the receive buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Message<'a> {
    /// A frame of length 0: the peer is still there.
    KeepAlive,
    /// The sender will not serve requests (BEP 3).
    Choke,
    /// The sender will serve requests (BEP 3).
    Unchoke,
    /// The sender wants pieces that the receiver has (BEP 3).
    Interested,
    /// The sender wants nothing from the receiver (BEP 3).
    NotInterested,
    /// The sender now has this piece (BEP 3).
    Have(PieceIndex),
    /// The pieces that the sender has, first piece in the high bit of the first byte (BEP 3). Its
    /// length against the torrent's is checked by [`check_bitfield`].
    Bitfield(&'a [u8]),
    /// Asks for a block (BEP 3).
    Request(BlockRequest),
    /// Brings a block (BEP 3).
    Piece {
        /// The piece that the block is in.
        piece: PieceIndex,
        /// Where the block starts in its piece, in bytes.
        begin: u32,
        /// The block.
        block: &'a [u8],
    },
    /// Takes a request back (BEP 3).
    Cancel(BlockRequest),
    /// The UDP port of the sender's DHT node (BEP 5).
    Port(u16),
    /// The sender suggests to fetch this piece from it (BEP 6).
    Suggest(PieceIndex),
    /// The sender has every piece (BEP 6).
    HaveAll,
    /// The sender has no piece (BEP 6).
    HaveNone,
    /// The sender will not serve this request (BEP 6).
    Reject(BlockRequest),
    /// The sender serves this piece even while it chokes (BEP 6).
    AllowedFast(PieceIndex),
    /// A message of an extension (BEP 10): id 0 is the extension handshake, see
    /// [`crate::extension`].
    Extended {
        /// The id that the receiver gave to the extension in its extension handshake.
        id: u8,
        /// What the extension defines.
        payload: &'a [u8],
    },
    /// A message that we do not know; BEP 3 and BEP 6 want it skipped.
    Unknown {
        /// Its id.
        id: u8,
        /// The bytes after the id, which are not looked at.
        payload_bytes: u32,
    },
}

/// How long the variable messages of one connection may be. Fixed-size messages need no limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameLimits {
    /// The bitfield, in bytes: that of the connection's torrent, `ceil(pieces / 8)`.
    pub bitfield_bytes_max: u32,
    /// The payload of an extended message, in bytes.
    pub extended_payload_bytes_max: u32,
    /// The block of a piece message, in bytes; 0 for a connection on which we request nothing.
    pub block_bytes_max: u32,
    /// The payload of a message that we do not know, in bytes.
    pub unknown_payload_bytes_max: u32,
}

impl FrameLimits {
    /// The limits for a torrent of `pieces` pieces, with the values of [`crate::limits`] for the
    /// rest.
    pub const fn for_torrent(pieces: u32) -> Self {
        FrameLimits {
            bitfield_bytes_max: pieces.div_ceil(8),
            extended_payload_bytes_max: limits::EXTENSION_BYTES_MAX as u32,
            block_bytes_max: limits::BLOCK_LENGTH_MAX,
            unknown_payload_bytes_max: limits::UNKNOWN_MESSAGE_BYTES_MAX,
        }
    }

    /// The longest frame that these limits let through, length prefix included: a receive buffer of
    /// this size never stalls.
    pub fn frame_bytes_max(&self) -> usize {
        usize::try_from(self.length_max())
            .unwrap_or(usize::MAX)
            .saturating_add(LENGTH_PREFIX_BYTES)
    }

    /// The greatest legal value of the length prefix, whatever the message is.
    fn length_max(&self) -> u32 {
        let bitfield = self.bitfield_bytes_max.saturating_add(1);
        let extended = self.extended_payload_bytes_max.saturating_add(2);
        let piece = self.block_bytes_max.saturating_add(9);
        let unknown = self.unknown_payload_bytes_max.saturating_add(1);
        bitfield.max(extended).max(piece).max(unknown).max(13)
    }

    /// The least and the greatest legal value of the length prefix of a message with this id.
    fn length_range(&self, id: u8) -> (u32, u32) {
        match id {
            id::CHOKE | id::UNCHOKE | id::INTERESTED | id::NOT_INTERESTED => (1, 1),
            id::HAVE_ALL | id::HAVE_NONE => (1, 1),
            id::HAVE | id::SUGGEST | id::ALLOWED_FAST => (5, 5),
            id::REQUEST | id::CANCEL | id::REJECT => (13, 13),
            id::PORT => (3, 3),
            id::BITFIELD => (1, self.bitfield_bytes_max.saturating_add(1)),
            id::PIECE => (9, self.block_bytes_max.saturating_add(9)),
            id::EXTENDED => (2, self.extended_payload_bytes_max.saturating_add(2)),
            _ => (1, self.unknown_payload_bytes_max.saturating_add(1)),
        }
    }
}

/// What the start of a stream held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decoded<'a> {
    /// A whole message.
    Message {
        /// The message.
        message: Message<'a>,
        /// The bytes of input that it took; the next message starts there.
        consumed: usize,
    },
    /// The frame is not whole yet.
    Incomplete {
        /// The total number of bytes of input, from the start of this frame, that make progress
        /// possible. Always more than were given.
        needed: usize,
    },
}

/// Why a stream cannot be followed further. The peer broke the protocol: close the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WireError {
    /// The length prefix is beyond what any message may have.
    #[error(
        "peer wire: the length prefix says {length} bytes, the longest message allowed here has \
         {length_max}; the peer is hostile or the stream is not BitTorrent"
    )]
    FrameTooLong {
        /// The length prefix.
        length: u32,
        /// The greatest that the connection's limits allow.
        length_max: u32,
    },
    /// The length prefix does not fit the message's id.
    #[error(
        "peer wire: a {} message (id {id}) with the length prefix {length}, legal are {length_min} \
         to {length_max}",
        id::name(*id)
    )]
    WrongLength {
        /// The id of the message.
        id: u8,
        /// The length prefix.
        length: u32,
        /// The least that a message of this id has.
        length_min: u32,
        /// The most that a message of this id may have under the connection's limits.
        length_max: u32,
    },
    /// The bitfield has another length than the torrent's number of pieces asks for.
    #[error("peer wire: a bitfield of {bytes} bytes for {pieces} pieces, which take {expected}")]
    BitfieldLength {
        /// The length of the bitfield.
        bytes: usize,
        /// The number of pieces in the torrent.
        pieces: u32,
        /// The right length.
        expected: usize,
    },
    /// A bit after the last piece is set.
    #[error("peer wire: a bitfield with a bit set after the last of {pieces} pieces")]
    BitfieldSpareBits {
        /// The number of pieces in the torrent.
        pieces: u32,
    },
}

/// Decodes the message at the start of `input`.
///
/// The result depends only on the bytes, never on how they were split on the way: an error is
/// reported as soon as the length prefix and the id show it. Call again with the input from
/// `consumed` on.
#[inline]
pub fn decode<'a>(input: &'a [u8], limits: &FrameLimits) -> Result<Decoded<'a>, WireError> {
    // A seed receives hardly anything but requests: one comparison, three loads.
    if let Some(frame) = input.first_chunk::<REQUEST_FRAME_BYTES>()
        && frame[..5] == [0, 0, 0, 13, id::REQUEST]
    {
        let [_, _, _, _, _, body @ ..] = frame;
        return Ok(Decoded::Message {
            message: Message::Request(block_request(body)),
            consumed: REQUEST_FRAME_BYTES,
        });
    }
    decode_any(input, limits)
}

/// The block that the piece message at the start of `input` brings, once its header is there
/// ([`PIECE_HEADER_BYTES`]); its bytes follow and need not be. `None` for any other message, and for a header that is
/// not whole. This is for whoever wants to receive the bytes of a block where they belong.
#[inline]
pub fn piece_start(input: &[u8], limits: &FrameLimits) -> Result<Option<BlockRequest>, WireError> {
    let Some(header) = input.first_chunk::<PIECE_HEADER_BYTES>() else {
        return Ok(None);
    };
    let [l0, l1, l2, l3, id::PIECE, p0, p1, p2, p3, b0, b1, b2, b3] = *header else {
        return Ok(None);
    };
    let length = u32::from_be_bytes([l0, l1, l2, l3]);
    let (length_min, length_max) = limits.length_range(id::PIECE);
    match length.checked_sub(length_min) {
        Some(block_bytes) if length <= length_max => Ok(Some(BlockRequest {
            piece: PieceIndex(u32::from_be_bytes([p0, p1, p2, p3])),
            begin: u32::from_be_bytes([b0, b1, b2, b3]),
            length: block_bytes,
        })),
        // A keep-alive, whose next message begins as a piece message does.
        _ if length == 0 => Ok(None),
        _ => Err(WireError::WrongLength {
            id: id::PIECE,
            length,
            length_min,
            length_max,
        }),
    }
}

/// The general case of [`decode`], out of line so that the fast path stays small where it is
/// inlined.
fn decode_any<'a>(input: &'a [u8], limits: &FrameLimits) -> Result<Decoded<'a>, WireError> {
    let Some((prefix, frame)) = input.split_first_chunk::<LENGTH_PREFIX_BYTES>() else {
        return Ok(Decoded::Incomplete {
            needed: LENGTH_PREFIX_BYTES,
        });
    };
    let length = u32::from_be_bytes(*prefix);
    if length == 0 {
        return Ok(Decoded::Message {
            message: Message::KeepAlive,
            consumed: LENGTH_PREFIX_BYTES,
        });
    }
    let length_max = limits.length_max();
    if length > length_max {
        return Err(WireError::FrameTooLong { length, length_max });
    }
    let Some(&id) = frame.first() else {
        return Ok(Decoded::Incomplete {
            needed: LENGTH_PREFIX_BYTES + 1,
        });
    };
    let (length_min, length_max) = limits.length_range(id);
    if length < length_min || length > length_max {
        return Err(WireError::WrongLength {
            id,
            length,
            length_min,
            length_max,
        });
    }
    let frame_bytes = usize::try_from(length).unwrap_or(usize::MAX);
    let consumed = frame_bytes.saturating_add(LENGTH_PREFIX_BYTES);
    let Some(body) = frame.get(1..frame_bytes) else {
        return Ok(Decoded::Incomplete { needed: consumed });
    };
    Ok(match decode_body(id, body) {
        Some(message) => Decoded::Message { message, consumed },
        // `length_range` has made sure that a body of this id is long enough.
        None => {
            return Err(WireError::WrongLength {
                id,
                length,
                length_min,
                length_max,
            });
        }
    })
}

/// The message of this id with this body; `None` if a fixed-size message has another size.
fn decode_body(id: u8, body: &[u8]) -> Option<Message<'_>> {
    Some(match id {
        id::CHOKE => Message::Choke,
        id::UNCHOKE => Message::Unchoke,
        id::INTERESTED => Message::Interested,
        id::NOT_INTERESTED => Message::NotInterested,
        id::HAVE => Message::Have(piece_index(body)?),
        id::BITFIELD => Message::Bitfield(body),
        id::REQUEST => Message::Request(block_request(body.try_into().ok()?)),
        id::PIECE => {
            let (piece, rest) = body.split_first_chunk::<4>()?;
            let (begin, block) = rest.split_first_chunk::<4>()?;
            Message::Piece {
                piece: PieceIndex(u32::from_be_bytes(*piece)),
                begin: u32::from_be_bytes(*begin),
                block,
            }
        }
        id::CANCEL => Message::Cancel(block_request(body.try_into().ok()?)),
        id::PORT => Message::Port(u16::from_be_bytes(body.try_into().ok()?)),
        id::SUGGEST => Message::Suggest(piece_index(body)?),
        id::HAVE_ALL => Message::HaveAll,
        id::HAVE_NONE => Message::HaveNone,
        id::REJECT => Message::Reject(block_request(body.try_into().ok()?)),
        id::ALLOWED_FAST => Message::AllowedFast(piece_index(body)?),
        id::EXTENDED => {
            let (&id, payload) = body.split_first()?;
            Message::Extended { id, payload }
        }
        _ => Message::Unknown {
            id,
            payload_bytes: u32::try_from(body.len()).ok()?,
        },
    })
}

fn piece_index(body: &[u8]) -> Option<PieceIndex> {
    Some(PieceIndex(u32::from_be_bytes(body.try_into().ok()?)))
}

#[inline]
fn block_request(body: &[u8; 12]) -> BlockRequest {
    let [p0, p1, p2, p3, b0, b1, b2, b3, l0, l1, l2, l3] = *body;
    BlockRequest {
        piece: PieceIndex(u32::from_be_bytes([p0, p1, p2, p3])),
        begin: u32::from_be_bytes([b0, b1, b2, b3]),
        length: u32::from_be_bytes([l0, l1, l2, l3]),
    }
}

impl Message<'_> {
    /// The message's id on the wire; `None` for a keep-alive, which has none.
    pub const fn id(&self) -> Option<u8> {
        Some(match self {
            Message::KeepAlive => return None,
            Message::Choke => id::CHOKE,
            Message::Unchoke => id::UNCHOKE,
            Message::Interested => id::INTERESTED,
            Message::NotInterested => id::NOT_INTERESTED,
            Message::Have(_) => id::HAVE,
            Message::Bitfield(_) => id::BITFIELD,
            Message::Request(_) => id::REQUEST,
            Message::Piece { .. } => id::PIECE,
            Message::Cancel(_) => id::CANCEL,
            Message::Port(_) => id::PORT,
            Message::Suggest(_) => id::SUGGEST,
            Message::HaveAll => id::HAVE_ALL,
            Message::HaveNone => id::HAVE_NONE,
            Message::Reject(_) => id::REJECT,
            Message::AllowedFast(_) => id::ALLOWED_FAST,
            Message::Extended { .. } => id::EXTENDED,
            Message::Unknown { id, .. } => *id,
        })
    }

    /// Appends the message as it is on the wire.
    ///
    /// An [`Message::Unknown`] has lost its payload, so zeros stand for it: the frame has the right
    /// length, which keeps a stream in step.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            Message::KeepAlive => out.extend_from_slice(&[0; LENGTH_PREFIX_BYTES]),
            Message::Choke
            | Message::Unchoke
            | Message::Interested
            | Message::NotInterested
            | Message::HaveAll
            | Message::HaveNone => self.encode_frame(out, &[]),
            Message::Have(piece) | Message::Suggest(piece) | Message::AllowedFast(piece) => {
                self.encode_frame(out, &[&piece.0.to_be_bytes()]);
            }
            Message::Bitfield(bits) => self.encode_frame(out, &[bits]),
            Message::Request(block) | Message::Cancel(block) | Message::Reject(block) => {
                let parts = [block.piece.0, block.begin, block.length].map(u32::to_be_bytes);
                self.encode_frame(out, &[parts.as_flattened()]);
            }
            Message::Piece {
                piece,
                begin,
                block,
            } => {
                let length = u32::try_from(block.len()).expect("a block fits its length prefix");
                out.extend_from_slice(&piece_header(piece, begin, length));
                out.extend_from_slice(block);
            }
            Message::Port(port) => self.encode_frame(out, &[&port.to_be_bytes()]),
            Message::Extended { id, payload } => self.encode_frame(out, &[&[id], payload]),
            Message::Unknown { id, payload_bytes } => {
                out.extend_from_slice(&payload_bytes.saturating_add(1).to_be_bytes());
                out.push(id);
                let padding = usize::try_from(payload_bytes).expect("a payload fits in memory");
                out.resize(out.len() + padding, 0);
            }
        }
    }

    /// Appends length prefix, id and the parts of the body.
    fn encode_frame(&self, out: &mut Vec<u8>, parts: &[&[u8]]) {
        let body_bytes: usize = parts.iter().map(|part| part.len()).sum();
        let length = u32::try_from(1 + body_bytes).expect("a message fits its length prefix");
        out.reserve(LENGTH_PREFIX_BYTES + 1 + body_bytes);
        out.extend_from_slice(&length.to_be_bytes());
        out.push(self.id().expect("a keep-alive has no body"));
        for part in parts {
            out.extend_from_slice(part);
        }
    }
}

/// What precedes a block of `length` bytes on the wire: for a sender that does not copy payload,
/// and puts only this in front of pages that are already in the kernel.
#[inline]
pub fn piece_header(piece: PieceIndex, begin: u32, length: u32) -> [u8; PIECE_HEADER_BYTES] {
    let frame = length
        .checked_add(9)
        .expect("a block that we send fits its length prefix");
    let [f0, f1, f2, f3] = frame.to_be_bytes();
    let [p0, p1, p2, p3] = piece.0.to_be_bytes();
    let [b0, b1, b2, b3] = begin.to_be_bytes();
    [f0, f1, f2, f3, id::PIECE, p0, p1, p2, p3, b0, b1, b2, b3]
}

/// Checks a bitfield against the torrent (BEP 3): it has exactly one bit a piece, rounded up to
/// whole bytes, and the spare bits at its end are zero.
pub fn check_bitfield(bits: &[u8], pieces: u32) -> Result<(), WireError> {
    let expected = usize::try_from(pieces.div_ceil(8)).unwrap_or(usize::MAX);
    if bits.len() != expected {
        return Err(WireError::BitfieldLength {
            bytes: bits.len(),
            pieces,
            expected,
        });
    }
    let used = pieces % 8;
    match bits.last() {
        Some(&last) if used != 0 && last & (0xff >> used) != 0 => {
            Err(WireError::BitfieldSpareBits { pieces })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
