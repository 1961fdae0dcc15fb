//! Why a move does not go on, and whether trying again can help.

use control::command::CommandError;
use rustix::io::Errno;
use std::fmt;
use std::io;
use std::path::Path;

/// Why a move does not go on: a sentence without an end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Why {
    /// Nobody wants it any more.
    GivenUp,
    /// A disk is away, full, or has failed once: it is tried again until it works.
    Passing(String),
    /// A copy is not what it was copied of; it is gone, and made again so many times.
    BadCopy(String),
    /// Trying does not help.
    Final(String),
}

impl Why {
    /// What the system says of a path.
    pub(crate) fn of(path: &Path, error: impl Into<io::Error>) -> Why {
        let error = error.into();
        let text = format!("{path:?}: {error}");
        match error.raw_os_error().map(Errno::from_raw_os_error) {
            // What has this name, or can have no such name, has it the next time, too.
            Some(
                Errno::NAMETOOLONG
                | Errno::FBIG
                | Errno::INVAL
                | Errno::ISDIR
                | Errno::NOTDIR
                | Errno::LOOP,
            ) => Why::Final(text),
            _ => Why::Passing(text),
        }
    }

    /// The same, said otherwise.
    pub(crate) fn map(self, say: impl FnOnce(&str) -> String) -> Why {
        match self {
            Why::GivenUp => Why::GivenUp,
            Why::Passing(text) => Why::Passing(say(&text)),
            Why::BadCopy(text) => Why::BadCopy(say(&text)),
            Why::Final(text) => Why::Final(say(&text)),
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::GivenUp => f.write_str("it was given up"),
            Why::Passing(text) | Why::BadCopy(text) | Why::Final(text) => f.write_str(text),
        }
    }
}

impl From<Why> for CommandError {
    fn from(why: Why) -> CommandError {
        CommandError::Failed(why.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_disk_says_passes_and_what_a_name_is_does_not() {
        let of = |errno: Errno| Why::of(Path::new("/a"), errno);
        for errno in [
            Errno::IO,
            Errno::NOSPC,
            Errno::NOENT,
            Errno::ROFS,
            Errno::STALE,
            Errno::ACCESS,
        ] {
            assert!(matches!(of(errno), Why::Passing(_)), "{errno}");
        }
        for errno in [Errno::NAMETOOLONG, Errno::NOTDIR, Errno::FBIG] {
            assert!(matches!(of(errno), Why::Final(_)), "{errno}");
        }
        let said = of(Errno::IO).map(|text| format!("not moved: {text}"));
        assert!(
            said.to_string().starts_with("not moved: \"/a\": "),
            "{said}"
        );
    }
}
