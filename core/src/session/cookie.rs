//! Cookies: proof that a Hello's sender receives at the address that it sends from, without any memory of it.
//!
//! A cookie is a MAC over the address and a period of time under a secret, so the responder stores nothing until the
//! cookie comes back (the idea is that of RFC 2522, section 3). It is used twice: as the key of a second MAC over a
//! Hello, which is checked before any Diffie-Hellman while the responder is under load, and inside the encrypted Hello,
//! where it shows that the Hello is no replay.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use subtle::{Choice, ConstantTimeEq};

use super::keys::MacKey;
use crate::rng::Rng;
use crate::time::Instant;
use crate::wire::hello::{self, COOKIE_DATAGRAM_LEN, COOKIE_LEN, Mac};

/// A cookie changes this often. It is good for the rest of its period and the whole next one.
pub const COOKIE_PERIOD: Duration = Duration::from_secs(120);

/// What a responder under load, or in doubt about a replay, gives to an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cookie([u8; COOKIE_LEN]);

impl Cookie {
    /// A cookie that came back inside a Hello.
    pub const fn new(bytes: [u8; COOKIE_LEN]) -> Cookie {
        Cookie(bytes)
    }

    /// Its bytes, to send back inside the encrypted Hello.
    pub const fn as_bytes(&self) -> &[u8; COOKIE_LEN] {
        &self.0
    }

    /// The `cookie_mac` of a Hello: over its header and its payload up to that field, in `parts`.
    pub fn mac(&self, parts: &[&[u8]]) -> Mac {
        MacKey::from_slice(&self.0).mac(parts)
    }

    /// The datagram that answers a Hello from the sender's index `receiver_index` whose MAC was `hello_mac`. `key` is the
    /// responder's [`cookie_key`](super::keys::cookie_key).
    ///
    /// The Hello's MAC goes into that of the answer: who has not seen the Hello cannot make its sender take a wrong
    /// cookie.
    pub fn reply(&self, key: &MacKey, receiver_index: u32, hello_mac: &Mac) -> [u8; COOKIE_DATAGRAM_LEN] {
        hello::Cookie::encode(receiver_index, &self.0, |covered| key.mac(&[covered, hello_mac]))
    }

    /// The cookie in `reply`, if it answers the Hello whose MAC was `hello_mac`. `key` is the responder's
    /// [`cookie_key`](super::keys::cookie_key).
    pub fn from_reply(key: &MacKey, reply: &hello::Cookie<'_>, hello_mac: &Mac) -> Option<Cookie> {
        key.verify(&[reply.mac_input, hello_mac], reply.mac).then_some(Cookie(*reply.cookie))
    }
}

/// Makes cookies and recognizes them. It holds one secret, whatever the number of addresses.
#[derive(Debug)]
pub struct CookieJar {
    secret: MacKey,
}

impl CookieJar {
    /// A jar with a fresh secret; cookies of any other are worthless here.
    pub fn new(rng: &mut Rng) -> CookieJar {
        CookieJar { secret: MacKey::new(&rng.secret()) }
    }

    /// The cookie for who sends from `remote` to the socket with the number `socket`.
    pub fn cookie(&self, now: Instant, remote: SocketAddr, socket: u8) -> Cookie {
        self.cookie_of_period(period(now), remote, socket)
    }

    /// Whether `cookie` was made for this address in this period or the one before.
    pub fn accepts(&self, now: Instant, remote: SocketAddr, socket: u8, cookie: &Cookie) -> bool {
        self.any_valid(now, remote, socket, |valid| valid.0.ct_eq(&cookie.0))
    }

    /// Whether `mac` is the [`Cookie::mac`] over `parts` of a Hello, under a cookie that was made for this address in
    /// this period or the one before.
    pub fn accepts_mac(&self, now: Instant, remote: SocketAddr, socket: u8, parts: &[&[u8]], mac: &Mac) -> bool {
        self.any_valid(now, remote, socket, |valid| valid.mac(parts).ct_eq(mac))
    }

    fn any_valid(&self, now: Instant, remote: SocketAddr, socket: u8, matches: impl Fn(Cookie) -> Choice) -> bool {
        let current = period(now);
        let previous = current.saturating_sub(1);
        let found = matches(self.cookie_of_period(current, remote, socket));
        (found | matches(self.cookie_of_period(previous, remote, socket))).into()
    }

