//! The values inside strings: addresses, prefixes, keys, names. Every parser here answers with the value or with a
//! sentence for the person who wrote it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bech32::Bech32m;
use bech32::primitives::correction::CorrectableError;
use bech32::primitives::decode::CheckedHrpstring;
use vine_core::NetworkKey;
use vine_core::identity::{PeerId, PeerIdError, TextError};
use vine_core::overlay::Prefix;
use vine_tokio::Endpoint;
use zeroize::Zeroizing;

/// Longest name of an interface that Linux takes (`IFNAMSIZ` less the terminator).
const MAX_INTERFACE_NAME: usize = 15;
/// Longest name of a node: that of a DNS label, so that names can become host names.
const MAX_NAME: usize = 63;

/// The part of a URL after `udp://`; the other transports of the design are known, and refused by name.
fn udp_authority(text: &str) -> Result<&str, String> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(format!("`{text}` has no transport; write udp://{text}"));
    };
    match scheme {
        "udp" => Ok(rest),
        "tcp" | "quic" => Err(format!("transport `{scheme}://` is not in this version of vine; use udp://")),
        _ => Err(format!("unknown transport `{scheme}://`; this version of vine has udp://")),
    }
}

/// `udp://IP:PORT` of a local socket.
pub(crate) fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let rest = udp_authority(text)?;
    match rest.parse::<SocketAddr>() {
        Ok(address) if is_multicast_or_broadcast(address.ip()) => {
            Err(format!("`{}` is no address of one machine", address.ip()))
        }
        Ok(address) => Ok(address),
        Err(_) => Err(match endpoint_authority(rest) {
            Ok(_) => format!(
                "`{rest}` is a name; a listen address is an IP address and a port, for example udp://0.0.0.0:4100"
            ),
            Err(why) => why,
        }),
    }
}

/// `udp://HOST:PORT` of a peer.
pub(crate) fn endpoint(text: &str) -> Result<Endpoint, String> {
    let endpoint = endpoint_authority(udp_authority(text)?)?;
    let (ip, port) = match &endpoint {
        Endpoint::Address(address) => (Some(address.ip()), address.port()),
        Endpoint::Name { port, .. } => (None, *port),
    };
    if let Some(ip) = ip.filter(|ip| ip.is_unspecified() || is_multicast_or_broadcast(*ip)) {
        return Err(format!("`{ip}` is no address of one machine that can be reached"));
    }
    if port == 0 {
        return Err("port 0 cannot be reached; name the peer's listen port, for example 4100".to_owned());
    }
    Ok(endpoint)
}

fn is_multicast_or_broadcast(ip: IpAddr) -> bool {
    ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST)
}

fn endpoint_authority(rest: &str) -> Result<Endpoint, String> {
    if let Ok(address) = rest.parse::<SocketAddr>() {
        return Ok(Endpoint::Address(address));
    }
    if let Ok(ip) = rest.trim_matches(['[', ']']).parse::<IpAddr>() {
        let example = SocketAddr::new(ip, 4100);
        return Err(format!("`{rest}` has no port; for example udp://{example}"));
    }
    let Some((host, port)) = rest.rsplit_once(':') else {
        return Err(format!("`{rest}` has no port; for example udp://{rest}:4100"));
    };
    let port = port.parse::<u16>().map_err(|_| format!("`{port}` is no port; a port is a number up to 65535"))?;
    if host.parse::<Ipv6Addr>().is_ok() {
        return Err(format!("an IPv6 address stands in brackets: udp://[{host}]:{port}"));
    }
    if host.starts_with('[') || !is_host_name(host) {
        return Err(format!("`{host}` is neither an IP address nor a host name"));
    }
    Ok(Endpoint::Name { host: host.to_owned(), port })
}

/// A DNS name (RFC 1123, section 2.1). One that ends in a number is a mistyped IPv4 address.
fn is_host_name(host: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let numeric = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    let host = host.strip_suffix('.').unwrap_or(host);
    host.len() <= 253 && host.split('.').all(label) && !host.rsplit('.').next().is_some_and(numeric)
}

