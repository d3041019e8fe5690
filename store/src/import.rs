//! An archive on its way into a store: read as its bytes come, and taken batch by batch.

use std::io::{self, ErrorKind, Read};

use vine_core::NetworkId;
use vine_core::log::Record;
use vine_core::log::archive::{ArchiveError, ArchiveReader, ArchiveWriter, Item, Summary};
use vine_core::log::chain::Refusal;
use vine_core::log::store::MAX_IMPORT;

use crate::error::StoreError;
use crate::handle::{Handle, Imported};
use crate::reply::block_on;

/// Read from a file at once.
const PART: usize = 256 * 1024;
/// A batch with so many bytes takes no further record. One record has at most a mebibyte more.
const BATCH: usize = 2 << 20;

/// Why an import did not come to its end. What was taken before is in the store: each log up to some place.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file is no archive, is cut or was changed.
    #[error("the archive is not whole: {0}")]
    Archive(#[from] ArchiveError),
    /// The archive is of another network.
    #[error("the archive is of network {:?}, and this node is in {:?}", found.as_str(), own.as_str())]
    Network {
        /// The archive's.
        found: NetworkId,
        /// The store's.
        own: NetworkId,
    },
    /// A record is refused, and its batch with it.
    #[error("the record at byte {at} of the archive is refused: {refusal}")]
    Refused {
        /// The number of the record in the archive, from 0.
        record: u64,
        /// Bytes of the archive before the record.
        at: u64,
        /// Why.
        refusal: Refusal,
    },
    /// The archive cannot be read.
    #[error("cannot read the archive: {0}")]
    Read(io::Error),
    /// The store did not take it.
    #[error(transparent)]
    Store(StoreError),
}

/// Records that one import takes: all of them or none.
#[derive(Clone, Debug)]
pub struct Records {
    network_id: NetworkId,
    records: Vec<Record>,
    /// Where each begins in the archive that they come from.
    places: Vec<u64>,
    bytes: usize,
}

impl Records {
    fn new(network_id: NetworkId) -> Records {
        Records { network_id, records: Vec::new(), places: Vec::new(), bytes: 0 }
    }

    fn add(&mut self, record: Record, at: u64) {
        self.bytes += if let Record::Commit(commit) = &record { commit.bytes().len() } else { 0 };
        self.records.push(record);
        self.places.push(at);
    }

    fn is_full(&self) -> bool {
        self.records.len() >= MAX_IMPORT || self.bytes >= BATCH
    }

    /// Where the record with this number begins: bytes of the archive before it.
    pub fn place(&self, record: usize) -> Option<u64> {
        self.places.get(record).copied()
    }

    /// An archive of these records alone, of less than 4 MiB.
    pub fn to_archive(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut writer = ArchiveWriter::new(&self.network_id, &mut out);
        self.records.iter().for_each(|record| writer.record(record, &mut out));
        writer.end(&mut out);
        out
    }
}

/// Takes an archive apart into batches. It holds one of them, which is at most 3 MiB of records.
///
/// A batch is handed out when there is no room in it for what comes next. So the last one, and the only one of a small
/// archive, is handed out only when the archive has come to its end and was found to be whole.
#[derive(Debug, Default)]
pub struct Unpacker {
    reader: ArchiveReader,
    batch: Option<Records>,
}

impl Unpacker {
    /// At the beginning of an archive.
    pub fn new() -> Unpacker {
        Unpacker::default()
    }

    /// Takes bytes off the front of `input` until a batch is complete, or all of them.
    ///
    /// # Errors
    ///
    /// The archive is none, is damaged, or goes on behind its end.
    pub fn read(&mut self, input: &mut &[u8]) -> Result<Option<Records>, ArchiveError> {
        while let Some(item) = self.reader.read(input)? {
            match (item, &mut self.batch) {
                (Item::Network(network_id), batch) => *batch = Some(Records::new(network_id)),
                (Item::Record(record), Some(batch)) => {
                    let at = self.reader.item_at();
                    let next = Records::new(batch.network_id.clone());
                    let complete = batch.is_full().then(|| std::mem::replace(batch, next));
                    batch.add(record, at);
                    if complete.is_some() {
                        return Ok(complete);
                    }
                }
                (Item::Record(_) | Item::End(_), _) => {}
            }
        }
        Ok(None)
    }

