//! Neighbour Discovery (RFC 4861), IPv6 (RFC 8200) and ICMPv6 (RFC 4443).

use std::net::Ipv6Addr;

use pnet::packet::Packet;
use pnet::packet::ethernet::{EtherTypes, EthernetPacket};
use pnet::packet::icmpv6::echo_request::MutableEchoRequestPacket;
use pnet::packet::icmpv6::ndp::{
    MutableNeighborSolicitPacket, NdpOption, NdpOptionTypes, NeighborAdvertPacket,
};
use pnet::packet::icmpv6::{Icmpv6Packet, Icmpv6Types, checksum};
use pnet::packet::ip::IpNextHeaderProtocols;
use pnet::packet::ipv6::{Ipv6Packet, MutableIpv6Packet};
use pnet::util::MacAddr;

use super::{
    Answer, Frames, PAYLOAD, Question, echo_answer, ethernet, payload, round_mac, round_of,
    sequence_number,
};

const HEADER: usize = 40;
const ICMP_MESSAGE: usize = 8 + PAYLOAD;
const SOLICITATION: usize = 24 + 8;

/// Who asks about which shared IP.
pub(super) struct Ipv6 {
    pub mac: MacAddr,
    pub address: Ipv6Addr,
    pub nobody: Ipv6Addr,
    pub vip: Ipv6Addr,
}

impl Frames for Ipv6 {
    fn look_up(&self, round: u32) -> Vec<u8> {
        let from = round_mac(round);
        let mut message = vec![0; SOLICITATION];
        if let Some(mut solicitation) = MutableNeighborSolicitPacket::new(&mut message) {
            solicitation.set_icmpv6_type(Icmpv6Types::NeighborSolicit);
            solicitation.set_target_addr(self.vip);
            solicitation.set_options(&[NdpOption {
                option_type: NdpOptionTypes::SourceLLAddr,
                length: 1,
                data: from.octets().to_vec(),
            }]);
        }
        let group = solicited_node(self.vip);
        let packet = packet(255, self.nobody, group, message);
        ethernet(from, mac_of_group(group), EtherTypes::Ipv6, &packet)
    }

    fn echo_request(&self, round: u32, to: MacAddr) -> Vec<u8> {
        let packet = packet(64, self.address, self.vip, echo(Question::Echo, round));
        ethernet(self.mac, to, EtherTypes::Ipv6, &packet)
    }

    /// The kernel fills in the checksum.
    fn ordinary(&self, round: u32) -> Vec<u8> {
        echo(Question::Ordinary, round)
    }

    fn answer(&self, frame: &EthernetPacket<'_>) -> Result<Option<Answer>, String> {
        let packet = Ipv6Packet::new(frame.payload())
            .filter(|ip| ip.get_next_header() == IpNextHeaderProtocols::Icmpv6)
            .filter(|_| frame.get_ethertype() == EtherTypes::Ipv6);
        let Some(ip) = packet else {
            return Ok(None);
        };
        let Some(icmp) = Icmpv6Packet::new(ip.payload()) else {
            return Ok(None);
        };
        match icmp.get_icmpv6_type() {
            Icmpv6Types::NeighborAdvert => self.advertised(frame, &icmp),
            Icmpv6Types::EchoReply if ip.get_source() == self.vip => {
                Ok(echo_answer(icmp.payload()))
            }
            _ => Ok(None),
        }
    }

    /// Without the IPv6 header, which the kernel takes off; that it is from the shared IP is what the socket was connected for.
    fn ordinary_answer(&self, received: &[u8]) -> Option<Answer> {
        let icmp = Icmpv6Packet::new(received)?;
        let reply = icmp.get_icmpv6_type() == Icmpv6Types::EchoReply;
        echo_answer(icmp.payload()).filter(|_| reply)
    }
}

impl Ipv6 {
    /// The asker's hardware address is in no field of the advertisement, but it is whom the frame is for.
    fn advertised(
        &self,
        ethernet: &EthernetPacket<'_>,
        icmp: &Icmpv6Packet<'_>,
    ) -> Result<Option<Answer>, String> {
        let Some(advertisement) = NeighborAdvertPacket::new(icmp.packet()) else {
            return Ok(None);
        };
        let round = round_of(ethernet.get_destination());
        let (true, Some(round)) = (advertisement.get_target_addr() == self.vip, round) else {
            return Ok(None);
        };
        let options = advertisement.get_options();
        let link_layer = options
            .iter()
            .find(|option| option.option_type == NdpOptionTypes::TargetLLAddr);
        if link_layer.is_none_or(|option| option.data != ethernet.get_source().octets()) {
            return Err(format!(
                "the Ethernet header contradicts the advertisement inside: {ethernet:?} {advertisement:?}"
            ));
        }
        let question = Question::LookUp;
        Ok(Some(Answer { question, round }))
    }
}

/// The group that an address' solicitations go to (RFC 4291, section 2.7.1).
pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., high, low] = address.segments();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | (high & 0xff), low)
}

