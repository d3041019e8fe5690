//! What has to hold between values: no two owners of one address, no peer twice, no peer that is this node itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use vine_core::MAX_PEERS;
use vine_core::identity::{Identity, PeerId};
use vine_core::overlay::Prefix;
use vine_tokio::Endpoint;

use super::fault::Faults;
use super::read::{Draft, DraftBootstrap, DraftPeer};
use super::section::{At, Span};
use super::value;
use super::{Config, Node, Peer, Tun};
use crate::identity_file;

/// The identity that the draft names; that it cannot be used is a fault of the configuration.
pub(super) fn identity(faults: &mut Faults, draft: &Draft) -> Option<Identity> {
    let path = draft.identity_path.as_ref()?;
    match identity_file::load(&path.value) {
        Ok(identity) => Some(identity),
        Err(error) => {
            faults.at(path.span.clone(), error.to_string());
            None
        }
    }
}

/// The configuration of a draft, if nothing that it needs is missing. Whether it may be used, the faults say.
pub(super) fn config(faults: &mut Faults, draft: Draft, path: &Path, own: Option<PeerId>) -> Option<Config> {
    listen(faults, &draft.listen);
    addresses(faults, &draft.addresses);
    names(faults, &draft);
    ids(faults, &draft, own);
    ownership(faults, &draft);
    if let Some(beyond) = draft.peers.get(MAX_PEERS) {
        faults.at(beyond.span.clone(), format!("a node has at most {MAX_PEERS} peers; this is one more"));
    }
    let endpoints = endpoints(faults, &draft, own);

    let mut warnings = Vec::new();
    if draft.peers.is_empty() {
        warnings.push("no [[allowed_peers]]: this node will talk to nobody".to_owned());
    }
    Some(Config {
        path: std::path::absolute(path).unwrap_or_else(|_| path.to_owned()),
        node: Node {
            name: draft.name?.value,
            network_id: draft.network_id?,
            network_key: draft.network_key,
            identity_path: draft.identity_path?.value,
            listen: draft.listen.into_iter().map(|listen| listen.value).collect(),
            state_dir: draft.places.state_dir,
            control_socket: draft.places.control_socket,
        },
        tun: Tun {
            name: draft.tun_name,
            addresses: draft.addresses.into_iter().map(|address| address.value).collect(),
            mtu: draft.mtu,
        },
        peers: draft.peers.into_iter().filter_map(|peer| finished(peer, &endpoints)).collect(),
        policy: draft.policy,
        log: draft.log,
        warnings,
    })
}

fn finished(draft: DraftPeer, endpoints: &BTreeMap<PeerId, Vec<Endpoint>>) -> Option<Peer> {
    let id = draft.id?.value;
    Some(Peer {
        name: draft.name?.value,
        id,
        prefixes: draft.prefixes.into_iter().map(|prefix| prefix.value).collect(),
        relay_capable: draft.relay_capable,
        endpoints: endpoints.get(&id).cloned().unwrap_or_default(),
    })
}

/// Two sockets on one port can only be if their addresses differ and neither is the wildcard of the other.
fn listen(faults: &mut Faults, listen: &[At<SocketAddr>]) {
    for (index, second) in listen.iter().enumerate() {
        let clash = listen.iter().take(index).find(|first| {
            let (a, b) = (first.value, second.value);
            let same_family = a.is_ipv4() == b.is_ipv4();
            let covers = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
            same_family && covers && a.port() == b.port() && a.port() != 0
        });
        if let Some(first) = clash {
            let message = format!("udp://{} and udp://{} cannot both be listened on", first.value, second.value);
            faults.at(second.span.clone(), message);
        }
    }
}

fn addresses(faults: &mut Faults, addresses: &[At<(IpAddr, u8)>]) {
    for (index, address) in addresses.iter().enumerate() {
        let (ip, len) = address.value;
        if addresses.iter().take(index).any(|earlier| earlier.value.0 == ip) {
            faults.at(address.span.clone(), format!("address {ip} is listed twice"));
        }
        let IpAddr::V4(v4) = ip else { continue };
        // RFC 3021: networks of two addresses have neither a network address nor a broadcast address.
        let host_bits = u32::MAX.checked_shr(u32::from(len)).unwrap_or(0);
        if len < 31 && (v4.to_bits() & host_bits == 0 || v4.to_bits() & host_bits == host_bits) {
            let what =
                if v4.to_bits() & host_bits == 0 { "the network's own address" } else { "the broadcast address" };
            faults.at(
                address.span.clone(),
                format!("{ip} is {what} of {}, not one of a machine", value::network(ip, len)),
            );
        }
    }
}

fn names(faults: &mut Faults, draft: &Draft) {
    let own = draft.name.iter().map(|name| (name, "this node"));
    let peers = draft.peers.iter().filter_map(|peer| peer.name.as_ref()).map(|name| (name, "a peer"));
    let mut seen: BTreeMap<&str, (&Span, &str)> = BTreeMap::new();
    for (name, who) in own.chain(peers) {
        if let Some((first, who)) = seen.get(name.value.as_str()) {
            let place = faults.name_of(first.start);
            faults.at(name.span.clone(), format!("duplicate name `{}`: {who} has it already ({place})", name.value));
        } else {
            seen.insert(&name.value, (&name.span, who));
        }
    }
}

