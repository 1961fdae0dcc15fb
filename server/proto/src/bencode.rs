//! Bencode (BEP 3): a document is read into a flat tape of tokens that point into the input.
//!
//! * Zero-copy: strings and raw spans are slices of the input, and live as long as it does.
//! * Iterative: nesting costs an entry of a bounded stack, never a stack frame of ours.
//! * Bounded: bytes, tokens and depth are limited by [`Limits`] and checked before anything grows.
//! * Canonical where an encoding could be ambiguous: integers (`i04e`, `i-0e` are refused) and
//!   string lengths (`04:spam` is refused). Integers beyond 64 bits are well-formed, but
//!   [`Value::as_integer`] answers `None` for them.
//! * Tolerant where real torrents need it: unsorted dictionary keys are read (libtorrent reads them
//!   too, and hashes are taken over the raw span, so nothing becomes ambiguous). Duplicate keys are
//!   read, the first one wins in [`Dict::get`]; a caller for whom they are an attack asks
//!   [`Value::find_duplicate_key`], as metainfo does for `info`.
//! * Bytes after the root value are not looked at: [`Document::trailing`] hands them to the caller.
//!
//! It does not interpret: text encoding and the meaning of keys are the caller's.

mod encode;
mod parse;
#[cfg(test)]
mod tests;

use std::fmt;

pub use encode::Encoder;

use crate::limits;

/// What one document may cost. The constants are for the documents that strangers send us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The input's length in bytes. Never above `u32::MAX`, because tokens hold 32-bit offsets.
    pub bytes_max: u32,
    /// Tokens: integers, strings, and the starts and ends of lists and dictionaries. A token costs
    /// at most 16 bytes of memory.
    pub tokens_max: u32,
    /// Lists and dictionaries that may be open at once.
    pub depth_max: u32,
}

impl Limits {
    /// For a `.torrent` file, or an `info` dictionary fetched from peers.
    pub const METAINFO: Self = Self {
        bytes_max: limits::METAINFO_BYTES_MAX as u32,
        tokens_max: limits::BENCODE_TOKENS_MAX as u32,
        depth_max: limits::BENCODE_DEPTH_MAX as u32,
    };

    /// For a `.torrent` that this machine made itself, of as many files as it has.
    pub const METAINFO_OWN: Self = Self {
        bytes_max: 1 << 30,
        tokens_max: limits::BENCODE_TOKENS_OWN_MAX as u32,
        depth_max: limits::BENCODE_DEPTH_MAX as u32,
    };

    /// For a tracker's reply to an announce or a scrape.
    pub const TRACKER_REPLY: Self = Self {
        bytes_max: limits::TRACKER_REPLY_BYTES_MAX as u32,
        tokens_max: limits::TRACKER_REPLY_TOKENS_MAX as u32,
        depth_max: limits::MESSAGE_DEPTH_MAX as u32,
    };

    /// For the dictionary of one extension message (BEP 10): handshake, metadata, peer exchange.
    pub const EXTENSION: Self = Self {
        bytes_max: limits::EXTENSION_BYTES_MAX as u32,
        tokens_max: limits::EXTENSION_TOKENS_MAX as u32,
        depth_max: limits::MESSAGE_DEPTH_MAX as u32,
    };
}

/// Why a document was refused, and at which byte of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bencode at byte {offset}: {kind}")]
pub struct Error {
    /// The offset in the input of the byte that cannot stand there, or of the value that is too
    /// much.
    pub offset: usize,
    /// What is wrong there.
    pub kind: ErrorKind,
}

/// What can be wrong with a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ErrorKind {
    /// The input ends inside a value.
    #[error("the input ends inside a value (truncated?)")]
    UnexpectedEnd,
    /// No value starts with this byte, or it cannot stand inside an integer or a string length.
    #[error("unexpected byte 0x{0:02x}")]
    UnexpectedByte(u8),
    /// `ie`, `i-e`, `i-0e` or an integer with leading zeros: another spelling of the same number.
    #[error("the integer is not canonical (empty, minus zero or a leading zero)")]
    IntegerNotCanonical,
    /// A string length with a leading zero.
    #[error("the string's length has a leading zero")]
    LengthNotCanonical,
    /// A string that is said to be longer than the rest of the input.
    #[error("the string is longer than the rest of the input (truncated?)")]
    StringTooLong,
    /// A dictionary key that is not a string.
    #[error("a dictionary key is not a string")]
    KeyNotString,
    /// A dictionary that ends after a key.
    #[error("a dictionary key has no value")]
    KeyWithoutValue,
    /// The input exceeds [`Limits::bytes_max`].
    #[error("the document is longer than the limit of {0} bytes")]
    TooManyBytes(u32),
    /// The document exceeds [`Limits::tokens_max`].
    #[error("the document has more than the limit of {0} tokens")]
    TooManyTokens(u32),
    /// The document exceeds [`Limits::depth_max`].
    #[error("lists and dictionaries are nested deeper than the limit of {0}")]
    TooDeep(u32),
}

