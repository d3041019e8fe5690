//! Who owns which address.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::IpAddr;

use super::Prefix;

/// A peer's place in the caller's peer table. The route table gives it no meaning of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerIndex(pub u32);

/// Two peers would own the same addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{prefix} overlaps {existing}, which another peer owns")]
pub struct RouteConflict {
    /// The prefix that was refused.
    pub prefix: Prefix,
    /// Whose it would have been.
    pub peer: PeerIndex,
    /// The prefix in the table that it overlaps; the first in order if there are several.
    pub existing: Prefix,
    /// Whose that is.
    pub owner: PeerIndex,
}

/// The map from addresses to the peers that own them.
///
/// No two peers own the same address, so wherever prefixes nest they belong to one peer, and the longest match and the
/// widest match name the same owner. Lookup relies on that: per family one sorted array of ranges that are apart from
/// each other, one binary search, no allocation.
#[derive(Clone, Debug, Default)]
pub struct RouteTable {
    /// Every prefix that was inserted.
    prefixes: BTreeMap<Prefix, PeerIndex>,
    /// The IPv4 prefixes that no other covers, as ranges in order.
    v4: Ranges<u32>,
    /// The same for IPv6.
    v6: Ranges<u128>,
}

impl RouteTable {
    /// An empty table.
    pub fn new() -> RouteTable {
        RouteTable::default()
    }

    /// Makes `peer` the owner of `prefix`.
    ///
    /// Prefixes of one peer may nest and may be inserted again. If some of the addresses belong to another peer, the
    /// table stays as it was.
    pub fn insert(&mut self, prefix: Prefix, peer: PeerIndex) -> Result<(), RouteConflict> {
        if let Some((existing, owner)) = self.overlapping(&prefix).find(|&(_, owner)| owner != peer) {
            return Err(RouteConflict { prefix, peer, existing, owner });
        }
        self.prefixes.insert(prefix, peer);
        self.add_range(prefix, peer);
        Ok(())
    }

    /// Takes `prefix` out and says whose it was. What nests in it, or covers it, stays.
    pub fn remove(&mut self, prefix: &Prefix) -> Option<PeerIndex> {
        let owner = self.prefixes.remove(prefix)?;
        let was_widest = match (prefix.address(), prefix.last_address()) {
            (IpAddr::V4(first), IpAddr::V4(last)) => self.v4.remove(first.to_bits(), last.to_bits()),
            (IpAddr::V6(first), IpAddr::V6(last)) => self.v6.remove(first.to_bits(), last.to_bits()),
            _ => false,
        };
        if was_widest {
            let nested: Vec<Prefix> = self.nested(prefix).map(|(nested, _)| nested).collect();
            for nested in nested {
                self.add_range(nested, owner);
            }
        }
        Some(owner)
    }

    /// Takes every prefix of `peer` out and returns how many there were.
    pub fn remove_peer(&mut self, peer: PeerIndex) -> usize {
        let before = self.prefixes.len();
        self.prefixes.retain(|_, owner| *owner != peer);
        self.v4.remove_owner(peer);
        self.v6.remove_owner(peer);
        before - self.prefixes.len()
    }

    /// Who owns `address`.
    pub fn owner_of(&self, address: IpAddr) -> Option<PeerIndex> {
        match address {
            IpAddr::V4(ip) => self.v4.owner_of(ip.to_bits()),
            IpAddr::V6(ip) => self.v6.owner_of(ip.to_bits()),
        }
    }

    /// Whether `peer` owns `address`: the check on the source of every packet that a peer sends.
    pub fn owns(&self, peer: PeerIndex, address: IpAddr) -> bool {
        self.owner_of(address) == Some(peer)
    }

    /// The longest prefix that contains `address`, and its owner. For reports; packets need only [`Self::owner_of`].
    pub fn longest_match(&self, address: IpAddr) -> Option<(Prefix, PeerIndex)> {
        self.covering(&Prefix::host(address)).last()
    }

