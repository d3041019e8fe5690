//! The host's side of the overlay: a TUN device, or a pair of queues that stands in for one.
//!
//! Both carry frames: the 10-byte `virtio_net_hdr` and one IP packet of up to 64 KiB. Splitting large packets and gathering
//! small ones is the core's work.

use std::io;
use std::net::IpAddr;
use std::task::{Context, Poll};

use tokio::sync::mpsc;
use vine_core::overlay::Merge;

use crate::host::tun::KernelTun;

/// Bytes of the `virtio_net_hdr` in front of every packet.
pub const VNET_HEADER: usize = 10;

/// Room for one frame: header and the largest packet.
pub(crate) const FRAME_ROOM: usize = VNET_HEADER + (64 << 10);

/// The TUN interface to create.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TunConfig {
    /// Name of the interface: 1 to 15 bytes, without `/`, `%`, `:` or white space.
    pub name: String,
    /// Its addresses with their prefix lengths.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Its MTU in bytes, 1280 to 65535 (576 and up where there is no IPv6).
    pub mtu: u16,
}

/// The packet device of an engine.
pub(crate) enum Tun {
    /// An interface of this host.
    Kernel(KernelTun),
    /// Two queues.
    Memory(MemoryTun),
}

impl Tun {
    /// Waits for a frame to read.
    pub(crate) fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Tun::Kernel(tun) => tun.poll_readable(cx),
            Tun::Memory(tun) => tun.poll_readable(cx),
        }
    }

    /// Reads one frame into `buffer`; `WouldBlock` when there is none.
    pub(crate) fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Tun::Kernel(tun) => tun.try_read(buffer),
            Tun::Memory(tun) => tun.try_read(buffer),
        }
    }

    /// Writes one frame that lies in several pieces.
    pub(crate) fn try_write(&mut self, header: &[u8; VNET_HEADER], parts: &[&[u8]]) -> io::Result<()> {
        match self {
            Tun::Kernel(tun) => tun.try_write(header, parts),
            Tun::Memory(tun) => tun.try_write(header, parts),
        }
    }

    /// What the device takes as one large packet; `None` where it takes neither large packets nor open checksums.
    pub(crate) fn merges(&self) -> Option<Merge> {
        match self {
            Tun::Kernel(tun) => Some(tun.merges()),
            Tun::Memory(_) => None,
        }
    }
}

/// The engine's side of an in-memory packet device. See [`memory_tun`].
#[derive(Debug)]
pub struct MemoryTun {
    from_host: mpsc::Receiver<Vec<u8>>,
    to_host: mpsc::Sender<Vec<u8>>,
    /// A frame that a readiness check has taken out of the queue.
    next: Option<Vec<u8>>,
}

/// The host's side of an in-memory packet device. See [`memory_tun`].
#[derive(Debug)]
pub struct MemoryTunHost {
    from_engine: mpsc::Receiver<Vec<u8>>,
    to_engine: mpsc::Sender<Vec<u8>>,
}

/// A packet device in memory, for tests and demonstrations without privileges: what one side sends the other receives.
///
/// Each direction holds `capacity` packets. A full queue makes [`MemoryTunHost::send`] wait and drops what the engine
/// delivers, as an interface's own queues do.
pub fn memory_tun(capacity: usize) -> (MemoryTun, MemoryTunHost) {
    let (to_engine, from_host) = mpsc::channel(capacity);
    let (to_host, from_engine) = mpsc::channel(capacity);
    (MemoryTun { from_host, to_host, next: None }, MemoryTunHost { from_engine, to_engine })
}

impl MemoryTun {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.next.is_some() {
            return Poll::Ready(Ok(()));
        }
        match self.from_host.poll_recv(cx) {
            Poll::Ready(Some(frame)) => {
                self.next = Some(frame);
                Poll::Ready(Ok(()))
            }
            // The host's side is gone: no more packets, but what is for the host may still be delivered to nobody.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let frame = match self.next.take() {
            Some(frame) => frame,
            None => self.from_host.try_recv().map_err(|_| io::Error::from(io::ErrorKind::WouldBlock))?,
        };
        let room = buffer.get_mut(..frame.len()).ok_or(io::ErrorKind::InvalidInput)?;
        room.copy_from_slice(&frame);
        Ok(frame.len())
    }

    fn try_write(&mut self, header: &[u8; VNET_HEADER], parts: &[&[u8]]) -> io::Result<()> {
        let room = self.to_host.try_reserve().map_err(|_| io::Error::from(io::ErrorKind::WouldBlock))?;
        let mut frame = Vec::with_capacity(VNET_HEADER + parts.iter().map(|part| part.len()).sum::<usize>());
        frame.extend_from_slice(header);
        for part in parts {
            frame.extend_from_slice(part);
        }
        room.send(frame);
        Ok(())
    }
}

impl MemoryTunHost {
    /// Sends one IP packet into the overlay; waits while the queue is full, and says `false` when the engine is gone.
    pub async fn send(&self, packet: &[u8]) -> bool {
        self.send_frame(&[0; VNET_HEADER], packet).await
    }

    /// Sends one packet with a `virtio_net_hdr` of its own, as a kernel with segmentation offload would.
    pub async fn send_frame(&self, header: &[u8; VNET_HEADER], packet: &[u8]) -> bool {
        self.to_engine.send([&header[..], packet].concat()).await.is_ok()
    }

    /// The next packet out of the overlay; `None` when the engine is gone.
    pub async fn recv(&mut self) -> Option<Vec<u8>> {
        let mut frame = self.from_engine.recv().await?;
        frame.drain(..VNET_HEADER.min(frame.len()));
        Some(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    #[tokio::test]
    async fn frames_cross_both_ways_and_a_full_queue_drops() {
        let (engine, mut host) = memory_tun(2);
        let mut tun = Tun::Memory(engine);
        let mut buffer = [0; 64];
        assert_eq!(tun.try_read(&mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert!(host.send(b"in").await);
        poll_fn(|cx| tun.poll_readable(cx)).await.unwrap();
        assert_eq!(tun.try_read(&mut buffer).unwrap(), VNET_HEADER + 2);
        assert_eq!(&buffer[VNET_HEADER..VNET_HEADER + 2], b"in");

        for _ in 0..2 {
            tun.try_write(&[0; VNET_HEADER], &[b"o", b"ut"]).unwrap();
        }
        let full = tun.try_write(&[0; VNET_HEADER], &[b"lost"]).unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        assert_eq!(host.recv().await.unwrap(), b"out");
    }

    #[tokio::test]
    async fn a_gone_side_is_noticed() {
        let (engine, mut host) = memory_tun(1);
        drop(engine);
        assert!(!host.send(b"x").await);
        assert_eq!(host.recv().await, None);
    }
}
