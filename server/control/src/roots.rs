//! The folders that torrents' data may be in, and whether a folder is inside one of them: by where
//! it really is, whatever links and `..` lead there.
//!
//! What is asked is true at that moment. Who may write in the folders above a torrent's can put a
//! link in their place a moment later; it is asked again at each use, and files themselves are
//! opened beneath the torrent's folder alone.
//!
//! Blocks on the disk. Does not: make or open anything.

use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// The folders; none of them is anywhere.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Roots(Arc<[PathBuf]>);

/// A folder in which no data may be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{path:?} {why}; library.roots has {roots}")]
pub struct Outside {
    path: PathBuf,
    why: String,
    roots: String,
}

impl Roots {
    /// Data may be in these folders and those below them; anywhere, if there are none.
    pub fn new(roots: &[PathBuf]) -> Roots {
        Roots(roots.into())
    }

    /// Whether data may be anywhere.
    pub fn is_anywhere(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether data may be in `path`, which need not be there yet.
    ///
    /// # Errors
    ///
    /// [`Outside`], also where it cannot be found out.
    pub fn check(&self, path: &Path) -> Result<(), Outside> {
        if self.is_anywhere() {
            return Ok(());
        }
        let outside = |why: String| Outside {
            path: path.to_owned(),
            why,
            roots: self.to_string(),
        };
        let real = real(path).map_err(|why| outside(format!("cannot be looked up: {why}")))?;
        // A root that is on a mount which is away has nothing in it.
        let mut roots = self.0.iter().filter_map(|root| self::real(root).ok());
        match roots.any(|root| real.starts_with(root)) {
            true => Ok(()),
            false if real == path => Err(outside("is in no folder that data may be in".into())),
            false => Err(outside(format!(
                "is really {real:?}, in no folder that data may be in"
            ))),
        }
    }
}

impl std::fmt::Display for Roots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let roots: Vec<String> = self.0.iter().map(|root| format!("{root:?}")).collect();
        f.write_str(&roots.join(", "))
    }
}

/// Where a path leads: what of it is there without links, and the rest of it as it will be made.
fn real(path: &Path) -> Result<PathBuf, String> {
    let failed = |at: &Path, why: String| Err(format!("{at:?}: {why}"));
    let mut rest = Vec::new();
    let mut at = path;
    loop {
        match at.canonicalize() {
            Ok(mut real) => {
                real.extend(rest.iter().rev());
                return Ok(real);
            }
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return failed(at, error.to_string());
            }
            Err(_) => {}
        }
        // Whoever makes what it names decides where that is.
        if at.symlink_metadata().is_ok() {
            return failed(at, "a link to what is not there".to_owned());
        }
        // `..` of what is not there leads nowhere, and could lead anywhere later.
        let (Some(Component::Normal(name)), Some(above)) =
            (at.components().next_back(), at.parent())
        else {
            return failed(at, "no plain absolute path".to_owned());
        };
        rest.push(name);
        at = above;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// `root` with `in` below it, `out` beside it, and what leads from one to the other.
    fn scene() -> (tempfile::TempDir, PathBuf, Roots) {
        let folder = tempfile::tempdir().unwrap();
        let top = folder.path().canonicalize().unwrap();
        for name in ["root/in", "rooted", "out"] {
            std::fs::create_dir_all(top.join(name)).unwrap();
        }
        symlink(top.join("out"), top.join("root/to-out")).unwrap();
        symlink("in", top.join("root/to-in")).unwrap();
        symlink(top.join("absent"), top.join("root/to-nothing")).unwrap();
        symlink(top.join("root"), top.join("to-root")).unwrap();
        symlink("again", top.join("root/again")).unwrap();
        std::fs::write(top.join("root/file"), "").unwrap();
        let roots = Roots::new(&[top.join("root"), top.join("away/mount")]);
        (folder, top, roots)
    }

    #[test]
    fn what_is_inside_by_where_it_is_may_be_there_yet_or_not() {
        let (_folder, top, roots) = scene();
        for path in [
            "root",
            "root/in",
            "root/in/new/folder",
            "root/to-in/new",
            "to-root/in",
            "to-root/new",
            "root/to-out/../root/in",
            "out/../root",
            "away/mount/data",
        ] {
            assert_eq!(roots.check(&top.join(path)), Ok(()), "{path}");
        }
        assert_eq!(Roots::default().check(Path::new("/etc")), Ok(()));
    }

    /// As root, too, whom no mode keeps away.
    #[test]
    fn what_is_outside_is_refused_whatever_leads_there() {
        let (_folder, top, roots) = scene();
        for path in [
            "",
            "out",
            "out/new",
            "rooted",
            "root/..",
            "root/../out",
            "root/in/../../out/new",
            "root/new/../../out",
            "root/to-out",
            "root/to-out/new",
            "to-root/to-out",
            "root/to-nothing",
            "root/to-nothing/new",
            "root/again/new",
            "root/file/new",
            "away",
        ] {
            let refused = roots.check(&top.join(path));
            let refused = refused.expect_err(path).to_string();
            assert!(refused.contains("library.roots has"), "{refused}");
        }
        assert!(roots.check(Path::new("root/in")).is_err());
        // A root that is a link is where that leads, and goes with it.
        let linked = Roots::new(&[top.join("to-root")]);
        assert_eq!(linked.check(&top.join("root/in")), Ok(()));
        std::fs::remove_file(top.join("to-root")).unwrap();
        symlink(top.join("out"), top.join("to-root")).unwrap();
        assert!(linked.check(&top.join("root/in")).is_err());
        assert_eq!(linked.check(&top.join("out/x")), Ok(()));
    }
}
