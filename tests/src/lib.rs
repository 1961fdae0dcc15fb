//! Shared means of the end-to-end tests: start the real binaries, speak to them from outside, judge.
//!
//! Everything here is written apart from the server's own codecs (see `Cargo.toml`). A helper panics when
//! the thing that it asks for does not happen: in a test that is the report. It does no unit testing of the
//! layers; those tests live beside the code.
#![forbid(unsafe_code)]
// A helper that cannot do its part fails the test that called it, with the reason.
#![allow(clippy::unwrap_used, clippy::panic, clippy::missing_panics_doc)]

pub mod acknowledged;
pub mod bencode;
pub mod certificates;
pub mod clients;
pub mod content;
pub mod dht;
pub mod dht_network;
pub mod fixture;
pub mod get;
pub mod http;
pub mod lan;
pub mod liar;
pub mod oracle;
pub mod peer;
pub mod process;
pub mod seeds;
pub mod served;
pub mod server;
pub mod single;
pub mod skip;
pub mod torrent;
pub mod tracker;
pub mod udp_tracker;
