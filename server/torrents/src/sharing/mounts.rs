//! By which names a folder is there: bind mounts give it more than one, and none of them is that of
//! the other.
//!
//! Does not: see mounts of another namespace, or follow symbolic links.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// One line of `/proc/self/mountinfo`.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    /// What is mounted: major and minor number.
    device: String,
    /// Which folder of it.
    root: PathBuf,
    /// Where.
    point: PathBuf,
}

/// What is mounted where.
pub(super) struct Mounts(Vec<Mount>);

impl Mounts {
    /// Those of this process; none if they cannot be read.
    pub(super) fn read() -> Mounts {
        Mounts::parse(&fs::read("/proc/self/mountinfo").unwrap_or_default())
    }

    fn parse(lines: &[u8]) -> Mounts {
        let mount = |line: &[u8]| {
            let mut fields = line.split(|byte| *byte == b' ').skip(2);
            let device = String::from_utf8(fields.next()?.to_vec()).ok()?;
            let (root, point) = (plain(fields.next()?), plain(fields.next()?));
            Some(Mount {
                device,
                root,
                point,
            })
        };
        Mounts(
            lines
                .split(|byte| *byte == b'\n')
                .filter_map(mount)
                .collect(),
        )
    }

    /// All names of the folder with this real path, which is one of them.
    pub(super) fn names(&self, real: &Path) -> Vec<PathBuf> {
        let above = self.0.iter().filter(|mount| real.starts_with(&mount.point));
        // Of two at one place the later covers the other.
        let mine = above.max_by_key(|mount| mount.point.components().count());
        let inside = mine.and_then(|mine| {
            let below = real.strip_prefix(&mine.point).ok()?;
            Some((&mine.device, mine.root.join(below)))
        });
        let mut names = vec![real.to_owned()];
        if let Some((device, inside)) = inside {
            let same = self.0.iter().filter(|mount| mount.device == *device);
            names.extend(same.filter_map(|mount| {
                let below = inside.strip_prefix(&mount.root).ok()?;
                let name = mount.point.join(below);
                (name != real).then_some(name)
            }));
        }
        names
    }
}

/// A path as the kernel writes it: some bytes are a backslash and three octal digits.
fn plain(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, after @ ..] = rest {
        let octal = after.first_chunk::<3>().filter(|_| *first == b'\\');
        let octal = octal.and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = octal.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = match byte {
            Some(_) => after.get(3..).unwrap_or_default(),
            None => after,
        };
    }
    PathBuf::from(OsString::from_vec(
        OsStr::from_bytes(&bytes).as_bytes().to_vec(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_a_name_by_each_mount_that_shows_it() {
        let lines = b"1 0 8:1 / / rw - ext4 /dev/sda rw\n\
            2 1 8:2 / /data rw shared:1 - ext4 /dev/sdb rw\n\
            3 1 8:2 /films /srv/my\\040films rw - ext4 /dev/sdb rw\n\
            4 1 8:2 /films/old/b /mnt/b rw - ext4 /dev/sdb rw\n\
            junk\n";
        let mounts = Mounts::parse(lines);
        assert_eq!(mounts.0.len(), 4);
        let names = |path: &str| mounts.names(Path::new(path));
        assert_eq!(names("/etc"), [Path::new("/etc")]);
        let both = ["/data/films/new", "/srv/my films/new"].map(PathBuf::from);
        assert_eq!(names("/data/films/new"), both);
        let mut found = names("/srv/my films/new");
        found.sort();
        assert_eq!(found, both);
        let mut found = names("/mnt/b/c");
        found.sort();
        let all = ["/data/films/old/b/c", "/mnt/b/c", "/srv/my films/old/b/c"];
        assert_eq!(found, all.map(PathBuf::from));
        assert_eq!(Mounts(Vec::new()).names(Path::new("/a")), [Path::new("/a")]);
    }
}
