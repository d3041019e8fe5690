//! One path: its proof, how long it may stay without, and the Pings that ask for it.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use core::ops::Range;
use core::time::Duration;

use super::loss::LossMeter;
use super::mtu::MtuSearch;
use super::retry::Retry;
use super::{Family, PathClass, RttEstimator, Via};
use crate::time::Instant;
use crate::wire::{HEADER_LEN, OVERHEAD};

/// Probes sent on a path that answers none before the burst ends.
pub(super) const PROBE_LIMIT: usize = 4;

/// Probes of one burst whose answers are known: a doubt begins the burst anew, and what was sent before is not forgotten.
const PROBES_KNOWN: usize = 2 * PROBE_LIMIT;

/// A path that leaves this many probes of one burst unanswered is suspect.
const SUSPECT_AFTER: usize = 2;

/// First interval between probes of one burst; it doubles.
const PROBE_INTERVAL: Duration = Duration::from_millis(150);

/// The first interval on a slow path.
const MAX_PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// A path whose smoothed RTT is measured anew this often while data is sent on it.
pub(super) const RTT_INTERVAL: Duration = Duration::from_secs(5);

/// It is measured this often while little is known of how much it varies: a single sample would have a path of 300 ms be
/// waited for almost a second.
const FIRST_RTT_INTERVAL: Duration = Duration::from_millis(250);

/// Shortest time without a receipt before a path is suspected.
pub(super) const SUSPECT_FLOOR: Duration = Duration::from_millis(200);

/// It is this and two round trips where that is less. An outage may last 200 ms and three round trips, and the doubt is not
/// its end: the sender's next packet is the first that another path carries.
const SHORT_FLOOR: Duration = Duration::from_millis(160);

/// Longest time without a receipt before a path is suspected: twice what it ever took at best, within these bounds.
const PATIENCE_LIMIT: Range<Duration> = Duration::from_secs(1)..Duration::from_secs(3);

/// Margin above the RTT: a receiver may hold a receipt for this long.
const RECEIPT_DELAY: Duration = Duration::from_millis(50);

/// The least that round trips are taken to vary: what a receiver reports every 50 ms may just have missed the last report.
const GRANULARITY: Duration = Duration::from_millis(10);

/// The most that round trips are taken to vary, where they are short; elsewhere it is a round trip.
const MAX_VARIATION: Duration = Duration::from_millis(150);

/// The age of what was sent is known to this.
const MARK_INTERVAL: Duration = Duration::from_millis(10);

/// Ages that are remembered. Where more is under way than these, what is oldest counts as younger than it is, and a dead path is
/// doubted by so much later: 160 ms of a round trip are remembered at least.
const MARKS: usize = 16;

/// How long a suspect path has to answer a Ping before another takes its place: its round trip and how much that varies, but
/// not less than this, and not more or 9/8 of the round trip where that is more. What is sent meanwhile is mirrored.
const GRACE: Range<Duration> = Duration::from_millis(20)..Duration::from_millis(250);

/// A suspect path is asked a second time after a quarter of the grace, and this at most: one lost Ping is to cost no path that
/// is in use.
const MAX_SECOND_PING: Duration = Duration::from_millis(60);

/// A path that was lost answers this many probes in a row, times the losses of late, before it carries data again.
const TRIAL: u8 = 3;
const MAX_TRIAL: u8 = 9;

/// One that was left because it loses too much answers so many: where a quarter is lost, it does in one of thirty times, and
/// in one of thirty thousand when it was lost often.
const LOSSY_TRIAL: u8 = 12;
const MAX_LOSSY_TRIAL: u8 = 36;

/// For so long a loss counts.
const LOSS_MEMORY: Duration = Duration::from_secs(300);

/// What is known of a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PathState {
    /// Heard of or heard from, not yet proven in both directions. Carries Pings only.
    Candidate,
    /// A Ping sent on it was answered.
    Usable,
    /// It was usable, but something sent on it has not been receipted in time.
    Suspect,
    /// It was usable and has been given up for another. It is sought, and has to prove itself several times.
    Lost,
}

impl PathState {
    /// The name used in reports.
    pub const fn name(self) -> &'static str {
        match self {
            PathState::Candidate => "candidate",
            PathState::Usable => "usable",
            PathState::Suspect => "suspect",
            PathState::Lost => "lost",
        }
    }
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