/// An address with a prefix length. `None` for the length where the text has none.
fn address_and_len(text: &str) -> Result<(IpAddr, Option<u8>), String> {
    let (address, len) = match text.split_once('/') {
        Some((address, len)) => (address, Some(len)),
        None => (text, None),
    };
    let ip: IpAddr = address.parse().map_err(|_| format!("`{address}` is no IPv4 or IPv6 address"))?;
    let Some(len) = len else { return Ok((ip, None)) };
    let most = bits(ip);
    match len.parse::<u8>() {
        Ok(len) if len <= most => Ok((ip, Some(len))),
        _ => Err(format!("`/{len}` is no prefix length; here it is a number up to {most}")),
    }
}

/// Bits of an address of this family.
pub(crate) fn bits(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

/// A prefix that a peer owns. Bits beyond its length must be zero: they are more often a slip than a wish.
pub(crate) fn prefix(text: &str) -> Result<Prefix, String> {
    let (ip, len) = address_and_len(text)?;
    let Some(len) = len else {
        return Err(format!("`{text}` has no prefix length; for this one address write {text}/{}", bits(ip)));
    };
    let prefix = network(ip, len);
    if prefix.address() != ip {
        return Err(format!(
            "`{text}` has bits set beyond its length; write {prefix}, or {ip}/{} for the one address",
            bits(ip)
        ));
    }
    usable(ip, len)?;
    Ok(prefix)
}

/// The prefix that `ip` lies in.
pub(crate) fn network(ip: IpAddr, len: u8) -> Prefix {
    Prefix::containing(ip, len).expect("the length was checked against the family")
}

/// An address of this node's TUN device with its prefix length.
pub(crate) fn interface_address(text: &str) -> Result<(IpAddr, u8), String> {
    match address_and_len(text)? {
        (ip, None) => {
            Err(format!("`{text}` has no prefix length; for example {text}/{}", if ip.is_ipv4() { 24 } else { 64 }))
        }
        (ip, Some(len)) => host_address(ip).and_then(|()| usable(ip, len)).map(|()| (ip, len)),
    }
}

/// A bare address of this node's TUN device.
pub(crate) fn bare_address(text: &str) -> Result<IpAddr, String> {
    match address_and_len(text)? {
        (_, Some(_)) => Err(format!("`{text}` has a prefix length; that goes into `prefix_len`, or use `addresses`")),
        (ip, None) => host_address(ip).map(|()| ip),
    }
}

fn host_address(ip: IpAddr) -> Result<(), String> {
    if ip.is_unspecified() || ip.is_loopback() || is_multicast_or_broadcast(ip) {
        return Err(format!("`{ip}` cannot be the address of a network interface"));
    }
    Ok(())
}

/// Refuses what no mesh can own: it would swallow loopback, multicast or link-local traffic of the host.
fn usable(ip: IpAddr, len: u8) -> Result<(), String> {
    let reserved = match ip {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_multicast() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_multicast() || ip.is_unicast_link_local(),
    };
    if reserved && len > 0 {
        return Err(format!("`{ip}/{len}` is loopback, link-local or multicast, which never leaves a link"));
    }
    Ok(())
}

/// A peer id; for a checksum that does not match, with the one character that would mend it.
pub(crate) fn peer_id(text: &str) -> Result<PeerId, String> {
    let error = match text.parse::<PeerId>() {
        Ok(id) => return Ok(id),
        Err(error) => error,
    };
    if matches!(error, PeerIdError::Text(TextError::Checksum)) {
        if let Some((at, found, meant)) = single_typo(text) {
            return Err(format!(
                "not a peer id: {error}; probably character {at}, `{found}`, which should be `{meant}`"
            ));
        }
        return Err(format!("not a peer id: {error}; copy it again from `vine identity show` on that machine"));
    }
    Err(format!("not a peer id: {error}"))
}

/// The place (from 1), the character there and the one that belongs there, if one typo explains the checksum.
fn single_typo(text: &str) -> Option<(usize, char, char)> {
    let error = CheckedHrpstring::new::<Bech32m>(text).err()?;
    let context = error.correction_context::<Bech32m>()?;
    let mut errors = context.bch_errors()?;
    let (from_end, delta) = errors.next()?;
    if errors.next().is_some() {
        return None;
    }
    let index = text.len().checked_sub(from_end + 1)?;
    let found = text.get(index..)?.chars().next()?;
    let meant = (bech32::Fe32::from_char(found).ok()? + delta).to_char();
    let mended = format!("{}{meant}{}", text.get(..index)?, text.get(index + found.len_utf8()..)?);
    // The correction is a guess until the whole text is valid with it.
    mended.parse::<PeerId>().is_ok().then_some((index + 1, found, meant))
}

/// A node's or peer's name: what is typed on a command line and shown in columns.
pub(crate) fn name(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("a name cannot be empty".to_owned());
    }
    if text.len() > MAX_NAME {
        return Err(format!("a name has at most {MAX_NAME} bytes, this one has {}", text.len()));
    }
    if let Some(bad) = text.chars().find(|c| !(c.is_alphanumeric() || matches!(c, '-' | '_' | '.'))) {
        return Err(format!("a name consists of letters, digits, `-`, `_` and `.`; this one contains {bad:?}"));
    }
    if text.starts_with('-') || text.parse::<IpAddr>().is_ok() || text.parse::<PeerId>().is_ok() {
        return Err(format!("`{text}` cannot be a name: commands would take it for something else"));
    }
    Ok(text.to_owned())
}

