//! Whether the machine did nothing else while it was measured. A busy one voids figures, so every
//! report of a load says so, in the same words.

/// More of a core than this busy elsewhere is remarked: timers and daemons take less.
const ELSEWHERE_CORES: f64 = 0.1;

/// More of a core than this stolen by the host is remarked.
const STOLEN_CORES: f64 = 0.02;

/// What one run saw, in cores over its window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Disturbance {
    /// Cores that neither the server nor the load kept busy.
    pub elsewhere_cores: f64,
    /// Cores that the host gave to other machines.
    pub stolen_cores: f64,
}

/// What a reader must know of the machine: the worst of all runs, and nothing if it was quiet.
pub fn remarks(runs: impl Iterator<Item = Disturbance>) -> Vec<String> {
    let (mut elsewhere, mut stolen) = (0.0, 0.0);
    for run in runs {
        elsewhere = run.elsewhere_cores.max(elsewhere);
        stolen = run.stolen_cores.max(stolen);
    }
    let mut found = Vec::new();
    if elsewhere > ELSEWHERE_CORES {
        found.push(format!(
            "up to {elsewhere:.1} cores busy elsewhere: not a quiet machine"
        ));
    }
    if stolen > STOLEN_CORES {
        found.push(format!("up to {stolen:.2} cores stolen by the host"));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_run_is_told_and_a_quiet_machine_is_not() {
        let run = |elsewhere_cores, stolen_cores| Disturbance {
            elsewhere_cores,
            stolen_cores,
        };
        assert!(remarks([].into_iter()).is_empty());
        assert!(remarks([run(0.1, 0.02)].into_iter()).is_empty());
        let runs = [run(0.2, 0.0), run(1.5, 0.25), run(0.0, 0.03)];
        let wanted = [
            "up to 1.5 cores busy elsewhere: not a quiet machine",
            "up to 0.25 cores stolen by the host",
        ];
        assert_eq!(remarks(runs.into_iter()), wanted);
    }
}
