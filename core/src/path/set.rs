//! The paths of one peer: their proof, their liveness and the probes that are due.

use core::net::IpAddr;
use core::time::Duration;

use heapless::Vec;

use super::{FourTuple, RttEstimator, SwitchReason};
use crate::time::Instant;

/// At most this many paths a peer; a new one displaces the least useful one that is not preferred.
pub const MAX_PATHS: usize = 8;

/// Probes sent on a path that answers none before the path is given up.
const PROBE_LIMIT: usize = 4;

/// First interval between probes of one burst; it doubles.
const PROBE_INTERVAL: Duration = Duration::from_millis(150);

/// A path whose smoothed RTT is measured anew this often while data is sent on it.
const RTT_INTERVAL: Duration = Duration::from_secs(5);

/// Shortest time without a receipt before a path is suspected (DESIGN section 5: failover).
const SUSPECT_FLOOR: Duration = Duration::from_millis(200);

/// Margin above the RTT: a receiver may hold a receipt for this long.
const RECEIPT_DELAY: Duration = Duration::from_millis(50);

/// Index of a path in its set. It names the path in Pings, and its data lane is the slot plus one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PathSlot(pub u8);

/// What is known of a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PathState {
    /// Heard of or heard from, not yet proven in both directions. Carries Pings only.
    Candidate,
    /// A Ping sent on it was answered.
    Usable,
    /// It was usable, but something sent on it has not been receipted in time.
    Suspect,
}

/// Something that was sent on a path and is not yet receipted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unproven {
    /// When the first of it was sent, or when the last receipt that covered a part of it came.
    pub since: Instant,
}

/// The evidence that made a path usable or kept it so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Proof {
    /// A Pong, with the round-trip time it shows.
    Pong(Duration),
    /// The handshake went out by this path and its answer came back by it (compare RFC 9000 section 8.1).
    Handshake,
    /// A receipt of data that was sent on this path.
    Receipt,
}

/// One burst of Pings on a path, until one is answered or the burst is given up. The n-th Ping carries `token + n`, so that
/// a Pong tells which one it answers.
#[derive(Clone, Copy, Debug)]
struct Probe {
    token: u64,
    sent_at: [Instant; PROBE_LIMIT],
    sent: usize,
    next: Instant,
}

impl Probe {
    /// When the Ping with `token` was sent, if it is one of this burst.
    fn sent_at(&self, token: u64) -> Option<Instant> {
        let index = usize::try_from(token.wrapping_sub(self.token)).ok()?;
        self.sent_at.get(..self.sent)?.get(index).copied()
    }
}

/// One path of a peer.
#[derive(Clone, Debug)]
pub struct Path {
    /// Its addresses.
    pub addresses: FourTuple,
    /// What is known of it.
    pub state: PathState,
    /// Its round-trip time.
    pub rtt: RttEstimator,
    /// The last evidence that what this node sends on it arrives.
    pub last_proof: Option<Instant>,
    /// Data sent on it without receipt.
    pub unproven: Option<Unproven>,
    /// The highest counter used on its lane under the current session, if any was.
    pub last_counter: Option<u64>,
    /// Last use by data of this node.
    pub last_data: Option<Instant>,
    created: Instant,
    probe: Option<Probe>,
    next_rtt: Instant,
}

impl Path {
    fn new(addresses: FourTuple, now: Instant) -> Path {
        Path {
            addresses,
            state: PathState::Candidate,
            rtt: RttEstimator::default(),
            last_proof: None,
            unproven: None,
            last_counter: None,
            last_data: None,
            created: now,
            probe: None,
            next_rtt: now,
        }
    }

    /// How long something may stay without receipt before the path is suspected.
    pub fn patience(&self) -> Duration {
        let srtt = self.rtt.smoothed().unwrap_or(Duration::from_millis(100));
        (srtt + self.rtt.variation() * 4 + RECEIPT_DELAY).max(SUSPECT_FLOOR)
    }

    /// Begins a burst of probes with `token`, unless one is running.
    fn start_probe(&mut self, now: Instant, token: u64) {
        if self.probe.is_none() {
            self.probe = Some(Probe { token, sent_at: [now; PROBE_LIMIT], sent: 0, next: now });
        }
    }

    fn next_deadline(&self) -> Instant {
        let probe = self.probe.map_or(Instant::FAR_FUTURE, |p| p.next);
        let liveness = match (self.state, self.unproven) {
            (PathState::Usable, Some(unproven)) => unproven.since + self.patience(),
            _ => Instant::FAR_FUTURE,
        };
        probe.min(liveness)
    }
}

/// A Ping that [`PathSet::poll_probe`] says is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DueProbe {
    /// The path to send it on.
    pub slot: PathSlot,
    /// The token that the Pong must echo.
    pub token: u64,
}

/// The paths of one peer.
#[derive(Clone, Debug, Default)]
pub struct PathSet {
    slots: Vec<Option<Path>, MAX_PATHS>,
    preferred: Option<PathSlot>,
}

