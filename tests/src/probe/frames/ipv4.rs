//! ARP (RFC 826), IPv4 (RFC 791) and ICMP (RFC 792).

use std::net::Ipv4Addr;

use pnet::packet::Packet;
use pnet::packet::arp::{ArpHardwareTypes, ArpOperations, ArpPacket, MutableArpPacket};
use pnet::packet::ethernet::{EtherTypes, EthernetPacket};
use pnet::packet::icmp::echo_request::MutableEchoRequestPacket;
use pnet::packet::icmp::{IcmpPacket, IcmpTypes, checksum as icmp_checksum};
use pnet::packet::ip::IpNextHeaderProtocols;
use pnet::packet::ipv4::{Ipv4Packet, MutableIpv4Packet, checksum as ipv4_checksum};
use pnet::util::MacAddr;

use super::{
    Answer, Frames, PAYLOAD, Question, echo_answer, ethernet, payload, round_mac, round_of,
    sequence_number,
};

const ARP: usize = 28;
const HEADER: usize = 20;
const ICMP_MESSAGE: usize = 8 + PAYLOAD;

/// Who asks about which shared IP.
pub(super) struct Ipv4 {
    pub mac: MacAddr,
    pub address: Ipv4Addr,
    pub nobody: Ipv4Addr,
    pub vip: Ipv4Addr,
}

impl Frames for Ipv4 {
    fn look_up(&self, round: u32) -> Vec<u8> {
        let from = round_mac(round);
        let mut request = [0; ARP];
        if let Some(mut arp) = MutableArpPacket::new(&mut request) {
            arp.set_hardware_type(ArpHardwareTypes::Ethernet);
            arp.set_protocol_type(EtherTypes::Ipv4);
            arp.set_hw_addr_len(6);
            arp.set_proto_addr_len(4);
            arp.set_operation(ArpOperations::Request);
            arp.set_sender_hw_addr(from);
            arp.set_sender_proto_addr(self.nobody);
            arp.set_target_proto_addr(self.vip);
        }
        ethernet(from, MacAddr::broadcast(), EtherTypes::Arp, &request)
    }

    fn echo_request(&self, round: u32, to: MacAddr) -> Vec<u8> {
        let mut packet = [0; HEADER + ICMP_MESSAGE];
        if let Some(mut ip) = MutableIpv4Packet::new(&mut packet) {
            ip.set_version(4);
            ip.set_header_length(5);
            ip.set_total_length(u16::try_from(HEADER + ICMP_MESSAGE).unwrap_or_default());
            ip.set_ttl(64);
            ip.set_next_level_protocol(IpNextHeaderProtocols::Icmp);
            ip.set_source(self.address);
            ip.set_destination(self.vip);
            ip.set_payload(&echo(Question::Echo, round));
            let sum = ipv4_checksum(&ip.to_immutable());
            ip.set_checksum(sum);
        }
        ethernet(self.mac, to, EtherTypes::Ipv4, &packet)
    }

    fn ordinary(&self, round: u32) -> Vec<u8> {
        echo(Question::Ordinary, round).to_vec()
    }

    fn answer(&self, frame: &EthernetPacket<'_>) -> Result<Option<Answer>, String> {
        match frame.get_ethertype() {
            EtherTypes::Arp => self.arp_answer(frame),
            EtherTypes::Ipv4 => Ok(self.ip_answer(frame.payload())),
            _ => Ok(None),
        }
    }

    fn ordinary_answer(&self, received: &[u8]) -> Option<Answer> {
        self.ip_answer(received)
    }
}

impl Ipv4 {
    fn arp_answer(&self, ethernet: &EthernetPacket<'_>) -> Result<Option<Answer>, String> {
        let Some(arp) = ArpPacket::new(ethernet.payload()) else {
            return Ok(None);
        };
        let round = round_of(arp.get_target_hw_addr());
        let reply = arp.get_operation() == ArpOperations::Reply;
        let (true, Some(round)) = (reply && arp.get_sender_proto_addr() == self.vip, round) else {
            return Ok(None);
        };
        if arp.get_sender_hw_addr() != ethernet.get_source()
            || arp.get_target_hw_addr() != ethernet.get_destination()
        {
            return Err(format!(
                "the Ethernet header contradicts the ARP reply inside: {ethernet:?} {arp:?}"
            ));
        }
        let question = Question::LookUp;
        Ok(Some(Answer { question, round }))
    }

