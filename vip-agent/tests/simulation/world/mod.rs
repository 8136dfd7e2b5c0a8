//! The simulation: nodes, network and etcd on one line of true time.

mod faults;
mod moves;
mod process;
mod strangers;
mod watch;
mod wire;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use vip_agent::election::{Action, BootInstant, Event, LeaseId, RoundId};

use moves::Moves;

use super::{
    checks::{self, Broken, Violation},
    clock::{SECOND, TrueNs},
    etcd::{EXPIRY_TICK, Etcd},
    machine::Mutant,
    node::Node,
    schedule::{Conduct, Fault, HEALED_AT, Placement, Schedule},
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
    conduct: Conduct,
    placement: Placement,
    moves: Moves,
    /// Who claims a shared IP without being a member: until when, and in whose hearing.
    strangers: BTreeMap<IpAddr, (TrueNs, Option<u8>)>,
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
    /// How many keys were handed over, and how many of them after all was healed.
    pub moved: [u32; 2],
    /// How long after all was healed the last was.
    pub moved_until: Duration,
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
    Answered(u64, Vec<Event>),
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
    Configured(u8),
    StrangerClaims(IpAddr),
    StrangerHeard {
        node: u8,
        vip: IpAddr,
    },
    Expire,
}

#[derive(Clone, Debug)]
enum AddressDone {
    Added(Option<LeaseId>),
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
        let vips: BTreeSet<IpAddr> = vips.collect();
        let nodes = (0..).zip(&schedule.nodes);
        let mut world = Self {
            now: 0,
            nodes: nodes
                .map(|(index, plan)| Node::new(index, plan, &vips))
                .collect(),
            vips,
            etcd: Etcd::new(schedule.etcd_drift_ppm),
            etcd_slow: (0, 0),
            queue: BTreeMap::new(),
            sequence: 0,
            sent: BTreeMap::new(),
            awaited: BTreeMap::new(),
            rng: fastrand::Rng::with_seed(schedule.seed),
            mutant,
            conduct: schedule.conduct,
            placement: schedule.placement,
            moves: Moves::default(),
            strangers: BTreeMap::new(),
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
            (None, Some(at)) => {
                self.check_places()
                    .map_err(|what| Violation { at: self.now, what })?;
                Ok(Tally {
                    events: self.events,
                    served_after: Duration::from_nanos(at - HEALED_AT),
                    moved: self.moves.committed,
                    moved_until: Duration::from_nanos(self.moves.last_at.saturating_sub(HEALED_AT)),
                })
            }
            (vip, _) => Err(Violation {
                at: self.now,
                what: Broken::NobodyServes {
                    vip: vip.unwrap_or([0, 0, 0, 0].into()),
                },
            }),
        }
    }

    fn unserved(&self) -> Option<IpAddr> {
        // Then what nobody had is nobody's still.
        if self
            .nodes
            .iter()
            .all(|node| self.etcd.is_drained(&node.name))
        {
            return None;
        }
        let mut vips = self.vips.iter();
        let unserved = vips.find(|vip| self.server(**vip).is_none());
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
                self.forget_what_was_given_up();
                self.poll_all();
                Ok(())
            }
            Happening::Arrives(id) => self.arrive(id),
            Happening::Answered(id, events) => match self.awaited.remove(&id) {
                Some((node, life, _)) => self.tell_all(node, life, events),
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
            Happening::Configured(node) => self.configure(node),
            Happening::StrangerClaims(vip) => {
                self.claim_as_a_stranger(vip);
                Ok(())
            }
            Happening::StrangerHeard { node, vip } => self.hear_a_stranger(node, vip),
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
