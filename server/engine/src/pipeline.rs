//! How many blocks are requested of one peer at a time (pipelining, BEP 3), and when a request is
//! given up.
//!
//! The peer is owed enough requests that it never runs dry while one of ours is on its way: at
//! least twice rate times round trip, both measured ([`estimate`]). As the measured rate is at
//! first what a few requests allow, that doubles the window each round trip until the link is full,
//! which is TCP's slow start without a phase of its own. A peer that serves in turns has the pause
//! between them for a round trip ([`pauses`]). To that come a reserve of
//! [`PipelineConfig::reserve_time`] against hiccups on either side, and for slow peers
//! [`PipelineConfig::queue_time`] of work up to [`PipelineConfig::queue_bytes`], so that a slow
//! peer never holds blocks for longer than that. Above are the peer's own limit (`reqq`, BEP 10),
//! ours, and what the torrent may have under way in all ([`RequestBudget`]); a peer that refuses
//! requests is asked for fewer.
//!
//! A full window hides the round trip behind the peer's queue. So now and then, unless an answer
//! showed it anyway, the window is held below rate times round trip until one answer has come with
//! nothing queued before it: the cost is an eighth of a round trip or two in 16 s.
//!
//! A request times out after twice the time that the answers before it need, within limits. Where
//! the peer answers in order and goes on, nothing times out before [`PipelineConfig::timeout_max`];
//! where an answer was skipped, or nothing comes any more, the request is given back for others to
//! fetch. A peer that sent no block for [`PipelineConfig::snub_after`] is snubbing us (BEP 3): it
//! gets one request at a time, until a block comes.
//!
//! A choke voids all requests (BEP 3), or with the fast extension none: each is rejected by itself
//! (BEP 6).
//!
//! Every event is O(1), a choke and a time-out one step for each request given back. Memory:
//! [`outstanding`].
//!
//! Not here: which blocks are requested (the picker's), the messages (the session's), the rates of
//! a peer as shown and as the choker wants them ([`crate::meter`]).

use std::time::Duration;

use proto::limits::BLOCK_LENGTH;
use proto::wire::BlockRequest;

use crate::time::Time;

mod budget;
mod estimate;
mod outstanding;
mod pauses;

pub use budget::RequestBudget;

use estimate::{Estimate, bytes_in, time_for};
use outstanding::{Outstanding, Sent, Standing};

/// How many requests a peer queues that does not say: "the default in libtorrent", as BEP 10 has it
/// under `reqq`.
pub const PEER_QUEUE_DEFAULT: u32 = 250;

/// Requests to a peer of which nothing is known yet.
const REQUESTS_AT_START: u64 = 4;

/// However slow, a peer has one request to work on and one to go on with.
const REQUESTS_MIN: u64 = 2;

/// After so many rejects with no block between, the peer is left alone for [`REJECT_PAUSE`]: a peer
/// that refuses everything must not keep us busy at the pace of its round trip.
const REJECTS_IN_A_ROW_MAX: u32 = 32;
const REJECT_PAUSE: Duration = Duration::from_secs(1);

/// How often the number that a peer refused is tried anew, a quarter higher.
const CEILING_RAISE_INTERVAL: Duration = Duration::from_secs(2);

/// How long the base round trip is believed before it is measured again: at first, and at most.
const PROBE_INTERVAL_MIN: Duration = Duration::from_secs(1);
const PROBE_INTERVAL_MAX: Duration = Duration::from_secs(16);

/// Limits and times that all peers' pipelines share.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PipelineConfig {
    /// Requests that one peer is sent at most, whatever its own limit is.
    pub requests_max: u32,
    /// How much work a slow peer holds, in time.
    pub queue_time: Duration,
    /// Up to so many bytes the queue is as long as `queue_time`.
    pub queue_bytes: u64,
    /// How much work every peer holds at least, in time at its rate: what a late thread or a
    /// jittery link costs.
    pub reserve_time: Duration,
    /// A request times out no earlier than this.
    pub timeout_min: Duration,
    /// A request times out after so long if no answer has come yet from which to tell.
    pub timeout_at_start: Duration,
    /// A request times out no later than this, though the peer goes on answering others.
    pub timeout_max: Duration,
    /// After so long without a block that it owes us, a peer is snubbing us.
    pub snub_after: Duration,
}

