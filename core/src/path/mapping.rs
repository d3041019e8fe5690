//! Where others see this node's sockets, and what that says of the NAT in between (RFC 5780, section 4.3).

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use heapless::Vec;

use super::{FourTuple, SocketId};
use crate::overlay::PeerIndex;
use crate::time::Instant;
use crate::wire::NatVerdict;

/// Observations kept; the oldest gives way.
pub const MAX_OBSERVATIONS: usize = 8;

/// What one peer sees of one socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Observation {
    /// Who says so.
    pub observer: PeerIndex,
    /// The path that was asked on: the socket, where known the local address, and where the observer is.
    pub path: FourTuple,
    /// Where the observer saw the datagram come from.
    pub observed: SocketAddr,
    /// When it said so last.
    pub at: Instant,
    /// When it last said something else than before.
    changed: Option<Instant>,
}

impl Observation {
    /// Whether two observations are of one and the same local address and port.
    fn same_source(&self, other: &Observation) -> bool {
        self.path.socket == other.path.socket && self.path.local == other.path.local
    }

    /// Whether both were said of the same state of things: a mapping that moved under one observer may have moved under all,
    /// and what another said before that tells nothing.
    fn is_comparable(&self, other: &Observation) -> bool {
        Some(self.at) >= other.changed && Some(other.at) >= self.changed
    }

    /// Whether one observation takes the place of the other.
    fn same_question(&self, other: &Observation) -> bool {
        self.observer == other.observer && self.path.remote == other.path.remote && self.same_source(other)
    }
}

/// What peers have said of where they see this node: the latest word of each on each socket, in the order of their age.
#[derive(Clone, Debug, Default)]
pub struct Observations {
    seen: Vec<Observation, MAX_OBSERVATIONS>,
}

impl Observations {
    /// Takes in that `observer` saw a datagram on `path` come from `observed`. Returns whether the node is seen at another
    /// address than before: then its candidates changed.
    ///
    /// A mapping that moved under one observer may have moved under all of them (the NAT restarted, or the host moved), or
    /// that one lies. So what the others said is kept, but not compared with it until they have spoken again.
    pub fn note(&mut self, now: Instant, observer: PeerIndex, path: FourTuple, observed: SocketAddr) -> bool {
        let mut new = Observation { observer, path, observed, at: now, changed: None };
        let is_known = self.seen.iter().any(|old| old.same_source(&new) && old.observed == observed);
        if let Some(position) = self.seen.iter().position(|old| old.same_question(&new)) {
            let old = self.seen.remove(position);
            new.changed = if old.observed == observed { old.changed } else { Some(now) };
        }
        if self.seen.is_full() {
            // Its own older words first: nobody talks the others out of the list.
            let own = self.seen.iter().position(|old| old.observer == observer);
            self.seen.remove(own.unwrap_or(0));
        }
        if self.seen.push(new).is_err() {
            unreachable!("room was just made for it");
        }
        !is_known
    }

    /// Whether anybody has said within `age` where it sees a socket.
    pub fn is_recent(&self, now: Instant, socket: SocketId, age: Duration) -> bool {
        self.seen.iter().any(|seen| seen.path.socket == socket && now.since(seen.at) < age)
    }

    /// Forgets what a peer said: it is removed, and its index may become another's.
    pub fn forget(&mut self, observer: PeerIndex) {
        self.seen.retain(|seen| seen.observer != observer);
    }

    /// Forgets everything: the host's addresses changed.
    pub fn clear(&mut self) {
        self.seen.clear();
    }

