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

mod answer;
mod maps;
mod packet;

use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_action},
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use aya_log_ebpf::info;
use maps::{Maps, boot_now_ns, count, is_logging, put_gate, tell};
use packet::{Frame, Received};
use vip_common::{
    abi::{Counters, Event, GATE_WORDS, VipKey},
    reader::{Reader as _, Writer as _},
    reply,
    verdict::{self, Dropped, Passed, Then, Verdict},
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

/// What was done with a frame.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Done {
    Nothing,
    Answered,
    Passed,
    Dropped,
    Conflict,
}

impl Done {
    /// For the debugging log.
    #[inline(always)]
    fn name(self) -> &'static str {
        match self {
            Self::Nothing => "not ours",
            Self::Answered => "answered",
            Self::Passed => "passed",
            Self::Dropped => "dropped",
            Self::Conflict => "conflict",
        }
    }
}

/// Does in XDP what a verdict asks for.
#[derive(Clone, Copy)]
struct Act<'a> {
    context: &'a XdpContext,
    around: &'a Maps,
}

impl Then for Act<'_> {
    type Done = Done;

    #[inline(always)]
    fn act(self, mut verdict: Verdict) -> Done {
        if let Verdict::Answer { slot, question, .. } = verdict
            && !answer::resize_xdp(self.context, question)
        {
            verdict = left_to_the_kernel(slot);
        }
        record(&verdict, self.around);
        match verdict {
            Verdict::NotOurs => Done::Nothing,
            Verdict::Pass { .. } => Done::Passed,
            Verdict::Conflict { .. } => Done::Conflict,
            // Only egress makes probes.
            Verdict::Anonymise { .. } | Verdict::Drop { .. } => Done::Dropped,
            Verdict::Answer {
                question,
                mac,
                is_router,
                ..
            } => {
                let mut frame = Frame::of_xdp(self.context);
                match reply::answer(&mut frame, question, mac, is_router) {
                    Some(()) => Done::Answered,
                    None => Done::Dropped,
                }
            }
        }
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

/// Who owns it has the address too: its kernel answers where we cannot, only later.
#[inline(always)]
fn left_to_the_kernel(slot: u32) -> Verdict {
    Verdict::Pass {
        slot,
        reason: Passed::Delivered,
    }
}

/// Counts, and tells user space of conflicts.
#[inline(always)]
fn record(verdict: &Verdict, around: &Maps) {
    match *verdict {
        Verdict::NotOurs => {}
        Verdict::Answer { slot, .. } => count(slot, |row| &mut row.answered),
        Verdict::Anonymise { slot, .. } => count(slot, |row| &mut row.guarded),
        Verdict::Pass { slot, reason } => count(slot, |row: &mut Counters| match reason {
            Passed::Delivered => &mut row.delivered,
            Passed::Claim => &mut row.claims_passed,
            Passed::Sent => &mut row.sent,
        }),
        Verdict::Drop { slot, reason } => count(slot, |row: &mut Counters| match reason {
            Dropped::Stale => &mut row.stale,
            Dropped::Looped => &mut row.looped,
            Dropped::Claim => &mut row.claims_dropped,
            Dropped::Guarded => &mut row.guarded,
            Dropped::Fenced => &mut row.fenced,
        }),
        Verdict::Conflict {
            slot,
            vip,
            claimant,
            operation,
        } => {
            count(slot, |row| &mut row.conflicts);
            tell(
                slot,
                &Event {
                    at_ns: boot_now_ns(),
                    vip,
                    ifindex: around.ifindex,
                    op: operation,
                    mac: claimant,
                    reserved: [0; 4],
                },
            );
        }
    }
}

/// For the debugging log.
#[inline(always)]
fn name_of(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::NotOurs => "not ours",
        Verdict::Answer { .. } => "answered",
        Verdict::Anonymise { .. } => "made a probe",
        Verdict::Pass { .. } => "passed",
        Verdict::Drop { .. } => "dropped",
        Verdict::Conflict { .. } => "conflict",
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
