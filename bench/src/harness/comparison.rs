//! The report of a comparison: who was measured, under which conditions, each figure as a median
//! with its extremes.
//!
//! One object for programs (`--json`) and a Markdown table for people, both from the same numbers.
//! Keys are part of the tool's interface: docs/BENCHMARKING.md explains them. Units are in the
//! names: GB/s is 10^9 bytes per second, GiB is 2^30 bytes.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use crate::harness::environment::Environment;
use crate::rivals::statistics::Spread;

/// The figures of one run by their key.
pub type Figures = BTreeMap<&'static str, f64>;

/// A column of the table.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// The figure's key, which ends with its unit.
    pub key: &'static str,
    /// What stands over it.
    pub title: &'static str,
    /// Digits after the point.
    pub digits: usize,
}

impl Column {
    /// From the start to the end.
    pub const WALL: Self = Self {
        key: "wall_s",
        title: "wall s",
        digits: 2,
    };

    /// What was hashed or moved by the time that it took.
    pub const GIGABYTES_PER_S: Self = Self {
        key: "gigabytes_per_s",
        title: "GB/s",
        digits: 2,
    };

    /// User and system time of all threads.
    pub const CPU: Self = Self {
        key: "cpu_s",
        title: "CPU s",
        digits: 2,
    };

    /// The most memory that was resident.
    pub const PEAK: Self = Self {
        key: "peak_mebibytes",
        title: "peak MiB",
        digits: 0,
    };
}

/// One figure of all runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// The median and the extremes.
    #[serde(flatten)]
    pub spread: Spread,
    /// Each run, in order.
    pub runs: Vec<f64>,
}

impl Figure {
    /// None of no runs.
    pub fn of(runs: Vec<f64>) -> Option<Self> {
        let spread = Spread::of(runs.iter().copied())?;
        Some(Self { spread, runs })
    }
}

/// One who was measured.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Its name.
    pub who: String,
    /// Which version, and how it was set up.
    pub version: String,
    /// Its figures.
    pub figures: BTreeMap<&'static str, Figure>,
    /// How the first of the comparison relates to it, in the same rounds: ours ÷ its.
    pub ratio: Option<Figure>,
    /// What a reader must know of this row.
    pub remark: Option<String>,
}

/// One who was not measured.
#[derive(Debug, Serialize)]
pub struct Absent {
    /// Its name.
    pub who: String,
    /// Why.
    pub reason: String,
}

/// See the head of this file.
#[derive(Debug, Serialize)]
pub struct Comparison {
    /// The subcommand.
    pub command: &'static str,
    /// The machine, and what this program is.
    pub environment: Environment,
    /// What was measured and how: name and value.
    pub settings: BTreeMap<&'static str, String>,
    /// Who was measured, in order.
    pub rows: Vec<Row>,
    /// Who was not.
    pub absent: Vec<Absent>,
    /// The key of the figure that `ratio` compares.
    pub ratio_of: &'static str,
    /// What a reader must know of all rows.
    pub remarks: Vec<String>,
    #[serde(skip)]
    columns: &'static [Column],
}

impl Comparison {
    /// A report without rows; `ratio_of` is the key of the figure by which they are compared.
    pub fn new(
        command: &'static str,
        environment: Environment,
        columns: &'static [Column],
        ratio_of: &'static str,
    ) -> Self {
        Self {
            command,
            environment,
            settings: BTreeMap::new(),
            rows: Vec::new(),
            absent: Vec::new(),
            ratio_of,
            remarks: Vec::new(),
            columns,
        }
    }

    /// Names a condition.
    pub fn setting(&mut self, name: &'static str, value: impl std::fmt::Display) {
        self.settings.insert(name, format!("{value}"));
    }

    /// Adds a row from its runs, one for each round; a round without a run is `None`. The first row
    /// that is added is the one that the others are compared with.
    pub fn row(
        &mut self,
        who: impl Into<String>,
        version: impl Into<String>,
        rounds: &[Option<Figures>],
        remark: Option<String>,
    ) {
        let runs = |key| -> Vec<f64> {
            let of = |round: &Option<Figures>| round.as_ref()?.get(key).copied();
            rounds.iter().filter_map(of).collect()
        };
        let keys = self.columns.iter().map(|column| column.key);
        let figures = keys.filter_map(|key| Some((key, Figure::of(runs(key))?)));
        self.rows.push(Row {
            who: who.into(),
            version: version.into(),
            figures: figures.collect(),
            ratio: None,
            remark,
        });
    }

