//! Magnet links (BEP 9), with peers and web seeds, file selection (BEP 53) and version 2 hashes
//! (BEP 52).
//!
//! Parsing is one pass, linear in the link's length. A malformed hash is an error that names
//! parameter and offset. Of other parameters that we know a malformed value is left out and told
//! ([`LeftOut`]): people get links from pages that they cannot mend, and other clients take them.
//! Unknown parameters and other kinds of `xt` are ignored, as are URLs that no tracker can have.
//! Numbered parameters (`tr.1`) are read like plain ones, and `&amp;`, as a page's source has it,
//! like `&`.
//!
//! Limits: `limits::MAGNET_BYTES_MAX`, `MAGNET_PARAMETERS_MAX`, `TRACKERS_MAX`, `WEB_SEEDS_MAX`,
//! `NODES_MAX` (more are ignored), `SELECTION_RANGES_MAX`. A selection stays ranges, however many
//! files it spans. It judges neither whether a URL may be visited nor whether the name is fit for a
//! file system.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::str::FromStr;

use crate::ids::{InfoHashV1, InfoHashV2, from_hex, hex_digit};
use crate::limits::{
    MAGNET_BYTES_MAX, MAGNET_PARAMETERS_MAX, NODES_MAX, SELECTION_RANGES_MAX, TRACKERS_MAX,
    WEB_SEEDS_MAX,
};
use crate::metainfo::usable_url;

/// What a magnet link names. [`fmt::Display`] prints the link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Magnet {
    /// `xt=urn:btih:…`. One of the two hashes always exists in a parsed link.
    pub info_hash_v1: Option<InfoHashV1>,
    /// `xt=urn:btmh:1220…`.
    pub info_hash_v2: Option<InfoHashV2>,
    /// `dn`: a name to show until the metadata is there. Unsanitised, never empty.
    pub name: Option<String>,
    /// `xl`: the length of the content in bytes.
    pub length: Option<u64>,
    /// `tr`: trackers in order, without duplicates.
    pub trackers: Vec<String>,
    /// `ws`: web seeds in order, without duplicates (BEP 19).
    pub web_seeds: Vec<String>,
    /// `x.pe`: peers to ask for the metadata (BEP 9), in order, without duplicates.
    pub peers: Vec<PeerAddress>,
    /// `so`: the indices of the selected files (BEP 53): ascending, disjoint, not adjacent. `None`
    /// selects all.
    pub selection: Option<Vec<RangeInclusive<u32>>>,
}

/// A peer as a magnet link names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PeerAddress {
    /// An address and a port.
    Socket(SocketAddr),
    /// A host name, which only a resolver can turn into an address, and a port.
    Name(String, u16),
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(address) => address.fmt(f),
            Self::Name(host, port) => write!(f, "{host}:{port}"),
        }
    }
}

impl FromStr for PeerAddress {
    type Err = MagnetReason;

    fn from_str(text: &str) -> Result<Self, MagnetReason> {
        peer(text).ok_or(MagnetReason::NotPeer)
    }
}

/// Stands for the link as a whole where a parameter's name is due.
const WHOLE: &str = "magnet:";

/// Why a magnet link was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the magnet link cannot be read{}: {reason}", place(.parameter, .offset))]
pub struct MagnetError {
    /// The parameter's name, escaped and cut; `magnet:` for the link as a whole.
    pub parameter: String,
    /// The offset in the link of the parameter's value.
    pub offset: usize,
    /// What is wrong with it.
    pub reason: MagnetReason,
}

/// A parameter of a link that is read without it, or without a part of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} is left out: it {reason}", left_out(.parameter, .offset, .part))]
pub struct LeftOut {
    /// The parameter's name, escaped and cut.
    pub parameter: String,
    /// The offset in the link of the parameter's value.
    pub offset: usize,
    /// Of a list of which the rest counts, the first entry that does not, escaped and cut, and how
    /// many more there are.
    pub part: Option<(String, usize)>,
    /// What is wrong with it.
    pub reason: MagnetReason,
}

