//! Renewals of the lease.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use etcd_client::{Client, Error, LeaseKeepAliveStream, LeaseKeeper, ResponseHeader};

use super::{Shared, endpoints::Ask};
use crate::election::{Event, LeaseId, RoundId};

/// An open stream of renewals per endpoint. A renewal takes the stream for itself and puts it back
/// once it is answered, so that one is outstanding per stream and an answer can't be taken for
/// another's; one that is given up takes its stream with it.
pub(super) struct RenewalStreams(Vec<Mutex<Option<Stream>>>);

type Stream = (LeaseId, LeaseKeeper, LeaseKeepAliveStream);

struct Renewed {
    ttl: Duration,
    raft_term: u64,
}

impl RenewalStreams {
    pub fn new(endpoints: usize) -> Self {
        Self((0..endpoints).map(|_| Mutex::new(None)).collect())
    }

    async fn renew(
        &self,
        index: usize,
        mut client: Client,
        lease: LeaseId,
    ) -> Result<Renewed, Error> {
        let standing = self.slot(index).take().filter(|(of, ..)| *of == lease);
        let (_, mut keeper, mut stream) = match standing {
            Some(standing) => standing,
            // The client renews once to open the stream and keeps that answer's header to itself.
            None => {
                let (keeper, stream) = client.lease_keep_alive(lease.0).await?;
                (lease, keeper, stream)
            }
        };
        keeper.keep_alive().await?;
        let closed = || Error::LeaseKeepAliveError("the stream was closed".to_owned());
        let answer = stream.message().await?.ok_or_else(closed)?;
        let renewed = Renewed {
            ttl: Duration::from_secs(u64::try_from(answer.ttl()).unwrap_or(0)),
            // Without a header there is no term to compare: it counts as older than any.
            raft_term: answer.header().map_or(0, ResponseHeader::raft_term),
        };
        *self.slot(index) = Some((lease, keeper, stream));
        Ok(renewed)
    }

    fn slot(&self, index: usize) -> std::sync::MutexGuard<'_, Option<Stream>> {
        self.0[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    pub(super) async fn renew(&self, round: RoundId, lease: LeaseId, patience: Duration) {
        let answer = self
            .endpoints
            .ask(Ask::Hedged, patience, async |connection, client| {
                self.renewals.renew(connection.index, client, lease).await
            })
            .await;
        self.tell(match answer {
            Ok(Renewed { ttl, raft_term }) => Event::Renewed {
                round,
                ttl,
                raft_term,
            },
            Err(error) if error.says_lease_gone() => Event::Renewed {
                round,
                ttl: Duration::ZERO,
                raft_term: 0,
            },
            Err(error) => Event::RoundFailed {
                round,
                error: self.note(error),
            },
        });
    }
}
