//! The scripted peers: each kind keeps to the protocol in its own way, or does not.

use std::collections::BTreeMap;
use std::time::Duration;

use engine::random::Random;
use engine::session::PeerIdentity;
use engine::time::Time;
use proto::handshake::{Reserved, ReservedBit};
use proto::ids::{PeerId, PieceIndex};
use proto::wire::{self, BlockRequest, Decoded, FrameLimits, Message};

use super::server::{PIECE_COUNT, PIECE_LENGTH, Socket, TOTAL_LENGTH};

/// What a peer is like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Fetches, cancels, changes its mind.
    Leecher,
    /// A leecher on a very slow line.
    Slow,
    /// Requests far more than the queue holds whenever it is unchoked.
    Flooder,
    /// Opens, and then says nothing more.
    Mute,
    /// Requests, and then reads nothing more.
    Sleeper,
    /// Has everything.
    Seed,
    /// Sends any message at any time, and sometimes garbage.
    Vandal,
}

/// One peer's end of a connection.
pub struct Peer {
    kind: Kind,
    identity: PeerIdentity,
    /// Written, and not yet taken by the socket.
    outgoing: Vec<u8>,
    /// Received, and not yet a whole message.
    incoming: Vec<u8>,
    choked: bool,
    opened: bool,
    flooded: bool,
    /// Requests without an answer, with how often each was sent.
    outstanding: BTreeMap<BlockRequest, u32>,
    written_at: Time,
    pub blocks: u64,
    pub rejects: u64,
}

