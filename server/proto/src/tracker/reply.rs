//! The replies to announces: read as a client, written as a tracker.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{PeerFormat, TrackerPeer};
use crate::bencode::{self, Document, Encoder, Kind, Value};
use crate::ids::PeerId;
use crate::limits;
use crate::text::printable;

/// How long to wait between announces.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Interval {
    /// What the tracker asked for in seconds, whatever it is; `None` if nothing or nothing of 64
    /// bits.
    pub raw: Option<i64>,
    /// What we do, in seconds: that, from [`limits::ANNOUNCE_INTERVAL_SECONDS_MIN`] to
    /// [`limits::ANNOUNCE_INTERVAL_SECONDS_MAX`].
    pub seconds: u32,
}

impl Interval {
    /// An interval of so many seconds, clamped.
    pub fn from_seconds(seconds: i64) -> Self {
        Interval {
            raw: Some(seconds),
            seconds: clamped_seconds(seconds),
        }
    }
}

impl Default for Interval {
    /// What is done when a tracker names no interval.
    fn default() -> Self {
        Interval {
            raw: None,
            seconds: limits::ANNOUNCE_INTERVAL_SECONDS,
        }
    }
}

fn clamped_seconds(seconds: i64) -> u32 {
    let least = i64::from(limits::ANNOUNCE_INTERVAL_SECONDS_MIN);
    let most = i64::from(limits::ANNOUNCE_INTERVAL_SECONDS_MAX);
    u32::try_from(seconds.clamp(least, most)).unwrap_or(limits::ANNOUNCE_INTERVAL_SECONDS_MAX)
}

/// When a tracker that failed may be asked again (BEP 31).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RetryIn {
    /// Not for this torrent.
    Never,
    /// After so many minutes, from 1 to the longest announce interval.
    Minutes(u32),
}

/// The tracker refuses.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Failure {
    /// Its reason: printable, at most [`limits::TRACKER_TEXT_CHARS_MAX`] characters.
    pub reason: String,
    /// When to ask again, if it says so.
    pub retry_in: Option<RetryIn>,
}

/// The tracker answers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AnnounceSuccess {
    /// How long to wait until the next announce.
    pub interval: Interval,
    /// How long to wait at least, if the tracker says so.
    pub min_interval: Option<Interval>,
    /// The peers, each address once, at most [`limits::TRACKER_REPLY_PEERS_MAX`].
    pub peers: Vec<TrackerPeer>,
    /// Peers of the reply that are not in `peers`: port 0, no unicast address, a host name,
    /// duplicate, cut short, or one too many.
    pub peers_dropped: usize,
    /// What to send back as `trackerid`, at most [`limits::TRACKER_ID_BYTES_MAX`] long.
    pub tracker_id: Option<Vec<u8>>,
    /// A warning: printable, cut like a failure reason.
    pub warning: Option<String>,
    /// How many seeds the tracker knows.
    pub complete: Option<u32>,
    /// How many peers it knows that are not seeds.
    pub incomplete: Option<u32>,
    /// How often the torrent was completed.
    pub downloaded: Option<u32>,
    /// Our address as the tracker sees it (BEP 24). Hearsay.
    pub external_ip: Option<IpAddr>,
}

/// A tracker's reply to an announce.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AnnounceReply {
    /// The tracker refuses.
    Failure(Failure),
    /// The tracker answers.
    Success(AnnounceSuccess),
}

/// Why a body is no tracker's reply.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReplyError {
    /// The body is not bencode.
    #[error("the tracker's reply begins with \"{start}\" and is not what a tracker sends: {error}")]
    Bencode {
        /// The first bytes of the body, printable.
        start: String,
        /// What is wrong with it.
        error: bencode::Error,
    },
    /// A field has the wrong type.
    #[error("the tracker's reply: {field} is {found}, due is {due}")]
    Field {
        /// The field.
        field: &'static str,
        /// What it is.
        found: Kind,
        /// What it should be.
        due: &'static str,
    },
}

/// Reads the body of a reply.
pub(super) fn document(body: &[u8]) -> Result<Document<'_>, ReplyError> {
    let document = Document::parse(body, &bencode::Limits::TRACKER_REPLY).map_err(|error| {
        let start = &body[..body.len().min(64)];
        ReplyError::Bencode {
            start: printable(start, 40),
            error,
        }
    })?;
    match document.root().kind() {
        Kind::Dict => Ok(document),
        found => Err(ReplyError::Field {
            field: "the body",
            found,
            due: "a dictionary",
        }),
    }
}

