//! A `.torrent` file from the web: what a user names by its URL.
//!
//! Limits: `limits::METAINFO_BYTES_MAX` after decompression, one minute for everything, as many
//! redirects as trackers have, never from `https` to `http`. No proxy is taken from the
//! environment.
//!
//! It leaves as requests to trackers do: by the interface or from the address that these are bound
//! to, or not at all. Bound to addresses of both families, one transfer keeps to the family of the
//! first address that the server's name has. Where trackers are asked through a proxy no URL is
//! asked, since that would go past it. Names are resolved as the system does it.
//!
//! The URL itself is the user's own word and may lead anywhere. What a server at a global address
//! answers is a stranger's: it is followed to global addresses only, each checked as it is
//! connected to, so that nobody makes us ask for something inside our network.
//!
//! Does not: judge what has come. A URL is never shown beyond its host: it may hold a password.

use crate::announce::{
    AnnounceConfig, AnnounceError, Family, REDIRECTS_MAX, certificates, is_global,
};
use proto::limits::METAINFO_BYTES_MAX;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::LOCATION;
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, ClientBuilder, Response, StatusCode, Url};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// The time for everything.
const TIMEOUT: Duration = Duration::from_secs(60);

/// How a magnet link begins.
const MAGNET: &[u8] = b"magnet:";

/// The time to connect, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// Why nothing came.
#[derive(Debug, thiserror::Error)]
pub enum WebError {
    /// It is no URL that we can follow. It is not shown: nobody knows where in it a password is.
    #[error("the torrent's URL is no http or https URL ({reason}); give it as https://HOST/PATH")]
    Url {
        /// What is wrong with it.
        reason: String,
    },
    /// It would go past the proxy.
    #[error(
        "the torrent's URL is not asked: announce.proxy is set, which this would go past; fetch the \
         file by a program that takes the proxy (curl --proxy), and give the file"
    )]
    Proxy,
    /// The transfer failed. Its own words, without the URL, which may hold a secret.
    #[error("cannot fetch the torrent from {host}: {error}")]
    Transfer {
        /// The host that was named.
        host: String,
        /// What went wrong.
        error: String,
    },
    /// The server says no.
    #[error("cannot fetch the torrent from {host}: the server answers {status}")]
    Status {
        /// The host that was named.
        host: String,
        /// Its answer.
        status: StatusCode,
    },
    /// What it names in place of a torrent cannot be followed.
    #[error(
        "cannot fetch the torrent from {host}: the server answers {status}, which leads to {to}"
    )]
    Elsewhere {
        /// The host that was named.
        host: String,
        /// Its answer.
        status: StatusCode,
        /// What it leads to.
        to: &'static str,
    },
    /// What is to be trusted beside the system's authorities is none.
    #[error(transparent)]
    Authority(#[from] AnnounceError),
    /// It is longer than any torrent.
    #[error(
        "what {host} sends has more than {METAINFO_BYTES_MAX} bytes, the most that a torrent has"
    )]
    TooLarge {
        /// The host that was named.
        host: String,
    },
}

/// Whether this looks like what [`fetch_torrent`] takes.
pub fn is_url(text: &str) -> bool {
    let has_scheme = |scheme: &str| {
        text.split_at_checked(scheme.len())
            .is_some_and(|(head, _)| head.eq_ignore_ascii_case(scheme))
    };
    has_scheme("http://") || has_scheme("https://")
}

/// The bytes at `url`, asked for as trackers are: of `config` count the name, the authorities and
/// the binding, and a proxy is refused.
///
/// # Errors
///
/// [`WebError`], which names the host and nothing else of the URL.
pub async fn fetch_torrent(url: &str, config: &AnnounceConfig) -> Result<Vec<u8>, WebError> {
    fetch_within(url, config, is_global).await
}

