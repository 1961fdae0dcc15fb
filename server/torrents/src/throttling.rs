//! Limits: of the server, which may be set while it runs and are kept, and which give way to a
//! schedule; and of each torrent, by what is said of it, of its labels, of its category.
//!
//! The data plane keeps to them; what it is told here holds from then on, also for peers that are
//! connected. A torrent that sleeps has none there: it is told when the torrent wakes.
//!
//! Limits: [`EDITS_MAX`] changes of the server's limits wait, which are written one after another.
//! Does not: end torrents that have reached a ratio or a time.

use crate::keeping::{Next, refusal};
use crate::manager::{Manager, Phase};
use control::command::{CommandError, Reply, ServerLimits, ServerLimitsEdit};
use control::config::{Moment, NamedLimits, RuleLimits, ScheduledLimits};
use proto::ids::InfoHashV1;
use seedring_io::own_limits::TorrentLimits;
use seedring_io::system;
use seedring_metrics::ControlGauge;
use state::{Summary, Write};
use std::collections::VecDeque;

/// Under which name the limits of the server are kept.
const SETTING: &str = "limits";

/// Changes of the server's limits that wait for those before them; one more is refused.
const EDITS_MAX: usize = 64;

/// What the configuration says.
#[derive(Clone, Debug, Default)]
pub struct LimitRules {
    /// Limits of the server, where nobody has set others.
    pub server: ServerLimits,
    /// Limits of torrents that have a label.
    pub labels: Vec<NamedLimits>,
    /// Limits of torrents that are in a category.
    pub categories: Vec<NamedLimits>,
    /// Other limits of the server at some times.
    pub schedule: Vec<ScheduledLimits>,
    /// What time it is.
    pub clock: WallClock,
}

/// Tells the time of the week by the clock on the wall; none if that is not known.
#[derive(Clone, Copy, Debug)]
pub struct WallClock(pub fn() -> Option<Moment>);

impl Default for WallClock {
    /// The system's.
    fn default() -> WallClock {
        WallClock(|| {
            let (day, minute) = system::local_time()?;
            Some(Moment { day, minute })
        })
    }
}

/// The limits of a server that runs.
#[derive(Default)]
pub(crate) struct Limits {
    rules: LimitRules,
    /// What was set while it ran, now or before.
    set: ServerLimits,
    /// Changes that wait, each with who asked for it.
    edits: VecDeque<(ServerLimitsEdit, Reply<ServerLimits>)>,
    /// Whether one is being written: the next one begins with what that has come to.
    is_writing: bool,
    /// What the data plane was told last: upload and download, in bytes per second.
    told: Option<(u64, u64)>,
}

impl Limits {
    pub(crate) fn new(rules: LimitRules) -> Limits {
        Limits {
            rules,
            ..Limits::default()
        }
    }

