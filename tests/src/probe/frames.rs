//! The probe's frames. An answer must tell which round it belongs to, or a late one could invent a round answered by two, or hide one.
//!
//! Echo requests carry the round in their payload, which comes back untouched. ARP has no field of the sender's own choosing but its addresses,
//! and a reply quotes both. The *hardware* address carries the round here: every round asks from a MAC address of its own (`06:50` and the round's
//! number, 32 bits, so none is used twice). The protocol address would do as well, but each new one would add an entry to the neighbour table of a
//! kernel that answers, and fill it up within seconds. The price is one entry per round in the bridge's table, which ages out after 10 s, and that
//! the client's own stack takes the replies for somebody else's, which is welcome: they don't refresh its neighbour cache.

use std::net::Ipv4Addr;

use pnet::packet::arp::{ArpHardwareTypes, ArpOperations, ArpPacket, MutableArpPacket};
use pnet::packet::ethernet::{EtherTypes, EthernetPacket, MutableEthernetPacket};
use pnet::packet::icmp::echo_request::MutableEchoRequestPacket;
use pnet::packet::icmp::{IcmpPacket, IcmpTypes, checksum as icmp_checksum};
use pnet::packet::ip::IpNextHeaderProtocols;
use pnet::packet::ipv4::{Ipv4Packet, MutableIpv4Packet, checksum as ipv4_checksum};
use pnet::packet::{MutablePacket, Packet};
use pnet::util::MacAddr;

/// Bytes of an ARP request frame.
pub const ARP_FRAME: usize = 14 + 28;
/// Bytes of an echo request frame.
pub const ECHO_FRAME: usize = 14 + 20 + ICMP_MESSAGE;
/// Bytes of an ICMP echo message of ours.
pub const ICMP_MESSAGE: usize = 8 + PAYLOAD;

const PAYLOAD: usize = 16;
const MAGIC: [u8; 8] = *b"vipprobe";
const ROUND_MAC: [u8; 2] = [0x06, 0x50];

/// Which of a round's questions was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// The broadcast ARP request.
    Arp,
    /// The echo request to one node's MAC.
    Echo,
    /// The ordinary request.
    Ordinary,
}

/// An answer, as a frame or message tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What was answered.
    pub question: Question,
    /// In which round it was asked.
    pub round: u32,
}

/// The broadcast question of one round (RFC 826).
pub fn arp_request(round: u32, sender: Ipv4Addr, vip: Ipv4Addr) -> [u8; ARP_FRAME] {
    let mut frame = [0; ARP_FRAME];
    let from = round_mac(round);
    if let Some(mut ethernet) = MutableEthernetPacket::new(&mut frame) {
        ethernet.set_destination(MacAddr::broadcast());
        ethernet.set_source(from);
        ethernet.set_ethertype(EtherTypes::Arp);
        if let Some(mut arp) = MutableArpPacket::new(ethernet.payload_mut()) {
            arp.set_hardware_type(ArpHardwareTypes::Ethernet);
            arp.set_protocol_type(EtherTypes::Ipv4);
            arp.set_hw_addr_len(6);
            arp.set_proto_addr_len(4);
            arp.set_operation(ArpOperations::Request);
            arp.set_sender_hw_addr(from);
            arp.set_sender_proto_addr(sender);
            arp.set_target_proto_addr(vip);
        }
    }
    frame
}

/// An echo request to one node's MAC with the shared IP as destination (RFC 791, RFC 792).
pub fn echo_request(
    round: u32,
    from: (MacAddr, Ipv4Addr),
    to: MacAddr,
    vip: Ipv4Addr,
) -> [u8; ECHO_FRAME] {
    let mut frame = [0; ECHO_FRAME];
    if let Some(mut ethernet) = MutableEthernetPacket::new(&mut frame) {
        ethernet.set_destination(to);
        ethernet.set_source(from.0);
        ethernet.set_ethertype(EtherTypes::Ipv4);
        if let Some(mut ip) = MutableIpv4Packet::new(ethernet.payload_mut()) {
            ip.set_version(4);
            ip.set_header_length(5);
            ip.set_total_length(u16::try_from(20 + ICMP_MESSAGE).unwrap_or_default());
            ip.set_ttl(64);
            ip.set_next_level_protocol(IpNextHeaderProtocols::Icmp);
            ip.set_source(from.1);
            ip.set_destination(vip);
            ip.set_payload(&icmp_echo(Question::Echo, round));
            let sum = ipv4_checksum(&ip.to_immutable());
            ip.set_checksum(sum);
        }
    }
    frame
}

