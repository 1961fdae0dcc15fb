//! The last lines of the log, for who asks for them over the API: what is logged is kept, whatever
//! the format, as long as there is room.
//!
//! Text of a stranger is escaped and cut as in the log itself.
//!
//! Limits: [`LINES_MAX`] lines of [`LINE_CHARACTERS_MAX`] characters; of more the oldest goes. Does not: keep
//! anything over a restart, or the spans in which something was logged.

use super::FIELD_CHARACTERS_MAX;
use crate::config::escape;
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Lines that are kept.
pub const LINES_MAX: usize = 1_000;

/// Characters of one of them: of 1,000 lines some hundreds of KiB, and 4 MiB at most.
pub const LINE_CHARACTERS_MAX: usize = 1_000;

/// Memory of all of them, in bytes, where each character takes four.
pub const MEMORY_BYTES_MAX: usize =
    LINES_MAX.next_power_of_two() * (size_of::<Line>() + 4 * (LINE_CHARACTERS_MAX + 1));

/// Lines for each second that a run lasts, as a power of two, before numbers of the next run could
/// be lower. All stay below 2^53, which every reader of JSON takes.
const NUMBER_BITS: u32 = 20;

/// A line of the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    /// Higher than those before it, also than those of earlier runs.
    pub number: u64,
    /// When it was logged, in milliseconds since 1970.
    pub at_ms: u64,
    /// How important it is.
    pub level: Level,
    /// The module that has logged it.
    pub target: &'static str,
    /// What it says, and its fields.
    pub text: String,
}

/// Lines that were asked for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Found {
    /// In their order.
    pub lines: Vec<Line>,
    /// All up to this number have been looked at.
    pub last: u64,
    /// Whether there are more behind them.
    pub has_more: bool,
    /// Whether some in between are kept no more.
    pub missed: bool,
}

/// The lines that are kept.
pub struct KeptLines(Mutex<Kept>);

struct Kept {
    lines: VecDeque<Line>,
    first: u64,
    next: u64,
}

impl Default for KeptLines {
    fn default() -> KeptLines {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        KeptLines::beginning_at((now.unwrap_or_default().as_secs() << NUMBER_BITS) + 1)
    }
}

impl fmt::Debug for KeptLines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeptLines({})", self.kept().lines.len())
    }
}

impl KeptLines {
    fn beginning_at(first: u64) -> KeptLines {
        KeptLines(Mutex::new(Kept {
            lines: VecDeque::new(),
            first,
            next: first,
        }))
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // A line is there or not: nothing in here can be half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, level: Level, target: &'static str, text: String) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let at_ms = u64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(u64::MAX);
        let mut kept = self.kept();
        let number = kept.next;
        kept.next += 1;
        if kept.lines.len() >= LINES_MAX {
            kept.lines.pop_front();
        }
        kept.lines.push_back(Line {
            number,
            at_ms,
            level,
            target,
            text,
        });
    }

    /// At most so many lines that are at least so important: the first after the number `since`, or
    /// without one the last that there are.
    pub fn find(&self, since: Option<u64>, least: Level, max: usize) -> Found {
        let kept = self.kept();
        let last = kept.next - 1;
        let wanted = kept.lines.iter().filter(|line| line.level <= least);
        let Some(since) = since else {
            let mut lines: Vec<Line> = wanted.rev().take(max).cloned().collect();
            lines.reverse();
            return Found {
                lines,
                last,
                ..Found::default()
            };
        };
        let mut lines: Vec<Line> = wanted
            .filter(|line| line.number > since)
            .take(max.saturating_add(1))
            .cloned()
            .collect();
        let has_more = lines.len() > max;
        lines.truncate(max);
        let oldest = kept.lines.front().map_or(kept.next, |line| line.number);
        Found {
            last: match (has_more, lines.last()) {
                (true, Some(line)) => line.number,
                _ => last,
            },
            lines,
            has_more,
            // Who comes from an earlier run has missed what that logged last.
            missed: since + 1 < oldest.max(kept.first) && since > 0,
        }
    }
}

/// Keeps what is logged.
pub(crate) struct Keep(pub(crate) Arc<KeptLines>);

