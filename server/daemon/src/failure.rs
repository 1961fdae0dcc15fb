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
    /// The user has stopped it before its end, and has been told so. Exit code 130, as shells have it.
    Interrupted,
}

/// The exit code of a command that the user has stopped before its end.
pub const INTERRUPTED: u8 = 130;

impl Failure {
    /// Prints one line on stderr, if there is something to say, and returns the exit code.
    pub fn report(&self) -> ExitCode {
        let (error, code) = match self {
            Failure::Failed(error) => (error, 1),
            Failure::Usage(error) => (error, 2),
            Failure::RingRefused(error) => (error, 3),
            Failure::Interrupted => return ExitCode::from(INTERRUPTED),
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
