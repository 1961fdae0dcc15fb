//! Tests that cannot run here: a skip always says why, and in CI it is a failure where a package would
//! have cured it.
//!
//! Libtest has no "skipped" result that a running test can choose, so the reason goes to the file named by
//! `SEEDRING_SKIPS` (the `./test` script counts its lines) and to stderr.

use std::io::Write;
use std::path::PathBuf;

/// Why a test cannot run, and whether installing a package would change that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skip {
    /// The reason, for a reader.
    pub reason: String,
    /// True when a package of the distribution is all that is missing.
    pub installable: bool,
}

impl Skip {
    /// A program is missing that `package` would bring.
    pub fn program(program: &str, package: &str) -> Self {
        let reason = format!("{program} is not installed (package {package})");
        Self {
            reason,
            installable: true,
        }
    }

    /// The machine cannot do what the test needs.
    pub fn machine(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            installable: false,
        }
    }

    /// Reports the skip of `test`. Panics in CI when a package would have cured it.
    pub fn report(&self, test: &str) {
        let line = format!("{test}: {}", self.reason);
        assert!(
            !(self.installable && std::env::var_os("CI").is_some()),
            "in CI nothing installable may be missing: {line}"
        );
        eprintln!("SKIP {line}");
        if let Some(path) = std::env::var_os("SEEDRING_SKIPS") {
            let file = std::fs::OpenOptions::new()
                .append(true)
                .create(true)
                .open(&path);
            let mut file = file.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            writeln!(file, "{line}").unwrap();
        }
    }
}

/// Returns from the calling test with a reported skip when the expression is `Err(Skip)`.
#[macro_export]
macro_rules! need {
    ($test:expr, $found:expr) => {
        match $found {
            Ok(found) => found,
            Err(skip) => {
                let skip: $crate::skip::Skip = skip;
                skip.report($test);
                return;
            }
        }
    };
}

/// The path of `program`, looked up in `PATH` and the system's administration folders.
pub fn program(program: &str, package: &str) -> Result<PathBuf, Skip> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).map(Some);
    let system =
        ["/usr/sbin", "/sbin", "/usr/local/sbin"].map(|folder| Some(PathBuf::from(folder)));
    folders
        .chain(system)
        .flatten()
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
        .ok_or_else(|| Skip::program(program, package))
}

/// True when the test runs as root, which some rows of the system need.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
