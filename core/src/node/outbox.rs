//! What waits to be sent: short descriptions, turned into bytes only when the caller polls.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use core::net::SocketAddr;

use crate::event::Event;
use crate::overlay::PeerIndex;
use crate::path::{FourTuple, PathSlot, Via};
use crate::time::Instant;
use crate::wire::CloseReason;

/// Descriptions that wait at once; a new one beyond that is refused and counted.
const CAPACITY: usize = 4096;

/// Packets for the host and copies and fragments of packets that wait at once; a new one beyond that is refused and counted.
/// They wait behind everything else, so that no amount of them holds up what keeps sessions and paths alive.
const BULK: usize = 1024;

/// Events that wait at once; the oldest gives way.
const EVENTS: usize = 1024;

/// Room that steady traffic does not outgrow, so that it allocates nothing. What a busier time took beyond it is given back
/// as soon as a queue is empty.
const USUAL: usize = 256;
const USUAL_EVENTS: usize = 64;

/// A datagram to build and send.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// A cookie for the Hello whose MAC is `hello_mac`.
    Cookie { peer: Option<PeerIndex>, path: Via, index: u32, hello_mac: [u8; 16] },
    /// The Hello of the handshake that this node began with a peer.
    Hello { peer: PeerIndex, path: Via },
    /// The stored answer of a pending session.
    HelloAck { peer: PeerIndex, index: u32, path: Via },
    /// Proof to the peer that the session `index` is in use here.
    HelloFinish { peer: PeerIndex, index: u32 },
    /// Control messages under the current session.
    Control { peer: PeerIndex, slot: PathSlot, message: Control },
    /// Messages that must arrive, as many as one packet takes. A probe goes by a certain path, and even when nothing waits.
    Reliable { peer: PeerIndex, probe: Option<PathSlot> },
    /// Is the peer at this address?
    Check { peer: PeerIndex, via: FourTuple, token: u64 },
    /// A packet for the host.
    Host { packet: Box<[u8]> },
    /// A datagram that is made already.
    Ready { to: FourTuple, datagram: Box<[u8]> },
    /// The oldest packet that waited for a session.
    Packet { peer: PeerIndex },
}

/// The control messages of one envelope.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Control {
    /// Nothing: it confirms keys and keeps NAT bindings.
    Keepalive,
    /// Is this path alive?
    Ping { token: u64 },
    /// The same in an envelope whose datagram has `size` bytes: does the path carry that?
    PaddedPing { token: u64, size: u16 },
    /// These packets of your path have arrived.
    Ack { path: u8 },
    /// Yes, and this is where your Ping came from.
    Pong { token: u64, path: u8, arrived: Instant, observed: SocketAddr },
    /// What has arrived on the lanes that wait for a receipt, or those of the last one once more.
    Receipt { again: bool },
    /// Goodbye.
    Close { reason: CloseReason },
}

/// The two queues behind [`Node::poll_output`](crate::Node::poll_output).
#[derive(Debug)]
pub(crate) struct Outbox {
    sends: VecDeque<Outgoing>,
    bulk: VecDeque<Outgoing>,
    events: VecDeque<Event>,
}

impl Outbox {
    pub(crate) fn new() -> Outbox {
        Outbox {
            sends: VecDeque::with_capacity(USUAL),
            bulk: VecDeque::new(),
            events: VecDeque::with_capacity(USUAL_EVENTS),
        }
    }

    /// Queues a datagram. Returns false where the queue is full.
    #[must_use]
    pub(crate) fn push(&mut self, send: Outgoing) -> bool {
        let (queue, capacity) = match send {
            Outgoing::Ready { .. } | Outgoing::Host { .. } => (&mut self.bulk, BULK),
            _ => (&mut self.sends, CAPACITY),
        };
        let room = queue.len() < capacity;
        if room {
            queue.push_back(send);
        }
        room
    }

    pub(crate) fn pop(&mut self) -> Option<Outgoing> {
        take_first(&mut self.sends, USUAL).or_else(|| take_first(&mut self.bulk, USUAL))
    }

    /// Takes out what is for a peer that is no more: its index will be another's. What is made already goes.
    pub(crate) fn forget(&mut self, gone: PeerIndex) {
        self.sends.retain(|send| match send {
            Outgoing::Cookie { .. } | Outgoing::Ready { .. } | Outgoing::Host { .. } => true,
            Outgoing::Hello { peer, .. }
            | Outgoing::HelloAck { peer, .. }
            | Outgoing::HelloFinish { peer, .. }
            | Outgoing::Control { peer, .. }
            | Outgoing::Reliable { peer, .. }
            | Outgoing::Check { peer, .. }
            | Outgoing::Packet { peer } => *peer != gone,
        });
    }

    /// Takes out all that was to be sent.
    pub(crate) fn clear_sends(&mut self) {
        self.sends.clear();
        self.bulk.clear();
    }

    pub(crate) fn report(&mut self, event: Event) {
        if self.events.len() == EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    pub(crate) fn pop_event(&mut self) -> Option<Event> {
        take_first(&mut self.events, USUAL_EVENTS)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.sends.is_empty() && self.bulk.is_empty() && self.events.is_empty()
    }
}

/// The first of a queue. One that is empty then keeps room for `usual` ones.
fn take_first<T>(queue: &mut VecDeque<T>, usual: usize) -> Option<T> {
    let first = queue.pop_front();
    if queue.is_empty() && queue.capacity() > usual {
        queue.shrink_to(usual);
    }
    first
}
