//! The endpoint's side: which relays carry for this node to one peer.

use alloc::vec::Vec;
use core::ops::RangeInclusive;
use core::time::Duration;

use super::{Receiver, RelayAddress, RelayHandles};
use crate::overlay::PeerIndex;
use crate::rng::Rng;
use crate::time::Instant;
use crate::wire::RelayCloseReason;

/// Legs of one peer, those that wait after a refusal included.
pub const MAX_LEGS: usize = 8;

/// Legs that this side asks for: the best relay and a spare.
const WANTED: usize = 2;

/// Legs that the peer may have asked for. Its two best relays may be others than ours, and of all of them the paths through
/// them show which is best.
const OFFERED: usize = 2;

/// A relay that has not answered, or a leg through which nothing was proven, for this long is given up for a while.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a relay is left alone after it failed for the first time; it doubles up to [`BACKOFF_LIMIT`].
const BACKOFF: Duration = Duration::from_secs(1);

/// The longest time that a relay is left alone, and the time after a refusal that only a configuration changes.
const BACKOFF_LIMIT: Duration = Duration::from_secs(30);

/// The longest time that a relay is left alone which does not reach the peer at the moment: nobody tells when it does again,
/// and relays are asked only while somebody sends.
const UNREACHABLE_LIMIT: Duration = Duration::from_secs(2);

/// A leg is stated anew at most this often.
const RESTATE_INTERVAL: Duration = Duration::from_secs(1);

/// A leg of this age may be given up for a relay that is nearer by a fifth and by [`NEARER_BY`].
const SETTLED_AFTER: Duration = Duration::from_secs(10);

/// See [`SETTLED_AFTER`].
const NEARER_BY: Duration = Duration::from_millis(10);

/// A peer that could carry: it is allowed to, and there is a session with it on a direct path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RelayOption {
    /// The peer.
    pub relay: PeerIndex,
    /// The round trip to it, where that is known.
    pub rtt: Option<Duration>,
    /// Whether it answers at present. One that does not keeps its legs and gets no new ones.
    pub usable: bool,
}

/// What is to be told to a relay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LegAction {
    /// RelayOpen, role Request: "carry to the peer, and address me so".
    Open {
        /// To whom.
        relay: PeerIndex,
        /// How this node is to be addressed.
        address: RelayAddress,
    },
    /// RelayClose, role Request: the leg is given up. A path through this relay is to be removed.
    Close {
        /// To whom.
        relay: PeerIndex,
        /// Why.
        reason: RelayCloseReason,
    },
}

/// How far a leg is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LegState {
    /// The relay was asked and has not answered.
    Asked,
    /// The relay has said how it is addressed. Only a Pong through it proves that it carries.
    Open,
    /// Something went both ways through it.
    Proven,
    /// It was refused, or failed; the relay is asked again later.
    Refused,
}

impl LegState {
    /// The name used in reports.
    pub const fn name(self) -> &'static str {
        match self {
            LegState::Asked => "asked",
            LegState::Open => "open",
            LegState::Proven => "proven",
            LegState::Refused => "refused",
        }
    }
}

/// A leg as reports show it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LegView {
    /// Who carries.
    pub relay: PeerIndex,
    /// How far it is.
    pub state: LegState,
    /// Since when.
    pub since: Instant,
    /// Why the relay last ended it, if it did.
    pub reason: Option<RelayCloseReason>,
}

#[derive(Clone, Copy, Debug)]
struct Leg {
    relay: PeerIndex,
    local: RelayAddress,
    remote: Option<RelayAddress>,
    state: LegState,
    since: Instant,
    /// Asked for by this side, not only by the peer.
    wanted: bool,
    /// When `state` has lasted long enough: an answer, a proof or another try is due.
    until: Instant,
    /// Failures since it last carried something.
    failures: u32,
    reason: Option<RelayCloseReason>,
    /// The statement that is due, and not before when.
    say: Option<Statement>,
    not_before: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Statement {
    Open,
    Close,
}

impl Leg {
    fn enter(&mut self, now: Instant, state: LegState) {
        self.state = state;
        self.since = now;
        self.until = match state {
            LegState::Refused => self.until,
            LegState::Asked | LegState::Open if self.wanted => now + PATIENCE,
            // What the peer asked for is for the peer to give up.
            _ => Instant::FAR_FUTURE,
        };
    }

