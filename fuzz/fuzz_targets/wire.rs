//! What a peer sends: the message stream, the handshake, the extension handshake, metadata messages.
//!
//! The first byte chooses the decoder, so that one corpus serves all. Checked beyond "no panic": a
//! stream gives the same messages however it is split, and what was decoded encodes to the bytes it
//! came from.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto::client_name::client_name;
use proto::extension::{ExtensionHandshake, MetadataMessage, metadata_block_bytes};
use proto::handshake::{self, HANDSHAKE_BYTES, HandshakeStage, INFO_HASH_KNOWN_BYTES};
use proto::ids::PeerId;
use proto::wire::{Decoded, FrameLimits, Message, WireError, check_bitfield, decode};

fuzz_target!(|data: &[u8]| {
    let Some((&kind, input)) = data.split_first() else {
        return;
    };
    match kind % 5 {
        0 => stream(input),
        1 => handshake_in_stages(input),
        2 => extension_handshake(input),
        3 => metadata(input),
        _ => peer_id(input),
    }
});

/// Four bytes of limits, two of seed for the chunks, then the stream.
fn stream(input: &[u8]) {
    let Some((&[bitfield, extended, block, unknown, seed0, seed1], stream)) =
        input.split_first_chunk()
    else {
        return;
    };
    let limits = FrameLimits {
        bitfield_bytes_max: bitfield.into(),
        extended_payload_bytes_max: u32::from(extended) * 8,
        block_bytes_max: u32::from(block) * 8,
        unknown_payload_bytes_max: unknown.into(),
    };
    let (whole, whole_end) = decode_whole(stream, &limits);
    let chunked = decode_chunked(stream, &limits, u16::from_le_bytes([seed0, seed1]));
    assert_eq!((whole, whole_end), chunked);
}

/// How a stream ends: an error, or so many bytes that are no whole message.
type End = Result<usize, WireError>;

fn decode_whole(stream: &[u8], limits: &FrameLimits) -> (Vec<Vec<u8>>, End) {
    let (mut messages, mut rest) = (Vec::new(), stream);
    loop {
        match decode(rest, limits) {
            Ok(Decoded::Message { message, consumed }) => {
                messages.push(checked(message, &rest[..consumed], limits));
                rest = &rest[consumed..];
            }
            Ok(Decoded::Incomplete { needed }) => {
                assert!(needed > rest.len() && needed <= limits.frame_bytes_max());
                return (messages, Ok(rest.len()));
            }
            Err(error) => return (messages, Err(error)),
        }
    }
}

/// As a socket gives it: bytes arrive in chunks, and nothing is decoded before `needed` are there.
fn decode_chunked(stream: &[u8], limits: &FrameLimits, seed: u16) -> (Vec<Vec<u8>>, End) {
    let mut state = u32::from(seed) | 1;
    let (mut messages, mut buffer, mut rest) = (Vec::new(), Vec::new(), stream);
    let mut needed = 0;
    loop {
        if buffer.len() >= needed {
            match decode(&buffer, limits) {
                Ok(Decoded::Message { message, consumed }) => {
                    messages.push(checked(message, &buffer[..consumed], limits));
                    buffer.drain(..consumed);
                    needed = 0;
                    continue;
                }
                Ok(Decoded::Incomplete { needed: more }) => needed = more,
                Err(error) => return (messages, Err(error)),
            }
        }
        if rest.is_empty() {
            return (messages, Ok(buffer.len()));
        }
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let length = (state >> 24) as usize % 40 + 1;
        let (chunk, after) = rest.split_at(length.min(rest.len()));
        buffer.extend_from_slice(chunk);
        rest = after;
    }
}

/// The message, encoded again: the same bytes, but for the payload of an unknown one.
fn checked(message: Message<'_>, bytes: &[u8], limits: &FrameLimits) -> Vec<u8> {
    let mut encoded = Vec::new();
    message.encode(&mut encoded);
    match message {
        Message::Unknown { .. } => {
            assert_eq!((encoded.len(), &encoded[..5]), (bytes.len(), &bytes[..5]));
        }
        _ => assert_eq!(encoded, bytes),
    }
    let again = decode(&encoded, limits);
    assert_eq!(
        again,
        Ok(Decoded::Message {
            message,
            consumed: encoded.len()
        })
    );
    if let Message::Bitfield(bits) = message {
        let pieces = bits.len() as u32 * 8;
        assert_eq!(check_bitfield(bits, pieces), Ok(()));
        assert!(check_bitfield(bits, pieces + 1).is_err());
    }
    encoded
}

fn handshake_in_stages(input: &[u8]) {
    let whole = handshake::parse(input);
    for length in 0..input.len().min(HANDSHAKE_BYTES) {
        match handshake::parse(&input[..length]) {
            Ok(HandshakeStage::Incomplete { needed }) => {
                assert!(length < needed && needed == INFO_HASH_KNOWN_BYTES);
            }
            Ok(HandshakeStage::InfoHash {
                reserved,
                info_hash,
            }) => {
                assert!((INFO_HASH_KNOWN_BYTES..HANDSHAKE_BYTES).contains(&length));
                if let Ok(HandshakeStage::Complete(complete)) = whole {
                    assert_eq!(
                        (complete.reserved, complete.info_hash),
                        (reserved, info_hash)
                    );
                }
            }
            Ok(HandshakeStage::Complete(_)) => panic!("complete after {length} bytes"),
            // What is wrong stays wrong.
            Err(error) => assert_eq!(whole, Err(error)),
        }
    }
    if let Ok(HandshakeStage::Complete(complete)) = whole {
        assert_eq!(complete.encode(), input[..HANDSHAKE_BYTES]);
        assert!(!format!("{:?}", complete.reserved).is_empty());
    }
}

fn extension_handshake(input: &[u8]) {
    let Ok(handshake) = ExtensionHandshake::parse(input) else {
        return;
    };
    let client = handshake.client.as_deref().unwrap_or_default();
    assert!(!client.chars().any(char::is_control));
    let mut encoded = Vec::new();
    handshake.encode(&mut encoded);
    assert_eq!(ExtensionHandshake::parse(&encoded), Ok(handshake.clone()));
    let mut ids = handshake.messages;
    ids.update(&handshake.messages);
    assert_eq!(ids, handshake.messages);
}

fn metadata(input: &[u8]) {
    let Ok(message) = MetadataMessage::parse(input) else {
        return;
    };
    if let MetadataMessage::Data {
        piece,
        total_bytes,
        block,
    } = message
    {
        let bytes = metadata_block_bytes(total_bytes, piece).expect("a block of the metadata");
        assert_eq!(block.len(), bytes as usize);
    }
    let mut encoded = Vec::new();
    message.encode(&mut encoded);
    assert_eq!(MetadataMessage::parse(&encoded), Ok(message));
}

fn peer_id(input: &[u8]) {
    let Some(id) = input.first_chunk::<20>() else {
        return;
    };
    let text = client_name(&PeerId(*id)).to_string();
    assert!(!text.is_empty() && text.len() < 100 && !text.chars().any(char::is_control));
}
