//! One announce over HTTP: families, redirects, bounds, and what the answer means.
//!
//! Limits: [`REDIRECTS_MAX`], `TRACKER_REPLY_BYTES_MAX` after decompression, the configured time
//! for everything. Does not: retry (the scheduler does) or decide when.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use proto::limits::TRACKER_REPLY_BYTES_MAX;
use proto::tracker::{AnnounceEvent, AnnounceReply, AnnounceRequest};
use reqwest::header::{HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{Response, StatusCode, Url};

use super::resolve::{Family, FamilyResolver, Names};
use super::schedule::Job;
use super::url::{host_name, is_announce_path, is_global, redacted_url, scrubbed, shown};
use super::{
    AnnounceConfig, AnnounceError, Identity, Outcome, REDIRECTS_MAX, RetryIn,
    SHUTDOWN_IN_FLIGHT_PER_HOST_MAX, TrackerReply,
};

/// How long a family that failed where the other one worked is left out for a host.
const FAMILY_SKIPPED: Duration = Duration::from_secs(30 * 60);
/// Hosts for which that is remembered; when full, all is forgotten.
const FAMILY_SKIPPED_MAX: usize = 4096;
/// The time to connect, TLS included; part of the whole.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an idle connection to a tracker is kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// The HTTP side of the announcer: four clients that differ in the addresses to which they connect.
pub(super) struct Client {
    config: AnnounceConfig,
    identity: Identity,
    names: Arc<Names>,
    v4: Scopes,
    v6: Scopes,
    skipped: Mutex<HashMap<(Arc<str>, Family), Instant>>,
}

/// One client connects anywhere, the other to global addresses only. Apart, so that a connection
/// kept by the first is never reused by the second.
struct Scopes {
    any: reqwest::Client,
    global: reqwest::Client,
}

impl Client {
    pub fn new(config: &AnnounceConfig, identity: Identity) -> Result<Client, AnnounceError> {
        Client::with_scope(config, identity, is_global)
    }

    /// As [`Client::new`], with another idea of what is a global address.
    pub fn with_scope(
        config: &AnnounceConfig,
        identity: Identity,
        is_global: fn(IpAddr) -> bool,
    ) -> Result<Client, AnnounceError> {
        let names = Arc::new(Names::new(is_global));
        let scopes = |family| -> Result<Scopes, AnnounceError> {
            let resolver = |global_only| {
                Arc::new(FamilyResolver {
                    names: names.clone(),
                    family,
                    global_only,
                })
            };
            let any = build(config, &resolver(false))?;
            Ok(Scopes {
                any,
                global: build(config, &resolver(true))?,
            })
        };
        let (v4, v6) = (scopes(Family::V4)?, scopes(Family::V6)?);
        let skipped = Mutex::new(HashMap::new());
        Ok(Client {
            config: config.clone(),
            identity,
            names,
            v4,
            v6,
            skipped,
        })
    }

    /// Announces once, over one family or both; see the policies of the parent module.
    pub async fn announce(self: Arc<Self>, job: Arc<Job>) -> Outcome {
        let url = match self.request_url(&job) {
            Ok(url) => url,
            Err(error) => return failed(error),
        };
        let host = host_name(&url).to_owned();
        let addresses =
            match tokio::time::timeout(self.config.timeout, self.names.lookup(&host)).await {
                Ok(Ok(addresses)) => addresses,
                Ok(Err(error)) => return failed(error.to_string()),
                Err(_) => return failed("resolving the name took too long".to_owned()),
            };
        let global_only = !self.config.allow_private_trackers
            || addresses
                .iter()
                .any(|address| (self.names.is_global)(*address));
        let mut outcome = self.over_families(&job, url, &addresses, global_only).await;
        if let Outcome::Reply(reply) = &mut outcome
            && global_only
        {
            let is_global = self.names.is_global;
            reply.peers.retain(|peer| is_global(peer.ip()));
        }
        outcome
    }

    /// Announces over the families that the tracker has.
    async fn over_families(
        &self,
        job: &Job,
        url: Url,
        addresses: &[IpAddr],
        global_only: bool,
    ) -> Outcome {
        let families = self.families(&job.target.host, addresses, global_only);
        match families[..] {
            [] => failed("its addresses are not global, and other ones are not allowed".to_owned()),
            [only] => self.over(only, url, global_only).await,
            [first, second, ..] if job.private => {
                let outcome = self.over(first, url.clone(), global_only).await;
                if !matches!(outcome, Outcome::Failed { .. }) {
                    return outcome;
                }
                let other = self.over(second, url, global_only).await;
                self.remember(&job.target.host, (first, &outcome), (second, &other));
                if matches!(other, Outcome::Failed { .. }) {
                    outcome
                } else {
                    other
                }
            }
            [first, second, ..] => {
                let (one, other) = tokio::join!(
                    self.over(first, url.clone(), global_only),
                    self.over(second, url, global_only)
                );
                self.remember(&job.target.host, (first, &one), (second, &other));
                merged(one, other)
            }
        }
    }

    fn request_url(&self, job: &Job) -> Result<Url, String> {
        let Identity { peer_id, key, port } = self.identity;
        let totals = job.totals.now();
        let wants_peers = totals.left > 0 && job.event != AnnounceEvent::Stopped;
        let request = AnnounceRequest {
            uploaded_bytes: totals.uploaded,
            downloaded_bytes: totals.downloaded,
            left_bytes: Some(totals.left),
            event: job.event,
            peers_wanted: Some(if wants_peers { self.config.numwant } else { 0 }),
            key: Some(format!("{key:08x}").into_bytes()),
            tracker_id: job.tracker_id.as_ref().map(|id| id.to_vec()),
            ..AnnounceRequest::new(job.info_hash, peer_id, port)
        };
        let url = request.url(job.target.url.as_str());
        Url::parse(&url).map_err(|_| "the tracker's URL with a query is no URL".to_owned())
    }

    /// The families to announce over, the resolver's first choice first.
    fn families(&self, host: &Arc<str>, addresses: &[IpAddr], global_only: bool) -> Vec<Family> {
        let mut families = Vec::new();
        for address in addresses {
            let family = Family::of(*address);
            let allowed = !global_only || (self.names.is_global)(*address);
            if allowed && !families.contains(&family) {
                families.push(family);
            }
        }
        if families.len() > 1 {
            let skipped = self.skipped.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            families.retain(|family| {
                let until = skipped.get(&(host.clone(), *family));
                until.is_none_or(|until| *until <= now)
            });
        }
        families
    }

    /// Leaves out a family that failed where the other one did not.
    fn remember(&self, host: &Arc<str>, one: (Family, &Outcome), other: (Family, &Outcome)) {
        let bad = |outcome: &Outcome| matches!(outcome, Outcome::Failed { .. });
        let family = match (bad(one.1), bad(other.1)) {
            (true, false) => one.0,
            (false, true) => other.0,
            _ => return,
        };
        tracing::debug!(tracker = %host, ?family, "left out for half an hour: the other one works");
        let mut skipped = self.skipped.lock().unwrap_or_else(PoisonError::into_inner);
        if skipped.len() >= FAMILY_SKIPPED_MAX {
            skipped.clear();
        }
        skipped.insert((host.clone(), family), Instant::now() + FAMILY_SKIPPED);
    }

    async fn over(&self, family: Family, url: Url, global_only: bool) -> Outcome {
        let exchange = self.exchange(family, url, global_only);
        match tokio::time::timeout(self.config.timeout, exchange).await {
            Ok(outcome) => outcome,
            Err(_) => failed(format!("no answer within {:?}", self.config.timeout)),
        }
    }

    /// Follows redirects to the answer.
    async fn exchange(&self, family: Family, mut url: Url, mut global_only: bool) -> Outcome {
        let clients = if family == Family::V4 {
            &self.v4
        } else {
            &self.v6
        };
        for _ in 0..=REDIRECTS_MAX {
            match self.scope_of(&url, global_only).await {
                Ok(global) => global_only |= global,
                Err(error) => return failed(error),
            }
            let client = if global_only {
                &clients.global
            } else {
                &clients.any
            };
            let response = match client.get(url.clone()).send().await {
                Ok(response) => response,
                Err(error) => return failed(described(error)),
            };
            if !response.status().is_redirection() {
                return answer(response, &url).await;
            }
            match redirected(response.status(), response.headers().get(LOCATION), &url) {
                Ok(next) => url = next,
                Err(error) => return failed(error),
            }
        }
        failed(format!("more than {REDIRECTS_MAX} redirects"))
    }

    /// Whether a URL leads to a global address; an error if it may not be asked.
    async fn scope_of(&self, url: &Url, global_only: bool) -> Result<bool, String> {
        let addresses = self.names.lookup(host_name(url)).await;
        let addresses = addresses.map_err(|error| error.to_string())?;
        if addresses
            .iter()
            .any(|address| (self.names.is_global)(*address))
        {
            return Ok(true);
        }
        if global_only {
            return Err(format!(
                "{} has no global address, and no other is allowed here",
                redacted_url(url)
            ));
        }
        if !is_announce_path(url) {
            return Err(format!(
                "{} is not a global address and its path does not end in announce",
                redacted_url(url)
            ));
        }
        Ok(false)
    }
}

fn build(
    config: &AnnounceConfig,
    resolver: &Arc<FamilyResolver>,
) -> Result<reqwest::Client, AnnounceError> {
    let idle_max = config
        .in_flight_per_host_max
        .max(SHUTDOWN_IN_FLIGHT_PER_HOST_MAX);
    let builder = || {
        reqwest::Client::builder()
            .user_agent(&config.user_agent)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .http1_only()
            .connect_timeout(CONNECT_TIMEOUT.min(config.timeout))
            .pool_max_idle_per_host(idle_max)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .dns_resolver(resolver.clone())
    };
    let mut extra = Vec::new();
    for (number, pem) in config.extra_ca_pem.iter().enumerate() {
        let certificate = reqwest::Certificate::from_pem(pem);
        let text = |error: reqwest::Error| AnnounceError::Certificate(number, described(error));
        extra.push(certificate.map_err(text)?);
    }
    let built = builder().tls_certs_merge(extra.clone()).build();
    built.or_else(|error| {
        // A machine without certificate authorities (a bare container) still has its HTTP trackers.
        tracing::warn!(
            error = described(error),
            "no system certificate authorities, so HTTPS trackers fail: install ca-certificates"
        );
        let client = builder().tls_certs_only(extra).build();
        client.map_err(|error| AnnounceError::Client(described(error)))
    })
}

/// The place a redirect leads to, if it may be followed.
fn redirected(
    status: StatusCode,
    location: Option<&HeaderValue>,
    from: &Url,
) -> Result<Url, String> {
    let bad = || format!("HTTP {} with a bad Location", status.as_u16());
    let location = location.ok_or_else(|| format!("HTTP {} without Location", status.as_u16()))?;
    let next = from
        .join(location.to_str().map_err(|_| bad())?)
        .map_err(|_| bad())?;
    match (from.scheme(), next.scheme()) {
        ("https", "http") => return Err("a redirect from https to http is refused".to_owned()),
        (_, "http" | "https") => {}
        (_, other) => {
            return Err(format!(
                "a redirect to the scheme {} is refused",
                shown(other)
            ));
        }
    }
    if !next.username().is_empty() || next.password().is_some() {
        return Err("a redirect with a user name is refused".to_owned());
    }
    Ok(next)
}

/// Reads the answer, not more than its limit, and says what it means.
async fn answer(mut response: Response, url: &Url) -> Outcome {
    let status = response.status();
    let retry = retry_after(&response);
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > TRACKER_REPLY_BYTES_MAX => {
                return failed(format!(
                    "an answer of more than {TRACKER_REPLY_BYTES_MAX} bytes"
                ));
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => break,
            Err(error) => return failed(described(error)),
        }
    }
    meaning(status, retry, &body, url)
}

