//! The etcd member that the owner talks to falls ill: who owns the shared IP stays, and what the client notices is no more than etcd's election.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use nix::time::{ClockId, clock_gettime};
use vip_tests::agent::AgentConfig;
use vip_tests::bed::{Bed, Setup, VIP, scenario};
use vip_tests::disk::{Disk, Stalled};
use vip_tests::etcd::Cluster;
use vip_tests::failover::{SETTLED_WITHIN, STEADY, fail_over, never_two, unnoticed, up};
use vip_tests::fault::Illness;
use vip_tests::figures::{Figures, rounds};
use vip_tests::probe::Probe;
use vip_tests::probe::client::TICK;
use vip_tests::{gate, say, wait};

/// The agent's default, and the one that these figures are stated for.
const TTL: Duration = Duration::from_secs(3);
/// Those that agents can be asked to bear one after the other, and the one for which they are configured otherwise.
const ILLNESSES: [&[Illness]; 2] = [&[Illness::Killed, Illness::Frozen], &[Illness::BlackHoled]];
/// Beyond the deadline at which the gate would be shut, had nobody renewed the lease; and beyond the lease's own end.
const LONG_ENOUGH: Duration = Duration::from_millis(3500);
/// From a confirmed renewal to the client's next answer: announcement and neighbour cache, on a busy machine.
const SERVED_AGAIN_WITHIN: Duration = Duration::from_millis(300);
/// From etcd's first answer to a confirmed renewal: the next round is due after TTL / 6, and hedged after TTL / 12 more. The rest is for a busy machine.
const CONFIRMED_WITHIN: Duration = Duration::from_millis(750 + 1500);
/// From the loss of a key to its owner's hearing of it by the watch, on a busy machine.
const HEARD_WITHIN: Duration = Duration::from_millis(250);
/// What two elections of up to 2 s, the second because the first had no result, take more than the 2 s that a lease has left; and a second for a busy machine.
const TWO_ELECTIONS: Duration = Duration::from_secs(2 + 1);

#[test]
fn a_sick_member_that_does_not_lead_is_not_noticed() -> Result<()> {
    scenario("sick etcd member", etcd_later(), |bed| {
        // As etcd 3.5 has it by default: else one that was cut off deposes the leader when it is back.
        bed.cluster.set_pre_vote();
        bed.cluster.start_all()?;
        for illnesses in ILLNESSES {
            let (owner, probe) = up_asking(bed, illnesses)?;
            for &illness in illnesses {
                let epoch = bed.status(owner)?.vip(VIP)?.epoch();
                let sick = wait::until(
                    "the owner to ask another than the leader",
                    SETTLED_WITHIN,
                    || {
                        let asked = asked_by(bed, owner)?;
                        bed.cluster.lead_elsewhere(asked)?;
                        Ok((asked_by(bed, owner)? == asked).then_some(asked))
                    },
                )?;
                probe.steady(STEADY, SETTLED_WITHIN)?;

                let mark = probe.mark()?;
                bed.sicken_etcd(sick, illness)?;
                probe.steady(LONG_ENOUGH, SETTLED_WITHIN)?;
                unnoticed(&format!("owner's etcd member {illness:?}"), &probe, mark)?;
                let next = asked_by(bed, owner)?;
                ensure!(next != sick, "the owner still asks the sick member first");

                same_owner(bed, owner, epoch)?;
                well_again(bed, &probe, owner, Aftermath::None, |bed| {
                    bed.heal_etcd(sick, illness)
                })?;
            }
            stop_all(bed)?;
        }
        Ok(())
    })
}

