//! How large a datagram one path carries, found out by padded probes (RFC 8899, datagram PLPMTUD).
//!
//! ICMP is not asked: many networks drop it and anybody may forge it. A probe is a Ping padded to the size in question; its
//! Pong proves that datagrams of this size pass. Sizes are UDP payload bytes, without the IP and UDP headers.
//!
//! ```text
//!             all candidates judged                       5 s later, if the path was used
//!  searching ------------------------> resting -------------------------------------------> confirming
//!      ^                                |   ^                                                |     |
//!      |   10 min later, if it was used |   +------------------ answered -------------------+     |
//!      +--------------------------------+                                                          |
//!      +---------------------- unanswered: a black hole, back to the base -------------------------+
//! ```
//!
//! The first candidate is the largest size, which most paths carry. Then the sizes that links in use leave are halved.

use core::time::Duration;

use heapless::Deque;

use crate::time::Instant;

/// Probes of one size, all unanswered, that show that the size does not pass (`MAX_PROBES` of RFC 8899 section 5.1.2).
const TRIES: u8 = 3;

/// While the path is used, its size is confirmed this often: a route that changes may carry less.
const CONFIRM_INTERVAL: Duration = Duration::from_secs(5);

/// A path that loses anyway has its size put in doubt this often.
const LOSS_INTERVAL: Duration = Duration::from_secs(1);

/// While the path is used, a larger size is tried this often (`PMTU_RAISE_TIMER` of RFC 8899 section 5.1.1).
const RAISE_INTERVAL: Duration = Duration::from_secs(600);

/// Sizes whose answers are recognised after the search has gone on: a sudden queue may hold every answer back for longer
/// than the timeout, and that must not look like a small path.
const REMEMBERED: usize = 4;

/// What links in use leave for a UDP payload, over IPv4 or IPv6: mobile networks (1340), WireGuard (1400, 1420), cloud
/// networks (1460), tunnels (1440, 1480), Ethernet (1500), jumbo frames (4080 to 9000).
const SIZES: [u16; 10] = [1312, 1372, 1392, 1412, 1432, 1452, 1472, 4052, 8152, 8952];

/// The largest UDP payload over IPv4.
const MAX_SIZE: u16 = 65_507;

/// A padded Ping to send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MtuProbe {
    /// The UDP payload that it must fill.
    pub size: usize,
    /// The token that the Pong must echo: the same for all tries of the size.
    pub token: u64,
}

/// What the search is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Goal {
    /// A larger size.
    Search,
    /// Nothing until `due`, or that the present size still passes.
    Rest,
}

/// A size under test.
#[derive(Clone, Copy, Debug)]
struct Probe {
    size: u16,
    sent: u8,
    token: u64,
}

/// The search for the MTU of one path.
///
/// It begins at once and is for usable paths only: while a path is suspect, silence says nothing about sizes. The caller
/// then neither polls nor heeds the deadline until the path is usable again, and calls [`MtuSearch::suspend`] where it was an
/// outage.
#[derive(Clone, Debug)]
pub struct MtuSearch {
    base: u16,
    target: u16,
    /// The largest size known to pass.
    mtu: u16,
    /// The smallest size known not to pass; one more than `target` where none is.
    ceiling: u16,
    goal: Goal,
    is_settled: bool,
    /// Whether data went by the path since the size was confirmed.
    in_use: bool,
    probe: Option<Probe>,
    /// When there is something to do.
    due: Instant,
    /// When a larger size is worth a try again.
    raise: Instant,
    /// When losses may put the size in doubt again.
    confirmable: Instant,
    recent: Deque<(u64, u16), REMEMBERED>,
}

impl MtuSearch {
    /// A search between `base`, which every path is taken to carry, and `target`, which the caller can send at most.
    pub fn new(now: Instant, base: usize, target: usize) -> MtuSearch {
        let base = to_size(base);
        let target = to_size(target).max(base);
        let mut search = MtuSearch {
            base,
            target,
            mtu: base,
            ceiling: target + 1,
            goal: Goal::Search,
            is_settled: false,
            in_use: false,
            probe: None,
            due: now,
            raise: now,
            confirmable: now,
            recent: Deque::new(),
        };
        search.proceed(now);
        search
    }

