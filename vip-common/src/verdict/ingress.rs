//! What comes in by an interface that carries shared IPs.

use super::{
    Dropped, Passed, Surroundings, Verdict, claim,
    gate::{carried, is_for_us, is_open},
    heard::Heard,
};
use crate::{
    abi::VipKey,
    frame::{ETH_DESTINATION, Mac, Parsed, parse},
    reader::Reader,
};

/// A frame that comes in by an interface that carries shared IPs. Shared IPs of other interfaces
/// are left to [`guard`](super::guard).
#[inline(always)]
pub fn ingress(frame: &(impl Reader + ?Sized), around: &impl Surroundings) -> Verdict {
    let Some(to) = frame.read(ETH_DESTINATION) else {
        return Verdict::NotOurs;
    };
    match parse(frame) {
        Parsed::Arp(packet) => {
            let judged = judge_heard(to, &Heard::of_arp(&packet), around);
            judged.unwrap_or(Verdict::NotOurs)
        }
        Parsed::Ipv4 { destination, .. } => judge_packet(to, Some(VipKey::v4(destination)), around),
        Parsed::Ipv6(packet) => {
            let heard = Heard::of_ipv6(frame, &packet);
            match heard.and_then(|heard| judge_heard(to, &heard, around)) {
                Some(judged) => judged,
                // Whatever else it is about, it may be sent to a shared IP.
                None => judge_packet(to, VipKey::v6(packet.destination), around),
            }
        }
        Parsed::Other => Verdict::NotOurs,
    }
}

/// `None` if it is about no shared IP of this interface.
#[inline(always)]
fn judge_heard(to: Mac, heard: &Heard, around: &impl Surroundings) -> Option<Verdict> {
    // What it claims goes before what it asks: a gratuitous request does both.
    if let (Some(vip), Some(gate)) = (heard.claimed, carried(heard.claimed, around)) {
        return Some(if is_for_us(to, &gate) {
            claim::judge(vip, heard, &gate, around)
        } else {
            Verdict::NotOurs
        });
    }
    let gate = carried(heard.asked, around)?;
    let slot = gate.slot;
    Some(if !is_for_us(to, &gate) {
        Verdict::NotOurs
    } else if is_open(&gate, around) {
        Verdict::Answer {
            slot,
            question: heard.question,
            mac: gate.mac,
            is_router: gate.is_router(),
        }
    } else {
        Verdict::Drop {
            slot,
            reason: Dropped::Stale,
        }
    })
}

#[inline(always)]
fn judge_packet(to: Mac, destination: Option<VipKey>, around: &impl Surroundings) -> Verdict {
    let Some(gate) = carried(destination, around) else {
        return Verdict::NotOurs;
    };
    let slot = gate.slot;
    if !is_for_us(to, &gate) {
        Verdict::NotOurs
    } else if is_open(&gate, around) {
        Verdict::Pass {
            slot,
            reason: Passed::Delivered,
        }
    } else {
        Verdict::Drop {
            slot,
            reason: Dropped::Stale,
        }
    }
}
