//! What others ask: nodes, peers, and to be remembered as a peer, with a token that binds them to
//! their address.

use super::secret::Secret;
use super::site::Site;
use super::table::BUCKET_NODES;
use super::{AMPLIFICATION_MAX, DATAGRAM_BYTES_MAX, Family, Node, Table, may_name};
use crate::time::Time;
use proto::dht::{
    Body, CONTACT_BYTES_V4, CONTACT_BYTES_V6, Contact, Message, NodeId, PEER_BYTES_V4,
    PEER_BYTES_V6, Query, Reply, Token, TransactionId, Want, code,
};
use proto::ids::InfoHashV1;
use std::net::{IpAddr, SocketAddr};

/// A ping of ours, in bytes, at most.
const PING_BYTES: usize = 64;
/// What the key of a list of nodes takes beside them, in bytes, at most.
const NODES_KEY_BYTES: usize = 13;
/// What the key of the peers takes beside them, in bytes.
const PEERS_KEY_BYTES: usize = 10;
/// Nodes for which room is kept beside peers.
const NODES_BESIDE_PEERS: usize = 2;

/// A question and where it came from.
struct Asked<'a> {
    from: SocketAddr,
    transaction: TransactionId,
    /// Bytes that the answer may have.
    room: usize,
    other: Option<&'a Table>,
}

impl Node {
    pub(super) fn handle_admitted(
        &mut self,
        from: SocketAddr,
        datagram: &[u8],
        other: Option<&Table>,
        now: Time,
    ) {
        let Ok(message) = Message::decode(datagram) else {
            self.counters.malformed += 1;
            return;
        };
        let transaction = message.transaction;
        let (id, query, read_only) = match message.body {
            Body::Query {
                id,
                query,
                read_only,
            } => (id, query, read_only),
            Body::Reply(reply) => {
                self.take_answer(from, transaction, Some(reply), message.seen, now);
                return;
            }
            Body::Error(_) => {
                self.take_answer(from, transaction, None, None, now);
                return;
            }
        };
        if self.config.read_only || id == self.id {
            self.counters.not_served += 1;
            return;
        }
        let is_proven = self.sources.is_proven(Site::of(from), now);
        let contact = Contact { id, address: from };
        let is_wanted = !read_only
            && self.table.wants(&contact)
            && self.ping_backs.take(&mut self.ping_backs_spent, 1, now);
        let room = match (is_proven, is_wanted) {
            (true, _) => DATAGRAM_BYTES_MAX,
            (false, true) => (AMPLIFICATION_MAX * datagram.len()).saturating_sub(PING_BYTES),
            (false, false) => AMPLIFICATION_MAX * datagram.len(),
        };
        let asked = Asked {
            from,
            transaction,
            room: room.min(DATAGRAM_BYTES_MAX),
            other,
        };
        self.answer(&asked, query, now);
        if is_wanted {
            self.ask_back(contact, now);
        }
    }

    fn answer(&mut self, asked: &Asked<'_>, query: Query, now: Time) {
        // What cannot be sent is not worth the work: nearest nodes are looked for among all.
        if self.replies.ready_at(self.replies_spent) > now {
            self.counters.over_rate += 1;
            return;
        }
        let body = match query {
            Query::Ping => Body::Reply(Reply::of(self.id)),
            Query::FindNode { target, want } => {
                let reply = Reply::of(self.id);
                Body::Reply(self.with_nodes(asked, reply, &target, want))
            }
            Query::GetPeers { info_hash, want } => {
                self.answer_get_peers(asked, info_hash, want, now)
            }
            Query::AnnouncePeer {
                info_hash,
                port,
                token,
            } => {
                let port = port.unwrap_or(asked.from.port());
                self.answer_announce(asked, info_hash, port, token, now)
            }
            Query::Unknown {
                target: Some(target),
                want,
            } => {
                let reply = Reply::of(self.id);
                Body::Reply(self.with_nodes(asked, reply, &target, want))
            }
            Query::Unknown { target: None, .. } => Body::Error(code::METHOD_UNKNOWN),
        };
        let datagram = message(asked, body).encode();
        if datagram.len() > asked.room
            || !self
                .replies
                .take(&mut self.replies_spent, datagram.len() as u64, now)
        {
            self.counters.over_rate += 1;
            return;
        }
        self.counters.answered += 1;
        self.send(asked.from, datagram);
    }

