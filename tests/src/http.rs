//! A blocking HTTP/1.1 GET and the POST of a form, enough to ask the server's API, a tracker and
//! another client: one request per connection, plain bodies and chunked ones.

use socket2::{Domain, Socket, Type};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

/// Longest wait for a connection, and between two bytes of a reply.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// The header lines, as sent.
    pub head: String,
    /// The body, chunks joined.
    pub body: Vec<u8>,
}

impl Reply {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Fetches `http://HOST:PORT/PATH`; panics when there is no HTTP reply.
pub fn get(url: &str) -> Reply {
    try_get(url).unwrap_or_else(|error| panic!("GET {url}: {error}"))
}

/// Fetches `http://HOST:PORT/PATH`.
pub fn try_get(url: &str) -> std::io::Result<Reply> {
    let (authority, _) = split_url(url);
    ask(TcpStream::connect(authority)?, url)
}

/// Posts a form, its values written as they are to be sent; panics when there is no HTTP reply.
pub fn post_form(url: &str, form: &str) -> Reply {
    let posted = || {
        let (authority, path) = split_url(url);
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n",
            form.len()
        );
        exchange(TcpStream::connect(authority)?, &(head + form))
    };
    posted().unwrap_or_else(|error: std::io::Error| panic!("POST {url}: {error}"))
}

/// Fetches a URL whose host is an address from an address of this host; panics when there is no
/// HTTP reply.
pub fn get_from(from: IpAddr, url: &str) -> Reply {
    let fetch = || {
        let address: SocketAddr = split_url(url).0.parse().expect("an address and a port");
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(from, 0).into())?;
        socket.connect(&address.into())?;
        ask(socket.into(), url)
    };
    fetch().unwrap_or_else(|error: std::io::Error| panic!("GET {url} from {from}: {error}"))
}

fn ask(stream: TcpStream, url: &str) -> std::io::Result<Reply> {
    let (authority, path) = split_url(url);
    let request = format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    exchange(stream, &request)
}

fn exchange(mut stream: TcpStream, request: &str) -> std::io::Result<Reply> {
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.write_all(request.as_bytes())?;
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    // qBittorrent keeps the connection open for a while, whatever it was asked.
    while !is_whole(&bytes) {
        match stream.read(&mut buffer)? {
            0 => break,
            length => bytes.extend_from_slice(&buffer[..length]),
        }
    }
    parse(&bytes).ok_or_else(|| std::io::Error::other("not an HTTP reply"))
}

/// The `HOST:PORT` and the path of an `http://` URL.
pub fn split_url(url: &str) -> (&str, &str) {
    let rest = url
        .strip_prefix("http://")
        .unwrap_or_else(|| panic!("not http: {url}"));
    match rest.find('/') {
        Some(slash) => (&rest[..slash], &rest[slash..]),
        None => (rest, "/"),
    }
}

/// Whether a reply that says its length has come to its end.
fn is_whole(bytes: &[u8]) -> bool {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return false;
    };
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"));
    let length = length.and_then(|length| length.trim().parse().ok());
    length.is_some_and(|length: usize| bytes.len() - end - 4 >= length)
}

fn parse(bytes: &[u8]) -> Option<Reply> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let body = &bytes[end + 4..];
    let chunked = head
        .to_ascii_lowercase()
        .contains("transfer-encoding: chunked");
    let body = if chunked {
        join_chunks(body)?
    } else {
        body.to_vec()
    };
    Some(Reply { status, head, body })
}

fn join_chunks(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line_end = rest.windows(2).position(|window| window == b"\r\n")?;
        let size = std::str::from_utf8(&rest[..line_end]).ok()?;
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        rest = &rest[line_end + 2..];
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size + 2..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunked_body_is_joined() {
        let reply = parse(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1;x\r\nd\r\n0\r\n\r\n",
        );
        assert_eq!(reply.unwrap().body, b"abcd");
    }

    #[test]
    fn a_reply_of_a_length_ends_with_it() {
        let reply = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc";
        for end in 0..reply.len() {
            assert!(!is_whole(&reply[..end]), "{end}");
        }
        assert!(is_whole(reply));
        assert!(!is_whole(b"HTTP/1.1 200 OK\r\n\r\nabc"));
    }

    #[test]
    fn url_is_split() {
        assert_eq!(split_url("http://[::1]:80/a?b"), ("[::1]:80", "/a?b"));
        assert_eq!(split_url("http://h:1"), ("h:1", "/"));
    }
}
