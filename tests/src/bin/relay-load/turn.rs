//! As much of a TURN client (RFC 8656) as it takes to have datagrams relayed by a server that asks for no credentials.

use std::io;
use std::net::{SocketAddrV4, UdpSocket};
use std::time::Duration;

/// RFC 8489 section 5.
const MAGIC_COOKIE: u32 = 0x2112_a442;
const HEADER_LEN: usize = 20;
/// RFC 8489 section 5: the class of a success response.
const SUCCESS: u16 = 0x0100;
/// RFC 8656 section 17: methods.
const ALLOCATE: u16 = 0x0003;
const CHANNEL_BIND: u16 = 0x0009;
/// RFC 8656 section 18: attributes.
const CHANNEL_NUMBER: u16 = 0x000c;
const XOR_PEER_ADDRESS: u16 = 0x0012;
const REQUESTED_TRANSPORT: u16 = 0x0019;
/// IANA's number of UDP.
const UDP: u8 = 17;
/// RFC 8656 section 12: the first channel.
const CHANNEL: u16 = 0x4000;
const TRIES: u8 = 10;
const PATIENCE: Duration = Duration::from_millis(500);

/// Makes an allocation on the server that the socket is connected to, and binds the channel to a target.
pub(crate) fn allocate(socket: &UdpSocket, target: SocketAddrV4) -> io::Result<()> {
    socket.set_read_timeout(Some(PATIENCE))?;
    request(socket, ALLOCATE, &attribute(REQUESTED_TRANSPORT, &[UDP, 0, 0, 0]))?;
    let [high, low] = CHANNEL.to_be_bytes();
    let mut attributes = attribute(CHANNEL_NUMBER, &[high, low, 0, 0]);
    attributes.extend(attribute(XOR_PEER_ADDRESS, &xor_address(target)));
    request(socket, CHANNEL_BIND, &attributes)
}

/// A ChannelData message (RFC 8656 section 12.4).
pub(crate) fn channel_data(payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("a datagram is shorter than 64 KiB");
    [&CHANNEL.to_be_bytes()[..], &length.to_be_bytes(), payload].concat()
}

/// RFC 8489 section 14.2.
fn xor_address(address: SocketAddrV4) -> [u8; 8] {
    let port = address.port() ^ (MAGIC_COOKIE >> 16) as u16;
    let ip = u32::from(*address.ip()) ^ MAGIC_COOKIE;
    let mut value = [0, 1, 0, 0, 0, 0, 0, 0];
    value[2..4].copy_from_slice(&port.to_be_bytes());
    value[4..].copy_from_slice(&ip.to_be_bytes());
    value
}

/// An attribute whose length is a multiple of four.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &(value.len() as u16).to_be_bytes(), value].concat()
}

/// Sends a request until it succeeds.
fn request(socket: &UdpSocket, method: u16, attributes: &[u8]) -> io::Result<()> {
    let mut message = method.to_be_bytes().to_vec();
    message.extend((attributes.len() as u16).to_be_bytes());
    message.extend(MAGIC_COOKIE.to_be_bytes());
    // The transaction id: one request of a method is under way at a time.
    message.extend([method as u8; 12]);
    message.extend(attributes);
    let mut answer = [0; 1500];
    for _ in 0..TRIES {
        let _ = socket.send(&message);
        match socket.recv(&mut answer) {
            Ok(length) if length >= HEADER_LEN && answer[8..HEADER_LEN] == message[8..HEADER_LEN] => {
                let kind = u16::from_be_bytes([answer[0], answer[1]]);
                return match kind == method | SUCCESS {
                    true => Ok(()),
                    false => Err(io::Error::other(format!("the server answers {kind:#06x} to {method:#06x}"))),
                };
            }
            _ => {}
        }
    }
    Err(io::Error::other("no TURN server answers"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_as_the_specification_has_them() {
        assert_eq!(channel_data(&[1, 2, 3]), [0x40, 0, 0, 3, 1, 2, 3]);
        // RFC 5769 section 2.2: 192.0.2.1 port 32853.
        let expected = [0, 1, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43];
        assert_eq!(xor_address("192.0.2.1:32853".parse().unwrap()), expected);
    }
}
