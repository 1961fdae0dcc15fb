//! A raw peer over a blocking socket: well-behaved when a test wants data, hostile when it does not.
//!
//! It writes BEP 3, 6 and 10 by hand, so that what it sends may be wrong on purpose. Reads have a timeout,
//! so a server that says nothing fails a test instead of hanging it.

use crate::torrent::Torrent;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// The usual request size.
pub const BLOCK: u32 = 16 * 1024;
/// Longest wait for the server's next byte.
pub const TIMEOUT: Duration = Duration::from_secs(20);

/// Message ids of BEP 3, 6 and 10.
#[allow(missing_docs)]
pub mod id {
    pub const CHOKE: u8 = 0;
    pub const UNCHOKE: u8 = 1;
    pub const INTERESTED: u8 = 2;
    pub const NOT_INTERESTED: u8 = 3;
    pub const HAVE: u8 = 4;
    pub const BITFIELD: u8 = 5;
    pub const REQUEST: u8 = 6;
    pub const PIECE: u8 = 7;
    pub const CANCEL: u8 = 8;
    pub const PORT: u8 = 9;
    pub const SUGGEST: u8 = 13;
    pub const HAVE_ALL: u8 = 14;
    pub const HAVE_NONE: u8 = 15;
    pub const REJECT: u8 = 16;
    pub const ALLOWED_FAST: u8 = 17;
    pub const EXTENDED: u8 = 20;
}

/// A message from the server; a keep-alive has no id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The message id.
    pub id: Option<u8>,
    /// What follows the id.
    pub payload: Vec<u8>,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The data came.
    Block(Vec<u8>),
    /// BEP 6 Reject.
    Rejected,
}

/// Which extensions the peer announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extensions {
    /// BEP 6 and BEP 10.
    All,
    /// Plain BEP 3.
    None,
}

/// A connection to the server.
#[derive(Debug)]
pub struct Peer {
    stream: TcpStream,
    /// The reserved bytes of the server's handshake.
    pub reserved: [u8; 8],
    /// The server's peer id.
    pub peer_id: [u8; 20],
}

impl Peer {
    /// Connects and shakes hands.
    pub fn connect(address: SocketAddr, info_hash: &[u8; 20]) -> io::Result<Self> {
        Self::from_stream(TcpStream::connect(address)?, info_hash, Extensions::All)
    }

    /// Connects and shakes hands as a peer without any extension.
    pub fn connect_plain(address: SocketAddr, info_hash: &[u8; 20]) -> io::Result<Self> {
        Self::from_stream(TcpStream::connect(address)?, info_hash, Extensions::None)
    }

