//! Tests of the tracker codecs: exact bytes, hostile values, round trips.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::limits;
use crate::text::printable;

fn request() -> AnnounceRequest {
    let info_hash = InfoHashV1(
        *b"\x12\x34\x56\x78\x9a\xbc\xde\xf1\x23\x45\x67\x89\xab\xcd\xef\x12\x34\x56\x78\x9a",
    );
    AnnounceRequest::new(info_hash, PeerId(*b"-SI0100-abcdefghijkl"), 6890)
}

fn query(url: &str) -> &[u8] {
    url.split_once('?').unwrap().1.as_bytes()
}

fn success(body: &[u8]) -> AnnounceSuccess {
    match AnnounceReply::parse(body).unwrap() {
        AnnounceReply::Success(success) => success,
        AnnounceReply::Failure(failure) => panic!("{failure:?}"),
    }
}

fn addresses(success: &AnnounceSuccess) -> Vec<String> {
    success
        .peers
        .iter()
        .map(|peer| peer.address.to_string())
        .collect()
}

#[test]
fn an_announce_has_the_url_of_bep_3() {
    let announce = AnnounceRequest {
        uploaded_bytes: 1,
        downloaded_bytes: 2,
        left_bytes: Some(3),
        event: AnnounceEvent::Started,
        peers_wanted: Some(200),
        key: Some(b"0badcafe".to_vec()),
        ipv6: Some("2001:db8::1".parse().unwrap()),
        tracker_id: Some(b"a&b=\0".to_vec()),
        ..request()
    };
    let expected = "http://t.example/announce?\
        info_hash=%124Vx%9A%BC%DE%F1%23Eg%89%AB%CD%EF%124Vx%9A\
        &peer_id=-SI0100-abcdefghijkl&port=6890&uploaded=1&downloaded=2&left=3&compact=1\
        &event=started&numwant=200&key=0badcafe&ipv6=2001%3Adb8%3A%3A1&trackerid=a%26b%3D%00";
    assert_eq!(announce.url("http://t.example/announce"), expected);
    assert_eq!(AnnounceRequest::parse_query(query(expected)), Ok(announce));
}

#[test]
fn parameters_follow_those_that_the_url_has() {
    let start = |base: &str| {
        let url = request().url(base);
        url.split_once("info_hash=").unwrap().0.to_owned()
    };
    assert_eq!(start("http://t/announce"), "http://t/announce?");
    assert_eq!(start("http://t/announce?"), "http://t/announce?");
    assert_eq!(
        start("http://t/announce?passkey=x"),
        "http://t/announce?passkey=x&"
    );
    assert_eq!(
        start("http://t/announce?passkey=x&"),
        "http://t/announce?passkey=x&"
    );
    assert_eq!(start("http://t/x/announce#part"), "http://t/x/announce?");
    assert_eq!(
        start("http://t/announce?a=b#part?"),
        "http://t/announce?a=b&"
    );
    let hashes = [InfoHashV1([b'a'; 20]), InfoHashV1([0xff; 20])];
    let expected = format!(
        "http://t/scrape?passkey=x&info_hash={}&info_hash={}",
        "a".repeat(20),
        "%FF".repeat(20)
    );
    assert_eq!(
        scrape_request_url("http://t/scrape?passkey=x", &hashes),
        expected
    );
    assert_eq!(parse_scrape_query(query(&expected)), Ok(hashes.to_vec()));
}

#[test]
fn the_scrape_url_is_that_of_bep_48() {
    for (announce, scrape) in [
        (
            "http://example.com/announce",
            Some("http://example.com/scrape"),
        ),
        (
            "http://example.com/x/announce",
            Some("http://example.com/x/scrape"),
        ),
        (
            "http://example.com/announce.php",
            Some("http://example.com/scrape.php"),
        ),
        ("http://example.com/a", None),
        (
            "http://example.com/announce?x2%0644",
            Some("http://example.com/scrape?x2%0644"),
        ),
        ("http://example.com/announce?x=2/4", None),
        ("http://example.com/x%064announce", None),
        ("HTTPS://example.com/announce/", None),
        (
            "HTTPS://example.com/announce",
            Some("HTTPS://example.com/scrape"),
        ),
        ("http://announce", None),
        (
            "http://announce:80/announce",
            Some("http://announce:80/scrape"),
        ),
        ("udp://example.com/announce", None),
        ("/announce", None),
        ("", None),
    ] {
        assert_eq!(scrape_url(announce).as_deref(), scrape, "{announce}");
    }
}

