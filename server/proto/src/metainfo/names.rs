//! From the paths that a torrent spells to paths that are safe and distinct.
//!
//! Two files never get the same path, not even on a file system that ignores case, and no file gets
//! the path of a directory: the later file is renamed apart, `name.ext` to `name~INDEX.ext`. Pad
//! files are left out: they are never created, and their names repeat. Unicode normalisation is not
//! applied.
//!
//! The work is linear in the length of all paths, whatever the names are: a candidate name holds
//! the index of its file, so names planted against one file are in no other's way.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use super::File;
use crate::path;

/// What a torrent spells for one file, below the torrent's name.
pub(super) type RawPath<'input> = Vec<&'input [u8]>;

/// Sanitises one path.
pub(super) fn sanitise(raw: &[&[u8]]) -> Vec<String> {
    let components = raw.iter().filter_map(|raw| path::sanitise_component(raw));
    some_name(components.map(Cow::into_owned).collect())
}

/// The path, or `_` where no safe component remained of it.
pub(super) fn some_name(mut safe: Vec<String>) -> Vec<String> {
    if safe.is_empty() {
        safe.push("_".to_owned());
    }
    safe
}

/// Whether sanitising left `raw` as it was.
fn is_spelled(safe: &[String], raw: &[&[u8]]) -> bool {
    safe.len() == raw.len()
        && safe
            .iter()
            .zip(raw)
            .all(|(safe, raw)| safe.as_bytes() == *raw)
}

/// Renames colliding files apart, notes the raw spelling where it differs, and puts `root` before
/// each path.
///
/// `raws` are the spellings of `files`, in the same order; the paths are still without their root.
pub(super) fn finish(files: &mut [File], raws: &[RawPath<'_>], root: &str) {
    // A spelling leads to existing data only if one file alone has it, as its path or its spelling.
    // Names that are made up equal no spelling: they are chosen to be in nobody's way.
    let mut claimed: HashSet<Vec<Vec<u8>>> = Tree::default().place_all(files);
    for (file, raw) in files.iter_mut().zip(raws) {
        if !is_spelled(&file.path, raw) {
            let raw: Vec<Vec<u8>> = raw.iter().map(|component| component.to_vec()).collect();
            file.raw_path_is_literal = !file.pad
                && raw
                    .iter()
                    .all(|component| path::is_literal_component(component))
                && claimed.insert(raw.clone());
            file.raw_path = Some(raw);
        }
        file.path.insert(0, root.to_owned());
    }
}

/// The directories and files of a torrent under their folded names.
#[derive(Default)]
struct Tree {
    /// The node of a name in a directory.
    children: HashMap<(u32, String), u32>,
    /// The root is not in it: node `n` is at `n - 1`.
    nodes: Vec<Node>,
}

#[derive(Clone, Copy, Default)]
struct Node {
    is_directory: bool,
    file: Option<usize>,
}

const ROOT: u32 = 0;

impl Tree {
    /// Gives each file a place of its own. Returns the paths that others would have had too.
    fn place_all(mut self, files: &mut [File]) -> HashSet<Vec<Vec<u8>>> {
        let mut places = Vec::with_capacity(files.len());
        for (index, file) in files.iter().enumerate() {
            if file.pad {
                continue;
            }
            let (name, directories) = match file.path.split_last() {
                Some(split) => split,
                None => continue,
            };
            let parent = directories.iter().fold(ROOT, |parent, name| {
                let child = self.child(parent, path::fold_case(name));
                self.nodes[child as usize - 1].is_directory = true;
                child
            });
            let place = self.child(parent, path::fold_case(name));
            self.nodes[place as usize - 1].file.get_or_insert(index);
            places.push((index, parent, place));
        }
        // Names that stand in the torrent are all known before the first new one is made up.
        let mut owners = HashSet::new();
        for &(index, parent, place) in &places {
            let node = self.nodes[place as usize - 1];
            if node.file == Some(index) && !node.is_directory {
                continue;
            }
            owners.extend(node.file.filter(|_| !node.is_directory));
            if let Some(name) = files[index].path.last_mut() {
                *name = self.free_name(parent, name, index);
            }
        }
        let bytes = |path: &[String]| path.iter().map(|name| name.clone().into_bytes()).collect();
        owners
            .into_iter()
            .map(|owner| bytes(&files[owner].path))
            .collect()
    }

    fn child(&mut self, parent: u32, folded: String) -> u32 {
        // A torrent has fewer components than bytes, so nodes fit 32 bits.
        let fresh = self.nodes.len() as u32 + 1;
        let node = *self.children.entry((parent, folded)).or_insert(fresh);
        if node == fresh {
            self.nodes.push(Node::default());
        }
        node
    }

    /// A name in `parent` that nothing has, now taken.
    fn free_name(&mut self, parent: u32, name: &str, index: usize) -> String {
        let mut attempt = 0u64;
        loop {
            let suffix = match attempt {
                0 => format!("~{index}"),
                _ => format!("~{index}-{attempt}"),
            };
            let candidate = path::with_suffix(name, &suffix);
            let nodes_before = self.nodes.len();
            let node = self.child(parent, path::fold_case(&candidate));
            if self.nodes.len() > nodes_before {
                self.nodes[node as usize - 1].file = Some(index);
                return candidate;
            }
            attempt += 1;
        }
    }
}
