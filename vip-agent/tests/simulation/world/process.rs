//! The processes: what they are told, and what comes of what they say.

use std::{net::IpAddr, time::Duration};

use vip_agent::election::{Action, BootInstant, Event, Exit, Report};

use super::{AddressDone, Happening, Kind, LIVELOCK, World, strangers};
use crate::{
    checks::{self, Broken},
    clock::{MS, SECOND},
    node::{Address, Disk},
};

impl World {
    pub(super) fn start(&mut self, node: u8, life: u32) -> Result<(), Broken> {
        let (now, mutant) = (self.now, self.mutant);
        let standing = &mut self.nodes[usize::from(node)];
        if standing.life != life || standing.process.is_some() {
            return Ok(());
        }
        standing.start(now, self.conduct, self.placement, mutant);
        self.note(|| format!("n{node} starts"));
        self.run_process(node)
    }

    pub(super) fn tell(&mut self, node: u8, life: u32, event: Event) -> Result<(), Broken> {
        let standing = &mut self.nodes[usize::from(node)];
        if standing.life == life
            && let Some(process) = &mut standing.process
        {
            process.inbox.push_back(event);
            return self.run_process(node);
        }
        Ok(())
    }

    /// One after the other, as a channel would bring them.
    pub(super) fn tell_all(
        &mut self,
        node: u8,
        life: u32,
        events: Vec<Event>,
    ) -> Result<(), Broken> {
        for event in events {
            self.tell(node, life, event)?;
        }
        Ok(())
    }

    /// Lets a process work until it has nothing more to do, or something befalls it.
    pub(super) fn run_process(&mut self, node: u8) -> Result<(), Broken> {
        for _ in 0..LIVELOCK {
            let now = self.now;
            let standing = &mut self.nodes[usize::from(node)];
            let clock = standing.clock;
            let Some(process) = standing
                .process
                .as_mut()
                .filter(|_| now >= standing.paused_until)
            else {
                return Ok(());
            };
            if let Some(action) = process.actions.pop_front() {
                if let Some((left, stumble)) = standing.stumble {
                    standing.stumble = left.checked_sub(1).map(|left| (left, stumble));
                    if left == 0 {
                        process.actions.push_front(action);
                        self.stumble(node, stumble);
                        continue;
                    }
                }
                self.perform(node, action)?;
                self.check_gates()?;
                continue;
            }
            let Some(event) = strangers::next_event(process) else {
                self.set_timer(node);
                return Ok(());
            };
            self.events += 1;
            if self.trace {
                eprintln!("{:>12?} n{node} <- {event:?}", Duration::from_nanos(now));
            }
            let now = clock.at(now);
            process.note_drained(&standing.name, &event);
            process.note_vacated(&event);
            if let Event::Conflict { vip, .. } = &event {
                process.strangers.entry(*vip).or_default().at = Some(now);
            }
            let actions = process.machine.handle(now, event);
            process.actions.extend(actions);
            for (vip, heard) in &mut process.strangers {
                if !process.machine.is_vacant(*vip, now) {
                    heard.asked = None;
                }
            }
        }
        let node = self.nodes[usize::from(node)].name.clone();
        Err(Broken::Livelock { node })
    }

    fn set_timer(&mut self, node: u8) {
        let jitter = self.rng.u64(0..2 * MS);
        let now = self.now;
        let standing = &mut self.nodes[usize::from(node)];
        let (clock, life, sleeps) = (standing.clock, standing.life, standing.sleeps);
        let Some(process) = &mut standing.process else {
            return;
        };
        process.timer += 1;
        if let Some(instant) = process.machine.next_timeout() {
            let timer = process.timer;
            let at = clock.when(instant, now) + jitter;
            self.schedule(
                at,
                Happening::Tick {
                    node,
                    life,
                    timer,
                    sleeps,
                    slept: 0,
                },
            );
        }
    }

