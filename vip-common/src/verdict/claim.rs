//! Claims: somebody says that a shared IP is at its MAC.

use super::{Dropped, Passed, Surroundings, Verdict, heard::Heard};
use crate::abi::{Gate, VipKey};

/// What becomes of the claim to `vip`. Members know better than to believe it, from etcd, for as long
/// as their lease is good.
#[inline(always)]
pub(super) fn judge(
    vip: VipKey,
    heard: &Heard,
    gate: &Gate,
    around: &impl Surroundings,
) -> Verdict {
    let slot = gate.slot;
    let claimant = heard.claimant;
    if claimant == gate.mac {
        return Verdict::Drop {
            slot,
            reason: Dropped::Looped,
        };
    }
    let now_ns = around.now_ns();
    let lease_deadline_ns = around.lease_deadline_ns();
    if !gate.is_open(lease_deadline_ns, now_ns)
        && (claimant == gate.owner_mac || now_ns >= lease_deadline_ns)
    {
        return Verdict::Pass {
            slot,
            reason: Passed::Claim,
        };
    }
    if around.is_member(claimant) {
        return Verdict::Drop {
            slot,
            reason: Dropped::Claim,
        };
    }
    Verdict::Conflict {
        slot,
        vip,
        claimant,
        operation: heard.operation,
    }
}
