//! What the loop answers to `vip-agent status`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, SystemTime},
};

use super::{BootInstant, Driver, clock, duplicates, interfaces::Interface};
use crate::{
    config::VipConfig,
    election::{Mac, Report, Role, to_ms},
    net::Link,
    status::{
        Counters, DrainStatus, EtcdStatus, GateState, GateStatus, HandOverStatus, InterfaceStatus,
        LeaseStatus, MemberStatus, State, Status, VipStatus,
    },
};

/// When things came to be as they are, and when to look again.
pub(super) struct Since {
    start: SystemTime,
    roles: BTreeMap<IpAddr, (SystemTime, String)>,
    pub look_again_at: BootInstant,
}

impl Since {
    pub fn now() -> Self {
        let look_again_at = clock::boot_now();
        Self {
            start: clock::time_of_day(),
            roles: BTreeMap::new(),
            look_again_at,
        }
    }

    pub fn note(&mut self, report: &Report) {
        let Report::Transition {
            vip, old, cause, ..
        } = report
        else {
            return;
        };
        // What began it is what people ask for; the steps that follow, to an open gate or a vacancy's end, have
        // causes of their own.
        let is_step = matches!(
            old,
            Role::Vacant | Role::Claiming | Role::TakingOver | Role::GivingUp
        );
        let began = self.roles.get(vip).filter(|_| is_step);
        let cause = began.map_or(cause, |(_, cause)| cause).clone();
        self.roles.insert(*vip, (clock::time_of_day(), cause));
    }

    /// Since when it has been what it is, and what made it so.
    fn of(&self, vip: IpAddr) -> (String, Option<String>) {
        match self.roles.get(&vip) {
            Some((at, cause)) => (rfc3339(*at), Some(cause.clone())),
            None => (rfc3339(self.start), None),
        }
    }
}

impl Driver {
    /// `links`: the interfaces as the kernel has them at this moment.
    pub(super) fn status(&self, links: &[Link]) -> Status {
        let now = clock::boot_now();
        let around = Surroundings::of(self, links);
        let (cluster_id, revision) = self.election.history();
        let health = self.store.health();
        let state = match (self.election.is_stopping(), self.election.is_joined()) {
            (true, _) => State::Stopping,
            (false, true) => State::Joined,
            (false, false) => State::Waiting,
        };
        Status {
            node: self.config.node.clone(),
            instance: self.state.instance().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            since: rfc3339(self.since.start),
            state,
            drained: self
                .election
                .drained()
                .get(&self.config.node)
                .map(|drained| DrainStatus {
                    since: drained.since.clone(),
                    force: drained.force,
                }),
            waiting_for: self.waiting_for(&health),
            warnings: [
                self.upkeep.warnings(),
                duplicates::found(&self.interfaces, links),
            ]
            .concat(),
            lease: self
                .election
                .lease()
                .map(|(id, ttl, deadline)| LeaseStatus {
                    id: id.to_string(),
                    ttl_ms: to_ms(ttl),
                    remaining_ms: to_ms(deadline.saturating_since(now)),
                }),
            etcd: EtcdStatus {
                endpoint: health.endpoint,
                last_error: health.last_error,
                cluster_id: format!("{cluster_id:x}"),
                revision,
            },
            members: self
                .election
                .members()
                .map(|member| MemberStatus {
                    node: member.node.clone(),
                    instance: member.instance.clone(),
                    host: member.host.clone(),
                    macs: member.macs.iter().copied().collect(),
                })
                .collect(),
            hooks: self.hooks.status(&self.config),
            interfaces: self
                .interfaces
                .all
                .iter()
                .map(|one| self.interface_status(one))
                .collect(),
            checks: self.checks.status(),
            vips: self
                .interfaces
                .all
                .iter()
                .flat_map(|one| one.config.vips.iter().map(move |vip| (vip, one)))
                .map(|(vip, one)| self.vip_status(vip, one, &around, now))
                .collect(),
        }
    }

    fn waiting_for(&self, health: &crate::store::Health) -> Vec<String> {
        let unfit = self
            .interfaces
            .all
            .iter()
            .flat_map(|one| one.unfit.iter().chain(&one.unfit_for_ipv6));
        let mut reasons: Vec<String> = unfit.map(ToString::to_string).collect();
        let without_address: BTreeSet<String> = self
            .interfaces
            .all
            .iter()
            .filter(|one| one.unfit.is_none())
            .flat_map(|one| {
                one.config
                    .ips()
                    .filter_map(|vip| one.lacks_own_address(vip))
            })
            .collect();
        reasons.extend(without_address);
        reasons.extend(self.checks.failing());
        if !self.election.is_joined() {
            reasons.push(match &health.last_error {
                Some(error) => error.clone(),
                None => format!("etcd at {}", health.endpoint),
            });
        }
        reasons
    }

    fn interface_status(&self, one: &Interface) -> InterfaceStatus {
        let dataplane = match (&one.attachment, one.is_fenced()) {
            (Some(attachment), _) => attachment.mode.to_string(),
            (None, true) => "none".to_owned(),
            (None, false) => "kernel".to_owned(),
        };
        InterfaceStatus {
            interface: one.config.name.clone(),
            ifindex: one.link.as_ref().map_or(0, |link| link.ifindex),
            mac: one.link.as_ref().map(|link| Mac(link.mac)),
            requested: one.config.dataplane.to_string(),
            dataplane,
            why_not_better: one
                .attachment
                .as_ref()
                .and_then(|how| how.why_not_better.clone()),
            fenced: one.attachment.is_some(),
            guards: self.interfaces.guards.values().cloned().collect(),
        }
    }

