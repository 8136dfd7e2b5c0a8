//! The simulation: nodes, network and etcd on one line of true time.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use vip_agent::election::{
    Action, BootInstant, Event, Exit, LeaseId, Outcome, Report, RoundId, Stop,
};

use super::{
    checks::{self, Broken, Violation},
    clock::{BootClock, MS, SECOND, TrueNs},
    etcd::{EXPIRY_TICK, Etcd},
    machine::Mutant,
    node::{Node, Stumble, Watch},
    schedule::{Back, Fault, HEALED_AT, Schedule},
};

/// With all in order from [`HEALED_AT`] on, every shared IP is served by then.
///
/// A watch that had just fallen silent is noticed after 2 × TTL, the read that follows may find a
/// lease that has TTL, etcd's extension and its tick still to go, and a vacancy that is found is
/// waited out: 5 s of TTL at most here.
pub const SERVED_AGAIN_WITHIN: TrueNs = 25 * SECOND;

/// For how long a gate may stay open that rests on what was in etcd before: the longest TTL here, on
/// the slowest clock.
fn longest_hold() -> TrueNs {
    6 * SECOND
}

/// More events at one instant than any real one could cause.
const LIVELOCK: u32 = 10_000;

pub struct World {
    now: TrueNs,
    nodes: Vec<Node>,
    vips: BTreeSet<IpAddr>,
    etcd: Etcd,
    etcd_slow: (TrueNs, TrueNs),
    /// By time, and in the order of their planning where that is the same.
    queue: BTreeMap<(TrueNs, u64), Happening>,
    sequence: u64,
    /// Requests on their way to etcd, or waiting there.
    sent: BTreeMap<u64, Request>,
    /// Requests that their sender still waits for.
    awaited: BTreeMap<u64, (u8, u32, Kind)>,
    rng: fastrand::Rng,
    mutant: Option<Mutant>,
    faults: Vec<(TrueNs, Fault)>,
    /// Somebody changed the key by hand: until then two gates may be open.
    excused_until: BTreeMap<IpAddr, TrueNs>,
    /// Whether the store was ever restored.
    restored: bool,
    /// History was replaced: what gates stand on need not be in it until then.
    rewritten_until: TrueNs,
    events: u64,
    trace: bool,
}

/// What a run came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Events that the machines were told.
    pub events: u64,
    /// How long after all was healed the last shared IP was served.
    pub served_after: Duration,
}

#[derive(Clone, Debug)]
enum Happening {
    Fault(usize),
    Elected {
        answering_until: TrueNs,
    },
    Restored {
        as_another_cluster: bool,
    },
    Arrives(u64),
    Answered(u64, Box<Event>),
    GivesUp(u64),
    AddressDone {
        node: u8,
        life: u32,
        vip: IpAddr,
        done: AddressDone,
    },
    Poll {
        node: u8,
        life: u32,
        watch: u64,
        again: bool,
    },
    Tick {
        node: u8,
        life: u32,
        timer: u64,
        sleeps: u32,
        slept: TrueNs,
    },
    Resume(u8),
    Start {
        node: u8,
        life: u32,
    },
    Fitness(u8),
    Expire,
}

#[derive(Clone, Debug)]
enum AddressDone {
    Added,
    Refused,
    Removed,
}

#[derive(Clone, Debug)]
struct Request {
    node: u8,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Read,
    Grant {
        ttl: Duration,
        sent_at: BootInstant,
    },
    Renew {
        round: RoundId,
        lease: LeaseId,
    },
    Confirm {
        round: RoundId,
    },
    /// One that changes something: `Join`, `Claim`, `Reassert`, `Release` or `Leave`.
    Change(Box<Action>),
}

