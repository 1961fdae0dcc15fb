//! The UDP tracker protocol, both sides: connect, announce, scrape and error datagrams (BEP 15) and
//! the URL data that a client passes on with an announce (BEP 41).
//!
//! As a client: [`UdpRequest::encode`], [`UdpReply::decode`]. As a tracker: [`UdpRequest::decode`],
//! which borrows from the datagram and allocates nothing, and [`UdpReply::encode`], or
//! [`encode_announce_reply`] for peers that are not in a vector.
//!
//! Compact peers have the length of the address family that the datagrams travel by, which the
//! datagram itself does not say: it is an argument. Bytes behind what is known are ignored, because
//! the BEP wants datagrams to be allowed to grow; a datagram that is shorter than due is an error.
//!
//! Limits: no decoder allocates more than a few times its datagram, whose length the kernel bounds;
//! [`limits::UDP_SCRAPE_HASHES_MAX`] torrents in a scrape and as many peers in a reply as one may
//! have, [`limits::TRACKER_REPLY_PEERS_MAX`]: far more than the 74 that others expect.
//!
//! Not here: sockets, repetition, which connection ids are valid, and the authentication that an
//! old draft of the protocol had.

#[cfg(test)]
mod tests;

use std::net::SocketAddr;

use super::reply::compact_peers;
use super::{AnnounceEvent, AnnounceSuccess, Failure, Interval, ScrapeFile};
use crate::ids::{InfoHashV1, PeerId};
use crate::limits;
use crate::text::printable;

/// What stands in a connect request where others have the connection id.
pub const UDP_PROTOCOL: u64 = 0x0417_2710_1980;
/// The head of a reply: action and transaction.
const REPLY_HEAD_BYTES: usize = 8;
/// The head of a request: connection, action and transaction.
const REQUEST_HEAD_BYTES: usize = 16;
/// An announce without options.
const ANNOUNCE_BYTES: usize = 98;
/// An announce reply without peers.
const ANNOUNCE_REPLY_BYTES: usize = 20;
const INFO_HASH_BYTES: usize = 20;
/// What a scrape reply says of one torrent.
const SCRAPE_FILE_BYTES: usize = 12;

const CONNECT: u32 = 0;
const ANNOUNCE: u32 = 1;
const SCRAPE: u32 = 2;
const ERROR: u32 = 3;

/// BEP 41: ends the options, though bytes may follow.
const OPTION_END: u8 = 0;
/// BEP 41: nothing, in one byte.
const OPTION_NOTHING: u8 = 1;
/// BEP 41: a part of the URL.
const OPTION_URL_DATA: u8 = 2;
/// The length of an option is one byte.
const OPTION_BYTES_MAX: usize = 255;

/// The address family by which datagrams travel, and so the length of compact peers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum AddressFamily {
    /// IPv4: 6 bytes a peer.
    V4,
    /// IPv6: 18 bytes a peer.
    V6,
}

impl AddressFamily {
    /// The family of an address as it stands; an IPv4 address that is mapped into IPv6 counts as
    /// IPv4, since that is how its datagrams travel.
    pub const fn of(address: SocketAddr) -> Self {
        match address.ip().to_canonical() {
            std::net::IpAddr::V4(_) => AddressFamily::V4,
            std::net::IpAddr::V6(_) => AddressFamily::V6,
        }
    }

    /// The length of one compact peer, in bytes.
    pub const fn peer_bytes(self) -> usize {
        match self {
            AddressFamily::V4 => 6,
            AddressFamily::V6 => 18,
        }
    }
}

/// What a client chooses so that it knows the reply: the tracker sends it back.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TransactionId(pub u32);

/// What a tracker gives a client that has proved its address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct UdpConnectionId(pub u64);

