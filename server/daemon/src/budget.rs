//! How much memory and how many descriptors a configuration can cost at most: computed before
//! anything is started, printed at start, and kept. What a reload may add is counted anew then.
//!
//! Does not count: the kernel's socket buffers, the page cache, and the program's own code (its
//! pages are shared with the file), what programs take that hooks start, and messages of a download
//! that wait for a peer that takes nothing, until that is closed for it.

use crate::settings::{self, CONTROL_BYTES_MAX};
use control::config::{Config, SendPath};
use control::hashing::Limits;
use control::{hooks, logging, watching};
use engine::ip_filter;
use engine::metadata;
use engine::queue::RequestQueue;
use proto::limits::PIECES_MAX;
use proto::wire::{FrameLimits, REQUEST_FRAME_BYTES};
use seedring_io::direct::{SLOT_BYTES, slots_per_shard};
use seedring_io::fetch::UNDECODED_BYTES_MAX;
use seedring_io::pipes::PIPES_MAX;
use seedring_io::super_seeding;
use seedring_io::windows::bytes_per_shard;
use state::limits::{CACHE_BYTES, REQUESTS_KIB};

#[cfg(test)]
mod tests;

/// Descriptors of the process itself: standard streams, rings, event polls, channels, the state
/// store, logs, two sockets of the DHT.
const DESCRIPTORS_BASE: u64 = 64;

/// Descriptors of one shard: its ring, its event poll and waker, its signals, two listeners.
const DESCRIPTORS_PER_SHARD: u64 = 8;

/// The share of the limit on descriptors that pipes may take: one in so many.
const PIPE_DESCRIPTORS_SHARE: u64 = 16;

/// Open files that we can not go below.
const OPEN_FILES_MIN: u64 = 64;

/// Open files beyond which more would not help.
const OPEN_FILES_MAX: u64 = 8192;

/// Connections that we can not go below.
const CONNECTIONS_MIN: u64 = 8;

/// Memory of the process without torrents and peers, in bytes: runtimes, rings, allocator, metrics.
const MEMORY_BASE: u64 = 64 << 20;

/// Memory of one shard beside its buffers, in bytes: ring, completions, thread, tables, what
/// downloads receive into.
const MEMORY_PER_SHARD: u64 = (5 << 20) + UNDECODED_BYTES_MAX;

/// Memory of one peer beside what [`peer_bytes`] counts, in bytes: its task, its session, and what
/// is gathered for one send. (An honest peer takes about 8 KiB in all.)
const MEMORY_PER_SESSION: u64 = 24 << 10;

/// What one message that is answered may add to the control messages that are queued before the
/// next is read, in bytes: a block of metadata (BEP 9), and what is said of it.
const CONTROL_ANSWER_BYTES_MAX: u64 = (16 << 10) + 1024;

/// Page tables take one byte for so many bytes of windows onto files. (What is in the windows is
/// the page cache's.)
const PAGE_TABLE_SHARE: u64 = 512;

/// Jobs that hash at once beside serving: the torrent that is being loaded, and one re-check.
const HASHING_JOBS: u64 = 2;

/// Memory of one connection of the API or the tracker, in bytes.
const MEMORY_PER_HTTP: u64 = 32 << 10;

/// Memory of the DHT beside what it stores, in bytes: two nodes with their tables, searches and
/// queries.
const MEMORY_DHT: u64 = 8 << 20;

/// Memory of one peer that a DHT node of ours stores, in bytes.
const MEMORY_PER_STORED_PEER: u64 = 160;

/// Memory of one peer that our tracker holds, in bytes, when its tables have just grown.
const MEMORY_PER_TRACKED_PEER: u64 = 640;

/// Memory of the store of torrents, in bytes: its cache, and what waits to be written.
const MEMORY_STORE: u64 = CACHE_BYTES as u64 + ((REQUESTS_KIB as u64) << 10);

