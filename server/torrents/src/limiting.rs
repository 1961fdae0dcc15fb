//! Torrents that have given enough: by their ratio or the time that they were seeded, after which
//! something is done with them.
//!
//! A ratio is looked at when something was sent, a time when it comes; no loop over all torrents.
//! A torrent's own limit comes before those of its labels, these before its category's, and that
//! before the server's; 0 is none.
//!
//! Limits: a date for each torrent that has a limit of time and is being seeded; one write for each
//! that has given enough, which is tried again while the state disk fails.

use crate::acting::shown_after;
use crate::keeping::{After, Change, Next};
use crate::manager::Manager;
use crate::unkept::Fields;
use control::catalog::{Status, Torrent};
use control::command::Action;
use control::config::{AtLimit, RuleLimits};
use proto::ids::InfoHashV1;
use state::{LastError, LimitAction, Summary, TorrentLimits, Update, Write};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// What is done with torrents that have no limits of their own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Enough {
    /// Bytes sent for a thousand of the torrent's; 0 for no limit.
    pub ratio_permille: u64,
    /// Seconds of seeding; 0 for no limit.
    pub seeding_time_s: u64,
    /// What is done then.
    pub action: LimitAction,
}

impl Default for Enough {
    fn default() -> Enough {
        Enough {
            ratio_permille: 0,
            seeding_time_s: 0,
            action: LimitAction::Pause,
        }
    }
}

impl Enough {
    /// With what is said of a torrent's labels and its category, the narrowest first.
    fn narrowed(self, rules: &[RuleLimits]) -> Enough {
        let said = |of: fn(&RuleLimits) -> Option<u64>| rules.iter().find_map(of);
        let ratio = said(|rule| rule.ratio_permille);
        let seeding_time = said(|rule| rule.seeding_time_s);
        let action = rules.iter().find_map(|rule| rule.at_limit);
        Enough {
            ratio_permille: ratio.unwrap_or(self.ratio_permille),
            seeding_time_s: seeding_time.unwrap_or(self.seeding_time_s),
            action: action.map_or(self.action, action_of),
        }
    }

    /// With what a torrent's own limits say.
    fn of(self, limits: &TorrentLimits) -> Enough {
        Enough {
            ratio_permille: limits.ratio_permille.unwrap_or(self.ratio_permille),
            seeding_time_s: limits.seeding_time_s.unwrap_or(self.seeding_time_s),
            action: limits.at_limit.unwrap_or(self.action),
        }
    }

    /// Whether `torrent` has given that at `now_s`.
    fn is_given(self, torrent: &Torrent, now_s: u64) -> bool {
        let ratio = self.ratio_permille > 0 && ratio_permille(torrent) >= self.ratio_permille;
        let seeded_s = torrent.totals_at(now_s).seeding_s;
        ratio || (self.seeding_time_s > 0 && seeded_s >= self.seeding_time_s)
    }
}

/// What a configuration says is to be done.
pub fn action_of(said: AtLimit) -> LimitAction {
    match said {
        AtLimit::Pause => LimitAction::Pause,
        AtLimit::Remove => LimitAction::Remove,
        AtLimit::RemoveWithData => LimitAction::RemoveWithData,
    }
}

/// Payload sent for a thousand bytes of what is there: all of it, or what is wanted.
fn ratio_permille(torrent: &Torrent) -> u64 {
    if torrent.is_complete() {
        return torrent.ratio_permille();
    }
    let sent = u128::from(torrent.totals.uploaded_bytes) * 1000;
    let ratio = sent.checked_div(u128::from(torrent.bytes_verified()));
    u64::try_from(ratio.unwrap_or(0)).unwrap_or(u64::MAX)
}

/// When torrents have been seeded for long enough.
#[derive(Default)]
pub(crate) struct Dates {
    order: BTreeSet<(u64, InfoHashV1)>,
    dates: HashMap<InfoHashV1, u64>,
}

impl Dates {
    /// A torrent's date, in seconds since 1970; none to forget it.
    fn set(&mut self, info_hash: InfoHashV1, date: Option<u64>) {
        if let Some(before) = self.dates.remove(&info_hash) {
            self.order.remove(&(before, info_hash));
        }
        if let Some(date) = date {
            self.dates.insert(info_hash, date);
            self.order.insert((date, info_hash));
        }
    }

    /// Those whose date has come; they have none then.
    fn take_due(&mut self, now_s: u64) -> Vec<InfoHashV1> {
        let mut due = Vec::new();
        while let Some((date, info_hash)) = self.order.first().copied() {
            if date > now_s {
                break;
            }
            self.set(info_hash, None);
            due.push(info_hash);
        }
        due
    }
}