#[test]
fn a_sick_leader_costs_no_more_than_its_successors_election() -> Result<()> {
    let rounds = rounds(1)?;
    scenario("sick etcd leader", with_mgmt(), |bed| {
        for illnesses in ILLNESSES {
            let (mut owner, probe) = up_asking(bed, illnesses)?;
            for &illness in illnesses {
                let mut took = Vec::new();
                let aftermath = match illness {
                    Illness::Killed | Illness::BlackHoled => Aftermath::Elections,
                    Illness::Frozen => Aftermath::Revocation,
                };
                for _ in 0..rounds {
                    let epoch = bed.status(owner)?.vip(VIP)?.epoch();
                    let leader =
                        wait::until("the owner to ask the leader", SETTLED_WITHIN, || {
                            let asked = asked_by(bed, owner)?;
                            bed.cluster.lead_from(asked)?;
                            Ok((asked_by(bed, owner)? == asked).then_some(asked))
                        })?;
                    probe.steady(STEADY, SETTLED_WITHIN)?;
                    took.push(sick_leader(bed, &probe, owner, leader, illness)?);
                    same_owner(bed, owner, epoch)?;
                    owner = well_again(bed, &probe, owner, aftermath, |bed| {
                        bed.heal_etcd(leader, illness)
                    })?;
                }
                let outages: Figures = took.iter().map(|(outage, _)| *outage).collect();
                let renewed: Figures = took.iter().map(|(_, renewed)| *renewed).collect();
                say::line(&format!(
                    "measured: etcd's leader {illness:?}: outage {outages}; until renewed {renewed}"
                ));
            }
            stop_all(bed)?;
        }
        Ok(())
    })
}

#[test]
fn a_leader_whose_disk_stalls_costs_no_more_than_its_successors_election() -> Result<()> {
    stalled_disk("etcd leader's disk stalls", |bed, _, disk| {
        // All ask the leader first: the endpoints are listed alike everywhere, and it is the first.
        let (owner, probe) = up(bed, &config())?;
        let epoch = bed.status(owner)?.vip(VIP)?.epoch();
        probe.steady(STEADY, SETTLED_WITHIN)?;
        let mark = probe.mark()?;
        let stalled = stall(bed, disk)?;
        // A lease that the successor has granted in full, and nobody renewed, would be gone by then: its election, the TTL and one second.
        let after = Instant::now() + TTL + Duration::from_secs(4);
        wait::until_true(
            "the lease to be one that was renewed",
            SETTLED_WITHIN,
            || Ok(Instant::now() > after),
        )?;
        probe.steady(STEADY, SETTLED_WITHIN)?;
        let report = unnoticed("etcd leader's disk stalls", &probe, mark)?;
        same_owner(bed, owner, epoch)?;
        let told = bed
            .agent_log(owner)?
            .contains("a deposed etcd leader answered a renewal");
        say::line(&format!(
            "measured: etcd leader's disk stalls: {} rounds answered by two (target 0), a renewal by the deposed leader {}",
            report.by_two(),
            if told {
                "was not believed"
            } else {
                "was never answered first"
            }
        ));
        well_again(bed, &probe, owner, Aftermath::Revocation, |_| {
            stalled.thaw()
        })
        .map(drop)
    })
}

#[test]
fn an_owner_that_hears_only_a_leader_whose_disk_stalls_does_not_believe_it() -> Result<()> {
    stalled_disk("only a stalled leader is heard", |bed, leader, disk| {
        let config = config();
        // The owner is the one beside the stalled leader, and asks that alone.
        let alone = AgentConfig {
            endpoints: Some(vec![bed.cluster.endpoints()[leader].clone()]),
            ..config.clone()
        };
        bed.start_agent(leader, &alone)?;
        bed.settled(VIP, &[leader], SETTLED_WITHIN)?;
        for other in (0..bed.nodes.len()).filter(|index| *index != leader) {
            bed.start_agent(other, &config)?;
        }
        let all: Vec<usize> = (0..bed.nodes.len()).collect();
        bed.settled(VIP, &all, SETTLED_WITHIN)?;
        let probe = bed.probe(&[VIP])?;
        let lease = bed.status(leader)?.text("/lease/id").to_owned();
        let mut stalled = None;
        let failover = fail_over(bed, &probe, leader, |bed| {
            stalled = Some(stall(bed, disk)?);
            Ok(())
        })?;
        say::measured(
            "only a stalled leader is heard: outage",
            failover.report.longest_outage(),
            Duration::from_secs(8),
        );
        never_two(&failover.report)?;
        let renewed = bed
            .cluster
            .etcdctl(leader, &["lease", "keep-alive", "--once", &lease]);
        say::line(&format!(
            "measured: asked to renew the lease that its successor has ended, the stalled leader says: {renewed:?}"
        ));
        let status = bed.status(leader)?;
        ensure!(status.vip(VIP)?.gate() == "closed", "{}", status.0);
        let stalled = stalled.context("the disk was frozen")?;
        well_again(bed, &probe, failover.new, Aftermath::Revocation, |_| {
            stalled.thaw()
        })
        .map(drop)
    })
}

