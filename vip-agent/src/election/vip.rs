//! One shared IP on this node: what etcd says of it, what the kernel has of it, and the step from
//! the one to the other.

use std::{net::IpAddr, time::Duration};

use super::{
    action::{Action, Gate, Report, Response, Role},
    conflict::{Conduct, Conflict},
    event::Fitness,
    probing::Probe,
    record::{Keyed, LeaseId, Mac, MemberRecord, OwnerRecord, Readiness, Version},
    time::BootInstant,
    vacancy::Vacancy,
};

/// What etcd says of the owner key, as far as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// Not read yet, or in doubt since.
    Unknown,
    /// There is none.
    Vacant {
        /// Not to be claimed before this.
        free_at: BootInstant,
        /// How long others go first.
        turn: Duration,
        /// Whether we watched the key go, and have been watching since.
        seen: bool,
    },
    /// There is one.
    Held(Keyed<OwnerRecord>),
}

/// What this node's kernel has.
///
/// ```text
///          key is ours, or                added          key is ours         set
///          we are named in it
///  Down ────────────────────▶ Adding ───────────▶ Ready ──────────▶ Opening ─────▶ Up
///   ▲                           │                 │   ▲                │           │ key is not ours
///   │ removed                   ▼         neither │   │ to be          ▼           ▼ any more, or to
///  Removing ◀──────────────────────────────────◀──┘   └ handed over ◀─ Closing ◀────  be given up
///   ▲                                                                  │
///   └──────────────────────────────────────────────────────────────────┘
///
///  Adopted ──▶ Closing   (or ──▶ Adding, where an open gate is still ours)
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Local {
    /// Whatever an earlier process left; this is the epoch of an open gate, if it left one.
    Adopted { open_epoch: Option<i64> },
    /// Gate closed, no address.
    Down,
    /// The address is being added.
    Adding,
    /// Address there, gate closed: all that is missing is the key, or a fresh revision of it.
    Ready,
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
    Transfer,
}

/// What a shared IP needs to know of the node around it.
pub(super) struct Surroundings<'a> {
    pub now: BootInstant,
    /// Our lease, and until when it is confirmed.
    pub lease: Option<(LeaseId, BootInstant)>,
    /// What a fresh owner record says, but for the MAC.
    pub record: &'a OwnerRecord,
    /// Whether this node is one to take the unit that the shared IP is of.
    pub is_candidate: bool,
    pub stopping: bool,
    /// Whether the unit is to be given up although nobody takes it over.
    pub gives_up: bool,
    /// How long to keep away from a shared IP that could not be taken up here.
    pub cool_down: Duration,
    /// Whether all strangers that were heard were told.
    pub heard_all: bool,
    /// Differs from node to node.
    pub seed: u64,
}

#[derive(Debug)]
pub(super) struct Vip {
    pub ip: IpAddr,
    pub key: Key,
    /// The newest revision at which the key was seen.
    pub revision: i64,
    pub local: Local,
    pub pending: Option<Pending>,
    /// What was sent with it: to be on this lease, and to say this.
    pub sent: Option<(LeaseId, OwnerRecord)>,
    pub fitness: Fitness,
    /// The node that it is to be handed over to.
    pub heir: Option<String>,
    /// No longer configured: it is given up and then forgotten.
    pub retired: bool,
    /// The role that was last reported.
    pub reported: Role,
    /// A revision of our key for which a give-up was sent or a closed gate was found: a stray
    /// delete may still come for it, so the gate stays shut until the key has a newer one.
    given_up: Option<i64>,
    /// Taking it up failed: leave it to others until then.
    pub(super) shunned_until: BootInstant,
    /// Not to be taken up before this, whatever etcd says: its history was replaced.
    pub(super) waits_until: BootInstant,
    /// What the kernel's gate was last set to.
    gate: Option<Gate>,
    suspended: bool,
    /// Whether its gate was open since it was last down.
    served: bool,
    /// Whether it is being handed over: nothing else is done with it until that is decided.
    leaving: bool,
    pub(super) conduct: Conduct,
    pub(super) conflict: Conflict,
    pub(super) vacancy: Option<Vacancy>,
    pub(super) probe: Probe,
}

