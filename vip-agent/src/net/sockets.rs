//! Local sockets that are bound to an address that has gone. Their programs would wait for answers
//! that cannot come, until they time out; sockets that are destroyed tell them at once
//! (`ECONNABORTED`).

use std::{io, net::IpAddr, sync::Once};

use futures::StreamExt as _;
use netlink_packet_sock_diag::{
    SOCK_DESTROY, SOCK_DIAG_BY_FAMILY,
    constants::{AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP},
    inet::{ExtensionFlags, InetRequest, InetResponseHeader, SocketId, StateFlags},
};
use nix::libc;
use rtnetlink::{
    packet_core::{
        DecodeError, Emitable as _, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable,
        NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable, Parseable as _,
    },
    proto::{self, ConnectionHandle},
    sys::{SocketAddr, protocols::NETLINK_SOCK_DIAG},
};

use super::{error::NetError, socket::Serving};

/// `INET_DIAG_REQ_BYTECODE` of `linux/inet_diag.h`: an attribute that says which sockets to list.
const ONLY: u16 = 1;
/// `INET_DIAG_BC_S_COND`: those of this local address.
const LOCAL_ADDRESS: u8 = 7;

/// Destroys the connections whose local address is `ip`: TCP in every state but `LISTEN`
/// (and `TIME_WAIT`, which no program waits for), and connected UDP; also those of IPv6 sockets that
/// speak IPv4. What listens is left: the address may come back, and its service with it. Returns
/// how many there were.
///
/// A kernel without `CONFIG_INET_DIAG_DESTROY` destroys none, which is said once.
pub async fn destroy_bound_to(ip: IpAddr) -> Result<usize, NetError> {
    let failed = |why| NetError::Sockets { ip, why };
    let kernel = Kernel::open().map_err(NetError::Socket)?;
    let mut destroyed = 0;
    for socket in kernel.connections_of(ip).await.map_err(failed)? {
        match kernel.destroy(socket).await {
            Ok(()) => destroyed += 1,
            // It ended by itself.
            Err(why) if matches!(why.raw_os_error(), Some(libc::ENOENT | libc::ESTALE)) => {}
            Err(why) if why.raw_os_error() == Some(libc::EOPNOTSUPP) => say_unsupported(),
            Err(why) => return Err(failed(why)),
        }
    }
    Ok(destroyed)
}

/// A socket for questions about sockets, and the task that serves it.
struct Kernel {
    handle: ConnectionHandle<Message>,
    _serving: Serving,
}

/// What goes to the kernel and what comes back.
#[derive(Clone, Debug)]
enum Message {
    List { like: InetRequest, only: Vec<u8> },
    Found(InetResponseHeader),
    Destroy(InetRequest),
}

impl Kernel {
    fn open() -> io::Result<Self> {
        let (mut connection, handle, _) = proto::new_connection(NETLINK_SOCK_DIAG)?;
        connection.set_forward_ack(true);
        connection.set_forward_done(true);
        Ok(Self {
            handle,
            _serving: Serving(tokio::spawn(connection).abort_handle()),
        })
    }

    async fn connections_of(&self, ip: IpAddr) -> io::Result<Vec<InetRequest>> {
        let tcp = StateFlags::all() - StateFlags::LISTEN - StateFlags::TIME_WAIT;
        // The state of a UDP socket that is connected.
        let udp = StateFlags::ESTABLISHED;
        let families: &[u8] = match ip {
            IpAddr::V4(_) => &[AF_INET, AF_INET6],
            IpAddr::V6(_) => &[AF_INET6],
        };
        let mut found = Vec::new();
        for &family in families {
            for (protocol, states) in [(IPPROTO_TCP, &tcp), (IPPROTO_UDP, &udp)] {
                let like = InetRequest {
                    family,
                    protocol,
                    extensions: ExtensionFlags::empty(),
                    states: states.clone(),
                    socket_id: SocketId::new_v6(),
                };
                found.extend(self.list(like, ip).await?);
            }
        }
        Ok(found)
    }

