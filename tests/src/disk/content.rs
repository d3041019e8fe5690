//! The bytes of one file, twice: as whoever reads it sees them, and as they are on the disk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Bytes that a disk writes whole or not at all.
pub const SECTOR: u64 = 512;

/// Shared, as disks are cloned often and changed little.
type Sector = Arc<[u8; SECTOR as usize]>;

/// A length, and the sectors that hold something; all others read as zeros.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(super) struct Content {
    len: u64,
    sectors: BTreeMap<u64, Sector>,
}

impl Content {
    pub(super) fn zeros(len: u64) -> Content {
        Content { len, sectors: BTreeMap::new() }
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// The bytes from `offset` on, as many of `len` as there are.
    pub(super) fn read(&self, offset: u64, len: u64) -> Vec<u8> {
        let end = self.len.min(offset.saturating_add(len)).max(offset);
        let mut bytes = vec![0; (end - offset) as usize];
        for (number, sector) in self.sectors.range(offset / SECTOR..end.div_ceil(SECTOR)) {
            let at = number * SECTOR;
            let (from, to) = (at.max(offset), (at + SECTOR).min(end));
            if from < to {
                bytes[(from - offset) as usize..(to - offset) as usize]
                    .copy_from_slice(&sector[(from - at) as usize..(to - at) as usize]);
            }
        }
        bytes
    }

    /// Writes, and grows where that is behind the end.
    fn write(&mut self, offset: u64, bytes: &[u8]) {
        self.len = self.len.max(offset + bytes.len() as u64);
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let within = (at % SECTOR) as usize;
            let count = (SECTOR as usize - within).min(bytes.len() - done);
            let part = &bytes[done..done + count];
            if count as u64 == SECTOR && part.iter().all(|byte| *byte == 0) {
                self.sectors.remove(&(at / SECTOR));
            } else {
                let sector = self.sectors.entry(at / SECTOR).or_insert_with(|| Arc::new([0; SECTOR as usize]));
                Arc::make_mut(sector)[within..within + count].copy_from_slice(part);
            }
            done += count;
        }
    }

    /// Cuts or grows; what lies behind a cut reads as zeros when it comes back.
    pub(super) fn resize(&mut self, len: u64) {
        if len < self.len {
            self.sectors.split_off(&len.div_ceil(SECTOR));
            if let Some(sector) = self.sectors.get_mut(&(len / SECTOR)) {
                Arc::make_mut(sector)[(len % SECTOR) as usize..].fill(0);
            }
        }
        self.len = len;
    }

    fn sector(&self, number: u64) -> Option<Sector> {
        self.sectors.get(&number).cloned()
    }

    fn put(&mut self, number: u64, sector: Option<Sector>) {
        match sector {
            Some(sector) => _ = self.sectors.insert(number, sector),
            None => _ = self.sectors.remove(&number),
        }
    }
}

/// A file: what is read of it, what of that is on the disk, and what may get there any moment.
#[derive(Clone, Default, Debug)]
pub(super) struct FileState {
    /// What reads return.
    pub(super) cached: Content,
    /// What is left after a crash, at least.
    durable: Content,
    /// For every unsynced sector what it was after each write since, oldest first: any of them may be on the disk.
    dirty: BTreeMap<u64, Vec<Option<Sector>>>,
    /// The lengths that the file had since the last sync, oldest first.
    lengths: Vec<u64>,
    /// Sectors whose next sync does not reach the disk, or reaches another place of it.
    strays: BTreeMap<u64, Option<u64>>,
}

impl FileState {
    pub(super) fn created(size: u64) -> FileState {
        FileState { cached: Content::zeros(size), lengths: vec![size], ..FileState::default() }
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let before = self.cached.len();
        self.cached.write(offset, bytes);
        if self.cached.len() != before {
            self.lengths.push(self.cached.len());
        }
        for number in offset / SECTOR..(offset + bytes.len() as u64).div_ceil(SECTOR) {
            let sector = self.cached.sector(number);
            // What changes nothing leaves nothing open.
            let same = !self.strays.contains_key(&number) && sector == self.durable.sector(number);
            if !same || self.dirty.contains_key(&number) {
                self.dirty.entry(number).or_default().push(sector);
            }
        }
    }

    /// A write of which the disk makes nothing, or something in another place of the file, without a word.
    pub(super) fn write_astray(&mut self, offset: u64, bytes: &[u8], instead: Option<u64>) {
        let first = offset / SECTOR;
        for number in first..(offset + bytes.len() as u64).div_ceil(SECTOR) {
            self.strays.insert(number, instead.map(|instead| instead / SECTOR + number - first));
        }
        self.write(offset, bytes);
    }

    pub(super) fn resize(&mut self, len: u64) {
        // Sectors behind the cut are zeros if the cut does not outlive a crash but a later growth does: both are lengths.
        for number in len / SECTOR..self.cached.len().div_ceil(SECTOR) {
            if self.cached.sectors.contains_key(&number) || self.durable.sectors.contains_key(&number) {
                self.dirty.entry(number).or_default();
            }
        }
        self.cached.resize(len);
        self.lengths.push(len);
        for number in self.dirty.range(len / SECTOR..).map(|(number, _)| *number).collect::<Vec<_>>() {
            let sector = self.cached.sector(number);
            self.dirty.entry(number).or_default().push(sector);
        }
    }

