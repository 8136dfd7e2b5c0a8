//! The question to the network before a claim: does anybody have this address?

use std::{hash::Hasher as _, net::IpAddr, time::Duration};

use siphasher::sip::SipHasher13;

use super::time::BootInstant;

/// `PROBE_NUM` of RFC 5227 §1.1.
const PROBES: u32 = 3;
/// Until a question whose time has come is looked at again.
const SOON: Duration = Duration::from_millis(1);

/// How far the question has come.
#[derive(Debug, Default)]
pub(super) enum Probe {
    /// It is to be asked.
    #[default]
    Due,
    /// It is being asked.
    Asking(Asking),
    /// It was asked, and nobody answered.
    Unanswered,
}

/// Three probes and a silence, of a length of time that ends when the address may be claimed: asked
/// earlier it would be answered too early.
#[derive(Debug)]
pub(super) struct Asking {
    /// When the address was to be claimed, as far as was known when this was planned.
    claim_at: BootInstant,
    step: Duration,
    sent: u32,
    next_at: BootInstant,
    over_at: BootInstant,
}

/// What a question needs to know of the node around it.
pub(super) struct Asker {
    pub now: BootInstant,
    /// When the address may be claimed if nobody answers.
    pub claim_at: BootInstant,
    /// How long a question takes: two thirds of it at least, where there is little time left.
    pub span: Duration,
    /// Whether all answers that have come were told.
    pub heard_all: bool,
    /// Differs from node to node.
    pub seed: u64,
    pub ip: IpAddr,
}

impl Probe {
    /// Takes the question as far as it may come now. Whether a probe is to be sent.
    pub fn advance(&mut self, asker: &Asker) -> bool {
        match self {
            Self::Due => *self = Self::Asking(Asking::plan(asker)),
            Self::Asking(asking) if asking.is_out_of_date(asker.claim_at) => {
                *asking = Asking::plan(asker);
            }
            Self::Asking(_) | Self::Unanswered => {}
        }
        let Self::Asking(asking) = self else {
            return false;
        };
        if asking.sent < PROBES {
            return asking.send_if_due(asker);
        }
        if asker.now >= asking.over_at {
            if asker.heard_all {
                *self = Self::Unanswered;
            } else {
                asking.over_at = asker.now + SOON;
            }
        }
        false
    }

    pub fn is_unanswered(&self) -> bool {
        matches!(self, Self::Unanswered)
    }

    pub fn next_timeout(&self) -> BootInstant {
        match self {
            Self::Asking(asking) if asking.sent < PROBES => asking.next_at,
            Self::Asking(asking) => asking.over_at,
            Self::Due | Self::Unanswered => BootInstant::BOOT,
        }
    }
}

impl Asking {
    fn plan(asker: &Asker) -> Self {
        let over_at = asker.claim_at.max(asker.now + asker.span * 2 / 3);
        let span = over_at.saturating_since(asker.now).min(asker.span);
        // The last probe goes out when a fourth of the time is left, or more.
        let step = span / 3;
        Self {
            claim_at: asker.claim_at,
            step,
            sent: 0,
            next_at: (over_at - span) + asker.part_of(step / 4, 0),
            over_at,
        }
    }

    /// Later than it was planned for, or sooner while nothing was asked yet: a node that comes to know
    /// the others, or itself as one of them, moves up and down in the queue.
    fn is_out_of_date(&self, claim_at: BootInstant) -> bool {
        claim_at > self.over_at || self.sent == 0 && claim_at < self.claim_at
    }

    fn send_if_due(&mut self, asker: &Asker) -> bool {
        if asker.now < self.next_at {
            return false;
        }
        self.sent += 1;
        // From now, not from when it was due: a process that slept lets time for answers pass all the same.
        self.next_at = asker.now + self.step - asker.part_of(self.step / 4, self.sent);
        self.over_at = self.over_at.max(asker.now + self.step * 3 / 4);
        true
    }
}

impl Asker {
    /// So that nodes that start together don't ask together.
    fn part_of(&self, whole: Duration, number: u32) -> Duration {
        let mut hasher = SipHasher13::new();
        hasher.write_u64(self.seed);
        match self.ip {
            IpAddr::V4(ip) => hasher.write(&ip.octets()),
            IpAddr::V6(ip) => hasher.write(&ip.octets()),
        }
        hasher.write_u64(self.now.as_ns());
        hasher.write_u32(number);
        whole * u32::try_from(hasher.finish() % 1024).unwrap_or(0) / 1024
    }
}
