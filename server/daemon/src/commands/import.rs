//! `seedring import`: takes over the torrents of another client into the state store, while no
//! server uses it.

use super::state::state_dir;
use crate::cli::Global;
use crate::failure::Failure;
use crate::progress::{Counter, counted, print, print_json, shown};
use anyhow::anyhow;
use clap::{Args, ValueEnum};
use control::import::folder::Source;
use control::import::{Client, Imported, Importer, Maps, Note};
use proto::ids::InfoHashV1;
use proto::text::printable;
use serde::Serialize;
use state::{Condition, NewTorrent, Options, STORE_FILE, Store, Summary, Totals, Verified, Write};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Torrents that are written together, and their bytes of metainfo at most.
const BATCH_TORRENTS: usize = 256;
const BATCH_BYTES: usize = 16 << 20;
/// Skipped torrents that are named. The others are counted.
const SKIPS_TOLD_MAX: usize = 100;
/// The longest reason, name or category that is shown, in characters.
const TEXT_CHARS_MAX: usize = 300;

const EXAMPLES: &str = "\
Examples:
  seedring import qbittorrent ~/.local/share/qBittorrent --dry-run
  seedring import transmission ~/.config/transmission-daemon --path-map /downloads=/srv/torrents
  seedring import rtorrent ~/.session --category-map 'tv shows=tv' --json

Quit the other client first: what it remembers is complete only then. Pieces are taken over \
without being hashed where the files bear out what the client remembers of them; docs/IMPORT.md \
says when. A torrent that is in the store already is left as it is, so a second import changes \
nothing.

Exit code 0: every torrent is in the store; 1: some were skipped, or a server has the store; 2: \
the command line or the configuration is wrong. --json prints progress lines, a line \
{\"event\":\"torrent\", outcome, file, info_hash_v1, name, save_path, category, labels, \
uploaded_bytes, downloaded_bytes, pieces, pieces_verified, condition, paused, reason} for each \
torrent (outcome: new, known or skipped; of a known one what the store has), and at the end \
{\"event\":\"imported\", dry_run, new, seeding, downloading, paused, to_check, offline, known, \
skipped, notes, categories}.";

/// Arguments of `seedring import`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ImportArgs {
    /// The client whose torrents are taken over
    #[arg(value_enum)]
    client: ClientArg,
    /// Its folder: qBittorrent's BT_backup, Transmission's configuration, rTorrent's session
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
    /// A category or label of the client's and the category that it is here; with nothing behind
    /// the =, none (repeatable)
    #[arg(long, value_name = "FROM=TO", value_parser = pair)]
    category_map: Vec<(String, String)>,
    /// A folder as the client knows it and what it is here, such as for a client in a container
    /// (repeatable; the longest that fits is taken)
    #[arg(long, value_name = "FROM=TO", value_parser = paths)]
    path_map: Vec<(PathBuf, PathBuf)>,
    /// Say what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// A client.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum ClientArg {
    /// qBittorrent 4 and 5, from its .fastresume files
    Qbittorrent,
    /// Transmission 2 to 4
    Transmission,
    /// rTorrent, with or without ruTorrent
    Rtorrent,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((from, to)) if !from.is_empty() => Ok((from.to_owned(), to.to_owned())),
        _ => Err("it is not FROM=TO".into()),
    }
}

fn paths(text: &str) -> Result<(PathBuf, PathBuf), String> {
    let (from, to) = pair(text)?;
    let (from, to) = (PathBuf::from(from), PathBuf::from(to));
    match to.is_absolute() {
        true => Ok((from, to)),
        false => Err("the folder behind the = has to begin with /".into()),
    }
}

/// What became of the torrents.
#[derive(Default)]
struct Outcome {
    seeding: u64,
    downloading: u64,
    paused: u64,
    to_check: u64,
    offline: u64,
    known: u64,
    skipped: u64,
    skips: Vec<(String, String)>,
    notes: BTreeMap<Note, u64>,
}

