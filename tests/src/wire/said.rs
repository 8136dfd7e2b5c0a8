//! What a frame of the neighbour protocols says. Read by pnet, which shares nothing with what wrote it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result, bail, ensure};
use pnet::packet::Packet;
use pnet::packet::arp::ArpPacket;
use pnet::packet::ethernet::{EtherTypes, EthernetPacket};
use pnet::packet::icmpv6::ndp::{NdpOptionPacket, NeighborAdvertPacket, NeighborSolicitPacket};
use pnet::packet::icmpv6::{Icmpv6Packet, Icmpv6Types, checksum};
use pnet::packet::ip::IpNextHeaderProtocols;
use pnet::packet::ipv6::Ipv6Packet;
use pnet::util::MacAddr;

/// Router, RFC 4861, section 4.4.
pub const ROUTER: u8 = 0x80;
/// Solicited.
pub const SOLICITED: u8 = 0x40;
/// Override.
pub const OVERRIDE: u8 = 0x20;

const HEADER: usize = 40;
const ND_MESSAGE: usize = 24;
/// Of a Multicast Listener Report, version 2 (RFC 3810, section 5.2), and of its record types those that join and leave.
const LISTENER_REPORT: u8 = 143;
const LISTENER_JOINS: [u8; 2] = [2, 4];
const LISTENER_LEAVES: u8 = 3;

/// A frame with its envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spoken {
    /// The Ethernet source.
    pub from: MacAddr,
    /// The Ethernet destination.
    pub to: MacAddr,
    /// What it says.
    pub said: Said,
}

/// What it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// ARP (RFC 826).
    Arp {
        /// 1 asks, 2 replies.
        operation: u16,
        /// Hardware and protocol address of the sender.
        sender: (MacAddr, Ipv4Addr),
        /// Of the target.
        target: (MacAddr, Ipv4Addr),
    },
    /// A Neighbour Solicitation (RFC 4861, section 4.3).
    Solicitation {
        /// IPv6 source and destination.
        ip: (Ipv6Addr, Ipv6Addr),
        /// The address asked for.
        target: Ipv6Addr,
        /// The source link-layer option.
        link_layer: Option<MacAddr>,
    },
    /// A Neighbour Advertisement (RFC 4861, section 4.4).
    Advertisement {
        /// IPv6 source and destination.
        ip: (Ipv6Addr, Ipv6Addr),
        /// [`ROUTER`], [`SOLICITED`], [`OVERRIDE`].
        flags: u8,
        /// The address spoken for.
        target: Ipv6Addr,
        /// The target link-layer option.
        link_layer: Option<MacAddr>,
    },
    /// Groups joined and left (RFC 3810).
    Listens {
        /// Those joined.
        joined: Vec<Ipv6Addr>,
        /// Those left.
        left: Vec<Ipv6Addr>,
    },
}

impl Spoken {
    /// Reads a frame; `None` if it is not of the neighbour protocols. An error if it contradicts itself: lengths, checksum, hop limit, code.
    pub fn read(frame: &[u8]) -> Result<Option<Spoken>> {
        let ethernet = EthernetPacket::new(frame).context("shorter than an Ethernet header")?;
        let said = match ethernet.get_ethertype() {
            EtherTypes::Arp => Some(arp(ethernet.payload())?),
            EtherTypes::Ipv6 => ipv6(ethernet.payload())?,
            _ => None,
        };
        Ok(said.map(|said| Spoken {
            from: ethernet.get_source(),
            to: ethernet.get_destination(),
            said,
        }))
    }

    /// Whether it tells others who has an address: as an answer, or without being asked.
    pub fn speaks_for(&self, address: IpAddr) -> bool {
        match (&self.said, address) {
            (Said::Arp { sender, .. }, IpAddr::V4(address)) => sender.1 == address,
            (Said::Advertisement { target, .. }, IpAddr::V6(address)) => *target == address,
            (Said::Solicitation { ip, .. }, IpAddr::V6(address)) => ip.0 == address,
            _ => false,
        }
    }

    /// The address that it announces: tells all who has it, without being asked.
    pub fn announced(&self) -> Option<IpAddr> {
        let to_all = self.to.0 & 1 == 1;
        match &self.said {
            Said::Arp { sender, target, .. } if to_all && sender.1 == target.1 => {
                Some(sender.1.into())
            }
            Said::Advertisement { target, .. } if to_all => Some((*target).into()),
            _ => None,
        }
    }
}

