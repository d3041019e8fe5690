//! Reading the log as it grows.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use crate::core::{Cursor, Delivered, ReadError};
use crate::error::StoreError;
use crate::inbox::{Inbox, Pending};
use crate::reply::block_on;
use crate::request::{Batch, Read, Request};

/// What is read ahead, in bytes, about.
const AHEAD: usize = 128 * 1024;

/// Ops in the order in which the store took them. Ends with an error, when the store is closed or stopped; nothing comes
/// behind that.
#[derive(Debug)]
pub struct Subscription {
    inbox: Arc<Inbox>,
    items: VecDeque<Item>,
    /// The next part; it is asked for when the one before begins to be used.
    coming: Option<Pending<Batch>>,
}

/// One thing that a [`Subscription`] gives.
#[derive(Clone, Debug)]
pub enum Item {
    /// An op.
    Op(Delivered),
    /// Ops that cannot be read. What lies behind them comes next.
    Damaged(ReadError),
}

impl Subscription {
    pub(crate) fn new(inbox: Arc<Inbox>, from: Cursor) -> Subscription {
        let mut subscription = Subscription { inbox, items: VecDeque::new(), coming: None };
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
    /// The store is closed, or its thread is gone.
    pub async fn next(&mut self) -> Result<Item, StoreError> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// [`Subscription::next`] for a plain thread.
    ///
    /// # Errors
    ///
    /// The store is closed, or its thread is gone.
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
            let Batch { items, next, damaged } = batch?;
            self.items.extend(items.into_iter().map(Item::Op));
            self.items.extend(damaged.map(Item::Damaged));
            self.ask(next);
        }
    }
}
