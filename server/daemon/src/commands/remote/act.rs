//! `seedring pause`, `resume`, `remove`, `recheck`, `announce`: the same done to many torrents.

use super::select::{MISSING, Targets, Which, list_query};
use super::text::name;
use super::{Failed, Outcome, Remote};
use crate::cli::Global;
use crate::client::{Error, ServerArgs, query};
use crate::failure::Failure;
use crate::progress::{counted, print, print_json};
use anyhow::{Context, anyhow};
use clap::Args;
use control::api::types::{Bulk, BulkAction, BulkEdit, BulkResult, ListQuery};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::io::{IsTerminal, Write};

/// Torrents that are named in one request; the API takes no more.
pub const TOGETHER: usize = 10_000;

const EXAMPLES: &str = "\
Examples (pause stands for resume, recheck and announce, too):
  seedring pause debian-12.iso           by its name
  seedring pause 3fa9 77d01c             by the beginnings of their info-hashes, 4 digits or more
  seedring pause --label tv --status seeding
  seedring pause --all

Exit code 0: done; 1: not, or not to all: each failure is named; 2: the command line is wrong, or \
a name fits several torrents, which are shown, and nothing was done. --json prints one line: \
{\"event\":…, done, failed_total, failed: [{name, info_hash, reason}]}.";

const REMOVE_EXAMPLES: &str = "\
Examples:
  seedring remove debian-12.iso          the server forgets it, its data stay
  seedring remove 3fa9 --with-data       asks, then deletes its data, too
  seedring remove --status failed --with-data --yes

With --with-data or --all it asks first; where nobody can be asked, it wants --yes. Exit code 0: \
done; 1: not, or not to all: each failure is named; 2: the command line is wrong, or a name fits \
several torrents, which are shown, and nothing was done. --json prints one line: \
{\"event\":\"removed\", done, failed_total, failed: [{name, info_hash, reason}]}.";

/// Arguments of `seedring pause` and its like.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ActArgs {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    server: ServerArgs,
}

/// Arguments of `seedring remove`.
#[derive(Debug, Args)]
#[command(after_help = REMOVE_EXAMPLES)]
pub struct RemoveArgs {
    /// Delete their data, too
    #[arg(long)]
    with_data: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    server: ServerArgs,
}

/// An action and the words for it.
pub struct Act {
    /// It.
    pub action: BulkAction,
    /// What has been done then: `paused`.
    pub done: &'static str,
}

/// `seedring pause`.
pub const PAUSE: Act = act(BulkAction::Pause, "paused");
/// `seedring resume`.
pub const RESUME: Act = act(BulkAction::Resume, "resumed");
/// `seedring recheck`.
pub const RECHECK: Act = act(BulkAction::Recheck, "rechecking");
/// `seedring announce`.
pub const ANNOUNCE: Act = act(BulkAction::Announce, "announcing");
/// `seedring remove`.
const REMOVE: Act = act(BulkAction::Remove, "removed");
/// What `limit`, `label` and `category` do.
pub const EDIT: Act = act(BulkAction::Edit, "changed");

const fn act(action: BulkAction, done: &'static str) -> Act {
    Act { action, done }
}

#[derive(Serialize)]
struct Line<'a> {
    event: &'static str,
    done: usize,
    failed_total: usize,
    failed: &'a [Failed],
}

/// Runs `pause` and its like.
pub fn run(global: &Global, args: &ActArgs, act: &Act) -> Result<(), Failure> {
    let remote = Remote::new(global, &args.server)?;
    let targets = args.which.targets(&remote)?;
    bulk(&remote, targets, act, false, None)
}

/// Runs `remove`.
pub fn remove(global: &Global, args: &RemoveArgs) -> Result<(), Failure> {
    let remote = Remote::new(global, &args.server)?;
    let targets = args.which.targets(&remote)?;
    let is_asked = (args.with_data || args.which.all) && !args.yes;
    if is_asked && !confirmed(&remote, &targets, args.with_data)? {
        return Err(Failure::Failed(anyhow!("nothing was removed")));
    }
    bulk(&remote, targets, &REMOVE, args.with_data, None)
}

