//! Listening sockets and the options of accepted ones, by socket2.
//!
//! Each shard listens on the same port with `SO_REUSEPORT`; the kernel spreads connections over
//! them. v4 and v6 are sockets of their own (`IPV6_V6ONLY`), so that either may be absent.

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

/// How listening and accepted sockets are set up.
#[derive(Clone, Debug)]
pub struct SocketOptions {
    /// Connections that the kernel keeps until we accept them.
    pub backlog: i32,
    /// Congestion control per socket; empty for the system's.
    pub congestion_control: String,
    /// The only network interface that connections may come and go by (`SO_BINDTODEVICE`).
    pub interface: Option<String>,
}

/// Opens `count` listeners of `address`; with port 0 the first one's port is taken by all.
///
/// # Errors
///
/// What the kernel said, with the address.
pub fn listen(
    address: SocketAddr,
    count: usize,
    options: &SocketOptions,
) -> io::Result<Vec<TcpListener>> {
    if address.port() != 0 {
        // With SO_REUSEPORT alone a second server of the same user would share the port unnoticed.
        bound(address, options, false)?;
    }
    let mut listeners: Vec<TcpListener> = Vec::with_capacity(count);
    for _ in 0..count {
        let address = match listeners.first() {
            Some(first) => first.local_addr()?,
            None => address,
        };
        let socket = bound(address, options, true)?;
        socket.listen(options.backlog)?;
        listeners.push(socket.into());
    }
    Ok(listeners)
}

fn bound(address: SocketAddr, options: &SocketOptions, shared: bool) -> io::Result<Socket> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM.cloexec(), Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    // Accepted sockets inherit both.
    configure(&socket, options)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Sets what is configured for all peers' sockets. An error that has nothing to do with an address
/// names the key; that the interface is not there is told by [`is_interface_gone`].
fn configure(socket: &Socket, options: &SocketOptions) -> io::Result<()> {
    let named = |what: String| {
        move |error: io::Error| match is_interface_gone(&error) {
            true => error,
            false => io::Error::new(error.kind(), format!("{what} is not to be had: {error}")),
        }
    };
    if let Some(interface) = &options.interface {
        let bound = socket.bind_device(Some(interface.as_bytes()));
        bound.map_err(named(format!("peers.bind_interface = \"{interface}\"")))?;
    }
    let name = &options.congestion_control;
    if !name.is_empty() {
        let set = socket.set_tcp_congestion(name.as_bytes());
        set.map_err(named(format!("peers.congestion_control = \"{name}\"")))?;
    }
    Ok(())
}

/// Whether this is what comes when the interface that a socket is to be bound to is not there.
pub fn is_interface_gone(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENODEV)
}

/// Finds a port free for all `addresses` when the first asks for port 0, by binding and trying
/// again: a port that the kernel gave for v4 may be taken on v6.
///
/// # Errors
///
/// The error of the last try, with the address that it concerns.
pub fn listen_all(
    addresses: &[SocketAddr],
    count: usize,
    options: &SocketOptions,
) -> Result<Vec<Vec<TcpListener>>, (SocketAddr, io::Error)> {
    /// Tries at a port that is free on all addresses.
    const TRIES_MAX: usize = 32;
    let mut tries = 0;
    loop {
        tries += 1;
        match listen_once(addresses, count, options) {
            Err((address, error)) if error.kind() == io::ErrorKind::AddrInUse => {
                let any_port = addresses.iter().any(|address| address.port() == 0);
                if !any_port || tries == TRIES_MAX {
                    return Err((address, error));
                }
            }
            other => return other,
        }
    }
}

fn listen_once(
    addresses: &[SocketAddr],
    count: usize,
    options: &SocketOptions,
) -> Result<Vec<Vec<TcpListener>>, (SocketAddr, io::Error)> {
    let mut port = None;
    let mut groups = Vec::with_capacity(addresses.len());
    for &address in addresses {
        let mut wanted = address;
        if let (0, Some(port)) = (wanted.port(), port) {
            wanted.set_port(port);
        }
        let group = listen(wanted, count, options).map_err(|error| (wanted, error))?;
        if let Some(Ok(bound)) = group.first().map(TcpListener::local_addr) {
            port.get_or_insert(bound.port());
        }
        groups.push(group);
    }
    Ok(groups)
}

