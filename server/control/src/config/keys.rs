//! Every section and key: its meaning, type, default and bounds. The reference file is made from
//! the comments here; write them for an operator, with the unit and the reason. `live` keys can be
//! changed while `serve` runs, by reading the configuration again; `fixed` ones count at its start.
//! Who makes a key live sees to it in the daemon's `reload`, and says in `tests/tests/reload_keys` by
//! what it is seen, without which that fails.

use super::access::{ApiSocket, ApiUsers};
use super::hosts::{HostName, ProxyUrl};
use super::rules::{CategoryPath, NamedLimits, ScheduledLimits};
use super::setting::{Interface, Interfaces, Nodes, choices};
use super::table::section;
use super::units::{ByteRate, ByteSize, Seconds};
use crate::tracker::LabelledNetwork;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::path::PathBuf;

/// The largest rate: 1 TB/s, so that sums and products of rates stay far from overflow.
const RATE_MAX: u64 = 1_000_000_000_000;

section! {
    /// Connections of peers.
    Peers {
        /// TCP port that peers connect to, on IPv4 and IPv6 alike. 0 takes any free port, which is
        /// printed and logged. Open it in the firewall: a seed that nobody can reach seeds nobody.
        fixed port: u16 = 6890;
        /// IPv4 address to listen on; "" turns IPv4 off.
        fixed bind_v4: Option<Ipv4Addr> = Some(Ipv4Addr::UNSPECIFIED);
        /// IPv6 address to listen on; "" turns IPv6 off. The socket takes IPv6 only.
        fixed bind_v6: Option<Ipv6Addr> = Some(Ipv6Addr::UNSPECIFIED);
        /// Meet peers only by this network interface, such as "wg0"; "" is any. When it is gone, nobody
        /// is called or listened to, and connections are closed, until it is back. The DHT and local
        /// discovery keep to it, too; trackers have announce.bind_interface. Peers on this machine
        /// itself are then not met.
        fixed bind_interface: Interface = Interface::default();
        /// Connections that the kernel may hold for us before we accept them, per listening socket.
        /// The kernel caps it at net.core.somaxconn.
        fixed listen_backlog: u32 = 1024, 1..=65_535;
        /// Peer connections in all, over all shards; fewer where RLIMIT_NOFILE, which the process
        /// raises to its hard limit, leaves fewer. Each costs one descriptor and some tens of KiB
        /// of memory; what that sums up to is logged at the start, which takes files and pipes by what
        /// they leave, so that a reload changes nothing of it.
        fixed connections_max: u32 = 8000, 1..=1_000_000;
        /// Peer connections from one IPv4 address or one IPv6 /64, so that one host cannot take
        /// every place. Raise it where many peers share an address behind NAT.
        live connections_per_address_max: u32 = 256, 1..=1_000_000;
        /// Accepted connections whose handshake is not done yet. When it is reached, a new
        /// connection is closed at once: a flood of silent connects must not fill the places above.
        live handshakes_max: u32 = 1024, 1..=100_000;
        /// Seconds that a peer has for its handshake before it is closed. This and the next two are
        /// part of what every connection is begun with, by each shard's own copy: a reload leaves them.
        fixed handshake_timeout_s: Seconds = Seconds(10), 1..=120;
        /// Seconds without a byte from a peer before it is closed. Peers send a keep-alive every
        /// 120 s, so less than that closes healthy ones.
        fixed idle_timeout_s: Seconds = Seconds(180), 120..=3600;
        /// Seconds that a peer may leave data in our send buffer without reading any of it before
        /// it is closed. Such a reader holds buffers and a place.
        fixed stalled_timeout_s: Seconds = Seconds(60), 5..=3600;
        /// Requests of one peer that wait to be served; what exceeds it is rejected. At 16 KiB a
        /// request, 2000 fill 10 Gbit/s over a round trip of 26 ms.
        fixed request_queue_max: u32 = 2000, 16..=65_536;
        /// Tell peers of each other, and learn of others from them (peer exchange, BEP 11).
        /// Private torrents never do, whatever is set here.
        fixed peer_exchange: bool = true;
        /// Call peers of complete torrents, too, which trackers and others name: many can be
        /// called but cannot call us. How many at a time is bounded by fetch.outgoing_max.
        fixed call_leechers: bool = true;
        /// Lists of addresses to keep away, whoever calls whom: PeerGuardian text (p2p), eMule's
        /// ipfilter.dat, or one network, range or address a line; unpacked. Read at the start and
        /// again at each reload, also where only what is in them has changed. One that cannot be read
        /// stops the start; of a reload nothing is taken then. Lines that are not understood are logged
        /// and block nobody. At most 2,097,152 ranges of IPv4 and 524,288 of IPv6; they may take 80 MiB
        /// while read again.
        live ip_filter: Vec<PathBuf> = Vec::new(), 0..=64;
        /// TCP congestion control of peer sockets, such as "cubic" or "bbr"; "" takes the system's
        /// (net.ipv4.tcp_congestion_control). One that the kernel does not have is refused.
        fixed congestion_control: String = String::new(), 0..=15;
    }
}

