//! Reading a whole store: what recovery and verification take, beside reading the same files.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use bytes::Bytes;
use rustix::fs::{Advice, fadvise};
use vine_store::{Handle, Verification};

use crate::writes::{identity, options};
use crate::{OP, Result, median};

/// MB/s of one round.
#[derive(Clone, Copy)]
pub(crate) struct Round {
    pub(crate) read_cold: f64,
    pub(crate) recovery_cold: f64,
    pub(crate) verify_cold: f64,
    pub(crate) read_cached: f64,
    pub(crate) recovery_cached: f64,
    pub(crate) verify_cached: f64,
}

pub(crate) struct Rates(Vec<Round>);

impl Rates {
    pub(crate) fn ratio(&self, of: fn(&Round) -> f64) -> f64 {
        median(self.0.iter().map(of))
    }

    pub(crate) fn named(&self) -> [(&'static str, f64); 6] {
        [
            ("reading the files, pages dropped", self.ratio(|round| round.read_cold)),
            ("recovery, pages dropped", self.ratio(|round| round.recovery_cold)),
            ("verify, pages dropped", self.ratio(|round| round.verify_cold)),
            ("reading the files, pages cached", self.ratio(|round| round.read_cached)),
            ("recovery, pages cached", self.ratio(|round| round.recovery_cached)),
            ("verify, pages cached", self.ratio(|round| round.verify_cached)),
        ]
    }
}

pub(crate) fn measure(dir: &Path, mib: usize, rounds: usize) -> Result<Rates> {
    let store = Handle::open(dir, identity(), options()?)?;
    let ops = vec![Bytes::from(vec![1; OP]); 1024];
    for _ in 0..mib * 4 {
        store.append(ops.clone()).wait()?;
    }
    store.close().wait()?;
    let mut all = Vec::new();
    for _ in 0..rounds {
        drop_pages(dir)?;
        let read_cold = rate(dir, || read(dir))?;
        drop_pages(dir)?;
        let recovery_cold = rate(dir, || recover(dir))?;
        drop_pages(dir)?;
        let verify_cold = rate(dir, || verify(dir))?;
        let read_cached = rate(dir, || read(dir))?;
        let recovery_cached = rate(dir, || recover(dir))?;
        let verify_cached = rate(dir, || verify(dir))?;
        all.push(Round { read_cold, recovery_cold, verify_cold, read_cached, recovery_cached, verify_cached });
    }
    Ok(Rates(all))
}

fn segments(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "seg") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn drop_pages(dir: &Path) -> Result<()> {
    for path in segments(dir)? {
        let file = File::open(path)?;
        file.sync_all()?;
        fadvise(&file, 0, None, Advice::DontNeed)?;
    }
    Ok(())
}

fn rate(dir: &Path, work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let mut bytes = 0;
    for path in segments(dir)? {
        bytes += std::fs::metadata(path)?.len();
    }
    let began = Instant::now();
    work()?;
    Ok(bytes as f64 / began.elapsed().as_secs_f64() / 1e6)
}

fn read(dir: &Path) -> Result<()> {
    let mut buffer = vec![0; 256 * 1024];
    for path in segments(dir)? {
        let (file, mut at) = (File::open(path)?, 0);
        loop {
            let len = file.read_at(&mut buffer, at)?;
            if len == 0 {
                break;
            }
            at += len as u64;
        }
    }
    Ok(())
}

fn recover(dir: &Path) -> Result<()> {
    drop(Handle::open_read_only(dir, identity().peer_id(), options()?)?);
    Ok(())
}

fn verify(dir: &Path) -> Result<()> {
    let report = Verification::alone(dir, identity().peer_id(), options()?)?.run(|_, _| true)?;
    if report.is_some_and(|report| report.is_sound()) { Ok(()) } else { Err("the store is damaged".into()) }
}
