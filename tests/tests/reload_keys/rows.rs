//! The tables: of each live key two values, and what shows that a server goes by the second.

use crate::scene::{REMOTE, Scene, vouch};
use crate::{LIMIT, PLAIN, Row};
use seedring_tests::peer::{Peer, id};
use seedring_tests::process::run_ok;
use seedring_tests::server::SHORT;
use seedring_tests::tracker::Behaviour;
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

/// A torrent of which nothing much is to be seen.
fn small(scene: &mut Scene) {
    scene.add("small", 100_000);
}

pub const PEERS: &[Row] = &[
    Row {
        key: "peers.connections_per_address_max",
        before: "1",
        after: "2",
        prepare: |scene| {
            let torrent = scene.add("small", 100_000);
            scene.peer(&torrent, Ipv4Addr::LOCALHOST);
        },
        holds: |scene| scene.lets_in(Ipv4Addr::LOCALHOST),
        ..PLAIN
    },
    Row {
        key: "peers.handshakes_max",
        before: "1",
        after: "2",
        with: "peers.handshake_timeout_s = 120\n",
        prepare: |scene| {
            scene.add("small", 100_000);
            let silent = TcpStream::connect(scene.server.peers()).unwrap();
            scene.silent.push(silent);
            let pending = || scene.metric("seedring_handshakes_pending") == 1.0;
            scene.server.until("a silent connection", pending);
        },
        holds: |scene| scene.lets_in(Ipv4Addr::LOCALHOST),
        ..PLAIN
    },
    Row {
        key: "peers.ip_filter",
        before: "[\"@/list\"]",
        after: "[]",
        files: |folder| std::fs::write(folder.join("list"), "127.0.0.9\n").unwrap(),
        prepare: small,
        holds: |scene| scene.lets_in(Ipv4Addr::new(127, 0, 0, 9)),
        ..PLAIN
    },
    Row {
        key: "log.level",
        before: "\"warn\"",
        after: "\"debug\"",
        holds: |scene| {
            let rate = format!("{}MB/s", scene.next());
            scene.server.ok(["limit", "--whole-server", "--up", &rate]);
            let told = "limits of the server, in bytes per second";
            scene.server.process.stderr().contains(told)
        },
        ..PLAIN
    },
];

/// A row of a limit under which next to nothing is sent.
const fn thirsty(key: &'static str, before: &'static str, after: &'static str) -> Row {
    Row {
        key,
        before,
        after,
        prepare: |scene| scene.thirst(Ipv4Addr::LOCALHOST),
        holds: Scene::is_quenched,
        ..PLAIN
    }
}

pub const UPLOADS: &[Row] = &[
    thirsty("limits.upload_rate", "1", "0"),
    thirsty("limits.torrent_upload_rate", "1", "0"),
    thirsty("limits.local_upload_rate", "1", "0"),
    thirsty("limits.labels", "[\"some: upload=1\"]", "[]"),
    thirsty("limits.categories", "[\"some: upload=1\"]", "[]"),
    thirsty("limits.schedule", "[\"daily 00:00-24:00 upload=1\"]", "[]"),
];

pub const OTHER_NETWORKS: &[Row] = &[
    Row {
        prepare: |scene| scene.thirst(REMOTE),
        ..thirsty("limits.remote_upload_rate", "1", "0")
    },
    Row {
        key: "tracker.zones",
        before: "[]",
        after: "[\"10.1.0.0/16=rack-1\", \"10.2.0.0/16=rack-2\"]",
        with: "tracker.enabled = true\ntracker.open = true\ntracker.listen_v4 = \"0.0.0.0:0\"\n\
               tracker.listen_v6 = \"\"\ntracker.announce_host = \"10.9.9.9\"\n",
        holds: |scene| scene.tells_of_own_zone_first(),
        ..PLAIN
    },
];

pub const SLOTS: &[Row] = &[
    Row {
        key: "limits.upload_slots",
        before: "1",
        after: "0",
        with: "shards.count = 1\n",
        prepare: |scene| {
            let torrent = scene.add("small", 100_000);
            scene.peer(&torrent, Ipv4Addr::LOCALHOST);
            for _ in 0..2 {
                let address = scene.server.peers();
                let mut peer = Peer::connect(address, &torrent.info_hash).unwrap();
                peer.send(id::INTERESTED, &[]).unwrap();
                scene.peers.push(peer);
            }
            let all = || scene.metric("seedring_peers_interested") == 3.0;
            scene.server.until("interested peers", all);
        },
        holds: |scene| scene.metric("seedring_peers_unchoked") == 3.0,
        ..PLAIN
    },
    // The two that are fastest keep their slots for as long as they take data, unless those come
    // first who have nothing.
    Row {
        key: "limits.choker",
        before: "\"fastest-upload\"",
        after: "\"anti-leech\"",
        with: "shards.count = 1\nlimits.upload_slots = 3\nlimits.optimistic_slots = 1\n",
        prepare: Scene::crowd,
        holds: |scene| scene.is_choked(),
        ..PLAIN
    },
    // Or unless more of the slots are given by chance.
    Row {
        key: "limits.optimistic_slots",
        before: "1",
        after: "2",
        with: "shards.count = 1\nlimits.upload_slots = 3\npeers.idle_timeout_s = 3600\n",
        prepare: Scene::crowd,
        holds: |scene| scene.is_choked(),
        ..PLAIN
    },
];

