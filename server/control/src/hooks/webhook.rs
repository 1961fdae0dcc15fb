//! Posts an event to a web server, and tries again when that fails: [`ATTEMPTS_MAX`] times, at
//! growing intervals of [`PAUSE_MIN`] to [`PAUSE_MAX`].
//!
//! Only an answer of 2xx is a success. Redirects are not followed: what is told, and the token, are
//! for the server that was named. 4xx says that the same will be refused again, and is not tried
//! again, but for 408 and 429. No proxy is taken from the environment. Of the URL only the host is
//! ever shown.

use super::event::{Happened, identity};
use super::program::stop;
use super::running::Outcome;
use super::{HookError, Webhook};
use crate::announce::{Authority, certificates};
use crate::web::causes;
use aws_lc_rs::hmac;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Client, StatusCode};
use std::fmt::Write;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// How often an event is posted at most.
const ATTEMPTS_MAX: u32 = 6;

/// The first pause between two attempts; each is four times the one before, up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_secs(2);
/// See [`PAUSE_MIN`].
const PAUSE_MAX: Duration = Duration::from_secs(300);

/// The time to connect, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// How we name ourselves.
const USER_AGENT: &str = concat!("seedring/", env!("CARGO_PKG_VERSION"));

/// The client of all webhooks, which trusts the system's authorities and these.
pub(super) fn client(authorities: &[Authority]) -> Result<Client, HookError> {
    let trusted = certificates(authorities)?;
    let builder = || {
        Client::builder()
            .user_agent(USER_AGENT)
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(Policy::none())
            .no_proxy()
    };
    let merged = builder().tls_certs_merge(trusted.clone()).build();
    // A machine without authorities of its own (a bare container) has those that the user names.
    let built = merged.or_else(|_| builder().tls_certs_only(trusted).build());
    built.map_err(|error| HookError::Client(causes(&error)))
}

/// Posts an event until it is taken, is refused, or was tried often enough.
pub(super) async fn post(
    client: &Client,
    webhook: &Webhook,
    limit: Duration,
    (id, happened): (u64, &Happened),
    mut stopping: watch::Receiver<bool>,
) -> Outcome {
    tokio::select! {
        outcome = attempts(client, webhook, limit, (id, happened)) => outcome,
        () = stop(&mut stopping) => Outcome::Interrupted,
    }
}

async fn attempts(
    client: &Client,
    webhook: &Webhook,
    limit: Duration,
    (id, happened): (u64, &Happened),
) -> Outcome {
    let torrent = happened.torrent.info_hash.as_str();
    let event = happened.event.name();
    let host = webhook.url.host_str().unwrap_or_default();
    let body = happened.json(id);
    let mut pause = PAUSE_MIN;
    for attempt in 1..=ATTEMPTS_MAX {
        let posted = timeout(limit, attempt_once(client, webhook, (id, happened), &body)).await;
        let (why, outcome, again) = match posted {
            Ok(Ok(status)) if status.is_success() => {
                tracing::debug!(torrent, event, host, "a webhook is told");
                return Outcome::Done;
            }
            Ok(Ok(status)) => (
                format!("it answers {status}"),
                Outcome::Failed,
                may_be_taken_later(status),
            ),
            Ok(Err(error)) => (error, Outcome::Failed, true),
            Err(_) => (
                "it does not answer in time".to_owned(),
                Outcome::OutOfTime,
                true,
            ),
        };
        if !again || attempt == ATTEMPTS_MAX {
            tracing::warn!(
                torrent,
                event,
                host,
                attempt,
                error = why,
                "a webhook is not told: given up"
            );
            return outcome;
        }
        tracing::warn!(
            torrent,
            event,
            host,
            attempt,
            error = why,
            "a webhook is not told yet: tried again in {} s",
            pause.as_secs()
        );
        // Those that failed together do not come together again.
        sleep(pause.mul_f64(0.75 + fastrand::f64() / 2.0)).await;
        pause = (pause * 4).min(PAUSE_MAX);
    }
    Outcome::Failed
}

fn may_be_taken_later(status: StatusCode) -> bool {
    let later = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS];
    status.is_server_error() || later.contains(&status)
}

async fn attempt_once(
    client: &Client,
    webhook: &Webhook,
    (id, happened): (u64, &Happened),
    body: &[u8],
) -> Result<StatusCode, String> {
    let mut request = client
        .post(webhook.url.clone())
        .header(CONTENT_TYPE, "application/json")
        .header("X-Seedring-Event", happened.event.name())
        .header("X-Seedring-Id", identity(id));
    if let Some(secret) = &webhook.secret {
        request = request.header("X-Seedring-Signature", signature(secret, body));
    }
    if let Some(token) = &webhook.token {
        let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| "the token in token_file cannot be sent".to_owned())?;
        value.set_sensitive(true);
        request = request.header(AUTHORIZATION, value);
    }
    let sent = request.body(body.to_vec()).send().await;
    let answer = sent.map_err(|error| causes(&error.without_url()))?;
    Ok(answer.status())
}

/// `sha256=` and the HMAC of the body in hex.
fn signature(secret: &[u8], body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let mut text = "sha256=".to_owned();
    for byte in hmac::sign(&key, body).as_ref() {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4231, test case 2.
    #[test]
    fn the_signature_is_the_standard_s() {
        assert_eq!(
            signature(b"Jefe", b"what do ya want for nothing?"),
            "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }

    #[test]
    fn what_is_refused_for_good_is_not_tried_again() {
        let later = |status| may_be_taken_later(StatusCode::from_u16(status).unwrap());
        assert!(later(500) && later(503) && later(429) && later(408));
        assert!(!later(400) && !later(404) && !later(301) && !later(401));
    }
}
