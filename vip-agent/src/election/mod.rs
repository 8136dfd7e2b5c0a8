//! The election: who may hold which shared IP, and when this node's gates are open.
//!
//! A pure state machine. [`Election::handle`] takes an [`Event`] and the time, and hands out the
//! [`Action`]s to do, in order; [`Election::next_timeout`] says when it wants to be called without
//! an event. It knows no sockets, no clocks and no kernel: the driver does what it says and
//! tells it what came of it.
//!
//! ```text
//!   full read ──▶ watch ──(lost)──▶ full read …                     the view (view.rs)
//!   grant ──▶ join ──▶ renew + confirming read, each TTL/6 …        membership (lease.rs)
//!   vacant ──▶ claim ──▶ address ──▶ gate ──▶ announce              each shared IP (vip.rs)
//!   owner ──▶ gate shut ──▶ address away ──▶ key given up
//!   owner ──▶ successor ready ──▶ gate shut ──▶ key handed over   what is asked for (handover.rs)
//! ```
//!
//! What is kept, whatever happens:
//! - a gate is open only on a deadline that a *confirmed* renewal set;
//! - a shared IP is ours only if its key is on our lease;
//! - the gate is shut before the address goes, and the key goes last;
//! - a vacancy is claimed at once only by who saw it arise.

mod action;
mod cluster;
mod configuration;
mod conflict;
mod event;
mod handover;
mod knowledge;
mod lease;
mod membership;
mod placement;
mod probing;
mod record;
mod stopping;
#[cfg(test)]
mod tests;
mod time;
mod units;
mod vacancy;
mod view;
mod vip;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

pub use action::{Action, Exit, Gate, Progress, Report, Response, Role, Why};
pub use cluster::{AskRefused, Candidate, Obstacle, OwnerView, Passage, Passing, UnitView, a_few};
pub use conflict::DEFEND_INTERVAL;
pub use event::{Change, Event, Fitness, Outcome, RoundId, Snapshot, Stop};
pub use record::{
    DEFAULT_PRIORITY, DrainRecord, History, Keyed, LeaseId, Mac, MemberRecord, OwnerRecord,
    Readiness, Version, to_ms,
};
pub use time::BootInstant;

use conflict::Conduct;
use handover::HandOvers;
use lease::Lease;
use units::{UnitId, Units};
use view::View;
use vip::{Pending, Surroundings, Vip};

/// How long one place in the queue waits for the one ahead of it.
const QUEUE_STEP: Duration = Duration::from_millis(30);

/// What the election is made with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This node's name.
    pub node: String,
    /// This life of it.
    pub instance: String,
    /// The machine's hostname.
    pub host: String,
    /// This software's version.
    pub version: String,
    /// The TTL to ask etcd for.
    pub ttl: Duration,
    /// The shared IPs.
    pub vips: BTreeMap<IpAddr, VipSettings>,
    /// Whether a shared IP is left to a machine that is no member and claims it, instead of defended.
    pub yields: bool,
    /// For how long a member with a higher priority must have been fit before it is handed what is
    /// ours; never, if there is none.
    pub preempt: Option<Duration>,
    /// For how long another must have held less before it is handed some of what is ours.
    pub rebalance: Option<Duration>,
    /// What an owner does that is not fit while nobody else is either.
    pub when_all_unfit: WhenAllUnfit,
}

/// What may change of [`Settings`] that is no single shared IP's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// [`Settings::yields`]
    pub yields: bool,
    /// [`Settings::preempt`]
    pub preempt: Option<Duration>,
    /// [`Settings::rebalance`]
    pub rebalance: Option<Duration>,
    /// [`Settings::when_all_unfit`]
    pub when_all_unfit: WhenAllUnfit,
}

/// What the election is to know of a shared IP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VipSettings {
    /// Who has a higher one goes first.
    pub priority: u8,
    /// Those of one group move as one.
    pub group: Option<String>,
    /// Whether the network is asked if anybody has it, before a claim of what was not seen to become
    /// vacant.
    pub probes: bool,
    /// Whether the kernel keeps what comes for it out while the gate is shut, so that its address may
    /// be there.
    pub fenced: bool,
}

/// What an owner does that is not fit while nobody else is either.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenAllUnfit {
    /// It goes on.
    #[default]
    Keep,
    /// It gives up what it has.
    Release,
}

/// What an earlier process of this node left behind.
#[derive(Clone, Debug, Default)]
pub struct Inheritance {
    /// Its lease, from the state directory.
    pub lease: Option<LeaseId>,
    /// The deadline that stands in the kernel.
    pub deadline: BootInstant,
    /// How far etcd had come when it last handed over or gave up something.
    pub history: History,
    /// The gates that stand open in the kernel (lease deadline aside), with their epochs.
    pub open_gates: BTreeMap<IpAddr, i64>,
}

