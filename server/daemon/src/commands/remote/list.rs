//! `seedring list`: a page of the server's torrents, once or as they change.

use super::columns::{self, ListColumn};
use super::select::{FilterArgs, list_query};
use super::table::{Column, layout, table};
use super::{Remote, terminal_columns};
use crate::cli::Global;
use crate::client::{Error, ServerArgs, query};
use crate::failure::Failure;
use crate::progress::{output_lost, print, print_json};
use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use control::api::types::{
    Changes, ChangesQuery, Filter, ListQuery, Order, SortKey, Torrent, TorrentList,
};
use indicatif::HumanCount;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::io::IsTerminal;
use std::time::Duration;

/// Torrents that are asked for at a time; the API gives no more.
const PAGE_MAX: usize = 10_000;
/// How often changes are asked for.
const WATCH_PERIOD: Duration = Duration::from_secs(1);

/// Arguments of `seedring list`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  seedring list                                   the first 100, by when they were added
  seedring list --status downloading --sort down  the fastest first
  seedring list --label tv --columns name,ratio,uploaded,path --all
  seedring list --match ubuntu --watch            until Ctrl-C
  seedring list --all --json | jq -r 'select(.ratio_permille < 1000) | .name'

Columns: hash, name, size, done, status, down, up, ratio, eta, peers, seeds, labels, category, \
uploaded, downloaded, added, completed, active, path, error. On a terminal names are cut and \
columns left out so that lines fit; elsewhere nothing is cut. --json prints a line for each \
torrent, as the API has it; with --watch, lines {\"event\":\"changed\", torrent}, \
{\"event\":\"passes-no-more\", info_hash} of those that the filter leaves out from now on, \
{\"event\":\"removed\", info_hash} and {\"event\":\"begins-anew\"} follow. A server that goes \
away while it is watched is waited for.")]
pub struct ListArgs {
    /// By what: name, added and status from the least on, everything else from the most on
    #[arg(long, value_name = "KEY", value_parser = sort_parser(), default_value = "added")]
    sort: SortKey,
    /// The other way round
    #[arg(long, short)]
    reverse: bool,
    /// Which columns, with commas between
    #[arg(long, value_name = "COLUMNS", default_value = columns::DEFAULT)]
    columns: ListColumns,
    /// So many at most
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
    /// So many are left out before
    #[arg(long, value_name = "N", default_value_t = 0)]
    offset: usize,
    /// However many there are
    #[arg(long, conflicts_with = "limit")]
    all: bool,
    /// Go on as they change, until Ctrl-C
    #[arg(long, short)]
    watch: bool,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    server: ServerArgs,
}

/// Columns that were chosen.
#[derive(Clone, Debug)]
struct ListColumns(Vec<ListColumn>);

impl std::str::FromStr for ListColumns {
    type Err = String;

    fn from_str(text: &str) -> Result<ListColumns, String> {
        columns::parse(text).map(ListColumns)
    }
}

/// Names of the sort keys on the command line: those of the columns.
const SORT_KEYS: [(&str, SortKey); 13] = [
    ("added", SortKey::Added),
    ("name", SortKey::Name),
    ("size", SortKey::Size),
    ("done", SortKey::Progress),
    ("status", SortKey::Status),
    ("down", SortKey::DownloadRate),
    ("up", SortKey::UploadRate),
    ("ratio", SortKey::Ratio),
    ("peers", SortKey::Peers),
    ("uploaded", SortKey::Uploaded),
    ("downloaded", SortKey::Downloaded),
    ("completed", SortKey::Completed),
    ("active", SortKey::Active),
];

fn sort_parser() -> impl TypedValueParser<Value = SortKey> {
    let names = SORT_KEYS.map(|(name, _)| PossibleValue::new(name));
    PossibleValuesParser::new(names).map(|name| {
        let found = SORT_KEYS.iter().find(|(known, _)| *known == name);
        found.map_or(SortKey::Added, |(_, key)| *key)
    })
}

impl ListArgs {
    /// What is asked of the API, of a page that begins here.
    fn query(&self, offset: usize, limit: usize) -> ListQuery {
        let ascends = matches!(self.sort, SortKey::Added | SortKey::Name | SortKey::Status);
        ListQuery {
            limit,
            offset,
            sort: self.sort,
            order: match ascends != self.reverse {
                true => Order::Asc,
                false => Order::Desc,
            },
            ..list_query(&self.filter.filter())
        }
    }

