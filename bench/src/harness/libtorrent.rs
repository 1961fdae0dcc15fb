//! libtorrent-rasterbar through its Python binding: `libtorrent_tool.py` in this folder, which is
//! part of this program.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context as _;

use crate::harness::children::Program;

const SCRIPT: &str = include_str!("libtorrent_tool.py");

/// The tool, in a folder of this run.
#[derive(Debug, Clone)]
pub struct Libtorrent {
    python: PathBuf,
    script: PathBuf,
}

impl Libtorrent {
    /// Writes the tool to `workspace`; it will run under `python`.
    pub fn new(python: &Path, workspace: &Path) -> anyhow::Result<Self> {
        let script = workspace.join("libtorrent_tool.py");
        fs::write(&script, SCRIPT).with_context(|| format!("cannot write {script:?}"))?;
        Ok(Self {
            python: python.to_owned(),
            script,
        })
    }

    /// libtorrent's version, or why it is not there.
    pub fn version(&self) -> Result<String, String> {
        version(&self.python)
    }

    /// The tool with the first of its arguments.
    pub fn tool(&self, command: &str) -> Program {
        Program::new(&self.python).arg(&self.script).arg(command)
    }
}

/// The version of the libtorrent that `python` can import, or why it is not there.
pub fn version(python: &Path) -> Result<String, String> {
    let code = "import libtorrent; print('libtorrent', libtorrent.version)";
    let mut command = Command::new(python);
    let command = command.args(["-c", code]).stdin(Stdio::null());
    let output = command
        .output()
        .map_err(|error| format!("{python:?}: {error}"))?;
    if !output.status.success() {
        return Err(format!(
            "{python:?} has no module libtorrent (--libtorrent-python)"
        ));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
