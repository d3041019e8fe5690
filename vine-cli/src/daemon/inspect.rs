//! `vine why` and `vine netcheck`: what the node knows of its surroundings, in the words of the control API.

use std::net::SocketAddr;
use std::time::Duration;

use hyper::StatusCode;
use tokio::task::JoinSet;
use vine_core::node::{Explanation, NetView, PathView, PeerState, RelayView};
use vine_core::path::checks::CheckView;
use vine_core::path::{Family as AddressFamily, PathClass, SocketId, Via};
use vine_core::wire::{CandidateKind, NatVerdict};
use vine_core::{Instant, Node, PeerId};

use super::report::{milliseconds, seconds};
use super::service::{Refusal, Service};
use super::verdict;
use crate::api::{
    Candidate, Check, Checked, Family, Leg, Netcheck, PathEntry, RelayEntry, RemoteSide, Seen, Way, Why, WhyPolicy,
    WhyRequest,
};

/// How long peers have to answer what is asked for a report.
const PATIENCE: Duration = Duration::from_secs(1);

/// Peers that `vine netcheck` asks at most: as many as a node remembers the words of.
const MAX_ASKED: usize = 8;

/// An answer this old says nothing of now.
const RECENT: Duration = Duration::from_secs(60);

impl Service {
    /// How a peer is reached, and why so. It is asked for an answer first: without a recent proof nothing is said to work.
    pub(super) async fn why(&self, request: WhyRequest) -> Result<Why, Refusal> {
        let (id, _) = self.find_peer(request.target).await?;
        // Whether there was an answer shows in what follows.
        let _ = self.engine.ping(id, PATIENCE).await;
        let ports = self.engine.local_addrs().iter().map(SocketAddr::port).collect();
        let read = move |node: &Node, now: Instant| node.why(&id).map(|view| explain(&view, node, now, ports));
        let gone =
            || Refusal::new(StatusCode::NOT_FOUND, "unknown_target", "the peer has just been removed".to_owned());
        let mut why = self.ask(read).await?.ok_or_else(gone)?;
        let entries = self.ways(id).await?;
        why.history = entries;
        verdict::conclude(&mut why);
        Ok(why)
    }

    /// The history of a peer, with relays by their names.
    async fn ways(&self, id: PeerId) -> Result<Vec<crate::api::HistoryEntry>, Refusal> {
        let history = self.history.clone();
        self.ask(move |node, _| history.of(&id, |(via, class)| way(node, *via, *class))).await
    }

    /// How this node stands in its network. Peers are asked first, so that what they see is fresh.
    pub(super) async fn netcheck(&self) -> Result<Netcheck, Refusal> {
        let asked = self.ask_peers().await?;
        let (mut netcheck, outer) = self.ask(|node, now| netcheck(&node.netcheck(), now)).await?;
        netcheck.udp = match asked {
            0 => None,
            _ => Some(netcheck.ipv4.answered || netcheck.ipv6.answered),
        };
        netcheck.hairpin = match outer {
            _ if netcheck.mapping == NatVerdict::None.name() => "not_needed",
            None => "unknown",
            Some((socket, address)) => {
                let is_back = self.engine.hairpin(socket, address, PATIENCE).await;
                if is_back.map_err(|error| super::service::stopping(&error))? { "yes" } else { "no" }
            }
        }
        .to_owned();
        Ok(netcheck)
    }

    /// Sends a Ping to some peers, those that may relay first, and waits for the answers. Says how many were asked.
    async fn ask_peers(&self) -> Result<usize, Refusal> {
        let peers = |node: &Node, _: Instant| {
            let mut peers: Vec<(bool, PeerId)> = node
                .peers()
                .filter(|peer| matches!(peer.state, PeerState::Connected | PeerState::Idle))
                .map(|peer| (!peer.relay_capable, peer.id))
                .collect();
            peers.sort();
            peers.truncate(MAX_ASKED);
            peers
        };
        let mut pings = JoinSet::new();
        for (_, id) in self.ask(peers).await? {
            let engine = self.engine.clone();
            pings.spawn(async move { engine.ping(id, PATIENCE).await.is_ok() });
        }
        Ok(pings.join_all().await.len())
    }
}

/// A way in words; a relay by its name.
pub(super) fn way(node: &Node, via: Via<PeerId>, class: PathClass) -> Way {
    let relay =
        via.relay().map(|relay| node.peer_name(&relay).map_or_else(|| relay.fingerprint().to_string(), str::to_owned));
    let path = relay.as_ref().map_or_else(|| via.to_string(), |relay| format!("via {relay}"));
    Way { class: class.name().to_owned(), path, relay }
}

