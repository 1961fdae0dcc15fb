//! What goes wrong when a server is asked, in words that say what to do.

use super::{Place, Token};
use crate::failure::Failure;
use control::api::types::Problem;
use proto::text::printable;
use std::error::Error as _;
use std::fmt;
use std::io::ErrorKind;

/// The longest reason of a server that is shown, in characters.
const DETAIL_CHARS_MAX: usize = 600;

/// Why there is no answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Error {
    /// Nobody is there, or who was there has gone.
    Unreachable(String),
    /// The server does not do it.
    Refused {
        /// The status of its answer.
        status: u16,
        /// What it says.
        text: String,
    },
    /// What came is no answer.
    Odd(String),
}

impl Error {
    /// Of a request that has no answer.
    pub(super) fn of_request(place: &Place, error: &reqwest::Error) -> Error {
        let cause = io_kind(error);
        let why = chain(error);
        let text = match (place, cause) {
            (Place::Socket(path), Some(ErrorKind::NotFound)) => format!(
                "no server: there is no socket {}; start one with `seedring serve`, or say where \
                 it is with --state-dir or --url",
                path.display()
            ),
            (Place::Socket(path), Some(ErrorKind::ConnectionRefused)) => format!(
                "no server: nobody answers at {}; it has ended, start it with `seedring serve`",
                path.display()
            ),
            (Place::Socket(path), Some(ErrorKind::PermissionDenied)) => format!(
                "no permission to use {}: run this as the user of the server or as root, or ask \
                 it with --url and --token-file",
                path.display()
            ),
            (Place::Url(_), Some(ErrorKind::ConnectionRefused)) => format!(
                "no server: nobody answers at {place}; start one with `seedring serve`, or say \
                 where it is with --url"
            ),
            _ if error.is_builder() => {
                format!("{place} is no address of a server: {why}")
            }
            _ if error.is_timeout() => {
                format!("the server at {place} does not answer in time")
            }
            _ => format!("cannot ask the server at {place}: {why}"),
        };
        Error::Unreachable(text)
    }

    /// Of an answer that is no success.
    pub(super) fn of_answer(
        place: &Place,
        token: Option<&Token>,
        path: &str,
        status: u16,
        body: &[u8],
    ) -> Error {
        let problem: Option<Problem> = serde_json::from_slice(body).ok();
        let said = problem.map(|problem| {
            let text = match problem.detail.is_empty() {
                true => problem.title,
                false => problem.detail,
            };
            match problem.field {
                // Most details begin with the field themselves.
                Some(field) if !text.starts_with(&field) => format!("{field}: {text}"),
                _ => text,
            }
        });
        let said = said.map(|text| printable(text.as_bytes(), DETAIL_CHARS_MAX));
        let text = match (status, token, said) {
            (401, None, _) => format!(
                "the server at {place} wants a token: name the file with --token-file (`api-token` \
                 in the server's state folder), or put the token into SEEDRING_TOKEN"
            ),
            (401, Some(token), _) => format!(
                "the server at {place} does not take the token {}: the right one is in the file \
                 `api-token` of its state folder",
                token.source
            ),
            (_, _, Some(said)) => said,
            (404, _, None) => format!(
                "the server at {place} does not know {path}: it has no such API (`seedring seed` \
                 has none), or is another program"
            ),
            (status, _, None) => format!("the server at {place} answers {path} with {status}"),
        };
        Error::Refused { status, text }
    }

    /// Whether what was asked for is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Error::Refused { status: 404, .. })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Unreachable(text) | Error::Refused { text, .. } | Error::Odd(text) => {
                formatter.write_str(text)
            }
        }
    }
}

impl std::error::Error for Error {}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Failed(error.into())
    }
}

/// What the system said, if it is that.
fn io_kind(error: &reqwest::Error) -> Option<ErrorKind> {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            return Some(error.kind());
        }
        source = error.source();
    }
    None
}

/// An error and what is behind it, without the address, which may have a password.
pub(super) fn chain(error: &reqwest::Error) -> String {
    let mut reasons = Vec::new();
    let mut source = error.source();
    while let Some(error) = source {
        let reason = error.to_string();
        if reasons.last() != Some(&reason) {
            reasons.push(reason);
        }
        source = error.source();
    }
    match reasons.is_empty() {
        true => "the request failed".to_owned(),
        false => printable(reasons.join(": ").as_bytes(), DETAIL_CHARS_MAX),
    }
}
