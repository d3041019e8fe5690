//! What goes wrong with the log, in one sentence each with what to do about it.

use std::io;
use std::path::Path;

use hyper::StatusCode;
use vine_core::PeerId;
use vine_core::log::Refusal;
use vine_core::log::disk::{DiskError, DiskErrorKind};
use vine_core::log::report;
use vine_core::log::store::AppendError;
use vine_core::log::view::ReserveError;
use vine_core::log::writer::{NoRoom, Stopped};
use vine_store::{ImportError, LockError, OpenError, StoreError};

/// Why the log did not do what it was asked.
#[derive(Debug, Clone)]
pub(crate) struct Trouble {
    /// The HTTP status that the control socket answers with.
    pub(crate) status: StatusCode,
    /// For programs.
    pub(crate) code: &'static str,
    /// For people.
    pub(crate) message: String,
}

impl Trouble {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl ToString) -> Trouble {
        Trouble { status, code, message: message.to_string() }
    }
}

/// Why a store cannot be opened, and the cure.
pub(crate) fn cannot_open(dir: &Path, error: &OpenError) -> Trouble {
    let place = dir.display();
    let (code, message) = match error {
        OpenError::Lock(LockError::InUse { .. }) => {
            ("log_in_use", format!("{error}; stop that process, or give this daemon a state_dir of its own"))
        }
        OpenError::Files(files) => ("log_io", format!("{error}{}", cure_io(&files.error))),
        OpenError::Lock(LockError::Io { error: io, .. }) => ("log_io", format!("{error}{}", cure_io(io))),
        OpenError::Refused { error, .. } => refused(dir, error),
        OpenError::System(_) => ("log_io", error.to_string()),
        OpenError::Ended(ended) => ("log_panicked", format!("the log in {place} cannot be opened: {ended}")),
    };
    Trouble::new(StatusCode::SERVICE_UNAVAILABLE, code, message)
}

fn refused(dir: &Path, error: &report::OpenError) -> (&'static str, String) {
    let place = dir.display();
    let aside = format!("or move {place} away to begin a new log");
    match error {
        report::OpenError::Owner { file, owner } => {
            // A file that names no valid key was not written by vine, or is damaged in a place that its checksum covers.
            let owner = PeerId::from_bytes(*owner).map_or_else(|_| "another identity".to_owned(), |id| id.to_string());
            let message = format!(
                "the log in {place} is that of {owner} ({file}), and this node is another one; name that identity in identity_path, {aside}"
            );
            ("log_foreign", message)
        }
        report::OpenError::Network { file } => {
            let message = format!(
                "the log in {place} belongs to a network of another name ({file}); put the old network_id back, {aside}"
            );
            ("log_foreign", message)
        }
        report::OpenError::Version { .. } => (
            "log_version",
            format!("the log in {place} cannot be opened: {error}; use the vine that wrote it, {aside}"),
        ),
        report::OpenError::Misplaced { .. } | report::OpenError::Number { .. } => {
            ("log_misplaced", format!("the log in {place} cannot be opened: {error}"))
        }
        report::OpenError::Disk { error: disk, .. } => {
            ("log_io", format!("the log in {place} cannot be opened: {error}{}", cure_disk(disk)))
        }
    }
}

fn cure_io(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "; free some space",
        io::ErrorKind::ReadOnlyFilesystem => "; mount the file system for writing, or move state_dir",
        io::ErrorKind::PermissionDenied => "; run this as the user that runs the daemon (root, mostly)",
        _ => "",
    }
}

fn cure_disk(error: &DiskError) -> &'static str {
    match error.kind {
        DiskErrorKind::NoSpace => "; free some space",
        DiskErrorKind::ReadOnly => "; mount the file system for writing, and look at the owner of the files",
        DiskErrorKind::Io => "; look at the disk (dmesg, smartctl)",
        DiskErrorKind::NotFound | DiskErrorKind::Exists => "; does something else write into this directory?",
    }
}

/// Why the log stopped, and the cure.
pub(crate) fn stopped(stopped: &Stopped) -> String {
    let cure = cure_disk(&stopped.error);
    format!("the log has stopped: {stopped}{cure}; nothing is written until the daemon is started anew")
}

/// What is said of a write that may be there, or not.
const UNKNOWN: &str = "whether this was written is not known until then, and shows with: vine log tail";

/// Why a write is not acknowledged.
pub(crate) fn not_written(error: &StoreError) -> Trouble {
    let trouble = trouble(error);
    match error {
        StoreError::Panicked(_) => Trouble { message: format!("{}; {UNKNOWN}", trouble.message), ..trouble },
        _ => trouble,
    }
}

/// An error of an open store.
pub(crate) fn trouble(error: &StoreError) -> Trouble {
    match error {
        StoreError::Append(error) => append(error),
        StoreError::Import { refusal, .. } => import_refused(refusal_of_import(refusal)),
        StoreError::Busy => busy(error),
        StoreError::Stopped(why) => Trouble::new(StatusCode::SERVICE_UNAVAILABLE, "log_stopped", stopped(why)),
        StoreError::Stuck { .. } => {
            let message = format!("{error}; see: vine log verify, and report this");
            Trouble::new(StatusCode::INTERNAL_SERVER_ERROR, "log_stuck", message)
        }
        StoreError::ReadOnly => Trouble::new(StatusCode::SERVICE_UNAVAILABLE, "log_read_only", error),
        StoreError::Closed => {
            Trouble::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", "the daemon is stopping, and its log is closed")
        }
        StoreError::Panicked(_) => {
            let message = format!("{error}; restart the daemon, and report this");
            Trouble::new(StatusCode::INTERNAL_SERVER_ERROR, "log_panicked", message)
        }
    }
}

