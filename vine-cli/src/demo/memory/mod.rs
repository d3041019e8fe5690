//! The demo that needs nothing: production engines in real time, a small internet in memory between them, and a small host in
//! memory behind each in place of a TUN device. It tells the story of the four machines.

mod story;

use std::net::Ipv4Addr;
use std::time::Duration;

use vine_core::path::{PathClass, Via};
use vine_core::{Identity, PeerId};
use zeroize::Zeroizing;

use super::internet::{Access, Internet, Place, Router};
use super::narrator::Narrator;
use super::node::{Friend, Node};
use super::{ALPHA, BETA, GAMMA, Machine, RELAY, broken, identity, seed};
use crate::output::{Failure, Outcome};

/// Everybody who belongs to the mesh.
const MESH: [Machine; 4] = [ALPHA, BETA, GAMMA, RELAY];
/// Somebody who has everything but a place in the lists of the others.
const MALLORY: Machine = Machine { name: "mallory", number: 9 };
/// Where all of them listen.
const PORT: u16 = 4100;

/// The nodes of the mesh, and what is between them.
struct Mesh {
    internet: Internet,
    seeds: [Zeroizing<[u8; 32]>; 4],
    /// In the order of [`MESH`].
    nodes: Vec<Node>,
}

/// Runs the demo.
pub(super) fn run(narrator: &mut Narrator) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed("io", format!("cannot start the event loop: {error}")))?;
    runtime.block_on(tell(narrator))
}

async fn tell(narrator: &mut Narrator) -> Outcome {
    narrator.note("four nodes in this process, a small internet in memory between them, a small host behind each");
    let mut mesh = Mesh::start(narrator).await?;
    mesh.meet(narrator).await?;
    mesh.reach_everybody(narrator).await?;
    mesh.talk(narrator).await?;
    mesh.lose_the_line(narrator).await?;
    mesh.knock(narrator).await?;
    mesh.crash_and_return(narrator).await?;
    mesh.count(narrator).await?;
    mesh.part(narrator).await
}

impl Mesh {
    async fn start(narrator: &mut Narrator) -> Outcome<Mesh> {
        narrator.chapter("Four machines, a fresh identity each");
        let seeds = [seed()?, seed()?, seed()?, seed()?];
        let mut mesh = Mesh { internet: Internet::default(), seeds, nodes: Vec::new() };
        for machine in MESH {
            let node = mesh.boot(machine, PORT).await?;
            let [v4, v6] = machine.prefixes();
            narrator.says(machine.name, format_args!("{} owns {v4} and {v6}", node.id.fingerprint()));
            narrator.says(machine.name, situation(machine));
            mesh.nodes.push(node);
        }
        Ok(mesh)
    }

    /// Starts a machine. Alpha and beta have each other's address on the line in their files, all have the relay's.
    async fn boot(&self, machine: Machine, port: u16) -> Outcome<Node> {
        let identity_of = |machine: Machine| -> Outcome<Identity> {
            let seed = self.seeds.get(usize::from(machine.number) - 1);
            Ok(identity(seed.ok_or_else(|| broken("a machine without an identity"))?))
        };
        let mut friends = Vec::new();
        for other in MESH.into_iter().filter(|other| *other != machine) {
            let known = match other {
                RELAY => Some(RELAY_ADDRESS),
                _ => place(machine).line.and(place(other).line),
            };
            let at = known.map(|address| (address, PORT).into());
            friends.push(Friend { machine: other, id: identity_of(other)?.peer_id(), at });
        }
        Node::start(machine, identity_of(machine)?, (&self.internet, place(machine), port), &friends).await
    }

    fn node(&self, machine: Machine) -> Outcome<&Node> {
        let node = self.nodes.iter().find(|node| node.machine == machine);
        node.ok_or_else(|| broken(format_args!("{} is not there", machine.name)))
    }

    /// A path in words: a relay by its name.
    fn words(&self, path: Via<PeerId>) -> String {
        let relay = path.relay().and_then(|relay| self.nodes.iter().find(|node| node.id == relay));
        relay.map_or_else(|| path.to_string(), |relay| format!("via {}", relay.machine.name))
    }
}

const RELAY_ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 40);

/// Where a machine stands.
fn place(machine: Machine) -> Place {
    let behind = |n: u8, is_strict: bool| {
        let router = Router { public: Ipv4Addr::new(198, 51, 100, n), is_strict };
        Access::Behind { inner: Ipv4Addr::new(10, 10 + n, 0, 2), router }
    };
    match machine {
        ALPHA => Place { access: behind(1, true), line: Some(Ipv4Addr::new(192, 0, 2, 11)) },
        BETA => Place { access: behind(2, false), line: Some(Ipv4Addr::new(192, 0, 2, 12)) },
        GAMMA => Place { access: behind(3, false), line: None },
        RELAY => Place { access: Access::Public(RELAY_ADDRESS), line: None },
        _ => Place { access: Access::Public(Ipv4Addr::new(203, 0, 113, 66)), line: None },
    }
}

/// The same in words, and whose address the machine knows.
fn situation(machine: Machine) -> String {
    let Place { access, line } = place(machine);
    let line = line.map_or_else(String::new, |own| format!("{own} on a leased line, whose other end it knows; "));
    match access {
        Access::Public(address) => format!("{address}, a rented server; knows nobody's address"),
        Access::Behind { router: Router { public, is_strict }, .. } => {
            let kind = if is_strict { ", which shows everybody another port" } else { "" };
            format!("{line}behind router {public}{kind}; knows the relay's address")
        }
    }
}

/// What the classes of paths mean.
fn meaning(class: PathClass) -> &'static str {
    match class {
        PathClass::Direct => "directly",
        PathClass::SignalingThenDirect => "directly after signaling",
        PathClass::Relay => "through the relay",
    }
}

/// How long nothing happens, for the sake of the story.
async fn pause(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}
