//! Who may ask: whoever has the token of the state folder (`Authorization: Bearer`), whoever knows
//! a name and a password of `api.users` (Basic), and, unless `api.auth` says otherwise, whoever can
//! open the Unix socket.
//!
//! Limits: [`throttle`] slows down those who guess; at most [`VERIFYING_MAX`] passwords are
//! verified at a time, each on a thread for blocking work, and who waits for longer than
//! [`VERIFY_WAIT_MAX`] is told to come again; [`REMEMBERED_MAX`] that were right are remembered for
//! [`REMEMBERED_FOR`], so that not every request costs a password's verification.
//!
//! Does not: know pages, sessions or cookies; tell who may do what: who may ask may do all.

mod hashing;
mod throttle;
mod token;

use super::problem::{Kind, Refusal};
use crate::config::{Api as Settings, ApiAuth, ApiUser, ApiUsers};
use crate::http::Client;
use argon2::{Argon2, Params, PasswordHash, PasswordVerifier};
use axum::http::HeaderMap;
use axum::http::header;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use seedring_metrics::{ControlCells, ControlCounter};
use sha2::{Digest, Sha256};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};
use subtle::ConstantTimeEq;
use throttle::Throttle;
use tokio::sync::Semaphore;

pub use hashing::hash_password;
pub use token::{TOKEN_FILE, TokenError};

/// Passwords that are verified at a time: each takes tens of MiB and of milliseconds.
const VERIFYING_MAX: usize = 2;

/// How long a login waits for its turn.
const VERIFY_WAIT_MAX: Duration = Duration::from_secs(5);

/// Names and passwords that were right and are remembered; of more the oldest is forgotten.
const REMEMBERED_MAX: usize = 16;

/// How long they are.
const REMEMBERED_FOR: Duration = Duration::from_secs(300);

/// Memory that passwords which are verified may take, in bytes, as their hashes say.
pub(super) fn verifying_bytes_max(users: &ApiUsers) -> u64 {
    let memory = |user: &ApiUser| {
        let hash = PasswordHash::new(&user.hash).ok()?;
        let params = Params::try_from(&hash).ok()?;
        Some(u64::from(params.m_cost()) << 10)
    };
    let most = users.0.iter().filter_map(memory).max();
    VERIFYING_MAX as u64 * most.unwrap_or(0)
}

/// Whether a request has shown who asks. Part of each request that gets to a handler.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Proven(pub(super) bool);

/// Who is let in, as a configuration and the state folder say it.
pub struct Access {
    mode: ApiAuth,
    token: String,
    users: ApiUsers,
    /// Of these users alone: who is one no more, or has another password, is not remembered.
    remembered: Mutex<Remembered>,
}

impl Access {
    /// Reads the token of the state folder, which is made if there is none.
    ///
    /// # Errors
    ///
    /// The token cannot be read or made, or others can read it.
    pub fn read(settings: &Settings, state_dir: &std::path::Path) -> Result<Access, TokenError> {
        let mut salt = [0; 32];
        token::random(&mut salt)?;
        Ok(Access {
            mode: settings.auth,
            token: token::read_or_make(state_dir)?,
            users: settings.users.clone(),
            remembered: Mutex::new(Remembered {
                salt,
                right: VecDeque::new(),
            }),
        })
    }

    fn is_token(&self, token: &str) -> bool {
        token.as_bytes().ct_eq(self.token.as_bytes()).into()
    }
}

/// See the module.
pub(super) struct Gate {
    access: RwLock<Arc<Access>>,
    throttle: Mutex<Throttle>,
    verifying: Arc<Semaphore>,
    cells: Arc<ControlCells>,
}

/// What a request shows of who asks.
enum Credential {
    None,
    Token(String),
    Password { name: String, password: String },
    Unreadable,
}

impl Gate {
    /// A gate that lets in whom `access` says.
    pub(super) fn new(access: Access, cells: Arc<ControlCells>) -> Gate {
        Gate {
            access: RwLock::new(Arc::new(access)),
            throttle: Mutex::default(),
            verifying: Arc::new(Semaphore::new(VERIFYING_MAX)),
            cells,
        }
    }

    /// Lets in whom `access` says, and nobody else, from the next request on.
    pub(super) fn renew(&self, access: Access) {
        let mut now = self.access.write().unwrap_or_else(PoisonError::into_inner);
        *now = Arc::new(access);
    }