/// The four kinds of value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `i…e`
    Integer,
    /// `N:…`, any bytes.
    Bytes,
    /// `l…e`
    List,
    /// `d…e`
    Dict,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Integer => "an integer",
            Self::Bytes => "a string",
            Self::List => "a list",
            Self::Dict => "a dictionary",
        })
    }
}

/// One value on the tape. Its children follow it; `after` says where they end, so skipping is O(1).
#[derive(Clone, Copy, Debug)]
struct Token {
    kind: Kind,
    /// Of a dictionary: whether its keys ascend strictly, which also means that none is duplicate.
    keys_ascend: bool,
    /// The value's span in the input.
    start: u32,
    end: u32,
    /// Of a string: where its content starts. Of a list or dictionary: the tape index after its
    /// last child. Of an integer: unused.
    link: u32,
}

/// A document that was read whole. It borrows its input.
#[derive(Clone, Debug)]
pub struct Document<'input> {
    input: &'input [u8],
    /// Never empty: the root comes first.
    tokens: Vec<Token>,
}

impl<'input> Document<'input> {
    /// Reads the one value at the start of `input`.
    ///
    /// # Errors
    /// The input is not bencode, or exceeds `limits`.
    pub fn parse(input: &'input [u8], limits: &Limits) -> Result<Self, Error> {
        let tokens = parse::tokens(input, limits)?;
        Ok(Self { input, tokens })
    }

    /// The value that the document consists of.
    #[must_use]
    pub fn root(&self) -> Value<'_, 'input> {
        Value {
            document: self,
            index: 0,
        }
    }

    /// How many bytes the root value takes.
    #[must_use]
    pub fn consumed(&self) -> usize {
        self.tokens[0].end as usize
    }

    /// What follows the root value: empty for a plain document, the payload for a `ut_metadata`
    /// message.
    #[must_use]
    pub fn trailing(&self) -> &'input [u8] {
        &self.input[self.consumed()..]
    }
}

/// A value of a [`Document`]. A handle of two words: copy it.
#[derive(Clone, Copy)]
pub struct Value<'doc, 'input> {
    document: &'doc Document<'input>,
    index: u32,
}

impl<'doc, 'input> Value<'doc, 'input> {
    fn token(self) -> Token {
        self.document.tokens[self.index as usize]
    }

    /// The tape index of the value that follows this one and all its children.
    fn next_index(self) -> u32 {
        let token = self.token();
        match token.kind {
            Kind::Integer | Kind::Bytes => self.index + 1,
            Kind::List | Kind::Dict => token.link,
        }
    }

    /// Which of the four kinds it is.
    #[must_use]
    pub fn kind(self) -> Kind {
        self.token().kind
    }

    /// The offset of its first byte in the input.
    #[must_use]
    pub fn offset(self) -> usize {
        self.token().start as usize
    }

    /// Its encoding as it stands in the input, byte for byte.
    #[must_use]
    pub fn raw(self) -> &'input [u8] {
        let token = self.token();
        &self.document.input[token.start as usize..token.end as usize]
    }

    /// A string's content.
    #[must_use]
    pub fn as_bytes(self) -> Option<&'input [u8]> {
        let token = self.token();
        (token.kind == Kind::Bytes)
            .then(|| &self.document.input[token.link as usize..token.end as usize])
    }

    /// A string's content, if it is UTF-8.
    #[must_use]
    pub fn as_str(self) -> Option<&'input str> {
        std::str::from_utf8(self.as_bytes()?).ok()
    }

    /// An integer, if it fits 64 bits.
    #[must_use]
    pub fn as_integer(self) -> Option<i64> {
        let digits = match self.kind() {
            Kind::Integer => self.raw().strip_prefix(b"i")?.strip_suffix(b"e")?,
            _ => return None,
        };
        std::str::from_utf8(digits).ok()?.parse().ok()
    }

    /// An integer that is not negative, if it fits 64 bits unsigned.
    #[must_use]
    pub fn as_unsigned(self) -> Option<u64> {
        let digits = match self.kind() {
            Kind::Integer => self.raw().strip_prefix(b"i")?.strip_suffix(b"e")?,
            _ => return None,
        };
        std::str::from_utf8(digits).ok()?.parse().ok()
    }

    /// The items of a list.
    #[must_use]
    pub fn list(self) -> Option<List<'doc, 'input>> {
        (self.kind() == Kind::List).then(|| List {
            values: self.children(),
        })
    }

    /// The entries of a dictionary.
    #[must_use]
    pub fn dict(self) -> Option<Dict<'doc, 'input>> {
        (self.kind() == Kind::Dict).then_some(Dict { value: self })
    }

    /// The value of `key` if this is a dictionary that has it. See [`Dict::get`].
    #[must_use]
    pub fn get(self, key: &[u8]) -> Option<Value<'doc, 'input>> {
        self.dict()?.get(key)
    }

    /// The first duplicate key found in this value or anywhere below it: the key's second
    /// occurrence.
    ///
    /// O(tokens) for sorted dictionaries, O(n log n) for unsorted ones.
    #[must_use]
    pub fn find_duplicate_key(self) -> Option<Value<'doc, 'input>> {
        (self.index..self.next_index())
            .map(|index| Value {
                document: self.document,
                index,
            })
            .filter(|value| !value.token().keys_ascend)
            .find_map(|value| value.dict()?.duplicate_key())
    }

    fn children(self) -> Siblings<'doc, 'input> {
        Siblings {
            document: self.document,
            next: self.index + 1,
            end: self.next_index(),
        }
    }
}