/// The state machine of one node.
#[derive(Debug)]
pub struct Election {
    settings: Settings,
    now: BootInstant,
    view: View,
    /// The lease to go on with, until a first read shows whether it is still ours.
    inheritance: Option<(LeaseId, BootInstant)>,
    membership: Membership,
    /// The record that was sent for our member key, until that is answered.
    joining: Option<MemberRecord>,
    vips: BTreeMap<IpAddr, Vip>,
    units: Units,
    handovers: HandOvers,
    /// Units of ours that are given up to nobody.
    lost: BTreeSet<UnitId>,
    next_round: u64,
    /// What the kernel was last told of the members.
    told_members: BTreeSet<Mac>,
    stopping: Option<Stopping>,
    over: bool,
    /// Whether the driver has told of all strangers that were heard.
    heard_all: bool,
    /// By which candidates, and of which units, the queue for what was found vacant was drawn up.
    found_queue: (u64, BTreeSet<UnitId>),
    /// What the event that is being handled concerns.
    scope: Scope,
    /// Whether it is news of what this node can serve.
    offers_otherwise: bool,
    /// When all units were looked at last, and not those alone that an event concerned.
    looked_at_all: BootInstant,
    cause: String,
    out: Vec<Action>,
}

#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one, and it is most often the large one"
)]
enum Membership {
    /// No lease; one is asked for at this time, or was already.
    Out {
        grant_at: Option<BootInstant>,
        failures: u32,
    },
    /// A lease, and our member key's `mod_revision` and record once it is written.
    In {
        lease: Lease,
        written: Option<(i64, MemberRecord)>,
        join_at: BootInstant,
    },
}

/// What an event concerns.
#[derive(Clone, Copy, Debug)]
enum Scope {
    All,
    One(IpAddr),
}

#[derive(Debug)]
struct Stopping {
    exit: Exit,
    /// When to go, whatever is still unanswered: gates are shut, and the keys expire.
    by: BootInstant,
    leaving: bool,
}

impl Election {
    /// A node that has just started, and may go on with what an earlier process left.
    pub fn new(settings: Settings, inheritance: Inheritance) -> Self {
        let vips = settings.vips.iter().map(|(ip, one)| {
            let open_epoch = inheritance.open_gates.get(ip).copied();
            (*ip, Vip::new(*ip, open_epoch, settings.conduct(one)))
        });
        let vips = vips.collect();
        Self {
            view: View::new(&settings.instance, inheritance.history),
            now: BootInstant::BOOT,
            inheritance: inheritance.lease.map(|lease| (lease, inheritance.deadline)),
            membership: Membership::Out {
                grant_at: Some(BootInstant::BOOT),
                failures: 0,
            },
            joining: None,
            units: settings.units(&vips),
            vips,
            handovers: HandOvers::default(),
            lost: BTreeSet::new(),
            next_round: 0,
            told_members: BTreeSet::new(),
            stopping: None,
            over: false,
            heard_all: false,
            found_queue: (0, BTreeSet::new()),
            scope: Scope::All,
            offers_otherwise: false,
            looked_at_all: BootInstant::BOOT,
            cause: String::new(),
            out: Vec::new(),
            settings,
        }
    }

    /// Takes note of `event` at `now` and says what is to be done, in this order.
    pub fn handle(&mut self, now: BootInstant, event: Event) -> Vec<Action> {
        if self.over {
            return Vec::new();
        }
        self.now = self.now.max(now);
        self.cause = describe(&event);
        self.heard_all = event == Event::Tick;
        self.scope = scope_of(&event);
        self.take_in(event);
        self.advance();
        self.report_transitions();
        std::mem::take(&mut self.out)
    }

    /// When to call [`handle`](Self::handle) with [`Event::Tick`], if nothing happens before.
    pub fn next_timeout(&self) -> Option<BootInstant> {
        let mut times = vec![self.view.next_timeout()];
        match &self.membership {
            Membership::Out { grant_at, .. } => times.extend(*grant_at),
            Membership::In { lease, join_at, .. } => {
                times.extend([lease.next_round_at, lease.deadline, *join_at]);
            }
        }
        times.extend(self.vips.values().flat_map(Vip::timeouts));
        let (preempt, rebalance) = (self.settings.preempt, self.settings.rebalance);
        times.extend(self.handovers.timeouts(preempt, rebalance));
        times.extend(self.stopping.as_ref().map(|stopping| stopping.by));
        // What was due already then waits for an answer, not for time.
        let past = self.looked_at_all;
        times.into_iter().filter(|time| *time > past).min()
    }

