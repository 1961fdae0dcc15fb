//! The leecher against scripted seeds: every order of events that real seeds have shown, byte by
//! byte where the order of bytes matters.

use proto::ids::PieceIndex;
use sha1::{Digest, Sha1};

use super::*;

const GEOMETRY: Geometry = Geometry {
    piece_count: 5,
    piece_length: 1000,
    last_piece_length: 300,
};
const INFO_HASH: InfoHashV1 = InfoHashV1([7; 20]);

fn content(piece: u32) -> Vec<u8> {
    (0..GEOMETRY.length_of(piece))
        .map(|at| (at * 3 + piece * 11) as u8)
        .collect()
}

fn settings() -> Settings {
    let hashes = (0..5)
        .map(|piece| Sha1::digest(content(piece)).into())
        .collect();
    Settings {
        info_hash: INFO_HASH,
        geometry: GEOMETRY,
        expected: Some(Arc::new(Expected {
            geometry: GEOMETRY,
            hashes,
        })),
        block_bytes: 400,
        depth: 4,
        fast: true,
        extended: true,
        open_loop: false,
        deck: None,
    }
}

/// A leecher with what a test needs around it.
struct Bench {
    leecher: Leecher,
    latency: Latency,
    now_ns: u64,
}

impl Bench {
    fn new(settings: Settings, role: Role) -> Self {
        let mut latency = Latency::default();
        latency.start();
        Self {
            leecher: Leecher::new(Arc::new(settings), role, 1),
            latency,
            now_ns: 1_000,
        }
    }

    /// Connected, and our own handshake taken off.
    fn connected(settings: Settings) -> Self {
        let mut bench = Self::new(settings, Role::Load);
        bench.leecher.connected(bench.now_ns);
        assert_eq!(bench.output().len(), 68);
        bench
    }

    /// Unchoked by a seed with every piece.
    fn unchoked(settings: Settings, reserved: Reserved) -> Self {
        let mut bench = Self::connected(settings);
        bench.give(&handshake(reserved));
        bench.tell(&[Message::Bitfield(&[0b1111_1000]), Message::Unchoke]);
        bench
    }

    fn give(&mut self, bytes: &[u8]) {
        self.leecher
            .received(bytes, self.now_ns, &mut self.latency)
            .unwrap();
    }

