//! Folders that data come into and that are outside of those in which data may be.

use super::Wrong;
use crate::config::Config;
use crate::roots::{Outside, Roots};
use std::path::Path;

/// What is wrong with the roots, and with the folders of the library.
pub(in crate::config) fn of_roots(config: &Config) -> Vec<Wrong> {
    let library = &config.library;
    let mut problems = Vec::new();
    if library.roots.is_empty() {
        return problems;
    }
    if let Some(root) = library.roots.iter().find(|root| !root.is_absolute()) {
        let message = format!("{root:?} is not an absolute path; write all of it");
        problems.push(("library.roots", message));
    }
    match &library.save_path {
        Some(path) => {
            let wrong = outside(config, path);
            problems.extend(wrong.map(|message| ("library.save_path", message)));
        }
        None => {
            let message = "library.save_path is not set, and the folder that it is then is the \
                           state's; name one inside the roots there";
            problems.push(("library.roots", message.to_owned()));
        }
    }
    let categories = library.category_paths.iter();
    let wrong = categories.filter_map(|category| {
        let message = outside(config, &category.path)?;
        let message = format!("of category \"{}\": {message}", category.name);
        Some(("library.category_paths", message))
    });
    problems.extend(wrong);
    problems
}

/// Why data may not come into a folder.
pub(super) fn outside(config: &Config, path: &Path) -> Option<String> {
    let roots = Roots::new(&config.library.roots);
    let outside: Option<Outside> = roots.check(path).err();
    outside.map(|outside| outside.to_string())
}
