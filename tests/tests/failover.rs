//! The owner goes away, in every way there is: how long the client waits, and that two never answer.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use nix::time::{ClockId, clock_gettime};
use vip_tests::agent::AgentConfig;
use vip_tests::bed::{BOTH, Bed, Setup, scenario};
use vip_tests::failover::{
    Failover, SETTLED_WITHIN, calm, epochs, fail_over, never_two, unnoticed, up,
};
use vip_tests::probe::Probe;
use vip_tests::probe::client::TICK;
use vip_tests::{gate, say, wait};

/// What a case may take: the target that the figure is printed beside, and what a busy two-core machine is granted on top of it.
#[derive(Clone, Copy)]
struct Limit {
    target: Duration,
    slack: Duration,
}

/// The gate goes first and the key right after. Less than a lease has left at least (2 s, less a renewal's age of up to 0.33 s), so that a handover
/// which only the end of the lease brought about is over it.
const STOP: Limit = limit(50, 1000);
/// The same by way of netlink, which tells of the carrier, and with another's take-over on a machine that is unplugging things.
const UNFIT: Limit = limit(100, 1000);
/// From the deadline to the lease's end and etcd's next look at it, which it takes each 0.5 s. The slack is two more of these looks.
const KILL: Limit = limit(1500, 1000);
/// From the last renewal to the lease's end and etcd's next look. The slack is two more.
const CUT: Limit = limit(2800, 1000);
/// The TTL, and 4 s for etcd's own election and the longer lease after it. The slack is one more election that came to no result.
const CUT_WITH_LEADER: Limit = limit(6000, 2000);

#[test]
fn owner_stopped_by_sigterm_hands_over_and_leaves_nothing_behind() -> Result<()> {
    scenario("owner stopped", Setup::default(), |bed| {
        let config = AgentConfig::of_both_families();
        let (owner, probe) = up(bed, &config)?;
        let before = bed.cluster.revision()?;
        let failover = fail_over(bed, &probe, owner, |bed| {
            let status = bed.stop_agent(owner)?;
            ensure!(status.success(), "the stopped agent ended with {status}");
            Ok(())
        })?;
        judge("stop", &failover, STOP)?;
        for vip in BOTH {
            owner_key_was_handed_over(bed, vip, before)?;
        }
        nothing_left_on(bed, owner)?;
        bed.start_agent(owner, &config)?;
        calm(bed, &probe, &failover)?;
        Ok(())
    })
}

#[test]
fn owner_killed_serves_until_its_deadline_and_no_longer() -> Result<()> {
    scenario("owner killed", Setup::default(), |bed| {
        let config = AgentConfig::of_both_families();
        let (owner, probe) = up(bed, &config)?;
        bed.cluster.lead_elsewhere(owner)?;
        let failover = fail_over(bed, &probe, owner, |bed| bed.kill_agent(owner))?;
        judge("kill -9", &failover, KILL)?;
        ensure!(
            !bed.nodes[owner].pins()?.is_empty(),
            "the guard of a killed agent must stand"
        );
        silent_past_its_deadline(bed, &probe, owner)?;
        wait::until_true(
            "the kernel to drop the dead agent's address",
            Duration::from_secs(20),
            || Ok(!has_any_address(bed, owner)?),
        )?;
        bed.start_agent(owner, &config)?;
        calm(bed, &probe, &failover)?;
        Ok(())
    })
}

#[test]
fn owner_frozen_is_shut_by_its_gate_and_wakes_as_a_follower() -> Result<()> {
    scenario("owner frozen", Setup::default(), |bed| {
        let (owner, probe) = up(bed, &AgentConfig::of_both_families())?;
        bed.cluster.lead_elsewhere(owner)?;
        let failover = fail_over(bed, &probe, owner, |bed| bed.freeze_agent(owner))?;
        judge("freeze", &failover, KILL)?;
        silent_past_its_deadline(bed, &probe, owner)?;
        bed.thaw_agent(owner)?;
        calm(bed, &probe, &failover)?;
        ensure!(
            !has_any_address(bed, owner)?,
            "the old owner kept an address"
        );
        Ok(())
    })
}

#[test]
fn owner_without_power_is_replaced() -> Result<()> {
    power_cut("power cut", false, CUT)
}

#[test]
fn owner_without_power_is_replaced_also_when_it_leads_etcd() -> Result<()> {
    power_cut("power cut with etcd's leader", true, CUT_WITH_LEADER)
}

#[test]
fn owner_without_cable_is_replaced() -> Result<()> {
    cable("cable", false, CUT)
}

#[test]
fn owner_without_cable_is_replaced_also_when_it_leads_etcd() -> Result<()> {
    cable("cable with etcd's leader", true, CUT_WITH_LEADER)
}