/// A client's request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UdpRequest<'a> {
    /// Asks for a connection id.
    Connect {
        /// See [`TransactionId`].
        transaction: TransactionId,
    },
    /// Announces.
    Announce {
        /// Proves the client's address.
        connection: UdpConnectionId,
        /// See [`TransactionId`].
        transaction: TransactionId,
        /// What is announced.
        announce: UdpAnnounce,
        /// What else the URL said.
        url_data: UrlData<'a>,
    },
    /// Asks about torrents.
    Scrape {
        /// Proves the client's address.
        connection: UdpConnectionId,
        /// See [`TransactionId`].
        transaction: TransactionId,
        /// Which.
        info_hashes: InfoHashes<'a>,
    },
}

/// What an announce says. It is small and holds no references, so that a tracker may pass it on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UdpAnnounce {
    /// The torrent: its v1 info-hash, or the first 20 bytes of the v2 one (BEP 52).
    pub info_hash: InfoHashV1,
    /// How the client calls itself.
    pub peer_id: PeerId,
    /// Payload bytes received since the `started` event.
    pub downloaded_bytes: u64,
    /// Bytes still missing; 0 makes the client a seed.
    pub left_bytes: u64,
    /// Payload bytes sent since the `started` event.
    pub uploaded_bytes: u64,
    /// Why it announces; [`AnnounceEvent::Paused`] has no number and is sent as none.
    pub event: AnnounceEvent,
    /// The client's IPv4 address as it says, 0 if it does not. A tracker has to know why it would
    /// believe that.
    pub ip: u32,
    /// Proves to the tracker that the client is the same one from another address.
    pub key: u32,
    /// How many peers the client wants; `None` leaves it to the tracker. At most
    /// [`limits::TRACKER_REPLY_PEERS_MAX`] when decoded.
    pub peers_wanted: Option<u32>,
    /// The TCP port on which it takes connections.
    pub port: u16,
}

/// The URL data of an announce (BEP 41): path and query of the tracker's URL, for trackers that
/// tell users apart by them.
#[derive(Clone, Copy, Debug)]
pub struct UrlData<'a>(UrlBytes<'a>);

#[derive(Clone, Copy, Debug)]
enum UrlBytes<'a> {
    /// As a client has it.
    Plain(&'a [u8]),
    /// The options of a datagram.
    Options(&'a [u8]),
}

impl<'a> UrlData<'a> {
    /// None.
    pub const NONE: UrlData<'static> = UrlData(UrlBytes::Plain(&[]));

    /// What a client sends: path and query of its tracker's URL. What exceeds
    /// [`limits::URL_BYTES_MAX`] is left out.
    pub fn new(path_and_query: &'a [u8]) -> Self {
        let most = path_and_query.len().min(limits::URL_BYTES_MAX);
        UrlData(UrlBytes::Plain(&path_and_query[..most]))
    }

    /// The parts, in order; together they are the path and query.
    pub fn parts(&self) -> UrlParts<'a> {
        UrlParts(self.0)
    }

    /// The parts joined. No longer than the datagram that it came from.
    pub fn to_vec(&self) -> Vec<u8> {
        self.parts().flatten().copied().collect()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.parts().all(<[u8]>::is_empty)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        for part in self.parts() {
            for chunk in part.chunks(OPTION_BYTES_MAX) {
                out.push(OPTION_URL_DATA);
                // A chunk is at most 255 bytes long.
                out.push(u8::try_from(chunk.len()).unwrap_or(u8::MAX));
                out.extend_from_slice(chunk);
            }
        }
    }
}

impl PartialEq for UrlData<'_> {
    /// However it is cut into options.
    fn eq(&self, other: &Self) -> bool {
        self.parts().flatten().eq(other.parts().flatten())
    }
}

impl Eq for UrlData<'_> {}

/// See [`UrlData::parts`].
#[derive(Clone, Debug)]
pub struct UrlParts<'a>(UrlBytes<'a>);

impl<'a> Iterator for UrlParts<'a> {
    type Item = &'a [u8];

