//! The same load by HTTP/1.1: every peer asks a web server for ranges of one file, a piece each.
//!
//! A web server that uses sendfile has no block headers to interleave and no requests of 16 KiB to
//! read: it is the floor that a seed can be measured against. Requests are pipelined, so that as
//! many bytes are under way as a leecher has. The window, the CPU accounting and the discard mode
//! are those of [`super::worker`]. It knows what nginx answers to a range, no more of HTTP: no
//! chunks, no redirects.

use std::collections::VecDeque;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use rustix::time::Timespec;
use sha1::{Digest, Sha1};
use socket2::SockRef;

use super::blocks::{Deck, Geometry, Random};
use super::connection::{End, SCRATCH_BYTES, SocketSettings, open_socket};
use super::latency::Latency;
use super::leecher::{Role, Tally};
use super::shared::{LoadError, Shared};
use super::verify::Expected;
use super::worker::{PeerResult, WorkerResult};
use super::{Outcome, Plan};
use crate::measure::ThreadSample;

/// The longest head of an answer that is read.
const HEAD_BYTES_MAX: usize = 4 << 10;

/// The bytes that one connection may take per wake-up, as in [`super::connection`].
const READ_BYTES_MAX: usize = 256 << 10;

/// How often reconnects are looked at.
const TICK_NS: u64 = 10_000_000;

/// The pause before connecting again.
const RETRY_NS: u64 = 100_000_000;

/// Runs `plan` against a web server whose file at `path` (as it stands in a URL) is the torrent's
/// content. Only measured peers in closed loop.
pub fn run(plan: &Plan, path: &str) -> Result<Outcome, LoadError> {
    let settings = Arc::new(Settings {
        socket: plan.socket.clone(),
        path: path.to_owned(),
        geometry: plan.settings.geometry,
        expected: plan.settings.expected.clone(),
        deck: plan.settings.deck.clone(),
        pipelined: pipelined(plan),
    });
    super::run_with(plan, |thread, shared| {
        let mine = (0..plan.peers).filter(|peer| peer % plan.threads == thread);
        let connections = mine.map(|peer| {
            let local = match plan.local_addresses.len() {
                0 => None,
                count => Some(plan.local_addresses[peer % count]),
            };
            let seed = plan.random_seed ^ (peer as u64 + 1).wrapping_mul(0xd6e8_feb8_6659_fd93);
            Connection::new(local, Random::new(seed))
        });
        let connections = connections.collect();
        let system = |errno: Errno| LoadError::System {
            operation: "create an epoll set",
            source: errno.into(),
        };
        let worker = Worker {
            shared: Arc::clone(shared),
            settings: Arc::clone(&settings),
            epoll: epoll::create(CreateFlags::CLOEXEC).map_err(system)?,
            connections,
            latency: Latency::default(),
            window: None,
            next_tick_ns: 0,
            first_end: None,
        };
        super::start_thread(plan, thread, shared, move || worker.run())
    })
}

/// Ranges that a connection keeps under way: as many bytes as a leecher's pipeline, and one more,
/// so that the server never waits while the last bytes of a range travel.
fn pipelined(plan: &Plan) -> usize {
    let pipeline_bytes = plan.settings.depth as u64 * u64::from(plan.settings.block_bytes);
    let range_bytes = u64::from(plan.settings.geometry.piece_length);
    pipeline_bytes.div_ceil(range_bytes.max(1)) as usize + 1
}

/// What all connections of a run have in common.
struct Settings {
    socket: SocketSettings,
    path: String,
    geometry: Geometry,
    expected: Option<Arc<Expected>>,
    deck: Option<Arc<Deck>>,
    pipelined: usize,
}

/// A range that was asked for.
struct Asked {
    piece: u32,
    at_ns: u64,
}

/// A connection with its requests. The fields of a stream are reset when it ends.
struct Connection {
    local: Option<IpAddr>,
    random: Random,
    socket: Option<OwnedFd>,
    connecting: bool,
    interest: EventFlags,
    out: Vec<u8>,
    sent: usize,
    asked: VecDeque<Asked>,
    /// Bytes of the answer under way that have not arrived; 0 when a head comes next.
    body_left: u64,
    hasher: Option<Sha1>,
    tally: Tally,
    connected_ns: Option<u64>,
    retry_ns: u64,
    disconnects: u64,
    reconnects: u64,
}

