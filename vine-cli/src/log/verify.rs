//! Reading every byte of a store, with its hashes and signatures.

use std::path::Path;
use std::time::SystemTime;

use vine_core::log::disk::DiskResult;
use vine_core::log::replay::Depth;
use vine_core::log::report::{Finding, Report};
use vine_core::log::store::{Effect, Store, StoreConfig, StoreEvent};
use vine_core::{Instant, PeerId, UnixTime};
use vine_store::{Files, Lock, OpenError, Options};

use super::finding;
use crate::api::{Progress, Verified};

/// One reading of all of a store.
pub(crate) struct Reading {
    files: Files,
    store: Store,
    dir: String,
    _lock: Option<Lock>,
}

impl Reading {
    /// Of a store that nobody has open.
    pub(crate) fn alone(dir: &Path, owner: PeerId, options: Options) -> Result<Reading, OpenError> {
        let files = Files::open_read_only(dir)?;
        let lock = Lock::shared(dir)?;
        Ok(Reading::new(files, lock, dir, owner, options))
    }

    /// Of a store that this process has open and writes to.
    pub(crate) fn beside(dir: &Path, owner: PeerId, options: Options) -> Result<Reading, OpenError> {
        // The view is there already, and is not needed a second time.
        let options = Options { view_bytes: 0, ..options };
        Ok(Reading::new(Files::open_read_only(dir)?, None, dir, owner, options))
    }

    fn new(files: Files, lock: Option<Lock>, dir: &Path, owner: PeerId, options: Options) -> Reading {
        let Options { network_id, members, segment_bytes, max_bytes, author_bytes, view_bytes, .. } = options;
        let config = StoreConfig {
            network_id,
            owner,
            members,
            segment_bytes,
            max_bytes,
            author_bytes,
            view_bytes,
            read_only: true,
            depth: Depth::Signatures,
        };
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let unix = UnixTime(u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX));
        // A store that writes nothing makes no use of its seed.
        let store = Store::open(config, [0; 32], unix);
        Reading { files, store, dir: dir.display().to_string(), _lock: lock }
    }

    /// Reads all, and says from time to time how far it is. `false` from there ends it.
    ///
    /// # Errors
    /// The store cannot be opened. `None` when it was ended.
    pub(crate) fn run(&mut self, mut progress: impl FnMut(Progress) -> bool) -> Result<Option<Report>, OpenError> {
        loop {
            match self.store.poll_event() {
                Some(StoreEvent::Opened) => return Ok(Some(self.store.report().cloned().unwrap_or_default())),
                Some(StoreEvent::Refused(error)) => return Err(OpenError::Refused { dir: self.dir.clone(), error }),
                _ => {}
            }
            let Some(Effect::Disk(token, op)) = self.store.poll_effect() else { continue };
            let result: DiskResult = self.files.perform(&op);
            self.store.handle_disk(Instant::from_nanos(0), token, result);
            if let Some((bytes, total)) = self.store.progress()
                && !progress(Progress { bytes, total })
            {
                return Ok(None);
            }
        }
    }

    /// The hash of all that the store holds.
    pub(crate) fn state_hash(&self) -> Option<[u8; 32]> {
        self.store.state_hash()
    }
}

/// What was found, in the words of the control API.
pub(crate) fn verified(dir: &Path, report: &Report, state_hash: Option<[u8; 32]>) -> Verified {
    Verified {
        sound: report.is_sound(),
        dir: dir.display().to_string(),
        files: report.files,
        bytes: report.bytes,
        commits: report.commits,
        ops: report.ops,
        findings: report.findings.iter().map(finding).collect(),
        unlisted: report.unlisted,
        state_hash: state_hash.unwrap_or_default().iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

/// Leaves in `report` what `again` found as well: what a second look at a store that is being written to does not find was
/// a write on its way.
pub(crate) fn keep_what_stays(report: &mut Report, again: &Report) {
    let stays = |finding: &Finding| {
        again.findings.iter().any(|other| other.file == finding.file && other.range == finding.range)
    };
    report.findings.retain(stays);
    report.unlisted = report.unlisted.min(again.unlisted);
}
