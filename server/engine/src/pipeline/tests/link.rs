//! A peer behind a link, in virtual time: requests go there, are served one after another at the
//! link's rate, and blocks come back in order, after delays that vary.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};

use super::*;

/// What a link is like. Times are in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// Bytes per second.
    pub rate: u64,
    /// There and back, without jitter.
    pub round_trip: u64,
    /// Each block is late by up to so much.
    pub jitter: u64,
    /// The link serves at four times its rate for a quarter of each such period; 0: always alike.
    pub burst_period: u64,
    /// The peer takes requests up only once in such a period, then all of them; 0: at once.
    pub turn_period: u64,
    /// We read from the socket no more often than this; 0: at once.
    pub read_interval: u64,
    /// What the peer queues; it drops what is beyond.
    pub queue: u32,
    /// The peer tells us so by its `reqq`.
    pub queue_told: bool,
}

pub const MILLISECOND: u64 = 1_000_000;
pub const SECOND: u64 = 1_000_000_000;

impl Default for Link {
    fn default() -> Link {
        Link {
            rate: 62_500_000,
            round_trip: 100 * MILLISECOND,
            jitter: 0,
            burst_period: 0,
            turn_period: 0,
            read_interval: 0,
            queue: 2_000,
            queue_told: true,
        }
    }
}

/// What a run showed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Run {
    /// Bytes that came since the measurement began, and how long it took in nanoseconds.
    pub bytes: u64,
    pub time: u64,
    /// The most requests that were outstanding.
    pub outstanding_max: u32,
    /// The longest that a request was outstanding, since the measurement began.
    pub held_max: u64,
    pub counters: PipelineCounters,
    pub dropped: u64,
}

impl Run {
    /// Bytes per second.
    pub fn rate(&self) -> u64 {
        (u128::from(self.bytes) * u128::from(SECOND) / u128::from(self.time.max(1))) as u64
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Event {
    /// A request reaches the peer.
    Asked(BlockRequest),
    /// The peer takes up what was asked.
    Turn,
    /// The peer has sent the block it works on.
    Served,
    /// A block has come.
    Came(BlockRequest),
    TimeOut,
}

pub struct Simulation {
    link: Link,
    random: Random,
    pub pipeline: Pipeline,
    pub budget: RequestBudget,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    sequence: u64,
    now: u64,
    /// What the peer has to serve. So many at the front are taken up; the first of these is being
    /// sent.
    queue: VecDeque<BlockRequest>,
    taken_up: usize,
    turn_planned: bool,
    sent_at: HashMap<BlockRequest, u64>,
    last_arrival: u64,
    next_block: u32,
    retry: Vec<BlockRequest>,
    timeout_at: Time,
    run: Run,
    measured_since: u64,
}

impl Simulation {
    pub fn new(link: Link, config: PipelineConfig, seed: u64) -> Simulation {
        let mut pipeline = Pipeline::new(config, false);
        if link.queue_told {
            pipeline.set_peer_queue(link.queue);
        }
        pipeline.unchoked(Time(0));
        Simulation {
            link,
            random: Random::new(seed),
            pipeline,
            budget: RequestBudget::new(u64::MAX),
            events: BinaryHeap::new(),
            sequence: 0,
            now: 0,
            queue: VecDeque::new(),
            taken_up: 0,
            turn_planned: false,
            sent_at: HashMap::new(),
            last_arrival: 0,
            next_block: 0,
            retry: Vec::new(),
            timeout_at: Time::NEVER,
            run: Run::default(),
            measured_since: 0,
        }
    }

    pub fn link(&mut self) -> &mut Link {
        &mut self.link
    }

    /// Runs until so many blocks have come or so much time has passed; returns what happened in it.
    pub fn run(&mut self, blocks: u64, time: u64) -> Run {
        self.run = Run::default();
        self.measured_since = self.now;
        let before = self.pipeline.counters;
        let end = self.now + time;
        self.request();
        while self.run.bytes < blocks * BLOCK {
            let Some(Reverse((at, _, event))) = self.events.pop() else {
                break;
            };
            if at > end {
                self.events.push(Reverse((at, 0, event)));
                self.now = end;
                break;
            }
            self.now = at;
            self.handle(event);
        }
        let after = self.pipeline.counters;
        self.run.time = self.now - self.measured_since;
        self.run.counters = PipelineCounters {
            timed_out: after.timed_out - before.timed_out,
            late: after.late - before.late,
            ..after
        };
        self.run
    }

    fn at(&mut self, time: u64, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((time, self.sequence, event)));
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Asked(block) if self.queue.len() >= self.link.queue as usize => {
                self.run.dropped += 1;
                self.sent_at.remove(&block);
            }
            Event::Asked(block) => {
                self.queue.push_back(block);
                match self.link.turn_period {
                    0 => self.take_up(),
                    _ if self.turn_planned => {}
                    period => {
                        self.turn_planned = true;
                        self.at((self.now + 1).next_multiple_of(period), Event::Turn);
                    }
                }
            }
            Event::Turn => {
                self.turn_planned = false;
                self.take_up();
            }
            Event::Served => self.served(),
            Event::Came(block) => self.came(block),
            Event::TimeOut if self.now >= self.timeout_at.0 => {
                self.timeout_at = Time::NEVER;
                let now = Time(self.now);
                self.pipeline
                    .handle_timeout(&mut self.budget, now, &mut self.retry);
                // A cancel: it is on the safe side that the peer does not take it.
                self.request();
            }
            Event::TimeOut => {}
        }
    }

