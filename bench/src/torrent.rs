//! The torrent to load: from a `.torrent` file, or from a magnet link, whose metadata the seed
//! itself gives.
//!
//! Only what a load needs is kept: info-hash, sizes, hashes. Torrents with a version 1 part only:
//! hashes of version 2 (BEP 52) are not asked for on the wire. Fetching metadata (BEP 9) is one
//! blocking connection.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use proto::extension::{
    Extension, ExtensionHandshake, HANDSHAKE_ID, MessageIds, MetadataMessage, metadata_blocks,
};
use proto::handshake::{self, HANDSHAKE_BYTES, Handshake, HandshakeStage, Reserved, ReservedBit};
use proto::ids::{InfoHashV1, PeerId};
use proto::limits::PIECES_MAX;
use proto::magnet::Magnet;
use proto::metainfo::Metainfo;
use proto::wire::{self, Decoded, FrameLimits, Message};
use sha1::{Digest, Sha1};

use crate::load::blocks::Geometry;

/// Fetching metadata takes no longer than this.
const FETCH: Duration = Duration::from_secs(30);

/// What a load needs of a torrent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Torrent {
    /// Names it on the wire.
    pub info_hash: InfoHashV1,
    /// Its name, for the report.
    pub name: String,
    /// Its sizes.
    pub geometry: Geometry,
    /// All its bytes.
    pub total_bytes: u64,
    /// The SHA-1 of each piece.
    pub hashes: Vec<[u8; 20]>,
}

/// Why there is no torrent.
#[derive(Debug, thiserror::Error)]
pub enum TorrentError {
    /// The file cannot be read.
    #[error("cannot read the torrent {path:?}: {source}")]
    Read {
        /// Which file.
        path: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The file or the metadata is not valid.
    #[error("{origin} is not a valid torrent: {reason}")]
    Invalid {
        /// Where it came from.
        origin: String,
        /// What is wrong, and where.
        reason: String,
    },
    /// The magnet link is not valid.
    #[error("the magnet link is not valid: {0}")]
    Magnet(String),
    /// Nothing to ask for by the version 1 protocol.
    #[error("{0} has no version 1 info-hash: only version 1 and hybrid torrents can be loaded")]
    NotVersion1(String),
    /// Nothing to ask for at all.
    #[error("{0} has no pieces: all its files are empty")]
    Empty(String),
    /// The seed did not give the metadata.
    #[error(
        "cannot get the metadata of {info_hash} from {address}: {reason}; give the .torrent file"
    )]
    Fetch {
        /// The seed.
        address: SocketAddr,
        /// Whose metadata.
        info_hash: InfoHashV1,
        /// What happened.
        reason: String,
    },
}

impl Torrent {
    /// Reads the file `source`, or asks the seed at `address` for the metadata of the magnet link
    /// `source`.
    pub fn open(source: &str, address: SocketAddr) -> Result<Self, TorrentError> {
        if !source.starts_with("magnet:") {
            return Self::from_file(Path::new(source));
        }
        let magnet =
            Magnet::parse(source).map_err(|error| TorrentError::Magnet(error.to_string()))?;
        let origin = "the magnet link";
        let info_hash = magnet.info_hash_v1;
        let info_hash = info_hash.ok_or_else(|| TorrentError::NotVersion1(origin.to_owned()))?;
        let failed = |reason| TorrentError::Fetch {
            address,
            info_hash,
            reason,
        };
        let info = fetch_info(address, info_hash).map_err(failed)?;
        let invalid = |reason| TorrentError::Invalid {
            origin: "the seed's metadata".into(),
            reason,
        };
        let metainfo = Metainfo::parse_info(&info).map_err(|error| invalid(error.to_string()))?;
        Self::from_metainfo(&metainfo, origin)
    }

    fn from_file(path: &Path) -> Result<Self, TorrentError> {
        let shown = path.display().to_string();
        let bytes = std::fs::read(path).map_err(|source| TorrentError::Read {
            path: shown.clone(),
            source,
        })?;
        let origin = format!("{shown:?}");
        let invalid = |reason| TorrentError::Invalid {
            origin: origin.clone(),
            reason,
        };
        let metainfo = Metainfo::parse(&bytes).map_err(|error| invalid(error.to_string()))?;
        Self::from_metainfo(&metainfo, &origin)
    }

    fn from_metainfo(metainfo: &Metainfo, origin: &str) -> Result<Self, TorrentError> {
        let info_hash = metainfo.info_hash_v1;
        let info_hash = info_hash.ok_or_else(|| TorrentError::NotVersion1(origin.to_owned()))?;
        let hashes = metainfo.piece_hashes();
        let hashes: Vec<[u8; 20]> = hashes.as_chunks().0.to_vec();
        let last = metainfo
            .piece_count
            .checked_sub(1)
            .map(proto::ids::PieceIndex);
        let last = last.and_then(|piece| metainfo.piece_size(piece));
        let last_piece_length = last.ok_or_else(|| TorrentError::Empty(origin.to_owned()))?;
        Ok(Self {
            info_hash,
            name: metainfo.name.clone(),
            geometry: Geometry {
                piece_count: metainfo.piece_count,
                piece_length: metainfo.piece_length,
                last_piece_length,
            },
            total_bytes: metainfo.total_length,
            hashes,
        })
    }
}

