//! The watch on everything under the prefix.

use std::time::Duration;

use etcd_client::{EventType, WatchOptions, WatchResponse};
use tokio::time::{Instant, sleep_until, timeout};

use super::{Shared, StoreError, endpoints::Ask, keys::Place, records};
use crate::election::{Change, Event};

/// Between two tries to open a watch.
const PAUSE: Duration = Duration::from_millis(20);

/// How one stream of a watch ended.
enum Ended {
    /// It can go on with another endpoint from where it was.
    Interrupted(String),
    /// What happened since can only be had by reading everything.
    Lost(String),
}

impl Shared {
    /// Watches from `from_revision` on until the watch is lost, and says why.
    ///
    /// When the endpoint breaks, or another one has come to be asked first (this one was slow to
    /// answer a renewal, and may be dead), the watch goes on there from the revision after the last
    /// that it saw: etcd sends what happened meanwhile, so nothing is missed. Progress is asked for
    /// each half of `silence`, so a quiet endpoint can be told from a dead one.
    pub(super) async fn watch(&self, from_revision: i64, silence: Duration) {
        let mut next_revision = from_revision;
        let mut heard_at = Instant::now();
        let cause = loop {
            match self
                .watch_one(&mut next_revision, &mut heard_at, silence)
                .await
            {
                Ended::Lost(cause) => break cause,
                Ended::Interrupted(cause) if heard_at.elapsed() >= silence => break cause,
                Ended::Interrupted(cause) => {
                    tracing::debug!(cause, next_revision, "the watch goes on elsewhere");
                    // A refused connection fails at once, and is not to be asked for in a spin.
                    tokio::time::sleep(PAUSE).await;
                }
            }
        };
        self.tell(Event::WatchLost(cause));
    }

    /// Watches one endpoint, the one that is asked first.
    async fn watch_one(
        &self,
        next_revision: &mut i64,
        heard_at: &mut Instant,
        silence: Duration,
    ) -> Ended {
        let options = WatchOptions::new()
            .with_prefix()
            .with_start_revision(*next_revision);
        let opened = self
            .endpoints
            .ask(Ask::Once, silence / 4, async |connection, mut client| {
                let stream = client.watch(self.keys.all(), Some(options.clone())).await?;
                Ok((connection, stream))
            })
            .await;
        let (connection, mut stream) = match opened {
            Ok(opened) => opened,
            Err(error) => return Ended::Interrupted(self.note(error)),
        };
        let _watching = self.basis.watch(connection);
        let index = connection.index;
        let url = self.endpoints.url(index);
        let mut ask_at = Instant::now() + silence / 2;
        loop {
            let message = tokio::select! {
                message = stream.message() => message,
                first = self.endpoints.left(connection) => {
                    let now = self.endpoints.url(first);
                    return Ended::Interrupted(format!("etcd at {url} is slow or failed; {now} is asked first"));
                }
                () = sleep_until(ask_at) => {
                    if heard_at.elapsed() >= silence {
                        let error = StoreError::silence(url, silence);
                        self.endpoints.fail(index, &error);
                        return Ended::Interrupted(error.to_string());
                    }
                    ask_at = Instant::now() + silence / 2;
                    // The answer, or its absence, is what counts; a full queue is silence too.
                    let _ = timeout(silence / 2, stream.request_progress()).await;
                    continue;
                }
            };
            match message {
                Ok(Some(response)) => {
                    *heard_at = Instant::now();
                    if let Some(cause) = self.lost_by(&response) {
                        return Ended::Lost(cause);
                    }
                    self.pass_on(&response, next_revision);
                }
                Ok(None) => return Ended::Interrupted(format!("etcd at {url} closed the watch")),
                Err(error) => {
                    let error = StoreError::client(url, error);
                    self.endpoints.fail(index, &error);
                    return Ended::Interrupted(self.note(error));
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
    fn pass_on(&self, response: &WatchResponse, next_revision: &mut i64) {
        let changes: Vec<Change> = response
            .events()
            .iter()
            .filter_map(|event| {
                let kv = event.kv()?;
                let revision = kv.mod_revision();
                *next_revision = revision + 1;
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
                    Place::Drained(node) => {
                        let node = node.to_owned();
                        Some(if gone {
                            Change::Undrained { node, revision }
                        } else {
                            let record = records::drain(kv);
                            Change::Drained {
                                node,
                                record,
                                revision,
                            }
                        })
                    }
                }
            })
            .collect();
        if !changes.is_empty() {
            self.tell(Event::Watched(changes));
        }
    }
}
