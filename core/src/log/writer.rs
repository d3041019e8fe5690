//! Writes frames into segments: one write and one sync a batch, the next segment made ready meanwhile.
//!
//! The order is what the promise of the log rests on, and all of it is here:
//!
//! 1. A segment is created, its space reserved and its name made durable, before anything is written into it that matters.
//! 2. Its header is written when all of the segment before it is durable, and is durable itself before its first frame.
//! 3. Frames become durable by one sync. What they hold is reported after it came back, and never if it failed.
//! 4. An error of a write or a sync stops the writer for good: nobody knows what is on the disk. A new opening finds out.
//!
//! That the disk is full shows when a segment is created, and only there. Then appends are refused until there is room.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;

use super::disk::{DiskError, DiskErrorKind, DiskOp, DiskResult, FileId, MAX_FILE, Token};
use super::recover::SegmentInfo;
use super::segment::{
    FRAMES_AT, FrameHeader, FrameKind, Lsn, MAX_PLACE, MAX_SEGMENT, Previous, SegmentHeader, encode_frame, frame_len,
};
use crate::rng::Rng;
use crate::time::Instant;

/// What the first segment of an opening is long, unless segments are shorter anyway. Each later one is twice as long.
pub const FIRST_SEGMENT: u64 = 1024 * 1024;
/// After so long without a write a marker vouches for the last one.
pub const QUIET: Duration = Duration::from_millis(100);
/// A refused creation is tried again after this.
const RETRY: Duration = Duration::from_secs(1);
/// While nothing is written, so many pieces of zeros follow each other at this distance: writes that come wait for one of them at
/// most.
const QUIET_ZEROS: usize = 16;
const QUIET_STEP: Duration = Duration::from_millis(5);
/// Zeros are written ahead in pieces of this size. The sync of the header covers them; by then a good driver has them on the
/// disk.
const ZEROS_LEN: u64 = 64 * 1024;
/// Files are cut to a multiple of this: a block of the file system.
const BLOCK: u64 = 4096;
static ZEROS: [u8; ZEROS_LEN as usize] = [0; ZEROS_LEN as usize];

/// The end of what a store holds, as recovery found it.
#[derive(Clone, Debug, Default)]
pub struct Tail {
    /// The number of the next file.
    pub next_file: u64,
    /// The last segment.
    pub previous: Option<Previous>,
    /// The place where the next segment begins.
    pub base: Lsn,
    /// Length of all files.
    pub total: u64,
    /// Files that were made ready and never used, with their lengths.
    pub unused: Vec<(FileId, u64)>,
    /// A file with zeros behind its last frame: its number, its length and what it may be cut to.
    pub trim: Option<(FileId, u64, u64)>,
}

/// What of a configuration the writer needs.
#[derive(Clone, Copy, Debug)]
pub struct WriterConfig {
    /// The length of a segment, in the long run.
    pub segment_bytes: u64,
    /// What all files together may take.
    pub max_bytes: u64,
    /// Whose store this is.
    pub owner: [u8; 32],
    /// The hash of the network's name.
    pub network: [u8; 32],
}

/// Whether frames can be pushed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Room {
    /// There is room.
    Ready,
    /// There will be, or will not: [`WriterEvent::Room`] says when to ask again.
    Wait,
    /// There is none, for this reason.
    Refused(NoRoom),
}

/// Why there is no room.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NoRoom {
    /// The store has reached the size that its configuration gives it.
    #[error("the log has reached its limit of {limit} bytes (max_bytes)")]
    Limit {
        /// That size in bytes.
        limit: u64,
    },
    /// The next segment cannot be created.
    #[error("the log cannot grow: {0}")]
    Disk(DiskError),
    /// Numbers of files, ordinals or places have come to their end. Only a forged file brings a store there.
    #[error("the log cannot grow: its files have names, ordinals or places behind which there are none")]
    Numbers,
}

/// What a result of the disk brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WriterEvent {
    /// All frames that were flushed are durable.
    Durable,
    /// [`Writer::reserve`] may say something else now.
    Room,
    /// The disk failed. Nothing will be written any more.
    Stopped(Stopped),
    /// The store is closed.
    Closed,
}

