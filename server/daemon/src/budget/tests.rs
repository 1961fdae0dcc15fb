//! Tests of the budget: what is counted, and that limits are kept.

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

/// What a peer can have us hold, by its limits: a bitfield of 256 KiB on each way, and rejects of
/// its requests.
#[test]
fn a_peer_counts_all_that_it_can_have_us_hold() {
    let requests = |count| RequestQueue::memory_bytes_max(count) as u64;
    let bitfield = (256 << 10) + 5;
    let rejects = 2 * (2_000 * 17 + (16 << 10) + (17 << 10));
    let usual = (24 << 10) + 2 * bitfield + rejects + requests(2_000);
    assert_eq!(peer_bytes(2_000), usual);
    // Rejects of so many are longer than a bitfield.
    let rejects = 2 * (65_536 * 17 + (16 << 10) + (17 << 10));
    let most = (24 << 10) + bitfield + 2 * rejects + requests(65_536);
    assert_eq!(peer_bytes(65_536), most);
    let mut config = Config::default();
    let plan = |config: &Config| Budget::plan(config, 2, 524_288).memory_bytes_max;
    let before = plan(&config);
    config.peers.connections_max += 1;
    assert_eq!(plan(&config), before + usual);
}

#[test]
fn the_log_is_counted() {
    let lines = logging::LINES_MAX as u64;
    let most = 4 * logging::LINE_CHARACTERS_MAX as u64;
    let counted = logging::MEMORY_BYTES_MAX as u64;
    assert!(
        (lines * most..lines * (most + 1024)).contains(&counted),
        "{counted}"
    );
    let mut config = Config::default();
    config.peers.connections_max = 8;
    (config.tracker.enabled, config.dht.enabled) = (false, false);
    let others = MEMORY_BASE + MEMORY_PER_SHARD + payload_bytes(&config, 1);
    assert!(Budget::plan(&config, 1, 1024).memory_bytes_max > others + counted);
}

fn hooks(count: usize) -> Vec<control::config::HookEntry> {
    vec![control::config::HookEntry::default(); count]
}

/// Hooks, watch folders and lists of addresses that a reload brings are counted as at a start,
/// and what it takes away is not.
#[test]
fn what_a_reload_brings_is_counted() {
    let mut config = Config::default();
    let plain = Budget::plan(&config, 2, 524_288).with_store();
    config.hooks = hooks(3);
    config.peers.ip_filter = vec!["level1.p2p".into()];
    config.watches = vec![control::config::WatchEntry::default()];
    let more = plain.renewed(&config);
    assert_eq!(more.descriptors_max - plain.descriptors_max, 3 * 4 * 8 + 36);
    let bytes = (3 * (8 << 20)) + (80 << 20) + (128 << 20);
    assert_eq!(more.memory_bytes_max - plain.memory_bytes_max, bytes);
    let (connections, files) = (more.connections_max, more.open_files_max);
    assert_eq!(connections, plain.connections_max);
    assert_eq!(files, plain.open_files_max);
    let begun = Budget::plan(&config, 2, 524_288).with_store();
    assert_eq!(more, begun);
    assert_eq!(more.renewed(&Config::default()), plain);
}

#[test]
fn a_reload_for_which_there_are_too_few_descriptors_shows() {
    let mut config = Config::default();
    let budget = Budget::plan(&config, 2, 1024);
    assert!(!budget.is_short_of_descriptors());
    config.hooks = hooks(8);
    assert!(budget.renewed(&config).is_short_of_descriptors());
    // At a start there are fewer connections and files in their place.
    assert!(!Budget::plan(&config, 2, 1024).is_short_of_descriptors());
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
    let sockets = control::http::SOCKET_CONNECTIONS_MAX as u64;
    let http = u64::from(config.api.connections_max) + sockets;
    let others = MEMORY_BASE
        + MEMORY_PER_SHARD
        + payload_bytes(&config, 1)
        + page_table_bytes(&config, 1)
        + config.fetch.buffer_bytes.bytes()
        + HASHING_JOBS * Limits::BACKGROUND.memory_bytes_max()
        + budget.connections_max * peer_bytes(config.peers.request_queue_max)
        + logging::MEMORY_BYTES_MAX as u64
        + super_seeding::MEMORY_BYTES_MAX as u64
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
