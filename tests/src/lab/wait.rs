//! Waiting for a condition, never for a time.

use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(10);

/// Asks `probe` every 10 ms until it has an answer; `None` once `limit` has passed.
pub fn poll_until<T>(limit: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = probe() {
            return Some(answer);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(POLL);
    }
}

/// As [`poll_until`], for a condition that has to come true.
///
/// # Panics
/// Once `limit` has passed; the message names `what` was waited for.
pub fn wait_until<T>(what: &str, limit: Duration, probe: impl FnMut() -> Option<T>) -> T {
    poll_until(limit, probe).unwrap_or_else(|| panic!("not within {limit:?}: {what}"))
}