/// Asks whoever is at the terminal.
fn confirmed(remote: &Remote, targets: &Targets, with_data: bool) -> Result<bool, Failure> {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Err(Failure::Usage(anyhow!(
            "nobody can be asked whether this is meant: say so with --yes"
        )));
    }
    let what = match targets {
        Targets::Named(found, _) if found.len() == 1 => format!("{:?}", name(&found[0].name)),
        Targets::Named(found, _) => counted(found.len() as u64, "torrent"),
        Targets::Filter(filter) => {
            #[derive(Deserialize)]
            struct Total {
                total: u64,
            }
            let asked = query(&ListQuery {
                limit: 1,
                ..list_query(filter)
            });
            let Total { total } = remote.get(&format!("/torrents{asked}"))?;
            counted(total, "torrent")
        }
    };
    let data = if with_data {
        " and delete the data"
    } else {
        ""
    };
    eprint!("Remove {what}{data}? [y/N] ");
    std::io::stderr().flush().context("cannot ask")?;
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .context("cannot read the answer")?;
    Ok(is_yes(&answer))
}

fn is_yes(answer: &str) -> bool {
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

/// Does it, and tells what became of it.
pub fn bulk(
    remote: &Remote,
    targets: Targets,
    act: &Act,
    with_data: bool,
    edit: Option<BulkEdit>,
) -> Result<(), Failure> {
    let request = Bulk {
        action: act.action,
        torrents: None,
        filter: None,
        with_data,
        edit,
    };
    let outcome = match targets {
        Targets::Filter(filter) => {
            let result = ask(
                remote,
                &Bulk {
                    filter: Some(filter),
                    ..request
                },
            )?;
            outcome(result, &HashMap::new())
        }
        Targets::Named(found, absent) => {
            let mut all = Outcome::default();
            let names: HashMap<&str, &str> = found
                .iter()
                .map(|one| (one.info_hash.as_str(), one.name.as_str()))
                .collect();
            for together in found.chunks(TOGETHER) {
                let hashes = together.iter().map(|one| one.info_hash.clone()).collect();
                let request = Bulk {
                    torrents: Some(hashes),
                    ..request.clone()
                };
                let part = outcome(ask(remote, &request)?, &names);
                all.done += part.done;
                all.failed.extend(part.failed);
                all.failed_more += part.failed_more;
            }
            all.failed.extend(absent.into_iter().map(|wanted| Failed {
                reason: MISSING.to_owned(),
                name: name(&wanted),
                info_hash: None,
            }));
            all
        }
    };
    if remote.json {
        print_json(&Line {
            event: act.done,
            done: outcome.done,
            failed_total: outcome.failed.len() + outcome.failed_more,
            failed: &outcome.failed,
        });
    } else if outcome.done > 0 || outcome.failed.is_empty() {
        print(&format!(
            "{} {}\n",
            act.done,
            counted(outcome.done as u64, "torrent")
        ));
    }
    outcome.conclude(&format!("torrents could not be {}", undone(act)))
}

/// The word for what was not done.
fn undone(act: &Act) -> &'static str {
    match act.action {
        BulkAction::Recheck => "rechecked",
        BulkAction::Announce => "announced",
        _ => act.done,
    }
}

fn ask(remote: &Remote, request: &Bulk) -> Result<BulkResult, Error> {
    remote.send_for(Method::POST, "/torrents/actions", request)
}

fn outcome(result: BulkResult, names: &HashMap<&str, &str>) -> Outcome {
    let failed_more = result.failed_total.saturating_sub(result.failed.len());
    let failed = result.failed.into_iter().map(|failure| {
        let known = names.get(failure.info_hash.as_str());
        let problem = failure.problem;
        Failed {
            name: name(known.map_or(failure.info_hash.as_str(), |known| known)),
            reason: name(match problem.detail.is_empty() {
                true => &problem.title,
                false => &problem.detail,
            }),
            info_hash: Some(failure.info_hash),
        }
    });
    Outcome {
        done: result.done,
        failed: failed.collect(),
        failed_more,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_yes_is_one() {
        for (answer, yes) in [("y\n", true), ("YES", true), ("", false), ("yy", false)] {
            assert_eq!(is_yes(answer), yes, "{answer:?}");
        }
    }
}