    /// The lease, its TTL, and until when it is confirmed.
    pub fn lease(&self) -> Option<(LeaseId, Duration, BootInstant)> {
        match &self.membership {
            Membership::Out { .. } => None,
            Membership::In { lease, .. } => Some((lease.id, lease.ttl, lease.deadline)),
        }
    }

    fn lease_id(&self) -> Option<LeaseId> {
        self.lease().map(|(id, ..)| id)
    }

    /// Whether our member key is written.
    pub fn is_joined(&self) -> bool {
        matches!(
            &self.membership,
            Membership::In {
                written: Some(_),
                ..
            }
        )
    }

    /// Whether a stop is under way.
    pub fn is_stopping(&self) -> bool {
        self.stopping.is_some()
    }

    /// The members that etcd shows, by name.
    pub fn members(&self) -> impl Iterator<Item = &MemberRecord> {
        self.view.members.values().map(|member| &member.record)
    }

    /// Which etcd cluster was read, and up to which revision.
    pub fn history(&self) -> (u64, i64) {
        (self.view.cluster_id, self.view.revision)
    }

    /// The role of a shared IP here, its owner, and the owner key's revision.
    pub fn role(&self, ip: IpAddr, now: BootInstant) -> Option<(Role, Option<&str>, i64)> {
        let lease = self.confirmed_lease();
        let vip = self.vips.get(&ip)?;
        Some((vip.role(now, lease), vip.owner(), vip.epoch()))
    }

    fn take_in(&mut self, event: Event) {
        match event {
            Event::Tick => {}
            Event::Read(snapshot) => self.take_in_read(snapshot),
            Event::ReadFailed(_) => self.view.read_failed(self.now),
            Event::Watched(changes) => self.take_in_changes(changes),
            Event::WatchLost(cause) => {
                self.view.namesake_may_be_gone(self.now);
                self.view.lose_watch(self.now);
                self.report(Report::Resync { cause });
            }
            Event::Granted {
                sent_at,
                lease,
                ttl,
            } => self.take_in_grant(sent_at, lease, ttl),
            Event::GrantFailed(_) => {
                if let Membership::Out { grant_at, failures } = &mut self.membership {
                    *failures += 1;
                    *grant_at = Some(self.now + self.view.back_off(*failures));
                }
            }
            Event::Renewed {
                round,
                ttl,
                raft_term,
            } => {
                if let Some(lease) = self.lease_mut() {
                    lease.renewed(round, ttl, raft_term);
                }
                self.judge(round);
            }
            Event::Confirmed { round, snapshot } => self.take_in_confirmation(round, &snapshot),
            Event::RoundFailed { .. } => self.view.namesake_may_be_gone(self.now),
            Event::Joined(outcome) => self.take_in_join(outcome),
            Event::Claimed(ip, outcome)
            | Event::Reasserted(ip, outcome)
            | Event::Released(ip, outcome)
            | Event::Transferred(ip, outcome) => self.take_in_outcome(ip, outcome),
            Event::Left => self.exit(),
            Event::GateSet(ip) => self.with_vip(ip, |vip, around, out| vip.gate_set(around, out)),
            Event::AddressAdded(ip) => {
                self.with_vip(ip, |vip, around, out| vip.address_added(around, out));
            }
            Event::AddressFailed(ip, _) => {
                self.with_vip(ip, |vip, around, out| vip.address_failed(around, out));
            }
            Event::AddressRemoved(ip) => self.with_vip(ip, |vip, _, _| vip.address_removed()),
            Event::Fitness(ip, fitness) => {
                self.with_vip(ip, |vip, _, _| vip.fitness = fitness);
                self.offers_otherwise = true;
            }
            Event::Ask { vip, to } => self.take_in_ask(vip, to),
            Event::Policy(policy) => self.take_in_policy(policy),
            Event::Unask { vip, to } => self.withdraw_ask(vip, &to),
            Event::Configure(vips) => self.take_in_configuration(vips),
            Event::Conflict { vip, mac } => self.take_in_conflict(vip, mac),
            Event::Stop(Stop::Hold) => {
                self.stopping
                    .get_or_insert(Stopping {
                        exit: Exit::Held,
                        by: self.now,
                        leaving: true,
                    })
                    .exit = Exit::Held;
                self.exit();
            }
            Event::Stop(Stop::Release) => self.stop(Exit::Released),
        }
    }

