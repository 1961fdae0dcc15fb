//! The subcommands: one file each, with its arguments and a `run` that says the exit code.

pub mod create;
pub mod get;
pub mod hash;
pub mod rivals;
pub mod seed;
pub mod torrents;
pub mod tracker;

/// An error with its causes, each told once: some of ours name their cause in their own text.
pub fn describe(error: &anyhow::Error) -> String {
    let mut told = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if told.is_empty() {
            told = cause;
        } else if !told.contains(&cause) {
            told = format!("{told}: {cause}");
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use anyhow::{Context as _, anyhow};

    use super::*;

    #[test]
    fn each_cause_is_told_once() {
        let error = Err::<(), _>(anyhow!("no such file"))
            .context("cannot read x: no such file")
            .context("cannot start")
            .unwrap_err();
        assert_eq!(
            describe(&error),
            "cannot start: cannot read x: no such file"
        );
    }
}
