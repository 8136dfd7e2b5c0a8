//! Telling the network who owns what, on a schedule per shared IP, and at a pace for all together.

mod queue;

use std::net::IpAddr;

use super::{Announcer, BootInstant, Interfaces, clock};
use queue::Queue;

pub(super) struct Announcements {
    announcer: Announcer,
    queue: Queue,
    deadline: BootInstant,
}

impl Announcements {
    pub fn new(announcer: Announcer) -> Self {
        Self {
            announcer,
            queue: Queue::new(),
            deadline: BootInstant::BOOT,
        }
    }

    /// Announces as soon as the pace allows, which is now unless many begin together, and goes on.
    pub fn begin(&mut self, vip: IpAddr, interfaces: &Interfaces) {
        let now = clock::boot_now();
        self.queue.begin(vip, now);
        self.send_due(now, interfaces);
    }

    /// Announces again what is being announced: something was amiss with it.
    pub fn repeat(&mut self, vip: IpAddr, interfaces: &Interfaces) {
        if self.queue.has(vip) {
            self.begin(vip, interfaces);
        }
    }

    /// Without a gate nothing else stops what a suspended owner would announce.
    pub fn deadline_moved(&mut self, deadline: BootInstant) {
        self.deadline = deadline;
    }

    pub fn end(&mut self, vip: IpAddr) {
        self.queue.end(vip);
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
        self.queue.next_due()
    }

    pub fn send_due(&mut self, now: BootInstant, interfaces: &Interfaces) {
        while let Some(vip) = self.queue.pop_due(now) {
            self.send(vip, now, interfaces);
        }
    }

    fn send(&mut self, vip: IpAddr, now: BootInstant, interfaces: &Interfaces) {
        let Some(interface) = interfaces.of(vip) else {
            return;
        };
        let Some(link) = &interface.link else {
            return;
        };
        if !interface.is_fenced() && now >= self.deadline {
            return;
        }
        if let Err(error) = self.announcer.send(link.ifindex, link.mac, vip) {
            // A shut gate lets no announcement out; the one to follow when it reopens is the
            // election's to order.
            tracing::debug!(%vip, interface = link.name, %error, "not announced");
        }
    }
}
