//! `seedring show`: what is in a `.torrent` file or a magnet link.

use crate::cli::Global;
use crate::failure::Failure;
use crate::progress::{counted, first_of, print, print_json};
use anyhow::Context;
use clap::Args;
use indicatif::{BinaryBytes, HumanCount};
use proto::bencode::{ErrorKind, Limits};
use proto::limits::METAINFO_BYTES_MAX;
use proto::magnet::{LeftOut, Magnet};
use proto::metainfo::{Metainfo, Reason};
use proto::text::printable;
use serde::Serialize;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Read;
use std::ops::RangeInclusive;
use std::path::Path;

const EXAMPLES: &str = "\
Examples:
  seedring show music.torrent
  seedring show 'magnet:?xt=urn:btih:…'
  seedring show --json music.torrent | jq -r '.files[] | select(.pad | not) | .path'

The number behind a file is the one that `seedring get --select` takes.

--json prints one object: info_hash_v1, info_hash_v2 (hex or null), name, length, piece_length, \
pieces, private, files (number, path, length, pad), respelled (name, written: names that downloads \
write otherwise than the torrent spells them), trackers (a list of tiers), web_seeds, comment, \
created_by, creation_date (seconds since 1970), source, peers and selection (of a magnet link: x.pe, and \
so as first and last numbers), left_out (what of a link cannot be read), magnet. A file's path is one string with `/` \
between folders, relative to the data folder, so that it begins with the torrent's name. Lengths are \
in bytes and count pad files. What a magnet link does not hold is null.";

/// How much of a torrent's text is shown, in characters.
const TEXT_CHARS_MAX: usize = 2000;

/// How many names are shown that are written otherwise than they are spelled.
const RESPELLED_MAX: usize = 20;

/// Arguments of `seedring show`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ShowArgs {
    /// A .torrent file, or a magnet link in quotes
    #[arg(value_name = "TORRENT|MAGNET")]
    torrent: String,
    /// Trust the file: accept up to 1 GiB and a million files, as your own torrents may have
    #[arg(long)]
    own: bool,
}

/// Everything that `--json` prints, in its order.
#[derive(Serialize)]
struct Shown {
    info_hash_v1: Option<String>,
    info_hash_v2: Option<String>,
    name: Option<String>,
    length: Option<u64>,
    piece_length: Option<u32>,
    pieces: Option<u32>,
    private: Option<bool>,
    files: Option<Vec<ShownFile>>,
    respelled: Option<Vec<Respelled>>,
    trackers: Vec<Vec<String>>,
    web_seeds: Vec<String>,
    comment: Option<String>,
    created_by: Option<String>,
    creation_date: Option<i64>,
    source: Option<String>,
    /// Peers that a link names (`x.pe`).
    peers: Vec<String>,
    /// The files that a link chooses (`so`): first and last numbers.
    selection: Option<Vec<(u32, u32)>>,
    /// What of a link cannot be read.
    left_out: Vec<String>,
    magnet: String,
}

/// A name that is not written as the torrent spells it.
#[derive(Serialize)]
struct Respelled {
    /// As it does, with what is harmful escaped.
    name: String,
    written: String,
}

#[derive(Serialize)]
struct ShownFile {
    /// The file's place in the torrent, pad files counted, as in `get --select` and magnet links (BEP 53).
    number: u32,
    path: String,
    length: u64,
    pad: bool,
}

/// Runs the command.
pub fn run(global: &Global, args: &ShowArgs) -> Result<(), Failure> {
    let shown = if Magnet::is_link(&args.torrent) {
        let (magnet, left_out) = Magnet::read(&args.torrent).map_err(anyhow::Error::from)?;
        Shown::from_magnet(&magnet, &left_out)
    } else {
        Shown::from_metainfo(&read_torrent(Path::new(&args.torrent), args.own)?)
    };
    if global.json {
        print_json(&shown);
    } else {
        print(&shown.text());
    }
    Ok(())
}

