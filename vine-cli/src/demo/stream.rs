//! A stream of pings that runs while other things happen, and what it noticed of them.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use super::PING_PATIENCE;
use super::host::Pinger;

/// Between two pings.
pub(super) const INTERVAL: Duration = Duration::from_millis(10);

/// The stream; it stops when this is dropped.
pub(super) struct Stream {
    beats: Arc<Mutex<Vec<Beat>>>,
    task: JoinHandle<()>,
}

/// One ping.
#[derive(Debug, Clone, Copy)]
struct Beat {
    sent: Instant,
    answered: Option<Instant>,
}

/// What became of a number of pings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) sent: usize,
    pub(super) answered: usize,
}

impl Tally {
    pub(super) fn lost(self) -> usize {
        self.sent - self.answered
    }
}

impl Stream {
    /// Sends a ping to `destination` every [`INTERVAL`] from now on.
    pub(super) fn start(pinger: Pinger, destination: IpAddr) -> Stream {
        let beats = Arc::default();
        let task = tokio::spawn(run(pinger, destination, Arc::clone(&beats)));
        Stream { beats, task }
    }

    /// The longest time between two answers of which the later came after `since`.
    pub(super) fn longest_silence(&self, since: Instant) -> Duration {
        let mut answers: Vec<Instant> = self.lock().iter().filter_map(|beat| beat.answered).collect();
        answers.sort_unstable();
        let gaps = answers.windows(2).filter_map(|pair| match pair {
            [earlier, later] if *later > since => Some(later.duration_since(*earlier)),
            _ => None,
        });
        gaps.max().unwrap_or_default()
    }

    /// What became of the pings that were sent since then.
    pub(super) fn tally(&self, since: Option<Instant>) -> Tally {
        let beats = self.lock();
        let beats = beats.iter().filter(|beat| since.is_none_or(|since| beat.sent >= since));
        let answered = beats.clone().filter(|beat| beat.answered.is_some()).count();
        Tally { sent: beats.count(), answered }
    }

    /// Sends no more and waits for the answers that are due.
    pub(super) async fn stop(&self) {
        self.task.abort();
        let stopped = Instant::now();
        let due = stopped.checked_sub(PING_PATIENCE);
        while self.tally(due).lost() > 0 && stopped.elapsed() < PING_PATIENCE {
            tokio::time::sleep(INTERVAL).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Beat>> {
        self.beats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(pinger: Pinger, destination: IpAddr, beats: Arc<Mutex<Vec<Beat>>>) {
    let mut clock = tokio::time::interval(INTERVAL);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        clock.tick().await;
        let number = {
            let mut beats = beats.lock().unwrap_or_else(PoisonError::into_inner);
            beats.push(Beat { sent: Instant::now(), answered: None });
            beats.len() - 1
        };
        let (pinger, beats) = (pinger.clone(), Arc::clone(&beats));
        tokio::spawn(async move {
            if pinger.ping(destination, PING_PATIENCE).await.is_some()
                && let Some(beat) = beats.lock().unwrap_or_else(PoisonError::into_inner).get_mut(number)
            {
                beat.answered = Some(Instant::now());
            }
        });
    }
}
