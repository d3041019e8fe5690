//! What floods are made of: junk, forged Hellos, captured Hellos.
//!
//! The program `flood` sends them; `tests/flood` measures what a daemon makes of them.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use vine_core::identity::PeerId;
use vine_core::session::keys::{MacKey, hello_key};
use vine_core::wire::hello::{Hello, NO_COOKIE_MAC};

/// The Noise message of a Hello with the four required fields in its payload: e 32, enc_s 48, payload 72 + tag 16.
const NOISE_LEN: usize = 32 + 48 + 72 + 16;
/// Datagrams between two looks at the clock.
const BURST: usize = 50;
/// Datagrams made before the flood begins, which then sends them in turn: so that to send one costs the same whatever it
/// holds, and floods of different kinds can be compared.
const POOL: u64 = 1 << 16;

/// A small generator of bytes that look random (xorshift64*); floods need many and secrecy of none.
#[derive(Debug, Clone)]
pub struct Noise(u64);

impl Noise {
    /// Starts from a seed, which must not be 0.
    pub fn new(seed: u64) -> Noise {
        Noise(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Fills a buffer.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
    }
}

/// What a flood sends.
#[derive(Debug)]
pub enum Load {
    /// Random bytes of a Hello's length.
    Junk,
    /// Hellos whose every byte is as it should be, except that keys, payload and MAC are random.
    ForgedWithoutMac,
    /// The same with the right MAC: the sender knows the PeerId, the network and its key.
    ForgedWithMac(MacKey),
    /// The same with random bytes where the proof of a cookie belongs.
    ForgedWithCookie(MacKey),
    /// As with the right MAC and no cookie, every tenth one a Hello that a peer really sent.
    Replay(MacKey, Vec<Vec<u8>>),
}

impl Load {
    /// The key of the MAC of a Hello to this peer.
    pub fn mac_key(responder: &PeerId, network_id: &str) -> MacKey {
        hello_key(responder, network_id, None)
    }

    /// Writes the `number`th datagram into `buffer` and returns its length.
    pub fn fill(&self, number: u64, noise: &mut Noise, buffer: &mut [u8]) -> usize {
        let key = match self {
            Load::Junk => {
                noise.fill(&mut buffer[..Hello::MIN_LEN + 72]);
                return Hello::MIN_LEN + 72;
            }
            Load::Replay(_, captured) if number.is_multiple_of(10) && !captured.is_empty() => {
                let hello = &captured[(number / 10) as usize % captured.len()];
                buffer[..hello.len()].copy_from_slice(hello);
                return hello.len();
            }
            Load::ForgedWithoutMac => None,
            Load::ForgedWithMac(key) | Load::ForgedWithCookie(key) | Load::Replay(key, _) => Some(key),
        };
        let (mut message, mut random) = ([0; NOISE_LEN], [0; 16]);
        noise.fill(&mut message);
        noise.fill(&mut random);
        let index = noise.next() as u32;
        let mac = |covered: &[u8]| match key {
            Some(key) => key.mac(&[covered]),
            None => random,
        };
        let cookie_mac = |_: &[u8]| if matches!(self, Load::ForgedWithCookie(_)) { random } else { NO_COOKIE_MAC };
        Hello::encode(index, &message, mac, cookie_mac, buffer).expect("the buffer holds a Hello")
    }
}

/// Datagrams ready to be sent.
#[derive(Debug)]
pub struct Flood {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    sockets: Vec<UdpSocket>,
    target: SocketAddr,
}

impl Flood {
    /// Makes the datagrams of a load, and sockets to send them from.
    ///
    /// # Errors
    /// Where no socket can be made.
    pub fn new(load: &Load, target: SocketAddr) -> std::io::Result<Flood> {
        let any: SocketAddr = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().expect("an address");
        let sockets = (0..8).map(|_| UdpSocket::bind(any)).collect::<Result<_, _>>()?;
        let (mut noise, mut buffer) = (Noise::new(0x7669_6e65), [0; 2048]);
        let mut flood = Flood { bytes: Vec::new(), ends: Vec::new(), sockets, target };
        for number in 0..POOL {
            let length = load.fill(number, &mut noise, &mut buffer);
            flood.bytes.extend_from_slice(&buffer[..length]);
            flood.ends.push(flood.bytes.len());
        }
        Ok(flood)
    }

    /// Sends `rate` datagrams a second for `duration`, and returns how many were sent.
    ///
    /// Datagrams that the kernel refuses count: a flood to a closed port is answered by ICMP errors.
    pub fn send(&self, rate: u64, duration: Duration) -> u64 {
        let starts = std::iter::once(&0).chain(&self.ends);
        let mut datagrams = starts.zip(&self.ends).map(|(from, to)| &self.bytes[*from..*to]).cycle();
        let (start, mut sent) = (Instant::now(), 0);
        while start.elapsed() < duration {
            let due = start + Duration::from_nanos(sent * 1_000_000_000 / rate);
            let wait = due.saturating_duration_since(Instant::now());
            if !wait.is_zero() {
                std::thread::sleep(wait);
            }
            for (socket, datagram) in self.sockets.iter().cycle().zip(&mut datagrams).take(BURST) {
                let _ = socket.send_to(datagram, self.target);
                sent += 1;
            }
        }
        sent
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vine_core::identity::Identity;

    #[test]
    fn forged_hellos_are_well_formed_and_differ() {
        let peer = Identity::from_seed([3; 32]).peer_id();
        let key = Load::mac_key(&peer, "lab");
        let (mut noise, mut first, mut second) = (Noise::new(1), [0; 2048], [0; 2048]);
        let load = Load::ForgedWithMac(key.clone());
        let (a, b) = (load.fill(1, &mut noise, &mut first), load.fill(2, &mut noise, &mut second));
        let (a, b) = (Hello::decode(&first[..a]).unwrap(), Hello::decode(&second[..b]).unwrap());
        assert!(key.verify(&[a.mac_input], a.mac) && key.verify(&[b.mac_input], b.mac));
        assert_ne!(a.ephemeral, b.ephemeral);

        let length = Load::ForgedWithoutMac.fill(1, &mut noise, &mut first);
        let without = Hello::decode(&first[..length]).unwrap();
        assert!(!key.verify(&[without.mac_input], without.mac));
    }

    #[test]
    fn every_tenth_is_a_captured_one() {
        let key = Load::mac_key(&Identity::from_seed([3; 32]).peer_id(), "lab");
        let load = Load::Replay(key, vec![vec![1; 300], vec![2; 300]]);
        let (mut noise, mut buffer) = (Noise::new(1), [0; 2048]);
        let mut firsts = Vec::new();
        for number in 0..40 {
            load.fill(number, &mut noise, &mut buffer);
            firsts.push(buffer[0]);
        }
        assert_eq!(firsts.iter().filter(|byte| **byte != 0x56).count(), 4);
        assert_eq!((firsts[10], firsts[20]), (2, 1));
    }
}
