//! The HTTP API of a server that keeps torrents.

pub mod types;
