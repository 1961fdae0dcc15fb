use proptest::prelude::*;

use super::*;

const SAMPLE: &[u8] = b"d1:ai0e1:bi-42e2:cdl0:3:abcli7eee2:d d1:x1:y1:zleee";

fn parse(input: &[u8]) -> Result<Document<'_>, Error> {
    Document::parse(input, &Limits::METAINFO)
}

fn refusal(input: &[u8]) -> (usize, ErrorKind) {
    let error = parse(input).expect_err("must be refused");
    (error.offset, error.kind)
}

/// A value by value copy, which shows whether the tape holds what the input says.
fn copy(value: Value<'_, '_>, encoder: &mut Encoder) {
    match value.kind() {
        Kind::Integer => _ = encoder.raw(value.raw()),
        Kind::Bytes => _ = encoder.bytes(value.as_bytes().unwrap()),
        Kind::List => {
            encoder.begin_list();
            value.list().unwrap().for_each(|item| copy(item, encoder));
            encoder.end();
        }
        Kind::Dict => {
            encoder.begin_dict();
            for entry in value.dict().unwrap().entries() {
                encoder.key(entry.key);
                copy(entry.value, encoder);
            }
            encoder.end();
        }
    }
}

fn all_sorted(value: Value<'_, '_>) -> bool {
    match value.kind() {
        Kind::Integer | Kind::Bytes => true,
        Kind::List => value.list().unwrap().all(all_sorted),
        Kind::Dict => {
            let dict = value.dict().unwrap();
            dict.is_sorted() && dict.entries().all(|entry| all_sorted(entry.value))
        }
    }
}

/// What must hold for every document that was read, whatever it says.
fn check_invariants(input: &[u8], document: &Document<'_>) {
    let root = document.root();
    assert_eq!(root.offset(), 0);
    assert_eq!(root.raw(), &input[..document.consumed()]);
    assert_eq!(document.trailing(), &input[document.consumed()..]);
    if all_sorted(root) {
        let mut encoder = Encoder::new();
        copy(root, &mut encoder);
        assert_eq!(
            encoder.finish(),
            root.raw(),
            "canonical, so there is one encoding"
        );
        assert!(root.find_duplicate_key().is_none());
    }
}

#[test]
fn reads_the_four_kinds() {
    let input = b"d3:keyl2:abi-5ee4:zerod1:xi0eee";
    let document = parse(input).unwrap();
    let list: Vec<_> = document
        .root()
        .get(b"key")
        .unwrap()
        .list()
        .unwrap()
        .collect();
    assert_eq!(list[0].as_bytes(), Some(&b"ab"[..]));
    assert_eq!(list[0].as_str(), Some("ab"));
    assert_eq!(list[1].as_integer(), Some(-5));
    assert_eq!(list.len(), 2);
    let inner = document.root().get(b"zero").unwrap();
    assert_eq!(inner.get(b"x").unwrap().as_integer(), Some(0));
    assert_eq!(inner.raw(), b"d1:xi0ee");
    assert_eq!(&input[inner.offset()..][..inner.raw().len()], inner.raw());
    assert_eq!(document.trailing(), b"");
}

#[test]
fn a_value_of_another_kind_is_none() {
    let document = parse(b"d1:ai1e1:b1:xe").unwrap();
    let root = document.root();
    assert!(root.as_bytes().is_none() && root.as_integer().is_none() && root.list().is_none());
    let integer = root.get(b"a").unwrap();
    assert!(integer.as_bytes().is_none() && integer.dict().is_none());
    let string = root.get(b"b").unwrap();
    assert!(string.as_integer().is_none() && string.as_unsigned().is_none());
    assert!(string.get(b"x").is_none() && root.get(b"c").is_none());
}

