//! One shared IP on this node: what etcd says of it, what the kernel has of it, and the step from
//! the one to the other.

use std::{net::IpAddr, time::Duration};

use super::{
    action::{Action, Gate, Report, Response, Role},
    conflict::{Conduct, Conflict},
    probing::{Asker, Probe},
    record::{Keyed, LeaseId, Mac, OwnerRecord, Version},
    time::BootInstant,
};

/// What etcd says of the owner key, as far as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// Not read yet, or in doubt since.
    Unknown,
    /// There is none.
    Vacant {
        /// Not to be claimed before this.
        claim_at: BootInstant,
        /// Whether we watched the key go, and have been watching since.
        seen: bool,
    },
    /// There is one.
    Held(Keyed<OwnerRecord>),
}

/// What this node's kernel has.
///
/// ```text
///              key is ours                 added                set
///  Down ────────────────────────▶ Adding ─────────▶ Opening ─────────▶ Up
///   ▲                               │                  │               │ key is not
///   │ removed              set      ▼                  ▼               ▼ ours any more
///  Removing ◀──────────────────── Closing ◀──────────────────────────────
///                                   ▲
///  Adopted ─────────────────────────┘   (or ─▶ Adding, where an open gate is still ours)
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Local {
    /// Whatever an earlier process left; this is the epoch of an open gate, if it left one.
    Adopted { open_epoch: Option<i64> },
    /// Gate closed, no address.
    Down,
    /// The address is being added.
    Adding,
    /// The gate is being opened.
    Opening,
    /// Address there, gate open (for as long as the lease deadline lies ahead).
    Up,
    /// The gate is being closed.
    Closing,
    /// The address is being removed, the gate is closed.
    Removing,
}

/// A transaction on the owner key that was sent and not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pending {
    Claim,
    Reassert,
    Release,
}

/// What a shared IP needs to know of the node around it.
pub(super) struct Surroundings<'a> {
    pub now: BootInstant,
    /// Our lease, and until when it is confirmed.
    pub lease: Option<(LeaseId, BootInstant)>,
    /// What a fresh owner record says, but for the MAC.
    pub record: &'a OwnerRecord,
    /// Whether we may claim anything: a member, the watch up, not stopping.
    pub may_claim: bool,
    pub stopping: bool,
    /// How long to keep away from a shared IP that could not be taken up here.
    pub cool_down: Duration,
    /// Whether all strangers that were heard were told.
    pub heard_all: bool,
    /// Differs from node to node.
    pub seed: u64,
}

/// A vacancy, from when it was first looked at.
#[derive(Clone, Copy, Debug)]
struct Vacancy {
    since: BootInstant,
    /// How long we let others go first.
    turn: Duration,
}

#[derive(Debug)]
pub(super) struct Vip {
    pub ip: IpAddr,
    pub key: Key,
    /// The newest revision at which the key was seen.
    pub revision: i64,
    pub local: Local,
    pub pending: Option<Pending>,
    /// Our MAC on its interface, while that can serve.
    pub fit: Option<Mac>,
    /// The role that was last reported.
    pub reported: Role,
    /// A revision of our key for which a give-up was sent or a closed gate was found: a stray
    /// delete may still come for it, so the gate stays shut until the key has a newer one.
    given_up: Option<i64>,
    /// Taking it up failed: leave it to others until then.
    shunned_until: BootInstant,
    /// Not to be taken up before this, whatever etcd says: its history was replaced.
    waits_until: BootInstant,
    /// What the kernel's gate was last set to.
    gate: Option<Gate>,
    suspended: bool,
    /// Whether its gate was open since it was last down.
    served: bool,
    conduct: Conduct,
    conflict: Conflict,
    vacancy: Option<Vacancy>,
    probe: Probe,
}

impl Vip {
    pub fn new(ip: IpAddr, open_epoch: Option<i64>, conduct: Conduct) -> Self {
        Self {
            ip,
            key: Key::Unknown,
            revision: 0,
            local: Local::Adopted { open_epoch },
            pending: None,
            fit: None,
            reported: Role::Unknown,
            given_up: None,
            shunned_until: BootInstant::BOOT,
            waits_until: BootInstant::BOOT,
            gate: None,
            suspended: false,
            served: open_epoch.is_some(),
            conduct,
            conflict: Conflict::default(),
            vacancy: None,
            probe: Probe::default(),
        }
    }

    /// I own it if and only if its key is on my lease. A name proves nothing.
    pub fn is_on(&self, lease: Option<LeaseId>) -> bool {
        matches!(&self.key, Key::Held(held) if Some(held.lease) == lease)
    }

    pub fn held(&self) -> Option<&Keyed<OwnerRecord>> {
        match &self.key {
            Key::Held(held) => Some(held),
            Key::Unknown | Key::Vacant { .. } => None,
        }
    }

