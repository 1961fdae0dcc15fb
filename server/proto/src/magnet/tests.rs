use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;

use super::*;
use std::time::{Duration, Instant};

const HEX: &str = "0123456789abcdef0123456789ABCDEF01234567";
const HASH: [u8; 20] = [
    0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef,
    0x01, 0x23, 0x45, 0x67,
];

fn parse(parameters: &str) -> Magnet {
    Magnet::parse(&format!("magnet:?xt=urn:btih:{HEX}&{parameters}")).unwrap()
}

fn refusal(parameters: &str) -> MagnetError {
    Magnet::parse(&format!("magnet:?xt=urn:btih:{HEX}&{parameters}")).expect_err("must be refused")
}

#[test]
fn reads_every_parameter() {
    let v2 = "cd".repeat(32);
    let magnet = parse(&format!(
        "xt=urn:btmh:1220{v2}&dn=A+name%20%C3%A4&xl=1234&tr=http%3A%2F%2Ft.example%2Fannounce&\
         tr.1=udp://u.example:6969&ws=https://w.example/x&x.pe=192.0.2.1:6881&x.pe=[2001:db8::1]:7&\
         x.pe=seed.example:6890&so=0,2,4,6-8&unknown=x&xt=urn:ed2k:1234&kt=words"
    ));
    assert_eq!(magnet.info_hash_v1, Some(InfoHashV1(HASH)));
    assert_eq!(magnet.info_hash_v2, Some(InfoHashV2([0xcd; 32])));
    assert_eq!(magnet.name.as_deref(), Some("A name ä"));
    assert_eq!(magnet.length, Some(1234));
    assert_eq!(
        magnet.trackers,
        ["http://t.example/announce", "udp://u.example:6969"]
    );
    assert_eq!(magnet.web_seeds, ["https://w.example/x"]);
    let peers: Vec<String> = magnet.peers.iter().map(PeerAddress::to_string).collect();
    assert_eq!(
        peers,
        ["192.0.2.1:6881", "[2001:db8::1]:7", "seed.example:6890"]
    );
    assert!(matches!(magnet.peers[2], PeerAddress::Name(_, 6890)));
    assert_eq!(magnet.selection, Some(vec![0..=0, 2..=2, 4..=4, 6..=8]));
    assert_eq!(Magnet::parse(&magnet.to_string()).unwrap(), magnet);
}

#[test]
fn prints_what_other_clients_read() {
    let magnet = Magnet {
        info_hash_v1: Some(InfoHashV1(HASH)),
        name: Some("a b&c=ü".to_owned()),
        trackers: vec!["http://t/a?k=1&l=2".to_owned()],
        peers: vec![PeerAddress::Socket("[::1]:80".parse().unwrap())],
        selection: Some(vec![0..=0, 5..=9]),
        ..Magnet::default()
    };
    assert_eq!(
        magnet.to_string(),
        "magnet:?xt=urn:btih:0123456789abcdef0123456789abcdef01234567&dn=a%20b%26c%3D%C3%BC\
         &tr=http%3A%2F%2Ft%2Fa%3Fk%3D1%26l%3D2&x.pe=[::1]:80&so=0,5-9"
    );
}

#[test]
fn reads_base32_in_either_case() {
    // 20 bytes of 0x00, 0x44, 0x32, 0x14, 0xc7 … : the digits count up.
    let digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let expected = "00443214c74254b635cf84653a56d7c675be77df";
    for digits in [digits.to_owned(), digits.to_lowercase()] {
        let magnet = Magnet::parse(&format!("magnet:?xt=urn:btih:{digits}")).unwrap();
        assert_eq!(magnet.info_hash_v1.unwrap().to_string(), expected);
    }
}