impl Default for PipelineConfig {
    fn default() -> PipelineConfig {
        PipelineConfig {
            requests_max: 8_192,
            queue_time: Duration::from_secs(3),
            queue_bytes: 1 << 20,
            reserve_time: Duration::from_millis(25),
            timeout_min: Duration::from_secs(5),
            timeout_at_start: Duration::from_secs(15),
            timeout_max: Duration::from_secs(60),
            snub_after: Duration::from_secs(60),
        }
    }
}

/// What a block is that a peer sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arrival {
    /// It was waited for.
    Expected,
    /// It was requested, but the request was given back since: of use if nobody else brought it.
    Late,
    /// It was never requested, or so long ago that it is forgotten. Without the fast extension that
    /// may be the second answer to a block that was requested twice, so it alone is no offence.
    Unrequested,
}

/// What a pipeline has counted since its start. They only grow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PipelineCounters {
    /// Requests that were sent.
    pub requests: u64,
    /// Blocks that were waited for and came.
    pub blocks: u64,
    /// Requests that timed out.
    pub timed_out: u64,
    /// Requests that the peer rejected while it was not choking us.
    pub rejected: u64,
    /// Blocks that came after their request was given back.
    pub late: u64,
    /// Blocks that were not requested.
    pub unrequested: u64,
    /// How many times the peer began to snub us.
    pub snubs: u64,
}

/// Where the measurement of the base round trip stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Probe {
    /// Due at the time, unless an answer came near the base until then.
    Due(Time),
    /// The window is held low until the queue is empty.
    Draining,
    /// The answer to the request of this order tells.
    Measuring(u64),
}

/// The requests of one peer: see the module.
///
/// ```text
/// on unchoke, and after each event: for room(): pick a block, requested(), send it
/// on a block: received()      on a reject: rejected(), back to the picker
/// when the picker has it from elsewhere: cancelled(), send a cancel
/// at next_timeout(): handle_timeout(); what it gives back: to the picker, send a cancel
/// ```
pub struct Pipeline {
    config: PipelineConfig,
    /// Both sides speak the fast extension.
    fast: bool,
    /// The peer's `reqq`.
    peer_queue: u32,
    /// What the peer is believed to take, since it refused more; `u32::MAX` if it never did.
    ceiling: u32,
    ceiling_raised_at: Time,
    rejects_in_a_row: u32,
    paused_until: Time,
    choked: bool,
    snubbed: bool,
    outstanding: Outstanding,
    estimate: Estimate,
    /// The order of the next request, and of the latest request that was answered.
    next_order: u64,
    answered_order: u64,
    /// When the last block came.
    progress_at: Time,
    /// Since when the peer owes us a block.
    owing_since: Option<Time>,
    probe: Probe,
    probe_interval: Duration,
    /// An answer came near the base since the last measurement.
    near_base: bool,
    counters: PipelineCounters,
}

impl Pipeline {
    /// The pipeline of a peer that chokes us, as every peer does at first. `fast`: both sides speak
    /// the fast extension.
    pub fn new(config: PipelineConfig, fast: bool) -> Pipeline {
        Pipeline {
            config,
            fast,
            peer_queue: PEER_QUEUE_DEFAULT,
            ceiling: u32::MAX,
            ceiling_raised_at: Time::default(),
            rejects_in_a_row: 0,
            paused_until: Time::default(),
            choked: true,
            snubbed: false,
            outstanding: Outstanding::new(config.requests_max),
            estimate: Estimate::default(),
            next_order: 1,
            answered_order: 0,
            progress_at: Time::default(),
            owing_since: None,
            probe: Probe::Due(Time::default()),
            probe_interval: PROBE_INTERVAL_MIN,
            near_base: true,
            counters: PipelineCounters::default(),
        }
    }

