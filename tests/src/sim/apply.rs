//! What each [`Op`] does to a [`World`].

use std::time::Duration;

use vine_core::path::{Family, FourTuple};
use vine_core::wire::envelope::{MAGIC, VERSION};
use vine_core::wire::{EnvelopeType, HEADER_LEN, Header};
use vine_core::{Command, Instant, Policy};

use super::network::{Captured, Link, Network, Realm, ghost, socket_of};
use super::op::{Op, Origin, Way};
use super::world::World;

/// The number of a host that is in no world, but has an overlay address.
const NOT_IN_THE_WORLD: usize = 4000;

impl World {
    /// Makes something happen. Every op is legal at any time.
    pub fn apply(&mut self, op: &Op) {
        let count = self.hosts.len();
        let host = |number: u8| usize::from(number) % count;
        self.coverage.hit(format!("op: {}", op.to_string().split(' ').next().unwrap_or_default()));
        match *op {
            Op::Wait { us } => {
                self.run_for(Duration::from_micros(us));
                (0..count).for_each(|host| self.look(host));
            }
            Op::Send { from, to, kind, len, count } => {
                self.send(host(from), host(to), kind, usize::from(len), usize::from(count));
            }
            Op::Syn { from, to, v6 } => self.open_connection(host(from), host(to), v6),
            Op::Spoof { from, to, whose } => self.spoof(host(from), host(to), host(whose)),
            Op::Stray { from } => self.send_forged(host(from), host(from), None),
            Op::Stream { from, to, every_ms } => {
                self.stream(host(from), host(to), Duration::from_millis(every_ms.into()));
            }
            Op::Link { .. } | Op::Mtu { .. } | Op::Rate { .. } | Op::Cut { .. } | Op::Mend { .. } => {
                self.change_link(op);
            }
            Op::Roam { .. } | Op::Resettle { .. } | Op::Rebind { .. } => self.change_place(op),
            Op::Replay { .. } | Op::Reflect { .. } | Op::Garble { .. } | Op::Truncate { .. } => self.attack(op),
            Op::Garbage { .. } | Op::Nest { .. } => self.attack(op),
            Op::Crash { host: at } => self.crash(host(at)),
            Op::Start { host: at, clock_ms } => {
                let at = host(at);
                if self.hosts[at].node.is_none() {
                    self.set_clock(at, clock_ms);
                    self.start(at);
                }
            }
            Op::Shutdown { host: at } => self.shut_down(host(at)),
            Op::Reload { host: at, without } => {
                let peers = (0..count).filter(|peer| *peer != host(at) && *peer != host(without));
                self.reload(host(at), peers);
            }
            Op::Policy { host: at, relay, signal } => {
                let at = host(at);
                let policy =
                    Policy { allow_relay: relay, allow_signaling_upgrade: signal, ..self.hosts[at].spec.policy };
                self.permit(at, policy);
            }
            Op::Endpoints { host: at, peer, found } => self.look_up(host(at), host(peer), found),
            Op::Ping { host: at, peer } => drop(self.ping(host(at), host(peer))),
            Op::Wake { host: at } => self.tell_addresses(host(at)),
            Op::Clock { host: at, ms } => {
                let at = host(at);
                self.set_clock(at, ms);
                self.network.audit.on_clock(at, ms);
                let time = self.hosts[at].wall_clock(self.now());
                let _ = self.command(at, Command::SetUnixTime(time)); // A host that is down reads it when it starts.
            }
            Op::Timeout { host: at, off_us } => self.odd_timeout(host(at), off_us),
            Op::Stall { host: at, on } => self.stall(host(at), on),
            Op::Sleep { host: at, on: true } => self.suspend(host(at)),
            Op::Sleep { host: at, on: false } => self.resume(host(at)),
            Op::Hoard { host: at, on } => self.hoard(host(at), on),
        }
    }

    fn spoof(&mut self, from: usize, to: usize, whose: usize) {
        if from != to {
            let whose = if whose == from || whose == to { NOT_IN_THE_WORLD } else { whose };
            self.send_forged(from, whose, Some(to));
        }
    }

