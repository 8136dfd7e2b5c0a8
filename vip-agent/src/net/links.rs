//! What interfaces there are.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::{IpNet, Ipv4Net};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope},
    link::{LinkAttribute, LinkFlags, LinkMessage},
};

use super::{error::NetError, socket::Socket};

/// An interface as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Its index, which no other interface gets while it lives.
    pub ifindex: u32,
    /// Its MAC; zero if it has none, as tunnels have.
    pub mac: [u8; 6],
    /// Whether it is switched on and has a carrier.
    pub up: bool,
    /// Whether it is the loopback.
    pub loopback: bool,
    /// The index of the bridge, bond or the like that it is a port of.
    pub master: Option<u32>,
    /// Its own IPv4 addresses: shared IPs that an agent put there are left out.
    pub addresses: Vec<IpNet>,
    /// The shared IPs that an agent put there.
    pub shared: Vec<IpAddr>,
}

/// All interfaces of this network namespace.
pub async fn links() -> Result<Vec<Link>, NetError> {
    let socket = Socket::open()?;
    let question = RouteNetlinkMessage::GetLink(LinkMessage::default());
    let links = socket.dump(question).await.map_err(|why| NetError::List {
        what: "interfaces",
        why,
    })?;
    let mut of_ipv4 = AddressMessage::default();
    of_ipv4.header.family = AddressFamily::Inet;
    let question = RouteNetlinkMessage::GetAddress(of_ipv4);
    let addresses = socket.dump(question).await.map_err(|why| NetError::List {
        what: "addresses",
        why,
    })?;
    let mut links: BTreeMap<u32, Link> = links
        .iter()
        .filter_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(message) => Some((message.header.index, link(message))),
            _ => None,
        })
        .collect();
    for answer in addresses {
        if let RouteNetlinkMessage::NewAddress(message) = answer
            && let Some(link) = links.get_mut(&message.header.index)
            && let Some(address) = local_address(&message)
        {
            if is_shared(&message) {
                link.shared.push(address.addr());
            } else {
                link.addresses.push(address);
            }
        }
    }
    Ok(links.into_values().collect())
}

/// Whether it is an address as the agent adds them, which no one else does: one of its own subnet,
/// of scope `host`, without a route, and not for ever.
pub(super) fn is_shared(message: &AddressMessage) -> bool {
    let flags = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            AddressAttribute::Flags(flags) => Some(*flags),
            _ => None,
        });
    message.header.prefix_len == 32
        && message.header.scope == AddressScope::Host
        && flags.is_some_and(|flags| {
            flags.contains(AddressFlags::Noprefixroute) && !flags.contains(AddressFlags::Permanent)
        })
}

pub(super) fn local_address(message: &AddressMessage) -> Option<IpNet> {
    if message.header.family != AddressFamily::Inet {
        return None;
    }
    // "Local" is the address itself; on point-to-point links "Address" is the peer's.
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            AddressAttribute::Local(IpAddr::V4(ip)) => Ipv4Net::new(*ip, message.header.prefix_len)
                .ok()
                .map(IpNet::V4),
            _ => None,
        })
}

fn link(message: &LinkMessage) -> Link {
    let mut name = String::new();
    let mut mac = [0; 6];
    let mut master = None;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name.clone_from(text),
            LinkAttribute::Address(bytes) => {
                mac = <[u8; 6]>::try_from(bytes.as_slice()).unwrap_or_default();
            }
            LinkAttribute::Controller(index) => master = Some(*index).filter(|index| *index != 0),
            _ => {}
        }
    }
    let flags = message.header.flags;
    Link {
        name,
        ifindex: message.header.index,
        mac,
        // The kernel sets "running" for interfaces whose state is up or can't be told.
        up: flags.contains(LinkFlags::Up) && flags.contains(LinkFlags::Running),
        loopback: flags.contains(LinkFlags::Loopback),
        master,
        addresses: Vec::new(),
        shared: Vec::new(),
    }
}