    pub fn epoch(&self) -> i64 {
        self.held().map_or(0, |held| held.mod_revision)
    }

    pub fn owner(&self) -> Option<&str> {
        self.held().map(|held| held.record.node.as_str())
    }

    /// Whether nothing of it is left here and nothing under way.
    pub fn is_quiet(&self) -> bool {
        self.local == Local::Down && self.pending.is_none()
    }

    pub fn role(&self, now: BootInstant, lease: Option<(LeaseId, BootInstant)>) -> Role {
        let mine = self.is_on(lease.map(|(id, _)| id));
        match (self.local, &self.key) {
            (Local::Adopted { .. }, _) => Role::Unknown,
            (Local::Closing | Local::Removing, _) if self.served => Role::GivingUp,
            (Local::Up, _) if mine && lease.is_some_and(|(_, deadline)| now < deadline) => {
                Role::Owner
            }
            (Local::Up, _) if mine => Role::Suspended,
            (Local::Up, _) => Role::GivingUp,
            (_, Key::Unknown) => Role::Unknown,
            (_, Key::Vacant { .. }) if self.pending == Some(Pending::Claim) => Role::Claiming,
            (_, Key::Vacant { .. }) => Role::Vacant,
            (_, Key::Held(_)) if !mine => Role::Follower,
            (_, Key::Held(_)) if self.pending == Some(Pending::Release) => Role::GivingUp,
            (_, Key::Held(_)) => Role::TakingOver,
        }
    }

    /// When it has something to do by itself: those of these times that are yet to come.
    pub fn timeouts(&self) -> [BootInstant; 3] {
        [
            self.claim_at(),
            self.probe.next_timeout(),
            self.conflict.next_timeout(),
        ]
    }

    /// A machine that is no member claims it.
    pub fn hear_stranger(&mut self, mac: Mac, around: &Surroundings<'_>, out: &mut Vec<Action>) {
        self.conflict.hear(mac, around.now);
        self.probe = Probe::Due;
        let takes_part = matches!(self.local, Local::Adding | Local::Opening | Local::Up)
            || self.pending == Some(Pending::Claim);
        let response = if self.is_served(around) && !self.conduct.yields {
            self.defend(around.now, out)
        } else if takes_part && self.conduct.yields {
            Response::Yielded
        } else if self.distrusts_vacancy() && self.pending.is_none() {
            Response::NotClaimed
        } else {
            Response::Noted
        };
        out.push(Action::Report(Report::Conflict {
            vip: self.ip,
            mac,
            response,
        }));
    }

    /// These machines are members: what one of them said was no stranger's word.
    pub fn trust(&mut self, is_member: impl Fn(Mac) -> bool) {
        self.conflict.forget(is_member);
    }

    /// What was known of its key is void. Unless it is being served here, its gate open, it is not
    /// taken up before `wait_until`, and then only on a revision that was made since.
    pub fn begin_another_history(&mut self, wait_until: BootInstant, serving: bool) {
        self.revision = 0;
        self.key = Key::Unknown;
        if self.local != Local::Up || !serving {
            self.waits_until = self.waits_until.max(wait_until);
        }
    }

    /// A claim was not answered: it is made again, unless the watch has told more by then.
    pub fn ask_again(&mut self, at: BootInstant) {
        if let Key::Vacant { claim_at, .. } = &mut self.key {
            *claim_at = at;
        }
    }

    /// Takes the next steps from what is to what should be, each of which is a call of its own
    /// once the step before is confirmed.
    pub fn advance(&mut self, around: &Surroundings<'_>, out: &mut Vec<Action>) {
        let lease = around.lease.map(|(id, _)| id);
        let mine = self.is_on(lease);
        self.look_at_vacancy(around.now);
        match self.local {
            Local::Adopted { .. } if self.key == Key::Unknown && !around.stopping => {}
            Local::Adopted { open_epoch } => {
                if mine && open_epoch == Some(self.epoch()) && !around.stopping {
                    self.start_adding(out);
                } else {
                    self.given_up = mine.then(|| self.epoch());
                    self.start_closing(out);
                }
            }
            Local::Down if mine => self.take_up_or_release(around, out),
            Local::Down => {
                self.probe_if_due(around, out);
                self.claim_if_due(around, out);
            }
            Local::Up
                if !mine || around.stopping || self.fit.is_none() || self.yields(around.now) =>
            {
                self.start_closing(out);
            }
            Local::Up => {
                self.tell_the_mac(around, out);
                self.watch_the_deadline(around, out);
                self.defend_again(around, out);
                self.set_gate(
                    Gate::Open {
                        epoch: self.epoch(),
                    },
                    out,
                );
            }
            // The address is on its way and the gate may be open: an adopted one is.
            Local::Adding if !self.is_wanted(around) => {
                self.set_gate(
                    Gate::Closed {
                        epoch: self.epoch(),
                        owner: None,
                    },
                    out,
                );
            }
            Local::Adding | Local::Opening | Local::Closing | Local::Removing => {}
        }
        self.tell_the_gate(mine, around, out);
    }