    /// The peer takes up all that it has queued.
    fn take_up(&mut self) {
        let idle = self.taken_up == 0;
        self.taken_up = self.queue.len();
        if idle && self.taken_up > 0 {
            self.serve();
        }
    }

    /// Starts to send the block at the front of the queue.
    fn serve(&mut self) {
        let Link {
            rate, burst_period, ..
        } = self.link;
        let mut duration = BLOCK * SECOND / rate;
        if burst_period > 0 {
            duration /= 4;
            let into = self.now % burst_period;
            if into >= burst_period / 4 {
                duration += burst_period - into;
            }
        }
        self.at(self.now + duration, Event::Served);
    }

    fn served(&mut self) {
        let Some(block) = self.queue.pop_front() else {
            return;
        };
        self.taken_up -= 1;
        let jitter = self.random.below(self.link.jitter + 1);
        let arrival = self.now + self.link.round_trip / 2 + jitter;
        // In order, as TCP has it.
        self.last_arrival = self.last_arrival.max(arrival);
        let read = match self.link.read_interval {
            0 => self.last_arrival,
            interval => self.last_arrival.next_multiple_of(interval),
        };
        self.at(read, Event::Came(block));
        if self.taken_up > 0 {
            self.serve();
        }
    }

    fn came(&mut self, block: BlockRequest) {
        let arrival = self
            .pipeline
            .received(&block, &mut self.budget, Time(self.now));
        assert_ne!(arrival, Arrival::Unrequested);
        self.run.bytes += BLOCK;
        let sent_at = self.sent_at.remove(&block).unwrap_or(self.now);
        if sent_at >= self.measured_since {
            self.run.held_max = self.run.held_max.max(self.now - sent_at);
        }
        self.retry.retain(|other| *other != block);
        self.request();
    }

    fn request(&mut self) {
        let now = Time(self.now);
        let room = self.pipeline.room(&self.budget, now);
        for _ in 0..room {
            let block = self.retry.pop().unwrap_or_else(|| {
                self.next_block += 1;
                block(self.next_block)
            });
            assert!(self.pipeline.requested(block, &mut self.budget, now));
            self.sent_at.insert(block, self.now);
            self.at(self.now + self.link.round_trip / 2, Event::Asked(block));
        }
        let outstanding = self.pipeline.outstanding();
        assert!(outstanding > 0, "an unchoked peer always has a request");
        assert!(room == 0 || outstanding <= self.pipeline.requests_max());
        self.run.outstanding_max = self.run.outstanding_max.max(outstanding);
        let due = self.pipeline.next_timeout(now);
        if due < self.timeout_at {
            self.timeout_at = due;
            self.at(due.0, Event::TimeOut);
        }
    }
}
