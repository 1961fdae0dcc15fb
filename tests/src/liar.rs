//! A seed by hand, which sends what a test wants of it: the right bytes, or wrong ones.

use crate::peer::{id, message};
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// A seed on a loopback address, whose threads end with the test's process.
#[derive(Debug)]
pub struct HandSeed {
    /// Where it listens.
    pub address: SocketAddr,
    blocks: Arc<AtomicU64>,
    connections: Arc<AtomicUsize>,
}

/// The bytes of a block (piece, offset, length) as the seed sends them.
pub trait Blocks: Send + Sync + 'static {
    /// See the trait.
    fn block(&self, piece: u32, begin: u32, length: u32) -> Vec<u8>;
}

impl<F: Fn(u32, u32, u32) -> Vec<u8> + Send + Sync + 'static> Blocks for F {
    fn block(&self, piece: u32, begin: u32, length: u32) -> Vec<u8> {
        self(piece, begin, length)
    }
}

impl HandSeed {
    /// Listens on `ip` for peers of the torrent with this info-hash, and unchokes all.
    pub fn start(ip: IpAddr, info_hash: [u8; 20], pieces: usize, blocks: impl Blocks) -> Self {
        let listener = TcpListener::bind((ip, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (blocks, sent) = (Arc::new(blocks), Arc::new(AtomicU64::new(0)));
        let connections = Arc::new(AtomicUsize::new(0));
        let seed = Self {
            address,
            blocks: Arc::clone(&sent),
            connections: Arc::clone(&connections),
        };
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                connections.fetch_add(1, Ordering::Relaxed);
                let (blocks, sent) = (Arc::clone(&blocks), Arc::clone(&sent));
                std::thread::spawn(move || serve(stream, info_hash, pieces, &*blocks, &sent));
            }
        });
        seed
    }

    /// How many blocks it has sent.
    pub fn blocks_sent(&self) -> u64 {
        self.blocks.load(Ordering::Relaxed)
    }

    /// How many connections it has taken.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

fn serve(
    mut stream: TcpStream,
    info_hash: [u8; 20],
    pieces: usize,
    blocks: &dyn Blocks,
    sent: &AtomicU64,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut theirs = [0; 68];
    stream.read_exact(&mut theirs)?;
    if theirs[28..48] != info_hash {
        return Ok(());
    }
    // Plain BEP 3, so that it must answer nothing else.
    let mut ours = b"\x13BitTorrent protocol\0\0\0\0\0\0\0\0".to_vec();
    ours.extend_from_slice(&info_hash);
    // One id for each seed: two connections to one peer would be one too many.
    let port = stream.local_addr()?.port();
    ours.extend_from_slice(format!("-HS0001-{port:012}").as_bytes());
    let mut bits = vec![0xff; pieces.div_ceil(8)];
    if let Some(last) = bits.last_mut()
        && !pieces.is_multiple_of(8)
    {
        *last = 0xff << (8 - pieces % 8);
    }
    ours.extend(message(id::BITFIELD, &bits));
    ours.extend(message(id::UNCHOKE, &[]));
    stream.write_all(&ours)?;
    loop {
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let mut body = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut body)?;
        if body.first() != Some(&id::REQUEST) {
            continue;
        }
        let word = |at: usize| u32::from_be_bytes(body[at..at + 4].try_into().unwrap());
        let (piece, begin, length) = (word(1), word(5), word(9));
        let mut payload = body[1..9].to_vec();
        payload.extend(blocks.block(piece, begin, length));
        stream.write_all(&message(id::PIECE, &payload))?;
        sent.fetch_add(1, Ordering::Relaxed);
    }
}
