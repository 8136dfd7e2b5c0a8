//! Onto the interfaces: the ladder from native to generic XDP, TC beside it, and links that an
//! earlier process pinned.

use std::{fmt, io, os::fd::AsFd as _};

use aya::programs::{
    ProgramError, SchedClassifier, TcAttachType, Xdp, XdpMode,
    links::{FdLink, LinkError, LinkOrder, PinnedLink},
    tc::{SchedClassifierLink, TcAttachOptions},
    xdp::XdpLink,
};
use nix::libc;
use vip_common::abi::names;

use super::{Dataplane, DataplaneMode, clsact::Place, error::DataplaneError, load};

/// What was attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attached {
    /// XDP in the driver.
    Native,
    /// XDP in the stack.
    Generic,
}

/// What was attached, and why nothing better.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The mode.
    pub mode: Attached,
    /// Why not a better one, if there is one.
    pub why_not_better: Option<String>,
}

impl fmt::Display for Attached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Generic => "generic",
        })
    }
}

impl Attached {
    const BEST_FIRST: [Self; 2] = [Self::Native, Self::Generic];

    fn xdp_mode(self) -> XdpMode {
        match self {
            Self::Native => XdpMode::Driver,
            Self::Generic => XdpMode::Skb,
        }
    }

    fn hook(self) -> &'static str {
        match self {
            Self::Native => "xdp-native",
            Self::Generic => "xdp-generic",
        }
    }

    fn serves(self, wanted: DataplaneMode) -> bool {
        match wanted {
            DataplaneMode::Auto => true,
            DataplaneMode::Native => self == Self::Native,
            DataplaneMode::Generic => self == Self::Generic,
            DataplaneMode::Kernel => false,
        }
    }
}

impl Dataplane {
    /// Attaches egress, then ingress, of an interface that carries shared IPs. A link that an
    /// earlier process pinned there gets the new program in place, without a frame in between
    /// that none saw.
    pub fn attach(
        &mut self,
        interface: &str,
        ifindex: u32,
        wanted: DataplaneMode,
    ) -> Result<Attachment, DataplaneError> {
        self.attach_tc(interface, ifindex, names::EGRESS, TcAttachType::Egress)?;
        if let Some(attachment) = self.adopt_xdp(interface, ifindex, wanted)? {
            return Ok(attachment);
        }
        let mut why_not_better = None;
        for mode in Attached::BEST_FIRST
            .into_iter()
            .filter(|mode| mode.serves(wanted))
        {
            match self.attach_xdp(interface, ifindex, mode)? {
                Ok(()) => {
                    return Ok(Attachment {
                        mode,
                        why_not_better,
                    });
                }
                Err(why) => why_not_better = Some(why),
            }
        }
        Err(DataplaneError::Attach {
            interface: interface.to_owned(),
            mode: wanted.to_string(),
            why: why_not_better.unwrap_or_else(|| "it was not asked for".to_owned()),
        })
    }

    /// Keeps another interface from speaking for the shared IPs. To do so again changes nothing.
    pub fn guard(&mut self, interface: &str, ifindex: u32) -> Result<(), DataplaneError> {
        self.attach_tc(interface, ifindex, names::EGRESS, TcAttachType::Egress)?;
        self.attach_tc(interface, ifindex, names::GUARD, TcAttachType::Ingress)
    }

    /// Lets go of an interface that has gone, or needs no guard any more.
    pub fn forget_interface(&mut self, ifindex: u32) {
        let names: Vec<String> = self
            .links
            .keys()
            .filter(|name| is_of(name, ifindex))
            .cloned()
            .collect();
        for name in names {
            self.links.remove(&name);
            if let Err(error) = self.pins.remove_link(&name) {
                tracing::warn!(%error, "a pin could not be removed");
            }
        }
        if let Err(error) = self.filters.forget_interface(ifindex) {
            tracing::warn!(%error, "a TC filter could not be removed");
        }
    }

