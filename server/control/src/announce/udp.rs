//! Requests to UDP trackers (BEP 15): sockets, connection ids, repetition, and whose reply is
//! whose.
//!
//! One socket for each family serves all trackers; it is opened when it is first needed, and again
//! when sending by a bound one fails. A reply is believed only if it comes from the address that
//! was asked and carries the transaction of a request that waits, which is drawn so that nobody can
//! guess it; anything else is counted and dropped by one look into a table. Connection ids are kept
//! for their minute, by address, and shared by all torrents: who comes while one is being fetched
//! waits for it.
//!
//! Where nothing has come for [`REFUSED_AFTER`], one more datagram goes by a socket of that address
//! alone: only to such a one the kernel tells that nobody listens there (ICMP).
//!
//! A request that is not answered is repeated after 15 s, then 30 s and so on as BEP 15 says, at
//! the tracker's next address if it has several, until the caller's time is over; how long the
//! tracker is then left alone is the scheduler's matter. An id that was used before and is not
//! answered, or answered by an error that speaks of connections, is thrown away and fetched anew.
//!
//! Limits: [`CONNECTIONS_MAX`] connection ids; as many requests as callers; [`RECEIVE_BYTES`] a
//! socket. Does not: choose addresses, or know what is asked.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use proto::tracker::Failure;
use proto::tracker::udp::{
    AddressFamily, TransactionId, UdpConnectionId, UdpReply, UdpRequest, udp_reply_transaction,
};
use seedring_metrics::{ControlCells, ControlCounter};
use tokio::net::UdpSocket;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::binding::Binding;
use super::resolve::Family;

/// The first wait for a reply; it doubles with each repetition (BEP 15).
pub(super) const REPEAT_AFTER: Duration = Duration::from_secs(15);
/// After so long without a reply it is asked whether anybody listens.
const REFUSED_AFTER: Duration = Duration::from_secs(3);
/// How often it doubles at most (BEP 15).
const DOUBLINGS_MAX: u32 = 8;
/// How long a connection id is used (BEP 15).
const CONNECTION_KEPT: Duration = Duration::from_secs(60);
/// Connection ids that are kept; when full, all expired and then all are forgotten.
const CONNECTIONS_MAX: usize = 4096;
/// The longest datagram that can come.
const RECEIVE_BYTES: usize = 1 << 16;
/// How long nothing is received after receiving has failed, so that a fault does not spin.
const RECEIVE_PAUSE: Duration = Duration::from_millis(100);

/// What the system says of a host to which nothing leads.
const UNREACHABLE: [ErrorKind; 2] = [ErrorKind::HostUnreachable, ErrorKind::NetworkUnreachable];

/// See [`is_bare_head`].
const NOT_LISTED: &str = "it answered with an empty announce reply, as opentracker does for a \
                          torrent that is not on its list: add the info-hash there";

/// The UDP side of the announcer.
pub(super) struct UdpClient {
    binding: Binding,
    repeat_after: Duration,
    refused_after: Duration,
    v4: Mutex<Option<Arc<Socket>>>,
    v6: Mutex<Option<Arc<Socket>>>,
    connections: Mutex<HashMap<SocketAddr, Arc<Connection>>>,
    transactions: Transactions,
    cells: Arc<ControlCells>,
}

/// The connection id for one address; locked while one is being fetched, so that one request does
/// for all who wait.
type Connection = tokio::sync::Mutex<Option<(UdpConnectionId, Instant)>>;

/// A socket and those who wait for replies on it. Its reader ends with it.
struct Socket {
    socket: Arc<UdpSocket>,
    waiting: Arc<Waiting>,
    reader: AbortHandle,
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// Who waits for which reply from where.
#[derive(Default)]
struct Waiting(Mutex<HashMap<TransactionId, (SocketAddr, Replier)>>);

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, HashMap<TransactionId, (SocketAddr, Replier)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Replier = oneshot::Sender<Vec<u8>>;

/// Takes a request off the table when nobody waits any more.
struct Ticket<'a> {
    waiting: &'a Waiting,
    transaction: TransactionId,
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.waiting.lock().remove(&self.transaction);
    }
}