    /// Goes by what a configuration says now. Tells of what it says and what does not count, because
    /// something else was set.
    pub(crate) fn set_rules(&mut self, rules: LimitRules) -> Vec<&'static str> {
        let (before, now, set) = (self.rules.server, rules.server, self.set);
        self.rules = rules;
        let rates = [
            (
                "limits.upload_rate",
                before.upload_rate != now.upload_rate && set.upload_rate.is_some(),
            ),
            (
                "limits.download_rate",
                before.download_rate != now.download_rate && set.download_rate.is_some(),
            ),
        ];
        let hidden = rates.into_iter().filter(|(_, is_hidden)| *is_hidden);
        hidden.map(|(key, _)| key).collect()
    }

    /// Those of the server when nothing is scheduled.
    fn of_server(&self) -> ServerLimits {
        let ServerLimits {
            upload_rate,
            download_rate,
        } = self.rules.server;
        ServerLimits {
            upload_rate: Some(self.set.upload_rate.or(upload_rate).unwrap_or(0)),
            download_rate: Some(self.set.download_rate.or(download_rate).unwrap_or(0)),
        }
    }

    /// Those of the server then: upload and download.
    fn at(&self, now: Option<Moment>) -> (u64, u64) {
        let usual = self.of_server();
        let schedule = self.rules.schedule.iter();
        let hold = || {
            let schedule = schedule.clone();
            schedule.filter(|rule| now.is_some_and(|now| rule.holds(now)))
        };
        let upload = hold().find_map(|rule| rule.upload_rate);
        let download = hold().find_map(|rule| rule.download_rate);
        (
            upload.or(usual.upload_rate).unwrap_or(0),
            download.or(usual.download_rate).unwrap_or(0),
        )
    }

    /// What is said of a torrent's labels and its category, the narrowest first.
    pub(crate) fn rules_of(&self, summary: &Summary) -> Vec<RuleLimits> {
        let named = |rules: &[NamedLimits], name: &str| {
            let rule = rules.iter().find(|rule| rule.name == name);
            rule.map(|rule| rule.limits)
        };
        let rules = &self.rules;
        let labels = summary.labels.iter();
        let of_labels = labels.filter_map(|label| named(&rules.labels, label));
        let category = summary.category.as_ref();
        let of_category = category.and_then(|name| named(&rules.categories, name));
        of_labels.chain(of_category).collect()
    }

    /// Those of a torrent; the narrowest that says something counts.
    pub(crate) fn of_torrent(&self, summary: &Summary) -> TorrentLimits {
        let others = self.rules_of(summary);
        let said = |own: Option<u64>, of: fn(&RuleLimits) -> Option<u64>| {
            own.or_else(|| others.iter().find_map(of))
        };
        let own = &summary.limits;
        let peers_max = said(own.peers_max, |rule| rule.peers_max);
        TorrentLimits {
            upload_rate: said(own.upload_rate, |rule| rule.upload_rate),
            download_rate: said(own.download_rate, |rule| rule.download_rate),
            peers_max: peers_max.map(|peers| u32::try_from(peers).unwrap_or(u32::MAX)),
        }
    }
}

impl Manager {
    /// Reads what was set in an earlier run, and tells the data plane.
    pub(crate) async fn load_limits(&mut self) -> Result<(), state::ReadError> {
        let kept = self
            .keeping
            .store
            .read(|view| view.setting(SETTING))
            .await?;
        if let Some(kept) = kept {
            match decode(&kept) {
                Some(set) => self.limits.set = set,
                None => tracing::error!(
                    "the limits that were set are damaged; the configuration's hold until others are"
                ),
            }
        }
        self.tell_limits();
        Ok(())
    }

    /// Tells the data plane of the server's limits, if they are others than before: by a change, or
    /// because another time of the schedule has begun.
    pub(crate) fn tell_limits(&mut self) {
        let rules = &self.limits.rules;
        let is_scheduled = !rules.schedule.is_empty();
        let rates = self.limits.at(is_scheduled.then(rules.clock.0).flatten());
        if self.limits.told.replace(rates) != Some(rates) {
            let (upload, download) = rates;
            tracing::debug!(
                upload,
                download,
                "limits of the server, in bytes per second"
            );
            self.services.plane.set_rates(upload, download);
            let cells = &self.services.cells;
            cells.set(ControlGauge::UploadRateLimit, upload);
            cells.set(ControlGauge::DownloadRateLimit, download);
        }
    }

    /// Tells the data plane of a torrent's limits, if it is doing something.
    pub(crate) fn tell_torrent_limits(&self, info_hash: InfoHashV1) {
        let torrent = match self.phases.get(&info_hash) {
            Some(Phase::Awake(awake)) => &awake.torrent,
            Some(Phase::Downloading(download)) => download.fetch.torrent(),
            _ => return,
        };
        let limits = self.limits_of(info_hash);
        self.services.plane.set_torrent_limits(torrent, limits);
    }

    /// The limits of a torrent as the data plane has them.
    pub(crate) fn limits_of(&self, info_hash: InfoHashV1) -> TorrentLimits {
        let catalog = self.seat.catalog();
        let torrent = catalog.get(&info_hash);
        torrent.map_or_else(TorrentLimits::default, |torrent| {
            self.limits.of_torrent(&torrent.summary)
        })
    }

    /// The limits of the server.
    pub(crate) fn server_limits(&self) -> ServerLimits {
        self.limits.of_server()
    }

    /// Changes the limits of the server, durably.
    pub(crate) async fn set_limits(&mut self, edit: ServerLimitsEdit, reply: Reply<ServerLimits>) {
        if self.limits.edits.len() >= EDITS_MAX {
            let _ = reply.send(Err(CommandError::Busy));
            return;
        }
        self.limits.edits.push_back((edit, reply));
        self.next_limits().await;
    }

