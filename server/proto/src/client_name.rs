//! Which client a peer id belongs to, and the peer id by which we name ourselves (conventions of
//! BEP 20).
//!
//! A peer id is 20 bytes of which most clients spend the first eight or so on their name and
//! version; the peer chooses them, so the answer is for people and statistics, never for a decision
//! about trust. Output is printable; names come from a fixed table and may be used as the label of
//! a metric.

mod table;

use std::fmt;

use crate::ids::PeerId;
use crate::text::printable;
use table::{AZUREUS, PREFIXES, SHADOW};

/// The two letters that name us in Azureus-style peer ids. No client of the well-known lists has
/// them.
pub const OUR_CLIENT_CODE: [u8; 2] = *b"SI";

/// The first eight bytes of our peer ids: `-SI`, three digits of our version and a zero, `-`.
pub const OUR_PEER_ID_PREFIX: [u8; 8] = [
    b'-',
    OUR_CLIENT_CODE[0],
    OUR_CLIENT_CODE[1],
    version_digit(env!("CARGO_PKG_VERSION_MAJOR")),
    version_digit(env!("CARGO_PKG_VERSION_MINOR")),
    version_digit(env!("CARGO_PKG_VERSION_PATCH")),
    b'0',
    b'-',
];

/// A peer id of ours. The random bytes become letters and digits, because some trackers and tools
/// handle nothing else well; 71 bits of randomness remain.
pub fn our_peer_id(random: [u8; 12]) -> PeerId {
    let mut id = [0; 20];
    let (prefix, rest) = id.split_at_mut(OUR_PEER_ID_PREFIX.len());
    prefix.copy_from_slice(&OUR_PEER_ID_PREFIX);
    for (byte, random) in rest.iter_mut().zip(random) {
        *byte = BASE_62[usize::from(random) % BASE_62.len()];
    }
    PeerId(id)
}

/// The client that a peer id names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientName {
    /// Its name, if we know it.
    pub name: Option<&'static str>,
    /// Its version, or empty.
    pub version: String,
    /// The first eight bytes of the peer id, made printable.
    pub prefix: String,
}

impl ClientName {
    /// The name, or `unknown`: one of a bounded set.
    pub fn label(&self) -> &'static str {
        self.name.unwrap_or("unknown")
    }
}

impl fmt::Display for ClientName {
    /// `qBittorrent 4.5.2`, or `unknown (-ZZ1234-)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name {
            None => write!(f, "unknown ({})", self.prefix),
            Some(name) if self.version.is_empty() => f.write_str(name),
            Some(name) => write!(f, "{name} {}", self.version),
        }
    }
}

/// Finds out which client a peer id names.
pub fn client_name(peer_id: &PeerId) -> ClientName {
    let id = &peer_id.0;
    let found = azureus(id)
        .or_else(|| shadow(id))
        .or_else(|| mainline(id))
        .or_else(|| bitcomet_before_azureus_style(id))
        .or_else(|| fixed_prefix(id));
    let (name, version) = found.map_or((None, None), |(name, version)| (Some(name), version));
    ClientName {
        name,
        version: version.unwrap_or_default(),
        // An escaped byte takes four characters.
        prefix: printable(&id[..8], 4 * 8),
    }
}

/// How an Azureus-style client writes its version into four characters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Version {
    /// `4520`: 4.5.2, and a fourth number if it is not 0.
    Digits,
    /// `13F0`, `211s`: 1.3.15 and 2.1.1; the fourth character is not part of the version.
    ThreeDigits,
    /// `355W`, `7a5W`: 3.5.5 and 7.10.5, in hex; B and A in fourth place are beta and alpha, other
    /// letters say nothing.
    HexAndStage,
    /// `0183`: 1.83.
    TwoAndTwo,
    /// `0105`: 1.5.
    TwoAndTwoUnpadded,
    /// `2940`: 2.94 up to version 3, then 4.0.5 as `4050`.
    Transmission,
    /// `33D1`: 3.3 Dev 1; `33R1`: 3.3 RC 1; else digits.
    KTorrent,
    /// `21..`: 2.1.
    TwoDigits,
    /// `0170`: 0.17.0.
    OneTwoOne,
    /// None that can be read.
    None,
}

