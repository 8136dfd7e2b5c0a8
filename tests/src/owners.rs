//! Who owns what, by the owner keys in etcd: one read tells of all shared IPs, at any revision.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::bed::Bed;
use crate::etcd::Cluster;
use crate::wait;

const OWNERS: &str = "/vip-agent/owners/";

/// The owner's name of each shared IP that has one.
pub type Owners = BTreeMap<IpAddr, String>;

impl Cluster {
    /// The owners now.
    pub fn owners(&self) -> Result<Owners> {
        read(&self.keys(OWNERS)?)
    }

    /// The owners at a revision.
    pub fn owners_at(&self, revision: i64) -> Result<Owners> {
        read(&self.keys_at(OWNERS, revision)?)
    }

    /// The revision at which the owner key of a shared IP was last written.
    pub fn owner_revision(&self, vip: IpAddr) -> Result<i64> {
        let key = format!("{OWNERS}{vip}");
        let revision = self.mod_revision(&key)?;
        revision.with_context(|| format!("{vip} has no owner"))
    }

    /// Fails if at any revision from one on shared IPs of a group had different owners, or none.
    pub fn never_apart(&self, group: &[IpAddr], since: i64) -> Result<()> {
        for revision in since..=self.revision()? {
            let owners = self.owners_at(revision)?;
            let of_group: Vec<_> = group.iter().map(|vip| owners.get(vip)).collect();
            ensure!(
                of_group.iter().all(|owner| *owner == of_group[0]),
                "{group:?} were apart at revision {revision}: {owners:?}"
            );
        }
        Ok(())
    }
}

impl Bed {
    /// Waits until all these have owners, and returns them.
    pub fn all_owned(&self, vips: &[IpAddr], within: Duration) -> Result<Owners> {
        let what = format!("owners of {} shared IPs", vips.len());
        wait::until(&what, within, || {
            let owners = self.cluster.owners()?;
            let all = vips.iter().all(|vip| owners.contains_key(vip));
            Ok(all.then_some(owners))
        })
    }

    /// Waits until a node owns a shared IP, as etcd says.
    pub fn owned_by(&self, vip: IpAddr, index: usize, within: Duration) -> Result<()> {
        let name = self.nodes[index].name();
        wait::until_true(&format!("{vip} to be owned by {name}"), within, || {
            Ok(self.cluster.owners()?.get(&vip).map(String::as_str) == Some(name))
        })
    }

    /// How many shared IPs each node owns, in the order of the nodes.
    pub fn spread(&self, owners: &Owners) -> Vec<usize> {
        let owned_by = |name: &str| owners.values().filter(|owner| *owner == name).count();
        let nodes = self.nodes.iter();
        nodes.map(|node| owned_by(node.name())).collect()
    }
}

fn read(keys: &[(String, String)]) -> Result<Owners> {
    keys.iter()
        .map(|(key, value)| {
            let vip = key.strip_prefix(OWNERS).unwrap_or_default();
            let record: Value =
                serde_json::from_str(value).with_context(|| format!("{key} is {value}"))?;
            let node = record.get("node").and_then(Value::as_str);
            let node = node.with_context(|| format!("{key} names no node: {value}"))?;
            Ok((vip.parse()?, node.to_owned()))
        })
        .collect()
}
