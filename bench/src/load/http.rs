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

use rustix::event::epoll::EventFlags;
use sha1::{Digest, Sha1};

use super::blocks::{Deck, Geometry, Random};
use super::latency::Latency;
use super::leecher::{Role, Tally};
use super::shared::{Clock, LoadError};
use super::stream::{End, READ_BYTES_MAX, SocketSettings, Stream, Taking};
use super::verify::Expected;
use super::worker::{Peer, PeerResult, Progress};
use super::{Outcome, Plan};

/// The longest head of an answer that is read.
const HEAD_BYTES_MAX: usize = 4 << 10;

/// The pause before connecting again.
const RETRY_NS: u64 = 100_000_000;

/// Runs `plan` against a web server whose file at `path` (as it stands in a URL) is the torrent's
/// content. Only measured peers in closed loop.
pub fn run(plan: &Plan, path: &str) -> Result<Outcome, LoadError> {
    let socket = Arc::new(plan.socket.clone());
    let settings = Arc::new(Settings {
        path: path.to_owned(),
        geometry: plan.settings.geometry,
        expected: plan.settings.expected.clone(),
        deck: plan.settings.deck.clone(),
        pipelined: pipelined(plan),
    });
    super::run_with(plan, |thread, shared| {
        let mine = (0..plan.peers).filter(|peer| peer % plan.threads == thread);
        let connections = mine.map(|peer| {
            let random = Random::new(plan.random_seed_of(peer));
            let local = plan.local_address_of(peer);
            Connection::new(Arc::clone(&settings), Arc::clone(&socket), local, random)
        });
        super::spawn(plan, thread, shared, connections.collect(), None)
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
    settings: Arc<Settings>,
    random: Random,
    stream: Stream,
    asked: VecDeque<Asked>,
    /// What has arrived of a head that is not whole yet.
    head: Vec<u8>,
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
    fn new(
        settings: Arc<Settings>,
        socket: Arc<SocketSettings>,
        local: Option<IpAddr>,
        random: Random,
    ) -> Self {
        Self {
            settings,
            random,
            stream: Stream::new(socket, local),
            asked: VecDeque::new(),
            head: Vec::new(),
            body_left: 0,
            hasher: None,
            tally: Tally::default(),
            connected_ns: None,
            retry_ns: 0,
            disconnects: 0,
            reconnects: 0,
        }
    }

    fn read(
        &mut self,
        scratch: &mut [u8],
        clock: &Clock,
        latency: &mut Latency,
    ) -> Result<(), End> {
        let taking = match self.stream.discards() {
            true => Taking::Drop,
            false => Taking::Copy,
        };
        let mut budget = READ_BYTES_MAX;
        while budget > 0 {
            if self.body_left == 0 {
                match read_head(&self.stream, &mut self.head, scratch)? {
                    Some(length) => self.begin_body(length)?,
                    None => return Ok(()),
                }
                continue;
            }
            let wanted = (self.body_left as usize).min(scratch.len()).min(budget);
            let Some(count) = self.stream.receive(&mut scratch[..wanted], taking)? else {
                return Ok(());
            };
            if let Some(hasher) = &mut self.hasher {
                hasher.update(&scratch[..count]);
            }
            self.tally.payload_bytes += count as u64;
            self.body_left -= count as u64;
            budget -= count;
            if self.body_left == 0 {
                self.end_body(clock.now_ns(), latency);
            }
        }
        Ok(())
    }

    fn begin_body(&mut self, length: u64) -> Result<(), End> {
        let settings = &self.settings;
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

    fn end_body(&mut self, now_ns: u64, latency: &mut Latency) {
        let Some(asked) = self.asked.pop_front() else {
            return;
        };
        self.tally.blocks += 1;
        latency.record_ns(now_ns.saturating_sub(asked.at_ns));
        if let (Some(hasher), Some(expected)) = (self.hasher.take(), &self.settings.expected) {
            let digest: [u8; 20] = hasher.finalize().into();
            if expected.hashes.get(asked.piece as usize) == Some(&digest) {
                self.tally.pieces_right += 1;
            } else {
                self.tally.pieces_wrong += 1;
                let length = self.settings.geometry.length_of(asked.piece);
                self.tally.wrong_bytes += u64::from(length);
            }
        }
    }

    /// Asks for ranges until as many are under way as may be.
    fn ask(&mut self, at_ns: u64) {
        let settings = &self.settings;
        while self.asked.len() < settings.pipelined {
            let dealt = settings.deck.as_ref().and_then(|deck| deck.deal());
            let piece = dealt.unwrap_or_else(|| self.random.below(settings.geometry.piece_count));
            write_request(&mut self.stream.out, settings, piece);
            self.asked.push_back(Asked { piece, at_ns });
        }
    }
}

impl Peer for Connection {
    fn is_load(&self) -> bool {
        true
    }

    fn is_connecting(&self) -> bool {
        self.stream.is_connecting()
    }

    fn wants_to_connect(&self, now_ns: u64) -> bool {
        self.stream.is_closed() && self.retry_ns <= now_ns
    }

    fn connect(&mut self, epoll: &OwnedFd, index: u64, _: u64) -> Result<(), End> {
        self.stream.connect(epoll, index)
    }

    fn ready(
        &mut self,
        _: EventFlags,
        scratch: &mut [u8],
        clock: &Clock,
        latency: &mut Latency,
    ) -> Result<(), End> {
        if self.stream.connected_now()? {
            self.reconnects += u64::from(self.connected_ns.is_some());
            self.connected_ns.get_or_insert_with(|| clock.now_ns());
        }
        self.read(scratch, clock, latency)
    }

    fn flush(&mut self, epoll: &OwnedFd, index: u64, now_ns: u64) -> Result<(), End> {
        if !self.stream.is_connected() {
            return Ok(());
        }
        self.ask(now_ns);
        self.stream.send(epoll, index, true)
    }

    fn tick(&mut self, _: u64) -> Result<(), End> {
        Ok(())
    }

    fn ended(&mut self, now_ns: u64) {
        self.disconnects += u64::from(self.stream.is_connected());
        self.stream.close();
        self.asked.clear();
        self.head.clear();
        self.body_left = 0;
        self.hasher = None;
        self.retry_ns = now_ns + RETRY_NS;
    }

    /// A web server refuses nobody whom it has greeted.
    fn failures(&self) -> u32 {
        0
    }

    /// There is no open loop of ranges.
    fn schedule(&mut self, _: u64) {}

    /// A web server is ready to serve at once.
    fn progress(&self) -> Progress {
        let connected = self.connected_ns.is_some();
        Progress {
            connected,
            greeted: connected,
            offered: connected,
            unchoked: connected,
        }
    }

    fn begin_window(&mut self) {
        self.tally = Tally::default();
        self.disconnects = 0;
        self.reconnects = 0;
    }

    fn result(&mut self, now_ns: u64) -> PeerResult {
        let oldest = self.asked.front();
        PeerResult {
            tally: self.tally,
            unchoked_ns: self.connected_ns,
            disconnects: self.disconnects,
            reconnects: self.reconnects,
            role: Role::Load,
            outstanding: self.asked.len(),
            due: 0,
            oldest_ns: oldest.map_or(0, |asked| now_ns.saturating_sub(asked.at_ns)),
        }
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

/// Takes exactly the head of an answer, and returns the body's length once all of it has arrived.
///
/// Bytes are looked at before they are taken: behind the head the body begins, which the kernel may
/// be told to drop. So less than [`HEAD_BYTES_MAX`] of each body is copied needlessly. What is
/// there of a head that is not whole is taken and kept in `head`: left in the socket, it would wake
/// us again and again until the rest arrives.
fn read_head(stream: &Stream, head: &mut Vec<u8>, scratch: &mut [u8]) -> Result<Option<u64>, End> {
    let before = head.len();
    let Some(seen) = stream.receive(&mut scratch[..HEAD_BYTES_MAX - before], Taking::Peek)? else {
        return Ok(None);
    };
    head.extend_from_slice(&scratch[..seen]);
    let end = head.windows(4).position(|four| four == b"\r\n\r\n");
    head.truncate(end.map_or(head.len(), |end| end + 4));
    let taken = head.len() - before;
    if stream.receive(&mut scratch[..taken], Taking::Drop)? != Some(taken) {
        return Err(End::Answer("less of a head than was there".to_owned()));
    }
    match end {
        None if head.len() == HEAD_BYTES_MAX => {
            Err(End::Answer("a head of more than 4 KiB".to_owned()))
        }
        None => Ok(None),
        Some(end) => {
            let length = body_length(&head[..end]).map_err(End::Answer)?;
            head.clear();
            Ok(Some(length))
        }
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

#[cfg(test)]
mod tests;
