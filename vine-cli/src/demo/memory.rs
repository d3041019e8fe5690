//! The demo that needs nothing: production engines with real UDP on loopback, and a small host in memory behind each in
//! place of a TUN device.

use std::time::{Duration, Instant};

use vine_core::{DropReason, PeerId};
use zeroize::Zeroizing;

use super::narrator::{Narrator, time};
use super::node::{Friend, Node};
use super::{ALPHA, BETA, GAMMA, MESH, Machine, PATIENCE, PING_PATIENCE, broken, identity, pairs, seed};
use crate::output::{Failure, Outcome};

/// Somebody who has everything but a place in the lists of the others.
const MALLORY: Machine = Machine { name: "mallory", number: 9 };
/// How long the stranger knocks.
const KNOCKING: Duration = Duration::from_millis(700);
/// Pings of each family and direction.
const PINGS: u32 = 5;
/// Between two pings of a stream.
const INTERVAL: Duration = Duration::from_millis(10);

type Seed = Zeroizing<[u8; 32]>;

/// The three nodes of the mesh.
struct Mesh {
    seeds: [Seed; 3],
    alpha: Node,
    beta: Node,
    gamma: Node,
}

pub(super) fn run(narrator: &mut Narrator) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed("io", format!("cannot start the event loop: {error}")))?;
    runtime.block_on(tell(narrator))
}

async fn tell(narrator: &mut Narrator) -> Outcome {
    narrator.note("three nodes in this process, with real UDP on loopback and a small host in memory behind each");
    let mut mesh = Mesh::start(narrator).await?;
    mesh.meet(narrator).await?;
    mesh.talk(narrator).await?;
    mesh.knock(narrator).await?;
    mesh = mesh.crash_and_return(narrator).await?;
    mesh.count(narrator).await?;
    mesh.part(narrator).await
}

impl Mesh {
    async fn start(narrator: &mut Narrator) -> Outcome<Mesh> {
        narrator.chapter("Three machines, a fresh identity each");
        let seeds = [seed()?, seed()?, seed()?];
        let ids = [0, 1, 2].map(|n: usize| identity(&seeds[n]).peer_id());
        let stranger = |n: usize| Friend { machine: MESH[n], id: ids[n], at: None };
        let [a, b, c] = &seeds;
        // Alpha waits to be found, beta knows where alpha is, gamma knows where both are.
        let alpha = Node::start(ALPHA, identity(a), &[stranger(1), stranger(2)]).await?;
        let beta = Node::start(BETA, identity(b), &[alpha.friend()?, stranger(2)]).await?;
        let gamma = Node::start(GAMMA, identity(c), &[alpha.friend()?, beta.friend()?]).await?;
        let knows = ["knows nobody's address", "knows where alpha is", "knows where alpha and beta are"];
        for (node, knows) in [&alpha, &beta, &gamma].into_iter().zip(knows) {
            let [v4, v6] = node.machine.prefixes();
            let (fingerprint, at) = (node.id.fingerprint(), node.address()?);
            narrator.says(
                node.machine.name,
                format_args!("{fingerprint} owns {v4} and {v6}, listens on udp {at}, {knows}"),
            );
        }
        Ok(Mesh { seeds, alpha, beta, gamma })
    }

    fn node(&self, machine: Machine) -> &Node {
        match machine.number {
            1 => &self.alpha,
            2 => &self.beta,
            _ => &self.gamma,
        }
    }

    async fn meet(&self, narrator: &mut Narrator) -> Outcome {
        narrator.chapter("They meet");
        for (a, b) in pairs() {
            for (from, to) in [(a, b), (b, a)] {
                let (connection, _) = self.node(from).meets(self.node(to)).await?;
                narrator.says(
                    from.name,
                    format_args!(
                        "met {} directly by {}, {}, round trip {}",
                        to.name,
                        connection.path,
                        connection.cipher,
                        time(connection.rtt)
                    ),
                );
            }
        }
        Ok(())
    }

    async fn talk(&self, narrator: &mut Narrator) -> Outcome {
        narrator.chapter("Their hosts talk through the tunnels");
        for (a, b) in pairs() {
            for (from, to) in [(a, b), (b, a)] {
                for (address, _) in to.addresses() {
                    let mut total = Duration::ZERO;
                    for _ in 0..PINGS {
                        let rtt = self.node(from).host.ping(address, PING_PATIENCE).await;
                        total += rtt.ok_or_else(|| broken(format_args!("{address} did not answer {}", from.name)))?;
                    }
                    let mean = time(total / PINGS);
                    narrator.says(
                        from.name,
                        format_args!("{PINGS} pings to {address} ({}), all answered, mean {mean}", to.name),
                    );
                }
            }
        }
        Ok(())
    }