/// A failure of the disk that ended all writing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{error}: {what}{}", AtFile(*file))]
pub struct Stopped {
    /// The failure.
    pub error: DiskError,
    /// What failed.
    pub what: &'static str,
    /// At which file.
    pub file: Option<FileId>,
}

struct AtFile(Option<FileId>);

impl core::fmt::Display for AtFile {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.map_or(Ok(()), |file| write!(f, " {file}"))
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Purpose {
    Create,
    /// Of this file's name.
    CreateDir(FileId),
    Zeros,
    Header,
    HeaderSync,
    Frames,
    FramesSync,
    /// Its failure costs space, nothing else.
    Tidy,
    LastTidy,
}

#[derive(Debug)]
struct Segment {
    file: FileId,
    size: u64,
    base: Lsn,
    nonce: [u8; 16],
    first_ordinal: u64,
    /// Where the next frame goes: behind all that was pushed.
    at: u64,
}

/// The segment that comes next.
#[derive(Debug)]
struct Ahead {
    file: FileId,
    size: u64,
    /// Created, and its name durable.
    ready: bool,
    zeroed: u64,
}

/// The writing end of a store.
#[derive(Debug)]
pub struct Writer {
    config: WriterConfig,
    rng: Rng,
    tail: Tail,
    current: Option<Segment>,
    ahead: Option<Ahead>,
    /// The header of the next segment is on its way.
    switching: Option<SegmentHeader>,
    refused: Option<(NoRoom, Instant)>,
    /// Frames for the current segment that were pushed and not written, and the place where they begin.
    batch: Vec<u8>,
    batch_at: u64,
    /// Frames are on their way, up to this place; what they hold besides markers ends at the second one.
    writing: Option<Lsn>,
    synced: Lsn,
    /// Everything below is durable, and a durable frame says so.
    vouched: Lsn,
    /// The end of the last frame that is no marker.
    data_end: Lsn,
    /// Behind the last op that was pushed.
    next_ordinal: u64,
    mark_at: Option<Instant>,
    /// When the segment ahead is filled further, while nothing else is written.
    fill_at: Option<Instant>,
    closing: bool,
    is_marked_closed: bool,
    is_tidying: bool,
    stopped: bool,
    next_token: u64,
    out: VecDeque<(Token, DiskOp)>,
    awaited: VecDeque<(Token, Purpose, &'static str, Option<FileId>)>,
}

impl Writer {
    /// A writer that goes on where `tail` ends. It does nothing before the first [`Writer::reserve`].
    pub fn new(config: WriterConfig, tail: Tail, rng: Rng) -> Writer {
        Writer {
            config,
            rng,
            synced: tail.base,
            vouched: tail.base,
            data_end: tail.base,
            tail,
            current: None,
            ahead: None,
            switching: None,
            refused: None,
            batch: Vec::new(),
            batch_at: 0,
            writing: None,
            next_ordinal: 0,
            mark_at: None,
            fill_at: None,
            closing: false,
            is_marked_closed: false,
            is_tidying: false,
            stopped: false,
            next_token: 0,
            out: VecDeque::new(),
            awaited: VecDeque::new(),
        }
    }

    /// Whether frames are on their way to the disk, or a segment is being changed.
    pub fn is_busy(&self) -> bool {
        self.writing.is_some() || self.switching.is_some()
    }

    /// Everything below this place is durable.
    pub fn synced(&self) -> Lsn {
        self.synced
    }

    /// Length of all files.
    pub fn total(&self) -> u64 {
        self.tail.total
    }

    /// The segment that is written into; it ends where it is durable.
    pub fn open_segment(&self) -> Option<SegmentInfo> {
        let current = self.current.as_ref()?;
        let &Segment { file, base, nonce, first_ordinal, .. } = current;
        Some(SegmentInfo { file, nonce, base, first_ordinal, end: self.synced.saturating_sub(base) })
    }

    /// The next operation for the disk.
    pub fn poll(&mut self) -> Option<(Token, DiskOp)> {
        self.out.pop_front()
    }

    /// When [`Writer::handle_timeout`] has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.mark_at.into_iter().chain(self.fill_at).min()
    }