    /// Leaves the relay alone for a time that grows with its failures, within `bounds`.
    fn refuse(&mut self, now: Instant, bounds: RangeInclusive<Duration>) {
        let backoff = (BACKOFF * (1 << self.failures.min(5))).clamp(*bounds.start(), *bounds.end());
        self.failures += 1;
        self.remote = None;
        self.wanted = false;
        self.until = now + backoff;
        self.enter(now, LegState::Refused);
    }

    fn is_alive(&self) -> bool {
        self.state != LegState::Refused
    }
}

/// The legs to one peer.
#[derive(Debug)]
pub struct RelayLegs {
    peer: PeerIndex,
    /// At most [`MAX_LEGS`]. On the heap, because most peers have none.
    legs: Vec<Leg>,
    /// Whether this side wants a relay path, as it was last told.
    wanted: bool,
}

impl RelayLegs {
    /// No legs to `peer`.
    pub fn new(peer: PeerIndex) -> RelayLegs {
        RelayLegs { peer, legs: Vec::new(), wanted: false }
    }

    /// Does what is due at `now`: gives up what failed and, where a relay path is `wanted`, asks the nearest of `options` and
    /// a spare. `options` are all that may carry, wanted or not: a leg whose relay is not among them is forgotten. The leg that
    /// is `in_use` is never left for a nearer relay. [`RelayLegs::poll`] then tells what is to be said.
    pub fn maintain(
        &mut self,
        now: Instant,
        wanted: bool,
        options: &[RelayOption],
        in_use: Option<PeerIndex>,
        handles: &mut RelayHandles,
        rng: &mut Rng,
    ) {
        self.wanted = wanted;
        self.retain(handles, |leg| options.iter().any(|option| option.relay == leg.relay));
        for leg in self.legs.iter_mut().filter(|leg| leg.is_alive() && leg.until <= now) {
            leg.refuse(now, BACKOFF..=BACKOFF_LIMIT);
            leg.say = Some(Statement::Close);
        }
        if wanted {
            self.ask_nearest(now, options, in_use, handles, rng);
        }
        // One that may be asked again and was not is none that anybody waits for.
        self.retain(handles, |leg| leg.is_alive() || leg.until > now);
    }

    /// The next thing to tell a relay. Call it after anything else, until there is nothing. Where a relay `may_tell` no more,
    /// it is asked later; that a channel is not needed any more is said at once, as nothing repeats it.
    pub fn poll(&mut self, now: Instant, may_tell: impl Fn(PeerIndex) -> bool) -> Option<LegAction> {
        let is_due = |leg: &&mut Leg| leg.say == Some(Statement::Open) && leg.not_before <= now;
        for leg in self.legs.iter_mut().filter(is_due).filter(|leg| !may_tell(leg.relay)) {
            leg.not_before = now + RESTATE_INTERVAL;
        }
        let leg = self.legs.iter_mut().find(|leg| leg.say.is_some() && leg.not_before <= now)?;
        match leg.say.take()? {
            Statement::Open => {
                leg.not_before = now + RESTATE_INTERVAL;
                Some(LegAction::Open { relay: leg.relay, address: leg.local })
            }
            Statement::Close => Some(LegAction::Close { relay: leg.relay, reason: RelayCloseReason::UNREACHABLE }),
        }
    }

    /// Takes in a RelayOpen of role Offer: the relay carries, and is addressed by `remote`. It may be the answer to this side,
    /// or the peer that asked. Returns false where there are legs enough: then it is to be answered with a RelayClose.
    pub fn on_offer(
        &mut self,
        now: Instant,
        relay: PeerIndex,
        remote: RelayAddress,
        handles: &mut RelayHandles,
        rng: &mut Rng,
    ) -> bool {
        let is_held = self.find(relay).is_some_and(|leg| leg.is_alive());
        if !is_held && !self.make_place(now, relay, handles) {
            return false;
        }
        if self.find(relay).is_none() {
            let leg = self.new_leg(now, relay, handles, rng);
            self.legs.push(leg);
        }
        let Some(leg) = self.find(relay).filter(|leg| leg.remote != Some(remote)) else { return true };
        // The answer to what this side has just said needs no answer. Else the relay may not know how to address us.
        let is_answer = leg.state == LegState::Asked && leg.say.is_none();
        leg.remote = Some(remote);
        leg.reason = None;
        leg.enter(now, LegState::Open);
        leg.say = (!is_answer).then_some(Statement::Open);
        true
    }

