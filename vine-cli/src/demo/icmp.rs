//! Echo requests and their answers, IPv4 (RFC 792) and IPv6 (RFC 4443), as whole packets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use vine_core::overlay::Sum;

/// Bytes of an IPv4 header without options.
const V4_HEADER: usize = 20;
/// Bytes of an IPv6 header.
const V6_HEADER: usize = 40;
/// Bytes of an echo header: type, code, checksum, identifier, sequence number.
const ECHO_HEADER: usize = 8;
/// Protocol numbers.
const ICMP: u8 = 1;
const ICMP_V6: u8 = 58;
/// Hops that a packet may take.
const HOP_LIMIT: u8 = 64;

/// Whether an echo message asks or answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Request,
    Reply,
}

impl Kind {
    fn of(family_is_v4: bool, number: u8) -> Option<Kind> {
        match (family_is_v4, number) {
            (true, 8) | (false, 128) => Some(Kind::Request),
            (true, 0) | (false, 129) => Some(Kind::Reply),
            _ => None,
        }
    }

    fn number(self, v4: bool) -> u8 {
        match (self, v4) {
            (Kind::Request, true) => 8,
            (Kind::Reply, true) => 0,
            (Kind::Request, false) => 128,
            (Kind::Reply, false) => 129,
        }
    }
}

/// An echo message with its addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Echo {
    pub(super) kind: Kind,
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) id: u16,
    pub(super) sequence: u16,
    pub(super) payload: Vec<u8>,
}

impl Echo {
    /// The ICMP message alone, which is what a raw socket sends.
    pub(super) fn to_message(&self) -> Vec<u8> {
        let mut message = vec![self.kind.number(self.source.is_ipv4()), 0, 0, 0];
        message.extend(self.id.to_be_bytes());
        message.extend(self.sequence.to_be_bytes());
        message.extend(&self.payload);
        let checksum = pseudo_header(self.source, self.destination, message.len()).plus(Sum::of(&message)).checksum();
        put(&mut message, 2, checksum);
        message
    }

    /// The packet. Both addresses are of one family; `None` where they are not, or the payload is too long.
    pub(super) fn to_packet(&self) -> Option<Vec<u8>> {
        let mut message = self.to_message();
        let mut packet = match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => v4_header(source, destination, message.len())?,
            (IpAddr::V6(source), IpAddr::V6(destination)) => v6_header(source, destination, message.len())?,
            _ => return None,
        };
        packet.append(&mut message);
        Some(packet)
    }

    /// The echo message in `packet`, if it is one and its checksums are right.
    pub(super) fn parse(packet: &[u8]) -> Option<Echo> {
        let (source, destination, message) = match packet.first()? >> 4 {
            4 => parse_v4(packet)?,
            6 => parse_v6(packet)?,
            _ => return None,
        };
        Echo::parse_message(source, destination, message)
    }

    /// The echo message between these addresses, if it is one and its checksum is right.
    pub(super) fn parse_message(source: IpAddr, destination: IpAddr, message: &[u8]) -> Option<Echo> {
        if pseudo_header(source, destination, message.len()).plus(Sum::of(message)).checksum() != 0 {
            return None;
        }
        let (header, payload) = message.split_first_chunk::<ECHO_HEADER>()?;
        let [number, code, _, _, id @ .., s0, s1] = *header;
        if code != 0 {
            return None;
        }
        Some(Echo {
            kind: Kind::of(source.is_ipv4(), number)?,
            source,
            destination,
            id: u16::from_be_bytes(id),
            sequence: u16::from_be_bytes([s0, s1]),
            payload: payload.to_vec(),
        })
    }

    /// The answer to a request.
    pub(super) fn reply(self) -> Echo {
        Echo { kind: Kind::Reply, source: self.destination, destination: self.source, ..self }
    }
}

/// What ICMPv6 checks besides its message (RFC 4443, section 2.3); ICMP for IPv4 checks nothing else.
fn pseudo_header(source: IpAddr, destination: IpAddr, length: usize) -> Sum {
    match source {
        IpAddr::V4(_) => Sum::default(),
        IpAddr::V6(_) => Sum::pseudo_header(source, destination, ICMP_V6, length),
    }
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(field) = bytes.get_mut(at..at + 2) {
        field.copy_from_slice(&value.to_be_bytes());
    }
}

