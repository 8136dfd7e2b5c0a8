//! A machine: its clock, its kernel, its disk, and the agent's process while there is one.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    time::Duration,
};

use vip_agent::election::{
    Action, BootInstant, Change, Election, Event, Fitness, Gate, History, Inheritance, LeaseId,
    Mac, Settings, Version, VipSettings, WhenAllUnfit,
};

use super::{
    clock::{BootClock, SECOND, TrueNs},
    machine::{Machine, Mutant},
    schedule::{Conduct, NodePlan, Placement},
};

pub struct Node {
    pub name: String,
    pub mac: Mac,
    pub clock: BootClock,
    pub kernel: Kernel,
    pub disk: Disk,
    pub process: Option<Process>,
    /// Grows with every life of the process: what was meant for an earlier one is not for this.
    pub life: u32,
    pub ttl: Duration,
    pub paused_until: TrueNs,
    /// Grows with every sleep of the machine, for timers that slept along.
    pub sleeps: u32,
    pub link: Link,
    /// Where its interfaces are down, and where its health checks fail.
    pub unable_until: BTreeMap<IpAddr, TrueNs>,
    pub unhealthy_until: BTreeMap<IpAddr, TrueNs>,
    /// What was taken out of its configuration for a while.
    pub unconfigured_until: BTreeMap<IpAddr, TrueNs>,
    pub priorities: BTreeMap<IpAddr, u8>,
    /// Whether the kernel has gates; without them an address is served while it is there.
    pub fenced: bool,
    pub address_refused_until: TrueNs,
    /// After so many more actions this befalls the process.
    pub stumble: Option<(u8, Stumble)>,
    /// Whether it has said that it takes the store's history for lost.
    pub distrusts: bool,
}

/// What the kernel holds on to, whatever becomes of the process.
#[derive(Default)]
pub struct Kernel {
    pub lease_deadline: BootInstant,
    /// With the lease that the agent had when it set them.
    pub gates: BTreeMap<IpAddr, (Gate, Option<LeaseId>)>,
    pub addresses: BTreeMap<IpAddr, Address>,
}

/// An address on its interface.
#[derive(Clone, Copy)]
pub struct Address {
    /// The lease that the agent had when it asked for it.
    pub lease: Option<LeaseId>,
    /// How long it lives where there are no gates.
    pub lives_until: BootInstant,
}

/// The state directory.
#[derive(Default)]
pub struct Disk {
    pub instance: Option<String>,
    pub lease: Option<LeaseId>,
    pub history: History,
}

/// The way to etcd and back.
#[derive(Default)]
pub struct Link {
    pub requests_cut_until: TrueNs,
    pub answers_cut_until: TrueNs,
    pub slow_until: TrueNs,
    pub slower_by: TrueNs,
    pub watch_silent_until: TrueNs,
}

pub struct Process {
    pub machine: Machine,
    pub inbox: VecDeque<Event>,
    /// Events that follow from actions on the spot.
    pub followups: VecDeque<Event>,
    pub actions: VecDeque<Action>,
    pub watch: Option<Watch>,
    pub strangers: BTreeMap<IpAddr, Heard>,
    /// Whether it knows that it is drained.
    pub is_drained: bool,
    /// The addresses that it has asked for, and renews.
    pub keeps: BTreeSet<IpAddr>,
    /// The version of each key that it gave up, or handed over, last.
    pub given_up: BTreeMap<IpAddr, Version>,
    /// Which of the timers that were set is the last.
    pub timer: u64,
}

/// What a process has heard of strangers, and asked, about one shared IP.
#[derive(Clone, Copy, Default)]
pub struct Heard {
    /// When it was last told of one.
    pub at: Option<BootInstant>,
    /// How often it has asked since it found the address vacant, while it is so.
    pub asked: Option<u32>,
}

pub struct Watch {
    pub id: u64,
    pub next_revision: i64,
    pub heard_at: TrueNs,
    pub silence: TrueNs,
}

