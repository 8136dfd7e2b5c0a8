//! From one owner to the next, with nothing lost between: who hands over what, to whom and why.
//!
//! ```text
//!  owner                                      successor
//!  names it in the owner record ───────────▶  address, behind a shut gate
//!  sees that  ◀─────────────────────────────  says in its member record that it is ready
//!  shuts the gate
//!  puts the key on the successor's lease ──▶  opens the gate, announces
//!  takes the address off
//! ```
//!
//! Up to the third step nothing was done that a client could notice, and whatever fails is left as it
//! was. From there on the key decides: it is on one lease or on the other.

use std::{cmp::Reverse, collections::BTreeMap, net::IpAddr, time::Duration};

use super::{
    Action, BootInstant, Election, OwnerRecord, Progress, Report, WhenAllUnfit, Why,
    placement::Placement,
    record::{Keyed, MemberRecord},
    units::UnitId,
    vip::{Local, Vip},
};

/// How many units may be between two owners at once: what is shut waits for one commit.
const AT_ONCE: usize = 32;
/// Between two moves for the sake of evenness.
const PACE: Duration = Duration::from_millis(200);
/// How long an ask stands.
const ASK_LASTS: Duration = Duration::from_secs(10);

/// What this node hands over, is asked to, and has failed to.
#[derive(Debug, Default)]
pub(super) struct HandOvers {
    running: BTreeMap<UnitId, HandOver>,
    /// What was asked of this node, and until when that stands.
    asks: BTreeMap<IpAddr, (String, BootInstant)>,
    /// Who did not take a unit, and until when it is not tried again.
    refused: BTreeMap<UnitId, BTreeMap<String, BootInstant>>,
    /// Who has a higher priority for what is ours, and since when.
    better: BTreeMap<UnitId, (String, BootInstant)>,
    uneven_since: Option<BootInstant>,
    evened_at: BootInstant,
}

#[derive(Debug)]
struct HandOver {
    to: String,
    why: Why,
    stage: Stage,
    /// What is handed over: a group may lie with two owners.
    part: Vec<IpAddr>,
    /// Whoever is not ready by then is not waited for.
    by: BootInstant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The successor is named, and not ready yet.
    Waiting,
    /// The gates are being shut.
    Shutting,
    /// The keys are on their way.
    Committing,
}

/// Why a successor is not waited for any longer.
enum Obstacle {
    /// It is not what it was, or did not do what it was asked.
    Successor(String),
    /// It was not asked yet.
    Etcd,
}

/// What is to become of a unit that is ours.
enum Decision {
    Stays,
    Goes(String, Why),
    /// Nobody takes it, and it goes all the same.
    Lost(Why),
}

impl HandOvers {
    /// To whom a unit is being handed over.
    pub fn heir(&self, unit: UnitId) -> Option<&str> {
        self.running.get(&unit).map(|one| &*one.to)
    }

    /// To whom, why, and how far.
    pub fn of(&self, unit: UnitId) -> Option<(&str, Why, Stage)> {
        let one = self.running.get(&unit)?;
        Some((&one.to, one.why, one.stage))
    }

    /// What was asked of this node for a shared IP.
    pub fn asked_of_us(&self, vip: IpAddr) -> Option<(&str, BootInstant)> {
        self.asks.get(&vip).map(|(to, until)| (&**to, *until))
    }

    pub fn timeouts(
        &self,
        preempt: Option<Duration>,
        rebalance: Option<Duration>,
    ) -> Vec<BootInstant> {
        let running = self.running.values().map(|one| one.by);
        let refused = self.refused.values().flat_map(BTreeMap::values).copied();
        let better = self.better.values();
        let better = better.filter_map(|(_, since)| Some(*since + preempt?));
        let uneven = self.uneven_since.and_then(|since| Some(since + rebalance?));
        let asks = self.asks.values().map(|(_, until)| *until);
        let mut times: Vec<BootInstant> =
            running.chain(refused).chain(better).chain(asks).collect();
        times.extend(uneven.map(|at| at.max(self.evened_at + PACE)));
        times
    }

    fn refuse(&mut self, unit: UnitId, node: String, until: BootInstant) {
        self.refused.entry(unit).or_default().insert(node, until);
    }

    pub(super) fn is_refused(&self, unit: UnitId, node: &str) -> bool {
        self.refused
            .get(&unit)
            .is_some_and(|nodes| nodes.contains_key(node))
    }
}

impl Election {
    /// Somebody wants the unit of `vip` to go to `to`.
    pub(super) fn take_in_ask(&mut self, vip: IpAddr, to: String) {
        self.handovers.asks.insert(vip, (to, self.now + ASK_LASTS));
    }

