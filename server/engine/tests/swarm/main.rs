//! Swarms of a thousand hosts in virtual time: real pickers, pipelines and chokers
//! ([`engine::download`], [`engine::choker`]) in a simulated network, with no I/O. All is drawn
//! from one seed, so a failure replays by running its test again.
//!
//! Each test prints how long the hosts took beside what no protocol can beat: with `u` for upload,
//! `d` for download and `F` bytes, the last of `N` hosts is not complete before `max(F / u_seed, F
//! / d_min, N F / (u_seed + sum u))` (Kumar, Ross: "Peer-Assisted File Distribution: The Minimum
//! Distribution Time", 2006). The median host may be earlier. The figures, and what follows from
//! them, are in `docs/adr/0013-swarm-figures.md`.
//!
//! The torrent is small, for the time that tests take, and so is everything that a large one is to
//! be compared by: 256 pieces and 20 neighbours are as 2,560 pieces and 200 neighbours, which is as
//! many as a download has by default. Only blocks are as large as ever, so what is wasted at the
//! end of each download weighs more than it would.
//!
//! `SEEDRING_SWARM_PEERS=5000` in the environment makes all swarms that large.

mod outcome;
mod peer;
mod swarm;

use std::time::Duration;

use engine::choker::{ChokerConfig, LeechPolicy, SeedPolicy};
use engine::download::DownloadConfig;
use engine::picker::{PickerConfig, Sharing};

use outcome::{Outcome, fluid_bound};
use swarm::{Host, Scenario, Swarm};

/// Bytes per second.
const KB: u64 = 1_000;

/// How many hosts a test has, if the environment does not say.
fn hosts_in_swarm(by_default: usize) -> usize {
    let from_environment = std::env::var("SEEDRING_SWARM_PEERS").ok();
    from_environment.map_or(by_default, |count| {
        count.parse().expect("a number of hosts")
    })
}

/// A host as at a home: ten times as fast to it as from it, and 50 ms from one to the other and
/// back.
fn home(class: usize, upload: u64) -> Host {
    Host {
        class,
        upload,
        download: 10 * upload,
        latency: Duration::from_millis(25),
        seed: false,
        free_rider: false,
    }
}

/// A seed with this uplink, and so many others by their number.
fn crowd(count: usize, seed_upload: u64, host: impl Fn(usize) -> Host) -> Vec<Host> {
    let seed = Host {
        upload: seed_upload,
        seed: true,
        free_rider: false,
        ..host(0)
    };
    std::iter::once(seed).chain((0..count).map(host)).collect()
}

fn scenario(hosts: Vec<Host>, leech: LeechPolicy) -> Scenario {
    let sharing = match leech {
        LeechPolicy::TitForTat { .. } => Sharing::default(),
        // As `server/io` has it.
        LeechPolicy::Datacenter { .. } => Sharing::WholePieces { peers_per_piece: 2 },
    };
    let picker = PickerConfig {
        sharing,
        ..PickerConfig::default()
    };
    Scenario {
        pieces: 256,
        blocks_per_piece: 4,
        download: DownloadConfig {
            picker,
            ..DownloadConfig::default()
        },
        choker: ChokerConfig {
            leech,
            // The server's default.
            policy: SeedPolicy::FastestUpload,
            ..ChokerConfig::default()
        },
        hosts,
        connects: 10,
        leave: false,
        super_seeding: false,
        seed: 1,
    }
}

/// Runs until all are complete, and tells how it was.
fn run(name: &str, scenario: &Scenario) -> Outcome {
    let mut swarm = Swarm::new(scenario);
    let bound = fluid_bound(scenario);
    while !swarm.all_complete() {
        swarm.step();
        let elapsed = swarm.elapsed().as_secs_f64();
        assert!(elapsed < 20.0 * bound, "{name}: not everybody completes");
    }
    let outcome = Outcome::of(scenario, &swarm);
    outcome.print(name);
    outcome
}

#[test]
fn a_thousand_equals_complete_near_the_bound() {
    let hosts = crowd(hosts_in_swarm(1_000), 1_000 * KB, |_| home(0, 100 * KB));
    let outcome = run("equals", &scenario(hosts, LeechPolicy::default()));
    assert!(outcome.last() < 1.25);
    assert!(outcome.waste < 0.01);
    assert!(outcome.fairness > 0.95);
}

/// The seed is the bottleneck: each piece that it sends twice delays everybody.
fn around_a_slow_seed(name: &str, hosts: usize, slots: u32) -> Outcome {
    let hosts = crowd(hosts_in_swarm(hosts), 100 * KB, |_| home(0, 400 * KB));
    let mut scenario = scenario(hosts, LeechPolicy::default());
    scenario.choker.slots = slots;
    let outcome = run(name, &scenario);
    assert!(outcome.waste < 0.01);
    outcome
}

