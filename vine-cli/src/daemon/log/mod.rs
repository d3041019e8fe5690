//! The daemon's log: opened beside the network, which does not wait for it, and closed before the control socket goes.
//!
//! A log that cannot be opened keeps nobody from reaching peers. Every request for it says why, and so does the status.

mod routes;
mod streams;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::StatusCode;
use tokio::sync::{Semaphore, watch};
use vine_core::log::report::Report;
use vine_core::{Identity, PeerId};
use vine_store::{Handle, Options, StoreError};

use super::service::Refusal;
use crate::api::LogStatus;
use crate::config::{self, Config};
use crate::log::{self, Names, Trouble};

pub(super) use routes::{answer, method};
pub(crate) use streams::LEFT_OUT;

/// How long a request waits for the log to be open.
const OPENING: Duration = Duration::from_secs(60);
/// How long a status waits for a thread that may be in the middle of a slow sync.
const STATUS: Duration = Duration::from_secs(1);
/// Streams at a time: they last, and others want to be connected too.
const MAX_STREAMS: usize = 32;

/// The log as the control socket sees it.
pub(super) struct LogService {
    dir: PathBuf,
    limits: config::Log,
    owner: PeerId,
    options: Options,
    /// Of authors; those of peers change with the configuration.
    names: Mutex<Arc<Names>>,
    /// Whose logs are taken, as the last configuration says it.
    members: Mutex<Vec<PeerId>>,
    state: watch::Sender<State>,
    streams: Arc<Semaphore>,
    refusals: AtomicU64,
    /// The last write was refused for want of room.
    is_full: AtomicBool,
}

/// How far the log is.
#[derive(Debug, Clone)]
enum State {
    Off,
    Opening,
    Open(Handle, Arc<Report>),
    Failed(Trouble),
    Closed,
}

impl From<Trouble> for Refusal {
    fn from(Trouble { status, code, message }: Trouble) -> Refusal {
        Refusal { status, code, message }
    }
}

impl LogService {
    /// The log of `config`, which begins to be opened.
    pub(super) fn start(config: &Config, identity: Arc<Identity>) -> Arc<LogService> {
        let owner = identity.peer_id();
        let state = if config.log.enabled { State::Opening } else { State::Off };
        let service = Arc::new(LogService {
            dir: log::directory(config),
            limits: config.log.clone(),
            owner,
            options: log::options(config),
            names: Mutex::new(Arc::new(log::names(config, owner))),
            members: Mutex::new(log::members(config)),
            state: watch::Sender::new(state),
            streams: Arc::new(Semaphore::new(MAX_STREAMS)),
            refusals: AtomicU64::new(0),
            is_full: AtomicBool::new(false),
        });
        if config.log.enabled {
            let opener = Arc::clone(&service);
            tokio::task::spawn_blocking(move || opener.open(identity));
        }
        service
    }

    /// Opens the store, which reads all of it, and says what it found.
    fn open(&self, identity: Arc<Identity>) {
        let place = self.dir.display();
        let opened = Handle::open(&self.dir, identity, self.options.clone())
            .map_err(|error| log::cannot_open(&self.dir, &error))
            .and_then(|store| match store.report().wait() {
                Ok(report) => Ok((store, report)),
                Err(error) => Err(log::trouble(&error)),
            });
        let state = match opened {
            Ok((store, report)) => {
                for finding in &report.findings {
                    tracing::warn!("log in {place}: {finding}");
                }
                if report.unlisted > 0 {
                    tracing::warn!("log in {place}: {} further findings, see: vine log verify", report.unlisted);
                }
                tracing::info!(ops = report.ops, files = report.files, "log in {place} is open");
                State::Open(store, Arc::new(report))
            }
            Err(trouble) => {
                tracing::error!("no log: {}", trouble.message);
                State::Failed(trouble)
            }
        };
        self.state.send_if_modified(|current| {
            // The daemon may be on its way out already; then dropping the store closes it.
            let is_wanted = matches!(current, State::Opening);
            if is_wanted {
                *current = state;
            }
            is_wanted
        });
        // They may be others than when it began to be opened.
        self.tell_members();
    }

    /// Finishes what is queued, and closes the store. Requests that come later are told so.
    pub(super) async fn close(&self) {
        let former = self.state.send_replace(State::Closed);
        if let State::Open(store, _) = former
            && let Err(error) = store.close().await
        {
            tracing::error!("closing the log: {}", log::trouble(&error).message);
        }
    }

