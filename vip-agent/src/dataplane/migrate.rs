//! From the maps of an older version to ours, without an instant in which a frame is seen by none.
//!
//! Programs that are attached go by the maps that they were loaded with. So: maps of our own are
//! made beside the old ones, the gates are copied, and until the last program is swapped the old
//! maps are kept as closed as ours: the lease's deadline is stored in both, a gate that shuts is shut
//! in both. One that opens meanwhile opens in ours alone. A process that dies on the way leaves both;
//! the next one takes of each deadline the earlier, and goes on.
//!
//! Of an older version's maps only that is read and written which all versions keep: [`ABI_VERSION`]
//! says what.

use aya::maps::{HashMap, Map, MapData, MapError};
use vip_common::abi::{ABI_VERSION, Gate, VipKey, names};

use super::{Dataplane, GateSpec, error::DataplaneError, lease::LeaseWord, pins::Pins};

/// `BPF_EXIST` of `linux/bpf.h`: change, don't add.
const EXIST: u64 = 2;

/// What all versions' gates begin with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub deadline_ns: u64,
    pub epoch: u64,
    pub ifindex: u32,
}

/// The maps of any version.
pub(super) struct OtherMaps {
    version: u32,
    lease: LeaseWord,
    gates: Box<dyn Gates + Send>,
}

/// The maps of older versions that stand. Newer ones are refused.
pub(super) fn others(pins: &Pins) -> Result<Vec<OtherMaps>, DataplaneError> {
    let versions = pins.versions()?;
    if let Some(&newer) = versions.iter().find(|&&version| version > ABI_VERSION) {
        return Err(refused(pins, newer, "is older and does not know them"));
    }
    versions
        .into_iter()
        .filter(|&version| version < ABI_VERSION)
        .map(|version| OtherMaps::open(pins, version))
        .collect()
}

impl OtherMaps {
    pub fn open(pins: &Pins, version: u32) -> Result<Self, DataplaneError> {
        let unlike = |what: String| refused(pins, version, &format!("cannot read them: {what}"));
        let open = |name| MapData::from_pin(pins.map_of(version, name));
        let lease = open(names::LEASE)
            .and_then(Map::from_map_data)
            .map_err(|error| DataplaneError::map(names::LEASE, error))
            .and_then(LeaseWord::map)
            .map_err(|error| unlike(error.to_string()))?;
        let gates = open(names::GATES)
            .and_then(gates)
            .map_err(|error| unlike(failed(error).to_string()))?;
        Ok(Self {
            version,
            lease,
            gates,
        })
    }

    pub fn gates(&self) -> Result<Vec<(VipKey, Header)>, DataplaneError> {
        self.gates.list().map_err(failed)
    }

    pub fn set_lease_deadline_ns(&self, deadline_ns: u64) {
        self.lease.store(deadline_ns);
    }

    /// Shuts a gate, if there is one.
    pub fn shut(&mut self, vip: VipKey) -> Result<(), DataplaneError> {
        self.gates.shut(vip).map_err(failed)
    }
}

impl Dataplane {
    /// Brings our maps to what the older ones say. A gate's MACs are not among that: whoever puts it
    /// before he attaches, puts these.
    pub(super) fn take_over(&mut self, is_fresh: bool) -> Result<(), DataplaneError> {
        for at in 0..self.others.len() {
            let other = &self.others[at];
            tracing::info!(
                from = other.version,
                to = ABI_VERSION,
                "taking over from maps of an older version"
            );
            let deadline_ns = other.lease.load();
            for (vip, header) in other.gates()? {
                let standing = self.gates.get(&vip, 0).ok();
                let Header {
                    deadline_ns,
                    epoch,
                    ifindex,
                } = header;
                let gate = match standing {
                    Some(standing) => GateSpec {
                        deadline_ns: standing.deadline_ns.min(deadline_ns),
                        ..GateSpec::from(&standing)
                    },
                    None => GateSpec {
                        deadline_ns,
                        epoch,
                        ifindex,
                        mac: [0; 6],
                        owner_mac: [0; 6],
                        is_router: false,
                    },
                };
                self.put_gate(vip.ip(), gate)?;
            }
            let deadline_ns = if is_fresh {
                deadline_ns
            } else {
                deadline_ns.min(self.lease_deadline_ns())
            };
            self.set_lease_deadline_ns(deadline_ns);
        }
        Ok(())
    }

    /// Takes the older maps away, once no program that is attached goes by them.
    pub(super) fn leave_others(&mut self) -> Result<(), DataplaneError> {
        for other in std::mem::take(&mut self.others) {
            self.pins.remove_maps(other.version)?;
        }
        Ok(())
    }
}

/// A map of gates whose size is known only at run time.
trait Gates {
    fn list(&self) -> Result<Vec<(VipKey, Header)>, MapError>;
    fn shut(&mut self, vip: VipKey) -> Result<(), MapError>;
}

impl<const N: usize> Gates for HashMap<MapData, VipKey, [u8; N]> {
    fn list(&self) -> Result<Vec<(VipKey, Header)>, MapError> {
        self.iter()
            .map(|entry| entry.map(|(vip, gate)| (vip, header(&gate))))
            .collect()
    }

    fn shut(&mut self, vip: VipKey) -> Result<(), MapError> {
        let mut gate = match self.get(&vip, 0) {
            Ok(gate) if header(&gate).deadline_ns > 0 => gate,
            Ok(_) | Err(MapError::KeyNotFound) => return Ok(()),
            Err(error) => return Err(error),
        };
        gate[..8].fill(0);
        self.insert(vip, gate, EXIST)
    }
}

fn gates(data: MapData) -> Result<Box<dyn Gates + Send>, MapError> {
    fn of_size<const N: usize>(map: Map) -> Result<Box<dyn Gates + Send>, MapError> {
        Ok(Box::new(HashMap::<_, VipKey, [u8; N]>::try_from(map)?))
    }
    let size = data.info()?.value_size();
    let map = Map::from_map_data(data)?;
    match size {
        24 => of_size::<24>(map),
        32 => of_size::<32>(map),
        48 => of_size::<48>(map),
        56 => of_size::<56>(map),
        64 => of_size::<64>(map),
        // Any other size is told as being wrong.
        _ => of_size::<{ size_of::<Gate>() }>(map),
    }
}

fn header<const N: usize>(gate: &[u8; N]) -> Header {
    let (deadline_ns, rest) = gate.split_first_chunk().expect("no gate is shorter");
    let (epoch, rest) = rest.split_first_chunk().expect("no gate is shorter");
    let ifindex = rest.first_chunk().expect("no gate is shorter");
    Header {
        deadline_ns: u64::from_ne_bytes(*deadline_ns),
        epoch: u64::from_ne_bytes(*epoch),
        ifindex: u32::from_ne_bytes(*ifindex),
    }
}

fn refused(pins: &Pins, found: u32, why: &str) -> DataplaneError {
    DataplaneError::OtherAbi {
        path: pins.root().to_owned(),
        found,
        ours: ABI_VERSION,
        why: why.to_owned(),
    }
}

fn failed(error: MapError) -> DataplaneError {
    DataplaneError::map(names::GATES, error)
}
