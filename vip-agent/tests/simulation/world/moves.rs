//! From node to node: the rules of a hand-over, and where shared IPs are to be at the end.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use vip_agent::election::{
    Action, Event, Gate, Keyed, LeaseId, MemberRecord, Outcome, OwnerRecord, Version,
};

use super::World;
use crate::{
    checks::{self, Broken},
    clock::{SECOND, TrueNs},
    machine::Mutant,
    node::Node,
    schedule::HEALED_AT,
};

/// Nothing moves any more for so long before the end.
const CALM: TrueNs = 5 * SECOND;
/// So often may a key be handed over after all was healed, and no oftener.
const MOST_MOVES: u32 = 24;

/// What was handed over.
#[derive(Debug, Default)]
pub struct Moves {
    /// Before all was healed, and after.
    pub committed: [u32; 2],
    pub last_at: TrueNs,
    /// Who ever said that it was ready for which shared IP, on which revision of its key.
    words: BTreeSet<(String, IpAddr, i64)>,
}

impl World {
    /// Who serves a shared IP.
    pub(super) fn server(&self, vip: IpAddr) -> Option<&Node> {
        let mut nodes = self.nodes.iter();
        nodes.find(|node| node.serves(vip, self.now))
    }

    pub(super) fn configure(&mut self, node: u8) -> Result<(), Broken> {
        let standing = &mut self.nodes[usize::from(node)];
        let vips = standing.vips(self.now, self.conduct, self.placement);
        let life = standing.life;
        if let Some(process) = &mut standing.process {
            process.strangers.retain(|vip, _| vips.contains_key(vip));
        }
        self.tell(node, life, Event::Configure(vips))?;
        self.tell_fitness(node)
    }

    pub(super) fn note_words(&mut self, record: &MemberRecord) {
        let words = record.ready.iter();
        let words = words.map(|(vip, word)| (record.node.clone(), *vip, word.epoch));
        self.moves.words.extend(words);
    }

    /// What was under way is lost, and revisions are given out again.
    pub(super) fn forget_what_was_given_up(&mut self) {
        for process in self
            .nodes
            .iter_mut()
            .filter_map(|node| node.process.as_mut())
        {
            process.given_up.clear();
        }
    }

