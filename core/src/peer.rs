//! Everything a node holds about one allowed peer.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use crate::config::PeerConfig;
use crate::delivery::Delivery;
use crate::node::signal::Search;
use crate::overlay::Reassembly;
use crate::path::{PathClass, PathSet, PathSlot, PathState, Via};
use crate::rate::Bucket;
use crate::relay::RelayLegs;
use crate::session::handshake::{Initiation, PeerKeys};
use crate::session::{BootId, Sessions};
use crate::time::Instant;
use crate::wire::{CheckResult, NatVerdict, Signal};

/// A receipt follows the first packet that it covers by at most this long; so there are at most 20 a second.
const RECEIPT_DELAY: Duration = Duration::from_millis(50);

/// Lanes of one peer that wait for a receipt; a peer that uses more at once gets the others a little later.
const RECEIPT_LANES: usize = 8;

/// An idle pair behind a NAT says this often that it is there. RFC 4787 REQ-5 lets a NAT forget after two minutes; many
/// forget after 30 s. With the answers and the hourly rekey an idle side stays below one datagram in 25 s.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(28);

/// Every so many keepalives one asks for an answer, so that a peer that restarted is noticed though nobody sends.
const KEEPALIVES_PER_PING: u32 = 12;

/// Data that was sent and stays without receipt on any path for this long makes this side say Hello.
const HELLO_AFTER: Duration = Duration::from_secs(1);

/// After this long without receipt the peer is reported down.
const DOWN_AFTER: Duration = Duration::from_secs(5);

/// A peer counts as connected while its last two-way proof is at most this old.
pub(crate) const RECENT: Duration = Duration::from_secs(30);

/// How long a wish to send counts as demand for a session.
const DEMAND: Duration = Duration::from_secs(10);

/// First interval between Hellos; it doubles.
const HELLO_INTERVAL: Duration = Duration::from_millis(250);

/// Longest interval between Hellos while somebody wants to send.
const HELLO_INTERVAL_DEMAND: Duration = Duration::from_millis(500);

/// Longest interval between Hellos while help is needed to reach another peer, and nobody is there to give it.
const HELLO_INTERVAL_HELPER: Duration = Duration::from_secs(3);

/// For so long a peer counts as needed by others: until they have asked for help again.
const HELPER: Duration = Duration::from_secs(40);

/// Longest interval between Hellos while nobody does.
const HELLO_INTERVAL_IDLE: Duration = Duration::from_secs(30);

/// Packets that wait for a session, and their bytes; the oldest is dropped first.
const QUEUE_PACKETS: usize = 64;
const QUEUE_BYTES: usize = 256 * 1024;

/// A packet that has waited for this long is of no use to anybody.
const QUEUE_LIFETIME: Duration = Duration::from_secs(10);

/// Places to which signaling led that are remembered when it is forbidden.
const MAX_SIGNALED: usize = 64;

/// Pings of the operator that wait for an answer.
pub(crate) const MAX_PINGS: usize = 16;

/// A Ping of the operator that has no answer after this long makes room for another.
const PING_LIFETIME: Duration = Duration::from_secs(10);

/// A keepalive that is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Keepalive {
    /// One that keeps the NAT's binding.
    Silent,
    /// One that also shows whether the peer is there.
    Asking,
}

/// Whether the peer was last reported up or down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Link {
    Down,
    Up,
}

/// An ongoing attempt to agree on new keys.
#[derive(Debug)]
pub(crate) struct Greeting {
    /// Hellos sent so far.
    pub(crate) attempts: u32,
    /// When the last one was sent.
    pub(crate) last: Option<Instant>,
    /// When the next one is due.
    pub(crate) next: Instant,
}

/// A Ping that the operator asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OperatorPing {
    pub(crate) token: u64,
    pub(crate) wire_token: u64,
    pub(crate) sent: Instant,
    pub(crate) path: Via,
    pub(crate) class: PathClass,
}

/// What a peer said of its side when it signaled.
#[derive(Clone, Debug)]
pub(crate) struct RemoteView {
    /// The NAT in front of it.
    pub(crate) nat: NatVerdict,
    /// What came of trying our addresses.
    pub(crate) results: heapless::Vec<CheckResult, { Signal::MAX_ITEMS }>,
    /// When it said so.
    pub(crate) at: Instant,
}