    /// The same findings for a path that leads the same way, once there are any. They are confirmed when it is used.
    pub fn handed_on(&self) -> Option<MtuSearch> {
        let rests = MtuSearch {
            goal: Goal::Rest,
            in_use: false,
            probe: None,
            due: Instant::FAR_FUTURE,
            recent: Deque::new(),
            ..*self
        };
        self.is_settled.then_some(rests)
    }

    /// The largest datagram that is known to pass.
    pub fn mtu(&self) -> usize {
        usize::from(self.mtu)
    }

    /// Whether every size was judged since the path began or fell back to the base. A later try of a larger size does not
    /// unsettle it.
    pub fn is_settled(&self) -> bool {
        self.is_settled
    }

    /// When [`MtuSearch::poll_probe`] is to be asked again.
    pub fn next_deadline(&self) -> Instant {
        self.due
    }

    /// The probe that is due at `now`, if one is. `timeout` is how long its answer may take: a few round-trip times.
    /// `token` draws the probe's token. Once there is none, the deadline is later than `now`.
    pub fn poll_probe(&mut self, now: Instant, timeout: Duration, token: impl FnOnce() -> u64) -> Option<MtuProbe> {
        if now < self.due {
            return None;
        }
        if let Some(Probe { size, sent: TRIES.., .. }) = self.probe {
            self.fail(now, size);
        }
        let mut probe = match self.probe {
            Some(probe) => probe,
            None => {
                let size = self.next_size(now)?;
                self.begin(size, token())
            }
        };
        probe.sent += 1;
        self.probe = Some(probe);
        // Never at once, or a path without delay would be judged within one instant.
        self.due = now + timeout.max(Duration::from_millis(1));
        Some(MtuProbe { size: usize::from(probe.size), token: probe.token })
    }

    /// Takes in the token of a Pong. Returns the size that it proves, or `None` where it answers no probe of this search.
    pub fn on_answer(&mut self, now: Instant, token: u64) -> Option<usize> {
        let size = self.recent.iter().find(|(probe, _)| *probe == token)?.1.min(self.target);
        self.mtu = self.mtu.max(size);
        if size >= self.ceiling {
            // What failed was not the size. Sizes above may have failed for the same reason.
            self.ceiling = self.target + 1;
            self.goal = Goal::Search;
        }
        if self.probe.is_some_and(|probe| probe.size <= size) {
            self.probe = None;
            self.proceed(now);
        } else if self.probe.is_none() && self.goal == Goal::Search {
            self.proceed(now);
        }
        Some(usize::from(size))
    }

    /// Notes that this host refused to send a datagram of `size` bytes: its own link is smaller (`EMSGSIZE`).
    pub fn on_send_refused(&mut self, now: Instant, size: usize) {
        let size = to_size(size);
        if size <= self.base {
            return;
        }
        self.ceiling = self.ceiling.min(size);
        if self.mtu >= size {
            self.fall_back();
        }
        if self.probe.is_some_and(|probe| probe.size >= size) {
            self.probe = None;
        }
        if self.probe.is_none() {
            self.proceed(now);
        }
    }

    /// Falls back to the base and searches anew: datagrams of the present size do not arrive any more.
    pub fn on_black_hole(&mut self, now: Instant) {
        if self.mtu > self.base {
            self.ceiling = self.target + 1;
            self.fall_back();
            self.proceed(now);
        }
    }

    /// Asks whether the present size still passes, without waiting for the next time that it is confirmed anyway: for a
    /// caller that sees losses. Once a second at most.
    pub fn confirm(&mut self, now: Instant) {
        if self.probe.is_none() && self.goal == Goal::Rest && self.mtu > self.base && self.confirmable <= now {
            self.confirmable = now + LOSS_INTERVAL;
            self.in_use = true;
            self.due = now;
        }
    }

