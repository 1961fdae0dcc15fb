//! Options that all comparisons of programs share.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;

use crate::harness::comparison::Comparison;
use crate::harness::rounds::Contender;

/// Something with a name that `--only` may choose.
pub trait Named {
    /// Its name.
    fn name(&self) -> String;
}

impl Named for Box<dyn Contender + '_> {
    fn name(&self) -> String {
        self.as_ref().name()
    }
}

/// Who runs, how often, and how it is told.
#[derive(Debug, Args)]
pub struct Choice {
    /// How often everybody runs; who is first turns from round to round.
    #[arg(long, value_name = "N", default_value = "5", value_parser = rounds)]
    pub rounds: usize,

    /// Measure only those whose names begin with one of these.
    #[arg(long, value_name = "NAME[,NAME]", value_delimiter = ',')]
    pub only: Vec<String>,

    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// What comparisons of programs need beside that.
#[derive(Debug, Args)]
pub struct Common {
    #[command(flatten)]
    pub choice: Choice,

    /// Keep the measured programs on these cores.
    #[arg(long, value_name = "CORE[,CORE]", value_delimiter = ',')]
    pub pin: Vec<usize>,

    /// Our server [default: the one beside this program].
    #[arg(long, value_name = "FILE")]
    pub seedring: Option<PathBuf>,

    /// A Python that has libtorrent.
    #[arg(long, value_name = "FILE", default_value = "python3")]
    pub libtorrent_python: PathBuf,

    /// Where data and working files go, in a folder that is removed at the end [default: the
    /// system's folder for temporary files].
    #[arg(long, value_name = "DIR")]
    pub directory: Option<PathBuf>,
}

impl Common {
    /// The program `seedring` to measure.
    pub fn seedring(&self) -> PathBuf {
        if let Some(path) = &self.seedring {
            return absolute(path);
        }
        let beside = std::env::current_exe().map(|path| path.with_file_name("seedring"));
        match beside {
            Ok(path) if path.is_file() => path,
            _ => PathBuf::from("seedring"),
        }
    }

    /// The Python that has libtorrent.
    pub fn python(&self) -> PathBuf {
        absolute(&self.libtorrent_python)
    }

    /// A folder for this run; it is removed when it is dropped.
    pub fn workspace(&self) -> anyhow::Result<tempfile::TempDir> {
        let mut builder = tempfile::Builder::new();
        builder.prefix("seedring-bench-");
        match &self.directory {
            None => builder.tempdir(),
            Some(directory) => builder.tempdir_in(absolute(directory)),
        }
        .with_context(|| match &self.directory {
            None => "cannot make a temporary folder".to_owned(),
            Some(directory) => format!("cannot make a folder in {directory:?}"),
        })
    }
}

impl Choice {
    /// Those of `all` that `--only` names; an error names what it names in vain.
    pub fn chosen<T: Named>(&self, all: Vec<T>) -> anyhow::Result<Vec<T>> {
        let names: Vec<String> = all.iter().map(Named::name).collect();
        let unknown =
            |prefix: &&String| !names.iter().any(|name| name.starts_with(prefix.as_str()));
        if let Some(prefix) = self.only.iter().find(unknown) {
            let known = names.join(", ");
            return Err(Usage(format!(
                "--only: nobody is called {prefix:?}; known are {known}"
            ))
            .into());
        }
        let named = |name: &str| {
            self.only
                .iter()
                .any(|prefix| name.starts_with(prefix.as_str()))
        };
        let mut all = all;
        all.retain(|one| self.only.is_empty() || named(&one.name()));
        Ok(all)
    }

    /// Prints the report and chooses the exit code: 1 if somebody failed, or nobody was there.
    pub fn print(&self, report: &Comparison, everybody: bool) -> anyhow::Result<ExitCode> {
        if self.json {
            println!("{}", serde_json::to_string(report)?);
        } else {
            print!("{}", report.to_text());
        }
        Ok(if everybody && !report.rows.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

/// The command line asks for what cannot be: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// Programs run in folders of their own, so what they are given must not depend on ours. A name
/// without a slash is looked up in the PATH, and links stay links: a Python's virtual environment
/// is where its link is.
fn absolute(path: &Path) -> PathBuf {
    match path.components().count() {
        1 if !path.is_dir() => path.to_owned(),
        _ => std::path::absolute(path).unwrap_or_else(|_| path.to_owned()),
    }
}

fn rounds(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(rounds @ 1..=1_000) => Ok(rounds),
        _ => Err("must be a number from 1 to 1000".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Someone(&'static str);

    impl Named for Someone {
        fn name(&self) -> String {
            self.0.to_owned()
        }
    }

    #[test]
    fn only_takes_beginnings_of_names_and_refuses_unknown_ones() {
        let choose = |only: &[&str]| {
            let choice = Choice {
                rounds: 1,
                only: only.iter().map(|&name| name.to_owned()).collect(),
                json: false,
            };
            let all = vec![
                Someone("ours, 1 thread"),
                Someone("ours, 2 threads"),
                Someone("theirs"),
            ];
            choice
                .chosen(all)
                .map(|chosen| chosen.iter().map(|one| one.0).collect::<Vec<_>>())
        };
        assert_eq!(choose(&[]).unwrap().len(), 3);
        assert_eq!(
            choose(&["ours"]).unwrap(),
            ["ours, 1 thread", "ours, 2 threads"]
        );
        assert_eq!(
            choose(&["theirs", "ours, 2"]).unwrap(),
            ["ours, 2 threads", "theirs"]
        );
        let error = choose(&["ours", "hers"]).unwrap_err();
        assert!(error.downcast_ref::<Usage>().is_some());
        assert!(
            error
                .to_string()
                .contains("\"hers\"; known are ours, 1 thread"),
            "{error}"
        );
    }

    #[test]
    fn rounds_are_at_least_one() {
        assert_eq!(rounds("3"), Ok(3));
        assert!(rounds("0").is_err() && rounds("x").is_err());
    }
}
