//! The extension protocol (BEP 10): its handshake, and the metadata messages of BEP 9.
//!
//! An extended message is [`crate::wire::Message::Extended`]; its id says which extension it
//! belongs to, and each side chooses the ids under which it wants to *receive*. What is parsed here
//! is what follows that id.
//!
//! Limits: those of [`crate::bencode::Limits::EXTENSION`]. A field of the handshake that has the
//! wrong type or an impossible value is left out rather than an error, because many clients send
//! odd ones and none of them is needed; keys that we do not know are not kept. Metadata messages
//! are strict, because what they carry is asked for and paid for.
//!
//! Not here: the peer exchange messages ([`crate::pex`]), and the decision which metadata request is
//! served.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::{NonZeroU8, NonZeroU16};

use crate::bencode::{self, Dict, Document, Encoder, Value};
use crate::ids::PieceIndex;
use crate::limits;
use crate::text::printable;

/// The id of the extension handshake itself.
pub const HANDSHAKE_ID: u8 = 0;

/// The length of a block of metadata, except the last (BEP 9), in bytes.
pub const METADATA_BLOCK_BYTES: u32 = 16 << 10;

/// The extensions that we know, in the order of their names.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Extension {
    /// `lt_donthave`, BEP 54: takes a have back.
    DontHave,
    /// `upload_only`: the message form of the handshake's field of this name.
    UploadOnly,
    /// `ut_holepunch`, BEP 55.
    Holepunch,
    /// `ut_metadata`, BEP 9.
    Metadata,
    /// `ut_pex`, BEP 11.
    PeerExchange,
}

impl Extension {
    /// Every extension that we know.
    pub const ALL: [Extension; 5] = [
        Extension::DontHave,
        Extension::UploadOnly,
        Extension::Holepunch,
        Extension::Metadata,
        Extension::PeerExchange,
    ];

    /// Its name in the handshake's `m` dictionary.
    pub const fn name(self) -> &'static str {
        match self {
            Extension::DontHave => "lt_donthave",
            Extension::UploadOnly => "upload_only",
            Extension::Holepunch => "ut_holepunch",
            Extension::Metadata => "ut_metadata",
            Extension::PeerExchange => "ut_pex",
        }
    }

    /// The id under which we receive its messages, when we say so in our handshake. Never 0.
    pub const fn our_id(self) -> NonZeroU8 {
        NonZeroU8::MIN.saturating_add(self as u8)
    }

    /// The extension whose messages we receive under `id`.
    pub fn from_our_id(id: u8) -> Option<Extension> {
        Self::ALL
            .into_iter()
            .find(|extension| extension.our_id().get() == id)
    }

    fn from_name(name: &[u8]) -> Option<Extension> {
        Self::ALL
            .into_iter()
            .find(|extension| extension.name().as_bytes() == name)
    }
}

/// The ids under which one side receives the messages of extensions: the `m` dictionary.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MessageIds {
    /// `None`: not mentioned. `Some(0)`: switched off.
    ids: [Option<u8>; Extension::ALL.len()],
}

impl MessageIds {
    /// The ids that we announce when we speak `extensions`.
    pub fn ours(extensions: &[Extension]) -> Self {
        let mut ids = MessageIds::default();
        for &extension in extensions {
            ids.set(extension, extension.our_id().get());
        }
        ids
    }

    /// Announces `id` for `extension`; 0 switches the extension off.
    pub fn set(&mut self, extension: Extension, id: u8) {
        self.ids[extension as usize] = Some(id);
    }

    /// The id to send messages of `extension` with; `None` if the side does not take them.
    pub fn get(&self, extension: Extension) -> Option<NonZeroU8> {
        self.ids[extension as usize].and_then(NonZeroU8::new)
    }

    /// Takes over what a later handshake of the same side says: it mentions only what changes (BEP
    /// 10).
    pub fn update(&mut self, later: &MessageIds) {
        for (id, later) in self.ids.iter_mut().zip(later.ids) {
            *id = later.or(*id);
        }
    }

    fn parse(dict: Dict<'_, '_>) -> Self {
        let mut ids = MessageIds::default();
        for entry in dict.entries() {
            let id = entry
                .value
                .as_integer()
                .and_then(|id| u8::try_from(id).ok());
            if let (Some(extension), Some(id)) = (Extension::from_name(entry.key), id) {
                ids.ids[extension as usize].get_or_insert(id);
            }
        }
        ids
    }
}