/// What a configuration comes to on this machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Budget {
    /// Peer connections, lowered to what the limit on descriptors leaves.
    pub connections_max: u64,
    /// Open files of torrents.
    pub open_files_max: u64,
    /// Pipes of each shard.
    pub pipes_per_shard: u64,
    /// Descriptors at most.
    pub descriptors_max: u64,
    /// Memory at most, in bytes, beside the metainfo of the torrents.
    pub memory_bytes_max: u64,
    /// What of both a reload may change.
    live: Live,
    /// The limit of open descriptors that it was planned for.
    descriptor_limit: u64,
}

/// What those lists cost that a running server can be given others of: hooks, watch folders, lists
/// of addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Live {
    descriptors: u64,
    bytes: u64,
}

impl Live {
    fn plan(config: &Config, descriptor_limit: u64) -> Live {
        // With lists as long as may be, while they are read again.
        let ip_filter = match config.peers.ip_filter.is_empty() {
            true => 0,
            false => ip_filter::MEMORY_BYTES_MAX as u64,
        };
        Live {
            // No more are set aside for them; where there are few, what finds none fails.
            descriptors: automation_descriptors(config).min(descriptor_limit / 16),
            bytes: ip_filter + automation_bytes(config),
        }
    }
}

impl Budget {
    /// The same with a store of torrents.
    #[must_use]
    pub fn with_store(self) -> Budget {
        Budget {
            memory_bytes_max: self.memory_bytes_max + MEMORY_STORE,
            ..self
        }
    }

    /// The same with the lists of a configuration that was read again. Connections and files keep
    /// what they were given.
    #[must_use]
    pub fn renewed(self, config: &Config) -> Budget {
        let live = Live::plan(config, self.descriptor_limit);
        Budget {
            descriptors_max: self.descriptors_max - self.live.descriptors + live.descriptors,
            memory_bytes_max: self.memory_bytes_max - self.live.bytes + live.bytes,
            live,
            ..self
        }
    }

    /// Whether the limit of open descriptors is less than there may be now.
    pub fn is_short_of_descriptors(&self) -> bool {
        self.descriptors_max > self.descriptor_limit
    }

    /// Plans for `shards` shards under a limit of `descriptor_limit` open descriptors.
    pub fn plan(config: &Config, shards: u64, descriptor_limit: u64) -> Budget {
        let tracked_peers = if config.tracker.enabled {
            settings::tracker(config).limits.peers_max as u64
        } else {
            0
        };
        let http = u64::from(config.api.connections_max)
            + control::http::SOCKET_CONNECTIONS_MAX as u64
            + if config.tracker.enabled {
                u64::from(config.tracker.connections_max)
            } else {
                0
            };
        let dht = match config.dht.enabled {
            // A node for each family.
            true => {
                MEMORY_DHT + 2 * u64::from(config.dht.stored_peers_max) * MEMORY_PER_STORED_PEER
            }
            false => 0,
        };
        let live = Live::plan(config, descriptor_limit);
        // A tracker with two addresses is told over both; with few descriptors announces wait
        // instead.
        let announces = (2 * u64::from(config.announce.requests_max)).min(descriptor_limit / 4);
        let pipes = descriptor_limit / PIPE_DESCRIPTORS_SHARE / (2 * shards.max(1));
        let pipes_per_shard = pipes.clamp(1, PIPES_MAX as u64);
        let fixed = DESCRIPTORS_BASE
            + shards * (DESCRIPTORS_PER_SHARD + 2 * pipes_per_shard)
            + announces
            + live.descriptors;
        let wanted_files = match u64::from(config.storage.open_files_max) {
            0 => OPEN_FILES_MAX,
            files => files,
        };
        let free = descriptor_limit.saturating_sub(fixed);
        // HTTP clients are refused by their servers when descriptors run out, and never displace
        // peers by more than a quarter of what is left.
        let http_reserved = http.min(free / 4);
        let free = free - http_reserved;
        let connections_max = u64::from(config.peers.connections_max)
            .min(free.saturating_sub(OPEN_FILES_MIN.min(free / 4)))
            .max(CONNECTIONS_MIN);
        let open_files_max = wanted_files
            .min(free.saturating_sub(connections_max))
            .max(OPEN_FILES_MIN.min(free / 4).max(1));
        Budget {
            connections_max,
            open_files_max,
            pipes_per_shard,
            descriptors_max: fixed + http_reserved + connections_max + open_files_max,
            memory_bytes_max: MEMORY_BASE
                + shards * MEMORY_PER_SHARD
                + payload_bytes(config, shards)
                + page_table_bytes(config, shards)
                + config.fetch.buffer_bytes.bytes()
                + metadata::MEMORY_BYTES_MAX as u64
                + HASHING_JOBS * Limits::BACKGROUND.memory_bytes_max()
                + connections_max * peer_bytes(config.peers.request_queue_max)
                + logging::MEMORY_BYTES_MAX as u64
                + super_seeding::MEMORY_BYTES_MAX as u64
                + http_reserved * MEMORY_PER_HTTP
                + control::api::bodies_bytes_max(&config.api)
                + tracked_peers * MEMORY_PER_TRACKED_PEER
                + dht
                + live.bytes,
            live,
            descriptor_limit,
        }
    }
}