    /// A stranger with the right protocol, the right network and the right keys of others.
    async fn knock(&self, narrator: &mut Narrator) -> Outcome {
        narrator.chapter("A stranger knocks");
        let unauthorized = self.alpha.counters().await?.dropped(DropReason::UnauthorizedPeer);
        let mallory = Node::start(MALLORY, identity(&seed()?), &[self.alpha.friend()?]).await?;
        narrator.says(MALLORY.name, "knows alpha's address and peer id, and is in nobody's list");
        tokio::time::sleep(KNOCKING).await;
        let counters = mallory.counters().await?;
        let (knocked, heard) = (counters.hellos_sent, counters.drops().map(|(_, count)| count).sum::<u64>());
        let noticed = self.alpha.counters().await?.dropped(DropReason::UnauthorizedPeer) - unauthorized;
        if knocked == 0 || noticed == 0 {
            return Err(broken(format_args!("the stranger knocked {knocked} times and was noticed {noticed} times")));
        }
        // A datagram that reaches a node is either taken, and then something authentic came from alpha, or counted as dropped.
        let alpha = self.alpha.id;
        let known = mallory
            .engine
            .query(move |node, _| node.peers().any(|peer| peer.id == alpha && peer.last_received.is_some()));
        if known.await.map_err(broken)? || heard > 0 {
            return Err(broken("the stranger got an answer"));
        }
        narrator.says(MALLORY.name, format_args!("said Hello {knocked} times, and not one datagram came back"));
        narrator.says(ALPHA.name, format_args!("dropped {noticed} Hellos as unauthorized_peer"));
        mallory.crash();
        Ok(())
    }

    /// Beta loses power and comes back with the same identity on another port, while alpha's host pings its host.
    async fn crash_and_return(self, narrator: &mut Narrator) -> Outcome<Mesh> {
        narrator.chapter("Beta crashes and comes back on another port");
        let Mesh { seeds, alpha, beta, gamma } = self;
        let before = beta.address()?;
        let (target, _) = BETA.addresses()[0];
        beta.crash();
        narrator.says(BETA.name, "is gone without a word");
        let lost = alpha.host.ping(target, Duration::from_millis(100)).await;
        if lost.is_some() {
            return Err(broken("a crashed node answered"));
        }
        let started = Instant::now();
        let [_, b, _] = &seeds;
        let beta = Node::start(BETA, identity(b), &[alpha.friend()?, gamma.friend()?]).await?;
        let after = beta.address()?;
        narrator.says(BETA.name, format_args!("is back with the same identity, on udp {after} instead of {before}"));
        if before == after {
            return Err(broken("the kernel gave the same port again"));
        }
        let mesh = Mesh { seeds, alpha, beta, gamma };
        for from in [ALPHA, GAMMA] {
            let node = mesh.node(from);
            flows(node, BETA, started).await?;
            let took = started.elapsed();
            let (connection, _) = node.meets(&mesh.beta).await?;
            if connection.path.direct().is_none_or(|path| path.remote != after) {
                return Err(broken(format_args!("{} still talks to {}", from.name, connection.path)));
            }
            narrator.says(
                from.name,
                format_args!("reaches beta's host again {} after its start, by {}", time(took), connection.path),
            );
        }
        Ok(mesh)
    }

    async fn count(&self, narrator: &mut Narrator) -> Outcome {
        narrator.chapter("What was counted");
        for machine in MESH {
            let counters = self.node(machine).counters().await?;
            let drops: Vec<String> = counters
                .drops()
                .filter(|(_, count)| *count > 0)
                .map(|(reason, count)| format!("{} {count}", reason.name()))
                .collect();
            if counters.packets_sent == 0 || counters.packets_received == 0 {
                return Err(broken(format_args!("{} carried no packets", machine.name)));
            }
            let drops = if drops.is_empty() { "none".to_owned() } else { drops.join(", ") };
            narrator.says(
                machine.name,
                format_args!(
                    "packets sent {}, received {}; sessions established {}; dropped: {drops}",
                    counters.packets_sent, counters.packets_received, counters.sessions_established
                ),
            );
        }
        Ok(())
    }

    async fn part(self, narrator: &mut Narrator) -> Outcome {
        narrator.chapter("They part");
        let Mesh { alpha, beta, gamma, .. } = self;
        let id: PeerId = gamma.id;
        gamma.stop().await;
        narrator.says(GAMMA.name, "said goodbye");
        for node in [&alpha, &beta] {
            let took = node.misses(id).await?;
            narrator.says(node.machine.name, format_args!("knows that gamma is gone, {} later", time(took)));
        }
        beta.stop().await;
        alpha.stop().await;
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
    Err(broken(format_args!("{} does not reach {} again", node.machine.name, to.name)))
}
