//! What the doctor says of the log.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::Access;
use vine_core::PeerId;
use vine_store::{Handle, Options, Room, room};

use super::{Check, directory, runtime};
use crate::api::LogStatus;
use crate::client::Client;
use crate::config::Config;
use crate::log;
use crate::output::{self, Outcome};

/// Where the daemon runs it is asked; else the log is opened as it would be, but for reading.
pub(super) fn checks(config: &Config, owner: PeerId, is_running: bool) -> Outcome<Vec<Check>> {
    if !config.log.enabled {
        return Ok(vec![Check::ok("log", "none is kept: enabled = false in [log]")]);
    }
    let (dir, options) = (log::directory(config), log::options(config));
    if !dir.exists() {
        return Ok(vec![directory("log", "state_dir", &dir)]);
    }
    let found = if is_running {
        let client = Client::new(&config.node.control_socket);
        match runtime()?.block_on(client.get::<LogStatus>("/v1/log")) {
            Ok(status) => told(&status),
            Err(error) => Check::warn("log", error.to_string(), "run the doctor as the user that runs the daemon"),
        }
    } else {
        opened(&dir, owner, options.clone())
    };
    Ok(vec![files(&dir), space(&dir, &options), found])
}

/// What the daemon says of it.
fn told(status: &LogStatus) -> Check {
    let error = status.error.as_deref().unwrap_or("nothing more is known");
    let lost: Vec<&str> =
        status.findings.iter().filter(|finding| finding.lost).map(|finding| finding.message.as_str()).collect();
    match status.state.as_str() {
        "failed" | "stopped" => broken(error),
        "full" => Check::warn("log", error, "free some space, or raise max_bytes in [log]"),
        "open" => held(&lost, status.unlisted, status.ops.unwrap_or_default(), status.bytes.unwrap_or_default()),
        state => Check::ok("log", format!("{} is {state}", status.dir)),
    }
}

/// What an opening finds.
fn opened(dir: &Path, owner: PeerId, options: Options) -> Check {
    let opened = Handle::open_read_only(dir, owner, options).map_err(|error| log::cannot_open(dir, &error));
    let report = opened.and_then(|store| store.report().wait().map_err(|error| log::trouble(&error)));
    match report {
        Ok(report) => {
            let lost = report.findings.iter().filter(|finding| finding.damage.is_loss());
            let lost: Vec<String> = lost.map(ToString::to_string).collect();
            let lost: Vec<&str> = lost.iter().map(String::as_str).collect();
            held(&lost, report.unlisted, report.ops, report.bytes)
        }
        Err(trouble) => broken(&trouble.message),
    }
}

fn held(lost: &[&str], unlisted: u64, ops: u64, bytes: u64) -> Check {
    let holds = format!("{} in {}", output::count_of(ops, "op"), output::bytes(bytes));
    match lost.first() {
        None => Check::ok("log", holds),
        Some(first) => {
            let all = output::count_of(lost.len() as u64 + unlisted, "finding");
            Check::warn("log", format!("damaged ({all}): {first}"), "see all of it with: vine log verify")
        }
    }
}

/// The messages of the log end with what to do.
fn broken(message: &str) -> Check {
    let (what, cure) = message.split_once("; ").unwrap_or((message, "see: vine status, vine log verify"));
    Check::fail("log", what, cure)
}

/// Whether this user can work with the files, and nobody else.
fn files(dir: &Path) -> Check {
    const NAME: &str = "log files";
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries.filter_map(Result::ok).map(|entry| entry.path()),
        Err(error) => return Check::fail(NAME, format!("{}: {error}", dir.display()), "run vine as root"),
    };
    let is_ours = |path: &Path| path.extension().is_some_and(|name| name == "seg") || path.ends_with("lock");
    let mut open = Vec::new();
    for path in entries.filter(|path| is_ours(path)).chain([dir.to_owned()]) {
        let wanted = if path == dir { Access::WRITE_OK | Access::EXEC_OK } else { Access::WRITE_OK };
        if rustix::fs::access(&path, wanted | Access::READ_OK).is_err() {
            let message = format!("{} cannot be read and written by this user", path.display());
            return Check::fail(
                NAME,
                message,
                format!("run vine as root, or look at the owner: ls -l {}", dir.display()),
            );
        }
        if fs::metadata(&path).is_ok_and(|metadata| metadata.mode() & 0o077 != 0) {
            open.push(path);
        }
    }
    match open.first() {
        None => Check::ok(NAME, format!("{} can be read and written, by its owner only", dir.display())),
        Some(first) => {
            let message = format!("others may look into {}", first.display());
            Check::warn(NAME, message, format!("chmod -R go= {}", dir.display()))
        }
    }
}

