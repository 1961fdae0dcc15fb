//! Writing bencode. What is written is ours, so a misuse (unsorted keys, an open container) is a
//! bug of ours and asserted, never an error to handle.

use std::ops::Range;

/// Writes one document, value by value.
///
/// ```
/// let mut encoder = proto::bencode::Encoder::new();
/// encoder.begin_dict();
/// encoder.key(b"length").integer(7);
/// encoder.key(b"name").bytes(b"x");
/// encoder.end();
/// assert_eq!(encoder.finish(), b"d6:lengthi7e4:name1:xe");
/// ```
#[derive(Clone, Debug, Default)]
pub struct Encoder {
    out: Vec<u8>,
    open: Vec<Open>,
    roots: usize,
}

#[derive(Clone, Debug)]
enum Open {
    List,
    /// The span in `out` of the last key, and whether its value is still due.
    Dict {
        last_key: Option<Range<usize>>,
        value_due: bool,
    },
}

impl Encoder {
    /// An encoder that starts with an empty buffer.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An encoder that appends to `out`, such as the header of a message.
    #[must_use]
    pub fn append_to(out: Vec<u8>) -> Self {
        Self {
            out,
            open: Vec::new(),
            roots: 0,
        }
    }

    /// Opens a dictionary; [`Encoder::end`] closes it.
    pub fn begin_dict(&mut self) -> &mut Self {
        self.value_begins();
        self.out.push(b'd');
        self.open.push(Open::Dict {
            last_key: None,
            value_due: false,
        });
        self
    }

    /// Opens a list; [`Encoder::end`] closes it.
    pub fn begin_list(&mut self) -> &mut Self {
        self.value_begins();
        self.out.push(b'l');
        self.open.push(Open::List);
        self
    }

    /// Closes the innermost list or dictionary.
    ///
    /// # Panics
    /// None is open, or a key waits for its value.
    pub fn end(&mut self) -> &mut Self {
        let open = self.open.pop().expect("end() has a container to close");
        assert!(
            !matches!(
                open,
                Open::Dict {
                    value_due: true,
                    ..
                }
            ),
            "a key has no value"
        );
        self.out.push(b'e');
        self
    }

    /// Writes a key of the innermost dictionary; its value has to follow.
    ///
    /// # Panics
    /// No dictionary is open, the previous key waits for its value, or the keys do not ascend.
    pub fn key(&mut self, key: &[u8]) -> &mut Self {
        let Some(Open::Dict {
            last_key,
            value_due,
        }) = self.open.last_mut()
        else {
            unreachable_key();
        };
        assert!(!*value_due, "the previous key has no value");
        if let Some(span) = last_key {
            assert!(&self.out[span.clone()] < key, "dictionary keys must ascend");
        }
        let content = push_bytes(&mut self.out, key);
        *last_key = Some(content);
        *value_due = true;
        self
    }

    /// Writes a string.
    pub fn bytes(&mut self, content: &[u8]) -> &mut Self {
        self.value_begins();
        push_bytes(&mut self.out, content);
        self
    }

    /// Writes an integer.
    pub fn integer(&mut self, value: i64) -> &mut Self {
        self.value_begins();
        self.out.extend_from_slice(format!("i{value}e").as_bytes());
        self
    }

    /// Writes an integer that may need the 64th bit.
    pub fn unsigned(&mut self, value: u64) -> &mut Self {
        self.value_begins();
        self.out.extend_from_slice(format!("i{value}e").as_bytes());
        self
    }

    /// Writes a value that is encoded already, such as the raw span of a parsed one.
    pub fn raw(&mut self, encoded: &[u8]) -> &mut Self {
        self.value_begins();
        self.out.extend_from_slice(encoded);
        self
    }

    /// What was written.
    ///
    /// # Panics
    /// A container is still open, or nothing was written.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        assert!(self.open.is_empty(), "a list or dictionary is still open");
        assert_eq!(self.roots, 1, "a document is one value");
        self.out
    }

    fn value_begins(&mut self) {
        match self.open.last_mut() {
            None => {
                assert_eq!(self.roots, 0, "a document is one value");
                self.roots = 1;
            }
            Some(Open::List) => {}
            Some(Open::Dict { value_due, .. }) => {
                assert!(*value_due, "a value in a dictionary needs a key");
                *value_due = false;
            }
        }
    }
}

#[allow(clippy::panic)] // A bug of ours: no stranger's input decides which methods are called.
fn unreachable_key() -> ! {
    panic!("key() needs an open dictionary")
}

/// Appends `content` as a string and returns where the content stands.
fn push_bytes(out: &mut Vec<u8>, content: &[u8]) -> Range<usize> {
    out.extend_from_slice(format!("{}:", content.len()).as_bytes());
    let start = out.len();
    out.extend_from_slice(content);
    start..out.len()
}