/// One burst of Pings on a path, until one is answered or the burst is given up. The n-th Ping that is known carries
/// `token + n`, so that a Pong tells which one it answers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probe {
    token: u64,
    sent_at: [Instant; PROBES_KNOWN],
    /// The Pings of `sent_at` that have left, and how many of them did before the last doubt.
    sent: usize,
    before: usize,
    pub(super) next: Instant,
}

/// What a burst of probes wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ProbeStep {
    /// Nothing now.
    Wait,
    /// A Ping with this token.
    Send(u64),
    /// All of it stayed unanswered.
    Failed,
}

/// One path of a peer.
#[derive(Clone, Debug)]
pub struct Path {
    /// The way it takes.
    pub via: Via,
    /// How it came to be.
    pub class: PathClass,
    /// What is known of it.
    pub state: PathState,
    /// Its round-trip time.
    pub rtt: RttEstimator,
    /// The last evidence that what this node sends on it arrives.
    pub last_proof: Option<Instant>,
    /// When something of the peer last came by it.
    pub(super) last_arrival: Option<Instant>,
    /// A NAT gave it to the peer while another of the same road worked, and it may take the place of that.
    pub(super) succeeds: bool,
    /// Since when data sent on it is without receipt: when the first of it was sent, to about 10 ms and as far as its marks
    /// reach.
    pub unproven: Option<Instant>,
    /// Counters and when they were used, so that a receipt tells the age of what it does not cover.
    /// At most [`MARKS`]; on the heap, and only while the session has data.
    marks: VecDeque<(u64, Instant)>,
    /// The highest counter used on its lane under the current session, if any was.
    pub last_counter: Option<u64>,
    /// The first counter that was used on it: earlier ones of its lane were of a former path in this slot.
    first_counter: Option<u64>,
    /// The highest counter of it that a receipt covered.
    receipted: Option<u64>,
    /// The first datagram above the base that went by it since a receipt covered one: its counter, and when.
    oversize: Option<(u64, Instant)>,
    /// How much of what is sent on it is lost.
    loss: LossMeter,
    /// Counters that another path carried too: receipts of them prove nothing of this one.
    mirrored: Range<u64>,
    /// Since when it is suspect.
    pub(super) suspect_since: Option<Instant>,
    /// Last use by data of this node.
    pub last_data: Option<Instant>,
    pub(super) created: Instant,
    pub(super) probe: Option<Probe>,
    /// Probes sent since the last proof.
    pub(super) unanswered: u16,
    pub(super) retry: Option<Box<Retry>>,
    /// How often it was lost of late, and when last.
    losses: u8,
    last_loss: Option<Instant>,
    next_rtt: Instant,
    /// Bytes that may be sent on it before it is proven; no limit once it was.
    pub(super) credit: Option<u32>,
    /// The search for the largest datagram that it carries: from its first proof on, or what another path's has found.
    pub(super) mtu: Option<Box<MtuSearch>>,
    /// Bytes of the longest packet that the host sends.
    packet_len: usize,
}

impl Path {
    pub(super) fn new(via: Via, class: PathClass, packet_len: usize, now: Instant) -> Path {
        Path {
            via,
            class,
            state: PathState::Candidate,
            rtt: RttEstimator::default(),
            last_proof: None,
            last_arrival: None,
            succeeds: false,
            unproven: None,
            marks: VecDeque::new(),
            last_counter: None,
            first_counter: None,
            receipted: None,
            oversize: None,
            loss: LossMeter::default(),
            mirrored: 0..0,
            suspect_since: None,
            last_data: None,
            created: now,
            probe: None,
            unanswered: 0,
            retry: None,
            losses: 0,
            last_loss: None,
            next_rtt: now,
            // A relay is an allowed peer that has agreed; an address may be anybody's.
            credit: via.direct().map(|_| 0),
            mtu: None,
            packet_len,
        }
    }

    /// Bytes of the longest packet that the path carries whole.
    pub fn room(&self) -> usize {
        self.mtu.as_ref().map_or(self.base_datagram(), |mtu| mtu.mtu()) - self.overhead()
    }

    /// Bytes of a datagram beside the packet in it.
    pub(crate) fn overhead(&self) -> usize {
        OVERHEAD + self.via.relay().map_or(0, |_| HEADER_LEN)
    }