/// Numbers that follow from each other only for who knows the key, which is drawn at random: one
/// tracker must not foresee what we send to another.
struct Transactions {
    key: RandomState,
    count: AtomicU64,
}

impl Transactions {
    fn next(&self) -> TransactionId {
        let hash = self
            .key
            .hash_one(self.count.fetch_add(1, Ordering::Relaxed));
        TransactionId((hash >> 32) as u32)
    }
}

/// Why there is no reply.
#[derive(Debug)]
enum Fault {
    /// None came in time.
    Silence,
    /// We could not ask.
    Local(String),
    /// What came cannot be read.
    Garbage(String),
}

impl UdpClient {
    pub fn new(binding: Binding, cells: Arc<ControlCells>) -> UdpClient {
        UdpClient::repeating(binding, cells, REPEAT_AFTER)
    }

    /// As [`UdpClient::new`], with another first wait.
    pub fn repeating(
        binding: Binding,
        cells: Arc<ControlCells>,
        repeat_after: Duration,
    ) -> UdpClient {
        UdpClient {
            binding,
            repeat_after,
            refused_after: REFUSED_AFTER,
            v4: Mutex::new(None),
            v6: Mutex::new(None),
            connections: Mutex::new(HashMap::new()),
            transactions: Transactions {
                key: RandomState::new(),
                count: AtomicU64::new(0),
            },
            cells,
        }
    }

    /// Asks a tracker at these addresses, which are of one family, until it answers; the caller
    /// bounds the time. The reply is an announce, a scrape or an error.
    pub async fn ask(
        &self,
        addresses: &[SocketAddr],
        request: impl Fn(UdpConnectionId, TransactionId) -> Vec<u8>,
    ) -> Result<UdpReply, String> {
        let mut wait = self.repeat_after;
        for (round, address) in addresses.iter().cycle().enumerate() {
            let asked = async {
                tokio::select! {
                    reply = self.ask_once(*address, &request) => reply,
                    fault = self.refusal(*address) => Err(fault),
                }
            };
            let asked = tokio::time::timeout(wait, asked);
            match asked.await.unwrap_or(Err(Fault::Silence)) {
                Ok(reply) => return Ok(reply),
                Err(Fault::Silence) => self.forget(*address, None),
                // With several addresses, one that cannot be reached is no reason to give up.
                Err(Fault::Local(_)) if round + 1 < addresses.len() => continue,
                Err(Fault::Local(error) | Fault::Garbage(error)) => return Err(error),
            }
            if round < DOUBLINGS_MAX as usize {
                wait *= 2;
            }
        }
        Err("it has no address".to_owned())
    }

