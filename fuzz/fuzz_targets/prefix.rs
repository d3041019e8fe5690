//! Prefixes: what is read is written and read again, its bounds are its own, and a route table of such prefixes answers
//! like a list that is searched from end to end.
#![no_main]

use std::net::IpAddr;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use vine_core::overlay::{PeerIndex, Prefix, PrefixError, RouteTable};

#[derive(Arbitrary, Debug)]
enum Input<'a> {
    Text(&'a str),
    Value { address: IpAddr, length: u8, other: IpAddr },
    Routes(Vec<Change>),
}

#[derive(Arbitrary, Debug)]
enum Change {
    Insert { v6: bool, address: u16, length: u8, peer: u8 },
    Remove { v6: bool, address: u16, length: u8 },
    RemovePeer(u8),
}

/// Prefixes that often nest: of the 16 upper bits only.
fn prefix(v6: bool, address: u16, length: u8) -> Prefix {
    let address: IpAddr = match v6 {
        false => std::net::Ipv4Addr::from_bits(u32::from(address) << 16).into(),
        true => std::net::Ipv6Addr::from_bits(u128::from(address) << 112).into(),
    };
    Prefix::containing(address, length % 17).expect("16 bits are in both families")
}

fn check(prefix: Prefix) {
    assert_eq!(prefix.to_string().parse(), Ok(prefix));
    assert_eq!(Prefix::new(prefix.address(), prefix.length()), Ok(prefix));
    assert!(prefix.contains(prefix.address()) && prefix.contains(prefix.last_address()));
    assert!(prefix.covers(&Prefix::host(prefix.last_address())) && prefix.overlaps(&prefix));
    assert!(prefix.address() <= prefix.last_address());
}

fn check_routes(changes: &[Change]) {
    let mut table = RouteTable::new();
    let mut list: Vec<(Prefix, PeerIndex)> = Vec::new();
    for change in changes {
        match *change {
            Change::Insert { v6, address, length, peer } => {
                let (prefix, peer) = (prefix(v6, address, length), PeerIndex(u32::from(peer % 4)));
                let taken = list.iter().any(|(other, owner)| other.overlaps(&prefix) && *owner != peer);
                assert_eq!(table.insert(prefix, peer).is_err(), taken);
                if !taken && !list.contains(&(prefix, peer)) {
                    list.push((prefix, peer));
                }
            }
            Change::Remove { v6, address, length } => {
                let prefix = prefix(v6, address, length);
                let owner = list.iter().find(|(other, _)| *other == prefix).map(|(_, owner)| *owner);
                assert_eq!(table.remove(&prefix), owner);
                list.retain(|(other, _)| *other != prefix);
            }
            Change::RemovePeer(peer) => {
                let peer = PeerIndex(u32::from(peer % 4));
                let before = list.len();
                list.retain(|(_, owner)| *owner != peer);
                assert_eq!(table.remove_peer(peer), before - list.len());
            }
        }
    }
    list.sort_by_key(|(prefix, _)| *prefix);
    assert_eq!(table.iter().collect::<Vec<_>>(), list);
    for change in changes {
        let (Change::Insert { v6, address, length, .. } | Change::Remove { v6, address, length }) = *change else {
            continue;
        };
        let of = prefix(v6, address, length);
        for asked in [of.address(), of.last_address()] {
            let longest = list.iter().filter(|(held, _)| held.contains(asked)).max_by_key(|(held, _)| held.length());
            assert_eq!(table.longest_match(asked), longest.copied());
            assert_eq!(table.owner_of(asked), longest.map(|(_, owner)| *owner));
        }
    }
}

fuzz_target!(|input: Input<'_>| {
    match input {
        Input::Text(text) => match text.parse::<Prefix>() {
            Ok(prefix) => check(prefix),
            Err(PrefixError::HostBits { prefix, .. }) => check(prefix),
            Err(_) => {}
        },
        Input::Value { address, length, other } => {
            let Ok(prefix) = Prefix::containing(address, length) else { return };
            check(prefix);
            assert!(prefix.contains(address));
            assert_eq!(Prefix::new(address, length).is_ok(), prefix.address() == address);
            assert_eq!(prefix.contains(other), Prefix::containing(other, length) == Ok(prefix));
        }
        Input::Routes(changes) => check_routes(&changes),
    }
});
