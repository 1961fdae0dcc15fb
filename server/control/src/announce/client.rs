//! One announce or scrape: families, address rules, redirects, bounds.
//!
//! HTTP is asked here, UDP by `udp`, and over a proxy by `proxied`; `answer` reads what comes.
//! Limits: [`REDIRECTS_MAX`], `TRACKER_REPLY_BYTES_MAX` after decompression, [`UDP_ADDRESSES_MAX`],
//! the configured time for everything. Does not: retry (the scheduler does, and `udp` within that
//! time) or decide when.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use proto::address::{may_name, scope};
use proto::ids::InfoHashV1;
use proto::limits::TRACKER_REPLY_BYTES_MAX;
use proto::tracker::udp::{InfoHashes, UdpAnnounce, UdpReply, UdpRequest, UrlData};
use proto::tracker::{AnnounceEvent, AnnounceRequest, scrape_request_url, scrape_url};
use reqwest::header::{HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{Response, StatusCode, Url};
use seedring_metrics::ControlCells;

use super::own::drop_own;
use super::resolve::{Family, FamilyResolver, Names};
use super::schedule::{Job, ScrapeJob};
use super::tiers::{Target, Transport};
use super::udp::UdpClient;
use super::url::{
    host_name, is_announce_path, is_global, is_scrape_path, redacted_url, scrubbed, shown,
};
use super::{
    AnnounceConfig, AnnounceError, Authority, Identity, Outcome, REDIRECTS_MAX, RetryIn,
    SHUTDOWN_IN_FLIGHT_PER_HOST_MAX, ScrapeOutcome,
};

mod answer;
mod proxied;
mod words;

pub(super) use proxied::NO_UDP;
use words::described;

/// Whether a text is a proxy's URL that announces can be made through.
pub(crate) fn is_proxy_url(text: &str) -> bool {
    proxied::proxy_of(text).is_some()
}

use answer::{meaning, merged, refused, scrape_meaning, taken};

/// How long a family that failed where the other one worked is left out for a host.
const FAMILY_SKIPPED: Duration = Duration::from_secs(30 * 60);
/// Hosts for which that is remembered; when full, all is forgotten.
const FAMILY_SKIPPED_MAX: usize = 4096;
/// The time to connect, TLS included; part of the whole.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an idle connection to a tracker is kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Addresses of one UDP tracker that are tried in turn.
const UDP_ADDRESSES_MAX: usize = 4;

/// The network side of the announcer: four HTTP clients that differ in the addresses to which they
/// connect, and one for UDP; or one HTTP client behind a proxy.
pub(super) struct Client {
    config: AnnounceConfig,
    identity: Identity,
    names: Arc<Names>,
    v4: Scopes,
    v6: Scopes,
    udp: UdpClient,
    proxied: Option<reqwest::Client>,
    skipped: Mutex<HashMap<(Arc<str>, Family), Instant>>,
}

/// One client connects anywhere, the other to global addresses only. Apart, so that a connection
/// kept by the first is never reused by the second.
struct Scopes {
    any: reqwest::Client,
    global: reqwest::Client,
}

/// A tracker and what its name stands for.
#[derive(Clone, Copy)]
struct Place<'a> {
    target: &'a Target,
    addresses: &'a [IpAddr],
    /// Only global addresses may be asked.
    global_only: bool,
}

/// The body of an HTTP answer, and what came with it.
struct Body {
    /// The address that answered, which may be a proxy's.
    from: Option<IpAddr>,
    status: StatusCode,
    retry: Option<RetryIn>,
    bytes: Vec<u8>,
}

impl Client {
    pub fn new(
        config: &AnnounceConfig,
        identity: Identity,
        cells: Arc<ControlCells>,
    ) -> Result<Client, AnnounceError> {
        let udp = UdpClient::new(config.binding.clone(), cells);
        Client::with_scope(config, identity, udp, is_global)
    }

