//! The relay's side: which pairs it carries for, and how each end of them is addressed.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::time::Duration;

use super::{ChannelEnd, Receiver, RelayAddress, RelayHandles};
use crate::overlay::PeerIndex;
use crate::rate::{Bucket, Rate};
use crate::rng::Rng;
use crate::time::Instant;
use crate::wire::RelayCloseReason;

/// A channel that nobody used for this long is closed.
const IDLE: Duration = Duration::from_secs(600);

/// How often a peer may ask for channels: all that it may have twice at once, as after a restart, and then as often as an
/// honest one would state those that are in doubt.
const REQUESTS: Rate = Rate { units: 64, per: Duration::from_secs(1), burst: 512 };

/// An end has the other one asked this often at most: who sleeps is not to be woken by it.
const DOUBTS: Rate = Rate { units: 1, per: Duration::from_secs(1), burst: 2 };

/// What a relay grants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RelayLimits {
    /// Channels in all.
    pub channels: usize,
    /// Channels that one peer asked for. Those that others asked for with it are theirs: nobody can use up a peer's share.
    pub channels_per_peer: usize,
    /// What one peer may send through this node, if that is limited. A burst below the largest datagram would let it through
    /// never.
    pub bytes_per_peer: Option<Rate>,
}

impl Default for RelayLimits {
    fn default() -> Self {
        RelayLimits { channels: 16_384, channels_per_peer: 256, bytes_per_peer: None }
    }
}

/// Why a channel was not opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RelayRefusal {
    /// A peer asks for a channel to itself.
    #[error("a channel has two different ends")]
    OneEnd,
    /// The peer has asked for as many as it may have.
    #[error("the peer holds as many channels as it may")]
    PeerQuota,
    /// The relay holds as many as it may.
    #[error("the relay holds as many channels as it may")]
    TotalQuota,
}

impl RelayRefusal {
    /// What the RelayClose says.
    pub const fn reason(self) -> RelayCloseReason {
        match self {
            RelayRefusal::OneEnd => RelayCloseReason::REFUSED,
            RelayRefusal::PeerQuota | RelayRefusal::TotalQuota => RelayCloseReason::QUOTA,
        }
    }
}

/// A channel is open for the one that asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Opened {
    /// The answer to who asked: by this it addresses this node.
    pub answer: RelayAddress,
    /// What the other end is to be told, by which it addresses this node. `None` where it has asked too: it knows, unless who
    /// asked now doubts it and asks again.
    pub inform: Option<RelayAddress>,
}

/// Where a Relayed envelope goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Forward {
    /// Who must have sent it: it is accepted from a proven path of this peer alone.
    pub from: PeerIndex,
    /// Who is to get it.
    pub to: PeerIndex,
    /// What its header is to say. `None` while the other end has not said how it wants to be addressed.
    pub address: Option<RelayAddress>,
    end: ChannelEnd,
}

/// What went one way through a channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Traffic {
    /// Datagrams passed on.
    pub packets: u64,
    /// Their bytes, with the relay header.
    pub bytes: u64,
    /// Datagrams dropped because the sender was over its rate.
    pub throttled: u64,
}

/// A channel as reports show it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChannelView {
    /// The two ends, the lower index first.
    pub ends: [PeerIndex; 2],
    /// What each of the two sent.
    pub sent: [Traffic; 2],
    /// Whether both have said how they want to be addressed.
    pub complete: bool,
    /// Who asked for it first.
    pub opener: PeerIndex,
    /// Since when it is there.
    pub opened: Instant,
    /// When it was last asked for or carried something.
    pub last_used: Instant,
}

/// The channels that this node carries.
#[derive(Debug, Default)]
pub struct RelayTable {
    limits: RelayLimits,
    channels: Vec<Option<Channel>>,
    free: Vec<u32>,
    by_pair: BTreeMap<[PeerIndex; 2], u32>,
    /// When to look whether a channel is idle: not later than it can be. Use moves nothing here, so that the hot path is
    /// free of it; a channel that was used meanwhile is entered anew when its time comes.
    checks: BTreeSet<(Instant, u32)>,
    /// By peer index.
    peers: Vec<PeerUse>,
}

