//! The DHT of this process, as its configuration has it.

use crate::settings;
use control::config::Config;
use control::dht::{Dht, DhtHandle};
use seedring_io::plane::Plane;
use seedring_metrics::ControlCells;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

/// Starts it, if it is on, and has peers told of it (BEP 5). What keeps it from starting is logged
/// and no reason to serve nobody: peers come by trackers, too.
pub fn start(
    config: &Config,
    state_dir: &Path,
    plane: &Plane,
    read_only: bool,
    cells: &Arc<ControlCells>,
) -> Option<DhtHandle> {
    if !config.dht.enabled {
        return None;
    }
    if config.announce.proxy.url().is_some() {
        tracing::warn!("without the DHT: announce.proxy is set, and it would go past that");
        return None;
    }
    let peer_port = plane.addresses().first().map_or(0, SocketAddr::port);
    let started = settings::dht(config, state_dir, peer_port, read_only)
        .map_err(|error| format!("no random bytes: {error}"))
        .and_then(|settings| {
            Dht::start(&settings, peer_port, Arc::clone(cells)).map_err(|error| error.to_string())
        });
    match started {
        Ok(dht) => {
            // Nobody is told of a node that answers nobody.
            let answers = !read_only && !config.dht.read_only;
            let told = dht.addresses().iter().filter(|_| answers);
            let mut ports = [None, None];
            for address in told {
                ports[usize::from(address.is_ipv6())] = Some(address.port());
            }
            plane.open_dht(ports);
            Some(dht)
        }
        Err(error) => {
            tracing::warn!(%error, "without the DHT");
            None
        }
    }
}