/// Why an archive is not taken. Where a record of it is to blame, whoever sent it knows which one.
pub(crate) fn import_failed(error: &ImportError) -> Trouble {
    match error {
        ImportError::Archive(error) => import_refused(error),
        ImportError::Network { .. } => import_refused(error),
        ImportError::Refused { refusal, .. } => import_refused(refusal_of_import(refusal)),
        ImportError::Read(_) => Trouble::new(StatusCode::BAD_REQUEST, "io", error),
        ImportError::Store(error) => trouble(error),
    }
}

fn import_refused(why: impl ToString) -> Trouble {
    Trouble::new(StatusCode::CONFLICT, "import_refused", why)
}

fn busy(error: impl ToString) -> Trouble {
    Trouble::new(StatusCode::SERVICE_UNAVAILABLE, "busy", error)
}

fn append(error: &AppendError) -> Trouble {
    let (unavailable, full) = (StatusCode::SERVICE_UNAVAILABLE, StatusCode::INSUFFICIENT_STORAGE);
    match error {
        AppendError::Limit(limit) => Trouble::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", limit),
        AppendError::TooLarge { .. } | AppendError::ImportTooLarge { .. } => {
            Trouble::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", error)
        }
        AppendError::Empty => Trouble::new(StatusCode::BAD_REQUEST, "bad_request", error),
        AppendError::Busy => busy(error),
        AppendError::Key(ReserveError::Full(_)) => {
            let message = format!("{error}; raise view_bytes in [log] and restart the daemon");
            Trouble::new(full, "view_full", message)
        }
        AppendError::Key(ReserveError::Horizon { .. }) => Trouble::new(StatusCode::CONFLICT, "clock", error),
        AppendError::Key(ReserveError::Busy) => busy(error),
        AppendError::NoRoom(NoRoom::Limit { .. }) => {
            Trouble::new(full, "log_full", format!("{error}; raise max_bytes in [log] and restart the daemon"))
        }
        AppendError::NoRoom(NoRoom::Numbers) => Trouble::new(full, "log_full", error),
        AppendError::NoRoom(NoRoom::Disk(disk)) => {
            let cure = match disk.kind {
                DiskErrorKind::NoSpace => {
                    "; free some space (min_free_bytes in [log] stays free), and the log goes on by itself"
                }
                _ => cure_disk(disk),
            };
            Trouble::new(full, "disk_full", format!("{error}{cure}"))
        }
        AppendError::TooManyLogs => Trouble::new(full, "too_many_logs", error),
        AppendError::Stopped(why) => {
            Trouble::new(unavailable, "log_stopped", format!("{}; this was not written", stopped(why)))
        }
        AppendError::Unknown(why) => Trouble::new(unavailable, "log_unknown", format!("{}; {UNKNOWN}", stopped(why))),
        AppendError::NotOpen => Trouble::new(unavailable, "stopping", "the daemon is stopping, and its log is closed"),
    }
}

/// Why a record is not taken, and the cure.
fn refusal_of_import(refusal: &Refusal) -> String {
    let cure = match refusal {
        Refusal::NotAMember { .. } => "; add it to [[allowed_peers]], and: vine daemon reload",
        Refusal::Gap { .. } | Refusal::UnknownLog { .. } | Refusal::PredecessorMissing { .. } => {
            "; import first what comes before"
        }
        Refusal::BadHash { .. } | Refusal::BadSignature { .. } => "; the archive was changed or forged",
        Refusal::Fork { .. } | Refusal::ForkBefore { .. } | Refusal::PredecessorFork { .. } => {
            "; its identity was used on two machines, or an older backup of it was put back"
        }
        Refusal::Quota { .. } => "; raise author_bytes in [log] and restart the daemon",
        Refusal::WrongNetwork { .. } | Refusal::TooMany | Refusal::PredecessorAuthor { .. } => "",
    };
    format!("{refusal}{cure}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_may_be_there_is_told_from_one_that_is_not() {
        let why = Stopped { what: "sync", error: DiskError { kind: DiskErrorKind::Io, code: 5 }, file: None };
        let told = |error: StoreError| not_written(&error);
        let unknown = [StoreError::Append(AppendError::Unknown(why)), StoreError::Panicked("why".into())].map(told);
        for Trouble { message, .. } in &unknown {
            assert!(message.contains("not known") && message.contains("vine log tail"), "{message}");
        }
        assert_eq!(unknown.map(|trouble| trouble.code), ["log_unknown", "log_panicked"]);
        let certain = [StoreError::Append(AppendError::Stopped(why)), StoreError::Closed, StoreError::Busy].map(told);
        for Trouble { message, .. } in &certain {
            assert!(!message.contains("not known"), "{message}");
        }
        assert!(certain[0].message.contains("this was not written"), "{}", certain[0].message);
    }
}
