//! Rate limits and limits of peers, set before and while data flow. Of times only the least is
//! asserted: how long it takes where nothing exceeds the limit.

use super::*;
use crate::own_limits::TorrentLimits;
use engine::rate::RateLimit;
use std::time::Instant;

/// What a test's content flows at, in bytes per second.
const RATE: u64 = 1 << 20;

/// So little that nothing comes while a test lasts.
const NEXT_TO_NOTHING: Option<u64> = Some(1);

fn content() -> Content {
    Content::new(&[("a", 32 * PIECE)], PIECE)
}

/// How long `bytes` take at least that flow at [`RATE`] after a burst.
fn least(bytes: usize) -> Duration {
    let burst = RateLimit::new(RATE).burst_bytes();
    let bytes = bytes as u64 - burst;
    Duration::from_millis(bytes * 1_000 / RATE)
}

/// Fetches `content` to `server` from `from`, whole.
fn fetch_all(server: &Server, content: &Content, from: &[SocketAddr]) {
    let folder = TempDir::new().unwrap();
    let (fetch, mut events) = server.fetch(FetchSpec::new(content.metainfo.clone(), folder.path()));
    fetch.add_peers(from);
    server.wait(&mut events, is_complete);
    content.assert_is_in(folder.path());
    assert_eq!(fetch.progress().hash_failures, 0);
}

#[test]
fn a_download_takes_no_more_than_the_servers_limit() {
    let content = content();
    let seeds = [seed(&content, 0), seed(&content, 1)];
    let mut config = config(2);
    config.rates.download = RATE;
    let server = server(config);
    let begun = Instant::now();
    fetch_all(&server, &content, &seeds.each_ref().map(Server::address));
    assert!(begun.elapsed() >= least(content.bytes.len()));
    seeds.into_iter().for_each(Server::stop);
    server.stop();
}

#[test]
fn two_downloads_share_the_servers_limit() {
    let contents = [content(), Content::new(&[("b", 20 * PIECE)], PIECE)];
    let seeds = [seed(&contents[0], 0), seed(&contents[1], 1)];
    let mut config = config(2);
    config.shards = 2;
    let server = server(config);
    // Set while it runs.
    server.plane.set_rates(0, RATE);
    let begun = Instant::now();
    let folders = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let mut fetches: Vec<_> = (0..2)
        .map(|index| {
            let metainfo = contents[index].metainfo.clone();
            let begun = server.fetch(FetchSpec::new(metainfo, folders[index].path()));
            begun.0.add_peers(&[seeds[index].address()]);
            begun
        })
        .collect();
    for (_, events) in &mut fetches {
        server.wait(events, is_complete);
    }
    let bytes = contents.iter().map(|content| content.bytes.len());
    assert!(begun.elapsed() >= least(bytes.sum()));
    seeds.into_iter().for_each(Server::stop);
    server.stop();
}

#[test]
fn a_torrents_own_download_limit_holds_until_it_is_taken_away() {
    let content = content();
    let (seed, server) = (seed(&content, 0), server(config(1)));
    let folder = TempDir::new().unwrap();
    let (fetch, mut events) = server.fetch(FetchSpec::new(content.metainfo.clone(), folder.path()));
    let mut limits = TorrentLimits {
        download_rate: NEXT_TO_NOTHING,
        ..TorrentLimits::default()
    };
    server.plane.set_torrent_limits(fetch.torrent(), limits);
    fetch.add_peers(&[seed.address()]);
    server.until(&fetch, |progress| progress.seeds == 1);
    // It would all come in this time.
    thread::sleep(Duration::from_millis(300));
    assert_eq!(fetch.progress().downloaded, 0);
    limits.download_rate = None;
    server.plane.set_torrent_limits(fetch.torrent(), limits);
    server.wait(&mut events, is_complete);
    content.assert_is_in(folder.path());
    seed.stop();
    server.stop();
}

#[test]
fn a_download_that_waits_for_its_limit_stops_at_once() {
    let content = content();
    let (seed, server) = (seed(&content, 0), server(config(1)));
    let folder = TempDir::new().unwrap();
    let (fetch, _events) = server.fetch(FetchSpec::new(content.metainfo.clone(), folder.path()));
    server.plane.set_rates(0, 1);
    fetch.add_peers(&[seed.address()]);
    server.until(&fetch, |progress| progress.seeds == 1);
    // A block takes more than four hours.
    assert!(server.runtime.block_on(fetch.stop(PATIENCE)));
    seed.stop();
    server.stop();
}

