//! Between etcd's key-value pairs and the election's records.

use std::net::IpAddr;

use etcd_client::{GetResponse, KeyValue, ResponseHeader};

use super::keys::{Keys, Place};
use crate::{
    clock,
    election::{Keyed, LeaseId, Mac, MemberRecord, OwnerRecord, Snapshot},
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
            None => {}
        }
    }
    snapshot
}

/// The owner record as it is written, with the wall clock's time.
pub(super) fn owner_value(vip: IpAddr, mut record: OwnerRecord) -> Vec<u8> {
    record.since = humantime::format_rfc3339_millis(clock::time_of_day()).to_string();
    tracing::trace!(%vip, ?record, "writing an owner record");
    serde_json::to_vec(&record).expect("strings and numbers always serialise")
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