    /// As [`Client::new`], with another idea of what is a global address.
    pub fn with_scope(
        config: &AnnounceConfig,
        identity: Identity,
        udp: UdpClient,
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
            let any = build(config, family, &resolver(false))?;
            Ok(Scopes {
                any,
                global: build(config, family, &resolver(true))?,
            })
        };
        let (v4, v6) = (scopes(Family::V4)?, scopes(Family::V6)?);
        Ok(Client {
            config: config.clone(),
            identity,
            names,
            v4,
            v6,
            udp,
            proxied: proxied::build(config)?,
            skipped: Mutex::new(HashMap::new()),
        })
    }

    /// Makes a name stand for these addresses.
    #[cfg(test)]
    pub fn know(&self, name: &str, addresses: Arc<[IpAddr]>) {
        self.names.know(name, addresses);
    }

    /// Announces once, over one family or both; see the policies of the parent module.
    pub async fn announce(self: Arc<Self>, job: Arc<Job>) -> Outcome {
        let mut outcome = if let Some(proxied) = &self.proxied {
            self.announce_proxied(proxied, &job).await
        } else {
            self.announce_directly(&job).await
        };
        if let Outcome::Reply(reply) = &mut outcome {
            drop_own(&mut reply.peers, self.identity.port, reply.external_ip);
        }
        outcome
    }

    async fn announce_directly(&self, job: &Job) -> Outcome {
        let addresses = match self.lookup(&job.target).await {
            Ok(addresses) => addresses,
            Err(error) => return failed(error),
        };
        let place = self.place(&job.target, &addresses);
        self.over_families(job, place).await
    }

    /// Asks once about torrents, over the first family that the tracker has.
    pub async fn scrape(self: Arc<Self>, job: Arc<ScrapeJob>) -> ScrapeOutcome {
        let scrape = async {
            if let Some(proxied) = &self.proxied {
                return self.scrape_proxied(proxied, &job).await;
            }
            let addresses = self.lookup(&job.target).await?;
            let place = self.place(&job.target, &addresses);
            let families = self.families(place);
            let none = || self.not_allowed(place);
            let family = *families.first().ok_or_else(none)?;
            match job.target.transport {
                Transport::Udp => self.scrape_udp(family, place, &job.info_hashes).await,
                Transport::Http => {
                    let url = scrape_target(&job)?;
                    let (body, url) = self.exchange(family, url, place.global_only).await?;
                    Ok(scrape_meaning(&body, &job.info_hashes, &url))
                }
            }
        };
        match tokio::time::timeout(self.config.timeout, scrape).await {
            Ok(outcome) => outcome.unwrap_or_else(ScrapeOutcome::Failed),
            Err(_) => ScrapeOutcome::Failed(self.timed_out()),
        }
    }

    async fn lookup(&self, target: &Target) -> Result<Arc<[IpAddr]>, String> {
        let lookup = self.names.lookup(host_name(&target.url));
        match tokio::time::timeout(self.config.timeout, lookup).await {
            Ok(addresses) => addresses.map_err(|error| error.to_string()),
            Err(_) => Err("resolving the name took too long".to_owned()),
        }
    }

    fn place<'a>(&self, target: &'a Target, addresses: &'a [IpAddr]) -> Place<'a> {
        let is_global = self.names.is_global;
        let global_only = !self.config.allow_private_trackers
            || addresses.iter().any(|address| is_global(*address));
        Place {
            target,
            addresses,
            global_only,
        }
    }

    /// Announces over the families that the tracker has.
    async fn over_families(&self, job: &Job, place: Place<'_>) -> Outcome {
        let families = self.families(place);
        match families[..] {
            [] => failed(self.not_allowed(place)),
            [only] => self.over(only, job, place).await,
            [first, second, ..] if job.private => {
                let outcome = self.over(first, job, place).await;
                if !matches!(outcome, Outcome::Failed { .. }) {
                    return outcome;
                }
                let other = self.over(second, job, place).await;
                self.remember(&job.target.host, (first, &outcome), (second, &other));
                if matches!(other, Outcome::Failed { .. }) {
                    outcome
                } else {
                    other
                }
            }
            [first, second, ..] => {
                let (one, other) =
                    tokio::join!(self.over(first, job, place), self.over(second, job, place));
                self.remember(&job.target.host, (first, &one), (second, &other));
                merged(one, other)
            }
        }
    }

    fn request(&self, job: &Job) -> AnnounceRequest {
        let Identity { peer_id, key, port } = self.identity;
        let totals = job.totals.now();
        let peers_wanted = match totals.left {
            _ if job.event == AnnounceEvent::Stopped => 0,
            0 => self.config.numwant_complete,
            _ => self.config.numwant,
        };
        AnnounceRequest {
            uploaded_bytes: totals.uploaded,
            downloaded_bytes: totals.downloaded,
            left_bytes: Some(totals.left),
            event: job.event,
            peers_wanted: Some(peers_wanted),
            key: Some(format!("{key:08x}").into_bytes()),
            tracker_id: job.tracker_id.as_ref().map(|id| id.to_vec()),
            ..AnnounceRequest::new(job.info_hash, peer_id, port)
        }
    }

    fn request_url(&self, job: &Job) -> Result<Url, String> {
        let url = self.request(job).url(job.target.url.as_str());
        Url::parse(&url).map_err(|_| "the tracker's URL with a query is no URL".to_owned())
    }

    /// The families to ask by, the resolver's first choice first.
    fn families(&self, place: Place<'_>) -> Vec<Family> {
        let mut families = Vec::new();
        for address in place.addresses {
            let family = Family::of(*address);
            let allowed = (!place.global_only || (self.names.is_global)(*address))
                && self.config.binding.allows(family);
            if allowed && !families.contains(&family) {
                families.push(family);
            }
        }
        if families.len() > 1 {
            let skipped = self.skipped.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            families.retain(|family| {
                let until = skipped.get(&(place.target.host.clone(), *family));
                until.is_none_or(|until| *until <= now)
            });
        }
        families
    }

    /// Why none of a tracker's addresses may be asked.
    fn not_allowed(&self, place: Place<'_>) -> String {
        let is_bound = |ip: &&IpAddr| self.config.binding.allows(Family::of(**ip));
        match place.addresses.iter().find(is_bound) {
            Some(inside) => format!(
                "its address {inside} is inside a network: trackers there are asked with \
                 announce.allow_private_trackers, or by `get` if --tracker names them"
            ),
            None => "it has no address of the family that announce.bind_v4 or announce.bind_v6 \
                     names"
                .to_owned(),
        }
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

    async fn over(&self, family: Family, job: &Job, place: Place<'_>) -> Outcome {
        let announce = async {
            match job.target.transport {
                Transport::Udp => self.announce_udp(family, job, place).await,
                Transport::Http => {
                    let url = self.request_url(job)?;
                    let (body, url) = self.exchange(family, url, place.global_only).await?;
                    // After redirects it is another that has answered.
                    Ok(self.believed(meaning(&body, &url), body.from))
                }
            }
        };
        match tokio::time::timeout(self.config.timeout, announce).await {
            Ok(outcome) => outcome.unwrap_or_else(failed),
            Err(_) => failed(self.timed_out()),
        }
    }

    /// An outcome with those peers only that somebody at `from` may name to us.
    fn believed(&self, mut outcome: Outcome, from: Option<IpAddr>) -> Outcome {
        if let Outcome::Reply(reply) = &mut outcome {
            reply.peers.retain(|peer| self.may_name(from, *peer));
        }
        outcome
    }

    /// Whether somebody at `from` may name a peer to us; who is not known may name what is global.
    pub(super) fn may_name(&self, from: Option<IpAddr>, peer: SocketAddr) -> bool {
        let is_global = self.names.is_global;
        match from {
            Some(from) if !is_global(from) => may_name(from, peer),
            _ => is_global(peer.ip()),
        }
    }

    fn timed_out(&self) -> String {
        format!("no answer within {:?}", self.config.timeout)
    }

    async fn announce_udp(
        &self,
        family: Family,
        job: &Job,
        place: Place<'_>,
    ) -> Result<Outcome, String> {
        let request = self.request(job);
        let announce = UdpAnnounce {
            info_hash: request.info_hash,
            peer_id: request.peer_id,
            downloaded_bytes: request.downloaded_bytes,
            left_bytes: request.left_bytes.unwrap_or(0),
            uploaded_bytes: request.uploaded_bytes,
            event: request.event,
            ip: 0,
            key: self.identity.key,
            peers_wanted: request.peers_wanted,
            port: request.port,
        };
        let url = &place.target.url;
        let url_data = url_data(url);
        let addresses = self.udp_addresses(family, place);
        let reply = self.udp.ask(&addresses, |connection, transaction| {
            let url_data = UrlData::new(url_data.as_bytes());
            let mut out = Vec::new();
            let request = UdpRequest::Announce {
                connection,
                transaction,
                announce,
                url_data,
            };
            request.encode(&mut out);
            out
        });
        match reply.await.map_err(|error| scrubbed(&error, url))? {
            UdpReply::Announce { success, .. } => {
                let outcome = Outcome::Reply(taken(success, url));
                // Which of them has answered is not told: each may name what all may.
                let is_global = self.names.is_global;
                let widest = |ip: &IpAddr| (is_global(*ip), scope(*ip));
                let from = addresses.iter().map(SocketAddr::ip).max_by_key(widest);
                Ok(self.believed(outcome, from))
            }
            UdpReply::Error { failure, .. } => Ok(refused(&failure, url)),
            _ => Err("an answer to an announce that is none".to_owned()),
        }
    }

    async fn scrape_udp(
        &self,
        family: Family,
        place: Place<'_>,
        info_hashes: &[InfoHashV1],
    ) -> Result<ScrapeOutcome, String> {
        let addresses = self.udp_addresses(family, place);
        let reply = self.udp.ask(&addresses, |connection, transaction| {
            let mut out = Vec::new();
            let request = UdpRequest::Scrape {
                connection,
                transaction,
                info_hashes: InfoHashes::new(info_hashes),
            };
            request.encode(&mut out);
            out
        });
        let url = &place.target.url;
        match reply.await.map_err(|error| scrubbed(&error, url))? {
            UdpReply::Scrape { files, .. } => {
                let files = info_hashes.iter().copied().zip(files);
                Ok(ScrapeOutcome::Files(files.collect()))
            }
            UdpReply::Error { failure, .. } => {
                Ok(ScrapeOutcome::Refused(scrubbed(&failure.reason, url)))
            }
            _ => Err("an answer to a scrape that is none".to_owned()),
        }
    }

    /// The addresses of a family that may be asked. There is no rule for the path, as HTTP has one:
    /// all that an address gets before it has answered like a tracker are 16 fixed bytes.
    fn udp_addresses(&self, family: Family, place: Place<'_>) -> Vec<SocketAddr> {
        let port = place.target.url.port_or_known_default().unwrap_or(80);
        let right = |address: &&IpAddr| {
            Family::of(**address) == family
                && (!place.global_only || (self.names.is_global)(**address))
        };
        let right = place.addresses.iter().filter(right).take(UDP_ADDRESSES_MAX);
        right
            .map(|address| SocketAddr::new(*address, port))
            .collect()
    }

    /// Follows redirects to the answer; says from which URL it came.
    async fn exchange(
        &self,
        family: Family,
        mut url: Url,
        mut global_only: bool,
    ) -> Result<(Body, Url), String> {
        let clients = if family == Family::V4 {
            &self.v4
        } else {
            &self.v6
        };
        for _ in 0..=REDIRECTS_MAX {
            self.keep_to_binding(family, &url)?;
            global_only |= self.scope_of(&url, global_only).await?;
            let client = if global_only {
                &clients.global
            } else {
                &clients.any
            };
            match get(client, &url).await? {
                Step::Answer(body) => return Ok((body, url)),
                Step::Redirect(next) => url = next,
            }
        }
        Err(format!("more than {REDIRECTS_MAX} redirects"))
    }

    /// Refuses an address in a URL, as a redirect may have one, that is not of the family whose address
    /// we are bound to: no resolver is asked about it, and a socket for it would have no address to be
    /// bound to. One of IPv4 in the clothes of IPv6 is of neither.
    fn keep_to_binding(&self, family: Family, url: &Url) -> Result<(), String> {
        let literal: Option<IpAddr> = host_name(url).parse().ok();
        let is_right =
            |ip: IpAddr| Family::of(ip) == family && Family::of(ip.to_canonical()) == family;
        if self.config.binding.address(family).is_none() || literal.is_none_or(is_right) {
            return Ok(());
        }
        Err(format!(
            "{} is not an address of the family that is bound",
            redacted_url(url)
        ))
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
        may_be_asked_inside(url)?;
        Ok(false)
    }
}

