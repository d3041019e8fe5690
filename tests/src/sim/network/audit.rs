//! What an observer of the wire holds nodes to, whatever they believe of themselves.
//!
//! It knows what the nodes do not: who sent a datagram, where it arrived, and in whose life. Where it cannot know, it takes
//! the node's word.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use vine_core::Instant;
use vine_core::session::{REFUSE_AFTER, REKEY_AFTER, REKEY_GRACE};
use vine_core::wire::{EnvelopeType, HEADER_LEN, Header, Lane};

/// A host, and which of its lives.
type Life = (usize, u32);

/// The side that answered waits this much longer before it seeks new keys, and an odd caller may hold its clock still.
const REKEY_SLACK: Duration = Duration::from_secs(20);

/// Wall clocks of two lives are told apart where they differ by this much.
const CLOCK_SLACK_MS: i64 = 5_000;

/// A Hello: who said it, when by the wall clock of its sender, and after how many others.
#[derive(Clone, Copy, Debug)]
struct Said {
    by: Life,
    wall_ms: i64,
    order: u64,
}

/// Everything that the rules need to remember.
#[derive(Debug, Default)]
pub struct Audit {
    /// By host: how many lives it has had, and how far the wall clock is off.
    lives: BTreeMap<usize, (u32, i64)>,
    /// By session index: who drew it.
    owners: BTreeMap<u32, Life>,
    /// By the index of its sender.
    hellos: BTreeMap<u32, Said>,
    /// The indices with which a life answered the Hello with an index.
    answers: BTreeMap<(Life, u32), BTreeSet<u32>>,
    /// Session indices that something sealed was sent to, each with who sent.
    used: BTreeSet<(u32, Life)>,
    /// Session indices that something sealed was sent to.
    heard: BTreeSet<u32>,
    /// The latest Hello of a host whose session a life took into use.
    taken: BTreeMap<(Life, usize), Said>,
    /// Where something of one life arrived at another that was sent to this address.
    arrived: BTreeSet<(Life, SocketAddr, Life)>,
    /// By session index: when data first went under it, and when data first did after its keys were old.
    keys: BTreeMap<(u32, Life), (Instant, Option<Instant>)>,
    /// The session that a host last sent data to another under, and when.
    latest: BTreeMap<(usize, usize), (Instant, u32)>,
    /// Datagrams with packets that a life sent through relays.
    relayed: BTreeMap<Life, u64>,
    /// What is sent now is passed on for another.
    pub(in super::super) forwarding: bool,
}

impl Audit {
    /// A host begins a new life.
    pub fn on_start(&mut self, host: usize, clock_ms: i64) {
        let life = self.lives.get(&host).map_or(0, |(life, _)| life + 1);
        self.lives.insert(host, (life, clock_ms));
    }

    /// A host allows these peers from now on, and forgets all that it knew of others.
    pub fn on_reload(&mut self, host: usize, allowed: impl Fn(usize) -> bool) {
        let life = self.life(host);
        self.taken.retain(|(by, peer), _| *by != life || allowed(*peer));
    }

    /// The wall clock of a host is set.
    pub fn on_clock(&mut self, host: usize, clock_ms: i64) {
        if let Some((_, held)) = self.lives.get_mut(&host) {
            *held = clock_ms;
        }
    }

    fn life(&self, host: usize) -> Life {
        (host, self.lives.get(&host).map_or(0, |(life, _)| *life))
    }

    /// A host sends a datagram; `to_ghost` where nobody has the address.
    ///
    /// # Panics
    /// Where it may not.
    pub(super) fn on_sent(&mut self, now: Instant, from: usize, remote: SocketAddr, to_ghost: bool, datagram: &[u8]) {
        let Ok(header) = Header::decode(datagram) else { return };
        let is_relayed = header.kind() == EnvelopeType::Relayed;
        let header = if is_relayed { Header::decode(&datagram[HEADER_LEN..]) } else { Ok(header) };
        let Some(header) = header.ok().filter(|_| !self.forwarding) else { return };
        let life = self.life(from);
        match header.kind() {
            EnvelopeType::Hello => self.on_hello(now, life, &header),
            EnvelopeType::HelloAck => self.on_hello_ack(life, to_ghost, &header),
            EnvelopeType::Sealed | EnvelopeType::HelloFinish => {
                self.on_sealed(life, header.session());
                if !is_relayed && header.kind() == EnvelopeType::Sealed && header.msg_id().lane() != Lane::CONTROL {
                    self.on_data(now, life, remote, header.session());
                }
            }
            EnvelopeType::Cookie | EnvelopeType::Relayed => {}
        }
    }