    /// Fills in the ratios of row `first` to every other, round by round; `rounds` has a list for
    /// each row.
    pub fn ratios(&mut self, first: usize, rounds: &[Vec<Option<Figures>>]) {
        let key = self.ratio_of;
        let figure = |round: &Option<Figures>| round.as_ref()?.get(key).copied();
        let Some(ours) = rounds.get(first) else {
            return;
        };
        for (index, (row, theirs)) in self.rows.iter_mut().zip(rounds).enumerate() {
            if index == first {
                continue;
            }
            let both = ours.iter().zip(theirs);
            let ratios: Vec<f64> = both
                .filter_map(|(ours, theirs)| Some(figure(ours)? / figure(theirs)?))
                .filter(|ratio| ratio.is_finite())
                .collect();
            row.ratio = Figure::of(ratios);
        }
    }

    /// The table for people, with the conditions before it.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}", self.environment.to_text());
        for (name, value) in &self.settings {
            let _ = writeln!(text, "{name}: {value}");
        }
        let _ = writeln!(text, "\n{}", self.table());
        for row in &self.rows {
            let _ = writeln!(text, "{}: {}", row.who, row.version);
        }
        for absent in &self.absent {
            let _ = writeln!(text, "not measured: {}: {}", absent.who, absent.reason);
        }
        for remark in &self.remarks {
            let _ = writeln!(text, "{remark}");
        }
        text
    }

    fn table(&self) -> String {
        let with_ratio = self.rows.iter().any(|row| row.ratio.is_some());
        let with_remark = self.rows.iter().any(|row| row.remark.is_some());
        let mut lines = Vec::new();
        let mut titles = vec!["who".to_owned()];
        titles.extend(self.columns.iter().map(|column| column.title.to_owned()));
        if with_ratio {
            let first = self.rows.iter().find(|row| row.ratio.is_none());
            let first = first.map_or("first", |row| row.who.as_str());
            titles.push(format!("{} of {first} ÷ its", self.title_of(self.ratio_of)));
        }
        if with_remark {
            titles.push("remark".to_owned());
        }
        lines.push(titles);
        for row in &self.rows {
            let mut cells = vec![row.who.clone()];
            cells.extend(self.columns.iter().map(|column| {
                let figure = row.figures.get(column.key);
                figure.map_or("—".to_owned(), |figure| figure.spread.show(column.digits))
            }));
            if with_ratio {
                let ratio = row.ratio.as_ref();
                cells.push(ratio.map_or("—".to_owned(), |ratio| ratio.spread.show(2)));
            }
            if with_remark {
                cells.push(row.remark.clone().unwrap_or_default());
            }
            lines.push(cells);
        }
        aligned(&lines)
    }

    fn title_of(&self, key: &str) -> &'static str {
        let column = self.columns.iter().find(|column| column.key == key);
        column.map_or("figure", |column| column.title)
    }
}

/// A Markdown table whose first line is the head, with columns as wide as their widest cell.
fn aligned(lines: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let mut text = String::new();
    for (index, line) in lines.iter().enumerate() {
        for (column, cell) in line.iter().enumerate() {
            let _ = write!(text, "| {cell:<width$} ", width = width(column));
        }
        text.push_str("|\n");
        if index == 0 {
            for column in 0..line.len() {
                let _ = write!(text, "|{}", "-".repeat(width(column) + 2));
            }
            text.push_str("|\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: &[Column] = &[Column {
        key: "wall_s",
        title: "wall s",
        digits: 1,
    }];

    fn runs(values: &[f64]) -> Vec<Option<Figures>> {
        let figures = |&value: &f64| (!value.is_nan()).then(|| Figures::from([("wall_s", value)]));
        values.iter().map(figures).collect()
    }

    #[test]
    fn ratios_are_of_the_same_round_and_gaps_are_left_out() {
        let mut report = Comparison::new("create", Environment::here(&[]), COLUMNS, "wall_s");
        // Drift by a factor of ten between the rounds leaves the ratio alone; the second round has
        // one side only.
        let rounds = [
            runs(&[1.0, 7.0, 10.0]),
            runs(&[2.0, f64::NAN, 20.0]),
            runs(&[f64::NAN; 3]),
        ];
        for (who, rounds) in ["ours", "theirs", "broken"].into_iter().zip(&rounds) {
            report.row(who, "1", rounds, None);
        }
        report.ratios(0, &rounds);
        assert_eq!(report.rows[1].ratio.as_ref().unwrap().runs, [0.5, 0.5]);
        assert!(report.rows[0].ratio.is_none() && report.rows[2].ratio.is_none());
        let text = report.to_text();
        assert!(text.contains("| theirs | 11.0 (2.0–20.0)"), "{text}");
        assert!(text.contains("wall s of ours ÷ its"), "{text}");
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["rows"][0]["figures"]["wall_s"]["median"], 7.0);
        assert_eq!(json["rows"][2]["figures"], serde_json::json!({}));
    }

    #[test]
    fn tables_are_aligned_whatever_the_letters() {
        let lines = [
            vec!["a".to_owned(), "b".to_owned()],
            vec!["µµµ".to_owned(), "1".to_owned()],
        ];
        assert_eq!(aligned(&lines), "| a   | b |\n|-----|---|\n| µµµ | 1 |\n");
    }
}