/// A query with the three parameters that an announce needs, and `more`.
fn query_with(more: &str) -> String {
    let id = "a".repeat(20);
    format!("info_hash={id}&peer_id={id}&port=1{more}")
}

#[test]
fn what_clients_leave_out_or_write_oddly_is_taken() {
    let parsed = |more: &str| AnnounceRequest::parse_query(query_with(more).as_bytes()).unwrap();
    let plain = AnnounceRequest::new(InfoHashV1([b'a'; 20]), PeerId([b'a'; 20]), 1);
    for more in [
        "",
        "&",
        "&&=&=x&unknown&unknown=%zz&unknown=1",
        "&event=",
        "&event=nonsense",
        "&numwant=-1",
        "&numwant=",
        "&compact=1",
        "&compact=",
        "&no_peer_id=0",
        "&ip=host.example",
        "&ipv4=::1&ipv6=1.2.3.4",
        "&supportcrypto=1&corrupt=0&redundant=0",
    ] {
        assert_eq!(parsed(more), plain, "{more}");
    }
    assert!(!parsed("&compact=0").compact);
    assert!(parsed("&no_peer_id=1").no_peer_id);
    assert_eq!(parsed("&numwant=99999999").peers_wanted, Some(10_000));
    assert_eq!(
        parsed("&left=18446744073709551615").left_bytes,
        Some(u64::MAX)
    );
    assert_eq!(parsed("&ip=1.2.3.4").ip, Some(IpAddr::from([1, 2, 3, 4])));
    assert_eq!(
        parsed("&ipv4=1.2.3.4:5").ipv4,
        Some(Ipv4Addr::new(1, 2, 3, 4))
    );
    let v6: Ipv6Addr = "2001:db8::1".parse().unwrap();
    assert_eq!(parsed("&ipv6=%5B2001:db8::1%5D:5").ipv6, Some(v6));
    assert_eq!(parsed("&key=a+b%2B").key, Some(b"a b+".to_vec()));
    for (name, event) in [
        ("started", AnnounceEvent::Started),
        ("stopped", AnnounceEvent::Stopped),
        ("completed", AnnounceEvent::Completed),
        ("paused", AnnounceEvent::Paused),
    ] {
        let more = format!("&event={name}");
        assert_eq!(parsed(&more).event, event);
        assert_eq!(event.name(), Some(name));
    }
}

#[test]
fn each_wrong_parameter_has_its_error() {
    let id = "a".repeat(20);
    let error = |query: &str| {
        let error = AnnounceRequest::parse_query(query.as_bytes()).unwrap_err();
        (error.clone(), error.to_string())
    };
    let missing = |parameter| QueryError::Missing { parameter };
    assert_eq!(error("").0, missing("info_hash"));
    assert_eq!(error(&format!("info_hash={id}")).0, missing("peer_id"));
    assert_eq!(
        error(&format!("info_hash={id}&peer_id={id}")).0,
        missing("port")
    );
    for parameter in ["info_hash", "port", "left", "event", "trackerid"] {
        let (found, _) = error(&query_with(&format!("&{parameter}=1&{parameter}=1")));
        // `info_hash` and `port` are there once already.
        assert_eq!(found, QueryError::Duplicate { parameter });
    }
    for (more, named) in [
        ("&left=-1", "left is \"-1\""),
        ("&left=", "left is \"\""),
        ("&left=1x", "left"),
        ("&uploaded=+1", "uploaded is \" 1\""),
        ("&downloaded=18446744073709551616", "downloaded"),
        ("&key=%", "key has a broken %-escape at byte 0"),
        ("&key=a%4", "key has a broken %-escape at byte 1"),
        ("&event=%zz", "event"),
        (
            "&left=%0d%0aSet-Cookie:%1b",
            "left is \"\\r\\nSet-Cookie:\\u{1b}\"",
        ),
    ] {
        let (_, text) = error(&query_with(more));
        assert!(text.contains(named), "{more}: {text}");
        assert!(
            text.len() < 200 && !text.chars().any(char::is_control),
            "{text}"
        );
    }
    let long_key = format!("&key={}", "k".repeat(limits::TRACKER_KEY_BYTES_MAX + 1));
    assert!(error(&query_with(&long_key)).1.contains("key"));
    let long_id = format!(
        "&trackerid={}",
        "k".repeat(limits::TRACKER_ID_BYTES_MAX + 1)
    );
    assert!(error(&query_with(&long_id)).1.contains("trackerid"));
    for (query, named) in [
        (
            format!("info_hash={}&peer_id={id}&port=1", "a".repeat(19)),
            "info_hash",
        ),
        (
            format!("info_hash={id}&peer_id={}&port=1", "a".repeat(21)),
            "peer_id",
        ),
        (format!("info_hash={id}&peer_id={id}&port=65536"), "port"),
        (format!("info_hash={id}&peer_id={id}&port=-1"), "port"),
        (format!("info_hash={id}&peer_id={id}&port="), "port"),
    ] {
        assert!(error(&query).1.contains(named), "{query}");
    }
}

