//! What theory says of two hosts behind boxes: whether they can reach each other once they know of each other.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use vine_core::Instant;
use vine_core::path::{Family, FourTuple};
use vine_core::rng::Rng;

use super::{Network, socket_of};

/// After so many rounds of asking nothing new turns up: every one may open a mapping that shows in the next.
const ROUNDS: usize = 4;

/// How two hosts reach each other that send to all addresses of each other that they learn of, at the same time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Reach {
    /// Nothing arrives, in either direction.
    Neither,
    /// What one of them sends arrives, but no answer to where it came from does.
    OneWay,
    /// There is a path that carries both directions.
    BothWays,
}

impl Network {
    /// What two hosts can do who exchange addresses through these, which see where they come from: nobody guesses a port,
    /// nothing is mapped beforehand, and links do as if they were whole. Of itself each knows what it was told.
    pub fn reach(&self, a: usize, b: usize, through: &[usize]) -> Reach {
        [Family::V4, Family::V6]
            .into_iter()
            .map(|family| self.reach_by(family, a, b, through))
            .max()
            .unwrap_or(Reach::Neither)
    }

    /// The same of hosts that know their own addresses and ports, or of peers that do.
    pub fn reach_at_best(&self, a: usize, b: usize, through: &[usize]) -> Reach {
        let mut informed = Network::new(Rng::from_seed([0; 32]));
        (informed.hosts, informed.boxes) = (self.hosts.clone(), self.boxes.clone());
        for host in [a, b] {
            informed.hosts[host].told = (self.local_addresses(host), self.hosts[host].port);
        }
        informed.reach(a, b, through)
    }

    fn reach_by(&self, family: Family, a: usize, b: usize, through: &[usize]) -> Reach {
        let mut fresh = Network::new(Rng::from_seed([0; 32]));
        (fresh.hosts, fresh.boxes) = (self.hosts.clone(), self.boxes.clone());
        for host in 0..fresh.hosts.len() {
            fresh.rebind(host);
        }
        let mut known =
            BTreeMap::from([(a, fresh.candidates(family, b, through)), (b, fresh.candidates(family, a, through))]);
        let mut arrived = BTreeSet::new();
        for (from, to) in [(a, b), (b, a)].into_iter().cycle().take(2 * ROUNDS) {
            for remote in known[&from].clone() {
                if let Some(source) = fresh.try_datagram(from, to, remote) {
                    arrived.insert((from, remote, source));
                    known.entry(to).or_default().insert(source);
                }
            }
        }
        let answered = |&(from, remote, source): &(usize, SocketAddr, SocketAddr)| {
            from == a && arrived.contains(&(b, source, remote))
        };
        match arrived.iter().any(answered) {
            true => Reach::BothWays,
            false if arrived.is_empty() => Reach::Neither,
            false => Reach::OneWay,
        }
    }

    /// Where a host is by its own account, and by that of others. Of an address that it has got since it was told, it knows
    /// once it is reached there; nobody tells it of another port.
    fn candidates(&mut self, family: Family, of: usize, through: &[usize]) -> BTreeSet<SocketAddr> {
        let mut found = BTreeSet::new();
        for observer in through {
            for endpoint in self.public_endpoints(*observer).iter().filter(|endpoint| Family::of(endpoint) == family) {
                found.extend(self.try_datagram(of, *observer, *endpoint));
            }
        }
        let (told, port) = &self.hosts[of].told;
        let is_known = |ip: &IpAddr| told.contains(ip) || !found.is_empty();
        let own = self.local_addresses(of).into_iter().filter(is_known).map(|ip| SocketAddr::new(ip, *port));
        let own: Vec<SocketAddr> = own.filter(|own| Family::of(own) == family).collect();
        found.extend(own);
        found
    }

    /// Whether a datagram to `remote` would reach `to`, and as if from where. Leaves the mappings that it makes.
    fn try_datagram(&mut self, from: usize, to: usize, remote: SocketAddr) -> Option<SocketAddr> {
        let now = Instant::from_millis(1_000);
        let path = FourTuple { socket: socket_of(Family::of(&remote)), local: None, remote };
        let departure = self.depart(now, from, &path)?;
        let (host, _) = self.descend(now, departure.realm?, departure.source, remote)?;
        (host == to).then_some(departure.source)
    }
}

#[cfg(test)]
mod tests {
    use Reach::{BothWays, Neither, OneWay};

    use super::super::nat::{Behaviour, NatKind};
    use super::*;

    const EIM: Behaviour = Behaviour::EndpointIndependent;
    const AD: Behaviour = Behaviour::AddressDependent;
    const APD: Behaviour = Behaviour::AddressAndPortDependent;

