//! Admission of Hellos: how many may cost a Diffie-Hellman, and who gets a cookie, when many arrive.
//!
//! Load is measured in Hellos with a right MAC per window of the caller's time, so that it is the same in a replay. The idea
//! of a stateless cookie under load is WireGuard's (section 5.4.7 of its paper); DTLS and IKEv2 have it too.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use crate::rng::Rng;
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

/// Wrong cookies of a bucket that are looked at in a window. To shut out a peer, a flood must come from its very address and
/// faster than this.
const WRONG_COOKIES: u8 = 64;

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
    /// Keeps others from choosing the bucket that an address falls into.
    secret: [u64; 2],
    window: u64,
    seen: u32,
    proven: u32,
    buckets: [Bucket; BUCKETS],
}

/// What came from the addresses of one bucket in this window, while there was load.
#[derive(Clone, Copy, Default, Debug)]
struct Bucket {
    /// Hellos with a valid cookie that were processed.
    proven: u8,
    /// Hellos without one.
    unproven: u8,
}

impl HelloGate {
    /// A gate that has seen nothing.
    pub(crate) fn new(rng: &mut Rng) -> HelloGate {
        HelloGate {
            secret: [rng.u64(), rng.u64()],
            window: 0,
            seen: 0,
            proven: 0,
            buckets: [Bucket::default(); BUCKETS],
        }
    }

    /// Whether a Hello from `remote` is refused whatever else it holds: then not even its MAC is computed. `is_bare` tells
    /// that it carries no cookie.
    pub(crate) fn is_shut(&mut self, now: Instant, remote: &SocketAddr, is_bare: bool) -> bool {
        self.advance(now);
        self.buckets[self.bucket(remote)].unproven >= if is_bare { COOKIES_PER_BUCKET } else { WRONG_COOKIES }
    }

    /// Decides about a Hello with the right MAC. `has_cookie` tells whether it carries a valid cookie for its address; that
    /// is asked only under load.
    pub(crate) fn admit(&mut self, now: Instant, remote: &SocketAddr, has_cookie: impl FnOnce() -> bool) -> Admission {
        self.advance(now);
        self.seen = self.seen.saturating_add(1);
        if self.seen <= FREE {
            return Admission::Process;
        }
        let index = self.bucket(remote);
        let bucket = &mut self.buckets[index];
        if has_cookie() {
            if bucket.proven >= PROVEN_PER_BUCKET || self.proven >= PROVEN {
                return Admission::Refuse;
            }
            bucket.proven += 1;
            self.proven += 1;
            return Admission::Process;
        }
        bucket.unproven = bucket.unproven.saturating_add(1);
        if bucket.unproven <= COOKIES_PER_BUCKET { Admission::Challenge } else { Admission::Refuse }
    }

    fn advance(&mut self, now: Instant) {
        let window = now.as_nanos() / WINDOW.as_nanos() as u64;
        if window != self.window {
            *self =
                HelloGate { secret: self.secret, window, seen: 0, proven: 0, buckets: [Bucket::default(); BUCKETS] };
        }
    }

    /// The bucket of an address, in every window another: two that share one do not share the next.
    fn bucket(&self, remote: &SocketAddr) -> usize {
        let ip = match remote.ip() {
            IpAddr::V4(ip) => u128::from(u32::from(ip)),
            IpAddr::V6(ip) => u128::from(ip),
        };
        let fold = |a: u64, b: u64| {
            let product = u128::from(a) * u128::from(b);
            product as u64 ^ (product >> 64) as u64
        };
        let [first, second] = self.secret;
        let high = fold((ip >> 64) as u64 ^ first, u64::from(remote.port()) ^ self.window.rotate_left(16) ^ second);
        (fold(ip as u64 ^ first, high ^ second) % BUCKETS as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    #[test]
    fn a_flood_is_challenged_once_an_address_and_the_window_ends() {
        let mut gate = HelloGate::new(&mut Rng::from_seed([1; 32]));
        let now = Instant::from_millis(1_000);
        for _ in 0..FREE {
            assert_eq!(gate.admit(now, &from(1), || panic!("it is calm")), Admission::Process);
        }
        for _ in 0..COOKIES_PER_BUCKET {
            assert!(!gate.is_shut(now, &from(1), true));
            assert_eq!(gate.admit(now, &from(1), || false), Admission::Challenge);
        }
        assert!(gate.is_shut(now, &from(1), true) && !gate.is_shut(now, &from(2), true));
        for _ in COOKIES_PER_BUCKET..WRONG_COOKIES {
            assert!(!gate.is_shut(now, &from(1), false));
            assert_eq!(gate.admit(now, &from(1), || false), Admission::Refuse);
        }
        assert!(gate.is_shut(now, &from(1), false));
        assert_eq!(gate.admit(now, &from(2), || false), Admission::Challenge);
        for _ in 0..PROVEN_PER_BUCKET {
            assert_eq!(gate.admit(now, &from(1), || true), Admission::Process);
        }
        assert_eq!(gate.admit(now, &from(1), || true), Admission::Refuse);
        assert_eq!(gate.admit(now, &from(2), || true), Admission::Process, "one address takes nothing from another");
        assert!(!gate.is_shut(now + WINDOW, &from(1), true));
        assert_eq!(gate.admit(now + WINDOW, &from(1), || false), Admission::Process);
    }

    #[test]
    fn addresses_and_windows_spread_over_the_buckets() {
        let mut gate = HelloGate::new(&mut Rng::from_seed([2; 32]));
        let mut used = alloc::collections::BTreeSet::new();
        let addresses =
            (0..1024).map(from).chain((0..1024).map(|n| SocketAddr::from(([0x2001, 0xdb8, n, 0, 0, 0, 0, n], 4100))));
        used.extend(addresses.map(|address| gate.bucket(&address)));
        assert!(used.len() > 1200, "{} buckets for 2048 addresses; by chance it would be 1295", used.len());

        used.clear();
        for window in 0..1024 {
            gate.advance(Instant::ORIGIN + WINDOW * window);
            used.insert(gate.bucket(&from(1)));
        }
        assert!(used.len() > 750, "{} buckets in 1024 windows; by chance it would be 806", used.len());
    }
}
