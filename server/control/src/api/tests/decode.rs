//! Whatever is sent is read or refused, and what is read is what was meant.

use crate::api::decode::info_hash;
use crate::api::types::{
    AddTorrent, Bulk, ChangesQuery, EditFiles, EditServerLimits, EditTorrent, FilePriority,
    ListQuery, MoveTorrent, NewPeers, NewTrackers, QueuePlace, RenameFile, RenamePath,
    TorrentLimits,
};
use crate::api::{answer, convert, input};
use crate::command::AddSource;
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::Value;

/// JSON that is somewhat like a request.
fn value() -> impl Strategy<Value = Value> {
    let word = || {
        prop::sample::select(vec![
            "metainfo",
            "magnet",
            "path",
            "url",
            "name",
            "labels",
            "category",
            "limits",
            "files",
            "index",
            "priority",
            "trackers",
            "tiers",
            "peers",
            "action",
            "filter",
            "torrents",
            "place",
            "before",
            "upload_rate",
            "at_limit",
            "pause",
            "save_path",
            "x",
        ])
    };
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word().prop_map(Value::from),
        vec(any::<char>(), 0..20).prop_map(|text| Value::from(String::from_iter(text))),
        Just(Value::from("/data/films")),
        Just(Value::from(
            "magnet:?xt=urn:btih:0101010101010101010101010101010101010101"
        )),
    ];
    leaf.prop_recursive(4, 64, 8, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(Value::from),
            vec((word(), inner), 0..6).prop_map(|fields| {
                let fields = fields.into_iter();
                Value::Object(
                    fields
                        .map(|(name, value)| (name.to_owned(), value))
                        .collect(),
                )
            }),
        ]
    })
}

/// A word of this many letters at most.
fn word(letters: usize) -> impl Strategy<Value = String> {
    vec(prop::char::range('a', 'd'), 1..=letters).prop_map(String::from_iter)
}

/// Reads bytes as every request, and makes the commands of those that can be read.
fn read_all(bytes: &[u8]) {
    if let Ok(add) = input::json::<AddTorrent>(bytes) {
        check_add(add);
    }
    let _ = input::json::<EditTorrent>(bytes).map(convert::edit);
    let _ = input::json::<Bulk>(bytes).map(|bulk| {
        if let Some(named) = &bulk.torrents {
            let _ = convert::info_hashes("torrents", named);
        }
        bulk.edit.map(convert::bulk_edit)
    });
    let _ = input::json::<EditFiles>(bytes).map(|edit| convert::priorities(&edit.files).is_ok());
    let _ =
        input::json::<EditServerLimits>(bytes).map(|edit| convert::server_limits(&edit).is_ok());
    let _ = input::json::<QueuePlace>(bytes).map(|queue| convert::place(queue.place).is_ok());
    let _ = input::json::<NewPeers>(bytes).map(|new| convert::peers(&new.peers).is_ok());
    let _ =
        input::json::<NewTrackers>(bytes).map(|new| convert::trackers("tiers", new.tiers).is_ok());
    if let Ok(movement) = input::json::<MoveTorrent>(bytes)
        && let Ok(movement) = convert::movement(&movement)
    {
        assert!(movement.save_path.is_absolute());
    }
    if let Ok(rename) = input::json::<RenameFile>(bytes)
        && let Ok(path) = convert::relative("path", &rename.path)
    {
        assert!(path.is_relative() && path.components().count() > 0);
    }
    if let Ok(rename) = input::json::<RenamePath>(bytes)
        && let Ok(path) = convert::relative("to", &rename.to)
    {
        assert!(path.is_relative() && path.components().count() > 0);
    }
}

