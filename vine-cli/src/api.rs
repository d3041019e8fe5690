//! What the daemon answers over its control socket: HTTP/1.1 with JSON bodies.
//!
//! | request                | answer                                    |
//! |------------------------|-------------------------------------------|
//! | `GET /v1/status`       | [`Status`]                                |
//! | `GET /v1/peers`        | a list of [`Peer`]                        |
//! | `GET /v1/routes`       | a list of [`Route`]                       |
//! | `GET /v1/sessions`     | a list of [`Session`]                     |
//! | `GET /v1/relayed`      | a list of [`Relayed`]                     |
//! | `GET /v1/netcheck`     | [`Netcheck`]; asks the peers first        |
//! | `GET /v1/counters`     | [`Counters`]                              |
//! | `GET /v1/snapshot`     | [`Snapshot`]                              |
//! | `GET /v1/daemon`       | [`Daemon`]                                |
//! | `POST /v1/ping`        | [`PingRequest`] in, [`PingReply`] out     |
//! | `POST /v1/why`         | [`WhyRequest`] in, [`Why`] out            |
//! | `POST /v1/reload`      | [`Reloaded`]                              |
//! | `POST /v1/stop`        | [`Daemon`], and then the daemon stops     |
//! | `GET /v1/log`          | [`LogStatus`]                             |
//! | `POST /v1/log/append`  | [`AppendRequest`] in, [`Position`] out, once it is durable |
//! | `POST /v1/log/tail`    | [`TailRequest`] in, lines of [`TailLine`] out |
//! | `POST /v1/log/verify`  | lines of [`VerifyLine`]                   |
//! | `POST /v1/log/export`  | an archive                                |
//! | `POST /v1/log/import`  | an archive of at most 4 MiB in, [`Imported`] or [`ImportRefused`] out |
//! | `POST /v1/kv/put`      | [`Entry`] in, [`Position`] out, once it is durable |
//! | `POST /v1/kv/delete`   | [`KeyRequest`] in, [`Position`] out, once it is durable |
//! | `POST /v1/kv/get`      | [`KeyRequest`] in, [`Entry`] out          |
//! | `POST /v1/kv/list`     | [`ListRequest`] in, [`Page`] out          |
//! | `POST /v1/kv/watch`    | [`WatchRequest`] in, lines of [`WatchLine`] out |
//!
//! Anything else, and anything that fails, is answered with an HTTP error status and an [`ErrorBody`]. Fields are only ever
//! added. Times are seconds or milliseconds as their names say; what is not known is `null`.

mod inspect;
mod log;

use std::collections::BTreeMap;

pub(crate) use inspect::{
    Candidate, Check, Checked, Family, HistoryEntry, Leg, Netcheck, PathEntry, RelayEntry, RemoteSide, Seen, Way, Why,
    WhyPolicy, WhyRequest,
};
pub(crate) use log::{
    AppendRequest, Blob, Change, Damaged, Entry, Finding, ImportRefused, Imported, KeyRequest, LeftOut, ListRequest,
    LogOp, LogStatus, Page, Position, Positions, Progress, TailLine, TailRequest, Verified, VerifyLine, WatchLine,
    WatchRequest,
};
use serde::{Deserialize, Serialize};

/// How the node is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) name: String,
    pub(crate) peer_id: String,
    pub(crate) network_id: String,
    pub(crate) uptime_s: f64,
    pub(crate) phase: Phase,
    /// Allowed peers.
    pub(crate) peers_total: usize,
    /// Those whose answers are recent.
    pub(crate) peers_connected: usize,
    pub(crate) log: LogStatus,
}

/// What the daemon is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Phase {
    /// Carrying packets.
    Running,
    /// Saying goodbye and taking back what it installed.
    Stopping,
}

impl Phase {
    /// The name used in reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Phase::Running => "running",
            Phase::Stopping => "stopping",
        }
    }
}

/// An allowed peer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Peer {
    pub(crate) name: String,
    pub(crate) peer_id: String,
    pub(crate) prefixes: Vec<String>,
    pub(crate) relay_capable: bool,
    /// `down`, `connecting`, `idle` or `connected`.
    pub(crate) state: String,
    pub(crate) rtt_ms: Option<f64>,
    /// Seconds since something authentic came from it.
    pub(crate) last_seen_s: Option<f64>,
}

