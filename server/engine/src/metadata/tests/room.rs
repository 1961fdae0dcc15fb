//! Links that share the room in memory.

use super::*;

/// So long that two do not fit at a time.
const LONG_BYTES: u32 = 33 << 20;

fn sharing(room: &Arc<MetadataRoom>) -> MetadataExchange {
    MetadataExchange::new(MetadataConfig::default(), Arc::clone(room))
}

/// What is in memory of a link's metadata.
fn held_bytes(exchange: &MetadataExchange) -> usize {
    let bytes =
        |here: &BTreeMap<u32, Block>| here.values().map(|block| block.bytes.len()).sum::<usize>();
    let aside = exchange.aside.values().map(|aside| bytes(&aside.here));
    let now = match &exchange.stage {
        Stage::Assembling(assembly) => bytes(&assembly.here),
        Stage::Checking { kept, info, .. } => bytes(&kept.here) + info.as_ref().map_or(0, Vec::len),
        Stage::Idle | Stage::Done => 0,
    };
    aside.sum::<usize>() + now
}

#[test]
fn what_finds_no_room_waits_and_what_is_short_goes_on() {
    let room = Arc::default();
    let (mut first, mut second) = (sharing(&room), sharing(&room));
    join(&mut first, 1, LONG_BYTES);
    assert_eq!(requests(&mut first, 0), [(1, 0)]);
    join(&mut second, 1, LONG_BYTES);
    assert_eq!(requests(&mut second, 0), []);
    assert!(second.is_waiting(PeerKey(1), at_ms(60_000)), "it may stay");
    let short = metadata(2 * BLOCK);
    join(&mut second, 2, short.len() as u32);
    assert_eq!(requests(&mut second, 1), [(2, 0)]);
    answer(&mut second, 2, 0, &short, 2);
    drop(first);
    // At once, and what is short is not lost.
    assert_eq!(requests(&mut second, 3), [(1, 0)]);
    second.peer_left(PeerKey(1));
    assert_eq!(requests(&mut second, 4), [(2, 1)]);
    answer(&mut second, 2, 1, &short, 5);
    assert_eq!(second.take_info(), Some(short));
    second.checked(true);
    let place = second.take_place();
    assert!(place.is_some());
    drop(second);
    assert_eq!(room.taken_bytes(), 4 * BLOCK as usize, "it is here still");
    drop(place);
    assert_eq!(room.taken_bytes(), 0);
}

#[test]
fn who_waits_in_line_is_not_overtaken_and_leaves_it_with_its_peers() {
    let room = Arc::default();
    let mut links: Vec<_> = (0..3).map(|_| sharing(&room)).collect();
    let long = 24 << 20;
    for (link, length) in links.iter_mut().zip([long, 2 * long, long]) {
        join(link, 1, length);
    }
    assert_eq!(requests(&mut links[0], 0), [(1, 0)]);
    assert_eq!(requests(&mut links[1], 0), []);
    assert_eq!(requests(&mut links[2], 0), [], "it would fit");
    links[1].peer_left(PeerKey(1));
    assert_eq!(requests(&mut links[1], 1), []);
    assert_eq!(requests(&mut links[2], 1), [(1, 0)]);
}

#[test]
fn who_trickles_makes_room_for_another_link_and_has_its_turn_again() {
    let room = Arc::default();
    let (mut slow, mut quick) = (sharing(&room), sharing(&room));
    let good = metadata(LONG_BYTES);
    join(&mut slow, 1, LONG_BYTES);
    join(&mut quick, 1, LONG_BYTES);
    let mut asked = Vec::new();
    let mut done_at = None;
    for now in (0..3_600_000).step_by(100) {
        for (peer, block) in requests(&mut slow, now) {
            asked.push((now + 7_900, peer, block));
        }
        while let Some(place) = asked.iter().position(|&(due, ..)| due <= now) {
            let (_, peer, block) = asked.swap_remove(place);
            answer(&mut slow, peer, block, &good, now);
        }
        if done_at.is_some() {
            continue;
        }
        for (peer, block) in requests(&mut quick, now) {
            answer(&mut quick, peer, block, &good, now);
        }
        if quick.take_info().is_some() {
            quick.checked(true);
            drop(quick.take_place());
            done_at = Some((now, slow.progress().0));
        }
    }
    // Half a minute, what 33 MiB take at 64 KiB a second, and what the quick one takes.
    let (done_at, progress) = done_at.expect("in an hour");
    assert!((558_000..800_000).contains(&done_at), "{done_at}");
    assert_eq!(progress, 0, "it gave way");
    assert!(slow.progress().0 > 100 * u64::from(BLOCK), "it goes on");
}