fn explain(view: &Explanation<'_>, node: &Node, now: Instant, ports: Vec<u16>) -> Why {
    let age = |at: Instant| seconds(now.since(at));
    let preferred = view.paths.iter().find(|path| path.preferred);
    let known = [(CandidateKind::Configured, view.endpoints), (CandidateKind::LastKnown, view.last_known)];
    let known = known.into_iter().flat_map(|(kind, all)| all.iter().map(move |address| candidate(kind, *address)));
    let legs = view.legs.iter().map(|leg| Leg {
        relay: node.peer_name(&leg.relay).unwrap_or_default().to_owned(),
        state: leg.state.name().to_owned(),
        age_s: age(leg.since),
        reason: leg.reason.map(|reason| reason.to_string()),
    });
    let remote = view.remote.as_ref().map(|remote| RemoteSide {
        nat: remote.nat.name().to_owned(),
        results: remote
            .results
            .iter()
            .map(|result| Checked { address: result.address.to_string(), outcome: result.outcome.name().to_owned() })
            .collect(),
        age_s: age(remote.at),
    });
    Why {
        peer: view.name.to_owned(),
        peer_id: view.id.to_string(),
        state: view.state.name().to_owned(),
        session: view.session,
        departed: view.departed,
        in_use: view.in_use,
        way: preferred.map(|path| way(node, path.via, path.class)),
        mtu: view.mtu,
        paths: view.paths.iter().map(|path| path_entry(path, node, now)).collect(),
        known: known.collect(),
        checks: view.checks.iter().map(|view| check(view, now)).collect(),
        legs: legs.collect(),
        candidates: view.candidates.iter().map(|own| candidate(own.kind, own.address)).collect(),
        nat: view.nat.name().to_owned(),
        ports,
        remote,
        helpers: view.helpers.iter().map(relay_entry).collect(),
        policy: WhyPolicy {
            allow_relay: view.policy.allow_relay,
            allow_signaling_upgrade: view.policy.allow_signaling_upgrade,
        },
        history: Vec::new(),
        conclusion: String::new(),
        advice: None,
    }
}

fn path_entry(path: &PathView, node: &Node, now: Instant) -> PathEntry {
    PathEntry {
        way: way(node, path.via, path.class),
        state: path.state.name().to_owned(),
        preferred: path.preferred,
        rtt_ms: path.rtt.map(milliseconds),
        mtu: path.room,
        proof_age_s: path.last_proof.map(|at| seconds(now.since(at))),
    }
}

fn check(view: &CheckView, now: Instant) -> Check {
    Check {
        address: view.via.remote.to_string(),
        kind: view.kind.name().to_owned(),
        outcome: view.outcome.name().to_owned(),
        tries: view.tries,
        rtt_ms: view.rtt.map(milliseconds),
        last_try_s: view.last_try.map(|at| seconds(now.since(at))),
    }
}

fn candidate(kind: CandidateKind, address: SocketAddr) -> Candidate {
    Candidate { kind: kind.name().to_owned(), address: address.to_string() }
}

fn relay_entry(view: &RelayView<'_>) -> RelayEntry {
    RelayEntry {
        peer: view.name.to_owned(),
        peer_id: view.id.to_string(),
        state: view.state.name().to_owned(),
        direct: view.direct,
        rtt_ms: view.rtt.map(milliseconds),
    }
}

/// The report, but for what has to be tried; and by which socket this node is seen where from outside.
fn netcheck(view: &NetView<'_>, now: Instant) -> (Netcheck, Option<(SocketId, SocketAddr)>) {
    let port = |socket: SocketId| view.sockets.iter().find(|held| held.id == socket).map(|held| held.port);
    let addresses = view.addresses.unwrap_or_default();
    let family = |family: AddressFamily| Family {
        socket: view.sockets.iter().any(|socket| socket.family == family),
        addresses: addresses
            .iter()
            .filter(|ip| AddressFamily::of(&SocketAddr::new(**ip, 0)) == family)
            .map(ToString::to_string)
            .collect(),
        answered: view
            .seen
            .iter()
            .any(|seen| AddressFamily::of(&seen.path.remote) == family && now.since(seen.at) <= RECENT),
    };
    let outer = view.seen.iter().find(|seen| !addresses.contains(&seen.observed.ip()));
    let seen = view.seen.iter().map(|seen| Seen {
        peer: seen.name.to_owned(),
        peer_id: seen.id.to_string(),
        port: port(seen.path.socket),
        remote: seen.path.remote.to_string(),
        address: seen.observed.to_string(),
        age_s: seconds(now.since(seen.at)),
    });
    let report = Netcheck {
        udp: None,
        ipv4: family(AddressFamily::V4),
        ipv6: family(AddressFamily::V6),
        seen: seen.collect(),
        mapping: view.nat.name().to_owned(),
        hairpin: "unknown".to_owned(),
        candidates: view.candidates.iter().map(|own| candidate(own.kind, own.address)).collect(),
        relays: view.relays.iter().map(relay_entry).collect(),
    };
    (report, outer.map(|seen| (seen.path.socket, seen.observed)))
}