    /// Bytes of a datagram that every path is taken to carry: an IP packet of 1,280 bytes (RFC 8200, section 5). Which
    /// family a relay uses on its other side is not known.
    pub(super) fn base_datagram(&self) -> usize {
        match self.via.direct().map(|addresses| Family::of(&addresses.remote)) {
            Some(Family::V4) => 1280 - 20 - 8,
            Some(Family::V6) | None => 1280 - 40 - 8,
        }
    }

    /// How long something may stay without receipt before the path is suspected.
    pub fn patience(&self) -> Duration {
        let (smoothed, minimum) = (self.rtt.smoothed().unwrap_or(Duration::from_millis(100)), self.rtt.minimum());
        // One sample of a host that slept says nothing of the path: it may not buy a dead path more than this.
        let longest = (minimum * 2).clamp(PATIENCE_LIMIT.start, PATIENCE_LIMIT.end);
        // An outage ends a round trip after it is suspected, and three round trips and 200 ms are its bound.
        let widest = smoothed.max(MAX_VARIATION);
        let variation = (self.rtt.variation() * 4).max(smoothed / 8).clamp(GRANULARITY, widest);
        let floor = (SHORT_FLOOR + smoothed * 2).min(SUSPECT_FLOOR);
        (smoothed + variation + RECEIPT_DELAY).min(longest).max(floor)
    }

    /// Until when a suspect path may still answer before another takes its place.
    pub(super) fn grace_end(&self) -> Option<Instant> {
        Some(self.suspect_since? + self.second_ping() + self.grace())
    }

    /// How long a suspect path has to answer a Ping.
    fn grace(&self) -> Duration {
        let smoothed = self.rtt.smoothed().unwrap_or_default();
        let longest = (smoothed + smoothed / 8).max(GRACE.end);
        (smoothed + self.rtt.variation() * 4).clamp(GRACE.start, longest)
    }

    /// How long after the first Ping a suspect path is asked again.
    fn second_ping(&self) -> Duration {
        (self.grace() / 4).min(MAX_SECOND_PING)
    }

    /// Whether a path by `via` differs by the peer's port at most.
    pub(super) fn shares_road(&self, via: &Via) -> bool {
        self.via.direct().zip(via.direct()).is_some_and(|(held, other)| held.shares_road(&other))
    }

    /// Whether the peer has used `other`, a port of the same road and no worse a class, since that is known, and not this one.
    pub(super) fn is_left_for(&self, other: &Path) -> bool {
        self.class >= other.class && self.shares_road(&other.via) && self.last_arrival <= Some(other.created)
    }

    /// What its search has found, for a path by `via` that shares its road. Some NATs give a peer another port all the time,
    /// and an idle pair is not to search each time.
    pub(super) fn mtu_for(&self, via: &Via) -> Option<Box<MtuSearch>> {
        self.mtu.as_ref().filter(|_| self.shares_road(via))?.handed_on().map(Box::new)
    }

    /// Bytes of the largest datagram that there is use for.
    fn target_datagram(&self) -> usize {
        (self.packet_len + self.overhead()).max(self.base_datagram())
    }

    /// Sets the length of the longest packet that the host sends.
    pub(super) fn set_packet_len(&mut self, now: Instant, packet_len: usize) {
        self.packet_len = packet_len;
        let target = self.target_datagram();
        if let Some(mtu) = self.mtu.as_mut() {
            mtu.set_target(now, target);
        }
    }

    /// Marks the path as suspect.
    pub(super) fn suspect(&mut self, now: Instant) {
        self.state = PathState::Suspect;
        if self.suspect_since.is_none() {
            self.suspect_since = Some(now);
            self.mirrored = 0..0;
        }
    }

    /// What was lost until now was lost in an outage: it says nothing of how much is lost otherwise, nor of sizes.
    fn forget_losses(&mut self) {
        self.loss.restart();
        if let Some(mtu) = self.mtu.as_mut() {
            mtu.suspend();
        }
    }

    /// Gives the path up for another. It is sought from now on.
    pub(super) fn lose(&mut self, now: Instant, token: u64) {
        self.state = PathState::Lost;
        self.suspect_since = None;
        self.forget_losses();
        self.unproven = None;
        // Nothing of any size arrived.
        self.oversize = None;
        let counts = self.last_loss.is_some_and(|last| now.since(last) < LOSS_MEMORY);
        self.losses = if counts { self.losses.saturating_add(1) } else { 1 };
        self.last_loss = Some(now);
        self.retry = Some(Retry::new(now, token).into());
    }