impl Peer {
    pub fn new(index: usize, random: &mut Random) -> Peer {
        let kind = match random.below(20) {
            0..9 => Kind::Leecher,
            9..11 => Kind::Slow,
            11..13 => Kind::Flooder,
            13..14 => Kind::Mute,
            14..15 => Kind::Sleeper,
            15..17 => Kind::Seed,
            _ => Kind::Vandal,
        };
        let mut reserved = Reserved::NONE;
        if random.below(3) > 0 {
            reserved = reserved.with(ReservedBit::FAST);
        }
        if random.below(2) > 0 {
            reserved = reserved.with(ReservedBit::EXTENSION_PROTOCOL);
        }
        Peer {
            kind,
            identity: PeerIdentity {
                peer_id: PeerId([index as u8; 20]),
                reserved,
                ip: None,
            },
            outgoing: Vec::new(),
            incoming: Vec::new(),
            choked: true,
            opened: false,
            flooded: false,
            outstanding: BTreeMap::new(),
            written_at: Time(0),
            blocks: 0,
            rejects: 0,
        }
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    pub fn identity(&self) -> PeerIdentity {
        self.identity
    }

    /// How many requests have no answer.
    pub fn unanswered(&self) -> u64 {
        self.outstanding
            .values()
            .map(|&count| u64::from(count))
            .sum()
    }

    /// Whether all answers have arrived in the end: a vandal forgets what it asked, a sleeper reads
    /// nothing.
    pub fn settles(&self) -> bool {
        !matches!(self.kind, Kind::Vandal | Kind::Sleeper)
    }

    /// One tick: reads, decides, writes.
    pub fn act(&mut self, socket: &mut Socket, draining: bool, now: Time, random: &mut Random) {
        if random.below(3) > 0 {
            self.read(socket, draining, random);
        }
        if !self.opened {
            self.open();
        } else if random.below(4) == 0 {
            self.write(draining, random);
        }
        if now.since(self.written_at) > Duration::from_secs(5) && self.kind != Kind::Mute {
            self.send(&Message::KeepAlive);
        }
        if !self.outgoing.is_empty() {
            // Cut anywhere.
            let chunk = self.outgoing.len().min(1 + random.below(300) as usize);
            let taken = socket.write_to_server(&self.outgoing[..chunk]);
            self.outgoing.drain(..taken);
            self.written_at = now;
        }
    }

    fn fast(&self) -> bool {
        self.identity.reserved.fast()
    }

    fn send(&mut self, message: &Message<'_>) {
        message.encode(&mut self.outgoing);
    }

    fn open(&mut self) {
        self.opened = true;
        let mut bits = vec![0x5a; PIECE_COUNT as usize / 8];
        match (self.kind, self.fast()) {
            (Kind::Seed, true) => self.send(&Message::HaveAll),
            (Kind::Seed, false) => {
                bits.fill(0xff);
                self.send(&Message::Bitfield(&bits));
            }
            (Kind::Flooder, true) => self.send(&Message::HaveNone),
            (Kind::Flooder, false) => {}
            _ => self.send(&Message::Bitfield(&bits)),
        }
        if self.identity.reserved.extension_protocol() {
            let payload = b"d1:md11:ut_metadatai7eee";
            self.send(&Message::Extended { id: 0, payload });
        }
        if !matches!(self.kind, Kind::Seed | Kind::Mute) {
            self.send(&Message::Interested);
        }
    }

    fn write(&mut self, draining: bool, random: &mut Random) {
        if draining || self.outgoing.len() > 20_000 {
            return;
        }
        match self.kind {
            Kind::Mute | Kind::Seed => {}
            Kind::Leecher => self.fetch(20, random),
            Kind::Slow => self.fetch(3, random),
            Kind::Sleeper | Kind::Flooder if self.choked => self.flooded = false,
            Kind::Sleeper | Kind::Flooder if !self.flooded => {
                self.flooded = true;
                for _ in 0..200 {
                    self.request(random);
                }
            }
            Kind::Sleeper | Kind::Flooder => {
                self.flooded = self.kind == Kind::Sleeper || self.unanswered() > 20;
            }
            Kind::Vandal => self.vandalise(random),
        }
    }

    /// A lawful step of one who downloads.
    fn fetch(&mut self, depth: u64, random: &mut Random) {
        match random.below(40) {
            0 => self.send(&Message::NotInterested),
            1 | 2 => self.send(&Message::Interested),
            3 => self.send(&Message::Have(PieceIndex(
                random.below(u64::from(PIECE_COUNT) / 2) as u32,
            ))),
            4 => self.send(&Message::Unchoke),
            5 if self.identity.reserved.extension_protocol() => {
                let payload = b"d8:msg_typei0e5:piecei0ee";
                self.send(&Message::Extended { id: 4, payload });
            }
            6..12 => self.cancel(random),
            _ if self.choked => {}
            _ => {
                for _ in self.unanswered()..depth {
                    self.request(random);
                }
            }
        }
    }

    fn request(&mut self, random: &mut Random) {
        // Often the next block of a run, now and then a block again that is still awaited.
        let next = self
            .outstanding
            .keys()
            .next_back()
            .map(|last| last.begin + last.length);
        let piece = random.below(u64::from(PIECE_COUNT)) as u32;
        let mut block = BlockRequest {
            piece: PieceIndex(piece),
            begin: 0,
            length: 512,
        };
        if let Some((&last, next)) = self.outstanding.keys().next_back().zip(next)
            && random.below(5) > 0
        {
            block = BlockRequest {
                begin: next,
                length: 256 + random.below(769) as u32,
                ..last
            };
        }
        let start = u64::from(block.piece.0) * u64::from(PIECE_LENGTH);
        let piece_length = (TOTAL_LENGTH - start).min(u64::from(PIECE_LENGTH)) as u32;
        if block.begin >= piece_length {
            block = BlockRequest { begin: 0, ..block };
        }
        block.length = block.length.min(piece_length - block.begin);
        *self.outstanding.entry(block).or_insert(0) += 1;
        self.send(&Message::Request(block));
    }

    fn cancel(&mut self, random: &mut Random) {
        let at = random.below(self.outstanding.len() as u64) as usize;
        if let Some((&block, _)) = self.outstanding.iter().nth(at) {
            self.send(&Message::Cancel(block));
        }
    }

    fn vandalise(&mut self, random: &mut Random) {
        let mut any = || random.below(40) as u32;
        let block = BlockRequest {
            piece: PieceIndex(any() * 2),
            begin: any() * 128,
            length: any() * 30,
        };
        let piece = PieceIndex(any() * 2);
        let bits = [any() as u8; 8];
        let message = match any() {
            0 => Message::Bitfield(&bits),
            1 => Message::HaveNone,
            2 => Message::Have(piece),
            3 => Message::Suggest(piece),
            4 => Message::AllowedFast(piece),
            5 => Message::Reject(block),
            6 => Message::Extended {
                id: any() as u8,
                payload: &bits,
            },
            7 => Message::Unknown {
                id: 77,
                payload_bytes: 9,
            },
            8 => Message::NotInterested,
            9 => Message::Choke,
            10 => Message::Port(1),
            11 => return self.outgoing.extend_from_slice(&bits[..any() as usize % 8]),
            12..20 => Message::Cancel(block),
            20..25 => Message::Interested,
            _ => Message::Request(block),
        };
        self.send(&message);
    }

    fn read(&mut self, socket: &mut Socket, draining: bool, random: &mut Random) {
        let most = match self.kind {
            Kind::Sleeper if self.flooded => return,
            // A few bytes a second: far slower than any limit, and lawful.
            Kind::Slow if !draining => random.below(40),
            _ => random.below(6_000),
        };
        socket.read_from_server(most as usize, &mut self.incoming);
        let incoming = std::mem::take(&mut self.incoming);
        let mut rest = &incoming[..];
        let limits = FrameLimits::for_torrent(PIECE_COUNT);
        while let Decoded::Message { message, consumed } =
            wire::decode(rest, &limits).expect("the server speaks the protocol")
        {
            self.receive(&message);
            rest = &rest[consumed..];
        }
        self.incoming = rest.to_vec();
    }

    fn receive(&mut self, message: &Message<'_>) {
        match *message {
            Message::Choke => self.choked = true,
            Message::Unchoke => self.choked = false,
            Message::Piece {
                piece,
                begin,
                block,
            } => {
                self.blocks += 1;
                self.answered(BlockRequest {
                    piece,
                    begin,
                    length: block.len() as u32,
                });
            }
            Message::Reject(block) => {
                assert!(self.fast(), "a reject to one who does not speak BEP 6");
                self.rejects += 1;
                self.answered(block);
            }
            Message::HaveAll => assert!(self.fast()),
            Message::Extended { .. } => assert!(self.identity.reserved.extension_protocol()),
            Message::Bitfield(_) | Message::KeepAlive => {}
            ref other => unreachable!("a seed has no reason to send {other:?}"),
        }
    }

    /// Each answer belongs to one request.
    fn answered(&mut self, block: BlockRequest) {
        if self.kind == Kind::Vandal {
            return;
        }
        let count = self
            .outstanding
            .get_mut(&block)
            .expect("an answer without a request");
        *count -= 1;
        if *count == 0 {
            self.outstanding.remove(&block);
        }
    }
}