    /// Takes over what a new configuration says of peers: their names, and whose logs are taken.
    pub(super) fn reload(&self, config: &Config) {
        *self.names.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(log::names(config, self.owner));
        *self.members.lock().unwrap_or_else(PoisonError::into_inner) = log::members(config);
        self.tell_members();
    }

    fn tell_members(&self) {
        // Held, so that of two who tell the later one is heard last.
        let members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        if let State::Open(store, _) = &*self.state.borrow() {
            // Every import from now on comes behind it.
            drop(store.set_members(members.clone()));
        }
    }

    fn names(&self) -> Arc<Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The open store, as soon as it is open.
    async fn store(&self) -> Result<Handle, Refusal> {
        let mut states = self.state.subscribe();
        let settled = states.wait_for(|state| !matches!(state, State::Opening));
        let unavailable = |code, message: String| Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, code, message));
        let Ok(Ok(state)) = tokio::time::timeout(OPENING, settled).await.map(|state| state.map(|state| state.clone()))
        else {
            return unavailable("log_opening", "the log is still being read; try again later".to_owned());
        };
        match state {
            State::Open(store, _) => Ok(store),
            State::Failed(trouble) => Err(trouble.into()),
            State::Off => unavailable(
                "log_off",
                "this node keeps no log: enabled = false in [log]; change that and restart the daemon".to_owned(),
            ),
            State::Opening | State::Closed => Err(log::trouble(&StoreError::Closed).into()),
        }
    }

    /// Counts what is refused.
    fn count(&self, refusal: &Refusal) {
        self.refusals.fetch_add(1, Ordering::Relaxed);
        if refusal.status == StatusCode::INSUFFICIENT_STORAGE && !self.is_full.swap(true, Ordering::Relaxed) {
            tracing::warn!("log: {}", refusal.message);
        }
    }

    /// A write was taken: there is room again.
    fn has_room(&self) {
        if self.is_full.swap(false, Ordering::Relaxed) {
            tracing::info!("log: writes are taken again");
        }
    }

    /// How the log is.
    pub(super) async fn status(&self) -> LogStatus {
        let state = self.state.borrow().clone();
        let mut status = LogStatus {
            state: String::new(),
            error: None,
            dir: self.dir.display().to_string(),
            bytes: None,
            max_bytes: self.limits.max_bytes,
            logs: None,
            ops: None,
            waiting: None,
            syncs: None,
            last_sync_ms: None,
            last_sync_age_s: None,
            view_bytes: None,
            max_view_bytes: self.limits.view_bytes,
            view_is_full: false,
            refusals: self.refusals.load(Ordering::Relaxed),
            findings: Vec::new(),
            unlisted: 0,
        };
        let name = match state {
            State::Off => "off",
            State::Opening => "opening",
            State::Closed => "closed",
            State::Failed(trouble) => {
                status.error = Some(trouble.message);
                "failed"
            }
            State::Open(store, report) => {
                status.findings = report.findings.iter().map(log::finding).collect();
                status.unlisted = report.unlisted;
                self.fill(&mut status, &store).await
            }
        };
        name.clone_into(&mut status.state);
        status
    }

    /// What an open store says of itself; gives the state.
    async fn fill(&self, status: &mut LogStatus, store: &Handle) -> &'static str {
        let told = match tokio::time::timeout(STATUS, store.status()).await {
            Ok(Ok(told)) => told,
            Ok(Err(error)) => {
                status.error = Some(log::trouble(&error).message);
                return "failed";
            }
            Err(_) => {
                status.error = Some("the disk takes its time; nothing more is known at the moment".to_owned());
                return "open";
            }
        };
        let figures = told.figures;
        status.bytes = Some(told.store.bytes);
        status.logs = Some(told.store.logs);
        status.ops = Some(told.store.next_ordinal);
        status.waiting = Some(told.store.waiting);
        status.syncs = Some(figures.syncs);
        status.last_sync_ms = figures.last_sync_at.map(|_| super::report::milliseconds(figures.last_sync));
        status.last_sync_age_s = figures.last_sync_at.map(|at| super::report::seconds(at.elapsed()));
        status.view_bytes = Some(told.view_bytes);
        status.view_is_full = told.view_is_full;
        if let Some(stopped) = &told.store.stopped {
            status.error = Some(log::stopped(stopped));
            return "stopped";
        }
        if self.is_full.load(Ordering::Relaxed) {
            status.error = Some("the last write was refused for want of room".to_owned());
            return "full";
        }
        "open"
    }
}