    /// Writes a marker where it is due, and zeros while there is time for them.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.mark_at.is_some_and(|at| at <= now) {
            self.mark_at = None;
            self.mark(now, FrameKind::Marker);
        }
        if self.fill_at.is_some_and(|at| at <= now) {
            let more = (0..QUIET_ZEROS).all(|_| self.write_zeros());
            self.fill_at = more.then(|| now + QUIET_STEP);
        }
    }

    /// Makes room for frames of `len` bytes together, the first of which takes `next_ordinal`.
    pub fn reserve(&mut self, now: Instant, len: u64, next_ordinal: u64) -> Room {
        // A marker fits behind everything.
        let needed = len + frame_len(0);
        if self.current.as_ref().is_some_and(|current| current.at + needed <= current.size) {
            return Room::Ready;
        }
        if self.is_busy() || !self.batch.is_empty() || self.closing || self.stopped {
            return Room::Wait;
        }
        match &self.ahead {
            Some(ahead) if !ahead.ready => Room::Wait,
            _ if self.base().max(next_ordinal) > MAX_PLACE - MAX_SEGMENT || self.tail.next_file > MAX_FILE => {
                Room::Refused(NoRoom::Numbers)
            }
            Some(ahead) if FRAMES_AT + needed <= ahead.size => {
                self.switch(next_ordinal);
                Room::Wait
            }
            Some(_) => {
                self.drop_ahead(true);
                self.create(now, needed)
            }
            None => self.create(now, needed),
        }
    }

    /// Adds a frame. There must be [`Room`] for it.
    pub fn push(&mut self, kind: FrameKind, count: u32, first_ordinal: u64, body: &[&[u8]]) {
        let Some(current) = &mut self.current else { return };
        if self.batch.is_empty() {
            self.batch_at = current.at;
        }
        let header = FrameHeader { kind, count, first_ordinal, synced_upto: self.synced };
        let before = self.batch.len();
        encode_frame(&mut self.batch, &current.nonce, current.at, &header, body);
        current.at += (self.batch.len() - before) as u64;
        self.next_ordinal = first_ordinal + u64::from(count);
        if matches!(kind, FrameKind::Genesis | FrameKind::Commit) {
            self.data_end = current.base + current.at;
        }
    }

    /// Sends what was pushed to the disk.
    pub fn flush(&mut self, now: Instant) {
        let Some(current) = &self.current else { return };
        if self.batch.is_empty() || self.writing.is_some() {
            return;
        }
        let (file, end) = (current.file, current.base + current.at);
        let bytes = Bytes::from(core::mem::take(&mut self.batch));
        self.writing = Some(end);
        self.mark_at = None;
        self.fill_at = None;
        self.emit(Purpose::Frames, DiskOp::Write { file, offset: self.batch_at, bytes });
        self.emit(Purpose::FramesSync, DiskOp::Sync { file });
        self.prepare_ahead(now);
    }

    /// Ends the store: what was pushed is finished, then it is vouched for, and files are cut to what they hold.
    pub fn close(&mut self, now: Instant) {
        self.closing = true;
        self.go_on_closing(now);
    }

    /// Takes a result. Results come in the order of the operations.
    pub fn handle(&mut self, now: Instant, token: Token, result: DiskResult) -> Option<WriterEvent> {
        let at = self.awaited.iter().position(|(awaited, ..)| *awaited == token)?;
        let (_, purpose, what, file) = self.awaited.remove(at)?;
        if self.stopped {
            return None;
        }
        match result {
            Ok(_) => self.done(now, purpose),
            Err(error) => self.failed(now, purpose, Stopped { error, what, file }),
        }
    }

    fn done(&mut self, now: Instant, purpose: Purpose) -> Option<WriterEvent> {
        match purpose {
            Purpose::CreateDir(file) => {
                if let Some(ahead) = self.ahead.as_mut().filter(|ahead| ahead.file == file) {
                    ahead.ready = true;
                }
                Some(WriterEvent::Room)
            }
            Purpose::HeaderSync => {
                self.switched();
                self.go_on_closing(now);
                Some(WriterEvent::Room)
            }
            Purpose::FramesSync => {
                let end = self.writing.take()?;
                // The frames carried what was synced before them.
                self.vouched = self.vouched.max(self.synced);
                self.synced = end;
                let is_vouched = self.data_end <= self.vouched;
                self.mark_at = (!is_vouched).then(|| now + QUIET);
                let may_fill = !self.closing && self.ahead.as_ref().is_some_and(|ahead| ahead.ready);
                self.fill_at = (is_vouched && may_fill).then_some(now);
                self.go_on_closing(now);
                Some(WriterEvent::Durable)
            }
            Purpose::LastTidy => Some(WriterEvent::Closed),
            Purpose::Create | Purpose::Zeros | Purpose::Header | Purpose::Frames | Purpose::Tidy => None,
        }
    }

    fn failed(&mut self, now: Instant, purpose: Purpose, stopped: Stopped) -> Option<WriterEvent> {
        let full = stopped.error.kind == DiskErrorKind::NoSpace;
        match purpose {
            Purpose::Tidy => None,
            Purpose::LastTidy => Some(WriterEvent::Closed),
            Purpose::Create => {
                self.refuse(now, NoRoom::Disk(stopped.error));
                Some(WriterEvent::Room)
            }
            // Space that could not be reserved: the segment is given up before it holds anything.
            Purpose::Zeros if full && self.switching.is_none() => {
                self.refuse(now, NoRoom::Disk(stopped.error));
                Some(WriterEvent::Room)
            }
            _ => {
                self.stopped = true;
                self.mark_at = None;
                self.fill_at = None;
                self.out.clear();
                Some(WriterEvent::Stopped(stopped))
            }
        }
    }

    fn refuse(&mut self, now: Instant, why: NoRoom) {
        // A file that was there already is somebody else's.
        let exists = matches!(why, NoRoom::Disk(DiskError { kind: DiskErrorKind::Exists, .. }));
        self.drop_ahead(!exists);
        self.refused = Some((why, now + RETRY));
    }

    fn emit(&mut self, purpose: Purpose, op: DiskOp) {
        let token = Token(self.next_token);
        self.next_token += 1;
        self.awaited.push_back((token, purpose, op.name(), op.file()));
        self.out.push_back((token, op));
    }

    /// Begins with the next segment, which has to hold `needed` bytes of frames.
    fn create(&mut self, now: Instant, needed: u64) -> Room {
        if let Some((why, until)) = self.refused
            && now < until
        {
            return Room::Refused(why);
        }
        self.refused = None;
        // What an opening found unused is free, and so are the zeros that will be cut off once the next header is durable.
        for (file, len) in core::mem::take(&mut self.tail.unused) {
            self.tail.total -= len;
            self.emit(Purpose::Tidy, DiskOp::Remove { file });
        }
        let trimmed = self.tail.trim.map_or(0, |(_, len, size)| len - size);
        let long_run = self.config.segment_bytes.min(MAX_SEGMENT);
        let doubled = self.current.as_ref().map_or(FIRST_SEGMENT, |current| current.size.saturating_mul(2));
        let least = (FRAMES_AT + needed).next_multiple_of(BLOCK);
        let left = self.config.max_bytes.saturating_sub(self.tail.total - trimmed) / BLOCK * BLOCK;
        let size = doubled.min(long_run).next_multiple_of(BLOCK).max(least).min(left);
        if size < least {
            let why = NoRoom::Limit { limit: self.config.max_bytes };
            self.refused = Some((why, now + RETRY));
            return Room::Refused(why);
        }
        let file = FileId(self.tail.next_file);
        self.tail.next_file += 1;
        self.tail.total += size;
        self.ahead = Some(Ahead { file, size, ready: false, zeroed: 0 });
        self.emit(Purpose::Create, DiskOp::Create { file, size });
        self.emit(Purpose::CreateDir(file), DiskOp::SyncDir);
        Room::Wait
    }

    /// Gives up the segment ahead, and its file unless that is not ours.
    fn drop_ahead(&mut self, remove: bool) {
        let Some(ahead) = self.ahead.take() else { return };
        self.tail.total -= ahead.size;
        for (_, purpose, _, file) in &mut self.awaited {
            if *file == Some(ahead.file) {
                *purpose = Purpose::Tidy;
            }
        }
        if remove {
            self.emit(Purpose::Tidy, DiskOp::Remove { file: ahead.file });
        }
    }

    /// Writes the header of the next segment. All that the current one holds is durable.
    fn switch(&mut self, next_ordinal: u64) {
        let previous =
            self.current.as_ref().map(|current| Previous { file: current.file, nonce: current.nonce, end: current.at });
        let base = self.base();
        // The first segment of an opening had no time to be filled.
        if self.current.is_none() {
            while self.write_zeros() {}
        }
        let Some(ahead) = &self.ahead else { return };
        let header = SegmentHeader {
            file: ahead.file,
            size: ahead.size,
            base,
            first_ordinal: next_ordinal,
            nonce: self.rng.array(),
            owner: self.config.owner,
            network: self.config.network,
            previous: previous.or(self.tail.previous),
        };
        let (file, bytes) = (ahead.file, Bytes::from(header.encode()));
        self.switching = Some(header);
        self.fill_at = None;
        self.emit(Purpose::Header, DiskOp::Write { file, offset: 0, bytes });
        self.emit(Purpose::HeaderSync, DiskOp::Sync { file });
    }

    /// The place where the next segment begins.
    fn base(&self) -> Lsn {
        self.current.as_ref().map_or(self.tail.base, |current| current.base + current.at)
    }

    fn switched(&mut self) {
        let Some(header) = self.switching.take() else { return };
        self.ahead = None;
        let SegmentHeader { file, size, base, nonce, first_ordinal, .. } = header;
        self.current = Some(Segment { file, size, base, nonce, first_ordinal, at: FRAMES_AT });
        self.synced = base + FRAMES_AT;
        self.next_ordinal = first_ordinal;
        // The header vouches for what lies before it.
        self.vouched = self.vouched.max(base);
        if let Some((file, len, size)) = self.tail.trim.take() {
            self.tail.total -= len - size;
            self.emit(Purpose::Tidy, DiskOp::Truncate { file, size });
        }
    }

    /// Creates the next segment in time, and fills it with zeros as fast as the current one fills.
    fn prepare_ahead(&mut self, now: Instant) {
        let Some(current) = &self.current else { return };
        let (at, size) = (current.at, current.size);
        // From a quarter on it is made; by seven eighths it is filled.
        if at < size / 4 || self.closing {
            return;
        }
        match &self.ahead {
            None if self.refused.is_none() && self.tail.next_file <= MAX_FILE => {
                self.create(now, 0);
            }
            Some(ahead) if ahead.ready => {
                let passed = (at - size / 4).min(size * 5 / 8);
                let goal =
                    u64::try_from(u128::from(ahead.size) * u128::from(passed) / u128::from((size * 5 / 8).max(1)));
                let goal = goal.unwrap_or(u64::MAX);
                while self.ahead.as_ref().is_some_and(|ahead| ahead.zeroed < goal) && self.write_zeros() {}
            }
            _ => {}
        }
    }

    /// Writes the next piece of zeros into the segment ahead. Returns whether there was something left.
    fn write_zeros(&mut self) -> bool {
        let Some(ahead) = &mut self.ahead else { return false };
        let len = (ahead.size - ahead.zeroed).min(ZEROS_LEN);
        if len == 0 {
            return false;
        }
        let (file, offset) = (ahead.file, ahead.zeroed);
        ahead.zeroed += len;
        self.emit(
            Purpose::Zeros,
            DiskOp::Write { file, offset, bytes: Bytes::from_static(&ZEROS).slice(..len as usize) },
        );
        true
    }

    /// Writes a frame that says what is durable. Returns whether there was room for it.
    fn mark(&mut self, now: Instant, kind: FrameKind) -> bool {
        let fits = self.current.as_ref().is_some_and(|current| current.at + frame_len(0) <= current.size);
        if self.is_busy() || !self.batch.is_empty() || self.stopped || !fits {
            return false;
        }
        self.push(kind, 0, self.next_ordinal, &[]);
        self.flush(now);
        true
    }

    fn go_on_closing(&mut self, now: Instant) {
        if !self.closing || self.stopped || self.is_busy() || !self.batch.is_empty() || self.is_tidying {
            return;
        }
        if !self.is_marked_closed && self.mark(now, FrameKind::Closed) {
            self.is_marked_closed = true;
            return;
        }
        self.is_tidying = true;
        self.fill_at = None;
        self.drop_ahead(true);
        if let Some(current) = &self.current {
            let (file, size) = (current.file, current.at.next_multiple_of(BLOCK));
            if size < current.size {
                self.tail.total -= current.size - size;
                self.emit(Purpose::Tidy, DiskOp::Truncate { file, size });
            }
        }
        self.emit(Purpose::LastTidy, DiskOp::SyncDir);
    }
}
