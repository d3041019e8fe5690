//! A stream of UDP datagrams in one direction, which nobody answers.

use std::net::{SocketAddr, UdpSocket};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::host::Host;
use super::wait::wait_until;

/// Between two datagrams.
const PACE: Duration = Duration::from_millis(10);
const LENGTH: usize = 200;
/// So often the receiver looks whether it is to end.
const LOOK: Duration = Duration::from_millis(100);

/// Datagrams that flow from one host to another, one every 10 ms, until it is dropped.
#[derive(Debug)]
pub struct Datagrams {
    arrivals: Arc<Mutex<Vec<Instant>>>,
    stop: Option<Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

impl Datagrams {
    /// Starts the stream.
    ///
    /// # Panics
    /// Where a socket cannot be made.
    pub fn start(from: &Host, to: &Host, target: SocketAddr) -> Datagrams {
        let receiver = to.udp_socket(target);
        receiver.set_read_timeout(Some(LOOK)).expect("a socket has a timeout");
        let any: SocketAddr = if target.is_ipv4() { ([0; 4], 0).into() } else { ([0; 16], 0).into() };
        let sender = from.udp_socket(any);
        let (stop, stopped) = mpsc::channel();
        let arrivals = Arc::new(Mutex::new(Vec::new()));
        // Both end when `stop` is dropped: the sender by hearing of it, the receiver by being the last that holds the list.
        let sending = std::thread::spawn(move || {
            while stopped.recv_timeout(PACE) == Err(RecvTimeoutError::Timeout) {
                // Without a route there is an error, and the next one has another chance.
                let _ = sender.send_to(&[0; LENGTH], target);
            }
        });
        let list = Arc::downgrade(&arrivals);
        let receiving = std::thread::spawn(move || {
            while let Some(list) = list.upgrade() {
                if receive(&receiver) {
                    list.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
                }
            }
        });
        Datagrams { arrivals, stop: Some(stop), threads: vec![sending, receiving] }
    }

    /// When the last one came.
    ///
    /// # Panics
    /// Where none has come yet.
    pub fn last(&self) -> Instant {
        *self.arrivals().last().expect("datagrams have come")
    }

    /// The longest time between two of which the later came after `from`.
    pub fn longest_gap(&self, from: Instant) -> Duration {
        let arrivals = self.arrivals();
        let after = arrivals.windows(2).filter(|pair| pair[1] > from);
        after.map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }

    /// Waits for `count` more.
    pub fn wait_for_more(&self, count: usize, limit: Duration) {
        let goal = self.arrivals().len() + count;
        wait_until(&format!("{count} more datagrams"), limit, || (self.arrivals().len() >= goal).then_some(()));
    }

    fn arrivals(&self) -> Vec<Instant> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn receive(socket: &UdpSocket) -> bool {
    socket.recv_from(&mut [0; LENGTH]).is_ok_and(|(length, _)| length == LENGTH)
}

impl Drop for Datagrams {
    fn drop(&mut self) {
        self.stop = None;
        self.arrivals = Arc::default();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
