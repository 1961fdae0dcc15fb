//! The start and the end of whatever runs a data plane beside it: logging, io_uring tried, the
//! threads of the control plane.

use crate::budget::Budget;
use crate::failure::Failure;
use crate::settings;
use anyhow::Context;
use control::announce::{AnnounceHandle, Announcer, Identity};
use control::config::{Config, Environment};
use control::logging::LogHandle;
use engine::ip_filter::IpFilter;
use proto::ids::PeerId;
use seedring_io::plane::{Event, Plane, StartError};
use seedring_io::{plane, refusal};
use seedring_metrics::{ControlCells, Registry};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Threads of the control plane: one waits for the disk or the network while the other goes on.
const THREADS: usize = 2;

/// How long the shards may take to close their connections when stopping.
pub const PLANE_STOP: Duration = Duration::from_secs(4);

/// Starts the data plane.
///
/// # Errors
///
/// io_uring is refused, or a port is taken.
pub fn start_plane(
    config: &Config,
    budget: &Budget,
    peer_id: PeerId,
    registry: &Registry,
    ip_filter: Arc<IpFilter>,
) -> Result<(Plane, mpsc::UnboundedReceiver<Event>), Failure> {
    let config = settings::plane(config, budget, peer_id, ip_filter);
    Plane::start(config, registry).map_err(|error| match error {
        StartError::Refused(refusal) => Failure::RingRefused(refusal.into()),
        other => Failure::Failed(other.into()),
    })
}

/// Starts what announces to trackers where peers reach us, if that is wanted.
///
/// # Errors
///
/// There are no random bytes, or no threads.
pub fn start_announcer(
    config: &Config,
    peer_id: PeerId,
    port: u16,
    cells: &Arc<ControlCells>,
) -> Result<Option<AnnounceHandle>, Failure> {
    if !config.announce.enabled {
        return Ok(None);
    }
    let key = settings::announce_key().context("no random bytes")?;
    let identity = Identity { peer_id, key, port };
    let announcer = Announcer::start(&settings::announce(config)?, identity, Arc::clone(cells));
    Ok(Some(announcer.context("cannot start the announces")?))
}

/// Runs `main` on the control plane's threads, with cells for as many shards as `config` means.
/// `log` is what is logged if the user has not said otherwise.
///
/// # Errors
///
/// Logging cannot be set up, io_uring is refused, there are no threads; after that what `main`
/// answers.
pub fn run<Main, Answer>(
    config: &Config,
    log: Option<&str>,
    main: impl FnOnce(Arc<Registry>, LogHandle) -> Main,
) -> Result<Answer, Failure>
where
    Main: Future<Output = Result<Answer, Failure>>,
{
    let shards = plane::shard_count(usize::from(config.shards.count));
    let registry = Arc::new(Registry::new(shards));
    let environment = Environment::of_process();
    let (_log, handle) =
        control::logging::init(&config.log, log, &environment, &registry.control())
            .map_err(|error| Failure::Usage(error.into()))?;
    refusal::check().map_err(|error| Failure::RingRefused(error.into()))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .thread_name("control")
        .enable_all()
        .build()
        .context("cannot start the threads of the control plane")?;
    let result = runtime.block_on(main(registry, handle));
    // A hashing thread may still be at work; it has been told to stop, and nothing waits for it.
    runtime.shutdown_timeout(Duration::from_millis(200));
    result
}
