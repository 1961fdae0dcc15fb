//! One leecher and its socket: connecting, reading, writing, coming back after a disconnect.
//!
//! In discard mode payload is dropped by the kernel (`recv` with MSG_TRUNC): headers are read
//! exactly, so the place in the stream is never lost and no payload byte is copied. Work per
//! wake-up is bounded by [`READ_BYTES_MAX`], so that one fast connection cannot starve the others
//! of its thread.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::event::epoll::EventFlags;

use super::latency::Latency;
use super::leecher::{Leecher, Role, Stage};
use super::shared::Clock;
use super::stream::{End, READ_BYTES_MAX, SocketSettings, Stream, Taking};
use super::worker::{Peer, PeerResult, Progress};

/// What a slow reader takes at once; it does so every [`SLOW_READ_EVERY_NS`].
const SLOW_READ_BYTES: usize = 4 << 10;

/// How often a slow reader reads: together with [`SLOW_READ_BYTES`] that is 16 KiB/s.
const SLOW_READ_EVERY_NS: u64 = 250_000_000;

/// What the kernel holds for a slow reader: little, so that the seed feels the slowness at once.
const SLOW_READ_BUFFER_BYTES: usize = 64 << 10;

/// A connection attempt, and the wait for the seed's handshake, may take this long.
const SETUP_NS_MAX: u64 = 10_000_000_000;

/// The first pause before connecting again; it doubles with each failure in a row.
const RETRY_NS_MIN: u64 = 100_000_000;

/// The longest pause before connecting again.
const RETRY_NS_MAX: u64 = 5_000_000_000;

/// A leecher with its socket, if it has one.
pub struct Connection {
    leecher: Leecher,
    stream: Stream,
    /// Connections that ended since the counts were last taken, not counting failed attempts.
    disconnects: u64,
    /// Connections that were made anew since the counts were last taken.
    reconnects: u64,
    /// When the seed unchoked this leecher first, in ns.
    unchoked_ns: Option<u64>,
    /// Whether it was ever connected.
    was_connected: bool,
    /// Attempts in a row that came to nothing.
    failures: u32,
    /// When the attempt or connection began.
    since_ns: u64,
    retry_ns: u64,
    slow_read_ns: u64,
}

impl Connection {
    /// A connection that is to be made, from `local` if that is given.
    pub fn new(leecher: Leecher, settings: Arc<SocketSettings>, local: Option<IpAddr>) -> Self {
        let stream = Stream::new(settings, local);
        Self {
            stream: match leecher.role() {
                Role::SlowReader => stream.with_receive_buffer(SLOW_READ_BUFFER_BYTES),
                Role::Load | Role::Idle => stream,
            },
            leecher,
            disconnects: 0,
            reconnects: 0,
            unchoked_ns: None,
            was_connected: false,
            failures: 0,
            since_ns: 0,
            retry_ns: 0,
            slow_read_ns: 0,
        }
    }

