//! `seedring get`: downloads one torrent.

use crate::cli::Global;
use crate::failure::Failure;
use crate::getting::{self, Choice, Plan, Source};
use crate::progress::first_of;
use anyhow::anyhow;
use clap::Args;
use control::config::{Config, Environment};
use control::web;
use proto::magnet::{Magnet, PeerAddress};
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  seedring get debian.torrent -d ~/downloads
  seedring get 'magnet:?xt=urn:btih:…' -d . --peer 192.0.2.7:6890
  seedring get 'magnet:?xt=urn:btih:…' -d . --tracker http://10.0.0.5:6969/announce
  seedring get https://example.com/set.torrent -d /data --select '*.iso' --seed
  seedring get set.torrent -d /data --json | jq -r 'select(.event == \"progress\") | .bytes_per_s'

What is there already is used, whoever put it there: files that exist are hashed unless an earlier run \
knows them. What in them is not the torrent's is written over, and what they have beyond its length is cut: the \
first run names such files before. Ctrl-C stops; the same command goes on. Until all of a file is there, its name \
ends in `.part`; with --select so do, and stay, files that were left out but share a piece with one that is wanted. A folder whose files have gone since is taken for a disk that is not mounted; --anew \
fetches them again.

What only a torrent from the web names is asked if its address is a global one: trackers in your own network are \
yours to name, by --tracker. A link's trackers there are asked, too, if their URLs end in the port and /announce, as \
those that `seedring seed` prints; its peers (x.pe) are not: --peer names them. The trackers of a .torrent file that \
you have are asked wherever they are, and so are all with announce.allow_private_trackers = true.

Exit code 0: all that is wanted is there and has the torrent's hashes; 1: it failed, or the torrent cannot be \
had; 2: the command line or the configuration is wrong; 3: io_uring is refused; 130: stopped before it was complete.

--json prints lines {\"event\":…}: started (name, info_hash_v1, data_dir, peer_port, bytes_done, \
bytes_total, files, files_selected), progress (action and what goes with it, below), paused (reason, needs: space, \
disk or permission, bytes_missing), resumed, replacing (count, files: the first of them), \
respelled (count, names: the first of them, with name and written), left-out (reason: what of the link cannot be \
read; ten at most, then how many more), not-asked (reason; as many), peer-failed (peer, reason), \
tracker-waiting (tracker: it takes long), tracker-failed (tracker, reason), \
tracker-recovered (tracker), \
banned (peer), complete (name, info_hash_v1, path, \
bytes, whole, files, files_selected, downloaded, wasted, uploaded, seconds), stopped (bytes_done, bytes_total; null \
if it was not known yet). A progress line with the action hashing, which comes before started, has bytes_done, \
bytes_total, bytes_per_s, eta_s and file; metadata has peers, and waiting (what each source has said) while there are none; \
fetching has bytes_done, bytes_total, bytes_synced, \
bytes_per_s, eta_s (null while it is not known), up_bytes_per_s, downloaded, uploaded, wasted, hash_failures, peers, \
seeds, connecting, candidates, sources (for tracker, dht, pex, lsd, incoming, given: known addresses and connected \
peers), paused, and waiting as metadata has it; seeding has up_bytes_per_s, uploaded and peers.";

/// Arguments of `seedring get`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct GetArgs {
    /// A .torrent file, its URL, or a magnet link in quotes
    #[arg(value_name = "TORRENT|MAGNET|URL")]
    torrent: String,
    /// The folder that gets the torrent's file or folder; made if it is not there
    #[arg(short, long, value_name = "DIR")]
    directory: PathBuf,
    /// Ask this peer, too (repeatable)
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_peer)]
    peer: Vec<PeerAddress>,
    /// Ask this tracker first; several of one tier with commas between (repeatable: each is a tier)
    #[arg(long, value_name = "URL[,URL…]", value_parser = super::create::parse_tier)]
    tracker: Vec<super::create::Tier>,
    /// Take no part in the DHT: ask trackers and the peers that are named only
    #[arg(long)]
    no_dht: bool,
    /// Only these files: numbers as `seedring show` prints them, such as 0,2-4, or a pattern such as '*.iso' or 'folder/*' (repeatable)
    #[arg(long, value_name = "FILES")]
    select: Vec<Choice>,
    /// From the beginning to the end, in place of the rarest pieces first
    #[arg(long)]
    sequential: bool,
    /// Go on as a seed when all is there, until Ctrl-C
    #[arg(long)]
    seed: bool,
    /// Believe nothing of an earlier run: hash what is there, fetch what is gone
    #[arg(long)]
    anew: bool,
    /// Port for peers [default: any]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    port: u16,
    /// Shards: threads that serve peers [default: one per core]
    #[arg(long, value_name = "N")]
    shards: Option<u16>,
}