#[derive(Clone, Copy, Debug)]
struct Channel {
    /// In the order of their indices.
    ends: [End; 2],
    opener: PeerIndex,
    opened: Instant,
    last_used: Instant,
    check_at: Instant,
    /// How often one end had the other told what that knows already.
    doubts: Bucket,
}

#[derive(Clone, Copy, Debug)]
struct End {
    peer: PeerIndex,
    /// By this the end addresses the relay.
    uplink: RelayAddress,
    /// By this it wants to be addressed.
    downlink: Option<RelayAddress>,
    /// It is still to be told of `uplink`: there was no room for that.
    deferred: bool,
    sent: Traffic,
}

#[derive(Clone, Copy, Debug, Default)]
struct PeerUse {
    channels: usize,
    /// Channels of which it is still to be told.
    deferred: usize,
    bucket: Bucket,
    requests: Bucket,
}

impl RelayTable {
    /// A table without channels.
    pub fn new(limits: RelayLimits) -> RelayTable {
        RelayTable { limits, ..RelayTable::default() }
    }

    /// Changes what is granted. Channels that are open stay open.
    pub fn set_limits(&mut self, limits: RelayLimits) {
        self.limits = limits;
    }

    /// Whether a peer may ask for a channel now. Counts that it did.
    pub fn take_request(&mut self, now: Instant, from: PeerIndex) -> bool {
        self.peer_use(from).requests.take(now, &REQUESTS, 1)
    }

    /// Takes in that `from` asks for a channel to `to` and wants to be addressed by `address`. Asking again is harmless, and
    /// counts as use.
    ///
    /// # Errors
    /// [`RelayRefusal`]; nothing has changed then.
    pub fn open(
        &mut self,
        now: Instant,
        from: PeerIndex,
        to: PeerIndex,
        address: RelayAddress,
        handles: &mut RelayHandles,
        rng: &mut Rng,
    ) -> Result<Opened, RelayRefusal> {
        let index = match self.by_pair.get(&pair(from, to)) {
            Some(index) => *index,
            None => self.insert(now, from, to, handles, rng)?,
        };
        let side = side_of(from, to);
        let Some(channel) = self.channels.get_mut(index as usize).and_then(Option::as_mut) else {
            unreachable!("by_pair names channels that exist");
        };
        channel.last_used = now;
        // Who says again what is known finds that nothing comes back: the other end may have given its leg up meanwhile.
        let is_same = channel.ends[side].downlink.replace(address) == Some(address);
        let is_doubt = is_same && channel.doubts.take(now, &DOUBTS, 1);
        let other = &channel.ends[1 - side];
        let inform = (is_doubt || other.downlink.is_none()).then_some(other.uplink);
        Ok(Opened { answer: channel.ends[side].uplink, inform })
    }

    fn insert(
        &mut self,
        now: Instant,
        from: PeerIndex,
        to: PeerIndex,
        handles: &mut RelayHandles,
        rng: &mut Rng,
    ) -> Result<u32, RelayRefusal> {
        if from == to {
            return Err(RelayRefusal::OneEnd);
        }
        if self.by_pair.len() >= self.limits.channels {
            return Err(RelayRefusal::TotalQuota);
        }
        if self.peer_use(from).channels >= self.limits.channels_per_peer {
            return Err(RelayRefusal::PeerQuota);
        }
        self.peer_use(from).channels += 1;
        let index = self.free.pop().unwrap_or_else(|| {
            self.channels.push(None);
            self.channels.len() as u32 - 1
        });
        let peers = pair(from, to);
        let ends = [0u8, 1].map(|side| End {
            peer: peers[usize::from(side)],
            uplink: handles.allocate(rng, Receiver::Channel(ChannelEnd { channel: index, side })),
            downlink: None,
            deferred: false,
            sent: Traffic::default(),
        });
        let channel = Channel {
            ends,
            opener: from,
            opened: now,
            last_used: now,
            check_at: now + IDLE,
            doubts: Bucket::default(),
        };
        self.checks.insert((channel.check_at, index));
        self.channels[index as usize] = Some(channel);
        self.by_pair.insert(peers, index);
        Ok(index)
    }

