//! What cold data of one torrent cost another that is in the page cache: the rate at which the
//! latter is served alone, and while many peers ask the same server for the former.
//!
//! Each round has two runs of each server, with both torrents loaded: the hot one asked for alone,
//! and beside the cold one; which comes first turns from round to round. What is kept is a ratio
//! within a round.
//!
//! Both loads run on the same cores. If the hot one was the limit alone, its round is no verdict;
//! if it was so beside the cold one, at least as much as is shown was kept.
//! Does not: start servers that cannot be given two torrents.

use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use super::data::DataSet;
use super::figures::Figures;
use super::markdown::{put, show, write_cells, write_head};
use super::report::{Head, ServerPart};
use super::run::{Asked, Settings, plan};
use super::started::{Homes, Started, Wanted};
use super::statistics::Spread;
use super::{Protocol, Rival, remarks};
use crate::commands::describe;
use crate::harness::{page_cache, rounds};
use crate::load::shared::LoadError;
use crate::load::{self, Outcome, Plan};
use crate::report::Report;

/// Peers that ask for what is in the page cache.
pub const HOT_PEERS: usize = 16;

/// Peers that ask for what is not.
pub const COLD_PEERS: usize = 64;

/// The window of the cold load reaches beyond that of the hot one by this on both sides, in ns.
const MARGIN_NS: u64 = 500_000_000;

/// One run of one server.
#[derive(Debug, Clone, Serialize)]
pub struct Run {
    /// Its name.
    pub server: String,
    /// From 1.
    pub round: usize,
    /// Whether cold data were asked for meanwhile.
    pub beside_cold: bool,
    /// The share of the hot content that was in the page cache when the load began.
    pub hot_cached_share: Option<f64>,
    /// The same of the cold content.
    pub cold_cached_share: Option<f64>,
    /// How often all of the cold content was asked for; above 1 not all was cold.
    pub cold_rounds: Option<f64>,
    /// Of the hot load; its CPU time is that of all that the server did.
    pub hot: Option<Figures>,
    /// Of the cold load.
    pub cold: Option<Figures>,
    /// The whole report of the hot load.
    pub hot_report: Option<Value>,
    /// The whole report of the cold load.
    pub cold_report: Option<Value>,
    /// Why there are no figures.
    pub error: Option<String>,
}

/// Servers, contents and settings of a session.
pub struct Session<'a> {
    /// Servers that take two torrents.
    pub servers: &'a [Box<dyn Rival>],
    /// What is in the page cache.
    pub hot: &'a DataSet,
    /// What is not.
    pub cold: &'a DataSet,
    /// How; the numbers of peers in it are not used.
    pub settings: &'a Settings,
    /// Payload per second that the hot load asks for in open loop; none: closed loop.
    pub hot_rate_bytes: Option<u64>,
    /// Hears of progress, a line at a time.
    pub tell: &'a dyn Fn(&str),
}

