//! Admission of Hellos: how many may cost a Diffie-Hellman, and who gets a cookie, when many arrive.
//!
//! Load is measured in Hellos with a right MAC per window of the caller's time, so that it is the same in a replay. The idea
//! of a stateless cookie under load is WireGuard's (section 5.4.7 of its paper); DTLS and IKEv2 have it too.

use core::time::Duration;

use crate::time::Instant;

/// Length of the window in which Hellos are counted.
const WINDOW: Duration = Duration::from_millis(100);

/// Hellos a window that are answered without a cookie: 16 cost about 1.5 ms of Diffie-Hellman.
const FREE: u32 = 16;

/// Hellos a window that are answered when their cookie proves their address.
const PROVEN: u32 = 256;

/// Of these, at most so many from the addresses of one bucket.
const PROVEN_PER_BUCKET: u8 = 2;

/// Buckets of addresses. A flood from one address uses up one bucket, and what it gets there is next to nothing.
const BUCKETS: usize = 2048;

/// Cookies a window for the addresses of one bucket.
const COOKIES_PER_BUCKET: u8 = 2;

/// What to do with a Hello whose MAC is right.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Admission {
    /// Process it.
    Process,
    /// Answer with a cookie and forget it.
    Challenge,
    /// Forget it.
    Refuse,
}

/// Counts Hellos and decides.
#[derive(Debug)]
pub(crate) struct HelloGate {
    window: u64,
    seen: u32,
    proven: u32,
    buckets: [Bucket; BUCKETS],
}

/// What the addresses of one bucket got in this window.
#[derive(Clone, Copy, Default, Debug)]
struct Bucket {
    proven: u8,
    cookies: u8,
}

impl Default for HelloGate {
    fn default() -> Self {
        HelloGate { window: 0, seen: 0, proven: 0, buckets: [Bucket::default(); BUCKETS] }
    }
}

impl HelloGate {
    /// Decides about a Hello. Asked only under load: `has_cookie` tells whether the Hello carries a valid cookie for its
    /// address, `bucket` hashes that address with a secret.
    pub(crate) fn admit(
        &mut self,
        now: Instant,
        has_cookie: impl FnOnce() -> bool,
        bucket: impl FnOnce() -> u64,
    ) -> Admission {
        let window = now.as_nanos() / WINDOW.as_nanos() as u64;
        if window != self.window {
            *self = HelloGate { window, ..HelloGate::default() };
        }
        self.seen = self.seen.saturating_add(1);
        if self.seen <= FREE {
            return Admission::Process;
        }
        let bucket = &mut self.buckets[(bucket() % BUCKETS as u64) as usize];
        if has_cookie() {
            if bucket.proven >= PROVEN_PER_BUCKET || self.proven >= PROVEN {
                return Admission::Refuse;
            }
            bucket.proven += 1;
            self.proven += 1;
            return Admission::Process;
        }
        if bucket.cookies >= COOKIES_PER_BUCKET {
            return Admission::Refuse;
        }
        bucket.cookies += 1;
        Admission::Challenge
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_challenged_once_an_address_and_the_window_ends() {
        let mut gate = HelloGate::default();
        let now = Instant::from_millis(1_000);
        for _ in 0..FREE {
            assert_eq!(gate.admit(now, || panic!("nothing is looked at while it is calm"), || 1), Admission::Process);
        }
        for bucket in [1, 2] {
            for _ in 0..COOKIES_PER_BUCKET {
                assert_eq!(gate.admit(now, || false, || bucket), Admission::Challenge);
            }
            assert_eq!(gate.admit(now, || false, || bucket), Admission::Refuse);
        }
        for _ in 0..PROVEN_PER_BUCKET {
            assert_eq!(gate.admit(now, || true, || 1), Admission::Process);
        }
        assert_eq!(gate.admit(now, || true, || 1), Admission::Refuse);
        assert_eq!(gate.admit(now, || true, || 3), Admission::Process, "one address takes nothing from another");
        assert_eq!(gate.admit(now + WINDOW, || false, || 1), Admission::Process);
    }
}
