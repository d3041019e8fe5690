//! Runs that have nothing to do with each other, on all processors.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// Calls `run` for every number, on as many threads as there are processors.
///
/// # Panics
/// Where `run` does, when the others have ended.
pub fn in_parallel(numbers: Range<u64>, run: impl Fn(u64) + Sync) {
    let next = AtomicU64::new(numbers.start);
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= numbers.end {
                        return;
                    }
                    run(number);
                }
            });
        }
    });
}
