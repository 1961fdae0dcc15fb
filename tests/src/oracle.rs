//! What must hold after every attack: the process lives, no thread is lost, descriptors return, and other
//! peers and torrents get correct bytes.

use crate::http;
use crate::server::Server;
use crate::torrent::Torrent;
use std::time::{Duration, Instant};

/// How long descriptors may take to return to their number.
const SETTLE: Duration = Duration::from_secs(15);

/// Peers that download before the count: enough that every shard has opened every file, whichever shard the
/// kernel gives a connection to.
const WARM_UP_PEERS: usize = 16;

/// The state before the attack.
#[derive(Debug, Clone)]
pub struct Oracle {
    threads: Vec<String>,
    descriptors: usize,
}

impl Oracle {
    /// Remembers what is to be the same later. It downloads once first: what the server opens lazily (a
    /// file, a pipe) is then open on both sides of the comparison.
    pub fn before(server: &Server, torrents: &[&Torrent]) -> Self {
        for torrent in torrents {
            let last = u32::try_from(torrent.pieces.len()).unwrap() - 1;
            for _ in 0..WARM_UP_PEERS {
                assert_serves(server, torrent, &[0, last]);
            }
        }
        std::thread::sleep(Duration::from_millis(300));
        Self {
            threads: server.threads(),
            descriptors: server.descriptors(),
        }
    }

    /// Panics unless all is as before.
    pub fn check(&self, server: &mut Server, torrents: &[&Torrent]) {
        assert!(
            server.process.is_alive(),
            "the server ended\n{}",
            server.process.transcript()
        );
        for torrent in torrents {
            let last = u32::try_from(torrent.pieces.len()).unwrap() - 1;
            assert_serves(server, torrent, &[0, last / 2, last]);
        }
        assert_eq!(server.threads(), self.threads, "a thread was lost");
        let health = http::get(&format!(
            "{}/healthz",
            server.ready.api.trim_end_matches('/')
        ));
        assert_eq!(health.status, 200, "the control plane answers");
        let until = Instant::now() + SETTLE;
        let allowed = self.descriptors + self.descriptors.div_ceil(20);
        while server.descriptors() > allowed {
            assert!(
                Instant::now() < until,
                "descriptors: {} before, {} after",
                self.descriptors,
                server.descriptors()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        let stderr = server.process.stderr();
        assert!(
            !stderr.contains("panicked at"),
            "a thread panicked:\n{stderr}"
        );
    }
}

/// Panics unless a fresh peer gets these pieces whole and with the right hash.
pub fn assert_serves(server: &Server, torrent: &Torrent, pieces: &[u32]) {
    let mut peer = server.peer(torrent);
    for piece in pieces {
        let data = peer.piece(torrent, *piece);
        let data =
            data.unwrap_or_else(|error| panic!("piece {piece} of {}: {error}", torrent.name));
        let data = data.unwrap_or_else(|| panic!("piece {piece} of {} rejected", torrent.name));
        assert!(
            torrent.is_piece(*piece, &data),
            "piece {piece} of {}: wrong bytes",
            torrent.name
        );
    }
}
