//! What the user wants to be downloaded, and what can be known of it before any port is opened: the
//! torrent as a file or the web has it, the addresses of the peers that are named, and whose word
//! each tracker is.
//!
//! Limits: those of [`web`] and of [`read_torrent`]. Does not: ask peers.

use super::peers::{self, Resolved};
use super::selection::Choice;
use super::trackers::{self, Sorted, Word};
use crate::failure::Failure;
use crate::settings;
use anyhow::{Context, anyhow};
use control::config::Config;
use control::library::read_torrent;
use control::web;
use proto::ids::InfoHashV1;
use proto::magnet::{Magnet, PeerAddress};
use proto::metainfo::{Metainfo, with_trackers};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

/// What to download, and how.
pub struct Plan {
    pub config: Config,
    pub state_dir: PathBuf,
    pub source: Source,
    /// What of a link cannot be read; fit to be shown.
    pub left_out: Vec<String>,
    pub data_dir: PathBuf,
    /// Peers to ask beside those that trackers and the link name.
    pub peers: Vec<PeerAddress>,
    /// Trackers to ask before the torrent's own, by tier.
    pub trackers: Vec<Vec<String>>,
    /// The files that are wanted; all if there are no choices.
    pub choices: Vec<Choice>,
    pub sequential: bool,
    /// Whether to go on as a seed.
    pub seed: bool,
    /// Whether to believe nothing of earlier runs.
    pub anew: bool,
    pub json: bool,
}

/// Where the torrent is described.
pub enum Source {
    File(PathBuf),
    Url(String),
    Magnet(Box<Magnet>),
}

/// A torrent that is described.
pub(super) struct Described {
    pub info_hash: InfoHashV1,
    /// The bytes of its `.torrent` file.
    pub torrent: Vec<u8>,
    pub metainfo: Arc<Metainfo>,
}

impl Plan {
    /// The torrent, unless only peers can say what it is, and the peers that the user and the link
    /// name.
    pub(super) async fn prepare(&self) -> Result<(Option<Described>, Resolved), Failure> {
        let described = self.described().await?;
        let in_link = match &self.source {
            Source::Magnet(magnet) => &magnet.peers[..],
            Source::File(_) | Source::Url(_) => &[],
        };
        Ok((described, peers::resolve(&self.peers, in_link).await))
    }

    /// The torrent, unless only peers can say what it is.
    async fn described(&self) -> Result<Option<Described>, Failure> {
        let (torrent, name) = match &self.source {
            Source::Magnet(_) => return Ok(None),
            Source::File(path) => {
                let name = format!("{path:?}");
                let path = path.clone();
                // A FIFO, or a disk that hangs, is not to keep a signal from being heard.
                let reading = tokio::task::spawn_blocking(move || read_torrent(&path)).await;
                let read = reading.context("reading the torrent ended early")?;
                (read.map_err(anyhow::Error::from)?, name)
            }
            Source::Url(url) => {
                let config = settings::announce(&self.config)?;
                let fetched = web::fetch_torrent(url, &config).await;
                // Not the URL, in which a password may stand.
                let name = "what the web server sent".to_owned();
                (fetched.map_err(anyhow::Error::from)?, name)
            }
        };
        describe(torrent, &[], &name).map(Some)
    }

    /// The torrent whose `info` dictionary peers have given: bytes of the link's hash.
    pub(super) fn described_by_peers(
        &self,
        info_hash: InfoHashV1,
        info: &[u8],
    ) -> Result<Described, Failure> {
        const NAME: &str = "what the link stands for";
        let torrent = [b"d4:info", info, b"e"].concat();
        let described = describe(torrent, &self.magnet_trackers(), NAME)?;
        if described.info_hash != info_hash {
            // Whoever made the link may have hashed more than a dictionary: what follows it would
            // be taken for the rest of a `.torrent` file, which nobody but the user may give.
            return Err(anyhow!("{NAME} is no torrent that can be downloaded: it goes on").into());
        }
        Ok(described)
    }

    /// That the web seeds which the torrent or the link names are not asked, if there are any.
    pub(super) fn web_seeds(&self, metainfo: &Metainfo) -> Option<String> {
        let in_link = match &self.source {
            Source::Magnet(magnet) => magnet.web_seeds.as_slice(),
            _ => &[],
        };
        let named: BTreeSet<&String> = in_link.iter().chain(&metainfo.web_seeds).collect();
        let count = u64::try_from(named.len()).ok().filter(|count| *count > 0)?;
        Some(format!(
            "{} not asked: downloads come from peers only",
            match count {
                1 => "1 web seed is".to_owned(),
                _ => format!("{count} web seeds are"),
            }
        ))
    }

    /// The trackers of the magnet link: each its own tier, as links know no tiers.
    pub(super) fn magnet_trackers(&self) -> Vec<Vec<String>> {
        match &self.source {
            Source::Magnet(magnet) => magnet
                .trackers
                .iter()
                .map(|url| vec![url.clone()])
                .collect(),
            Source::File(_) | Source::Url(_) => Vec::new(),
        }
    }

    /// The user's trackers, then the torrent's, sorted by whether they may be inside our network.
    pub(super) fn sorted(&self, of_torrent: &[Vec<String>]) -> Sorted {
        let mut sorted = trackers::sort(&self.trackers, of_torrent, |url| self.word_of(url));
        if self.config.announce.proxy.url().is_some() {
            sorted.keep_to_proxy();
        }
        sorted
    }

    /// Whose word it is that this is a tracker of the torrent.
    fn word_of(&self, tracker: &str) -> Word {
        let is_own = match &self.source {
            Source::File(_) => true,
            Source::Url(url) => trackers::is_inside(url),
            Source::Magnet(_) => false,
        };
        match &self.source {
            _ if is_own || self.config.announce.allow_private_trackers => Word::Own,
            // What is kept of the torrent may be of an earlier run, which had it from somewhere
            // else.
            Source::Magnet(magnet) if magnet.trackers.iter().any(|url| url == tracker) => {
                Word::Link
            }
            Source::Magnet(_) => Word::Kept,
            _ => Word::Stranger,
        }
    }
}

/// Reads a torrent, which errors call `name`; `trackers` are added if it names none.
pub(super) fn describe(
    torrent: Vec<u8>,
    trackers: &[Vec<String>],
    name: &str,
) -> Result<Described, Failure> {
    let wrong = || format!("{name} is no torrent that can be downloaded");
    let parse = |torrent: &[u8]| Metainfo::parse(torrent).with_context(wrong);
    let (mut torrent, mut metainfo) = (torrent, None);
    let bare = parse(&torrent)?;
    if bare.trackers.is_empty() && !trackers.is_empty() {
        torrent = with_trackers(&torrent, trackers).with_context(wrong)?;
        metainfo = Some(parse(&torrent)?);
    }
    let metainfo = metainfo.unwrap_or(bare);
    Ok(Described {
        info_hash: metainfo.info_hash_v1.ok_or_else(only_v2)?,
        torrent,
        metainfo: Arc::new(metainfo),
    })
}

pub(super) fn link_only_v2() -> Failure {
    anyhow!(
        "the link names a version 2 hash only (btmh, BEP 52); fetching by those comes later: a link with a version 1 \
         hash (btih), or the .torrent file of a hybrid torrent, can be fetched"
    )
    .into()
}

fn only_v2() -> Failure {
    anyhow!("the torrent has version 2 hashes only (BEP 52); fetching those comes later").into()
}
