//! Asks a seed over the peer protocol whether it serves all of a torrent, and finds free ports.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::Context as _;
use proto::handshake::{HANDSHAKE_BYTES, Handshake, Reserved};
use proto::ids::{InfoHashV1, PeerId};
use proto::wire::id;
use socket2::{Domain, Socket, Type};

/// How long one answer may take. Transmission needs most of a second for each.
const ANSWER: Duration = Duration::from_secs(3);

/// Messages that a seed may send before its bitfield.
const MESSAGES_MAX: usize = 16;

/// No bitfield is longer.
const MESSAGE_BYTES_MAX: usize = 1 << 18;

/// Whether the seed at `address` answers a handshake for this torrent with all of its `pieces`.
///
/// `asker` decides the address of loopback that asks: Transmission takes one handshake from an
/// address at a time.
///
/// No extension is offered, so that a whole bitfield must come; one that is still being checked has
/// holes, or does not come. An error is an answer too: not yet.
pub fn serves_everything(
    address: SocketAddr,
    asker: u8,
    info_hash: InfoHashV1,
    pieces: u32,
) -> bool {
    let asker = Ipv4Addr::new(127, 0, 1, asker);
    ask(address, asker, info_hash, pieces).unwrap_or(false)
}

fn ask(
    address: SocketAddr,
    asker: Ipv4Addr,
    info_hash: InfoHashV1,
    pieces: u32,
) -> io::Result<bool> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((asker, 0)).into())?;
    socket.connect_timeout(&address.into(), ANSWER)?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(ANSWER))?;
    let handshake = Handshake {
        reserved: Reserved::NONE,
        info_hash,
        peer_id: PeerId(*b"-SB0100-asks-ready--"),
    };
    stream.write_all(&handshake.encode())?;
    stream.read_exact(&mut [0; HANDSHAKE_BYTES])?;
    for _ in 0..MESSAGES_MAX {
        let mut prefix = [0; 4];
        stream.read_exact(&mut prefix)?;
        let length = u32::from_be_bytes(prefix) as usize;
        if length > MESSAGE_BYTES_MAX {
            return Ok(false);
        }
        let mut message = vec![0; length];
        stream.read_exact(&mut message)?;
        if let Some((&id::BITFIELD, bits)) = message.split_first() {
            let there: u32 = bits.iter().map(|byte| byte.count_ones()).sum();
            return Ok(there == pieces);
        }
    }
    Ok(false)
}

/// The address of this machine in its network; loopback where it has none. Some clients,
/// Transmission among them, connect to no peer on loopback. Nothing is sent.
pub fn own_address() -> IpAddr {
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    // Connecting a UDP socket only looks up the route, here to an address for documentation (RFC
    // 5737).
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0));
    let route = socket.and_then(|socket| {
        socket.connect((Ipv4Addr::new(203, 0, 113, 1), 9))?;
        socket.local_addr()
    });
    route.map_or(loopback, |address| address.ip())
}

/// A port of loopback that nobody listens on now. Another program may take it before the measured
/// one does; that one then says so, and its run fails.
pub fn free_port() -> anyhow::Result<u16> {
    let listener =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot find a free port")?;
    Ok(listener
        .local_addr()
        .context("cannot find a free port")?
        .port())
}

/// A port of loopback.
pub fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A seed that answers one handshake and sends `messages`.
    fn seed(messages: Vec<u8>) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut handshake = [0; HANDSHAKE_BYTES];
            stream.read_exact(&mut handshake).unwrap();
            stream.write_all(&handshake).unwrap();
            stream.write_all(&messages).unwrap();
        });
        address
    }

    #[test]
    fn only_a_whole_bitfield_is_everything() {
        let hash = InfoHashV1([1; 20]);
        let whole = [0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 3, 5, 0xff, 0xc0];
        assert!(serves_everything(seed(whole.to_vec()), 1, hash, 10));
        assert!(!serves_everything(seed(whole.to_vec()), 1, hash, 11));
        let truncated = seed(whole[..14].to_vec());
        assert!(!serves_everything(truncated, 2, hash, 10));
        let hostile = seed(vec![0xff; 4]);
        assert!(!serves_everything(hostile, 3, hash, 10));
        assert!(!serves_everything(
            loopback(free_port().unwrap()),
            4,
            hash,
            10
        ));
    }
}