    fn read(
        &mut self,
        scratch: &mut [u8],
        clock: &Clock,
        latency: &mut Latency,
    ) -> Result<(), End> {
        let mut budget = READ_BYTES_MAX;
        if self.leecher.role() == Role::SlowReader {
            budget = SLOW_READ_BYTES;
            self.slow_read_ns = clock.now_ns() + SLOW_READ_EVERY_NS;
        }
        let discards = self.stream.discards();
        while budget > 0 {
            let payload = self.leecher.payload_left() as usize;
            let (wanted, taking) = match discards {
                true if payload > 0 => (payload, Taking::Drop),
                true => (self.leecher.bytes_wanted(), Taking::Copy),
                false => (scratch.len(), Taking::Copy),
            };
            let wanted = wanted.min(scratch.len()).min(budget);
            let Some(count) = self.stream.receive(&mut scratch[..wanted], taking)? else {
                return Ok(());
            };
            let now_ns = clock.now_ns();
            if taking == Taking::Drop {
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
}

impl Peer for Connection {
    fn is_load(&self) -> bool {
        self.leecher.role() == Role::Load
    }

    fn is_connecting(&self) -> bool {
        self.stream.is_connecting()
    }

    fn wants_to_connect(&self, now_ns: u64) -> bool {
        self.stream.is_closed() && self.retry_ns <= now_ns
    }

    fn connect(&mut self, epoll: &OwnedFd, index: u64, now_ns: u64) -> Result<(), End> {
        self.since_ns = now_ns;
        self.stream.connect(epoll, index)
    }

    fn ready(
        &mut self,
        flags: EventFlags,
        scratch: &mut [u8],
        clock: &Clock,
        latency: &mut Latency,
    ) -> Result<(), End> {
        if self.stream.connected_now()? {
            self.reconnects += u64::from(self.was_connected);
            self.was_connected = true;
            self.leecher.connected(clock.now_ns());
        }
        if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            self.read(scratch, clock, latency)?;
        }
        if self.unchoked_ns.is_none() && self.leecher.stage() == Stage::Unchoked {
            self.unchoked_ns = Some(clock.now_ns());
        }
        Ok(())
    }

    fn flush(&mut self, epoll: &OwnedFd, index: u64, now_ns: u64) -> Result<(), End> {
        if !self.stream.is_connected() {
            return Ok(());
        }
        self.leecher.fill(now_ns, &mut self.stream.out);
        let rests = self.leecher.role() == Role::SlowReader && now_ns < self.slow_read_ns;
        self.stream.send(epoll, index, !rests)
    }

    fn tick(&mut self, now_ns: u64) -> Result<(), End> {
        if self.stream.is_closed() {
            return Ok(());
        }
        let connected = self.stream.is_connected();
        let in_setup = !connected || self.leecher.stage() == Stage::AwaitingHandshake;
        if in_setup && now_ns.saturating_sub(self.since_ns) > SETUP_NS_MAX {
            return Err(End::SetupTimeout);
        }
        if connected && self.leecher.tick(now_ns) {
            return Err(End::Stalled);
        }
        Ok(())
    }

    fn ended(&mut self, now_ns: u64) {
        let connected = self.stream.is_connected();
        let stage = self.leecher.stage();
        let served = connected && matches!(stage, Stage::AwaitingUnchoke | Stage::Unchoked);
        self.failures = if served { 0 } else { self.failures + 1 };
        self.disconnects += u64::from(connected);
        self.stream.close();
        self.leecher.disconnected();
        let pause_ns = RETRY_NS_MIN << self.failures.min(6);
        self.retry_ns = now_ns + pause_ns.min(RETRY_NS_MAX);
    }

    fn failures(&self) -> u32 {
        self.failures
    }

    fn schedule(&mut self, due_ns: u64) {
        self.leecher.schedule(due_ns);
    }

    fn progress(&self) -> Progress {
        let stage = self.leecher.stage();
        Progress {
            connected: self.was_connected,
            greeted: stage != Stage::AwaitingHandshake,
            offered: matches!(stage, Stage::AwaitingUnchoke | Stage::Unchoked),
            unchoked: self.unchoked_ns.is_some(),
        }
    }

    fn begin_window(&mut self) {
        self.leecher.take_tally();
        self.disconnects = 0;
        self.reconnects = 0;
    }

    fn result(&mut self, now_ns: u64) -> PeerResult {
        let (outstanding, due, oldest) = self.leecher.backlog(now_ns);
        PeerResult {
            tally: self.leecher.take_tally(),
            unchoked_ns: self.unchoked_ns,
            disconnects: self.disconnects,
            reconnects: self.reconnects,
            role: self.leecher.role(),
            outstanding,
            due,
            oldest_ns: oldest.map_or(0, |oldest_ns| now_ns - oldest_ns),
        }
    }
}
