//! One module a family of commands.

mod config;
mod daemon;
mod doctor;
mod identity;
mod inspect;
mod kv;
mod live;
mod log;
mod transfer;

use std::path::{Path, PathBuf};

use clap::CommandFactory as _;
use tokio::runtime::Runtime;

use crate::cli::{Cli, Command, DaemonCommand, RunArgs};
use crate::client::Client;
use crate::config::DEFAULT_PATHS;
use crate::output::{self, Failure, Outcome};

/// Does what the command line says.
pub(crate) fn run(cli: Cli) -> Outcome {
    let Cli { config, format, command } = cli;
    match command {
        Command::Identity(command) => identity::run(command, config, format),
        Command::Config(command) => config::run(command, config, format),
        Command::Doctor => doctor::run(config, format),
        Command::Up => crate::daemon::run(&config_path(config)?, RunArgs::default()),
        Command::Down => daemon::stop(config, format),
        Command::Daemon(command) => match command {
            DaemonCommand::Run(args) => crate::daemon::run(&config_path(config)?, args),
            DaemonCommand::Start => daemon::start(config, format),
            DaemonCommand::Stop => daemon::stop(config, format),
            DaemonCommand::Status => daemon::status(config, format),
            DaemonCommand::Reload => daemon::reload(config, format),
        },
        Command::Status => live::status(config, format),
        Command::Peers => live::peers(config, format),
        Command::Routes => live::routes(config, format),
        Command::Sessions(args) => live::sessions(&args, config, format),
        Command::Counters => live::counters(config, format),
        Command::Snapshot => live::snapshot(config),
        Command::Why { target } => inspect::why(target, config, format),
        Command::Netcheck => inspect::netcheck(config, format),
        Command::Ping(args) => live::ping(&args, config, format),
        Command::Log(command) => log::run(command, config, format),
        Command::Kv(command) => kv::run(command, config, format),
        Command::Demo(args) => crate::demo::run(&args, format),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "vine", &mut script);
            output::line(String::from_utf8_lossy(&script).trim_end());
            Ok(())
        }
    }
}

/// The configuration file that is meant: the one that was named, or the first default one that is there.
fn config_path(named: Option<PathBuf>) -> Outcome<PathBuf> {
    if let Some(path) = named {
        return Ok(path);
    }
    let found = DEFAULT_PATHS.iter().map(Path::new).find(|path| path.exists());
    found.map(Path::to_owned).ok_or_else(|| {
        let [here, system] = DEFAULT_PATHS;
        let message = format!(
            "no configuration: neither ./{here} nor {system} exists; name one with -c PATH, or write one with: vine config init"
        );
        Failure::usage("no_configuration", message)
    })
}

/// A client of the daemon of the configuration that is meant.
fn client(named: Option<PathBuf>) -> Outcome<Client> {
    let path = config_path(named)?;
    Ok(Client::new(&crate::config::control_socket(&path)?))
}

/// One thread is enough for asking and waiting.
fn runtime() -> Outcome<Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed("io", format!("cannot start the event loop: {error}")))
}
