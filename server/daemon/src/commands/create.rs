//! `seedring create`: makes a `.torrent` file of a file or a folder.

use crate::cli::Global;
use crate::disk::FOREGROUND;
use crate::failure::Failure;
use crate::progress::{Reporter, counted, print, print_json, shown, tell_respelled};
use clap::{Args, ValueEnum};
use control::create::{
    CreateOptions, CreateProgress, Created, Skips, SymlinkPolicy, check_writable, create,
    is_piece_length, write_file,
};
use indicatif::{BinaryBytes, HumanCount};
use serde::Serialize;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

const EXAMPLES: &str = "\
Examples:
  seedring create ~/music -o music.torrent --tracker https://tracker.example/announce
  seedring create disk.img -o disk.torrent --piece-size 4M --web-seed https://files.example/
  seedring create data -o data.torrent --tracker udp://a.example:1,udp://b.example:1 \\
      --tracker https://c.example/announce          # two tiers, the first of two trackers
  seedring create data -o data.torrent --creation-date none   # equal content, equal bytes

Files are sorted by the bytes of their paths; hidden and empty files are kept, empty folders are \
not. Without --piece-size a piece is 16K up to 32 MiB of content, then twice as long for each \
doubling, so that there are 1,025 to 2,048 pieces; 16M at most. --json prints progress lines, and at \
the end {\"event\":\"created\", torrent, name, info_hash_v1, length, piece_length, pieces, files, \
skipped, magnet}.";

/// Arguments of `seedring create`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct CreateArgs {
    /// The file or folder to share
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// The .torrent file to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// A tracker, or several of one tier with commas between; each --tracker is a tier of its own
    #[arg(short, long = "tracker", value_name = "URL[,URL…]", value_parser = parse_tier)]
    trackers: Vec<Tier>,
    /// An HTTP server that has the same files (BEP 19); may be given several times
    #[arg(short, long = "web-seed", value_name = "URL", value_parser = parse_web_seed)]
    web_seeds: Vec<String>,
    /// Only the trackers may name peers: no DHT, no peer exchange (BEP 27)
    #[arg(short, long)]
    private: bool,
    /// The length of a piece: a power of two from 16K to 512M [default: by the size of the content]
    #[arg(short = 's', long, value_name = "SIZE", value_parser = parse_piece_size)]
    piece_size: Option<u32>,
    /// The name of a source, by which private trackers tell their torrents apart; changes the
    /// info-hash
    #[arg(long, value_name = "TEXT")]
    source: Option<String>,
    /// A remark for people
    #[arg(short, long, value_name = "TEXT")]
    comment: Option<String>,
    /// When the torrent says that it was made: none, now, or seconds since 1970
    #[arg(long, value_name = "WHEN", default_value = "now")]
    creation_date: CreationDate,
    /// The torrent's name [default: that of PATH]
    #[arg(short, long)]
    name: Option<String>,
    /// What to do with symbolic links in a folder
    #[arg(long, value_name = "POLICY", value_enum, default_value_t = Symlinks::Skip)]
    symlinks: Symlinks,
    /// How many threads hash [default: one on each core]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
    /// Replace FILE if it exists
    #[arg(short, long)]
    force: bool,
    /// Make a version 2 torrent (comes later)
    #[arg(long, hide = true)]
    v2: bool,
    /// Make a torrent of both versions (comes later)
    #[arg(long, hide = true)]
    hybrid: bool,
}

/// The trackers of one tier.
#[derive(Clone, Debug)]
pub struct Tier(pub Vec<String>);

#[derive(Clone, Copy, Debug)]
enum CreationDate {
    None,
    Now,
    Unix(i64),
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Symlinks {
    /// Leave them out, with a note
    Skip,
    /// Take what they point to, if they are relative and it lies beneath PATH
    Follow,
    /// Refuse
    Error,
}

#[derive(Serialize)]
struct CreatedLine<'a> {
    event: &'static str,
    torrent: &'a Path,
    name: &'a str,
    info_hash_v1: Option<String>,
    length: u64,
    piece_length: u32,
    pieces: u32,
    files: usize,
    skipped: u64,
    magnet: String,
}

/// Runs the command.
pub fn run(global: &Global, args: &CreateArgs) -> Result<(), Failure> {
    if args.v2 || args.hybrid {
        let error = anyhow::anyhow!(
            "version 2 torrents (BEP 52) cannot be made yet; leave out --v2 and --hybrid"
        );
        return Err(Failure::Usage(error));
    }
    check_writable(&args.output, args.force).map_err(|error| Failure::Usage(error.into()))?;
    let options = CreateOptions {
        name: args.name.clone(),
        trackers: args.trackers.iter().map(|tier| tier.0.clone()).collect(),
        web_seeds: args.web_seeds.clone(),
        private: args.private,
        piece_length: args.piece_size,
        source: args.source.clone(),
        comment: args.comment.clone(),
        creation_date: args.creation_date.seconds(),
        symlinks: args.symlinks.into(),
        threads: args.threads,
        exclude: vec![args.output.clone()],
    };
    let mut reporter = Reporter::new("hashing", global.json);
    let mut report = |progress: &CreateProgress<'_>| {
        match progress {
            CreateProgress::Walking { files } => reporter.walking(*files),
            CreateProgress::Hashing(progress) => reporter.hashing(progress),
        }
        ControlFlow::Continue(())
    };
    let created = create(&args.path, &options, FOREGROUND, &mut report);
    reporter.finish();
    let created = created.map_err(anyhow::Error::from)?;
    print_skips(&created.skips);
    for told in tell_respelled(&created.metainfo) {
        eprintln!("seedring: {told}");
    }
    write_file(&args.output, &created.torrent, args.force).map_err(anyhow::Error::from)?;
    print_created(global, args, &created);
    Ok(())
}

