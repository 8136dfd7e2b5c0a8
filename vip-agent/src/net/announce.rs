//! Telling all neighbours where a shared IP is: gratuitous ARP, unsolicited Neighbour Advertisements.

use std::{
    io,
    net::IpAddr,
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::{
    libc,
    sys::socket::{
        AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, SockaddrLike as _, sendto, socket,
    },
};
use pnet::packet::arp::ArpOperations;

use super::{
    error::{NetError, interface_name, mend},
    gratuitous::{gratuitous_arp, unsolicited_advertisement},
    sysctl::is_router,
};

/// Where a frame of Ethernet says what it carries.
const ETHERTYPE: usize = 12;

/// Why an announcement was not sent.
#[derive(Debug, thiserror::Error)]
pub enum AnnounceError {
    /// The TC program dropped it: we do not own what we would announce. A full queue looks the same.
    #[error("{ip} was not announced on interface {interface}: its gate is closed")]
    GateClosed {
        /// The address.
        ip: IpAddr,
        /// The interface's name, or its index if it has gone.
        interface: String,
    },
    /// Anything else.
    #[error(
        "{ip} cannot be announced on interface {interface}: {why}{}",
        mend(why, "CAP_NET_RAW")
    )]
    Send {
        /// The address.
        ip: IpAddr,
        /// The interface's name, or its index if it has gone.
        interface: String,
        /// The kernel's answer.
        why: io::Error,
    },
}

/// A socket that only sends: of protocol 0, so that it receives nothing, and not promiscuous.
pub struct Announcer(OwnedFd);

impl Announcer {
    /// Needs CAP_NET_RAW.
    pub fn open() -> Result<Self, NetError> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        socket(AddressFamily::Packet, SockType::Raw, flags, None)
            .map(Self)
            .map_err(|errno| NetError::PacketSocket(errno.into()))
    }

    /// Announces `ip` at `mac`: an IPv4 address in both forms of ARP, for either is what some machines
    /// listen to.
    pub fn send(&mut self, ifindex: u32, mac: [u8; 6], ip: IpAddr) -> Result<(), AnnounceError> {
        let frames = match ip {
            IpAddr::V4(ip) => [ArpOperations::Request, ArpOperations::Reply]
                .map(|operation| gratuitous_arp(mac, ip, operation))
                .to_vec(),
            IpAddr::V6(ip) => {
                let is_router = is_router(&interface_name(ifindex));
                vec![unsolicited_advertisement(mac, ip, is_router)]
            }
        };
        for frame in frames {
            self.send_frame(ifindex, &frame).map_err(|why| {
                let interface = interface_name(ifindex);
                match why.raw_os_error() {
                    // What a TC program drops on egress, the sender sees as this.
                    Some(libc::ENOBUFS) => AnnounceError::GateClosed { ip, interface },
                    _ => AnnounceError::Send { ip, interface, why },
                }
            })?;
        }
        Ok(())
    }

    pub(super) fn send_frame(&self, ifindex: u32, frame: &[u8]) -> io::Result<()> {
        let to = link_address(ifindex, frame)?;
        sendto(self.0.as_raw_fd(), frame, &to, MsgFlags::empty())?;
        Ok(())
    }
}

/// The kernel takes the frame as it is; of the address it needs only the interface, and what the frame
/// carries, which it tells other programs.
fn link_address(ifindex: u32, frame: &[u8]) -> io::Result<LinkAddr> {
    let ethertype = frame.get(ETHERTYPE..).and_then(<[u8]>::first_chunk);
    let ethertype = ethertype.ok_or(io::ErrorKind::InvalidInput)?;
    let ifindex = libc::c_int::try_from(ifindex)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "no such interface index"))?;
    let raw = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET).expect("AF_PACKET is 17"),
        sll_protocol: u16::from_ne_bytes(*ethertype),
        sll_ifindex: ifindex,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0],
    };
    let length = libc::socklen_t::try_from(size_of_val(&raw)).ok();
    // SAFETY: a whole sockaddr_ll of the family that `LinkAddr` checks for, with its true length.
    let address = unsafe { LinkAddr::from_raw(std::ptr::from_ref(&raw).cast(), length) };
    address.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))
}
