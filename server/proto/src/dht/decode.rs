//! A datagram read: every length and type checked, nothing kept beyond the limits.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Body, Contact, Message, NodeId, Query, Reply, Token, TransactionId, Want};
use crate::bencode::{self, Document, Value};
use crate::ids::InfoHashV1;
use crate::limits;

/// What one message may cost.
const LIMITS: bencode::Limits = bencode::Limits {
    bytes_max: limits::DHT_DATAGRAM_BYTES_MAX as u32,
    tokens_max: limits::DHT_TOKENS_MAX as u32,
    depth_max: limits::DHT_DEPTH_MAX as u32,
};

/// Why a datagram is no message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DecodeError {
    /// It is not bencode, or too much of it.
    #[error("not a DHT message: {0}")]
    Bencode(bencode::Error),
    /// Bytes follow the message.
    #[error("bytes follow the DHT message")]
    Trailing,
    /// Two values for one key: which of them counts would be anybody's guess.
    #[error("a key of the DHT message stands twice")]
    DuplicateKey,
    /// A field is missing, has the wrong type, or the wrong length.
    #[error("the DHT message's field {0:?} is missing or wrong")]
    Field(&'static str),
}

impl Message {
    /// Reads one datagram.
    ///
    /// # Errors
    /// [`DecodeError`]
    pub fn decode(datagram: &[u8]) -> Result<Message, DecodeError> {
        let document = Document::parse(datagram, &LIMITS).map_err(DecodeError::Bencode)?;
        if !document.trailing().is_empty() {
            return Err(DecodeError::Trailing);
        }
        let root = document.root();
        if root.find_duplicate_key().is_some() {
            return Err(DecodeError::DuplicateKey);
        }
        let transaction = bytes(root, "t").and_then(TransactionId::new);
        let transaction = transaction.ok_or(DecodeError::Field("t"))?;
        let body = match bytes(root, "y") {
            Some(b"q") => query(root)?,
            Some(b"r") => Body::Reply(reply(root)?),
            Some(b"e") => Body::Error(error(root)),
            _ => return Err(DecodeError::Field("y")),
        };
        let seen = bytes(root, "ip").and_then(seen);
        Ok(Message {
            transaction,
            body,
            seen,
        })
    }
}

/// The string at a key.
fn bytes<'input>(value: Value<'_, 'input>, key: &str) -> Option<&'input [u8]> {
    value.get(key.as_bytes())?.as_bytes()
}

fn id(arguments: Value<'_, '_>, key: &'static str) -> Result<NodeId, DecodeError> {
    let id = bytes(arguments, key).and_then(|id| id.try_into().ok());
    id.map(NodeId).ok_or(DecodeError::Field(key))
}

fn query(root: Value<'_, '_>) -> Result<Body, DecodeError> {
    let arguments = root.get(b"a").ok_or(DecodeError::Field("a"))?;
    let method = bytes(root, "q").ok_or(DecodeError::Field("q"))?;
    let info_hash = || id(arguments, "info_hash").map(|id| InfoHashV1(id.0));
    let query = match method {
        b"ping" => Query::Ping,
        b"find_node" => Query::FindNode {
            target: id(arguments, "target")?,
            want: want(arguments),
        },
        b"get_peers" => Query::GetPeers {
            info_hash: info_hash()?,
            want: want(arguments),
        },
        b"announce_peer" => Query::AnnouncePeer {
            info_hash: info_hash()?,
            port: port(arguments)?,
            token: bytes(arguments, "token")
                .and_then(Token::new)
                .ok_or(DecodeError::Field("token"))?,
        },
        _ => Query::Unknown {
            target: id(arguments, "target")
                .or_else(|_| id(arguments, "info_hash"))
                .ok(),
            want: want(arguments),
        },
    };
    let read_only = root.get(b"ro").and_then(Value::as_integer);
    Ok(Body::Query {
        id: id(arguments, "id")?,
        query,
        read_only: read_only == Some(1),
    })
}

fn want(arguments: Value<'_, '_>) -> Want {
    let list = arguments.get(b"want").and_then(Value::list);
    let mut want = Want::default();
    for family in list.into_iter().flatten() {
        match family.as_bytes() {
            Some(b"n4") => want.v4 = true,
            Some(b"n6") => want.v6 = true,
            _ => {}
        }
    }
    want
}

fn port(arguments: Value<'_, '_>) -> Result<Option<u16>, DecodeError> {
    let implied = arguments.get(b"implied_port").and_then(Value::as_integer);
    if implied.is_some_and(|implied| implied != 0) {
        return Ok(None);
    }
    let port = arguments.get(b"port").and_then(Value::as_unsigned);
    match port.and_then(|port| u16::try_from(port).ok()) {
        Some(port) if port > 0 => Ok(Some(port)),
        _ => Err(DecodeError::Field("port")),
    }
}

fn reply(root: Value<'_, '_>) -> Result<Reply, DecodeError> {
    let values = root.get(b"r").ok_or(DecodeError::Field("r"))?;
    let mut nodes = compact_nodes(bytes(values, "nodes").unwrap_or(b""), false);
    nodes.extend(compact_nodes(bytes(values, "nodes6").unwrap_or(b""), true));
    let peers = values.get(b"values").and_then(Value::list);
    let peers = peers
        .into_iter()
        .flatten()
        .filter_map(|peer| address(peer.as_bytes()?));
    Ok(Reply {
        id: id(values, "id")?,
        nodes,
        peers: peers.take(limits::DHT_REPLY_PEERS_MAX).collect(),
        token: bytes(values, "token").and_then(Token::new),
    })
}

/// The code of an error; 0 where there is none.
fn error(root: Value<'_, '_>) -> i64 {
    let list = root.get(b"e").and_then(Value::list);
    let first = list.and_then(|mut list| list.next());
    first.and_then(Value::as_integer).unwrap_or(0)
}

/// Nodes in the compact form of one family, at most [`limits::DHT_REPLY_NODES_MAX`]; those with
/// port 0 and what is cut off at the end are left out.
pub fn compact_nodes(compact: &[u8], v6: bool) -> Vec<Contact> {
    let length = if v6 {
        super::CONTACT_BYTES_V6
    } else {
        super::CONTACT_BYTES_V4
    };
    let contact = |compact: &[u8]| {
        let (id, at) = compact.split_first_chunk::<20>()?;
        Some(Contact {
            id: NodeId(*id),
            address: address(at)?,
        })
    };
    let contacts = compact.chunks_exact(length).filter_map(contact);
    contacts.take(limits::DHT_REPLY_NODES_MAX).collect()
}

/// An address in compact form (BEP 5, BEP 32); `None` for another length and for port 0.
fn address(compact: &[u8]) -> Option<SocketAddr> {
    let (ip, port) = compact.split_at_checked(compact.len().checked_sub(2)?)?;
    let port = u16::from_be_bytes(port.try_into().ok()?);
    (port != 0).then_some(SocketAddr::new(ip_address(ip)?, port))
}

fn ip_address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(v4).into());
    }
    let v6 = <[u8; 16]>::try_from(bytes).ok()?;
    Some(Ipv6Addr::from(v6).into())
}

/// Our address in an answer: with its port, or without as some send it.
fn seen(compact: &[u8]) -> Option<SocketAddr> {
    if let Some(ip) = ip_address(compact) {
        return Some(SocketAddr::new(ip, 0));
    }
    let (ip, port) = compact.split_at_checked(compact.len().checked_sub(2)?)?;
    let port = u16::from_be_bytes(port.try_into().ok()?);
    Some(SocketAddr::new(ip_address(ip)?, port))
}
