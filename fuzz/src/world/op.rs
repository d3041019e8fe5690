//! What the fuzzer may do to two nodes and to the network between them.

use arbitrary::Arbitrary;

use crate::Edit;

/// A whole run.
#[derive(Arbitrary, Clone, Debug)]
pub struct Scenario {
    /// How the nodes are made.
    pub setup: Setup,
    /// What happens, in order.
    pub ops: Vec<Op>,
}

/// How the nodes are made.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Setup {
    /// Whether each node is fast at AES.
    pub aes_is_fast: [bool; 2],
    /// Whether each node's host completes open checksums.
    pub checksum_offload: [bool; 2],
    /// Whether the network has a key.
    pub network_key: bool,
    /// Whether the first node knows where the second one is; the second always knows where the first is.
    pub both_know: bool,
    /// Whether outputs wait until an op asks for them.
    pub lazy: bool,
    /// Whether the network has told the nodes on which address a datagram arrived.
    pub local_known: bool,
    /// The wall clocks, which may be anything.
    pub clocks: [u64; 2],
    /// Whether all of it is done twice, to be compared.
    pub twice: bool,
}

/// Which of the two nodes.
#[derive(Arbitrary, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// The first: it has a fixed address where it is at home.
    Alpha,
    /// The second.
    Beta,
}

impl Side {
    /// Both.
    pub const BOTH: [Side; 2] = [Side::Alpha, Side::Beta];

    /// The other one.
    pub fn other(self) -> Side {
        match self {
            Side::Alpha => Side::Beta,
            Side::Beta => Side::Alpha,
        }
    }
}

/// One thing that happens.
#[derive(Arbitrary, Clone, Debug)]
pub enum Op {
    /// A datagram under way arrives.
    Deliver(u8),
    /// Everything under way arrives, in order or in reverse.
    DeliverAll {
        /// The latest first.
        reversed: bool,
    },
    /// A datagram is lost.
    Drop(u8),
    /// Everything under way is lost.
    DropAll,
    /// A datagram arrives, and stays under way.
    Duplicate(u8),
    /// A datagram arrives changed, and stays under way as it was.
    Corrupt(u8, Edit),
    /// A datagram comes back to who sent it.
    Reflect(u8),
    /// A datagram arrives from an address that its sender does not have, and stays under way.
    Spoof(u8, u8),
    /// Bytes of nobody arrive.
    Junk {
        /// At whom.
        to: Side,
        /// From which of the addresses.
        from: u8,
        /// What.
        bytes: Vec<u8>,
    },
    /// A host sends a packet.
    Send(Side, Outgoing),
    /// The batch goes out.
    Flush(Side),
    /// Time passes, and each node wakes exactly when it said.
    Pass {
        /// Hundredths of a second.
        hundredths: u16,
    },
    /// Time passes while nobody looks: each node is woken once, late.
    Sleep {
        /// Seconds.
        seconds: u16,
    },
    /// A node is woken for no reason.
    Wake(Side),
    /// A node is told a time that is past.
    Past(Side, u16),
    /// A node is asked for so many outputs.
    Poll(Side, u8),
    /// A node gets another address.
    Move(Side, u8),
    /// A node dies and starts anew.
    Restart(Side),
    /// Somebody wants something of a node.
    Order(Side, Order),
}

/// A packet that a host sends.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Outgoing {
    /// IPv6.
    pub v6: bool,
    /// UDP.
    pub udp: bool,
    /// Whose address is its source.
    pub source: Owner,
    /// Whose address is its destination.
    pub destination: Owner,
    /// Bytes of payload.
    pub len: u16,
    /// How long the segments are into which it is to be cut; with 0 it goes whole.
    pub segment: u8,
    /// Whether its checksum is open; where it is to be cut it is in any case.
    pub open: bool,
    /// Whether it waits in the batch.
    pub hold: bool,
    /// IPv4 identification, TCP flags and the like.
    pub odds: u8,
}

/// Whose an overlay address is.
#[derive(Arbitrary, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    /// The one that sends.
    Own,
    /// The other node.
    Other,
    /// A third one, which is configured and never there.
    Absent,
    /// Nobody.
    Nobody,
}

/// A command.
#[derive(Arbitrary, Clone, Debug)]
pub enum Order {
    /// A Ping.
    Ping(u64),
    /// Endpoints of the other node.
    Endpoints(u8),
    /// Another list of peers.
    Peers(PeerList),
    /// The host's addresses changed.
    Network(u8),
    /// The wall clock was set.
    Clock(u64),
    /// The node says goodbye.
    Shutdown,
}

/// Who the peers are.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum PeerList {
    /// The other node and the absent one.
    Both,
    /// The other node alone.
    Other,
    /// The absent one alone.
    Absent,
    /// Nobody.
    Nobody,
    /// Both, each with the ranges of the other.
    Swapped,
    /// What no node takes: two peers with one range.
    Overlapping,
}
