//! etcd's view is lost, in every way there is: each agent comes to the right one again by reading everything, and says what it found.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use vip_tests::agent::AgentConfig;
use vip_tests::bed::{Bed, Setup, VIP, scenario};
use vip_tests::failover::{SETTLED_WITHIN, STEADY, never_two, up};
use vip_tests::probe::Probe;
use vip_tests::probe::client::Mark;
use vip_tests::{say, wait};

/// The scenarios' TTL.
const TTL: Duration = Duration::from_secs(2);
/// How long etcd stays away: ten leases, and more tries than one.
const AWAY: Duration = Duration::from_secs(20);
/// From etcd's first answer to service, where the lease goes on: the longest pause between two tries (2 s) and a read; the rest is for a busy machine.
const BACK_WITHIN: Duration = Duration::from_secs(2 + 3);
/// Where all begin anew: that, a vacancy that is waited out (one TTL, the longest in use), and once more what a lease may have left in a restored store.
const ANEW_WITHIN: Duration = Duration::from_secs(2 + 2 * 2 + 1 + 4);

#[test]
fn a_watch_that_etcd_compacted_is_followed_by_a_full_read() -> Result<()> {
    scenario("watch compacted", Setup::default(), |bed| {
        let config = config();
        let (owner, probe) = up(bed, &config)?;
        let follower = (owner + 1) % 3;
        let asked = bed
            .cluster
            .behind(bed.status(follower)?.text("/etcd/endpoint"))?;
        bed.cluster.lead_elsewhere(asked)?;
        let mark = probe.mark()?;

        // While the follower sees nothing, its connection is lost, the owner changes, and the history of that is compacted.
        bed.freeze_agent(follower)?;
        bed.cluster.stop(asked)?;
        bed.stop_agent(owner)?;
        let next = bed.next_owner(VIP, owner, SETTLED_WITHIN)?;
        for value in ["1", "2", "3"] {
            bed.cluster
                .etcdctl((asked + 1) % 3, &["put", "/elsewhere", value])?;
        }
        let revision = bed.cluster.revision()?.to_string();
        bed.cluster
            .etcdctl((asked + 1) % 3, &["compact", &revision])?;
        bed.thaw_agent(follower)?;

        let name = bed.nodes[next].name().to_owned();
        wait::until_true("the follower to know the new owner", SETTLED_WITHIN, || {
            Ok(bed.status(follower)?.vip(VIP)?.owner() == Some(&name))
        })?;
        says(bed, follower, "reading everything anew")?;
        says(bed, follower, "compacted its history up to revision")?;
        bed.cluster.start(asked)?;
        bed.cluster.ready()?;
        bed.start_agent(owner, &config)?;
        converged(bed, &probe, mark)?;
        Ok(())
    })
}

#[test]
fn etcd_that_was_away_for_long_is_found_again() -> Result<()> {
    scenario("etcd stopped and back", Setup::default(), |bed| {
        let (owner, probe) = up(bed, &config())?;
        let mark = probe.mark()?;
        bed.cluster.stop_all()?;
        let stopped = Instant::now();
        let others = [(owner + 1) % 3, (owner + 2) % 3];
        wait::until_true("etcd to be away for long", 2 * AWAY, || {
            Ok(stopped.elapsed() >= AWAY)
        })?;
        let status = bed.status(owner)?;
        ensure!(status.vip(VIP)?.gate() == "closed", "{}", status.0);
        for index in 0..3 {
            let status = bed.status(index)?;
            let error = status.text("/etcd/last_error");
            ensure!(
                !error.is_empty(),
                "its status says nothing of etcd: {}",
                status.0
            );
        }

        bed.cluster.start_all()?;
        back(bed, &probe, "etcd stopped for 20 s and back", BACK_WITHIN)?;
        ensure!(
            bed.owner_of(VIP)? == Some(owner),
            "the lease lived on, and its owner lost the shared IP"
        );
        says(bed, owner, "gate shut at its deadline")?;
        for index in others {
            says(bed, index, "reading everything anew")?;
        }
        converged(bed, &probe, mark)?;
        Ok(())
    })
}

