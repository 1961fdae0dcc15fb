//! The trackers of one download, and which of them may be inside our network.
//!
//! What the user names is asked wherever it is: `--tracker`, and a `.torrent` file of his own. A
//! torrent from the web is a stranger's word: its trackers are asked at global addresses only, or
//! whoever made it would have us send requests into our own network. (A web server that is inside
//! itself is no stranger, and `announce.allow_private_trackers` trusts them all.) A magnet link
//! that the user gives is between the two, see [`Word::Link`].
//!
//! Limits: those of [`control::announce`]. Does not: decide when to ask.

use crate::control_plane;
use crate::failure::Failure;
use control::announce::{
    AnnounceHandle, Totals, TrackerState, TrackerStatus, is_global, is_udp, redacted,
};
use control::config::Config;
use control::web;
use proto::ids::{InfoHashV1, PeerId};
use seedring_metrics::ControlCells;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Trackers of whom it is remembered what was told of them last.
const TOLD_MAX: usize = 64;

/// A first answer that takes longer is told to be waited for.
const SILENT_AFTER: Duration = Duration::from_secs(5);

/// See the module.
pub struct Trackers {
    /// Asks those that may be anywhere.
    trusted: Option<AnnounceHandle>,
    /// Asks those at global addresses only.
    strangers: Option<AnnounceHandle>,
    /// What was told of a tracker last.
    told: BTreeMap<String, News>,
}

/// What there is to tell of a tracker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum News {
    /// It has been asked for the first time, and its answer is waited for.
    Silent,
    /// It failed for this reason, and is asked again.
    Failed(String),
    /// It is not asked again, for this reason.
    GivenUp(String),
    /// It answers after all.
    Recovered,
}

/// Whose word it is that a tracker is one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Word {
    /// The user's: it is asked wherever it is.
    Own,
    /// A link's that the user gave. He may have it from our own `seed` in the next room or from a
    /// page of the web, so a tracker inside our network is asked if its URL leaves a request no
    /// word to say but that it is an announce: see [`says_nothing_else`].
    Link,
    /// Somebody's: it is asked at a global address only.
    Stranger,
    /// A link's or torrent's that an earlier run was given; whose that was is not kept. As
    /// [`Word::Stranger`].
    Kept,
}

impl Word {
    /// Whether it is enough to ask this tracker at an address inside a network.
    fn reaches_inside(self, url: &str) -> bool {
        match self {
            Word::Own => true,
            Word::Link => says_nothing_else(url),
            Word::Stranger | Word::Kept => false,
        }
    }
}

/// Which trackers are asked of those that are named.
#[derive(Default, PartialEq, Eq, Debug)]
pub struct Sorted {
    /// Wherever they are.
    pub trusted: Vec<Vec<String>>,
    /// Where they are at a global address.
    pub strangers: Vec<Vec<String>>,
    /// Those that are not asked, with the reason; fit to be shown.
    pub refused: Vec<String>,
}

impl Trackers {
    /// Starts what announces, if the configuration wants it.
    ///
    /// # Errors
    ///
    /// There are no random bytes, or no threads.
    pub fn start(
        config: &Config,
        peer_id: PeerId,
        port: u16,
        cells: &Arc<ControlCells>,
    ) -> Result<Trackers, Failure> {
        let start = |allow_private| {
            let mut config = config.clone();
            config.announce.allow_private_trackers = allow_private;
            control_plane::start_announcer(&config, peer_id, port, cells)
        };
        Ok(Trackers {
            trusted: start(true)?,
            strangers: start(false)?,
            told: BTreeMap::new(),
        })
    }

    /// Whether trackers are asked at all.
    pub fn are_asked(&self) -> bool {
        self.trusted.is_some()
    }

    /// Announces a torrent from now on, to trackers that it is not announced to yet.
    pub fn add(
        &self,
        info_hash: InfoHashV1,
        trackers: &Sorted,
        private: bool,
        totals: &Arc<dyn Totals>,
    ) {
        let sets = [
            (&self.trusted, &trackers.trusted),
            (&self.strangers, &trackers.strangers),
        ];
        for (announcer, tiers) in sets {
            if let Some(announcer) = announcer
                && !tiers.is_empty()
            {
                announcer.add(info_hash, tiers, private, Arc::clone(totals));
            }
        }
    }

    /// All is there.
    pub fn completed(&self, info_hash: InfoHashV1) {
        self.each().for_each(|announcer| {
            announcer.completed(info_hash);
        });
    }

