//! What interfaces there are.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope},
    link::{LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
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
    /// What kind that is, in the kernel's word: `bridge`, `bond`, `vrf`; empty without one.
    pub master_kind: String,
    /// What kind it is itself, in the kernel's word: `macvlan`, `veth`; empty for a NIC.
    pub kind: String,
    /// The index of the link that it lies on, as a macvlan does, or is tied to, as a veth is: if that is
    /// in this network namespace.
    pub lower: Option<u32>,
    /// Its own addresses, with link-local ones: shared IPs that an agent put there are left out.
    pub addresses: Vec<IpNet>,
    /// The shared IPs that an agent put there.
    pub shared: Vec<IpAddr>,
    /// The addresses without a subnet that serve nobody, for the kernel's duplicate address
    /// detection found another machine with them (`dadfailed`).
    pub dad_failed: Vec<IpAddr>,
}

/// All interfaces of this network namespace.
pub async fn links() -> Result<Vec<Link>, NetError> {
    let socket = Socket::open()?;
    let question = RouteNetlinkMessage::GetLink(LinkMessage::default());
    let links = socket.dump(question).await.map_err(|why| NetError::List {
        what: "interfaces",
        why,
    })?;
    // Of all families.
    let question = RouteNetlinkMessage::GetAddress(AddressMessage::default());
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
            if has_failed_dad(&message) {
                link.dad_failed.push(address.addr());
            } else if is_shared(&message) {
                link.shared.push(address.addr());
            } else {
                link.addresses.push(address);
            }
        }
    }
    Ok(links.into_values().collect())
}

/// Whether it is an address as the agent adds them, which no one else does: one of its own subnet,
/// without a route, not for ever, and such that nothing the host itself begins is sent from it: of
/// scope `host`, or in IPv6 deprecated from the start; there without duplicate address detection, too.
pub(super) fn is_shared(message: &AddressMessage) -> bool {
    let flags = flags(message);
    let is_as_added = match message.header.family {
        AddressFamily::Inet => message.header.scope == AddressScope::Host,
        _ => flags.contains(AddressFlags::Nodad | AddressFlags::Deprecated),
    };
    is_alone(message)
        && is_as_added
        && flags.contains(AddressFlags::Noprefixroute)
        && !flags.intersects(AddressFlags::Permanent | AddressFlags::Dadfailed)
}

/// Whether it is an address of its own subnet that the kernel found another machine to have. None that
/// the agent added can be: but somebody may add the same without `nodad`.
pub(super) fn has_failed_dad(message: &AddressMessage) -> bool {
    is_alone(message) && flags(message).contains(AddressFlags::Dadfailed)
}

/// With the length of its prefix.
pub(super) fn local_address(message: &AddressMessage) -> Option<IpNet> {
    let find = |of: fn(&AddressAttribute) -> Option<IpAddr>| message.attributes.iter().find_map(of);
    // "Local" is the address itself; on point-to-point links "Address" is the peer's. IPv6 has
    // "Local" on these only.
    let local = find(|attribute| match attribute {
        AddressAttribute::Local(ip) => Some(*ip),
        _ => None,
    });
    let address = || {
        find(|attribute| match attribute {
            AddressAttribute::Address(ip @ IpAddr::V6(_)) => Some(*ip),
            _ => None,
        })
    };
    IpNet::new(local.or_else(address)?, message.header.prefix_len).ok()
}

fn is_alone(message: &AddressMessage) -> bool {
    let bits = match message.header.family {
        AddressFamily::Inet => 32,
        AddressFamily::Inet6 => 128,
        _ => return false,
    };
    message.header.prefix_len == bits
}

fn flags(message: &AddressMessage) -> AddressFlags {
    let flags = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            AddressAttribute::Flags(flags) => Some(*flags),
            _ => None,
        });
    flags.unwrap_or(AddressFlags::empty())
}

fn link(message: &LinkMessage) -> Link {
    let mut name = String::new();
    let mut mac = [0; 6];
    let mut master = None;
    let mut master_kind = String::new();
    let mut kind = String::new();
    let (mut lower, mut is_elsewhere) = (None, false);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name.clone_from(text),
            LinkAttribute::Address(bytes) => {
                mac = <[u8; 6]>::try_from(bytes.as_slice()).unwrap_or_default();
            }
            LinkAttribute::Controller(index) => master = Some(*index).filter(|index| *index != 0),
            LinkAttribute::Link(index) => lower = Some(*index).filter(|index| *index != 0),
            LinkAttribute::LinkNetNsId(_) => is_elsewhere = true,
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    match info {
                        LinkInfo::Kind(its) => kind = its.to_string(),
                        LinkInfo::PortKind(its) => master_kind = its.to_string(),
                        _ => {}
                    }
                }
            }
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
        master_kind,
        kind,
        lower: lower.filter(|_| !is_elsewhere),
        addresses: Vec::new(),
        shared: Vec::new(),
        dad_failed: Vec::new(),
    }
}
