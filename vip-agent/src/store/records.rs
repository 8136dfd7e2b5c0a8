//! Between etcd's key-value pairs and the election's records.

use std::net::IpAddr;

use etcd_client::{GetResponse, KeyValue, ResponseHeader};

use super::keys::{Keys, Place};
use crate::{
    clock,
    election::{DrainRecord, Keyed, LeaseId, Mac, MemberRecord, OwnerRecord, Snapshot},
};

/// A member's record; `None` if it cannot be read: then it is nobody's candidate.
pub(super) fn member(kv: &KeyValue) -> Option<Keyed<MemberRecord>> {
    match serde_json::from_slice(kv.value()) {
        Ok(record) => Some(keyed(kv, record)),
        Err(error) => {
            let key = String::from_utf8_lossy(kv.key());
            tracing::warn!(%key, %error, "a member's record cannot be read and is passed over");
            None
        }
    }
}

/// An owner's record. One that cannot be read is still an owner's: the shared IP is not vacant.
pub(super) fn owner(kv: &KeyValue) -> Keyed<OwnerRecord> {
    let record = serde_json::from_slice(kv.value()).unwrap_or_else(|error| {
        let key = String::from_utf8_lossy(kv.key());
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
    keyed(kv, record)
}

/// Everything under the prefix.
pub(super) fn snapshot(keys: &Keys, response: &GetResponse) -> Snapshot {
    let header = response.header();
    let mut snapshot = Snapshot {
        cluster_id: header.map_or(0, ResponseHeader::cluster_id),
        raft_term: header.map_or(u64::MAX, ResponseHeader::raft_term),
        revision: header.map_or(0, ResponseHeader::revision),
        ..Snapshot::default()
    };
    for kv in response.kvs() {
        match keys.place(kv.key()) {
            Some(Place::Member(node)) => {
                snapshot
                    .members
                    .extend(member(kv).map(|record| (node.to_owned(), record)));
            }
            Some(Place::Owner(vip)) => {
                snapshot.owners.insert(vip, owner(kv));
            }
            Some(Place::Drained(node)) => {
                snapshot.drained.insert(node.to_owned(), drain(kv));
            }
            None => {}
        }
    }
    snapshot
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
pub(super) fn drain(kv: &KeyValue) -> DrainRecord {
    serde_json::from_slice(kv.value()).unwrap_or_default()
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

fn keyed<T>(kv: &KeyValue, record: T) -> Keyed<T> {
    Keyed {
        lease: LeaseId(kv.lease()),
        mod_revision: kv.mod_revision(),
        record,
    }
}
