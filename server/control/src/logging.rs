//! The log: lines for people, JSON, or the systemd journal.
//!
//! Text of a stranger is escaped and cut, so that a peer can neither forge a line nor send codes to
//! a terminal. Lines go to stderr through a bounded queue and a thread of its own: when nobody
//! reads stderr, lines are dropped and counted, and no shard waits. (JSON escapes by its own
//! rules, and the journal keeps each field apart.)
//!
//! Does not: rotate files; that is journald's or the container engine's work.

mod kept;
mod writer;

#[cfg(test)]
mod tests;

use crate::config::{Environment, Log, LogFormat, LogLevel, escape};
use seedring_metrics::{ControlCells, ControlCounter};
use std::io::IsTerminal;
use std::sync::Arc;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::debug_fn;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

pub(crate) use kept::Keep;
pub use kept::{Found, KeptLines, LINE_CHARACTERS_MAX, LINES_MAX, Line, MEMORY_BYTES_MAX};
pub use writer::LogGuard;

/// Characters of one field of a log line; what is longer is cut.
const FIELD_CHARACTERS_MAX: usize = 2_000;

/// Why the log could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// RUST_LOG is no filter.
    #[error("environment variable RUST_LOG: {0}; write a level or module=level, comma-separated")]
    Filter(#[from] ParseError),
    /// The journal is not there.
    #[error("log.format is \"journald\", but the journal's socket cannot be used: {0}")]
    Journal(std::io::Error),
    /// The thread that writes the log could not be started.
    #[error("cannot start the thread that writes the log: {0}")]
    Thread(std::io::Error),
    /// A log was set up before.
    #[error("the log is set up already")]
    Twice,
}

/// The way to the log of a running process.
#[derive(Clone, Debug)]
pub struct LogHandle {
    filter: reload::Handle<EnvFilter, Registry>,
    /// Whether RUST_LOG says what is logged.
    is_overridden: bool,
    kept: Arc<KeptLines>,
}

impl LogHandle {
    /// The last lines.
    pub fn kept(&self) -> Arc<KeptLines> {
        Arc::clone(&self.kept)
    }

    /// Logs from now on what `log.level` says. False if RUST_LOG says it: that stays.
    pub fn set_level(&self, log: &Log) -> bool {
        if self.is_overridden {
            return false;
        }
        // Only a filter that is not there any more refuses another.
        usual_filter(log.level.as_str()).is_some_and(|filter| self.filter.reload(filter).is_ok())
    }
}

/// The filter of a level, or of what stands for it.
fn usual_filter(level: &str) -> Option<EnvFilter> {
    // It takes each tracker's bad certificate for an error of ours; the announce says it, too.
    let quiet = "rustls_platform_verifier=off".parse().ok()?;
    Some(EnvFilter::new(level).add_directive(quiet))
}

/// Sets up the log of the process. Hold the guard until the end: it writes out what is queued.
/// `usual` is the filter (as RUST_LOG has it) in place of the usual level, for a command that tells
/// its user by itself how it goes; who has set RUST_LOG or another level gets that.
///
/// # Errors
///
/// When RUST_LOG is wrong, the journal is absent, or the log was set up before.
pub fn init(
    log: &Log,
    usual: Option<&str>,
    environment: &Environment,
    cells: &Arc<ControlCells>,
) -> Result<(LogGuard, LogHandle), LoggingError> {
    let said = environment.text("RUST_LOG").filter(|text| !text.is_empty());
    let usual = match usual {
        Some(usual) if log.level == LogLevel::Info => usual,
        _ => log.level.as_str(),
    };
    let filter = match said {
        Some(text) => EnvFilter::try_new(text)?,
        None => usual_filter(usual).unwrap_or_else(|| EnvFilter::new(usual)),
    };
    let (filter, handle) = reload::Layer::new(filter);
    let handle = LogHandle {
        filter: handle,
        is_overridden: said.is_some(),
        kept: Arc::default(),
    };
    let counted = tracing_subscriber::registry()
        .with(filter)
        .with(Count(Arc::clone(cells)))
        .with(Keep(handle.kept()));
    let (queue, guard) = match log.format {
        LogFormat::Journald => {
            let journal = tracing_journald::layer().map_err(LoggingError::Journal)?;
            counted
                .with(journal)
                .try_init()
                .map_err(|_| LoggingError::Twice)?;
            return Ok((LogGuard::nothing_queued(), handle));
        }
        LogFormat::Human | LogFormat::Json => {
            writer::start(Arc::clone(cells)).map_err(LoggingError::Thread)?
        }
    };
    let result = if log.format == LogFormat::Json {
        counted.with(json(queue)).try_init()
    } else {
        let colour = std::io::stderr().is_terminal() && environment.text("NO_COLOR").is_none();
        counted.with(human(queue, colour)).try_init()
    };
    result.map_err(|_| LoggingError::Twice)?;
    Ok((guard, handle))
}

/// Lines for people: time, level, module, message, fields.
fn human<S, W>(writer: W, colour: bool) -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + 'static,
{
    let fields = debug_fn(|writer, field, value| {
        let text = escape(&format!("{value:?}"), FIELD_CHARACTERS_MAX);
        match field.name() {
            "message" => write!(writer, "{text}"),
            name => write!(writer, "{name}={text}"),
        }
    });
    // One blank between fields; without a delimiter they would run together.
    let fields = tracing_subscriber::field::MakeExt::delimited(fields, " ");
    tracing_subscriber::fmt::layer()
        .with_ansi(colour)
        .fmt_fields(fields)
        .with_writer(writer)
}

/// One JSON object a line.
fn json<S, W>(writer: W) -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + 'static,
{
    tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_writer(writer)
}

/// Counts the events of each level, for alerts on errors.
struct Count(Arc<ControlCells>);

impl<S: Subscriber> Layer<S> for Count {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        self.0.increment(match *event.metadata().level() {
            Level::ERROR => ControlCounter::LogError,
            Level::WARN => ControlCounter::LogWarn,
            Level::INFO => ControlCounter::LogInfo,
            Level::DEBUG => ControlCounter::LogDebug,
            Level::TRACE => ControlCounter::LogTrace,
        });
    }
}
