//! What went wrong, or was given up, at the host's doors: counted by kind, never a reason to stop.

use std::sync::atomic::{AtomicU64, Ordering};

/// The kinds of event that [`RuntimeCounters`] counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
#[non_exhaustive]
pub enum Count {
    /// A datagram was larger than the path's MTU allows (EMSGSIZE).
    UdpTooLong,
    /// The source address of a path had left this host; the datagram went out from another one.
    UdpSourceLost,
    /// No route to the destination, or its network is down.
    UdpUnreachable,
    /// An ICMP "port unreachable" came back.
    UdpRefused,
    /// The host's firewall forbade the datagram (EPERM, EACCES).
    UdpForbidden,
    /// The kernel had no memory for the datagram (ENOBUFS, ENOMEM).
    UdpNoMemory,
    /// The socket's send buffer was full and a control datagram was given up.
    UdpBufferFull,
    /// The kernel or the driver refused segmentation offload; datagrams are sent one by one from then on.
    UdpOffloadRefused,
    /// Any other error of a send.
    UdpSendOther,
    /// An error of a receive.
    UdpReceive,
    /// The TUN refused a packet: the interface was down (EIO), or the packet malformed (EINVAL).
    TunWriteRefused,
    /// The TUN's queue was full and a packet was dropped.
    TunQueueFull,
    /// Any other error of a TUN write.
    TunWriteOther,
    /// An error of a TUN read that does not end the device.
    TunRead,
    /// A frame from the TUN was too short or its header malformed.
    TunMalformed,
    /// A host name of a bootstrap endpoint could not be resolved.
    ResolveFailed,
}

/// Every kind with the name that reports use.
const KINDS: [(Count, &str); 16] = [
    (Count::UdpTooLong, "udp_too_long"),
    (Count::UdpSourceLost, "udp_source_lost"),
    (Count::UdpUnreachable, "udp_unreachable"),
    (Count::UdpRefused, "udp_refused"),
    (Count::UdpForbidden, "udp_forbidden"),
    (Count::UdpNoMemory, "udp_no_memory"),
    (Count::UdpBufferFull, "udp_buffer_full"),
    (Count::UdpOffloadRefused, "udp_offload_refused"),
    (Count::UdpSendOther, "udp_send_other"),
    (Count::UdpReceive, "udp_receive"),
    (Count::TunWriteRefused, "tun_write_refused"),
    (Count::TunQueueFull, "tun_queue_full"),
    (Count::TunWriteOther, "tun_write_other"),
    (Count::TunRead, "tun_read"),
    (Count::TunMalformed, "tun_malformed"),
    (Count::ResolveFailed, "resolve_failed"),
];

/// Counters of the runtime's own input and output, apart from the node's.
///
/// The engine's task writes them; anyone may read them at any time.
#[derive(Debug, Default)]
pub struct RuntimeCounters([AtomicU64; KINDS.len()]);

impl RuntimeCounters {
    /// Adds one to a counter.
    pub(crate) fn add(&self, kind: Count) {
        self.add_many(kind, 1);
    }

    /// Adds `n` to a counter.
    pub(crate) fn add_many(&self, kind: Count, n: u64) {
        self.0[kind as usize].fetch_add(n, Ordering::Relaxed);
    }

    /// The value of one counter.
    pub fn get(&self, kind: Count) -> u64 {
        self.0[kind as usize].load(Ordering::Relaxed)
    }

    /// All counters with the names that reports use, in a fixed order.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        KINDS.iter().map(|(kind, name)| (*name, self.get(*kind)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_own_slot_and_name() {
        for (slot, (kind, _)) in KINDS.iter().enumerate() {
            assert_eq!(*kind as usize, slot);
        }
        let counters = RuntimeCounters::default();
        counters.add_many(Count::TunQueueFull, 3);
        assert_eq!(counters.iter().find(|(_, n)| *n > 0), Some(("tun_queue_full", 3)));
    }
}
