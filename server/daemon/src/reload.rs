//! Reads the configuration of a running `serve` again, beside everything else: the file and the
//! environment as at a start, and the files that they name. What is wrong with any of them changes
//! nothing.
//!
//! Limits: one reading at a time; who asks meanwhile has it read once more after it.
//! Does not: change anything of the server; see `server::reloading`.

use crate::automation::Wanted;
use crate::{keeping, settings};
use anyhow::{Context, anyhow};
use control::api::Access;
use control::config::{Change, Config, Environment};
use control::http::Renewal;
use engine::ip_filter::IpFilter;
use seedring_metrics::ControlCells;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::task::JoinHandle;
use torrents::Settings;

/// What the configuration is read from, and by whom.
#[derive(Clone)]
pub struct Origin {
    /// The file that the command line names.
    pub file: Option<PathBuf>,
    pub state_dir: PathBuf,
    pub keeps: bool,
    pub cells: Arc<ControlCells>,
}

/// A configuration that has been read again, with all that it names.
pub struct Fresh {
    /// The running one with what is live of the new one.
    pub config: Config,
    /// The keys that the new one says otherwise.
    pub changes: Vec<Change>,
    pub settings: Settings,
    pub http: Renewal,
    pub access: Access,
    pub automation: Wanted,
    pub ip_filter: Arc<IpFilter>,
}

/// The reading that is under way, if one is.
pub struct Readings {
    origin: Origin,
    reading: Option<JoinHandle<anyhow::Result<Fresh>>>,
    /// Whether somebody has asked since it began.
    again: bool,
}

impl Readings {
    pub fn new(origin: Origin) -> Readings {
        Readings {
            origin,
            reading: None,
            again: false,
        }
    }

    /// Reads it again, for a server that runs with `running`.
    pub fn begin(&mut self, running: &Config) {
        if self.reading.is_some() {
            self.again = true;
            return;
        }
        let (origin, running) = (self.origin.clone(), running.clone());
        let read = move || read(&origin, running, &Environment::of_process());
        self.reading = Some(tokio::task::spawn_blocking(read));
    }

    /// What has been read, when it is; never, if nothing is.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub async fn next(&mut self) -> anyhow::Result<Fresh> {
        let Some(reading) = &mut self.reading else {
            return std::future::pending().await;
        };
        let read = reading.await;
        self.reading = None;
        read.map_err(|error| anyhow!("reading the configuration ended early: {error}"))?
    }

    /// Whether it is to be read once more; asks once.
    pub fn is_asked_again(&mut self) -> bool {
        std::mem::take(&mut self.again)
    }
}

fn read(origin: &Origin, mut config: Config, environment: &Environment) -> anyhow::Result<Fresh> {
    let new = Config::load(origin.file.as_deref(), environment)?;
    let changes = config.renew(&new);
    Ok(Fresh {
        settings: keeping::settings(&config, origin.keeps, &origin.state_dir)?,
        http: Renewal::read(&config.api)?,
        access: Access::read(&config.api, &origin.state_dir)?,
        automation: Wanted::read(&config)?,
        // The last, because it shows in the metrics what it has read.
        ip_filter: settings::read_ip_filter(&config.peers.ip_filter, &origin.cells)
            .context("peers.ip_filter")?,
        config,
        changes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use seedring_metrics::Registry;
    use std::path::Path;

    fn origin(folder: &Path) -> Origin {
        Origin {
            file: Some(folder.join("seedring.toml")),
            state_dir: folder.to_owned(),
            keeps: true,
            cells: Registry::new(0).control(),
        }
    }

    fn nobody() -> Environment {
        Environment::of::<String, String>([])
    }

    #[test]
    fn what_is_live_is_taken_and_all_that_is_named_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let origin = origin(folder.path());
        std::fs::write(folder.path().join("list"), "192.0.2.0/24\n").unwrap();
        let text = "[peers]\nport = 1\nip_filter = [\"list\"]\n[library]\ndownloads_max = 7\n";
        std::fs::write(folder.path().join("seedring.toml"), text).unwrap();
        let fresh = read(&origin, Config::default(), &nobody()).unwrap();
        let changed: Vec<_> = fresh.changes.iter().map(|change| change.key).collect();
        assert_eq!(changed, ["port", "ip_filter", "downloads_max"]);
        assert_eq!(fresh.config.peers.port, Config::default().peers.port);
        assert_eq!(fresh.settings.downloads_max, 7);
        assert_eq!(fresh.ip_filter.ranges(), 1);
    }

    /// Each of the files that a start reads is read, and none that is wrong is passed over.
    #[test]
    fn what_would_stop_a_start_stops_a_reload() {
        let folder = tempfile::tempdir().unwrap();
        let origin = origin(folder.path());
        let pem = folder.path().join("pem");
        std::fs::write(&pem, "no PEM").unwrap();
        for (text, expected) in [
            ("[limits]\nupload_rate = \"fast\"\n", "seedring.toml:2"),
            (
                "[api]\ntls_cert = \"pem\"\ntls_key = \"pem\"\n",
                "api.tls_cert",
            ),
            ("[peers]\nip_filter = [\"pem\"]\n", "peers.ip_filter"),
        ] {
            std::fs::write(folder.path().join("seedring.toml"), text).unwrap();
            let refused = read(&origin, Config::default(), &nobody()).err().unwrap();
            assert!(format!("{refused:#}").contains(expected), "{refused:#}");
        }
        std::fs::write(folder.path().join("seedring.toml"), "").unwrap();
        assert!(read(&origin, Config::default(), &nobody()).is_ok());
        std::fs::write(folder.path().join("api-token"), "short").unwrap();
        assert!(read(&origin, Config::default(), &nobody()).is_err());
    }
}
