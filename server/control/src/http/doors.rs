//! Where clients come in: a TCP port, with TLS or without, and a Unix socket.
//!
//! The socket's file is made under a folder that only we can enter and then put in its place, so
//! that nobody opens it before its mode is what it shall be. What an earlier run has left of one is
//! replaced; one that somebody listens on is not.
//!
//! Limits: a path of a socket is as long as the kernel takes, 107 bytes; a file of certificates or
//! of a key is at most [`PEM_BYTES_MAX`].

use super::{Changeable, Client, ListenError};
use crate::config::{Api, ApiSocket};
use rustix::fs::{Gid, Mode};
use rustix::io::Errno;
use std::fs::{File, Permissions};
use std::io::{Error, ErrorKind, Read};
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// The name of the socket in the state folder.
pub const SOCKET_FILE: &str = "api.sock";

/// Connections of the socket at a time.
pub const SOCKET_CONNECTIONS_MAX: usize = 64;

/// The name of a socket while nobody but us can open it.
const DRAFT: &str = "s";

/// How many names are tried for the folder that it is made in.
const CLOSED_FOLDERS_MAX: usize = 100;

/// The longest file of certificates or of a key.
const PEM_BYTES_MAX: u64 = 1 << 20;

/// Members of groups are looked for in so much of the system's list.
const GROUPS_BYTES_MAX: u64 = 4 << 20;

/// A place where clients come in.
#[derive(Debug)]
pub(super) enum Door {
    /// A port. What makes its connections TLS may change.
    Tcp(TcpListener, Arc<Changeable>),
    /// A Unix socket.
    Unix {
        /// It.
        listener: UnixListener,
        /// Its file, for as long as it is open.
        _file: SocketFile,
    },
}

/// What makes connections TLS.
#[derive(Clone)]
pub(super) struct Tls(pub(super) TlsAcceptor);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

/// A connection that nothing has been read of.
pub(super) enum Stream {
    /// One over TCP.
    Tcp(TcpStream),
    /// One over TCP that is to speak TLS.
    Tls(TcpStream, Tls),
    /// One by the socket.
    Unix(UnixStream),
}

impl Door {
    /// How many may be in by this door at a time, of which the port may have `of_port`.
    pub(super) fn connections_max(&self, of_port: usize) -> usize {
        match self {
            Door::Tcp(..) => of_port,
            Door::Unix { .. } => SOCKET_CONNECTIONS_MAX,
        }
    }

    /// The next client.
    pub(super) async fn accept(&self) -> std::io::Result<(Stream, Client)> {
        match self {
            Door::Tcp(listener, changeable) => {
                let (stream, address) = listener.accept().await?;
                // An answer in two parts must not wait for the first to be acknowledged.
                let _ = stream.set_nodelay(true);
                let stream = match changeable.tls() {
                    Some(tls) => Stream::Tls(stream, tls),
                    None => Stream::Tcp(stream),
                };
                Ok((stream, Client::Address(address.ip())))
            }
            Door::Unix { listener, .. } => {
                let (stream, _) = listener.accept().await?;
                Ok((Stream::Unix(stream), Client::Socket))
            }
        }
    }
}

/// The file of a socket; it is removed when we are done, if it is ours still.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if inode(&self.path).is_ok_and(|inode| inode == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn inode(path: &Path) -> std::io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    std::fs::symlink_metadata(path).map(|metadata| metadata.ino())
}

/// Opens the port.
pub(super) async fn port(
    address: SocketAddr,
    changeable: &Arc<Changeable>,
) -> Result<(Door, SocketAddr), ListenError> {
    let fail = |cause| ListenError::Port { address, cause };
    let listener = TcpListener::bind(address).await.map_err(fail)?;
    let address = listener.local_addr().map_err(fail)?;
    Ok((Door::Tcp(listener, Arc::clone(changeable)), address))
}

/// Opens the socket, if there is to be one.
pub(super) fn socket(api: &Api, state_dir: &Path) -> Result<Option<Door>, ListenError> {
    let path = match &api.socket {
        ApiSocket::Off => return Ok(None),
        ApiSocket::At(path) => path.clone(),
        ApiSocket::InStateDir => state_dir.join(SOCKET_FILE),
    };
    let group = match api.socket_group.as_str() {
        "" => None,
        name => Some(group(name)?),
    };
    let opened = open_socket(&path, group);
    let (listener, file) = match opened {
        Ok(opened) => opened,
        // Nobody has asked for it by name, and the port is open.
        Err(cause)
            if cause.kind() == ErrorKind::InvalidInput && api.socket == ApiSocket::InStateDir =>
        {
            tracing::warn!(
                "api.socket: {} is too long a path for a Unix socket, so there is none; name a shorter one",
                path.display()
            );
            return Ok(None);
        }
        Err(cause) => return Err(ListenError::Socket { path, cause }),
    };
    Ok(Some(Door::Unix {
        listener,
        _file: file,
    }))
}

fn open_socket(path: &Path, group: Option<Gid>) -> std::io::Result<(UnixListener, SocketFile)> {
    make_room(path)?;
    let closed = closed_folder(path.parent().unwrap_or(Path::new("/")))?;
    let opened = open_within(&closed, path, group);
    // Nothing but what was made here: others may have put something beside it.
    let _ = std::fs::remove_file(closed.join(DRAFT));
    let _ = std::fs::remove_dir(&closed);
    opened
}