/// What one GET led to.
enum Step {
    Answer(Body),
    Redirect(Url),
}

async fn get(client: &reqwest::Client, url: &Url) -> Result<Step, String> {
    let response = client.get(url.clone()).send().await.map_err(described)?;
    step(response, url).await
}

/// What an answer leads to.
async fn step(response: Response, url: &Url) -> Result<Step, String> {
    if !response.status().is_redirection() {
        return Ok(Step::Answer(body(response).await?));
    }
    let location = response.headers().get(LOCATION);
    redirected(response.status(), location, url).map(Step::Redirect)
}

/// An address that is not global is asked only by a path as trackers have it.
fn may_be_asked_inside(url: &Url) -> Result<(), String> {
    if is_announce_path(url) || is_scrape_path(url) {
        return Ok(());
    }
    Err(format!(
        "{} is not a global address and its path does not end in announce",
        redacted_url(url)
    ))
}

/// Path and query, which a UDP tracker gets as they are (BEP 41); nothing where the URL has none.
fn url_data(url: &Url) -> String {
    match (url.path(), url.query()) {
        ("" | "/", None) => String::new(),
        (path, None) => path.to_owned(),
        (path, Some(query)) => format!("{path}?{query}"),
    }
}

fn scrape_target(job: &ScrapeJob) -> Result<Url, String> {
    let base = scrape_url(job.target.url.as_str()).ok_or("it has no scrape URL")?;
    let url = scrape_request_url(&base, &job.info_hashes);
    Url::parse(&url).map_err(|_| "the tracker's scrape URL is no URL".to_owned())
}