section! {
    /// Shards: threads that serve peers, each with its own io_uring, sockets and buffers.
    Shards {
        /// Number of shards. 0 takes one per CPU that the process may run on.
        fixed count: u16 = 0, 0..=1024;
        /// Pin each shard to one CPU. It keeps caches warm; turn it off where CPUs are shared with
        /// other busy programs, or where the sandbox forbids sched_setaffinity.
        fixed pin: bool = true;
    }
}

choices! {
    /// Whether buffers are registered with io_uring.
    RegisteredBuffers {
        /// Register them if the memlock limit allows it.
        Auto = "auto",
        /// Refuse to start if they cannot be registered.
        Require = "require",
        /// Do not register them.
        Off = "off",
    }
    /// How payload gets from the disk to a socket.
    SendPath {
        /// By what is known of the data, the file and the socket.
        Auto = "auto",
        /// From the page cache by pipes, without a copy.
        Splice = "splice",
        /// Through a buffer, from the page cache.
        Ring = "ring",
        /// Through a cache of our own, past the page cache.
        Direct = "direct",
    }
    /// When data is hashed before it is served.
    Verify {
        /// When a file differs from the one that was verified: device, inode, size or time.
        OnChange = "on-change",
        /// At every start.
        Always = "always",
    }
}

section! {
    /// Reading torrent data.
    Storage {
        /// Memory for the buffers that payload is read into, over all shards. It is taken at the
        /// start and never exceeded: when all are in use, peers wait. (send_path = "direct" takes
        /// cache_bytes instead.)
        fixed buffer_bytes: ByteSize = ByteSize::mib(32), 1_048_576..=1_099_511_627_776;
        /// The most that one read fetches when adjacent requests of a peer are joined: the size of
        /// one buffer. At least the longest block that is served, at most 16 blocks of 16 KiB.
        fixed batch_bytes: ByteSize = ByteSize::kib(256), 131_072..=262_144;
        /// Files of torrents that are kept open over all shards; the least recently used is closed.
        /// 0 takes what RLIMIT_NOFILE leaves beside the connections, up to 8192.
        fixed open_files_max: u32 = 0, 0..=10_000_000;
        /// Register the buffers with io_uring, which saves work per read but counts against the
        /// memlock limit: "auto" does it where it can, "require" refuses to start otherwise.
        fixed registered_buffers: RegisteredBuffers = RegisteredBuffers::Auto;
        /// How payload gets from the disk to a socket. "auto" chooses for each batch: pages that are in
        /// memory are sent without a copy while no program has the file open for writing, everything
        /// else is read into a buffer. "splice" never copies, so a program that writes to a file
        /// while it is being sent can spoil what is on its way. "ring" always reads into a buffer.
        /// "direct" leaves the page cache alone and keeps a cache of its own, for data far larger
        /// than memory.
        fixed send_path: SendPath = SendPath::Auto;
        /// Memory for the cache of "direct", over all shards; the other paths do not take it. Each shard
        /// has its share, at least 2.2 MiB, and reads for itself. Large enough for a few times the
        /// 256 KiB of each peer that is served at a time; more helps when peers fetch the same data.
        fixed cache_bytes: ByteSize = ByteSize::mib(64), 4_194_304..=1_099_511_627_776;
        /// What of the files may be mapped at a time to send pages of it without a copy, over all shards;
        /// each has its share, at least 64 MiB. No memory of the server's own: what of it is in the page
        /// cache counts as resident memory (RES), and is dropped when memory is short. When much more
        /// than that is being served, a byte costs up to a third more CPU.
        fixed mapped_bytes: ByteSize = ByteSize::mib(16_384), 0..=549_755_813_888;
        /// When to hash data before serving it. "on-change" trusts files that were verified before
        /// and whose device, inode, size and modification time are the same; "always" hashes
        /// everything at each start, which reads all of it once.
        fixed verify: Verify = Verify::OnChange;
    }
}

