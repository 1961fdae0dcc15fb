//! Downloads and dormant torrents.

use super::*;
use crate::plane::NotRetired;

#[test]
fn what_was_downloaded_falls_asleep_when_that_has_ended_and_wakes_for_the_next_who_comes() {
    let content = Content::new(&[("a", 6 * PIECE + 5)], PIECE);
    let seed = seed(&content, 0);
    let (mut first, second) = (server(config(1)), server(config(2)));
    let folders = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let spec = |number: usize| FetchSpec::new(content.metainfo.clone(), folders[number].path());
    let info_hash = content.metainfo.info_hash_v1.unwrap();
    let (fetch, mut events) = first.fetch(spec(0));
    let retire = |server: &Server| server.runtime.block_on(server.plane.retire(info_hash));
    assert_eq!(retire(&first), Err(NotRetired::Unknown));
    fetch.add_peers(&[seed.address()]);
    first.wait(&mut events, is_complete);
    seed.stop();
    let until = std::time::Instant::now() + PATIENCE;
    while let Err(error) = retire(&first) {
        assert_eq!(error, NotRetired::Busy);
        assert!(std::time::Instant::now() < until);
        thread::sleep(Duration::from_millis(5));
    }
    // It is complete, dormant or not.
    let again = first.runtime.block_on(first.plane.fetch(spec(0)));
    assert!(matches!(again, Err(FetchError::Present(hash)) if hash == info_hash));
    let (fetch, mut events) = second.fetch(spec(1));
    fetch.add_peers(&[first.address()]);
    let event = async { tokio::time::timeout(PATIENCE, first.events.recv()).await };
    let Some(Event::Wanted(wanted)) = first.runtime.block_on(event).unwrap() else {
        panic!("something else has happened");
    };
    assert_eq!(wanted.info_hash(), info_hash);
    first.runtime.block_on(first.plane.add(&content.seeded()));
    assert!(wanted.is_answered());
    second.wait(&mut events, is_complete);
    content.assert_is_in(folders[1].path());
    first.stop();
    second.stop();
}
