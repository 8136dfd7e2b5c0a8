//! A node that comes back, or was never the owner, disturbs nobody.

use std::time::Duration;

use anyhow::{Result, ensure};
use vip_tests::agent::AgentConfig;
use vip_tests::bed::{Bed, Setup, VIP, scenario};
use vip_tests::failover::{SETTLED_WITHIN, STEADY, fail_over, never_two, unnoticed, up};
use vip_tests::probe::Probe;
use vip_tests::wait;

/// Beyond the lease of whoever went.
const LONG_ENOUGH: Duration = Duration::from_secs(3);

#[test]
fn an_owner_that_comes_back_joins_as_a_follower() -> Result<()> {
    with_pre_vote("former owner", |bed| {
        let config = AgentConfig::new(VIP);
        let (_, probe) = up(bed, &config)?;
        comes_back(bed, &probe, "freeze", Bed::freeze_agent, |bed, old| {
            bed.thaw_agent(old)
        })?;
        comes_back(
            bed,
            &probe,
            "partition",
            |bed, old| bed.pull_cable(old),
            |bed, old| bed.plug_cable(old),
        )?;
        comes_back(bed, &probe, "power cut", Bed::cut_power, |bed, old| {
            bed.restore_power(old, &config)
        })
    })
}

#[test]
fn a_follower_that_dies_and_comes_back_is_not_noticed() -> Result<()> {
    with_pre_vote("follower", |bed| {
        let config = AgentConfig::new(VIP);
        let (owner, probe) = up(bed, &config)?;
        let epoch = bed.status(owner)?.vip(VIP)?.epoch();
        let follower = (owner + 1) % 3;

        let mark = probe.mark()?;
        bed.kill_agent(follower)?;
        probe.steady(LONG_ENOUGH, SETTLED_WITHIN)?;
        unnoticed("follower killed", &probe, mark)?;
        let mark = probe.mark()?;
        bed.start_agent(follower, &config)?;
        follows(bed, follower, owner, epoch)?;
        probe.steady(2 * STEADY, SETTLED_WITHIN)?;
        unnoticed("killed follower back", &probe, mark)?;

        bed.cluster.lead_elsewhere(follower)?;
        probe.steady(STEADY, SETTLED_WITHIN)?;
        let mark = probe.mark()?;
        bed.cut_power(follower)?;
        probe.steady(LONG_ENOUGH, SETTLED_WITHIN)?;
        unnoticed("follower without power", &probe, mark)?;
        let mark = probe.mark()?;
        bed.restore_power(follower, &config)?;
        follows(bed, follower, owner, epoch)?;
        probe.steady(2 * STEADY, SETTLED_WITHIN)?;
        unnoticed("follower with power again", &probe, mark)?;
        Ok(())
    })
}

/// Takes the owner away, and back once another serves: that is all that the client may notice.
fn comes_back(
    bed: &mut Bed,
    probe: &Probe,
    from: &str,
    fault: impl FnOnce(&mut Bed, usize) -> Result<()>,
    mend: impl FnOnce(&mut Bed, usize) -> Result<()>,
) -> Result<()> {
    let old = bed.settled(VIP, &[0, 1, 2], SETTLED_WITHIN)?;
    bed.cluster.lead_elsewhere(old)?;
    let failover = fail_over(bed, probe, old, |bed| fault(bed, old))?;
    let epoch = bed.status(failover.new)?.vip(VIP)?.epoch();
    let mark = probe.mark()?;
    mend(bed, old)?;
    follows(bed, old, failover.new, epoch)?;
    // Long enough for a late give-up or announcement of the old owner to show.
    probe.steady(2 * STEADY, SETTLED_WITHIN)?;
    unnoticed(&format!("back from a {from}"), probe, mark)?;
    let status = bed.status(failover.new)?.vip(VIP)?;
    ensure!(
        status.role() == "owner" && status.epoch() == epoch,
        "{}",
        status.0
    );
    ensure!(
        !bed.nodes[old].has_address(VIP)?,
        "the old owner kept the address"
    );
    never_two(&probe.since(failover.mark)?)
}

/// A scenario whose etcd members ask before they campaign. Else the one that comes back with its node may depose the leader, and the client notice the
/// election.
fn with_pre_vote(what: &str, play: impl FnOnce(&mut Bed) -> Result<()>) -> Result<()> {
    let etcd_later = Setup {
        etcd: false,
        ..Setup::default()
    };
    scenario(what, etcd_later, |bed| {
        bed.cluster.set_pre_vote();
        bed.cluster.start_all()?;
        play(bed)
    })
}

/// Waits until a node is a joined follower that knows the owner, and the epoch.
fn follows(bed: &Bed, follower: usize, owner: usize, epoch: u64) -> Result<()> {
    let name = bed.nodes[owner].name();
    wait::until_true("the node to join as a follower", SETTLED_WITHIN, || {
        let status = bed.status(follower)?;
        let vip = status.vip(VIP)?;
        Ok(status.state() == "joined"
            && vip.role() == "follower"
            && vip.owner() == Some(name)
            && vip.epoch() == epoch)
    })
}
