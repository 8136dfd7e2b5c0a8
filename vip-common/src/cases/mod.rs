//! Frames, and what must become of them: one table for the host and for the kernel.
//!
//! The stage is always the same: this node has the shared IPs [`VIP`], [`VIP6`] and
//! [`LINK_LOCAL_VIP`] on the interface [`CARRIER`], at the MAC [`OUR_MAC`]; another interface is
//! [`OTHER`].

mod egress;
mod frames;
mod guard;
mod ingress;
mod ipv6;
mod mutate;
mod strategy;

use alloc::vec::Vec;

pub use frames::*;
pub use strategy::{any_frame, any_stage};

use crate::{
    abi::{GATE_ROUTER, Gate, VipKey},
    frame::{Mac, arp, ipv6::Address},
    verdict::{Dropped, Passed, Surroundings, Verdict},
};

/// The shared IP.
pub const VIP: [u8; 4] = [10, 0, 0, 100];
/// Somebody who asks.
pub const CLIENT: [u8; 4] = [10, 0, 0, 7];
/// An address that is nobody's business here.
pub const STRANGER: [u8; 4] = [10, 0, 0, 8];
/// The shared IPv6 address.
pub const VIP6: Address = ipv6_address(0xfd00, 0x100);
/// One of the link.
pub const LINK_LOCAL_VIP: Address = ipv6_address(0xfe80, 0x100);
/// The client's IPv6 address.
pub const CLIENT6: Address = ipv6_address(0xfd00, 7);
/// An IPv6 address that is nobody's business here.
pub const STRANGER6: Address = ipv6_address(0xfd00, 8);
/// Our MAC on the carrier.
pub const OUR_MAC: Mac = [2, 0, 0, 0, 0, 1];
/// The client's.
pub const CLIENT_MAC: Mac = [2, 0, 0, 0, 0, 7];
/// The owner's, where we are not that.
pub const OWNER_MAC: Mac = [2, 0, 0, 0, 0, 2];
/// Another member's.
pub const MEMBER_MAC: Mac = [2, 0, 0, 0, 0, 3];
/// Nobody's that etcd knows.
pub const FOREIGN_MAC: Mac = [2, 0, 0, 0, 0, 9];
/// The MAC of the interface that a guard is on: the loopback's, for the same reason as [`CARRIER`].
pub const GUARDED_MAC: Mac = [0; 6];
/// Everybody's.
pub const BROADCAST: Mac = [0xff; 6];
/// The interface that carries the shared IP. 1, for `BPF_PROG_TEST_RUN` runs programs on the
/// loopback interface unless told otherwise.
pub const CARRIER: u32 = 1;
/// Another interface.
pub const OTHER: u32 = 2;
/// The shared IPs' row in the counters: each case is about one of them.
pub const SLOT: u32 = 5;

/// Which of the three functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// `verdict::ingress` on the carrier.
    Ingress,
    /// `verdict::guard` on the interface that the gate is not of.
    Guard,
    /// `verdict::egress`.
    Egress,
    /// The same, of a frame that came in elsewhere.
    Forward,
}

/// How this node stands towards the shared IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The gate is open.
    Owner,
    /// The same, and the host forwards IPv6.
    Router,
    /// The gate is closed, the lease is good, `OWNER_MAC` owns it.
    Follower,
    /// As the follower's, but nobody is known to own it.
    Vacant,
    /// As the owner's, but past the lease's deadline.
    Expired,
}

/// What must come of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Passed and not counted.
    Untouched,
    /// Answered from `OUR_MAC`.
    Answered,
    /// Passed as a probe.
    Anonymised,
    /// Passed and counted.
    Passed(Passed),
    /// Dropped and counted.
    Dropped(Dropped),
    /// Dropped, counted and told.
    Conflict,
}

/// One row.
#[derive(Clone, Debug)]
pub struct Case {
    /// What it shows.
    pub name: &'static str,
    /// Where.
    pub hook: Hook,
    /// The interface that the shared IP is on, seen from a hook on interface [`CARRIER`].
    pub carrier: u32,
    /// How this node stands.
    pub stage: Stage,
    /// What comes or goes.
    pub frame: Vec<u8>,
    /// What must become of it.
    pub expect: Expect,
}

