//! `vine doctor`: what stands between this machine and a running node, and what to do about it.

mod log;

use std::fs::{self, OpenOptions};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};

use rustix::fs::Access;
use serde::Serialize;
use vine_core::PeerId;

use super::{config_path, runtime};
use crate::api::Daemon;
use crate::client::{Client, ClientError};
use crate::config::{self, Config};
use crate::output::{self, Failure, Format, Outcome, Table, Tone};

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    /// The node runs, but not as well as it could.
    Warn,
    /// The node, or its log, does not run.
    Fail,
}

/// One line of the report.
#[derive(Debug, Serialize)]
struct Check {
    check: &'static str,
    result: Verdict,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    cure: Option<String>,
}

impl Check {
    fn ok(check: &'static str, message: impl Into<String>) -> Check {
        Check { check, result: Verdict::Ok, message: message.into(), cure: None }
    }

    fn warn(check: &'static str, message: impl Into<String>, cure: impl Into<String>) -> Check {
        Check { check, result: Verdict::Warn, message: message.into(), cure: Some(cure.into()) }
    }

    fn fail(check: &'static str, message: impl Into<String>, cure: impl Into<String>) -> Check {
        Check { result: Verdict::Fail, ..Check::warn(check, message, cure) }
    }
}

pub(super) fn run(path: Option<PathBuf>, format: Format) -> Outcome {
    let checks = all_checks(path)?;
    let failed = checks.iter().filter(|check| check.result == Verdict::Fail).count();
    match format {
        Format::Json => output::json(&checks),
        Format::Text => output::line(render(&checks, output::colour())),
    }
    match failed {
        0 => Ok(()),
        _ => Err(Failure::failed("doctor", format!("{} failed", output::count(failed, "check"))).said()),
    }
}

fn render(checks: &[Check], colour: bool) -> String {
    let mut table = Table::new(&["", "CHECK", "FOUND"]);
    for check in checks {
        let (word, tone) = match check.result {
            Verdict::Ok => ("ok", Tone::Good),
            Verdict::Warn => ("warn", Tone::Warn),
            Verdict::Fail => ("fail", Tone::Bad),
        };
        table.row([
            (word.to_owned(), tone),
            (check.check.to_owned(), Tone::Plain),
            (check.message.clone(), Tone::Plain),
        ]);
        if let Some(cure) = &check.cure {
            table.row([
                (String::new(), Tone::Plain),
                (String::new(), Tone::Plain),
                (format!("-> {cure}"), Tone::Faint),
            ]);
        }
    }
    table.render(colour)
}

fn all_checks(path: Option<PathBuf>) -> Outcome<Vec<Check>> {
    let mut checks = Vec::new();
    let loaded = match config_path(path) {
        Ok(path) => configuration(&path, &mut checks),
        Err(failure) => {
            checks.push(Check::fail("configuration", failure.message(), "vine config init"));
            None
        }
    };
    let (config, owner) = loaded.unzip();
    let daemon = match &config {
        Some(config) => daemon(config, &mut checks)?,
        None => None,
    };
    checks.push(tun_device());
    checks.push(net_admin());
    if let Some(config) = &config {
        if daemon.is_none() {
            checks.extend(config.node.listen.iter().map(|address| port(*address)));
            checks.push(interface_name(&config.tun.name));
        }
        checks.push(directory("state directory", "state_dir", &config.node.state_dir));
        if let Some(parent) = config.node.control_socket.parent().filter(|parent| *parent != config.node.state_dir) {
            checks.push(directory("control socket", "control_socket", parent));
        }
        if let Some(owner) = owner {
            checks.extend(log::checks(config, owner, daemon.is_some())?);
        }
    }
    checks.push(offloads());
    checks.push(socket_buffers());
    checks.push(aes());
    Ok(checks)
}

