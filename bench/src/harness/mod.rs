//! What the comparisons of programs have in common: programs are started, timed and stopped for
//! certain, rounds are interleaved, figures become medians with their spread, and a report names
//! the conditions.

pub mod children;
pub mod comparison;
pub mod content;
pub mod environment;
pub mod folder;
pub mod libtorrent;
pub mod listing;
pub mod options;
pub mod page_cache;
pub mod probe;
pub mod relay;
pub mod rounds;
pub mod servers;
pub mod undo;
pub mod usage;
