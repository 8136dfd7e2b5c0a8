//! Shared IPs on interfaces.

use std::{io, net::IpAddr, time::Duration};

use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope, CacheInfo},
    route::{RouteAttribute, RouteMessage, RouteType},
};
use nix::libc;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use tokio::time::{sleep, timeout};

use super::{
    error::{NetError, interface_name},
    socket::Socket,
    sysctl::has_ipv6,
};

/// The longest finite lifetime: one more means forever.
const LONGEST_SECONDS: u32 = u32::MAX - 1;

/// How long an IPv6 address is waited for; it takes less than a millisecond on an idle machine.
const TAKES_EFFECT: Duration = Duration::from_millis(500);
/// Between two questions at first; then twice as long each time, for many addresses may come at once.
const ASK_AGAIN: Duration = Duration::from_millis(1);

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

    /// Puts `ip` on the interface, or renews it there: a host's address without a route, such that
    /// nothing the host itself begins is sent from it, and gone after `lifetime` (whole seconds,
    /// rounded down; at least one). IPv4 has the scope `host` for that. IPv6 has no such scope, so the
    /// address is deprecated from the start (RFC 6724 §5, rule 3), and duplicate address detection is
    /// left out: it would keep the address silent for a second, or for good.
    pub async fn add(&self, ifindex: u32, ip: IpAddr, lifetime: Duration) -> Result<(), NetError> {
        let seconds = u32::try_from(lifetime.as_secs()).unwrap_or(LONGEST_SECONDS);
        if seconds == 0 {
            let interface = interface_name(ifindex);
            return Err(NetError::Lifetime { ip, interface });
        }
        let mut lifetimes = CacheInfo::default();
        lifetimes.ifa_valid = seconds.min(LONGEST_SECONDS);
        let mut message = address(ifindex, ip);
        let mut flags = AddressFlags::Noprefixroute;
        match ip {
            IpAddr::V4(_) => {
                message.header.scope = AddressScope::Host;
                lifetimes.ifa_preferred = lifetimes.ifa_valid;
            }
            IpAddr::V6(_) => {
                flags |= AddressFlags::Nodad;
                lifetimes.ifa_preferred = 0;
            }
        }
        message.attributes.extend([
            AddressAttribute::Flags(flags),
            AddressAttribute::CacheInfo(lifetimes),
        ]);
        let order = RouteNetlinkMessage::NewAddress(message);
        self.order(order, NLM_F_CREATE | NLM_F_REPLACE)
            .await
            .map_err(|why| refused(ifindex, ip, "put on", why))?;
        if ip.is_ipv6()
            && timeout(TAKES_EFFECT, self.is_local(ifindex, ip))
                .await
                .is_err()
        {
            let interface = interface_name(ifindex);
            tracing::warn!(%ip, interface, "the address is on, but the kernel takes nothing for it yet");
        }
        Ok(())
    }

    /// Waits until the host takes what comes for `ip`. Linux says that an IPv6 address is on before it
    /// is: a worker of its own adds the route, and joins the solicited-node group.
    async fn is_local(&self, ifindex: u32, ip: IpAddr) {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet6;
        message.header.destination_prefix_length = 128;
        message.attributes = vec![
            RouteAttribute::Destination(ip.into()),
            RouteAttribute::Oif(ifindex),
        ];
        let mut pause = ASK_AGAIN;
        loop {
            let question = RouteNetlinkMessage::GetRoute(message.clone());
            match self.socket.ask(question).await {
                Ok(RouteNetlinkMessage::NewRoute(route))
                    if route.header.kind == RouteType::Local =>
                {
                    return;
                }
                // Of a socket that has died it cannot be asked.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return,
                _ => sleep(pause).await,
            }
            pause *= 2;
        }
    }

    /// Takes `ip` off the interface. That it was not there, or that the interface has gone, is fine.
    pub async fn remove(&self, ifindex: u32, ip: IpAddr) -> Result<(), NetError> {
        let order = RouteNetlinkMessage::DelAddress(address(ifindex, ip));
        let is_off = |why: &io::Error| {
            // Where IPv6 is off, its addresses are.
            is_gone(why) || ip.is_ipv6() && !has_ipv6(&interface_name(ifindex))
        };
        match self.order(order, 0).await {
            Err(why) if is_off(&why) => Ok(()),
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
    let interface = interface_name(ifindex);
    let is_gone = matches!(why.raw_os_error(), Some(libc::ENODEV | libc::EPERM));
    if ip.is_ipv6() && !is_gone && !has_ipv6(&interface) {
        return NetError::Ipv6Off { ip, interface };
    }
    NetError::Address {
        ip,
        interface,
        verb,
        why,
    }
}
