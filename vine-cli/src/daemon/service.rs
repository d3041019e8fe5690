//! What the control socket can ask for, independent of HTTP.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::StatusCode;
use tokio::sync::{Mutex, watch};
use vine_core::overlay::Prefix;
use vine_core::path::{PathClass, Via};
use vine_core::{Event, Instant, Node, PeerId};
use vine_tokio::{EngineHandle, PingError};

use super::history::History;
use super::last_known::LastKnown;
use super::log::LogService;
use super::{change, inspect, report};
use crate::api::{
    Counters, Daemon, Peer, Phase, PingReply, PingRequest, Relayed, Reloaded, Route, Session, Snapshot, Status,
};
use crate::config::{self, Config};
use crate::engine;

/// Longest wait for the answer to a ping.
const MAX_PING_WAIT: Duration = Duration::from_secs(60);

/// Why a request is refused.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) code: &'static str,
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, code: &'static str, message: String) -> Refusal {
        Refusal { status, code, message }
    }
}

/// The running node as the control socket and the signals see it.
pub(super) struct Service {
    pub(super) engine: EngineHandle,
    pub(super) log: Arc<LogService>,
    peer_id: PeerId,
    /// What happened to the paths.
    pub(super) history: Arc<History>,
    /// Where peers were reached.
    last_known: Mutex<LastKnown>,
    /// What is in force. Held while a new one is being taken over, so that two reloads do not overtake each other.
    config: Mutex<Config>,
    facts: Facts,
    started: std::time::Instant,
    phase: watch::Sender<Phase>,
    stop: watch::Sender<bool>,
}

/// What never changes while the daemon runs.
struct Facts {
    name: String,
    network_id: String,
    path: PathBuf,
    tun: String,
    addresses: Vec<IpAddr>,
    mtu: u16,
}

impl Service {
    /// The service of an engine that was started from `config`.
    pub(super) fn new(
        config: Config,
        last_known: LastKnown,
        peer_id: PeerId,
        engine: EngineHandle,
        log: Arc<LogService>,
    ) -> Service {
        let facts = Facts {
            name: config.node.name.clone(),
            network_id: config.node.network_id.as_str().to_owned(),
            path: config.path.clone(),
            tun: config.tun.name.clone(),
            addresses: config.tun.addresses.iter().map(|(ip, _)| *ip).collect(),
            mtu: config.tun.mtu,
        };
        Service {
            engine,
            log,
            peer_id,
            history: Arc::default(),
            last_known: Mutex::new(last_known),
            config: Mutex::new(config),
            facts,
            started: std::time::Instant::now(),
            phase: watch::Sender::new(Phase::Running),
            stop: watch::Sender::new(false),
        }
    }

    /// From now on the daemon is on its way out.
    pub(super) fn set_stopping(&self) {
        self.phase.send_replace(Phase::Stopping);
    }

    /// Waits until somebody asks for the end.
    pub(super) async fn stop_asked(&self) {
        // The sender lives as long as this does, so there is no error to wait out.
        let _ = self.stop.subscribe().wait_for(|asked| *asked).await;
    }

    /// Asks for the end.
    pub(super) fn stop(&self) -> Daemon {
        self.stop.send_replace(true);
        self.daemon()
    }

    fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    fn uptime_s(&self) -> f64 {
        report::seconds(self.started.elapsed())
    }

    /// The process itself.
    pub(super) fn daemon(&self) -> Daemon {
        Daemon {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            config: self.facts.path.display().to_string(),
            tun: self.facts.tun.clone(),
            listen: self.engine.local_addrs().iter().map(|address| format!("udp://{address}")).collect(),
            uptime_s: self.uptime_s(),
            phase: self.phase(),
        }
    }

    pub(super) async fn status(&self) -> Result<Status, Refusal> {
        let (total, connected) = self.ask(|node, _| (node.peers().count(), report::connected(node))).await?;
        Ok(self.status_with(total, connected).await)
    }

    /// Whether the engine answers.
    pub(super) async fn is_alive(&self) -> bool {
        self.ask(|_, _| ()).await.is_ok()
    }

