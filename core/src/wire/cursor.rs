//! Bounded reading and writing of byte slices, shared by all decoders and encoders.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::varint::{self, VarintError};

/// Why bytes could not be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReadError {
    /// The bytes end before the field does.
    #[error("the bytes end before the field does")]
    Truncated,
    /// A varint has a shorter encoding than the one received.
    #[error("a varint is not in its shortest form")]
    Overlong,
    /// A varint exceeds what its field can hold.
    #[error("a varint exceeds the range of its field")]
    TooLarge,
    /// The family of an address is neither 4 nor 6.
    #[error("{0} is not an address family")]
    AddressFamily(u8),
    /// A field has a value that it cannot have.
    #[error("a field is out of its range")]
    OutOfRange,
}

impl From<VarintError> for ReadError {
    fn from(error: VarintError) -> Self {
        match error {
            VarintError::Truncated => ReadError::Truncated,
            VarintError::Overlong => ReadError::Overlong,
            VarintError::TooLarge => ReadError::TooLarge,
        }
    }
}

/// The buffer has no room for what should be written. Nothing of it was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the buffer is full")]
pub struct BufferFull;

/// Takes fields off the front of a slice.
///
/// A failed read leaves the reader where it was.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader at the start of `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Reader { rest: bytes }
    }

    /// The bytes not read yet.
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// True when everything is read.
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `len` bytes.
    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8], ReadError> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(ReadError::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    /// The next `N` bytes by value.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], ReadError> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(ReadError::Truncated)?;
        self.rest = rest;
        Ok(*head)
    }

    /// A byte.
    pub fn u8(&mut self) -> Result<u8, ReadError> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// A little-endian `u16`.
    pub fn u16(&mut self) -> Result<u16, ReadError> {
        self.array().map(u16::from_le_bytes)
    }

    /// A little-endian `u32`.
    pub fn u32(&mut self) -> Result<u32, ReadError> {
        self.array().map(u32::from_le_bytes)
    }

    /// A little-endian `u64`.
    pub fn u64(&mut self) -> Result<u64, ReadError> {
        self.array().map(u64::from_le_bytes)
    }

    /// A minimal LEB128 varint.
    pub fn varint(&mut self) -> Result<u64, ReadError> {
        self.varint_up_to(u64::MAX)
    }

    /// A minimal LEB128 varint of at most `max`.
    pub fn varint_up_to(&mut self, max: u64) -> Result<u64, ReadError> {
        let (value, rest) = varint::decode_up_to(self.rest, max)?;
        self.rest = rest;
        Ok(value)
    }

    /// A varint length, then that many bytes.
    pub fn length_prefixed(&mut self) -> Result<&'a [u8], ReadError> {
        let mut ahead = self.clone();
        let len = usize::try_from(ahead.varint()?).map_err(|_| ReadError::Truncated)?;
        let bytes = ahead.bytes(len)?;
        *self = ahead;
        Ok(bytes)
    }

    /// A transport address: family (4 or 6), IP address in network order, port.
    ///
    /// An IPv4-mapped IPv6 address (RFC 4291 section 2.5.5.2) is returned as the IPv4 address that it stands for, so
    /// that one endpoint has one form.
    pub fn address(&mut self) -> Result<SocketAddr, ReadError> {
        let mut ahead = self.clone();
        let ip = match ahead.u8()? {
            4 => IpAddr::V4(Ipv4Addr::from(ahead.array::<4>()?)),
            6 => IpAddr::V6(Ipv6Addr::from(ahead.array::<16>()?)).to_canonical(),
            family => return Err(ReadError::AddressFamily(family)),
        };
        let port = ahead.u16()?;
        *self = ahead;
        Ok(SocketAddr::new(ip, port))
    }
}

/// Appends fields to a buffer of fixed size.
///
/// A write that does not fit writes nothing and says [`BufferFull`].
#[derive(Debug)]
pub struct Writer<'a> {
    buf: &'a mut [u8],
    len: usize,
}

impl<'a> Writer<'a> {
    /// A writer at the start of `buf`.
    pub const fn new(buf: &'a mut [u8]) -> Self {
        Writer { buf, len: 0 }
    }

    /// Bytes written so far.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// True while nothing is written.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that still fit.
    pub const fn remaining(&self) -> usize {
        self.buf.len().saturating_sub(self.len)
    }

    /// What was written so far.
    pub fn written(&self) -> &[u8] {
        self.buf.get(..self.len).unwrap_or_default()
    }

    /// Room for `len` bytes, claimed; the caller fills it. It holds whatever the buffer held before.
    pub fn claim(&mut self, len: usize) -> Result<&mut [u8], BufferFull> {
        let end = self.len.checked_add(len).ok_or(BufferFull)?;
        let room = self.buf.get_mut(self.len..end).ok_or(BufferFull)?;
        self.len = end;
        Ok(room)
    }