    /// Nobody waits for it to go to `to` any more; what was asked for since stands.
    pub(super) fn withdraw_ask(&mut self, vip: IpAddr, to: &str) {
        if self
            .handovers
            .asks
            .get(&vip)
            .is_some_and(|(asked, _)| asked == to)
        {
            self.handovers.asks.remove(&vip);
        }
    }

    /// What this node asks of the owners of what it does not own itself.
    pub(super) fn asks(&self) -> BTreeMap<IpAddr, String> {
        let asks = self.handovers.asks.iter();
        asks.map(|(vip, (to, _))| (*vip, to.clone())).collect()
    }

    /// What every member holds, as far as it is known.
    pub(super) fn placement(&self) -> Placement<'_> {
        let mut placement = Placement::new(&self.view.members, &self.view.drained);
        let lease = self.lease_id();
        for (ip, lease) in &self.view.holders {
            if !self.vips.contains_key(ip) {
                placement.count_on(*lease);
            }
        }
        for vip in self.vips.values() {
            let heir = self.units.of(vip.ip).and_then(|id| self.handovers.heir(id));
            match (vip.held(), heir) {
                (Some(held), Some(heir)) if Some(held.lease) == lease => placement.count(heir, 1),
                (Some(held), _) => placement.count_on(held.lease),
                (None, _) if vip.is_being_claimed() => placement.count(&self.settings.node, 1),
                (None, _) => {}
            }
        }
        placement
    }

    /// Begins, goes on with, and ends hand-overs; says which units are given up to nobody.
    pub(super) fn advance_handovers(&mut self, ids: &[UnitId]) {
        self.forget_the_past();
        let lease = self.lease_id();
        for id in ids {
            self.go_on(*id);
            if !self
                .units
                .ips(*id)
                .iter()
                .any(|ip| self.vips[ip].is_on(lease))
            {
                self.lost.remove(id);
            }
        }
        let decisions = self.decide(ids);
        for (id, decision) in decisions {
            match decision {
                Decision::Stays => {
                    self.lost.remove(&id);
                }
                Decision::Lost(why) => {
                    if self.lost.insert(id) {
                        let vips = self.units.ips(id).to_vec();
                        self.report(Report::GivenUp { vips, why });
                    }
                }
                Decision::Goes(to, why) => {
                    self.lost.remove(&id);
                    self.begin(id, to, why);
                }
            }
        }
    }

    fn forget_the_past(&mut self) {
        let now = self.now;
        let handovers = &mut self.handovers;
        handovers.refused.retain(|_, nodes| {
            nodes.retain(|_, until| now < *until);
            !nodes.is_empty()
        });
        let (vips, members) = (&self.vips, &self.view.members);
        handovers.asks.retain(|ip, (to, until)| {
            let held = vips.get(ip).and_then(Vip::held);
            let is_there = members
                .get(to)
                .is_some_and(|member| held.is_some_and(|held| held.lease == member.lease));
            now < *until && !is_there
        });
    }

    /// What is to become of those of these units that are ours and settled.
    fn decide(&mut self, ids: &[UnitId]) -> Vec<(UnitId, Decision)> {
        let mut better = std::mem::take(&mut self.handovers.better);
        let is_good = self.is_lease_good();
        let mut placement: Option<Placement<'_>> = None;
        let mut decided = Vec::new();
        for id in ids {
            let known = better.remove(id);
            if !is_good || !self.is_settled(*id) {
                continue;
            }
            let placement = placement.get_or_insert_with(|| self.placement());
            let mut decision = self.decide_by_need(*id, placement);
            if let (Decision::Stays, Some(delay)) = (&decision, self.settings.preempt)
                && let Some(first) = self.preferred(*id, placement)
            {
                let known = known.filter(|(node, _)| node == first);
                let since = known.map_or(self.now, |(_, since)| since);
                better.insert(*id, (first.to_owned(), since));
                if self.now >= since + delay {
                    decision = Decision::Goes(first.to_owned(), Why::Preferred);
                }
            }
            // The next one finds it there: what leaves at once is spread.
            if let Decision::Goes(to, _) = &decision {
                placement.hand(&self.settings.node, to, self.units.ips(*id).len());
            }
            decided.push((*id, decision));
        }
        let evens = self.settings.rebalance.is_some() && ids.len() == self.units.len();
        let uneven = evens.then(|| {
            let placement = placement.get_or_insert_with(|| self.placement());
            self.uneven(placement)
        });
        self.handovers.better = better;
        if let Some(uneven) = uneven {
            self.even_out(uneven, &mut decided);
        }
        decided
    }

    fn decide_by_need(&self, id: UnitId, placement: &Placement<'_>) -> Decision {
        let asked_to = self.asked_to(self.units.ips(id));
        let can = |to: &&str| self.successors(id, placement).any(|node| node == *to);
        if let Some((why, else_lost)) = self.has_to_go(id) {
            let first = || self.successors(id, placement).next();
            return match asked_to.filter(can).or_else(first) {
                Some(to) => Decision::Goes(to.to_owned(), why),
                None if else_lost => Decision::Lost(why),
                None => Decision::Stays,
            };
        }
        let rest = self.where_the_rest_is(id).map(|to| (to, Why::Grouped));
        let wanted = rest.or_else(|| Some((asked_to?, Why::Asked)));
        match wanted {
            Some((to, why)) if can(&to) => Decision::Goes(to.to_owned(), why),
            _ => Decision::Stays,
        }
    }

    /// Who could take a unit of ours, who should have it first.
    fn successors<'a>(
        &'a self,
        id: UnitId,
        placement: &Placement<'a>,
    ) -> impl Iterator<Item = &'a str> {
        let queue = placement.queue(self.units.ips(id), None).into_iter();
        queue
            .filter(move |node| *node != self.settings.node && !self.handovers.is_refused(id, node))
    }

    /// Who has a higher priority for a unit of ours than we.
    fn preferred<'a>(&'a self, id: UnitId, placement: &Placement<'a>) -> Option<&'a str> {
        let ips = self.units.ips(id);
        let first = self.successors(id, placement).next()?;
        let mine = placement.priority(&self.settings.node, ips);
        (placement.priority(first, ips) > mine).then_some(first)
    }

    /// Whether a unit is not to stay here, and if it goes also where nobody takes it.
    fn has_to_go(&self, id: UnitId) -> Option<(Why, bool)> {
        let vips = || self.units.ips(id).iter().map(|ip| &self.vips[ip]);
        let drained = self.view.drained.get(&self.settings.node);
        if self.stopping.is_some() {
            Some((Why::Stopping, true))
        } else if vips().any(|vip| vip.retired) {
            Some((Why::Unconfigured, true))
        } else if let Some(drained) = drained {
            Some((Why::Drained, drained.force))
        } else if vips().any(|vip| !vip.is_fit(self.now)) {
            let all_unfit = self.settings.when_all_unfit;
            Some((Why::Unfit, all_unfit == WhenAllUnfit::Release))
        } else {
            None
        }
    }

    /// The owner of the first of a group that has one, if that is another member: the group meets there.
    fn where_the_rest_is(&self, id: UnitId) -> Option<&str> {
        let lease = self.lease_id();
        let mut held = self
            .units
            .ips(id)
            .iter()
            .filter_map(|ip| self.vips[ip].held());
        held.next()
            .filter(|held| Some(held.lease) != lease)
            .map(|held| &*held.record.node)
    }

    fn asked_to(&self, ips: &[IpAddr]) -> Option<&str> {
        let own = self.handovers.asks.iter();
        let own = own.map(|(ip, (to, _))| (ip, to));
        let members = self.view.members.iter();
        let others = members.filter(|(name, _)| **name != self.settings.node);
        let others = others.flat_map(|(_, member)| &member.record.asks);
        let mut asks = own.chain(others);
        asks.find(|(ip, to)| ips.contains(ip) && **to != self.settings.node)
            .map(|(_, to)| &**to)
    }

    /// A unit of ours and a node that would rather have it, if it is for us to even the load out.
    fn uneven(&self, placement: &Placement<'_>) -> Option<(UnitId, String)> {
        let me = &*self.settings.node;
        let load = placement.load(me);
        let fuller = |node: &str| (placement.load(node), Reverse(node.to_owned()));
        let ids = self.units.ids().into_iter();
        let mut ours = ids.filter(|id| self.is_settled(*id));
        ours.find_map(|id| {
            let ips = self.units.ips(id);
            let mine = placement.priority(me, ips);
            let queue = placement.queue(ips, None).into_iter();
            let mut equals: Vec<&str> = queue
                .filter(|node| placement.priority(node, ips) == mine)
                .collect();
            equals.retain(|node| *node == me || !self.handovers.is_refused(id, node));
            let fullest = equals.iter().copied().max_by_key(|node| fuller(node));
            let emptiest = equals.iter().min_by_key(|node| placement.load(node))?;
            let is_worth_it = placement.load(emptiest) + ips.len() < load;
            (fullest == Some(me) && is_worth_it).then(|| (id, (*emptiest).to_owned()))
        })
    }

    fn even_out(&mut self, uneven: Option<(UnitId, String)>, decided: &mut [(UnitId, Decision)]) {
        let Some((id, to)) = uneven else {
            self.handovers.uneven_since = None;
            return;
        };
        let since = *self.handovers.uneven_since.get_or_insert(self.now);
        let delay = self.settings.rebalance.unwrap_or_default();
        let due_at = (since + delay).max(self.handovers.evened_at + PACE);
        let stays = |(one, decision): &&mut (UnitId, Decision)| {
            *one == id && matches!(decision, Decision::Stays)
        };
        if self.now >= due_at
            && let Some((_, decision)) = decided.iter_mut().find(stays)
        {
            self.handovers.evened_at = self.now;
            *decision = Decision::Goes(to, Why::Uneven);
        }
    }

    /// Whether all of a unit that is ours is served, and no hand-over of it is under way.
    fn is_settled(&self, id: UnitId) -> bool {
        let lease = self.lease_id();
        let vips = self.units.ips(id).iter().map(|ip| &self.vips[ip]);
        let mut ours = vips.filter(|vip| vip.is_on(lease)).peekable();
        ours.peek().is_some()
            && ours
                .all(|vip| vip.local == Local::Up && vip.pending.is_none() && vip.mac().is_some())
            && !self.handovers.running.contains_key(&id)
    }

    fn begin(&mut self, id: UnitId, to: String, why: Why) {
        let lease = self.lease_id();
        let ips = self.units.ips(id).iter().copied();
        let part: Vec<IpAddr> = ips.filter(|ip| self.vips[ip].is_on(lease)).collect();
        for ip in &part {
            if let Some(vip) = self.vips.get_mut(ip) {
                vip.heir = Some(to.clone());
            }
        }
        self.report(Report::HandOver {
            vips: part.clone(),
            to: to.clone(),
            why,
            progress: Progress::Begun,
        });
        let patience = self.patience_with_a_successor();
        let handover = HandOver {
            to,
            why,
            stage: Stage::Waiting,
            part,
            by: self.now + patience,
        };
        self.handovers.running.insert(id, handover);
    }

    fn patience_with_a_successor(&self) -> Duration {
        if self.stopping.is_some() {
            self.ttl() / 2
        } else {
            self.ttl()
        }
    }

    /// One step further, if what it waits for has come.
    fn go_on(&mut self, id: UnitId) {
        let Some(handover) = self.handovers.running.get(&id) else {
            return;
        };
        let lease = self.lease_id();
        let part = handover.part.clone();
        let vips = || part.iter().filter_map(|ip| self.vips.get(ip));
        let is_served = |vip: &Vip| vip.is_on(lease) && vip.local == Local::Up;
        match handover.stage {
            Stage::Waiting if !vips().all(is_served) => {
                self.drop_one(id, "it is not served here any more");
            }
            Stage::Waiting => match self.look_at_successor(handover) {
                Ok(false) => {}
                Ok(true) => {
                    let shut = |one: &&HandOver| one.stage != Stage::Waiting;
                    if self.handovers.running.values().filter(shut).count() < AT_ONCE {
                        self.shut(id, &part);
                    }
                }
                Err(Obstacle::Successor(why)) => self.fail(id, why),
                Err(Obstacle::Etcd) => {
                    self.drop_one(id, "etcd did not take the successor's name in time")
                }
            },
            Stage::Shutting if vips().any(|vip| !vip.is_on(lease)) => {
                self.drop_one(id, "the keys went elsewhere meanwhile");
            }
            Stage::Shutting if vips().all(Vip::is_handed_out) => self.commit(id, &part),
            Stage::Shutting => {}
            Stage::Committing if vips().any(|vip| vip.pending.is_some()) => {}
            Stage::Committing => self.judge_handover(id),
        }
    }

    /// Whether the successor can take it now; why not, if it never will.
    fn look_at_successor(&self, handover: &HandOver) -> Result<bool, Obstacle> {
        let to = &handover.to;
        let vips = || handover.part.iter().map(|ip| &self.vips[ip]);
        let its_own = |why: String| Err(Obstacle::Successor(why));
        let Some(member) = self.view.members.get(to) else {
            return its_own(format!("{to} is no member any more"));
        };
        if self.view.drained.contains_key(to) {
            return its_own(format!("{to} is drained"));
        }
        let serves = |ip: &&IpAddr| member.record.vips.contains(ip);
        if let Some(ip) = handover.part.iter().find(|ip| !serves(ip)) {
            return its_own(format!("{to} cannot serve {ip} any more"));
        }
        let is_named = |vip: &Vip| vip.pending.is_none() && vip.successor() == Some(to);
        if !vips().all(is_named) {
            let is_late = self.now >= handover.by;
            return if is_late {
                Err(Obstacle::Etcd)
            } else {
                Ok(false)
            };
        }
        if vips().all(|vip| vip.is_awaited_by(&member.record)) {
            return Ok(self.is_lease_good());
        }
        if self.now >= handover.by {
            return its_own(format!("{to} was not ready in time"));
        }
        Ok(false)
    }

    fn shut(&mut self, id: UnitId, part: &[IpAddr]) {
        if let Some(handover) = self.handovers.running.get_mut(&id) {
            handover.stage = Stage::Shutting;
            self.cause = format!("handed over to {}: {}", handover.to, handover.why);
        }
        for ip in part {
            if let Some(vip) = self.vips.get_mut(ip) {
                vip.start_handing_over(&mut self.out);
            }
        }
    }

    fn commit(&mut self, id: UnitId, part: &[IpAddr]) {
        let Some(handover) = self.handovers.running.get_mut(&id) else {
            return;
        };
        let to = handover.to.clone();
        let Some(member) = self.view.members.get(&to) else {
            return self.fail(id, format!("{to} is no member any more"));
        };
        handover.stage = Stage::Committing;
        let mut records = BTreeMap::new();
        for ip in part {
            let Some(vip) = self.vips.get_mut(ip) else {
                continue;
            };
            let record = record_of(member, *ip);
            if let Some(version) = vip.held().map(Keyed::version) {
                records.insert(*ip, (version, record.clone()));
            }
            vip.transfer(member.lease, record);
        }
        self.out.push(Action::Transfer {
            to,
            lease: member.lease,
            records,
        });
    }

    /// The transaction was answered, or its fate is not known.
    fn judge_handover(&mut self, id: UnitId) {
        let lease = self.lease_id();
        let Some(handover) = self.handovers.running.get(&id) else {
            return;
        };
        let vips = || handover.part.iter().map(|ip| &self.vips[ip]);
        if lease.is_none() {
            return self.drop_one(id, "our lease has gone");
        }
        if vips().any(|vip| vip.is_on(lease)) {
            let why = format!("etcd refused, for {} had changed or gone", handover.to);
            return self.fail(id, why);
        }
        if vips().any(|vip| vip.held().is_none()) {
            return self.drop_one(id, "what came of it in etcd is not known yet");
        }
        self.end(id, Progress::Done);
    }

    /// It came to nothing, and not for the successor's sake.
    fn drop_one(&mut self, id: UnitId, why: &str) {
        self.end(id, Progress::Failed(why.to_owned()));
    }

    /// It came to nothing: the successor is left alone for a while.
    fn fail(&mut self, id: UnitId, why: String) {
        let pause = 2 * self.ttl();
        if let Some(handover) = self.handovers.running.get(&id) {
            let (to, until) = (handover.to.clone(), self.now + pause);
            self.handovers.refuse(id, to, until);
        }
        self.end(id, Progress::Failed(why));
    }

    fn end(&mut self, id: UnitId, progress: Progress) {
        let Some(handover) = self.handovers.running.remove(&id) else {
            return;
        };
        for ip in &handover.part {
            if let Some(vip) = self.vips.get_mut(ip) {
                vip.stop_handing_over();
            }
        }
        self.report(Report::HandOver {
            vips: handover.part,
            to: handover.to,
            why: handover.why,
            progress,
        });
    }

    /// These units are others than before.
    pub(super) fn forget_units(&mut self, changed: impl Fn(UnitId) -> bool) {
        let running = self.handovers.running.keys().copied();
        for id in running.filter(|id| changed(*id)).collect::<Vec<_>>() {
            self.drop_one(id, "the configuration changed");
        }
        self.handovers.refused.retain(|id, _| !changed(*id));
        self.handovers.better.retain(|id, _| !changed(*id));
    }
}

/// What the owner key says when it is this member's.
fn record_of(member: &Keyed<MemberRecord>, ip: IpAddr) -> OwnerRecord {
    let record = &member.record;
    OwnerRecord {
        node: record.node.clone(),
        instance: record.instance.clone(),
        mac: record
            .ready
            .get(&ip)
            .map(|word| word.mac)
            .unwrap_or_default(),
        ttl_ms: record.ttl_ms,
        since: String::new(),
        successor: None,
    }
}