#[test]
fn reads_a_version_2_link_and_odd_spellings() {
    let hash = "0f".repeat(32);
    let link = format!("  MAGNET:?&&dn=&XT.1=URN:BTMH:1220{hash}\n");
    let magnet = Magnet::parse(&link).unwrap();
    assert_eq!(magnet.info_hash_v2, Some(InfoHashV2([0x0f; 32])));
    assert_eq!((magnet.info_hash_v1, magnet.name), (None, None));
    let escaped = format!("magnet:?xt=urn%3Abtih%3A{HEX}");
    assert_eq!(
        Magnet::parse(&escaped).unwrap().info_hash_v1,
        Some(InfoHashV1(HASH))
    );
    assert_eq!(
        parse("dn=100%").name.as_deref(),
        Some("100%"),
        "a name is forgiven"
    );
    assert_eq!(parse("dn=%ff").name.as_deref(), Some("\u{fffd}"));
}

/// Where the second parameter of [`parse`] and [`refusal`] begins.
const START: usize = "magnet:?xt=urn:btih:".len() + HEX.len() + 1;

#[test]
fn malformed_hashes_are_refused_with_parameter_and_offset() {
    use MagnetReason::*;
    let cases: &[(&str, &str, MagnetReason)] = &[
        ("xt=urn:btih:zz", "xt", HashV1),
        ("xt=urn:btih:", "xt", HashV1),
        ("xt=urn:btmh:1220ab", "xt", HashV2),
        ("xt=urn:btmh:1114ab", "xt", HashV2),
        (
            "xt=urn:btih:ffffffffffffffffffffffffffffffffffffffff",
            "xt",
            TwoHashes,
        ),
        ("xt=%zz", "xt", Escape),
        ("xt=%ff", "xt", NotUtf8),
    ];
    for (parameters, parameter, reason) in cases {
        let error = refusal(parameters);
        let offset = START + parameter.len() + 1;
        assert_eq!(
            (error.parameter.as_str(), error.offset, error.reason),
            (*parameter, offset, *reason)
        );
    }
    let wholes = [
        ("", NotMagnet),
        ("http://x", NotMagnet),
        ("magnet:", NotMagnet),
        ("magnet:?", NoHash),
    ];
    for (link, reason) in wholes {
        assert_eq!(Magnet::parse(link).unwrap_err().reason, reason);
    }
    assert_eq!(
        refusal("xt=urn:btih:").to_string(),
        format!(
            "the magnet link cannot be read, parameter xt at byte {}: the version 1 hash is \
             neither 40 hex digits nor 32 base32 digits",
            START + 3
        )
    );
    assert_eq!(
        Magnet::parse("magnet:?").unwrap_err().to_string(),
        "the magnet link cannot be read: it has neither xt=urn:btih:… nor xt=urn:btmh:…"
    );
}

