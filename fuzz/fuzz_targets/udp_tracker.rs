//! Both sides of the UDP tracker protocol: what a client sends, and what a tracker answers.
//!
//! The first byte chooses the decoder. Checked beyond "no panic": the promises on peers, intervals and
//! texts, and that what was read survives being written and read again.
#![no_main]

use std::collections::BTreeSet;

use libfuzzer_sys::fuzz_target;
use proto::limits;
use proto::tracker::Interval;
use proto::tracker::udp::{
    AddressFamily, UdpReply, UdpRequest, udp_reply_transaction, udp_request_head,
};

fuzz_target!(|data: &[u8]| {
    let Some((&kind, datagram)) = data.split_first() else {
        return;
    };
    match kind % 3 {
        0 => request(datagram),
        1 => reply(datagram, AddressFamily::V4),
        _ => reply(datagram, AddressFamily::V6),
    }
});

fn request(datagram: &[u8]) {
    let request = match UdpRequest::decode(datagram) {
        Ok(request) => request,
        Err(error) => return assert!(error.to_string().len() < 200),
    };
    let mut again = Vec::new();
    request.encode(&mut again);
    assert_eq!(UdpRequest::decode(&again), Ok(request));
    match request {
        UdpRequest::Connect { .. } => assert_eq!(again.len(), 16),
        UdpRequest::Announce {
            connection,
            transaction,
            announce,
            url_data,
        } => {
            assert_eq!(udp_request_head(datagram), Some((connection, transaction)));
            assert!(url_data.to_vec().len() <= datagram.len() - 98);
            let most = limits::TRACKER_REPLY_PEERS_MAX as u32;
            assert!(announce.peers_wanted.is_none_or(|wanted| wanted <= most));
        }
        UdpRequest::Scrape { info_hashes, .. } => {
            assert!((1..=limits::UDP_SCRAPE_HASHES_MAX).contains(&info_hashes.count()));
            assert_eq!(info_hashes.iter().count(), info_hashes.count());
            assert_eq!(again.len(), 16 + 20 * info_hashes.count());
        }
    }
}

fn reply(datagram: &[u8], family: AddressFamily) {
    let mut reply = match UdpReply::decode(datagram, family) {
        Ok(reply) => reply,
        Err(error) => return assert!(error.to_string().len() < 200),
    };
    assert_eq!(udp_reply_transaction(datagram), Some(reply.transaction()));
    match &mut reply {
        UdpReply::Announce { success, .. } => {
            assert!(success.peers.len() <= limits::TRACKER_REPLY_PEERS_MAX);
            let addresses: BTreeSet<_> = success.peers.iter().map(|peer| peer.address).collect();
            assert_eq!(addresses.len(), success.peers.len());
            for address in addresses {
                assert!(address.port() != 0 && !address.ip().is_unspecified());
            }
            // What was clamped, dropped, or cannot travel by this family is not told again.
            success.interval = Interval::from_seconds(success.interval.seconds.into());
            success.peers_dropped = 0;
            success
                .peers
                .retain(|peer| AddressFamily::of(peer.address) == family);
        }
        UdpReply::Scrape { files, .. } => assert!(files.len() <= limits::UDP_SCRAPE_HASHES_MAX),
        UdpReply::Error { failure, .. } => {
            assert!(failure.reason.chars().count() <= limits::TRACKER_TEXT_CHARS_MAX);
            assert!(!failure.reason.chars().any(char::is_control));
        }
        UdpReply::Connect { .. } => {}
    }
    let mut again = Vec::new();
    reply.encode(family, &mut again);
    assert_eq!(UdpReply::decode(&again, family), Ok(reply));
}
