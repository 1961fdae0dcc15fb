//! Datagrams of the DHT: what is read as a message survives being written and read again, and is
//! within its limits.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto::dht::{Body, Message};
use proto::limits;

fuzz_target!(|datagram: &[u8]| {
    let Ok(mut message) = Message::decode(datagram) else {
        return;
    };
    assert!(datagram.len() <= limits::DHT_DATAGRAM_BYTES_MAX);
    if let Body::Reply(reply) = &mut message.body {
        assert!(reply.nodes.len() <= 2 * limits::DHT_REPLY_NODES_MAX);
        assert!(reply.peers.len() <= limits::DHT_REPLY_PEERS_MAX);
        assert!(reply.nodes.iter().all(|node| node.address.port() != 0));
        assert!(reply.peers.iter().all(|peer| peer.port() != 0));
        // They are written family by family.
        reply.nodes.sort_by_key(|node| node.address.is_ipv6());
    }
    let written = message.encode();
    // An address without a port is written with port 0, so that much longer.
    if written.len() <= limits::DHT_DATAGRAM_BYTES_MAX {
        assert_eq!(Message::decode(&written), Ok(message));
    }
});