/// What follows a fixed prefix.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Tail {
    /// Nothing that can be read.
    None,
    /// Numbers between dashes: `A2-1-36-0-`.
    Dashed,
    /// Text up to a dash: `-ML2.7.2-`.
    Dotted,
    /// One digit a number: `XBT054`.
    ThreeDigits,
    /// Four digits: `TIX0289` is 2.89.
    TwoAndTwo,
    /// Four digits that are a build number.
    Build,
}

const BASE_62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

type Found = (&'static str, Option<String>);

/// `-XXvvvv-`, as Azureus began it.
fn azureus(id: &[u8; 20]) -> Option<Found> {
    let [b'-', code0, code1, version @ .., _] = id.first_chunk::<8>()? else {
        return None;
    };
    let (_, name, style) = AZUREUS
        .iter()
        .find(|(code, ..)| *code == [*code0, *code1])?;
    Some((name, azureus_version(*version, *style)))
}

fn azureus_version(digits: [u8; 4], style: Version) -> Option<String> {
    let [a, b, c, d] = digits.map(base_62);
    let decimal = |tens: Option<u8>, ones: Option<u8>| {
        let (tens, ones) = (tens?, ones?);
        (tens < 10 && ones < 10).then(|| tens * 10 + ones)
    };
    Some(match style {
        Version::None => return None,
        Version::Digits => match d {
            Some(d) if d != 0 => format!("{}.{}.{}.{d}", a?, b?, c?),
            _ => format!("{}.{}.{}", a?, b?, c?),
        },
        Version::ThreeDigits => format!("{}.{}.{}", a?, b?, c?),
        Version::HexAndStage => {
            let hex = |digit: u8| char::from(digit).to_digit(16);
            let [a, b, c, _] = digits.map(hex);
            format!("{}.{}.{}{}", a?, b?, c?, stage(digits[3]))
        }
        Version::TwoAndTwo => format!("{}.{:02}", decimal(a, b)?, decimal(c, d)?),
        Version::TwoAndTwoUnpadded => format!("{}.{}", decimal(a, b)?, decimal(c, d)?),
        Version::TwoDigits => format!("{}.{}", a?, b?),
        Version::OneTwoOne => format!("{}.{:02}.{}", a?, decimal(b, c)?, d?),
        Version::KTorrent => match digits[2] {
            b'D' => format!("{}.{} Dev {}", a?, b?, d?),
            b'R' => format!("{}.{} RC {}", a?, b?, d?),
            _ => format!("{}.{}.{}", a?, b?, c?),
        },
        Version::Transmission => match (a?, b?, c?) {
            (0, 0, 0) => format!("0.{}", d?),
            (0, 0, _) => format!("0.{:02}", decimal(c, d)?),
            (0..=3, ..) => {
                let development = if matches!(digits[3], b'X' | b'Z') {
                    "+"
                } else {
                    ""
                };
                format!("{}.{:02}{development}", a?, decimal(b, c)?)
            }
            _ => format!("{}.{}.{}{}", a?, b?, c?, stage(digits[3])),
        },
    })
}

/// What a letter behind the version says.
fn stage(letter: u8) -> &'static str {
    match letter {
        b'A' => " alpha",
        b'B' | b'b' => " beta",
        b'X' | b'Z' | b'x' => " dev",
        _ => "",
    }
}

/// `Tvvvvv---`: one letter, up to five characters of version padded with dashes, three dashes.
fn shadow(id: &[u8; 20]) -> Option<Found> {
    let [letter, version @ .., b'-', b'-', b'-'] = id.first_chunk::<9>()? else {
        return None;
    };
    let (_, name) = SHADOW.iter().find(|(code, _)| code == letter)?;
    let used = version
        .iter()
        .rposition(|&byte| byte != b'-')
        .map_or(0, |last| last + 1);
    let numbers: Option<Vec<String>> = version[..used]
        .iter()
        .map(|&byte| Some(base_64(byte)?.to_string()))
        .collect();
    Some((name, Some(numbers?.join("."))))
}

