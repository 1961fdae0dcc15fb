//! What is kept of a torrent is changed: names, labels, limits, files, trackers, its place.

use crate::adding::priorities;
use crate::keeping::{Change, Next};
use crate::manager::{Manager, Phase};
use crate::unkept::Fields;
use control::command::{CommandError, Edit, LimitsEdit, Reply};
use engine::picker::Priority;
use proto::ids::InfoHashV1;
use state::{Summary, Update};
use std::sync::Arc;

impl Manager {
    pub(crate) async fn edit(&mut self, info_hash: InfoHashV1, edit: Edit, reply: Reply<()>) {
        if let Err(error) = self.kept(info_hash) {
            let _ = reply.send(Err(error));
            return;
        }
        let files = {
            let catalog = self.seat.catalog();
            catalog.get(&info_hash).map_or(0, |it| it.summary.files) as usize
        };
        // What is there when the change is made counts; whether it can be is known now.
        if let Err(reason) = priorities(&edit.priorities, false, files, Vec::new()) {
            let field = "files";
            return refuse(reply, CommandError::Invalid { field, reason });
        }
        let mut update = Update::new();
        if !edit.priorities.is_empty() || edit.trackers.is_some() {
            let (named, tiers) = (edit.priorities.clone(), edit.trackers.clone());
            update = update.details(move |details| {
                let before = std::mem::take(&mut details.priorities);
                details.priorities = priorities(&named, false, files, before).unwrap_or_default();
                if tiers.is_some() {
                    details.trackers = tiers;
                }
            });
        }
        // A rate says nothing of when it has given enough.
        let LimitsEdit {
            ratio_permille,
            seeding_time_s,
            at_limit,
            ..
        } = edit.limits;
        let edit_limits =
            ratio_permille.is_some() || seeding_time_s.is_some() || at_limit.is_some();
        let ends_super_seeding = edit.super_seeding == Some(false);
        let mut fields = Fields::NONE;
        // Labels and the category have limits, too.
        let edits_labels = edit.labels.is_some()
            || edit.category.is_some()
            || !edit.labels_added.is_empty()
            || !edit.labels_removed.is_empty();
        if edit_limits || edits_labels {
            fields = fields | Fields::LIMITS;
        }
        if edit.super_seeding.is_some() {
            fields = fields | Fields::SUPER_SEEDING;
        }
        let edited = Edited {
            info_hash,
            files,
            priorities: edit.priorities.clone(),
            sequential: edit.sequential,
            trackers: edit.trackers.clone(),
        };
        let change: Change = Arc::new(move |summary: &mut Summary| apply(&edit, summary));
        let kept = Arc::clone(&change);
        let update = update.summary(move |summary| kept(summary));
        if edit_limits {
            self.waived.remove(&info_hash);
        } else if ends_super_seeding {
            self.waive_super_seeding(info_hash);
        }
        let next = Next::Edited(Box::new(edited));
        self.update(info_hash, (fields, update), change, next, reply)
            .await;
    }

    /// An edit is kept: what the torrent is doing follows it.
    pub(crate) async fn edited(&mut self, edited: Edited) {
        let Edited {
            info_hash,
            files,
            priorities,
            sequential,
            trackers,
        } = edited;
        if matches!(self.phases.get(&info_hash), Some(Phase::Preparing(_))) {
            // What it was read with may be what was before.
            if !priorities.is_empty() || trackers.is_some() {
                self.restart(info_hash).await;
            }
            return;
        }
        self.set_priorities(info_hash, &priorities, files).await;
        if let (Some(sequential), Some(Phase::Downloading(download))) =
            (sequential, self.phases.get(&info_hash))
        {
            download.fetch.set_sequential(sequential).await;
        }
        if let Some(tiers) = trackers {
            if let Some(announcer) = &self.services.announcer {
                announcer.remove(info_hash);
            }
            self.announce_to(info_hash, &tiers);
        }
    }

    /// Has a download want files more or less.
    async fn set_priorities(
        &mut self,
        info_hash: InfoHashV1,
        named: &[(u32, Priority)],
        files: usize,
    ) {
        let Some(Phase::Downloading(download)) = self.phases.get_mut(&info_hash) else {
            return;
        };
        if named.is_empty() {
            return;
        }
        let before = std::mem::take(&mut download.priorities);
        if let Ok(wanted) = priorities(named, false, files, before) {
            let mut all = wanted.clone();
            all.resize(files, Priority::NORMAL);
            download.priorities = wanted;
            download.fetch.set_priorities(all).await;
        }
    }
}

/// What of an edit a torrent that is doing something is told when it is kept.
pub(crate) struct Edited {
    info_hash: InfoHashV1,
    files: usize,
    priorities: Vec<(u32, Priority)>,
    sequential: Option<bool>,
    trackers: Option<Vec<Vec<String>>>,
}

fn refuse(reply: Reply<()>, error: CommandError) {
    let _ = reply.send(Err(error));
}

/// Changes a summary as the user said.
fn apply(edit: &Edit, summary: &mut Summary) {
    if let Some(name) = &edit.name {
        summary.name.clone_from(name);
    }
    if let Some(category) = &edit.category {
        summary.category.clone_from(category);
    }
    if let Some(labels) = &edit.labels {
        summary.labels.clone_from(labels);
    }
    summary
        .labels
        .retain(|label| !edit.labels_removed.contains(label));
    for label in &edit.labels_added {
        if !summary.labels.contains(label) {
            summary.labels.push(label.clone());
        }
    }
    edit.limits.apply(&mut summary.limits);
    if let Some(sequential) = edit.sequential {
        summary.sequential = sequential;
    }
    if let Some(super_seeding) = edit.super_seeding {
        summary.super_seeding = super_seeding;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_replaced_then_taken_then_given() {
        let mut summary = Summary {
            labels: vec!["a".into(), "b".into()],
            category: Some("x".into()),
            ..Summary::default()
        };
        let edit = Edit {
            labels_added: vec!["c".into(), "a".into()],
            labels_removed: vec!["b".into()],
            category: Some(None),
            ..Edit::default()
        };
        apply(&edit, &mut summary);
        assert_eq!(summary.labels, ["a", "c"]);
        assert_eq!(summary.category, None);
        let edit = Edit {
            labels: Some(vec!["z".into()]),
            name: Some("n".into()),
            ..Edit::default()
        };
        apply(&edit, &mut summary);
        assert_eq!(
            (summary.labels, summary.name),
            (vec!["z".into()], "n".into())
        );
    }
}