    /// Takes the peer's `reqq` (BEP 10): how many requests it queues. What is outstanding above
    /// stays so.
    pub fn set_peer_queue(&mut self, requests: u32) {
        self.peer_queue = requests.max(1);
    }

    /// How many blocks of 16 KiB may be requested now; 0 while the peer chokes us. While it does
    /// not, nothing is outstanding and it did not refuse us again and again, it is 1 at least, the
    /// budget notwithstanding, so that no peer starves.
    pub fn room(&self, budget: &RequestBudget, now: Time) -> u32 {
        if self.choked {
            return 0;
        }
        self.room_below(self.target_bytes(), budget, now)
    }

    /// How many blocks may be requested of the pieces that the peer allowed although it chokes us
    /// (BEP 6).
    pub fn allowed_fast_room(&self, budget: &RequestBudget, now: Time) -> u32 {
        if !self.fast || !self.choked {
            return self.room(budget, now);
        }
        let target = REQUESTS_AT_START * u64::from(BLOCK_LENGTH);
        self.room_below(target, budget, now)
    }

    /// Says that `block` was requested. `false`, and nothing changes, if it is waited for already.
    pub fn requested(
        &mut self,
        block: BlockRequest,
        budget: &mut RequestBudget,
        now: Time,
    ) -> bool {
        let (delivered, delivered_at) = self.estimate.mark(self.outstanding.len() == 0, now);
        let drained = self.outstanding.bytes() < self.probe_bytes();
        let deadline = now + self.timeout(block.length);
        let sent = Sent {
            block,
            at: now,
            deadline: self
                .outstanding
                .last()
                .map_or(deadline, |last| last.deadline.max(deadline)),
            order: self.next_order,
            ahead: self.outstanding.len(),
            delivered,
            delivered_at,
        };
        if !self.outstanding.push(sent) {
            return false;
        }
        if self.probe == Probe::Draining && drained {
            self.probe = Probe::Measuring(self.next_order);
        }
        self.next_order += 1;
        self.counters.requests += 1;
        budget.take(block.length);
        if !self.choked {
            self.owing_since.get_or_insert(now);
        }
        true
    }

    /// Whether the block was requested and has not come, be it waited for or given back.
    pub fn expects(&self, block: &BlockRequest) -> bool {
        self.outstanding.contains(block)
    }

    /// The blocks that are waited for, in the order in which they were requested.
    pub fn waiting(&self) -> impl Iterator<Item = BlockRequest> {
        self.outstanding.waiting().map(|sent| sent.block)
    }

    /// Takes a block that came. Its length is part of what it is: another length is another block.
    pub fn received(
        &mut self,
        block: &BlockRequest,
        budget: &mut RequestBudget,
        now: Time,
    ) -> Arrival {
        let outstanding = self.outstanding.bytes();
        let Some((sent, standing)) = self.outstanding.take(block) else {
            self.counters.unrequested += 1;
            return Arrival::Unrequested;
        };
        self.rejects_in_a_row = 0;
        self.paused_until = Time::default();
        self.snubbed = false;
        self.progress_at = now;
        self.owing_since = (!self.choked && self.outstanding.len() > 0).then_some(now);
        if standing == Standing::GivenBack {
            self.counters.late += 1;
            return Arrival::Late;
        }
        budget.give_back(block.length);
        self.counters.blocks += 1;
        self.answered_order = self.answered_order.max(sent.order);
        let round_trip = self.estimate.answered(&sent, outstanding, now);
        self.look_at_probe(&sent, round_trip, now);
        self.raise_ceiling(now);
        Arrival::Expected
    }