/// Reads and parses a `.torrent` file, within the limits for strangers unless it is the user's
/// `own`.
pub fn read_torrent(path: &Path, own: bool) -> anyhow::Result<Metainfo> {
    let limits = if own {
        Limits::METAINFO_OWN
    } else {
        Limits::METAINFO
    };
    let bytes_max = if own {
        u64::from(limits.bytes_max)
    } else {
        METAINFO_BYTES_MAX as u64
    };
    let mut bytes = Vec::new();
    // One byte more than allowed, so that a file that is too long is refused and not cut.
    File::open(path)
        .and_then(|file| file.take(bytes_max + 1).read_to_end(&mut bytes))
        .with_context(|| format!("cannot read {path:?}"))?;
    Metainfo::parse_within(&bytes, &limits).map_err(|error| {
        let limit = matches!(
            error.reason,
            Reason::Bencode(ErrorKind::TooManyBytes(_) | ErrorKind::TooManyTokens(_))
        );
        let hint = if limit && !own {
            " (if it is your own, load it with --own)"
        } else {
            ""
        };
        anyhow::Error::from(error).context(format!("{path:?} is refused{hint}"))
    })
}

impl Shown {
    fn from_metainfo(metainfo: &Metainfo) -> Shown {
        let file = |(number, file): (u32, &proto::metainfo::File)| ShownFile {
            number,
            path: file.path.join("/"),
            length: file.length,
            pad: file.pad,
        };
        let files: Vec<ShownFile> = (0..).zip(&metainfo.files).map(file).collect();
        let respelled = |(name, written): (Vec<u8>, String)| Respelled {
            name: printable(&name, TEXT_CHARS_MAX),
            written,
        };
        Shown {
            info_hash_v1: metainfo.info_hash_v1.map(|hash| hash.to_string()),
            info_hash_v2: metainfo.info_hash_v2.map(|hash| hash.to_string()),
            name: Some(metainfo.name.clone()),
            length: Some(files.iter().map(|file| file.length).sum()),
            piece_length: Some(metainfo.piece_length),
            pieces: Some(metainfo.piece_count),
            private: Some(metainfo.private),
            files: Some(files),
            respelled: Some(metainfo.respelled().map(respelled).collect()),
            trackers: metainfo.trackers.clone(),
            web_seeds: metainfo.web_seeds.clone(),
            comment: metainfo.comment.clone(),
            created_by: metainfo.created_by.clone(),
            creation_date: metainfo.creation_date,
            source: metainfo.source.clone(),
            peers: Vec::new(),
            selection: None,
            left_out: Vec::new(),
            magnet: metainfo.magnet().to_string(),
        }
    }

    /// A link knows no tiers: each of its trackers is one of its own.
    fn from_magnet(magnet: &Magnet, left_out: &[LeftOut]) -> Shown {
        let ends = |range: &RangeInclusive<u32>| (*range.start(), *range.end());
        let selection = magnet.selection.as_deref();
        Shown {
            info_hash_v1: magnet.info_hash_v1.map(|hash| hash.to_string()),
            info_hash_v2: magnet.info_hash_v2.map(|hash| hash.to_string()),
            name: magnet.name.clone(),
            length: magnet.length,
            piece_length: None,
            pieces: None,
            private: None,
            files: None,
            respelled: None,
            trackers: magnet
                .trackers
                .iter()
                .map(|url| vec![url.clone()])
                .collect(),
            web_seeds: magnet.web_seeds.clone(),
            comment: None,
            created_by: None,
            creation_date: None,
            source: None,
            peers: magnet.peers.iter().map(ToString::to_string).collect(),
            selection: selection.map(|ranges| ranges.iter().map(ends).collect()),
            left_out: first_of(left_out),
            magnet: magnet.to_string(),
        }
    }

