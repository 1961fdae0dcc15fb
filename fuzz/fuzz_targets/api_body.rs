//! Requests of the HTTP API: whatever is sent is read or refused with a sentence, and what is read is
//! written and read again the same. Compiled from their files: the crate that they are in would bring
//! its HTTP and TLS with it.
#![no_main]

#[path = "../../server/control/src/api/decode.rs"]
mod decode;
#[path = "../../server/control/src/api/types.rs"]
#[allow(dead_code, unused_imports)]
mod types;

use decode::DecodeError;
use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;

fuzz_target!(|data: &[u8]| {
    let Some((&first, bytes)) = data.split_first() else {
        return;
    };
    match first % 12 {
        0 => body::<types::AddTorrent>(bytes),
        1 => body::<types::EditTorrent>(bytes),
        2 => body::<types::Bulk>(bytes),
        3 => body::<types::EditFiles>(bytes),
        4 => body::<types::QueuePlace>(bytes),
        5 => body::<types::MoveTorrent>(bytes),
        6 => body::<types::RenameFile>(bytes),
        7 => body::<types::NewPeers>(bytes),
        8 => body::<types::NewTrackers>(bytes),
        9 => body::<types::EditServerLimits>(bytes),
        10 => {
            query::<types::ListQuery>(bytes);
            query::<types::ChangesQuery>(bytes);
            query::<types::RemoveQuery>(bytes);
        }
        _ => {
            let Ok(text) = std::str::from_utf8(bytes) else {
                return;
            };
            if let Some(hash) = decode::info_hash(text) {
                assert!(hash.to_string().eq_ignore_ascii_case(text));
            }
        }
    }
});

fn body<T: DeserializeOwned + Serialize + PartialEq + Debug>(bytes: &[u8]) {
    match decode::json::<T>(bytes) {
        Ok(read) => {
            let written = serde_json::to_vec(&read).expect("what was read can be written");
            assert_eq!(decode::json::<T>(&written).as_ref(), Ok(&read));
        }
        Err(error) => tellable(error),
    }
}

fn query<T: DeserializeOwned + Serialize + PartialEq + Debug>(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    match decode::query::<T>(text) {
        Ok(read) => {
            let written = serde_urlencoded::to_string(&read).expect("what was read can be written");
            assert_eq!(decode::query::<T>(&written).as_ref(), Ok(&read));
        }
        Err(error) => tellable(error),
    }
}

fn tellable(error: DecodeError) {
    match error {
        DecodeError::Malformed(detail) => assert!(!detail.is_empty()),
        DecodeError::Invalid(field, detail) => {
            assert!(!detail.is_empty() && field != Some(String::new()));
        }
    }
}
