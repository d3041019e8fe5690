//! Socket options that `socket2` does not have.

use nix::sys::socket::{setsockopt, sockopt};
use std::os::fd::AsFd;

/// Raises both socket buffers to `bytes`: beyond the system's limit where the process has CAP_NET_ADMIN, up to
/// `net.core.rmem_max` and `wmem_max` otherwise.
pub(crate) fn enlarge_buffers<S: AsFd>(socket: &S, bytes: usize) {
    // A smaller buffer than asked for costs throughput and nothing else, so that a refusal is no error.
    if setsockopt(socket, sockopt::RcvBufForce, &bytes).is_err() {
        let _ = setsockopt(socket, sockopt::RcvBuf, &bytes);
    }
    if setsockopt(socket, sockopt::SndBufForce, &bytes).is_err() {
        let _ = setsockopt(socket, sockopt::SndBuf, &bytes);
    }
}

/// Turns off the receive timestamps that quinn-udp asks for: nobody reads them, and each costs a clock reading and a
/// control message.
pub(crate) fn disable_timestamps<S: AsFd>(socket: &S) {
    let _ = setsockopt(socket, sockopt::ReceiveTimestampns, &false);
}

/// The errors of a send by what is to be done about them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SendFault {
    /// An argument was refused: the source address may be gone, the segments too large, or offload not supported.
    Argument,
    /// EADDRNOTAVAIL: the source address is gone.
    Source,
    TooLong,
    Unreachable,
    Refused,
    Forbidden,
    NoMemory,
    Other,
}

/// Classifies an error of `sendmsg`.
pub(crate) fn classify(error: &std::io::Error) -> SendFault {
    use nix::errno::Errno;
    match error.raw_os_error().map(Errno::from_raw) {
        // EIO: the driver of the outgoing device lacks checksum offload, which segmentation needs.
        Some(Errno::EINVAL | Errno::EIO) => SendFault::Argument,
        Some(Errno::EADDRNOTAVAIL) => SendFault::Source,
        Some(Errno::EMSGSIZE) => SendFault::TooLong,
        Some(Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::ENETDOWN | Errno::EHOSTDOWN) => SendFault::Unreachable,
        Some(Errno::ECONNREFUSED) => SendFault::Refused,
        Some(Errno::EPERM | Errno::EACCES) => SendFault::Forbidden,
        Some(Errno::ENOBUFS | Errno::ENOMEM) => SendFault::NoMemory,
        _ => SendFault::Other,
    }
}
