//! A `.torrent` file from the web: what a user names by its URL.
//!
//! Limits: `limits::METAINFO_BYTES_MAX` after decompression, one minute for everything, as many redirects as trackers
//! have, never from `https` to `http`. No proxy is taken from the environment.
//! Does not: judge where a URL leads: the user has chosen it; judge what has come.

use crate::announce::REDIRECTS_MAX;
use proto::limits::METAINFO_BYTES_MAX;
use reqwest::redirect::Policy;
use reqwest::{StatusCode, Url};
use std::time::Duration;

/// The time for everything.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The time to connect, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// Why nothing came.
#[derive(Debug, thiserror::Error)]
pub enum WebError {
    /// It is no URL that we can follow.
    #[error("{url:?} is no http or https URL")]
    Url {
        /// What was given.
        url: String,
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

/// The bytes at `url`.
///
/// # Errors
///
/// [`WebError`], which names the host and nothing else of the URL.
pub async fn fetch_torrent(url: &str, user_agent: &str) -> Result<Vec<u8>, WebError> {
    let parsed = Url::parse(url).ok().filter(|_| is_url(url));
    let parsed = parsed.ok_or_else(|| WebError::Url {
        url: url.to_owned(),
    })?;
    let host = parsed.host_str().unwrap_or_default().to_owned();
    let failed = |error: reqwest::Error| WebError::Transfer {
        host: host.clone(),
        error: causes(&error.without_url()),
    };
    let client = reqwest::Client::builder()
        .user_agent(user_agent)
        .timeout(TIMEOUT)
        .connect_timeout(CONNECT_TIMEOUT)
        .no_proxy()
        .redirect(Policy::custom(|attempt| {
            let was_secure = |url: &Url| url.scheme() == "https";
            let downgrade = attempt.previous().iter().any(was_secure) && !was_secure(attempt.url());
            if downgrade {
                attempt.error("it leads from https to http")
            } else if attempt.previous().len() > REDIRECTS_MAX {
                attempt.error("too many redirects")
            } else {
                attempt.follow()
            }
        }))
        .build()
        .map_err(failed)?;
    let mut response = client.get(parsed).send().await.map_err(failed)?;
    let status = response.status();
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
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
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
        fetch_torrent(url, "seedring/test").await
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
}
