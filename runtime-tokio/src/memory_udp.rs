//! A UDP socket in memory: what the engine sends comes out of its other end, and what is put in there the engine receives.
//! What is between such ends (delays, NATs, cuts) is up to whoever holds them.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll};

use tokio::sync::mpsc;

use crate::counters::{Count, RuntimeCounters};
use crate::udp::Received;

/// A datagram between an engine in memory and the network around it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemoryDatagram {
    /// The address at the engine's end, where the datagram arrived at it or leaves from it; `None` leaves the choice to the
    /// network.
    pub local: Option<IpAddr>,
    /// The address and port of the other end.
    pub remote: SocketAddr,
    /// The payload.
    pub bytes: Vec<u8>,
}

/// The engine's side of a socket in memory. See [`memory_udp`].
#[derive(Debug)]
pub struct MemoryUdp {
    bound: SocketAddr,
    from_network: mpsc::Receiver<MemoryDatagram>,
    to_network: mpsc::Sender<MemoryDatagram>,
    /// A datagram that a readiness check has taken out of the queue.
    next: Option<MemoryDatagram>,
}

/// The network's side of a socket in memory. See [`memory_udp`].
#[derive(Debug)]
pub struct MemoryUdpNetwork {
    /// What the engine sends; it ends when the engine does.
    pub from_engine: mpsc::Receiver<MemoryDatagram>,
    /// What the engine is to receive.
    pub to_engine: mpsc::Sender<MemoryDatagram>,
}

/// A UDP socket in memory that says it is bound to `bound`, for tests and demonstrations of networks that this host has not.
///
/// Each direction holds `capacity` datagrams. What the engine sends into a full queue is dropped and counted, as on any full
/// link.
pub fn memory_udp(bound: SocketAddr, capacity: usize) -> (MemoryUdp, MemoryUdpNetwork) {
    let (to_engine, from_network) = mpsc::channel(capacity);
    let (to_network, from_engine) = mpsc::channel(capacity);
    (MemoryUdp { bound, from_network, to_network, next: None }, MemoryUdpNetwork { from_engine, to_engine })
}

impl MemoryUdp {
    pub(crate) fn bound(&self) -> SocketAddr {
        self.bound
    }

    pub(crate) fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.next.is_some() {
            return Poll::Ready(Ok(()));
        }
        match self.from_network.poll_recv(cx) {
            Poll::Ready(Some(datagram)) => {
                self.next = Some(datagram);
                Poll::Ready(Ok(()))
            }
            // The network is gone: nothing comes any more.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    /// Receives what is there, and at most one batch. Returns whether there may be more.
    pub(crate) fn receive(&mut self, into: &mut Received) -> bool {
        into.clear();
        while into.has_room() {
            let Some(datagram) = self.next.take().or_else(|| self.from_network.try_recv().ok()) else { return false };
            into.put(datagram.remote, datagram.local, &datagram.bytes);
        }
        true
    }

    /// Sends `bytes` as datagrams of `segment` bytes, the last one shorter or equal.
    pub(crate) fn send(
        &self,
        remote: SocketAddr,
        local: Option<IpAddr>,
        bytes: &[u8],
        segment: usize,
        counters: &RuntimeCounters,
    ) {
        for bytes in bytes.chunks(segment.max(1)) {
            let datagram = MemoryDatagram { local, remote, bytes: bytes.to_vec() };
            if self.to_network.try_send(datagram).is_err() {
                counters.add(Count::UdpBufferFull);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::Arc;

    use super::*;
    use crate::udp::{Sent, Udp};

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn datagrams_cross_both_ways_and_a_full_queue_drops() {
        let (socket, mut network) = memory_udp(at("0.0.0.0:4100"), 2);
        let counters = Arc::<RuntimeCounters>::default();
        let mut udp = Udp::Memory(socket, counters.clone());
        assert_eq!(udp.local_addr(), at("0.0.0.0:4100"));

        let (remote, local) = (at("192.0.2.1:9"), Some("198.51.100.7".parse().unwrap()));
        assert_eq!(udp.send(remote, local, b"onetwothree", 3, 3), Sent::Done);
        for bytes in [b"two", b"thr"] {
            let datagram = MemoryDatagram { local, remote, bytes: bytes.to_vec() };
            assert_eq!(network.from_engine.recv().await, Some(datagram));
        }
        assert_eq!(counters.get(Count::UdpBufferFull), 1);

        let mut received = Received::new();
        assert!(!udp.receive(&mut received));
        for bytes in [&b"first"[..], b"second"] {
            network.to_engine.send(MemoryDatagram { local, remote, bytes: bytes.to_vec() }).await.unwrap();
        }
        poll_fn(|cx| udp.poll_readable(cx)).await.unwrap();
        assert!(!udp.receive(&mut received));
        let arrived: Vec<_> =
            received.arrivals().map(|arrival| (arrival.remote, arrival.local, arrival.bytes.to_vec())).collect();
        assert_eq!(arrived, [(remote, local, b"first".to_vec()), (remote, local, b"second".to_vec())]);
    }
}
