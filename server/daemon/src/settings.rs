//! From the configuration to what each layer takes: numbers and addresses, nothing decided twice.

use crate::budget::Budget;
use anyhow::Context;
use control::announce::{AnnounceConfig, Authority, Binding, is_global};
use control::config::{
    ChokerPolicy, Config, LeechPolicy, Peers, RegisteredBuffers, SendPath, Verify,
};
use control::dht::DhtConfig;
use control::ip_filter;
use control::lsd::LsdConfig;
use control::tracker::{self, TrackerConfig};
use engine::choker::{self, ChokerConfig, SeedPolicy};
use engine::ip_filter::IpFilter;
use engine::session::SessionConfig;
use proto::client_name::our_peer_id;
use proto::ids::PeerId;
use seedring_io::buffers::Registration;
use seedring_io::fetch::FetchConfig;
use seedring_io::plane::{self, ConfiguredLimits, PlaneConfig, RateLimits};
use seedring_io::roster::WakeLimits;
use seedring_io::sockets::SocketOptions;
use seedring_metrics::{ControlCells, ControlGauge};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Queued control messages of one peer above which we stop reading from it, in bytes. `budget`
/// counts on it.
pub const CONTROL_BYTES_MAX: usize = 16 << 10;

/// How the data plane is to run.
pub fn plane(
    config: &Config,
    budget: &Budget,
    peer_id: PeerId,
    ip_filter: Arc<IpFilter>,
) -> PlaneConfig {
    let peers = &config.peers;
    let bind_v4 = peers.bind_v4.map(IpAddr::from);
    let bind_v6 = peers.bind_v6.map(IpAddr::from);
    let listen = [bind_v4, bind_v6].into_iter().flatten();
    let count = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
    PlaneConfig {
        listen: listen
            .map(|address| SocketAddr::new(address, peers.port))
            .collect(),
        shards: usize::from(config.shards.count),
        pin: config.shards.pin,
        sockets: SocketOptions {
            backlog: i32::try_from(peers.listen_backlog).unwrap_or(i32::MAX),
            congestion_control: peers.congestion_control.clone(),
            interface: peers.bind_interface.name().map(str::to_owned),
        },
        connections_max: count(budget.connections_max),
        connections_per_stranger_max: peers.connections_per_address_max as usize,
        handshakes_max: peers.handshakes_max as usize,
        handshake_timeout: peers.handshake_timeout_s.duration(),
        buffer_bytes: count(config.storage.buffer_bytes.bytes()),
        cache_bytes: count(config.storage.cache_bytes.bytes()),
        mapped_bytes: config.storage.mapped_bytes.bytes(),
        batch_bytes: u32::try_from(config.storage.batch_bytes.bytes()).unwrap_or(u32::MAX),
        registration: match config.storage.registered_buffers {
            RegisteredBuffers::Auto => Registration::Auto,
            RegisteredBuffers::Require => Registration::Require,
            RegisteredBuffers::Off => Registration::Off,
        },
        send_path: match config.storage.send_path {
            SendPath::Auto => plane::SendPath::Auto,
            SendPath::Splice => plane::SendPath::Splice,
            SendPath::Ring => plane::SendPath::Ring,
            SendPath::Direct => plane::SendPath::Direct,
        },
        pipes_per_shard: count(budget.pipes_per_shard),
        open_files_max: count(budget.open_files_max),
        session: session(config),
        choker: choker(config),
        upload_slots: config.limits.upload_slots,
        rates: rates(config),
        peer_id,
        fetch: fetch(config),
        waking: WakeLimits::default(),
        call_leechers: peers.call_leechers,
        ip_filter,
    }
}

/// What of it can be changed while it runs.
pub fn configured(config: &Config) -> ConfiguredLimits {
    let peers = &config.peers;
    ConfiguredLimits {
        rates: rates(config),
        upload_slots: config.limits.upload_slots,
        choker: choker(config),
        connections_per_stranger_max: peers.connections_per_address_max as usize,
        handshakes_max: peers.handshakes_max as usize,
    }
}