    /// Detaches what an earlier process attached and this one has no use for. After that no program
    /// goes by the maps of an older version, and these go too.
    pub fn drop_unused_links(&mut self) -> Result<(), DataplaneError> {
        for name in self.pins.link_names()? {
            if !self.links.contains_key(&name) {
                tracing::info!(link = name, "detached: nothing needs it any more");
                self.pins.remove_link(&name)?;
            }
        }
        for ifindex in self
            .filters
            .drop_unused()
            .map_err(DataplaneError::Filters)?
        {
            tracing::info!(ifindex, "TC filters detached: nothing needs them any more");
        }
        self.leave_others()
    }

    fn adopt_xdp(
        &mut self,
        interface: &str,
        ifindex: u32,
        wanted: DataplaneMode,
    ) -> Result<Option<Attachment>, DataplaneError> {
        for mode in Attached::BEST_FIRST {
            let pin = self.pin_of(interface, ifindex, mode.hook());
            // It is ours, whatever became of its pin.
            if self.links.contains_key(&pin) {
                return Ok(Some(Attachment {
                    mode,
                    why_not_better: None,
                }));
            }
            let Some(link) = self.pinned(&pin) else {
                continue;
            };
            let adopted = if mode.serves(wanted) {
                self.swap_xdp(link).map_err(|error| error.to_string())
            } else {
                Err(format!("{wanted} is asked for"))
            };
            match adopted {
                Ok(link) => {
                    self.links.insert(pin, link);
                    let why = "it was attached so by the process before, and no mode is changed under way";
                    let why_not_better = (mode != Attached::BEST_FIRST[0]).then(|| why.to_owned());
                    return Ok(Some(Attachment {
                        mode,
                        why_not_better,
                    }));
                }
                Err(why) => {
                    tracing::info!(interface, link = pin, why, "attaching anew");
                    self.pins.remove_link(&pin)?;
                }
            }
        }
        Ok(None)
    }

    /// The inner error is a reason to try the next rung.
    fn attach_xdp(
        &mut self,
        interface: &str,
        ifindex: u32,
        mode: Attached,
    ) -> Result<Result<(), String>, DataplaneError> {
        let program = load::xdp(&mut self.programs, names::XDP)?;
        let link = match new_xdp_link(program, ifindex, mode) {
            Ok(link) => link,
            Err(error) => {
                let code = errno(&error);
                if matches!(code, Some(libc::EBUSY | libc::EEXIST)) {
                    return Err(DataplaneError::Taken {
                        interface: interface.to_owned(),
                    });
                }
                return Ok(Err(explain(mode, code, &error)));
            }
        };
        let pin = pin_name(interface, ifindex, mode.hook());
        self.pin(pin, link)?;
        Ok(Ok(()))
    }

