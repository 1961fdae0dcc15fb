//! One leecher and its socket: connecting, reading, writing, coming back after a disconnect.
//!
//! In discard mode payload is dropped by the kernel (`recv` with MSG_TRUNC): headers are read
//! exactly, so the place in the stream is never lost and no payload byte is copied. Work per
//! wake-up is bounded by [`READ_BYTES_MAX`], so that one fast connection cannot starve the others
//! of its thread.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::latency::Latency;
use super::leecher::{Leecher, Misbehaviour, Role, Stage};
use super::shared::Clock;

/// The bytes that one connection may take per wake-up, before it asks for more and the next one
/// reads. A quarter of the usual pipeline (64 blocks of 16 KiB): a load that drained the whole of it
/// before asking again would leave the seed idle meanwhile.
const READ_BYTES_MAX: usize = 256 << 10;

/// The bytes that are read (or dropped) by one call at most.
pub const SCRATCH_BYTES: usize = 256 << 10;

/// What a slow reader takes at once; it does so every [`SLOW_READ_EVERY_NS`].
const SLOW_READ_BYTES: usize = 4 << 10;

/// How often a slow reader reads: together with [`SLOW_READ_BYTES`] that is 16 KiB/s.
const SLOW_READ_EVERY_NS: u64 = 250_000_000;

/// A connection attempt, and the wait for the seed's handshake, may take this long.
const SETUP_NS_MAX: u64 = 10_000_000_000;

/// The first pause before connecting again; it doubles with each failure in a row.
const RETRY_NS_MIN: u64 = 100_000_000;

/// The longest pause before connecting again.
const RETRY_NS_MAX: u64 = 5_000_000_000;

/// How to connect and what to do with payload; the same for all connections of a run.
#[derive(Debug, Clone)]
pub struct SocketSettings {
    /// The seed.
    pub address: SocketAddr,
    /// Whether the kernel drops payload instead of copying it to us.
    pub discard: bool,
    /// The congestion control of our sockets; the system's if none is given.
    pub congestion_control: Option<String>,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum End {
    /// It could not be made.
    #[error("the connection could not be made: {0}")]
    Connect(std::io::Error),
    /// The seed did not answer within 10 s.
    #[error("the seed did not answer within 10 s")]
    SetupTimeout,
    /// The seed closed it.
    #[error("the seed closed the connection")]
    Closed,
    /// The kernel ended it, mostly because the seed reset it.
    #[error("the connection broke: {0}")]
    Broken(Errno),
    /// The seed broke the protocol.
    #[error("the seed broke the protocol: {0}")]
    Misbehaviour(Misbehaviour),
    /// A web server answers something else than the range (HTTP load only).
    #[error("the answer was {0}")]
    Answer(String),
    /// The seed owed us blocks and sent nothing for 30 s.
    #[error("the seed owed blocks and sent nothing for 30 s")]
    Stalled,
}

/// A leecher with its socket, if it has one.
pub struct Connection {
    /// The protocol.
    pub leecher: Leecher,
    /// Connections that ended since the counts were last taken, not counting failed attempts.
    pub disconnects: u64,
    /// Connections that were made anew since the counts were last taken.
    pub reconnects: u64,
    /// When the seed unchoked this leecher first, in ns.
    pub unchoked_ns: Option<u64>,
    /// Whether it was ever connected, and ever greeted.
    pub was_connected: bool,
    /// Attempts in a row that came to nothing.
    pub failures: u32,
    local: Option<IpAddr>,
    socket: Option<OwnedFd>,
    connecting: bool,
    interest: EventFlags,
    out: Vec<u8>,
    sent: usize,
    /// When the attempt or connection began.
    since_ns: u64,
    retry_ns: u64,
    slow_read_ns: u64,
}

impl Connection {
    /// A connection that is to be made, from `local` if that is given.
    pub fn new(leecher: Leecher, local: Option<IpAddr>) -> Self {
        Self {
            leecher,
            disconnects: 0,
            reconnects: 0,
            unchoked_ns: None,
            was_connected: false,
            failures: 0,
            local,
            socket: None,
            connecting: false,
            interest: EventFlags::empty(),
            out: Vec::new(),
            sent: 0,
            since_ns: 0,
            retry_ns: 0,
            slow_read_ns: 0,
        }
    }

    /// Whether an attempt is under way.
    pub fn is_connecting(&self) -> bool {
        self.connecting
    }

    /// Whether it is time to connect.
    pub fn wants_to_connect(&self, now_ns: u64) -> bool {
        self.socket.is_none() && self.retry_ns <= now_ns
    }

    /// Begins to connect; `index` is what its events carry.
    pub fn connect(
        &mut self,
        settings: &SocketSettings,
        epoll: &OwnedFd,
        index: u64,
        now_ns: u64,
    ) -> Result<(), End> {
        let socket = self.open(settings).map_err(End::Connect)?;
        match socket.connect(&settings.address.into()) {
            Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => {
                return Err(End::Connect(error));
            }
            _ => {}
        }
        let socket = OwnedFd::from(socket);
        self.interest = EventFlags::OUT;
        epoll::add(epoll, &socket, EventData::new_u64(index), self.interest)
            .map_err(|errno| End::Connect(errno.into()))?;
        self.socket = Some(socket);
        self.connecting = true;
        self.since_ns = now_ns;
        Ok(())
    }

