//! What the loop answers to `vip-agent members`.

use std::collections::BTreeSet;

use super::Driver;
use crate::{
    control::{Members, Node, NodeState, Unit, UnitOwner, Waiting},
    election::{MemberRecord, UnitView},
};

impl Driver {
    pub(super) fn members(&self) -> Members {
        let mut holdings = self.election.holdings();
        let mut nodes: Vec<Node> = self.election.members().map(node).collect();
        let present: BTreeSet<String> = nodes.iter().map(|node| node.node.clone()).collect();
        let drained = self.election.drained();
        let absent = drained.keys().filter(|name| !present.contains(*name));
        let absent = absent.map(|name| Node {
            state: NodeState::Absent,
            ..node(&MemberRecord::nobody(name))
        });
        nodes.extend(absent);
        nodes.sort_by(|one, other| one.node.cmp(&other.node));
        for node in &mut nodes {
            node.holds = holdings.remove(node.node.as_str()).unwrap_or_default();
            if let Some(record) = drained.get(&node.node) {
                node.drained = true;
                node.drained_since = Some(record.since.clone()).filter(|since| !since.is_empty());
                node.drained_by_force = record.force;
            }
        }
        Members {
            seen_by: self.config.node.clone(),
            up_to_date: self.election.sees_cluster(),
            members: nodes,
            units: self.election.units().into_iter().map(unit).collect(),
        }
    }
}

fn node(record: &MemberRecord) -> Node {
    // Who stops offers nothing, and says no more why.
    let is_leaving = record.vips.is_empty() && record.unfit.is_empty();
    Node {
        node: record.node.clone(),
        host: record.host.clone(),
        version: record.version.clone(),
        ttl_ms: record.ttl_ms,
        state: if is_leaving {
            NodeState::Leaving
        } else {
            NodeState::Member
        },
        drained: false,
        drained_since: None,
        drained_by_force: false,
        holds: Vec::new(),
        fit_for: record.vips.len(),
        unfit: record.unfit.clone(),
        ready: record.ready.keys().copied().collect(),
        asks: record.asks.clone(),
    }
}

fn unit(view: UnitView<'_>) -> Unit {
    let owners = view.owners.iter().map(|owner| UnitOwner {
        node: owner.node.to_owned(),
        since: owner.record.since.clone(),
        successor: owner.record.successor.clone(),
    });
    let next = view.line.iter().map(|next| Waiting {
        node: next.node.to_owned(),
        priority: next.priority,
    });
    Unit {
        vips: view.vips.to_vec(),
        group: view.group.map(str::to_owned),
        owners: owners.collect(),
        next: next.collect(),
    }
}