    /// Takes in a RelayClose of role Offer. Returns whether a leg ended that was open: a path through this relay is to be
    /// removed.
    pub fn on_close(
        &mut self,
        now: Instant,
        relay: PeerIndex,
        reason: RelayCloseReason,
        handles: &mut RelayHandles,
    ) -> bool {
        // What has ended already ends no second time: its backoff runs.
        let Some(leg) = self.find(relay).filter(|leg| leg.is_alive()) else { return false };
        let was_open = leg.remote.take().is_some();
        leg.reason = Some(reason);
        leg.say = None;
        match reason {
            RelayCloseReason::IDLE => self.retain(handles, |leg| leg.relay != relay),
            RelayCloseReason::UNREACHABLE => leg.refuse(now, BACKOFF..=UNREACHABLE_LIMIT),
            RelayCloseReason::QUOTA => leg.refuse(now, BACKOFF * 10..=BACKOFF_LIMIT),
            _ => leg.refuse(now, BACKOFF_LIMIT..=BACKOFF_LIMIT),
        }
        was_open
    }

    /// Notes that something of the peer proved the path through `relay` in both directions.
    pub fn on_proven(&mut self, now: Instant, relay: PeerIndex) {
        if let Some(leg) = self.find(relay).filter(|leg| leg.state == LegState::Open) {
            leg.failures = 0;
            leg.enter(now, LegState::Proven);
        }
    }

    /// Notes that the path through `relay` went silent: the leg is stated anew, and given up where that does not help. Where
    /// the relay has begun a new life, this is called as well.
    pub fn on_silent(&mut self, now: Instant, relay: PeerIndex) {
        if let Some(leg) = self.find(relay).filter(|leg| leg.is_alive() && leg.say.is_none()) {
            leg.say = Some(Statement::Open);
            if leg.state == LegState::Proven {
                leg.enter(now, LegState::Open);
            }
        }
    }

    /// Something changed that makes success likelier: refused relays may be asked again at once.
    pub fn on_hint(&mut self, now: Instant) {
        for leg in self.legs.iter_mut().filter(|leg| !leg.is_alive()) {
            leg.until = leg.until.min(now);
        }
    }

    /// Ends the leg of a relay that is no more.
    pub fn forget(&mut self, relay: PeerIndex, handles: &mut RelayHandles) {
        self.retain(handles, |leg| leg.relay != relay);
    }

    /// Ends every leg. Returns the relays that hold one, which are to be told.
    pub fn close_all(&mut self, handles: &mut RelayHandles) -> Vec<PeerIndex> {
        let told = self.legs.iter().filter(|leg| leg.is_alive()).map(|leg| leg.relay).collect();
        self.retain(handles, |_| false);
        self.wanted = false;
        told
    }

    /// How to address the relay, where the leg is open: the header of what is sent through it.
    pub fn remote(&self, relay: PeerIndex) -> Option<RelayAddress> {
        self.legs.iter().find(|leg| leg.relay == relay)?.remote
    }

    /// The relays with an open leg: each is a path.
    pub fn open(&self) -> impl Iterator<Item = PeerIndex> + '_ {
        self.legs.iter().filter(|leg| leg.remote.is_some()).map(|leg| leg.relay)
    }

