//! Tests of client names.

use proptest::prelude::*;

use super::*;

/// The name of a peer id that starts with `start`.
fn name(start: &[u8]) -> String {
    let mut id = *b"????????zzzzzzzzzzzz";
    id[..start.len()].copy_from_slice(start);
    client_name(&PeerId(id)).to_string()
}

#[test]
fn clients_of_today() {
    for (start, expected) in [
        (&b"-qB4520-"[..], "qBittorrent 4.5.2"),
        (b"-qB5000-", "qBittorrent 5.0.0"),
        (b"-qB33A0-", "qBittorrent 3.3.10"),
        (b"-TR2940-", "Transmission 2.94"),
        (b"-TR3000-", "Transmission 3.00"),
        (b"-TR300Z-", "Transmission 3.00+"),
        (b"-TR4050-", "Transmission 4.0.5"),
        (b"-TR400B-", "Transmission 4.0.0 beta"),
        (b"-TR0006-", "Transmission 0.6"),
        (b"-TR0072-", "Transmission 0.72"),
        (b"-DE13F0-", "Deluge 1.3.15"),
        (b"-DE211s-", "Deluge 2.1.1"),
        (b"-LT20B0-", "libtorrent 2.0.11"),
        (b"-lt0D80-", "rTorrent (libTorrent) 0.13.8"),
        (b"-UT355W-", "µTorrent 3.5.5"),
        (b"-UT360B-", "µTorrent 3.6.0 beta"),
        (b"-BT7a5W-", "BitTorrent 7.10.5"),
        (b"-AZ5750-", "Vuze 5.7.5"),
        (b"-BI2300-", "BiglyBT 2.3.0"),
        (b"-BC0183-", "BitComet 1.83"),
        (b"-KT4350-", "KTorrent 4.3.5"),
        (b"-KT33D1-", "KTorrent 3.3 Dev 1"),
        (b"-KT33R2-", "KTorrent 3.3 RC 2"),
        (b"-WW0105-", "WebTorrent 1.5"),
        (b"-WW0017-", "WebTorrent 0.17"),
        (b"-PI0170-", "PicoTorrent 0.17.0"),
        (b"-MG2111-", "MediaGet 2.1"),
        (b"-rQ0001-", "rqbit 0.0.0.1"),
        (b"-SD0100-", "Thunder 0.1.0"),
        (b"A2-1-36-0-", "aria2 1.36.0"),
        (b"A2-1-4-2-", "aria2 1.4.2"),
        (b"TIX0289-", "Tixati 2.89"),
        (b"M7-9-2--", "BitTorrent 7.9.2"),
        (b"M7-10-2-", "BitTorrent 7.10.2"),
        (b"Q1-23-4-", "Queen Bee 1.23.4"),
        (b"T03I-----", "BitTornado 0.3.18"),
        (b"S58B-----", "Shadow's client 5.8.11"),
        (b"exbc\x00\x38zz", "BitComet 0.56"),
        (b"exbc\x01\x02LORD", "BitLord 1.02"),
        (b"-ML2.7.2-", "MLDonkey 2.7.2"),
        (b"XBT054d-", "XBT Client 0.5.4"),
        (b"OP7685", "Opera 7685"),
        (b"btpd", "BitTorrent Protocol Daemon"),
    ] {
        assert_eq!(name(start), expected);
    }
}

#[test]
fn what_is_unknown_shows_its_prefix() {
    for (start, expected) in [
        (&b"-ZZ1234-"[..], "unknown (-ZZ1234-)"),
        (b"-Z\x1b[2J\r\n", "unknown (-Z\\u{1b}[2J\\r\\n)"),
        (
            b"\xff\xfe\0\0\0\0\0\0",
            "unknown (\\xff\\xfe\\0\\0\\0\\0\\0\\0)",
        ),
        (b"M7-9----", "unknown (M7-9----)"),
        (
            b"T\x01\x02\x03\x04\x05---",
            "unknown (T\\u{1}\\u{2}\\u{3}\\u{4}\\u{5}--)",
        ),
        (b"MMMMMMMM", "unknown (MMMMMMMM)"),
    ] {
        assert_eq!(name(start), expected);
    }
}

#[test]
fn a_known_client_with_an_odd_version_keeps_its_name() {
    for (start, expected) in [
        (&b"-qB\0\x01\x02\x03-"[..], "qBittorrent"),
        (b"-TR    -", "Transmission"),
        (b"-BC0A83-", "BitComet"),
        (b"-BCzzzz-", "BitComet"),
        (b"TIXzzzz", "Tixati"),
        (b"A2-x-y-z-", "aria2"),
        (b"-ML-\x07\x07\x07\x07", "MLDonkey"),
    ] {
        assert_eq!(name(start), expected);
    }
}

#[test]
fn our_own_id_is_ours_alone() {
    let id = our_peer_id([0, 1, 2, 61, 62, 63, 100, 200, 253, 254, 255, 7]);
    assert!(id.0.starts_with(&OUR_PEER_ID_PREFIX));
    assert!(id.0[8..].iter().all(u8::is_ascii_alphanumeric));
    let name = client_name(&id);
    assert_eq!(
        name.to_string(),
        concat!("Seedring ", env!("CARGO_PKG_VERSION"))
    );
    assert_eq!(name.label(), "Seedring");
    assert_eq!(&OUR_PEER_ID_PREFIX[..3], b"-SI");
    assert_eq!((OUR_PEER_ID_PREFIX[7], OUR_PEER_ID_PREFIX.len()), (b'-', 8));
    assert_ne!(our_peer_id([1; 12]), our_peer_id([2; 12]));
}

#[test]
fn the_table_has_no_code_twice() {
    let mut codes: Vec<[u8; 2]> = AZUREUS.iter().map(|(code, ..)| *code).collect();
    codes.sort_unstable();
    let count = codes.len();
    codes.dedup();
    assert_eq!(codes.len(), count);
    assert_eq!(
        AZUREUS
            .iter()
            .filter(|(code, ..)| *code == OUR_CLIENT_CODE)
            .count(),
        1
    );
    for (index, (prefix, ..)) in PREFIXES.iter().enumerate() {
        let shadowed = PREFIXES[..index]
            .iter()
            .find(|(other, ..)| prefix.starts_with(other));
        assert_eq!(shadowed, None);
    }
}

proptest! {
    #[test]
    fn any_id_has_a_printable_name(
        id: [u8; 20], known in 0..AZUREUS.len(), azureus: bool, digits: bool,
    ) {
        let mut id = id;
        if digits {
            id.iter_mut().for_each(|byte| *byte = BASE_62[usize::from(*byte) % BASE_62.len()]);
        }
        if azureus {
            id[0] = b'-';
            id[1..3].copy_from_slice(&AZUREUS[known].0);
        }
        let name = client_name(&PeerId(id));
        let text = name.to_string();
        prop_assert!(!text.is_empty() && text.len() < 100);
        prop_assert!(!text.chars().any(char::is_control), "{text:?}");
        prop_assert!(!azureus || name.name == Some(AZUREUS[known].1));
    }
}