/// Which lanes received something that no receipt has covered yet.
#[derive(Debug, Default)]
pub(crate) struct Receipts {
    due: Option<Instant>,
    lanes: heapless::Vec<u8, RECEIPT_LANES>,
    last: heapless::Vec<u8, RECEIPT_LANES>,
}

impl Receipts {
    /// Notes data on a lane. Returns whether a deadline was set.
    pub(crate) fn note(&mut self, now: Instant, lane: u8) -> bool {
        if !self.lanes.contains(&lane) {
            // A full list leaves the lane to the next packet that comes on it.
            let _ = self.lanes.push(lane);
        }
        let first = self.due.is_none();
        if first {
            self.due = Some(now + RECEIPT_DELAY);
        }
        first
    }

    /// Whether it is time to report; the lanes are then taken by [`Receipts::take`].
    pub(crate) fn is_due(&mut self, now: Instant) -> bool {
        self.due.take_if(|due| *due <= now).is_some()
    }

    /// The lanes to report, or those that were reported last once more.
    pub(crate) fn take(&mut self, again: bool) -> heapless::Vec<u8, RECEIPT_LANES> {
        if !again {
            self.last = core::mem::take(&mut self.lanes);
        }
        self.last.clone()
    }
}

/// Packets that wait for a session.
#[derive(Debug, Default)]
pub(crate) struct PacketQueue {
    packets: VecDeque<(Instant, Vec<u8>)>,
    bytes: usize,
}

impl PacketQueue {
    /// Adds a packet, dropping the oldest ones for it. Returns how many were dropped.
    pub(crate) fn push(&mut self, now: Instant, packet: Vec<u8>) -> usize {
        self.bytes += packet.len();
        self.packets.push_back((now, packet));
        let mut dropped = 0;
        while self.packets.len() > QUEUE_PACKETS || (self.bytes > QUEUE_BYTES && self.packets.len() > 1) {
            self.pop();
            dropped += 1;
        }
        dropped
    }

    /// Takes the oldest.
    pub(crate) fn pop(&mut self) -> Option<Vec<u8>> {
        let (_, packet) = self.packets.pop_front()?;
        self.bytes -= packet.len();
        Some(packet)
    }

    /// Drops what has waited too long. Returns how many packets that were.
    pub(crate) fn expire(&mut self, now: Instant) -> usize {
        let before = self.packets.len();
        while self.packets.front().is_some_and(|(since, _)| now.since(*since) >= QUEUE_LIFETIME) {
            self.pop();
        }
        before - self.packets.len()
    }

    /// Drops everything. Returns how many packets that were.
    pub(crate) fn clear(&mut self) -> usize {
        let dropped = self.packets.len();
        *self = PacketQueue::default();
        dropped
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.packets.len()
    }
}

/// One allowed peer.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) config: PeerConfig,
    pub(crate) keys: PeerKeys,
    pub(crate) sessions: Sessions,
    pub(crate) paths: PathSet,
    pub(crate) queue: PacketQueue,
    pub(crate) receipts: Receipts,
    pub(crate) link: Link,
    /// The handshake that this node began, until its HelloAck comes.
    pub(crate) initiation: Option<Box<Initiation>>,
    /// Set while this node seeks new keys.
    pub(crate) greeting: Option<Greeting>,
    /// The boot id of the peer's present life, as its last confirmed session states it.
    pub(crate) boot: Option<BootId>,
    /// The stamp of the last Hello of the peer that led to a confirmed session.
    pub(crate) stamp: Option<u64>,
    /// The boot id and the stamp of the latest of those Hellos in one life of the peer. Another life may have a worse clock.
    pub(crate) life: Option<(BootId, u64)>,
    /// Where a Hello of the peer last came from, so that ours finds it there.
    pub(crate) heard_at: Option<Via>,
    /// The peer said goodbye and has not been heard of since.
    pub(crate) departed: bool,
    /// The session that is being confirmed is with a new life of the peer.
    pub(crate) restarted: bool,
    /// At most [`MAX_PINGS`].
    pub(crate) pings: Vec<OperatorPing>,
    /// This node's address as the peer sees it.
    pub(crate) observed: Option<SocketAddr>,
    pub(crate) last_sent: Instant,
    pub(crate) last_received: Option<Instant>,
    pub(crate) tx_bytes: u64,
    pub(crate) rx_bytes: u64,
    /// Whether a NAT may be between this node and the peer.
    pub(crate) behind_nat: bool,
    /// Descriptions of waiting packets that are in the outbox.
    pub(crate) flushing: usize,
    /// The session that the paths' counters are of.
    lanes_of: Option<u32>,
    /// What must arrive, once there was something.
    pub(crate) delivery: Option<Box<Delivery>>,
    /// The relays between, while there is use for them.
    pub(crate) legs: Option<Box<RelayLegs>>,
    /// What is done to reach the peer directly, once that was wanted.
    pub(crate) search: Option<Box<Search>>,
    /// Where signaling had led to when it was forbidden, at most [`MAX_SIGNALED`]. As long as it is, no path begins there but
    /// by a Hello, which needs no signaling.
    pub(crate) signaled: Vec<SocketAddr>,
    /// Packets of which parts have come.
    pub(crate) reassembly: Option<Box<Reassembly>>,
    /// Identification of the next packet that is cut.
    pub(crate) next_fragment: u32,
    /// How many Signals of the peer are carried.
    pub(crate) carried: Bucket,
    /// How many places from where its relayed envelopes came are asked whether it is there.
    pub(crate) strays: Bucket,
    /// How many Signals it brings, its own and those of others.
    pub(crate) brought: Bucket,
    wanted_until: Instant,
    helper_until: Instant,
    keepalives: u32,
}