#[test]
fn who_is_alone_keeps_its_room() {
    let mut exchange = exchange();
    let good = metadata(2 * BLOCK);
    join(&mut exchange, 1, good.len() as u32);
    assert_eq!(requests(&mut exchange, 0), [(1, 0), (1, 1)]);
    answer(&mut exchange, 1, 0, &good, 1);
    assert_eq!(requests(&mut exchange, 3_600_000), []);
    assert_eq!(exchange.progress().0, u64::from(BLOCK));
}

#[test]
fn what_is_put_aside_by_all_links_is_bounded() {
    let room = Arc::default();
    let good = metadata(1 << 20);
    let mut links = Vec::new();
    for _ in 0..24 {
        let mut link = sharing(&room);
        join(&mut link, 1, good.len() as u32);
        for block in 0..60 {
            assert_eq!(requests(&mut link, 0), [(1, block)]);
            answer(&mut link, 1, block, &good, 0);
        }
        join(&mut link, 2, 1);
        // The peer of the other length has its turn.
        link.peer_left(PeerKey(1));
        assert_eq!(requests(&mut link, 1), [(2, 0)]);
        links.push(link);
    }
    let held: usize = links.iter().map(held_bytes).sum();
    assert!((15 << 20..=16 << 20).contains(&held), "{held}");
    drop(links);
    assert_eq!(room.taken_bytes(), 0);
}

#[derive(Clone, Debug)]
enum Step {
    Join(usize, u64, u32),
    Leave(usize, u64),
    Answer(usize, bool),
    End(usize),
    Wait(u64),
}

fn step(links: usize) -> impl Strategy<Value = Step> {
    let length = prop_oneof![1..4_u32, 1..64_u32, Just(64), Just(65), Just(4_096)];
    prop_oneof![
        3 => (0..links, 1..4_u64, length).prop_map(|(link, peer, blocks)| {
            Step::Join(link, peer, blocks * BLOCK)
        }),
        1 => (0..links, 1..4_u64).prop_map(|(link, peer)| Step::Leave(link, peer)),
        6 => (0..links, any::<bool>()).prop_map(|(link, right)| Step::Answer(link, right)),
        1 => (0..links).prop_map(Step::End),
        2 => (1..2_000_000_u64).prop_map(Step::Wait),
    ]
}

proptest! {
    #[test]
    fn links_hold_no_more_than_they_have_room_for(
        steps in prop::collection::vec(step(5), 0..200),
    ) {
        let room = Arc::default();
        let mut links: Vec<_> = (0..5).map(|_| sharing(&room)).collect();
        let (mut now, mut next_key) = (0, 10);
        let mut keys = BTreeMap::new();
        let mut asked = vec![VecDeque::new(); links.len()];
        for step in steps {
            match step {
                Step::Join(link, peer, bytes) => {
                    // A key is used once.
                    next_key += 1;
                    keys.insert((link, peer), next_key);
                    let _ = links[link].peer_joined(PeerKey(next_key), stranger(peer), bytes);
                }
                Step::Leave(link, peer) => {
                    if let Some(key) = keys.remove(&(link, peer)) {
                        links[link].peer_left(PeerKey(key));
                    }
                }
                Step::Answer(link, is_right) => {
                    let Some((peer, block)) = asked[link].pop_front() else { continue };
                    let Some(source) = links[link].peers.get(&peer) else { continue };
                    let total_bytes = source.total_bytes;
                    let bytes = metadata_block_bytes(total_bytes, block).unwrap_or_default();
                    let block = MetadataMessage::Data {
                        piece: block,
                        total_bytes,
                        block: &vec![0; bytes as usize],
                    };
                    links[link].handle_message(peer, &block, at_ms(now));
                    if matches!(links[link].stage, Stage::Checking { .. }) {
                        links[link].take_info();
                        links[link].checked(is_right);
                        if is_right {
                            links[link].take_place();
                        }
                    }
                }
                Step::End(link) => {
                    links[link] = sharing(&room);
                    asked[link].clear();
                    keys.retain(|&(of, _), _| of != link);
                }
                Step::Wait(ms) => now += ms,
            }
            for (link, asked) in links.iter_mut().zip(&mut asked) {
                link.refill(at_ms(now));
                link.check_invariants();
                while let Some(action) = link.take_action() {
                    if let Action::Request { peer, block } = action {
                        asked.push_back((peer, block));
                    }
                }
            }
            let held: usize = links.iter().map(held_bytes).sum();
            prop_assert!(held <= room.taken_bytes());
            prop_assert!(room.taken_bytes() <= MEMORY_BYTES_MAX);
        }
        drop(links);
        prop_assert_eq!(room.taken_bytes(), 0);
    }
}
