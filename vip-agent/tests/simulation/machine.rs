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
    OwnerRecord, Report, Role, Settings, Snapshot, Version,
};

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
}

impl Mutant {
    pub const ALL: [Self; 9] = [
        Self::NoMargin,
        Self::DeadlineFromReceipt,
        Self::DeadlineFromNewestSend,
        Self::NoConfirmingRead,
        Self::OwnershipByName,
        Self::ReopensOnTheOldRevision,
        Self::ClaimsWhatItFoundVacant,
        Self::ReleasesBeforeTheGateIsShut,
        Self::TtlAskedFor,
    ];
}

pub struct Machine {
    election: Election,
    mutant: Option<Mutant>,
    settings: Settings,
    /// When the newest renewal was sent.
    sent_at: BootInstant,
    /// The newest revision that an answer told of.
    newest_revision: i64,
    found_vacant: BTreeSet<IpAddr>,
}

impl Machine {
    pub fn new(election: Election, settings: Settings, mutant: Option<Mutant>) -> Self {
        Self {
            election,
            mutant,
            settings,
            sent_at: BootInstant::BOOT,
            newest_revision: 0,
            found_vacant: BTreeSet::new(),
        }
    }

    pub fn next_timeout(&self) -> Option<BootInstant> {
        self.election.next_timeout()
    }

    pub fn lease(&self) -> Option<LeaseId> {
        self.election.lease().map(|(lease, ..)| lease)
    }

    pub fn handle(&mut self, now: BootInstant, event: Event) -> Vec<Action> {
        let Some(mutant) = self.mutant else {
            return self.election.handle(now, event);
        };
        self.newest_revision = self.newest_revision.max(revision_told_by(&event));
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
            (Mutant::NoConfirmingRead, Event::Confirmed { .. }) => Vec::new(),
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
        for vip in &self.settings.vips {
            if let Some((Role::Owner | Role::Suspended, _, epoch)) = self.election.role(*vip, now) {
                owners.insert(*vip, keyed(lease, epoch, self.owner_record(&node)));
            }
        }
        let record = MemberRecord {
            instance: self.settings.instance.clone(),
            ..nobody(&node)
        };
        Snapshot {
            cluster_id,
            raft_term: 0,
            revision,
            members: BTreeMap::from([(node, keyed(lease, revision, record))]),
            owners,
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

    fn with_ownership_by_name(&self, event: Event) -> Event {
        let lease = self.lease();
        let mine = |mut owner: Keyed<OwnerRecord>| {
            if owner.record.node == self.settings.node {
                owner.lease = lease.unwrap_or(owner.lease);
            }
            owner
        };
        let all = |mut snapshot: Snapshot| {
            let owners = std::mem::take(&mut snapshot.owners);
            snapshot.owners = owners
                .into_iter()
                .map(|(vip, owner)| (vip, mine(owner)))
                .collect();
            snapshot
        };
        match event {
            Event::Read(snapshot) => Event::Read(all(snapshot)),
            Event::Confirmed { round, snapshot } => Event::Confirmed {
                round,
                snapshot: all(snapshot),
            },
            Event::Watched(changes) => Event::Watched(
                changes
                    .into_iter()
                    .map(|change| match change {
                        Change::OwnerPut(vip, owner) => Change::OwnerPut(vip, mine(owner)),
                        change => change,
                    })
                    .collect(),
            ),
            event => event,
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
        let claims = found.into_iter().map(|vip| Action::Claim {
            vip,
            lease,
            record: record.clone(),
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
        }
    }
}

fn revision_told_by(event: &Event) -> i64 {
    match event {
        Event::Read(snapshot) | Event::Confirmed { snapshot, .. } => snapshot.revision,
        Event::Watched(changes) => changes.last().map_or(0, Change::revision),
        Event::Claimed(_, outcome)
        | Event::Reasserted(_, outcome)
        | Event::Released(_, outcome) => outcome.revision().unwrap_or(0),
        _ => 0,
    }
}

fn nobody(node: &str) -> MemberRecord {
    MemberRecord {
        node: node.to_owned(),
        instance: String::new(),
        host: String::new(),
        macs: BTreeSet::new(),
        ttl_ms: 0,
        vips: BTreeSet::new(),
        version: String::new(),
    }
}

fn keyed<T>(lease: LeaseId, mod_revision: i64, record: T) -> Keyed<T> {
    Keyed {
        lease,
        mod_revision,
        record,
    }
}
