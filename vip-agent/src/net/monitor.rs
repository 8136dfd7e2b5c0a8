//! Changes of interfaces and addresses, as they happen.

use std::{fs, net::IpAddr, time::Duration};

use futures::{StreamExt as _, channel::mpsc::UnboundedReceiver};
use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::{
    MulticastGroup, new_multicast_connection,
    packet_core::{NetlinkMessage, NetlinkPayload},
    sys::SocketAddr,
};
use tokio::time::Instant;

use super::{
    error::NetError,
    links::{has_failed_dad, is_shared, local_address},
    socket::Serving,
};

/// Before a socket that broke is opened again.
const PAUSE: Duration = Duration::from_secs(1);

/// A shared IP was taken off an interface: by the agent itself, by somebody else, or by the kernel
/// because its lifetime ran out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// The shared IP.
    pub ip: IpAddr,
    /// The interface.
    pub ifindex: u32,
    /// Who did it, in words.
    pub by: String,
}

/// Tells that something changed; what, is for [`links`](super::links()) to say.
pub struct LinkMonitor {
    messages: UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>,
    /// Set while the socket is broken. Kept here, for the caller drops [`changed`](Self::changed)
    /// more often than a pause is long.
    reopen_at: Option<Instant>,
    _serving: Serving,
}

impl LinkMonitor {
    /// Listens from now on.
    pub fn open() -> Result<Self, NetError> {
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
        ];
        let (connection, _, messages) =
            new_multicast_connection(&groups).map_err(NetError::Socket)?;
        Ok(Self {
            messages,
            reopen_at: None,
            _serving: Serving(tokio::spawn(connection).abort_handle()),
        })
    }

    /// Waits for a change; several that come together are one. Returns the shared IPs that were taken
    /// off meanwhile. Cancel-safe: what matters is taken from the stream only to return at once.
    pub async fn changed(&mut self) -> Vec<Removed> {
        loop {
            if let Some(at) = self.reopen_at {
                tokio::time::sleep_until(at).await;
                match Self::open() {
                    // What was missed meanwhile is a change too.
                    Ok(fresh) => {
                        *self = fresh;
                        return Vec::new();
                    }
                    Err(error) => {
                        tracing::warn!(%error, "interfaces are not being watched");
                        self.reopen_at = Some(Instant::now() + PAUSE);
                    }
                }
                continue;
            }
            match self.messages.next().await {
                Some((message, _)) if !matters(&message) => {}
                Some((first, _)) => {
                    let mut gone: Vec<Removed> = removed(&first).into_iter().collect();
                    while let Ok((message, _)) = self.messages.try_recv() {
                        gone.extend(removed(&message));
                    }
                    return gone;
                }
                None => self.reopen_at = Some(Instant::now() + PAUSE),
            }
        }
    }
}

#[cfg(test)]
impl LinkMonitor {
    /// Kills the socket, as a failed read does.
    pub(super) fn break_socket(&self) {
        self._serving.0.abort();
    }
}

/// The agent renews its shared IPs' lifetimes itself, and is not to chase its own tail. An overrun
/// (the kernel had more to say than the socket holds) is a change like any other.
fn matters(message: &NetlinkMessage<RouteNetlinkMessage>) -> bool {
    match &message.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(address)) => {
            !is_shared(address)
        }
        _ => true,
    }
}

fn removed(message: &NetlinkMessage<RouteNetlinkMessage>) -> Option<Removed> {
    let NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelAddress(address)) = &message.payload
    else {
        return None;
    };
    let failed_dad = has_failed_dad(address);
    let ip = (is_shared(address) || failed_dad)
        .then(|| local_address(address))
        .flatten()?
        .addr();
    let by = match (message.header.port_number, ip) {
        (0, IpAddr::V6(_)) => "somebody or the kernel: of IPv6 it does not say".to_owned(),
        (port, _) => process_of(port),
    };
    Some(Removed {
        ip,
        ifindex: address.header.index,
        by: if failed_dad {
            "the kernel: duplicate address detection found another machine with it".to_owned()
        } else {
            by
        },
    })
}

/// A process' first netlink socket has its process id for an address, and few have a second; the
/// kernel's own is 0. Removals of IPv6 addresses all have that.
fn process_of(port: u32) -> String {
    if port == 0 {
        return "the kernel".to_owned();
    }
    match fs::read_to_string(format!("/proc/{port}/comm")) {
        Ok(name) => format!("{} (process {port})", name.trim()),
        Err(_) => format!("process {port}, which has ended"),
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::{
        AddressFamily,
        address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope},
    };

    use super::*;

    fn address(scope: AddressScope, flags: AddressFlags) -> AddressMessage {
        let mut address = AddressMessage::default();
        address.header.family = AddressFamily::Inet;
        address.header.prefix_len = 32;
        address.header.scope = scope;
        address.header.index = 3;
        let ip = IpAddr::from([10, 0, 0, 100]);
        address.attributes = vec![AddressAttribute::Local(ip), AddressAttribute::Flags(flags)];
        address
    }

    fn message(scope: AddressScope, flags: AddressFlags) -> NetlinkMessage<RouteNetlinkMessage> {
        NetlinkMessage::from(RouteNetlinkMessage::NewAddress(address(scope, flags)))
    }

    #[test]
    fn only_our_own_kind_of_address_is_ignored() {
        let ours = AddressFlags::Noprefixroute;
        assert!(!matters(&message(AddressScope::Host, ours)));
        assert!(matters(&message(AddressScope::Universe, ours)));
        assert!(matters(&message(
            AddressScope::Host,
            AddressFlags::Permanent
        )));
        let by_hand = ours | AddressFlags::Permanent;
        assert!(matters(&message(AddressScope::Host, by_hand)));
    }

    #[test]
    fn a_removal_matters_and_says_who_did_it() {
        let ours = address(AddressScope::Host, AddressFlags::Noprefixroute);
        let mut message = NetlinkMessage::from(RouteNetlinkMessage::DelAddress(ours));
        assert!(matters(&message));
        let by_kernel = removed(&message).expect("a shared IP");
        assert_eq!(by_kernel.ip, IpAddr::from([10, 0, 0, 100]));
        assert_eq!((by_kernel.ifindex, &*by_kernel.by), (3, "the kernel"));
        message.header.port_number = std::process::id();
        let by_us = removed(&message).expect("a shared IP").by;
        assert!(
            by_us.ends_with(&format!("(process {})", std::process::id())),
            "{by_us}"
        );
    }

    #[test]
    fn an_overrun_is_a_change() {
        let mut overrun = message(AddressScope::Host, AddressFlags::Noprefixroute);
        overrun.payload = NetlinkPayload::Overrun(Vec::new());
        assert!(matters(&overrun));
    }
}