impl World {
    pub fn new(schedule: &Schedule, mutant: Option<Mutant>, trace: bool) -> Self {
        let vips = (0..schedule.vips).map(|n| IpAddr::from([10, 0, 0, 100 + n]));
        let node = |(index, plan): (u8, &super::schedule::NodePlan)| {
            let uptime = u64::from(plan.uptime_s) * SECOND;
            let clock = BootClock::new(0, uptime, plan.drift_ppm);
            Node::new(index, clock, Duration::from_secs(plan.ttl_s.into()))
        };
        let mut world = Self {
            now: 0,
            nodes: (0..).zip(&schedule.nodes).map(node).collect(),
            vips: vips.collect(),
            etcd: Etcd::new(schedule.etcd_drift_ppm),
            etcd_slow: (0, 0),
            queue: BTreeMap::new(),
            sequence: 0,
            sent: BTreeMap::new(),
            awaited: BTreeMap::new(),
            rng: fastrand::Rng::with_seed(schedule.seed),
            mutant,
            faults: schedule.faults.clone(),
            excused_until: BTreeMap::new(),
            restored: false,
            rewritten_until: 0,
            events: 0,
            trace,
        };
        for index in 0..world.nodes.len() {
            let node = u8::try_from(index).expect("a handful of nodes");
            let life = world.nodes[index].life;
            let at = world.rng.u64(0..2 * SECOND);
            world.schedule(at, Happening::Start { node, life });
        }
        for index in 0..world.faults.len() {
            let at = world.faults[index].0;
            world.schedule(at, Happening::Fault(index));
        }
        world.schedule(EXPIRY_TICK, Happening::Expire);
        world
    }

    /// Runs it to its end, or to the first rule that does not hold.
    pub fn run(mut self) -> Result<Tally, Violation> {
        let mut served_at = None;
        while let Some(((at, _), happening)) = self.queue.pop_first() {
            if at > HEALED_AT + SERVED_AGAIN_WITHIN {
                break;
            }
            self.now = at;
            self.happen(happening)
                .and_then(|()| self.check_gates())
                .map_err(|what| Violation { at: self.now, what })?;
            if self.now >= HEALED_AT {
                let all = self.unserved().is_none();
                served_at = served_at.filter(|_| all).or(all.then_some(self.now));
            }
        }
        match (self.unserved(), served_at) {
            (None, Some(at)) => Ok(Tally {
                events: self.events,
                served_after: Duration::from_nanos(at - HEALED_AT),
            }),
            (vip, _) => Err(Violation {
                at: self.now,
                what: Broken::NobodyServes {
                    vip: vip.unwrap_or([0, 0, 0, 0].into()),
                },
            }),
        }
    }

    fn unserved(&self) -> Option<IpAddr> {
        let serves = |node: &Node, vip: &IpAddr| {
            node.is_gate_open(*vip, self.now) && node.kernel.addresses.contains(vip)
        };
        let mut vips = self.vips.iter();
        let unserved = vips.find(|vip| !self.nodes.iter().any(|node| serves(node, vip)));
        unserved.copied()
    }

    fn check_gates(&self) -> Result<(), Broken> {
        for vip in &self.vips {
            if self
                .excused_until
                .get(vip)
                .is_some_and(|until| self.now < *until)
            {
                continue;
            }
            match checks::gates(self.now, *vip, &self.nodes, &self.etcd) {
                Err(Broken::OpenWithoutTheKey { .. }) if self.now < self.rewritten_until => {}
                checked => checked?,
            }
        }
        Ok(())
    }