impl Connection {
    fn new(local: Option<IpAddr>, random: Random) -> Self {
        Self {
            local,
            random,
            socket: None,
            connecting: false,
            interest: EventFlags::empty(),
            out: Vec::new(),
            sent: 0,
            asked: VecDeque::new(),
            body_left: 0,
            hasher: None,
            tally: Tally::default(),
            connected_ns: None,
            retry_ns: 0,
            disconnects: 0,
            reconnects: 0,
        }
    }

    fn connect(&mut self, settings: &Settings, epoll: &OwnedFd, at: u64) -> Result<(), End> {
        let socket = open_socket(&settings.socket, self.local).map_err(End::Connect)?;
        match socket.connect(&settings.socket.address.into()) {
            Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => {
                return Err(End::Connect(error));
            }
            _ => {}
        }
        let socket = OwnedFd::from(socket);
        self.interest = EventFlags::OUT;
        epoll::add(epoll, &socket, EventData::new_u64(at), self.interest)
            .map_err(|errno| End::Connect(errno.into()))?;
        self.socket = Some(socket);
        self.connecting = true;
        Ok(())
    }

    fn ready(
        &mut self,
        settings: &Settings,
        scratch: &mut [u8],
        shared: &Shared,
        latency: &mut Latency,
    ) -> Result<(), End> {
        let Some(socket) = &self.socket else {
            return Ok(());
        };
        if self.connecting {
            match SockRef::from(socket).take_error() {
                Ok(None) => {}
                Ok(Some(error)) | Err(error) => return Err(End::Connect(error)),
            }
            self.connecting = false;
            self.connected(shared);
        }
        self.read(settings, scratch, shared, latency)
    }

    /// The first time counts for the run's progress: a web server is ready to serve at once.
    fn connected(&mut self, shared: &Shared) {
        if self.connected_ns.is_some() {
            self.reconnects += 1;
            return;
        }
        self.connected_ns = Some(shared.clock.now_ns());
        for count in [
            &shared.connected,
            &shared.greeted,
            &shared.offered,
            &shared.unchoked,
        ] {
            count.fetch_add(1, Ordering::Release);
        }
    }

    fn read(
        &mut self,
        settings: &Settings,
        scratch: &mut [u8],
        shared: &Shared,
        latency: &mut Latency,
    ) -> Result<(), End> {
        let mut budget = READ_BYTES_MAX;
        while budget > 0 {
            let Some(socket) = &self.socket else {
                return Ok(());
            };
            if self.body_left == 0 {
                match read_head(socket, &mut scratch[..HEAD_BYTES_MAX])? {
                    Some(length) => self.begin_body(length, settings)?,
                    None => return Ok(()),
                }
                continue;
            }
            let wanted = (self.body_left as usize).min(scratch.len()).min(budget);
            let mut flags = RecvFlags::DONTWAIT;
            flags.set(RecvFlags::TRUNC, settings.socket.discard);
            let count = match rustix::net::recv(socket, &mut scratch[..wanted], flags) {
                Ok((_, 0)) => return Err(End::Closed),
                Ok((_, count)) => count.min(wanted),
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(End::Broken(errno)),
            };
            if let Some(hasher) = &mut self.hasher {
                hasher.update(&scratch[..count]);
            }
            self.tally.payload_bytes += count as u64;
            self.body_left -= count as u64;
            budget -= count;
            if self.body_left == 0 {
                self.end_body(settings, shared.clock.now_ns(), latency);
            }
        }
        Ok(())
    }

    fn begin_body(&mut self, length: u64, settings: &Settings) -> Result<(), End> {
        let wanted = self.asked.front().map(|asked| asked.piece);
        let wanted = wanted.map(|piece| u64::from(settings.geometry.length_of(piece)));
        if wanted != Some(length) {
            return Err(End::Answer(format!(
                "an answer of {length} B where {wanted:?} were asked for"
            )));
        }
        self.body_left = length;
        self.hasher = settings.expected.as_ref().map(|_| Sha1::new());
        Ok(())
    }

    fn end_body(&mut self, settings: &Settings, now_ns: u64, latency: &mut Latency) {
        let Some(asked) = self.asked.pop_front() else {
            return;
        };
        self.tally.blocks += 1;
        latency.record_ns(now_ns.saturating_sub(asked.at_ns));
        if let (Some(hasher), Some(expected)) = (self.hasher.take(), &settings.expected) {
            let digest: [u8; 20] = hasher.finalize().into();
            if expected.hashes.get(asked.piece as usize) == Some(&digest) {
                self.tally.pieces_right += 1;
            } else {
                self.tally.pieces_wrong += 1;
                self.tally.wrong_bytes += u64::from(settings.geometry.length_of(asked.piece));
            }
        }
    }