/// Memory of one peer, in bytes, when it does all that its limits allow: the longest message, which
/// is the bitfield of a torrent of [`PIECES_MAX`] pieces, not whole yet; control messages at their
/// limit and the rejects of a whole queue, both queued and on their way, of which those may be our
/// bitfield in their place; and its queue. What is queued may have twice its length of room, as it
/// has grown.
fn peer_bytes(requests_max: u32) -> u64 {
    let received = FrameLimits::for_torrent(PIECES_MAX).frame_bytes_max() as u64;
    let rejects = u64::from(requests_max) * REQUEST_FRAME_BYTES as u64;
    let queued = 2 * (CONTROL_BYTES_MAX as u64 + CONTROL_ANSWER_BYTES_MAX + rejects);
    let on_their_way = queued.max(received);
    let requests = RequestQueue::memory_bytes_max(requests_max) as u64;
    MEMORY_PER_SESSION + received + queued + on_their_way + requests
}

/// Descriptors of hooks and watch folders.
fn automation_descriptors(config: &Config) -> u64 {
    let told = config.hooks.iter().map(|hook| u64::from(hook.concurrency));
    let watches = config.watches.len() as u64;
    told.sum::<u64>() * hooks::DESCRIPTORS + watches * watching::DESCRIPTORS
}

/// Memory for what waits for hooks, and for what comes by watch folders, in bytes.
fn automation_bytes(config: &Config) -> u64 {
    let hooks = (config.hooks.len() * hooks::WAITING_BYTES_MAX) as u64;
    match config.watches.is_empty() {
        true => hooks,
        false => hooks + watching::MEMORY_BYTES_MAX,
    }
}

/// Memory for payload over all shards, in bytes: the buffers, or the chunk caches of the direct
/// path in their place.
fn payload_bytes(config: &Config, shards: u64) -> u64 {
    if config.storage.send_path != SendPath::Direct {
        return config.storage.buffer_bytes.bytes();
    }
    let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let slots = slots_per_shard(count(config.storage.cache_bytes.bytes()), count(shards));
    shards * (slots * SLOT_BYTES) as u64
}

/// Memory for the page tables of windows onto files, in bytes.
fn page_table_bytes(config: &Config, shards: u64) -> u64 {
    match config.storage.send_path {
        SendPath::Auto | SendPath::Splice => {}
        SendPath::Ring | SendPath::Direct => return 0,
    }
    let count = usize::try_from(shards).unwrap_or(usize::MAX);
    let mapped = shards * bytes_per_shard(config.storage.mapped_bytes.bytes(), count);
    mapped / PAGE_TABLE_SHARE
}
