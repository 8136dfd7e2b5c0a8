//! What goes wrong.

use std::{net::IpAddr, time::Duration};

use vip_agent::election::{Event, Stop};

use super::{Happening, World, longest_hold};
use crate::{
    checks::Broken,
    clock::{MS, TrueNs},
    node::{Disk, Stumble},
    schedule::{Back, Fault, HEALED_AT},
};

impl World {
    pub(super) fn inject(&mut self, fault: Fault) -> Result<(), Broken> {
        self.note(|| format!("{fault:?}"));
        let now = self.now;
        let until = |ms: u16| (now + u64::from(ms) * MS).min(HEALED_AT);
        match fault {
            Fault::Pause { node, after, ms } => {
                let until = until(ms);
                self.node(node).stumble = Some((after, Stumble::Pause { until }));
            }
            Fault::Kill { node, after, back } => {
                let back_at = self.plan_return(node, back);
                self.node(node).stumble = Some((after, Stumble::Die { back_at }));
            }
            Fault::Suspend { node, ms } => {
                let until = until(ms);
                let index = self.index(node);
                let standing = self.node(node);
                standing.sleeps += 1;
                standing.paused_until = standing.paused_until.max(until);
                self.schedule(until, Happening::Resume(index));
                self.let_timers_sleep(index, until - now);
            }
            Fault::PowerCut { node, back } => {
                let back_at = self.plan_return(node, back);
                let index = self.index(node);
                let standing = self.node(node);
                standing.lose_power(now, 0);
                let life = standing.life;
                self.schedule(back_at, Happening::Start { node: index, life });
            }
            Fault::Release { node, back } => return self.stop(node, back, Stop::Release),
            Fault::Hold { node, back } => return self.stop(node, back, Stop::Hold),
            Fault::Drift { node, ppm } => self.node(node).clock.set_drift(now, ppm),
            Fault::Cut {
                node,
                requests,
                answers,
                ms,
            } => {
                let until = until(ms);
                let link = &mut self.node(node).link;
                if requests {
                    link.requests_cut_until = until;
                }
                if answers {
                    link.answers_cut_until = until;
                }
            }
            Fault::Slow { node, by_ms, ms } => {
                let until = until(ms);
                let link = &mut self.node(node).link;
                link.slow_until = until;
                link.slower_by = u64::from(by_ms) * MS;
            }
            Fault::Reset { node } => {
                let index = self.index(node);
                let awaited = self.awaited.iter();
                let of_node = awaited.filter(|(_, (node, ..))| *node == index);
                for id in of_node.map(|(id, _)| *id).collect::<Vec<_>>() {
                    self.give_up(id, "connection reset")?;
                }
            }
            Fault::WatchSilent { node, ms } => self.node(node).link.watch_silent_until = until(ms),
            Fault::WatchCancelled { node } => {
                let index = self.index(node);
                let standing = self.node(node);
                let life = standing.life;
                let watch = standing
                    .process
                    .as_mut()
                    .and_then(|process| process.watch.take());
                if watch.is_some() {
                    return self.tell(index, life, Event::WatchLost("cancelled".to_owned()));
                }
            }
            Fault::Compaction => self.etcd.compact(),
            Fault::OthersWrite { keys } => self.etcd.write_elsewhere(keys),
            Fault::SlowCommits { by_ms, ms } => self.etcd_slow = (until(ms), u64::from(by_ms) * MS),
            Fault::LeaderDies { election_ms } => self.lose_leader(until(election_ms), 0),
            Fault::LeaderStalls {
                election_ms,
                answers_ms,
            } => {
                let elected = until(election_ms);
                self.lose_leader(elected, elected + u64::from(answers_ms) * MS);
            }
            Fault::DeleteOwner { vip } => {
                let vip = self.vip(vip);
                if let Some(owner) = self.etcd.owner(vip) {
                    let version = owner.version();
                    let before = self.etcd.revision();
                    self.etcd.delete_owner(vip, version);
                    self.excused_until.insert(vip, now + longest_hold());
                    self.committed(before);
                }
            }
            Fault::DeleteMember { node } => {
                let before = self.etcd.revision();
                let name = self.node(node).name.clone();
                self.etcd.delete_member(&name);
                self.committed(before);
            }
            Fault::RevokeLease { node } => {
                let process = self.node(node).process.as_ref();
                if let Some(lease) = process.and_then(|process| process.machine.lease()) {
                    for vip in self.etcd.vips_on(lease) {
                        self.excused_until.insert(vip, now + longest_hold());
                    }
                    let before = self.etcd.revision();
                    self.etcd.revoke(lease);
                    self.committed(before);
                }
            }
            Fault::BackUp => self.etcd.back_up(),
            Fault::Restore {
                down_ms,
                as_another_cluster,
            } => {
                let restored = until(down_ms);
                self.etcd.leaderless_until = self.etcd.leaderless_until.max(restored);
                self.schedule(restored, Happening::Restored { as_another_cluster });
            }
            Fault::InterfaceDown { node, vip, ms } => {
                let (until, vips) = (until(ms), self.part(vip));
                let standing = self.node(node);
                standing.unable_until.extend(vips.map(|vip| (vip, until)));
                return self.change_fitness(node, until);
            }
            Fault::Unhealthy { node, vip, ms } => {
                let (until, vips) = (until(ms), self.part(vip));
                let standing = self.node(node);
                standing
                    .unhealthy_until
                    .extend(vips.map(|vip| (vip, until)));
                return self.change_fitness(node, until);
            }
            Fault::Ask { node, vip, to } => {
                let (vip, to) = (self.vip(vip), self.node(to).name.clone());
                let (index, life) = (self.index(node), self.node(node).life);
                return self.tell(index, life, Event::Ask { vip, to });
            }
            Fault::Drain { node, force } => {
                let name = self.node(node).name.clone();
                let before = self.etcd.revision();
                self.etcd.drain(&name, force);
                self.committed(before);
            }
            Fault::Undrain { node } => {
                let name = self.node(node).name.clone();
                let before = self.etcd.revision();
                self.etcd.undrain(&name);
                self.committed(before);
            }
            Fault::Configure { node, vip, ms } => {
                let (vip, until) = (self.vip(vip), until(ms));
                let index = self.index(node);
                self.node(node).unconfigured_until.insert(vip, until);
                self.schedule(until, Happening::Configured(index));
                return self.configure(index);
            }
            Fault::AddressRefused { node, ms } => {
                self.node(node).address_refused_until = until(ms);
            }
            Fault::Stranger { vip, heard_by, ms } => {
                let vip = self.vip(vip);
                let heard_by = heard_by.map(|node| self.index(node));
                self.strangers.insert(vip, (until(ms), heard_by));
                self.claim_as_a_stranger(vip);
            }
        }
        Ok(())
    }