    /// A host hands a datagram to its network, whether that can send it or not.
    pub(super) fn on_handed(&mut self, from: usize, datagram: &[u8]) {
        let kind = |bytes: &[u8]| Header::decode(bytes).map(|header| (header.kind(), header));
        let Ok((EnvelopeType::Relayed, _)) = kind(datagram) else { return };
        if let Ok((EnvelopeType::Sealed, inner)) = kind(&datagram[HEADER_LEN..])
            && inner.msg_id().lane() != Lane::CONTROL
            && !self.forwarding
        {
            *self.relayed.entry(self.life(from)).or_default() += 1;
        }
    }

    /// Datagrams with packets that the present life of a host sent through relays.
    pub fn relayed(&self, host: usize) -> u64 {
        self.relayed.get(&self.life(host)).copied().unwrap_or_default()
    }

    /// A datagram that `from` sent to `remote`, and that nobody changed, arrives at a host.
    pub(super) fn on_arrival(&mut self, from: usize, remote: SocketAddr, to: usize) {
        self.arrived.insert((self.life(from), remote, self.life(to)));
    }

    fn on_hello(&mut self, now: Instant, life: Life, header: &Header) {
        let Some(index) = header.sender_index() else { return };
        let clock_ms = self.lives.get(&life.0).map_or(0, |(_, clock_ms)| *clock_ms);
        let wall_ms = (now.as_nanos() / 1_000_000) as i64 + clock_ms;
        let order = self.hellos.len() as u64;
        self.hellos.entry(index).or_insert(Said { by: life, wall_ms, order });
        self.owners.entry(index).or_insert(life);
    }

    fn on_hello_ack(&mut self, life: Life, to_ghost: bool, header: &Header) {
        let (Some(index), hello) = (header.sender_index(), header.session()) else { return };
        self.owners.entry(index).or_insert(life);
        let Some(said) = self.hellos.get(&hello).copied() else { return };
        let answers = self.answers.entry((life, hello)).or_default();
        let is_new = answers.insert(index);
        let taken = self.taken.get(&(life, said.by.0));
        let host = life.0;
        if is_new && taken.is_some_and(|taken| taken.by == said.by && taken.order >= said.order) {
            panic!("host {host} answers a Hello anew that it has dealt with");
        }
        // Who cannot have a cookie has to be newer than all that was before.
        if to_ghost && is_new {
            let Some(taken) = taken else { panic!("host {host} answers a Hello that may be a replay") };
            let is_older = taken.by != said.by && said.wall_ms + CLOCK_SLACK_MS < taken.wall_ms;
            assert!(!is_older, "host {host} answers a Hello from before the last one");
        }
    }

    fn on_sealed(&mut self, life: Life, session: u32) {
        self.heard.insert(session);
        if !self.used.insert((session, life)) || !self.answers.contains_key(&(life, session)) {
            return;
        }
        if let Some(said) = self.hellos.get(&session).copied() {
            let taken = self.taken.entry((life, said.by.0)).or_insert(said);
            if taken.by != said.by || taken.order < said.order {
                *taken = said;
            }
        }
    }

    fn on_data(&mut self, now: Instant, life: Life, remote: SocketAddr, session: u32) {
        let host = life.0;
        let Some(owner) = self.owners.get(&session).copied() else { return };
        let proven = self.arrived.contains(&(life, remote, owner));
        assert!(
            proven,
            "host {host} sends data to {remote}, where nothing reached host {} in its present life",
            owner.0
        );
        if let Some(answers) = self.answers.get(&(life, session)) {
            let confirmed = answers.iter().any(|index| self.heard.contains(index));
            assert!(confirmed, "host {host} sends data under keys that host {} has not confirmed", owner.0);
        }
        let (first, old) = self.keys.entry((session, life)).or_insert((now, None));
        if now.since(*first) > REKEY_AFTER + REKEY_SLACK {
            let old = *old.get_or_insert(now);
            let limit = REKEY_GRACE.max(REFUSE_AFTER - REKEY_AFTER) + REKEY_SLACK;
            assert!(now.since(old) <= limit, "host {host} sends data under keys that are too old");
        }
        self.latest.insert((host, owner.0), (now, session));
    }

    /// Whether two hosts that send each other data directly do so under the same keys, as far as it can be told: both have
    /// since `since`.
    pub fn agree(&self, a: usize, b: usize, since: Instant) -> bool {
        let latest =
            |from, to| self.latest.get(&(from, to)).filter(|(at, _)| *at >= since).map(|(_, session)| *session);
        let (Some(to_b), Some(to_a)) = (latest(a, b), latest(b, a)) else { return true };
        let answered = |host, hello, answer| {
            self.answers.get(&(self.life(host), hello)).is_some_and(|answers| answers.contains(&answer))
        };
        answered(b, to_a, to_b) || answered(a, to_b, to_a)
    }
}