fn check_add(add: AddTorrent) {
    let Ok(command) = convert::add(add) else {
        return;
    };
    assert!(command.save_path.is_none_or(|path| path.is_absolute()));
    assert!(command.category.as_deref() != Some(""));
    assert!(command.labels.iter().all(|label| !label.is_empty()));
    assert!(command.trackers.iter().all(|tier| !tier.is_empty()));
    assert!(command.peers.iter().all(|peer| peer.port() != 0));
    if let AddSource::Path(path) = command.source {
        assert!(path.is_absolute());
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..200)) {
        read_all(&bytes);
        let text = String::from_utf8_lossy(&bytes);
        if let Ok(query) = input::query::<ListQuery>(&text) {
            let _ = convert::list_query(&query).is_ok();
        }
        let _ = input::query::<ChangesQuery>(&text).is_ok();
        let _ = answer::is_open(&text);
        let _ = info_hash(&text);
    }

    #[test]
    fn anything_like_a_request_is_read_or_refused(value in value(), cut in 0..200usize) {
        let text = value.to_string();
        read_all(text.as_bytes());
        read_all(&text.as_bytes()[..cut.min(text.len())]);
    }

    #[test]
    fn what_is_meant_is_what_is_read(
        name in word(20),
        labels in vec(word(2), 0..5),
        rate in prop::option::of(0..1u64 << 53),
        files in prop::collection::btree_map(any::<u32>(), 0..8u8, 0..5),
        flags in any::<[bool; 5]>(),
    ) {
        let files = files.into_iter();
        let add = AddTorrent {
            path: Some("/data/films".to_owned()),
            name: Some(name.clone()),
            labels: labels.clone(),
            limits: TorrentLimits { upload_rate: rate, ..TorrentLimits::default() },
            files: files.map(|(index, priority)| FilePriority { index, priority }).collect(),
            paused: flags[0],
            seed_mode: flags[1],
            sequential: flags[2],
            super_seeding: flags[3],
            first_in_queue: flags[4],
            ..AddTorrent::default()
        };
        let written = serde_json::to_vec(&add).unwrap();
        let read: AddTorrent = input::json(&written).unwrap();
        prop_assert_eq!(&read, &add);
        for cut in 0..written.len() {
            prop_assert!(input::json::<AddTorrent>(&written[..cut]).is_err(), "{}", cut);
        }
        let command = convert::add(read).unwrap();
        prop_assert_eq!(command.name, Some(name));
        prop_assert_eq!(command.limits.upload_rate, rate);
        let read = command.priorities.iter().map(|(index, priority)| (*index, priority.number()));
        let said = add.files.iter().map(|file| (file.index, file.priority));
        prop_assert!(read.eq(said));
        let mut apart = labels;
        let mut known = std::collections::HashSet::new();
        apart.retain(|label| known.insert(label.clone()));
        prop_assert_eq!(command.labels, apart);
        let read = [command.paused, command.seed_mode, command.sequential, command.super_seeding,
            command.first_in_queue];
        prop_assert_eq!(read, flags);
    }

    #[test]
    fn info_hashes_are_forty_digits(hash in any::<[u8; 20]>()) {
        let hash = proto::ids::InfoHashV1(hash);
        let text = hash.to_string();
        prop_assert_eq!(info_hash(&text), Some(hash));
        prop_assert_eq!(info_hash(&text.to_uppercase()), Some(hash));
        prop_assert_eq!(info_hash(&text[1..]), None);
        prop_assert_eq!(info_hash(&format!("{text}0")), None);
        prop_assert_eq!(info_hash(&text.replace(&text[..1], "g")), None);
    }
}

#[test]
fn urls_that_may_hold_a_passkey_are_known() {
    for url in [
        "http://a/announce",
        "https://a.example:443/announce",
        "udp://[2001:db8::1]:80",
        "udp://a:80/announce",
        "http://a/",
    ] {
        assert!(answer::is_open(url), "{url}");
    }
    for url in [
        "http://a/key/announce",
        "http://a/announce?key=1",
        "http://a/announce/key",
        "http://user:key@a/announce",
        "http://key@a/announce",
        "http://a?key",
        "http://a#key",
        "announce",
        "",
    ] {
        assert!(!answer::is_open(url), "{url}");
    }
}
