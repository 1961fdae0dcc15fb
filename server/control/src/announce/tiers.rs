//! The trackers of one torrent: tiers, which tracker is next, back-off (BEP 12, BEP 31).
//!
//! Limits: [`TRACKERS_PER_TORRENT_MAX`] trackers; what lies beyond is ignored.
//! Does not: do I/O, read a clock or know of other torrents; time and randomness are arguments.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use engine::time::Time;
use proto::limits::{ANNOUNCE_INTERVAL_SECONDS_MAX, ANNOUNCE_INTERVAL_SECONDS_MIN};
use proto::tracker::{AnnounceEvent, ScrapeFile};
use reqwest::Url;

use super::url::{host_key, parse_tracker_url, redacted};
use super::{RetryIn, TrackerReply, TrackerState, TrackerStatus};

/// Trackers of one torrent that are used; real torrents carry up to some 40.
pub const TRACKERS_PER_TORRENT_MAX: usize = 64;
/// The shortest and longest time between two announces of a torrent, whatever the tracker says.
pub const INTERVAL_MIN: Duration = Duration::from_secs(ANNOUNCE_INTERVAL_SECONDS_MIN as u64);
/// See [`INTERVAL_MIN`].
pub const INTERVAL_MAX: Duration = Duration::from_secs(ANNOUNCE_INTERVAL_SECONDS_MAX as u64);
/// The first wait after a tracker could not be reached; it doubles with each failure.
pub const BACKOFF_MIN: Duration = Duration::from_secs(15);
/// The first wait after a tracker answered with a refusal: it is alive, so there is no hurry.
pub const REFUSED_BACKOFF_MIN: Duration = Duration::from_secs(60);
/// The longest wait after failures.
pub const BACKOFF_MAX: Duration = Duration::from_secs(30 * 60);

/// A tracker's place in the list as it was given: stays the same while tiers are reordered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct TrackerIndex(pub usize);

/// One tracker of one torrent.
pub(super) struct Tracker {
    pub index: TrackerIndex,
    tier: usize,
    display: String,
    /// Where to announce; none if the URL cannot be used, and then `message` says why.
    pub target: Option<Target>,
    /// The tracker knows us: it answered `started` and has not been told `stopped`.
    pub started: bool,
    /// The announce that is under way, by its ticket.
    pub in_flight: Option<u64>,
    /// When that was begun.
    pub asked_at: Time,
    /// What it says.
    pub asked: AnnounceEvent,
    /// Its place in the scrapes, by a number that no other has; none if it is not scraped.
    pub scraped_as: Option<u64>,
    pub tracker_id: Option<Arc<[u8]>>,
    pub retry_at: Time,
    /// An announce that nobody asked for by an event must not come before this.
    pub allowed_at: Time,
    failures: u32,
    last_announce: Option<Time>,
    seeders: Option<u32>,
    leechers: Option<u32>,
    downloaded: Option<u32>,
    peers: usize,
    message: Option<String>,
}

/// How a tracker is asked.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(super) enum Transport {
    /// By HTTP or HTTPS, as the URL says.
    Http,
    Udp,
}

/// A tracker's address, shared by the jobs that go there.
#[derive(Clone)]
pub(super) struct Target {
    pub transport: Transport,
    /// That of a UDP tracker begins with `http` too; see `parse_tracker_url`.
    pub url: Arc<Url>,
    pub host: Arc<str>,
    /// The tracker as people see it: no passkey is in it.
    pub shown: Arc<str>,
}

/// The trackers of one torrent in the order in which they are tried.
pub(super) struct Tiers {
    trackers: Vec<Tracker>,
}

impl Tiers {
    /// Takes the tiers of a torrent; shuffles within each (BEP 12). Duplicates after the first
    /// are dropped.
    pub fn new(tiers: &[Vec<String>], random: &mut fastrand::Rng) -> Tiers {
        let mut trackers: Vec<Tracker> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        for (tier, urls) in tiers.iter().enumerate() {
            let first = trackers.len();
            for url in urls {
                if trackers.len() >= TRACKERS_PER_TORRENT_MAX || !seen.insert(url.trim()) {
                    continue;
                }
                trackers.push(Tracker::new(TrackerIndex(trackers.len()), tier, url));
            }
            random.shuffle(&mut trackers[first..]);
        }
        number_alike(&mut trackers);
        // It has been given room for four, and none comes any more.
        trackers.shrink_to_fit();
        Tiers { trackers }
    }