    /// Skips options that we do not know. One that is cut short ends them: what clients append that
    /// know nothing of BEP 41 must not spoil their announce.
    fn next(&mut self) -> Option<&'a [u8]> {
        let options = match &mut self.0 {
            UrlBytes::Plain(bytes) => {
                let all = std::mem::take(bytes);
                return (!all.is_empty()).then_some(all);
            }
            UrlBytes::Options(options) => options,
        };
        loop {
            let (&kind, rest) = options.split_first()?;
            match kind {
                OPTION_END => *options = &[],
                OPTION_NOTHING => *options = rest,
                _ => {
                    let (&length, rest) = rest.split_first()?;
                    let (data, rest) = rest.split_at_checked(usize::from(length))?;
                    *options = rest;
                    if kind == OPTION_URL_DATA {
                        return Some(data);
                    }
                }
            }
        }
    }
}

/// The torrents of a scrape request, from one to [`limits::UDP_SCRAPE_HASHES_MAX`]; one may stand
/// there twice, and is answered twice.
#[derive(Clone, Copy, Debug)]
pub struct InfoHashes<'a>(HashBytes<'a>);

#[derive(Clone, Copy, Debug)]
enum HashBytes<'a> {
    List(&'a [InfoHashV1]),
    /// A multiple of 20 bytes.
    Wire(&'a [u8]),
}

impl<'a> InfoHashes<'a> {
    /// What a client asks for; those beyond [`limits::UDP_SCRAPE_HASHES_MAX`] are left out.
    pub fn new(info_hashes: &'a [InfoHashV1]) -> Self {
        let most = info_hashes.len().min(limits::UDP_SCRAPE_HASHES_MAX);
        InfoHashes(HashBytes::List(&info_hashes[..most]))
    }

    /// How many.
    pub fn count(&self) -> usize {
        match self.0 {
            HashBytes::List(list) => list.len(),
            HashBytes::Wire(bytes) => bytes.len() / INFO_HASH_BYTES,
        }
    }

    /// Each, in order.
    pub fn iter(&self) -> impl Iterator<Item = InfoHashV1> + 'a {
        let (list, bytes): (&[InfoHashV1], &[u8]) = match self.0 {
            HashBytes::List(list) => (list, &[]),
            HashBytes::Wire(bytes) => (&[], bytes),
        };
        let (hashes, _) = bytes.as_chunks::<INFO_HASH_BYTES>();
        let wire = hashes.iter().map(|hash| InfoHashV1(*hash));
        list.iter().copied().chain(wire)
    }
}

impl PartialEq for InfoHashes<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for InfoHashes<'_> {}

/// A tracker's reply.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum UdpReply {
    /// A connection id, good for a minute.
    Connect {
        /// That of the request.
        transaction: TransactionId,
        /// What later requests have to carry.
        connection: UdpConnectionId,
    },
    /// The answer to an announce.
    Announce {
        /// That of the request.
        transaction: TransactionId,
        /// The answer; only interval, counts and peers can be said by UDP.
        success: AnnounceSuccess,
    },
    /// The answer to a scrape, in the order of the request.
    Scrape {
        /// That of the request.
        transaction: TransactionId,
        /// What the tracker knows; all zeros for a torrent that it does not know.
        files: Vec<ScrapeFile>,
    },
    /// The tracker refuses.
    Error {
        /// That of the request.
        transaction: TransactionId,
        /// Its reason; `retry in` cannot be said by UDP.
        failure: Failure,
    },
}

/// Why a datagram is not what it should be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum UdpError {
    /// It is cut short.
    #[error("{what} of {bytes} bytes, at least {due} are due")]
    Short {
        /// What it would be.
        what: &'static str,
        /// Its length.
        bytes: usize,
        /// The least length.
        due: usize,
    },
    /// A connect request without the protocol's number.
    #[error("a connect request for another protocol")]
    Protocol,
    /// An action that does not exist, or not in this direction.
    #[error("the action {0}, which is none")]
    Action(u32),
    /// A scrape that names too many torrents.
    #[error(
        "a scrape of {count} torrents, at most {} are answered",
        limits::UDP_SCRAPE_HASHES_MAX
    )]
    TooManyHashes {
        /// How many.
        count: usize,
    },
}

