//! The kernel's half: the hooks.
//!
//! Each hook reads the frame, asks `vip_common::verdict` what becomes of it, counts, and says so to
//! the kernel. What a frame means, and what to do with it, is decided there and not here.

#![no_std]
#![no_main]
#![allow(
    missing_docs,
    reason = "the hooks' macros make public functions without their comments"
)]

mod act;
mod answer;
mod maps;
mod packet;
mod record;

use act::{Act, Done};
use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_action},
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use aya_log_ebpf::info;
use maps::{Maps, boot_now_ns, is_logging, put_gate};
use packet::{Frame, Received};
use record::{left_to_the_kernel, name_of, record};
use vip_common::{
    abi::{GATE_WORDS, VipKey},
    reader::{Reader as _, Writer as _},
    reply,
    verdict::{self, Verdict},
};

/// `PACKET_OTHERHOST` of `linux/if_packet.h`: the frame's MAC is some other machine's.
const PACKET_OTHERHOST: u32 = 3;
/// The low 12 bits of a VLAN tag are the VLAN.
const VID_MASK: u32 = 0x0fff;

/// Ingress of an interface that carries shared IPs.
#[xdp(frags)]
pub fn vip_xdp(context: XdpContext) -> u32 {
    let ifindex = u32::try_from(context.ingress_ifindex()).unwrap_or(0);
    let around = Maps {
        ifindex,
        came_in_by: ifindex,
    };
    let act = Act {
        context: &context,
        around: &around,
    };
    let done = verdict::ingress_then(&Frame::of_xdp(&context), &around, act);
    if done != Done::Nothing && is_logging() {
        let done = done.name();
        info!(&context, "ingress on {}: {}", ifindex, done);
    }
    match done {
        Done::Nothing | Done::Passed => xdp_action::XDP_PASS,
        Done::Answered => xdp_action::XDP_TX,
        Done::Dropped | Done::Conflict => xdp_action::XDP_DROP,
    }
}

/// The same in the stack, where the interface takes no XDP program of ours.
#[classifier]
pub fn vip_ingress(context: TcContext) -> i32 {
    let Some(around) = untagged(&context) else {
        return TC_ACT_UNSPEC;
    };
    let mut verdict = verdict::ingress(&Received::of_tc(&context), &around);
    if verdict == Verdict::NotOurs {
        return TC_ACT_UNSPEC;
    }
    if let Verdict::Answer { slot, question, .. } = verdict
        && !answer::resize_tc(&context, question)
    {
        verdict = left_to_the_kernel(slot);
    }
    if is_logging() {
        let verdict = name_of(&verdict);
        info!(&context, "ingress on {}: {}", around.ifindex, verdict);
    }
    record(&verdict, &around);
    match verdict {
        Verdict::Answer {
            question,
            mac,
            is_router,
            ..
        } => {
            let mut frame = Frame::of_tc(&context);
            match reply::answer(&mut frame, question, mac, is_router) {
                Some(()) => answer::send_back(around.ifindex),
                None => TC_ACT_SHOT,
            }
        }
        _ => tc_action(&verdict),
    }
}

/// Egress of an interface that carries shared IPs, and of guarded ones.
#[classifier]
pub fn vip_egress(context: TcContext) -> i32 {
    let Some(around) = untagged(&context) else {
        return TC_ACT_UNSPEC;
    };
    let mut frame = Frame::of_tc(&context);
    let verdict = verdict::egress(&frame, &around);
    if verdict == Verdict::NotOurs {
        return TC_ACT_UNSPEC;
    }
    if is_logging() {
        info!(
            &context,
            "egress on {}: {}",
            around.ifindex,
            name_of(&verdict)
        );
    }
    record(&verdict, &around);
    match verdict {
        Verdict::Anonymise { layout, .. } => match reply::anonymise_arp(&mut frame, layout) {
            Some(()) => TC_ACT_UNSPEC,
            None => TC_ACT_SHOT,
        },
        _ => tc_action(&verdict),
    }
}

/// Ingress of an interface that has an address of its own, for the shared IPs of others.
#[classifier]
pub fn vip_guard(context: TcContext) -> i32 {
    let Some(around) = untagged(&context) else {
        return TC_ACT_UNSPEC;
    };
    let for_us = skb(&context).pkt_type != PACKET_OTHERHOST;
    let verdict = verdict::guard(&Received::of_tc(&context), for_us, &around);
    if verdict == Verdict::NotOurs {
        return TC_ACT_UNSPEC;
    }
    if is_logging() {
        info!(
            &context,
            "guard on {}: {}",
            around.ifindex,
            name_of(&verdict)
        );
    }
    record(&verdict, &around);
    tc_action(&verdict)
}

/// Stores the boot clock's time in the first eight bytes of the frame: run once by the agent
/// through `BPF_PROG_TEST_RUN`, to compare clocks; never attached.
#[xdp]
pub fn vip_clock(context: XdpContext) -> u32 {
    match Frame::of_xdp(&context).write(0, boot_now_ns().to_ne_bytes()) {
        Some(()) => xdp_action::XDP_PASS,
        None => xdp_action::XDP_ABORTED,
    }
}

/// Changes a gate in place: run by the agent through `BPF_PROG_TEST_RUN`, whose input is a
/// `VipKey` and a `Gate`; never attached. A map update from user space would replace the element, and a
/// program that had found it could read another shared IP's gate in its place.
#[xdp]
pub fn vip_put_gate(context: XdpContext) -> u32 {
    match put_gate_of(&Frame::of_xdp(&context)) {
        Some(()) => xdp_action::XDP_PASS,
        None => xdp_action::XDP_ABORTED,
    }
}

#[inline(always)]
fn put_gate_of(input: &Frame) -> Option<()> {
    let vip = VipKey {
        addr: input.read(0)?,
    };
    let mut words = [0; GATE_WORDS];
    for (at, word) in words.iter_mut().enumerate() {
        *word = u64::from_ne_bytes(input.read(size_of::<VipKey>() + at * size_of::<u64>())?);
    }
    put_gate(&vip, words)
}

/// The surroundings of a packet that is of no VLAN. The stack takes a tag off the frame and keeps
/// it beside.
#[inline(always)]
fn untagged(context: &TcContext) -> Option<Maps> {
    let skb = skb(context);
    let is_tagged = skb.vlan_present != 0 && skb.vlan_tci & VID_MASK != 0;
    (!is_tagged).then_some(Maps {
        ifindex: skb.ifindex,
        came_in_by: skb.ingress_ifindex,
    })
}

#[inline(always)]
fn skb(context: &TcContext) -> &__sk_buff {
    // SAFETY: the kernel hands a valid context to the program, for as long as it runs.
    unsafe { &*context.skb.skb }
}

#[inline(always)]
fn tc_action(verdict: &Verdict) -> i32 {
    match verdict {
        // Whatever else is attached has its say: TCX calls this `TCX_NEXT`.
        Verdict::NotOurs | Verdict::Pass { .. } => TC_ACT_UNSPEC,
        // What is answered, or made a probe, has been sent already.
        Verdict::Answer { .. }
        | Verdict::Anonymise { .. }
        | Verdict::Drop { .. }
        | Verdict::Conflict { .. } => TC_ACT_SHOT,
    }
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
