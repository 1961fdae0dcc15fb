//! Swarms of up to a thousand peers in virtual time: real chokers, a fluid network, a picker behind a trait. All is
//! drawn from one seed, so a failure replays by running its test again.
//!
//! Each test prints how long the peers took beside what no protocol can beat: with `u` for upload, `d` for
//! download and `F` bytes, the last of `N` peers is not complete before
//! `max(F / u_seed, F / d_min, N F / (u_seed + sum u))` (Kumar, Ross: "Peer-Assisted File Distribution: The Minimum
//! Distribution Time", 2006). The bounds that are asserted are generous, but not for a choker that does not choose.
//!
//! `SEEDRING_SWARM_PEERS=5000` in the environment makes all swarms but the smallest that large.

mod network;
mod picker;

use engine::choker::{ChokerConfig, LeechPolicy};

use network::{PeerKind, Scenario, Swarm};
use picker::{Layout, RarestFirst};

/// Bytes per second.
const KB: u64 = 1_000;

/// Small, so that blocks are few, beside rates that make it last for dozens of rounds.
const LAYOUT: Layout = Layout {
    pieces: 128,
    blocks_per_piece: 4,
    block_length: 16 << 10,
};

/// How many leechers a test has, if the environment does not say.
fn peers_in_swarm(by_default: usize) -> usize {
    let from_environment = std::env::var("SEEDRING_SWARM_PEERS").ok();
    from_environment.map_or(by_default, |count| {
        count.parse().expect("a number of peers")
    })
}

fn leecher(class: usize, upload: u64) -> PeerKind {
    PeerKind {
        class,
        upload,
        download: 10 * upload,
        seed: false,
        free_rider: false,
    }
}

/// A seed of ten times `upload`, and so many leechers by their number.
fn crowd(count: usize, upload: u64, leecher: impl Fn(usize) -> PeerKind) -> Vec<PeerKind> {
    let seed = PeerKind {
        class: 0,
        upload: 10 * upload,
        download: 0,
        seed: true,
        free_rider: false,
    };
    std::iter::once(seed)
        .chain((0..count).map(leecher))
        .collect()
}

fn scenario(peers: Vec<PeerKind>, leech: LeechPolicy) -> Scenario {
    Scenario {
        layout: LAYOUT,
        choker: ChokerConfig {
            leech,
            ..ChokerConfig::default()
        },
        peers,
        connects: 15,
        leave: false,
        seed: 1,
    }
}

/// Seconds before which not all can be complete: see the module.
fn fluid_bound(scenario: &Scenario) -> u64 {
    let size = scenario.layout.bytes();
    let (seeds, others): (Vec<&PeerKind>, Vec<&PeerKind>) =
        scenario.peers.iter().partition(|peer| peer.seed);
    let upload = |peers: &[&PeerKind]| peers.iter().map(|peer| peer.upload).sum::<u64>();
    let slowest = others
        .iter()
        .map(|peer| peer.download)
        .min()
        .expect("peers");
    let shared = others.len() as u64 * size / (upload(&seeds) + upload(&others));
    (size / upload(&seeds)).max(size / slowest).max(shared)
}

/// What a run showed, in seconds.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Outcome {
    bound: u64,
    /// For each class, sorted.
    times: Vec<Vec<u64>>,
    /// How much of the leechers' upload was used while at least half of them were there, in percent.
    utilisation: u64,
}

impl Outcome {
    fn all(&self) -> Vec<u64> {
        let mut all: Vec<u64> = self.times.iter().flatten().copied().collect();
        all.sort_unstable();
        all
    }

    fn mean(times: &[u64]) -> u64 {
        times.iter().sum::<u64>() / times.len().max(1) as u64
    }

    fn class_mean(&self, class: usize) -> u64 {
        Outcome::mean(&self.times[class])
    }

    /// When 95 % are complete.
    fn late(&self) -> u64 {
        let all = self.all();
        all[all.len() * 95 / 100]
    }

    fn last(&self) -> u64 {
        self.all().last().copied().expect("peers")
    }

    fn print(&self, name: &str) {
        let line = |times: &[u64]| {
            let late = times[times.len() * 95 / 100];
            let last = times[times.len() - 1];
            format!(
                "mean {} s, 95 % {late} s, last {last} s",
                Outcome::mean(times)
            )
        };
        println!(
            "{name}: bound {} s; {}; utilisation {} %",
            self.bound,
            line(&self.all()),
            self.utilisation
        );
        if self.times.len() > 1 {
            for (class, times) in self.times.iter().enumerate() {
                println!("  class {class}: {} peers, {}", times.len(), line(times));
            }
        }
    }
}

