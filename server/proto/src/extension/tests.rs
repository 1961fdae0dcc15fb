//! Tests of the extension handshake and of ut_metadata.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;

fn encoded(handshake: &ExtensionHandshake) -> Vec<u8> {
    let mut out = Vec::new();
    handshake.encode(&mut out);
    out
}

fn parsed(payload: &str) -> ExtensionHandshake {
    ExtensionHandshake::parse(payload.as_bytes()).unwrap()
}

fn metadata(message: &MetadataMessage<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    message.encode(&mut out);
    out
}

#[test]
fn a_handshake_as_clients_send_it() {
    // As libtorrent writes it, with keys that we do not know.
    let handshake = parsed(
        "d12:complete_agoi5e1:md11:lt_donthavei7e10:share_modei8e11:upload_onlyi3e12:ut_holepunch\
         i4e11:ut_metadatai2e6:ut_pexi1ee13:metadata_sizei132e1:pi6881e4:reqqi2000e\
         11:upload_onlyi1e1:v18:libtorrent 2.0.9.06:yourip4:\x7f\0\0\x01e",
    );
    let id = |extension| handshake.messages.get(extension).map(NonZeroU8::get);
    assert_eq!(id(Extension::DontHave), Some(7));
    assert_eq!(id(Extension::UploadOnly), Some(3));
    assert_eq!(id(Extension::Holepunch), Some(4));
    assert_eq!(id(Extension::Metadata), Some(2));
    assert_eq!(id(Extension::PeerExchange), Some(1));
    assert_eq!(handshake.client.as_deref(), Some("libtorrent 2.0.9.0"));
    assert_eq!(handshake.listen_port, NonZeroU16::new(6881));
    assert_eq!(handshake.request_queue, Some(2000));
    assert_eq!(handshake.your_ip, Some(IpAddr::from([127, 0, 0, 1])));
    assert_eq!(handshake.metadata_bytes, Some(132));
    assert_eq!(handshake.complete_ago_seconds, Some(5));
    assert!(handshake.upload_only && !handshake.prefers_encryption);
}

#[test]
fn our_handshake_is_canonical_bencode() {
    let handshake = ExtensionHandshake {
        messages: MessageIds::ours(&[Extension::Metadata, Extension::PeerExchange]),
        client: Some("Seedring 0.1.0".into()),
        listen_port: NonZeroU16::new(6890),
        request_queue: Some(500),
        your_ip: Some(IpAddr::from([10, 0, 0, 1])),
        metadata_bytes: Some(1000),
        upload_only: true,
        ..ExtensionHandshake::default()
    };
    let expected = "d1:md11:ut_metadatai4e6:ut_pexi5ee13:metadata_sizei1000e1:pi6890e4:reqqi500e\
                    11:upload_onlyi1e1:v14:Seedring 0.1.06:yourip4:\x0a\0\0\x01e";
    assert_eq!(String::from_utf8(encoded(&handshake)).unwrap(), expected);
    assert_eq!(parsed(expected), handshake);
    assert_eq!(encoded(&ExtensionHandshake::default()), b"d1:mdee");
}

#[test]
fn impossible_values_are_left_out() {
    for payload in [
        "de",
        "d1:mi1ee",
        "d1:mle1:vi1e1:p4:6881e",
        "d1:md11:ut_metadatai256e6:ut_pexi-1e12:ut_holepunch1:1ee",
        "d13:metadata_sizei0ee",
        "d13:metadata_sizei-1ee",
        "d13:metadata_sizei67108865ee",
        "d13:metadata_sizei2147483648ee",
        "d13:metadata_sizei18446744073709551616ee",
        "d1:pi0ee",
        "d1:pi65536ee",
        "d1:pi-1ee",
        "d4:reqqi0ee",
        "d4:reqqi-5ee",
        "d6:yourip3:abce",
        "d4:ipv43:abc4:ipv64:abcde",
        "d12:complete_agoi-1ee",
        "d11:upload_onlyi0e1:ei0ee",
        "d11:upload_onlyi2e1:ei-1ee",
        "d1:v0:e",
    ] {
        assert_eq!(parsed(payload), ExtensionHandshake::default(), "{payload}");
    }
}

#[test]
fn values_beyond_a_limit_are_clamped() {
    let handshake = parsed("d12:complete_agoi9999999999e4:reqqi9999999999ee");
    assert_eq!(handshake.complete_ago_seconds, Some(u32::MAX));
    assert_eq!(
        handshake.request_queue,
        Some(limits::PEER_REQUEST_QUEUE_MAX)
    );
    let long = format!("d1:v1000:{}e", "\u{7}".repeat(1000));
    let client = parsed(&long).client.unwrap();
    assert_eq!(client.chars().count(), limits::CLIENT_TEXT_CHARS_MAX);
    assert!(client.starts_with("\\u{7}\\u{7}"), "{client}");
    assert_eq!(
        parsed("d13:metadata_sizei67108864ee").metadata_bytes,
        Some(64 << 20)
    );
}

