//! The disk: it breaks every promise that a real one breaks, and does everything the same way every time.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use vine_core::log::disk::{DiskDone, DiskError, DiskErrorKind, DiskOp, DiskResult, FileId, READ_MAX};

use super::content::{FileState, SECTOR};
use super::dice::Dice;

/// Bytes that a file system reads from the disk at once. Who writes a part of them needs the others first.
pub const BLOCK: u64 = 4096;

words! {
    /// What goes wrong with one operation. It waits for one that it can befall; `io` can befall any.
    Fault {
        /// It fails: input/output error. A write may have been done in part.
        Io = "io",
        /// It fails for want of space, as whatever may take some does. A write may have been done in part.
        Full = "full",
        /// A write is done in part and fails.
        Partial = "partial",
        /// A sync fails. What was to be synced is clean from then on, and may or may not be on the disk.
        SyncFails = "sync-fails",
        /// A sync does nothing and says that it is done.
        SyncLies = "sync-lies",
        /// A write never reaches the disk, whatever a sync says.
        WriteLost = "write-lost",
        /// A write reaches another place of its file.
        WriteAstray = "write-astray",
        /// A read fails.
        ReadFails = "read-fails",
    }
}

impl Fault {
    /// Whether the disk says that something is done which is not.
    pub fn is_lie(self) -> bool {
        matches!(self, Fault::SyncLies | Fault::WriteLost | Fault::WriteAstray)
    }

    fn befalls(self, op: &DiskOp) -> bool {
        match self {
            Fault::Io => true,
            Fault::Full => {
                matches!(op, DiskOp::Create { .. } | DiskOp::Write { .. } | DiskOp::Truncate { .. } | DiskOp::SyncDir)
            }
            Fault::Partial | Fault::WriteLost | Fault::WriteAstray => matches!(op, DiskOp::Write { .. }),
            Fault::SyncFails | Fault::SyncLies => matches!(op, DiskOp::Sync { .. }),
            Fault::ReadFails => matches!(op, DiskOp::Read { .. }),
        }
    }
}

/// Something that a crash may leave in one state or another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Unsynced {
    /// Whether a name is there, or which file it names.
    Name(FileId),
    /// 512 bytes of a file, by their number.
    Sector(FileId, u64),
    /// The length of a file.
    Length(FileId),
}

/// A file as such: its name, and which of the files that had it.
type Inode = (FileId, u64);

/// Numbered files as programs see them, and as they are after a crash.
#[derive(Clone, Debug)]
pub struct SimDisk {
    files: BTreeMap<Inode, FileState>,
    names: BTreeMap<FileId, Inode>,
    durable_names: BTreeMap<FileId, Inode>,
    /// What each unsynced name named after each change since the last sync of the directory, oldest first.
    dirty_names: BTreeMap<FileId, Vec<Option<Inode>>>,
    next_inode: u64,
    /// Operations so far.
    effects: u64,
    /// Faults, each with the first effect that it may befall.
    faults: Vec<(u64, Fault)>,
    /// Faults that happened, each with its effect.
    happened: Vec<(u64, Fault)>,
    /// Bytes that all files may have.
    pub capacity: u64,
    /// Nothing can be written.
    pub read_only: bool,
    /// Nothing works any more.
    pub broken: bool,
    /// Blocks of files that cannot be read, by number.
    unreadable: BTreeSet<(FileId, u64)>,
    /// Operations that were done and change what is there.
    changes: u64,
    /// Files have changed in another way than by an operation that did what it was to do.
    altered: bool,
    dice: Dice,
}

impl SimDisk {
    /// An empty one, whose every choice `seed` determines.
    pub fn new(seed: u64) -> SimDisk {
        SimDisk {
            files: BTreeMap::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            dirty_names: BTreeMap::new(),
            next_inode: 0,
            effects: 0,
            faults: Vec::new(),
            happened: Vec::new(),
            capacity: u64::MAX,
            read_only: false,
            broken: false,
            unreadable: BTreeSet::new(),
            changes: 0,
            altered: false,
            dice: Dice::new(seed),
        }
    }