#[derive(Serialize)]
struct TorrentLine<'a> {
    event: &'static str,
    outcome: &'static str,
    file: &'a str,
    info_hash_v1: String,
    name: &'a str,
    save_path: Cow<'a, str>,
    category: Option<&'a str>,
    labels: &'a [String],
    uploaded_bytes: u64,
    downloaded_bytes: u64,
    pieces: u32,
    pieces_verified: u32,
    condition: &'static str,
    paused: bool,
}

#[derive(Serialize)]
struct SkippedLine<'a> {
    event: &'static str,
    outcome: &'static str,
    file: &'a str,
    reason: &'a str,
}

#[derive(Serialize)]
struct ImportedLine<'a> {
    event: &'static str,
    dry_run: bool,
    new: u64,
    seeding: u64,
    downloading: u64,
    paused: u64,
    to_check: u64,
    offline: u64,
    known: u64,
    skipped: u64,
    notes: Vec<NotePart>,
    categories: Vec<CategoryPart<'a>>,
}

#[derive(Serialize)]
struct NotePart {
    note: &'static str,
    torrents: u64,
}

#[derive(Serialize)]
struct CategoryPart<'a> {
    name: &'a str,
    save_path: Cow<'a, str>,
}

/// Runs the command.
pub fn run(global: &Global, args: &ImportArgs) -> Result<(), Failure> {
    let client = match args.client {
        ClientArg::Qbittorrent => Client::Qbittorrent,
        ClientArg::Transmission => Client::Transmission,
        ClientArg::Rtorrent => Client::Rtorrent,
    };
    let maps = Maps {
        paths: args.path_map.clone(),
        categories: args.category_map.clone(),
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now_s = now.map_or(0, |now| now.as_secs());
    let importer = Importer::new(client, &args.folder, maps, now_s);
    let importer = importer.map_err(anyhow::Error::from)?;
    if importer.folder().in_use {
        let client = client.name();
        eprintln!("seedring: {client} seems to be running; quit it, or its state may be old");
    }
    let directory = state_dir(global)?;
    // A dry run makes no store, but reads one that is there.
    let store = match args.dry_run && !directory.join(STORE_FILE).exists() {
        true => None,
        false => Some(Store::open(&directory, Options::default()).map_err(anyhow::Error::from)?),
    };
    let mut import = Import {
        store: store.as_ref(),
        dry_run: args.dry_run,
        json: global.json,
        outcome: Outcome::default(),
        seen: HashSet::new(),
        waiting: Vec::new(),
        waiting_bytes: 0,
    };
    let sources = &importer.folder().sources;
    let mut counter = Counter::new("reading", "torrents", sources.len() as u64, global.json);
    for (done, source) in (0..).zip(sources) {
        counter.at(done);
        import.take(&importer, source)?;
    }
    import.write()?;
    counter.finish();
    let outcome = import.outcome;
    if global.json {
        print_json(&imported_line(&outcome, &importer, args.dry_run));
    } else {
        print(&text(&outcome, &importer, client, args));
    }
    match outcome.skipped {
        0 => Ok(()),
        skipped => Err(anyhow!("{} skipped", counted(skipped, "torrent")).into()),
    }
}

/// An import under way.
struct Import<'a> {
    store: Option<&'a Store>,
    dry_run: bool,
    json: bool,
    outcome: Outcome,
    /// Those that were read: a folder may have one twice.
    seen: HashSet<InfoHashV1>,
    /// What is to be written next.
    waiting: Vec<(String, Imported)>,
    waiting_bytes: usize,
}