    fn change_link(&mut self, op: &Op) {
        let host = |number: u8| usize::from(number) % self.hosts.len();
        match *op {
            Op::Link { from, to, way, delay_ms, jitter_ms, loss, duplicate, reorder, corrupt } => {
                let (from, to) = (host(from), host(to));
                let (delay, jitter) = (Duration::from_millis(delay_ms.into()), Duration::from_millis(jitter_ms.into()));
                self.change_links(from, to, way, |link| Link {
                    delay,
                    jitter,
                    loss,
                    duplicate,
                    reorder,
                    corrupt,
                    cut: false,
                    ..link
                });
            }
            Op::Mtu { from, to, way, bytes } => {
                let mtu = if bytes == 0 { u16::MAX } else { bytes };
                self.change_links(host(from), host(to), way, |link| Link { mtu, ..link });
            }
            Op::Rate { from, to, way, kbytes, queue } => {
                let (rate, queue) = (1_000 * u32::from(kbytes), 1_000 * u32::from(queue));
                self.change_links(host(from), host(to), way, |link| Link { rate, queue, ..link });
            }
            Op::Cut { from, to, way } => self.set_cut(host(from), host(to), way, true),
            Op::Mend { from, to, way } => self.set_cut(host(from), host(to), way, false),
            _ => {}
        }
    }

    fn change_place(&mut self, op: &Op) {
        let host = |number: u8| usize::from(number) % self.hosts.len();
        match *op {
            Op::Roam { host: at, port, told } => self.roam(host(at), port, told),
            Op::Resettle { host: at, behind, told } => {
                // One more than there are boxes: the open network.
                let behind = usize::from(behind) % (self.network.boxes.len() + 1);
                self.resettle(host(at), Some(behind).filter(|number| *number < self.network.boxes.len()), told);
            }
            Op::Rebind { host: at } => {
                let forgotten = self.network.rebind(host(at));
                self.coverage.add("NAT rebound", u64::from(forgotten));
            }
            _ => {}
        }
    }

    /// Cuts a link in one direction, or mends it.
    pub fn set_cut(&mut self, from: usize, to: usize, way: Way, cut: bool) {
        self.change_links(from, to, way, |link| Link { cut, ..link });
    }

    /// Changes something of a link in one direction.
    pub fn change_links(&mut self, from: usize, to: usize, way: Way, change: impl Fn(Link) -> Link) {
        let ways = [(Way::V4, Family::V4), (Way::V6, Family::V6)];
        for (one, family) in ways.into_iter().filter(|(one, _)| way == Way::Both || way == *one) {
            let link = self.network.link(from, to, family);
            self.network.set_link(from, to, one, change(link));
        }
    }

    /// A host moves; its runtime tells the node, if it is one that watches.
    pub fn roam(&mut self, host: usize, port_only: bool, told: bool) {
        self.network.roam(host, port_only);
        if told {
            self.tell_addresses(host);
        }
    }

    /// A host is carried to another place: behind another NAT, or none.
    pub fn resettle(&mut self, host: usize, behind: Option<usize>, told: bool) {
        self.network.resettle(host, behind);
        if told {
            self.tell_addresses(host);
        }
    }

    fn attack(&mut self, op: &Op) {
        let captured = |which: u16| {
            let Network { captured, handshakes, .. } = &self.network;
            let seen = if which.is_multiple_of(3) { handshakes } else { captured };
            let from_latest = usize::from(which / 3).checked_rem(seen.len())?;
            seen.iter().rev().nth(from_latest).cloned()
        };
        let forged = match *op {
            Op::Replay { which, origin: Origin::Same } => captured(which),
            Op::Replay { which, origin: Origin::Ghost } => captured(which).map(|seen| Captured {
                sender: None,
                source: ghost(Family::of(&seen.destination)),
                ..seen
            }),
            Op::Reflect { which } => captured(which).map(|seen| Captured {
                sender: None,
                source: seen.destination,
                destination: seen.source,
                ..seen
            }),
            Op::Garble { which, bit } => captured(which).map(|mut seen| {
                seen.sender = None;
                let bit = usize::from(bit) % (seen.bytes.len() * 8);
                seen.bytes[bit / 8] ^= 1 << (bit % 8);
                seen
            }),
            Op::Truncate { which, len } => captured(which).map(|mut seen| {
                seen.sender = None;
                seen.bytes.truncate(usize::from(len) % seen.bytes.len());
                seen
            }),
            Op::Nest { which } => {
                let relayed = |seen: &&Captured| {
                    Header::decode(&seen.bytes).is_ok_and(|header| header.kind() == EnvelopeType::Relayed)
                };
                let mut latest = self.network.captured.iter().rev().filter(relayed);
                latest.nth(usize::from(which % 16)).cloned().map(|mut seen| {
                    let header = seen.bytes[..HEADER_LEN].to_vec();
                    seen.sender = None;
                    seen.bytes.splice(..0, header);
                    seen
                })
            }
            Op::Garbage { to, kind, len } => self.garbage(usize::from(to) % self.hosts.len(), kind, len.into()),
            _ => None,
        };
        if let Some(forged) = forged {
            self.network.put_back(self.now(), forged);
        }
    }

