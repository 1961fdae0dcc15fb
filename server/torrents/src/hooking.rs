//! What hooks are told of torrents, and when: with the write that makes it true.
//!
//! Torrents that the configuration or the command line names are not told of: they are there at
//! each start, and no user adds, downloads or removes them.

use crate::keeping::Change;
use crate::manager::Manager;
use control::catalog::Torrent;
use control::hooks::{HookEvent, Notice};
use proto::ids::InfoHashV1;
use state::Condition;

/// What is told with a change: what happens, and why of what is no success.
pub(crate) type Told = Option<(HookEvent, Option<String>)>;

impl Manager {
    /// What is to be kept with a write that has this happen to a torrent that is not in the
    /// catalog, or not as it will be.
    pub(crate) fn note(
        &self,
        torrent: &Torrent,
        event: HookEvent,
        error: Option<&str>,
    ) -> Option<Notice> {
        let hooks = self.services.hooks.as_ref();
        let hooks = hooks.filter(|_| !torrent.live.declared)?;
        hooks.note(torrent, event, self.clock.now_s(), error)
    }

    /// The same of one that is in the catalog, after this change.
    pub(crate) fn note_change(
        &self,
        info_hash: InfoHashV1,
        change: &Change,
        told: Told,
    ) -> Option<Notice> {
        let (event, error) = told?;
        self.services.hooks.as_ref()?;
        let mut torrent = self.seat.catalog().get(&info_hash).cloned()?;
        change(&mut torrent.summary);
        self.note(&torrent, event, error.as_deref())
    }

    /// What was noted is durable, or has not come about.
    pub(crate) fn told(&self, notice: Notice, is_so: bool) {
        match &self.services.hooks {
            Some(hooks) if is_so => hooks.happened(notice),
            Some(hooks) => hooks.withdraw(&notice),
            None => {}
        }
    }

    /// What is told when a torrent comes to this: nothing if it was so before.
    pub(crate) fn told_of(&self, info_hash: InfoHashV1, condition: Condition, text: &str) -> Told {
        let event = match condition {
            Condition::Failed => HookEvent::Error,
            Condition::Offline => HookEvent::Offline,
            _ => return None,
        };
        let before = {
            let catalog = self.seat.catalog();
            catalog.get(&info_hash).map(|it| it.summary.condition)
        };
        (before != Some(condition)).then(|| (event, Some(text.to_owned())))
    }
}