impl Greeting {
    /// A search that begins now.
    pub(crate) fn starting(now: Instant) -> Greeting {
        Greeting { attempts: 0, last: None, next: now }
    }
}

impl Peer {
    pub(crate) fn new(config: PeerConfig, keys: PeerKeys, now: Instant) -> Peer {
        Peer {
            config,
            keys,
            sessions: Sessions::default(),
            paths: PathSet::default(),
            queue: PacketQueue::default(),
            receipts: Receipts::default(),
            link: Link::Down,
            initiation: None,
            greeting: None,
            boot: None,
            stamp: None,
            life: None,
            heard_at: None,
            departed: false,
            restarted: false,
            pings: Vec::new(),
            observed: None,
            last_sent: now,
            last_received: None,
            tx_bytes: 0,
            rx_bytes: 0,
            behind_nat: true,
            flushing: 0,
            lanes_of: None,
            delivery: None,
            legs: None,
            search: None,
            signaled: Vec::new(),
            reassembly: None,
            next_fragment: 0,
            carried: Bucket::default(),
            strays: Bucket::default(),
            brought: Bucket::default(),
            wanted_until: Instant::ORIGIN,
            helper_until: Instant::ORIGIN,
            keepalives: 0,
        }
    }

    /// Begins to seek new keys, unless that is under way.
    pub(crate) fn greet(&mut self, now: Instant) {
        self.greeting.get_or_insert(Greeting::starting(now));
    }

    /// Begins anew to seek keys, at once: something changed that makes success likelier.
    pub(crate) fn greet_now(&mut self, now: Instant) {
        self.greeting = Some(Greeting::starting(now));
    }

    /// Begins to seek new keys, but not before the longest interval has passed: the peer wants to be alone.
    pub(crate) fn greet_later(&mut self, now: Instant) {
        self.greeting = Some(Greeting { attempts: 10, last: None, next: now + HELLO_INTERVAL_IDLE });
    }

    /// Somebody wants to send to this peer, and there is no usable session or no way to it: Hellos follow more closely, and
    /// relays are asked. Returns whether a deadline changed.
    pub(crate) fn note_demand(&mut self, now: Instant) -> bool {
        let fresh = self.wanted_until < now + DEMAND / 2;
        if fresh {
            self.wanted_until = now + DEMAND;
        }
        let Some(greeting) = self.greeting.as_mut() else {
            self.greet(now);
            return true;
        };
        let soon = greeting.last.map_or(now, |last| last + HELLO_INTERVAL_DEMAND);
        let changed = greeting.next > soon;
        greeting.next = greeting.next.min(soon);
        changed
    }

    /// Another peer cannot be reached without help, which this one may give: Hellos follow more closely.
    pub(crate) fn note_helper_wanted(&mut self, now: Instant) {
        self.helper_until = now + HELPER;
        if let Some(greeting) = self.greeting.as_mut() {
            let soon = greeting.last.map_or(now, |last| last + HELLO_INTERVAL_HELPER);
            greeting.next = greeting.next.min(soon.max(now));
        }
    }

