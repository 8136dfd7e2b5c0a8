//! Gratuitous ARP.

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::{
    libc,
    sys::socket::{
        AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, SockaddrLike as _, sendto, socket,
    },
};
use pnet::{
    packet::{
        arp::{ArpHardwareTypes, ArpOperation, ArpOperations, MutableArpPacket},
        ethernet::{EtherTypes, MutableEthernetPacket},
    },
    util::MacAddr,
};

use super::error::{NetError, interface_name, mend};

const ETHERNET_LEN: usize = MutableEthernetPacket::minimum_packet_size();
const FRAME_LEN: usize = ETHERNET_LEN + MutableArpPacket::minimum_packet_size();

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
    /// IPv6 has other announcements.
    #[error("{0} cannot be announced by ARP: it is no IPv4 address")]
    NotIpv4(IpAddr),
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

    /// Announces `ip` at `mac` in both forms, for either is what some machines listen to.
    pub fn send(&mut self, ifindex: u32, mac: [u8; 6], ip: IpAddr) -> Result<(), AnnounceError> {
        let IpAddr::V4(v4) = ip else {
            return Err(AnnounceError::NotIpv4(ip));
        };
        for operation in [ArpOperations::Request, ArpOperations::Reply] {
            let frame = gratuitous_arp(mac, v4, operation);
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

    fn send_frame(&self, ifindex: u32, frame: &[u8]) -> io::Result<()> {
        let to = link_address(ifindex)?;
        sendto(self.0.as_raw_fd(), frame, &to, MsgFlags::empty())?;
        Ok(())
    }
}

/// A gratuitous ARP request or reply: an ARP packet whose sender and target address are both `ip`
/// (RFC 5227 §3), broadcast. The target MAC of a request is left zero; a reply names our own.
pub fn gratuitous_arp(mac: [u8; 6], ip: Ipv4Addr, operation: ArpOperation) -> Vec<u8> {
    let mac = MacAddr::from(mac);
    let target = if operation == ArpOperations::Reply {
        mac
    } else {
        MacAddr::zero()
    };
    let mut frame = vec![0; FRAME_LEN];
    let (header, payload) = frame.split_at_mut(ETHERNET_LEN);
    let mut ethernet = MutableEthernetPacket::new(header).expect("as long as its header");
    ethernet.set_destination(MacAddr::broadcast());
    ethernet.set_source(mac);
    ethernet.set_ethertype(EtherTypes::Arp);
    let mut arp = MutableArpPacket::new(payload).expect("as long as its header");
    arp.set_hardware_type(ArpHardwareTypes::Ethernet);
    arp.set_protocol_type(EtherTypes::Ipv4);
    arp.set_hw_addr_len(6);
    arp.set_proto_addr_len(4);
    arp.set_operation(operation);
    arp.set_sender_hw_addr(mac);
    arp.set_sender_proto_addr(ip);
    arp.set_target_hw_addr(target);
    arp.set_target_proto_addr(ip);
    frame
}

/// The kernel takes the frame as it is; of the address it needs only the interface.
fn link_address(ifindex: u32) -> io::Result<LinkAddr> {
    let ifindex = libc::c_int::try_from(ifindex)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "no such interface index"))?;
    let raw = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET).expect("AF_PACKET is 17"),
        sll_protocol: EtherTypes::Arp.0.to_be(),
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

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const IP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 100);

    #[test]
    fn a_request_leaves_the_target_mac_open() {
        let frame = gratuitous_arp(MAC, IP, ArpOperations::Request);
        assert_eq!(
            frame[..14],
            [255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 1, 8, 6]
        );
        assert_eq!(frame[14..22], [0, 1, 8, 0, 6, 4, 0, 1]);
        assert_eq!(frame[22..32], [2, 0, 0, 0, 0, 1, 10, 0, 0, 100]);
        assert_eq!(frame[32..], [0, 0, 0, 0, 0, 0, 10, 0, 0, 100]);
    }

    #[test]
    fn a_reply_names_us_twice() {
        let frame = gratuitous_arp(MAC, IP, ArpOperations::Reply);
        assert_eq!(frame[20..22], [0, 2]);
        assert_eq!(frame[22..32], frame[32..]);
    }
}
