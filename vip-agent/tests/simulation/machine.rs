//! The machine under test: the election that ships, or one that breaks a single rule.
//!
//! A mutant is made at the machine's edge, by changing what it hears or what it says, so that no
//! line of what ships is there for the tests' sake.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use vip_agent::election::{
    Action, BootInstant, Change, Election, Event, Gate, Keyed, LeaseId, Mac, MemberRecord, Outcome,
    OwnerRecord, Progress, Report, Role, Settings, Snapshot, Version,
};

use super::etcd::keyed;

/// A rule that is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// The deadline is the lease's end itself.
    NoMargin,
    /// The deadline counts from when the renewal was answered.
    DeadlineFromReceipt,
    /// The deadline counts from the newest renewal sent, whichever was answered.
    DeadlineFromNewestSend,
    /// A renewal counts without a read that confirms it.
    NoConfirmingRead,
    /// A key that bears our name is ours, whatever lease it is on.
    OwnershipByName,
    /// A gate opens again after a give-up was sent, on the revision that this would delete.
    ReopensOnTheOldRevision,
    /// What was only found vacant is claimed like what was seen to become vacant.
    ClaimsWhatItFoundVacant,
    /// The key is given up before the gate is shut.
    ReleasesBeforeTheGateIsShut,
    /// The TTL that was asked for counts, not the one that was granted.
    TtlAskedFor,
    /// Strangers are not listened to.
    DeafToStrangers,
    /// What was only found vacant is claimed without a question.
    ClaimsUnasked,
    /// The key is handed over before the gate is shut.
    HandsOverBeforeTheGateIsShut,
    /// A gate opens again after a hand-over was sent and not answered, although it may yet come.
    ReopensAfterAHandOver,
    /// The successor opens when it is named.
    OpensWhenItIsNamed,
    /// A hand-over puts the key on the successor's lease, whoever has it by then.
    HandsOverWhateverIsThere,
    /// A hand-over puts the key on the lease that the successor had, whether it still has it or not.
    HandsOverToAnyLease,
    /// A part of a group is claimed.
    ClaimsHalfAGroup,
    /// Who is drained claims.
    ClaimsWhileDrained,
}

impl Mutant {
    pub const ALL: [Self; 18] = [
        Self::NoMargin,
        Self::DeadlineFromReceipt,
        Self::DeadlineFromNewestSend,
        Self::NoConfirmingRead,
        Self::OwnershipByName,
        Self::ReopensOnTheOldRevision,
        Self::ClaimsWhatItFoundVacant,
        Self::ReleasesBeforeTheGateIsShut,
        Self::TtlAskedFor,
        Self::DeafToStrangers,
        Self::ClaimsUnasked,
        Self::HandsOverBeforeTheGateIsShut,
        Self::ReopensAfterAHandOver,
        Self::OpensWhenItIsNamed,
        Self::HandsOverWhateverIsThere,
        Self::HandsOverToAnyLease,
        Self::ClaimsHalfAGroup,
        Self::ClaimsWhileDrained,
    ];

    /// Whether it breaks the rules about strangers: those of the others are not looked at for these.
    pub fn is_about_strangers(self) -> bool {
        matches!(self, Self::DeafToStrangers | Self::ClaimsUnasked)
    }
}

pub struct Machine {
    election: Election,
    mutant: Option<Mutant>,
    settings: Settings,
    /// When the newest renewal was sent.
    sent_at: BootInstant,
    /// The newest revision that an answer told of.
    newest_revision: i64,
    /// The members as full reads and the watch told of them.
    members: BTreeMap<String, Keyed<MemberRecord>>,
    found_vacant: BTreeSet<IpAddr>,
    /// To whom what is being handed over goes.
    heirs: BTreeMap<IpAddr, String>,
    /// The lease that etcd granted, and those of keys by their revisions, where it is told of another.
    lease: Option<LeaseId>,
    real_leases: BTreeMap<i64, LeaseId>,
}

