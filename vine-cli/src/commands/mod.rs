//! One module a family of commands.

mod config;
mod identity;

use std::path::{Path, PathBuf};

use clap::CommandFactory as _;

use crate::cli::{Cli, Command};
use crate::config::DEFAULT_PATHS;
use crate::output::{Failure, Outcome};

/// Does what the command line says.
pub(crate) fn run(cli: Cli) -> Outcome {
    let Cli { config, format, command } = cli;
    match command {
        Command::Identity(command) => identity::run(command, config, format),
        Command::Config(command) => config::run(command, config, format),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "vine", &mut std::io::stdout().lock());
            Ok(())
        }
        _ => Err(Failure::failed("none", "none")),
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
