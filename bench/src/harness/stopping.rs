//! Ctrl-C and SIGTERM: noticed by whoever waits, so that programs are stopped and folders removed
//! on the way out.
//!
//! A second signal ends the process at once; the kernel then kills the programs that it started
//! ([`super::children`]), though not what those started, and folders stay.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// How often a sleeper looks.
const LOOK: Duration = Duration::from_millis(50);

/// The user wants an end.
#[derive(Debug, thiserror::Error)]
#[error("interrupted: nothing is reported")]
pub struct Interrupted;

/// Whether the user wants an end. Clones tell the same.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Notices signals from now on.
    pub fn on_signals() -> io::Result<Self> {
        let stop = Self::default();
        for signal in [SIGINT, SIGTERM] {
            // In this order: the first signal finds the flag down, the second one finds it up.
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&stop.0))?;
            flag::register(signal, Arc::clone(&stop.0))?;
        }
        Ok(stop)
    }

    /// An error once a signal has come.
    pub fn check(&self) -> Result<(), Interrupted> {
        if self.0.load(Ordering::Relaxed) {
            Err(Interrupted)
        } else {
            Ok(())
        }
    }

    /// Sleeps for `duration`, or until a signal comes.
    pub fn sleep(&self, duration: Duration) -> Result<(), Interrupted> {
        let mut left = duration;
        while !left.is_zero() {
            self.check()?;
            let nap = left.min(LOOK);
            std::thread::sleep(nap);
            left -= nap;
        }
        self.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_raised_flag_ends_a_sleep() {
        let stop = Stop::default();
        assert!(stop.sleep(Duration::from_millis(1)).is_ok());
        stop.0.store(true, Ordering::Relaxed);
        assert!(stop.sleep(Duration::from_secs(3_600)).is_err());
        assert!(stop.check().is_err());
    }
}
