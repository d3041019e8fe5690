//! A UDP proxy that delays, loses and queues datagrams: what the kernel here cannot do to a link.
//!
//! The program `udp-proxy` runs one. Like a NAT, it has an outer port for every client.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use crate::flood::Noise;

/// Clients that get an outer port; datagrams of further ones are dropped.
const MAX_CLIENTS: usize = 64;
/// Datagrams that wait between a socket and its line, and on a line; further ones are dropped.
const MAX_WAITING: usize = 1 << 14;
/// A line without anything to do looks so often whether there still is a socket that feeds it.
const IDLE: Duration = Duration::from_secs(1);

/// What happens to datagrams of one direction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    /// Every datagram is late by this.
    pub delay: Duration,
    /// And by up to this, equally distributed.
    pub jitter: Duration,
    /// The share that is lost, 0 to 1.
    pub loss: f64,
    /// Bytes a second that the line carries, without end where it is 0.
    pub rate: u64,
    /// Bytes that wait for a line with a rate; what comes beyond them is dropped (the tail of the queue).
    pub queue: u64,
    /// Whether jitter may change the order.
    pub reorder: bool,
}

impl Default for Shape {
    fn default() -> Shape {
        Shape {
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            loss: 0.0,
            rate: 0,
            // A good second of a home's uplink: the bufferbloat that there is.
            queue: 1 << 20,
            reorder: false,
        }
    }
}

impl Shape {
    /// Takes a word such as `delay=25`: `delay` and `jitter` in ms, `loss` in percent, `rate` in Mbit/s, `queue` in KiB,
    /// `reorder=1`.
    ///
    /// # Errors
    /// Says what is wrong with the word.
    pub fn take(&mut self, word: &str) -> Result<(), String> {
        let (key, value) = word.split_once('=').ok_or_else(|| format!("{word}: not KEY=NUMBER"))?;
        let number: f64 = value.parse().map_err(|e| format!("{word}: {e}"))?;
        if !(0.0..=1e6).contains(&number) {
            return Err(format!("{word}: out of range"));
        }
        match key {
            "delay" => self.delay = Duration::from_secs_f64(number / 1e3),
            "jitter" => self.jitter = Duration::from_secs_f64(number / 1e3),
            "loss" => self.loss = number / 100.0,
            "rate" => self.rate = (number * 1e6 / 8.0) as u64,
            "queue" => self.queue = (number * 1024.0) as u64,
            "reorder" => self.reorder = number != 0.0,
            _ => return Err(format!("{word}: no such key")),
        }
        Ok(())
    }
}

/// Decides when a datagram of one direction leaves.
#[derive(Debug)]
struct Shaper {
    shape: Shape,
    noise: Noise,
    /// When the line has sent all that it has taken.
    free_at: Instant,
    last_due: Instant,
}

impl Shaper {
    fn new(shape: Shape, seed: u64, now: Instant) -> Shaper {
        Shaper { shape, noise: Noise::new(seed), free_at: now, last_due: now }
    }

    /// When a datagram of so many bytes that came at `now` leaves; `None` where it is lost.
    fn admit(&mut self, now: Instant, length: usize) -> Option<Instant> {
        let Shape { delay, jitter, loss, rate, queue, reorder } = self.shape;
        if self.unit() < loss {
            return None;
        }
        self.free_at = self.free_at.max(now);
        if rate > 0 {
            let waiting = (self.free_at - now).as_secs_f64() * rate as f64;
            if waiting + length as f64 > queue as f64 {
                return None;
            }
            self.free_at += Duration::from_secs_f64(length as f64 / rate as f64);
        }
        let due = self.free_at + delay + jitter.mul_f64(self.unit());
        let due = if reorder { due } else { due.max(self.last_due) };
        self.last_due = due;
        Some(due)
    }

    /// A random number from 0 up to 1.
    fn unit(&mut self) -> f64 {
        let mut bytes = [0; 4];
        self.noise.fill(&mut bytes);
        f64::from(u32::from_le_bytes(bytes)) / 2f64.powi(32)
    }
}

/// A datagram on its way.
struct Held {
    came: Instant,
    bytes: Vec<u8>,
    out: Arc<UdpSocket>,
    to: SocketAddr,
}

/// A datagram whose time is known; ordered by it.
struct Due {
    at: Instant,
    /// Keeps the order of those of one time.
    number: u64,
    held: Held,
}

impl PartialEq for Due {
    fn eq(&self, other: &Due) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Due) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, other: &Due) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// Forwards between clients of `listen` and `target`, for ever: `forth` to the target, `back` from it.
///
/// # Errors
/// Where `listen` cannot be read any more.
pub fn run(listen: UdpSocket, target: SocketAddr, forth: Shape, back: Shape) -> io::Result<()> {
    let listen = Arc::new(listen);
    let (forth, back) = (line(forth, 0x666f_7274), line(back, 0x6261_636b));
    let mut clients: BTreeMap<SocketAddr, Arc<UdpSocket>> = BTreeMap::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let (length, client) = receive(&listen, &mut buffer)?;
        let out = match clients.get(&client) {
            Some(socket) => Arc::clone(socket),
            None if clients.len() >= MAX_CLIENTS => continue,
            None => {
                let any: SocketAddr = if target.is_ipv4() { ([0; 4], 0).into() } else { ([0; 16], 0).into() };
                let socket = Arc::new(UdpSocket::bind(any)?);
                clients.insert(client, Arc::clone(&socket));
                let (from, back, listen) = (Arc::clone(&socket), back.clone(), Arc::clone(&listen));
                std::thread::spawn(move || answer(&from, target, &back, &listen, client));
                socket
            }
        };
        let held = Held { came: Instant::now(), bytes: buffer[..length].to_vec(), out, to: target };
        // A full line loses what comes.
        let _ = forth.try_send(held);
    }
}

