//! What a run showed, beside what no protocol can beat.

use std::time::Duration;

use super::swarm::{Host, Scenario, Swarm};

/// Seconds before which not all can be complete: see `main.rs`.
pub fn fluid_bound(scenario: &Scenario) -> f64 {
    let size = scenario.bytes() as f64;
    let (seeds, others): (Vec<&Host>, Vec<&Host>) =
        scenario.hosts.iter().partition(|host| host.seed);
    let upload = |hosts: &[&Host]| hosts.iter().map(|host| host.upload).sum::<u64>() as f64;
    let slowest = others.iter().map(|host| host.download).min();
    let shared = others.len() as f64 * size / (upload(&seeds) + upload(&others));
    let slowest = size / slowest.expect("hosts that download") as f64;
    (size / upload(&seeds)).max(slowest).max(shared)
}

/// Hosts of one class.
#[derive(Clone, PartialEq, Debug)]
pub struct Class {
    /// Seconds, sorted.
    pub times: Vec<f64>,
}

impl Class {
    pub fn mean(&self) -> f64 {
        self.times.iter().sum::<f64>() / self.times.len() as f64
    }

    pub fn median(&self) -> f64 {
        self.times[self.times.len() / 2]
    }

    pub fn last(&self) -> f64 {
        self.times[self.times.len() - 1]
    }
}

/// See the module.
#[derive(Clone, PartialEq, Debug)]
pub struct Outcome {
    pub bound: f64,
    pub all: Class,
    pub classes: Vec<Class>,
    /// How many times its size the seeds sent the torrent.
    pub seed_copies: f64,
    /// The same of the first host, when the others had a copy of every piece for the first time.
    pub first_copy: f64,
    /// What was received and of no use, as a part of what was received.
    pub waste: f64,
    /// Jain's index of what contributors get for what they can give: rate of the download over rate
    /// of the uplink.
    pub fairness: f64,
}

impl Outcome {
    pub fn of(scenario: &Scenario, swarm: &Swarm) -> Outcome {
        let seconds = |time: Duration| time.as_secs_f64();
        let mut classes = Vec::new();
        let mut worth = Vec::new();
        for peer in &swarm.peers {
            let Some(time) = swarm.time_of(peer).map(seconds) else {
                continue;
            };
            let class = peer.host.class;
            classes.resize_with(classes.len().max(class + 1), Vec::new);
            classes[class].push(time);
            if !peer.host.free_rider {
                worth.push(1.0 / time / peer.host.upload as f64);
            }
        }
        let class = |mut times: Vec<f64>| {
            times.sort_by(f64::total_cmp);
            Class { times }
        };
        let seeds = swarm.peers.iter().filter(|peer| peer.host.seed);
        let size = scenario.bytes() as f64;
        let received: u64 = swarm.peers.iter().map(|peer| peer.received).sum();
        let useful = classes.iter().map(Vec::len).sum::<usize>() as f64 * size;
        Outcome {
            bound: fluid_bound(scenario),
            all: class(classes.concat()),
            classes: classes.into_iter().map(class).collect(),
            seed_copies: seeds.map(|peer| peer.uploaded).sum::<u64>() as f64 / size,
            first_copy: swarm.sent_for_first_copy as f64 / size,
            waste: 1.0 - useful / received as f64,
            fairness: jain(&worth),
        }
    }

    /// The last host's time over the bound.
    pub fn last(&self) -> f64 {
        self.all.last() / self.bound
    }

    /// The median host's time over the bound.
    pub fn median(&self) -> f64 {
        self.all.median() / self.bound
    }

    pub fn print(&self, name: &str) {
        println!(
            "{name}: {} hosts, bound {:.1} s; median {:.2} x, last {:.2} x the bound; the seed sent {:.2} copies; \
             {:.2} % wasted; fairness {:.3}",
            self.all.times.len(),
            self.bound,
            self.median(),
            self.last(),
            self.seed_copies,
            self.waste * 100.0,
            self.fairness
        );
        if self.classes.len() > 1 {
            for (number, class) in self.classes.iter().enumerate() {
                println!(
                    "  class {number}: {} hosts, mean {:.1} s, median {:.1} s, last {:.1} s",
                    class.times.len(),
                    class.mean(),
                    class.median(),
                    class.last()
                );
            }
        }
    }
}

/// 1 if all are alike, 1/n if one has everything (Jain, Chiu, Hawe: "A Quantitative Measure of
/// Fairness", 1984).
fn jain(values: &[f64]) -> f64 {
    let sum: f64 = values.iter().sum();
    let squares: f64 = values.iter().map(|value| value * value).sum();
    sum * sum / (values.len() as f64 * squares)
}
