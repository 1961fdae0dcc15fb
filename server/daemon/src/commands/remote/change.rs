//! `seedring move`, `queue`, `limit`, `label`, `category`, `super-seed`: what is kept of torrents.

use super::act::{EDIT, bulk};
use super::limits::LimitOptions;
use super::select::{MISSING, Named, Targets, Which, one};
use super::table::{Column, table};
use super::text::{name, rate_limit};
use super::{Failed, Outcome, Remote, absolute, terminal_columns};
use crate::cli::Global;
use crate::client::ServerArgs;
use crate::failure::Failure;
use crate::progress::{counted, print, print_json};
use anyhow::anyhow;
use clap::Args;
use control::api::types::{
    BulkEdit, EditServerLimits, EditTorrent, GroupList, MoveTorrent, Place, QueuePlace,
    ServerLimits, TorrentDetails,
};
use reqwest::Method;
use std::path::PathBuf;

/// Arguments of `seedring move`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  seedring move debian-12.iso --to /srv/isos
  seedring move --label tv --to /mnt/big/tv
  seedring move 3fa9 --to /new/place --data-are-there     they were moved by other means

The data are served while they are moved. `seedring list --status moving` shows how far it is.
A move that a disk keeps from going on (it is full, or away) is tried again until it is made; what
it waits for is the torrent's last error. Moving to the folder where the data are gives it up.")]
pub struct MoveArgs {
    /// The folder that is to hold their files
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// The data are there already: move nothing
    #[arg(long)]
    data_are_there: bool,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    server: ServerArgs,
}

/// Arguments of `seedring queue`.
#[derive(Debug, Args)]
#[command(
    group = clap::ArgGroup::new("place").required(true),
    after_help = "\
Examples:
  seedring queue debian-12.iso --first
  seedring queue 3fa9 --after 77d0
  seedring queue 3fa9 --out               it waits for no turn"
)]
pub struct QueueArgs {
    /// The torrent: its info-hash, the beginning of it, or its name
    #[arg(value_name = "TORRENT")]
    torrent: String,
    /// Before all others
    #[arg(long, group = "place")]
    first: bool,
    /// Behind all others
    #[arg(long, group = "place")]
    last: bool,
    /// Out of the queue
    #[arg(long, group = "place")]
    out: bool,
    /// Right before this one
    #[arg(long, group = "place", value_name = "TORRENT")]
    before: Option<String>,
    /// Right behind this one
    #[arg(long, group = "place", value_name = "TORRENT")]
    after: Option<String>,
    #[command(flatten)]
    server: ServerArgs,
}

/// Arguments of `seedring limit`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  seedring limit debian-12.iso --up 2MB/s --ratio 2 --at-limit pause
  seedring limit --label tv --up default
  seedring limit debian-12.iso            show its limits
  seedring limit --whole-server --up 50Mbit/s --down none
  seedring limit --whole-server --up default   that of the configuration again
  seedring limit --whole-server           show the server's limits")]
pub struct LimitArgs {
    /// The limits of the whole server: --up and --down
    #[arg(long, conflicts_with_all = ["torrents", "all", "peers_max", "ratio", "seed_time"])]
    whole_server: bool,
    #[command(flatten)]
    limits: LimitOptions,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    server: ServerArgs,
}

/// Arguments of `seedring super-seed`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  seedring super-seed debian-12.iso on
  seedring super-seed 3fa9 off            peers that are connected are told of everything

For the first seed of something new: each piece is sent about once until all are in the swarm. \
Peers that are connected go on as they are; `seedring add --super-seeding` begins with it.")]
pub struct SuperSeedArgs {
    /// The torrent: its info-hash, the beginning of it, or its name
    #[arg(value_name = "TORRENT")]
    torrent: String,
    /// Whether it is super-seeded from now on
    #[arg(value_name = "on|off", value_parser = on_or_off, action = clap::ArgAction::Set)]
    on: bool,
    #[command(flatten)]
    server: ServerArgs,
}

fn on_or_off(text: &str) -> Result<bool, &'static str> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("it is on or off"),
    }
}

/// Arguments of `seedring label`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  seedring label                          all labels, and how many torrents have each
  seedring label debian-12.iso --add iso --remove new
  seedring label --match ubuntu --set iso,linux
  seedring label 3fa9 --set ''            no label")]