#[test]
fn queries_are_bounded() {
    let long = query_with(&format!(
        "&x={}",
        "y".repeat(limits::TRACKER_QUERY_BYTES_MAX)
    ));
    let bytes = long.len();
    let too_long = QueryError::TooLong { bytes };
    assert_eq!(
        AnnounceRequest::parse_query(long.as_bytes()),
        Err(too_long.clone())
    );
    assert_eq!(parse_scrape_query(long.as_bytes()), Err(too_long));
    let many = query_with(&"&a".repeat(limits::TRACKER_QUERY_PARAMETERS_MAX));
    let too_many = Err(QueryError::TooManyParameters);
    assert_eq!(AnnounceRequest::parse_query(many.as_bytes()), too_many);

    let scrape = |count: usize| {
        let mut query = String::new();
        for index in 0..count {
            write!(query, "info_hash={index:020}&").unwrap();
        }
        parse_scrape_query(query.as_bytes())
    };
    assert_eq!(
        scrape(limits::SCRAPE_HASHES_MAX).unwrap().len(),
        limits::SCRAPE_HASHES_MAX
    );
    assert_eq!(
        scrape(limits::SCRAPE_HASHES_MAX + 1),
        Err(QueryError::TooManyHashes)
    );
    assert_eq!(scrape(0), Ok(Vec::new()));
    let twice = format!("info_hash={0}&info_hash={0}", "a".repeat(20));
    assert_eq!(
        parse_scrape_query(twice.as_bytes()),
        Ok(vec![InfoHashV1([b'a'; 20])])
    );
    assert!(parse_scrape_query(b"info_hash=short").is_err());
    assert!(parse_scrape_query(b"info_hash=%a").is_err());
}

#[test]
fn a_compact_reply() {
    let body = b"d8:completei5e10:downloadedi50e11:external ip4:\x01\x02\x03\x0410:incompletei10e\
        8:intervali1800e12:min intervali900e5:peers12:\x7f\0\0\x01\x1a\xe1\x0a\0\0\x02\x1a\xe2\
        6:peers618:\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x1a\xe3\
        10:tracker id3:abc15:warning message4:slowe";
    let reply = success(body);
    let expected = ["127.0.0.1:6881", "10.0.0.2:6882", "[2001:db8::1]:6883"];
    assert_eq!(addresses(&reply), expected);
    assert_eq!(reply.peers_dropped, 0);
    assert_eq!(
        reply.interval,
        Interval {
            raw: Some(1800),
            seconds: 1800
        }
    );
    assert_eq!(
        reply.min_interval,
        Some(Interval {
            raw: Some(900),
            seconds: 900
        })
    );
    assert_eq!((reply.complete, reply.incomplete), (Some(5), Some(10)));
    assert_eq!(reply.downloaded, Some(50));
    assert_eq!(reply.external_ip, Some(IpAddr::from([1, 2, 3, 4])));
    assert_eq!(reply.tracker_id.as_deref(), Some(&b"abc"[..]));
    assert_eq!(reply.warning.as_deref(), Some("slow"));
    assert_eq!(
        AnnounceReply::Success(reply).encode(PeerFormat::Compact),
        body
    );
}

