//! Cuts the byte stream of a seed into a handshake, messages and block payloads.
//!
//! Pure and incremental: bytes may arrive split at any point. The payload of a `piece` message is
//! never collected: it is passed through as it arrives, or skipped with [`Framing::skip_payload`]
//! when the kernel has dropped it, so that a load that discards touches 13 bytes per block. Every
//! other message is collected whole, up to [`MESSAGE_BYTES_MAX`]. What the messages mean is not
//! decided here.

use proto::handshake::HANDSHAKE_BYTES;
use proto::limits::BLOCK_LENGTH_MAX;
use proto::wire::id::PIECE as PIECE_ID;
use proto::wire::{LENGTH_PREFIX_BYTES, PIECE_HEADER_BYTES};

/// The longest message that is collected, in bytes. A bitfield of `PIECES_MAX` pieces is 256 KiB;
/// the rest is room for an extension message.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// One step of the stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// The 68 bytes that the seed greets with.
    Handshake(&'a [u8]),
    /// A message that says nothing.
    KeepAlive,
    /// A whole message other than `piece`, with its length prefix.
    Message(&'a [u8]),
    /// The header of a `piece` message; `length` bytes of payload follow.
    Block(BlockHeader),
    /// Some payload of the block that was announced last; `last` on its final byte.
    Payload {
        /// The bytes, in the order of the block.
        bytes: &'a [u8],
        /// Whether the block is complete now.
        last: bool,
    },
}

/// What a `piece` message says before its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockHeader {
    /// The piece's index, as the seed sent it.
    pub piece: u32,
    /// Where the block begins in its piece, in bytes.
    pub offset: u32,
    /// The block's length, in bytes; never 0.
    pub length: u32,
}

/// Why a stream cannot be followed any further.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// A message that is longer than any that a seed has a reason to send.
    #[error(
        "the seed announced a message of {length} bytes (id {id}); the limit is {limit}: it \
         does not speak plaintext BitTorrent, or the stream lost its place"
    )]
    TooLong {
        /// The announced length, in bytes.
        length: u32,
        /// The message's id.
        id: u8,
        /// The limit that it broke.
        limit: u32,
    },
    /// A `piece` message without room for a payload.
    #[error("the seed sent a piece message of {length} bytes: it carries no data")]
    EmptyBlock {
        /// The announced length, in bytes.
        length: u32,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Handshake,
    /// Waits for a length prefix, and for the header of a block if it is one.
    Header,
    /// Collects a message of this many bytes, prefix included.
    Body {
        total: usize,
    },
    Payload {
        left: u32,
    },
}

/// The place in one connection's stream.
#[derive(Debug)]
pub struct Framing {
    state: State,
    /// What is collected of the current handshake, header or message.
    buffer: Vec<u8>,
    /// Whether `buffer` was handed out as a frame and must be emptied before the next.
    handed_out: bool,
}

impl Default for Framing {
    fn default() -> Self {
        Self {
            state: State::Handshake,
            buffer: Vec::new(),
            handed_out: false,
        }
    }
}

impl Framing {
    /// The payload that the current block still lacks, in bytes; 0 outside a block.
    pub fn payload_left(&self) -> u32 {
        match self.state {
            State::Payload { left } => left,
            _ => 0,
        }
    }

    /// The bytes that may be read without running into the payload of a block.
    pub fn bytes_wanted(&self) -> usize {
        let have = if self.handed_out {
            0
        } else {
            self.buffer.len()
        };
        match self.state {
            State::Handshake => HANDSHAKE_BYTES - have,
            State::Header => PIECE_HEADER_BYTES - have,
            State::Body { total } => total - have,
            State::Payload { left } => left as usize,
        }
    }

    /// Says that `count` payload bytes (at most [`Framing::payload_left`]) were dropped by the
    /// kernel; returns whether the block is complete.
    pub fn skip_payload(&mut self, count: u32) -> bool {
        let State::Payload { left } = &mut self.state else {
            return false;
        };
        *left = left.saturating_sub(count);
        let last = *left == 0;
        if last {
            self.state = State::Header;
        }
        last
    }