impl Failure {
    /// The refusal in a reply, if it is one.
    pub(super) fn find(root: Value<'_, '_>) -> Option<Self> {
        let reason = root.get(b"failure reason")?;
        let text = reason.as_bytes().unwrap_or_else(|| reason.raw());
        Some(Failure {
            reason: printable(text, limits::TRACKER_TEXT_CHARS_MAX),
            retry_in: root.get(b"retry in").and_then(retry_in),
        })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.begin_dict();
        encoder.key(b"failure reason").bytes(self.reason.as_bytes());
        if let Some(retry_in) = self.retry_in {
            match retry_in {
                RetryIn::Never => encoder.key(b"retry in").bytes(b"never"),
                RetryIn::Minutes(minutes) => encoder.key(b"retry in").integer(minutes.into()),
            };
        }
        encoder.end();
        encoder.finish()
    }
}

/// A number of minutes, as an integer or as text, or `never`.
fn retry_in(value: Value<'_, '_>) -> Option<RetryIn> {
    if value.as_bytes() == Some(b"never") {
        return Some(RetryIn::Never);
    }
    let minutes = value
        .as_unsigned()
        .or_else(|| value.as_str()?.parse().ok())?;
    let most = limits::ANNOUNCE_INTERVAL_SECONDS_MAX / 60;
    let minutes = u32::try_from(minutes).unwrap_or(most).clamp(1, most);
    Some(RetryIn::Minutes(minutes))
}

impl AnnounceReply {
    /// Reads the body of a tracker's reply, after decompression. Bytes behind the dictionary are
    /// ignored.
    pub fn parse(body: &[u8]) -> Result<Self, ReplyError> {
        let document = document(body)?;
        let root = document.root();
        match Failure::find(root) {
            Some(failure) => Ok(AnnounceReply::Failure(failure)),
            None => Ok(AnnounceReply::Success(AnnounceSuccess::read(root)?)),
        }
    }

    /// The body of the reply, as a tracker sends it.
    pub fn encode(&self, format: PeerFormat) -> Vec<u8> {
        match self {
            AnnounceReply::Failure(failure) => failure.encode(),
            AnnounceReply::Success(success) => success.encode(format),
        }
    }
}

impl AnnounceSuccess {
    fn read(root: Value<'_, '_>) -> Result<Self, ReplyError> {
        let number = |key: &[u8]| root.get(key).and_then(Value::as_unsigned).map(clamped);
        let mut peers = Peers::default();
        if let Some(value) = root.get(b"peers") {
            peers.read("peers", value, 6)?;
        }
        if let Some(value) = root.get(b"peers6") {
            peers.read("peers6", value, 18)?;
        }
        Ok(AnnounceSuccess {
            interval: root.get(b"interval").and_then(interval).unwrap_or_default(),
            min_interval: root.get(b"min interval").and_then(interval),
            peers: peers.taken,
            peers_dropped: peers.dropped,
            tracker_id: root
                .get(b"tracker id")
                .and_then(Value::as_bytes)
                .filter(|id| id.len() <= limits::TRACKER_ID_BYTES_MAX)
                .map(<[u8]>::to_vec),
            warning: root
                .get(b"warning message")
                .and_then(Value::as_bytes)
                .map(|text| printable(text, limits::TRACKER_TEXT_CHARS_MAX)),
            complete: number(b"complete"),
            incomplete: number(b"incomplete"),
            downloaded: number(b"downloaded"),
            external_ip: root
                .get(b"external ip")
                .and_then(Value::as_bytes)
                .and_then(ip),
        })
    }

    /// Writes the fields in the order of their names, as bencode demands.
    fn encode(&self, format: PeerFormat) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.begin_dict();
        if let Some(count) = self.complete {
            encoder.key(b"complete").integer(count.into());
        }
        if let Some(count) = self.downloaded {
            encoder.key(b"downloaded").integer(count.into());
        }
        if let Some(ip) = self.external_ip {
            match ip {
                IpAddr::V4(ip) => encoder.key(b"external ip").bytes(&ip.octets()),
                IpAddr::V6(ip) => encoder.key(b"external ip").bytes(&ip.octets()),
            };
        }
        if let Some(count) = self.incomplete {
            encoder.key(b"incomplete").integer(count.into());
        }
        encoder
            .key(b"interval")
            .integer(self.interval.seconds.into());
        if let Some(interval) = self.min_interval {
            encoder
                .key(b"min interval")
                .integer(interval.seconds.into());
        }
        match format {
            PeerFormat::Compact => self.encode_compact(&mut encoder),
            PeerFormat::Dictionaries { no_peer_id } => {
                self.encode_dictionaries(&mut encoder, no_peer_id);
            }
        }
        if let Some(id) = &self.tracker_id {
            encoder.key(b"tracker id").bytes(id);
        }
        if let Some(text) = &self.warning {
            encoder.key(b"warning message").bytes(text.as_bytes());
        }
        encoder.end();
        encoder.finish()
    }

    fn encode_compact(&self, encoder: &mut Encoder) {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for peer in &self.peers {
            let port = peer.address.port().to_be_bytes();
            match peer.address.ip() {
                IpAddr::V4(ip) => v4.extend_from_slice(&[&ip.octets()[..], &port].concat()),
                IpAddr::V6(ip) => v6.extend_from_slice(&[&ip.octets()[..], &port].concat()),
            }
        }
        encoder.key(b"peers").bytes(&v4);
        if !v6.is_empty() {
            encoder.key(b"peers6").bytes(&v6);
        }
    }

    fn encode_dictionaries(&self, encoder: &mut Encoder, no_peer_id: bool) {
        encoder.key(b"peers").begin_list();
        for peer in &self.peers {
            encoder.begin_dict();
            encoder
                .key(b"ip")
                .bytes(peer.address.ip().to_string().as_bytes());
            if let Some(id) = peer.peer_id.filter(|_| !no_peer_id) {
                encoder.key(b"peer id").bytes(&id.0);
            }
            encoder.key(b"port").integer(peer.address.port().into());
            encoder.end();
        }
        encoder.end();
    }
}

