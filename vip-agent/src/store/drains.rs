//! Nodes are drained and undrained when somebody says so, and keep it until somebody says otherwise.

use std::rc::Rc;

use etcd_client::{Compare, CompareOp, KeyValue, Txn, TxnOp, TxnOpResponse};
use tokio::time::Instant;

use super::{Shared, Store, StoreError, endpoints::Ask, records, requests::revision_of};

/// Drains nodes, and undrains them. Its clones do the same in the same cluster.
#[derive(Clone)]
pub struct Drains(Rc<Shared>);

impl Store {
    /// What drains nodes.
    pub fn drains(&self) -> Drains {
        Drains(Rc::clone(&self.shared))
    }
}

impl Drains {
    /// Has `node` hold nothing from now on, with `force` also nothing that no other member can take. A
    /// node that is drained so already stays drained since then. Takes a TTL at most; after an error it
    /// may or may not be drained. Returns a revision of etcd's at which it is: who knows all changes up to that and
    /// finds it otherwise knows that somebody has changed it since.
    pub async fn drain(&self, node: &str, force: bool) -> Result<i64, StoreError> {
        let value = records::drain_value(force);
        let is_so =
            |found: Option<&KeyValue>| found.is_some_and(|kv| records::drain(kv).force == force);
        let key = self.0.keys.drained(node);
        let put = TxnOp::put(key.clone(), value, None);
        self.0.settle(key, put, is_so).await
    }

    /// Lets `node` hold shared IPs again. Takes a TTL at most; after an error it may or may not be
    /// drained. Returns a revision at which it is not.
    pub async fn undrain(&self, node: &str) -> Result<i64, StoreError> {
        let key = self.0.keys.drained(node);
        let delete = TxnOp::delete(key.clone(), None);
        self.0.settle(key, delete, |found| found.is_none()).await
    }
}

impl Shared {
    /// Makes `change` unless what stands at `key` `is_so` already.
    ///
    /// The change holds only for the version of the key that was looked at. So it may be asked of several
    /// endpoints: it is made once, and one that comes late undoes nothing that came after it.
    async fn settle(
        &self,
        key: String,
        change: TxnOp,
        is_so: impl Fn(Option<&KeyValue>) -> bool,
    ) -> Result<i64, StoreError> {
        let deadline = Instant::now() + self.ttl;
        let left = || deadline.saturating_duration_since(Instant::now());
        let ask = async |_, mut client: etcd_client::Client| client.get(key.as_str(), None).await;
        let read = self.endpoints.ask(Ask::Hedged, left(), ask).await?;
        let mut found = read.kvs().first().cloned();
        let mut revision = revision_of(read.header());
        while !is_so(found.as_ref()) {
            // Of a key that does not exist it is zero.
            let version = found.as_ref().map_or(0, KeyValue::mod_revision);
            let txn = Txn::new()
                .when([Compare::mod_revision(
                    key.as_str(),
                    CompareOp::Equal,
                    version,
                )])
                .and_then([change.clone()])
                .or_else([TxnOp::get(key.as_str(), None)]);
            let ask = async |_, mut client: etcd_client::Client| client.txn(txn.clone()).await;
            let answer = self.endpoints.ask(Ask::Hedged, left(), ask).await?;
            revision = revision_of(answer.header());
            if answer.succeeded() {
                break;
            }
            found = answer
                .op_responses()
                .into_iter()
                .find_map(|response| match response {
                    TxnOpResponse::Get(get) => get.kvs().first().cloned(),
                    _ => None,
                });
        }
        // What stands there has stood since then; since when there is nothing etcd does not say.
        Ok(found
            .filter(|found| is_so(Some(found)))
            .map_or(revision, |found| found.mod_revision()))
    }
}
