//! The watch on everything under the prefix.

use std::time::Duration;

use etcd_client::{EventType, WatchOptions, WatchResponse};
use tokio::time::{Instant, sleep_until, timeout};

use super::{Shared, StoreError, endpoints::Ask, keys::Place, records};
use crate::election::{Change, Event};

impl Shared {
    /// Watches from `from_revision` on until the watch is lost, and says why. Progress is asked
    /// for each half of `silence`, so a quiet watch can be told from a dead one.
    pub(super) async fn watch(&self, from_revision: i64, silence: Duration) {
        let cause = self.watch_until_lost(from_revision, silence).await;
        self.tell(Event::WatchLost(cause));
    }

    async fn watch_until_lost(&self, from_revision: i64, silence: Duration) -> String {
        let options = WatchOptions::new()
            .with_prefix()
            .with_start_revision(from_revision);
        let opened = self
            .endpoints
            .ask(Ask::Once, silence, async |index, mut client| {
                let stream = client.watch(self.keys.all(), Some(options.clone())).await?;
                Ok((index, stream))
            })
            .await;
        let (index, mut stream) = match opened {
            Ok(opened) => opened,
            Err(error) => return self.note(error),
        };
        let url = self.endpoints.url(index);
        let mut ask_at = Instant::now() + silence / 2;
        let mut heard_at = Instant::now();
        loop {
            let message = tokio::select! {
                message = stream.message() => message,
                () = sleep_until(ask_at) => {
                    if heard_at.elapsed() >= silence {
                        let error = StoreError::silence(url, silence);
                        self.endpoints.fail(index, &error);
                        return error.to_string();
                    }
                    ask_at = Instant::now() + silence / 2;
                    // The answer, or its absence, is what counts; a full queue is silence too.
                    let _ = timeout(silence / 2, stream.request_progress()).await;
                    continue;
                }
            };
            heard_at = Instant::now();
            match message {
                Ok(Some(response)) => match self.lost_by(&response) {
                    Some(cause) => return cause,
                    None => self.pass_on(&response),
                },
                Ok(None) => return format!("etcd at {url} closed the watch"),
                Err(error) => {
                    let error = StoreError::client(url, error);
                    self.endpoints.fail(index, &error);
                    return self.note(error);
                }
            }
        }
    }

    fn lost_by(&self, response: &WatchResponse) -> Option<String> {
        if response.compact_revision() > 0 {
            let revision = response.compact_revision();
            return Some(format!(
                "etcd compacted its history up to revision {revision}"
            ));
        }
        response
            .canceled()
            .then(|| format!("etcd cancelled it: {}", response.cancel_reason()))
    }

    /// A response holds whole revisions: etcd splits them only for those who ask for fragments.
    fn pass_on(&self, response: &WatchResponse) {
        let changes: Vec<Change> = response
            .events()
            .iter()
            .filter_map(|event| {
                let kv = event.kv()?;
                let revision = kv.mod_revision();
                let gone = event.event_type() == EventType::Delete;
                match self.keys.place(kv.key())? {
                    Place::Member(node) => {
                        let node = node.to_owned();
                        let record = if gone { None } else { records::member(kv) };
                        Some(match record {
                            Some(member) => Change::MemberPut(node, member),
                            None => Change::MemberGone { node, revision },
                        })
                    }
                    Place::Owner(vip) if gone => Some(Change::OwnerGone { vip, revision }),
                    Place::Owner(vip) => Some(Change::OwnerPut(vip, records::owner(kv))),
                }
            })
            .collect();
        if !changes.is_empty() {
            self.tell(Event::Watched(changes));
        }
    }
}
