//! The log of one configuration, as the daemon has it open and as commands read it where there is no daemon.

mod error;
mod item;
mod verify;

use std::collections::BTreeMap;
use std::path::PathBuf;

use vine_core::PeerId;
use vine_store::Options;

use crate::config::Config;

pub(crate) use error::{Trouble, cannot_open, import_failed, not_written, stopped, trouble};
pub(crate) use item::{damaged, finding, imported, left_out, op, position};
pub(crate) use verify::verified;

/// Name of the log's directory in the state directory.
const DIRECTORY: &str = "log";

/// Names by peer id: this node's own and those of its peers.
pub(crate) type Names = BTreeMap<PeerId, String>;

/// Where the log lies.
pub(crate) fn directory(config: &Config) -> PathBuf {
    config.node.state_dir.join(DIRECTORY)
}

/// What the store is opened with.
pub(crate) fn options(config: &Config) -> Options {
    let log = &config.log;
    let mut options = Options::new(config.node.network_id.clone());
    options.members = members(config);
    options.segment_bytes = log.segment_bytes;
    options.max_bytes = log.max_bytes;
    options.author_bytes = log.author_bytes;
    options.view_bytes = log.view_bytes;
    options.reserve = log.min_free_bytes;
    options
}

/// Whose logs are taken.
pub(crate) fn members(config: &Config) -> Vec<PeerId> {
    config.peers.iter().map(|peer| peer.id).collect()
}

/// The names that the configuration gives.
pub(crate) fn names(config: &Config, own: PeerId) -> Names {
    let peers = config.peers.iter().map(|peer| (peer.id, peer.name.clone()));
    peers.chain([(own, config.node.name.clone())]).collect()
}