    /// How long after the `attempts`-th Hello the next one follows.
    pub(crate) fn hello_interval(&self, now: Instant, attempts: u32) -> Duration {
        let used = self.paths.last_data().is_some_and(|last| now.since(last) < DEMAND);
        let wanted = used || now < self.wanted_until;
        let longest = match wanted {
            true => HELLO_INTERVAL_DEMAND,
            false if now < self.helper_until => HELLO_INTERVAL_HELPER,
            false => HELLO_INTERVAL_IDLE,
        };
        (HELLO_INTERVAL * (1 << attempts.min(10))).min(longest)
    }

    /// Whether somebody sends to the peer, or it to us, or did a moment ago.
    pub(crate) fn is_in_use(&self, now: Instant) -> bool {
        self.paths.is_active(now) || now < self.wanted_until
    }

    /// Whether there is a session that sends.
    pub(crate) fn has_session(&self) -> bool {
        self.sessions.current.is_some()
    }

    /// Whether the two can talk as far as is known: there are keys that may be used, and a path that works.
    pub(crate) fn is_reached(&self, now: Instant) -> bool {
        let works = self.paths.preferred().is_some_and(|(_, path)| path.state == PathState::Usable);
        works && self.sessions.has_sender(now)
    }

    /// The same, and nobody else is between them.
    pub(crate) fn is_reached_directly(&self, now: Instant) -> bool {
        self.paths.is_direct() && self.sessions.has_sender(now)
    }

    /// Notes that an envelope was sent, for the keepalive.
    pub(crate) fn note_sent(&mut self, now: Instant) {
        self.last_sent = now;
    }

    /// When a keepalive is due, if one is needed. Traffic only moves it, so the hot path leaves the timers alone.
    fn keepalive_at(&self) -> Instant {
        // While new keys are sought, Hellos go the same way.
        let needed = self.behind_nat && self.sessions.current.is_some() && self.greeting.is_none();
        if needed { self.last_sent + KEEPALIVE_INTERVAL } else { Instant::FAR_FUTURE }
    }

    /// Whether a keepalive is due, and if so whether it should be one that asks for an answer.
    pub(crate) fn take_keepalive(&mut self, now: Instant) -> Option<Keepalive> {
        if self.keepalive_at() > now {
            return None;
        }
        self.last_sent = now;
        self.keepalives = self.keepalives.wrapping_add(1);
        let asks = self.keepalives.is_multiple_of(KEEPALIVES_PER_PING);
        Some(if asks { Keepalive::Asking } else { Keepalive::Silent })
    }

    /// Forgets the lane counters of the paths when another session has become the current one.
    pub(crate) fn follow_session(&mut self) {
        let current = self.sessions.current.as_ref().map(|session| session.index());
        if self.lanes_of != current {
            self.lanes_of = current;
            self.paths.on_new_session();
        }
    }

    /// How long data may stay without receipt before the session is in doubt: longer than a path takes to answer when it is
    /// asked, and where there is another one, than both sides take, one after the other, to move there.
    fn doubt_after(&self) -> Duration {
        let rounds = if self.paths.standby().is_some() { 3 } else { 2 };
        HELLO_AFTER.max(self.paths.patience() * rounds)
    }

    /// Whether data has waited so long for a receipt, or probes went so long unanswered, that the session itself is in doubt.
    pub(crate) fn session_in_doubt(&self, now: Instant) -> bool {
        let unreceipted = self.paths.unproven_since().is_some_and(|since| since + self.doubt_after() <= now);
        unreceipted || self.paths.is_given_up()
    }

    /// Whether the peer has been silent for so long that it is to be reported down.
    pub(crate) fn is_lost(&self, now: Instant) -> bool {
        self.link == Link::Up && self.silent_since().is_some_and(|since| since + DOWN_AFTER <= now)
    }

    /// Since when the preferred path has not answered what asked for an answer.
    fn silent_since(&self) -> Option<Instant> {
        self.paths.unproven_since().or(self.paths.suspect_since())
    }

    /// Whether the preferred path works as far as is known. There may well be something unreceipted: where packets follow
    /// each other closely there always is.
    pub(crate) fn is_answering(&self, now: Instant) -> bool {
        let usable = self.paths.preferred().is_some_and(|(_, path)| path.state == PathState::Usable);
        usable && self.paths.unproven_since().is_none_or(|since| now < since + DOWN_AFTER)
    }