    /// Every prefix with its owner, in the order of [`Prefix`].
    pub fn iter(&self) -> impl Iterator<Item = (Prefix, PeerIndex)> + '_ {
        self.prefixes.iter().map(|(prefix, owner)| (*prefix, *owner))
    }

    /// The prefixes of one peer, in order.
    pub fn prefixes_of(&self, peer: PeerIndex) -> impl Iterator<Item = Prefix> + '_ {
        self.iter().filter(move |&(_, owner)| owner == peer).map(|(prefix, _)| prefix)
    }

    /// How many prefixes there are.
    pub fn len(&self) -> usize {
        self.prefixes.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.prefixes.is_empty()
    }

    /// What overlaps `prefix`: what covers it and then, beginning with itself, what nests in it.
    fn overlapping(&self, prefix: &Prefix) -> impl Iterator<Item = (Prefix, PeerIndex)> + '_ {
        let itself = *prefix;
        self.covering(prefix).filter(move |(covering, _)| *covering != itself).chain(self.nested(prefix))
    }

    /// The prefixes that cover `prefix`, itself included, widest first.
    fn covering(&self, prefix: &Prefix) -> impl Iterator<Item = (Prefix, PeerIndex)> + '_ {
        let address = prefix.address();
        (0..=prefix.length()).filter_map(move |length| {
            let wider = Prefix::containing(address, length).ok()?;
            self.prefixes.get(&wider).map(|owner| (wider, *owner))
        })
    }

    /// The prefixes that `prefix` covers, itself included, in order: they follow it directly.
    fn nested(&self, prefix: &Prefix) -> impl Iterator<Item = (Prefix, PeerIndex)> + '_ {
        let outer = *prefix;
        self.prefixes
            .range(outer..)
            .map(|(prefix, owner)| (*prefix, *owner))
            .take_while(move |(prefix, _)| outer.covers(prefix))
    }

    fn add_range(&mut self, prefix: Prefix, owner: PeerIndex) {
        match (prefix.address(), prefix.last_address()) {
            (IpAddr::V4(first), IpAddr::V4(last)) => self.v4.add(first.to_bits(), last.to_bits(), owner),
            (IpAddr::V6(first), IpAddr::V6(last)) => self.v6.add(first.to_bits(), last.to_bits(), owner),
            // The last address is made from the first one and shares its family.
            _ => {}
        }
    }
}

/// Ranges in ascending order, none touching the addresses of another.
#[derive(Clone, Debug)]
struct Ranges<A>(Vec<Range<A>>);

/// The addresses from `first` to `last`, both included.
#[derive(Clone, Copy, Debug)]
struct Range<A> {
    first: A,
    last: A,
    owner: PeerIndex,
}

impl<A> Default for Ranges<A> {
    fn default() -> Self {
        Ranges(Vec::new())
    }
}

impl<A: Copy + Ord> Ranges<A> {
    fn owner_of(&self, address: A) -> Option<PeerIndex> {
        let after = self.0.partition_point(|range| range.first <= address);
        let range = self.0.get(after.checked_sub(1)?)?;
        (address <= range.last).then_some(range.owner)
    }

    /// Adds the range of a prefix, unless one that is there covers it. Ranges of prefixes nest or are apart, so it
    /// otherwise takes the place of all that begin in it.
    fn add(&mut self, first: A, last: A, owner: PeerIndex) {
        let from = self.0.partition_point(|range| range.first < first);
        let to = self.0.partition_point(|range| range.first <= last);
        let begins_before = from.checked_sub(1).and_then(|at| self.0.get(at));
        let begins_with = self.0.get(from).filter(|range| range.first == first);
        if [begins_before, begins_with].into_iter().flatten().any(|range| range.last >= last) {
            return;
        }
        self.0.splice(from..to, [Range { first, last, owner }]);
    }

    /// Removes exactly this range and says whether it was there.
    fn remove(&mut self, first: A, last: A) -> bool {
        let at = self.0.partition_point(|range| range.first < first);
        let found = self.0.get(at).is_some_and(|range| range.first == first && range.last == last);
        if found {
            self.0.remove(at);
        }
        found
    }

