//! A broken rule as an error, and the shortest way to it.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    /// Whether a panic of this thread is an answer, and not worth a word of its own.
    static EXPECTING_PANIC: Cell<bool> = const { Cell::new(false) };
}

/// Runs it; a panic is an error.
///
/// # Errors
/// What the panic says.
pub(crate) fn caught<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = take_hook();
        set_hook(Box::new(move |panic| {
            if !EXPECTING_PANIC.get() {
                usual(panic);
            }
        }));
    });
    EXPECTING_PANIC.set(true);
    let outcome = catch_unwind(AssertUnwindSafe(run));
    EXPECTING_PANIC.set(false);
    outcome.map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words").to_owned()
    })
}

/// A shorter list of `ops` that `fails` as well, found by leaving out ever smaller parts, in at most `budget` runs.
pub(crate) fn shrunk<T: Clone>(ops: &[T], mut budget: usize, fails: impl Fn(&[T]) -> bool) -> Vec<T> {
    let mut best = ops.to_vec();
    let mut size = best.len().div_ceil(2);
    while size > 0 && budget > 0 {
        let mut at = 0;
        while at < best.len() && budget > 0 {
            let mut shorter = best.clone();
            shorter.drain(at..(at + size).min(shorter.len()));
            budget -= 1;
            if fails(&shorter) {
                best = shorter;
            } else {
                at += size;
            }
        }
        size = if size == 1 { 0 } else { size.div_ceil(2) };
    }
    best
}