    fn ip_answer(&self, packet: &[u8]) -> Option<Answer> {
        let ip = Ipv4Packet::new(packet)?;
        let icmp = ip.get_next_level_protocol() == IpNextHeaderProtocols::Icmp;
        if !icmp || ip.get_source() != self.vip {
            return None;
        }
        let icmp = IcmpPacket::new(ip.payload())?;
        let reply = icmp.get_icmp_type() == IcmpTypes::EchoReply;
        echo_answer(icmp.payload()).filter(|_| reply)
    }
}

fn echo(question: Question, round: u32) -> [u8; ICMP_MESSAGE] {
    let mut message = [0; ICMP_MESSAGE];
    if let Some(mut echo) = MutableEchoRequestPacket::new(&mut message) {
        echo.set_icmp_type(IcmpTypes::EchoRequest);
        echo.set_identifier(0x5650);
        echo.set_sequence_number(sequence_number(round));
        echo.set_payload(&payload(question, round));
    }
    if let Some(sum) = IcmpPacket::new(&message).map(|icmp| icmp_checksum(&icmp)) {
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    message
}

#[cfg(test)]
mod tests {
    use pnet::packet::MutablePacket;
    use pnet::packet::ethernet::MutableEthernetPacket;

    use super::*;

    const NODE: MacAddr = MacAddr(2, 0, 0, 0, 0, 1);
    const FRAMES: Ipv4 = Ipv4 {
        mac: MacAddr(2, 0, 0, 0, 0, 200),
        address: Ipv4Addr::new(10, 77, 0, 200),
        nobody: Ipv4Addr::new(10, 77, 0, 201),
        vip: Ipv4Addr::new(10, 77, 0, 100),
    };

    fn answer(frame: &[u8]) -> Result<Option<Answer>, String> {
        FRAMES.answer(&EthernetPacket::new(frame).expect("long enough"))
    }

    /// What a node makes of an ARP request.
    fn arp_reply(round: u32) -> Vec<u8> {
        let mut frame = FRAMES.look_up(round);
        let mut ethernet = MutableEthernetPacket::new(&mut frame).expect("long enough");
        ethernet.set_destination(round_mac(round));
        ethernet.set_source(NODE);
        let mut arp = MutableArpPacket::new(ethernet.payload_mut()).expect("long enough");
        arp.set_operation(ArpOperations::Reply);
        arp.set_target_hw_addr(round_mac(round));
        arp.set_target_proto_addr(FRAMES.nobody);
        arp.set_sender_hw_addr(NODE);
        arp.set_sender_proto_addr(FRAMES.vip);
        frame
    }

    #[test]
    fn an_arp_reply_tells_its_round() {
        let expected = Answer {
            question: Question::LookUp,
            round: 0x0102_0304,
        };
        assert_eq!(answer(&arp_reply(0x0102_0304)), Ok(Some(expected)));
        let mut of_another = arp_reply(1);
        of_another[14 + 17] = 101;
        assert_eq!(answer(&of_another), Ok(None));
    }

    #[test]
    fn an_arp_reply_with_two_senders_is_an_error() {
        let mut frame = arp_reply(1);
        frame[11] = 99;
        assert!(answer(&frame).is_err());
    }

    #[test]
    fn an_echo_reply_tells_its_round_and_question() {
        let mut frame = FRAMES.echo_request(70_000, NODE);
        assert_eq!(answer(&frame), Ok(None), "a request is no answer");
        frame[26..30].copy_from_slice(&FRAMES.vip.octets());
        frame[34] = 0;
        let told = |question| {
            Ok(Some(Answer {
                question,
                round: 70_000,
            }))
        };
        assert_eq!(answer(&frame), told(Question::Echo));
        frame[34 + 16] = 1;
        assert_eq!(answer(&frame), told(Question::Ordinary));
    }

    #[test]
    fn checksums_add_up() {
        let frame = FRAMES.echo_request(7, NODE);
        let ip = Ipv4Packet::new(&frame[14..]).expect("long enough");
        assert_eq!(ip.get_checksum(), ipv4_checksum(&ip));
        let icmp = IcmpPacket::new(ip.payload()).expect("long enough");
        assert_eq!(icmp.get_checksum(), icmp_checksum(&icmp));
    }
}