    /// Takes a reject (BEP 6). `true` if the block was waited for: it is the picker's again.
    pub fn rejected(
        &mut self,
        block: &BlockRequest,
        budget: &mut RequestBudget,
        now: Time,
    ) -> bool {
        let Some((sent, Standing::Waiting)) = self.outstanding.take(block) else {
            return false;
        };
        budget.give_back(block.length);
        if !self.choked {
            self.counters.rejected += 1;
            self.rejects_in_a_row = self.rejects_in_a_row.saturating_add(1);
            if self.rejects_in_a_row >= REJECTS_IN_A_ROW_MAX {
                self.paused_until = now + REJECT_PAUSE;
            }
            self.lower_ceiling(sent.ahead, now);
        }
        true
    }

    /// Says that the block is not wanted from this peer any more. `true` if it was waited for, and
    /// a cancel is to be sent.
    pub fn cancelled(&mut self, block: &BlockRequest, budget: &mut RequestBudget) -> bool {
        let cancelled = self.outstanding.give_back(block).is_some();
        if cancelled {
            budget.give_back(block.length);
            // A peer of which we want nothing owes us nothing.
            self.owing_since = self.owing_since.filter(|_| self.outstanding.len() > 0);
        }
        cancelled
    }

    /// Says that the peer chokes us. Without the fast extension all requests are void: they are
    /// appended to `given_back`, and need no cancel. With it each is going to be rejected or
    /// answered.
    pub fn choked(&mut self, budget: &mut RequestBudget, given_back: &mut Vec<BlockRequest>) {
        self.choked = true;
        self.owing_since = None;
        self.stop_probe();
        // What the peer gives after the next unchoke is another bargain.
        self.estimate.forget_rate();
        if !self.fast {
            self.give_back_all(budget, given_back);
        }
    }

    /// Says that the peer chokes us no longer.
    pub fn unchoked(&mut self, now: Time) {
        self.choked = false;
        self.rejects_in_a_row = 0;
        self.paused_until = Time::default();
        self.owing_since = (self.outstanding.len() > 0).then_some(now);
    }

    /// Ends the pipeline: what is waited for is appended to `given_back`.
    pub fn close(&mut self, budget: &mut RequestBudget, given_back: &mut Vec<BlockRequest>) {
        self.choked(budget, given_back);
        self.give_back_all(budget, given_back);
    }

    /// When to call [`Self::handle_timeout`], or to ask for [`Self::room`] again.
    pub fn next_timeout(&self, now: Time) -> Time {
        let mut next = self
            .outstanding
            .first()
            .map_or(Time::NEVER, |sent| self.expires_at(sent));
        if let (Some(since), false) = (self.owing_since, self.snubbed) {
            next = next.min(since + self.config.snub_after);
        }
        if self.paused_until > now {
            next = next.min(self.paused_until);
        }
        next
    }

    /// Gives back what has timed out: the blocks are appended to `given_back`, and are to be
    /// cancelled, because the peer may still send them. Calling it early does no harm.
    pub fn handle_timeout(
        &mut self,
        budget: &mut RequestBudget,
        now: Time,
        given_back: &mut Vec<BlockRequest>,
    ) {
        let mut stalled = false;
        while let Some(sent) = self.outstanding.first().copied() {
            if now < self.expires_at(&sent) {
                break;
            }
            self.outstanding.give_back_first();
            budget.give_back(sent.block.length);
            given_back.push(sent.block);
            self.counters.timed_out += 1;
            if sent.order < self.answered_order {
                // It was skipped. A peer without the fast extension drops without a word what it
                // cannot queue.
                self.lower_ceiling(sent.ahead, now);
            } else {
                stalled = true;
            }
        }
        if stalled {
            self.estimate.forget_rate();
            self.stop_probe();
        }
        let owing = self
            .owing_since
            .is_some_and(|since| now.since(since) >= self.config.snub_after);
        if owing && !self.snubbed {
            self.snubbed = true;
            self.counters.snubs += 1;
            self.give_back_all(budget, given_back);
        }
    }

