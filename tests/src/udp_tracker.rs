//! UDP trackers seen from outside (BEP 15): a client that asks them, and a small tracker of the
//! tests' own for both address families, because Debian's opentracker is built for IPv4 only.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, SocketAddrV4, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What stands where later requests have the connection id.
const PROTOCOL: u64 = 0x0417_2710_1980;

/// One announce that the tracker got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announced {
    /// The torrent.
    pub info_hash: [u8; 20],
    /// 0 none, 1 completed, 2 started, 3 stopped.
    pub event: u32,
    /// Where it came from.
    pub from: SocketAddr,
    /// The port that it named.
    pub port: u16,
    /// What followed the 98 bytes of the announce.
    pub options: Vec<u8>,
}

/// A tracker on a loopback port that knows every torrent it is told of.
#[derive(Debug)]
pub struct UdpTracker {
    address: SocketAddr,
    announces: Arc<Mutex<Vec<Announced>>>,
}

impl UdpTracker {
    /// Starts it. Its thread ends with the test's process.
    pub fn start(ip: IpAddr) -> Self {
        let socket = UdpSocket::bind((ip, 0)).unwrap();
        let address = socket.local_addr().unwrap();
        let announces = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&announces);
        std::thread::spawn(move || serve(&socket, &seen));
        Self { address, announces }
    }

    /// Its announce URL.
    pub fn url(&self) -> String {
        format!("udp://{}/announce", self.address)
    }

    /// The announces so far, in order.
    pub fn announces(&self) -> Vec<Announced> {
        self.announces.lock().unwrap().clone()
    }

    /// Waits for an announce that is as wanted.
    pub fn wait_for(&self, limit: Duration, wanted: impl Fn(&Announced) -> bool) -> Announced {
        let until = Instant::now() + limit;
        loop {
            let seen = self.announces();
            if let Some(found) = seen.iter().find(|announced| wanted(announced)) {
                return found.clone();
            }
            assert!(
                Instant::now() < until,
                "no such announce in {limit:?}: {seen:?}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn serve(socket: &UdpSocket, seen: &Mutex<Vec<Announced>>) {
    const CONNECTION: [u8; 8] = *b"a secret";
    let mut swarms: HashMap<[u8; 20], Vec<SocketAddr>> = HashMap::new();
    let mut buffer = [0; 4096];
    while let Ok((length, from)) = socket.recv_from(&mut buffer) {
        let request = &buffer[..length];
        assert!(length >= 16, "a request of {length} bytes");
        let (action, transaction) = (u32_at(request, 8), &request[12..16]);
        let head = |action: u32| [&action.to_be_bytes()[..], transaction].concat();
        if action == 0 {
            assert_eq!(request[..8], PROTOCOL.to_be_bytes());
            let reply = [&head(0)[..], &CONNECTION].concat();
            socket.send_to(&reply, from).unwrap();
            continue;
        }
        assert_eq!(request[..8], CONNECTION, "the connection id");
        if action == 2 {
            let count = (length - 16) / 20;
            let reply = [&head(2)[..], &[0; 12].repeat(count)].concat();
            socket.send_to(&reply, from).unwrap();
            continue;
        }
        assert_eq!(action, 1, "the action");
        assert!(length >= 98, "an announce of {length} bytes");
        let announced = Announced {
            info_hash: request[16..36].try_into().unwrap(),
            event: u32_at(request, 80),
            from,
            port: u16::from_be_bytes([request[96], request[97]]),
            options: request[98..].to_vec(),
        };
        let peer = SocketAddr::new(from.ip(), announced.port);
        let swarm = swarms.entry(announced.info_hash).or_default();
        swarm.retain(|known| *known != peer);
        let mut reply = [&head(1)[..], &1800u32.to_be_bytes(), &[0; 8]].concat();
        for known in &*swarm {
            match known.ip() {
                IpAddr::V4(ip) => reply.extend(ip.octets()),
                IpAddr::V6(ip) => reply.extend(ip.octets()),
            }
            reply.extend(known.port().to_be_bytes());
        }
        if announced.event != 3 {
            swarm.push(peer);
        }
        seen.lock().unwrap().push(announced);
        socket.send_to(&reply, from).unwrap();
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// A socket that asks one UDP tracker.
#[derive(Debug)]
pub struct Asker {
    socket: UdpSocket,
    connection: [u8; 8],
}

impl Asker {
    /// Asks from any address.
    pub fn new(tracker: SocketAddr) -> Self {
        let any: IpAddr = match tracker {
            SocketAddr::V4(_) => [0; 4].into(),
            SocketAddr::V6(_) => [0; 16].into(),
        };
        Self::at(any, tracker)
    }

    /// Asks from an address of this host.
    pub fn at(from: IpAddr, tracker: SocketAddr) -> Self {
        let socket = UdpSocket::bind((from, 0)).unwrap();
        socket.connect(tracker).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let mut asker = Self {
            socket,
            connection: PROTOCOL.to_be_bytes(),
        };
        let reply = asker.ask(0, &[]);
        asker.connection = reply[8..].try_into().expect("a connection id");
        asker
    }

    fn ask(&self, action: u32, rest: &[u8]) -> Vec<u8> {
        let head = [&self.connection[..], &action.to_be_bytes(), b"tran"];
        self.socket.send(&[&head.concat(), rest].concat()).unwrap();
        let mut reply = vec![0; 4096];
        let length = self.socket.recv(&mut reply).unwrap();
        reply.truncate(length);
        let is_answer = length >= 16 && u32_at(&reply, 0) == action && &reply[4..8] == b"tran";
        assert!(is_answer, "{reply:?}");
        reply
    }

    /// Announces a peer that lacks something, and returns the peers of the answer, over IPv4.
    pub fn announce(
        &self,
        info_hash: &[u8; 20],
        peer_id: &[u8; 20],
        port: u16,
        wanted: u32,
    ) -> Vec<SocketAddrV4> {
        // Downloaded, left, uploaded; no event, no address, no key.
        let totals = [0_u64, 1, 0].map(u64::to_be_bytes).concat();
        let end = [&[0; 12][..], &wanted.to_be_bytes(), &port.to_be_bytes()].concat();
        let reply = self.ask(1, &[&info_hash[..], peer_id, &totals, &end].concat());
        let peers = reply[20..].as_chunks::<6>().0.iter();
        peers
            .map(|&[a, b, c, d, high, low]| {
                SocketAddrV4::new([a, b, c, d].into(), u16::from_be_bytes([high, low]))
            })
            .collect()
    }

    /// How many seeds the tracker knows of a torrent, by its answer to a scrape.
    pub fn seeds(&self, info_hash: &[u8]) -> u32 {
        let reply = self.ask(2, info_hash);
        assert_eq!(reply.len(), 20, "{reply:?}");
        u32_at(&reply, 8)
    }
}

/// How many seeds a UDP tracker knows of a torrent.
pub fn seeds(tracker: SocketAddr, info_hash: &[u8]) -> u32 {
    Asker::new(tracker).seeds(info_hash)
}