fn configuration(path: &Path, checks: &mut Vec<Check>) -> Option<(Config, PeerId)> {
    let loaded = match config::load(path) {
        Ok((config, identity)) => {
            checks
                .push(Check::ok("configuration", format!("{} is valid, {} peers", path.display(), config.peers.len())));
            checks.push(Check::ok(
                "identity",
                format!("{} holds {}", config.node.identity_path.display(), identity.peer_id()),
            ));
            (config, identity.peer_id())
        }
        Err(faults) => {
            let message = faults.to_string();
            let cure = format!("mend {} and check it with: vine config validate", path.display());
            // Each fault takes several lines; the first of each is enough for a table.
            let first: Vec<&str> =
                message.lines().filter(|line| line.starts_with(&path.display().to_string())).collect();
            checks.push(Check::fail("configuration", first.join("; "), cure));
            return None;
        }
    };
    for warning in &loaded.0.warnings {
        checks.push(Check::warn("configuration", warning, "see the message"));
    }
    Some(loaded)
}

fn daemon(config: &Config, checks: &mut Vec<Check>) -> Outcome<Option<Daemon>> {
    let client = Client::new(&config.node.control_socket);
    match runtime()?.block_on(client.get::<Daemon>("/v1/daemon")) {
        Ok(daemon) => {
            let up = output::seconds(daemon.uptime_s);
            checks.push(Check::ok(
                "daemon",
                format!("running (pid {}) for {up}, version {}", daemon.pid, daemon.version),
            ));
            Ok(Some(daemon))
        }
        Err(ClientError::NotRunning(_)) => {
            checks.push(Check::ok("daemon", "not running"));
            Ok(None)
        }
        Err(error) => {
            checks.push(Check::warn("daemon", error.to_string(), "run the doctor as the user that runs the daemon"));
            Ok(None)
        }
    }
}

fn tun_device() -> Check {
    const NODE: &str = "/dev/net/tun";
    match OpenOptions::new().read(true).write(true).open(NODE) {
        Ok(_) => Check::ok("tun device", format!("{NODE} can be opened")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Check::fail(
            "tun device",
            format!("{NODE} does not exist"),
            "modprobe tun; in a container, pass --device /dev/net/tun",
        ),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Check::fail("tun device", format!("{NODE}: {error}"), "run vine as root")
        }
        Err(error) => Check::fail("tun device", format!("{NODE}: {error}"), "modprobe tun"),
    }
}

/// Bit of `CAP_NET_ADMIN` in the capability sets (`capabilities(7)`).
const CAP_NET_ADMIN: u32 = 12;

fn net_admin() -> Check {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    match effective.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()) {
        Some(set) if set >> CAP_NET_ADMIN & 1 == 1 => Check::ok("privileges", "CAP_NET_ADMIN is held"),
        Some(_) => Check::fail(
            "privileges",
            "CAP_NET_ADMIN is missing; interfaces, addresses and routes cannot be changed",
            "run vine as root, or give the binary the right: setcap cap_net_admin+ep $(command -v vine)",
        ),
        None => Check::warn("privileges", "/proc/self/status does not say which capabilities are held", "mount /proc"),
    }
}

fn port(address: SocketAddr) -> Check {
    match UdpSocket::bind(address) {
        Ok(_) => Check::ok("port", format!("udp://{address} is free")),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let cure =
                format!("see who has it with: ss -lunp 'sport = :{}'; or listen on another port", address.port());
            Check::fail("port", format!("udp://{address} is in use"), cure)
        }
        Err(error) => {
            Check::fail("port", format!("udp://{address} cannot be listened on: {error}"), "mend `listen` in [node]")
        }
    }
}

fn interface_name(name: &str) -> Check {
    if Path::new("/sys/class/net").join(name).exists() {
        let cure = format!("stop what made it, or set another `name` in [tun]; ip link show {name} tells more");
        return Check::fail("interface", format!("there is an interface {name} already"), cure);
    }
    Check::ok("interface", format!("the name {name} is free"))
}

