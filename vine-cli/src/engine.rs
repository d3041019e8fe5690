//! A configuration as the engine takes it.

use std::net::SocketAddr;

use vine_core::{Identity, NodeConfig, PeerConfig, PeerId, Policy};
use vine_tokio::{Bootstrap, Device, EngineConfig, ListenAddr, Reload, TunConfig};

use crate::config::Config;

/// What the engine is started with. `last_known` tells where a peer was reached in a former life.
pub(crate) fn start_of(
    config: &Config,
    identity: Identity,
    last_known: impl Fn(&PeerId) -> Vec<SocketAddr>,
) -> EngineConfig {
    let node = NodeConfig {
        network_id: config.node.network_id.clone(),
        network_key: config.node.network_key.clone(),
        sockets: Vec::new(),
        peers: peers(config, last_known),
        policy: policy(config),
        own_prefixes: config.tun.own_prefixes(),
        mtu: config.tun.mtu,
        aes_is_fast: vine_tokio::aes_is_fast(),
        checksum_offload: false,
    };
    let tun = TunConfig { name: config.tun.name.clone(), addresses: config.tun.addresses.clone(), mtu: config.tun.mtu };
    let listen = config.node.listen.iter().copied().map(ListenAddr).collect();
    let mut start = EngineConfig::new(node, identity, listen, Device::Tun(tun));
    start.bootstrap = bootstrap(config);
    start
}

/// What a reload replaces.
pub(crate) fn reload_of(config: &Config, last_known: impl Fn(&PeerId) -> Vec<SocketAddr>) -> Reload {
    Reload { peers: peers(config, last_known), policy: policy(config), bootstrap: bootstrap(config) }
}

fn peers(config: &Config, last_known: impl Fn(&PeerId) -> Vec<SocketAddr>) -> Vec<PeerConfig> {
    let peers = config.peers.iter().map(|peer| PeerConfig {
        id: peer.id,
        name: peer.name.clone(),
        prefixes: peer.prefixes.clone(),
        relay_capable: peer.relay_capable,
        // All endpoints are given as `bootstrap`, where names are looked up as well.
        endpoints: Vec::new(),
        last_known: last_known(&peer.id),
    });
    peers.collect()
}

fn policy(config: &Config) -> Policy {
    Policy {
        strict_allowlist: true,
        allow_relay: config.policy.allow_relay,
        allow_signaling_upgrade: config.policy.allow_signaling_upgrade,
        relay: config.policy.relay,
    }
}

fn bootstrap(config: &Config) -> Vec<Bootstrap> {
    let of = |peer: &crate::config::Peer| {
        let id = peer.id;
        peer.endpoints.clone().into_iter().map(move |endpoint| Bootstrap { peer: id, endpoint })
    };
    config.peers.iter().flat_map(of).collect()
}