/// A client whose connections are of one family.
fn build(
    config: &AnnounceConfig,
    family: Family,
    resolver: &Arc<FamilyResolver>,
) -> Result<reqwest::Client, AnnounceError> {
    finish(config, || {
        builder(config)
            .no_proxy()
            .local_address(config.binding.address(family))
            .dns_resolver(resolver.clone())
    })
}

/// What all clients have in common.
fn builder(config: &AnnounceConfig) -> reqwest::ClientBuilder {
    let idle_max = config
        .in_flight_per_host_max
        .max(SHUTDOWN_IN_FLIGHT_PER_HOST_MAX);
    let builder = reqwest::Client::builder()
        .user_agent(&config.user_agent)
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .http1_only()
        .connect_timeout(CONNECT_TIMEOUT.min(config.timeout))
        .pool_max_idle_per_host(idle_max)
        .pool_idle_timeout(IDLE_TIMEOUT);
    match &config.binding.interface {
        Some(interface) => builder.interface(interface),
        None => builder,
    }
}

/// The certificates of authorities.
///
/// # Errors
///
/// [`AnnounceError::Certificate`].
pub(crate) fn certificates(
    authorities: &[Authority],
) -> Result<Vec<reqwest::Certificate>, AnnounceError> {
    let mut all = Vec::new();
    for Authority { name, pem } in authorities {
        let bad = |why: String| AnnounceError::Certificate(name.clone(), why);
        let found = reqwest::Certificate::from_pem_bundle(pem);
        let found = found.map_err(|error| bad(described(error)))?;
        if found.is_empty() {
            return Err(bad("there is none in it".to_owned()));
        }
        all.extend(found);
    }
    Ok(all)
}