/// What all leases are to a machine that goes by its name.
const ONE_LEASE: LeaseId = LeaseId(1);

impl Machine {
    pub fn new(election: Election, settings: Settings, mutant: Option<Mutant>) -> Self {
        Self {
            election,
            mutant,
            settings,
            sent_at: BootInstant::BOOT,
            newest_revision: 0,
            members: BTreeMap::new(),
            found_vacant: BTreeSet::new(),
            heirs: BTreeMap::new(),
            lease: None,
            real_leases: BTreeMap::new(),
        }
    }

    pub fn next_timeout(&self) -> Option<BootInstant> {
        self.election.next_timeout()
    }

    /// Whether the machine takes a shared IP for vacant.
    pub fn is_vacant(&self, vip: IpAddr, now: BootInstant) -> bool {
        let role = self.election.role(vip, now);
        matches!(role, Some((Role::Vacant | Role::Claiming, ..)))
    }

    /// Whether the machine takes a shared IP for its own.
    pub fn owns(&self, vip: IpAddr, now: BootInstant) -> bool {
        let role = self.election.role(vip, now);
        role.is_some_and(|(_, owner, _)| owner == Some(&self.settings.node))
    }

    /// All shared IPs of the groups of these.
    pub fn group_of(&self, vips: &BTreeSet<IpAddr>) -> BTreeSet<IpAddr> {
        let group = |vip: &IpAddr| self.settings.vips.get(vip)?.group.as_ref();
        let groups: BTreeSet<_> = vips.iter().filter_map(group).collect();
        let all = self.settings.vips.keys().copied();
        all.filter(|vip| group(vip).is_some_and(|one| groups.contains(one)))
            .collect()
    }

    pub fn lease(&self) -> Option<LeaseId> {
        let (lease, ..) = self.election.lease()?;
        self.lease.or(Some(lease))
    }

    pub fn handle(&mut self, now: BootInstant, event: Event) -> Vec<Action> {
        if let Event::Configure(vips) = &event {
            self.settings.vips.clone_from(vips);
        }
        let Some(mutant) = self.mutant else {
            return self.election.handle(now, event);
        };
        self.newest_revision = self.newest_revision.max(revision_told_by(&event));
        self.note_members(&event);
        let mut actions = Vec::new();
        for event in self.mishear(mutant, now, event) {
            for action in self.election.handle(now, event) {
                self.misspeak(mutant, now, action, &mut actions);
            }
        }
        if mutant == Mutant::ClaimsWhatItFoundVacant {
            actions.extend(self.claims_for_the_found(now));
        }
        actions
    }

    fn mishear(&mut self, mutant: Mutant, now: BootInstant, event: Event) -> Vec<Event> {
        match (mutant, event) {
            (Mutant::NoConfirmingRead, Event::Confirmed { .. })
            | (Mutant::DeafToStrangers, Event::Conflict { .. }) => Vec::new(),
            (
                Mutant::NoConfirmingRead,
                Event::Renewed {
                    round,
                    ttl,
                    raft_term,
                },
            ) if !ttl.is_zero() => {
                let snapshot = self.what_it_believes(now);
                let renewed = Event::Renewed {
                    round,
                    ttl,
                    raft_term,
                };
                vec![renewed, Event::Confirmed { round, snapshot }]
            }
            (Mutant::TtlAskedFor, event) => vec![self.with_ttl_asked_for(event)],
            (Mutant::OwnershipByName, event) => vec![self.with_ownership_by_name(event)],
            (Mutant::ReopensAfterAHandOver, Event::Transferred(vip, Outcome::Unknown(_))) => {
                vec![self.as_if_refused(now, vip)]
            }
            (Mutant::OpensWhenItIsNamed, Event::Watched(mut changes)) => {
                for change in &mut changes {
                    if let (Change::OwnerPut(_, owner), Some(lease)) = (change, self.lease())
                        && owner.record.successor.as_ref() == Some(&self.settings.node)
                    {
                        owner.lease = lease;
                    }
                }
                vec![Event::Watched(changes)]
            }
            (Mutant::ClaimsWhileDrained, Event::Read(mut snapshot)) => {
                snapshot.drained.remove(&self.settings.node);
                vec![Event::Read(snapshot)]
            }
            (Mutant::ClaimsWhileDrained, Event::Watched(mut changes)) => {
                changes.retain(|change| {
                    !matches!(change, Change::Drained { node, .. } if *node == self.settings.node)
                });
                vec![Event::Watched(changes)]
            }
            (_, event) => vec![event],
        }
    }

