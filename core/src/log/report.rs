//! What an opening or a verification found: how much is there, and everything that is not as it should be.

use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use super::commit::LogId;
use super::disk::{DiskError, DiskOp, FileId};

/// The most findings that a report lists; further ones are counted.
pub const MAX_FINDINGS: usize = 256;
/// The most logs of which a finding names lost positions.
const MAX_POSITIONS: usize = 16;

/// What a store holds and what is wrong with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Segment files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Frames that were read.
    pub frames: u64,
    /// Commits among them.
    pub commits: u64,
    /// Ops of the commits.
    pub ops: u64,
    /// Everything that is not as it should be, in the order of the files.
    pub findings: Vec<Finding>,
    /// Findings beyond [`MAX_FINDINGS`].
    pub unlisted: u64,
}

impl Report {
    /// Whether nothing is wrong, or nothing but an interrupted write.
    pub fn is_sound(&self) -> bool {
        self.unlisted == 0 && self.findings.iter().all(|finding| !finding.damage.is_loss())
    }

    pub(super) fn add(&mut self, finding: Finding) {
        if self.findings.len() < MAX_FINDINGS {
            self.findings.push(finding);
        } else {
            self.unlisted += 1;
        }
    }
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file.
    pub file: FileId,
    /// The bytes in it.
    pub range: Range<u64>,
    /// What is wrong.
    pub damage: Damage,
    /// The ordinals of the ops that are missing, as far as they are known.
    pub ordinals: Option<Range<u64>>,
    /// The positions that are missing, by log.
    pub positions: Vec<(LogId, Range<u64>)>,
}

impl Finding {
    pub(super) fn new(file: FileId, range: Range<u64>, damage: Damage) -> Finding {
        Finding { file, range, damage, ordinals: None, positions: Vec::new() }
    }

    pub(super) fn lose(&mut self, log: LogId, positions: Range<u64>) {
        if self.positions.len() < MAX_POSITIONS {
            self.positions.push((log, positions));
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, bytes {} to {}: {}", self.file, self.range.start, self.range.end, self.damage)?;
        if let Some(ordinals) = &self.ordinals {
            write!(f, "; missing: ordinals {} to {}", ordinals.start, ordinals.end.saturating_sub(1))?;
        }
        for (log, positions) in &self.positions {
            write!(f, "; missing of log {log}: positions {} to {}", positions.start, positions.end.saturating_sub(1))?;
        }
        Ok(())
    }
}

/// What is wrong at a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// One copy of the segment's header is damaged; the other one serves.
    HeaderCopy,
    /// Both copies of the header are damaged, and nothing of the segment can be read.
    Header,
    /// The file is missing. A later one remembers it.
    Missing,
    /// The file is another one than its successor remembers, of an older backup for example. Nothing of it is used.
    Replaced,
    /// Bytes that were durable are damaged.
    Corrupt,
    /// A write was interrupted. It may have been acknowledged if the disk lost what it had called durable.
    Cut,
    /// The frames are whole and what they hold does not fit together.
    Inconsistent(&'static str),
}

impl Damage {
    /// Whether something that was durable is lost by it, as opposed to repaired or never acknowledged by an honest disk.
    pub fn is_loss(&self) -> bool {
        !matches!(self, Damage::HeaderCopy | Damage::Cut)
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Damage::HeaderCopy => "one copy of the header is damaged, the other one serves",
            Damage::Header => "the header is damaged, nothing of the segment can be read",
            Damage::Missing => "the file is missing",
            Damage::Replaced => "not the file that its successor continues, nothing of it is used",
            Damage::Corrupt => "damaged after it was durable",
            Damage::Cut => {
                "cut off by an interruption; it was not acknowledged unless the disk lost what it had synced"
            }
            Damage::Inconsistent(what) => what,
        })
    }
}

/// Why a store cannot be opened. What it holds is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The disk failed.
    #[error("cannot {what}{}: {error}", Place(*file, *range))]
    Disk {
        /// The failure.
        error: DiskError,
        /// What failed.
        what: &'static str,
        /// At which file.
        file: Option<FileId>,
        /// At which bytes of it: the first of them, and the first behind them.
        range: Option<(u64, u64)>,
    },
    /// A file has a number to which no store comes.
    #[error("{file} was not written by vine: no log has so many files; take it away")]
    Number {
        /// The file.
        file: FileId,
    },
    /// The store belongs to another identity.
    #[error("{file} was written by another identity; the log of one machine cannot be used by another one")]
    Owner {
        /// The file that says so.
        file: FileId,
        /// The PeerId that it names.
        owner: [u8; 32],
    },
    /// The store belongs to another network.
    #[error("{file} belongs to a network of another name")]
    Network {
        /// The file that says so.
        file: FileId,
    },
    /// A later vine wrote the store.
    #[error("{file} is of version {version} of the format, which this vine does not know")]
    Version {
        /// The file.
        file: FileId,
        /// Its version.
        version: u32,
    },
    /// Files have changed names, or one is there twice.
    #[error("{file} was written as {says}: rename it, or remove it where it is a copy")]
    Misplaced {
        /// The file.
        file: FileId,
        /// What it says that it is.
        says: FileId,
    },
}

impl OpenError {
    pub(super) fn disk(error: DiskError, op: &DiskOp) -> OpenError {
        OpenError::Disk { error, what: op.name(), file: op.file(), range: op.range() }
    }
}

/// A file and bytes of it, behind a verb.
struct Place(Option<FileId>, Option<(u64, u64)>);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |file| write!(f, " {file}"))?;
        self.1.map_or(Ok(()), |(from, to)| write!(f, ", bytes {from} to {to}"))
    }
}