fn left_out(parameter: &str, offset: &usize, part: &Option<(String, usize)>) -> String {
    let whole = format!("the link's {parameter}= at byte {offset}");
    match part {
        None => whole,
        Some((entry, 0)) => format!("of {whole} \"{entry}\""),
        Some((entry, more)) => format!("of {whole} \"{entry}\", as {more} more,"),
    }
}

/// Where the fault is, if it is in one parameter.
fn place(parameter: &str, offset: impl fmt::Display) -> String {
    match parameter {
        WHOLE => String::new(),
        parameter => format!(", parameter {parameter} at byte {offset}"),
    }
}

/// What can be wrong with a magnet link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MagnetReason {
    /// The link exceeds its limit.
    #[error("it is longer than the limit of {MAGNET_BYTES_MAX} bytes")]
    TooLong,
    /// The link has too many parameters, empty ones included.
    #[error("it has more than the limit of {MAGNET_PARAMETERS_MAX} parameters")]
    TooManyParameters,
    /// It does not start with `magnet:?`.
    #[error("it does not start with magnet:?")]
    NotMagnet,
    /// No hash that we know.
    #[error("it has neither xt=urn:btih:… nor xt=urn:btmh:…")]
    NoHash,
    /// `urn:btih:` without 40 hex digits or 32 base32 digits.
    #[error("the version 1 hash is neither 40 hex digits nor 32 base32 digits")]
    HashV1,
    /// `urn:btmh:` without `1220` and 64 hex digits.
    #[error("the version 2 hash is not 1220 and 64 hex digits (SHA-256)")]
    HashV2,
    /// Two hashes of one version that differ.
    #[error("contradicts an earlier hash of the same version")]
    TwoHashes,
    /// A `%` without two hex digits.
    #[error("has a % without two hex digits")]
    Escape,
    /// The decoded value is not UTF-8.
    #[error("is not UTF-8")]
    NotUtf8,
    /// `xl` is not a number.
    #[error("is not a number of bytes")]
    NotNumber,
    /// `x.pe` is not host and port.
    #[error("is not HOST:PORT, IPV4:PORT or [IPV6]:PORT")]
    NotPeer,
    /// `x.pe` is an address that no host has.
    #[error("is an address that no host has")]
    Nobody,
    /// `so` is not a list of indices and ranges.
    #[error("is not a list of file indices and ranges such as 0,2,4-8")]
    NotSelection,
    /// `so` has too many ranges.
    #[error("has more than the limit of {SELECTION_RANGES_MAX} ranges")]
    SelectionTooLong,
}

impl Magnet {
    /// [`Magnet::read`] for those who do not tell what is left out.
    ///
    /// # Errors
    /// As there.
    pub fn parse(link: &str) -> Result<Self, MagnetError> {
        Self::read(link).map(|(magnet, _)| magnet)
    }

    /// Reads a magnet link; blanks around it are ignored. Beside it what of it is left out, at most
    /// one for each parameter.
    ///
    /// # Errors
    /// It is no magnet link, is beyond a limit, or has no BitTorrent hash or a malformed one.
    pub fn read(link: &str) -> Result<(Self, Vec<LeftOut>), MagnetError> {
        if link.len() > MAGNET_BYTES_MAX {
            return Err(whole(MagnetReason::TooLong));
        }
        let start = link.len() - link.trim_start().len();
        let trimmed = link.trim();
        let parameters = match trimmed.split_at_checked(SCHEME.len()) {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case(SCHEME) => rest,
            _ => return Err(whole(MagnetReason::NotMagnet)),
        };
        let mut reader = Reader::default();
        let mut offset = start + SCHEME.len();
        let mut parameters_left = MAGNET_PARAMETERS_MAX;
        let mut left_out = Vec::new();
        for parameter in parameters.split('&') {
            parameters_left = parameters_left
                .checked_sub(1)
                .ok_or_else(|| whole(MagnetReason::TooManyParameters))?;
            let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let value_offset = offset + key.len() + 1;
            // Some codes for cameras have no small letters.
            let base = base_key(key).to_ascii_lowercase();
            if let Err(reason) = reader.parameter(&base, value) {
                let parameter = cut(key);
                // A list that is cut would be another choice of files than the link's.
                if base == "xt" || reason == MagnetReason::SelectionTooLong {
                    return Err(MagnetError {
                        parameter,
                        offset: value_offset,
                        reason,
                    });
                }
                left_out.push(LeftOut {
                    parameter,
                    offset: value_offset,
                    part: reader.part.take(),
                    reason,
                });
            }
            offset += parameter.len() + 1;
        }
        let mut magnet = reader.magnet;
        if magnet.info_hash_v1.is_none() && magnet.info_hash_v2.is_none() {
            return Err(whole(MagnetReason::NoHash));
        }
        magnet.selection = reader.selection.map(merged);
        Ok((magnet, left_out))
    }