    fn access(&self) -> Arc<Access> {
        let now = self.access.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&now)
    }

    /// Whether this client may ask, and has shown who it is.
    pub(super) async fn check(
        &self,
        client: Client,
        headers: &HeaderMap,
    ) -> Result<Proven, Box<Refusal>> {
        let access = self.access();
        match (access.mode, client) {
            // Who can open the socket is known by its file's mode.
            (ApiAuth::Auto | ApiAuth::Off, Client::Socket) => return Ok(Proven(true)),
            (ApiAuth::Off, Client::Address(_)) => {
                let is_token = matches!(
                    credential(headers), Credential::Token(token) if access.is_token(&token)
                );
                return Ok(Proven(is_token));
            }
            _ => {}
        }
        match credential(headers) {
            Credential::None => {
                let detail = "say who you are: send the token of the server's state folder \
                              (the file api-token) as Authorization: Bearer TOKEN";
                Err(challenge(&access, detail))
            }
            // A right token cannot be guessed, so nobody who has it is kept waiting.
            Credential::Token(token) if access.is_token(&token) => Ok(Proven(true)),
            Credential::Token(_) => {
                self.throttled(client)?;
                Err(self.wrong(&access, client, "this is not the token of the server"))
            }
            Credential::Password { name, password } => {
                self.throttled(client)?;
                match self.is_password(&access, name, password).await? {
                    true => Ok(Proven(true)),
                    false => Err(self.wrong(&access, client, "the name or the password is wrong")),
                }
            }
            Credential::Unreadable => {
                self.throttled(client)?;
                let detail = "the Authorization header is neither Bearer TOKEN nor Basic";
                Err(self.wrong(&access, client, detail))
            }
        }
    }

    /// Whether a name has this password. An unknown name takes as long as a known one.
    async fn is_password(
        &self,
        access: &Access,
        name: String,
        password: String,
    ) -> Result<bool, Box<Refusal>> {
        let known = access.users.0.iter().find(|user| user.name == name);
        let Some(compared) = known.or(access.users.0.first()) else {
            return Ok(false);
        };
        let mark = lock(&access.remembered).mark(&name, &password);
        if lock(&access.remembered).knows(&mark, Instant::now()) {
            return Ok(true);
        }
        let turn = Arc::clone(&self.verifying).acquire_owned();
        let turn = tokio::time::timeout(VERIFY_WAIT_MAX, turn).await;
        let Ok(Ok(turn)) = turn else {
            let detail = "too many logins are being verified; try again later";
            return Err(Refusal::new(Kind::Unavailable, detail).retry_after(5));
        };
        let (hash, is_known) = (compared.hash.clone(), known.is_some());
        let verified = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            PasswordHash::new(&hash).is_ok_and(|hash| {
                Argon2::default()
                    .verify_password(password.as_bytes(), &hash)
                    .is_ok()
            })
        });
        let is_right = verified.await.unwrap_or(false) && is_known;
        if is_right {
            lock(&access.remembered).remember(mark, Instant::now());
        }
        Ok(is_right)
    }

    /// Refuses a client that has failed too often.
    fn throttled(&self, client: Client) -> Result<(), Box<Refusal>> {
        let wait = lock(&self.throttle).wait(client, Instant::now());
        let Some(wait) = wait else {
            return Ok(());
        };
        self.cells.increment(ControlCounter::ApiRefusedLogins);
        let detail = "too many logins from this address have failed; try again later";
        let seconds = wait.as_secs().saturating_add(1);
        Err(Refusal::new(Kind::TooManyLogins, detail).retry_after(seconds))
    }

    /// Refuses a wrong credential, and remembers that it was.
    fn wrong(&self, access: &Access, client: Client, detail: &str) -> Box<Refusal> {
        self.cells.increment(ControlCounter::ApiRefusedLogin);
        let is_last = lock(&self.throttle).failed(client, Instant::now());
        if is_last {
            tracing::warn!(%client, "too many logins to the API have failed");
        }
        challenge(access, detail)
    }
}

/// Asks a client to say who it is.
fn challenge(access: &Access, detail: &str) -> Box<Refusal> {
    let refusal = Refusal::new(Kind::Unauthorized, detail)
        .with(header::WWW_AUTHENTICATE, "Bearer realm=\"seedring\"");
    match access.users.0.is_empty() {
        true => refusal,
        false => refusal.with(
            header::WWW_AUTHENTICATE,
            "Basic realm=\"seedring\", charset=\"UTF-8\"",
        ),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing in here can be half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the headers show: of exactly one Authorization.
fn credential(headers: &HeaderMap) -> Credential {
    let mut said = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(said), None) = (said.next(), said.next()) else {
        return match headers.contains_key(header::AUTHORIZATION) {
            true => Credential::Unreadable,
            false => Credential::None,
        };
    };
    let read = || {
        let (scheme, rest) = said.to_str().ok()?.split_once(' ')?;
        if scheme.eq_ignore_ascii_case("bearer") {
            return Some(Credential::Token(rest.trim().to_owned()));
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let decoded = BASE64_STANDARD.decode(rest.trim()).ok()?;
        let decoded = String::from_utf8(decoded).ok()?;
        let (name, password) = decoded.split_once(':')?;
        Some(Credential::Password {
            name: name.to_owned(),
            password: password.to_owned(),
        })
    };
    read().unwrap_or(Credential::Unreadable)
}

/// Names with passwords that were right, as salted hashes.
struct Remembered {
    salt: [u8; 32],
    right: VecDeque<([u8; 32], Instant)>,
}

impl Remembered {
    fn mark(&self, name: &str, password: &str) -> [u8; 32] {
        let mut hasher = Sha256::new();
        hasher.update(self.salt);
        hasher.update((name.len() as u64).to_le_bytes());
        hasher.update(name);
        hasher.update(password);
        hasher.finalize().into()
    }

    fn knows(&self, mark: &[u8; 32], now: Instant) -> bool {
        let is_it = |(known, since): &(_, Instant)| {
            let known: &[u8; 32] = known;
            bool::from(known.ct_eq(mark)) && now.duration_since(*since) < REMEMBERED_FOR
        };
        self.right.iter().any(is_it)
    }

    fn remember(&mut self, mark: [u8; 32], now: Instant) {
        if self.right.len() >= REMEMBERED_MAX {
            self.right.pop_front();
        }
        self.right.push_back((mark, now));
    }
}

#[cfg(test)]
mod tests;
