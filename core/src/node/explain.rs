//! Why a peer is reached the way it is, and how this node stands in its network: what was tried, what is known.

use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use super::view::state;
use super::{Node, PeerState};
use crate::config::Policy;
use crate::identity::PeerId;
use crate::overlay::PeerIndex;
use crate::path::checks::CheckView;
use crate::path::{FourTuple, Path, PathClass, PathSlot, PathState, SocketInfo, Via};
use crate::relay::{LegState, LegView};
use crate::time::Instant;
use crate::wire::{Candidate, CheckResult, NatVerdict, RelayCloseReason};

/// A path to a peer, for reports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PathView {
    /// The way it takes.
    pub via: Via<PeerId>,
    /// How it came to be.
    pub class: PathClass,
    /// What is known of it.
    pub state: PathState,
    /// Whether data goes by it.
    pub preferred: bool,
    /// Its smoothed round-trip time.
    pub rtt: Option<Duration>,
    /// Bytes of the longest packet that it carries whole, as far as is known.
    pub room: usize,
    /// When it was last proven that what is sent on it arrives.
    pub last_proof: Option<Instant>,
}

/// What a peer said of its side when it last signaled.
#[derive(Clone, Debug)]
pub struct RemoteSide {
    /// The NAT in front of it.
    pub nat: NatVerdict,
    /// What came of its trying this node's addresses.
    pub results: Vec<CheckResult>,
    /// When it said so.
    pub at: Instant,
}

/// A leg by a relay, for reports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RelayLegView {
    /// The relay.
    pub relay: PeerId,
    /// How far the leg is.
    pub state: LegState,
    /// Since when.
    pub since: Instant,
    /// Why the relay last ended it, if it did.
    pub reason: Option<RelayCloseReason>,
}

/// A peer that may relay, for reports.
#[derive(Clone, Debug)]
pub struct RelayView<'a> {
    /// The peer.
    pub id: PeerId,
    /// Its name.
    pub name: &'a str,
    /// How things stand with it.
    pub state: PeerState,
    /// Whether it is reached directly: only then can it carry.
    pub direct: bool,
    /// The round trip to it.
    pub rtt: Option<Duration>,
}

/// Everything that bears on how a peer is reached.
#[derive(Clone, Debug)]
pub struct Explanation<'a> {
    /// Who.
    pub id: PeerId,
    /// Its name.
    pub name: &'a str,
    /// How things stand.
    pub state: PeerState,
    /// Whether there are keys.
    pub session: bool,
    /// It said goodbye and has not been heard of since.
    pub departed: bool,
    /// Whether somebody sends to it or it to us: only then is a better path sought.
    pub in_use: bool,
    /// Bytes of the longest packet that may go to it now.
    pub mtu: Option<usize>,
    /// Where it may be found as configured.
    pub endpoints: &'a [SocketAddr],
    /// Where it was reached in a former life of this node.
    pub last_known: &'a [SocketAddr],
    /// Every path there is.
    pub paths: Vec<PathView>,
    /// Every address that is tried.
    pub checks: Vec<CheckView>,
    /// The relays between.
    pub legs: Vec<RelayLegView>,
    /// Where this node tells it that it can be reached.
    pub candidates: Vec<Candidate>,
    /// How the NAT in front of this node maps it.
    pub nat: NatVerdict,
    /// What the peer said of its side, if it ever signaled.
    pub remote: Option<RemoteSide>,
    /// Peers that are reached directly and could carry Signals, or packets if they may relay.
    pub helpers: Vec<RelayView<'a>>,
    /// What this node permits.
    pub policy: Policy,
}

/// What one peer sees of this node, for reports.
#[derive(Clone, Debug)]
pub struct SeenView<'a> {
    /// The peer.
    pub id: PeerId,
    /// Its name.
    pub name: &'a str,
    /// The path that was asked on.
    pub path: FourTuple,
    /// Where the peer saw the datagram come from.
    pub observed: SocketAddr,
    /// When it said so last.
    pub at: Instant,
}

