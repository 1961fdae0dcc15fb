//! The query strings that a tracker receives.
//!
//! Parameters that we do not know are skipped without being decoded. An optional parameter whose
//! value makes no sense is an error where a client would want to know, and ignored where real
//! clients send odd values (`event`, `numwant=-1`, `ip` with a host name).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{AnnounceEvent, AnnounceRequest};
use crate::ids::{InfoHashV1, PeerId, hex_digit};
use crate::limits;
use crate::text::printable;

/// Why a query string is no announce or scrape. The text is fit to be sent back as a failure
/// reason.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum QueryError {
    /// The query string is too long.
    #[error(
        "the query has {bytes} bytes, the limit is {}",
        limits::TRACKER_QUERY_BYTES_MAX
    )]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// The query string has too many parameters.
    #[error(
        "the query has more than {} parameters",
        limits::TRACKER_QUERY_PARAMETERS_MAX
    )]
    TooManyParameters,
    /// A scrape asks for too many torrents at once.
    #[error(
        "the scrape names more than {} info-hashes, ask again for the rest",
        limits::SCRAPE_HASHES_MAX
    )]
    TooManyHashes,
    /// A parameter that an announce needs is absent.
    #[error("parameter {parameter} is missing")]
    Missing {
        /// The parameter.
        parameter: &'static str,
    },
    /// A parameter stands there twice.
    #[error("parameter {parameter} is given more than once")]
    Duplicate {
        /// The parameter.
        parameter: &'static str,
    },
    /// A `%` is not followed by two hex digits.
    #[error("parameter {parameter} has a broken %-escape at byte {offset} of its value")]
    Escape {
        /// The parameter.
        parameter: &'static str,
        /// The offset of the `%` in the value.
        offset: usize,
    },
    /// The value of a parameter is not what it has to be.
    #[error("parameter {parameter} is \"{value}\", due is {due}")]
    Value {
        /// The parameter.
        parameter: &'static str,
        /// Its value, printable and cut.
        value: String,
        /// What would have been right.
        due: &'static str,
    },
}

impl AnnounceRequest {
    /// Reads the query string of an announce, what follows the `?` of the request.
    pub fn parse_query(query: &[u8]) -> Result<Self, QueryError> {
        let mut found = Parameters::default();
        for (index, value) in parameters(query)? {
            let slot = &mut found.values[index];
            if slot.is_some() {
                return Err(QueryError::Duplicate {
                    parameter: NAMES[index],
                });
            }
            *slot = Some(decode(NAMES[index], value)?);
        }
        let optional = |name| found.get(name);
        Ok(AnnounceRequest {
            info_hash: InfoHashV1(found.twenty_bytes("info_hash")?),
            peer_id: PeerId(found.twenty_bytes("peer_id")?),
            port: found.port()?,
            uploaded_bytes: found.number("uploaded")?.unwrap_or(0),
            downloaded_bytes: found.number("downloaded")?.unwrap_or(0),
            left_bytes: found.number("left")?,
            event: optional("event").map_or(AnnounceEvent::None, AnnounceEvent::from_name),
            peers_wanted: optional("numwant").and_then(peers_wanted),
            key: found.bounded("key", limits::TRACKER_KEY_BYTES_MAX, "at most 64 bytes")?,
            compact: optional("compact") != Some(b"0"),
            no_peer_id: optional("no_peer_id") == Some(b"1"),
            ip: optional("ip").and_then(address),
            ipv4: optional("ipv4")
                .and_then(address)
                .and_then(|address| match address {
                    IpAddr::V4(address) => Some(address),
                    IpAddr::V6(_) => None,
                }),
            ipv6: optional("ipv6")
                .and_then(address)
                .and_then(|address| match address {
                    IpAddr::V6(address) => Some(address),
                    IpAddr::V4(_) => None,
                }),
            tracker_id: found.bounded(
                "trackerid",
                limits::TRACKER_ID_BYTES_MAX,
                "at most 512 bytes",
            )?,
        })
    }
}

/// Reads the query string of a scrape: the torrents that it names, each once, in order. None at all
/// asks for every torrent of the tracker, and whether that is answered is the tracker's choice.
pub fn parse_scrape_query(query: &[u8]) -> Result<Vec<InfoHashV1>, QueryError> {
    let mut hashes: Vec<InfoHashV1> = Vec::new();
    for (_, value) in parameters(query)?.filter(|(index, _)| *index == 0) {
        let info_hash = InfoHashV1(twenty_bytes(NAMES[0], &decode(NAMES[0], value)?)?);
        if hashes.contains(&info_hash) {
            continue;
        }
        if hashes.len() == limits::SCRAPE_HASHES_MAX {
            return Err(QueryError::TooManyHashes);
        }
        hashes.push(info_hash);
    }
    Ok(hashes)
}

/// The parameters that we read. `info_hash` is first.
const NAMES: [&str; 15] = [
    "info_hash",
    "peer_id",
    "port",
    "uploaded",
    "downloaded",
    "left",
    "event",
    "numwant",
    "key",
    "compact",
    "no_peer_id",
    "ip",
    "ipv4",
    "ipv6",
    "trackerid",
];