/// `M7-9-2--` and `M7-10-2-`: the numbers of the version between dashes.
fn mainline(id: &[u8; 20]) -> Option<Found> {
    let name = match id[0] {
        b'M' => "BitTorrent",
        b'Q' => "Queen Bee",
        _ => return None,
    };
    let numbers = dashed_numbers(&id[1..8])?;
    (numbers.len() == 3).then(|| (name, Some(numbers.join("."))))
}

/// `exbc` or `FUTB`, two bytes of version: BitComet before 0.59, and BitLord.
fn bitcomet_before_azureus_style(id: &[u8; 20]) -> Option<Found> {
    let ([b'e', b'x', b'b', b'c', major, minor] | [b'F', b'U', b'T', b'B', major, minor]) =
        id.first_chunk::<6>()?
    else {
        return None;
    };
    let name = if id[6..].starts_with(b"LORD") {
        "BitLord"
    } else {
        "BitComet"
    };
    Some((name, Some(format!("{major}.{minor:02}"))))
}

fn fixed_prefix(id: &[u8; 20]) -> Option<Found> {
    let (prefix, name, tail) = PREFIXES
        .iter()
        .find(|(prefix, ..)| id.starts_with(prefix))?;
    Some((name, tail_version(&id[prefix.len()..], *tail)))
}

fn tail_version(rest: &[u8], tail: Tail) -> Option<String> {
    match tail {
        Tail::None => None,
        Tail::Dashed => Some(dashed_numbers(rest.get(..8)?)?.join(".")),
        Tail::Dotted => {
            let end = rest.iter().position(|&byte| byte == b'-')?;
            let text = &rest[..end];
            let legal = text
                .iter()
                .all(|byte| byte.is_ascii_digit() || *byte == b'.');
            (legal && !text.is_empty()).then(|| String::from_utf8_lossy(text).into_owned())
        }
        Tail::ThreeDigits => {
            let [a, b, c] = rest.first_chunk::<3>()?.map(base_62);
            Some(format!("{}.{}.{}", a?, b?, c?))
        }
        Tail::TwoAndTwo => azureus_version(*rest.first_chunk::<4>()?, Version::TwoAndTwo),
        Tail::Build => {
            let digits = rest.first_chunk::<4>()?;
            let legal = digits.iter().all(u8::is_ascii_digit);
            legal.then(|| String::from_utf8_lossy(digits).into_owned())
        }
    }
}

/// The decimal numbers at the start of `text`, each followed by one dash: `7-9-2--` has three.
fn dashed_numbers(text: &[u8]) -> Option<Vec<String>> {
    let end = text.iter().rposition(|&byte| byte == b'-')?;
    let mut numbers = Vec::new();
    for part in text[..=end].split(|&byte| byte == b'-') {
        if part.is_empty() {
            break;
        }
        if !part.iter().all(u8::is_ascii_digit) {
            return None;
        }
        numbers.push(String::from_utf8_lossy(part).into_owned());
    }
    (!numbers.is_empty()).then_some(numbers)
}

/// The value of a digit: 0 to 9, then capitals, then small letters.
fn base_62(digit: u8) -> Option<u8> {
    let index = BASE_62.iter().position(|&other| other == digit)?;
    u8::try_from(index).ok()
}

/// Shadow's digits have `.` as 62.
fn base_64(digit: u8) -> Option<u8> {
    match digit {
        b'.' => Some(62),
        b'-' => Some(63),
        _ => base_62(digit),
    }
}

/// One number of our version as a digit.
const fn version_digit(number: &str) -> u8 {
    let bytes = number.as_bytes();
    let mut value = 0;
    let mut index = 0;
    while index < bytes.len() {
        value = value * 10 + (bytes[index] - b'0') as usize;
        index += 1;
    }
    BASE_62[value]
}

#[cfg(test)]
mod tests;
