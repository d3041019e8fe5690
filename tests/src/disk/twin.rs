//! The files of a simulated disk once more, as real ones.
//!
//! Every operation is done on both, and the store gets the answer of the real files, read back by `vine_store::Files`: it has
//! to be that of the simulated ones. What no program can do to real files (a power loss, a torn write, rot) happens to the
//! simulated disk, and the real files are made what it left.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use vine_core::log::disk::{DiskDone, DiskErrorKind, DiskOp, DiskResult, FileId};
use vine_store::Files;

use super::device::SimDisk;

/// A directory that holds what a simulated disk holds.
#[derive(Debug)]
pub struct Twin {
    root: PathBuf,
    dir: PathBuf,
    files: Files,
}

impl Twin {
    /// The twin of the disk of this machine, in a directory below `root`.
    ///
    /// # Panics
    /// Where it cannot be made.
    pub fn new(root: &Path, machine: usize) -> Twin {
        let dir = root.join(machine.to_string());
        let files = open(&dir, false);
        Twin { root: root.to_owned(), dir, files }
    }

    /// That of another machine, beside this one.
    pub fn beside(&self, machine: usize) -> Twin {
        Twin::new(&self.root, machine)
    }

    /// Where its files lie.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A process starts, and has none of the files open yet.
    ///
    /// # Panics
    /// Where they are not those of the disk.
    pub fn start(&mut self, disk: &mut SimDisk, read_only: bool) {
        self.follow(disk);
        self.check(disk);
        self.files = open(&self.dir, read_only);
    }

    /// Does one operation on the disk and here.
    ///
    /// # Errors
    /// Those of the disk.
    ///
    /// # Panics
    /// Where the answers differ.
    pub fn perform(&mut self, disk: &mut SimDisk, op: &DiskOp) -> DiskResult {
        self.follow(disk);
        let expected = disk.perform(op);
        // A device that fails or is full is simulated only, and what is left of the operation is laid down here before the next.
        let is_simulated = expected
            .as_ref()
            .is_err_and(|error| !matches!(error.kind, DiskErrorKind::Exists | DiskErrorKind::NotFound));
        if is_simulated || disk.is_altered() {
            return expected;
        }
        let result = self.files.perform(op);
        assert_eq!(sorted(result.clone()), sorted(expected), "real files answer otherwise: {op:?}");
        result
    }

    /// Makes the files what those of the disk were made by other things than operations.
    fn follow(&mut self, disk: &mut SimDisk) {
        if !disk.take_altered() {
            return;
        }
        let is_equal = |file: FileId, bytes: &[u8]| fs::read(self.path(file)).is_ok_and(|real| real == bytes);
        let (here, there) = (self.listed(), disk.list());
        for (file, _) in here {
            if !there.iter().any(|(other, _)| *other == file) {
                fs::remove_file(self.path(file)).expect("it is there");
            }
        }
        for (file, _) in there {
            let bytes = disk.bytes(file).expect("it is listed");
            if !is_equal(file, &bytes) {
                // In place: who has it open goes on with it.
                fs::write(self.path(file), bytes).expect("a directory that takes writes");
            }
        }
    }

    /// Compares every byte.
    ///
    /// # Panics
    /// Where one differs.
    pub fn check(&self, disk: &SimDisk) {
        assert_eq!(self.listed(), disk.list().into_iter().collect(), "the real files are not those of the disk");
        for (file, _) in disk.list() {
            let real = fs::read(self.path(file)).expect("it is listed");
            assert!(Some(real) == disk.bytes(file), "{file} does not hold what that of the disk holds");
        }
    }

    fn listed(&self) -> BTreeMap<FileId, u64> {
        let mut files = open(&self.dir, true);
        let Ok(DiskDone::Listed(files)) = files.perform(&DiskOp::List) else { panic!("a directory that can be read") };
        files.into_iter().collect()
    }

    fn path(&self, file: FileId) -> PathBuf {
        self.dir.join(file.to_string())
    }
}

fn open(dir: &Path, read_only: bool) -> Files {
    // What is free on the machine that runs the tests is its own affair.
    let files = if read_only { Files::open_read_only(dir) } else { Files::open(dir, Some(0)) };
    files.unwrap_or_else(|error| panic!("{error}"))
}

/// Files may be listed in any order.
fn sorted(result: DiskResult) -> DiskResult {
    result.map(|done| match done {
        DiskDone::Listed(mut files) => {
            files.sort_unstable();
            DiskDone::Listed(files)
        }
        done => done,
    })
}
