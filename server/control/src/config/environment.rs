//! What the configuration takes from its surroundings: variables, and who we are.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The variables of the process and whether it is root: an argument, so that tests set it.
#[derive(Debug, Clone)]
pub struct Environment {
    pub(crate) variables: BTreeMap<String, OsString>,
    pub(crate) root: bool,
    /// The system's configuration file.
    pub(crate) system_file: PathBuf,
}

impl Environment {
    /// The surroundings of this process.
    pub fn of_process() -> Self {
        // Variables whose names are no UTF-8 cannot be ours.
        let variables =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
        // The owner of /proc/self is the effective user; without /proc we are taken for a user.
        let root = std::fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0);
        let system_file = PathBuf::from("/etc/seedring/seedring.toml");
        Self {
            variables: variables.collect(),
            root,
            system_file,
        }
    }

    /// An environment of these variables only, of an ordinary user, with no system file.
    pub fn of<N: Into<String>, V: Into<OsString>>(
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        let variables = variables
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()));
        let system_file = PathBuf::from("/nonexistent/seedring.toml");
        Self {
            variables: variables.collect(),
            root: false,
            system_file,
        }
    }

    /// The files that are looked for when none is named, in order.
    pub(crate) fn config_files(&self) -> Vec<PathBuf> {
        let user = self
            .absolute("XDG_CONFIG_HOME")
            .or_else(|| self.home(".config"));
        let user = user.map(|folder| folder.join("seedring/seedring.toml"));
        std::iter::once(self.system_file.clone())
            .chain(user)
            .collect()
    }

    /// The folder of the state when the configuration names none.
    pub fn state_dir_default(&self) -> PathBuf {
        if let Some(folder) = self.absolute("STATE_DIRECTORY") {
            return folder;
        }
        if self.root {
            return PathBuf::from("/var/lib/seedring");
        }
        let user = self
            .absolute("XDG_STATE_HOME")
            .or_else(|| self.home(".local/state"));
        // Without a home, a daemon's user most likely: the place that a package would make for it.
        user.map_or_else(
            || PathBuf::from("/var/lib/seedring"),
            |folder| folder.join("seedring"),
        )
    }

    /// A variable that is UTF-8.
    pub(crate) fn text(&self, variable: &str) -> Option<&str> {
        self.variables.get(variable)?.to_str()
    }

    /// A variable that holds an absolute path; the XDG specification has others ignored.
    fn absolute(&self, variable: &str) -> Option<PathBuf> {
        self.variables
            .get(variable)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    }

    fn home(&self, below: &str) -> Option<PathBuf> {
        self.absolute("HOME")
            .map(|home| home.join(Path::new(below)))
    }
}