/// Whether an authority can be trusted: it has certificates, and they are such.
///
/// # Errors
///
/// [`AnnounceError::Certificate`].
pub(crate) fn check_authority(authority: &Authority) -> Result<(), AnnounceError> {
    let found = certificates(std::slice::from_ref(authority))?;
    let built = reqwest::Client::builder().tls_certs_only(found).build();
    let bad = |error| AnnounceError::Certificate(authority.name.clone(), described(error));
    built.map(drop).map_err(bad)
}

/// Adds the certificates and builds.
fn finish(
    config: &AnnounceConfig,
    builder: impl Fn() -> reqwest::ClientBuilder,
) -> Result<reqwest::Client, AnnounceError> {
    let extra = certificates(&config.authorities)?;
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

/// Reads the answer, not more than its limit.
async fn body(mut response: Response) -> Result<Body, String> {
    let from = response.remote_addr().map(|address| address.ip());
    let status = response.status();
    let retry = retry_after(&response);
    let mut bytes = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if bytes.len() + chunk.len() > TRACKER_REPLY_BYTES_MAX => {
                return Err(format!(
                    "an answer of more than {TRACKER_REPLY_BYTES_MAX} bytes"
                ));
            }
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) => break,
            Err(error) => return Err(described(error)),
        }
    }
    Ok(Body {
        from,
        status,
        retry,
        bytes,
    })
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

#[cfg(test)]
mod tests;