    /// Operations so far.
    pub fn effects(&self) -> u64 {
        self.effects
    }

    /// `fault` befalls the first operation that it can, from the one with this number on.
    pub fn plan(&mut self, effect: u64, fault: Fault) {
        self.faults.push((effect, fault));
    }

    /// Faults that wait for their operation do not happen any more.
    pub fn forget_plans(&mut self) {
        self.faults.clear();
    }

    /// The faults that happened, each with the number of its operation.
    pub fn happened(&self) -> &[(u64, Fault)] {
        &self.happened
    }

    /// How many faults that the disk admits have happened.
    pub fn admitted(&self) -> usize {
        self.happened.iter().filter(|(_, fault)| !fault.is_lie()).count()
    }

    /// Operations so far that were done and change what is there: syncs are none.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// The blocks that hold these bytes of a file cannot be read from now on, until they are written whole.
    pub fn lose_blocks(&mut self, file: FileId, bytes: Range<u64>) {
        self.unreadable.extend(blocks(&bytes).map(|block| (file, block)));
    }

    /// Whether there is a block that cannot be read.
    pub fn has_lost_blocks(&self) -> bool {
        !self.unreadable.is_empty()
    }

    /// Whether files have changed in another way than by operations that did what they were to do, since that was last taken
    /// note of.
    pub fn is_altered(&self) -> bool {
        self.altered
    }

    /// The same, and takes note of it.
    pub fn take_altered(&mut self) -> bool {
        std::mem::take(&mut self.altered)
    }

    /// Does one operation.
    ///
    /// # Errors
    /// Those of a file system, and those that were planned.
    pub fn perform(&mut self, op: &DiskOp) -> DiskResult {
        let effect = self.effects;
        self.effects += 1;
        if self.broken {
            return Err(io());
        }
        if self.read_only && !matches!(op, DiskOp::List | DiskOp::Read { .. }) {
            return Err(DiskError { kind: DiskErrorKind::ReadOnly, code: 30 });
        }
        if let Some(block) = self.unreadable_block(op) {
            return self.fail_at_block(effect, op, block);
        }
        let result = match self.fault_of(effect, op) {
            Some(fault) => self.fail(fault, op),
            None => self.succeed(op),
        };
        if result.is_ok() {
            self.mend_blocks(op);
            let is_change = !matches!(op, DiskOp::List | DiskOp::Read { .. } | DiskOp::Sync { .. } | DiskOp::SyncDir);
            self.changes += u64::from(is_change);
        }
        result
    }

    /// The first block that cannot be read and would have to be: any of a read, and one of which a write has only a part.
    fn unreadable_block(&self, op: &DiskOp) -> Option<u64> {
        if self.unreadable.is_empty() {
            return None;
        }
        let (file, bytes, is_write) = match op {
            DiskOp::Read { file, offset, len } => (*file, *offset..offset + u64::from(*len), false),
            DiskOp::Write { file, offset, bytes } => (*file, *offset..offset + bytes.len() as u64, true),
            _ => return None,
        };
        blocks(&bytes)
            .filter(|block| !(is_write && is_whole(&bytes, *block)))
            .find(|block| self.unreadable.contains(&(file, *block)))
    }

    /// What lies before the block is written.
    fn fail_at_block(&mut self, effect: u64, op: &DiskOp, block: u64) -> DiskResult {
        self.altered = true;
        if let DiskOp::Write { file, offset, bytes } = op {
            self.happened.push((effect, Fault::Io));
            let done = (block * BLOCK).saturating_sub(*offset) as usize;
            self.file(*file)?.write(*offset, &bytes[..done]);
        } else {
            self.happened.push((effect, Fault::ReadFails));
        }
        Err(io())
    }

    /// What is written whole can be read again, and so can what takes the place of what is gone.
    fn mend_blocks(&mut self, op: &DiskOp) {
        self.unreadable.retain(|(of, block)| match op {
            DiskOp::Write { file, offset, bytes } => {
                file != of || !is_whole(&(*offset..offset + bytes.len() as u64), *block)
            }
            DiskOp::Truncate { file, size } => file != of || *block < size.div_ceil(BLOCK),
            DiskOp::Remove { file } => file != of,
            _ => true,
        });
    }