    fn remove_owner(&mut self, owner: PeerIndex) {
        self.0.retain(|range| range.owner != owner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use core::net::{Ipv4Addr, Ipv6Addr};
    use proptest::prelude::*;

    const ALPHA: PeerIndex = PeerIndex(1);
    const BETA: PeerIndex = PeerIndex(2);

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn nested_prefixes_of_one_peer() {
        let mut table = RouteTable::new();
        table.insert(prefix("10.1.2.0/24"), ALPHA).unwrap();
        table.insert(prefix("10.1.0.0/16"), ALPHA).unwrap();
        table.insert(prefix("10.1.0.0/16"), ALPHA).unwrap();
        table.insert(prefix("10.2.0.0/16"), BETA).unwrap();
        assert_eq!(table.longest_match(ip("10.1.2.3")), Some((prefix("10.1.2.0/24"), ALPHA)));
        assert_eq!(table.longest_match(ip("10.1.3.3")), Some((prefix("10.1.0.0/16"), ALPHA)));
        assert!(table.owns(ALPHA, ip("10.1.3.3")) && !table.owns(BETA, ip("10.1.3.3")));
        assert_eq!(table.remove(&prefix("10.1.0.0/16")), Some(ALPHA));
        assert_eq!(table.owner_of(ip("10.1.2.3")), Some(ALPHA));
        assert_eq!(table.owner_of(ip("10.1.3.3")), None);
        assert_eq!(table.remove_peer(BETA), 1);
        assert_eq!(table.owner_of(ip("10.2.0.1")), None);
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn a_conflict_names_both() {
        let mut table = RouteTable::new();
        table.insert(prefix("10.1.2.0/24"), ALPHA).unwrap();
        let narrower = table.insert(prefix("10.1.2.128/25"), BETA).unwrap_err();
        assert_eq!(narrower.to_string(), "10.1.2.128/25 overlaps 10.1.2.0/24, which another peer owns");
        let wider = table.insert(prefix("0.0.0.0/0"), BETA).unwrap_err();
        assert_eq!((wider.existing, wider.owner), (prefix("10.1.2.0/24"), ALPHA));
        let same = table.insert(prefix("10.1.2.0/24"), BETA).unwrap_err();
        assert_eq!((same.peer, same.owner), (BETA, ALPHA));
        table.insert(prefix("::/0"), BETA).unwrap();
        assert_eq!(table.owner_of(ip("fd00::1")), Some(BETA));
        assert_eq!(table.len(), 2);
    }

    /// What a route table does, said as plainly as possible.
    #[derive(Default)]
    struct Model(Vec<(Prefix, PeerIndex)>);

    impl Model {
        fn insert(&mut self, prefix: Prefix, peer: PeerIndex) -> bool {
            let free = self.0.iter().all(|(other, owner)| *owner == peer || !other.overlaps(&prefix));
            if free && !self.0.contains(&(prefix, peer)) {
                self.0.push((prefix, peer));
            }
            free
        }

        fn longest_match(&self, address: IpAddr) -> Option<(Prefix, PeerIndex)> {
            let containing = self.0.iter().filter(|(prefix, _)| prefix.contains(address));
            containing.max_by_key(|(prefix, _)| prefix.length()).copied()
        }
    }

    #[derive(Clone, Debug)]
    enum Op {
        Insert(Prefix, PeerIndex),
        Remove(Prefix),
        RemovePeer(PeerIndex),
    }

    /// Addresses and prefixes from a small world, so that they meet.
    fn address() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            (0u32..4, 0u32..4).prop_map(|(high, low)| Ipv4Addr::from_bits(high << 30 | low).into()),
            (0u128..4, 0u128..4).prop_map(|(high, low)| Ipv6Addr::from_bits(high << 126 | low).into()),
        ]
    }

    fn prefixes() -> impl Strategy<Value = Prefix> {
        (address(), prop::sample::select(&[0u8, 1, 2, 3, 29, 30, 31, 32, 64, 126, 127, 128])).prop_map(
            |(address, length)| {
                let length = if address.is_ipv4() { length.min(32) } else { length };
                Prefix::containing(address, length).unwrap()
            },
        )
    }

    fn op() -> impl Strategy<Value = Op> {
        let peer = (0u32..3).prop_map(PeerIndex);
        prop_oneof![
            6 => (prefixes(), peer.clone()).prop_map(|(prefix, peer)| Op::Insert(prefix, peer)),
            3 => prefixes().prop_map(Op::Remove),
            1 => peer.prop_map(Op::RemovePeer),
        ]
    }

    proptest! {
        #[test]
        fn does_what_a_linear_scan_does(
            ops in prop::collection::vec(op(), 0..40),
            probes in prop::collection::vec(address(), 8),
        ) {
            let (mut table, mut model) = (RouteTable::new(), Model::default());
            for op in ops {
                match op {
                    Op::Insert(prefix, peer) => {
                        prop_assert_eq!(table.insert(prefix, peer).is_ok(), model.insert(prefix, peer));
                    }
                    Op::Remove(prefix) => {
                        let at = model.0.iter().position(|(other, _)| *other == prefix);
                        let owner = at.map(|at| model.0.remove(at).1);
                        prop_assert_eq!(table.remove(&prefix), owner);
                    }
                    Op::RemovePeer(peer) => {
                        let before = model.0.len();
                        model.0.retain(|(_, owner)| *owner != peer);
                        prop_assert_eq!(table.remove_peer(peer), before - model.0.len());
                    }
                }
                for address in &probes {
                    prop_assert_eq!(table.longest_match(*address), model.longest_match(*address));
                    prop_assert_eq!(table.owner_of(*address), model.longest_match(*address).map(|(_, owner)| owner));
                }
            }
            model.0.sort();
            prop_assert_eq!(table.iter().collect::<Vec<_>>(), model.0);
        }
    }
}
