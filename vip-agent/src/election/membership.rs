//! The lease and the member key: to get them, to keep them, and to notice that they have gone.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use super::{
    Action, BootInstant, Election, Exit, Keyed, LeaseId, Mac, MemberRecord, Membership, Outcome,
    Readiness, Report, RoundId, Scope, Snapshot,
    lease::{Lease, Reading, Verdict},
    record::DEFAULT_PRIORITY,
    to_ms,
    units::UnitId,
    vip::Vip,
};

impl Election {
    /// Goes on with an earlier process' lease, if etcd still has our member key on it.
    pub(super) fn resume(&mut self, snapshot: &Snapshot) {
        let Some((id, deadline)) = self.inheritance.take() else {
            return;
        };
        let ours = snapshot.members.get(&self.settings.node).filter(|member| {
            member.lease == id && member.record.instance == self.settings.instance
        });
        match ours {
            Some(member) => {
                let ttl = Duration::from_millis(member.record.ttl_ms);
                let mut lease = Lease::new(id, ttl, deadline, self.now);
                lease.lives_in(snapshot.raft_term, self.now);
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

    pub(super) fn take_in_grant(&mut self, sent_at: BootInstant, id: LeaseId, ttl: Duration) {
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

    pub(super) fn take_in_confirmation(&mut self, round: RoundId, snapshot: &Snapshot) {
        self.view.answered_in(snapshot.raft_term, self.now);
        let Membership::In { lease, .. } = &self.membership else {
            return;
        };
        let Some(known) = lease.known_revision(round) else {
            return;
        };
        if self.is_contradicted_by(snapshot, known) {
            self.view.lose_history(self.now);
            self.report(Report::Resync {
                cause: "a read answered from another history".to_owned(),
            });
            return;
        }
        self.view.saw(snapshot.revision);
        let Membership::In { lease, .. } = &mut self.membership else {
            return;
        };
        let lease_id = lease.id;
        let standing = snapshot.members.get(&self.settings.node);
        let member_key_is_ours = standing.is_some_and(|member| member.lease == lease_id);
        if standing.is_some_and(|member| member.record.instance != self.settings.instance) {
            self.view.namesake_seen_at = self.now;
        }
        let reading = Reading {
            raft_term: snapshot.raft_term,
            revision: snapshot.revision,
            member_key_is_ours,
        };
        lease.read(round, reading);
        // Only of our own keys: whose vacancy it is to claim, the watch says.
        let longest = self.longest_ttl(snapshot);
        for ip in self.all_vips() {
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

    pub(super) fn judge(&mut self, round: RoundId) {
        let Some(lease) = self.lease_mut() else {
            return;
        };
        let id = lease.id;
        match lease.judge(round) {
            Verdict::Open => {}
            Verdict::Counts(deadline) => {
                // Gates that are no longer ours are shut before the deadline moves for all.
                self.advance_all_vips();
                if let Some(lease) = self.lease_mut().filter(|lease| deadline > lease.deadline) {
                    lease.deadline = deadline;
                    self.out.push(Action::SetLeaseDeadline(deadline));
                }
            }
            Verdict::Outlived => {
                self.report(Report::LeaseOutlived);
                self.distrust_history();
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

    pub(super) fn take_in_join(&mut self, outcome: Outcome<MemberRecord>) {
        let Some(record) = self.joining.take() else {
            return;
        };
        self.view.saw(outcome.revision().unwrap_or(0));
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
                if self.view.is_news(revision) {
                    self.view.members.insert(node, keyed);
                }
                self.view.namesake_since = None;
                if first {
                    self.report(Report::Joined {
                        lease: id,
                        ttl,
                        resumed: false,
                    });
                }
            }
            Outcome::Refused { current, revision } => {
                if self.view.is_news(revision) {
                    match current {
                        Some(other) => self.view.members.insert(node, other),
                        None => self.view.members.remove(&node),
                    };
                }
                self.forget_member_key();
                // What stands there may be a record that can't be read, and go on standing there.
                if let Membership::In { lease, join_at, .. } = &mut self.membership {
                    *join_at = now + lease.ttl / 6;
                }
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

    pub(super) fn ask_for_a_lease(&mut self) {
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

    pub(super) fn renew(&mut self) {
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

    pub(super) fn write_member_key(&mut self) {
        let Membership::In {
            lease,
            written,
            join_at,
        } = &self.membership
        else {
            return;
        };
        if self.joining.is_some() || self.is_leaving() || self.now < *join_at {
            return;
        }
        let record = self.member_record();
        let standing = self.view.members.get(&self.settings.node);
        // One whose answer was lost may stand there, and not what was answered last.
        let up_to_date = written
            .as_ref()
            .is_some_and(|(_, written)| *written == record)
            && standing.is_none_or(|standing| standing.record == record);
        if up_to_date {
            return;
        }
        if let Some(other) = standing.filter(|standing| standing.record.instance != record.instance)
        {
            let other = other.record.clone();
            self.meet_namesake(other, &record);
            return;
        }
        let replacing = standing.map(Keyed::version);
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
    pub(super) fn meet_namesake(&mut self, other: MemberRecord, ours: &MemberRecord) {
        // Without a MAC, as when its interfaces were down, it may be either.
        let unknown = ours.macs.is_empty() || other.macs.is_empty();
        let own_past = unknown || !ours.macs.is_disjoint(&other.macs);
        let patience = 2 * Duration::from_millis(other.ttl_ms) + Duration::from_secs(5);
        let now = self.now;
        let first = self.view.namesake_since.is_none();
        let since = *self.view.namesake_since.get_or_insert(now);
        // Not what was known before a pause, but what has been seen since.
        if !own_past || self.view.namesake_seen_at >= since + patience {
            self.stop(Exit::NameTaken { other });
            return;
        }
        if first {
            self.report(Report::NameBusy { other });
        }
        if let Membership::In { lease, join_at, .. } = &mut self.membership {
            *join_at = now + lease.ttl / 6;
        }
    }

    pub(super) fn tell_members(&mut self) {
        let macs: BTreeSet<Mac> = self
            .members()
            .flat_map(|member| member.macs.iter().copied())
            .collect();
        if macs != self.told_members {
            for vip in self.vips.values_mut() {
                vip.trust(|mac| macs.contains(&mac));
            }
            self.told_members.clone_from(&macs);
            self.out.push(Action::SetMembers(macs));
        }
    }

    pub(super) fn lose_lease(&mut self, lease: LeaseId, cause: String) {
        // First of all: one store shuts every gate.
        self.out.push(Action::SetLeaseDeadline(BootInstant::BOOT));
        self.out.push(Action::Remember(None));
        self.cause = format!("the lease was lost: {cause}");
        self.report(Report::LeaseLost { lease, cause });
        self.scope = Scope::All;
        self.membership = Membership::Out {
            grant_at: Some(self.now),
            failures: 0,
        };
    }

    pub(super) fn forget_member_key_if_gone(&mut self) {
        let standing = self
            .view
            .members
            .get(&self.settings.node)
            .map(|member| member.lease);
        if self.is_joined() && standing != self.lease_id() {
            self.forget_member_key();
        }
    }

    pub(super) fn forget_member_key_unless_newer_than(&mut self, read_at: i64) {
        if let Membership::In {
            written: Some((written_at, _)),
            ..
        } = &self.membership
            && *written_at <= read_at
        {
            self.forget_member_key();
        }
    }

    pub(super) fn forget_member_key(&mut self) {
        let now = self.now;
        if let Membership::In {
            written, join_at, ..
        } = &mut self.membership
        {
            *written = None;
            *join_at = now;
        }
    }

    /// Who stops offers nothing any more.
    pub(super) fn member_record(&self) -> MemberRecord {
        let stays = self.stopping.is_none();
        let vips = || self.vips.values().filter(|vip| stays && !vip.retired);
        let fit = vips().filter(|vip| vip.is_fit(self.now));
        let unfit = vips().filter_map(|vip| Some((vip.ip, vip.why_unfit(self.now)?.to_owned())));
        let priorities = self.settings.vips.iter();
        let priorities = priorities.map(|(ip, one)| (*ip, one.priority));
        MemberRecord {
            node: self.settings.node.clone(),
            instance: self.settings.instance.clone(),
            host: self.settings.host.clone(),
            macs: self.vips.values().filter_map(Vip::mac).collect(),
            ttl_ms: to_ms(self.ttl()),
            vips: fit.map(|vip| vip.ip).collect(),
            priorities: priorities
                .filter(|(_, priority)| *priority != DEFAULT_PRIORITY)
                .collect(),
            unfit: unfit.collect(),
            ready: self.readiness_of(&self.units.ids()),
            asks: self.asks(),
            version: self.settings.version.clone(),
        }
    }

    /// Whether our member key says otherwise of what we stand ready for than is so.
    pub(super) fn is_other_word_due(&self, units: &[UnitId]) -> bool {
        let Membership::In {
            written: Some((_, written)),
            ..
        } = &self.membership
        else {
            return false;
        };
        let ready = self.readiness_of(units);
        let mut ips = units.iter().flat_map(|id| self.units.ips(*id));
        self.joining.is_none() && ips.any(|ip| ready.get(ip) != written.ready.get(ip))
    }

    /// What this node stands ready to take over from others.
    pub(super) fn readiness_of(&self, units: &[UnitId]) -> BTreeMap<IpAddr, Readiness> {
        let record = self.owner_record();
        let mut ready = BTreeMap::new();
        for id in units {
            let vips = || self.units.ips(*id).iter().map(|ip| &self.vips[ip]);
            if !vips().any(|vip| vip.successor().is_some()) {
                continue;
            }
            let around = self.surroundings(&record, *id, self.is_candidate(*id));
            let words = vips().filter_map(|vip| Some((vip.ip, vip.readiness(&around)?)));
            ready.extend(words);
        }
        ready
    }
}