    /// Whether an action keeps to the rules of hand-overs, groups and drained nodes.
    pub(super) fn judge_moves(&mut self, node: u8, action: &Action) -> Result<(), Broken> {
        // A mutant is to be caught by the rule that it breaks.
        let mutant = self.mutant;
        let holds = |breaker| mutant.is_none_or(|one| one == breaker);
        let standing = &mut self.nodes[usize::from(node)];
        let now = standing.clock.at(self.now);
        let name = standing.name.clone();
        match action {
            Action::Transfer { to, records, .. } => {
                for (vip, (version, _)) in records {
                    checks::hand_over(*vip, standing)?;
                    let word = (to.clone(), *vip, version.mod_revision);
                    if !self.moves.words.contains(&word) {
                        let (vip, to) = (*vip, to.clone());
                        return Err(Broken::HandedOverUnready {
                            vip,
                            node: name,
                            to,
                        });
                    }
                    if let Some(process) = &mut standing.process {
                        process.given_up.insert(*vip, *version);
                    }
                }
            }
            Action::Release { vip, version } => {
                if let Some(process) = &mut standing.process {
                    process.given_up.insert(*vip, *version);
                }
            }
            Action::SetGate(vip, Gate::Open { epoch }) => {
                let process = standing.process.as_ref();
                let given_up = process.and_then(|process| process.given_up.get(vip));
                let lease = process.and_then(|process| process.machine.lease());
                if given_up
                    .is_some_and(|one| one.mod_revision == *epoch && Some(one.lease) == lease)
                {
                    let vip = *vip;
                    return Err(Broken::OpensOnWhatItGaveUp { vip, node: name });
                }
            }
            Action::Claim { records, .. } => {
                let claimed: BTreeSet<IpAddr> = records.keys().copied().collect();
                let Some(process) = &standing.process else {
                    return Ok(());
                };
                if let Some(vip) = claimed.first()
                    && process.is_drained
                    && holds(Mutant::ClaimsWhileDrained)
                {
                    let vip = *vip;
                    return Err(Broken::ClaimsWhileDrained { vip, node: name });
                }
                for vip in process.machine.group_of(&claimed) {
                    let is_its_own = claimed.contains(&vip) || process.machine.owns(vip, now);
                    if !is_its_own && holds(Mutant::ClaimsHalfAGroup) {
                        return Err(Broken::ClaimsHalfAGroup { vip, node: name });
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The transaction of a hand-over, as etcd gets it.
    pub(super) fn hand_over(
        &mut self,
        mut records: BTreeMap<IpAddr, (Option<Version>, OwnerRecord)>,
        lease: LeaseId,
        to: &str,
    ) -> Result<Vec<(IpAddr, Outcome<OwnerRecord>)>, Broken> {
        if self.mutant == Some(Mutant::HandsOverWhateverIsThere) {
            for (vip, (expected, _)) in &mut records {
                *expected = self.etcd.owner(*vip).map(Keyed::version);
            }
        }
        let blind = self.mutant == Some(Mutant::HandsOverToAnyLease);
        let holder = (!blind).then_some(to);
        let outcomes = self.etcd.put_owners(records, lease, holder);
        for (vip, outcome) in &outcomes {
            if let Outcome::Committed { .. } = outcome {
                let healed = self.now >= HEALED_AT;
                self.moves.committed[usize::from(healed)] += 1;
                self.moves.last_at = self.now;
                let holder = self.etcd.member(to).map(|member| member.lease);
                if holder != Some(lease) {
                    let (vip, to) = (*vip, to.to_owned());
                    return Err(Broken::HandedOverToNobody { vip, to });
                }
            }
        }
        Ok(outcomes)
    }

    /// Where everything is at the end.
    pub(super) fn check_places(&self) -> Result<(), Broken> {
        let wrong = |what: String| Err(Broken::Misplaced { what });
        let moved = self.moves.committed[1];
        if moved > MOST_MOVES {
            return wrong(format!(
                "{moved} keys were handed over after all was healed"
            ));
        }
        let running = self.vips.iter().any(|vip| {
            let owner = self.etcd.owner(*vip);
            owner.is_some_and(|owner| owner.record.successor.is_some())
        });
        if running || self.now < self.moves.last_at + CALM {
            let last_at = Duration::from_nanos(self.moves.last_at);
            return wrong(format!(
                "hand-overs do not end: the last at {last_at:?}, one under way: {running}"
            ));
        }
        let meant = |node: &&Node| !self.etcd.is_drained(&node.name);
        let candidates: Vec<&Node> = self.nodes.iter().filter(meant).collect();
        if candidates.is_empty() {
            return Ok(());
        }
        let mut load: BTreeMap<&str, usize> = BTreeMap::new();
        let units = self.units();
        for unit in &units {
            let servers: BTreeSet<&str> = unit
                .iter()
                .filter_map(|vip| self.server(*vip))
                .map(|node| &*node.name)
                .collect();
            let [server] = servers.iter().copied().collect::<Vec<_>>()[..] else {
                return wrong(format!("{unit:?} is served by {servers:?}"));
            };
            *load.entry(server).or_default() += unit.len();
            let Some(server) = candidates.iter().find(|node| node.name == server) else {
                return wrong(format!("{server}, drained, serves {unit:?}"));
            };
            let priority = |node: &Node| unit.iter().map(|vip| node.priorities[vip]).max();
            let highest = candidates.iter().map(|node| priority(node)).max();
            if self.placement.preempt_ms.is_some() && Some(priority(server)) != highest {
                let name = &server.name;
                return wrong(format!(
                    "{name}, not of the highest priority, serves {unit:?}"
                ));
            }
        }
        let mut priorities = candidates.iter().flat_map(|node| node.priorities.values());
        let first = priorities.next();
        let are_equal = priorities.all(|priority| Some(priority) == first);
        if self.placement.rebalance_ms.is_some() && are_equal {
            let loads = candidates.iter().map(|node| load.get(&*node.name));
            let loads: Vec<usize> = loads.map(|load| load.copied().unwrap_or(0)).collect();
            let largest = units.iter().map(Vec::len).max().unwrap_or(0);
            if loads.iter().max() > loads.iter().min().map(|least| least + largest).as_ref() {
                return wrong(format!("uneven: {load:?}"));
            }
        }
        Ok(())
    }

    fn units(&self) -> Vec<Vec<IpAddr>> {
        let mut vips: Vec<IpAddr> = self.vips.iter().copied().collect();
        let grouped = usize::from(self.placement.grouped).min(vips.len());
        let single = vips.split_off(grouped);
        let mut units: Vec<Vec<IpAddr>> = single.into_iter().map(|vip| vec![vip]).collect();
        if !vips.is_empty() {
            units.push(vips);
        }
        units
    }
}
