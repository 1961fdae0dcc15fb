//! Torrents that go out of service and come back.

use super::*;
use crate::budget::Budget;
use crate::{control_plane, keeping};
use control::config::Config;
use seedring_io::torrent::FaultCause;
use seedring_metrics::Registry;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use torrents::Manager;

/// A server without a tracker or any other way to be found, and without a manager, whom nothing
/// here waits for then.
fn services(folder: &Path) -> Services {
    let mut config = Config::default();
    config.shards.count = 1;
    config.peers.port = 0;
    config.peers.bind_v4 = Some(Ipv4Addr::LOCALHOST);
    config.peers.bind_v6 = None;
    let registry = Registry::new(1);
    let budget = Budget::plan(&config, 1, 1 << 16);
    let peer_id = PeerId(*b"-SR0100-testtesttest");
    let started =
        control_plane::start_plane(&config, &budget, peer_id, &registry, Default::default());
    let (plane, _) = started.unwrap();
    let plane = Arc::new(plane);
    let store = keeping::open(folder, false).unwrap();
    let settings = keeping::settings(&config, false, folder).unwrap();
    let managed = torrents::Services {
        plane: Arc::clone(&plane),
        tracker: None,
        own_tracker: None,
        announcer: None,
        lsd: None,
        dht: None,
        disk: BACKGROUND,
        cells: registry.control(),
        hooks: None,
        peer_id,
        peer_port: 0,
    };
    let ends = control::command::pair();
    let (_, kept) = Manager::new(settings, managed, ends, store.handle());
    Services {
        plane,
        tracker: None,
        own_tracker: None,
        announcer: None,
        lsd: None,
        dht: None,
        kept,
        state: Arc::new(State::open(&folder.join("state")).unwrap()),
        cells: registry.control(),
        peer_id,
        peer_port: 0,
    }
}

/// The same torrent, whose data are in `folder`.
fn ready(services: &Services, folder: &Path) -> Ready {
    fs::create_dir_all(folder).unwrap();
    let data = folder.join("data");
    fs::write(&data, "x".repeat(50_000)).unwrap();
    let library = Library {
        state: &services.state,
        always_hash: true,
        cells: &services.cells,
        disk: BACKGROUND,
    };
    let made = library.of_path(&data, &Default::default(), &mut |_| {
        ControlFlow::Continue(())
    });
    made.unwrap()
}

/// A hash of hours ends when its torrent has long been served from another folder, and is out of
/// service there: it says nothing of that folder.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_look_at_another_folder_brings_nothing_back() {
    let folder = tempfile::tempdir().unwrap();
    let services = services(folder.path());
    let folders = ["one", "other"].map(|name| folder.path().join(name));
    let [one, other] = folders.map(|folder| ready(&services, &folder));
    let info_hash = one.info_hash;
    assert_eq!(other.info_hash, info_hash);
    let plane = Arc::clone(&services.plane);
    let (mut torrents, _looks) = Torrents::new(services);
    let fault = || Fault {
        info_hash,
        file: "data".into(),
        cause: FaultCause::Missing,
    };
    let right = |torrents: &Torrents, ready: &Ready| Look {
        number: torrents.entries[&info_hash].look,
        ready: ready.clone(),
        outcome: LookOutcome::Right,
    };
    assert!(torrents.add(one.clone(), "x.torrent".into()).await.unwrap());
    assert!(torrents.fault(fault()).await);
    let late = right(&torrents, &one);
    torrents.remove(info_hash).await;
    assert!(
        torrents
            .add(other.clone(), "x.torrent".into())
            .await
            .unwrap()
    );
    assert!(torrents.fault(fault()).await);
    assert!(!torrents.looked(late).await, "served from the old folder");
    assert_eq!(torrents.counts.faulty, 1);
    // The look at the new one counts, once.
    assert!(torrents.looked(right(&torrents, &other)).await);
    assert_eq!(torrents.entries[&info_hash].ready.data_dir, other.data_dir);
    assert!(!torrents.looked(right(&torrents, &other)).await);
    assert!(plane.stop(Duration::from_secs(60)).await);
}
