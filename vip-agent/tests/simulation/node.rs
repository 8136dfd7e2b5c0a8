//! A machine: its clock, its kernel, its disk, and the agent's process while there is one.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    time::Duration,
};

use vip_agent::election::{
    Action, BootInstant, DEFAULT_PRIORITY, Election, Event, Fitness, Gate, Inheritance, LeaseId,
    Mac, Settings, VipSettings, WhenAllUnfit,
};

use super::{
    clock::{BootClock, TrueNs},
    machine::{Machine, Mutant},
    schedule::Conduct,
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
    pub unfit_until: TrueNs,
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
    pub addresses: BTreeSet<IpAddr>,
}

/// The state directory.
#[derive(Default)]
pub struct Disk {
    pub instance: Option<String>,
    pub lease: Option<LeaseId>,
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
    pub fn new(index: u8, clock: BootClock, ttl: Duration) -> Self {
        Self {
            name: format!("n{index}"),
            mac: Mac([2, 0, 0, 0, 0, index + 1]),
            clock,
            kernel: Kernel::default(),
            disk: Disk::default(),
            process: None,
            life: 0,
            ttl,
            paused_until: 0,
            sleeps: 0,
            link: Link::default(),
            unfit_until: 0,
            address_refused_until: 0,
            stumble: None,
            distrusts: false,
        }
    }

    pub fn is_gate_open(&self, vip: IpAddr, now: TrueNs) -> bool {
        let gate = self.kernel.gates.get(&vip);
        gate.is_some_and(|(gate, _)| gate.is_open())
            && self.clock.at(now) < self.kernel.lease_deadline
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
        self.kernel.gates.get(&vip)?.1
    }

    pub fn fitness(&self, now: TrueNs) -> Fitness {
        if now >= self.unfit_until {
            Fitness::Fit(self.mac)
        } else {
            Fitness::Unable("down".to_owned())
        }
    }

    /// Starts the agent, on what disk and kernel have of an earlier one.
    pub fn start(
        &mut self,
        now: TrueNs,
        vips: &BTreeSet<IpAddr>,
        conduct: Conduct,
        mutant: Option<Mutant>,
    ) {
        self.life += 1;
        let fresh = format!("{}-{}", self.name, self.life);
        let instance = self.disk.instance.get_or_insert(fresh).clone();
        let vip_settings = |_| VipSettings {
            priority: DEFAULT_PRIORITY,
            group: None,
            probes: conduct.probes,
            fenced: true,
        };
        let settings = Settings {
            node: self.name.clone(),
            instance,
            host: self.name.clone(),
            version: String::new(),
            ttl: self.ttl,
            vips: vips.iter().map(|vip| (*vip, vip_settings(vip))).collect(),
            yields: conduct.yields,
            preempt: None,
            rebalance: None,
            when_all_unfit: WhenAllUnfit::Keep,
        };
        let open = |vip: &IpAddr| Some((*vip, self.open_epoch(*vip)?));
        let inheritance = Inheritance {
            lease: self.disk.lease,
            deadline: self.kernel.lease_deadline,
            open_gates: self.kernel.gates.keys().filter_map(open).collect(),
        };
        let election = Election::new(settings.clone(), inheritance);
        let fitness = self.fitness(now);
        self.process = Some(Process {
            machine: Machine::new(election, settings, mutant),
            inbox: vips
                .iter()
                .map(|vip| Event::Fitness(*vip, fitness.clone()))
                .collect(),
            followups: VecDeque::new(),
            actions: VecDeque::new(),
            watch: None,
            strangers: BTreeMap::new(),
            timer: 0,
        });
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
        self.clock = BootClock::new(now, 0, drift_ppm);
    }
}
