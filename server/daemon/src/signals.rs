//! The signals that end a command that runs until it is told to stop, and the one that has it read
//! its configuration again.

use crate::failure::Failure;
use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM and SIGINT. A second one ends the process at once.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    exit_code: i32,
}

/// SIGHUP, for a server that reads its configuration again. Nobody who closes a terminal means that, so
/// only a server without one listens.
pub struct Reloads(Option<Signal>);

impl Reloads {
    /// Listens from now on, if `listens`; else SIGHUP ends the process, as ever.
    pub fn new(listens: bool) -> Result<Self, Failure> {
        let listen = || signal(SignalKind::hangup()).context("cannot listen for signals");
        Ok(Reloads(listens.then(listen).transpose()?))
    }

    /// Waits for the next one.
    pub async fn next(&mut self) {
        match &mut self.0 {
            Some(hangup) => {
                hangup.recv().await;
            }
            None => std::future::pending().await,
        }
    }
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