#[test]
fn a_reply_with_dictionaries() {
    let body = b"d8:intervali60e5:peersld2:ip9:127.0.0.17:peer id20:-TR4050-abcdefghijkl4:porti1ee\
        d2:ip11:2001:db8::14:porti2eeee";
    let reply = success(body);
    assert_eq!(addresses(&reply), ["127.0.0.1:1", "[2001:db8::1]:2"]);
    assert_eq!(
        reply.peers[0].peer_id,
        Some(PeerId(*b"-TR4050-abcdefghijkl"))
    );
    assert_eq!(reply.peers[1].peer_id, None);
    let reply = AnnounceReply::Success(reply);
    assert_eq!(
        reply.encode(PeerFormat::Dictionaries { no_peer_id: false }),
        body
    );
    let without = reply.encode(PeerFormat::Dictionaries { no_peer_id: true });
    assert!(!without.windows(7).any(|window| window == b"peer id"));
    assert_eq!(success(&without).peers.len(), 2);
}

#[test]
fn peers_that_are_no_use_are_dropped_and_counted() {
    let compact = |bytes: &[u8]| {
        let head = format!("d5:peers{}:", bytes.len());
        success(&[head.as_bytes(), bytes, b"e"].concat())
    };
    let one = [1, 2, 3, 4, 0, 5];
    for bytes in [
        &[1, 2, 3, 4, 0, 0][..],
        &[0, 0, 0, 0, 0, 5],
        &[224, 0, 0, 1, 0, 5],
        &[255, 255, 255, 255, 0, 5],
        &one,
        &[9],
    ] {
        let reply = compact(&[&one, bytes].concat());
        assert_eq!(addresses(&reply), ["1.2.3.4:5"], "{bytes:?}");
        assert_eq!(reply.peers_dropped, 1, "{bytes:?}");
    }
    assert_eq!(compact(&[]).peers, []);
    // An IPv4 address mapped into IPv6 is the IPv4 peer that is there already.
    let reply = success(
        b"d5:peers6:\x01\x02\x03\x04\0\x056:peers618:\
        \0\0\0\0\0\0\0\0\0\0\xff\xff\x01\x02\x03\x04\0\x05e",
    );
    assert_eq!(
        (addresses(&reply), reply.peers_dropped),
        (vec!["1.2.3.4:5".to_owned()], 1)
    );
    for peer in [
        "d2:ip12:host.example4:porti1ee",
        "d2:ip7:1.2.3.44:porti0ee",
        "d2:ip7:1.2.3.44:porti65536ee",
        "d2:ip7:1.2.3.44:porti-1ee",
        "d2:ip7:1.2.3.4e",
        "d4:porti1ee",
        "d2:ipi1e4:porti1ee",
        "i1e",
        "le",
    ] {
        let reply = success(format!("d5:peersl{peer}ee").as_bytes());
        assert_eq!((reply.peers.len(), reply.peers_dropped), (0, 1), "{peer}");
    }
}

#[test]
fn peers_are_capped() {
    let mut compact = Vec::new();
    for index in 0..100_000u32 {
        compact.extend_from_slice(&(0x0a00_0001 + index).to_be_bytes());
        compact.extend_from_slice(&[0x1a, 0xe1]);
    }
    let head = format!("d5:peers{}:", compact.len());
    let reply = success(&[head.as_bytes(), &compact, b"e"].concat());
    assert_eq!(reply.peers.len(), limits::TRACKER_REPLY_PEERS_MAX);
    assert_eq!(
        reply.peers_dropped,
        100_000 - limits::TRACKER_REPLY_PEERS_MAX
    );
    let body = vec![b' '; limits::TRACKER_REPLY_BYTES_MAX + 1];
    assert!(AnnounceReply::parse(&body).is_err());
}

#[test]
fn intervals_are_clamped_and_given_raw() {
    for (value, raw, seconds) in [
        ("0", Some(0), 60),
        ("-5", Some(-5), 60),
        ("59", Some(59), 60),
        ("60", Some(60), 60),
        ("86400", Some(86_400), 86_400),
        ("86401", Some(86_401), 86_400),
        ("9223372036854775807", Some(i64::MAX), 86_400),
        ("-9223372036854775808", Some(i64::MIN), 60),
        ("9223372036854775808", None, 1800),
    ] {
        let reply = success(format!("d8:intervali{value}ee").as_bytes());
        assert_eq!(reply.interval, Interval { raw, seconds }, "{value}");
    }
    assert_eq!(
        success(b"de").interval,
        Interval {
            raw: None,
            seconds: 1800
        }
    );
    assert_eq!(success(b"d8:interval4:1800e").interval, Interval::default());
    assert_eq!(
        success(b"d12:min intervali1ee")
            .min_interval
            .unwrap()
            .seconds,
        60
    );
    assert_eq!(success(b"de").min_interval, None);
}