    /// Waits until the tracker's host, or the way there, says that nobody takes what is sent; for
    /// ever if nobody does.
    async fn refusal(&self, address: SocketAddr) -> Fault {
        tokio::time::sleep(self.refused_after).await;
        match self.refused_by(address).await {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                Fault::Local("no program listens at its UDP port (connection refused)".to_owned())
            }
            Err(error) if UNREACHABLE.contains(&error.kind()) => {
                Fault::Local(format!("its host cannot be reached: {error}"))
            }
            _ => std::future::pending().await,
        }
    }

    /// Sends a datagram by a socket of its own; ends with what comes back, which is not looked at,
    /// or with what the kernel says of the way.
    async fn refused_by(&self, address: SocketAddr) -> io::Result<()> {
        let family = Family::of(address.ip());
        let socket = self.binding.udp_socket(family).map_err(io::Error::other)?;
        socket.connect(address).await?;
        let transaction = self.transactions.next();
        let mut datagram = Vec::new();
        UdpRequest::Connect { transaction }.encode(&mut datagram);
        socket.send(&datagram).await?;
        socket.recv(&mut [0; 16]).await.map(drop)
    }

    /// One request, and a second with a new connection id if the tracker says that the first is
    /// stale.
    async fn ask_once(
        &self,
        address: SocketAddr,
        request: &impl Fn(UdpConnectionId, TransactionId) -> Vec<u8>,
    ) -> Result<UdpReply, Fault> {
        let socket = self.socket(address)?;
        loop {
            let (connection, fresh) = self.connection(&socket, address).await?;
            let transaction = self.transactions.next();
            let datagram = request(connection, transaction);
            let reply = self.exchange(&socket, address, transaction, &datagram);
            match reply.await? {
                UdpReply::Error { failure, .. }
                    if !fresh && is_about_connection(&failure.reason) =>
                {
                    self.forget(address, Some(connection));
                }
                UdpReply::Connect { .. } => {
                    return Err(Fault::Garbage(
                        "a connect reply to another request".to_owned(),
                    ));
                }
                reply => return Ok(reply),
            }
        }
    }

    /// The connection id for an address, and whether it was fetched just now.
    async fn connection(
        &self,
        socket: &Socket,
        address: SocketAddr,
    ) -> Result<(UdpConnectionId, bool), Fault> {
        let cell = self.cell(address);
        let mut kept = cell.lock().await;
        if let Some((connection, since)) = *kept
            && since.elapsed() < CONNECTION_KEPT
        {
            return Ok((connection, false));
        }
        *kept = None;
        let transaction = self.transactions.next();
        let mut datagram = Vec::new();
        UdpRequest::Connect { transaction }.encode(&mut datagram);
        match self
            .exchange(socket, address, transaction, &datagram)
            .await?
        {
            UdpReply::Connect { connection, .. } => {
                *kept = Some((connection, Instant::now()));
                Ok((connection, true))
            }
            UdpReply::Error { failure, .. } => {
                let reason = failure.reason;
                Err(Fault::Garbage(format!("it refuses to connect: {reason}")))
            }
            UdpReply::Announce { .. } | UdpReply::Scrape { .. } => Err(Fault::Garbage(
                "an answer to a connect request that is none".to_owned(),
            )),
        }
    }

    fn cell(&self, address: SocketAddr) -> Arc<Connection> {
        let mut connections = self.lock_connections();
        if connections.len() >= CONNECTIONS_MAX && !connections.contains_key(&address) {
            connections.retain(|_, cell| match cell.try_lock() {
                Ok(kept) => kept.is_some_and(|(_, since)| since.elapsed() < CONNECTION_KEPT),
                Err(_) => true, // being fetched
            });
            if connections.len() >= CONNECTIONS_MAX {
                connections.clear();
            }
        }
        connections.entry(address).or_default().clone()
    }

    /// Throws a connection id away: this one, if it is still the one in use, or whichever.
    fn forget(&self, address: SocketAddr, stale: Option<UdpConnectionId>) {
        let cell = self.lock_connections().get(&address).cloned();
        let Some(cell) = cell else { return };
        // While it is locked a new one is being fetched, and nothing is kept.
        if let Ok(mut kept) = cell.try_lock()
            && stale.is_none_or(|stale| kept.is_some_and(|(id, _)| id == stale))
        {
            *kept = None;
        }
    }

    fn lock_connections(&self) -> MutexGuard<'_, HashMap<SocketAddr, Arc<Connection>>> {
        let connections = self.connections.lock();
        connections.unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a request and waits for its reply, for ever.
    async fn exchange(
        &self,
        socket: &Socket,
        address: SocketAddr,
        transaction: TransactionId,
        datagram: &[u8],
    ) -> Result<UdpReply, Fault> {
        let (replier, reply) = oneshot::channel();
        let waiting = &*socket.waiting;
        waiting.lock().insert(transaction, (address, replier));
        let ticket = Ticket {
            waiting,
            transaction,
        };
        if let Err(error) = socket.socket.send_to(datagram, address).await {
            if self.binding.is_bound() {
                // What it was bound to may be gone, and may come back as another.
                self.replace(address, socket);
            }
            return Err(Fault::Local(format!("cannot send to the tracker: {error}")));
        }
        let Ok(datagram) = reply.await else {
            return Err(Fault::Local("the socket was closed".to_owned()));
        };
        drop(ticket);
        if is_bare_head(&datagram) {
            return Ok(UdpReply::Error {
                transaction,
                failure: Failure {
                    reason: NOT_LISTED.to_owned(),
                    retry_in: None,
                },
            });
        }
        let reply = UdpReply::decode(&datagram, AddressFamily::of(address));
        reply.map_err(|error| Fault::Garbage(format!("its answer is {error}")))
    }

    /// The socket of an address's family.
    fn socket(&self, address: SocketAddr) -> Result<Arc<Socket>, Fault> {
        let mut slot = self.slot(address);
        if let Some(socket) = &*slot {
            return Ok(socket.clone());
        }
        let family = Family::of(address.ip());
        let socket = self.binding.udp_socket(family).map_err(Fault::Local)?;
        let (socket, waiting) = (Arc::new(socket), Arc::new(Waiting::default()));
        let read = read(socket.clone(), waiting.clone(), self.cells.clone());
        let reader = tokio::spawn(read).abort_handle();
        let opened = Arc::new(Socket {
            socket,
            waiting,
            reader,
        });
        *slot = Some(opened.clone());
        Ok(opened)
    }

    /// Forgets a socket that failed; those who wait for replies on it keep it until they are done.
    fn replace(&self, address: SocketAddr, failed: &Socket) {
        let mut slot = self.slot(address);
        if slot
            .as_ref()
            .is_some_and(|socket| std::ptr::eq(&**socket, failed))
        {
            *slot = None;
        }
    }

    fn slot(&self, address: SocketAddr) -> MutexGuard<'_, Option<Arc<Socket>>> {
        let slot = if address.is_ipv4() {
            &self.v4
        } else {
            &self.v6
        };
        slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hands what comes to who waits for it; what nobody waits for is counted and dropped.
