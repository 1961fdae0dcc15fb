//! A `.torrent` file from the web: what a user names by its URL.
//!
//! Limits: `limits::METAINFO_BYTES_MAX` after decompression, one minute for everything, as many
//! redirects as trackers have, never from `https` to `http`. No proxy is taken from the
//! environment.
//!
//! The URL itself is the user's own word and may lead anywhere. What a server at a global address
//! answers is a stranger's: it is followed to global addresses only, each checked as it is
//! connected to, so that nobody makes us ask for something inside our network.
//!
//! Does not: judge what has come. A URL is never shown beyond its host: it may hold a password.

use crate::announce::{AnnounceError, Authority, REDIRECTS_MAX, certificates, is_global};
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

/// The bytes at `url`. For `https` these authorities are trusted beside the system's.
///
/// # Errors
///
/// [`WebError`], which names the host and nothing else of the URL.
pub async fn fetch_torrent(
    url: &str,
    user_agent: &str,
    authorities: &[Authority],
) -> Result<Vec<u8>, WebError> {
    fetch_within(url, user_agent, authorities, is_global).await
}

/// The same with another notion of what is global, for tests.
async fn fetch_within(
    url: &str,
    user_agent: &str,
    authorities: &[Authority],
    is_global: fn(IpAddr) -> bool,
) -> Result<Vec<u8>, WebError> {
    let wrong = |reason: String| WebError::Url { reason };
    let parsed = Url::parse(url).map_err(|error| wrong(error.to_string()))?;
    if !is_url(url) {
        return Err(wrong("another scheme".to_owned()));
    }
    let host = parsed.host_str().unwrap_or_default().to_owned();
    let failed = |error: String| WebError::Transfer {
        host: host.clone(),
        error,
    };
    let late = |_| failed("it did not answer in time".to_owned());
    let addresses = timeout(CONNECT_TIMEOUT, addresses_of(&host))
        .await
        .map_err(late)?
        .map_err(|error| failed(format!("cannot resolve the name: {error}")))?;
    let scope = Scope {
        global_only: addresses.into_iter().any(is_global),
        is_global,
    };
    let failed = |error: reqwest::Error| failed(causes(&error.without_url()));
    let trusted = certificates(authorities)?;
    let client = client(user_agent, trusted, scope).map_err(failed)?;
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
}

impl Scope {
    fn allows(self, address: IpAddr) -> bool {
        !self.global_only || (self.is_global)(address)
    }

    /// Whether a URL may be followed as far as it shows; of a name the resolver says it.
    fn allows_url(self, url: &Url) -> bool {
        let literal = literal(url.host_str().unwrap_or_default());
        literal.is_none_or(|address| self.allows(address))
    }
}

/// The resolver of a client: what it checks is what is connected to.
impl Resolve for Scope {
    fn resolve(&self, name: Name) -> Resolving {
        let scope = *self;
        Box::pin(async move {
            let mut addresses = addresses_of(name.as_str()).await?;
            addresses.retain(|&address| scope.allows(address));
            if addresses.is_empty() {
                return Err("it leads from a global address to one that is not".into());
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

fn client(user_agent: &str, trusted: Vec<Certificate>, scope: Scope) -> reqwest::Result<Client> {
    let merged = builder(user_agent, scope).tls_certs_merge(trusted.clone());
    // A machine without authorities of its own (a bare container) has those that the user names.
    let build_without = |_| {
        let only = builder(user_agent, scope).tls_certs_only(trusted);
        only.build()
    };
    merged.build().or_else(build_without)
}

fn builder(user_agent: &str, scope: Scope) -> ClientBuilder {
    Client::builder()
        .user_agent(user_agent)
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
            } else if !scope.allows_url(attempt.url()) {
                attempt.error("it leads from a global address to one that is not")
            } else {
                attempt.follow()
            }
        }))
}

/// An error with what caused it: the outermost alone says little more than that there was one.
fn causes(error: &dyn std::error::Error) -> String {
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
        fetch_torrent(url, "seedring/test", &[]).await
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
            let fetched = fetch_within(&outside, "x", &[], pretend_127_0_0_2_is_global).await;
            let text = fetched.unwrap_err().to_string();
            assert!(text.contains("from a global address"), "{text}");
            // The user's own server may lead there.
            let own = server(redirect.into_bytes()).await;
            let fetched = fetch_within(&own, "x", &[], pretend_127_0_0_2_is_global).await;
            assert_eq!(fetched.unwrap(), b"d1:e");
        }
    }

    #[tokio::test]
    async fn a_url_that_cannot_be_read_is_not_shown() {
        for url in ["http://me:secret@host:99999/x", "https://me:secret@/x"] {
            let text = fetch(url).await.unwrap_err().to_string();
            assert!(!text.contains("secret"), "{text}");
        }
    }
}