fn rates(config: &Config) -> RateLimits {
    let limits = &config.limits;
    RateLimits {
        global: limits.upload_rate.0,
        torrent: limits.torrent_upload_rate.0,
        local: limits.local_upload_rate.0,
        remote: limits.remote_upload_rate.0,
        download: limits.download_rate.0,
        torrent_download: limits.torrent_download_rate.0,
    }
}

/// Who is to get upload slots.
fn choker(config: &Config) -> ChokerConfig {
    ChokerConfig {
        optimistic_slots: config.limits.optimistic_slots,
        policy: match config.limits.choker {
            ChokerPolicy::FastestUpload => SeedPolicy::FastestUpload,
            ChokerPolicy::RoundRobin => SeedPolicy::RoundRobin,
            ChokerPolicy::AntiLeech => SeedPolicy::AntiLeech,
        },
        leech: match config.fetch.policy {
            LeechPolicy::TitForTat => choker::LeechPolicy::TitForTat { slots: 0 },
            LeechPolicy::Datacenter => choker::LeechPolicy::Datacenter {
                slots_max: u32::MAX,
            },
        },
        ..ChokerConfig::default()
    }
}

/// How the sessions of peers are to behave.
fn session(config: &Config) -> SessionConfig {
    let peers = &config.peers;
    SessionConfig {
        requests_max: peers.request_queue_max,
        idle_timeout: peers.idle_timeout_s.duration(),
        stall_timeout: peers.stalled_timeout_s.duration(),
        control_bytes_max: CONTROL_BYTES_MAX,
        peer_exchange: peers.peer_exchange,
        ..SessionConfig::default()
    }
}

/// How downloads are to work.
fn fetch(config: &Config) -> FetchConfig {
    let settings = &config.fetch;
    FetchConfig {
        buffer_bytes: usize::try_from(settings.buffer_bytes.bytes()).unwrap_or(usize::MAX),
        hash_threads: usize::from(settings.hash_threads),
        sync_period: settings.sync_period_s.duration(),
        retry_period: settings.retry_period_s.duration(),
        connect_timeout: settings.connect_timeout_s.duration(),
        connecting_max: settings.connecting_max as usize,
        peers_max: settings.peers_per_torrent_max as usize,
        outgoing_max: settings.outgoing_max as usize,
        half_open_max: settings.half_open_max as usize,
        requests_per_peer_max: settings.requests_per_peer_max,
        datacenter: settings.policy == LeechPolicy::Datacenter,
        ..FetchConfig::default()
    }
}

/// How local discovery is to be done for who takes peers on `port`, if it is.
pub fn lsd(config: &Config, port: u16) -> Option<LsdConfig> {
    let (peers, settings) = (&config.peers, &config.lsd);
    let port = NonZeroU16::new(port).filter(|_| settings.enabled)?;
    let mut interfaces = settings.interfaces.0.clone();
    if interfaces.is_empty() {
        interfaces.extend(peers.bind_interface.name().map(str::to_owned));
    }
    Some(LsdConfig {
        port,
        v4: peers.bind_v4.is_some(),
        v6: peers.bind_v6.is_some(),
        interfaces,
    })
}

/// Reads the lists of addresses to keep away, on a thread for blocking work, and says what is wrong
/// with them.
///
/// # Errors
///
/// One of them cannot be used.
pub async fn ip_filter(
    paths: &[PathBuf],
    cells: &Arc<ControlCells>,
) -> anyhow::Result<Arc<IpFilter>> {
    let (paths, cells) = (paths.to_vec(), Arc::clone(cells));
    tokio::task::spawn_blocking(move || read_ip_filter(&paths, &cells))
        .await
        .context("reading the address lists ended early")?
}

