//! The disk seam of `vine_core::log::disk` on one real directory.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, FallocateFlags, fadvise};
use rustix::io::Errno;
use vine_core::log::disk::{DiskDone, DiskError, DiskErrorKind, DiskOp, DiskResult, FileId};

/// Files that are kept open; what is written and not yet synced stays open beyond that.
const MAX_OPEN: usize = 64;

/// Reads and writes of so many bytes are parts of longer ones.
const LONG: usize = 64 * 1024;

/// How much the host is asked to read ahead.
const READ_AHEAD: usize = 2 * 1024 * 1024;

/// The most that is left free where the caller names no reserve.
const DEFAULT_RESERVE: u64 = 256 * 1024 * 1024;

/// Why a directory cannot hold a store.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {}: {error}", path.display())]
pub struct FileSystemError {
    /// What was tried.
    pub what: &'static str,
    /// The file or directory.
    pub path: PathBuf,
    /// What the system says.
    pub error: io::Error,
}

/// What is free on a file system, for a store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Room {
    /// Bytes that are free.
    pub free: u64,
    /// How many of them stay free.
    pub reserve: u64,
}

/// The room for a store in `dir`, which is there, with this reserve; see [`Files::open`].
///
/// # Errors
///
/// What the system says, with the path.
pub fn room(dir: &Path, reserve: Option<u64>) -> Result<Room, FileSystemError> {
    let files = Files::over(dir, reserve, true)?;
    files.room().map_err(|error| FileSystemError { what: "look at the room in", path: dir.to_owned(), error })
}

/// The files of one store: performs [`DiskOp`]s, one after the other.
///
/// Segments are named `%016x.seg`; other files in the directory are left alone.
#[derive(Debug)]
pub struct Files {
    dir: PathBuf,
    /// The directory, open to be synced.
    handle: File,
    /// Bytes that stay free on the file system when a file is made; `None`: the smaller of 1/64 of it and 256 MiB.
    reserve: Option<u64>,
    read_only: bool,
    open: BTreeMap<FileId, Open>,
    /// Counts uses of files, to find the one that was not needed for longest.
    uses: u64,
    /// Writes and syncs fail while this is set.
    #[cfg(test)]
    pub(crate) is_broken: std::sync::Arc<std::sync::atomic::AtomicBool>,
}

#[derive(Debug)]
struct Open {
    file: File,
    /// Something was written and not synced: a descriptor that is closed now would never hear that it failed.
    is_dirty: bool,
    used: u64,
}

impl Files {
    /// Opens the directory of a store, and makes it (mode 0700) with its parents where it is missing.
    ///
    /// `reserve` is how many bytes of the file system stay free: a file that would leave less is refused with
    /// [`DiskErrorKind::NoSpace`]. `None` stands for the smaller of 1/64 of the file system and 256 MiB.
    ///
    /// # Errors
    ///
    /// What the system says, with the path.
    pub fn open(dir: &Path, reserve: Option<u64>) -> Result<Files, FileSystemError> {
        make_dir(dir)?;
        Files::over(dir, reserve, false)
    }

    /// Opens the directory of a store that is only read: nothing is made, written or synced.
    ///
    /// # Errors
    ///
    /// What the system says, with the path.
    pub fn open_read_only(dir: &Path) -> Result<Files, FileSystemError> {
        Files::over(dir, None, true)
    }

    fn over(dir: &Path, reserve: Option<u64>, read_only: bool) -> Result<Files, FileSystemError> {
        let failed = |error| FileSystemError { what: "open the directory", path: dir.to_owned(), error };
        let handle = File::open(dir).map_err(failed)?;
        if !handle.metadata().map_err(failed)?.is_dir() {
            return Err(failed(io::Error::from(io::ErrorKind::NotADirectory)));
        }
        Ok(Files {
            dir: dir.to_owned(),
            handle,
            reserve,
            read_only,
            open: BTreeMap::new(),
            uses: 0,
            #[cfg(test)]
            is_broken: std::sync::Arc::default(),
        })
    }

