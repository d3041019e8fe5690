//! Addresses and routes of the TUN interface, by rtnetlink.
//!
//! Everything that is installed is remembered and taken away by an orderly shutdown; after a crash the kernel takes it away
//! together with the interface. Nothing that was there before is ever replaced or removed.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::TryStreamExt;
use nix::errno::Errno;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage};
use rtnetlink::packet_route::link::{AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkMessage};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
};
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};
use tokio::task::JoinHandle;
use vine_core::overlay::Prefix;

use crate::tun::TunConfig;

/// Protocol number of our routes, so that `ip route show proto 118` lists them. Numbers above 4 are free for routing
/// daemons; 118 is an ASCII `v` and nobody's in iproute2's table.
const ROUTE_PROTOCOL: RouteProtocol = RouteProtocol::Other(118);

/// Packets that the interface queues while the engine is busy. The driver's default of 500 is two TCP windows' worth of
/// small packets.
const QUEUE_LENGTH: u32 = 1000;

/// Why the TUN interface could not be given its addresses or routes.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// Netlink itself failed.
    #[error("netlink: {0}")]
    Netlink(#[source] io::Error),
    /// No privilege.
    #[error("not permitted to configure the interface {0}: run as root, or grant CAP_NET_ADMIN")]
    NotPermitted(String),
    /// The interface could not be configured or brought up.
    #[error("cannot bring up {name}: {source}")]
    Link {
        /// Name of the interface.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// An address could not be added.
    #[error("cannot add the address {address}/{prefix_len} to {name}: {source}{hint}")]
    Address {
        /// The address.
        address: IpAddr,
        /// Its prefix length.
        prefix_len: u8,
        /// Name of the interface.
        name: String,
        /// What the kernel said.
        source: io::Error,
        /// What to do about it, where that is known.
        hint: &'static str,
    },
    /// Somebody else's route has the same destination.
    #[error(
        "the host has a route to {prefix} already ({by}), which {owner} needs; \
         remove that route or change the prefix in the configuration"
    )]
    RouteTaken {
        /// The destination.
        prefix: Prefix,
        /// Who wants it here: a peer's name, or the interface's own address.
        owner: String,
        /// The route that is there: its interface and the protocol that installed it.
        by: String,
    },
    /// A route could not be added.
    #[error("cannot add a route to {prefix} (of {owner}) through {name}: {source}")]
    Route {
        /// The destination.
        prefix: Prefix,
        /// The peer's name.
        owner: String,
        /// Name of the interface.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// A destination that is to be reached through the TUN, and whose it is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Wanted {
    pub(crate) prefix: Prefix,
    pub(crate) owner: String,
}

/// A connection to rtnetlink.
pub(crate) struct Netlink {
    handle: Handle,
    connection: JoinHandle<()>,
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Netlink {
    /// Connects; must be called inside a tokio runtime.
    pub(crate) fn open() -> Result<Netlink, NetworkError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(NetworkError::Netlink)?;
        Ok(Netlink { handle, connection: tokio::spawn(connection) })
    }

    /// Whether an interface of that name exists.
    pub(crate) async fn exists(&self, name: &str) -> Result<bool, NetworkError> {
        let mut links = self.handle.link().get().match_name(name).execute();
        match links.try_next().await {
            Ok(link) => Ok(link.is_some()),
            Err(error) if errno(&error) == Some(Errno::ENODEV) => Ok(false),
            Err(error) => Err(NetworkError::Netlink(to_io(error))),
        }
    }

    /// The routes of the main table, with the interface each goes through.
    async fn routes(&self) -> Result<Vec<Existing>, NetworkError> {
        let mut found = Vec::new();
        // Each family has its own dump: an unspecified family would ask for the bridges' tables as well.
        for family in [IpAddr::from([0; 4]), IpAddr::from([0; 16])] {
            let request = RouteMessageBuilder::<IpAddr>::new().destination_prefix(family, 0);
            let mut request = request.map_err(|error| NetworkError::Netlink(io::Error::other(error)))?.build();
            request.attributes.clear();
            let mut routes = self.handle.route().get(request).execute();
            while let Some(route) = routes.try_next().await.map_err(|error| NetworkError::Netlink(to_io(error)))? {
                found.extend(Existing::of(&route));
            }
        }
        Ok(found)
    }

    /// The name of an interface, for a message to people.
    async fn name_of(&self, index: Option<u32>) -> String {
        let Some(index) = index else { return "no interface".into() };
        let link: Result<Option<LinkMessage>, _> =
            self.handle.link().get().match_index(index).execute().try_next().await;
        let name = link.ok().flatten().and_then(|link| {
            link.attributes.into_iter().find_map(|attribute| match attribute {
                LinkAttribute::IfName(name) => Some(name),
                _ => None,
            })
        });
        name.unwrap_or_else(|| format!("interface {index}"))
    }
}

/// A route that the host has.
struct Existing {
    prefix: Prefix,
    interface: Option<u32>,
    protocol: RouteProtocol,
}