fn arp(packet: &[u8]) -> Result<Said> {
    let arp = ArpPacket::new(packet).context("ARP cut short")?;
    ensure!(packet[..6] == [0, 1, 8, 0, 6, 4], "not of IPv4: {arp:?}");
    Ok(Said::Arp {
        operation: arp.get_operation().0,
        sender: (arp.get_sender_hw_addr(), arp.get_sender_proto_addr()),
        target: (arp.get_target_hw_addr(), arp.get_target_proto_addr()),
    })
}

fn ipv6(packet: &[u8]) -> Result<Option<Said>> {
    let ip = Ipv6Packet::new(packet).context("IPv6 cut short")?;
    let length = HEADER + usize::from(ip.get_payload_length());
    let payload = packet.get(HEADER..length);
    let mut message = payload.with_context(|| format!("IPv6 cut short: {ip:?}"))?;
    let mut next = ip.get_next_header();
    // A listener's report comes behind the router alert (RFC 3810, section 5).
    if next == IpNextHeaderProtocols::Hopopt {
        let [protocol, words] = [message[0], message[1]];
        next = pnet::packet::ip::IpNextHeaderProtocol(protocol);
        let behind = message.get(8 * (usize::from(words) + 1)..);
        message = behind.context("IPv6 options cut short")?;
    }
    if next != IpNextHeaderProtocols::Icmpv6 {
        return Ok(None);
    }
    let icmp = Icmpv6Packet::new(message).context("ICMPv6 cut short")?;
    let sum = checksum(&icmp, &ip.get_source(), &ip.get_destination());
    let neighbour = [Icmpv6Types::NeighborSolicit, Icmpv6Types::NeighborAdvert];
    let kind = icmp.get_icmpv6_type();
    if !neighbour.contains(&kind) && kind.0 != LISTENER_REPORT {
        return Ok(None);
    }
    ensure!(
        icmp.get_checksum() == sum,
        "its checksum is not {sum:#x}: {ip:?} {icmp:?}"
    );
    ensure!(icmp.get_icmpv6_code().0 == 0, "its code: {icmp:?}");
    if kind.0 == LISTENER_REPORT {
        return listens(message).map(Some);
    }
    ensure!(ip.get_hop_limit() == 255, "its hop limit: {ip:?}");
    ensure!(
        ip.get_traffic_class() == 0 && ip.get_flow_label() == 0,
        "its class and label: {ip:?}"
    );
    let ip = (ip.get_source(), ip.get_destination());
    let read = if kind == Icmpv6Types::NeighborSolicit {
        let solicitation = NeighborSolicitPacket::new(message).context("cut short")?;
        Said::Solicitation {
            ip,
            target: solicitation.get_target_addr(),
            link_layer: link_layer(message, 1)?,
        }
    } else {
        let advertisement = NeighborAdvertPacket::new(message).context("cut short")?;
        ensure!(
            advertisement.get_reserved() == 0 && advertisement.get_flags() & 0x1f == 0,
            "what is reserved is not zero: {advertisement:?}"
        );
        Said::Advertisement {
            ip,
            flags: advertisement.get_flags(),
            target: advertisement.get_target_addr(),
            link_layer: link_layer(message, 2)?,
        }
    };
    Ok(Some(read))
}

/// Of the options, which must fill the message, the link-layer address of this type.
fn link_layer(message: &[u8], wanted: u8) -> Result<Option<MacAddr>> {
    let mut options = &message[ND_MESSAGE..];
    let mut found = None;
    while !options.is_empty() {
        let option = NdpOptionPacket::new(options).context("an option cut short")?;
        let length = 8 * usize::from(option.get_length());
        if length == 0 || length > options.len() {
            bail!("an option's length: {option:?}");
        }
        if option.get_option_type().0 == wanted
            && let [a, b, c, d, e, f] = options[2..8]
        {
            found = Some(MacAddr::new(a, b, c, d, e, f));
        }
        options = &options[length..];
    }
    Ok(found)
}

fn listens(message: &[u8]) -> Result<Said> {
    let (mut joined, mut left) = (Vec::new(), Vec::new());
    let mut records = message.get(8..).context("a report cut short")?;
    while let Some((record, rest)) = records.split_at_checked(20) {
        let group = Ipv6Addr::from(<[u8; 16]>::try_from(&record[4..])?);
        let sources = usize::from(u16::from_be_bytes([record[2], record[3]]));
        if LISTENER_JOINS.contains(&record[0]) {
            joined.push(group);
        } else if record[0] == LISTENER_LEAVES && sources == 0 {
            left.push(group);
        }
        records = rest.get(16 * sources..).context("a record cut short")?;
    }
    Ok(Said::Listens { joined, left })
}
