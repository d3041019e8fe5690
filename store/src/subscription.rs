//! Reading the log as it grows.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use vine_core::log::Op;
use vine_core::log::reader::{Cursor, Damaged, Delivered};

use crate::error::StoreError;
use crate::handle::Handle;
use crate::inbox::{Inbox, Pending};
use crate::reply::block_on;
use crate::request::{Batch, Read, Request};

/// What is read ahead, in bytes, about.
const AHEAD: usize = 128 * 1024;

/// Ops in the order in which the store took them. Ends with an error when the store is closed ([`StoreError::Closed`]), and
/// behind the last op of one that stopped ([`StoreError::Stopped`]); nothing comes behind that.
#[derive(Debug)]
pub struct Subscription {
    inbox: Arc<Inbox>,
    items: VecDeque<Item>,
    /// The ordinal of the next op that is wanted.
    wanted: u64,
    /// The next part; it is asked for when the one before begins to be used.
    coming: Option<Pending<Batch>>,
}

/// One thing that a [`Subscription`] gives.
#[derive(Clone, Debug)]
pub enum Item {
    /// An op.
    Op(Delivered),
    /// Ops that cannot be read. What lies behind them comes next.
    Damaged(Damaged),
}

impl Subscription {
    pub(crate) fn new(inbox: Arc<Inbox>, from: Cursor) -> Subscription {
        let mut subscription = Subscription { inbox, items: VecDeque::new(), wanted: from.ordinal, coming: None };
        subscription.ask(from);
        subscription
    }

    fn ask(&mut self, from: Cursor) {
        let read = Read { from, max_bytes: AHEAD, follow: true };
        self.coming = Some(self.inbox.ask(|reply| Request::Read { read, reply }));
    }

    /// The next item, as soon as there is one.
    ///
    /// # Errors
    ///
    /// The store is closed or has stopped, or its thread is gone.
    pub async fn next(&mut self) -> Result<Item, StoreError> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// [`Subscription::next`] for a plain thread.
    ///
    /// # Errors
    ///
    /// The store is closed or has stopped, or its thread is gone.
    pub fn wait_next(&mut self) -> Result<Item, StoreError> {
        block_on(self.next())
    }

    /// [`Subscription::next`] as a function of a stream.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Item, StoreError>> {
        loop {
            if let Some(item) = self.items.pop_front() {
                return Poll::Ready(Ok(item));
            }
            let Some(coming) = &mut self.coming else { return Poll::Ready(Err(StoreError::Closed)) };
            let batch = ready!(Pin::new(coming).poll(cx));
            self.coming = None;
            let Batch { taken, next, damaged } = batch?;
            for taken in taken {
                self.items.extend(taken.delivered(self.wanted).map(Item::Op));
            }
            self.wanted = next.ordinal;
            self.items.extend(damaged.map(Item::Damaged));
            self.ask(next);
        }
    }
}

/// Writes of keys with a prefix; see [`Handle::watch`].
#[derive(Debug)]
pub struct Watch {
    store: Handle,
    prefix: Bytes,
    ops: Subscription,
}

/// A key was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// The ordinal of the write.
    pub ordinal: u64,
    /// The key.
    pub key: Bytes,
    /// Its value, or that it has none any more.
    pub value: Option<Bytes>,
}

/// One thing that a [`Watch`] gives.
#[derive(Clone, Debug)]
pub enum Watched {
    /// A key was written.
    Change(Change),
    /// Ops that cannot be read: writes of keys may be among them.
    Damaged(Damaged),
}

impl Watch {
    pub(crate) fn new(store: Handle, prefix: Bytes, from: u64) -> Watch {
        let ops = store.subscribe(from);
        Watch { store, prefix, ops }
    }

    /// The next change, as soon as there is one.
    ///
    /// # Errors
    ///
    /// The store is closed or has stopped, or its thread is gone.
    pub async fn next(&mut self) -> Result<Watched, StoreError> {
        loop {
            let op = match self.ops.next().await? {
                Item::Op(op) => op,
                Item::Damaged(damaged) => return Ok(Watched::Damaged(damaged)),
            };
            let (Op::Put { key, .. } | Op::Delete { key, .. }) = &op.op else { continue };
            if !key.starts_with(&self.prefix) {
                continue;
            }
            let key = key.clone();
            let entry = self.store.entries(vec![key.clone()]).await?.pop().flatten();
            // A write that lost against another one changes nothing.
            if let Some(entry) = entry.filter(|entry| entry.commit == op.commit && entry.index == op.index) {
                return Ok(Watched::Change(Change { ordinal: op.ordinal, key, value: entry.value }));
            }
        }
    }

    /// [`Watch::next`] for a plain thread.
    ///
    /// # Errors
    ///
    /// The store is closed or has stopped, or its thread is gone.
    pub fn wait_next(&mut self) -> Result<Watched, StoreError> {
        block_on(self.next())
    }
}
