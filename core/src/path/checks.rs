//! Connectivity checks: trying the addresses at which a peer may be reached (RFC 8445, section 7).
//!
//! A target of the list is not a path. It becomes one when a check of it is answered; a path that is lost later is sought by
//! its [`PathSet`](super::PathSet).

use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use super::FourTuple;
use crate::rate::{Bucket, Rate};
use crate::time::Instant;
use crate::wire::{CandidateKind, CheckOutcome, CheckResult, Signal};

/// Addresses of one peer that are tried at most.
pub const MAX_TARGETS: usize = Signal::MAX_ITEMS;

/// Of these, at most so many that this node knows of itself, so that what the peer tells finds room.
const MAX_LOCAL: usize = 8;

/// Pauses after each try of a burst, in milliseconds. The two sides begin up to a round trip of their signaling apart and NATs open only when
/// both have sent, so the tries go on for some seconds; the last pause is the patience for late answers.
const PAUSES_MS: [u64; 8] = [100, 100, 200, 400, 600, 600, 800, 1000];

/// A burst that has run for this long is begun anew when there is a reason.
const RESTART_AFTER: Duration = Duration::from_secs(1);

/// Addresses that a peer may name anew: at most 64 in any minute. More would make this node its port scanner.
const NEW_ADDRESSES: Rate = Rate { units: 32, per: Duration::from_secs(60), burst: 32 };

/// Datagrams for checks of one peer: three full bursts at once, and then one in sixteen seconds.
const DATAGRAMS: Rate = Rate { units: 8, per: Duration::from_secs(1), burst: 384 };

/// Tries whose answers are recognised.
const REMEMBERED: usize = 8;

/// A check that is due: a Ping, or a Hello where there is no session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DueCheck {
    /// Where to send it.
    pub via: FourTuple,
    /// What the Pong must echo.
    pub token: u64,
}

/// A check was answered: the address is a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answered {
    /// The path.
    pub via: FourTuple,
    /// How the address was learned.
    pub kind: CandidateKind,
    /// Whether the peer's Signal named it, and not this node's own configuration or memory.
    pub by_signal: bool,
    /// The round trip.
    pub rtt: Duration,
}

/// What a Signal changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Merged {
    /// Addresses that were not known.
    pub added: usize,
    /// Addresses beyond what a peer may name in a minute, or for which there was no room.
    pub refused: usize,
}

/// A target as reports show it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CheckView {
    /// The address, and the socket that it is tried by.
    pub via: FourTuple,
    /// How the address was learned.
    pub kind: CandidateKind,
    /// What came of it last.
    pub outcome: CheckOutcome,
    /// Tries in all.
    pub tries: u64,
    /// The round trip of the last answer.
    pub rtt: Option<Duration>,
    /// When it was last tried.
    pub last_try: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Target {
    via: FourTuple,
    kind: CandidateKind,
    by_signal: bool,
    /// Whether the latest Signal named it.
    named: bool,
    outcome: CheckOutcome,
    unsendable: bool,
    rtt: Option<Duration>,
    /// When its burst of tries began, while one is under way.
    burst: Option<Instant>,
    next: Instant,
    /// The n-th try of a burst carries `token + n`.
    token: u64,
    sent: u64,
    sent_at: [Instant; REMEMBERED],
    tries: u64,
    last_try: Option<Instant>,
}

impl Target {
    fn new(kind: CandidateKind, via: FourTuple, by_signal: bool) -> Target {
        Target {
            via,
            kind,
            by_signal,
            named: by_signal,
            outcome: CheckOutcome::Waiting,
            unsendable: false,
            rtt: None,
            burst: None,
            next: Instant::FAR_FUTURE,
            token: 0,
            sent: 0,
            sent_at: [Instant::ORIGIN; REMEMBERED],
            tries: 0,
            last_try: None,
        }
    }

    fn begin(&mut self, now: Instant, token: u64) {
        self.burst = Some(now);
        self.next = now;
        self.token = token;
        self.sent = 0;
        self.unsendable = false;
    }

    fn rest(&mut self, outcome: CheckOutcome) {
        self.burst = None;
        self.next = Instant::FAR_FUTURE;
        self.outcome = outcome;
    }

    /// What its silence means.
    fn unanswered(&self) -> CheckOutcome {
        if self.unsendable { CheckOutcome::Refused } else { CheckOutcome::Silent }
    }

    /// When the try with `token` was sent, if it is one of the latest.
    fn sent_at(&self, token: u64) -> Option<Instant> {
        let n = token.wrapping_sub(self.token);
        let is_remembered = n < self.sent && self.sent - n <= REMEMBERED as u64;
        is_remembered.then(|| self.sent_at[n as usize % REMEMBERED])
    }

