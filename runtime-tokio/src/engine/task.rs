//! The one task that owns the node: it waits for the TUN, the sockets, the timer and requests, and does a bounded amount of
//! work for each before it looks at the others.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time::Sleep;
use vine_core::overlay::{Batch, Gather, Refused, TunPacket, VirtioNetHeader, finish_checksum};
use vine_core::path::{FourTuple, SocketId};
use vine_core::{Command, Event, Inbound, Instant, Node, Output, TunOutcome};

use super::clock::Clock;
use crate::counters::{Count, RuntimeCounters};
use crate::host;
use crate::tun::{FRAME_ROOM, Tun, VNET_HEADER};
use crate::udp::{Received, Sent, Udp, Unsent};

/// TUN reads before the sockets have their turn: as many small packets as one segmented send takes.
const TUN_READS: usize = 64;

/// Bytes read from the TUN before the sockets have their turn: 16 large packets, some 2 ms of a fast link.
const TUN_BYTES: usize = 1 << 20;

/// Requests before the packets have their turn.
const REQUESTS: usize = 8;

/// Outputs of the node before the packets have their turn.
const OUTPUTS: usize = 256;

/// Bytes of the outgoing batch. Several large TUN reads share a batch, so that all its sends but the last are full.
const BATCH_ROOM: usize = 256 << 10;

/// What a query runs on the node.
type Query = Box<dyn FnOnce(&mut Node, Instant) + Send>;

/// What others ask of the task.
pub(crate) enum Request {
    /// Run this on the node.
    Query(Query),
    /// Send a datagram and see whether the host's own NAT brings it back.
    Hairpin(Hairpin),
    /// Say goodbye to every peer and end.
    Shutdown,
}

/// A datagram that this host sends to itself by the address at which others see it (RFC 4787, section 6).
pub(crate) struct Hairpin {
    /// By which socket.
    pub(crate) socket: SocketId,
    /// Where others see that socket.
    pub(crate) to: SocketAddr,
    /// Random bytes by which it is recognised. They are no envelope: a peer that gets them in error drops them.
    pub(crate) token: [u8; HAIRPIN_LEN],
    /// To be told when it is back.
    pub(crate) back: oneshot::Sender<()>,
}

/// Bytes of a hairpin datagram: too many to be guessed.
pub(crate) const HAIRPIN_LEN: usize = 32;

/// Why an engine ended.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Exit {
    /// It was asked to, or nobody held its handle any more.
    Shutdown,
    /// The TUN interface is gone: somebody deleted it.
    TunGone(String),
    /// The tokio runtime that drives the engine is shutting down.
    Runtime(String),
    /// The engine's task panicked.
    Panicked,
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Exit::Shutdown => f.write_str("shut down"),
            Exit::TunGone(error) => write!(f, "the TUN interface is gone ({error}): was it deleted?"),
            Exit::Runtime(error) => write!(f, "the tokio runtime has stopped: {error}"),
            Exit::Panicked => f.write_str("the engine panicked; this is a bug"),
        }
    }
}

/// What an engine is made of.
pub(crate) struct Parts {
    pub(crate) node: Node,
    pub(crate) clock: Clock,
    pub(crate) tun: Tun,
    pub(crate) sockets: Vec<Udp>,
    pub(crate) requests: mpsc::Receiver<Request>,
    pub(crate) events: broadcast::Sender<Event>,
    pub(crate) counters: Arc<RuntimeCounters>,
}

/// The task's state. Every buffer is made once.
pub(crate) struct Task {
    parts: Parts,
    /// One frame of the TUN.
    frame: Box<[u8]>,
    /// Length of a frame that was read and did not fit into the batch before it blocked.
    held: Option<usize>,
    batch: Batch<FourTuple>,
    /// How much of the batch was sent before the socket's buffer was full. While it is, no more is read from the TUN: the
    /// host's own queue is where packets are to wait.
    blocked: Option<usize>,
    received: Received,
    /// What is passed on for others.
    forwarded: Batch<FourTuple>,
    /// A hairpin datagram that is on its way.
    hairpin: Option<Hairpin>,
    scratch: Box<[u8]>,
    timer: Pin<Box<Sleep>>,
    /// What the timer is set to, on the node's clock.
    armed: Instant,
}

/// What there is to do.
#[derive(Default)]
struct Ready {
    /// A request, or `None` inside: nobody can ask any more.
    request: Option<Option<Request>>,
    tun: bool,
    /// One bit for each socket.
    sockets: u64,
    /// The socket on which a batch was blocked has room again.
    room: bool,
    timer: bool,
}