choices! {
    /// Which peers get the upload slots.
    ChokerPolicy {
        /// Those that take data the fastest.
        FastestUpload = "fastest-upload",
        /// Each in its turn.
        RoundRobin = "round-robin",
        /// Those that are at the beginning or the end of their download.
        AntiLeech = "anti-leech",
    }
}

section! {
    /// Limits of upload and download. Every rate is payload; headers add less than 0.1 %. What is
    /// said of one torrent comes before its labels, these before its category, that before what
    /// holds for each torrent; the server's limits hold for all together.
    Limits {
        /// Upload of the whole server, in bytes per second; 0 is unlimited. What is set while `serve`
        /// runs is kept, and comes before this; so for download_rate.
        live upload_rate: ByteRate = ByteRate::UNLIMITED, 0..=RATE_MAX;
        /// Download of the whole server, in bytes per second; 0 is unlimited. Peers are asked for no
        /// more than that.
        live download_rate: ByteRate = ByteRate::UNLIMITED, 0..=RATE_MAX;
        /// Upload of each torrent, in bytes per second; 0 is unlimited.
        live torrent_upload_rate: ByteRate = ByteRate::UNLIMITED, 0..=RATE_MAX;
        /// Download of each torrent, in bytes per second; 0 is unlimited.
        live torrent_download_rate: ByteRate = ByteRate::UNLIMITED, 0..=RATE_MAX;
        /// Upload to all local peers together, in bytes per second; 0 is unlimited. Local are
        /// loopback, private and link-local addresses: usually free of charge.
        live local_upload_rate: ByteRate = ByteRate::UNLIMITED, 0..=RATE_MAX;
        /// Upload to all other peers together, in bytes per second; 0 is unlimited.
        live remote_upload_rate: ByteRate = ByteRate::UNLIMITED, 0..=RATE_MAX;
        /// Limits of each torrent that has a label, "LABEL: upload=RATE download=RATE peers=COUNT
        /// ratio=RATIO seeding_time=TIME at_limit=ACTION", of which some may be left out; 0 is none. Of
        /// several labels the torrent's first counts that says something of it. What library.ratio_permille,
        /// seeding_time_s and at_limit say of all is said here of some: "tv: ratio=1.5 seeding_time=14d
        /// at_limit=remove".
        live labels: Vec<NamedLimits> = Vec::new(), 0..=1000;
        /// The same for each torrent that is in a category.
        live categories: Vec<NamedLimits> = Vec::new(), 0..=1000;
        /// Other limits of the whole server at some times of the week, by the clock of this machine,
        /// "DAYS BEGIN-END upload=RATE download=RATE". DAYS is "daily", a day ("sat") or the first and
        /// last of several ("mon-fri"); a time that ends before it begins ends on the next day. The
        /// first that holds counts, and comes before what else is set. `seed` and `serve` follow it.
        live schedule: Vec<ScheduledLimits> = Vec::new(), 0..=100;
        /// Peers of the whole server that may request from us at a time; 0 is unlimited. A hidden
        /// small number here is why other clients do not fill a fast line.
        live upload_slots: u32 = 0, 0..=1_000_000;
        /// Who gets the slots, when upload_slots limits them.
        live choker: ChokerPolicy = ChokerPolicy::FastestUpload;
        /// Slots out of upload_slots that go to peers at random, so that a new peer gets its first
        /// pieces; 0 takes a fifth of them, at least one. One slot is always given by the policy.
        /// Without effect while slots are unlimited.
        live optimistic_slots: u32 = 1, 0..=1000;
    }
}

