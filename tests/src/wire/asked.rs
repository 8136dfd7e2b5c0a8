//! Questions of the neighbour protocols, valid ones and others.

use std::net::{Ipv4Addr, Ipv6Addr};

use pnet::packet::arp::{ArpHardwareTypes, ArpOperation, MutableArpPacket};
use pnet::packet::ethernet::{EtherTypes, MutableEthernetPacket};
use pnet::util::MacAddr;

use crate::probe::frames::ethernet;
use crate::probe::frames::ipv6::{mac_of_group, packet, solicited_node};

/// An ARP packet (RFC 826).
#[derive(Clone, Copy, Debug)]
pub struct Arp {
    /// Ethernet source and destination.
    pub ethernet: (MacAddr, MacAddr),
    /// 1 asks, 2 replies.
    pub operation: u16,
    /// Hardware and protocol address of the sender.
    pub sender: (MacAddr, Ipv4Addr),
    /// Of the target.
    pub target: (MacAddr, Ipv4Addr),
}

/// A Neighbour Solicitation or Advertisement (RFC 4861, sections 4.3 and 4.4).
#[derive(Clone, Debug)]
pub struct Neighbour {
    /// Ethernet source and destination.
    pub ethernet: (MacAddr, MacAddr),
    /// IPv6 source and destination.
    pub ip: (Ipv6Addr, Ipv6Addr),
    /// 255, if it is valid.
    pub hop_limit: u8,
    /// 135 asks, 136 answers.
    pub kind: u8,
    /// 0, if it is valid.
    pub code: u8,
    /// An advertisement's.
    pub flags: u8,
    /// The address asked for, or spoken for.
    pub target: Ipv6Addr,
    /// The options, as they are.
    pub options: Vec<u8>,
}

impl Arp {
    /// A broadcast request (RFC 826).
    pub fn request(from: (MacAddr, Ipv4Addr), whom: Ipv4Addr) -> Arp {
        Arp {
            ethernet: (from.0, MacAddr::broadcast()),
            operation: 1,
            sender: from,
            target: (MacAddr::zero(), whom),
        }
    }

    /// As a frame, padded to the least that Ethernet has.
    pub fn frame(&self) -> Vec<u8> {
        let mut payload = [0; 46];
        if let Some(mut arp) = MutableArpPacket::new(&mut payload) {
            arp.set_hardware_type(ArpHardwareTypes::Ethernet);
            arp.set_protocol_type(EtherTypes::Ipv4);
            arp.set_hw_addr_len(6);
            arp.set_proto_addr_len(4);
            arp.set_operation(ArpOperation(self.operation));
            arp.set_sender_hw_addr(self.sender.0);
            arp.set_sender_proto_addr(self.sender.1);
            arp.set_target_hw_addr(self.target.0);
            arp.set_target_proto_addr(self.target.1);
        }
        ethernet(self.ethernet.0, self.ethernet.1, EtherTypes::Arp, &payload)
    }
}

impl Neighbour {
    /// A multicast solicitation with a source link-layer option (RFC 4861, section 7.2.2).
    pub fn solicitation(from: (MacAddr, Ipv6Addr), whom: Ipv6Addr) -> Neighbour {
        let group = solicited_node(whom);
        Neighbour {
            ethernet: (from.0, mac_of_group(group)),
            ip: (from.1, group),
            hop_limit: 255,
            kind: 135,
            code: 0,
            flags: 0,
            target: whom,
            options: link_layer(1, from.0),
        }
    }

    /// An unsolicited advertisement to all nodes (RFC 4861, section 7.2.6).
    pub fn announcement(mac: MacAddr, address: Ipv6Addr) -> Neighbour {
        let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
        Neighbour {
            ethernet: (mac, mac_of_group(group)),
            ip: (address, group),
            kind: 136,
            flags: super::said::OVERRIDE,
            options: link_layer(2, mac),
            ..Neighbour::solicitation((mac, address), address)
        }
    }

    /// As a frame, with a checksum that is right.
    pub fn frame(&self) -> Vec<u8> {
        let mut message = vec![self.kind, self.code, 0, 0, self.flags, 0, 0, 0];
        message.extend(self.target.octets());
        message.extend(&self.options);
        let packet = packet(self.hop_limit, self.ip.0, self.ip.1, message);
        ethernet(self.ethernet.0, self.ethernet.1, EtherTypes::Ipv6, &packet)
    }
}

/// A link-layer option (RFC 4861, section 4.6.1): 1 for the source's, 2 for the target's.
pub fn link_layer(kind: u8, mac: MacAddr) -> Vec<u8> {
    let [a, b, c, d, e, f] = mac.octets();
    vec![kind, 1, a, b, c, d, e, f]
}

/// The same frame from another Ethernet source.
pub fn from(mut frame: Vec<u8>, mac: MacAddr) -> Vec<u8> {
    if let Some(mut ethernet) = MutableEthernetPacket::new(&mut frame) {
        ethernet.set_source(mac);
    }
    frame
}
