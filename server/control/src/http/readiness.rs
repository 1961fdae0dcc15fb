//! Whether the server is ready for traffic, and if not, what it waits for.

use seedring_metrics::{ControlCells, ControlGauge};
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};

/// What `/readyz` asks.
pub trait Status: Debug + Send + Sync + 'static {
    /// What the server waits for, in words for an operator; empty when it is ready. It must not
    /// wait for anything itself.
    fn not_ready(&self) -> Vec<String>;
}

/// A [`Status`] that is ready once each of a fixed list of conditions has been met, and never
/// again once it is stopping.
#[derive(Debug)]
pub struct Readiness {
    waiting: Mutex<BTreeSet<&'static str>>,
    cells: Arc<ControlCells>,
}

const STOPPING: &str = "the server is stopping";

impl Readiness {
    /// Waits for these conditions, such as "listeners" and "torrents".
    pub fn new(
        conditions: impl IntoIterator<Item = &'static str>,
        cells: Arc<ControlCells>,
    ) -> Self {
        let readiness = Self {
            waiting: Mutex::default(),
            cells,
        };
        readiness.change(|waiting| waiting.extend(conditions));
        readiness
    }

    /// A condition is met.
    pub fn met(&self, condition: &'static str) {
        self.change(|waiting| {
            waiting.remove(condition);
        });
    }

    /// A condition is no longer met.
    pub fn lost(&self, condition: &'static str) {
        self.change(|waiting| {
            waiting.insert(condition);
        });
    }

    /// The server stops: it is not ready from now on.
    pub fn stopping(&self) {
        self.lost(STOPPING);
    }

    fn change(&self, change: impl FnOnce(&mut BTreeSet<&'static str>)) {
        // A panic in another holder cannot leave a set of names half changed.
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut waiting);
        self.cells
            .set(ControlGauge::Ready, u64::from(waiting.is_empty()));
    }
}

impl Status for Readiness {
    fn not_ready(&self) -> Vec<String> {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting
            .iter()
            .map(|condition| match *condition {
                STOPPING => STOPPING.to_owned(),
                other => format!("waiting for {other}"),
            })
            .collect()
    }
}
