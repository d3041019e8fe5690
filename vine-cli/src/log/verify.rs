//! What a reading of every byte of a store found.

use std::path::Path;

use vine_core::log::report::Report;

use super::finding;
use crate::api::Verified;

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
