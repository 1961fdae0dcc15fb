//! Reads the lists of addresses to keep away that `peers.ip_filter` names.
//!
//! Each list is text in the formats of [`proto::ip_filter`], read line by line. A line that is not
//! understood blocks nobody and is counted; the first ones are named. A list without a single line
//! that was understood is refused, for then it is something else: a web page, an archive.
//!
//! Limits: [`FILE_BYTES_MAX`] of a file, [`EXAMPLES_MAX`] lines that are named, ranges by
//! [`engine::ip_filter`]. It reads files, so it is to be called on a thread for
//! blocking work.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use engine::ip_filter::{IpFilter, IpFilterBuilder, RANGES_V4_MAX, RANGES_V6_MAX};
use proto::ip_filter::{LINE_BYTES_MAX, parse_line};

/// The longest list that is read, in bytes.
pub const FILE_BYTES_MAX: u64 = 512 << 20;

/// Lines that were not understood of which the place is kept.
pub const EXAMPLES_MAX: usize = 10;

/// What was read.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Whom to keep away.
    pub filter: IpFilter,
    /// Lines that were not understood.
    pub malformed: u64,
    /// The first of them: file, line and what is wrong with it.
    pub examples: Vec<String>,
}

/// Why there is no filter.
#[derive(Debug, thiserror::Error)]
pub enum IpFilterError {
    /// A list cannot be read.
    #[error("cannot read the address list {path:?}: {error}")]
    Io {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A list is packed.
    #[error("the address list {path:?} is compressed; unpack it first (gunzip, unzip)")]
    Compressed {
        /// Its path.
        path: PathBuf,
    },
    /// A list is something else.
    #[error(
        "no line of the address list {path:?} is a range of addresses, from line {line} on: it is no \
         p2p, dat or CIDR list"
    )]
    Nothing {
        /// Its path.
        path: PathBuf,
        /// The first line that was not understood, from 1.
        line: u64,
    },
    /// There is too much.
    #[error(
        "the address list {path:?} is too long: at most {FILE_BYTES_MAX} bytes, and of all lists \
         {RANGES_V4_MAX} ranges of IPv4 and {RANGES_V6_MAX} of IPv6"
    )]
    Long {
        /// The path of the list that was too much.
        path: PathBuf,
    },
}

/// Reads all lists.
///
/// # Errors
///
/// [`IpFilterError`] for the first list that cannot be used.
pub fn load(paths: &[PathBuf]) -> Result<Loaded, IpFilterError> {
    let mut builder = IpFilterBuilder::default();
    let mut loaded = Loaded::default();
    for path in paths {
        read_list(path, &mut builder, &mut loaded)?;
    }
    loaded.filter = builder.build();
    Ok(loaded)
}

fn read_list(
    path: &Path,
    builder: &mut IpFilterBuilder,
    loaded: &mut Loaded,
) -> Result<(), IpFilterError> {
    let failed = |error| IpFilterError::Io {
        path: path.to_owned(),
        error,
    };
    let file = File::open(path).map_err(failed)?;
    let mut reader = BufReader::with_capacity(64 << 10, file.take(FILE_BYTES_MAX + 1));
    let start = reader.fill_buf().map_err(failed)?;
    if start.starts_with(b"\x1f\x8b") || start.starts_with(b"PK\x03\x04") {
        let path = path.to_owned();
        return Err(IpFilterError::Compressed { path });
    }
    let too_long = || IpFilterError::Long {
        path: path.to_owned(),
    };
    let (mut line, mut number) = (Vec::new(), 0_u64);
    let (mut understood, mut first_wrong) = (false, None);
    while next_line(&mut reader, &mut line).map_err(failed)? {
        number += 1;
        match parse_line(&line) {
            Ok(None) => {}
            Ok(Some(range)) => {
                understood = true;
                if !builder.add(range) {
                    return Err(too_long());
                }
            }
            Err(error) => {
                first_wrong.get_or_insert(number);
                loaded.malformed += 1;
                if loaded.examples.len() < EXAMPLES_MAX {
                    let place = format!("{}:{number}: {error}", path.display());
                    loaded.examples.push(place);
                }
            }
        }
    }
    if reader.get_ref().limit() == 0 {
        return Err(too_long());
    }
    match first_wrong {
        Some(line) if !understood => {
            let path = path.to_owned();
            Err(IpFilterError::Nothing { path, line })
        }
        _ => Ok(()),
    }
}

