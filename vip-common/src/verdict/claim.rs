//! Claims: somebody says that a shared IP is at its MAC.

use super::{Dropped, Passed, Surroundings, Then, Verdict, heard::Heard};
use crate::abi::{Gate, VipKey};

/// What becomes of the claim to `vip`. Members know better than to believe it, from etcd, for as long
/// as their lease is good.
#[inline(always)]
pub(super) fn judge<T: Then>(
    vip: VipKey,
    heard: &Heard,
    gate: &Gate,
    around: &impl Surroundings,
    then: T,
) -> T::Done {
    let slot = gate.slot;
    let claimant = heard.claimant;
    if claimant == gate.mac {
        return then.act(Verdict::Drop {
            slot,
            reason: Dropped::Looped,
        });
    }
    let now_ns = around.now_ns();
    let lease_deadline_ns = around.lease_deadline_ns();
    if !gate.is_open(lease_deadline_ns, now_ns)
        && (claimant == gate.owner_mac || now_ns >= lease_deadline_ns)
    {
        return then.act(Verdict::Pass {
            slot,
            reason: Passed::Claim,
        });
    }
    if around.is_member(claimant) {
        return then.act(Verdict::Drop {
            slot,
            reason: Dropped::Claim,
        });
    }
    then.act(Verdict::Conflict {
        slot,
        vip,
        claimant,
        operation: heard.operation,
    })
}