    /// Where an envelope goes that arrived by the handle of `end`. Changes nothing and allocates nothing.
    pub fn route(&self, end: ChannelEnd) -> Option<Forward> {
        let channel = self.channels.get(end.channel as usize)?.as_ref()?;
        let (from, to) = (&channel.ends[usize::from(end.side)], &channel.ends[usize::from(1 - end.side)]);
        Some(Forward { from: from.peer, to: to.peer, address: to.downlink, end })
    }

    /// Counts that an envelope of `length` bytes is passed on as `forward` says. False where its sender is over its rate:
    /// then it is to be dropped.
    pub fn count(&mut self, now: Instant, forward: &Forward, length: usize) -> bool {
        let length = length as u64;
        let granted = match self.limits.bytes_per_peer {
            Some(rate) => self.peer_use(forward.from).bucket.take(now, &rate, length),
            None => true,
        };
        let Some(channel) = self.channels.get_mut(forward.end.channel as usize).and_then(Option::as_mut) else {
            return false;
        };
        let sent = &mut channel.ends[usize::from(forward.end.side)].sent;
        if granted {
            channel.last_used = now;
            sent.packets += 1;
            sent.bytes += length;
        } else {
            sent.throttled += 1;
        }
        granted
    }

    /// Closes the channel of a pair. Returns whether there was one; who asked for that decides whom to tell.
    pub fn close(&mut self, a: PeerIndex, b: PeerIndex, handles: &mut RelayHandles) -> bool {
        self.by_pair.get(&pair(a, b)).copied().and_then(|index| self.remove(index, handles)).is_some()
    }

    /// Closes every channel of a peer: it is gone, or its session is. Returns the other ends, which are to be told.
    pub fn close_peer(&mut self, peer: PeerIndex, handles: &mut RelayHandles) -> Vec<PeerIndex> {
        let others: Vec<PeerIndex> = self.partners(peer).collect();
        for other in &others {
            self.close(peer, *other, handles);
        }
        others
    }

    /// Closes every channel: this node relays no more. Returns the pairs; all are to be told.
    pub fn close_all(&mut self, handles: &mut RelayHandles) -> Vec<[PeerIndex; 2]> {
        let pairs: Vec<[PeerIndex; 2]> = self.by_pair.keys().copied().collect();
        for [a, b] in &pairs {
            self.close(*a, *b, handles);
        }
        pairs
    }

    /// Notes that a peer has begun a new life and forgotten how it wanted to be addressed. Returns its partners and what it is
    /// to be told for each: the present offers, which it answers if it still wants them.
    pub fn on_restart(&mut self, peer: PeerIndex) -> Vec<(PeerIndex, RelayAddress)> {
        let mut offers = Vec::new();
        for channel in self.channels.iter_mut().flatten() {
            let Some(side) = channel.ends.iter().position(|end| end.peer == peer) else { continue };
            channel.ends[side].downlink = None;
            offers.push((channel.ends[1 - side].peer, channel.ends[side].uplink));
        }
        offers
    }

    /// Notes that `to` was not told how to address this node for what goes to `other`. It is told when there is room.
    pub fn defer(&mut self, to: PeerIndex, other: PeerIndex) {
        let Some(index) = self.by_pair.get(&pair(to, other)) else { return };
        let Some(channel) = self.channels.get_mut(*index as usize).and_then(Option::as_mut) else { return };
        let is_new = !core::mem::replace(&mut channel.ends[side_of(to, other)].deferred, true);
        self.peer_use(to).deferred += usize::from(is_new);
    }

    /// The next partner of which a peer is to be told now that there is room, and how it addresses this node for it.
    pub fn take_deferred(&mut self, peer: PeerIndex) -> Option<(PeerIndex, RelayAddress)> {
        if self.peer_use(peer).deferred == 0 {
            return None;
        }
        let (end, other) = self.channels.iter_mut().flatten().find_map(|channel| {
            let side = channel.ends.iter().position(|end| end.peer == peer && end.deferred)?;
            let other = channel.ends[1 - side].peer;
            Some((&mut channel.ends[side], other))
        })?;
        end.deferred = false;
        let uplink = end.uplink;
        self.peer_use(peer).deferred -= 1;
        Some((other, uplink))
    }

