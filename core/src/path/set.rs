//! The paths of one peer: which there are, which one is preferred, and what is due on them.

use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;

use super::liveness::{ProbeStep, RTT_INTERVAL, SUSPECT_FLOOR};
use super::mirror::MirrorBudget;
use super::mtu::MtuProbe;
use super::select::{self, Switch};
use super::{FourTuple, Path, PathClass, PathState, Proof, RttEstimator, Via};
use crate::overlay::PeerIndex;
use crate::rate::Bucket;
use crate::time::Instant;
use crate::wire::OVERHEAD;

mod arrival;

/// At most this many paths a peer; a new one displaces the least useful one that is not preferred.
pub const MAX_PATHS: usize = 8;

/// A pair is in use for this long after its last data.
const ACTIVE: Duration = Duration::from_secs(30);

/// The peer's data may put the preferred path in doubt again after this long.
const DOUBT_INTERVAL: Duration = Duration::from_millis(200);

/// The longest packet of a host that has not said otherwise.
const DEFAULT_PACKET_LEN: usize = 1400;

/// Index of a path in its set. It names the path in Pings, and its data lane is the slot plus one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PathSlot(pub u8);

/// A Ping that [`PathSet::poll_probe`] says is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DueProbe {
    /// The path to send it on.
    pub slot: PathSlot,
    /// The token that the Pong must echo.
    pub token: u64,
}

/// The paths of one peer.
#[derive(Clone, Debug)]
pub struct PathSet {
    /// At most [`MAX_PATHS`].
    slots: Vec<Option<Path>>,
    preferred: Option<PathSlot>,
    /// Until when lost paths are sought and a spare one is kept warm.
    active_until: Instant,
    /// When the spare one is probed next; never while the pair is not in use.
    warm_at: Instant,
    /// The path that the peer's data last came by.
    data_from: Option<PathSlot>,
    last_doubt: Option<Instant>,
    mirror: MirrorBudget,
    /// Addresses that datagrams came from, and that were not known.
    arrivals: Bucket,
    /// Ports that a NAT gave the peer while another worked.
    moves: Bucket,
    /// Ports that a NAT gave the peer while none worked.
    lost_ports: Bucket,
    /// Bytes of the longest packet that the host sends.
    packet_len: usize,
}

impl Default for PathSet {
    fn default() -> PathSet {
        PathSet {
            slots: Vec::new(),
            preferred: None,
            active_until: Instant::ORIGIN,
            warm_at: Instant::FAR_FUTURE,
            data_from: None,
            last_doubt: None,
            mirror: MirrorBudget::default(),
            arrivals: Bucket::default(),
            moves: Bucket::default(),
            lost_ports: Bucket::default(),
            packet_len: DEFAULT_PACKET_LEN,
        }
    }
}

impl PathSet {
    /// The path in a slot.
    pub fn get(&self, slot: PathSlot) -> Option<&Path> {
        self.slots.get(usize::from(slot.0))?.as_ref()
    }

    fn get_mut(&mut self, slot: PathSlot) -> Option<&mut Path> {
        self.slots.get_mut(usize::from(slot.0))?.as_mut()
    }

