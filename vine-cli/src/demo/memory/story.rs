//! The chapters of the story. Each does something, waits for what is to follow, and tells what was measured.

use std::time::{Duration, Instant};

use tokio::sync::broadcast::Receiver;
use vine_core::path::PathClass::{Direct, Relay, SignalingThenDirect};
use vine_core::wire::CheckOutcome;
use vine_core::{DropReason, Event};

use super::{MALLORY, MESH, Mesh, PORT, RELAY_ADDRESS, meaning, pause, place};
use crate::demo::narrator::{Narrator, time};
use crate::demo::node::{Friend, Node};
use crate::demo::stream::{INTERVAL, Stream};
use crate::demo::{ALPHA, BETA, GAMMA, Machine, PATIENCE, PING_PATIENCE, RELAY, broken, identity, pairs, seed};
use crate::output::Outcome;

/// How long the stranger knocks.
const KNOCKING: Duration = Duration::from_millis(700);
/// Pings of each family for every pair.
const PINGS: u32 = 5;
/// Tries of an address after which it may be said that it does not answer.
const TRIES: u64 = 5;

impl Mesh {
    /// Those who know where the other is.
    pub(super) async fn meet(&self, narrator: &mut Narrator) -> Outcome {
        narrator.chapter("They meet where an address is known");
        for (from, to) in [(ALPHA, BETA), (ALPHA, RELAY), (BETA, RELAY), (GAMMA, RELAY)] {
            self.node(to)?.meets(self.node(from)?, &[Direct]).await?;
            let met = self.node(from)?.meets(self.node(to)?, &[Direct]).await?;
            let (path, rtt) = (self.words(met.path), time(met.rtt));
            narrator
                .says(from.name, format_args!("met {} directly by {path}, {}, round trip {rtt}", to.name, met.cipher));
        }
        Ok(())
    }

    /// Gamma knows nobody's address but the relay's.
    pub(super) async fn reach_everybody(&self, narrator: &mut Narrator) -> Outcome {
        narrator.chapter("Gamma's host wants to reach beta, and alpha");
        for (to, class) in [(BETA, SignalingThenDirect), (ALPHA, Relay)] {
            let started = Instant::now();
            flows(self.node(GAMMA)?, to, started).await?;
            let first = time(started.elapsed());
            narrator
                .says(GAMMA.name, format_args!("has an answer of {}'s host {first} after the first packet", to.name));
            self.node(GAMMA)?.meets(self.node(to)?, &[class]).await?;
            let reached = self.node(to)?.meets(self.node(GAMMA)?, &[class]).await?;
            let path = self.words(reached.path);
            match class {
                SignalingThenDirect => {
                    let after = time(started.elapsed());
                    narrator.says(RELAY.name, "told each where it sees the other; both called at once");
                    narrator.says(
                        to.name,
                        format_args!("and gamma talk directly after signaling, since {after}, by {path}"),
                    );
                }
                _ => {
                    let tried = self.checked(GAMMA, to).await?;
                    narrator.says(
                        GAMMA.name,
                        format_args!(
                            "tried {tried} addresses of {}'s, and none answered: its router has another for each",
                            to.name
                        ),
                    );
                    narrator.says(to.name, format_args!("and gamma talk through the relay, {path}"));
                }
            }
        }
        let signals = self.node(RELAY)?.counters().await?.signals_carried;
        if signals == 0 {
            return Err(broken("the relay carried no Signal"));
        }
        narrator.says(RELAY.name, format_args!("carried {signals} Signals"));
        Ok(())
    }

