//! libtorrent-rasterbar through its Python binding, with its own preset for seeding.
//!
//! The script is part of this program: nothing has to be installed beside Python and the binding.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Place, Rival, output_of, version_line};

/// What Python runs.
const SCRIPT: &str = include_str!("libtorrent_seed.py");

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

    fn python(&self, code: &str) -> Command {
        let mut command = Command::new(&self.python);
        command.args(["-c", code]);
        command
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
        let said = output_of(&mut self.python("import libtorrent; print('found')"));
        (said.trim() != "found").then(|| {
            format!(
                "{} cannot import libtorrent (apt-get install python3-libtorrent, or pip install \
                 libtorrent in a virtual environment and --libtorrent-python)",
                self.python.display()
            )
        })
    }

    fn version(&self) -> String {
        let code = "import libtorrent; print('libtorrent', libtorrent.version)";
        version_line(&mut self.python(code))
    }

    fn command(&self, place: &Place<'_>) -> anyhow::Result<Command> {
        let script = place.work.join("libtorrent_seed.py");
        std::fs::write(&script, SCRIPT)?;
        let mut command = Command::new(&self.python);
        command
            .arg(script)
            .arg(&place.data.torrent_file)
            .arg(&place.data.directory)
            .arg(place.port.to_string());
        Ok(command)
    }
}
