//! Local service discovery (BEP 14): tells the hosts of this network which torrents we have, and
//! hears what they have.
//!
//! [`Lsd::start`] opens a socket for each family and interface and spawns the tasks that send and
//! receive; [`LsdHandle`] may be used from anywhere. Private torrents are not the caller's to add
//! (BEP 27).
//!
//! **Policies.**
//! - *When*: each torrent at once when it is added, then every [`PERIOD`], later by up to a tenth,
//!   at random.
//! - *How much*: at most [`DATAGRAMS_PER_SECOND_MAX`] datagrams a second for each socket. As long
//!   as that does, a datagram names one torrent, since Transmission reads no more of it; else as
//!   many as it takes, up to [`INFO_HASHES_MAX`]. With more than that can tell in a period, each
//!   waits longer.
//! - *Who is heard*: what is sent to the group, no further than one hop; not what is sent to this
//!   host alone, since anybody in the world can do that. At most [`HEARD_PER_SECOND_MAX`] datagrams
//!   a second of a socket, the rest is dropped. Our own are known by their cookie.
//! - *Where*: the interface of the default route, or those that are named. One that is named may
//!   come late, and go and come again as another, as a VPN's does: it is looked for at each
//!   [`TICK`]. Where a socket is opened later than the first, all torrents are told anew.
//!
//! Limits: [`TORRENTS_MAX`] torrents. A socket that cannot be opened is told in the log once, and
//! tried again at each [`TICK`]; discovery goes on without it. Does not: follow the default route to
//! another interface while the socket on the first is open.

mod schedule;

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use engine::peer_list::PeerSource;
use engine::time::Time;
use proto::address::scope;
use proto::ids::InfoHashV1;
use proto::lsd::{Announcement, DATAGRAM_BYTES_MAX, GROUP_V4, GROUP_V6, INFO_HASHES_MAX};
use rustix::io::Errno;
use rustix::net::netdevice::name_to_index;
use schedule::Schedule;
use seedring_metrics::{ControlCells, ControlCounter};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::task::AbortHandle;

/// How often a torrent is announced (BEP 14).
pub const PERIOD: Duration = Duration::from_secs(300);

/// Datagrams that a socket sends in a second.
pub const DATAGRAMS_PER_SECOND_MAX: usize = 8;

/// Datagrams that are read of a socket in a second.
pub const HEARD_PER_SECOND_MAX: u32 = 200;

/// Torrents that are announced; further ones are not.
pub const TORRENTS_MAX: usize = 1_000_000;

/// How often it is looked what is due.
const TICK: Duration = Duration::from_secs(1);

/// How long a socket rests that cannot be read.
const REST: Duration = Duration::from_secs(5);

/// Takes the peers of a torrent that were heard of.
pub trait PeerSink: Send + Sync {
    /// Peers that `source` has named. Called on the control runtime; must not block.
    fn found(&self, peers: &[SocketAddr], source: PeerSource);
}

/// Who we are to this network.
#[derive(Clone, Debug)]
pub struct LsdConfig {
    /// The port on which peers reach us.
    pub port: NonZeroU16,
    /// Whether IPv4 and IPv6 are spoken.
    pub v4: bool,
    /// See `v4`.
    pub v6: bool,
    /// The names of the interfaces; none for that of the default route.
    pub interfaces: Vec<String>,
}

/// Starts discovery; see [`Lsd::start`].
pub struct Lsd;

impl Lsd {
    /// Opens the sockets and spawns their tasks on the current tokio runtime. They end when the
    /// last handle is dropped. Nothing is heard or told where no socket could be opened, which the
    /// log says.
    pub fn start(config: &LsdConfig, cells: Arc<ControlCells>) -> LsdHandle {
        let shared = Arc::new(Shared {
            schedule: Mutex::new(Schedule::new(fastrand::u64(..))),
            cookie: format!("{:016x}", fastrand::u64(..)),
            port: config.port,
            cells,
            start: Instant::now(),
        });
        let mut places = places(config);
        look(&mut places, &shared);
        let task = Task(tokio::spawn(tell(Arc::clone(&shared), places)).abort_handle());
        LsdHandle {
            shared,
            _task: Arc::new(task),
        }
    }
}

