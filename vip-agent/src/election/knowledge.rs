//! What is learnt of the owner keys: from full reads, from the watch, and from the answers to our
//! own transactions.

use std::{net::IpAddr, time::Duration};

use super::{
    Action, Change, Election, Keyed, Outcome, OwnerRecord, QUEUE_STEP, Report, Snapshot, rank,
    vip::{Key, Pending},
};

impl Election {
    pub(super) fn take_in_read(&mut self, snapshot: Snapshot) {
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

    pub(super) fn take_in_changes(&mut self, changes: Vec<Change>) {
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
    pub(super) fn learn_vacancy(&mut self, ip: IpAddr, revision: i64) {
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
    pub(super) fn learn_by_reading(
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

    pub(super) fn take_in_outcome(&mut self, ip: IpAddr, outcome: Outcome<OwnerRecord>) {
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
                    (Some(Pending::Release) | None, _) | (_, None) => {
                        vip.key = Key::Vacant {
                            claim_at: self.now + longest,
                        };
                    }
                    (Some(Pending::Claim | Pending::Reassert), Some(lease)) => {
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

    pub(super) fn longest_ttl(&self, snapshot: &Snapshot) -> Duration {
        let members = snapshot.members.values().map(|member| member.record.ttl_ms);
        let owners = snapshot.owners.values().map(|owner| owner.record.ttl_ms);
        let longest = members.chain(owners).max().unwrap_or(0);
        Duration::from_millis(longest).max(self.ttl())
    }
}