#[test]
fn malformed_input_is_refused_with_offset_and_kind() {
    use ErrorKind::*;
    let cases: &[(&[u8], usize, ErrorKind)] = &[
        (b"", 0, UnexpectedEnd),
        (b"e", 0, UnexpectedByte(b'e')),
        (b"x", 0, UnexpectedByte(b'x')),
        (b" i1e", 0, UnexpectedByte(b' ')),
        (b"-1:", 0, UnexpectedByte(b'-')),
        (b"i04e", 0, IntegerNotCanonical),
        (b"i-0e", 0, IntegerNotCanonical),
        (b"i00e", 0, IntegerNotCanonical),
        (b"i-01e", 0, IntegerNotCanonical),
        (b"ie", 0, IntegerNotCanonical),
        (b"i-e", 0, IntegerNotCanonical),
        (b"i+1e", 1, UnexpectedByte(b'+')),
        (b"i1.0e", 2, UnexpectedByte(b'.')),
        (b"i 1e", 1, UnexpectedByte(b' ')),
        (b"i--1e", 2, UnexpectedByte(b'-')),
        (b"i12", 3, UnexpectedEnd),
        (b"04:spam", 0, LengthNotCanonical),
        (b"00:", 0, LengthNotCanonical),
        (b"4spam", 1, UnexpectedByte(b's')),
        (b"5:spam", 0, StringTooLong),
        (b"li1e", 4, UnexpectedEnd),
        (b"d1:a", 4, UnexpectedEnd),
        (b"d1:ae", 4, KeyWithoutValue),
        (b"d1:ai1e1:be", 10, KeyWithoutValue),
        (b"di1ei2ee", 1, KeyNotString),
        (b"dle1:ae", 1, KeyNotString),
        (b"d1:ai1edee", 7, KeyNotString),
        (b"dx", 1, UnexpectedByte(b'x')),
        (b"l4:spamx", 7, UnexpectedByte(b'x')),
    ];
    for (input, offset, kind) in cases {
        assert_eq!(refusal(input), (*offset, *kind), "{}", input.escape_ascii());
    }
    let error = parse(b"li04ee").unwrap_err();
    assert_eq!(
        error.to_string(),
        "bencode at byte 1: the integer is not canonical (empty, minus zero or a leading zero)"
    );
}

#[test]
fn hostile_lengths_neither_overflow_nor_allocate() {
    let lengths = [
        "18446744073709551616",
        "9223372036854775807",
        "4294967296",
        "99999999999999999999999999",
    ];
    for length in lengths {
        assert_eq!(
            refusal(format!("{length}:a").as_bytes()),
            (0, ErrorKind::StringTooLong)
        );
        let in_dict = format!("d{length}:a");
        assert_eq!(refusal(in_dict.as_bytes()), (1, ErrorKind::StringTooLong));
    }
}

#[test]
fn integers_at_the_edges_of_64_bits() {
    let signed = |text: &str| {
        parse(format!("i{text}e").as_bytes())
            .unwrap()
            .root()
            .as_integer()
    };
    let unsigned = |text: &str| {
        parse(format!("i{text}e").as_bytes())
            .unwrap()
            .root()
            .as_unsigned()
    };
    assert_eq!(signed("9223372036854775807"), Some(i64::MAX));
    assert_eq!(signed("-9223372036854775808"), Some(i64::MIN));
    assert_eq!(signed("9223372036854775808"), None);
    assert_eq!(unsigned("18446744073709551615"), Some(u64::MAX));
    assert_eq!(unsigned("18446744073709551616"), None);
    assert_eq!(unsigned("-1"), None);
    assert_eq!(unsigned("0"), Some(0));
}

#[test]
fn every_truncation_is_refused() {
    let whole = parse(SAMPLE).unwrap();
    check_invariants(SAMPLE, &whole);
    for length in 0..SAMPLE.len() {
        let error = parse(&SAMPLE[..length]).expect_err("a part of a document");
        assert!(error.offset <= length);
        assert!(
            matches!(
                error.kind,
                ErrorKind::UnexpectedEnd | ErrorKind::StringTooLong
            ),
            "{error}"
        );
    }
}

#[test]
fn every_bit_flip_is_refused_or_read_for_what_it_says() {
    for index in 0..SAMPLE.len() {
        for bit in 0..8 {
            let mut flipped = SAMPLE.to_vec();
            flipped[index] ^= 1 << bit;
            match parse(&flipped) {
                Ok(document) => check_invariants(&flipped, &document),
                Err(error) => assert!(error.offset <= flipped.len()),
            }
        }
    }
}

#[test]
fn the_depth_limit_is_exact_and_nesting_costs_no_stack() {
    let nested = |depth: usize| [vec![b'l'; depth], vec![b'e'; depth]].concat();
    let depth_max = Limits::METAINFO.depth_max as usize;
    assert!(parse(&nested(depth_max)).is_ok());
    let too_deep = (depth_max, ErrorKind::TooDeep(depth_max as u32));
    assert_eq!(refusal(&nested(depth_max + 1)), too_deep);
    assert_eq!(refusal(&vec![b'l'; 1_000_000]), too_deep);
    assert_eq!(refusal(&b"d1:a".repeat(1_000_000)), (400, too_deep.1));
    // As deep as a caller allows: the parser itself does not recurse.
    let limits = Limits {
        depth_max: u32::MAX,
        ..Limits::METAINFO
    };
    let deep = nested(1_000_000);
    assert_eq!(
        Document::parse(&deep, &limits).unwrap().consumed(),
        2_000_000
    );
}

