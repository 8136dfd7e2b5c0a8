//! The pinned maps of an agent, touched by hand: what no agent would do, for the control run.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use aya::maps::{Array, Map, MapData};
use serde_json::Value;

use crate::{command, node::Node};

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

/// The shared IPs that a node's kernel has gates of, open or shut.
pub fn gates(node: &Node) -> Result<Vec<IpAddr>> {
    let pin = pin_of(node, "GATES")?;
    let pin = pin.to_string_lossy();
    let dump = command::run("bpftool", &["-j", "map", "dump", "pinned", &pin])?;
    let dump: Value = serde_json::from_str(&dump).with_context(|| dump.clone())?;
    let gates = dump.as_array().into_iter().flatten();
    gates
        .map(|gate| address(&gate["key"]).with_context(|| format!("bpftool printed {gate}")))
        .collect()
}

/// A key's sixteen bytes, as bpftool prints them.
fn address(key: &Value) -> Option<IpAddr> {
    let bytes = key.as_array()?.iter().map(|byte| {
        let hex = byte.as_str()?.strip_prefix("0x")?;
        u8::from_str_radix(hex, 16).ok()
    });
    let bytes: [u8; 16] = bytes.collect::<Option<Vec<u8>>>()?.try_into().ok()?;
    Some(IpAddr::from(bytes).to_canonical())
}

fn lease(node: &Node) -> Result<Array<MapData, u64>> {
    let pin = pin_of(node, "LEASE")?;
    let data = MapData::from_pin(&pin).with_context(|| format!("opening {}", pin.display()))?;
    Ok(Array::try_from(Map::Array(data))?)
}
