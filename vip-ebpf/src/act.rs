//! What XDP does on a verdict, where the verdict is made: see [`Then`] for why.

use aya_ebpf::programs::XdpContext;
use vip_common::{
    reply,
    verdict::{Then, Verdict},
};

use crate::{
    answer,
    maps::Maps,
    packet::Frame,
    record::{left_to_the_kernel, record},
};

/// What was done with a frame.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Done {
    Nothing,
    Answered,
    Passed,
    Dropped,
    Conflict,
}

impl Done {
    /// For the debugging log.
    #[inline(always)]
    pub fn name(self) -> &'static str {
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
pub struct Act<'a> {
    pub context: &'a XdpContext,
    pub around: &'a Maps,
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
