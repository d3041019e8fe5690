//! The node's own views in the words of the control API.

use std::collections::BTreeMap;
use std::time::Duration;

use vine_core::node::{PeerState, PeerView, SessionView};
use vine_core::overlay::Prefix;
use vine_core::{Instant, Node};
use vine_tokio::RuntimeCounters;

use crate::api::{Counters, Peer, Route, Session};

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

pub(super) fn sessions(node: &Node, now: Instant, mtu: u16) -> Vec<Session> {
    node.sessions().map(|view| session(&view, now, mtu)).collect()
}

fn session(view: &SessionView<'_>, now: Instant, mtu: u16) -> Session {
    Session {
        peer: view.name.to_owned(),
        peer_id: view.id.to_string(),
        class: view.class.name().to_owned(),
        path: view.path.map(|path| path.to_string()),
        relay: None,
        rtt_ms: view.rtt.map(milliseconds),
        mtu,
        handshake_age_s: seconds(now.since(view.established)),
        tx_bytes: view.tx_bytes,
        rx_bytes: view.rx_bytes,
        cipher: view.cipher.to_string(),
    }
}

pub(super) fn counters(counters: &vine_core::Counters, runtime: &RuntimeCounters) -> Counters {
    let more = [
        ("bytes_sent", counters.bytes_sent),
        ("bytes_received", counters.bytes_received),
        ("sessions_established", counters.sessions_established),
        ("path_switches", counters.path_switches),
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