    fn happen(&mut self, happening: Happening) -> Result<(), Broken> {
        match happening {
            Happening::Fault(index) => self.inject(self.faults[index].1),
            Happening::Elected { answering_until } => {
                self.note(|| "a new etcd leader".to_owned());
                self.etcd.elect(self.now, answering_until);
                Ok(())
            }
            Happening::Restored { as_another_cluster } => {
                self.note(|| format!("etcd restored, another cluster: {as_another_cluster}"));
                self.etcd.restore(self.now, as_another_cluster);
                self.rewritten_until = self.now + longest_hold();
                self.restored = true;
                self.sent.clear();
                self.poll_all();
                Ok(())
            }
            Happening::Arrives(id) => self.arrive(id),
            Happening::Answered(id, event) => match self.awaited.remove(&id) {
                Some((node, life, _)) => self.tell(node, life, *event),
                None => Ok(()),
            },
            Happening::GivesUp(id) => self.give_up(id, "no answer in time"),
            Happening::AddressDone {
                node,
                life,
                vip,
                done,
            } => self.finish_address(node, life, vip, &done),
            Happening::Poll {
                node,
                life,
                watch,
                again,
            } => self.poll(node, life, watch, again),
            Happening::Tick {
                node,
                life,
                timer,
                sleeps,
                slept,
            } => {
                let standing = &self.nodes[usize::from(node)];
                if standing
                    .process
                    .as_ref()
                    .is_none_or(|process| process.timer != timer)
                {
                    return Ok(());
                }
                if standing.sleeps != sleeps {
                    let sleeps = standing.sleeps;
                    let tick = Happening::Tick {
                        node,
                        life,
                        timer,
                        sleeps,
                        slept: 0,
                    };
                    self.schedule(self.now + slept, tick);
                    return Ok(());
                }
                self.tell(node, life, Event::Tick)
            }
            Happening::Resume(node) => self.run_process(node),
            Happening::Start { node, life } => self.start(node, life),
            Happening::Fitness(node) => self.tell_fitness(node),
            Happening::Expire => {
                if self.now >= self.etcd.leaderless_until {
                    let before = self.etcd.revision();
                    self.etcd.expire(self.now);
                    self.committed(before);
                }
                self.schedule(self.now + EXPIRY_TICK, Happening::Expire);
                Ok(())
            }
        }
    }

    // The processes.

    fn start(&mut self, node: u8, life: u32) -> Result<(), Broken> {
        let (now, mutant) = (self.now, self.mutant);
        let standing = &mut self.nodes[usize::from(node)];
        if standing.life != life || standing.process.is_some() {
            return Ok(());
        }
        standing.start(now, &self.vips, mutant);
        self.note(|| format!("n{node} starts"));
        self.run_process(node)
    }

    fn tell(&mut self, node: u8, life: u32, event: Event) -> Result<(), Broken> {
        let standing = &mut self.nodes[usize::from(node)];
        if standing.life == life
            && let Some(process) = &mut standing.process
        {
            process.inbox.push_back(event);
            return self.run_process(node);
        }
        Ok(())
    }