    fn fault_of(&mut self, effect: u64, op: &DiskOp) -> Option<Fault> {
        let at = self.faults.iter().position(|(from, fault)| *from <= effect && fault.befalls(op))?;
        let (_, fault) = self.faults.remove(at);
        self.happened.push((effect, fault));
        Some(fault)
    }

    fn fail(&mut self, fault: Fault, op: &DiskOp) -> DiskResult {
        self.altered = true;
        let error = if fault == Fault::Full { no_space() } else { io() };
        match (fault, op) {
            (Fault::Io | Fault::Full | Fault::Partial, DiskOp::Write { file, offset, bytes }) => {
                let done = self.dice.below(bytes.len() as u64 + u64::from(fault != Fault::Partial));
                self.file(*file)?.write(*offset, &bytes[..done as usize]);
                Err(error)
            }
            (Fault::WriteLost, DiskOp::Write { file, offset, bytes }) => {
                self.file(*file)?.write_astray(*offset, bytes, None);
                Ok(DiskDone::Done)
            }
            (Fault::WriteAstray, DiskOp::Write { file, offset, bytes }) => {
                let sectors = self.file(*file)?.cached.len().div_ceil(SECTOR).max(1);
                let instead = self.dice.below(sectors) * SECTOR;
                self.file(*file)?.write_astray(*offset, bytes, Some(instead));
                Ok(DiskDone::Done)
            }
            (Fault::SyncLies, _) => Ok(DiskDone::Done),
            (_, DiskOp::Sync { file }) => {
                let mut dice = self.dice.fork();
                self.file(*file)?.sync_fails(|| dice.chance(1, 2));
                Err(error)
            }
            // Whether it was done before it failed, nobody knows.
            (_, DiskOp::Create { .. } | DiskOp::Remove { .. } | DiskOp::Truncate { .. }) if self.dice.chance(1, 3) => {
                self.succeed(op).and(Err(error))
            }
            _ => Err(error),
        }
    }

    fn succeed(&mut self, op: &DiskOp) -> DiskResult {
        match op {
            DiskOp::List => return Ok(DiskDone::Listed(self.list())),
            DiskOp::Create { file, size } => self.create(*file, *size)?,
            DiskOp::Write { file, offset, bytes } => {
                let grows = (offset + bytes.len() as u64).saturating_sub(self.file(*file)?.cached.len());
                self.reserve(grows)?;
                self.file(*file)?.write(*offset, bytes);
            }
            DiskOp::Read { file, offset, len } => {
                assert!(*len <= READ_MAX, "a read of {len} bytes");
                return self.file(*file).map(|file| DiskDone::Read(file.cached.read(*offset, u64::from(*len))));
            }
            DiskOp::Sync { file } => self.file(*file)?.sync(),
            DiskOp::SyncDir => {
                self.dirty_names.clear();
                self.durable_names = self.names.clone();
            }
            DiskOp::Truncate { file, size } => {
                let grows = size.saturating_sub(self.file(*file)?.cached.len());
                self.reserve(grows)?;
                self.file(*file)?.resize(*size);
            }
            DiskOp::Remove { file } => {
                self.names.remove(file).ok_or_else(not_found)?;
                self.dirty_names.entry(*file).or_default().push(None);
            }
        }
        Ok(DiskDone::Done)
    }

    fn create(&mut self, file: FileId, size: u64) -> Result<(), DiskError> {
        if self.names.contains_key(&file) {
            return Err(DiskError { kind: DiskErrorKind::Exists, code: 17 });
        }
        self.reserve(size)?;
        let inode = self.next_inode(file);
        self.files.insert(inode, FileState::created(size));
        self.names.insert(file, inode);
        self.dirty_names.entry(file).or_default().push(Some(inode));
        Ok(())
    }