    /// Closes a channel that has been idle for ten minutes at `now` and returns its ends, which are to be told. Ask until
    /// there is none.
    pub fn expire(&mut self, now: Instant, handles: &mut RelayHandles) -> Option<[PeerIndex; 2]> {
        while let Some((due, index)) = self.checks.first().copied().filter(|(due, _)| *due <= now) {
            self.checks.remove(&(due, index));
            let Some(channel) = self.channels.get_mut(index as usize).and_then(Option::as_mut) else { continue };
            let idle_at = channel.last_used + IDLE;
            if idle_at <= now {
                return self.remove(index, handles).map(|channel| channel.ends.map(|end| end.peer));
            }
            channel.check_at = idle_at;
            self.checks.insert((idle_at, index));
        }
        None
    }

    /// When to call [`RelayTable::expire`]: never later than a channel becomes idle, and earlier at most once per channel in
    /// ten minutes.
    pub fn next_deadline(&self) -> Instant {
        self.checks.first().map_or(Instant::FAR_FUTURE, |(due, _)| *due)
    }

    /// How many channels there are.
    pub fn len(&self) -> usize {
        self.by_pair.len()
    }

    /// Whether there is no channel.
    pub fn is_empty(&self) -> bool {
        self.by_pair.is_empty()
    }

    /// The channels, ordered by pair.
    pub fn iter(&self) -> impl Iterator<Item = ChannelView> + '_ {
        self.by_pair.values().filter_map(|index| self.channels.get(*index as usize)?.as_ref()).map(|channel| {
            ChannelView {
                ends: channel.ends.map(|end| end.peer),
                sent: channel.ends.map(|end| end.sent),
                complete: channel.ends.iter().all(|end| end.downlink.is_some()),
                opener: channel.opener,
                opened: channel.opened,
                last_used: channel.last_used,
            }
        })
    }

    /// The peers that this node connects with `peer`.
    pub fn partners(&self, peer: PeerIndex) -> impl Iterator<Item = PeerIndex> + '_ {
        self.by_pair.keys().filter_map(move |[low, high]| match peer {
            _ if peer == *low => Some(*high),
            _ if peer == *high => Some(*low),
            _ => None,
        })
    }

    fn remove(&mut self, index: u32, handles: &mut RelayHandles) -> Option<Channel> {
        let channel = self.channels.get_mut(index as usize)?.take()?;
        self.free.push(index);
        self.checks.remove(&(channel.check_at, index));
        self.by_pair.remove(&channel.ends.map(|end| end.peer));
        for end in &channel.ends {
            handles.release(end.uplink);
            self.peer_use(end.peer).deferred -= usize::from(end.deferred);
        }
        let of_opener = self.peer_use(channel.opener);
        of_opener.channels = of_opener.channels.saturating_sub(1);
        Some(channel)
    }

    /// What a peer uses. Peer indices are dense, so this is a table.
    fn peer_use(&mut self, peer: PeerIndex) -> &mut PeerUse {
        let index = peer.0 as usize;
        if self.peers.len() <= index {
            self.peers.resize(index + 1, PeerUse::default());
        }
        &mut self.peers[index]
    }
}

fn pair(a: PeerIndex, b: PeerIndex) -> [PeerIndex; 2] {
    [a.min(b), a.max(b)]
}

