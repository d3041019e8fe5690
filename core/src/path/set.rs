//! The paths of one peer: their proof, their liveness and the probes that are due.

use core::net::IpAddr;
use core::ops::Range;
use core::time::Duration;

use heapless::Vec;

use super::{FourTuple, RttEstimator, SwitchReason};
use crate::time::Instant;

/// At most this many paths a peer; a new one displaces the least useful one that is not preferred.
pub const MAX_PATHS: usize = 8;

/// Probes sent on a path that answers none before the path is given up.
const PROBE_LIMIT: usize = 4;

/// A path that leaves this many probes of one burst unanswered is suspect.
const SUSPECT_AFTER: usize = 2;

/// First interval between probes of one burst; it doubles.
const PROBE_INTERVAL: Duration = Duration::from_millis(150);

/// The first interval on a slow path.
const MAX_PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// What is sent to an address that a peer has not proven to be its own is at most this many times what came from there
/// (RFC 9000 section 8.1).
const AMPLIFICATION: u32 = 3;

/// A path whose smoothed RTT is measured anew this often while data is sent on it.
const RTT_INTERVAL: Duration = Duration::from_secs(5);

/// Shortest time without a receipt before a path is suspected (DESIGN section 5: failover).
const SUSPECT_FLOOR: Duration = Duration::from_millis(200);