choices! {
    /// How the space of a file is taken.
    Allocation {
        /// As its bytes come.
        Sparse = "sparse",
        /// All of it at once.
        Full = "full",
    }
    /// What of a download is written past the page cache.
    PastCache {
        /// What nobody may ask for at once, if the disk is quick at it.
        Auto = "auto",
        /// Everything.
        Always = "always",
        /// Nothing.
        Never = "never",
    }
    /// Who gets upload slots in a torrent that is still being downloaded.
    LeechPolicy {
        /// Those who give.
        TitForTat = "tit-for-tat",
        /// Everybody.
        Datacenter = "datacenter",
    }
}

section! {
    /// Downloads.
    Fetch {
        /// Memory for pieces that are coming, being hashed and being written, over all downloads. It is
        /// taken as needed and never exceeded: of pieces that are longer than that, parts are written
        /// before they are whole. A quarter of it is what may be requested at a time, so at 10 Gbit/s
        /// the default fills a round trip of 26 ms.
        fixed buffer_bytes: ByteSize = ByteSize::mib(128), 8_388_608..=1_099_511_627_776;
        /// Threads that hash what comes; 0 takes one per CPU that the process may run on. They start
        /// with the first download.
        fixed hash_threads: u16 = 0, 0..=1024;
        /// Seconds within which what was written is forced to the disk and remembered. After a crash at
        /// most so much is downloaded again, beside pieces that were not whole; shorter costs more
        /// syncs.
        fixed sync_period_s: Seconds = Seconds(5), 1..=3600;
        /// Seconds after which a full or failing disk is tried again. After a failed sync, which costs what
        /// came since the last good one, it is twice as long each time, up to 300.
        fixed retry_period_s: Seconds = Seconds(5), 1..=3600;
        /// How the space of a file is taken. "sparse" lets it grow as bytes come; "full" takes all of it
        /// before the first byte, so that a disk that is too small shows at once and files lie in one
        /// piece.
        live allocation: Allocation = Allocation::Sparse;
        /// What is written past the page cache (O_DIRECT), of what lies at page boundaries of a file. It
        /// takes less CPU and leaves the cache to others, but who asks for such a piece makes the disk
        /// read it again. "auto" does so while no peer that is connected wants anything of us, as long
        /// as the disk takes 150 MB/s that way: one with heads is quicker if the kernel sorts the writes.
        live past_cache: PastCache = PastCache::Auto;
        /// Appended to the name of a file until it is whole, so that nobody takes it for complete; ""
        /// leaves names alone. A file that exists under its own name keeps it, and so do all files of a
        /// torrent in which a name with this would be another's.
        fixed partial_suffix: String = ".part".to_owned(), 0..=32;
        /// Peers of one torrent while it is being downloaded, whoever began the connection. A quarter is kept
        /// for connections that we begin; who is of no use gives way to others.
        fixed peers_per_torrent_max: u32 = 200, 1..=65_536;
        /// Connections that we begin, over all torrents, complete ones among them, at a time.
        fixed outgoing_max: u32 = 1000, 0..=1_000_000;
        /// Connections over all torrents that are being begun and that nobody has taken yet. Some
        /// routers and providers take many at a time for an attack.
        fixed half_open_max: u32 = 256, 1..=65_536;
        /// Connections of one torrent that are being begun at a time.
        fixed connecting_max: u32 = 16, 1..=1000;
        /// Seconds that a peer has to take a connection that we begin.
        fixed connect_timeout_s: Seconds = Seconds(10), 1..=120;
        /// Requests that one peer is sent at most, whatever it would take: 16 KiB each.
        fixed requests_per_peer_max: u32 = 8192, 4..=65_536;
        /// Who gets upload slots. "tit-for-tat" gives them to those who give most, and some by chance;
        /// "datacenter" to everybody, and fetches whole pieces from few peers each, for hosts that all
        /// work for one owner.
        fixed policy: LeechPolicy = LeechPolicy::TitForTat;
    }
}