    /// Asks for more, and sends what there is to send.
    fn flush(
        &mut self,
        settings: &Settings,
        epoll: &OwnedFd,
        at: u64,
        now_ns: u64,
    ) -> Result<(), End> {
        let Some(socket) = self.socket.as_ref().filter(|_| !self.connecting) else {
            return Ok(());
        };
        while self.asked.len() < settings.pipelined {
            let dealt = settings.deck.as_ref().and_then(|deck| deck.deal());
            let piece = dealt.unwrap_or_else(|| self.random.below(settings.geometry.piece_count));
            write_request(&mut self.out, settings, piece);
            let asked = Asked {
                piece,
                at_ns: now_ns,
            };
            self.asked.push_back(asked);
        }
        while self.sent < self.out.len() {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match rustix::net::send(socket, &self.out[self.sent..], flags) {
                Ok(count) => self.sent += count,
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(End::Broken(errno)),
            }
        }
        let mut interest = EventFlags::IN;
        if self.sent == self.out.len() {
            self.out.clear();
            self.sent = 0;
        } else {
            interest |= EventFlags::OUT;
        }
        if interest != self.interest {
            epoll::modify(epoll, socket, EventData::new_u64(at), interest).map_err(End::Broken)?;
            self.interest = interest;
        }
        Ok(())
    }

    fn ended(&mut self, now_ns: u64) {
        self.disconnects += u64::from(self.socket.is_some() && !self.connecting);
        self.socket = None;
        self.connecting = false;
        self.out.clear();
        self.sent = 0;
        self.asked.clear();
        self.body_left = 0;
        self.hasher = None;
        self.retry_ns = now_ns + RETRY_NS;
    }
}

fn write_request(out: &mut Vec<u8>, settings: &Settings, piece: u32) {
    let first = u64::from(piece) * u64::from(settings.geometry.piece_length);
    let last = first + u64::from(settings.geometry.length_of(piece)) - 1;
    // Writing to a vector cannot fail.
    let _ = write!(
        out,
        "GET {} HTTP/1.1\r\nHost: bench\r\nRange: bytes={first}-{last}\r\n\r\n",
        settings.path
    );
}

/// Reads exactly the head of an answer, if all of it is there, and returns the body's length. The
/// head is looked at before it is taken, so that no byte of the body is copied with it.
fn read_head(socket: &OwnedFd, scratch: &mut [u8]) -> Result<Option<u64>, End> {
    let peek = RecvFlags::DONTWAIT | RecvFlags::PEEK;
    let seen = match rustix::net::recv(socket, &mut *scratch, peek) {
        Ok((_, 0)) => return Err(End::Closed),
        Ok((_, count)) => count,
        Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
        Err(errno) => return Err(End::Broken(errno)),
    };
    let head = &scratch[..seen];
    let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") else {
        return match seen {
            HEAD_BYTES_MAX.. => Err(End::Answer("a head of more than 4 KiB".to_owned())),
            _ => Ok(None),
        };
    };
    let length = body_length(&head[..end]).map_err(End::Answer)?;
    match rustix::net::recv(socket, &mut scratch[..end + 4], RecvFlags::DONTWAIT) {
        Ok((_, count)) if count == end + 4 => Ok(Some(length)),
        Ok((_, count)) => Err(End::Answer(format!("{count} B of a head that was whole"))),
        Err(errno) => Err(End::Broken(errno)),
    }
}

/// The length that a head tells, if the answer is a range.
fn body_length(head: &[u8]) -> Result<u64, String> {
    let text = String::from_utf8_lossy(head);
    let mut lines = text.split("\r\n");
    let status = lines.next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("206") {
        return Err(format!("{status:?}, where 206 (a range) was asked for"));
    }
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse::<u64>().ok())?
    });
    match length {
        Some(length @ 1..) => Ok(length),
        _ => Err("an answer without Content-Length".to_owned()),
    }
}

/// One thread of the load; see [`super::worker::Worker`], of which this is the HTTP half.
struct Worker {
    shared: Arc<Shared>,
    settings: Arc<Settings>,
    epoll: OwnedFd,
    connections: Vec<Connection>,
    latency: Latency,
    window: Option<(u64, ThreadSample)>,
    next_tick_ns: u64,
    first_end: Option<String>,
}