    /// Asks again as soon as the trackers allow it.
    pub fn reannounce(&self, info_hash: InfoHashV1) {
        self.each().for_each(|announcer| {
            announcer.reannounce(info_hash);
        });
    }

    /// How its trackers are doing.
    pub fn statuses(&self, info_hash: InfoHashV1) -> Vec<TrackerStatus> {
        let all = self.each();
        let all = all.filter_map(|announcer| announcer.status(info_hash));
        all.flat_map(|status| status.trackers).collect()
    }

    /// Trackers that fail, with their reasons, and that answer again, as far as that has not been
    /// told yet.
    pub fn news(&mut self, info_hash: InfoHashV1) -> Vec<(String, News)> {
        let mut all = Vec::new();
        for status in self.statuses(info_hash) {
            let told = self.told.get(&status.tracker);
            let Some(news) = news_of(&status, told) else {
                continue;
            };
            if told.is_none() && self.told.len() >= TOLD_MAX {
                continue;
            }
            match news {
                News::Recovered => self.told.remove(&status.tracker),
                _ => self.told.insert(status.tracker.clone(), news.clone()),
            };
            all.push((status.tracker, news));
        }
        all
    }

    /// Tells all that we stop.
    pub async fn shutdown(&self, timeout: Duration) {
        let stop = async |announcer: &Option<AnnounceHandle>| {
            if let Some(announcer) = announcer {
                announcer.shutdown(timeout).await;
            }
        };
        tokio::join!(stop(&self.trusted), stop(&self.strangers));
    }

    fn each(&self) -> impl Iterator<Item = &AnnounceHandle> {
        self.trusted.iter().chain(&self.strangers)
    }
}

/// Sorts trackers: those that the user `named`, and those that the torrent or the link does, each
/// by whose `word` it is.
pub fn sort(
    named: &[Vec<String>],
    of_torrent: &[Vec<String>],
    word: impl Fn(&str) -> Word,
) -> Sorted {
    let mut sorted = Sorted::default();
    for tier in named {
        sorted.take(tier.iter(), |_| Word::Own);
    }
    let is_named = |url: &&String| named.iter().flatten().any(|other| other == *url);
    for tier in of_torrent {
        sorted.take(tier.iter().filter(|url| !is_named(url)), &word);
    }
    sorted
}

/// What there is to tell of a tracker of which this has been `told` last.
fn news_of(status: &TrackerStatus, told: Option<&News>) -> Option<News> {
    let news = match (status.state, status.message.clone()) {
        (TrackerState::Failing, Some(reason)) => News::Failed(reason),
        (TrackerState::Disabled, Some(reason)) => News::GivenUp(reason),
        (TrackerState::Announcing, _)
            if told.is_none() && status.asking_for >= Some(SILENT_AFTER) =>
        {
            News::Silent
        }
        (TrackerState::Working, _) if told.is_some() => News::Recovered,
        _ => return None,
    };
    (told != Some(&news)).then_some(news)
}

impl Sorted {
    /// Takes away those that a proxy keeps from being asked.
    pub fn keep_to_proxy(&mut self) {
        for tiers in [&mut self.trusted, &mut self.strangers] {
            for tier in tiers.iter_mut() {
                for url in tier.extract_if(.., |url| is_udp(url)) {
                    self.refused.push(format!(
                        "the tracker {} is not asked: UDP trackers cannot be asked through a proxy, and announce.proxy \
                         is set",
                        redacted(&url)
                    ));
                }
            }
            tiers.retain(|tier| !tier.is_empty());
        }
    }

    /// Takes a tier. The announcers know nothing of each other, so it is two tiers if its trackers
    /// are of two kinds.
    fn take<'a>(&mut self, tier: impl Iterator<Item = &'a String>, word: impl Fn(&str) -> Word) {
        let (mut anywhere, mut global) = (Vec::new(), Vec::new());
        for url in tier {
            let word = word(url);
            match refusal(url, word) {
                Some(refused) => self.refused.push(refused),
                None if word.reaches_inside(url) => anywhere.push(url.clone()),
                None => global.push(url.clone()),
            }
        }
        if !anywhere.is_empty() {
            self.trusted.push(anywhere);
        }
        if !global.is_empty() {
            self.strangers.push(global);
        }
    }
}