    /// Takes the next frame from the front of `input`, or takes all of it and waits for more.
    pub fn next<'b, 'a: 'b>(
        &'b mut self,
        input: &mut &'a [u8],
    ) -> Result<Option<Frame<'b>>, FramingError> {
        if self.handed_out {
            self.buffer.clear();
            self.handed_out = false;
        }
        match self.state {
            State::Payload { left } => Ok(self.payload(input, left)),
            State::Handshake => {
                if !self.collect(input, HANDSHAKE_BYTES) {
                    return Ok(None);
                }
                self.state = State::Header;
                self.handed_out = true;
                Ok(Some(Frame::Handshake(&self.buffer)))
            }
            State::Header => self.header(input),
            State::Body { total } => Ok(self.body(input, total)),
        }
    }

    fn payload<'a>(&mut self, input: &mut &'a [u8], left: u32) -> Option<Frame<'a>> {
        if input.is_empty() {
            return None;
        }
        let (bytes, rest) = input.split_at(input.len().min(left as usize));
        *input = rest;
        let last = self.skip_payload(bytes.len() as u32);
        Some(Frame::Payload { bytes, last })
    }

    fn header<'b>(&'b mut self, input: &mut &[u8]) -> Result<Option<Frame<'b>>, FramingError> {
        if !self.collect(input, LENGTH_PREFIX_BYTES) {
            return Ok(None);
        }
        let length = big_endian(&self.buffer);
        if length == 0 {
            self.handed_out = true;
            return Ok(Some(Frame::KeepAlive));
        }
        if !self.collect(input, LENGTH_PREFIX_BYTES + 1) {
            return Ok(None);
        }
        let id = self.buffer[4];
        check_length(length, id)?;
        if id != PIECE_ID {
            let total = LENGTH_PREFIX_BYTES + length as usize;
            self.state = State::Body { total };
            return Ok(self.body(input, total));
        }
        if !self.collect(input, PIECE_HEADER_BYTES) {
            return Ok(None);
        }
        let length = length - 9;
        let piece = big_endian(&self.buffer[5..]);
        let offset = big_endian(&self.buffer[9..]);
        self.handed_out = true;
        self.state = State::Payload { left: length };
        Ok(Some(Frame::Block(BlockHeader {
            piece,
            offset,
            length,
        })))
    }

    fn body<'b>(&'b mut self, input: &mut &[u8], total: usize) -> Option<Frame<'b>> {
        if !self.collect(input, total) {
            return None;
        }
        self.state = State::Header;
        self.handed_out = true;
        Some(Frame::Message(&self.buffer))
    }

    /// Moves bytes from `input` until `total` are collected; returns whether they are.
    fn collect(&mut self, input: &mut &[u8], total: usize) -> bool {
        let missing = total.saturating_sub(self.buffer.len());
        let (taken, rest) = input.split_at(input.len().min(missing));
        self.buffer.extend_from_slice(taken);
        *input = rest;
        self.buffer.len() >= total
    }
}

fn check_length(length: u32, id: u8) -> Result<(), FramingError> {
    let limit = match id {
        PIECE_ID if length <= 9 => return Err(FramingError::EmptyBlock { length }),
        PIECE_ID => BLOCK_LENGTH_MAX + 9,
        _ => MESSAGE_BYTES_MAX as u32,
    };
    if length > limit {
        return Err(FramingError::TooLong { length, id, limit });
    }
    Ok(())
}

