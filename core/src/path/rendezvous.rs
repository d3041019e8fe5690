//! When to tell a peer where this node can be reached, and what to believe of what it tells.
//!
//! Two nodes behind NATs reach each other only if both send at about the same time. So each tells the other its candidates,
//! by Signals that a common peer carries or that a relay path brings, and both begin their checks when a Signal comes.

use core::time::Duration;

use heapless::Vec;

use crate::overlay::PeerIndex;
use crate::rng::Rng;
use crate::time::Instant;

/// Pauses after the first Signals of a search, in seconds: those may be lost, and what they tell may change as the other side learns how
/// it is seen.
const PAUSES_S: [u64; 4] = [1, 2, 5, 10];

/// After them: for as long as the pair is active and has no direct path.
const PERIOD: Duration = Duration::from_secs(30);

/// At most one answer in this time, and one Signal of one's own.
const ANSWER_INTERVAL: Duration = Duration::from_millis(500);

/// A peer to which no path is sought is asked at most once in this time where it can be reached.
const ASK_INTERVAL: Duration = Duration::from_secs(5);

/// A Signal with a stamp that is not greater than the last one is believed after this long: the peer may have lost its clock.
const STAMP_LIFETIME: Duration = Duration::from_secs(60);

/// Ways by which Signals of the peer come that are told apart; the one that was used longest ago is forgotten.
const MAX_WAYS: usize = 4;

/// A Signal that is to be made now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SignalDue {
    /// Whether it asks for one in return.
    pub wants_answer: bool,
}

/// When to signal to one peer.
#[derive(Clone, Debug, Default)]
pub struct Rendezvous {
    /// The pair is active and has no direct path.
    wanted: bool,
    /// Signals of the present search that were sent, and when the next is due.
    round: usize,
    next: Option<Instant>,
    /// When an answer is due.
    answer: Option<Instant>,
    /// When to ask once, and when that was done last.
    ask: Option<Instant>,
    last_asked: Option<Instant>,
    last_sent: Option<Instant>,
    /// The last Signals of the peer that were believed, one for each way.
    believed: Vec<Believed, MAX_WAYS>,
}

#[derive(Clone, Copy, Debug)]
struct Believed {
    carrier: Option<PeerIndex>,
    stamp: u64,
    at: Instant,
}

impl Rendezvous {
    /// Tells whether a direct path is wanted: somebody sends to the peer, and what there is leads through a relay or nowhere.
    pub fn set_wanted(&mut self, now: Instant, wanted: bool) {
        if wanted && !self.wanted {
            self.begin(now);
        }
        if !wanted {
            self.next = None;
        }
        self.wanted = wanted;
    }

    /// Something changed that makes success likelier: this node's candidates, a link, a lost path, a wake. The search begins
    /// anew.
    pub fn on_hint(&mut self, now: Instant) {
        if self.wanted {
            self.begin(now);
        }
    }

    /// Takes in a Signal of the peer, which came in its own session or was carried by `carrier`. Returns whether it is to be
    /// believed; if so its candidates are to be checked, and [`Rendezvous::on_news`] called if they were new.
    ///
    /// Stamps are compared for each way by itself: a carrier that lies about them can keep back what it carries, which it can
    /// anyhow, and nothing that comes another way. What comes by several ways is answered once.
    pub fn on_signal(&mut self, now: Instant, carrier: Option<PeerIndex>, stamp: u64, wants_answer: bool) -> bool {
        let is_recent = |known: &&Believed| now.since(known.at) < STAMP_LIFETIME;
        let is_repeated = self.believed.iter().filter(is_recent).any(|known| known.stamp == stamp);
        let position = self.believed.iter().position(|known| known.carrier == carrier);
        if let Some(position) = position {
            let known = self.believed[position];
            if stamp <= known.stamp && is_recent(&&known) {
                return false;
            }
            self.believed.remove(position);
        }
        if self.believed.is_full() {
            self.believed.remove(0);
        }
        if self.believed.push(Believed { carrier, stamp, at: now }).is_err() {
            unreachable!("room was just made for it");
        }
        if wants_answer && !is_repeated && self.answer.is_none() {
            self.answer = Some(self.not_before(now));
        }
        true
    }

    /// The peer named addresses that were not known: what this side tells of itself may reach it now.
    pub fn on_news(&mut self, now: Instant) {
        self.on_hint(now);
    }

    /// Asks the peer once where it can be reached, though no path to it is sought; but not so soon again.
    pub fn ask(&mut self, now: Instant) {
        if self.last_asked.is_none_or(|last| last + ASK_INTERVAL <= now) {
            self.last_asked = Some(now);
            self.ask = Some(self.not_before(now));
        }
    }

    /// The peer began a new life: its stamps begin anew.
    pub fn on_restart(&mut self) {
        self.believed.clear();
    }

