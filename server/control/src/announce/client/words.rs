//! What went wrong on the way to a tracker, in words that say what to do about it.
//!
//! Limits: those of `shown`. Does not: know which tracker it was; the caller names it.

use rustix::io::Errno;
use std::io::ErrorKind;

use super::super::url::shown;

/// What the system says of a host to which no connection can be made. (That one is reset may be the
/// word of somebody behind it.)
const UNREACHABLE: [ErrorKind; 5] = [
    ErrorKind::ConnectionRefused,
    ErrorKind::HostUnreachable,
    ErrorKind::NetworkUnreachable,
    ErrorKind::AddrNotAvailable,
    ErrorKind::TimedOut,
];

/// What a library says of a certificate or a handshake, in part, and what that means.
const TLS: &[(&str, &str)] = &[
    (
        "UnknownIssuer",
        "its certificate is of an authority that is not known here; name that in announce.ca_files \
         if it is your own",
    ),
    (
        "CaUsedAsEndEntity",
        "its certificate is an authority's own and not a server's; give the server one that this \
         authority has signed, without CA:TRUE",
    ),
    (
        "Expired",
        "its certificate has expired, or the clock of this machine is wrong",
    ),
    (
        "NotValidYet",
        "its certificate is not valid yet, or the clock of this machine is wrong",
    ),
    (
        "NotValidForName",
        "its certificate is for another name than the URL has",
    ),
    ("tls handshake eof", NO_TLS),
    ("InvalidContentType", NO_TLS),
    ("corrupt message", NO_TLS),
];

const NO_TLS: &str = "what listens there does not speak TLS; is its URL to begin with http://?";

/// Nothing but a binding to an interface asks for a device.
const NO_INTERFACE: &str = "the interface of announce.bind_interface is not there";

/// What a library says of a SOCKS proxy to which no connection can be made, whatever the reason.
const NO_REASON: &str = "underlying connection";

/// The innermost cause of an HTTP error, since the outer ones only repeat that a request to a URL
/// failed; where it is a library's word, what it means comes first.
pub(super) fn described(error: reqwest::Error) -> String {
    if error.is_timeout() {
        return "timed out while connecting".to_owned();
    }
    explained(&cause(&error.without_url()))
}

/// Whether it is not said why no connection can be made.
pub(super) fn hides_cause(error: &reqwest::Error) -> bool {
    cause(error).contains(NO_REASON)
}

/// The same of an error on the way to, or by, the proxy that is shown as `proxy`; `why` is what is
/// known of the cause where that is hidden.
pub(super) fn described_by_proxy(
    error: reqwest::Error,
    proxy: &str,
    why: Option<String>,
) -> String {
    let error = error.without_url();
    let cause = why.unwrap_or_else(|| cause(&error));
    if error.is_timeout() {
        return format!("timed out while connecting through the proxy {proxy} (announce.proxy)");
    }
    match proxy_fault(&error) {
        Some(Fault::Unreachable) => {
            format!("the proxy {proxy} (announce.proxy) cannot be reached: {cause}")
        }
        Some(Fault::Refuses) => wants_password(proxy),
        None => format!(
            "through the proxy {proxy} (announce.proxy): {}",
            explained(&cause)
        ),
    }
}

/// A proxy lets nobody through without a password, or not with this one.
pub(super) fn wants_password(proxy: &str) -> String {
    format!(
        "the proxy {proxy} wants a user name and password (HTTP 407), or others: give them in \
         announce.proxy"
    )
}

enum Fault {
    Unreachable,
    Refuses,
}

/// What is certain to be the proxy's fault: it is the only one that is connected to.
fn proxy_fault(error: &reqwest::Error) -> Option<Fault> {
    if !error.is_connect() {
        return None;
    }
    let mut next: Option<&dyn std::error::Error> = Some(error);
    while let Some(cause) = next {
        if let Some(io) = cause.downcast_ref::<std::io::Error>()
            && UNREACHABLE.contains(&io.kind())
        {
            return Some(Fault::Unreachable);
        }
        let text = cause.to_string();
        if text.contains("proxy authorization required") {
            return Some(Fault::Refuses);
        }
        if text.contains("dns error") || text.contains(NO_REASON) {
            return Some(Fault::Unreachable);
        }
        next = cause.source();
    }
    None
}

fn cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    let io = cause.downcast_ref::<std::io::Error>();
    if io.and_then(Errno::from_io_error) == Some(Errno::NODEV) {
        return NO_INTERFACE.to_owned();
    }
    shown(&cause.to_string())
}

fn explained(cause: &str) -> String {
    match TLS.iter().find(|(theirs, _)| cause.contains(theirs)) {
        Some((_, ours)) => format!("{ours} ({cause})"),
        None => cause.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_s_words_are_explained_and_kept() {
        let unknown = explained("invalid peer certificate: UnknownIssuer");
        assert!(unknown.contains("announce.ca_files"), "{unknown}");
        assert!(unknown.ends_with("(invalid peer certificate: UnknownIssuer)"));
        let plain = explained("tls handshake eof");
        assert!(plain.contains("http://"), "{plain}");
        assert_eq!(explained("Connection refused"), "Connection refused");
    }
}