    /// A member is no stranger, also if the kernel did not know it yet.
    fn take_in_conflict(&mut self, ip: IpAddr, mac: Mac) {
        if self.members().any(|member| member.macs.contains(&mac)) {
            return;
        }
        self.cause = format!("{mac} claims it, which no member has");
        self.with_vip(ip, |vip, around, out| vip.hear_stranger(mac, around, out));
    }

    /// What follows from what is known now.
    fn advance(&mut self) {
        if self.over {
            return;
        }
        if self.view.should_read(self.now) {
            self.out.push(Action::Read);
        }
        self.ask_for_a_lease();
        self.renew();
        let units = match self.scope {
            Scope::All => {
                self.looked_at_all = self.now;
                self.queue_for_the_found();
                self.units.ids()
            }
            Scope::One(ip) => self.units.of(ip).into_iter().collect(),
        };
        self.advance_handovers(&units);
        self.advance_vips(&units);
        self.claim_what_is_due(&units);
        let offers_otherwise = std::mem::take(&mut self.offers_otherwise);
        if matches!(self.scope, Scope::All) || offers_otherwise || self.is_other_word_due(&units) {
            self.write_member_key();
        }
        self.tell_members();
        self.forget_the_retired();
        self.finish_stop();
    }

    fn advance_all_vips(&mut self) {
        self.advance_vips(&self.units.ids());
    }

    fn advance_vips(&mut self, units: &[UnitId]) {
        let record = self.owner_record();
        for id in units {
            let is_candidate = self.is_candidate(*id);
            let around = self.surroundings(&record, *id, is_candidate);
            for ip in self.units.ips(*id) {
                if let Some(vip) = self.vips.get_mut(ip) {
                    vip.advance(&around, &mut self.out);
                }
            }
        }
    }

    fn with_vip(
        &mut self,
        ip: IpAddr,
        step: impl FnOnce(&mut Vip, &Surroundings<'_>, &mut Vec<Action>),
    ) {
        let Some(unit) = self.units.of(ip) else {
            return;
        };
        let record = self.owner_record();
        let around = self.surroundings(&record, unit, self.is_candidate(unit));
        if let Some(vip) = self.vips.get_mut(&ip) {
            step(vip, &around, &mut self.out);
        }
    }

    fn surroundings<'a>(
        &self,
        record: &'a OwnerRecord,
        unit: UnitId,
        is_candidate: bool,
    ) -> Surroundings<'a> {
        let stopping = self.stopping.is_some();
        Surroundings {
            now: self.now,
            lease: self.confirmed_lease(),
            record,
            is_candidate,
            stopping,
            gives_up: self.lost.contains(&unit) || stopping && !self.is_lease_good(),
            cool_down: self.ttl(),
            heard_all: self.heard_all,
            seed: self.view.seed(),
        }
    }

    /// Whether this node may take a unit: a member that sees what goes on, fit for all of it, and meant
    /// to have something.
    fn is_candidate(&self, unit: UnitId) -> bool {
        let fit = |ip: &IpAddr| {
            let vip = self.vips.get(ip);
            vip.is_some_and(|vip| vip.is_fit(self.now) && !vip.retired)
        };
        self.is_joined()
            && self.view.is_watching()
            && self.stopping.is_none()
            && !self.view.drained.contains_key(&self.settings.node)
            && self.units.ips(unit).iter().all(fit)
    }

    /// Claims the units of which all is due that is vacant, and no part is another's.
    fn claim_what_is_due(&mut self, units: &[UnitId]) {
        let Some((lease, deadline)) = self.confirmed_lease() else {
            return;
        };
        if self.now >= deadline {
            return;
        }
        for id in units {
            let vips = || self.units.ips(*id).iter().map(|ip| &self.vips[ip]);
            let vacant: Vec<IpAddr> = vips()
                .filter(|vip| vip.is_vacant())
                .map(|vip| vip.ip)
                .collect();
            let is_due = |vip: &Vip| vip.is_due_to_claim(self.now) || vip.is_on(Some(lease));
            if vacant.is_empty() || !vips().all(is_due) || !self.is_candidate(*id) {
                continue;
            }
            let fresh = self.owner_record();
            let mut records = BTreeMap::new();
            for ip in vacant {
                if let Some(vip) = self.vips.get_mut(&ip) {
                    let record = vip.record(&fresh);
                    vip.send(Pending::Claim, lease, record.clone());
                    records.insert(ip, record);
                }
            }
            self.out.push(Action::Claim { lease, records });
        }
    }

    fn report_transitions(&mut self) {
        let lease = self.confirmed_lease();
        let vips = match self.scope {
            Scope::All => self.vips.range_mut::<IpAddr, _>(..),
            Scope::One(ip) => self.vips.range_mut(ip..=ip),
        };
        for (_, vip) in vips {
            let new = vip.role(self.now, lease);
            let old = std::mem::replace(&mut vip.reported, new);
            if old != new {
                let cause = self.cause.clone();
                let owner = vip.owner().map(str::to_owned);
                let report = Report::Transition {
                    vip: vip.ip,
                    old,
                    new,
                    cause,
                    epoch: vip.epoch(),
                    owner,
                };
                self.out.push(Action::Report(report));
            }
        }
    }

    fn owner_record(&self) -> OwnerRecord {
        OwnerRecord {
            node: self.settings.node.clone(),
            instance: self.settings.instance.clone(),
            mac: Mac::default(),
            ttl_ms: to_ms(self.ttl()),
            since: String::new(),
            successor: None,
        }
    }

    /// The granted TTL, or the one to ask for.
    fn ttl(&self) -> Duration {
        self.lease().map_or(self.settings.ttl, |(_, ttl, _)| ttl)
    }

    fn confirmed_lease(&self) -> Option<(LeaseId, BootInstant)> {
        self.lease().map(|(id, _, deadline)| (id, deadline))
    }

    /// Whether our gates may be open.
    fn is_lease_good(&self) -> bool {
        let lease = self.confirmed_lease();
        lease.is_some_and(|(_, deadline)| self.now < deadline)
    }

    fn lease_mut(&mut self) -> Option<&mut Lease> {
        match &mut self.membership {
            Membership::Out { .. } => None,
            Membership::In { lease, .. } => Some(lease),
        }
    }

    fn report(&mut self, report: Report) {
        self.out.push(Action::Report(report));
    }
}

