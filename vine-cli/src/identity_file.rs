//! The identity on disk: one line of text, readable by its owner alone, written atomically and never by accident
//! over another one.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use vine_core::identity::{Identity, TextError};
use zeroize::Zeroizing;

use crate::files::{self, Existing};

/// A file longer than this holds something else.
const MAX_FILE: u64 = 4096;

/// Why there is no identity. Each names the file and the cure, and none repeats what is in it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IdentityFileError {
    /// Nothing is there.
    #[error("identity file {path} does not exist; create it with: vine identity init --path {path}", path = .0.display())]
    Missing(PathBuf),
    /// Others can read the secret or write it.
    #[error("identity file {path} is open to others (mode {mode:04o}), and whoever reads it can be this node; run: chmod 600 {path}", path = .path.display())]
    Permissions { path: PathBuf, mode: u32 },
    /// The text is not an identity.
    #[error("identity file {path} is damaged: {why}; restore it from a backup, or make a new identity (and give its peer id to all peers) with: vine identity init --force --path {path}", path = .path.display())]
    Damaged { path: PathBuf, why: Damage },
    /// One is there already.
    #[error("identity file {path} exists already and was left alone; --force replaces it, and the old identity is then lost", path = .0.display())]
    Exists(PathBuf),
    /// The file system refuses.
    #[error("identity file {path} cannot be {verb}: {error}", path = .path.display())]
    Io { path: PathBuf, verb: &'static str, error: io::Error },
}

/// What is wrong with the contents.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Damage {
    #[error("it is empty")]
    Empty,
    #[error("it is not a small text file")]
    NotText,
    #[error(transparent)]
    Text(#[from] TextError),
}

/// Reads the identity in `path`.
pub(crate) fn load(path: &Path) -> Result<Identity, IdentityFileError> {
    let io = |error| IdentityFileError::Io { path: path.to_owned(), verb: "read", error };
    // Not blocking: whoever puts a FIFO there gets an error and not a program that hangs.
    let nonblock = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
    let mut file = match OpenOptions::new().read(true).custom_flags(nonblock).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(IdentityFileError::Missing(path.to_owned()));
        }
        Err(error) => return Err(io(error)),
    };
    let metadata = file.metadata().map_err(io)?;
    let damaged = |why| IdentityFileError::Damaged { path: path.to_owned(), why };
    if !metadata.is_file() {
        return Err(io(io::Error::other("it is not a file")));
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(IdentityFileError::Permissions { path: path.to_owned(), mode });
    }
    if metadata.len() > MAX_FILE {
        return Err(damaged(Damage::NotText));
    }
    read_text(&mut file).map_err(io)?.map_or_else(
        || Err(damaged(Damage::NotText)),
        |text| {
            if text.trim_ascii().is_empty() {
                return Err(damaged(Damage::Empty));
            }
            Identity::from_secret_text(&text).map_err(|why| damaged(why.into()))
        },
    )
}

/// The text of the file in memory that is wiped, `None` if it is not text.
fn read_text(file: &mut File) -> io::Result<Option<Zeroizing<String>>> {
    // Room for all of it beforehand: a buffer that grew would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(MAX_FILE).unwrap_or_default() + 1));
    file.take(MAX_FILE).read_to_end(&mut bytes)?;
    Ok(std::str::from_utf8(&bytes).ok().map(|text| Zeroizing::new(text.to_owned())))
}

/// Makes a new identity in `path`; `replace` allows to put it over an old one.
pub(crate) fn create(path: &Path, replace: bool) -> Result<Identity, IdentityFileError> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(seed.as_mut()).map_err(|error| IdentityFileError::Io {
        path: path.to_owned(),
        verb: "made",
        error: io::Error::other(format!("no randomness from the operating system: {error}")),
    })?;
    let identity = Identity::from_seed(*seed);
    let mut text = Zeroizing::new(String::with_capacity(128));
    text.push_str(&identity.to_secret_text());
    text.push('\n');
    let existing = if replace { Existing::Replace } else { Existing::Keep };
    match files::write_atomically(path, 0o600, existing, |file| file.write_all(text.as_bytes())) {
        Ok(()) => Ok(identity),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(IdentityFileError::Exists(path.to_owned())),
        Err(error) => Err(IdentityFileError::Io { path: path.to_owned(), verb: "written", error }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    fn directory() -> tempfile::TempDir {
        tempfile::tempdir().expect("a temporary directory")
    }

    #[test]
    fn what_was_created_is_loaded() {
        let dir = directory();
        let path = dir.path().join("identity");
        let created = create(&path, false).unwrap();
        assert_eq!(load(&path).unwrap().peer_id(), created.peer_id());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn an_identity_is_replaced_only_by_force() {
        let dir = directory();
        let path = dir.path().join("identity");
        let first = create(&path, false).unwrap();
        assert!(matches!(create(&path, false), Err(IdentityFileError::Exists(_))));
        assert_eq!(load(&path).unwrap().peer_id(), first.peer_id());
        let second = create(&path, true).unwrap();
        assert_ne!(first.peer_id(), second.peer_id());
        assert_eq!(load(&path).unwrap().peer_id(), second.peer_id());
    }

    #[test]
    fn every_damage_names_file_and_cure_and_hides_the_secret() {
        let dir = directory();
        let path = dir.path().join("identity");
        let missing = load(&path).unwrap_err().to_string();
        assert!(missing.contains("vine identity init --path"), "{missing}");
        create(&path, false).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let secret = text.trim().to_owned();
        let flipped = secret.replacen(secret.chars().nth(20).unwrap(), "!", 1);
        for damaged in [&text[..40], "", "\n", &flipped, "\0\0\0", &"x".repeat(9000), "vine1abc"] {
            fs::write(&path, damaged).unwrap();
            let message = load(&path).unwrap_err().to_string();
            assert!(message.contains("damaged") && message.contains("--force --path"), "{message}");
            assert!(!message.contains(&secret[11..20]), "{message}");
        }
        fs::write(&path, &text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let open = load(&path).unwrap_err().to_string();
        assert!(open.contains("mode 0640") && open.contains("chmod 600"), "{open}");
    }
}
