//! What must arrive at one peer, over whatever paths there are: the queue of messages, the packet numbers of each path in both
//! directions, and what is due.

use alloc::vec::Vec;

use crate::overlay::PeerIndex;
use crate::path::recovery::{Blocked, Received, Recovery};
use crate::path::{MAX_PATHS, PathSet, PathSlot};
use crate::reliable::{Refused, Reliable, Token};
use crate::session::PENDING_LIFETIME;
use crate::time::Instant;
use crate::wire::{Ack, Message, MessageWriter, RelayRole};

/// What a message is about. A newer one about the same replaces an older one that has not arrived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Topic {
    /// This node's own candidates, for the peer itself.
    Signal,
    /// This node's own, to be carried to another peer.
    SignalTo(PeerIndex),
    /// Another peer's, carried by this node.
    SignalOf(PeerIndex),
    /// The channel to or from another peer, and which side of it this node speaks for.
    Relay(RelayRole, PeerIndex),
}

impl Topic {
    /// Whether it concerns a third peer.
    fn concerns(&self, peer: PeerIndex) -> bool {
        match *self {
            Topic::Signal => false,
            Topic::SignalTo(third) | Topic::SignalOf(third) | Topic::Relay(_, third) => third == peer,
        }
    }
}

/// A peer acknowledged a packet that was never sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FalseAck;

/// The packets of one path of the peer.
#[derive(Debug, Default)]
struct Incoming {
    received: Received,
    /// Their acknowledgement is in the outbox. Where it does not get out of there, the next packet asks for another.
    acking: bool,
}

impl Incoming {
    fn next_deadline(&self) -> Instant {
        if self.acking { Instant::FAR_FUTURE } else { self.received.next_deadline() }
    }
}

/// Messages in the queue up to which those are added that can be made again from what this node knows.
const MAX_DERIVED: usize = crate::reliable::MAX_MESSAGES * 3 / 4;

/// See the [module documentation](self).
#[derive(Debug, Default)]
pub(crate) struct Delivery {
    queue: Reliable<Topic>,
    /// By this node's path slot; at most [`MAX_PATHS`].
    sent: Vec<Recovery<Token>>,
    /// By the peer's number of its path; at most [`MAX_PATHS`].
    received: Vec<Incoming>,
    /// The pacer lets nothing out before.
    blocked_until: Option<Instant>,
    /// A description of a packet is in the outbox.
    pub(crate) flushing: bool,
    /// The latest statements of the peer, so that an older one that they overtook is known; of one topic there are several
    /// where sessions crossed. At most [`MAX_HEARD`], the one heard last at the end.
    heard: Vec<Heard>,
}

/// Statements whose order is watched. The peer has [`crate::reliable::MAX_MESSAGES`] under way at most; what was overtaken by
/// more than that is taken in late, and put right when the channel is found silent.
const MAX_HEARD: usize = crate::reliable::MAX_MESSAGES;

/// The latest statement about something under one session.
#[derive(Clone, Copy, Debug)]
struct Heard {
    topic: Topic,
    order: Order,
}

/// Which of two envelopes was sealed later, where that can be told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Order {
    /// The session, by the index that the peer names it by.
    pub(crate) session: u32,
    /// When its keys were agreed on.
    pub(crate) agreed: Instant,
    /// The number on the control lane under them.
    pub(crate) number: u64,
}

impl Order {
    /// Whether `other` was sealed later for certain. Between sessions that crossed the peer goes to and fro until both sides
    /// have seen which one wins, and that may be the one that was agreed on first. All that can cross is agreed on while the
    /// other one is unconfirmed.
    fn is_before(&self, other: &Order) -> bool {
        if self.session == other.session {
            return self.number < other.number;
        }
        self.agreed + PENDING_LIFETIME < other.agreed
    }
}

impl Delivery {
    /// Adds a message, encoded whole.
    pub(crate) fn push(&mut self, topic: Topic, message: &Message<'_>) -> Result<(), Refused> {
        let mut bytes = alloc::vec![0; message.encoded_len()];
        let mut writer = MessageWriter::new(&mut bytes);
        writer.push(message).expect("encoded_len is the length of its encoding");
        self.queue.push(topic, bytes.into())
    }

    /// Whether there is room for a message that can be made again later. Those leave some for what cannot.
    pub(crate) fn has_room(&self) -> bool {
        self.queue.len() < MAX_DERIVED
    }

    /// Drops what concerns a peer that is no more.
    pub(crate) fn forget(&mut self, peer: PeerIndex) {
        self.queue.cancel_all(|topic| topic.concerns(peer));
        self.heard.retain(|heard| !heard.topic.concerns(peer));
    }

    /// Drops this node's own Signals.
    pub(crate) fn forget_signals(&mut self) {
        self.queue.cancel_all(|topic| matches!(topic, Topic::Signal | Topic::SignalTo(_)));
    }

