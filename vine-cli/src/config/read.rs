//! The schema: which sections and keys there are and what stands under each. Faults of single values are found here,
//! faults between values in [`super::check`].

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::DeTable;
use vine_core::identity::PeerId;
use vine_core::overlay::Prefix;
use vine_core::rate::Rate;
use vine_core::relay::RelayLimits;
use vine_core::{NetworkId, NetworkKey};
use vine_tokio::Endpoint;

use super::fault::Faults;
use super::section::{At, Section, Span};
use super::value;
use super::{DEFAULT_LISTEN, DEFAULT_MTU, DEFAULT_SOCKET, DEFAULT_STATE_DIR, DEFAULT_TUN_NAME, Log, Policy};

/// Most sockets that the engine takes.
const MAX_LISTEN: usize = 16;
/// Smallest MTU inside the tunnel: the one that IPv6 asks of every link (RFC 8200, section 5).
const MIN_MTU: u32 = 1280;
/// Largest MTU inside the tunnel: the largest UDP payload over IPv4 less 32 bytes of envelope.
const MAX_MTU: u32 = 65_507 - 32;
/// What `identity_path` usually is.
const IDENTITY_EXAMPLE: &str = "\"/var/lib/vine/identity\"";
/// Most channels that a relay may be told to grant.
const MAX_CHANNELS: u32 = 1_000_000;
/// Largest rate that a relay may be told to grant, in kilobytes a second: more than the fastest links have.
const MAX_RELAY_RATE: u32 = 100_000_000;
/// Smallest size of a segment of the log: it has to hold the largest commit, with room for its frame.
const MIN_SEGMENT: u64 = 2 << 20;
/// Largest size of a segment of the log.
const MAX_SEGMENT: u64 = 1 << 30;
/// Segments that the log must have room for: one that is written, the next one ahead, and two that are full.
const MIN_SEGMENTS: u64 = 4;
/// Least memory for the key-value view.
const MIN_VIEW: u64 = 1 << 20;
/// Most bytes that anything of the log may be given: a TOML integer's, less what rounding up to segments may add.
const MAX_LOG: u64 = 1 << 60;
/// Longest path of a unix socket (`sun_path` less the terminator).
const MAX_SOCKET_PATH: usize = 107;

/// What the file says, value by value; `None` is a value that is missing or was at fault.
pub(super) struct Draft {
    pub(super) name: Option<At<String>>,
    pub(super) network_id: Option<NetworkId>,
    pub(super) network_key: Option<NetworkKey>,
    pub(super) identity_path: Option<At<PathBuf>>,
    pub(super) listen: Vec<At<SocketAddr>>,
    pub(super) places: Places,
    pub(super) tun_name: String,
    pub(super) addresses: Vec<At<(IpAddr, u8)>>,
    pub(super) mtu: u16,
    pub(super) bootstrap: Vec<DraftBootstrap>,
    pub(super) peers: Vec<DraftPeer>,
    pub(super) policy: Policy,
    pub(super) log: Log,
}

/// Where the daemon keeps things.
pub(super) struct Places {
    pub(super) state_dir: PathBuf,
    pub(super) control_socket: PathBuf,
}

/// One `[[bootstrap_peers]]`.
pub(super) struct DraftBootstrap {
    pub(super) id: Option<At<PeerId>>,
    pub(super) endpoint: Option<At<Endpoint>>,
}

/// One `[[allowed_peers]]`.
pub(super) struct DraftPeer {
    pub(super) span: Span,
    pub(super) name: Option<At<String>>,
    pub(super) id: Option<At<PeerId>>,
    pub(super) prefixes: Vec<At<Prefix>>,
    pub(super) relay_capable: bool,
}