    fn perform(&mut self, node: u8, action: Action) -> Result<(), Broken> {
        if self.trace && !matches!(action, Action::Renew { .. }) {
            eprintln!(
                "{:>12?} n{node} -> {action:?}",
                Duration::from_nanos(self.now)
            );
        }
        self.judge_conduct(node, &action)?;
        self.judge_moves(node, &action)?;
        let standing = &mut self.nodes[usize::from(node)];
        let life = standing.life;
        match action {
            Action::SetLeaseDeadline(at) => {
                standing.kernel.lease_deadline = at;
                // Addresses are not made to live shorter.
                for (vip, address) in &mut standing.kernel.addresses {
                    let kept = standing
                        .process
                        .as_ref()
                        .is_some_and(|one| one.keeps.contains(vip));
                    if kept {
                        address.lives_until = address.lives_until.max(at);
                    }
                }
            }
            Action::SetGate(vip, gate) => {
                if let Some(process) = &mut standing.process {
                    let lease = process.machine.lease();
                    standing.kernel.gates.insert(vip, (gate, lease));
                    process.followups.push_back(Event::GateSet(vip));
                }
            }
            Action::AddAddress(vip) => {
                let mut lease = None;
                if let Some(process) = &mut standing.process {
                    process.keeps.insert(vip);
                    lease = process.machine.lease();
                }
                let refused = self.now < standing.address_refused_until;
                let done = if refused {
                    AddressDone::Refused
                } else {
                    AddressDone::Added(lease)
                };
                let at = self.now + self.rng.u64(MS / 10..3 * MS);
                self.schedule(
                    at,
                    Happening::AddressDone {
                        node,
                        life,
                        vip,
                        done,
                    },
                );
            }
            Action::RemoveAddress(vip) => {
                checks::withdrawal(vip, standing)?;
                if let Some(process) = &mut standing.process {
                    process.keeps.remove(&vip);
                }
                let at = self.now + self.rng.u64(MS / 10..3 * MS);
                let done = AddressDone::Removed;
                self.schedule(
                    at,
                    Happening::AddressDone {
                        node,
                        life,
                        vip,
                        done,
                    },
                );
            }
            Action::Remember(lease) => standing.disk.lease = lease,
            Action::Note(history) => standing.disk.history = history,
            Action::Exit(exit) => self.end(node, &exit)?,
            Action::Read => self.send(node, Kind::Read),
            Action::Grant { ttl } => {
                let sent_at = standing.clock.at(self.now);
                self.send(node, Kind::Grant { ttl, sent_at });
            }
            Action::Renew { round, lease, .. } => {
                self.send(node, Kind::Renew { round, lease });
                self.send(node, Kind::Confirm { round });
            }
            Action::Release { vip, .. } => {
                checks::give_up(vip, standing)?;
                self.send(node, Kind::Change(Box::new(action)));
            }
            Action::Leave { lease } => {
                for vip in self.etcd.vips_on(lease) {
                    checks::give_up(vip, standing)?;
                }
                self.send(node, Kind::Change(Box::new(action)));
            }
            Action::Join { .. }
            | Action::Claim { .. }
            | Action::Transfer { .. }
            | Action::Reassert { .. } => {
                self.send(node, Kind::Change(Box::new(action)));
            }
            Action::Watch {
                from_revision,
                silence,
            } => self.watch(node, from_revision, silence),
            Action::Announce(_)
            | Action::Silence(_)
            | Action::Probe(_)
            | Action::SetMembers(_)
            | Action::Forget(_) => {}
            Action::Report(report) => self.judge_report(node, &report)?,
        }
        Ok(())
    }

    /// A history that is none is nobody's to see.
    fn judge_report(&mut self, node: u8, report: &Report) -> Result<(), Broken> {
        let standing = &mut self.nodes[usize::from(node)];
        match report {
            // Answers may be lost while renewals go on; that it can't tell from a restored store.
            Report::LeaseOutlived => standing.distrusts = true,
            Report::HistoryReset { .. } => {
                let known = std::mem::take(&mut standing.distrusts) || self.restored;
                // A mutant is to be caught by what comes of it.
                if !known && self.mutant.is_none() {
                    let node = standing.name.clone();
                    return Err(Broken::FalseAlarm { node });
                }
            }
            _ => {}
        }
        Ok(())
    }

    pub(super) fn finish_address(
        &mut self,
        node: u8,
        life: u32,
        vip: IpAddr,
        done: &AddressDone,
    ) -> Result<(), Broken> {
        // What netlink was asked for is done even if the asker has died; a power cut makes it void.
        let standing = &mut self.nodes[usize::from(node)];
        let addresses = &mut standing.kernel.addresses;
        let event = match done {
            AddressDone::Added(lease) => {
                let lives_until = standing.kernel.lease_deadline;
                let lease = *lease;
                addresses.insert(vip, Address { lease, lives_until });
                Event::AddressAdded(vip)
            }
            AddressDone::Removed => {
                addresses.remove(&vip);
                Event::AddressRemoved(vip)
            }
            AddressDone::Refused => Event::AddressFailed(vip, "refused".to_owned()),
        };
        self.tell(node, life, event)
    }

    fn end(&mut self, node: u8, exit: &Exit) -> Result<(), Broken> {
        let standing = &mut self.nodes[usize::from(node)];
        if let Exit::NameTaken { .. } = exit {
            let node = standing.name.clone();
            return Err(Broken::TakesItselfForAnother { node });
        }
        standing.kill();
        if *exit != Exit::Held {
            standing.kernel.gates.clear();
            standing.kernel.lease_deadline = BootInstant::BOOT;
            standing.disk = Disk::default();
        }
        let life = standing.life;
        // Whoever supervises it starts it again.
        self.schedule(self.now + SECOND, Happening::Start { node, life });
        Ok(())
    }

    pub(super) fn tell_fitness(&mut self, node: u8) -> Result<(), Broken> {
        for vip in self.vips.clone() {
            let standing = &self.nodes[usize::from(node)];
            let (life, fitness) = (standing.life, standing.fitness(vip, self.now));
            self.tell(node, life, Event::Fitness(vip, fitness))?;
        }
        Ok(())
    }
}