/// What an answer means. A body that says `failure reason` does so whatever the status is.
fn meaning(status: StatusCode, retry: Option<RetryIn>, body: &[u8], url: &Url) -> Outcome {
    let error = match AnnounceReply::parse(body) {
        Ok(AnnounceReply::Failure(failure)) => {
            let retry = failure.retry_in.map(|retry_in| match retry_in {
                proto::tracker::RetryIn::Never => RetryIn::Never,
                proto::tracker::RetryIn::Minutes(minutes) => {
                    RetryIn::After(Duration::from_secs(60 * u64::from(minutes)))
                }
            });
            return Outcome::Refused {
                reason: scrubbed(&failure.reason, url),
                retry,
            };
        }
        Ok(AnnounceReply::Success(reply)) if status.is_success() => {
            return Outcome::Reply(TrackerReply {
                interval: Duration::from_secs(reply.interval.seconds.into()),
                interval_min: reply
                    .min_interval
                    .map(|i| Duration::from_secs(i.seconds.into())),
                seeders: reply.complete,
                leechers: reply.incomplete,
                peers: reply.peers.iter().map(|peer| peer.address).collect(),
                tracker_id: reply.tracker_id,
                warning: reply.warning.map(|warning| scrubbed(&warning, url)),
            });
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

fn retry_after(response: &Response) -> Option<RetryIn> {
    let text = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    Some(RetryIn::After(Duration::from_secs(
        text.trim().parse().ok()?,
    )))
}

fn failed(error: String) -> Outcome {
    Outcome::Failed { error, retry: None }
}

/// The innermost cause of an HTTP error: the outer ones only repeat that a request to a URL failed.
fn described(error: reqwest::Error) -> String {
    let error = error.without_url();
    if error.is_timeout() {
        return "timed out while connecting".to_owned();
    }
    let mut cause: &dyn std::error::Error = &error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    shown(&cause.to_string())
}

/// One announce over two families: good if either is.
fn merged(one: Outcome, other: Outcome) -> Outcome {
    match (one, other) {
        (Outcome::Reply(one), Outcome::Reply(other)) => Outcome::Reply(TrackerReply {
            interval: one.interval.max(other.interval),
            interval_min: one.interval_min.max(other.interval_min),
            seeders: one.seeders.max(other.seeders),
            leechers: one.leechers.max(other.leechers),
            peers: [one.peers, other.peers].concat(),
            tracker_id: one.tracker_id.or(other.tracker_id),
            warning: one.warning.or(other.warning),
        }),
        (reply @ Outcome::Reply(_), _) | (_, reply @ Outcome::Reply(_)) => reply,
        (refused @ Outcome::Refused { .. }, _) | (_, refused @ Outcome::Refused { .. }) => refused,
        (one, _) => one,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_that_may_be_followed() {
        let follow = |from: &str, to: &str| {
            let location = HeaderValue::from_str(to).unwrap();
            let from = Url::parse(from).unwrap();
            redirected(StatusCode::FOUND, Some(&location), &from).map(String::from)
        };
        let (http, https) = (
            "http://a.example/announce?x=1",
            "https://a.example/announce?x=1",
        );
        let target = "https://b.example/announce?x=1";
        assert_eq!(follow(http, target).as_deref(), Ok(target));
        assert_eq!(follow(https, target).as_deref(), Ok(target));
        assert_eq!(follow(http, "/b?y").as_deref(), Ok("http://a.example/b?y"));
        for (from, to) in [
            (https, "http://a.example/announce"),
            (http, "file:///etc/passwd"),
            (http, "udp://a.example:80/"),
            (http, "http://user:word@a.example/announce"),
            (http, "http://"),
        ] {
            assert!(follow(from, to).is_err(), "{from} {to}");
        }
        assert!(redirected(StatusCode::FOUND, None, &Url::parse(http).unwrap()).is_err());
    }

    #[test]
    fn what_answers_mean() {
        let url = Url::parse("http://a.example/0123456789abcdef/announce").unwrap();
        let meaning = |status: u16, body: &[u8]| {
            meaning(StatusCode::from_u16(status).unwrap(), None, body, &url)
        };
        let Outcome::Reply(reply) = meaning(
            200,
            b"d8:completei3e10:incompletei4e8:intervali900e12:min intervali99999999e\
              5:peers12:\x7f\x00\x00\x01\x1a\xe1\x7f\x00\x00\x01\x00\x00\
              10:tracker id2:xy15:warning message4:slowe",
        ) else {
            panic!("a good reply is refused");
        };
        assert_eq!(
            (reply.seeders, reply.leechers, reply.peers.len()),
            (Some(3), Some(4), 1)
        );
        assert_eq!(reply.interval, Duration::from_secs(900));
        assert_eq!(reply.interval_min, Some(Duration::from_secs(86_400)));
        assert_eq!(reply.tracker_id.as_deref(), Some(&b"xy"[..]));
        assert_eq!(reply.warning.as_deref(), Some("slow"));

        let refusal = b"d14:failure reason20:bad 0123456789abcdef8:retry in5:nevere";
        for status in [200, 400, 503] {
            let Outcome::Refused { reason, retry } = meaning(status, refusal) else {
                panic!("a refusal is not seen with status {status}");
            };
            assert_eq!((reason.as_str(), retry), ("bad …", Some(RetryIn::Never)));
        }
        let never = Some(RetryIn::Never);
        assert!(matches!(meaning(410, b""), Outcome::Refused { retry, .. } if retry == never));
        assert!(matches!(
            meaning(404, b"<html>"),
            Outcome::Refused { retry: None, .. }
        ));
        for (status, body) in [
            (200, &b"<html>"[..]),
            (200, b""),
            (200, b"i1e"),
            (500, b"de"),
            (429, b""),
            (304, b""),
        ] {
            assert!(
                matches!(meaning(status, body), Outcome::Failed { .. }),
                "{status}"
            );
        }
    }

    #[test]
    fn two_families_are_one_announce() {
        let good = |seeders| {
            let reply = TrackerReply {
                seeders: Some(seeders),
                peers: vec![([192, 0, 2, 1], seeders as u16).into(); 2],
                ..Default::default()
            };
            Outcome::Reply(reply)
        };
        let refused = || Outcome::Refused {
            reason: "no".to_owned(),
            retry: None,
        };
        let bad = || failed("unreachable".to_owned());
        let both = merged(good(3), good(5));
        assert!(matches!(both, Outcome::Reply(r) if r.seeders == Some(5) && r.peers.len() == 4));
        for (one, other) in [(good(3), bad()), (bad(), good(3)), (refused(), good(3))] {
            assert!(matches!(merged(one, other), Outcome::Reply(_)));
        }
        assert!(matches!(merged(bad(), refused()), Outcome::Refused { .. }));
        assert!(matches!(merged(bad(), bad()), Outcome::Failed { .. }));
    }
}
