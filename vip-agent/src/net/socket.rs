//! Questions and orders to the kernel over netlink.

use std::io;

use futures::StreamExt as _;
use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::{
    Handle,
    packet_core::{
        NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
    },
};
use tokio::task::AbortHandle;

use super::error::NetError;

/// How often a list is asked for again because it changed while the kernel was giving it.
const ATTEMPTS: usize = 5;

/// A netlink socket and the task that serves it.
///
/// The library's own requests take a socket that died under them for an answer: an order looks
/// carried out, a list looks complete. Here both must end with the kernel's own word.
#[derive(Clone, Debug)]
pub(super) struct Socket(Handle);

/// Ends a socket's task, and so the socket, when dropped.
#[derive(Debug)]
pub(super) struct Serving(pub AbortHandle);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Socket {
    /// Its task ends when the last clone is dropped.
    pub fn open() -> Result<Self, NetError> {
        let (mut connection, handle, _) = rtnetlink::new_connection().map_err(NetError::Socket)?;
        connection.set_forward_ack(true);
        connection.set_forward_done(true);
        tokio::spawn(connection);
        Ok(Self(handle))
    }

    /// Has the kernel do something. An error of kind [`io::ErrorKind::BrokenPipe`] means that the
    /// socket died, and that it may or may not have been done.
    pub async fn order(&self, order: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        let mut message = NetlinkMessage::from(order);
        message.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        let mut answers = self.0.clone().request(message).map_err(|_| broken())?;
        while let Some(answer) = answers.next().await {
            if let NetlinkPayload::Error(answer) = answer.payload {
                return match answer.code {
                    None => Ok(()),
                    Some(_) => Err(answer.to_io()),
                };
            }
        }
        Err(broken())
    }

    /// Asks the kernel for one thing.
    pub async fn ask(&self, question: RouteNetlinkMessage) -> io::Result<RouteNetlinkMessage> {
        let mut message = NetlinkMessage::from(question);
        message.header.flags = NLM_F_REQUEST;
        let mut answers = self.0.clone().request(message).map_err(|_| broken())?;
        while let Some(answer) = answers.next().await {
            match answer.payload {
                NetlinkPayload::InnerMessage(one) => return Ok(one),
                NetlinkPayload::Error(answer) => return Err(answer.to_io()),
                _ => {}
            }
        }
        Err(broken())
    }

    /// Has the kernel list something, all of it.
    pub async fn dump(
        &self,
        question: RouteNetlinkMessage,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut attempt = 1;
        loop {
            let (list, is_consistent) = self.dump_once(question.clone()).await?;
            // Where interfaces never stop coming and going, the last list has to do: the next
            // change has it asked for again.
            if is_consistent || attempt == ATTEMPTS {
                return Ok(list);
            }
            attempt += 1;
        }
    }

    async fn dump_once(
        &self,
        question: RouteNetlinkMessage,
    ) -> io::Result<(Vec<RouteNetlinkMessage>, bool)> {
        let mut message = NetlinkMessage::from(question);
        message.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        let mut answers = self.0.clone().request(message).map_err(|_| broken())?;
        let mut list = Vec::new();
        let mut is_consistent = true;
        while let Some(answer) = answers.next().await {
            is_consistent &= answer.header.flags & NLM_F_DUMP_INTR == 0;
            match answer.payload {
                NetlinkPayload::InnerMessage(one) => list.push(one),
                NetlinkPayload::Error(answer) => return Err(answer.to_io()),
                NetlinkPayload::Done(end) if end.code < 0 => {
                    return Err(io::Error::from_raw_os_error(-end.code));
                }
                NetlinkPayload::Done(_) => return Ok((list, is_consistent)),
                _ => {}
            }
        }
        Err(broken())
    }
}

fn broken() -> io::Error {
    io::Error::new(
        io::ErrorKind::BrokenPipe,
        "the netlink socket died before the kernel answered",
    )
}