/// What may follow when a member is well again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Aftermath {
    /// Nothing that a client notices.
    None,
    /// Elections, where one that comes back may [campaign](Cluster::is_disturbed_by_who_comes_back).
    Elections,
    /// Another owner, where it led and can [revoke live leases](Cluster::revokes_live_leases), as if somebody deleted them by hand. How long two answer
    /// then depends on how soon the old owner hears of it.
    Revocation,
}

/// Has a member well again, and judges what the client noticed of it; returns the owner.
fn well_again(
    bed: &mut Bed,
    probe: &Probe,
    owner: usize,
    aftermath: Aftermath,
    heal: impl FnOnce(&mut Bed) -> Result<()>,
) -> Result<usize> {
    let epoch = bed.status(owner)?.vip(VIP)?.epoch();
    let mark = probe.mark()?;
    heal(bed)?;
    bed.cluster.ready()?;
    let all: Vec<usize> = (0..bed.nodes.len()).collect();
    bed.settled(VIP, &all, SETTLED_WITHIN)?;
    // Beyond the gate's deadline, if nobody could renew the lease any more.
    probe.steady(LONG_ENOUGH, SETTLED_WITHIN)?;
    let now = bed.settled(VIP, &all, SETTLED_WITHIN)?;
    let report = probe.decided_since(mark)?;
    let same = same_owner(bed, owner, epoch);
    say::line(&format!(
        "measured: etcd member well again: outage {}, {} rounds answered by two, {}",
        say::told(report.longest_outage()),
        report.by_two(),
        if same.is_ok() {
            "same owner"
        } else {
            "live leases were revoked"
        }
    ));
    match aftermath {
        Aftermath::Revocation if same.is_err() && Cluster::revokes_live_leases()? => {
            let by_two = TICK * u32::try_from(report.by_two())?;
            ensure!(
                by_two <= HEARD_WITHIN,
                "two answered for {by_two:?}: {report:#?}"
            );
        }
        Aftermath::Elections if Cluster::is_disturbed_by_who_comes_back()? => {
            same?;
            never_two(&report)?;
            ensure!(report.longest_outage() <= TWO_ELECTIONS, "{report:#?}");
        }
        _ => {
            same?;
            unnoticed("etcd member well again", probe, mark)?;
        }
    }
    Ok(now)
}

/// Breaks the leader; returns the outage and the time until the owner's lease was renewed by its successor.
fn sick_leader(
    bed: &mut Bed,
    probe: &Probe,
    owner: usize,
    leader: usize,
    illness: Illness,
) -> Result<(Duration, Duration)> {
    let mark = probe.mark()?;
    let before = boot_now()?;
    bed.sicken_etcd(leader, illness)?;
    let broken = Instant::now();
    let (node, cluster) = (&bed.nodes[owner], &bed.cluster);
    let healthy = (0..bed.nodes.len())
        .find(|index| *index != leader)
        .context("one member is well")?;
    let (etcd_after, (renewed_after, left)) = thread::scope(|scope| {
        let etcd = scope.spawn(|| {
            wait::until("etcd to answer again", SETTLED_WITHIN, || {
                cluster.etcdctl(healthy, &["get", "/vip-agent/ready"])?;
                Ok(Some(broken.elapsed()))
            })
        });
        // What was sent before the fault may be confirmed after it; that is what the lease had left.
        let mut left = Duration::ZERO;
        let renewed = wait::until(
            "a renewal from after the fault to count",
            SETTLED_WITHIN,
            || {
                let deadline = Duration::from_nanos(gate::lease_deadline_ns(node)?);
                if deadline > before + TTL * 5 / 6 {
                    return Ok(Some(broken.elapsed()));
                }
                left = deadline.saturating_sub(before);
                Ok(None)
            },
        )?;
        let etcd = etcd
            .join()
            .map_err(|_| anyhow!("the thread that asks etcd panicked"))??;
        Ok::<_, anyhow::Error>((etcd, (renewed, left)))
    })?;
    probe.steady(STEADY, SETTLED_WITHIN)?;
    let report = probe.decided_since(mark)?;
    never_two(&report)?;
    let outage = report.longest_outage();
    let allowed = renewed_after.saturating_sub(left);
    say::line(&format!(
        "measured: etcd's leader {illness:?}: outage {} ({} rounds missed), the lease had {} left and was renewed after {}, etcd answered after {}",
        say::told(outage),
        report.missed(),
        say::told(left),
        say::told(renewed_after),
        say::told(etcd_after)
    ));
    ensure!(
        renewed_after <= etcd_after + CONFIRMED_WITHIN,
        "etcd answered long before the owner's lease was renewed"
    );
    if allowed.is_zero() {
        unnoticed(&format!("etcd's leader {illness:?}"), probe, mark)?;
    } else {
        ensure!(
            outage <= allowed + SERVED_AGAIN_WITHIN,
            "an outage of {outage:?}, where the election explains {allowed:?}: {report:#?}"
        );
    }
    Ok((outage, renewed_after))
}

