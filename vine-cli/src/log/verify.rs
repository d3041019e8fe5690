//! What a reading of every byte of a store found.

use std::path::Path;

use vine_core::log::report::{Finding, Report};

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

/// Leaves in `report` what `again` found as well: what a second look at a store that is being written to does not find was
/// a write on its way.
pub(crate) fn keep_what_stays(report: &mut Report, again: &Report) {
    let stays = |finding: &Finding| {
        again.findings.iter().any(|other| other.file == finding.file && other.range == finding.range)
    };
    report.findings.retain(stays);
    report.unlisted = report.unlisted.min(again.unlisted);
}
