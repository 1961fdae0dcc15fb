//! The names under which we may be asked, against DNS rebinding.
//!
//! A web page on a foreign name can make its name resolve to our address; the browser then takes us
//! for the page's own server and lets it read our answers. It still sends the foreign name in the
//! Host header, so only addresses, loopback names and configured names are answered.

use axum::extract::Request;
use axum::http::header;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

/// The names that are allowed besides addresses and loopback names.
#[derive(Debug, Default)]
pub struct Hosts(BTreeSet<String>);

impl Hosts {
    /// Allows these names, with or without a port.
    pub fn new(names: &[String]) -> Self {
        Self(
            names
                .iter()
                .map(|name| without_port(name).to_ascii_lowercase())
                .collect(),
        )
    }

    /// Whether the request asks for a name that is ours: exactly one Host header (a second could
    /// mean something else to a proxy), and no other name in the request's target.
    pub fn allow(&self, request: &Request) -> bool {
        let mut hosts = request.headers().get_all(header::HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else {
            return false;
        };
        let target = request
            .uri()
            .authority()
            .is_none_or(|target| self.allows(target.as_str()));
        target && host.to_str().is_ok_and(|host| self.allows(host))
    }

    /// Whether this Host header is ours.
    pub fn allows(&self, host: &str) -> bool {
        let name = without_port(host);
        if let Some(address) = name
            .strip_prefix('[')
            .and_then(|name| name.strip_suffix(']'))
        {
            return address.parse::<Ipv6Addr>().is_ok();
        }
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        name.parse::<IpAddr>()
            .is_ok_and(|address| address.is_ipv4())
            || name == "localhost"
            || name.ends_with(".localhost")
            || self.0.contains(&name)
    }
}

/// The host without `:port`; an IPv6 address keeps its brackets.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_loopback_and_configured_names_are_ours() {
        let hosts = Hosts::new(&["seed.example.org".to_owned(), "b.example:8690".to_owned()]);
        for host in [
            "127.0.0.1",
            "127.0.0.1:8690",
            "192.0.2.7:80",
            "[::1]",
            "[::1]:8690",
            "localhost",
            "LocalHost:8690",
            "a.localhost",
            "localhost.",
            "seed.example.org",
            "Seed.Example.Org:443",
            "seed.example.org.",
            "b.example",
        ] {
            assert!(hosts.allows(host), "{host}");
        }
        for host in [
            "",
            ":8690",
            "evil.example",
            "evil.example:8690",
            "localhost.evil.example",
            "evillocalhost",
            "127.0.0.1.evil.example",
            "seed.example.org.evil.example",
            "xseed.example.org",
            "[::1].evil.example",
            "[evil.example]",
            "[::1",
            "::1",
            "127.0.0.1:80:80",
            "127.0.0.1@evil.example",
            "2130706433",
            "0x7f.1",
        ] {
            assert!(!hosts.allows(host), "{host}");
        }
    }
}