/// Reads a line without its end; of one that is too long only so much that this shows. False at the
/// end of the file.
fn next_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let mut has_any = false;
    loop {
        let available = reader.fill_buf()?;
        if available.is_empty() {
            return Ok(has_any);
        }
        has_any = true;
        let end = available.iter().position(|&byte| byte == b'\n');
        let part = available.get(..end.unwrap_or(available.len()));
        let room = (LINE_BYTES_MAX + 1).saturating_sub(line.len());
        line.extend(part.unwrap_or_default().iter().take(room));
        let taken = end.map_or(available.len(), |end| end + 1);
        reader.consume(taken);
        if end.is_some() {
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::net::IpAddr;
    use tempfile::TempDir;

    fn write(folder: &TempDir, name: &str, content: &[u8]) -> PathBuf {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }

    #[test]
    fn lists_of_all_formats_are_one_filter() {
        let folder = TempDir::new().unwrap();
        let paths = [
            write(
                &folder,
                "a.p2p",
                b"# list\nBad: net:20.0.0.0-20.0.0.255\r\nv6:2606::-2606::ff\n",
            ),
            write(
                &folder,
                "b.dat",
                b"020.000.001.000 - 020.000.001.255 , 000 , x\n9.9.9.9 - 9.9.9.9 , 200 , ok",
            ),
            write(&folder, "c.cidr", b"20.0.2.0/24\n\n20.0.3.3"),
            write(&folder, "empty", b""),
        ];
        let loaded = load(&paths).unwrap();
        assert_eq!((loaded.malformed, loaded.filter.ranges()), (0, 3));
        let blocks = |ip: &str| loaded.filter.blocks(ip.parse::<IpAddr>().unwrap());
        for ip in ["20.0.0.0", "20.0.1.255", "20.0.2.9", "20.0.3.3", "2606::7"] {
            assert!(blocks(ip), "{ip}");
        }
        for ip in ["20.0.3.4", "9.9.9.9", "19.255.255.255", "2606::100"] {
            assert!(!blocks(ip), "{ip}");
        }
    }

    #[test]
    fn lines_that_are_not_understood_are_counted_and_named() {
        let folder = TempDir::new().unwrap();
        let mut content = b"20.0.0.0/8\n".to_vec();
        for _ in 0..20 {
            content.extend(b"nonsense\n");
        }
        content.extend(vec![b'x'; 100_000]);
        content.extend(b"\n21.0.0.1");
        let loaded = load(&[write(&folder, "list", &content)]).unwrap();
        assert_eq!((loaded.malformed, loaded.filter.ranges()), (21, 2));
        assert_eq!(loaded.examples.len(), EXAMPLES_MAX);
        assert!(
            loaded.examples[0].contains("list:2: no range"),
            "{:?}",
            loaded.examples
        );
    }

    #[test]
    fn what_is_no_list_is_refused() {
        let folder = TempDir::new().unwrap();
        let refused = |path: PathBuf| load(&[path]).unwrap_err().to_string();
        let page = refused(write(&folder, "page", b"\n<html>\n</html>"));
        assert!(page.contains("from line 2 on"), "{page}");
        assert!(refused(write(&folder, "z", b"\x1f\x8b\x08")).contains("compressed"));
        assert!(refused(write(&folder, "zip", b"PK\x03\x04")).contains("compressed"));
        assert!(refused(folder.path().join("none")).contains("cannot read"));
        assert!(refused(folder.path().to_owned()).contains("cannot read"));
    }
}
