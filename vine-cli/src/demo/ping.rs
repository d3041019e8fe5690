//! One ping by a raw socket, from inside a namespace: the kernels at both ends see a packet like any other.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use super::icmp::{Echo, Kind};

/// Bytes of an IPv4 header without options, which a raw IPv4 socket hands over with every packet.
const V4_HEADER: usize = 20;

/// The round-trip time of one echo request; `None` where no answer came in time or the kernel knew no way.
pub(super) fn ping(
    source: IpAddr,
    destination: IpAddr,
    sequence: u16,
    timeout: Duration,
) -> io::Result<Option<Duration>> {
    let (domain, protocol) = match destination {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    let mut socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    socket.bind(&SocketAddr::new(source, 0).into())?;
    let request = Echo { kind: Kind::Request, source, destination, id: 0x7669, sequence, payload: vec![0x5a; 56] };
    let expected = request.clone().reply();
    let started = Instant::now();
    let sent =
        socket.connect(&SocketAddr::new(destination, 0).into()).and_then(|()| socket.write(&request.to_message()));
    if sent.is_err() {
        // While a route or an address is being changed.
        std::thread::sleep(timeout.min(Duration::from_millis(5)));
        return Ok(None);
    }
    let mut buffer = [0; 2048];
    while let Some(left) = timeout.checked_sub(started.elapsed()).filter(|left| !left.is_zero()) {
        socket.set_read_timeout(Some(left))?;
        let Ok(length) = socket.read(&mut buffer) else { continue };
        let bytes = buffer.get(..length).unwrap_or_default();
        let message = if destination.is_ipv4() { bytes.get(V4_HEADER..).unwrap_or_default() } else { bytes };
        if Echo::parse_message(destination, source, message).as_ref() == Some(&expected) {
            return Ok(Some(started.elapsed()));
        }
    }
    Ok(None)
}
