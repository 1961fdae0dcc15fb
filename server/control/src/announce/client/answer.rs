//! What a tracker's answer means, by HTTP and by UDP, and two families' answers as one.
//!
//! Every text of a stranger in it is cut, escaped and rid of passkeys. Does not: fetch anything.

use std::time::Duration;

use proto::ids::InfoHashV1;
use proto::tracker::{AnnounceReply, AnnounceSuccess, Failure, ScrapeFile, ScrapeReply};
use reqwest::{StatusCode, Url};

use super::super::url::scrubbed;
use super::super::{Outcome, RetryIn, ScrapeOutcome, TrackerReply};
use super::Body;

/// What an answer means. A body that says `failure reason` does so whatever the status is.
pub(super) fn meaning(body: &Body, url: &Url) -> Outcome {
    let (status, retry) = (body.status, body.retry);
    if status.is_success() && body.bytes.is_empty() {
        return Outcome::Failed {
            error: format!("HTTP {status} with nothing in it, which no tracker sends: is it one?"),
            retry,
        };
    }
    let error = match AnnounceReply::parse(&body.bytes) {
        Ok(AnnounceReply::Failure(failure)) => return refused(&failure, url),
        Ok(AnnounceReply::Success(reply)) if status.is_success() => {
            return Outcome::Reply(taken(reply, url));
        }
        Ok(_) => None,
        Err(error) => Some(error),
    };
    if status == StatusCode::GONE {
        let reason = "HTTP 410: the tracker is gone for good".to_owned();
        return Outcome::Refused {
            reason,
            retry: Some(RetryIn::Never),
        };
    }
    match error {
        Some(error) if status.is_success() => Outcome::Failed {
            error: scrubbed(&error.to_string(), url),
            retry,
        },
        _ if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS => {
            Outcome::Refused {
                reason: format!("HTTP {status}"),
                retry,
            }
        }
        _ => Outcome::Failed {
            error: format!("HTTP {status}"),
            retry,
        },
    }
}

/// What the answer to a scrape means.
pub(super) fn scrape_meaning(body: &Body, asked: &[InfoHashV1], url: &Url) -> ScrapeOutcome {
    match ScrapeReply::parse(&body.bytes) {
        Ok(ScrapeReply::Failure(failure)) => ScrapeOutcome::Refused(scrubbed(&failure.reason, url)),
        Ok(ScrapeReply::Files(files)) if body.status.is_success() => {
            let known = |hash: &InfoHashV1| Some((*hash, *files.get(hash)?));
            let files: Vec<(InfoHashV1, ScrapeFile)> = asked.iter().filter_map(known).collect();
            ScrapeOutcome::Files(files)
        }
        Err(error) if body.status.is_success() => {
            ScrapeOutcome::Failed(scrubbed(&error.to_string(), url))
        }
        _ if body.status.is_client_error() => {
            ScrapeOutcome::Refused(format!("HTTP {}", body.status))
        }
        _ => ScrapeOutcome::Failed(format!("HTTP {}", body.status)),
    }
}

/// What is kept of a good answer.
pub(super) fn taken(reply: AnnounceSuccess, url: &Url) -> TrackerReply {
    let seconds = |interval: proto::tracker::Interval| Duration::from_secs(interval.seconds.into());
    TrackerReply {
        interval: seconds(reply.interval),
        interval_min: reply.min_interval.map(seconds),
        seeders: reply.complete,
        leechers: reply.incomplete,
        downloaded: reply.downloaded,
        peers: reply.peers.iter().map(|peer| peer.address).collect(),
        external_ip: reply.external_ip,
        tracker_id: reply.tracker_id,
        warning: reply.warning.map(|warning| scrubbed(&warning, url)),
    }
}

pub(super) fn refused(failure: &Failure, url: &Url) -> Outcome {
    let retry = failure.retry_in.map(|retry_in| match retry_in {
        proto::tracker::RetryIn::Never => RetryIn::Never,
        proto::tracker::RetryIn::Minutes(minutes) => {
            RetryIn::After(Duration::from_secs(60 * u64::from(minutes)))
        }
    });
    Outcome::Refused {
        reason: scrubbed(&failure.reason, url),
        retry,
    }
}

/// One announce over two families: good if either is.
pub(super) fn merged(one: Outcome, other: Outcome) -> Outcome {
    match (one, other) {
        (Outcome::Reply(one), Outcome::Reply(other)) => Outcome::Reply(TrackerReply {
            interval: one.interval.max(other.interval),
            interval_min: one.interval_min.max(other.interval_min),
            seeders: one.seeders.max(other.seeders),
            leechers: one.leechers.max(other.leechers),
            downloaded: one.downloaded.max(other.downloaded),
            external_ip: one.external_ip.or(other.external_ip),
            peers: [one.peers, other.peers].concat(),
            tracker_id: one.tracker_id.or(other.tracker_id),
            warning: one.warning.or(other.warning),
        }),
        (reply @ Outcome::Reply(_), _) | (_, reply @ Outcome::Reply(_)) => reply,
        (refused @ Outcome::Refused { .. }, _) | (_, refused @ Outcome::Refused { .. }) => refused,
        (one, _) => one,
    }
}
