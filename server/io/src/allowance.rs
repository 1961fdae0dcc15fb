//! One connection's dealings with its rate limits: asking, waiting in line, spending what was
//! granted.
//!
//! The wait goes on while other things are sent ([`Allowance::arrive_during`]): whoever is first in
//! a line and does not move up holds up every peer behind him, and a socket may stay full for
//! minutes.

use crate::connection::Connection;
use crate::limits;
use crate::shard::Shard;
use engine::queue::Batch;
use engine::rate::Demand;
use std::future::Future;
use std::mem;
use std::pin::Pin;

/// What the rate limits owe to one connection.
pub(crate) struct Allowance<'a> {
    shard: &'a Shard,
    connection: &'a Connection,
    state: State<'a>,
}

enum State<'a> {
    /// Nothing has been asked for.
    Idle,
    /// In line; the result is the grant, in bytes.
    Waiting(Pin<Box<dyn Future<Output = u32> + 'a>>),
    /// So many bytes are granted and not spent.
    Granted(u32),
}

impl<'a> Allowance<'a> {
    pub(crate) fn new(shard: &'a Shard, connection: &'a Connection) -> Self {
        Allowance {
            shard,
            connection,
            state: State::Idle,
        }
    }

    /// Takes the next blocks within the rate limits. `None` if no request waits, or while the
    /// limits let none through; then [`Self::arrive`] waits for them.
    pub(crate) fn next_batch(&mut self) -> Option<Batch> {
        let bytes_max = self.shard.config.batch_bytes;
        let (session, levels) = (&self.connection.session, &self.connection.levels);
        if matches!(self.state, State::Idle) && !limits::are_limited(levels) {
            return session.borrow_mut().next_batch(bytes_max);
        }
        match mem::replace(&mut self.state, State::Idle) {
            State::Waiting(grant) => {
                self.state = State::Waiting(grant);
                return None;
            }
            State::Granted(bytes) => {
                if let Some(batch) = self.spend(bytes) {
                    return Some(batch);
                }
            }
            State::Idle => {}
        }
        let wanted = session.borrow().peek_batch(bytes_max)?;
        let demand = Demand {
            bytes_min: wanted.lengths[0],
            bytes_max: wanted.bytes,
        };
        if let Some(granted) = limits::try_grant(levels, demand, self.shard.now()) {
            return self.spend(granted);
        }
        let grant = limits::grant(self.shard, levels, demand);
        self.state = State::Waiting(Box::pin(grant));
        None
    }

    /// Waits for the grant; for ever if none is waited for. May be dropped: the place in line is
    /// kept.
    pub(crate) async fn arrive(&mut self) {
        match &mut self.state {
            State::Waiting(grant) => {
                let granted = grant.await;
                self.state = State::Granted(granted);
            }
            State::Idle | State::Granted(_) => std::future::pending().await,
        }
    }

    /// Does `work`, moving up in the line meanwhile.
    pub(crate) async fn arrive_during<T>(
        &mut self,
        mut work: Pin<&mut impl Future<Output = T>>,
    ) -> T {
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = self.arrive() => {}
            }
        }
    }

    /// Takes blocks for `granted` bytes and gives back what they leave. (Requests may have been
    /// cancelled while the grant was waited for.)
    fn spend(&self, granted: u32) -> Option<Batch> {
        let batch = self.connection.session.borrow_mut().next_batch(granted);
        let used = batch.as_ref().map_or(0, |batch| batch.bytes);
        limits::give_back(&self.connection.levels, granted - used);
        batch
    }
}

impl Drop for Allowance<'_> {
    fn drop(&mut self) {
        if let State::Granted(bytes) = self.state {
            limits::give_back(&self.connection.levels, bytes);
        }
    }
}