choices! {
    /// Who must show the HTTP API who they are.
    ApiAuth {
        /// All but those who come by the Unix socket.
        Auto = "auto",
        /// All.
        Required = "required",
        /// Nobody.
        Off = "off",
    }
}

section! {
    /// The HTTP port: the API below /api/v1 (docs/API.md), and /metrics, /healthz, /readyz, which ask
    /// for no password.
    Api {
        /// Address and port; "" turns it off. Where others can reach it, give it tls_cert and tls_key, or
        /// a proxy that speaks TLS in front of it: the token is sent with each request.
        fixed listen: Option<SocketAddr> = Some(SocketAddr::V4(
            SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8690),
        ));
        /// Names by which clients may call this server, in the Host header. Loopback names and IP
        /// addresses are always allowed; any other name is answered with 403, so that a web page
        /// cannot reach us through its own DNS name.
        live allowed_hosts: Vec<String> = Vec::new(), 0..=64;
        /// Connections at a time; more are closed at once. The Unix socket takes 64 of its own.
        fixed connections_max: u32 = 256, 1..=65_536;
        /// Who must show who they are: by the token that the first start leaves in the state folder
        /// (api-token, mode 0600), sent as "Authorization: Bearer TOKEN", or by a name and a password of
        /// users. "auto" asks all who come over TCP, "required" those who come by the Unix socket too,
        /// "off" nobody: whoever reaches the port may then remove torrents and files. A reload reads
        /// the token again, too, or makes one if the file is gone.
        live auth: ApiAuth = ApiAuth::Auto;
        /// Names and passwords for HTTP's Basic, each "NAME:HASH" with an argon2 hash, as `seedring
        /// hash-password NAME` makes it. In the environment they are parted by blanks.
        live users: ApiUsers = ApiUsers::default(), 0..=64;
        /// The Unix socket of the API. "auto" is api.sock in the state folder. Who can open it may do
        /// all unless auth is "required", so its mode is 0600, for the server's user and root.
        fixed socket: ApiSocket = ApiSocket::InStateDir, 0..=107;
        /// A group, by name or number, the members of which may open the socket too: its mode is 0660
        /// then. "" for none.
        fixed socket_group: String = String::new(), 0..=64;
        /// The certificate chain of the port, in PEM; with tls_key the port speaks TLS only. Both are
        /// read at the start and again at each reload; connections that are open go on.
        live tls_cert: Option<PathBuf> = None;
        /// Its key, in PEM.
        live tls_key: Option<PathBuf> = None;
        /// The longest body of a request that adds a torrent; others may have 1 MiB. Two longer ones are
        /// read at a time, each may take three times its length of memory.
        fixed body_max: ByteSize = ByteSize::mib(64), 1_048_576..=1_073_741_824;
    }
}

