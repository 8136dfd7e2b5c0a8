//! The kernel's half, from user space: load, attach, pin; gates and counters; events.
//!
//! Everything is pinned under one directory of a bpffs, so that it stands when the process is gone:
//!
//! ```text
//!   <bpf-dir>/abi-v2/LEASE GATES COUNTERS MEMBERS EVENTS     the maps, by their version
//!   <bpf-dir>/links/eth0-2-xdp-native      one pin per hook: interface, index, hook
//!   <bpf-dir>/links/eth0-2-egress
//! ```
//!
//! Where the kernel has no TCX its TC programs are filters, which no pin holds and which stand likewise: [`clsact`].

mod attach;
mod clsact;
mod error;
mod events;
mod hook;
mod lease;
mod load;
mod migrate;
mod offload;
mod pins;
mod tc;
mod upkeep;
mod xdp;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    path::Path,
};

use aya::{
    Ebpf,
    maps::{HashMap, MapData, MapError, PerCpuArray},
    programs::links::FdLink,
};
use serde::{Deserialize, Serialize};
use vip_common::abi::{Counters, Event, GATE_ROUTER, Gate, MAX_VIPS, MemberMac, VipKey, names};

pub use attach::{Attached, Attachment};
pub use error::DataplaneError;
pub use load::object;
pub use pins::{Leftovers, is_in_use};
pub use upkeep::Amiss;

/// How an interface's frames are to be handled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum DataplaneMode {
    /// The best that the interface allows.
    #[default]
    Auto,
    /// XDP in the driver, or not at all.
    Native,
    /// XDP in the stack, or not at all.
    Generic,
    /// TC in the stack: no XDP.
    Tc,
    /// Without XDP and without a gate: the kernel's own ARP, UNFENCED.
    Kernel,
}

impl fmt::Display for DataplaneMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Tc => "tc",
            Self::Kernel => "kernel",
        })
    }
}

/// A gate as the agent sees it: all but its row in the counters, which is kept here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GateSpec {
    /// `CLOCK_BOOTTIME`; 0: closed; `u64::MAX`: no limit but the lease's.
    pub deadline_ns: u64,
    /// The owner key's `mod_revision`.
    pub epoch: u64,
    /// The interface that carries it, 0 while there is none.
    pub ifindex: u32,
    /// Our MAC there.
    pub mac: [u8; 6],
    /// The owner's MAC, zero while unknown.
    pub owner_mac: [u8; 6],
    /// Whether this node forwards IPv6 there, and says so.
    pub is_router: bool,
}

impl From<&Gate> for GateSpec {
    fn from(gate: &Gate) -> Self {
        let Gate {
            deadline_ns,
            epoch,
            ifindex,
            mac,
            owner_mac,
            ..
        } = *gate;
        Self {
            deadline_ns,
            epoch,
            ifindex,
            mac,
            owner_mac,
            is_router: gate.is_router(),
        }
    }
}

/// Programs and maps of this node.
pub struct Dataplane {
    pins: pins::Pins,
    programs: Ebpf,
    /// What is attached, by the name of its pin. A link that is pinned outlives this.
    links: BTreeMap<String, FdLink>,
    /// What is attached without a link.
    filters: clsact::Filters,
    /// Whether TCX is to be tried.
    tcx: bool,
    lease: lease::LeaseWord,
    gates: HashMap<MapData, VipKey, Gate>,
    counters: PerCpuArray<MapData, Counters>,
    members: HashMap<MapData, MemberMac, u8>,
    events: events::Events,
    slots: BTreeMap<IpAddr, u32>,
    /// By which the kernel knows the maps.
    map_ids: BTreeMap<&'static str, u32>,
    /// What programs that are still attached go by, until they are swapped.
    others: Vec<migrate::OtherMaps>,
}

