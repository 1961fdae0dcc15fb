//! The data plane: everything that touches the kernel.
//!
//! One shard is one thread with a ring of its own; a complete torrent is served by all of them. The public
//! face is [`plane::Plane`]. `unsafe` is allowed in this crate; each block names its invariant.

mod allowance;
mod answer_clock;
pub mod buffers;
mod choking;
mod closing;
mod connection;
mod files;
mod limits;
mod measuring;
mod outgoing;
mod payload;
pub mod plane;
pub mod refusal;
mod ring;
mod sending;
mod shard;
pub mod sockets;
pub mod system;
#[cfg(test)]
mod testing;
pub mod torrent;
