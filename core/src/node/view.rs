//! What reports say: the truth about the running node, as plain values.

use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use super::Node;
use crate::identity::PeerId;
use crate::overlay::Prefix;
use crate::path::{PathClass, PathState, Via};
use crate::peer::{Peer, RECENT};
use crate::relay::Traffic;
use crate::session::Cipher;
use crate::time::Instant;

/// How things stand with a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PeerState {
    /// No session, and none is sought: nobody knows where the peer is, or it said goodbye.
    Down,
    /// A session is sought, or the one there is gets no answer any more.
    Connecting,
    /// There is a session and a path, but no recent proof that it works: nothing was sent that asks for one.
    Idle,
    /// What is sent arrives, as a recent answer of the peer shows.
    Connected,
}

impl PeerState {
    /// The name used in reports.
    pub const fn name(self) -> &'static str {
        match self {
            PeerState::Down => "down",
            PeerState::Connecting => "connecting",
            PeerState::Idle => "idle",
            PeerState::Connected => "connected",
        }
    }
}

/// A peer, for reports.
#[derive(Clone, Debug)]
pub struct PeerView<'a> {
    /// Its identity.
    pub id: PeerId,
    /// Its name.
    pub name: &'a str,
    /// The ranges that it owns.
    pub prefixes: &'a [Prefix],
    /// Whether it may relay.
    pub relay_capable: bool,
    /// How things stand.
    pub state: PeerState,
    /// The smoothed round-trip time of the preferred path.
    pub rtt: Option<Duration>,
    /// When something authentic last came from it.
    pub last_received: Option<Instant>,
    /// When it was last proven that what is sent to it arrives.
    pub last_proof: Option<Instant>,
    /// This node's address as the peer sees it.
    pub observed: Option<SocketAddr>,
}

/// A session, for reports.
#[derive(Clone, Debug)]
pub struct SessionView<'a> {
    /// With whom.
    pub id: PeerId,
    /// The peer's name.
    pub name: &'a str,
    /// How its path came to be.
    pub class: PathClass,
    /// The path that data goes by, once one is proven.
    pub path: Option<Via<PeerId>>,
    /// Whether that path is suspected to be dead.
    pub suspect: bool,
    /// The path's smoothed round-trip time.
    pub rtt: Option<Duration>,
    /// Bytes of the longest packet of the host that may go to the peer now, once a path is proven.
    pub mtu: Option<usize>,
    /// When the keys were agreed on.
    pub established: Instant,
    /// The cipher.
    pub cipher: Cipher,
    /// Whether the peer has shown that it has the keys.
    pub confirmed: bool,
    /// Bytes of datagrams with packets sent to the peer, over all its sessions.
    pub tx_bytes: u64,
    /// Bytes of authentic datagrams received from the peer, over all its sessions.
    pub rx_bytes: u64,
}

/// A channel: what this node passes on between two others, for reports.
#[derive(Clone, Debug)]
pub struct ChannelView<'a> {
    /// The two ends.
    pub ends: [PeerId; 2],
    /// Their names.
    pub names: [&'a str; 2],
    /// What each of the two sent.
    pub sent: [Traffic; 2],
    /// Whether both have said how they want to be addressed: only then does anything pass.
    pub complete: bool,
    /// Since when it is there.
    pub opened: Instant,
    /// When it was last asked for or carried something.
    pub last_used: Instant,
}

/// A route, for reports.
#[derive(Clone, Debug)]
pub struct RouteView<'a> {
    /// The range.
    pub prefix: Prefix,
    /// Its owner.
    pub peer: PeerId,
    /// The owner's name.
    pub name: &'a str,
}

impl Node {
    /// This node's identity.
    pub fn id(&self) -> PeerId {
        self.shared.local.peer_id()
    }

    /// The time of the last input.
    pub fn now(&self) -> Instant {
        self.shared.now
    }

