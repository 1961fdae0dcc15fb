//! Who is handed out of a swarm: to whom, of which family and zone, and which of many.
//!
//! Does not: change anything of a swarm.

use super::{Announce, Event, Found, Member, Members, Shard, Swarm, list};
use proto::address::{Scope, scope};
use std::net::{IpAddr, SocketAddr};

/// One in so many of the peers handed out is drawn from the whole swarm, whatever the asker's zone.
pub(super) const ANYWHERE_SHARE: usize = 4;

/// Who asks, as far as it matters for what it is given.
#[derive(Clone, Copy)]
struct Asker {
    is_loopback: bool,
    scope: Scope,
    /// The address at which it reached us.
    local: IpAddr,
}

/// What an announce is given so far, in the family `v6`.
struct Drawn<'a> {
    announce: &'a Announce,
    asker: Asker,
    v6: bool,
    /// Its peer id is there at another endpoint, which is not to be handed to it either.
    elsewhere: bool,
    /// Slots that are not to be drawn again.
    before: Vec<u32>,
    found: &'a mut Vec<Found>,
}

impl Shard {
    /// Fills `found`: those of the asker's family first, in each those of its zone first.
    pub(super) fn select(
        &self,
        swarm: &Swarm,
        (announce, stored): (&Announce, bool),
        local: IpAddr,
        random: &mut fastrand::Rng,
        found: &mut Vec<Found>,
    ) {
        let near = swarm.zones.get(&announce.zone);
        let id = self.ids.get(&(announce.info_hash, announce.peer_id));
        let elsewhere = id.is_some_and(|id| id.entries > u32::from(stored));
        let asker = Asker::new(announce.endpoint.ip(), local);
        for v6 in [announce.endpoint.is_ipv6(), !announce.endpoint.is_ipv6()] {
            let mut drawn = Drawn {
                announce,
                asker,
                v6,
                elsewhere,
                before: Vec::new(),
                found,
            };
            if let Some(near) = near {
                let wanted = announce.numwant.saturating_sub(drawn.found.len());
                let wanted = wanted - wanted / ANYWHERE_SHARE;
                let mut slots = Vec::with_capacity(wanted);
                let note = |slot| slots.push(slot);
                self.draw(near, wanted, &mut drawn, random, note);
                drawn.before = slots;
            }
            let wanted = announce.numwant.saturating_sub(drawn.found.len());
            self.draw(&swarm.members, wanted, &mut drawn, random, |_| {});
        }
    }

    /// Draws up to `wanted` peers: seeds and leechers for a leecher, leechers for a seed; never the
    /// asker itself, nor one that was drawn before. Who starts is given seeds in any case: aria2
    /// with a magnet link says that nothing is left while it has not even the metadata. Tells
    /// `note` the slots.
    fn draw(
        &self,
        members: &Members,
        wanted: usize,
        drawn: &mut Drawn<'_>,
        random: &mut fastrand::Rng,
        mut note: impl FnMut(u32),
    ) {
        if wanted == 0 {
            return;
        }
        let announce = drawn.announce;
        let leechers = &members[list(false, drawn.v6)][..];
        let seeds = &members[list(true, drawn.v6)][..];
        let leechers_only = announce.seed && announce.event != Event::Started;
        let seeds = if leechers_only { &[] } else { seeds };
        let most = drawn.found.len() + wanted;
        // More than wanted, because the asker and those drawn before may be among them.
        let more = 1 + drawn.before.len();
        choose(leechers.len() + seeds.len(), wanted + more, random, |at| {
            let member = leechers.get(at).or_else(|| seeds.get(at - leechers.len()));
            let Some(&member) = member else {
                return;
            };
            let Member { slot, endpoint, .. } = member;
            let peer_id = || self.peers[slot as usize].peer_id;
            let own =
                endpoint == announce.endpoint || (drawn.elsewhere && peer_id() == announce.peer_id);
            if own || drawn.found.len() >= most || drawn.before.contains(&slot) {
                return;
            }
            note(slot);
            if let Some(endpoint) = handed_out(member, drawn.asker) {
                let peer_id = announce.ids_wanted.then(peer_id);
                drawn.found.push(Found { peer_id, endpoint });
            }
        });
    }
}

impl Asker {
    fn new(ip: IpAddr, local: IpAddr) -> Asker {
        Asker {
            is_loopback: ip.is_loopback(),
            // Who is nowhere sees what all the world sees.
            scope: scope(ip).unwrap_or(Scope::Global),
            local,
        }
    }
}

/// Where `asker` can reach a peer; none if it cannot.
///
/// A peer that announced over loopback is on this machine: another machine reaches it where it
/// reached us. In the other family that address is not known. Nobody out in the world is told of a
/// peer inside a network ([`proto::address::may_name`]).
fn handed_out(member: Member, asker: Asker) -> Option<SocketAddr> {
    let Member {
        scope,
        mut endpoint,
        ..
    } = member;
    if endpoint.ip().is_loopback() && !asker.is_loopback {
        if endpoint.is_ipv6() != asker.local.is_ipv6() {
            return None;
        }
        endpoint.set_ip(asker.local);
        return Some(endpoint);
    }
    // No peer is listed whose port is 0 or whose address is link-local.
    scope
        .is_some_and(|scope| scope >= asker.scope)
        .then_some(endpoint)
}

/// Calls `take` with `wanted` different numbers below `size`, or with all if there are no more:
/// steps of a random width from a random start, which meet no number twice because the width and
/// the size have no divisor in common. Each number is as likely as any other, so that every peer
/// gets as many callers. Which of them come in one answer is less random than it could be: nobody
/// knows the order of the list, and to make all sets equally likely takes several times as long.
pub(super) fn choose(
    size: usize,
    wanted: usize,
    random: &mut fastrand::Rng,
    mut take: impl FnMut(usize),
) {
    if size <= wanted {
        (0..size).for_each(take);
        return;
    }
    if wanted == 0 {
        return;
    }
    let width = loop {
        let width = random.usize(1..size);
        if greatest_common_divisor(width, size) == 1 {
            break width;
        }
    };
    let mut at = random.usize(0..size);
    for _ in 0..wanted {
        take(at);
        at += width;
        if at >= size {
            at -= size;
        }
    }
}

fn greatest_common_divisor(mut one: usize, mut other: usize) -> usize {
    while other > 0 {
        (one, other) = (other, one % other);
    }
    one
}
