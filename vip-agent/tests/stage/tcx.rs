//! Programs of others, on TCX.

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
};

use nix::libc;

const PROG_LOAD: libc::c_long = 5;
const LINK_CREATE: libc::c_long = 28;
const SCHED_CLS: u32 = 3;
const TCX_EGRESS: u32 = 47;

/// Attaches a program that accepts every frame, so that those behind it see none (`TCX_PASS`), to an
/// interface's egress.
pub fn accept_all_on_egress(ifindex: u32) -> [OwnedFd; 2] {
    // r0 = 0, exit.
    attach_on_egress(ifindex, &[0x00b7, 0x0095])
}

/// Attaches a program to an interface's egress until what is returned is dropped; the instructions are in
/// the encoding of RFC 9669.
pub fn attach_on_egress(ifindex: u32, instructions: &[u64]) -> [OwnedFd; 2] {
    let count = u64::try_from(instructions.len()).expect("there are few");
    let license = c"GPL";
    // The heads of `union bpf_attr`, in words of eight bytes.
    let load = [
        u64::from(SCHED_CLS) | count << 32,
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