/// Reads the whole document; `base` is the directory of relative paths.
pub(super) fn document(faults: &mut Faults, table: &DeTable<'_>, torn: bool, base: &Path) -> Draft {
    let mut root = Section::root(table, torn);
    let mut node = root.table(faults, "node", "[node]", true);
    let mut tun = root.table(faults, "tun", "[tun]", true);
    let bootstrap = root.tables(faults, "bootstrap_peers", "[[bootstrap_peers]]");
    let peers = root.tables(faults, "allowed_peers", "[[allowed_peers]]");
    let mut policy = root.table(faults, "policy", "[policy]", false);
    let mut relay = root.table(faults, "relay", "[relay]", false);
    let mut log = root.table(faults, "log", "[log]", false);
    root.finish(faults);

    node.require(faults, "name", "\"alpha\"");
    node.require(faults, "network_id", "\"home-net\"");
    node.require(faults, "identity_path", IDENTITY_EXAMPLE);
    let draft = Draft {
        name: node.parse(faults, "name", value::name),
        network_id: node.parse(faults, "network_id", network_id).map(|id| id.value),
        network_key: node.parse(faults, "network_key", value::network_key).map(|key| key.value),
        identity_path: node.parse(faults, "identity_path", |text| path(base, text)),
        listen: listen(faults, &mut node),
        places: read_places(faults, &mut node, base),
        tun_name: tun
            .parse(faults, "name", value::interface_name)
            .map_or_else(|| DEFAULT_TUN_NAME.to_owned(), |name| name.value),
        addresses: addresses(faults, &mut tun),
        mtu: mtu(faults, &mut tun),
        bootstrap: bootstrap.into_iter().map(|section| bootstrap_peer(faults, section)).collect(),
        peers: peers.into_iter().map(|section| allowed_peer(faults, section)).collect(),
        policy: read_policy(faults, &mut policy, &mut relay),
        log: read_log(faults, &mut log),
    };
    node.finish(faults);
    tun.finish(faults);
    policy.finish(faults);
    relay.finish(faults);
    log.finish(faults);
    draft
}

/// Reads only where the daemon keeps things.
pub(super) fn places(faults: &mut Faults, table: &DeTable<'_>, base: &Path) -> Places {
    let mut root = Section::root(table, true);
    let mut node = root.table(faults, "node", "[node]", false);
    read_places(faults, &mut node, base)
}

/// Reads only which identity file is named.
pub(super) fn identity_path(faults: &mut Faults, table: &DeTable<'_>, base: &Path) -> Option<PathBuf> {
    let mut root = Section::root(table, false);
    let mut node = root.table(faults, "node", "[node]", true);
    node.require(faults, "identity_path", IDENTITY_EXAMPLE);
    node.parse(faults, "identity_path", |text| path(base, text)).map(|path| path.value)
}

fn network_id(text: &str) -> Result<NetworkId, String> {
    NetworkId::new(text).map_err(|error| error.to_string())
}

fn path(base: &Path, text: &str) -> Result<PathBuf, String> {
    if text.is_empty() || text.contains('\0') {
        return Err("this is no path".to_owned());
    }
    // Without the `.` in the middle that relative paths bring along.
    Ok(base.join(text).components().collect())
}

fn listen(faults: &mut Faults, node: &mut Section<'_>) -> Vec<At<SocketAddr>> {
    let Some(urls) = node.texts(faults, "listen") else {
        return value::listen_address(DEFAULT_LISTEN)
            .map(|value| At { value, span: node.span() })
            .into_iter()
            .collect();
    };
    if urls.is_empty() {
        let span = node.span_of("listen");
        faults.at(span, format!("`listen` is empty; leave it out for [\"{DEFAULT_LISTEN}\"]"));
    }
    if let Some(beyond) = urls.get(MAX_LISTEN) {
        faults.at(beyond.span.clone(), format!("a node listens on at most {MAX_LISTEN} addresses; this is one more"));
    }
    urls.into_iter().filter_map(|url| url.parse(faults, value::listen_address)).collect()
}

