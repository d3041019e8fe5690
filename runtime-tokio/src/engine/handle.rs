//! What the outside holds of a running engine.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, broadcast, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use vine_core::overlay::Prefix;
use vine_core::path::{PathClass, SocketId, Via};
use vine_core::{Command, CommandError, Event, Instant, Node, PeerConfig, PeerId, Policy};

use super::clock::Clock;
use super::resolve::Endpoints;
use super::task::{Exit, HAIRPIN_LEN, Hairpin, Request};
use super::{Bootstrap, wanted_routes};
use crate::counters::RuntimeCounters;
use crate::host::network::{Interface, NetworkError};

/// A running engine. Clones are handles to the same one; it shuts down when the last of them is dropped.
#[derive(Clone)]
pub struct EngineHandle {
    shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) events: broadcast::WeakSender<Event>,
    pub(super) end: watch::Receiver<Option<Exit>>,
    pub(super) counters: Arc<RuntimeCounters>,
    pub(super) local_addrs: Vec<SocketAddr>,
    pub(super) clock: Clock,
    pub(super) endpoints: Arc<Endpoints>,
    /// Whoever changes addresses and routes holds this, so that reloads come one after the other.
    pub(super) interface: Mutex<Option<Interface>>,
    pub(super) next_token: AtomicU64,
    /// Tasks that end with the last handle.
    pub(super) _helpers: JoinSet<()>,
}

/// The engine has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the engine has stopped")]
pub struct Stopped;

/// The answer to a ping.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pong {
    /// The path by which the Ping went out.
    pub path: Via<PeerId>,
    /// Its class.
    pub class: PathClass,
    /// Its round-trip time.
    pub rtt: Duration,
}

/// Why a ping has no answer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PingError {
    /// The node did not send it.
    #[error(transparent)]
    Refused(#[from] CommandError),
    /// Nothing came back in time.
    #[error("no answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// The engine has ended.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// What a reload replaces.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reload {
    /// The allowed peers.
    pub peers: Vec<PeerConfig>,
    /// What is permitted.
    pub policy: Policy,
    /// Where peers are to be found, beside the endpoints in `peers`.
    pub bootstrap: Vec<Bootstrap>,
}

