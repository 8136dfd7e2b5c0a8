use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use etcd_client::{Client, PutOptions};

use super::*;
use crate::{
    config::LARGEST_GROUP,
    election::{Action, Event, LeaseId, Mac, Outcome, OwnerRecord, Version},
};

type Outcomes = BTreeMap<IpAddr, Outcome<OwnerRecord>>;

fn vip(number: usize) -> IpAddr {
    let number = u32::try_from(number).expect("a few");
    IpAddr::from(Ipv4Addr::from_bits(0x0a00_0000 + number))
}

fn record(node: &str) -> OwnerRecord {
    OwnerRecord {
        node: node.to_owned(),
        instance: "1".to_owned(),
        mac: Mac([2, 0, 0, 0, 0, 1]),
        ttl_ms: 3000,
        since: String::new(),
        successor: None,
    }
}

fn claim(lease: LeaseId, vips: impl IntoIterator<Item = usize>) -> Action {
    let records = vips.into_iter().map(|number| (vip(number), record("a")));
    Action::Claim {
        lease,
        records: records.collect(),
    }
}

async fn lease(client: &mut Client) -> LeaseId {
    LeaseId(
        client
            .lease_grant(60, None)
            .await
            .expect("etcd answers")
            .id(),
    )
}

/// What comes of all these, asked for at once.
async fn ask(
    store: &mut Store,
    events: &mut UnboundedReceiver<StoreEvent>,
    actions: impl IntoIterator<Item = Action>,
    count: usize,
) -> Outcomes {
    for action in actions {
        assert_eq!(store.request(action), None);
    }
    store.flush();
    let mut outcomes = Outcomes::new();
    while outcomes.len() < count {
        match events.recv().await {
            Some(StoreEvent::Election(
                Event::Claimed(vip, outcome)
                | Event::Transferred(vip, outcome)
                | Event::Reasserted(vip, outcome)
                | Event::Released(vip, outcome),
            )) => {
                assert!(
                    outcomes.insert(vip, outcome).is_none(),
                    "{vip} is told twice"
                );
            }
            other => panic!("{other:?}"),
        }
    }
    outcomes
}

fn is_committed(outcome: &Outcome<OwnerRecord>) -> bool {
    matches!(outcome, Outcome::Committed { .. })
}

#[test]
fn hundreds_are_claimed_in_a_few_requests_and_each_is_told_its_own_outcome() {
    run(async || {
        // A user's rights must do, also for what is nested.
        let etcd = Etcd::start_with_users().await;
        let mut client = etcd.client().await;
        let (mut store, mut events) = store(&etcd);
        let ours = lease(&mut client).await;
        let taken = format!("{PREFIX}/owners/{}", vip(7));
        let value = serde_json::to_vec(&record("b")).expect("it serialises");
        client.put(taken, value, None).await.expect("etcd answers");

        let before = etcd.transactions();
        let groups = [300..300 + LARGEST_GROUP, 400..403];
        let singles = (0..300).map(|number| claim(ours, [number]));
        let actions = singles.chain(groups.into_iter().map(|group| claim(ours, group)));
        let outcomes = ask(&mut store, &mut events, actions, 303 + LARGEST_GROUP).await;
        let requests = etcd.transactions() - before;
        println!("measured: {} keys in {requests} requests", outcomes.len());
        assert!((5..=7).contains(&requests), "{requests}");

        let Outcome::Refused { current, .. } = &outcomes[&vip(7)] else {
            panic!("{:?}", outcomes[&vip(7)]);
        };
        assert_eq!(current.as_ref().map(|found| &*found.record.node), Some("b"));
        let others = outcomes.iter().filter(|(one, _)| **one != vip(7));
        for (vip, outcome) in others {
            let Outcome::Committed { revision } = outcome else {
                panic!("{vip}: {outcome:?}");
            };
            // The revision is what a later give-up is guarded by.
            let key = format!("{PREFIX}/owners/{vip}");
            let read = client.get(key, None).await.expect("etcd answers");
            let kv = read.kvs().first().expect("it was put");
            assert_eq!((kv.mod_revision(), kv.lease()), (*revision, ours.0));
        }

        let mut releases = Vec::new();
        for (vip, outcome) in outcomes {
            releases.push(Action::Release {
                vip,
                version: Version {
                    lease: ours,
                    mod_revision: outcome.revision().expect("it was answered"),
                },
            });
        }
        let count = releases.len();
        let outcomes = ask(&mut store, &mut events, releases, count).await;
        let refused: Vec<_> = outcomes
            .iter()
            .filter(|(_, it)| !is_committed(it))
            .collect();
        assert_eq!(refused.len(), 1, "only what was never ours: {refused:?}");
    });
}