    /// Every allowed peer.
    pub fn peers(&self) -> impl Iterator<Item = PeerView<'_>> {
        self.peers.iter().map(|(_, peer)| PeerView {
            id: peer.config.id,
            name: &peer.config.name,
            prefixes: &peer.config.prefixes,
            relay_capable: peer.config.relay_capable,
            state: state(peer, self.shared.now),
            rtt: peer.paths.preferred().and_then(|(_, path)| path.rtt.smoothed()),
            last_received: peer.last_received,
            last_proof: peer.paths.last_proof(),
            observed: peer.observed,
        })
    }

    /// Every session that sends.
    pub fn sessions(&self) -> impl Iterator<Item = SessionView<'_>> {
        self.peers.iter().filter_map(|(_, peer)| {
            let session = peer.sessions.current.as_ref()?;
            let preferred = peer.paths.preferred().map(|(_, path)| path);
            Some(SessionView {
                id: peer.config.id,
                name: &peer.config.name,
                class: preferred.map_or(PathClass::Direct, |path| path.class),
                path: preferred.and_then(|path| self.peers.name(path.via)),
                suspect: preferred.is_some_and(|path| path.state == PathState::Suspect),
                rtt: preferred.and_then(|path| path.rtt.smoothed()),
                mtu: peer.paths.host_mtu(),
                established: session.created,
                cipher: session.cipher,
                confirmed: session.is_confirmed(),
                tx_bytes: peer.tx_bytes,
                rx_bytes: peer.rx_bytes,
            })
        })
    }

    /// What this node passes on for others, ordered by pair.
    pub fn channels(&self) -> impl Iterator<Item = ChannelView<'_>> {
        self.shared.channels.iter().filter_map(|channel| {
            let [a, b] = channel.ends.map(|end| self.peer(end));
            let (a, b) = (&a?.config, &b?.config);
            Some(ChannelView {
                ends: [a.id, b.id],
                names: [&a.name, &b.name],
                sent: channel.sent,
                complete: channel.complete,
                opened: channel.opened,
                last_used: channel.last_used,
            })
        })
    }

    /// Where peers are reached: the addresses of their paths that work and need no relay, those that carry data first.
    pub fn reached(&self) -> impl Iterator<Item = (PeerId, SocketAddr)> {
        self.peers.iter().flat_map(|(_, peer)| {
            let preferred = peer.paths.preferred_slot();
            let works = |slot, state| matches!(state, PathState::Usable) || preferred == Some(slot);
            let direct =
                peer.paths.iter().filter(move |(slot, path)| path.last_proof.is_some() && works(*slot, path.state));
            let mut reached: Vec<_> =
                direct.filter_map(|(slot, path)| Some((preferred != Some(slot), path.via.direct()?.remote))).collect();
            reached.sort();
            reached.into_iter().map(|(_, remote)| (peer.config.id, remote))
        })
    }

    /// Every range with its owner, in the order of the ranges.
    pub fn routes(&self) -> impl Iterator<Item = RouteView<'_>> {
        self.routes.iter().filter_map(|(prefix, index)| {
            let peer = self.peer(index)?;
            Some(RouteView { prefix, peer: peer.config.id, name: &peer.config.name })
        })
    }

    /// The name of an allowed peer.
    pub fn peer_name(&self, id: &PeerId) -> Option<&str> {
        let index = self.index_of(id).ok()?;
        Some(&self.peer(index)?.config.name)
    }

    /// Which peer owns an overlay address.
    pub fn owner_of(&self, address: core::net::IpAddr) -> Option<PeerId> {
        Some(self.peer(self.routes.owner_of(address)?)?.config.id)
    }
}

pub(super) fn state(peer: &Peer, now: Instant) -> PeerState {
    let path = peer.paths.preferred().map(|(_, path)| path);
    match (peer.sessions.current.as_ref().filter(|session| session.is_confirmed()), path) {
        (Some(_), Some(path)) if path.state == PathState::Usable => {
            let recent = path.last_proof.is_some_and(|proof| now.since(proof) <= RECENT);
            if recent { PeerState::Connected } else { PeerState::Idle }
        }
        _ if peer.greeting.is_some() && !peer.departed => PeerState::Connecting,
        (Some(_), _) => PeerState::Connecting,
        _ => PeerState::Down,
    }
}