    fn misspeak(
        &mut self,
        mutant: Mutant,
        now: BootInstant,
        action: Action,
        out: &mut Vec<Action>,
    ) {
        match &action {
            Action::Renew { .. } => self.sent_at = now,
            Action::Report(Report::WaitingOut { vip, .. }) => {
                self.found_vacant.insert(*vip);
            }
            Action::Report(Report::HandOver {
                vips, to, progress, ..
            }) => {
                for vip in vips {
                    self.heirs.remove(vip);
                    if *progress == Progress::Begun {
                        self.heirs.insert(*vip, to.clone());
                    }
                }
            }
            _ => {}
        }
        let lease = self.election.lease();
        let after = |from: BootInstant, ttl: Duration| from + (ttl - ttl / 6);
        let action = match (mutant, action, lease) {
            (Mutant::NoMargin, Action::SetLeaseDeadline(at), Some((_, ttl, _))) => {
                Action::SetLeaseDeadline(at + ttl / 6)
            }
            (Mutant::DeadlineFromReceipt, Action::SetLeaseDeadline(_), Some((_, ttl, _))) => {
                Action::SetLeaseDeadline(after(now, ttl))
            }
            (Mutant::DeadlineFromNewestSend, Action::SetLeaseDeadline(at), Some((_, ttl, _))) => {
                Action::SetLeaseDeadline(at.max(after(self.sent_at, ttl)))
            }
            (Mutant::ReopensOnTheOldRevision, Action::Reassert { vip, version, .. }, _) => {
                let revision = self.newest_revision.max(version.mod_revision + 1);
                let done = Event::Reasserted(vip, Outcome::Committed { revision });
                for action in self.election.handle(now, done) {
                    self.misspeak(mutant, now, action, out);
                }
                return;
            }
            (
                Mutant::ReleasesBeforeTheGateIsShut,
                action @ Action::SetGate(vip, Gate::Closed { epoch, .. }),
                Some((lease, ..)),
            ) => {
                if let Some((Role::GivingUp, ..)) = self.election.role(vip, now) {
                    let version = Version {
                        lease,
                        mod_revision: epoch,
                    };
                    out.push(Action::Release { vip, version });
                }
                action
            }
            (Mutant::OwnershipByName, action, _) => self.with_real_leases(action),
            (Mutant::ClaimsUnasked, Action::Probe(_), _) => return,
            (
                Mutant::HandsOverBeforeTheGateIsShut,
                action @ Action::SetGate(vip, Gate::Closed { epoch, .. }),
                Some((lease, ..)),
            ) => {
                out.extend(self.early_transfer(vip, lease, epoch));
                action
            }
            (Mutant::ClaimsHalfAGroup, Action::Claim { lease, mut records }, _) => {
                while records.len() > 1 {
                    records.pop_last();
                }
                Action::Claim { lease, records }
            }
            (_, action, _) => action,
        };
        out.push(action);
    }

