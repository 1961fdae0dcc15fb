//! How long requests wait for their blocks, per group of requests that arrived together.
//!
//! Marks "so many requests had been accepted at this time" and reads them off when as many have
//! been answered. Bounded: beyond [`MARKS_MAX`] a group joins the one before it and shares its
//! (older) time.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Groups of requests that are timed at once, per connection.
const MARKS_MAX: usize = 32;

/// The clock of one connection.
#[derive(Default)]
pub(crate) struct AnswerClock {
    /// Accepted requests so far, and when the last of them arrived; in order.
    marks: VecDeque<(u64, Instant)>,
    accepted: u64,
}

impl AnswerClock {
    /// Notes that `accepted` requests have been accepted so far.
    pub(crate) fn accepted(&mut self, accepted: u64, now: Instant) {
        if accepted == self.accepted {
            return;
        }
        self.accepted = accepted;
        if self.marks.len() < MARKS_MAX {
            self.marks.push_back((accepted, now));
        } else if let Some(last) = self.marks.back_mut() {
            last.0 = accepted;
        }
    }

    /// Notes that `answered` requests have been answered so far, and returns how long the newest
    /// group that is answered in full has waited.
    pub(crate) fn answered(&mut self, answered: u64, now: Instant) -> Option<Duration> {
        let mut waited = None;
        while let Some(&(accepted, since)) = self.marks.front() {
            if accepted > answered {
                break;
            }
            waited = Some(now.duration_since(since));
            self.marks.pop_front();
        }
        if self.marks.is_empty() {
            // An idle peer holds no memory for this.
            self.marks.shrink_to(0);
        }
        waited
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_counts_from_its_arrival_to_its_last_answer() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut clock = AnswerClock::default();
        clock.accepted(3, at(0));
        clock.accepted(5, at(10));
        assert_eq!(clock.answered(2, at(20)), None);
        assert_eq!(clock.answered(3, at(30)), Some(Duration::from_millis(30)));
        assert_eq!(clock.answered(5, at(50)), Some(Duration::from_millis(40)));
        assert_eq!(clock.answered(5, at(60)), None);
    }

    #[test]
    fn a_flood_of_groups_stays_bounded() {
        let start = Instant::now();
        let mut clock = AnswerClock::default();
        for accepted in 1..=10_000 {
            clock.accepted(accepted, start);
        }
        assert_eq!(clock.marks.len(), MARKS_MAX);
        assert!(clock.answered(10_000, start).is_some());
        assert!(clock.marks.is_empty());
    }
}
