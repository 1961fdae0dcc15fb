//! Every limit on what a stranger can make a decoder do, in one place, with its reason.
//!
//! A limit is checked before the allocation or the loop that it bounds.

/// A `.torrent` file, in bytes. Sets of 1 TB with small pieces need tens of MiB of hashes.
pub const METAINFO_BYTES_MAX: usize = 64 << 20;

/// Tokens (integers, strings, list and dictionary starts and ends) in one bencoded document.
pub const BENCODE_TOKENS_MAX: usize = 3_000_000;

/// How deep lists and dictionaries may nest.
pub const BENCODE_DEPTH_MAX: usize = 100;

/// Pieces in one torrent: 2^21, 2 TiB at 1 MiB a piece.
pub const PIECES_MAX: u32 = 1 << 21;

/// The length of a piece, in bytes.
pub const PIECE_LENGTH_MAX: u32 = 512 << 20;

/// Components of one file's path.
pub const PATH_DEPTH_MAX: usize = 100;

/// All paths of a version 2 torrent together, in bytes, with 32 added for each component. Its tree
/// of names shares directories, so a small file could otherwise unfold to paths of gigabytes.
pub const PATHS_BYTES_MAX: usize = 256 << 20;

/// Tokens in a torrent that this machine made itself: a directory of a million files needs nine
/// each.
pub const BENCODE_TOKENS_OWN_MAX: usize = 16_000_000;

/// Trackers in one torrent or magnet link; further ones are ignored.
pub const TRACKERS_MAX: usize = 10_000;

/// Web seeds in one torrent or magnet link; further ones are ignored.
pub const WEB_SEEDS_MAX: usize = 10_000;

/// DHT nodes or peers named in one torrent or magnet link; further ones are ignored.
pub const NODES_MAX: usize = 1_000;

/// Parameters of a magnet link: more than enough for the trackers, web seeds and peers that are
/// kept.
pub const MAGNET_PARAMETERS_MAX: usize = 32_768;

/// Ranges of file indices in a magnet link's selection (BEP 53).
pub const SELECTION_RANGES_MAX: usize = 32_768;

/// A tracker's or web seed's URL, in bytes; a longer one is ignored.
pub const URL_BYTES_MAX: usize = 8 << 10;

/// The length of one path component after sanitising, in bytes: what Linux file systems accept.
pub const PATH_COMPONENT_BYTES_MAX: usize = 255;

/// A block that we serve, in bytes (the usual request is 16 KiB; some clients ask for up to 128
/// KiB).
pub const BLOCK_LENGTH_MAX: u32 = 128 << 10;

/// The usual length of a block, in bytes (BEP 3 as practised).
pub const BLOCK_LENGTH: u32 = 16 << 10;

/// A tracker's reply, in bytes.
pub const TRACKER_REPLY_BYTES_MAX: usize = 1 << 20;

/// Tokens in a tracker's reply: 20,000 peers as dictionaries, far more than fit its bytes.
pub const TRACKER_REPLY_TOKENS_MAX: usize = 400_000;

/// How deep a tracker's reply or an extension message may nest; the protocols need 4.
pub const MESSAGE_DEPTH_MAX: usize = 16;

/// An extension message (BEP 10) with the 16 KiB that a metadata message carries after its
/// dictionary.
pub const EXTENSION_BYTES_MAX: usize = 128 << 10;

/// Tokens in the dictionary of an extension message.
pub const EXTENSION_TOKENS_MAX: usize = 4_096;

/// A magnet link, in bytes.
pub const MAGNET_BYTES_MAX: usize = 1 << 20;

/// The payload of a peer message that we do not know and skip, in bytes: room for the hash messages
/// of BEP 52, which are the longest that are in use.
pub const UNKNOWN_MESSAGE_BYTES_MAX: u32 = 32 << 10;

/// The client's name and version in an extension handshake, in characters.
pub const CLIENT_TEXT_CHARS_MAX: usize = 64;

/// How many requests a peer may say that it queues (`reqq`); more is taken as this.
pub const PEER_REQUEST_QUEUE_MAX: u32 = 1 << 16;

/// Peers that are taken from one tracker's reply; a tracker is asked for 200 and gives what it
/// likes.
pub const TRACKER_REPLY_PEERS_MAX: usize = 10_000;

/// A tracker's failure reason or warning, in characters.
pub const TRACKER_TEXT_CHARS_MAX: usize = 256;

/// The id that a tracker gives us to send back, in bytes; a longer one is not kept.
pub const TRACKER_ID_BYTES_MAX: usize = 512;

/// The shortest interval between announces that we let a tracker ask for, in seconds.
pub const ANNOUNCE_INTERVAL_SECONDS_MIN: u32 = 60;

/// The longest interval between announces that we let a tracker ask for, in seconds.
pub const ANNOUNCE_INTERVAL_SECONDS_MAX: u32 = 24 * 60 * 60;

/// The interval between announces where a tracker names none, in seconds.
pub const ANNOUNCE_INTERVAL_SECONDS: u32 = 30 * 60;

/// The query string of an announce or scrape to our tracker, in bytes.
pub const TRACKER_QUERY_BYTES_MAX: usize = 16 << 10;

/// Parameters in such a query string.
pub const TRACKER_QUERY_PARAMETERS_MAX: usize = 256;

/// Info-hashes in one scrape, asked or answered.
pub const SCRAPE_HASHES_MAX: usize = 200;

/// The key by which a client proves to a tracker that it is the same one, in bytes.
pub const TRACKER_KEY_BYTES_MAX: usize = 64;

/// A UDP datagram over IPv4, in bytes; what bounds the replies of UDP trackers.
pub const UDP_DATAGRAM_BYTES_MAX: usize = 65_507;

/// Info-hashes in one scrape over UDP (BEP 15 says about 74, so that it fits a frame of Ethernet).
pub const UDP_SCRAPE_HASHES_MAX: usize = 74;

/// Addresses that are taken from one list of a peer exchange message (BEP 11): twice what the
/// longest first message of a client in use has.
pub const PEX_PEERS_MAX: usize = 200;

/// A datagram of the DHT, in bytes: what an Ethernet frame carries, of which real ones take less
/// than half.
pub const DHT_DATAGRAM_BYTES_MAX: usize = 1_500;

/// Tokens in a message of the DHT: a reply full of peers has some 200.
pub const DHT_TOKENS_MAX: usize = 512;

/// How deep a message of the DHT may nest; the protocol needs 3.
pub const DHT_DEPTH_MAX: usize = 8;

/// The transaction id of a message of the DHT, in bytes; what is in use has 2 to 8.
pub const DHT_TRANSACTION_BYTES_MAX: usize = 16;

/// The token of a DHT node, in bytes; what is in use has 4 to 20.
pub const DHT_TOKEN_BYTES_MAX: usize = 64;

/// Nodes of each family that are taken from one reply; the protocol says 8.
pub const DHT_REPLY_NODES_MAX: usize = 16;

/// Peers that are taken from one reply.
pub const DHT_REPLY_PEERS_MAX: usize = 128;
