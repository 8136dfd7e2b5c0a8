//! What comes in by another interface than the one that carries the shared IP.

use super::{
    Dropped, Passed, Say, Surroundings, Verdict, claim,
    gate::{foreign, is_open, is_owned_elsewhere},
    heard::Heard,
};
use crate::{
    abi::VipKey,
    frame::{Parsed, parse},
    reader::Reader,
};

/// A frame that comes in by an interface that has an address of its own, judged for the shared IPs
/// that other interfaces carry: Linux would answer for them here too. `for_us` says whether the
/// frame's destination MAC is this interface's or a group's.
///
/// A packet to a shared IP that another machine owns is on its way there, from a container for
/// example: it is the host's to forward.
#[inline(always)]
pub fn guard(frame: &(impl Reader + ?Sized), for_us: bool, around: &impl Surroundings) -> Verdict {
    if !for_us {
        return Verdict::NotOurs;
    }
    match parse(frame) {
        Parsed::Arp(packet) => {
            let judged = judge_heard(&Heard::of_arp(&packet), around);
            judged.unwrap_or(Verdict::NotOurs)
        }
        Parsed::Ipv4 { destination, .. } => judge_packet(Some(VipKey::v4(destination)), around),
        Parsed::Ipv6(packet) => {
            let heard = Heard::of_ipv6(frame, &packet);
            match heard.and_then(|heard| judge_heard(&heard, around)) {
                Some(judged) => judged,
                None => judge_packet(VipKey::v6(packet.destination), around),
            }
        }
        Parsed::Other => Verdict::NotOurs,
    }
}

/// `None` if it is about no shared IP of another interface.
#[inline(always)]
fn judge_heard(heard: &Heard, around: &impl Surroundings) -> Option<Verdict> {
    if let (Some(vip), Some(gate)) = (heard.claimed, foreign(heard.claimed, around)) {
        return Some(claim::judge(vip, heard, &gate, around, Say));
    }
    let gate = foreign(heard.asked, around)?;
    Some(Verdict::Drop {
        slot: gate.slot,
        reason: Dropped::Guarded,
    })
}

#[inline(always)]
fn judge_packet(destination: Option<VipKey>, around: &impl Surroundings) -> Verdict {
    match foreign(destination, around) {
        Some(gate) if is_open(&gate, around) => Verdict::Pass {
            slot: gate.slot,
            reason: Passed::Delivered,
        },
        Some(gate) if !is_owned_elsewhere(&gate) => Verdict::Drop {
            slot: gate.slot,
            reason: Dropped::Stale,
        },
        Some(_) | None => Verdict::NotOurs,
    }
}