section! {
    /// The tracker that this server can be for others. `seedring seed` turns it on by itself.
    Tracker {
        /// Run it.
        fixed enabled: bool = false;
        /// IPv4 address and port to listen on; "" turns IPv4 off.
        fixed listen_v4: Option<SocketAddrV4> = Some(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 6969));
        /// IPv6 address and port to listen on; "" turns IPv6 off.
        fixed listen_v6: Option<SocketAddrV6> = Some(
            SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, 6969, 0, 0),
        );
        /// Answer over UDP too (BEP 15), at the same addresses and ports. It takes a small part of the
        /// work that HTTP takes.
        fixed udp: bool = true;
        /// Networks and the zone, such as a rack or a site, that each is in. Peers are given those of
        /// their own zone first, so that less goes between zones. The longest prefix decides. After a
        /// reload, who asks goes by it at once, and peers that are known from their next announce.
        live zones: Vec<LabelledNetwork> = Vec::new(), 0..=4096;
        /// Serve any torrent that a client announces. Off, it serves only torrents that are loaded
        /// here, so that strangers cannot use it as their own.
        fixed open: bool = false;
        /// Host name or address that clients reach it by, written into torrents and magnet links.
        /// No scheme, no port. "" takes this machine's own address: that of peers.bind_interface if one
        /// is named, which must have one at the start then; else that by which it reaches others, or
        /// where no route leads out, one that is up: global, private, or loopback with a warning.
        fixed announce_host: HostName = HostName::default();
        /// Seconds between two announces that clients are asked to keep to.
        fixed interval_s: Seconds = Seconds(1800), 60..=86_400;
        /// Peers held of a torrent in each address family; beyond it a new peer takes the place of
        /// a random one.
        fixed peers_per_torrent_max: u32 = 10_000, 1..=1_000_000;
        /// Torrents held; beyond it a new one is refused. It matters for an open tracker only.
        fixed torrents_max: u32 = 100_000, 1..=10_000_000;
        /// Connections at a time; more are closed at once.
        fixed connections_max: u32 = 4096, 1..=1_000_000;
    }
}

section! {
    /// Announces to the trackers of our torrents.
    Announce {
        /// Announce at all. Without it peers find us only by other means.
        fixed enabled: bool = true;
        /// Allow trackers on loopback, private and link-local addresses. Off, a torrent of a
        /// stranger cannot make us send requests into our own network. The trackers of "seed" and
        /// "get" that you name yourself, or by a .torrent file that you have, are asked either way;
        /// those of a magnet link, too, if nothing follows the port in their URLs but /announce.
        fixed allow_private_trackers: bool = false;
        /// Announces per second to one tracker host. Thousands of torrents must not hit it at once.
        live rate_per_host: u32 = 10, 1..=10_000;
        /// Requests to trackers in flight at a time, over HTTP and UDP.
        live requests_max: u32 = 64, 1..=10_000;
        /// What we call ourselves; "" is Seedring with its version. Some private trackers list the
        /// clients that they allow.
        fixed user_agent: String = String::new(), 0..=100;
        /// Seconds that the announces of our stop may take in all before we exit anyway.
        live stop_timeout_s: Seconds = Seconds(5), 1..=9;
        /// Seconds between two scrapes of a torrent, which ask its trackers for their counts of seeds,
        /// peers and completed downloads, many torrents in one request; 0 turns them off.
        fixed scrape_interval_s: Seconds = Seconds(1800), 0..=86_400;
        /// Proxy for all requests to trackers: "http://host:port", "https://host:port" (which is spoken
        /// to over TLS) or "socks5://host:port", with "user:password@" before the host if it wants that.
        /// It also resolves their names, with "socks5h://" as with "socks5://". UDP trackers, and URLs
        /// that `get` is given, are then not asked, because that would go past it. Peers are connected
        /// to directly all the same. "" uses none.
        fixed proxy: ProxyUrl = ProxyUrl::default(), 0..=500;
        /// Files of certificates in PEM to trust beside those of the system, for https trackers, and web
        /// servers that `get` has a torrent from, whose authority is your own. A file that cannot be
        /// read, or that holds none, stops the start.
        fixed ca_files: Vec<PathBuf> = Vec::new(), 0..=64;
        /// Ask trackers, and the web server that `get` has a torrent from, only by this network
        /// interface, such as "wg0"; "" is any. When it is gone, none is asked until it is back. Names
        /// are resolved as the system does it, peers are met by peers.bind_interface, and the tracker
        /// here listens at tracker.listen_v4 and listen_v6: what must not leave but by a tunnel needs
        /// all of them, or a network namespace that has nothing else.
        fixed bind_interface: Interface = Interface::default();
        /// Ask trackers only from this IPv4 address; "" is any. With an address of one family only, the
        /// other family is not used.
        fixed bind_v4: Option<Ipv4Addr> = None;
        /// Ask trackers only from this IPv6 address; "" is any.
        fixed bind_v6: Option<Ipv6Addr> = None;
    }
}