#[test]
fn of_duplicate_keys_the_first_counts() {
    let handshake = parsed("d1:md6:ut_pexi1e6:ut_pexi2ee1:pi1e1:md6:ut_pexi9ee1:pi2ee");
    assert_eq!(
        handshake.messages.get(Extension::PeerExchange),
        NonZeroU8::new(1)
    );
    assert_eq!(handshake.listen_port, NonZeroU16::new(1));
}

#[test]
fn what_is_no_dictionary_is_an_error() {
    for payload in ["", "i1e", "le", "4:spam", "d1:md", "x"] {
        assert!(
            ExtensionHandshake::parse(payload.as_bytes()).is_err(),
            "{payload}"
        );
        assert!(
            MetadataMessage::parse(payload.as_bytes()).is_err(),
            "{payload}"
        );
    }
    let deep = "l".repeat(100_000);
    assert!(ExtensionHandshake::parse(deep.as_bytes()).is_err());
}

#[test]
fn a_later_handshake_changes_only_what_it_mentions() {
    let mut ids = parsed("d1:md11:ut_metadatai2e6:ut_pexi1eee").messages;
    ids.update(&parsed("d1:md12:ut_holepunchi9e6:ut_pexi0eee").messages);
    assert_eq!(ids.get(Extension::Metadata), NonZeroU8::new(2));
    assert_eq!(ids.get(Extension::PeerExchange), None);
    assert_eq!(ids.get(Extension::Holepunch), NonZeroU8::new(9));
    assert_eq!(ids.get(Extension::DontHave), None);
}

#[test]
fn our_ids_lead_back_to_their_extensions() {
    for extension in Extension::ALL {
        assert_eq!(
            Extension::from_our_id(extension.our_id().get()),
            Some(extension)
        );
        assert_eq!(Extension::ALL[extension as usize], extension);
    }
    assert_eq!(Extension::from_our_id(HANDSHAKE_ID), None);
    assert_eq!(Extension::from_our_id(200), None);
}

#[test]
fn metadata_messages_have_the_bytes_of_bep_9() {
    let block = vec![b'x'; 100];
    let total_bytes = METADATA_BLOCK_BYTES + 100;
    let data = MetadataMessage::Data {
        piece: 1,
        total_bytes,
        block: &block,
    };
    let head = b"d8:msg_typei1e5:piecei1e10:total_sizei16484ee";
    let cases = [
        (
            MetadataMessage::Request { piece: 0 },
            b"d8:msg_typei0e5:piecei0ee".to_vec(),
        ),
        (data, [head.as_slice(), &block].concat()),
        (
            MetadataMessage::Reject { piece: 4095 },
            b"d8:msg_typei2e5:piecei4095ee".to_vec(),
        ),
        (
            MetadataMessage::Unknown { kind: -7 },
            b"d8:msg_typei-7ee".to_vec(),
        ),
    ];
    for (message, bytes) in cases {
        assert_eq!(metadata(&message), bytes);
        assert_eq!(MetadataMessage::parse(&bytes), Ok(message));
        for length in 0..bytes.len() {
            assert!(
                MetadataMessage::parse(&bytes[..length]).is_err(),
                "{message:?} at {length}"
            );
        }
    }
}

#[test]
fn hostile_metadata_values_are_refused() {
    for (payload, named) in [
        ("d5:piecei0ee", "msg_type"),
        ("d8:msg_type1:0e", "msg_type"),
        ("d8:msg_typei0ee", "piece"),
        ("d8:msg_typei0e5:piecei-1ee", "piece"),
        ("d8:msg_typei0e5:piecei4096ee", "piece"),
        ("d8:msg_typei2e5:piecei2147483648ee", "piece"),
        ("d8:msg_typei0e5:piecei4294967296ee", "piece"),
        ("d8:msg_typei0e5:piecei99999999999999999999ee", "piece"),
        ("d8:msg_typei1e5:piecei0ee", "total_size"),
        ("d8:msg_typei1e5:piecei0e10:total_sizei0ee", "total_size"),
        ("d8:msg_typei1e5:piecei0e10:total_sizei-1ee", "total_size"),
        (
            "d8:msg_typei1e5:piecei0e10:total_sizei2147483647ee",
            "total_size",
        ),
        (
            "d8:msg_typei1e5:piecei0e10:total_sizei67108865ee",
            "total_size",
        ),
        ("d8:msg_typei1e5:piecei1e10:total_sizei16384ee", "piece"),
        ("d8:msg_typei1e5:piecei0e10:total_sizei3eexx", "2 bytes"),
        ("d8:msg_typei1e5:piecei0e10:total_sizei3eexxxx", "4 bytes"),
    ] {
        let error = MetadataMessage::parse(payload.as_bytes())
            .unwrap_err()
            .to_string();
        assert!(error.contains(named), "{payload}: {error}");
    }
}