impl Ready {
    fn any(&self) -> bool {
        self.request.is_some() || self.tun || self.sockets != 0 || self.room || self.timer
    }
}

impl Task {
    pub(crate) fn new(parts: Parts) -> Task {
        let armed = Instant::ORIGIN;
        let timer = Box::pin(tokio::time::sleep_until(parts.clock.timer(armed)));
        Task {
            parts,
            frame: vec![0; FRAME_ROOM].into_boxed_slice(),
            held: None,
            batch: Batch::with_capacity(BATCH_ROOM),
            blocked: None,
            received: Received::new(),
            forwarded: Batch::with_capacity(BATCH_ROOM),
            hairpin: None,
            scratch: vec![0; Node::SCRATCH_LEN].into_boxed_slice(),
            timer,
            armed,
        }
    }

    /// Runs until the engine ends.
    pub(crate) async fn run(mut self) -> Exit {
        let mut more = false;
        loop {
            more |= self.drain_outputs();
            self.tell_unsent();
            more |= self.arm();
            if more {
                // Others on this thread have their turn, and so has the driver: without it no new input would be noticed
                // while one source never runs dry.
                tokio::task::yield_now().await;
            }
            let ready = poll_fn(|cx| match self.poll_ready(cx) {
                Ok(ready) if more || ready.any() => Poll::Ready(Ok(ready)),
                Ok(_) => Poll::Pending,
                Err(error) => Poll::Ready(Err(Exit::Runtime(error.to_string()))),
            });
            match ready.await.and_then(|ready| self.work(ready)) {
                Ok(left) => more = left,
                Err(exit) => return exit,
            }
        }
    }