/// A connection that only speaks as much of the protocol as metadata needs.
struct Fetcher {
    stream: TcpStream,
    deadline: Instant,
    limits: FrameLimits,
    input: Vec<u8>,
}

/// Asks the seed for the raw `info` dictionary, and checks it against `info_hash`.
fn fetch_info(address: SocketAddr, info_hash: InfoHashV1) -> Result<Vec<u8>, String> {
    let deadline = Instant::now() + FETCH;
    let stream = TcpStream::connect_timeout(&address, FETCH).map_err(|error| error.to_string())?;
    let limits = FrameLimits::for_torrent(PIECES_MAX);
    let mut fetcher = Fetcher {
        stream,
        deadline,
        limits,
        input: Vec::new(),
    };
    fetcher.greet(info_hash)?;
    let (id, total_bytes) = fetcher.offer()?;
    let mut info = Vec::with_capacity(total_bytes as usize);
    for piece in 0..metadata_blocks(total_bytes) {
        let mut payload = Vec::new();
        MetadataMessage::Request { piece }.encode(&mut payload);
        fetcher.send(&Message::Extended {
            id,
            payload: &payload,
        })?;
        fetcher.metadata_block(piece, &mut info)?;
    }
    let found: [u8; 20] = Sha1::digest(&info).into();
    if found != info_hash.0 {
        return Err(format!("it sent metadata of {}", InfoHashV1(found)));
    }
    Ok(info)
}

impl Fetcher {
    fn greet(&mut self, info_hash: InfoHashV1) -> Result<(), String> {
        let reserved = Reserved::NONE.with(ReservedBit::EXTENSION_PROTOCOL);
        let peer_id = PeerId(*b"-SB0100-metadata----");
        let greeting = Handshake {
            reserved,
            info_hash,
            peer_id,
        };
        self.stream
            .write_all(&greeting.encode())
            .map_err(|error| error.to_string())?;
        while self.input.len() < HANDSHAKE_BYTES {
            self.receive()?;
        }
        let stage = handshake::parse(&self.input).map_err(|error| error.to_string())?;
        let HandshakeStage::Complete(theirs) = stage else {
            return Err("its handshake is incomplete".to_owned());
        };
        if theirs.info_hash != info_hash {
            return Err(format!("it answered for {}", theirs.info_hash));
        }
        if !theirs.reserved.extension_protocol() {
            return Err("it does not speak the extension protocol (BEP 10)".to_owned());
        }
        self.input.drain(..HANDSHAKE_BYTES);
        let messages = MessageIds::ours(&[Extension::Metadata]);
        let greeting = ExtensionHandshake {
            messages,
            ..ExtensionHandshake::default()
        };
        let mut payload = Vec::new();
        greeting.encode(&mut payload);
        self.send(&Message::Extended {
            id: HANDSHAKE_ID,
            payload: &payload,
        })
    }

    /// Waits for the seed's extension handshake: its id for metadata messages, and the metadata's
    /// length.
    fn offer(&mut self) -> Result<(u8, u32), String> {
        let payload = self.extended(HANDSHAKE_ID)?;
        let theirs = ExtensionHandshake::parse(&payload).map_err(|error| error.to_string())?;
        let id = theirs.messages.get(Extension::Metadata);
        match (id, theirs.metadata_bytes) {
            (Some(id), Some(total_bytes)) => Ok((id.get(), total_bytes)),
            _ => Err("it offers no metadata (BEP 9)".to_owned()),
        }
    }

    fn metadata_block(&mut self, wanted: u32, info: &mut Vec<u8>) -> Result<(), String> {
        loop {
            let payload = self.extended(Extension::Metadata.our_id().get())?;
            match MetadataMessage::parse(&payload).map_err(|error| error.to_string())? {
                MetadataMessage::Data { piece, block, .. } if piece == wanted => {
                    info.extend_from_slice(block);
                    return Ok(());
                }
                MetadataMessage::Reject { piece } => {
                    return Err(format!("it rejected metadata block {piece}"));
                }
                _ => {}
            }
        }
    }

    /// The payload of the next extended message with this id; other messages are skipped.
    fn extended(&mut self, wanted: u8) -> Result<Vec<u8>, String> {
        loop {
            let decoded =
                wire::decode(&self.input, &self.limits).map_err(|error| error.to_string())?;
            let Decoded::Message { message, consumed } = decoded else {
                self.receive()?;
                continue;
            };
            let found = match message {
                Message::Extended { id, payload } if id == wanted => Some(payload.to_vec()),
                _ => None,
            };
            self.input.drain(..consumed);
            if let Some(payload) = found {
                return Ok(payload);
            }
        }
    }

    fn send(&mut self, message: &Message<'_>) -> Result<(), String> {
        let mut out = Vec::new();
        message.encode(&mut out);
        self.stream
            .write_all(&out)
            .map_err(|error| error.to_string())
    }

    fn receive(&mut self) -> Result<(), String> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(format!("nothing useful came within {} s", FETCH.as_secs()));
        }
        self.stream
            .set_read_timeout(Some(left))
            .map_err(|error| error.to_string())?;
        let mut buffer = [0; 32 << 10];
        match self.stream.read(&mut buffer) {
            Ok(0) => Err("it closed the connection (wrong info-hash?)".to_owned()),
            Ok(count) => {
                self.input.extend_from_slice(&buffer[..count]);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }
}
