//! TC: links of TCX that are pinned, and filters where the kernel has no TCX.

use std::os::fd::AsFd as _;

use aya::programs::{
    ProgramError, SchedClassifier, TcAttachType,
    links::{FdLink, LinkOrder},
    tc::{SchedClassifierLink, TcAttachOptions},
};
use nix::libc;
use vip_common::abi::names;

use super::{
    Dataplane,
    clsact::Place,
    error::DataplaneError,
    hook::{errno, link_error},
    load,
};

/// What a TC program is attached for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hook {
    Ingress,
    Egress,
    Guard,
}

impl Hook {
    fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
            Self::Guard => "guard",
        }
    }

    fn program(self) -> &'static str {
        match self {
            Self::Ingress => names::INGRESS,
            Self::Egress => names::EGRESS,
            Self::Guard => names::GUARD,
        }
    }

    fn side(self) -> TcAttachType {
        match self {
            Self::Ingress | Self::Guard => TcAttachType::Ingress,
            Self::Egress => TcAttachType::Egress,
        }
    }
}

impl Dataplane {
    /// Whether this process has attached it, or adopted it.
    pub(super) fn holds_tc(&self, interface: &str, ifindex: u32, hook: Hook) -> bool {
        let pin = self.pin_of(interface, ifindex, hook.name());
        let program = hook.program();
        self.links.contains_key(&pin) || self.filters.holds(Place { ifindex, program })
    }

    /// Whether an earlier process has left it.
    pub(super) fn finds_tc(&self, interface: &str, ifindex: u32, hook: Hook) -> bool {
        let pin = self.pin_of(interface, ifindex, hook.name());
        let program = hook.program();
        self.pins.link(&pin).exists() || self.filters.finds(Place { ifindex, program }, hook.side())
    }

    /// To do so again changes nothing.
    pub(super) fn attach_tc(
        &mut self,
        interface: &str,
        ifindex: u32,
        hook: Hook,
    ) -> Result<(), DataplaneError> {
        if self.holds_tc(interface, ifindex, hook) {
            return Ok(());
        }
        let program = hook.program();
        let pin = self.pin_of(interface, ifindex, hook.name());
        let place = Place { ifindex, program };
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
            match new_tc_link(classifier, interface, hook.side()) {
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
            .attach(place, hook.side(), fd.as_fd(), id)
            .map_err(refused)?;
        tracing::info!(
            interface,
            program,
            "attached as a filter of clsact: this kernel has no TCX"
        );
        Ok(())
    }
}

fn new_tc_link(
    program: &mut SchedClassifier,
    interface: &str,
    side: TcAttachType,
) -> Result<FdLink, ProgramError> {
    // A program that accepts a frame keeps it from those behind it; ours never accepts.
    let order = TcAttachOptions::TcxOrder(LinkOrder::first());
    let id = program.attach_with_options(interface, side, order)?;
    program.take_link(id)?.try_into().map_err(link_error)
}

fn swap_tc(program: &mut SchedClassifier, link: FdLink) -> Result<FdLink, ProgramError> {
    let link = SchedClassifierLink::try_from(link).map_err(link_error)?;
    let id = program.attach_to_link(link)?;
    program.take_link(id)?.try_into().map_err(link_error)
}
