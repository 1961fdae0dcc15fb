//! Interleaved rounds: everybody runs once in each, and the order turns from round to round, so
//! that a machine that drifts harms all alike.

use crate::commands::describe;
use crate::console::tell;
use crate::harness::comparison::{Absent, Comparison, Figures};

/// How much of an error is shown in a table.
const REMARK_CHARS_MAX: usize = 100;

/// One who can be measured again and again.
pub trait Contender {
    /// Its name in the report, unique.
    fn name(&self) -> String;

    /// Its version and set-up, for the report; or why it cannot be measured here.
    fn version(&self) -> Result<String, String>;

    /// What a reader must know of its row; asked for after the last round.
    fn remark(&self) -> Option<String> {
        None
    }

    /// One run. What it started is over when this returns.
    fn run(&mut self) -> anyhow::Result<Figures>;
}

/// Runs `contenders` for `rounds` rounds and adds their rows to `report`: the first is the one that
/// others are compared with. Who fails is not run again. Returns whether everybody who is there was
/// measured in every round.
///
/// Progress goes to stderr.
pub fn run(
    mut contenders: Vec<Box<dyn Contender + '_>>,
    rounds: usize,
    report: &mut Comparison,
) -> bool {
    let mut present = Vec::new();
    for contender in contenders.drain(..) {
        match contender.version() {
            Ok(version) => present.push((contender, version)),
            Err(reason) => report.absent.push(Absent {
                who: contender.name(),
                reason,
            }),
        }
    }
    let mut runs: Vec<Vec<Option<Figures>>> = vec![Vec::new(); present.len()];
    let mut failures: Vec<Option<String>> = vec![None; present.len()];
    for round in 0..rounds {
        for place in order(present.len(), round) {
            if failures[place].is_some() {
                runs[place].push(None);
                continue;
            }
            let contender = &mut present[place].0;
            let name = contender.name();
            tell(format_args!("round {} of {rounds}: {name}", round + 1));
            match contender.run() {
                Ok(figures) => runs[place].push(Some(figures)),
                Err(error) => {
                    let error = describe(&error);
                    tell(format_args!("{name}: {error}"));
                    failures[place] = Some(remark_of(round, &error));
                    runs[place].push(None);
                }
            }
        }
    }
    for (((contender, version), runs), failure) in present.iter().zip(&runs).zip(&failures) {
        let remark = failure.clone().or_else(|| contender.remark());
        report.row(contender.name(), version, runs, remark);
    }
    report.ratios(0, &runs);
    report.setting(
        "rounds",
        format!("{rounds}, interleaved; median (lowest–highest)"),
    );
    failures.iter().all(Option::is_none)
}

/// What a table says of a failure; all of it went to stderr.
fn remark_of(round: usize, error: &str) -> String {
    let start: String = error.chars().take(REMARK_CHARS_MAX).collect();
    let more = if start.len() < error.len() {
        " …"
    } else {
        ""
    };
    format!("failed in round {}: {start}{more}", round + 1)
}

/// The places of `count` contenders in the order of `round` (from 0): each is first in turn, and
/// every other round goes backwards from there, so that nobody always follows the same one.
pub fn order(count: usize, round: usize) -> Vec<usize> {
    let mut places: Vec<usize> = (0..count).collect();
    if count == 0 {
        return places;
    }
    places.rotate_left(round % count);
    if round % 2 == 1 {
        places[1..].reverse();
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::comparison::Column;
    use crate::harness::environment::Environment;

    struct Fake {
        name: &'static str,
        fails_at: usize,
        runs: usize,
    }

    impl Contender for Fake {
        fn name(&self) -> String {
            self.name.to_owned()
        }

        fn version(&self) -> Result<String, String> {
            match self.name {
                "absent" => Err("not installed".to_owned()),
                _ => Ok("1".to_owned()),
            }
        }

        fn run(&mut self) -> anyhow::Result<Figures> {
            self.runs += 1;
            anyhow::ensure!(self.runs != self.fails_at, "no more");
            Ok(Figures::from([("wall_s", self.runs as f64)]))
        }
    }

    #[test]
    fn who_fails_keeps_its_figures_and_says_why() {
        let columns = &[Column {
            key: "wall_s",
            title: "wall s",
            digits: 0,
        }];
        let mut report = Comparison::new("create", Environment::here(&[]), columns, "wall_s");
        let fake = |name, fails_at| -> Box<dyn Contender> {
            Box::new(Fake {
                name,
                fails_at,
                runs: 0,
            })
        };
        let contenders = vec![fake("ours", 0), fake("absent", 0), fake("weak", 2)];
        assert!(!run(contenders, 3, &mut report));
        assert_eq!(report.absent[0].who, "absent");
        assert_eq!(report.rows[0].figures["wall_s"].runs, [1.0, 2.0, 3.0]);
        assert_eq!(report.rows[1].figures["wall_s"].runs, [1.0]);
        let remark = report.rows[1].remark.as_deref().unwrap();
        assert!(
            remark.contains("round 2") && remark.contains("no more"),
            "{remark}"
        );
        assert_eq!(report.rows[1].ratio.as_ref().unwrap().runs, [1.0]);
    }

    #[test]
    fn long_errors_are_cut_between_letters() {
        assert_eq!(remark_of(0, "short"), "failed in round 1: short");
        let cut = remark_of(1, &"µ".repeat(101));
        assert_eq!(cut, format!("failed in round 2: {} …", "µ".repeat(100)));
    }

    #[test]
    fn the_order_turns_and_leaves_nobody_out() {
        assert_eq!(order(3, 0), [0, 1, 2]);
        assert_eq!(order(3, 1), [1, 0, 2]);
        assert_eq!(order(3, 2), [2, 0, 1]);
        assert_eq!(order(3, 3), [0, 2, 1]);
        for (count, round) in [(0, 5), (1, 7), (4, 9)] {
            let mut places = order(count, round);
            places.sort_unstable();
            assert_eq!(places, (0..count).collect::<Vec<_>>());
        }
    }

    #[test]
    fn everybody_is_first_and_follows_more_than_one() {
        for count in 2..8 {
            let rounds: Vec<_> = (0..2 * count).map(|round| order(count, round)).collect();
            for place in 0..count {
                let first = rounds.iter().filter(|order| order[0] == place).count();
                assert_eq!(first, 2, "{place} of {count}");
                let pairs = rounds.iter().flat_map(|order| order.windows(2));
                let before = pairs.filter(|pair| pair[1] == place).map(|pair| pair[0]);
                let others = before.collect::<std::collections::BTreeSet<_>>().len();
                assert!(others >= 2.min(count - 1), "{place} of {count}");
            }
        }
    }
}
