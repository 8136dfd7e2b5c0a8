//! What others on the machine may undo behind an agent's back, done to a node by hand.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::libc;
use nix::mount::{MsFlags, mount};

use crate::node::Node;

const BPF_OBJ_GET: i32 = 7;
const BPF_LINK_DETACH: i32 = 34;

/// Detaches the program of an agent's link, as `bpftool link detach` does. `hook` is how its pin's name ends.
pub fn detach(node: &Node, hook: &str) -> Result<()> {
    let pins = node.pins()?;
    let pin = pins.iter().find(|pin| pin.ends_with(hook));
    let pin = node
        .bpffs()
        .join(pin.with_context(|| format!("no pin ends with {hook}: {pins:?}"))?);
    detach_link(&pin).with_context(|| format!("detaching {}", pin.display()))
}

/// Removes every pin of a node's agent; returns what there was.
pub fn remove_pins(node: &Node) -> Result<Vec<String>> {
    let pins = node.pins()?;
    ensure!(!pins.is_empty(), "{} has no pins", node.name());
    fs::remove_dir_all(node.bpf_dir())?;
    Ok(pins)
}

/// Has a node's state directory lie on a file system of a few pages, which [`fill`] fills.
pub fn put_state_on_a_small_disk(node: &Node) -> Result<()> {
    let path = node.state_dir();
    fs::create_dir_all(&path)?;
    mount(
        Some("vip-testbed"),
        &path,
        Some("tmpfs"),
        MsFlags::empty(),
        Some("size=32k"),
    )
    .with_context(|| format!("mounting a tmpfs at {}", path.display()))
}

/// Writes into a directory until its file system has no room left; returns the file that takes it.
pub fn fill(directory: &Path) -> Result<PathBuf> {
    let path = directory.join("ballast");
    let mut file = File::create(&path)?;
    loop {
        match file.write_all(&[0; 512]) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(path),
            Err(error) => return Err(error).with_context(|| format!("filling {}", path.display())),
        }
    }
}

fn detach_link(pin: &Path) -> Result<()> {
    let path = CString::new(pin.as_os_str().as_bytes())?;
    let link = bpf(BPF_OBJ_GET, [path.as_ptr().expose_provenance() as u64, 0])?;
    // SAFETY: the kernel has just made it, for us alone.
    let link = unsafe { OwnedFd::from_raw_fd(link) };
    // The first 32 bits are `link_fd`.
    let mut first = [0; 8];
    first[..4].copy_from_slice(&link.as_raw_fd().to_ne_bytes());
    bpf(BPF_LINK_DETACH, [u64::from_ne_bytes(first), 0])?;
    Ok(())
}

fn bpf(command: i32, attributes: [u64; 2]) -> Result<i32> {
    // SAFETY: the kernel reads the attributes, and the path that the first of them may point to, which the caller holds; it writes to neither.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            attributes.as_ptr(),
            size_of_val(&attributes),
        )
    };
    if answer < 0 {
        return Err(io::Error::last_os_error().into());
    }
    Ok(i32::try_from(answer)?)
}
