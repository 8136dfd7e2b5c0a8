//! The frames that tell all neighbours unasked where a shared IP is.

use std::net::{Ipv4Addr, Ipv6Addr};

use pnet::{
    packet::{
        arp::{ArpOperation, ArpOperations},
        icmpv6::{
            Icmpv6Types,
            ndp::{
                Icmpv6Codes, MutableNdpOptionPacket, MutableNeighborAdvertPacket, NdpOptionTypes,
                NeighborAdvertFlags,
            },
        },
    },
    util::MacAddr,
};

use super::frame::{arp, neighbor_discovery};

const ADVERT_LEN: usize = MutableNeighborAdvertPacket::minimum_packet_size();
/// Type, length and a MAC (RFC 2464 §6).
const OPTION_LEN: usize = 8;
/// RFC 2464 §7, for the group of RFC 4291 §2.7.1.
const ALL_NODES: (MacAddr, Ipv6Addr) = (
    MacAddr(0x33, 0x33, 0, 0, 0, 1),
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
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
    arp(mac, ip, operation, (target, ip))
}

/// An unsolicited Neighbour Advertisement (RFC 4861 §7.2.6): from `ip`, of `ip`, at `mac`, to all
/// nodes. Override is set, for whoever knows another MAC is to forget it; Solicited is not; Router says
/// whether the host forwards.
pub fn unsolicited_advertisement(mac: [u8; 6], ip: Ipv6Addr, is_router: bool) -> Vec<u8> {
    let mac = MacAddr::from(mac);
    let router = if is_router {
        NeighborAdvertFlags::Router
    } else {
        0
    };
    let fill = |message: &mut [u8]| {
        let option = &mut message[ADVERT_LEN..];
        let mut option = MutableNdpOptionPacket::new(option).expect("long enough");
        option.set_option_type(NdpOptionTypes::TargetLLAddr);
        option.set_length(1); // in units of eight bytes
        option.set_data(&mac.octets());
        let mut advert = MutableNeighborAdvertPacket::new(message).expect("long enough");
        advert.set_icmpv6_type(Icmpv6Types::NeighborAdvert);
        advert.set_icmpv6_code(Icmpv6Codes::NoCode);
        advert.set_flags(NeighborAdvertFlags::Override | router);
        advert.set_target_addr(ip);
    };
    neighbor_discovery((mac, ip), ALL_NODES, ADVERT_LEN + OPTION_LEN, fill)
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
