//! libtorrent-rasterbar through its Python binding, with its own preset for seeding.
//!
//! The script is part of this program (see [`crate::harness::libtorrent`]): nothing has to be
//! installed beside Python and the binding.

use std::path::{Path, PathBuf};

use super::{Place, Rival};
use crate::harness::children::Program;
use crate::harness::libtorrent;

/// The libtorrent that one Python can import.
pub struct Libtorrent {
    python: PathBuf,
}

impl Libtorrent {
    /// By the interpreter `python`.
    pub fn new(python: &Path) -> Self {
        Self {
            python: python.to_owned(),
        }
    }
}

impl Rival for Libtorrent {
    fn name(&self) -> &str {
        "libtorrent"
    }

    fn settings(&self) -> String {
        "preset high_performance_seed, unlimited slots, 10000 peers, queue of 2000, checked before \
         it serves (not in seed mode)"
            .to_owned()
    }

    fn missing(&self) -> Option<String> {
        let how = "apt-get install python3-libtorrent, or pip install libtorrent in a virtual \
                   environment";
        let reason = libtorrent::version(&self.python).err()?;
        Some(format!("libtorrent is not installed ({how}): {reason}"))
    }

    fn version(&self) -> String {
        libtorrent::version(&self.python).unwrap_or_else(|reason| reason)
    }

    fn program(&self, place: &Place<'_>) -> anyhow::Result<Program> {
        let tool = libtorrent::Libtorrent::new(&self.python, place.work)?.tool("seed");
        let tool = tool
            .arg(&place.data.torrent_file)
            .arg(&place.data.directory);
        Ok(tool.arg(place.port.to_string()))
    }
}
