//! What the program does with the core.

use alloc::vec::Vec;
use core::time::Duration;
use vine_core::time::Instant;

/// Drives the core a little; returns the exit status, 0 where everything was as expected.
pub(crate) fn run() -> i32 {
    let ticks: Vec<Instant> = (0..4).map(|n| Instant::ORIGIN + Duration::from_secs(n)).collect();
    match ticks.last() {
        Some(last) if last.since(Instant::ORIGIN) == Duration::from_secs(3) => 0,
        _ => 1,
    }
}