    /// What a machine that asks nobody would read: that all is as it thinks.
    fn what_it_believes(&self, now: BootInstant) -> Snapshot {
        let (cluster_id, revision) = self.election.history();
        let lease = self.lease().unwrap_or(LeaseId(0));
        let node = self.settings.node.clone();
        let mut owners = BTreeMap::new();
        for vip in self.settings.vips.keys() {
            if let Some((Role::Owner | Role::Suspended, _, epoch)) = self.election.role(*vip, now) {
                owners.insert(*vip, keyed(lease, epoch, self.owner_record(&node)));
            }
        }
        let record = MemberRecord {
            instance: self.settings.instance.clone(),
            ..MemberRecord::nobody(&node)
        };
        let mut members = self.members.clone();
        let ours = members.get(&node).filter(|member| member.lease == lease);
        if ours.is_none() {
            members.insert(node, keyed(lease, revision, record));
        }
        Snapshot {
            cluster_id,
            raft_term: 0,
            revision,
            members,
            owners,
            drained: BTreeMap::new(),
        }
    }

    /// What it would be told if the transaction had come to nothing, at a new revision.
    fn as_if_refused(&self, now: BootInstant, vip: IpAddr) -> Event {
        let revision = self.newest_revision + 1;
        let owns = self.owns(vip, now);
        let record = self.owner_record(&self.settings.node);
        let ours = self.lease().filter(|_| owns);
        let current = ours.map(|lease| keyed(lease, revision, record));
        Event::Transferred(vip, Outcome::Refused { current, revision })
    }

    fn early_transfer(&self, vip: IpAddr, lease: LeaseId, epoch: i64) -> Option<Action> {
        let to = self.heirs.get(&vip)?;
        let successor = self.members.get(to)?;
        let version = Version {
            lease,
            mod_revision: epoch,
        };
        let record = self.owner_record(to);
        Some(Action::Transfer {
            to: to.clone(),
            lease: successor.lease,
            records: BTreeMap::from([(vip, (version, record))]),
        })
    }