/// The connection id and transaction of a request, whatever else it is: a tracker checks the first
/// before it looks at the rest, and an error reply needs the second. None if it is too short, which
/// deserves no answer.
pub fn udp_request_head(datagram: &[u8]) -> Option<(UdpConnectionId, TransactionId)> {
    let mut fields = Fields(datagram);
    let connection = UdpConnectionId(fields.u64()?);
    fields.u32()?;
    Some((connection, TransactionId(fields.u32()?)))
}

/// The transaction of a reply, whatever else it is.
pub fn udp_reply_transaction(datagram: &[u8]) -> Option<TransactionId> {
    let mut fields = Fields(datagram);
    fields.u32()?;
    Some(TransactionId(fields.u32()?))
}

impl<'a> UdpRequest<'a> {
    /// Reads a datagram that a client sent.
    pub fn decode(datagram: &'a [u8]) -> Result<Self, UdpError> {
        let mut fields = Fields(datagram);
        let (Some(connection), Some(action), Some(transaction)) =
            (fields.u64(), fields.u32(), fields.u32())
        else {
            return Err(cut_short("a request", datagram, REQUEST_HEAD_BYTES));
        };
        let (connection_id, transaction) =
            (UdpConnectionId(connection), TransactionId(transaction));
        match action {
            CONNECT if connection == UDP_PROTOCOL => Ok(UdpRequest::Connect { transaction }),
            CONNECT => Err(UdpError::Protocol),
            ANNOUNCE => {
                let short = cut_short("an announce", datagram, ANNOUNCE_BYTES);
                let announce = UdpAnnounce::read(&mut fields).ok_or(short)?;
                Ok(UdpRequest::Announce {
                    connection: connection_id,
                    transaction,
                    announce,
                    url_data: UrlData(UrlBytes::Options(fields.0)),
                })
            }
            SCRAPE => Ok(UdpRequest::Scrape {
                connection: connection_id,
                transaction,
                info_hashes: InfoHashes::read(datagram, fields.0)?,
            }),
            other => Err(UdpError::Action(other)),
        }
    }

    /// Appends the datagram.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let head = |out: &mut Vec<u8>, connection: u64, action: u32, transaction: TransactionId| {
            out.extend_from_slice(&connection.to_be_bytes());
            out.extend_from_slice(&action.to_be_bytes());
            out.extend_from_slice(&transaction.0.to_be_bytes());
        };
        match self {
            UdpRequest::Connect { transaction } => head(out, UDP_PROTOCOL, CONNECT, *transaction),
            UdpRequest::Announce {
                connection,
                transaction,
                announce,
                url_data,
            } => {
                head(out, connection.0, ANNOUNCE, *transaction);
                announce.write(out);
                url_data.encode(out);
            }
            UdpRequest::Scrape {
                connection,
                transaction,
                info_hashes,
            } => {
                head(out, connection.0, SCRAPE, *transaction);
                for info_hash in info_hashes.iter() {
                    out.extend_from_slice(&info_hash.0);
                }
            }
        }
    }
}

impl UdpAnnounce {
    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        Some(UdpAnnounce {
            info_hash: InfoHashV1(fields.array()?),
            peer_id: PeerId(fields.array()?),
            downloaded_bytes: fields.u64()?,
            left_bytes: fields.u64()?,
            uploaded_bytes: fields.u64()?,
            event: event(fields.u32()?),
            ip: fields.u32()?,
            key: fields.u32()?,
            peers_wanted: peers_wanted(fields.u32()?),
            port: fields.u16()?,
        })
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.info_hash.0);
        out.extend_from_slice(&self.peer_id.0);
        for count in [self.downloaded_bytes, self.left_bytes, self.uploaded_bytes] {
            out.extend_from_slice(&count.to_be_bytes());
        }
        // -1 leaves the number of peers to the tracker.
        let wanted = self
            .peers_wanted
            .map_or(u32::MAX, |wanted| wanted.min(i32::MAX.unsigned_abs()));
        for number in [event_number(self.event), self.ip, self.key, wanted] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out.extend_from_slice(&self.port.to_be_bytes());
    }
}