    /// Begins a burst of probes with `token`. One that is running goes on; where the path has become suspect since its last
    /// Ping, it begins anew.
    pub(super) fn start_probe(&mut self, now: Instant, token: u64) {
        match self.probe.as_mut() {
            None => self.probe = Some(Probe::new(now, token)),
            Some(probe) if probe.is_before(self.suspect_since) => probe.begin_anew(now),
            Some(_) => {}
        }
    }

    /// The next probe of a burst leaves now.
    pub(super) fn hasten_probe(&mut self, now: Instant) {
        if let Some(probe) = self.probe.as_mut().filter(|probe| probe.count() < PROBE_LIMIT) {
            probe.next = probe.next.min(now);
        }
    }

    /// Goes on with the burst.
    pub(super) fn step_probe(&mut self, now: Instant) -> ProbeStep {
        // Longer than an answer takes, or the next probe would always follow.
        let interval = self.rtt.smoothed().unwrap_or_default().clamp(PROBE_INTERVAL, MAX_PROBE_INTERVAL);
        let (patience, second) = (self.patience(), now + self.second_ping());
        let is_usable = self.state == PathState::Usable;
        let Some(probe) = self.probe.as_mut().filter(|probe| probe.next <= now) else { return ProbeStep::Wait };
        if probe.count() >= PROBE_LIMIT {
            self.probe = None;
            return ProbeStep::Failed;
        }
        let begins_doubt = is_usable && probe.count() >= SUSPECT_AFTER && now.since(probe.first()) >= patience;
        probe.next = match probe.count() {
            0 if self.suspect_since.is_some() => second,
            count => now + interval * (1 << count),
        };
        let token = probe.send(now);
        self.unanswered = self.unanswered.saturating_add(1);
        if begins_doubt {
            self.suspect(now);
        }
        ProbeStep::Send(token)
    }

    /// Takes in a Pong. Returns the round-trip time without `held`, the time the peer says it held the answer, where it
    /// answers a Ping of the burst or of the search.
    pub(super) fn on_pong(&mut self, now: Instant, token: u64, held: Duration) -> Option<Duration> {
        // A peer that exaggerates may not make the path look faster than half of what was measured.
        let rtt = |elapsed: Duration| elapsed.saturating_sub(held.min(elapsed / 2));
        if let Some(sent_at) = self.probe.as_ref().and_then(|probe| probe.sent_at(token)) {
            self.probe = None;
            let rtt = rtt(now.since(sent_at));
            if self.state == PathState::Lost {
                self.rtt.update(rtt);
            } else {
                self.check_black_hole(now, sent_at);
                self.prove(now, Proof::Pong(rtt));
            }
            return Some(rtt);
        }
        let (elapsed, answers) = self.retry.as_mut()?.on_pong(now, token)?;
        let rtt = rtt(elapsed);
        if self.state != PathState::Lost || answers >= self.trial(now) {
            self.prove(now, Proof::Pong(rtt));
        } else {
            self.rtt.update(rtt);
        }
        Some(rtt)
    }

    /// A Ping was answered that left at `asked`, when a large datagram should long have had its receipt: small ones pass and
    /// large ones do not (RFC 8899, section 4.3). Where it was only bad luck, the search finds out within a round trip; and
    /// until it has, what is long travels in fragments.
    fn check_black_hole(&mut self, now: Instant, asked: Instant) {
        let patience = self.patience();
        if self.oversize.take_if(|(_, sent)| asked.since(*sent) >= patience).is_some()
            && let Some(mtu) = self.mtu.as_mut()
        {
            mtu.on_black_hole(now);
        }
    }

    /// Answers in a row that a lost path owes.
    fn trial(&self, now: Instant) -> u8 {
        if self.loses_too_much(now) {
            return LOSSY_TRIAL.saturating_mul(self.losses.max(1)).min(MAX_LOSSY_TRIAL);
        }
        TRIAL.saturating_mul(self.losses.max(1)).min(MAX_TRIAL)
    }