    fn next_inode(&mut self, file: FileId) -> Inode {
        self.next_inode += 1;
        (file, self.next_inode)
    }

    fn reserve(&self, bytes: u64) -> Result<(), DiskError> {
        let fits = self.used().saturating_add(bytes) <= self.capacity;
        if bytes == 0 || fits { Ok(()) } else { Err(no_space()) }
    }

    fn file(&mut self, file: FileId) -> Result<&mut FileState, DiskError> {
        let inode = self.names.get(&file).ok_or_else(not_found)?;
        self.files.get_mut(inode).ok_or_else(not_found)
    }

    /// Bytes that all files have.
    pub fn used(&self) -> u64 {
        self.list().iter().map(|(_, len)| len).sum()
    }

    /// Every file and its length, as programs see them.
    pub fn list(&self) -> Vec<(FileId, u64)> {
        let len = |inode: &Inode| self.files.get(inode).map_or(0, |file| file.cached.len());
        self.names.iter().map(|(file, inode)| (*file, len(inode))).collect()
    }

    /// What a crash now may leave in one state or another, each with the number of states; the durable one is 0.
    pub fn unsynced(&self) -> Vec<(Unsynced, usize)> {
        let mut all: Vec<_> =
            self.dirty_names.iter().map(|(file, states)| (Unsynced::Name(*file), states.len() + 1)).collect();
        for inode in self.reachable() {
            let Some(state) = self.files.get(&inode) else { continue };
            all.extend(state.unsynced().map(|(number, states)| (Unsynced::Sector(inode.0, number), states)));
            all.extend((state.unsynced_lengths() > 1).then(|| (Unsynced::Length(inode.0), state.unsynced_lengths())));
        }
        all
    }

    /// The files that a crash now may leave.
    fn reachable(&self) -> BTreeSet<Inode> {
        let unsynced = self.dirty_names.values().flatten().flatten();
        self.durable_names.values().chain(self.names.values()).chain(unsynced).copied().collect()
    }

    /// The power goes. `choose` is asked which state of each of [`SimDisk::unsynced`] is kept, in that order.
    pub fn crash(&mut self, mut choose: impl FnMut(Unsynced, usize) -> usize) {
        self.altered = true;
        let reachable = self.reachable();
        for (file, states) in std::mem::take(&mut self.dirty_names) {
            if let Some(kept) = choose(Unsynced::Name(file), states.len() + 1).checked_sub(1) {
                match states[kept] {
                    Some(inode) => _ = self.durable_names.insert(file, inode),
                    None => _ = self.durable_names.remove(&file),
                }
            }
        }
        for inode in reachable {
            let Some(file) = self.files.get_mut(&inode) else { continue };
            file.crash(|sector, states| {
                choose(sector.map_or(Unsynced::Length(inode.0), |number| Unsynced::Sector(inode.0, number)), states)
            });
        }
        self.names = self.durable_names.clone();
        let kept: BTreeSet<Inode> = self.names.values().copied().collect();
        self.files.retain(|inode, _| kept.contains(inode));
    }

    /// The power goes, and the disk's own dice say what is kept.
    pub fn crash_by_chance(&mut self) {
        let mut dice = self.dice.fork();
        // All or nothing is as likely as any mixture.
        let mood = dice.below(4);
        self.crash(|_, states| match mood {
            0 => 0,
            1 => states - 1,
            _ => dice.below(states as u64) as usize,
        });
    }

    /// The disk as it is for certain, had the power gone now: nothing unsynced is kept.
    pub fn durable(&self) -> SimDisk {
        let mut disk = self.clone();
        disk.crash(|_, _| 0);
        disk.forget_plans();
        disk
    }

    /// What is clean leaves the cache: from now on it is read from the disk.
    pub fn evict(&mut self) {
        self.altered = true;
        self.files.values_mut().for_each(FileState::evict);
    }

