//! The kernel's TUN driver, by way of tun-rs.
//!
//! With offload on, tun-rs sets IFF_VNET_HDR and TUNSETOFFLOAD, and its plain reads and writes carry the header and the
//! packet as the kernel has them.

use std::io::{self, IoSlice};
use std::task::{Context, Poll};

use tun_rs::{AsyncDevice, DeviceBuilder};
use vine_core::overlay::Merge;

use crate::tun::{TunConfig, VNET_HEADER};

/// Most parts of one write: what a gathered packet has. The kernel's own limit is 1024 slices.
const MAX_PARTS: usize = 64;

/// More parts than a packet has that was not gathered: filling a short array costs less than filling a long one.
const FEW_PARTS: usize = 4;

/// Longest interface name: IFNAMSIZ without the terminating zero.
const MAX_NAME: usize = 15;

/// Why a TUN interface could not be created.
#[derive(Debug, thiserror::Error)]
pub enum TunError {
    /// The kernel does not take such a name.
    #[error("`{0}` is no interface name: 1 to 15 bytes, without white space, `/`, `:` or `%`")]
    Name(String),
    /// An interface of that name exists. It belongs to somebody, so that it is neither taken over nor removed.
    #[error("an interface named {0} exists already; choose another tun.name, or remove it with `ip link delete {0}`")]
    Exists(String),
    /// No TUN driver in this kernel, or no device node in this container.
    #[error("/dev/net/tun is missing: load the driver with `modprobe tun`, or pass the device into the container")]
    NoDriver,
    /// No privilege.
    #[error("not permitted to create the interface {0}: run as root, or grant CAP_NET_ADMIN")]
    NotPermitted(String),
    /// The MTU was refused.
    #[error("the interface {name} does not take an MTU of {mtu}: {source}")]
    Mtu {
        /// Name of the interface.
        name: String,
        /// The MTU asked for.
        mtu: u16,
        /// What the kernel said.
        source: io::Error,
    },
    /// Anything else.
    #[error("cannot create the interface {0}: {1}")]
    Other(String, #[source] io::Error),
}

/// A TUN interface. It vanishes when this is dropped.
pub(crate) struct KernelTun {
    device: AsyncDevice,
    index: u32,
}

impl KernelTun {
    /// Creates the interface with its MTU; it stays down and without addresses.
    ///
    /// The caller has made sure that no interface of that name exists: the driver would attach to a persistent one.
    pub(crate) fn create(config: &TunConfig) -> Result<KernelTun, TunError> {
        check_name(&config.name)?;
        let device = DeviceBuilder::new()
            .name(config.name.as_str())
            .enable(false)
            .with(|linux| {
                linux.offload(true);
            })
            .build_async()
            .map_err(|error| explain(&config.name, error))?;
        let other = |error| TunError::Other(config.name.clone(), error);
        let index = device.if_index().map_err(other)?;
        device.set_mtu(config.mtu).map_err(|source| TunError::Mtu {
            name: config.name.clone(),
            mtu: config.mtu,
            source,
        })?;
        Ok(KernelTun { device, index })
    }

    /// The kernel's number for the interface.
    pub(crate) fn index(&self) -> u32 {
        self.index
    }

    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.device.poll_readable(cx)
    }

    pub(crate) fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.device.try_recv(buffer)
    }

    /// Writes the header and the parts of one packet; at most [`MAX_PARTS`] parts.
    pub(crate) fn try_write(&self, header: &[u8; VNET_HEADER], parts: &[&[u8]]) -> io::Result<()> {
        match parts.len() {
            0..FEW_PARTS => self.write_slices::<FEW_PARTS>(header, parts),
            FEW_PARTS..=MAX_PARTS => self.write_slices::<{ MAX_PARTS + 1 }>(header, parts),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    /// `parts` are fewer than `N`.
    fn write_slices<const N: usize>(&self, header: &[u8; VNET_HEADER], parts: &[&[u8]]) -> io::Result<()> {
        let mut slices = [IoSlice::new(&[]); N];
        slices[0] = IoSlice::new(header);
        for (slice, part) in slices[1..].iter_mut().zip(parts) {
            *slice = IoSlice::new(part);
        }
        self.device.try_send_vectored(&slices[..=parts.len()]).map(|_| ())
    }

    /// What the interface takes as one large packet.
    pub(crate) fn merges(&self) -> Merge {
        if self.device.udp_gso() { Merge::TcpAndUdp } else { Merge::Tcp }
    }
}

/// Whether an error of a read means that the interface is gone for good.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    use nix::errno::Errno;
    // EBADFD: somebody deleted the interface under the open file.
    matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::EBADFD | Errno::ENODEV | Errno::ENXIO))
}

/// Whether an error of a write concerns that packet or the interface's state, not the device.
pub(crate) fn is_refused(error: &io::Error) -> bool {
    use nix::errno::Errno;
    // EIO: the interface is down. EINVAL: the kernel does not like the header or the packet.
    matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::EIO | Errno::EINVAL))
}

fn check_name(name: &str) -> Result<(), TunError> {
    let valid = (1..=MAX_NAME).contains(&name.len())
        && name != "."
        && name != ".."
        && !name.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | ':' | '%'));
    if valid { Ok(()) } else { Err(TunError::Name(name.into())) }
}

fn explain(name: &str, error: io::Error) -> TunError {
    use nix::errno::Errno;
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EPERM | Errno::EACCES) => TunError::NotPermitted(name.into()),
        Some(Errno::ENOENT | Errno::ENODEV | Errno::ENXIO) => TunError::NoDriver,
        Some(Errno::EBUSY | Errno::EEXIST) => TunError::Exists(name.into()),
        _ => TunError::Other(name.into(), error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for name in ["vine0", "a", "fifteen-bytes-x"] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for name in ["", ".", "..", "a/b", "a b", "vine%d", "a:0", "sixteen-bytes-xy"] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }
}
