//! Announces and scrapes through a proxy (HTTP or SOCKS5).
//!
//! The proxy resolves the trackers' names, so that no lookup tells the network here what is asked;
//! which addresses they have is then the proxy's to judge. What can be seen from here is refused as
//! without one: addresses that stand in a URL and are not global, and names of local networks. When
//! the proxy is gone nothing leaves. UDP trackers are refused: they are not asked by any other way.
//!
//! Limits: those of the parent module. Does not: take a proxy from the environment.

use std::num::NonZeroU16;

use reqwest::{StatusCode, Url};

use super::super::url::redacted;
use super::words::{described_by_proxy, hides_cause, wants_password};
use super::{
    AnnounceConfig, AnnounceError, Body, Client, Job, Outcome, REDIRECTS_MAX, RetryIn, ScrapeJob,
    ScrapeOutcome, Step, Transport, builder, failed, finish, host_name, may_be_asked_inside,
    meaning, redacted_url, scrape_meaning, scrape_target, step,
};

/// Why a UDP tracker is not asked when there is a proxy.
pub(in crate::announce) const NO_UDP: &str =
    "UDP trackers cannot be asked through a proxy, and announce.proxy is set";
/// Names that mean a machine of this network (RFC 6761, RFC 6762, RFC 8375, and ICANN's
/// `internal`).
const LOCAL_SUFFIXES: &[&str] = &["localhost", "local", "home.arpa", "internal"];

/// The client behind the proxy, if one is configured.
pub(super) fn build(config: &AnnounceConfig) -> Result<Option<reqwest::Client>, AnnounceError> {
    let Some(url) = &config.proxy else {
        return Ok(None);
    };
    // Which part is wrong stays unsaid, because the URL may hold a password.
    let proxy = proxy_of(url).ok_or(AnnounceError::Proxy)?;
    finish(config, || {
        let binding = &config.binding;
        // With addresses of both families the proxy's own decides, and the other cannot reach it.
        let address = binding.v4.map(Into::into).or(binding.v6.map(Into::into));
        builder(config)
            .no_proxy()
            .proxy(proxy.clone())
            .local_address(address)
    })
    .map(Some)
}

/// The proxy that a URL names; none if it names none, or no port: one that is guessed would be
/// another program's as likely as not.
pub(super) fn proxy_of(url: &str) -> Option<reqwest::Proxy> {
    if url.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return None;
    }
    // The proxy resolves the name either way: `socks5` alone would leave that to us.
    let url = match url.strip_prefix("socks5://") {
        Some(rest) => format!("socks5h://{rest}"),
        None => url.to_owned(),
    };
    let (_, rest) = url.split_once("://")?;
    // The parser leaves out a port that is the scheme's usual one.
    let authority = rest.split(['/', '?', '#']).next()?;
    let (_, port) = authority.rsplit_once(':')?;
    port.parse::<NonZeroU16>().ok()?;
    let parsed = Url::parse(&url).ok()?;
    let is_known = matches!(parsed.scheme(), "http" | "https" | "socks5h");
    let has_host = parsed.host_str().is_some_and(|host| !host.is_empty());
    (is_known && has_host).then(|| reqwest::Proxy::all(parsed).ok())?
}

impl Client {
    pub(super) async fn announce_proxied(&self, client: &reqwest::Client, job: &Job) -> Outcome {
        if job.target.transport == Transport::Udp {
            return Outcome::Refused {
                reason: NO_UDP.to_owned(),
                retry: Some(RetryIn::Never),
            };
        }
        let announce = async {
            let url = self.request_url(job)?;
            let (body, url, inside) = self.exchange_proxied(client, url).await?;
            let mut outcome = meaning(&body, &url);
            if let Outcome::Reply(reply) = &mut outcome
                && !(inside && self.config.allow_private_trackers)
            {
                let is_global = self.names.is_global;
                reply.peers.retain(|peer| is_global(peer.ip()));
            }
            Ok(outcome)
        };
        match tokio::time::timeout(self.config.timeout, announce).await {
            Ok(outcome) => outcome.unwrap_or_else(failed),
            Err(_) => failed(self.timed_out()),
        }
    }

