//! A TCP connection of the load: made, read, written and waited for without blocking.
//!
//! It knows nothing of what is said over it. Bytes to send are put into [`Stream::out`]; what the
//! socket does not take at once goes out when epoll says that there is room.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::leecher::Misbehaviour;

/// The bytes that one connection may take per wake-up, before it asks for more and the next one
/// reads. A quarter of the usual pipeline (64 blocks of 16 KiB): a load that drained the whole of
/// it before asking again would leave the seed idle meanwhile.
pub const READ_BYTES_MAX: usize = 256 << 10;

/// The bytes that are read (or dropped) by one call at most.
pub const SCRATCH_BYTES: usize = 256 << 10;

/// How to connect and what to do with payload; the same for all connections of a run.
#[derive(Debug, Clone)]
pub struct SocketSettings {
    /// The seed.
    pub address: SocketAddr,
    /// Whether the kernel drops payload instead of copying it to us.
    pub discard: bool,
    /// The congestion control of our sockets; the system's if none is given.
    pub congestion_control: Option<String>,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum End {
    /// It could not be made.
    #[error("the connection could not be made: {0}")]
    Connect(std::io::Error),
    /// The seed did not answer within 10 s.
    #[error("the seed did not answer within 10 s")]
    SetupTimeout,
    /// The seed closed it.
    #[error("the seed closed the connection")]
    Closed,
    /// The kernel ended it, mostly because the seed reset it.
    #[error("the connection broke: {0}")]
    Broken(Errno),
    /// The seed broke the protocol.
    #[error("the seed broke the protocol: {0}")]
    Misbehaviour(Misbehaviour),
    /// A web server answers something else than the range (HTTP load only).
    #[error("the answer was {0}")]
    Answer(String),
    /// The seed owed us blocks and sent nothing for 30 s.
    #[error("the seed owed blocks and sent nothing for 30 s")]
    Stalled,
}

/// What becomes of received bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taking {
    /// They are copied to us.
    Copy,
    /// The kernel drops them.
    Drop,
    /// They are copied, and stay to be received again.
    Peek,
}

/// See the head of this file. Without a socket it is closed, and can be connected again.
#[derive(Debug)]
pub struct Stream {
    /// What is to be sent; emptied when all of it is.
    pub out: Vec<u8>,
    settings: Arc<SocketSettings>,
    local: Option<IpAddr>,
    /// What the kernel may buffer of what was received; none: as it likes.
    receive_buffer_bytes: Option<usize>,
    socket: Option<OwnedFd>,
    connecting: bool,
    interest: EventFlags,
    sent: usize,
}

impl Stream {
    /// A closed stream that will connect from `local` if that is given.
    pub fn new(settings: Arc<SocketSettings>, local: Option<IpAddr>) -> Self {
        Self {
            out: Vec::new(),
            settings,
            local,
            receive_buffer_bytes: None,
            socket: None,
            connecting: false,
            interest: EventFlags::empty(),
            sent: 0,
        }
    }

    /// Lets the kernel hold no more than this of what was received and not read.
    pub fn with_receive_buffer(mut self, bytes: usize) -> Self {
        self.receive_buffer_bytes = Some(bytes);
        self
    }

    /// Whether payload is to be dropped by the kernel.
    pub fn discards(&self) -> bool {
        self.settings.discard
    }

    /// Whether there is no socket.
    pub fn is_closed(&self) -> bool {
        self.socket.is_none()
    }

    /// Whether an attempt is under way.
    pub fn is_connecting(&self) -> bool {
        self.connecting
    }

    /// Whether bytes can be exchanged.
    pub fn is_connected(&self) -> bool {
        self.socket.is_some() && !self.connecting
    }