/// Whether the next file has room.
fn space(dir: &Path, options: &Options) -> Check {
    const NAME: &str = "log space";
    let Room { free, reserve } = match room(dir, options.reserve) {
        Ok(room) => room,
        Err(error) => return Check::warn(NAME, error.to_string(), "look at the file system"),
    };
    let message = format!("{} free, of which {} stay free", output::bytes(free), output::bytes(reserve));
    let cure = "free some space, or set min_free_bytes in [log]";
    match free.checked_sub(reserve) {
        None => Check::warn(NAME, format!("{message}: no further file is begun, and then writes are refused"), cure),
        Some(room) if room < options.segment_bytes => {
            Check::warn(NAME, format!("{message}: that is less than one more file takes"), cure)
        }
        Some(_) => Check::ok(NAME, message),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::Arc;

    use bytes::Bytes;
    use vine_core::{Identity, NetworkId};

    use super::super::Verdict;
    use super::*;

    fn options() -> Options {
        Options { reserve: Some(0), segment_bytes: 1 << 20, ..Options::new(NetworkId::new("test").unwrap()) }
    }

    fn identity(seed: u8) -> Arc<Identity> {
        Arc::new(Identity::from_seed([seed; 32]))
    }

    /// A log of some ops.
    fn written(dir: &Path) -> Handle {
        let store = Handle::open(dir, identity(7), options()).unwrap();
        for n in 0..10 {
            store.append(vec![Bytes::from(format!("op {n}"))]).wait().unwrap();
        }
        store
    }

    #[test]
    fn a_log_is_well_or_in_use_or_foreign_or_damaged() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("log");
        let store = written(&dir);
        let look = |seed| opened(&dir, identity(seed).peer_id(), options());
        let in_use = look(7);
        assert_eq!(in_use.result, Verdict::Fail);
        assert!(in_use.message.contains("in use by process"), "{in_use:?}");
        store.close().wait().unwrap();
        let well = look(7);
        assert_eq!((well.result, well.message.contains("10 ops")), (Verdict::Ok, true), "{well:?}");
        let foreign = look(8);
        assert_eq!(foreign.result, Verdict::Fail);
        assert!(foreign.cure.unwrap().contains("identity_path"));

        let segment = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path());
        let segment = segment.filter(|path| path.extension().is_some()).min().unwrap();
        let mut bytes = fs::read(&segment).unwrap();
        let at = bytes.windows(4).position(|window| window == b"op 3").unwrap();
        bytes[at] ^= 1;
        fs::write(&segment, bytes).unwrap();
        let damaged = look(7);
        assert_eq!(damaged.result, Verdict::Warn);
        assert!(damaged.message.contains("damaged (1 finding)"), "{damaged:?}");
    }

    #[test]
    fn files_are_private_and_have_room() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("log");
        let _store = written(&dir);
        assert_eq!(files(&dir).result, Verdict::Ok);
        fs::set_permissions(&dir, Permissions::from_mode(0o755)).unwrap();
        assert_eq!(files(&dir).result, Verdict::Warn);
        assert_eq!(space(&dir, &options()).result, Verdict::Ok);
        for all in [Options { reserve: Some(u64::MAX), ..options() }, Options { segment_bytes: u64::MAX, ..options() }]
        {
            assert_eq!(space(&dir, &all).result, Verdict::Warn);
        }
    }
}
