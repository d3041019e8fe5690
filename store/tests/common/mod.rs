//! What the tests of the store share.
#![allow(dead_code, reason = "not every test uses all of it")]

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use vine_core::log::Op;
use vine_core::log::reader::{Cursor, Damaged, Delivered};
use vine_core::{Identity, NetworkId};
use vine_store::{Handle, OpenError, Options};

/// No reserve: what is free on the machine that runs the tests is its own affair.
pub(crate) fn options() -> Options {
    Options { reserve: Some(0), ..Options::new(NetworkId::new("test").unwrap()) }
}

pub(crate) fn identity() -> Arc<Identity> {
    Arc::new(Identity::from_seed([7; 32]))
}

pub(crate) fn open(dir: &Path) -> Result<Handle, OpenError> {
    Handle::open(dir, identity(), options())
}

/// Every op of the store, in its order; damage is a failure.
pub(crate) fn all(store: &Handle) -> Vec<Delivered> {
    let ops = all_but_damage(store, |damaged| panic!("{damaged}"));
    for (ordinal, op) in ops.iter().enumerate() {
        assert_eq!(op.ordinal, ordinal as u64, "ordinals are dense");
    }
    ops
}

/// Every op of the store that can be read, in its order.
pub(crate) fn all_but_damage(store: &Handle, mut on_damage: impl FnMut(Damaged)) -> Vec<Delivered> {
    let (mut ops, mut cursor) = (Vec::new(), Cursor::at(0));
    loop {
        let batch = store.read(cursor, 100_000).wait().unwrap();
        if batch.taken.is_empty() && batch.damaged.is_none() {
            return ops;
        }
        ops.extend(batch.taken.iter().flat_map(|taken| taken.delivered(cursor.ordinal)));
        batch.damaged.into_iter().for_each(&mut on_damage);
        cursor = batch.next;
    }
}

/// The plain ops as text.
pub(crate) fn texts(ops: &[Delivered]) -> Vec<String> {
    let plain = ops.iter().filter_map(|op| if let Op::Plain(data) = &op.op { Some(data) } else { None });
    plain.map(|data| String::from_utf8_lossy(data).into_owned()).collect()
}

pub(crate) fn text(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}