    /// Begins to connect; `index` is what its events carry.
    pub fn connect(&mut self, epoll: &OwnedFd, index: u64) -> Result<(), End> {
        let socket = self.open().map_err(End::Connect)?;
        match socket.connect(&self.settings.address.into()) {
            Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => {
                return Err(End::Connect(error));
            }
            _ => {}
        }
        let socket = OwnedFd::from(socket);
        self.interest = EventFlags::OUT;
        epoll::add(epoll, &socket, EventData::new_u64(index), self.interest)
            .map_err(|errno| End::Connect(errno.into()))?;
        self.socket = Some(socket);
        self.connecting = true;
        Ok(())
    }

    /// A socket that is not connected yet.
    fn open(&self) -> std::io::Result<Socket> {
        let settings = &self.settings;
        let domain = Domain::for_address(settings.address);
        let socket = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        socket.set_tcp_nodelay(true)?;
        if let Some(name) = &settings.congestion_control {
            socket
                .set_tcp_congestion(name.as_bytes())
                .map_err(|error| explained(&error, &format!("TCP congestion control {name:?}")))?;
        }
        if let Some(local) = self.local {
            socket
                .bind(&SocketAddr::new(local, 0).into())
                .map_err(|error| explained(&error, &format!("local address {local}")))?;
        }
        if let Some(bytes) = self.receive_buffer_bytes {
            socket.set_recv_buffer_size(bytes)?;
        }
        Ok(socket)
    }

    /// To be called at an event. Returns whether the connection was made just now.
    pub fn connected_now(&mut self) -> Result<bool, End> {
        let Some(socket) = self.socket.as_ref().filter(|_| self.connecting) else {
            return Ok(false);
        };
        match SockRef::from(socket).take_error() {
            Ok(None) => {}
            Ok(Some(error)) | Err(error) => return Err(End::Connect(error)),
        }
        self.connecting = false;
        Ok(true)
    }

    /// How many bytes were received, at most as many as `buffer` holds; none if nothing is there.
    pub fn receive(&self, buffer: &mut [u8], taking: Taking) -> Result<Option<usize>, End> {
        let Some(socket) = &self.socket else {
            return Ok(None);
        };
        let flags = RecvFlags::DONTWAIT
            | match taking {
                Taking::Copy => RecvFlags::empty(),
                Taking::Drop => RecvFlags::TRUNC,
                Taking::Peek => RecvFlags::PEEK,
            };
        loop {
            return match rustix::net::recv(socket, &mut *buffer, flags) {
                Ok((_, 0)) => Err(End::Closed),
                Ok((_, count)) => Ok(Some(count.min(buffer.len()))),
                Err(Errno::AGAIN) => Ok(None),
                Err(Errno::INTR) => continue,
                Err(errno) => Err(End::Broken(errno)),
            };
        }
    }

    /// Sends what there is to send, and waits for room if some of it is left, and for bytes if
    /// `reads`.
    pub fn send(&mut self, epoll: &OwnedFd, index: u64, reads: bool) -> Result<(), End> {
        let Some(socket) = self.socket.as_ref().filter(|_| !self.connecting) else {
            return Ok(());
        };
        while self.sent < self.out.len() {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match rustix::net::send(socket, &self.out[self.sent..], flags) {
                Ok(count) => self.sent += count,
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(End::Broken(errno)),
            }
        }
        let mut interest = EventFlags::empty();
        interest.set(EventFlags::IN, reads);
        if self.sent == self.out.len() {
            self.out.clear();
            self.sent = 0;
        } else {
            interest |= EventFlags::OUT;
        }
        if interest != self.interest {
            epoll::modify(epoll, socket, EventData::new_u64(index), interest)
                .map_err(End::Broken)?;
            self.interest = interest;
        }
        Ok(())
    }

    /// Closes the socket and forgets what was not sent.
    pub fn close(&mut self) {
        // Closing the descriptor also takes it out of the epoll set.
        self.socket = None;
        self.connecting = false;
        self.out.clear();
        self.sent = 0;
    }
}

/// `error` with what it was about.
fn explained(error: &std::io::Error, what: &str) -> std::io::Error {
    std::io::Error::new(error.kind(), format!("{what}: {error}"))
}
