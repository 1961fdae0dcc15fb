//! Keys that say who may ask the HTTP API: a Unix socket, names with passwords.
//!
//! Limits: the lengths of the keys. Does not: open or verify anything.

use super::setting::{Bounds, Input, Setting, quote};
use super::table::WrongEntry;
use argon2::PasswordHash;
use std::fmt;
use std::path::PathBuf;

/// The longest name of a user, and the longest hash of a password.
const USER_BYTES_MAX: usize = 64;
const HASH_BYTES_MAX: usize = 512;

/// Where the API's Unix socket is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ApiSocket {
    /// In the state folder.
    #[default]
    InStateDir,
    /// There.
    At(PathBuf),
    /// Nowhere.
    Off,
}

impl Setting for ApiSocket {
    fn read(input: Input<'_>, bounds: &Bounds) -> Option<Self> {
        match input.string()? {
            "" => Some(ApiSocket::Off),
            "auto" => Some(ApiSocket::InStateDir),
            text if text.starts_with('/') && !text.contains('\0') => {
                let is_short = text.len() as u64 <= *bounds.end();
                is_short.then(|| ApiSocket::At(PathBuf::from(text)))
            }
            _ => None,
        }
    }
    fn render(&self) -> String {
        quote(&match self {
            ApiSocket::InStateDir => "auto".to_owned(),
            ApiSocket::At(path) => path.to_string_lossy().into_owned(),
            ApiSocket::Off => String::new(),
        })
    }
    fn allowed(bounds: &Bounds) -> String {
        format!(
            "\"auto\", an absolute path of at most {} bytes, or \"\" for off",
            bounds.end()
        )
    }
}

/// Someone with a password.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiUser {
    /// The name.
    pub name: String,
    /// The password's argon2 hash as a PHC string.
    pub hash: String,
}

impl fmt::Debug for ApiUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiUser({:?})", self.name)
    }
}

/// Those who may ask by a name and a password.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiUsers(pub Vec<ApiUser>);

fn user(text: &str) -> Option<ApiUser> {
    let (name, hash) = text.split_once(':')?;
    let is_name = (1..=USER_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control);
    if !is_name || hash.len() > HASH_BYTES_MAX {
        return None;
    }
    let parsed = PasswordHash::new(hash).ok()?;
    let is_whole = parsed.salt.is_some() && parsed.hash.is_some();
    let is_known = argon2::Algorithm::try_from(parsed.algorithm).is_ok();
    let is_usable = is_known && argon2::Params::try_from(&parsed).is_ok();
    (is_whole && is_usable).then(|| ApiUser {
        name: name.to_owned(),
        hash: hash.to_owned(),
    })
}

/// The entries; in a variable they are parted by blanks, because hashes have commas.
fn entries(input: Input<'_>) -> Option<Vec<&str>> {
    match input {
        Input::Text(text) => Some(text.split_whitespace().collect()),
        Input::Toml(_) => input.strings(),
    }
}

impl Setting for ApiUsers {
    const IS_SECRET: bool = true;

    fn read(input: Input<'_>, bounds: &Bounds) -> Option<Self> {
        let users: Option<Vec<_>> = entries(input)?.into_iter().map(user).collect();
        let users = users?;
        let mut names: Vec<_> = users.iter().map(|user| &user.name).collect();
        names.sort_unstable();
        names.dedup();
        let are_apart = names.len() == users.len();
        (are_apart && users.len() as u64 <= *bounds.end()).then_some(ApiUsers(users))
    }
    fn wrong_entry(input: Input<'_>) -> Option<WrongEntry> {
        input.wrong_entry(|text| user(text).is_some())
    }
    fn render(&self) -> String {
        let entry = |user: &ApiUser| quote(&format!("{}:{}", user.name, user.hash));
        let entries: Vec<String> = self.0.iter().map(entry).collect();
        format!("[{}]", entries.join(", "))
    }
    fn allowed(bounds: &Bounds) -> String {
        format!(
            "a list of at most {} users of different names, each \"NAME:HASH\" with the argon2 hash \
             of the password, \"$argon2id$v=19$…\"",
            bounds.end()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$\
                        Fh8SKsFbJkTVYBFVSPDyvN1J1BzBz9Hxa+jFrmIEE2s";

    #[test]
    fn users_are_names_with_hashes_that_can_be_verified() {
        let bounds = 0..=3;
        let read = |text: &str| ApiUsers::read(Input::Text(text), &bounds);
        let users = read(&format!("one:{HASH} two:{HASH}")).unwrap();
        assert_eq!(users.0[1].name, "two");
        assert_eq!(users.0[1].hash, HASH);
        assert!(!format!("{users:?}").contains("argon2"));
        assert_eq!(read(""), Some(ApiUsers::default()));
        for wrong in [
            "one".to_owned(),
            format!(":{HASH}"),
            "one:password".to_owned(),
            "one:$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ".to_owned(),
            "one:$2b$12$R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUW".to_owned(),
            format!("one:{HASH} one:{HASH}"),
            format!("a:{HASH} b:{HASH} c:{HASH} d:{HASH}"),
        ] {
            assert_eq!(read(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_socket_is_in_the_state_folder_elsewhere_or_nowhere() {
        let bounds = 0..=100;
        let read = |text: &str| ApiSocket::read(Input::Text(text), &bounds);
        assert_eq!(read("auto"), Some(ApiSocket::InStateDir));
        assert_eq!(read(""), Some(ApiSocket::Off));
        let path = "/run/seedring/api.sock";
        assert_eq!(read(path), Some(ApiSocket::At(path.into())));
        assert_eq!(read("relative.sock"), None);
        assert_eq!(read(&format!("/{}", "x".repeat(100))), None);
        for socket in [
            ApiSocket::InStateDir,
            ApiSocket::Off,
            ApiSocket::At(path.into()),
        ] {
            let text = socket.render();
            assert_eq!(read(text.trim_matches('"')), Some(socket));
        }
    }
}
