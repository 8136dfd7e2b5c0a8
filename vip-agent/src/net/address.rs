//! Shared IPs on interfaces.

use std::{net::IpAddr, time::Duration};

use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope, CacheInfo,
};
use nix::libc;
use rtnetlink::Handle;

use super::error::{NetError, errno};

/// Adds and removes shared IPs.
#[derive(Clone, Debug)]
pub struct AddressManager {
    handle: Handle,
}

impl AddressManager {
    /// Opens a netlink socket, which a task of its own serves.
    pub fn open() -> Result<Self, NetError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(NetError::Socket)?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// Puts `ip` on the interface, or renews it there: a host's address without a route, of scope
    /// `host` so that nothing the host itself begins is sent from it, and gone after `lifetime`
    /// (whole seconds).
    pub async fn add(&self, ifindex: u32, ip: IpAddr, lifetime: Duration) -> Result<(), NetError> {
        let mut request = self
            .handle
            .address()
            .add(ifindex, ip, prefix_len(ip))
            .replace();
        let message = request.message_mut();
        message.header.scope = AddressScope::Host;
        let seconds = u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX);
        let mut lifetimes = CacheInfo::default();
        lifetimes.ifa_preferred = seconds;
        lifetimes.ifa_valid = seconds;
        // A single address has nobody to broadcast to; the library assumes that it has.
        message
            .attributes
            .retain(|one| !matches!(one, AddressAttribute::Broadcast(_)));
        message
            .attributes
            .push(AddressAttribute::Flags(AddressFlags::Noprefixroute));
        message
            .attributes
            .push(AddressAttribute::CacheInfo(lifetimes));
        let put = request.execute().await;
        put.map_err(|source| NetError::Address {
            ip,
            ifindex,
            verb: "put on",
            source,
        })
    }

    /// Takes `ip` off the interface. That it was not there, or that the interface has gone, is fine.
    pub async fn remove(&self, ifindex: u32, ip: IpAddr) -> Result<(), NetError> {
        let mut message = AddressMessage::default();
        message.header.family = match ip {
            IpAddr::V4(_) => netlink_packet_route::AddressFamily::Inet,
            IpAddr::V6(_) => netlink_packet_route::AddressFamily::Inet6,
        };
        message.header.prefix_len = prefix_len(ip);
        message.header.index = ifindex;
        message.header.flags = AddressHeaderFlags::empty();
        message.attributes.push(AddressAttribute::Local(ip));
        message.attributes.push(AddressAttribute::Address(ip));
        match self.handle.address().del(message).execute().await {
            Err(error) if matches!(errno(&error), Some(libc::EADDRNOTAVAIL | libc::ENODEV)) => {
                Ok(())
            }
            removed => removed.map_err(|source| NetError::Address {
                ip,
                ifindex,
                verb: "taken off",
                source,
            }),
        }
    }
}

fn prefix_len(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}
