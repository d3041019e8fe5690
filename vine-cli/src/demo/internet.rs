//! A small internet in memory, with a leased line beside it: addresses, routers with NAT, delays, and a line that can go dark.
//! Its datagrams are those that production engines send and receive; only the wires are make-believe.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use vine_tokio::{MemoryDatagram, MemoryUdp, MemoryUdpNetwork, memory_udp};

/// Datagrams on the way to one socket, and in each queue between it and its engine.
const QUEUE: usize = 1024;
/// How long the line takes to carry a datagram, and the internet.
const LINE_DELAY: Duration = Duration::from_millis(1);
const INTERNET_DELAY: Duration = Duration::from_millis(4);
/// The line's addresses are 192.0.2.0/24 (RFC 5737); all others are the internet's.
const LINE: [u8; 3] = [192, 0, 2];
/// The first port that a router gives away.
const FIRST_PORT: u16 = 40_001;

/// Two networks and what is plugged into them. Clones are the same.
#[derive(Clone, Default)]
pub(super) struct Internet(Arc<Mutex<State>>);

/// How a host reaches the internet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// By an address of its own there.
    Public(Ipv4Addr),
    /// From a private address, through a router.
    Behind { inner: Ipv4Addr, router: Router },
}

/// A router with NAT. Only those that something was sent to get in by it, each to where that came from (RFC 4787 section 5:
/// address- and port-dependent filtering).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Router {
    pub(super) public: Ipv4Addr,
    /// Shows every destination another port (section 4.1: address- and port-dependent mapping), so that nobody can say
    /// beforehand which one the next will see.
    pub(super) is_strict: bool,
}

/// Where a host stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) access: Access,
    /// Its address on the leased line, if it has one.
    pub(super) line: Option<Ipv4Addr>,
}

#[derive(Default)]
struct State {
    is_dark: bool,
    /// Where the sockets are reached, by the addresses of their own hosts.
    sockets: BTreeMap<SocketAddr, mpsc::Sender<Delivery>>,
    /// What the routers have let out, by the public ends.
    mappings: BTreeMap<SocketAddr, Mapping>,
}

struct Mapping {
    inner: SocketAddr,
    /// The only destination that sees this public end, where the router is strict.
    toward: Option<SocketAddr>,
    sent_to: BTreeSet<SocketAddr>,
}

struct Delivery {
    due: Instant,
    datagram: MemoryDatagram,
}

impl Place {
    /// Every address of the host's own.
    pub(super) fn addresses(&self) -> Vec<IpAddr> {
        self.line.into_iter().chain([self.access.inner()]).map(IpAddr::V4).collect()
    }
}

impl Access {
    fn inner(&self) -> Ipv4Addr {
        match self {
            Access::Public(address) => *address,
            Access::Behind { inner, .. } => *inner,
        }
    }
}

impl Internet {
    /// Plugs a socket in; it is taken out when its engine ends. Must be called inside a tokio runtime, which then carries
    /// its datagrams.
    pub(super) fn plug(&self, place: Place, port: u16) -> MemoryUdp {
        let bound = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        let (socket, network) = memory_udp(bound, QUEUE);
        let (sender, arrivals) = mpsc::channel(QUEUE);
        let mut state = self.lock();
        for address in place.addresses() {
            state.sockets.insert(SocketAddr::new(address, port), sender.clone());
        }
        drop(state);
        tokio::spawn(self.clone().carry(place, port, network, sender, arrivals));
        socket
    }

    /// The line carries nothing any more, and nobody is told.
    pub(super) fn cut_the_line(&self) {
        self.lock().is_dark = true;
    }

    pub(super) fn mend_the_line(&self) {
        self.lock().is_dark = false;
    }

    /// The wires of one socket.
    async fn carry(
        self,
        place: Place,
        port: u16,
        mut network: MemoryUdpNetwork,
        own: mpsc::Sender<Delivery>,
        mut arrivals: mpsc::Receiver<Delivery>,
    ) {
        let mut on_the_way = BTreeMap::new();
        let mut count = 0_u64;
        loop {
            let next = on_the_way.first_key_value().map(|((due, _), _)| *due);
            tokio::select! {
                sent = network.from_engine.recv() => match sent {
                    Some(datagram) => self.lock().send(place, port, datagram),
                    None => break,
                },
                Some(Delivery { due, datagram }) = arrivals.recv() => {
                    count += 1;
                    on_the_way.insert((due, count), datagram);
                }
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                    if let Some((_, datagram)) = on_the_way.pop_first() {
                        // What does not fit into its queue is lost, as everywhere.
                        let _ = network.to_engine.try_send(datagram);
                    }
                }
            }
        }
        self.lock().sockets.retain(|_, sender| !sender.same_channel(&own));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Brings a datagram to where it belongs, or nowhere.
    fn send(&mut self, place: Place, port: u16, datagram: MemoryDatagram) {
        let IpAddr::V4(to) = datagram.remote.ip() else { return };
        if is_of_the_line(to) {
            // Whoever has no plug in the line sends such a datagram to the internet, where nobody has the address.
            if let Some(from) = place.line.filter(|_| !self.is_dark) {
                self.deliver(SocketAddr::from((from, port)), datagram.remote, datagram.bytes, LINE_DELAY);
            }
            return;
        }
        let from = SocketAddr::from((place.access.inner(), port));
        let from = match place.access {
            Access::Public(_) => from,
            Access::Behind { router, .. } => self.let_out(router, from, datagram.remote),
        };
        let to = match self.mappings.get(&datagram.remote) {
            Some(mapping) if mapping.sent_to.contains(&from) => mapping.inner,
            Some(_) => return,
            None if is_private(to) => return,
            None => datagram.remote,
        };
        self.deliver(from, to, datagram.bytes, INTERNET_DELAY);
    }