/// How this node stands in its network.
#[derive(Clone, Debug)]
pub struct NetView<'a> {
    /// Its sockets.
    pub sockets: &'a [SocketInfo],
    /// The host's addresses, where the runtime has told them.
    pub addresses: Option<&'a [IpAddr]>,
    /// Where this node tells others that it can be reached.
    pub candidates: Vec<Candidate>,
    /// Where others see it, the latest word first.
    pub seen: Vec<SeenView<'a>>,
    /// How the NAT in front of it maps it.
    pub nat: NatVerdict,
    /// The peers that may relay.
    pub relays: Vec<RelayView<'a>>,
}

impl Node {
    /// Everything that bears on how a peer is reached. `None` where no such peer is allowed.
    pub fn why(&self, id: &PeerId) -> Option<Explanation<'_>> {
        let index = self.index_of(id).ok()?;
        let peer = self.peer(index)?;
        let search = peer.search.as_ref();
        let preferred = peer.paths.preferred_slot();
        let remote = search.and_then(|search| search.remote.as_ref());
        Some(Explanation {
            id: peer.config.id,
            name: &peer.config.name,
            state: state(peer, self.shared.now),
            session: peer.has_session(),
            departed: peer.departed,
            in_use: peer.is_in_use(self.shared.now),
            mtu: peer.paths.host_mtu(),
            endpoints: &peer.config.endpoints,
            last_known: &peer.config.last_known,
            paths: peer.paths.iter().filter_map(|path| self.path_view(path, preferred)).collect(),
            checks: search.iter().flat_map(|search| search.checks.iter()).collect(),
            legs: peer.legs.iter().flat_map(|legs| legs.iter()).filter_map(|leg| self.leg_view(&leg)).collect(),
            candidates: self.candidates().into_iter().collect(),
            nat: self.nat(),
            remote: remote.map(|remote| RemoteSide {
                nat: remote.nat,
                results: remote.results.iter().copied().collect(),
                at: remote.at,
            }),
            helpers: self.helpers(index),
            policy: self.shared.policy,
        })
    }

    /// How this node stands in its network.
    pub fn netcheck(&self) -> NetView<'_> {
        let seen = self.shared.observations.iter().rev().filter_map(|seen| {
            let observer = &self.peer(seen.observer)?.config;
            let (path, observed, at) = (seen.path, seen.observed, seen.at);
            Some(SeenView { id: observer.id, name: &observer.name, path, observed, at })
        });
        NetView {
            sockets: &self.shared.sockets,
            addresses: self.shared.addresses.as_deref(),
            candidates: self.candidates().into_iter().collect(),
            seen: seen.collect(),
            nat: self.nat(),
            relays: self.relays.iter().filter_map(|relay| self.relay_view(*relay)).collect(),
        }
    }

    /// How the NAT in front of this node maps it.
    fn nat(&self) -> NatVerdict {
        self.shared.observations.verdict(self.shared.addresses.as_deref().unwrap_or_default())
    }

    fn path_view(&self, (slot, path): (PathSlot, &Path), preferred: Option<PathSlot>) -> Option<PathView> {
        Some(PathView {
            via: self.peers.name(path.via)?,
            class: path.class,
            state: path.state,
            preferred: preferred == Some(slot),
            rtt: path.rtt.smoothed(),
            room: path.room(),
            last_proof: path.last_proof,
        })
    }

    fn leg_view(&self, leg: &LegView) -> Option<RelayLegView> {
        let relay = self.peer(leg.relay)?.config.id;
        Some(RelayLegView { relay, state: leg.state, since: leg.since, reason: leg.reason })
    }

    /// The peers that are reached directly and may know `other`.
    fn helpers(&self, other: PeerIndex) -> Vec<RelayView<'_>> {
        let others = self.peers.iter().map(|(index, _)| index).filter(|index| *index != other);
        others.filter_map(|index| self.relay_view(index)).filter(|view| view.direct).collect()
    }

    fn relay_view(&self, index: PeerIndex) -> Option<RelayView<'_>> {
        let peer = self.peer(index)?;
        Some(RelayView {
            id: peer.config.id,
            name: &peer.config.name,
            state: state(peer, self.shared.now),
            direct: peer.is_reached_directly(self.shared.now),
            rtt: peer.paths.preferred().and_then(|(_, path)| path.rtt.smoothed()),
        })
    }
}
