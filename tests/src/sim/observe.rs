//! Which situations a world is in, as its nodes report them and as the network saw them.

use std::collections::BTreeSet;

use vine_core::{Counters, Event};

use super::world::World;

/// Why a relay refused or ended a channel, by the code of the wire.
const CLOSE_REASONS: [&str; 7] = ["", "refused", "unknown_peer", "unreachable", "quota", "idle", "unknown_channel"];

impl World {
    /// Notes what a host says of how it reaches its peers at the moment.
    pub(super) fn look(&mut self, host: usize) {
        let Some(node) = self.hosts[host].node.as_ref() else { return };
        let mut labels = BTreeSet::new();
        for peer in self.hosts[host].peers.iter().filter_map(|peer| node.why(&self.id(*peer))) {
            for check in &peer.checks {
                labels.insert(format!("check: {}", check.outcome.name()));
            }
            for leg in &peer.legs {
                labels.insert(format!("relay leg: {}", leg.state.name()));
                let reason = leg.reason.and_then(|reason| CLOSE_REASONS.get(usize::from(reason.0)));
                labels.extend(reason.map(|reason| format!("relay leg ended: {reason}")));
            }
            for path in &peer.paths {
                labels.insert(format!("path: {} {}", path.class.name(), path.state.name()));
            }
            labels.insert(format!("NAT verdict: {}", peer.nat.name()));
            labels.extend(peer.remote.iter().map(|remote| format!("NAT verdict of the peer: {}", remote.nat.name())));
            // What goes without a search is an IP packet of 1,280 bytes around it.
            let raised = peer.paths.iter().any(|path| path.preferred && path.room > 1_280);
            labels.extend(raised.then(|| "MTU raised".to_owned()));
        }
        let channels = node.channels().map(|channel| if channel.complete { "complete" } else { "half" });
        labels.extend(channels.map(|state| format!("channel: {state}")));
        labels.into_iter().for_each(|label| self.coverage.hit(label));
    }

    /// Takes what a life counted into the coverage.
    pub(super) fn count(&mut self, counters: &Counters) {
        for (reason, times) in counters.drops() {
            self.coverage.add(format!("drop: {}", reason.name()), times);
        }
        for (label, times) in [
            ("cookie sent", counters.cookies_sent),
            ("hello replayed", counters.hellos_replayed),
            ("session failure", counters.session_failures),
            ("path switched", counters.path_switches),
            ("path lost for another", counters.fallback_transitions),
            ("relay: packet sent by one", counters.relay_usage),
            ("relay: passed on", counters.packets_relayed),
            ("relay: refused", counters.relay_refusals),
            ("signal: sent", counters.signals_sent),
            ("signal: received", counters.signals_received),
            ("signal: carried", counters.signals_carried),
            ("signal: refused", counters.signals_refused),
            ("signal: candidate refused", counters.candidates_refused),
            ("check sent", counters.checks_sent),
            ("fragment sent", counters.fragments_sent),
            ("packet mirrored", counters.packets_mirrored),
        ] {
            self.coverage.add(label, times);
        }
    }

    /// Takes what the present lives and the network counted into the coverage, at the end.
    pub fn count_all(&mut self) {
        for host in 0..self.hosts.len() {
            self.look(host);
            if let Some(counters) = self.hosts[host].node.as_ref().map(|node| node.counters().clone()) {
                self.count(&counters);
            }
        }
        for (label, times) in &self.network.met {
            self.coverage.add(*label, *times);
        }
        for nat in self.network.boxes.iter().filter(|nat| nat.is_used) {
            self.coverage.hit(format!("NAT: mapping {:?}, filtering {:?}", nat.kind.mapping, nat.kind.filtering));
        }
        self.coverage.add("MSS clamped", self.ledger.clamped);
    }

    /// Whether packets of or for others go through a host, or its own through others.
    pub(super) fn uses_relays(&self, host: usize) -> bool {
        let carries = self.hosts[host].running().channels().next().is_some();
        carries || (0..self.hosts.len()).any(|peer| self.class(host, peer) == "relay")
    }

    /// Notes where a session was found that only the host's memory of a former life could lead to.
    pub(super) fn note_memory(&mut self, host: usize, event: &Event) {
        let Event::SessionEstablished { peer, initiator: true, .. } = event else { return };
        let machine = &self.hosts[host];
        let Some(index) = self.host_of(peer) else { return };
        let is_configured = machine.endpoints.get(&index).is_some_and(|known| !known.is_empty());
        let remembers = machine.last_known.get(peer).is_some_and(|known| {
            let found = |endpoint| self.network.leads_to(host, index, endpoint);
            known.iter().any(found)
        });
        if !is_configured && remembers && !machine.met.contains(peer) {
            self.coverage.hit("last-known endpoint used");
        }
    }
}