pub struct LabelArgs {
    /// A label that they get (repeatable)
    #[arg(long, value_name = "LABEL")]
    add: Vec<String>,
    /// A label that they lose (repeatable)
    #[arg(long, value_name = "LABEL")]
    remove: Vec<String>,
    /// Their labels, with commas between, in place of those they have
    #[arg(long, value_name = "LABELS", conflicts_with_all = ["add", "remove"])]
    set: Option<String>,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    server: ServerArgs,
}

/// Arguments of `seedring category`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  seedring category                       all categories, and how many torrents are in each
  seedring category debian-12.iso --set isos
  seedring category --category old --none")]
pub struct CategoryArgs {
    /// The category
    #[arg(long, value_name = "NAME")]
    set: Option<String>,
    /// None
    #[arg(long, conflicts_with = "set")]
    none: bool,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    server: ServerArgs,
}

/// Runs `move`.
pub fn move_data(global: &Global, args: &MoveArgs) -> Result<(), Failure> {
    let remote = Remote::new(global, &args.server)?;
    let request = MoveTorrent {
        save_path: absolute(&args.to)?,
        data_are_there: args.data_are_there,
    };
    let (found, absent) = each(&remote, args.which.targets(&remote)?)?;
    let mut outcome = Outcome::default();
    for wanted in absent {
        outcome.failed.push(Failed {
            reason: MISSING.to_owned(),
            name: name(&wanted),
            info_hash: None,
        });
    }
    for torrent in found {
        let path = format!("/torrents/{}/move", torrent.info_hash);
        match remote.send(Method::POST, &path, &request) {
            Ok(()) => outcome.done += 1,
            Err(error) => outcome.failed.push(Failed {
                name: name(&torrent.name),
                info_hash: Some(torrent.info_hash),
                reason: error.to_string(),
            }),
        }
    }
    if remote.json {
        print_json(&serde_json::json!({
            "event": "moving", "done": outcome.done, "failed": outcome.failed
        }));
    } else if outcome.done > 0 || outcome.failed.is_empty() {
        let torrents = counted(outcome.done as u64, "torrent");
        print(&format!(
            "moving {torrents} to {}\n",
            name(&request.save_path)
        ));
    }
    outcome.conclude("torrents could not be moved")
}

/// The torrents one by one, for what the API does to one at a time.
fn each(remote: &Remote, targets: Targets) -> Result<(Vec<Named>, Vec<String>), Failure> {
    match targets {
        Targets::Named(found, absent) => Ok((found, absent)),
        Targets::Filter(filter) => Ok((super::select::passing(remote, &filter)?, Vec::new())),
    }
}

/// Runs `queue`.
pub fn queue(global: &Global, args: &QueueArgs) -> Result<(), Failure> {
    let remote = Remote::new(global, &args.server)?;
    let torrent = one(&remote, &args.torrent)?;
    let place = match (&args.before, &args.after) {
        (Some(other), _) => Place::Before(one(&remote, other)?.info_hash),
        (_, Some(other)) => Place::After(one(&remote, other)?.info_hash),
        _ if args.first => Place::First,
        _ if args.last => Place::Last,
        _ => Place::Out,
    };
    let path = format!("/torrents/{}/queue", torrent.info_hash);
    remote.send(Method::POST, &path, &QueuePlace { place })?;
    if remote.json {
        print_json(&serde_json::json!({ "event": "queued", "info_hash": torrent.info_hash }));
    } else {
        print(&format!("{} has its new place\n", name(&torrent.name)));
    }
    Ok(())
}

/// Runs `limit`.
pub fn limit(global: &Global, args: &LimitArgs) -> Result<(), Failure> {
    let remote = Remote::new(global, &args.server)?;
    if args.whole_server {
        return server_limits(&remote, args);
    }
    if args.limits.is_given() {
        let targets = args.which.targets(&remote)?;
        let edit = BulkEdit {
            limits: Some(args.limits.edit()),
            ..BulkEdit::default()
        };
        return bulk(&remote, targets, &EDIT, false, Some(edit));
    }
    let [wanted] = args.which.torrents.as_slice() else {
        return Err(Failure::Usage(anyhow!(
            "which limit? Give --up, --down, --peers-max, --ratio, --seed-time or --at-limit; or \
             name one torrent to see its limits"
        )));
    };
    let torrent = one(&remote, wanted)?;
    let details: TorrentDetails = remote.get(&format!("/torrents/{}", torrent.info_hash))?;
    let limits = details.torrent.limits;
    if remote.json {
        print_json(&limits);
        return Ok(());
    }
    print(&super::inspect::limit_lines(&limits));
    Ok(())
}