    /// The same for people: one field a line, then the tree of files.
    fn text(&self) -> String {
        let mut fields = Fields::default();
        fields.add("Name", self.name.as_deref());
        fields.add("Info-hash v1", self.info_hash_v1.as_deref());
        fields.add("Info-hash v2", self.info_hash_v2.as_deref());
        fields.add("Size", self.size().as_deref());
        if let (Some(pieces), Some(piece_length)) = (self.pieces, self.piece_length) {
            let length = BinaryBytes(u64::from(piece_length));
            let pieces = format!("{} of {length}", HumanCount(u64::from(pieces)));
            fields.add("Pieces", Some(&pieces));
        }
        fields.add(
            "Private",
            self.private
                .map(|private| if private { "yes" } else { "no" }),
        );
        fields.add("Source", self.source.as_deref());
        fields.add("Created", self.creation_date.map(utc).as_deref());
        fields.add("Created by", self.created_by.as_deref());
        fields.add("Comment", self.comment.as_deref());
        for (tier, urls) in (1..).zip(&self.trackers) {
            fields.add(&format!("Tracker tier {tier}"), Some(&urls.join(", ")));
        }
        self.web_seeds
            .iter()
            .for_each(|url| fields.add("Web seed", Some(url)));
        self.peers
            .iter()
            .for_each(|peer| fields.add("Peer", Some(peer)));
        fields.add("Only files", self.selected().as_deref());
        self.left_out
            .iter()
            .for_each(|one| fields.add("Warning", Some(one)));
        fields.add("Magnet", Some(&self.magnet));
        for Respelled { name, written } in self.respelled.iter().flatten().take(RESPELLED_MAX) {
            fields.add("Spelled", Some(&format!("{name} (written as {written})")));
        }
        let more = self.respelled.as_ref().map_or(0, Vec::len);
        let more = more.saturating_sub(RESPELLED_MAX);
        if more > 0 {
            fields.add("", Some(&format!("and {} more", HumanCount(more as u64))));
        }
        let mut text = fields.text;
        if let Some(files) = &self.files {
            text.push('\n');
            text.push_str(&Tree::of(files).text());
        }
        text
    }

    /// A link's choice of files, as `get --select` takes it.
    fn selected(&self) -> Option<String> {
        let one = |(first, last): &(u32, u32)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        };
        let ranges: Vec<String> = self.selection.as_ref()?.iter().map(one).collect();
        Some(match ranges.is_empty() {
            true => "none".to_owned(),
            false => ranges.join(","),
        })
    }

    fn size(&self) -> Option<String> {
        let length = self.length?;
        let mut size = format!("{} ({} bytes)", BinaryBytes(length), HumanCount(length));
        if let Some(files) = &self.files {
            let pads = files.iter().filter(|file| file.pad).count() as u64;
            let _ = write!(size, " in {}", counted(files.len() as u64 - pads, "file"));
            if pads > 0 {
                let _ = write!(size, " and {}", counted(pads, "pad file"));
            }
        }
        Some(size)
    }
}

/// Lines of names and values, the values below one another.
#[derive(Default)]
struct Fields {
    text: String,
}

impl Fields {
    /// Adds a line, unless there is no value.
    fn add(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            let value = printable(value.as_bytes(), TEXT_CHARS_MAX);
            let _ = writeln!(self.text, "{:<15} {value}", format!("{name}:"));
        }
    }
}

/// Seconds since 1970 as a date and time in UTC.
pub(super) fn utc(seconds: i64) -> String {
    let (days, time) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil_from_days(days);
    let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// The Gregorian date of a day counted from 1970-01-01: years are taken to begin in March, so that
/// the leap day is their last, and 400 of them have 146,097 days.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day)
}

/// The files as a tree of folders, each in the order in which it first appears.
struct Tree<'a> {
    nodes: Vec<Node<'a>>,
}

#[derive(Default)]
struct Node<'a> {
    name: &'a str,
    /// The file; `None` for a folder.
    file: Option<&'a ShownFile>,
    children: Vec<usize>,
}

