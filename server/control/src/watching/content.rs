//! What is in a file that somebody has put into a watch folder: pure, by its name and its bytes.

use crate::command::AddSource;
use crate::web::is_url;
use proto::limits::{MAGNET_BYTES_MAX, METAINFO_BYTES_MAX};
use proto::magnet::Magnet;
use proto::metainfo::Metainfo;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// Kinds of files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// A .torrent file.
    Torrent,
    /// A text with a link: .magnet, and .url as web browsers write it.
    Link,
}

/// Why nothing can be made of a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Wrong(pub String);

impl Kind {
    /// The kind of a file by its name; none if it is to be left alone.
    pub(super) fn of(name: &OsStr) -> Option<Kind> {
        let name = name.as_bytes();
        let ends = |end: &str| {
            let at = name.len().checked_sub(end.len());
            let tail = at.and_then(|at| name.get(at..));
            tail.is_some_and(|tail| tail.eq_ignore_ascii_case(end.as_bytes()))
        };
        match name.first() {
            None | Some(b'.') => None,
            _ if ends(".torrent") => Some(Kind::Torrent),
            _ if ends(".magnet") || ends(".url") => Some(Kind::Link),
            _ => None,
        }
    }

    /// The most that one has, in bytes.
    pub(super) fn bytes_max(self) -> u64 {
        match self {
            Kind::Torrent => METAINFO_BYTES_MAX as u64,
            Kind::Link => 2 * MAGNET_BYTES_MAX as u64,
        }
    }

    /// What is to be added, of a file that says `content`.
    pub(super) fn read(self, content: Vec<u8>) -> Result<AddSource, Wrong> {
        match self {
            Kind::Torrent => match Metainfo::parse(&content) {
                Ok(_) => Ok(AddSource::Metainfo(content)),
                Err(error) => Err(Wrong(error.to_string())),
            },
            Kind::Link => link(&content),
        }
    }

    /// Whether a file that can be read may still become another: a torrent ends where its
    /// structure does, a link does not show its end.
    pub(super) fn may_go_on(self, content: &[u8]) -> bool {
        self == Kind::Link && !content.ends_with(b"\n")
    }
}

/// The one link of a text: a line that is one, or `URL=` and one.
fn link(content: &[u8]) -> Result<AddSource, Wrong> {
    let text = std::str::from_utf8(content).map_err(|_| Wrong("it is no text".to_owned()))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let of_line = |line: &'_ str| {
        let line = line.trim();
        let value = match line.get(..4) {
            Some(key) if key.eq_ignore_ascii_case("url=") => line[4..].trim(),
            _ => line,
        };
        let is_magnet = value
            .get(..7)
            .is_some_and(|it| it.eq_ignore_ascii_case("magnet:"));
        (is_magnet || is_url(value)).then(|| (is_magnet, value.to_owned()))
    };
    let mut links = text.lines().filter_map(of_line);
    let (is_magnet, link) = links.next().ok_or_else(|| {
        Wrong("there is no magnet link and no http or https URL in it".to_owned())
    })?;
    if links.next().is_some() {
        return Err(Wrong(
            "there are several links in it: put each into a file".to_owned(),
        ));
    }
    if !is_magnet {
        return Ok(AddSource::Url(link));
    }
    let magnet = Magnet::parse(&link).map_err(|error| Wrong(error.to_string()))?;
    Ok(AddSource::Magnet(Box::new(magnet)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: &str = "magnet:?xt=urn:btih:0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn files_are_known_by_their_names() {
        for name in ["a.torrent", "A.TORRENT", "a b.torrent", "x.magnet.torrent"] {
            assert_eq!(Kind::of(OsStr::new(name)), Some(Kind::Torrent), "{name}");
        }
        for name in ["a.magnet", "a.Url"] {
            assert_eq!(Kind::of(OsStr::new(name)), Some(Kind::Link), "{name}");
        }
        for name in [
            "",
            ".torrent",
            ".a.torrent",
            "a.torrent.added",
            "a.torrent.invalid",
            "torrent",
        ] {
            assert_eq!(Kind::of(OsStr::new(name)), None, "{name}");
        }
        let odd = OsStr::from_bytes(b"\xff\x1b[2J.torrent");
        assert_eq!(Kind::of(odd), Some(Kind::Torrent));
    }

    #[test]
    fn a_text_has_one_link() {
        let read = |text: &str| Kind::Link.read(text.as_bytes().to_vec());
        for text in [
            LINK.to_owned(),
            format!("\u{feff}  {LINK} \r\n"),
            format!("[InternetShortcut]\r\nURL={LINK}\r\n"),
        ] {
            let Ok(AddSource::Magnet(magnet)) = read(&text) else {
                panic!("{text:?}");
            };
            assert!(magnet.info_hash_v1.is_some());
        }
        let shortcut = "[InternetShortcut]\r\nURL=https://example.org/x.torrent\r\n";
        let Ok(AddSource::Url(url)) = read(shortcut) else {
            panic!("no URL");
        };
        assert_eq!(url, "https://example.org/x.torrent");
        for text in [
            "",
            "x",
            "ftp://x/",
            "magnet:?dn=x",
            &format!("{LINK}\n{LINK}\n"),
        ] {
            assert!(read(text).is_err(), "{text:?}");
        }
        assert!(Kind::Link.read(vec![0xff]).is_err());
    }

    /// So that it can be taken as soon as it can be read.
    #[test]
    fn a_torrent_that_is_not_whole_is_none() {
        let whole =
            b"d4:infod6:lengthi1e4:name1:x12:piece lengthi16384e6:pieces20:aaaaaaaaaaaaaaaaaaaaee";
        for end in 0..whole.len() {
            assert!(Kind::Torrent.read(whole[..end].to_vec()).is_err(), "{end}");
            // A file whose space is taken before it is written.
            let mut begun = whole[..end].to_vec();
            begun.resize(whole.len(), 0);
            assert!(Kind::Torrent.read(begun).is_err(), "{end}");
        }
        assert!(Kind::Torrent.read(whole.to_vec()).is_ok());
        assert!(!Kind::Torrent.may_go_on(whole));
        assert!(Kind::Link.may_go_on(b"magnet:?x") && !Kind::Link.may_go_on(b"magnet:?x\n"));
    }
}