/// The extension handshake. Every field is optional on the wire, and absent when its value makes no
/// sense.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ExtensionHandshake {
    /// `m`: the extensions that the sender takes, and their ids.
    pub messages: MessageIds,
    /// `v`: the sender's name and version, printable, at most [`limits::CLIENT_TEXT_CHARS_MAX`]
    /// long.
    pub client: Option<String>,
    /// `p`: the TCP port on which the sender takes connections.
    pub listen_port: Option<NonZeroU16>,
    /// `reqq`: how many requests the sender queues, at most [`limits::PEER_REQUEST_QUEUE_MAX`].
    pub request_queue: Option<u32>,
    /// `yourip`: the receiver's address as the sender sees it. Hearsay.
    pub your_ip: Option<IpAddr>,
    /// `ipv4`: the sender's IPv4 address. Hearsay.
    pub ipv4: Option<Ipv4Addr>,
    /// `ipv6`: the sender's IPv6 address. Hearsay.
    pub ipv6: Option<Ipv6Addr>,
    /// `metadata_size` (BEP 9): the length of the `info` dictionary in bytes, from 1 to
    /// [`limits::METAINFO_BYTES_MAX`]. Hearsay until the hash agrees.
    pub metadata_bytes: Option<u32>,
    /// `upload_only` (BEP 21): the sender downloads nothing more.
    pub upload_only: bool,
    /// `complete_ago`: seconds since the sender completed the torrent.
    pub complete_ago_seconds: Option<u32>,
    /// `e`: the sender prefers encrypted connections.
    pub prefers_encryption: bool,
}

/// The piece that a don't-have message takes back (BEP 54); whether the torrent has it is the engine's check.
pub fn dont_have(payload: &[u8]) -> Option<PieceIndex> {
    Some(PieceIndex(u32::from_be_bytes(payload.try_into().ok()?)))
}

/// Why an extended message was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ExtensionError {
    /// The payload is not bencode, or beyond the limits.
    #[error("extended message: {0}")]
    Bencode(#[from] bencode::Error),
    /// The payload is bencode, but no dictionary.
    #[error("extended message: the payload is {0}, a dictionary is due")]
    NotDictionary(bencode::Kind),
    /// A field that the message cannot do without is absent, has the wrong type or an impossible
    /// value.
    #[error("ut_metadata: {field} is {}, due is {due}", shown(*value))]
    Metadata {
        /// The field.
        field: &'static str,
        /// Its value; `None` if it is absent, no integer or beyond 64 bits.
        value: Option<i64>,
        /// What would have been right.
        due: &'static str,
    },
    /// The block of a data message does not have the length that its index and the total size
    /// imply.
    #[error("ut_metadata: block {piece} of {total_bytes} bytes has {found} bytes, due are {due}")]
    BlockLength {
        /// The index of the block.
        piece: u32,
        /// The length of the whole metadata.
        total_bytes: u32,
        /// The bytes that came.
        found: usize,
        /// The bytes that should have come.
        due: u32,
    },
}

impl ExtensionHandshake {
    /// Parses the payload of an extended message with id [`HANDSHAKE_ID`].
    pub fn parse(payload: &[u8]) -> Result<Self, ExtensionError> {
        let document = Document::parse(payload, &bencode::Limits::EXTENSION)?;
        let root = document.root();
        let dict = root
            .dict()
            .ok_or(ExtensionError::NotDictionary(root.kind()))?;
        let mut handshake = ExtensionHandshake::default();
        let mut messages = None;
        for entry in dict.entries() {
            let value = entry.value;
            match entry.key {
                b"m" => messages = messages.or_else(|| value.dict().map(MessageIds::parse)),
                b"v" => set(&mut handshake.client, || client_text(value)),
                b"p" => set(&mut handshake.listen_port, || port(value)),
                b"reqq" => set(&mut handshake.request_queue, || {
                    at_least_one(value).map(|queue| queue.min(limits::PEER_REQUEST_QUEUE_MAX))
                }),
                b"yourip" => set(&mut handshake.your_ip, || address(value)),
                b"ipv4" => set(&mut handshake.ipv4, || {
                    Some(Ipv4Addr::from(<[u8; 4]>::try_from(value.as_bytes()?).ok()?))
                }),
                b"ipv6" => set(&mut handshake.ipv6, || {
                    Some(Ipv6Addr::from(
                        <[u8; 16]>::try_from(value.as_bytes()?).ok()?,
                    ))
                }),
                b"metadata_size" => set(&mut handshake.metadata_bytes, || metadata_bytes(value)),
                b"complete_ago" => set(&mut handshake.complete_ago_seconds, || {
                    Some(clamped(value.as_unsigned()?))
                }),
                b"upload_only" => handshake.upload_only |= is_one(value),
                b"e" => handshake.prefers_encryption |= is_one(value),
                _ => {}
            }
        }
        handshake.messages = messages.unwrap_or_default();
        Ok(handshake)
    }

