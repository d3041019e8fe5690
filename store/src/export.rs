//! A store as an archive, piece by piece.

use std::collections::BTreeMap;
use std::io::{self, Write};

use vine_core::log::archive::{ArchiveWriter, Summary};
use vine_core::log::reader::{Cursor, Taken};
use vine_core::log::{Genesis, LogId, Record};

use crate::error::StoreError;
use crate::handle::Handle;
use crate::reply::block_on;
use crate::request::Batch;

/// Bytes of the log that become one piece, about.
const PIECE: usize = 256 * 1024;

/// What an archive lacks: it cannot be read, or continues what cannot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeftOut {
    /// How many ops, as far as they are known.
    pub ops: u64,
    /// The first damage.
    pub why: String,
}

/// Why an export did not come to its end. What was written until then is a cut archive, and is told as one.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The archive cannot be written.
    #[error("cannot write the archive: {0}")]
    Write(io::Error),
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Writes an archive of what a store holds when it begins: all that can be read, and that somebody else can take.
///
/// Damage is left out, with what follows it in its log and in the logs behind that one: whoever imports the archive takes
/// nothing behind a hole. [`Exporter::left_out`] tells.
#[derive(Debug)]
pub struct Exporter {
    store: Handle,
    writer: Option<ArchiveWriter>,
    cursor: Cursor,
    until: u64,
    geneses: BTreeMap<LogId, Genesis>,
    /// How far the logs reach in the archive.
    reached: BTreeMap<LogId, u64>,
    left_out: Option<LeftOut>,
    summary: Summary,
    /// What is written and not handed out yet.
    out: Vec<u8>,
}

impl Exporter {
    /// Begins an archive.
    ///
    /// # Errors
    ///
    /// The store is closed, or its thread is gone.
    pub async fn begin(store: Handle) -> Result<Exporter, StoreError> {
        let until = store.next_ordinal().await?;
        let logs = store.logs().await?;
        let mut out = Vec::new();
        let writer = ArchiveWriter::new(store.network_id(), &mut out);
        Ok(Exporter {
            store,
            writer: Some(writer),
            cursor: Cursor::at(0),
            until,
            geneses: logs.into_iter().map(|log| (log.genesis.log_id(), log.genesis)).collect(),
            reached: BTreeMap::new(),
            left_out: None,
            summary: Summary::default(),
            out,
        })
    }

    /// The next bytes of the archive, `None` at its end.
    ///
    /// # Errors
    ///
    /// The store is closed, its thread is gone, or it cannot be read on ([`StoreError::Stuck`]). There is no end to such an
    /// archive, and whoever reads it is told that it was cut.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        while self.cursor.ordinal < self.until && self.out.len() < PIECE {
            let batch = self.store.read(self.cursor, PIECE).await?;
            self.take(batch);
        }
        if self.out.len() < PIECE
            && let Some(writer) = self.writer.take()
        {
            self.summary = writer.end(&mut self.out);
        }
        let piece = std::mem::take(&mut self.out);
        Ok((!piece.is_empty()).then_some(piece))
    }

    /// What the archive lacks, once it is written.
    pub fn left_out(&self) -> Option<&LeftOut> {
        self.left_out.as_ref()
    }

    /// What the archive holds, once it is written.
    pub fn summary(&self) -> Summary {
        self.summary
    }

    /// How many ordinals of how many are done.
    pub fn progress(&self) -> (u64, u64) {
        (self.cursor.ordinal.min(self.until), self.until)
    }

    fn take(&mut self, batch: Batch) {
        let until = self.until;
        for taken in batch.taken.iter().filter(|taken| taken.first_ordinal < until) {
            self.add(taken);
        }
        if let Some(damaged) = &batch.damaged {
            self.leave_out(damaged.ordinals.end - damaged.ordinals.start, &damaged.to_string());
        }
        self.cursor = batch.next;
    }

    fn add(&mut self, taken: &Taken) {
        let header = taken.commit.header();
        let (log, count) = (header.log, u64::from(header.count));
        if !self.reached.contains_key(&log) && !self.add_genesis(&log) {
            return self.leave_out(count, "the beginning of their log, or of its predecessor, cannot be read");
        }
        let reached = self.reached.entry(log).or_default();
        // Who imports it takes nothing behind a hole.
        if *reached != header.first_seq {
            return self.leave_out(count, "what comes before them in their log cannot be read");
        }
        *reached = taken.commit.next_seq();
        if let Some(writer) = &mut self.writer {
            writer.record(&Record::Commit(taken.commit.clone()), &mut self.out);
        }
    }

    fn add_genesis(&mut self, log: &LogId) -> bool {
        let Some(genesis) = self.geneses.get(log) else { return false };
        let is_reached = genesis
            .predecessor
            .as_ref()
            .is_none_or(|tip| self.reached.get(&tip.log).is_some_and(|reached| *reached >= tip.next));
        if is_reached && let Some(writer) = &mut self.writer {
            writer.record(&Record::Genesis(genesis.clone()), &mut self.out);
            self.reached.insert(*log, 0);
        }
        is_reached
    }

    fn leave_out(&mut self, ops: u64, why: &str) {
        let left_out = self.left_out.get_or_insert_with(|| LeftOut { ops: 0, why: why.to_owned() });
        left_out.ops += ops;
    }
}

impl Handle {
    /// Writes all logs to `out`, as they are now, and tells now and then how many ops of how many are done. Gives what the
    /// archive holds, and what it lacks because of damage. Blocks: tasks take an [`Exporter`].
    ///
    /// # Errors
    ///
    /// [`ExportError`].
    pub fn export(
        &self,
        out: &mut impl Write,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<(Summary, Option<LeftOut>), ExportError> {
        let mut exporter = block_on(Exporter::begin(self.clone()))?;
        while let Some(piece) = block_on(exporter.next())? {
            out.write_all(&piece).map_err(ExportError::Write)?;
            let (done, of) = exporter.progress();
            progress(done, of);
        }
        out.flush().map_err(ExportError::Write)?;
        Ok((exporter.summary, exporter.left_out))
    }
}
