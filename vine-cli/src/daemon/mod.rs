//! The daemon: one engine, its control socket, its signals.
//!
//! Nothing on the host is touched before the configuration is known to be valid and this process to be the only daemon of
//! it; everything is taken back in the reverse order. The control socket goes last, so that whoever waits for the end of a
//! daemon only has to watch the socket.

mod change;
mod control;
mod history;
mod inspect;
mod last_known;
mod lock;
mod log;
mod logging;
mod report;
mod service;
mod verdict;

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::oneshot;
use vine_core::{Event, Identity};
use vine_tokio::{BindError, Engine, EngineHandle, NetworkError, StartError, TunError};

use crate::cli::RunArgs;
use crate::config::{self, Config};
use crate::engine;
use crate::output::{Failure, Outcome};
use last_known::LastKnown;
use lock::{ControlSocket, Lock};
pub(crate) use log::LEFT_OUT;
use log::LogService;
use service::Service;

/// Runs the node of the configuration at `path` until it is told to stop.
pub(crate) fn run(path: &Path, args: RunArgs) -> Outcome {
    let (config, identity) = config::load(path)?;
    let lock = Lock::take(&config.node.state_dir, &config.node.control_socket)?;
    let log = args.detached.as_deref().map(detach).transpose()?;
    logging::start(log.as_ref())?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let socket = ControlSocket::bind(&config.node.control_socket, &lock)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed("io", format!("cannot start the event loop: {error}")))?;
    let result = runtime.block_on(serve(config, identity, &socket, log));
    // A name that is being looked up has a thread of its own, and nobody waits for its answer any more.
    runtime.shutdown_timeout(Duration::from_millis(100));
    drop(socket);
    drop(lock);
    result
}

/// Leaves the terminal and its session; what goes wrong until the node is ready is still said on standard error.
fn detach(log: &Path) -> Outcome<File> {
    let file = logging::open(log)?;
    let failed = |error: rustix::io::Errno| Failure::failed("io", format!("cannot detach: {error}"));
    rustix::process::setsid().map_err(failed)?;
    rustix::process::chdir("/").map_err(failed)?;
    Ok(file)
}

/// The detached daemon's last words go into its log, and nobody's pipe is held open.
fn let_go(log: &File) -> Outcome {
    let failed = |error: rustix::io::Errno| Failure::failed("io", format!("cannot detach: {error}"));
    rustix::stdio::dup2_stdout(log).map_err(failed)?;
    rustix::stdio::dup2_stderr(log).map_err(failed)
}

/// What the daemon waits for besides packets.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    snapshot: Signal,
}

impl Signals {
    fn register() -> Outcome<Signals> {
        let failed = |error: std::io::Error| Failure::failed("io", format!("cannot handle signals: {error}"));
        let register = |kind| signal(kind).map_err(failed);
        Ok(Signals {
            terminate: register(SignalKind::terminate())?,
            interrupt: register(SignalKind::interrupt())?,
            hangup: register(SignalKind::hangup())?,
            snapshot: register(SignalKind::user_defined1())?,
        })
    }
}

async fn serve(config: Config, identity: Identity, socket: &ControlSocket, log: Option<File>) -> Outcome {
    // Before the engine: a signal must never meet its default action while interfaces exist.
    let mut signals = Signals::register()?;
    let listener = socket.listener()?;
    let name = config.node.name.clone();
    let peer_id = identity.peer_id();
    let last_known = LastKnown::load(&config.node.state_dir);
    let author = twin(&identity)?;
    let start = engine::start_of(&config, identity, |peer| last_known.of(peer, &config));
    let started = Engine::start(start).await;
    let engine = started.map_err(|error| not_started(&error))?;
    let listen: Vec<String> = engine.local_addrs().iter().map(|address| format!("udp://{address}")).collect();
    tracing::info!(
        name,
        %peer_id,
        tun = config.tun.name,
        listen = listen.join(" "),
        peers = config.peers.len(),
        "vine {} is up",
        env!("CARGO_PKG_VERSION")
    );
    let (events, news) = (engine.events(), engine.events());
    let log_service = LogService::start(&config, author);
    let service = Arc::new(Service::new(config, last_known, peer_id, engine.clone(), log_service));
    let (end, ended) = oneshot::channel();
    let control = tokio::spawn(control::serve(listener, Arc::clone(&service), ended));
    let reporter = tokio::spawn(log_events(events, Arc::clone(&service)));
    let rememberer = tokio::spawn(keep_remembering(news, Arc::clone(&service)));
    if let Some(log) = &log {
        let_go(log)?;
    }
    notify(&[NotifyState::Ready]);
    let result = watch(&engine, &service, &mut signals).await;
    notify(&[NotifyState::Stopping]);
    service.set_stopping();
    rememberer.abort();
    service.remember().await;
    engine.shutdown().await;
    // While the control socket still answers: what waits for the disk hears that it is there.
    service.log.close().await;
    let _ = end.send(());
    let _ = control.await;
    reporter.abort();
    tracing::info!("vine is down");
    result
}

