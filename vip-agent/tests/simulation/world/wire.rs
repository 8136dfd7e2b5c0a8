//! The way to etcd and back.

use std::{collections::BTreeMap, net::IpAddr};

use vip_agent::election::{Action, Event, Outcome, OwnerRecord};

use super::{Happening, Kind, Request, World};
use crate::{
    checks::Broken,
    clock::{MS, TrueNs},
};

impl World {
    pub(super) fn send(&mut self, node: u8, kind: Kind) {
        self.sequence += 1;
        let id = self.sequence;
        let (life, patience) = {
            let standing = &self.nodes[usize::from(node)];
            let whole = matches!(kind, Kind::Read | Kind::Grant { .. })
                || matches!(&kind, Kind::Change(action) if matches!(**action, Action::Leave { .. }));
            (
                standing.life,
                if whole {
                    standing.ttl
                } else {
                    standing.ttl / 2
                },
            )
        };
        self.awaited.insert(id, (node, life, kind.clone()));
        let patience = TrueNs::try_from(patience.as_nanos()).expect("a TTL fits");
        self.schedule(self.now + patience, Happening::GivesUp(id));
        let changes = matches!(kind, Kind::Grant { .. } | Kind::Change(_));
        let cut_until = self.nodes[usize::from(node)].link.requests_cut_until;
        if let Some(at) = self.leg(node, cut_until) {
            let commit = if changes { self.commit_takes() } else { 0 };
            self.sent.insert(id, Request { node, kind });
            self.schedule(at + commit, Happening::Arrives(id));
        }
    }

    /// When what is sent now by this way arrives, if ever: a cut loses it, or only holds it up.
    pub(super) fn leg(&mut self, node: u8, cut_until: TrueNs) -> Option<TrueNs> {
        let link = &self.nodes[usize::from(node)].link;
        let extra = if self.now < link.slow_until {
            link.slower_by
        } else {
            0
        };
        let takes = self.rng.u64(MS / 5..2 * MS)
            + if extra > 0 {
                self.rng.u64(0..=extra)
            } else {
                0
            };
        if self.now < cut_until {
            return self.rng.bool().then(|| cut_until + takes);
        }
        Some(self.now + takes)
    }

    fn commit_takes(&mut self) -> TrueNs {
        let (until, by) = self.etcd_slow;
        let extra = if self.now < until {
            self.rng.u64(0..=by)
        } else {
            0
        };
        self.rng.u64(MS..2 * MS) + extra
    }

    pub(super) fn arrive(&mut self, id: u64) -> Result<(), Broken> {
        let Some(Request { node, kind }) = self.sent.get(&id).cloned() else {
            return Ok(());
        };
        // A leader that was deposed, or hangs, answers renewals all the same.
        if let Kind::Renew { round, lease } = kind
            && self.rng.bool()
            && let Some(renewal) = self.etcd.renew_at_deposed(self.now, lease)
        {
            self.sent.remove(&id);
            let event = Event::Renewed {
                round,
                ttl: renewal.ttl,
                raft_term: renewal.raft_term,
            };
            self.answer(id, node, vec![event]);
            return Ok(());
        }
        if self.now < self.etcd.leaderless_until {
            let at = self.etcd.leaderless_until + self.rng.u64(1..20 * MS);
            self.schedule(at, Happening::Arrives(id));
            return Ok(());
        }
        self.sent.remove(&id);
        let before = self.etcd.revision();
        let events = self.serve(kind)?;
        self.committed(before);
        self.answer(id, node, events);
        self.check_gates()
    }

