//! Tests of the wire codec: every split, every truncation, hostile lengths, round trips.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const LIMITS: FrameLimits = FrameLimits {
    bitfield_bytes_max: 100,
    extended_payload_bytes_max: 200,
    block_bytes_max: 300,
    unknown_payload_bytes_max: 50,
};

const BLOCK: BlockRequest = BlockRequest {
    piece: PieceIndex(0x0102_0304),
    begin: 0x0506_0708,
    length: 0x4000,
};

#[test]
fn a_block_is_known_from_its_header_on_and_only_from_a_piece_message() {
    let whole = Message::Piece {
        piece: BLOCK.piece,
        begin: BLOCK.begin,
        block: b"xyz",
    };
    let mut bytes = Vec::new();
    whole.encode(&mut bytes);
    let known = BlockRequest { length: 3, ..BLOCK };
    for split in 0..=bytes.len() {
        let due = (split >= PIECE_HEADER_BYTES).then_some(known);
        assert_eq!(piece_start(&bytes[..split], &LIMITS), Ok(due), "{split}");
    }
    for (message, mut bytes) in catalogue() {
        bytes.extend([0; 20]);
        let is_piece = matches!(message, Message::Piece { .. });
        let found = piece_start(&bytes, &LIMITS).unwrap();
        assert_eq!(found.is_some(), is_piece, "{message:?}");
    }
    // A keep-alive before what begins as a piece message does.
    let mut after_keep_alive = vec![0, 0, 0, 0, id::PIECE];
    after_keep_alive.extend([0; 20]);
    assert_eq!(piece_start(&after_keep_alive, &LIMITS), Ok(None));
}

#[test]
fn a_block_of_a_wrong_length_is_refused_at_its_header() {
    let header = |length: u32| {
        let mut bytes = length.to_be_bytes().to_vec();
        bytes.extend([id::PIECE, 0, 0, 0, 1, 0, 0, 0, 2]);
        bytes
    };
    let length_of = |length| piece_start(&header(length), &LIMITS);
    let block = |length| BlockRequest {
        piece: PieceIndex(1),
        begin: 2,
        length,
    };
    assert_eq!(length_of(9), Ok(Some(block(0))));
    assert_eq!(length_of(309), Ok(Some(block(300))));
    for length in [1, 8, 310, u32::MAX] {
        let error = length_of(length).unwrap_err();
        let due = WireError::WrongLength {
            id: id::PIECE,
            length,
            length_min: 9,
            length_max: 309,
        };
        assert_eq!(error, due);
    }
}

/// One message of every kind, and its bytes as BEP 3, 5, 6 and 10 give them.
fn catalogue() -> Vec<(Message<'static>, Vec<u8>)> {
    let frame = |head: &[u8], tail: &[u8]| [head, tail].concat();
    let block = [1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0x40, 0];
    let index = [1, 2, 3, 4];
    vec![
        (Message::KeepAlive, vec![0, 0, 0, 0]),
        (Message::Choke, vec![0, 0, 0, 1, 0]),
        (Message::Unchoke, vec![0, 0, 0, 1, 1]),
        (Message::Interested, vec![0, 0, 0, 1, 2]),
        (Message::NotInterested, vec![0, 0, 0, 1, 3]),
        (
            Message::Have(PieceIndex(0x0102_0304)),
            frame(&[0, 0, 0, 5, 4], &index),
        ),
        (
            Message::Bitfield(&[0xff, 0x80]),
            vec![0, 0, 0, 3, 5, 0xff, 0x80],
        ),
        (Message::Bitfield(&[]), vec![0, 0, 0, 1, 5]),
        (Message::Request(BLOCK), frame(&[0, 0, 0, 13, 6], &block)),
        (
            Message::Piece {
                piece: BLOCK.piece,
                begin: BLOCK.begin,
                block: b"xyz",
            },
            frame(&[0, 0, 0, 12, 7], b"\x01\x02\x03\x04\x05\x06\x07\x08xyz"),
        ),
        (Message::Cancel(BLOCK), frame(&[0, 0, 0, 13, 8], &block)),
        (Message::Port(0x1ae9), vec![0, 0, 0, 3, 9, 0x1a, 0xe9]),
        (
            Message::Suggest(PieceIndex(0x0102_0304)),
            frame(&[0, 0, 0, 5, 13], &index),
        ),
        (Message::HaveAll, vec![0, 0, 0, 1, 14]),
        (Message::HaveNone, vec![0, 0, 0, 1, 15]),
        (Message::Reject(BLOCK), frame(&[0, 0, 0, 13, 16], &block)),
        (
            Message::AllowedFast(PieceIndex(0x0102_0304)),
            frame(&[0, 0, 0, 5, 17], &index),
        ),
        (
            Message::Extended {
                id: 0,
                payload: b"de",
            },
            vec![0, 0, 0, 4, 20, 0, b'd', b'e'],
        ),
        (
            Message::Unknown {
                id: 21,
                payload_bytes: 3,
            },
            vec![0, 0, 0, 4, 21, 0, 0, 0],
        ),
        (
            Message::Unknown {
                id: 255,
                payload_bytes: 0,
            },
            vec![0, 0, 0, 1, 255],
        ),
    ]
}

