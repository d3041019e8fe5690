//! CIDR prefixes.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::str::FromStr;

/// An IPv4 or IPv6 range in CIDR form: an address whose host bits are zero, and a length in bits.
///
/// The order is by first address and then by length, IPv4 before IPv6; a prefix therefore sorts directly before the
/// prefixes that lie inside it.
///
/// ```
/// use vine_core::overlay::Prefix;
///
/// let home: Prefix = "10.42.1.0/24".parse()?;
/// assert!(home.contains("10.42.1.7".parse()?));
/// assert_eq!(
///     "10.42.1.7/24".parse::<Prefix>().unwrap_err().to_string(),
///     "10.42.1.7/24 has host bits set; the prefix is 10.42.1.0/24"
/// );
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

/// Why an address and a length, or a text, are not a [`Prefix`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// The length is beyond 32 (IPv4) or 128 (IPv6) bits.
    #[error("/{length} is too long for {address}: at most /{max}")]
    Length {
        /// The address that was given.
        address: IpAddr,
        /// The length that was given, in bits.
        length: u8,
        /// The longest length of this address family.
        max: u8,
    },
    /// The address has bits beyond the length; often an interface address given where a range is asked for.
    #[error("{address}/{length} has host bits set; the prefix is {prefix}")]
    HostBits {
        /// The address that was given.
        address: IpAddr,
        /// The length that was given, in bits.
        length: u8,
        /// The prefix that contains the address.
        prefix: Prefix,
    },
    /// The text has no `/`.
    #[error("a prefix is an address, a slash and a length, such as 10.42.1.0/24 or fd42::/64")]
    NoLength,
    /// What stands before the `/` is not an IP address.
    #[error("what stands before the slash is not an IPv4 or IPv6 address")]
    Address,
    /// What stands after the `/` is not a decimal number of at most three digits.
    #[error("what stands after the slash is not a length in bits")]
    LengthSyntax,
}

impl Prefix {
    /// The prefix of `length` bits at `address`, whose host bits must be zero.
    pub fn new(address: IpAddr, length: u8) -> Result<Prefix, PrefixError> {
        let prefix = Prefix::containing(address, length)?;
        if prefix.address != address {
            return Err(PrefixError::HostBits { address, length, prefix });
        }
        Ok(prefix)
    }

    /// The prefix of `length` bits in which `address` lies: host bits are cleared.
    pub fn containing(address: IpAddr, length: u8) -> Result<Prefix, PrefixError> {
        let max = width(address);
        if length > max {
            return Err(PrefixError::Length { address, length, max });
        }
        let first = match address {
            IpAddr::V4(ip) => IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits() & !host_mask4(length))),
            IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & !host_mask6(length))),
        };
        Ok(Prefix { address: first, length })
    }

    /// The prefix that holds `address` alone: /32 or /128.
    pub const fn host(address: IpAddr) -> Prefix {
        Prefix { address, length: width(address) }
    }

    /// The first address.
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// The length in bits: 0 to 32, or 0 to 128.
    pub const fn length(&self) -> u8 {
        self.length
    }

    /// The last address.
    pub fn last_address(&self) -> IpAddr {
        match self.address {
            IpAddr::V4(ip) => IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits() | host_mask4(self.length))),
            IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() | host_mask6(self.length))),
        }
    }

    /// Whether `address` lies in this prefix. An address of the other family never does.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(first), IpAddr::V4(ip)) => (first.to_bits() ^ ip.to_bits()) & !host_mask4(self.length) == 0,
            (IpAddr::V6(first), IpAddr::V6(ip)) => (first.to_bits() ^ ip.to_bits()) & !host_mask6(self.length) == 0,
            _ => false,
        }
    }

    /// Whether every address of `other` lies in this prefix. A prefix covers itself.
    pub fn covers(&self, other: &Prefix) -> bool {
        self.length <= other.length && self.contains(other.address)
    }

    /// Whether some address lies in both. CIDR prefixes nest or are apart, so one of them then covers the other.
    pub fn overlaps(&self, other: &Prefix) -> bool {
        self.covers(other) || other.covers(self)
    }
}

