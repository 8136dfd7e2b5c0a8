//! The pinned maps of an agent, touched by hand: what no agent would do, for the control run.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use aya::maps::{Array, Map, MapData};

use crate::node::Node;

/// Sets a node's lease deadline (map `LEASE`, CLOCK_BOOTTIME in ns). `u64::MAX` keeps its gates open without end.
pub fn set_lease_deadline_ns(node: &Node, deadline_ns: u64) -> Result<()> {
    let mut lease = lease(node)?;
    lease.set(0, deadline_ns, 0).context("writing LEASE")
}

/// The lease deadline that the kernel goes by.
pub fn lease_deadline_ns(node: &Node) -> Result<u64> {
    lease(node)?.get(&0, 0).context("reading LEASE")
}

/// Where a map is pinned under a node's bpf directory.
pub fn pin_of(node: &Node, map: &str) -> Result<PathBuf> {
    let found = node
        .pins()?
        .into_iter()
        .find(|pin| Path::new(pin).file_name().is_some_and(|name| name == map));
    let found = found.with_context(|| {
        format!(
            "{}: no pin named {map} under {}",
            node.name(),
            node.bpf_dir().display()
        )
    })?;
    Ok(node.bpffs().join(found))
}

fn lease(node: &Node) -> Result<Array<MapData, u64>> {
    let pin = pin_of(node, "LEASE")?;
    let data = MapData::from_pin(&pin).with_context(|| format!("opening {}", pin.display()))?;
    Ok(Array::try_from(Map::Array(data))?)
}