    fn tell(&mut self, messages: &[Message<'_>]) {
        self.give(&encoded(messages));
    }

    fn output(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        self.leecher.fill(self.now_ns, &mut out);
        out
    }

    /// The requests in the output; nothing else may be in it.
    fn requests(&mut self) -> Vec<BlockRequest> {
        let out = self.output();
        let request = |message| match message {
            Message::Request(block) => block,
            other => panic!("expected a request, found {other:?}"),
        };
        decoded(&out).into_iter().map(request).collect()
    }
}

fn handshake(reserved: Reserved) -> [u8; 68] {
    Handshake {
        reserved,
        info_hash: INFO_HASH,
        peer_id: PeerId([b'x'; 20]),
    }
    .encode()
}

fn fast() -> Reserved {
    Reserved::NONE.with(ReservedBit::FAST)
}

fn encoded(messages: &[Message<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    messages.iter().for_each(|message| message.encode(&mut out));
    out
}

fn decoded(mut input: &[u8]) -> Vec<Message<'_>> {
    let mut messages = Vec::new();
    while !input.is_empty() {
        match wire::decode(input, &FrameLimits::for_torrent(5)).unwrap() {
            Decoded::Message { message, consumed } => {
                messages.push(message);
                input = &input[consumed..];
            }
            Decoded::Incomplete { .. } => panic!("the leecher sends whole messages"),
        }
    }
    messages
}

/// The `piece` message that answers `request`.
fn answer(request: &BlockRequest) -> Vec<u8> {
    let content = content(request.piece.0);
    let block = &content[request.begin as usize..(request.begin + request.length) as usize];
    encoded(&[Message::Piece {
        piece: request.piece,
        begin: request.begin,
        block,
    }])
}

#[test]
fn nothing_but_the_handshake_is_sent_before_the_seeds_is_whole() {
    let mut bench = Bench::connected(settings());
    let greeting = handshake(fast().with(ReservedBit::EXTENSION_PROTOCOL));
    for byte in &greeting[..67] {
        bench.give(std::slice::from_ref(byte));
        assert_eq!(bench.output(), b"");
        assert_eq!(bench.leecher.stage(), Stage::AwaitingHandshake);
    }
    bench.give(&greeting[67..]);
    let out = bench.output();
    let messages = decoded(&out);
    assert_eq!(messages[0], Message::HaveNone);
    let Message::Extended { id: 0, payload } = messages[1] else {
        panic!("{messages:?}")
    };
    let theirs = proto::extension::ExtensionHandshake::parse(payload).unwrap();
    assert_eq!(theirs.client.as_deref(), Some("seedring-bench"));
    assert_eq!(
        messages.len(),
        2,
        "interested only once the seed has something"
    );
}

#[test]
fn optional_messages_are_only_sent_to_seeds_that_offer_them() {
    for (settings, reserved) in [
        (settings(), Reserved::NONE),
        (
            Settings {
                fast: false,
                ..settings()
            },
            fast(),
        ),
        (
            Settings {
                extended: false,
                ..settings()
            },
            Reserved([0, 0, 0, 0, 0, 0x10, 0, 0]),
        ),
    ] {
        let mut bench = Bench::connected(settings);
        bench.give(&handshake(reserved));
        assert_eq!(bench.output(), b"");
    }
}

#[test]
fn a_whole_session_is_the_same_at_every_split_point() {
    let script = |bench: &mut Bench, cut: usize| {
        let mut stream = handshake(fast()).to_vec();
        stream.extend(encoded(&[
            Message::HaveAll,
            Message::KeepAlive,
            Message::Unchoke,
        ]));
        let cut_of = |at: usize| at.min(stream.len());
        bench.give(&stream[..cut_of(cut)]);
        bench.give(&stream[cut_of(cut)..]);
        let out = bench.output();
        let mut messages = decoded(&out);
        assert_eq!(messages[..2], [Message::HaveNone, Message::Interested]);
        let mut served = 0;
        let mut replies = Vec::new();
        for message in messages.drain(2..) {
            let Message::Request(request) = message else {
                panic!("{message:?}")
            };
            replies.extend(answer(&request));
            served += u64::from(request.length);
        }
        let cut = cut.min(replies.len());
        bench.give(&replies[..cut]);
        bench.give(&replies[cut..]);
        (served, bench.leecher.take_tally(), bench.requests())
    };
    let whole = script(&mut Bench::connected(settings()), 0);
    assert_eq!(whole.1.payload_bytes, whole.0);
    assert_eq!(
        (whole.1.blocks, whole.1.unrequested_blocks, whole.1.unchokes),
        (4, 0, 1)
    );
    assert!(whole.1.pieces_right >= 1 && whole.1.pieces_wrong == 0);
    assert_eq!(whole.2.len(), 4, "the pipeline is full again");
    for cut in 1..1_800 {
        assert_eq!(
            script(&mut Bench::connected(settings()), cut),
            whole,
            "split at {cut}"
        );
    }
}

#[test]
fn discarded_payload_counts_like_received_payload() {
    let settings = Settings {
        expected: None,
        ..settings()
    };
    let mut bench = Bench::unchoked(settings, Reserved::NONE);
    let out = bench.output();
    assert_eq!(decoded(&out)[0], Message::Interested);
    let Message::Request(request) = decoded(&out)[1] else {
        panic!()
    };
    let answer = answer(&request);
    assert_eq!(bench.leecher.bytes_wanted(), wire::PIECE_HEADER_BYTES);
    bench.give(&answer[..5]);
    assert_eq!(
        (bench.leecher.bytes_wanted(), bench.leecher.payload_left()),
        (8, 0)
    );
    bench.give(&answer[5..13]);
    assert_eq!(bench.leecher.payload_left(), request.length);
    bench.now_ns += 5_000;
    bench
        .leecher
        .skipped(request.length - 1, bench.now_ns, &mut bench.latency);
    assert_eq!(bench.latency.count(), 0);
    bench.leecher.skipped(1, bench.now_ns, &mut bench.latency);
    assert_eq!(
        (bench.latency.count(), bench.leecher.payload_left()),
        (1, 0)
    );
    assert!((bench.latency.max_us() - 5.0).abs() < 0.1);
    let tally = bench.leecher.take_tally();
    assert_eq!(
        (tally.blocks, tally.payload_bytes),
        (1, u64::from(request.length))
    );
    assert_eq!(bench.requests().len(), 1);
}

#[test]
fn answers_out_of_order_and_unasked_are_told_apart() {
    let mut bench = Bench::unchoked(settings(), Reserved::NONE);
    let out = bench.output();
    let requests: Vec<_> = decoded(&out)[1..]
        .iter()
        .map(|message| match *message {
            Message::Request(block) => block,
            other => panic!("{other:?}"),
        })
        .collect();
    for request in requests.iter().rev() {
        bench.give(&answer(request));
    }
    // Asked for once, so the second answer is unasked; so is one of another length.
    bench.give(&answer(&requests[0]));
    let longer = Message::Piece {
        piece: PieceIndex(0),
        begin: 0,
        block: &[0; 1_000],
    };
    bench.tell(&[longer]);
    let tally = bench.leecher.take_tally();
    assert_eq!((tally.blocks, tally.unrequested_blocks), (4, 2));
    assert_eq!(
        tally.payload_bytes,
        requests
            .iter()
            .map(|one| u64::from(one.length))
            .sum::<u64>()
    );
    assert_eq!((tally.pieces_right, tally.pieces_wrong), (1, 0));
}

#[test]
fn a_wrong_byte_is_counted() {
    let mut bench = Bench::unchoked(settings(), Reserved::NONE);
    bench.output();
    let mut found = Tally::default();
    // Every request is answered with one flipped bit.
    while found.pieces_wrong < 3 {
        let (now_ns, mut out) = (bench.now_ns, Vec::new());
        let outstanding: Vec<_> = bench
            .leecher
            .outstanding
            .iter()
            .map(|one| one.block)
            .collect();
        for request in outstanding {
            let mut answer = answer(&request);
            answer[20] ^= 0x10;
            bench.give(&answer);
        }
        bench.leecher.fill(now_ns, &mut out);
        found.add(&bench.leecher.take_tally());
    }
    assert_eq!(found.pieces_right, 0);
    assert!(found.wrong_bytes >= 300 * 3 && found.wrong_bytes <= 1_000 * found.pieces_wrong);
}

#[test]
fn a_choke_without_the_fast_extension_asks_again_for_the_same_blocks() {
    let mut bench = Bench::unchoked(settings(), Reserved::NONE);
    bench.output();
    let lost: Vec<_> = bench
        .leecher
        .outstanding
        .iter()
        .map(|one| one.block)
        .collect();
    bench.tell(&[Message::Choke, Message::Choke]);
    assert_eq!(bench.requests(), []);
    bench.tell(&[Message::Unchoke]);
    assert_eq!(bench.requests(), lost);
    let tally = bench.leecher.take_tally();
    assert_eq!((tally.chokes, tally.unchokes), (1, 2));
}

#[test]
fn with_the_fast_extension_rejects_say_what_is_lost() {
    let mut bench = Bench::unchoked(settings(), fast());
    bench.output();
    let asked: Vec<_> = bench
        .leecher
        .outstanding
        .iter()
        .map(|one| one.block)
        .collect();
    bench.tell(&[
        Message::Choke,
        Message::Reject(asked[1]),
        Message::Reject(asked[2]),
    ]);
    // What was not rejected is still to come, choked or not.
    bench.give(&answer(&asked[0]));
    bench.tell(&[Message::Unchoke]);
    let again = bench.requests();
    assert_eq!(again[..2], asked[1..3]);
    assert_eq!(again.len(), 3);
    let tally = bench.leecher.take_tally();
    assert_eq!(
        (tally.blocks, tally.rejects, tally.unrequested_blocks),
        (1, 2, 0)
    );
}

#[test]
fn a_reject_while_unchoked_gives_the_block_up_and_its_piece_is_not_judged() {
    let mut bench = Bench::unchoked(settings(), fast());
    bench.output();
    for _ in 0..50 {
        let asked: Vec<_> = bench
            .leecher
            .outstanding
            .iter()
            .map(|one| one.block)
            .collect();
        bench.tell(&[Message::Reject(asked[0])]);
        asked[1..]
            .iter()
            .for_each(|request| bench.give(&answer(request)));
        bench.output();
    }
    let tally = bench.leecher.take_tally();
    assert_eq!(
        (tally.rejects, tally.blocks, tally.pieces_wrong),
        (50, 150, 0)
    );
    assert!(tally.pieces_right > 0);
}

#[test]
fn a_disconnect_forgets_the_stream_and_the_next_connection_starts_afresh() {
    let mut bench = Bench::unchoked(settings(), fast());
    bench.output();
    let asked = bench.leecher.outstanding[0].block;
    bench.give(&answer(&asked)[..50]);
    bench.leecher.disconnected();
    assert_eq!(bench.leecher.backlog(bench.now_ns), (0, 0, None));
    bench.leecher.connected(bench.now_ns);
    assert_eq!(bench.output().len(), 68);
    bench.give(&handshake(Reserved::NONE));
    bench.tell(&[Message::HaveAll, Message::Unchoke]);
    bench.output();
    for _ in 0..20 {
        let asked: Vec<_> = bench
            .leecher
            .outstanding
            .iter()
            .map(|one| one.block)
            .collect();
        asked
            .iter()
            .for_each(|request| bench.give(&answer(request)));
        bench.output();
    }
    let tally = bench.leecher.take_tally();
    assert!(tally.pieces_right > 0 && tally.pieces_wrong == 0);
}

#[test]
fn open_loop_asks_when_due_and_counts_from_then() {
    let settings = Settings {
        open_loop: true,
        deck: None,
        depth: 2,
        ..settings()
    };
    let mut bench = Bench::unchoked(settings, Reserved::NONE);
    bench.output();
    assert!(bench.leecher.outstanding.is_empty(), "nothing is due yet");
    for due_ns in [2_000, 3_000, 4_000, 9_000] {
        bench.leecher.schedule(due_ns);
    }
    bench.now_ns = 2_500;
    assert_eq!(bench.requests().len(), 1);
    bench.now_ns = 5_000;
    assert_eq!(bench.requests().len(), 1, "the pipeline is full at 2");
    assert_eq!(bench.leecher.backlog(5_000), (2, 1, Some(2_000)));
    bench.now_ns = 1_002_000;
    let asked = bench.leecher.outstanding[0].block;
    bench.give(&answer(&asked));
    assert!(
        (bench.latency.max_us() - 1_000.0).abs() < 1.0,
        "counted from when it was due"
    );
    assert_eq!(bench.requests().len(), 1);
    // What a disconnect takes is still due, at its old time.
    bench.leecher.disconnected();
    assert_eq!(bench.leecher.backlog(bench.now_ns), (0, 3, Some(3_000)));
    assert_eq!(bench.leecher.due, [3_000, 4_000, 9_000]);
}

#[test]
fn keep_alives_and_stalls_follow_the_clock() {
    let mut bench = Bench::unchoked(settings(), Reserved::NONE);
    bench.output();
    bench.now_ns += STALL_NS - 1;
    assert!(!bench.leecher.tick(bench.now_ns));
    assert!(bench.leecher.tick(bench.now_ns + 1));
    bench.tell(&[Message::Choke]);
    assert!(
        !bench.leecher.tick(bench.now_ns + 1),
        "a choked peer is owed nothing"
    );
    bench.now_ns += KEEP_ALIVE_NS;
    bench.leecher.tick(bench.now_ns);
    assert_eq!(bench.output(), [0; 4]);
    bench.leecher.tick(bench.now_ns);
    assert_eq!(bench.output(), b"");
}

#[test]
fn an_idle_leecher_stays_silent() {
    let mut bench = Bench::new(settings(), Role::Idle);
    bench.leecher.connected(0);
    assert_eq!(bench.output().len(), 68);
    bench.give(&handshake(Reserved::NONE));
    bench.tell(&[Message::HaveAll, Message::Unchoke]);
    assert_eq!(bench.output(), b"");
}

#[test]
fn what_is_not_the_protocol_is_named() {
    let error = |bytes: &[u8]| {
        let mut bench = Bench::connected(settings());
        bench
            .leecher
            .received(bytes, 0, &mut bench.latency)
            .unwrap_err()
    };
    let mut other = handshake(Reserved::NONE);
    other[28] ^= 1;
    assert!(matches!(error(&other), Misbehaviour::OtherTorrent { .. }));
    assert!(matches!(error(&[0x55; 68]), Misbehaviour::Handshake(_)));
    let mut stream = handshake(Reserved::NONE).to_vec();
    stream.extend(encoded(&[Message::Bitfield(&[0xff, 0xff])]));
    assert!(matches!(error(&stream), Misbehaviour::Wire(_)));
    let mut stream = handshake(Reserved::NONE).to_vec();
    stream.extend([0xff; 5]);
    assert!(matches!(error(&stream), Misbehaviour::Framing(_)));
}