/// An integer; one that is beyond 64 bits says nothing.
fn interval(value: Value<'_, '_>) -> Option<Interval> {
    value.as_integer().map(Interval::from_seconds)
}

pub(super) fn clamped(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// The peers taken so far.
#[derive(Default)]
struct Peers {
    taken: Vec<TrackerPeer>,
    /// The addresses of `taken`; ordered rather than hashed, because `proto` draws no randomness.
    seen: BTreeSet<SocketAddr>,
    dropped: usize,
}

impl Peers {
    /// Takes the peers of one field: compact ones of `bytes` each, or dictionaries.
    fn read(
        &mut self,
        field: &'static str,
        value: Value<'_, '_>,
        bytes: usize,
    ) -> Result<(), ReplyError> {
        if let Some(compact) = value.as_bytes() {
            self.read_compact(compact, bytes);
            return Ok(());
        }
        let Some(list) = value.list() else {
            let due = "compact peers or a list of them";
            return Err(ReplyError::Field {
                field,
                found: value.kind(),
                due,
            });
        };
        for peer in list {
            let peer_id = peer.get(b"peer id").and_then(Value::as_bytes);
            let peer_id = peer_id.and_then(|id| Some(PeerId(id.try_into().ok()?)));
            self.take(dictionary_address(peer), peer_id);
        }
        Ok(())
    }

    fn read_compact(&mut self, compact: &[u8], bytes: usize) {
        let chunks = compact.chunks_exact(bytes);
        self.dropped += usize::from(!chunks.remainder().is_empty());
        chunks.for_each(|chunk| self.take(compact_address(chunk), None));
    }

    fn take(&mut self, address: Option<SocketAddr>, peer_id: Option<PeerId>) {
        let address = address.filter(|address| is_usable(*address));
        match address {
            Some(address)
                if self.taken.len() < limits::TRACKER_REPLY_PEERS_MAX
                    && self.seen.insert(address) =>
            {
                self.taken.push(TrackerPeer { address, peer_id });
            }
            _ => self.dropped += 1,
        }
    }
}

/// The compact peers of 6 or 18 bytes each that can be used, and how many cannot.
pub(super) fn compact_peers(compact: &[u8], bytes: usize) -> (Vec<TrackerPeer>, usize) {
    let mut peers = Peers::default();
    peers.read_compact(compact, bytes);
    (peers.taken, peers.dropped)
}

/// An address and a port, 6 or 18 bytes.
fn compact_address(bytes: &[u8]) -> Option<SocketAddr> {
    let (address, port) = bytes.split_last_chunk::<2>()?;
    Some(SocketAddr::new(ip(address)?, u16::from_be_bytes(*port)))
}

fn dictionary_address(peer: Value<'_, '_>) -> Option<SocketAddr> {
    let ip: IpAddr = peer.get(b"ip")?.as_str()?.parse().ok()?;
    let port = u16::try_from(peer.get(b"port")?.as_integer()?).ok()?;
    Some(SocketAddr::new(ip.to_canonical(), port))
}

/// 4 or 16 bytes; an IPv4 address that is mapped into IPv6 is an IPv4 address.
fn ip(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::V4(Ipv4Addr::from(octets)));
    }
    let octets = <[u8; 16]>::try_from(bytes).ok()?;
    Some(IpAddr::V6(Ipv6Addr::from(octets)).to_canonical())
}

/// Whether a connection to the address can make sense at all.
fn is_usable(address: SocketAddr) -> bool {
    let ip = address.ip();
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !broadcast
}
