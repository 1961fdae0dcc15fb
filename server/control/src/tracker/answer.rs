//! From a query to a reply: what the tracker says, apart from HTTP. What the UDP side says likewise
//! is here too.
//!
//! Limits: those of `proto::limits`; [`NUMWANT_MAX`] peers in a reply.
//! Does not: fail; a query that makes no sense gets a failure reason, which is what clients show.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::sync::LazyLock;
use std::time::Duration;

use proto::tracker::{
    AnnounceEvent, AnnounceReply, AnnounceRequest, AnnounceSuccess, Failure, Interval, PeerFormat,
    ScrapeFile, ScrapeReply, TrackerPeer, parse_scrape_query,
};
use seedring_metrics::ControlCounter;

use super::swarm::{Announce, Event, Found, Refused};
use super::zones::Zone;
use super::{Inner, NUMWANT_DEFAULT, NUMWANT_MAX};

/// Who asks, and at which of our addresses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asker {
    pub ip: IpAddr,
    pub reached_at: IpAddr,
}

thread_local! {
    /// Seeded by the operating system, one for each thread of the runtime.
    static RANDOM: RefCell<fastrand::Rng> = RefCell::new(fastrand::Rng::new());
}

/// Turns a peer's `key` into a number that is as hard to guess but takes no memory of the peer's
/// choosing.
static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// The body of a refusal.
pub(super) fn failure(reason: impl Into<String>) -> Vec<u8> {
    let failure = Failure {
        reason: reason.into(),
        retry_in: None,
    };
    AnnounceReply::Failure(failure).encode(PeerFormat::Compact)
}

/// Answers an announce.
pub(super) fn announce(inner: &Inner, asker: Asker, query: &str) -> Vec<u8> {
    let request = match AnnounceRequest::parse_query(query.as_bytes()) {
        Ok(request) => request,
        Err(error) => {
            inner.cells.increment(ControlCounter::TrackerRefusedInvalid);
            return failure(error.to_string());
        }
    };
    let mut found = Vec::new();
    let counts = RANDOM.with_borrow_mut(|random| {
        let announce = taken(&request, asker.ip, inner.zone_of(asker.ip));
        inner
            .store
            .announce(inner.now(), &announce, asker.reached_at, random, &mut found)
    });
    let counts = match counts {
        Ok(counts) => counts,
        Err(refused) => {
            inner.cells.increment(refused_counter(refused));
            return failure(refused.to_string());
        }
    };
    inner.cells.increment(ControlCounter::TrackerAnnounces);
    let interval = RANDOM.with_borrow_mut(|random| interval(inner, random));
    let peer = |Found { peer_id, endpoint }| TrackerPeer {
        address: endpoint,
        peer_id,
    };
    let success = AnnounceSuccess {
        interval,
        min_interval: Some(seconds(inner.config.interval_min)),
        peers: found.into_iter().map(peer).collect(),
        complete: Some(counts.complete),
        incomplete: Some(counts.incomplete),
        downloaded: Some(counts.downloaded),
        external_ip: Some(asker.ip),
        ..AnnounceSuccess::default()
    };
    AnnounceReply::Success(success).encode(PeerFormat::of(&request))
}

/// Answers a scrape.
pub(super) fn scrape(inner: &Inner, query: &str) -> Vec<u8> {
    let hashes = match parse_scrape_query(query.as_bytes()) {
        Ok(hashes) if hashes.is_empty() => {
            Err("name the torrents: a full scrape is not answered".to_owned())
        }
        Ok(hashes) => Ok(hashes),
        Err(error) => Err(error.to_string()),
    };
    let hashes = match hashes {
        Ok(hashes) => hashes,
        Err(reason) => {
            inner.cells.increment(ControlCounter::TrackerRefusedInvalid);
            return failure(reason);
        }
    };
    inner.cells.increment(ControlCounter::TrackerScrapes);
    let now = inner.now();
    let mut files = BTreeMap::new();
    for info_hash in hashes {
        if let Some(counts) = inner.store.scrape(now, info_hash) {
            let (complete, incomplete) = (counts.complete, counts.incomplete);
            let downloaded = counts.downloaded;
            files.insert(
                info_hash,
                ScrapeFile {
                    complete,
                    incomplete,
                    downloaded,
                },
            );
        }
    }
    ScrapeReply::Files(files).encode()
}

/// What of a request the store takes. The address is where it came from: its `ip` parameters are
/// hearsay.
fn taken(request: &AnnounceRequest, ip: IpAddr, zone: Zone) -> Announce {
    let wanted = request
        .peers_wanted
        .map_or(NUMWANT_DEFAULT, |wanted| wanted as usize);
    Announce {
        info_hash: request.info_hash,
        peer_id: request.peer_id,
        key: request.key.as_deref().map(key),
        endpoint: SocketAddr::new(ip, request.port),
        zone,
        // One that does not say how much it has left is given seeds, at worst in vain.
        seed: request.left_bytes == Some(0),
        event: event(request.event),
        numwant: wanted.min(NUMWANT_MAX),
        ids_wanted: matches!(
            PeerFormat::of(request),
            PeerFormat::Dictionaries { no_peer_id: false }
        ),
    }
}

/// A peer's `key`, as the store takes it.
pub(super) fn key(key: &[u8]) -> u64 {
    KEYS.hash_one(key)
}

/// What of an event the store takes.
pub(super) fn event(event: AnnounceEvent) -> Event {
    match event {
        AnnounceEvent::Completed => Event::Completed,
        AnnounceEvent::Stopped => Event::Stopped,
        AnnounceEvent::Started => Event::Started,
        AnnounceEvent::None | AnnounceEvent::Paused => Event::Present,
    }
}

/// Where a refusal is counted.
pub(super) fn refused_counter(refused: Refused) -> ControlCounter {
    match refused {
        Refused::Unlisted => ControlCounter::TrackerRefusedUnlisted,
        Refused::Full => ControlCounter::TrackerRefusedFull,
    }
}

/// When a peer is to announce again: up to a tenth later than configured, so that peers that came
/// together do not stay so.
pub(super) fn interval(inner: &Inner, random: &mut fastrand::Rng) -> Interval {
    let spread = inner.config.interval.as_secs() / 10;
    seconds(inner.config.interval + Duration::from_secs(random.u64(0..=spread)))
}

fn seconds(duration: Duration) -> Interval {
    Interval::from_seconds(i64::try_from(duration.as_secs()).unwrap_or(i64::MAX))
}
