//! The lease's deadline: one word that this process and the kernel program share.

use std::{
    num::NonZeroUsize,
    os::fd::AsFd as _,
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

use aya::maps::{Map, MapError};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use vip_common::abi::{Lease, names};

use super::error::DataplaneError;

const LENGTH: NonZeroUsize = NonZeroUsize::new(size_of::<Lease>()).expect("a lease has a size");

/// The `LEASE` map, mapped: a store is one aligned 8-byte write, which the program sees whole. A
/// map update through the system call would copy bytes, with no such promise.
pub(super) struct LeaseWord(NonNull<AtomicU64>);

// SAFETY: the memory is shared by nature, and only touched atomically.
unsafe impl Send for LeaseWord {}

impl LeaseWord {
    pub fn map(map: Map) -> Result<Self, DataplaneError> {
        let failed =
            |errno: nix::Error| DataplaneError::map(names::LEASE, MapError::IoError(errno.into()));
        let Map::Array(data) = map else {
            return Err(DataplaneError::MapMissing { name: names::LEASE });
        };
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at a place of the kernel's choice; the map keeps its memory for as
        // long as it is mapped, also when the descriptor is closed.
        let memory = unsafe {
            mmap(
                None,
                LENGTH,
                protection,
                MapFlags::MAP_SHARED,
                data.fd().as_fd(),
                0,
            )
        }
        .map_err(failed)?;
        Ok(Self(memory.cast()))
    }

    pub fn store(&self, deadline_ns: u64) {
        self.word().store(deadline_ns, Ordering::SeqCst);
    }

    pub fn load(&self) -> u64 {
        self.word().load(Ordering::SeqCst)
    }

    fn word(&self) -> &AtomicU64 {
        // SAFETY: mapped for as long as `self` lives, at a page's start and so aligned; `Lease` is
        // one u64, of which any value is valid.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for LeaseWord {
    fn drop(&mut self) {
        // SAFETY: this is what `map` mapped, and no reference to it outlives `self`.
        let unmapped = unsafe { munmap(self.0.cast(), LENGTH.get()) };
        if let Err(error) = unmapped {
            tracing::warn!(%error, "the lease's map could not be unmapped");
        }
    }
}
