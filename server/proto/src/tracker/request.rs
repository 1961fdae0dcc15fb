//! The URLs that a client asks: announce and scrape.
//!
//! Not here: whether the base URL is one that may be asked; it is passed through as it stands.

use super::AnnounceRequest;
use crate::ids::InfoHashV1;

impl AnnounceRequest {
    /// The URL to ask: `base`, with the announce's parameters after those that it has already, such
    /// as a passkey. A fragment is dropped.
    pub fn url(&self, base: &str) -> String {
        let mut query = Query::append_to(base);
        query.bytes("info_hash", &self.info_hash.0);
        query.bytes("peer_id", &self.peer_id.0);
        query.text("port", &self.port.to_string());
        query.text("uploaded", &self.uploaded_bytes.to_string());
        query.text("downloaded", &self.downloaded_bytes.to_string());
        if let Some(left) = self.left_bytes {
            query.text("left", &left.to_string());
        }
        query.text("compact", if self.compact { "1" } else { "0" });
        if self.no_peer_id {
            query.text("no_peer_id", "1");
        }
        if let Some(event) = self.event.name() {
            query.text("event", event);
        }
        if let Some(peers) = self.peers_wanted {
            query.text("numwant", &peers.to_string());
        }
        if let Some(key) = &self.key {
            query.bytes("key", key);
        }
        if let Some(address) = self.ip {
            query.text("ip", &address.to_string());
        }
        if let Some(address) = self.ipv4 {
            query.text("ipv4", &address.to_string());
        }
        if let Some(address) = self.ipv6 {
            query.text("ipv6", &address.to_string());
        }
        if let Some(id) = &self.tracker_id {
            query.bytes("trackerid", id);
        }
        query.url
    }
}

/// The scrape URL that belongs to an announce URL (BEP 48): `announce` right after the last slash
/// becomes `scrape`. `None` if the tracker has no scrape by that rule, or is not asked over HTTP.
pub fn scrape_url(announce: &str) -> Option<String> {
    let (scheme, rest) = announce.split_once("://")?;
    if !(scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")) {
        return None;
    }
    // In the rest, so that the slashes of the scheme do not make a host called `announce` a path.
    let (before, last) = rest.rsplit_once('/')?;
    let parameters = last.strip_prefix("announce")?;
    Some(format!("{scheme}://{before}/scrape{parameters}"))
}

/// The URL that scrapes these torrents, of a tracker with this scrape URL.
pub fn scrape_request_url(scrape_url: &str, info_hashes: &[InfoHashV1]) -> String {
    let mut query = Query::append_to(scrape_url);
    for info_hash in info_hashes {
        query.bytes("info_hash", &info_hash.0);
    }
    query.url
}

/// Writes `name=value` pairs behind a URL.
struct Query {
    url: String,
    separator: Option<char>,
}

impl Query {
    fn append_to(base: &str) -> Self {
        let base = base.split('#').next().unwrap_or(base);
        let separator = match base.split_once('?') {
            None => Some('?'),
            Some((_, query)) if query.is_empty() || query.ends_with('&') => None,
            Some(_) => Some('&'),
        };
        Query {
            url: base.to_owned(),
            separator,
        }
    }

    fn text(&mut self, name: &str, value: &str) {
        self.bytes(name, value.as_bytes());
    }

    /// All but the unreserved characters of RFC 3986 are escaped, so any bytes pass.
    fn bytes(&mut self, name: &str, value: &[u8]) {
        const HEX: &[u8; 16] = b"0123456789ABCDEF";
        self.url.extend(self.separator);
        self.separator = Some('&');
        self.url.push_str(name);
        self.url.push('=');
        for &byte in value {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                self.url.push(char::from(byte));
            } else {
                self.url.push('%');
                self.url.push(char::from(HEX[usize::from(byte >> 4)]));
                self.url.push(char::from(HEX[usize::from(byte & 15)]));
            }
        }
    }
}
