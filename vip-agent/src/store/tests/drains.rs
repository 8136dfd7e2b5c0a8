use etcd_client::Client;

use super::*;
use crate::election::DrainRecord;

/// What stands there, and since which revision.
async fn drained(client: &mut Client, node: &str) -> Option<(DrainRecord, i64)> {
    let key = format!("{PREFIX}/drained/{node}");
    let read = client.get(key, None).await.expect("etcd answers");
    let kv = read.kvs().first()?;
    assert_eq!(kv.lease(), 0, "it must outlive the agent");
    let record = serde_json::from_slice(kv.value()).expect("a record");
    Some((record, kv.mod_revision()))
}

#[test]
fn a_node_is_drained_until_it_is_undrained() {
    run(async || {
        // A user's rights must do.
        let etcd = Etcd::start_with_users().await;
        let mut client = etcd.client().await;
        let (store, _events) = store(&etcd);
        let drains = store.drains();

        let since = drains.drain("a", false).await.expect("etcd answers");
        let (first, revision) = drained(&mut client, "a").await.expect("it is drained");
        assert!(!first.force);
        assert_eq!(since, revision);
        humantime::parse_rfc3339(&first.since).expect("a time");

        // Whoever drains it again does not begin anew.
        drains.drain("b", false).await.expect("etcd answers");
        drains.undrain("b").await.expect("etcd answers");
        let since = drains.drain("a", false).await.expect("etcd answers");
        assert_eq!(since, revision);
        assert_eq!(
            drained(&mut client, "a").await,
            Some((first.clone(), revision))
        );

        let since = drains.drain("a", true).await.expect("etcd answers");
        let (forced, later) = drained(&mut client, "a").await.expect("it is drained");
        assert!(forced.force && later > revision, "{forced:?}");
        assert_eq!(since, later);
        assert_eq!(drained(&mut client, "b").await, None);

        for _ in 0..2 {
            let since = drains.undrain("a").await.expect("etcd answers");
            assert_eq!(drained(&mut client, "a").await, None);
            assert_eq!(since, later + 1);
        }
    });
}

#[test]
fn a_drain_that_etcd_does_not_answer_is_an_error_in_time() {
    run(async || {
        let etcd = Etcd::start().await;
        let (sender, _events) = mpsc::unbounded_channel();
        let ttl = Duration::from_secs(2);
        let store = Store::new(&etcd.config(), "a", ttl, sender);
        drop(etcd);
        let asked = tokio::time::Instant::now();
        let answer = store.drains().drain("a", false).await;
        let error = answer.expect_err("nobody is there").to_string();
        assert!(error.contains("http://127.0.0.1"), "{error}");
        assert!(asked.elapsed() < 5 * ttl, "{:?}", asked.elapsed());
    });
}
