//! The store's thread: owns the state machine, its files and its lock, and does for it what it asks.
//!
//! One round is: carry out all effects, answer, wait a moment for those who were answered to write again, take all that is
//! queued. So one commit and one sync cover everything that came in during the sync before.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;
use std::thread;
use std::time::{Duration, Instant as Clock, SystemTime};

use vine_core::log::Record;
use vine_core::log::disk::{DiskOp, DiskResult};
use vine_core::log::reader::Cursor;
use vine_core::log::report::OpenError;
use vine_core::log::store::{AppendError, Effect, MAX_READS, Store, StoreEvent, Ticket};
use vine_core::log::writer::Stopped;
use vine_core::{Identity, Instant, UnixTime};

use crate::error::StoreError;
use crate::files::Files;
use crate::inbox::Inbox;
use crate::lock::Lock;
use crate::reply::Reply;
use crate::request::{Batch, Kind, Load, Read, Request, import_bytes};
use crate::tickets::Tickets;
use crate::verifier::Verifier;
use crate::{Figures, Imported, Position, Status};

/// The longest wait for writers that were just answered. A sync takes longer on all but the fastest disks.
const GATHER: Duration = Duration::from_micros(200);
/// Nobody came for so long: nobody will.
const GATHER_QUIET: Duration = Duration::from_micros(50);

/// What the thread works with.
pub(crate) struct Worker {
    inbox: Arc<Inbox>,
    store: Store,
    files: Files,
    identity: Option<Arc<Identity>>,
    /// Held for as long as this lives; by a reader until it has listed the files.
    lock: Option<Lock>,
    /// Where the time axis of the store begins.
    origin: Clock,
    writers: Tickets<Writer>,
    readers: Tickets<Reader>,
    /// Readers at the end of the log.
    followers: Vec<Reader>,
    /// Readers that the store has no room for yet.
    waiting_reads: VecDeque<Reader>,
    /// Imports behind the one that the store is at.
    waiting_imports: VecDeque<Import>,
    is_importing: bool,
    verifier: Verifier,
    /// Why the log does not grow any more.
    stopped: Option<Stopped>,
    opened: Option<Reply<()>>,
    refused: Option<OpenError>,
    closers: Vec<Reply<()>>,
    /// The store was told.
    is_closing: bool,
    is_closed: bool,
    /// Requests that were taken out of the inbox.
    taken: Vec<Request>,
    /// Who is to be woken.
    wakers: Vec<Waker>,
    /// How many writers were answered since requests were last taken.
    answered: usize,
    figures: Figures,
}

/// Who waits for something to become durable.
#[derive(Debug)]
enum Writer {
    Append(Reply<Position>),
    Import(Reply<Imported>),
}

#[derive(Debug)]
struct Import {
    records: Vec<Record>,
    bytes: usize,
    reply: Reply<Imported>,
}

#[derive(Debug)]
struct Reader {
    read: Read,
    /// The end of the log when the reading was asked for.
    until: u64,
    reply: Reply<Batch>,
}

impl Writer {
    fn fail(self, error: StoreError) {
        match self {
            Writer::Append(reply) => reply.send(Err(error)),
            Writer::Import(reply) => reply.send(Err(error)),
        }
    }
}

/// What a worker is made from.
pub(crate) struct Parts {
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) store: Store,
    pub(crate) files: Files,
    pub(crate) identity: Option<Arc<Identity>>,
    pub(crate) lock: Option<Lock>,
    pub(crate) origin: Clock,
    pub(crate) opened: Reply<()>,
}

/// How the thread ended.
pub(crate) struct Ended {
    /// Who closed the store.
    pub(crate) closers: Vec<Reply<()>>,
    /// Why it was never open.
    pub(crate) refused: Option<OpenError>,
}