    /// Appends the payload of the extended message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut encoder = Encoder::append_to(std::mem::take(out));
        encoder.begin_dict();
        if let Some(seconds) = self.complete_ago_seconds {
            encoder.key(b"complete_ago").integer(seconds.into());
        }
        if self.prefers_encryption {
            encoder.key(b"e").integer(1);
        }
        if let Some(address) = self.ipv4 {
            encoder.key(b"ipv4").bytes(&address.octets());
        }
        if let Some(address) = self.ipv6 {
            encoder.key(b"ipv6").bytes(&address.octets());
        }
        encoder.key(b"m").begin_dict();
        for extension in Extension::ALL {
            if let Some(id) = self.messages.ids[extension as usize] {
                encoder.key(extension.name().as_bytes()).integer(id.into());
            }
        }
        encoder.end();
        if let Some(bytes) = self.metadata_bytes {
            encoder.key(b"metadata_size").integer(bytes.into());
        }
        if let Some(port) = self.listen_port {
            encoder.key(b"p").integer(port.get().into());
        }
        if let Some(queue) = self.request_queue {
            encoder.key(b"reqq").integer(queue.into());
        }
        if self.upload_only {
            encoder.key(b"upload_only").integer(1);
        }
        if let Some(client) = &self.client {
            encoder.key(b"v").bytes(client.as_bytes());
        }
        if let Some(address) = self.your_ip {
            match address {
                IpAddr::V4(address) => encoder.key(b"yourip").bytes(&address.octets()),
                IpAddr::V6(address) => encoder.key(b"yourip").bytes(&address.octets()),
            };
        }
        encoder.end();
        *out = encoder.finish();
    }
}

/// Sets what is not set yet: of duplicate keys the first one that makes sense counts.
fn set<T>(field: &mut Option<T>, value: impl FnOnce() -> Option<T>) {
    if field.is_none() {
        *field = value();
    }
}

fn client_text(value: Value<'_, '_>) -> Option<String> {
    let text = printable(value.as_bytes()?, limits::CLIENT_TEXT_CHARS_MAX);
    (!text.is_empty()).then_some(text)
}

fn port(value: Value<'_, '_>) -> Option<NonZeroU16> {
    NonZeroU16::new(u16::try_from(value.as_integer()?).ok()?)
}

fn address(value: Value<'_, '_>) -> Option<IpAddr> {
    let bytes = value.as_bytes()?;
    match bytes.len() {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        16 => Some(IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?)),
        _ => None,
    }
}

fn metadata_bytes(value: Value<'_, '_>) -> Option<u32> {
    let bytes = value.as_unsigned()?;
    (1..=limits::METAINFO_BYTES_MAX as u64)
        .contains(&bytes)
        .then(|| clamped(bytes))
}

fn at_least_one(value: Value<'_, '_>) -> Option<u32> {
    value
        .as_unsigned()
        .filter(|&number| number > 0)
        .map(clamped)
}

fn clamped(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn is_one(value: Value<'_, '_>) -> bool {
    value.as_integer() == Some(1)
}

/// A message of `ut_metadata` (BEP 9): how a peer that has only the info-hash gets the `info`
/// dictionary. What BEP 9 calls a piece here is a block of [`METADATA_BLOCK_BYTES`], no piece of
/// the torrent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MetadataMessage<'a> {
    /// Asks for a block.
    Request {
        /// Its index, below the number of blocks in [`limits::METAINFO_BYTES_MAX`].
        piece: u32,
    },
    /// Brings a block. Its length is right for its index and the total.
    Data {
        /// Its index.
        piece: u32,
        /// The length of the whole `info` dictionary, as the sender says, from 1 to
        /// [`limits::METAINFO_BYTES_MAX`]. Hearsay.
        total_bytes: u32,
        /// The block.
        block: &'a [u8],
    },
    /// The sender does not have the metadata, or does not serve this request.
    Reject {
        /// The index of the block that was asked for.
        piece: u32,
    },
    /// A kind that BEP 9 does not have; to be ignored.
    Unknown {
        /// `msg_type`.
        kind: i64,
    },
}