    /// Whether these bytes are on the disk, under a name that is, whatever happens.
    pub fn holds(&self, file: FileId, offset: u64, bytes: &[u8]) -> bool {
        let inode = self.durable_names.get(&file).filter(|_| !self.dirty_names.contains_key(&file));
        inode.and_then(|inode| self.files.get(inode)).is_some_and(|file| file.holds(offset, bytes))
    }

    /// Whether all that programs see of the beginning of a file, up to `end`, is on the disk, whatever happens.
    pub fn is_durable_up_to(&self, file: FileId, end: u64) -> bool {
        self.bytes(file).is_some_and(|bytes| self.holds(file, 0, &bytes[..bytes.len().min(end as usize)]))
    }

    /// One bit turns over on the disk; the cache may still hold what was there.
    pub fn rot(&mut self, file: FileId, offset: u64, bit: u8) {
        self.altered = true;
        if let Ok(file) = self.file(file) {
            file.damage(offset, |byte| *byte ^= 1 << (bit % 8));
        }
    }

    /// One byte of the disk is this from now on.
    pub fn overwrite(&mut self, file: FileId, offset: u64, value: u8) {
        self.altered = true;
        if let Ok(file) = self.file(file) {
            file.damage(offset, |byte| *byte = value);
        }
    }

    /// The file is shorter, on the disk and for everybody.
    pub fn cut(&mut self, file: FileId, len: u64) {
        self.altered = true;
        if let Ok(file) = self.file(file) {
            file.damage_len(len);
            file.evict();
        }
    }

    /// The sectors of a file that hold something.
    pub fn written(&self, file: FileId) -> Vec<u64> {
        self.names.get(&file).and_then(|inode| self.files.get(inode)).map_or(Vec::new(), FileState::written)
    }

    /// Bytes of all files but one, without the zeros at their ends.
    pub fn held_beside(&self, file: FileId) -> u64 {
        let others = self.names.keys().filter_map(|other| self.bytes(*other).filter(|_| *other != file));
        others.map(|bytes| bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1)).sum()
    }

    /// The length of a file on the disk.
    pub fn durable_len(&self, file: FileId) -> u64 {
        self.names.get(&file).and_then(|inode| self.files.get(inode)).map_or(0, FileState::durable_len)
    }

    /// All bytes of a file, as programs see them.
    pub fn bytes(&self, file: FileId) -> Option<Vec<u8>> {
        let file = self.files.get(self.names.get(&file)?)?;
        Some(file.cached.read(0, file.cached.len()))
    }

    /// Puts a file there, on the disk, in place of what has that name.
    pub fn put_file(&mut self, file: FileId, bytes: &[u8]) {
        let inode = self.next_inode(file);
        self.files.insert(inode, FileState::of(bytes));
        self.set_name(file, Some(inode));
    }

    /// Takes a file away, from the disk too.
    pub fn remove_file(&mut self, file: FileId) {
        self.set_name(file, None);
    }

    fn set_name(&mut self, file: FileId, inode: Option<Inode>) {
        self.altered = true;
        self.dirty_names.remove(&file);
        for names in [&mut self.names, &mut self.durable_names] {
            match inode {
                Some(inode) => _ = names.insert(file, inode),
                None => _ = names.remove(&file),
            }
        }
    }

    /// A copy of all files as a program would make it, on a disk of its own.
    pub fn copied(&self) -> SimDisk {
        let files = self.files.iter().map(|(inode, file)| (*inode, file.copied())).collect();
        let names = self.names.clone();
        SimDisk {
            files,
            durable_names: names.clone(),
            names,
            dirty_names: BTreeMap::new(),
            faults: Vec::new(),
            happened: Vec::new(),
            broken: false,
            read_only: false,
            altered: true,
            ..self.clone()
        }
    }

    /// Puts back the files of a copy, in place of all that is there.
    pub fn put_back(&mut self, copy: &SimDisk) {
        let SimDisk { effects, capacity, dice, .. } = *self;
        *self = SimDisk { effects, capacity, dice, ..copy.copied() };
    }
}

/// The blocks that have a part of these bytes.
fn blocks(bytes: &Range<u64>) -> Range<u64> {
    bytes.start / BLOCK..bytes.end.div_ceil(BLOCK)
}

