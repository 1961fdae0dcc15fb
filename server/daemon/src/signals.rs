//! The signals that end a command that runs until it is told to stop.

use crate::failure::Failure;
use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM and SIGINT. A second one ends the process at once.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Listens from now on.
    pub fn new() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Signals {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    async fn first(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Waits for the first one.
    pub async fn wait(&mut self) {
        self.first().await;
        tokio::spawn(async {
            let Ok(mut again) = Signals::new() else {
                return;
            };
            again.first().await;
            eprintln!("seedring: stopped at once");
            std::process::exit(1);
        });
    }
}
