//! The least XDP program there is, for the switch's ports.
//!
//! A frame that a node sends back by `XDP_TX` reaches the other end of the veth pair only if that end runs an XDP program too. Two instructions need
//! neither a compiler nor an ELF, so they go to the kernel by the raw `bpf` system call. The links are pinned: they stand as long as the bed, also
//! when `demo --keep` leaves it behind.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use anyhow::{Context, Result};
use nix::libc;

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;
/// `r0 = XDP_PASS` and `exit`, in the instruction encoding of RFC 9669.
const PASS: [u64; 2] = [0x0000_0002_0000_00b7, 0x0000_0000_0000_0095];

/// The loaded program.
pub struct XdpPass {
    program: OwnedFd,
}

impl XdpPass {
    /// Loads it; fails with EPERM where BPF is not allowed.
    pub fn load() -> Result<XdpPass> {
        let license = CString::from(c"MIT");
        let attributes = ProgramLoad {
            program_type: BPF_PROG_TYPE_XDP,
            instruction_count: 2,
            instructions: address(PASS.as_ptr()),
            license: address(license.as_ptr()),
            ..ProgramLoad::default()
        };
        let program =
            bpf(BPF_PROG_LOAD, &attributes).context("loading the switch's XDP program")?;
        Ok(XdpPass { program })
    }

    /// Attaches it to an interface of the calling thread's network namespace and pins the link at `pin`, on a bpffs.
    pub fn attach(&self, ifindex: u32, pin: &Path) -> Result<()> {
        let attributes = LinkCreate {
            program_fd: descriptor(self.program.as_raw_fd())?,
            target_ifindex: ifindex,
            attach_type: BPF_XDP,
            flags: XDP_FLAGS_DRV_MODE,
        };
        let link = bpf(BPF_LINK_CREATE, &attributes).with_context(|| {
            format!("attaching the switch's XDP program to interface {ifindex}")
        })?;
        let path = CString::new(pin.as_os_str().as_encoded_bytes())?;
        let attributes = ObjectPin {
            path: address(path.as_ptr()),
            fd: descriptor(link.as_raw_fd())?,
            flags: 0,
        };
        bpf_call(BPF_OBJ_PIN, &attributes)
            .with_context(|| format!("pinning at {}", pin.display()))?;
        Ok(())
    }
}

/// The head of `union bpf_attr` for BPF_PROG_LOAD (linux/bpf.h).
#[repr(C)]
#[derive(Default)]
struct ProgramLoad {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
}

/// The head of `union bpf_attr` for BPF_LINK_CREATE.
#[repr(C)]
struct LinkCreate {
    program_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
}

/// The head of `union bpf_attr` for BPF_OBJ_PIN.
#[repr(C)]
struct ObjectPin {
    path: u64,
    fd: u32,
    flags: u32,
}

fn address<T>(pointer: *const T) -> u64 {
    pointer.addr() as u64
}

fn descriptor(fd: RawFd) -> Result<u32> {
    u32::try_from(fd).context("a file descriptor below zero")
}

fn bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<OwnedFd> {
    let fd = bpf_call(command, attributes)?;
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just returned this descriptor to us and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn bpf_call<T>(command: libc::c_long, attributes: &T) -> io::Result<libc::c_long> {
    // SAFETY: `attributes` is a repr(C) head of union bpf_attr, readable for the size given; the buffers it points to outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attributes),
            size_of::<T>(),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