/// Which end of the pair `from` is.
fn side_of(from: PeerIndex, to: PeerIndex) -> usize {
    usize::from(from > to)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use core::num::NonZeroU32;
    use proptest::prelude::*;

    const A: PeerIndex = PeerIndex(3);
    const B: PeerIndex = PeerIndex(1);

    fn address(n: u32) -> RelayAddress {
        RelayAddress { handle: NonZeroU32::new(n).unwrap(), token: u64::from(n) << 32 }
    }

    struct World {
        table: RelayTable,
        handles: RelayHandles,
        rng: Rng,
        now: Instant,
    }

    impl World {
        fn new(limits: RelayLimits) -> World {
            World {
                table: RelayTable::new(limits),
                handles: RelayHandles::default(),
                rng: Rng::from_seed([9; 32]),
                now: Instant::ORIGIN,
            }
        }

        fn open(&mut self, from: PeerIndex, to: PeerIndex, n: u32) -> Result<Opened, RelayRefusal> {
            self.table.open(self.now, from, to, address(n), &mut self.handles, &mut self.rng)
        }

        fn route(&self, at: RelayAddress) -> Option<Forward> {
            match self.handles.get(at.handle.get(), at.token)? {
                Receiver::Channel(end) => self.table.route(end),
                Receiver::Leg { .. } => None,
            }
        }

        fn expire(&mut self) -> Option<[PeerIndex; 2]> {
            self.table.expire(self.now, &mut self.handles)
        }
    }

    #[test]
    fn a_peer_asks_so_often_and_no_more() {
        let mut world = World::new(RelayLimits::default());
        let mut taken =
            |at, from| (0..1_000).filter(|_| world.table.take_request(Instant::from_millis(at), from)).count();
        assert_eq!((taken(1_000, A), taken(1_000, B)), (512, 512));
        assert_eq!(taken(3_000, A), 128);
    }

    #[test]
    fn what_could_not_be_told_is_told_later() {
        let mut world = World::new(RelayLimits::default());
        for other in 10..14 {
            world.open(A, PeerIndex(other), other).unwrap();
            world.table.defer(A, PeerIndex(other));
            world.table.defer(A, PeerIndex(other));
        }
        world.table.defer(A, PeerIndex(99));
        world.table.close(A, PeerIndex(11), &mut world.handles);
        let told: Vec<_> = core::iter::from_fn(|| world.table.take_deferred(A)).map(|(other, _)| other.0).collect();
        assert_eq!(told, [10, 12, 13]);
        assert_eq!(world.table.take_deferred(PeerIndex(10)), None);
    }

    #[test]
    fn both_ends_state_their_address_and_are_joined() {
        let mut world = World::new(RelayLimits::default());
        let opened = world.open(A, B, 7).unwrap();
        assert_eq!(world.open(A, B, 7), Ok(opened), "asking again changes nothing");
        let to_b = opened.inform.unwrap();
        let forward = world.route(opened.answer).unwrap();
        assert_eq!((forward.from, forward.to, forward.address), (A, B, None), "B has not answered");

        let answered = world.open(B, A, 8).unwrap();
        assert_eq!(answered, Opened { answer: to_b, inform: None });
        assert_eq!(world.open(A, B, 9).unwrap().inform, None);
        assert_eq!(world.open(A, B, 9).unwrap().inform, Some(to_b), "asking again is doubt");
        world.open(A, B, 7).unwrap();
        let forward = world.route(opened.answer).unwrap();
        assert_eq!(forward.address, Some(address(8)));
        assert!(world.table.count(world.now, &forward, 100));
        let back = world.route(to_b).unwrap();
        assert_eq!((back.from, back.to, back.address), (B, A, Some(address(7))));
        let view = world.table.iter().next().unwrap();
        assert_eq!((view.ends, view.complete, view.opener), ([B, A], true, A));
        assert_eq!((view.sent[1].packets, view.sent[1].bytes, view.sent[0].packets), (1, 100, 0));
    }

    #[test]
    fn a_closed_channel_carries_nothing() {
        let mut world = World::new(RelayLimits::default());
        let at = world.open(A, B, 7).unwrap().answer;
        let forward = world.route(at).unwrap();
        assert!(world.table.close(B, A, &mut world.handles));
        assert!(!world.table.close(B, A, &mut world.handles));
        assert_eq!(world.route(at), None);
        assert!(!world.table.count(world.now, &forward, 1));
        assert!(world.handles.is_empty() && world.table.is_empty());
        assert_eq!(world.table.next_deadline(), Instant::FAR_FUTURE);
        assert_ne!(world.open(A, B, 7).unwrap().answer, at, "a new channel has new addresses");
    }

    #[test]
    fn a_restarted_end_is_asked_anew() {
        let mut world = World::new(RelayLimits::default());
        let to_b = world.open(A, B, 7).unwrap().inform.unwrap();
        world.open(B, A, 8).unwrap();
        assert_eq!(world.table.on_restart(B), [(A, to_b)]);
        assert_eq!(world.open(A, B, 7).unwrap().inform, Some(to_b));
        let at = world.open(B, A, 9).unwrap().answer;
        assert_eq!(at, to_b);
        assert_eq!(world.route(at).unwrap().address, Some(address(7)));
    }

    #[test]
    fn quotas_refuse_who_asks_and_nobody_else() {
        let limits = RelayLimits { channels: 6, channels_per_peer: 4, bytes_per_peer: None };
        let mut world = World::new(limits);
        assert_eq!(world.open(A, A, 1), Err(RelayRefusal::OneEnd));
        assert_eq!(RelayRefusal::OneEnd.reason(), RelayCloseReason::REFUSED);
        for other in 10..14 {
            world.open(A, PeerIndex(other), 1).unwrap();
        }
        assert_eq!(world.open(A, PeerIndex(14), 1), Err(RelayRefusal::PeerQuota));
        assert_eq!(RelayRefusal::PeerQuota.reason(), RelayCloseReason::QUOTA);
        assert!(world.open(A, PeerIndex(13), 1).is_ok(), "what is open may be asked for again");
        world.open(PeerIndex(14), A, 1).unwrap();
        world.open(PeerIndex(15), A, 1).unwrap();
        assert_eq!(world.open(PeerIndex(16), A, 1), Err(RelayRefusal::TotalQuota));
        assert_eq!(world.handles.len(), 12);
        assert_eq!(world.table.close_peer(A, &mut world.handles).len(), 6);
        assert!(world.open(A, PeerIndex(14), 1).is_ok());
    }

    #[test]
    fn a_limited_peer_is_throttled_and_its_partner_is_not() {
        let rate = Rate { units: 1_000, per: Duration::from_secs(1), burst: 2_000 };
        let mut world = World::new(RelayLimits { bytes_per_peer: Some(rate), ..RelayLimits::default() });
        let opened = world.open(A, B, 7).unwrap();
        let (up, down) = (world.route(opened.answer).unwrap(), world.route(opened.inform.unwrap()).unwrap());
        let passed = (0..10).filter(|_| world.table.count(world.now, &up, 500)).count();
        assert_eq!(passed, 4);
        assert!(world.table.count(world.now, &down, 500));
        assert_eq!(world.table.iter().next().unwrap().sent[1].throttled, 6);
        assert!(world.table.count(world.now + Duration::from_millis(500), &up, 500));
    }

    #[test]
    fn idle_channels_end_and_used_ones_stay() {
        let mut world = World::new(RelayLimits::default());
        let at = world.open(A, B, 7).unwrap().answer;
        world.open(A, PeerIndex(9), 7).unwrap();
        world.now = Instant::ORIGIN + IDLE / 2;
        let forward = world.route(at).unwrap();
        world.table.count(world.now, &forward, 1);
        world.now = world.table.next_deadline();
        assert_eq!(world.now, Instant::ORIGIN + IDLE);
        assert_eq!(world.expire(), Some([A, PeerIndex(9)]));
        assert_eq!(world.expire(), None);
        assert_eq!(world.table.next_deadline(), Instant::ORIGIN + IDLE / 2 + IDLE);
        world.now = world.table.next_deadline();
        assert_eq!(world.expire(), Some([B, A]));
        assert!(world.table.is_empty() && world.handles.is_empty());
    }

    #[derive(Clone, Debug)]
    enum Op {
        Open(u32, u32),
        Close(u32, u32),
        ClosePeer(u32),
        Restart(u32),
        Send(u32, u32),
        Wait(u64),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            6 => (0u32..6, 0u32..6).prop_map(|(a, b)| Op::Open(a, b)),
            2 => (0u32..6, 0u32..6).prop_map(|(a, b)| Op::Close(a, b)),
            1 => (0u32..6).prop_map(Op::ClosePeer),
            1 => (0u32..6).prop_map(Op::Restart),
            4 => (0u32..6, 0u32..6).prop_map(|(a, b)| Op::Send(a, b)),
            2 => (1u64..900).prop_map(Op::Wait),
        ]
    }

    /// What a relay knows of a pair, said as plainly as possible: how each end is addressed and when it was used.
    #[derive(Default)]
    struct Model(BTreeMap<[PeerIndex; 2], Known>);

    /// How the ends want to be addressed, who asked first, when it was used last.
    type Known = ([Option<RelayAddress>; 2], PeerIndex, Instant);

    proptest! {
        #[test]
        fn does_what_a_plain_map_does(ops in prop::collection::vec(op(), 0..120)) {
            let limits = RelayLimits { channels: 9, channels_per_peer: 3, bytes_per_peer: None };
            let (mut world, mut model) = (World::new(limits), Model::default());
            let mut uplinks: BTreeMap<(PeerIndex, PeerIndex), RelayAddress> = BTreeMap::new();
            for (n, op) in (1u32..).zip(ops) {
                match op {
                    Op::Open(a, b) => {
                        let (a, b) = (PeerIndex(a), PeerIndex(b));
                        let known = model.0.contains_key(&pair(a, b));
                        let asked = model.0.values().filter(|(_, opener, _)| *opener == a).count();
                        let fits = known || (a != b && model.0.len() < 9 && asked < 3);
                        let opened = world.open(a, b, n);
                        prop_assert_eq!(opened.is_ok(), fits);
                        if let Ok(opened) = opened {
                            let (ends, _, used) = model.0.entry(pair(a, b)).or_insert(([None; 2], a, world.now));
                            *used = world.now;
                            ends[side_of(a, b)] = Some(address(n));
                            prop_assert_eq!(opened.inform.is_none(), ends[side_of(b, a)].is_some());
                            let former = uplinks.insert((a, b), opened.answer);
                            prop_assert!(!known || former.is_none_or(|former| former == opened.answer));
                            if let Some(inform) = opened.inform {
                                uplinks.insert((b, a), inform);
                            }
                        }
                    }
                    Op::Close(a, b) => {
                        let (a, b) = (PeerIndex(a), PeerIndex(b));
                        let known = model.0.remove(&pair(a, b)).is_some();
                        prop_assert_eq!(world.table.close(a, b, &mut world.handles), known);
                    }
                    Op::ClosePeer(a) => {
                        let before = model.0.len();
                        model.0.retain(|ends, _| !ends.contains(&PeerIndex(a)));
                        let told = world.table.close_peer(PeerIndex(a), &mut world.handles);
                        prop_assert_eq!(told.len(), before - model.0.len());
                    }
                    Op::Restart(a) => {
                        for (ends, (addresses, ..)) in &mut model.0 {
                            if let Some(side) = ends.iter().position(|end| *end == PeerIndex(a)) {
                                addresses[side] = None;
                            }
                        }
                        for (other, uplink) in world.table.on_restart(PeerIndex(a)) {
                            uplinks.insert((PeerIndex(a), other), uplink);
                        }
                    }
                    Op::Send(a, b) => {
                        let (a, b) = (PeerIndex(a), PeerIndex(b));
                        let forward = uplinks.get(&(a, b)).and_then(|at| world.route(*at));
                        let known = model.0.get_mut(&pair(a, b)).filter(|_| uplinks.contains_key(&(a, b)));
                        prop_assert_eq!(forward.is_some(), known.is_some());
                        if let (Some(forward), Some((ends, _, used))) = (forward, known) {
                            prop_assert_eq!((forward.from, forward.to), (a, b));
                            prop_assert_eq!(forward.address, ends[side_of(b, a)]);
                            prop_assert!(world.table.count(world.now, &forward, 10));
                            *used = world.now;
                        }
                    }
                    Op::Wait(seconds) => {
                        let end = world.now + Duration::from_secs(seconds);
                        // Only deadlines wake the table, as they do in a node.
                        while world.table.next_deadline() <= end {
                            world.now = world.now.max(world.table.next_deadline());
                            while let Some(ends) = world.expire() {
                                let (.., used) = model.0.remove(&ends).unwrap();
                                prop_assert_eq!(used + IDLE, world.now);
                            }
                        }
                        world.now = end;
                        prop_assert!(model.0.values().all(|(.., used)| *used + IDLE > end));
                    }
                }
                uplinks.retain(|(a, b), _| model.0.contains_key(&pair(*a, *b)));
                prop_assert_eq!(world.table.len(), model.0.len());
                prop_assert_eq!(world.handles.len(), model.0.len() * 2);
                prop_assert!(world.table.iter().map(|view| view.ends).eq(model.0.keys().copied()));
            }
        }
    }
}
