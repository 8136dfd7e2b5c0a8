//! What the loop answers to `vip-agent status`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, SystemTime},
};

use super::{BootInstant, Driver, clock, duplicates, interfaces::Interface};
use crate::{
    election::{Mac, Report, Role, to_ms},
    net::Link,
    status::{
        Counters, EtcdStatus, GateState, GateStatus, InterfaceStatus, LeaseStatus, MemberStatus,
        State, Status, VipStatus,
    },
};

/// When things came to be as they are, and when to look again.
pub(super) struct Since {
    start: SystemTime,
    roles: BTreeMap<IpAddr, SystemTime>,
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
        if let Report::Transition { vip, .. } = report {
            self.roles.insert(*vip, clock::time_of_day());
        }
    }

    fn of(&self, vip: IpAddr) -> String {
        rfc3339(self.roles.get(&vip).copied().unwrap_or(self.start))
    }
}

impl Driver {
    /// `links`: the interfaces as the kernel has them at this moment.
    pub(super) fn status(&self, links: &[Link]) -> Status {
        let now = clock::boot_now();
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
                .flat_map(|one| {
                    one.config
                        .ips()
                        .map(move |vip| self.vip_status(vip, one, links, now))
                })
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
        ip: IpAddr,
        one: &Interface,
        links: &[Link],
        now: BootInstant,
    ) -> VipStatus {
        let ifindex = one.link.as_ref().map(|link| link.ifindex);
        let is_there = |link: &Link| Some(link.ifindex) == ifindex && link.shared.contains(&ip);
        let (role, owner, epoch) = self
            .election
            .role(ip, now)
            .unwrap_or((Role::Unknown, None, 0));
        VipStatus {
            ip,
            interface: one.config.name.clone(),
            role: role.to_string(),
            since: self.since.of(ip),
            owner: owner.map(str::to_owned),
            epoch,
            gate: self.gate_status(ip, one, now),
            address: links.iter().any(is_there),
            unfit: self
                .told
                .get(&ip)
                .and_then(|told| told.why_not().map(str::to_owned)),
            conflict: self.conflicts.status(ip, now),
            counters: self.counters(ip),
        }
    }

    /// As the kernel has it, which is what counts.
    fn gate_status(&self, ip: IpAddr, one: &Interface, now: BootInstant) -> GateStatus {
        let closed = GateStatus {
            state: GateState::Closed,
            remaining_ms: 0,
        };
        if !one.is_fenced() {
            return GateStatus {
                state: GateState::Unfenced,
                remaining_ms: 0,
            };
        }
        let Some(dataplane) = &self.dataplane else {
            return closed;
        };
        let gates = dataplane.gates().unwrap_or_default();
        let own = gates
            .iter()
            .find(|(vip, _)| *vip == ip)
            .map_or(0, |(_, gate)| gate.deadline_ns);
        let deadline = own.min(dataplane.lease_deadline_ns());
        let remaining = Duration::from_nanos(deadline.saturating_sub(now.as_ns()));
        if remaining.is_zero() {
            return closed;
        }
        GateStatus {
            state: GateState::Open,
            remaining_ms: to_ms(remaining),
        }
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

pub(super) fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}