impl Vip {
    pub fn new(ip: IpAddr, open_epoch: Option<i64>, conduct: Conduct) -> Self {
        Self {
            ip,
            key: Key::Unknown,
            revision: 0,
            local: Local::Adopted { open_epoch },
            pending: None,
            sent: None,
            fitness: Fitness::Unable("its interface was not looked at yet".to_owned()),
            heir: None,
            retired: false,
            reported: Role::Unknown,
            given_up: None,
            shunned_until: BootInstant::BOOT,
            waits_until: BootInstant::BOOT,
            gate: None,
            suspended: false,
            served: open_epoch.is_some(),
            leaving: false,
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

    /// Our MAC on its interface, while that can carry it.
    pub fn mac(&self) -> Option<Mac> {
        self.fitness.mac()
    }

    /// Whether it may be served here, by all that is known.
    pub fn is_fit(&self, now: BootInstant) -> bool {
        self.why_unfit(now).is_none()
    }

    /// What speaks against that.
    pub fn why_unfit(&self, now: BootInstant) -> Option<&str> {
        let refused = (now < self.shunned_until).then_some("its address could not be put on");
        self.fitness.why_not().or(refused)
    }

    pub fn epoch(&self) -> i64 {
        self.held().map_or(0, |held| held.mod_revision)
    }

    pub fn owner(&self) -> Option<&str> {
        self.held().map(|held| held.record.node.as_str())
    }

    /// To whom its owner means to hand it.
    pub fn successor(&self) -> Option<&str> {
        self.held()?.record.successor.as_deref()
    }

    /// Whether this member has said that it can take it now: of its key as it is, and not as it was.
    pub fn is_awaited_by(&self, member: &MemberRecord) -> bool {
        let word = member.ready.get(&self.ip);
        word.is_some_and(|word| word.epoch == self.epoch())
    }

    pub fn is_being_claimed(&self) -> bool {
        self.pending == Some(Pending::Claim)
    }

    /// Whether nothing of it is left here and nothing under way.
    pub fn is_quiet(&self) -> bool {
        self.local == Local::Down && self.pending.is_none()
    }

    /// Our word that we can take it, if its owner has asked for that and we can.
    pub fn readiness(&self, around: &Surroundings<'_>) -> Option<Readiness> {
        let is_there = self.local == Local::Ready || !self.conduct.fenced;
        let mac = self.mac().filter(|_| is_there && self.is_heir(around))?;
        Some(Readiness {
            mac,
            epoch: self.epoch(),
        })
    }

    /// Whether another owns it and means to hand it to us, and we mean to take it.
    fn is_heir(&self, around: &Surroundings<'_>) -> bool {
        self.successor() == Some(&around.record.node)
            && !self.is_on(around.lease.map(|(id, _)| id))
            && around.is_candidate
            && around.now >= self.claim_at()
            && !self.yields(around.now)
    }

    pub fn role(&self, now: BootInstant, lease: Option<(LeaseId, BootInstant)>) -> Role {
        let mine = self.is_on(lease.map(|(id, _)| id));
        match (self.local, &self.key) {
            (Local::Adopted { .. }, _) => Role::Unknown,
            (Local::Closing | Local::Ready | Local::Removing, _) if self.served => Role::GivingUp,
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
        // What it finds vacant in that one is another vacancy.
        self.vacancy = None;
        self.probe = Probe::Due;
        if self.local != Local::Up || !serving {
            self.waits_until = self.waits_until.max(wait_until);
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
            Local::Down | Local::Ready if mine && self.leaving => {}
            Local::Down if mine => self.take_up_or_release(around, out),
            // Without a gate the address itself would answer.
            Local::Down if self.is_heir(around) && self.conduct.fenced => self.start_adding(out),
            Local::Down => self.probe_if_due(around, out),
            Local::Ready => self.open_or_withdraw(mine, around, out),
            Local::Up
                if !mine || around.gives_up || self.mac().is_none() || self.yields(around.now) =>
            {
                self.start_closing(out);
            }
            Local::Up => {
                self.keep_the_record(around, out);
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
            Local::Adding if self.served && !self.is_wanted(around) => {
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
            self.start_opening(out);
        } else if self.served {
            self.start_closing(out);
        } else {
            self.local = Local::Ready;
        }
    }

    /// Its gate is shut, and its address stays for as long as the key may yet come back.
    pub fn start_handing_over(&mut self, out: &mut Vec<Action>) {
        self.start_closing(out);
        self.leaving = true;
    }

    /// The hand-over came to nothing, or is over.
    pub fn stop_handing_over(&mut self) {
        self.leaving = false;
        self.heir = None;
    }

    /// Whether its gate is shut for a hand-over, and nothing stands in the way of that any more.
    pub fn is_handed_out(&self) -> bool {
        let shut = if self.conduct.fenced {
            Local::Ready
        } else {
            Local::Down
        };
        self.leaving && self.local == shut && self.pending.is_none()
    }

    /// Its key is on its way to another's lease: the gate opens only on a revision that was made since.
    pub fn transfer(&mut self, lease: LeaseId, record: OwnerRecord) {
        self.given_up = Some(self.epoch());
        self.leaving = false;
        self.send(Pending::Transfer, lease, record);
    }

    /// A transaction was sent.
    pub fn send(&mut self, pending: Pending, lease: LeaseId, record: OwnerRecord) {
        self.pending = Some(pending);
        self.sent = Some((lease, record));
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
            Local::Closing if self.leaving && self.conduct.fenced => self.local = Local::Ready,
            Local::Closing => self.start_removing(out),
            // A follower's gate, told who the owner is.
            Local::Adopted { .. }
            | Local::Down
            | Local::Adding
            | Local::Ready
            | Local::Up
            | Local::Removing => {}
        }
    }

    fn is_wanted(&self, around: &Surroundings<'_>) -> bool {
        self.is_on(around.lease.map(|(id, _)| id))
            && !around.stopping
            && !around.gives_up
            && self.given_up != Some(self.epoch())
            && self.mac().is_some()
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
        if self.is_unwanted(around) {
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

    /// Its address is there, and its gate shut.
    fn open_or_withdraw(&mut self, mine: bool, around: &Surroundings<'_>, out: &mut Vec<Action>) {
        let awaits_claim = self.is_vacant() && around.is_candidate && !self.distrusts_vacancy();
        // Without a gate the address itself would answer.
        let may_wait = self.conduct.fenced;
        match (mine, self.held().map(Keyed::version)) {
            (true, _) if self.pending.is_some() => {}
            (true, _) if self.is_wanted(around) => self.start_opening(out),
            (true, Some(version)) if around.now < self.waits_until => {
                self.given_up = Some(version.mod_revision);
            }
            (true, Some(version)) if !self.is_unwanted(around) => {
                self.reassert(version, around, out);
            }
            // What etcd has is in doubt, and soon will not be.
            (false, _) if self.key == Key::Unknown && self.served => {}
            (false, _) if may_wait && (self.is_heir(around) || awaits_claim) => {}
            _ => self.start_removing(out),
        }
    }

    /// Whether it is ours and is not to be, whatever its revision.
    fn is_unwanted(&self, around: &Surroundings<'_>) -> bool {
        let unable =
            self.mac().is_none() || around.now < self.shunned_until || self.yields(around.now);
        around.stopping || around.gives_up || unable
    }

    /// The record of what is served says where, for others know the owner's claims by that, and who is
    /// to have it next.
    fn keep_the_record(&mut self, around: &Surroundings<'_>, out: &mut Vec<Action>) {
        let (Some(held), Some(mac), None) = (self.held(), self.mac(), self.pending) else {
            return;
        };
        let (moved, version) = (held.record.mac != mac, held.version());
        if moved {
            out.push(Action::Announce(self.ip));
        }
        if moved || held.record.successor != self.heir {
            self.reassert(version, around, out);
        }
    }

    fn reassert(&mut self, version: Version, around: &Surroundings<'_>, out: &mut Vec<Action>) {
        let since = self.held().map(|held| held.record.since.clone());
        let record = OwnerRecord {
            since: since.unwrap_or_default(),
            ..self.record(around.record)
        };
        self.send(Pending::Reassert, version.lease, record.clone());
        out.push(Action::Reassert {
            vip: self.ip,
            version,
            record,
        });
    }

    /// What an owner key of ours is to say.
    pub fn record(&self, fresh: &OwnerRecord) -> OwnerRecord {
        OwnerRecord {
            mac: self.mac().unwrap_or_default(),
            successor: self.heir.clone(),
            ..fresh.clone()
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

    fn start_opening(&mut self, out: &mut Vec<Action>) {
        self.local = Local::Opening;
        self.served = true;
        self.gate = None;
        self.set_gate(
            Gate::Open {
                epoch: self.epoch(),
            },
            out,
        );
    }

    fn start_removing(&mut self, out: &mut Vec<Action>) {
        self.local = Local::Removing;
        out.push(Action::RemoveAddress(self.ip));
    }

    fn start_closing(&mut self, out: &mut Vec<Action>) {
        self.local = Local::Closing;
        self.leaving = false;
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
        let is_shut = matches!(self.local, Local::Down | Local::Adding | Local::Ready);
        if !is_shut || self.served && self.local != Local::Down || mine || around.stopping {
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