/// A bed whose first etcd member has its data on a disk of its own, and leads.
fn stalled_disk(what: &str, play: impl FnOnce(&mut Bed, usize, &Disk) -> Result<()>) -> Result<()> {
    scenario(what, etcd_later(), |bed| {
        let leader = 0;
        let disk = Disk::mount(&bed.cluster.data(leader))?;
        bed.cluster.start_all()?;
        bed.cluster.lead_from(leader)?;
        play(bed, leader, &disk)
    })
}

/// Stalls the first member's disk, and writes something: a leader with nothing to write would not notice.
fn stall<'a>(bed: &Bed, disk: &'a Disk) -> Result<Stalled<'a>> {
    let stalled = disk.freeze()?;
    // It may be answered only by the next leader, or not at all.
    let _ = bed.cluster.etcdctl(1, &["put", "/elsewhere", "1"]);
    Ok(stalled)
}

fn etcd_later() -> Setup {
    Setup {
        etcd: false,
        ..with_mgmt()
    }
}

fn with_mgmt() -> Setup {
    Setup {
        mgmt: true,
        ..Setup::default()
    }
}

fn config() -> AgentConfig {
    AgentConfig {
        ttl: format!("{}s", TTL.as_secs()),
        ..AgentConfig::new(VIP)
    }
}

/// Starts all agents, each to ask its own node's member first, and a probe. A black hole lies on the wire, so there they ask the others alone.
fn up_asking(bed: &mut Bed, illnesses: &[Illness]) -> Result<(usize, Probe)> {
    let count = bed.nodes.len();
    for index in 0..count {
        let mut endpoints = bed.cluster.endpoints();
        endpoints.rotate_left(index);
        if illnesses.contains(&Illness::BlackHoled) {
            endpoints.remove(0);
        }
        let config = AgentConfig {
            endpoints: Some(endpoints),
            ..config()
        };
        bed.start_agent(index, &config)?;
    }
    let all: Vec<usize> = (0..count).collect();
    let owner = bed.settled(VIP, &all, SETTLED_WITHIN)?;
    let probe = bed.probe(&[VIP])?;
    probe.steady(STEADY, SETTLED_WITHIN)?;
    Ok((owner, probe))
}

fn asked_by(bed: &Bed, index: usize) -> Result<usize> {
    bed.cluster
        .behind(bed.status(index)?.text("/etcd/endpoint"))
}

fn same_owner(bed: &Bed, owner: usize, epoch: u64) -> Result<()> {
    let now = bed.status(owner)?.vip(VIP)?;
    ensure!(
        now.role() == "owner" && now.epoch() == epoch,
        "the shared IP changed hands: {}",
        now.0
    );
    Ok(())
}

fn stop_all(bed: &mut Bed) -> Result<()> {
    for index in 0..bed.nodes.len() {
        bed.stop_agent(index)?;
    }
    Ok(())
}

fn boot_now() -> Result<Duration> {
    Ok(Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME)?))
}