    /// Records evidence that what this node sends on the path arrives.
    pub(super) fn prove(&mut self, now: Instant, proof: Proof) {
        if let Proof::Pong(rtt) = proof {
            self.rtt.update(rtt);
        }
        if self.state == PathState::Lost && self.loses_too_much(now) {
            self.loss.forgive();
        }
        self.state = PathState::Usable;
        // A short doubt is no outage: a path that loses its long packets only is in doubt several times a second.
        if self.suspect_since.take().is_some_and(|since| now.since(since) > self.patience()) {
            self.forget_losses();
        }
        self.unanswered = 0;
        self.last_proof = Some(now);
        self.unproven = None;
        self.retry = None;
        self.credit = None;
        if self.mtu.is_none() {
            self.mtu = Some(MtuSearch::new(now, self.base_datagram(), self.target_datagram()).into());
        }
    }

    /// Takes in a receipt that covers the path's lane up to `largest`, of which `received` have arrived, under the current
    /// session.
    pub(super) fn on_receipt(&mut self, now: Instant, largest: u64, received: u64) {
        let Some(last) = self.last_counter else { return };
        let is_old = self.receipted.is_some_and(|receipted| largest <= receipted)
            || self.first_counter.is_none_or(|first| largest < first);
        let is_idle = matches!(self.state, PathState::Candidate | PathState::Lost);
        if is_idle || largest > last || is_old {
            return;
        }
        self.receipted = Some(largest);
        if self.mirrored.contains(&largest) {
            return;
        }
        self.oversize.take_if(|(counter, _)| *counter <= largest);
        self.prove(now, Proof::Receipt);
        self.count_losses(now, largest, received);
        let mut oldest = None;
        while let Some((counter, at)) = self.marks.front().copied() {
            oldest = Some(at);
            if counter > largest {
                break;
            }
            self.marks.pop_front();
        }
        if largest < last {
            self.unproven = Some(oldest.unwrap_or(now));
        }
    }

    /// Where several datagrams were lost and others arrived, it may be the large ones that do not pass any more.
    fn count_losses(&mut self, now: Instant, largest: u64, received: u64) {
        if self.loss.on_receipt(now, largest, received)
            && let Some(mtu) = self.mtu.as_mut()
        {
            mtu.confirm(now);
        }
    }

    /// Whether it loses so much that any path that does not is better.
    pub(super) fn loses_too_much(&self, now: Instant) -> bool {
        self.loss.is_too_much(now)
    }

    /// Notes that data was sealed for the path with counters up to `counter`, in datagrams of at most `length` bytes. Returns
    /// whether a deadline changed.
    pub(super) fn on_data_sent(
        &mut self,
        now: Instant,
        counter: u64,
        length: usize,
        mut token: impl FnMut() -> u64,
    ) -> bool {
        self.last_counter = Some(counter);
        if length > self.base_datagram() {
            self.oversize.get_or_insert((counter, now));
        }
        self.first_counter.get_or_insert(counter);
        self.last_data = Some(now);
        if self.marks.back().is_none_or(|(_, last)| now.since(*last) >= MARK_INTERVAL) {
            if self.marks.len() >= MARKS {
                self.marks.pop_front();
            }
            self.marks.reserve_exact(MARKS - self.marks.len());
            self.marks.push_back((counter, now));
        }
        let measure = self.next_rtt <= now;
        if measure {
            self.next_rtt = now + if self.rtt.is_settled() { RTT_INTERVAL } else { FIRST_RTT_INTERVAL };
            self.start_probe(now, token());
        }
        let first = self.unproven.is_none();
        if first {
            self.unproven = Some(now);
        }
        let wakes = self.mtu.as_mut().is_some_and(|mtu| mtu.on_use(now));
        first || measure || wakes
    }

    /// Notes that data with counters up to `counter` went by another path too.
    pub(super) fn on_mirrored(&mut self, first: u64, counter: u64) {
        let start = if self.mirrored.is_empty() { first } else { self.mirrored.start };
        self.mirrored = start..counter + 1;
    }

    /// Forgets lane counters: they belong to the session that was current.
    pub(super) fn on_new_session(&mut self) {
        self.last_counter = None;
        self.first_counter = None;
        self.receipted = None;
        self.oversize = None;
        self.loss.restart();
        self.mirrored = 0..0;
        self.marks = VecDeque::new();
    }

