//! Why a request is not answered as it was meant, in the words of RFC 9457.
//!
//! Limits: a detail of [`DETAIL_CHARS_MAX`] characters, escaped: it may repeat what was sent.

use super::types::Problem;
use crate::command::CommandError;
use crate::config::escape;
use axum::http::header::{self, HeaderValue};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};

/// The longest detail.
const DETAIL_CHARS_MAX: usize = 400;

/// What comes before a problem's kind.
const KIND_PREFIX: &str = "urn:seedring:";

/// The media type of problems.
const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/problem+json");

/// A kind of problem. `docs/API.md` lists them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// What was sent is no JSON, or no path or query that can be read.
    Malformed,
    /// Nobody has said, or proven, who asks.
    Unauthorized,
    /// It is not for this client: a foreign name or page, or a secret.
    Forbidden,
    /// There is no such torrent.
    UnknownTorrent,
    /// There is no such path.
    NotFound,
    /// The path is asked for otherwise.
    Method,
    /// The body did not come in time.
    Timeout,
    /// It cannot be done in the torrent's present state.
    Conflict,
    /// The body is too long.
    TooLarge,
    /// The body is of a kind that is not read.
    MediaType,
    /// A field is not known, is missing or says what it cannot.
    Invalid,
    /// Too many logins have failed.
    TooManyLogins,
    /// The disk, the web or something else outside failed.
    Failed,
    /// It is nothing that this server does.
    Unsupported,
    /// There is too much to do, the server is stopping, or it keeps no torrents.
    Unavailable,
    /// The server has not answered itself in time.
    NoAnswer,
}

impl Kind {
    /// Its name, its title and its status.
    fn words(self) -> (&'static str, &'static str, StatusCode) {
        use StatusCode as S;
        match self {
            Kind::Malformed => ("malformed", "Not understood", S::BAD_REQUEST),
            Kind::Unauthorized => ("unauthorized", "Who asks is not known", S::UNAUTHORIZED),
            Kind::Forbidden => ("forbidden", "Not allowed", S::FORBIDDEN),
            Kind::UnknownTorrent => ("unknown-torrent", "No such torrent", S::NOT_FOUND),
            Kind::NotFound => ("not-found", "No such path", S::NOT_FOUND),
            Kind::Method => ("method", "Another method", S::METHOD_NOT_ALLOWED),
            Kind::Timeout => ("timeout", "Too slow", S::REQUEST_TIMEOUT),
            Kind::Conflict => ("conflict", "Not now", S::CONFLICT),
            Kind::TooLarge => ("too-large", "Too long", S::PAYLOAD_TOO_LARGE),
            Kind::MediaType => ("media-type", "Not JSON", S::UNSUPPORTED_MEDIA_TYPE),
            Kind::Invalid => ("invalid", "A wrong value", S::UNPROCESSABLE_ENTITY),
            Kind::TooManyLogins => ("logins", "Too many logins", S::TOO_MANY_REQUESTS),
            Kind::Failed => ("failed", "It failed", S::INTERNAL_SERVER_ERROR),
            Kind::Unsupported => ("unsupported", "Not done here", S::NOT_IMPLEMENTED),
            Kind::Unavailable => ("unavailable", "Try later", S::SERVICE_UNAVAILABLE),
            Kind::NoAnswer => ("no-answer", "No answer in time", S::GATEWAY_TIMEOUT),
        }
    }
}

/// A request that is refused, and how its answer says so.
#[derive(Debug)]
pub(crate) struct Refusal {
    kind: Kind,
    detail: String,
    field: Option<String>,
    headers: HeaderMap,
}

impl Refusal {
    /// One in these words.
    pub(crate) fn new(kind: Kind, detail: impl Into<String>) -> Box<Refusal> {
        Box::new(Refusal {
            kind,
            detail: detail.into(),
            field: None,
            headers: HeaderMap::new(),
        })
    }

    /// One of a field.
    pub(crate) fn field(field: impl Into<String>, detail: impl Into<String>) -> Box<Refusal> {
        Refusal::new(Kind::Invalid, detail).of(field)
    }

    /// The same with the field that is at fault.
    pub(crate) fn of(mut self: Box<Self>, field: impl Into<String>) -> Box<Refusal> {
        self.field = Some(field.into());
        self
    }

    /// The same with one more header.
    pub(crate) fn with(mut self: Box<Self>, name: header::HeaderName, value: &str) -> Box<Refusal> {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.append(name, value);
        }
        self
    }

    /// The same with the seconds after which it may be tried again.
    pub(crate) fn retry_after(self: Box<Self>, seconds: u64) -> Box<Refusal> {
        self.with(header::RETRY_AFTER, &seconds.to_string())
    }

    /// As the answer's body has it.
    pub(crate) fn problem(&self) -> Problem {
        let (name, title, status) = self.kind.words();
        Problem {
            kind: format!("{KIND_PREFIX}{name}"),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: escape(&self.detail, DETAIL_CHARS_MAX),
            field: self
                .field
                .as_ref()
                .map(|field| escape(field, DETAIL_CHARS_MAX)),
        }
    }
}

impl IntoResponse for Box<Refusal> {
    fn into_response(self) -> Response {
        let (_, _, status) = self.kind.words();
        let body = serde_json::to_vec(&self.problem()).unwrap_or_default();
        let mut response = (status, self.headers, body).into_response();
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, CONTENT_TYPE);
        response
    }
}

impl From<CommandError> for Box<Refusal> {
    fn from(error: CommandError) -> Box<Refusal> {
        let detail = error.to_string();
        match error {
            CommandError::Unknown(_) => Refusal::new(Kind::UnknownTorrent, detail),
            CommandError::Invalid { field, .. } => Refusal::field(field, detail),
            CommandError::Conflict(_) => Refusal::new(Kind::Conflict, detail),
            CommandError::Unsupported(_) => Refusal::new(Kind::Unsupported, detail),
            CommandError::Failed(_) | CommandError::Fetch(_) => Refusal::new(Kind::Failed, detail),
            CommandError::Busy | CommandError::Stopping => {
                Refusal::new(Kind::Unavailable, detail).retry_after(5)
            }
        }
    }
}