impl Existing {
    /// Reads a route of the main table; `None` for those that no packet of ours could meet.
    fn of(route: &RouteMessage) -> Option<Existing> {
        let header = &route.header;
        let mut table = u32::from(header.table);
        let mut interface = None;
        let mut destination = None;
        for attribute in &route.attributes {
            match attribute {
                RouteAttribute::Table(id) => table = *id,
                RouteAttribute::Oif(index) => interface = Some(*index),
                RouteAttribute::Destination(RouteAddress::Inet(ip)) => destination = Some(IpAddr::V4(*ip)),
                RouteAttribute::Destination(RouteAddress::Inet6(ip)) => destination = Some(IpAddr::V6(*ip)),
                _ => {}
            }
        }
        if table != u32::from(RouteHeader::RT_TABLE_MAIN) || header.flags.contains(RouteFlags::Cloned) {
            return None;
        }
        // A default route names no destination.
        let destination = destination.unwrap_or(match header.address_family {
            AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            _ => return None,
        });
        let prefix = Prefix::containing(destination, header.destination_prefix_length).ok()?;
        Some(Existing { prefix, interface, protocol: header.protocol })
    }
}

/// The TUN interface with what was installed on it.
pub(crate) struct Interface {
    netlink: Netlink,
    name: String,
    index: u32,
    addresses: Vec<AddressMessage>,
    /// Destinations that lead to the interface, with the message that added each; `None` where the kernel's own route to an
    /// address of the interface does it.
    routes: BTreeMap<Prefix, Option<RouteMessage>>,
}

impl Interface {
    /// Gives the interface its addresses and brings it up.
    pub(crate) async fn configure(netlink: Netlink, config: &TunConfig, index: u32) -> Result<Interface, NetworkError> {
        let mut interface =
            Interface { netlink, name: config.name.clone(), index, addresses: Vec::new(), routes: BTreeMap::new() };
        let connected: Vec<Wanted> = config.addresses.iter().filter_map(|address| connected(*address)).collect();
        interface.check_free(&connected, &interface.netlink.routes().await?).await?;
        interface.silence().await;
        for (address, prefix_len) in &config.addresses {
            interface.add_address(*address, *prefix_len).await?;
        }
        interface.bring_up().await?;
        Ok(interface)
    }

    /// The kernel's number for the interface.
    pub(crate) fn index(&self) -> u32 {
        self.index
    }

    /// Which of the destinations lead to the interface at this moment: somebody may have removed some.
    pub(crate) async fn installed(&self) -> Result<Vec<Prefix>, NetworkError> {
        let existing = self.netlink.routes().await?;
        let ours = existing.iter().filter(|route| route.interface == Some(self.index)).map(|route| route.prefix);
        let ours: BTreeSet<Prefix> = ours.filter(|prefix| self.routes.contains_key(prefix)).collect();
        Ok(ours.into_iter().collect())
    }

    /// Adds the routes that are missing, all or none; returns those that are new.
    pub(crate) async fn install(&mut self, wanted: &[Wanted]) -> Result<Vec<Prefix>, NetworkError> {
        let missing: Vec<Wanted> =
            wanted.iter().filter(|route| !self.routes.contains_key(&route.prefix)).cloned().collect();
        if missing.is_empty() {
            return Ok(Vec::new());
        }
        let existing = self.netlink.routes().await?;
        self.check_free(&missing, &existing).await?;
        let ours: BTreeSet<Prefix> =
            existing.iter().filter(|route| route.interface == Some(self.index)).map(|route| route.prefix).collect();
        let mut added = Vec::new();
        for route in missing {
            let message = if ours.contains(&route.prefix) {
                None
            } else {
                match self.add_route(&route).await {
                    Ok(message) => Some(message),
                    Err(error) => {
                        self.withdraw(&added).await;
                        return Err(error);
                    }
                }
            };
            self.routes.insert(route.prefix, message);
            added.push(route.prefix);
        }
        Ok(added)
    }

    /// Removes the routes that are no longer wanted.
    pub(crate) async fn retain(&mut self, wanted: &[Wanted]) {
        let wanted: BTreeSet<Prefix> = wanted.iter().map(|route| route.prefix).collect();
        let stale: Vec<Prefix> = self.routes.keys().filter(|prefix| !wanted.contains(prefix)).copied().collect();
        self.withdraw(&stale).await;
    }

    /// Removes some of the routes.
    pub(crate) async fn withdraw(&mut self, prefixes: &[Prefix]) {
        for prefix in prefixes {
            if let Some(Some(message)) = self.routes.remove(prefix)
                && let Err(error) = self.netlink.handle.route().del(message).execute().await
                && errno(&error) != Some(Errno::ESRCH)
            {
                tracing::warn!(%prefix, interface = %self.name, %error, "cannot remove a route");
            }
        }
    }

