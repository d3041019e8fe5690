//! Other stores with the same ops: a sequence number and the bytes. They are called directly, without a queue before them.

use std::path::Path;
use std::time::{Duration, Instant};

use redb::{Durability, TableDefinition};
use rusqlite::Connection;

use crate::{OP, Result};

/// SQLite with a write-ahead log that is synced at every transaction.
pub(crate) fn sqlite(path: &Path, batch: usize, time: Duration) -> Result<f64> {
    let mut db = Connection::open(path)?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", "FULL")?;
    db.execute("CREATE TABLE log (seq INTEGER PRIMARY KEY, op BLOB NOT NULL)", ())?;
    let op = vec![1_u8; OP];
    rate(time, batch, |_| {
        let transaction = db.transaction()?;
        {
            let mut insert = transaction.prepare_cached("INSERT INTO log (op) VALUES (?1)")?;
            for _ in 0..batch {
                insert.execute([&op])?;
            }
        }
        Ok(transaction.commit()?)
    })
}

/// redb with its strongest durability.
pub(crate) fn redb(path: &Path, batch: usize, time: Duration) -> Result<f64> {
    const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
    let db = redb::Database::create(path)?;
    let op = vec![1_u8; OP];
    rate(time, batch, |first| {
        let mut transaction = db.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        {
            let mut table = transaction.open_table(LOG)?;
            for seq in first..first + batch as u64 {
                table.insert(seq, op.as_slice())?;
            }
        }
        Ok(transaction.commit()?)
    })
}

fn rate(time: Duration, batch: usize, mut transaction: impl FnMut(u64) -> Result<()>) -> Result<f64> {
    let mut count = 0;
    transaction(count)?; // Makes the files.
    let began = Instant::now();
    while began.elapsed() < time {
        count += batch as u64;
        transaction(count)?;
    }
    Ok(count as f64 / began.elapsed().as_secs_f64())
}