/// The MAC address that a group's packets are sent to (RFC 2464, section 7).
pub fn mac_of_group(group: Ipv6Addr) -> MacAddr {
    let [.., c, d, e, f] = group.octets();
    MacAddr::new(0x33, 0x33, c, d, e, f)
}

/// An IPv6 packet around an ICMPv6 message, whose checksum it fills in.
pub fn packet(hop_limit: u8, from: Ipv6Addr, to: Ipv6Addr, mut message: Vec<u8>) -> Vec<u8> {
    if let Some(sum) = Icmpv6Packet::new(&message).map(|icmp| checksum(&icmp, &from, &to)) {
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    let mut packet = vec![0; HEADER + message.len()];
    if let Some(mut ip) = MutableIpv6Packet::new(&mut packet) {
        ip.set_version(6);
        ip.set_payload_length(u16::try_from(message.len()).unwrap_or_default());
        ip.set_next_header(IpNextHeaderProtocols::Icmpv6);
        ip.set_hop_limit(hop_limit);
        ip.set_source(from);
        ip.set_destination(to);
        ip.set_payload(&message);
    }
    packet
}

fn echo(question: Question, round: u32) -> Vec<u8> {
    let mut message = vec![0; ICMP_MESSAGE];
    if let Some(mut echo) = MutableEchoRequestPacket::new(&mut message) {
        echo.set_icmpv6_type(Icmpv6Types::EchoRequest);
        echo.set_identifier(0x5650);
        echo.set_sequence_number(sequence_number(round));
        echo.set_payload(&payload(question, round));
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: MacAddr = MacAddr(2, 0, 0, 0, 0, 1);
    const FRAMES: Ipv6 = Ipv6 {
        mac: MacAddr(2, 0, 0, 0, 0, 200),
        address: Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0x200),
        nobody: Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0x201),
        vip: Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0x1000),
    };
    const TYPE: usize = 14 + 40;

    fn answer(frame: &[u8]) -> Result<Option<Answer>, String> {
        FRAMES.answer(&EthernetPacket::new(frame).expect("long enough"))
    }

    /// What a node makes of a solicitation.
    fn advertisement(round: u32) -> Vec<u8> {
        let mut frame = FRAMES.look_up(round);
        frame[..6].copy_from_slice(&round_mac(round).octets());
        frame[6..12].copy_from_slice(&NODE.octets());
        frame[TYPE] = 136;
        frame[TYPE + 24] = 2;
        frame[TYPE + 26..].copy_from_slice(&NODE.octets());
        frame
    }

    #[test]
    fn an_advertisement_tells_its_round() {
        let expected = Answer {
            question: Question::LookUp,
            round: 0x0102_0304,
        };
        assert_eq!(answer(&FRAMES.look_up(1)), Ok(None), "a question");
        assert_eq!(answer(&advertisement(0x0102_0304)), Ok(Some(expected)));
        let mut of_another = advertisement(1);
        of_another[TYPE + 23] = 1;
        assert_eq!(answer(&of_another), Ok(None));
        let mut to_all = advertisement(1);
        to_all[..6].copy_from_slice(&[0x33, 0x33, 0, 0, 0, 1]);
        assert_eq!(answer(&to_all), Ok(None));
    }

    #[test]
    fn an_advertisement_with_two_senders_or_none_is_an_error() {
        let mut two = advertisement(1);
        two[11] = 99;
        assert!(answer(&two).is_err());
        let mut none = advertisement(1);
        none[TYPE + 24] = 1;
        assert!(answer(&none).is_err());
    }

    #[test]
    fn an_echo_reply_tells_its_round_and_question() {
        let mut frame = FRAMES.echo_request(70_000, NODE);
        assert_eq!(answer(&frame), Ok(None), "a request is no answer");
        frame[TYPE] = 129;
        assert_eq!(answer(&frame), Ok(None), "not from the shared IP");
        frame[14 + 8..14 + 24].copy_from_slice(&FRAMES.vip.octets());
        let told = |question| {
            Ok(Some(Answer {
                question,
                round: 70_000,
            }))
        };
        assert_eq!(answer(&frame), told(Question::Echo));
        frame[TYPE + 16] = 1;
        assert_eq!(answer(&frame), told(Question::Ordinary));
        assert_eq!(
            FRAMES.ordinary_answer(&frame[TYPE..]),
            told(Question::Ordinary).expect("an answer")
        );
    }

    #[test]
    fn a_solicitation_goes_to_the_addresss_group_with_a_checksum_that_adds_up() {
        let frame = FRAMES.look_up(7);
        assert_eq!(frame[..6], [0x33, 0x33, 0xff, 0, 0x10, 0]);
        let ip = Ipv6Packet::new(&frame[14..]).expect("long enough");
        let group: Ipv6Addr = "ff02::1:ff00:1000".parse().expect("an address");
        assert_eq!((ip.get_destination(), ip.get_hop_limit()), (group, 255));
        let icmp = Icmpv6Packet::new(ip.payload()).expect("long enough");
        assert_eq!(icmp.get_checksum(), checksum(&icmp, &FRAMES.nobody, &group));
    }
}
