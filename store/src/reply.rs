//! One answer of the store's thread to one caller, who may be a task or a thread.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use crate::error::StoreError;

/// What a caller holds: a future, and something to wait for in a plain thread.
#[derive(Debug)]
#[must_use = "an answer is for somebody"]
pub(crate) struct Answer<T> {
    slot: Arc<Slot<T>>,
}

/// What the store's thread holds. Dropped without an answer, it answers with why the thread is gone.
#[derive(Debug)]
pub(crate) struct Reply<T> {
    slot: Arc<Slot<T>>,
    end: Arc<End>,
    is_given: bool,
}

/// Why the thread is gone, once it is.
pub(crate) type End = OnceLock<StoreError>;

#[derive(Debug)]
struct Slot<T>(Mutex<State<T>>);

#[derive(Debug)]
enum State<T> {
    Waiting(Option<Waker>),
    Given(Result<T, StoreError>),
    Taken,
}

impl<T> Slot<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        // Nothing that could panic runs while the lock is held, but for a waker's clone.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The two ends of one answer.
pub(crate) fn pair<T>(end: &Arc<End>) -> (Reply<T>, Answer<T>) {
    let slot = Arc::new(Slot(Mutex::new(State::Waiting(None))));
    (Reply { slot: slot.clone(), end: end.clone(), is_given: false }, Answer { slot })
}

impl<T> Reply<T> {
    /// Gives the answer, and hands back who waits for it: whoever answers many wakes afterwards.
    pub(crate) fn give(mut self, answer: Result<T, StoreError>) -> Option<Waker> {
        self.set(answer)
    }

    fn set(&mut self, answer: Result<T, StoreError>) -> Option<Waker> {
        self.is_given = true;
        match std::mem::replace(&mut *self.slot.state(), State::Given(answer)) {
            State::Waiting(waker) => waker,
            State::Given(_) | State::Taken => None,
        }
    }

    /// Gives the answer and wakes who waits for it.
    pub(crate) fn send(self, answer: Result<T, StoreError>) {
        if let Some(waker) = self.give(answer) {
            waker.wake();
        }
    }

    /// Whether nobody is there any more to take the answer.
    pub(crate) fn is_unwanted(&self) -> bool {
        Arc::strong_count(&self.slot) == 1
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        if !self.is_given {
            let why = self.end.get().cloned().unwrap_or(StoreError::Closed);
            if let Some(waker) = self.set(Err(why)) {
                waker.wake();
            }
        }
    }
}

impl<T> Answer<T> {
    /// Waits for the answer in a plain thread.
    pub(crate) fn wait(self) -> Result<T, StoreError> {
        block_on(self)
    }
}

impl<T> Future for Answer<T> {
    type Output = Result<T, StoreError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.slot.state();
        match std::mem::replace(&mut *state, State::Taken) {
            State::Given(answer) => Poll::Ready(answer),
            State::Waiting(waker) => {
                let waker = match waker {
                    Some(waker) if waker.will_wake(cx.waker()) => waker,
                    _ => cx.waker().clone(),
                };
                *state = State::Waiting(Some(waker));
                Poll::Pending
            }
            // Polled again after it was ready: there is no second answer.
            State::Taken => Poll::Pending,
        }
    }
}

/// Wakes a parked thread.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future to its end in the calling thread.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    thread_local! {
        static WAKER: Waker = Waker::from(Arc::new(Unpark(thread::current())));
    }
    let waker = WAKER.with(Waker::clone);
    let mut future = std::pin::pin!(future);
    let mut cx = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return output;
        }
        thread::park();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end() -> Arc<End> {
        Arc::new(OnceLock::new())
    }

    #[test]
    fn an_answer_reaches_a_thread_that_waits() {
        let (reply, answer) = pair(&end());
        let waiter = thread::spawn(move || answer.wait());
        thread::sleep(std::time::Duration::from_millis(20));
        assert!(!reply.is_unwanted());
        reply.send(Ok(7));
        assert!(matches!(waiter.join().unwrap(), Ok(7)));
    }

    #[test]
    fn a_dropped_reply_says_why() {
        let end = end();
        let (reply, answer) = pair::<()>(&end);
        end.set(StoreError::Panicked("at the disco".into())).unwrap();
        drop(reply);
        assert!(answer.wait().unwrap_err().to_string().contains("at the disco"));
        let (reply, answer) = pair::<()>(&end);
        drop(answer);
        assert!(reply.is_unwanted());
    }
}
