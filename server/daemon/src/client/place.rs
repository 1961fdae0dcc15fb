//! Where the server is, and the token by which it knows us.

use super::{Client, Error};
use crate::cli::Global;
use crate::failure::Failure;
use anyhow::{Context, anyhow};
use clap::Args;
use control::config::{ApiSocket, Config, Environment};
use std::fmt;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// The socket of the API in the state folder.
const SOCKET_FILE: &str = "api.sock";
/// The token of the API in the state folder.
const TOKEN_FILE: &str = "api-token";
/// The longest file of a token that is read, and of certificates.
const TOKEN_BYTES_MAX: u64 = 4 << 10;
const AUTHORITY_BYTES_MAX: u64 = 4 << 20;

/// Which server is asked.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Server")]
pub struct ServerArgs {
    /// Its API, such as http://127.0.0.1:8690 or unix:/run/seedring/api.sock [default:
    /// SEEDRING_URL, else api.sock in the state folder, else api.listen of the configuration]
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// The file with its token [default: SEEDRING_TOKEN, else api-token in the state folder]
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// A certificate, in PEM, that vouches for a https URL
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
}

/// Where a server's API is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// A Unix socket.
    Socket(PathBuf),
    /// A scheme, host and port.
    Url(String),
}

impl Place {
    /// Reads what the user says.
    fn parse(text: &str) -> Result<Place, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path.strip_prefix("//").unwrap_or(path));
            return match path.is_absolute() {
                true => Ok(Place::Socket(path)),
                false => Err("the path behind unix: has to begin with /".into()),
            };
        }
        let rest = ["http://", "https://"]
            .into_iter()
            .find_map(|scheme| text.strip_prefix(scheme));
        let Some(rest) = rest else {
            return Err("the address of a server begins with http://, https:// or unix:/".into());
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        match rest.is_empty() || rest.contains(['?', '#', ' ']) {
            true => Err("the address of a server is like http://127.0.0.1:8690".into()),
            false => Ok(Place::Url(text.trim_end_matches('/').to_owned())),
        }
    }

    /// The API of a server on this machine that listens at `address`.
    fn of_listener(address: SocketAddr, is_tls: bool) -> Place {
        let ip = match address.ip() {
            ip if !ip.is_unspecified() => ip,
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        };
        let scheme = if is_tls { "https" } else { "http" };
        Place::Url(format!(
            "{scheme}://{}",
            SocketAddr::new(ip, address.port())
        ))
    }

    /// What precedes the path of a request. A socket's requests name some host: HTTP wants one.
    pub(super) fn base(&self) -> &str {
        match self {
            Place::Socket(_) => "http://localhost",
            Place::Url(url) => url,
        }
    }

    /// Whether it can be nowhere but on this machine.
    fn is_local(&self) -> bool {
        let Place::Url(url) = self else { return true };
        let rest = url.split_once("://").map_or("", |(_, rest)| rest);
        let authority = rest.split('/').next().unwrap_or_default();
        let authority = authority.rsplit('@').next().unwrap_or_default();
        let host = match authority.strip_prefix('[') {
            Some(v6) => v6.split(']').next().unwrap_or_default(),
            None => authority.split(':').next().unwrap_or_default(),
        };
        let is_loopback = |ip: IpAddr| ip.is_loopback();
        host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(is_loopback)
    }
}

/// For people; without a password.
impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Socket(path) => write!(formatter, "{}", path.display()),
            Place::Url(url) => match (url.split_once("://"), url.rsplit_once('@')) {
                (Some((scheme, _)), Some((_, host))) => write!(formatter, "{scheme}://{host}"),
                _ => formatter.write_str(url),
            },
        }
    }
}

/// By what a server knows us.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// It itself.
    pub text: String,
    /// Where it is from, for messages.
    pub source: String,
}

/// Without the secret.
impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Token({})", self.source)
    }
}