impl Dataplane {
    /// Loads the programs and adopts the maps that are pinned under `bpf_dir`, or makes them, with
    /// the gates of an older version that stands there. Nothing is attached yet. With `logging`,
    /// the programs' debugging output goes to the log. What fails leaves all as it was.
    pub fn open(bpf_dir: &Path, logging: bool) -> Result<Self, DataplaneError> {
        let mut pins = pins::Pins::open(bpf_dir)?;
        let filters = clsact::Filters::of(bpf_dir);
        let others = migrate::others(&pins)?;
        let is_fresh = pins.make_maps()?;
        let mut programs = load::load(&pins, logging)?;
        load::compare_clocks(&mut programs)?;
        let mut map_ids = BTreeMap::new();
        let mut take = |name: &'static str| {
            let map = programs
                .take_map(name)
                .ok_or(DataplaneError::MapMissing { name })?;
            map_ids.insert(name, upkeep::id_of(&map, name)?);
            Ok(map)
        };
        let map = |name| move |error: MapError| DataplaneError::map(name, error);
        let lease = lease::LeaseWord::map(take(names::LEASE)?)?;
        let gates = HashMap::try_from(take(names::GATES)?).map_err(map(names::GATES))?;
        let counters =
            PerCpuArray::try_from(take(names::COUNTERS)?).map_err(map(names::COUNTERS))?;
        let members = HashMap::try_from(take(names::MEMBERS)?).map_err(map(names::MEMBERS))?;
        let events = events::Events::open(take(names::EVENTS)?)?;
        let mut dataplane = Self {
            pins,
            programs,
            links: BTreeMap::new(),
            filters,
            tcx: true,
            lease,
            gates,
            counters,
            members,
            events,
            slots: BTreeMap::new(),
            map_ids,
            others,
        };
        let standing = dataplane.gates()?;
        dataplane.slots = standing
            .into_iter()
            .map(|(ip, gate)| (ip, gate.slot))
            .collect();
        dataplane.take_over(is_fresh)?;
        dataplane.pins.keep();
        Ok(dataplane)
    }

    /// Attaches from now on as on a kernel without TCX, for tests.
    #[must_use]
    pub fn without_tcx(self) -> Self {
        Self { tcx: false, ..self }
    }

    /// The gates that stand in the kernel.
    pub fn gates(&self) -> Result<Vec<(IpAddr, Gate)>, DataplaneError> {
        self.gates
            .iter()
            .map(|entry| entry.map(|(vip, gate)| (vip.ip(), gate)))
            .collect::<Result<_, _>>()
            .map_err(|error| DataplaneError::map(names::GATES, error))
    }

    /// Changes a gate, if it is not so already. What the programs see meanwhile: [`Gate`].
    pub fn put_gate(&mut self, ip: IpAddr, gate: GateSpec) -> Result<(), DataplaneError> {
        let slot = self.slot(ip)?;
        let GateSpec {
            deadline_ns,
            epoch,
            ifindex,
            mac,
            owner_mac,
            is_router,
        } = gate;
        let gate = Gate {
            deadline_ns,
            epoch,
            ifindex,
            slot,
            mac,
            owner_mac,
            flags: if is_router { GATE_ROUTER } else { 0 },
            ..Gate::default()
        };
        self.store_gate(VipKey::from(ip), gate)
    }

    /// Forgets a shared IP: its frames are nobody's business any more.
    pub fn remove_gate(&mut self, ip: IpAddr) -> Result<(), DataplaneError> {
        let failed = |error| DataplaneError::map(names::GATES, error);
        let vip = VipKey::from(ip);
        for maps in &mut self.others {
            maps.shut(vip)?;
        }
        match self.gates.get(&vip, 0) {
            Ok(gate) => self.store_gate(vip, shut(gate))?,
            Err(MapError::KeyNotFound) => return Ok(()),
            Err(error) => return Err(failed(error)),
        }
        self.gates.remove(&vip).map_err(failed)?;
        self.slots.remove(&ip);
        Ok(())
    }

    /// Moves the deadline of all gates, by one aligned store.
    pub fn set_lease_deadline_ns(&mut self, deadline_ns: u64) {
        self.lease.store(deadline_ns);
        for maps in &self.others {
            maps.set_lease_deadline_ns(deadline_ns);
        }
    }

    /// The deadline of all gates that stands in the kernel.
    pub fn lease_deadline_ns(&self) -> u64 {
        self.lease.load()
    }

    /// Says which MACs are members'.
    pub fn set_members(&mut self, macs: &[[u8; 6]]) -> Result<(), DataplaneError> {
        let failed = |error| DataplaneError::map(names::MEMBERS, error);
        let wanted: BTreeSet<[u8; 6]> = macs.iter().copied().collect();
        let standing: BTreeSet<[u8; 6]> = self
            .members
            .keys()
            .map(|key| key.map(|key| key.mac))
            .collect::<Result<_, _>>()
            .map_err(failed)?;
        for mac in wanted.difference(&standing) {
            self.members
                .insert(MemberMac::from(*mac), 1, 0)
                .map_err(failed)?;
        }
        for mac in standing.difference(&wanted) {
            self.members
                .remove(&MemberMac::from(*mac))
                .map_err(failed)?;
        }
        Ok(())
    }

    /// What became of a shared IP's frames, summed over all CPUs.
    pub fn counters(&self, ip: IpAddr) -> Result<Counters, DataplaneError> {
        let Some(slot) = self.slots.get(&ip) else {
            return Ok(Counters::default());
        };
        let rows = self
            .counters
            .get(slot, 0)
            .map_err(|error| DataplaneError::map(names::COUNTERS, error))?;
        Ok(rows.iter().fold(Counters::default(), Counters::plus))
    }

    /// Waits for the next event. Cancel-safe: an event that nobody took is still there.
    pub async fn next_event(&mut self) -> Result<Event, DataplaneError> {
        self.events.next().await
    }

    /// The next event, if one is there already.
    pub fn event_at_hand(&mut self) -> Option<Event> {
        self.events.at_hand()
    }

    /// Detaches and unpins everything, and removes the directory.
    pub fn close(self) -> Result<(), DataplaneError> {
        let Self {
            pins,
            links,
            filters,
            ..
        } = self;
        pins.remove_links()?;
        drop(links);
        filters.detach_all().map_err(DataplaneError::Filters)?;
        pins.remove_rest()
    }

    fn store_gate(&mut self, vip: VipKey, gate: Gate) -> Result<(), DataplaneError> {
        if gate.deadline_ns == 0 {
            for maps in &mut self.others {
                maps.shut(vip)?;
            }
        }
        let failed = |error| DataplaneError::map(names::GATES, error);
        match self.gates.get(&vip, 0) {
            Ok(standing) if standing == gate => return Ok(()),
            Ok(_) => {}
            Err(MapError::KeyNotFound) => {
                self.gates.insert(vip, shut(gate), 0).map_err(failed)?;
            }
            Err(error) => return Err(failed(error)),
        }
        load::put_gate(&mut self.programs, vip, gate)
    }

    /// The row of `ip` in the counters; a free one, set to zero, for one that has none.
    fn slot(&mut self, ip: IpAddr) -> Result<u32, DataplaneError> {
        if let Some(slot) = self.slots.get(&ip) {
            return Ok(*slot);
        }
        let taken: BTreeSet<u32> = self.slots.values().copied().collect();
        let free = (0..MAX_VIPS).find(|slot| !taken.contains(slot));
        let slot = free.ok_or(DataplaneError::TooManyVips)?;
        let failed = |error| DataplaneError::map(names::COUNTERS, error);
        let rows = self.counters.get(&slot, 0).map_err(failed)?.len();
        let zero = aya::maps::PerCpuValues::try_from(vec![Counters::default(); rows])
            .map_err(|error| failed(MapError::IoError(error)))?;
        self.counters.set(slot, zero, 0).map_err(failed)?;
        self.slots.insert(ip, slot);
        Ok(slot)
    }
}

fn shut(gate: Gate) -> Gate {
    Gate {
        deadline_ns: 0,
        ..gate
    }
}