fn v4_header(source: Ipv4Addr, destination: Ipv4Addr, payload: usize) -> Option<Vec<u8>> {
    let length = u16::try_from(V4_HEADER + payload).ok()?;
    let mut header = vec![0x45, 0];
    header.extend(length.to_be_bytes());
    header.extend([0, 0, 0x40, 0, HOP_LIMIT, ICMP, 0, 0]);
    header.extend(source.octets());
    header.extend(destination.octets());
    let checksum = Sum::of(&header).checksum();
    put(&mut header, 10, checksum);
    Some(header)
}

fn v6_header(source: Ipv6Addr, destination: Ipv6Addr, payload: usize) -> Option<Vec<u8>> {
    let mut header = vec![0x60, 0, 0, 0];
    header.extend(u16::try_from(payload).ok()?.to_be_bytes());
    header.extend([ICMP_V6, HOP_LIMIT]);
    header.extend(source.octets());
    header.extend(destination.octets());
    Some(header)
}

fn parse_v4(packet: &[u8]) -> Option<(IpAddr, IpAddr, &[u8])> {
    let (header, message) = packet.split_first_chunk::<V4_HEADER>()?;
    let [0x45, _, l0, l1, _, _, _, _, _, ICMP, _, _, addresses @ ..] = *header else { return None };
    let [a, b, c, d, e, f, g, h] = addresses;
    if Sum::of(header).checksum() != 0 {
        return None;
    }
    let length = usize::from(u16::from_be_bytes([l0, l1])).checked_sub(V4_HEADER)?;
    Some((Ipv4Addr::new(a, b, c, d).into(), Ipv4Addr::new(e, f, g, h).into(), message.get(..length)?))
}

fn parse_v6(packet: &[u8]) -> Option<(IpAddr, IpAddr, &[u8])> {
    let (header, message) = packet.split_first_chunk::<V6_HEADER>()?;
    let (fixed, addresses) = header.split_first_chunk::<8>()?;
    let [_, _, _, _, l0, l1, ICMP_V6, _] = *fixed else { return None };
    let (source, destination) = addresses.split_first_chunk::<16>()?;
    let destination: [u8; 16] = destination.try_into().ok()?;
    let length = usize::from(u16::from_be_bytes([l0, l1]));
    Some((Ipv6Addr::from(*source).into(), Ipv6Addr::from(destination).into(), message.get(..length)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn echo(source: &str, destination: &str) -> Echo {
        Echo {
            kind: Kind::Request,
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            id: 7,
            sequence: 9,
            payload: b"odd".to_vec(),
        }
    }

    #[test]
    fn requests_and_replies_survive_the_wire() {
        for (a, b) in [("10.0.0.1", "10.0.0.2"), ("fd42::1", "fd42::2")] {
            let request = echo(a, b);
            assert_eq!(Echo::parse(&request.to_packet().unwrap()), Some(request.clone()));
            let reply = request.clone().reply();
            assert_eq!((reply.source, reply.destination), (request.destination, request.source));
            assert_eq!(Echo::parse(&reply.to_packet().unwrap()), Some(reply));
        }
        assert_eq!(echo("10.0.0.1", "fd42::2").to_packet(), None);
    }

    #[test]
    fn damage_is_noticed() {
        for (a, b) in [("10.0.0.1", "10.0.0.2"), ("fd42::1", "fd42::2")] {
            let packet = echo(a, b).to_packet().unwrap();
            for at in 0..packet.len() {
                let mut damaged = packet.clone();
                damaged[at] ^= 1;
                // Not every field is covered by a checksum: the hop limit and the traffic class of IPv6 are not.
                if let Some(read) = Echo::parse(&damaged) {
                    assert_eq!(read, echo(a, b), "byte {at}");
                }
                assert_eq!(Echo::parse(&packet[..at]), None);
            }
        }
    }

    #[test]
    fn a_v4_request_is_the_one_of_the_rfc() {
        let packet = echo("10.0.0.1", "10.0.0.2").to_packet().unwrap();
        assert_eq!(packet[..2], [0x45, 0]);
        assert_eq!(packet[20..22], [8, 0]);
        assert_eq!(u16::from_be_bytes([packet[2], packet[3]]) as usize, packet.len());
    }
}
