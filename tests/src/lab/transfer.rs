//! TCP transfers whose every byte is checked.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::host::Host;
use super::wait::wait_until;

/// The byte at position n is n modulo this: no multiple of it is a power of two, so a piece that is missing or repeated shows.
const PERIOD: usize = 251;
/// What is written at once, and how often: about 1.6 MB/s, which leaves the machine to what is tested.
const PIECE: usize = 64 * PERIOD;
const PACE: Duration = Duration::from_millis(10);
/// No transfer here stands still for longer and goes on.
const PATIENCE: Duration = Duration::from_secs(30);

/// A TCP connection over which bytes flow, at a modest pace, until it is finished.
#[derive(Debug)]
pub struct Transfer {
    received: Arc<AtomicU64>,
    stop: Sender<()>,
    writer: JoinHandle<u64>,
    reader: JoinHandle<Arrived>,
}

/// What came out of a transfer.
#[derive(Debug, Clone, Copy)]
pub struct Arrived {
    /// Bytes, each as it was sent.
    pub bytes: u64,
    /// The longest time between two pieces.
    pub longest_gap: Duration,
}

impl Transfer {
    /// Connects from one host to an address of another and lets bytes flow.
    ///
    /// # Panics
    /// Where no connection is made.
    pub fn start(from: &Host, to: &Host, target: SocketAddr) -> Transfer {
        let (outgoing, incoming) = connect(from, to, target);
        let received = Arc::new(AtomicU64::new(0));
        let (stop, stopped) = mpsc::channel();
        let counter = Arc::clone(&received);
        Transfer {
            received,
            stop,
            writer: std::thread::spawn(move || {
                write_while(outgoing, || stopped.recv_timeout(PACE) == Err(RecvTimeoutError::Timeout))
            }),
            reader: std::thread::spawn(move || read_all(incoming, &counter)),
        }
    }

    /// Bytes that came so far.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Waits until so many more bytes have come.
    pub fn wait_for_more(&self, bytes: u64, limit: Duration) {
        let goal = self.received() + bytes;
        wait_until(&format!("{bytes} more bytes over TCP"), limit, || (self.received() >= goal).then_some(()));
    }

    /// Ends the connection in order.
    ///
    /// # Panics
    /// Where it broke, or not every byte came as it was sent.
    pub fn finish(self) -> Arrived {
        let _ = self.stop.send(());
        let sent = self.writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let arrived = self.reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        assert_eq!(arrived.bytes, sent, "every byte that was sent came");
        arrived
    }
}

/// Sends so many bytes by TCP as fast as it goes, and returns how long it took from the connection to the last byte.
///
/// # Panics
/// Where it fails, or takes more than half a minute without a byte.
pub fn send_at_once(from: &Host, to: &Host, target: SocketAddr, bytes: u64) -> Duration {
    let start = Instant::now();
    let (outgoing, incoming) = connect(from, to, target);
    let mut pieces = bytes.div_ceil(PIECE as u64);
    let more = move || {
        pieces -= 1;
        pieces > 0
    };
    let writer = std::thread::spawn(move || write_while(outgoing, more));
    let arrived = read_all(incoming, &AtomicU64::new(0));
    let took = start.elapsed();
    let sent = writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    assert_eq!(arrived.bytes, sent, "every byte that was sent came");
    took
}

/// The two ends of a new connection.
fn connect(from: &Host, to: &Host, target: SocketAddr) -> (TcpStream, TcpStream) {
    let listener = to.enter(|| TcpListener::bind(target)).unwrap_or_else(|e| panic!("{}: {target}: {e}", to.name()));
    let outgoing = from.enter(|| TcpStream::connect_timeout(&target, PATIENCE));
    let outgoing = outgoing.unwrap_or_else(|e| panic!("{} to {target}: {e}", from.name()));
    let (incoming, _) = listener.accept().expect("a connection that is made can be accepted");
    outgoing.set_write_timeout(Some(PATIENCE)).expect("a socket has a timeout");
    incoming.set_read_timeout(Some(PATIENCE)).expect("a socket has a timeout");
    (outgoing, incoming)
}

/// Writes pieces as long as there are to be more, and returns how many bytes it were.
fn write_while(mut stream: TcpStream, mut more: impl FnMut() -> bool) -> u64 {
    let piece: Vec<u8> = (0..PIECE).map(|n| (n % PERIOD) as u8).collect();
    let mut sent = 0;
    loop {
        stream.write_all(&piece).unwrap_or_else(|e| panic!("after {sent} bytes sent: {e}"));
        sent += PIECE as u64;
        if !more() {
            return sent;
        }
    }
}

/// Reads to the end of the stream and checks every byte.
fn read_all(mut stream: TcpStream, counter: &AtomicU64) -> Arrived {
    let mut buffer = vec![0; 1 << 16];
    let (mut arrived, mut last) = (Arrived { bytes: 0, longest_gap: Duration::ZERO }, Instant::now());
    loop {
        let length = stream.read(&mut buffer).unwrap_or_else(|e| panic!("after {} bytes received: {e}", arrived.bytes));
        arrived.longest_gap = arrived.longest_gap.max(last.elapsed());
        last = Instant::now();
        if length == 0 {
            return arrived;
        }
        let expected = (arrived.bytes..).map(|n| (n % PERIOD as u64) as u8);
        assert!(buffer[..length].iter().copied().eq(expected.take(length)), "wrong bytes after {}", arrived.bytes);
        arrived.bytes += length as u64;
        counter.store(arrived.bytes, Ordering::Relaxed);
    }
}
