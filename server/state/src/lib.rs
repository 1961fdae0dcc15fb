//! What a server knows of its torrents, in one file that survives `kill -9` and power loss.
//!
//! - [`Store`] is open in one process at a time, which a lock beside the file sees to. Its thread
//!   owns all writing.
//! - [`Handle`] is what the rest of the server has of it: [`Write`]s are durable when they are
//!   acknowledged, and what waits meanwhile is committed together; [`Progress`] may wait for the
//!   end of a period.
//! - [`View`] is the store at one moment: pages of summaries for a start, one torrent's metainfo
//!   when it is needed.
//! - [`check`], [`backup`] and [`restore`] are for a store that no server uses; [`Handle::backup`]
//!   for one that is.
//!
//! Why redb, why this encoding, and how it changes: `docs/adr/0016-state.md`.
//!
//! What it does not do: it knows no file of a torrent and no peer; it does not read metainfo but to
//! check it; it keeps no history. Limits are in [`limits`].
#![forbid(unsafe_code)]

mod backup;
mod check;
pub mod encode;
mod error;
mod field;
mod file;
mod intent;
pub mod limits;
mod lock;
mod panics;
mod queue;
mod record;
mod store;
mod tables;
mod view;
mod waiting;
mod write;
mod writer;

pub use backup::{BackupError, Restored, backup, restore};
pub use check::{Problem, Report, check};
pub use error::{Failure, OpenError, ReadError, WriteError};
pub use field::DecodeError;
pub use file::STORE_FILE;
pub use intent::Intent;
pub use queue::Place;
pub use record::{
    Condition, Details, LastError, LimitAction, NewTorrent, Summary, TorrentLimits, Totals,
    Verified,
};
pub use store::{Ack, Handle, Options, Status, Store};
pub use tables::SCHEMA;
pub use view::{Listed, View};
pub use write::{Progress, Update, Write};

// The model that tests of this crate and those beside it share names it as those do.
#[cfg(test)]
extern crate self as state;
#[cfg(test)]
#[path = "../tests/model/mod.rs"]
mod model;
#[cfg(test)]
mod tests;
