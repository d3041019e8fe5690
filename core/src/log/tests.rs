//! The store on a disk in memory that does as it is told.

use alloc::collections::BTreeMap;
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use bytes::Bytes;

use super::commit::{Commit, Draft, Genesis, HEADER_LEN, Record, Tip};
use super::disk::{DiskDone, DiskError, DiskErrorKind, DiskOp, DiskResult, FileId, MAX_FILE};
use super::reader::{Cursor, Delivered};
use super::replay::Depth;
use super::report::{Damage, Finding, OpenError};
use super::segment::{
    FRAMES_AT, FrameHeader, FrameKind, HEADER_COPIES, HEADER_COPY, HeaderBlock, MAX_PLACE, SegmentHeader, encode_frame,
};
use super::store::{AppendError, Effect, Store, StoreConfig, StoreEvent, Ticket};
use super::view::ReserveError;
use super::writer::{NoRoom, QUIET};
use super::{Hlc, Op, Ops, Refusal};
use crate::config::NetworkId;
use crate::identity::Identity;
use crate::time::{Instant, UnixTime};

#[derive(Clone, Default)]
struct Disk {
    files: BTreeMap<FileId, Vec<u8>>,
    /// Bytes that may be created.
    space: Option<u64>,
    /// The next sync fails.
    fail_sync: bool,
    syncs: u32,
    /// Bytes that cannot be read, and that are healed by being written all at once: a part of a block is not written without
    /// reading the rest.
    broken: Option<(FileId, Range<u64>)>,
    /// All that was written and synced.
    done: Vec<DiskOp>,
}

impl Disk {
    fn run(&mut self, op: DiskOp) -> DiskResult {
        let missing = DiskError { kind: DiskErrorKind::NotFound, code: 2 };
        if let (Some((file, broken)), DiskOp::Read { file: of, offset, len }) = (&self.broken, &op)
            && file == of
            && *offset < broken.end
            && offset + u64::from(*len) > broken.start
        {
            return Err(DiskError { kind: DiskErrorKind::Io, code: 5 });
        }
        if let (Some((file, broken)), DiskOp::Write { file: of, offset, bytes }) = (&self.broken, &op)
            && file == of
            && *offset < broken.end
            && offset + bytes.len() as u64 > broken.start
        {
            if *offset > broken.start || offset + (bytes.len() as u64) < broken.end {
                return Err(DiskError { kind: DiskErrorKind::Io, code: 5 });
            }
            self.broken = None;
        }
        if matches!(op, DiskOp::Write { .. } | DiskOp::Sync { .. }) {
            self.done.push(op.clone());
        }
        match op {
            DiskOp::List => {
                return Ok(DiskDone::Listed(self.files.iter().map(|(id, bytes)| (*id, bytes.len() as u64)).collect()));
            }
            DiskOp::Create { file, size } => {
                assert!(!self.files.contains_key(&file));
                if let Some(space) = &mut self.space {
                    *space = space.checked_sub(size).ok_or(DiskError { kind: DiskErrorKind::NoSpace, code: 28 })?;
                }
                self.files.insert(file, vec![0; size as usize]);
            }
            DiskOp::Write { file, offset, bytes } => {
                let content = self.files.get_mut(&file).ok_or(missing)?;
                content[offset as usize..offset as usize + bytes.len()].copy_from_slice(&bytes);
            }
            DiskOp::Read { file, offset, len } => {
                let content = self.files.get(&file).ok_or(missing)?;
                let from = (offset as usize).min(content.len());
                return Ok(DiskDone::Read(content[from..(from + len as usize).min(content.len())].to_vec()));
            }
            DiskOp::Sync { .. } => {
                self.syncs += 1;
                if core::mem::take(&mut self.fail_sync) {
                    return Err(DiskError { kind: DiskErrorKind::Io, code: 5 });
                }
            }
            DiskOp::SyncDir => {}
            DiskOp::Truncate { file, size } => self.files.get_mut(&file).ok_or(missing)?.truncate(size as usize),
            DiskOp::Remove { file } => _ = self.files.remove(&file).ok_or(missing)?,
        }
        Ok(DiskDone::Done)
    }
}

fn identity() -> Identity {
    Identity::from_seed([7; 32])
}

fn config() -> StoreConfig {
    StoreConfig {
        network_id: NetworkId::new("example").unwrap(),
        owner: identity().peer_id(),
        members: vec![],
        segment_bytes: 12_288,
        max_bytes: 1 << 30,
        author_bytes: 1 << 30,
        view_bytes: 1 << 20,
        read_only: false,
        depth: Depth::Signatures,
    }
}

struct Machine {
    store: Store,
    disk: Disk,
    now: Instant,
}

impl Machine {
    fn open(disk: Disk, seed: u8) -> Machine {
        Machine::open_with(disk, seed, config())
    }

    fn open_with(disk: Disk, seed: u8, config: StoreConfig) -> Machine {
        let store = Store::open(config, [seed; 32], UnixTime(1_700_000_000_000));
        Machine { store, disk, now: Instant::ORIGIN }
    }

    /// Does all that is to be done, and returns what happened.
    fn run(&mut self) -> Vec<StoreEvent> {
        while let Some(effect) = self.store.poll_effect() {
            match effect {
                Effect::Disk(token, op) => {
                    let result = self.disk.run(op);
                    self.store.handle_disk(self.now, token, result);
                }
                Effect::Hash(token, commit) => self.store.handle_hashed(token, commit.verify_ops().is_ok()),
                Effect::Verify(token, unverified) => {
                    self.store.handle_verified(self.now, token, unverified.verify());
                }
                Effect::Sign(token, draft) => self.store.handle_signed(self.now, token, draft.sign(&identity())),
            }
        }
        core::iter::from_fn(|| self.store.poll_event()).collect()
    }