    /// Waits until `from` has tried every address of `to` that it knows of a few times; how many, where none answered.
    async fn checked(&self, from: Machine, to: Machine) -> Outcome<usize> {
        let (node, peer) = (self.node(from)?, self.node(to)?.id);
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            let checks = node.engine.query(move |node, _| node.why(&peer).map(|why| why.checks));
            let checks = checks.await.map_err(broken)?.unwrap_or_default();
            if checks.iter().any(|check| check.outcome == CheckOutcome::Answered) {
                return Err(broken(format_args!("{} answered {} directly", to.name, from.name)));
            }
            if !checks.is_empty() && checks.iter().all(|check| check.tries >= TRIES) {
                return Ok(checks.len());
            }
            pause(20).await;
        }
        Err(broken(format_args!("{} did not try {}'s addresses", from.name, to.name)))
    }

    pub(super) async fn talk(&self, narrator: &mut Narrator) -> Outcome {
        narrator.chapter("All hosts talk through the tunnels");
        for (from, to) in pairs(MESH) {
            let mut means = Vec::new();
            for (address, _) in to.addresses() {
                let mut total = Duration::ZERO;
                for _ in 0..PINGS {
                    let rtt = self.node(from)?.host.ping(address, PING_PATIENCE).await;
                    total += rtt.ok_or_else(|| broken(format_args!("{address} did not answer {}", from.name)))?;
                }
                means.push(format!("{address} in {}", time(total / PINGS)));
            }
            let now = self.node(from)?.connection(self.node(to)?.id).await?;
            let how = now.map_or("down", |now| now.class.name());
            narrator.says(from.name, format_args!("pings {}: {} ({how})", to.name, means.join(", ")));
        }
        Ok(())
    }

    /// The line goes dark and comes back, while alpha's host pings beta's.
    pub(super) async fn lose_the_line(&self, narrator: &mut Narrator) -> Outcome {
        narrator.chapter("The line between alpha and beta goes dark, and comes back");
        let (alpha, beta) = (self.node(ALPHA)?, self.node(BETA)?);
        let (target, _) = BETA.addresses()[0];
        let stream = Stream::start(alpha.host.pinger(), target);
        let mut events = alpha.engine.events();
        narrator.says(ALPHA.name, format_args!("pings {target} (beta) every {} ms", INTERVAL.as_millis()));
        pause(700).await;

        self.internet.cut_the_line();
        let cut = Instant::now();
        narrator.note("the line is dark: nothing comes through, and nobody is told");
        alpha.meets(beta, &[Relay]).await?;
        beta.meets(alpha, &[Relay]).await?;
        self.switches(alpha, &mut events, narrator);
        pause(1_000).await;
        let outage = stream.longest_silence(cut);
        let counters = alpha.counters().await?;
        if counters.fallback_transitions == 0 || counters.relay_usage == 0 || outage >= PATIENCE {
            return Err(broken("nothing went through the relay"));
        }
        narrator.says(
            ALPHA.name,
            format_args!("the outage: {} without an answer; since then pings go through the relay", time(outage)),
        );

        self.internet.mend_the_line();
        let mended = Instant::now();
        narrator.note("the line is back, and nobody is told");
        alpha.meets(beta, &[Direct]).await?;
        beta.meets(alpha, &[Direct]).await?;
        let took = mended.elapsed();
        self.switches(alpha, &mut events, narrator);
        pause(500).await;
        stream.stop().await;
        let (all, since) = (stream.tally(None), stream.tally(Some(mended)));
        narrator
            .says(ALPHA.name, format_args!("direct again in both directions {} after the line was back", time(took)));
        narrator.says(
            ALPHA.name,
            format_args!(
                "of {} pings {} were lost, {} of them since the line was back",
                all.sent,
                all.lost(),
                since.lost()
            ),
        );
        Ok(())
    }

    /// Tells what the node said of its paths to others meanwhile.
    fn switches(&self, of: &Node, events: &mut Receiver<Event>, narrator: &mut Narrator) {
        while let Ok(event) = events.try_recv() {
            if let Event::SessionSwitched { peer, from: Some((from, _)), to: (to, class), why, .. } = event
                && let Some(peer) = self.nodes.iter().find(|node| node.id == peer)
            {
                let (name, class) = (peer.machine.name, class.name());
                let (from, to) = (self.words(from), self.words(to));
                narrator.says(of.machine.name, format_args!("{name}: {from} => {to}, {class}, because of {why}"));
            }
        }
    }

    /// A stranger with the right protocol, the right network and the right keys of others.
    pub(super) async fn knock(&self, narrator: &mut Narrator) -> Outcome {
        narrator.chapter("A stranger knocks");
        let relay = self.node(RELAY)?;
        let unauthorized = relay.counters().await?.dropped(DropReason::UnauthorizedPeer);
        let friend = Friend { machine: RELAY, id: relay.id, at: Some((RELAY_ADDRESS, PORT).into()) };
        let place = (&self.internet, place(MALLORY), PORT);
        let mallory = Node::start(MALLORY, identity(&seed()?), place, &[friend]).await?;
        narrator.says(MALLORY.name, "knows the relay's address and peer id, and is in nobody's list");
        tokio::time::sleep(KNOCKING).await;
        let counters = mallory.counters().await?;
        let (knocked, heard) = (counters.hellos_sent, counters.drops().map(|(_, count)| count).sum::<u64>());
        let noticed = relay.counters().await?.dropped(DropReason::UnauthorizedPeer) - unauthorized;
        if knocked == 0 || noticed == 0 {
            return Err(broken(format_args!("the stranger knocked {knocked} times and was noticed {noticed} times")));
        }
        // A datagram that reaches a node is either taken, and then something authentic came from the relay, or counted as
        // dropped.
        let id = relay.id;
        let known =
            mallory.engine.query(move |node, _| node.peers().any(|peer| peer.id == id && peer.last_received.is_some()));
        if known.await.map_err(broken)? || heard > 0 {
            return Err(broken("the stranger got an answer"));
        }
        narrator.says(MALLORY.name, format_args!("said Hello {knocked} times, and not one datagram came back"));
        narrator.says(RELAY.name, format_args!("dropped {noticed} Hellos as unauthorized_peer"));
        mallory.crash();
        Ok(())
    }

    /// Beta loses power and comes back with the same identity on another port.
    pub(super) async fn crash_and_return(&mut self, narrator: &mut Narrator) -> Outcome {
        narrator.chapter("Beta crashes and comes back on another port");
        let (target, _) = BETA.addresses()[0];
        let at = self.nodes.iter().position(|node| node.machine == BETA).ok_or_else(|| broken("beta is not there"))?;
        self.nodes.remove(at).crash();
        narrator.says(BETA.name, "is gone without a word");
        if self.node(ALPHA)?.host.ping(target, Duration::from_millis(100)).await.is_some() {
            return Err(broken("a crashed node answered"));
        }
        let started = Instant::now();
        let beta = self.boot(BETA, PORT + 1).await?;
        self.nodes.insert(at, beta);
        narrator.says(
            BETA.name,
            format_args!("is back with the same identity, on udp port {} instead of {PORT}", PORT + 1),
        );
        for from in [ALPHA, GAMMA] {
            let node = self.node(from)?;
            flows(node, BETA, started).await?;
            let first = time(started.elapsed());
            let now = node.meets(self.node(BETA)?, &[Direct, SignalingThenDirect]).await?;
            let (how, after) = (meaning(now.class), time(started.elapsed()));
            let path = self.words(now.path);
            narrator.says(
                from.name,
                format_args!("reaches beta's host again {first} after its start; {how} since {after}, by {path}"),
            );
        }
        Ok(())
    }

    pub(super) async fn count(&self, narrator: &mut Narrator) -> Outcome {
        narrator.chapter("What was counted");
        for node in &self.nodes {
            let counters = node.counters().await?;
            let (sent, received) = (counters.packets_sent, counters.packets_received);
            if sent == 0 || received == 0 {
                return Err(broken(format_args!("{} carried no packets", node.machine.name)));
            }
            let (relayed, fallbacks) = (counters.relay_usage, counters.fallback_transitions);
            let life = if node.machine == BETA { "since its return: " } else { "" };
            narrator.says(
                node.machine.name,
                format_args!("{life}packets sent {sent} (by relay {relayed}), received {received}; fallbacks to another path {fallbacks}"),
            );
            let drops = counters.drops().filter(|(_, count)| *count > 0);
            let drops: Vec<String> = drops.map(|(reason, count)| format!("{} {count}", reason.name())).collect();
            if !drops.is_empty() {
                narrator.says(node.machine.name, format_args!("dropped: {}", drops.join(", ")));
            }
        }
        let relay = self.node(RELAY)?.counters().await?;
        if relay.packets_relayed == 0 {
            return Err(broken("the relay passed nothing on"));
        }
        narrator.says(
            RELAY.name,
            format_args!(
                "passed on {} datagrams, {} bytes, and could read none",
                relay.packets_relayed, relay.bytes_relayed
            ),
        );
        Ok(())
    }

    pub(super) async fn part(mut self, narrator: &mut Narrator) -> Outcome {
        narrator.chapter("They part");
        let at =
            self.nodes.iter().position(|node| node.machine == GAMMA).ok_or_else(|| broken("gamma is not there"))?;
        let gamma = self.nodes.remove(at);
        let id = gamma.id;
        gamma.stop().await;
        narrator.says(GAMMA.name, "said goodbye");
        for node in &self.nodes {
            let took = node.misses(id).await?;
            narrator.says(node.machine.name, format_args!("knows that gamma is gone, {} later", time(took)));
        }
        for node in self.nodes.drain(..) {
            node.stop().await;
        }
        narrator.note("all of this happened, and was measured as it did");
        Ok(())
    }
}

/// Waits until a ping of `node`'s host to `to` is answered.
async fn flows(node: &Node, to: Machine, since: Instant) -> Outcome {
    let (target, _) = to.addresses()[0];
    while since.elapsed() < PATIENCE {
        if node.host.ping(target, INTERVAL * 5).await.is_some() {
            return Ok(());
        }
    }
    Err(broken(format_args!("{} does not reach {}", node.machine.name, to.name)))
}
