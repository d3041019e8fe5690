//! What a new configuration changes, and what of it a running daemon can take.

use std::collections::BTreeMap;
use std::fmt;

use vine_core::PeerId;

use crate::api::Reloaded;
use crate::config::{Config, Peer};

/// What is different in `new`.
pub(super) fn between(old: &Config, new: &Config) -> Reloaded {
    let before: BTreeMap<PeerId, &Peer> = old.peers.iter().map(|peer| (peer.id, peer)).collect();
    let after: BTreeMap<PeerId, &Peer> = new.peers.iter().map(|peer| (peer.id, peer)).collect();
    let name = |peer: &&Peer| peer.name.clone();
    Reloaded {
        added: after.values().filter(|peer| !before.contains_key(&peer.id)).map(name).collect(),
        removed: before.values().filter(|peer| !after.contains_key(&peer.id)).map(name).collect(),
        changed: after.values().filter(|peer| before.get(&peer.id).is_some_and(|old| old != *peer)).map(name).collect(),
        policy: old.policy != new.policy,
        restart_needed: restart_needed(old, new),
    }
}

/// The keys that only a new start can take: they are built into sockets, the TUN device and every handshake.
fn restart_needed(old: &Config, new: &Config) -> Vec<String> {
    let key = |config: &Config| config.node.network_key.as_ref().map(|key| *key.as_bytes());
    let (a, b) = (&old.node, &new.node);
    let changed = [
        ("node.name", a.name != b.name),
        ("node.network_id", a.network_id != b.network_id),
        ("node.network_key", key(old) != key(new)),
        ("node.identity_path", a.identity_path != b.identity_path),
        ("node.listen", a.listen != b.listen),
        ("node.state_dir", a.state_dir != b.state_dir),
        ("node.control_socket", a.control_socket != b.control_socket),
        ("tun.name", old.tun.name != new.tun.name),
        ("tun.addresses", old.tun.addresses != new.tun.addresses),
        ("tun.mtu", old.tun.mtu != new.tun.mtu),
        ("log", old.log != new.log),
    ];
    changed.into_iter().filter(|(_, changed)| *changed).map(|(key, _)| key.to_owned()).collect()
}

impl Reloaded {
    /// Whether the running daemon has anything to take over.
    pub(crate) fn is_effective(&self) -> bool {
        self.policy || !(self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty())
    }
}

impl fmt::Display for Reloaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.is_effective() {
            f.write_str("nothing changed")?;
        }
        let mut separator = "";
        for (what, names) in [("added", &self.added), ("removed", &self.removed), ("changed", &self.changed)] {
            if !names.is_empty() {
                write!(f, "{separator}{what} {}", names.join(", "))?;
                separator = "; ";
            }
        }
        if self.policy {
            write!(f, "{separator}changed the policy")?;
        }
        if !self.restart_needed.is_empty() {
            write!(f, "; only a restart takes the new {}", self.restart_needed.join(", "))?;
        }
        Ok(())
    }
}
