//! Between etcd's key-value pairs and the election's records.

use std::net::IpAddr;

use etcd_client::KeyValue;

use super::keys::{Keys, Place};
use crate::{
    clock,
    election::{DrainRecord, Keyed, LeaseId, Mac, MemberRecord, OwnerRecord, Snapshot, Version},
};

/// A key-value pair.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    pub key: &'a [u8],
    pub value: &'a [u8],
    pub version: Version,
}

impl<'a> From<&'a KeyValue> for Entry<'a> {
    fn from(kv: &'a KeyValue) -> Self {
        Self {
            key: kv.key(),
            value: kv.value(),
            version: Version {
                lease: LeaseId(kv.lease()),
                mod_revision: kv.mod_revision(),
            },
        }
    }
}

/// A member's record; `None` if it cannot be read: then it is nobody's candidate.
pub(super) fn member<'a>(entry: impl Into<Entry<'a>>) -> Option<Keyed<MemberRecord>> {
    let entry = entry.into();
    match serde_json::from_slice(entry.value) {
        Ok(record) => Some(keyed(entry, record)),
        Err(error) => {
            let key = String::from_utf8_lossy(entry.key);
            tracing::warn!(%key, %error, "a member's record cannot be read and is passed over");
            None
        }
    }
}

/// An owner's record. One that cannot be read is still an owner's: the shared IP is not vacant.
pub(super) fn owner<'a>(entry: impl Into<Entry<'a>>) -> Keyed<OwnerRecord> {
    let entry = entry.into();
    let record = serde_json::from_slice(entry.value).unwrap_or_else(|error| {
        let key = String::from_utf8_lossy(entry.key);
        tracing::warn!(%key, %error, "an owner's record cannot be read; its key still counts");
        OwnerRecord {
            node: "(unreadable record)".to_owned(),
            instance: String::new(),
            mac: Mac::default(),
            ttl_ms: 0,
            since: String::new(),
            successor: None,
        }
    });
    keyed(entry, record)
}

/// Puts what a key says now in the place of what it said.
pub(super) fn put(snapshot: &mut Snapshot, keys: &Keys, entry: Entry<'_>) {
    match keys.place(entry.key) {
        Some(Place::Member(node)) => {
            match member(entry) {
                Some(record) => snapshot.members.insert(node.to_owned(), record),
                None => snapshot.members.remove(node),
            };
        }
        Some(Place::Owner(vip)) => {
            snapshot.owners.insert(vip, owner(entry));
        }
        Some(Place::Drained(node)) => {
            snapshot.drained.insert(node.to_owned(), drain(entry));
        }
        None => {}
    }
}

/// The owner record as it is written: with the wall clock's time, if it does not say since when.
pub(super) fn owner_value(vip: IpAddr, mut record: OwnerRecord) -> Vec<u8> {
    if record.since.is_empty() {
        record.since = now();
    }
    tracing::trace!(%vip, ?record, "writing an owner record");
    serde_json::to_vec(&record).expect("strings and numbers always serialise")
}

/// How a node is drained; what cannot be read is drained all the same.
pub(super) fn drain<'a>(entry: impl Into<Entry<'a>>) -> DrainRecord {
    serde_json::from_slice(entry.into().value).unwrap_or_default()
}

/// A node drained now.
pub(super) fn drain_value(force: bool) -> Vec<u8> {
    let record = DrainRecord {
        force,
        since: now(),
    };
    serde_json::to_vec(&record).expect("strings and numbers always serialise")
}

fn now() -> String {
    humantime::format_rfc3339_millis(clock::time_of_day()).to_string()
}

pub(super) fn member_value(record: &MemberRecord) -> Vec<u8> {
    serde_json::to_vec(record).expect("strings and numbers always serialise")
}

fn keyed<T>(entry: Entry<'_>, record: T) -> Keyed<T> {
    let Version {
        lease,
        mod_revision,
    } = entry.version;
    Keyed {
        lease,
        mod_revision,
        record,
    }
}
