//! The start and the end of whatever runs a data plane beside it: logging, io_uring tried, the threads of the control
//! plane.

use crate::failure::Failure;
use anyhow::Context;
use control::config::{Config, Environment};
use seedring_io::{plane, refusal};
use seedring_metrics::Registry;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// Threads of the control plane: one waits for the disk or the network while the other goes on.
const THREADS: usize = 2;

/// How long the shards may take to close their connections when stopping.
pub const PLANE_STOP: Duration = Duration::from_secs(4);

/// Runs `main` on the control plane's threads, with cells for as many shards as `config` means.
///
/// # Errors
///
/// Logging cannot be set up, io_uring is refused, there are no threads; after that what `main` answers.
pub fn run<Main, Answer>(
    config: &Config,
    main: impl FnOnce(Arc<Registry>) -> Main,
) -> Result<Answer, Failure>
where
    Main: Future<Output = Result<Answer, Failure>>,
{
    let shards = plane::shard_count(usize::from(config.shards.count));
    let registry = Arc::new(Registry::new(shards));
    let environment = Environment::of_process();
    let _log = control::logging::init(&config.log, &environment, &registry.control())
        .map_err(|error| Failure::Usage(error.into()))?;
    refusal::check().map_err(|error| Failure::RingRefused(error.into()))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .thread_name("control")
        .enable_all()
        .build()
        .context("cannot start the threads of the control plane")?;
    let result = runtime.block_on(main(registry));
    // A hashing thread may still be at work; it has been told to stop, and nothing waits for it.
    runtime.shutdown_timeout(Duration::from_millis(200));
    result
}
