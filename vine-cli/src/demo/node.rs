//! A production engine with a small host behind it, in a thread of its own: as alone as on a machine of its own, and as
//! easily crashed.

use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use vine_core::node::{PeerState, SessionView};
use vine_core::path::{PathClass, Via};
use vine_core::session::Cipher;
use vine_core::{Counters, Identity, NetworkId, NodeConfig, PeerConfig, PeerId, Policy};
use vine_tokio::{Device, Engine, EngineConfig, EngineHandle, Underlay, memory_tun};

use super::host::Host;
use super::internet::{Internet, Place};
use super::{Machine, NETWORK, PATIENCE, RELAY, broken};
use crate::output::Outcome;

/// Packets between an engine and its host, in each direction.
const TUN_QUEUE: usize = 256;
/// How often a state that is waited for is looked at.
const POLL: Duration = Duration::from_millis(1);

/// Somebody that a node is allowed to talk to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Friend {
    pub(super) machine: Machine,
    pub(super) id: PeerId,
    /// Where it is, if that is known beforehand.
    pub(super) at: Option<SocketAddr>,
}

/// A running node.
pub(super) struct Node {
    pub(super) machine: Machine,
    pub(super) id: PeerId,
    pub(super) engine: EngineHandle,
    pub(super) host: Host,
    /// The engine's thread ends, and everything on it is dropped, when this is.
    _alive: oneshot::Sender<()>,
    thread: Option<JoinHandle<()>>,
}

/// How a peer is connected.
#[derive(Debug, Clone)]
pub(super) struct Connection {
    pub(super) path: Via<PeerId>,
    pub(super) class: PathClass,
    pub(super) rtt: Duration,
    pub(super) cipher: Cipher,
}

impl Node {
    /// Starts a node at a place in the internet, with a socket on this port.
    pub(super) async fn start(
        machine: Machine,
        identity: Identity,
        (internet, place, port): (&Internet, Place, u16),
        friends: &[Friend],
    ) -> Outcome<Node> {
        let id = identity.peer_id();
        let (device, tun) = memory_tun(TUN_QUEUE);
        let mut config =
            EngineConfig::new(node_config(machine, friends)?, identity, Vec::new(), Device::Memory(device));
        config.underlay = Underlay::Memory { addresses: place.addresses(), sockets: vec![internet.plug(place, port)] };
        let (started, start) = oneshot::channel();
        let (alive, end) = oneshot::channel::<()>();
        let engine_thread = std::thread::Builder::new().name(machine.name.to_owned());
        let thread = engine_thread.spawn(move || run(config, started, end)).map_err(broken)?;
        let engine = start.await.map_err(broken)?.map_err(broken)?;
        let host = Host::start(machine.addresses().map(|(ip, _)| ip).to_vec(), machine.number.into(), tun);
        Ok(Node { machine, id, engine, host, _alive: alive, thread: Some(thread) })
    }

    /// How `peer` is connected, if it is.
    pub(super) async fn connection(&self, peer: PeerId) -> Outcome<Option<Connection>> {
        let query = self.engine.query(move |node, _| {
            let connected = node.peers().any(|view| view.id == peer && view.state == PeerState::Connected);
            let session = node.sessions().find(|view| connected && view.id == peer)?;
            let SessionView { class, cipher, .. } = session;
            Some(Connection { path: session.path?, class, rtt: session.rtt?, cipher })
        });
        query.await.map_err(broken)
    }

    /// Waits until `peer` is connected by a path of one of these classes; how.
    pub(super) async fn meets(&self, peer: &Node, classes: &[PathClass]) -> Outcome<Connection> {
        let started = Instant::now();
        let mut last = None;
        while started.elapsed() < PATIENCE {
            last = self.connection(peer.id).await?;
            if let Some(connection) = last.take_if(|connection| classes.contains(&connection.class)) {
                return Ok(connection);
            }
            tokio::time::sleep(POLL).await;
        }
        let (from, to) = (self.machine.name, peer.machine.name);
        let wanted = classes.iter().map(|class| class.name()).collect::<Vec<_>>().join(" or ");
        let found =
            last.map_or_else(|| "not at all".to_owned(), |last| format!("{} ({})", last.class.name(), last.path));
        Err(broken(format_args!("{from} did not reach {to} by {wanted} within {PATIENCE:?}, but {found}")))
    }

    /// Waits until `peer` is known to be gone.
    pub(super) async fn misses(&self, peer: PeerId) -> Outcome<Duration> {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            let query =
                self.engine.query(move |node, _| node.peers().find(|view| view.id == peer).map(|view| view.state));
            if query.await.map_err(broken)? == Some(PeerState::Down) {
                return Ok(started.elapsed());
            }
            tokio::time::sleep(POLL).await;
        }
        Err(broken(format_args!("{} did not notice that a peer has gone", self.machine.name)))
    }

    /// The node's counters.
    pub(super) async fn counters(&self) -> Outcome<Counters> {
        self.engine.query(|node, _| node.counters().clone()).await.map_err(broken)
    }

    /// Ends the node as a power cut would: nothing is said to anybody.
    pub(super) fn crash(self) {
        drop(self);
    }

    /// Ends the node in order.
    pub(super) async fn stop(self) {
        self.engine.shutdown().await;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let (closed, _) = oneshot::channel();
        drop(std::mem::replace(&mut self._alive, closed));
        if let Some(thread) = self.thread.take() {
            // It has nothing to wait for any more.
            let _ = thread.join();
        }
    }
}

type Started = oneshot::Sender<Result<EngineHandle, String>>;

/// The engine's thread: its tokio runtime lives until `end`, and takes the engine with it.
fn run(config: EngineConfig, started: Started, end: oneshot::Receiver<()>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = started.send(Err(error.to_string()));
            return;
        }
    };
    runtime.block_on(async {
        let engine = Engine::start(config).await.map_err(|error| error.to_string());
        if started.send(engine).is_ok() {
            let _ = end.await;
        }
    });
}

fn node_config(machine: Machine, friends: &[Friend]) -> Outcome<NodeConfig> {
    let prefixes =
        |machine: Machine| machine.prefixes().iter().map(|prefix| prefix.parse()).collect::<Result<Vec<_>, _>>();
    let mut peers = Vec::new();
    for friend in friends {
        peers.push(PeerConfig {
            id: friend.id,
            name: friend.machine.name.to_owned(),
            prefixes: prefixes(friend.machine).map_err(broken)?,
            relay_capable: friend.machine == RELAY,
            endpoints: friend.at.into_iter().collect(),
            last_known: Vec::new(),
        });
    }
    Ok(NodeConfig {
        network_id: NetworkId::new(NETWORK).map_err(broken)?,
        network_key: None,
        sockets: Vec::new(),
        peers,
        policy: Policy::default(),
        own_prefixes: prefixes(machine).map_err(broken)?,
        mtu: 1400,
        aes_is_fast: vine_tokio::aes_is_fast(),
        checksum_offload: false,
    })
}
