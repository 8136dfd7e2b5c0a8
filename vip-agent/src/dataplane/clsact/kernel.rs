//! Filters and qdiscs as the kernel has them, over netlink (`linux/pkt_sched.h`, `linux/pkt_cls.h`).

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use aya::programs::TcAttachType;
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{
        TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcHandle, TcHeader, TcMessage,
        TcOption,
    },
};
use nix::libc;
use rtnetlink::{
    packet_core::{
        DoneBuffer, ErrorBuffer, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST,
        NetlinkBuffer, NetlinkMessage, Parseable as _,
    },
    sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE},
};

/// `TC_H_MAKE(TC_H_CLSACT, 0)`: the qdisc's own handle.
const CLSACT: TcHandle = TcHandle {
    major: 0xffff,
    minor: 0,
};

/// A BPF filter, as far as it tells who made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    pub hook: TcAttachType,
    pub handle: u32,
    pub name: String,
    /// By which the kernel knows the program.
    pub program_id: u32,
}

/// A netlink socket. It asks and waits: the kernel answers before it does anything else.
pub struct Kernel(Socket);

impl Kernel {
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self(socket))
    }

    /// What each interface has in clsact's place, if anything.
    pub fn qdiscs(&self) -> io::Result<BTreeMap<u32, String>> {
        let question = RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default());
        let all = self.request(question, NLM_F_DUMP)?;
        let found = all
            .iter()
            .filter_map(|answer| answer.message())
            .filter(|message| {
                message.header.parent == TcHandle::CLSACT && message.header.handle == CLSACT
            });
        Ok(found
            .filter_map(|message| {
                let ifindex = u32::try_from(message.header.index).ok()?;
                Some((ifindex, kind(&message)?.to_owned()))
            })
            .collect())
    }

    pub fn add_clsact(&self, ifindex: u32) -> io::Result<()> {
        let message = TcMessage::from_parts(
            TcHeader {
                index: index(ifindex)?,
                handle: CLSACT,
                parent: TcHandle::CLSACT,
                ..TcHeader::default()
            },
            vec![TcAttribute::Kind("clsact".to_owned())],
        );
        let order = RouteNetlinkMessage::NewQueueDiscipline(message);
        self.order(order, NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Leaves one that has a filter of anybody's.
    pub fn remove_empty_clsact(&self, ifindex: u32) -> io::Result<()> {
        for hook in [TcAttachType::Ingress, TcAttachType::Egress] {
            let question = TcMessage::from_parts(header(ifindex, hook, 0, 0)?, Vec::new());
            let question = RouteNetlinkMessage::GetTrafficFilter(question);
            if !self.request(question, NLM_F_DUMP)?.is_empty() {
                return Ok(());
            }
        }
        let header = TcHeader {
            index: index(ifindex)?,
            handle: CLSACT,
            parent: TcHandle::CLSACT,
            ..TcHeader::default()
        };
        let message = TcMessage::from_parts(header, Vec::new());
        self.order(RouteNetlinkMessage::DelQueueDiscipline(message), 0)
    }

    /// The BPF filters of a priority. There are none where there is no such interface or qdisc.
    pub fn filters(
        &self,
        ifindex: u32,
        hook: TcAttachType,
        priority: u16,
    ) -> io::Result<Vec<Filter>> {
        let header = header(ifindex, hook, priority, 0)?;
        let question = TcMessage::from_parts(header, Vec::new());
        let question = RouteNetlinkMessage::GetTrafficFilter(question);
        let all = self.request(question, NLM_F_DUMP)?;
        Ok(all
            .iter()
            .filter_map(|answer| filter(&answer.message()?, hook))
            .collect())
    }

    /// Adds a filter that goes by what its program says, to all protocols' frames. That the handle is
    /// taken is an error.
    pub fn add(
        &self,
        ifindex: u32,
        hook: TcAttachType,
        priority: u16,
        filter: &Filter,
        program: BorrowedFd<'_>,
    ) -> io::Result<()> {
        let message = with_program(ifindex, hook, priority, filter, program)?;
        let order = RouteNetlinkMessage::NewTrafficFilter(message);
        self.order(order, NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Puts another program in the place of a filter's. That there is no such filter is an error.
    pub fn replace(
        &self,
        ifindex: u32,
        hook: TcAttachType,
        priority: u16,
        filter: &Filter,
        program: BorrowedFd<'_>,
    ) -> io::Result<()> {
        let message = with_program(ifindex, hook, priority, filter, program)?;
        self.order(RouteNetlinkMessage::NewTrafficFilter(message), 0)
    }

    pub fn remove(&self, ifindex: u32, priority: u16, filter: &Filter) -> io::Result<()> {
        let header = header(ifindex, filter.hook, priority, filter.handle)?;
        let kind = TcAttribute::Kind(TcFilterBpf::KIND.to_owned());
        let message = TcMessage::from_parts(header, vec![kind]);
        self.order(RouteNetlinkMessage::DelTrafficFilter(message), 0)
    }

    fn order(&self, order: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.request(order, flags | NLM_F_ACK).map(drop)
    }

    /// Returns what the kernel told, to the end of its answer.
    fn request(&self, request: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<Answer>> {
        let mut message = NetlinkMessage::from(request);
        message.header.flags = NLM_F_REQUEST | flags;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.0.send(&bytes, 0)?;
        let mut told = Vec::new();
        loop {
            let (bytes, _) = self.0.recv_from_full()?;
            let mut rest = bytes.as_slice();
            while let Ok(one) = NetlinkBuffer::new_checked(rest) {
                let length = usize::try_from(one.length()).map_err(io::Error::other)?;
                match i32::from(one.message_type()) {
                    libc::NLMSG_ERROR => return end(error_code(one.payload())?, told),
                    libc::NLMSG_DONE => return end(done_code(one.payload())?, told),
                    _ => told.push(Answer(one.payload().to_vec())),
                }
                // Each begins at a multiple of four bytes.
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }
}

/// The body of one message.
struct Answer(Vec<u8>);

impl Answer {
    /// One of a kind that the library does not understand is none of ours.
    fn message(&self) -> Option<TcMessage> {
        TcMessage::parse(&self.0).ok()
    }
}

fn end(code: i32, told: Vec<Answer>) -> io::Result<Vec<Answer>> {
    match code {
        0 => Ok(told),
        code => Err(io::Error::from_raw_os_error(code.abs())),
    }
}

fn error_code(payload: &[u8]) -> io::Result<i32> {
    let buffer = ErrorBuffer::new_checked(payload).map_err(io::Error::other)?;
    Ok(buffer.code().map_or(0, std::num::NonZeroI32::get))
}

fn done_code(payload: &[u8]) -> io::Result<i32> {
    let buffer = DoneBuffer::new_checked(payload).map_err(io::Error::other)?;
    Ok(buffer.code())
}

fn with_program(
    ifindex: u32,
    hook: TcAttachType,
    priority: u16,
    filter: &Filter,
    program: BorrowedFd<'_>,
) -> io::Result<TcMessage> {
    let fd = u32::try_from(program.as_raw_fd()).map_err(io::Error::other)?;
    let options = [
        TcFilterBpfOption::ProgFd(fd),
        TcFilterBpfOption::ProgName(filter.name.clone()),
        TcFilterBpfOption::Flags(TcBpfFlags::DirectAction),
    ];
    Ok(TcMessage::from_parts(
        header(ifindex, hook, priority, filter.handle)?,
        vec![
            TcAttribute::Kind(TcFilterBpf::KIND.to_owned()),
            TcAttribute::Options(options.map(TcOption::Bpf).into()),
        ],
    ))
}

/// Priority and handle 0 stand for any.
fn header(ifindex: u32, hook: TcAttachType, priority: u16, handle: u32) -> io::Result<TcHeader> {
    let minor = match hook {
        TcAttachType::Ingress => TcHandle::MIN_INGRESS,
        TcAttachType::Egress => TcHandle::MIN_EGRESS,
        TcAttachType::Custom(parent) => TcHandle::from(parent).minor,
    };
    let protocol = if priority == 0 { 0 } else { ALL_PROTOCOLS };
    Ok(TcHeader {
        index: index(ifindex)?,
        handle: TcHandle::from(handle),
        parent: TcHandle {
            major: CLSACT.major,
            minor,
        },
        info: u32::from(priority) << 16 | u32::from(protocol),
        ..TcHeader::default()
    })
}

/// `ETH_P_ALL` in network byte order.
const ALL_PROTOCOLS: u16 = 3_u16.to_be();

fn index(ifindex: u32) -> io::Result<i32> {
    i32::try_from(ifindex).map_err(io::Error::other)
}

fn kind(message: &TcMessage) -> Option<&str> {
    message.attributes.iter().find_map(|one| match one {
        TcAttribute::Kind(kind) => Some(kind.as_str()),
        _ => None,
    })
}

fn filter(message: &TcMessage, hook: TcAttachType) -> Option<Filter> {
    let options = message.attributes.iter().find_map(|one| match one {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    })?;
    let (mut name, mut program_id) = (None, None);
    for option in options {
        match option {
            TcOption::Bpf(TcFilterBpfOption::ProgName(found)) => name = Some(found.clone()),
            TcOption::Bpf(TcFilterBpfOption::ProgId(found)) => program_id = Some(*found),
            _ => {}
        }
    }
    Some(Filter {
        hook,
        handle: message.header.handle.into(),
        name: name?,
        program_id: program_id?,
    })
}