    /// Every path with its slot, in slot order.
    pub fn iter(&self) -> impl Iterator<Item = (PathSlot, &Path)> {
        self.slots.iter().zip(0u8..).filter_map(|(path, slot)| Some((PathSlot(slot), path.as_ref()?)))
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = (PathSlot, &mut Path)> {
        self.slots.iter_mut().zip(0u8..).filter_map(|(path, slot)| Some((PathSlot(slot), path.as_mut()?)))
    }

    /// The ways of the paths that were proven, if only once.
    pub fn proven(&self) -> impl Iterator<Item = Via> {
        self.iter().filter(|(_, path)| path.last_proof.is_some()).map(|(_, path)| path.via)
    }

    /// Notes that something which is to be passed on for the peer came by `arrival`. Returns whether that is a path straight
    /// to it that was proven, so that what claims to be the peer's may be taken for it without a key. Such a path is in use.
    pub(crate) fn note_passed(&mut self, now: Instant, arrival: &FourTuple) -> bool {
        let path = self.find(&Via::Direct(*arrival)).and_then(|slot| self.get_mut(slot));
        let Some(path) = path.filter(|path| path.last_proof.is_some()) else { return false };
        path.last_arrival = Some(now);
        true
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

    /// Whether data goes straight to the peer, as far as is known.
    pub fn is_direct(&self) -> bool {
        self.preferred().is_some_and(|(_, path)| path.class != PathClass::Relay && path.state == PathState::Usable)
    }

    /// Where datagrams go that this peer is to pass on: its best path that needs no relay itself.
    pub fn carrier(&self) -> Option<FourTuple> {
        let direct = |(_, path): (PathSlot, &Path)| path.via.direct();
        if let Some(addresses) = self.preferred().and_then(direct) {
            return Some(addresses);
        }
        let usable = self.iter().filter(|(_, path)| path.state == PathState::Usable && path.class != PathClass::Relay);
        usable.min_by_key(|(slot, path)| (select::rank(path), *slot)).and_then(direct)
    }

    /// The path that takes over when the preferred one fails: the best other one that works as far as is known. While the
    /// preferred one is in doubt, those come first that have answered since.
    pub fn standby(&self) -> Option<(PathSlot, &Path)> {
        let since = self.suspect_since();
        let others =
            self.iter().filter(|(slot, path)| Some(*slot) != self.preferred && path.state == PathState::Usable);
        others.min_by_key(|(slot, path)| (path.last_proof < since, select::rank(path), *slot))
    }

    /// The path that is sent a copy of what goes by the preferred one, while that is in doubt.
    pub fn mirror(&self) -> Option<(PathSlot, Via)> {
        self.preferred().filter(|(_, path)| path.state == PathState::Suspect)?;
        self.standby().map(|(slot, path)| (slot, path.via))
    }

    /// Whether the envelope with the number `counter` and of `length` bytes may go by [`PathSet::mirror`] too. If so it is
    /// taken off the limit, and its receipt will prove nothing of the preferred path.
    pub fn take_mirror(&mut self, now: Instant, counter: u64, length: usize) -> bool {
        let rtt = self.standby().and_then(|(_, path)| path.rtt.smoothed());
        let taken = self.mirror.take(now, rtt, length);
        if taken && let Some(path) = self.preferred.and_then(|slot| self.get_mut(slot)) {
            path.on_mirrored(counter, counter);
        }
        taken
    }

    /// Makes another path the preferred one. The former is sought from now on where it was lost.
    pub(super) fn prefer(&mut self, now: Instant, slot: PathSlot, lost: bool, token: impl FnOnce() -> u64) {
        let class = self.get(slot).map(|path| path.class);
        let former = self.preferred.replace(slot);
        if lost && let Some(former) = former {
            let worth = self.get(former).is_some_and(|path| Some(path.class) < class);
            match self.get_mut(former) {
                Some(path) if worth => path.lose(now, token()),
                // There is one as good: what failed is probed to its end, and then forgotten.
                Some(path) => path.start_probe(now, token()),
                None => {}
            }
        }
    }

    /// The path that a datagram belongs to.
    pub fn find(&self, arrival: &Via) -> Option<PathSlot> {
        // The hot path asks for the same one again and again.
        if let Some((slot, path)) = self.preferred()
            && path.via.admits(arrival)
        {
            return Some(slot);
        }
        self.iter().find(|(_, path)| path.via.admits(arrival)).map(|(slot, _)| slot)
    }

    /// Notes that data of the peer arrived by a path. Where it came by the preferred one until now, the peer has left that:
    /// then it is in doubt here too, long before a receipt is late. Returns whether a deadline changed.
    pub fn note_data(&mut self, now: Instant, slot: PathSlot, mut token: impl FnMut() -> u64) -> bool {
        let woke = self.touch(now);
        if self.data_from == Some(slot) {
            return woke;
        }
        let former = self.data_from.replace(slot);
        let rank_of = |slot| self.get(slot).map(|path| path.class);
        let Some(preferred) = self.preferred.filter(|preferred| Some(*preferred) == former) else { return woke };
        let is_worse = rank_of(slot) >= rank_of(preferred);
        let lately = self.last_doubt.is_some_and(|last| now.since(last) < DOUBT_INTERVAL);
        if !is_worse || lately {
            return woke;
        }
        self.last_doubt = Some(now);
        if let Some(path) = self.get_mut(preferred).filter(|path| path.state == PathState::Usable) {
            path.suspect(now);
            self.unpin(now, preferred);
        }
        for slot in [preferred, slot] {
            self.probe(now, slot, token());
        }
        true
    }

    /// Notes that the peer said by a path what must be acknowledged. The acknowledgement goes by the preferred path, and a
    /// peer that speaks by another may repeat itself because that one is dead: where nothing has proven it of late, it is
    /// asked.
    pub fn note_packet(&mut self, now: Instant, slot: PathSlot, token: u64) {
        let Some((preferred, path)) = self.preferred().filter(|(preferred, _)| *preferred != slot) else { return };
        let is_recent = path.last_proof.is_some_and(|proof| now.since(proof) < DOUBT_INTERVAL);
        if path.state == PathState::Usable && !is_recent {
            self.probe(now, preferred, token);
        }
    }

    /// Notes that a Ping of the peer arrived by a path: where that is one that was lost, it may work again.
    pub fn note_ping(&mut self, now: Instant, slot: PathSlot) {
        if let Some(retry) = self.get_mut(slot).and_then(|path| path.retry.as_mut()) {
            retry.hasten(now);
        }
    }

    /// The pair is in use. Returns whether it was not before and something waits for that.
    pub(crate) fn touch(&mut self, now: Instant) -> bool {
        let woke = self.active_until <= now;
        self.active_until = now + ACTIVE;
        if woke {
            self.warm_at = now;
            self.hasten(now);
        }
        woke
    }

    /// Whether data was sent or received of late.
    pub fn is_active(&self, now: Instant) -> bool {
        now < self.active_until
    }

    /// Adds a path as a candidate, or finds it. Where the set is full, the least useful path that is not preferred goes.
    pub fn insert(&mut self, now: Instant, via: Via, class: PathClass) -> PathSlot {
        if let Some(slot) = self.find(&via) {
            return slot;
        }
        let free = self.slots.iter().position(Option::is_none);
        let index = match free {
            Some(index) => index,
            None if self.slots.len() < MAX_PATHS => {
                // Most peers have one path for good.
                self.slots.reserve_exact(1);
                self.slots.push(None);
                self.slots.len() - 1
            }
            None => self.least_useful(),
        };
        let mut path = Path::new(via, class, self.packet_len, now);
        path.mtu = self.iter().find_map(|(_, known)| known.mtu_for(&via));
        self.slots[index] = Some(path);
        PathSlot(u8::try_from(index).expect("a path set has at most MAX_PATHS slots"))
    }

    /// Forgets the path by a relay, unless it is the preferred one: that only becomes suspect, and the others are probed.
    pub fn remove_relay(&mut self, now: Instant, relay: PeerIndex, token: impl FnMut() -> u64) {
        let Some(slot) = self.find(&Via::Relay(relay)) else { return };
        if Some(slot) != self.preferred {
            self.slots[usize::from(slot.0)] = None;
        } else if let Some(path) = self.get_mut(slot) {
            let newly = path.suspect_since.is_none();
            path.suspect(now);
            if newly {
                self.probe_all(now, token);
            }
        }
    }

    /// Forgets the path by a relay that is no more, whatever it carries.
    pub fn forget_relay(&mut self, relay: PeerIndex) {
        let Some(slot) = self.find(&Via::Relay(relay)) else { return };
        self.slots[usize::from(slot.0)] = None;
        self.preferred.take_if(|preferred| *preferred == slot);
    }

    /// Forgets the paths of a class, whatever they carry. Returns where they led.
    pub fn forget_class(&mut self, class: PathClass) -> Vec<Via> {
        let mut gone = Vec::new();
        for path in &mut self.slots {
            gone.extend(path.take_if(|path| path.class == class).map(|path| path.via));
        }
        let slots = &self.slots;
        self.preferred.take_if(|preferred| slots[usize::from(preferred.0)].is_none());
        gone
    }

    /// The slot to displace: candidates before proven paths, the oldest first, never the preferred one. Behind some NATs what
    /// a peer sends comes by another path than what it is sent goes by: that one is in use as well, and where it were
    /// displaced, what is passed on for the peer would be refused.
    fn least_useful(&self) -> usize {
        let preferred = self.preferred;
        let last_use = |path: &Path| path.last_proof.max(path.last_arrival).unwrap_or(path.created);
        self.iter()
            .filter(|(slot, _)| Some(*slot) != preferred)
            .min_by_key(|(_, path)| (path.state != PathState::Candidate, last_use(path)))
            .map_or(0, |(slot, _)| usize::from(slot.0))
    }

    /// Starts a burst of probes on a path. One that is running goes on; it begins anew where the path has become suspect since
    /// its last Ping.
    pub fn probe(&mut self, now: Instant, slot: PathSlot, token: u64) {
        if let Some(path) = self.get_mut(slot) {
            path.start_probe(now, token);
        }
    }

    /// As [`PathSet::probe`], on every path; of an idle pair not on all the ports that a NAT has given the peer.
    pub fn probe_all(&mut self, now: Instant, mut token: impl FnMut() -> u64) {
        let (newest, preferred) = (self.newest_ports(now), self.preferred);
        for (slot, path) in self.iter_mut() {
            let is_asked = |(road, since): (Via, _)| !path.shares_road(&road) || path.last_arrival >= since;
            if preferred == Some(slot) || newest.is_none_or(is_asked) {
                path.start_probe(now, token());
            }
        }
    }

    /// The next Ping that is due at `now`. A path whose probes all went unanswered is given up; the preferred one is kept
    /// until something better is proven, and what would be better than the preferred one is sought on.
    pub fn poll_probe(&mut self, now: Instant, mut token: impl FnMut() -> u64) -> Option<DueProbe> {
        let class = self.preferred().map(|(_, path)| path.class);
        for index in 0..self.slots.len() {
            let slot = PathSlot(index as u8);
            let (is_preferred, is_active) = (self.preferred == Some(slot), self.is_active(now));
            let Some(path) = self.slots[index].as_mut() else { continue };
            let was_usable = path.state == PathState::Usable;
            let step = path.step_probe(now);
            if is_preferred && step == ProbeStep::Failed {
                path.suspect(now);
            }
            if is_preferred && was_usable && path.state == PathState::Suspect {
                // Which other one answers now decides what takes its place.
                self.probe_all(now, &mut token);
                self.unpin(now, slot);
            }
            let Some(path) = self.slots[index].as_mut() else { continue };
            match step {
                ProbeStep::Send(token) => return Some(DueProbe { slot, token }),
                ProbeStep::Failed if is_preferred || path.state == PathState::Lost => {}
                ProbeStep::Failed if path.last_proof.is_some() && Some(path.class) < class => path.lose(now, token()),
                ProbeStep::Failed => self.slots[index] = None,
                ProbeStep::Wait => {
                    if let Some(token) = path.retry.as_mut().and_then(|retry| retry.poll(now, is_active)) {
                        return Some(DueProbe { slot, token });
                    }
                }
            }
        }
        None
    }

    /// Keeps a spare path warm while the pair is in use: it is probed every so often.
    pub fn warm_standby(&mut self, now: Instant, token: impl FnOnce() -> u64) {
        if self.warm_at > now {
            return;
        }
        self.warm_at = if self.is_active(now) { now + RTT_INTERVAL } else { Instant::FAR_FUTURE };
        if self.is_active(now)
            && let Some((slot, _)) = self.standby()
        {
            self.probe(now, slot, token());
        }
    }

    /// The next padded Ping that is due: how large a datagram a path carries.
    pub fn poll_mtu(&mut self, now: Instant, mut token: impl FnMut() -> u64) -> Option<(PathSlot, MtuProbe)> {
        let usable = |(_, path): &(PathSlot, &mut Path)| path.state == PathState::Usable;
        self.iter_mut().filter(usable).find_map(|(slot, path)| {
            let timeout = path.patience();
            Some((slot, path.mtu.as_mut()?.poll_probe(now, timeout, &mut token)?))
        })
    }

    /// Notes that this host refused to send a datagram of `length` bytes by `via`: its own link is smaller.
    pub fn on_send_refused(&mut self, now: Instant, via: &Via, length: usize) {
        let path = self.find(via).and_then(|slot| self.get_mut(slot));
        if let Some(mtu) = path.and_then(|path| path.mtu.as_mut()) {
            mtu.on_send_refused(now, length);
        }
    }

    /// Sets the length of the longest packet that the host sends: there is no use for larger datagrams than it takes.
    pub fn set_packet_len(&mut self, now: Instant, packet_len: usize) {
        self.packet_len = packet_len;
        self.iter_mut().for_each(|(_, path)| path.set_packet_len(now, packet_len));
    }

    /// Bytes of the longest packet that may go to the peer now, and still may when the spare path takes over.
    pub fn host_mtu(&self) -> Option<usize> {
        let (_, preferred) = self.preferred()?;
        let standby = self.standby().map_or(usize::MAX, |(_, path)| path.room());
        Some(preferred.room().min(standby).min(self.packet_len))
    }

    /// Whether it is known what the preferred path carries.
    pub fn is_mtu_settled(&self) -> bool {
        self.preferred().and_then(|(_, path)| path.mtu.as_ref()).is_some_and(|mtu| mtu.is_settled())
    }

    /// The estimator of a path's round-trip time, to take in what packets show.
    pub(crate) fn rtt_mut(&mut self, slot: PathSlot) -> Option<&mut RttEstimator> {
        self.get_mut(slot).map(|path| &mut path.rtt)
    }

    /// Records that a packet sent on a path was acknowledged.
    pub fn on_ack(&mut self, now: Instant, slot: PathSlot) {
        if let Some(path) = self.get_mut(slot)
            && matches!(path.state, PathState::Usable | PathState::Suspect)
        {
            path.prove(now, Proof::Receipt);
        }
    }

    /// Whether a control datagram of `length` bytes may be sent on a path, and if so takes it off what an unproven address
    /// may get.
    pub fn may_send(&mut self, slot: PathSlot, length: usize) -> bool {
        let Some(credit) = self.get_mut(slot).and_then(|path| path.credit.as_mut()) else { return true };
        let rest = u32::try_from(length).ok().and_then(|length| credit.checked_sub(length));
        *credit = rest.unwrap_or(*credit);
        rest.is_some()
    }

    /// Takes in a Pong: proves the path `slot`, if a Ping of its present probes carried `token`. Returns the round-trip time
    /// without `held`, the time the peer says it held the answer.
    pub fn on_pong(&mut self, now: Instant, slot: PathSlot, token: u64, held: Duration) -> Option<Duration> {
        let path = self.get_mut(slot)?;
        if path.mtu.as_mut().is_some_and(|mtu| mtu.on_answer(now, token).is_some()) {
            return None;
        }
        path.on_pong(now, token, held)
    }

    /// Records evidence that what this node sends on a path arrives.
    pub fn prove(&mut self, now: Instant, slot: PathSlot, proof: Proof) {
        if let Some(path) = self.get_mut(slot) {
            path.prove(now, proof);
        }
    }

    /// Takes in a receipt that covers the lane of `slot` up to `largest`, of which `received` have arrived, under the current
    /// session.
    pub fn on_receipt(&mut self, now: Instant, slot: PathSlot, largest: u64, received: u64) {
        if let Some(path) = self.get_mut(slot) {
            path.on_receipt(now, largest, received);
        }
    }

    /// Notes that data was sealed for a path with counters up to `counter`, in envelopes of at most `length` bytes. Returns
    /// whether a deadline changed, so that the caller looks at its timers only then.
    pub fn on_data_sent(
        &mut self,
        now: Instant,
        slot: PathSlot,
        (counter, length): (u64, usize),
        token: impl FnMut() -> u64,
    ) -> bool {
        let woke = self.touch(now);
        let Some(path) = self.get_mut(slot) else { return woke };
        let length = length + path.overhead() - OVERHEAD;
        path.on_data_sent(now, counter, length, token) | woke
    }

    /// Forgets lane counters: they belong to the session that was current.
    pub fn on_new_session(&mut self) {
        for (_, path) in self.iter_mut() {
            path.on_new_session();
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
            if let Some(preferred) = self.preferred {
                self.unpin(now, preferred);
            }
        }
    }

    /// Leaves the source address of a path in doubt to the kernel: the one that it was pinned to may be gone without anybody
    /// having told. What arrives pins it again. Of several paths to one address each keeps its own.
    fn unpin(&mut self, now: Instant, slot: PathSlot) {
        let Some(path) = self.get(slot).filter(|path| path.state == PathState::Suspect) else { return };
        let Some(opened) = path.via.direct().map(|addresses| FourTuple { local: None, ..addresses }) else { return };
        if self.iter().filter(|(_, path)| path.via.admits(&Via::Direct(opened))).count() == 1
            && let Some(path) = self.get_mut(slot)
            && path.via != Via::Direct(opened)
        {
            path.via = Via::Direct(opened);
            path.hasten_probe(now);
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

    /// The relays by which paths lead that became suspect at `now`.
    pub fn newly_silent_relays(&self, now: Instant) -> impl Iterator<Item = PeerIndex> {
        self.iter().filter(move |(_, path)| path.suspect_since == Some(now)).filter_map(|(_, path)| path.via.relay())
    }

    /// Whether something has gone both ways by a relay since `since`.
    pub fn is_relay_proven(&self, relay: PeerIndex, since: Instant) -> bool {
        let path = self.find(&Via::Relay(relay)).and_then(|slot| self.get(slot));
        path.is_some_and(|path| path.state == PathState::Usable && path.last_proof >= Some(since))
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

    /// The host's addresses changed, or it woke: a path pinned to an address that is gone lets the kernel choose anew, and
    /// every path is probed at once.
    pub fn on_network_change(&mut self, now: Instant, local: &[IpAddr], mut token: impl FnMut() -> u64) {
        for (_, path) in self.iter_mut() {
            if let Via::Direct(addresses) = &mut path.via {
                addresses.local = addresses.local.filter(|address| local.contains(address));
            }
            path.probe = None;
            path.start_probe(now, token());
        }
        self.drop_twins();
        self.hasten(now);
    }

    /// Something makes it likelier that lost paths work again: they are sought anew at once.
    pub fn hasten(&mut self, now: Instant) {
        for (_, path) in self.iter_mut() {
            if let Some(retry) = path.retry.as_mut() {
                retry.hasten(now);
            }
        }
    }

    /// Where two slots came to hold one path, keeps the preferred one, or else the first.
    fn drop_twins(&mut self) {
        let preferred = self.preferred.map(|slot| usize::from(slot.0));
        for index in 0..self.slots.len() {
            let Some(via) = self.slots[index].as_ref().map(|path| path.via) else { continue };
            let is_twin = |(other, path): (usize, &Option<Path>)| {
                let before = Some(other) == preferred || (other < index && Some(index) != preferred);
                other != index && before && path.as_ref().is_some_and(|path| path.via == via)
            };
            if self.slots.iter().enumerate().any(is_twin) {
                self.slots[index] = None;
            }
        }
    }

    /// Forgets every path: the peer restarted or left, what was proven with its former self is void.
    pub fn reset(&mut self) {
        let PathSet { active_until, warm_at, packet_len, arrivals, moves, lost_ports, .. } = *self;
        *self = PathSet { active_until, warm_at, packet_len, arrivals, moves, lost_ports, ..PathSet::default() };
    }

    /// Chooses the preferred path anew; `select.rs` says how.
    pub fn reselect(&mut self, now: Instant, token: impl FnOnce() -> u64) -> Option<Switch> {
        select::reselect(self, now, token)
    }

    /// When this set next wants to be looked at.
    pub fn next_deadline(&self) -> Instant {
        let paths = self.iter().map(|(_, path)| path.next_deadline()).min().unwrap_or(Instant::FAR_FUTURE);
        paths.min(self.switch_at().unwrap_or(Instant::FAR_FUTURE)).min(self.warm_at)
    }

    /// When a path that has answered takes the place of a suspect one that has not.
    fn switch_at(&self) -> Option<Instant> {
        let (_, held) = self.preferred().filter(|(_, path)| path.state == PathState::Suspect)?;
        let (_, standby) = self.standby()?;
        (standby.last_proof >= held.suspect_since).then_some(held.grace_end()?)
    }
}

#[cfg(test)]
mod tests;