/// A row of a limit under which a download does not end.
const fn slow(key: &'static str) -> Row {
    Row {
        key,
        before: "1",
        after: "0",
        prepare: |scene| {
            scene.offer();
            scene.download();
        },
        holds: |scene| scene.is_downloaded(1),
        ..PLAIN
    }
}

pub const FETCHING: &[Row] = &[
    slow("limits.download_rate"),
    slow("limits.torrent_download_rate"),
    Row {
        key: "fetch.allocation",
        before: "\"sparse\"",
        after: "\"full\"",
        with: "limits.torrent_download_rate = 1\n",
        prepare: Scene::offer,
        holds: Scene::takes_all_space,
        ..PLAIN
    },
    Row {
        key: "fetch.past_cache",
        before: "\"never\"",
        after: "\"always\"",
        prepare: Scene::offer,
        holds: Scene::writes_past_the_cache,
        ..PLAIN
    },
];

pub const API: &[Row] = &[
    Row {
        key: "api.allowed_hosts",
        before: "[]",
        after: "[\"seed.example\"]",
        with: "api.auth = \"off\"\n",
        holds: |scene| scene.asked("Host: seed.example\r\n") == 200,
        ..PLAIN
    },
    Row {
        key: "api.auth",
        before: "\"required\"",
        after: "\"off\"",
        holds: |scene| scene.asked("Host: localhost\r\n") == 200,
        ..PLAIN
    },
    // The password is "secret".
    Row {
        key: "api.users",
        before: "[]",
        after: "[\"operator:$argon2id$v=19$m=19456,t=2,p=1$4zZEkUXJkqoHhMPDE9ma6Q$\
                /nopV4SO0g+YFRV+2VB9cRW3DW3dbWuXVqbGHfnls0M\"]",
        holds: |scene| {
            let basic = "Authorization: Basic b3BlcmF0b3I6c2VjcmV0\r\n";
            scene.asked(&format!("Host: localhost\r\n{basic}")) == 200
        },
        ..PLAIN
    },
    Row {
        key: "api.tls_cert",
        before: "\"@/first.pem\"",
        after: "\"@/second.pem\"",
        with: "api.tls_key = \"@/first.key\"\n",
        files: |folder| {
            vouch(folder, "first");
            recertify(folder, "first.key", "second.pem");
        },
        holds: |scene| scene.shows("second.pem"),
        ..PLAIN
    },
    // A certificate is of one key, so that it is another in the same file then.
    Row {
        key: "api.tls_key",
        before: "\"@/first.key\"",
        after: "\"@/second.key\"",
        with: "api.tls_cert = \"@/first.pem\"\n",
        files: |folder| {
            vouch(folder, "first");
            vouch(folder, "second");
        },
        prepare: |scene| {
            let path = |name: &str| scene.server.path(name);
            std::fs::copy(path("second.pem"), path("first.pem")).unwrap();
        },
        holds: |scene| scene.shows("second.pem"),
    },
];

/// Another certificate of the same key.
fn recertify(folder: &Path, key: &str, file: &str) {
    let mut command = std::process::Command::new("openssl");
    let arguments = format!("req -x509 -new -key {key} -days 3 -subj /CN=again -out {file}");
    command.args(arguments.split(' ')).current_dir(folder);
    run_ok("openssl", &command, SHORT);
}

/// Links that are announced.
const LINKS: usize = 300;

pub const ANNOUNCING: &[Row] = &[
    // One a second would take as many seconds.
    Row {
        key: "announce.rate_per_host",
        before: "1",
        after: "10000",
        with: "announce.allow_private_trackers = true\nlibrary.downloads_max = 0\n",
        prepare: |scene| {
            let url = scene.track(Behaviour::Answers);
            let link = |number| format!("magnet:?xt=urn:btih:{number:040x}");
            let links: Vec<String> = (1..=LINKS).map(link).collect();
            let links: Vec<&str> = links.iter().map(String::as_str).collect();
            let tracker = ["--tracker", &url];
            scene.server.ok([&["add"][..], &links, &tracker].concat());
        },
        holds: |scene| {
            let told = scene.tracker.as_ref().unwrap().announces();
            let started = told.iter().filter(|told| told.contains("event=started"));
            started.count() >= LINKS
        },
        ..PLAIN
    },
    Row {
        key: "announce.requests_max",
        before: "1",
        after: "64",
        with: "announce.allow_private_trackers = true\n",
        prepare: |scene| {
            let url = scene.track(Behaviour::Silent);
            for _ in 0..3 {
                scene.add_link(&["--tracker", &url]);
            }
        },
        holds: |scene| scene.metric("seedring_announces_in_flight") > 1.0,
        ..PLAIN
    },
    // Who does not answer that we leave is waited for so long; a server ends by it, so that it is
    // looked at once.
    Row {
        key: "announce.stop_timeout_s",
        before: "1",
        after: "9",
        with: "announce.allow_private_trackers = true\n",
        prepare: |scene| {
            let url = scene.track(Behaviour::SilentToStops);
            scene.add_link(&["--tracker", &url]);
            let tracker = scene.tracker.as_ref().unwrap();
            tracker.wait_for("event=started", LIMIT);
        },
        holds: |scene| {
            if scene.next() == 2 {
                return false;
            }
            let begin = Instant::now();
            scene.server.stop();
            let waited = begin.elapsed() > Duration::from_secs(7);
            assert!(waited, "announce.stop_timeout_s is not taken");
            waited
        },
        ..PLAIN
    },
];