fn read_places(faults: &mut Faults, node: &mut Section<'_>, base: &Path) -> Places {
    let state_dir = node
        .parse(faults, "state_dir", |text| path(base, text))
        .map_or_else(|| PathBuf::from(DEFAULT_STATE_DIR), |path| path.value);
    let socket = node.parse(faults, "control_socket", |text| path(base, text));
    let control_socket = socket.map_or_else(|| state_dir.join(DEFAULT_SOCKET), |path| path.value);
    let length = control_socket.as_os_str().len();
    if length > MAX_SOCKET_PATH {
        let key = if node.has("control_socket") { "control_socket" } else { "state_dir" };
        let span = node.span_of(key);
        let path = control_socket.display();
        faults.at(
            span,
            format!("the control socket's path has {length} bytes ({path}), and a socket's has at most {MAX_SOCKET_PATH}; set a shorter `control_socket`"),
        );
    }
    Places { state_dir, control_socket }
}

/// `addresses`, or `address` with `prefix_len`, and never both.
fn addresses(faults: &mut Faults, tun: &mut Section<'_>) -> Vec<At<(IpAddr, u8)>> {
    let list = tun.texts(faults, "addresses");
    let single = tun.parse(faults, "address", value::bare_address);
    let len = tun.integer(faults, "prefix_len", 1..=128_u32);
    let has = (tun.has("addresses"), tun.has("address"), tun.has("prefix_len"));
    match has {
        (true, false, false) => {
            let list = list.unwrap_or_default();
            if list.is_empty() {
                let span = tun.span_of("addresses");
                faults.at(span, "`addresses` names no address; for example addresses = [\"10.42.0.1/24\"]");
            }
            list.into_iter().filter_map(|text| text.parse(faults, value::interface_address)).collect()
        }
        (true, ..) => {
            let key = if has.1 { "address" } else { "prefix_len" };
            let span = tun.span_of(key);
            faults.at(span, format!("`{key}` and `addresses` exclude each other in [tun]; keep one form"));
            Vec::new()
        }
        (false, true, true) => match (single, len) {
            (Some(ip), Some(len)) => with_len(faults, &ip, &len).into_iter().collect(),
            _ => Vec::new(),
        },
        (false, true, false) => {
            tun.require(faults, "prefix_len", "24");
            Vec::new()
        }
        (false, false, _) => {
            tun.require(faults, "address", "\"10.42.0.1\"");
            Vec::new()
        }
    }
}

fn with_len(faults: &mut Faults, ip: &At<IpAddr>, len: &At<u32>) -> Option<At<(IpAddr, u8)>> {
    let checked = value::interface_address(&format!("{}/{}", ip.value, len.value));
    match checked {
        Ok(value) => Some(ip.with(value)),
        Err(why) => {
            faults.at(len.span.clone(), why);
            None
        }
    }
}

fn mtu(faults: &mut Faults, tun: &mut Section<'_>) -> u16 {
    let mtu = tun.integer(faults, "mtu", MIN_MTU..=MAX_MTU);
    mtu.and_then(|mtu| u16::try_from(mtu.value).ok()).unwrap_or(DEFAULT_MTU)
}

fn bootstrap_peer(faults: &mut Faults, mut section: Section<'_>) -> DraftBootstrap {
    section.require(faults, "peer_id", "\"vine1...\"");
    section.require(faults, "address", "\"udp://198.51.100.40:4100\"");
    let draft = DraftBootstrap {
        id: section.parse(faults, "peer_id", value::peer_id),
        endpoint: section.parse(faults, "address", value::endpoint),
    };
    section.finish(faults);
    draft
}

fn allowed_peer(faults: &mut Faults, mut section: Section<'_>) -> DraftPeer {
    section.require(faults, "name", "\"beta\"");
    section.require(faults, "peer_id", "\"vine1...\"");
    let draft = DraftPeer {
        span: section.span(),
        name: section.parse(faults, "name", value::name),
        id: section.parse(faults, "peer_id", value::peer_id),
        prefixes: prefixes(faults, &mut section),
        relay_capable: section.boolean(faults, "relay_capable").is_some_and(|flag| flag.value),
    };
    section.finish(faults);
    draft
}