    fn cookie_of_period(&self, period: u64, remote: SocketAddr, socket: u8) -> Cookie {
        let period = period.to_le_bytes();
        let port = remote.port().to_le_bytes();
        // The family comes before the address, so that no IPv4 address reads like the start of an IPv6 one.
        Cookie(match remote.ip() {
            IpAddr::V4(ip) => self.secret.mac(&[&period, &[socket, 4], &ip.octets(), &port]),
            IpAddr::V6(ip) => self.secret.mac(&[&period, &[socket, 6], &ip.octets(), &port]),
        })
    }
}

/// Instead of a new secret for each period, the period goes into the MAC: nothing to rotate, nothing to forget.
fn period(now: Instant) -> u64 {
    now.as_nanos() / COOKIE_PERIOD.as_nanos() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::{Ipv4Addr, Ipv6Addr};
    use proptest::prelude::{any, prop_assert_eq, proptest};

    fn jar() -> CookieJar {
        CookieJar::new(&mut Rng::from_seed([1; 32]))
    }

    fn address() -> SocketAddr {
        SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 4100))
    }

    #[test]
    fn a_cookie_lives_one_to_two_periods() {
        let jar = jar();
        let start = Instant::ORIGIN + COOKIE_PERIOD * 5;
        for (age, made_at) in
            [(COOKIE_PERIOD * 2, start), (COOKIE_PERIOD, start + COOKIE_PERIOD - Duration::from_nanos(1))]
        {
            let cookie = jar.cookie(made_at, address(), 0);
            for nanos in [0, 1] {
                assert!(jar.accepts(made_at + Duration::from_nanos(nanos), address(), 0, &cookie));
            }
            assert!(jar.accepts(made_at + age - Duration::from_nanos(1), address(), 0, &cookie));
            assert!(!jar.accepts(made_at + age + Duration::from_nanos(1), address(), 0, &cookie));
        }
    }

    #[test]
    fn a_cookie_is_good_for_its_path_and_its_jar_only() {
        let (jar, now) = (jar(), Instant::from_millis(1));
        let cookie = jar.cookie(now, address(), 0);
        assert!(jar.accepts(now, address(), 0, &cookie));
        assert!(!jar.accepts(now, address(), 1, &cookie));
        assert!(!jar.accepts(now, SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 4101)), 0, &cookie));
        assert!(!jar.accepts(now, SocketAddr::from((Ipv4Addr::new(192, 0, 2, 2), 4100)), 0, &cookie));
        let mapped = Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped();
        assert!(!jar.accepts(now, SocketAddr::from((mapped, 4100)), 0, &cookie));
        assert!(!CookieJar::new(&mut Rng::from_seed([2; 32])).accepts(now, address(), 0, &cookie));

        let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, 1));
        assert!(jar.accepts(now, v6, 0, &jar.cookie(now, v6, 0)));
    }

    #[test]
    fn the_outer_mac_is_checked_without_the_cookie() {
        let (jar, now) = (jar(), Instant::from_millis(1));
        let mac = jar.cookie(now, address(), 0).mac(&[b"hello"]);
        assert!(jar.accepts_mac(now, address(), 0, &[b"hel", b"lo"], &mac));
        assert!(jar.accepts_mac(now + COOKIE_PERIOD, address(), 0, &[b"hello"], &mac));
        assert!(!jar.accepts_mac(now + COOKIE_PERIOD * 2, address(), 0, &[b"hello"], &mac));
        assert!(!jar.accepts_mac(now, address(), 0, &[b"hallo"], &mac));
        assert!(!jar.accepts_mac(now, address(), 0, &[b"hello"], &[0; 16]));
    }

    proptest! {
        #[test]
        fn a_reply_answers_one_hello(cookie in any::<[u8; 16]>(), hello_mac in any::<[u8; 16]>(), index in any::<u32>(), at in 0usize..64) {
            let (key, cookie) = (MacKey::new(&[3; 32]), Cookie::new(cookie));
            let mut datagram = cookie.reply(&key, index, &hello_mac);
            let reply = hello::Cookie::decode(&datagram).unwrap();
            prop_assert_eq!(reply.header.session(), index);
            prop_assert_eq!(Cookie::from_reply(&key, &reply, &hello_mac), Some(cookie));
            prop_assert_eq!(Cookie::from_reply(&MacKey::new(&[4; 32]), &reply, &hello_mac), None);

            let mut other_mac = hello_mac;
            match datagram.get_mut(at) {
                Some(byte) => *byte ^= 1,
                None => other_mac[at - COOKIE_DATAGRAM_LEN] ^= 1,
            }
            if let Ok(reply) = hello::Cookie::decode(&datagram) {
                prop_assert_eq!(Cookie::from_reply(&key, &reply, &other_mac), None);
            }
        }
    }
}