/// Each PeerId once, none of them this node's own, and no two that are one key to Noise.
fn ids(faults: &mut Faults, draft: &Draft, own: Option<PeerId>) {
    let mut seen: BTreeMap<PeerId, &At<PeerId>> = BTreeMap::new();
    let mut noise_keys: BTreeMap<[u8; 32], Option<&At<PeerId>>> = BTreeMap::new();
    if let Some(own) = own {
        noise_keys.insert(own.x25519(), None);
    }
    for id in draft.peers.iter().filter_map(|peer| peer.id.as_ref()) {
        if own == Some(id.value) {
            faults.at(id.span.clone(), "this is this node's own peer id; a node is not a peer of itself");
            continue;
        }
        if let Some(first) = seen.get(&id.value) {
            let place = faults.name_of(first.span.start);
            faults.at(id.span.clone(), format!("duplicate peer: the same peer_id stands in {place}"));
            continue;
        }
        seen.insert(id.value, id);
        match noise_keys.get(&id.value.x25519()) {
            None => {
                noise_keys.insert(id.value.x25519(), Some(id));
            }
            Some(first) => {
                let whose = first
                    .map_or("this node's own".to_owned(), |at| format!("the one in {}", faults.name_of(at.span.start)));
                faults.at(
                    id.span.clone(),
                    format!("this peer id and {whose} are the same key to the handshake (they differ only in sign); one of them is forged or damaged"),
                );
            }
        }
    }
}

/// Who owns a prefix, and where that is written.
struct Owner<'d> {
    /// Which peer; `None` is this node.
    peer: Option<usize>,
    span: &'d Span,
}

/// Overlapping ownership: a packet would have two owners.
fn ownership(faults: &mut Faults, draft: &Draft) {
    let mut owned: BTreeMap<Prefix, Owner<'_>> = BTreeMap::new();
    for address in &draft.addresses {
        let (ip, len) = address.value;
        owned.entry(value::network(ip, len)).or_insert(Owner { peer: None, span: &address.span });
    }
    for (index, peer) in draft.peers.iter().enumerate() {
        for prefix in &peer.prefixes {
            let Some((other, owner)) = overlapping(&owned, &prefix.value) else {
                owned.insert(prefix.value, Owner { peer: Some(index), span: &prefix.span });
                continue;
            };
            let place = faults.name_of(owner.span.start);
            let message = match owner.peer {
                Some(owner) if owner == index => {
                    format!("prefix {} overlaps {other} of the same peer ({place})", prefix.value)
                }
                Some(owner) => {
                    let name = draft.peers.get(owner).and_then(|peer| peer.name.as_ref());
                    let name = name.map_or_else(|| "another peer".to_owned(), |name| format!("`{}`", name.value));
                    format!("prefix {} overlaps that of {name}, {other} ({place})", prefix.value)
                }
                None => format!(
                    "prefix {} overlaps this node's own, {other} ({place}); an address has one owner, so give one of them a longer prefix",
                    prefix.value
                ),
            };
            faults.at(prefix.span.clone(), message);
        }
    }
}

/// One of `owned` that shares addresses with `prefix`: one that covers it, or else the first that it covers.
fn overlapping<'m, 'd>(owned: &'m BTreeMap<Prefix, Owner<'d>>, prefix: &Prefix) -> Option<(&'m Prefix, &'m Owner<'d>)> {
    let covering = (0..=prefix.length()).rev().map(|length| value::network(prefix.address(), length));
    let covering = covering.into_iter().find_map(|wider| owned.get_key_value(&wider));
    // A prefix sorts directly before those that lie inside it.
    covering.or_else(|| owned.range(*prefix..).next().filter(|(inner, _)| prefix.covers(inner)))
}

/// The endpoints of `[[bootstrap_peers]]` by peer. Each must be a peer that is allowed.
fn endpoints(faults: &mut Faults, draft: &Draft, own: Option<PeerId>) -> BTreeMap<PeerId, Vec<Endpoint>> {
    let mut endpoints: BTreeMap<PeerId, Vec<Endpoint>> = BTreeMap::new();
    let complete = draft.peers.iter().all(|peer| peer.id.is_some());
    let allowed: BTreeSet<PeerId> = draft.peers.iter().filter_map(|peer| Some(peer.id.as_ref()?.value)).collect();
    for bootstrap in &draft.bootstrap {
        let DraftBootstrap { id: Some(id), endpoint } = bootstrap else { continue };
        if own == Some(id.value) {
            faults.at(id.span.clone(), "this is this node's own peer id; a node does not bootstrap from itself");
            continue;
        }
        // An allowed peer whose id has a typo is a fault already, and may well be the one that is meant.
        if complete && !allowed.contains(&id.value) {
            let message =
                "this bootstrap peer is in no [[allowed_peers]]; nothing would be said to it, so add it there";
            faults.at(id.span.clone(), message);
        }
        let Some(endpoint) = endpoint else { continue };
        let known = endpoints.entry(id.value).or_default();
        if known.contains(&endpoint.value) {
            faults.at(endpoint.span.clone(), format!("{} is listed twice for this peer", endpoint.value));
        } else {
            known.push(endpoint.value.clone());
        }
    }
    endpoints
}