impl PathSet {
    /// The path in a slot.
    pub fn get(&self, slot: PathSlot) -> Option<&Path> {
        self.slots.get(usize::from(slot.0))?.as_ref()
    }

    /// The path in a slot, to change.
    pub fn get_mut(&mut self, slot: PathSlot) -> Option<&mut Path> {
        self.slots.get_mut(usize::from(slot.0))?.as_mut()
    }

    /// Every path with its slot, in slot order.
    pub fn iter(&self) -> impl Iterator<Item = (PathSlot, &Path)> {
        self.slots.iter().zip(0u8..).filter_map(|(path, slot)| Some((PathSlot(slot), path.as_ref()?)))
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = (PathSlot, &mut Path)> {
        self.slots.iter_mut().zip(0u8..).filter_map(|(path, slot)| Some((PathSlot(slot), path.as_mut()?)))
    }

    /// The path that data goes by. It may be suspect; it is never a mere candidate.
    pub fn preferred(&self) -> Option<(PathSlot, &Path)> {
        let slot = self.preferred?;
        Some((slot, self.get(slot)?))
    }

    /// The slot of the path that data goes by.
    pub fn preferred_slot(&self) -> Option<PathSlot> {
        self.preferred
    }

    pub(super) fn set_preferred(&mut self, slot: Option<PathSlot>) {
        self.preferred = slot;
    }

    /// The path that a datagram belongs to.
    pub fn find(&self, arrival: &FourTuple) -> Option<PathSlot> {
        // The hot path asks for the same one again and again.
        if let Some((slot, path)) = self.preferred()
            && path.addresses.admits(arrival)
        {
            return Some(slot);
        }
        self.iter().find(|(_, path)| path.addresses.admits(arrival)).map(|(slot, _)| slot)
    }

    /// Notes that an authenticated datagram arrived by `arrival`, and returns its path. A new address becomes a candidate
    /// and is probed; it changes nothing about where this node sends. The preferred path is probed with it: a peer that
    /// speaks from a new address may have left the old one.
    pub fn note_arrival(&mut self, now: Instant, arrival: &FourTuple, mut token: impl FnMut() -> u64) -> PathSlot {
        if let Some(slot) = self.find(arrival) {
            if let Some(path) = self.get_mut(slot)
                && path.addresses.local.is_none()
            {
                path.addresses.local = arrival.local;
            }
            return slot;
        }
        let slot = self.insert(now, *arrival);
        self.probe(now, slot, token());
        if let Some(preferred) = self.preferred {
            self.probe(now, preferred, token());
        }
        slot
    }

    /// Adds a path as a candidate, or finds it. Where the set is full, the least useful path that is not preferred goes.
    pub fn insert(&mut self, now: Instant, addresses: FourTuple) -> PathSlot {
        if let Some(slot) = self.find(&addresses) {
            return slot;
        }
        let free = self.slots.iter().position(Option::is_none);
        let index = match free {
            Some(index) => index,
            None if self.slots.push(None).is_ok() => self.slots.len() - 1,
            None => self.least_useful(),
        };
        self.slots[index] = Some(Path::new(addresses, now));
        PathSlot(u8::try_from(index).expect("a path set has at most MAX_PATHS slots"))
    }

    /// The slot to displace: candidates before proven paths, the oldest first, never the preferred one.
    fn least_useful(&self) -> usize {
        let preferred = self.preferred;
        self.iter()
            .filter(|(slot, _)| Some(*slot) != preferred)
            .min_by_key(|(_, path)| (path.state != PathState::Candidate, path.last_proof.unwrap_or(path.created)))
            .map_or(0, |(slot, _)| usize::from(slot.0))
    }

    /// Starts a burst of probes on a path, unless one is running.
    pub fn probe(&mut self, now: Instant, slot: PathSlot, token: u64) {
        if let Some(path) = self.get_mut(slot) {
            path.start_probe(now, token);
        }
    }

    /// Starts a burst of probes on every path.
    pub fn probe_all(&mut self, now: Instant, mut token: impl FnMut() -> u64) {
        for (_, path) in self.iter_mut() {
            path.start_probe(now, token());
        }
    }

    /// The next Ping that is due at `now`. A path whose probes all went unanswered is given up, or, when it is the
    /// preferred one, becomes suspect: it is kept until something better is proven.
    pub fn poll_probe(&mut self, now: Instant) -> Option<DueProbe> {
        let preferred = self.preferred;
        for index in 0..self.slots.len() {
            let slot = PathSlot(index as u8);
            let Some(path) = self.slots[index].as_mut() else { continue };
            let Some(probe) = path.probe.as_mut().filter(|probe| probe.next <= now) else { continue };
            if probe.sent >= PROBE_LIMIT {
                path.probe = None;
                if Some(slot) == preferred {
                    path.state = PathState::Suspect;
                } else {
                    self.slots[index] = None;
                }
                continue;
            }
            let token = probe.token.wrapping_add(probe.sent as u64);
            probe.sent_at[probe.sent] = now;
            probe.next = now + PROBE_INTERVAL * (1 << probe.sent);
            probe.sent += 1;
            return Some(DueProbe { slot, token });
        }
        None
    }

    /// Takes in a Pong: proves the path `slot`, if a Ping of its present burst carried `token`. Returns the round-trip time
    /// without `held`, the time the peer says it held the answer.
    pub fn on_pong(&mut self, now: Instant, slot: PathSlot, token: u64, held: Duration) -> Option<Duration> {
        let path = self.get_mut(slot)?;
        let elapsed = now.since(path.probe.as_ref()?.sent_at(token)?);
        path.probe = None;
        // A peer that exaggerates may not make the path look faster than half of what was measured.
        let rtt = elapsed.saturating_sub(held.min(elapsed / 2));
        self.prove(now, slot, Proof::Pong(rtt));
        Some(rtt)
    }

    /// Records evidence that what this node sends on a path arrives.
    pub fn prove(&mut self, now: Instant, slot: PathSlot, proof: Proof) {
        let Some(path) = self.get_mut(slot) else { return };
        if let Proof::Pong(rtt) = proof {
            path.rtt.update(rtt);
        }
        path.state = PathState::Usable;
        path.last_proof = Some(now);
        path.unproven = None;
    }

    /// Takes in a receipt that covers the lane of `slot` up to `largest`, under the current session.
    pub fn on_receipt(&mut self, now: Instant, slot: PathSlot, largest: u64) {
        let Some(path) = self.get_mut(slot) else { return };
        let Some(last) = path.last_counter else { return };
        if path.state == PathState::Candidate || largest > last {
            return;
        }
        self.prove(now, slot, Proof::Receipt);
        if largest < last
            && let Some(path) = self.get_mut(slot)
        {
            path.unproven = Some(Unproven { since: now });
        }
    }

    /// Notes that data was sealed for a path with counters up to `counter`. Returns whether a deadline changed, so that
    /// the caller looks at its timers only then.
    pub fn on_data_sent(&mut self, now: Instant, slot: PathSlot, counter: u64, mut token: impl FnMut() -> u64) -> bool {
        let Some(path) = self.get_mut(slot) else { return false };
        path.last_counter = Some(counter);
        path.last_data = Some(now);
        let measure = path.next_rtt <= now;
        if measure {
            path.next_rtt = now + RTT_INTERVAL;
            path.start_probe(now, token());
        }
        let first = path.unproven.is_none();
        if first {
            path.unproven = Some(Unproven { since: now });
        }
        first || measure
    }

    /// Forgets lane counters: they belong to the session that was current.
    pub fn on_new_session(&mut self) {
        for (_, path) in self.iter_mut() {
            path.last_counter = None;
        }
    }

    /// Marks as suspect what has waited too long for a receipt, and probes every path when one newly is.
    pub fn check_liveness(&mut self, now: Instant, token: impl FnMut() -> u64) {
        let mut newly = false;
        for (_, path) in self.iter_mut() {
            let late = path.unproven.is_some_and(|unproven| unproven.since + path.patience() <= now);
            if late && path.state == PathState::Usable {
                path.state = PathState::Suspect;
                newly = true;
            }
        }
        if newly {
            self.probe_all(now, token);
        }
    }

    /// Since when the preferred path has had something unreceipted, if it has.
    pub fn unproven_since(&self) -> Option<Instant> {
        self.preferred().and_then(|(_, path)| path.unproven).map(|unproven| unproven.since)
    }

    /// The latest proof on any path.
    pub fn last_proof(&self) -> Option<Instant> {
        self.iter().filter_map(|(_, path)| path.last_proof).max()
    }

    /// The host's addresses changed: a path pinned to an address that is gone lets the kernel choose anew, and every path
    /// is probed at once.
    pub fn on_network_change(&mut self, now: Instant, local: &[IpAddr], mut token: impl FnMut() -> u64) {
        for (_, path) in self.iter_mut() {
            if path.addresses.local.is_some_and(|addr| !local.contains(&addr)) {
                path.addresses.local = None;
            }
            path.probe = None;
            path.start_probe(now, token());
        }
    }

    /// Forgets every path but `keep`: the peer restarted, what was proven with its former self is void.
    pub fn reset_except(&mut self, keep: Option<PathSlot>) {
        for (index, entry) in self.slots.iter_mut().enumerate() {
            if keep.is_none_or(|slot| usize::from(slot.0) != index) {
                *entry = None;
            }
        }
        if self.preferred != keep {
            self.preferred = None;
        }
    }

    /// Chooses the preferred path anew. See [`select`](super::select).
    pub fn reselect(&mut self) -> Option<(Option<FourTuple>, FourTuple, SwitchReason)> {
        super::select::reselect(self)
    }

    /// When this set next wants [`PathSet::poll_probe`] or [`PathSet::check_liveness`] to be called.
    pub fn next_deadline(&self) -> Instant {
        self.iter().map(|(_, path)| path.next_deadline()).min().unwrap_or(Instant::FAR_FUTURE)
    }
}