impl Import<'_> {
    /// Reads one torrent, and writes some when there are enough.
    fn take(&mut self, importer: &Importer, source: &Source) -> Result<(), Failure> {
        let imported = match importer.read(source) {
            Ok(imported) => imported,
            Err(reason) => {
                self.skip(&source.stem, reason.to_string());
                return Ok(());
            }
        };
        if self.is_known(&source.stem, &imported.info_hash)?
            || !self.seen.insert(imported.info_hash)
        {
            self.outcome.known += 1;
            return Ok(());
        }
        let metainfo = imported.torrent.metainfo.as_ref().map_or(0, Vec::len);
        self.waiting_bytes = self.waiting_bytes.saturating_add(metainfo);
        self.waiting.push((source.stem.clone(), imported));
        if self.waiting.len() >= BATCH_TORRENTS || self.waiting_bytes >= BATCH_BYTES {
            self.write()?;
        }
        Ok(())
    }

    /// Whether the store has the torrent; then it says what.
    fn is_known(&self, file: &str, info_hash: &InfoHashV1) -> Result<bool, Failure> {
        let Some(store) = self.store else {
            return Ok(false);
        };
        let looked = store.handle().read_blocking(|view| {
            let Some(summary) = view.summary(info_hash)? else {
                return Ok(None);
            };
            let pieces = view.verified(info_hash)?.count(summary.pieces);
            Ok(Some((summary, view.totals(info_hash)?, pieces)))
        });
        let Some((summary, totals, pieces)) = looked.map_err(anyhow::Error::from)? else {
            return Ok(false);
        };
        if self.json {
            let line = torrent_line("known", file, info_hash, &summary, &totals, pieces);
            print_json(&line);
        }
        Ok(true)
    }

    /// Writes what waits.
    fn write(&mut self) -> Result<(), Failure> {
        self.waiting_bytes = 0;
        let waiting = std::mem::take(&mut self.waiting);
        let outcomes = match self.store.filter(|_| !self.dry_run) {
            None => waiting.iter().map(|_| Ok(())).collect(),
            Some(store) => {
                let add = |(_, imported): &(String, Imported)| {
                    Write::Add(imported.info_hash, Box::new(imported.torrent.clone()))
                };
                let ack = store
                    .handle()
                    .submit_blocking(waiting.iter().map(add).collect());
                ack.map_err(anyhow::Error::from)?.wait()
            }
        };
        for ((file, imported), outcome) in waiting.iter().zip(outcomes) {
            match outcome {
                Ok(()) => self.taken(file, imported),
                Err(error @ (state::WriteError::Failed(_) | state::WriteError::Closed)) => {
                    return Err(anyhow::Error::from(error).into());
                }
                Err(refused) => self.skip(file, refused.to_string()),
            }
        }
        Ok(())
    }

    fn taken(&mut self, file: &str, imported: &Imported) {
        let NewTorrent {
            summary,
            verified,
            totals,
            ..
        } = &imported.torrent;
        let complete = *verified == Verified::All || summary.seed_mode;
        let count = match (summary.condition, summary.paused) {
            (Condition::NeedsCheck, _) => &mut self.outcome.to_check,
            (Condition::Offline, _) => &mut self.outcome.offline,
            (_, true) => &mut self.outcome.paused,
            // One of empty files has no piece to verify.
            (_, false) if complete || summary.magnet.is_none() && summary.pieces == 0 => {
                &mut self.outcome.seeding
            }
            (_, false) => &mut self.outcome.downloading,
        };
        *count += 1;
        for note in &imported.notes {
            *self.outcome.notes.entry(*note).or_default() += 1;
        }
        if self.json {
            let pieces = verified.count(summary.pieces);
            let hash = &imported.info_hash;
            print_json(&torrent_line("new", file, hash, summary, totals, pieces));
        }
    }

    fn skip(&mut self, file: &str, reason: String) {
        self.outcome.skipped += 1;
        if self.json {
            print_json(&SkippedLine {
                event: "torrent",
                outcome: "skipped",
                file,
                reason: &reason,
            });
        } else if self.outcome.skips.len() < SKIPS_TOLD_MAX {
            self.outcome.skips.push((file.to_owned(), reason));
        }
    }
}

fn torrent_line<'a>(
    outcome: &'static str,
    file: &'a str,
    info_hash: &InfoHashV1,
    summary: &'a Summary,
    totals: &Totals,
    verified: u32,
) -> TorrentLine<'a> {
    TorrentLine {
        event: "torrent",
        outcome,
        file,
        info_hash_v1: info_hash.to_string(),
        name: &summary.name,
        save_path: summary.save_path.to_string_lossy(),
        category: summary.category.as_deref(),
        labels: &summary.labels,
        uploaded_bytes: totals.uploaded_bytes,
        downloaded_bytes: totals.downloaded_bytes,
        pieces: summary.pieces,
        // All is all also of a torrent that has not said how many that are.
        pieces_verified: verified,
        condition: match summary.condition {
            Condition::Ready => "ready",
            Condition::NeedsCheck => "needs-check",
            Condition::Offline => "offline",
            Condition::Failed => "failed",
        },
        paused: summary.paused,
    }
}