#[test]
fn other_malformed_parameters_are_left_out_and_told() {
    use MagnetReason::*;
    let cases: &[(&str, &str, MagnetReason)] = &[
        ("tr=%zz", "tr", Escape),
        ("tr=%4", "tr", Escape),
        ("tr=%", "tr", Escape),
        ("ws=%ff", "ws", NotUtf8),
        ("xl=12a", "xl", NotNumber),
        ("xl=+1", "xl", NotNumber),
        ("xl=-1", "xl", NotNumber),
        ("xl=18446744073709551616", "xl", NotNumber),
        ("x.pe=nohost", "x.pe", NotPeer),
        ("x.pe=h:0", "x.pe", NotPeer),
        ("x.pe=1.2.3.4:0", "x.pe", NotPeer),
        ("x.pe=h:65536", "x.pe", NotPeer),
        ("x.pe=:80", "x.pe", NotPeer),
        ("x.pe=a%0d%0ab:80", "x.pe", NotPeer),
        ("x.pe=::1:80:", "x.pe", NotPeer),
        ("x.pe=0.0.0.0:5", "x.pe", Nobody),
        ("x.pe=[::]:5", "x.pe", Nobody),
        ("x.pe=[::ffff:0.0.0.0]:5", "x.pe", Nobody),
        ("x.pe=239.1.1.1:5", "x.pe", Nobody),
        ("x.pe=255.255.255.255:5", "x.pe", Nobody),
        ("so=3-1", "so", NotSelection),
        ("so=-1", "so", NotSelection),
        ("so=1-", "so", NotSelection),
        ("so=4294967296", "so", NotSelection),
        ("so=1-2-3", "so", NotSelection),
        ("so=a", "so", NotSelection),
    ];
    let read = |parameters: &str| {
        let link = format!("magnet:?xt=urn:btih:{HEX}&{parameters}&x.pe=192.0.2.1:5&tr=udp://t:1");
        Magnet::read(&link).unwrap()
    };
    let (good, none) = read("dn=x");
    assert_eq!(none, []);
    for (parameters, parameter, reason) in cases {
        let (magnet, left_out) = read(&format!("dn=x&{parameters}"));
        assert_eq!(magnet, good, "{parameters}");
        let offset = START + "dn=x&".len() + parameter.len() + 1;
        let expected = LeftOut {
            parameter: (*parameter).to_owned(),
            offset,
            part: None,
            reason: *reason,
        };
        assert_eq!(left_out, [expected]);
    }
    let (magnet, left_out) = read("so=0,a,3-1,7");
    assert_eq!(magnet.selection, Some(vec![0..=0, 7..=7]));
    let told = |start: &str, end: &str| {
        format!(
            "{start}the link's so= at byte {}{end} is left out: it is not a list of file indices \
             and ranges such as 0,2,4-8",
            START + 3
        )
    };
    assert_eq!(left_out[0].to_string(), told("of ", " \"a\", as 1 more,"));
    let one = read("so=5-2,0").1[0].to_string();
    assert_eq!(one, told("of ", " \"5-2\""));
    assert_eq!(read("so=a,b").1[0].to_string(), told("", ""));
    // It is the list's own.
    let [_, of_length] = &read("so=0,a&xl=x").1[..] else {
        panic!("two are left out");
    };
    assert_eq!(of_length.part, None);
    assert_eq!(read("xl=x&so=x&x.pe=x&tr=%").1.len(), 4);
}

#[test]
fn a_link_from_a_page_s_source_keeps_its_parameters() {
    let magnet = parse("amp;dn=x&amp;tr=udp://t:1&amp;tr.2=udp://u:2");
    assert_eq!(magnet.name.as_deref(), Some("x"));
    assert_eq!(magnet.trackers, ["udp://t:1", "udp://u:2"]);
}

#[test]
fn useless_and_duplicate_urls_are_dropped() {
    let magnet = parse("tr=&tr=a&tr=b&tr=a&tr=%20c%20&tr=x%0d%0ay&tr=p%20q&ws=w&ws=w&ws=");
    assert_eq!(magnet.trackers, ["a", "b", "c"]);
    assert_eq!(magnet.web_seeds, ["w"]);
}

#[test]
fn lists_stop_at_their_limits() {
    let many = |key: &str, count: usize, value: &dyn Fn(usize) -> String| -> Magnet {
        let parameters: Vec<String> = (0..count).map(|n| format!("{key}={}", value(n))).collect();
        parse(&parameters.join("&"))
    };
    let url = |n: usize| format!("udp://t:{n}");
    assert_eq!(many("tr", TRACKERS_MAX, &url).trackers.len(), TRACKERS_MAX);
    assert_eq!(
        many("tr", TRACKERS_MAX + 5, &url).trackers.len(),
        TRACKERS_MAX
    );
    assert_eq!(
        many("ws", WEB_SEEDS_MAX + 5, &url).web_seeds.len(),
        WEB_SEEDS_MAX
    );
    let peer = |n: usize| format!("h{n}:1");
    assert_eq!(many("x.pe", NODES_MAX + 5, &peer).peers.len(), NODES_MAX);
    let ampersands = |count: usize| format!("magnet:?xt=urn:btih:{HEX}{}", "&".repeat(count));
    assert!(Magnet::parse(&ampersands(MAGNET_PARAMETERS_MAX - 1)).is_ok());
    let error = Magnet::parse(&ampersands(MAGNET_PARAMETERS_MAX)).unwrap_err();
    assert_eq!(error.reason, MagnetReason::TooManyParameters);
    let link = format!(
        "magnet:?xt=urn:btih:{HEX}&tr={}",
        "a".repeat(MAGNET_BYTES_MAX)
    );
    assert_eq!(
        Magnet::parse(&link).unwrap_err().reason,
        MagnetReason::TooLong
    );
}