/// The way to discovery. Its calls take a short lock.
#[derive(Clone)]
pub struct LsdHandle {
    shared: Arc<Shared>,
    _task: Arc<Task>,
}

impl LsdHandle {
    /// Announces a torrent, which is not private, from now on, and gives the peers that are heard
    /// of to `sink`. False if there are too many.
    pub fn add(&self, info_hash: InfoHashV1, sink: Arc<dyn PeerSink>) -> bool {
        let now = self.shared.now();
        self.shared.schedule().add(info_hash, sink, now)
    }

    /// Whether a torrent is announced, and its peers are heard of.
    pub fn is_announced(&self, info_hash: InfoHashV1) -> bool {
        self.shared.schedule().sink(info_hash).is_some()
    }

    /// Announces a torrent no more.
    pub fn remove(&self, info_hash: InfoHashV1) {
        self.shared.schedule().remove(info_hash);
    }
}

/// A task that ends with this.
struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Shared {
    schedule: Mutex<Schedule>,
    cookie: String,
    port: NonZeroU16,
    cells: Arc<ControlCells>,
    start: Instant,
}

impl Shared {
    fn now(&self) -> Time {
        Time(0) + self.start.elapsed()
    }

    fn schedule(&self) -> MutexGuard<'_, Schedule> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a datagram that came from `source`.
    fn take(&self, datagram: &[u8], source: IpAddr) {
        let announcement = Announcement::parse(datagram);
        let ours = |one: &Announcement| one.cookie.as_ref() == Some(&self.cookie);
        let theirs = match announcement {
            Ok(one) if ours(&one) => return,
            Ok(one) if scope(source).is_some() => one,
            _ => return self.cells.increment(ControlCounter::LsdIgnored),
        };
        self.cells.increment(ControlCounter::LsdReceived);
        let peer = SocketAddr::new(source.to_canonical(), theirs.port.get());
        let named: HashSet<InfoHashV1> = theirs.info_hashes.into_iter().collect();
        for info_hash in named {
            let sink = self.schedule().sink(info_hash);
            if let Some(sink) = sink {
                tracing::debug!(%peer, torrent = %info_hash, "a peer in this network");
                sink.found(&[peer], PeerSource::Local);
            }
        }
    }
}

/// A socket that is in the group.
struct Door {
    socket: UdpSocket,
    group: SocketAddr,
}

/// Where discovery is done: a group on an interface.
struct Place {
    group: SocketAddr,
    /// The interface's name; none: that of the default route.
    interface: Option<String>,
    open: Option<Open>,
    /// The log says why nothing is open.
    is_told: bool,
}

/// The socket of a place, and who hears it.
struct Open {
    door: Arc<Door>,
    /// The kernel's number of the interface; 0 for that of the default route, which is not looked
    /// for again while something is open.
    index: u32,
    _hearing: Task,
}

impl Place {
    /// Opens the socket if that can be done now, and closes it if the interface has gone or is
    /// another one. True if it was opened.
    fn look(&mut self, shared: &Arc<Shared>) -> bool {
        let interface = self.interface.as_deref();
        let index = interface.map_or(Ok(0), |name| index_of(self.group, name));
        let is_same = |open: &Open| index.as_ref().is_ok_and(|index| *index == open.index);
        if self.open.as_ref().is_some_and(is_same) {
            return false;
        }
        if self.open.take().is_some() {
            self.is_told = false;
        }
        let (group, name) = (self.group, interface.unwrap_or("of the default route"));
        match index.and_then(|index| Ok((index, open(group, interface)?))) {
            Ok((index, door)) => {
                let door = Arc::new(door);
                let hearing = tokio::spawn(hear(Arc::clone(shared), Arc::clone(&door)));
                self.open = Some(Open {
                    door,
                    index,
                    _hearing: Task(hearing.abort_handle()),
                });
                self.is_told = false;
                tracing::info!(%group, interface = name, "local discovery is done there");
                true
            }
            Err(error) => {
                if !std::mem::replace(&mut self.is_told, true) {
                    tracing::warn!(
                        %group, interface = name, %error,
                        "no local discovery there; it is tried again until there is"
                    );
                }
                false
            }
        }
    }
}

/// The kernel's number of an interface.
fn index_of(group: SocketAddr, name: &str) -> io::Result<u32> {
    let socket = Socket::new(Domain::for_address(group), Type::DGRAM, Some(Protocol::UDP))?;
    interface_index(&socket, name)
}

