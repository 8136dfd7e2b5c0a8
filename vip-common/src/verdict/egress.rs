//! What goes out.

use super::{
    Dropped, Passed, Surroundings, Verdict,
    gate::{is_open, is_owned_elsewhere},
};
use crate::{
    abi::{Gate, VipKey},
    frame::{
        Layout, Parsed,
        arp::{self, Arp},
        ipv6::{self, Ipv6},
        neighbour, parse,
    },
    reader::Reader,
};

/// A frame that goes out by any interface that has one of our programs: what speaks for a shared
/// IP does so only through an open gate, and by ARP or neighbour discovery only where it is carried.
///
/// When a packet from a shared IPv4 address leaves by another interface, Linux asks for the next hop
/// there in the shared IP's name, which would tell the network that it is to be found at that
/// interface. The question goes out as a probe, in nobody's name (RFC 5227 §2.1.1): it is answered all
/// the same. For IPv6 Linux asks in the name of an address of that interface.
///
/// What another machine sends from the shared IP that it owns is forwarded by other interfaces. A
/// link-local address is another one on another interface.
#[inline(always)]
pub fn egress(frame: &(impl Reader + ?Sized), around: &impl Surroundings) -> Verdict {
    match parse(frame) {
        Parsed::Arp(packet) => {
            let speaker = VipKey::v4(packet.sender_ip);
            match around.gate(&speaker) {
                Some(gate) => judge_arp(&packet, &gate, around),
                None => Verdict::NotOurs,
            }
        }
        Parsed::Ipv4 { source, .. } => match around.gate(&VipKey::v4(source)) {
            Some(gate) => judge_packet(&gate, around),
            None => Verdict::NotOurs,
        },
        Parsed::Ipv6(packet) => judge_ipv6(frame, &packet, around),
        Parsed::Other => Verdict::NotOurs,
    }
}

#[inline(always)]
fn judge_arp(packet: &Arp, gate: &Gate, around: &impl Surroundings) -> Verdict {
    if gate.ifindex == around.ifindex() {
        return speak(gate, around);
    }
    let asks = packet.operation == arp::REQUEST && packet.target_ip != packet.sender_ip;
    elsewhere(gate, asks.then_some(packet.layout), around)
}

/// It speaks for the address that it advertises, whatever its source, and else for its source.
#[inline(always)]
fn judge_ipv6(
    frame: &(impl Reader + ?Sized),
    packet: &Ipv6,
    around: &impl Surroundings,
) -> Verdict {
    let message = neighbour::outgoing(frame, packet);
    if let Some((neighbour::ADVERTISEMENT, target)) = message
        && let Some(gate) = gate_of(target, around)
    {
        return speak_as_neighbour(&gate, around);
    }
    let Some(gate) = gate_of(packet.source, around) else {
        return Verdict::NotOurs;
    };
    if message.is_some() {
        speak_as_neighbour(&gate, around)
    } else {
        judge_packet(&gate, around)
    }
}

#[inline(always)]
fn speak_as_neighbour(gate: &Gate, around: &impl Surroundings) -> Verdict {
    if gate.ifindex == around.ifindex() {
        speak(gate, around)
    } else {
        elsewhere(gate, None, around)
    }
}

#[inline(always)]
fn speak(gate: &Gate, around: &impl Surroundings) -> Verdict {
    let slot = gate.slot;
    if is_open(gate, around) {
        Verdict::Pass {
            slot,
            reason: Passed::Sent,
        }
    } else {
        Verdict::Drop {
            slot,
            reason: Dropped::Fenced,
        }
    }
}

/// `question`: where an ARP request lies that may go out as a probe.
#[inline(always)]
fn elsewhere(gate: &Gate, question: Option<Layout>, around: &impl Surroundings) -> Verdict {
    let slot = gate.slot;
    match question {
        Some(layout) if is_open(gate, around) => Verdict::Anonymise { slot, layout },
        _ => Verdict::Drop {
            slot,
            reason: Dropped::Guarded,
        },
    }
}

#[inline(always)]
fn judge_packet(gate: &Gate, around: &impl Surroundings) -> Verdict {
    let goes_elsewhere = gate.ifindex != around.ifindex();
    match speak(gate, around) {
        Verdict::Drop { .. }
            if goes_elsewhere && around.is_forwarded() && is_owned_elsewhere(gate) =>
        {
            Verdict::NotOurs
        }
        spoken => spoken,
    }
}

#[inline(always)]
fn gate_of(ip: ipv6::Address, around: &impl Surroundings) -> Option<Gate> {
    around
        .gate(&VipKey::v6(ip)?)
        .filter(|gate| gate.ifindex == around.ifindex() || !ipv6::is_link_local(&ip))
}