    fn note_members(&mut self, event: &Event) {
        match event {
            Event::Read(snapshot) => self.members.clone_from(&snapshot.members),
            Event::Watched(changes) => {
                for change in changes {
                    match change {
                        Change::MemberPut(node, member) => {
                            self.members.insert(node.clone(), member.clone());
                        }
                        Change::MemberGone { node, .. } => {
                            self.members.remove(node);
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }

    fn with_ttl_asked_for(&self, event: Event) -> Event {
        let asked = self.settings.ttl;
        match event {
            Event::Granted { sent_at, lease, .. } => Event::Granted {
                sent_at,
                lease,
                ttl: asked,
            },
            Event::Renewed {
                round,
                ttl,
                raft_term,
            } if !ttl.is_zero() => Event::Renewed {
                round,
                ttl: asked,
                raft_term,
            },
            event => event,
        }
    }

    /// To this machine all its leases are one, and every owner key of its name is on it.
    fn with_ownership_by_name(&mut self, event: Event) -> Event {
        match event {
            Event::Granted {
                sent_at,
                lease,
                ttl,
            } => {
                self.lease = Some(lease);
                Event::Granted {
                    sent_at,
                    lease: ONE_LEASE,
                    ttl,
                }
            }
            Event::Read(snapshot) => Event::Read(self.all_mine_by_name(snapshot)),
            Event::Confirmed { round, snapshot } => Event::Confirmed {
                round,
                snapshot: self.all_mine_by_name(snapshot),
            },
            Event::Watched(changes) => {
                let change = |change| match change {
                    Change::OwnerPut(vip, owner) => {
                        let by_name = owner.record.node == self.settings.node;
                        Change::OwnerPut(vip, self.mine_if(by_name, owner))
                    }
                    Change::MemberPut(node, member) => {
                        let current = self.lease == Some(member.lease);
                        Change::MemberPut(node, self.mine_if(current, member))
                    }
                    change => change,
                };
                Event::Watched(changes.into_iter().map(change).collect())
            }
            event => event,
        }
    }

    fn all_mine_by_name(&mut self, snapshot: Snapshot) -> Snapshot {
        let node = self.settings.node.clone();
        let lease = self.lease;
        let owners = snapshot.owners.into_iter();
        let owners = owners.map(|(vip, owner)| {
            let by_name = owner.record.node == node;
            (vip, self.mine_if(by_name, owner))
        });
        let owners = owners.collect();
        let members = snapshot.members.into_iter();
        let members = members.map(|(name, member)| {
            let current = lease == Some(member.lease);
            (name, self.mine_if(current, member))
        });
        Snapshot {
            members: members.collect(),
            owners,
            ..snapshot
        }
    }

    fn mine_if<T>(&mut self, mine: bool, mut keyed: Keyed<T>) -> Keyed<T> {
        if mine {
            self.real_leases.insert(keyed.mod_revision, keyed.lease);
            keyed.lease = ONE_LEASE;
        }
        keyed
    }

    /// What it says of its one lease, as etcd knows it.
    fn with_real_leases(&self, action: Action) -> Action {
        let current = |lease: LeaseId| match self.lease {
            Some(real) if lease == ONE_LEASE => real,
            _ => lease,
        };
        let standing = |version: Version| {
            let real = self.real_leases.get(&version.mod_revision);
            let lease = real.copied().filter(|_| version.lease == ONE_LEASE);
            Version {
                lease: lease.unwrap_or_else(|| current(version.lease)),
                ..version
            }
        };
        match action {
            Action::Remember(lease) => Action::Remember(lease.map(current)),
            Action::Renew {
                round,
                lease,
                patience,
            } => Action::Renew {
                round,
                lease: current(lease),
                patience,
            },
            Action::Join {
                lease,
                record,
                replacing,
            } => Action::Join {
                lease: current(lease),
                record,
                replacing: replacing.map(standing),
            },
            Action::Claim { lease, records } => Action::Claim {
                lease: current(lease),
                records,
            },
            Action::Transfer { to, lease, records } => {
                let records = records.into_iter();
                let records = records
                    .map(|(vip, (version, record))| (vip, (standing(version), record)))
                    .collect();
                Action::Transfer { to, lease, records }
            }
            Action::Reassert {
                vip,
                version,
                record,
            } => Action::Reassert {
                vip,
                version: standing(version),
                record,
            },
            Action::Release { vip, version } => Action::Release {
                vip,
                version: standing(version),
            },
            Action::Leave { lease } => Action::Leave {
                lease: current(lease),
            },
            action => action,
        }
    }

    /// Claims for all that is vacant and was not seen to become so.
    fn claims_for_the_found(&mut self, now: BootInstant) -> Vec<Action> {
        let Some(lease) = self.lease().filter(|_| self.election.is_joined()) else {
            return Vec::new();
        };
        let election = &self.election;
        let vacant = |vip: &IpAddr| matches!(election.role(*vip, now), Some((Role::Vacant, ..)));
        let found: Vec<IpAddr> = self.found_vacant.extract_if(.., vacant).collect();
        let record = self.owner_record(&self.settings.node);
        let units = found.into_iter().map(|vip| {
            let mut unit = self.group_of(&BTreeSet::from([vip]));
            unit.insert(vip);
            unit
        });
        let units: BTreeSet<BTreeSet<IpAddr>> = units.collect();
        let claims = units.into_iter().map(|unit| Action::Claim {
            lease,
            records: unit.into_iter().map(|vip| (vip, record.clone())).collect(),
        });
        claims.collect()
    }

    fn owner_record(&self, node: &str) -> OwnerRecord {
        OwnerRecord {
            node: node.to_owned(),
            instance: self.settings.instance.clone(),
            mac: Mac::default(),
            ttl_ms: 0,
            since: String::new(),
            successor: None,
        }
    }
}

fn revision_told_by(event: &Event) -> i64 {
    match event {
        Event::Read(snapshot) | Event::Confirmed { snapshot, .. } => snapshot.revision,
        Event::Watched(changes) => changes.last().map_or(0, Change::revision),
        Event::Claimed(_, outcome)
        | Event::Reasserted(_, outcome)
        | Event::Released(_, outcome)
        | Event::Transferred(_, outcome) => outcome.revision().unwrap_or(0),
        _ => 0,
    }
}
