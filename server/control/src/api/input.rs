//! How requests are read: paths, queries and bodies, each refused with a sentence when it cannot
//! be what is meant.
//!
//! Limits: a body of [`BODY_BYTES_MAX`], a torrent's of `api.body_max`, of which [`LARGE_MAX`] are
//! read at a time and the others wait; [`PAUSE_MAX`] between two parts of a body.

use super::Api;
use super::problem::{Kind, Refusal};
use axum::body::{Body, HttpBody};
use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use axum::http::header;
use axum::http::request::Parts;
use http_body_util::BodyExt;
use proto::ids::InfoHashV1;
use seedring_metrics::ControlCounter;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::error::Category;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;

/// The longest body of a request other than one that adds a torrent.
pub(super) const BODY_BYTES_MAX: usize = 1 << 20;

/// Bodies longer than that, at a time.
pub(super) const LARGE_MAX: usize = 2;

/// How long a client may pause while it sends a body.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Reads an info-hash: 40 hex digits.
pub(super) fn info_hash(text: &str) -> Option<InfoHashV1> {
    let mut hash = [0; 20];
    if text.len() != 40 || !text.is_ascii() {
        return None;
    }
    for (byte, digits) in hash.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digit = |digit: u8| char::from(digit).to_digit(16);
        let (high, low) = (digit(*digits.first()?)?, digit(*digits.get(1)?)?);
        *byte = u8::try_from(high << 4 | low).ok()?;
    }
    Some(InfoHashV1(hash))
}

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
    let parameters = form_urlencoded::parse(text.as_bytes());
    let deserializer = serde_urlencoded::Deserializer::new(parameters);
    serde_path_to_error::deserialize(deserializer).map_err(|error| {
        let field = at_fault(error.path(), &error.inner().to_string());
        let detail = format!("in the query, {field}: {}", error.inner());
        Refusal::field(field, detail)
    })
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Box<Refusal>;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Query<T>, Box<Refusal>> {
        query(parts.uri.query().unwrap_or_default()).map(Query)
    }
}

/// The field at fault, by the way to it and by what is said of it: of one that is missing, or is
/// there twice, the way is that to the object which it is of.
fn at_fault(way: &serde_path_to_error::Path, said: &str) -> String {
    let way = way.to_string();
    let named = ["missing field `", "duplicate field `"];
    let named = named.iter().find_map(|start| said.strip_prefix(start));
    let named = named.and_then(|rest| rest.split('`').next());
    match (way.as_str(), named) {
        (".", Some(named)) => named.to_owned(),
        (_, Some(named)) => format!("{way}.{named}"),
        (_, None) => way,
    }
}

/// What the body of a request says, as JSON.
pub(super) struct Json<T>(pub(super) T);

/// Reads a JSON object.
pub(super) fn json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Box<Refusal>> {
    let no_json = |error: &serde_json::Error| {
        Refusal::new(Kind::Malformed, format!("the body is no JSON: {error}"))
    };
    // Elsewise a list would be taken for the fields of an object in their order.
    if !bytes.trim_ascii_start().starts_with(b"{") {
        let read = serde_json::from_slice::<IgnoredAny>(bytes);
        return Err(match read {
            Ok(IgnoredAny) => Refusal::new(Kind::Invalid, "the body is JSON, but no object"),
            Err(error) => no_json(&error),
        });
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let read = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let inner = error.inner();
        match inner.classify() {
            Category::Data => {
                let field = at_fault(error.path(), &inner.to_string());
                Refusal::field(&field, format!("{field}: {inner}"))
            }
            _ => no_json(inner),
        }
    })?;
    deserializer.end().map_err(|error| no_json(&error))?;
    Ok(read)
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
    /// The place of a long one among those that may be in memory.
    _place: Option<OwnedSemaphorePermit>,
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
    let mut read = Read {
        bytes: Vec::new(),
        _place: None,
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
        if length > BODY_BYTES_MAX && read._place.is_none() {
            let place = Arc::clone(&api.large).acquire_owned().await;
            read._place = place.ok();
        }
        read.bytes.extend_from_slice(&data);
    }
}
