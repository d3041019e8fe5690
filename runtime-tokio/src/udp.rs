//! UDP sockets: batches in and out, the local address of every datagram, large buffers.
//!
//! [quinn-udp](quinn_udp) makes the system calls. What is here decides what to do about their errors: a send never fails
//! the engine, it is counted and the protocol's own timers repair it.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};

use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use vine_core::SendError;
use vine_core::path::Family;

use crate::address::ListenAddr;
use crate::counters::{Count, RuntimeCounters};
use crate::host::socket::{self, SendFault};
use crate::memory_udp::MemoryUdp;

/// Size asked for of both socket buffers. A TCP burst leaves as many 64 KiB sends; with the default of 208 KiB the
/// kernel drops most of them. 7 MiB is what WireGuard's userspace implementations settled on.
const SOCKET_BUFFER: usize = 7 << 20;

/// Most bytes of one send: an IPv4 UDP datagram's payload, and with segmentation offload that of all segments.
const MAX_SEND: usize = 65_507;

/// Room for one receive: with GRO the kernel hands over up to 64 KiB of equal-sized datagrams of one sender.
const RECEIVE_ROOM: usize = 64 << 10;

/// Why a socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another process holds the port.
    #[error("{0} is in use by another process; `ss -lunp 'sport = :{port}'` shows which", port = .0.0.port())]
    InUse(ListenAddr),
    /// No interface of this host has the address.
    #[error("{0}: no interface of this host has the address {ip}; `ip address` lists them", ip = .0.0.ip())]
    NoSuchAddress(ListenAddr),
    /// Ports below 1024 need a privilege.
    #[error("{0}: not permitted; ports below 1024 need root or CAP_NET_BIND_SERVICE")]
    NotPermitted(ListenAddr),
    /// Anything else.
    #[error("cannot listen on {0}: {1}")]
    Other(ListenAddr, #[source] io::Error),
}

/// What became of a send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub(crate) enum Sent {
    /// Everything was handed to the kernel, or given up and counted.
    Done,
    /// The socket's buffer is full; bytes from this offset on are still to be sent once it is writable.
    Blocked(usize),
}

/// A UDP socket of an engine.
pub(crate) enum Udp {
    /// One of this host.
    Kernel(KernelUdp),
    /// Two queues, and where what they drop is counted.
    Memory(MemoryUdp, Arc<RuntimeCounters>),
}

impl Udp {
    /// Opens a socket of this host; must be called inside a tokio runtime.
    pub(crate) fn bind(listen: ListenAddr, counters: Arc<RuntimeCounters>) -> Result<Udp, BindError> {
        KernelUdp::bind(listen, counters).map(Udp::Kernel)
    }

    /// The address that the socket is bound to, with the port that the kernel chose.
    pub(crate) fn local_addr(&self) -> SocketAddr {
        match self {
            Udp::Kernel(socket) => socket.local_addr(),
            Udp::Memory(socket, _) => socket.bound(),
        }
    }

    /// The only family of addresses that the socket reaches.
    pub(crate) fn family(&self) -> Family {
        Family::of(&self.local_addr())
    }

    /// Waits for datagrams.
    pub(crate) fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Udp::Kernel(socket) => socket.poll_readable(cx),
            Udp::Memory(socket, _) => socket.poll_readable(cx),
        }
    }

    /// Waits for room in the send buffer, after [`Sent::Blocked`].
    pub(crate) fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Udp::Kernel(socket) => socket.poll_writable(cx),
            Udp::Memory(..) => Poll::Ready(Ok(())),
        }
    }

    /// Receives what is there, and at most one batch. Returns whether there may be more.
    pub(crate) fn receive(&mut self, into: &mut Received) -> bool {
        match self {
            Udp::Kernel(socket) => socket.receive(into),
            Udp::Memory(socket, _) => socket.receive(into),
        }
    }

    /// The last datagram that could not be sent, once.
    pub(crate) fn take_unsent(&mut self) -> Option<Unsent> {
        match self {
            Udp::Kernel(socket) => socket.unsent.take(),
            Udp::Memory(..) => None,
        }
    }

    /// Sends `bytes[from..]` to one destination as datagrams of `segment` bytes, the last one shorter or equal, from the
    /// local address given or from one that the kernel chooses.
    pub(crate) fn send(
        &mut self,
        remote: SocketAddr,
        local: Option<IpAddr>,
        bytes: &[u8],
        segment: usize,
        from: usize,
    ) -> Sent {
        match self {
            Udp::Kernel(socket) => socket.send(remote, local, bytes, segment, from),
            Udp::Memory(socket, counters) => {
                socket.send(remote, local, bytes.get(from..).unwrap_or_default(), segment, counters);
                Sent::Done
            }
        }
    }
}