impl Session<'_> {
    /// All rounds.
    pub fn run(&self) -> anyhow::Result<Vec<Run>> {
        let homes = Homes::new(self.servers.len())?;
        let count = self.servers.len();
        let mut runs = Vec::new();
        for round in 0..self.settings.rounds {
            for at in rounds::order(count, round) {
                for beside_cold in [round % 2 == 1, round % 2 == 0] {
                    let server = self.servers[at].as_ref();
                    let mut run = Run {
                        server: server.name().to_owned(),
                        round: round + 1,
                        beside_cold,
                        hot_cached_share: None,
                        cold_cached_share: None,
                        cold_rounds: None,
                        hot: None,
                        cold: None,
                        hot_report: None,
                        cold_report: None,
                        error: None,
                    };
                    if let Err(error) = self.one(server, homes.of(at), &mut run) {
                        run.error = Some(describe(&error));
                    }
                    let all = 2 * count * self.settings.rounds;
                    (self.tell)(&format!("{}/{all} {}", runs.len() + 1, line(&run)));
                    runs.push(run);
                }
            }
        }
        Ok(runs)
    }

    /// Starts a server, loads it, and stops it.
    fn one(&self, rival: &dyn Rival, home: &Path, run: &mut Run) -> anyhow::Result<()> {
        let settings = self.settings;
        let mut server = Started::new(
            rival,
            &Wanted {
                data: self.hot,
                beside: Some(self.cold),
                home,
                peers: HOT_PEERS + COLD_PEERS,
                settings,
            },
        )?;
        for data in [self.hot, self.cold] {
            server.wait_until_ready(Protocol::Peer, &data.torrent)?;
        }
        // What is locked in memory stays; what is not is read in again.
        page_cache::drop_all()?;
        self.hot.cache()?;
        run.hot_cached_share = Some(self.hot.cached_share()?);
        run.cold_cached_share = Some(self.cold.cached_share()?);
        let asked = |data: &DataSet, peers, rate_bytes, each_once| {
            let asked = Asked {
                torrent: &data.torrent,
                peers,
                round: run.round,
                rate_bytes,
                each_once,
            };
            plan(settings, &asked, server.address, server.process.pid())
        };
        let mut hot = asked(self.hot, HOT_PEERS, self.hot_rate_bytes, false);
        hot.warmup_ns += MARGIN_NS;
        let mut cold = asked(self.cold, COLD_PEERS, None, true);
        cold.window_ns += 2 * MARGIN_NS;
        let outcomes = loaded(&hot, run.beside_cold.then_some(&cold));
        let (hot_outcome, cold_outcome) = outcomes.map_err(|error| server.reason(error))?;
        server.process.end();
        let mode = settings.mode.name();
        let report = Report::new(&hot, &self.hot.torrent, mode, &hot_outcome);
        run.hot = Figures::of(&report);
        run.hot_report = Some(serde_json::to_value(&report)?);
        if let Some(outcome) = cold_outcome {
            run.cold_rounds = cold.settings.deck.as_ref().map(|deck| deck.rounds());
            let report = Report::new(&cold, &self.cold.torrent, mode, &outcome);
            run.cold = Figures::of(&report);
            run.cold_report = Some(serde_json::to_value(&report)?);
        }
        Ok(())
    }
}

