//! The signals that end a command that runs until it is told to stop.

use crate::failure::Failure;
use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM and SIGINT. A second one ends the process at once.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    exit_code: i32,
}

impl Signals {
    /// Listens from now on. `exit_code` is that of a process that a second signal ends.
    pub fn new(exit_code: i32) -> Result<Self, Failure> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Signals {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            exit_code,
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
        let exit_code = self.exit_code;
        // Now: the next one may come before the task has run.
        let Ok(mut again) = Signals::new(exit_code) else {
            return;
        };
        tokio::spawn(async move {
            again.first().await;
            eprintln!("seedring: stopped at once");
            std::process::exit(exit_code);
        });
    }
}
