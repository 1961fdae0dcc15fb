//! Why a connection ends, said so that an operator can tell who is to blame.

use proto::extension::ExtensionError;
use proto::ids::PieceIndex;
use proto::wire::{BlockRequest, WireError};
use thiserror::Error;

/// Who or what ended a connection: a label for metrics, and what to do about the peer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DisconnectKind {
    /// The peer broke the protocol. Whoever does so again and again may be banned.
    Misbehaved,
    /// The peer is within its rights, but we cannot serve it.
    Incompatible,
    /// Neither side has anything for the other.
    Redundant,
    /// The peer went silent or takes nothing.
    TimedOut,
}

impl DisconnectKind {
    /// A short name for logs and metric labels.
    pub const fn name(self) -> &'static str {
        match self {
            DisconnectKind::Misbehaved => "misbehaved",
            DisconnectKind::Incompatible => "incompatible",
            DisconnectKind::Redundant => "redundant",
            DisconnectKind::TimedOut => "timed-out",
        }
    }
}

/// Why a session wants its connection closed. The text names what the peer did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum Disconnect {
    /// The stream is no peer wire, or beyond the frame limits.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// An extended message that the protocol does not allow.
    #[error(transparent)]
    Extension(#[from] ExtensionError),
    /// A request outside the torrent, or of length 0, from a peer that cannot be told so by a
    /// reject.
    #[error(
        "request for {length} bytes at {begin} of piece {piece}, which is not within the torrent",
        piece = .0.piece, begin = .0.begin, length = .0.length
    )]
    RequestOutside(BlockRequest),
    /// A request for more than we serve in one block, from a peer that cannot be told so by a
    /// reject.
    #[error("request for a block of {length} bytes, we serve at most {length_max}")]
    RequestTooLong {
        /// The length that it asked for, in bytes.
        length: u32,
        /// The most that we serve, in bytes.
        length_max: u32,
    },
    /// Rejects do not make the peer stop asking for what cannot be.
    #[error("{count} requests that were outside the torrent or too long")]
    InvalidRequests {
        /// How many came.
        count: u32,
    },
    /// The peer goes on requesting long after it must have seen that it is choked.
    #[error("{count} requests while choked")]
    RequestsWhileChoked {
        /// How many came since it was choked.
        count: u32,
    },
    /// A piece that was announced is no longer there, and BEP 3 alone has no message that says so.
    #[error(
        "request for piece {piece}, which we no longer have, from a peer without the fast extension"
    )]
    PieceLost {
        /// The piece.
        piece: PieceIndex,
    },
    /// A have for a piece that the torrent does not have.
    #[error("have for piece {piece}, the torrent has {piece_count}")]
    HaveOutside {
        /// The piece.
        piece: PieceIndex,
        /// The number of pieces in the torrent.
        piece_count: u32,
    },
    /// A message of BEP 6 though the fast extension was not agreed on.
    #[error("a {message} message without having agreed on the fast extension")]
    FastNotAgreed {
        /// The name of the message.
        message: &'static str,
    },
    /// A block, though we never request one.
    #[error("a block of piece {piece} that we did not request")]
    UnrequestedPiece {
        /// The piece.
        piece: PieceIndex,
    },
    /// Rejects do not make the peer stop asking for metadata again and again.
    #[error("{count} requests for metadata beyond what is served to one peer")]
    MetadataFlood {
        /// How many were refused.
        count: u32,
    },
    /// The peer tells of others again and again before its time (BEP 11).
    #[error("{count} peer exchange messages, one after another, that came too soon")]
    ExchangeFlood {
        /// How many came.
        count: u32,
    },
    /// The peer says again and again what it has, and nothing new.
    #[error(
        "a bitfield, have-all or have-none that says nothing new, after {count_max} others that came \
         faster than one a second"
    )]
    StatementFlood {
        /// How many may come so.
        count_max: u32,
    },
    /// Both sides have the whole torrent.
    #[error("the peer is complete, and so are we")]
    BothComplete,
    /// The peer says that it downloads nothing more (BEP 21), and we need nothing.
    #[error("the peer only uploads, and so do we")]
    BothUploadOnly,
    /// Nothing came for too long.
    #[error("nothing came for {seconds} s")]
    Idle {
        /// How long, in seconds.
        seconds: u64,
    },
    /// Bytes wait to be sent, and the peer takes none.
    #[error("the peer took no byte for {seconds} s, and {bytes} wait to be sent")]
    Stalled {
        /// How long, in seconds.
        seconds: u64,
        /// How many bytes wait.
        bytes: u64,
    },
}

impl Disconnect {
    /// Who or what is to blame.
    pub const fn kind(&self) -> DisconnectKind {
        match self {
            Disconnect::Wire(_)
            | Disconnect::Extension(_)
            | Disconnect::RequestOutside(_)
            | Disconnect::InvalidRequests { .. }
            | Disconnect::RequestsWhileChoked { .. }
            | Disconnect::HaveOutside { .. }
            | Disconnect::FastNotAgreed { .. }
            | Disconnect::UnrequestedPiece { .. }
            | Disconnect::MetadataFlood { .. }
            | Disconnect::ExchangeFlood { .. }
            | Disconnect::StatementFlood { .. } => DisconnectKind::Misbehaved,
            Disconnect::RequestTooLong { .. } | Disconnect::PieceLost { .. } => {
                DisconnectKind::Incompatible
            }
            Disconnect::BothComplete | Disconnect::BothUploadOnly => DisconnectKind::Redundant,
            Disconnect::Idle { .. } | Disconnect::Stalled { .. } => DisconnectKind::TimedOut,
        }
    }
}