/// The first four bytes of `bytes`, which the caller has collected.
fn big_endian(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .take(4)
        .fold(0, |value, &byte| (value << 8) | u32::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(id: u8, body: &[u8]) -> Vec<u8> {
        let mut out = (1 + body.len() as u32).to_be_bytes().to_vec();
        out.push(id);
        out.extend_from_slice(body);
        out
    }

    fn block(piece: u32, offset: u32, payload: &[u8]) -> Vec<u8> {
        let mut body = piece.to_be_bytes().to_vec();
        body.extend_from_slice(&offset.to_be_bytes());
        body.extend_from_slice(payload);
        message(PIECE_ID, &body)
    }

    /// A stream with everything that the framing tells apart.
    fn stream() -> Vec<u8> {
        let mut out = vec![0x13; HANDSHAKE_BYTES];
        out.extend(message(5, &[0xff; 40]));
        out.extend([0; 4]);
        out.extend(block(3, 16384, &[0xaa; 50]));
        out.extend(message(1, &[]));
        out.extend(block(3, 32768, &[0xbb; 1]));
        out.extend(message(20, b"\0de"));
        out
    }

    #[derive(Debug, Default, PartialEq, Eq)]
    struct Seen {
        messages: Vec<Vec<u8>>,
        keep_alives: usize,
        blocks: Vec<(BlockHeader, Vec<u8>)>,
        blocks_complete: usize,
    }

    fn drain(framing: &mut Framing, mut input: &[u8], seen: &mut Seen) {
        while let Some(frame) = framing.next(&mut input).unwrap() {
            match frame {
                Frame::Handshake(bytes) | Frame::Message(bytes) => {
                    seen.messages.push(bytes.to_vec());
                }
                Frame::KeepAlive => seen.keep_alives += 1,
                Frame::Block(header) => seen.blocks.push((header, Vec::new())),
                Frame::Payload { bytes, last } => {
                    seen.blocks.last_mut().unwrap().1.extend_from_slice(bytes);
                    seen.blocks_complete += usize::from(last);
                }
            }
        }
        assert!(input.is_empty(), "what is not a frame yet is collected");
    }

    #[test]
    fn every_split_point_gives_the_same_frames() {
        let stream = stream();
        let mut whole = Seen::default();
        drain(&mut Framing::default(), &stream, &mut whole);
        assert_eq!(whole.messages.len(), 4);
        assert_eq!(whole.keep_alives, 1);
        let header = BlockHeader {
            piece: 3,
            offset: 16384,
            length: 50,
        };
        assert_eq!(whole.blocks[0], (header, vec![0xaa; 50]));
        assert_eq!(whole.blocks_complete, 2);
        for cut in 0..=stream.len() {
            let (mut framing, mut seen) = (Framing::default(), Seen::default());
            drain(&mut framing, &stream[..cut], &mut seen);
            drain(&mut framing, &stream[cut..], &mut seen);
            assert_eq!(seen, whole, "split at {cut}");
        }
        let (mut framing, mut seen) = (Framing::default(), Seen::default());
        for byte in &stream {
            drain(&mut framing, std::slice::from_ref(byte), &mut seen);
        }
        assert_eq!(seen, whole, "byte by byte");
    }

    #[test]
    fn reading_what_is_wanted_never_takes_payload() {
        let stream = stream();
        let (mut framing, mut at, mut skipped, mut complete) = (Framing::default(), 0, 0, 0);
        while at < stream.len() {
            let left = framing.payload_left();
            if left > 0 {
                let part = left.div_ceil(2);
                complete += usize::from(framing.skip_payload(part));
                (at, skipped) = (at + part as usize, skipped + part);
                continue;
            }
            let end = (at + framing.bytes_wanted()).min(stream.len());
            let mut input = &stream[at..end];
            at = end;
            while let Some(frame) = framing.next(&mut input).unwrap() {
                assert!(
                    !matches!(frame, Frame::Payload { .. }),
                    "payload was read at {at}"
                );
            }
        }
        assert_eq!((skipped, complete), (51, 2));
    }

    #[test]
    fn hostile_lengths_are_refused_before_anything_is_collected() {
        let after_handshake = |bytes: &[u8]| {
            let mut framing = Framing::default();
            let mut input = &[0; HANDSHAKE_BYTES][..];
            assert!(framing.next(&mut input).unwrap().is_some());
            let mut input = bytes;
            framing.next(&mut input).map(|frame| frame.is_some())
        };
        let limit = MESSAGE_BYTES_MAX as u32;
        assert_eq!(
            after_handshake(&[0xff, 0xff, 0xff, 0xff, 5]),
            Err(FramingError::TooLong {
                length: u32::MAX,
                id: 5,
                limit
            })
        );
        let length = BLOCK_LENGTH_MAX + 10;
        let [a, b, c, d] = length.to_be_bytes();
        let limit = BLOCK_LENGTH_MAX + 9;
        assert_eq!(
            after_handshake(&[a, b, c, d, PIECE_ID]),
            Err(FramingError::TooLong {
                length,
                id: PIECE_ID,
                limit
            })
        );
        for length in [1u8, 8, 9] {
            let error = FramingError::EmptyBlock {
                length: u32::from(length),
            };
            assert_eq!(after_handshake(&[0, 0, 0, length, PIECE_ID]), Err(error));
        }
        assert_eq!(after_handshake(&[0, 0, 0, 10, PIECE_ID]), Ok(false));
    }
}