/// A datagram that the host did not send, and that the node is to know of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unsent {
    /// Where to.
    pub(crate) remote: SocketAddr,
    /// Bytes.
    pub(crate) length: usize,
    /// Why.
    pub(crate) error: SendError,
}

/// One bound UDP socket of this host.
#[derive(Debug)]
pub(crate) struct KernelUdp {
    io: tokio::net::UdpSocket,
    state: UdpSocketState,
    local: SocketAddr,
    /// The last one since it was asked: what goes wrong once goes wrong again.
    unsent: Option<Unsent>,
    counters: Arc<RuntimeCounters>,
}

impl KernelUdp {
    fn bind(listen: ListenAddr, counters: Arc<RuntimeCounters>) -> Result<KernelUdp, BindError> {
        let fault = |error: io::Error| match error.kind() {
            io::ErrorKind::AddrInUse => BindError::InUse(listen),
            io::ErrorKind::AddrNotAvailable => BindError::NoSuchAddress(listen),
            io::ErrorKind::PermissionDenied => BindError::NotPermitted(listen),
            _ => BindError::Other(listen, error),
        };
        Self::open(listen.0, counters).map_err(fault)
    }

    fn open(address: SocketAddr, counters: Arc<RuntimeCounters>) -> io::Result<KernelUdp> {
        let raw = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            // An IPv4 peer must have one address here, not a second one in IPv4-mapped form.
            raw.set_only_v6(true)?;
        }
        raw.set_nonblocking(true)?;
        raw.bind(&address.into())?;
        socket::enlarge_buffers(&raw, SOCKET_BUFFER);
        let io = tokio::net::UdpSocket::from_std(raw.into())?;
        let state = Self::new_state(&io)?;
        let local = io.local_addr()?;
        Ok(KernelUdp { io, state, local, unsent: None, counters })
    }

    fn new_state(io: &tokio::net::UdpSocket) -> io::Result<UdpSocketState> {
        let state = UdpSocketState::new(UdpSockRef::from(io))?;
        socket::disable_timestamps(io);
        Ok(state)
    }

    fn local_addr(&self) -> SocketAddr {
        self.local
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io.poll_recv_ready(cx)
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io.poll_send_ready(cx)
    }

    fn receive(&self, into: &mut Received) -> bool {
        into.count = 0;
        let result = self.io.try_io(Interest::READABLE, || {
            into.count = self.state.recv(UdpSockRef::from(&self.io), &mut into.slices.get(), &mut into.meta)?;
            // A batch that came back short has emptied the socket. Saying so here clears tokio's readiness and saves
            // the system call that would only return EAGAIN.
            if into.count < BATCH_SIZE { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        match result {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(_) => {
                self.counters.add(Count::UdpReceive);
                true
            }
        }
    }

    fn send(&mut self, remote: SocketAddr, local: Option<IpAddr>, bytes: &[u8], segment: usize, from: usize) -> Sent {
        let mut at = from;
        while at < bytes.len() {
            let end = bytes.len().min(at + self.most_per_send(segment));
            let message = Message { remote, local, bytes: &bytes[at..end], segment };
            match self.send_once(&message) {
                Ok(()) => at = end,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Sent::Blocked(at),
                Err(error) => match self.recover(&message, &error) {
                    Sent::Done => at = end,
                    Sent::Blocked(offset) => return Sent::Blocked(at + offset),
                },
            }
        }
        Sent::Done
    }

    /// The largest multiple of `segment` that one system call takes.
    fn most_per_send(&self, segment: usize) -> usize {
        let segment = segment.max(1);
        let segments = (MAX_SEND / segment).clamp(1, self.state.max_gso_segments());
        segments * segment
    }

    fn send_once(&self, message: &Message<'_>) -> io::Result<()> {
        let segment_size = (message.bytes.len() > message.segment).then_some(message.segment);
        let transmit = Transmit {
            destination: message.remote,
            ecn: None,
            contents: message.bytes,
            segment_size,
            src_ip: message.local,
        };
        match self.state.try_send(UdpSockRef::from(&self.io), &transmit) {
            // Only tokio can wait for room, and it believes in the room that was until it has seen this error itself.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.io.try_io(Interest::WRITABLE, || self.state.try_send(UdpSockRef::from(&self.io), &transmit))
            }
            result => result,
        }
    }

    /// Finds out what an error was about, and sends the message another way where there is one.
    ///
    /// Linux says EINVAL for three things: a source address that is gone (newer kernels: ENETUNREACH), segments larger than
    /// the path's MTU, and a device without the offload. Each is tried in turn.
    #[cold]
    fn recover(&mut self, message: &Message<'_>, error: &io::Error) -> Sent {
        let offload = self.state.max_gso_segments();
        let fault = socket::classify(error);
        if message.local.is_some() && matches!(fault, SendFault::Argument | SendFault::Source | SendFault::Unreachable)
        {
            let without = Message { local: None, ..*message };
            match self.send_once(&without) {
                Ok(()) => {
                    self.counters.add(Count::UdpSourceLost);
                    self.restore_offload();
                    return Sent::Done;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Sent::Blocked(0),
                Err(_) => {}
            }
        }
        if fault == SendFault::Argument && message.bytes.len() > message.segment {
            return self.send_singly(message);
        }
        self.give_up(message, fault);
        if offload > 1 && self.state.max_gso_segments() == 1 {
            self.restore_offload();
        }
        Sent::Done
    }

    /// Sends each segment as a datagram of its own, after a send with offload was refused.
    fn send_singly(&mut self, message: &Message<'_>) -> Sent {
        let mut too_long = false;
        for (index, bytes) in message.bytes.chunks(message.segment).enumerate() {
            match self.send_once(&Message { bytes, ..*message }) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Sent::Blocked(index * message.segment);
                }
                Err(error) => {
                    let fault = socket::classify(&error);
                    too_long |= fault == SendFault::TooLong;
                    self.give_up(&Message { bytes, ..*message }, fault);
                }
            }
        }
        if too_long {
            // The path's MTU was to blame, not the offload.
            self.restore_offload();
        } else {
            self.counters.add(Count::UdpOffloadRefused);
        }
        Sent::Done
    }

    /// quinn-udp gives up segmentation offload for good at the first EINVAL. Where something else was to blame, this
    /// starts anew.
    fn restore_offload(&mut self) {
        if let Ok(state) = Self::new_state(&self.io) {
            self.state = state;
        }
    }

    /// Counts a message that is not sent, and keeps what the node is to know of it.
    fn give_up(&mut self, message: &Message<'_>, fault: SendFault) {
        let error = match fault {
            SendFault::TooLong => Some(SendError::TooLong),
            SendFault::Unreachable => Some(SendError::Unreachable),
            _ => None,
        };
        if let Some(error) = error {
            let length = message.segment.min(message.bytes.len());
            self.unsent = Some(Unsent { remote: message.remote, length, error });
        }
        self.counters.add(match fault {
            SendFault::TooLong => Count::UdpTooLong,
            SendFault::Source => Count::UdpSourceLost,
            SendFault::Unreachable => Count::UdpUnreachable,
            SendFault::Refused => Count::UdpRefused,
            SendFault::Forbidden => Count::UdpForbidden,
            SendFault::NoMemory => Count::UdpNoMemory,
            SendFault::Argument | SendFault::Other => Count::UdpSendOther,
        });
    }
}

