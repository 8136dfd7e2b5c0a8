//! A program that has the kernel keep a VLAN tag beside the frame, as a NIC does that strips tags.

use std::os::fd::OwnedFd;

use nix::net::if_::if_indextoname;

use super::{has_tcx, tc, tcx};

/// The helper `bpf_skb_vlan_push`.
const VLAN_PUSH: u64 = 18;

/// Attached for as long as it lives.
pub enum Pushing {
    Link([OwnedFd; 2]),
    /// The interface whose qdisc does it.
    Qdisc(String),
}

impl Drop for Pushing {
    fn drop(&mut self) {
        if let Self::Qdisc(interface) = self {
            tc(&["qdisc", "del", "dev", interface, "clsact"]);
        }
    }
}

/// Attaches it to an interface's egress: where there is no TCX, as an action of a filter.
pub fn push_on_egress(ifindex: u32, vid: u16) -> Pushing {
    if has_tcx() {
        return Pushing::Link(tcx::attach_on_egress(ifindex, &instructions(vid)));
    }
    let interface = if_indextoname(ifindex).expect("it is there");
    let interface = interface.into_string().expect("it is ASCII");
    let vid = vid.to_string();
    tc(&["qdisc", "add", "dev", &interface, "clsact"]);
    tc(&[
        "filter", "add", "dev", &interface, "egress", "matchall", "action", "vlan", "push", "id",
        &vid,
    ]);
    Pushing::Qdisc(interface)
}

fn instructions(vid: u16) -> [u64; 5] {
    // r2 = 0x8100 in network byte order, r3 = vid, call, r0 = next, exit.
    [
        0x0000_0081_0000_02b7,
        u64::from(vid) << 32 | 0x03b7,
        VLAN_PUSH << 32 | 0x0085,
        0xffff_ffff_0000_00b7,
        0x0095,
    ]
}