impl Worker {
    fn run(mut self) -> Result<WorkerResult, LoadError> {
        let mut scratch = vec![0; SCRATCH_BYTES];
        let nothing = Event {
            flags: EventFlags::empty(),
            data: EventData::new_u64(0),
        };
        let mut events = [nothing; 256];
        let timeout = Timespec {
            tv_sec: 0,
            tv_nsec: TICK_NS as i64,
        };
        loop {
            let now_ns = self.shared.clock.now_ns();
            if now_ns >= self.shared.end_ns.load(Ordering::Acquire) {
                return self.finish(now_ns);
            }
            if self.window.is_none() && now_ns >= self.shared.start_ns.load(Ordering::Acquire) {
                self.begin_window(now_ns)?;
            }
            if now_ns >= self.next_tick_ns {
                self.tick(now_ns);
            }
            let count = match epoll::wait(&self.epoll, &mut events, Some(&timeout)) {
                Ok(count) => count,
                Err(Errno::INTR) => 0,
                Err(errno) => {
                    return Err(LoadError::System {
                        operation: "wait for its sockets",
                        source: errno.into(),
                    });
                }
            };
            for event in &events[..count] {
                let at = event.data.u64();
                self.ready(at as usize, &mut scratch);
            }
        }
    }

    fn tick(&mut self, now_ns: u64) {
        self.next_tick_ns = now_ns + TICK_NS;
        for at in 0..self.connections.len() {
            let connection = &mut self.connections[at];
            if connection.socket.is_none() && connection.retry_ns <= now_ns {
                let result = connection.connect(&self.settings, &self.epoll, at as u64);
                self.settle(at, result);
            }
        }
    }

    fn ready(&mut self, at: usize, scratch: &mut [u8]) {
        let Some(connection) = self.connections.get_mut(at) else {
            return;
        };
        let result = connection.ready(&self.settings, scratch, &self.shared, &mut self.latency);
        let now_ns = self.shared.clock.now_ns();
        let result =
            result.and_then(|()| connection.flush(&self.settings, &self.epoll, at as u64, now_ns));
        self.settle(at, result);
    }

    fn settle(&mut self, at: usize, result: Result<(), End>) {
        let Err(end) = result else { return };
        let address = self.settings.socket.address;
        let nobody = self.shared.connected.load(Ordering::Relaxed) == 0;
        match &end {
            End::Connect(error) if nobody => {
                self.shared
                    .fail(if error.kind() == std::io::ErrorKind::ConnectionRefused {
                        LoadError::Refused { address }
                    } else {
                        let source = std::io::Error::new(error.kind(), error.to_string());
                        LoadError::Connect { address, source }
                    });
            }
            End::Answer(reason) => self.shared.fail(LoadError::Answer {
                address,
                reason: reason.clone(),
            }),
            _ => {}
        }
        self.connections[at].ended(self.shared.clock.now_ns());
        if self.window.is_some() {
            self.first_end.get_or_insert_with(|| end.to_string());
        }
    }

    fn begin_window(&mut self, now_ns: u64) -> Result<(), LoadError> {
        self.latency.start();
        for connection in &mut self.connections {
            connection.tally = Tally::default();
            connection.disconnects = 0;
            connection.reconnects = 0;
        }
        self.window = Some((now_ns, ThreadSample::of_this_thread()?));
        Ok(())
    }

    fn finish(mut self, now_ns: u64) -> Result<WorkerResult, LoadError> {
        let end = ThreadSample::of_this_thread()?;
        let (begin_ns, begin) = self.window.take().unwrap_or((now_ns, end));
        let peer = |connection: &Connection| PeerResult {
            tally: connection.tally,
            unchoked_ns: connection.connected_ns,
            disconnects: connection.disconnects,
            reconnects: connection.reconnects,
            role: Role::Load,
            outstanding: connection.asked.len(),
            due: 0,
            oldest_ns: connection
                .asked
                .front()
                .map_or(0, |asked| now_ns.saturating_sub(asked.at_ns)),
        };
        Ok(WorkerResult {
            peers: self.connections.iter().map(peer).collect(),
            latency: self.latency,
            lateness: Latency::default(),
            thread: end.since(&begin),
            window_ns: now_ns - begin_ns,
            first_end: self.first_end,
        })
    }
}

#[cfg(test)]
mod tests;