/// Sets the options of an accepted socket. None of them is vital, so a refusal is passed over.
pub fn tune_accepted(socket: &impl AsRawFd) {
    // SAFETY: the socket is open for as long as it is borrowed, which is longer than this call.
    let descriptor = unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) };
    let socket = SockRef::from(&descriptor);
    // A batch is one send: waiting for more to fill a segment would only delay its last block.
    let _ = socket.set_tcp_nodelay(true);
    // A peer that vanished without a FIN is found by the kernel while nothing is on its way.
    let probe = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(120))
        .with_interval(Duration::from_secs(30));
    let _ = socket.set_tcp_keepalive(&probe);
}

/// Makes calls on `socket` return at once: a splice to it would wait otherwise, whatever its flags
/// say.
///
/// # Errors
///
/// What the kernel said.
pub fn set_nonblocking(socket: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: the socket is open for as long as it is borrowed, which is longer than this call.
    let descriptor = unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) };
    SockRef::from(&descriptor).set_nonblocking(true)
}

/// Receives what is there into the free capacity of `buffer`, at most up to `length_max` bytes in
/// it, and returns how many bytes; 0 is the end of the stream.
///
/// # Errors
///
/// `WouldBlock` if nothing is there; what the kernel said otherwise.
pub fn receive(
    socket: &impl AsRawFd,
    buffer: &mut Vec<u8>,
    length_max: usize,
) -> io::Result<usize> {
    let room = buffer
        .capacity()
        .min(length_max)
        .saturating_sub(buffer.len());
    let target = buffer.spare_capacity_mut();
    // SAFETY: `target` is ours to write and at least `room` bytes long; the socket is open.
    let count = unsafe {
        libc::recv(
            socket.as_raw_fd(),
            target.as_mut_ptr().cast(),
            room,
            libc::MSG_DONTWAIT,
        )
    };
    let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the kernel has written `count` bytes after those that were there.
    unsafe { buffer.set_len(buffer.len() + count) };
    Ok(count)
}

/// Most `targets` of [`receive_into`].
pub const RECEIVE_TARGETS_MAX: usize = 33;

/// Receives what is there: first into the `targets`, one after another, then into `rest`. Returns
/// how many bytes in all; 0 is the end of the stream.
///
/// # Errors
///
/// `WouldBlock` if nothing is there; what the kernel said otherwise.
///
/// # Panics
///
/// If there are more than [`RECEIVE_TARGETS_MAX`] targets.
///
/// # Safety
///
/// Each target is so many bytes of memory that nobody else has a reference to for the length of the
/// call.
pub unsafe fn receive_into(
    socket: &impl AsRawFd,
    targets: &[(*mut u8, usize)],
    rest: &mut [u8],
) -> io::Result<usize> {
    assert!(targets.len() <= RECEIVE_TARGETS_MAX);
    let part = |start: *mut u8, length| libc::iovec {
        iov_base: start.cast(),
        iov_len: length,
    };
    let mut parts = [part(std::ptr::null_mut(), 0); RECEIVE_TARGETS_MAX + 1];
    for (part, &(start, length)) in parts.iter_mut().zip(targets) {
        part.iov_base = start.cast();
        part.iov_len = length;
    }
    parts[targets.len()] = part(rest.as_mut_ptr(), rest.len());
    // SAFETY: a `msghdr` of zeros is valid: null pointers with zero lengths.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = parts.as_mut_ptr();
    message.msg_iovlen = targets.len() + 1;
    // SAFETY: all parts are ours to write for the length of the call, the targets by the caller's
    // promise; the socket is open.
    let count = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

/// Begins a connection to `address`; [`connect_result`] says what came of it when the socket has
/// become writable.
///
/// # Errors
///
/// What the kernel said.
pub fn begin_connect(address: SocketAddr, options: &SocketOptions) -> io::Result<TcpStream> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM.cloexec(), Some(Protocol::TCP))?;
    configure(&socket, options)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
        _ => {}
    }
    tune_accepted(&socket);
    Ok(socket.into())
}

/// What came of a connection that was begun.
///
/// # Errors
///
/// Why it failed.
pub fn connect_result(socket: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: the socket is open for as long as it is borrowed, which is longer than this call.
    let descriptor = unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) };
    let socket = SockRef::from(&descriptor);
    match socket.take_error()? {
        Some(error) => Err(error),
        None => socket.peer_addr().map(drop),
    }
}