/// A new folder in `folder` that only we can enter. Its name is short, because the length of a
/// socket's path is bounded, and nobody's: what has it already stays as it is.
fn closed_folder(folder: &Path) -> std::io::Result<PathBuf> {
    let mut taken = None;
    for number in 0..CLOSED_FOLDERS_MAX {
        let closed = folder.join(format!(".api{number}"));
        match rustix::fs::mkdir(&closed, Mode::RWXU) {
            Err(Errno::EXIST) => taken = Some(Errno::EXIST),
            made => return Ok(made.map(|()| closed)?),
        }
    }
    Err(taken.unwrap_or(Errno::EXIST).into())
}

fn open_within(
    closed: &Path,
    path: &Path,
    group: Option<Gid>,
) -> std::io::Result<(UnixListener, SocketFile)> {
    let draft = closed.join(DRAFT);
    // What is not known before: whether the final path is short enough, too.
    std::os::unix::net::SocketAddr::from_pathname(path)?;
    let listener = UnixListener::bind(&draft)?;
    let mode = match group {
        Some(group) => {
            rustix::fs::chown(&draft, None, Some(group))?;
            0o660
        }
        None => 0o600,
    };
    std::fs::set_permissions(&draft, Permissions::from_mode(mode))?;
    let file = SocketFile {
        path: path.to_owned(),
        inode: inode(&draft)?,
    };
    std::fs::rename(&draft, path)?;
    Ok((listener, file))
}

/// Sees to it that what is in the way, if something is, is a socket that nobody listens on.
fn make_room(path: &Path) -> std::io::Result<()> {
    let metadata = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !metadata.file_type().is_socket() {
        let message = "something that is no socket is there; remove it, or name another path";
        return Err(Error::new(ErrorKind::AlreadyExists, message));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
        Err(error) => Err(error),
        Ok(_) => {
            let message = "another program listens there; is a server running already?";
            Err(Error::new(ErrorKind::AddrInUse, message))
        }
    }
}

/// A group by its number or its name.
fn group(name: &str) -> Result<Gid, ListenError> {
    let unknown = |cause: String| ListenError::Group {
        name: name.to_owned(),
        cause,
    };
    if let Ok(number) = name.parse::<u32>() {
        return Ok(Gid::from_raw(number));
    }
    let mut text = Vec::new();
    let read = File::open("/etc/group")
        .and_then(|file| file.take(GROUPS_BYTES_MAX).read_to_end(&mut text));
    read.map_err(|error| unknown(format!("/etc/group: {error}")))?;
    let text = String::from_utf8_lossy(&text);
    let number = text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let is_it = fields.next() == Some(name);
        is_it.then(|| fields.nth(1)?.parse::<u32>().ok()).flatten()
    });
    let number = number.ok_or_else(|| unknown("/etc/group has no such group".to_owned()))?;
    Ok(Gid::from_raw(number))
}

/// What makes the port's connections TLS, if they are to be.
pub(super) fn tls(api: &Api) -> Result<Option<Tls>, ListenError> {
    let (Some(cert), Some(key)) = (&api.tls_cert, &api.tls_key) else {
        return Ok(None);
    };
    let fail = |path: &Path| {
        let path = path.to_owned();
        move |cause: String| ListenError::Tls { path, cause }
    };
    let pem = pem(cert).map_err(|error| fail(cert)(error.to_string()))?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let chain = chain.map_err(|error| fail(cert)(error.to_string()))?;
    if chain.is_empty() {
        return Err(fail(cert)("it holds no certificate in PEM".to_owned()));
    }
    let pem = self::pem(key).map_err(|error| fail(key)(error.to_string()))?;
    let private = PrivateKeyDer::from_pem_slice(&pem);
    let private = private.map_err(|error| fail(key)(error.to_string()))?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| fail(cert)(error.to_string()))?
        .with_no_client_auth()
        .with_single_cert(chain, private);
    let mut config = config.map_err(|error| fail(cert)(error.to_string()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Some(Tls(TlsAcceptor::from(Arc::new(config)))))
}

fn pem(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut pem = Vec::new();
    let file = File::open(path)?;
    file.take(PEM_BYTES_MAX).read_to_end(&mut pem)?;
    Ok(pem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_others_have_beside_the_socket_stays_theirs() {
        let folder = tempfile::tempdir().unwrap();
        let theirs = folder.path().join(".api0/credentials");
        std::fs::create_dir(theirs.parent().unwrap()).unwrap();
        std::fs::write(&theirs, "secret").unwrap();
        let path = folder.path().join("a.sock");
        let (_listener, _file) = open_socket(&path, None).unwrap();
        assert_eq!(std::fs::read(&theirs).unwrap(), b"secret");
        assert!(UnixStream::connect(&path).await.is_ok());
        let entries = std::fs::read_dir(folder.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, [".api0", "a.sock"]);
    }

    #[tokio::test]
    async fn there_is_no_socket_where_all_names_are_taken() {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..CLOSED_FOLDERS_MAX {
            std::fs::create_dir(folder.path().join(format!(".api{number}"))).unwrap();
        }
        let opened = open_socket(&folder.path().join("a.sock"), None);
        assert_eq!(opened.unwrap_err().kind(), ErrorKind::AlreadyExists);
    }
}