/// Bits in an address of this family.
const fn width(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// The host bits of an IPv4 prefix. A shift by the whole width has no value in Rust, and then no bit is a host bit.
fn host_mask4(length: u8) -> u32 {
    u32::MAX.checked_shr(u32::from(length)).unwrap_or(0)
}

/// The host bits of an IPv6 prefix.
fn host_mask6(length: u8) -> u128 {
    u128::MAX.checked_shr(u32::from(length)).unwrap_or(0)
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Prefix, PrefixError> {
        let (address, length) = text.split_once('/').ok_or(PrefixError::NoLength)?;
        let address: IpAddr = address.parse().map_err(|_| PrefixError::Address)?;
        // `u8::from_str` takes "+24" too, and a leading zero is octal to some programs.
        let plain = length.len() <= 3 && length.bytes().all(|b| b.is_ascii_digit());
        if !plain || (length.len() > 1 && length.starts_with('0')) {
            return Err(PrefixError::LengthSyntax);
        }
        let bits: u16 = length.parse().map_err(|_| PrefixError::LengthSyntax)?;
        let length = u8::try_from(bits).map_err(|_| PrefixError::LengthSyntax)?;
        Prefix::new(address, length)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use proptest::prelude::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    fn any_prefix() -> impl Strategy<Value = Prefix> {
        prop_oneof![
            (any::<u32>(), 0u8..=32).prop_map(|(ip, length)| Prefix::containing(
                IpAddr::V4(Ipv4Addr::from_bits(ip)),
                length
            )
            .unwrap()),
            (any::<u128>(), 0u8..=128).prop_map(|(ip, length)| Prefix::containing(
                IpAddr::V6(Ipv6Addr::from_bits(ip)),
                length
            )
            .unwrap()),
        ]
    }

    #[test]
    fn errors_say_what_is_wrong() {
        let says = |text: &str| text.parse::<Prefix>().unwrap_err().to_string();
        assert_eq!(says("10.42.1.7/24"), "10.42.1.7/24 has host bits set; the prefix is 10.42.1.0/24");
        assert_eq!(says("fd42::1/64"), "fd42::1/64 has host bits set; the prefix is fd42::/64");
        assert_eq!(says("10.0.0.0/33"), "/33 is too long for 10.0.0.0: at most /32");
        assert_eq!(says("fd42::/129"), "/129 is too long for fd42::: at most /128");
        assert_eq!("10.0.0.0".parse::<Prefix>(), Err(PrefixError::NoLength));
        assert_eq!("10.0.0/8".parse::<Prefix>(), Err(PrefixError::Address));
        for bad in ["10.0.0.0/", "10.0.0.0/+8", "10.0.0.0/08", "10.0.0.0/8/8", "10.0.0.0/ 8", "10.0.0.0/256"] {
            assert_eq!(bad.parse::<Prefix>(), Err(PrefixError::LengthSyntax), "{bad}");
        }
    }

    #[test]
    fn the_widest_and_the_narrowest() {
        assert!(prefix("0.0.0.0/0").contains("255.255.255.255".parse().unwrap()));
        assert!(!prefix("0.0.0.0/0").contains("::".parse().unwrap()));
        assert!(prefix("::/0").contains("ffff::1".parse().unwrap()));
        assert_eq!(prefix("::/0").last_address(), "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".parse::<IpAddr>().unwrap());
        assert_eq!(Prefix::host("10.0.0.1".parse().unwrap()), prefix("10.0.0.1/32"));
    }

    #[test]
    fn order_puts_a_prefix_before_what_it_covers() {
        let mut sorted = [prefix("fd00::/8"), prefix("10.0.0.0/24"), prefix("9.0.0.0/8"), prefix("10.0.0.0/8")];
        sorted.sort();
        assert_eq!(sorted, [prefix("9.0.0.0/8"), prefix("10.0.0.0/8"), prefix("10.0.0.0/24"), prefix("fd00::/8")]);
    }

    proptest! {
        #[test]
        fn text_form_round_trips(prefix in any_prefix()) {
            prop_assert_eq!(prefix.to_string().parse::<Prefix>(), Ok(prefix));
        }

        #[test]
        fn contains_is_between_first_and_last(a in any_prefix(), b in any_prefix()) {
            let inside = a.address() <= b.address() && b.address() <= a.last_address();
            prop_assert_eq!(a.contains(b.address()), inside);
            let apart = a.last_address() < b.address() || b.last_address() < a.address();
            prop_assert_eq!(a.overlaps(&b), !apart);
            prop_assert!(a.contains(a.last_address()));
        }

        #[test]
        fn any_text_is_judged(text in ".{0,24}") {
            let _ = text.parse::<Prefix>();
        }
    }
}
