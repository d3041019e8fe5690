//! `vine daemon`, `vine down`: the daemon's life as seen from outside.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::{client, config_path, runtime};
use crate::api::{Daemon, Reloaded};
use crate::client::{Client, ClientError};
use crate::config;
use crate::output::{self, Failure, Format, Outcome};

/// How often a daemon that is starting or stopping is looked at.
const POLL: Duration = Duration::from_millis(20);
/// How long a daemon may take to be ready.
const START_PATIENCE: Duration = Duration::from_secs(15);
/// How long a daemon may take to say goodbye and take back what it installed.
const STOP_PATIENCE: Duration = Duration::from_secs(15);
/// Name of the detached daemon's log in the state directory.
const LOG_FILE: &str = "vine.log";

pub(super) fn start(named: Option<PathBuf>, format: Format) -> Outcome {
    let path = absolute(&config_path(named)?);
    // Faults are reported here, where the person is, and not into a log.
    let (config, _) = config::load(&path)?;
    let client = Client::new(&config.node.control_socket);
    let runtime = runtime()?;
    if let Ok(daemon) = runtime.block_on(client.get::<Daemon>("/v1/daemon")) {
        let message = format!("vine is already running (pid {}) for this configuration", daemon.pid);
        return Err(Failure::failed("already_running", message));
    }
    let log = config.node.state_dir.join(LOG_FILE);
    let mut child = spawn(&path, &log)?;
    let daemon = runtime.block_on(ready(&mut child, &client, &log))?;
    match format {
        Format::Json => output::json(&daemon),
        Format::Text => {
            output::line(format_args!("vine is running (pid {}), its log is {}", daemon.pid, log.display()))
        }
    }
    Ok(())
}

fn spawn(path: &Path, log: &Path) -> Outcome<Child> {
    let program =
        std::env::current_exe().map_err(|error| Failure::failed("io", format!("cannot find vine: {error}")))?;
    Command::new(program)
        .args(["daemon", "run", "--config"])
        .arg(path)
        .arg("--detached")
        .arg(log)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        // Until it is ready, the daemon says here what is wrong.
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| Failure::failed("io", format!("cannot start the daemon: {error}")))
}

/// Waits until the daemon answers, or reports why it ended instead.
async fn ready(child: &mut Child, client: &Client, log: &Path) -> Outcome<Daemon> {
    let patience = Instant::now() + START_PATIENCE;
    loop {
        if let Ok(daemon) = client.get::<Daemon>("/v1/daemon").await
            && daemon.pid == child.id()
        {
            return Ok(daemon);
        }
        match child.try_wait() {
            Ok(Some(status)) => return Err(ended(child, status, log)),
            Ok(None) if Instant::now() < patience => sleep(POLL).await,
            Ok(None) => {
                // It may still come up; a daemon that nobody waits for any more would surprise.
                let _ = child.kill();
                let message =
                    format!("the daemon was not ready within {} s; see {}", START_PATIENCE.as_secs(), log.display());
                return Err(Failure::failed("timeout", message));
            }
            Err(error) => return Err(Failure::failed("io", format!("cannot watch the daemon: {error}"))),
        }
    }
}

fn ended(child: &mut Child, status: ExitStatus, log: &Path) -> Failure {
    let mut said = String::new();
    if let Some(stderr) = child.stderr.as_mut() {
        let _ = stderr.read_to_string(&mut said);
    }
    let said = said.trim().trim_start_matches("vine: ");
    let message = if said.is_empty() {
        format!("the daemon ended at once ({status}); see {}", log.display())
    } else {
        said.to_owned()
    };
    match status.code() {
        Some(2) => Failure::usage("configuration", message),
        _ => Failure::failed("not_started", message),
    }
}

pub(super) fn stop(named: Option<PathBuf>, format: Format) -> Outcome {
    let client = client(named)?;
    let daemon = runtime()?.block_on(stop_and_wait(&client))?;
    match format {
        Format::Json => output::json(&daemon),
        Format::Text => output::line(format_args!("vine has stopped (pid {})", daemon.pid)),
    }
    Ok(())
}

async fn stop_and_wait(client: &Client) -> Outcome<Daemon> {
    let daemon: Daemon = client.post("/v1/stop", &(), Duration::ZERO).await?;
    let patience = Instant::now() + STOP_PATIENCE;
    // The socket goes after everything else: once nobody answers, nothing is left.
    while client.is_alive().await {
        if Instant::now() > patience {
            let message = format!("the daemon (pid {}) is still there after {} s", daemon.pid, STOP_PATIENCE.as_secs());
            return Err(Failure::failed("timeout", message));
        }
        sleep(POLL).await;
    }
    Ok(daemon)
}

#[derive(Serialize)]
struct DaemonState<'a> {
    running: bool,
    socket: &'a Path,
    #[serde(flatten)]
    daemon: Option<&'a Daemon>,
}

pub(super) fn status(named: Option<PathBuf>, format: Format) -> Outcome {
    let client = client(named)?;
    let answer = runtime()?.block_on(client.get::<Daemon>("/v1/daemon"));
    let daemon = match answer {
        Ok(daemon) => daemon,
        Err(error @ ClientError::NotRunning(_)) if format == Format::Json => {
            output::json(&DaemonState { running: false, socket: client.socket(), daemon: None });
            return Err(Failure::from(error).said());
        }
        Err(error) => return Err(error.into()),
    };
    match format {
        Format::Json => output::json(&DaemonState { running: true, socket: client.socket(), daemon: Some(&daemon) }),
        Format::Text => {
            output::line(format_args!(
                "vine {} is {} (pid {}) for {}",
                daemon.version,
                daemon.phase.name(),
                daemon.pid,
                output::seconds(daemon.uptime_s)
            ));
            output::line(format_args!("config  {}", daemon.config));
            output::line(format_args!("tun     {}", daemon.tun));
            output::line(format_args!("listen  {}", daemon.listen.join(", ")));
            output::line(format_args!("socket  {}", client.socket().display()));
        }
    }
    Ok(())
}

pub(super) fn reload(named: Option<PathBuf>, format: Format) -> Outcome {
    let client = client(named)?;
    let reloaded: Reloaded = runtime()?.block_on(client.post("/v1/reload", &(), Duration::ZERO))?;
    match format {
        Format::Json => output::json(&reloaded),
        Format::Text => output::line(&reloaded),
    }
    Ok(())
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
