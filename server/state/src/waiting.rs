//! Waiting for a future on a plain thread: what the writer and blocking callers do, without a
//! runtime.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Instant;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for `future`.
pub(crate) fn wait<F: Future>(future: F) -> F::Output {
    drive(future, || {
        thread::park();
        Some(())
    })
    .unwrap_or_else(|| unreachable!("parking has no end of its own"))
}

/// Waits for `future` until `deadline`; none if it has not come by then.
pub(crate) fn wait_until<F: Future>(future: F, deadline: Instant) -> Option<F::Output> {
    drive(future, || {
        let left = deadline.saturating_duration_since(Instant::now());
        thread::park_timeout(left);
        (!left.is_zero()).then_some(())
    })
}

/// Polls `future`, and parks between as long as `park` says so.
fn drive<F: Future>(future: F, mut park: impl FnMut() -> Option<()>) -> Option<F::Output> {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return Some(output);
        }
        park()?;
    }
}