    fn limit(&self) -> usize {
        if self.all { usize::MAX } else { self.limit }
    }
}

/// Runs the command.
pub fn run(global: &Global, args: &ListArgs) -> Result<(), Failure> {
    let remote = Remote::new(global, &args.server)?;
    if !args.watch {
        let page = page(&remote, args, args.limit())?;
        show(&remote, args, &page);
        return Ok(());
    }
    if remote.json {
        return watch_lines(&remote, args);
    }
    watch_table(&remote, args)
}

/// The torrents that are wanted, `limit` at most.
fn page(remote: &Remote, args: &ListArgs, limit: usize) -> Result<TorrentList, Error> {
    let mut whole: Option<TorrentList> = None;
    loop {
        let had = whole.as_ref().map_or(0, |whole| whole.torrents.len());
        let asked = args.query(args.offset.saturating_add(had), (limit - had).min(PAGE_MAX));
        let part: TorrentList = remote.get(&format!("/torrents{}", query(&asked)))?;
        let is_last = part.torrents.is_empty();
        let whole = match &mut whole {
            None => whole.insert(part),
            Some(whole) => {
                whole.torrents.extend(part.torrents);
                whole
            }
        };
        let has = whole.torrents.len();
        if is_last || has >= limit || args.offset.saturating_add(has) >= whole.total {
            return Ok(whole.clone());
        }
    }
}

fn show(remote: &Remote, args: &ListArgs, page: &TorrentList) {
    if remote.json {
        page.torrents.iter().for_each(print_json);
        return;
    }
    print(&text(args, page, terminal_columns()));
    if let Some(footer) = footer(page) {
        eprintln!("{footer}");
    }
}

fn cells(args: &ListArgs, page: &TorrentList) -> (Vec<Column>, Vec<Vec<String>>) {
    let chosen = &args.columns.0;
    let columns = chosen.iter().map(|one| one.column).collect();
    let row = |torrent: &Torrent| chosen.iter().map(|one| one.cell(torrent)).collect();
    (columns, page.torrents.iter().map(row).collect())
}

fn text(args: &ListArgs, page: &TorrentList, room: Option<usize>) -> String {
    let (columns, rows) = cells(args, page);
    table(&columns, &rows, room)
}

/// What is to be said if there are others.
fn footer(page: &TorrentList) -> Option<String> {
    let (shown, total) = (page.torrents.len(), page.total);
    (shown < total).then(|| {
        format!(
            "{} of {} torrents; --all shows all",
            HumanCount(shown as u64),
            HumanCount(total as u64)
        )
    })
}

/// The changes since a revision.
fn changes(remote: &Remote, since: u64, limit: usize) -> Result<Changes, Error> {
    further_changes(remote, (since, None), limit)
}

/// The changes since what an answer said was its revision, and where its first telling began.
fn further_changes(
    remote: &Remote,
    (since, begun): (u64, Option<u64>),
    limit: usize,
) -> Result<Changes, Error> {
    let asked = query(&ChangesQuery {
        since,
        begun,
        limit,
    });
    remote.get(&format!("/changes{asked}"))
}

/// A server that may go away and come back: who watches it waits.
#[derive(Default)]
struct Patience {
    /// Whether it has answered since it was last missed.
    is_there: bool,
}