/// Whether these bytes are all of a block, and perhaps more.
fn is_whole(bytes: &Range<u64>, block: u64) -> bool {
    bytes.start <= block * BLOCK && (block + 1) * BLOCK <= bytes.end
}

fn io() -> DiskError {
    DiskError { kind: DiskErrorKind::Io, code: 5 }
}

fn no_space() -> DiskError {
    DiskError { kind: DiskErrorKind::NoSpace, code: 28 }
}

fn not_found() -> DiskError {
    DiskError { kind: DiskErrorKind::NotFound, code: 2 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: FileId = FileId(1);

    fn write(offset: u64, bytes: &[u8]) -> DiskOp {
        DiskOp::Write { file: A, offset, bytes: bytes.to_vec().into() }
    }

    fn read(disk: &mut SimDisk, offset: u64, len: u32) -> Vec<u8> {
        match disk.perform(&DiskOp::Read { file: A, offset, len }) {
            Ok(DiskDone::Read(bytes)) => bytes,
            other => panic!("{other:?}"),
        }
    }

    fn done(disk: &mut SimDisk, ops: &[DiskOp]) {
        for op in ops {
            assert_eq!(disk.perform(op), Ok(DiskDone::Done), "{op:?}");
        }
    }

    /// A disk with one durable file of 2,048 zeros.
    fn disk() -> SimDisk {
        let mut disk = SimDisk::new(1);
        done(&mut disk, &[DiskOp::Create { file: A, size: 2048 }, DiskOp::Sync { file: A }, DiskOp::SyncDir]);
        disk
    }

    const SYNC: DiskOp = DiskOp::Sync { file: A };

    #[test]
    fn what_is_synced_survives_and_the_rest_may() {
        let mut disk = disk();
        done(&mut disk, &[write(0, &[1; 512]), SYNC, write(0, &[2; 1024]), write(512, &[3; 10])]);
        let sector = |number| Unsynced::Sector(A, number);
        assert_eq!(disk.unsynced(), [(sector(0), 2), (sector(1), 3)]);
        assert!(disk.holds(A, 512, &[0; 512]) && !disk.holds(A, 0, &[2; 512]));
        // Every state that a sector had since is one that it may be in, one independent of the other.
        let of = |kept: [usize; 2]| {
            let mut disk = disk.clone();
            disk.crash(|what, _| kept[usize::from(what == sector(1))]);
            assert!(disk.unsynced().is_empty());
            (read(&mut disk, 511, 1)[0], read(&mut disk, 512, 11))
        };
        assert_eq!(of([0, 0]), (1, vec![0; 11]));
        assert_eq!(of([1, 1]), (2, vec![2; 11]));
        assert_eq!(of([0, 2]), (1, [vec![3; 10], vec![2]].concat()));
        assert_eq!(read(&mut disk.durable(), 0, 2), [1, 1]);
        assert_eq!(read(&mut disk, 0, 2), [2, 2], "the disk itself goes on");
    }

    #[test]
    fn names_and_lengths_are_synced_each_by_itself() {
        let mut disk = SimDisk::new(1);
        done(&mut disk, &[DiskOp::Create { file: A, size: 100 }]);
        assert_eq!(disk.unsynced(), [(Unsynced::Name(A), 2), (Unsynced::Length(A), 2)]);
        assert_eq!(disk.durable().list(), []);
        done(&mut disk, &[SYNC]);
        assert_eq!(disk.durable().list(), [], "the name is not durable");
        done(&mut disk, &[DiskOp::SyncDir]);
        assert_eq!(disk.durable().list(), [(A, 100)]);
        done(&mut disk, &[DiskOp::Truncate { file: A, size: 40 }, write(100, &[7; 100])]);
        assert_eq!(disk.unsynced(), [(Unsynced::Sector(A, 0), 2), (Unsynced::Length(A), 3)]);
        for (kept, len) in [100, 40, 200].into_iter().enumerate() {
            let mut crashed = disk.clone();
            crashed.crash(|what, _| if what == Unsynced::Length(A) { kept } else { 0 });
            assert_eq!(crashed.list(), [(A, len)]);
        }
        done(&mut disk, &[SYNC, DiskOp::Remove { file: A }]);
        assert_eq!(disk.list(), []);
        assert_eq!(disk.durable().list(), [(A, 200)], "a removed file comes back");
        done(&mut disk, &[DiskOp::Create { file: A, size: 5 }]);
        let mut crashed = disk.clone();
        crashed.crash(|what, states| if what == Unsynced::Name(A) { 1.min(states - 1) } else { 0 });
        assert_eq!(crashed.list(), []);
        done(&mut disk, &[SYNC, DiskOp::SyncDir]);
        assert_eq!(disk.durable().list(), [(A, 5)]);
    }

    #[test]
    fn a_failed_sync_leaves_pages_that_nothing_writes() {
        let mut disk = disk();
        disk.plan(0, Fault::SyncFails);
        done(&mut disk, &[write(0, &[1; 2048])]);
        assert_eq!(disk.perform(&SYNC), Err(io()));
        assert_eq!(disk.happened(), [(4, Fault::SyncFails)]);
        assert_eq!(read(&mut disk, 0, 2048), [1; 2048], "the cache has them");
        done(&mut disk, &[SYNC]);
        let kept: Vec<u8> = (0..4).map(|sector| read(&mut disk.durable(), 512 * sector, 1)[0]).collect();
        assert!(kept.contains(&0), "the next sync does not write what the failed one left");
        done(&mut disk, &[write(0, &[1; 2048]), SYNC]);
        assert!(disk.holds(A, 0, &[1; 2048]), "unless it is written again");
    }

    #[test]
    fn lies_are_found_out_by_a_crash_or_an_eviction() {
        let mut disk = disk();
        disk.plan(0, Fault::SyncLies);
        done(&mut disk, &[write(0, &[1; 512]), SYNC]);
        assert!(!disk.holds(A, 0, &[1; 512]));
        done(&mut disk, &[SYNC]);
        assert!(disk.holds(A, 0, &[1; 512]), "a later sync may be true");
        disk.plan(0, Fault::WriteLost);
        done(&mut disk, &[write(512, &[2; 512]), SYNC]);
        assert_eq!(read(&mut disk, 512, 1), [2]);
        disk.evict();
        assert_eq!(read(&mut disk, 512, 1), [0]);
        disk.plan(0, Fault::WriteAstray);
        done(&mut disk, &[write(1024, &[3; 512]), SYNC]);
        disk.evict();
        let places: Vec<u8> = (0..4).map(|sector| read(&mut disk, 512 * sector, 1)[0]).collect();
        assert_eq!(places.iter().filter(|byte| **byte == 3).count(), 1, "{places:?}");
    }

    #[test]
    fn failures_are_partial_and_typed() {
        let mut disk = disk();
        disk.plan(disk.effects(), Fault::Partial);
        assert_eq!(disk.perform(&write(0, &[1; 2048])), Err(io()));
        let written = read(&mut disk, 0, 2048);
        assert!(written.is_sorted_by(|a, b| a >= b) && written[2047] == 0);
        disk.plan(disk.effects() + 1, Fault::Full);
        done(&mut disk, &[SYNC]);
        assert_eq!(disk.perform(&DiskOp::SyncDir), Err(no_space()));
        disk.plan(0, Fault::ReadFails);
        assert_eq!(disk.perform(&DiskOp::Read { file: A, offset: 0, len: 1 }), Err(io()));
        disk.capacity = 2048;
        assert_eq!(disk.perform(&DiskOp::Create { file: FileId(2), size: 1 }), Err(no_space()));
        assert_eq!(disk.perform(&write(2048, &[1])), Err(no_space()));
        let exists = DiskError { kind: DiskErrorKind::Exists, code: 17 };
        assert_eq!(disk.perform(&DiskOp::Create { file: A, size: 1 }), Err(exists));
        assert_eq!(disk.perform(&DiskOp::Sync { file: FileId(2) }), Err(not_found()));
        disk.read_only = true;
        assert_eq!(disk.perform(&SYNC).map_err(|error| error.kind), Err(DiskErrorKind::ReadOnly));
        assert_eq!(disk.perform(&DiskOp::List), Ok(DiskDone::Listed(vec![(A, 2048)])));
        disk.broken = true;
        assert_eq!(disk.perform(&DiskOp::List), Err(io()));
    }

    #[test]
    fn damage_is_on_the_disk_first() {
        let mut disk = disk();
        disk.rot(A, 700, 3);
        assert_eq!(read(&mut disk, 700, 1), [0], "the cache has what was there");
        disk.evict();
        assert_eq!(read(&mut disk, 700, 1), [8]);
        disk.cut(A, 701);
        assert_eq!(disk.list(), [(A, 701)]);
        assert_eq!(disk.written(A), [1]);
    }

    #[test]
    fn a_block_that_cannot_be_read_is_written_whole_or_not_at_all() {
        let mut disk = disk();
        done(&mut disk, &[DiskOp::Truncate { file: A, size: 3 * BLOCK }, SYNC]);
        disk.lose_blocks(A, BLOCK..2 * BLOCK);
        let fails = |disk: &mut SimDisk, op: DiskOp| assert_eq!(disk.perform(&op), Err(io()), "{op:?}");
        assert_eq!(read(&mut disk, BLOCK - 1, 1), [0]);
        assert_eq!(read(&mut disk, 2 * BLOCK, 1), [0]);
        for (offset, len) in [(BLOCK - 1, 2), (BLOCK, 512), (2 * BLOCK - 1, 1), (0, 3 * BLOCK as u32)] {
            fails(&mut disk, DiskOp::Read { file: A, offset, len });
        }
        let changes = disk.changes();
        fails(&mut disk, write(BLOCK, &[1; 512]));
        fails(&mut disk, write(2 * BLOCK - 1, &[1; 512]));
        fails(&mut disk, write(0, &[1; BLOCK as usize + 512]));
        assert_eq!(disk.changes(), changes);
        assert_eq!(read(&mut disk, BLOCK - 1, 1), [1], "what lies before it may be written");
        done(&mut disk, &[write(2 * BLOCK, &[3; 512]), write(BLOCK - 1, &[2; BLOCK as usize + 1])]);
        assert_eq!(read(&mut disk, 2 * BLOCK - 1, 2), [2, 3]);
        assert!(!disk.has_lost_blocks());
        assert_eq!(disk.changes(), changes + 2);
    }

    #[test]
    fn copies_are_put_back() {
        let mut disk = disk();
        done(&mut disk, &[write(0, b"monday")]);
        let monday = disk.copied();
        done(&mut disk, &[write(0, b"friday"), DiskOp::Create { file: FileId(2), size: 9 }, SYNC, DiskOp::SyncDir]);
        let effects = disk.effects();
        disk.put_back(&monday);
        assert_eq!(disk.list(), [(A, 2048)]);
        assert_eq!(read(&mut disk.durable(), 0, 6), *b"monday", "a copy is made of what is read");
        assert_eq!(disk.effects(), effects);
        disk.put_file(FileId(2), b"another");
        disk.remove_file(A);
        assert_eq!(disk.durable().list(), [(FileId(2), 7)]);
        assert_eq!(disk.bytes(FileId(2)).as_deref(), Some(&b"another"[..]));
    }

    #[test]
    fn the_same_seed_gives_the_same_disk() {
        let run = |seed| {
            let mut disk = SimDisk::new(seed);
            done(&mut disk, &[DiskOp::Create { file: A, size: 65_536 }, SYNC, DiskOp::SyncDir]);
            for sector in 0..100 {
                done(&mut disk, &[write(sector * 512, &[sector as u8 + 1; 512])]);
            }
            disk.crash_by_chance();
            disk.bytes(A)
        };
        assert_eq!(run(5), run(5));
        assert!((0..10).map(run).any(|bytes| bytes != run(10)));
    }
}
