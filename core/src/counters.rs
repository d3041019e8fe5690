//! What happened, counted. Counters only ever grow.

/// Why a datagram or a packet was dropped. Each has its own counter, and reports use [`DropReason::name`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum DropReason {
    /// Not an envelope: too short, wrong magic, unknown flags, lengths that do not fit.
    Malformed,
    /// An envelope of a version that this node does not speak.
    UnknownVersion,
    /// An envelope of a type that this node does not know.
    UnknownType,
    /// A sealed envelope, HelloAck or Cookie for a session index that is not ours.
    UnknownSession,
    /// The AEAD tag is wrong.
    Authentication,
    /// A sealed envelope that was received before, or is older than the replay window.
    Replay,
    /// A session's key has done all it may.
    KeyExhausted,
    /// A Hello whose MAC shows that its sender does not know this node or this network.
    HelloMac,
    /// A Hello, HelloAck or Cookie that fails cryptographically.
    Handshake,
    /// A Hello beyond what is admitted under load.
    HelloRate,
    /// A Hello from a key that is not allowed.
    UnauthorizedPeer,
    /// A packet for which no peer owns the destination.
    UnknownRoute,
    /// A packet whose source address does not belong to the peer that sent it.
    UnauthorizedSource,
    /// A packet to a peer without a session, after the queue gave it up.
    NoSession,
    /// An older queued packet gave way to a newer one.
    QueueOverflow,
    /// A packet to a peer that said goodbye.
    PeerDeparted,
    /// What a peer or the host handed over is not an IP packet.
    NotIp,
    /// A packet larger than a datagram can carry.
    TooLarge,
    /// Control beyond its queue, or more requests in one envelope than are answered.
    ControlOverflow,
    /// A Relayed envelope with a handle or token that this node did not give out.
    UnknownChannel,
    /// A Relayed envelope that did not come by a proven path of the peer whose channel it names.
    RelaySource,
    /// An envelope that came straight from where its sender may not be: another peer is there, or signaling led there and is
    /// not allowed any more.
    ForeignPlace,
    /// A Relayed envelope for a peer that is not reached at the moment.
    ChannelNotReady,
    /// A Relayed envelope beyond what its sender may send through this node.
    RelayQuota,
    /// A Relayed envelope inside another.
    NestedRelay,
    /// A packet whose fragments did not come together.
    Reassembly,
}

impl DropReason {
    /// Every reason, in the order of the counters.
    pub const ALL: [DropReason; 26] = [
        DropReason::Malformed,
        DropReason::UnknownVersion,
        DropReason::UnknownType,
        DropReason::UnknownSession,
        DropReason::Authentication,
        DropReason::Replay,
        DropReason::KeyExhausted,
        DropReason::HelloMac,
        DropReason::Handshake,
        DropReason::HelloRate,
        DropReason::UnauthorizedPeer,
        DropReason::UnknownRoute,
        DropReason::UnauthorizedSource,
        DropReason::NoSession,
        DropReason::QueueOverflow,
        DropReason::PeerDeparted,
        DropReason::NotIp,
        DropReason::TooLarge,
        DropReason::ControlOverflow,
        DropReason::UnknownChannel,
        DropReason::RelaySource,
        DropReason::ForeignPlace,
        DropReason::ChannelNotReady,
        DropReason::RelayQuota,
        DropReason::NestedRelay,
        DropReason::Reassembly,
    ];

    /// The name used in reports.
    pub const fn name(self) -> &'static str {
        match self {
            DropReason::Malformed => "malformed",
            DropReason::UnknownVersion => "unknown_version",
            DropReason::UnknownType => "unknown_type",
            DropReason::UnknownSession => "unknown_session",
            DropReason::Authentication => "authentication",
            DropReason::Replay => "replay",
            DropReason::KeyExhausted => "key_exhausted",
            DropReason::HelloMac => "hello_mac",
            DropReason::Handshake => "handshake",
            DropReason::HelloRate => "hello_rate",
            DropReason::UnauthorizedPeer => "unauthorized_peer",
            DropReason::UnknownRoute => "unknown_route",
            DropReason::UnauthorizedSource => "unauthorized_source",
            DropReason::NoSession => "no_session",
            DropReason::QueueOverflow => "queue_overflow",
            DropReason::PeerDeparted => "peer_departed",
            DropReason::NotIp => "not_ip",
            DropReason::TooLarge => "too_large",
            DropReason::ControlOverflow => "control_overflow",
            DropReason::UnknownChannel => "unknown_channel",
            DropReason::RelaySource => "relay_source",
            DropReason::ForeignPlace => "foreign_place",
            DropReason::ChannelNotReady => "channel_not_ready",
            DropReason::RelayQuota => "relay_quota",
            DropReason::NestedRelay => "nested_relay",
            DropReason::Reassembly => "reassembly",
        }
    }
}

/// The counters of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// IP packets sealed and sent.
    pub packets_sent: u64,
    /// Their bytes, as IP packets.
    pub bytes_sent: u64,
    /// IP packets opened and accepted.
    pub packets_received: u64,
    /// Their bytes, as IP packets.
    pub bytes_received: u64,
    /// Packets for which no peer owns the destination.
    pub route_misses: u64,
    /// Handshakes that were begun and given up, and sessions closed by a fault.
    pub session_failures: u64,
    /// Sessions established, rekeys included.
    pub sessions_established: u64,
    /// Times that the preferred path of a peer changed from one usable path to another.
    pub path_switches: u64,
    /// Datagrams passed on between two others.
    pub packets_relayed: u64,
    /// Their bytes, with the relay's header.
    pub bytes_relayed: u64,
    /// Channels that were asked for and refused.
    pub relay_refusals: u64,
    /// Signals made, received, carried for others, and not carried.
    pub signals_sent: u64,
    /// See `signals_sent`.
    pub signals_received: u64,
    /// See `signals_sent`.
    pub signals_carried: u64,
    /// See `signals_sent`.
    pub signals_refused: u64,
    /// Addresses of Signals that were not tried: what they are, or too many.
    pub candidates_refused: u64,
    /// Addresses tried by a Ping.
    pub checks_sent: u64,
    /// Fragments sent.
    pub fragments_sent: u64,
    /// Packets that went by a second path too, because the preferred one was in doubt.
    pub packets_mirrored: u64,
    /// Times that a preferred path was lost, or lost too much, and another took over.
    pub fallback_transitions: u64,
    /// Packets carried for this node by a relay.
    pub relay_usage: u64,
    /// Hellos sent, repeats included.
    pub hellos_sent: u64,
    /// Hellos with a right MAC that arrived.
    pub hellos_received: u64,
    /// Cookies sent.
    pub cookies_sent: u64,
    /// Hellos that were seen before and got the stored answer.
    pub hellos_replayed: u64,
    drops: [u64; DropReason::ALL.len()],
}

impl Counters {
    /// Counts one drop.
    pub(crate) fn drop(&mut self, reason: DropReason) {
        self.drops[reason as usize] += 1;
    }

    /// How often something was dropped for `reason`.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize]
    }

    /// Every reason with its count.
    pub fn drops(&self) -> impl Iterator<Item = (DropReason, u64)> {
        DropReason::ALL.into_iter().zip(self.drops)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_listed_in_the_order_of_their_counters() {
        for (index, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(index, reason as usize);
        }
    }
}