    /// The observations, the oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Observation> {
        self.seen.iter()
    }

    /// The addresses at which this node is seen and which are not `own`, its sockets' as it knows them, the latest first, each
    /// once.
    pub fn reflexive(&self, own: &[SocketAddr]) -> Vec<SocketAddr, MAX_OBSERVATIONS> {
        let mut found: Vec<SocketAddr, MAX_OBSERVATIONS> = Vec::new();
        for seen in self.seen.iter().rev().filter(|seen| !own.contains(&seen.observed)) {
            if !found.contains(&seen.observed) {
                _ = found.push(seen.observed);
            }
        }
        found
    }

    /// How the NAT in front of this node maps it, as far as can be told. Where sockets differ, the worst of them counts.
    pub fn verdict(&self, interfaces: &[IpAddr]) -> NatVerdict {
        let sockets = self.seen.iter().map(|seen| self.verdict_of(seen.path.socket, seen.path.local, interfaces));
        sockets.max().unwrap_or_default()
    }

    fn verdict_of(&self, socket: SocketId, local: Option<IpAddr>, interfaces: &[IpAddr]) -> NatVerdict {
        let of_socket = || self.seen.iter().filter(|seen| seen.path.socket == socket && seen.path.local == local);
        // An observer on the same side of the NAT sees the host's own address, and tells nothing of the NAT.
        let mapped = || of_socket().filter(|seen| !interfaces.contains(&seen.observed.ip()));
        if mapped().next().is_none() {
            return if of_socket().next().is_some() { NatVerdict::None } else { NatVerdict::Unknown };
        }
        let pairs = || mapped().flat_map(|a| mapped().filter(|b| a.is_comparable(b)).map(move |b| (a, b)));
        if pairs().any(|(a, b)| a.observed != b.observed) {
            return NatVerdict::AddressDependent;
        }
        // That two ports of one host see the same address does not yet tell that another host would.
        let elsewhere = pairs().any(|(a, b)| a.path.remote.ip() != b.path.remote.ip());
        if elsewhere { NatVerdict::EndpointIndependent } else { NatVerdict::Unknown }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn path(remote: &str) -> FourTuple {
        FourTuple { socket: SocketId(0), local: None, remote: at(remote) }
    }

    const HOST: [IpAddr; 1] = [IpAddr::V4(core::net::Ipv4Addr::new(10, 0, 0, 7))];

    fn seen(observations: &[(u32, &str, &str)]) -> Observations {
        let mut all = Observations::default();
        for (n, (observer, remote, observed)) in (0u64..).zip(observations) {
            all.note(Instant::from_millis(n), PeerIndex(*observer), path(remote), at(observed));
        }
        all
    }

    #[test]
    fn verdicts() {
        let verdict = |list: &[(u32, &str, &str)]| seen(list).verdict(&HOST);
        let (one, two) = ("192.0.2.1:4100", "192.0.2.2:4100");
        assert_eq!(verdict(&[]), NatVerdict::Unknown);
        assert_eq!(verdict(&[(1, one, "10.0.0.7:4100"), (2, two, "10.0.0.7:4100")]), NatVerdict::None);
        assert_eq!(verdict(&[(1, one, "203.0.113.9:61000")]), NatVerdict::Unknown);
        let same = [(1, one, "203.0.113.9:61000"), (2, two, "203.0.113.9:61000")];
        assert_eq!(verdict(&same), NatVerdict::EndpointIndependent);
        let same_host = [(1, one, "203.0.113.9:61000"), (2, "192.0.2.1:4200", "203.0.113.9:61000")];
        assert_eq!(verdict(&same_host), NatVerdict::Unknown);
        let port = [(1, one, "203.0.113.9:61000"), (2, two, "203.0.113.9:61001")];
        assert_eq!(verdict(&port), NatVerdict::AddressDependent);
        let neighbour = [same[0], same[1], (3, "10.0.0.8:4100", "10.0.0.7:4100")];
        assert_eq!(verdict(&neighbour), NatVerdict::EndpointIndependent);
    }

    #[test]
    fn two_uplinks_are_not_compared() {
        let mut all = Observations::default();
        for (local, observed) in [("10.0.0.7", "203.0.113.9:61000"), ("10.1.0.7", "198.51.100.9:61000")] {
            let path = FourTuple { local: Some(local.parse().unwrap()), ..path("192.0.2.1:4100") };
            assert!(all.note(Instant::ORIGIN, PeerIndex(1), path, at(observed)));
        }
        assert_eq!(all.verdict(&HOST), NatVerdict::Unknown);
        assert_eq!(all.reflexive(&[]).as_slice(), [at("198.51.100.9:61000"), at("203.0.113.9:61000")]);
    }

    #[test]
    fn a_mapping_that_moved_is_not_compared_with_what_was() {
        let (one, two) = ("192.0.2.1:4100", "192.0.2.2:4100");
        let mut all = seen(&[(1, one, "203.0.113.9:61000"), (2, two, "203.0.113.9:61000")]);
        let now = Instant::from_millis(60_000);
        assert!(!all.note(now, PeerIndex(1), path(one), at("203.0.113.9:61000")));
        assert!(all.note(now, PeerIndex(1), path(one), at("203.0.113.9:5000")));
        assert_eq!(all.verdict(&HOST), NatVerdict::Unknown);
        assert!(!all.note(now, PeerIndex(2), path(two), at("203.0.113.9:5000")));
        assert_eq!(all.verdict(&HOST), NatVerdict::EndpointIndependent);
        all.forget(PeerIndex(2));
        assert_eq!(all.iter().count(), 1);
        all.clear();
        assert!(all.reflexive(&[]).is_empty());
    }

    #[test]
    fn an_observer_that_changes_its_word_takes_nothing_from_the_others() {
        let (one, two, three) = ("192.0.2.1:4100", "192.0.2.2:4100", "192.0.2.3:4100");
        let truth = "203.0.113.9:61000";
        let mut all = seen(&[(1, one, truth), (2, two, truth), (3, three, truth)]);
        for lie in 1..100 {
            let now = Instant::from_millis(1_000 * u64::from(lie));
            all.note(now, PeerIndex(3), path(three), SocketAddr::from(([198, 51, 100, 1], lie)));
            assert_eq!(all.iter().filter(|seen| seen.observed == at(truth)).count(), 2);
            assert_eq!(all.verdict(&HOST), NatVerdict::EndpointIndependent);
        }
    }

    #[test]
    fn what_is_old_is_not_recent() {
        let all = seen(&[(1, "192.0.2.1:4100", "203.0.113.9:61000")]);
        let second = Duration::from_secs(1);
        let is_recent = |millis, socket| all.is_recent(Instant::from_millis(millis), SocketId(socket), second);
        assert!(is_recent(999, 0) && !is_recent(1_000, 0) && !is_recent(0, 1));
    }

    proptest! {
        #[test]
        fn a_nat_is_recognised_by_what_it_does(
            mapping in 0u8..3,
            asks in prop::collection::vec((0u32..6, 0u16..2), 1..60),
        ) {
            // Observers are hosts with two ports each; the NAT maps by nothing, by address, or by address and port.
            let mut all = Observations::default();
            for (n, (observer, port)) in (0u64..).zip(asks) {
                let remote = SocketAddr::from(([192, 0, 2, observer as u8 + 1], 4100 + port));
                let mapped = match mapping {
                    0 => 0,
                    1 => observer as u16 * 2,
                    _ => observer as u16 * 2 + port,
                };
                let path = FourTuple { socket: SocketId(0), local: None, remote };
                let observed = SocketAddr::from(([203, 0, 113, 9], 61_000 + mapped));
                let known = all.reflexive(&[]).contains(&observed);
                prop_assert_eq!(all.note(Instant::from_millis(n), PeerIndex(observer), path, observed), !known);
                let mut hosts: alloc::vec::Vec<_> = all.iter().map(|seen| seen.path.remote).collect();
                hosts.sort();
                let verdict = all.verdict(&HOST);
                if mapping == 0 {
                    hosts.dedup_by_key(|host| host.ip());
                    prop_assert_eq!(verdict == NatVerdict::EndpointIndependent, hosts.len() > 1);
                    prop_assert_ne!(verdict, NatVerdict::AddressDependent);
                } else {
                    hosts.dedup_by_key(|host| if mapping == 1 { SocketAddr::new(host.ip(), 0) } else { *host });
                    prop_assert_eq!(verdict == NatVerdict::AddressDependent, hosts.len() > 1);
                    prop_assert_ne!(verdict, NatVerdict::EndpointIndependent);
                }
            }
        }
    }
}