fn places(config: &LsdConfig) -> Vec<Place> {
    let families = [
        (config.v4, SocketAddr::from(GROUP_V4)),
        (config.v6, GROUP_V6.into()),
    ];
    let interfaces: Vec<Option<String>> = match config.interfaces.is_empty() {
        true => vec![None],
        false => config.interfaces.iter().cloned().map(Some).collect(),
    };
    let spoken = families.into_iter().filter(|(is_spoken, _)| *is_spoken);
    let place = |group, interface: &Option<String>| Place {
        group,
        interface: interface.clone(),
        open: None,
        is_told: false,
    };
    spoken
        .flat_map(|(_, group)| interfaces.iter().map(move |one| place(group, one)))
        .collect()
}

/// Opens a socket for `group` on an interface.
fn open(group: SocketAddr, interface: Option<&str>) -> io::Result<Door> {
    let socket = Socket::new(Domain::for_address(group), Type::DGRAM, Some(Protocol::UDP))?;
    let index = interface.map_or(Ok(0), |name| interface_index(&socket, name))?;
    // Other clients on this host listen, too.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    if let Some(name) = interface {
        socket.bind_device(Some(name.as_bytes()))?;
    }
    match group {
        SocketAddr::V4(v4) => {
            socket.set_multicast_ttl_v4(1)?;
            let on = match interface {
                Some(_) => InterfaceIndexOrAddress::Index(index),
                None => InterfaceIndexOrAddress::Address(Ipv4Addr::UNSPECIFIED),
            };
            socket.join_multicast_v4_n(v4.ip(), &on)?;
        }
        SocketAddr::V6(v6) => {
            socket.set_only_v6(true)?;
            socket.set_multicast_hops_v6(1)?;
            socket.set_multicast_if_v6(index)?;
            socket.join_multicast_v6(v6.ip(), index)?;
        }
    }
    // To the group, so that what is sent to this host alone does not come here.
    socket.bind(&group.into())?;
    let socket = UdpSocket::from_std(socket.into())?;
    Ok(Door { socket, group })
}

/// The kernel's number of an interface, asked by way of any socket.
pub(crate) fn interface_index(socket: impl AsFd, name: &str) -> io::Result<u32> {
    name_to_index(socket, name).map_err(|error| match error {
        Errno::NODEV => io::Error::new(
            io::ErrorKind::NotFound,
            "there is no interface of that name",
        ),
        other => other.into(),
    })
}

/// Looks at all places. Where one was opened nobody has heard of anything: all is told anew.
fn look(places: &mut [Place], shared: &Arc<Shared>) {
    let mut some_opened = false;
    for place in places {
        some_opened |= place.look(shared);
    }
    if some_opened {
        shared.schedule().all_due(shared.now());
    }
}

/// Sends what is due, for ever.
async fn tell(shared: Arc<Shared>, mut places: Vec<Place>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        look(&mut places, &shared);
        if places.iter().all(|place| place.open.is_none()) {
            // What is due is told when somebody can hear it.
            continue;
        }
        let datagrams = shared.schedule().take_due(shared.now());
        for info_hashes in datagrams {
            let announcement = Announcement {
                port: shared.port,
                info_hashes,
                cookie: Some(shared.cookie.clone()),
            };
            for Open { door, .. } in places.iter().filter_map(|place| place.open.as_ref()) {
                let datagram = announcement.encode(door.group);
                match door.socket.send_to(&datagram, door.group).await {
                    Ok(_) => shared.cells.increment(ControlCounter::LsdSent),
                    // No route for a while, say; it is sent again in the next period.
                    Err(error) => {
                        shared.cells.increment(ControlCounter::LsdFailed);
                        let group = door.group;
                        tracing::debug!(%group, %error, "cannot announce here");
                    }
                }
            }
        }
    }
}

