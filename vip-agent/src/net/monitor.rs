//! Changes of interfaces and addresses, as they happen.

use std::time::Duration;

use futures::{StreamExt as _, channel::mpsc::UnboundedReceiver};
use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::{
    MulticastGroup, new_multicast_connection,
    packet_core::{NetlinkMessage, NetlinkPayload},
    sys::SocketAddr,
};

use super::{error::NetError, links::is_shared};

/// Before a socket that broke is opened again.
const PAUSE: Duration = Duration::from_secs(1);

/// Tells that something changed; what, is for [`links`](super::links()) to say.
pub struct LinkMonitor {
    messages: UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>,
}

impl LinkMonitor {
    /// Listens from now on.
    pub fn open() -> Result<Self, NetError> {
        let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr];
        let (connection, _, messages) =
            new_multicast_connection(&groups).map_err(NetError::Socket)?;
        tokio::spawn(connection);
        Ok(Self { messages })
    }

    /// Waits for a change; several that come together are one. Cancel-safe: nothing is taken from
    /// the stream before it is known to matter.
    pub async fn changed(&mut self) {
        loop {
            match self.messages.next().await {
                Some((message, _)) if !matters(&message) => {}
                Some(_) => {
                    while self.messages.try_recv().is_ok() {}
                    return;
                }
                // What was missed meanwhile is a change too.
                None => {
                    tokio::time::sleep(PAUSE).await;
                    match Self::open() {
                        Ok(fresh) => {
                            *self = fresh;
                            return;
                        }
                        Err(error) => tracing::warn!(%error, "interfaces are not being watched"),
                    }
                }
            }
        }
    }
}

/// The agent renews its shared IPs' lifetimes itself, and is not to chase its own tail.
fn matters(message: &NetlinkMessage<RouteNetlinkMessage>) -> bool {
    match &message.payload {
        NetlinkPayload::InnerMessage(
            RouteNetlinkMessage::NewAddress(address) | RouteNetlinkMessage::DelAddress(address),
        ) => !is_shared(address),
        _ => true,
    }
}
