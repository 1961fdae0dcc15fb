//! What is wrong between watch folders, between them and where data come, and within a hook.
//!
//! Paths are compared by their names: links on the way are not looked through, because the folders
//! need not be there. That data must be inside library.roots is asked of where folders really are.

use super::roots::outside;
use crate::config::lists::{After, HookEntry, WatchEntry};
use crate::config::{Config, Environment};
use std::path::{Path, PathBuf};

/// Which watch folder, its key, and what is wrong with it.
type WrongWatch = (usize, &'static str, String);

/// Whether a file that is in `folder` is seen by whoever watches it so.
fn sees(watch: &WatchEntry, folder: &Path) -> bool {
    let Some(path) = &watch.path.0 else {
        return false;
    };
    folder == path || (watch.recursive && folder.starts_with(path))
}

/// Watch folders that would see each other's files, those of torrents, or the same file again.
pub(in crate::config) fn of_watches(config: &Config, environment: &Environment) -> Vec<WrongWatch> {
    let mut problems = Vec::new();
    let library = config.library.save_path.clone();
    let library = library.unwrap_or_else(|| config.state_dir(environment).join("downloads"));
    for (number, watch) in config.watches.iter().enumerate() {
        let Some(path) = &watch.path.0 else {
            let message = "is missing; every [[watch]] needs it".to_owned();
            problems.push((number, "watch.path", message));
            continue;
        };
        let earlier = config.watches.iter().take(number);
        let clash = earlier.filter_map(|other| Some((other, other.path.0.as_ref()?)));
        let mut clash = clash.filter(|(other, at)| sees(other, path) || sees(watch, at));
        if let Some((_, other)) = clash.next() {
            let message = format!(
                "{path:?} and {other:?} would both add what comes into one of them; leave one, or \
                 turn recursive off"
            );
            problems.push((number, "watch.path", message));
        }
        let own = config
            .watches
            .iter()
            .filter_map(|it| it.save_path.0.as_ref());
        let categories = config.library.category_paths.iter();
        let categories = categories.map(|category| &category.path);
        let mut folders = own.chain([&library]).chain(categories);
        if let Some(folder) = folders.find(|folder| mixes(watch, path, folder)) {
            let message = format!(
                "data of torrents come into {folder:?}, so that a .torrent file among them would \
                 be added as if you had put it there; watch a folder that is apart from it"
            );
            problems.push((number, "watch.path", message));
        }
        let save_path = watch.save_path.0.as_deref();
        if let Some(message) = save_path.and_then(|path| outside(config, path)) {
            problems.push((number, "watch.save_path", message));
        }
        if let Some(message) = again(config, watch) {
            problems.push((number, "watch.after", message));
        }
        if watch.seed_mode && watch.sequential {
            let message = "is of no use with seed_mode, which takes the data to be complete";
            problems.push((number, "watch.sequential", message.to_owned()));
        }
    }
    problems
}

/// Whether data that come into `folder` may come into what is watched: torrents have folders of
/// their own there, of any name.
fn mixes(watch: &WatchEntry, path: &Path, folder: &Path) -> bool {
    path.starts_with(folder) || sees(watch, folder)
}

/// What is wrong with where files are moved to.
fn again(config: &Config, watch: &WatchEntry) -> Option<String> {
    let After::Move(folder) = &watch.after else {
        return None;
    };
    let seen: Option<&PathBuf> = config
        .watches
        .iter()
        .filter(|other| sees(other, folder))
        .find_map(|other| other.path.0.as_ref());
    seen.map(|path| {
        format!(
            "what is moved to {folder:?} would be found there again by the watch on {path:?}; \
             name a folder that is not watched"
        )
    })
}

/// What is wrong with a hook, by key.
pub(in crate::config) fn of_hook(hook: &HookEntry) -> Vec<(&'static str, String)> {
    let mut problems = Vec::new();
    if hook.on.0.is_empty() {
        let message = "is missing: say what it is told, such as on = [\"completed\"]";
        problems.push(("hook.on", message.to_owned()));
    }
    match (hook.run.0.first(), &hook.url.0) {
        (None, None) => {
            let message = "run and url are both missing: say what is to be done";
            problems.push(("hook.run", message.to_owned()));
        }
        (Some(_), Some(_)) => {
            let message = "a hook has run or url; write two hooks for both";
            problems.push(("hook.url", message.to_owned()));
        }
        (Some(program), None) => {
            if program.as_path().is_none_or(|path| !path.is_absolute()) {
                let message = "the program is to be an absolute path with nothing to replace in it";
                problems.push(("hook.run", message.to_owned()));
            }
            let secrets = [
                ("hook.secret_file", &hook.secret_file),
                ("hook.token_file", &hook.token_file),
            ];
            for (key, file) in secrets {
                if file.is_some() {
                    problems.push((key, "is for a url; a program reads its own".to_owned()));
                }
            }
        }
        (None, Some(_)) => {}
    }
    problems
}