fn prefixes(faults: &mut Faults, section: &mut Section<'_>) -> Vec<At<Prefix>> {
    let single = section.parse(faults, "prefix", value::prefix);
    let list = section.texts(faults, "prefixes");
    if section.has("prefix") && section.has("prefixes") {
        let span = section.span_of("prefix");
        faults.at(span, "`prefix` and `prefixes` exclude each other; put all of them into `prefixes`");
    } else if !section.has("prefixes") {
        section.require(faults, "prefix", "\"10.42.1.0/24\"");
    }
    let list = list.unwrap_or_default().into_iter().filter_map(|text| text.parse(faults, value::prefix));
    single.into_iter().chain(list).collect()
}

fn read_policy(faults: &mut Faults, policy: &mut Section<'_>, relay: &mut Section<'_>) -> Policy {
    if let Some(strict) = policy.boolean(faults, "strict_allowlist")
        && !strict.value
    {
        faults.at(
            strict.span,
            "`strict_allowlist = false` is not in this version of vine: only peers in [[allowed_peers]] are talked to",
        );
    }
    Policy {
        allow_relay: policy.boolean(faults, "allow_relay").is_none_or(|flag| flag.value),
        allow_signaling_upgrade: policy.boolean(faults, "allow_signaling_upgrade").is_none_or(|flag| flag.value),
        relay: relay_limits(faults, relay),
    }
}

fn relay_limits(faults: &mut Faults, relay: &mut Section<'_>) -> RelayLimits {
    let default = RelayLimits::default();
    let mut channels = |key, otherwise| {
        let found = relay.integer(faults, key, 1..=MAX_CHANNELS);
        found.and_then(|found| usize::try_from(found.value).ok()).unwrap_or(otherwise)
    };
    let (all, of_peer) = (channels("channels", default.channels), channels("peer_channels", default.channels_per_peer));
    let rate = relay.integer(faults, "peer_kilobytes_per_second", 1..=MAX_RELAY_RATE).map(|rate| {
        let units = u64::from(rate.value) * 1000;
        // A quarter of a second at once, and the largest datagram in any case.
        Rate { units, per: Duration::from_secs(1), burst: (units / 4).max(65_536) }
    });
    RelayLimits { channels: all, channels_per_peer: of_peer, bytes_per_peer: rate }
}

fn read_log(faults: &mut Faults, log: &mut Section<'_>) -> Log {
    let default = Log::default();
    let bytes = |found: Option<At<u64>>, otherwise| found.map_or(otherwise, |found| found.value);
    let enabled = log.boolean(faults, "enabled").is_none_or(|flag| flag.value);
    let segment = log.integer(faults, "segment_bytes", MIN_SEGMENT..=MAX_SEGMENT);
    let segment_bytes = bytes(segment, default.segment_bytes);
    let all = log.integer(faults, "max_bytes", MIN_SEGMENT..=MAX_LOG);
    let max_bytes = all.as_ref().map_or(default.max_bytes, |found| found.value);
    if max_bytes < segment_bytes * MIN_SEGMENTS {
        let span = log.span_of(if all.is_some() { "max_bytes" } else { "segment_bytes" });
        let least = segment_bytes * MIN_SEGMENTS;
        faults.at(
            span,
            format!(
                "the log needs room for {MIN_SEGMENTS} segments: `max_bytes` must be at least {least} where `segment_bytes` is {segment_bytes}; raise it, or make the segments smaller"
            ),
        );
    }
    let view = bytes(log.integer(faults, "view_bytes", MIN_VIEW..=MAX_LOG), default.view_bytes as u64);
    Log {
        enabled,
        max_bytes,
        author_bytes: bytes(log.integer(faults, "author_bytes", 0..=MAX_LOG), default.author_bytes),
        segment_bytes,
        view_bytes: usize::try_from(view).unwrap_or(usize::MAX),
        min_free_bytes: log.integer(faults, "min_free_bytes", 0..=MAX_LOG).map(|found| found.value),
    }
}