impl<'a> Tree<'a> {
    fn of(files: &'a [ShownFile]) -> Tree<'a> {
        let mut nodes = vec![Node::default()];
        let mut folders: HashMap<(usize, &str), usize> = HashMap::new();
        for file in files {
            let mut parent = 0;
            let mut components = file.path.split('/').peekable();
            while let Some(name) = components.next() {
                let is_file = components.peek().is_none();
                let known = folders.get(&(parent, name)).filter(|_| !is_file);
                parent = known.copied().unwrap_or_else(|| {
                    let node = nodes.len();
                    nodes.push(Node {
                        name,
                        file: is_file.then_some(file),
                        children: Vec::new(),
                    });
                    nodes[parent].children.push(node);
                    if !is_file {
                        folders.insert((parent, name), node);
                    }
                    node
                });
            }
        }
        Tree { nodes }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        // A stack and no recursion: node, and the lines that its children hang from.
        let mut stack: Vec<(usize, String, &str, &str)> = vec![];
        stack.extend(
            self.nodes[0]
                .children
                .iter()
                .rev()
                .map(|&n| (n, String::new(), "", "")),
        );
        while let Some((node, indent, branch, below)) = stack.pop() {
            let node = &self.nodes[node];
            let name = printable(node.name.as_bytes(), TEXT_CHARS_MAX);
            let _ = match node.file {
                None => writeln!(text, "{indent}{branch}{name}/"),
                Some(file) if file.pad => writeln!(text, "{indent}{branch}{name}  (padding)"),
                Some(ShownFile { number, length, .. }) => {
                    let length = BinaryBytes(*length);
                    writeln!(text, "{indent}{branch}{name}  {length}  #{number}")
                }
            };
            let indent = indent + below;
            let last = node.children.len().saturating_sub(1);
            for (position, &child) in node.children.iter().enumerate().rev() {
                let (branch, below) = if position == last {
                    ("└── ", "    ")
                } else {
                    ("├── ", "│   ")
                };
                stack.push((child, indent.clone(), branch, below));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(utc(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(utc(951_782_399), "2000-02-28 23:59:59 UTC");
        assert_eq!(utc(951_782_400), "2000-02-29 00:00:00 UTC");
        assert_eq!(utc(1_709_251_199), "2024-02-29 23:59:59 UTC");
        assert_eq!(utc(4_107_542_400), "2100-03-01 00:00:00 UTC");
        assert_eq!(utc(-1), "1969-12-31 23:59:59 UTC");
    }

    #[test]
    fn files_are_drawn_as_a_tree_even_out_of_order() {
        let file = |number, path: &str, length, pad| ShownFile {
            number,
            path: path.into(),
            length,
            pad,
        };
        let files = [
            file(0, "d/a", 1, false),
            file(1, "d/sub/b", 2048, false),
            file(2, "d/.pad/7", 7, true),
            file(3, "d/x\u{1b}[2J", 0, false),
            file(4, "d/sub/c", 3, false),
        ];
        assert_eq!(
            Tree::of(&files).text(),
            "d/\n├── a  1 B  #0\n├── sub/\n│   ├── b  2.00 KiB  #1\n│   └── c  3 B  #4\n\
             ├── .pad/\n\
             │   └── 7  (padding)\n└── x\\u{1b}[2J  0 B  #3\n"
        );
    }

    #[test]
    fn a_magnet_shows_what_it_has() {
        let hash = "0123456789abcdef0123456789abcdef01234567";
        let link = format!("magnet:?xt=urn:btih:{hash}&dn=name&tr=http%3A%2F%2Fa%2F&tr=udp://b:1");
        let link = format!("{link}&x.pe=192.0.2.1:5&x.pe=foo&so=0,2-4");
        let (magnet, left_out) = Magnet::read(&link).unwrap();
        let shown = Shown::from_magnet(&magnet, &left_out);
        let json = serde_json::to_value(&shown).unwrap();
        assert_eq!(json["info_hash_v1"], hash);
        assert_eq!(
            json["trackers"],
            serde_json::json!([["http://a/"], ["udp://b:1"]])
        );
        for absent in [
            "info_hash_v2",
            "length",
            "files",
            "respelled",
            "private",
            "pieces",
            "comment",
        ] {
            assert!(json[absent].is_null(), "{absent}");
        }
        assert_eq!(json["peers"], serde_json::json!(["192.0.2.1:5"]));
        assert_eq!(json["selection"], serde_json::json!([[0, 0], [2, 4]]));
        assert_eq!(json.as_object().unwrap().len(), 19);
        let text = shown.text();
        assert!(
            text.starts_with("Name:           name\nInfo-hash v1:   0123"),
            "{text}"
        );
        assert!(text.contains("\nPeer:           192.0.2.1:5\nOnly files:     0,2-4\n"));
        assert!(text.contains("\nWarning:        the link's x.pe= at byte"));
    }

    #[test]
    fn of_many_parameters_that_are_wrong_ten_are_shown() {
        let hash = "0123456789abcdef0123456789abcdef01234567";
        for (wrong, shown, last) in [(10, 10, "x.pe="), (15_000, 11, "and 14,990 more")] {
            let link = format!("magnet:?xt=urn:btih:{hash}{}", "&x.pe=0".repeat(wrong));
            let (magnet, left_out) = Magnet::read(&link).unwrap();
            assert_eq!(left_out.len(), wrong);
            let text = Shown::from_magnet(&magnet, &left_out).text();
            let mut warnings = text.lines().filter(|line| line.starts_with("Warning:"));
            assert!(
                warnings.clone().next_back().unwrap().contains(last),
                "{text}"
            );
            assert_eq!(warnings.by_ref().count(), shown);
        }
    }
}