    /// Whether this is to be read as a magnet link, with blanks around it or not.
    #[must_use]
    pub fn is_link(text: &str) -> bool {
        let scheme = text.trim_start().split_once(':');
        scheme.is_some_and(|(scheme, _)| scheme.eq_ignore_ascii_case("magnet"))
    }

    /// Whether the file of this index is selected. O(log ranges).
    #[must_use]
    pub fn selects(&self, file_index: u32) -> bool {
        self.selection.as_ref().is_none_or(|ranges| {
            let after = ranges.partition_point(|range| *range.start() <= file_index);
            after > 0 && ranges[after - 1].contains(&file_index)
        })
    }
}

impl FromStr for Magnet {
    type Err = MagnetError;

    fn from_str(link: &str) -> Result<Self, MagnetError> {
        Self::parse(link)
    }
}

impl fmt::Display for Magnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SCHEME)?;
        let mut separator = "";
        let mut next = |f: &mut fmt::Formatter<'_>, key: &str| {
            write!(f, "{separator}{key}=")?;
            separator = "&";
            Ok(())
        };
        if let Some(hash) = self.info_hash_v1 {
            next(f, "xt")?;
            write!(f, "urn:btih:{hash}")?;
        }
        if let Some(hash) = self.info_hash_v2 {
            next(f, "xt")?;
            write!(f, "urn:btmh:{MULTIHASH_SHA256}{hash}")?;
        }
        if let Some(name) = &self.name {
            next(f, "dn")?;
            write_escaped(f, name, b"")?;
        }
        if let Some(length) = self.length {
            next(f, "xl")?;
            length.fmt(f)?;
        }
        for (key, urls) in [("tr", &self.trackers), ("ws", &self.web_seeds)] {
            for url in urls {
                next(f, key)?;
                write_escaped(f, url, b"")?;
            }
        }
        for peer in &self.peers {
            next(f, "x.pe")?;
            write_escaped(f, &peer.to_string(), b":[]")?;
        }
        if let Some(ranges) = &self.selection {
            next(f, "so")?;
            for (index, range) in ranges.iter().enumerate() {
                let comma = if index == 0 { "" } else { "," };
                match (range.start(), range.end()) {
                    (first, last) if first == last => write!(f, "{comma}{first}")?,
                    (first, last) => write!(f, "{comma}{first}-{last}")?,
                }
            }
        }
        Ok(())
    }
}

const SCHEME: &str = "magnet:?";

/// The multihash prefix of SHA-256: its code and the length of 32 bytes.
const MULTIHASH_SHA256: &str = "1220";

/// The longest host name that DNS has.
const HOST_BYTES_MAX: usize = 253;

fn whole(reason: MagnetReason) -> MagnetError {
    MagnetError {
        parameter: WHOLE.to_owned(),
        offset: 0,
        reason,
    }
}

/// `tr` of `tr.12`, and of `amp;tr`.
fn base_key(key: &str) -> &str {
    let key = key.strip_prefix("amp;").unwrap_or(key);
    match key.split_once('.') {
        Some((base, number))
            if !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            base
        }
        _ => key,
    }
}

/// What was read so far, and what is needed to drop duplicates in linear time.
#[derive(Default)]
struct Reader {
    magnet: Magnet,
    trackers_seen: HashSet<String>,
    web_seeds_seen: HashSet<String>,
    peers_seen: HashSet<PeerAddress>,
    selection: Option<Vec<RangeInclusive<u32>>>,
    /// What of the list that was read last is wrong, if the rest of it counts.
    part: Option<(String, usize)>,
}

