//! The question whether anybody has an address, asked in nobody's name.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use pnet::{
    packet::{
        arp::ArpOperations,
        icmpv6::{
            Icmpv6Types,
            ndp::{Icmpv6Codes, MutableNeighborSolicitPacket},
        },
    },
    util::MacAddr,
};

use super::{
    announce::Announcer,
    frame::{arp, neighbor_discovery},
};

const SOLICIT_LEN: usize = MutableNeighborSolicitPacket::minimum_packet_size();

impl Announcer {
    /// Asks by interface `ifindex`, whose MAC is `mac`, whether anybody has `ip`. An answer is for
    /// others to hear.
    pub fn probe(&self, ifindex: u32, mac: [u8; 6], ip: IpAddr) -> io::Result<()> {
        let frame = match ip {
            IpAddr::V4(ip) => arp_probe(mac, ip),
            IpAddr::V6(ip) => neighbor_probe(mac, ip),
        };
        self.send_frame(ifindex, &frame)
    }
}

/// An ARP probe: a request for `ip`, broadcast, with a sender address of 0.0.0.0, so that it changes
/// nobody's cache (RFC 5227 §2.1.1).
pub fn arp_probe(mac: [u8; 6], ip: Ipv4Addr) -> Vec<u8> {
    let nobody = Ipv4Addr::UNSPECIFIED;
    let target = (MacAddr::zero(), ip);
    arp(mac.into(), nobody, ArpOperations::Request, target)
}

/// A Neighbour Solicitation as duplicate address detection sends it: for `ip`, to its solicited-node
/// group, from the unspecified address and without options (RFC 4862 §5.4.2, RFC 4861 §4.3).
pub fn neighbor_probe(mac: [u8; 6], ip: Ipv6Addr) -> Vec<u8> {
    let fill = |message: &mut [u8]| {
        let mut solicit = MutableNeighborSolicitPacket::new(message).expect("long enough");
        solicit.set_icmpv6_type(Icmpv6Types::NeighborSolicit);
        solicit.set_icmpv6_code(Icmpv6Codes::NoCode);
        solicit.set_target_addr(ip);
    };
    let nobody = (mac.into(), Ipv6Addr::UNSPECIFIED);
    neighbor_discovery(nobody, solicited_node(ip), SOLICIT_LEN, fill)
}

/// The group in which whoever has `ip` is (RFC 4291 §2.7.1), with its MAC (RFC 2464 §7).
fn solicited_node(ip: Ipv6Addr) -> (MacAddr, Ipv6Addr) {
    let [.., a, b, c] = ip.octets();
    let (high, low) = (0xff00 | u16::from(a), u16::from_be_bytes([b, c]));
    (
        MacAddr(0x33, 0x33, 0xff, a, b, c),
        Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, high, low),
    )
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
    fn a_neighbor_probe_is_what_duplicate_address_detection_sends() {
        let ip: Ipv6Addr = "fd00::1:2:abcd:ef12".parse().expect("an address");
        let frame = neighbor_probe(MAC, ip);
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
        let frame = neighbor_probe(MAC, "fe80::7".parse().expect("an address"));
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
