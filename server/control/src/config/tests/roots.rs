//! What is outside of library.roots is named with its line.

use super::*;
use std::os::unix::fs::symlink;

#[test]
fn folders_of_the_library_and_of_watches_must_be_inside_the_roots() {
    let folder = tempfile::tempdir().unwrap();
    let top = folder.path().canonicalize().unwrap();
    for name in ["root", "out", "watched"] {
        std::fs::create_dir(top.join(name)).unwrap();
    }
    symlink(top.join("out"), top.join("root/link")).unwrap();
    let at = |name: &str| format!("{}/{name}", top.display());
    let head = |save_path: &str| {
        let (root, save_path) = (at("root"), at(save_path));
        format!("[library]\nroots = [\"{root}\"]\nsave_path = \"{save_path}\"\n")
    };
    let watch = |save_path: &str| {
        let (path, save_path) = (at("watched"), at(save_path));
        format!("[[watch]]\npath = \"{path}\"\nsave_path = \"{save_path}\"\n")
    };
    let category = |path: &str| format!("category_paths = [\"tv: {}\"]\n", at(path));
    for (text, expected) in [
        (head("out"), "seedring.toml:3:13: library.save_path: "),
        (
            head("root/link/x"),
            "seedring.toml:3:13: library.save_path: ",
        ),
        (
            head("root/../out"),
            "seedring.toml:3:13: library.save_path: ",
        ),
        (
            head("root") + &category("rooted"),
            "seedring.toml:4:18: library.category_paths: of category \"tv\": ",
        ),
        (
            head("root") + &watch("out"),
            "seedring.toml:4:1: watch.save_path: ",
        ),
    ] {
        let found = problems(&text);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with(expected), "{text}: {found:?}");
        assert!(found[0].contains("library.roots has"), "{found:?}");
    }
    // Where it is then is the state's folder.
    let unset = format!("[library]\nroots = [\"{}\"]\n", at("root"));
    let found = problems(&unset);
    assert!(
        found[0].starts_with("seedring.toml:2:9: library.roots: "),
        "{found:?}"
    );
    let whole = head("root/new") + &category("root/tv") + &watch("root/in/x");
    assert_eq!(load(&whole).unwrap().library.roots, [top.join("root")]);
    // A relative root is below the file's folder.
    let relative = "[library]\nroots = [\"a\"]\nsave_path = \"/srv\"\n";
    assert!(problems(relative)[0].contains("/a\""));
}