    /// The bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), BufferFull> {
        self.claim(bytes.len())?.copy_from_slice(bytes);
        Ok(())
    }

    /// A byte.
    pub fn u8(&mut self, value: u8) -> Result<(), BufferFull> {
        self.bytes(&[value])
    }

    /// A little-endian `u16`.
    pub fn u16(&mut self, value: u16) -> Result<(), BufferFull> {
        self.bytes(&value.to_le_bytes())
    }

    /// A little-endian `u32`.
    pub fn u32(&mut self, value: u32) -> Result<(), BufferFull> {
        self.bytes(&value.to_le_bytes())
    }

    /// A little-endian `u64`.
    pub fn u64(&mut self, value: u64) -> Result<(), BufferFull> {
        self.bytes(&value.to_le_bytes())
    }

    /// A minimal LEB128 varint.
    pub fn varint(&mut self, value: u64) -> Result<(), BufferFull> {
        self.bytes(&varint::encode(value))
    }

    /// A transport address, in the form that [`Reader::address`] reads. The flow label and scope of an IPv6 address
    /// mean nothing to another host and are not carried.
    pub fn address(&mut self, address: SocketAddr) -> Result<(), BufferFull> {
        let port = address.port().to_le_bytes();
        match address.ip().to_canonical() {
            IpAddr::V4(ip) => self.address_parts(4, &ip.octets(), port),
            IpAddr::V6(ip) => self.address_parts(6, &ip.octets(), port),
        }
    }

    fn address_parts(&mut self, family: u8, ip: &[u8], [low, high]: [u8; 2]) -> Result<(), BufferFull> {
        if self.remaining() < 1 + ip.len() + 2 {
            return Err(BufferFull);
        }
        self.u8(family)?;
        self.bytes(ip)?;
        self.bytes(&[low, high])
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_failed_read_leaves_the_reader_where_it_was() {
        let mut reader = Reader::new(&[5, 1, 2]);
        assert_eq!(reader.u64(), Err(ReadError::Truncated));
        assert_eq!(reader.length_prefixed(), Err(ReadError::Truncated));
        assert_eq!(reader.address(), Err(ReadError::AddressFamily(5)));
        assert_eq!(reader.bytes(4), Err(ReadError::Truncated));
        assert_eq!(reader.rest(), &[5, 1, 2]);
        assert_eq!(reader.u8(), Ok(5));
        assert_eq!(reader.u16(), Ok(0x0201));
        assert!(reader.is_empty());
    }

    #[test]
    fn a_full_writer_writes_nothing() {
        let mut buf = [0xee; 8];
        let mut writer = Writer::new(&mut buf);
        assert!(writer.is_empty());
        writer.u32(1).unwrap();
        assert_eq!(writer.u64(2), Err(BufferFull));
        assert_eq!(writer.address("192.0.2.1:9".parse().unwrap()), Err(BufferFull));
        assert_eq!(writer.varint(u64::MAX), Err(BufferFull));
        assert_eq!(writer.claim(usize::MAX), Err(BufferFull));
        assert_eq!((writer.len(), writer.remaining()), (4, 4));
        assert_eq!(writer.written(), &[1, 0, 0, 0]);
        assert_eq!(buf, [1, 0, 0, 0, 0xee, 0xee, 0xee, 0xee]);
    }

    #[test]
    fn a_mapped_address_is_written_and_read_as_ipv4() {
        let mapped: SocketAddr = "[::ffff:192.0.2.1]:258".parse().unwrap();
        let plain: SocketAddr = "192.0.2.1:258".parse().unwrap();
        let mut buf = [0; 19];
        let mut writer = Writer::new(&mut buf);
        writer.address(mapped).unwrap();
        assert_eq!(writer.written(), &[4, 192, 0, 2, 1, 2, 1]);
        assert_eq!(Reader::new(writer.written()).address(), Ok(plain));

        let mut on_the_wire = std::vec![6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
        on_the_wire.extend([192, 0, 2, 1, 2, 1]);
        assert_eq!(Reader::new(&on_the_wire).address(), Ok(plain));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(a: u8, b: u16, c: u32, d: u64, e: u64, ip: IpAddr, port: u16) {
            let address = SocketAddr::new(ip.to_canonical(), port);
            let mut buf = [0; 64];
            let mut writer = Writer::new(&mut buf);
            writer.u8(a).unwrap();
            writer.u16(b).unwrap();
            writer.u32(c).unwrap();
            writer.u64(d).unwrap();
            writer.varint(e).unwrap();
            writer.address(address).unwrap();
            let mut reader = Reader::new(writer.written());
            prop_assert_eq!(reader.u8(), Ok(a));
            prop_assert_eq!(reader.u16(), Ok(b));
            prop_assert_eq!(reader.u32(), Ok(c));
            prop_assert_eq!(reader.u64(), Ok(d));
            prop_assert_eq!(reader.varint(), Ok(e));
            prop_assert_eq!(reader.address(), Ok(address));
            prop_assert!(reader.is_empty());
        }

        #[test]
        fn arbitrary_bytes_are_read_or_refused(bytes: std::vec::Vec<u8>, len: usize) {
            let mut reader = Reader::new(&bytes);
            let _ = reader.address();
            let _ = reader.varint();
            let _ = reader.length_prefixed();
            let _ = reader.bytes(len);
            let _ = reader.array::<7>();
        }
    }
}
