//! What the load does with payload.

use std::sync::Arc;

use clap::ValueEnum;
use serde::Serialize;

use super::verify::Expected;
use crate::torrent::Torrent;

/// See the head of this file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The kernel drops it: the lightest load.
    Discard,
    /// It is copied to the load, as any client must.
    Read,
    /// It is copied and every whole piece is checked by its SHA-1.
    Verify,
}

impl Mode {
    /// As the command line and the report spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Discard => "discard",
            Self::Read => "read",
            Self::Verify => "verify",
        }
    }

    /// What pieces of `torrent` are compared with, if they are.
    pub fn expected(self, torrent: &Torrent) -> Option<Arc<Expected>> {
        (self == Self::Verify).then(|| {
            Arc::new(Expected {
                geometry: torrent.geometry,
                hashes: torrent.hashes.clone(),
            })
        })
    }
}