/// The least time of some runs: of what is alike each time, what nothing has disturbed.
fn least(runs: usize, mut run: impl FnMut()) -> Duration {
    let time = |_| {
        let start = Instant::now();
        run();
        start.elapsed()
    };
    (0..runs).map(time).min().unwrap()
}

/// RELIABILITY.md B2. What a link costs is in proportion to its length: so many times what it takes
/// to put its parameters into a set. With a step for each pair of parameters it would be thousands
/// of times.
#[test]
fn the_longest_links_are_read_in_proportion_to_their_length() {
    const TIMES: u32 = 40;
    let filled = |parameter: &dyn Fn(usize) -> String| {
        let mut link = format!("magnet:?xt=urn:btih:{HEX}");
        for number in 0..MAGNET_PARAMETERS_MAX - 1 {
            let next = parameter(number);
            if link.len() + next.len() >= MAGNET_BYTES_MAX {
                break;
            }
            link.push('&');
            link.push_str(&next);
        }
        link
    };
    let long = "%41".repeat(MAGNET_BYTES_MAX / 3 - 100);
    let ranges = "0-4294967295,".repeat(SELECTION_RANGES_MAX);
    let links = [
        filled(&|number| format!("tr=udp%3A%2F%2Ft{number}%3A6969")),
        filled(&|_| "tr=udp://the-same:1".to_owned()),
        filled(&|number| format!("ws=https://web/{number}/")),
        filled(&|number| format!("x.pe=h{number}:1")),
        filled(&|_| "x.pe=%".to_owned()),
        filled(&|_| String::new()),
        format!("magnet:?xt=urn:btih:{HEX}&dn={long}"),
        format!("magnet:?xt=urn:btih:{HEX}&so={ranges}"),
    ];
    for link in links {
        let (magnet, _) = Magnet::read(&link).unwrap();
        let kept = [
            magnet.trackers.len(),
            magnet.web_seeds.len(),
            magnet.peers.len(),
            magnet.selection.as_ref().map_or(0, Vec::len),
        ];
        let most = [TRACKERS_MAX, WEB_SEEDS_MAX, NODES_MAX, 1];
        assert!(kept.iter().zip(most).all(|(kept, most)| *kept <= most));
        let read = least(2, || {
            let (magnet, _) = Magnet::read(&link).unwrap();
            assert!(magnet.selects(u32::MAX));
        });
        let base = least(2, || {
            let all: HashSet<String> = link.split('&').map(str::to_owned).collect();
            let bytes = link.bytes().filter(|byte| *byte == b'%').count();
            assert!(!all.is_empty() && bytes <= link.len());
        });
        let shown = &link[..100.min(link.len())];
        assert!(read < base * TIMES, "{shown}: {read:?}, {base:?}");
    }
}

#[test]
fn a_selection_stays_ranges() {
    let all = parse("so=0-4294967295");
    assert_eq!(all.selection, Some(vec![0..=u32::MAX]));
    assert!(all.selects(0) && all.selects(u32::MAX));
    let merged = parse("so=7,1-3,2-5,6,9&so=20,4294967295");
    assert_eq!(
        merged.selection,
        Some(vec![1..=7, 9..=9, 20..=20, u32::MAX..=u32::MAX])
    );
    for (index, selected) in [
        (0, false),
        (1, true),
        (7, true),
        (8, false),
        (9, true),
        (10, false),
    ] {
        assert_eq!(merged.selects(index), selected, "{index}");
    }
    assert!(parse("dn=x").selects(77), "no selection selects all");
    assert!(!parse("so=").selects(0), "an empty selection selects none");
    let ranges = |count: u32| {
        (0..count)
            .map(|n| (n * 2).to_string())
            .collect::<Vec<_>>()
            .join(",")
    };
    let most = SELECTION_RANGES_MAX as u32;
    assert_eq!(
        parse(&format!("so={}", ranges(most)))
            .selection
            .unwrap()
            .len(),
        most as usize
    );
    let error = refusal(&format!("so={}", ranges(most + 1)));
    assert_eq!(error.reason, MagnetReason::SelectionTooLong);
}

