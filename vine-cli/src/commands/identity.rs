//! `vine identity`.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use vine_core::identity::{Identity, PeerId};

use super::config_path;
use crate::cli::{IdentityCommand, IdentityPlace};
use crate::config;
use crate::identity_file;
use crate::output::{self, Failure, Format, Outcome};

/// What may be known about an identity.
#[derive(Serialize)]
struct PublicIdentity {
    peer_id: String,
    fingerprint: String,
    public_key: String,
}

impl From<PeerId> for PublicIdentity {
    fn from(id: PeerId) -> Self {
        PublicIdentity {
            peer_id: id.to_string(),
            fingerprint: id.fingerprint().to_string(),
            public_key: id.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }
}

pub(super) fn run(command: IdentityCommand, config: Option<PathBuf>, format: Format) -> Outcome {
    match command {
        IdentityCommand::Init { place, force } => {
            let path = identity_path(place, config)?;
            let identity = init(&path, force)?;
            if format == Format::Text {
                output::line(format_args!("wrote {} (keep it secret, and keep a copy)", path.display()));
            }
            show(identity.peer_id(), format);
        }
        IdentityCommand::Show(place) => show(load(place, config)?.peer_id(), format),
        IdentityCommand::ExportPublic(place) => {
            let id = load(place, config)?.peer_id();
            one(id, &id.to_string(), format);
        }
        IdentityCommand::Fingerprint(place) => {
            let id = load(place, config)?.peer_id();
            one(id, &id.fingerprint().to_string(), format);
        }
    }
    Ok(())
}

fn init(path: &Path, force: bool) -> Outcome<Identity> {
    if let Some(parent) = path.parent().filter(|parent| *parent != Path::new("")) {
        // What lies beside an identity is nobody else's business either.
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(|error| {
            Failure::usage("identity", format!("directory {} cannot be created: {error}", parent.display()))
        })?;
    }
    Ok(identity_file::create(path, force)?)
}

fn load(place: IdentityPlace, config: Option<PathBuf>) -> Outcome<Identity> {
    Ok(identity_file::load(&identity_path(place, config)?)?)
}

fn identity_path(place: IdentityPlace, config: Option<PathBuf>) -> Outcome<PathBuf> {
    match place.path {
        Some(path) => Ok(path),
        None => Ok(config::identity_path(&config_path(config)?)?),
    }
}

fn show(id: PeerId, format: Format) {
    let public = PublicIdentity::from(id);
    match format {
        Format::Json => output::json(&public),
        Format::Text => {
            output::line(format_args!("peer id      {}", public.peer_id));
            output::line(format_args!("fingerprint  {}", public.fingerprint));
            output::line(format_args!("public key   {}", public.public_key));
        }
    }
}

fn one(id: PeerId, text: &str, format: Format) {
    match format {
        Format::Json => output::json(&PublicIdentity::from(id)),
        Format::Text => output::line(text),
    }
}
