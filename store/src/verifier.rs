//! A thread beside the store's: it verifies the commits of imports while the store takes writes.

use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::{self, JoinHandle, Thread};

use vine_core::log::disk::Token;
use vine_core::log::import::{Unverified, Verdicts};

/// The thread, from the first import on.
#[derive(Debug, Default)]
pub(crate) struct Verifier {
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    jobs: Sender<(Token, Unverified)>,
    results: Receiver<(Token, Verdicts)>,
    thread: JoinHandle<()>,
}

/// Wakes the store's thread when the verifier's ends, however it does.
struct Wake(Thread);

impl Drop for Wake {
    fn drop(&mut self) {
        self.0.unpark();
    }
}

impl Verifier {
    /// Has an import verified. The calling thread is woken when [`Verifier::verified`] has something for it. Gives the result
    /// at once where there is no second thread to be had.
    pub(crate) fn verify(&mut self, token: Token, unverified: Unverified) -> Option<(Token, Verdicts)> {
        if self.running.is_none() {
            self.running = Running::start();
        }
        let Some(running) = &self.running else { return Some((token, unverified.verify())) };
        // One that is gone is noticed when its results are asked for.
        _ = running.jobs.send((token, unverified));
        None
    }

    /// What was verified.
    ///
    /// # Panics
    /// The thread panicked, with the same message.
    pub(crate) fn verified(&mut self) -> Option<(Token, Verdicts)> {
        match self.running.as_ref()?.results.try_recv() {
            Ok(verified) => Some(verified),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => match self.running.take()?.thread.join() {
                Ok(()) => None,
                Err(panic) => std::panic::resume_unwind(panic),
            },
        }
    }
}

impl Running {
    fn start() -> Option<Running> {
        let (jobs, inbox) = channel::<(Token, Unverified)>();
        let (done, results) = channel();
        let store = Wake(thread::current());
        let run = move || {
            // Dropped behind `done`, so that the store finds that it is gone.
            let store = store;
            let done = done;
            for (token, unverified) in inbox {
                if done.send((token, unverified.verify())).is_err() {
                    return;
                }
                store.0.unpark();
            }
        };
        let thread = thread::Builder::new().name("vine-verify".into()).spawn(run).ok()?;
        Some(Running { jobs, results, thread })
    }
}
