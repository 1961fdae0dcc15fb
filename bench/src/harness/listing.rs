//! Asks a server over its own API how many torrents it has: the question that its web page and
//! every tool of its operator begin with.
//!
//! Limits: HTTP/1.0 on loopback, answers up to 256 MiB. libtorrent and rTorrent have no API over
//! HTTP of their own and are not asked.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(30);

/// No answer is read beyond this.
const ANSWER_BYTES_MAX: u64 = 256 << 20;

/// How a server is asked for its torrents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    /// `GET /api/v1/torrents`, with the token that its state folder has.
    Seedring,
    /// `torrent-get` over its RPC, for names and ids alone.
    Transmission,
    /// `GET /api/v2/torrents/info`, a page of 100 from the end.
    Qbittorrent,
    /// `GET /torrents`.
    Rqbit,
}

impl Api {
    /// Whether it answers now, and knows of `count` torrents. An error is an answer too: not yet.
    ///
    /// `state` is where ours keeps its token.
    pub fn lists(self, address: SocketAddr, state: &Path, count: usize) -> bool {
        let listed = match self {
            Self::Seedring => seedring(address, state),
            Self::Transmission => transmission(address),
            Self::Qbittorrent => return qbittorrent(address, count).unwrap_or(false),
            Self::Rqbit => rqbit(address),
        };
        listed.is_ok_and(|listed| listed >= count)
    }
}

fn seedring(address: SocketAddr, state: &Path) -> io::Result<usize> {
    let token = std::fs::read_to_string(state.join("api-token"))?;
    let head = format!("Authorization: Bearer {}\r\n", token.trim());
    let answer = ask(address, "GET /api/v1/torrents?limit=100", &head, "")?;
    number(answer.json()?.get("total"))
}

fn transmission(address: SocketAddr) -> io::Result<usize> {
    let body = r#"{"method":"torrent-get","arguments":{"fields":["id","name"]}}"#;
    let post = |head: &str| ask(address, "POST /transmission/rpc", head, body);
    // The first answer names a session, without which it answers nothing else.
    let refusal = post("")?;
    let name = "x-transmission-session-id:";
    let line = refusal
        .head
        .lines()
        .find(|line| line.to_ascii_lowercase().starts_with(name));
    let answer = post(&format!("{}\r\n", line.unwrap_or_default()))?.json()?;
    Ok(length(answer.pointer("/arguments/torrents")))
}

fn qbittorrent(address: SocketAddr, count: usize) -> io::Result<bool> {
    let from = count.saturating_sub(100);
    let target = format!("GET /api/v2/torrents/info?limit=100&offset={from}");
    let page = ask(address, &target, "", "")?.json()?;
    Ok(length(Some(&page)) >= count.min(100))
}

fn rqbit(address: SocketAddr) -> io::Result<usize> {
    let answer = ask(address, "GET /torrents", "", "")?.json()?;
    Ok(length(answer.get("torrents")))
}

fn length(list: Option<&Value>) -> usize {
    list.and_then(Value::as_array).map_or(0, Vec::len)
}

fn number(value: Option<&Value>) -> io::Result<usize> {
    let number = value.and_then(Value::as_u64);
    let number = number.and_then(|number| usize::try_from(number).ok());
    number.ok_or_else(|| io::Error::other("the answer has no such number"))
}

/// An answer: its status line with the headers, and its body.
struct Answer {
    head: String,
    body: Vec<u8>,
}

impl Answer {
    /// The body of a success.
    fn json(&self) -> io::Result<Value> {
        let status = self.head.split(' ').nth(1);
        if status != Some("200") {
            return Err(io::Error::other(format!("status {status:?}")));
        }
        Ok(serde_json::from_slice(&self.body)?)
    }
}

/// One request on a connection of its own; `head` are lines of the header, each with its end.
fn ask(address: SocketAddr, target: &str, head: &str, body: &str) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    // HTTP/1.0 keeps answers in one piece, and connections from being kept.
    let request = format!(
        "{target} HTTP/1.0\r\nHost: {address}\r\nContent-Type: application/json\r\n{head}\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes())?;
    let mut reader = stream.take(ANSWER_BYTES_MAX);
    let (mut bytes, mut part) = (Vec::new(), vec![0; 64 << 10]);
    // Some keep the connection open all the same: then the length that they name is the end.
    while !is_whole(&bytes) {
        match reader.read(&mut part)? {
            0 => break,
            read => bytes.extend_from_slice(&part[..read]),
        }
    }
    let end = head_end(&bytes).ok_or(io::ErrorKind::UnexpectedEof)?;
    let body = bytes.split_off(end);
    Ok(Answer {
        head: String::from_utf8_lossy(&bytes).into_owned(),
        body,
    })
}

/// Where the body begins.
fn head_end(bytes: &[u8]) -> Option<usize> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    Some(end + 4)
}

/// Whether these are as many bytes as the answer says that it has.
fn is_whole(bytes: &[u8]) -> bool {
    let Some(end) = head_end(bytes) else {
        return false;
    };
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    let mut lines = head.lines();
    let length = lines.find_map(|line| line.strip_prefix("content-length:"));
    let length = length.and_then(|length| length.trim().parse().ok());
    length.is_some_and(|length: usize| bytes.len() - end >= length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// Answers one request after another with these, keeping each connection open.
    fn server(answers: Vec<&'static str>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let mut open = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = vec![0; 4096];
                let _ = stream.read(&mut request).unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
                open.push(stream);
            }
        });
        address
    }

    #[test]
    fn a_kept_connection_ends_at_the_length_that_is_named() {
        let address = server(vec![
            "HTTP/1.1 503 Starting\r\nContent-Length: 18\r\n\r\n{\"torrents\":[1,2]}",
            "HTTP/1.1 200 OK\r\nContent-Length: 18\r\n\r\n{\"torrents\":[1,2]}",
        ]);
        let nowhere = Path::new("/nonexistent");
        assert!(!Api::Rqbit.lists(address, nowhere, 2), "not yet");
        assert!(Api::Rqbit.lists(address, nowhere, 2));
    }

    #[test]
    fn transmission_is_asked_again_with_the_session_that_it_names() {
        let refusal = "HTTP/1.1 409 Conflict\r\nX-Transmission-Session-Id: abc\r\n\
                       Content-Length: 0\r\n\r\n";
        let echo = "HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n\
                    {\"arguments\":{\"torrents\":[1]},\"a\":12345}";
        let nowhere = Path::new("/nonexistent");
        assert!(Api::Transmission.lists(server(vec![refusal, echo]), nowhere, 1));
        assert!(!Api::Transmission.lists(server(vec![refusal, echo]), nowhere, 2));
        assert!(!Api::Transmission.lists(server(vec![refusal, refusal]), nowhere, 0));
    }

    #[test]
    fn a_server_that_says_fewer_does_not_list_all() {
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{\"total\":9}";
        let state = tempfile::tempdir().unwrap();
        assert!(
            !Api::Seedring.lists(server(vec![answer]), state.path(), 9),
            "no token"
        );
        std::fs::write(state.path().join("api-token"), "secret\n").unwrap();
        assert!(Api::Seedring.lists(server(vec![answer]), state.path(), 9));
        assert!(!Api::Seedring.lists(server(vec![answer]), state.path(), 10));
    }
}