    /// Whether a statement of the peer is its newest about `topic`: packets overtake each other, and what replaced another may
    /// arrive before it. Any packet carries the newest statement that there was when it was sealed, so an older one is void.
    /// Where it cannot be told which of two is older, the one that arrives later stands: to ignore the peer's last word is
    /// worse than to take in one that it has changed since, because nobody would repeat it.
    pub(crate) fn is_newest(&mut self, topic: Topic, order: Order) -> bool {
        if self.heard.iter().any(|heard| heard.topic == topic && order.is_before(&heard.order)) {
            return false;
        }
        // What remains is of sessions that crossed this one.
        let is_replaced = |heard: &Order| heard.session == order.session || heard.is_before(&order);
        self.heard.retain(|heard| heard.topic != topic || !is_replaced(&heard.order));
        if self.heard.len() >= MAX_HEARD {
            self.heard.remove(0);
        }
        self.heard.push(Heard { topic, order });
        true
    }

    /// Whether a packet should be put into the outbox.
    pub(crate) fn wants_packet(&self) -> bool {
        !self.flushing && self.queue.has_queued() && self.blocked_until.is_none()
    }

    /// Writes a packet of messages for the path `slot` into `payload`. Returns its length, or `None` where nothing may be
    /// sent now. `overhead` is what the datagram has beside the payload. A `probe` is sent whatever congestion says.
    pub(crate) fn write_packet(
        &mut self,
        now: Instant,
        paths: &PathSet,
        slot: PathSlot,
        overhead: usize,
        probe: bool,
        payload: &mut [u8],
    ) -> Option<usize> {
        self.blocked_until = None;
        let rtt = &paths.get(slot)?.rtt;
        let recovery = at(&mut self.sent, slot.0)?;
        if !probe && let Err(blocked) = recovery.may_send(now, payload.len() + overhead, rtt) {
            if let Blocked::Until(until) = blocked {
                self.blocked_until = Some(until);
            }
            return None;
        }
        let mut writer = MessageWriter::new(payload);
        writer.push(&Message::Packet { path: slot.0, number: recovery.next_number() }).ok()?;
        let header = writer.len();
        let (length, items) = self.queue.take_for_packet(payload.get_mut(header..)?);
        if items.is_empty() && !probe {
            return None;
        }
        recovery.on_sent(now, header + length + overhead, items, rtt)?;
        Some(header + length)
    }

    /// Notes a packet of the peer. Returns whether what it carries is to be handled: it did not arrive before.
    pub(crate) fn on_packet(&mut self, now: Instant, path: u8, number: u64) -> bool {
        let Some(incoming) = at(&mut self.received, path) else { return false };
        incoming.acking = false;
        incoming.received.on_packet(now, number)
    }

    /// Takes in an acknowledgement. Returns whether it shows that a path works.
    pub(crate) fn on_ack(&mut self, now: Instant, ack: &Ack<'_>, paths: &mut PathSet) -> Result<bool, FalseAck> {
        let Some(recovery) = self.sent.get_mut(usize::from(ack.path())) else { return Err(FalseAck) };
        let mut unknown = crate::path::RttEstimator::default();
        let rtt = paths.rtt_mut(PathSlot(ack.path())).unwrap_or(&mut unknown);
        let delay = core::time::Duration::from_micros(ack.delay_us());
        let outcome = recovery.on_ack(now, ack.ranges(), delay, rtt).map_err(|_| FalseAck)?;
        for token in outcome.acked {
            self.queue.on_acked(token);
        }
        for token in outcome.lost {
            self.queue.on_lost(token);
        }
        Ok(outcome.rtt.is_some())
    }

    /// The numbers of the peer's paths whose packets are to be acknowledged now. Says so once for each.
    pub(crate) fn due_acks(&mut self, now: Instant) -> heapless::Vec<u8, MAX_PATHS> {
        let due = (0u8..).zip(&mut self.received).filter(|(_, incoming)| incoming.next_deadline() <= now);
        due.map(|(path, incoming)| {
            incoming.acking = true;
            path
        })
        .collect()
    }

    /// What has arrived by a path of the peer, for an acknowledgement that leaves now.
    pub(crate) fn take_ack(&mut self, now: Instant, path: u8) -> Option<crate::wire::AckBody> {
        let Incoming { received, acking } = self.received.get_mut(usize::from(path))?;
        *acking = false;
        let (delay, ranges) = received.pending_ack(now)?;
        let delay_us = u64::try_from(delay.as_micros()).unwrap_or(u64::MAX);
        let body = crate::wire::AckBody::new(path, delay_us, ranges);
        received.on_ack_sent();
        body
    }