#[test]
fn block_lengths_add_up() {
    for total in [1, 16_383, 16_384, 16_385, 64 << 20, u32::MAX] {
        let blocks = metadata_blocks(total);
        let last = metadata_block_bytes(total, blocks - 1).unwrap();
        assert_eq!(
            u64::from(blocks - 1) * 16_384 + u64::from(last),
            u64::from(total)
        );
        assert_eq!(metadata_block_bytes(total, blocks), None);
    }
    assert_eq!(metadata_block_bytes(0, 0), None);
    assert_eq!(metadata_block_bytes(u32::MAX, u32::MAX), None);
}

fn handshakes() -> impl Strategy<Value = ExtensionHandshake> {
    let ids = vec(option::of(any::<u8>()), Extension::ALL.len());
    let text = vec(any::<u8>(), 1..100);
    let addresses = (
        option::of(any::<[u8; 16]>()),
        option::of(any::<[u8; 4]>()),
        any::<bool>(),
    );
    let numbers = (
        option::of(1..=u16::MAX),
        option::of(1..=limits::PEER_REQUEST_QUEUE_MAX),
        option::of(1..=limits::METAINFO_BYTES_MAX as u32),
        option::of(any::<u32>()),
    );
    (
        ids,
        option::of(text),
        addresses,
        numbers,
        any::<(bool, bool)>(),
    )
        .prop_map(
            |(ids, text, (v6, v4, yours_is_v6), numbers, (upload_only, prefers_encryption))| {
                let (listen_port, request_queue, metadata_bytes, complete_ago_seconds) = numbers;
                let (ipv4, ipv6) = (v4.map(Ipv4Addr::from), v6.map(Ipv6Addr::from));
                ExtensionHandshake {
                    messages: MessageIds {
                        ids: ids.try_into().unwrap(),
                    },
                    client: text.map(|text| printable(&text, limits::CLIENT_TEXT_CHARS_MAX)),
                    listen_port: listen_port.and_then(NonZeroU16::new),
                    request_queue,
                    your_ip: if yours_is_v6 {
                        ipv6.map(IpAddr::V6)
                    } else {
                        ipv4.map(IpAddr::V4)
                    },
                    ipv4,
                    ipv6,
                    metadata_bytes,
                    upload_only,
                    complete_ago_seconds,
                    prefers_encryption,
                }
            },
        )
}

proptest! {
    #[test]
    fn handshake_decode_encode_is_identity(handshake in handshakes()) {
        let bytes = encoded(&handshake);
        prop_assert_eq!(ExtensionHandshake::parse(&bytes).unwrap(), handshake);
        for length in 0..bytes.len() {
            prop_assert!(ExtensionHandshake::parse(&bytes[..length]).is_err());
        }
    }

    #[test]
    fn metadata_decode_encode_is_identity(
        kind in 0u8..4, piece in 0u32..4096, total in 1u32..=64 << 20, other in 3i64..,
    ) {
        let piece = if kind == 1 { piece % metadata_blocks(total) } else { piece };
        let block = vec![7; metadata_block_bytes(total, piece).unwrap_or(0) as usize];
        let message = match kind {
            0 => MetadataMessage::Request { piece },
            1 => MetadataMessage::Data { piece, total_bytes: total, block: &block },
            2 => MetadataMessage::Reject { piece },
            _ => MetadataMessage::Unknown { kind: other },
        };
        let bytes = metadata(&message);
        prop_assert_eq!(MetadataMessage::parse(&bytes), Ok(message));
    }

    #[test]
    fn flipped_bits_never_break_the_invariants(index in any::<usize>(), bit in 0u8..8) {
        let data = MetadataMessage::Data { piece: 0, total_bytes: 5, block: b"hello" };
        let mut bytes = metadata(&data);
        let index = index % bytes.len();
        bytes[index] ^= 1 << bit;
        let parsed = MetadataMessage::parse(&bytes);
        if let Ok(MetadataMessage::Data { piece, total_bytes, block }) = parsed {
            prop_assert_eq!(metadata_block_bytes(total_bytes, piece), Some(block.len() as u32));
        }
    }
}
