//! The handle and its thread, on real files.
#![allow(clippy::unwrap_used, reason = "the whole file is a test")]

mod common;

use std::thread;

use bytes::Bytes;
use common::{identity, options, text};
use vine_core::Identity;
use vine_core::log::reader::Cursor;
use vine_core::log::{CommitHash, Draft, Genesis, Hlc, LogId, Op, Ops, Record, Tip};
use vine_store::{Handle, Item, Options, StoreError};

#[test]
fn a_follower_gets_every_op_once_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let store = Handle::open(dir.path(), identity(), options()).unwrap();
    let mut subscription = store.subscribe(0);
    let follower = thread::spawn(move || {
        let mut ordinals = Vec::new();
        loop {
            match subscription.wait_next() {
                Ok(Item::Op(op)) => ordinals.push(op.ordinal),
                Ok(Item::Damaged(error)) => panic!("{error}"),
                Err(StoreError::Closed) => return ordinals,
                Err(error) => panic!("{error}"),
            }
        }
    });
    let writers: Vec<_> = (0..4)
        .map(|n| {
            let store = store.clone();
            thread::spawn(move || {
                for m in 0..50 {
                    let op = Bytes::from(format!("{n} {m}"));
                    store.append(vec![op]).wait().unwrap();
                }
            })
        })
        .collect();
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    // The follower may be behind: it gets what was durable before the store is closed.
    let mut late = store.subscribe(0);
    for _ in 0..200 {
        late.wait_next().unwrap();
    }
    store.close().wait().unwrap();
    let ordinals = follower.join().unwrap();
    assert!(ordinals.iter().copied().eq(0..ordinals.len() as u64));
}

#[test]
fn after_the_end_every_call_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let store = Handle::open(dir.path(), identity(), options()).unwrap();
    let again = Handle::open(dir.path(), identity(), options()).unwrap_err().to_string();
    assert!(again.contains("in use by process"), "{again}");
    let queued = store.append(vec![Bytes::from_static(b"x")]);
    store.close().wait().unwrap();
    queued.wait().unwrap();
    assert!(matches!(store.append(vec![]).wait(), Err(StoreError::Closed)));
    assert!(matches!(store.status().wait(), Err(StoreError::Closed)));
    assert!(matches!(store.subscribe(0).wait_next(), Err(StoreError::Closed)));
}

#[test]
fn more_than_the_store_is_at_at_a_time_waits_and_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let store = Handle::open(dir.path(), identity(), options()).unwrap();
    let mut subscriptions: Vec<_> = (0..300).map(|_| store.subscribe(0)).collect();
    store.append(vec![text("one")]).wait().unwrap();
    for subscription in &mut subscriptions {
        assert!(matches!(subscription.wait_next(), Ok(Item::Op(op)) if op.ordinal == 0));
    }
    store.append(vec![text("two")]).wait().unwrap();
    for subscription in &mut subscriptions {
        assert!(matches!(subscription.wait_next(), Ok(Item::Op(op)) if op.ordinal == 1));
    }
    let reads: Vec<_> = (0..600).map(|_| store.read(Cursor::at(0), 100)).collect();
    for read in reads {
        assert_eq!(read.wait().unwrap().taken.len(), 1);
    }
    // Many that end.
    let queued: Vec<_> = (0..600).map(|_| store.read(Cursor::at(0), 100)).collect();
    store.close().wait().unwrap();
    let answers = queued.into_iter().map(|read| read.wait());
    assert!(answers.into_iter().all(|answer| matches!(answer, Ok(_) | Err(StoreError::Closed))));
}

#[test]
fn many_imports_are_taken_one_behind_the_other() {
    let root = tempfile::tempdir().unwrap();
    let (mut records, mut next) = (Vec::new(), Tip { log: LogId([0; 32]), next: 0, head: CommitHash([0; 32]) });
    let author = identity();
    for n in 0..60 {
        if n == 0 {
            let network_id = options().network_id;
            let genesis = Genesis { network_id, peer_id: author.peer_id(), nonce: [1; 16], predecessor: None };
            next = Tip { log: genesis.log_id(), next: 0, head: genesis.log_id().into() };
            records.push(Record::Genesis(genesis));
        }
        let ops = Ops::new(&[Op::Plain(text(&format!("{n}")))]).unwrap().unwrap();
        let commit = Draft::new(next.log, next.next, next.head, Hlc(1), ops).sign(&author);
        next = commit.tip();
        records.push(Record::Commit(commit));
    }
    let options = Options { members: vec![author.peer_id()], ..options() };
    let other = std::sync::Arc::new(Identity::from_seed([8; 32]));
    let store = Handle::open(root.path(), other, options).unwrap();
    let imports: Vec<_> = records.into_iter().map(|record| store.import(vec![record])).collect();
    let closing = store.close();
    // The beginning of the log counts with its first commit.
    let new: u32 = imports.into_iter().map(|import| import.wait().unwrap().new).sum();
    assert_eq!(new, 61, "what was queued is finished before it is closed");
    closing.wait().unwrap();
}
