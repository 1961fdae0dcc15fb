//! One simulated host: its download, its choker, its links to others, and whose turn it is on its
//! uplink.

use std::collections::VecDeque;

use engine::choker::{Choker, PeerKey, PeerView, Role};
use engine::download::Download;
use engine::meter::RateMeter;
use engine::queue::RequestQueue;
use engine::time::Time;
use proto::wire::BlockRequest;

use super::swarm::Host;

/// Requests that a host queues for one other: what our sessions announce (`reqq`, BEP 10).
pub const REQUESTS_MAX: u32 = 2_000;

/// One end of a link between two hosts.
pub struct Link {
    pub other: usize,
    /// The number of this link at the other end.
    pub back: usize,
    /// One of the two has left.
    pub closed: bool,
    /// We choke the other.
    pub choked: bool,
    /// The other says that it wants something.
    pub interested: bool,
    /// We told the other that we want something.
    pub told_interest: bool,
    /// What the other has asked for.
    pub queue: RequestQueue,
    /// Blocks that are on their way to the other.
    pub in_flight: u32,
    /// It waits for its turn on the uplink.
    pub in_turn: bool,
    /// What the other sends us.
    pub download: RateMeter,
    pub connected_at: Time,
    pub unchoked_at: Time,
    /// Bytes.
    pub uploaded_in_round: u64,
    pub uploaded_since_unchoke: u64,
}

impl Link {
    pub fn new(other: usize, back: usize, now: Time) -> Link {
        Link {
            other,
            back,
            closed: false,
            choked: true,
            interested: false,
            told_interest: false,
            queue: RequestQueue::new(REQUESTS_MAX),
            in_flight: 0,
            in_turn: false,
            download: RateMeter::new(now),
            connected_at: now,
            unchoked_at: Time::default(),
            uploaded_in_round: 0,
            uploaded_since_unchoke: 0,
        }
    }

    pub fn wants_unchoke(&self) -> bool {
        self.interested && self.choked && !self.closed
    }
}

/// See the module.
pub struct Peer {
    pub host: Host,
    pub choker: Choker,
    /// Nothing if it has everything.
    pub download: Option<Download>,
    pub links: Vec<Link>,
    /// Links that have something to send, in the order of their turns.
    pub turns: VecDeque<usize>,
    pub is_sending: bool,
    /// Blocks that one link may have on its way.
    pub window: u32,
    /// When what has arrived so far is through the downlink.
    pub downlink_free_at: Time,
    /// Links that are not closed.
    pub neighbours: usize,
    pub complete_at: Option<Time>,
    pub gone: bool,
    /// Payload, in bytes.
    pub uploaded: u64,
    pub received: u64,
}

impl Peer {
    pub fn role(&self) -> Role {
        match self.download {
            Some(_) => Role::Downloading,
            None => Role::Seeding,
        }
    }

    pub fn unchoked(&self) -> u32 {
        let open = self.links.iter().filter(|link| !link.closed);
        open.map(|link| u32::from(!link.choked)).sum()
    }

    /// What the choker judges.
    pub fn views(&mut self, total_length: u64, piece_length: u32, now: Time) -> Vec<PeerView> {
        let role = self.role();
        let download = self.download.as_ref();
        let links = (0_u64..).zip(&mut self.links);
        let open = links.filter(|(_, link)| !link.closed);
        open.map(|(number, link)| PeerView {
            key: PeerKey(number),
            role,
            interested: link.interested,
            choked: link.choked,
            connected_at: link.connected_at,
            unchoked_at: link.unchoked_at,
            uploaded_in_round: link.uploaded_in_round,
            uploaded_since_unchoke: link.uploaded_since_unchoke,
            progress_bytes: 0,
            total_length,
            piece_length,
            download_rate: link.download.rate(now),
            snubbed: download.is_some_and(|download| download.is_snubbed(PeerKey(number))),
        })
        .collect()
    }

    /// Queues a link for the uplink, if it has something to send and may.
    pub fn take_turn(&mut self, number: usize) {
        let link = &mut self.links[number];
        if !link.in_turn && !link.queue.is_empty() && link.in_flight < self.window {
            link.in_turn = true;
            self.turns.push_back(number);
        }
    }

    /// The next block to send, and on which link: each link in turn sends one.
    pub fn next_block(&mut self) -> Option<(usize, BlockRequest)> {
        while let Some(number) = self.turns.pop_front() {
            let link = &mut self.links[number];
            link.in_turn = false;
            if link.closed || link.in_flight >= self.window {
                continue;
            }
            let Some(block) = link.queue.pop() else {
                continue;
            };
            let bytes = u64::from(block.length);
            link.in_flight += 1;
            link.uploaded_in_round += bytes;
            link.uploaded_since_unchoke += bytes;
            self.uploaded += bytes;
            self.take_turn(number);
            return Some((number, block));
        }
        None
    }
}
