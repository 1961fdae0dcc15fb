//! Tracker URLs: which are used, how they are shown, and which addresses they may lead to.
//!
//! A tracker URL usually carries the user's passkey, in its path or its query. So nothing but
//! [`redacted`] and [`scrubbed`] text ever reaches a log, an error, a metric or the API.
//!
//! Limits: [`URL_BYTES_MAX`]; a text from a tracker is cut at [`TRACKER_TEXT_CHARS_MAX`].
//! Does not: resolve names (see `resolve`).

pub use proto::address::is_global;
use proto::limits::TRACKER_TEXT_CHARS_MAX;
use reqwest::Url;

use super::tiers::Transport;

/// The length of a tracker URL, in bytes.
pub const URL_BYTES_MAX: usize = 4096;
/// A path component or query value of this length may be a passkey and is blanked wherever it is
/// echoed.
const SECRET_BYTES_MIN: usize = 8;

/// Why a tracker's URL is not used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TrackerUrlError {
    /// A scheme that is neither `http`, `https` nor `udp`.
    #[error("the scheme {0:?} is not http, https or udp")]
    Scheme(String),
    /// It does not parse as a URL, or has no host.
    #[error("it is not a valid URL")]
    Invalid,
    /// A line break, a tab or another control character, which no valid URL contains.
    #[error("it contains a control character or a space")]
    Control,
    /// Longer than [`URL_BYTES_MAX`].
    #[error("it is longer than {URL_BYTES_MAX} bytes")]
    Long,
}

/// Parses a tracker URL of a torrent: HTTP, HTTPS or UDP, with a host, without control characters.
///
/// That of a UDP tracker is given as if it were `http`, so that its host is read by the same rules
/// (lower case, IDNA) and a missing port is 80, as others take it.
pub(super) fn parse_tracker_url(text: &str) -> Result<(Transport, Url), TrackerUrlError> {
    let text = text.trim();
    if text.len() > URL_BYTES_MAX {
        return Err(TrackerUrlError::Long);
    }
    // The URL parser would drop these silently, and then two spellings would be one tracker.
    if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(TrackerUrlError::Control);
    }
    let udp = is_udp(text).then(|| text.split_once("://")).flatten();
    let (transport, parsed) = match udp {
        Some((_, rest)) => (Transport::Udp, Url::parse(&format!("http://{rest}"))),
        None => (Transport::Http, Url::parse(text)),
    };
    let mut url = parsed.map_err(|_| TrackerUrlError::Invalid)?;
    url.set_fragment(None);
    match url.scheme() {
        "http" | "https" if url.host_str().is_some_and(|host| !host.is_empty()) => {
            Ok((transport, url))
        }
        "http" | "https" => Err(TrackerUrlError::Invalid),
        other => Err(TrackerUrlError::Scheme(shown(other))),
    }
}

/// Whether this is the URL of a UDP tracker.
pub fn is_udp(url: &str) -> bool {
    let scheme = url.trim().split_once("://").map(|(scheme, _)| scheme);
    scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case("udp"))
}

/// A tracker URL as it may be shown: scheme, host and port, never path, query or user.
pub fn redacted(url: &str) -> String {
    match Url::parse(url.trim()) {
        Ok(url) => redacted_url(&url),
        Err(_) => "(an unreadable tracker URL)".to_owned(),
    }
}

/// See [`redacted`].
pub(super) fn redacted_url(url: &Url) -> String {
    let host: String = url
        .host_str()
        .unwrap_or("")
        .chars()
        .take(TRACKER_TEXT_CHARS_MAX)
        .collect();
    match url.port() {
        Some(port) => format!("{}://{host}:{port}/…", url.scheme()),
        None => format!("{}://{host}/…", url.scheme()),
    }
}

/// What requests to one tracker are counted and limited by: host and port, apart for HTTP and UDP,
/// of which one may fail where the other works.
pub(super) fn host_key(transport: Transport, url: &Url) -> String {
    let host = host_name(url);
    let port = url.port_or_known_default().unwrap_or(0);
    match transport {
        Transport::Http => format!("{host}:{port}"),
        Transport::Udp => format!("udp:{host}:{port}"),
    }
}

/// The host as the resolver wants it: lower case, without the brackets of an IPv6 address.
pub(super) fn host_name(url: &Url) -> &str {
    let host = url.host_str().unwrap_or("");
    host.strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(host)
}