/// The name of a TUN device.
pub(crate) fn interface_name(text: &str) -> Result<String, String> {
    if text.is_empty() || text == "." || text == ".." {
        return Err(format!("`{text}` cannot be the name of an interface"));
    }
    if text.len() > MAX_INTERFACE_NAME {
        return Err(format!(
            "the name of an interface has at most {MAX_INTERFACE_NAME} bytes, `{text}` has {}",
            text.len()
        ));
    }
    // `%` would make the kernel number the interface, and the name would then be another one.
    if let Some(bad) = text.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))) {
        return Err(format!(
            "the name of an interface consists of ASCII letters, digits, `-`, `_` and `.`; this one contains {bad:?}"
        ));
    }
    Ok(text.to_owned())
}

/// 32 bytes as 64 hexadecimal digits. The message never repeats the key.
pub(crate) fn network_key(text: &str) -> Result<NetworkKey, String> {
    let mut key = Zeroizing::new([0; 32]);
    if let Some(bad) = text.chars().find(|c| !c.is_ascii_hexdigit()) {
        return Err(format!("a network key is 64 hexadecimal digits; this one contains {bad:?}"));
    }
    if text.len() != 2 * key.len() {
        return Err(format!("a network key is 64 hexadecimal digits; this one has {}", text.len()));
    }
    for (byte, digits) in key.iter_mut().zip(text.as_bytes().chunks(2)) {
        let digits = std::str::from_utf8(digits).unwrap_or_default();
        *byte = u8::from_str_radix(digits, 16).map_err(|_| "a network key is 64 hexadecimal digits".to_owned())?;
    }
    if *key == [0; 32] {
        return Err(
            "a network key of zeros is no key; leave it out, or use 32 random bytes (openssl rand -hex 32)".to_owned()
        );
    }
    Ok(NetworkKey::new(*key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use vine_core::identity::Identity;

    fn why<T: std::fmt::Debug>(result: Result<T, String>) -> String {
        result.expect_err("it is wrong")
    }

    #[test]
    fn endpoints() {
        assert_eq!(endpoint("udp://198.51.100.40:4100"), Ok(Endpoint::Address("198.51.100.40:4100".parse().unwrap())));
        assert_eq!(endpoint("udp://[2001:db8::1]:4100"), Ok(Endpoint::Address("[2001:db8::1]:4100".parse().unwrap())));
        assert_eq!(
            endpoint("udp://vine.example.org:4100"),
            Ok(Endpoint::Name { host: "vine.example.org".to_owned(), port: 4100 })
        );
        assert!(why(endpoint("198.51.100.40:4100")).contains("write udp://198.51.100.40:4100"));
        assert!(why(endpoint("tcp://198.51.100.40:4100")).contains("not in this version"));
        assert!(why(endpoint("quic://198.51.100.40:4100")).contains("not in this version"));
        assert!(why(endpoint("http://198.51.100.40:4100")).contains("unknown transport"));
        assert!(why(endpoint("udp://198.51.100.40")).contains("has no port"));
        assert!(why(endpoint("udp://example.org")).contains("has no port"));
        assert!(why(endpoint("udp://[2001:db8::1]")).contains("udp://[2001:db8::1]:4100"));
        assert!(why(endpoint("udp://2001:db8::1:4100x")).contains("no port"));
        assert!(why(endpoint("udp://300.1.1.1:4100")).contains("neither"));
        assert!(why(endpoint("udp://198.51.100.40:70000")).contains("no port"));
        assert!(why(endpoint("udp://198.51.100.40:0")).contains("port 0"));
        assert!(why(endpoint("udp://0.0.0.0:4100")).contains("no address of one machine"));
        assert!(why(endpoint("udp://-x-:1")).contains("neither"));
    }

    #[test]
    fn listen_addresses() {
        assert_eq!(listen_address("udp://0.0.0.0:4100"), Ok("0.0.0.0:4100".parse().unwrap()));
        assert_eq!(listen_address("udp://[::]:4100"), Ok("[::]:4100".parse().unwrap()));
        assert!(why(listen_address("udp://example.org:4100")).contains("is a name"));
        assert!(why(listen_address("udp://224.0.0.1:4100")).contains("no address of one machine"));
        assert!(why(listen_address("quic://0.0.0.0:4100")).contains("not in this version"));
    }

    #[test]
    fn prefixes() {
        assert_eq!(prefix("10.42.1.0/24").unwrap().to_string(), "10.42.1.0/24");
        assert_eq!(prefix("fd42:1::/64").unwrap().to_string(), "fd42:1::/64");
        assert!(why(prefix("10.42.1.5/24")).contains("write 10.42.1.0/24, or 10.42.1.5/32"));
        assert!(why(prefix("10.42.1.0")).contains("10.42.1.0/32"));
        assert!(why(prefix("10.42.1.0/33")).contains("up to 32"));
        assert!(why(prefix("10.42.1/24")).contains("no IPv4 or IPv6 address"));
        assert!(why(prefix("127.0.0.0/8")).contains("loopback"));
        assert!(prefix("0.0.0.0/0").is_ok(), "an exit node owns everything that nobody else owns");
    }

    #[test]
    fn one_typo_in_a_peer_id_is_pointed_at() {
        let id = Identity::from_seed([7; 32]).peer_id().to_string();
        for at in 5..id.len() {
            let right = id.as_bytes()[at] as char;
            let wrong = if right == 'q' { 'p' } else { 'q' };
            let typo = format!("{}{wrong}{}", &id[..at], &id[at + 1..]);
            let why = why(peer_id(&typo));
            assert!(why.contains(&format!("character {}, `{wrong}`, which should be `{right}`", at + 1)), "{why}");
        }
        assert!(why(peer_id(&id[..60])).contains("60 characters instead of 63"));
        assert!(why(peer_id("vine1abc")).starts_with("not a peer id"));
    }

    #[test]
    fn names() {
        assert!(name("alpha-1.home_lan").is_ok());
        for bad in ["", "a b", "10.0.0.1", "-v", "a/b", &"x".repeat(64)] {
            assert!(name(bad).is_err(), "{bad}");
        }
        assert!(interface_name("vine0").is_ok());
        for bad in ["", "..", "a/b", "vine%d", "sixteen-chars-xx", "a b"] {
            assert!(interface_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn keys_are_never_repeated_in_messages() {
        assert_eq!(network_key(&"ab".repeat(32)).unwrap().as_bytes(), &[0xab; 32]);
        for bad in ["abc", &"ab".repeat(31), &"00".repeat(32), &"zz".repeat(32)] {
            let why = why(network_key(bad));
            assert!(!why.contains(bad), "{why}");
        }
    }
}