    fn opened(disk: Disk, seed: u8) -> Machine {
        let mut machine = Machine::open(disk, seed);
        assert!(matches!(machine.run()[..], [StoreEvent::Opened]));
        machine
    }

    fn append(&mut self, text: &str) -> Result<(u64, u64), AppendError> {
        self.store.append(self.now, Ticket(1), vec![Bytes::copy_from_slice(text.as_bytes())])?;
        match self.run()[..] {
            [StoreEvent::Durable { first_seq, first_ordinal, .. }] => Ok((first_seq, first_ordinal)),
            [StoreEvent::Failed { error, .. }] | [StoreEvent::Stopped(_), StoreEvent::Failed { error, .. }] => {
                Err(error)
            }
            ref other => panic!("{other:?}"),
        }
    }

    fn read(&mut self, from: u64) -> Vec<Delivered> {
        let mut cursor = Cursor::at(from);
        let mut all = Vec::new();
        while cursor.ordinal < self.store.next_ordinal() {
            self.store.read(Ticket(9), cursor, 500).unwrap();
            let events = self.run();
            let [StoreEvent::Read { taken, next, damaged, .. }] = &events[..] else { panic!("{events:?}") };
            assert_eq!(*damaged, None);
            assert!(next.ordinal > cursor.ordinal);
            all.extend(taken.iter().flat_map(|taken| taken.delivered(cursor.ordinal)));
            cursor = *next;
        }
        all
    }

    fn texts(&mut self) -> Vec<Vec<u8>> {
        let ops = self.read(0).into_iter().filter_map(|delivered| match delivered.op {
            Op::Plain(data) => Some(data.to_vec()),
            _ => None,
        });
        ops.collect()
    }

    fn close(mut self) -> Disk {
        self.store.close(self.now);
        assert!(matches!(self.run()[..], [StoreEvent::Closed]));
        self.disk
    }
}

#[test]
fn what_is_durable_is_there_in_every_later_life() {
    let mut disk = Disk::default();
    let mut expected = Vec::new();
    for life in 0..5u8 {
        let mut machine = Machine::opened(disk, life);
        assert_eq!(machine.texts(), expected);
        let before = machine.store.state_hash();
        for n in 0..40u64 {
            let text = alloc::format!("life {life}, op {n}, {}", "x".repeat(n as usize * 11));
            assert_eq!(machine.append(&text), Ok((n, u64::from(life) * 40 + n)));
            expected.push(text.into_bytes());
        }
        assert_ne!(machine.store.state_hash(), before);
        assert_eq!(machine.texts(), expected);
        assert_eq!(machine.read(77.min(machine.store.next_ordinal())).len(), expected.len().saturating_sub(77));
        assert!(machine.store.report().unwrap().findings.is_empty(), "{:?}", machine.store.report());
        // Every second life ends without a close.
        disk = if life % 2 == 0 { machine.close() } else { machine.disk };
    }
    assert!(disk.files.len() > 10, "{} segments", disk.files.len());
}

#[test]
fn keys_and_values_survive_and_one_sync_covers_all_writers() {
    let mut machine = Machine::opened(Disk::default(), 1);
    machine.append("first").unwrap();
    let syncs = machine.disk.syncs;
    for n in 0..100u64 {
        let (key, value) = (Bytes::from(alloc::format!("key {}", n % 10)), Bytes::from(alloc::format!("{n}")));
        machine.store.put(machine.now, Ticket(n), key, value).unwrap();
    }
    machine.store.delete(machine.now, Ticket(100), Bytes::from_static(b"key 3")).unwrap();
    assert_eq!(machine.store.view().len(), 0, "nothing is shown before it is durable");
    let durable = machine.run().into_iter().filter(|event| matches!(event, StoreEvent::Durable { .. })).count();
    assert_eq!(durable, 101);
    assert!(machine.disk.syncs - syncs <= 6, "{} syncs", machine.disk.syncs - syncs);
    let shown = |store: &Store, key: &[u8]| store.view().get(key).map(|value| value.to_vec());
    assert_eq!(shown(&machine.store, b"key 4"), Some(b"94".to_vec()));
    assert_eq!(shown(&machine.store, b"key 3"), None);
    let hash = machine.store.state_hash();
    let again = Machine::opened(machine.close(), 2);
    assert_eq!(again.store.state_hash(), hash);
    assert_eq!(shown(&again.store, b"key 4"), Some(b"94".to_vec()));
}

#[test]
fn reading_goes_on_behind_what_is_damaged() {
    let mut machine = Machine::opened(Disk::default(), 1);
    for text in ["first", "second", "third"] {
        machine.append(text).unwrap();
    }
    let mut disk = machine.close();
    let bytes = disk.files.get_mut(&FileId(0)).unwrap();
    let at = bytes.windows(6).position(|window| window == b"second").unwrap();
    bytes[at] ^= 1;
    let mut machine = Machine::opened(disk, 2);
    let (mut cursor, mut found, mut missing) = (Cursor::at(0), Vec::new(), Vec::new());
    for _ in 0..10 {
        machine.store.read(Ticket(1), cursor, 1).unwrap();
        let events = machine.run();
        let [StoreEvent::Read { taken, next, damaged, .. }] = &events[..] else { panic!("{events:?}") };
        found.extend(taken.iter().flat_map(|taken| taken.delivered(cursor.ordinal)).map(|op| op.ordinal));
        missing.extend(damaged.iter().flat_map(|damaged| damaged.ordinals.clone()));
        cursor = *next;
    }
    assert_eq!((found, &missing[..], cursor.ordinal), (vec![0, 2], &[1][..], 3));
}