/// Finds the server that the command line, the environment and the configuration say.
///
/// # Errors
///
/// They say something that cannot be.
pub fn find(global: &Global, args: &ServerArgs) -> Result<Client, Failure> {
    let variable = |name| std::env::var(name).ok().filter(|text| !text.is_empty());
    let named = args.url.clone().or_else(|| variable("SEEDRING_URL"));
    let found = find_in(
        global,
        args,
        named.as_deref(),
        variable("SEEDRING_TOKEN"),
        &Environment::of_process(),
    );
    let (place, token) = found?;
    let authority = match &args.ca_file {
        Some(path) => Some(read(path, AUTHORITY_BYTES_MAX).map_err(Failure::Usage)?),
        None => None,
    };
    let client = Client::new(place, token, authority.as_deref());
    client.map_err(|error: Error| Failure::Usage(error.into()))
}

/// The same, with everything it depends on.
pub(super) fn find_in(
    global: &Global,
    args: &ServerArgs,
    named: Option<&str>,
    token: Option<String>,
    environment: &Environment,
) -> Result<(Place, Option<Token>), Failure> {
    let usage = |text: String| Failure::Usage(anyhow!(text));
    let named = named.map(Place::parse).transpose().map_err(usage)?;
    let explicit = explicit_token(args, token)?;
    // A server elsewhere is told no secret of the one here, and needs no configuration.
    if let (Some(place), true) = (&named, explicit.is_some()) {
        return Ok((place.clone(), explicit));
    }
    if let Some(place) = named.clone().filter(|place| !place.is_local()) {
        return Ok((place, None));
    }
    let only_state_dir = global.state_dir.is_some() && global.config.is_none();
    let config = match Config::load(global.config.as_deref(), environment) {
        Ok(config) => config,
        // Its server has another configuration than a user may read, or can read.
        Err(_) if only_state_dir => Config::default(),
        Err(error) => return Err(Failure::Usage(error.into())),
    };
    let state_dir = global.state_dir.clone();
    let state_dir = state_dir.unwrap_or_else(|| config.state_dir(environment));
    let token = explicit.or_else(|| token_of(&state_dir));
    if let Some(place) = named {
        return Ok((place, token));
    }
    let socket = match &config.api.socket {
        ApiSocket::InStateDir => Some(state_dir.join(SOCKET_FILE)),
        ApiSocket::At(path) => Some(path.clone()),
        ApiSocket::Off => None,
    };
    // Who names a state folder means that server, and not whichever listens at the usual port.
    let listener = config.api.listen.filter(|_| !only_state_dir);
    let listener = listener.filter(|address| address.port() != 0);
    let is_tls = config.api.tls_cert.is_some();
    let place = match (socket, listener) {
        // A socket that may not be looked at is there: asking says what is wrong with it.
        (Some(socket), Some(address)) if is_missing(&socket) => Place::of_listener(address, is_tls),
        (Some(socket), _) => Place::Socket(socket),
        (None, Some(address)) => Place::of_listener(address, is_tls),
        (None, None) => {
            return Err(usage(
                "the configuration has neither a socket nor a port of the API; say where the \
                 server is with --url"
                    .to_owned(),
            ));
        }
    };
    Ok((place, token))
}

fn is_missing(path: &Path) -> bool {
    std::fs::metadata(path).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

/// The token that the user names.
fn explicit_token(args: &ServerArgs, variable: Option<String>) -> Result<Option<Token>, Failure> {
    if let Some(path) = &args.token_file {
        let text = read(path, TOKEN_BYTES_MAX).map_err(Failure::Usage)?;
        let text = String::from_utf8_lossy(&text).trim().to_owned();
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            let why = anyhow!(
                "{} holds no token: one line of visible ASCII",
                path.display()
            );
            return Err(Failure::Usage(why));
        }
        let source = format!("of {}", path.display());
        return Ok(Some(Token { text, source }));
    }
    Ok(variable.map(|text| Token {
        text: text.trim().to_owned(),
        source: "of SEEDRING_TOKEN".to_owned(),
    }))
}

/// The token of a state folder. Who may not read it does without: the socket asks for none.
fn token_of(state_dir: &Path) -> Option<Token> {
    let path = state_dir.join(TOKEN_FILE);
    let text = read(&path, TOKEN_BYTES_MAX).ok()?;
    let text = String::from_utf8(text).ok()?.trim().to_owned();
    let is_token = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    is_token.then(|| Token {
        text,
        source: format!("of {}", path.display()),
    })
}

/// A short file.
fn read(path: &Path, bytes_max: u64) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(bytes_max).read_to_end(&mut bytes))
        .with_context(|| format!("cannot read {}", path.display()))?;
    Ok(bytes)
}