    /// What is kept beside the value itself, in bytes, with nothing shared.
    #[cfg(test)]
    pub fn heap_bytes(&self) -> usize {
        const SHARED: usize = 2 * size_of::<usize>();
        let of_target = |target: &Target| {
            let url = size_of::<Url>() + target.url.as_str().len();
            url + target.host.len() + target.shown.len() + 3 * SHARED
        };
        let of_tracker = |tracker: &Tracker| {
            let texts = [Some(&tracker.display), tracker.message.as_ref()];
            let texts: usize = texts.into_iter().flatten().map(String::capacity).sum();
            let id = tracker
                .tracker_id
                .as_ref()
                .map_or(0, |id| id.len() + SHARED);
            texts + id + tracker.target.as_ref().map_or(0, of_target)
        };
        let trackers = self.trackers.capacity() * size_of::<Tracker>();
        trackers + self.trackers.iter().map(of_tracker).sum::<usize>()
    }

    pub fn get_mut(&mut self, index: TrackerIndex) -> Option<&mut Tracker> {
        self.trackers
            .iter_mut()
            .find(|tracker| tracker.index == index)
    }

    pub fn get(&self, index: TrackerIndex) -> Option<&Tracker> {
        self.trackers.iter().find(|tracker| tracker.index == index)
    }

    /// Announces under way.
    pub fn in_flight(&self) -> usize {
        let busy = self.iter().filter(|tracker| tracker.in_flight.is_some());
        busy.count()
    }

    /// How many trackers there are.
    pub fn count(&self) -> usize {
        self.trackers.len()
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Tracker> {
        self.trackers.iter()
    }

    /// Moves a tracker that works to the front of its tier (BEP 12).
    pub fn promote(&mut self, index: TrackerIndex) {
        let Some(at) = self
            .trackers
            .iter()
            .position(|tracker| tracker.index == index)
        else {
            return;
        };
        let tier = self.trackers[at].tier;
        let first = self
            .trackers
            .iter()
            .position(|tracker| tracker.tier == tier)
            .unwrap_or(at);
        self.trackers[first..=at].rotate_right(1);
    }
}

impl Tracker {
    fn new(index: TrackerIndex, tier: usize, url_text: &str) -> Tracker {
        let parsed = parse_tracker_url(url_text);
        let (target, message) = match parsed {
            Ok((transport, url)) => (
                Some(Target {
                    transport,
                    host: host_key(transport, &url).into(),
                    url: Arc::new(url),
                    shown: redacted(url_text).into(),
                }),
                None,
            ),
            Err(error) => {
                tracing::warn!(tracker = redacted(url_text), %error, "a tracker is ignored");
                (None, Some(error.to_string()))
            }
        };
        Tracker {
            index,
            tier,
            display: redacted(url_text),
            target,
            started: false,
            in_flight: None,
            asked_at: Time(0),
            asked: AnnounceEvent::None,
            scraped_as: None,
            tracker_id: None,
            retry_at: Time(0),
            allowed_at: Time(0),
            failures: 0,
            last_announce: None,
            seeders: None,
            leechers: None,
            downloaded: None,
            peers: 0,
            message,
        }
    }

    /// Takes a good reply; says how long to wait until the next regular announce.
    pub fn succeeded(
        &mut self,
        now: Time,
        reply: TrackerReply,
        random: &mut fastrand::Rng,
    ) -> Duration {
        self.failures = 0;
        self.retry_at = now;
        self.last_announce = Some(now);
        self.seeders = reply.seeders;
        self.leechers = reply.leechers;
        self.downloaded = reply.downloaded.or(self.downloaded);
        self.peers = reply.peers.len();
        self.message = reply.warning;
        if let Some(tracker_id) = reply.tracker_id {
            self.tracker_id = Some(tracker_id.into());
        }
        let least = reply
            .interval_min
            .unwrap_or(INTERVAL_MIN)
            .clamp(INTERVAL_MIN, INTERVAL_MAX);
        let wait = reply.interval.clamp(INTERVAL_MIN, INTERVAL_MAX).max(least);
        self.allowed_at = now + least;
        // Only ever later than asked: torrents that were answered together drift apart, and no
        // tracker sees one too early.
        (wait + random_part(wait / 10, random)).min(INTERVAL_MAX)
    }