#[test]
fn what_is_told_begins_where_the_reading_does() {
    let mut machine = Machine::opened(Disk::default(), 1);
    let ops = vec![Bytes::from_static(b"first"), Bytes::from_static(b"second")];
    machine.store.append(machine.now, Ticket(1), ops).unwrap();
    assert!(matches!(machine.run()[..], [StoreEvent::Durable { count: 2, .. }]));
    // The beginning of the log is lost, so its commit is nobody's.
    let mut disk = machine.close();
    disk.files.values_mut().next().unwrap()[FRAMES_AT as usize + 40] ^= 1;
    let mut machine = Machine::opened(disk, 2);
    machine.store.read(Ticket(2), Cursor::at(1), 1_000).unwrap();
    let events = machine.run();
    let [StoreEvent::Read { taken, damaged: Some(damaged), .. }] = &events[..] else { panic!("{events:?}") };
    assert_eq!((taken.len(), &damaged.ordinals), (0, &(1..2)));
}

#[test]
fn a_quiet_store_vouches_for_its_last_write() {
    // So long that the next segment is not made ready yet.
    let mut machine = Machine::open_with(Disk::default(), 1, StoreConfig { segment_bytes: 65_536, ..config() });
    assert!(matches!(machine.run()[..], [StoreEvent::Opened]));
    machine.append("first").unwrap();
    let due = machine.store.poll_timeout().unwrap();
    assert_eq!(due, machine.now + QUIET);
    machine.now = due;
    machine.store.handle_timeout(due);
    machine.run();
    assert_eq!(machine.store.poll_timeout(), None);
    // Now the loss of that write is corruption, and nothing else.
    let mut disk = machine.disk;
    let file = disk.files.values_mut().next().unwrap();
    file[FRAMES_AT as usize + 376] ^= 1;
    let machine = Machine::opened(disk, 2);
    let findings = &machine.store.report().unwrap().findings;
    let [finding] = &findings[..] else { panic!("{findings:?}") };
    assert_eq!((&finding.damage, &finding.ordinals), (&Damage::Corrupt, &Some(0..1)));
    assert_eq!(machine.store.next_ordinal(), 1, "the ordinal is not used again");
}

#[test]
fn a_failed_sync_stops_the_store_and_is_never_an_acknowledgement() {
    let mut machine = Machine::opened(Disk::default(), 1);
    machine.append("first").unwrap();
    machine.disk.fail_sync = true;
    assert!(matches!(machine.append("second"), Err(AppendError::Unknown(_))));
    assert!(matches!(machine.append("third"), Err(AppendError::Stopped(_))));
    let mut machine = Machine::opened(machine.disk, 2);
    let texts = machine.texts();
    assert_eq!(texts[0], b"first");
    assert_eq!(machine.append("fourth").unwrap().1, texts.len() as u64);
}

#[test]
fn what_only_waited_when_the_disk_failed_is_not_there_for_certain() {
    let mut machine = Machine::opened(Disk::default(), 1);
    machine.append("first").unwrap();
    machine.disk.fail_sync = true;
    let append = |machine: &mut Machine, n| {
        machine.store.append(machine.now, Ticket(n), vec![Bytes::from(alloc::format!("op {n}"))]).unwrap();
    };
    append(&mut machine, 2);
    while let Some(effect) = machine.store.poll_effect() {
        match effect {
            Effect::Sign(token, draft) => {
                machine.store.handle_signed(machine.now, token, draft.sign(&identity()));
            }
            Effect::Disk(token, op) => {
                if matches!(op, DiskOp::Sync { .. }) {
                    append(&mut machine, 3);
                }
                let result = machine.disk.run(op);
                machine.store.handle_disk(machine.now, token, result);
            }
            Effect::Hash(..) | Effect::Verify(..) => panic!("nothing is read or imported"),
        }
    }
    let failed = core::iter::from_fn(|| machine.store.poll_event()).filter_map(|event| match event {
        StoreEvent::Failed { ticket, error } => Some((ticket.0, matches!(error, AppendError::Unknown(_)))),
        _ => None,
    });
    assert_eq!(failed.collect::<Vec<_>>(), [(2, true), (3, false)]);
    let texts = Machine::opened(machine.disk, 2).texts();
    assert_eq!(texts, [b"first".to_vec(), b"op 2".to_vec()]);
}

#[test]
fn a_store_that_stopped_can_be_closed() {
    let is_closed = |event: &StoreEvent| matches!(event, StoreEvent::Closed);
    let mut machine = Machine::opened(Disk::default(), 1);
    machine.append("first").unwrap();
    machine.disk.fail_sync = true;
    machine.append("second").unwrap_err();
    machine.store.close(machine.now);
    assert!(machine.run().iter().any(is_closed));

    // The disk fails as it is closed.
    let mut machine = Machine::opened(Disk::default(), 1);
    machine.append("first").unwrap();
    machine.disk.fail_sync = true;
    machine.store.append(machine.now, Ticket(9), vec![Bytes::from_static(b"second")]).unwrap();
    machine.store.close(machine.now);
    assert!(machine.run().iter().any(is_closed));
}

#[test]
fn a_full_disk_refuses_and_recovers() {
    let mut machine = Machine::opened(Disk { space: Some(30_000), ..Disk::default() }, 1);
    let text = "x".repeat(1000);
    let mut taken = 0;
    let refused = loop {
        match machine.append(&text) {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, AppendError::NoRoom(NoRoom::Disk(error)) if error.kind == DiskErrorKind::NoSpace));
    assert!(taken >= 10, "{taken}");
    machine.disk.space = None;
    assert!(machine.append(&text).is_err(), "not tried again at once");
    machine.now += core::time::Duration::from_secs(1);
    machine.append(&text).unwrap();
    assert_eq!(machine.texts().len(), taken + 1);
}