#[test]
fn every_truncation_and_bit_flip_is_read_or_refused() {
    let link = parse("dn=%C3%A4&xl=5&tr=http%3A%2F%2Ft&ws=w&x.pe=[::1]:5&so=1-3,9").to_string();
    for length in 0..link.len() {
        check(&link[..length]);
    }
    for index in 0..link.len() {
        for bit in 0..8 {
            let mut bytes = link.clone().into_bytes();
            bytes[index] ^= 1 << bit;
            check(&String::from_utf8_lossy(&bytes));
        }
    }
}

fn check(link: &str) {
    match Magnet::read(link) {
        Ok((magnet, left_out)) => {
            assert!(left_out.iter().all(|one| one.offset <= link.len() + 1));
            let again = Magnet::read(&magnet.to_string());
            assert_eq!(again, Ok((magnet, Vec::new())));
        }
        Err(error) => assert!(error.offset <= link.len() + 1),
    }
}

#[test]
fn a_strange_parameter_name_is_escaped_in_errors() {
    let link = format!("magnet:?xt=urn:btih:{HEX}&tr.{}=%", "1".repeat(1000));
    let (_, left_out) = Magnet::read(&link).unwrap();
    assert!(left_out[0].to_string().len() < 120, "{left_out:?}");
    let error = refusal(&format!("xt.{}=%", "1".repeat(1000)));
    assert!(error.to_string().len() < 120, "{error}");
}

proptest! {
    #[test]
    fn what_is_printed_is_read(
        v1 in any::<Option<[u8; 20]>>(),
        v2 in any::<[u8; 32]>(),
        name in proptest::option::of(vec(any::<char>(), 1..20)),
        length in any::<Option<u64>>(),
        urls in btree_set(vec(0x21u8..0x7f, 1..30), 0..5),
        peers in btree_set(any::<(Option<[u8; 4]>, [u8; 16], u16)>(), 0..4),
        starts in proptest::option::of(btree_map(any::<u32>(), 0u32..9, 0..5)),
    ) {
        let urls: Vec<String> =
            urls.into_iter().map(|url| String::from_utf8(url).unwrap()).collect();
        let mut seen = HashSet::new();
        let peers: Vec<PeerAddress> = peers
            .into_iter()
            .filter(|&(_, _, port)| port != 0)
            .map(|(v4, v6, port)| PeerAddress::Socket(match v4 {
                Some(v4) => SocketAddr::from((v4, port)),
                None => SocketAddr::from((v6, port)),
            }))
            .filter(|peer| !is_nobody(peer) && seen.insert(peer.clone()))
            .collect();
        let ranges = starts.map(|map| {
            merged(map.iter().map(|(&first, &more)| first..=first.saturating_add(more)).collect())
        });
        let magnet = Magnet {
            info_hash_v1: v1.map(InfoHashV1),
            info_hash_v2: Some(InfoHashV2(v2)),
            name: name.map(|name| name.into_iter().collect()),
            length,
            trackers: urls.clone(),
            web_seeds: urls,
            peers,
            selection: ranges,
        };
        prop_assert_eq!(Magnet::parse(&magnet.to_string()), Ok(magnet));
    }

    #[test]
    fn any_parameters_are_read_or_refused(
        choices in vec(0usize..16, 0..40),
    ) {
        let pieces = [
            "&", "=", "%", "%4", "%41", "xt=urn:btih:", HEX, "tr=", "dn=", "so=", "1-3,", "x.pe=",
            "[::1]:5",
            "xl=", "9", "ä",
        ];
        let text: String = choices.iter().map(|&choice| pieces[choice]).collect();
        check(&format!("magnet:?xt=urn:btih:{HEX}&{text}"));
        check(&text);
    }
}