/// The same with another notion of what is global, for tests.
async fn fetch_within(
    url: &str,
    config: &AnnounceConfig,
    is_global: fn(IpAddr) -> bool,
) -> Result<Vec<u8>, WebError> {
    let wrong = |reason: String| WebError::Url { reason };
    let parsed = Url::parse(url).map_err(|error| wrong(error.to_string()))?;
    if !is_url(url) {
        return Err(wrong("another scheme".to_owned()));
    }
    if config.proxy.is_some() {
        return Err(WebError::Proxy);
    }
    let host = parsed.host_str().unwrap_or_default().to_owned();
    let failed = |error: String| WebError::Transfer {
        host: host.clone(),
        error,
    };
    let scope = Scope::of(&host, config, is_global).await.map_err(failed)?;
    let failed = |error: reqwest::Error| failed(causes(&error.without_url()));
    let client = client(config, certificates(&config.authorities)?, scope).map_err(failed)?;
    let mut response = client.get(parsed).send().await.map_err(failed)?;
    let status = response.status();
    if status.is_redirection() {
        let to = leads_to(&response);
        return Err(WebError::Elsewhere { host, status, to });
    }
    if !status.is_success() {
        return Err(WebError::Status { host, status });
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        if bytes.len() + chunk.len() > METAINFO_BYTES_MAX {
            return Err(WebError::TooLarge { host });
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// What a redirect leads to that could not be followed.
fn leads_to(response: &Response) -> &'static str {
    let location = response.headers().get(LOCATION);
    let scheme = location.and_then(|value| value.as_bytes().get(..MAGNET.len()));
    match (location, scheme) {
        (None, _) => "nothing",
        (_, Some(scheme)) if scheme.eq_ignore_ascii_case(MAGNET) => {
            "a magnet link: give that link itself"
        }
        _ => "no http or https URL",
    }
}

/// To which addresses a fetch may lead.
#[derive(Clone, Copy)]
struct Scope {
    global_only: bool,
    is_global: fn(IpAddr) -> bool,
    /// The only family, where an address is bound: the other would go round that.
    family: Option<Family>,
}

impl Scope {
    /// Where a fetch from `host` may lead.
    async fn of(
        host: &str,
        config: &AnnounceConfig,
        is_global: fn(IpAddr) -> bool,
    ) -> Result<Scope, String> {
        let addresses = timeout(CONNECT_TIMEOUT, addresses_of(host))
            .await
            .map_err(|_| "it did not answer in time".to_owned())?
            .map_err(|error| format!("cannot resolve the name: {error}"))?;
        let binding = &config.binding;
        let is_bound = binding.v4.is_some() || binding.v6.is_some();
        let usual = addresses.iter().filter(|address| is_usual(**address));
        let mut families = usual.map(|address| Family::of(*address));
        let family = match is_bound {
            true => Some(
                families
                    .find(|family| binding.allows(*family))
                    .ok_or(NOT_BOUND)?,
            ),
            false => None,
        };
        Ok(Scope {
            global_only: addresses.into_iter().any(is_global),
            is_global,
            family,
        })
    }

    fn allows(self, address: IpAddr) -> bool {
        (!self.global_only || (self.is_global)(address)) && self.is_of_family(address)
    }

    fn is_of_family(self, address: IpAddr) -> bool {
        let is_it = |family| family == Family::of(address) && is_usual(address);
        self.family.is_none_or(is_it)
    }

    /// Why a URL may not be followed, as far as it shows; of a name the resolver says it.
    fn refusal(self, url: &Url) -> Option<&'static str> {
        let address = literal(url.host_str().unwrap_or_default())?;
        match self.is_of_family(address) {
            false => Some(NOT_BOUND),
            true => (!self.allows(address)).then_some(NOT_GLOBAL),
        }
    }
}

/// Why one is not connected to.
const NOT_GLOBAL: &str = "it leads from a global address to one that is not";
/// Why one is not, either.
const NOT_BOUND: &str =
    "it has no address of the family that is bound (announce.bind_v4, announce.bind_v6)";

/// Whether it is no IPv4 address in the clothes of IPv6, which would be connected to unbound.
fn is_usual(address: IpAddr) -> bool {
    address == address.to_canonical()
}

/// The resolver of a client: what it checks is what is connected to.
impl Resolve for Scope {
    fn resolve(&self, name: Name) -> Resolving {
        let scope = *self;
        Box::pin(async move {
            let mut addresses = addresses_of(name.as_str()).await?;
            addresses.retain(|&address| scope.is_of_family(address));
            if addresses.is_empty() {
                return Err(NOT_BOUND.into());
            }
            addresses.retain(|&address| scope.allows(address));
            if addresses.is_empty() {
                return Err(NOT_GLOBAL.into());
            }
            let addresses = addresses.into_iter();
            Ok(Box::new(addresses.map(|address| SocketAddr::new(address, 0))) as Addrs)
        })
    }
}

/// The address, if the host of a URL is one and no name.
fn literal(host: &str) -> Option<IpAddr> {
    host.trim_matches(['[', ']']).parse().ok()
}

async fn addresses_of(host: &str) -> io::Result<Vec<IpAddr>> {
    if let Some(address) = literal(host) {
        return Ok(vec![address]);
    }
    let found = tokio::net::lookup_host((host, 0)).await?;
    Ok(found.map(|address| address.ip().to_canonical()).collect())
}

fn client(
    config: &AnnounceConfig,
    trusted: Vec<Certificate>,
    scope: Scope,
) -> reqwest::Result<Client> {
    let merged = builder(config, scope).tls_certs_merge(trusted.clone());
    // A machine without authorities of its own (a bare container) has those that the user names.
    let build_without = |_| {
        let only = builder(config, scope).tls_certs_only(trusted);
        only.build()
    };
    merged.build().or_else(build_without)
}

fn builder(config: &AnnounceConfig, scope: Scope) -> ClientBuilder {
    let binding = &config.binding;
    let mut builder = Client::builder();
    if let Some(interface) = &binding.interface {
        builder = builder.interface(interface);
    }
    builder
        .local_address(scope.family.and_then(|family| binding.address(family)))
        .user_agent(&config.user_agent)
        .timeout(TIMEOUT)
        .connect_timeout(CONNECT_TIMEOUT)
        .no_proxy()
        .dns_resolver(Arc::new(scope))
        .redirect(Policy::custom(move |attempt| {
            let was_secure = |url: &Url| url.scheme() == "https";
            let downgrade = attempt.previous().iter().any(was_secure) && !was_secure(attempt.url());
            if !is_url(attempt.url().as_str()) {
                // What it leads to is told by the answer.
                attempt.stop()
            } else if downgrade {
                attempt.error("it leads from https to http")
            } else if attempt.previous().len() > REDIRECTS_MAX {
                attempt.error("too many redirects")
            } else if let Some(why) = scope.refusal(attempt.url()) {
                attempt.error(why)
            } else {
                attempt.follow()
            }
        }))
}

/// An error with what caused it: the outermost alone says little more than that there was one.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::announce::Binding;
    use std::net::{Ipv4Addr, Ipv6Addr};
    use std::sync::Mutex;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// A server that gives one answer to whatever it is asked.
    async fn server(answer: Vec<u8>) -> String {
        server_at("127.0.0.1", answer).await
    }

    async fn server_at(host: &str, answer: Vec<u8>) -> String {
        let listener = TcpListener::bind((host, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = [0; 4096];
                let _ = stream.read(&mut head).await;
                let _ = stream.write_all(&answer).await;
            }
        });
        format!("http://{address}/x.torrent?secret=0123456789")
    }

    async fn fetch(url: &str) -> Result<Vec<u8>, WebError> {
        fetch_torrent(url, &AnnounceConfig::default()).await
    }

    #[tokio::test]
    async fn what_the_server_sends_comes_and_what_it_refuses_is_told_without_the_secret() {
        let url = server(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nd1:e".to_vec()).await;
        assert_eq!(fetch(&url).await.unwrap(), b"d1:e");
        let url = server(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n".to_vec()).await;
        let text = fetch(&url).await.unwrap_err().to_string();
        assert!(
            text.contains("403") && !text.contains("0123456789"),
            "{text}"
        );
        let text = fetch("http://127.0.0.1:1/?secret=0123456789").await;
        let text = text.unwrap_err().to_string();
        assert!(
            text.contains("127.0.0.1") && !text.contains("0123456789"),
            "{text}"
        );
    }

    #[tokio::test]
    async fn too_much_and_redirects_without_end_are_cut_off() {
        let endless = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
        let long = [endless, vec![b'x'; METAINFO_BYTES_MAX + 1]].concat();
        let url = server(long).await;
        assert!(matches!(fetch(&url).await, Err(WebError::TooLarge { .. })));
        let round = b"HTTP/1.1 302 Found\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n";
        let url = server(round.to_vec()).await;
        let text = fetch(&url).await.unwrap_err().to_string();
        assert!(text.contains("too many redirects"), "{text}");
        for strange in ["ftp://127.0.0.1/x", "http//x", "https://"] {
            assert!(
                matches!(fetch(strange).await, Err(WebError::Url { .. })),
                "{strange}"
            );
        }
    }

    fn pretend_127_0_0_2_is_global(address: IpAddr) -> bool {
        address == IpAddr::from([127, 0, 0, 2])
    }

    #[tokio::test]
    async fn a_redirect_to_a_magnet_link_is_called_so() {
        for (location, due) in [
            ("location: Magnet:?xt=urn:btih:secret\r\n", "a magnet link"),
            ("location: ftp://secret/\r\n", "no http or https URL"),
            ("", "nothing"),
        ] {
            let answer = format!("HTTP/1.1 302 Found\r\n{location}content-length: 0\r\n\r\n");
            let url = server(answer.into_bytes()).await;
            let error = fetch(&url).await.unwrap_err().to_string();
            assert!(error.contains(&format!("leads to {due}")), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_stranger_s_redirect_leads_to_no_address_inside() {
        let torrent = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nd1:e".to_vec();
        let inside = server(torrent).await;
        // As an address and as a name.
        for target in [inside.clone(), inside.replace("127.0.0.1", "localhost")] {
            let redirect =
                format!("HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n");
            let outside = server_at("127.0.0.2", redirect.clone().into_bytes()).await;
            let config = AnnounceConfig::default();
            let fetched = fetch_within(&outside, &config, pretend_127_0_0_2_is_global).await;
            let text = fetched.unwrap_err().to_string();
            assert!(text.contains("from a global address"), "{text}");
            // The user's own server may lead there.
            let own = server(redirect.into_bytes()).await;
            let fetched = fetch_within(&own, &config, pretend_127_0_0_2_is_global).await;
            assert_eq!(fetched.unwrap(), b"d1:e");
        }
    }

    /// A server that tells from where it was asked, and how often.
    async fn witness(host: &str) -> (SocketAddr, Arc<Mutex<Vec<IpAddr>>>) {
        let listener = TcpListener::bind((host, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((mut stream, source)) = listener.accept().await {
                heard.lock().unwrap().push(source.ip());
                let _ = stream.read(&mut [0; 4096]).await;
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nd1:e";
                let _ = stream.write_all(answer).await;
            }
        });
        (address, asked)
    }

    fn bound(binding: Binding) -> AnnounceConfig {
        AnnounceConfig {
            binding,
            ..AnnounceConfig::default()
        }
    }

    #[tokio::test]
    async fn it_leaves_as_what_trackers_are_asked_does_or_not_at_all() {
        let (address, asked) = witness("127.0.0.1").await;
        let url = format!("http://{address}/x.torrent");
        let from = Ipv4Addr::new(127, 0, 0, 3);
        let v4 = |address: Ipv4Addr| Binding {
            v4: Some(address),
            ..Binding::default()
        };
        let by = |name: &str| Binding {
            interface: Some(name.to_owned()),
            ..Binding::default()
        };
        let proxied = AnnounceConfig {
            proxy: Some("socks5://127.0.0.1:9".to_owned()),
            ..AnnounceConfig::default()
        };
        // An address for documentation (RFC 5737), which nobody has.
        let nobody = Ipv4Addr::new(192, 0, 2, 77);
        for config in [bound(v4(nobody)), bound(by("absent0")), proxied] {
            fetch_torrent(&url, &config).await.unwrap_err();
        }
        assert!(asked.lock().unwrap().is_empty());
        for config in [bound(v4(from)), bound(by("lo"))] {
            assert_eq!(fetch_torrent(&url, &config).await.unwrap(), b"d1:e");
        }
        assert_eq!(asked.lock().unwrap()[..], [from, Ipv4Addr::LOCALHOST]);
    }

    #[tokio::test]
    async fn nothing_leads_round_a_bound_address() {
        // It hears IPv4 too, so that an IPv4 address in the clothes of IPv6 reaches it.
        let (other, asked) = witness("::").await;
        let port = other.port();
        let v4 = Binding {
            v4: Some(Ipv4Addr::LOCALHOST),
            ..Binding::default()
        };
        let both = Binding {
            v6: Some(Ipv6Addr::LOCALHOST),
            ..v4.clone()
        };
        for (host, bindings) in [
            ("[::1]", vec![v4.clone()]),
            ("[::ffff:127.0.0.1]", vec![v4.clone(), both.clone()]),
        ] {
            let target = format!("http://{host}:{port}/");
            let answer =
                format!("HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n");
            let first = server(answer.into_bytes()).await;
            for (url, binding) in bindings.into_iter().flat_map(|one| {
                let direct = (target.clone(), one.clone());
                [direct, (first.clone(), one)]
            }) {
                let error = fetch_torrent(&url, &bound(binding)).await.unwrap_err();
                assert!(error.to_string().contains(NOT_BOUND), "{url}: {error}");
            }
        }
        assert_eq!(asked.lock().unwrap().len(), 0);
        let url = format!("http://[::1]:{port}/");
        assert_eq!(fetch_torrent(&url, &bound(both)).await.unwrap(), b"d1:e");
    }

    #[tokio::test]
    async fn a_url_that_cannot_be_read_is_not_shown() {
        for url in ["http://me:secret@host:99999/x", "https://me:secret@/x"] {
            let text = fetch(url).await.unwrap_err().to_string();
            assert!(!text.contains("secret"), "{text}");
        }
    }
}