#[test]
fn a_store_of_another_identity_or_network_is_refused() {
    let mut machine = Machine::opened(Disk::default(), 1);
    machine.append("first").unwrap();
    let disk = machine.close();
    let other = StoreConfig { owner: Identity::from_seed([8; 32]).peer_id(), ..config() };
    let events = Machine::open_with(disk.clone(), 2, other).run();
    assert!(matches!(events[..], [StoreEvent::Refused(OpenError::Owner { .. })]), "{events:?}");
    let other = StoreConfig { network_id: NetworkId::new("another").unwrap(), ..config() };
    let events = Machine::open_with(disk, 2, other).run();
    assert!(matches!(events[..], [StoreEvent::Refused(OpenError::Network { .. })]), "{events:?}");
}

#[test]
fn an_import_is_all_or_nothing_and_known_the_second_time() {
    let mut source = Machine::opened(Disk::default(), 1);
    for n in 0..10 {
        source.append(&alloc::format!("op {n}")).unwrap();
    }
    source.store.put(source.now, Ticket(5), Bytes::from_static(b"k"), Bytes::from_static(b"v")).unwrap();
    source.run();
    source.store.read(Ticket(1), Cursor::at(0), usize::MAX).unwrap();
    let events = source.run();
    let [StoreEvent::Read { taken, .. }] = &events[..] else { panic!("{events:?}") };
    let log = taken[0].commit.header().log;
    let genesis = source.store.chains().unwrap().get(&log).unwrap().genesis.clone();
    let commits = taken.iter().map(|taken| Record::Commit(taken.commit.clone()));
    let records: Vec<Record> = [Record::Genesis(genesis)].into_iter().chain(commits).collect();

    let mut target = Machine::opened(Disk::default(), 2);
    let mut holed = records.clone();
    holed.remove(4);
    target.store.import(target.now, Ticket(1), holed).unwrap();
    let events = target.run();
    assert!(matches!(events[..], [StoreEvent::ImportRefused { record: 4, .. }]), "{events:?}");
    assert_eq!(target.store.next_ordinal(), 0);
    target.store.import(target.now, Ticket(2), records.clone()).unwrap();
    let events = target.run();
    assert!(matches!(events[..], [StoreEvent::Imported { new: 12, known: 0, .. }]), "{events:?}");
    target.store.import(target.now, Ticket(3), records).unwrap();
    let events = target.run();
    assert!(matches!(events[..], [StoreEvent::Imported { new: 0, known: 12, .. }]), "{events:?}");
    assert_eq!(target.store.state_hash(), source.store.state_hash());
    assert_eq!(target.texts(), source.texts());
    let again = Machine::opened(target.close(), 3);
    assert_eq!(again.store.state_hash(), source.store.state_hash());
}

#[test]
fn hashes_computed_elsewhere_find_what_hashes_computed_here_find() {
    let mut machine = Machine::opened(Disk::default(), 1);
    for n in 0..30 {
        machine.append(&alloc::format!("op {n}")).unwrap();
    }
    let disk = machine.close();
    let report = |depth| {
        let mut machine = Machine::open_with(disk.clone(), 2, StoreConfig { depth, read_only: true, ..config() });
        assert!(matches!(machine.run()[..], [StoreEvent::Opened]));
        machine.store.report().unwrap().clone()
    };
    assert_eq!(report(Depth::HashJobs), report(Depth::Signatures));
    assert_eq!(report(Depth::Checksums).ops, 30);
    // A driver that answers none of them never sees the store opened.
    let config = StoreConfig { depth: Depth::HashJobs, read_only: true, ..config() };
    let mut machine = Machine::open_with(disk.clone(), 2, config);
    let mut jobs = Vec::new();
    while let Some(effect) = machine.store.poll_effect() {
        match effect {
            Effect::Disk(token, op) => {
                let result = machine.disk.run(op);
                machine.store.handle_disk(machine.now, token, result);
            }
            Effect::Hash(token, _) => jobs.push(token),
            Effect::Sign(..) | Effect::Verify(..) => panic!("nothing is written"),
        }
    }
    assert!(machine.store.poll_event().is_none());
    assert_eq!(jobs.len(), 30);
    jobs.into_iter().for_each(|token| machine.store.handle_hashed(token, token.0 != 7));
    assert!(machine.store.poll_effect().is_none());
    assert!(matches!(machine.store.poll_event(), Some(StoreEvent::Opened)));
    let findings = &machine.store.report().unwrap().findings;
    assert!(matches!(findings[..], [Finding { damage: Damage::Inconsistent(_), .. }]), "{findings:?}");
}

#[test]
fn one_author_cannot_fill_the_store_of_another() {
    let author = Identity::from_seed([8; 32]);
    let network_id = NetworkId::new("example").unwrap();
    let genesis = Genesis { network_id, peer_id: author.peer_id(), nonce: [1; 16], predecessor: None };
    let log = genesis.log_id();
    let op = || Ops::new(&[Op::Plain(vec![7; 1000].into())]).unwrap().unwrap();
    let first = Draft::new(log, 0, log.into(), Hlc(1), op()).sign(&author);
    let second = Draft::new(log, 1, first.hash(), Hlc(2), op()).sign(&author);
    let config = StoreConfig { members: vec![author.peer_id()], author_bytes: 2000, ..config() };
    let mut machine = Machine::open_with(Disk::default(), 1, config.clone());
    machine.run();
    let both = vec![Record::Genesis(genesis), Record::Commit(first), Record::Commit(second.clone())];
    machine.store.import(machine.now, Ticket(1), both[..2].to_vec()).unwrap();
    assert!(matches!(machine.run()[..], [StoreEvent::Imported { new: 2, .. }]));
    // In this life and in the next.
    for _ in 0..2 {
        machine.store.import(machine.now, Ticket(1), both.clone()).unwrap();
        let events = machine.run();
        let [StoreEvent::ImportRefused { record: 2, refusal, .. }] = &events[..] else { panic!("{events:?}") };
        assert!(matches!(refusal, Refusal::Quota { limit: 2000, .. }), "{refusal}");
        machine = Machine::open_with(machine.disk, 2, config.clone());
        machine.run();
    }
}

