//! BitTorrent formats and codecs: bytes in, parsed values out, and back.
//!
//! Pure: no I/O, no clock, no randomness, no tokio, no libc (its `Cargo.toml` is the proof). Nothing that a
//! stranger sends leaves this crate unvalidated, allocates beyond [`limits`] or panics.
#![forbid(unsafe_code)]

pub mod address;
pub mod bencode;
pub mod client_name;
pub mod dht;
pub mod extension;
pub mod handshake;
pub mod ids;
pub mod ip_filter;
pub mod limits;
pub mod lsd;
pub mod magnet;
pub mod metainfo;
pub mod path;
pub mod pex;
pub mod text;
pub mod tracker;
pub mod wire;
