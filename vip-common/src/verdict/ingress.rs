//! What comes in by an interface that carries shared IPs.

use super::{
    Dropped, Passed, Say, Surroundings, Then, Verdict, claim,
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
    ingress_then(frame, around, Say)
}

/// As [`ingress`]; `then` acts on the verdict where it is made.
#[inline(always)]
pub fn ingress_then<T: Then>(
    frame: &(impl Reader + ?Sized),
    around: &impl Surroundings,
    then: T,
) -> T::Done {
    let Some(to) = frame.read(ETH_DESTINATION) else {
        return then.act(Verdict::NotOurs);
    };
    match parse(frame) {
        Parsed::Arp(packet) => judge_heard(to, &Heard::of_arp(&packet), None, around, then),
        Parsed::Ipv4 { destination, .. } => {
            judge_packet(to, Some(VipKey::v4(destination)), around, then)
        }
        Parsed::Ipv6(packet) => {
            // Whatever else it is about, it may be sent to a shared IP.
            let destination = VipKey::v6(packet.destination);
            match Heard::of_ipv6(frame, &packet) {
                Some(heard) => judge_heard(to, &heard, destination, around, then),
                None => judge_packet(to, destination, around, then),
            }
        }
        Parsed::Other => then.act(Verdict::NotOurs),
    }
}

/// What is about no shared IP of this interface is a packet like others.
#[inline(always)]
fn judge_heard<T: Then>(
    to: Mac,
    heard: &Heard,
    destination: Option<VipKey>,
    around: &impl Surroundings,
    then: T,
) -> T::Done {
    // What it claims goes before what it asks: a gratuitous request does both.
    if let (Some(vip), Some(gate)) = (heard.claimed, carried(heard.claimed, around)) {
        return if is_for_us(to, &gate) {
            claim::judge(vip, heard, &gate, around, then)
        } else {
            then.act(Verdict::NotOurs)
        };
    }
    let Some(gate) = carried(heard.asked, around) else {
        return judge_packet(to, destination, around, then);
    };
    let slot = gate.slot;
    if !is_for_us(to, &gate) {
        then.act(Verdict::NotOurs)
    } else if is_open(&gate, around) {
        then.act(Verdict::Answer {
            slot,
            question: heard.question,
            mac: gate.mac,
            is_router: gate.is_router(),
        })
    } else {
        then.act(Verdict::Drop {
            slot,
            reason: Dropped::Stale,
        })
    }
}

#[inline(always)]
fn judge_packet<T: Then>(
    to: Mac,
    destination: Option<VipKey>,
    around: &impl Surroundings,
    then: T,
) -> T::Done {
    let Some(gate) = carried(destination, around) else {
        return then.act(Verdict::NotOurs);
    };
    let slot = gate.slot;
    if !is_for_us(to, &gate) {
        then.act(Verdict::NotOurs)
    } else if is_open(&gate, around) {
        then.act(Verdict::Pass {
            slot,
            reason: Passed::Delivered,
        })
    } else {
        then.act(Verdict::Drop {
            slot,
            reason: Dropped::Stale,
        })
    }
}
