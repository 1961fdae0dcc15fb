//! Folders to seed, the same bytes on every run.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// Bytes per kibibyte and mebibyte.
pub const KIB: u64 = 1024;
/// See [`KIB`].
pub const MIB: u64 = 1024 * KIB;

/// The size of the main job's large file: 300 MiB is what the project promises for. A debug build hashes
/// slowly, so there it is less, unless `SEEDRING_TESTS_FULL` is set.
pub fn large_bytes() -> u64 {
    let full = !cfg!(debug_assertions) || std::env::var_os("SEEDRING_TESTS_FULL").is_some();
    if full { 300 * MIB } else { 24 * MIB }
}

/// Writes a file of `length` bytes that no two 16 KiB blocks share; `seed` chooses the bytes.
pub fn write_file(path: &Path, length: u64, seed: u64) {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).unwrap();
    }
    let file = File::create(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut out = BufWriter::with_capacity(1 << 20, file);
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut left = length;
    while left > 0 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let word = state.to_le_bytes();
        let take = left.min(8);
        out.write_all(&word[..usize::try_from(take).unwrap()])
            .unwrap();
        left -= take;
    }
    out.flush().unwrap();
}

/// The main job's folder: three nested files, one empty, one of `large` bytes, one with a non-ASCII name.
pub fn main_job_folder(root: &Path, large: u64) {
    write_file(&root.join("season one/disc/large.bin"), large, 1);
    write_file(&root.join("season one/empty.nfo"), 0, 2);
    write_file(&root.join("Übergänge/naïve 日本語 – ✓.txt"), 70_001, 3);
}

/// Panics unless both folders hold the same files with the same bytes.
pub fn assert_same_tree(expected: &Path, actual: &Path) {
    let differences = differences(expected, actual);
    assert!(differences.is_empty(), "diff -r: {differences:#?}");
}

/// The same for a client that does not create empty files: each one missing is left out of the comparison.
pub fn assert_same_tree_but_empty_files(expected: &Path, actual: &Path) {
    let missing_empty = |line: &String| {
        let name = line
            .strip_prefix("Only in ")
            .and_then(|rest| rest.rsplit_once(": "));
        let file = name.map(|(folder, file)| Path::new(folder).join(file));
        let file = file.filter(|file| file.starts_with(expected));
        file.and_then(|file| file.metadata().ok())
            .is_some_and(|file| file.is_file() && file.len() == 0)
    };
    let mut differences = differences(expected, actual);
    differences.retain(|line| !missing_empty(line));
    assert!(differences.is_empty(), "diff -r: {differences:#?}");
}

fn differences(expected: &Path, actual: &Path) -> Vec<String> {
    let mut command = std::process::Command::new("diff");
    command
        .args(["-r", "-q"])
        .arg(expected)
        .arg(actual)
        .env("LC_ALL", "C.UTF-8");
    let output = command.output().expect("diff is installed");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        matches!(output.status.code(), Some(0 | 1)),
        "diff failed: {errors}"
    );
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    #[test]
    fn only_missing_empty_files_are_forgiven() {
        let (one, two) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        main_job_folder(one.path(), 100);
        main_job_folder(two.path(), 100);
        assert_same_tree(one.path(), two.path());
        std::fs::remove_file(two.path().join("season one/empty.nfo")).unwrap();
        assert_eq!(differences(one.path(), two.path()).len(), 1);
        assert_same_tree_but_empty_files(one.path(), two.path());
        write_file(&two.path().join("season one/disc/large.bin"), 100, 9);
        let forgiving = || assert_same_tree_but_empty_files(one.path(), two.path());
        assert!(std::panic::catch_unwind(forgiving).is_err());
    }
}