#[derive(Clone, Copy, Debug)]
pub enum Stumble {
    Pause { until: TrueNs },
    Die { back_at: TrueNs },
}

impl Node {
    pub fn new(index: u8, plan: &NodePlan, vips: &BTreeSet<IpAddr>) -> Self {
        let uptime = u64::from(plan.uptime_s) * SECOND;
        let priorities = vips.iter().copied().zip(plan.priorities);
        Self {
            name: format!("n{index}"),
            mac: Mac([2, 0, 0, 0, 0, index + 1]),
            clock: BootClock::new(0, uptime, plan.drift_ppm),
            kernel: Kernel::default(),
            disk: Disk::default(),
            process: None,
            life: 0,
            ttl: Duration::from_secs(plan.ttl_s.into()),
            paused_until: 0,
            sleeps: 0,
            link: Link::default(),
            unable_until: BTreeMap::new(),
            unhealthy_until: BTreeMap::new(),
            unconfigured_until: BTreeMap::new(),
            priorities: priorities.collect(),
            fenced: plan.fenced,
            address_refused_until: 0,
            stumble: None,
            distrusts: false,
        }
    }

    /// Whether frames for it are let in: where there are no gates they are while the address is there.
    pub fn is_gate_open(&self, vip: IpAddr, now: TrueNs) -> bool {
        let now = self.clock.at(now);
        if !self.fenced {
            let address = self.kernel.addresses.get(&vip);
            return address.is_some_and(|address| now < address.lives_until);
        }
        let gate = self.kernel.gates.get(&vip);
        gate.is_some_and(|(gate, _)| gate.is_open()) && now < self.kernel.lease_deadline
    }

    pub fn serves(&self, vip: IpAddr, now: TrueNs) -> bool {
        self.is_gate_open(vip, now)
            && self.open_epoch(vip).is_some()
            && self.kernel.addresses.contains_key(&vip)
    }

    /// On which revision of the key the gate stands open, if it does but for the lease's deadline.
    pub fn open_epoch(&self, vip: IpAddr) -> Option<i64> {
        match self.kernel.gates.get(&vip)? {
            (Gate::Open { epoch }, _) => Some(*epoch),
            (Gate::Closed { .. }, _) => None,
        }
    }

    /// On which lease the gate was opened.
    pub fn open_on(&self, vip: IpAddr) -> Option<LeaseId> {
        if self.fenced {
            self.kernel.gates.get(&vip)?.1
        } else {
            self.kernel.addresses.get(&vip)?.lease
        }
    }

    pub fn fitness(&self, vip: IpAddr, now: TrueNs) -> Fitness {
        let lasts = |until: &BTreeMap<IpAddr, TrueNs>| until.get(&vip).is_some_and(|at| now < *at);
        if lasts(&self.unable_until) {
            Fitness::Unable("down".to_owned())
        } else if lasts(&self.unhealthy_until) {
            Fitness::Unhealthy(self.mac, "its check fails".to_owned())
        } else {
            Fitness::Fit(self.mac)
        }
    }

    pub fn is_configured(&self, vip: IpAddr, now: TrueNs) -> bool {
        let absent_until = self.unconfigured_until.get(&vip);
        absent_until.is_none_or(|until| now >= *until)
    }

    /// The shared IPs as it is configured now.
    pub fn vips(
        &self,
        now: TrueNs,
        conduct: Conduct,
        placement: Placement,
    ) -> BTreeMap<IpAddr, VipSettings> {
        let numbered = self.priorities.iter().zip(1..);
        let present = numbered.filter(|((vip, _), _)| self.is_configured(**vip, now));
        let settings = present.map(|((vip, priority), number)| {
            let settings = VipSettings {
                priority: *priority,
                group: (number <= placement.grouped).then(|| "group".to_owned()),
                probes: conduct.probes && self.fenced,
                fenced: self.fenced,
            };
            (*vip, settings)
        });
        settings.collect()
    }