/// Wall-clock time as the core takes it.
pub(crate) fn unix_time() -> UnixTime {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    UnixTime(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

impl Worker {
    pub(crate) fn new(parts: Parts) -> Worker {
        let Parts { inbox, store, files, identity, lock, origin, opened } = parts;
        Worker {
            inbox,
            store,
            files,
            identity,
            lock,
            origin,
            writers: Tickets::default(),
            readers: Tickets::default(),
            followers: Vec::new(),
            waiting_reads: VecDeque::new(),
            waiting_imports: VecDeque::new(),
            is_importing: false,
            verifier: Verifier::default(),
            stopped: None,
            opened: Some(opened),
            refused: None,
            closers: Vec::new(),
            is_closing: false,
            is_closed: false,
            taken: Vec::new(),
            wakers: Vec::new(),
            answered: 0,
            figures: Figures::default(),
        }
    }

    /// Works until the store is closed.
    pub(crate) fn run(&mut self) {
        loop {
            self.settle();
            if self.is_closed {
                return;
            }
            self.gather();
            if self.inbox.len() == 0 {
                // Who waits for room comes before this sleeps, or wakes it.
                self.inbox.hold(self.held());
                self.sleep();
            }
            self.take();
            let now = self.now();
            if self.store.poll_timeout().is_some_and(|deadline| deadline <= now) {
                self.store.handle_timeout(now);
            }
        }
    }

    /// Ends: what is left unanswered is answered as the inbox was closed, when this is dropped.
    pub(crate) fn end(&mut self) -> Ended {
        Ended { closers: std::mem::take(&mut self.closers), refused: self.refused.take() }
    }

    fn now(&self) -> Instant {
        Instant::from_nanos(u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// Carries out effects until there are none, and answers as soon as something is done.
    fn settle(&mut self) {
        loop {
            while let Some((token, verdicts)) = self.verifier.verified() {
                self.store.handle_verified(self.now(), token, verdicts);
            }
            self.handle_events();
            self.hand_in();
            // Asking for an effect may bring an event instead.
            let Some(effect) = self.store.poll_effect() else {
                if self.handle_events() {
                    continue;
                }
                return;
            };
            match effect {
                Effect::Disk(token, op) => {
                    let result = self.perform(&op);
                    self.store.handle_disk(self.now(), token, result);
                }
                Effect::Hash(token, commit) => self.store.handle_hashed(token, commit.verify_ops().is_ok()),
                Effect::Verify(token, unverified) => {
                    if let Some((token, verdicts)) = self.verifier.verify(token, unverified) {
                        self.store.handle_verified(self.now(), token, verdicts);
                    }
                }
                Effect::Sign(token, draft) => {
                    // A store that is only read asks for none.
                    let Some(identity) = &self.identity else { continue };
                    let began = Clock::now();
                    let commit = draft.sign(identity);
                    self.figures.signed(began.elapsed());
                    self.store.handle_signed(self.now(), token, commit);
                }
            }
        }
    }

    fn perform(&mut self, op: &DiskOp) -> DiskResult {
        if !matches!(op, DiskOp::Sync { .. }) {
            let result = self.files.perform(op);
            if matches!(op, DiskOp::List) && self.identity.is_none() {
                self.lock = None;
            }
            return result;
        }
        let began = Clock::now();
        let result = self.files.perform(op);
        self.figures.synced(began.elapsed());
        result
    }

    /// Tells what happened to whom it concerns. Returns whether anything did.
    fn handle_events(&mut self) -> bool {
        let (mut any, mut grew) = (false, false);
        while let Some(event) = self.store.poll_event() {
            any = true;
            match event {
                StoreEvent::Opened => self.is_open(Ok(())),
                StoreEvent::Refused(error) => {
                    self.refused = Some(error);
                    self.is_closed = true;
                }
                StoreEvent::Durable { ticket, log, first_seq, first_ordinal, count } => {
                    grew = true;
                    self.answer(ticket, Ok(Position { log, first_seq, first_ordinal, count }));
                }
                StoreEvent::Imported { ticket, new, known, uncompared } => {
                    grew = true;
                    self.answer_import(ticket, Ok(Imported { new, known, uncompared }));
                }
                StoreEvent::ImportRefused { ticket, record, refusal } => {
                    self.answer_import(ticket, Err(StoreError::Import { record, refusal }));
                }
                StoreEvent::Failed { ticket, error } => self.fail(ticket, error),
                StoreEvent::Read { ticket, taken, next, damaged } => {
                    if let Some(reader) = self.readers.remove(ticket.0) {
                        self.answer_reader(reader, Batch { taken, next, damaged });
                    }
                }
                StoreEvent::Stopped(stopped) => {
                    self.stopped = Some(stopped);
                    grew = true; // Not any more: who waits for that is told.
                }
                StoreEvent::Closed => self.is_closed = true,
            }
        }
        // All are answered before the first one is woken: who waits for many is woken once.
        self.wakers.drain(..).for_each(Waker::wake);
        if grew {
            self.serve_followers();
        }
        any
    }

    fn is_open(&mut self, result: Result<(), StoreError>) {
        if let Some(opened) = self.opened.take() {
            opened.send(result);
        }
    }

    fn answer(&mut self, ticket: Ticket, answer: Result<Position, StoreError>) {
        let Some(Writer::Append(reply)) = self.writers.remove(ticket.0) else { return };
        self.answered += 1;
        if let Some(waker) = reply.give(answer)
            && !self.wakers.last().is_some_and(|last| last.will_wake(&waker))
        {
            self.wakers.push(waker);
        }
    }

    fn answer_import(&mut self, ticket: Ticket, answer: Result<Imported, StoreError>) {
        if let Some(Writer::Import(reply)) = self.writers.remove(ticket.0) {
            self.is_importing = false;
            reply.send(answer);
        }
    }

    fn fail(&mut self, ticket: Ticket, error: AppendError) {
        if let Some(writer) = self.writers.remove(ticket.0) {
            self.is_importing &= !matches!(writer, Writer::Import(_));
            writer.fail(error.into());
        }
    }

    fn answer_reader(&mut self, reader: Reader, batch: Batch) {
        let at_end = batch.taken.is_empty() && batch.damaged.is_none();
        if is_stuck(reader.read.from, reader.until, &batch) {
            reader.reply.send(Err(StoreError::Stuck { ordinal: batch.next.ordinal }));
        } else if at_end && reader.read.follow {
            let read = Read { from: batch.next, ..reader.read };
            self.follow(Reader { read, ..reader });
        } else {
            reader.reply.send(Ok(batch));
        }
    }

    /// Waits for those who were just answered: closed-loop writers come back at once, and a commit that does not wait for
    /// them splits them into two halves of which each waits for the other's sync.
    fn gather(&mut self) {
        let wanted = std::mem::take(&mut self.answered);
        let patience = GATHER.min(self.figures.last_sync);
        let began = Clock::now();
        let (mut seen, mut seen_at) = (0, began);
        loop {
            let have = self.inbox.len();
            let now = Clock::now();
            if have != seen {
                (seen, seen_at) = (have, now);
            }
            let is_quiet = have > 0 && now - seen_at > GATHER_QUIET;
            if have >= wanted || is_quiet || now - began > patience {
                return;
            }
            thread::yield_now();
        }
    }

    fn sleep(&self) {
        match self.store.poll_timeout() {
            // Whoever adds a request unparks, also before this parks.
            None => thread::park(),
            Some(deadline) => thread::park_timeout(deadline.since(self.now())),
        }
    }

    fn take(&mut self) {
        let mut taken = std::mem::take(&mut self.taken);
        self.inbox.take(&mut taken);
        if !taken.is_empty() {
            self.store.set_unix_time(unix_time());
        }
        taken.drain(..).for_each(|request| self.serve(request));
        self.taken = taken;
        self.hand_in();
        self.inbox.hold(self.held());
    }

    fn serve(&mut self, request: Request) {
        if !self.closers.is_empty() && request.kind() != Kind::Other {
            return; // Dropped, it answers that the store is closed.
        }
        let now = self.now();
        match request {
            Request::Append { ops, reply } => {
                self.write(Writer::Append(reply), |store, ticket| store.append(now, ticket, ops))
            }
            Request::Put { key, value, reply } => {
                self.write(Writer::Append(reply), |store, ticket| store.put(now, ticket, key, value))
            }
            Request::Delete { key, reply } => {
                self.write(Writer::Append(reply), |store, ticket| store.delete(now, ticket, key))
            }
            Request::Import { records, reply } => {
                let bytes = import_bytes(&records);
                self.waiting_imports.push_back(Import { records, bytes, reply });
            }
            Request::Read { read, reply } => self.read(Reader { read, until: 0, reply }),
            Request::Members { members, reply } => {
                self.store.set_members(members);
                reply.send(Ok(()));
            }
            Request::Status { reply } => {
                let (view, figures) = (self.store.view(), self.figures.clone());
                let (view_bytes, view_is_full) = (view.bytes(), view.is_full());
                let status = self.store.status().map(|store| Status { store, view_bytes, view_is_full, figures });
                reply.send(status.ok_or(StoreError::Closed));
            }
            Request::Query(query) => query(&self.store),
            Request::Close { reply } => self.closers.push(reply),
        }
    }

    /// Hands in what the store had no room for, as far as it has now; and at last, that it is to be closed.
    fn hand_in(&mut self) {
        while self.readers.len() < MAX_READS
            && let Some(reader) = self.waiting_reads.pop_front()
        {
            self.read(reader);
        }
        while !self.is_importing
            && let Some(Import { records, reply, .. }) = self.waiting_imports.pop_front()
        {
            let now = self.now();
            self.is_importing = self.identity.is_some();
            self.write(Writer::Import(reply), |store, ticket| store.import(now, ticket, records));
        }
        if !self.closers.is_empty() && !self.is_closing && self.waiting_imports.is_empty() {
            self.is_closing = true;
            self.store.close(self.now());
        }
    }

    /// What was taken out of the inbox and not handed in.
    fn held(&self) -> Load {
        let mut held = Load::default();
        let bytes = self.waiting_imports.iter().map(|import| import.bytes).sum();
        held.add(Kind::Import, self.waiting_imports.len(), bytes);
        held.add(Kind::Other, self.waiting_reads.len(), 0);
        held
    }

    fn write(&mut self, writer: Writer, write: impl FnOnce(&mut Store, Ticket) -> Result<(), AppendError>) {
        if self.identity.is_none() {
            return writer.fail(StoreError::ReadOnly);
        }
        let ticket = Ticket(self.writers.insert(writer));
        if let Err(error) = write(&mut self.store, ticket) {
            self.fail(ticket, error);
        }
    }

    fn read(&mut self, reader: Reader) {
        if reader.reply.is_unwanted() {
            return;
        }
        if reader.read.follow && reader.read.from.ordinal >= self.store.next_ordinal() {
            return self.follow(reader);
        }
        if self.readers.len() >= MAX_READS {
            return self.waiting_reads.push_back(reader);
        }
        let Read { from, max_bytes, .. } = reader.read;
        let until = self.store.next_ordinal();
        let ticket = self.readers.insert(Reader { until, ..reader });
        if let Err(error) = self.store.read(Ticket(ticket), from, max_bytes)
            && let Some(reader) = self.readers.remove(ticket)
        {
            reader.reply.send(Err(error.into()));
        }
    }

    fn follow(&mut self, reader: Reader) {
        if let Some(stopped) = self.stopped {
            return reader.reply.send(Err(StoreError::Stopped(stopped)));
        }
        self.followers.retain(|follower| !follower.reply.is_unwanted());
        self.followers.push(reader);
    }

    fn serve_followers(&mut self) {
        for reader in std::mem::take(&mut self.followers) {
            self.read(reader);
        }
    }
}

/// Whether a reading that began at `from`, below the end of the log, brought nobody any further: whoever asks again, gets
/// the same again.
fn is_stuck(from: Cursor, until: u64, batch: &Batch) -> bool {
    from.ordinal < until && batch.next.ordinal <= from.ordinal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_goes_on_or_ends_or_is_stuck() {
        let batch = |next| Batch { taken: Vec::new(), next: Cursor::at(next), damaged: None };
        assert!(is_stuck(Cursor::at(4), 5, &batch(4)));
        assert!(is_stuck(Cursor::at(4), 5, &batch(3)));
        assert!(!is_stuck(Cursor::at(4), 5, &batch(5)));
        assert!(!is_stuck(Cursor::at(5), 5, &batch(5)), "it is the end of the log");
    }
}