    fn vip_status(
        &self,
        vip: &VipConfig,
        one: &Interface,
        around: &Surroundings,
        now: BootInstant,
    ) -> VipStatus {
        let ip = vip.ip;
        let ifindex = one.link.as_ref().map_or(0, |link| link.ifindex);
        let (since, cause) = self.since.of(ip);
        let (role, owner, epoch) = self
            .election
            .role(ip, now)
            .unwrap_or((Role::Unknown, None, 0));
        VipStatus {
            ip,
            interface: one.config.name.clone(),
            role: role.to_string(),
            since,
            cause,
            priority: vip.priority,
            group: vip.group.clone(),
            owner: owner.map(str::to_owned),
            epoch,
            next: around.next.get(&ip).cloned().unwrap_or_default(),
            handover: self.handover(ip),
            gate: gate_status(one, around.gates.get(&ip).copied(), now),
            address: around.addresses.contains(&(ifindex, ip)),
            unfit: self
                .told
                .get(&ip)
                .and_then(|told| told.why_not().map(str::to_owned)),
            conflict: self.conflicts.status(ip, now),
            counters: self.counters(ip),
        }
    }

    /// What is being handed over, by us or to us.
    fn handover(&self, ip: IpAddr) -> Option<HandOverStatus> {
        if let Some(passing) = self.election.passing(ip) {
            return Some(HandOverStatus {
                to: passing.to.to_owned(),
                why: Some(passing.why.to_string()),
                waits_for_successor: passing.waits,
            });
        }
        let to = self.election.successor(ip)?;
        Some(HandOverStatus {
            to: to.to_owned(),
            why: None,
            waits_for_successor: true,
        })
    }

    fn counters(&self, ip: IpAddr) -> Counters {
        let counted = self
            .dataplane
            .as_ref()
            .and_then(|dataplane| dataplane.counters(ip).ok());
        let counted = counted.unwrap_or_default();
        Counters {
            answered: counted.answered,
            delivered: counted.delivered,
            stale: counted.stale,
            looped: counted.looped,
            conflicts: counted.conflicts,
            claims_dropped: counted.claims_dropped,
            claims_passed: counted.claims_passed,
            guarded: counted.guarded,
            sent: counted.sent,
            fenced: counted.fenced,
        }
    }
}

/// What is looked up once for all shared IPs: there may be hundreds.
struct Surroundings {
    /// When each gate shuts, as the kernel has it, which is what counts.
    gates: BTreeMap<IpAddr, u64>,
    /// The shared IPs that are there, and on which interface.
    addresses: BTreeSet<(u32, IpAddr)>,
    next: BTreeMap<IpAddr, Vec<String>>,
}

impl Surroundings {
    fn of(driver: &Driver, links: &[Link]) -> Self {
        let dataplane = driver.dataplane.as_ref();
        let gates = dataplane.map(|dataplane| {
            let lease = dataplane.lease_deadline_ns();
            let gates = dataplane.gates().unwrap_or_default().into_iter();
            gates.map(move |(vip, gate)| (vip, gate.deadline_ns.min(lease)))
        });
        let addresses = links
            .iter()
            .flat_map(|link| link.shared.iter().map(|ip| (link.ifindex, *ip)));
        let next = driver.election.units().into_iter().flat_map(|unit| {
            let line = unit.line.iter().map(|next| next.node.to_owned());
            let line: Vec<String> = line.collect();
            unit.vips.iter().map(move |vip| (*vip, line.clone()))
        });
        Self {
            gates: gates.into_iter().flatten().collect(),
            addresses: addresses.collect(),
            next: next.collect(),
        }
    }
}

fn gate_status(one: &Interface, deadline_ns: Option<u64>, now: BootInstant) -> GateStatus {
    let remaining_ns = deadline_ns.unwrap_or(0).saturating_sub(now.as_ns());
    let (state, remaining_ms) = match to_ms(Duration::from_nanos(remaining_ns)) {
        _ if !one.is_fenced() => (GateState::Unfenced, 0),
        0 if remaining_ns == 0 => (GateState::Closed, 0),
        remaining_ms => (GateState::Open, remaining_ms),
    };
    GateStatus {
        state,
        remaining_ms,
    }
}

pub(super) fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_told_with_what_began_it() {
        let vip = IpAddr::from([10, 0, 0, 100]);
        let mut since = Since::now();
        let mut cause_after = |old, new, cause: &str| {
            since.note(&Report::Transition {
                vip,
                old,
                new,
                cause: cause.to_owned(),
                epoch: 7,
                owner: None,
            });
            since.of(vip).1.expect("it was just told")
        };
        let steps = [
            (Role::Unknown, Role::Follower, "read from etcd"),
            (Role::Follower, Role::Vacant, "n1 released it"),
            (Role::Vacant, Role::Claiming, "time"),
            (Role::Claiming, Role::TakingOver, "claimed"),
            (Role::TakingOver, Role::Owner, "gate set"),
            (Role::Owner, Role::GivingUp, "handed over to n1"),
            (Role::GivingUp, Role::Follower, "address removed"),
        ];
        let causes = steps.map(|(old, new, cause)| cause_after(old, new, cause));
        let (released, handed) = ("n1 released it", "handed over to n1");
        let expected = [
            "read from etcd",
            released,
            released,
            released,
            released,
            handed,
            handed,
        ];
        assert_eq!(causes, expected);
    }
}
