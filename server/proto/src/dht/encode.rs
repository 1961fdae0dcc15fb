//! A message written. It is ours, so it fits a datagram: who fills a reply counts with the sizes
//! here.

use std::net::{IpAddr, SocketAddr};

use super::{Body, Contact, Message, NodeId, Query, Reply, Want};
use crate::bencode::Encoder;

/// A node of IPv4 in compact form, in bytes.
pub const CONTACT_BYTES_V4: usize = 26;
/// A node of IPv6 in compact form, in bytes.
pub const CONTACT_BYTES_V6: usize = 38;
/// A peer of IPv4 in a reply, in bytes, its length prefix included.
pub const PEER_BYTES_V4: usize = 8;
/// A peer of IPv6 in a reply, in bytes, its length prefix included.
pub const PEER_BYTES_V6: usize = 21;
/// At most what a reply takes beside its nodes, peers, token and transaction id, in bytes, with all
/// of their keys.
pub const REPLY_BYTES_BASE: usize = 128;

impl Message {
    /// The datagram.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::new();
        out.begin_dict();
        match &self.body {
            Body::Query {
                id,
                query,
                read_only,
            } => self.encode_query(&mut out, id, query, *read_only),
            Body::Reply(reply) => {
                self.encode_seen(&mut out);
                out.key(b"r");
                encode_reply(&mut out, reply);
                self.encode_end(&mut out, b"r");
            }
            Body::Error(code) => {
                out.key(b"e").begin_list().integer(*code).bytes(b"").end();
                self.encode_seen(&mut out);
                self.encode_end(&mut out, b"e");
            }
        }
        out.end();
        out.finish()
    }

    fn encode_query(&self, out: &mut Encoder, id: &NodeId, query: &Query, read_only: bool) {
        out.key(b"a").begin_dict();
        out.key(b"id").bytes(&id.0);
        let method: &[u8] = match query {
            Query::Ping => b"ping",
            Query::FindNode { target, want } => {
                out.key(b"target").bytes(&target.0);
                encode_want(out, *want);
                b"find_node"
            }
            Query::GetPeers { info_hash, want } => {
                out.key(b"info_hash").bytes(&info_hash.0);
                encode_want(out, *want);
                b"get_peers"
            }
            Query::AnnouncePeer {
                info_hash,
                port,
                token,
            } => {
                let implied = i64::from(port.is_none());
                out.key(b"implied_port").integer(implied);
                out.key(b"info_hash").bytes(&info_hash.0);
                if let Some(port) = port {
                    out.key(b"port").integer(i64::from(*port));
                }
                out.key(b"token").bytes(token.as_bytes());
                b"announce_peer"
            }
            Query::Unknown { target, want } => {
                if let Some(target) = target {
                    out.key(b"target").bytes(&target.0);
                }
                encode_want(out, *want);
                b"unknown"
            }
        };
        out.end();
        self.encode_seen(out);
        out.key(b"q").bytes(method);
        if read_only {
            out.key(b"ro").integer(1);
        }
        self.encode_end(out, b"q");
    }

    fn encode_seen(&self, out: &mut Encoder) {
        if let Some(seen) = self.seen {
            let mut compact = Vec::with_capacity(18);
            push_address(&mut compact, seen);
            out.key(b"ip").bytes(&compact);
        }
    }

    fn encode_end(&self, out: &mut Encoder, kind: &[u8]) {
        out.key(b"t").bytes(self.transaction.as_bytes());
        out.key(b"y").bytes(kind);
    }
}

fn encode_want(out: &mut Encoder, want: Want) {
    if want == Want::default() {
        return;
    }
    out.key(b"want").begin_list();
    if want.v4 {
        out.bytes(b"n4");
    }
    if want.v6 {
        out.bytes(b"n6");
    }
    out.end();
}

fn encode_reply(out: &mut Encoder, reply: &Reply) {
    out.begin_dict();
    out.key(b"id").bytes(&reply.id.0);
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for contact in &reply.nodes {
        let list = if contact.address.is_ipv4() {
            &mut v4
        } else {
            &mut v6
        };
        push_contact(list, contact);
    }
    if !v4.is_empty() {
        out.key(b"nodes").bytes(&v4);
    }
    if !v6.is_empty() {
        out.key(b"nodes6").bytes(&v6);
    }
    if let Some(token) = &reply.token {
        out.key(b"token").bytes(token.as_bytes());
    }
    if !reply.peers.is_empty() {
        out.key(b"values").begin_list();
        for peer in &reply.peers {
            let mut compact = Vec::with_capacity(18);
            push_address(&mut compact, *peer);
            out.bytes(&compact);
        }
        out.end();
    }
    out.end();
}

/// Appends a node in the compact form of its family.
pub fn push_contact(out: &mut Vec<u8>, contact: &Contact) {
    out.extend_from_slice(&contact.id.0);
    push_address(out, contact.address);
}

fn push_address(out: &mut Vec<u8>, address: SocketAddr) {
    match address.ip() {
        IpAddr::V4(v4) => out.extend_from_slice(&v4.octets()),
        IpAddr::V6(v6) => out.extend_from_slice(&v6.octets()),
    }
    out.extend_from_slice(&address.port().to_be_bytes());
}