#[test]
fn owner_whose_network_goes_while_etcd_stays_gives_up_at_once() -> Result<()> {
    scenario(
        "cable, with etcd elsewhere",
        Setup {
            mgmt: true,
            ..Setup::default()
        },
        |bed| {
            let (owner, probe) = up(bed, &AgentConfig::of_both_families())?;
            let before = bed.cluster.revision()?;
            let failover = fail_over(bed, &probe, owner, |bed| bed.pull_cable(owner))?;
            judge("cable, with etcd elsewhere", &failover, UNFIT)?;
            ensure!(
                !has_any_address(bed, owner)?,
                "the old owner kept an address"
            );
            // It is a member all the while, so its lease did not bring this about.
            let member = format!("/vip-agent/members/{}", bed.nodes[owner].name());
            for revision in before..=bed.cluster.revision()? {
                ensure!(
                    bed.cluster.had_key(&member, revision)?,
                    "its lease was lost"
                );
            }
            let status = bed.status(owner)?;
            ensure!(
                status.waiting_for().contains("eth0"),
                "its status does not name the interface: {}",
                status.0
            );
            bed.plug_cable(owner)?;
            calm(bed, &probe, &failover)?;
            Ok(())
        },
    )
}

#[test]
fn owner_cut_off_from_etcd_alone_shuts_its_gate_while_clients_still_reach_it() -> Result<()> {
    scenario(
        "cut off from etcd",
        Setup {
            mgmt: true,
            ..Setup::default()
        },
        |bed| {
            let (owner, probe) = up(bed, &AgentConfig::of_both_families())?;
            bed.cluster.lead_elsewhere(owner)?;
            let failover = fail_over(bed, &probe, owner, |bed| bed.cut_off_from_etcd(owner))?;
            judge("cut off from etcd", &failover, KILL)?;
            silent_past_its_deadline(bed, &probe, owner)?;
            let old = bed.status(owner)?;
            for vip in BOTH {
                ensure!(old.vip(vip)?.gate() == "closed", "{}", old.0);
            }
            bed.reconnect_to_etcd(owner)?;
            calm(bed, &probe, &failover)?;
            Ok(())
        },
    )
}

#[test]
fn a_short_loss_of_etcd_costs_nothing() -> Result<()> {
    scenario(
        "etcd away for a moment",
        Setup {
            mgmt: true,
            ..Setup::default()
        },
        |bed| {
            let (owner, probe) = up(bed, &AgentConfig::of_both_families())?;
            bed.cluster.lead_elsewhere(owner)?;
            let before = epochs(bed, owner)?;
            let mark = probe.mark()?;
            bed.cut_off_from_etcd(owner)?;
            // Half a second: a quarter of the TTL.
            wait::until_true("half a second without etcd", SETTLED_WITHIN, || {
                Ok(probe.since(mark)?.rounds >= 250)
            })?;
            bed.reconnect_to_etcd(owner)?;
            probe.steady(Duration::from_secs(4), SETTLED_WITHIN)?;
            unnoticed("0.5 s without etcd", &probe, mark)?;
            for vip in BOTH {
                ensure!(bed.owner_of(vip)? == Some(owner), "{vip} changed hands");
            }
            ensure!(epochs(bed, owner)? == before, "shared IPs changed hands");
            Ok(())
        },
    )
}

#[test]
fn control_with_its_gate_held_open_a_frozen_owner_answers_beside_the_next() -> Result<()> {
    scenario("control: gate held open by hand", Setup::default(), |bed| {
        let (owner, probe) = up(bed, &AgentConfig::of_both_families())?;
        let mark = probe.mark()?;
        bed.freeze_agent(owner)?;
        gate::set_lease_deadline_ns(&bed.nodes[owner], u64::MAX)?;
        for vip in BOTH {
            bed.next_owner(vip, owner, SETTLED_WITHIN)?;
        }
        wait::until_true("rounds answered by two", SETTLED_WITHIN, || {
            let report = probe.since(mark)?;
            Ok(report.noticed.iter().all(|noticed| noticed.by_two > 100))
        })?;
        let report = probe.finish()?;
        say::line(&format!(
            "measured: control, gate held open: rounds answered by two {} (target more than 0)",
            report.told(|noticed| noticed.by_two.to_string())
        ));
        for noticed in &report.noticed {
            ensure!(
                noticed.look_up_by_two > 0 && noticed.echo_by_two > 0,
                "{report:#?}"
            );
        }
        Ok(())
    })
}