    /// Starts the agent, on what disk and kernel have of an earlier one.
    pub fn start(
        &mut self,
        now: TrueNs,
        conduct: Conduct,
        placement: Placement,
        mutant: Option<Mutant>,
    ) {
        self.life += 1;
        let fresh = format!("{}-{}", self.name, self.life);
        let instance = self.disk.instance.get_or_insert(fresh).clone();
        let vips = self.vips(now, conduct, placement);
        self.take_off_the_unconfigured(&vips);
        let settings = Settings {
            node: self.name.clone(),
            instance,
            host: self.name.clone(),
            version: String::new(),
            ttl: self.ttl,
            vips: vips.clone(),
            yields: conduct.yields,
            preempt: placement.preempt_ms.map(millis),
            rebalance: placement.rebalance_ms.map(millis),
            when_all_unfit: if placement.releases_when_all_unfit {
                WhenAllUnfit::Release
            } else {
                WhenAllUnfit::Keep
            },
        };
        let open = |vip: &IpAddr| Some((*vip, self.open_epoch(*vip)?));
        let gates = self.kernel.gates.keys().filter(|_| self.fenced);
        let inheritance = Inheritance {
            lease: self.disk.lease,
            history: self.disk.history,
            deadline: self.kernel.lease_deadline,
            open_gates: gates.filter_map(open).collect(),
        };
        let election = Election::new(settings.clone(), inheritance);
        let fitness = |vip: &IpAddr| Event::Fitness(*vip, self.fitness(*vip, now));
        self.process = Some(Process {
            machine: Machine::new(election, settings, mutant),
            inbox: vips.keys().map(fitness).collect(),
            followups: VecDeque::new(),
            actions: VecDeque::new(),
            watch: None,
            strangers: BTreeMap::new(),
            is_drained: false,
            keeps: BTreeSet::new(),
            given_up: BTreeMap::new(),
            timer: 0,
        });
    }

    /// As the agent does before its election begins.
    fn take_off_the_unconfigured(&mut self, vips: &BTreeMap<IpAddr, VipSettings>) {
        self.kernel.gates.retain(|vip, _| vips.contains_key(vip));
        self.kernel
            .addresses
            .retain(|vip, _| vips.contains_key(vip));
    }

    /// The process is gone; what the kernel has stays.
    pub fn kill(&mut self) {
        self.process = None;
        self.stumble = None;
        self.paused_until = 0;
        self.life += 1;
    }

    /// The machine is gone with all that its kernel had; it comes up with a clock at zero. What the
    /// state directory says of a lease was of another boot.
    pub fn lose_power(&mut self, now: TrueNs, drift_ppm: i32) {
        self.kill();
        self.kernel = Kernel::default();
        self.disk.lease = None;
        self.disk.history = History::default();
        self.clock = BootClock::new(now, 0, drift_ppm);
    }
}

impl Process {
    /// What it saw become vacant is not to be asked for, also if it was told of no owner in between.
    pub fn note_vacated(&mut self, event: &Event) {
        let Event::Watched(changes) = event else {
            return;
        };
        for change in changes {
            if let Change::OwnerGone { vip, .. } = change
                && let Some(heard) = self.strangers.get_mut(vip)
            {
                heard.asked = None;
            }
        }
    }

    /// Takes note of what an event tells of drained nodes.
    pub fn note_drained(&mut self, me: &str, event: &Event) {
        match event {
            Event::Read(snapshot) => self.is_drained = snapshot.drained.contains_key(me),
            Event::Watched(changes) => {
                for change in changes {
                    match change {
                        Change::Drained { node, .. } if node == me => self.is_drained = true,
                        Change::Undrained { node, .. } if node == me => self.is_drained = false,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
}

fn millis(ms: u16) -> Duration {
    Duration::from_millis(ms.into())
}
