//! Telling the network who owns what, on a schedule per shared IP.

use std::{collections::BTreeMap, net::IpAddr};

use super::{Announcer, BootInstant, Interfaces, clock};
use crate::net::Schedule;

pub(super) struct Announcements {
    announcer: Announcer,
    schedules: BTreeMap<IpAddr, Schedule>,
    deadline: BootInstant,
}

impl Announcements {
    pub fn new(announcer: Announcer) -> Self {
        Self {
            announcer,
            schedules: BTreeMap::new(),
            deadline: BootInstant::BOOT,
        }
    }

    /// Announces now, and goes on.
    pub fn begin(&mut self, vip: IpAddr, interfaces: &Interfaces) {
        let now = clock::boot_now();
        self.schedules.insert(vip, Schedule::starting(now));
        self.send_due(now, interfaces);
    }

    /// Announces again what is being announced: something was amiss with it.
    pub fn repeat(&mut self, vip: IpAddr, interfaces: &Interfaces) {
        if self.schedules.contains_key(&vip) {
            self.begin(vip, interfaces);
        }
    }

    /// Without a gate nothing else stops what a suspended owner would announce.
    pub fn deadline_moved(&mut self, deadline: BootInstant) {
        self.deadline = deadline;
    }

    pub fn end(&mut self, vip: IpAddr) {
        self.schedules.remove(&vip);
    }

    /// Asks once whether anybody has it.
    pub fn probe(&self, vip: IpAddr, interfaces: &Interfaces) {
        let link = interfaces.of(vip).and_then(|one| one.link.as_ref());
        let Some(link) = link else {
            return;
        };
        if let Err(error) = self.announcer.probe(link.ifindex, link.mac, vip) {
            tracing::debug!(%vip, interface = link.name, %error, "not asked for");
        }
    }

    pub fn next_due(&self) -> Option<BootInstant> {
        self.schedules.values().map(Schedule::next_due).min()
    }

    pub fn send_due(&mut self, now: BootInstant, interfaces: &Interfaces) {
        for (vip, schedule) in &mut self.schedules {
            if schedule.next_due() > now {
                continue;
            }
            schedule.sent(now);
            let Some(interface) = interfaces.of(*vip) else {
                continue;
            };
            let Some(link) = &interface.link else {
                continue;
            };
            if !interface.is_fenced() && now >= self.deadline {
                continue;
            }
            if let Err(error) = self.announcer.send(link.ifindex, link.mac, *vip) {
                // A shut gate lets no announcement out; the one to follow when it reopens is the
                // election's to order.
                tracing::debug!(%vip, interface = link.name, %error, "not announced");
            }
        }
    }
}
