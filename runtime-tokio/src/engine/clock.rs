//! The node's time: nanoseconds since the engine started.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use vine_core::{Instant, UnixTime};

/// A monotonic clock with an origin of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: std::time::Instant,
}

impl Clock {
    pub(crate) fn start() -> Clock {
        Clock { origin: std::time::Instant::now() }
    }

    pub(crate) fn now(&self) -> Instant {
        Instant::ORIGIN + self.origin.elapsed()
    }

    /// When a tokio timer has to fire for `deadline`, and an hour from now at the latest: tokio cannot hold "never".
    pub(crate) fn timer(&self, deadline: Instant) -> tokio::time::Instant {
        const LATEST: Duration = Duration::from_secs(3600);
        let now = std::time::Instant::now();
        let wait = deadline.since(Instant::ORIGIN + now.duration_since(self.origin)).min(LATEST);
        (now + wait).into()
    }
}

/// The wall clock. Before 1970 it is 1970: the node works with any clock.
pub(crate) fn unix_time() -> UnixTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixTime(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