/// The address that our own end of a connection has.
pub fn own_ip(socket: &impl AsRawFd) -> Option<IpAddr> {
    // SAFETY: the socket is open for as long as it is borrowed, which is longer than this call.
    let descriptor = unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) };
    let address = SockRef::from(&descriptor).local_addr().ok()?;
    address.as_socket().map(|address| address.ip())
}

/// Whether the peer has closed its side, or all of the connection; what it sent before may still be
/// there to be read.
pub fn has_hung_up(socket: &impl AsRawFd) -> bool {
    let hung_up = libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR;
    let mut look = libc::pollfd {
        fd: socket.as_raw_fd(),
        events: libc::POLLRDHUP,
        revents: 0,
    };
    // SAFETY: the pointer is to one such structure, which outlives the call; with no time-out it
    // returns at once.
    let found = unsafe { libc::poll(&raw mut look, 1, 0) };
    found == 1 && look.revents & hung_up != 0
}

/// Whether the other end of `socket`, at `peer`, is on this very machine: a connection to or from
/// an address of our own has that address at both ends. What we are bound to may hide that.
pub fn is_of_this_machine(socket: &impl AsRawFd, peer: IpAddr) -> bool {
    // SAFETY: the socket is open for as long as it is borrowed, which is longer than this call.
    let descriptor = unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) };
    let ours = SockRef::from(&descriptor).local_addr().ok();
    let ours = ours.and_then(|address| address.as_socket());
    ours.is_some_and(|ours| ours.ip().to_canonical() == peer.to_canonical())
}

/// Sends a few bytes on a socket on which nothing is on its way, which therefore takes them.
///
/// # Errors
///
/// What the kernel said, and if it did not take all of them.
pub fn send_first(socket: &impl AsRawFd, bytes: &[u8]) -> io::Result<()> {
    // SAFETY: the socket is open for as long as it is borrowed, which is longer than this call.
    let descriptor = unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) };
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    match SockRef::from(&descriptor).send_with_flags(bytes, flags)? {
        count if count == bytes.len() => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}

/// Another descriptor of the same socket, for another thread.
///
/// # Errors
///
/// What the kernel said, such as that there is no descriptor left.
pub fn duplicate(socket: &impl AsRawFd) -> io::Result<TcpStream> {
    // SAFETY: the socket is open for as long as it is borrowed, which is longer than this call.
    let descriptor = unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) };
    Ok(descriptor.try_clone_to_owned()?.into())
}

/// How many bytes of what `socket` was given have not been acknowledged by the peer; none when the
/// connection is gone, and with it what was queued. All of them, as far as one knows, where the
/// kernel does not say.
pub fn unacknowledged(socket: &impl AsRawFd) -> u64 {
    let mut bytes: libc::c_int = 0;
    // SAFETY: `SIOCOUTQ`, whose number is that of `TIOCOUTQ`, writes one integer.
    let answer = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if answer != 0 {
        return u64::MAX;
    }
    match u64::try_from(bytes) {
        Ok(bytes) if bytes > 0 && !is_closed(socket) => bytes,
        _ => 0,
    }
}

/// Whether the connection is gone for the kernel too, which has dropped its queues then.
fn is_closed(socket: &impl AsRawFd) -> bool {
    /// `TCP_CLOSE` of linux/tcp_states.h, and where `TCP_INFO` begins with the state.
    const TCP_CLOSE: u8 = 7;
    let mut state = 0_u8;
    let mut length = size_of_val(&state) as libc::socklen_t;
    // SAFETY: `state` and `length` are ours to write for the length of the call, and `length` is
    // the size of `state`: the kernel writes no more than that.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut state).cast(),
            &raw mut length,
        )
    };
    answer == 0 && state == TCP_CLOSE
}

/// Whether the peer of `socket` may be on this machine, or in a container on it: at an address of
/// this machine or site. Packets to it are handed over as they are.
pub fn is_near(socket: &impl AsRawFd, peer: IpAddr) -> bool {
    // SAFETY: the socket is open for as long as it is borrowed, which is longer than this call.
    let descriptor = unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) };
    let ours = SockRef::from(&descriptor).local_addr().ok();
    let ours = ours.and_then(|address| address.as_socket());
    is_local(peer) || ours.is_none_or(|ours| ours.ip() == peer)
}