/// Splits a query string into the parameters that we know: their index in [`NAMES`] and their
/// value, still escaped.
fn parameters(query: &[u8]) -> Result<impl Iterator<Item = (usize, &[u8])>, QueryError> {
    if query.len() > limits::TRACKER_QUERY_BYTES_MAX {
        return Err(QueryError::TooLong { bytes: query.len() });
    }
    let parts = || {
        query
            .split(|&byte| byte == b'&')
            .filter(|part| !part.is_empty())
    };
    if parts().count() > limits::TRACKER_QUERY_PARAMETERS_MAX {
        return Err(QueryError::TooManyParameters);
    }
    Ok(parts().filter_map(|part| {
        let mut halves = part.splitn(2, |&byte| byte == b'=');
        let (name, value) = (halves.next()?, halves.next().unwrap_or_default());
        let index = NAMES.iter().position(|known| known.as_bytes() == name)?;
        Some((index, value))
    }))
}

/// The values of an announce, decoded.
#[derive(Default)]
struct Parameters {
    values: [Option<Vec<u8>>; NAMES.len()],
}

impl Parameters {
    fn get(&self, name: &'static str) -> Option<&[u8]> {
        let index = NAMES.iter().position(|known| *known == name)?;
        self.values[index].as_deref()
    }

    fn twenty_bytes(&self, parameter: &'static str) -> Result<[u8; 20], QueryError> {
        twenty_bytes(
            parameter,
            self.get(parameter)
                .ok_or(QueryError::Missing { parameter })?,
        )
    }

    fn port(&self) -> Result<u16, QueryError> {
        let parameter = "port";
        let value = self
            .get(parameter)
            .ok_or(QueryError::Missing { parameter })?;
        decimal(value)
            .and_then(|port| u16::try_from(port).ok())
            .ok_or_else(|| wrong(parameter, value, "a number from 0 to 65535"))
    }

    fn number(&self, parameter: &'static str) -> Result<Option<u64>, QueryError> {
        let Some(value) = self.get(parameter) else {
            return Ok(None);
        };
        match decimal(value) {
            Some(number) => Ok(Some(number)),
            None => Err(wrong(parameter, value, "a number from 0 to 2^64 - 1")),
        }
    }

    fn bounded(
        &self,
        parameter: &'static str,
        bytes_max: usize,
        due: &'static str,
    ) -> Result<Option<Vec<u8>>, QueryError> {
        match self.get(parameter) {
            Some(value) if value.len() > bytes_max => Err(wrong(parameter, value, due)),
            value => Ok(value.map(<[u8]>::to_vec)),
        }
    }
}

fn twenty_bytes(parameter: &'static str, value: &[u8]) -> Result<[u8; 20], QueryError> {
    value
        .try_into()
        .map_err(|_| wrong(parameter, value, "20 bytes, %-escaped"))
}

fn wrong(parameter: &'static str, value: &[u8], due: &'static str) -> QueryError {
    QueryError::Value {
        parameter,
        value: printable(value, 64),
        due,
    }
}

/// Undoes the escapes. A `+` is a space, as in forms: libraries write it so, and clients that
/// escape by themselves write `%2B` and `%20`.
fn decode(parameter: &'static str, value: &[u8]) -> Result<Vec<u8>, QueryError> {
    let mut decoded = Vec::with_capacity(value.len());
    let mut offset = 0;
    while let Some(&byte) = value.get(offset) {
        match byte {
            b'%' => {
                let digits = value.get(offset + 1..offset + 3);
                let broken = QueryError::Escape { parameter, offset };
                decoded.push(digits.and_then(hex_byte).ok_or(broken)?);
                offset += 3;
                continue;
            }
            b'+' => decoded.push(b' '),
            _ => decoded.push(byte),
        }
        offset += 1;
    }
    Ok(decoded)
}

fn hex_byte(digits: &[u8]) -> Option<u8> {
    let [high, low] = digits else { return None };
    Some(hex_digit(*high)? << 4 | hex_digit(*low)?)
}

/// Only digits: no sign, no space.
fn decimal(value: &[u8]) -> Option<u64> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    digits.then(|| std::str::from_utf8(value).ok()?.parse().ok())?
}

/// A number, cut to what a reply may carry; `-1` and other nonsense leave it to the tracker.
fn peers_wanted(value: &[u8]) -> Option<u32> {
    let most = limits::TRACKER_REPLY_PEERS_MAX as u64;
    u32::try_from(decimal(value)?.min(most)).ok()
}

/// An address, or an address and a port as BEP 7 allows; the port is that of the announce.
fn address(value: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(value).ok()?;
    let with_port = || Some(text.parse::<SocketAddr>().ok()?.ip());
    text.parse::<Ipv4Addr>()
        .map(IpAddr::V4)
        .or_else(|_| text.parse::<Ipv6Addr>().map(IpAddr::V6))
        .ok()
        .or_else(with_port)
}