#[test]
fn odd_optional_fields_are_left_out() {
    for body in [
        &b"d8:completei-1e10:downloaded1:xe"[..],
        b"d11:external ip3:abce",
        b"d10:tracker idi1e15:warning messagelee",
        b"d5:peers0:e",
        b"d5:peerslee",
        b"detrailing bytes",
    ] {
        assert_eq!(success(body), AnnounceSuccess::default(), "{body:?}");
    }
    assert_eq!(
        success(b"d8:completei99999999999ee").complete,
        Some(u32::MAX)
    );
    let long_id = format!("d10:tracker id513:{}e", "x".repeat(513));
    assert_eq!(success(long_id.as_bytes()).tracker_id, None);
    let mapped = b"d11:external ip16:\0\0\0\0\0\0\0\0\0\0\xff\xff\x01\x02\x03\x04e";
    assert_eq!(
        success(mapped).external_ip,
        Some(IpAddr::from([1, 2, 3, 4]))
    );
}

#[test]
fn failures_are_escaped_cut_and_say_when_to_retry() {
    let failure = |body: &[u8]| match AnnounceReply::parse(body).unwrap() {
        AnnounceReply::Failure(failure) => failure,
        AnnounceReply::Success(success) => panic!("{success:?}"),
    };
    let reason = |retry_in| Failure {
        reason: "not registered".to_owned(),
        retry_in,
    };
    for (more, retry_in) in [
        ("", None),
        ("8:retry ini5e", Some(RetryIn::Minutes(5))),
        ("8:retry in5:never", Some(RetryIn::Never)),
        ("8:retry in2:15", Some(RetryIn::Minutes(15))),
        ("8:retry ini0e", Some(RetryIn::Minutes(1))),
        ("8:retry ini999999999999e", Some(RetryIn::Minutes(1440))),
        ("8:retry ini-1e", None),
        ("8:retry in5:Never", None),
    ] {
        let body = format!("d14:failure reason14:not registered{more}e");
        assert_eq!(failure(body.as_bytes()), reason(retry_in), "{more}");
    }
    // Peers beside a failure do not make it a success.
    assert_eq!(
        failure(b"d14:failure reason1:x5:peers6:aaaabbe").reason,
        "x"
    );
    assert_eq!(failure(b"d14:failure reasoni7ee").reason, "i7e");
    let hostile = format!("\x1b[2J\r\n{}", "x".repeat(1 << 19));
    let body = format!("d14:failure reason{}:{hostile}e", hostile.len());
    let text = failure(body.as_bytes()).reason;
    assert!(
        text.starts_with("\\u{1b}[2J\\r\\nxxx") && text.ends_with('…'),
        "{text}"
    );
    assert_eq!(text.chars().count(), limits::TRACKER_TEXT_CHARS_MAX);
    let encoded = AnnounceReply::Failure(reason(Some(RetryIn::Never))).encode(PeerFormat::Compact);
    assert_eq!(
        encoded,
        b"d14:failure reason14:not registered8:retry in5:nevere"
    );
}

#[test]
fn what_is_no_reply_is_an_error_that_shows_its_start() {
    for (body, named) in [
        (&b"<html>\n<body>"[..], "\"<html>\\n<body>\""),
        (b"", "truncated"),
        (b"d8:interval", "truncated"),
        (b"i1e", "an integer"),
        (b"le", "a list"),
        (b"d5:peersi1ee", "peers is an integer"),
        (b"d6:peers6dee", "peers6 is a dictionary"),
    ] {
        let error = AnnounceReply::parse(body).unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
        assert!(!error.chars().any(char::is_control), "{error}");
    }
    let nested = vec![b'l'; limits::TRACKER_REPLY_BYTES_MAX];
    assert!(AnnounceReply::parse(&nested).is_err());
}

