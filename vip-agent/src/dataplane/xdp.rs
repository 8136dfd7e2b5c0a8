//! XDP, in the driver or in the stack: links that are pinned, and those that an earlier process pinned.

use std::io;

use aya::programs::{ProgramError, Xdp, XdpMode, links::FdLink, xdp::XdpLink};
use nix::libc;
use vip_common::abi::names;

use super::{
    Dataplane,
    error::DataplaneError,
    hook::{errno, link_error, pin_name},
    load,
};

/// Why a rung could not be had.
pub(super) enum NotAttached {
    /// Another program is on the hook.
    Taken,
    /// Anything else.
    Refused(String),
}

impl Dataplane {
    /// Whether this process has attached it, or adopted it.
    pub(super) fn holds_xdp(&self, interface: &str, ifindex: u32, mode: XdpMode) -> bool {
        let pin = self.pin_of(interface, ifindex, hook_of(mode));
        self.links.contains_key(&pin)
    }

    /// Puts the new program in the place of the one that stands there, if one does. What is not wanted
    /// any more goes, for another XDP program could not be attached beside it.
    pub(super) fn adopt_xdp(
        &mut self,
        interface: &str,
        ifindex: u32,
        mode: XdpMode,
        is_wanted: bool,
    ) -> Result<bool, DataplaneError> {
        // It is ours, whatever became of its pin.
        if self.holds_xdp(interface, ifindex, mode) {
            return Ok(true);
        }
        let pin = self.pin_of(interface, ifindex, hook_of(mode));
        let Some(link) = self.pinned(&pin) else {
            return Ok(false);
        };
        let adopted = if is_wanted {
            self.swap_xdp(link).map_err(|error| error.to_string())
        } else {
            Err("another mode is asked for".to_owned())
        };
        match adopted {
            Ok(link) => {
                self.links.insert(pin, link);
                Ok(true)
            }
            Err(why) => {
                tracing::info!(interface, link = pin, why, "attaching anew");
                self.pins.remove_link(&pin)?;
                Ok(false)
            }
        }
    }

    /// The inner error is a reason to try the next rung.
    pub(super) fn attach_xdp(
        &mut self,
        interface: &str,
        ifindex: u32,
        mode: XdpMode,
    ) -> Result<Result<(), NotAttached>, DataplaneError> {
        let program = load::xdp(&mut self.programs, names::XDP)?;
        match new_xdp_link(program, ifindex, mode) {
            Ok(link) => {
                let pin = pin_name(interface, ifindex, hook_of(mode));
                self.pin(pin, link).map(Ok)
            }
            Err(error) => Ok(Err(explain(mode, &error))),
        }
    }

    fn swap_xdp(&mut self, link: FdLink) -> Result<FdLink, ProgramError> {
        let program: &mut Xdp = self
            .programs
            .program_mut(names::XDP)
            .ok_or(ProgramError::NotLoaded)?
            .try_into()?;
        let id = program.attach_to_link(XdpLink::try_from(link).map_err(link_error)?)?;
        program.take_link(id)?.try_into().map_err(link_error)
    }
}

fn new_xdp_link(program: &mut Xdp, ifindex: u32, mode: XdpMode) -> Result<FdLink, ProgramError> {
    let id = program.attach_to_if_index(ifindex, mode)?;
    // A kernel without XDP links (before 5.9) gets none that could be pinned; dropping it detaches.
    program.take_link(id)?.try_into().map_err(link_error)
}

fn hook_of(mode: XdpMode) -> &'static str {
    match mode {
        XdpMode::Skb => "xdp-generic",
        _ => "xdp-native",
    }
}

fn explain(mode: XdpMode, error: &ProgramError) -> NotAttached {
    let mode = match mode {
        XdpMode::Skb => "generic",
        _ => "native",
    };
    NotAttached::Refused(match errno(error) {
        Some(libc::EBUSY | libc::EEXIST) => return NotAttached::Taken,
        Some(libc::EOPNOTSUPP) => format!("the driver has no {mode} XDP"),
        Some(libc::ERANGE) => format!("the MTU is too large for {mode} XDP of this driver"),
        Some(libc::EPERM) => {
            format!("{mode} XDP: not permitted; run as root or with CAP_NET_ADMIN")
        }
        Some(code) => format!("{mode} XDP: {}", io::Error::from_raw_os_error(code)),
        None => format!("{mode} XDP: {error}"),
    })
}