/// A machine with a small limit on its size.
fn limited(disk: Disk, seed: u8, max_bytes: u64) -> Machine {
    let mut machine = Machine::open_with(disk, seed, StoreConfig { max_bytes, ..config() });
    assert!(matches!(machine.run()[..], [StoreEvent::Opened]));
    machine
}

#[test]
fn a_store_at_its_limit_uses_what_a_crash_left_unused() {
    for max_bytes in [16_384, 20_480, 24_576, 32_768, 40_960] {
        let mut disk = Disk::default();
        // The blocks of a header, a genesis and an op are two of 4,096 bytes.
        for life in 0..(max_bytes / 8192) as u8 {
            let mut machine = limited(disk, life, max_bytes);
            // A quarter of a segment, so that the next one is made; and no close.
            machine.append(&"x".repeat(2000)).unwrap_or_else(|error| panic!("{max_bytes}, life {life}: {error}"));
            disk = machine.disk;
        }
    }
}

#[test]
fn a_clock_that_was_wrong_once_does_not_close_the_keys_for_ever() {
    let (key, value) = (Bytes::from_static(b"k"), Bytes::from_static(b"v"));
    let in_2150 = UnixTime(5_680_000_000_000);
    let mut machine = Machine::opened(Disk::default(), 1);
    machine.store.set_unix_time(in_2150);
    let refused = machine.store.put(machine.now, Ticket(1), key.clone(), value.clone());
    assert!(matches!(refused, Err(AppendError::Key(ReserveError::Horizon { .. }))), "{refused:?}");
    machine.append("an op has no horizon").unwrap();
    // In the same life, and in the next one.
    machine.store.set_unix_time(UnixTime(1_700_000_000_000));
    for life in 2..4 {
        machine.store.put(machine.now, Ticket(1), key.clone(), value.clone()).unwrap();
        assert!(matches!(machine.run()[..], [StoreEvent::Durable { .. }]));
        machine = Machine::opened(machine.disk, life);
    }
}

#[test]
fn a_last_segment_that_was_cut_short_is_damage_and_keeps_its_ordinals() {
    let mut machine = Machine::opened(Disk::default(), 1);
    for text in ["first", "second", "third"] {
        machine.append(text).unwrap();
    }
    let mut disk = machine.disk;
    let file = disk.files.values_mut().next().unwrap();
    let at = file.windows(6).position(|window| window == b"second").unwrap();
    file.truncate(at);
    let mut machine = Machine::opened(disk, 2);
    assert!(!machine.store.report().unwrap().is_sound());
    assert!(machine.append("fourth").unwrap().1 >= 3);
}

/// The log of somebody: its genesis and one commit.
fn foreign(author: &Identity, predecessor: Option<Tip>) -> (Genesis, Commit) {
    let network_id = NetworkId::new("example").unwrap();
    let genesis = Genesis { network_id, peer_id: author.peer_id(), nonce: [9; 16], predecessor };
    let log = genesis.log_id();
    let ops = Ops::new(&[Op::Plain(Bytes::from_static(b"theirs"))]).unwrap().unwrap();
    let commit = Draft::new(log, 0, log.into(), Hlc(1), ops).sign(author);
    (genesis, commit)
}

#[test]
fn a_made_up_genesis_leaves_no_trace() {
    let other = Identity::from_seed([8; 32]);
    let (genesis, commit) = foreign(&other, None);
    let tip = commit.tip();
    let (made_up, _) = foreign(&identity(), Some(tip));
    let config = StoreConfig { members: vec![other.peer_id()], ..config() };
    let mut machine = Machine::open_with(Disk::default(), 1, config.clone());
    machine.run();
    let records = vec![Record::Genesis(genesis), Record::Commit(commit), Record::Genesis(made_up)];
    machine.store.import(machine.now, Ticket(1), records).unwrap();
    assert!(matches!(machine.run()[..], [StoreEvent::Imported { new: 2, .. }]));
    assert_eq!(machine.store.chains().unwrap().iter().len(), 1);
    for life in 2..4 {
        machine = Machine::open_with(machine.disk, life, config.clone());
        machine.run();
        machine.append("mine").unwrap();
    }
}

#[test]
fn a_genesis_waits_for_its_commit_across_imports() {
    let other = Identity::from_seed([8; 32]);
    let (genesis, commit) = foreign(&other, None);
    let mut machine =
        Machine::open_with(Disk::default(), 1, StoreConfig { members: vec![other.peer_id()], ..config() });
    machine.run();
    for (record, taken) in [(Record::Genesis(genesis), 0), (Record::Commit(commit), 2)] {
        machine.store.import(machine.now, Ticket(1), vec![record]).unwrap();
        assert!(matches!(machine.run()[..], [StoreEvent::Imported { new, .. }] if new == taken));
    }
    assert_eq!(machine.texts(), [b"theirs"]);
}

#[test]
fn what_was_restored_comes_before_what_is_written_next() {
    let (genesis, commit) = foreign(&identity(), None);
    let tip = commit.tip();
    let mut machine = Machine::opened(Disk::default(), 1);
    machine.store.import(machine.now, Ticket(1), vec![Record::Genesis(genesis), Record::Commit(commit)]).unwrap();
    machine.run();
    machine.append("new").unwrap();
    let predecessors = machine.store.chains().unwrap().iter().filter_map(|(_, state)| state.genesis.predecessor);
    assert_eq!(predecessors.collect::<Vec<_>>(), [tip]);
}

/// A disk with several segments, and its ops.
fn several_segments() -> (Disk, Vec<Vec<u8>>) {
    let mut machine = Machine::opened(Disk::default(), 1);
    let mut n = 0;
    while machine.disk.files.len() < 4 {
        machine.append(&alloc::format!("{n} {}", "x".repeat(2000))).unwrap();
        n += 1;
    }
    let texts = machine.texts();
    (machine.close(), texts)
}