fn server_limits(remote: &Remote, args: &LimitArgs) -> Result<(), Failure> {
    let edit = EditServerLimits {
        upload_rate: args.limits.up.map(super::limits::Limit::value),
        download_rate: args.limits.down.map(super::limits::Limit::value),
    };
    if args.which.filter.is_given() {
        return Err(Failure::Usage(anyhow!(
            "the limits of the whole server have no filter"
        )));
    }
    if edit != EditServerLimits::default() {
        remote.send(Method::PATCH, "/limits", &edit)?;
    }
    let limits: ServerLimits = remote.get("/limits")?;
    if remote.json {
        print_json(&limits);
        return Ok(());
    }
    let (up, down) = (
        rate_limit(limits.upload_rate),
        rate_limit(limits.download_rate),
    );
    print(&format!("up    {up}\ndown  {down}\n"));
    Ok(())
}

/// Runs `label`.
pub fn label(global: &Global, args: &LabelArgs) -> Result<(), Failure> {
    let remote = Remote::new(global, &args.server)?;
    let changes = !args.add.is_empty() || !args.remove.is_empty() || args.set.is_some();
    if !changes {
        return groups(
            &remote,
            &args.which,
            "/labels",
            "label",
            "--add, --remove or --set",
        );
    }
    let set = args.set.as_ref().map(|labels| {
        let labels = labels.split(',').map(str::trim);
        let labels = labels.filter(|label| !label.is_empty());
        labels.map(str::to_owned).collect()
    });
    let edit = BulkEdit {
        labels: set,
        labels_added: args.add.clone(),
        labels_removed: args.remove.clone(),
        ..BulkEdit::default()
    };
    let targets = args.which.targets(&remote)?;
    bulk(&remote, targets, &EDIT, false, Some(edit))
}

/// Runs `super-seed`.
pub fn super_seed(global: &Global, args: &SuperSeedArgs) -> Result<(), Failure> {
    let remote = Remote::new(global, &args.server)?;
    let torrent = one(&remote, &args.torrent)?;
    let edit = EditTorrent {
        super_seeding: Some(args.on),
        ..EditTorrent::default()
    };
    let path = format!("/torrents/{}", torrent.info_hash);
    remote.send(Method::PATCH, &path, &edit)?;
    match remote.json {
        true => print_json(&serde_json::json!({
            "event": "changed", "info_hash": torrent.info_hash, "super_seeding": args.on
        })),
        false => print(&format!(
            "super-seeding {}: {}\n",
            if args.on { "on" } else { "off" },
            name(&torrent.name)
        )),
    }
    Ok(())
}

/// Runs `category`.
pub fn category(global: &Global, args: &CategoryArgs) -> Result<(), Failure> {
    let remote = Remote::new(global, &args.server)?;
    if args.set.is_none() && !args.none {
        return groups(
            &remote,
            &args.which,
            "/categories",
            "category",
            "--set or --none",
        );
    }
    let edit = BulkEdit {
        category: Some(args.set.clone().filter(|name| !name.is_empty())),
        ..BulkEdit::default()
    };
    let targets = args.which.targets(&remote)?;
    bulk(&remote, targets, &EDIT, false, Some(edit))
}

/// Shows all labels, or categories, if no torrents are named.
fn groups(
    remote: &Remote,
    which: &Which,
    path: &str,
    title: &'static str,
    options: &str,
) -> Result<(), Failure> {
    if which.is_given() {
        return Err(Failure::Usage(anyhow!(
            "what is to be changed? Give {options}"
        )));
    }
    let list: GroupList = remote.get(path)?;
    if remote.json {
        list.groups.iter().for_each(print_json);
        return Ok(());
    }
    let rows: Vec<Vec<String>> = list
        .groups
        .iter()
        .map(|group| vec![name(&group.name), group.torrents.to_string()])
        .collect();
    let columns = [Column::text(title, 0), Column::figure("torrents", 1)];
    print(&table(&columns, &rows, terminal_columns()));
    Ok(())
}