/// Datagrams of one size to one destination.
#[derive(Clone, Copy)]
struct Message<'a> {
    remote: SocketAddr,
    local: Option<IpAddr>,
    bytes: &'a [u8],
    segment: usize,
}

/// Buffers for one batch of receives, used again and again.
pub(crate) struct Received {
    slices: Slices,
    meta: [RecvMeta; BATCH_SIZE],
    count: usize,
}

/// The bytes, apart from their description so that both can be borrowed at once.
///
/// The kernel fills the first slices first, so that a socket read one datagram at a time touches one slice only, and the
/// rest of the 2 MiB never becomes resident.
struct Slices(Box<[u8]>);

impl Slices {
    fn get(&mut self) -> [IoSliceMut<'_>; BATCH_SIZE] {
        let mut rest = self.0.chunks_exact_mut(RECEIVE_ROOM);
        std::array::from_fn(|_| IoSliceMut::new(rest.next().unwrap_or_default()))
    }
}

/// Datagrams of one sender that arrived together: each `stride` bytes long, the last one shorter or equal.
pub(crate) struct Arrival<'a> {
    pub(crate) remote: SocketAddr,
    pub(crate) local: Option<IpAddr>,
    pub(crate) stride: usize,
    pub(crate) bytes: &'a mut [u8],
}

