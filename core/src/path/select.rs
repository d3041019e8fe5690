//! Which path carries the data.

use core::fmt;
use core::time::Duration;

use super::{Path, PathClass, PathSet, PathSlot, PathState, Via};
use crate::time::Instant;

/// Why the preferred path changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SwitchReason {
    /// There was none before.
    First,
    /// The former path stopped carrying what was sent on it.
    PathLost,
    /// Another path of the same class is faster by more than the hysteresis.
    Faster,
    /// A path of a better class works (again).
    Upgrade,
    /// The former path loses too much of what is sent on it, and another does not.
    Lossy,
    /// The NAT before the peer has given it another port, by which it speaks since.
    Moved,
}

impl SwitchReason {
    /// The name used in reports.
    pub const fn name(self) -> &'static str {
        match self {
            SwitchReason::First => "first_path",
            SwitchReason::PathLost => "path_lost",
            SwitchReason::Faster => "faster_path",
            SwitchReason::Upgrade => "better_path",
            SwitchReason::Lossy => "lossy_path",
            SwitchReason::Moved => "peer_moved",
        }
    }
}

impl fmt::Display for SwitchReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A change of the preferred path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Switch {
    /// The former one, with its class.
    pub from: Option<(Via, PathClass)>,
    /// The new one.
    pub to: (Via, PathClass),
    /// Why.
    pub why: SwitchReason,
    /// Where the former one was lost: the Pings that went by it since it last answered.
    pub unanswered: u16,
}

/// A path is faster only when it beats the preferred one by a fifth and by this much, so that noise moves nothing.
const HYSTERESIS: Duration = Duration::from_millis(2);

/// A path is switched to only on a proof that is at most this old; an older one is probed first.
const PROOF_LIFETIME: Duration = Duration::from_secs(5);

/// What paths are compared by: the lesser is the better.
pub(super) fn rank(path: &Path) -> (PathClass, Duration) {
    (path.class, path.rtt.smoothed().unwrap_or(Duration::MAX))
}

/// Chooses among the usable paths and, when the choice changes, makes it and tells from where to where and why. `token` is
/// drawn for the search for the former path.
pub(super) fn reselect(set: &mut PathSet, now: Instant, token: impl FnOnce() -> u64) -> Option<Switch> {
    let (slot, why) = choose(set, now)?;
    let best = set.get(slot)?;
    let held = set.preferred().map(|(_, held)| held);
    let switch = Switch {
        from: held.map(|held| (held.via, held.class)),
        to: (best.via, best.class),
        why,
        unanswered: held.filter(|_| why == SwitchReason::PathLost).map_or(0, |held| held.unanswered),
    };
    set.prefer(now, slot, matches!(why, SwitchReason::PathLost | SwitchReason::Lossy), token);
    Some(switch)
}

/// The path that takes the place of the preferred one, if one does, and why.
fn choose(set: &PathSet, now: Instant) -> Option<(PathSlot, SwitchReason)> {
    let current = set.preferred_slot();
    let usable = |path: &Path| path.state == PathState::Usable;
    let proven_lately = |path: &Path| path.last_proof.is_some_and(|proof| now.since(proof) <= PROOF_LIFETIME);
    // The held one was asked when it became suspect, and so were the others: only an answer since then counts.
    let suspect_since = set.preferred().filter(|(_, held)| !usable(held)).and_then(|(_, held)| held.suspect_since);
    let answered = |path: &Path| match suspect_since {
        Some(since) => path.last_proof >= Some(since),
        None => proven_lately(path),
    };
    if let Some(slot) = set.successor().filter(|slot| set.get(*slot).is_some_and(answered)) {
        return Some((slot, SwitchReason::Moved));
    }
    let is_other = |slot: PathSlot| Some(slot) != current;
    let is_left = |path: &Path| set.preferred().is_some_and(|(_, held)| usable(held) && path.is_left_for(held));
    let eligible =
        set.iter().filter(|(slot, path)| usable(path) && is_other(*slot) && answered(path) && !is_left(path));
    let (slot, best) = eligible.min_by_key(|(slot, path)| (path.loses_too_much(now), rank(path), *slot))?;
    let why = match set.preferred() {
        None => SwitchReason::First,
        Some((_, held)) if usable(held) => beats(now, best, held)?,
        Some((_, held)) if held.grace_end().is_some_and(|end| now < end) => return None,
        Some(_) => SwitchReason::PathLost,
    };
    Some((slot, why))
}

/// Whether `best` is so much better than a preferred path that works that data should move.
fn beats(now: Instant, best: &Path, held: &Path) -> Option<SwitchReason> {
    match (best.loses_too_much(now), held.loses_too_much(now)) {
        (false, true) => return Some(SwitchReason::Lossy),
        (true, false) => return None,
        _ => {}
    }
    if best.class < held.class {
        return Some(SwitchReason::Upgrade);
    }
    let (best_rtt, rtt) = (best.rtt.smoothed()?, held.rtt.smoothed()?);
    let is_faster = best.class == held.class && best_rtt + HYSTERESIS <= rtt && best_rtt * 5 <= rtt * 4;
    is_faster.then_some(SwitchReason::Faster)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overlay::PeerIndex;
    use crate::path::{FourTuple, Proof, SocketId};

    #[test]
    fn a_better_class_has_to_be_proven_lately() {
        let relay = Via::Relay(PeerIndex(9));
        let direct = Via::Direct(FourTuple { socket: SocketId(0), local: None, remote: ([192, 0, 2, 1], 1).into() });
        let (mut set, start) = (PathSet::default(), Instant::from_millis(1_000));
        let [relayed, better] =
            [(relay, PathClass::Relay), (direct, PathClass::Direct)].map(|(via, class)| set.insert(start, via, class));
        set.prove(start, relayed, Proof::Handshake);
        assert!(set.reselect(start, || 0).is_some());
        set.prove(start, better, Proof::Handshake);
        let late = start + PROOF_LIFETIME + Duration::from_millis(1);
        assert_eq!(set.reselect(late, || 0), None);
        set.prove(late, better, Proof::Pong(Duration::from_millis(10)));
        assert_eq!(
            set.reselect(late, || 0).map(|switch| (switch.to.0, switch.why)),
            Some((direct, SwitchReason::Upgrade))
        );
    }
}