    /// Notes that data goes by the path. Returns whether the deadline changed, so that the caller looks at its timers only
    /// then.
    pub fn on_use(&mut self, now: Instant) -> bool {
        self.in_use = true;
        let wakes = self.due == Instant::FAR_FUTURE && self.base < self.target;
        if wakes {
            self.due = now + CONFIRM_INTERVAL;
        }
        wakes
    }

    /// Changes the largest size to try: the host's link or the route changed, or the path's overhead did.
    pub fn set_target(&mut self, now: Instant, target: usize) {
        let target = to_size(target).max(self.base);
        if target == self.target {
            return;
        }
        if target > self.target {
            self.ceiling = target + 1;
            self.goal = Goal::Search;
        }
        self.target = target;
        self.mtu = self.mtu.min(target);
        self.ceiling = self.ceiling.min(target + 1);
        if self.probe.is_some_and(|probe| probe.size > target) {
            self.probe = None;
        }
        if self.probe.is_none() {
            self.proceed(now);
        }
    }

    /// Forgets the tries under way: there was an outage, and what was lost in it says nothing about sizes.
    pub fn suspend(&mut self) {
        self.probe = None;
    }

    /// A probe of `size`, remembered by its token.
    fn begin(&mut self, size: u16, token: u64) -> Probe {
        if self.recent.is_full() {
            self.recent.pop_front();
        }
        // There is room: the oldest has just gone.
        let _ = self.recent.push_back((token, size));
        Probe { size, sent: 0, token }
    }

    /// The size to probe next, now that no probe is out and something is due.
    fn next_size(&mut self, now: Instant) -> Option<u16> {
        if self.goal == Goal::Rest {
            if !core::mem::take(&mut self.in_use) {
                self.due = Instant::FAR_FUTURE;
                return None;
            }
            if self.raise > now || self.mtu == self.target {
                self.due = now + CONFIRM_INTERVAL;
                return (self.mtu > self.base).then_some(self.mtu);
            }
            self.ceiling = self.target + 1;
            self.goal = Goal::Search;
        }
        let candidate = self.candidate();
        if candidate.is_none() {
            self.proceed(now);
        }
        candidate
    }

    /// The next size of the search: the target, then the middle one of those that are left.
    fn candidate(&self) -> Option<u16> {
        if self.ceiling > self.target {
            return (self.mtu < self.target).then_some(self.target);
        }
        let open = SIZES.into_iter().filter(|size| (self.mtu + 1..self.ceiling).contains(size));
        open.clone().nth(open.count() / 2)
    }

    /// Takes in that all tries of `size` went unanswered.
    fn fail(&mut self, now: Instant, size: u16) {
        self.probe = None;
        self.ceiling = self.ceiling.min(size);
        if size <= self.mtu {
            self.fall_back();
        }
        self.proceed(now);
    }

    /// To the base, and from there upwards again. Answers to what was sent before prove nothing about the path as it is.
    fn fall_back(&mut self) {
        self.mtu = self.base;
        self.goal = Goal::Search;
        self.is_settled = false;
        self.probe = None;
        self.recent.clear();
    }

    /// Plans what follows, now that no probe is out.
    fn proceed(&mut self, now: Instant) {
        if self.goal == Goal::Search && self.candidate().is_some() {
            self.due = now;
            return;
        }
        if self.goal == Goal::Search {
            self.goal = Goal::Rest;
            self.is_settled = true;
            self.raise = now + RAISE_INTERVAL;
        }
        self.due = if self.base < self.target { now + CONFIRM_INTERVAL } else { Instant::FAR_FUTURE };
    }
}