    /// The next deadline of the path.
    pub(super) fn next_deadline(&self) -> Instant {
        let probe = self.probe.map_or(Instant::FAR_FUTURE, |probe| probe.next);
        let liveness = match (self.state, self.unproven) {
            (PathState::Usable, Some(unproven)) => unproven + self.patience(),
            _ => Instant::FAR_FUTURE,
        };
        let retry = self.retry.as_ref().map_or(Instant::FAR_FUTURE, |retry| retry.next());
        let mtu = self.mtu.as_ref().filter(|_| self.state == PathState::Usable);
        probe.min(liveness).min(retry).min(mtu.map_or(Instant::FAR_FUTURE, |mtu| mtu.next_deadline()))
    }
}

impl Probe {
    fn new(now: Instant, token: u64) -> Probe {
        Probe { token, sent_at: [now; PROBES_KNOWN], sent: 0, before: 0, next: now }
    }

    /// Pings that have left since the burst began, or began anew.
    fn count(&self) -> usize {
        self.sent - self.before
    }

    /// Whether no Ping of the burst has left since the path became suspect.
    fn is_before(&self, suspect_since: Option<Instant>) -> bool {
        let last = self.sent_at[..self.sent].last();
        suspect_since.is_some_and(|since| last.is_none_or(|last| *last < since))
    }

    /// When the first of them left.
    fn first(&self) -> Instant {
        self.sent_at[self.before]
    }

    /// Begins the burst anew, now. The latest of its Pings may still be answered.
    fn begin_anew(&mut self, now: Instant) {
        let forgotten = (self.sent + PROBE_LIMIT).saturating_sub(PROBES_KNOWN);
        self.sent_at.copy_within(forgotten..self.sent, 0);
        self.token = self.token.wrapping_add(forgotten as u64);
        self.sent -= forgotten;
        self.before = self.sent;
        self.next = self.next.min(now);
    }

    /// Notes that a Ping leaves. Returns its token.
    fn send(&mut self, now: Instant) -> u64 {
        let token = self.token.wrapping_add(self.sent as u64);
        self.sent_at[self.sent] = now;
        self.sent += 1;
        token
    }

