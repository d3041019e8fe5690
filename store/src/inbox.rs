//! The queue of what is asked of the store's thread.
//!
//! It is bounded in requests and in bytes, for each kind of requests by itself, and what the thread took out and could not
//! begin with yet counts as if it were still here. Who finds it full waits, or gets [`StoreError::Busy`] from the `try_`
//! methods.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread::Thread;

use crate::error::StoreError;
use crate::reply::{Answer, End, Reply, block_on, pair};
use crate::request::{Load, Request};

/// The most requests of a kind that are queued.
const MAX_REQUESTS: usize = 16 * 1024;
/// The most bytes of a kind of requests that are queued. One append may be larger than that alone: it is queued when nothing else is.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// Where callers leave their requests.
#[derive(Debug)]
pub(crate) struct Inbox {
    queue: Mutex<Queue>,
    /// Requests in the queue, to be looked at without its lock.
    len: AtomicUsize,
    thread: OnceLock<Thread>,
    end: Arc<End>,
}

#[derive(Debug, Default)]
struct Queue {
    requests: Vec<Request>,
    load: Load,
    /// What was taken out, and is not begun with.
    held: Load,
    waiting: Vec<Waker>,
    /// How often there was room again.
    round: u64,
    is_closed: bool,
}

/// There is no room in the queue now; the request comes back.
#[derive(Debug)]
struct Full(Request, u64);

impl Inbox {
    pub(crate) fn new() -> Inbox {
        Inbox { queue: Mutex::default(), len: AtomicUsize::new(0), thread: OnceLock::new(), end: Arc::default() }
    }

    /// Says which thread takes the requests.
    pub(crate) fn served_by(&self, thread: Thread) {
        _ = self.thread.set(thread);
    }

    /// Why the thread is gone, once it is.
    pub(crate) fn end(&self) -> &Arc<End> {
        &self.end
    }