#[test]
fn a_slow_seed_sends_less_than_two_copies() {
    let outcome = around_a_slow_seed("slow seed, slots unlimited", 300, 0);
    assert!(outcome.last() < 1.6 && outcome.seed_copies < 1.6);
}

#[test]
fn a_slow_seed_with_few_slots_sends_little_twice() {
    let outcome = around_a_slow_seed("slow seed, 4 slots", 1_000, 4);
    assert!(outcome.last() < 1.3 && outcome.seed_copies < 1.3);
}

/// What a super-seed sends until every piece is among the others: little more than each once.
#[test]
fn a_super_seed_sends_hardly_a_piece_twice_until_all_are_out() {
    for (name, hosts, slots) in [("300", 300, 0), ("300, 4 slots", 300, 4), ("8", 8, 0)] {
        let outcome = |super_seeding| {
            let hosts = crowd(hosts_in_swarm(hosts), 100 * KB, |_| home(0, 400 * KB));
            let mut scenario = scenario(hosts, LeechPolicy::default());
            scenario.choker.slots = slots;
            scenario.super_seeding = super_seeding;
            let how = if super_seeding { "super-seed" } else { "seed" };
            run(&format!("{name} around a slow {how}"), &scenario)
        };
        let (without, with) = (outcome(false), outcome(true));
        let copies = [without.first_copy, with.first_copy];
        println!(
            "{name}: copies sent for the first: {:.3}, super-seeding {:.3}",
            copies[0], copies[1]
        );
        assert!(
            with.first_copy <= 1.05 && with.first_copy < without.first_copy,
            "{copies:?}"
        );
        assert!(with.waste < 0.01);
    }
}

/// Hosts whose links are as fast in both directions, and a seed with four of their links.
#[test]
fn a_data_center_completes_near_the_bound() {
    let hosts = crowd(hosts_in_swarm(1_000), 800 * KB, |_| Host {
        download: 200 * KB,
        latency: Duration::from_micros(250),
        ..home(0, 200 * KB)
    });
    let everybody = LeechPolicy::Datacenter {
        slots_max: u32::MAX,
    };
    let outcome = run("data center", &scenario(hosts, everybody));
    assert!(outcome.last() < 1.5);
    assert!(outcome.waste < 0.01);
}

/// One in five gives nothing. Who is complete leaves, so that nobody lives on the generosity of
/// others.
#[test]
fn who_gives_nothing_waits() {
    let outcome = |name, leech| {
        let hosts = crowd(hosts_in_swarm(300), 1_000 * KB, |index| {
            let free_rider = index % 5 == 4;
            Host {
                upload: if free_rider { 0 } else { 100 * KB },
                free_rider,
                ..home(usize::from(free_rider), 100 * KB)
            }
        });
        let mut scenario = scenario(hosts, leech);
        scenario.leave = true;
        run(name, &scenario)
    };
    let judged = outcome(
        "one in five a free rider, tit-for-tat",
        LeechPolicy::default(),
    );
    let everybody = LeechPolicy::Datacenter {
        slots_max: u32::MAX,
    };
    let fed = outcome("one in five a free rider, all unchoked", everybody);
    let disadvantage =
        |outcome: &Outcome| outcome.classes[1].median() / outcome.classes[0].median();
    let [judged_times, fed_times] = [&judged, &fed].map(disadvantage);
    println!("free riders need {judged_times:.2} x, were nobody judged {fed_times:.2} x");
    assert!(
        judged_times > 1.5 && fed_times < 1.2,
        "{judged_times} {fed_times}"
    );
}

#[test]
fn who_gives_more_gets_more() {
    let uploads = [50 * KB, 100 * KB, 300 * KB];
    let hosts = crowd(hosts_in_swarm(300), 1_000 * KB, |index| Host {
        download: 1_000 * KB,
        ..home(index % 3, uploads[index % 3])
    });
    let mut scenario = scenario(hosts, LeechPolicy::default());
    scenario.leave = true;
    let outcome = run("three classes", &scenario);
    let medians = [0, 1, 2].map(|class| outcome.classes[class].median());
    assert!(
        medians[0] > 1.2 * medians[1] && medians[1] > 1.2 * medians[2],
        "{medians:?}"
    );
    assert!(outcome.waste < 0.01);
}

#[test]
fn the_same_seed_makes_the_same_swarm() {
    let outcome = |seed| {
        let hosts = crowd(60, 200 * KB, |_| home(0, 100 * KB));
        let mut scenario = scenario(hosts, LeechPolicy::default());
        scenario.seed = seed;
        run("sixty equals", &scenario)
    };
    assert_eq!(outcome(1), outcome(1));
    assert_ne!(outcome(1), outcome(2));
}
