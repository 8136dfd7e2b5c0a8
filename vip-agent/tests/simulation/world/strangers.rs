//! Machines that are no members and claim a shared IP: what the nodes' kernels hear, and tell.

use std::net::IpAddr;

use vip_agent::election::{Action, Event, Mac, Report};

use super::{Happening, World};
use crate::{
    checks::{self, Broken},
    clock::{MS, SECOND},
    node::Process,
    schedule::Conduct,
};

const STRANGER: Mac = Mac([0x52, 0x54, 0, 0, 0, 9]);

impl World {
    /// It says so now, and again while it is there.
    pub(super) fn claim_as_a_stranger(&mut self, vip: IpAddr) {
        let nodes = u8::try_from(self.nodes.len()).expect("a handful of nodes");
        if (0..nodes).filter(|node| self.is_heard(vip, *node)).count() == 0 {
            return;
        }
        for node in 0..nodes {
            self.speak_as_a_stranger(vip, node);
        }
        let again = self.now + self.rng.u64(SECOND / 2..4 * SECOND);
        self.schedule(again, Happening::StrangerClaims(vip));
    }

    /// The kernel tells of it only while the lease is good: past that it trusts the wire; and only of
    /// what is configured.
    pub(super) fn hear_a_stranger(&mut self, node: u8, vip: IpAddr) -> Result<(), Broken> {
        let standing = &self.nodes[usize::from(node)];
        let deadline = standing.kernel.lease_deadline;
        if standing.clock.at(self.now) >= deadline || !standing.is_configured(vip, self.now) {
            return Ok(());
        }
        let life = standing.life;
        self.tell(node, life, Event::Conflict { vip, mac: STRANGER })
    }

    /// What the rules about strangers need to know of an action, and whether it keeps to them.
    pub(super) fn judge_conduct(&mut self, node: u8, action: &Action) -> Result<(), Broken> {
        let about_others = self.mutant.is_some_and(|one| !one.is_about_strangers());
        let standing = &mut self.nodes[usize::from(node)];
        let Some(process) = standing.process.as_mut().filter(|_| !about_others) else {
            return Ok(());
        };
        match action {
            Action::Report(Report::WaitingOut { vip, .. }) => {
                process.strangers.entry(*vip).or_default().asked = Some(0);
            }
            Action::Probe(vip) => {
                if let Some(asked) = &mut process.strangers.entry(*vip).or_default().asked {
                    *asked += 1;
                }
                self.speak_as_a_stranger(*vip, node);
            }
            Action::Claim { records, .. } => {
                let conduct = Conduct {
                    probes: self.conduct.probes && standing.fenced,
                    ..self.conduct
                };
                let now = standing.clock.at(self.now);
                for vip in records.keys() {
                    checks::claim(*vip, standing, now, conduct)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn is_heard(&self, vip: IpAddr, node: u8) -> bool {
        let stranger = self.strangers.get(&vip);
        stranger.is_some_and(|(until, heard_by)| {
            self.now < *until && heard_by.is_none_or(|one| one == node)
        })
    }

    fn speak_as_a_stranger(&mut self, vip: IpAddr, node: u8) {
        if self.is_heard(vip, node) {
            let at = self.now + self.rng.u64(MS / 10..5 * MS);
            self.schedule(at, Happening::StrangerHeard { node, vip });
        }
    }
}

/// The next event for a process: a tick says that all strangers that were heard are told.
pub(super) fn next_event(process: &mut Process) -> Option<Event> {
    if let Some(event) = process.followups.pop_front() {
        return Some(event);
    }
    let is_conflict = |event: &Event| matches!(event, Event::Conflict { .. });
    let at = match process.inbox.front() {
        Some(Event::Tick) => process.inbox.iter().position(is_conflict).unwrap_or(0),
        _ => 0,
    };
    process.inbox.remove(at)
}