section! {
    /// Local discovery (BEP 14): tells hosts of this network by multicast which torrents we have,
    /// and finds those that have them. Private torrents are never told, but `seedring get` with a
    /// magnet link asks for its hash, as others do, before anybody can know whether it is one.
    Lsd {
        /// Do it. Off by default, as a server expects: in a rented rack the neighbours are
        /// strangers, to whom it would name all torrents, and providers take multicast for a
        /// fault. Turn it on where the network is your own: at home, or in a rack whose hosts
        /// fetch the same data.
        fixed enabled: bool = false;
        /// The interfaces on which it is done; [] takes peers.bind_interface, or else that of the
        /// default route.
        fixed interfaces: Interfaces = Interfaces::default(), 0..=16;
    }
}

section! {
    /// The DHT (BEP 5): finding peers, and being found, without a tracker. Private torrents never
    /// take part.
    Dht {
        /// Take part in it. Off, peers are found by trackers, by each other, by local discovery and by
        /// name. It listens on the peers' addresses, or on announce.bind_v4 and announce.bind_v6
        /// where one is set and peers.bind_interface is not; with that, or else with
        /// announce.bind_interface, it goes by that interface alone, and with announce.proxy it is off,
        /// since it would go past it. What it is bound to and is not there is tried again until it is;
        /// peers are told of a node that was there at the start only.
        fixed enabled: bool = true;
        /// UDP port; 0 takes the number of the peers' port, or any if another program has that one.
        /// Open it in the firewall like the peers' port.
        fixed port: u16 = 0;
        /// Nodes to begin with, "HOST:PORT". They are asked at the start and whenever hardly any
        /// other node is known; those of the last run are asked first.
        fixed bootstrap: Nodes = bootstrap(), 0..=64;
        /// Ask others but answer nobody (BEP 43): for a host that cannot be reached from outside.
        /// `seedring get` always does.
        fixed read_only: bool = false;
        /// Seconds after which a torrent is announced again. Other nodes forget it after 30 to 45
        /// minutes.
        fixed announce_interval_s: Seconds = Seconds(1200), 60..=3600;
        /// Queries sent per second, over IPv4 and over IPv6 each. An announce takes about 40; with
        /// more torrents than this allows in an interval, the interval grows.
        fixed queries_per_second: u32 = 250, 10..=100_000;
        /// Answers to other nodes in a second, over IPv4 and over IPv6 each; what exceeds it is not
        /// answered.
        fixed reply_bytes_per_second: ByteSize = ByteSize::kib(64), 2048..=1_073_741_824;
        /// Peers of other torrents that are stored for others, over IPv4 and over IPv6 each. They
        /// take about 150 bytes each.
        fixed stored_peers_max: u32 = 32_768, 100..=10_000_000;
    }
}

/// The nodes that are known for letting anybody in.
fn bootstrap() -> Nodes {
    let nodes = [
        "dht.libtorrent.org:25401",
        "router.bittorrent.com:6881",
        "dht.transmissionbt.com:6881",
        "router.utorrent.com:6881",
    ];
    Nodes(nodes.map(str::to_owned).to_vec())
}

choices! {
    /// How log lines look.
    LogFormat {
        /// For people, in colour on a terminal.
        Human = "human",
        /// One JSON object a line.
        Json = "json",
        /// To the systemd journal with its fields.
        Journald = "journald",
    }
    /// The least important level that is logged.
    LogLevel {
        /// Nothing.
        Off = "off",
        /// What failed.
        Error = "error",
        /// What an operator should look at.
        Warn = "warn",
        /// What happens to the server as a whole.
        Info = "info",
        /// What happens to single peers and requests.
        Debug = "debug",
        /// Everything.
        Trace = "trace",
    }
}