/// The same identity once more: the engine keeps the one that it gets.
fn twin(identity: &Identity) -> Outcome<Arc<Identity>> {
    let twin = Identity::from_secret_text(&identity.to_secret_text());
    twin.map(Arc::new).map_err(|error| Failure::failed("identity", error))
}

fn not_started(error: &StartError) -> Failure {
    match error {
        StartError::Tun(TunError::NotPermitted(_))
        | StartError::Bind(BindError::NotPermitted(_))
        | StartError::Network(NetworkError::NotPermitted(_)) => {
            Failure::failed("permission_denied", format!("no permission: {error}"))
        }
        _ => Failure::failed("not_started", error),
    }
}

/// Waits for the end, doing on the way what signals and systemd ask for.
async fn watch(engine: &EngineHandle, service: &Service, signals: &mut Signals) -> Outcome {
    // Half the time, as sd_watchdog_enabled(3) advises.
    let mut watchdog = sd_notify::watchdog_enabled().map(|timeout| tokio::time::interval(timeout / 2));
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => {
                tracing::info!("SIGTERM: stopping");
                return Ok(());
            }
            _ = signals.interrupt.recv() => {
                tracing::info!("SIGINT: stopping");
                return Ok(());
            }
            () = service.stop_asked() => {
                tracing::info!("asked to stop over the control socket");
                return Ok(());
            }
            _ = signals.hangup.recv() => reload(service).await,
            _ = signals.snapshot.recv() => snapshot(service).await,
            () = tick(&mut watchdog) => {
                // What is alive is an engine that answers, and not this loop alone.
                if service.is_alive().await {
                    notify(&[NotifyState::Watchdog]);
                }
            }
            exit = engine.ended() => {
                return Err(Failure::failed("stopped", format!("the node stopped: {exit}")));
            }
        }
    }
}

async fn tick(interval: &mut Option<tokio::time::Interval>) {
    match interval {
        Some(interval) => _ = interval.tick().await,
        None => std::future::pending().await,
    }
}

async fn reload(service: &Service) {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(_) => notify(&[NotifyState::Reloading]),
    }
    // What came of it is logged there, for the control socket's sake as well.
    let _ = service.reload().await;
    notify(&[NotifyState::Ready]);
}

async fn snapshot(service: &Service) {
    match service.snapshot().await.map(|snapshot| serde_json::to_string(&snapshot)) {
        Ok(Ok(snapshot)) => tracing::info!("snapshot {snapshot}"),
        Ok(Err(error)) => tracing::error!(%error, "snapshot"),
        Err(refusal) => tracing::error!("snapshot: {}", refusal.message),
    }
}

/// Tells systemd, where it listens.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "sd_notify");
    }
}

/// Where peers are reached is written down at most this often.
const REMEMBER_INTERVAL: Duration = Duration::from_secs(5);

/// Writes down where peers are reached, whenever a path changes.
async fn keep_remembering(mut events: Receiver<Event>, service: Arc<Service>) {
    let mut missed = false;
    loop {
        if !missed {
            match events.recv().await {
                Ok(Event::PeerUp { .. } | Event::SessionSwitched { .. }) | Err(RecvError::Lagged(_)) => {}
                Ok(_) => continue,
                Err(RecvError::Closed) => return,
            }
        }
        service.remember().await;
        tokio::time::sleep(REMEMBER_INTERVAL).await;
        // One look covers whatever happened meanwhile.
        missed = std::iter::from_fn(|| events.try_recv().ok()).count() > 0;
    }
}

async fn log_events(mut events: Receiver<Event>, service: Arc<Service>) {
    loop {
        match events.recv().await {
            Ok(event) => {
                service.note(&event);
                log_event(&event, &service).await;
            }
            Err(RecvError::Lagged(missed)) => tracing::warn!("{missed} events were not logged"),
            Err(RecvError::Closed) => return,
        }
    }
}

async fn log_event(event: &Event, service: &Service) {
    let peer = match event {
        Event::PeerUp { peer }
        | Event::PeerDown { peer, .. }
        | Event::SessionEstablished { peer, .. }
        | Event::SessionSwitched { peer, .. } => service.peer_name(peer).await,
        Event::UnauthorizedPeer { peer, .. } => peer.to_string(),
        // Whoever asked hears it.
        Event::PingReply { .. } => return,
    };
    match event {
        Event::PeerUp { .. } => tracing::info!(peer, "peer is up"),
        Event::PeerDown { why, .. } => tracing::info!(peer, why = why.name(), "peer is down"),
        Event::SessionEstablished { cipher, initiator, restarted, .. } => {
            tracing::info!(peer, %cipher, initiator, restarted, "session established");
        }
        Event::SessionSwitched { from, to, why, .. } => {
            let to = service.way(*to).await;
            let Some(from) = from else { return tracing::info!(peer, %to, %why, "path chosen") };
            let from = service.way(*from).await;
            tracing::info!(peer, %from, %to, %why, "path switched");
        }
        Event::UnauthorizedPeer { from, .. } => {
            tracing::warn!(peer, %from, "a key that is not allowed tried to connect")
        }
        Event::PingReply { .. } => {}
    }
}