impl fmt::Debug for Value<'_, '_> {
    /// The raw encoding, escaped and cut after 64 bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let raw = self.raw();
        write!(f, "\"{}\"", raw[..raw.len().min(64)].escape_ascii())?;
        if raw.len() > 64 {
            write!(f, "… ({} bytes)", raw.len())
        } else {
            Ok(())
        }
    }
}

/// Neighbouring values on the tape.
#[derive(Clone)]
struct Siblings<'doc, 'input> {
    document: &'doc Document<'input>,
    next: u32,
    end: u32,
}

impl<'doc, 'input> Iterator for Siblings<'doc, 'input> {
    type Item = Value<'doc, 'input>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.end {
            return None;
        }
        let value = Value {
            document: self.document,
            index: self.next,
        };
        self.next = value.next_index();
        Some(value)
    }
}

/// The items of a list, in order.
#[derive(Clone)]
pub struct List<'doc, 'input> {
    values: Siblings<'doc, 'input>,
}

impl<'doc, 'input> Iterator for List<'doc, 'input> {
    type Item = Value<'doc, 'input>;

    fn next(&mut self) -> Option<Self::Item> {
        self.values.next()
    }
}

/// A dictionary.
#[derive(Clone, Copy)]
pub struct Dict<'doc, 'input> {
    value: Value<'doc, 'input>,
}

impl<'doc, 'input> Dict<'doc, 'input> {
    /// The value of `key`; of duplicate keys the first. O(entries): to read many keys of a
    /// dictionary that a stranger can make large, go over [`Dict::entries`] once.
    #[must_use]
    pub fn get(self, key: &[u8]) -> Option<Value<'doc, 'input>> {
        self.entries()
            .find(|entry| entry.key == key)
            .map(|entry| entry.value)
    }

    /// The entries in the order of the input.
    #[must_use]
    pub fn entries(self) -> Entries<'doc, 'input> {
        Entries {
            values: self.value.children(),
        }
    }

    /// Whether the keys ascend strictly, as BEP 3 demands; then none is duplicate.
    #[must_use]
    pub fn is_sorted(self) -> bool {
        self.value.token().keys_ascend
    }

    /// The second occurrence of a key that this dictionary (not its children) has twice.
    #[must_use]
    pub fn duplicate_key(self) -> Option<Value<'doc, 'input>> {
        if self.is_sorted() {
            return None;
        }
        let mut keys: Vec<(&[u8], u32)> = self
            .entries()
            .map(|entry| (entry.key, entry.key_value.index))
            .collect();
        keys.sort_unstable();
        let pair = keys.windows(2).find(|pair| pair[0].0 == pair[1].0)?;
        Some(Value {
            document: self.value.document,
            index: pair[1].1,
        })
    }
}

/// An entry of a dictionary.
#[derive(Clone, Copy)]
pub struct Entry<'doc, 'input> {
    /// The key's content.
    pub key: &'input [u8],
    /// The key as a value, for its offset.
    pub key_value: Value<'doc, 'input>,
    /// What the key maps to.
    pub value: Value<'doc, 'input>,
}

/// The entries of a dictionary in the order of the input.
#[derive(Clone)]
pub struct Entries<'doc, 'input> {
    values: Siblings<'doc, 'input>,
}

impl<'doc, 'input> Iterator for Entries<'doc, 'input> {
    type Item = Entry<'doc, 'input>;

    fn next(&mut self) -> Option<Self::Item> {
        let key_value = self.values.next()?;
        let key = key_value.as_bytes()?;
        let value = self.values.next()?;
        Some(Entry {
            key,
            key_value,
            value,
        })
    }
}
