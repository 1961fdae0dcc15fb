//! Both sides of the HTTP tracker protocol: what a tracker answers, and what a client asks.
//!
//! The first byte chooses the decoder. Checked beyond "no panic": the promises on peers, intervals and
//! texts, and that what was read survives being written and read again.
#![no_main]

use std::collections::BTreeSet;

use libfuzzer_sys::fuzz_target;
use proto::ids::{InfoHashV1, PeerId};
use proto::limits;
use proto::tracker::{
    AnnounceReply, AnnounceRequest, AnnounceSuccess, Interval, PeerFormat, ScrapeReply,
    parse_scrape_query, scrape_request_url, scrape_url,
};

fuzz_target!(|data: &[u8]| {
    let Some((&kind, input)) = data.split_first() else {
        return;
    };
    match kind % 5 {
        0 => announce_reply(input),
        1 => scrape_reply(input),
        2 => announce_query(input),
        3 => scrape_query(input),
        _ => urls(input),
    }
});

fn announce_reply(input: &[u8]) {
    let reply = match AnnounceReply::parse(input) {
        Ok(reply) => reply,
        Err(error) => return assert_fit_for_a_log(&error.to_string(), 400),
    };
    let success = match &reply {
        AnnounceReply::Success(success) => success,
        AnnounceReply::Failure(failure) => {
            assert_fit_for_a_log(&failure.reason, limits::TRACKER_TEXT_CHARS_MAX);
            let again = AnnounceReply::parse(&reply.encode(PeerFormat::Compact));
            assert_eq!(again, Ok(reply));
            return;
        }
    };
    check_success(success);
    let canonical = canonical(success.clone());
    let format = PeerFormat::Dictionaries { no_peer_id: false };
    let again = AnnounceReply::parse(&reply.encode(format));
    assert_eq!(again, Ok(AnnounceReply::Success(canonical.clone())));

    // Compact replies have no ids, and the IPv4 peers first.
    let mut compact = canonical;
    compact
        .peers
        .iter_mut()
        .for_each(|peer| peer.peer_id = None);
    compact.peers.sort_by_key(|peer| peer.address.is_ipv6());
    let again = AnnounceReply::parse(&reply.encode(PeerFormat::Compact));
    assert_eq!(again, Ok(AnnounceReply::Success(compact)));
}

fn check_success(success: &AnnounceSuccess) {
    assert!(success.peers.len() <= limits::TRACKER_REPLY_PEERS_MAX);
    let addresses: BTreeSet<_> = success.peers.iter().map(|peer| peer.address).collect();
    assert_eq!(addresses.len(), success.peers.len());
    for address in addresses {
        assert!(address.port() != 0 && !address.ip().is_unspecified());
        assert_eq!(address.ip().to_canonical(), address.ip());
    }
    for interval in success.min_interval.iter().chain([&success.interval]) {
        let legal = limits::ANNOUNCE_INTERVAL_SECONDS_MIN..=limits::ANNOUNCE_INTERVAL_SECONDS_MAX;
        assert!(legal.contains(&interval.seconds));
    }
    assert_fit_for_a_log(
        success.warning.as_deref().unwrap_or_default(),
        limits::TRACKER_TEXT_CHARS_MAX,
    );
}

/// The success as we would write it: what was clamped or dropped is not told again.
fn canonical(mut success: AnnounceSuccess) -> AnnounceSuccess {
    let clamped = |interval: Interval| Interval::from_seconds(interval.seconds.into());
    success.interval = clamped(success.interval);
    success.min_interval = success.min_interval.map(clamped);
    success.peers_dropped = 0;
    success
}

fn scrape_reply(input: &[u8]) {
    match ScrapeReply::parse(input) {
        Ok(reply) => {
            if let ScrapeReply::Files(files) = &reply {
                assert!(files.len() <= limits::SCRAPE_HASHES_MAX);
            }
            assert_eq!(ScrapeReply::parse(&reply.encode()), Ok(reply));
        }
        Err(error) => assert_fit_for_a_log(&error.to_string(), 400),
    }
}

fn announce_query(input: &[u8]) {
    match AnnounceRequest::parse_query(input) {
        Ok(request) => {
            let url = request.url("http://tracker.example/announce");
            let (_, query) = url.split_once('?').expect("an announce has a query");
            assert_eq!(AnnounceRequest::parse_query(query.as_bytes()), Ok(request));
        }
        Err(error) => assert_fit_for_a_log(&error.to_string(), 400),
    }
}

fn scrape_query(input: &[u8]) {
    match parse_scrape_query(input) {
        Ok(hashes) => {
            assert!(hashes.len() <= limits::SCRAPE_HASHES_MAX);
            let url = scrape_request_url("http://tracker.example/scrape?", &hashes);
            let (_, query) = url.split_once('?').expect("the URL had a query");
            assert_eq!(parse_scrape_query(query.as_bytes()), Ok(hashes));
        }
        Err(error) => assert_fit_for_a_log(&error.to_string(), 400),
    }
}

fn urls(input: &[u8]) {
    let Ok(base) = std::str::from_utf8(input) else {
        return;
    };
    let without_fragment = base.split('#').next().unwrap_or_default();
    let request = AnnounceRequest::new(InfoHashV1([0; 20]), PeerId([255; 20]), 1);
    let url = request.url(base);
    assert!(url.starts_with(without_fragment));
    let parameters = &url[without_fragment.len()..];
    let parameters = parameters.trim_start_matches(['?', '&']);
    assert!(AnnounceRequest::parse_query(parameters.as_bytes()).is_ok());
    if let Some(scrape) = scrape_url(base) {
        assert!(scrape.contains("://") && scrape.contains("/scrape"));
        assert_eq!(scrape.len() + 2, base.len());
    }
}

fn assert_fit_for_a_log(text: &str, chars_max: usize) {
    assert!(text.chars().count() <= chars_max, "{text}");
    assert!(!text.chars().any(char::is_control), "{text}");
}