    /// Sets the timer to the node's deadline. Returns whether that has come already.
    fn arm(&mut self) -> bool {
        let (deadline, _) = self.parts.node.poll_timeout();
        let now = self.parts.clock.now();
        if deadline <= now {
            return true;
        }
        // A deadline moves away with every packet. The timer then fires once for nothing, which costs less than to move it.
        // One that should have fired and has not stood still while the machine slept.
        if deadline < self.armed || self.timer.is_elapsed() || self.armed <= now {
            self.armed = deadline;
            let at = self.parts.clock.timer(deadline);
            self.timer.as_mut().reset(at);
        }
        false
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> io::Result<Ready> {
        let mut ready = Ready::default();
        let blocked = self.blocked.and_then(|_| self.batch.destination()).and_then(|path| self.socket(path.socket));
        if let Some(socket) = blocked {
            ready.room = is_ready(socket.poll_writable(cx))?;
        } else {
            ready.tun = is_ready(self.parts.tun.poll_readable(cx))?;
        }
        for (bit, socket) in self.parts.sockets.iter_mut().enumerate() {
            ready.sockets |= u64::from(is_ready(socket.poll_readable(cx))?) << bit;
        }
        if let Poll::Ready(request) = self.parts.requests.poll_recv(cx) {
            ready.request = Some(request);
        }
        ready.timer = self.timer.as_mut().poll(cx).is_ready();
        Ok(ready)
    }

    /// Does what is ready, and not more than a bounded part of it. Returns whether something is left.
    fn work(&mut self, ready: Ready) -> Result<bool, Exit> {
        let mut left = false;
        if let Some(request) = ready.request {
            self.serve(request.unwrap_or(Request::Shutdown))?;
        }
        for index in 0..self.parts.sockets.len() {
            if ready.sockets & (1 << index) != 0 {
                left |= self.receive(index);
            }
        }
        if ready.room {
            self.flush();
        }
        if ready.tun {
            left |= self.read_tun()?;
        }
        let now = self.parts.clock.now();
        if self.parts.node.poll_timeout().0 <= now {
            self.parts.node.handle_timeout(now);
        }
        Ok(left)
    }

    /// Tells the node what could not be sent.
    fn tell_unsent(&mut self) {
        for (id, socket) in (0u8..).map(SocketId).zip(&mut self.parts.sockets) {
            if let Some(Unsent { remote, length, error }) = socket.take_unsent() {
                let path = FourTuple { socket: id, local: None, remote };
                self.parts.node.handle_send_error(self.parts.clock.now(), path, length, error);
            }
        }
    }

    /// Serves a request and a few that wait behind it.
    fn serve(&mut self, mut request: Request) -> Result<(), Exit> {
        for left in (0..REQUESTS).rev() {
            match request {
                Request::Query(query) => query(&mut self.parts.node, self.parts.clock.now()),
                Request::Hairpin(hairpin) => self.send_hairpin(hairpin),
                Request::Shutdown => {
                    self.say_goodbye();
                    return Err(Exit::Shutdown);
                }
            }
            if left == 0 {
                break;
            }
            let Ok(next) = self.parts.requests.try_recv() else { break };
            request = next;
        }
        Ok(())
    }

    /// Sends a hairpin datagram; an earlier one is given up for it.
    fn send_hairpin(&mut self, hairpin: Hairpin) {
        if let Some(socket) = self.parts.sockets.get_mut(usize::from(hairpin.socket.0))
            && socket.send(hairpin.to, None, &hairpin.token, HAIRPIN_LEN, 0) == Sent::Done
        {
            self.hairpin = Some(hairpin);
        }
    }

    /// Sends what is sealed already, then a goodbye to every peer.
    fn say_goodbye(&mut self) {
        self.flush();
        // The only error is that it was done before.
        let _ = self.parts.node.command(self.parts.clock.now(), Command::Shutdown);
        while self.drain_outputs() {}
    }

    /// Carries out a bounded number of the node's outputs. Returns whether more may wait.
    fn drain_outputs(&mut self) -> bool {
        for _ in 0..OUTPUTS {
            match self.parts.node.poll_output(&mut self.scratch) {
                None => return false,
                Some(Output::Transmit { path, len }) => {
                    let Some(socket) = self.parts.sockets.get_mut(usize::from(path.socket.0)) else { continue };
                    let datagram = self.scratch.get(..len).unwrap_or_default();
                    if socket.send(path.remote, path.local, datagram, len, 0) != Sent::Done {
                        self.parts.counters.add(Count::UdpBufferFull);
                    }
                }
                Some(Output::Tun { len }) => {
                    let packet = self.scratch.get(..len).unwrap_or_default();
                    write_tun(&mut self.parts.tun, &self.parts.counters, &VirtioNetHeader::default(), &[packet]);
                }
                // Without subscribers nobody wants to know.
                Some(Output::Event(event)) => _ = self.parts.events.send(event),
            }
        }
        true
    }

    /// Receives one batch of datagrams from a socket, and hands their packets to the host. Returns whether there may be
    /// another.
    fn receive(&mut self, index: usize) -> bool {
        let Parts { node, clock, tun, sockets, counters, .. } = &mut self.parts;
        let Some(socket) = sockets.get_mut(index) else { return false };
        let left = socket.receive(&mut self.received);
        let now = clock.now();
        let id = SocketId(index as u8);
        let merges = tun.merges();
        let mut sink = |header: &VirtioNetHeader, parts: &[&[u8]]| write_tun(tun, counters, header, parts);
        let mut gather = merges.map(Gather::new);
        for arrival in self.received.arrivals() {
            let path = FourTuple { socket: id, local: arrival.local, remote: arrival.remote };
            for datagram in arrival.bytes.chunks_mut(arrival.stride) {
                if let Some(hairpin) = self.hairpin.take_if(|hairpin| *datagram == hairpin.token) {
                    // Whoever asked may have given up waiting.
                    let _ = hairpin.back.send(());
                    continue;
                }
                let inbound = match node.handle_datagram(now, path, datagram) {
                    Some(Inbound::Packet(inbound)) => inbound,
                    Some(Inbound::Forward { to, datagram }) => {
                        forward(&mut self.forwarded, sockets, counters, to, datagram);
                        continue;
                    }
                    None => continue,
                };
                match &mut gather {
                    Some(gather) => gather.push(inbound.packet, inbound.csum_partial, &mut sink),
                    None => {
                        // The device takes no open checksum, and peers were told so; one that does it all the same
                        // loses nothing by it. What has no checksum to finish goes as it is.
                        if inbound.csum_partial {
                            let _ = finish_checksum(inbound.packet);
                        }
                        sink(&VirtioNetHeader::default(), &[inbound.packet]);
                    }
                }
            }
        }
        if let Some(gather) = &mut gather {
            gather.finish(&mut sink);
        }
        send_forwarded(&mut self.forwarded, sockets, counters);
        left
    }

    /// Reads a bounded number of frames from the TUN into the batch, and sends it whenever it is full and at the end.
    /// Returns whether there may be more frames.
    fn read_tun(&mut self) -> Result<bool, Exit> {
        let mut left = true;
        let mut bytes = 0;
        for _ in 0..TUN_READS {
            match self.parts.tun.try_read(&mut self.frame) {
                Ok(length) if self.take_frame(length) => bytes += length,
                // Blocked: room in the socket is what is waited for.
                Ok(_) => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    left = false;
                    break;
                }
                Err(error) if host::tun::is_gone(&error) => return Err(Exit::TunGone(error.to_string())),
                Err(_) => self.parts.counters.add(Count::TunRead),
            }
            if bytes >= TUN_BYTES {
                break;
            }
        }
        self.flush();
        Ok(left)
    }