impl<S: Subscriber> Layer<S> for Keep {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let mut said = Said::default();
        event.record(&mut said);
        let text = match (said.message.is_empty(), said.fields.is_empty()) {
            (_, true) => said.message,
            (true, false) => said.fields,
            (false, false) => format!("{} {}", said.message, said.fields),
        };
        let metadata = event.metadata();
        let mut text = match text.char_indices().nth(LINE_CHARACTERS_MAX) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text,
        };
        text.shrink_to_fit();
        self.0.keep(*metadata.level(), metadata.target(), text);
    }
}

/// The message, and the other fields as they stand in a line for people.
#[derive(Default)]
struct Said {
    message: String,
    fields: String,
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = escape(&format!("{value:?}"), FIELD_CHARACTERS_MAX);
        if field.name() == "message" {
            self.message = text;
            return;
        }
        if !self.fields.is_empty() {
            self.fields.push(' ');
        }
        self.fields.push_str(field.name());
        self.fields.push('=');
        self.fields.push_str(&text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::layer::SubscriberExt;

    fn kept(body: impl FnOnce()) -> Arc<KeptLines> {
        let kept = Arc::new(KeptLines::beginning_at(100));
        let subscriber = tracing_subscriber::registry().with(Keep(Arc::clone(&kept)));
        tracing::subscriber::with_default(subscriber, body);
        kept
    }

    fn numbers(found: &Found) -> Vec<u64> {
        found.lines.iter().map(|line| line.number).collect()
    }

    #[test]
    fn a_line_has_its_fields_and_a_strangers_text_does_no_harm() {
        let hostile = "a\n\u{1b}[2J\u{202e}";
        let kept = kept(|| {
            tracing::warn!(client = %hostile, port = 6890, "said {hostile}");
            tracing::info!(alone = 1);
            tracing::info!("{}", "x".repeat(10_000));
        });
        let found = kept.find(None, Level::TRACE, 10);
        let escaped = "a\\n\\u{1b}[2J\\u{202e}";
        let expected = format!("said {escaped} client={escaped} port=6890");
        assert_eq!(found.lines[0].text, expected);
        assert_eq!(found.lines[0].level, Level::WARN);
        assert!(found.lines[0].target.contains("kept"));
        assert_eq!(found.lines[1].text, "alone=1");
        assert_eq!(found.lines[2].text.chars().count(), LINE_CHARACTERS_MAX + 1);
    }

    #[test]
    fn lines_are_told_from_a_number_on_or_the_last_of_them() {
        let kept = kept(|| {
            for number in 0..4 {
                tracing::info!("{number}");
                tracing::debug!("{number}");
            }
        });
        let last = kept.find(None, Level::INFO, 2);
        assert_eq!((numbers(&last), last.last), (vec![104, 106], 107));
        let first = kept.find(Some(101), Level::DEBUG, 2);
        assert_eq!((numbers(&first), first.last), (vec![102, 103], 103));
        assert!(first.has_more && !first.missed);
        let rest = kept.find(Some(103), Level::INFO, 100);
        assert_eq!((numbers(&rest), rest.last), (vec![104, 106], 107));
        assert!(!rest.has_more && !rest.missed);
        assert_eq!(kept.find(Some(107), Level::TRACE, 9).lines, []);
        // Of an earlier run, or from the beginning.
        assert!(kept.find(Some(7), Level::TRACE, 9).missed);
        let all = kept.find(Some(0), Level::TRACE, 9);
        assert_eq!((all.lines.len(), all.missed), (8, false));
    }

    #[test]
    fn the_oldest_lines_go_and_that_is_told() {
        let kept = kept(|| {
            for number in 0..LINES_MAX + 10 {
                tracing::info!("{number}");
            }
        });
        let found = kept.find(Some(100), Level::TRACE, usize::MAX);
        assert_eq!(found.lines.len(), LINES_MAX);
        assert_eq!(found.lines[0].number, 110);
        assert!(found.missed && !found.has_more);
        assert!(!kept.find(Some(109), Level::TRACE, 1).missed);
    }
}