    /// Does what is due: lost messages wait anew. Returns the paths on which a probe is to be sent at once.
    pub(crate) fn on_timeout(&mut self, now: Instant, paths: &PathSet) -> heapless::Vec<PathSlot, MAX_PATHS> {
        self.blocked_until.take_if(|until| *until <= now);
        let mut probes = heapless::Vec::new();
        let unknown = crate::path::RttEstimator::default();
        for (slot, recovery) in (0u8..).map(PathSlot).zip(&mut self.sent) {
            let rtt = paths.get(slot).map_or(&unknown, |path| &path.rtt);
            if recovery.next_deadline(rtt) > now {
                continue;
            }
            let outcome = recovery.on_timeout(now, rtt);
            for token in outcome.lost {
                self.queue.on_lost(token);
            }
            if let Some(items) = outcome.probe {
                for token in items {
                    self.queue.on_doubt(token);
                }
                let _ = probes.push(slot); // There are no more slots than that.
            }
        }
        probes
    }

    /// A path was shown to work: what was sent on it and not acknowledged is probed without delay.
    pub(crate) fn on_proven(&mut self, slot: PathSlot) {
        if let Some(recovery) = self.sent.get_mut(usize::from(slot.0)) {
            recovery.on_alive();
        }
    }

    /// What is in flight by other paths than `preferred` goes by that one.
    pub(crate) fn on_switch(&mut self, preferred: PathSlot) {
        for (slot, recovery) in (0u8..).zip(&mut self.sent) {
            if slot != preferred.0 {
                recovery.abandon().into_iter().for_each(|token| self.queue.on_lost(token));
            }
        }
        self.blocked_until = None;
    }

    /// The peer began a new life: it knows nothing of what it acknowledged, and its packet numbers begin anew.
    pub(crate) fn on_restart(&mut self) {
        for recovery in &mut self.sent {
            recovery.abandon();
        }
        self.received.clear();
        self.queue.requeue_all();
        self.blocked_until = None;
    }

    /// When it wants to be looked at, where there is a path to send by.
    pub(crate) fn next_deadline(&self, paths: &PathSet) -> Instant {
        let unknown = crate::path::RttEstimator::default();
        let sent = (0u8..)
            .map(PathSlot)
            .zip(&self.sent)
            .map(|(slot, recovery)| recovery.next_deadline(paths.get(slot).map_or(&unknown, |path| &path.rtt)));
        let received = self.received.iter().map(Incoming::next_deadline);
        let blocked = self.blocked_until.into_iter();
        sent.chain(received).chain(blocked).min().unwrap_or(Instant::FAR_FUTURE)
    }
}

/// The entry of a path, made when it is first needed.
fn at<T: Default>(list: &mut Vec<T>, path: u8) -> Option<&mut T> {
    let index = usize::from(path);
    if index >= MAX_PATHS {
        return None;
    }
    if list.len() <= index {
        list.resize_with(index + 1, T::default);
    }
    list.get_mut(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A session for each second.
    fn order(agreed: u32, number: u64) -> Order {
        Order { session: agreed, agreed: Instant::from_millis(u64::from(agreed) * 1_000), number }
    }

    #[test]
    fn an_older_statement_that_was_overtaken_is_void() {
        let (mut delivery, about) = (Delivery::default(), |peer| Topic::Relay(RelayRole::Offer, PeerIndex(peer)));
        assert!(delivery.is_newest(about(1), order(7, 20)));
        assert!(!delivery.is_newest(about(1), order(7, 19)));
        assert!(delivery.is_newest(about(1), order(7, 20)), "two of one envelope are in order");
        assert!(delivery.is_newest(about(2), order(7, 19)), "of something else");
        assert!(delivery.is_newest(about(1), order(127, 3)), "other keys begin anew");
        assert!(!delivery.is_newest(about(1), order(7, 30)), "the keys before were used before");
        delivery.forget(PeerIndex(1));
        assert!(delivery.is_newest(about(1), order(127, 2)), "the index is another peer's");
        for peer in 0..1_000 {
            assert!(delivery.is_newest(about(peer + 10), order(127, 100)));
        }
        assert_eq!(delivery.heard.len(), MAX_HEARD);
    }

    #[test]
    fn sessions_that_crossed_have_no_order() {
        let (mut delivery, topic) = (Delivery::default(), Topic::Relay(RelayRole::Offer, PeerIndex(1)));
        assert!(delivery.is_newest(topic, order(8, 4)));
        assert!(delivery.is_newest(topic, order(7, 10)), "the session that was agreed on first may have won");
        assert!(delivery.is_newest(topic, order(8, 5)), "the peer goes to and fro");
        assert!(!delivery.is_newest(topic, order(7, 9)), "what was overtaken under its own keys is void still");
        assert!(!delivery.is_newest(topic, order(8, 4)));
        let same_time = Order { session: 9, ..order(8, 1) };
        assert!(delivery.is_newest(topic, same_time), "numbers under other keys say nothing");
        assert_eq!(delivery.heard.len(), 3);
        assert!(delivery.is_newest(topic, order(127, 1)));
        assert_eq!(delivery.heard.len(), 1, "all that crossed is long over");
    }
}
