//! The search for a path that was lost: for as long as the pair is in use it is probed, and it has to answer several times
//! before it carries data again.

use core::time::Duration;

use crate::time::Instant;

/// A lost path is probed this often.
const INTERVAL: Duration = Duration::from_millis(500);

/// For so long; then the interval doubles, up to [`MAX_INTERVAL`].
const EAGER: Duration = Duration::from_secs(600);
const MAX_INTERVAL: Duration = Duration::from_secs(30);

/// Once it has answered, the next probe follows this closely.
const CONFIRM_INTERVAL: Duration = Duration::from_millis(100);

/// Probes whose time of sending is remembered.
const REMEMBERED: usize = 8;

/// The probes of one lost path. The n-th Ping carries `token + n`, so that a Pong tells which one it answers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retry {
    since: Instant,
    next: Instant,
    interval: Duration,
    token: u64,
    sent: u64,
    sent_at: [Instant; REMEMBERED],
    /// Answers in a row, and the number of the last.
    answers: u8,
    last_answer: Option<u64>,
}

impl Retry {
    pub(super) fn new(now: Instant, token: u64) -> Retry {
        Retry {
            since: now,
            next: now + INTERVAL,
            interval: INTERVAL,
            token,
            sent: 0,
            sent_at: [now; REMEMBERED],
            answers: 0,
            last_answer: None,
        }
    }

    /// When the next Ping is due.
    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// Something makes success likelier: the search begins anew, at once.
    pub(super) fn hasten(&mut self, now: Instant) {
        self.since = now;
        self.interval = INTERVAL;
        let last = self.sent.checked_sub(1).map(|last| self.sent_at[last as usize % REMEMBERED]);
        self.next = last.map_or(now, |last| now.max(last + CONFIRM_INTERVAL)).min(self.next.max(now));
    }

    /// The token of a Ping that is due. While the pair is not in use the search sleeps until [`Retry::hasten`].
    pub(super) fn poll(&mut self, now: Instant, is_active: bool) -> Option<u64> {
        if self.next > now {
            return None;
        }
        if !is_active {
            self.next = Instant::FAR_FUTURE;
            return None;
        }
        if now.since(self.since) >= EAGER {
            self.interval = (self.interval * 2).min(MAX_INTERVAL);
        }
        let token = self.token.wrapping_add(self.sent);
        self.sent_at[self.sent as usize % REMEMBERED] = now;
        self.sent += 1;
        self.next = now + if self.answers > 0 { CONFIRM_INTERVAL } else { self.interval };
        Some(token)
    }

    /// Takes in a Pong: how long it took and how many have come in a row, if it answers one of the latest Pings.
    pub(super) fn on_pong(&mut self, now: Instant, token: u64) -> Option<(Duration, u8)> {
        let number = token.wrapping_sub(self.token);
        let is_remembered = number < self.sent && self.sent - number <= REMEMBERED as u64;
        if !is_remembered {
            return None;
        }
        let elapsed = now.since(self.sent_at[number as usize % REMEMBERED]);
        // A Pong may come by two paths.
        if self.last_answer.is_some_and(|last| number <= last) {
            return Some((elapsed, self.answers));
        }
        let follows = self.last_answer.is_some_and(|last| last + 1 == number);
        self.answers = if follows { self.answers.saturating_add(1) } else { 1 };
        self.last_answer = Some(number);
        self.next = self.next.min(now + CONFIRM_INTERVAL);
        Some((elapsed, self.answers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> Instant {
        Instant::from_millis(1_000)
    }

    #[test]
    fn twice_a_second_for_ten_minutes_and_then_ever_more_rarely() {
        let mut retry = Retry::new(start(), 0);
        let mut sent = [0; 3];
        while retry.next() < start() + Duration::from_secs(1_800) {
            let now = retry.next();
            assert!(retry.poll(now, true).is_some() && retry.poll(now, true).is_none());
            sent[(now.since(start()).as_secs() / 600) as usize] += 1;
        }
        assert!((1_195..=1_200).contains(&sent[0]) && sent[1] < 30 && (19..=21).contains(&sent[2]), "{sent:?}");
        let now = start() + Duration::from_secs(1_800);
        retry.hasten(now);
        assert!(retry.next() <= now + CONFIRM_INTERVAL);
    }

    #[test]
    fn answers_count_in_a_row_and_bring_the_next_probe_near() {
        let mut retry = Retry::new(start(), u64::MAX);
        let mut now = retry.next();
        let first = retry.poll(now, true).unwrap();
        now += Duration::from_millis(20);
        assert_eq!(retry.on_pong(now, first.wrapping_add(1)), None, "not sent yet");
        assert_eq!(retry.on_pong(now, first), Some((Duration::from_millis(20), 1)));
        assert_eq!(retry.next(), now + CONFIRM_INTERVAL);
        let second = retry.poll(retry.next(), true).unwrap();
        assert_eq!(retry.on_pong(now + Duration::from_millis(120), second).unwrap().1, 2);
        for _ in 0..20 {
            let _ = retry.poll(retry.next(), true);
        }
        let late = retry.next();
        let token = retry.poll(late, true).unwrap();
        assert_eq!(retry.on_pong(late, token).unwrap().1, 1, "those between stayed without answer");
        assert_eq!(retry.on_pong(late, second), None, "too long ago to know when it was sent");
    }
}