    /// Bytes behind a header that may pass; every other one for a session that was seen.
    fn garbage(&mut self, to: usize, kind: u8, len: usize) -> Option<Captured> {
        let destination = self.network.public_endpoints(to).first().copied()?;
        let mut bytes = vec![0; HEADER_LEN + len];
        self.rng.fill(&mut bytes);
        let version = if kind < 0xe0 { VERSION } else { kind };
        bytes[..4].copy_from_slice(&[MAGIC, version, kind, u8::from(matches!(kind, 3 | 5))]);
        if let Some(seen) = self.network.captured.back().filter(|_| len.is_multiple_of(2)) {
            bytes[4..8].copy_from_slice(&seen.bytes[4..8]);
        }
        Some(Captured {
            sender: None,
            source: ghost(Family::of(&destination)),
            destination,
            realm: Realm::Public,
            bytes,
        })
    }

    fn odd_timeout(&mut self, host: usize, off_us: i64) {
        let local = self.hosts[host].local(self.now());
        let off = Duration::from_micros(off_us.unsigned_abs());
        let at = if off_us < 0 { local - off } else { local + off };
        if !self.hosts[host].stalled {
            self.timeout_at(host, at);
        }
    }

    /// The process of a host stops or goes on.
    pub fn stall(&mut self, host: usize, on: bool) {
        if self.hosts[host].node.is_none() || self.hosts[host].stalled == on || self.hosts[host].asleep {
            return;
        }
        self.hosts[host].stalled = on;
        self.stall_store(host, on);
        if !on {
            let waiting: Vec<(FourTuple, Vec<u8>)> = self.hosts[host].inbox.drain(..).collect();
            self.receive(host, waiting);
        }
    }

    /// A host falls asleep: nothing in it moves, and what is sent to it is lost.
    pub fn suspend(&mut self, host: usize) {
        self.stall(host, true);
        let machine = &mut self.hosts[host];
        machine.asleep = machine.stalled;
        machine.inbox.clear();
    }

    /// A host that sleeps wakes up, and its runtime hears that the network is there again.
    pub fn resume(&mut self, host: usize) {
        if std::mem::take(&mut self.hosts[host].asleep) {
            self.stall(host, false);
            self.tell_addresses(host);
            self.coverage.hit("woken up");
        }
    }

    /// The caller of a node begins to poll nothing, or polls again.
    pub fn hoard(&mut self, host: usize, on: bool) {
        if self.hosts[host].node.is_some() {
            self.hosts[host].hoarding = on;
            self.hosts[host].deeds.hoarded |= on;
            self.settle(host);
        }
    }

    /// Where a datagram would seem to come from that `from` sends to `to` from its own first address.
    pub fn path_between(&self, from: usize, to: usize) -> FourTuple {
        let remote = self.network.public_endpoints(from)[0];
        let local = self.network.public_endpoints(to)[0].ip();
        FourTuple { socket: socket_of(Family::of(&remote)), local: Some(local), remote }
    }

    /// A datagram reaches `to` as if `from` had sent it.
    pub fn inject(&mut self, from: usize, to: usize, bytes: Vec<u8>) {
        let (source, destination) = (self.network.public_endpoints(from)[0], self.network.public_endpoints(to)[0]);
        self.network.inject(self.now(), source, destination, bytes);
    }

    /// The moment from which on `has_reached` counts.
    pub fn mark(&self) -> Instant {
        self.now()
    }
}