    /// Writes the next change, when nothing else is: one that fails leaves nothing of itself in
    /// another that is kept, and takes nothing of that away.
    pub(crate) async fn next_limits(&mut self) {
        if self.limits.is_writing {
            return;
        }
        let Some((edit, reply)) = self.limits.edits.pop_front() else {
            return;
        };
        self.limits.is_writing = true;
        let limits = edit.of(self.limits.set);
        let write = Write::Setting(SETTING.to_owned(), Some(encode(&limits)));
        let after = move |manager: &mut Manager, result: Result<(), state::WriteError>| {
            manager.limits.is_writing = false;
            if result.is_ok() {
                manager.limits.set = limits;
                manager.tell_limits();
            }
            let now = manager.server_limits();
            let _ = reply.send(result.map(|()| now).map_err(refusal));
            Next::Limits
        };
        self.keeping.write(write, Box::new(after)).await;
    }
}

/// How limits are kept: for each a byte that says whether it is set, and eight for what it is.
fn encode(limits: &ServerLimits) -> Vec<u8> {
    let mut bytes = Vec::new();
    for rate in [limits.upload_rate, limits.download_rate] {
        bytes.push(u8::from(rate.is_some()));
        bytes.extend(rate.unwrap_or(0).to_le_bytes());
    }
    bytes
}

