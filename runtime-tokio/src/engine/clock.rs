//! The node's time: nanoseconds since the engine started, those that the machine slept included.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use vine_core::{Instant, UnixTime};

use crate::host::sleep::boot_time;

/// A monotonic clock with an origin of its own. It counts sleep: after an hour of it keys are an hour older, and a NAT has
/// forgotten what it knew.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: Duration,
}

impl Clock {
    pub(crate) fn start() -> Clock {
        Clock { origin: boot_time() }
    }

    pub(crate) fn now(&self) -> Instant {
        Instant::ORIGIN + boot_time().saturating_sub(self.origin)
    }

    /// When a tokio timer has to fire for `deadline`, and an hour from now at the latest: tokio cannot hold "never". Its
    /// timers stand still while the machine sleeps; whoever set one is to set it anew after that.
    pub(crate) fn timer(&self, deadline: Instant) -> tokio::time::Instant {
        const LATEST: Duration = Duration::from_secs(3600);
        tokio::time::Instant::now() + deadline.since(self.now()).min(LATEST)
    }
}

/// The wall clock. Before 1970 it is 1970: the node works with any clock.
pub(crate) fn unix_time() -> UnixTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixTime(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
