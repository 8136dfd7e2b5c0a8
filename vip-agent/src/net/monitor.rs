//! Changes of interfaces and addresses, as they happen.

use std::time::Duration;

use futures::{StreamExt as _, channel::mpsc::UnboundedReceiver};
use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::{
    MulticastGroup, new_multicast_connection,
    packet_core::{NetlinkMessage, NetlinkPayload},
    sys::SocketAddr,
};
use tokio::time::Instant;

use super::{error::NetError, links::is_shared, socket::Serving};

/// Before a socket that broke is opened again.
const PAUSE: Duration = Duration::from_secs(1);

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
        let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr];
        let (connection, _, messages) =
            new_multicast_connection(&groups).map_err(NetError::Socket)?;
        Ok(Self {
            messages,
            reopen_at: None,
            _serving: Serving(tokio::spawn(connection).abort_handle()),
        })
    }

    /// Waits for a change; several that come together are one. Cancel-safe: what matters is taken
    /// from the stream only to return at once.
    pub async fn changed(&mut self) {
        loop {
            if let Some(at) = self.reopen_at {
                tokio::time::sleep_until(at).await;
                match Self::open() {
                    // What was missed meanwhile is a change too.
                    Ok(fresh) => {
                        *self = fresh;
                        return;
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
                Some(_) => {
                    while self.messages.try_recv().is_ok() {}
                    return;
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
        NetlinkPayload::InnerMessage(
            RouteNetlinkMessage::NewAddress(address) | RouteNetlinkMessage::DelAddress(address),
        ) => !is_shared(address),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::address::{
        AddressAttribute, AddressFlags, AddressMessage, AddressScope,
    };

    use super::*;

    fn message(scope: AddressScope, flags: AddressFlags) -> NetlinkMessage<RouteNetlinkMessage> {
        let mut address = AddressMessage::default();
        address.header.prefix_len = 32;
        address.header.scope = scope;
        address.attributes.push(AddressAttribute::Flags(flags));
        NetlinkMessage::from(RouteNetlinkMessage::NewAddress(address))
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
    }

    #[test]
    fn an_overrun_is_a_change() {
        let mut overrun = message(AddressScope::Host, AddressFlags::Noprefixroute);
        overrun.payload = NetlinkPayload::Overrun(Vec::new());
        assert!(matters(&overrun));
    }
}
