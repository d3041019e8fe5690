//! Relaying: a peer carries the sealed envelopes of two others that cannot reach each other.
//!
//! ```text
//!   alpha                          relay                           beta
//!     |  RelayOpen Request(beta, a)  |                              |      a: "address me by this handle and token"
//!     |----------------------------->|  RelayOpen Offer(alpha, s)   |
//!     |  RelayOpen Offer(beta, r)    |----------------------------->|
//!     |<-----------------------------|  RelayOpen Request(alpha, b) |
//!     |                              |<-----------------------------|
//!     |   Relayed(r, inner envelope) |  Relayed(b, inner envelope)  |
//!     |----------------------------->|----------------------------->|
//! ```
//!
//! A *channel* is what the relay holds for a pair; a *leg* is what an endpoint holds for a peer and a relay. Each hop and each
//! direction has a [`RelayAddress`] of its own, drawn by whoever is to receive by it. All statements are idempotent: saying one
//! again changes nothing, and each side goes on stating the same address for as long as it holds the channel or the leg.
//!
//! [`RelayHandles`] tells what an arriving handle means in this node, [`RelayTable`] is the relay's side, [`RelayLegs`] the
//! endpoint's. None of them sends anything: they say what is to be told to whom, and the node tells it.

mod handles;
mod legs;
mod table;

