//! The handle and its thread, on real files.
#![allow(clippy::unwrap_used, reason = "the whole file is a test")]

mod common;

use std::thread;

use bytes::Bytes;
use common::{identity, options};
use vine_store::{Handle, Item, StoreError};

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
