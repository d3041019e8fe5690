//! Logs as one file: out of a store and into one.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind, Read, Write};

use vine_core::NetworkId;
use vine_core::log::archive::{ArchiveError, ArchiveReader, ArchiveWriter, Item, Summary};
use vine_core::log::chain::Refusal;
use vine_core::log::reader::{Cursor, Damaged};
use vine_core::log::store::MAX_IMPORT;
use vine_core::log::{LogId, Record};

use crate::error::StoreError;
use crate::handle::{Handle, Imported};

/// Read from the store, or from the file, at once, about.
const PART: usize = 256 * 1024;
/// Bytes of records that go into one import. A record may be larger than that alone.
const IMPORT: usize = 1024 * 1024;

/// Why an export did not come to its end. What was written until then is a cut archive, and is told as one.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A part of the log cannot be read, and an archive has no gaps.
    #[error("the export ends here: {0}")]
    Damaged(Damaged),
    /// The archive cannot be written.
    #[error("cannot write the archive: {0}")]
    Write(io::Error),
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why an import did not come to its end. What was taken before is in the store: each log up to some place.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file is no archive, is cut or was changed.
    #[error("the archive is not whole: {0}")]
    Archive(#[from] ArchiveError),
    /// The archive is of another network.
    #[error("the archive is of the network {}, and the store of {}", found.as_str(), own.as_str())]
    Network {
        /// The archive's.
        found: NetworkId,
        /// The store's.
        own: NetworkId,
    },
    /// A record is refused.
    #[error("the record at byte {at} of the archive is refused: {refusal}")]
    Refused {
        /// Bytes of the archive before the record.
        at: u64,
        /// Why.
        refusal: Refusal,
    },
    /// The archive cannot be read.
    #[error("cannot read the archive: {0}")]
    Read(io::Error),
    /// The store took it not.
    #[error(transparent)]
    Store(StoreError),
}

impl Handle {
    /// Writes all logs to `out`, as they are now, and tells now and then how many ops of how many are written. Blocks: not
    /// for tasks.
    ///
    /// # Errors
    ///
    /// [`ExportError`].
    pub fn export(&self, out: &mut impl Write, mut progress: impl FnMut(u64, u64)) -> Result<Summary, ExportError> {
        let until = self.next_ordinal().wait()?;
        let (mut buffer, mut logs, mut cursor) = (Vec::new(), BTreeSet::new(), Cursor::at(0));
        let mut writer = ArchiveWriter::new(self.network_id(), &mut buffer);
        while cursor.ordinal < until {
            let batch = self.read(cursor, PART).wait()?;
            if let Some(damaged) = batch.damaged {
                return Err(ExportError::Damaged(damaged));
            }
            for taken in batch.taken.into_iter().filter(|taken| taken.first_ordinal < until) {
                let log = taken.commit.header().log;
                if logs.insert(log) {
                    let genesis = self.genesis(log).wait()?.ok_or(StoreError::Closed)?;
                    writer.record(&Record::Genesis(genesis), &mut buffer);
                }
                writer.record(&Record::Commit(taken.commit), &mut buffer);
            }
            out.write_all(&buffer).map_err(ExportError::Write)?;
            buffer.clear();
            // Else the end came early, and the next reading would give the same.
            if batch.next.ordinal <= cursor.ordinal {
                break;
            }
            cursor = batch.next;
            progress(cursor.ordinal.min(until), until);
        }
        let summary = writer.end(&mut buffer);
        out.write_all(&buffer).and_then(|()| out.flush()).map_err(ExportError::Write)?;
        Ok(summary)
    }

    /// Takes the logs of an archive, and tells now and then how many records were taken and how many bytes of the archive
    /// were read. Every record is verified. Blocks: not for tasks.
    ///
    /// # Errors
    ///
    /// [`ImportError`].
    pub fn import_archive(
        &self,
        input: &mut impl Read,
        mut progress: impl FnMut(Imported, u64),
    ) -> Result<Imported, ImportError> {
        let (mut reader, mut part) = (ArchiveReader::new(), vec![0; PART]);
        let mut records = Records::default();
        let (mut sum, mut bytes) = (Imported::default(), 0);
        loop {
            let len = match input.read(&mut part) {
                Ok(0) => break,
                Ok(len) => len,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(ImportError::Read(error)),
            };
            bytes += len as u64;
            let mut rest = part.get(..len).unwrap_or_default();
            while let Some(item) = reader.read(&mut rest)? {
                match item {
                    Item::Network(found) if found != *self.network_id() => {
                        return Err(ImportError::Network { found, own: self.network_id().clone() });
                    }
                    Item::Record(record) => records.add(reader.item_at(), record),
                    Item::Network(_) | Item::End(_) => {}
                }
                if records.are_enough() {
                    self.take_records(&mut records, &mut sum)?;
                    progress(sum, bytes);
                }
            }
        }
        self.take_records(&mut records, &mut sum)?;
        reader.finish()?;
        progress(sum, bytes);
        Ok(sum)
    }

    fn take_records(&self, records: &mut Records, sum: &mut Imported) -> Result<(), ImportError> {
        let Records { records, at, .. } = std::mem::take(records);
        if records.is_empty() {
            return Ok(());
        }
        let imported = self.import(records).wait().map_err(|error| match error {
            StoreError::Import { record, refusal } => {
                ImportError::Refused { at: at.get(record).copied().unwrap_or(0), refusal }
            }
            error => ImportError::Store(error),
        })?;
        sum.new += imported.new;
        sum.known += imported.known;
        sum.uncompared += imported.uncompared;
        Ok(())
    }

    fn genesis(&self, log: LogId) -> crate::Pending<Option<vine_core::log::Genesis>> {
        self.query(move |store| Some(store.chains()?.get(&log)?.genesis.clone()))
    }
}

/// Records on their way into the store, and where each begins in the archive.
#[derive(Default)]
struct Records {
    records: Vec<Record>,
    at: Vec<u64>,
    bytes: usize,
}

impl Records {
    fn add(&mut self, at: u64, record: Record) {
        self.bytes += if let Record::Commit(commit) = &record { commit.bytes().len() } else { 0 };
        self.records.push(record);
        self.at.push(at);
    }

    fn are_enough(&self) -> bool {
        self.records.len() >= MAX_IMPORT || self.bytes >= IMPORT
    }
}