#[test]
fn the_token_limit_counts_starts_ends_and_scalars() {
    let limits = Limits {
        tokens_max: 6,
        ..Limits::METAINFO
    };
    assert!(Document::parse(b"d1:ali1eee", &limits).is_ok());
    let error = Document::parse(b"d1:ali1ei2eee", &limits).unwrap_err();
    assert_eq!(
        error,
        Error {
            offset: 12,
            kind: ErrorKind::TooManyTokens(6)
        }
    );
    let most = Limits::METAINFO.tokens_max as usize;
    let integers = |count: usize| [b"l".to_vec(), b"i0e".repeat(count), b"e".to_vec()].concat();
    assert!(parse(&integers(most - 2)).is_ok());
    assert_eq!(
        refusal(&integers(most - 1)).1,
        ErrorKind::TooManyTokens(most as u32)
    );
}

#[test]
fn the_byte_limit_is_exact() {
    let limits = Limits {
        bytes_max: 4,
        ..Limits::METAINFO
    };
    assert!(Document::parse(b"2:ab", &limits).is_ok());
    let error = Document::parse(b"3:abc", &limits).unwrap_err();
    assert_eq!(
        error,
        Error {
            offset: 4,
            kind: ErrorKind::TooManyBytes(4)
        }
    );
}

#[test]
fn trailing_bytes_are_handed_over() {
    let document = parse(b"d8:msg_typei1eePAYLOAD").unwrap();
    assert_eq!(document.consumed(), 15);
    assert_eq!(document.trailing(), b"PAYLOAD");
    assert_eq!(parse(b"i1ee").unwrap().trailing(), b"e");
}

#[test]
fn results_outlive_the_document() {
    fn payload(message: &[u8]) -> (&[u8], &[u8]) {
        let document = parse(message).unwrap();
        (
            document.root().get(b"a").unwrap().as_bytes().unwrap(),
            document.trailing(),
        )
    }
    assert_eq!(payload(b"d1:a1:xe.."), (&b"x"[..], &b".."[..]));
}

#[test]
fn unsorted_keys_are_read_and_reported() {
    let document = parse(b"d1:bi1e1:ai2ee").unwrap();
    let dict = document.root().dict().unwrap();
    assert!(!dict.is_sorted());
    assert!(dict.duplicate_key().is_none());
    assert_eq!(dict.get(b"a").unwrap().as_integer(), Some(2));
    assert!(
        parse(b"d0:i1e1:ai1e2:aai2e1:bi3ee")
            .unwrap()
            .root()
            .dict()
            .unwrap()
            .is_sorted()
    );
}

#[test]
fn duplicate_keys_are_found_wherever_they_are() {
    let cases: &[(&[u8], Option<usize>)] = &[
        (b"d1:ai1e1:ai2ee", Some(7)),
        (b"d1:ai1e1:bi2e1:ai3ee", Some(13)),
        (b"d1:cd1:ai1e1:bi2e1:ai3eee", Some(17)),
        (b"ld1:ai1eed1:ai1e1:ai2eee", Some(16)),
        (b"ld1:ai1eed1:ai1eee", None),
        (b"d1:ad1:ai1eee", None),
        (b"d1:a1:ae", None),
    ];
    for (input, offset) in cases {
        let document = parse(input).unwrap();
        let found = document.root().find_duplicate_key().map(|key| key.offset());
        assert_eq!(found, *offset, "{}", input.escape_ascii());
    }
    let document = parse(b"d1:ai1e1:ai2ee").unwrap();
    assert_eq!(
        document.root().get(b"a").unwrap().as_integer(),
        Some(1),
        "the first wins"
    );
}

#[test]
fn debug_escapes_and_cuts() {
    let input = b"3:\x1b\n\xff".as_slice();
    assert_eq!(
        format!("{:?}", parse(input).unwrap().root()),
        r#""3:\x1b\n\xff""#
    );
    let long = [b"100:".as_slice(), &[b'x'; 100]].concat();
    let shown = format!("{:?}", parse(&long).unwrap().root());
    assert!(
        shown.len() < 100 && shown.ends_with("… (104 bytes)"),
        "{shown}"
    );
}

