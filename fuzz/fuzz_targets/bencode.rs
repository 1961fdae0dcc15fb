//! The bencode reader and writer.
//!
//! Checked beyond "no panic": spans nest and follow each other, what the tape says encodes to the
//! bytes that it came from, duplicate keys are found where there are any, and the limits hold. The
//! first two bytes choose limits, so that those are reached by short inputs.
#![no_main]

use std::collections::BTreeSet;

use libfuzzer_sys::fuzz_target;
use proto::bencode::{Document, Encoder, Kind, Limits, Value};

fuzz_target!(|data: &[u8]| {
    let Some((&[tokens, depth], input)) = data.split_first_chunk() else {
        return;
    };
    // 255 tokens stand for the real limit.
    let limits = Limits {
        tokens_max: if tokens == 255 {
            Limits::METAINFO.tokens_max
        } else {
            tokens.into()
        },
        // Never above the real limit, so that these limits are the tighter ones.
        depth_max: u32::from(depth).min(Limits::METAINFO.depth_max),
        ..Limits::METAINFO
    };
    let document = match Document::parse(input, &limits) {
        Ok(document) => document,
        Err(error) => {
            assert!(error.offset <= input.len());
            return;
        }
    };
    // A tighter limit never lets more through.
    assert!(Document::parse(input, &Limits::METAINFO).is_ok());
    let root = document.root();
    assert_eq!(root.offset(), 0);
    assert_eq!(root.raw(), &input[..document.consumed()]);
    assert_eq!(document.trailing(), &input[document.consumed()..]);

    let mut seen = Seen {
        input,
        tokens: 0,
        sorted: true,
        duplicates: false,
    };
    seen.visit(root, 0, limits.depth_max);
    assert!(seen.tokens <= limits.tokens_max);
    assert_eq!(root.find_duplicate_key().is_some(), seen.duplicates);
    if let Some(duplicate) = root.find_duplicate_key() {
        assert_eq!(duplicate.kind(), Kind::Bytes);
    }
    if seen.sorted {
        let mut encoder = Encoder::new();
        copy(root, &mut encoder);
        assert_eq!(encoder.finish(), root.raw());
    }
    // Read alone, the same bytes are the same document; one byte fewer is none.
    assert!(Document::parse(root.raw(), &limits).is_ok_and(|alone| alone.trailing().is_empty()));
    assert!(Document::parse(&root.raw()[..root.raw().len() - 1], &limits).is_err());
});

/// What a walk over a document meets.
struct Seen<'input> {
    input: &'input [u8],
    tokens: u32,
    sorted: bool,
    duplicates: bool,
}

impl Seen<'_> {
    fn visit(&mut self, value: Value<'_, '_>, depth: u32, depth_max: u32) {
        let end = value.offset() + value.raw().len();
        assert_eq!(value.raw(), &self.input[value.offset()..end]);
        self.tokens += 1;
        match value.kind() {
            Kind::Bytes => assert!(value.as_integer().is_none() && value.as_bytes().is_some()),
            Kind::Integer => {
                let text = std::str::from_utf8(&value.raw()[1..value.raw().len() - 1]);
                let text = text.expect("digits");
                assert_eq!(value.as_integer(), text.parse().ok());
                assert_eq!(value.as_unsigned(), text.parse().ok());
                if let Some(number) = value.as_integer() {
                    assert_eq!(number.to_string(), text);
                }
            }
            Kind::List | Kind::Dict => {
                assert!(depth < depth_max);
                self.tokens += 1;
                self.visit_children(value, depth + 1, depth_max);
            }
        }
    }

    /// The children lie side by side between the first byte of the container and its last.
    fn visit_children(&mut self, value: Value<'_, '_>, depth: u32, depth_max: u32) {
        let mut at = value.offset() + 1;
        let mut visit = |this: &mut Self, child: Value<'_, '_>| {
            assert_eq!(child.offset(), at);
            at += child.raw().len();
            this.visit(child, depth, depth_max);
        };
        if let Some(list) = value.list() {
            list.for_each(|child| visit(self, child));
        }
        if let Some(dict) = value.dict() {
            let mut keys = BTreeSet::new();
            for entry in dict.entries() {
                visit(self, entry.key_value);
                visit(self, entry.value);
                let is_first = keys.insert(entry.key);
                self.duplicates |= !is_first;
                if is_first {
                    let found = dict.get(entry.key).expect("the key was listed");
                    assert_eq!(found.offset(), entry.value.offset());
                }
            }
            self.sorted &= dict.is_sorted();
            let ascending = dict
                .entries()
                .map(|entry| entry.key)
                .is_sorted_by(|a, b| a < b);
            assert_eq!(dict.is_sorted(), ascending);
        }
        assert_eq!(at + 1, value.offset() + value.raw().len());
    }
}

fn copy(value: Value<'_, '_>, encoder: &mut Encoder) {
    if let Some(content) = value.as_bytes() {
        encoder.bytes(content);
    } else if let Some(list) = value.list() {
        encoder.begin_list();
        list.for_each(|child| copy(child, encoder));
        encoder.end();
    } else if let Some(dict) = value.dict() {
        encoder.begin_dict();
        for entry in dict.entries() {
            encoder.key(entry.key);
            copy(entry.value, encoder);
        }
        encoder.end();
    } else if let Some(number) = value.as_integer() {
        encoder.integer(number);
    } else {
        encoder.raw(value.raw());
    }
}