    pub fn address_added(&mut self, around: &Surroundings<'_>, out: &mut Vec<Action>) {
        if self.local != Local::Adding {
            return;
        }
        if self.is_wanted(around) {
            self.local = Local::Opening;
            self.served = true;
            self.gate = None;
            self.set_gate(
                Gate::Open {
                    epoch: self.epoch(),
                },
                out,
            );
        } else {
            self.start_closing(out);
        }
    }

    pub fn address_failed(&mut self, around: &Surroundings<'_>, out: &mut Vec<Action>) {
        if self.local == Local::Adding {
            self.shunned_until = around.now + around.cool_down;
            self.start_closing(out);
        }
    }

    pub fn address_removed(&mut self) {
        if self.local == Local::Removing {
            self.local = Local::Down;
            self.served = false;
        }
    }

    pub fn gate_set(&mut self, around: &Surroundings<'_>, out: &mut Vec<Action>) {
        match self.local {
            Local::Opening if self.is_wanted(around) => {
                self.local = Local::Up;
                self.suspended = false;
                out.push(Action::Announce(self.ip));
            }
            Local::Opening => self.start_closing(out),
            Local::Closing => {
                self.local = Local::Removing;
                out.push(Action::RemoveAddress(self.ip));
            }
            // A follower's gate, told who the owner is.
            Local::Adopted { .. } | Local::Down | Local::Adding | Local::Up | Local::Removing => {}
        }
    }

    fn is_wanted(&self, around: &Surroundings<'_>) -> bool {
        self.is_on(around.lease.map(|(id, _)| id))
            && !around.stopping
            && self.given_up != Some(self.epoch())
            && self.fit.is_some()
            && around.now >= self.shunned_until
            && around.now >= self.waits_until
            && !self.yields(around.now)
    }

    /// Whether it is left to a stranger.
    fn yields(&self, now: BootInstant) -> bool {
        self.conduct.yields && now < self.conflict.lasts_until()
    }

    /// Whether it is announced here, and frames for it are let in.
    fn is_served(&self, around: &Surroundings<'_>) -> bool {
        let lease = around.lease.filter(|(_, deadline)| around.now < *deadline);
        self.local == Local::Up && !around.stopping && self.is_on(lease.map(|(id, _)| id))
    }

    fn defend(&mut self, now: BootInstant, out: &mut Vec<Action>) -> Response {
        if self.conflict.defends(now) {
            out.push(Action::Announce(self.ip));
            Response::Defended
        } else {
            Response::DefendedSoon
        }
    }

    /// What was heard too early for another defence is answered as soon as it may be: whoever
    /// believed it does so until then.
    fn defend_again(&mut self, around: &Surroundings<'_>, out: &mut Vec<Action>) {
        if !self.is_served(around) {
            self.conflict.stand_down();
        } else if self.conflict.pays_defence(around.now) {
            out.push(Action::Announce(self.ip));
        }
    }

    fn take_up_or_release(&mut self, around: &Surroundings<'_>, out: &mut Vec<Action>) {
        let (None, Some(version)) = (self.pending, self.held().map(Keyed::version)) else {
            return;
        };
        if self.is_wanted(around) {
            self.start_adding(out);
            return;
        }
        let mod_revision = version.mod_revision;
        if around.now < self.waits_until {
            // Not given up either: others could take it who know nothing of another history.
            self.given_up = Some(mod_revision);
            return;
        }
        let unable =
            self.fit.is_none() || around.now < self.shunned_until || self.yields(around.now);
        if around.stopping || unable {
            self.given_up = Some(mod_revision);
            self.pending = Some(Pending::Release);
            out.push(Action::Release {
                vip: self.ip,
                version,
            });
        } else {
            self.reassert(version, around, out);
        }
    }

    /// The record of what is served says where: others know the owner's claims by that.
    fn tell_the_mac(&mut self, around: &Surroundings<'_>, out: &mut Vec<Action>) {
        let (Some(held), Some(mac), None) = (self.held(), self.fit, self.pending) else {
            return;
        };
        if held.record.mac != mac {
            let version = held.version();
            out.push(Action::Announce(self.ip));
            self.reassert(version, around, out);
        }
    }

    fn reassert(&mut self, version: Version, around: &Surroundings<'_>, out: &mut Vec<Action>) {
        self.pending = Some(Pending::Reassert);
        out.push(Action::Reassert {
            vip: self.ip,
            version,
            record: self.record(around),
        });
    }

