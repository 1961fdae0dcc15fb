//! Tests of the log: what a line looks like, and what happens when nobody reads.

use super::*;
use seedring_metrics::Registry;
use std::io::Write;
use std::sync::mpsc::{Receiver, Sender, channel};

/// Sends what is written to a channel.
struct Capture(Sender<String>);

impl Write for Capture {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0
            .send(String::from_utf8(bytes.to_vec()).unwrap())
            .unwrap();
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The lines that the events of `body` make with this layer.
fn lines<L>(layer: impl FnOnce(writer::Queue) -> L, body: impl FnOnce()) -> Vec<String>
where
    L: Layer<tracing_subscriber::Registry> + Send + Sync,
{
    let (sender, receiver) = channel();
    let cells = Registry::new(0).control();
    let (queue, guard) = writer::start_with(cells, 100, Capture(sender)).unwrap();
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer(queue)), body);
    drop(guard);
    receiver.try_iter().collect()
}

const HOSTILE: &str = "a\nINFO forged\u{1b}[2J\u{202e}\\";

#[test]
fn a_strangers_text_stays_on_its_line() {
    let lines = lines(
        |queue| human(queue, false),
        || {
            tracing::info_span!("peer", client = HOSTILE).in_scope(|| {
                tracing::warn!(debug = ?HOSTILE, display = %HOSTILE, port = 6890, "said {HOSTILE}");
            });
        },
    );
    assert_eq!(lines.len(), 1);
    let line = lines[0].strip_suffix('\n').unwrap();
    assert!(
        line.chars().all(|c| !c.is_control() && c != '\u{202e}'),
        "{line:?}"
    );
    let escaped = "a\\nINFO forged\\u{1b}[2J\\u{202e}\\";
    assert!(line.contains(&format!("said {escaped} debug=")), "{line}");
    assert!(
        line.contains(&format!(" display={escaped} port=6890")),
        "{line}"
    );
    assert!(line.contains("WARN"), "{line}");
}

#[test]
fn a_long_field_is_cut() {
    let long = "x".repeat(1_000_000);
    let lines = lines(|queue| human(queue, false), || tracing::info!("{long}"));
    assert!(lines[0].len() < FIELD_CHARACTERS_MAX + 200 && lines[0].contains("x…"));
}

#[test]
fn json_is_one_object_a_line() {
    let lines = lines(json, || {
        tracing::error!(name = HOSTILE, count = 3, "failed");
    });
    assert_eq!(lines.len(), 1);
    let object: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!(object["message"], "failed");
    assert_eq!(object["name"], HOSTILE);
    assert_eq!(object["count"], 3);
    assert_eq!(object["level"], "ERROR");
}

#[test]
fn events_are_counted_by_level() {
    let cells = Registry::new(0).control();
    let subscriber = tracing_subscriber::registry().with(Count(Arc::clone(&cells)));
    tracing::subscriber::with_default(subscriber, || {
        tracing::error!("one");
        tracing::warn!("two");
        tracing::warn!("three");
    });
    assert_eq!(cells.counter(ControlCounter::LogError), 1);
    assert_eq!(cells.counter(ControlCounter::LogWarn), 2);
    assert_eq!(cells.counter(ControlCounter::LogInfo), 0);
}

/// A writer that takes a byte only when the test lets it.
struct Blocked(Receiver<()>);

impl Write for Blocked {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        // Ends when the test drops its sender.
        let _ = self.0.recv();
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn nobody_waits_for_a_reader_that_has_stopped() {
    let (release, blocked) = channel();
    let cells = Registry::new(0).control();
    let (queue, guard) = writer::start_with(Arc::clone(&cells), 10, Blocked(blocked)).unwrap();
    let subscriber = tracing_subscriber::registry().with(human(queue, false));
    tracing::subscriber::with_default(subscriber, || {
        for _ in 0..100 {
            tracing::info!("a line");
        }
    });
    // Ten lines wait and one may be on its way to the reader.
    let dropped = cells.counter(ControlCounter::LogDropped);
    assert!((89..=90).contains(&dropped), "{dropped}");
    drop(release);
    drop(guard);
}

#[test]
fn the_level_changes_while_it_runs_unless_the_environment_has_said_it() {
    let said = |is_overridden| {
        let (filter, handle) = reload::Layer::new(EnvFilter::new("warn"));
        let handle = LogHandle {
            filter: handle,
            is_overridden,
            kept: Arc::default(),
        };
        let cells = Registry::new(0).control();
        let subscriber = tracing_subscriber::registry()
            .with(filter)
            .with(Count(Arc::clone(&cells)));
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!("not logged");
            let debug = Log {
                level: LogLevel::Debug,
                ..Log::default()
            };
            assert_eq!(handle.set_level(&debug), !is_overridden);
            tracing::info!("logged, if it could be changed");
        });
        cells.counter(ControlCounter::LogInfo)
    };
    assert_eq!((said(false), said(true)), (1, 0));
}

#[test]
fn a_wrong_filter_is_an_error() {
    let environment = Environment::of([("RUST_LOG", "info,=what=")]);
    let cells = Registry::new(0).control();
    let error = init(&Log::default(), None, &environment, &cells)
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("environment variable RUST_LOG: "),
        "{error}"
    );
}