/// The same on this thread.
///
/// # Errors
///
/// One of them cannot be used.
pub fn read_ip_filter(paths: &[PathBuf], cells: &ControlCells) -> anyhow::Result<Arc<IpFilter>> {
    if paths.is_empty() {
        cells.set(ControlGauge::IpFilterRanges, 0);
        cells.set(ControlGauge::IpFilterMalformed, 0);
        return Ok(Arc::default());
    }
    let loaded = ip_filter::load(paths)?;
    for example in &loaded.examples {
        tracing::warn!("{example}");
    }
    let (ranges, malformed) = (loaded.filter.ranges(), loaded.malformed);
    tracing::info!(ranges, malformed, "the address lists are read");
    cells.set(ControlGauge::IpFilterRanges, ranges as u64);
    cells.set(ControlGauge::IpFilterMalformed, malformed);
    Ok(Arc::new(loaded.filter))
}

/// How the embedded tracker is to run.
pub fn tracker(config: &Config) -> TrackerConfig {
    let settings = &config.tracker;
    let defaults = TrackerConfig::default();
    let v4 = settings.listen_v4.map(SocketAddr::from);
    let v6 = settings.listen_v6.map(SocketAddr::from);
    let interval = settings.interval_s.duration();
    TrackerConfig {
        listen: [v4, v6].into_iter().flatten().collect(),
        udp: settings.udp,
        zones: settings.zones.clone(),
        open: settings.open,
        interval,
        limits: tracker::Limits {
            torrents_max: settings.torrents_max as usize,
            peers_per_torrent_max: settings.peers_per_torrent_max as usize,
            peer_lifetime: 2 * interval,
            ..defaults.limits
        },
        connections_max: settings.connections_max as usize,
        ..defaults
    }
}

/// What we call ourselves to trackers and other web servers.
fn user_agent(config: &Config) -> String {
    let own = AnnounceConfig::default().user_agent;
    some(&config.announce.user_agent).unwrap_or(own)
}

/// How announces are to be made.
///
/// # Errors
///
/// A file of certificates cannot be read.
pub fn announce(config: &Config) -> anyhow::Result<AnnounceConfig> {
    let settings = &config.announce;
    let defaults = AnnounceConfig::default();
    let calls = config.peers.call_leechers && config.fetch.outgoing_max > 0;
    Ok(AnnounceConfig {
        user_agent: user_agent(config),
        allow_private_trackers: settings.allow_private_trackers,
        in_flight_max: settings.requests_max as usize,
        per_second_per_host: settings.rate_per_host,
        numwant_complete: match calls {
            true => defaults.numwant_complete,
            // Who calls nobody takes no tracker's time for names.
            false => 0,
        },
        scrape_interval: match settings.scrape_interval_s.duration() {
            Duration::ZERO => None,
            interval => Some(interval),
        },
        proxy: settings.proxy.url().map(str::to_owned),
        binding: Binding {
            interface: settings.bind_interface.name().map(str::to_owned),
            v4: settings.bind_v4,
            v6: settings.bind_v6,
        },
        authorities: authorities(config)?,
        ..defaults
    })
}

/// Whom to trust beside the system's authorities, of trackers and other web servers.
///
/// # Errors
///
/// A file of certificates cannot be read.
pub fn authorities(config: &Config) -> anyhow::Result<Vec<Authority>> {
    let read = |path: &PathBuf| {
        let read = Authority::read(path);
        read.with_context(|| format!("cannot read the certificates in {}", path.display()))
    };
    config.announce.ca_files.iter().map(read).collect()
}

