//! What the log gives, in the words of the control API.

use vine_core::log::Op;
use vine_core::log::reader::{self, Delivered};
use vine_core::log::report;
use vine_store::Position;

use super::Names;
use crate::api::{self, Blob, LogOp, Positions};

/// An op.
pub(crate) fn op(delivered: &Delivered, names: &Names) -> LogOp {
    let Delivered { ordinal, log, seq, author, hlc, op, .. } = delivered;
    let (kind, key, value, data) = match op {
        Op::Plain(data) => ("plain".to_owned(), None, None, Some(data)),
        Op::Put { key, value, .. } => ("put".to_owned(), Some(key), Some(value), None),
        Op::Delete { key, .. } => ("delete".to_owned(), Some(key), None, None),
        Op::Other { kind, data } => (kind.to_string(), None, None, Some(data)),
    };
    let blob = |bytes: Option<&bytes::Bytes>| bytes.cloned().map(Blob);
    LogOp {
        ordinal: *ordinal,
        log: log.to_string(),
        seq: *seq,
        author: author.to_string(),
        author_name: names.get(author).cloned(),
        time_ms: hlc.unix_time().0,
        hlc: hlc.to_string(),
        kind,
        key: blob(key),
        value: blob(value),
        data: blob(data),
    }
}

/// Ops that cannot be read.
pub(crate) fn damaged(damaged: &reader::Damaged) -> api::Damaged {
    api::Damaged {
        first_ordinal: damaged.ordinals.start,
        last_ordinal: damaged.ordinals.end.saturating_sub(1),
        file: damaged.file.to_string(),
        bytes: [damaged.range.start, damaged.range.end],
        message: damaged.to_string(),
    }
}

/// Where ops lie.
pub(crate) fn position(position: &Position) -> api::Position {
    let Position { log, first_seq, first_ordinal, count } = position;
    api::Position { log: log.to_string(), first_seq: *first_seq, first_ordinal: *first_ordinal, count: *count }
}

/// What an import did.
pub(crate) fn imported(imported: vine_store::Imported) -> api::Imported {
    let vine_store::Imported { new, known, uncompared } = imported;
    api::Imported { new: new.into(), known: known.into(), uncompared: uncompared.into() }
}

/// What an archive lacks.
pub(crate) fn left_out(left_out: &vine_store::LeftOut) -> api::LeftOut {
    let vine_store::LeftOut { ops, why } = left_out;
    api::LeftOut { ops: *ops, why: why.clone() }
}

/// Something that is not as it should be.
pub(crate) fn finding(finding: &report::Finding) -> api::Finding {
    let positions = finding.positions.iter().map(|(log, range)| Positions {
        log: log.to_string(),
        first_seq: range.start,
        last_seq: range.end.saturating_sub(1),
    });
    api::Finding {
        file: finding.file.to_string(),
        bytes: [finding.range.start, finding.range.end],
        what: finding.damage.to_string(),
        lost: finding.damage.is_loss(),
        ordinals: finding.ordinals.as_ref().map(|range| [range.start, range.end.saturating_sub(1)]),
        positions: positions.collect(),
        message: finding.to_string(),
    }
}
