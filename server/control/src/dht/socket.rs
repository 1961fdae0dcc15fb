//! A node's socket, which is opened again while what it is bound to, an interface or an address, is
//! gone: an interface that comes back, as a VPN's does, is another one, and a socket that was bound
//! to the first is silent for ever. Who has nothing to send does not notice, so it is looked for
//! besides ([`Socket::look`]).
//!
//! Limits: one socket; it is opened again after [`PAUSE_MIN`], and ever less often up to
//! [`PAUSE_MAX`], until something can be sent. Each loss is logged once. Does not: open one again
//! that is bound to nothing, which comes to life again by itself.

use super::{DhtConfig, DhtError};
use crate::lsd::interface_index;
use engine::time::Time;
use rustix::io::Errno;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::UdpSocket;

/// How soon a socket is opened again, at first and at most.
const PAUSE_MIN: Duration = Duration::from_secs(5);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Since when nothing can be sent, and what is done about it.
struct Lost {
    retry_at: Time,
    pause: Duration,
    is_told: bool,
}

/// See the module.
pub(super) struct Socket {
    address: SocketAddr,
    interface: Option<String>,
    /// The kernel's number of the interface when the socket was opened, or could not be.
    index: Option<u32>,
    /// None while it cannot be opened.
    socket: Option<UdpSocket>,
    lost: Option<Lost>,
}

impl Socket {
    /// Opens one, which may be later if what it is to be bound to is not there yet.
    ///
    /// # Errors
    /// It cannot be opened for another reason.
    pub(super) fn open(address: SocketAddr, config: &DhtConfig) -> Result<Socket, DhtError> {
        let interface = config.interface.as_deref();
        let opened = match bind(address, interface) {
            Err(error) if config.any_port && error.kind() == io::ErrorKind::AddrInUse => {
                let any = SocketAddr::new(address.ip(), 0);
                let socket = bind(any, interface).map_err(|error| DhtError::Socket {
                    address: any,
                    error,
                })?;
                tracing::warn!("UDP port {address} is taken; the DHT uses another");
                Ok(socket)
            }
            result => result,
        };
        let mut socket = Socket {
            address,
            interface: config.interface.clone(),
            index: index_of(interface),
            socket: None,
            lost: None,
        };
        match opened {
            Ok(opened) => {
                // It has the same port when it is opened again.
                socket.address = opened.local_addr().unwrap_or(address);
                socket.socket = Some(opened);
            }
            Err(error) if socket.is_bound() && is_gone(&error) => {
                socket.tell(&error);
                socket.lost = Some(Lost {
                    retry_at: Time(0),
                    pause: PAUSE_MIN,
                    is_told: true,
                });
            }
            Err(error) => return Err(DhtError::Socket { address, error }),
        }
        Ok(socket)
    }

    /// Where it is, or is to be.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether it is there.
    pub(super) fn is_open(&self) -> bool {
        self.socket.is_some()
    }

    /// Waits until something can be sent; not at all if it is not there.
    pub(super) async fn writable(&self) {
        if let Some(socket) = &self.socket {
            let _ = socket.writable().await;
        }
    }

    /// Waits until something can be read.
    pub(super) async fn readable(&self) {
        match &self.socket {
            Some(socket) if socket.readable().await.is_ok() => {}
            _ => std::future::pending().await,
        }
    }

    /// Reads a datagram, if there is one.
    pub(super) fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        match &self.socket {
            Some(socket) => socket.try_recv_from(buffer),
            None => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Sends a datagram, or drops it.
    pub(super) fn send(&mut self, to: SocketAddr, datagram: &[u8], now: Time) {
        let Some(socket) = &self.socket else {
            return;
        };
        match socket.try_send_to(datagram, to) {
            Ok(_) => {
                if self.lost.take().is_some_and(|lost| lost.is_told) {
                    tracing::info!(address = %self.address, "the DHT can send again");
                }
            }
            Err(error) if self.lost.is_none() && self.is_bound() && is_gone(&error) => {
                self.lost = Some(Lost {
                    retry_at: now + PAUSE_MIN,
                    pause: PAUSE_MIN,
                    is_told: false,
                });
            }
            // Neither a full socket nor an unreachable host is anything to wait for.
            Err(_) => {}
        }
    }

    /// Has it opened again at once if the interface is another one than it was: gone, or back.
    pub(super) fn look(&mut self, now: Time) {
        let index = index_of(self.interface.as_deref());
        if std::mem::replace(&mut self.index, index) == index {
            return;
        }
        let is_told = self.lost.as_ref().is_some_and(|lost| lost.is_told);
        self.lost = Some(Lost {
            retry_at: now,
            pause: PAUSE_MIN,
            is_told,
        });
    }

    /// When it is to be opened again.
    pub(super) fn due(&self) -> Option<Time> {
        self.lost.as_ref().map(|lost| lost.retry_at)
    }

    /// Opens it again, if it is time. True if it is there then.
    pub(super) fn reopen(&mut self, now: Time) -> bool {
        let Some(lost) = self.lost.as_mut().filter(|lost| lost.retry_at <= now) else {
            return false;
        };
        lost.retry_at = now + lost.pause;
        lost.pause = (lost.pause * 2).min(PAUSE_MAX);
        let is_told = std::mem::replace(&mut lost.is_told, true);
        // It has the port.
        self.socket = None;
        let opened = bind(self.address, self.interface.as_deref());
        if !is_told {
            match &opened {
                Ok(_) => self.tell(&io::Error::other("nothing can be sent")),
                Err(error) => self.tell(error),
            }
        }
        self.socket = opened.ok();
        self.is_open()
    }

    fn is_bound(&self) -> bool {
        self.interface.is_some() || !self.address.ip().is_unspecified()
    }

    fn tell(&self, error: &io::Error) {
        let (address, interface) = (self.address, self.interface.as_deref());
        tracing::warn!(
            %address,
            interface,
            %error,
            "what the DHT is bound to is not there; it is tried again until it is"
        );
    }
}

/// The kernel's number of an interface; none if there is no such now.
fn index_of(interface: Option<&str>) -> Option<u32> {
    let interface = interface?;
    let any = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None);
    interface_index(any.ok()?, interface).ok()
}

/// Whether this is what comes when an interface or an address is not there.
fn is_gone(error: &io::Error) -> bool {
    let codes = [
        Errno::NODEV,
        Errno::NXIO,
        Errno::INVAL,
        Errno::NETDOWN,
        Errno::NETUNREACH,
        Errno::ADDRNOTAVAIL,
    ];
    Errno::from_io_error(error).is_some_and(|code| codes.contains(&code))
}

fn bind(address: SocketAddr, interface: Option<&str>) -> io::Result<UdpSocket> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::DGRAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if let Some(interface) = interface {
        socket.bind_device(Some(interface.as_bytes()))?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}
