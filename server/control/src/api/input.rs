//! How requests are read: paths, queries and bodies, each refused with a sentence when it cannot
//! be what is meant.
//!
//! Limits: a body of [`BODY_BYTES_MAX`], a torrent's of `api.body_max`; [`BODIES_MAX`] are read at
//! a time, [`LARGE_MAX`] of them long ones, and the others wait; [`PAUSE_MAX`] between two parts of
//! one.

use super::Api;
use super::decode::{self, DecodeError, info_hash};
use super::problem::{Kind, Refusal};
use axum::body::{Body, HttpBody};
use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use axum::http::header;
use axum::http::request::Parts;
use http_body_util::BodyExt;
use proto::ids::InfoHashV1;
use seedring_metrics::ControlCounter;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;

/// The longest body of a request other than one that adds a torrent.
pub(super) const BODY_BYTES_MAX: usize = 1 << 20;

/// Bodies that are in memory at a time.
pub(super) const BODIES_MAX: usize = 32;

/// Those of them that are longer than [`BODY_BYTES_MAX`].
pub(super) const LARGE_MAX: usize = 2;

/// How long a client may pause while it sends a body.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// What a path names: a torrent, and one of its files.
pub(super) struct Target {
    /// The torrent.
    pub(super) info_hash: InfoHashV1,
    /// The file, where the path has one.
    pub(super) index: u32,
}

impl<S: Send + Sync> FromRequestParts<S> for Target {
    type Rejection = Box<Refusal>;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Target, Box<Refusal>> {
        let malformed = |detail: &str| Refusal::new(Kind::Malformed, detail);
        let named = RawPathParams::from_request_parts(parts, state).await;
        let named = named.map_err(|_| malformed("the path is not UTF-8"))?;
        let mut target = Target {
            info_hash: InfoHashV1([0; 20]),
            index: 0,
        };
        for (name, value) in &named {
            if name == "hash" {
                target.info_hash = info_hash(value).ok_or_else(|| {
                    malformed("a torrent is named by its info-hash: 40 hex digits").of("hash")
                })?;
            } else {
                target.index = value.parse().map_err(|_| {
                    malformed("a file is named by its number in the torrent, from 0").of("index")
                })?;
            }
        }
        Ok(target)
    }
}

/// What the query of a request says.
pub(super) struct Query<T>(pub(super) T);

/// Reads a query.
pub(super) fn query<T: DeserializeOwned>(text: &str) -> Result<T, Box<Refusal>> {
    Ok(decode::query(text)?)
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Box<Refusal>;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Query<T>, Box<Refusal>> {
        query(parts.uri.query().unwrap_or_default()).map(Query)
    }
}

/// What the body of a request says, as JSON.
pub(super) struct Json<T>(pub(super) T);

/// Reads a JSON object.
pub(super) fn json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Box<Refusal>> {
    Ok(decode::json(bytes)?)
}

impl From<DecodeError> for Box<Refusal> {
    fn from(error: DecodeError) -> Box<Refusal> {
        match error {
            DecodeError::Malformed(detail) => Refusal::new(Kind::Malformed, detail),
            DecodeError::Invalid(None, detail) => Refusal::new(Kind::Invalid, detail),
            DecodeError::Invalid(Some(field), detail) => Refusal::field(field, detail),
        }
    }
}

impl<T: DeserializeOwned> FromRequest<Arc<Api>> for Json<T> {
    type Rejection = Box<Refusal>;

    async fn from_request(request: Request, api: &Arc<Api>) -> Result<Json<T>, Box<Refusal>> {
        let (parts, body) = request.into_parts();
        if media_type(&parts) != "application/json" {
            let detail = "send JSON, and say so: Content-Type: application/json";
            return Err(Refusal::new(Kind::MediaType, detail));
        }
        let body = read(api, body, BODY_BYTES_MAX).await?;
        json(&body.bytes).map(Json)
    }
}

/// A request without a body, or with one of which nothing is read: `{}`.
pub(super) struct Nothing;

impl FromRequest<Arc<Api>> for Nothing {
    type Rejection = Box<Refusal>;

    async fn from_request(request: Request, api: &Arc<Api>) -> Result<Nothing, Box<Refusal>> {
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Empty {}
        query::<Empty>(request.uri().query().unwrap_or_default())?;
        if request.body().is_end_stream() && media_type_of(request.headers()).is_empty() {
            return Ok(Nothing);
        }
        let Json(Empty {}) = Json::from_request(request, api).await?;
        Ok(Nothing)
    }
}

/// The media type of a body without its parameters, in lower case; empty if none is said.
pub(super) fn media_type(parts: &Parts) -> String {
    media_type_of(&parts.headers)
}

fn media_type_of(headers: &axum::http::HeaderMap) -> String {
    let said = headers.get(header::CONTENT_TYPE);
    let said = said.and_then(|value| value.to_str().ok()).unwrap_or("");
    let kind = said.split(';').next().unwrap_or_default();
    kind.trim().to_ascii_lowercase()
}

/// A body that was read.
pub(super) struct Read {
    /// It.
    pub(super) bytes: Vec<u8>,
    /// Its place among those that may be in memory.
    _place: Option<OwnedSemaphorePermit>,
    /// Its place among the long ones, if it is one.
    large: Option<OwnedSemaphorePermit>,
}

/// Reads a body of at most `max` bytes.
pub(super) async fn read(api: &Api, mut body: Body, max: usize) -> Result<Read, Box<Refusal>> {
    let refuse = || {
        api.count(ControlCounter::ApiRefusedBody);
        let detail = format!("the body is longer than {max} bytes");
        Refusal::new(Kind::TooLarge, detail)
    };
    // Of one whose length is said nothing is read if it is too long.
    if body.size_hint().lower() > max as u64 {
        return Err(refuse());
    }
    // Those who wait hold nothing, and who waits for a long one's place is not waited for by those
    // who have one. The semaphores are never closed.
    let mut read = Read {
        bytes: Vec::new(),
        _place: Arc::clone(&api.bodies).acquire_owned().await.ok(),
        large: None,
    };
    loop {
        let frame = tokio::time::timeout(PAUSE_MAX, body.frame()).await;
        let frame = frame.map_err(|_| {
            let detail = "the body did not come; send it without long pauses";
            Refusal::new(Kind::Timeout, detail)
        })?;
        let Some(frame) = frame else {
            return Ok(read);
        };
        let frame = frame.map_err(|_| {
            let detail = "the body ended before its end, or is framed wrongly";
            Refusal::new(Kind::Malformed, detail)
        })?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        let length = read.bytes.len().saturating_add(data.len());
        if length > max {
            return Err(refuse());
        }
        if length > BODY_BYTES_MAX && read.large.is_none() {
            read.large = Arc::clone(&api.large).acquire_owned().await.ok();
        }
        read.bytes.extend_from_slice(&data);
    }
}
