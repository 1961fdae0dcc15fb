//! `seedring add`: torrents for a running server.

use super::limits::LimitOptions;
use super::text::{name, short_hash};
use super::{Failed, Outcome, Remote, absolute};
use crate::cli::Global;
use crate::client::{Error, ServerArgs};
use crate::commands::create::{Tier, parse_tier};
use crate::failure::Failure;
use crate::getting::{Choice, priorities};
use crate::progress::{print, print_json};
use anyhow::{Context, anyhow};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use clap::Args;
use control::api::types::{AddTorrent, Added, FilePriority};
use control::web;
use engine::picker::Priority;
use proto::limits::METAINFO_BYTES_MAX;
use proto::metainfo::Metainfo;
use reqwest::Method;
use serde::Serialize;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The priority of a file that is wanted as usual.
pub const USUAL: u8 = 4;
/// Files that numbers may name: more than a torrent has.
const NUMBERS_MAX: usize = 100_000;

/// Arguments of `seedring add`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  seedring add debian-12.torrent -d /srv/isos --label iso
  seedring add 'magnet:?xt=urn:btih:…' --category tv --first
  seedring add https://example.com/set.torrent --select '*.mkv' --sequential
  seedring add ~/videos                   makes a torrent of a folder and seeds it
  seedring add *.torrent -d /data --seed-mode --paused

A .torrent file is sent to the server; another file or a folder is one of the server's, which \
makes a torrent of it. Adding a torrent that is there changes nothing. Exit code 0: all are there; 1: \
some are not, each is named with the reason; 2: the command line is wrong. --json prints a line \
{\"event\":\"added\", info_hash, name, was_there} for each, and \
{\"event\":\"failed\", name, reason}.")]
pub struct AddArgs {
    /// .torrent files, magnet links in quotes, URLs of .torrent files, files or folders to seed
    #[arg(value_name = "FILE|MAGNET|URL|PATH", required = true)]
    what: Vec<String>,
    /// The folder that has or gets the data [default: the category's, else the server's]
    #[arg(short = 'd', long, value_name = "DIR")]
    save_path: Option<PathBuf>,
    /// The name that is shown
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Its category
    #[arg(long, value_name = "NAME")]
    category: Option<String>,
    /// A label (repeatable)
    #[arg(long, value_name = "LABEL")]
    label: Vec<String>,
    /// It waits until it is resumed
    #[arg(long)]
    paused: bool,
    /// Its data are there and whole: hash them before they are first served, not now
    #[arg(long)]
    seed_mode: bool,
    /// From the beginning to the end, in place of the rarest pieces first
    #[arg(long)]
    sequential: bool,
    /// Tell each peer of few pieces, so that every piece is sent about once (BEP 16)
    #[arg(long)]
    super_seeding: bool,
    /// Only these files: numbers as `seedring show` prints them, such as 0,2-4; of a .torrent file
    /// patterns, too, such as '*.iso' (repeatable)
    #[arg(long, value_name = "FILES")]
    select: Vec<Choice>,
    /// Ask this tracker first; several of one tier with commas between (repeatable: each is a tier)
    #[arg(long, value_name = "URL[,URL…]", value_parser = parse_tier)]
    tracker: Vec<Tier>,
    /// Ask this peer at once (repeatable)
    #[arg(long, value_name = "ADDR:PORT")]
    peer: Vec<String>,
    /// Before all others in the queue
    #[arg(long)]
    first: bool,
    #[command(flatten)]
    limits: LimitOptions,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Serialize)]
struct Line<'a> {
    event: &'static str,
    #[serde(flatten)]
    added: &'a Added,
}

/// Runs the command.
pub fn run(global: &Global, args: &AddArgs) -> Result<(), Failure> {
    if args.what.len() > 1 && args.name.is_some() {
        return Err(Failure::Usage(anyhow!(
            "one --name cannot be that of several torrents"
        )));
    }
    let options = options(args)?;
    let remote = Remote::new(global, &args.server)?;
    let mut outcome = Outcome::default();
    for what in &args.what {
        let added = request(what, &args.select, &options).and_then(|request| {
            let added: Result<Added, Error> = remote.send_for(Method::POST, "/torrents", &request);
            added.map_err(|error| error.to_string())
        });
        match added {
            Ok(added) => {
                outcome.done += 1;
                tell(&remote, &added);
            }
            Err(reason) => {
                let failed = Failed {
                    name: shown(what),
                    info_hash: None,
                    reason,
                };
                if remote.json {
                    print_json(&serde_json::json!({
                        "event": "failed", "name": failed.name, "reason": failed.reason
                    }));
                }
                outcome.failed.push(failed);
            }
        }
    }
    outcome.conclude("torrents were not added")
}

fn tell(remote: &Remote, added: &Added) {
    if remote.json {
        print_json(&Line {
            event: "added",
            added,
        });
        return;
    }
    let word = if added.was_there { "is there" } else { "added" };
    let shown = match added.name.is_empty() {
        true => "(name not known yet)".to_owned(),
        false => name(&added.name),
    };
    print(&format!(
        "{word}: {shown}  {}\n",
        short_hash(&added.info_hash)
    ));
}

/// What the user added, without what may be secret in it.
fn shown(what: &str) -> String {
    match what.split_once('?') {
        Some((head, _)) if is_magnet(what) || web::is_url(what) => format!("{}?…", name(head)),
        _ => name(what),
    }
}

