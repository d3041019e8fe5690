//! Where datagrams of the peer come from.

use core::time::Duration;

use super::{PathSet, PathSlot};
use crate::path::{Path, PathClass, PathState, Via};
use crate::rate::Rate;
use crate::time::Instant;

/// What is sent to an address that a peer has not proven to be its own is at most this many times what came from there
/// (RFC 9000 section 8.1).
const AMPLIFICATION: u32 = 3;

/// New addresses of a peer that are taken up while one of its paths works.
const NEW_ADDRESSES: Rate = Rate { units: 2, per: Duration::from_secs(1), burst: 16 };

/// New ports of a peer whose path works that are taken for successors of the old one, and asked although the pair is idle.
const MOVES: Rate = Rate { units: 1, per: Duration::from_secs(300), burst: 2 };

/// Of how many ports of the peer's NAT an idle pair asks when its path fails.
const ASKED_PORTS: usize = 2;

/// New ports of a peer whose path does not work that are asked although the pair is idle: each question brings forth another.
const LOST_PORTS: Rate = Rate { units: 1, per: Duration::from_secs(60), burst: 4 };

impl PathSet {
    /// Notes that a datagram of `length` bytes arrived by `arrival`, authenticated or at least with the token of a relay
    /// channel of the peer's, and returns its path and whether that is new. A new address becomes a candidate and is probed;
    /// it changes nothing about where this node sends. The preferred path is probed with it: a peer that speaks from a new
    /// address may have left the old one.
    ///
    /// Between two NATs that give another port for every destination, every probe of a new port comes by one that is new to
    /// the peer. Where the pair is idle and its path works, such ports are kept in mind and seldom asked.
    pub fn note_arrival(
        &mut self,
        now: Instant,
        arrival: &Via,
        class: PathClass,
        length: usize,
        mut token: impl FnMut() -> u64,
    ) -> (PathSlot, bool) {
        let earned = AMPLIFICATION.saturating_mul(u32::try_from(length).unwrap_or(u32::MAX));
        if let Some(slot) = self.find(arrival) {
            if let Some(path) = self.get_mut(slot) {
                path.last_arrival = Some(now);
                path.credit = path.credit.map(|credit| credit.saturating_add(earned));
                let (Via::Direct(held), Via::Direct(new)) = (&mut path.via, arrival) else { return (slot, false) };
                if held.local != new.local && new.local.is_some() {
                    held.local = new.local;
                    self.drop_twins();
                }
            }
            return (slot, false);
        }
        // Some NATs give every answer another address: those are not all followed.
        if let Some(preferred) = self.preferred
            && !self.arrivals.take(now, &NEW_ADDRESSES, 1)
        {
            return (preferred, false);
        }
        let held = self.preferred().map(|(_, held)| (held.shares_road(arrival), held.state == PathState::Usable));
        let (is_port, works) = held.unwrap_or_default();
        let succeeds = is_port && self.moves.take(now, &MOVES, 1);
        let slot = self.insert(now, *arrival, class);
        if let Some(path) = self.get_mut(slot) {
            path.credit = path.credit.map(|_| earned);
            path.last_arrival = Some(now);
            path.succeeds = succeeds;
        }
        let is_enough = works || !self.lost_ports.take(now, &LOST_PORTS, 1);
        if is_port && !succeeds && !self.is_active(now) && is_enough {
            return (slot, true);
        }
        self.probe(now, slot, token());
        if let Some(preferred) = self.preferred {
            self.probe(now, preferred, token());
        }
        (slot, true)
    }

    /// The preferred path of an idle pair, and since when the last of its road's other ports that are worth a question have been
    /// heard of.
    pub(in crate::path) fn newest_ports(&self, now: Instant) -> Option<(Via, Option<Instant>)> {
        let (held_slot, held) = self.preferred().filter(|_| !self.is_active(now))?;
        let ports = self.iter().filter(|(slot, path)| *slot != held_slot && path.shares_road(&held.via));
        let mut newest = [None; ASKED_PORTS];
        for (_, path) in ports {
            let mut later = path.last_arrival;
            for place in &mut newest {
                if later > *place {
                    core::mem::swap(&mut later, place);
                }
            }
        }
        let [.., last] = newest;
        Some((held.via, last))
    }

