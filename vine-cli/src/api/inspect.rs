//! The answers of `vine why` and `vine netcheck`.

use serde::{Deserialize, Serialize};

/// Which peer is asked about.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct WhyRequest {
    /// An overlay address, a peer's name or a peer id.
    pub(crate) target: String,
}

/// Everything that bears on how a peer is reached.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Why {
    /// The peer's name.
    pub(crate) peer: String,
    pub(crate) peer_id: String,
    /// `down`, `connecting`, `idle` or `connected`.
    pub(crate) state: String,
    /// Whether there are keys.
    pub(crate) session: bool,
    /// It said goodbye and has not been heard of since.
    pub(crate) departed: bool,
    /// Whether somebody sends at the moment: only then is a better path sought.
    pub(crate) in_use: bool,
    /// The path that data goes by, once one is proven.
    pub(crate) way: Option<Way>,
    /// Bytes of the largest packet that goes to the peer whole.
    pub(crate) mtu: Option<usize>,
    pub(crate) paths: Vec<PathEntry>,
    /// Where the peer may be found as configured, and where it was before.
    pub(crate) known: Vec<Candidate>,
    /// The peer's addresses that this node tries, with what came of it.
    pub(crate) checks: Vec<Check>,
    pub(crate) legs: Vec<Leg>,
    /// Where this node says that it can be reached.
    pub(crate) candidates: Vec<Candidate>,
    /// The NAT in front of this node: `unknown`, `none`, `endpoint_independent` or `address_dependent`.
    pub(crate) nat: String,
    /// The UDP ports that this node listens on.
    pub(crate) ports: Vec<u16>,
    /// What the peer said of its side, if it ever did.
    pub(crate) remote: Option<RemoteSide>,
    /// Peers that are reached directly and may help to reach this one.
    pub(crate) helpers: Vec<RelayEntry>,
    pub(crate) policy: WhyPolicy,
    /// What happened to the path, the oldest first.
    pub(crate) history: Vec<HistoryEntry>,
    /// What the path is and why, as a sentence.
    pub(crate) conclusion: String,
    /// What would have to change for a direct path, or for any.
    pub(crate) advice: Option<String>,
}

/// A way to a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Way {
    /// `direct`, `signaling_then_direct` or `relay`.
    pub(crate) class: String,
    pub(crate) path: String,
    /// The relay's name, where one carries it.
    pub(crate) relay: Option<String>,
}

/// A path.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PathEntry {
    #[serde(flatten)]
    pub(crate) way: Way,
    /// `candidate`, `usable`, `suspect` or `lost`.
    pub(crate) state: String,
    /// Whether data goes by it.
    pub(crate) preferred: bool,
    pub(crate) rtt_ms: Option<f64>,
    /// Bytes of the largest packet that it carries whole.
    pub(crate) mtu: usize,
    /// Seconds since it was last proven that what is sent on it arrives.
    pub(crate) proof_age_s: Option<f64>,
}

/// An address that is tried.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Check {
    pub(crate) address: String,
    /// `interface`, `reflexive`, `configured` or `last_known`.
    pub(crate) kind: String,
    /// `waiting`, `answered`, `silent` or `refused`.
    pub(crate) outcome: String,
    pub(crate) tries: u64,
    pub(crate) rtt_ms: Option<f64>,
    /// Seconds since the last try.
    pub(crate) last_try_s: Option<f64>,
}

/// A relay between, as this side sees it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Leg {
    /// The relay's name.
    pub(crate) relay: String,
    /// `asked`, `open`, `proven` or `refused`.
    pub(crate) state: String,
    /// Seconds since it is so.
    pub(crate) age_s: f64,
    /// Why the relay last ended it.
    pub(crate) reason: Option<String>,
}

/// An address at which somebody may be reached.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Candidate {
    /// `interface`, `reflexive`, `configured` or `last_known`.
    pub(crate) kind: String,
    pub(crate) address: String,
}

/// What a peer said of its side.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RemoteSide {
    /// The NAT in front of it.
    pub(crate) nat: String,
    /// What came of its trying this node's addresses.
    pub(crate) results: Vec<Checked>,
    /// Seconds since it said so.
    pub(crate) age_s: f64,
}

/// What came of trying an address.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Checked {
    pub(crate) address: String,
    pub(crate) outcome: String,
}

/// A peer that could carry for others.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RelayEntry {
    /// Its name.
    pub(crate) peer: String,
    pub(crate) peer_id: String,
    /// `down`, `connecting`, `idle` or `connected`.
    pub(crate) state: String,
    /// Whether it is reached directly: only then can it carry.
    pub(crate) direct: bool,
    pub(crate) rtt_ms: Option<f64>,
}

/// What this node permits.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct WhyPolicy {
    pub(crate) allow_relay: bool,
    pub(crate) allow_signaling_upgrade: bool,
}

/// Something that happened to the path to a peer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct HistoryEntry {
    /// Milliseconds since 1970.
    pub(crate) at_ms: u64,
    /// `up`, `down` or `switched`.
    pub(crate) event: String,
    /// The former path.
    pub(crate) from: Option<Way>,
    /// The path from then on.
    pub(crate) to: Option<Way>,
    /// Why.
    pub(crate) why: Option<String>,
    /// Where the former path was lost: the Pings that went by it since it last answered.
    #[serde(default)]
    pub(crate) unanswered: u16,
    /// For what was lost: the seconds until it, or something as good, was back.
    pub(crate) back_after_s: Option<f64>,
}

/// How the node stands in its network.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Netcheck {
    /// Whether a peer has answered by UDP of late; `null` where none was asked.
    pub(crate) udp: Option<bool>,
    pub(crate) ipv4: Family,
    pub(crate) ipv6: Family,
    /// Where peers see this node, the latest word first.
    pub(crate) seen: Vec<Seen>,
    /// How the NAT maps this node: `unknown`, `none`, `endpoint_independent` or `address_dependent`.
    pub(crate) mapping: String,
    /// Whether the NAT brings back what this node sends to its own outer address: `yes`, `no`, `unknown`, or
    /// `not_needed` where others see an address of the host.
    pub(crate) hairpin: String,
    /// Where this node says that it can be reached.
    pub(crate) candidates: Vec<Candidate>,
    /// The peers that may relay.
    pub(crate) relays: Vec<RelayEntry>,
}

/// What one family of addresses is good for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Family {
    /// Whether the node listens in this family.
    pub(crate) socket: bool,
    /// The host's addresses.
    pub(crate) addresses: Vec<String>,
    /// Whether a peer answered over it of late.
    pub(crate) answered: bool,
}

/// Where one peer sees this node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// The peer's name.
    pub(crate) peer: String,
    pub(crate) peer_id: String,
    /// The local UDP port that was asked from.
    pub(crate) port: Option<u16>,
    /// Where the peer was asked.
    pub(crate) remote: String,
    /// Where it saw the question come from.
    pub(crate) address: String,
    /// Seconds since it said so.
    pub(crate) age_s: f64,
}
