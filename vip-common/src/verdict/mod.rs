//! What becomes of a frame: pure functions of the frame and of what the maps say.
//!
//! A frame that concerns no shared IP pays for one parse and one look-up (ARP and neighbour discovery
//! name two addresses or three and may pay for each); the clock is read only for those that do.

mod claim;
mod egress;
mod gate;
mod guard;
mod heard;
mod ingress;

use crate::{
    abi::{Gate, VipKey},
    frame::{Layout, Mac},
};

pub use egress::egress;
pub use guard::guard;
pub use heard::{Protocol, Question};
pub use ingress::{ingress, ingress_then};

/// What the maps and the clock say.
pub trait Surroundings {
    /// The gate of a shared IP, if it is one.
    fn gate(&self, vip: &VipKey) -> Option<Gate>;
    /// The lease's deadline, `CLOCK_BOOTTIME`.
    fn lease_deadline_ns(&self) -> u64;
    /// Now, `CLOCK_BOOTTIME`.
    fn now_ns(&self) -> u64;
    /// Whether a live member has this MAC.
    fn is_member(&self, mac: Mac) -> bool;
    /// The interface that the frame comes in or goes out by.
    fn ifindex(&self) -> u32;
    /// Whether the frame goes out because it came in elsewhere.
    fn is_forwarded(&self) -> bool;
}

/// What to do with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It concerns no shared IP: pass it, byte for byte, and count nothing.
    NotOurs,
    /// Turn the question into its answer and send that back.
    Answer {
        /// The counters' row.
        slot: u32,
        /// What was asked.
        question: Question,
        /// What to answer.
        mac: Mac,
        /// Whether to say that this node is a router, which IPv6 wants to know.
        is_router: bool,
    },
    /// Take the shared IP out of the ARP request, and pass that as a probe.
    Anonymise {
        /// The counters' row.
        slot: u32,
        /// Where the ARP packet lies.
        layout: Layout,
    },
    /// Pass it.
    Pass {
        /// The counters' row.
        slot: u32,
        /// Why.
        reason: Passed,
    },
    /// Drop it.
    Drop {
        /// The counters' row.
        slot: u32,
        /// Why.
        reason: Dropped,
    },
    /// Drop it, and tell user space who claims what.
    Conflict {
        /// The counters' row.
        slot: u32,
        /// The shared IP.
        vip: VipKey,
        /// Who claims it.
        claimant: Mac,
        /// How: the ARP operation or the ICMPv6 type.
        operation: u16,
    },
}

/// What acts on a verdict where it is made.
///
/// Verdicts that meet at one place of a program do so in registers, and where one lacks what another
/// has, these hold whatever they held before. That nobody goes by it, verifiers before Linux 6.10 do
/// not see, and refuse the program.
pub trait Then: Copy {
    /// What is told of it.
    type Done;
    /// Acts on it.
    fn act(self, verdict: Verdict) -> Self::Done;
}

/// Only says what the verdict is.
#[derive(Clone, Copy, Debug)]
pub struct Say;

impl Then for Say {
    type Done = Verdict;

    #[inline(always)]
    fn act(self, verdict: Verdict) -> Verdict {
        verdict
    }
}

/// Why a frame passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passed {
    /// For a shared IP whose gate is open.
    Delivered,
    /// The owner's word about its shared IP, or anybody's while our lease is past.
    Claim,
    /// Speaks for a shared IP whose gate is open.
    Sent,
}

/// Why a frame is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// For a shared IP whose gate is closed.
    Stale,
    /// Our own, come back.
    Looped,
    /// A member's word about a shared IP that it does not own.
    Claim,
    /// On an interface that does not carry the shared IP.
    Guarded,
    /// Would speak for a shared IP whose gate is closed.
    Fenced,
}