async fn read(socket: Arc<UdpSocket>, waiting: Arc<Waiting>, cells: Arc<ControlCells>) {
    let mut buffer = vec![0; RECEIVE_BYTES];
    loop {
        let (length, source) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                tracing::debug!(%error, "cannot receive from UDP trackers");
                tokio::time::sleep(RECEIVE_PAUSE).await;
                continue;
            }
        };
        let datagram = buffer.get(..length).unwrap_or_default();
        match take(&waiting, source, datagram) {
            // Who asked may have given up at this moment, which is no error.
            Some(replier) => drop(replier.send(datagram.to_vec())),
            None => cells.increment(ControlCounter::UdpTrackerDatagramsIgnored),
        }
    }
}

/// Who waits for this datagram from this source.
fn take(waiting: &Waiting, source: SocketAddr, datagram: &[u8]) -> Option<Replier> {
    let transaction = udp_reply_transaction(datagram)?;
    let mut waiting = waiting.lock();
    let (asked, _) = waiting.get(&transaction)?;
    if (asked.ip(), asked.port()) != (source.ip(), source.port()) {
        return None;
    }
    waiting.remove(&transaction).map(|(_, replier)| replier)
}

/// Whether this is the head of an announce reply alone. Opentracker sends that for a torrent that
/// is not on its list: it is a refusal, and no reason to leave the tracker alone for other torrents.
fn is_bare_head(datagram: &[u8]) -> bool {
    datagram.len() == 8 && datagram.starts_with(&[0, 0, 0, 1])
}

/// Whether a tracker's error is about the connection id. There is no code for it; opentracker says
/// "Connection ID missmatch.", others use the same word.
fn is_about_connection(reason: &str) -> bool {
    let reason = reason.to_ascii_lowercase();
    reason.contains("connection") || reason.contains("connid")
}

#[cfg(test)]
pub(super) mod tests;