    async fn list(&self, like: InetRequest, ip: IpAddr) -> io::Result<Vec<InetRequest>> {
        let list = Message::List {
            like: like.clone(),
            only: only_of(ip),
        };
        let mut answers = self.ask(list, NLM_F_DUMP)?;
        let mut found = Vec::new();
        while let Some(answer) = answers.next().await {
            match answer.payload {
                NetlinkPayload::InnerMessage(Message::Found(socket)) => found.push(InetRequest {
                    socket_id: socket.socket_id,
                    ..like.clone()
                }),
                NetlinkPayload::Error(answer) => return Err(answer.to_io()),
                NetlinkPayload::Done(end) if end.code < 0 => {
                    return Err(io::Error::from_raw_os_error(-end.code));
                }
                NetlinkPayload::Done(_) => return Ok(found),
                _ => {}
            }
        }
        Err(io::ErrorKind::BrokenPipe.into())
    }

    async fn destroy(&self, socket: InetRequest) -> io::Result<()> {
        let mut answers = self.ask(Message::Destroy(socket), NLM_F_ACK)?;
        while let Some(answer) = answers.next().await {
            if let NetlinkPayload::Error(answer) = answer.payload {
                return match answer.code {
                    None => Ok(()),
                    Some(_) => Err(answer.to_io()),
                };
            }
        }
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn ask(
        &self,
        message: Message,
        flags: u16,
    ) -> io::Result<impl futures::Stream<Item = NetlinkMessage<Message>> + use<>> {
        let mut message = NetlinkMessage::from(message);
        message.header.flags = NLM_F_REQUEST | flags;
        self.handle
            .request(message, SocketAddr::new(0, 0))
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// A filter of one condition, which the kernel runs: the local address is `ip`, mapped into IPv6
/// or not. A busy machine has more sockets than one would list in the time of a handover.
fn only_of(ip: IpAddr) -> Vec<u8> {
    let (family, address) = match ip {
        IpAddr::V4(ip) => (AF_INET, ip.octets().to_vec()),
        IpAddr::V6(ip) => (AF_INET6, ip.octets().to_vec()),
    };
    let bits = if family == AF_INET { 32 } else { 128 };
    // The operation, the condition's head, and the address.
    let length = 4 + 8 + if family == AF_INET { 4_u8 } else { 16 };
    // Where it is met, go to the end; where not, past it.
    let mut only = vec![LOCAL_ADDRESS, length];
    only.extend(u16::from(length + 4).to_ne_bytes());
    only.extend([family, bits, 0, 0]);
    let any_port: i32 = -1;
    only.extend(any_port.to_ne_bytes());
    only.extend(address);
    let attribute_length = 4 + u16::from(length);
    let mut attribute = Vec::from(attribute_length.to_ne_bytes());
    attribute.extend(ONLY.to_ne_bytes());
    attribute.extend(only);
    attribute
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        match self {
            Self::List { .. } | Self::Found(_) => SOCK_DIAG_BY_FAMILY,
            Self::Destroy(_) => SOCK_DESTROY,
        }
    }

    fn buffer_len(&self) -> usize {
        match self {
            Self::List { like, only } => like.buffer_len() + only.len(),
            Self::Destroy(socket) => socket.buffer_len(),
            Self::Found(socket) => socket.buffer_len(),
        }
    }

    fn serialize(&self, buffer: &mut [u8]) {
        match self {
            Self::List { like, only } => {
                let (head, rest) = buffer.split_at_mut(like.buffer_len());
                like.emit(head);
                rest.copy_from_slice(only);
            }
            Self::Destroy(socket) => socket.emit(buffer),
            Self::Found(socket) => socket.emit(buffer),
        }
    }
}

impl NetlinkDeserializable for Message {
    type Error = DecodeError;

    fn deserialize(_: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        InetResponseHeader::parse(payload).map(Self::Found)
    }
}

impl From<Message> for NetlinkPayload<Message> {
    fn from(message: Message) -> Self {
        Self::InnerMessage(message)
    }
}

fn say_unsupported() {
    static SAID: Once = Once::new();
    SAID.call_once(|| {
        tracing::warn!(
            "this kernel cannot end local connections from a shared IP that has gone \
             (CONFIG_INET_DIAG_DESTROY); they end when they time out"
        );
    });
}