/// Runs the hot load, and the cold one beside it if there is one.
fn loaded(hot: &Plan, cold: Option<&Plan>) -> Result<(Outcome, Option<Outcome>), LoadError> {
    std::thread::scope(|scope| {
        let beside = cold.map(|cold| scope.spawn(|| load::run(cold)));
        let hot = load::run(hot);
        let beside = beside.map(|thread| {
            let result = thread.join();
            result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        Ok((hot?, beside.transpose()?))
    })
}

/// The line of a run that has just ended.
fn line(run: &Run) -> String {
    let rate = |figures: &Figures| format!("{:.2} GB/s", figures.gigabytes_per_s);
    let result = match (&run.hot, &run.cold, &run.error) {
        (_, _, Some(error)) => format!("FAILED: {error}"),
        (Some(hot), Some(cold), _) => format!("hot {} beside cold {}", rate(hot), rate(cold)),
        (Some(hot), None, _) => format!("hot {} alone", rate(hot)),
        (None, ..) => "no figures".to_owned(),
    };
    format!("round {} {}: {result}", run.round, run.server)
}

/// The runs of one server, put together.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Its name.
    pub server: String,
    /// The rate of the hot load alone, in 10^9 bytes per second.
    pub hot_alone_gigabytes_per_s: Option<Spread>,
    /// The same beside the cold load.
    pub hot_beside_gigabytes_per_s: Option<Spread>,
    /// The latter by the former, within each round.
    pub kept: Option<Spread>,
    /// What one in a hundred blocks of the hot load took at least, alone, in ms.
    pub hot_alone_p99_ms: Option<Spread>,
    /// The same beside the cold load.
    pub hot_beside_p99_ms: Option<Spread>,
    /// The rate of the cold load.
    pub cold_gigabytes_per_s: Option<Spread>,
    /// What a reader must know of it.
    pub remarks: Vec<String>,
}

/// A row for each server.
pub fn rows(runs: &[Run], servers: &[ServerPart]) -> Vec<Row> {
    let row = |server: &ServerPart| {
        let mine: Vec<&Run> = runs
            .iter()
            .filter(|run| run.server == server.name)
            .collect();
        let hot = |beside: bool| {
            let mine = mine.iter().filter(move |run| run.beside_cold == beside);
            mine.filter_map(|run| Some((run.round, run.hot.as_ref()?)))
        };
        let verdicts: Vec<_> = hot(false).filter(|(_, one)| !one.load_limited).collect();
        let pairs = verdicts.iter().filter_map(|(round, alone)| {
            let mut beside = hot(true).filter(|(other, _)| other == round);
            let (_, beside) = beside.next()?;
            Some((beside.gigabytes_per_s, alone.gigabytes_per_s))
        });
        let cold = mine.iter().filter_map(|run| run.cold.as_ref());
        let p99 = |beside: bool| Spread::of(hot(beside).map(|(_, one)| one.latency_p99_us / 1e3));
        Row {
            server: server.name.clone(),
            hot_alone_p99_ms: p99(false),
            hot_beside_p99_ms: p99(true),
            hot_alone_gigabytes_per_s: Spread::of(hot(false).map(|(_, one)| one.gigabytes_per_s)),
            hot_beside_gigabytes_per_s: Spread::of(hot(true).map(|(_, one)| one.gigabytes_per_s)),
            kept: Spread::of_ratios(pairs),
            cold_gigabytes_per_s: Spread::of(cold.map(|one| one.gigabytes_per_s)),
            remarks: remarks_of(&mine),
        }
    };
    servers.iter().map(row).collect()
}

fn remarks_of(runs: &[&Run]) -> Vec<String> {
    let mut found = Vec::new();
    let limited = |beside: bool| {
        let mine = runs.iter().filter(|run| run.beside_cold == beside);
        let figures = mine.filter_map(|run| run.hot.as_ref());
        figures.filter(|one| one.load_limited).count()
    };
    match limited(false) {
        0 => {}
        count => found.push(format!(
            "the load was the limit of {count} runs alone: their rounds are no verdict"
        )),
    }
    match limited(true) {
        0 => {}
        count => found.push(format!(
            "the load was the limit of {count} runs beside cold data: at least so much was kept"
        )),
    }
    let figures = || runs.iter().flat_map(|run| run.hot.iter().chain(&run.cold));
    found.extend(remarks::wrong_pieces(figures()));
    found.extend(remarks::starved_peers(figures()));
    found.extend(remarks::disturbances(figures()));
    found.extend(remarks::not_cold(
        "the cold data",
        runs.iter().filter_map(|run| run.cold_cached_share),
        runs.iter().filter_map(|run| run.cold_rounds),
    ));
    let errors = runs.iter().filter_map(|run| run.error.as_ref());
    found.extend(remarks::failures(errors));
    found
}

/// What came of it. Keys are part of the tool's interface.
#[derive(Debug, Serialize)]
pub struct Comparison {
    #[serde(flatten)]
    pub head: Head,
    /// A row for each server.
    pub rows: Vec<Row>,
    /// Every single run.
    pub runs: Vec<Run>,
}

impl Comparison {
    /// Whether every run came to figures and every byte was right.
    pub fn is_complete(&self) -> bool {
        let right = |one: &Figures| one.pieces_wrong == 0;
        let is_whole = |run: &Run| {
            let cold = run.cold.as_ref();
            run.hot.as_ref().is_some_and(right) && (!run.beside_cold || cold.is_some_and(right))
        };
        self.runs.iter().all(is_whole)
    }

    /// The whole report as Markdown.
    pub fn to_markdown(&self) -> String {
        let mut out = String::new();
        for condition in &self.head.conditions {
            put(&mut out, &format!("- {condition}"));
        }
        put(&mut out, "");
        let head = [
            "server",
            "hot alone GB/s",
            "hot beside cold GB/s",
            "kept",
            "hot alone p99 ms",
            "hot beside cold p99 ms",
            "cold GB/s",
            "remarks",
        ];
        write_head(&mut out, &head);
        for row in &self.rows {
            let cells = [
                row.server.clone(),
                show(row.hot_alone_gigabytes_per_s, 1.0, 2),
                show(row.hot_beside_gigabytes_per_s, 1.0, 2),
                show(row.kept, 1.0, 2),
                show(row.hot_alone_p99_ms, 1.0, 2),
                show(row.hot_beside_p99_ms, 1.0, 2),
                show(row.cold_gigabytes_per_s, 1.0, 2),
                row.remarks.join("; "),
            ];
            write_cells(&mut out, &cells);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Mode;
    use crate::measure::Host;

    fn figures(gigabytes_per_s: f64, load_limited: bool) -> Figures {
        Figures {
            gigabytes_per_s,
            load_limited,
            ..Figures::default()
        }
    }

    fn late(mut figures: Figures) -> Figures {
        figures.latency_p99_us = 7500.0;
        figures
    }

    fn run(round: usize, hot: Option<Figures>, cold: Option<Figures>) -> Run {
        Run {
            server: "ours".to_owned(),
            round,
            beside_cold: cold.is_some(),
            hot_cached_share: Some(1.0),
            cold_cached_share: Some(0.0),
            cold_rounds: cold.is_some().then_some(0.5),
            error: hot.is_none().then(|| "it | ended".to_owned()),
            hot,
            cold,
            hot_report: None,
            cold_report: None,
        }
    }

    fn comparison(runs: Vec<Run>) -> Comparison {
        let servers = vec![ServerPart {
            name: "ours".to_owned(),
            version: "1".to_owned(),
            settings: "defaults".to_owned(),
            is_ours: true,
            protocol: Protocol::Peer,
        }];
        Comparison {
            rows: rows(&runs, &servers),
            runs,
            head: Head {
                command: "rivals --cold-with-hot",
                version: "1",
                date: String::new(),
                host: Host::here(),
                conditions: vec!["a condition".to_owned()],
                settings: Settings {
                    peers: vec![HOT_PEERS, COLD_PEERS],
                    rounds: 3,
                    window_ns: 1,
                    warmup_ns: 0,
                    depth: 64,
                    mode: Mode::Discard,
                    server_cores: vec![0],
                    load_cores: vec![1],
                    latency: false,
                    cold: true,
                },
                servers,
            },
        }
    }

    #[test]
    fn what_is_kept_is_a_ratio_within_each_round() {
        let cold = || Some(figures(1.0, false));
        // The machine is half as fast in the second round; in the third the load was the limit
        // alone.
        let found = comparison(vec![
            run(1, Some(figures(4.0, false)), None),
            run(1, Some(late(figures(3.6, true))), cold()),
            run(2, Some(figures(1.6, false)), cold()),
            run(2, Some(figures(2.0, false)), None),
            run(3, Some(figures(2.0, true)), None),
            run(3, Some(figures(2.0, false)), cold()),
        ]);
        let kept = found.rows[0].kept.unwrap();
        assert!((kept.min - 0.8).abs() < 1e-9 && (kept.max - 0.9).abs() < 1e-9);
        assert!(found.is_complete());
        let text = found.to_markdown();
        assert!(text.starts_with("- a condition\n\n| server |"), "{text}");
        assert!(
            text.contains("| 0.85 (0.80–0.90) | 0.00 | 0.00 (0.00–7.50) | 1.00 |"),
            "{text}"
        );
        assert!(text.contains("limit of 1 runs alone"), "{text}");
        assert!(text.contains("limit of 1 runs beside"), "{text}");
    }

    #[test]
    fn a_busy_machine_is_told_of_whichever_load_saw_it() {
        let (mut hot, mut cold) = (figures(2.0, false), figures(1.0, false));
        (hot.elsewhere_cores, cold.elsewhere_cores) = (0.05, 0.7);
        hot.stolen_cores = 0.3;
        let quiet = run(1, Some(figures(2.0, false)), None);
        assert!(comparison(vec![quiet.clone()]).rows[0].remarks.is_empty());
        let found = comparison(vec![quiet, run(1, Some(hot), Some(cold))]);
        let wanted = [
            "up to 0.7 cores busy elsewhere: not a quiet machine",
            "up to 0.30 cores stolen by the host",
        ];
        assert_eq!(found.rows[0].remarks, wanted);
    }

    #[test]
    fn a_run_that_failed_or_was_not_cold_is_told() {
        let mut warm = run(1, Some(figures(2.0, false)), Some(figures(1.0, false)));
        (warm.cold_cached_share, warm.cold_rounds) = (Some(0.25), Some(1.5));
        let found = comparison(vec![warm, run(1, None, None)]);
        assert!(!found.is_complete() && found.rows[0].kept.is_none());
        let text = found.to_markdown();
        for part in ["25 % of the cold", "1.5 times", "FAILED: it ¦ ended"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