/// Why a tracker is not asked. Of one with a name its address says it, as soon as it is asked.
fn refusal(url: &str, word: Word) -> Option<String> {
    let shown = redacted(url);
    if !web::is_url(url) && !is_udp(url) {
        return Some(format!(
            "the tracker {shown} cannot be used: it is not http, https or udp"
        ));
    }
    if !is_inside(url) || word.reaches_inside(url) {
        return None;
    }
    let why = match word {
        Word::Own | Word::Stranger => "only a torrent from the web names it",
        Word::Kept => "the link does not name it, but what an earlier run kept of this torrent",
        Word::Link => "the link's URL for it says more than /announce",
    };
    Some(format!(
        "the tracker {shown} is not asked: its address is inside a network, and {why}; if it is yours, give its URL by \
         --tracker"
    ))
}

/// Whether a request to this URL is an announce and nothing else to whatever server gets it: the
/// path is `/announce` alone, with no query and nobody's password, so that whoever made the link
/// has chosen a host and a port and no word of what is said there. (Over UDP the first packet has
/// no place for any; the path, which follows when a tracker has answered, may be missing.)
fn says_nothing_else(url: &str) -> bool {
    let Some((_, rest)) = url.split_once("://") else {
        return false;
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len()));
    let is_bare = is_udp(url) && matches!(path, "" | "/");
    !authority.contains('@') && (path == "/announce" || is_bare)
}

/// The host of a URL of which nothing but scheme, host and port is left.
fn host(shown: &str) -> &str {
    let rest = shown.split_once("://").map_or(shown, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or(rest);
    match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or(v6),
        None => authority.split(':').next().unwrap_or(authority),
    }
}

fn address(shown: &str) -> Option<IpAddr> {
    host(shown).parse().ok()
}

/// Names that stand for this machine on any (RFC 6761).
fn is_local_name(shown: &str) -> bool {
    let host = host(shown).trim_end_matches('.').to_ascii_lowercase();
    host == "localhost" || host.ends_with(".localhost")
}

