use std::net::{IpAddr, Ipv4Addr};

use etcd_client::{Client, PutOptions};

use super::{super::StoreError, *};
use crate::election::{Action, Event, LeaseId, MemberRecord, RoundId, Snapshot};

const PATIENCE: Duration = Duration::from_secs(20);

struct Rounds {
    etcd: Etcd,
    client: Client,
    store: Store,
    events: UnboundedReceiver<StoreEvent>,
    lease: LeaseId,
    round: u64,
}

impl Rounds {
    /// Joined, and with a watch.
    async fn begin(etcd: Etcd) -> Self {
        let mut client = etcd.client().await;
        let lease = client
            .lease_grant(60, None)
            .await
            .expect("etcd answers")
            .id();
        let (mut store, events) = store(&etcd);
        let watch = Action::Watch {
            from_revision: 1,
            silence: TTL,
        };
        store.request(watch);
        let mut rounds = Self {
            etcd,
            client,
            store,
            events,
            lease: LeaseId(lease),
            round: 0,
        };
        rounds.store.request(Action::Join {
            lease: rounds.lease,
            record: MemberRecord::nobody("a"),
            replacing: None,
        });
        while !matches!(rounds.event().await, Event::Joined(_)) {}
        rounds
    }

    async fn event(&mut self) -> Event {
        match self.events.recv().await {
            Some(StoreEvent::Election(event)) => event,
            other => panic!("{other:?}"),
        }
    }

    /// What a renewal's confirming read shows.
    async fn confirm(&mut self) -> Snapshot {
        self.round += 1;
        let round = RoundId(self.round);
        self.store.request(Action::Renew {
            round,
            lease: self.lease,
            patience: PATIENCE,
        });
        let (mut renewed, mut confirmed) = (false, None);
        while !renewed || confirmed.is_none() {
            match self.event().await {
                Event::Renewed { round: of, .. } if of == round => renewed = true,
                Event::Confirmed {
                    round: of,
                    snapshot,
                } if of == round => {
                    confirmed = Some(snapshot);
                }
                Event::Watched(_) => {}
                other => panic!("{other:?}"),
            }
        }
        confirmed.expect("it was awaited")
    }

    /// Everything, read by `other`, who has no watch and so knows nothing.
    async fn read(other: &mut (Store, UnboundedReceiver<StoreEvent>)) -> Snapshot {
        other.0.request(Action::Read);
        match other.1.recv().await {
            Some(StoreEvent::Election(Event::Read(snapshot))) => snapshot,
            other => panic!("{other:?}"),
        }
    }

    async fn put_owner(&mut self, number: u32) {
        let key = owner_key(number);
        let value = br#"{"node":"a-node-of-some-name","instance":"0123456789abcdef","mac":"02:00:00:00:00:01","ttl_ms":3000,"since":"2026-01-01T00:00:00.000Z"}"#;
        let on_lease = PutOptions::new().with_lease(self.lease.0);
        let put = self.client.put(key, value.as_slice(), Some(on_lease));
        put.await.expect("etcd answers");
    }

    /// Bytes that etcd sent for one round at rest.
    async fn bytes_per_round(&mut self) -> u64 {
        let mut least = u64::MAX;
        // What is still on its way from before, or the watch's own, falls into some of them.
        for _ in 0..20 {
            let before = self.etcd.sent_bytes();
            self.confirm().await;
            least = least.min(self.etcd.sent_bytes() - before);
        }
        least
    }
}

impl Rounds {
    /// Until a round costs so little that not all can have been read.
    async fn until_cheap(&mut self, bytes: u64) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let before = self.etcd.sent_bytes();
            self.confirm().await;
            if self.etcd.sent_bytes() - before < bytes {
                return;
            }
            let now = tokio::time::Instant::now();
            assert!(now < deadline, "all is read each time");
        }
    }
}

fn owner_key(number: u32) -> String {
    let vip = IpAddr::from(Ipv4Addr::from_bits(0x0a00_0000 + number));
    format!("{PREFIX}/owners/{vip}")
}

#[test]
fn a_round_at_rest_costs_the_same_for_one_key_and_for_three_hundred() {
    run(async || {
        let mut rounds = Rounds::begin(Etcd::start().await).await;
        rounds.put_owner(0).await;
        let of_one = rounds.bytes_per_round().await;
        for number in 1..300 {
            rounds.put_owner(number).await;
        }
        let of_many = rounds.bytes_per_round().await;
        println!("measured: bytes per round: {of_one} with 1 key, {of_many} with 300");
        assert!(of_many <= of_one + 16, "{of_one}, then {of_many}");
        assert_eq!(rounds.confirm().await.owners.len(), 300);
    });
}

#[test]
fn after_a_connection_was_given_up_all_is_read_and_then_little_again() {
    run(async || {
        let mut rounds = Rounds::begin(Etcd::start().await).await;
        for number in 0..100 {
            rounds.put_owner(number).await;
        }
        // Without the values.
        let little = 100 * 100;
        rounds.until_cheap(little).await;
        for number in 0..5 {
            let error = StoreError::silence("etcd", TTL);
            rounds.store.shared.endpoints.fail(0, &error);
            let before = rounds.etcd.sent_bytes();
            rounds.put_owner(100 + number).await;
            let confirmed = rounds.confirm().await;
            assert!(rounds.etcd.sent_bytes() - before > little);
            assert_eq!(confirmed.owners.len(), 101 + number as usize);
            rounds.until_cheap(little).await;
        }
    });
}

#[test]
fn what_is_confirmed_is_what_is_there_whatever_happens_between() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    run(async || {
        // A user's rights must do.
        let mut rounds = Rounds::begin(Etcd::start_with_users().await).await;
        let mut other = store(&rounds.etcd);
        for _ in 0..150 {
            for _ in 0..random.u32(0..4) {
                let number = random.u32(0..8);
                if random.bool() {
                    rounds.put_owner(number).await;
                } else {
                    let key = owner_key(number);
                    rounds.client.delete(key, None).await.expect("etcd answers");
                }
            }
            let confirmed = rounds.confirm().await;
            assert_eq!(confirmed, Rounds::read(&mut other).await);
        }
    });
}
