//! A store as an archive, piece by piece.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use vine_core::NetworkId;
use vine_core::log::archive::ArchiveWriter;
use vine_core::log::reader::{Cursor, Taken};
use vine_core::log::{Genesis, LogId, Record};
use vine_store::{Handle, StoreError};

/// Bytes of the log that become one piece, about.
const PIECE: usize = 256 * 1024;

/// What an archive lacks, because it cannot be read or continues what cannot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeftOut {
    /// How many ops, as far as they are known.
    pub(crate) ops: u64,
    /// The first damage.
    pub(crate) why: String,
}

/// Writes an archive of what a store holds when it begins.
pub(crate) struct Exporter {
    store: Handle,
    writer: Option<ArchiveWriter>,
    cursor: Cursor,
    until: u64,
    geneses: BTreeMap<LogId, Genesis>,
    /// How far the logs reach in the archive.
    reached: BTreeMap<LogId, u64>,
    left_out: Option<LeftOut>,
    /// What is written and not handed out yet.
    out: Vec<u8>,
}

impl Exporter {
    /// Begins an archive.
    pub(crate) async fn begin(store: Handle, network_id: &NetworkId) -> Result<Exporter, StoreError> {
        let until = store.status().await?.store.next_ordinal;
        let logs = store.logs().await?;
        let mut out = Vec::new();
        let writer = ArchiveWriter::new(network_id, &mut out);
        Ok(Exporter {
            store,
            writer: Some(writer),
            cursor: Cursor::at(0),
            until,
            geneses: logs.into_iter().map(|log| (log.genesis.log_id(), log.genesis)).collect(),
            reached: BTreeMap::new(),
            left_out: None,
            out,
        })
    }

    /// The next piece, `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        while self.cursor.ordinal < self.until && self.out.len() < PIECE {
            let batch = self.store.read(self.cursor, PIECE).await?;
            let until = self.until;
            for taken in batch.taken.iter().filter(|taken| taken.first_ordinal < until) {
                self.add(taken);
            }
            if let Some(damaged) = &batch.damaged {
                self.leave_out(damaged.ordinals.end - damaged.ordinals.start, &damaged.to_string());
            }
            if batch.next.ordinal <= self.cursor.ordinal {
                break;
            }
            self.cursor = batch.next;
        }
        if self.out.len() < PIECE
            && let Some(writer) = self.writer.take()
        {
            writer.end(&mut self.out);
        }
        let piece = std::mem::take(&mut self.out);
        Ok((!piece.is_empty()).then_some(piece))
    }

    /// What the archive lacks, once it is written.
    pub(crate) fn left_out(&self) -> Option<&LeftOut> {
        self.left_out.as_ref()
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