#[test]
fn a_scrape_has_the_bytes_of_bep_48() {
    let body = b"d5:filesd20:aaaaaaaaaaaaaaaaaaaad8:completei1e10:downloadedi2e10:incompletei3eeee";
    let file = ScrapeFile {
        complete: 1,
        downloaded: 2,
        incomplete: 3,
    };
    let reply = ScrapeReply::Files(BTreeMap::from([(InfoHashV1([b'a'; 20]), file)]));
    assert_eq!(ScrapeReply::parse(body), Ok(reply.clone()));
    assert_eq!(reply.encode(), body);
    let none = ScrapeReply::Files(BTreeMap::new());
    assert_eq!(ScrapeReply::parse(b"de"), Ok(none.clone()));
    assert_eq!(
        ScrapeReply::parse(b"d5:filesd2:abde20:aaaaaaaaaaaaaaaaaaaai1eee"),
        Ok(none)
    );
    assert!(ScrapeReply::parse(b"d5:filesi1ee").is_err());
    assert!(ScrapeReply::parse(b"x").is_err());
    let failure = Failure {
        reason: "no".to_owned(),
        retry_in: Some(RetryIn::Minutes(3)),
    };
    let failure = ScrapeReply::Failure(failure);
    assert_eq!(ScrapeReply::parse(&failure.encode()), Ok(failure));
    let mut many = "d5:filesd".to_owned();
    for index in 0..1000 {
        write!(many, "20:{index:020}de").unwrap();
    }
    many.push_str("ee");
    let Ok(ScrapeReply::Files(files)) = ScrapeReply::parse(many.as_bytes()) else {
        panic!("a scrape of many torrents is refused");
    };
    assert_eq!(files.len(), limits::SCRAPE_HASHES_MAX);
}

#[test]
fn every_truncation_of_a_reply_is_an_error() {
    let reply = b"d8:intervali1800e5:peers6:\x01\x02\x03\x04\0\x05e";
    let scrape = b"d5:filesd20:aaaaaaaaaaaaaaaaaaaad8:completei1eeee";
    for length in 0..reply.len() {
        assert!(AnnounceReply::parse(&reply[..length]).is_err());
    }
    for length in 0..scrape.len() {
        assert!(ScrapeReply::parse(&scrape[..length]).is_err());
    }
}

fn requests() -> impl Strategy<Value = AnnounceRequest> {
    let ids = any::<([u8; 20], [u8; 20], u16)>();
    let numbers = any::<(u64, u64, Option<u64>)>();
    let event = (0usize..5).prop_map(|index| {
        use AnnounceEvent::{Completed, None, Paused, Started, Stopped};
        [None, Started, Stopped, Completed, Paused][index]
    });
    let wanted = option::of(0..=limits::TRACKER_REPLY_PEERS_MAX as u32);
    let texts = (
        option::of(vec(any::<u8>(), 0..=limits::TRACKER_KEY_BYTES_MAX)),
        option::of(vec(any::<u8>(), 0..100)),
    );
    let flags = any::<(bool, bool)>();
    let addresses = any::<(Option<[u8; 4]>, Option<[u8; 16]>, bool)>();
    (ids, numbers, event, wanted, texts, flags, addresses).prop_map(
        |(ids, numbers, event, peers_wanted, texts, (compact, no_peer_id), (v4, v6, which))| {
            let (ipv4, ipv6) = (v4.map(Ipv4Addr::from), v6.map(Ipv6Addr::from));
            AnnounceRequest {
                uploaded_bytes: numbers.0,
                downloaded_bytes: numbers.1,
                left_bytes: numbers.2,
                event,
                peers_wanted,
                key: texts.0,
                compact,
                no_peer_id,
                ip: if which {
                    ipv4.map(IpAddr::V4)
                } else {
                    ipv6.map(IpAddr::V6)
                },
                ipv4,
                ipv6,
                tracker_id: texts.1,
                ..AnnounceRequest::new(InfoHashV1(ids.0), PeerId(ids.1), ids.2)
            }
        },
    )
}

