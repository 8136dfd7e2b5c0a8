//! Reads, and how a member joins.

use std::time::Duration;

use etcd_client::{
    Client, Compare, CompareOp, Error, GetOptions, PutOptions, ResponseHeader, Txn, TxnOp,
    TxnOpResponse, TxnResponse,
};

use super::{
    Shared, StoreError,
    endpoints::{Ask, Connection},
    known::{Head, Known, News},
    records::{self, Entry},
};
use crate::election::{Event, LeaseId, MemberRecord, Outcome, RoundId, Snapshot, Version};

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
        let on_lease = PutOptions::new().with_lease(lease.0);
        let txn = Txn::new()
            .when(unchanged(&key, replacing))
            .and_then([TxnOp::put(key.clone(), value, Some(on_lease))])
            .or_else([TxnOp::get(key, None)]);
        let outcome = match self.commit(txn).await {
            Ok(response) => joined(&response),
            Err(error) => self.doubt(error),
        };
        self.tell(Event::Joined(outcome));
    }

    /// Linearizable, as reads are unless they ask to be served by one member alone.
    async fn snapshot(&self, patience: Duration) -> Result<Snapshot, StoreError> {
        self.endpoints
            .ask(Ask::Hedged, patience, async |connection, client| {
                self.snapshot_over(connection, client).await
            })
            .await
    }

    /// From what is known and what is new since, or from everything.
    async fn snapshot_over(
        &self,
        connection: Connection,
        mut client: Client,
    ) -> Result<Snapshot, Error> {
        let (watched, first_unknown) = self.basis.over(connection);
        if let Some(first_unknown) = first_unknown {
            let response = client.txn(self.ask_for_news(first_unknown)).await?;
            let responses = response.op_responses();
            let news = response.header().and_then(|header| {
                let news = news(header, &responses)?;
                let known = self.basis.take(watched, first_unknown)?;
                known.after(&self.keys, &self.own, news)
            });
            if let Some(known) = news {
                let snapshot = known.snapshot();
                self.basis.keep(watched, known);
                return Ok(snapshot);
            }
        }
        let prefix = GetOptions::new().with_prefix();
        let response = client.get(self.keys.all(), Some(prefix)).await?;
        let entries = response.kvs().iter().map(Entry::from);
        let known = Known::read(&self.keys, head(response.header()), entries);
        let snapshot = known.snapshot();
        self.basis.keep(watched, known);
        Ok(snapshot)
    }

    /// Answered by the same few bytes however many keys there are, as long as they stay as they are.
    fn ask_for_news(&self, first_unknown: i64) -> Txn {
        let prefix = GetOptions::new().with_prefix();
        Txn::new().and_then([
            TxnOp::get(self.own.as_str(), Some(GetOptions::new().with_keys_only())),
            TxnOp::get(
                self.keys.all(),
                Some(prefix.clone().with_min_mod_revision(first_unknown)),
            ),
            TxnOp::get(self.keys.all(), Some(prefix.with_count_only())),
        ])
    }

    /// Sent once: whether it was committed is not known if no answer comes.
    pub(super) async fn commit(&self, txn: Txn) -> Result<TxnResponse, StoreError> {
        self.endpoints
            .ask(Ask::Once, self.ttl / 2, async |_, mut client| {
                client.txn(txn.clone()).await
            })
            .await
    }
}

/// What came of our member key, or what stands there instead.
fn joined(response: &TxnResponse) -> Outcome<MemberRecord> {
    let revision = revision_of(response.header());
    if response.succeeded() {
        return Outcome::Committed { revision };
    }
    let responses = response.op_responses();
    let current = responses.iter().find_map(|response| match response {
        TxnOpResponse::Get(found) => found.kvs().first().and_then(records::member),
        _ => None,
    });
    Outcome::Refused { current, revision }
}

fn news<'a>(header: &ResponseHeader, responses: &'a [TxnOpResponse]) -> Option<News<'a>> {
    let [
        TxnOpResponse::Get(own),
        TxnOpResponse::Get(changed),
        TxnOpResponse::Get(all),
    ] = responses
    else {
        return None;
    };
    Some(News {
        head: head(Some(header)),
        member: own.kvs().first().map(|kv| Entry::from(kv).version),
        changed: changed.kvs().iter().map(Entry::from).collect(),
        count: all.count(),
    })
}

pub(super) fn revision_of(header: Option<&ResponseHeader>) -> i64 {
    header.map_or(0, ResponseHeader::revision)
}

/// Of an answer without a header the term is newer than any: it proves no renewal.
fn head(header: Option<&ResponseHeader>) -> Head {
    Head {
        cluster_id: header.map_or(0, ResponseHeader::cluster_id),
        member_id: header.map_or(0, ResponseHeader::member_id),
        raft_term: header.map_or(u64::MAX, ResponseHeader::raft_term),
        revision: revision_of(header),
    }
}

/// That a key is still of this version; `None`: that there is none.
pub(super) fn unchanged(key: &str, expected: Option<Version>) -> Vec<Compare> {
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