impl<'a> MetadataMessage<'a> {
    /// Parses the payload of an extended message with our id for [`Extension::Metadata`].
    pub fn parse(payload: &'a [u8]) -> Result<Self, ExtensionError> {
        let document = Document::parse(payload, &bencode::Limits::EXTENSION)?;
        let root = document.root();
        let dict = root
            .dict()
            .ok_or(ExtensionError::NotDictionary(root.kind()))?;
        let field = |key: &[u8]| dict.get(key).and_then(Value::as_integer);
        let piece = || {
            let piece = field(b"piece");
            let blocks = metadata_blocks(limits::METAINFO_BYTES_MAX as u32);
            in_range(piece, 0, blocks - 1).ok_or(ExtensionError::Metadata {
                field: "piece",
                value: piece,
                due: "the index of a block of 16 KiB in at most 64 MiB of metadata",
            })
        };
        match field(b"msg_type") {
            Some(0) => Ok(MetadataMessage::Request { piece: piece()? }),
            Some(1) => Self::data(piece()?, field(b"total_size"), document.trailing()),
            Some(2) => Ok(MetadataMessage::Reject { piece: piece()? }),
            Some(kind) => Ok(MetadataMessage::Unknown { kind }),
            None => Err(ExtensionError::Metadata {
                field: "msg_type",
                value: None,
                due: "0 (request), 1 (data) or 2 (reject)",
            }),
        }
    }

    /// Checks a data message.
    fn data(piece: u32, total: Option<i64>, block: &'a [u8]) -> Result<Self, ExtensionError> {
        let total_max = limits::METAINFO_BYTES_MAX as u32;
        let total_bytes = in_range(total, 1, total_max).ok_or(ExtensionError::Metadata {
            field: "total_size",
            value: total,
            due: "the length of the metadata, from 1 to 67108864 bytes",
        })?;
        let due = metadata_block_bytes(total_bytes, piece).ok_or(ExtensionError::Metadata {
            field: "piece",
            value: Some(piece.into()),
            due: "the index of a block within total_size",
        })?;
        if block.len() != due as usize {
            let found = block.len();
            return Err(ExtensionError::BlockLength {
                piece,
                total_bytes,
                found,
                due,
            });
        }
        Ok(MetadataMessage::Data {
            piece,
            total_bytes,
            block,
        })
    }

    /// Appends the payload of the extended message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (kind, piece, total_bytes, block) = match *self {
            MetadataMessage::Request { piece } => (0, Some(piece), None, &[][..]),
            MetadataMessage::Data {
                piece,
                total_bytes,
                block,
            } => (1, Some(piece), Some(total_bytes), block),
            MetadataMessage::Reject { piece } => (2, Some(piece), None, &[][..]),
            MetadataMessage::Unknown { kind } => (kind, None, None, &[][..]),
        };
        let mut encoder = Encoder::append_to(std::mem::take(out));
        encoder.begin_dict();
        encoder.key(b"msg_type").integer(kind);
        if let Some(piece) = piece {
            encoder.key(b"piece").integer(piece.into());
        }
        if let Some(bytes) = total_bytes {
            encoder.key(b"total_size").integer(bytes.into());
        }
        encoder.end();
        *out = encoder.finish();
        out.extend_from_slice(block);
    }
}

/// How many blocks metadata of `total_bytes` has.
pub const fn metadata_blocks(total_bytes: u32) -> u32 {
    total_bytes.div_ceil(METADATA_BLOCK_BYTES)
}

/// The length of block `piece` of metadata of `total_bytes`, in bytes; `None` if there is no such
/// block.
pub fn metadata_block_bytes(total_bytes: u32, piece: u32) -> Option<u32> {
    let begin = piece.checked_mul(METADATA_BLOCK_BYTES)?;
    let rest = total_bytes.checked_sub(begin).filter(|&rest| rest > 0)?;
    Some(rest.min(METADATA_BLOCK_BYTES))
}

/// An integer field in an error.
fn shown(value: Option<i64>) -> String {
    value.map_or_else(
        || "absent or no integer of 64 bits".to_owned(),
        |value| value.to_string(),
    )
}

fn in_range(value: Option<i64>, min: u32, max: u32) -> Option<u32> {
    u32::try_from(value?)
        .ok()
        .filter(|number| (min..=max).contains(number))
}

#[cfg(test)]
mod tests;