/// Who owns a prefix.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Route {
    pub(crate) prefix: String,
    /// The owner's name.
    pub(crate) peer: String,
    /// Whether the host sends packets for this prefix into the tunnel.
    pub(crate) installed: bool,
}

/// An encrypted session.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Session {
    /// The peer's name.
    pub(crate) peer: String,
    pub(crate) peer_id: String,
    /// How its path came to be: `direct`, `signaling_then_direct` or `relay`.
    pub(crate) class: String,
    /// The path that data goes by, once one is proven.
    pub(crate) path: Option<String>,
    /// The relay's name, where one carries the path.
    pub(crate) relay: Option<String>,
    pub(crate) rtt_ms: Option<f64>,
    /// Bytes of the largest packet that goes to the peer whole; that of the interface while no path is proven.
    pub(crate) mtu: usize,
    pub(crate) handshake_age_s: f64,
    pub(crate) tx_bytes: u64,
    pub(crate) rx_bytes: u64,
    /// The cipher that was agreed on.
    pub(crate) cipher: String,
}

/// A channel: what this node passes on between two others.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Relayed {
    /// The names of its two ends.
    pub(crate) peers: [String; 2],
    pub(crate) peer_ids: [String; 2],
    /// What each of the two sent.
    pub(crate) sent: [RelayedTraffic; 2],
    /// Whether both ends have agreed: only then does anything pass.
    pub(crate) complete: bool,
    /// Seconds since it was opened.
    pub(crate) age_s: f64,
    /// Seconds since it was last used.
    pub(crate) idle_s: f64,
}

/// What went one way through a channel.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RelayedTraffic {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    /// Packets dropped because the sender was over its rate.
    pub(crate) throttled: u64,
}

/// What was counted since the daemon started.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Counters {
    pub(crate) packets_sent: u64,
    pub(crate) packets_received: u64,
    pub(crate) route_misses: u64,
    pub(crate) session_failures: u64,
    pub(crate) fallback_transitions: u64,
    pub(crate) relay_usage: u64,
    /// Datagrams and packets that were dropped, by reason. Every reason is listed.
    pub(crate) drops: BTreeMap<String, u64>,
    /// Events at the host's sockets and TUN device, by kind.
    pub(crate) runtime: BTreeMap<String, u64>,
    /// Further counters of the node.
    #[serde(flatten)]
    pub(crate) more: BTreeMap<String, u64>,
}

/// The process itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Daemon {
    pub(crate) pid: u32,
    pub(crate) version: String,
    pub(crate) config: String,
    pub(crate) tun: String,
    /// Where it listens.
    pub(crate) listen: Vec<String>,
    pub(crate) uptime_s: f64,
    pub(crate) phase: Phase,
}

/// Everything at one moment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Snapshot {
    /// Milliseconds since 1970.
    pub(crate) taken_at_ms: u64,
    pub(crate) daemon: Daemon,
    pub(crate) status: Status,
    pub(crate) peers: Vec<Peer>,
    pub(crate) routes: Vec<Route>,
    pub(crate) sessions: Vec<Session>,
    pub(crate) relayed: Vec<Relayed>,
    pub(crate) counters: Counters,
}

/// Whom to ping, once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PingRequest {
    /// An overlay address, a peer's name or a peer id.
    pub(crate) target: String,
    /// How long to wait for the answer.
    pub(crate) timeout_ms: u64,
}

/// The answer to one ping.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PingReply {
    /// The name of the peer that answered.
    pub(crate) peer: String,
    pub(crate) peer_id: String,
    /// How the path came to be that carried it.
    pub(crate) class: String,
    /// The path that carried it.
    pub(crate) path: String,
    /// The relay's name, where one carried it.
    pub(crate) relay: Option<String>,
    pub(crate) rtt_ms: f64,
}

/// What reading the configuration again changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reloaded {
    /// Names of peers that are new.
    pub(crate) added: Vec<String>,
    /// Names of peers that are no longer allowed.
    pub(crate) removed: Vec<String>,
    /// Names of peers about which something else changed.
    pub(crate) changed: Vec<String>,
    /// Whether `[policy]` changed.
    pub(crate) policy: bool,
    /// Keys that were changed in the file and take effect only when the daemon is started anew.
    pub(crate) restart_needed: Vec<String>,
}

/// Why a request failed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ErrorBody {
    pub(crate) error: ErrorDetail,
}

/// The failure, for programs and for people.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ErrorDetail {
    pub(crate) code: String,
    pub(crate) message: String,
}