/// The date of a torrent that is being seeded, if it has one.
fn date_of(torrent: &Torrent, enough: Enough, now_s: u64) -> Option<u64> {
    let limit_s = enough.seeding_time_s;
    // Or all that is wanted of it is there.
    let is_seeding = torrent.live.status == Status::Seeding && torrent.pieces_verified > 0;
    (is_seeding && limit_s > 0 && !torrent.live.declared).then(|| {
        let seeded_s = torrent.totals_at(now_s).seeding_s;
        now_s.saturating_add(limit_s.saturating_sub(seeded_s))
    })
}

impl Manager {
    /// When a torrent has given enough, by the narrowest that says so.
    fn enough(&self, summary: &Summary) -> Enough {
        let rules = self.limits.rules_of(summary);
        let others = self.settings.enough.narrowed(&rules);
        others.of(&summary.limits)
    }

    /// The user resumes a torrent: if it has given enough, it goes on until its limits change, the
    /// user stops it, or the server ends.
    pub(crate) fn waive_limits(&mut self, info_hash: InfoHashV1) {
        let now_s = self.clock.now_s();
        let has_given = {
            let catalog = self.seat.catalog();
            let torrent = catalog.get(&info_hash);
            torrent.is_some_and(|torrent| self.enough(&torrent.summary).is_given(torrent, now_s))
        };
        if has_given {
            self.waived.insert(info_hash);
        }
    }

    /// The user ends a torrent's super-seeding: if that is what its limits have begun, they do not
    /// begin it again, for as long as [`Manager::waive_limits`] says.
    pub(crate) fn waive_super_seeding(&mut self, info_hash: InfoHashV1) {
        let is_by_limits = {
            let catalog = self.seat.catalog();
            let torrent = catalog.get(&info_hash);
            torrent.is_some_and(|torrent| {
                self.enough(&torrent.summary).action == LimitAction::SuperSeed
            })
        };
        if is_by_limits {
            self.waive_limits(info_hash);
        }
    }

    /// Notes when a torrent has been seeded for long enough, as it is now.
    pub(crate) fn date(&mut self, info_hash: InfoHashV1) {
        let now_s = self.clock.now_s();
        let is_waived = self.waived.contains(&info_hash);
        let date = {
            let catalog = self.seat.catalog();
            let torrent = catalog.get(&info_hash).filter(|_| !is_waived);
            torrent.and_then(|torrent| {
                let enough = self.enough(&torrent.summary);
                date_of(torrent, enough, now_s)
            })
        };
        self.dates.set(info_hash, date);
    }

    /// Notes it of all torrents, because the limits of all may have changed.
    pub(crate) fn date_all(&mut self) {
        let seeding: Vec<InfoHashV1> = {
            let catalog = self.seat.catalog();
            let all = catalog.iter();
            let seeding = all.filter(|torrent| torrent.live.status == Status::Seeding);
            seeding.map(|torrent| torrent.info_hash).collect()
        };
        for info_hash in seeding {
            self.date(info_hash);
        }
    }

    /// Does what is to be done with torrents that have given enough: of those that have `sent`
    /// something, and those whose date has come.
    pub(crate) async fn limit(&mut self, sent: &[InfoHashV1]) {
        let now_s = self.clock.now_s();
        let due = self.dates.take_due(now_s);
        for &info_hash in sent.iter().chain(&due) {
            // What is being done with it is done once, however long the state disk takes for it.
            let is_ending = self.ending.contains(&info_hash) || self.removals.runs(&info_hash);
            if is_ending || self.waived.contains(&info_hash) {
                continue;
            }
            let action = {
                let catalog = self.seat.catalog();
                let seeding = |torrent: &&Torrent| {
                    let is_seeding = torrent.live.status == Status::Seeding;
                    is_seeding && torrent.pieces_verified > 0 && !torrent.live.declared
                };
                let torrent = catalog.get(&info_hash).filter(seeding);
                torrent.and_then(|torrent| {
                    let enough = self.enough(&torrent.summary);
                    enough.is_given(torrent, now_s).then_some(enough.action)
                })
            };
            match action {
                Some(action) => self.end_seeding(info_hash, action).await,
                // The clock was put back, or its limit has been raised.
                None if due.contains(&info_hash) => self.date(info_hash),
                None => {}
            }
        }
    }