/// Takes what the target sends to a client's outer port.
fn answer(from: &UdpSocket, target: SocketAddr, back: &SyncSender<Held>, out: &Arc<UdpSocket>, client: SocketAddr) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok((length, source)) = receive(from, &mut buffer) {
        if source == target {
            let held =
                Held { came: Instant::now(), bytes: buffer[..length].to_vec(), out: Arc::clone(out), to: client };
            let _ = back.try_send(held);
        }
    }
}

/// Receives a datagram. That an earlier one was refused, which a socket reports once, is no reason to stop.
fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
    loop {
        match socket.recv_from(buffer) {
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused || e.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// Starts the thread of one direction, and returns the way to it.
fn line(shape: Shape, seed: u64) -> SyncSender<Held> {
    let (sender, receiver) = mpsc::sync_channel(MAX_WAITING);
    std::thread::spawn(move || carry(Shaper::new(shape, seed, Instant::now()), &receiver));
    sender
}

/// Holds every datagram until it is due, then sends it.
fn carry(mut shaper: Shaper, receiver: &Receiver<Held>) {
    let (mut waiting, mut number) = (BinaryHeap::<Reverse<Due>>::new(), 0);
    loop {
        let next = waiting.peek().map(|Reverse(due)| due.at);
        let wait = next.map_or(IDLE, |at| at.saturating_duration_since(Instant::now()));
        match receiver.recv_timeout(wait) {
            Ok(held) if waiting.len() < MAX_WAITING => {
                if let Some(at) = shaper.admit(held.came, held.bytes.len()) {
                    waiting.push(Reverse(Due { at, number, held }));
                    number += 1;
                }
            }
            Ok(_) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let now = Instant::now();
        while waiting.peek().is_some_and(|Reverse(due)| due.at <= now) {
            if let Some(Reverse(Due { held, .. })) = waiting.pop() {
                // A link does not say that what it carries is not wanted.
                let _ = held.out.send_to(&held.bytes, held.to);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn shaper(words: &str) -> (Shaper, Instant) {
        let mut shape = Shape::default();
        words.split_whitespace().for_each(|word| shape.take(word).unwrap());
        let now = Instant::now();
        (Shaper::new(shape, 7, now), now)
    }

    #[test]
    fn words_are_read() {
        let mut shape = Shape::default();
        for word in ["delay=25", "jitter=2.5", "loss=5", "rate=8", "queue=64", "reorder=1"] {
            shape.take(word).unwrap();
        }
        let expected = Shape {
            delay: 25 * MS,
            jitter: Duration::from_micros(2500),
            loss: 0.05,
            rate: 1_000_000,
            queue: 65_536,
            reorder: true,
        };
        assert_eq!(shape, expected);
        for word in ["delay", "delay=x", "delay=-1", "speed=3", "loss=inf"] {
            assert!(shape.take(word).is_err(), "{word}");
        }
    }

    #[test]
    fn a_delay_is_a_delay() {
        let (mut shaper, now) = shaper("delay=25");
        assert_eq!(shaper.admit(now, 1000), Some(now + 25 * MS));
        assert_eq!(shaper.admit(now + MS, 1000), Some(now + 26 * MS));
    }

    #[test]
    fn a_rate_makes_a_queue_and_a_full_queue_drops() {
        let (mut shaper, now) = shaper("rate=8 queue=2");
        assert_eq!(shaper.admit(now, 1000), Some(now + MS));
        assert_eq!(shaper.admit(now, 1000), Some(now + 2 * MS));
        assert_eq!(shaper.admit(now, 1000), None, "2 KiB are waiting");
        assert_eq!(shaper.admit(now + MS, 1000), Some(now + 3 * MS), "one has left");
    }

    #[test]
    fn jitter_keeps_the_order_unless_told() {
        for (words, ordered) in [("jitter=10", true), ("jitter=10 reorder=1", false)] {
            let (mut shaper, now) = shaper(words);
            let times: Vec<Instant> = (0..100).filter_map(|n| shaper.admit(now + n * MS / 10, 100)).collect();
            assert_eq!(times.len(), 100);
            assert_eq!(times.is_sorted(), ordered, "{words}");
        }
    }

    #[test]
    fn a_share_is_lost() {
        let (mut shaper, now) = shaper("loss=20");
        let passed = (0..10_000).filter(|_| shaper.admit(now, 100).is_some()).count();
        assert!((7_800..8_200).contains(&passed), "{passed}");
    }

    #[test]
    fn it_answers_every_client_on_its_own() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let listen = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (at, target) = (listen.local_addr().unwrap(), server.local_addr().unwrap());
        std::thread::spawn(move || run(listen, target, Shape::default(), Shape { delay: 30 * MS, ..Shape::default() }));
        let clients = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
        let mut buffer = [0; 16];
        for (number, client) in clients.iter().enumerate() {
            client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            client.send_to(&[number as u8], at).unwrap();
        }
        let mut outer = Vec::new();
        for _ in &clients {
            let (length, from) = server.recv_from(&mut buffer).unwrap();
            server.send_to(&buffer[..length], from).unwrap();
            outer.push(from);
        }
        assert_ne!(outer[0], outer[1]);
        let sent = Instant::now();
        for (number, client) in clients.iter().enumerate() {
            assert_eq!(client.recv_from(&mut buffer).unwrap(), (1, at));
            assert_eq!(buffer[0], number as u8);
        }
        assert!(sent.elapsed() > 20 * MS, "the way back is late");
    }
}