fn decode(bytes: &[u8]) -> Option<ServerLimits> {
    let mut rates = bytes.chunks_exact(9).map(|chunk| {
        let (is_set, rate) = chunk.split_first()?;
        let rate = u64::from_le_bytes(rate.try_into().ok()?);
        match is_set {
            0 => Some(None),
            1 => Some(Some(rate)),
            _ => None,
        }
    });
    let limits = ServerLimits {
        upload_rate: rates.next()??,
        download_rate: rates.next()??,
    };
    (bytes.len() == 18).then_some(limits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::idle::{Idle, full};
    use crate::manager::Inner;

    /// Who waits for the answer.
    type Answer = tokio::sync::oneshot::Receiver<Result<ServerLimits, CommandError>>;

    async fn set(idle: &mut Idle, edit: ServerLimitsEdit) -> Answer {
        let (reply, answer) = tokio::sync::oneshot::channel();
        idle.manager.set_limits(edit, reply).await;
        answer
    }

    fn upload(rate: u64) -> ServerLimitsEdit {
        ServerLimitsEdit {
            upload_rate: Some(Some(rate)),
            ..ServerLimitsEdit::default()
        }
    }

    /// Three at once, of which the first cannot be kept.
    #[tokio::test(flavor = "multi_thread")]
    async fn limits_that_are_not_kept_take_none_away_that_are() {
        let folder = tempfile::tempdir().unwrap();
        let mut idle = Idle::new(folder.path());
        let download = ServerLimitsEdit {
            download_rate: Some(Some(2)),
            ..ServerLimitsEdit::default()
        };
        let first = set(&mut idle, upload(1)).await;
        let second = set(&mut idle, download).await;
        let Inner::Written(_, after) = idle.next().await else {
            panic!("the first is written");
        };
        idle.manager.inner(Inner::Written(Err(full()), after)).await;
        let third = set(&mut idle, upload(3)).await;
        assert!(idle.answer(first).await.is_err());
        let expected = |upload_rate| ServerLimits {
            upload_rate: Some(upload_rate),
            download_rate: Some(2),
        };
        assert_eq!(idle.answer(second).await, Ok(expected(0)));
        assert_eq!(idle.answer(third).await, Ok(expected(3)));
        let kept = idle.store.handle().read(|view| view.setting(SETTING)).await;
        assert_eq!(decode(&kept.unwrap().unwrap()), Some(expected(3)));
        assert_eq!(idle.manager.limits.set, expected(3));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn so_many_changes_wait_and_one_more_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut idle = Idle::new(folder.path());
        let mut answers = Vec::new();
        // One is being written.
        for rate in 0..=EDITS_MAX as u64 {
            answers.push(set(&mut idle, upload(rate)).await);
        }
        let refused = set(&mut idle, upload(7)).await;
        assert_eq!(idle.answer(refused).await, Err(CommandError::Busy));
        for (rate, answer) in (0..).zip(answers) {
            let limits = idle.answer(answer).await.unwrap();
            assert_eq!(limits.upload_rate, Some(rate));
        }
    }

    fn rules() -> LimitRules {
        let named = |text: &str| text.parse::<NamedLimits>().unwrap();
        LimitRules {
            server: ServerLimits {
                upload_rate: Some(100),
                download_rate: None,
            },
            labels: vec![
                named("slow: upload=1 peers=5"),
                named("fast: upload=0 download=9"),
            ],
            categories: vec![named("linux: upload=7 download=8 peers=6")],
            schedule: vec![
                "mon-fri 08:00-18:00 upload=10".parse().unwrap(),
                "daily 12:00-13:00 upload=20 download=30".parse().unwrap(),
            ],
            ..LimitRules::default()
        }
    }

    #[test]
    fn a_torrents_own_limit_comes_before_its_labels_and_these_before_its_category() {
        let limits = Limits::new(rules());
        let of = |category: Option<&str>, labels: &[&str], own: Option<u64>| {
            let mut summary = Summary {
                category: category.map(str::to_owned),
                labels: labels.iter().map(|label| (*label).to_owned()).collect(),
                ..Summary::default()
            };
            summary.limits.upload_rate = own;
            let limits = limits.of_torrent(&summary);
            (limits.upload_rate, limits.download_rate, limits.peers_max)
        };
        assert_eq!(of(None, &["other"], None), (None, None, None));
        let linux = Some("linux");
        assert_eq!(of(linux, &[], None), (Some(7), Some(8), Some(6)));
        assert_eq!(of(linux, &["slow"], None), (Some(1), Some(8), Some(5)));
        assert_eq!(
            of(linux, &["other", "fast", "slow"], None),
            (Some(0), Some(9), Some(5))
        );
        assert_eq!(of(linux, &["slow"], Some(3)), (Some(3), Some(8), Some(5)));
    }

    #[test]
    fn the_schedule_comes_before_what_was_set_and_that_before_the_configuration() {
        let mut limits = Limits::new(rules());
        let at = |limits: &Limits, day, hour: u16| {
            let minute = hour * 60;
            limits.at(Some(Moment { day, minute }))
        };
        assert_eq!(limits.at(None), (100, 0));
        assert_eq!(at(&limits, 0, 7), (100, 0));
        assert_eq!(at(&limits, 0, 8), (10, 0));
        // The first that says something of it.
        assert_eq!(at(&limits, 0, 12), (10, 30));
        assert_eq!(at(&limits, 6, 12), (20, 30));
        limits.set = ServerLimits {
            upload_rate: Some(0),
            download_rate: Some(5),
        };
        assert_eq!(at(&limits, 0, 7), (0, 5));
        assert_eq!(at(&limits, 0, 8), (10, 5));
        assert_eq!(at(&limits, 6, 12), (20, 30));
    }

    #[test]
    fn a_configurations_limit_that_another_stands_before_is_told() {
        let mut limits = Limits::new(rules());
        let server = |upload, download| LimitRules {
            server: ServerLimits {
                upload_rate: Some(upload),
                download_rate: Some(download),
            },
            ..LimitRules::default()
        };
        assert!(limits.set_rules(server(1, 2)).is_empty());
        limits.set.upload_rate = Some(7);
        assert!(limits.set_rules(server(1, 3)).is_empty());
        assert_eq!(limits.set_rules(server(2, 4)), ["limits.upload_rate"]);
        assert_eq!(limits.at(None), (7, 4));
    }

    #[test]
    fn what_is_kept_of_limits_is_read_again_and_nothing_else_is() {
        for (upload_rate, download_rate) in [
            (None, None),
            (Some(0), Some(u64::MAX)),
            (None, Some(5)),
            (Some(7), None),
        ] {
            let limits = ServerLimits {
                upload_rate,
                download_rate,
            };
            let bytes = encode(&limits);
            assert_eq!(decode(&bytes), Some(limits));
            for length in 0..bytes.len() {
                assert_eq!(decode(&bytes[..length]), None);
            }
            let mut more = bytes.clone();
            more.push(0);
            assert_eq!(decode(&more), None);
            more.truncate(18);
            more[9] = 2;
            assert_eq!(decode(&more), None);
        }
    }
}
