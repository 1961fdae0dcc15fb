//! Tests of the API over real sockets, with a server at the other end that keeps what it is told.

mod access;
mod decode;
mod feed;
mod harness;
mod refusals;
mod torrents;
