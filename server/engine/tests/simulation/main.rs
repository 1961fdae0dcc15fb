//! A seed with 240 peers in virtual time: sessions, choker and rate limit together, driven as the
//! I/O layer drives them. Everything is drawn from one seed, so a failure replays by running its
//! test again.
//!
//! Messages are cut anywhere, sockets fill up, reads take time and fail, slots and limits change.
//! Promised: each request is answered once, by a block, a reject, or a silence that BEP 3 allows;
//! queues are bounded; who keeps to the protocol is never closed for breaking it, however slow; who
//! breaks it, takes nothing, falls silent or needs nothing is closed; the rate limit holds.

mod peer;
mod server;

use std::time::Duration;

use engine::random::Random;
use engine::session::{Disconnect, DisconnectKind};
use engine::time::Time;

use peer::{Kind, Peer};
use server::Server;

const PEERS: usize = 240;
const TICK: Duration = Duration::from_millis(40);

/// What is left of a run, to be compared with another of the same seed.
#[derive(PartialEq, Eq, Debug, Default)]
struct Outcome {
    uploaded_bytes: u64,
    messages: u64,
    rejects: u64,
    cancels: u64,
    chokes: u64,
    /// Connections that were closed because the peer took nothing.
    stalled: u64,
    closed: Vec<(usize, DisconnectKind)>,
}

/// Runs 60 s of traffic, then lets everything drain, and checks the accounts.
fn simulate(seed: u64) -> Outcome {
    let mut random = Random::new(seed);
    let mut now = Time(1);
    let mut peers: Vec<Peer> = (0..PEERS)
        .map(|index| Peer::new(index, &mut random))
        .collect();
    let mut server = Server::new(&peers, seed, now);
    for tick in 0..2_250_u32 {
        now = now + TICK;
        let draining = tick >= 1_500;
        if tick % 250 == 0 {
            server.change_limits(&mut random, draining, now);
        }
        server.hold_choke_round(now);
        for (index, peer) in peers.iter_mut().enumerate() {
            if let Some(connection) = server.connection(index) {
                peer.act(connection.socket(), draining, now, &mut random);
            }
            server.drive(index, peer, now, &mut random);
        }
    }
    server.check_rate(now);
    check_closed(&server, &peers);
    let mut outcome = Outcome::default();
    for (index, peer) in peers.iter().enumerate() {
        let counters = server.check_account(index, peer);
        outcome.uploaded_bytes += counters.uploaded_bytes;
        outcome.messages += counters.messages;
        outcome.rejects += counters.requests_refused + counters.requests_rejected;
        outcome.cancels += counters.cancels;
        outcome.chokes += counters.chokes;
        let stalled = matches!(server.closed(index), Some(Disconnect::Stalled { .. }));
        outcome.stalled += u64::from(stalled);
        outcome
            .closed
            .extend(server.closed(index).map(|reason| (index, reason.kind())));
    }
    outcome
}

/// Who was closed, and why, is what each kind of peer has coming.
fn check_closed(server: &Server, peers: &[Peer]) {
    for (index, peer) in peers.iter().enumerate() {
        let kind = server.closed(index).map(|reason| reason.kind());
        let expected: &[Option<DisconnectKind>] = match peer.kind() {
            Kind::Leecher | Kind::Slow | Kind::Flooder => &[None],
            Kind::Mute => &[Some(DisconnectKind::TimedOut)],
            // One whose requests were all refused has nothing to take.
            Kind::Sleeper => &[Some(DisconnectKind::TimedOut), None],
            Kind::Seed => &[Some(DisconnectKind::Redundant)],
            Kind::Vandal => &[
                None,
                Some(DisconnectKind::Misbehaved),
                Some(DisconnectKind::Incompatible),
            ],
        };
        assert!(
            expected.contains(&kind),
            "peer {index}, {:?}: {:?}",
            peer.kind(),
            server.closed(index)
        );
    }
}

/// That the run was worth something: all that should happen did, and often.
fn check_lively(outcome: &Outcome) {
    assert!(outcome.uploaded_bytes > 10_000_000, "{outcome:?}");
    assert!(outcome.messages > 50_000, "{outcome:?}");
    assert!(
        outcome.rejects > 5_000 && outcome.cancels > 1_000,
        "{outcome:?}"
    );
    assert!(outcome.chokes > 100, "{outcome:?}");
    let closed = |kind| {
        outcome
            .closed
            .iter()
            .filter(|(_, other)| *other == kind)
            .count()
    };
    assert!(closed(DisconnectKind::Misbehaved) > 5, "{outcome:?}");
    assert!(closed(DisconnectKind::Redundant) > 5, "{outcome:?}");
    assert!(outcome.stalled > 2, "{outcome:?}");
}

#[test]
fn seed_1_keeps_every_promise_and_replays() {
    let outcome = simulate(1);
    check_lively(&outcome);
    assert_eq!(outcome, simulate(1));
}

#[test]
fn seed_2_keeps_every_promise() {
    check_lively(&simulate(2));
}

#[test]
fn seed_3_keeps_every_promise() {
    check_lively(&simulate(3));
}
