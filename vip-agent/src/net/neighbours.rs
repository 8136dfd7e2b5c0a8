//! Entries of the kernel's own neighbour tables: who has an address, without asking the wire.

use std::{io, net::IpAddr};

use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    neighbour::{NeighbourAttribute, NeighbourMessage, NeighbourState},
    route::RouteType,
};
use nix::libc;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_REPLACE};

use super::{
    error::{NetError, interface_name},
    socket::Socket,
};

/// Sets and removes entries.
#[derive(Debug)]
pub struct NeighbourManager(Socket);

impl NeighbourManager {
    /// Opens a netlink socket, which a task of its own serves.
    pub fn open() -> Result<Self, NetError> {
        Socket::open().map(Self)
    }

    /// Has the kernel send what is for `ip` by the interface to `mac`, whatever it held for right. As
    /// something just learned, not for ever: the kernel goes on to look whether it still holds
    /// (RFC 4861 §7.3, for ARP likewise).
    pub async fn set(&mut self, ifindex: u32, ip: IpAddr, mac: [u8; 6]) -> Result<(), NetError> {
        let mut message = neighbour(ifindex, ip);
        message.header.state = NeighbourState::Reachable;
        message
            .attributes
            .push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
        let order = RouteNetlinkMessage::NewNeighbour(message);
        self.order(order, NLM_F_CREATE | NLM_F_REPLACE)
            .await
            .map_err(|why| refused(ifindex, ip, why))
    }

    /// Has the kernel forget what it knows of `ip`. That it knew nothing is fine.
    pub async fn remove(&mut self, ifindex: u32, ip: IpAddr) -> Result<(), NetError> {
        let order = RouteNetlinkMessage::DelNeighbour(neighbour(ifindex, ip));
        match self.order(order, 0).await {
            Err(why) if matches!(why.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) => Ok(()),
            removed => removed.map_err(|why| refused(ifindex, ip, why)),
        }
    }

    /// Both may be given twice, so one that a dying socket swallowed goes to a fresh one.
    async fn order(&mut self, order: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        match self.0.order(order.clone(), flags).await {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.0 = Socket::open().map_err(io::Error::other)?;
                self.0.order(order, flags).await
            }
            answered => answered,
        }
    }
}

fn neighbour(ifindex: u32, ip: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = match ip {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    message.header.ifindex = ifindex;
    message.header.kind = RouteType::Unicast;
    message.attributes = vec![NeighbourAttribute::Destination(ip.into())];
    message
}

fn refused(ifindex: u32, ip: IpAddr, why: io::Error) -> NetError {
    NetError::Neighbour {
        ip,
        interface: interface_name(ifindex),
        why,
    }
}
