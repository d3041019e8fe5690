//! Who may be in a network with whom: one owner a range, one peer a key.

use core::net::SocketAddr;

use crate::config::{ConfigError, MAX_PEERS, PeerConfig};
use crate::identity::PeerId;
use crate::overlay::Prefix;

/// Checks that a list of peers can stand beside this node and its ranges.
///
/// # Errors
/// The first fault found, as a [`ConfigError`].
pub fn check(own: &PeerId, own_prefixes: &[Prefix], peers: &[PeerConfig]) -> Result<(), ConfigError> {
    if peers.len() > MAX_PEERS {
        return Err(ConfigError::TooManyPeers { count: peers.len() });
    }
    check_keys(own, peers)?;
    check_prefixes(own_prefixes, peers)?;
    let prefixes = || peers.iter().map(|peer| (peer.name.as_str(), peer.prefixes.as_slice()));
    peers.iter().try_for_each(|peer| check_endpoints(&peer.endpoints, prefixes()))
}

/// No endpoint inside the overlay: the way there would lead through the tunnel that is to be set up, and every datagram of
/// the tunnel into the tunnel again. `prefixes` are those of every peer, with its name.
///
/// # Errors
/// [`ConfigError::EndpointInOverlay`].
pub fn check_endpoints<'a>(
    endpoints: &[SocketAddr],
    mut prefixes: impl Iterator<Item = (&'a str, &'a [Prefix])>,
) -> Result<(), ConfigError> {
    if endpoints.is_empty() {
        return Ok(());
    }
    prefixes.try_for_each(|(owner, prefixes)| {
        let inside = |prefix: &Prefix| endpoints.iter().find(|at| prefix.contains(at.ip())).map(|at| (*prefix, *at));
        prefixes.iter().find_map(inside).map_or(Ok(()), |(prefix, endpoint)| {
            Err(ConfigError::EndpointInOverlay { endpoint, prefix, owner: owner.into() })
        })
    })
}

/// No key twice. The Noise static key is the Montgomery form of the identity, which forgets a sign: two identities may be
/// one static key.
fn check_keys(own: &PeerId, peers: &[PeerConfig]) -> Result<(), ConfigError> {
    let mut keys: alloc::collections::BTreeMap<[u8; 32], &PeerConfig> = alloc::collections::BTreeMap::new();
    for peer in peers {
        if peer.id == *own || peer.id.x25519() == own.x25519() {
            return Err(ConfigError::OwnIdentity { name: peer.name.clone() });
        }
        if let Some(first) = keys.insert(peer.id.x25519(), peer) {
            let (first, second) = (first.clone(), peer.name.clone());
            return Err(if first.id == peer.id {
                ConfigError::DuplicatePeer { first: first.name, second }
            } else {
                ConfigError::SharedStaticKey { first: first.name, second }
            });
        }
    }
    Ok(())
}

/// No two owners of overlapping ranges. Sorted by first address, a range overlaps a later one only if it overlaps its next
/// neighbour or covers it.
fn check_prefixes(own_prefixes: &[Prefix], peers: &[PeerConfig]) -> Result<(), ConfigError> {
    const OWN: &str = "this node";
    let own = own_prefixes.iter().map(|prefix| (*prefix, OWN, None));
    let theirs = peers.iter().flat_map(|peer| peer.prefixes.iter().map(|p| (*p, peer.name.as_str(), Some(peer.id))));
    let mut claims: alloc::vec::Vec<_> = own.chain(theirs).collect();
    claims.sort_by_key(|(prefix, ..)| (prefix.address(), prefix.length()));
    let mut widest: Option<(Prefix, &str, Option<PeerId>)> = None;
    for (prefix, name, owner) in claims {
        if let Some((other_prefix, other, other_owner)) = widest
            && other_prefix.overlaps(&prefix)
        {
            if other_owner == owner {
                continue; // A peer may nest its own ranges; the wider one keeps watch over what follows.
            }
            return Err(ConfigError::OverlappingPrefix {
                prefix,
                name: name.into(),
                other_prefix,
                other: other.into(),
            });
        }
        widest = Some((prefix, name, owner));
    }
    Ok(())
}