/// Breaks the connection and drops what is queued in `socket`, so that none of it is sent any more;
/// at the latest when it is closed.
pub fn abort(socket: &impl AsRawFd) {
    // SAFETY: the socket is open for as long as it is borrowed, which is longer than this call.
    let descriptor = unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) };
    let _ = SockRef::from(&descriptor).set_linger(Some(Duration::ZERO));
    // SAFETY: `sockaddr` is plain data for which zeros are valid; its family is then AF_UNSPEC, by
    // which connecting means disconnecting.
    unsafe {
        let nowhere: libc::sockaddr = std::mem::zeroed();
        let length = size_of::<libc::sockaddr>() as libc::socklen_t;
        libc::connect(socket.as_raw_fd(), &raw const nowhere, length);
    }
}

/// How many bytes `socket` takes now without waiting, about: its send buffer less what is queued in
/// it. `None` where the kernel does not say.
pub fn send_room(socket: &impl AsRawFd) -> Option<usize> {
    /// Indices of `SO_MEMINFO`'s answer (linux/sock_diag.h).
    const SNDBUF: usize = 3;
    const WMEM_QUEUED: usize = 5;
    let mut info = [0_u32; 9];
    let mut length = size_of_val(&info) as libc::socklen_t;
    // SAFETY: `info` and `length` are ours to write for the length of the call, and `length` is the
    // size of `info`.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    let known = answer == 0 && length as usize > WMEM_QUEUED * size_of::<u32>();
    known.then(|| info[SNDBUF].saturating_sub(info[WMEM_QUEUED]) as usize)
}

/// Shuts a listener down: an accept that is in flight completes with an error, and so does every
/// later one.
pub fn shut_down(listener: &impl AsRawFd) {
    // SAFETY: the listener is open for as long as it is borrowed, which is longer than this call.
    let descriptor = unsafe { BorrowedFd::borrow_raw(listener.as_raw_fd()) };
    let _ = SockRef::from(&descriptor).shutdown(Shutdown::Both);
}

/// The address by which connections of one stranger are counted: a v4 address, or a v6 /64, which
/// is what one customer gets.
pub fn stranger(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => IpAddr::V4(v4),
            None => {
                let mut octets = v6.octets();
                octets[8..].fill(0);
                IpAddr::V6(octets.into())
            }
        },
    }
}

/// Whether `address` is on this machine or this site: loopback, private, link-local, unique local.
pub fn is_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => is_local(IpAddr::V4(v4)),
            None => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> SocketOptions {
        SocketOptions {
            backlog: 16,
            congestion_control: String::new(),
            interface: None,
        }
    }

    #[test]
    fn shards_and_families_share_one_port() {
        let addresses: Vec<SocketAddr> =
            vec!["127.0.0.1:0".parse().unwrap(), "[::1]:0".parse().unwrap()];
        let groups = listen_all(&addresses, 3, &options()).unwrap();
        let ports: Vec<u16> = groups
            .iter()
            .flatten()
            .map(|l| l.local_addr().unwrap().port())
            .collect();
        assert_eq!(ports.len(), 6);
        assert!(ports.iter().all(|&port| port == ports[0] && port != 0));
    }

    #[test]
    fn a_port_shared_by_another_server_is_taken() {
        let first = listen("127.0.0.1:0".parse().unwrap(), 2, &options()).unwrap();
        let address = first[0].local_addr().unwrap();
        let second = listen(address, 1, &options()).unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn a_congestion_control_that_is_not_there_is_named() {
        let options = SocketOptions {
            congestion_control: "nonesuch".to_owned(),
            ..options()
        };
        let address = "127.0.0.1:0".parse().unwrap();
        for error in [
            listen(address, 1, &options).unwrap_err(),
            begin_connect(address, &options).unwrap_err(),
        ] {
            assert!(error.to_string().contains("nonesuch"), "{error}");
        }
    }

    #[test]
    fn a_taken_port_is_an_error_that_names_the_address() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let (named, error) = listen_all(&[address], 1, &options()).unwrap_err();
        assert_eq!((named, error.kind()), (address, io::ErrorKind::AddrInUse));
    }

    #[test]
    fn a_stranger_is_a_v4_address_or_a_v6_network() {
        let one = stranger("2001:db8:1:2:3:4:5:6".parse().unwrap());
        assert_eq!(one, stranger("2001:db8:1:2:ffff::1".parse().unwrap()));
        assert_ne!(one, stranger("2001:db8:1:3::1".parse().unwrap()));
        assert_eq!(
            stranger("::ffff:192.0.2.1".parse().unwrap()),
            stranger("192.0.2.1".parse().unwrap())
        );
    }
}
