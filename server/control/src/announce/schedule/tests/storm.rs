//! As many torrents as a server is made for.

use super::*;

const TORRENTS: usize = 100_000;
const HOSTS: usize = 10;

/// Announces of each host in each second from `from` on.
fn rates(seen: &[Seen], from: Duration) -> Vec<[u32; HOSTS]> {
    let mut rates = Vec::new();
    for one in seen {
        let host = usize::from(one.host.as_bytes()[0] - b'0');
        let second = one.at.since(at(from)).as_secs() as usize;
        if rates.len() <= second {
            rates.resize(second + 1, [0; HOSTS]);
        }
        rates[second][host] += 1;
    }
    rates
}

/// What a scheduler holds, in bytes: counted, since what the process has depends on what ran before.
fn bytes_held(scheduler: &Scheduler) -> usize {
    // A table has a byte of its own for each place.
    let torrents = scheduler.torrents.capacity() * (size_of::<(InfoHashV1, Torrent)>() + 1);
    let totals = size_of::<TorrentTotals>() + 2 * size_of::<usize>();
    let of_torrents = scheduler.torrents.values();
    let of_torrents: usize = of_torrents.map(|one| one.tiers.heap_bytes() + totals).sum();
    let timers = scheduler.timers.capacity() * size_of::<Timer>();
    let queued = |host: &Host| host.urgent.capacity() + host.normal.capacity();
    let queues: usize = scheduler.hosts.values().map(queued).sum();
    torrents + of_torrents + timers + queues * size_of::<Entry>()
}

/// Of ten trackers, all at once: each torrent is announced once and, as long as enough of them wait,
/// at each tracker's rate from the first second to the last; the next round comes no sooner than the
/// trackers ask for, and at no higher rate. Prints what they take of memory.
#[test]
fn a_hundred_thousand_torrents_are_announced_evenly_within_their_memory() {
    let urls: Vec<String> = (0..HOSTS)
        .map(|host| format!("http://{host}.example/announce"))
        .collect();
    let mut world = World::new();
    for number in 0..TORRENTS {
        world.add(number, &[&[&urls[number % HOSTS]]]);
    }
    let answer = |_: &Job| (Duration::from_millis(200), reply(1800));
    // All of them wait for a host then.
    world.run(seconds(1), answer);
    let each = bytes_held(&world.scheduler) / TORRENTS;
    println!("{each} bytes for each of {TORRENTS} torrents");
    assert!(each < 1_100, "{each} bytes for each");

    world.run(seconds(600), answer);
    assert_eq!(world.seen.len(), TORRENTS);
    let is_first = |seen: &Seen| seen.event == AnnounceEvent::Started;
    assert!(world.seen.iter().all(is_first));
    assert!(world.most_at_once <= LIMITS.in_flight_max);
    // 20 a second each: 500 s, with the burst at the start.
    let first = rates(&world.seen, Duration::ZERO);
    assert!(first[0].iter().all(|count| *count <= 24));
    assert!(first[1..].iter().flatten().all(|count| *count <= 21));
    assert!(first[1..499].iter().flatten().all(|count| *count >= 19));

    world.seen.clear();
    world.run(seconds(600 + 2_500), answer);
    assert_eq!(world.seen.len(), TORRENTS);
    let again = rates(&world.seen, seconds(600));
    assert!(again[..1_200].iter().flatten().all(|count| *count == 0));
    assert!(again.iter().flatten().all(|count| *count <= 24));
    assert_eq!(world.scheduler.gauges(world.now).overdue, 0);
    let later = bytes_held(&world.scheduler) / TORRENTS;
    assert!(
        later <= each * 5 / 4,
        "{later} bytes for each after a round"
    );
}
