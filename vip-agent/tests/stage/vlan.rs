//! A program that has the kernel keep a VLAN tag beside the frame, as a NIC does that strips tags.

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
};

use nix::{libc, net::if_::if_indextoname};

use super::{has_tcx, tc};

const PROG_LOAD: libc::c_long = 5;
const LINK_CREATE: libc::c_long = 28;
const SCHED_CLS: u32 = 3;
const TCX_EGRESS: u32 = 47;
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
        return Pushing::Link(by_program(ifindex, vid));
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

fn by_program(ifindex: u32, vid: u16) -> [OwnedFd; 2] {
    // In the encoding of RFC 9669: r2 = 0x8100 in network byte order, r3 = vid, call, r0 = next, exit.
    let instructions = [
        0x0000_0081_0000_02b7,
        u64::from(vid) << 32 | 0x03b7,
        VLAN_PUSH << 32 | 0x0085,
        0xffff_ffff_0000_00b7,
        0x0095_u64,
    ];
    let license = c"GPL";
    // The heads of `union bpf_attr`, in words of eight bytes.
    let load = [
        u64::from(SCHED_CLS) | 5 << 32,
        instructions.as_ptr().addr() as u64,
        license.as_ptr().addr() as u64,
        0,
        0,
        0,
    ];
    let program = bpf(PROG_LOAD, &load).expect("the verifier takes it");
    let fd = u64::try_from(program.as_raw_fd()).expect("it is open");
    let link = [fd | u64::from(ifindex) << 32, u64::from(TCX_EGRESS)];
    let link = bpf(LINK_CREATE, &link).expect("it attaches");
    [program, link]
}

fn bpf<const N: usize>(command: libc::c_long, attributes: &[u64; N]) -> io::Result<OwnedFd> {
    // SAFETY: a head of `union bpf_attr`, readable for the size given; what it points to outlives
    // the call.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            attributes.as_ptr(),
            size_of_val(attributes),
        )
    };
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