/// Takes what comes, for ever.
async fn hear(shared: Arc<Shared>, door: Arc<Door>) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX + 1];
    let (mut second, mut heard) = (Instant::now(), 0);
    loop {
        let (length, source) = match door.socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                tracing::debug!(group = %door.group, %error, "cannot hear this network");
                tokio::time::sleep(REST).await;
                continue;
            }
        };
        if second.elapsed() >= Duration::from_secs(1) {
            (second, heard) = (Instant::now(), 0);
        }
        heard += 1;
        if heard > HEARD_PER_SECOND_MAX {
            shared.cells.increment(ControlCounter::LsdIgnored);
            continue;
        }
        shared.take(buffer.get(..length).unwrap_or_default(), source.ip());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Heard(Mutex<Vec<SocketAddr>>);

    impl PeerSink for Heard {
        fn found(&self, peers: &[SocketAddr], source: PeerSource) {
            assert_eq!(source, PeerSource::Local);
            self.0.lock().unwrap().extend(peers);
        }
    }

    fn shared() -> Shared {
        Shared {
            schedule: Mutex::new(Schedule::new(1)),
            cookie: "ours".to_owned(),
            port: NonZeroU16::MIN,
            cells: seedring_metrics::Registry::new(1).control(),
            start: Instant::now(),
        }
    }

    fn datagram(hashes: &[u8], cookie: Option<&str>) -> Vec<u8> {
        let announcement = Announcement {
            port: NonZeroU16::new(6881).unwrap(),
            info_hashes: hashes.iter().map(|&byte| InfoHashV1([byte; 20])).collect(),
            cookie: cookie.map(str::to_owned),
        };
        announcement.encode(GROUP_V4.into())
    }

    #[test]
    fn peers_of_our_torrents_are_told_and_nothing_else() {
        let shared = shared();
        let sink = Arc::new(Heard::default());
        let now = shared.now();
        assert!(
            shared
                .schedule()
                .add(InfoHashV1([1; 20]), Arc::clone(&sink) as _, now)
        );
        let heard = || std::mem::take(&mut *sink.0.lock().unwrap());
        let from: IpAddr = "10.0.0.7".parse().unwrap();
        shared.take(&datagram(&[2, 1, 1], None), from);
        assert_eq!(
            heard(),
            ["10.0.0.7:6881".parse().unwrap()],
            "once, however often it is named"
        );
        shared.take(&datagram(&[2], None), from);
        shared.take(&datagram(&[1], Some("ours")), from);
        shared.take(&datagram(&[1], None), "0.0.0.0".parse().unwrap());
        shared.take(b"BT-SEARCH", from);
        assert_eq!(heard(), []);
        shared.schedule().remove(InfoHashV1([1; 20]));
        shared.take(&datagram(&[1], Some("theirs")), from);
        assert_eq!(heard(), []);
    }

    /// A place that cannot be opened for a reason that passes is tried again, told once; whenever it
    /// is opened all torrents are due.
    #[tokio::test]
    async fn a_place_is_tried_until_it_is_open_and_hears_of_all_torrents_then() {
        let shared = Arc::new(shared());
        let sink = Arc::new(Heard::default());
        let info_hash = InfoHashV1([1; 20]);
        shared.schedule().add(info_hash, sink as _, shared.now());
        let due = || shared.schedule().take_due(shared.now()).concat();
        let interface = Some("lo".to_owned());
        // No group, so that nothing can be joined, though the interface is there.
        let group = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut places = [Place {
            group,
            interface,
            open: None,
            is_told: false,
        }];
        assert_eq!(due(), [info_hash]);
        for _ in 0..2 {
            look(&mut places, &shared);
            assert!(places[0].open.is_none() && places[0].is_told);
            assert_eq!(due(), []);
        }
        places[0].group = GROUP_V4.into();
        look(&mut places, &shared);
        assert!(places[0].open.is_some() && !places[0].is_told);
        assert_eq!(due(), [info_hash]);
        look(&mut places, &shared);
        assert_eq!(due(), [], "it is open already");
        // It has gone, and come again as another.
        places[0].open.as_mut().unwrap().index += 1;
        look(&mut places, &shared);
        assert_eq!(due(), [info_hash]);
        places[0].interface = Some("absent0".to_owned());
        look(&mut places, &shared);
        assert!(places[0].open.is_none() && places[0].is_told);
    }

    #[test]
    fn an_interface_that_is_not_there_is_named() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let error = interface_index(&socket, "nosuch0").unwrap_err();
        assert!(error.to_string().contains("no interface"), "{error}");
        assert!(interface_index(&socket, "lo").unwrap() > 0);
    }
}