impl Received {
    pub(crate) fn new() -> Received {
        Received {
            slices: Slices(vec![0; RECEIVE_ROOM * BATCH_SIZE].into_boxed_slice()),
            meta: [RecvMeta::default(); BATCH_SIZE],
            count: 0,
        }
    }

    pub(crate) fn clear(&mut self) {
        self.count = 0;
    }

    /// Whether the batch takes another datagram.
    pub(crate) fn has_room(&self) -> bool {
        self.count < BATCH_SIZE
    }

    /// Adds a datagram, if there is room.
    pub(crate) fn put(&mut self, remote: SocketAddr, local: Option<IpAddr>, bytes: &[u8]) {
        let slice = self.slices.0.chunks_exact_mut(RECEIVE_ROOM).nth(self.count);
        let (Some(meta), Some(room)) = (self.meta.get_mut(self.count), slice.and_then(|at| at.get_mut(..bytes.len())))
        else {
            return;
        };
        room.copy_from_slice(bytes);
        *meta = RecvMeta::default();
        (meta.addr, meta.dst_ip, meta.len, meta.stride) = (remote, local, bytes.len(), bytes.len());
        self.count += 1;
    }

    /// What the last receive brought.
    pub(crate) fn arrivals(&mut self) -> impl Iterator<Item = Arrival<'_>> {
        let slices = self.slices.0.chunks_exact_mut(RECEIVE_ROOM);
        slices.zip(&self.meta).take(self.count).map(|(slice, meta)| Arrival {
            remote: meta.addr,
            local: meta.dst_ip.filter(|ip| is_unicast(*ip)),
            stride: meta.stride.max(1),
            bytes: slice.get_mut(..meta.len).unwrap_or_default(),
        })
    }
}