    /// Takes what a scrape says.
    pub fn scraped(&mut self, file: ScrapeFile) {
        self.seeders = Some(file.complete);
        self.leechers = Some(file.incomplete);
        self.downloaded = Some(file.downloaded);
    }

    /// Takes a failure: sets when this tracker may be tried again for this torrent.
    pub fn failed(
        &mut self,
        now: Time,
        message: String,
        retry: Option<RetryIn>,
        backoff_min: Duration,
        random: &mut fastrand::Rng,
    ) {
        self.failures = self.failures.saturating_add(1);
        self.last_announce = Some(now);
        self.message = Some(message);
        self.retry_at = match retry {
            Some(RetryIn::Never) => Time::NEVER,
            Some(RetryIn::After(wait)) => {
                let wait = wait.clamp(backoff_min, INTERVAL_MAX);
                now + wait + random_part(wait / 10, random)
            }
            None => now + backoff(self.failures, backoff_min, random),
        };
    }

    /// Its last announce failed.
    pub fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// What the operator sees; `down` is until when its host is left alone, and why.
    pub fn status(&self, now: Time, next: Time, down: Option<(Time, &str)>) -> TrackerStatus {
        let state = match () {
            () if self.target.is_none() || self.retry_at == Time::NEVER => TrackerState::Disabled,
            () if self.in_flight.is_some() => TrackerState::Announcing,
            () if self.failures > 0 || down.is_some() => TrackerState::Failing,
            () if self.last_announce.is_some() => TrackerState::Working,
            () => TrackerState::Waiting,
        };
        let idle = state == TrackerState::Disabled;
        let next = next
            .max(self.retry_at)
            .max(down.map_or(Time(0), |(until, _)| until));
        let message = self.message.clone();
        TrackerStatus {
            tracker: self.display.clone(),
            tier: self.tier,
            state,
            since_last: self.last_announce.map(|last| now.since(last)),
            asking_for: self.in_flight.map(|_| now.since(self.asked_at)),
            until_next: (!idle && next != Time::NEVER).then(|| next.since(now)),
            seeders: self.seeders,
            leechers: self.leechers,
            downloaded: self.downloaded,
            peers: self.peers,
            message: message.or_else(|| down.map(|(_, why)| why.to_owned())),
        }
    }
}

/// Tells trackers apart that look alike, since what differs may be a passkey: by their place among
/// those, in the order of the torrent.
fn number_alike(trackers: &mut [Tracker]) {
    let mut alike: HashMap<String, Vec<(TrackerIndex, usize)>> = HashMap::new();
    for (at, tracker) in trackers.iter().enumerate() {
        let shown = tracker.display.clone();
        alike.entry(shown).or_default().push((tracker.index, at));
    }
    for mut places in alike.into_values().filter(|places| places.len() > 1) {
        places.sort_by_key(|(index, _)| index.0);
        let count = places.len();
        for (number, (_, at)) in (1..).zip(places) {
            if let Some(tracker) = trackers.get_mut(at) {
                tracker.display = format!("{} ({number} of {count} there)", tracker.display);
                if let Some(target) = &mut tracker.target {
                    target.shown = tracker.display.as_str().into();
                }
            }
        }
    }
}

/// The wait after the `failures`-th failure in a row: doubling from `least` to [`BACKOFF_MAX`],
/// plus up to a quarter at random so that torrents that failed together do not come back
/// together.
pub(super) fn backoff(failures: u32, least: Duration, random: &mut fastrand::Rng) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let wait = least.saturating_mul(1 << doublings).min(BACKOFF_MAX);
    wait + random_part(wait / 4, random)
}

/// A random time from zero to `most`.
pub(super) fn random_part(most: Duration, random: &mut fastrand::Rng) -> Duration {
    let nanos = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX - 1);
    Duration::from_nanos(random.u64(0..=nanos))
}
