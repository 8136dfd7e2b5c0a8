//! Certificates, passwords and tokens that change while agents run.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use vip_tests::agent::AgentConfig;
use vip_tests::bed::{Bed, Setup, VIP, scenario};
use vip_tests::etcd::{Security, TOKEN_TTL};
use vip_tests::failover::SETTLED_WITHIN;
use vip_tests::wait;

const ALL: [usize; 3] = [0, 1, 2];
const MTLS: Setup = Setup {
    nodes: 3,
    mgmt: false,
    two_cables: false,
    security: Security::Mtls,
    etcd: true,
};
const PASSWORD: Setup = Setup {
    security: Security::Password,
    ..MTLS
};

#[test]
fn certificates_that_were_replaced_on_disk_are_used_without_a_restart() -> Result<()> {
    scenario("certificates replaced", MTLS, |bed| {
        bed.start_agents(&AgentConfig::new(VIP))?;
        bed.settled(VIP, &ALL, SETTLED_WITHIN)?;
        bed.cluster.replace_certificates()?;
        restart_etcd(bed)?;
        all_serve_again(bed)?;
        for index in ALL {
            let log = bed.agent(index)?.log_text()?;
            ensure!(log.contains("were replaced on disk"), "{log}");
        }
        Ok(())
    })
}

#[test]
fn a_key_that_is_broken_on_disk_does_not_keep_an_agent_from_etcd() -> Result<()> {
    scenario("a broken key on disk", MTLS, |bed| {
        bed.start_agents(&AgentConfig::new(VIP))?;
        bed.settled(VIP, &ALL, SETTLED_WITHIN)?;
        let key = bed
            .cluster
            .certificates()
            .context("the cluster has certificates")?
            .client_key
            .clone();
        let whole = fs::read(&key)?;
        fs::write(&key, &whole[..whole.len() / 2])?;
        restart_etcd_with(bed, |_| Ok(()))?;
        // etcdctl reads the key too.
        let served = all_serve_again_by_status(bed);
        fs::write(&key, &whole)?;
        served?;
        for index in ALL {
            let log = bed.agent(index)?.log_text()?;
            let told = log.matches("not fit for use").count();
            ensure!(told == 1, "told {told} times: {log}");
            ensure!(log.contains("client.key"), "{log}");
        }
        Ok(())
    })
}

#[test]
fn a_token_that_expired_is_replaced_by_a_new_one() -> Result<()> {
    scenario("an expired token", PASSWORD, |bed| {
        let (owner, epoch) = up_for_long(bed)?;
        for index in ALL {
            bed.freeze_agent(index)?;
        }
        // There is nothing to be seen of a token that goes.
        std::thread::sleep(3 * TOKEN_TTL);
        for index in ALL {
            bed.thaw_agent(index)?;
        }
        goes_on(bed, owner, epoch)
    })
}

#[test]
fn a_password_that_changes_on_both_sides_costs_nothing() -> Result<()> {
    scenario("a changed password", PASSWORD, |bed| {
        let (owner, epoch) = up_for_long(bed)?;
        for node in &bed.nodes {
            fs::write(node.directory().join("password"), "battery staple\n")?;
        }
        bed.cluster.change_password("battery staple")?;
        goes_on(bed, owner, epoch)
    })
}

/// Agents with a lease that outlasts what is done to them; the owner, and its epoch.
fn up_for_long(bed: &mut Bed) -> Result<(usize, u64)> {
    let config = AgentConfig {
        ttl: "20s".to_owned(),
        ..AgentConfig::new(VIP)
    };
    bed.start_agents(&config)?;
    let owner = bed.settled(VIP, &ALL, 2 * SETTLED_WITHIN)?;
    Ok((owner, bed.status(owner)?.vip(VIP)?.epoch()))
}

/// All members at once, for with a new authority none trusts the old ones' clients.
fn restart_etcd(bed: &mut Bed) -> Result<()> {
    restart_etcd_with(bed, |bed| bed.cluster.ready())
}

fn restart_etcd_with(bed: &mut Bed, then: impl Fn(&mut Bed) -> Result<()>) -> Result<()> {
    for index in ALL {
        bed.cluster.stop(index)?;
    }
    wait::until_true("all agents to miss etcd", SETTLED_WITHIN, || {
        ALL.iter().try_fold(true, |all, index| {
            Ok(all && !bed.status(*index)?.text("/etcd/last_error").is_empty())
        })
    })?;
    for index in ALL {
        bed.cluster.start(index)?;
    }
    then(bed)
}

fn all_serve_again(bed: &mut Bed) -> Result<()> {
    bed.cluster.ready()?;
    all_serve_again_by_status(bed)
}

fn all_serve_again_by_status(bed: &mut Bed) -> Result<()> {
    wait::until_true(
        "all agents to be served by etcd again",
        SETTLED_WITHIN,
        || {
            ALL.iter().try_fold(true, |all, index| {
                let status = bed.status(*index)?;
                Ok(all && status.state() == "joined" && status.text("/etcd/last_error").is_empty())
            })
        },
    )?;
    bed.settled(VIP, &ALL, SETTLED_WITHIN)?;
    for index in ALL {
        let ended = bed.agent(index)?.exited()?;
        ensure!(ended.is_none(), "an agent has ended");
    }
    Ok(())
}

/// Nothing changed hands, and the lease is renewed again.
fn goes_on(bed: &mut Bed, owner: usize, epoch: u64) -> Result<()> {
    let fresh = Duration::from_secs(12);
    wait::until_true("all leases to be renewed again", SETTLED_WITHIN, || {
        ALL.iter().try_fold(true, |all, index| {
            let status = bed.status(*index)?;
            let left = status.0.pointer("/lease/remaining_ms");
            let left = left.and_then(|left| left.as_u64()).unwrap_or(0);
            let served = status.text("/etcd/last_error").is_empty();
            Ok(all && served && u128::from(left) > fresh.as_millis())
        })
    })?;
    let vip = bed.status(owner)?.vip(VIP)?;
    ensure!(
        vip.role() == "owner" && vip.epoch() == epoch,
        "it changed hands, or its key did: {vip:?}, not epoch {epoch}"
    );
    for index in ALL {
        let log = bed.agent(index)?.log_text()?;
        ensure!(!log.contains("lease lost"), "{log}");
    }
    Ok(())
}
