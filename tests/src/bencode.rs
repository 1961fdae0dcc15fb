//! A small bencode reader and writer for trusted input: torrents that a test just made, replies of a
//! tracker. Independent of the server's parser on purpose. It panics on malformed input.

use std::collections::BTreeMap;

/// A bencoded value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// An integer.
    Integer(i64),
    /// A byte string.
    Bytes(Vec<u8>),
    /// A list.
    List(Vec<Value>),
    /// A dictionary, keys sorted as raw bytes.
    Dictionary(BTreeMap<Vec<u8>, Value>),
}

impl Value {
    /// The value of a dictionary's key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        match self {
            Value::Dictionary(entries) => entries.get(key.as_bytes()),
            _ => None,
        }
    }

    /// The integer, or a panic that shows what is there instead.
    pub fn integer(&self) -> i64 {
        match self {
            Value::Integer(value) => *value,
            other => panic!("not an integer: {other:?}"),
        }
    }

    /// The byte string, or a panic that shows what is there instead.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Value::Bytes(bytes) => bytes,
            other => panic!("not a byte string: {other:?}"),
        }
    }

    /// The list, or a panic that shows what is there instead.
    pub fn list(&self) -> &[Value] {
        match self {
            Value::List(items) => items,
            other => panic!("not a list: {other:?}"),
        }
    }

    /// The bencoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode_into(&mut out);
        out
    }

    fn encode_into(&self, out: &mut Vec<u8>) {
        match self {
            Value::Integer(value) => out.extend_from_slice(format!("i{value}e").as_bytes()),
            Value::Bytes(bytes) => encode_bytes(bytes, out),
            Value::List(items) => {
                out.push(b'l');
                items.iter().for_each(|item| item.encode_into(out));
                out.push(b'e');
            }
            Value::Dictionary(entries) => {
                out.push(b'd');
                for (key, value) in entries {
                    encode_bytes(key, out);
                    value.encode_into(out);
                }
                out.push(b'e');
            }
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::Bytes(text.as_bytes().to_vec())
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Value::Integer(value)
    }
}

impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Self {
        Value::Bytes(bytes)
    }
}

/// A dictionary from pairs.
pub fn dictionary<const N: usize>(pairs: [(&str, Value); N]) -> Value {
    Value::Dictionary(
        pairs
            .into_iter()
            .map(|(key, value)| (key.as_bytes().to_vec(), value))
            .collect(),
    )
}

/// Reads one value from the start of `bytes` and returns it with the number of bytes it took.
pub fn decode(bytes: &[u8]) -> (Value, usize) {
    let mut reader = Reader { bytes, at: 0 };
    let value = reader.value();
    (value, reader.at)
}

/// The raw bytes of the value of a top-level key, as they stand in the file.
pub fn raw_entry<'a>(bytes: &'a [u8], key: &str) -> Option<&'a [u8]> {
    let mut reader = Reader { bytes, at: 1 };
    while reader.peek() != b'e' {
        let name = reader.value();
        let start = reader.at;
        reader.value();
        if name.bytes() == key.as_bytes() {
            return Some(&bytes[start..reader.at]);
        }
    }
    None
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> u8 {
        *self
            .bytes
            .get(self.at)
            .unwrap_or_else(|| panic!("bencode ends at {}", self.at))
    }

    fn until(&mut self, end: u8) -> &str {
        let start = self.at;
        while self.peek() != end {
            self.at += 1;
        }
        self.at += 1;
        std::str::from_utf8(&self.bytes[start..self.at - 1]).unwrap()
    }

    fn value(&mut self) -> Value {
        match self.peek() {
            b'i' => {
                self.at += 1;
                Value::Integer(self.until(b'e').parse().unwrap())
            }
            b'l' => {
                self.at += 1;
                let mut items = Vec::new();
                while self.peek() != b'e' {
                    items.push(self.value());
                }
                self.at += 1;
                Value::List(items)
            }
            b'd' => {
                self.at += 1;
                let mut entries = BTreeMap::new();
                while self.peek() != b'e' {
                    let key = self.value().bytes().to_vec();
                    let value = self.value();
                    entries.insert(key, value);
                }
                self.at += 1;
                Value::Dictionary(entries)
            }
            _ => {
                let length: usize = self.until(b':').parse().unwrap();
                let start = self.at;
                self.at += length;
                Value::Bytes(self.bytes[start..self.at].to_vec())
            }
        }
    }
}

fn encode_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("{}:", bytes.len()).as_bytes());
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        let text = b"d1:ai-3e1:bl2:xyi0ee1:cd0:0:ee";
        let (value, length) = decode(text);
        assert_eq!(length, text.len());
        assert_eq!(value.encode(), text);
        assert_eq!(raw_entry(text, "b").unwrap(), b"l2:xyi0ee");
        assert_eq!(raw_entry(text, "z"), None);
    }
}
