//! The frames that tell all neighbours unasked where a shared IP is.

use std::net::{Ipv4Addr, Ipv6Addr};

use pnet::{
    packet::{
        arp::{ArpHardwareTypes, ArpOperation, ArpOperations, MutableArpPacket},
        ethernet::{EtherType, EtherTypes, MutableEthernetPacket},
        icmpv6::{
            Icmpv6Packet, Icmpv6Types, checksum,
            ndp::{
                Icmpv6Codes, MutableNdpOptionPacket, MutableNeighborAdvertPacket, NdpOptionTypes,
                NeighborAdvertFlags,
            },
        },
        ip::IpNextHeaderProtocols,
        ipv6::MutableIpv6Packet,
    },
    util::MacAddr,
};

const ETHERNET_LEN: usize = MutableEthernetPacket::minimum_packet_size();
const ARP_LEN: usize = MutableArpPacket::minimum_packet_size();
const IPV6_LEN: usize = MutableIpv6Packet::minimum_packet_size();
const ADVERT_LEN: usize = MutableNeighborAdvertPacket::minimum_packet_size();
/// Type, length and a MAC (RFC 2464 §6).
const OPTION_LEN: usize = 8;
/// RFC 4861 §7.1.2: what crossed a router is not valid.
const HOP_LIMIT: u8 = 255;
/// RFC 4291 §2.7.1, and its MAC as RFC 2464 §7 has it.
const ALL_NODES: (Ipv6Addr, MacAddr) = (
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
    MacAddr(0x33, 0x33, 0, 0, 0, 1),
);

/// A gratuitous ARP request or reply: an ARP packet whose sender and target address are both `ip`
/// (RFC 5227 §3), broadcast. The target MAC of a request is left zero; a reply names our own.
pub fn gratuitous_arp(mac: [u8; 6], ip: Ipv4Addr, operation: ArpOperation) -> Vec<u8> {
    let mac = MacAddr::from(mac);
    let target = if operation == ArpOperations::Reply {
        mac
    } else {
        MacAddr::zero()
    };
    let mut frame = vec![0; ETHERNET_LEN + ARP_LEN];
    let payload = ethernet(&mut frame, mac, MacAddr::broadcast(), EtherTypes::Arp);
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

/// An unsolicited Neighbor Advertisement (RFC 4861 §7.2.6): from `ip`, of `ip`, at `mac`, to all
/// nodes. Override is set, for whoever knows another MAC is to forget it; Solicited is not; Router says
/// whether the host forwards.
pub fn unsolicited_advertisement(mac: [u8; 6], ip: Ipv6Addr, is_router: bool) -> Vec<u8> {
    let (group, group_mac) = ALL_NODES;
    let mac = MacAddr::from(mac);
    let mut frame = vec![0; ETHERNET_LEN + IPV6_LEN + ADVERT_LEN + OPTION_LEN];
    let payload = ethernet(&mut frame, mac, group_mac, EtherTypes::Ipv6);
    let (header, message) = payload.split_at_mut(IPV6_LEN);
    let mut ipv6 = MutableIpv6Packet::new(header).expect("as long as its header");
    ipv6.set_version(6);
    ipv6.set_payload_length(u16::try_from(message.len()).expect("32"));
    ipv6.set_next_header(IpNextHeaderProtocols::Icmpv6);
    ipv6.set_hop_limit(HOP_LIMIT);
    ipv6.set_source(ip);
    ipv6.set_destination(group);

    let mut option = MutableNdpOptionPacket::new(&mut message[ADVERT_LEN..]).expect("long enough");
    option.set_option_type(NdpOptionTypes::TargetLLAddr);
    option.set_length(1); // in units of eight bytes
    option.set_data(&mac.octets());
    let mut advert = MutableNeighborAdvertPacket::new(message).expect("long enough");
    advert.set_icmpv6_type(Icmpv6Types::NeighborAdvert);
    advert.set_icmpv6_code(Icmpv6Codes::NoCode);
    let router = if is_router {
        NeighborAdvertFlags::Router
    } else {
        0
    };
    advert.set_flags(NeighborAdvertFlags::Override | router);
    advert.set_target_addr(ip);
    let whole = Icmpv6Packet::new(message).expect("longer than its header");
    let sum = checksum(&whole, &ip, &group);
    let mut advert = MutableNeighborAdvertPacket::new(message).expect("long enough");
    advert.set_checksum(sum);
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

    #[test]
    fn an_advertisement_is_from_the_address_of_the_address_and_to_all() {
        let ip: Ipv6Addr = "fd00::64".parse().expect("an address");
        let frame = unsolicited_advertisement(MAC, ip, false);
        assert_eq!(
            frame[..14],
            [0x33, 0x33, 0, 0, 0, 1, 2, 0, 0, 0, 0, 1, 0x86, 0xdd]
        );
        assert_eq!(frame[14..22], [0x60, 0, 0, 0, 0, 32, 58, 255]);
        assert_eq!(frame[22..38], ip.octets());
        let all_nodes: Ipv6Addr = "ff02::1".parse().expect("an address");
        assert_eq!(frame[38..54], all_nodes.octets());
        assert_eq!(frame[54..56], [136, 0]);
        assert_eq!(frame[58..62], [0b0010_0000, 0, 0, 0]);
        assert_eq!(frame[62..78], ip.octets());
        assert_eq!(frame[78..], [2, 1, 2, 0, 0, 0, 0, 1]);
        let router = unsolicited_advertisement(MAC, ip, true);
        assert_eq!(router[58..62], [0b1010_0000, 0, 0, 0]);
    }

    /// RFC 4443 §2.3: the ones' complement sum of pseudo-header and message, the checksum in it, is all ones.
    #[test]
    fn its_checksum_is_right() {
        for (ip, is_router) in [
            ("fd00::64", false),
            ("fe80::ffff:1", true),
            ("2001:db8::", true),
        ] {
            let ip = ip.parse().expect("an address");
            let frame = unsolicited_advertisement(MAC, ip, is_router);
            let pseudo_header = [&frame[22..54], &[0, 0, 0, 32, 0, 0, 0, 58]].concat();
            let summed = [&pseudo_header, &frame[54..]].concat();
            let (words, _) = summed.as_chunks();
            let words = words
                .iter()
                .map(|word| u32::from(u16::from_be_bytes(*word)));
            let sum: u32 = words.sum();
            assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff, "{ip}");
        }
    }
}