fn encoded(message: &Message<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    message.encode(&mut out);
    out
}

#[test]
fn each_message_has_the_bytes_of_its_bep() {
    for (message, bytes) in catalogue() {
        assert_eq!(encoded(&message), bytes, "{message:?}");
        let whole = Decoded::Message {
            message,
            consumed: bytes.len(),
        };
        assert_eq!(decode(&bytes, &LIMITS), Ok(whole));
        // What follows does not matter, and is not consumed.
        let longer = [bytes.as_slice(), &[0xff; 40]].concat();
        assert_eq!(decode(&longer, &LIMITS), Ok(whole));
    }
}

#[test]
fn each_truncation_asks_for_more_and_never_for_too_much() {
    for (message, bytes) in catalogue() {
        for length in 0..bytes.len() {
            let decoded = decode(&bytes[..length], &LIMITS);
            let Ok(Decoded::Incomplete { needed }) = decoded else {
                panic!("{message:?} cut to {length} bytes gives {decoded:?}");
            };
            assert!(
                needed > length && needed <= bytes.len(),
                "{message:?} at {length}: {needed}"
            );
        }
    }
}

#[test]
fn what_is_needed_is_reached_in_three_steps() {
    let bytes = encoded(&Message::Bitfield(&[7; 100]));
    let mut given = 0;
    for expected in [4, 5, bytes.len()] {
        let decoded = decode(&bytes[..given], &LIMITS);
        assert_eq!(decoded, Ok(Decoded::Incomplete { needed: expected }));
        given = expected;
    }
}

#[test]
fn every_length_of_every_id_is_accepted_or_refused_at_once() {
    for id in 0..=255u8 {
        let legal = |length: u32| match id {
            0..=3 | 14 | 15 => length == 1,
            4 | 13 | 17 => length == 5,
            6 | 8 | 16 => length == 13,
            9 => length == 3,
            5 => (1..=101).contains(&length),
            7 => (9..=309).contains(&length),
            20 => (2..=202).contains(&length),
            _ => (1..=51).contains(&length),
        };
        for length in (1..=400).chain([1 << 16, 0x4000_0000, 0x7fff_ffff, u32::MAX]) {
            let mut bytes = length.to_be_bytes().to_vec();
            bytes.push(id);
            // Only the id is there, nothing of the body: the verdict does not wait for it.
            match decode(&bytes, &LIMITS) {
                Ok(_) => assert!(legal(length), "id {id}, length {length} accepted"),
                Err(WireError::FrameTooLong { length_max, .. }) => {
                    assert!(length > 309 && length_max == 309);
                }
                Err(error) => assert!(!legal(length), "{error}"),
            }
        }
    }
}

#[test]
fn an_impossible_length_is_refused_without_its_id() {
    for length in [310, 0x1300_0000, 0x8000_0000, u32::MAX] {
        let error = WireError::FrameTooLong {
            length,
            length_max: 309,
        };
        assert_eq!(decode(&length.to_be_bytes(), &LIMITS), Err(error));
    }
    assert_eq!(
        decode(&309u32.to_be_bytes(), &LIMITS),
        Ok(Decoded::Incomplete { needed: 5 })
    );
    // A handshake or an HTTP request where a message belongs.
    assert!(decode(b"\x13BitTorrent protocol", &LIMITS).is_err());
    assert!(decode(b"GET / HTTP/1.1\r\n", &LIMITS).is_err());
}

#[test]
fn limits_without_any_room_still_let_fixed_messages_through() {
    let none = FrameLimits {
        bitfield_bytes_max: 0,
        extended_payload_bytes_max: 0,
        block_bytes_max: 0,
        unknown_payload_bytes_max: 0,
    };
    assert_eq!(none.frame_bytes_max(), REQUEST_FRAME_BYTES);
    for (message, bytes) in catalogue() {
        let variable = matches!(
            message,
            Message::Bitfield(&[_, ..])
                | Message::Piece { .. }
                | Message::Extended { .. }
                | Message::Unknown { id: 21, .. }
        );
        assert_eq!(decode(&bytes, &none).is_err(), variable, "{message:?}");
    }
}

