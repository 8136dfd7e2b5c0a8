//! Strangers: machines that no member is, and that claim a shared IP all the same.

use std::time::Duration;

use super::{record::Mac, time::BootInstant};

/// Between two defences of an address, and for as long as a stranger that was heard is taken to be
/// there still (RFC 5227 §1.1 and §2.4).
pub const DEFEND_INTERVAL: Duration = Duration::from_secs(10);

/// How one shared IP is to be kept apart from strangers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Conduct {
    /// Whether to ask the network before a claim of what was not seen to become vacant.
    pub probes: bool,
    /// Whether to leave the address to a stranger, instead of defending it.
    pub yields: bool,
    /// Whether its address may be there while another owns it.
    pub fenced: bool,
}

/// The stranger that was heard last, and what was done about it.
#[derive(Debug, Default)]
pub(super) struct Conflict {
    heard: Option<(Mac, BootInstant)>,
    defended_at: Option<BootInstant>,
    /// It was heard again too early for another defence: that follows.
    owes_defence: bool,
}

impl Conflict {
    /// It claims the address.
    pub fn hear(&mut self, mac: Mac, now: BootInstant) {
        self.heard = Some((mac, now));
    }

    /// Until when the stranger is taken to be there; that of one that was never heard has passed.
    pub fn lasts_until(&self) -> BootInstant {
        self.heard
            .map_or(BootInstant::BOOT, |(_, at)| at + DEFEND_INTERVAL)
    }

    /// Who was taken for a stranger is a member.
    pub fn forget(&mut self, is_member: impl Fn(Mac) -> bool) {
        if self.heard.is_some_and(|(mac, _)| is_member(mac)) {
            self.heard = None;
            self.owes_defence = false;
        }
    }

    /// Whether the address may be defended now, for the stranger was heard; if not, it is as soon as
    /// it may be.
    pub fn defends(&mut self, now: BootInstant) -> bool {
        let free_at = self.free_at();
        self.owes_defence = now < free_at;
        if !self.owes_defence {
            self.defended_at = Some(now);
        }
        !self.owes_defence
    }

    /// Whether a defence is due that could not be made when the stranger was heard.
    pub fn pays_defence(&mut self, now: BootInstant) -> bool {
        self.owes_defence && self.defends(now)
    }

    /// Nothing is to be defended any more.
    pub fn stand_down(&mut self) {
        self.owes_defence = false;
    }

    pub fn next_timeout(&self) -> BootInstant {
        if self.owes_defence {
            self.free_at()
        } else {
            BootInstant::BOOT
        }
    }

    fn free_at(&self) -> BootInstant {
        self.defended_at
            .map_or(BootInstant::BOOT, |at| at + DEFEND_INTERVAL)
    }
}