    /// Makes room for one more Ping of the operator.
    pub(crate) fn expire_pings(&mut self, now: Instant) {
        self.pings.retain(|ping| now.since(ping.sent) < PING_LIFETIME);
    }

    /// The path that control goes by when nothing asks for a certain one.
    pub(crate) fn control_path(&self) -> Option<PathSlot> {
        self.paths.preferred_slot().or_else(|| self.paths.iter().next().map(|(slot, _)| slot))
    }

    /// Another path for control that went by `slot`, where that is in doubt.
    pub(crate) fn second_control_path(&self, slot: PathSlot) -> Option<PathSlot> {
        let path = self.paths.get(slot)?;
        let in_doubt = matches!(path.state, PathState::Suspect | PathState::Lost);
        let preferred = self.paths.preferred_slot().filter(|preferred| *preferred != slot);
        preferred.or_else(|| self.paths.standby().map(|(slot, _)| slot)).filter(|_| in_doubt)
    }

    /// Remembers where signaling led.
    pub(crate) fn note_signaled(&mut self, places: impl Iterator<Item = SocketAddr>) {
        for place in places.filter(|place| !self.signaled.contains(place)).collect::<Vec<_>>() {
            if self.signaled.len() == MAX_SIGNALED {
                self.signaled.remove(0);
            }
            self.signaled.push(place);
        }
    }

    /// Whether the peer goes on where signaling had led before it was forbidden. What this node was told beforehand is no
    /// such place.
    pub(crate) fn goes_on_by_signaling(&self, via: &Via) -> bool {
        let Some(remote) = via.direct().map(|at| at.remote).filter(|remote| self.signaled.contains(remote)) else {
            return false;
        };
        let is_known = self.config.endpoints.contains(&remote) || self.config.last_known.contains(&remote);
        !is_known && self.paths.find(via).is_none()
    }

    /// How a path that begins now came to be.
    pub(crate) fn class_of(&self, via: &Via) -> PathClass {
        match via {
            Via::Relay(_) => PathClass::Relay,
            Via::Direct(at) if self.config.endpoints.contains(&at.remote) => PathClass::Direct,
            Via::Direct(at) if self.config.last_known.contains(&at.remote) => PathClass::Direct,
            Via::Direct(at) if self.signaled.contains(&at.remote) => PathClass::SignalingThenDirect,
            // Once the two have told each other where they are, what comes from a new address comes because of that.
            Via::Direct(_) if self.search.as_ref().is_some_and(|search| search.remote.is_some()) => {
                PathClass::SignalingThenDirect
            }
            Via::Direct(_) => PathClass::Direct,
        }
    }

    /// The next time that this peer wants [`Node::handle_timeout`](crate::Node::handle_timeout), and what for.
    pub(crate) fn next_deadline(&self) -> (Instant, &'static str) {
        let doubt = match self.paths.unproven_since() {
            Some(since) if self.greeting.is_none() => since + self.doubt_after(),
            _ => Instant::FAR_FUTURE,
        };
        let loss =
            self.silent_since().filter(|_| self.link == Link::Up).map_or(Instant::FAR_FUTURE, |s| s + DOWN_AFTER);
        let deadlines = [
            (self.greeting.as_ref().map_or(Instant::FAR_FUTURE, |g| g.next), "hello"),
            (self.sessions.next_deadline(), "session confirmation"),
            (self.paths.next_deadline(), "path probe"),
            (self.receipts.due.unwrap_or(Instant::FAR_FUTURE), "path receipt"),
            (doubt, "unreceipted data"),
            (loss, "silence"),
            (self.keepalive_at(), "keepalive"),
            (self.delivery.as_ref().map_or(Instant::FAR_FUTURE, |d| d.next_deadline(&self.paths)), "delivery"),
            (self.legs.as_ref().map_or(Instant::FAR_FUTURE, |legs| legs.next_deadline()), "relay"),
            (
                self.reassembly.as_ref().and_then(|held| held.next_deadline()).unwrap_or(Instant::FAR_FUTURE),
                "fragments",
            ),
            (self.search.as_ref().map_or(Instant::FAR_FUTURE, |search| search.next_deadline()), "search"),
        ];
        deadlines.into_iter().min().expect("the list is not empty")
    }
}
