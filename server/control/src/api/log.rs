//! The last lines of the server's log.
//!
//! Limits: those of [`crate::logging::KeptLines`]. Does not: send them as events; who follows the log
//! asks again from `last` on.

use super::input::Query;
use super::problem::Refusal;
use super::types::{LogLevel, LogLine, LogLines, LogQuery};
use super::{Answer, Api, ok};
use crate::logging::{Found, LINES_MAX, Line};
use axum::extract::State;
use seedring_metrics::ControlCounter;
use std::sync::Arc;
use tracing::Level;

/// The last lines of the server's log, or those since one that is known.
#[utoipa::path(get, path = "/log", tag = "server", params(LogQuery),
    responses((status = 200, description = "Lines of the log", body = LogLines)))]
pub(super) async fn log(State(api): State<Arc<Api>>, Query(query): Query<LogQuery>) -> Answer {
    api.count(ControlCounter::ApiServer);
    let limit = match query.limit {
        0 => {
            let detail = "in the query, limit: at least 1";
            return Err(Refusal::field("limit", detail));
        }
        limit => limit.min(LINES_MAX),
    };
    let least = tracing_level(query.level);
    ok(&lines(api.facts.log.find(query.since, least, limit)))
}

fn tracing_level(level: LogLevel) -> Level {
    match level {
        LogLevel::Error => Level::ERROR,
        LogLevel::Warn => Level::WARN,
        LogLevel::Info => Level::INFO,
        LogLevel::Debug => Level::DEBUG,
        LogLevel::Trace => Level::TRACE,
    }
}

fn lines(found: Found) -> LogLines {
    LogLines {
        lines: found.lines.into_iter().map(line).collect(),
        last: found.last,
        has_more: found.has_more,
        missed: found.missed,
    }
}

fn line(line: Line) -> LogLine {
    LogLine {
        number: line.number,
        at_ms: line.at_ms,
        level: match line.level {
            Level::ERROR => LogLevel::Error,
            Level::WARN => LogLevel::Warn,
            Level::INFO => LogLevel::Info,
            Level::DEBUG => LogLevel::Debug,
            Level::TRACE => LogLevel::Trace,
        },
        target: line.target.to_owned(),
        text: line.text,
    }
}