    /// Every leg, for reports.
    pub fn iter(&self) -> impl Iterator<Item = LegView> + '_ {
        self.legs.iter().map(|leg| LegView { relay: leg.relay, state: leg.state, since: leg.since, reason: leg.reason })
    }

    /// When to call [`RelayLegs::maintain`] and [`RelayLegs::poll`].
    pub fn next_deadline(&self) -> Instant {
        let of_leg = |leg: &Leg| {
            let said = if leg.say.is_some() { leg.not_before } else { Instant::FAR_FUTURE };
            // When a refusal ends matters to nobody who wants no relay.
            let state = if leg.is_alive() || self.wanted { leg.until } else { Instant::FAR_FUTURE };
            said.min(state)
        };
        self.legs.iter().map(of_leg).min().unwrap_or(Instant::FAR_FUTURE)
    }

    fn ask_nearest(
        &mut self,
        now: Instant,
        options: &[RelayOption],
        in_use: Option<PeerIndex>,
        handles: &mut RelayHandles,
        rng: &mut Rng,
    ) {
        loop {
            let nearest = options
                .iter()
                .filter(|option| option.usable && self.may_ask(now, option.relay))
                .min_by_key(|option| (option.rtt.unwrap_or(Duration::MAX), option.relay));
            let Some(nearest) = nearest else { return };
            let usable = |leg: &&Leg| options.iter().any(|option| option.relay == leg.relay && option.usable);
            // Legs of relays that are silent at the moment stay, and others are sought beside them.
            let held = self.legs.iter().filter(|leg| leg.is_alive() && leg.wanted).filter(usable).count();
            let is_held = self.legs.iter().any(|leg| leg.is_alive() && leg.relay == nearest.relay);
            let has_room = is_held || self.alive() < WANTED + OFFERED;
            if !has_room || (held >= WANTED && !self.leave_farther(now, nearest, options, in_use)) {
                return;
            }
            if !self.ask(now, nearest.relay, handles, rng) {
                return;
            }
        }
    }

    /// Whether this side may begin to want a leg of `relay`.
    fn may_ask(&self, now: Instant, relay: PeerIndex) -> bool {
        let leg = self.legs.iter().find(|leg| leg.relay == relay);
        leg.is_none_or(|leg| if leg.is_alive() { !leg.wanted } else { leg.until <= now })
    }

    /// Leaves the farthest settled leg to the peer, and to the relay's idle time, where `option` is clearly nearer. It is not
    /// closed: the peer may be sending through it. Returns whether there was one.
    fn leave_farther(
        &mut self,
        now: Instant,
        option: &RelayOption,
        options: &[RelayOption],
        in_use: Option<PeerIndex>,
    ) -> bool {
        let Some(rtt) = option.rtt else { return false };
        let rtt_of = |leg: &Leg| options.iter().find(|option| option.relay == leg.relay).and_then(|option| option.rtt);
        let farthest = self
            .legs
            .iter_mut()
            .filter(|leg| leg.is_alive() && leg.wanted && Some(leg.relay) != in_use && leg.since + SETTLED_AFTER <= now)
            .filter_map(|leg| Some((rtt_of(leg)?, leg)))
            .max_by_key(|(rtt, leg)| (*rtt, leg.relay));
        let Some((_, leg)) = farthest.filter(|(far, _)| rtt + NEARER_BY <= *far && rtt * 5 <= *far * 4) else {
            return false;
        };
        leg.wanted = false;
        leg.until = Instant::FAR_FUTURE;
        true
    }

    /// Begins to want a leg of a relay. Returns whether there was room.
    fn ask(&mut self, now: Instant, relay: PeerIndex, handles: &mut RelayHandles, rng: &mut Rng) -> bool {
        if self.find(relay).is_none() {
            if !self.make_room(handles) {
                return false;
            }
            let leg = self.new_leg(now, relay, handles, rng);
            self.legs.push(leg);
        }
        let Some(leg) = self.find(relay) else { return false };
        leg.wanted = true;
        if !leg.is_alive() {
            leg.say = Some(Statement::Open);
            leg.enter(now, LegState::Asked);
        } else if leg.state != LegState::Proven {
            leg.until = now + PATIENCE;
        }
        true
    }

    fn alive(&self) -> usize {
        self.legs.iter().filter(|leg| leg.is_alive()).count()
    }

    /// A leg that is stated at once.
    fn new_leg(&self, now: Instant, relay: PeerIndex, handles: &mut RelayHandles, rng: &mut Rng) -> Leg {
        Leg {
            relay,
            local: handles.allocate(rng, Receiver::Leg { peer: self.peer, relay }),
            remote: None,
            state: LegState::Asked,
            since: now,
            wanted: false,
            until: Instant::FAR_FUTURE,
            failures: 0,
            reason: None,
            say: Some(Statement::Open),
            not_before: now,
        }
    }

    /// A place for a leg of `relay` that the peer asked for. One that has proven nothing since it was offered gives way.
    fn make_place(&mut self, now: Instant, relay: PeerIndex, handles: &mut RelayHandles) -> bool {
        let offered = || self.legs.iter().filter(|leg| leg.is_alive() && !leg.wanted);
        if offered().count() >= OFFERED || self.alive() >= WANTED + OFFERED {
            let vain = offered().find(|leg| leg.state != LegState::Proven && leg.since + PATIENCE <= now);
            let Some(vain) = vain.map(|leg| leg.relay) else { return false };
            self.retain(handles, |leg| leg.relay != vain);
        }
        self.find(relay).is_some() || self.make_room(handles)
    }

    /// Room for one more: the refused leg that may be asked first is forgotten.
    fn make_room(&mut self, handles: &mut RelayHandles) -> bool {
        if self.legs.len() >= MAX_LEGS {
            let refused = self.legs.iter().filter(|leg| !leg.is_alive()).min_by_key(|leg| leg.until);
            let Some(relay) = refused.map(|leg| leg.relay) else { return false };
            self.retain(handles, |leg| leg.relay != relay);
        }
        true
    }

    fn retain(&mut self, handles: &mut RelayHandles, keep: impl Fn(&Leg) -> bool) {
        self.legs.retain(|leg| {
            let kept = keep(leg);
            if !kept {
                handles.release(leg.local);
            }
            kept
        });
    }

    fn find(&mut self, relay: PeerIndex) -> Option<&mut Leg> {
        self.legs.iter_mut().find(|leg| leg.relay == relay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::num::NonZeroU32;
    use proptest::prelude::{Just, Strategy, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};

    const PEER: PeerIndex = PeerIndex(0);

    fn option(relay: u32, rtt_ms: u64) -> RelayOption {
        RelayOption { relay: PeerIndex(relay), rtt: Some(Duration::from_millis(rtt_ms)), usable: true }
    }

    fn address(n: u32) -> RelayAddress {
        RelayAddress { handle: NonZeroU32::new(n).unwrap(), token: u64::from(n) }
    }

    struct World {
        legs: RelayLegs,
        handles: RelayHandles,
        rng: Rng,
        now: Instant,
        options: Vec<RelayOption>,
    }

    impl World {
        fn new(options: &[RelayOption]) -> World {
            World {
                legs: RelayLegs::new(PEER),
                handles: RelayHandles::default(),
                rng: Rng::from_seed([5; 32]),
                now: Instant::from_millis(1),
                options: options.into(),
            }
        }

        /// What is said when a relay path is wanted, as (relay, opens).
        fn want(&mut self) -> Vec<(u32, bool)> {
            self.maintain(true, None)
        }

        fn maintain(&mut self, wanted: bool, in_use: Option<PeerIndex>) -> Vec<(u32, bool)> {
            self.legs.maintain(self.now, wanted, &self.options, in_use, &mut self.handles, &mut self.rng);
            self.said()
        }

        fn said(&mut self) -> Vec<(u32, bool)> {
            core::iter::from_fn(|| self.legs.poll(self.now, |_| true))
                .map(|action| match action {
                    LegAction::Open { relay, .. } => (relay.0, true),
                    LegAction::Close { relay, .. } => (relay.0, false),
                })
                .collect()
        }

        fn offer(&mut self, relay: u32, n: u32) -> bool {
            self.legs.on_offer(self.now, PeerIndex(relay), address(n), &mut self.handles, &mut self.rng)
        }

        fn close(&mut self, relay: u32, reason: RelayCloseReason) -> bool {
            self.legs.on_close(self.now, PeerIndex(relay), reason, &mut self.handles)
        }

        fn wait(&mut self, ms: u64) {
            self.now += Duration::from_millis(ms);
        }

        fn state(&self, relay: u32) -> Option<LegState> {
            self.legs.iter().find(|leg| leg.relay == PeerIndex(relay)).map(|leg| leg.state)
        }
    }

    #[test]
    fn the_nearest_relay_and_a_spare_are_asked() {
        let mut world = World::new(&[option(1, 80), option(2, 10), option(3, 40)]);
        world.options.push(RelayOption { usable: false, ..option(4, 1) });
        assert!(world.maintain(false, None).is_empty());
        assert_eq!(world.want(), [(2, true), (3, true)]);
        assert!(world.want().is_empty());
        assert!(world.offer(2, 70) && world.offer(3, 71));
        assert!(world.said().is_empty(), "an answer is not answered");
        assert_eq!(world.legs.remote(PeerIndex(2)), Some(address(70)));
        assert_eq!(world.legs.open().collect::<Vec<_>>(), [PeerIndex(2), PeerIndex(3)]);
        let leg = world.legs.legs[0];
        let receiver = world.handles.get(leg.local.handle.get(), leg.local.token);
        assert_eq!(receiver, Some(Receiver::Leg { peer: PEER, relay: PeerIndex(2) }));
    }

    #[test]
    fn an_offer_that_nobody_asked_for_is_answered() {
        let mut world = World::new(&[option(1, 80), option(2, 10), option(3, 40)]);
        assert!(world.offer(1, 70));
        assert_eq!(world.said(), [(1, true)]);
        assert!(world.offer(1, 70) && world.said().is_empty(), "the same again says nothing new");
        world.wait(1000);
        assert!(world.offer(1, 71));
        assert_eq!(world.said(), [(1, true)], "a new channel has to be told how to address us");
        assert!(world.offer(2, 72) && !world.offer(3, 73), "two are enough");
        assert_eq!(world.want(), [(2, true), (3, true)], "this side still asks its own nearest");
        world.wait(5000);
        assert_eq!(world.state(1), Some(LegState::Open), "what the peer asked for stays");
    }

    #[test]
    fn a_relay_that_is_silent_or_carries_nothing_gives_way_to_another() {
        let mut world = World::new(&[option(1, 10), option(2, 20), option(3, 30)]);
        world.want();
        world.offer(1, 70);
        assert_eq!(world.legs.next_deadline(), world.now + PATIENCE);
        world.wait(5000);
        assert_eq!(world.want(), [(1, false), (2, false), (3, true)]);
        assert_eq!(world.state(1), Some(LegState::Refused));
        world.offer(3, 71);
        world.legs.on_proven(world.now, PeerIndex(3));
        assert_eq!(world.legs.next_deadline(), world.now + BACKOFF);
        world.wait(1000);
        assert_eq!(world.want(), [(1, true)]);
        world.wait(60_000);
        assert_eq!(world.state(3), Some(LegState::Proven));
    }

    #[test]
    fn backoff_follows_the_reason() {
        let mut world = World::new(&[option(1, 10)]);
        world.want();
        for (reason, seconds) in [
            (RelayCloseReason::UNREACHABLE, 1),
            (RelayCloseReason::UNREACHABLE, 2),
            (RelayCloseReason::UNREACHABLE, 2),
            (RelayCloseReason::QUOTA, 10),
            (RelayCloseReason::REFUSED, 30),
            (RelayCloseReason::UNKNOWN_PEER, 30),
            (RelayCloseReason(99), 30),
        ] {
            assert!(!world.close(1, reason) && !world.close(1, RelayCloseReason::IDLE));
            assert!(world.want().is_empty());
            assert_eq!(world.legs.next_deadline(), world.now + Duration::from_secs(seconds), "{reason}");
            world.now = world.legs.next_deadline();
            assert_eq!(world.want(), [(1, true)]);
        }
        world.close(1, RelayCloseReason::REFUSED);
        world.legs.on_hint(world.now);
        world.wait(1000);
        assert_eq!(world.want(), [(1, true)]);
    }

    #[test]
    fn what_was_forgotten_is_stated_anew_but_not_at_every_word() {
        let mut world = World::new(&[option(1, 10)]);
        world.want();
        world.offer(1, 70);
        world.legs.on_proven(world.now, PeerIndex(1));
        world.legs.on_silent(world.now, PeerIndex(1));
        assert!(world.said().is_empty());
        world.wait(1000);
        assert_eq!(world.said(), [(1, true)]);
        world.offer(1, 71);
        world.wait(1000);
        assert_eq!(world.said(), [(1, true)], "the relay forgot how this node is addressed");
        world.legs.on_proven(world.now, PeerIndex(1));
        world.wait(2000);
        world.legs.on_silent(world.now, PeerIndex(1));
        assert_eq!(world.said(), [(1, true)]);
        assert_eq!(world.state(1), Some(LegState::Open));
        assert!(world.close(1, RelayCloseReason::IDLE));
        assert!(world.handles.is_empty());
        assert_eq!(world.legs.next_deadline(), Instant::FAR_FUTURE);
    }

    #[test]
    fn a_nearer_relay_takes_the_place_of_a_settled_one_that_is_not_in_use() {
        let mut world = World::new(&[option(1, 50), option(2, 100)]);
        world.want();
        for relay in 1..=2 {
            world.offer(relay, 70 + relay);
            world.legs.on_proven(world.now, PeerIndex(relay));
        }
        world.options.push(option(3, 20));
        assert!(world.want().is_empty(), "too soon");
        world.wait(10_000);
        assert_eq!(world.maintain(true, Some(PeerIndex(2))), [(3, true)]);
        assert_eq!(world.state(2), Some(LegState::Proven), "it is not closed: the peer may use it");
        world.options.retain(|option| option.relay != PeerIndex(1));
        world.want();
        assert_eq!(world.state(1), None, "a peer that may not carry any more has no leg");
    }

    #[derive(Clone, Debug)]
    enum Op {
        Want(bool),
        Usable(u32, bool),
        Offer(u32, u32),
        Close(u32, u8),
        Proven(u32),
        Silent(u32),
        Hint,
        CloseAll,
        Wait(u64),
    }

    fn op() -> impl Strategy<Value = Op> {
        let relay = 1u32..12;
        prop_oneof![
            any::<bool>().prop_map(Op::Want),
            (relay.clone(), any::<bool>()).prop_map(|(relay, usable)| Op::Usable(relay, usable)),
            (relay.clone(), 1u32..4).prop_map(|(relay, n)| Op::Offer(relay, n)),
            (relay.clone(), 1u8..8).prop_map(|(relay, reason)| Op::Close(relay, reason)),
            relay.clone().prop_map(Op::Proven),
            relay.prop_map(Op::Silent),
            Just(Op::Hint),
            Just(Op::CloseAll),
            (1u64..20_000).prop_map(Op::Wait),
        ]
    }

    proptest! {
        #[test]
        fn bounds_and_deadlines_hold(ops in prop::collection::vec(op(), 0..150)) {
            let mut world = World::new(&[]);
            world.options = (1..12).map(|relay| option(relay, u64::from(relay) * 7)).collect();
            let (mut wanted, mut opens) = (false, 0u64);
            for op in ops {
                match op {
                    Op::Want(want) => wanted = want,
                    Op::Usable(relay, usable) => world.options[relay as usize - 1].usable = usable,
                    Op::Offer(relay, n) => _ = world.offer(relay, n),
                    Op::Close(relay, reason) => _ = world.close(relay, RelayCloseReason(reason)),
                    Op::Proven(relay) => world.legs.on_proven(world.now, PeerIndex(relay)),
                    Op::Silent(relay) => world.legs.on_silent(world.now, PeerIndex(relay)),
                    Op::Hint => world.legs.on_hint(world.now),
                    Op::CloseAll => _ = world.legs.close_all(&mut world.handles),
                    Op::Wait(ms) => {
                        let end = world.now + Duration::from_millis(ms);
                        let mut wakes = 0;
                        while world.legs.next_deadline() <= end {
                            world.now = world.now.max(world.legs.next_deadline());
                            opens += world.maintain(wanted, None).iter().filter(|(_, open)| *open).count() as u64;
                            wakes += 1;
                            prop_assert!(wakes <= 400, "a deadline that nothing meets");
                        }
                        world.now = end;
                    }
                }
                opens += world.maintain(wanted, None).iter().filter(|(_, open)| *open).count() as u64;
                let usable = world.options.iter().filter(|option| option.usable).count();
                let asked = world.legs.legs.iter().filter(|leg| leg.is_alive() && leg.wanted).count();
                let refused = world.legs.legs.iter().filter(|leg| !leg.is_alive()).count();
                prop_assert!(world.legs.alive() <= WANTED + OFFERED);
                prop_assert!(!wanted || asked + refused >= usable.min(WANTED).min(1), "somebody is asked or waited for");
                prop_assert_eq!(world.handles.len(), world.legs.legs.len(), "no handle is lost");
                prop_assert!(world.legs.next_deadline() > world.now);
            }
            // At most one statement a second and relay.
            prop_assert!(opens <= 11 * (world.now.since(Instant::ORIGIN).as_secs() + 2) + 150);
        }
    }
}