impl Settings {
    fn conduct(&self, vip: &VipSettings) -> Conduct {
        Conduct {
            probes: vip.probes,
            yields: self.yields,
            fenced: vip.fenced,
        }
    }

    /// What moves as one. A shared IP that is no longer configured goes by itself.
    fn units(&self, vips: &BTreeMap<IpAddr, Vip>) -> Units {
        let group = |ip: &IpAddr| self.vips.get(ip).and_then(|one| one.group.as_deref());
        Units::new(vips.keys().map(|ip| (*ip, group(ip))))
    }
}

/// What concerns one shared IP alone changes nothing for the others.
fn scope_of(event: &Event) -> Scope {
    match event {
        Event::Claimed(ip, _)
        | Event::Reasserted(ip, _)
        | Event::Released(ip, _)
        | Event::Transferred(ip, _)
        | Event::GateSet(ip)
        | Event::AddressAdded(ip)
        | Event::AddressFailed(ip, _)
        | Event::AddressRemoved(ip)
        | Event::Fitness(ip, _)
        | Event::Conflict { vip: ip, .. } => Scope::One(*ip),
        _ => Scope::All,
    }
}

/// What a transition that follows from this event gives as its cause.
fn describe(event: &Event) -> String {
    match event {
        Event::Tick => "time".to_owned(),
        Event::Read(_) => "read from etcd".to_owned(),
        Event::Watched(_) => "seen by the watch".to_owned(),
        Event::ReadFailed(error) | Event::GrantFailed(error) => format!("etcd: {error}"),
        Event::WatchLost(cause) => format!("watch lost: {cause}"),
        Event::Granted { .. } => "lease granted".to_owned(),
        Event::Renewed { .. } | Event::Confirmed { .. } => "lease confirmed".to_owned(),
        Event::RoundFailed { error, .. } => format!("lease not confirmed: {error}"),
        Event::Joined(_) => "joined".to_owned(),
        Event::Claimed(..) => "claimed".to_owned(),
        Event::Reasserted(..) => "reasserted".to_owned(),
        Event::Released(..) => "released".to_owned(),
        Event::Transferred(..) => "handed over".to_owned(),
        Event::Left => "left".to_owned(),
        Event::GateSet(_) => "gate set".to_owned(),
        Event::AddressAdded(_) => "address added".to_owned(),
        Event::AddressFailed(_, error) => format!("address not added: {error}"),
        Event::AddressRemoved(_) => "address removed".to_owned(),
        Event::Fitness(_, fitness) => fitness.why_not().unwrap_or("fit").to_owned(),
        Event::Ask { to, .. } => format!("asked to go to {to}"),
        Event::Unask { .. } => "asked for no longer".to_owned(),
        Event::Policy(_) | Event::Configure(_) => "configured anew".to_owned(),
        Event::Conflict { .. } => "claimed by another machine".to_owned(),
        Event::Stop(Stop::Release) => "asked to stop".to_owned(),
        Event::Stop(Stop::Hold) => "asked to hold".to_owned(),
    }
}
