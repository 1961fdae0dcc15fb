//! Folders to seed, the same bytes on every run.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// Bytes per kibibyte and mebibyte.
pub const KIB: u64 = 1024;
/// See [`KIB`].
pub const MIB: u64 = 1024 * KIB;

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
    let mut command = std::process::Command::new("diff");
    command.arg("-r").arg(expected).arg(actual);
    let output = command.output().expect("diff is installed");
    assert!(
        output.status.success(),
        "diff -r {} {}:\n{}{}",
        expected.display(),
        actual.display(),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