impl Reader {
    fn parameter(&mut self, key: &str, value: &str) -> Result<(), MagnetReason> {
        let magnet = &mut self.magnet;
        match key {
            "xt" => self.hash(&decoded(value)?)?,
            "dn" => magnet.name = magnet.name.take().or_else(|| decoded_name(value)),
            "xl" if value.is_empty() => {}
            "xl" => {
                let length = number(&decoded(value)?).ok_or(MagnetReason::NotNumber)?;
                magnet.length.get_or_insert(length);
            }
            "tr" => push_url(
                &mut magnet.trackers,
                &mut self.trackers_seen,
                value,
                TRACKERS_MAX,
            )?,
            "ws" => push_url(
                &mut magnet.web_seeds,
                &mut self.web_seeds_seen,
                value,
                WEB_SEEDS_MAX,
            )?,
            "x.pe" => {
                let peer = peer(&decoded(value)?).ok_or(MagnetReason::NotPeer)?;
                if is_nobody(&peer) {
                    return Err(MagnetReason::Nobody);
                }
                if magnet.peers.len() < NODES_MAX && self.peers_seen.insert(peer.clone()) {
                    magnet.peers.push(peer);
                }
            }
            "so" => self.select(&decoded(value)?)?,
            _ => {}
        }
        Ok(())
    }

    fn hash(&mut self, urn: &str) -> Result<(), MagnetReason> {
        if let Some(digits) = strip_prefix_ignoring_case(urn, "urn:btih:") {
            let hash = from_hex(digits)
                .or_else(|| base32(digits))
                .ok_or(MagnetReason::HashV1)?;
            return set_once(&mut self.magnet.info_hash_v1, InfoHashV1(hash));
        }
        if let Some(multihash) = strip_prefix_ignoring_case(urn, "urn:btmh:") {
            let digits = multihash
                .strip_prefix(MULTIHASH_SHA256)
                .ok_or(MagnetReason::HashV2)?;
            let hash = from_hex(digits).ok_or(MagnetReason::HashV2)?;
            return set_once(&mut self.magnet.info_hash_v2, InfoHashV2(hash));
        }
        Ok(())
    }

    /// Takes what of a list can be read. A list of which nothing can be selects no less than none
    /// at all: all files.
    fn select(&mut self, list: &str) -> Result<(), MagnetReason> {
        let mut items = list.split(',').filter(|item| !item.is_empty()).peekable();
        if items.peek().is_none() {
            self.selection.get_or_insert_default();
        }
        let mut wrong = Vec::new();
        let mut rest_counts = false;
        for item in items {
            let Some(range) = range(item) else {
                wrong.push(item);
                continue;
            };
            rest_counts = true;
            let ranges = self.selection.get_or_insert_default();
            if ranges.len() == SELECTION_RANGES_MAX {
                return Err(MagnetReason::SelectionTooLong);
            }
            ranges.push(range);
        }
        let Some(first) = wrong.first() else {
            return Ok(());
        };
        self.part = rest_counts.then(|| (cut(first), wrong.len() - 1));
        Err(MagnetReason::NotSelection)
    }
}

/// An index, or the first and the last of several.
fn range(item: &str) -> Option<RangeInclusive<u32>> {
    let (first, last) = item.split_once('-').unwrap_or((item, item));
    let (first, last): (u32, u32) = (number(first)?, number(last)?);
    (first <= last).then_some(first..=last)
}

/// A number of digits only; `parse` alone would take a `+` too.
fn number<T: FromStr>(digits: &str) -> Option<T> {
    let all_digits = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| all_digits)
}

/// The same indices in ranges that ascend and neither overlap nor touch.
fn merged(mut ranges: Vec<RangeInclusive<u32>>) -> Vec<RangeInclusive<u32>> {
    ranges.sort_unstable_by_key(|range| *range.start());
    let mut merged: Vec<RangeInclusive<u32>> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if *range.start() <= last.end().saturating_add(1) => {
                *last = *last.start()..=*last.end().max(range.end());
            }
            _ => merged.push(range),
        }
    }
    merged
}

fn set_once<T: PartialEq>(slot: &mut Option<T>, value: T) -> Result<(), MagnetReason> {
    if slot.as_ref().is_some_and(|earlier| *earlier != value) {
        return Err(MagnetReason::TwoHashes);
    }
    *slot = Some(value);
    Ok(())
}