fn successes() -> impl Strategy<Value = AnnounceSuccess> {
    let interval = 60u32..=86_400;
    let peers = btree_map(any::<([u8; 4], Option<[u8; 12]>)>(), 1..=u16::MAX, 0..20);
    let counts = any::<(Option<u32>, Option<u32>, Option<u32>)>();
    let external = any::<Option<[u8; 4]>>();
    let id = option::of(vec(any::<u8>(), 0..100));
    let warning = option::of(vec(any::<u8>(), 0..400));
    (
        interval.clone(),
        option::of(interval),
        peers,
        counts,
        external,
        id,
        warning,
    )
        .prop_map(
            |(interval, min_interval, peers, counts, external, tracker_id, warning)| {
                let mut taken = Vec::new();
                for (index, ((v4, v6), port)) in peers.into_iter().enumerate() {
                    // 1 to 126 at the start of an IPv4 address, and 2000::/16, are unicast.
                    let ip = match v6 {
                        None => IpAddr::from([v4[0] % 126 + 1, v4[1], v4[2], v4[3]]),
                        Some(rest) => {
                            let mut octets = [0x20; 16];
                            octets[4..].copy_from_slice(&rest);
                            IpAddr::from(octets)
                        }
                    };
                    let peer_id = (index % 2 == 0).then_some(PeerId([index as u8; 20]));
                    taken.push(TrackerPeer {
                        address: SocketAddr::new(ip, port),
                        peer_id,
                    });
                }
                let mut peers = taken;
                // Compact replies have the IPv4 peers first.
                peers.sort_by_key(|peer| peer.address);
                peers.dedup_by_key(|peer| peer.address);
                AnnounceSuccess {
                    interval: Interval::from_seconds(interval.into()),
                    min_interval: min_interval
                        .map(|seconds| Interval::from_seconds(seconds.into())),
                    peers,
                    peers_dropped: 0,
                    tracker_id,
                    warning: warning.map(|text| printable(&text, limits::TRACKER_TEXT_CHARS_MAX)),
                    complete: counts.0,
                    incomplete: counts.1,
                    downloaded: counts.2,
                    external_ip: external.map(IpAddr::from),
                }
            },
        )
}

proptest! {
    #[test]
    fn a_request_survives_its_url(request in requests(), passkey: bool) {
        let base = if passkey { "http://t/announce?passkey=abc" } else { "http://t/announce" };
        let url = request.url(base);
        prop_assert!(url.is_ascii() && !url.contains(' '));
        prop_assert_eq!(AnnounceRequest::parse_query(query(&url)), Ok(request));
    }

    #[test]
    fn any_query_is_answered(query in vec(any::<u8>(), 0..200)) {
        let _ = AnnounceRequest::parse_query(&query);
        let _ = parse_scrape_query(&query);
    }

    #[test]
    fn a_success_survives_both_formats(success in successes()) {
        let reply = AnnounceReply::Success(success.clone());
        let with_ids = reply.encode(PeerFormat::Dictionaries { no_peer_id: false });
        prop_assert_eq!(AnnounceReply::parse(&with_ids), Ok(reply.clone()));

        let mut anonymous = success;
        anonymous.peers.iter_mut().for_each(|peer| peer.peer_id = None);
        let anonymous = Ok(AnnounceReply::Success(anonymous));
        let without_ids = reply.encode(PeerFormat::Dictionaries { no_peer_id: true });
        prop_assert_eq!(AnnounceReply::parse(&without_ids), anonymous.clone());
        prop_assert_eq!(AnnounceReply::parse(&reply.encode(PeerFormat::Compact)), anonymous);
    }

    #[test]
    fn a_failure_survives(reason in vec(any::<u8>(), 0..400), minutes in 0u32..=1440) {
        let reason = printable(&reason, limits::TRACKER_TEXT_CHARS_MAX);
        let retry_in = (minutes > 0).then_some(RetryIn::Minutes(minutes));
        let reply = AnnounceReply::Failure(Failure { reason, retry_in });
        prop_assert_eq!(AnnounceReply::parse(&reply.encode(PeerFormat::Compact)), Ok(reply));
    }

    #[test]
    fn a_scrape_survives(files in btree_map(any::<[u8; 20]>(), any::<(u32, u32, u32)>(), 0..20)) {
        let files = files.into_iter().map(|(info_hash, (complete, incomplete, downloaded))| {
            (InfoHashV1(info_hash), ScrapeFile { complete, incomplete, downloaded })
        });
        let reply = ScrapeReply::Files(files.collect());
        prop_assert_eq!(ScrapeReply::parse(&reply.encode()), Ok(reply));
    }
}
