//! Asks a running server over its HTTP API: where the server is, by what it knows us, requests and
//! their answers.
//!
//! Limits: an answer has at most [`ANSWER_BYTES_MAX`]; a server that says nothing for
//! [`SILENCE_MAX`] is given up. Does not: know what is asked; [`crate::commands::remote`] does.

mod error;
mod place;

pub use error::Error;
pub use place::{Place, ServerArgs, Token, find};

use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Method, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;

/// The longest answer that is read: 10,000 torrents with long names are some 20 MiB.
const ANSWER_BYTES_MAX: usize = 256 << 20;
/// How long a connection may take to be there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the server may say nothing: it answers a removal of many torrents when all are gone.
const SILENCE_MAX: Duration = Duration::from_secs(120);
/// What precedes every path.
const BASE: &str = "/api/v1";

/// A way to one server.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    place: Place,
    token: Option<Token>,
}

impl Client {
    /// A way to the server at `place`; nothing is asked yet. `authority` is a certificate in PEM
    /// that is believed beside the system's.
    ///
    /// # Errors
    ///
    /// The certificate cannot be used.
    pub fn new(
        place: Place,
        token: Option<Token>,
        authority: Option<&[u8]>,
    ) -> Result<Client, Error> {
        // A proxy of the environment is for the web; the server is ours.
        let mut builder = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(SILENCE_MAX)
            .user_agent(concat!("seedring/", env!("CARGO_PKG_VERSION")));
        if let Place::Socket(path) = &place {
            builder = builder.unix_socket(path.as_path());
        }
        let odd = |error: &reqwest::Error| Error::Odd(error::chain(error));
        for certificate in authority
            .map(reqwest::Certificate::from_pem_bundle)
            .transpose()
            .map_err(|error| odd(&error))?
            .unwrap_or_default()
        {
            builder = builder.add_root_certificate(certificate);
        }
        let http = builder.build().map_err(|error| odd(&error))?;
        Ok(Client { http, place, token })
    }

    /// Where the server is.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Reads an answer.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        let answer = self.ask::<()>(Method::GET, path, None).await?;
        self.understand(path, &answer)
    }

    /// Sends a request, and reads its answer.
    pub async fn send<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &B,
    ) -> Result<T, Error> {
        let answer = self.ask(method, path, Some(body)).await?;
        self.understand(path, &answer)
    }

    /// Sends a request, and gives the bytes of its answer, which is a success.
    pub async fn ask<B: Serialize>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<Vec<u8>, Error> {
        let url = format!("{}{BASE}{path}", self.place.base());
        let mut request = self.http.request(method, url);
        request = request.header(ACCEPT, "application/json");
        if let Some(token) = &self.token {
            request = request.bearer_auth(&token.text);
        }
        if let Some(body) = body {
            let body = serde_json::to_vec(body)
                .map_err(|error| Error::Odd(format!("cannot write the request: {error}")))?;
            request = request.header(CONTENT_TYPE, "application/json").body(body);
        }
        let answer = request.send().await;
        let mut answer = answer.map_err(|error| Error::of_request(&self.place, &error))?;
        let body = self.body(&mut answer).await?;
        match answer.status() {
            status if status.is_success() => Ok(body),
            status => Err(Error::of_answer(
                &self.place,
                self.token.as_ref(),
                path,
                status.as_u16(),
                &body,
            )),
        }
    }

    async fn body(&self, answer: &mut Response) -> Result<Vec<u8>, Error> {
        let mut body = Vec::new();
        let failed = |error: reqwest::Error| Error::of_request(&self.place, &error);
        while let Some(chunk) = answer.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(Error::Odd(format!(
                    "the server at {} gives an answer of more than {} MiB",
                    self.place,
                    ANSWER_BYTES_MAX >> 20
                )));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn understand<T: DeserializeOwned>(&self, path: &str, body: &[u8]) -> Result<T, Error> {
        serde_json::from_slice(body).map_err(|error| {
            Error::Odd(format!(
                "the server at {} answers {path} with something that this version does not \
                 understand ({error}); is it another version, or another program?",
                self.place
            ))
        })
    }
}

/// A query in an address, with the `?` before it; of nothing, nothing.
pub fn query(parts: &impl Serialize) -> String {
    match serde_urlencoded::to_string(parts) {
        Ok(text) if !text.is_empty() => format!("?{text}"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests;