#[test]
fn a_damaged_copy_of_a_header_is_repaired_from_the_other_one() {
    let (disk, texts) = several_segments();
    let files: Vec<FileId> = disk.files.keys().copied().collect();
    for (file, copy, is_unreadable) in files
        .into_iter()
        .flat_map(|file| HEADER_COPIES.into_iter().flat_map(move |copy| [(file, copy, false), (file, copy, true)]))
    {
        let mut disk = disk.clone();
        let range = copy..copy + HEADER_COPY;
        disk.broken = is_unreadable.then(|| (file, range.clone()));
        disk.done.clear();
        disk.files.get_mut(&file).unwrap()[range.start as usize..range.end as usize].fill(0);
        let mut machine = Machine::opened(disk, 2);
        let findings = &machine.store.report().unwrap().findings;
        let [finding] = &findings[..] else { panic!("{findings:?}") };
        assert_eq!((finding.file, &finding.range, &finding.damage), (file, &range, &Damage::HeaderCopy));
        assert_eq!(machine.texts(), texts);
        // The other copy is not touched before this one is synced.
        let of_file = machine.disk.done.iter().filter(|op| op.file() == Some(file));
        let [DiskOp::Write { offset, bytes, .. }, DiskOp::Sync { .. }, ..] = &of_file.collect::<Vec<_>>()[..] else {
            panic!("{:?}", machine.disk.done)
        };
        // The first one with all of its block: of one that cannot be read no part can be written.
        let len = if copy == 0 { HEADER_COPIES[1] } else { HEADER_COPY };
        assert_eq!((*offset, bytes.len() as u64), (copy, len));
        machine.disk.broken = None;
        let machine = Machine::opened(machine.disk, 3);
        assert_eq!(machine.store.report().unwrap().findings, []);
    }
}

#[test]
fn a_block_of_a_header_that_cannot_be_read_closes_the_store_for_nobody() {
    let block = 0..HEADER_COPIES[1];
    // The block with the first copy, and zeros between the copies.
    for broken in [block, 1024..1536, 4096..8192] {
        for (lives, is_closed) in [(1, false), (2, false), (2, true)] {
            let mut disk = Disk::default();
            for life in 1..=lives {
                let mut machine = Machine::opened(disk, life);
                machine.append(&alloc::format!("op of {life}")).unwrap();
                disk = if is_closed { machine.close() } else { machine.disk };
            }
            let file = *disk.files.iter().rfind(|(_, bytes)| bytes.iter().any(|byte| *byte != 0)).unwrap().0;
            disk.broken = Some((file, broken.clone()));
            let mut machine = Machine::opened(disk, 9);
            machine.append("more").unwrap();
            let mut next = Machine::opened(machine.disk.clone(), 10);
            // With the second copy lie the frames of the last life: that and no more is damaged, in every later life.
            if broken.end > FRAMES_AT {
                for machine in [&machine, &next] {
                    let findings = &machine.store.report().unwrap().findings;
                    assert!(!findings.is_empty(), "{broken:?}, {lives} lives, closed: {is_closed}");
                    // What is cut off behind a closed frame that cannot be read counts as well.
                    let is_told = |finding: &Finding| finding.file == file && finding.range.start >= broken.start;
                    assert!(findings.iter().all(is_told), "{findings:?}");
                }
                continue;
            }
            assert_eq!(next.texts().len(), usize::from(lives) + 1, "{broken:?}, {lives} lives, closed: {is_closed}");
            assert_eq!(next.store.report().unwrap().findings, []);
        }
    }
}

#[test]
fn what_was_found_and_cannot_be_written_again_refuses_the_opening() {
    let mut machine = Machine::opened(Disk::default(), 1);
    machine.append("first").unwrap();
    let file = *machine.disk.files.keys().next().unwrap();
    let mut machine = Machine::open(machine.disk, 2);
    while let Some(effect) = machine.store.poll_effect() {
        let Effect::Disk(token, op) = effect else { panic!("{effect:?}") };
        // From the first write on: all was read once.
        if matches!(op, DiskOp::Write { .. }) {
            machine.disk.broken = Some((file, 4096..8192));
        }
        let result = machine.disk.run(op);
        machine.store.handle_disk(machine.now, token, result);
    }
    let event = machine.store.poll_event();
    assert!(matches!(event, Some(StoreEvent::Refused(OpenError::Disk { .. }))), "{event:?}");
    machine.disk.broken = None;
    assert_eq!(Machine::opened(machine.disk, 3).texts(), [b"first".to_vec()]);
}

#[test]
fn a_store_that_is_only_read_repairs_nothing() {
    let (mut disk, texts) = several_segments();
    disk.files.values_mut().for_each(|file| file[..HEADER_COPY as usize].fill(0));
    let before = disk.files.clone();
    let mut machine = Machine::open_with(disk, 2, StoreConfig { read_only: true, ..config() });
    assert!(matches!(machine.run()[..], [StoreEvent::Opened]));
    assert_eq!(machine.texts(), texts);
    assert!(machine.disk.files == before);
}

#[test]
fn a_header_that_cannot_be_read_does_not_close_the_store_for_readers() {
    let (mut disk, texts) = several_segments();
    let file = *disk.files.keys().nth(1).unwrap();
    disk.broken = Some((file, 0..FRAMES_AT));
    let mut machine = Machine::open_with(disk.clone(), 2, StoreConfig { read_only: true, ..config() });
    assert!(matches!(machine.run()[..], [StoreEvent::Opened]));
    let report = machine.store.report().unwrap();
    let finding = report.findings.iter().find(|finding| finding.file == file).unwrap();
    assert_eq!((&finding.damage, finding.range.start), (&Damage::Header, 0));
    let lost = finding.ordinals.clone().unwrap();
    assert!(lost.start > 0 && lost.end > lost.start && lost.end < texts.len() as u64, "{lost:?}");
    assert!(!finding.positions.is_empty());
    assert_eq!(machine.store.next_ordinal(), texts.len() as u64);
    // Who writes is told where, and nothing is written.
    disk.done.clear();
    let mut machine = Machine::open(disk, 2);
    let events = machine.run();
    let [StoreEvent::Refused(error)] = &events[..] else { panic!("{events:?}") };
    let text = alloc::format!("cannot read {file}, bytes 0 to {FRAMES_AT}: input/output error (error 5)");
    assert_eq!(error.to_string(), text);
    assert_eq!(machine.disk.done, []);
}