    /// One shared IP, or all.
    fn part(&self, vip: Option<u8>) -> impl Iterator<Item = IpAddr> + use<> {
        let one = vip.map(|vip| self.vip(vip));
        let vips = self.vips.clone().into_iter();
        vips.filter(move |vip| one.is_none_or(|one| one == *vip))
    }

    fn change_fitness(&mut self, node: u8, until: TrueNs) -> Result<(), Broken> {
        let index = self.index(node);
        self.schedule(until, Happening::Fitness(index));
        self.tell_fitness(index)
    }

    pub(super) fn stumble(&mut self, node: u8, stumble: Stumble) {
        let standing = &mut self.nodes[usize::from(node)];
        standing.stumble = None;
        match stumble {
            Stumble::Pause { until } => {
                standing.paused_until = standing.paused_until.max(until);
                self.schedule(until, Happening::Resume(node));
            }
            Stumble::Die { back_at } => {
                standing.kill();
                let life = standing.life;
                self.schedule(back_at.max(self.now), Happening::Start { node, life });
            }
        }
    }

    fn stop(&mut self, node: u8, back: Back, how: Stop) -> Result<(), Broken> {
        // Who stopped it starts it again, one second after its end, as a supervisor would.
        let _ = self.plan_return(node, back);
        let index = self.index(node);
        let life = self.node(node).life;
        self.tell(index, life, Event::Stop(how))
    }

    fn plan_return(&mut self, node: u8, back: Back) -> TrueNs {
        let at = (self.now + u64::from(back.after_ms) * MS).min(HEALED_AT);
        let standing = self.node(node);
        if back.forgetful {
            standing.disk = Disk::default();
        }
        if let Some(ttl_s) = back.ttl_s {
            standing.ttl = Duration::from_secs(ttl_s.into());
        }
        at
    }

    fn let_timers_sleep(&mut self, index: u8, by: TrueNs) {
        let standing = &self.nodes[usize::from(index)];
        let current = standing.process.as_ref().map(|process| process.timer);
        for happening in self.queue.values_mut() {
            if let Happening::Tick {
                node, timer, slept, ..
            } = happening
                && *node == index
                && Some(*timer) == current
            {
                *slept += by;
            }
        }
    }

    fn lose_leader(&mut self, elected: TrueNs, answering_until: TrueNs) {
        self.etcd.leaderless_until = self.etcd.leaderless_until.max(elected);
        self.schedule(elected, Happening::Elected { answering_until });
    }
}
