//! What sending an answer takes of the kernel.

use aya_ebpf::{
    helpers::generated::{
        bpf_redirect, bpf_skb_change_tail, bpf_xdp_adjust_tail, bpf_xdp_get_buff_len,
    },
    programs::{TcContext, XdpContext},
};
use vip_common::{frame::UNTAGGED_PAYLOAD, reader::Reader as _, reply, verdict::Question};

use crate::packet::{Frame, Received};

/// Gives the frame its answer's length. `false` if the driver left no room for that.
#[inline(always)]
pub fn resize_xdp(context: &XdpContext, question: Question) -> bool {
    let Some(wanted) = reply::answer_len(question) else {
        return true;
    };
    // Not only of what lies before `data_end`: a frame may go on in fragments.
    // SAFETY: the context is valid while the program runs.
    let length = unsafe { bpf_xdp_get_buff_len(context.ctx) };
    let (Ok(wanted), Ok(length)) = (i32::try_from(wanted), i32::try_from(length)) else {
        return false;
    };
    // SAFETY: as above; pointers into the frame are made anew afterwards.
    let failed = unsafe { bpf_xdp_adjust_tail(context.ctx, wanted - length) };
    failed == 0
}

/// As [`resize_xdp`]. `false` too for a packet that does not begin with its MAC header, which see
/// [`Received`].
#[inline(always)]
pub fn resize_tc(context: &TcContext, question: Question) -> bool {
    let Some(begins) = Frame::of_tc(context).read::<UNTAGGED_PAYLOAD>(0) else {
        return false;
    };
    if Received::of_tc(context)
        .read(0)
        .is_none_or(|header| begins != header)
    {
        return false;
    }
    let Some(wanted) = reply::answer_len(question) else {
        return true;
    };
    let Ok(wanted) = u32::try_from(wanted) else {
        return false;
    };
    // SAFETY: as above.
    let failed = unsafe { bpf_skb_change_tail(context.skb.skb, wanted, 0) };
    failed == 0
}

/// Sends the packet out by the interface that it came in by, past that one's egress programs: the
/// action to return.
#[inline(always)]
pub fn send_back(ifindex: u32) -> i32 {
    // SAFETY: the helper takes numbers and returns one.
    let action = unsafe { bpf_redirect(ifindex, 0) };
    i32::try_from(action).unwrap_or(aya_ebpf::bindings::TC_ACT_SHOT)
}
