//! The headers of the frames that we make.

use std::net::{Ipv4Addr, Ipv6Addr};

use pnet::{
    packet::{
        arp::{ArpHardwareTypes, ArpOperation, MutableArpPacket},
        ethernet::{EtherType, EtherTypes, MutableEthernetPacket},
        icmpv6::{Icmpv6Packet, MutableIcmpv6Packet, checksum},
        ip::IpNextHeaderProtocols,
        ipv6::MutableIpv6Packet,
    },
    util::MacAddr,
};

const ETHERNET_LEN: usize = MutableEthernetPacket::minimum_packet_size();
const ARP_LEN: usize = MutableArpPacket::minimum_packet_size();
const IPV6_LEN: usize = MutableIpv6Packet::minimum_packet_size();
/// RFC 4861 §7.1: what crossed a router is not valid.
const HOP_LIMIT: u8 = 255;

/// A broadcast ARP packet of `mac` (RFC 826).
pub fn arp(
    mac: MacAddr,
    sender: Ipv4Addr,
    operation: ArpOperation,
    target: (MacAddr, Ipv4Addr),
) -> Vec<u8> {
    let mut frame = vec![0; ETHERNET_LEN + ARP_LEN];
    let payload = ethernet(&mut frame, mac, MacAddr::broadcast(), EtherTypes::Arp);
    let mut arp = MutableArpPacket::new(payload).expect("as long as its header");
    arp.set_hardware_type(ArpHardwareTypes::Ethernet);
    arp.set_protocol_type(EtherTypes::Ipv4);
    arp.set_hw_addr_len(6);
    arp.set_proto_addr_len(4);
    arp.set_operation(operation);
    arp.set_sender_hw_addr(mac);
    arp.set_sender_proto_addr(sender);
    arp.set_target_hw_addr(target.0);
    arp.set_target_proto_addr(target.1);
    frame
}

/// A message of neighbour discovery from `source` at `mac` to a group and its MAC, with its checksum: `fill`
/// writes what follows the IPv6 header, of this length.
pub fn neighbor_discovery(
    (mac, source): (MacAddr, Ipv6Addr),
    (group_mac, group): (MacAddr, Ipv6Addr),
    length: usize,
    fill: impl FnOnce(&mut [u8]),
) -> Vec<u8> {
    let mut frame = vec![0; ETHERNET_LEN + IPV6_LEN + length];
    let payload = ethernet(&mut frame, mac, group_mac, EtherTypes::Ipv6);
    let (header, message) = payload.split_at_mut(IPV6_LEN);
    let mut ipv6 = MutableIpv6Packet::new(header).expect("as long as its header");
    ipv6.set_version(6);
    ipv6.set_payload_length(u16::try_from(length).expect("short"));
    ipv6.set_next_header(IpNextHeaderProtocols::Icmpv6);
    ipv6.set_hop_limit(HOP_LIMIT);
    ipv6.set_source(source);
    ipv6.set_destination(group);
    fill(message);
    let whole = Icmpv6Packet::new(message).expect("longer than its header");
    let sum = checksum(&whole, &source, &group);
    let mut icmpv6 = MutableIcmpv6Packet::new(message).expect("longer than its header");
    icmpv6.set_checksum(sum);
    frame
}

/// Fills in the Ethernet header, and returns what follows it.
fn ethernet(frame: &mut [u8], source: MacAddr, destination: MacAddr, of: EtherType) -> &mut [u8] {
    let (header, payload) = frame.split_at_mut(ETHERNET_LEN);
    let mut ethernet = MutableEthernetPacket::new(header).expect("as long as its header");
    ethernet.set_destination(destination);
    ethernet.set_source(source);
    ethernet.set_ethertype(of);
    payload
}
