//! The overlay: IP packets between the TUN device and sessions.
//!
//! Nothing here knows of peers beyond an index, of keys or of sockets. The rooms, in the order in which a packet meets
//! them:
//!
//! - [`TunPacket`] is what one read of the TUN gave: an IP packet of up to 64 KiB and the offloads that the kernel asks
//!   for in the `virtio_net_hdr` before it. [`IpPacket`] is the view of the packet itself.
//! - [`RouteTable`] says which peer owns an address, on the way out by destination, on the way in by source.
//! - [`Segments`] cuts a large packet into packets of the path's size, each written once, straight into its place in
//!   the [`Batch`], where it is sealed and from where it is sent.
//! - [`Gather`] does the opposite: packets that were opened in place in one receive buffer leave as few large writes
//!   to the TUN, as lists of slices.
//! - Where a path carries less than a packet needs, [`Fragments`] cuts it and [`Reassembly`] puts it together again, or
//!   [`write_too_big`] tells the host; [`clamp_mss`] keeps TCP from getting there.
//!
//! Lengths and offsets are those that the packet itself proves. What the kernel or a peer claims about them is only
//! ever compared.

#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used)]

mod batch;
mod checksum;
mod fragment;
mod gather;
mod mss;
mod packet;
mod prefix;
mod routes;
mod segment;
#[cfg(test)]
mod testing;
mod too_big;
mod virtio;

pub use batch::{Batch, Chunk, Refused, Reserved};
pub use checksum::Sum;
pub use fragment::{Fragments, Reassembly};
pub use gather::{Gather, Merge};
pub use mss::{clamp_mss, is_tcp_syn};
pub use packet::{Fragment, IpPacket, PacketError, TCP, TcpHeader, Transport, UDP, UdpHeader};
pub use prefix::{Prefix, PrefixError};
pub use routes::{PeerIndex, RouteConflict, RouteTable};
pub use segment::{ChecksumError, ChecksumMode, Segments, finish_checksum};
pub use too_big::{MAX_TOO_BIG_LEN, write_too_big};
pub use virtio::{Offload, TunPacket, TunPacketError, VirtioNetHeader};
