//! What members write about themselves and their shared IPs, and what is read back.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    str::FromStr,
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// A lease's number in etcd. Printed in hex, as etcdctl prints it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct LeaseId(pub i64);

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl fmt::Debug for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LeaseId({self})")
    }
}

/// An Ethernet address, written `02:00:00:aa:bb:cc`.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Mac {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("`{text}` is not an Ethernet address");
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts
                .next()
                .filter(|part| part.len() == 2)
                .ok_or_else(wrong)?;
            *octet = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
        }
        if parts.next().is_some() {
            return Err(wrong());
        }
        Ok(Self(octets))
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

impl TryFrom<String> for Mac {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// `<prefix>/members/<node>`: a node that is in, for as long as its lease lives.
///
/// Fields that this version does not know are passed over, so that versions can be mixed during
/// an upgrade.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRecord {
    /// The node's name.
    pub node: String,
    /// Which life of that node: two machines of one name differ here.
    pub instance: String,
    /// The machine's hostname, to tell people who took a name.
    #[serde(default)]
    pub host: String,
    /// Its MAC addresses on the interfaces of its shared IPs.
    #[serde(default)]
    pub macs: BTreeSet<Mac>,
    /// The TTL that etcd granted it, in milliseconds.
    pub ttl_ms: u64,
    /// The shared IPs that it could hold right now.
    #[serde(default)]
    pub vips: BTreeSet<IpAddr>,
    /// Its priorities for shared IPs, where they are not [`DEFAULT_PRIORITY`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub priorities: BTreeMap<IpAddr, u8>,
    /// Why it could not, or should not, hold the others.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unfit: BTreeMap<IpAddr, String>,
    /// What it stands ready to take from an owner that named it as its successor.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ready: BTreeMap<IpAddr, Readiness>,
    /// What somebody asked it to have moved, and to which node.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub asks: BTreeMap<IpAddr, String>,
    /// Its software's version.
    #[serde(default)]
    pub version: String,
}

/// The priority of a node for a shared IP if nothing else is said.
pub const DEFAULT_PRIORITY: u8 = 100;

/// A successor's word that it can take a shared IP at once: its address is there, behind a shut gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    /// At which MAC it will answer.
    pub mac: Mac,
    /// The revision of the owner key that named it: a word that was given to an earlier one is void.
    pub epoch: i64,
}

/// `<prefix>/drained/<node>`: a node that is to hold nothing. The key is on no lease, so that it
/// outlives the agent and the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainRecord {
    /// Whether it gives up also what nobody else can take.
    #[serde(default)]
    pub force: bool,
    /// When that was asked for, in RFC 3339, from the asker's wall clock.
    #[serde(default)]
    pub since: String,
}

/// `<prefix>/owners/<ip>`: who holds a shared IP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerRecord {
    /// The owner's name. For people: what counts is the lease that the key is on.
    pub node: String,
    /// Which life of that node.
    pub instance: String,
    /// The MAC at which it answers.
    pub mac: Mac,
    /// The TTL that etcd granted it, in milliseconds.
    pub ttl_ms: u64,
    /// When it took the address, in RFC 3339, from its wall clock.
    #[serde(default)]
    pub since: String,
    /// To which node it is about to hand it over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub successor: Option<String>,
}

/// How far a cluster's store had come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// Of which cluster; 0: none was read yet.
    pub cluster_id: u64,
    /// The newest revision that is known.
    pub revision: i64,
}

/// A record with what etcd knows of its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keyed<T> {
    /// The lease that the key is attached to.
    pub lease: LeaseId,
    /// The revision of the key's last change.
    pub mod_revision: i64,
    /// What it says.
    pub record: T,
}

/// What a transaction tells a key's content by. The revision alone would not do: a store that comes
/// back from a backup, or empty, gives the same ones out again. A lease's id it does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// The lease that the key is attached to.
    pub lease: LeaseId,
    /// The revision of the key's last change.
    pub mod_revision: i64,
}

impl MemberRecord {
    /// Of a node that has only a name yet.
    pub fn nobody(node: &str) -> Self {
        Self {
            node: node.to_owned(),
            instance: String::new(),
            host: String::new(),
            macs: BTreeSet::new(),
            ttl_ms: 0,
            vips: BTreeSet::new(),
            priorities: BTreeMap::new(),
            unfit: BTreeMap::new(),
            ready: BTreeMap::new(),
            asks: BTreeMap::new(),
            version: String::new(),
        }
    }

    /// Its priority for a shared IP.
    pub fn priority(&self, vip: IpAddr) -> u8 {
        self.priorities
            .get(&vip)
            .copied()
            .unwrap_or(DEFAULT_PRIORITY)
    }
}

impl<T> Keyed<T> {
    /// By which a transaction knows it again.
    pub fn version(&self) -> Version {
        Version {
            lease: self.lease,
            mod_revision: self.mod_revision,
        }
    }
}

/// A span in whole milliseconds, as the records carry it.
pub fn to_ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
