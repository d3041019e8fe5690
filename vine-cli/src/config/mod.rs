//! The configuration file: read whole, checked whole, and only then used.
//!
//! [`load`] answers with a [`Config`] in which everything holds that the rest of the program relies on, or with every
//! fault of the file at once ([`Faults`]). Nothing on the host is touched by it.

mod check;
mod fault;
mod read;
mod section;
mod template;
pub(crate) mod value;

use std::fs::File;
use std::io::Read as _;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use toml::de::DeTable;
use vine_core::identity::{Identity, PeerId};
use vine_core::overlay::Prefix;
use vine_core::relay::RelayLimits;
use vine_core::{NetworkId, NetworkKey};
use vine_tokio::Endpoint;

pub(crate) use fault::{FaultReport, Faults};
pub(crate) use template::{Template, template};

/// Where the configuration is looked for when nobody says where it is.
pub(crate) const DEFAULT_PATHS: [&str; 2] = ["vine.toml", "/etc/vine/vine.toml"];
/// Default of `listen`.
pub(crate) const DEFAULT_LISTEN: &str = "udp://0.0.0.0:4100";
/// Default of `state_dir`.
pub(crate) const DEFAULT_STATE_DIR: &str = "/var/lib/vine";
/// Name of the control socket in the state directory, where the configuration names no other.
const DEFAULT_SOCKET: &str = "vine.sock";
/// Default name of the TUN device.
pub(crate) const DEFAULT_TUN_NAME: &str = "vine0";
/// Default MTU inside the tunnel: fits an underlay of 1,500 bytes over IPv6 with room for a relay.
pub(crate) const DEFAULT_MTU: u16 = 1400;
/// A configuration longer than this is something else: as many peers as a node takes fit twice.
const MAX_FILE: u64 = 32 << 20;

/// A configuration in which everything was checked.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// The file, absolute.
    pub(crate) path: PathBuf,
    pub(crate) node: Node,
    pub(crate) tun: Tun,
    pub(crate) peers: Vec<Peer>,
    pub(crate) policy: Policy,
    pub(crate) log: Log,
    /// What is allowed, and yet worth a word.
    pub(crate) warnings: Vec<String>,
}

/// `[node]`.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) network_id: NetworkId,
    pub(crate) network_key: Option<NetworkKey>,
    pub(crate) identity_path: PathBuf,
    pub(crate) listen: Vec<SocketAddr>,
    pub(crate) state_dir: PathBuf,
    pub(crate) control_socket: PathBuf,
}

/// `[tun]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tun {
    pub(crate) name: String,
    /// The device's addresses with their prefix lengths, at least one.
    pub(crate) addresses: Vec<(IpAddr, u8)>,
    pub(crate) mtu: u16,
}

impl Tun {
    /// The prefixes that this node owns: the networks of its addresses, none within another.
    pub(crate) fn own_prefixes(&self) -> Vec<Prefix> {
        let mut prefixes: Vec<Prefix> = self.addresses.iter().map(|(ip, len)| value::network(*ip, *len)).collect();
        prefixes.sort_by_key(|prefix| (prefix.length(), prefix.address()));
        let mut own: Vec<Prefix> = Vec::new();
        for prefix in prefixes {
            if !own.iter().any(|wider| wider.overlaps(&prefix)) {
                own.push(prefix);
            }
        }
        own
    }
}

/// `[[allowed_peers]]`, with what `[[bootstrap_peers]]` says about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) name: String,
    pub(crate) id: PeerId,
    pub(crate) prefixes: Vec<Prefix>,
    pub(crate) relay_capable: bool,
    pub(crate) endpoints: Vec<Endpoint>,
}

/// `[policy]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Policy {
    pub(crate) allow_relay: bool,
    pub(crate) allow_signaling_upgrade: bool,
    /// `[relay]`.
    pub(crate) relay: RelayLimits,
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Log {
    /// Whether there is a log, in the directory `log` of the state directory.
    pub(crate) enabled: bool,
    /// The most bytes that all its files take.
    pub(crate) max_bytes: u64,
    /// The most bytes that the commits of one other machine take.
    pub(crate) author_bytes: u64,
    /// The size of one file, in the long run.
    pub(crate) segment_bytes: u64,
    /// The most memory that the key-value view takes.
    pub(crate) view_bytes: usize,
    /// Bytes of the file system that the log leaves free; `None` for a share of the file system.
    pub(crate) min_free_bytes: Option<u64>,
}

impl Default for Log {
    fn default() -> Self {
        Log {
            enabled: true,
            max_bytes: 4 << 30,
            author_bytes: 1 << 30,
            segment_bytes: 64 << 20,
            view_bytes: 256 << 20,
            min_free_bytes: None,
        }
    }
}

