//! What a session is told at its start: limits, the torrent, the peer.

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use proto::handshake::Reserved;
use proto::ids::{PeerId, PieceIndex};
use proto::limits;

/// Limits and times that all sessions of a server share.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// Requests that one peer may have waiting; announced as `reqq` (BEP 10).
    pub requests_max: u32,
    /// The longest block that is served, in bytes; at most [`crate::queue::BATCH_BYTES_MAX`].
    pub block_length_max: u32,
    /// A peer that sends nothing for so long is closed. BEP 3 wants a keep-alive every two minutes.
    pub idle_timeout: Duration,
    /// After so long without sending we send a keep-alive.
    pub keep_alive_interval: Duration,
    /// A peer that takes no byte of what waits to be sent for so long is closed.
    pub stall_timeout: Duration,
    /// A peer that needs nothing from us is closed after so long.
    pub redundant_grace: Duration,
    /// Over so many bytes of queued control messages we stop reading from the peer.
    pub control_bytes_max: usize,
    /// Requests for metadata (BEP 9) that one peer may have waiting; more are rejected.
    pub metadata_requests_max: usize,
    /// How many times one peer is served the whole metadata; more is rejected.
    pub metadata_copies_max: u32,
    /// Whether we speak the fast extension (BEP 6); it must be what our handshake says.
    pub fast_extension: bool,
    /// Our name and version, as told in the extension handshake.
    pub client_version: String,
    /// The port on which we take connections, as told in the extension handshake.
    pub listen_port: Option<NonZeroU16>,
    /// Whether peers of torrents that are not private tell us of others, and we them (BEP 11).
    pub peer_exchange: bool,
}

impl Default for SessionConfig {
    fn default() -> SessionConfig {
        SessionConfig {
            requests_max: 2_000,
            block_length_max: limits::BLOCK_LENGTH_MAX,
            idle_timeout: Duration::from_secs(180),
            keep_alive_interval: Duration::from_secs(100),
            stall_timeout: Duration::from_secs(120),
            redundant_grace: Duration::from_secs(10),
            control_bytes_max: 64 << 10,
            metadata_requests_max: 16,
            metadata_copies_max: 4,
            fast_extension: true,
            client_version: concat!("Seedring ", env!("CARGO_PKG_VERSION")).to_owned(),
            listen_port: None,
            peer_exchange: true,
        }
    }
}

/// Which pieces of a torrent we have and would serve.
#[derive(Clone, Debug)]
pub enum Pieces {
    /// All of them.
    All,
    /// Those whose bit is set: laid out as a bitfield message (BEP 3), `ceil(pieces / 8)` bytes,
    /// spare bits 0.
    Some(Arc<[u8]>),
    /// Those of a torrent that is being downloaded, which change under all its sessions.
    Growing(Arc<PieceBits>),
    /// All of them, of which this peer is told of these only: it is super-seeded (BEP 16).
    Told(Arc<PieceBits>),
}

impl Pieces {
    /// Whether `piece`, which the torrent has, is one of them.
    pub fn has(&self, piece: PieceIndex) -> bool {
        match self {
            Pieces::All => true,
            Pieces::Some(bits) => bits
                .get(piece.0 as usize / 8)
                .is_some_and(|byte| byte & (0x80 >> (piece.0 % 8)) != 0),
            Pieces::Growing(bits) | Pieces::Told(bits) => bits.has(piece),
        }
    }

    /// Whether we have them all, though a peer may not be told so.
    pub fn is_seed(&self) -> bool {
        matches!(self, Pieces::All | Pieces::Told(_))
    }

    /// Whether they are all, for good.
    pub fn is_all(&self) -> bool {
        matches!(self, Pieces::All)
    }
}

/// A bitfield that changes, laid out as a bitfield message (BEP 3). It is one torrent's, and its
/// sessions share it: a copy for each would cost a bitfield for each piece and peer. Changed and
/// read by one thread alone; the atomics only let others hold it.
#[derive(Debug)]
pub struct PieceBits {
    bytes: Box<[AtomicU8]>,
    count: u32,
    wants_more: AtomicBool,
}

