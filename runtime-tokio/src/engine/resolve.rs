//! Keeps the node's picture of the outside up to date: where peers are, which addresses the host has, what time it is.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::{sleep, timeout};
use vine_core::node::PeerState;
use vine_core::{Command, PeerConfig, PeerId};

use super::handle::ask;
use super::task::Request;
use super::{Bootstrap, clock};
use crate::address::Endpoint;
use crate::counters::{Count, RuntimeCounters};
use crate::host::sleep::{SleepWatch, TimeChange};
use crate::host::watch::Watch;

/// Names are resolved again this often while their peers are away.
const AGAIN: Duration = Duration::from_secs(60);

/// The first retry after a failure; each further one waits twice as long, up to [`AGAIN`]. At boot the network is often
/// there before the name server is.
const RETRY: Duration = Duration::from_secs(2);

/// A resolver that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// Addresses of one name, and of one peer, at most.
const MAX_ADDRESSES: usize = 16;

/// Where peers may be found: as configured, and as names were last resolved.
pub(super) struct Endpoints {
    state: Mutex<State>,
    wake: Notify,
}

/// What [`Endpoints`] knows.
#[derive(Clone, Default)]
pub(super) struct State {
    fixed: BTreeMap<PeerId, Vec<SocketAddr>>,
    names: BTreeMap<PeerId, Vec<(String, u16)>>,
    resolved: BTreeMap<(String, u16), Vec<SocketAddr>>,
}

impl State {
    fn new(peers: &[PeerConfig], bootstrap: &[Bootstrap]) -> State {
        let mut state = State::default();
        for peer in peers {
            state.fixed.insert(peer.id, peer.endpoints.clone());
        }
        for Bootstrap { peer, endpoint } in bootstrap {
            match endpoint {
                Endpoint::Address(address) => state.fixed.entry(*peer).or_default().push(*address),
                Endpoint::Name { host, port } => state.names.entry(*peer).or_default().push((host.clone(), *port)),
            }
        }
        state
    }

    /// Everything that is known about a peer, the configured addresses first.
    fn of(&self, peer: &PeerId) -> Vec<SocketAddr> {
        let names = self.names.get(peer).into_iter().flatten();
        let resolved = names.filter_map(|name| self.resolved.get(name)).flatten();
        let mut seen = BTreeSet::new();
        let all = self.fixed.get(peer).into_iter().flatten().chain(resolved).copied();
        all.filter(|address| seen.insert(*address)).take(MAX_ADDRESSES).collect()
    }
}

impl Endpoints {
    pub(super) fn new(peers: &[PeerConfig], bootstrap: &[Bootstrap]) -> Endpoints {
        Endpoints { state: Mutex::new(State::new(peers, bootstrap)), wake: Notify::new() }
    }

    /// Fills in what is known about each peer.
    pub(super) fn add_known(&self, peers: &mut [PeerConfig]) {
        let state = self.lock();
        for peer in peers {
            peer.endpoints = state.of(&peer.id);
        }
    }

    /// Takes a new configuration; returns the former state. What names were resolved to stays.
    pub(super) fn replace(&self, peers: &[PeerConfig], bootstrap: &[Bootstrap]) -> State {
        let mut state = self.lock();
        let resolved = state.resolved.clone();
        std::mem::replace(&mut state, State { resolved, ..State::new(peers, bootstrap) })
    }

    /// Undoes [`Endpoints::replace`].
    pub(super) fn restore(&self, state: State) {
        *self.lock() = state;
    }