/// A text, where the empty one means none.
fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// How the DHT is to be taken part in.
///
/// # Errors
///
/// The kernel has no random bytes.
pub fn dht(
    config: &Config,
    state_dir: &Path,
    peer_port: u16,
    read_only: bool,
) -> std::io::Result<DhtConfig> {
    let (settings, peers) = (&config.dht, &config.peers);
    let mut keys = [[0; 16]; 2];
    for key in &mut keys {
        seedring_io::system::random(key)?;
    }
    Ok(DhtConfig {
        listen: config.dht_addresses(),
        interface: peers
            .bind_interface
            .name()
            .or(config.announce.bind_interface.name())
            .map(str::to_owned),
        port: match settings.port {
            0 => peer_port,
            port => port,
        },
        any_port: settings.port == 0,
        bootstrap: settings.bootstrap.0.clone(),
        read_only: read_only || settings.read_only,
        announce_interval: settings.announce_interval_s.duration(),
        queries_per_second: settings.queries_per_second,
        reply_bytes_per_second: u32::try_from(settings.reply_bytes_per_second.bytes())
            .unwrap_or(u32::MAX),
        stored_peers_max: settings.stored_peers_max as usize,
        saved: Some(state_dir.join("dht.nodes")),
        keys,
    })
}

/// Whether unchanged data are hashed at every start.
pub fn always_hash(config: &Config) -> bool {
    config.storage.verify == Verify::Always
}

/// The peer id of this process.
///
/// # Errors
///
/// The kernel has no random bytes.
pub fn peer_id() -> std::io::Result<PeerId> {
    let mut random = [0; 12];
    seedring_io::system::random(&mut random)?;
    Ok(our_peer_id(random))
}

/// A key for our announces (BEP 7): it stays ours when our address changes.
///
/// # Errors
///
/// The kernel has no random bytes.
pub fn announce_key() -> std::io::Result<u32> {
    let mut random = [0; 4];
    seedring_io::system::random(&mut random)?;
    Ok(u32::from_le_bytes(random))
}

/// The address by which others reach this machine, most likely: of the interface that peers are met
/// by, if one is named; else that by which it reaches them, or any that it has. Loopback if there is
/// no other. None if the interface that is named has none now.
pub fn own_address(peers: &Peers) -> Option<IpAddr> {
    let Some(interface) = peers.bind_interface.name() else {
        let any = || farthest(peers, seedring_io::system::own_addresses().ok()?);
        let own = routed_address().or_else(any);
        return own.or(Some(Ipv4Addr::LOCALHOST.into()));
    };
    farthest(
        peers,
        seedring_io::system::interface_addresses(interface).ok()?,
    )
}

/// Of the addresses at which peers are met, the one that is known farthest: everywhere, within a
/// network, on one link, on this machine; of those IPv4 first.
fn farthest(peers: &Peers, addresses: Vec<IpAddr>) -> Option<IpAddr> {
    let is_spoken = |address: &IpAddr| match address {
        IpAddr::V4(_) => peers.bind_v4.is_some(),
        // Without a zone a link's own addresses mean nothing to others.
        IpAddr::V6(v6) => peers.bind_v6.is_some() && !v6.is_unicast_link_local(),
    };
    let nearness = |address: &IpAddr| match address {
        _ if address.is_loopback() => 3,
        IpAddr::V4(v4) if v4.is_link_local() => 2,
        _ if is_global(*address) => 0,
        _ => 1,
    };
    let spoken = addresses.into_iter().filter(is_spoken);
    spoken.min_by_key(|address| (nearness(address), address.is_ipv6()))
}

