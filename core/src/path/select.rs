//! Which path carries the data.

use core::fmt;
use core::time::Duration;

use super::{FourTuple, PathSet, PathState};
use crate::time::Instant;

/// Why the preferred path changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SwitchReason {
    /// There was none before.
    First,
    /// The former path stopped carrying what was sent on it.
    PathLost,
    /// Another path is faster by more than the hysteresis.
    Faster,
}

impl SwitchReason {
    /// The name used in reports.
    pub const fn name(self) -> &'static str {
        match self {
            SwitchReason::First => "first_path",
            SwitchReason::PathLost => "path_lost",
            SwitchReason::Faster => "faster_path",
        }
    }
}

impl fmt::Display for SwitchReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A path is faster only when it beats the preferred one by a fifth and by this much, so that noise moves nothing.
const HYSTERESIS: Duration = Duration::from_millis(2);

/// A path is switched to only on a proof that is at most this old; an older one is probed first.
const PROOF_LIFETIME: Duration = Duration::from_secs(5);

/// Chooses among the usable paths and, when the choice changes, makes it and tells from where to where and why.
pub(super) fn reselect(set: &mut PathSet, now: Instant) -> Option<(Option<FourTuple>, FourTuple, SwitchReason)> {
    let current = set.preferred().map(|(slot, path)| (slot, path.state, path.rtt.smoothed(), path.addresses));
    let best = set
        .iter()
        .filter(|(slot, path)| {
            let proven_lately = path.last_proof.is_some_and(|proof| now.since(proof) <= PROOF_LIFETIME);
            path.state == PathState::Usable && (proven_lately || Some(*slot) == set.preferred_slot())
        })
        .min_by_key(|(slot, path)| (path.rtt.smoothed().unwrap_or(Duration::MAX), *slot))
        .map(|(slot, path)| (slot, path.rtt.smoothed(), path.addresses));
    let (slot, best_rtt, to) = best?;
    let (from, reason) = match current {
        None => (None, SwitchReason::First),
        Some((current_slot, ..)) if current_slot == slot => return None,
        Some((_, PathState::Usable, Some(rtt), from)) => {
            let best_rtt = best_rtt?;
            if best_rtt + HYSTERESIS > rtt || best_rtt * 5 > rtt * 4 {
                return None;
            }
            (Some(from), SwitchReason::Faster)
        }
        Some((_, PathState::Usable, None, _)) => return None,
        Some((.., from)) => (Some(from), SwitchReason::PathLost),
    };
    set.set_preferred(Some(slot));
    Some((from, to, reason))
}