    /// The Signal that is due at `now`. One that asks is an answer, too.
    pub fn poll(&mut self, now: Instant, rng: &mut Rng) -> Option<SignalDue> {
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let (is_round, is_asked) = (is_due(self.next), is_due(self.ask));
        if !is_round && !is_asked && !is_due(self.answer) {
            return None;
        }
        if is_round {
            let pause =
                PAUSES_S.get(self.round).map_or_else(|| rng.jitter(PERIOD, 10), |pause| Duration::from_secs(*pause));
            self.round = self.round.saturating_add(1);
            self.next = Some(now + pause);
        }
        (self.answer, self.ask) = (None, None);
        self.last_sent = Some(now);
        self.next = self.next.map(|next| next.max(now + ANSWER_INTERVAL));
        Some(SignalDue { wants_answer: is_round || is_asked })
    }

    /// When to call [`Rendezvous::poll`].
    pub fn next_deadline(&self) -> Instant {
        let times = [self.next, self.answer, self.ask];
        times.into_iter().flatten().min().unwrap_or(Instant::FAR_FUTURE)
    }

    fn begin(&mut self, now: Instant) {
        self.round = 0;
        self.next = Some(self.not_before(now));
    }

    fn not_before(&self, now: Instant) -> Instant {
        self.last_sent.map_or(now, |last| now.max(last + ANSWER_INTERVAL))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec as List;
    use proptest::prelude::{Just, Strategy, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};

    fn ms(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    /// Polls by deadlines alone until `end`, and tells what was sent when.
    fn run(side: &mut Rendezvous, rng: &mut Rng, now: &mut Instant, end: Instant) -> List<(Instant, SignalDue)> {
        let mut sent = List::new();
        loop {
            while let Some(due) = side.poll(*now, rng) {
                sent.push((*now, due));
            }
            let next = side.next_deadline();
            assert!(next > *now, "what is due is done");
            if next > end {
                *now = end;
                return sent;
            }
            *now = next;
        }
    }

    #[test]
    fn a_search_asks_often_and_then_rarely() {
        let (mut side, mut rng, mut now) = (Rendezvous::default(), Rng::from_seed([1; 32]), ms(0));
        assert_eq!(side.next_deadline(), Instant::FAR_FUTURE);
        side.on_hint(now);
        assert_eq!(side.poll(now, &mut rng), None, "nobody wants it");
        side.set_wanted(now, true);
        let sent = run(&mut side, &mut rng, &mut now, ms(18_000));
        let times: List<u64> = sent.iter().map(|(at, _)| at.as_nanos() / 1_000_000).collect();
        assert_eq!(times, [0, 1000, 3000, 8000, 18_000]);
        assert!(sent.iter().all(|(_, due)| due.wants_answer));
        let hour = run(&mut side, &mut rng, &mut now, ms(3_618_000)).len();
        assert!((110..=134).contains(&hour), "{hour}");
        side.on_hint(now);
        assert_eq!(side.poll(now, &mut rng), Some(SignalDue { wants_answer: true }));
        side.set_wanted(now, false);
        assert_eq!(side.next_deadline(), Instant::FAR_FUTURE);
    }

    #[test]
    fn who_asks_is_answered_but_not_at_every_word() {
        let (mut side, mut rng) = (Rendezvous::default(), Rng::from_seed([1; 32]));
        assert!(side.on_signal(ms(0), None, 1, false));
        assert_eq!(side.next_deadline(), Instant::FAR_FUTURE);
        assert!(side.on_signal(ms(0), None, 2, true));
        assert_eq!(side.poll(ms(0), &mut rng), Some(SignalDue { wants_answer: false }));
        assert!(side.on_signal(ms(100), None, 3, true) && side.on_signal(ms(200), None, 4, true));
        assert_eq!(side.next_deadline(), ms(500));
        assert!(side.poll(ms(499), &mut rng).is_none() && side.poll(ms(500), &mut rng).is_some());
        assert_eq!(side.poll(ms(500), &mut rng), None);
    }

    #[test]
    fn who_needs_no_path_is_asked_once_and_not_soon_again() {
        let (mut side, mut rng) = (Rendezvous::default(), Rng::from_seed([1; 32]));
        side.ask(ms(0));
        side.set_wanted(ms(0), false);
        assert_eq!(side.poll(ms(0), &mut rng), Some(SignalDue { wants_answer: true }));
        assert_eq!(side.next_deadline(), Instant::FAR_FUTURE);
        side.ask(ms(4_999));
        assert_eq!(side.next_deadline(), Instant::FAR_FUTURE);
        side.ask(ms(5_000));
        assert_eq!(side.next_deadline(), ms(5_000));
        assert!(side.on_signal(ms(5_000), None, 1, true));
        assert_eq!(
            side.poll(ms(5_000), &mut rng),
            Some(SignalDue { wants_answer: true }),
            "and that is an answer, too"
        );
        assert_eq!(side.next_deadline(), Instant::FAR_FUTURE);
    }

    #[test]
    fn old_stamps_are_believed_only_after_a_while_or_in_a_new_life() {
        let mut side = Rendezvous::default();
        assert!(side.on_signal(ms(0), None, 100, false));
        assert!(!side.on_signal(ms(1), None, 100, true) && !side.on_signal(ms(59_999), None, 99, true));
        assert_eq!(side.next_deadline(), Instant::FAR_FUTURE, "a replay is not answered");
        assert!(side.on_signal(ms(60_000), None, 99, false));
        assert!(!side.on_signal(ms(60_001), None, 50, false));
        side.on_restart();
        assert!(side.on_signal(ms(60_002), None, 50, false));
    }

    #[test]
    fn a_lying_carrier_keeps_nothing_back_but_what_it_carries() {
        let mut side = Rendezvous::default();
        let (liar, honest) = (Some(PeerIndex(1)), Some(PeerIndex(2)));
        assert!(side.on_signal(ms(0), liar, u64::MAX, false));
        assert!(side.on_signal(ms(1), honest, 7, true) && side.on_signal(ms(1), None, 7, true));
        assert!(!side.on_signal(ms(2), honest, 7, true) && !side.on_signal(ms(2), liar, 8, true));
        let mut rng = Rng::from_seed([1; 32]);
        assert!(side.poll(ms(2), &mut rng).is_some());
        assert!(side.on_signal(ms(3), Some(PeerIndex(3)), 7, true), "what it tells is taken in");
        assert_eq!(side.next_deadline(), Instant::FAR_FUTURE, "but it was answered");
        assert!((10..20).all(|n| side.on_signal(ms(4), Some(PeerIndex(n)), 9, false)));
        assert!(side.believed.len() <= MAX_WAYS);
    }

    #[test]
    fn two_sides_that_search_at_once_come_to_rest() {
        let (mut now, mut rng) = (ms(0), Rng::from_seed([1; 32]));
        let mut sides = [Rendezvous::default(), Rendezvous::default()];
        let (mut stamp, mut known, mut signals) = (0, [false; 2], 0);
        sides.iter_mut().for_each(|side| side.set_wanted(now, true));
        // Signals arrive at once; the first one of each side is news to the other.
        while now < ms(18_500) {
            for from in 0..2 {
                while let Some(due) = sides[from].poll(now, &mut rng) {
                    (stamp, signals) = (stamp + 1, signals + 1);
                    assert!(sides[1 - from].on_signal(now, None, stamp, due.wants_answer));
                    if !core::mem::replace(&mut known[1 - from], true) {
                        sides[1 - from].on_news(now);
                    }
                }
            }
            now = sides.iter().map(Rendezvous::next_deadline).min().unwrap().max(now);
        }
        assert!(signals <= 24, "{signals}");
    }

    #[derive(Clone, Debug)]
    enum Op {
        Wanted(bool),
        Hint,
        Signal(u64, bool),
        Restart,
        Wait(u64),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            any::<bool>().prop_map(Op::Wanted),
            Just(Op::Hint),
            (0u64..50, any::<bool>()).prop_map(|(stamp, wants)| Op::Signal(stamp, wants)),
            Just(Op::Restart),
            (0u64..2_000).prop_map(Op::Wait),
        ]
    }

    proptest! {
        #[test]
        fn nothing_makes_it_talk_too_much(ops in prop::collection::vec(op(), 0..200)) {
            let (mut side, mut rng, mut now) = (Rendezvous::default(), Rng::from_seed([1; 32]), ms(0));
            let mut sent: List<Instant> = List::new();
            let (mut wanted, mut last) = (false, None::<(u64, Instant)>);
            for op in ops {
                match op {
                    Op::Wanted(want) => {
                        wanted = want;
                        side.set_wanted(now, want);
                    }
                    Op::Hint => side.on_hint(now),
                    Op::Signal(stamp, wants) => {
                        let fresh = last.is_none_or(|(held, at)| stamp > held || now.since(at) >= STAMP_LIFETIME);
                        prop_assert_eq!(side.on_signal(now, None, stamp, wants), fresh);
                        last = if fresh { Some((stamp, now)) } else { last };
                    }
                    Op::Restart => {
                        side.on_restart();
                        last = None;
                    }
                    Op::Wait(millis) => {
                        let end = now + Duration::from_millis(millis);
                        sent.extend(run(&mut side, &mut rng, &mut now, end).into_iter().map(|(at, _)| at));
                    }
                }
                prop_assert!(!wanted || side.next_deadline() <= now + PERIOD * 2, "a search goes on");
            }
            let close = sent.windows(2).find(|pair| pair[1].since(pair[0]) < ANSWER_INTERVAL);
            prop_assert!(close.is_none(), "{:?}", close);
        }
    }
}
