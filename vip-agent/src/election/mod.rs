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
//! ```
//!
//! What is kept, whatever happens:
//! - a gate is open only on a deadline that a *confirmed* renewal set;
//! - a shared IP is ours only if its key is on our lease;
//! - the gate is shut before the address goes, and the key goes last;
//! - a vacancy is claimed at once only by who saw it arise.

mod action;
mod event;
mod lease;
mod rank;
mod record;
#[cfg(test)]
mod tests;
mod time;
mod view;
mod vip;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

pub use action::{Action, Exit, Gate, Report, Role};
pub use event::{Change, Event, Outcome, RoundId, Snapshot, Stop};
pub use record::{Keyed, LeaseId, Mac, MemberRecord, OwnerRecord, to_ms};
pub use time::BootInstant;

use lease::{Lease, Reading, Verdict};
use view::View;
use vip::{Key, Surroundings, Vip};

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
    pub vips: BTreeSet<IpAddr>,
}

/// What an earlier process of this node left behind.
#[derive(Clone, Debug, Default)]
pub struct Inheritance {
    /// Its lease, from the state directory.
    pub lease: Option<LeaseId>,
    /// The deadline that stands in the kernel.
    pub deadline: BootInstant,
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
    next_round: u64,
    /// What the kernel was last told of the members.
    told_members: BTreeSet<Mac>,
    stopping: Option<Stopping>,
    over: bool,
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
        let vips = settings
            .vips
            .iter()
            .map(|&ip| (ip, Vip::new(ip, inheritance.open_gates.get(&ip).copied())))
            .collect();
        Self {
            view: View::new(&settings.instance),
            now: BootInstant::BOOT,
            inheritance: inheritance.lease.map(|lease| (lease, inheritance.deadline)),
            membership: Membership::Out {
                grant_at: Some(BootInstant::BOOT),
                failures: 0,
            },
            joining: None,
            vips,
            next_round: 0,
            told_members: BTreeSet::new(),
            stopping: None,
            over: false,
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
        times.extend(self.vips.values().map(Vip::next_timeout));
        times.extend(self.stopping.as_ref().map(|stopping| stopping.by));
        // What is due already waits for an answer, not for time.
        times.into_iter().filter(|time| *time > self.now).min()
    }