    /// Counts a try and returns its token. Pauses count from now, so that a host that slept does not make up for it.
    fn take_try(&mut self, now: Instant) -> u64 {
        let n = self.sent;
        self.sent_at[n as usize % REMEMBERED] = now;
        self.sent += 1;
        self.tries += 1;
        self.last_try = Some(now);
        self.next = now + Duration::from_millis(PAUSES_MS[(n as usize).min(PAUSES_MS.len() - 1)]);
        self.token.wrapping_add(n)
    }

    /// Whether a new address may take its place.
    fn is_dispensable(&self) -> bool {
        self.by_signal && !self.named && self.burst.is_none()
    }
}

/// The addresses of one peer that are tried.
#[derive(Clone, Debug, Default)]
pub struct CheckList {
    /// At most [`MAX_TARGETS`]. On the heap, because most peers have few.
    targets: Vec<Target>,
    new_addresses: Bucket,
    datagrams: Bucket,
}

impl CheckList {
    /// Adds an address that this node knows of itself: configured, or one at which the peer was before. Returns whether it is
    /// new and found room.
    pub fn add(&mut self, kind: CandidateKind, via: FourTuple) -> bool {
        if let Some(known) = self.find(&via) {
            known.by_signal = false;
            return false;
        }
        let local = self.targets.iter().filter(|target| !target.by_signal).count();
        local < MAX_LOCAL && self.insert(Target::new(kind, via, false))
    }

    /// Takes in the addresses of the peer's latest Signal, those that may be tried, the best first. Known ones keep their
    /// outcome. Those of an earlier Signal that it does not name are forgotten, unless they are being tried or answered.
    pub fn merge(&mut self, now: Instant, named: &[(CandidateKind, FourTuple)]) -> Merged {
        for target in &mut self.targets {
            target.named = named.iter().any(|(_, via)| target.via.admits(via));
        }
        self.targets.retain(|target| !target.is_dispensable() || target.outcome == CheckOutcome::Answered);
        let mut merged = Merged::default();
        for (kind, via) in named {
            if self.find(via).is_some() {
                continue;
            }
            let added = self.new_addresses.take(now, &NEW_ADDRESSES, 1) && self.insert(Target::new(*kind, *via, true));
            merged.added += usize::from(added);
            merged.refused += usize::from(!added);
        }
        merged
    }

    /// Begins a burst of tries of every address that is not covered by a usable path. One that is under way goes on, unless it
    /// has had its best time. Each burst draws a token.
    pub fn start(&mut self, now: Instant, is_covered: impl Fn(&FourTuple) -> bool, mut token: impl FnMut() -> u64) {
        for target in &mut self.targets {
            let is_young = target.burst.is_some_and(|began| now.since(began) < RESTART_AFTER);
            let is_forgotten = target.by_signal && !target.named;
            if is_young || is_forgotten || is_covered(&target.via) {
                continue;
            }
            target.begin(now, token());
        }
    }

    /// The next check that is due at `now`.
    pub fn poll(&mut self, now: Instant) -> Option<DueCheck> {
        loop {
            let (budget, due) = (&mut self.datagrams, |target: &&mut Target| target.next <= now);
            let target = self.targets.iter_mut().find(due)?;
            if target.sent >= PAUSES_MS.len() as u64 {
                target.rest(target.unanswered());
                continue;
            }
            if !budget.take(now, &DATAGRAMS, 1) {
                target.next = budget.available_at(&DATAGRAMS, 1);
                continue;
            }
            let token = target.take_try(now);
            return Some(DueCheck { via: target.via, token });
        }
    }

    /// Takes in a Pong that no path asked for. Where a check carried `token`, its address is a path: it is proven that what
    /// is sent there arrives, by whatever way the Pong came. `held` is how long the peer says that it held the answer.
    pub fn on_pong(&mut self, now: Instant, token: u64, held: Duration) -> Option<Answered> {
        let (target, sent) = self.targets.iter_mut().find_map(|target| {
            let sent = target.sent_at(token)?;
            Some((target, sent))
        })?;
        let elapsed = now.since(sent);
        // As for a path: an exaggeration makes it look faster by half at most.
        let rtt = elapsed.saturating_sub(held.min(elapsed / 2));
        target.rtt = Some(rtt);
        target.rest(CheckOutcome::Answered);
        Some(Answered { via: target.via, kind: target.kind, by_signal: target.by_signal, rtt })
    }

    /// Notes that a handshake went out to this address and its answer came back from there.
    pub fn on_handshake(&mut self, via: &FourTuple) {
        if let Some(target) = self.find(via) {
            target.rest(CheckOutcome::Answered);
        }
    }

    /// Notes that the host could not send to an address. It is tried on all the same: a route may come, and a NAT may refuse
    /// until its own side has sent.
    pub fn on_unsendable(&mut self, remote: SocketAddr) {
        for target in self.targets.iter_mut().filter(|target| target.via.remote == remote) {
            target.unsendable = true;
        }
    }