fn imported_line<'a>(outcome: &Outcome, importer: &'a Importer, dry_run: bool) -> ImportedLine<'a> {
    let Outcome {
        seeding,
        downloading,
        paused,
        to_check,
        offline,
        known,
        skipped,
        ..
    } = *outcome;
    let note = |(note, torrents): (&Note, &u64)| NotePart {
        note: note.name(),
        torrents: *torrents,
    };
    let category = |(name, path): &'a (String, PathBuf)| CategoryPart {
        name,
        save_path: path.to_string_lossy(),
    };
    ImportedLine {
        event: "imported",
        dry_run,
        new: seeding + downloading + paused + to_check + offline,
        seeding,
        downloading,
        paused,
        to_check,
        offline,
        known,
        skipped,
        notes: outcome.notes.iter().map(note).collect(),
        categories: importer.folder().categories.iter().map(category).collect(),
    }
}

/// The outcome for people.
fn text(outcome: &Outcome, importer: &Importer, client: Client, args: &ImportArgs) -> String {
    let Outcome {
        seeding,
        downloading,
        paused,
        to_check,
        offline,
        known,
        skipped,
        ..
    } = *outcome;
    let found = importer.folder().sources.len() as u64;
    let mut text = String::new();
    let folder: &Path = &args.folder;
    let (client, found) = (client.name(), counted(found, "torrent"));
    let _ = writeln!(text, "{client} in {}: {found}", shown(folder));
    let mut line = |count: u64, what: &str| {
        if count > 0 {
            let _ = writeln!(text, "  {count:>7} {what}");
        }
    };
    line(seeding, "seed at once");
    line(downloading, "go on to be downloaded");
    line(paused, "paused");
    line(
        to_check,
        "to be checked: their files do not bear out what the client remembers",
    );
    line(
        offline,
        "wait for their data, of which nothing is there: mount what they lie on",
    );
    line(known, "in the store already, and left as they are");
    line(skipped, "skipped");
    for (file, reason) in &outcome.skips {
        let file = printable(file.as_bytes(), TEXT_CHARS_MAX);
        let reason = printable(reason.as_bytes(), TEXT_CHARS_MAX);
        let _ = writeln!(text, "          {file}: {reason}");
    }
    if outcome.skipped > outcome.skips.len() as u64 {
        let more = outcome.skipped - outcome.skips.len() as u64;
        let _ = writeln!(text, "          and {more} more");
    }
    for (note, count) in &outcome.notes {
        let _ = writeln!(
            text,
            "note: {}: {}",
            counted(*count, "torrent"),
            note.text()
        );
    }
    let categories = &importer.folder().categories;
    let with_path = categories
        .iter()
        .filter(|(_, path)| !path.as_os_str().is_empty());
    let with_path = with_path.count() as u64;
    if with_path > 0 {
        let count = match with_path {
            1 => "1 category has".to_owned(),
            count => format!("{count} categories have"),
        };
        let _ = writeln!(
            text,
            "note: {count} a save path of its own, which is left out"
        );
    }
    if importer.folder().data_base {
        text.push_str("note: torrents.db beside the .fastresume files is not read\n");
    }
    if args.dry_run {
        text.push_str("nothing was changed: this was a dry run\n");
    } else if seeding + downloading + paused + to_check + offline == 0 {
        text.push_str("nothing was changed\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_pairs_and_folders_begin_at_the_root() {
        assert_eq!(pair("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert_eq!(pair("a="), Ok(("a".into(), String::new())));
        assert!(pair("a").is_err() && pair("=b").is_err());
        assert_eq!(paths("x=/y"), Ok(("x".into(), "/y".into())));
        assert!(paths("/x=y").is_err() && paths("/x=").is_err());
    }
}
