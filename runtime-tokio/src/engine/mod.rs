//! The engine: one task that owns a [`Node`](vine_core::Node) and connects it to the host.

mod clock;
mod handle;
mod resolve;
mod task;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinSet;
use vine_core::path::{SocketId, SocketInfo};
use vine_core::session::CryptoBackend;
use vine_core::{Command, ConfigError, Identity, Node, NodeConfig, PeerConfig, PeerId};

pub use handle::{EngineHandle, PingError, Pong, Reload, ReloadError, Stopped};
pub use task::Exit;

use crate::address::{Endpoint, ListenAddr};
use crate::counters::RuntimeCounters;
use crate::crypto::Ring;
use crate::host::network::{Interface, Netlink, NetworkError, Wanted};
use crate::host::tun::{KernelTun, TunError};
use crate::host::watch::Watch;
use crate::memory_udp::MemoryUdp;
use crate::tun::{MemoryTun, Tun, TunConfig, memory_tun};
use crate::udp::{BindError, Udp};
use clock::Clock;
use handle::Shared;
use resolve::Endpoints;
use task::{Parts, Task};

/// Requests that wait for the engine's task at most; who asks more waits.
const REQUEST_QUEUE: usize = 64;

/// Events that a slow subscriber may be behind before it misses some.
const EVENT_QUEUE: usize = 256;

/// Most sockets of one engine.
const MAX_SOCKETS: usize = 16;

/// What an engine is started with.
pub struct EngineConfig {
    /// What the node is told. `sockets` and `checksum_offload` are filled in by [`Engine::start`].
    pub node: NodeConfig,
    /// This machine's identity.
    pub identity: Identity,
    /// What the datagrams travel on.
    pub underlay: Underlay,
    /// Where the host's packets come from.
    pub device: Device,
    /// Where peers are to be found, beside the endpoints in `node`.
    pub bootstrap: Vec<Bootstrap>,
    /// The ciphers' implementation; [`Ring`] is the fast one.
    pub crypto: Box<dyn CryptoBackend>,
}

impl EngineConfig {
    /// A configuration with sockets of this host, the fast ciphers and no further endpoints.
    pub fn new(node: NodeConfig, identity: Identity, listen: Vec<ListenAddr>, device: Device) -> EngineConfig {
        let underlay = Underlay::Host(listen);
        EngineConfig { node, identity, underlay, device, bootstrap: Vec::new(), crypto: Box::new(Ring) }
    }
}

/// What the datagrams travel on.
pub enum Underlay {
    /// This host's networks. Where to listen: at least one address.
    Host(Vec<ListenAddr>),
    /// Networks in memory.
    Memory {
        /// The addresses that the engine's host has there.
        addresses: Vec<IpAddr>,
        /// At least one socket.
        sockets: Vec<MemoryUdp>,
    },
}

/// Where the host's packets come from.
pub enum Device {
    /// A TUN interface, created at the start with its addresses and a route for every prefix of a peer.
    Tun(TunConfig),
    /// Queues in memory.
    Memory(MemoryTun),
    /// Nowhere: the node talks to its peers, but the host takes no part in the overlay.
    None,
}

/// Where a peer is to be found.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Bootstrap {
    /// Which peer.
    pub peer: PeerId,
    /// Where. A name is resolved at the start, and again every minute while the peer is away.
    pub endpoint: Endpoint,
}

/// Why an engine could not be started. Nothing of it is left on the host then.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No address to listen on, or too many.
    #[error("{0} addresses to listen on; there must be 1 to {MAX_SOCKETS}")]
    Listen(usize),
    /// A socket could not be opened.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The peers or prefixes contradict each other.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The TUN interface could not be created.
    #[error(transparent)]
    Tun(#[from] TunError),
    /// The TUN interface could not be configured.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes: {0}")]
    Entropy(String),
}

/// Starts engines.
pub struct Engine;