fn power_cut(what: &str, with_leader: bool, limit: Limit) -> Result<()> {
    scenario(what, Setup::default(), |bed| {
        let config = AgentConfig::of_both_families();
        let (owner, probe) = up(bed, &config)?;
        place_leader(bed, owner, with_leader)?;
        let failover = fail_over(bed, &probe, owner, |bed| bed.cut_power(owner))?;
        judge(what, &failover, limit)?;
        bed.restore_power(owner, &config)?;
        calm(bed, &probe, &failover)?;
        Ok(())
    })
}

fn cable(what: &str, with_leader: bool, limit: Limit) -> Result<()> {
    scenario(what, Setup::default(), |bed| {
        let (owner, probe) = up(bed, &AgentConfig::of_both_families())?;
        place_leader(bed, owner, with_leader)?;
        let failover = fail_over(bed, &probe, owner, |bed| bed.pull_cable(owner))?;
        judge(what, &failover, limit)?;
        bed.plug_cable(owner)?;
        calm(bed, &probe, &failover)?;
        ensure!(
            !has_any_address(bed, owner)?,
            "the old owner kept an address"
        );
        Ok(())
    })
}

fn place_leader(bed: &Bed, owner: usize, with_leader: bool) -> Result<()> {
    if with_leader {
        bed.cluster.lead_from(owner)
    } else {
        bed.cluster.lead_elsewhere(owner)
    }
}

fn judge(what: &str, failover: &Failover, limit: Limit) -> Result<()> {
    let Limit { target, slack } = limit;
    let report = &failover.report;
    say::line(&format!(
        "measured: {what} outage {} (target {}), rounds by two {}",
        report.told(|noticed| say::told(noticed.longest_outage())),
        say::told(target),
        report.told(|noticed| noticed.by_two.to_string())
    ));
    if report.longest_pause > 5 * TICK {
        let pause = say::told(report.longest_pause);
        say::line(&format!(
            "measured: {what}: the probe itself once paused for {pause}"
        ));
    }
    never_two(report)?;
    ensure!(
        report.longest_outage() <= target + slack,
        "{what}: the outage was far above its target of {target:?}: {report:#?}"
    );
    Ok(())
}

const fn limit(target_ms: u64, slack_ms: u64) -> Limit {
    Limit {
        target: Duration::from_millis(target_ms),
        slack: Duration::from_millis(slack_ms),
    }
}

/// Checks that a node that lost the shared IP answers nothing more, by the deadline in its own kernel and not by anybody's goodwill.
fn silent_past_its_deadline(bed: &Bed, probe: &Probe, old: usize) -> Result<()> {
    let node = &bed.nodes[old];
    wait::until_true("the old owner's deadline to pass", SETTLED_WITHIN, || {
        let now = Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME)?);
        Ok(now.as_nanos() > u128::from(gate::lease_deadline_ns(node)?))
    })?;
    let mark = probe.mark()?;
    probe.steady(Duration::from_millis(500), SETTLED_WITHIN)?;
    wait::until_true("250 rounds", SETTLED_WITHIN, || {
        Ok(probe.since(mark)?.rounds >= 250)
    })?;
    let answers = probe.since(mark)?.answers_of(node.name());
    ensure!(
        answers.all() == 0,
        "{} still answers past its deadline: {answers:?}",
        node.name()
    );
    Ok(())
}

/// At no revision was there no owner: the key went from one lease to the other.
fn owner_key_was_handed_over(bed: &Bed, vip: IpAddr, before: i64) -> Result<()> {
    let owner = format!("/vip-agent/owners/{vip}");
    for revision in before..=bed.cluster.revision()? {
        ensure!(
            bed.cluster.had_key(&owner, revision)?,
            "at revision {revision} nobody owned {vip}"
        );
    }
    Ok(())
}

fn nothing_left_on(bed: &Bed, index: usize) -> Result<()> {
    let node = &bed.nodes[index];
    let kept = has_any_address(bed, index)?;
    ensure!(!kept, "{} kept an address", node.name());
    ensure!(
        node.pins()?.is_empty(),
        "{} kept pins: {:?}",
        node.name(),
        node.pins()?
    );
    let link = node.netns().ip(&["-d", "link", "show", "eth0"])?;
    ensure!(
        !link.contains("xdp"),
        "{} kept an XDP program: {link}",
        node.name()
    );
    let keys = bed.cluster.keys("/vip-agent")?;
    let its_own = format!("/vip-agent/members/{}", node.name());
    ensure!(keys.iter().all(|(key, value)| *key != its_own && !value.contains(&format!("\"{}\"", node.name()))), "keys are left: {keys:?}");
    Ok(())
}

fn has_any_address(bed: &Bed, index: usize) -> Result<bool> {
    for vip in BOTH {
        if bed.nodes[index].has_address(vip)? {
            return Ok(true);
        }
    }
    Ok(false)
}