section! {
    /// The log, on stderr or in the journal.
    Log {
        /// "human", "json" (one object a line) or "journald" (to the journal, with fields).
        fixed format: LogFormat = LogFormat::Human;
        /// The least important level that is logged. RUST_LOG overrides it, also per module, and then a
        /// reload does not change it.
        live level: LogLevel = LogLevel::Info;
    }
}

impl AtLimit {
    /// All that can be done.
    pub(crate) const ALL: [AtLimit; 3] = [AtLimit::Pause, AtLimit::Remove, AtLimit::RemoveWithData];
}

choices! {
    /// What is done with a torrent that has given enough.
    AtLimit {
        /// It is paused.
        Pause = "pause",
        /// It is removed, and its data stay.
        Remove = "remove",
        /// It is removed with its data.
        RemoveWithData = "remove-with-data",
    }
}

section! {
    /// Torrents that are added to a running `serve`, by its API and its command line, and kept.
    Library {
        /// Folder that data come into when nobody named one; an absolute path. "" takes the
        /// folder "downloads" in the state's.
        live save_path: Option<PathBuf> = None;
        /// Folders that data of a category come into when nobody named one, "CATEGORY: /ABSOLUTE/PATH".
        live category_paths: Vec<CategoryPath> = Vec::new(), 0..=1000;
        /// Folders that data may be in, and in those below them; [] is anywhere. Where a folder really is
        /// counts, whatever links and ".." lead there, and is asked at each use: of what is added by the
        /// API, by the command line or by watch folders, and of moves. What is outside is refused, and a
        /// torrent that is kept outside is told of, offline and not touched until its folder is inside:
        /// neither served, downloaded, renamed nor deleted with its data. [[torrent]] and [[seed]] are
        /// not bound by it. save_path, those of categories and of watch folders must be inside.
        live roots: Vec<PathBuf> = Vec::new(), 0..=64;
        /// Downloads at a time, magnet links that are looked up among them; others wait in the
        /// queue. 0 is no limit.
        live downloads_max: u32 = 20, 0..=100_000;
        /// Seconds after which a download that has got nothing gives its turn to others that wait:
        /// long enough for trackers and the DHT to name peers, and for these to be tried. While
        /// the turns of a download are in vain this doubles, to at most 16 times.
        live stalled_after_s: Seconds = Seconds(300), 1..=86_400;
        /// Complete torrents without peers that stay loaded; beyond it the longest unused is loaded
        /// again when a peer comes, which takes some milliseconds. Each takes some 20 KiB for a
        /// thousand pieces.
        live awake_max: u32 = 1000, 1..=1_000_000;
        /// Seconds after which a complete torrent without peers is not kept loaded.
        live idle_min_s: Seconds = Seconds(300), 1..=86_400;
        /// Bytes sent for a thousand of a complete torrent's, after which at_limit is done with it,
        /// unless it, its label or its category has another limit: 2000 is a ratio of 2. 0 is no limit.
        live ratio_permille: u32 = 0, 0..=1_000_000_000;
        /// Seconds that a complete torrent is seeded, after which at_limit is done with it, unless it,
        /// its label or its category has another limit. 0 is no limit.
        live seeding_time_s: Seconds = Seconds(0), 0..=1_000_000_000;
        /// What is done with a torrent that has reached its ratio or time.
        live at_limit: AtLimit = AtLimit::Pause;
    }
}

section! {
    /// What the server remembers.
    State {
        /// Folder of the state. "" takes $STATE_DIRECTORY (set by systemd), else /var/lib/seedring
        /// for root, else $XDG_STATE_HOME/seedring or ~/.local/state/seedring.
        fixed dir: Option<PathBuf> = None;
    }
}
