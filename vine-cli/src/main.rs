//! `vine`: one binary, one key, one TOML file per machine.
//!
//! A command is one of three kinds. Those about files (`identity`, `config`, `doctor`) read and write them and nothing
//! else. Those that are a node (`up`, `daemon run`, `demo`) drive the engine of `vine-tokio`. All others ask a running
//! daemon over its control socket and show what it answers: nothing live is ever told from the configuration.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.

mod api;
mod cli;
mod client;
mod commands;
mod config;
mod daemon;
mod demo;
mod engine;
mod files;
mod identity_file;
mod log;
mod output;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let format = cli.format;
    match commands::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(format),
    }
}