    /// Returns the memory, if no request is remembered: for a peer of which we want nothing any
    /// more.
    pub fn shrink(&mut self) {
        self.outstanding.shrink();
    }

    /// How many bytes should be outstanding now.
    pub fn target_bytes(&self) -> u64 {
        let block = u64::from(BLOCK_LENGTH);
        if self.snubbed {
            return block;
        }
        let (Some(rate), Some(base)) = (self.estimate.rate(), self.estimate.base()) else {
            return REQUESTS_AT_START * block;
        };
        if !matches!(self.probe, Probe::Due(_)) {
            return self.probe_bytes();
        }
        // Deviation counts for one round trip at most: a growing window itself makes round trips
        // deviate, and would go on growing.
        let round_trips = 2 * base + base.min(4 * self.estimate.deviation());
        let span = round_trips
            .max(2 * self.estimate.pause())
            .max(self.config.reserve_time)
            .min(self.config.queue_time.max(2 * base));
        bytes_in(rate, span)
            .max(self.slow_queue(rate))
            .max(REQUESTS_MIN * block)
    }

    /// What a slow peer holds, in bytes.
    fn slow_queue(&self, rate: u64) -> u64 {
        bytes_in(rate, self.config.queue_time).min(self.config.queue_bytes)
    }

    /// Whether the window follows from the pauses between the peer's turns, so that nothing depends
    /// on the base.
    fn follows_pauses(&self, base: Duration) -> bool {
        let (pause, rate) = (self.estimate.pause(), self.estimate.rate().unwrap_or(0));
        pause > base && bytes_in(rate, 2 * pause) > self.slow_queue(rate)
    }

    /// The peer's rate in bytes per second, as the window has it: the best of the last seconds.
    pub fn rate(&self) -> Option<u64> {
        self.estimate.rate()
    }

    /// The time from a request to its block where nothing is queued before it.
    pub fn base_round_trip(&self) -> Option<Duration> {
        self.estimate.base()
    }

    /// How many requests are waited for.
    pub fn outstanding(&self) -> u32 {
        self.outstanding.len()
    }

    /// How many bytes they ask for.
    pub fn outstanding_bytes(&self) -> u64 {
        self.outstanding.bytes()
    }

    /// How many requests the peer gets at most.
    pub fn requests_max(&self) -> u32 {
        self.config
            .requests_max
            .max(1)
            .min(self.peer_queue)
            .min(self.ceiling)
    }

    /// Whether the peer chokes us.
    pub fn is_choked(&self) -> bool {
        self.choked
    }

    /// Whether the peer owes us blocks and sends none: the choker is to know.
    pub fn is_snubbed(&self) -> bool {
        self.snubbed
    }

    /// What was counted since the start.
    pub fn counters(&self) -> &PipelineCounters {
        &self.counters
    }

    /// Panics if the state contradicts itself. For tests and simulation: O(requests).
    pub fn check_invariants(&self) {
        self.outstanding.check_invariants();
        assert!(self.answered_order < self.next_order);
        assert!(self.target_bytes() >= u64::from(BLOCK_LENGTH));
        assert!(self.requests_max() >= 1);
        assert!(
            !self.choked || self.fast || self.outstanding() == 0,
            "a choke voids requests"
        );
    }

    fn room_below(&self, target: u64, budget: &RequestBudget, now: Time) -> u32 {
        if now < self.paused_until {
            return 0;
        }
        let block = u64::from(BLOCK_LENGTH);
        let wanted = target
            .saturating_sub(self.outstanding.bytes())
            .div_ceil(block);
        let affordable = budget.left() / block;
        let least = u32::from(self.outstanding.len() == 0);
        let blocks = u32::try_from(wanted.min(affordable)).unwrap_or(u32::MAX);
        blocks
            .max(least)
            .min(self.requests_max().saturating_sub(self.outstanding.len()))
    }