    fn attach_tc(
        &mut self,
        interface: &str,
        ifindex: u32,
        program: &'static str,
        hook: TcAttachType,
    ) -> Result<(), DataplaneError> {
        let suffix = if program == names::GUARD {
            "guard"
        } else {
            "egress"
        };
        let pin = self.pin_of(interface, ifindex, suffix);
        let place = Place { ifindex, program };
        if self.links.contains_key(&pin) || self.filters.holds(place) {
            return Ok(());
        }
        if let Some(link) = self.pinned(&pin) {
            match swap_tc(load::classifier(&mut self.programs, program)?, link) {
                Ok(link) => {
                    self.links.insert(pin, link);
                    return Ok(());
                }
                Err(error) => {
                    tracing::info!(interface, link = pin, %error, "attaching anew");
                    self.pins.remove_link(&pin)?;
                }
            }
        }
        let refused = |why| DataplaneError::Tc {
            interface: interface.to_owned(),
            why,
        };
        let classifier = load::classifier(&mut self.programs, program)?;
        if self.tcx {
            match new_tc_link(classifier, interface, hook) {
                Ok(link) => return self.pin(pin, link),
                // Linux before 6.6 does not know what this asks for.
                Err(error) if errno(&error) == Some(libc::EINVAL) => {}
                Err(error) => return Err(refused(error.to_string())),
            }
        }
        let known = |error: ProgramError| refused(error.to_string());
        let id = classifier.info().map_err(known)?.id();
        let fd = classifier.fd().map_err(known)?;
        self.filters
            .attach(place, hook, fd.as_fd(), id)
            .map_err(refused)?;
        tracing::info!(
            interface,
            program,
            "attached as a filter of clsact: this kernel has no TCX"
        );
        Ok(())
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

    /// The pin of a hook: the one that stands, for the interface may have had another name.
    fn pin_of(&self, interface: &str, ifindex: u32, hook: &str) -> String {
        let end = format!("-{ifindex}-{hook}");
        let standing = self.pins.link_names().unwrap_or_default();
        let mut known = self.links.keys().chain(&standing);
        let found = known.find(|name| name.ends_with(&end)).cloned();
        found.unwrap_or_else(|| pin_name(interface, ifindex, hook))
    }

    fn pinned(&self, name: &str) -> Option<FdLink> {
        PinnedLink::from_pin(self.pins.link(name))
            .ok()
            .map(FdLink::from)
    }

    fn pin(&mut self, name: String, link: FdLink) -> Result<(), DataplaneError> {
        let path = self.pins.link(&name);
        let pinned = link
            .pin(&path)
            .map_err(|error| DataplaneError::io(path)(io::Error::other(error)))?;
        self.links.insert(name, pinned.into());
        Ok(())
    }
}

fn new_xdp_link(program: &mut Xdp, ifindex: u32, mode: Attached) -> Result<FdLink, ProgramError> {
    let id = program.attach_to_if_index(ifindex, mode.xdp_mode())?;
    // A kernel without XDP links (before 5.9) gets none that could be pinned; dropping it detaches.
    program.take_link(id)?.try_into().map_err(link_error)
}

fn new_tc_link(
    program: &mut SchedClassifier,
    interface: &str,
    hook: TcAttachType,
) -> Result<FdLink, ProgramError> {
    let order = TcAttachOptions::TcxOrder(LinkOrder::default());
    let id = program.attach_with_options(interface, hook, order)?;
    program.take_link(id)?.try_into().map_err(link_error)
}

fn swap_tc(program: &mut SchedClassifier, link: FdLink) -> Result<FdLink, ProgramError> {
    let link = SchedClassifierLink::try_from(link).map_err(link_error)?;
    let id = program.attach_to_link(link)?;
    program.take_link(id)?.try_into().map_err(link_error)
}

fn link_error(error: LinkError) -> ProgramError {
    match error {
        LinkError::SyscallError(error) => ProgramError::SyscallError(error),
        _ => ProgramError::UnexpectedProgramType,
    }
}

/// On a bpffs a name may hold no dot, which interfaces' names may.
fn pin_name(interface: &str, ifindex: u32, hook: &str) -> String {
    format!("{}-{ifindex}-{hook}", interface.replace('.', "_"))
}

fn is_of(pin: &str, ifindex: u32) -> bool {
    ifindex_of(pin) == Some(ifindex)
}

pub(super) fn ifindex_of(pin: &str) -> Option<u32> {
    let hooks = ["-xdp-native", "-xdp-generic", "-egress", "-guard"];
    let rest = hooks.iter().find_map(|hook| pin.strip_suffix(hook))?;
    rest.rsplit_once('-')?.1.parse().ok()
}

fn errno(error: &ProgramError) -> Option<i32> {
    match error {
        ProgramError::SyscallError(error) => error.io_error.raw_os_error(),
        _ => None,
    }
}

fn explain(mode: Attached, code: Option<i32>, error: &ProgramError) -> String {
    match code {
        Some(libc::EOPNOTSUPP) => format!("the driver has no {mode} XDP"),
        Some(libc::ERANGE) => format!("the MTU is too large for {mode} XDP of this driver"),
        Some(libc::EPERM) => {
            format!("{mode} XDP: not permitted; run as root or with CAP_NET_ADMIN")
        }
        Some(code) => format!("{mode} XDP: {}", io::Error::from_raw_os_error(code)),
        None => format!("{mode} XDP: {error}"),
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
    }
}