/// Longest time without a receipt before a path is suspected: twice what it ever took at best, within these bounds.
const PATIENCE_LIMIT: Range<Duration> = Duration::from_secs(1)..Duration::from_secs(3);

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
    /// Since when data sent on it is without receipt: when the first of it was sent, or when the last receipt that covered a
    /// part of it came.
    pub unproven: Option<Instant>,
    /// The highest counter used on its lane under the current session, if any was.
    pub last_counter: Option<u64>,
    /// The first counter that was used on it: earlier ones of its lane were of a former path in this slot.
    first_counter: Option<u64>,
    /// The highest counter of it that a receipt covered.
    receipted: Option<u64>,
    /// Since when it is suspect.
    suspect_since: Option<Instant>,
    /// Last use by data of this node.
    pub last_data: Option<Instant>,
    created: Instant,
    probe: Option<Probe>,
    next_rtt: Instant,
    /// Bytes that may be sent on it before it is proven; no limit once it was.
    credit: Option<u32>,
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
            first_counter: None,
            receipted: None,
            suspect_since: None,
            last_data: None,
            created: now,
            probe: None,
            next_rtt: now,
            credit: Some(0),
        }
    }

    /// How long something may stay without receipt before the path is suspected.
    pub fn patience(&self) -> Duration {
        let (smoothed, minimum) = (self.rtt.smoothed().unwrap_or(Duration::from_millis(100)), self.rtt.minimum());
        // One sample of a host that slept says nothing of the path: it may not buy a dead path more than this.
        let longest = (minimum * 2).clamp(PATIENCE_LIMIT.start, PATIENCE_LIMIT.end);
        (smoothed + self.rtt.variation() * 4 + RECEIPT_DELAY).min(longest).max(SUSPECT_FLOOR)
    }

    /// Marks the path as suspect.
    fn suspect(&mut self, now: Instant) {
        self.state = PathState::Suspect;
        self.suspect_since.get_or_insert(now);
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
            (PathState::Usable, Some(unproven)) => unproven + self.patience(),
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

    /// The addresses of the paths that were proven, if only once.
    pub fn proven(&self) -> impl Iterator<Item = FourTuple> {
        self.iter().filter(|(_, path)| path.last_proof.is_some()).map(|(_, path)| path.addresses)
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

    /// Notes that an authenticated datagram of `length` bytes arrived by `arrival`, and returns its path and whether that is
    /// new. A new address becomes a candidate and is probed; it changes nothing about where this node sends. The preferred
    /// path is probed with it: a peer that speaks from a new address may have left the old one.
    pub fn note_arrival(
        &mut self,
        now: Instant,
        arrival: &FourTuple,
        length: usize,
        mut token: impl FnMut() -> u64,
    ) -> (PathSlot, bool) {
        let earned = AMPLIFICATION.saturating_mul(u32::try_from(length).unwrap_or(u32::MAX));
        if let Some(slot) = self.find(arrival) {
            if let Some(path) = self.get_mut(slot) {
                path.credit = path.credit.map(|credit| credit.saturating_add(earned));
                if path.addresses.local != arrival.local && arrival.local.is_some() {
                    path.addresses.local = arrival.local;
                    self.drop_twins();
                }
            }
            return (slot, false);
        }
        let slot = self.insert(now, *arrival);
        if let Some(path) = self.get_mut(slot) {
            path.credit = Some(earned);
        }
        self.probe(now, slot, token());
        if let Some(preferred) = self.preferred {
            self.probe(now, preferred, token());
        }
        (slot, true)
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
            // Longer than an answer takes, or the next probe would always follow.
            let interval = path.rtt.smoothed().unwrap_or_default().clamp(PROBE_INTERVAL, MAX_PROBE_INTERVAL);
            let Some(probe) = path.probe.as_mut().filter(|probe| probe.next <= now) else { continue };
            if probe.sent >= PROBE_LIMIT {
                path.probe = None;
                if Some(slot) == preferred {
                    path.suspect(now);
                } else {
                    self.slots[index] = None;
                }
                continue;
            }
            let token = probe.token.wrapping_add(probe.sent as u64);
            probe.sent_at[probe.sent] = now;
            probe.next = now + interval * (1 << probe.sent);
            probe.sent += 1;
            let (sent, first) = (probe.sent, probe.sent_at[0]);
            if path.state == PathState::Usable && sent > SUSPECT_AFTER && now.since(first) >= path.patience() {
                path.suspect(now);
            }
            return Some(DueProbe { slot, token });
        }
        None
    }

    /// Whether a control datagram of `length` bytes may be sent on a path, and if so takes it off what an unproven address
    /// may get.
    pub fn may_send(&mut self, slot: PathSlot, length: usize) -> bool {
        let Some(credit) = self.get_mut(slot).and_then(|path| path.credit.as_mut()) else { return true };
        let rest = u32::try_from(length).ok().and_then(|length| credit.checked_sub(length));
        *credit = rest.unwrap_or(*credit);
        rest.is_some()
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
        path.suspect_since = None;
        path.last_proof = Some(now);
        path.unproven = None;
        path.credit = None;
    }

    /// Takes in a receipt that covers the lane of `slot` up to `largest`, under the current session.
    pub fn on_receipt(&mut self, now: Instant, slot: PathSlot, largest: u64) {
        let Some(path) = self.get_mut(slot) else { return };
        let Some(last) = path.last_counter else { return };
        let is_old = path.receipted.is_some_and(|receipted| largest <= receipted)
            || path.first_counter.is_none_or(|first| largest < first);
        if path.state == PathState::Candidate || largest > last || is_old {
            return;
        }
        path.receipted = Some(largest);
        self.prove(now, slot, Proof::Receipt);
        if largest < last
            && let Some(path) = self.get_mut(slot)
        {
            path.unproven = Some(now);
        }
    }

    /// Notes that data was sealed for a path with counters up to `counter`. Returns whether a deadline changed, so that
    /// the caller looks at its timers only then.
    pub fn on_data_sent(&mut self, now: Instant, slot: PathSlot, counter: u64, mut token: impl FnMut() -> u64) -> bool {
        let Some(path) = self.get_mut(slot) else { return false };
        path.last_counter = Some(counter);
        path.first_counter.get_or_insert(counter);
        path.last_data = Some(now);
        let measure = path.next_rtt <= now;
        if measure {
            path.next_rtt = now + RTT_INTERVAL;
            path.start_probe(now, token());
        }
        let first = path.unproven.is_none();
        if first {
            path.unproven = Some(now);
        }
        first || measure
    }

    /// Forgets lane counters: they belong to the session that was current.
    pub fn on_new_session(&mut self) {
        for (_, path) in self.iter_mut() {
            path.last_counter = None;
            path.first_counter = None;
            path.receipted = None;
        }
    }

    /// Marks as suspect what has waited too long for a receipt, and probes every path when one newly is.
    pub fn check_liveness(&mut self, now: Instant, token: impl FnMut() -> u64) {
        let mut newly = false;
        for (_, path) in self.iter_mut() {
            let late = path.unproven.is_some_and(|unproven| unproven + path.patience() <= now);
            if late && path.state == PathState::Usable {
                path.suspect(now);
                newly = true;
            }
        }
        if newly {
            self.probe_all(now, token);
        }
    }

    /// Since when the preferred path has had something unreceipted, if it has.
    pub fn unproven_since(&self) -> Option<Instant> {
        self.preferred().and_then(|(_, path)| path.unproven)
    }

    /// Since when the preferred path is suspect.
    pub fn suspect_since(&self) -> Option<Instant> {
        self.preferred().and_then(|(_, path)| path.suspect_since)
    }

    /// Whether the preferred path left all probes of a burst unanswered, and nothing else is being tried.
    pub fn is_given_up(&self) -> bool {
        self.preferred().is_some_and(|(_, path)| path.state == PathState::Suspect && path.probe.is_none())
    }

    /// How long the preferred path may have something unreceipted.
    pub fn patience(&self) -> Duration {
        self.preferred().map_or(SUSPECT_FLOOR, |(_, path)| path.patience())
    }

    /// When data was last sent on the preferred path.
    pub fn last_data(&self) -> Option<Instant> {
        self.preferred().and_then(|(_, path)| path.last_data)
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
        self.drop_twins();
    }

    /// Where two slots came to hold one path, keeps the preferred one, or else the first.
    fn drop_twins(&mut self) {
        let preferred = self.preferred.map(|slot| usize::from(slot.0));
        for index in 0..self.slots.len() {
            let Some(addresses) = self.slots[index].as_ref().map(|path| path.addresses) else { continue };
            let is_twin = |(other, path): (usize, &Option<Path>)| {
                let before = Some(other) == preferred || (other < index && Some(index) != preferred);
                other != index && before && path.as_ref().is_some_and(|path| path.addresses == addresses)
            };
            if self.slots.iter().enumerate().any(is_twin) {
                self.slots[index] = None;
            }
        }
    }

    /// Forgets every path: the peer restarted or left, what was proven with its former self is void.
    pub fn reset(&mut self) {
        self.slots.clear();
        self.preferred = None;
    }

    /// Chooses the preferred path anew; `select.rs` says how.
    pub fn reselect(&mut self, now: Instant) -> Option<(Option<FourTuple>, FourTuple, SwitchReason)> {
        super::select::reselect(self, now)
    }

    /// When this set next wants [`PathSet::poll_probe`] or [`PathSet::check_liveness`] to be called.
    pub fn next_deadline(&self) -> Instant {
        self.iter().map(|(_, path)| path.next_deadline()).min().unwrap_or(Instant::FAR_FUTURE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::SocketId;

    const MS: Duration = Duration::from_millis(1);

    fn at(port: u16) -> FourTuple {
        FourTuple { socket: SocketId(0), local: None, remote: ([192, 0, 2, 1], port).into() }
    }

    fn start() -> Instant {
        Instant::from_millis(1_000)
    }

    /// A set whose preferred path, at port 1, was proven at `start()` with an RTT of 10 ms.
    fn proven() -> (PathSet, PathSlot) {
        let mut set = PathSet::default();
        let slot = set.insert(start(), at(1));
        set.prove(start(), slot, Proof::Pong(MS * 10));
        assert_eq!(set.reselect(start()), Some((None, at(1), SwitchReason::First)));
        (set, slot)
    }

    #[test]
    fn a_new_address_is_a_candidate_and_moves_nothing() {
        let (mut set, slot) = proven();
        let (new, _) = set.note_arrival(start(), &at(2), 1_000, || 7);
        assert_eq!(set.get(new).map(|path| path.state), Some(PathState::Candidate));
        assert_eq!(set.reselect(start()), None);
        assert_eq!(set.preferred_slot(), Some(slot));
        // Both are probed: the peer may have left the old address.
        let probed: Vec<PathSlot, 4> =
            core::iter::from_fn(|| set.poll_probe(start())).map(|probe| probe.slot).collect();
        assert_eq!(probed, [slot, new]);
    }

    #[test]
    fn only_the_pong_to_a_ping_of_this_path_proves_it() {
        let (mut set, slot) = proven();
        let (new, _) = set.note_arrival(start(), &at(2), 1_000, || 7);
        while set.poll_probe(start()).is_some() {}
        let now = start() + MS * 20;
        assert_eq!(set.on_pong(now, new, 8, Duration::ZERO), None, "a token that was not sent yet");
        assert_eq!(set.on_pong(now, PathSlot(5), 7, Duration::ZERO), None, "a path that there is not");
        assert_eq!(set.on_pong(now, new, 7, MS * 5), Some(MS * 15));
        assert_eq!(set.on_pong(now, new, 7, Duration::ZERO), None, "the same Pong again");
        assert_eq!(set.get(new).map(|path| path.state), Some(PathState::Usable));
        assert_eq!(set.preferred_slot(), Some(slot));
    }

    #[test]
    fn an_address_that_a_datagram_gave_is_not_sent_more_than_three_times_what_came() {
        let (mut set, _) = proven();
        let (new, _) = set.note_arrival(start(), &at(2), 32, || 7);
        let mut sent = 0;
        for step in 0..40 {
            let now = start() + MS * 100 * step;
            while let Some(probe) = set.poll_probe(now) {
                sent += usize::from(probe.slot == new && set.may_send(new, 43)) * 43;
            }
        }
        assert!(sent > 0 && sent <= 3 * 32, "{sent} bytes");
    }

    #[test]
    fn silence_makes_a_path_suspect_and_a_proven_one_takes_over() {
        let (mut set, slot) = proven();
        let other = set.insert(start(), at(2));
        set.prove(start(), other, Proof::Pong(MS * 50));
        assert!(set.on_data_sent(start(), slot, 0, || 1));
        assert!(!set.on_data_sent(start() + MS, slot, 1, || 1), "the deadline stands already");
        let patience = set.get(slot).map(Path::patience).unwrap_or_default();
        set.check_liveness(start() + patience - MS, || 1);
        assert_eq!(set.reselect(start() + patience - MS), None);
        set.check_liveness(start() + patience, || 1);
        let switch = Some((Some(at(1)), at(2), SwitchReason::PathLost));
        assert_eq!(set.reselect(start() + patience), switch);
    }

    #[test]
    fn receipts_prove_and_what_they_leave_open_keeps_the_clock_running() {
        let (mut set, slot) = proven();
        set.on_data_sent(start(), slot, 3, || 1);
        set.on_data_sent(start(), slot, 5, || 1);
        set.on_receipt(start() + MS * 5, slot, 2);
        assert_eq!(set.unproven_since(), Some(start()), "a receipt for a former path in this slot");
        set.on_receipt(start() + MS * 10, slot, 6);
        assert_eq!(set.unproven_since(), Some(start()), "a receipt for what was never sent");
        set.on_receipt(start() + MS * 20, slot, 4);
        assert_eq!(set.unproven_since(), Some(start() + MS * 20));
        set.on_receipt(start() + MS * 25, slot, 3);
        assert_eq!(set.unproven_since(), Some(start() + MS * 20), "an older receipt that comes later");
        set.on_receipt(start() + MS * 30, slot, 5);
        assert_eq!(set.unproven_since(), None);
    }

    #[test]
    fn a_faster_path_must_be_clearly_faster() {
        let (mut set, _) = proven();
        let other = set.insert(start(), at(2));
        set.prove(start(), other, Proof::Pong(MS * 9));
        assert_eq!(set.reselect(start()), None);
        for _ in 0..40 {
            set.prove(start(), other, Proof::Pong(MS * 5));
        }
        assert_eq!(set.reselect(start()), Some((Some(at(1)), at(2), SwitchReason::Faster)));
    }

    #[test]
    fn probes_end_and_only_the_preferred_path_outlives_them() {
        let (mut set, slot) = proven();
        let other = set.insert(start(), at(2));
        set.probe_all(start(), || 1);
        for step in 0..40 {
            while set.poll_probe(start() + MS * 100 * step).is_some() {}
        }
        assert!(set.get(other).is_none());
        assert_eq!(set.get(slot).map(|path| path.state), Some(PathState::Suspect));
        assert_eq!(set.next_deadline(), Instant::FAR_FUTURE);
    }

    #[test]
    fn a_path_whose_local_address_changes_into_another_s_is_one_path() {
        let pinned = |ip: [u8; 4]| FourTuple { local: Some(ip.into()), ..at(1) };
        let (old, new) = (pinned([10, 0, 0, 1]), pinned([10, 0, 0, 2]));
        let mut set = PathSet::default();
        let slot = set.insert(start(), old);
        set.prove(start(), slot, Proof::Handshake);
        set.reselect(start());
        let (other, _) = set.note_arrival(start(), &new, 100, || 1);
        assert_ne!(slot, other);
        set.on_network_change(start(), &["10.0.0.2".parse().unwrap()], || 2);
        assert_eq!(set.note_arrival(start(), &new, 100, || 3), (slot, false));
        assert_eq!(set.iter().count(), 1);
        assert_eq!(set.preferred().map(|(_, path)| path.addresses), Some(new));
    }

    #[test]
    fn a_full_set_displaces_candidates_before_proven_paths() {
        let (mut set, slot) = proven();
        for port in 2..100 {
            set.note_arrival(start() + MS * u32::from(port), &at(port), 100, || 1);
        }
        assert_eq!(set.iter().count(), MAX_PATHS);
        assert_eq!(set.preferred_slot(), Some(slot));
        assert!(set.find(&at(1)).is_some() && set.find(&at(99)).is_some());
    }
}
