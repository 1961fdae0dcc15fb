//! A node of the DHT as a test plays it: datagrams written by hand, from a socket of its own.

use crate::bencode::{Value, decode, dictionary};
use std::cell::Cell;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// Longest wait for an answer that has to come.
const ANSWER: Duration = Duration::from_secs(20);
/// How long to wait for what should not come.
pub const SILENCE: Duration = Duration::from_millis(300);

/// A string.
pub fn bytes(content: &[u8]) -> Value {
    Value::Bytes(content.to_vec())
}

/// A query with its arguments beside `id`; `read_only` asks not to be asked back (BEP 43).
pub fn query(id: [u8; 20], method: &str, arguments: &[(&str, Value)], read_only: bool) -> Vec<u8> {
    query_by(*b"qq", id, method, arguments, read_only)
}

/// The same with a transaction id of its own.
fn query_by(
    transaction: [u8; 2],
    id: [u8; 20],
    method: &str,
    arguments: &[(&str, Value)],
    read_only: bool,
) -> Vec<u8> {
    let mut of_query = vec![("id", bytes(&id))];
    of_query.extend(arguments.iter().cloned());
    let mut message = vec![
        ("a", of(of_query)),
        ("q", bytes(method.as_bytes())),
        ("t", bytes(&transaction)),
        ("y", bytes(b"q")),
    ];
    if read_only {
        message.push(("ro", Value::Integer(1)));
    }
    of(message).encode()
}

fn of(entries: Vec<(&str, Value)>) -> Value {
    let entries = entries.into_iter();
    Value::Dictionary(
        entries
            .map(|(key, value)| (key.as_bytes().to_vec(), value))
            .collect(),
    )
}

/// A socket that speaks as a node.
#[derive(Debug)]
pub struct Node {
    /// Its id.
    pub id: [u8; 20],
    socket: UdpSocket,
    asked: Cell<u16>,
}

impl Node {
    /// A node at a free port of this address.
    pub fn at(ip: IpAddr, id: [u8; 20]) -> Self {
        let socket = UdpSocket::bind((ip, 0)).unwrap();
        Self {
            id,
            socket,
            asked: Cell::new(0),
        }
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }

    /// Sends a datagram.
    pub fn send(&self, to: SocketAddr, datagram: &[u8]) {
        self.socket.send_to(datagram, to).unwrap();
    }

    /// The next datagram, if one comes in time.
    pub fn receive(&self, limit: Duration) -> Option<(Vec<u8>, SocketAddr)> {
        let mut buffer = vec![0; 4_096];
        self.socket.set_read_timeout(Some(limit)).unwrap();
        match self.socket.recv_from(&mut buffer) {
            Ok((length, from)) => Some((buffer[..length].to_vec(), from)),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                None
            }
            // An earlier datagram met nobody.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => None,
            Err(error) => panic!("receive: {error}"),
        }
    }

    /// Asks, without being asked back, and returns the answer, with its size beside that of the
    /// query.
    pub fn ask(
        &self,
        to: SocketAddr,
        method: &str,
        arguments: &[(&str, Value)],
    ) -> (Value, usize, usize) {
        self.asked.set(self.asked.get() + 1);
        let transaction = self.asked.get().to_be_bytes();
        let asked = query_by(transaction, self.id, method, arguments, true);
        let until = Instant::now() + ANSWER;
        while Instant::now() < until {
            self.send(to, &asked);
            // A datagram may be lost also here.
            let Some((answer, from)) = self.receive(Duration::from_secs(2)) else {
                continue;
            };
            let (message, _) = decode(&answer);
            if from == to && message.get("t").is_some_and(|t| t.bytes() == transaction) {
                return (message, asked.len(), answer.len());
            }
        }
        panic!("{to} does not answer {method}");
    }

    /// Asks what another node is asked with its own query, and answers whatever is asked meanwhile
    /// as an honest node that knows nobody, for so long. Returns the queries that came.
    pub fn serve(&self, duration: Duration) -> Vec<Value> {
        let until = Instant::now() + duration;
        let mut asked = Vec::new();
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            let Some((datagram, from)) = self.receive(left.max(Duration::from_millis(1))) else {
                continue;
            };
            let (message, _) = decode(&datagram);
            if let Some(answer) = self.answer(&message) {
                self.send(from, &answer);
                asked.push(message);
            }
        }
        asked
    }

    /// What an honest node answers that knows nobody.
    fn answer(&self, message: &Value) -> Option<Vec<u8>> {
        if message.get("y")?.bytes() != b"q" {
            return None;
        }
        let reply = dictionary([("id", bytes(&self.id)), ("token", bytes(b"token"))]);
        let answer = dictionary([
            ("r", reply),
            ("t", message.get("t")?.clone()),
            ("y", bytes(b"r")),
        ]);
        Some(answer.encode())
    }

    /// Asks to be known: a ping that may be asked back, and the answer to that.
    pub fn introduce(&self, to: SocketAddr) -> bool {
        self.send(to, &query(self.id, "ping", &[], false));
        !self.serve(SILENCE).is_empty()
    }
}