impl<'a> InfoHashes<'a> {
    fn read(datagram: &[u8], body: &'a [u8]) -> Result<Self, UdpError> {
        let count = body.len() / INFO_HASH_BYTES;
        if count == 0 {
            let due = REQUEST_HEAD_BYTES + INFO_HASH_BYTES;
            return Err(cut_short("a scrape", datagram, due));
        }
        if count > limits::UDP_SCRAPE_HASHES_MAX {
            return Err(UdpError::TooManyHashes { count });
        }
        // What is left over is no hash.
        let whole = body.get(..count * INFO_HASH_BYTES).unwrap_or_default();
        Ok(InfoHashes(HashBytes::Wire(whole)))
    }
}

impl UdpReply {
    /// Reads a datagram that a tracker sent by this family. The caller compares the transaction.
    pub fn decode(datagram: &[u8], family: AddressFamily) -> Result<Self, UdpError> {
        let mut fields = Fields(datagram);
        let (Some(action), Some(transaction)) = (fields.u32(), fields.u32()) else {
            return Err(cut_short("a reply", datagram, REPLY_HEAD_BYTES));
        };
        let transaction = TransactionId(transaction);
        match action {
            CONNECT => {
                let short = cut_short("a connect reply", datagram, REPLY_HEAD_BYTES + 8);
                let connection = UdpConnectionId(fields.u64().ok_or(short)?);
                Ok(UdpReply::Connect {
                    transaction,
                    connection,
                })
            }
            ANNOUNCE => {
                let short = cut_short("an announce reply", datagram, ANNOUNCE_REPLY_BYTES);
                let success = announce_success(&mut fields, family).ok_or(short)?;
                Ok(UdpReply::Announce {
                    transaction,
                    success,
                })
            }
            SCRAPE => {
                let (files, _) = fields.0.as_chunks::<SCRAPE_FILE_BYTES>();
                let files = files.iter().take(limits::UDP_SCRAPE_HASHES_MAX);
                let files = files.filter_map(|file| scrape_file(file)).collect();
                Ok(UdpReply::Scrape { transaction, files })
            }
            ERROR => {
                let failure = Failure {
                    // Some trackers end their text as C does.
                    reason: printable(
                        fields.0.strip_suffix(b"\0").unwrap_or(fields.0),
                        limits::TRACKER_TEXT_CHARS_MAX,
                    ),
                    retry_in: None,
                };
                Ok(UdpReply::Error {
                    transaction,
                    failure,
                })
            }
            other => Err(UdpError::Action(other)),
        }
    }

    /// Which request this answers.
    pub fn transaction(&self) -> TransactionId {
        match self {
            UdpReply::Connect { transaction, .. }
            | UdpReply::Announce { transaction, .. }
            | UdpReply::Scrape { transaction, .. }
            | UdpReply::Error { transaction, .. } => *transaction,
        }
    }

    /// Appends the datagram, for a client that asked by this family.
    pub fn encode(&self, family: AddressFamily, out: &mut Vec<u8>) {
        match self {
            UdpReply::Connect {
                transaction,
                connection,
            } => {
                reply_head(CONNECT, *transaction, out);
                out.extend_from_slice(&connection.0.to_be_bytes());
            }
            UdpReply::Announce {
                transaction,
                success,
            } => {
                let counts = UdpAnnounceCounts {
                    interval_seconds: success.interval.seconds,
                    leechers: success.incomplete.unwrap_or(0),
                    seeders: success.complete.unwrap_or(0),
                };
                let peers = success.peers.iter().map(|peer| peer.address);
                encode_announce_reply(*transaction, counts, peers, family, out);
            }
            UdpReply::Scrape { transaction, files } => {
                reply_head(SCRAPE, *transaction, out);
                for file in files.iter().take(limits::UDP_SCRAPE_HASHES_MAX) {
                    for number in [file.complete, file.downloaded, file.incomplete] {
                        out.extend_from_slice(&number.to_be_bytes());
                    }
                }
            }
            UdpReply::Error {
                transaction,
                failure,
            } => {
                reply_head(ERROR, *transaction, out);
                out.extend_from_slice(failure.reason.as_bytes());
            }
        }
    }
}

