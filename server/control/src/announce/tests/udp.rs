//! The announcer and UDP trackers over real sockets: what is said, to whom, and what is believed.

use proto::tracker::udp::UdpRequest;

use super::*;
use crate::announce::schedule::HOST_BURST;
use crate::announce::udp::REPEAT_AFTER;
use crate::announce::udp::tests::{Send, Server as UdpServer, error, good};

/// The URL of a UDP tracker.
fn url(server: &UdpServer) -> String {
    format!("udp://{}/announce?passkey=0123456789abcdef", server.address)
}

fn reply(outcome: Outcome) -> TrackerReply {
    match outcome {
        Outcome::Reply(reply) => reply,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_announce_says_what_it_should_over_udp() {
    for (bind, peer) in [
        ("127.0.0.1:0", "8.8.8.8:5"),
        ("[::1]:0", "[2606:4700::1]:5"),
    ] {
        let server = UdpServer::good(bind, peer).await;
        let reply = reply(super::announce(&url(&server)).await);
        assert_eq!((reply.seeders, reply.leechers), (Some(2), Some(1)));
        assert_eq!(reply.interval, Duration::from_secs(1800));
        assert_eq!(reply.peers, [peer.parse().unwrap()]);
        let (announce, data) = server.announces.lock().unwrap()[0].clone();
        assert_eq!(data, b"/announce?passkey=0123456789abcdef");
        assert_eq!(
            (announce.info_hash, announce.peer_id),
            (HASH, IDENTITY.peer_id)
        );
        assert_eq!((announce.key, announce.port), (IDENTITY.key, IDENTITY.port));
        assert_eq!(announce.event, AnnounceEvent::Started);
        assert_eq!((announce.left_bytes, announce.peers_wanted), (0, Some(30)));
        assert_eq!(announce.ip, 0);
    }
}

#[tokio::test]
async fn a_url_without_a_path_has_no_data() {
    let server = UdpServer::good("127.0.0.1:0", "8.8.8.8:5").await;
    for end in ["", "/"] {
        reply(super::announce(&format!("udp://{}{end}", server.address)).await);
    }
    let announces = server.announces.lock().unwrap();
    assert!(announces.len() == 2 && announces.iter().all(|(_, data)| data.is_empty()));
}

#[tokio::test]
async fn a_refusal_over_udp_is_shown_safely() {
    let server = UdpServer::start("127.0.0.1:0", |request, _| {
        vec![Send::Own(match request {
            UdpRequest::Connect { .. } => good(request, ""),
            _ => error(
                request,
                &format!("bad key 0123456789abcdef {}", "x".repeat(50_000)),
            ),
        })]
    })
    .await;
    let outcome = super::announce(&url(&server)).await;
    let Outcome::Refused { reason, retry } = outcome else {
        panic!("{outcome:?}")
    };
    assert!(
        reason.starts_with("bad key … xxx") && reason.chars().count() < 300,
        "{reason}"
    );
    assert_eq!(retry, None);
}

/// Opentracker answers so for a torrent that is not on its list: what is to be done is told, and it is
/// no fault of the tracker's, which is asked for others as before.
#[tokio::test]
async fn an_announce_reply_without_anything_is_a_refusal() {
    let server = UdpServer::start("127.0.0.1:0", |request, _| {
        let mut reply = good(request, "8.8.8.8:5");
        if !matches!(request, UdpRequest::Connect { .. }) {
            reply.truncate(8);
        }
        vec![Send::Own(reply)]
    })
    .await;
    let outcome = super::announce(&url(&server)).await;
    let Outcome::Refused { reason, retry } = outcome else {
        panic!("{outcome:?}")
    };
    assert!(reason.contains("not on its list"), "{reason}");
    assert_eq!(retry, None);
}

#[tokio::test]
async fn a_udp_tracker_inside_needs_leave() {
    let server = UdpServer::good("127.0.0.1:0", "192.0.2.1:5").await;
    let closed = AnnounceConfig {
        allow_private_trackers: false,
        ..config()
    };
    error_of(announce_with(client(&closed), &url(&server)).await);
    assert_eq!(server.count(), (0, 0));
    // A name with an address inside and a global one leads to the global one only.
    let port = server.address.port();
    let scoped = scoped(|ip| ip == IpAddr::from([192, 0, 2, 9]));
    let known: Arc<[IpAddr]> =
        Arc::from([IpAddr::from([127, 0, 0, 1]), IpAddr::from([192, 0, 2, 9])]);
    scoped.know("tracker.example", known);
    let url = format!("udp://tracker.example:{port}");
    let announce = announce_with(scoped, &url);
    // It waits for the global one or cannot reach it; nobody inside is asked.
    let _ = tokio::time::timeout(Duration::from_millis(300), announce).await;
    assert_eq!(server.count(), (0, 0));
}

#[tokio::test]
async fn a_global_udp_tracker_names_no_peers_inside() {
    let inside = UdpServer::good("127.0.0.1:0", "10.0.0.1:5").await;
    let global = UdpServer::good("127.0.0.2:0", "10.0.0.1:5").await;
    for (server, due) in [(&inside, 1), (&global, 0)] {
        let client = scoped(pretend_127_0_0_2_is_global);
        let reply = reply(announce_with(client, &url(server)).await);
        assert_eq!(reply.peers.len(), due);
    }
}

#[tokio::test]
async fn our_own_address_is_no_peer() {
    let ours = UdpServer::good("127.0.0.1:0", "127.0.0.1:6890").await;
    let other = UdpServer::good("127.0.0.1:0", "127.0.0.1:6891").await;
    assert_eq!(reply(super::announce(&url(&ours)).await).peers, []);
    assert_eq!(reply(super::announce(&url(&other)).await).peers.len(), 1);
    // The same over HTTP, also for the address that the tracker says we have (BEP 24).
    let body = b"d11:external ip4:\x08\x08\x02\x098:intervali1800e\
        5:peers18:\x08\x08\x02\x09\x1a\xea\x7f\0\0\x01\x1a\xea\x08\x08\x02\x09\x1a\xebe";
    let http = Server::start("127.0.0.1", move |_| ok(body)).await;
    let peers = reply(super::announce(&http.url()).await).peers;
    assert_eq!(peers, ["8.8.2.9:6891".parse().unwrap()]);
}

/// Tiers, one URL each.
fn tiers(urls: &[String]) -> Vec<Vec<String>> {
    urls.iter().map(|url| vec![url.clone()]).collect()
}

#[tokio::test]
async fn a_dead_first_tier_and_a_slow_second_are_not_waited_for() {
    let dead = UdpServer::start("127.0.0.1:0", |_, _| vec![]).await;
    let slow = Server::start("127.0.0.1", |_| {
        Say::Endless(vec![], GOOD.to_vec(), Duration::from_secs(3600))
    })
    .await;
    let working = UdpServer::good("127.0.0.1:0", "8.8.8.8:5").await;
    let handle = Announcer::start(&config(), IDENTITY, Registry::new(0).control()).unwrap();
    let wanting = Finding::with_left(5);
    let tiers = tiers(&[url(&dead), slow.url(), url(&working)]);
    handle.add(HASH, &tiers, false, Arc::clone(&wanting) as _);
    while wanting.found.lock().unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let states = |status: TorrentStatus| -> Vec<TrackerState> {
        status
            .trackers
            .iter()
            .map(|tracker| tracker.state)
            .collect()
    };
    // The two before it are still being waited for, and have not failed: that takes 20 s here.
    use TrackerState::{Announcing, Working};
    let now = states(handle.status(HASH).unwrap());
    assert_eq!(now, [Announcing, Announcing, Working]);
    assert!(dead.count().0 >= 1);
    assert_eq!(slow.heads().len(), 1);
}

/// Peers come from the third tier while the first two are dead; when the third's interval is over
/// and the first answers again, it is the first that is asked. Takes that minute.
#[tokio::test]
async fn a_first_tier_that_recovers_is_used_again() {
    let recovered = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let answers = recovered.clone();
    let first = UdpServer::start("127.0.0.1:0", move |request, _| {
        if answers.load(Ordering::SeqCst) {
            vec![Send::Own(good(request, "8.8.8.8:5"))]
        } else {
            vec![]
        }
    })
    .await;
    let slow = Server::start("127.0.0.1", |_| {
        Say::Endless(vec![], GOOD.to_vec(), Duration::from_secs(3600))
    })
    .await;
    // The shortest interval that is kept to.
    let third = Server::start("127.0.0.1", |_| {
        ok(b"d8:intervali60e5:peers6:\x08\x08\x08\x09\0\x05e")
    })
    .await;
    let config = AnnounceConfig {
        timeout: Duration::from_secs(5),
        ..config()
    };
    let handle = Announcer::start(&config, IDENTITY, Registry::new(0).control()).unwrap();
    let wanting = Finding::with_left(5);
    let tiers = tiers(&[url(&first), slow.url(), third.url()]);
    let begun = std::time::Instant::now();
    handle.add(HASH, &tiers, false, Arc::clone(&wanting) as _);
    let named = async |peer: &str| {
        let peer = peer.parse().unwrap();
        while !wanting.found.lock().unwrap().contains(&peer) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    named("8.8.8.9:5").await;
    println!("peers after {:?}, by the third tier", begun.elapsed());
    recovered.store(true, Ordering::SeqCst);
    named("8.8.8.8:5").await;
    println!("the first tier is used after {:?}", begun.elapsed());
    let status = handle.status(HASH).unwrap();
    assert_eq!(status.trackers[0].state, TrackerState::Working);
    assert!(slow.heads().len() <= 2, "{:?}", slow.heads());
}

#[tokio::test]
async fn a_stop_reaches_who_answers_and_does_not_wait_for_who_does_not() {
    let stopped = |request: &UdpRequest<'_>| {
        matches!(request, UdpRequest::Announce { announce, .. }
            if announce.event == AnnounceEvent::Stopped)
    };
    let dying = UdpServer::start("127.0.0.1:0", move |request, _| {
        let silent = stopped(request);
        if silent {
            vec![]
        } else {
            vec![Send::Own(good(request, "8.8.8.8:5"))]
        }
    })
    .await;
    let working = UdpServer::good("127.0.0.1:0", "8.8.8.8:5").await;
    let cells = Registry::new(0).control();
    let handle = Announcer::start(&config(), IDENTITY, cells.clone()).unwrap();
    for (number, server) in [&dying, &working].into_iter().enumerate() {
        let hash = InfoHashV1([number as u8; 20]);
        handle.add(
            hash,
            &tiers(&[url(server)]),
            false,
            Arc::new(TorrentTotals::default()),
        );
    }
    while cells.counter(ControlCounter::AnnouncesOk) < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Longer than a first announce is waited for, shorter than the request is tried.
    assert!(!handle.shutdown(Duration::from_secs(2)).await);
    for server in [&dying, &working] {
        let last = server
            .announces
            .lock()
            .unwrap()
            .last()
            .map(|(last, _)| last.event);
        assert_eq!(last, Some(AnnounceEvent::Stopped));
    }
}

/// What the process holds in memory, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    kib << 10
}

/// 20,000 torrents at one tracker over a real socket, at its cap: never more than that, each once, by
/// a connection id for as long as one may be used, and what it takes of memory has a bound. Prints
/// what it was. How long it takes is the machine's, so nothing is held to that but by what it allows.
#[tokio::test]
async fn a_storm_over_a_real_socket() {
    const TORRENTS: u32 = 20_000;
    const PER_SECOND: u32 = 1_000;
    let server = UdpServer::good("127.0.0.1:0", "8.8.8.8:5").await;
    let cells = Registry::new(0).control();
    let config = AnnounceConfig {
        per_second_per_host: PER_SECOND,
        ..config()
    };
    let handle = Announcer::start(&config, IDENTITY, cells.clone()).unwrap();
    let before = resident();
    let tiers = tiers(&[url(&server)]);
    let begun = std::time::Instant::now();
    for number in 0..TORRENTS {
        let mut hash = [0; 20];
        hash[..4].copy_from_slice(&number.to_be_bytes());
        let totals = Arc::new(TorrentTotals::default());
        assert!(handle.add(InfoHashV1(hash), &tiers, false, totals));
    }
    let added = begun.elapsed();
    let mut at_seconds = vec![0];
    loop {
        // Counted before the clock is read, so that a pause in between cannot make it too many.
        let done = cells.counter(ControlCounter::AnnouncesOk);
        let elapsed = begun.elapsed();
        let allowed = f64::from(PER_SECOND) * elapsed.as_secs_f64() + f64::from(HOST_BURST);
        assert!(done as f64 <= allowed, "{done} after {elapsed:?}");
        if elapsed.as_secs() as usize >= at_seconds.len() {
            at_seconds.push(done);
        }
        if done >= TORRENTS.into() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let took = begun.elapsed();
    let more = resident().saturating_sub(before);
    let per_second: Vec<u64> = at_seconds.windows(2).map(|two| two[1] - two[0]).collect();
    println!(
        "{TORRENTS} torrents at {PER_SECOND}/s: planned {} s, took {took:.1?}, of which \
         {added:.1?} to add them; {:.1} MiB more; in each second {per_second:?}",
        TORRENTS / PER_SECOND,
        more as f64 / f64::from(1 << 20),
    );
    // What the server itself remembers of 20,000 announces is in it too.
    assert!(more < 50 << 20, "{more} bytes");
    assert!(took >= Duration::from_secs((TORRENTS / PER_SECOND - 1).into()));
    let announces = server.announces.lock().unwrap();
    let distinct: std::collections::HashSet<InfoHashV1> = announces
        .iter()
        .map(|(announce, _)| announce.info_hash)
        .collect();
    // A datagram that is not answered for long is sent again: that is no second announce.
    assert_eq!(distinct.len(), TORRENTS as usize);
    assert_eq!(
        cells.counter(ControlCounter::AnnouncesOk),
        u64::from(TORRENTS)
    );
    // So is a request for a connection id, and an id is used for a minute.
    let connects = server.count().0 as u64;
    let most = 1 + took.as_secs() / REPEAT_AFTER.as_secs();
    assert!((1..=most).contains(&connects), "{connects} of {most}");
}

#[tokio::test]
async fn scrapes_fill_in_the_counts() {
    let udp = UdpServer::good("127.0.0.1:0", "8.8.8.8:5").await;
    let http = Server::start("127.0.0.1", |head| {
        if head.starts_with("GET /scrape?") {
            let hash = [0xab; 20];
            let file = b"d8:completei9e10:downloadedi7e10:incompletei8eeee";
            return ok(&[b"d5:filesd20:", &hash[..], file].concat());
        }
        ok(GOOD)
    })
    .await;
    for tracker in [url(&udp), http.url()] {
        let cells = Registry::new(0).control();
        let config = AnnounceConfig {
            scrape_interval: Some(Duration::from_millis(100)),
            ..config()
        };
        let handle = Announcer::start(&config, IDENTITY, cells.clone()).unwrap();
        handle.add(
            HASH,
            &[vec![tracker]],
            false,
            Arc::new(TorrentTotals::default()),
        );
        while cells.counter(ControlCounter::ScrapesOk) < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let status = handle.status(HASH).unwrap().trackers[0].clone();
        assert_eq!((status.leechers, status.downloaded), (Some(8), Some(7)));
    }
    let asked = http
        .heads()
        .into_iter()
        .find(|head| head.starts_with("GET /scrape?"));
    let escaped = "%AB".repeat(20);
    let due = format!("GET /scrape?passkey=0123456789abcdef&info_hash={escaped} ");
    assert!(
        asked.as_ref().is_some_and(|head| head.starts_with(&due)),
        "{asked:?}"
    );
}