#[test]
fn a_stray_file_with_a_number_at_the_end_of_all_numbers_is_refused_by_name() {
    let (disk, _) = several_segments();
    for number in [u64::MAX, u64::MAX - 1, MAX_FILE + 1] {
        let mut disk = disk.clone();
        disk.files.insert(FileId(number), Vec::new());
        let events = Machine::open(disk, 2).run();
        let [StoreEvent::Refused(OpenError::Number { file })] = &events[..] else { panic!("{events:?}") };
        assert_eq!(*file, FileId(number));
    }
    // The last number that may be: nothing follows it, and what is there can be read.
    let mut disk = disk;
    disk.files.insert(FileId(MAX_FILE), vec![0; 8192]);
    let mut machine = Machine::opened(disk, 2);
    assert_eq!(machine.append("more"), Err(AppendError::NoRoom(NoRoom::Numbers)));
}

#[test]
fn forged_ordinals_end_the_log_and_never_wrap() {
    let mut machine = Machine::opened(Disk::default(), 1);
    machine.append("first").unwrap();
    let mut disk = machine.disk;
    let (&id, file) = disk.files.iter_mut().next().unwrap();
    let HeaderBlock::Valid { header, .. } = SegmentHeader::decode(&file[..FRAMES_AT as usize], id) else { panic!() };
    let end = file.iter().rposition(|byte| *byte != 0).unwrap().next_multiple_of(64);
    let frame = FrameHeader { kind: FrameKind::Marker, count: 0, first_ordinal: MAX_PLACE, synced_upto: MAX_PLACE };
    let mut bytes = Vec::new();
    encode_frame(&mut bytes, &header.nonce, end as u64, &frame, &[]);
    file[end..end + bytes.len()].copy_from_slice(&bytes);
    let mut machine = Machine::opened(disk, 2);
    assert_eq!(machine.store.next_ordinal(), MAX_PLACE);
    assert_eq!(machine.append("second"), Err(AppendError::NoRoom(NoRoom::Numbers)));
}

#[test]
fn an_older_log_that_is_restored_does_not_come_before_what_is_written_next() {
    let (genesis, commit) = foreign(&identity(), None);
    let mut machine = Machine::opened(Disk::default(), 1);
    machine.append("younger").unwrap();
    let log = machine.read(0)[0].log;
    machine.store.import(machine.now, Ticket(1), vec![Record::Genesis(genesis), Record::Commit(commit)]).unwrap();
    machine.run();
    let tip = machine.store.chains().unwrap().tip(&log).unwrap();
    let mut machine = Machine::opened(machine.disk, 2);
    machine.append("next").unwrap();
    let predecessors = machine.store.chains().unwrap().iter().filter_map(|(_, state)| state.genesis.predecessor);
    assert_eq!(predecessors.collect::<Vec<_>>(), [tip]);
}

#[test]
fn imports_are_bounded_by_their_bytes_too() {
    let other = Identity::from_seed([8; 32]);
    let (genesis, _) = foreign(&other, None);
    let log = genesis.log_id();
    let ops = |op: u8| Ops::new(&vec![Op::Plain(vec![op; 250_000].into()); 4]).unwrap().unwrap();
    let mut tip = Tip { log, next: 0, head: log.into() };
    let mut commits = Vec::new();
    for n in 0..17 {
        let commit = Draft::new(tip.log, tip.next, tip.head, Hlc(1), ops(n)).sign(&other);
        tip = commit.tip();
        commits.push(Record::Commit(commit));
    }
    let config = StoreConfig { members: vec![other.peer_id()], ..config() };
    let mut machine = Machine::open_with(Disk::default(), 1, config);
    machine.run();
    let error = machine.store.import(machine.now, Ticket(1), commits.clone()).unwrap_err();
    assert!(matches!(error, AppendError::ImportTooLarge { records: 17, bytes } if bytes > 17_000_000), "{error}");
    let many = vec![Record::Genesis(genesis.clone()); 257];
    let error = machine.store.import(machine.now, Ticket(1), many).unwrap_err();
    assert!(matches!(error, AppendError::ImportTooLarge { records: 257, .. }), "{error}");
    let mut records = [Record::Genesis(genesis)].into_iter().chain(commits);
    for (ticket, count) in [(1, 9), (2, 8)] {
        machine.store.import(machine.now, Ticket(ticket), records.by_ref().take(count).collect()).unwrap();
    }
    let rest: Vec<Record> = records.collect();
    let busy = machine.store.import(machine.now, Ticket(3), [&rest[..], &rest[..]].concat());
    assert_eq!(busy, Err(AppendError::Busy));
    assert_eq!(machine.run().len(), 2, "both are there");
    machine.store.import(machine.now, Ticket(3), rest).unwrap();
    assert!(matches!(machine.run()[..], [StoreEvent::Imported { new: 1, .. }]));
}