    /// Removes every route and address.
    pub(crate) async fn clear(&mut self) {
        let all: Vec<Prefix> = self.routes.keys().copied().collect();
        self.withdraw(&all).await;
        for address in self.addresses.drain(..) {
            if let Err(error) = self.netlink.handle.address().del(address).execute().await {
                tracing::warn!(interface = %self.name, %error, "cannot remove an address");
            }
        }
    }

    /// Refuses destinations that lead elsewhere already, whatever their metric: traffic of somebody else would be drawn
    /// into the overlay, or ours out of it.
    async fn check_free(&self, wanted: &[Wanted], existing: &[Existing]) -> Result<(), NetworkError> {
        for route in wanted {
            let taken = |other: &&Existing| other.prefix == route.prefix && other.interface != Some(self.index);
            if let Some(other) = existing.iter().find(taken) {
                let interface = self.netlink.name_of(other.interface).await;
                let by = format!("through {interface}, installed by {}", protocol_name(other.protocol));
                return Err(NetworkError::RouteTaken { prefix: route.prefix, owner: route.owner.clone(), by });
            }
        }
        Ok(())
    }

    /// Keeps the kernel from giving the interface a link-local address: nobody would answer to it, and its router
    /// solicitations would be dropped as unroutable.
    async fn silence(&self) {
        let quiet = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
        let message = LinkUnspec::new_with_index(self.index)
            .append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![quiet]))
            .build();
        if let Err(error) = self.netlink.handle.link().set(message).execute().await {
            // The interface works without, and a kernel without IPv6 says no.
            tracing::debug!(interface = %self.name, %error, "cannot turn off link-local addresses");
        }
    }

    async fn add_address(&mut self, address: IpAddr, prefix_len: u8) -> Result<(), NetworkError> {
        let mut request = self.netlink.handle.address().add(self.index, address, prefix_len);
        let message = request.message_mut();
        if address.is_ipv6() {
            // Nobody else can have the address: duplicate detection would only delay its use.
            message.header.flags |= AddressHeaderFlags::Nodad;
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        let message = message.clone();
        request.execute().await.map_err(|error| match errno(&error) {
            Some(Errno::EPERM) => NetworkError::NotPermitted(self.name.clone()),
            code => NetworkError::Address {
                address,
                prefix_len,
                name: self.name.clone(),
                source: to_io(error),
                hint: match code {
                    Some(Errno::EACCES | Errno::EOPNOTSUPP) if address.is_ipv6() => {
                        "; IPv6 is disabled on this host (sysctl net.ipv6.conf.default.disable_ipv6)"
                    }
                    _ => "",
                },
            },
        })?;
        self.addresses.push(message);
        Ok(())
    }

    async fn bring_up(&self) -> Result<(), NetworkError> {
        // The queue's length goes by netlink too: the older ioctl wants privileges over the whole machine, which the root of
        // a user namespace does not have.
        let message = LinkUnspec::new_with_index(self.index).txqueuelen(QUEUE_LENGTH).up().build();
        self.netlink.handle.link().set(message).execute().await.map_err(|error| match errno(&error) {
            Some(Errno::EPERM) => NetworkError::NotPermitted(self.name.clone()),
            _ => NetworkError::Link { name: self.name.clone(), source: to_io(error) },
        })
    }

    async fn add_route(&self, route: &Wanted) -> Result<RouteMessage, NetworkError> {
        let refused = |source| NetworkError::Route {
            prefix: route.prefix,
            owner: route.owner.clone(),
            name: self.name.clone(),
            source,
        };
        let message = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(route.prefix.address(), route.prefix.length())
            .map_err(|error| refused(io::Error::other(error)))?
            .output_interface(self.index)
            .protocol(ROUTE_PROTOCOL)
            .scope(RouteScope::Link)
            .build();
        match self.netlink.handle.route().add(message.clone()).execute().await {
            Ok(()) => Ok(message),
            Err(error) if errno(&error) == Some(Errno::EPERM) => Err(NetworkError::NotPermitted(self.name.clone())),
            Err(error) => Err(refused(to_io(error))),
        }
    }
}

/// The network of an interface's address, for which the kernel itself makes a route.
fn connected((address, prefix_len): (IpAddr, u8)) -> Option<Wanted> {
    let prefix = Prefix::containing(address, prefix_len).ok()?;
    Some(Wanted { prefix, owner: format!("the interface's address {address}/{prefix_len}") })
}

fn protocol_name(protocol: RouteProtocol) -> String {
    match protocol {
        RouteProtocol::Kernel => "the kernel for an address".into(),
        RouteProtocol::Boot => "hand (proto boot)".into(),
        RouteProtocol::Static => "hand (proto static)".into(),
        ROUTE_PROTOCOL => "another vine daemon".into(),
        other => format!("proto {}", format!("{other:?}").to_lowercase()),
    }
}

fn errno(error: &rtnetlink::Error) -> Option<Errno> {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.code.map(|code| Errno::from_raw(code.get().abs())),
        _ => None,
    }
}

fn to_io(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other),
    }
}