    /// Where the files lie.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Performs one operation; when this returns it has been done, or has failed.
    ///
    /// # Errors
    ///
    /// What the system says, as far as the log tells failures apart, with its error number.
    pub fn perform(&mut self, op: &DiskOp) -> DiskResult {
        let writes = !matches!(op, DiskOp::List | DiskOp::Read { .. });
        if self.read_only && writes {
            return Err(DiskError { kind: DiskErrorKind::ReadOnly, code: 0 });
        }
        #[cfg(test)]
        if writes && self.is_broken.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(disk_error(&Errno::IO.into()));
        }
        let done = match op {
            DiskOp::List => return self.list().map(DiskDone::Listed).map_err(|error| disk_error(&error)),
            DiskOp::Read { file, offset, len } => {
                return self.read(*file, *offset, *len).map(DiskDone::Read).map_err(|error| disk_error(&error));
            }
            DiskOp::Create { file, size } => self.create(*file, *size),
            DiskOp::Write { file, offset, bytes } => self.write(*file, *offset, bytes),
            DiskOp::Sync { file } => self.sync(*file),
            DiskOp::SyncDir => self.handle.sync_all(),
            DiskOp::Truncate { file, size } => self.truncate(*file, *size),
            DiskOp::Remove { file } => {
                self.open.remove(file);
                fs::remove_file(self.path(*file))
            }
        };
        done.map(|()| DiskDone::Done).map_err(|error| disk_error(&error))
    }

    /// The segments of the directory and their lengths in bytes.
    pub(crate) fn list(&self) -> io::Result<Vec<(FileId, u64)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let Some(file) = entry.file_name().to_str().and_then(segment_number) else { continue };
            let metadata = entry.metadata()?;
            if metadata.is_file() {
                files.push((file, metadata.len()));
            }
        }
        Ok(files)
    }

    fn create(&mut self, id: FileId, size: u64) -> io::Result<()> {
        let path = self.path(id);
        if self.has_room(size)? {
            let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
            match self.reserve(&file, size) {
                Ok(()) => {
                    self.uses += 1;
                    self.open.insert(id, Open { file, is_dirty: true, used: self.uses });
                    return Ok(());
                }
                Err(error) => {
                    // Or the next attempt would find it. A file that stays is an empty segment, which recovery tells.
                    _ = fs::remove_file(&path);
                    return Err(error);
                }
            }
        }
        // `Exists` goes before `NoSpace`: it would not go away with more space.
        Err(if path.exists() { Errno::EXIST.into() } else { io::ErrorKind::StorageFull.into() })
    }

    /// Gives a new file its length and its space. That its blocks are also filled is the log's concern, which does so ahead
    /// of its writes.
    fn reserve(&self, file: &File, size: u64) -> io::Result<()> {
        if size == 0 {
            return Ok(());
        }
        match retry(|| rustix::fs::fallocate(file, FallocateFlags::empty(), 0, size)) {
            Ok(()) => {}
            // Here only what is written is reserved.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => fill(file, size)?,
            Err(errno) => return Err(errno.into()),
        }
        // Others write to this file system too.
        if self.has_room(0)? { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
    }

    /// Whether the reserve is still free when `size` bytes more are taken.
    fn has_room(&self, size: u64) -> io::Result<bool> {
        let Room { free, reserve } = self.room()?;
        Ok(free >= reserve.saturating_add(size))
    }

    fn room(&self) -> io::Result<Room> {
        let stat = retry(|| rustix::fs::fstatvfs(&self.handle))?;
        if stat.f_blocks == 0 {
            return Ok(Room { free: u64::MAX, reserve: 0 }); // Not a file system that counts.
        }
        let block = stat.f_frsize.max(1);
        let reserve = self.reserve.unwrap_or((stat.f_blocks.saturating_mul(block) / 64).min(DEFAULT_RESERVE));
        Ok(Room { free: stat.f_bavail.saturating_mul(block), reserve })
    }

    fn write(&mut self, id: FileId, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let open = self.opened(id)?;
        open.is_dirty = true;
        open.file.write_all_at(bytes, offset)?;
        if bytes.len() >= LONG {
            // Linux begins to write such pages out when it is told that they are not needed, and keeps them while it does. The
            // sync that follows finds less left to do; if this fails, it finds all of it.
            advise(&open.file, offset, bytes.len(), Advice::DontNeed);
        }
        Ok(())
    }

    fn read(&mut self, id: FileId, offset: u64, len: u32) -> io::Result<Vec<u8>> {
        let file = &self.opened(id)?.file;
        let mut bytes = vec![0; len as usize];
        let mut have = 0;
        while let Some(rest) = bytes.get_mut(have..).filter(|rest| !rest.is_empty()) {
            match file.read_at(rest, offset + have as u64) {
                Ok(0) => break,
                Ok(more) => have += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        bytes.truncate(have);
        if have >= LONG {
            // Who reads that much reads on: the disk works while what was read is looked at.
            advise(file, offset + have as u64, READ_AHEAD, Advice::WillNeed);
        }
        Ok(bytes)
    }

    fn sync(&mut self, id: FileId) -> io::Result<()> {
        let open = self.opened(id)?;
        open.file.sync_data()?;
        open.is_dirty = false;
        Ok(())
    }

    fn truncate(&mut self, id: FileId, size: u64) -> io::Result<()> {
        let open = self.opened(id)?;
        open.is_dirty = true;
        open.file.set_len(size)
    }

    fn opened(&mut self, id: FileId) -> io::Result<&mut Open> {
        use std::collections::btree_map::Entry;
        if self.open.len() > MAX_OPEN {
            self.close_oldest(id);
        }
        self.uses += 1;
        let path = self.path(id);
        let open = match self.open.entry(id) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let file = OpenOptions::new().read(true).write(!self.read_only).open(path)?;
                entry.insert(Open { file, is_dirty: false, used: 0 })
            }
        };
        open.used = self.uses;
        Ok(open)
    }

    fn close_oldest(&mut self, but: FileId) {
        let idle = self.open.iter().filter(|(id, open)| **id != but && !open.is_dirty);
        if let Some(oldest) = idle.min_by_key(|(_, open)| open.used).map(|(id, _)| *id) {
            self.open.remove(&oldest);
        }
    }

    fn path(&self, file: FileId) -> PathBuf {
        self.dir.join(file.to_string())
    }
}