impl Stage {
    /// The shared IPs' gates.
    pub fn gate(self, carrier: u32) -> Gate {
        let (deadline_ns, owner_mac) = match self {
            Self::Owner | Self::Router | Self::Expired => (u64::MAX, OUR_MAC),
            Self::Follower => (0, OWNER_MAC),
            Self::Vacant => (0, [0; 6]),
        };
        Gate {
            deadline_ns,
            epoch: 42,
            ifindex: carrier,
            slot: SLOT,
            mac: OUR_MAC,
            owner_mac,
            flags: if self == Self::Router { GATE_ROUTER } else { 0 },
            ..Gate::default()
        }
    }

    /// Whether the lease's deadline lies ahead.
    pub fn has_lease(self) -> bool {
        self != Self::Expired
    }
}

/// The maps and the clock of a row, for the host.
#[derive(Clone, Copy, Debug)]
pub struct Host {
    /// How the node stands.
    pub stage: Stage,
    /// The interface that the shared IP is on.
    pub carrier: u32,
    /// Whether the frame came in elsewhere.
    pub forwarded: bool,
}

impl Host {
    /// What a case is judged in.
    pub fn of(case: &Case) -> Self {
        Self {
            stage: case.stage,
            carrier: case.carrier,
            forwarded: case.hook == Hook::Forward,
        }
    }
}

impl Surroundings for Host {
    fn gate(&self, vip: &VipKey) -> Option<Gate> {
        vips().contains(vip).then(|| self.stage.gate(self.carrier))
    }

    fn lease_deadline_ns(&self) -> u64 {
        if self.stage.has_lease() { 2_000 } else { 1_000 }
    }

    fn now_ns(&self) -> u64 {
        1_000
    }

    fn is_member(&self, mac: Mac) -> bool {
        mac == MEMBER_MAC || mac == OUR_MAC || mac == OWNER_MAC
    }

    fn ifindex(&self) -> u32 {
        CARRIER
    }

    fn is_forwarded(&self) -> bool {
        self.forwarded
    }
}

impl Expect {
    /// Whether a verdict is what was expected.
    pub fn is_met_by(self, verdict: Verdict) -> bool {
        match (self, verdict) {
            (Self::Untouched, Verdict::NotOurs) => true,
            (Self::Answered, Verdict::Answer { slot, mac, .. }) => slot == SLOT && mac == OUR_MAC,
            (Self::Anonymised, Verdict::Anonymise { slot, .. }) => slot == SLOT,
            (Self::Passed(want), Verdict::Pass { slot, reason }) => slot == SLOT && reason == want,
            (Self::Dropped(want), Verdict::Drop { slot, reason }) => slot == SLOT && reason == want,
            (Self::Conflict, Verdict::Conflict { slot, vip, .. }) => {
                slot == SLOT && vips().contains(&vip)
            }
            _ => false,
        }
    }
}

/// The shared IPs, as the maps have them.
pub fn vips() -> [VipKey; 3] {
    let v6 = |addr| VipKey { addr };
    [VipKey::v4(VIP), v6(VIP6), v6(LINK_LOCAL_VIP)]
}

/// The table.
pub fn table() -> Vec<Case> {
    let mut rows = Vec::new();
    ingress::rows(&mut rows);
    guard::rows(&mut rows);
    egress::rows(&mut rows);
    ipv6::rows(&mut rows);
    rows
}

/// Takes rows about what comes in by the carrier.
fn at_ingress(rows: &mut Vec<Case>) -> impl FnMut(&'static str, Stage, Vec<u8>, Expect) {
    |name, stage, frame, expect| {
        rows.push(Case {
            name,
            hook: Hook::Ingress,
            carrier: CARRIER,
            stage,
            frame,
            expect,
        });
    }
}

/// `<first>::<last>`.
const fn ipv6_address(first: u16, last: u16) -> Address {
    let [a, b] = first.to_be_bytes();
    let [y, z] = last.to_be_bytes();
    [a, b, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, y, z]
}