impl Engine {
    /// Opens the sockets and the device, installs addresses and routes, and starts the task that drives the node.
    ///
    /// Must be called inside a tokio runtime with I/O and time enabled. The engine runs until it is shut down or the last
    /// handle is dropped.
    ///
    /// # Errors
    /// [`StartError`], in words for the operator.
    pub async fn start(config: EngineConfig) -> Result<EngineHandle, StartError> {
        let counters = Arc::new(RuntimeCounters::default());
        let (sockets, addresses) = open_underlay(config.underlay, &counters)?;
        let local_addrs = sockets.iter().map(Udp::local_addr).collect();
        let endpoints = Endpoints::new(&config.node.peers, &config.bootstrap);

        let clock = Clock::start();
        let mut node = config.node;
        node.sockets = sockets
            .iter()
            .zip(0..)
            .map(|(socket, n)| SocketInfo {
                id: SocketId(n),
                family: socket.family(),
                port: socket.local_addr().port(),
            })
            .collect();
        node.checksum_offload = matches!(config.device, Device::Tun(_));
        endpoints.add_known(&mut node.peers);
        let wanted = wanted_routes(&node.peers);
        let mut node = Node::new(node, config.identity, config.crypto, seed()?, clock.now(), clock::unix_time())?;

        let (tun, interface) = open_device(config.device, &wanted).await?;
        let watch = match addresses {
            Some(_) => None,
            None => resolve::watch(interface.as_ref().map(Interface::index)).await,
        };
        if let Some(local) = addresses.or_else(|| watch.as_ref().map(Watch::addresses)) {
            let command = Command::NetworkChanged { local };
            node.command(clock.now(), command).expect("a new node takes any address");
        }
        let (requests, requests_in) = mpsc::channel(REQUEST_QUEUE);
        let (events, _) = broadcast::channel(EVENT_QUEUE);
        let (ended, end) = watch::channel(None);
        let weak_events = events.downgrade();
        let parts = Parts { node, clock, tun, sockets, requests: requests_in, events, counters: counters.clone() };
        let task = tokio::spawn(Task::new(parts).run());
        tokio::spawn(async move {
            let exit = task.await.unwrap_or(Exit::Panicked);
            // Nobody may be left to hear it.
            let _ = ended.send(Some(exit));
        });

        let endpoints = Arc::new(endpoints);
        let mut helpers = JoinSet::new();
        let asker = requests.downgrade();
        helpers.spawn(resolve::keep_resolving(endpoints.clone(), asker.clone(), counters.clone()));
        if let Some(watch) = watch {
            helpers.spawn(resolve::keep_watching(watch, endpoints.clone(), asker));
        }
        Ok(EngineHandle::new(Shared {
            requests,
            events: weak_events,
            end,
            counters,
            local_addrs,
            clock,
            endpoints,
            interface: tokio::sync::Mutex::new(interface),
            next_token: 0.into(),
            _helpers: helpers,
        }))
    }
}

/// The sockets; and the host's addresses, where the kernel is not to be asked for them.
fn open_underlay(
    underlay: Underlay,
    counters: &Arc<RuntimeCounters>,
) -> Result<(Vec<Udp>, Option<Vec<IpAddr>>), StartError> {
    let count = match &underlay {
        Underlay::Host(listen) => listen.len(),
        Underlay::Memory { sockets, .. } => sockets.len(),
    };
    if !(1..=MAX_SOCKETS).contains(&count) {
        return Err(StartError::Listen(count));
    }
    match underlay {
        Underlay::Host(listen) => {
            let sockets: Result<Vec<Udp>, BindError> =
                listen.into_iter().map(|address| Udp::bind(address, counters.clone())).collect();
            Ok((sockets?, None))
        }
        Underlay::Memory { addresses, sockets } => {
            let sockets = sockets.into_iter().map(|socket| Udp::Memory(socket, counters.clone()));
            Ok((sockets.collect(), Some(addresses)))
        }
    }
}

fn seed() -> Result<[u8; 32], StartError> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| StartError::Entropy(error.to_string()))?;
    Ok(seed)
}

async fn open_device(device: Device, routes: &[Wanted]) -> Result<(Tun, Option<Interface>), StartError> {
    let config = match device {
        Device::Tun(config) => config,
        Device::Memory(memory) => return Ok((Tun::Memory(memory), None)),
        Device::None => return Ok((Tun::Memory(memory_tun(1).0), None)),
    };
    let netlink = Netlink::open()?;
    if netlink.exists(&config.name).await? {
        return Err(TunError::Exists(config.name).into());
    }
    let tun = KernelTun::create(&config)?;
    let mut interface = Interface::configure(netlink, &config, tun.index()).await?;
    interface.install(routes).await?;
    Ok((Tun::Kernel(tun), Some(interface)))
}

/// The destinations that the peers' prefixes make.
fn wanted_routes(peers: &[PeerConfig]) -> Vec<Wanted> {
    let mut wanted = BTreeMap::new();
    for peer in peers {
        for prefix in &peer.prefixes {
            wanted.insert(*prefix, format!("peer {}", peer.name));
        }
    }
    wanted.into_iter().map(|(prefix, owner)| Wanted { prefix, owner }).collect()
}