    async fn status_with(&self, peers_total: usize, peers_connected: usize) -> Status {
        Status {
            name: self.facts.name.clone(),
            peer_id: self.peer_id.to_string(),
            network_id: self.facts.network_id.clone(),
            uptime_s: self.uptime_s(),
            phase: self.phase(),
            peers_total,
            peers_connected,
            log: self.log.status().await,
        }
    }

    pub(super) async fn peers(&self) -> Result<Vec<Peer>, Refusal> {
        self.ask(report::peers).await
    }

    pub(super) async fn routes(&self) -> Result<Vec<Route>, Refusal> {
        let installed = self.installed().await?;
        self.ask(move |node, _| report::routes(node, &installed)).await
    }

    /// The destinations that the host really sends into the tunnel.
    async fn installed(&self) -> Result<Vec<Prefix>, Refusal> {
        let routes = self.engine.installed_routes().await;
        routes.map_err(|error| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "host", error.to_string()))
    }

    pub(super) async fn sessions(&self) -> Result<Vec<Session>, Refusal> {
        let mtu = self.facts.mtu;
        self.ask(move |node, now| report::sessions(node, now, mtu)).await
    }

    /// What this node passes on for others.
    pub(super) async fn relayed(&self) -> Result<Vec<Relayed>, Refusal> {
        self.ask(report::relayed).await
    }

    pub(super) async fn counters(&self) -> Result<Counters, Refusal> {
        let counters = self.ask(|node, _| node.counters().clone()).await?;
        Ok(report::counters(&counters, self.engine.counters()))
    }

    /// Everything, from one moment between two packets.
    pub(super) async fn snapshot(&self) -> Result<Snapshot, Refusal> {
        let installed = self.installed().await?;
        let mtu = self.facts.mtu;
        let read = move |node: &Node, now| {
            let lists = (report::peers(node, now), report::routes(node, &installed), report::sessions(node, now, mtu));
            (lists, report::connected(node), report::relayed(node, now), node.counters().clone())
        };
        let ((peers, routes, sessions), connected, relayed, counters) = self.ask(read).await?;
        Ok(Snapshot {
            taken_at_ms: wall_ms(),
            daemon: self.daemon(),
            status: self.status_with(peers.len(), connected).await,
            peers,
            routes,
            sessions,
            relayed,
            counters: report::counters(&counters, self.engine.counters()),
        })
    }

    /// The name of a peer, for the log; its id where it has just been removed.
    pub(super) async fn peer_name(&self, peer: &PeerId) -> String {
        let id = *peer;
        let name = self.ask(move |node, _| node.peer_name(&id).map(str::to_owned)).await;
        name.ok().flatten().unwrap_or_else(|| format!("{id:?}"))
    }

    /// Keeps what an event tells of a path.
    pub(super) fn note(&self, event: &Event) {
        self.history.note(self.engine.now(), wall_ms(), event);
    }

    /// Writes down where peers are reached now, if that is news.
    pub(super) async fn remember(&self) {
        // An engine that has ended reaches nobody.
        let Ok(reached) = self.ask(|node, _| node.reached().collect::<Vec<_>>()).await else { return };
        let mut last_known = self.last_known.lock().await;
        last_known.note(&reached);
        if let Some(unsaved) = last_known.take_unsaved() {
            // The disk may take its time, which the packets do not have. Held meanwhile: one writes at a time.
            let _ = tokio::task::spawn_blocking(move || unsaved.save()).await;
        }
    }

    /// A path in words, for the log.
    pub(super) async fn way(&self, (via, class): (Via<PeerId>, PathClass)) -> String {
        let way = self.ask(move |node, _| inspect::way(node, via, class)).await;
        way.map_or_else(|_| via.to_string(), |way| format!("{} ({})", way.path, way.class))
    }

    pub(super) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Node, Instant) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        self.engine.query(|node, now| question(node, now)).await.map_err(|error| stopping(&error))
    }

    /// The peer that a request means, with its name.
    pub(super) async fn find_peer(&self, target: String) -> Result<(PeerId, String), Refusal> {
        if self.facts.addresses.iter().any(|own| target.parse() == Ok(*own)) || target == self.facts.name {
            let message = format!("{target} is this node itself; name one of its peers");
            return Err(Refusal::new(StatusCode::BAD_REQUEST, "own_address", message));
        }
        let found = self.ask(move |node, _| find(node, &target)).await?;
        found.map_err(|why| Refusal::new(StatusCode::NOT_FOUND, "unknown_target", why))
    }

    /// Sends one ping and waits for its answer.
    pub(super) async fn ping(&self, request: PingRequest) -> Result<PingReply, Refusal> {
        let target = request.target;
        let timeout = Duration::from_millis(request.timeout_ms).min(MAX_PING_WAIT);
        let (id, name) = self.find_peer(target).await?;
        match self.engine.ping(id, timeout).await {
            Ok(pong) => {
                let way = self.ask(move |node, _| inspect::way(node, pong.path, pong.class)).await?;
                let (peer_id, rtt_ms) = (id.to_string(), report::milliseconds(pong.rtt));
                Ok(PingReply { peer: name, peer_id, class: way.class, path: way.path, relay: way.relay, rtt_ms })
            }
            Err(PingError::TimedOut(_)) => {
                let message = format!("{name} did not answer within {} ms", timeout.as_millis());
                Err(Refusal::new(StatusCode::GATEWAY_TIMEOUT, "timeout", message))
            }
            Err(PingError::Stopped(error)) => Err(stopping(&error)),
            Err(PingError::Refused(error)) => {
                Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "not_connected", format!("{name}: {error}")))
            }
        }
    }

    /// Reads the configuration file again and takes over what a running daemon can. With a fault in the file, all of the
    /// old configuration stays in force.
    pub(super) async fn reload(&self) -> Result<Reloaded, Refusal> {
        let mut config = self.config.lock().await;
        let path = self.facts.path.clone();
        let loaded = tokio::task::spawn_blocking(move || config::load(&path)).await;
        let faulty = |why: String| {
            tracing::error!("the new configuration was not taken, the old one stays in force:\n{why}");
            Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "configuration", why)
        };
        let (new, identity) =
            loaded.map_err(|error| faulty(error.to_string()))?.map_err(|faults| faulty(faults.to_string()))?;
        let mut changes = change::between(&config, &new);
        if identity.peer_id() != self.peer_id {
            changes.restart_needed.push("the identity".to_owned());
        }
        if changes.is_effective() {
            let mut last_known = self.last_known.lock().await;
            let reload = engine::reload_of(&new, |peer| last_known.of(peer, &new));
            self.engine.reload(reload).await.map_err(|error| faulty(error.to_string()))?;
            let stays = |id: &PeerId| new.peers.iter().any(|peer| peer.id == *id);
            last_known.retain(stays);
            self.history.retain(stays);
            self.log.reload(&new);
            // What needs a restart is still that of the start.
            config.peers = new.peers;
            config.policy = new.policy;
        }
        tracing::info!("configuration read again: {changes}");
        Ok(changes)
    }
}

pub(super) fn stopping(error: &impl std::fmt::Display) -> Refusal {
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", format!("the node is stopping: {error}"))
}

/// The wall clock, in milliseconds since 1970.
fn wall_ms() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}

/// The peer that a person means by an overlay address, a name or a peer id.
fn find(node: &Node, target: &str) -> Result<(PeerId, String), String> {
    let id = if let Ok(address) = target.parse::<IpAddr>() {
        node.owner_of(address).ok_or_else(|| format!("no peer owns {address}; see: vine routes"))?
    } else if let Some(peer) = node.peers().find(|peer| peer.name == target) {
        peer.id
    } else {
        let unknown = || format!("there is no peer {target}; see: vine peers");
        target.parse().ok().filter(|id| node.peer_name(id).is_some()).ok_or_else(unknown)?
    };
    let name = node.peer_name(&id).unwrap_or_default();
    Ok((id, name.to_owned()))
}
