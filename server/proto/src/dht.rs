//! The messages of the DHT (KRPC, BEP 5), each one bencoded datagram: pings, searches for nodes and
//! peers, announces, over IPv4 and IPv6 (BEP 32), with our address as others see it and the ids
//! bound to it (BEP 42), and read-only nodes (BEP 43).
//!
//! A message that was decoded is whole and owns nothing but small buffers; what is wrong with
//! another is a [`DecodeError`], and it is best answered by silence: a datagram's sender may be
//! anybody.
//!
//! Limits: `DHT_…` in [`crate::limits`]. Unknown keys are ignored, unknown queries are
//! [`Query::Unknown`]. Refused are duplicate keys, bytes behind the message, and values of the
//! wrong type or length where they matter. Does not: judge addresses (see [`crate::address`]);
//! store items (BEP 44); scrape (BEP 33).

mod decode;
mod encode;
mod node_id;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::SocketAddr;

pub use decode::{DecodeError, compact_nodes};
pub use encode::{
    CONTACT_BYTES_V4, CONTACT_BYTES_V6, PEER_BYTES_V4, PEER_BYTES_V6, REPLY_BYTES_BASE,
    push_contact,
};
pub use node_id::{Distance, ID_BITS, NodeId};

use crate::ids::InfoHashV1;
use crate::limits::{DHT_TOKEN_BYTES_MAX, DHT_TRANSACTION_BYTES_MAX};

/// Codes of errors (BEP 5).
pub mod code {
    /// The query is malformed or its token is wrong.
    pub const PROTOCOL: i64 = 203;
    /// The query's method is not known.
    pub const METHOD_UNKNOWN: i64 = 204;
}

/// At most `MAX` bytes, kept in place.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Short<const MAX: usize> {
    length: u8,
    bytes: [u8; MAX],
}

impl<const MAX: usize> Short<MAX> {
    /// A copy, unless it is too long.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let mut short = Short {
            length: u8::try_from(bytes.len()).ok()?,
            bytes: [0; MAX],
        };
        short.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(short)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl<const MAX: usize> fmt::Debug for Short<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.as_bytes().escape_ascii())
    }
}

/// By which an answer finds its query; the asker's to choose.
pub type TransactionId = Short<DHT_TRANSACTION_BYTES_MAX>;

/// What a node wants to see again when somebody announces to it; that node's to choose.
pub type Token = Short<DHT_TOKEN_BYTES_MAX>;

/// A node as others name it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Contact {
    /// Its id, as said by whoever names it.
    pub id: NodeId,
    /// Its address.
    pub address: SocketAddr,
}

/// Which families of nodes an asker wants named (BEP 32). Neither: that of the datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Want {
    /// `n4`
    pub v4: bool,
    /// `n6`
    pub v6: bool,
}

/// What is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Query {
    /// Are you there?
    Ping,
    /// Who is close to this id?
    FindNode {
        /// The id.
        target: NodeId,
        /// Nodes of which families.
        want: Want,
    },
    /// Who has this torrent, and who is close to it?
    GetPeers {
        /// The torrent.
        info_hash: InfoHashV1,
        /// Nodes of which families.
        want: Want,
    },
    /// The asker has this torrent.
    AnnouncePeer {
        /// The torrent.
        info_hash: InfoHashV1,
        /// Where the asker takes connections; `None`: at the port that the datagram came from.
        port: Option<u16>,
        /// What the node said to a [`Query::GetPeers`].
        token: Token,
    },
    /// A method that we do not know. With a target or an info-hash it is meant to be answered like
    /// [`Query::FindNode`] (BEP 44).
    Unknown {
        /// What it is about.
        target: Option<NodeId>,
        /// Nodes of which families.
        want: Want,
    },
}

/// What is answered. Which of the fields are of use depends on the query.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    /// Who answers.
    pub id: NodeId,
    /// Nodes close to what was asked for, of both families.
    pub nodes: Vec<Contact>,
    /// Peers of the torrent, of both families.
    pub peers: Vec<SocketAddr>,
    /// What to announce with.
    pub token: Option<Token>,
}

impl Reply {
    /// An answer that says only who answers.
    pub fn of(id: NodeId) -> Reply {
        Reply {
            id,
            nodes: Vec::new(),
            peers: Vec::new(),
            token: None,
        }
    }
}

/// The three kinds of message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Body {
    /// `q`
    Query {
        /// Who asks.
        id: NodeId,
        /// What.
        query: Query,
        /// The asker answers no queries (BEP 43).
        read_only: bool,
    },
    /// `r`
    Reply(Reply),
    /// `e`: the code; what is said beside it is not of use.
    Error(i64),
}

/// One message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// Repeated by the answer.
    pub transaction: TransactionId,
    /// What it says.
    pub body: Body,
    /// With an answer: where the query came from, as its receiver saw it (BEP 42).
    pub seen: Option<SocketAddr>,
}