impl PieceBits {
    /// A bitfield of `count` pieces, with those of `bits` set as far as there are such.
    pub fn new(count: u32, bits: &[u8]) -> PieceBits {
        let byte = |index: u32| {
            let byte = bits.get(index as usize).copied().unwrap_or(0);
            let bits_in_byte = count - 8 * index;
            match bits_in_byte {
                0..8 => byte & !(0xff_u8 >> bits_in_byte),
                _ => byte,
            }
        };
        PieceBits {
            bytes: (0..count.div_ceil(8))
                .map(|index| AtomicU8::new(byte(index)))
                .collect(),
            count,
            wants_more: AtomicBool::new(true),
        }
    }

    /// Whether more pieces are wanted; else peers are told that we only upload (BEP 21).
    pub fn wants_more(&self) -> bool {
        self.wants_more.load(Ordering::Relaxed)
    }

    /// Says whether more pieces are wanted.
    pub fn set_wants_more(&self, wants_more: bool) {
        self.wants_more.store(wants_more, Ordering::Relaxed);
    }

    /// Whether `piece` is set.
    pub fn has(&self, piece: PieceIndex) -> bool {
        self.bytes
            .get(piece.0 as usize / 8)
            .is_some_and(|byte| byte.load(Ordering::Relaxed) & (0x80 >> (piece.0 % 8)) != 0)
    }

    /// Sets `piece`, or clears it. There being no such piece, nothing happens.
    pub fn set(&self, piece: PieceIndex, is_set: bool) {
        if piece.0 >= self.count {
            return;
        }
        let Some(byte) = self.bytes.get(piece.0 as usize / 8) else {
            return;
        };
        let bit = 0x80 >> (piece.0 % 8);
        match is_set {
            true => byte.fetch_or(bit, Ordering::Relaxed),
            false => byte.fetch_and(!bit, Ordering::Relaxed),
        };
    }

    /// How many pieces are set.
    pub fn set_count(&self) -> u32 {
        let ones = |byte: &AtomicU8| byte.load(Ordering::Relaxed).count_ones();
        self.bytes.iter().map(ones).sum()
    }

    /// The bitfield as it is now.
    pub fn to_bytes(&self) -> Vec<u8> {
        let bytes = self.bytes.iter();
        bytes.map(|byte| byte.load(Ordering::Relaxed)).collect()
    }
}

/// What a session needs to know of its torrent. Shared by all its sessions.
#[derive(Clone, Debug)]
pub struct TorrentView {
    /// How many pieces there are.
    pub piece_count: u32,
    /// The length of every piece but the last, in bytes.
    pub piece_length: u32,
    /// The length of the content, in bytes.
    pub total_length: u64,
    /// The length of the `info` dictionary in bytes, if it is served to those who have a magnet
    /// link only (BEP 9).
    pub metadata_bytes: Option<u32>,
    /// Whether the torrent is private (BEP 27): its metadata is served all the same, peers are not
    /// exchanged.
    pub private: bool,
    /// Which pieces we have.
    pub pieces: Pieces,
}

impl TorrentView {
    /// The length of `piece` in bytes; 0 if there is no such piece.
    pub fn piece_length_of(&self, piece: PieceIndex) -> u32 {
        if piece.0 >= self.piece_count {
            return 0;
        }
        let start = u64::from(piece.0) * u64::from(self.piece_length);
        let rest = self.total_length.saturating_sub(start);
        u32::try_from(rest).map_or(self.piece_length, |rest| rest.min(self.piece_length))
    }
}

/// What the handshake and the socket told about a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeerIdentity {
    /// How it calls itself.
    pub peer_id: PeerId,
    /// What it can do.
    pub reserved: Reserved,
    /// Its address, which it is told as `yourip` (BEP 10).
    pub ip: Option<IpAddr>,
}
