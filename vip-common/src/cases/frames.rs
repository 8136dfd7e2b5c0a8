//! Frames, and what is expected to be made of them: by other code than the one that is tested.

use alloc::{vec, vec::Vec};

use super::{CLIENT_MAC, Case, OUR_MAC, Stage, VIP};
use crate::frame::{
    Mac, arp,
    ipv6::{ALL_NODES, Address},
};

/// An ARP frame, padded to the least length of Ethernet.
pub fn arp_frame(
    to: Mac,
    operation: u16,
    sender: (Mac, [u8; 4]),
    target: (Mac, [u8; 4]),
) -> Vec<u8> {
    let mut frame = ethernet(to, sender.0, 0x0806);
    frame.extend(arp::HEAD_IPV4_OVER_ETHERNET);
    frame.extend(operation.to_be_bytes());
    frame.extend(sender.0);
    frame.extend(sender.1);
    frame.extend(target.0);
    frame.extend(target.1);
    frame.resize(60, 0);
    frame
}

/// An IPv4 frame with an empty UDP datagram.
pub fn ipv4_frame(to: Mac, from: Mac, source: [u8; 4], destination: [u8; 4]) -> Vec<u8> {
    let mut frame = ethernet(to, from, 0x0800);
    frame.extend([0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0]);
    frame.extend(source);
    frame.extend(destination);
    frame.extend([0, 7, 0, 7, 0, 8, 0, 0]);
    frame.resize(60, 0);
    frame
}

/// The frame with a tag of VLAN `vid`.
pub fn tagged(frame: &[u8], vid: u16) -> Vec<u8> {
    let mut tagged = frame[..12].to_vec();
    tagged.extend(0x8100_u16.to_be_bytes());
    tagged.extend(vid.to_be_bytes());
    tagged.extend(&frame[12..]);
    tagged
}

/// An ARP request, asked in nobody's name.
pub fn expected_probe(request: &[u8]) -> Vec<u8> {
    let mut probe = request.to_vec();
    let arp_at = request.len() - (60 - 14);
    probe[arp_at + arp::SENDER_IP..arp_at + arp::TARGET_MAC].fill(0);
    probe
}

/// What is expected for the answer to a question of the client's.
pub fn expected_answer(case: &Case) -> Vec<u8> {
    let question = &case.frame;
    let tag =
        (question[12..14] == [0x81, 0]).then(|| u16::from_be_bytes([question[14], question[15]]));
    let at = if tag.is_some() { 18 } else { 14 };
    let is_arp = question[at - 2..at] == [8, 6];
    let answer = if is_arp {
        expected_reply(question, at)
    } else {
        expected_advertisement(question, at, case.stage)
    };
    tag.map_or_else(|| answer.clone(), |tag| tagged(&answer, tag))
}

/// The group to which solicitations for an address are sent, with its MAC.
pub fn solicited_node(ip: Address) -> (Mac, Address) {
    let [.., a, b, c] = ip;
    (
        [0x33, 0x33, 0xff, a, b, c],
        [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c],
    )
}

/// A link-layer option.
pub fn link_layer(kind: u8, mac: Mac) -> Vec<u8> {
    let mut option = vec![kind, 1];
    option.extend(mac);
    option
}

/// A Neighbour Solicitation, sent as `source` to `to`.
pub fn solicitation(
    (to_mac, to): (Mac, Address),
    (from_mac, source): (Mac, Address),
    target: Address,
    options: &[u8],
) -> Vec<u8> {
    let mut message = vec![135, 0, 0, 0, 0, 0, 0, 0];
    message.extend(target);
    message.extend(options);
    icmpv6_frame((to_mac, to), (from_mac, source), &message)
}

/// A Neighbour Advertisement.
pub fn advertisement(
    (to_mac, to): (Mac, Address),
    (from_mac, source): (Mac, Address),
    flags: u8,
    target: Address,
    options: &[u8],
) -> Vec<u8> {
    let mut message = vec![136, 0, 0, 0, flags, 0, 0, 0];
    message.extend(target);
    message.extend(options);
    icmpv6_frame((to_mac, to), (from_mac, source), &message)
}

/// An ICMPv6 message with its checksum and hop limit 255.
pub fn icmpv6_frame(
    (to_mac, to): (Mac, Address),
    (from_mac, source): (Mac, Address),
    message: &[u8],
) -> Vec<u8> {
    let mut frame = ipv6_frame((to_mac, to), (from_mac, source), 58, message);
    frame[21] = 255;
    put_checksum(&mut frame);
    frame
}

/// An IPv6 frame.
pub fn ipv6_frame(
    (to_mac, to): (Mac, Address),
    (from_mac, source): (Mac, Address),
    next_header: u8,
    payload: &[u8],
) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("it is short");
    let mut frame = ethernet(to_mac, from_mac, 0x86dd);
    frame.extend([0x60, 0, 0, 0]);
    frame.extend(length.to_be_bytes());
    frame.extend([next_header, 64]);
    frame.extend(source);
    frame.extend(to);
    frame.extend(payload);
    frame
}

/// Puts the right checksum into an untagged frame of [`icmpv6_frame`] that was changed.
pub fn put_checksum(frame: &mut [u8]) {
    frame[56..58].fill(0);
    let length = u32::from(u16::from_be_bytes([frame[18], frame[19]]));
    let end = (54 + length as usize).min(frame.len());
    let mut sum = length + 58;
    for pair in frame[22..end].chunks(2) {
        sum += u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low));
    }
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    let sum = !u16::try_from(sum).expect("it was folded");
    frame[56..58].copy_from_slice(&sum.to_be_bytes());
}

fn expected_reply(request: &[u8], at: usize) -> Vec<u8> {
    let asker_ip = [14, 15, 16, 17].map(|offset| request[at + offset]);
    arp_frame(
        CLIENT_MAC,
        arp::REPLY,
        (OUR_MAC, VIP),
        (CLIENT_MAC, asker_ip),
    )
}

fn expected_advertisement(solicitation: &[u8], at: usize, stage: Stage) -> Vec<u8> {
    let address = |offset: usize| -> Address {
        let bytes = &solicitation[at + offset..][..16];
        bytes.try_into().expect("16 bytes")
    };
    let (asker, target) = (address(8), address(48));
    let (to, flags) = if asker == [0; 16] {
        (([0x33, 0x33, 0, 0, 0, 1], ALL_NODES), 0x20)
    } else {
        ((CLIENT_MAC, asker), 0x60)
    };
    let router = if stage == Stage::Router { 0x80 } else { 0 };
    advertisement(
        to,
        (OUR_MAC, target),
        flags | router,
        target,
        &link_layer(2, OUR_MAC),
    )
}

fn ethernet(to: Mac, from: Mac, ethertype: u16) -> Vec<u8> {
    let mut frame = vec![];
    frame.extend(to);
    frame.extend(from);
    frame.extend(ethertype.to_be_bytes());
    frame
}