    /// How many requests wait.
    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }

    /// A request with the place for its answer; it is in the queue already if there was room.
    pub(crate) fn ask<T>(self: &Arc<Self>, request: impl FnOnce(Reply<T>) -> Request) -> Pending<T> {
        let (reply, answer) = pair(&self.end);
        let unsent = self.push(request(reply), None, None).err();
        Pending {
            answer,
            unsent: unsent.map(|full| Unsent { inbox: self.clone(), request: Some(full.0), waits: None }),
        }
    }

    /// The same, where no room is an error.
    pub(crate) fn try_ask<T>(
        self: &Arc<Self>,
        request: impl FnOnce(Reply<T>) -> Request,
    ) -> Result<Pending<T>, StoreError> {
        let pending = self.ask(request);
        if pending.unsent.is_some() { Err(StoreError::Busy) } else { Ok(pending) }
    }

    /// Adds a request whether there is room or not: one of which there are few.
    pub(crate) fn force<T>(self: &Arc<Self>, request: impl FnOnce(Reply<T>) -> Request) -> Answer<T> {
        let (reply, answer) = pair(&self.end);
        let mut queue = self.queue();
        if !queue.is_closed {
            self.add(&mut queue, request(reply));
        }
        drop(queue);
        self.wake();
        answer
    }

    /// Takes everything out. It counts as held until [`Inbox::hold`] says what of it is.
    pub(crate) fn take(&self, into: &mut Vec<Request>) {
        let mut queue = self.queue();
        std::mem::swap(&mut queue.requests, into);
        let load = std::mem::take(&mut queue.load);
        queue.held = queue.held.with(load);
        self.len.store(0, Ordering::Release);
    }

    /// Says what of all that was taken out is not begun with, and lets those who wait for room try again.
    pub(crate) fn hold(&self, held: Load) {
        let mut queue = self.queue();
        queue.held = held;
        queue.round += 1;
        let waiting = std::mem::take(&mut queue.waiting);
        drop(queue);
        waiting.into_iter().for_each(Waker::wake);
    }

    /// The thread is gone: answers everything with `why`, from now on too.
    pub(crate) fn close(&self, why: StoreError) {
        _ = self.end.set(why);
        self.queue().is_closed = true;
        let mut left = Vec::new();
        self.take(&mut left); // Dropped, each answers its caller.
        self.hold(Load::default());
    }

    /// Queues a request, or leaves `waker` to be told when there may be room. `left` is what was left before.
    fn push(&self, request: Request, waker: Option<&Waker>, left: Option<&(u64, Waker)>) -> Result<(), Full> {
        let mut queue = self.queue();
        if queue.is_closed {
            return Ok(()); // Dropped, it answers its caller.
        }
        let (requests, bytes) = queue.load.with(queue.held).of(request.kind());
        let is_full = requests >= MAX_REQUESTS || bytes.saturating_add(request.bytes()) > MAX_BYTES;
        if is_full && requests > 0 {
            let is_there = |waker: &&Waker| left.is_some_and(|(at, left)| *at == queue.round && left.will_wake(waker));
            let waker = waker.filter(|waker| !is_there(waker)).cloned();
            queue.waiting.extend(waker);
            return Err(Full(request, queue.round));
        }
        self.add(&mut queue, request);
        drop(queue);
        self.wake();
        Ok(())
    }

    /// Takes back a waker that was left in this round.
    fn forget(&self, round: u64, waker: &Waker) {
        let mut queue = self.queue();
        if queue.round == round
            && let Some(at) = queue.waiting.iter().position(|left| left.will_wake(waker))
        {
            queue.waiting.swap_remove(at);
        }
    }

    fn add(&self, queue: &mut Queue, request: Request) {
        queue.load.add(request.kind(), 1, request.bytes());
        queue.requests.push(request);
        self.len.store(queue.requests.len(), Ordering::Release);
    }

    fn wake(&self) {
        // Costs a system call only if the thread sleeps.
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was asked of a store, until it is answered: a [`Future`] for tasks, with [`Pending::wait`] for threads.
///
/// It has been queued when the call that made it returned, if there was room; then it is carried out even if this is dropped.
/// Else it is queued when there is room, which it waits for as it is polled.
#[derive(Debug)]
#[must_use = "it may not even be queued before it is awaited"]
pub struct Pending<T> {
    answer: Answer<T>,
    unsent: Option<Unsent>,
}

#[derive(Debug)]
struct Unsent {
    inbox: Arc<Inbox>,
    request: Option<Request>,
    /// The round of the queue in which this waker was left there.
    waits: Option<(u64, Waker)>,
}

/// Who gives up leaves nothing behind.
impl Drop for Unsent {
    fn drop(&mut self) {
        if let Some((round, waker)) = &self.waits {
            self.inbox.forget(*round, waker);
        }
    }
}

impl<T> Pending<T> {
    /// What waits for an answer to a request that is queued.
    pub(crate) fn sent(answer: Answer<T>) -> Pending<T> {
        Pending { answer, unsent: None }
    }

    /// Waits in a plain thread. It is not for tasks: it blocks.
    ///
    /// # Errors
    ///
    /// As the future.
    pub fn wait(self) -> Result<T, StoreError> {
        block_on(self)
    }
}

impl<T> Future for Pending<T> {
    type Output = Result<T, StoreError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(unsent) = &mut self.unsent
            && let Some(request) = unsent.request.take()
            && let Err(Full(request, round)) = unsent.inbox.push(request, Some(cx.waker()), unsent.waits.as_ref())
        {
            let waits = unsent.waits.replace((round, cx.waker().clone()));
            if let Some((round, former)) = waits.filter(|(_, former)| !former.will_wake(cx.waker())) {
                unsent.inbox.forget(round, &former);
            }
            unsent.request = Some(request);
            return Poll::Pending;
        }
        self.unsent = None;
        Pin::new(&mut self.answer).poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::Position;
    use crate::request::Kind;

    struct Nobody;

    impl std::task::Wake for Nobody {
        fn wake(self: Arc<Self>) {}
    }

    fn append(inbox: &Arc<Inbox>, len: usize) -> Pending<Position> {
        inbox.ask(|reply| Request::Append { ops: vec![Bytes::from(vec![0; len])], reply })
    }

    #[test]
    fn a_full_queue_pushes_back_and_then_takes() {
        let inbox = Arc::new(Inbox::new());
        let half = MAX_BYTES / 2;
        let _first = append(&inbox, half);
        let _second = append(&inbox, half - 100_000);
        let mut third = append(&inbox, half);
        let busy = inbox.try_ask(|reply| Request::Append { ops: vec![Bytes::from(vec![0; half])], reply });
        assert!(matches!(busy, Err(StoreError::Busy)));
        let waker = Waker::from(Arc::new(Nobody));
        let mut cx = Context::from_waker(&waker);
        assert!(Pin::new(&mut third).poll(&mut cx).is_pending());
        assert!(Pin::new(&mut third).poll(&mut cx).is_pending());
        assert_eq!((inbox.len(), inbox.queue().waiting.len()), (2, 1));
        let mut fourth = append(&inbox, half);
        let others = Waker::from(Arc::new(Nobody));
        assert!(Pin::new(&mut fourth).poll(&mut Context::from_waker(&others)).is_pending());
        assert_eq!(inbox.queue().waiting.len(), 2);
        drop(fourth);
        assert_eq!(inbox.queue().waiting.len(), 1, "who gives up leaves nothing behind");
        let mut import = inbox.ask(|reply| Request::Import { records: Vec::new(), reply });
        assert!(Pin::new(&mut import).poll(&mut cx).is_pending());
        assert_eq!(inbox.len(), 3, "writes do not stand in the way of others");
        let mut taken = Vec::new();
        inbox.take(&mut taken);
        assert_eq!((taken.len(), inbox.len()), (3, 0));
        let mut held = Load::default();
        held.add(Kind::Write, 1, half);
        for (held, len) in [(None, 0), (Some(held), 0), (Some(Load::default()), 1)] {
            held.into_iter().for_each(|held| inbox.hold(held));
            assert!(Pin::new(&mut third).poll(&mut cx).is_pending());
            assert_eq!(inbox.len(), len, "it goes in on being polled, when there is room");
        }
    }

    #[test]
    fn what_is_larger_than_the_queue_goes_in_alone() {
        let inbox = Arc::new(Inbox::new());
        let _one = append(&inbox, 2 * MAX_BYTES);
        assert_eq!(inbox.len(), 1);
    }

    #[test]
    fn the_end_reaches_everybody() {
        let inbox = Arc::new(Inbox::new());
        let queued = append(&inbox, 10);
        inbox.close(StoreError::Panicked("why".into()));
        assert!(matches!(queued.wait(), Err(StoreError::Panicked(_))));
        assert!(matches!(append(&inbox, 10).wait(), Err(StoreError::Panicked(_))));
    }
}