    fn answer_get_peers(
        &mut self,
        asked: &Asked<'_>,
        info_hash: InfoHashV1,
        want: Want,
        now: Time,
    ) -> Body {
        let from = asked.from;
        let mut reply = Reply::of(self.id);
        reply.token = Some(token(&self.secrets[0], from.ip(), info_hash));
        let (peer_bytes, contact_bytes) = match self.family {
            Family::V4 => (PEER_BYTES_V4, CONTACT_BYTES_V4),
            Family::V6 => (PEER_BYTES_V6, CONTACT_BYTES_V6),
        };
        let room = self
            .room(asked, &reply)
            .saturating_sub(PEERS_KEY_BYTES + NODES_KEY_BYTES + NODES_BESIDE_PEERS * contact_bytes);
        reply.peers = self.storage.some(
            info_hash.into(),
            room / peer_bytes,
            now,
            &mut self.random,
            |peer| peer != from && may_name(from, peer),
        );
        Body::Reply(self.with_nodes(asked, reply, &info_hash.into(), want))
    }

    fn answer_announce(
        &mut self,
        asked: &Asked<'_>,
        info_hash: InfoHashV1,
        port: u16,
        shown: Token,
        now: Time,
    ) -> Body {
        let ip = asked.from.ip();
        let is_ours = |secret: &Secret| token(secret, ip, info_hash) == shown;
        if !self.secrets.iter().any(is_ours) {
            self.counters.refused += 1;
            return Body::Error(code::PROTOCOL);
        }
        self.sources.prove(Site::of(asked.from), now);
        let peer = SocketAddr::new(ip, port);
        if self.storage.store(info_hash.into(), peer, now) {
            self.counters.stored += 1;
        } else {
            // It is told that all is well: what we keep is our affair, and others have been told,
            // too.
            self.counters.refused += 1;
        }
        Body::Reply(Reply::of(self.id))
    }

    /// Adds the nodes nearest to the target, as many as there is room for.
    fn with_nodes(
        &self,
        asked: &Asked<'_>,
        mut reply: Reply,
        target: &NodeId,
        want: Want,
    ) -> Reply {
        let neither = !want.v4 && !want.v6;
        for family in [Family::V4, Family::V6] {
            let (is_wanted, bytes) = match family {
                Family::V4 => (want.v4, CONTACT_BYTES_V4),
                Family::V6 => (want.v6, CONTACT_BYTES_V6),
            };
            let is_ours = family == self.family;
            let table = if is_ours {
                Some(&self.table)
            } else {
                asked.other
            };
            let Some(table) = table.filter(|_| is_wanted || (neither && is_ours)) else {
                continue;
            };
            let room = self.room(asked, &reply).saturating_sub(NODES_KEY_BYTES);
            let count = (room / bytes).min(BUCKET_NODES);
            let allowed = |address| address != asked.from && may_name(asked.from, address);
            reply.nodes.extend(table.nearest(target, count, allowed));
        }
        reply
    }

    /// The bytes that are left for more.
    fn room(&self, asked: &Asked<'_>, reply: &Reply) -> usize {
        let sofar = message(asked, Body::Reply(reply.clone())).encode().len();
        asked.room.saturating_sub(sofar)
    }
}

fn message(asked: &Asked<'_>, body: Body) -> Message {
    Message {
        transaction: asked.transaction,
        body,
        seen: Some(asked.from),
    }
}

/// What an announce from this address has to show.
fn token(secret: &Secret, ip: IpAddr, info_hash: InfoHashV1) -> Token {
    let mut text = [0; 36];
    match ip.to_canonical() {
        IpAddr::V4(v4) => text[..4].copy_from_slice(&v4.octets()),
        IpAddr::V6(v6) => text[..16].copy_from_slice(&v6.octets()),
    }
    text[16..].copy_from_slice(&info_hash.0);
    let tag = secret.tag(&text).to_be_bytes();
    Token::new(&tag).unwrap_or_else(|| unreachable!("eight bytes fit"))
}
