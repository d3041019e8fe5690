//! The end of every run: the network works, and both nodes must find each other again.

use std::time::Duration;

use vine_core::node::PeerState;
use vine_core::{Command, Instant};

use super::{IDS, Outgoing, Owner, PeerList, Side, World, home};

/// How long a datagram travels.
const LATENCY: Duration = Duration::from_millis(5);
/// How often each host sends a packet to the other.
const INTERVAL: Duration = Duration::from_millis(500);
/// Within this time the nodes have to be connected, with packets crossing both ways. The longest that anything here waits
/// while a host wants to send is a Hello's lifetime (4 s) and a peer's unconfirmed session (5 s), one after the other.
const DEADLINE: Duration = Duration::from_secs(20);
/// Packets in a row that have to cross in each direction.
const IN_A_ROW: usize = 3;
/// Answers to answers: a handshake with a cookie, the proof of its path and the first packets take less than this.
const MAX_ROUNDS: usize = 32;
/// A node wakes at most so often while it heals.
const MAX_WAKES: usize = 4_000;

impl World {
    /// Mends everything that an operator would mend, and nothing else: who was shut down is started, the lists of peers are
    /// as they were, and alpha is where beta looks for it. Nobody is told of anything. Then packets are sent both ways until
    /// they arrive.
    pub(super) fn heal(&mut self) {
        self.mend();
        let start = self.now;
        let (mut row, mut next_packet, mut wakes) = (0, start, 0);
        while row < IN_A_ROW {
            assert!(self.now < start + DEADLINE, "not healed: {}", self.state());
            assert!(wakes < MAX_WAKES, "too many wakes: {}", self.state());
            if next_packet <= self.now {
                row = if self.packets_cross() { row + 1 } else { 0 };
                next_packet = self.now + INTERVAL;
            }
            let deadlines = self.hosts.iter().map(|host| host.node.poll_timeout().0);
            let next = deadlines.chain([next_packet]).min().unwrap_or(Instant::FAR_FUTURE);
            self.set_now(next);
            self.exchange();
            wakes += 1;
        }
        for side in Side::BOTH {
            let other = IDS.ids[side.other() as usize];
            let view = self.hosts[side as usize].node.peers().find(|peer| peer.id == other).map(|peer| peer.state);
            assert_eq!(view, Some(PeerState::Connected), "{}", self.state());
            assert!(self.hosts[side as usize].up.contains(&other), "connected and not reported so");
        }
    }

    fn mend(&mut self) {
        // An address that alpha's sockets cannot reach would keep beta's answers away.
        let beta = self.host(Side::Beta).address;
        if beta.is_ipv6() || beta == home(Side::Alpha) {
            self.place(Side::Beta, home(Side::Beta));
        }
        self.place(Side::Alpha, home(Side::Alpha));
        for side in Side::BOTH {
            if self.host(side).shut_down {
                self.restart(side);
            }
            let (now, peers) = (self.now, self.peers(side, PeerList::Both));
            self.host(side).node.command(now, Command::SetPeers(peers)).expect("the list is right and the node runs");
            self.flush(side);
            self.wake(side);
            self.drain(side);
        }
    }

    /// Delivers what is under way, and the answers, and theirs, until nobody has anything more to say.
    fn exchange(&mut self) {
        Side::BOTH.into_iter().for_each(|side| self.drain(side));
        for _ in 0..MAX_ROUNDS {
            if self.under_way.is_empty() {
                return;
            }
            self.pass_quietly(self.now + LATENCY);
            self.deliver_all(false);
            Side::BOTH.into_iter().for_each(|side| self.drain(side));
        }
        panic!("they talk without end: {}", self.state());
    }

    /// Lets nodes wake at their deadlines up to `until`, with what they send under way.
    fn pass_quietly(&mut self, until: Instant) {
        while let Some(next) = self.hosts.iter().map(|host| host.node.poll_timeout().0).min()
            && next < until
        {
            self.set_now(next);
            Side::BOTH.into_iter().for_each(|side| self.drain(side));
        }
        self.set_now(until);
        Side::BOTH.into_iter().for_each(|side| self.wake(side));
        Side::BOTH.into_iter().for_each(|side| self.drain(side));
    }

    /// Sends a packet each way and says whether both arrived.
    fn packets_cross(&mut self) -> bool {
        let before = self.hosts.each_ref().map(|host| host.delivered);
        for side in Side::BOTH {
            let packet = Outgoing {
                v6: false,
                udp: true,
                source: Owner::Own,
                destination: Owner::Other,
                len: 8,
                segment: 0,
                open: false,
                hold: false,
                odds: 0,
            };
            self.send(side, &packet);
        }
        self.exchange();
        self.hosts.iter().zip(before).all(|(host, before)| host.delivered > before)
    }

    fn state(&self) -> String {
        let of = |side: Side| {
            let host = &self.hosts[side as usize];
            let sessions: Vec<_> = host.node.sessions().collect();
            let peers: Vec<_> =
                host.node.peers().map(|peer| (peer.name.to_owned(), peer.state, peer.last_proof)).collect();
            let drops: Vec<_> = host.node.counters().drops().filter(|(_, count)| *count > 0).collect();
            format!("{side:?} at {}: {peers:?} {sessions:?} {drops:?} up {:?}\n", host.address, host.up)
        };
        format!("at {:?}\n{}{}", self.now, of(Side::Alpha), of(Side::Beta))
    }
}