pub use handles::{ChannelEnd, Receiver, RelayAddress, RelayHandles};
pub use legs::{LegAction, LegState, LegView, MAX_LEGS, RelayLegs, RelayOption};
pub use table::{ChannelView, Forward, Opened, RelayLimits, RelayRefusal, RelayTable, Traffic};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overlay::PeerIndex;
    use crate::rng::Rng;
    use crate::time::Instant;
    use crate::wire::RelayCloseReason;
    use alloc::vec::Vec;
    use core::time::Duration;
    use proptest::prelude::{Strategy, any, prop, prop_assert, prop_oneof, proptest};

    /// How the relay knows its two peers, and how each of them knows the relay and the other.
    const ENDS: [PeerIndex; 2] = [PeerIndex(0), PeerIndex(1)];
    const RELAY: PeerIndex = PeerIndex(0);
    const OTHER: PeerIndex = PeerIndex(1);

    #[derive(Clone, Copy, Debug)]
    enum Told {
        /// By an end to the relay.
        Request(usize, RelayAddress),
        Withdraw(usize, RelayCloseReason),
        /// By the relay to an end.
        Offer(usize, RelayAddress),
        Close(usize, RelayCloseReason),
    }

    struct Endpoint {
        legs: RelayLegs,
        handles: RelayHandles,
        wanted: bool,
    }

    impl Endpoint {
        fn new() -> Endpoint {
            Endpoint { legs: RelayLegs::new(OTHER), handles: RelayHandles::default(), wanted: false }
        }
    }

    struct World {
        ends: [Endpoint; 2],
        table: RelayTable,
        handles: RelayHandles,
        /// What was told and has not arrived. It all arrives, but in any order.
        mail: Vec<Told>,
        rng: Rng,
        now: Instant,
    }

    impl World {
        fn new() -> World {
            World {
                ends: [Endpoint::new(), Endpoint::new()],
                table: RelayTable::default(),
                handles: RelayHandles::default(),
                mail: Vec::new(),
                rng: Rng::from_seed([8; 32]),
                now: Instant::ORIGIN,
            }
        }

        fn arrive(&mut self, told: Told) {
            let now = self.now;
            match told {
                Told::Request(end, address) => {
                    let (from, to) = (ENDS[end], ENDS[1 - end]);
                    let opened = self.table.open(now, from, to, address, &mut self.handles, &mut self.rng).unwrap();
                    self.mail.push(Told::Offer(end, opened.answer));
                    self.mail.extend(opened.inform.map(|offer| Told::Offer(1 - end, offer)));
                }
                Told::Withdraw(end, reason) => {
                    if self.table.close(ENDS[0], ENDS[1], &mut self.handles) {
                        self.mail.push(Told::Close(1 - end, reason));
                    }
                }
                Told::Offer(end, offer) => {
                    let end = &mut self.ends[end];
                    assert!(end.legs.on_offer(now, RELAY, offer, &mut end.handles, &mut self.rng));
                }
                Told::Close(end, reason) => {
                    let end = &mut self.ends[end];
                    end.legs.on_close(now, RELAY, reason, &mut end.handles);
                }
            }
        }

        /// Both ends do what is due.
        fn maintain(&mut self) {
            let option = RelayOption { relay: RELAY, rtt: None, usable: true };
            for (n, end) in self.ends.iter_mut().enumerate() {
                end.legs.maintain(self.now, end.wanted, &[option], None, &mut end.handles, &mut self.rng);
                while let Some(action) = end.legs.poll(self.now, |_| true) {
                    self.mail.push(match action {
                        LegAction::Open { address, .. } => Told::Request(n, address),
                        LegAction::Close { reason, .. } => Told::Withdraw(n, reason),
                    });
                }
            }
        }

        /// Whether what an end sends through the relay reaches the other end, and as its.
        fn reaches(&self, from: usize) -> bool {
            let Some(at) = self.ends[from].legs.remote(RELAY) else { return false };
            let Some(Receiver::Channel(end)) = self.handles.get(at.handle.get(), at.token) else { return false };
            let forward = self.table.route(end).filter(|forward| forward.from == ENDS[from]);
            let Some(at) = forward.and_then(|forward| forward.address) else { return false };
            let receiver = self.ends[1 - from].handles.get(at.handle.get(), at.token);
            receiver == Some(Receiver::Leg { peer: OTHER, relay: RELAY })
        }

        /// What Pings show to the ends that send some.
        fn probe(&mut self) {
            let works = self.reaches(0) && self.reaches(1);
            for end in &mut self.ends {
                if works {
                    end.legs.on_proven(self.now, RELAY);
                } else {
                    end.legs.on_silent(self.now, RELAY);
                }
            }
        }
    }

    #[derive(Clone, Debug)]
    enum Op {
        Want(usize, bool),
        Arrive(usize),
        Restart(usize),
        RelayRestart,
        CloseAll(usize),
        Probe,
        Wait(u64),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            2 => (0usize..2, any::<bool>()).prop_map(|(end, wanted)| Op::Want(end, wanted)),
            8 => any::<usize>().prop_map(Op::Arrive),
            1 => (0usize..2).prop_map(Op::Restart),
            1 => prop_oneof![(0usize..2).prop_map(Op::CloseAll), (0u8..1).prop_map(|_| Op::RelayRestart)],
            2 => (0u8..1).prop_map(|_| Op::Probe),
            4 => (1u64..8_000).prop_map(Op::Wait),
        ]
    }

    proptest! {
        #[test]
        fn the_two_come_to_an_agreement_whatever_happened(ops in prop::collection::vec(op(), 0..80), last in 0usize..2) {
            let mut world = World::new();
            for op in ops {
                match op {
                    Op::Want(end, wanted) => world.ends[end].wanted = wanted,
                    Op::Arrive(n) if !world.mail.is_empty() => {
                        let told = world.mail.swap_remove(n % world.mail.len());
                        world.arrive(told);
                    }
                    Op::Arrive(_) => {}
                    Op::Restart(end) => {
                        world.ends[end] = Endpoint::new();
                        for (_, offer) in world.table.on_restart(ENDS[end]) {
                            world.mail.push(Told::Offer(end, offer));
                        }
                    }
                    Op::RelayRestart => {
                        (world.table, world.handles) = (RelayTable::default(), RelayHandles::default());
                        world.ends.iter_mut().for_each(|end| end.legs.on_silent(world.now, RELAY));
                    }
                    Op::CloseAll(n) => {
                        let end = &mut world.ends[n];
                        let told = end.legs.close_all(&mut end.handles);
                        world.mail.extend(told.iter().map(|_| Told::Withdraw(n, RelayCloseReason::REFUSED)));
                    }
                    Op::Probe => world.probe(),
                    Op::Wait(ms) => world.now += Duration::from_millis(ms),
                }
                world.maintain();
            }
            // From now on one end wants a relay path, messages arrive and no backoff holds it up: then it is there soon, and not
            // only when something expires.
            world.ends[last].wanted = true;
            let end = world.now + Duration::from_secs(3);
            let mut works_since = None;
            while world.now < end {
                world.ends[last].legs.on_hint(world.now);
                world.maintain();
                while !world.mail.is_empty() {
                    let told = world.mail.remove(0);
                    world.arrive(told);
                    world.maintain();
                }
                world.probe();
                let works = world.reaches(0) && world.reaches(1);
                works_since = works.then(|| works_since.unwrap_or(world.now));
                world.now += Duration::from_millis(250);
            }
            prop_assert!(works_since.is_some(), "no agreement: {:?}", world.ends.each_ref().map(|end| end.legs.iter().next()));
        }
    }
}
