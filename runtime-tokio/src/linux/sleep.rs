//! The clock that counts while the machine sleeps, and the news that it slept.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd, RawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::time::{ClockId as Clock, clock_gettime};
use tokio::io::unix::AsyncFd;

/// What the two clocks may drift apart by reading them one after the other. No machine sleeps for less.
const NOISE: Duration = Duration::from_millis(500);

/// Time since the machine started, sleep included.
pub(crate) fn boot_time() -> Duration {
    read(Clock::CLOCK_BOOTTIME)
}

fn read(clock: Clock) -> Duration {
    // Every kernel that this runs on has both clocks, and the only other error is a bad pointer.
    clock_gettime(clock).map(Duration::from).unwrap_or_default()
}

/// What happened to the host's time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TimeChange {
    /// The machine slept for so long.
    Slept(Duration),
    /// The wall clock was set.
    ClockSet,
}

/// Waits for the machine to wake from sleep.
///
/// The kernel cancels a timer of the wall clock when that jumps, as it does when the machine wakes (timerfd_create(2),
/// `TFD_TIMER_CANCEL_ON_SET`); so nothing has to be looked at again and again. Whether it slept shows in how far the clock
/// that counts sleep has left the one that does not.
pub(crate) struct SleepWatch {
    timer: AsyncFd<Alarm>,
    slept: Duration,
}

/// The timer, as tokio takes it.
struct Alarm(TimerFd);

impl AsRawFd for Alarm {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl SleepWatch {
    /// Starts watching; must be called inside a tokio runtime.
    pub(crate) fn open() -> io::Result<SleepWatch> {
        let timer = TimerFd::new(ClockId::CLOCK_REALTIME, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
        arm(&timer)?;
        #[allow(
            deprecated,
            reason = "its successor is unsafe for types that do not own their descriptor; this one does"
        )]
        let timer = AsyncFd::new(Alarm(timer))?;
        Ok(SleepWatch { timer, slept: slept() })
    }

    /// Waits for the next jump of the wall clock. An error means that there is no more to be heard.
    pub(crate) async fn changed(&mut self) -> io::Result<TimeChange> {
        let mut ready = self.timer.readable().await?;
        ready.clear_ready();
        let timer = &self.timer.get_ref().0;
        // Takes the cancellation in, without which the next setting would be told of it. There may be nothing by now.
        let _ = timer.wait();
        arm(timer)?;
        let slept = slept();
        let longer = slept.saturating_sub(std::mem::replace(&mut self.slept, slept));
        Ok(if longer > NOISE { TimeChange::Slept(longer) } else { TimeChange::ClockSet })
    }
}

/// How long the machine has slept since it started.
fn slept() -> Duration {
    // In this order: what passes between the two readings makes it less, never more.
    let boot = boot_time();
    boot.saturating_sub(read(Clock::CLOCK_MONOTONIC))
}

/// Sets the timer to a time of the wall clock that does not come, to be told when that clock jumps.
fn arm(timer: &TimerFd) -> io::Result<()> {
    /// The year 2100, in seconds. A clock that is set beyond it is news as well.
    const NEVER: TimeSpec = TimeSpec::new(4_102_444_800, 0);
    let flags = TimerSetTimeFlags::TFD_TIMER_ABSTIME | TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET;
    match timer.set(Expiration::OneShot(NEVER), flags) {
        // The clock jumped just now. What made it jump is looked at after this.
        Err(Errno::ECANCELED) => timer.set(Expiration::OneShot(NEVER), flags)?,
        result => result?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    #[tokio::test]
    async fn a_machine_that_is_awake_hears_nothing() {
        let mut watch = SleepWatch::open().unwrap();
        assert!(watch.changed().now_or_never().is_none());
    }

    #[test]
    fn the_clock_runs_and_counts_sleep() {
        let (first, awake) = (boot_time(), read(Clock::CLOCK_MONOTONIC));
        assert!(first > Duration::ZERO && boot_time() >= first);
        assert!(first + NOISE >= awake, "sleep is on top of the time awake");
        assert!(slept() + NOISE >= first.saturating_sub(awake));
    }

    #[tokio::test]
    async fn a_jump_is_told_as_sleep_or_as_a_clock_that_was_set() {
        for (before, expected) in [(Duration::ZERO, false), (Duration::from_secs(3600), true)] {
            let mut watch = SleepWatch::open().unwrap();
            // Fires at once, as a cancelled timer does.
            let flags = TimerSetTimeFlags::empty();
            watch.timer.get_ref().0.set(Expiration::OneShot(TimeSpec::new(0, 1)), flags).unwrap();
            // What it slept until now, as if the machine had slept an hour less then.
            watch.slept = slept().saturating_sub(before);
            let hour = watch.slept < slept();
            let change = watch.changed().await.unwrap();
            assert_eq!(matches!(change, TimeChange::Slept(_)), expected && hour, "{change:?}");
            assert!(watch.changed().now_or_never().is_none(), "it is set anew");
        }
    }
}
