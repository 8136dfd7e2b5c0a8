//! Reads, and the guarded transactions on one key.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use etcd_client::{
    Compare, CompareOp, GetOptions, KeyValue, PutOptions, ResponseHeader, Txn, TxnOp, TxnOpResponse,
};

use super::{Shared, StoreError, endpoints::Ask, records};
use crate::election::{
    Event, Keyed, LeaseId, MemberRecord, Outcome, OwnerRecord, RoundId, Snapshot, Version,
};

/// A change of one owner key.
struct Step {
    vip: IpAddr,
    key: String,
    /// What must still be there; `None`: nothing.
    expected: Option<Version>,
    change: TxnOp,
}

impl Shared {
    /// Reads everything. Returns whether that was answered.
    pub(super) async fn read_all(&self) -> bool {
        let read = self.snapshot(self.ttl).await;
        let answered = read.is_ok();
        self.tell(match read {
            Ok(snapshot) => Event::Read(snapshot),
            Err(error) => Event::ReadFailed(self.note(error)),
        });
        answered
    }

    pub(super) async fn confirm(&self, round: RoundId, patience: Duration) {
        let read = self.snapshot(patience).await;
        self.tell(match read {
            Ok(snapshot) => Event::Confirmed { round, snapshot },
            Err(error) => Event::RoundFailed {
                round,
                error: self.note(error),
            },
        });
    }

    /// Puts our member key if there is none, or over the one of version `replacing`.
    pub(super) async fn join(
        &self,
        lease: LeaseId,
        record: MemberRecord,
        replacing: Option<Version>,
    ) {
        let key = self.keys.member(&record.node);
        let value = records::member_value(&record);
        let put = TxnOp::put(
            key.clone(),
            value,
            Some(PutOptions::new().with_lease(lease.0)),
        );
        let read = |kv: &KeyValue| records::member(kv);
        let outcome = self.guarded(key, replacing, put, read).await;
        self.tell(Event::Joined(outcome));
    }

    /// Puts all these owner keys if there is none of them.
    pub(super) async fn claim(
        &self,
        lease: LeaseId,
        records: BTreeMap<IpAddr, OwnerRecord>,
    ) -> Vec<(IpAddr, Outcome<OwnerRecord>)> {
        let step = |(vip, record)| self.put_owner(vip, lease, record, None);
        let steps = records.into_iter().map(step).collect();
        self.owners_transaction(Vec::new(), steps).await
    }

    /// Puts all these owner keys on the lease of member `to`, if they are of these versions and its key
    /// is on that lease.
    pub(super) async fn transfer(
        &self,
        to: &str,
        lease: LeaseId,
        records: BTreeMap<IpAddr, (Version, OwnerRecord)>,
    ) -> Vec<(IpAddr, Outcome<OwnerRecord>)> {
        let is_there = Compare::lease(self.keys.member(to), CompareOp::Equal, lease.0);
        let step = |(vip, (version, record))| self.put_owner(vip, lease, record, Some(version));
        let steps = records.into_iter().map(step).collect();
        self.owners_transaction(vec![is_there], steps).await
    }

    /// Puts the owner key again, on the lease that it is on.
    pub(super) async fn reassert(
        &self,
        vip: IpAddr,
        version: Version,
        record: OwnerRecord,
    ) -> Outcome<OwnerRecord> {
        let step = self.put_owner(vip, version.lease, record, Some(version));
        self.guarded(step.key, step.expected, step.change, |kv| {
            Some(records::owner(kv))
        })
        .await
    }

    /// Deletes the owner key if it is of version `expected`.
    pub(super) async fn delete_owner(
        &self,
        vip: IpAddr,
        expected: Version,
    ) -> Outcome<OwnerRecord> {
        let key = self.keys.owner(vip);
        let delete = TxnOp::delete(key.clone(), None);
        self.guarded(key, Some(expected), delete, |kv| Some(records::owner(kv)))
            .await
    }