    /// How low the window is held to measure the base: seven eighths of what fills the link, so
    /// that nothing queues.
    fn probe_bytes(&self) -> u64 {
        let rate = self.estimate.rate().unwrap_or(0);
        let on_the_way = bytes_in(rate, self.estimate.base().unwrap_or_default());
        (on_the_way - on_the_way / 8).max(REQUESTS_MIN * u64::from(BLOCK_LENGTH))
    }

    /// How long a request for `length` bytes may take that is sent now.
    fn timeout(&self, length: u32) -> Duration {
        let config = &self.config;
        let (Some(rate), Some(base)) = (self.estimate.rate(), self.estimate.base()) else {
            return config.timeout_at_start.min(config.timeout_max);
        };
        let queued = time_for(self.outstanding.bytes() + u64::from(length), rate);
        let expected = queued.saturating_add(base).saturating_mul(2);
        expected
            .saturating_add(4 * self.estimate.deviation())
            .clamp(
                config.timeout_min,
                config.timeout_max.max(config.timeout_min),
            )
    }

    /// When a request is given back. If none after it was answered yet, the peer may just be slow:
    /// it has time while blocks come.
    fn expires_at(&self, sent: &Sent) -> Time {
        if sent.order < self.answered_order {
            return sent.deadline;
        }
        let patience = self.timeout(0).min(self.config.timeout_at_start);
        let slow = (self.progress_at + patience).min(sent.at + self.config.timeout_max);
        sent.deadline.max(slow)
    }

    fn give_back_all(&mut self, budget: &mut RequestBudget, given_back: &mut Vec<BlockRequest>) {
        while let Some(sent) = self.outstanding.give_back_first() {
            budget.give_back(sent.block.length);
            given_back.push(sent.block);
        }
    }

    /// The peer refused a request when `ahead` others were outstanding.
    fn lower_ceiling(&mut self, ahead: u32, now: Time) {
        self.ceiling = self.ceiling.min(ahead).max(1);
        self.ceiling_raised_at = now;
    }

    fn raise_ceiling(&mut self, now: Time) {
        if self.ceiling == u32::MAX || now.since(self.ceiling_raised_at) < CEILING_RAISE_INTERVAL {
            return;
        }
        self.ceiling_raised_at = now;
        self.ceiling = self.ceiling.saturating_add(self.ceiling / 4 + 1);
        if self.ceiling >= self.config.requests_max.min(self.peer_queue) {
            self.ceiling = u32::MAX;
        }
    }

    /// Begins and ends the measurement of the base round trip.
    fn look_at_probe(&mut self, sent: &Sent, round_trip: Duration, now: Time) {
        let base = self.estimate.base().unwrap_or(round_trip);
        self.near_base |= round_trip <= base + base / 8;
        match self.probe {
            Probe::Due(time) if now < time => {}
            Probe::Due(_) if self.near_base || self.follows_pauses(base) => {
                self.near_base = false;
                self.schedule_probe(now);
            }
            Probe::Due(_) => self.probe = Probe::Draining,
            Probe::Measuring(order) if sent.order >= order => {
                self.estimate.set_base(round_trip);
                self.near_base = false;
                self.schedule_probe(now);
            }
            Probe::Draining | Probe::Measuring(_) => {}
        }
    }

    fn schedule_probe(&mut self, now: Time) {
        self.probe = Probe::Due(now + self.probe_interval);
        self.probe_interval = (2 * self.probe_interval).min(PROBE_INTERVAL_MAX);
    }

    /// Breaks a measurement off, since the peer stopped sending. The next answers have nothing
    /// queued before them, so the next term is soon enough.
    fn stop_probe(&mut self) {
        if !matches!(self.probe, Probe::Due(_)) {
            self.probe = Probe::Due(Time::default());
            self.near_base = true;
        }
    }
}

#[cfg(test)]
mod tests;
