//! Certificates for servers of the tests, made by OpenSSL in a folder of their own.

use crate::process::run_ok;
use crate::skip::{Skip, program};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// An authority, and a key for whatever it vouches for.
#[derive(Debug)]
pub struct Authority {
    folder: TempDir,
    openssl: PathBuf,
}

impl Authority {
    /// Makes it; it is trusted for two days by who is told to.
    pub fn new() -> Result<Self, Skip> {
        let openssl = program("openssl", "openssl")?;
        let folder = TempDir::new().unwrap();
        let authority = Self { folder, openssl };
        authority.self_signed("ca", &["basicConstraints=critical,CA:TRUE"]);
        let request = "req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=tracker \
                       -keyout leaf.key -out leaf.csr";
        authority.openssl(request);
        Ok(authority)
    }

    /// The authority's own certificate.
    pub fn certificate(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A certificate for a name (`IP:127.0.0.1`, `DNS:host`) of so many days from now, which may be in the past,
    /// and its key.
    pub fn vouch(&self, name: &str, days: i32) -> (PathBuf, PathBuf) {
        let extensions = self.folder.path().join("extensions");
        std::fs::write(extensions, format!("subjectAltName={name}\n")).unwrap();
        let file = format!("{}_{days}.pem", name.replace(':', "_"));
        self.openssl(&format!(
            "x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days {days} -extfile extensions \
             -out {file}"
        ));
        let folder = self.folder.path();
        (folder.join(file), folder.join("leaf.key"))
    }

    /// A certificate that only vouches for itself, and its key.
    pub fn self_signed(&self, file: &str, extensions: &[&str]) -> (PathBuf, PathBuf) {
        let extensions = extensions.join(" -addext ");
        self.openssl(&format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN={file} \
             -addext {extensions} -keyout {file}.key -out {file}.pem"
        ));
        let path = |end: &str| self.folder.path().join(format!("{file}.{end}"));
        (path("pem"), path("key"))
    }

    fn openssl(&self, arguments: &str) {
        let mut command = Command::new(&self.openssl);
        command
            .args(arguments.split(' '))
            .current_dir(self.folder.path());
        run_ok("openssl", &command, Duration::from_secs(30));
    }
}
