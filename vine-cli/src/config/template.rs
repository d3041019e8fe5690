//! The file that `vine config init` writes: every key, with what it means.

use std::path::Path;

use super::{DEFAULT_LISTEN, DEFAULT_MTU, DEFAULT_TUN_NAME};

/// What is filled in; everything else has a default or is left to the operator.
pub(crate) struct Template<'a> {
    pub(crate) name: &'a str,
    pub(crate) network_id: &'a str,
    pub(crate) identity_path: &'a Path,
    pub(crate) state_dir: &'a Path,
    pub(crate) address: &'a str,
    pub(crate) prefix_len: u8,
}

/// A commented configuration.
pub(crate) fn template(fill: &Template<'_>) -> String {
    let Template { name, network_id, address, prefix_len, .. } = fill;
    let name = quoted(name);
    let network_id = quoted(network_id);
    let identity_path = quoted(&fill.identity_path.to_string_lossy());
    let state_dir = quoted(&fill.state_dir.to_string_lossy());
    let address = quoted(address);
    format!(
        r#"# Configuration of one vine node. Check it with: vine config validate
# Relative paths are relative to the directory of this file.

[node]
# How this machine is called in messages and by its peers.
name = {name}
# The same on every machine of the network; two networks cannot talk by accident.
network_id = {network_id}
# A secret that all machines of the network share, on top of their identities: 64 hexadecimal digits,
# from `openssl rand -hex 32`. With it, this file must not be readable by others.
# network_key = "..."
# The secret of this machine, from `vine identity init --path PATH`.
identity_path = {identity_path}
# Where to listen. Machines behind NAT keep the default.
listen = ["{DEFAULT_LISTEN}"]
# Lock, log of the detached daemon, the log of [log], the last-known addresses of peers, and the control socket unless it is named below.
state_dir = {state_dir}
# control_socket = "/run/vine/vine.sock"

[tun]
name = "{DEFAULT_TUN_NAME}"
# This machine's address in the overlay. It owns the whole prefix.
address = {address}
prefix_len = {prefix_len}
# Or several, IPv6 too, instead of address and prefix_len:
# addresses = ["10.42.0.1/24", "fd42::1/64"]
mtu = {DEFAULT_MTU}

# Whom to call. One machine that is always reachable is enough for the others to meet: through it they tell each
# other where they are, and if it may relay, it carries for those that cannot reach each other.
# [[bootstrap_peers]]
# peer_id = "vine1..."
# address = "udp://198.51.100.40:4100"

# Everybody who may talk to this machine, with the addresses that they own.
# [[allowed_peers]]
# name = "beta"
# peer_id = "vine1..."                   # from `vine identity show` on beta
# prefix = "10.42.1.0/24"                # or prefixes = ["10.42.1.0/24", "fd42:1::/64"]
# relay_capable = false                  # true: this machine may use beta as a relay to others

[policy]
# Peers that are not listed get no answer.
strict_allowlist = true
# Packets may travel through a relay: this machine uses peers that are relay_capable where no direct path works,
# and carries for its own peers. Relays see neither contents nor keys. With false it does neither.
allow_relay = true
# Tell peers that are reached through a relay, or not at all, the addresses of this machine, by way of a common peer,
# and try theirs, so that both open their NATs for each other. With false, only configured addresses are used.
allow_signaling_upgrade = true

# What this machine grants when it relays for others.
# [relay]
# channels = 16384                       # pairs of peers in all
# peer_channels = 256                    # pairs that one peer asked for
# peer_kilobytes_per_second = 2000       # what one peer may send through this machine; not limited where it is left out

# The durable log of this machine (vine log, vine kv), in the directory `log` of state_dir.
# [log]
# enabled = true
# max_bytes = 4294967296                 # of all its files; writes are refused beyond
# author_bytes = 1073741824              # of what is imported from one other machine
# segment_bytes = 67108864               # of one file
# view_bytes = 268435456                 # memory for keys and values; writes of keys are refused beyond
# min_free_bytes = 268435456             # left free on the file system; 1/64 of it where that is less, if left out
"#
    )
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