/// Whether an answer can be sent from the address.
fn is_unicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_multicast() && !ip.is_broadcast() && !ip.is_unspecified(),
        IpAddr::V6(ip) => !ip.is_multicast() && !ip.is_unspecified(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    fn bind(text: &str) -> KernelUdp {
        KernelUdp::bind(text.parse().unwrap(), Arc::default()).unwrap()
    }

    /// Receives until `bytes` bytes are there; returns the datagrams' sizes.
    async fn sizes(socket: &KernelUdp, mut bytes: usize) -> Vec<usize> {
        let mut received = Received::new();
        let mut sizes = Vec::new();
        while bytes > 0 {
            poll_fn(|cx| socket.poll_readable(cx)).await.unwrap();
            socket.receive(&mut received);
            for arrival in received.arrivals() {
                assert_eq!(arrival.local, Some(arrival.remote.ip()));
                for datagram in arrival.bytes.chunks(arrival.stride) {
                    sizes.push(datagram.len());
                    bytes -= datagram.len();
                }
            }
        }
        sizes
    }

    #[tokio::test]
    async fn a_batch_crosses_whole_in_both_families() {
        for address in ["udp://127.0.0.1:0", "udp://[::1]:0"] {
            let (mut a, b) = (bind(address), bind(address));
            let batch = vec![7; 100 * 1200 + 55];
            assert_eq!(a.send(b.local_addr(), None, &batch, 1200, 0), Sent::Done);
            let mut expected = vec![1200; 100];
            expected.push(55);
            assert_eq!(sizes(&b, batch.len()).await, expected);
        }
    }

    #[tokio::test]
    async fn the_source_address_is_pinned_and_reported() {
        let (mut a, b) = (bind("udp://0.0.0.0:0"), bind("udp://0.0.0.0:0"));
        let to = SocketAddr::new("127.0.0.9".parse().unwrap(), b.local_addr().port());
        let from = "127.0.0.7".parse().unwrap();
        assert_eq!(a.send(to, Some(from), b"hello", 5, 0), Sent::Done);
        poll_fn(|cx| b.poll_readable(cx)).await.unwrap();
        let mut received = Received::new();
        b.receive(&mut received);
        let arrival = received.arrivals().next().unwrap();
        assert_eq!((arrival.remote.ip(), arrival.local), (from, Some(to.ip())));
    }

    #[tokio::test]
    async fn a_lost_source_address_costs_neither_the_datagram_nor_the_offload() {
        for (any, loopback, gone) in
            [("udp://0.0.0.0:0", "127.0.0.1", "192.0.2.1"), ("udp://[::]:0", "::1", "2001:db8::1")]
        {
            let (mut a, b) = (bind(any), bind(any));
            let offload = a.state.max_gso_segments();
            let to = SocketAddr::new(loopback.parse().unwrap(), b.local_addr().port());
            assert_eq!(a.send(to, Some(gone.parse().unwrap()), &[1; 3000], 1000, 0), Sent::Done);
            assert_eq!(sizes(&b, 3000).await, [1000; 3]);
            assert_eq!(a.counters.get(Count::UdpSourceLost), 1);
            assert_eq!(a.state.max_gso_segments(), offload);
        }
    }

    #[tokio::test]
    async fn too_long_is_counted_and_keeps_the_offload() {
        let (mut a, b) = (bind("udp://127.0.0.1:0"), bind("udp://127.0.0.1:0"));
        let offload = a.state.max_gso_segments();
        assert_eq!(a.send(b.local_addr(), None, &vec![0; 66_000], 66_000, 0), Sent::Done);
        assert_eq!(a.counters.get(Count::UdpTooLong), 1);
        assert_eq!(a.state.max_gso_segments(), offload);
    }

    #[tokio::test]
    async fn an_unreachable_family_is_counted() {
        let mut a = bind("udp://127.0.0.1:0");
        assert_eq!(a.send("[2001:db8::1]:9".parse().unwrap(), None, b"x", 1, 0), Sent::Done);
        assert_eq!(a.counters.iter().map(|(_, n)| n).sum::<u64>(), 1);
    }

    #[tokio::test]
    async fn a_port_in_use_is_named() {
        let a = bind("udp://127.0.0.1:0");
        let error = KernelUdp::bind(ListenAddr(a.local_addr()), Arc::default()).unwrap_err().to_string();
        assert!(error.contains(&a.local_addr().to_string()) && error.contains("ss -lunp"), "{error}");
        let error = KernelUdp::bind("udp://192.0.2.1:9".parse().unwrap(), Arc::default()).unwrap_err();
        assert!(matches!(error, BindError::NoSuchAddress(_)), "{error}");
    }
}