/// The configuration of `path` and the identity that it names.
pub(crate) fn load(path: &Path) -> Result<(Config, Identity), Faults> {
    let (config, identity) = load_with(path, true)?;
    let identity = identity.expect("a configuration without a readable identity has a fault when identities are read");
    Ok((config, identity))
}

/// The configuration of `path` for machines that do not hold the identity. What only the identity can tell is not
/// checked.
pub(crate) fn load_without_identity(path: &Path) -> Result<Config, Faults> {
    load_with(path, false).map(|(config, _)| config)
}

fn load_with(path: &Path, with_identity: bool) -> Result<(Config, Option<Identity>), Faults> {
    let source = Source::read(path)?;
    let mut faults = Faults::new(path, &source.text);
    if source.mode & 0o022 != 0 {
        let who = if source.mode & 0o002 != 0 { "everyone" } else { "its group" };
        let mode = source.mode & 0o7777;
        faults.whole(format!(
            "the file is writable by {who} (mode {mode:04o}), who could change whom this node trusts; run: chmod go-w {}",
            path.display()
        ));
    }
    let (table, errors) = DeTable::parse_recoverable(&source.text);
    let torn = !errors.is_empty();
    for error in errors {
        let end = source.text.len();
        faults.torn(error.span().unwrap_or(end..end), error.message());
    }
    let draft = read::document(&mut faults, table.get_ref(), torn, &directory_of(path));
    let identity = if with_identity { check::identity(&mut faults, &draft) } else { None };
    let config = check::config(&mut faults, draft, path, identity.as_ref().map(Identity::peer_id));
    match config {
        Some(mut config) if faults.is_empty() => {
            if config.node.network_key.is_some() && source.mode & 0o044 != 0 {
                let name = path.display();
                config
                    .warnings
                    .push(format!("{name} holds the network key and others can read it; run: chmod 600 {name}"));
            }
            Ok((config, identity))
        }
        _ => {
            faults.sort();
            Err(faults)
        }
    }
}

/// The control socket that the configuration names, for commands that talk to the daemon. They work with a
/// configuration that has faults elsewhere: it may have been edited since the daemon read it.
pub(crate) fn control_socket(path: &Path) -> Result<PathBuf, Faults> {
    partial(path, |faults, table, base| Some(read::places(faults, table, base).control_socket))
}

/// The identity file that the configuration names, which need not be there yet.
pub(crate) fn identity_path(path: &Path) -> Result<PathBuf, Faults> {
    partial(path, read::identity_path)
}

/// Reads one thing out of a file that may have faults elsewhere.
fn partial<T>(path: &Path, read: impl FnOnce(&mut Faults, &DeTable<'_>, &Path) -> Option<T>) -> Result<T, Faults> {
    let source = Source::read(path)?;
    let mut faults = Faults::new(path, &source.text);
    let (table, errors) = DeTable::parse_recoverable(&source.text);
    if let Some(found) = read(&mut faults, table.get_ref(), &directory_of(path))
        && faults.is_empty()
    {
        return Ok(found);
    }
    for error in errors {
        let end = source.text.len();
        faults.torn(error.span().unwrap_or(end..end), error.message());
    }
    faults.sort();
    Err(faults)
}

/// The directory that relative paths in the file are relative to.
fn directory_of(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    absolute.parent().map_or_else(|| PathBuf::from("/"), Path::to_owned)
}

/// The text of the file and its mode, from one opening.
struct Source {
    text: String,
    mode: u32,
}

impl Source {
    fn read(path: &Path) -> Result<Source, Faults> {
        Source::try_read(path).map_err(|why| {
            let mut faults = Faults::new(path, "");
            faults.whole(why);
            faults
        })
    }

    fn try_read(path: &Path) -> Result<Source, String> {
        let mut file = File::open(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                format!("there is no such file; write one with: vine config init -c {}", path.display())
            }
            _ => format!("cannot be opened: {error}"),
        })?;
        let metadata = file.metadata().map_err(|error| format!("cannot be examined: {error}"))?;
        if !metadata.is_file() {
            return Err("not a file".to_owned());
        }
        if metadata.len() > MAX_FILE {
            return Err(format!("{} bytes are too many for a configuration", metadata.len()));
        }
        let mut bytes = Vec::new();
        file.by_ref().take(MAX_FILE).read_to_end(&mut bytes).map_err(|error| format!("cannot be read: {error}"))?;
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Source { text, mode: metadata.mode() }),
            Err(error) => {
                let valid = error.utf8_error().valid_up_to();
                let line = error.as_bytes().iter().take(valid).filter(|byte| **byte == b'\n').count() + 1;
                Err(format!("line {line} is not UTF-8 text"))
            }
        }
    }
}

#[cfg(test)]
mod tests;
