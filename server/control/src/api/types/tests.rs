//! Tests of the shapes: what is said is read again, and nothing that is not known is taken.

use super::*;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt::Debug;

/// What is read of a text, after it was found to be written and read again the same.
fn read<T: DeserializeOwned + Serialize + PartialEq + Debug>(value: Value) -> T {
    let read: T = serde_json::from_value(value).unwrap();
    let written = serde_json::to_string(&read).unwrap();
    assert_eq!(serde_json::from_str::<T>(&written).unwrap(), read);
    read
}

fn refusal<T: DeserializeOwned + Debug>(value: Value) -> String {
    serde_json::from_value::<T>(value).unwrap_err().to_string()
}

#[test]
fn null_is_something_else_than_nothing() {
    let edit: EditTorrent = read(json!({}));
    assert_eq!(edit, EditTorrent::default());
    let edit: EditTorrent = read(json!({"category": null, "limits": {"upload_rate": null}}));
    assert_eq!(edit.category, Some(None));
    let limits = edit.limits.unwrap();
    assert_eq!((limits.upload_rate, limits.peers_max), (Some(None), None));
    let edit: EditTorrent = read(json!({"category": "a", "limits": {"at_limit": "super_seed"}}));
    assert_eq!(edit.category, Some(Some("a".to_owned())));
    let limits = edit.limits.unwrap();
    assert_eq!(limits.at_limit, Some(Some(LimitAction::SuperSeed)));
}

#[test]
fn places_and_actions_are_words() {
    let place = |value| read::<QueuePlace>(json!({"place": value})).place;
    assert_eq!(place(json!("first")), Place::First);
    assert_eq!(place(json!("out")), Place::Out);
    assert_eq!(
        place(json!({"before": "aa"})),
        Place::Before("aa".to_owned())
    );
    let action = |name: &str| read::<Bulk>(json!({"action": name})).action;
    assert_eq!(action("stop"), BulkAction::Pause);
    assert_eq!(action("pause"), BulkAction::Pause);
    assert_eq!(action("start"), BulkAction::Resume);
    assert_eq!(action("remove"), BulkAction::Remove);
    refusal::<Bulk>(json!({"action": "explode"}));
}

#[test]
fn requests_take_nothing_that_they_do_not_know() {
    let unknown = json!({"unknown_thing": 1});
    for refusal in [
        refusal::<AddTorrent>(unknown.clone()),
        refusal::<EditTorrent>(unknown.clone()),
        refusal::<EditLimits>(unknown.clone()),
        refusal::<TorrentLimits>(unknown.clone()),
        refusal::<Filter>(unknown.clone()),
        refusal::<BulkEdit>(unknown.clone()),
        refusal::<EditServerLimits>(unknown.clone()),
        refusal::<MoveTorrent>(json!({"save_path": "/", "unknown_thing": 1})),
        refusal::<RenameFile>(json!({"path": "a", "unknown_thing": 1})),
        refusal::<RenamePath>(json!({"from": "a", "to": "b", "unknown_thing": 1})),
        refusal::<QueuePlace>(json!({"place": "last", "unknown_thing": 1})),
        refusal::<Bulk>(json!({"action": "pause", "unknown_thing": 1})),
        refusal::<EditFiles>(json!({"files": [], "unknown_thing": 1})),
        refusal::<NewPeers>(json!({"peers": [], "unknown_thing": 1})),
        refusal::<NewTrackers>(json!({"tiers": [], "unknown_thing": 1})),
        refusal::<ListQuery>(unknown.clone()),
        refusal::<ChangesQuery>(unknown.clone()),
        refusal::<LogQuery>(unknown.clone()),
        refusal::<RemoveQuery>(unknown.clone()),
        refusal::<SecretsQuery>(unknown),
    ] {
        assert!(refusal.contains("unknown_thing"), "{refusal}");
    }
}

/// Later versions tell more.
#[test]
fn readers_of_answers_ignore_what_they_do_not_know() {
    let added: Added = read(json!({
        "info_hash": "aa", "name": "n", "was_there": true, "unknown_thing": 1
    }));
    assert!(added.was_there);
}

#[test]
fn what_is_not_said_is_as_usual() {
    let query: ListQuery = read(json!({}));
    assert_eq!(query, ListQuery::default());
    assert_eq!(query.limit, 100);
    let query: ChangesQuery = read(json!({}));
    assert_eq!(query, ChangesQuery::default());
    assert_eq!((query.since, query.limit), (0, 1000));
    let add: AddTorrent = read(json!({"magnet": "magnet:?"}));
    let written = serde_json::to_value(&add).unwrap();
    assert_eq!(written, json!({"magnet": "magnet:?"}));
}
