//! The torrents of a running server: their life from being added to being removed.
//!
//! [`Manager`] is one task that owns all of it. It is asked by [`control::command`], tells by the
//! catalog, keeps by the store, and works through the data plane and the sources of peers. What
//! takes a disk or a while (hashing, reading metainfo, deleting) is done beside it, and comes back
//! to it as an event; so it answers at once, whatever a disk does.
//!
//! What a torrent is doing is one of these, and for most of many it is nothing:
//!
//! ```text
//!   added ──► metadata ──► checking ──► downloading ──► awake ◄──► dormant
//!                              ▲             │            │
//!                              └── offline ◄─┴── fault ◄──┘        paused: none of them
//! ```
//!
//! *Dormant*, *paused* and *failed* torrents have no entry here: the catalog knows what they are, the
//! store the rest. *Offline* ones have a small one, for the next look at their files. `docs/adr/0019-torrents.md` has the decisions.
//!
//! Limits: [`Settings`], the catalog's, the store's. Does not: decide whom to serve or which piece
//! to fetch; read HTTP.
#![forbid(unsafe_code)]

mod acting;
mod adding;
mod admitting;
mod beneath;
mod burying;
mod checking;
mod completing;
mod declaring;
mod deleting;
mod doubting;
mod downloading;
mod editing;
mod finding;
mod hooking;
#[cfg(test)]
mod idle;
mod keeping;
mod limiting;
mod loading;
mod manager;
mod metadata;
mod moving;
mod phases;
mod queue;
mod reading;
mod reloading;
mod removing;
mod renaming;
mod seeding;
mod sharing;
mod telling;
mod throttling;
mod totals;
mod turns;
mod unkept;

pub use declaring::Declared;
pub use limiting::{Enough, action_of};
pub use manager::{Ended, Manager, ManagerHandle, Services, Settings};
pub use throttling::{LimitRules, WallClock};