    /// Puts the frame into the batch. Returns whether the next one may be read.
    fn take_frame(&mut self, length: usize) -> bool {
        let frame = self.frame.get(..length).unwrap_or_default();
        let parsed = frame.split_first_chunk::<VNET_HEADER>().map(|(header, packet)| TunPacket::parse(header, packet));
        let Some(Ok(packet)) = parsed else {
            self.parts.counters.add(Count::TunMalformed);
            return true;
        };
        let now = self.parts.clock.now();
        if self.parts.node.handle_tun(now, packet, &mut self.batch) != TunOutcome::Full {
            return true;
        }
        if !flush(&mut self.batch, &mut self.blocked, &mut self.parts.sockets) {
            self.held = Some(length);
            return false;
        }
        // An empty batch takes every packet, or the node drops it.
        let _ = self.parts.node.handle_tun(now, packet, &mut self.batch);
        true
    }

    /// Sends the batch, and then takes the frame that waited for it.
    fn flush(&mut self) {
        if flush(&mut self.batch, &mut self.blocked, &mut self.parts.sockets)
            && let Some(length) = self.held.take()
            && self.take_frame(length)
        {
            flush(&mut self.batch, &mut self.blocked, &mut self.parts.sockets);
        }
    }

    fn socket(&self, id: SocketId) -> Option<&Udp> {
        self.parts.sockets.get(usize::from(id.0))
    }
}

/// Sends the rest of the batch. Returns whether it is empty now.
fn flush(batch: &mut Batch<FourTuple>, blocked: &mut Option<usize>, sockets: &mut [Udp]) -> bool {
    let from = blocked.take().unwrap_or(0);
    if let Some(path) = batch.destination()
        && let Some(socket) = sockets.get_mut(usize::from(path.socket.0))
        && let Sent::Blocked(at) = socket.send(path.remote, path.local, batch.bytes(), batch.stride(), from)
    {
        *blocked = Some(at);
        return false;
    }
    batch.clear();
    true
}

/// Puts a datagram of others into the batch that passes them on, which is sent first where it goes elsewhere.
fn forward(
    batch: &mut Batch<FourTuple>,
    sockets: &mut [Udp],
    counters: &RuntimeCounters,
    to: FourTuple,
    datagram: &[u8],
) {
    for _ in 0..2 {
        match batch.reserve(to, datagram.len()) {
            Ok(mut room) => {
                room.copy_from_slice(datagram);
                return room.commit();
            }
            Err(Refused::FlushFirst) => send_forwarded(batch, sockets, counters),
            Err(Refused::Length) => return,
        }
    }
}

/// Sends what is passed on. What the socket has no room for is dropped, as on any full link: who sent it is not held up.
fn send_forwarded(batch: &mut Batch<FourTuple>, sockets: &mut [Udp], counters: &RuntimeCounters) {
    if let Some(path) = batch.destination()
        && let Some(socket) = sockets.get_mut(usize::from(path.socket.0))
        && socket.send(path.remote, path.local, batch.bytes(), batch.stride(), 0) != Sent::Done
    {
        counters.add(Count::UdpBufferFull);
    }
    batch.clear();
}

/// Writes a packet to the TUN. What the TUN does not take is dropped, as on any full or broken link.
fn write_tun(tun: &mut Tun, counters: &RuntimeCounters, header: &VirtioNetHeader, parts: &[&[u8]]) {
    if let Err(error) = tun.try_write(&header.encode(), parts) {
        counters.add(match error.kind() {
            io::ErrorKind::WouldBlock => Count::TunQueueFull,
            _ if host::tun::is_refused(&error) => Count::TunWriteRefused,
            _ => Count::TunWriteOther,
        });
    }
}

fn is_ready(poll: Poll<io::Result<()>>) -> io::Result<bool> {
    match poll {
        Poll::Ready(result) => result.map(|()| true),
        Poll::Pending => Ok(false),
    }
}