#[test]
fn etcd_that_lost_its_data_is_a_new_beginning() -> Result<()> {
    scenario("etcd lost its data", Setup::default(), |bed| {
        let (owner, probe) = up(bed, &config())?;
        let mark = probe.mark()?;
        bed.cluster.stop_all()?;
        bed.cluster.wipe()?;
        bed.cluster.start_all()?;
        back(bed, &probe, "etcd's data lost", ANEW_WITHIN)?;
        says(bed, owner, "etcd's history is another one")?;
        converged(bed, &probe, mark)?;
        Ok(())
    })
}

#[test]
fn etcd_that_was_restored_from_a_backup_is_another_history() -> Result<()> {
    scenario("etcd restored", Setup::default(), |bed| {
        let config = config();
        let (first, probe) = up(bed, &config)?;
        let backup = bed.directory().join("backup");
        bed.cluster.save(0, &backup)?;
        let mark = probe.mark()?;
        // What the backup says of the owner is wrong by the time that it is restored.
        bed.stop_agent(first)?;
        bed.next_owner(VIP, first, SETTLED_WITHIN)?;
        bed.start_agent(first, &config)?;
        let all = [0, 1, 2];
        let second = bed.settled(VIP, &all, SETTLED_WITHIN)?;
        ensure!(second != first);
        probe.steady(STEADY, SETTLED_WITHIN)?;

        bed.cluster.stop_all()?;
        bed.cluster.restore(&backup)?;
        bed.cluster.start_all()?;
        back(bed, &probe, "etcd restored from a backup", ANEW_WITHIN)?;
        says(bed, second, "etcd's history is another one")?;
        converged(bed, &probe, mark)?;
        Ok(())
    })
}

/// Once etcd answers: waits until the client is served again, and tells how long that took.
fn back(bed: &Bed, probe: &Probe, what: &str, target: Duration) -> Result<()> {
    let answering = Instant::now();
    let mark = probe.mark()?;
    wait::until_true(
        "the client to be served again",
        target + SETTLED_WITHIN,
        || Ok(probe.since(mark)?.answered() > 0),
    )?;
    let took = answering.elapsed();
    say::measured(&format!("{what}: served after etcd answered"), took, target);
    ensure!(
        took <= target,
        "{what}: served only {took:?} after etcd answered\n{}",
        bed.log_tails()
    );
    Ok(())
}

/// All agree on one owner, which serves, and no round since was answered by two.
fn converged(bed: &Bed, probe: &Probe, mark: Mark) -> Result<()> {
    let owner = bed.settled(VIP, &[0, 1, 2], SETTLED_WITHIN)?;
    probe.steady(2 * STEADY, SETTLED_WITHIN)?;
    for index in 0..3 {
        let status = bed.status(index)?;
        ensure!(
            status.state() == "joined" && status.members().len() == 3,
            "{}",
            status.0
        );
    }
    ensure!(
        bed.owner_of(VIP)? == Some(owner),
        "the shared IP goes on changing hands"
    );
    let report = probe.since(mark)?;
    say::line(&format!(
        "measured: {} rounds answered by two in {} (target 0)",
        report.by_two(),
        report.rounds
    ));
    never_two(&report)
}

fn says(bed: &Bed, index: usize, what: &str) -> Result<()> {
    let log = bed.agent_log(index)?;
    ensure!(
        log.contains(what),
        "the log of {} does not say `{what}`: {log}",
        bed.nodes[index].name()
    );
    Ok(())
}

fn config() -> AgentConfig {
    AgentConfig {
        ttl: format!("{}s", TTL.as_secs()),
        ..AgentConfig::new(VIP)
    }
}