#[test]
fn limits_at_the_end_of_their_type_do_not_overflow() {
    let all = FrameLimits {
        bitfield_bytes_max: u32::MAX,
        extended_payload_bytes_max: u32::MAX,
        block_bytes_max: u32::MAX,
        unknown_payload_bytes_max: u32::MAX,
    };
    assert!(all.frame_bytes_max() >= 0xffff_ffff);
    for id in [5, 7, 20, 99] {
        let input = [0xff, 0xff, 0xff, 0xff, id];
        let decoded = decode(&input, &all);
        assert_eq!(
            decoded,
            Ok(Decoded::Incomplete {
                needed: 0x1_0000_0003
            })
        );
    }
}

#[test]
fn the_limits_of_a_torrent_fit_its_bitfield_and_an_ordinary_block() {
    let limits = FrameLimits::for_torrent(9);
    assert_eq!(limits.bitfield_bytes_max, 2);
    assert!(decode(&encoded(&Message::Bitfield(&[0xff, 0x80])), &limits).is_ok());
    assert!(decode(&encoded(&Message::Bitfield(&[0xff, 0x80, 0])), &limits).is_err());
    let block = vec![0; crate::limits::BLOCK_LENGTH_MAX as usize];
    let piece = Message::Piece {
        piece: PieceIndex(0),
        begin: 0,
        block: &block,
    };
    assert!(decode(&encoded(&piece), &limits).is_ok());
}

#[test]
fn a_piece_header_is_the_start_of_its_message() {
    let block = [9; 77];
    let message = Message::Piece {
        piece: PieceIndex(5),
        begin: 0x8000,
        block: &block,
    };
    let header = piece_header(PieceIndex(5), 0x8000, 77);
    assert_eq!([header.as_slice(), &block].concat(), encoded(&message));
}

#[test]
fn a_bitfield_is_checked_against_the_torrent() {
    assert_eq!(check_bitfield(&[], 0), Ok(()));
    assert_eq!(check_bitfield(&[0xff], 8), Ok(()));
    assert_eq!(check_bitfield(&[0xff, 0x80], 9), Ok(()));
    assert_eq!(check_bitfield(&[0, 0xfe], 15), Ok(()));
    let wrong_length = |bytes, pieces, expected| {
        Err(WireError::BitfieldLength {
            bytes,
            pieces,
            expected,
        })
    };
    assert_eq!(check_bitfield(&[0xff], 9), wrong_length(1, 9, 2));
    assert_eq!(check_bitfield(&[0xff, 0x80, 0], 9), wrong_length(3, 9, 2));
    assert_eq!(check_bitfield(&[0], 0), wrong_length(1, 0, 0));
    for (last, pieces) in [(0x40, 9), (0x01, 15), (0xff, 9)] {
        let error = Err(WireError::BitfieldSpareBits { pieces });
        assert_eq!(check_bitfield(&[0, last], pieces), error);
    }
}

#[test]
fn errors_name_the_message_and_the_legal_lengths() {
    let error = decode(&[0, 0, 0, 12, 6], &LIMITS).unwrap_err().to_string();
    assert!(
        error.contains("request") && error.contains("id 6"),
        "{error}"
    );
    assert!(error.contains("12") && error.contains("13"), "{error}");
}

/// A message that owns its payload, for generated tests.
#[derive(Clone, Debug)]
struct Owned {
    kind: usize,
    block: BlockRequest,
    payload: Vec<u8>,
    unknown: u8,
}

impl Owned {
    fn message(&self) -> Message<'_> {
        let Owned { block, payload, .. } = self;
        match self.kind {
            0 => Message::KeepAlive,
            1 => Message::Choke,
            2 => Message::Unchoke,
            3 => Message::Interested,
            4 => Message::NotInterested,
            5 => Message::Have(block.piece),
            6 => Message::Bitfield(payload),
            7 => Message::Request(*block),
            8 => Message::Piece {
                piece: block.piece,
                begin: block.begin,
                block: payload,
            },
            9 => Message::Cancel(*block),
            10 => Message::Port(block.begin as u16),
            11 => Message::Suggest(block.piece),
            12 => Message::HaveAll,
            13 => Message::HaveNone,
            14 => Message::Reject(*block),
            15 => Message::AllowedFast(block.piece),
            16 => Message::Extended {
                id: block.begin as u8,
                payload,
            },
            _ => {
                let id = 21 + self.unknown % (255 - 21);
                Message::Unknown {
                    id,
                    payload_bytes: payload.len() as u32 % 50,
                }
            }
        }
    }
}