impl Patience {
    /// What was asked for; `None` if the server is not there and has been before. That is told
    /// once, and is the time to ask again.
    fn bear<T>(&mut self, asked: Result<T, Error>, was_there: bool) -> Result<Option<T>, Error> {
        match asked {
            Ok(answer) => {
                self.is_there = true;
                Ok(Some(answer))
            }
            Err(error @ Error::Unreachable(_)) if was_there => {
                if std::mem::take(&mut self.is_there) {
                    eprintln!("seedring: {error}; waiting for it");
                }
                std::thread::sleep(WATCH_PERIOD);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// Waits until something has changed since.
fn wait(remote: &Remote, since: u64, patience: &mut Patience) -> Result<(), Error> {
    loop {
        std::thread::sleep(WATCH_PERIOD);
        let asked = patience.bear(changes(remote, since, 1), true)?;
        let is_new = |change: Changes| change.revision != since || change.begins_anew;
        if asked.is_some_and(is_new) {
            return Ok(());
        }
    }
}

/// The page as it is now, over what was there on the terminal; elsewhere one behind another.
fn watch_table(remote: &Remote, args: &ListArgs) -> Result<(), Failure> {
    let mut patience = Patience::default();
    let mut was_there = false;
    loop {
        let size = ratatui::crossterm::terminal::size().ok();
        let size = size.filter(|_| std::io::stdout().is_terminal());
        let rows = size.map(|(_, rows)| usize::from(rows).saturating_sub(2));
        let limit = args.limit().min(rows.unwrap_or(usize::MAX));
        let Some(page) = patience.bear(page(remote, args, limit), was_there)? else {
            continue;
        };
        was_there = true;
        match size {
            Some((columns, _)) => print(&screen(args, &page, usize::from(columns))),
            None => print(&(text(args, &page, None) + "\n")),
        }
        if output_lost() {
            return Ok(());
        }
        wait(remote, page.revision, &mut patience)?;
    }
}

/// A page that is written over the one before: each line ends where it ends, and nothing stays
/// below it.
fn screen(args: &ListArgs, page: &TorrentList, room: usize) -> String {
    let (columns, rows) = cells(args, page);
    let layout = layout(&columns, &rows, Some(room));
    let mut lines = vec![layout.head(&columns)];
    lines.extend(rows.iter().map(|row| layout.line(&columns, row)));
    lines.extend(footer(page).map(|footer| super::text::cut(&footer, room)));
    let text: String = lines
        .iter()
        .map(|line| format!("{line}\x1b[K\r\n"))
        .collect();
    format!("\x1b[H{text}\x1b[J")
}

/// All torrents, and then what changes, a line each.
fn watch_lines(remote: &Remote, args: &ListArgs) -> Result<(), Failure> {
    let page = page(remote, args, args.limit())?;
    page.torrents.iter().for_each(print_json);
    let filter = args.filter.filter();
    let mut told: HashSet<String> = page.torrents.into_iter().map(|one| one.info_hash).collect();
    let mut since = (page.revision, None);
    let mut patience = Patience { is_there: true };
    loop {
        let asked = further_changes(remote, since, PAGE_MAX);
        let Some(change) = patience.bear(asked, true)? else {
            continue;
        };
        since = (change.revision, change.begun);
        news(&change, &filter, &mut told)
            .iter()
            .for_each(print_json);
        if output_lost() {
            return Ok(());
        }
        if !change.has_more {
            std::thread::sleep(WATCH_PERIOD);
        }
    }
}

/// What a line says of each change: of those that pass, and of those that were `told` and pass no
/// more.
fn news(change: &Changes, filter: &Filter, told: &mut HashSet<String>) -> Vec<Value> {
    let mut lines = Vec::new();
    if change.begins_anew {
        told.clear();
        lines.push(json!({ "event": "begins-anew" }));
    }
    for torrent in &change.changed {
        let hash = &torrent.info_hash;
        if passes(filter, torrent) {
            told.insert(hash.clone());
            lines.push(json!({ "event": "changed", "torrent": torrent }));
        } else if told.remove(hash) {
            lines.push(json!({ "event": "passes-no-more", "info_hash": hash }));
        }
    }
    for hash in &change.removed {
        if told.remove(hash) {
            lines.push(json!({ "event": "removed", "info_hash": hash }));
        }
    }
    lines
}

/// Whether a torrent passes, as the server decides it.
fn passes(filter: &Filter, torrent: &Torrent) -> bool {
    let status = filter.status.is_empty() || filter.status.contains(&torrent.status);
    let label = filter.label.as_ref();
    let label = label.is_none_or(|label| torrent.labels.contains(label));
    let category = filter.category.as_deref();
    let category =
        category.is_none_or(|name| torrent.category.as_deref().unwrap_or_default() == name);
    let text = filter.q.as_ref().map(|text| text.to_lowercase());
    let text = text.is_none_or(|text| torrent.name.to_lowercase().contains(&text));
    status && label && category && text
}

#[cfg(test)]
mod tests {
    use super::super::columns::tests::torrent;
    use super::*;
    use clap::Parser;
    use control::api::types::Status;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        list: ListArgs,
    }

    fn args(line: &[&str]) -> ListArgs {
        let line = std::iter::once("list").chain(line.iter().copied());
        Line::try_parse_from(line).unwrap().list
    }

    fn a_page(total: usize) -> TorrentList {
        let hash = |digit: &str| digit.repeat(40);
        TorrentList {
            total,
            offset: 0,
            revision: 7,
            torrents: vec![
                torrent(&hash("a"), "debian-12.iso"),
                torrent(
                    &hash("b"),
                    "a name that is so long that no terminal of eighty columns has it",
                ),
            ],
        }
    }

    #[test]
    fn rates_come_from_the_most_on_and_names_from_the_least() {
        let order = |line: &[&str]| args(line).query(0, 1).order;
        assert_eq!(order(&[]), Order::Asc);
        assert_eq!(order(&["--sort", "down"]), Order::Desc);
        assert_eq!(order(&["--sort", "down", "-r"]), Order::Asc);
        assert_eq!(order(&["--sort", "name", "--reverse"]), Order::Desc);
        for (name, key) in SORT_KEYS {
            assert_eq!(args(&["--sort", name]).sort, key);
        }
        assert!(Line::try_parse_from(["list", "--sort", "nose"]).is_err());
    }

    #[test]
    fn a_table_fits_eighty_columns() {
        let lines = [
            "hash      name                   size   done  status             down  up  ratio",
            "aaaaaaaa  debian-12.iso      10.0 GiB  50.0%  downloading  10.0 MiB/s       0.10",
            "bbbbbbbb  a name that is s…  10.0 GiB  50.0%  downloading  10.0 MiB/s       0.10",
        ];
        let shown = text(&args(&[]), &a_page(2), Some(80));
        assert_eq!(shown.lines().collect::<Vec<_>>(), lines);
    }

    #[test]
    fn a_screen_is_written_over_the_last_one() {
        let screen = screen(&args(&["--columns", "name,status"]), &a_page(3), 30);
        assert_eq!(
            screen,
            "\x1b[Hname               status\x1b[K\r\n\
             debian-12.iso      downloading\x1b[K\r\n\
             a name that is s…  downloading\x1b[K\r\n\
             2 of 3 torrents; --all shows …\x1b[K\r\n\x1b[J"
        );
    }

    #[test]
    fn who_watches_by_a_filter_hears_of_what_passes_it_no_more() {
        let filter = args(&["--match", "debian"]).filter.filter();
        let hash = "a".repeat(40);
        let mut told = HashSet::new();
        let mut events = |name: &str, removed: Vec<String>| -> Vec<String> {
            let change = Changes {
                changed: vec![torrent(&hash, name)],
                removed,
                ..Changes::default()
            };
            let lines = news(&change, &filter, &mut told);
            let event = |line: Value| line["event"].as_str().unwrap().to_owned();
            lines.into_iter().map(event).collect()
        };
        assert!(events("ubuntu", vec![]).is_empty());
        assert_eq!(events("debian", vec![]), ["changed"]);
        assert_eq!(events("ubuntu", vec![]), ["passes-no-more"]);
        assert!(events("ubuntu", vec!["b".repeat(40)]).is_empty());
        assert_eq!(events("Debian", vec![hash.clone()]), ["changed", "removed"]);
    }

    #[test]
    fn changes_are_filtered_as_pages_are() {
        let one = torrent(&"a".repeat(40), "Debian-12.iso");
        let filter = |line: &[&str]| args(line).filter.filter();
        assert!(passes(&Filter::default(), &one));
        assert!(passes(
            &filter(&["--match", "dEBIAN", "--status", "seeding,downloading"]),
            &one
        ));
        assert!(passes(
            &filter(&["--label", "old", "--category", "linux"]),
            &one
        ));
        for line in [
            ["--match", "ubuntu"],
            ["--status", "paused"],
            ["--label", "o"],
            ["--category", ""],
        ] {
            assert!(!passes(&filter(&line), &one), "{line:?}");
        }
        assert_eq!(filter(&["--status", "paused"]).status, [Status::Paused]);
    }
}