/// The number in the name of a segment.
fn segment_number(name: &str) -> Option<FileId> {
    let digits = name.strip_suffix(".seg")?;
    let is_lower_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if digits.len() != 16 || !digits.bytes().all(is_lower_hex) {
        return None;
    }
    u64::from_str_radix(digits, 16).ok().map(FileId)
}

/// Makes `dir` with its parents, and the names durable.
fn make_dir(dir: &Path) -> Result<(), FileSystemError> {
    if dir.is_dir() {
        return Ok(());
    }
    let parent = match dir.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => Path::new("/"),
    };
    make_dir(parent)?;
    let made = match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        made => made,
    };
    made.map_err(|error| FileSystemError { what: "make the directory", path: dir.to_owned(), error })?;
    let synced = File::open(parent).and_then(|parent| parent.sync_all());
    synced.map_err(|error| FileSystemError { what: "sync the directory", path: parent.to_owned(), error })
}

/// Writes zeros over the first `size` bytes of `file`.
fn fill(file: &File, size: u64) -> io::Result<()> {
    let zeros = vec![0; 64 * 1024];
    let mut at = 0;
    while at < size {
        let len = size.saturating_sub(at).min(zeros.len() as u64);
        file.write_all_at(zeros.get(..usize::try_from(len).unwrap_or(0)).unwrap_or_default(), at)?;
        at += len;
    }
    file.sync_data() // Some file systems take the space no earlier.
}

/// Tells the host what will be done with a part of a file. It may take no notice.
fn advise(file: &File, offset: u64, len: usize, advice: Advice) {
    let _only_advice = fadvise(file, offset, NonZeroU64::new(len as u64), advice);
}

/// Calls `call` until no signal interrupts it.
fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            done => return done,
        }
    }
}

