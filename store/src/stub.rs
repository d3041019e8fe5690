//! Stands in for vine_core::log::store until it is there.
#![allow(missing_docs, dead_code)]
use std::collections::VecDeque;
use bytes::Bytes;
use vine_core::log::disk::*;
use vine_core::{Instant, UnixTime, PeerId, NetworkId, Identity};
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError { #[error("stopped")] Stopped, #[error("closed")] Closed, #[error("busy")] Busy }
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError { #[error("disk {0}")] Disk(DiskError) }
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError { #[error("damaged")] Damaged }
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogId(pub [u8; 32]);
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(pub u64);
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor { pub ordinal: u64 }
#[derive(Clone, Debug)]
pub struct Delivered { pub ordinal: u64, pub op: Bytes }
pub struct Draft(Bytes);
pub struct Commit(Bytes);
impl Draft { pub fn sign(self, _i: &Identity) -> Commit { Commit(self.0) } }
#[derive(Clone, Debug, Default)]
pub struct Report {}
#[derive(Clone, Debug, Default)]
pub struct Status {}
pub struct StoreConfig { pub network_id: NetworkId, pub owner: PeerId, pub members: Vec<PeerId>, pub segment_bytes: u64, pub max_bytes: u64, pub view_bytes: usize, pub read_only: bool }
pub enum Effect { Disk(Token, DiskOp), Sign(Token, Draft) }
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {error}")]
pub struct Stopped { pub error: DiskError, pub what: &'static str, pub file: Option<FileId> }
pub enum StoreEvent {
    Opened, Refused(OpenError),
    Durable { ticket: Ticket, log: LogId, first_seq: u64, first_ordinal: u64, count: u32 },
    Failed { ticket: Ticket, error: AppendError },
    Read { ticket: Ticket, items: Vec<Delivered>, next: Cursor, error: Option<ReadError> },
    Stopped(Stopped), Closed,
}
pub struct Store { effects: VecDeque<Effect>, events: VecDeque<StoreEvent>, queue: Vec<(Ticket, Vec<Bytes>)>, flying: Vec<(Ticket, Vec<Bytes>)>, all: Vec<Bytes>, at: u64, busy: bool, closing: bool, stopped: bool }
const F: FileId = FileId(0);
impl Store {
    pub fn open(_c: StoreConfig, _seed: [u8; 32], _now: Instant, _unix: UnixTime) -> Store {
        let effects = VecDeque::from([Effect::Disk(Token(1), DiskOp::Create { file: F, size: 1 << 24 })]);
        Store { effects, events: VecDeque::new(), queue: vec![], flying: vec![], all: vec![], at: 0, busy: true, closing: false, stopped: false }
    }
    pub fn poll_effect(&mut self) -> Option<Effect> { self.go(); self.effects.pop_front() }
    fn go(&mut self) {
        if self.busy || self.stopped { return; }
        if self.queue.is_empty() { if self.closing { self.closing = false; self.events.push_back(StoreEvent::Closed); } return; }
        self.busy = true; self.flying = std::mem::take(&mut self.queue);
        let mut b = Vec::new();
        for op in self.flying.iter().flat_map(|f| &f.1) { b.extend_from_slice(op); }
        self.effects.push_back(Effect::Sign(Token(2), Draft(b.into())));
    }
    pub fn handle_disk(&mut self, _now: Instant, token: Token, result: DiskResult) {
        if let Err(error) = result { self.stopped = true; for (ticket, _) in self.flying.drain(..) { self.events.push_back(StoreEvent::Failed { ticket, error: AppendError::Stopped }); }
            self.events.push_back(StoreEvent::Stopped(Stopped { error, what: "x", file: None })); return; }
        match token.0 { 1 => { self.busy = false; self.events.push_back(StoreEvent::Opened) }
            4 => { self.busy = false;
                for (ticket, ops) in self.flying.drain(..) {
                    let n = self.all.len() as u64; let count = ops.len() as u32; self.all.extend(ops);
                    self.events.push_back(StoreEvent::Durable { ticket, log: LogId([0; 32]), first_seq: n, first_ordinal: n, count });
                } }
            _ => {} }
    }
    pub fn handle_signed(&mut self, _now: Instant, _t: Token, c: Commit) {
        let n = c.0.len() as u64;
        self.effects.push_back(Effect::Disk(Token(3), DiskOp::Write { file: F, offset: self.at, bytes: c.0 }));
        self.effects.push_back(Effect::Disk(Token(4), DiskOp::Sync { file: F }));
        self.at = (self.at + n) % (8 << 20);
    }
    pub fn poll_timeout(&self) -> Option<Instant> { None }
    pub fn handle_timeout(&mut self, _now: Instant) {}
    pub fn set_unix_time(&mut self, _u: UnixTime) {}
    pub fn poll_event(&mut self) -> Option<StoreEvent> { self.go(); self.events.pop_front() }
    pub fn append(&mut self, _now: Instant, t: Ticket, ops: Vec<Bytes>) -> Result<(), AppendError> { if self.stopped { return Err(AppendError::Stopped) } self.queue.push((t, ops)); Ok(()) }
    pub fn put(&mut self, n: Instant, t: Ticket, k: Bytes, v: Bytes) -> Result<(), AppendError> { self.append(n, t, vec![k, v]) }
    pub fn delete(&mut self, n: Instant, t: Ticket, k: Bytes) -> Result<(), AppendError> { self.append(n, t, vec![k]) }
    pub fn read(&mut self, ticket: Ticket, c: Cursor, _max: usize) {
        let items: Vec<_> = self.all.iter().enumerate().skip(c.ordinal as usize).take(100).map(|(n, op)| Delivered { ordinal: n as u64, op: op.clone() }).collect();
        let next = Cursor { ordinal: c.ordinal + items.len() as u64 };
        self.events.push_back(StoreEvent::Read { ticket, items, next, error: None });
    }
    pub fn close(&mut self, _now: Instant) { self.closing = true; }
    pub fn next_ordinal(&self) -> u64 { self.all.len() as u64 }
    pub fn report(&self) -> Report { Report {} }
    pub fn status(&self) -> Status { Status {} }
}
