//! The control plane: ordinary tokio on threads of its own, never on a shard's.
//!
//! Does not: touch a peer's socket or read payload for a peer; that is `seedring-io`'s work.
#![forbid(unsafe_code)]

pub mod announce;
pub mod api;
pub mod catalog;
pub mod command;
pub mod config;
pub mod create;
pub mod dht;
pub mod exporter;
pub mod hashing;
pub mod hooks;
pub mod http;
pub mod import;
pub mod ip_filter;
pub mod library;
pub mod logging;
pub mod lsd;
pub mod resume;
pub mod roots;
pub mod state;
pub mod tracker;
pub mod verify;
pub mod watching;
pub mod web;
