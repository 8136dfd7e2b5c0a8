//! Shared IPs on interfaces.

use std::{io, net::IpAddr, time::Duration};

use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope, CacheInfo},
};
use nix::libc;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_REPLACE};

use super::{
    error::{NetError, interface_name},
    socket::Socket,
};

/// The longest finite lifetime: one more means forever.
const LONGEST_SECONDS: u32 = u32::MAX - 1;

/// Adds and removes shared IPs.
#[derive(Clone, Debug)]
pub struct AddressManager {
    socket: Socket,
}

impl AddressManager {
    /// Opens a netlink socket, which a task of its own serves.
    pub fn open() -> Result<Self, NetError> {
        let socket = Socket::open()?;
        Ok(Self { socket })
    }

    /// Puts `ip` on the interface, or renews it there: a host's address without a route, of scope
    /// `host` so that nothing the host itself begins is sent from it, and gone after `lifetime`
    /// (whole seconds, rounded down; at least one).
    pub async fn add(&self, ifindex: u32, ip: IpAddr, lifetime: Duration) -> Result<(), NetError> {
        let seconds = u32::try_from(lifetime.as_secs()).unwrap_or(LONGEST_SECONDS);
        if seconds == 0 {
            let interface = interface_name(ifindex);
            return Err(NetError::Lifetime { ip, interface });
        }
        let mut lifetimes = CacheInfo::default();
        lifetimes.ifa_preferred = seconds.min(LONGEST_SECONDS);
        lifetimes.ifa_valid = lifetimes.ifa_preferred;
        let mut message = address(ifindex, ip);
        message.header.scope = AddressScope::Host;
        message.attributes.extend([
            AddressAttribute::Flags(AddressFlags::Noprefixroute),
            AddressAttribute::CacheInfo(lifetimes),
        ]);
        let order = RouteNetlinkMessage::NewAddress(message);
        self.order(order, NLM_F_CREATE | NLM_F_REPLACE)
            .await
            .map_err(|why| refused(ifindex, ip, "put on", why))
    }

    /// Takes `ip` off the interface. That it was not there, or that the interface has gone, is fine.
    pub async fn remove(&self, ifindex: u32, ip: IpAddr) -> Result<(), NetError> {
        let order = RouteNetlinkMessage::DelAddress(address(ifindex, ip));
        match self.order(order, 0).await {
            Err(why) if is_gone(&why) => Ok(()),
            removed => removed.map_err(|why| refused(ifindex, ip, "taken off", why)),
        }
    }

    /// Both orders may be given twice, so one that a dying socket swallowed goes to a fresh one.
    async fn order(&self, order: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        match self.socket.order(order.clone(), flags).await {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                let fresh = Socket::open().map_err(io::Error::other)?;
                fresh.order(order, flags).await
            }
            answered => answered,
        }
    }
}

/// `ip` as the one address of its subnet.
fn address(ifindex: u32, ip: IpAddr) -> AddressMessage {
    let mut message = AddressMessage::default();
    (message.header.family, message.header.prefix_len) = match ip {
        IpAddr::V4(_) => (AddressFamily::Inet, 32),
        IpAddr::V6(_) => (AddressFamily::Inet6, 128),
    };
    message.header.index = ifindex;
    message.attributes = vec![AddressAttribute::Local(ip), AddressAttribute::Address(ip)];
    message
}

fn is_gone(why: &io::Error) -> bool {
    matches!(why.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::ENODEV))
}

fn refused(ifindex: u32, ip: IpAddr, verb: &'static str, why: io::Error) -> NetError {
    NetError::Address {
        ip,
        interface: interface_name(ifindex),
        verb,
        why,
    }
}