/// An ICMP echo request that says what it is.
pub fn icmp_echo(question: Question, round: u32) -> [u8; ICMP_MESSAGE] {
    let mut payload = [0; PAYLOAD];
    payload[..8].copy_from_slice(&MAGIC);
    payload[8] = u8::from(question == Question::Ordinary);
    payload[12..].copy_from_slice(&round.to_be_bytes());

    let mut message = [0; ICMP_MESSAGE];
    let [_, _, high, low] = round.to_be_bytes();
    if let Some(mut echo) = MutableEchoRequestPacket::new(&mut message) {
        echo.set_icmp_type(IcmpTypes::EchoRequest);
        echo.set_identifier(0x5650);
        echo.set_sequence_number(u16::from_be_bytes([high, low]));
        echo.set_payload(&payload);
    }
    if let Some(sum) = IcmpPacket::new(&message).map(|icmp| icmp_checksum(&icmp)) {
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    message
}

/// Reads an answer for `vip` out of a received frame, with the MAC that it came from. `Err` names an answer that contradicts itself.
pub fn answer(frame: &[u8], vip: Ipv4Addr) -> Result<Option<(Answer, MacAddr)>, String> {
    let Some(ethernet) = EthernetPacket::new(frame) else {
        return Ok(None);
    };
    let from = ethernet.get_source();
    let found = match ethernet.get_ethertype() {
        EtherTypes::Arp => arp_answer(&ethernet, vip)?,
        EtherTypes::Ipv4 => ip_answer(ethernet.payload(), vip),
        _ => None,
    };
    Ok(found.map(|answer| (answer, from)))
}

/// Reads an answer for `vip` out of a received IPv4 packet.
pub fn ip_answer(packet: &[u8], vip: Ipv4Addr) -> Option<Answer> {
    let ip = Ipv4Packet::new(packet)?;
    if ip.get_next_level_protocol() != IpNextHeaderProtocols::Icmp || ip.get_source() != vip {
        return None;
    }
    let icmp = IcmpPacket::new(ip.payload())?;
    if icmp.get_icmp_type() != IcmpTypes::EchoReply {
        return None;
    }
    // Behind type, code and checksum: identifier and sequence number, then what we sent.
    let payload = icmp.payload().get(4..4 + PAYLOAD)?;
    let round = u32::from_be_bytes(payload[12..].try_into().ok()?);
    let question = if payload[8] == 0 {
        Question::Echo
    } else {
        Question::Ordinary
    };
    (payload[..8] == MAGIC).then_some(Answer { question, round })
}

fn arp_answer(ethernet: &EthernetPacket<'_>, vip: Ipv4Addr) -> Result<Option<Answer>, String> {
    let Some(arp) = ArpPacket::new(ethernet.payload()) else {
        return Ok(None);
    };
    let [a, b, c, d, e, f] = arp.get_target_hw_addr().octets();
    if arp.get_operation() != ArpOperations::Reply
        || arp.get_sender_proto_addr() != vip
        || [a, b] != ROUND_MAC
    {
        return Ok(None);
    }
    if arp.get_sender_hw_addr() != ethernet.get_source()
        || arp.get_target_hw_addr() != ethernet.get_destination()
    {
        return Err(format!(
            "the Ethernet header contradicts the ARP reply inside: {ethernet:?} {arp:?}"
        ));
    }
    Ok(Some(Answer {
        question: Question::Arp,
        round: u32::from_be_bytes([c, d, e, f]),
    }))
}

fn round_mac(round: u32) -> MacAddr {
    let [c, d, e, f] = round.to_be_bytes();
    MacAddr::new(ROUND_MAC[0], ROUND_MAC[1], c, d, e, f)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIP: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);
    const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 200);
    const NODE: MacAddr = MacAddr(2, 0, 0, 0, 0, 1);

    /// What a node makes of an ARP request.
    fn arp_reply(round: u32) -> [u8; ARP_FRAME] {
        let mut frame = arp_request(round, CLIENT, VIP);
        let mut ethernet = MutableEthernetPacket::new(&mut frame).expect("long enough");
        ethernet.set_destination(round_mac(round));
        ethernet.set_source(NODE);
        let mut arp = MutableArpPacket::new(ethernet.payload_mut()).expect("long enough");
        arp.set_operation(ArpOperations::Reply);
        arp.set_target_hw_addr(round_mac(round));
        arp.set_target_proto_addr(CLIENT);
        arp.set_sender_hw_addr(NODE);
        arp.set_sender_proto_addr(VIP);
        frame
    }

    #[test]
    fn an_arp_reply_tells_its_round_and_who_sent_it() {
        let expected = Answer {
            question: Question::Arp,
            round: 0x0102_0304,
        };
        assert_eq!(
            answer(&arp_reply(0x0102_0304), VIP),
            Ok(Some((expected, NODE)))
        );
        assert_eq!(
            answer(&arp_reply(1), Ipv4Addr::new(10, 77, 0, 101)),
            Ok(None)
        );
    }

    #[test]
    fn an_arp_reply_with_two_senders_is_an_error() {
        let mut frame = arp_reply(1);
        frame[11] = 99;
        assert!(answer(&frame, VIP).is_err());
    }

    #[test]
    fn an_echo_reply_tells_its_round_and_question() {
        let mut frame = echo_request(70_000, (round_mac(0), CLIENT), NODE, VIP);
        assert_eq!(answer(&frame, VIP), Ok(None), "a request is no answer");
        frame[6..12].copy_from_slice(&NODE.octets());
        frame[26..30].copy_from_slice(&VIP.octets());
        frame[34] = 0;
        assert_eq!(
            answer(&frame, VIP),
            Ok(Some((
                Answer {
                    question: Question::Echo,
                    round: 70_000
                },
                NODE
            )))
        );
        frame[34 + 16] = 1;
        assert_eq!(
            answer(&frame, VIP),
            Ok(Some((
                Answer {
                    question: Question::Ordinary,
                    round: 70_000
                },
                NODE
            )))
        );
    }

    #[test]
    fn checksums_add_up() {
        let frame = echo_request(7, (round_mac(0), CLIENT), NODE, VIP);
        let ip = Ipv4Packet::new(&frame[14..]).expect("long enough");
        assert_eq!(ip.get_checksum(), ipv4_checksum(&ip));
        let icmp = IcmpPacket::new(ip.payload()).expect("long enough");
        assert_eq!(icmp.get_checksum(), icmp_checksum(&icmp));
    }
}