    /// The lease, its TTL, and until when it is confirmed.
    pub fn lease(&self) -> Option<(LeaseId, Duration, BootInstant)> {
        match &self.membership {
            Membership::Out { .. } => None,
            Membership::In { lease, .. } => Some((lease.id, lease.ttl, lease.deadline)),
        }
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
            Event::RoundFailed { .. } => {}
            Event::Joined(outcome) => self.take_in_join(outcome),
            Event::Claimed(ip, outcome)
            | Event::Reasserted(ip, outcome)
            | Event::Released(ip, outcome) => self.take_in_outcome(ip, outcome),
            Event::Left => self.exit(),
            Event::GateSet(ip) => self.with_vip(ip, |vip, around, out| vip.gate_set(around, out)),
            Event::AddressAdded(ip) => {
                self.with_vip(ip, |vip, around, out| vip.address_added(around, out));
            }
            Event::AddressFailed(ip, _) => {
                self.with_vip(ip, |vip, around, out| vip.address_failed(around, out));
            }
            Event::AddressRemoved(ip) => self.with_vip(ip, |vip, _, _| vip.address_removed()),
            Event::Fitness(ip, fit) => self.with_vip(ip, |vip, _, _| vip.fit = fit),
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

    /// What follows from what is known now, whatever event it came with.
    fn advance(&mut self) {
        if self.over {
            return;
        }
        if self.view.should_read(self.now) {
            self.out.push(Action::Read);
        }
        self.ask_for_a_lease();
        self.renew();
        self.write_member_key();
        self.advance_vips();
        self.tell_members();
        self.finish_stop();
    }

    fn take_in_read(&mut self, snapshot: Snapshot) {
        if let Some(known) = self.view.history_reset_by(&snapshot) {
            self.report(Report::HistoryReset {
                known,
                read: snapshot.revision,
            });
            for vip in self.vips.values_mut() {
                vip.revision = 0;
                vip.key = Key::Unknown;
            }
        }
        self.view.take_in(&snapshot);
        self.resume(&snapshot);
        let longest = self.longest_ttl(&snapshot);
        for ip in self.settings.vips.clone() {
            self.learn_by_reading(
                ip,
                snapshot.owners.get(&ip).cloned(),
                snapshot.revision,
                longest,
            );
        }
        let silence = 2 * self.ttl();
        self.out.push(Action::Watch {
            from_revision: snapshot.revision + 1,
            silence,
        });
    }

    /// Goes on with an earlier process' lease, if etcd still has our member key on it.
    fn resume(&mut self, snapshot: &Snapshot) {
        let Some((id, deadline)) = self.inheritance.take() else {
            return;
        };
        let ours = snapshot.members.get(&self.settings.node).filter(|member| {
            member.lease == id && member.record.instance == self.settings.instance
        });
        match ours {
            Some(member) => {
                let ttl = Duration::from_millis(member.record.ttl_ms);
                let lease = Lease::new(id, ttl, deadline, self.now);
                let written = Some((member.mod_revision, member.record.clone()));
                self.membership = Membership::In {
                    lease,
                    written,
                    join_at: self.now,
                };
                self.report(Report::Joined {
                    lease: id,
                    ttl,
                    resumed: true,
                });
            }
            None => self.out.push(Action::Remember(None)),
        }
    }

    fn take_in_changes(&mut self, changes: Vec<Change>) {
        if !self.view.is_watching() {
            return;
        }
        // Members first: who is a candidate for a vacancy is decided after all of its revision.
        for change in &changes {
            self.view.take_in_change(change);
        }
        self.forget_member_key_if_gone();
        for change in changes {
            match change {
                Change::OwnerPut(ip, held) => {
                    let revision = held.mod_revision;
                    if let Some(vip) = self
                        .vips
                        .get_mut(&ip)
                        .filter(|vip| vip.revision <= revision)
                    {
                        vip.revision = revision;
                        vip.key = Key::Held(held);
                    }
                }
                Change::OwnerGone { vip, revision } => self.learn_vacancy(vip, revision),
                Change::MemberPut(..) | Change::MemberGone { .. } => {}
            }
        }
    }

    /// A vacancy that we watched arise: it may be claimed as soon as it is our turn.
    fn learn_vacancy(&mut self, ip: IpAddr, revision: i64) {
        let Some(vip) = self
            .vips
            .get_mut(&ip)
            .filter(|vip| vip.revision <= revision)
        else {
            return;
        };
        if matches!(vip.key, Key::Vacant { .. }) {
            return;
        }
        vip.revision = revision;
        self.cause = match vip.owner() {
            Some(owner) => format!("{owner} released it or its lease ended"),
            None => "its key was deleted".to_owned(),
        };
        let rank = rank::rank(&self.view.members, ip, vip.owner(), &self.settings.node);
        let place = rank.unwrap_or(u32::try_from(self.view.members.len()).unwrap_or(u32::MAX));
        vip.key = Key::Vacant {
            claim_at: self.now + QUEUE_STEP.saturating_mul(place),
        };
    }

    /// What a read says of an owner key. A vacancy that was only found may be one whose last
    /// owner's gate is still open: it waits out the longest TTL.
    fn learn_by_reading(
        &mut self,
        ip: IpAddr,
        found: Option<Keyed<OwnerRecord>>,
        revision: i64,
        longest_ttl: Duration,
    ) {
        let claim_at = self.now + longest_ttl;
        let Some(vip) = self
            .vips
            .get_mut(&ip)
            .filter(|vip| vip.revision <= revision)
        else {
            return;
        };
        vip.revision = revision;
        match found {
            Some(held) => vip.key = Key::Held(held),
            None if matches!(vip.key, Key::Vacant { .. }) => {}
            None => {
                vip.key = Key::Vacant { claim_at };
                self.report(Report::WaitingOut {
                    vip: ip,
                    wait: longest_ttl,
                });
            }
        }
    }

    fn take_in_grant(&mut self, sent_at: BootInstant, id: LeaseId, ttl: Duration) {
        if !matches!(self.membership, Membership::Out { .. }) {
            return;
        }
        if ttl != self.settings.ttl {
            self.report(Report::TtlRaised {
                asked: self.settings.ttl,
                granted: ttl,
            });
        }
        // A grant is committed by a quorum, so it needs no further proof.
        let deadline = Lease::deadline_after(sent_at, ttl);
        let lease = Lease::new(id, ttl, deadline, self.now);
        self.membership = Membership::In {
            lease,
            written: None,
            join_at: self.now,
        };
        self.out.push(Action::Remember(Some(id)));
        // No gate is open: a lease is asked for only when all shared IPs are down.
        self.out.push(Action::SetLeaseDeadline(deadline));
    }

    fn take_in_confirmation(&mut self, round: RoundId, snapshot: &Snapshot) {
        let Membership::In { lease, .. } = &mut self.membership else {
            return;
        };
        let Some(known) = lease.known_revision(round) else {
            return;
        };
        if snapshot.revision < known || self.view.is_of_another_cluster(snapshot) {
            self.view.lose_watch(self.now);
            self.report(Report::Resync {
                cause: "a read answered from another history".to_owned(),
            });
            return;
        }
        let lease_id = lease.id;
        let member_key_is_ours = snapshot
            .members
            .get(&self.settings.node)
            .is_some_and(|member| member.lease == lease_id);
        let reading = Reading {
            raft_term: snapshot.raft_term,
            revision: snapshot.revision,
            member_key_is_ours,
        };
        lease.read(round, reading);
        // Only of our own keys: whose vacancy it is to claim, the watch says.
        let longest = self.longest_ttl(snapshot);
        for ip in self.settings.vips.clone() {
            let found = snapshot.owners.get(&ip);
            let concerns_us = self.vips[&ip].is_on(Some(lease_id))
                || found.is_some_and(|held| held.lease == lease_id);
            if concerns_us {
                if let Some(other) = found.filter(|held| held.lease != lease_id) {
                    self.cause = format!("etcd has {} as the owner", other.record.node);
                }
                self.learn_by_reading(ip, found.cloned(), snapshot.revision, longest);
            }
        }
        self.judge(round);
    }

    fn judge(&mut self, round: RoundId) {
        let Some(lease) = self.lease_mut() else {
            return;
        };
        let id = lease.id;
        match lease.judge(round) {
            Verdict::Open => {}
            Verdict::Counts(deadline) => {
                // Gates that are no longer ours are shut before the deadline moves for all.
                self.advance_vips();
                if let Some(lease) = self.lease_mut().filter(|lease| deadline > lease.deadline) {
                    lease.deadline = deadline;
                    self.out.push(Action::SetLeaseDeadline(deadline));
                }
            }
            Verdict::Stale {
                renewed_in,
                read_in,
            } => {
                self.report(Report::StaleRenewal {
                    renewed_in,
                    read_in,
                });
                let now = self.now;
                if let Some(lease) = self.lease_mut() {
                    lease.next_round_at = now;
                }
            }
            Verdict::Unseen { read_at } => self.forget_member_key_unless_newer_than(read_at),
            Verdict::Gone => self.lose_lease(id, "etcd no longer knows it".to_owned()),
        }
    }

    fn take_in_join(&mut self, outcome: Outcome<MemberRecord>) {
        let Some(record) = self.joining.take() else {
            return;
        };
        let node = self.settings.node.clone();
        let now = self.now;
        match outcome {
            Outcome::Committed { revision } => {
                let Membership::In { lease, written, .. } = &mut self.membership else {
                    return;
                };
                let first = written.is_none();
                let (id, ttl) = (lease.id, lease.ttl);
                *written = Some((revision, record.clone()));
                let keyed = Keyed {
                    lease: id,
                    mod_revision: revision,
                    record,
                };
                self.view.members.insert(node, keyed);
                if first {
                    self.report(Report::Joined {
                        lease: id,
                        ttl,
                        resumed: false,
                    });
                }
            }
            Outcome::Refused { current, .. } => {
                match current {
                    Some(other) => self.view.members.insert(node, other),
                    None => self.view.members.remove(&node),
                };
                self.forget_member_key();
            }
            Outcome::LeaseGone => {
                if let Some((id, ..)) = self.lease() {
                    self.lose_lease(id, "etcd refused to attach our key to it".to_owned());
                }
            }
            Outcome::Unknown(_) => {
                if let Membership::In { lease, join_at, .. } = &mut self.membership {
                    *join_at = now + lease.ttl / 6;
                }
            }
        }
    }

    fn take_in_outcome(&mut self, ip: IpAddr, outcome: Outcome<OwnerRecord>) {
        let longest = self.ttl();
        let lease = self.lease().map(|(id, ..)| id);
        let Some(vip) = self.vips.get_mut(&ip) else {
            return;
        };
        let pending = vip.pending.take();
        match outcome {
            Outcome::Committed { revision } if revision < vip.revision => {}
            Outcome::Committed { revision } => {
                vip.revision = revision;
                match (pending, lease) {
                    // It gave up its turn by this: whoever is next goes first.
                    (Some(vip::Pending::Release) | None, _) | (_, None) => {
                        vip.key = Key::Vacant {
                            claim_at: self.now + longest,
                        };
                    }
                    (Some(vip::Pending::Claim | vip::Pending::Reassert), Some(lease)) => {
                        let mac = vip.fit.unwrap_or_default();
                        let record = OwnerRecord {
                            mac,
                            ..self.owner_record()
                        };
                        let held = Keyed {
                            lease,
                            mod_revision: revision,
                            record,
                        };
                        if let Some(vip) = self.vips.get_mut(&ip) {
                            vip.key = Key::Held(held);
                        }
                    }
                }
            }
            Outcome::Refused { current, revision } => {
                self.learn_by_reading(ip, current, revision, longest);
            }
            Outcome::LeaseGone => {
                if let Some(id) = lease {
                    self.lose_lease(id, "etcd refused to attach a key to it".to_owned());
                }
            }
            Outcome::Unknown(error) => {
                vip.key = Key::Unknown;
                self.view.lose_watch(self.now);
                self.report(Report::Doubt {
                    vip: ip,
                    cause: error,
                });
            }
        }
    }

    fn ask_for_a_lease(&mut self) {
        let quiet = self.vips.values().all(Vip::is_quiet) && self.joining.is_none();
        let wanted = quiet && self.view.is_watching() && self.stopping.is_none();
        let Membership::Out { grant_at, .. } = &mut self.membership else {
            return;
        };
        if wanted && grant_at.is_some_and(|at| self.now >= at) {
            *grant_at = None;
            self.out.push(Action::Grant {
                ttl: self.settings.ttl,
            });
        }
    }

    fn renew(&mut self) {
        let known_revision = self.view.revision;
        let Membership::In { lease, .. } = &mut self.membership else {
            return;
        };
        let leaving = self
            .stopping
            .as_ref()
            .is_some_and(|stopping| stopping.leaving);
        if self.now < lease.next_round_at || leaving {
            return;
        }
        self.next_round += 1;
        let round = RoundId(self.next_round);
        lease.begin_round(round, self.now, known_revision);
        let patience = lease.ttl / 2;
        self.out.push(Action::Renew {
            round,
            lease: lease.id,
            patience,
        });
    }

    fn write_member_key(&mut self) {
        let record = self.member_record();
        let Membership::In {
            lease,
            written,
            join_at,
        } = &self.membership
        else {
            return;
        };
        let up_to_date = written
            .as_ref()
            .is_some_and(|(_, written)| *written == record);
        if up_to_date || self.joining.is_some() || self.stopping.is_some() || self.now < *join_at {
            return;
        }
        let standing = self.view.members.get(&self.settings.node);
        if let Some(other) = standing.filter(|standing| standing.record.instance != record.instance)
        {
            let other = other.record.clone();
            self.meet_namesake(other, &record);
            return;
        }
        let replacing = standing.map(|standing| standing.mod_revision);
        let lease = lease.id;
        self.joining = Some(record.clone());
        self.out.push(Action::Join {
            lease,
            record,
            replacing,
        });
    }

    /// A live member has our name. With a MAC of ours it is what this machine left behind, and
    /// goes with its lease; else it is another machine, and one of the two is named wrongly.
    fn meet_namesake(&mut self, other: MemberRecord, ours: &MemberRecord) {
        let own_past = ours.macs.is_empty() || !ours.macs.is_disjoint(&other.macs);
        let patience = 2 * Duration::from_millis(other.ttl_ms) + Duration::from_secs(5);
        let now = self.now;
        let since = *self.view.namesake_since.get_or_insert(now);
        if !own_past || now >= since + patience {
            self.stop(Exit::NameTaken { other });
            return;
        }
        if since == now {
            self.report(Report::NameBusy { other });
        }
        if let Membership::In { lease, join_at, .. } = &mut self.membership {
            *join_at = now + lease.ttl / 6;
        }
    }

    fn advance_vips(&mut self) {
        for ip in self.settings.vips.clone() {
            self.with_vip(ip, Vip::advance);
        }
    }

    fn tell_members(&mut self) {
        let macs: BTreeSet<Mac> = self
            .members()
            .flat_map(|member| member.macs.iter().copied())
            .collect();
        if macs != self.told_members {
            self.told_members.clone_from(&macs);
            self.out.push(Action::SetMembers(macs));
        }
    }

    fn stop(&mut self, exit: Exit) {
        let by = self.now + self.ttl() + Duration::from_secs(2);
        self.stopping.get_or_insert(Stopping {
            exit,
            by,
            leaving: false,
        });
    }

    fn finish_stop(&mut self) {
        let lease = self.lease().map(|(id, ..)| id);
        let quiet = self
            .vips
            .values()
            .all(|vip| vip.is_quiet() && !vip.is_on(lease));
        let Some(stopping) = &mut self.stopping else {
            return;
        };
        if self.now >= stopping.by {
            self.exit();
        } else if quiet && !stopping.leaving && self.joining.is_none() {
            stopping.leaving = true;
            match lease {
                Some(lease) => self.out.push(Action::Leave { lease }),
                None => self.exit(),
            }
        }
    }

    fn exit(&mut self) {
        let Some(stopping) = self.stopping.take() else {
            return;
        };
        if stopping.exit != Exit::Held {
            self.out.push(Action::SetLeaseDeadline(BootInstant::BOOT));
            self.out.push(Action::Remember(None));
        }
        self.out.push(Action::Exit(stopping.exit));
        self.over = true;
    }

    fn lose_lease(&mut self, lease: LeaseId, cause: String) {
        // First of all: one store shuts every gate.
        self.out.push(Action::SetLeaseDeadline(BootInstant::BOOT));
        self.out.push(Action::Remember(None));
        self.cause = format!("the lease was lost: {cause}");
        self.report(Report::LeaseLost { lease, cause });
        self.membership = Membership::Out {
            grant_at: Some(self.now),
            failures: 0,
        };
    }

    fn forget_member_key_if_gone(&mut self) {
        let standing = self
            .view
            .members
            .get(&self.settings.node)
            .map(|member| member.lease);
        if self.is_joined() && standing != self.lease().map(|(id, ..)| id) {
            self.forget_member_key();
        }
    }

    fn forget_member_key_unless_newer_than(&mut self, read_at: i64) {
        if let Membership::In {
            written: Some((written_at, _)),
            ..
        } = &self.membership
            && *written_at <= read_at
        {
            self.forget_member_key();
        }
    }

    fn forget_member_key(&mut self) {
        let now = self.now;
        if let Membership::In {
            written, join_at, ..
        } = &mut self.membership
        {
            *written = None;
            *join_at = now;
        }
    }

    fn with_vip(
        &mut self,
        ip: IpAddr,
        step: impl FnOnce(&mut Vip, &Surroundings<'_>, &mut Vec<Action>),
    ) {
        let record = self.owner_record();
        let around = Surroundings {
            now: self.now,
            lease: self.confirmed_lease(),
            record: &record,
            may_claim: self.is_joined() && self.view.is_watching() && self.stopping.is_none(),
            stopping: self.stopping.is_some(),
            cool_down: self.ttl(),
        };
        if let Some(vip) = self.vips.get_mut(&ip) {
            step(vip, &around, &mut self.out);
        }
    }

    fn report_transitions(&mut self) {
        let lease = self.confirmed_lease();
        for vip in self.vips.values_mut() {
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

    fn member_record(&self) -> MemberRecord {
        let fit = || {
            self.vips
                .values()
                .filter_map(|vip| Some((vip.ip, vip.fit?)))
        };
        MemberRecord {
            node: self.settings.node.clone(),
            instance: self.settings.instance.clone(),
            host: self.settings.host.clone(),
            macs: fit().map(|(_, mac)| mac).collect(),
            ttl_ms: to_ms(self.ttl()),
            vips: fit().map(|(ip, _)| ip).collect(),
            version: self.settings.version.clone(),
        }
    }

    fn owner_record(&self) -> OwnerRecord {
        OwnerRecord {
            node: self.settings.node.clone(),
            instance: self.settings.instance.clone(),
            mac: Mac::default(),
            ttl_ms: to_ms(self.ttl()),
            since: String::new(),
        }
    }

    /// The granted TTL, or the one to ask for.
    fn ttl(&self) -> Duration {
        self.lease().map_or(self.settings.ttl, |(_, ttl, _)| ttl)
    }

    fn longest_ttl(&self, snapshot: &Snapshot) -> Duration {
        let members = snapshot.members.values().map(|member| member.record.ttl_ms);
        let owners = snapshot.owners.values().map(|owner| owner.record.ttl_ms);
        let longest = members.chain(owners).max().unwrap_or(0);
        Duration::from_millis(longest).max(self.ttl())
    }

    fn confirmed_lease(&self) -> Option<(LeaseId, BootInstant)> {
        self.lease().map(|(id, _, deadline)| (id, deadline))
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
        Event::Left => "left".to_owned(),
        Event::GateSet(_) => "gate set".to_owned(),
        Event::AddressAdded(_) => "address added".to_owned(),
        Event::AddressFailed(_, error) => format!("address not added: {error}"),
        Event::AddressRemoved(_) => "address removed".to_owned(),
        Event::Fitness(_, Some(_)) => "interface ready".to_owned(),
        Event::Fitness(_, None) => "interface not ready".to_owned(),
        Event::Stop(Stop::Release) => "asked to stop".to_owned(),
        Event::Stop(Stop::Hold) => "asked to hold".to_owned(),
    }
}
