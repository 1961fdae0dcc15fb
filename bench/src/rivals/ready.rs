//! Waits until a server serves everything: a seed answers a handshake with a whole bitfield, a web
//! server accepts connections.
//!
//! A seed that still checks its data answers with a bitfield of fewer pieces, or not at all;
//! measured then, it would look slow.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::bail;
use proto::handshake::{HANDSHAKE_BYTES, Handshake, Reserved};
use proto::ids::PeerId;

use super::Protocol;
use super::process::Server;
use crate::torrent::Torrent;

/// How long a server may check its data before it serves them.
const READY: Duration = Duration::from_secs(180);

/// How often it is asked.
const POLL: Duration = Duration::from_millis(200);

/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(2);

/// A longer message before the bitfield is no seed's.
const MESSAGE_BYTES_MAX: usize = 4 << 20;

/// Messages before the bitfield that are read at most.
const MESSAGES_MAX: usize = 16;

/// The bitfield's message (BEP 3).
const BITFIELD: u8 = 5;

/// Returns when `server` serves all of `torrent` at `address`.
pub fn wait(
    server: &mut Server,
    protocol: Protocol,
    address: SocketAddr,
    torrent: &Torrent,
) -> anyhow::Result<()> {
    let until = Instant::now() + READY;
    loop {
        let serves = match protocol {
            Protocol::Peer => serves_everything(address, torrent).unwrap_or(false),
            Protocol::Http | Protocol::Disk => TcpStream::connect_timeout(&address, ANSWER).is_ok(),
        };
        if let Some(status) = server.ended() {
            bail!(
                "it ended ({status}) before it served; {}",
                server.log_tail()
            );
        }
        if serves {
            return Ok(());
        }
        if Instant::now() > until {
            bail!(
                "it does not serve all pieces after {} s; {}",
                READY.as_secs(),
                server.log_tail()
            );
        }
        std::thread::sleep(POLL);
    }
}

/// Greets the seed as a peer does, and says whether it answers that it has every piece.
fn serves_everything(address: SocketAddr, torrent: &Torrent) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    let greeting = Handshake {
        // No extension, so that a whole bitfield must come. aria2 wants nothing before its
        // greeting.
        reserved: Reserved::NONE,
        info_hash: torrent.info_hash,
        peer_id: PeerId(*b"-SB0100-waits-ready0"),
    };
    stream.write_all(&greeting.encode())?;
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
        if let Some((&BITFIELD, bits)) = message.split_first() {
            let pieces: u32 = bits.iter().map(|byte| byte.count_ones()).sum();
            return Ok(pieces == torrent.geometry.piece_count);
        }
    }
    Ok(false)
}
