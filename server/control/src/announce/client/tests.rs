//! Tests of what answers mean and of where redirects may lead.

use super::*;
use crate::announce::TrackerReply;

#[test]
fn redirects_that_may_be_followed() {
    let follow = |from: &str, to: &str| {
        let location = HeaderValue::from_str(to).unwrap();
        let from = Url::parse(from).unwrap();
        redirected(StatusCode::FOUND, Some(&location), &from).map(String::from)
    };
    let (http, https) = (
        "http://a.example/announce?x=1",
        "https://a.example/announce?x=1",
    );
    let target = "https://b.example/announce?x=1";
    assert_eq!(follow(http, target).as_deref(), Ok(target));
    assert_eq!(follow(https, target).as_deref(), Ok(target));
    assert_eq!(follow(http, "/b?y").as_deref(), Ok("http://a.example/b?y"));
    for (from, to) in [
        (https, "http://a.example/announce"),
        (http, "file:///etc/passwd"),
        (http, "udp://a.example:80/"),
        (http, "http://user:word@a.example/announce"),
        (http, "http://"),
    ] {
        assert!(follow(from, to).is_err(), "{from} {to}");
    }
    assert!(redirected(StatusCode::FOUND, None, &Url::parse(http).unwrap()).is_err());
}

#[test]
fn what_answers_mean() {
    let url = Url::parse("http://a.example/0123456789abcdef/announce").unwrap();
    let meaning = |status: u16, body: &[u8]| {
        let body = Body {
            from: None,
            status: StatusCode::from_u16(status).unwrap(),
            retry: None,
            bytes: body.to_vec(),
        };
        meaning(&body, &url)
    };
    let Outcome::Reply(reply) = meaning(
        200,
        b"d8:completei3e10:incompletei4e8:intervali900e12:min intervali99999999e\
          5:peers12:\x7f\x00\x00\x01\x1a\xe1\x7f\x00\x00\x01\x00\x00\
          10:tracker id2:xy15:warning message4:slowe",
    ) else {
        panic!("a good reply is refused");
    };
    assert_eq!(
        (reply.seeders, reply.leechers, reply.peers.len()),
        (Some(3), Some(4), 1)
    );
    assert_eq!(reply.interval, Duration::from_secs(900));
    assert_eq!(reply.interval_min, Some(Duration::from_secs(86_400)));
    assert_eq!(reply.tracker_id.as_deref(), Some(&b"xy"[..]));
    assert_eq!(reply.warning.as_deref(), Some("slow"));

    let refusal = b"d14:failure reason20:bad 0123456789abcdef8:retry in5:nevere";
    for status in [200, 400, 503] {
        let Outcome::Refused { reason, retry } = meaning(status, refusal) else {
            panic!("a refusal is not seen with status {status}");
        };
        assert_eq!((reason.as_str(), retry), ("bad …", Some(RetryIn::Never)));
    }
    let never = Some(RetryIn::Never);
    assert!(matches!(meaning(410, b""), Outcome::Refused { retry, .. } if retry == never));
    assert!(matches!(
        meaning(404, b"<html>"),
        Outcome::Refused { retry: None, .. }
    ));
    for (status, body) in [
        (200, &b"<html>"[..]),
        (200, b""),
        (200, b"i1e"),
        (500, b"de"),
        (429, b""),
        (304, b""),
    ] {
        assert!(
            matches!(meaning(status, body), Outcome::Failed { .. }),
            "{status}"
        );
    }
}

#[test]
fn two_families_are_one_announce() {
    let good = |seeders| {
        let reply = TrackerReply {
            seeders: Some(seeders),
            peers: vec![([192, 0, 2, 1], seeders as u16).into(); 2],
            ..Default::default()
        };
        Outcome::Reply(reply)
    };
    let refused = || Outcome::Refused {
        reason: "no".to_owned(),
        retry: None,
    };
    let bad = || failed("unreachable".to_owned());
    let both = merged(good(3), good(5));
    assert!(matches!(both, Outcome::Reply(r) if r.seeders == Some(5) && r.peers.len() == 4));
    for (one, other) in [(good(3), bad()), (bad(), good(3)), (refused(), good(3))] {
        assert!(matches!(merged(one, other), Outcome::Reply(_)));
    }
    assert!(matches!(merged(bad(), refused()), Outcome::Refused { .. }));
    assert!(matches!(merged(bad(), bad()), Outcome::Failed { .. }));
}
