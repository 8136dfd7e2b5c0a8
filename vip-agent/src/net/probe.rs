//! The question whether anybody has an address, asked in nobody's name.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use pnet::{
    packet::{
        Packet as _,
        arp::{ArpHardwareTypes, ArpOperations, MutableArpPacket},
        ethernet::{EtherType, EtherTypes, MutableEthernetPacket},
        icmpv6::{
            Icmpv6Packet, Icmpv6Types, checksum,
            ndp::{Icmpv6Codes, MutableNeighborSolicitPacket},
        },
        ip::IpNextHeaderProtocols,
        ipv6::MutableIpv6Packet,
    },
    util::MacAddr,
};

use super::announce::Announcer;

const ETHERNET_LEN: usize = MutableEthernetPacket::minimum_packet_size();
const ARP_LEN: usize = MutableArpPacket::minimum_packet_size();
const IPV6_LEN: usize = MutableIpv6Packet::minimum_packet_size();
const SOLICIT_LEN: usize = MutableNeighborSolicitPacket::minimum_packet_size();
/// RFC 4861 §7.1.1: what crossed a router is not valid.
const HOP_LIMIT: u8 = 255;

impl Announcer {
    /// Asks by interface `ifindex`, whose MAC is `mac`, whether anybody has `ip`. An answer is for
    /// others to hear.
    pub fn probe(&self, ifindex: u32, mac: [u8; 6], ip: IpAddr) -> io::Result<()> {
        let frame = match ip {
            IpAddr::V4(ip) => arp_probe(mac, ip),
            IpAddr::V6(ip) => neighbour_probe(mac, ip),
        };
        self.send_frame(ifindex, &frame)
    }
}

/// An ARP probe: a request for `ip`, broadcast, with a sender address of 0.0.0.0, so that it changes
/// nobody's cache (RFC 5227 §2.1.1).
pub fn arp_probe(mac: [u8; 6], ip: Ipv4Addr) -> Vec<u8> {
    let mut frame = vec![0; ETHERNET_LEN + ARP_LEN];
    let mac = MacAddr::from(mac);
    let payload = ethernet(&mut frame, mac, MacAddr::broadcast(), EtherTypes::Arp);
    let mut arp = MutableArpPacket::new(payload).expect("as long as its header");
    arp.set_hardware_type(ArpHardwareTypes::Ethernet);
    arp.set_protocol_type(EtherTypes::Ipv4);
    arp.set_hw_addr_len(6);
    arp.set_proto_addr_len(4);
    arp.set_operation(ArpOperations::Request);
    arp.set_sender_hw_addr(mac);
    arp.set_sender_proto_addr(Ipv4Addr::UNSPECIFIED);
    arp.set_target_hw_addr(MacAddr::zero());
    arp.set_target_proto_addr(ip);
    frame
}

/// A Neighbour Solicitation as duplicate address detection sends it: for `ip`, to its solicited-node
/// group, from the unspecified address and without options (RFC 4862 §5.4.2, RFC 4861 §4.3).
pub fn neighbour_probe(mac: [u8; 6], ip: Ipv6Addr) -> Vec<u8> {
    let mut frame = vec![0; ETHERNET_LEN + IPV6_LEN + SOLICIT_LEN];
    let [.., a, b, c] = ip.octets();
    let group = Ipv6Addr::new(
        0xff02,
        0,
        0,
        0,
        0,
        1,
        0xff00 | u16::from(a),
        u16::from_be_bytes([b, c]),
    );
    // RFC 2464 §7.
    let group_mac = MacAddr::new(0x33, 0x33, 0xff, a, b, c);
    let payload = ethernet(&mut frame, mac.into(), group_mac, EtherTypes::Ipv6);
    let (header, payload) = payload.split_at_mut(IPV6_LEN);
    let mut ipv6 = MutableIpv6Packet::new(header).expect("as long as its header");
    ipv6.set_version(6);
    ipv6.set_payload_length(u16::try_from(SOLICIT_LEN).expect("24"));
    ipv6.set_next_header(IpNextHeaderProtocols::Icmpv6);
    ipv6.set_hop_limit(HOP_LIMIT);
    ipv6.set_source(Ipv6Addr::UNSPECIFIED);
    ipv6.set_destination(group);
    let mut solicit = MutableNeighborSolicitPacket::new(payload).expect("as long as its header");
    solicit.set_icmpv6_type(Icmpv6Types::NeighborSolicit);
    solicit.set_icmpv6_code(Icmpv6Codes::NoCode);
    solicit.set_target_addr(ip);
    let whole = Icmpv6Packet::new(solicit.packet()).expect("longer than that");
    let sum = checksum(&whole, &Ipv6Addr::UNSPECIFIED, &group);
    solicit.set_checksum(sum);
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

    #[test]
    fn an_arp_probe_speaks_for_nobody() {
        let frame = arp_probe(MAC, Ipv4Addr::new(10, 0, 0, 100));
        assert_eq!(frame.len(), 42);
        assert_eq!(frame[..6], [255; 6]);
        assert_eq!(frame[6..14], [2, 0, 0, 0, 0, 1, 8, 6]);
        assert_eq!(frame[14..22], [0, 1, 8, 0, 6, 4, 0, 1]);
        assert_eq!(frame[22..32], [2, 0, 0, 0, 0, 1, 0, 0, 0, 0]);
        assert_eq!(frame[32..], [0, 0, 0, 0, 0, 0, 10, 0, 0, 100]);
    }

    #[test]
    fn a_neighbour_probe_is_what_duplicate_address_detection_sends() {
        let ip: Ipv6Addr = "fd00::1:2:abcd:ef12".parse().expect("an address");
        let frame = neighbour_probe(MAC, ip);
        assert_eq!(frame.len(), 14 + 40 + 24, "no options");
        assert_eq!(
            frame[..14],
            [
                0x33, 0x33, 0xff, 0xcd, 0xef, 0x12, 2, 0, 0, 0, 0, 1, 0x86, 0xdd
            ]
        );
        assert_eq!(frame[14..22], [0x60, 0, 0, 0, 0, 24, 58, 255]);
        assert_eq!(frame[22..38], [0; 16], "from the unspecified address");
        let group: Ipv6Addr = "ff02::1:ffcd:ef12".parse().expect("an address");
        assert_eq!(frame[38..54], group.octets());
        assert_eq!(frame[54..56], [135, 0]);
        assert_eq!(frame[58..62], [0; 4], "reserved");
        assert_eq!(frame[62..], ip.octets());
    }

    /// RFC 4443 §2.3: over the pseudo-header and the message all adds up to 0xffff.
    #[test]
    fn its_checksum_is_right() {
        let frame = neighbour_probe(MAC, "fe80::7".parse().expect("an address"));
        let pseudo = [&frame[22..54], &[0, 0, 0, 24, 0, 0, 0, 58]].concat();
        let words = |bytes: &[u8]| -> u32 {
            let words = bytes.chunks(2);
            words
                .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
                .sum()
        };
        let sum = words(&pseudo) + words(&frame[54..]);
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
    }
}
