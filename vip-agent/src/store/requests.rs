//! Reads, and the guarded transactions on one key.

use std::{net::IpAddr, time::Duration};

use etcd_client::{
    Compare, CompareOp, GetOptions, KeyValue, PutOptions, ResponseHeader, Txn, TxnOp, TxnOpResponse,
};

use super::{Shared, StoreError, endpoints::Ask, records};
use crate::election::{
    Event, Keyed, LeaseId, MemberRecord, Outcome, OwnerRecord, RoundId, Snapshot, Version,
};

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

    /// Puts the owner key if it is of version `expected`, or if there is none.
    pub(super) async fn put_owner(
        &self,
        vip: IpAddr,
        lease: LeaseId,
        record: OwnerRecord,
        expected: Option<Version>,
    ) -> Outcome<OwnerRecord> {
        let key = self.keys.owner(vip);
        let value = records::owner_value(vip, record);
        let put = TxnOp::put(
            key.clone(),
            value,
            Some(PutOptions::new().with_lease(lease.0)),
        );
        self.guarded(key, expected, put, |kv| Some(records::owner(kv)))
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
        let equal = CompareOp::Equal;
        let unchanged = match expected {
            // Of a key that does not exist it is zero.
            None => vec![Compare::mod_revision(key.clone(), equal, 0)],
            Some(version) => vec![
                Compare::mod_revision(key.clone(), equal, version.mod_revision),
                Compare::lease(key.clone(), equal, version.lease.0),
            ],
        };
        let txn = Txn::new()
            .when(unchanged)
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