    /// Has names resolved without waiting.
    pub(super) fn resolve_now(&self) {
        self.wake.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock, and every change is complete.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The names of these peers.
    fn names_of(&self, peers: &BTreeSet<PeerId>) -> BTreeSet<(String, u16)> {
        let state = self.lock();
        state.names.iter().filter(|(peer, _)| peers.contains(peer)).flat_map(|(_, names)| names).cloned().collect()
    }

    /// Notes what a name was resolved to; returns the peers concerned, with all that is known about them, if it is news.
    fn note(&self, name: &(String, u16), addresses: Vec<SocketAddr>) -> Vec<(PeerId, Vec<SocketAddr>)> {
        let mut state = self.lock();
        if state.resolved.get(name) == Some(&addresses) {
            return Vec::new();
        }
        state.resolved.insert(name.clone(), addresses);
        let concerned = state.names.iter().filter(|(_, names)| names.contains(name)).map(|(peer, _)| *peer);
        concerned.map(|peer| (peer, state.of(&peer))).collect()
    }
}

/// Resolves the names of peers that are away, until the engine has ended. Tells the node the wall clock as well, which may
/// be set while the daemon runs.
pub(super) async fn keep_resolving(
    endpoints: Arc<Endpoints>,
    requests: mpsc::WeakSender<Request>,
    counters: Arc<RuntimeCounters>,
) {
    let mut wait = RETRY;
    loop {
        let Some(away) = peers_away(&requests).await else { return };
        let mut failed = false;
        for name in endpoints.names_of(&away) {
            match resolve(&name).await {
                Ok(addresses) => {
                    for (peer, endpoints) in endpoints.note(&name, addresses) {
                        if !tell(&requests, Command::SetEndpoints { peer, endpoints }).await {
                            return;
                        }
                    }
                }
                Err(error) => {
                    failed = true;
                    counters.add(Count::ResolveFailed);
                    tracing::debug!(host = %name.0, %error, "cannot resolve a peer's name");
                }
            }
        }
        if !tell(&requests, Command::SetUnixTime(clock::unix_time())).await {
            return;
        }
        wait = if failed { (wait * 2).min(AGAIN) } else { RETRY };
        let pause = if failed { wait } else { AGAIN };
        tokio::select! {
            () = sleep(pause) => {}
            () = endpoints.wake.notified() => {}
        }
    }
}

/// Starts to watch the host's addresses. An engine works without, only slower to notice that it moved.
pub(super) async fn watch(own_interface: Option<u32>) -> Option<Watch> {
    let watch = Watch::open(own_interface).await;
    watch.inspect_err(|error| tracing::warn!(%error, "changes of the host's addresses will not be noticed")).ok()
}

/// Tells the node whenever the host's addresses change or the machine wakes, until the engine has ended.
pub(super) async fn keep_watching(mut watch: Watch, endpoints: Arc<Endpoints>, requests: mpsc::WeakSender<Request>) {
    let sleeps = SleepWatch::open();
    let mut sleeps =
        sleeps.inspect_err(|error| tracing::warn!(%error, "sleep of the machine will not be noticed")).ok();
    loop {
        let local = tokio::select! {
            local = watch.changed() => local,
            change = time_change(&mut sleeps) => {
                if !tell(&requests, Command::SetUnixTime(clock::unix_time())).await {
                    return;
                }
                let TimeChange::Slept(time) = change else { continue };
                tracing::info!(seconds = time.as_secs(), "the machine slept");
                // The network may be another one; what changed meanwhile follows as a change of its own.
                watch.read_again().await
            }
        };
        let Some(local) = local else { break };
        if !tell(&requests, Command::NetworkChanged { local }).await {
            return;
        }
        endpoints.resolve_now();
    }
    tracing::warn!("changes of the host's addresses are no longer noticed");
}

/// The next jump of the host's time; never, where that cannot be noticed.
async fn time_change(sleeps: &mut Option<SleepWatch>) -> TimeChange {
    if let Some(watch) = sleeps {
        match watch.changed().await {
            Ok(change) => return change,
            Err(error) => tracing::warn!(%error, "sleep of the machine is no longer noticed"),
        }
    }
    *sleeps = None;
    std::future::pending().await
}

/// The peers that are not connected; `None` when the engine has ended.
async fn peers_away(requests: &mpsc::WeakSender<Request>) -> Option<BTreeSet<PeerId>> {
    let requests = requests.upgrade()?;
    let away = ask(&requests, |node, _| {
        node.peers().filter(|peer| peer.state != PeerState::Connected).map(|peer| peer.id).collect()
    });
    away.await.ok()
}

/// Gives the node a command; says whether the engine still runs. A refusal concerns a peer that is no longer configured.
async fn tell(requests: &mpsc::WeakSender<Request>, command: Command) -> bool {
    let Some(requests) = requests.upgrade() else { return false };
    ask(&requests, move |node, now| _ = node.command(now, command)).await.is_ok()
}

async fn resolve(name: &(String, u16)) -> std::io::Result<Vec<SocketAddr>> {
    let (host, port) = name;
    let found = timeout(PATIENCE, tokio::net::lookup_host((host.as_str(), *port))).await??;
    let mut addresses: Vec<SocketAddr> = found.take(MAX_ADDRESSES).collect();
    // A name server turns its answers around; that is no news.
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}
