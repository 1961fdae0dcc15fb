//! What finds peers, or keeps them away: peer exchange messages, datagrams of local discovery,
//! lines of address lists.
//!
//! The first byte chooses the decoder. Checked beyond "no panic": what was decoded encodes to what
//! decodes to the same; what is believed of a peer exchange message stays within its limits; a
//! filter blocks what its ranges contain.
#![no_main]

use engine::ip_filter::IpFilterBuilder;
use engine::pex::{Listener, MESSAGE_PEERS_MAX};
use engine::time::Time;
use libfuzzer_sys::fuzz_target;
use proto::address::may_name;
use proto::ip_filter::{IpRange, parse_line};
use proto::lsd::{Announcement, GROUP_V4, INFO_HASHES_MAX};
use proto::pex::PexMessage;
use std::net::IpAddr;

fuzz_target!(|data: &[u8]| {
    let Some((&kind, input)) = data.split_first() else {
        return;
    };
    match kind % 3 {
        0 => exchange(input),
        1 => datagram(input),
        _ => list(input),
    }
});

fn exchange(input: &[u8]) {
    let Ok(message) = PexMessage::parse(input) else {
        return;
    };
    let mut encoded = Vec::new();
    message.encode(&mut encoded);
    let again = PexMessage::parse(&encoded).expect("our own bytes");
    // Lists are cut at so many of each family, and IPv4 in IPv6 clothes changes its list.
    let count = |message: &PexMessage| (message.added.len(), message.dropped.len());
    assert!(count(&again) <= count(&message));
    for source in ["9.9.9.9", "10.0.0.1", "::1"] {
        let source: IpAddr = source.parse().expect("an address");
        let accepted = Listener::default().accept(&message, source, None, Time(0));
        assert!(accepted.len() <= MESSAGE_PEERS_MAX);
        assert!(accepted.iter().all(|peer| may_name(source, peer.address)));
    }
}

fn datagram(input: &[u8]) {
    let Ok(announcement) = Announcement::parse(input) else {
        return;
    };
    if announcement.info_hashes.len() <= INFO_HASHES_MAX {
        let encoded = announcement.encode(GROUP_V4.into());
        assert_eq!(Announcement::parse(&encoded), Ok(announcement));
    }
}

fn list(input: &[u8]) {
    let mut builder = IpFilterBuilder::default();
    let mut ends = Vec::new();
    for line in input.split(|&byte| byte == b'\n').take(100) {
        let Ok(Some(range)) = parse_line(line) else {
            continue;
        };
        assert!(builder.add(range));
        ends.extend(match range {
            IpRange::V4(first, last) => [IpAddr::from(first), last.into()],
            IpRange::V6(first, last) => [IpAddr::from(first), last.into()],
        });
    }
    let filter = builder.build();
    assert!(ends.iter().all(|&end| filter.blocks(end)));
    assert!(filter.ranges() <= ends.len() / 2);
}
