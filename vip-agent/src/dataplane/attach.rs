//! Onto the interfaces: the ladder from native to generic XDP to TC, and the fence beside it.

use std::fmt;

use aya::programs::XdpMode;

use super::{
    Dataplane, DataplaneMode, error::DataplaneError, hook::is_of, offload, tc::Hook,
    xdp::NotAttached,
};

/// What was attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attached {
    /// XDP in the driver.
    Native,
    /// XDP in the stack.
    Generic,
    /// TC in the stack, beside what others have attached.
    Tc,
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
            Self::Tc => "tc",
        })
    }
}

impl Attached {
    const BEST_FIRST: [Self; 3] = [Self::Native, Self::Generic, Self::Tc];

    /// How XDP is attached so; TC is no mode of it.
    fn xdp_mode(self) -> Option<XdpMode> {
        match self {
            Self::Native => Some(XdpMode::Driver),
            Self::Generic => Some(XdpMode::Skb),
            Self::Tc => None,
        }
    }

    fn serves(self, wanted: DataplaneMode) -> bool {
        match wanted {
            DataplaneMode::Auto => true,
            DataplaneMode::Native => self == Self::Native,
            DataplaneMode::Generic => self == Self::Generic,
            DataplaneMode::Tc => self == Self::Tc,
            DataplaneMode::Kernel => false,
        }
    }
}

impl Dataplane {
    /// Attaches egress, then ingress, of an interface that carries shared IPs. What an earlier
    /// process attached there gets the new program in place, without a frame in between
    /// that none saw.
    pub fn attach(
        &mut self,
        interface: &str,
        ifindex: u32,
        wanted: DataplaneMode,
    ) -> Result<Attachment, DataplaneError> {
        self.attach_tc(interface, ifindex, Hook::Egress)?;
        if let Some(attachment) = self.adopt(interface, ifindex, wanted)? {
            return Ok(attachment);
        }
        let mut reasons: Vec<String> = Vec::new();
        for mode in Attached::BEST_FIRST
            .into_iter()
            .filter(|mode| mode.serves(wanted))
        {
            let why = match self.attach_ingress(interface, ifindex, mode)? {
                Ok(()) => {
                    let why_not_better = (!reasons.is_empty()).then(|| reasons.join("; "));
                    return Ok(Attachment {
                        mode,
                        why_not_better,
                    });
                }
                Err(NotAttached::Taken) if wanted != DataplaneMode::Auto => {
                    return Err(DataplaneError::Taken {
                        interface: interface.to_owned(),
                    });
                }
                Err(NotAttached::Taken) => format!(
                    "another XDP program is attached to it (`ip -d link show {interface}` names it)"
                ),
                Err(NotAttached::Refused(why)) => why,
            };
            if !reasons.contains(&why) {
                reasons.push(why);
            }
        }
        if reasons.is_empty() {
            reasons.push("it was not asked for".to_owned());
        }
        Err(DataplaneError::Attach {
            interface: interface.to_owned(),
            mode: wanted.to_string(),
            why: reasons.join("; "),
        })
    }

    /// Keeps another interface from speaking for the shared IPs. To do so again changes nothing.
    pub fn guard(&mut self, interface: &str, ifindex: u32) -> Result<(), DataplaneError> {
        self.attach_tc(interface, ifindex, Hook::Egress)?;
        self.attach_tc(interface, ifindex, Hook::Guard)
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

    /// Goes on with what this process has attached, or an earlier one has left.
    fn adopt(
        &mut self,
        interface: &str,
        ifindex: u32,
        wanted: DataplaneMode,
    ) -> Result<Option<Attachment>, DataplaneError> {
        for mode in Attached::BEST_FIRST {
            let serves = mode.serves(wanted) && misread(interface, mode).is_none();
            let (is_there, is_new) = match mode.xdp_mode() {
                // It goes with all that is unused, when TC has taken its place.
                Some(_) if wanted == DataplaneMode::Tc => (false, false),
                Some(xdp) => {
                    let is_new = !self.holds_xdp(interface, ifindex, xdp);
                    (self.adopt_xdp(interface, ifindex, xdp, serves)?, is_new)
                }
                None if self.holds_tc(interface, ifindex, Hook::Ingress) => (true, false),
                None if serves && self.finds_tc(interface, ifindex, Hook::Ingress) => {
                    self.attach_tc(interface, ifindex, Hook::Ingress)?;
                    (true, true)
                }
                None => (false, false),
            };
            if is_there {
                let is_best = mode == Attached::BEST_FIRST[0] || wanted != DataplaneMode::Auto;
                let why_not_better = (is_new && !is_best).then(|| {
                    "it was attached so by the process before, and no mode is changed under way"
                        .to_owned()
                });
                return Ok(Some(Attachment {
                    mode,
                    why_not_better,
                }));
            }
        }
        Ok(None)
    }

    /// The inner error is a reason to try the next rung.
    fn attach_ingress(
        &mut self,
        interface: &str,
        ifindex: u32,
        mode: Attached,
    ) -> Result<Result<(), NotAttached>, DataplaneError> {
        let Some(xdp) = mode.xdp_mode() else {
            return self.attach_tc(interface, ifindex, Hook::Ingress).map(Ok);
        };
        if let Some(why) = misread(interface, mode) {
            return Ok(Err(NotAttached::Refused(why)));
        }
        self.attach_xdp(interface, ifindex, xdp)
    }
}

/// Why the program would take frames for what they are not, if it would.
fn misread(interface: &str, mode: Attached) -> Option<String> {
    match mode {
        Attached::Native if offload::hands_xdp_down(interface) => Some(
            "native XDP of a bond, or of Hyper-V's NIC, runs on the interfaces below it, and takes \
             its frames for theirs"
                .to_owned(),
        ),
        Attached::Generic if offload::is_handed_frames(interface) => Some(
            "generic XDP would take tagged frames for untagged ones, for the interface gets its frames \
             from others, without their VLAN tags"
                .to_owned(),
        ),
        Attached::Generic if offload::strips_vlan_tags(interface) => Some(format!(
            "generic XDP would take tagged frames for untagged ones, for the interface strips VLAN tags \
             (`ethtool -K {interface} rxvlan off` ends that)"
        )),
        Attached::Native | Attached::Generic | Attached::Tc => None,
    }
}