#[test]
fn a_group_is_claimed_whole_or_not_at_all_and_others_go_on() {
    run(async || {
        let etcd = Etcd::start().await;
        let mut client = etcd.client().await;
        let (mut store, mut events) = store(&etcd);
        let ours = lease(&mut client).await;
        ask(&mut store, &mut events, [claim(ours, [2])], 1).await;
        let actions = [claim(ours, [1, 2, 3]), claim(ours, [4, 5])];
        let outcomes = ask(&mut store, &mut events, actions, 5).await;
        for number in 1..=3 {
            let Outcome::Refused { current, .. } = &outcomes[&vip(number)] else {
                panic!("{outcomes:?}");
            };
            assert_eq!(current.is_some(), number == 2);
        }
        assert!(is_committed(&outcomes[&vip(4)]) && is_committed(&outcomes[&vip(5)]));
    });
}

#[test]
fn a_lease_that_has_gone_is_told_to_those_who_put_on_it_alone() {
    run(async || {
        let etcd = Etcd::start().await;
        let mut client = etcd.client().await;
        let (mut store, mut events) = store(&etcd);
        let (ours, gone) = (lease(&mut client).await, lease(&mut client).await);
        let claimed = ask(&mut store, &mut events, [claim(ours, [1])], 1).await;
        let version = Version {
            lease: ours,
            mod_revision: claimed[&vip(1)].revision().expect("it was answered"),
        };
        let key = format!("{PREFIX}/members/b");
        let on_gone = PutOptions::new().with_lease(gone.0);
        client
            .put(key, "{}", Some(on_gone))
            .await
            .expect("etcd answers");
        client.lease_revoke(gone.0).await.expect("etcd answers");
        let release = Action::Release {
            vip: vip(1),
            version,
        };
        let actions = [claim(gone, [2]), claim(ours, [3]), release];
        let outcomes = ask(&mut store, &mut events, actions, 3).await;
        assert_eq!(outcomes[&vip(2)], Outcome::LeaseGone);
        assert!(is_committed(&outcomes[&vip(3)]), "{outcomes:?}");
        assert!(is_committed(&outcomes[&vip(1)]), "{outcomes:?}");

        // A member that has gone takes nothing, and that harms nobody.
        let version = Version {
            lease: ours,
            mod_revision: outcomes[&vip(3)].revision().expect("it was answered"),
        };
        let transfer = Action::Transfer {
            to: "b".to_owned(),
            lease: gone,
            records: BTreeMap::from([(vip(3), (version, record("b")))]),
        };
        let actions = [transfer, claim(ours, [4])];
        let outcomes = ask(&mut store, &mut events, actions, 2).await;
        assert!(!is_committed(&outcomes[&vip(3)]), "{outcomes:?}");
        assert!(is_committed(&outcomes[&vip(4)]), "{outcomes:?}");
    });
}

#[test]
fn an_answer_that_does_not_come_is_told_to_each() {
    run(async || {
        let etcd = Etcd::start().await;
        let mut client = etcd.client().await;
        let (mut store, mut events) = store(&etcd);
        let ours = lease(&mut client).await;
        drop(etcd);
        let actions = (0..5).map(|number| claim(ours, [2 * number, 2 * number + 1]));
        let outcomes = ask(&mut store, &mut events, actions, 10).await;
        let unknown = |outcome: &Outcome<OwnerRecord>| matches!(outcome, Outcome::Unknown(_));
        assert!(outcomes.values().all(unknown), "{outcomes:?}");
    });
}