    /// Pauses a torrent that has given enough, and says why.
    async fn pause_at_limit(&mut self, info_hash: InfoHashV1) {
        tracing::info!(torrent = %info_hash, "it has given what its limits say: it is paused");
        let at_s = self.clock.now_s();
        let change: Change = Arc::new(move |summary: &mut Summary| {
            let text = "paused, because it has given what its limits say; resumed it goes on";
            summary.paused = true;
            summary.last_error = Some(LastError {
                at_s,
                text: text.to_owned(),
            });
        });
        let fields = Fields::PAUSED | Fields::LIMITS;
        self.end_by(info_hash, fields, change, Next::Restart(info_hash))
            .await;
    }

    /// It is super-seeded from now on.
    async fn super_seed(&mut self, info_hash: InfoHashV1) {
        if self.is_super_seeded(info_hash) {
            return;
        }
        tracing::info!(torrent = %info_hash, "it has given what its limits say: it super-seeds");
        let change: Change = Arc::new(|summary: &mut Summary| summary.super_seeding = true);
        let fields = Fields::SUPER_SEEDING | Fields::LIMITS;
        self.end_by(info_hash, fields, change, Next::Done).await;
    }

    /// Does what its limits say by this change, which is made once however long it takes: until it
    /// is durable they find at each tick that the torrent has given enough.
    async fn end_by(&mut self, info_hash: InfoHashV1, fields: Fields, change: Change, next: Next) {
        let kept = Arc::clone(&change);
        let make = move || {
            let kept = Arc::clone(&kept);
            let update = Update::new().summary(move |summary| kept(summary));
            Write::Update(info_hash, Box::new(update))
        };
        let shown = shown_after(info_hash, change, next, None);
        let after: After<Manager> = Box::new(move |manager, written| {
            manager.ending.remove(&info_hash);
            shown(manager, written)
        });
        self.ending.insert(info_hash);
        self.insist(info_hash, (fields, Arc::new(make)), None, after)
            .await;
    }

    async fn end_seeding(&mut self, info_hash: InfoHashV1, action: LimitAction) {
        let action = match action {
            LimitAction::Pause => return self.pause_at_limit(info_hash).await,
            LimitAction::Remove => Action::Remove { with_data: false },
            LimitAction::RemoveWithData => Action::Remove { with_data: true },
            LimitAction::SuperSeed => return self.super_seed(info_hash).await,
        };
        tracing::info!(torrent = %info_hash, ?action, "it has given what its limits say");
        // Nobody waits for the answer; a failure is logged where it is.
        let (reply, _) = tokio::sync::oneshot::channel();
        self.act(info_hash, action, reply).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::idle::{Idle, full};
    use crate::manager::Inner;
    use state::Totals;

    /// While the state disk fails, or takes long, there is one write of it and not one a second.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_has_given_enough_is_ended_once() {
        for action in [
            LimitAction::Pause,
            LimitAction::Remove,
            LimitAction::SuperSeed,
        ] {
            let folder = tempfile::tempdir().unwrap();
            let mut idle = Idle::new(folder.path());
            let seeded = Summary {
                total_bytes: 1000,
                pieces: 1,
                completed_at_s: Some(10),
                ..Summary::default()
            };
            let info_hash = idle.keep(seeded, Status::Seeding).await;
            let sent = |torrent: &mut Torrent| torrent.totals.uploaded_bytes = 5_000;
            idle.manager.show(info_hash, sent);
            idle.manager.settings.enough = Enough {
                ratio_permille: 2_000,
                seeding_time_s: 0,
                action,
            };
            idle.manager.limit(&[info_hash]).await;
            idle.manager.limit(&[info_hash]).await;
            if action != LimitAction::Remove {
                let Inner::Written(_, after) = idle.next().await else {
                    panic!("it is kept what is done with it");
                };
                let failed = Inner::Written(Err(full()), after);
                idle.manager.inner(failed).await;
                assert!(
                    !idle.manager.keeping.is_waiting(),
                    "it waits to be tried again"
                );
                idle.manager.limit(&[info_hash]).await;
                assert!(!idle.manager.keeping.is_waiting(), "and nothing else does");
                idle.manager.write_unkept().await;
            }
            idle.step().await;
            assert!(!idle.manager.keeping.is_waiting(), "{action:?} once");
            assert!(idle.manager.ending.is_empty());
            // Nor once more when it is done.
            idle.manager.limit(&[info_hash]).await;
            assert!(!idle.manager.keeping.is_waiting(), "{action:?} again");
            let left = {
                let catalog = idle.manager.seat.catalog();
                let torrent = catalog.get(&info_hash);
                torrent.map(|it| (it.live.status, it.summary.super_seeding))
            };
            let expected = match action {
                LimitAction::Pause => Some((Status::Paused, false)),
                LimitAction::SuperSeed => Some((Status::Seeding, true)),
                LimitAction::Remove | LimitAction::RemoveWithData => None,
            };
            assert_eq!(left, expected);
        }
    }