#[test]
fn the_encoder_appends_to_a_header() {
    let mut encoder = Encoder::append_to(vec![20, 1]);
    encoder
        .begin_dict()
        .key(b"m")
        .begin_dict()
        .end()
        .key(b"n")
        .unsigned(u64::MAX)
        .end();
    assert_eq!(
        encoder.finish(),
        b"\x14\x01d1:mde1:ni18446744073709551615ee"
    );
}

#[test]
#[should_panic(expected = "keys must ascend")]
fn the_encoder_asserts_sorted_keys() {
    Encoder::new().begin_dict().key(b"b").integer(1).key(b"a");
}

#[test]
#[should_panic(expected = "keys must ascend")]
fn the_encoder_asserts_distinct_keys() {
    Encoder::new().begin_dict().key(b"a").integer(1).key(b"a");
}

#[test]
#[should_panic(expected = "has no value")]
fn the_encoder_asserts_a_value_for_a_key() {
    Encoder::new().begin_dict().key(b"a").end();
}

#[test]
#[should_panic(expected = "needs a key")]
fn the_encoder_asserts_a_key_for_a_value() {
    Encoder::new().begin_dict().integer(1);
}

#[test]
#[should_panic(expected = "still open")]
fn the_encoder_asserts_closed_containers() {
    let mut encoder = Encoder::new();
    encoder.begin_list();
    drop(encoder.finish());
}

/// A document as a tree, for round trips.
#[derive(Clone, Debug, PartialEq)]
enum Tree {
    Integer(i64),
    Bytes(Vec<u8>),
    List(Vec<Tree>),
    Dict(std::collections::BTreeMap<Vec<u8>, Tree>),
}

impl Tree {
    fn write(&self, encoder: &mut Encoder) {
        match self {
            Self::Integer(value) => _ = encoder.integer(*value),
            Self::Bytes(content) => _ = encoder.bytes(content),
            Self::List(items) => {
                encoder.begin_list();
                items.iter().for_each(|item| item.write(encoder));
                encoder.end();
            }
            Self::Dict(entries) => {
                encoder.begin_dict();
                for (key, value) in entries {
                    encoder.key(key);
                    value.write(encoder);
                }
                encoder.end();
            }
        }
    }

    fn read(value: Value<'_, '_>) -> Self {
        match value.kind() {
            Kind::Integer => Self::Integer(value.as_integer().unwrap()),
            Kind::Bytes => Self::Bytes(value.as_bytes().unwrap().to_vec()),
            Kind::List => Self::List(value.list().unwrap().map(Self::read).collect()),
            Kind::Dict => {
                let entries = value.dict().unwrap().entries();
                Self::Dict(
                    entries
                        .map(|e| (e.key.to_vec(), Self::read(e.value)))
                        .collect(),
                )
            }
        }
    }
}

fn trees() -> impl Strategy<Value = Tree> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..12);
    let leaf = prop_oneof![
        any::<i64>().prop_map(Tree::Integer),
        bytes().prop_map(Tree::Bytes)
    ];
    leaf.prop_recursive(6, 64, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Tree::List),
            proptest::collection::btree_map(bytes(), inner, 0..6).prop_map(Tree::Dict),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        tree in trees(),
        trailing in proptest::collection::vec(any::<u8>(), 0..4),
    ) {
        let mut encoder = Encoder::new();
        tree.write(&mut encoder);
        let mut encoded = encoder.finish();
        let length = encoded.len();
        encoded.extend(&trailing);
        let document = parse(&encoded).unwrap();
        prop_assert_eq!(document.consumed(), length);
        prop_assert_eq!(Tree::read(document.root()), tree);
        check_invariants(&encoded, &document);
    }

    #[test]
    fn any_mix_of_the_alphabet_is_read_or_refused(
        choices in proptest::collection::vec(0usize..14, 0..200),
    ) {
        let pieces: [&[u8]; 14] = [
            b"i", b"e", b"l", b"d", b"0", b"1", b"7", b":", b"-", b"i5e", b"1:a",
            b"1:b", b"0:", b"\xff",
        ];
        let input: Vec<u8> = choices.iter().flat_map(|&choice| pieces[choice].to_vec()).collect();
        match parse(&input) {
            Ok(document) => check_invariants(&input, &document),
            Err(error) => prop_assert!(error.offset <= input.len()),
        }
    }
}
