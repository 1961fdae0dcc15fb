//! BitTorrent state machines: bytes and times come in, actions come out.
//!
//! Pure: no I/O, no clock, no randomness of its own, no tokio, no libc (its `Cargo.toml` is the
//! proof), so that a test drives any of them in virtual time from one seed.
#![forbid(unsafe_code)]

pub mod cache;
pub mod choker;
pub mod dht;
pub mod download;
pub mod ip_filter;
pub mod layout;
pub mod metadata;
pub mod meter;
pub mod peer_list;
pub mod pex;
pub mod picker;
pub mod pipeline;
pub mod queue;
pub mod random;
pub mod rate;
pub mod readahead;
pub mod runs;
pub mod session;
pub mod super_seed;
pub mod time;
