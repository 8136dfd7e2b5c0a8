//! Whether all that was attached and pinned still is: anybody with the right to can detach a link, or
//! remove a pin.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use aya::{
    maps::{Map, MapData},
    programs::links::FdLink,
};
use nix::libc;

use super::{Dataplane, error::DataplaneError, hook::ifindex_of};

/// What was found amiss.
#[derive(Debug)]
pub enum Amiss {
    /// A program was detached. Its link is forgotten: attach again.
    Detached {
        /// The interface's index.
        ifindex: u32,
        /// The name of its pin, which tells the hook, or of the program where it has none.
        link: String,
    },
    /// Pins were removed, and are there again.
    PinsRestored(Vec<String>),
    /// Pins were removed, and could not be made again.
    PinsMissing(DataplaneError),
}

/// The commands and structures of `linux/bpf.h` that the library keeps to itself.
mod abi {
    pub const BPF_OBJ_PIN: i32 = 6;
    pub const BPF_OBJ_GET_INFO_BY_FD: i32 = 15;
    pub const BPF_LINK_GET_FD_BY_ID: i32 = 30;
    /// Where `struct bpf_link_info` has the `ifindex` of an XDP or TCX link, in words.
    pub const IFINDEX: usize = 4;
}

/// `union bpf_attr`, as far as these commands read it.
#[repr(C, align(8))]
#[derive(Default)]
struct Attributes {
    first: [u32; 2],
    pointer: u64,
}

impl Dataplane {
    /// Looks whether links are attached and pins are there. Costs a few system calls each.
    pub fn look_after(&mut self) -> Vec<Amiss> {
        let mut found = Vec::new();
        let names: Vec<String> = self.links.keys().cloned().collect();
        for name in names {
            let detached = self.links.get(&name).is_some_and(is_detached);
            if let (true, Some(ifindex)) = (detached, ifindex_of(&name)) {
                self.links.remove(&name);
                // A pin of a link that is attached to nothing is of no use to anybody.
                if let Err(error) = self.pins.remove_link(&name) {
                    tracing::warn!(%error, "a pin could not be removed");
                }
                found.push(Amiss::Detached {
                    ifindex,
                    link: name,
                });
            }
        }
        for place in self.filters.look_after() {
            found.push(Amiss::Detached {
                ifindex: place.ifindex,
                link: place.program.to_owned(),
            });
        }
        match self.restore_pins() {
            Ok(restored) if restored.is_empty() => {}
            Ok(restored) => found.push(Amiss::PinsRestored(restored)),
            Err(error) => found.push(Amiss::PinsMissing(error)),
        }
        found
    }

    fn restore_pins(&mut self) -> Result<Vec<String>, DataplaneError> {
        let mut restored = Vec::new();
        if self.pins.restore_directories()? {
            restored.push(self.pins.root().display().to_string());
        }
        for (name, id) in &self.map_ids {
            let path = self.pins.map(name);
            if !path.exists() {
                let map =
                    MapData::from_id(*id).map_err(|cause| DataplaneError::map(name, cause))?;
                map.pin(&path)
                    .map_err(|error| DataplaneError::io(&path)(io::Error::other(error)))?;
                restored.push((*name).to_owned());
            }
        }
        for (name, link) in &self.links {
            let path = self.pins.link(name);
            if !path.exists() {
                pin(link, &path).map_err(DataplaneError::io(&path))?;
                restored.push(name.clone());
            }
        }
        Ok(restored)
    }
}

/// By which the kernel knows a map.
pub(super) fn id_of(map: &Map, name: &'static str) -> Result<u32, DataplaneError> {
    match map {
        Map::Array(data) | Map::HashMap(data) | Map::PerCpuArray(data) | Map::RingBuf(data) => data
            .info()
            .map(|info| info.id())
            .map_err(|cause| DataplaneError::map(name, cause)),
        _ => Err(DataplaneError::MapMissing { name }),
    }
}

/// What can't be told counts as attached: the interface would be given up for nothing.
fn is_detached(link: &FdLink) -> bool {
    attached_to(link).is_ok_and(|ifindex| ifindex == 0)
}

fn attached_to(link: &FdLink) -> io::Result<u32> {
    let fd = descriptor(link)?;
    let mut info = [0_u32; 64];
    let attributes = Attributes {
        first: [
            u32::try_from(fd.as_raw_fd()).unwrap_or(u32::MAX),
            u32::try_from(size_of_val(&info)).unwrap_or(0),
        ],
        pointer: info.as_mut_ptr().expose_provenance() as u64,
    };
    bpf(abi::BPF_OBJ_GET_INFO_BY_FD, &attributes)?;
    Ok(info[abi::IFINDEX])
}

/// Unlike the library's own pinning this leaves the link attached if it fails.
fn pin(link: &FdLink, path: &Path) -> io::Result<()> {
    let fd = descriptor(link)?;
    let path = CString::new(path.as_os_str().as_bytes())?;
    let attributes = PinAttributes {
        path: path.as_ptr().expose_provenance() as u64,
        fd: fd.as_raw_fd(),
        flags: 0,
    };
    bpf(abi::BPF_OBJ_PIN, &attributes).map(drop)
}

#[repr(C)]
struct PinAttributes {
    path: u64,
    fd: i32,
    flags: u32,
}

/// The library does not give its own away.
fn descriptor(link: &FdLink) -> io::Result<OwnedFd> {
    let id = link.info().map_err(io::Error::other)?.id();
    let attributes = Attributes {
        first: [id, 0],
        ..Attributes::default()
    };
    let fd = bpf(abi::BPF_LINK_GET_FD_BY_ID, &attributes)?;
    // SAFETY: the kernel has just made it, for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn bpf<T>(command: i32, attributes: &T) -> io::Result<i32> {
    let size = size_of::<T>();
    let attributes: *const T = attributes;
    // SAFETY: the kernel reads `size` bytes of the attributes, and writes only where they point to:
    // to `info` of `attached_to`, and not past the length that is said there.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size) };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(answer).map_err(io::Error::other)
}