    /// Host 0 in public; hosts 1 and 2 behind these, from the outermost to the innermost; equal first numbers are one box.
    fn reach(before: [&[(u8, NatKind)]; 2]) -> Reach {
        let mut network = Network::new(Rng::from_seed([1; 32]));
        network.attach(true, false, None, None);
        let mut numbers = BTreeMap::new();
        for chain in before {
            let behind = chain.iter().fold(None, |outer, (name, kind)| {
                Some(*numbers.entry(*name).or_insert_with(|| network.put_up(*kind, outer)))
            });
            network.attach(true, false, behind, None);
        }
        network.reach(1, 2, &[0])
    }

    fn between(first: (Behaviour, Behaviour), second: (Behaviour, Behaviour)) -> Reach {
        reach([&[(1, NatKind::new(first.0, first.1))], &[(2, NatKind::new(second.0, second.1))]])
    }

    #[test]
    fn endpoint_independent_mappings_always_meet() {
        for first in Behaviour::ALL {
            for second in Behaviour::ALL {
                assert_eq!(between((EIM, first), (EIM, second)), BothWays, "{first:?}, {second:?}");
            }
        }
    }

    #[test]
    fn a_mapping_that_depends_on_the_other_end_meets_a_filter_that_does_not_ask_for_ports() {
        for mapping in [AD, APD] {
            for filtering in Behaviour::ALL {
                assert_eq!(between((EIM, EIM), (mapping, filtering)), BothWays);
                assert_eq!(between((EIM, AD), (mapping, filtering)), BothWays);
            }
            // What the first sends to the address that a third one saw arrives, but an answer comes from another port.
            assert_eq!(between((EIM, APD), (mapping, EIM)), OneWay);
            assert_eq!(between((EIM, APD), (mapping, AD)), Neither);
            assert_eq!(between((EIM, APD), (mapping, APD)), Neither);
        }
    }

    #[test]
    fn two_that_depend_on_the_other_end_do_not_meet() {
        for (first, second) in [(AD, AD), (AD, APD), (APD, APD)] {
            for (one, other) in [(AD, AD), (AD, APD), (APD, AD), (APD, APD)] {
                assert_eq!(between((first, one), (second, other)), Neither);
            }
        }
        assert_eq!(between((AD, EIM), (AD, AD)), BothWays, "the mapping toward the other end does not change again");
    }

    #[test]
    fn two_behind_one_box_meet_there_and_two_behind_boxes_in_it_by_hairpin() {
        let symmetric = NatKind::symmetric();
        assert_eq!(reach([&[(1, symmetric)], &[(1, symmetric)]]), BothWays);
        let home = NatKind::cone(true);
        for hairpin in [true, false] {
            let carrier = NatKind { hairpin, ..NatKind::cone(true) };
            let expected = if hairpin { BothWays } else { Neither };
            assert_eq!(reach([&[(1, carrier), (2, home)], &[(1, carrier), (3, home)]]), expected);
        }
    }

    #[test]
    fn a_chain_is_what_its_strictest_box_is() {
        let (home, symmetric) = (NatKind::cone(true), NatKind::symmetric());
        assert_eq!(reach([&[(1, home), (2, home)], &[(3, home)]]), BothWays);
        assert_eq!(reach([&[(1, symmetric), (2, home)], &[(3, home)]]), Neither);
        assert_eq!(reach([&[(1, home), (2, symmetric)], &[(3, home)]]), Neither);
        assert_eq!(reach([&[(1, symmetric), (2, home)], &[(3, NatKind::cone(false))]]), BothWays);
    }

    #[test]
    fn what_a_host_was_not_told_it_tells_nobody_until_it_is_reached_there() {
        let mut network = Network::new(Rng::from_seed([1; 32]));
        network.attach(true, false, None, None);
        network.attach(false, true, None, None);
        network.attach(true, true, None, Some(APD));
        assert_eq!(network.reach(1, 2, &[]), BothWays);
        network.roam(1, true);
        assert_eq!(network.reach(1, 2, &[]), Neither, "another port");
        assert_eq!(network.reach_at_best(1, 2, &[]), BothWays);
        network.hosts[1].told.1 = network.hosts[1].port;
        network.roam(1, false);
        assert_eq!(network.reach(1, 2, &[]), Neither, "another address");
        network.attach(true, true, None, None);
        assert_eq!(network.reach(1, 2, &[3]), BothWays, "somebody reaches it there");
    }

    #[test]
    fn firewalls_open_for_each_other() {
        let mut network = Network::new(Rng::from_seed([1; 32]));
        network.attach(true, true, None, None);
        for _ in 0..2 {
            let nat = network.put_up(NatKind::symmetric(), None);
            network.attach(true, true, Some(nat), Some(APD));
        }
        assert!(network.public_endpoints(1).is_empty());
        assert_eq!(network.reach(1, 2, &[0]), BothWays);
    }
}
