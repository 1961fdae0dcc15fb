//! Panics of redb, which asserts some of what it finds in a file: they are caught where they can
//! come from, and told by who caught them, not by the panic hook.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    /// Whether a panic of this thread is told by who catches it.
    static CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// Does `work`; if it panics, why. What it was working on is not to be used after that.
pub(crate) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !CAUGHT.get() {
                before(info);
            }
        }));
    });
    let outer = CAUGHT.replace(true);
    let done = panic::catch_unwind(AssertUnwindSafe(work));
    CAUGHT.set(outer);
    done.map_err(|payload| {
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        format!("a panic: {}", text.unwrap_or("it does not say why"))
    })
}

#[cfg(test)]
mod tests {
    use super::caught;

    #[test]
    fn a_panic_is_told_with_its_reason() {
        assert_eq!(caught(|| 7), Ok(7));
        let number = 8;
        let panicked = caught(|| panic!("number {number}"));
        assert_eq!(panicked, Err::<(), _>("a panic: number 8".to_owned()));
        let panicked = caught(|| panic!("on purpose"));
        assert_eq!(panicked, Err::<(), _>("a panic: on purpose".to_owned()));
    }
}