    fn serve(&mut self, kind: Kind) -> Result<Vec<Event>, Broken> {
        let now = self.now;
        let event = match kind {
            Kind::Read => Event::Read(self.etcd.read()),
            Kind::Confirm { round } => Event::Confirmed {
                round,
                snapshot: self.etcd.read(),
            },
            Kind::Renew { round, lease } => {
                let renewal = self.etcd.renew(now, lease);
                Event::Renewed {
                    round,
                    ttl: renewal.ttl,
                    raft_term: renewal.raft_term,
                }
            }
            Kind::Grant { ttl, sent_at } => {
                let (lease, ttl) = self.etcd.grant(now, ttl);
                Event::Granted {
                    sent_at,
                    lease,
                    ttl,
                }
            }
            Kind::Change(action) => match *action {
                Action::Join {
                    lease,
                    record,
                    replacing,
                } => {
                    self.note_words(&record);
                    Event::Joined(self.etcd.put_member(record, lease, replacing))
                }
                Action::Claim { lease, records } => {
                    let records = records.into_iter();
                    let records = records.map(|(vip, record)| (vip, (None, record)));
                    let outcomes = self.etcd.put_owners(records.collect(), lease, None);
                    return Ok(told(outcomes, Event::Claimed));
                }
                Action::Transfer { to, lease, records } => {
                    let records = records.into_iter();
                    let records =
                        records.map(|(vip, (version, record))| (vip, (Some(version), record)));
                    let outcomes = self.hand_over(records.collect(), lease, &to)?;
                    return Ok(told(outcomes, Event::Transferred));
                }
                Action::Reassert {
                    vip,
                    version,
                    record,
                } => {
                    let records = BTreeMap::from([(vip, (Some(version), record))]);
                    let outcomes = self.etcd.put_owners(records, version.lease, None);
                    return Ok(told(outcomes, Event::Reasserted));
                }
                Action::Release { vip, version } => {
                    Event::Released(vip, self.etcd.delete_owner(vip, version))
                }
                Action::Leave { lease } => {
                    self.etcd.revoke(lease);
                    Event::Left
                }
                other => unreachable!("{other:?} is no change of etcd's"),
            },
        };
        Ok(vec![event])
    }

    fn answer(&mut self, id: u64, node: u8, events: Vec<Event>) {
        let cut_until = self.nodes[usize::from(node)].link.answers_cut_until;
        if let Some(at) = self.leg(node, cut_until) {
            self.schedule(at, Happening::Answered(id, events));
        }
    }

    pub(super) fn give_up(&mut self, id: u64, why: &str) -> Result<(), Broken> {
        let Some((node, life, kind)) = self.awaited.remove(&id) else {
            return Ok(());
        };
        let error = why.to_owned();
        let unknown = || Outcome::Unknown(error.clone());
        let event = match kind {
            Kind::Read => Event::ReadFailed(error),
            Kind::Grant { .. } => Event::GrantFailed(error),
            Kind::Renew { round, .. } | Kind::Confirm { round } => {
                Event::RoundFailed { round, error }
            }
            Kind::Change(action) => match *action {
                Action::Join { .. } => Event::Joined(Outcome::Unknown(error)),
                Action::Claim { records, .. } => {
                    let outcomes = records.into_keys().map(|vip| (vip, unknown()));
                    let events = told(outcomes.collect(), Event::Claimed);
                    return self.tell_all(node, life, events);
                }
                Action::Transfer { records, .. } => {
                    let outcomes = records.into_keys().map(|vip| (vip, unknown()));
                    let events = told(outcomes.collect(), Event::Transferred);
                    return self.tell_all(node, life, events);
                }
                Action::Reassert { vip, .. } => Event::Reasserted(vip, Outcome::Unknown(error)),
                Action::Release { vip, .. } => Event::Released(vip, Outcome::Unknown(error)),
                _ => Event::Left,
            },
        };
        self.tell(node, life, event)
    }
}

fn told(
    outcomes: Vec<(IpAddr, Outcome<OwnerRecord>)>,
    event: impl Fn(IpAddr, Outcome<OwnerRecord>) -> Event,
) -> Vec<Event> {
    let outcomes = outcomes.into_iter();
    outcomes.map(|(vip, outcome)| event(vip, outcome)).collect()
}