/// Two complete torrents that somebody has come for.
fn awake(scene: &mut Scene) {
    for name in ["one", "two"] {
        let torrent = scene.add(name, 100_000);
        scene.peer(&torrent, Ipv4Addr::LOCALHOST);
    }
    scene.peers.clear();
    let are_awake = || scene.metric(AWAKE) == 2.0;
    scene.server.until("torrents awake", are_awake);
}

const AWAKE: &str = "seedring_torrents_served{state=\"awake\"}";

/// The hash of the second link that a scene adds.
fn second_link() -> String {
    format!("{:040x}", 2)
}

pub const LIBRARY: &[Row] = &[
    Row {
        key: "library.save_path",
        before: "\"@/in\"",
        after: "\"@/out\"",
        holds: |scene| scene.save_path_of_new(&[]) == scene.server.path("out"),
        ..PLAIN
    },
    Row {
        key: "library.category_paths",
        before: "[]",
        after: "[\"some: @/out\"]",
        holds: |scene| {
            let path = scene.save_path_of_new(&["--category", "some"]);
            path == scene.server.path("out")
        },
        ..PLAIN
    },
    Row {
        key: "library.roots",
        before: "[\"@/in\"]",
        after: "[\"@/in\", \"@/out\"]",
        with: "library.save_path = \"@/in\"\n",
        holds: |scene| {
            let link = format!("magnet:?xt=urn:btih:{:040x}", scene.next());
            let out = scene.server.path("out");
            let said = scene
                .server
                .say(["add", &link, "-d", out.to_str().unwrap()]);
            said.code == 0
        },
        ..PLAIN
    },
    Row {
        key: "library.downloads_max",
        before: "1",
        after: "2",
        prepare: |scene| {
            scene.add_link(&[]);
            scene.add_link(&[]);
        },
        holds: |scene| {
            let torrents = scene.server.torrents();
            torrents.iter().all(|torrent| torrent["status"] != "queued")
        },
        ..PLAIN
    },
    Row {
        key: "library.stalled_after_s",
        before: "86400",
        after: "1",
        with: "library.downloads_max = 1\n",
        prepare: |scene| {
            scene.add_link(&[]);
            scene.server.wait_status("metadata");
            assert_eq!(scene.add_link(&[]), second_link());
        },
        // Nobody has either: the turn goes from one to the other.
        holds: |scene| {
            let torrents = scene.server.torrents();
            let mut torrents = torrents.iter();
            let second = torrents.find(|torrent| torrent["info_hash"] == second_link());
            second.unwrap()["status"] == "metadata"
        },
        ..PLAIN
    },
    Row {
        key: "library.awake_max",
        before: "1000",
        after: "1",
        with: "library.idle_min_s = 86400\n",
        prepare: awake,
        holds: |scene| scene.metric(AWAKE) == 1.0,
        ..PLAIN
    },
    Row {
        key: "library.idle_min_s",
        before: "86400",
        after: "1",
        prepare: awake,
        holds: |scene| scene.metric(AWAKE) == 0.0,
        ..PLAIN
    },
    Row {
        key: "library.ratio_permille",
        before: "0",
        after: "1",
        prepare: |scene| {
            let torrent = scene.add("small", 100_000);
            scene.peer(&torrent, Ipv4Addr::LOCALHOST);
        },
        holds: |scene| {
            // When it is paused, nobody is served.
            let _ = scene.peers[0].block(0, 0, 16_384);
            scene.status("small").as_deref() == Some("paused")
        },
        ..PLAIN
    },
    Row {
        key: "library.seeding_time_s",
        before: "0",
        after: "1",
        prepare: small,
        holds: |scene| scene.status("small").as_deref() == Some("paused"),
        ..PLAIN
    },
    Row {
        key: "library.at_limit",
        before: "\"pause\"",
        after: "\"remove\"",
        with: "library.seeding_time_s = 1\n",
        holds: |scene| {
            let name = format!("data-{}", scene.next());
            let length = 100_000 + scene.next();
            let torrent = scene.server.make(&name, length);
            let data = scene.server.path("data");
            let place = ["-d", data.to_str().unwrap()];
            let add = ["add", torrent.to_str().unwrap()];
            scene.server.ok([&add[..], &place].concat());
            let is_over = || scene.status(&name).is_none_or(|status| status == "paused");
            scene
                .server
                .until("a torrent that has given enough", is_over);
            scene.status(&name).is_none()
        },
        ..PLAIN
    },
];