fn push_url(
    urls: &mut Vec<String>,
    seen: &mut HashSet<String>,
    value: &str,
    urls_max: usize,
) -> Result<(), MagnetReason> {
    let value = decoded(value)?;
    if let Some(url) = usable_url(&value)
        && urls.len() < urls_max
        && seen.insert(url.to_owned())
    {
        urls.push(url.to_owned());
    }
    Ok(())
}

fn peer(text: &str) -> Option<PeerAddress> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return (address.port() != 0).then_some(PeerAddress::Socket(address));
    }
    let (host, port) = text.rsplit_once(':')?;
    let port = number(port).filter(|&port| port != 0)?;
    let of_a_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let is_name = !host.is_empty() && host.len() <= HOST_BYTES_MAX && host.bytes().all(of_a_name);
    is_name.then(|| PeerAddress::Name(host.to_owned(), port))
}

/// Whether no host has this address.
fn is_nobody(peer: &PeerAddress) -> bool {
    match peer {
        PeerAddress::Socket(address) => {
            let ip = address.ip().to_canonical();
            ip.is_unspecified() || ip.is_multicast() || ip == Ipv4Addr::BROADCAST
        }
        PeerAddress::Name(..) => false,
    }
}

/// The beginning of a text of a stranger's, fit to be shown.
fn cut(text: &str) -> String {
    text.chars().take(20).flat_map(char::escape_debug).collect()
}

/// The value with its escapes decoded.
fn decoded(value: &str) -> Result<Cow<'_, str>, MagnetReason> {
    if !value.contains('%') {
        return Ok(Cow::Borrowed(value));
    }
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        match first {
            b'%' => {
                let (byte, after) = escaped_byte(rest).ok_or(MagnetReason::Escape)?;
                bytes.push(byte);
                rest = after;
            }
            other => bytes.push(*other),
        }
    }
    String::from_utf8(bytes)
        .map(Cow::Owned)
        .map_err(|_| MagnetReason::NotUtf8)
}

/// A name with `+` for blanks, as some write it, and with whatever is no escape left as it is.
fn decoded_name(value: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        match (first, escaped_byte(after)) {
            (b'%', Some((byte, after))) => {
                bytes.push(byte);
                rest = after;
            }
            (b'+', _) => bytes.push(b' '),
            (other, _) => bytes.push(*other),
        }
    }
    (!bytes.is_empty()).then(|| String::from_utf8_lossy(&bytes).into_owned())
}

/// The byte whose two hex digits stand at the start of `text`, and the rest.
fn escaped_byte(text: &[u8]) -> Option<(u8, &[u8])> {
    let [high, low, rest @ ..] = text else {
        return None;
    };
    Some((hex_digit(*high)? << 4 | hex_digit(*low)?, rest))
}

/// 32 digits of RFC 4648 are 160 bits.
fn base32(digits: &str) -> Option<[u8; 20]> {
    let digits: &[u8; 32] = digits.as_bytes().try_into().ok()?;
    let mut hash = [0; 20];
    for (bytes, group) in hash.chunks_exact_mut(5).zip(digits.chunks_exact(8)) {
        let mut bits: u64 = 0;
        for digit in group {
            let value = match digit {
                b'A'..=b'Z' => digit - b'A',
                b'a'..=b'z' => digit - b'a',
                b'2'..=b'7' => digit - b'2' + 26,
                _ => return None,
            };
            bits = bits << 5 | u64::from(value);
        }
        bytes.copy_from_slice(&bits.to_be_bytes()[3..]);
    }
    Some(hash)
}

fn strip_prefix_ignoring_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (head, tail) = text.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(tail)
}

/// Writes `text` with all escaped but unreserved characters (RFC 3986) and those in `plain`.
fn write_escaped(f: &mut fmt::Formatter<'_>, text: &str, plain: &[u8]) -> fmt::Result {
    text.bytes().try_for_each(|byte| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            f.write_char(char::from(byte))
        }
        _ if plain.contains(&byte) => f.write_char(char::from(byte)),
        _ => write!(f, "%{byte:02X}"),
    })
}

#[cfg(test)]
mod tests;