    /// When the Ping with `token` was sent, if it is one of this burst.
    fn sent_at(&self, token: u64) -> Option<Instant> {
        let index = usize::try_from(token.wrapping_sub(self.token)).ok()?;
        self.sent_at.get(..self.sent)?.get(index).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    use crate::path::{FourTuple, PathSet, PathSlot, SocketId};

    const MS: Duration = Duration::from_millis(1);

    fn at(host: u8, port: u16) -> Via {
        Via::Direct(FourTuple { socket: SocketId(0), local: None, remote: ([192, 0, 2, host], port).into() })
    }

    /// Proves a path of an idle pair, and answers what is sent to find out what paths carry. Returns by which it is sent.
    fn prove(set: &mut PathSet, via: Via) -> Vec<PathSlot> {
        let mut now = Instant::from_millis(1_000);
        let slot = set.insert(now, via, PathClass::Direct);
        set.prove(now, slot, Proof::Pong(MS));
        set.reselect(now, || 0);
        let mut probed = Vec::new();
        while now < Instant::FAR_FUTURE {
            while let Some((slot, probe)) = set.poll_mtu(now, || 7) {
                probed.push(slot);
                set.on_pong(now, slot, probe.token, Duration::ZERO);
            }
            now = set.next_deadline();
        }
        probed
    }

    #[test]
    fn another_port_of_a_peer_is_no_reason_to_search_again() {
        let mut set = PathSet::default();
        assert_eq!(prove(&mut set, at(1, 1)), [PathSlot(0)]);
        let room = set.get(PathSlot(0)).map(Path::room);
        for port in 2..5 {
            assert_eq!(prove(&mut set, at(1, port)), []);
            let slot = set.find(&at(1, port)).unwrap();
            assert_eq!(set.get(slot).map(Path::room), room);
        }
        assert_eq!(prove(&mut set, at(2, 1)), [PathSlot(4)], "another way may carry less");
    }

    /// What is beyond the limit of mirroring moves at the end of the grace, and arrives half a round trip later.
    #[test]
    fn a_path_can_answer_in_time_and_a_dead_one_is_left_within_three_round_trips_and_200_ms() {
        for (rtt, jitter) in [1, 5, 20, 50, 100, 300, 600, 1_000].into_iter().flat_map(|ms| [(ms, 0), (ms, 10)]) {
            let (rtt, now) = (MS * rtt, Instant::from_millis(1_000));
            let mut path = Path::new(at(1, 1), PathClass::Direct, 1_400, now);
            (0..30).for_each(|n| path.prove(now, Proof::Pong(rtt * (100 + n % 2 * 2 * jitter - jitter) / 100)));
            path.suspect(now);
            let grace = path.grace_end().unwrap().since(now);
            assert!(grace >= path.second_ping() + rtt, "{grace:?} where an answer takes {rtt:?}");
            let outage = path.patience() + grace + rtt / 2;
            assert!(outage <= rtt * 3 + MS * 200, "{outage:?} at a round trip of {rtt:?}");
        }
    }

    /// A pair 150 ms apart that sends a short packet every 100 ms and a long one every 50 ms, while only datagrams of at most
    /// `limit` bytes arrive.
    struct Pair {
        set: PathSet,
        slot: PathSlot,
        now: Instant,
        sent: u64,
        received: u64,
        doubts: usize,
        /// What arrives here, and when.
        answers: Vec<(Instant, Answer)>,
    }

    enum Answer {
        Pong(u64),
        Receipt(u64, u64),
    }

    impl Pair {
        fn new() -> Pair {
            let mut set = PathSet::default();
            let now = Instant::from_millis(1_000);
            let slot = set.insert(now, at(1, 1), PathClass::Direct);
            (0..20).for_each(|_| set.prove(now, slot, Proof::Pong(MS * 150)));
            set.reselect(now, || 0);
            Pair { set, slot, now, sent: 0, received: 0, doubts: 0, answers: Vec::new() }
        }

        fn path(&self) -> &Path {
            self.set.get(self.slot).unwrap()
        }

        fn run(&mut self, time: Duration, limit: usize) {
            let end = self.now + time;
            while self.now < end {
                self.step(limit);
                self.now += MS * 10;
            }
        }

        fn step(&mut self, limit: usize) {
            let (now, slot) = (self.now, self.slot);
            let due = |answers: &[(Instant, Answer)]| answers.iter().position(|(at, _)| *at <= now);
            while let Some((_, answer)) = due(&self.answers).map(|index| self.answers.remove(index)) {
                match answer {
                    Answer::Pong(token) => _ = self.set.on_pong(now, slot, token, Duration::ZERO),
                    Answer::Receipt(largest, received) => self.set.on_receipt(now, slot, largest, received),
                }
            }
            let step = now.since(Instant::from_millis(0)).as_millis();
            for length in [(step % 100 == 0).then_some(100), (step % 50 == 0).then_some(1_400)].into_iter().flatten() {
                self.sent += 1;
                self.set.on_data_sent(now, slot, (self.sent, length), || 1 << 32);
                if length <= limit {
                    self.received += 1;
                    self.answers.push((now + MS * 200, Answer::Receipt(self.sent, self.received)));
                }
            }
            let was_usable = self.path().state == PathState::Usable;
            self.set.check_liveness(now, || 2 << 32);
            self.doubts += usize::from(was_usable && self.path().state == PathState::Suspect);
            while let Some(probe) = self.set.poll_probe(now, || 3 << 32).filter(|_| limit > 0) {
                self.answers.push((now + MS * 150, Answer::Pong(probe.token)));
            }
            let token = (4 << 32) + now.since(Instant::from_millis(0)).as_millis() as u64;
            while let Some((_, probe)) = self.set.poll_mtu(now, || token) {
                if probe.size <= limit {
                    self.answers.push((now + MS * 150, Answer::Pong(probe.token)));
                }
            }
        }
    }

    #[test]
    fn a_path_that_got_narrow_is_found_out_while_its_short_packets_put_it_in_doubt_and_out_again() {
        let mut pair = Pair::new();
        pair.run(Duration::from_secs(5), 1_500);
        let wide = pair.path().room();
        assert!(wide >= 1_400 && pair.doubts == 0, "{wide}");
        pair.run(Duration::from_secs(10), 1_300);
        assert!(pair.doubts > 20, "{}", pair.doubts);
        assert!(pair.path().room() <= 1_300, "{}", pair.path().room());
        assert!(pair.path().loses_too_much(pair.now), "its losses are counted too");
    }

    #[test]
    fn an_outage_is_no_loss() {
        let mut pair = Pair::new();
        pair.run(Duration::from_secs(5), 1_500);
        let wide = pair.path().room();
        for outage in [200, 400, 600, 1_000, 5_000, 1_000, 5_000] {
            pair.run(MS * outage, 0);
            pair.run(Duration::from_secs(3), 1_500);
            assert_eq!(pair.path().state, PathState::Usable);
            assert_eq!(pair.path().room(), wide, "after {outage} ms");
            assert!(!pair.path().loses_too_much(pair.now), "after {outage} ms");
        }
    }

    /// Each outage takes a try of the same size with it.
    #[test]
    fn outages_say_nothing_of_sizes() {
        let (mut set, mut now) = (PathSet::default(), Instant::from_millis(1_000));
        let slot = set.insert(now, at(1, 1), PathClass::Direct);
        set.prove(now, slot, Proof::Pong(MS * 10));
        set.reselect(now, || 0);
        let size = set.poll_mtu(now, || 7).unwrap().1.size;
        for _ in 0..5 {
            set.on_data_sent(now, slot, (1, 100), || 8);
            now += set.patience();
            set.check_liveness(now, || 9);
            assert!(set.poll_mtu(now, || 7).is_none(), "silence says nothing of sizes");
            now += Duration::from_secs(1);
            set.prove(now, slot, Proof::Pong(MS * 10));
            assert_eq!(set.poll_mtu(now, || 7).map(|(_, probe)| probe.size), Some(size));
        }
    }

    /// A stall of 400 ms: the path is in doubt, proven by a receipt, and in doubt again, and then the Pongs come.
    #[test]
    fn a_second_doubt_in_a_burst_asks_anew_and_forgets_no_ping() {
        let start = Instant::from_millis(1_000);
        let path = || {
            let mut path = Path::new(at(1, 1), PathClass::Direct, 1_400, start);
            path.prove(start, Proof::Pong(MS * 50));
            path
        };
        let ask = |path: &mut Path, now| match path.step_probe(now) {
            ProbeStep::Send(token) => Some(token),
            ProbeStep::Wait | ProbeStep::Failed => None,
        };
        for asked in 0..5 {
            let mut path = path();
            path.start_probe(start, 100);
            let mut now = start;
            let mut tokens = Vec::new();
            for _ in 0..asked {
                tokens.extend(ask(&mut path, now));
                now = path.probe.unwrap().next;
            }
            assert_eq!(tokens.len(), asked);
            path.prove(now, Proof::Receipt);
            for doubt in 0..3 {
                now += MS;
                path.suspect(now);
                path.start_probe(now, 200);
                let first = ask(&mut path, now).expect("it is asked at once");
                now += path.second_ping();
                let second = ask(&mut path, now).expect("and a second time");
                assert_eq!(ask(&mut path, now + MS * 50), None, "and then less often");
                assert_eq!(path.probe.unwrap().count(), 2);
                assert_ne!(first, second);
                tokens.extend([first, second]);
                if doubt < 2 {
                    path.prove(now, Proof::Receipt);
                }
            }
            for token in tokens.iter().rev().take(PROBE_LIMIT + 2) {
                let mut path = path.clone();
                assert!(path.on_pong(now + MS, *token, Duration::ZERO).is_some(), "{asked} asked, the Pong to {token}");
                assert_eq!(path.state, PathState::Usable);
            }
        }
    }

    /// 50 ms that vary by 25 are waited for. The second Ping of a doubt follows after a quarter of that, the others after twice
    /// and four times 150 ms, and the last has as long as the next would have been waited for.
    #[test]
    fn a_burst_leaves_its_last_ping_the_time_of_an_answer() {
        let start = Instant::from_millis(1_000);
        let sent = |is_suspect: bool| {
            let mut path = Path::new(at(1, 1), PathClass::Direct, 1_400, start);
            path.prove(start, Proof::Pong(MS * 50));
            if is_suspect {
                path.suspect(start);
            }
            path.start_probe(start, 1);
            let (mut now, mut times) = (start, Vec::new());
            while let ProbeStep::Send(_) = path.step_probe(now) {
                times.push(now.since(start).as_millis());
                now = path.probe.unwrap().next;
            }
            assert_eq!(path.state, PathState::Suspect);
            times.push(now.since(start).as_millis());
            times
        };
        assert_eq!(sent(true), [0, 37, 337, 937, 2_137]);
        assert_eq!(sent(false), [0, 150, 450, 1_050, 2_250]);
    }
}
