//! Addresses as configuration writes them: `udp://IP:PORT` to listen on, `udp://HOST:PORT` to reach a peer.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// An address to listen on: `udp://IP:PORT`, with IPv6 addresses in brackets. Port 0 lets the kernel choose.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ListenAddr(pub SocketAddr);

impl FromStr for ListenAddr {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        strip_scheme(text)?.parse().map(ListenAddr).map_err(|_| AddressError::NotAnAddress(text.into()))
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "udp://{}", self.0)
    }
}

/// Where a peer is to be found: an address, or a host name that is resolved again and again while the peer is away.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Endpoint {
    /// `udp://IP:PORT`.
    Address(SocketAddr),
    /// `udp://NAME:PORT`.
    Name {
        /// The host name, as the system's resolver takes it.
        host: String,
        /// The UDP port.
        port: u16,
    },
}

impl FromStr for Endpoint {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let rest = strip_scheme(text)?;
        if let Ok(address) = rest.parse::<SocketAddr>() {
            return match address.port() {
                0 => Err(AddressError::NoPort(text.into())),
                _ => Ok(Endpoint::Address(address)),
            };
        }
        let (host, port) = rest.rsplit_once(':').ok_or_else(|| AddressError::NoPort(text.into()))?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(|| AddressError::NoPort(text.into()))?;
        // A bare IPv6 address would be cut at its last colon and be mistaken for a name.
        let label = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if host.is_empty() || host.len() > 253 || !host.chars().all(label) || host.parse::<IpAddr>().is_ok() {
            return Err(AddressError::NotAHost(text.into()));
        }
        Ok(Endpoint::Name { host: host.into(), port })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Address(address) => write!(f, "udp://{address}"),
            Endpoint::Name { host, port } => write!(f, "udp://{host}:{port}"),
        }
    }
}

/// Why a text is not an address.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AddressError {
    /// The scheme is missing or is not `udp`.
    #[error("`{0}`: only udp:// addresses are understood")]
    Scheme(String),
    /// Not `IP:PORT`.
    #[error("`{0}`: expected udp://IP:PORT, with an IPv6 address in brackets")]
    NotAnAddress(String),
    /// The port is missing, zero or out of range.
    #[error("`{0}`: expected a port from 1 to 65535 after the last colon")]
    NoPort(String),
    /// Neither an IP address nor a host name.
    #[error("`{0}`: expected udp://HOST:PORT, with an IPv6 address in brackets")]
    NotAHost(String),
}

fn strip_scheme(text: &str) -> Result<&str, AddressError> {
    text.strip_prefix("udp://").ok_or_else(|| AddressError::Scheme(text.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listen_addresses() {
        for text in ["udp://0.0.0.0:4100", "udp://[::]:4100", "udp://127.0.0.1:0"] {
            assert_eq!(text.parse::<ListenAddr>().unwrap().to_string(), text);
        }
        assert!(matches!("tcp://0.0.0.0:1".parse::<ListenAddr>(), Err(AddressError::Scheme(_))));
        assert!(matches!("udp://host:1".parse::<ListenAddr>(), Err(AddressError::NotAnAddress(_))));
        assert!(matches!("udp://::1:1".parse::<ListenAddr>(), Err(AddressError::NotAnAddress(_))));
    }

    #[test]
    fn endpoints() {
        for text in ["udp://198.51.100.40:4100", "udp://[2001:db8::1]:4100", "udp://gate.example.org:4100"] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
        for text in ["udp://host", "udp://host:0", "udp://host:70000", "udp://10.0.0.1:0"] {
            assert!(matches!(text.parse::<Endpoint>(), Err(AddressError::NoPort(_))), "{text}");
        }
        for text in ["udp://:1", "udp://2001:db8::1:4100", "udp://a b:1", "udp://[::1:4100"] {
            assert!(matches!(text.parse::<Endpoint>(), Err(AddressError::NotAHost(_))), "{text}");
        }
    }
}