/// The directory, or the nearest one above it that exists, has to be writable.
fn directory(check: &'static str, key: &str, path: &Path) -> Check {
    let Some(existing) = path.ancestors().find(|ancestor| ancestor.exists()) else {
        return Check::fail(check, format!("no part of {} exists", path.display()), format!("set `{key}` in [node]"));
    };
    if rustix::fs::access(existing, Access::WRITE_OK | Access::EXEC_OK).is_err() {
        let message = format!("{} cannot be written by this user", existing.display());
        return Check::fail(check, message, format!("run vine as root, or set another `{key}` in [node]"));
    }
    let later = if existing == path { "is writable" } else { "will be created" };
    Check::ok(check, format!("{} {later}", path.display()))
}

/// Major and minor version of the kernel.
fn kernel() -> Option<(u32, u32)> {
    let uname = rustix::system::uname();
    let mut numbers = uname.release().to_str().ok()?.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn offloads() -> Check {
    // First kernels with UDP_SEGMENT, with UDP_GRO, and with TUN_F_USO4: see udp(7) and linux/if_tun.h.
    let features = [((4, 18), "UDP GSO"), ((5, 0), "UDP GRO"), ((6, 2), "TUN USO")];
    let Some(version) = kernel() else {
        return Check::warn(
            "offloads",
            "the kernel's version cannot be read",
            "none needed: vine tries and falls back",
        );
    };
    let (has, lacks): (Vec<_>, Vec<_>) = features.iter().partition(|(since, _)| version >= *since);
    let names = |list: &[&((u32, u32), &str)]| list.iter().map(|(_, name)| *name).collect::<Vec<_>>().join(", ");
    let release = format!("kernel {}.{}", version.0, version.1);
    if lacks.is_empty() {
        return Check::ok("offloads", format!("{release} has {}", names(&has)));
    }
    Check::warn("offloads", format!("{release} lacks {}", names(&lacks)), "a newer kernel moves more packets a second")
}

/// Socket buffers below this lose packets in bursts at a gigabit: 4 MiB are 30 ms.
const WANTED_BUFFER: u64 = 4 << 20;

fn socket_buffers() -> Check {
    let limit = |name: &str| -> Option<u64> {
        fs::read_to_string(format!("/proc/sys/net/core/{name}")).ok()?.trim().parse().ok()
    };
    // Root is not bound by the limits (SO_RCVBUFFORCE).
    if rustix::process::geteuid().is_root() {
        return Check::ok("socket buffers", "privileged: as large as they need to be");
    }
    let (Some(receive), Some(send)) = (limit("rmem_max"), limit("wmem_max")) else {
        return Check::ok("socket buffers", "the limits cannot be read");
    };
    let least = receive.min(send);
    if least >= WANTED_BUFFER {
        return Check::ok("socket buffers", format!("up to {}", output::bytes(least)));
    }
    let cure = format!("sysctl -w net.core.rmem_max={WANTED_BUFFER} net.core.wmem_max={WANTED_BUFFER}");
    Check::warn("socket buffers", format!("limited to {}", output::bytes(least)), cure)
}

fn aes() -> Check {
    let message = if vine_tokio::aes_is_fast() {
        "the processor has AES instructions: AES-256-GCM where the peer has them too"
    } else {
        "the processor has no AES instructions: ChaCha20-Poly1305 is used"
    };
    Check::ok("cipher", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_and_interface_are_seen() {
        let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        assert_eq!(port(address).result, Verdict::Fail);
        drop(taken);
        assert_eq!(port(address).result, Verdict::Ok);
        assert_eq!(interface_name("lo").result, Verdict::Fail);
        assert_eq!(interface_name("no-such-if").result, Verdict::Ok);
    }

    #[test]
    fn a_directory_that_will_be_created_is_fine_where_it_can_be() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(directory("d", "state_dir", &dir.path().join("a/b")).result, Verdict::Ok);
    }

    #[test]
    fn failures_have_a_cure() {
        let check = Check::fail("port", "taken", "free it");
        assert!(render(&[check], false).contains("-> free it"));
    }
}