    fn look_at_vacancy(&mut self, now: BootInstant) {
        let Key::Vacant { claim_at, seen } = self.key else {
            self.vacancy = None;
            self.probe = Probe::Due;
            return;
        };
        self.vacancy.get_or_insert(Vacancy {
            since: now,
            turn: if seen {
                claim_at.saturating_since(now)
            } else {
                Duration::ZERO
            },
        });
    }

    /// Whether somebody may have taken the address since its last owner gave it up, so that we ask
    /// before we claim it.
    fn distrusts_vacancy(&self) -> bool {
        let (Key::Vacant { seen, .. }, Some(vacancy)) = (&self.key, self.vacancy) else {
            return false;
        };
        let left_to_a_stranger = self.conduct.yields && self.conflict.lasts_until() > vacancy.since;
        left_to_a_stranger || self.conduct.probes && !seen
    }

    /// Not to be taken up before this.
    fn claim_at(&self) -> BootInstant {
        let free_at = self.shunned_until.max(self.waits_until);
        let Key::Vacant { claim_at, .. } = self.key else {
            return free_at;
        };
        let claim_at = claim_at.max(free_at);
        match self.vacancy {
            Some(Vacancy { turn, .. }) if self.distrusts_vacancy() => {
                claim_at.max(self.conflict.lasts_until() + turn)
            }
            _ => claim_at,
        }
    }

    /// Only while the lease is good does the kernel program tell who answers.
    fn probe_if_due(&mut self, around: &Surroundings<'_>, out: &mut Vec<Action>) {
        let hears = around
            .lease
            .is_some_and(|(_, deadline)| around.now < deadline);
        let asks = self.conduct.probes && self.distrusts_vacancy();
        if !(hears && asks && self.fit.is_some() && !around.stopping) {
            self.probe = Probe::Due;
            return;
        }
        let asker = Asker {
            now: around.now,
            claim_at: self.claim_at(),
            span: around.cool_down,
            heard_all: around.heard_all,
            seed: around.seed,
            ip: self.ip,
        };
        if self.probe.advance(&asker) {
            out.push(Action::Probe(self.ip));
        }
    }

    fn claim_if_due(&mut self, around: &Surroundings<'_>, out: &mut Vec<Action>) {
        let Key::Vacant { .. } = self.key else {
            return;
        };
        let Some((lease, deadline)) = around.lease else {
            return;
        };
        let asked = !self.conduct.probes || !self.distrusts_vacancy() || self.probe.is_unanswered();
        let due = around.now >= self.claim_at() && around.now < deadline && asked;
        if due && around.may_claim && self.fit.is_some() && self.pending.is_none() {
            self.pending = Some(Pending::Claim);
            let record = self.record(around);
            out.push(Action::Claim {
                vip: self.ip,
                lease,
                record,
            });
        }
    }

    fn record(&self, around: &Surroundings<'_>) -> OwnerRecord {
        OwnerRecord {
            mac: self.fit.unwrap_or_default(),
            ..around.record.clone()
        }
    }

    /// The kernel shuts the gate at the deadline by itself; what is left to do is to announce
    /// again when a late confirmation has reopened it, for the neighbours may have forgotten us.
    fn watch_the_deadline(&mut self, around: &Surroundings<'_>, out: &mut Vec<Action>) {
        let suspended = around
            .lease
            .is_none_or(|(_, deadline)| around.now >= deadline);
        if self.suspended && !suspended {
            out.push(Action::Announce(self.ip));
        }
        self.suspended = suspended;
    }

    fn start_adding(&mut self, out: &mut Vec<Action>) {
        self.local = Local::Adding;
        out.push(Action::AddAddress(self.ip));
    }

    fn start_closing(&mut self, out: &mut Vec<Action>) {
        self.local = Local::Closing;
        self.gate = None;
        out.push(Action::Silence(self.ip));
        self.set_gate(
            Gate::Closed {
                epoch: self.epoch(),
                owner: None,
            },
            out,
        );
    }

    /// A closed gate knows who the owner is, so that the kernel can tell its claims from others'.
    fn tell_the_gate(&mut self, mine: bool, around: &Surroundings<'_>, out: &mut Vec<Action>) {
        if self.local != Local::Down || mine || around.stopping {
            return;
        }
        let owner = match &self.key {
            Key::Held(held) => Some(held.record.mac),
            Key::Unknown | Key::Vacant { .. } => None,
        };
        self.set_gate(
            Gate::Closed {
                epoch: self.epoch(),
                owner,
            },
            out,
        );
    }

    fn set_gate(&mut self, gate: Gate, out: &mut Vec<Action>) {
        if self.gate != Some(gate) {
            self.gate = Some(gate);
            out.push(Action::SetGate(self.ip, gate));
        }
    }
}
