//! The data plane: everything that touches the kernel.
//!
//! One shard is one thread with a ring of its own; a complete torrent is served by all of them. The
//! public face is [`plane::Plane`]. `unsafe` is allowed in this crate; each block names its
//! invariant.

mod aligned;
mod allowance;
mod allowed_fast;
mod answer_clock;
pub mod buffers;
pub mod bulk;
mod bypass;
mod calling;
mod choking;
mod chunk_read;
mod closing;
mod connection;
mod constants;
pub mod direct;
mod doors;
mod exchange;
pub mod fetch;
mod files;
mod greeting;
mod in_transit;
mod leases;
mod limits;
mod measuring;
mod outgoing;
pub mod own_limits;
mod payload;
pub mod peers;
pub mod pipes;
pub mod plane;
mod presence;
pub mod refusal;
mod residency;
mod ring;
pub mod roster;
mod sending;
mod shard;
pub mod sockets;
mod splicing;
pub mod super_seeding;
pub mod system;
#[cfg(test)]
mod testing;
pub mod torrent;
mod warming;
pub mod windows;