    fn open(&self, settings: &SocketSettings) -> std::io::Result<Socket> {
        let socket = open_socket(settings, self.local)?;
        if self.leecher.role() == Role::SlowReader {
            // Small, so that the seed feels the slowness at once.
            socket.set_recv_buffer_size(64 << 10)?;
        }
        Ok(socket)
    }

    /// Handles an event. Returns why the connection ended, if it did.
    pub fn ready(
        &mut self,
        flags: EventFlags,
        settings: &SocketSettings,
        scratch: &mut [u8],
        clock: &Clock,
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
            self.reconnects += u64::from(self.was_connected);
            self.was_connected = true;
            self.leecher.connected(clock.now_ns());
        }
        if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            self.read(settings, scratch, clock, latency)?;
        }
        if self.unchoked_ns.is_none() && self.leecher.stage() == Stage::Unchoked {
            self.unchoked_ns = Some(clock.now_ns());
        }
        Ok(())
    }

    fn read(
        &mut self,
        settings: &SocketSettings,
        scratch: &mut [u8],
        clock: &Clock,
        latency: &mut Latency,
    ) -> Result<(), End> {
        let Some(socket) = &self.socket else {
            return Ok(());
        };
        let mut budget = READ_BYTES_MAX;
        if self.leecher.role() == Role::SlowReader {
            budget = SLOW_READ_BYTES;
            self.slow_read_ns = clock.now_ns() + SLOW_READ_EVERY_NS;
        }
        while budget > 0 {
            let payload = self.leecher.payload_left() as usize;
            let drop_it = settings.discard && payload > 0;
            let (wanted, flags) = match settings.discard {
                true if drop_it => (payload, RecvFlags::DONTWAIT | RecvFlags::TRUNC),
                true => (self.leecher.bytes_wanted(), RecvFlags::DONTWAIT),
                false => (scratch.len(), RecvFlags::DONTWAIT),
            };
            let wanted = wanted.min(scratch.len()).min(budget);
            let count = match rustix::net::recv(socket, &mut scratch[..wanted], flags) {
                Ok((_, 0)) => return Err(End::Closed),
                Ok((_, count)) => count.min(wanted),
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(End::Broken(errno)),
            };
            let now_ns = clock.now_ns();
            if drop_it {
                // At most the rest of a block, which is at most 128 KiB.
                self.leecher.skipped(count as u32, now_ns, latency);
            } else {
                let result = self.leecher.received(&scratch[..count], now_ns, latency);
                result.map_err(End::Misbehaviour)?;
            }
            if count < wanted {
                return Ok(());
            }
            budget -= count;
        }
        Ok(())
    }

    /// Asks for more and sends what there is to send; adjusts what events are waited for.
    pub fn flush(&mut self, epoll: &OwnedFd, index: u64, now_ns: u64) -> Result<(), End> {
        let Some(socket) = self.socket.as_ref().filter(|_| !self.connecting) else {
            return Ok(());
        };
        self.leecher.fill(now_ns, &mut self.out);
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
        if self.leecher.role() == Role::SlowReader && now_ns < self.slow_read_ns {
            interest.remove(EventFlags::IN);
        }
        if interest != self.interest {
            epoll::modify(epoll, socket, EventData::new_u64(index), interest)
                .map_err(End::Broken)?;
            self.interest = interest;
        }
        Ok(())
    }

    /// To be called every now and then: timeouts, keep-alives, slow readers. Returns why the
    /// connection must end, if it must.
    pub fn tick(&mut self, now_ns: u64) -> Result<(), End> {
        if self.socket.is_none() {
            return Ok(());
        }
        let in_setup = self.connecting || self.leecher.stage() == Stage::AwaitingHandshake;
        if in_setup && now_ns.saturating_sub(self.since_ns) > SETUP_NS_MAX {
            return Err(End::SetupTimeout);
        }
        if !self.connecting && self.leecher.tick(now_ns) {
            return Err(End::Stalled);
        }
        Ok(())
    }

    /// Closes the socket and plans to come back. Returns the stage that the connection had reached,
    /// or none if it was never made.
    pub fn ended(&mut self, now_ns: u64) -> Option<Stage> {
        let stage = (self.socket.is_some() && !self.connecting).then(|| self.leecher.stage());
        let served = matches!(stage, Some(Stage::AwaitingUnchoke | Stage::Unchoked));
        self.failures = if served { 0 } else { self.failures + 1 };
        self.disconnects += u64::from(stage.is_some());
        // Closing the descriptor also takes it out of the epoll set.
        self.socket = None;
        self.connecting = false;
        self.out.clear();
        self.sent = 0;
        self.leecher.disconnected();
        let pause_ns = RETRY_NS_MIN << self.failures.min(6);
        self.retry_ns = now_ns + pause_ns.min(RETRY_NS_MAX);
        stage
    }
}

/// A socket of the load that is not connected yet, bound to `local` if that is given.
pub fn open_socket(settings: &SocketSettings, local: Option<IpAddr>) -> std::io::Result<Socket> {
    let domain = Domain::for_address(settings.address);
    let socket = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    if let Some(name) = &settings.congestion_control {
        socket
            .set_tcp_congestion(name.as_bytes())
            .map_err(|error| explained(&error, &format!("TCP congestion control {name:?}")))?;
    }
    if let Some(local) = local {
        socket
            .bind(&SocketAddr::new(local, 0).into())
            .map_err(|error| explained(&error, &format!("local address {local}")))?;
    }
    Ok(socket)
}

/// `error` with what it was about.
fn explained(error: &std::io::Error, what: &str) -> std::io::Error {
    std::io::Error::new(error.kind(), format!("{what}: {error}"))
}