/// A stranger's text made safe to show: control characters escaped, cut.
pub(super) fn shown(text: &str) -> String {
    let mut out = String::new();
    for (count, c) in text.chars().enumerate() {
        if count == TRACKER_TEXT_CHARS_MAX {
            out.push('…');
            break;
        }
        if c.is_control() || is_bidi_control(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// Characters that reorder the text around them on a terminal or page.
fn is_bidi_control(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A tracker's text made safe to show: what may be a passkey of `url` is blanked, then [`shown`].
pub(super) fn scrubbed(text: &str, url: &Url) -> String {
    // Cut first: a megabyte must not be searched for every secret.
    let mut text: String = text.chars().take(4 * TRACKER_TEXT_CHARS_MAX).collect();
    let queries = url.query_pairs().map(|(_, value)| value.into_owned());
    let paths = url.path_segments().into_iter().flatten().map(str::to_owned);
    let user = [Some(url.username()), url.password()]
        .into_iter()
        .flatten()
        .map(str::to_owned);
    for secret in queries.chain(paths).chain(user) {
        if secret.len() >= SECRET_BYTES_MIN && secret != "announce.php" && secret != "announce" {
            text = text.replace(&secret, "…");
        }
    }
    shown(&text)
}

/// The scrape convention (BEP 48): the last path component begins with `announce`. Requests to
/// addresses that are not global go only to such a path, so that a stranger's torrent cannot aim
/// our requests at an arbitrary service on this machine or its network.
pub(super) fn is_announce_path(url: &Url) -> bool {
    last_segment_starts(url, "announce")
}

/// As [`is_announce_path`], for the scrape URL that belongs to it.
pub(super) fn is_scrape_path(url: &Url) -> bool {
    last_segment_starts(url, "scrape")
}

fn last_segment_starts(url: &Url, start: &str) -> bool {
    url.path_segments()
        .and_then(|mut segments| segments.next_back())
        .is_some_and(|last| last.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_parsed_or_refused_with_a_reason() {
        for good in [
            "http://tracker.example/announce",
            " https://[2001:db8::1]:8443/x/announce?passkey=1 ",
            "http://bücher.example/announce",
            "udp://tracker.example:6969",
            "UDP://[2001:db8::1]:6969/announce?key=1",
        ] {
            assert!(parse_tracker_url(good).is_ok(), "{good:?}");
        }
        let cases = [
            ("udp://", TrackerUrlError::Invalid),
            (
                "udp:tracker.example:80",
                TrackerUrlError::Scheme("udp".into()),
            ),
            (
                "ftp://tracker.example/",
                TrackerUrlError::Scheme("ftp".into()),
            ),
            ("file:///etc/passwd", TrackerUrlError::Scheme("file".into())),
            ("http://", TrackerUrlError::Invalid),
            ("tracker", TrackerUrlError::Invalid),
            ("", TrackerUrlError::Invalid),
            ("http://a/announce\r\nHost: b", TrackerUrlError::Control),
            ("http://a/ann ounce", TrackerUrlError::Control),
        ];
        for (text, error) in cases {
            assert_eq!(parse_tracker_url(text), Err(error), "{text:?}");
        }
        let long = format!("http://a/{}", "x".repeat(URL_BYTES_MAX));
        assert_eq!(parse_tracker_url(&long), Err(TrackerUrlError::Long));
    }

    #[test]
    fn a_udp_tracker_is_told_apart_by_transport_host_and_port() {
        let key = |text: &str| {
            let (transport, url) = parse_tracker_url(text).unwrap();
            host_key(transport, &url)
        };
        assert_eq!(key("udp://T.Example:6969/announce"), "udp:t.example:6969");
        assert_eq!(key("udp://t.example"), "udp:t.example:80");
        assert_eq!(key("udp://[2001:DB8::1]:1/"), "udp:2001:db8::1:1");
        assert_eq!(key("http://t.example:6969/announce"), "t.example:6969");
        assert_eq!(
            redacted("udp://t.example:6969/key"),
            "udp://t.example:6969/…"
        );
    }

    #[test]
    fn a_passkey_is_never_shown() {
        let url = "https://me:hunter22@t.example:8443/0123456789abcdef/announce?key=fedcba9876";
        assert_eq!(redacted(url), "https://t.example:8443/…");
        let (_, parsed) = parse_tracker_url(url).unwrap();
        let echoed = "bad 0123456789abcdef, fedcba9876, hunter22\u{1b}[31m\u{202e}";
        assert_eq!(scrubbed(echoed, &parsed), "bad …, …, …\\u{1b}[31m\\u{202e}");
    }

    #[test]
    fn a_long_text_is_cut() {
        let (_, url) = parse_tracker_url("http://a/announce").unwrap();
        let text = scrubbed(&"é".repeat(1 << 20), &url);
        assert_eq!(text.chars().count(), TRACKER_TEXT_CHARS_MAX + 1);
    }

    #[test]
    fn global_addresses() {
        let global = [
            "1.1.1.1",
            "192.0.1.1",
            "100.128.0.1",
            "2606:4700::1",
            "64:ff9b::1.1.1.1",
        ];
        let inside = [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "64:ff9b::10.0.0.1",
            "2002:7f00:1::",
            "2001:db8::1",
        ];
        for address in global {
            assert!(is_global(address.parse().unwrap()), "{address}");
        }
        for address in inside {
            assert!(!is_global(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn only_announce_paths_count_as_such() {
        let is = |text: &str| is_announce_path(&parse_tracker_url(text).unwrap().1);
        assert!(is("http://a/announce") && is("http://a/x/announce.php?y=1"));
        assert!(!is("http://a/") && !is("http://a/admin") && !is("http://a/announce/delete"));
    }
}
