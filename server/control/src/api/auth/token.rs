//! The token of the state folder: made at the first start, for its owner's eyes only.
//!
//! Limits: a file of [`TOKEN_BYTES_MAX`]. A file that others can read, or that is another's, is
//! refused: they may have read it.

use rustix::fs::{Mode, OFlags};
use std::fs::{File, Metadata, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Its name in the state folder.
pub const TOKEN_FILE: &str = "api-token";

/// The shortest that is taken: as many characters as 128 bits have in hex.
const TOKEN_BYTES_MIN: usize = 32;

/// The longest.
const TOKEN_BYTES_MAX: usize = 512;

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It cannot be read or made.
    #[error("{path}: cannot {verb} the token of the API: {cause}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What was to be done.
        verb: &'static str,
        /// What the system said.
        cause: std::io::Error,
    },
    /// Others can read or change it.
    #[error(
        "{path}: the token of the API is not for its owner alone (mode {mode:04o}), so others may know \
         it; remove the file, and the next start makes a new one of mode 0600"
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It is another user's, or no ordinary file.
    #[error(
        "{0}: the token of the API must be an ordinary file of the user that runs the server, and this \
         is not; remove it, and the next start makes one"
    )]
    Foreign(PathBuf),
    /// It is no token.
    #[error(
        "{0}: holds no token of {TOKEN_BYTES_MIN} to {TOKEN_BYTES_MAX} visible ASCII characters; \
         remove it, and the next start makes one"
    )]
    Content(PathBuf),
    /// There is no randomness.
    #[error("no random bytes: {0}")]
    Random(std::io::Error),
}

/// Fills a buffer with what nobody can guess.
pub(super) fn random(buffer: &mut [u8]) -> Result<(), TokenError> {
    let random = File::open("/dev/urandom").and_then(|mut file| file.read_exact(buffer));
    random.map_err(TokenError::Random)
}

/// Reads the token of a state folder; makes it if there is none.
pub(super) fn read_or_make(state_dir: &Path) -> Result<String, TokenError> {
    let path = state_dir.join(TOKEN_FILE);
    match open(&path) {
        Ok(file) => read(file, &path),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let token = new_token()?;
            make(state_dir, &path, &token).map_err(|cause| TokenError::Io {
                path,
                verb: "make",
                cause,
            })?;
            Ok(token)
        }
        Err(cause) => Err(TokenError::Io {
            path,
            verb: "read",
            cause,
        }),
    }
}

fn new_token() -> Result<String, TokenError> {
    let mut bytes = [0; 32];
    random(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Opens a file, but not what a link leads to, and not waiting for the other end of a pipe.
fn open(path: &Path) -> std::io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?.into())
}

fn read(file: File, path: &Path) -> Result<String, TokenError> {
    let fail = |cause| TokenError::Io {
        path: path.to_owned(),
        verb: "read",
        cause,
    };
    check(&file.metadata().map_err(fail)?, path)?;
    let mut text = String::new();
    let mut file = file.take(TOKEN_BYTES_MAX as u64 + 2);
    file.read_to_string(&mut text).map_err(fail)?;
    let token = text.trim();
    let is_token = (TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX).contains(&token.len())
        && token.bytes().all(|byte| byte.is_ascii_graphic());
    match is_token {
        true => Ok(token.to_owned()),
        false => Err(TokenError::Content(path.to_owned())),
    }
}

/// Whether nobody but us can have read or written the file.
fn check(metadata: &Metadata, path: &Path) -> Result<(), TokenError> {
    let ours = rustix::process::geteuid().as_raw();
    if !metadata.is_file() || (metadata.uid() != ours && metadata.uid() != 0) {
        return Err(TokenError::Foreign(path.to_owned()));
    }
    let mode = metadata.mode() & 0o7777;
    match mode & 0o077 {
        0 => Ok(()),
        _ => Err(TokenError::Open {
            path: path.to_owned(),
            mode,
        }),
    }
}

/// Makes the file, whole or not at all: nobody reads a part of it.
fn make(state_dir: &Path, path: &Path, token: &str) -> std::io::Result<()> {
    let draft = state_dir.join(format!("{TOKEN_FILE}.new"));
    match std::fs::remove_file(&draft) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    let mut file: File = rustix::fs::open(&draft, flags, mode)?.into();
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(format!("{token}\n").as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&draft, path)?;
    File::open(state_dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn a_token_is_made_once_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(TOKEN_FILE);
        // What an earlier start left of one.
        std::fs::write(folder.path().join("api-token.new"), "half").unwrap();
        let token = read_or_make(folder.path()).unwrap();
        assert_eq!(token.len(), 64);
        assert_eq!(mode(&path), 0o600);
        assert_eq!(read_or_make(folder.path()).unwrap(), token);
        std::fs::remove_file(&path).unwrap();
        assert_ne!(read_or_make(folder.path()).unwrap(), token);
    }

    #[test]
    fn a_token_that_others_may_know_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(TOKEN_FILE);
        let token = read_or_make(folder.path()).unwrap();
        for open in [0o640, 0o604, 0o620, 0o666, 0o601] {
            std::fs::set_permissions(&path, Permissions::from_mode(open)).unwrap();
            let refused = read_or_make(folder.path()).unwrap_err().to_string();
            assert!(refused.contains(&format!("mode {open:04o}")), "{refused}");
            assert!(refused.contains("remove the file"), "{refused}");
        }
        std::fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
        assert_eq!(read_or_make(folder.path()).unwrap(), token);
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(TOKEN_FILE);
        let long = "x".repeat(TOKEN_BYTES_MAX + 1);
        for content in ["", "short", "with spaces with spaces with spaces x", &long] {
            let _ = std::fs::remove_file(&path);
            make(folder.path(), &path, content).unwrap();
            let refused = read_or_make(folder.path());
            assert!(matches!(refused, Err(TokenError::Content(_))), "{content}");
        }
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        let refused = read_or_make(folder.path());
        assert!(matches!(refused, Err(TokenError::Foreign(_))));
        std::fs::remove_dir(&path).unwrap();
        // A link is not followed, wherever it leads.
        std::fs::write(folder.path().join("other"), "x".repeat(64)).unwrap();
        std::os::unix::fs::symlink("other", &path).unwrap();
        let refused = read_or_make(folder.path());
        assert!(matches!(refused, Err(TokenError::Io { .. })));
    }
}
