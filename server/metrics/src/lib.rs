//! The catalogue of metrics: name, type, help; a cell per shard; snapshots.
#![forbid(unsafe_code)]
