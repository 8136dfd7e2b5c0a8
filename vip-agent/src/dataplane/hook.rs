//! Pinned links, and what their pins are called: interface, index, hook.

use std::io;

use aya::programs::{
    ProgramError,
    links::{FdLink, LinkError, PinnedLink},
};

use super::{Dataplane, error::DataplaneError};

/// The hooks that there are.
const HOOKS: [&str; 5] = ["xdp-native", "xdp-generic", "ingress", "egress", "guard"];

impl Dataplane {
    /// The pin of a hook: the one that stands, for the interface may have had another name.
    pub(super) fn pin_of(&self, interface: &str, ifindex: u32, hook: &str) -> String {
        let end = format!("-{ifindex}-{hook}");
        let standing = self.pins.link_names().unwrap_or_default();
        let mut known = self.links.keys().chain(&standing);
        let found = known.find(|name| name.ends_with(&end)).cloned();
        found.unwrap_or_else(|| pin_name(interface, ifindex, hook))
    }

    pub(super) fn pinned(&self, name: &str) -> Option<FdLink> {
        PinnedLink::from_pin(self.pins.link(name))
            .ok()
            .map(FdLink::from)
    }

    pub(super) fn pin(&mut self, name: String, link: FdLink) -> Result<(), DataplaneError> {
        let path = self.pins.link(&name);
        let pinned = link
            .pin(&path)
            .map_err(|error| DataplaneError::io(path)(io::Error::other(error)))?;
        self.links.insert(name, pinned.into());
        Ok(())
    }
}

/// On a bpffs a name may hold no dot, which interfaces' names may.
pub(super) fn pin_name(interface: &str, ifindex: u32, hook: &str) -> String {
    format!("{}-{ifindex}-{hook}", interface.replace('.', "_"))
}

pub(super) fn is_of(pin: &str, ifindex: u32) -> bool {
    ifindex_of(pin) == Some(ifindex)
}

pub(super) fn ifindex_of(pin: &str) -> Option<u32> {
    let of_hook = |hook: &&str| pin.strip_suffix(*hook)?.strip_suffix('-');
    let rest = HOOKS.iter().find_map(of_hook)?;
    rest.rsplit_once('-')?.1.parse().ok()
}

pub(super) fn link_error(error: LinkError) -> ProgramError {
    match error {
        LinkError::SyscallError(error) => ProgramError::SyscallError(error),
        _ => ProgramError::UnexpectedProgramType,
    }
}

pub(super) fn errno(error: &ProgramError) -> Option<i32> {
    match error {
        ProgramError::SyscallError(error) => error.io_error.raw_os_error(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_found_by_its_interface_and_by_no_other() {
        let pin = pin_name("eth0.100", 12, "egress");
        assert_eq!(pin, "eth0_100-12-egress");
        assert!(is_of(&pin, 12));
        assert!(!is_of(&pin, 2));
        assert!(is_of("a-2-b-3-xdp-native", 3));
        assert!(!is_of("a-2-b-3-xdp-native", 2));
        assert!(is_of("eth0-4-ingress", 4));
    }
}