    /// Forgets every address that this node configured and that `keep` does not hold: the configuration changed.
    pub fn retain_local(&mut self, keep: impl Fn(CandidateKind, &FourTuple) -> bool) {
        self.targets.retain(|target| target.by_signal || keep(target.kind, &target.via));
    }

    /// The addresses that only the peer's Signals named.
    pub fn signaled(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.targets.iter().filter(|target| target.by_signal).map(|target| target.via.remote)
    }

    /// What a Signal tells the peer: what came of trying the addresses.
    pub fn results(&self) -> impl Iterator<Item = CheckResult> + '_ {
        self.targets.iter().map(|target| CheckResult { address: target.via.remote, outcome: target.outcome })
    }

    /// Every target, for reports.
    pub fn iter(&self) -> impl Iterator<Item = CheckView> + '_ {
        self.targets.iter().map(|target| CheckView {
            via: target.via,
            kind: target.kind,
            outcome: target.outcome,
            tries: target.tries,
            rtt: target.rtt,
            last_try: target.last_try,
        })
    }

    /// When to call [`CheckList::poll`].
    pub fn next_deadline(&self) -> Instant {
        self.targets.iter().map(|target| target.next).min().unwrap_or(Instant::FAR_FUTURE)
    }

    fn find(&mut self, via: &FourTuple) -> Option<&mut Target> {
        self.targets.iter_mut().find(|target| target.via.admits(via))
    }

    /// Adds a target; where there is no room, one that nobody names any more gives way.
    fn insert(&mut self, target: Target) -> bool {
        if self.targets.len() >= MAX_TARGETS {
            let dispensable = |(_, target): &(usize, &Target)| target.is_dispensable();
            let oldest = self.targets.iter().enumerate().filter(dispensable).min_by_key(|(_, target)| target.last_try);
            let Some(position) = oldest.map(|(position, _)| position) else { return false };
            self.targets.remove(position);
        }
        self.targets.push(target);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::SocketId;
    use proptest::prelude::*;

    fn via(n: u16) -> FourTuple {
        FourTuple { socket: SocketId(0), local: None, remote: SocketAddr::from(([192, 0, 2, 1], n)) }
    }

    fn named(ports: core::ops::Range<u16>) -> Vec<(CandidateKind, FourTuple)> {
        ports.map(|port| (CandidateKind::Reflexive, via(port))).collect()
    }

    fn tokens() -> impl FnMut() -> u64 {
        let mut next = 0u64;
        move || {
            next += 1 << 32;
            next
        }
    }

    /// Polls by deadlines alone until `end`, and tells what was sent when.
    fn run(list: &mut CheckList, now: &mut Instant, end: Instant) -> Vec<(Instant, DueCheck)> {
        let mut sent = Vec::new();
        loop {
            while let Some(due) = list.poll(*now) {
                sent.push((*now, due));
            }
            let next = list.next_deadline();
            assert!(next > *now, "what is due is done");
            if next > end {
                *now = end;
                return sent;
            }
            *now = next;
        }
    }

    #[test]
    fn a_burst_and_its_end() {
        let (mut list, mut now) = (CheckList::default(), Instant::ORIGIN);
        assert_eq!(list.merge(now, &named(1..2)), Merged { added: 1, refused: 0 });
        assert_eq!(list.next_deadline(), Instant::FAR_FUTURE);
        list.start(now, |_| false, tokens());
        let sent = run(&mut list, &mut now, Instant::from_millis(10_000));
        let times: Vec<u64> = sent.iter().map(|(at, _)| at.as_nanos() / 1_000_000).collect();
        assert_eq!(times, [0, 100, 200, 400, 800, 1400, 2000, 2800]);
        let view = list.iter().next().unwrap();
        assert_eq!((view.outcome, view.tries), (CheckOutcome::Silent, 8));
        let late = list.on_pong(now, sent[7].1.token, Duration::ZERO);
        assert_eq!(late.map(|late| late.rtt), Some(Duration::from_millis(7200)), "a late answer is an answer");
        list.start(now, |_| false, tokens());
        assert_eq!(list.poll(now).map(|due| due.via), Some(via(1)));
    }

    #[test]
    fn an_answer_ends_it_and_names_the_path_that_was_tried() {
        let (mut list, mut now) = (CheckList::default(), Instant::ORIGIN);
        list.add(CandidateKind::Configured, via(9));
        list.merge(now, &named(1..3));
        list.start(now, |covered| *covered == via(9), tokens());
        let sent = run(&mut list, &mut now, Instant::from_millis(150));
        assert_eq!(sent.len(), 4);
        now = Instant::from_millis(160);
        let answered = list.on_pong(now, sent[3].1.token, Duration::from_millis(10)).unwrap();
        assert_eq!(answered.via, via(2));
        assert_eq!(answered.rtt, Duration::from_millis(50));
        assert!(answered.by_signal && list.on_pong(now, 77, Duration::ZERO).is_none());
        assert!(run(&mut list, &mut now, Instant::from_millis(9_000)).iter().all(|(_, due)| due.via == via(1)));
        let outcomes: Vec<_> = list.results().map(|result| result.outcome).collect();
        assert_eq!(outcomes, [CheckOutcome::Waiting, CheckOutcome::Silent, CheckOutcome::Answered]);
        assert_eq!(list.next_deadline(), Instant::FAR_FUTURE);
    }

    #[test]
    fn a_new_signal_restarts_what_is_old_and_leaves_what_is_young() {
        let (mut list, mut now, mut token) = (CheckList::default(), Instant::ORIGIN, tokens());
        list.merge(now, &named(1..2));
        list.start(now, |_| false, &mut token);
        run(&mut list, &mut now, Instant::from_millis(900));
        list.start(now, |_| false, &mut token);
        assert_eq!(list.poll(now), None);
        run(&mut list, &mut now, Instant::from_millis(1000));
        list.start(now, |_| false, &mut token);
        assert!(list.poll(now).is_some());
        assert_eq!(list.merge(now, &named(1..4)), Merged { added: 2, refused: 0 });
        list.start(now, |_| false, &mut token);
        assert_eq!(list.poll(now).map(|due| due.via), Some(via(2)));
    }

    #[test]
    fn an_address_that_cannot_be_sent_to_is_named() {
        let (mut list, mut now) = (CheckList::default(), Instant::ORIGIN);
        list.merge(now, &named(1..2));
        list.start(now, |_| false, tokens());
        list.poll(now);
        list.on_unsendable(via(1).remote);
        run(&mut list, &mut now, Instant::from_millis(9_000));
        assert_eq!(list.results().next().map(|result| result.outcome), Some(CheckOutcome::Refused));
        list.on_handshake(&via(1));
        assert_eq!(list.results().next().map(|result| result.outcome), Some(CheckOutcome::Answered));
    }

    #[test]
    fn what_is_configured_keeps_its_place() {
        let (mut list, now) = (CheckList::default(), Instant::ORIGIN);
        assert_eq!((100..120).filter(|port| list.add(CandidateKind::Configured, via(*port))).count(), MAX_LOCAL);
        assert_eq!(list.merge(now, &named(1..17)), Merged { added: 8, refused: 8 });
        assert!((100..108).all(|port| list.iter().any(|target| target.via == via(port))));
        list.retain_local(|_, kept| *kept == via(100));
        assert_eq!(list.iter().count(), 9);
    }

    #[derive(Clone, Debug)]
    enum Op {
        Merge(u16, u16),
        Start,
        Answer(usize),
        Wait(u64),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            3 => (1u16..500, 0u16..24).prop_map(|(first, count)| Op::Merge(first, count)),
            3 => Just(Op::Start),
            1 => (0usize..40).prop_map(Op::Answer),
            4 => (1u64..4_000).prop_map(Op::Wait),
        ]
    }

    proptest! {
        #[test]
        fn a_hostile_peer_gets_no_more_than_the_budget(ops in prop::collection::vec(op(), 0..150), seed in any::<u64>()) {
            let (mut list, mut now, mut token) = (CheckList::default(), Instant::ORIGIN, seed);
            let mut next_token = || {
                token = token.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                token
            };
            let mut sent: Vec<(Instant, DueCheck)> = Vec::new();
            let mut added: Vec<(Instant, usize)> = Vec::new();
            for op in ops {
                match op {
                    Op::Merge(first, count) => added.push((now, list.merge(now, &named(first..first + count)).added)),
                    Op::Start => list.start(now, |_| false, &mut next_token),
                    Op::Answer(back) => {
                        if let Some((at, due)) = sent.iter().rev().nth(back).copied()
                            && let Some(answered) = list.on_pong(now, due.token, Duration::ZERO)
                        {
                            prop_assert_eq!((answered.via, answered.rtt), (due.via, now.since(at)));
                        }
                    }
                    Op::Wait(ms) => {
                        let end = now + Duration::from_millis(ms);
                        sent.extend(run(&mut list, &mut now, end));
                    }
                }
                let minute = Duration::from_secs(60);
                let lately = added.iter().filter(|(at, _)| now.since(*at) < minute).map(|(_, count)| count).sum::<usize>();
                prop_assert!(lately <= 64);
                prop_assert!(list.targets.len() <= MAX_TARGETS);
            }
            let seconds = now.since(Instant::ORIGIN).as_secs() + 1;
            prop_assert!(sent.len() as u64 <= DATAGRAMS.burst + DATAGRAMS.units * seconds);
        }
    }
}
