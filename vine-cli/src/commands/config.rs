//! `vine config`.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::config_path;
use crate::cli::{ConfigCommand, ConfigInitArgs};
use crate::config::{self, DEFAULT_PATHS, Template, value};
use crate::files::{self, Existing};
use crate::output::{self, Failure, Format, Outcome};

pub(super) fn run(command: ConfigCommand, path: Option<PathBuf>, format: Format) -> Outcome {
    match command {
        ConfigCommand::Init(args) => init(&args, path.unwrap_or_else(|| PathBuf::from(DEFAULT_PATHS[0])), format),
        ConfigCommand::Validate { without_identity } => validate(&config_path(path)?, without_identity, format),
    }
}

#[derive(Serialize)]
struct Written<'a> {
    path: &'a Path,
}

fn init(args: &ConfigInitArgs, path: PathBuf, format: Format) -> Outcome {
    let usage = |what: &'static str| move |why: String| Failure::usage("usage", format!("--{what}: {why}"));
    let name = match &args.name {
        Some(name) => value::name(name).map_err(usage("name"))?,
        None => host_name(),
    };
    let (address, prefix_len) = value::interface_address(&args.address).map_err(usage("address"))?;
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let text = config::template(&Template {
        name: &name,
        network_id: &args.network_id,
        identity_path: &absolute(&args.identity_path),
        state_dir: &absolute(&args.state_dir),
        address: &address.to_string(),
        prefix_len,
    });
    let existing = if args.force { Existing::Replace } else { Existing::Keep };
    let shown = path.display();
    // Not readable by others from the start: a network key may be put into it.
    files::write_atomically(&path, 0o600, existing, |file| file.write_all(text.as_bytes())).map_err(|error| {
        if error.kind() == std::io::ErrorKind::AlreadyExists {
            return Failure::usage("exists", format!("{shown} exists already and was left alone; --force replaces it"));
        }
        Failure::usage("configuration", format!("{shown} cannot be written: {error}"))
    })?;
    match format {
        Format::Json => output::json(&Written { path: &path }),
        Format::Text => {
            output::line(format_args!("wrote {shown}"));
            if !args.identity_path.exists() {
                output::line(format_args!("next: vine identity init --path {}", args.identity_path.display()));
            }
            output::line(format_args!(
                "then: add your peers to {shown}, and check it with: vine config validate -c {shown}"
            ));
        }
    }
    Ok(())
}

/// The host name where it can be a node's name.
fn host_name() -> String {
    let uname = rustix::system::uname();
    let short = uname.nodename().to_str().unwrap_or_default().split('.').next().unwrap_or_default();
    value::name(short).unwrap_or_else(|_| "alpha".to_owned())
}

#[derive(Serialize)]
struct Valid<'a> {
    path: &'a Path,
    valid: bool,
    peers: usize,
    warnings: &'a [String],
}

fn validate(path: &Path, without_identity: bool, format: Format) -> Outcome {
    let config = if without_identity { config::load_without_identity(path)? } else { config::load(path)?.0 };
    match format {
        Format::Json => {
            output::json(&Valid { path, valid: true, peers: config.peers.len(), warnings: &config.warnings });
        }
        Format::Text => {
            for warning in &config.warnings {
                output::remark(format_args!("warning: {warning}"));
            }
            let peers = output::count(config.peers.len(), "peer");
            output::line(format_args!(
                "{} is valid: node {} of network {}, {peers}",
                path.display(),
                config.node.name,
                config.node.network_id.as_str()
            ));
        }
    }
    Ok(())
}
