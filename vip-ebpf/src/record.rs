//! What is counted and told of a verdict.

use vip_common::{
    abi::{Counters, Event},
    verdict::{Dropped, Passed, Verdict},
};

use crate::maps::{Maps, boot_now_ns, count, tell};

/// Who owns it has the address too: its kernel answers where we cannot, only later.
#[inline(always)]
pub fn left_to_the_kernel(slot: u32) -> Verdict {
    Verdict::Pass {
        slot,
        reason: Passed::Delivered,
    }
}

/// Counts, and tells user space of conflicts.
#[inline(always)]
pub fn record(verdict: &Verdict, around: &Maps) {
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
pub fn name_of(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::NotOurs => "not ours",
        Verdict::Answer { .. } => "answered",
        Verdict::Anonymise { .. } => "made a probe",
        Verdict::Pass { .. } => "passed",
        Verdict::Drop { .. } => "dropped",
        Verdict::Conflict { .. } => "conflict",
    }
}