/// What all of them have in common.
fn options(args: &AddArgs) -> Result<AddTorrent, Failure> {
    Ok(AddTorrent {
        save_path: args.save_path.as_deref().map(absolute).transpose()?,
        name: args.name.clone(),
        category: args.category.clone(),
        labels: args.label.clone(),
        paused: args.paused,
        seed_mode: args.seed_mode,
        sequential: args.sequential,
        super_seeding: args.super_seeding,
        limits: args.limits.limits(),
        trackers: args.tracker.iter().map(|tier| tier.0.clone()).collect(),
        peers: args.peer.clone(),
        first_in_queue: args.first,
        ..AddTorrent::default()
    })
}

fn is_magnet(what: &str) -> bool {
    what.split_at_checked("magnet:".len())
        .is_some_and(|(scheme, _)| scheme.eq_ignore_ascii_case("magnet:"))
}

/// The request that adds `what`.
///
/// # Errors
///
/// It cannot be read, or is not there.
pub fn request(what: &str, select: &[Choice], options: &AddTorrent) -> Result<AddTorrent, String> {
    let mut request = options.clone();
    if is_magnet(what) || web::is_url(what) {
        request.files = numbers(select)?;
        match is_magnet(what) {
            true => request.magnet = Some(what.to_owned()),
            false => request.url = Some(what.to_owned()),
        }
    } else if Path::new(what)
        .extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("torrent"))
    {
        let bytes = read(Path::new(what)).map_err(|error| format!("{error:#}"))?;
        request.files = chosen(&bytes, select)?;
        request.metainfo = Some(BASE64_STANDARD.encode(bytes));
    } else {
        if !select.is_empty() {
            return Err("--select is for torrents; of a folder all files are seeded".into());
        }
        std::fs::symlink_metadata(what).map_err(|error| error.to_string())?;
        let path = absolute(Path::new(what));
        request.path = Some(path.map_err(|_| "its name is no UTF-8".to_owned())?);
    }
    request.only_named = !request.files.is_empty();
    Ok(request)
}

/// A .torrent file, which is no longer than one may be.
fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| {
            file.take(METAINFO_BYTES_MAX as u64 + 1)
                .read_to_end(&mut bytes)
        })
        .context("cannot read it")?;
    match bytes.len() > METAINFO_BYTES_MAX {
        true => Err(anyhow!("it is no torrent: it has more than 64 MiB")),
        false => Ok(bytes),
    }
}

/// The files of a torrent that is at hand.
fn chosen(torrent: &[u8], select: &[Choice]) -> Result<Vec<FilePriority>, String> {
    if select.is_empty() {
        return Ok(Vec::new());
    }
    let metainfo = Metainfo::parse(torrent).map_err(|error| error.to_string())?;
    let priorities = priorities(&metainfo, select)?;
    let wanted = (0..)
        .zip(&priorities)
        .filter(|(_, one)| **one != Priority::SKIP);
    Ok(wanted
        .map(|(index, _)| FilePriority {
            index,
            priority: USUAL,
        })
        .collect())
}

/// The files of a torrent that the server has to find out first.
fn numbers(select: &[Choice]) -> Result<Vec<FilePriority>, String> {
    let mut files = Vec::new();
    for choice in select {
        let Choice::Numbers(ranges) = choice else {
            return Err(
                "--select takes patterns for .torrent files only; of links and URLs give numbers"
                    .into(),
            );
        };
        for index in ranges.iter().cloned().flatten() {
            if files.len() == NUMBERS_MAX {
                return Err(format!("--select names more than {NUMBERS_MAX} files"));
            }
            files.push(FilePriority {
                index,
                priority: USUAL,
            });
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn select(choices: &[&str]) -> Vec<Choice> {
        choices.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn what_is_added_is_told_apart() {
        let options = AddTorrent::default();
        let folder = tempfile::tempdir().unwrap();
        let of = |what: &str, choices: &[&str]| request(what, &select(choices), &options);
        let magnet = of("MAGNET:?xt=urn:btih:x", &["0,2-3"]).unwrap();
        assert!(magnet.magnet.is_some() && magnet.only_named);
        let indexes: Vec<u32> = magnet.files.iter().map(|file| file.index).collect();
        assert_eq!(indexes, [0, 2, 3]);
        assert!(of("http://a/b.torrent", &[]).unwrap().url.is_some());
        assert!(
            of("magnet:?x", &["*.iso"])
                .unwrap_err()
                .contains("patterns")
        );
        assert!(of("magnet:?x", &["0-4000000000"]).is_err(), "bounded");
        assert!(
            of("/no/such/file.torrent", &[])
                .unwrap_err()
                .contains("cannot read")
        );
        assert!(of("/no/such/folder", &[]).is_err());
        let path = folder.path().to_str().unwrap();
        assert_eq!(of(path, &[]).unwrap().path.as_deref(), Some(path));
        assert!(of(path, &["0"]).is_err());
        let torrent = folder.path().join("x.TORRENT");
        std::fs::write(&torrent, "d4:infoe").unwrap();
        let sent = of(torrent.to_str().unwrap(), &[]).unwrap();
        assert_eq!(sent.metainfo.as_deref(), Some("ZDQ6aW5mb2U="));
        assert!(
            of(torrent.to_str().unwrap(), &["0"]).is_err(),
            "it cannot be read"
        );
    }

    #[test]
    fn a_link_is_named_without_its_secrets() {
        assert_eq!(
            shown("magnet:?xt=urn:btih:x&tr=http://t/secret"),
            "magnet:?…"
        );
        assert_eq!(shown("https://t/dl?passkey=7"), "https://t/dl?…");
        assert_eq!(shown("what?.torrent"), "what?.torrent");
    }
}