/// Runs until all are complete, and tells how it was.
fn run(name: &str, scenario: &Scenario) -> Outcome {
    let picker = |kind: &PeerKind, seed| {
        Box::new(RarestFirst::new(scenario.layout, kind.seed, seed)) as Box<dyn picker::BlockPicker>
    };
    let mut swarm = Swarm::new(scenario, picker);
    let bound = fluid_bound(scenario);
    while !swarm.all_complete() {
        swarm.step();
        assert!(
            swarm.seconds() < 50 * bound,
            "{name}: not everybody completes"
        );
    }
    let classes = swarm
        .completions()
        .map(|(class, _)| class + 1)
        .max()
        .expect("peers");
    let mut times = vec![Vec::new(); classes];
    for (class, seconds) in swarm.completions() {
        times[class].push(seconds.expect("all are complete"));
    }
    times.iter_mut().for_each(|times| times.sort_unstable());
    let outcome = Outcome {
        bound,
        times,
        utilisation: swarm.uploaded * 100 / swarm.capacity.max(1),
    };
    outcome.print(name);
    outcome
}

#[test]
fn a_thousand_equals_complete_near_the_bound() {
    let peers = crowd(peers_in_swarm(1_000), 20 * KB, |_| leecher(0, 20 * KB));
    let outcome = run(
        "equals, tit-for-tat",
        &scenario(peers, LeechPolicy::default()),
    );
    assert!(outcome.utilisation > 70, "{}", outcome.utilisation);
    assert!(outcome.last() * 10 < outcome.bound * 15);
}

#[test]
fn the_same_seed_makes_the_same_swarm() {
    let outcome = |seed| {
        let mut scenario = scenario(
            crowd(60, 20 * KB, |_| leecher(0, 20 * KB)),
            LeechPolicy::default(),
        );
        scenario.seed = seed;
        run("sixty equals", &scenario)
    };
    assert_eq!(outcome(1), outcome(1));
    assert_ne!(outcome(1), outcome(2));
}

#[test]
fn who_gives_more_gets_more() {
    let outcome = |name, leech| {
        let uploads = [10 * KB, 20 * KB, 60 * KB];
        let peers = crowd(peers_in_swarm(300), 30 * KB, |index| PeerKind {
            download: 200 * KB,
            ..leecher(index % 3, uploads[index % 3])
        });
        let mut scenario = scenario(peers, leech);
        scenario.leave = true;
        run(name, &scenario)
    };
    let judged = outcome("three classes, tit-for-tat", LeechPolicy::default());
    assert!(judged.utilisation > 70, "{}", judged.utilisation);
    let means = [0, 1, 2].map(|class| judged.class_mean(class));
    assert!(means[0] > means[1] && means[1] > means[2], "{means:?}");
    assert!(means[0] * 10 > means[2] * 13, "{means:?}");
}

/// One in five gives nothing. Who is complete leaves, so that nobody lives on the generosity of seeds.
#[test]
fn who_gives_nothing_waits() {
    let outcome = |name, leech| {
        let peers = crowd(peers_in_swarm(300), 20 * KB, |index| {
            let free_rider = index % 5 == 0;
            PeerKind {
                upload: if free_rider { 0 } else { 20 * KB },
                free_rider,
                ..leecher(usize::from(free_rider), 20 * KB)
            }
        });
        let mut scenario = scenario(peers, leech);
        scenario.leave = true;
        run(name, &scenario)
    };
    let judged = outcome(
        "one in five a free rider, tit-for-tat",
        LeechPolicy::default(),
    );
    // Everybody, as far as neighbours go.
    let everybody = LeechPolicy::Datacenter { slots_max: 1_000 };
    let fed = outcome("one in five a free rider, all unchoked", everybody);
    let disadvantage = |outcome: &Outcome| outcome.class_mean(1) * 100 / outcome.class_mean(0);
    let [judged_percent, fed_percent] = [&judged, &fed].map(disadvantage);
    println!("free riders need {judged_percent} %, were nobody judged {fed_percent} %");
    assert!(judged_percent > 130);
    assert!(fed_percent < 120);
}

/// Hosts whose links are as fast in both directions.
#[test]
fn a_data_center_completes_near_the_bound() {
    let peers = crowd(peers_in_swarm(300), 20 * KB, |_| PeerKind {
        download: 20 * KB,
        ..leecher(0, 20 * KB)
    });
    let policy = LeechPolicy::Datacenter { slots_max: 8 };
    let outcome = run("data center", &scenario(peers, policy));
    assert!(outcome.utilisation > 70, "{}", outcome.utilisation);
    // Were slots kept by whoever has them first, this would be 1.6 times the bound.
    assert!(outcome.late() * 10 < outcome.bound * 15);
}
