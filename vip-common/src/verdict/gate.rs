//! Gates, as a frame on one interface meets them.

use super::Surroundings;
use crate::{
    abi::{Gate, VipKey},
    frame::{Mac, ipv6, is_group},
};

/// The gate of a shared IP that this interface carries.
#[inline(always)]
pub(super) fn carried(vip: Option<VipKey>, around: &impl Surroundings) -> Option<Gate> {
    around
        .gate(&vip?)
        .filter(|gate| gate.ifindex == around.ifindex())
}

/// The gate of a shared IP that another interface carries. A link-local one means another address
/// here.
#[inline(always)]
pub(super) fn foreign(vip: Option<VipKey>, around: &impl Surroundings) -> Option<Gate> {
    let vip = vip?;
    around
        .gate(&vip)
        .filter(|gate| gate.ifindex != around.ifindex() && !ipv6::is_link_local(&vip.addr))
}

/// As etcd says. This node's address is off then: fence first.
#[inline(always)]
pub(super) fn is_owned_elsewhere(gate: &Gate) -> bool {
    gate.owner_mac != Mac::default() && gate.owner_mac != gate.mac
}

/// A unicast frame to another MAC is seen by promiscuous NICs and is nobody's business here.
#[inline(always)]
pub(super) fn is_for_us(to: Mac, gate: &Gate) -> bool {
    to == gate.mac || is_group(to)
}

#[inline(always)]
pub(super) fn is_open(gate: &Gate, around: &impl Surroundings) -> bool {
    gate.is_open(around.lease_deadline_ns(), around.now_ns())
}
