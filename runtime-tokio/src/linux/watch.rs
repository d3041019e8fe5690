//! Notices when the host's addresses or links change.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use rtnetlink::packet_route::link::{LinkFlags, LinkMessage};
use rtnetlink::{Handle, MulticastGroup};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

/// Changes come in bursts (a link comes up, then its addresses one by one): one report follows when this long is quiet.
const QUIET: Duration = Duration::from_millis(250);

/// A report is not put off for longer than this by a host that does not come to rest.
const PATIENCE: Duration = Duration::from_secs(2);

/// Messages that the kernel multicasts.
type Messages = futures_util::stream::BoxStream<'static, NetlinkMessage<RouteNetlinkMessage>>;

/// Watches the host's addresses, those of the engine's own interface and the loopback excepted.
pub(crate) struct Watch {
    handle: Handle,
    connection: JoinHandle<()>,
    messages: Messages,
    own: Option<u32>,
    state: State,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Watch {
    /// Starts watching; `own` is the interface that is not to be reported.
    pub(crate) async fn open(own: Option<u32>) -> io::Result<Watch> {
        let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
        let (connection, handle, messages) = rtnetlink::new_multicast_connection(&groups)?;
        let connection = tokio::spawn(connection);
        let messages = messages.map(|(message, _)| message).boxed();
        let state = State::read(&handle, own).await?;
        Ok(Watch { handle, connection, messages, own, state })
    }

    /// The addresses as of the last report, in order.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        self.state.reachable()
    }

    /// Waits for a change and for quiet after it; then returns the addresses. `None` when the kernel ended the watch.
    pub(crate) async fn changed(&mut self) -> Option<Vec<IpAddr>> {
        loop {
            let message = self.messages.next().await?;
            if self.state.apply(&message, self.own) {
                break;
            }
        }
        let latest = Instant::now() + PATIENCE;
        while let Ok(message) = timeout_at(latest.min(Instant::now() + QUIET), self.messages.next()).await {
            self.state.apply(&message?, self.own);
            if Instant::now() >= latest {
                break;
            }
        }
        // Messages may have been lost when the socket's buffer ran over; a fresh reading is the truth.
        self.read_again().await
    }

    /// The addresses at this moment. Whoever gives up waiting for [`Watch::changed`] asks here, and misses nothing.
    pub(crate) async fn read_again(&mut self) -> Option<Vec<IpAddr>> {
        self.state = State::read(&self.handle, self.own).await.ok()?;
        Some(self.addresses())
    }
}

/// What is known of the host.
#[derive(Default)]
struct State {
    /// Interfaces that may carry datagrams, and whether each is up with a carrier.
    links: BTreeMap<u32, bool>,
    addresses: BTreeSet<(u32, IpAddr)>,
}

impl State {
    async fn read(handle: &Handle, own: Option<u32>) -> io::Result<State> {
        let mut state = State::default();
        let mut links = handle.link().get().execute();
        while let Some(link) = links.try_next().await.map_err(io::Error::other)? {
            state.link(&link, own);
        }
        let mut addresses = handle.address().get().execute();
        while let Some(address) = addresses.try_next().await.map_err(io::Error::other)? {
            state.address(&address);
        }
        Ok(state)
    }

    fn reachable(&self) -> Vec<IpAddr> {
        let running = |index: &u32| self.links.get(index).copied().unwrap_or(false);
        let mut reachable: Vec<IpAddr> =
            self.addresses.iter().filter(|(index, _)| running(index)).map(|(_, address)| *address).collect();
        reachable.sort_unstable();
        reachable.dedup();
        reachable
    }

    /// Takes in a message; says whether it changed anything that matters. A router's announcements renew the same addresses
    /// every few minutes, and a wireless link reports its signal: neither is a change.
    fn apply(&mut self, message: &NetlinkMessage<RouteNetlinkMessage>, own: Option<u32>) -> bool {
        match &message.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => self.link(link, own),
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link)) => {
                self.links.remove(&link.header.index).unwrap_or(false)
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(address)) => {
                self.address(address) && self.links.contains_key(&address.header.index)
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelAddress(address)) => {
                address_of(address).is_some_and(|ip| self.addresses.remove(&(address.header.index, ip)))
                    && self.links.contains_key(&address.header.index)
            }
            NetlinkPayload::Overrun(_) => true,
            _ => false,
        }
    }

    fn link(&mut self, link: &LinkMessage, own: Option<u32>) -> bool {
        let index = link.header.index;
        if own == Some(index) || link.header.flags.contains(LinkFlags::Loopback) {
            return false;
        }
        let running = link.header.flags.contains(LinkFlags::Up | LinkFlags::Running);
        self.links.insert(index, running).unwrap_or(false) != running
    }

    fn address(&mut self, message: &AddressMessage) -> bool {
        let Some(address) = address_of(message) else { return false };
        let key = (message.header.index, address);
        let usable = is_usable(address) && !is_tentative(message);
        if usable { self.addresses.insert(key) } else { self.addresses.remove(&key) }
    }
}

fn address_of(message: &AddressMessage) -> Option<IpAddr> {
    // On a point-to-point interface `Address` is the other end and `Local` is this one.
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(ip) => Some(*ip),
        _ => None,
    });
    local.or_else(|| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(ip) => Some(*ip),
            _ => None,
        })
    })
}

/// Whether a peer on another host could reach the address. A link-local IPv6 address means nothing without its interface.
fn is_usable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_unspecified() && !ip.is_multicast(),
        IpAddr::V6(ip) => {
            !ip.is_loopback() && !ip.is_unspecified() && !ip.is_multicast() && !ip.is_unicast_link_local()
        }
    }
}

/// Whether duplicate address detection still runs, or failed.
fn is_tentative(message: &AddressMessage) -> bool {
    let flags = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Flags(flags) => Some(*flags),
        _ => None,
    });
    flags.is_some_and(|flags| flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_loopback_is_not_reported() {
        let watch = Watch::open(None).await.unwrap();
        assert!(watch.addresses().iter().all(|address| !address.is_loopback()));
    }

    #[test]
    fn only_changes_that_matter_are_changes() {
        let mut state = State::default();
        let mut link = LinkMessage::default();
        link.header.index = 7;
        link.header.flags = LinkFlags::Up | LinkFlags::Running;
        assert!(state.link(&link, None));
        assert!(!state.link(&link, None), "the same again");
        assert!(!state.link(&link, Some(7)), "the engine's own interface");

        let mut address = AddressMessage::default();
        address.header.index = 7;
        address.attributes.push(AddressAttribute::Local("192.0.2.1".parse().unwrap()));
        assert!(state.address(&address));
        assert!(!state.address(&address), "renewed");
        assert_eq!(state.reachable(), ["192.0.2.1".parse::<IpAddr>().unwrap()]);

        address.attributes.push(AddressAttribute::Flags(AddressFlags::Tentative));
        assert!(state.address(&address), "no longer usable");

        link.header.flags = LinkFlags::Up;
        assert!(state.link(&link, None), "carrier lost");
    }
}