    /// All that is unsynced gets to the disk.
    pub(super) fn sync(&mut self) {
        for number in std::mem::take(&mut self.dirty).into_keys() {
            self.settle(number, self.cached.sector(number));
        }
        self.lengths.clear();
        self.durable.resize(self.cached.len());
    }

    /// What of the unsynced `kept` says gets to the disk, and all of it counts as clean: nothing will write the rest unless
    /// it is written again. Reads go on to return it until it leaves the cache. So does Linux after an error of writeback.
    pub(super) fn sync_fails(&mut self, mut kept: impl FnMut() -> bool) {
        for number in std::mem::take(&mut self.dirty).into_keys() {
            if kept() {
                self.settle(number, self.cached.sector(number));
            }
        }
        if !self.lengths.is_empty() && kept() {
            self.durable.resize(self.cached.len());
        }
        self.lengths.clear();
    }

    fn settle(&mut self, number: u64, sector: Option<Sector>) {
        match self.strays.remove(&number) {
            None => self.durable.put(number, sector),
            Some(None) => {}
            Some(Some(instead)) => self.durable.put(instead, sector),
        }
    }

    /// The sectors that may or may not be on the disk, with how many states each may be in.
    pub(super) fn unsynced(&self) -> impl Iterator<Item = (u64, usize)> {
        self.dirty.iter().map(|(number, versions)| (*number, versions.len() + 1))
    }

    /// In how many lengths a crash may leave the file.
    pub(super) fn unsynced_lengths(&self) -> usize {
        self.lengths.len() + 1
    }

    /// The file after a crash. `choose` is asked for each unsynced sector, by number, and then for the length, which of the
    /// states it had is kept: the oldest, which is the durable one, is 0.
    pub(super) fn crash(&mut self, mut choose: impl FnMut(Option<u64>, usize) -> usize) {
        for (number, mut versions) in std::mem::take(&mut self.dirty) {
            if let Some(kept) = choose(Some(number), versions.len() + 1).checked_sub(1) {
                let sector = versions.swap_remove(kept);
                self.settle(number, sector);
            }
        }
        let lengths = std::mem::take(&mut self.lengths);
        if !lengths.is_empty()
            && let Some(kept) = choose(None, lengths.len() + 1).checked_sub(1)
        {
            self.durable.resize(lengths[kept]);
        } else {
            self.durable.resize(self.durable.len());
        }
        let len = self.durable.len();
        self.durable.sectors.split_off(&len.div_ceil(SECTOR));
        self.strays.clear();
        self.cached = self.durable.clone();
    }

    /// What is clean leaves the cache: it is read from the disk again. The length is not among that.
    pub(super) fn evict(&mut self) {
        let known: BTreeSet<u64> = self.cached.sectors.keys().chain(self.durable.sectors.keys()).copied().collect();
        for number in known {
            if !self.dirty.contains_key(&number) && number * SECTOR < self.cached.len() {
                self.cached.put(number, self.durable.sector(number));
            }
        }
    }

    /// Whether these bytes are on the disk, whatever happens to the cache.
    pub(super) fn holds(&self, offset: u64, bytes: &[u8]) -> bool {
        let shortest = self.lengths.iter().copied().chain([self.durable.len()]).min().unwrap_or(0);
        offset + bytes.len() as u64 <= shortest && self.durable.read(offset, bytes.len() as u64) == bytes
    }

    /// Changes what is on the disk, and what the cache holds of it where that is clean.
    pub(super) fn damage(&mut self, offset: u64, change: impl FnOnce(&mut u8)) {
        if offset < self.durable.len() {
            let mut byte = self.durable.read(offset, 1)[0];
            change(&mut byte);
            self.durable.write(offset, &[byte]);
        }
    }

    /// The length on the disk.
    pub(super) fn durable_len(&self) -> u64 {
        self.durable.len()
    }

    /// Cuts the file on the disk.
    pub(super) fn damage_len(&mut self, len: u64) {
        self.durable.resize(len.min(self.durable.len()));
        self.cached.resize(len.min(self.cached.len()));
    }

    /// A file that holds what is read of this one, all of it on the disk.
    pub(super) fn copied(&self) -> FileState {
        FileState { cached: self.cached.clone(), durable: self.cached.clone(), ..FileState::default() }
    }

    /// A file of these bytes, on the disk.
    pub(super) fn of(bytes: &[u8]) -> FileState {
        let mut content = Content::zeros(bytes.len() as u64);
        content.write(0, bytes);
        FileState { cached: content.clone(), durable: content, ..FileState::default() }
    }

    /// The sectors that hold something, on the disk.
    pub(super) fn written(&self) -> Vec<u64> {
        self.durable.sectors.keys().copied().collect()
    }
}
