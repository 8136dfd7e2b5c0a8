//! What can go wrong with the kernel's half, and what a user should do about it.

use std::{io, path::PathBuf, time::Duration};

use aya::maps::MapError;

/// Why the kernel's half can't be had.
#[derive(Debug, thiserror::Error)]
pub enum DataplaneError {
    /// The object was not there at build time.
    #[error(
        "this vip-agent was built without its eBPF program; run `cargo xtask build-ebpf` and build \
         it again, or set `dataplane: kernel` on every interface to go without a gate"
    )]
    NotBuilt,
    /// Pins can only lie on a bpffs.
    #[error(
        "bpf-dir {}: this is not on a BPF file system; choose a directory below /sys/fs/bpf, and if \
         that is not one: mount -t bpf bpf /sys/fs/bpf", path.display()
    )]
    NotBpffs {
        /// The directory.
        path: PathBuf,
    },
    /// Another agent has it.
    #[error(
        "bpf-dir {}: another vip-agent is using it; stop that one first, or give this one a bpf-dir \
         of its own", path.display()
    )]
    Busy {
        /// The directory.
        path: PathBuf,
    },
    /// The maps are of a version that we can't take over from.
    #[error(
        "bpf-dir {}: its maps are of ABI v{found}, and this vip-agent (ABI v{ours}) {why}; stop the agent \
         that made them with SIGTERM, or run the `vip-agent cleanup` of its version; until then their \
         gates shut at the lease's deadline by themselves", path.display()
    )]
    OtherAbi {
        /// The directory.
        path: PathBuf,
        /// What stands there.
        found: u32,
        /// What we have.
        ours: u32,
        /// Why we can't.
        why: String,
    },
    /// The kernel does not let us.
    #[error(
        "the kernel refuses to {what}: {cause}; run as root, or with CAP_BPF, CAP_NET_ADMIN and \
         CAP_NET_RAW"
    )]
    Permission {
        /// What we wanted.
        what: String,
        /// Its answer.
        cause: io::Error,
    },
    /// The programs can't be loaded.
    #[error("the eBPF programs could not be loaded: {0}")]
    Load(String),
    /// The clocks differ.
    #[error(
        "the kernel's boot clock and this process's differ by {0:?}: the agent is in a time \
         namespace; run it outside of it"
    )]
    Clock(Duration),
    /// Another program is on the hook.
    #[error(
        "interface {interface}: another XDP program is attached to it (`ip -d link show {interface}` \
         names it); it stays where it is; take it off, or set `dataplane: tc`, which goes without XDP"
    )]
    Taken {
        /// The interface.
        interface: String,
    },
    /// The interface's driver or settings rule it out.
    #[error(
        "interface {interface}: {mode} XDP cannot be attached: {why}; `dataplane: tc` does without XDP"
    )]
    Attach {
        /// The interface.
        interface: String,
        /// What was tried.
        mode: String,
        /// Why not.
        why: String,
    },
    /// Neither by TCX nor by clsact.
    #[error("interface {interface}: the TC program cannot be attached: {why}")]
    Tc {
        /// The interface.
        interface: String,
        /// Why not.
        why: String,
    },
    /// The TC filters that stand can't be listed or removed.
    #[error("the agent's TC filters (`tc filter show dev … egress`, `ingress`): {0}")]
    Filters(String),
    /// A map can't be read or written.
    #[error("map {name}: {cause}")]
    Map {
        /// Which.
        name: &'static str,
        /// Why.
        cause: MapError,
    },
    /// The object lacks a map.
    #[error("the eBPF object has no map {name}; build it again with `cargo xtask build-ebpf`")]
    MapMissing {
        /// Which.
        name: &'static str,
    },
    /// More than the maps hold.
    #[error(
        "there are more shared IPs than the maps hold ({})",
        vip_common::abi::MAX_VIPS
    )]
    TooManyVips,
    /// A file or directory of the bpffs.
    #[error("bpf-dir: {}: {cause}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
}

impl DataplaneError {
    pub(super) fn map(name: &'static str, cause: MapError) -> Self {
        Self::Map { name, cause }
    }

    pub(super) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |cause| Self::Io { path, cause }
    }
}
