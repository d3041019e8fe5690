//! Durable writes: the bare loop, and the store.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use vine_core::{Identity, NetworkId};
use vine_store::{Figures, Handle, Options};

use crate::{OP, Result};

/// After so much, files have the length that they keep.
const WARM_BYTES: usize = 96 << 20;

/// The quiet moment before a measurement.
const QUIET: Duration = Duration::from_millis(800);

/// What one run of the store gave.
#[derive(Clone, Copy)]
pub(crate) struct Run {
    /// Ops a second.
    pub(crate) rate: f64,
    /// The part of the time that went into signing and hashing.
    pub(crate) sign_share: f64,
    /// The same, a commit.
    pub(crate) sign_us: f64,
    /// The part of the time that went into fdatasync.
    pub(crate) sync_share: f64,
    /// How many ops a commit had.
    pub(crate) ops_per_commit: f64,
}

/// The fastest that one writer can be: the same bytes, one after the other, each synced, into a file that is allocated and
/// filled with zeros.
pub(crate) fn baseline(path: &Path, time: Duration) -> Result<f64> {
    const LEN: usize = 8 << 20;
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
    file.write_all_at(&vec![0; LEN], 0)?;
    file.sync_all()?;
    let (op, began, mut count) = (vec![1; OP], Instant::now(), 0_usize);
    while began.elapsed() < time {
        file.write_all_at(&op, ((count * OP) % LEN) as u64)?;
        file.sync_data()?;
        count += 1;
    }
    Ok(count as f64 / began.elapsed().as_secs_f64())
}

pub(crate) fn identity() -> Arc<Identity> {
    Arc::new(Identity::from_seed([7; 32]))
}

pub(crate) fn options() -> Result<Options> {
    Ok(Options { reserve: Some(0), max_bytes: 64 << 30, ..Options::new(NetworkId::new("bench")?) })
}

/// Tasks on one executor, each of which writes an op when the one before is durable.
pub(crate) fn tasks(dir: &Path, writers: usize, time: Duration) -> Result<Run> {
    let store = Handle::open(dir, identity(), options()?)?;
    warm_up(&store)?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    run(&store, || {
        let began = Instant::now();
        let tasks: Vec<_> = (0..writers)
            .map(|n| {
                let store = store.clone();
                runtime.spawn(async move {
                    let op = Bytes::from(vec![n as u8; OP]);
                    let mut count = 0_u64;
                    while began.elapsed() < time {
                        store.append(vec![op.clone()]).await?;
                        count += 1;
                    }
                    Ok::<u64, vine_store::StoreError>(count)
                })
            })
            .collect();
        // The executor does not go to sleep: how long the host takes to wake a thread is not the store's.
        runtime.block_on(async {
            let mut count = 0;
            for task in tasks {
                while !task.is_finished() {
                    tokio::task::yield_now().await;
                }
                count += task.await??;
            }
            Ok(count)
        })
    })
}

/// The same with a thread a writer.
pub(crate) fn threads(dir: &Path, writers: usize, time: Duration) -> Result<Run> {
    let store = Handle::open(dir, identity(), options()?)?;
    warm_up(&store)?;
    run(&store, || {
        let began = Instant::now();
        let threads: Vec<_> = (0..writers)
            .map(|n| {
                let store = store.clone();
                std::thread::spawn(move || {
                    let op = Bytes::from(vec![n as u8; OP]);
                    let mut count = 0_u64;
                    while began.elapsed() < time {
                        store.append(vec![op.clone()]).wait()?;
                        count += 1;
                    }
                    Ok::<u64, vine_store::StoreError>(count)
                })
            })
            .collect();
        let mut count = 0;
        for thread in threads {
            count += thread.join().map_err(|_| "a writer panicked")??;
        }
        Ok(count)
    })
}

/// The first write makes a log and a file, and files grow for a while. Then a quiet moment, in which the store fills the next
/// file with zeros, as the baseline did before it began.
fn warm_up(store: &Handle) -> Result<()> {
    let op = Bytes::from(vec![7; 250 * 1024]);
    let mut under_way = std::collections::VecDeque::new();
    for _ in 0..WARM_BYTES / op.len() {
        under_way.push_back(store.append(vec![op.clone()]));
        if under_way.len() > 16
            && let Some(oldest) = under_way.pop_front()
        {
            oldest.wait()?;
        }
    }
    for append in under_way {
        append.wait()?;
    }
    std::thread::sleep(QUIET);
    Ok(())
}

fn run(store: &Handle, work: impl FnOnce() -> Result<u64>) -> Result<Run> {
    let before = store.status().wait()?.figures;
    let began = Instant::now();
    let count = work()? as f64;
    let took = began.elapsed().as_secs_f64();
    let after = store.status().wait()?.figures;
    let of = |time: fn(&Figures) -> Duration| (time(&after) - time(&before)).as_secs_f64();
    let commits = (after.commits - before.commits) as f64;
    let signing = of(|figures| figures.sign_time);
    Ok(Run {
        rate: count / took,
        sign_share: signing / took,
        sign_us: signing / commits * 1e6,
        sync_share: of(|figures| figures.sync_time) / took,
        ops_per_commit: count / commits,
    })
}