    pub(super) async fn scrape_proxied(
        &self,
        client: &reqwest::Client,
        job: &ScrapeJob,
    ) -> Result<ScrapeOutcome, String> {
        if job.target.transport == Transport::Udp {
            return Ok(ScrapeOutcome::Refused(NO_UDP.to_owned()));
        }
        let (body, url, _) = self.exchange_proxied(client, scrape_target(job)?).await?;
        Ok(scrape_meaning(&body, &job.info_hashes, &url))
    }

    /// Follows redirects to the answer; says from which URL it came, and whether that is inside.
    async fn exchange_proxied(
        &self,
        client: &reqwest::Client,
        mut url: Url,
    ) -> Result<(Body, Url, bool), String> {
        let mut global_only = !self.config.allow_private_trackers;
        for _ in 0..=REDIRECTS_MAX {
            let inside = self.is_inside(&url);
            if inside && global_only {
                return Err(format!(
                    "{} is not a global address, and no other is allowed here",
                    redacted_url(&url)
                ));
            }
            if inside {
                may_be_asked_inside(&url)?;
            }
            global_only |= !inside;
            match self.get_proxied(client, &url).await? {
                Step::Answer(body) => return Ok((body, url, inside)),
                Step::Redirect(next) => url = next,
            }
        }
        Err(format!("more than {REDIRECTS_MAX} redirects"))
    }

    /// One GET, whose errors name the proxy where it is at fault.
    async fn get_proxied(&self, client: &reqwest::Client, url: &Url) -> Result<Step, String> {
        let proxy = self.config.proxy.as_deref().unwrap_or_default();
        let proxy = redacted(proxy);
        let proxy = proxy.trim_end_matches("/…");
        let response = client.get(url.clone()).send().await;
        let response = match response {
            Ok(response) => response,
            Err(error) => {
                let why = match hides_cause(&error) {
                    true => Some(self.why_no_proxy().await),
                    false => None,
                };
                return Err(described_by_proxy(error, proxy, why));
            }
        };
        if response.status() == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
            return Err(wants_password(proxy));
        }
        step(response, url).await
    }

    /// Why no connection to the proxy can be made, as far as that is known.
    async fn why_no_proxy(&self) -> String {
        let proxy = self.config.proxy.as_deref().unwrap_or_default();
        let Ok(url) = Url::parse(proxy) else {
            return "it is no URL".to_owned();
        };
        match self.names.lookup(host_name(&url)).await {
            Ok(_) => "nobody takes connections at its address and port".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    /// Whether a URL names a place that is not global, as far as the name shows it.
    fn is_inside(&self, url: &Url) -> bool {
        let host = host_name(url).trim_end_matches('.');
        if let Ok(address) = host.parse() {
            return !(self.names.is_global)(address);
        }
        let local = |suffix: &&str| host.ends_with(&format!(".{suffix}"));
        // A name without a dot is one of a local network, `localhost` among them.
        !host.contains('.') || LOCAL_SUFFIXES.iter().any(local)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_taken_or_refused_without_their_password() {
        let build = |proxy: &str| {
            build(&AnnounceConfig {
                proxy: Some(proxy.to_owned()),
                ..AnnounceConfig::default()
            })
        };
        for good in [
            "http://127.0.0.1:3128",
            "socks5://user:hunter2@proxy.example:1080",
            "socks5h://[2001:db8::1]:1080",
            "http://127.0.0.1:80",
            "https://proxy.example:443/",
        ] {
            assert!(matches!(build(good), Ok(Some(_))), "{good}");
        }
        for bad in [
            "",
            "nonsense",
            "proxy:1080",
            "ftp://user:hunter2@a:1",
            "socks5://",
            "socks5://user:hunter2@a",
            "socks5://user:1234@a",
            "http://a",
            "http://:3128",
            "http://a:0",
            "http://a b:1",
            "http://[2001:db8::1]",
        ] {
            let error = build(bad).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
        assert!(matches!(super::build(&AnnounceConfig::default()), Ok(None)));
    }
}