fn disk_error(error: &io::Error) -> DiskError {
    let kind = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => DiskErrorKind::NoSpace,
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => DiskErrorKind::ReadOnly,
        io::ErrorKind::NotFound => DiskErrorKind::NotFound,
        io::ErrorKind::AlreadyExists => DiskErrorKind::Exists,
        _ => DiskErrorKind::Io,
    };
    DiskError { kind, code: error.raw_os_error().unwrap_or(0) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use bytes::Bytes;

    use super::*;

    const A: FileId = FileId(0xa);

    fn error(result: DiskResult) -> DiskErrorKind {
        result.unwrap_err().kind
    }

    fn write(offset: u64, bytes: &'static [u8]) -> DiskOp {
        DiskOp::Write { file: A, offset, bytes: Bytes::from_static(bytes) }
    }

    #[test]
    fn operations_do_what_the_seam_says() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("made/store");
        let mut files = Files::open(&dir, Some(0)).unwrap();
        assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
        fs::write(dir.join("000000000000000a.seg.bak"), "foreign").unwrap();
        fs::write(dir.join("000000000000000A.seg"), "foreign").unwrap();
        fs::create_dir(dir.join("000000000000000b.seg")).unwrap();
        assert_eq!(files.perform(&DiskOp::List), Ok(DiskDone::Listed(vec![])));
        assert_eq!(error(files.perform(&DiskOp::Read { file: A, offset: 0, len: 1 })), DiskErrorKind::NotFound);

        files.perform(&DiskOp::Create { file: A, size: 3 << 20 }).unwrap();
        let path = dir.join("000000000000000a.seg");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(error(files.perform(&DiskOp::Create { file: A, size: 1 })), DiskErrorKind::Exists);
        assert_eq!(files.perform(&DiskOp::List), Ok(DiskDone::Listed(vec![(A, 3 << 20)])));
        files.perform(&write((3 << 20) - 2, b"abcd")).unwrap();
        files.perform(&DiskOp::Sync { file: A }).unwrap();
        files.perform(&DiskOp::SyncDir).unwrap();
        let tail = files.perform(&DiskOp::Read { file: A, offset: (3 << 20) - 4, len: 100 });
        assert_eq!(tail, Ok(DiskDone::Read(b"\0\0abcd".to_vec())));
        let beyond = files.perform(&DiskOp::Read { file: A, offset: 4 << 20, len: 100 });
        assert_eq!(beyond, Ok(DiskDone::Read(vec![])));
        files.perform(&DiskOp::Truncate { file: A, size: 10 }).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 10);
        files.perform(&DiskOp::Remove { file: A }).unwrap();
        assert!(!path.exists());
        assert_eq!(error(files.perform(&DiskOp::Remove { file: A })), DiskErrorKind::NotFound);
        assert!(dir.join("000000000000000A.seg").exists());
    }

    #[test]
    fn a_file_that_would_eat_the_reserve_is_refused_and_not_made() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = Files::open(dir.path(), Some(u64::MAX / 2)).unwrap();
        assert_eq!(error(files.perform(&DiskOp::Create { file: A, size: 1 << 20 })), DiskErrorKind::NoSpace);
        assert_eq!(files.perform(&DiskOp::List), Ok(DiskDone::Listed(vec![])));
        fs::write(dir.path().join(A.to_string()), "").unwrap();
        assert_eq!(error(files.perform(&DiskOp::Create { file: A, size: 1 << 20 })), DiskErrorKind::Exists);
    }

    #[test]
    fn a_file_that_does_not_fit_is_not_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = Files::open(dir.path(), Some(0)).unwrap();
        // Beyond what any file may have: fallocate says EFBIG or ENOSPC.
        files.perform(&DiskOp::Create { file: A, size: i64::MAX as u64 }).unwrap_err();
        assert_eq!(files.perform(&DiskOp::List), Ok(DiskDone::Listed(vec![])));
        files.perform(&DiskOp::Create { file: A, size: 64 }).unwrap();
    }

    #[test]
    fn read_only_makes_and_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing");
        let refused = Files::open_read_only(&missing).unwrap_err().to_string();
        assert!(refused.contains("missing") && !missing.exists(), "{refused}");
        let mut files = Files::open(dir.path(), Some(0)).unwrap();
        files.perform(&DiskOp::Create { file: A, size: 64 }).unwrap();
        files.perform(&write(0, b"abcd")).unwrap();
        drop(files);
        let mut files = Files::open_read_only(dir.path()).unwrap();
        let ops = [
            DiskOp::Create { file: FileId(1), size: 1 },
            write(0, b"x"),
            DiskOp::Sync { file: A },
            DiskOp::SyncDir,
            DiskOp::Truncate { file: A, size: 0 },
            DiskOp::Remove { file: A },
        ];
        for op in ops {
            assert_eq!(error(files.perform(&op)), DiskErrorKind::ReadOnly, "{op:?}");
        }
        let read = files.perform(&DiskOp::Read { file: A, offset: 0, len: 4 });
        assert_eq!(read, Ok(DiskDone::Read(b"abcd".to_vec())));
        assert_eq!(files.perform(&DiskOp::List), Ok(DiskDone::Listed(vec![(A, 64)])));
    }

    #[test]
    fn few_files_stay_open() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = Files::open(dir.path(), Some(0)).unwrap();
        for n in 0..2 * MAX_OPEN as u64 {
            files.perform(&DiskOp::Create { file: FileId(n), size: 0 }).unwrap();
            files.perform(&DiskOp::Sync { file: FileId(n) }).unwrap();
        }
        for n in 0..2 * MAX_OPEN as u64 {
            files.perform(&DiskOp::Read { file: FileId(n), offset: 0, len: 1 }).unwrap();
        }
        assert!(files.open.len() <= MAX_OPEN + 1, "{}", files.open.len());
    }

    #[test]
    fn no_directory_where_a_file_is() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(Files::open_read_only(&file).is_err());
        let refused = Files::open(&file.join("store"), None).unwrap_err().to_string();
        assert!(refused.contains("file"), "{refused}");
    }
}