/// Runs the command.
pub fn run(global: &Global, args: &GetArgs) -> Result<(), Failure> {
    let environment = Environment::of_process();
    let mut config = Config::load(global.config.as_deref(), &environment)
        .map_err(|error| Failure::Usage(error.into()))?;
    config.peers.port = args.port;
    config.tracker.enabled = false;
    config.dht.enabled &= !args.no_dht;
    if let Some(shards) = args.shards {
        config.shards.count = shards;
    }
    let (source, left_out) = source(&args.torrent)?;
    let state_dir = global.state_dir.clone();
    getting::run(Plan {
        state_dir: state_dir.unwrap_or_else(|| config.state_dir(&environment)),
        config,
        source,
        left_out,
        data_dir: args.directory.clone(),
        peers: args.peer.clone(),
        trackers: args.tracker.iter().map(|tier| tier.0.clone()).collect(),
        choices: args.select.clone(),
        sequential: args.sequential,
        seed: args.seed,
        anew: args.anew,
        json: global.json,
    })
}

/// Tells links, URLs and files apart; of a link beside it what of it is left out.
fn source(torrent: &str) -> Result<(Source, Vec<String>), Failure> {
    if Magnet::is_link(torrent) {
        let read = Magnet::read(torrent).map_err(|error| Failure::Usage(error.into()));
        let (magnet, left_out) = read?;
        return Ok((Source::Magnet(Box::new(magnet)), first_of(&left_out)));
    }
    // Copied from somewhere, it may have blanks around it; a file's name may really have some.
    let url = torrent.trim();
    if web::is_url(url) {
        return Ok((Source::Url(url.to_owned()), Vec::new()));
    }
    // Not shown whole: a password may stand in it.
    if let Some((scheme, _)) = torrent.split_once("://")
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric())
    {
        return Err(Failure::Usage(anyhow!(
            "a torrent cannot be fetched by {scheme}: give its http or https URL, a file or a magnet link"
        )));
    }
    let path = PathBuf::from(torrent);
    match std::fs::metadata(&path) {
        Ok(_) => Ok((Source::File(path), Vec::new())),
        Err(error) => Err(anyhow!("cannot find {path:?}: {error}").into()),
    }
}

/// Reads a peer as a magnet link has it (BEP 9).
fn parse_peer(text: &str) -> Result<PeerAddress, String> {
    text.parse().map_err(|_| {
        format!("{text:?} is no HOST:PORT, IPV4:PORT or [IPV6]:PORT with a port from 1 to 65535")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_urls_and_files_are_told_apart() {
        let hash = "0123456789abcdef0123456789abcdef01234567";
        let magnet = source(&format!("Magnet:?xt=urn:btih:{hash}&x.pe=192.0.2.1:5"));
        assert!(matches!(magnet, Ok((Source::Magnet(_), left_out)) if left_out.is_empty()));
        let pasted = source(&format!(" magnet:?xt=urn:btih:{hash}\n"));
        assert!(matches!(pasted, Ok((Source::Magnet(_), _))));
        let pasted = source("\thttps://a.example/x.torrent ");
        let is_bare = |url: &str| url == "https://a.example/x.torrent";
        assert!(matches!(pasted, Ok((Source::Url(url), _)) if is_bare(&url)));
        let worse = source(&format!("magnet:?xt=urn:btih:{hash}&x.pe=foo&so=a"));
        assert!(matches!(worse, Ok((Source::Magnet(_), left_out)) if left_out.len() == 2));
        assert!(matches!(
            source("https://a.example/x.torrent"),
            Ok((Source::Url(_), _))
        ));
        assert!(matches!(source("magnet:?xt=x"), Err(Failure::Usage(_))));
        // As a folder in a torrent's place, it is nothing that the command line shows to be wrong.
        assert!(matches!(source("/no/such/file"), Err(Failure::Failed(_))));
        let Err(Failure::Usage(error)) = source("ftp://me:secret@host/x") else {
            panic!("it is no file");
        };
        assert!(!format!("{error:#}").contains("secret"), "{error:#}");
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        assert!(matches!(source(path), Ok((Source::File(_), _))));
    }

    #[test]
    fn peers_are_addresses_or_names_with_a_port() {
        for good in ["192.0.2.1:6890", "[2001:db8::1]:6890", "seed.example:1"] {
            assert_eq!(parse_peer(good).unwrap().to_string(), good);
        }
        for bad in [
            "192.0.2.1",
            "192.0.2.1:0",
            "seed.example:70000",
            ":1",
            "a b:1",
        ] {
            assert!(parse_peer(bad).is_err(), "{bad}");
        }
    }
}