    fn torrent(sent: u64, seeded_s: u64) -> Torrent {
        let mut torrent = Torrent {
            info_hash: InfoHashV1([1; 20]),
            summary: Summary {
                total_bytes: 1000,
                pieces: 1,
                completed_at_s: Some(10),
                ..Summary::default()
            },
            totals: Totals {
                uploaded_bytes: sent,
                seeding_s: seeded_s,
                ..Totals::default()
            },
            pieces_verified: 1,
            live: Default::default(),
        };
        torrent.live.status = Status::Seeding;
        torrent.live.active_since_s = Some(100);
        torrent
    }

    #[test]
    fn a_torrent_s_own_limits_come_first_and_nothing_is_no_limit() {
        let server = Enough {
            ratio_permille: 2000,
            seeding_time_s: 50,
            action: LimitAction::Remove,
        };
        assert!(!Enough::default().is_given(&torrent(1 << 40, 1 << 40), 200));
        assert!(server.is_given(&torrent(2000, 0), 100));
        assert!(!server.is_given(&torrent(1999, 0), 149));
        assert!(
            server.is_given(&torrent(0, 0), 150),
            "it has been seeded since 100"
        );
        let own = TorrentLimits {
            ratio_permille: Some(0),
            seeding_time_s: Some(60),
            at_limit: Some(LimitAction::Pause),
            ..TorrentLimits::default()
        };
        let own = server.of(&own);
        assert_eq!(own.action, LimitAction::Pause);
        assert!(!own.is_given(&torrent(1 << 30, 0), 159));
        assert_eq!(date_of(&torrent(0, 20), own, 130), Some(140));
        let mut paused = torrent(0, 20);
        paused.live.status = Status::Paused;
        assert_eq!(date_of(&paused, own, 130), None);
        // One that has all that is wanted of it, and not all, is held to the same.
        let mut partial = torrent(0, 20);
        partial.summary.pieces = 2;
        partial.summary.completed_at_s = None;
        assert_eq!(date_of(&partial, own, 130), Some(140));
        assert!(!own.is_given(&partial, 139) && own.is_given(&partial, 140));
        partial.live.status = Status::Downloading;
        assert_eq!(date_of(&partial, own, 130), None);
        assert!(!own.is_given(&partial, 140), "it is not seeded");
    }

    #[test]
    fn the_first_rule_that_says_something_comes_before_the_server_and_after_the_torrent() {
        let server = Enough {
            ratio_permille: 2000,
            seeding_time_s: 50,
            action: LimitAction::Pause,
        };
        assert_eq!(server.narrowed(&[]), server);
        let label = RuleLimits {
            ratio_permille: Some(0),
            ..RuleLimits::default()
        };
        let category = RuleLimits {
            ratio_permille: Some(3000),
            at_limit: Some(AtLimit::RemoveWithData),
            ..RuleLimits::default()
        };
        let narrowed = server.narrowed(&[label, category]);
        let expected = Enough {
            ratio_permille: 0,
            seeding_time_s: 50,
            action: LimitAction::RemoveWithData,
        };
        assert_eq!(narrowed, expected);
        let own = TorrentLimits {
            at_limit: Some(LimitAction::Remove),
            ..TorrentLimits::default()
        };
        assert_eq!(narrowed.of(&own).action, LimitAction::Remove);
        assert_eq!(narrowed.of(&own).seeding_time_s, 50);
    }

    #[test]
    fn dates_come_in_their_order_and_once() {
        let mut dates = Dates::default();
        let [a, b, c] = [1, 2, 3].map(|byte| InfoHashV1([byte; 20]));
        dates.set(a, Some(30));
        dates.set(b, Some(10));
        dates.set(c, Some(20));
        dates.set(c, Some(40));
        dates.set(b, None);
        dates.set(b, Some(25));
        assert_eq!(dates.take_due(30), [b, a]);
        assert_eq!(dates.take_due(39), []);
        assert_eq!(dates.take_due(40), [c]);
        assert!(dates.dates.is_empty() && dates.order.is_empty());
    }
}
