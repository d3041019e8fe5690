//! A small host behind an engine: it answers echo requests, and sends its own.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use vine_tokio::MemoryTunHost;

use super::icmp::{Echo, Kind};

/// Bytes of the payload of an echo request, like those of `ping`.
const PAYLOAD: usize = 56;
/// Requests that may wait to be sent.
const QUEUE: usize = 64;

/// The host; it stops when this is dropped.
pub(super) struct Host {
    pinger: Pinger,
    task: JoinHandle<()>,
}

/// Sends a host's pings. Clones send those of the same host.
#[derive(Clone)]
pub(super) struct Pinger {
    addresses: Vec<IpAddr>,
    id: u16,
    next: Arc<Mutex<u16>>,
    requests: mpsc::Sender<Request>,
}

struct Request {
    packet: Vec<u8>,
    sequence: u16,
    answered: oneshot::Sender<Instant>,
}

impl Host {
    /// A host with these addresses behind `tun`.
    pub(super) fn start(addresses: Vec<IpAddr>, id: u16, tun: MemoryTunHost) -> Host {
        let (requests, queue) = mpsc::channel(QUEUE);
        let task = tokio::spawn(run(addresses.clone(), id, tun, queue));
        Host { pinger: Pinger { addresses, id, next: Arc::default(), requests }, task }
    }

    /// What sends its pings.
    pub(super) fn pinger(&self) -> Pinger {
        self.pinger.clone()
    }

    /// Sends one echo request; the round-trip time, or `None` where no answer came in time.
    pub(super) async fn ping(&self, destination: IpAddr, timeout: Duration) -> Option<Duration> {
        self.pinger.ping(destination, timeout).await
    }
}

impl Pinger {
    /// The host's address of the family of `other`.
    fn address(&self, other: IpAddr) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|address| address.is_ipv4() == other.is_ipv4())
    }

    /// Sends one echo request; the round-trip time, or `None` where no answer came in time.
    pub(super) async fn ping(&self, destination: IpAddr, timeout: Duration) -> Option<Duration> {
        let sequence = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            *next = next.wrapping_add(1);
            *next
        };
        let echo = Echo {
            kind: Kind::Request,
            source: self.address(destination)?,
            destination,
            id: self.id,
            sequence,
            payload: vec![0x5a; PAYLOAD],
        };
        let (answered, answer) = oneshot::channel();
        let sent = Instant::now();
        self.requests.send(Request { packet: echo.to_packet()?, sequence, answered }).await.ok()?;
        let arrived = tokio::time::timeout(timeout, answer).await.ok()?.ok()?;
        Some(arrived.duration_since(sent))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(addresses: Vec<IpAddr>, id: u16, mut tun: MemoryTunHost, mut requests: mpsc::Receiver<Request>) {
    let mut waiting: BTreeMap<u16, oneshot::Sender<Instant>> = BTreeMap::new();
    loop {
        tokio::select! {
            packet = tun.recv() => {
                let Some(packet) = packet else { return };
                let Some(echo) = Echo::parse(&packet) else { continue };
                if !addresses.contains(&echo.destination) {
                    continue;
                }
                match echo.kind {
                    Kind::Request => {
                        if let Some(reply) = echo.reply().to_packet() {
                            tun.send(&reply).await;
                        }
                    }
                    Kind::Reply if echo.id == id => {
                        if let Some(answered) = waiting.remove(&echo.sequence) {
                            // Whoever asked may have given up meanwhile.
                            let _ = answered.send(Instant::now());
                        }
                    }
                    Kind::Reply => {}
                }
            }
            request = requests.recv() => {
                let Some(request) = request else { return };
                waiting.retain(|_, answered| !answered.is_closed());
                waiting.insert(request.sequence, request.answered);
                tun.send(&request.packet).await;
            }
        }
    }
}
