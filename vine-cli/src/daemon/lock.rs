//! One daemon a configuration: a lock in the state directory, and the control socket that goes with it.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, OpenOptionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::Mode;

use crate::output::{Failure, Outcome};

/// Name of the lock file in the state directory. It stays when the daemon ends: removing it would let two daemons
/// lock two files of one name.
const LOCK_FILE: &str = "vine.lock";
/// How long a daemon that is about to be gone (its socket is already) may keep its lock.
const HANDOVER: Duration = Duration::from_secs(1);

/// The right to be the daemon of a state directory, until dropped or until the process ends, however it ends.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock; a daemon that holds it is named in the failure.
    pub(super) fn take(state_dir: &Path, socket: &Path) -> Outcome<Lock> {
        create_directory(state_dir, "state_dir")?;
        let path = state_dir.join(LOCK_FILE);
        let failed = |error: io::Error| cannot(&format!("lock {}", path.display()), &error);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        let patience = Instant::now() + HANDOVER;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < patience && !answers(socket) => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(TryLockError::WouldBlock) => return Err(already_running(&mut file, state_dir)),
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
        // For people and for the message above; the lock itself is the kernel's.
        file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(failed)?;
        Ok(Lock { _file: file })
    }
}

fn already_running(file: &mut File, state_dir: &Path) -> Failure {
    let mut text = String::new();
    let pid =
        file.rewind().and_then(|()| file.read_to_string(&mut text)).ok().and_then(|_| text.trim().parse::<u32>().ok());
    let pid = pid.map_or_else(String::new, |pid| format!(" (pid {pid})"));
    let message =
        format!("vine is already running{pid} with state_dir {}; stop it with: vine down", state_dir.display());
    Failure::failed("already_running", message)
}

/// Makes a directory that only its owner enters, with its parents; one that is there is left as it is.
fn create_directory(path: &Path, key: &str) -> Outcome {
    let created = DirBuilder::new().recursive(true).mode(0o700).create(path);
    created.map_err(|error| cannot(&format!("create {key} {}", path.display()), &error))
}

fn cannot(what: &str, error: &io::Error) -> Failure {
    let cure = match error.kind() {
        io::ErrorKind::PermissionDenied => "; run vine as root, or name a directory of this user",
        _ => "",
    };
    Failure::failed("io", format!("cannot {what}: {error}{cure}"))
}

/// Whether something accepts connections there.
fn answers(socket: &Path) -> bool {
    UnixStream::connect(socket).is_ok()
}

/// The listening control socket; its file goes when this is dropped.
#[derive(Debug)]
pub(super) struct ControlSocket {
    path: PathBuf,
    listener: UnixListener,
}

impl ControlSocket {
    /// Listens at `path`, where only this user may connect. What a killed daemon left there is removed; anything that
    /// answers, or is no socket, is left alone.
    pub(super) fn bind(path: &Path, _lock: &Lock) -> Outcome<ControlSocket> {
        if let Some(parent) = path.parent() {
            create_directory(parent, "the control socket's directory")?;
        }
        if let Ok(metadata) = path.symlink_metadata() {
            if !metadata.file_type().is_socket() {
                let message = format!("{} is in the way of the control socket and is no socket", path.display());
                return Err(Failure::failed("io", message));
            }
            if answers(path) {
                let message = format!("vine is already running: another daemon answers at {}", path.display());
                return Err(Failure::failed("already_running", message));
            }
            fs::remove_file(path).map_err(|error| cannot(&format!("remove the stale {}", path.display()), &error))?;
        }
        // Never open to others, not even between bind and chmod. No other thread creates files at this point.
        let umask = rustix::process::umask(Mode::from_raw_mode(0o177));
        let listener = UnixListener::bind(path);
        rustix::process::umask(umask);
        let listener = listener
            .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
            .map_err(|error| cannot(&format!("listen at {}", path.display()), &error))?;
        Ok(ControlSocket { path: path.to_owned(), listener })
    }

    /// A second handle of the listener, for the runtime.
    pub(super) fn listener(&self) -> Outcome<tokio::net::UnixListener> {
        let listener = self.listener.try_clone().and_then(tokio::net::UnixListener::from_std);
        listener.map_err(|error| cannot(&format!("listen at {}", self.path.display()), &error))
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // The lock is still held, so this is the file that was bound here.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_second_lock_is_refused_with_the_pid_of_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let socket_path = dir.path().join("vine.sock");
        let lock = Lock::take(dir.path(), &socket_path).unwrap();
        let socket = ControlSocket::bind(&socket_path, &lock).unwrap();
        let refused = Lock::take(dir.path(), &socket_path).unwrap_err();
        let pid = format!("already running (pid {})", std::process::id());
        assert!(refused.message().contains(&pid), "{}", refused.message());
        drop(socket);
        drop(lock);
        assert!(!socket_path.exists());
        Lock::take(dir.path(), &socket_path).unwrap();
    }

    #[test]
    fn the_socket_is_for_its_owner_and_a_stale_one_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/vine.sock");
        let lock = Lock::take(dir.path(), &path).unwrap();
        let socket = ControlSocket::bind(&path, &lock).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(ControlSocket::bind(&path, &lock).is_err(), "somebody answers there");
        drop(socket);
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "a stale socket");
        drop(ControlSocket::bind(&path, &lock).unwrap());
    }

    #[test]
    fn a_file_in_the_way_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vine.sock");
        fs::write(&path, "precious").unwrap();
        let lock = Lock::take(dir.path(), &path).unwrap();
        assert!(ControlSocket::bind(&path, &lock).unwrap_err().message().contains("no socket"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }
}