/// Whether the server of a URL, as it is written, is inside our network: then it is the user's own.
pub fn is_inside(url: &str) -> bool {
    let shown = redacted(url);
    is_local_name(&shown) || address(&shown).is_some_and(|ip| !is_global(ip))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tiers(urls: &[&str]) -> Vec<Vec<String>> {
        urls.iter().map(|&url| vec![url.to_owned()]).collect()
    }

    const INSIDE: [&str; 6] = [
        "http://127.0.0.1:1/announce",
        "udp://192.168.0.1:6969",
        "http://10.0.0.1/announce",
        "http://[::1]:6969/announce",
        "https://LocalHost/announce",
        "http://169.254.169.254/announce",
    ];

    #[test]
    fn a_stranger_s_trackers_are_asked_where_they_are_global() {
        let global = ["udp://9.9.9.9:80/announce", "https://tracker.example/a"];
        let both = tiers(&[&INSIDE[..], &global[..]].concat());
        let sorted = sort(&[], &both, |_| Word::Stranger);
        assert_eq!(sorted.strangers, tiers(&global));
        assert!(sorted.trusted.is_empty());
        assert_eq!(sorted.refused.len(), INSIDE.len());
        assert!(sorted.refused[0].contains("127.0.0.1:1"), "{sorted:?}");
        assert!(sorted.refused[0].contains("--tracker"), "{sorted:?}");
    }

    #[test]
    fn what_the_user_names_is_asked_anywhere_and_once() {
        let sorted = sort(&tiers(&INSIDE[..1]), &tiers(&INSIDE[..2]), |_| {
            Word::Stranger
        });
        assert_eq!(sorted.trusted, tiers(&INSIDE[..1]));
        assert_eq!(sorted.refused.len(), 1, "{sorted:?}");
        let own = sort(&[], &tiers(&INSIDE), |_| Word::Own);
        assert_eq!((own.trusted, own.refused), (tiers(&INSIDE), Vec::new()));
    }

    #[test]
    fn a_link_leads_inside_where_it_has_no_say_in_what_is_sent() {
        let link = |urls: &[&str]| sort(&[], &tiers(urls), |_| Word::Link);
        // Names among them: where they lead is known when they are asked.
        let plain = ["udp://10.0.0.1:6969/announce", "http://seed/announce"];
        let plain = [&INSIDE[..], &plain[..]].concat();
        let sorted = link(&plain);
        assert_eq!(
            (sorted.trusted, sorted.refused),
            (tiers(&plain), Vec::new())
        );
        let wordy = [
            "http://127.0.0.1:1/cgi-bin/reboot/announce",
            "http://127.0.0.1:1/announce?cmd=reboot",
            "http://127.0.0.1:1?/announce",
            "http://127.0.0.1:1#/announce",
            "http://127.0.0.1:1\\x/announce",
            "http://root:root@127.0.0.1:1/announce",
            "http://127.0.0.1:1/announce.php",
            "http://127.0.0.1:1/",
            "http://127.0.0.1:1",
            "udp://127.0.0.1:1/cmd",
        ];
        let sorted = link(&wordy);
        assert_eq!(sorted.refused.len(), wordy.len(), "{sorted:?}");
        assert!(sorted.trusted.is_empty() && sorted.strangers.is_empty());
        assert!(sorted.refused[0].contains("--tracker"), "{sorted:?}");
        // Elsewhere they may say what they like, and lead nowhere else.
        let global = ["https://tracker.example/announce?passkey=1"];
        assert_eq!(link(&global).strangers, tiers(&global));
        // A tier of two kinds is two.
        let mixed = [[plain[0].to_owned(), global[0].to_owned()].to_vec()];
        let sorted = sort(&[], &mixed, |_| Word::Link);
        assert_eq!(sorted.trusted, tiers(&plain[..1]));
        assert_eq!(sorted.strangers, tiers(&global));
    }

    #[test]
    fn what_an_earlier_run_kept_is_not_told_as_the_web_s() {
        let sorted = sort(&[], &tiers(&INSIDE[..1]), |_| Word::Kept);
        assert!(sorted.refused[0].contains("earlier run"), "{sorted:?}");
        assert!(sorted.trusted.is_empty() && sorted.strangers.is_empty());
    }

    #[test]
    fn behind_a_proxy_udp_trackers_are_left_out_and_named() {
        let both = [["http://9.9.9.9/a", "udp://9.9.9.9:80/secret"]
            .map(str::to_owned)
            .to_vec()];
        let mut sorted = sort(&tiers(&["UDP://8.8.8.8:1"]), &both, |_| Word::Own);
        sorted.keep_to_proxy();
        assert_eq!(sorted.trusted, tiers(&["http://9.9.9.9/a"]));
        let refused = sorted.refused.join("\n");
        assert!(
            refused.contains("8.8.8.8:1") && refused.contains("announce.proxy"),
            "{refused}"
        );
        assert!(
            refused.contains("9.9.9.9:80") && !refused.contains("secret"),
            "{refused}"
        );
    }

    #[test]
    fn each_turn_of_a_tracker_is_told_once() {
        let status = |state, message: Option<&str>, asking: u64| TrackerStatus {
            tracker: "http://a/…".to_owned(),
            tier: 0,
            state,
            since_last: None,
            asking_for: Some(Duration::from_secs(asking)),
            until_next: None,
            seeders: None,
            leechers: None,
            downloaded: None,
            peers: 0,
            message: message.map(str::to_owned),
        };
        use TrackerState::{Announcing, Disabled, Failing, Working};
        let asked = |seconds| status(Announcing, None, seconds);
        assert_eq!(news_of(&asked(4), None), None);
        assert_eq!(news_of(&asked(5), None), Some(News::Silent));
        assert_eq!(news_of(&asked(9), Some(&News::Silent)), None);
        let refused = News::Failed("refused".to_owned());
        let failing = status(Failing, Some("refused"), 0);
        assert_eq!(
            news_of(&failing, Some(&News::Silent)),
            Some(refused.clone())
        );
        assert_eq!(news_of(&failing, Some(&refused)), None);
        let working = status(Working, Some("a warning"), 0);
        assert_eq!(news_of(&working, Some(&refused)), Some(News::Recovered));
        assert_eq!(news_of(&working, None), None);
        let never = status(Disabled, Some("gone"), 0);
        let given_up = News::GivenUp("gone".to_owned());
        assert_eq!(news_of(&never, None), Some(given_up));
    }

    #[test]
    fn what_cannot_be_used_is_named_without_its_passkey() {
        let sorted = sort(&tiers(&["wss://tracker.example/secret"]), &[], |_| {
            Word::Own
        });
        let [refused] = &sorted.refused[..] else {
            panic!("{sorted:?}");
        };
        assert!(refused.contains("wss://tracker.example"), "{refused}");
        assert!(!refused.contains("secret"), "{refused}");
    }
}