    /// The network that the archive is of, once that is read.
    pub fn network_id(&self) -> Option<&NetworkId> {
        self.batch.as_ref().map(|batch| &batch.network_id)
    }

    /// The last batch, and what the whole archive held; to be asked when there are no more bytes.
    ///
    /// # Errors
    ///
    /// The archive was cut, or reading it ended with this error before.
    pub fn finish(self) -> Result<(Option<Records>, Summary), ArchiveError> {
        let summary = self.reader.finish()?;
        Ok((self.batch.filter(|batch| !batch.records.is_empty()), summary))
    }
}

/// Takes an archive into a store as its bytes come.
#[derive(Debug)]
pub struct Importer {
    store: Handle,
    unpacker: Unpacker,
    imported: Imported,
    /// Records that were handed to the store.
    handed: u64,
}

impl Importer {
    /// An import into `store`.
    pub fn new(store: Handle) -> Importer {
        Importer { store, unpacker: Unpacker::new(), imported: Imported::default(), handed: 0 }
    }

    /// Takes the next bytes of the archive, as many as there are.
    ///
    /// # Errors
    ///
    /// [`ImportError`]; the import ends with it.
    pub async fn feed(&mut self, mut bytes: &[u8]) -> Result<(), ImportError> {
        loop {
            let batch = self.unpacker.read(&mut bytes)?;
            let own = self.store.network_id();
            if let Some(found) = self.unpacker.network_id().filter(|found| *found != own) {
                return Err(ImportError::Network { found: found.clone(), own: own.clone() });
            }
            let Some(batch) = batch else { return Ok(()) };
            self.take(batch).await?;
        }
    }

    /// Takes what is left, if the archive is whole; and gives what it held.
    ///
    /// # Errors
    ///
    /// [`ImportError`].
    pub async fn finish(&mut self) -> Result<Summary, ImportError> {
        let (batch, summary) = std::mem::take(&mut self.unpacker).finish()?;
        if let Some(batch) = batch {
            self.take(batch).await?;
        }
        Ok(summary)
    }

    /// What was taken so far. It stays in the store, whatever becomes of the rest.
    pub fn imported(&self) -> Imported {
        self.imported
    }

    async fn take(&mut self, batch: Records) -> Result<(), ImportError> {
        let Records { records, places, .. } = batch;
        let before = self.handed;
        self.handed += records.len() as u64;
        let imported = self.store.import(records).await.map_err(|error| match error {
            StoreError::Import { record, refusal } => ImportError::Refused {
                record: before + record as u64,
                at: places.get(record).copied().unwrap_or_default(),
                refusal,
            },
            error => ImportError::Store(error),
        })?;
        let sum = &mut self.imported;
        sum.new += imported.new;
        sum.known += imported.known;
        sum.uncompared += imported.uncompared;
        Ok(())
    }
}

impl Handle {
    /// Takes the logs of an archive, and tells now and then what was taken and how many bytes of the archive were read.
    /// Every record is verified. Blocks: tasks take an [`Importer`].
    ///
    /// # Errors
    ///
    /// [`ImportError`].
    pub fn import_archive(
        &self,
        input: &mut impl Read,
        mut progress: impl FnMut(Imported, u64),
    ) -> Result<Imported, ImportError> {
        let (mut importer, mut part, mut bytes) = (Importer::new(self.clone()), vec![0; PART], 0);
        loop {
            let len = match input.read(&mut part) {
                Ok(0) => break,
                Ok(len) => len,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(ImportError::Read(error)),
            };
            bytes += len as u64;
            block_on(importer.feed(part.get(..len).unwrap_or_default()))?;
            progress(importer.imported(), bytes);
        }
        block_on(importer.finish())?;
        progress(importer.imported(), bytes);
        Ok(importer.imported())
    }
}