/// Notes on stderr what is not in the torrent.
fn print_skips(skips: &Skips) {
    for skip in &skips.shown {
        eprintln!("seedring: left out {}: {}", shown(&skip.path), skip.reason);
    }
    let more = skips.count - skips.shown.len() as u64;
    if more > 0 {
        eprintln!("seedring: left out {} more", HumanCount(more));
    }
}

fn print_created(global: &Global, args: &CreateArgs, created: &Created) {
    let metainfo = &created.metainfo;
    let info_hash_v1 = metainfo.info_hash_v1.map(|hash| hash.to_string());
    let magnet = metainfo.magnet().to_string();
    if global.json {
        print_json(&CreatedLine {
            event: "created",
            torrent: &args.output,
            name: &metainfo.name,
            info_hash_v1,
            length: metainfo.total_length,
            piece_length: metainfo.piece_length,
            pieces: metainfo.piece_count,
            files: metainfo.files.len(),
            skipped: created.skips.count,
            magnet,
        });
        return;
    }
    print(&format!(
        "Torrent:    {}\nInfo-hash:  {}\nContent:    {} in {}, {} of {}\n\
         Magnet:     {}\n",
        shown(&args.output),
        info_hash_v1.unwrap_or_default(),
        BinaryBytes(metainfo.total_length),
        counted(metainfo.files.len() as u64, "file"),
        counted(u64::from(metainfo.piece_count), "piece"),
        BinaryBytes(u64::from(metainfo.piece_length)),
        magnet,
    ));
}

impl From<Symlinks> for SymlinkPolicy {
    fn from(symlinks: Symlinks) -> Self {
        match symlinks {
            Symlinks::Skip => SymlinkPolicy::Skip,
            Symlinks::Follow => SymlinkPolicy::Follow,
            Symlinks::Error => SymlinkPolicy::Error,
        }
    }
}

impl CreationDate {
    fn seconds(self) -> Option<i64> {
        match self {
            CreationDate::None => None,
            CreationDate::Unix(seconds) => Some(seconds),
            CreationDate::Now => {
                let since = SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .unwrap_or_default();
                i64::try_from(since.as_secs()).ok()
            }
        }
    }
}

impl FromStr for CreationDate {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "none" => Ok(CreationDate::None),
            "now" => Ok(CreationDate::Now),
            _ => match text.parse() {
                Ok(seconds) if seconds >= 0 => Ok(CreationDate::Unix(seconds)),
                _ => Err("expected `none`, `now` or seconds since 1970"),
            },
        }
    }
}

/// Reads `256K`, `1M`, `4MiB` or a number of bytes.
pub fn parse_piece_size(text: &str) -> Result<u32, String> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u32 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        _ => return Err("expected a number of bytes, or one with K or M: 256K, 1M".into()),
    };
    let bytes = number
        .parse::<u32>()
        .ok()
        .and_then(|number| number.checked_mul(factor));
    bytes
        .filter(|&bytes| is_piece_length(bytes))
        .ok_or_else(|| "expected a power of two from 16K to 512M".into())
}

/// Reads the trackers of a tier, with commas between.
pub fn parse_tier(text: &str) -> Result<Tier, String> {
    text.split(',')
        .map(|url| checked_url(url, &["http", "https", "udp"]))
        .collect::<Result<_, _>>()
        .map(Tier)
}

fn parse_web_seed(text: &str) -> Result<String, String> {
    checked_url(text, &["http", "https", "ftp"])
}

/// The URL, if it has one of `schemes`, a host, and nothing that could break a line. No error shows it: see
/// [`crate::cli::Cli::of_process`].
fn checked_url(url: &str, schemes: &[&str]) -> Result<String, String> {
    let url = url.trim();
    let (scheme, rest) = url.split_once("://").unwrap_or_default();
    if !schemes
        .iter()
        .any(|known| scheme.eq_ignore_ascii_case(known))
    {
        return Err(format!(
            "it does not start with one of {}://",
            schemes.join("://, ")
        ));
    }
    if rest.is_empty() || rest.starts_with(['/', ':', '?', '#']) {
        return Err("it names no host".to_owned());
    }
    if url.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err("it has a space or a control character; write it as %20".to_owned());
    }
    Ok(url.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn piece_sizes_are_read_with_their_units() {
        for (text, bytes) in [
            ("16384", 16 << 10),
            ("16k", 16 << 10),
            ("256K", 256 << 10),
            ("1M", 1 << 20),
            ("16MiB", 16 << 20),
            ("512m", 512 << 20),
        ] {
            assert_eq!(parse_piece_size(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "K",
            "1",
            "8K",
            "100K",
            "1G",
            "1024M",
            "-1M",
            "4294967296",
            "1 M",
            "1.5M",
        ] {
            assert!(parse_piece_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn each_tracker_option_is_a_tier() {
        let Tier(tier) = parse_tier("http://a/x, UDP://b:1").unwrap();
        assert_eq!(tier, ["http://a/x", "UDP://b:1"]);
        for text in [
            "",
            "a",
            "http://",
            "http:///x",
            "http://a,",
            "file:///x",
            "http://a b",
            "wss://a",
        ] {
            assert!(parse_tier(text).is_err(), "{text}");
        }
    }

    #[test]
    fn creation_dates_are_read() {
        let seconds = |text: &str| text.parse::<CreationDate>().map(CreationDate::seconds);
        assert_eq!(seconds("none"), Ok(None));
        assert_eq!(seconds("1700000000"), Ok(Some(1_700_000_000)));
        assert!(seconds("now").unwrap() > Some(1_700_000_000));
        assert!(seconds("yesterday").is_err() && seconds("-1").is_err());
    }
}