/// The numbers of an announce reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UdpAnnounceCounts {
    /// How long the client should wait until its next announce, in seconds.
    pub interval_seconds: u32,
    /// Peers that are not seeds.
    pub leechers: u32,
    /// Seeds.
    pub seeders: u32,
}

/// Appends an announce reply. Peers of the other family are left out, and those that would make it
/// longer than [`limits::UDP_DATAGRAM_BYTES_MAX`].
pub fn encode_announce_reply(
    transaction: TransactionId,
    counts: UdpAnnounceCounts,
    peers: impl IntoIterator<Item = SocketAddr>,
    family: AddressFamily,
    out: &mut Vec<u8>,
) {
    reply_head(ANNOUNCE, transaction, out);
    for number in [counts.interval_seconds, counts.leechers, counts.seeders] {
        out.extend_from_slice(&number.to_be_bytes());
    }
    let room = limits::UDP_DATAGRAM_BYTES_MAX - ANNOUNCE_REPLY_BYTES;
    let peers = peers.into_iter();
    let mut peers = peers.filter(|peer| AddressFamily::of(*peer) == family);
    for _ in 0..room / family.peer_bytes() {
        let Some(peer) = peers.next() else {
            return;
        };
        match peer.ip().to_canonical() {
            std::net::IpAddr::V4(ip) => out.extend_from_slice(&ip.octets()),
            std::net::IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
        }
        out.extend_from_slice(&peer.port().to_be_bytes());
    }
}

fn reply_head(action: u32, transaction: TransactionId, out: &mut Vec<u8>) {
    out.extend_from_slice(&action.to_be_bytes());
    out.extend_from_slice(&transaction.0.to_be_bytes());
}

fn announce_success(fields: &mut Fields<'_>, family: AddressFamily) -> Option<AnnounceSuccess> {
    let interval = fields.u32()?;
    let (leechers, seeders) = (fields.u32()?, fields.u32()?);
    let (peers, peers_dropped) = compact_peers(fields.0, family.peer_bytes());
    Some(AnnounceSuccess {
        interval: Interval::from_seconds(interval.into()),
        peers,
        peers_dropped,
        complete: Some(seeders),
        incomplete: Some(leechers),
        ..AnnounceSuccess::default()
    })
}

fn scrape_file(bytes: &[u8]) -> Option<ScrapeFile> {
    let mut fields = Fields(bytes);
    Some(ScrapeFile {
        complete: fields.u32()?,
        downloaded: fields.u32()?,
        incomplete: fields.u32()?,
    })
}

/// A number that we do not know is no event.
const fn event(number: u32) -> AnnounceEvent {
    match number {
        1 => AnnounceEvent::Completed,
        2 => AnnounceEvent::Started,
        3 => AnnounceEvent::Stopped,
        _ => AnnounceEvent::None,
    }
}

const fn event_number(event: AnnounceEvent) -> u32 {
    match event {
        AnnounceEvent::None | AnnounceEvent::Paused => 0,
        AnnounceEvent::Completed => 1,
        AnnounceEvent::Started => 2,
        AnnounceEvent::Stopped => 3,
    }
}

/// A signed number; one below zero leaves it to the tracker.
fn peers_wanted(number: u32) -> Option<u32> {
    let most = u32::try_from(limits::TRACKER_REPLY_PEERS_MAX).unwrap_or(u32::MAX);
    (number <= i32::MAX.unsigned_abs()).then(|| number.min(most))
}

fn cut_short(what: &'static str, datagram: &[u8], due: usize) -> UdpError {
    let bytes = datagram.len();
    UdpError::Short { what, bytes, due }
}

/// Reads numbers in network order from the front.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }
}