    /// Shakes hands on a connection.
    pub fn from_stream(
        mut stream: TcpStream,
        info_hash: &[u8; 20],
        extensions: Extensions,
    ) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.write_all(&handshake(info_hash, extensions))?;
        Self::introduced(stream)
    }

    /// Takes over a connection on which our handshake was sent, and reads theirs.
    pub fn introduced(mut stream: TcpStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        let mut theirs = [0u8; 68];
        stream.read_exact(&mut theirs)?;
        assert_eq!(
            &theirs[..20],
            b"\x13BitTorrent protocol",
            "the server's handshake"
        );
        let (mut reserved, mut peer_id) = ([0; 8], [0; 20]);
        reserved.copy_from_slice(&theirs[20..28]);
        peer_id.copy_from_slice(&theirs[48..68]);
        Ok(Self {
            stream,
            reserved,
            peer_id,
        })
    }

    /// The socket, for a test that sends raw bytes.
    pub fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// True when the server announced BEP 6.
    pub fn has_fast(&self) -> bool {
        self.reserved[7] & 0x04 != 0
    }

    /// Sends a message.
    pub fn send(&mut self, id: u8, payload: &[u8]) -> io::Result<()> {
        self.stream.write_all(&message(id, payload))
    }

    /// Sends a request.
    pub fn request(&mut self, piece: u32, begin: u32, length: u32) -> io::Result<()> {
        self.send(id::REQUEST, &range(piece, begin, length))
    }

    /// Reads the next message.
    pub fn read(&mut self) -> io::Result<Message> {
        let mut length = [0u8; 4];
        self.stream.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length);
        assert!(
            length <= 4 << 20,
            "the server sent a message of {length} bytes"
        );
        if length == 0 {
            return Ok(Message {
                id: None,
                payload: Vec::new(),
            });
        }
        let mut body = vec![0u8; length as usize];
        self.stream.read_exact(&mut body)?;
        let payload = body.split_off(1);
        Ok(Message {
            id: Some(body[0]),
            payload,
        })
    }

    /// Reads messages until one has this id.
    pub fn read_until(&mut self, id: u8) -> io::Result<Message> {
        loop {
            let message = self.read()?;
            if message.id == Some(id) {
                return Ok(message);
            }
        }
    }

    /// Says that it is interested and waits until it may request.
    pub fn unchoked(&mut self) -> io::Result<()> {
        self.send(id::INTERESTED, &[])?;
        self.read_until(id::UNCHOKE).map(drop)
    }

    /// Waits for what becomes of a request that was sent. Data for another request fails the test.
    pub fn answer(&mut self, piece: u32, begin: u32, length: u32) -> io::Result<Answer> {
        loop {
            let message = self.read()?;
            match message.id {
                Some(id::PIECE) => {
                    assert_eq!(&message.payload[..4], &piece.to_be_bytes(), "piece index");
                    assert_eq!(&message.payload[4..8], &begin.to_be_bytes(), "block offset");
                    assert_eq!(message.payload.len(), 8 + length as usize, "block length");
                    return Ok(Answer::Block(message.payload[8..].to_vec()));
                }
                Some(id::REJECT) if message.payload == range(piece, begin, length) => {
                    return Ok(Answer::Rejected);
                }
                _ => {}
            }
        }
    }

    /// Requests one block and waits for what becomes of it.
    pub fn block(&mut self, piece: u32, begin: u32, length: u32) -> io::Result<Answer> {
        self.request(piece, begin, length)?;
        self.answer(piece, begin, length)
    }

    /// Downloads a whole piece with pipelined requests. `Ok(None)`: the server rejected a part of it.
    pub fn piece(&mut self, torrent: &Torrent, piece: u32) -> io::Result<Option<Vec<u8>>> {
        let size = torrent.piece_size(piece);
        let blocks = (0..size)
            .step_by(BLOCK as usize)
            .map(|at| (at, BLOCK.min(size - at)));
        let mut waiting: Vec<Vec<u8>> = blocks
            .map(|(at, length)| range(piece, at, length))
            .collect();
        let requests: Vec<u8> = waiting
            .iter()
            .flat_map(|request| message(id::REQUEST, request))
            .collect();
        self.stream.write_all(&requests)?;
        let mut data = vec![0u8; size as usize];
        let mut rejected = false;
        while !waiting.is_empty() {
            let message = self.read()?;
            let answered = match message.id {
                Some(id::PIECE) => {
                    let (index, begin, block) = split_block(&message.payload);
                    let begin = begin as usize;
                    let end = begin + block.len();
                    assert!(
                        index == piece && end <= data.len(),
                        "a block that was not requested"
                    );
                    data[begin..end].copy_from_slice(block);
                    range(
                        piece,
                        u32::try_from(begin).unwrap(),
                        u32::try_from(block.len()).unwrap(),
                    )
                }
                Some(id::REJECT) => {
                    rejected = true;
                    message.payload
                }
                _ => continue,
            };
            let before = waiting.len();
            waiting.retain(|request| *request != answered);
            assert_eq!(waiting.len() + 1, before, "one answer to one request");
        }
        Ok((!rejected).then_some(data))
    }

    /// Waits until the server closes the connection, whatever it says before; panics after `limit`.
    pub fn closed_within(mut self, limit: Duration) -> Duration {
        closed_within(&mut self.stream, limit)
    }
}

/// The piece index, the offset in the piece and the data of a Piece message's payload.
pub fn split_block(payload: &[u8]) -> (u32, u32, &[u8]) {
    let word = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
    (word(0), word(4), &payload[8..])
}

/// Reads and forgets until the server closes the connection; panics after `limit`.
pub fn closed_within(stream: &mut TcpStream, limit: Duration) -> Duration {
    let start = Instant::now();
    let mut buffer = [0u8; 65_536];
    loop {
        let left = limit.checked_sub(start.elapsed());
        let left = left.unwrap_or_else(|| panic!("the server kept the connection for {limit:?}"));
        stream
            .set_read_timeout(Some(left.max(Duration::from_millis(1))))
            .unwrap();
        match stream.read(&mut buffer) {
            Ok(0) => return start.elapsed(),
            Ok(_) => {}
            Err(error) if is_timeout(&error) => {}
            Err(_reset) => return start.elapsed(),
        }
    }
}

/// True for the error of a read that waited as long as it may.
pub fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

/// A connection that leaves from a chosen loopback address, so that many peers are not one address.
pub fn connect_from(source: IpAddr, server: SocketAddr) -> io::Result<TcpStream> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(source, 0).into())?;
    socket.connect(&server.into())?;
    Ok(socket.into())
}

/// The bytes of a handshake.
pub fn handshake(info_hash: &[u8; 20], extensions: Extensions) -> [u8; 68] {
    let mut bytes = [0u8; 68];
    bytes[..20].copy_from_slice(b"\x13BitTorrent protocol");
    if extensions == Extensions::All {
        bytes[25] = 0x10;
        bytes[27] = 0x04;
    }
    bytes[28..48].copy_from_slice(info_hash);
    bytes[48..68].copy_from_slice(b"-ZZ0001-raw-peer-xyz");
    bytes
}

/// The bytes of a message.
pub fn message(id: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len() + 1).unwrap();
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.push(id);
    bytes.extend_from_slice(payload);
    bytes
}

/// The payload of Request, Cancel and Reject.
pub fn range(piece: u32, begin: u32, length: u32) -> Vec<u8> {
    [piece, begin, length]
        .into_iter()
        .flat_map(u32::to_be_bytes)
        .collect()
}