    /// Lets a process work until it has nothing more to do, or something befalls it.
    fn run_process(&mut self, node: u8) -> Result<(), Broken> {
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
            let next = process
                .followups
                .pop_front()
                .or_else(|| process.inbox.pop_front());
            let Some(event) = next else {
                self.set_timer(node);
                return Ok(());
            };
            self.events += 1;
            if self.trace {
                eprintln!("{:>12?} n{node} <- {event:?}", Duration::from_nanos(now));
            }
            let actions = process.machine.handle(clock.at(now), event);
            process.actions.extend(actions);
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
        let standing = &mut self.nodes[usize::from(node)];
        let life = standing.life;
        match action {
            Action::SetLeaseDeadline(at) => standing.kernel.lease_deadline = at,
            Action::SetGate(vip, gate) => {
                if let Some(process) = &mut standing.process {
                    let lease = process.machine.lease();
                    standing.kernel.gates.insert(vip, (gate, lease));
                    process.followups.push_back(Event::GateSet(vip));
                }
            }
            Action::AddAddress(vip) => {
                let refused = self.now < standing.address_refused_until;
                let done = if refused {
                    AddressDone::Refused
                } else {
                    AddressDone::Added
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
            Action::Join { .. } | Action::Claim { .. } | Action::Reassert { .. } => {
                self.send(node, Kind::Change(Box::new(action)));
            }
            Action::Watch {
                from_revision,
                silence,
            } => self.watch(node, from_revision, silence),
            Action::Announce(_) | Action::Silence(_) | Action::SetMembers(_) => {}
            Action::Report(report) => self.judge_report(node, &report)?,
        }
        Ok(())
    }

    /// A history that is none is nobody's to see.
    fn judge_report(&mut self, node: u8, report: &Report) -> Result<(), Broken> {
        let standing = &mut self.nodes[usize::from(node)];
        match report {
            // Answers may be lost while renewals go on; that it can't tell from a restored store.
            Report::Resync { cause } if cause.contains("should have ended") => {
                standing.distrusts = true;
            }
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

    fn finish_address(
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
            AddressDone::Added => {
                addresses.insert(vip);
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
            standing.disk = super::node::Disk::default();
        }
        let life = standing.life;
        // Whoever supervises it starts it again.
        self.schedule(self.now + SECOND, Happening::Start { node, life });
        Ok(())
    }

    fn tell_fitness(&mut self, node: u8) -> Result<(), Broken> {
        let (life, fit) = {
            let standing = &self.nodes[usize::from(node)];
            (standing.life, standing.fit(self.now))
        };
        for vip in self.vips.clone() {
            self.tell(node, life, Event::Fitness(vip, fit))?;
        }
        Ok(())
    }

    // The way to etcd.

    fn send(&mut self, node: u8, kind: Kind) {
        self.sequence += 1;
        let id = self.sequence;
        let (life, patience) = {
            let standing = &self.nodes[usize::from(node)];
            let whole = matches!(kind, Kind::Read | Kind::Grant { .. })
                || matches!(&kind, Kind::Change(action) if matches!(**action, Action::Leave { .. }));
            (
                standing.life,
                if whole {
                    standing.ttl
                } else {
                    standing.ttl / 2
                },
            )
        };
        self.awaited.insert(id, (node, life, kind.clone()));
        let patience = TrueNs::try_from(patience.as_nanos()).expect("a TTL fits");
        self.schedule(self.now + patience, Happening::GivesUp(id));
        let changes = matches!(kind, Kind::Grant { .. } | Kind::Change(_));
        let cut_until = self.nodes[usize::from(node)].link.requests_cut_until;
        if let Some(at) = self.leg(node, cut_until) {
            let commit = if changes { self.commit_takes() } else { 0 };
            self.sent.insert(id, Request { node, kind });
            self.schedule(at + commit, Happening::Arrives(id));
        }
    }

    /// When what is sent now by this way arrives, if ever: a cut loses it, or only holds it up.
    fn leg(&mut self, node: u8, cut_until: TrueNs) -> Option<TrueNs> {
        let link = &self.nodes[usize::from(node)].link;
        let extra = if self.now < link.slow_until {
            link.slower_by
        } else {
            0
        };
        let takes = self.rng.u64(MS / 5..2 * MS)
            + if extra > 0 {
                self.rng.u64(0..=extra)
            } else {
                0
            };
        if self.now < cut_until {
            return self.rng.bool().then(|| cut_until + takes);
        }
        Some(self.now + takes)
    }

    fn commit_takes(&mut self) -> TrueNs {
        let (until, by) = self.etcd_slow;
        let extra = if self.now < until {
            self.rng.u64(0..=by)
        } else {
            0
        };
        self.rng.u64(MS..2 * MS) + extra
    }

    fn arrive(&mut self, id: u64) -> Result<(), Broken> {
        let Some(Request { node, kind }) = self.sent.get(&id).cloned() else {
            return Ok(());
        };
        // A leader that was deposed, or hangs, answers renewals all the same.
        if let Kind::Renew { round, lease } = kind
            && self.rng.bool()
            && let Some(renewal) = self.etcd.renew_at_deposed(self.now, lease)
        {
            self.sent.remove(&id);
            let event = Event::Renewed {
                round,
                ttl: renewal.ttl,
                raft_term: renewal.raft_term,
            };
            self.answer(id, node, event);
            return Ok(());
        }
        if self.now < self.etcd.leaderless_until {
            let at = self.etcd.leaderless_until + self.rng.u64(1..20 * MS);
            self.schedule(at, Happening::Arrives(id));
            return Ok(());
        }
        self.sent.remove(&id);
        let before = self.etcd.revision();
        let event = self.serve(kind);
        self.committed(before);
        self.answer(id, node, event);
        self.check_gates()
    }

    fn serve(&mut self, kind: Kind) -> Event {
        let now = self.now;
        match kind {
            Kind::Read => Event::Read(self.etcd.read()),
            Kind::Confirm { round } => Event::Confirmed {
                round,
                snapshot: self.etcd.read(),
            },
            Kind::Renew { round, lease } => {
                let renewal = self.etcd.renew(now, lease);
                Event::Renewed {
                    round,
                    ttl: renewal.ttl,
                    raft_term: renewal.raft_term,
                }
            }
            Kind::Grant { ttl, sent_at } => {
                let (lease, ttl) = self.etcd.grant(now, ttl);
                Event::Granted {
                    sent_at,
                    lease,
                    ttl,
                }
            }
            Kind::Change(action) => match *action {
                Action::Join {
                    lease,
                    record,
                    replacing,
                } => Event::Joined(self.etcd.put_member(record, lease, replacing)),
                Action::Claim { vip, lease, record } => {
                    Event::Claimed(vip, self.etcd.put_owner(vip, record, lease, None))
                }
                Action::Reassert {
                    vip,
                    version,
                    record,
                } => {
                    let lease = version.lease;
                    let outcome = self.etcd.put_owner(vip, record, lease, Some(version));
                    Event::Reasserted(vip, outcome)
                }
                Action::Release { vip, version } => {
                    Event::Released(vip, self.etcd.delete_owner(vip, version))
                }
                Action::Leave { lease } => {
                    self.etcd.revoke(lease);
                    Event::Left
                }
                other => unreachable!("{other:?} is no change of etcd's"),
            },
        }
    }

    fn answer(&mut self, id: u64, node: u8, event: Event) {
        let cut_until = self.nodes[usize::from(node)].link.answers_cut_until;
        if let Some(at) = self.leg(node, cut_until) {
            self.schedule(at, Happening::Answered(id, Box::new(event)));
        }
    }

    fn give_up(&mut self, id: u64, why: &str) -> Result<(), Broken> {
        let Some((node, life, kind)) = self.awaited.remove(&id) else {
            return Ok(());
        };
        let error = why.to_owned();
        let event = match kind {
            Kind::Read => Event::ReadFailed(error),
            Kind::Grant { .. } => Event::GrantFailed(error),
            Kind::Renew { round, .. } | Kind::Confirm { round } => {
                Event::RoundFailed { round, error }
            }
            Kind::Change(action) => match *action {
                Action::Join { .. } => Event::Joined(Outcome::Unknown(error)),
                Action::Claim { vip, .. } => Event::Claimed(vip, Outcome::Unknown(error)),
                Action::Reassert { vip, .. } => Event::Reasserted(vip, Outcome::Unknown(error)),
                Action::Release { vip, .. } => Event::Released(vip, Outcome::Unknown(error)),
                _ => Event::Left,
            },
        };
        self.tell(node, life, event)
    }

    // The watches.

    fn watch(&mut self, node: u8, next_revision: i64, silence: Duration) {
        self.sequence += 1;
        let (id, now) = (self.sequence, self.now);
        let standing = &mut self.nodes[usize::from(node)];
        let life = standing.life;
        if let Some(process) = &mut standing.process {
            process.watch = Some(Watch {
                id,
                next_revision,
                heard_at: now,
                silence: TrueNs::try_from(silence.as_nanos()).expect("a TTL fits"),
            });
            let at = self.now + self.rng.u64(MS / 5..2 * MS);
            self.schedule(
                at,
                Happening::Poll {
                    node,
                    life,
                    watch: id,
                    again: true,
                },
            );
        }
    }

    /// What has come for a watch is handed over, and whether it is still alive is looked at.
    fn poll(&mut self, node: u8, life: u32, id: u64, again: bool) -> Result<(), Broken> {
        const INTERVAL: TrueNs = 100 * MS;
        let now = self.now;
        let standing = &mut self.nodes[usize::from(node)];
        let blocked_until = [
            standing.link.requests_cut_until,
            standing.link.answers_cut_until,
            standing.link.watch_silent_until,
            self.etcd.leaderless_until,
        ];
        let Some(process) = standing.process.as_mut().filter(|_| standing.life == life) else {
            return Ok(());
        };
        let Some(watch) = process.watch.as_mut().filter(|watch| watch.id == id) else {
            return Ok(());
        };
        let event = if blocked_until.iter().any(|until| now < *until) {
            let lost = now >= watch.heard_at + watch.silence;
            lost.then(|| Event::WatchLost("silent".to_owned()))
        } else {
            watch.heard_at = now;
            match self.etcd.changes_since(watch.next_revision) {
                None => Some(Event::WatchLost("compacted".to_owned())),
                Some(changes) if changes.is_empty() => None,
                Some(changes) => {
                    watch.next_revision = self.etcd.revision() + 1;
                    Some(Event::Watched(changes))
                }
            }
        };
        match &event {
            Some(Event::WatchLost(_)) => process.watch = None,
            _ if again => {
                self.schedule(
                    now + INTERVAL,
                    Happening::Poll {
                        node,
                        life,
                        watch: id,
                        again,
                    },
                );
            }
            _ => {}
        }
        event.map_or(Ok(()), |event| self.tell(node, life, event))
    }

    /// Something was committed if the revision is another one than before.
    fn committed(&mut self, before: i64) {
        if self.etcd.revision() != before {
            self.poll_all();
        }
    }

    fn poll_all(&mut self) {
        for index in 0..self.nodes.len() {
            let node = u8::try_from(index).expect("a handful of nodes");
            let standing = &self.nodes[index];
            let life = standing.life;
            let watch = standing
                .process
                .as_ref()
                .and_then(|process| process.watch.as_ref());
            if let Some(watch) = watch.map(|watch| watch.id)
                && let Some(at) = self.leg(node, 0)
            {
                self.schedule(
                    at,
                    Happening::Poll {
                        node,
                        life,
                        watch,
                        again: false,
                    },
                );
            }
        }
    }

    // The faults.

    fn inject(&mut self, fault: Fault) -> Result<(), Broken> {
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
            Fault::InterfaceDown { node, ms } => {
                let until = until(ms);
                let index = self.index(node);
                self.node(node).unfit_until = until;
                self.schedule(until, Happening::Fitness(index));
                return self.tell_fitness(index);
            }
            Fault::AddressRefused { node, ms } => {
                self.node(node).address_refused_until = until(ms);
            }
        }
        Ok(())
    }

    fn stumble(&mut self, node: u8, stumble: Stumble) {
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
            standing.disk = super::node::Disk::default();
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

    // Small things.

    fn schedule(&mut self, at: TrueNs, happening: Happening) {
        self.sequence += 1;
        self.queue
            .insert((at.max(self.now), self.sequence), happening);
    }

    fn index(&self, node: u8) -> u8 {
        node % u8::try_from(self.nodes.len()).expect("a handful of nodes")
    }

    fn node(&mut self, node: u8) -> &mut Node {
        let index = self.index(node);
        &mut self.nodes[usize::from(index)]
    }

    fn vip(&self, vip: u8) -> IpAddr {
        let vips: Vec<_> = self.vips.iter().copied().collect();
        vips[usize::from(vip) % vips.len()]
    }

    fn note(&self, what: impl FnOnce() -> String) {
        if self.trace {
            eprintln!("{:>12?} == {}", Duration::from_nanos(self.now), what());
        }
    }
}