/// Why a reload was refused. Everything is then as it was.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The routes could not be changed.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The node refused the new configuration.
    #[error(transparent)]
    Refused(#[from] CommandError),
    /// The engine has ended.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

impl EngineHandle {
    pub(super) fn new(shared: Shared) -> EngineHandle {
        EngineHandle { shared: Arc::new(shared) }
    }

    /// Runs `query` on the engine's task, between packets, and returns what it returns. It holds up all traffic while it
    /// runs.
    pub async fn query<T, F>(&self, query: F) -> Result<T, Stopped>
    where
        T: Send + 'static,
        F: FnOnce(&mut Node, Instant) -> T + Send + 'static,
    {
        ask(&self.shared.requests, query).await
    }

    /// Gives the node a command.
    ///
    /// [`Command::SetPeers`] leaves the host's routes as they are; [`EngineHandle::reload`] changes both.
    pub async fn command(&self, command: Command) -> Result<Result<(), CommandError>, Stopped> {
        self.query(move |node, now| node.command(now, command)).await
    }

    /// The node's events from now on. A subscriber that falls behind misses the oldest ones and is told how many.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        match self.shared.events.upgrade() {
            Some(events) => events.subscribe(),
            // A receiver without a sender: it says at once that the engine has ended.
            None => broadcast::channel(1).1,
        }
    }

    /// Sends a Ping to a peer over its session and waits for the answer.
    pub async fn ping(&self, peer: PeerId, timeout: Duration) -> Result<Pong, PingError> {
        let token = self.shared.next_token.fetch_add(1, Ordering::Relaxed);
        let mut events = self.events();
        self.command(Command::Ping { peer, token }).await??;
        let answer = async {
            loop {
                match events.recv().await {
                    Ok(Event::PingReply { peer: from, token: echo, path, class, rtt })
                        if from == peer && echo == token =>
                    {
                        return Ok(Pong { path, class, rtt });
                    }
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return Err(Stopped.into()),
                }
            }
        };
        tokio::time::timeout(timeout, answer).await.unwrap_or(Err(PingError::TimedOut(timeout)))
    }

    /// Sends a datagram by `socket` to `to`, where others see that socket, and says whether the NAT brought it back within
    /// `patience` (hairpinning, RFC 4787 section 6).
    pub async fn hairpin(&self, socket: SocketId, to: SocketAddr, patience: Duration) -> Result<bool, Stopped> {
        let mut token = [0; HAIRPIN_LEN];
        if getrandom::fill(&mut token).is_err() {
            return Ok(false);
        }
        let (back, is_back) = oneshot::channel();
        let request = Request::Hairpin(Hairpin { socket, to, token, back });
        self.shared.requests.send(request).await.map_err(|_| Stopped)?;
        Ok(matches!(tokio::time::timeout(patience, is_back).await, Ok(Ok(()))))
    }

    /// Replaces the peers, the policy and the endpoints, and changes the host's routes accordingly. Sessions of peers that
    /// stay are not disturbed.
    pub async fn reload(&self, reload: Reload) -> Result<(), ReloadError> {
        let mut interface = self.shared.interface.lock().await;
        let wanted = wanted_routes(&reload.peers);
        // New routes first: if one is taken, nothing has changed yet.
        let added = match interface.as_mut() {
            Some(interface) => interface.install(&wanted).await?,
            None => Vec::new(),
        };
        let previous = self.shared.endpoints.replace(&reload.peers, &reload.bootstrap);
        let mut peers = reload.peers;
        self.shared.endpoints.add_known(&mut peers);
        let policy = reload.policy;
        let done = self.query(move |node, now| {
            node.command(now, Command::SetPeers(peers))?;
            node.command(now, Command::SetPolicy(policy))
        });
        if let Err(error) = done.await.map_err(ReloadError::from).and_then(|done| Ok(done?)) {
            self.shared.endpoints.restore(previous);
            if let Some(interface) = interface.as_mut() {
                interface.withdraw(&added).await;
            }
            return Err(error);
        }
        if let Some(interface) = interface.as_mut() {
            interface.retain(&wanted).await;
        }
        self.shared.endpoints.resolve_now();
        Ok(())
    }

    /// Ends the engine in order: takes the routes and addresses off the host, says goodbye to every peer, closes the
    /// sockets and the TUN. Returns once that is done, and says how the engine ended.
    pub async fn shutdown(&self) -> Exit {
        if let Some(mut interface) = self.shared.interface.lock().await.take() {
            interface.clear().await;
        }
        // An engine that has ended already takes no request.
        let _ = self.shared.requests.send(Request::Shutdown).await;
        self.ended().await
    }

    /// Waits for the engine's end.
    pub async fn ended(&self) -> Exit {
        let mut end = self.shared.end.clone();
        let exit = end.wait_for(Option::is_some).await;
        exit.ok().and_then(|exit| exit.clone()).unwrap_or(Exit::Panicked)
    }

    /// The node's present time, for comparison with the instants in its reports.
    pub fn now(&self) -> Instant {
        self.shared.clock.now()
    }

    /// The addresses that the sockets are bound to, in the order of the configuration, with ports that the kernel chose.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.shared.local_addrs
    }

    /// Counters of the runtime's own input and output.
    pub fn counters(&self) -> &RuntimeCounters {
        &self.shared.counters
    }

    /// The destinations that lead to the TUN interface at this moment, in order, as the kernel has them. Empty where the
    /// device is no interface.
    pub async fn installed_routes(&self) -> Result<Vec<Prefix>, NetworkError> {
        match self.shared.interface.lock().await.as_ref() {
            Some(interface) => interface.installed().await,
            None => Ok(Vec::new()),
        }
    }
}

/// Has the engine's task run `query`.
pub(super) async fn ask<T, F>(requests: &mpsc::Sender<Request>, query: F) -> Result<T, Stopped>
where
    T: Send + 'static,
    F: FnOnce(&mut Node, Instant) -> T + Send + 'static,
{
    let (reply, result) = oneshot::channel();
    let request = Request::Query(Box::new(move |node, now| {
        // Whoever asked may have given up waiting.
        let _ = reply.send(query(node, now));
    }));
    requests.send(request).await.map_err(|_| Stopped)?;
    result.await.map_err(|_| Stopped)
}
