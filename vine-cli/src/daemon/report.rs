//! The node's own views in the words of the control API.

use std::collections::BTreeMap;
use std::time::Duration;

use vine_core::node::{ChannelView, PeerState, PeerView, SessionView};
use vine_core::overlay::Prefix;
use vine_core::relay::Traffic;
use vine_core::{Instant, Node};
use vine_tokio::RuntimeCounters;

use super::inspect;
use crate::api::{Counters, Peer, Relayed, RelayedTraffic, Route, Session};

/// Milliseconds with three decimals: a microsecond is all that a clock here is good for.
pub(super) fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// Seconds with three decimals.
pub(super) fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e3).round() / 1e3
}

pub(super) fn peers(node: &Node, now: Instant) -> Vec<Peer> {
    node.peers().map(|view| peer(&view, now)).collect()
}

fn peer(view: &PeerView<'_>, now: Instant) -> Peer {
    Peer {
        name: view.name.to_owned(),
        peer_id: view.id.to_string(),
        prefixes: view.prefixes.iter().map(Prefix::to_string).collect(),
        relay_capable: view.relay_capable,
        state: view.state.name().to_owned(),
        rtt_ms: view.rtt.map(milliseconds),
        last_seen_s: view.last_received.map(|at| seconds(now.since(at))),
    }
}

/// How many peers are connected.
pub(super) fn connected(node: &Node) -> usize {
    node.peers().filter(|peer| peer.state == PeerState::Connected).count()
}

pub(super) fn routes(node: &Node, installed: &[Prefix]) -> Vec<Route> {
    node.routes()
        .map(|route| Route {
            prefix: route.prefix.to_string(),
            peer: route.name.to_owned(),
            installed: installed.contains(&route.prefix),
        })
        .collect()
}

/// `mtu` is that of the interface, for a session without a path.
pub(super) fn sessions(node: &Node, now: Instant, mtu: u16) -> Vec<Session> {
    node.sessions().map(|view| session(&view, node, now, mtu)).collect()
}

fn session(view: &SessionView<'_>, node: &Node, now: Instant, mtu: u16) -> Session {
    let way = view.path.map(|via| inspect::way(node, via, view.class));
    Session {
        peer: view.name.to_owned(),
        peer_id: view.id.to_string(),
        class: view.class.name().to_owned(),
        path: way.as_ref().map(|way| way.path.clone()),
        relay: way.and_then(|way| way.relay),
        rtt_ms: view.rtt.map(milliseconds),
        mtu: view.mtu.unwrap_or(mtu.into()),
        handshake_age_s: seconds(now.since(view.established)),
        tx_bytes: view.tx_bytes,
        rx_bytes: view.rx_bytes,
        cipher: view.cipher.to_string(),
    }
}

pub(super) fn relayed(node: &Node, now: Instant) -> Vec<Relayed> {
    node.channels().map(|view| channel(&view, now)).collect()
}

fn channel(view: &ChannelView<'_>, now: Instant) -> Relayed {
    let sent = |sent: Traffic| RelayedTraffic { packets: sent.packets, bytes: sent.bytes, throttled: sent.throttled };
    Relayed {
        peers: view.names.map(str::to_owned),
        peer_ids: view.ends.map(|id| id.to_string()),
        sent: view.sent.map(sent),
        complete: view.complete,
        age_s: seconds(now.since(view.opened)),
        idle_s: seconds(now.since(view.last_used)),
    }
}

pub(super) fn counters(counters: &vine_core::Counters, runtime: &RuntimeCounters) -> Counters {
    let more = [
        ("bytes_sent", counters.bytes_sent),
        ("bytes_received", counters.bytes_received),
        ("sessions_established", counters.sessions_established),
        ("path_switches", counters.path_switches),
        ("packets_relayed", counters.packets_relayed),
        ("bytes_relayed", counters.bytes_relayed),
        ("relay_refusals", counters.relay_refusals),
        ("signals_sent", counters.signals_sent),
        ("signals_received", counters.signals_received),
        ("signals_carried", counters.signals_carried),
        ("signals_refused", counters.signals_refused),
        ("candidates_refused", counters.candidates_refused),
        ("checks_sent", counters.checks_sent),
        ("fragments_sent", counters.fragments_sent),
        ("packets_mirrored", counters.packets_mirrored),
        ("hellos_sent", counters.hellos_sent),
        ("hellos_received", counters.hellos_received),
        ("hellos_replayed", counters.hellos_replayed),
        ("cookies_sent", counters.cookies_sent),
    ];
    let named = |counts: &mut dyn Iterator<Item = (&'static str, u64)>| -> BTreeMap<String, u64> {
        counts.map(|(name, count)| (name.to_owned(), count)).collect()
    };
    Counters {
        packets_sent: counters.packets_sent,
        packets_received: counters.packets_received,
        route_misses: counters.route_misses,
        session_failures: counters.session_failures,
        fallback_transitions: counters.fallback_transitions,
        relay_usage: counters.relay_usage,
        drops: named(&mut counters.drops().map(|(reason, count)| (reason.name(), count))),
        runtime: named(&mut runtime.iter()),
        more: named(&mut more.into_iter()),
    }
}
