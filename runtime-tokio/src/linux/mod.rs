//! What only Linux has: the TUN driver, rtnetlink, a few socket options, the clock that counts sleep.
//!
//! A second host is a second folder with the same names in it.

pub(crate) mod network;
pub(crate) mod sleep;
pub(crate) mod socket;
pub(crate) mod tun;
pub(crate) mod watch;
