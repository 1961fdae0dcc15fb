//! How a command fails: what the user reads on stderr, and the exit code that scripts read.

use std::process::ExitCode;

/// Why a command ended without success.
#[derive(Debug)]
pub enum Failure {
    /// The work could not be done. Exit code 1.
    Failed(anyhow::Error),
    /// The command line or the configuration is wrong; nothing was started. Exit code 2.
    Usage(anyhow::Error),
    /// The kernel or the container refuses io_uring. Exit code 3.
    RingRefused(anyhow::Error),
}

impl Failure {
    /// Prints one line on stderr and returns the exit code.
    pub fn report(&self) -> ExitCode {
        let (error, code) = match self {
            Failure::Failed(error) => (error, 1),
            Failure::Usage(error) => (error, 2),
            Failure::RingRefused(error) => (error, 3),
        };
        eprintln!("seedring: {error:#}");
        ExitCode::from(code)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Failure::Failed(error)
    }
}
