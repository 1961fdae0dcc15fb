//! Keys that say where another program is to be reached: a host's name, a proxy.
//!
//! Limits: the lengths of the keys. Does not: resolve or ask anybody.

use super::setting::{Bounds, Input, Setting, quote};
use crate::announce::is_proxy_url;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// The longest name of a host, and of one of its parts, in characters (RFC 1035).
const NAME_CHARS_MAX: usize = 253;
const LABEL_CHARS_MAX: usize = 63;

/// A host as it is written into URLs: a name or an address, without scheme, port or path; "" for
/// none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostName(String);

/// A text that names no host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not {ALLOWED_HOST}")]
pub struct HostError;

/// What a host may be, in words.
const ALLOWED_HOST: &str = "a host name or an IP address alone, without \"http://\", port or path, \
                            such as \"seed.example.org\", \"192.0.2.1\" or \"2001:db8::1\"";

impl HostName {
    /// The host as URLs have it, an IPv6 address in brackets; none for "".
    pub fn in_url(&self) -> Option<&str> {
        (!self.0.is_empty()).then_some(&self.0)
    }
}

impl FromStr for HostName {
    type Err = HostError;

    fn from_str(text: &str) -> Result<HostName, HostError> {
        let inner = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        if let Ok(v6) = inner.unwrap_or(text).parse::<Ipv6Addr>() {
            return Ok(HostName(format!("[{v6}]")));
        }
        let is_name = is_name(text) || text.parse::<IpAddr>().is_ok();
        match is_name {
            true => Ok(HostName(text.to_ascii_lowercase())),
            false => Err(HostError),
        }
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a text is a host's name. One that ends with a number is none: URLs take it for an IPv4
/// address, whatever stands before.
fn is_name(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        let is_in = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let is_long = label.len() > LABEL_CHARS_MAX;
        !label.is_empty() && !is_long && label.chars().all(is_in) && !label.starts_with('-')
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    let is_number = last.chars().all(|c| c.is_ascii_digit()) || last.starts_with("0x");
    name.len() <= NAME_CHARS_MAX && name.split('.').all(is_label) && !is_number
}

impl Setting for HostName {
    fn read(input: Input<'_>, _bounds: &Bounds) -> Option<Self> {
        match input.string()? {
            "" => Some(HostName::default()),
            text => text.parse().ok(),
        }
    }
    fn render(&self) -> String {
        quote(&self.0)
    }
    fn allowed(_bounds: &Bounds) -> String {
        format!("{ALLOWED_HOST}; \"\" for this machine's own address")
    }
}

/// The URL of a proxy, which may hold a password; "" for none.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ProxyUrl(String);

impl ProxyUrl {
    /// The URL, if there is one.
    pub fn url(&self) -> Option<&str> {
        (!self.0.is_empty()).then_some(&self.0)
    }
}

impl fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "none" } else { "a proxy" })
    }
}

impl Setting for ProxyUrl {
    const IS_SECRET: bool = true;

    fn read(input: Input<'_>, bounds: &Bounds) -> Option<Self> {
        let text = input.string()?;
        let is_allowed =
            text.is_empty() || (text.len() as u64 <= *bounds.end() && is_proxy_url(text));
        is_allowed.then(|| ProxyUrl(text.to_owned()))
    }
    fn render(&self) -> String {
        quote(&self.0)
    }
    fn allowed(bounds: &Bounds) -> String {
        format!(
            "\"http://host:port\", \"https://host:port\", \"socks5://host:port\" or \
             \"socks5h://host:port\", with \"user:password@\" before the host if it wants that, in \
             at most {} characters; \"\" for none",
            bounds.end()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_names_and_addresses_alone() {
        for (text, in_url) in [
            ("seed.example.org", "seed.example.org"),
            ("Seed", "seed"),
            ("xn--bcher-kva.example.", "xn--bcher-kva.example."),
            ("1and1.example", "1and1.example"),
            ("192.0.2.1", "192.0.2.1"),
            ("2001:db8:0::1", "[2001:db8::1]"),
            ("[2001:db8::1]", "[2001:db8::1]"),
        ] {
            let host: HostName = text.parse().unwrap();
            assert_eq!(host.in_url(), Some(in_url), "{text}");
        }
        let long = "a".repeat(LABEL_CHARS_MAX + 1);
        let longer = "a.".repeat(NAME_CHARS_MAX / 2 + 1) + "a";
        for text in [
            "",
            ".",
            "http://x/y",
            "host:6969",
            "[2001:db8::1]:6969",
            "192.0.2.1:6969",
            "192.0.2.256",
            "192.0.2",
            "a.0x7f",
            "a b",
            "a/b",
            "user@host",
            "-a.example",
            "a..example",
            "bücher.example",
            &long,
            &longer,
        ] {
            assert_eq!(text.parse::<HostName>(), Err(HostError), "{text}");
        }
    }
}