/// A size as it is kept. What exceeds a datagram is a datagram.
fn to_size(bytes: usize) -> u16 {
    u16::try_from(bytes).unwrap_or(MAX_SIZE).min(MAX_SIZE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    const TIMEOUT: Duration = Duration::from_millis(200);
    const BASE: usize = 1252;

    /// A path that carries datagrams of up to `mtu` bytes and answers after `rtt`.
    struct Link {
        mtu: usize,
        rtt: Duration,
        /// Of the probes that would pass, every n-th is lost; none where it is 0.
        lose_every: u32,
        passed: u32,
        answers: Vec<(Instant, u64)>,
    }

    struct Rig {
        now: Instant,
        search: MtuSearch,
        link: Link,
        tokens: u64,
        /// When each probe was sent and its size.
        probes: Vec<(Instant, usize)>,
    }

    impl Rig {
        fn new(target: usize, mtu: usize) -> Rig {
            let now = Instant::from_millis(1000);
            let link = Link { mtu, rtt: Duration::from_millis(40), lose_every: 0, passed: 0, answers: Vec::new() };
            Rig { now, search: MtuSearch::new(now, BASE, target), link, tokens: 0, probes: Vec::new() }
        }

        /// Sleeps exactly until the next deadline or answer, for `time`, with data on the path or without.
        fn run(&mut self, time: Duration, in_use: bool) {
            let end = self.now + time;
            loop {
                if in_use {
                    self.search.on_use(self.now);
                }
                self.poll();
                let answer = self.link.answers.iter().map(|(at, _)| *at).min().unwrap_or(Instant::FAR_FUTURE);
                let next = answer.min(self.search.next_deadline());
                if next > end {
                    self.now = end;
                    return;
                }
                self.now = next.max(self.now);
                if let Some(index) = self.link.answers.iter().position(|(at, _)| *at <= self.now) {
                    let (_, token) = self.link.answers.remove(index);
                    self.search.on_answer(self.now, token);
                }
            }
        }

        fn poll(&mut self) {
            let tokens = &mut self.tokens;
            let mut sent = 0;
            while let Some(probe) = self.search.poll_probe(self.now, TIMEOUT, || {
                *tokens += 1;
                *tokens
            }) {
                sent += 1;
                assert!(sent <= 1, "one probe at a time");
                self.probes.push((self.now, probe.size));
                if probe.size <= self.link.mtu {
                    self.link.passed += 1;
                    if self.link.lose_every == 0 || !self.link.passed.is_multiple_of(self.link.lose_every) {
                        self.link.answers.push((self.now + self.link.rtt, probe.token));
                    }
                }
            }
            assert!(self.search.next_deadline() > self.now, "a deadline that polling did not move");
        }

        /// The largest size that the search can find on the link.
        fn best(&self) -> usize {
            let target = usize::from(self.search.target);
            let sizes = SIZES.iter().map(|size| usize::from(*size)).chain([BASE, target]);
            sizes.filter(|size| *size <= self.link.mtu && *size <= target).max().unwrap_or(BASE)
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_first_probe_is_the_target_and_mostly_the_last() {
        let mut rig = Rig::new(1472, 1472);
        assert!(!rig.search.is_settled());
        rig.run(SECOND, false);
        assert_eq!(rig.probes, [(Instant::from_millis(1000), 1472)]);
        assert_eq!((rig.search.mtu(), rig.search.is_settled()), (1472, true));
    }

    #[test]
    fn a_smaller_path_is_found_by_halving_within_its_tries() {
        let mut rig = Rig::new(1472, 1400);
        rig.run(SECOND * 3, false);
        assert_eq!((rig.search.mtu(), rig.search.is_settled()), (1392, true));
        let sizes: Vec<_> = rig.probes.iter().map(|(_, size)| *size).collect();
        assert_eq!(sizes, [1472, 1472, 1472, 1412, 1412, 1412, 1372, 1392]);
        assert_eq!(rig.probes[6].0.since(rig.probes[0].0), TIMEOUT * 6);
    }

    #[test]
    fn a_path_of_the_least_size_settles_at_the_base() {
        let mut rig = Rig::new(1472, BASE);
        rig.run(SECOND * 3, false);
        assert_eq!((rig.search.mtu(), rig.search.is_settled(), rig.probes.len()), (BASE, true, 12));
        let mut rig = Rig::new(BASE, BASE);
        rig.run(SECOND * 3600, true);
        assert!(rig.search.is_settled() && rig.probes.is_empty());
        assert_eq!(rig.search.next_deadline(), Instant::FAR_FUTURE);
    }

    #[test]
    fn an_unused_path_is_left_alone() {
        let mut rig = Rig::new(1472, 1400);
        rig.run(SECOND * 3600, false);
        assert_eq!(rig.probes.len(), 8);
        assert_eq!(rig.search.next_deadline(), Instant::FAR_FUTURE);
        assert!(rig.search.on_use(rig.now) && !rig.search.on_use(rig.now));
        assert_eq!(rig.search.next_deadline(), rig.now + CONFIRM_INTERVAL);
    }

    #[test]
    fn findings_that_are_handed_on_are_confirmed_in_use() {
        let mut rig = Rig::new(1472, 1400);
        assert!(rig.search.handed_on().is_none(), "nothing is known yet");
        rig.run(SECOND * 3, false);
        let before = rig.probes.len();
        rig.search = rig.search.handed_on().unwrap();
        rig.run(SECOND * 60, false);
        assert_eq!((rig.search.mtu(), rig.search.is_settled(), rig.probes.len()), (1392, true, before));
        rig.link.mtu = 1300;
        rig.run(CONFIRM_INTERVAL + TIMEOUT * 3, true);
        assert_eq!(rig.search.mtu(), BASE);
    }

    #[test]
    fn a_used_path_that_grows_is_found_out() {
        let mut rig = Rig::new(1472, 1300);
        rig.run(SECOND * 5, true);
        assert_eq!(rig.search.mtu(), BASE);
        rig.link.mtu = 1500;
        rig.run(RAISE_INTERVAL + CONFIRM_INTERVAL, true);
        assert_eq!((rig.search.mtu(), rig.search.is_settled()), (1472, true));
    }

    #[test]
    fn a_black_hole_is_noticed_and_left() {
        let mut rig = Rig::new(1472, 1472);
        rig.run(SECOND * 60, true);
        assert_eq!(rig.search.mtu(), 1472);
        rig.link.mtu = 1400;
        let before = rig.probes.len();
        rig.run(CONFIRM_INTERVAL + TIMEOUT * 7, true);
        let sizes: Vec<_> = rig.probes[before..].iter().map(|(_, size)| *size).collect();
        assert_eq!(sizes[..8], [1472, 1472, 1472, 1412, 1412, 1412, 1372, 1392]);
        assert_eq!((rig.search.mtu(), rig.search.is_settled()), (1392, true));

        rig.link.mtu = 1300;
        rig.search.on_black_hole(rig.now);
        assert_eq!((rig.search.mtu(), rig.search.next_deadline()), (BASE, rig.now));
        rig.run(SECOND * 3, true);
        assert_eq!((rig.search.mtu(), rig.search.is_settled()), (BASE, true));
    }

    #[test]
    fn losses_seen_elsewhere_bring_the_check_forward() {
        let mut rig = Rig::new(1472, 1472);
        rig.run(SECOND * 60, false);
        let before = rig.probes.len();
        rig.search.confirm(rig.now);
        rig.run(SECOND, false);
        assert_eq!((rig.probes.len(), rig.search.mtu()), (before + 1, 1472));
    }

    #[test]
    fn answers_of_before_a_black_hole_prove_nothing() {
        let mut search = MtuSearch::new(Instant::ORIGIN, BASE, 1472);
        search.poll_probe(Instant::ORIGIN, TIMEOUT, || 1);
        assert_eq!(search.on_answer(Instant::from_millis(1), 2), None);
        assert_eq!(search.on_answer(Instant::from_millis(1), 1), Some(1472));
        search.on_black_hole(Instant::from_millis(2));
        assert_eq!(search.on_answer(Instant::from_millis(3), 1), None);
        assert_eq!(search.mtu(), BASE);
    }

    #[test]
    fn late_answers_count() {
        let mut rig = Rig::new(1472, 1472);
        rig.link.rtt = TIMEOUT * 5;
        rig.run(SECOND * 3, false);
        assert_eq!((rig.search.mtu(), rig.search.is_settled()), (1472, true));
    }

    #[test]
    fn what_the_host_refuses_is_not_tried_again() {
        let mut search = MtuSearch::new(Instant::ORIGIN, BASE, 8952);
        assert_eq!(search.poll_probe(Instant::ORIGIN, TIMEOUT, || 1).map(|probe| probe.size), Some(8952));
        search.on_send_refused(Instant::ORIGIN, 8952);
        assert_eq!(search.poll_probe(Instant::ORIGIN, TIMEOUT, || 2).map(|probe| probe.size), Some(1432));
        search.on_answer(Instant::from_millis(1), 2);
        assert_eq!(search.mtu(), 1432);
        // The link became smaller than what is in use.
        search.on_send_refused(Instant::from_millis(2), 1432);
        assert_eq!((search.mtu(), search.is_settled()), (BASE, false));
        search.on_send_refused(Instant::from_millis(2), BASE);
        assert_eq!(search.mtu(), BASE);
    }

    #[test]
    fn a_new_target_is_tried_or_kept_to() {
        let mut rig = Rig::new(1472, 9000);
        rig.run(SECOND, false);
        rig.search.set_target(rig.now, 8000);
        rig.run(SECOND, false);
        assert_eq!(rig.search.mtu(), 8000);
        rig.search.set_target(rig.now, 1400);
        assert_eq!((rig.search.mtu(), rig.search.is_settled()), (1400, true));
        rig.search.set_target(rig.now, 100_000);
        assert!(rig.search.poll_probe(rig.now, TIMEOUT, || 0).is_some_and(|probe| probe.size == 65_507));
    }

    #[test]
    fn a_suspect_path_does_not_look_small() {
        let mut rig = Rig::new(1472, 0);
        rig.run(TIMEOUT * 2, true);
        rig.search.suspend();
        rig.now += SECOND * 30;
        rig.link.mtu = 1472;
        rig.run(SECOND, true);
        assert_eq!(rig.search.mtu(), 1472);
    }

    proptest! {
        /// Whatever the path does, the search ends at what it carries, soon and with few probes.
        #[test]
        fn finds_what_the_path_carries(
            target in BASE..9000,
            mtus in prop::collection::vec(BASE..9000, 1..5),
            rtt in 0u64..200,
            lose_every in prop_oneof![Just(0u32), 2u32..6],
        ) {
            let mut rig = Rig::new(target, mtus[0]);
            rig.link.rtt = Duration::from_millis(rtt);
            rig.link.lose_every = lose_every;
            for mtu in mtus {
                rig.link.mtu = mtu;
                let before = rig.probes.len();
                // A search for more may be under way.
                rig.run(CONFIRM_INTERVAL + TIMEOUT * 3 * 6, true);
                prop_assert!(rig.search.mtu() <= mtu, "a black hole outlives its confirmation");
                rig.run(RAISE_INTERVAL + CONFIRM_INTERVAL * 3, true);
                prop_assert_eq!(rig.search.mtu(), rig.best());
                prop_assert!(rig.search.is_settled());
                prop_assert!(rig.probes.len() - before < 250 * 2, "{} probes", rig.probes.len() - before);
            }
        }

        /// Any order of calls keeps the size between its bounds and the deadline honest.
        #[test]
        fn any_order_of_calls(ops in prop::collection::vec((0u8..9, 0u16..10_000, 0u64..3000), 0..200)) {
            let mut now = Instant::from_millis(1);
            let mut search = MtuSearch::new(now, BASE, 1472);
            let mut tokens = 0;
            for (op, size, wait) in ops {
                let size = usize::from(size);
                match op {
                    0 => search.on_black_hole(now),
                    1 => search.on_send_refused(now, size),
                    2 => search.set_target(now, size),
                    3 => search.confirm(now),
                    4 => search.suspend(),
                    5 => _ = search.on_use(now),
                    6 => _ = search.on_answer(now, wait % (tokens + 1)),
                    _ => now += Duration::from_millis(wait),
                }
                let mut polls = 0;
                while search.next_deadline() <= now {
                    search.poll_probe(now, TIMEOUT, || { tokens += 1; tokens });
                    polls += 1;
                    prop_assert!(polls < 20);
                }
                prop_assert!(search.mtu() >= BASE && search.mtu() <= usize::from(search.target));
                prop_assert!(search.ceiling > search.mtu);
            }
        }
    }
}
