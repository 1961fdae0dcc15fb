//! How much memory and how many descriptors a configuration can cost at most: computed before
//! anything is started, printed at start, and kept.
//!
//! Does not count: the kernel's socket buffers, the page cache, and the program's own code (its
//! pages are shared with the file).

use crate::settings;
use control::config::{Config, SendPath};
use control::hashing::Limits;
use control::{hooks, watching};
use engine::ip_filter;
use engine::metadata;
use engine::queue::RequestQueue;
use seedring_io::direct::{SLOT_BYTES, slots_per_shard};
use seedring_io::fetch::UNDECODED_BYTES_MAX;
use seedring_io::pipes::PIPES_MAX;
use seedring_io::windows::bytes_per_shard;
use state::limits::{CACHE_BYTES, REQUESTS_KIB};

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

/// Memory of one peer beside its queue, in bytes, when it does all that its limits allow: control
/// messages at their limit and the rejects of a whole queue, both queued and on their way, a
/// received message that is not whole yet, task and session. An honest peer takes about 8 KiB. (Of
/// a torrent with very many pieces a bitfield is longer than that; it is gone after the first
/// message.)
const MEMORY_PER_PEER: u64 = 160 << 10;

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
        // With lists as long as may be, while they are read again.
        let ip_filter = match config.peers.ip_filter.is_empty() {
            true => 0,
            false => ip_filter::MEMORY_BYTES_MAX as u64,
        };
        // A tracker with two addresses is told over both; with few descriptors announces wait
        // instead.
        let announces = (2 * u64::from(config.announce.requests_max)).min(descriptor_limit / 4);
        // Hooks and watch folders wait for each other where there are few.
        let automation = automation_descriptors(config).min(descriptor_limit / 16);
        let pipes = descriptor_limit / PIPE_DESCRIPTORS_SHARE / (2 * shards.max(1));
        let pipes_per_shard = pipes.clamp(1, PIPES_MAX as u64);
        let fixed = DESCRIPTORS_BASE
            + shards * (DESCRIPTORS_PER_SHARD + 2 * pipes_per_shard)
            + announces
            + automation;
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
        let queue = RequestQueue::memory_bytes_max(config.peers.request_queue_max) as u64;
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
                + connections_max * (MEMORY_PER_PEER + queue)
                + http_reserved * MEMORY_PER_HTTP
                + control::api::bodies_bytes_max(&config.api)
                + tracked_peers * MEMORY_PER_TRACKED_PEER
                + dht
                + ip_filter
                + automation_bytes(config),
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_fits_an_ordinary_limit() {
        let config = Config::default();
        let budget = Budget::plan(&config, 2, 524_288);
        assert_eq!(
            budget.connections_max,
            u64::from(config.peers.connections_max)
        );
        assert_eq!(budget.open_files_max, OPEN_FILES_MAX);
        assert!(budget.descriptors_max <= 524_288);
    }

    #[test]
    fn a_low_limit_lowers_connections_and_files_and_is_kept() {
        let config = Config::default();
        for limit in [200, 256, 512, 1024, 4096, 9000] {
            let budget = Budget::plan(&config, 2, limit);
            assert!(budget.descriptors_max <= limit, "{limit}: {budget:?}");
            assert!(budget.connections_max >= CONNECTIONS_MIN);
            assert!(budget.open_files_max >= 1);
        }
    }

    #[test]
    fn a_tracker_costs_the_memory_of_its_peers() {
        let mut config = Config::default();
        config.tracker.enabled = false;
        let without = Budget::plan(&config, 2, 524_288).memory_bytes_max;
        config.tracker.enabled = true;
        let with = Budget::plan(&config, 2, 524_288).memory_bytes_max;
        assert!(with - without >= 200_000 * MEMORY_PER_TRACKED_PEER);
    }

    #[test]
    fn a_limit_that_is_too_low_for_anything_shows() {
        for limit in [8, 32, 64] {
            assert!(Budget::plan(&Config::default(), 2, limit).descriptors_max > limit);
        }
    }

    #[test]
    fn the_cache_of_the_direct_path_is_counted_and_kept_to_its_share() {
        let mut config = Config::default();
        let buffers = config.storage.buffer_bytes.bytes();
        config.storage.send_path = SendPath::Ring;
        let without = Budget::plan(&config, 2, 524_288).memory_bytes_max - buffers;
        config.storage.send_path = SendPath::Direct;
        let cache = |config: &Config, shards| {
            let with = Budget::plan(config, shards, 524_288).memory_bytes_max;
            with - without - (shards - 2) * MEMORY_PER_SHARD
        };
        let (bytes, slot) = (config.storage.cache_bytes.bytes(), SLOT_BYTES as u64);
        assert!((bytes - 2 * slot..=bytes).contains(&cache(&config, 2)));
        // So many shards have the least that works.
        assert_eq!(cache(&config, 100), 100 * 8 * slot);
    }

    #[test]
    fn page_tables_are_counted_where_files_are_mapped() {
        let mut config = Config::default();
        let plan = |config: &Config, shards| Budget::plan(config, shards, 524_288).memory_bytes_max;
        let mapped = config.storage.mapped_bytes.bytes();
        let tables = |config: &mut Config, shards| {
            config.storage.send_path = SendPath::Auto;
            let with = plan(config, shards);
            config.storage.send_path = SendPath::Ring;
            with - plan(config, shards)
        };
        assert_eq!(tables(&mut config, 2), mapped / 512);
        config.storage.mapped_bytes = control::config::ByteSize::mib(0);
        // 64 MiB a shard are the least.
        assert_eq!(tables(&mut config, 64), 64 * (128 << 10));
    }

    #[test]
    fn hashing_beside_the_server_is_counted() {
        let least = HASHING_JOBS * Limits::BACKGROUND.memory_bytes_max();
        // What it reads ahead, and not much more.
        let ahead = Limits::BACKGROUND.ahead_bytes_max as u64;
        assert!(least > HASHING_JOBS * ahead && least < 2 * HASHING_JOBS * ahead);
        assert_eq!(crate::disk::BACKGROUND.limits(), Limits::BACKGROUND);
        let mut config = Config::default();
        config.storage.buffer_bytes = control::config::ByteSize::mib(1);
        config.peers.connections_max = 1;
        config.tracker.enabled = false;
        let budget = Budget::plan(&config, 1, 524_288).memory_bytes_max;
        assert!(budget >= MEMORY_BASE + least);
    }

    #[test]
    fn lists_of_addresses_are_counted_where_there_are_any() {
        let mut config = Config::default();
        let plan = |config: &Config| Budget::plan(config, 2, 524_288).memory_bytes_max;
        let without = plan(&config);
        config.peers.ip_filter = vec!["level1.p2p".into()];
        assert_eq!(plan(&config) - without, 80 << 20);
    }

    #[test]
    fn the_memory_of_downloads_is_counted() {
        let mut config = Config::default();
        let plan = |config: &Config| Budget::plan(config, 2, 524_288).memory_bytes_max;
        let before = plan(&config);
        let bytes = config.fetch.buffer_bytes.bytes() >> 20;
        config.fetch.buffer_bytes = control::config::ByteSize::mib(bytes + 64);
        assert_eq!(plan(&config), before + (64 << 20));
    }

    #[test]
    fn the_metadata_of_links_are_counted() {
        let mut config = Config::default();
        (config.tracker.enabled, config.dht.enabled) = (false, false);
        let budget = Budget::plan(&config, 1, 524_288);
        let queue = RequestQueue::memory_bytes_max(config.peers.request_queue_max) as u64;
        let sockets = control::http::SOCKET_CONNECTIONS_MAX as u64;
        let http = u64::from(config.api.connections_max) + sockets;
        let others = MEMORY_BASE
            + MEMORY_PER_SHARD
            + payload_bytes(&config, 1)
            + page_table_bytes(&config, 1)
            + config.fetch.buffer_bytes.bytes()
            + HASHING_JOBS * Limits::BACKGROUND.memory_bytes_max()
            + budget.connections_max * (MEMORY_PER_PEER + queue)
            + http * MEMORY_PER_HTTP
            + control::api::bodies_bytes_max(&config.api);
        // The longest that there may be is there twice, when it is hashed.
        let longest = 2 * proto::limits::METAINFO_BYTES_MAX as u64;
        let metadata = budget.memory_bytes_max - others;
        assert_eq!(metadata, metadata::MEMORY_BYTES_MAX as u64);
        assert!(metadata > longest);
    }

    #[test]
    fn more_buffers_are_more_memory() {
        let mut config = Config::default();
        let before = Budget::plan(&config, 2, 524_288).memory_bytes_max;
        let more = config.storage.buffer_bytes.bytes() + (64 << 20);
        config.storage.buffer_bytes = control::config::ByteSize::mib(more >> 20);
        assert_eq!(
            Budget::plan(&config, 2, 524_288).memory_bytes_max,
            before + (64 << 20)
        );
    }
}