    /// The path to the port that a NAT has given the peer in place of that of the preferred path, if it has: what goes to the
    /// old one is answered from the new one. The old one works only until the NAT forgets it, because the peer does not use it.
    pub(in crate::path) fn successor(&self) -> Option<PathSlot> {
        let (_, held) = self.preferred().filter(|(_, held)| held.state == PathState::Usable)?;
        let is_successor = |(_, path): &(PathSlot, &Path)| {
            path.succeeds
                && path.state == PathState::Usable
                && held.last_proof > Some(path.created)
                && held.is_left_for(path)
        };
        self.iter().filter(is_successor).max_by_key(|(slot, path)| (path.created, *slot)).map(|(slot, _)| slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::{FourTuple, Proof, SocketId, SwitchReason};
    use alloc::vec::Vec;

    const MS: Duration = Duration::from_millis(1);

    fn at(port: u16) -> Via {
        Via::Direct(FourTuple { socket: SocketId(0), local: None, remote: ([192, 0, 2, 1], port).into() })
    }

    fn start() -> Instant {
        Instant::from_millis(1_000)
    }

    /// A set whose preferred path, at port 1, was proven at `start()`.
    fn proven() -> PathSet {
        let mut set = PathSet::default();
        let slot = set.insert(start(), at(1), PathClass::Direct);
        set.prove(start(), slot, Proof::Pong(MS * 10));
        assert!(set.reselect(start(), || 0).is_some());
        set
    }

    /// Takes in a datagram, and returns what is asked for it.
    fn arrive(set: &mut PathSet, now: Instant, from: u16) -> Vec<(PathSlot, u64)> {
        set.note_arrival(now, &at(from), PathClass::Direct, 1_000, || u64::from(from));
        core::iter::from_fn(|| set.poll_probe(now, || 0)).map(|probe| (probe.slot, probe.token)).collect()
    }

    #[test]
    fn the_port_that_a_peer_speaks_by_is_that_which_its_nat_keeps() {
        let mut set = proven();
        let (asked, now) = (start() + MS * 100, start() + MS * 110);
        let pings = arrive(&mut set, asked, 2);
        assert_eq!(pings.len(), 2);
        // Both answers come by the new one.
        for (slot, token) in pings {
            assert_eq!(set.reselect(now, || 0), None);
            arrive(&mut set, now, 2);
            assert!(set.on_pong(now, slot, token, Duration::ZERO).is_some());
        }
        let switch = set.reselect(now, || 0).unwrap();
        assert_eq!((switch.to, switch.why), ((at(2), PathClass::Direct), SwitchReason::Moved));
        // However fast the old one seems, nobody keeps it.
        let old = set.find(&at(1)).unwrap();
        for _ in 0..40 {
            set.prove(now, old, Proof::Pong(MS));
        }
        assert_eq!(set.reselect(now, || 0), None);
    }

    #[test]
    fn a_peer_that_speaks_by_both_ports_has_not_moved() {
        let mut set = proven();
        let (asked, now) = (start() + MS * 100, start() + MS * 110);
        for (from, (slot, token)) in (1..).zip(arrive(&mut set, asked, 2)) {
            arrive(&mut set, now, from);
            assert!(set.on_pong(now, slot, token, Duration::ZERO).is_some());
        }
        assert_eq!(set.reselect(now, || 0), None);
    }

    #[test]
    fn of_an_idle_pair_with_ever_other_ports_few_are_asked() {
        let mut set = proven();
        let mut now = start();
        let mut asked = 0;
        for port in 2..100 {
            now += Duration::from_secs(28);
            for (slot, token) in arrive(&mut set, now, port) {
                asked += 1;
                assert!(set.on_pong(now, slot, token, Duration::ZERO).is_some());
            }
            set.reselect(now, || 0);
        }
        assert!((2..=2 * (2 + 28 * 98 / 300)).contains(&asked), "{asked} Pings");
        set.touch(now);
        assert_eq!(arrive(&mut set, now, 100).len(), 2, "whose path fails is then missed");
    }
}