#[test]
fn a_run_is_taken_as_its_commits_are_one_by_one() {
    let other = Identity::from_seed([8; 32]);
    let (genesis, first) = foreign(&other, None);
    let log = genesis.log_id();
    let ops = || Ops::new(&[Op::Plain(Bytes::from_static(b"op"))]).unwrap().unwrap();
    let second = Draft::new(log, 1, first.hash(), Hlc(2), ops()).sign(&other);
    // A signature that is none, and what its author signed behind it.
    let mut bytes = second.bytes().to_vec();
    bytes[HEADER_LEN] ^= 1;
    let unsigned = Commit::decode(bytes.into()).unwrap();
    let third = Draft::new(log, 2, unsigned.hash(), Hlc(3), ops()).sign(&other);
    assert_eq!(third.verify(&other.peer_id()), Ok(()));
    let records = [Record::Genesis(genesis), Record::Commit(first), Record::Commit(unsigned), Record::Commit(third)];
    let import = |parts: &[&[Record]]| {
        let config = StoreConfig { members: vec![other.peer_id()], ..config() };
        let mut machine = Machine::open_with(Disk::default(), 1, config);
        machine.run();
        let mut refusals = Vec::new();
        for part in parts {
            machine.store.import(machine.now, Ticket(1), part.to_vec()).unwrap();
            for event in machine.run() {
                if let StoreEvent::ImportRefused { refusal, .. } = event {
                    refusals.push(refusal);
                }
            }
        }
        (refusals, machine.store.next_ordinal())
    };
    let forged = Refusal::BadSignature { log, at: 1 };
    let (refusals, taken) = import(&[&records]);
    assert_eq!((&refusals[..], taken), (&[forged.clone()][..], 0));
    let singly: Vec<&[Record]> = records.chunks(1).collect();
    let (refusals, taken) = import(&singly);
    let gap = Refusal::Gap { log, expected: 1, got: 2 };
    assert_eq!((&refusals[..], taken), (&[forged.clone(), gap][..], 1));
    // And where the run begins behind what is here.
    let (refusals, taken) = import(&[&records[..2], &records[2..]]);
    assert_eq!((&refusals[..], taken), (&[forged][..], 1));
}

#[test]
fn appends_go_on_while_an_import_is_verified_and_then_it_has_its_turn() {
    let mut machine = Machine::opened(Disk::default(), 1);
    let genesis =
        Genesis { network_id: config().network_id, peer_id: identity().peer_id(), nonce: [5; 16], predecessor: None };
    let log = genesis.log_id();
    let ops = Ops::new(&[Op::Plain(Bytes::from_static(b"imported"))]).unwrap().unwrap();
    let commit = Draft::new(log, 0, log.into(), Hlc(1), ops).sign(&identity());
    let records = vec![Record::Genesis(genesis), Record::Commit(commit)];
    machine.store.import(machine.now, Ticket(0), records).unwrap();
    let append = |machine: &mut Machine| {
        machine.store.append(machine.now, Ticket(1), vec![Bytes::from_static(b"op")]).unwrap();
    };
    append(&mut machine);
    let (mut job, mut durable, mut imported) = (None, 0, false);
    while !imported {
        match machine.store.poll_effect() {
            Some(Effect::Verify(token, unverified)) => job = Some((token, unverified)),
            Some(Effect::Sign(token, draft)) => {
                machine.store.handle_signed(machine.now, token, draft.sign(&identity()));
            }
            Some(Effect::Disk(token, op)) => {
                let result = machine.disk.run(op);
                machine.store.handle_disk(machine.now, token, result);
            }
            Some(Effect::Hash(..)) => panic!("nothing is read back"),
            None => {}
        }
        while let Some(event) = machine.store.poll_event() {
            match event {
                StoreEvent::Durable { .. } => {
                    durable += 1;
                    assert!(durable < 20, "there is always an append that waits, and the import waits for ever");
                    append(&mut machine);
                    if durable == 10 {
                        let (token, unverified) = job.take().expect("it was handed out at once");
                        machine.store.handle_verified(machine.now, token, unverified.verify());
                    }
                }
                StoreEvent::Imported { new: 2, .. } => imported = true,
                event => panic!("{event:?}"),
            }
        }
    }
    assert!(durable >= 10, "the appends did not wait for it");
}

#[test]
fn who_becomes_a_member_is_taken_from_at_once_and_stays_one() {
    let author = Identity::from_seed([9; 32]);
    let genesis =
        Genesis { network_id: config().network_id, peer_id: author.peer_id(), nonce: [5; 16], predecessor: None };
    let mut tip = Tip { log: genesis.log_id(), next: 0, head: genesis.log_id().into() };
    let mut records = vec![Record::Genesis(genesis)];
    for _ in 0..2 {
        let ops = Ops::new(&[Op::Plain(Bytes::from_static(b"op"))]).unwrap().unwrap();
        let commit = Draft::new(tip.log, tip.next, tip.head, Hlc(1), ops).sign(&author);
        tip = commit.tip();
        records.push(Record::Commit(commit));
    }
    let last = records.split_off(2);
    let mut machine = Machine::opened(Disk::default(), 1);
    let import = |machine: &mut Machine, records: &[Record]| {
        machine.store.import(machine.now, Ticket(1), records.to_vec()).unwrap();
        matches!(machine.run()[..], [StoreEvent::Imported { .. }])
    };
    assert!(!import(&mut machine, &records));
    machine.store.set_members(vec![author.peer_id()]);
    assert!(import(&mut machine, &records));
    // Told while an import is under way.
    machine.store.import(machine.now, Ticket(2), last).unwrap();
    assert!(matches!(machine.store.poll_effect(), Some(Effect::Verify(token, unverified)) if {
        machine.store.handle_verified(machine.now, token, unverified.verify());
        true
    }));
    let Some(Effect::Disk(token, op)) = machine.store.poll_effect() else { panic!("it is written") };
    machine.store.set_members(Vec::new());
    let result = machine.disk.run(op);
    machine.store.handle_disk(machine.now, token, result);
    assert!(matches!(machine.run()[..], [StoreEvent::Imported { new: 1, .. }]));
    assert!(!import(&mut machine, &records), "nothing of a former member is taken");
}