fn owned() -> impl Strategy<Value = Owned> {
    let block = any::<(u32, u32, u32)>();
    (0usize..18, block, vec(any::<u8>(), 0..100), any::<u8>()).prop_map(
        |(kind, (piece, begin, length), payload, unknown)| Owned {
            kind,
            block: BlockRequest {
                piece: PieceIndex(piece),
                begin,
                length,
            },
            payload,
            unknown,
        },
    )
}

/// Feeds `stream` in chunks to a decoder with a buffer, and gives each message, encoded again.
fn decode_in_chunks(stream: &[u8], chunks: &[usize]) -> Result<Vec<Vec<u8>>, WireError> {
    let mut chunks = chunks.iter().copied().chain(std::iter::repeat(1));
    let (mut messages, mut buffer, mut rest) = (Vec::new(), Vec::new(), stream);
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(chunks.next().unwrap_or(1).clamp(1, rest.len()));
        buffer.extend_from_slice(chunk);
        rest = after;
        while let Decoded::Message { message, consumed } = decode(&buffer, &LIMITS)? {
            messages.push(encoded(&message));
            buffer.drain(..consumed);
        }
    }
    assert!(buffer.is_empty(), "{} bytes left over", buffer.len());
    Ok(messages)
}

proptest! {
    #[test]
    fn what_begins_as_a_block_is_one_for_both_decoders(
        length in prop_oneof![0_u32..320, any::<u32>()],
        id in prop_oneof![Just(id::PIECE), any::<u8>()],
        body in vec(any::<u8>(), 0..400),
    ) {
        let mut input = length.to_be_bytes().to_vec();
        input.push(id);
        input.extend(&body);
        let started = piece_start(&input, &LIMITS);
        match decode(&input, &LIMITS) {
            Ok(Decoded::Message { message: Message::Piece { piece, begin, block }, .. }) => {
                let length = block.len() as u32;
                prop_assert_eq!(started, Ok(Some(BlockRequest { piece, begin, length })));
            }
            Ok(Decoded::Message { .. }) => prop_assert_eq!(started, Ok(None)),
            Ok(Decoded::Incomplete { needed }) => match started {
                Ok(Some(block)) => {
                    prop_assert_eq!(needed, block.length as usize + PIECE_HEADER_BYTES);
                }
                other => prop_assert_eq!(other, Ok(None)),
            },
            Err(_) if id == self::id::PIECE && input.len() >= PIECE_HEADER_BYTES => {
                prop_assert!(started.is_err());
            }
            Err(_) => prop_assert_eq!(started, Ok(None)),
        }
    }

    #[test]
    fn decode_encode_is_identity(message in owned()) {
        let bytes = encoded(&message.message());
        let whole = Decoded::Message { message: message.message(), consumed: bytes.len() };
        prop_assert_eq!(decode(&bytes, &LIMITS), Ok(whole));
    }

    #[test]
    fn a_stream_split_anywhere_is_the_same_list(
        messages in vec(owned(), 0..20), chunks in vec(1usize..60, 0..60),
    ) {
        let expected: Vec<Vec<u8>> = messages.iter().map(|m| encoded(&m.message())).collect();
        let stream = expected.concat();
        prop_assert_eq!(&decode_in_chunks(&stream, &chunks).unwrap(), &expected);
        prop_assert_eq!(&decode_in_chunks(&stream, &[]).unwrap(), &expected);
        prop_assert_eq!(&decode_in_chunks(&stream, &[stream.len()]).unwrap(), &expected);
    }

    #[test]
    fn the_fast_path_decides_nothing_differently(input in vec(any::<u8>(), 0..40), tail: [u8; 20]) {
        prop_assert_eq!(decode(&input, &LIMITS), decode_any(&input, &LIMITS));
        let request = [[0, 0, 0, 13, 6].as_slice(), &tail].concat();
        prop_assert_eq!(decode(&request, &LIMITS), decode_any(&request, &LIMITS));
    }

    #[test]
    fn any_bytes_are_answered_within_the_input(
        length in 0u32..400, id: u8, body in vec(any::<u8>(), 0..400),
    ) {
        let input = [length.to_be_bytes().as_slice(), &[id], &body].concat();
        match decode(&input, &LIMITS) {
            Ok(Decoded::Message { consumed, .. }) => prop_assert!(consumed <= input.len()),
            Ok(Decoded::Incomplete { needed }) => {
                prop_assert!(needed > input.len());
                prop_assert!(needed <= LIMITS.frame_bytes_max());
            }
            Err(_) => {}
        }
    }
}