    fn put_owner(
        &self,
        vip: IpAddr,
        lease: LeaseId,
        record: OwnerRecord,
        expected: Option<Version>,
    ) -> Step {
        let key = self.keys.owner(vip);
        let value = records::owner_value(vip, record);
        let on_lease = PutOptions::new().with_lease(lease.0);
        Step {
            vip,
            change: TxnOp::put(key.clone(), value, Some(on_lease)),
            key,
            expected,
        }
    }

    /// All `steps` if the keys of all are as expected and `conditions` hold, else a look at what stands
    /// there. Sent once.
    async fn owners_transaction(
        &self,
        mut conditions: Vec<Compare>,
        steps: Vec<Step>,
    ) -> Vec<(IpAddr, Outcome<OwnerRecord>)> {
        conditions.extend(
            steps
                .iter()
                .flat_map(|step| unchanged(&step.key, step.expected)),
        );
        let looks: Vec<TxnOp> = steps
            .iter()
            .map(|step| TxnOp::get(step.key.clone(), None))
            .collect();
        let vips: Vec<IpAddr> = steps.iter().map(|step| step.vip).collect();
        let changes: Vec<TxnOp> = steps.into_iter().map(|step| step.change).collect();
        let txn = Txn::new().when(conditions).and_then(changes).or_else(looks);
        let answer = self
            .endpoints
            .ask(Ask::Once, self.ttl / 2, async |_, mut client| {
                client.txn(txn.clone()).await
            })
            .await;
        let response = match answer {
            Ok(response) => response,
            Err(error) => {
                let outcome = self.doubt(error);
                return vips.into_iter().map(|vip| (vip, outcome.clone())).collect();
            }
        };
        let revision = response.header().map_or(0, ResponseHeader::revision);
        let succeeded = response.succeeded();
        let outcomes = response.op_responses().into_iter().map(|response| {
            let current = match &response {
                _ if succeeded => return Outcome::Committed { revision },
                TxnOpResponse::Get(found) => found.kvs().first().map(records::owner),
                _ => None,
            };
            Outcome::Refused { current, revision }
        });
        vips.into_iter().zip(outcomes).collect()
    }

    async fn snapshot(&self, patience: Duration) -> Result<Snapshot, StoreError> {
        // Linearizable, as reads are unless they ask to be served by one member alone.
        let response = self
            .endpoints
            .ask(Ask::Hedged, patience, async |_, mut client| {
                client
                    .get(self.keys.all(), Some(GetOptions::new().with_prefix()))
                    .await
            })
            .await?;
        Ok(records::snapshot(&self.keys, &response))
    }

    /// `change` if the key is of version `expected` (`None`: there is no such key), else a look at
    /// what stands there. Sent once: whether it was committed is not known if no answer comes.
    async fn guarded<T>(
        &self,
        key: String,
        expected: Option<Version>,
        change: TxnOp,
        read: impl Fn(&KeyValue) -> Option<Keyed<T>>,
    ) -> Outcome<T> {
        let txn = Txn::new()
            .when(unchanged(&key, expected))
            .and_then([change])
            .or_else([TxnOp::get(key, None)]);
        let answer = self
            .endpoints
            .ask(Ask::Once, self.ttl / 2, async |_, mut client| {
                client.txn(txn.clone()).await
            })
            .await;
        let response = match answer {
            Ok(response) => response,
            Err(error) => return self.doubt(error),
        };
        let revision = response.header().map_or(0, ResponseHeader::revision);
        if response.succeeded() {
            return Outcome::Committed { revision };
        }
        let current = response
            .op_responses()
            .into_iter()
            .find_map(|response| match response {
                TxnOpResponse::Get(found) => found.kvs().first().and_then(&read),
                _ => None,
            });
        Outcome::Refused { current, revision }
    }
}

/// That a key is still of this version; `None`: that there is none.
fn unchanged(key: &str, expected: Option<Version>) -> Vec<Compare> {
    let equal = CompareOp::Equal;
    match expected {
        // Of a key that does not exist it is zero.
        None => vec![Compare::mod_revision(key, equal, 0)],
        Some(version) => vec![
            Compare::mod_revision(key, equal, version.mod_revision),
            Compare::lease(key, equal, version.lease.0),
        ],
    }
}
