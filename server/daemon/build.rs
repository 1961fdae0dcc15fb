//! Names the commit that is built, for `--version` of the server and of the bench (whose Cargo.toml
//! has this file too): `SEEDRING_VERSION` is "0.1.0 (0123456789ab)", "0.1.0 (0123456789ab-dirty)"
//! with changes that are not committed, and "0.1.0" where the sources lie in no repository of their
//! own, or git is not installed. `SEEDRING_COMMIT` is the commit alone, or "unknown"; given from
//! outside, it is believed: a container is built without the repository.
//!
//! Runs again when a commit is made or checked out, and when the sources that the program is made of
//! change, so that "dirty" is true.

use std::path::{Path, PathBuf};
use std::process::Command;

/// What stands for a commit that nobody knows.
const UNKNOWN: &str = "unknown";

/// The crates of ours that the server is made of.
const CRATES_OF_SERVER: [&str; 8] = [
    "server/proto",
    "server/engine",
    "server/hash",
    "server/metrics",
    "server/io",
    "server/state",
    "server/control",
    "server/daemon",
];

/// The crates of ours that the bench is made of.
const CRATES_OF_BENCH: [&str; 3] = ["server/proto", "server/hash", "bench"];

fn main() {
    let variable = |name| std::env::var(name).unwrap_or_default();
    let package = PathBuf::from(variable("CARGO_MANIFEST_DIR"));
    let is_bench = package.ends_with("bench");
    let root = package.ancestors().nth(if is_bench { 1 } else { 2 });
    let root = root.unwrap_or(&package);
    let crates: &[&str] = if is_bench {
        &CRATES_OF_BENCH
    } else {
        &CRATES_OF_SERVER
    };
    for one in crates {
        watch(&root.join(one).join("src"));
        watch(&root.join(one).join("Cargo.toml"));
    }
    watch(&root.join("server/daemon/build.rs"));
    watch(&root.join("Cargo.toml"));
    watch(&root.join("Cargo.lock"));
    println!("cargo::rerun-if-env-changed=SEEDRING_COMMIT");
    let given = Some(variable("SEEDRING_COMMIT"));
    let given = given.filter(|commit| !commit.is_empty() && commit != UNKNOWN);
    let mut version = variable("CARGO_PKG_VERSION");
    let commit = given.or_else(|| commit(root));
    if let Some(commit) = &commit {
        version = format!("{version} ({commit})");
    }
    let commit = commit.as_deref().unwrap_or(UNKNOWN);
    println!("cargo::rustc-env=SEEDRING_VERSION={version}");
    println!("cargo::rustc-env=SEEDRING_COMMIT={commit}");
}

/// The commit of the repository whose top `root` is; none if there is no such.
fn commit(root: &Path) -> Option<String> {
    let top = git(root, &["rev-parse", "--show-toplevel"])?;
    // Sources that were unpacked inside another repository are not at its commit.
    if Path::new(&top).canonicalize().ok()? != root.canonicalize().ok()? {
        return None;
    }
    // The log of HEAD has a line for each commit that is made or checked out; the others serve where
    // there is no log.
    let reference = git(root, &["symbolic-ref", "--quiet", "HEAD"]);
    let files = ["HEAD", "logs/HEAD", "packed-refs"].map(str::to_owned);
    for file in files.into_iter().chain(reference) {
        if let Some(path) = git(root, &["rev-parse", "--git-path", &file]) {
            watch(&root.join(path));
        }
    }
    let describe = [
        "describe",
        "--always",
        "--dirty",
        "--exclude=*",
        "--abbrev=12",
    ];
    git(root, &describe)
}

/// Has this run again when `path` changes. What is not there would have it run every time.
fn watch(path: &Path) {
    if path.exists() {
        println!("cargo::rerun-if-changed={}", path.display());
    }
}

/// What git answers in `root`; none if it fails.
fn git(root: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new("git")
        .arg("-C")
        .arg(root)
        .args(arguments)
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}