    fn deliver(&self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>, delay: Duration) {
        if let Some(socket) = self.sockets.get(&to) {
            let datagram = MemoryDatagram { local: Some(to.ip()), remote: from, bytes };
            let _ = socket.try_send(Delivery { due: Instant::now() + delay, datagram });
        }
    }

    /// The public end under which `remote` sees what comes from `inner`.
    fn let_out(&mut self, router: Router, inner: SocketAddr, remote: SocketAddr) -> SocketAddr {
        let toward = router.is_strict.then_some(remote);
        let known = self.mappings.iter().find(|(_, mapping)| mapping.inner == inner && mapping.toward == toward);
        let public = known.map_or_else(|| self.free_end(router.public), |(public, _)| *public);
        let mapping = self.mappings.entry(public).or_insert(Mapping { inner, toward, sent_to: BTreeSet::new() });
        mapping.sent_to.insert(remote);
        public
    }

    fn free_end(&self, public: Ipv4Addr) -> SocketAddr {
        let ends = SocketAddr::from((public, FIRST_PORT))..=SocketAddr::from((public, u16::MAX));
        let last = self.mappings.range(ends).next_back().map(|(end, _)| end.port());
        SocketAddr::from((public, last.map_or(FIRST_PORT, |port| port.saturating_add(1))))
    }
}

fn is_of_the_line(address: Ipv4Addr) -> bool {
    address.octets().starts_with(&LINE)
}

/// Nobody on the internet has a private address, other than behind a router.
fn is_private(address: Ipv4Addr) -> bool {
    address.is_private()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLIC: Place = Place { access: Access::Public(Ipv4Addr::new(198, 51, 100, 40)), line: None };

    fn behind(n: u8, is_strict: bool, line: Option<u8>) -> Place {
        let router = Router { public: Ipv4Addr::new(198, 51, 100, n), is_strict };
        let line = line.map(|n| Ipv4Addr::new(192, 0, 2, n));
        Place { access: Access::Behind { inner: Ipv4Addr::new(10, n, 0, 2), router }, line }
    }

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// The place's state with a socket plugged in for each, and what arrives there.
    fn plugged(places: &[Place]) -> (State, Vec<mpsc::Receiver<Delivery>>) {
        let mut state = State::default();
        let receivers = places.iter().map(|place| {
            let (sender, receiver) = mpsc::channel(QUEUE);
            for address in place.addresses() {
                state.sockets.insert(SocketAddr::new(address, 4100), sender.clone());
            }
            receiver
        });
        let receivers = receivers.collect();
        (state, receivers)
    }

    fn send(state: &mut State, from: Place, to: SocketAddr) {
        state.send(from, 4100, MemoryDatagram { local: None, remote: to, bytes: vec![1] });
    }

    fn arrived(at: &mut mpsc::Receiver<Delivery>) -> Option<SocketAddr> {
        at.try_recv().ok().map(|delivery| delivery.datagram.remote)
    }

    #[test]
    fn a_router_lets_in_whom_something_was_sent_to_and_a_strict_one_shows_each_another_port() {
        for (is_strict, second) in [(false, "198.51.100.1:40001"), (true, "198.51.100.1:40002")] {
            let (inside, other) =
                (behind(1, is_strict, None), Place { access: Access::Public([203, 0, 113, 9].into()), line: None });
            let (mut state, mut hosts) = plugged(&[inside, PUBLIC, other]);
            send(&mut state, PUBLIC, at("198.51.100.1:40001"));
            assert_eq!(arrived(&mut hosts[0]), None);
            send(&mut state, inside, at("198.51.100.40:4100"));
            let seen = arrived(&mut hosts[1]).unwrap();
            assert_eq!(seen, at("198.51.100.1:40001"));
            send(&mut state, PUBLIC, seen);
            assert_eq!(arrived(&mut hosts[0]), Some(at("198.51.100.40:4100")));
            send(&mut state, other, seen);
            assert_eq!(arrived(&mut hosts[0]), None);
            send(&mut state, inside, at("203.0.113.9:4100"));
            assert_eq!(arrived(&mut hosts[2]), Some(at(second)));
        }
    }

    #[test]
    fn the_line_is_for_those_who_have_a_plug_and_can_go_dark() {
        let (a, b) = (behind(1, true, Some(11)), behind(2, false, Some(12)));
        let (mut state, mut hosts) = plugged(&[a, b, PUBLIC]);
        send(&mut state, PUBLIC, at("192.0.2.12:4100"));
        assert_eq!(arrived(&mut hosts[1]), None);
        send(&mut state, a, at("192.0.2.12:4100"));
        assert_eq!(arrived(&mut hosts[1]), Some(at("192.0.2.11:4100")));
        state.is_dark = true;
        send(&mut state, a, at("192.0.2.12:4100"));
        assert_eq!(arrived(&mut hosts[1]), None);
        send(&mut state, a, at("10.2.0.2:4100"));
        assert_eq!(arrived(&mut hosts[1]), None);
    }
}