#[test]
fn uploads_follow_limits_that_change_while_they_flow() {
    let content = content();
    let (seed, server) = (server(config(0)), server(config(1)));
    let torrent = content.seeded();
    let own = TorrentLimits {
        upload_rate: NEXT_TO_NOTHING,
        ..TorrentLimits::default()
    };
    seed.plane.set_torrent_limits(&torrent, own);
    seed.runtime.block_on(seed.plane.add(&torrent));
    let folder = TempDir::new().unwrap();
    let (fetch, mut events) = server.fetch(FetchSpec::new(content.metainfo.clone(), folder.path()));
    fetch.add_peers(&[seed.address()]);
    let burst = RateLimit::new(1).burst_bytes();
    server.until(&fetch, |progress| progress.downloaded > 0);
    thread::sleep(Duration::from_millis(300));
    assert!(torrent.uploaded_bytes() <= burst);
    // The server's limit in the place of the torrent's.
    seed.plane.set_rates(RATE, 0);
    let begun = Instant::now();
    let before = torrent.uploaded_bytes() as usize;
    seed.plane
        .set_torrent_limits(&torrent, TorrentLimits::default());
    server.wait(&mut events, is_complete);
    assert!(begun.elapsed() >= least(content.bytes.len() - before));
    content.assert_is_in(folder.path());
    seed.stop();
    server.stop();
}

/// Those that are called count, too.
#[test]
fn a_torrent_has_no_more_peers_than_its_own_limit() {
    let content = content();
    let server = server(config(9));
    let folder = TempDir::new().unwrap();
    let (fetch, _events) = server.fetch(FetchSpec::new(content.metainfo.clone(), folder.path()));
    let silent = |id| {
        let script = Script {
            blocks_max: 0,
            ..Script::all(&content, id)
        };
        scripted(&content, script)
    };
    let peers: Vec<_> = (0..4).map(silent).collect();
    fetch.add_peers(&peers);
    server.until(&fetch, |progress| progress.peers == 4);
    let mut limits = TorrentLimits {
        peers_max: Some(2),
        ..TorrentLimits::default()
    };
    server.plane.set_torrent_limits(fetch.torrent(), limits);
    server.until(&fetch, |progress| progress.peers == 2);
    fetch.add_peers(&[silent(5)]);
    thread::sleep(Duration::from_millis(300));
    assert_eq!(fetch.progress().peers, 2);
    assert_eq!(fetch.torrent().peers().0, 2);
    limits.peers_max = None;
    server.plane.set_torrent_limits(fetch.torrent(), limits);
    server.until(&fetch, |progress| progress.peers >= 3);
    server.stop();
}

#[test]
fn the_peers_of_a_download_are_seen_as_they_are() {
    let content = content();
    let server = server(config(1));
    let folder = TempDir::new().unwrap();
    let (fetch, _events) = server.fetch(FetchSpec::new(content.metainfo.clone(), folder.path()));
    let half = Script {
        has: (0..32).map(|piece| piece < 16).collect(),
        blocks_max: 3,
        ..Script::all(&content, 0)
    };
    let address = scripted(&content, half);
    fetch.found(&[address], PeerSource::Tracker);
    server.until(&fetch, |progress| progress.downloaded == 3 * (16 << 10));
    let info_hash = fetch.torrent().info_hash();
    let peers = || server.runtime.block_on(server.plane.peers(info_hash));
    let end = Instant::now() + PATIENCE;
    while peers().first().is_none_or(|peer| peer.download_rate == 0) {
        assert!(Instant::now() < end, "{:?}", peers());
        thread::sleep(Duration::from_millis(5));
    }
    let seen = peers();
    assert_eq!(seen.len(), 1);
    let peer = &seen[0];
    assert_eq!((peer.address, peer.source), (address, PeerSource::Tracker));
    assert_eq!(peer.client, "unknown (AAAAAAAA)");
    assert_eq!((peer.has_permille, peer.downloaded), (500, 3 * (16 << 10)));
    assert!(peer.am_interested && !peer.peer_choking && !peer.is_incoming);
    assert!(peer.am_choking && !peer.peer_interested);
    assert_eq!((peer.uploaded, peer.upload_rate), (0, 0));
    let torrent = fetch.torrent();
    let (named, connected) = (torrent.named_by_source(), torrent.peers_by_source());
    assert_eq!(named.get(PeerSource::Tracker), 1);
    assert_eq!(connected.get(PeerSource::Tracker), 1);
    assert_eq!(connected.get(PeerSource::Given), 0);
    server.stop();
}
