//! Magnet links: what is read survives being printed and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto::limits;
use proto::magnet::Magnet;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    check(text);
    // Most inputs lack a hash; given one, their parameters are read.
    check(&format!(
        "magnet:?xt=urn:btih:{}&{text}",
        "0123456789abcdef".repeat(3).split_at(40).0
    ));
});

fn check(link: &str) {
    let tellable = |text: String| {
        assert!(
            text.len() < 400 && !text.chars().any(char::is_control),
            "{text}"
        );
    };
    let (magnet, left_out) = match Magnet::read(link) {
        Ok(read) => read,
        Err(error) => {
            assert!(error.offset <= link.len() + 1);
            return tellable(error.to_string());
        }
    };
    assert!(left_out.len() <= limits::MAGNET_PARAMETERS_MAX);
    for one in left_out {
        assert!(one.offset <= link.len() + 1);
        tellable(one.to_string());
    }
    assert!(magnet.info_hash_v1.is_some() || magnet.info_hash_v2.is_some());
    assert!(magnet.name.as_deref() != Some(""));
    assert!(magnet.trackers.len() <= limits::TRACKERS_MAX);
    assert!(magnet.web_seeds.len() <= limits::WEB_SEEDS_MAX);
    assert!(magnet.peers.len() <= limits::NODES_MAX);
    for url in magnet.trackers.iter().chain(&magnet.web_seeds) {
        assert!(!url.is_empty() && !url.chars().any(|c| c.is_control() || c.is_whitespace()));
    }
    if let Some(ranges) = &magnet.selection {
        assert!(ranges.iter().all(|range| range.start() <= range.end()));
        let apart = |pair: &[std::ops::RangeInclusive<u32>]| {
            pair[0]
                .end()
                .checked_add(1)
                .is_some_and(|next| next < *pair[1].start())
        };
        assert!(ranges.windows(2).all(apart));
        for range in ranges {
            assert!(magnet.selects(*range.start()) && magnet.selects(*range.end()));
        }
    }
    let printed = magnet.to_string();
    assert_eq!(Magnet::read(&printed), Ok((magnet, Vec::new())));
}