/// The address by which this machine reaches others. Nothing is sent: connecting a UDP socket only
/// asks the routing table. None where there is no route.
fn routed_address() -> Option<IpAddr> {
    let toward = |bind: IpAddr, target: &str| {
        let socket = UdpSocket::bind((bind, 0)).ok()?;
        socket.connect(target).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    // Addresses for documentation (RFC 5737, RFC 3849): routed like any other, owned by nobody.
    toward(Ipv4Addr::UNSPECIFIED.into(), "192.0.2.1:9")
        .or_else(|| toward(Ipv6Addr::UNSPECIFIED.into(), "[2001:db8::1]:9"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use control::config::Environment;

    /// What a test's configuration says, beside the environment of nobody.
    fn configured(text: &str) -> Config {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("seedring.toml");
        std::fs::write(&file, text).unwrap();
        let nothing: [(&str, &str); 0] = [];
        Config::load(Some(&file), &Environment::of(nothing)).unwrap()
    }

    /// Whoever is found is met by the interface of the peers.
    #[test]
    fn the_dht_and_local_discovery_keep_to_the_interface_of_the_peers() {
        let interfaces = |text: &str| {
            let config = configured(&format!("lsd.enabled = true\n{text}"));
            let dht = dht(&config, Path::new("/"), 1, false).unwrap();
            (dht.interface, lsd(&config, 1).unwrap().interfaces)
        };
        let wg0 = || Some("wg0".to_owned());
        assert_eq!(interfaces(""), (None, vec![]));
        assert_eq!(
            interfaces("peers.bind_interface = \"wg0\""),
            (wg0(), vec!["wg0".to_owned()])
        );
        assert_eq!(
            interfaces("announce.bind_interface = \"wg0\""),
            (wg0(), vec![])
        );
        let both = "peers.bind_interface = \"wg0\"\nannounce.bind_interface = \"wg1\"";
        assert_eq!(interfaces(both).0, wg0());
    }

    /// An address of another interface would be a foreign one on this device.
    #[test]
    fn the_dht_sends_from_no_address_of_another_interface() {
        let listen = |text: &str| {
            let config = configured(text);
            dht(&config, Path::new("/"), 1, false).unwrap().listen
        };
        let any: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        let trackers = "announce.bind_v4 = \"192.0.2.5\"";
        assert_eq!(listen(trackers), [IpAddr::from([192, 0, 2, 5])]);
        let peers = "peers.bind_interface = \"wg0\"";
        assert_eq!(listen(&format!("{peers}\n{trackers}")), any);
        let both = format!("{peers}\npeers.bind_v4 = \"10.8.0.2\"\n{trackers}");
        assert_eq!(listen(&both), [IpAddr::from([10, 8, 0, 2]), any[1]]);
    }

    /// What is bound to an interface names its address or none, not that of the default route.
    #[test]
    fn the_own_address_is_that_of_the_interface_of_the_peers() {
        let own = |text: &str| own_address(&configured(text).peers);
        assert!(own("").is_some());
        let lo = "peers.bind_interface = \"lo\"";
        assert_eq!(own(lo), Some(Ipv4Addr::LOCALHOST.into()));
        assert_eq!(own("peers.bind_interface = \"absent0\""), None);
        let neither = format!("{lo}\npeers.bind_v4 = \"\"");
        assert!(own(&neither).is_none_or(|address| address.is_ipv6()));
    }

    #[test]
    fn of_many_addresses_the_one_that_is_known_farthest_is_named() {
        let named = |text: &str, addresses: &[&str]| {
            let addresses = addresses.iter().map(|address| address.parse().unwrap());
            let named = farthest(&configured(text).peers, addresses.collect());
            named.map(|address| address.to_string())
        };
        let mut addresses = vec!["fe80::1", "127.0.0.1", "::1"];
        for better in ["169.254.1.1", "fd00::1", "10.0.0.1", "2a00::1", "9.9.9.9"] {
            addresses.push(better);
            assert_eq!(named("", &addresses).unwrap(), better);
        }
        let v6_alone = "peers.bind_v4 = \"\"";
        assert_eq!(named(v6_alone, &addresses).unwrap(), "2a00::1");
        assert_eq!(named("", &["fe80::1"]), None);
    }

    #[test]
    fn trackers_are_asked_for_leechers_where_they_are_called() {
        let mut config = Config::default();
        let wanted = |config: &Config| announce(config).unwrap().numwant_complete;
        assert!(wanted(&config) > 0);
        config.fetch.outgoing_max = 0;
        assert_eq!(wanted(&config), 0);
        config = Config::default();
        config.peers.call_leechers = false;
        assert_eq!(wanted(&config), 0);
    }
}
