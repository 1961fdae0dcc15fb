//! The page cache: how much of a file is in it (`fincore` of util-linux), and how to get it in or
//! out.

use std::fs::{self, File, OpenOptions};
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Context as _;

use crate::harness::usage::Usage;

/// The share of a file that must be in the page cache for it to count as cached: what fincore
/// cannot see, such as the last page that is being written, is less.
const CACHED_SHARE: f64 = 0.999;

/// What is written to this file empties the page cache.
const DROP: &str = "/proc/sys/vm/drop_caches";

/// The bytes of `file` that are in the page cache; none where fincore is not installed.
pub fn cached_bytes(file: &Path) -> Option<u64> {
    let mut fincore = Command::new("fincore");
    fincore
        .args(["--bytes", "--noheadings", "--output", "RES"])
        .arg(file);
    let output = fincore
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().parse().ok())?
}

/// Brings `file` into the page cache if it is not there.
pub fn warm(file: &Path) -> anyhow::Result<()> {
    let length = fs::metadata(file)
        .with_context(|| format!("cannot look at {file:?}"))?
        .len();
    let there = |cached: Option<u64>| {
        cached.is_some_and(|bytes| bytes as f64 >= length as f64 * CACHED_SHARE)
    };
    if there(cached_bytes(file)) {
        return Ok(());
    }
    read_through(file)?;
    match cached_bytes(file) {
        Some(bytes) if !there(Some(bytes)) => anyhow::bail!(
            "{file:?} does not stay in the page cache ({bytes} of {length} bytes): is memory \
             short? Take a smaller --size"
        ),
        _ => Ok(()),
    }
}

/// Reads all of `file`, and so what is missing of it into the page cache.
fn read_through(file: &Path) -> anyhow::Result<()> {
    let failed = || format!("cannot read {file:?}");
    let mut data = File::open(file).with_context(failed)?;
    let mut buffer = vec![0; 1 << 20];
    while data.read(&mut buffer).with_context(failed)? > 0 {}
    Ok(())
}

/// Whether [`drop_all`] may be called, which `option` asks for.
pub fn check_drop(option: &str) -> Result<(), Usage> {
    check_drop_by(option, DROP)
}

fn check_drop_by(option: &str, path: &str) -> Result<(), Usage> {
    // Opening it drops nothing.
    match OpenOptions::new().write(true).open(path) {
        Ok(_) => Ok(()),
        Err(error) => Err(Usage(format!(
            "{option} empties the page cache by {path}, which cannot be written to ({error}): run \
             it as root, or leave the option out"
        ))),
    }
}

/// Empties the page cache of the whole machine. Needs root.
pub fn drop_all() -> anyhow::Result<()> {
    // Dirty pages stay unless they are written first.
    rustix::fs::sync();
    fs::write(DROP, "3").with_context(|| format!("cannot drop the page cache ({DROP})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_just_written_is_cached() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("data");
        fs::write(&file, vec![1; 1 << 20]).unwrap();
        warm(&file).unwrap();
        // None without fincore.
        assert!(cached_bytes(&file).is_none_or(|bytes| bytes >= 1 << 20));
        assert_eq!(cached_bytes(&folder.path().join("absent")), None);
        assert!(warm(&folder.path().join("absent")).is_err());
    }

    #[test]
    fn what_cannot_be_emptied_is_told_before_a_run() {
        let error = check_drop_by("--cold", "/proc/no such file").unwrap_err();
        let said = error.to_string();
        assert!(said.starts_with("--cold empties the page cache"), "{said}");
        assert!(said.contains("run it as root"), "{said}");
    }
}
