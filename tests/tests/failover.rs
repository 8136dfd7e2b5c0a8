//! The owner goes away, in every way there is: how long the client waits, and that two never answer.

use std::time::Duration;

use anyhow::{Result, ensure};
use nix::time::{ClockId, clock_gettime};
use vip_tests::agent::AgentConfig;
use vip_tests::bed::{Bed, Setup, VIP, scenario};
use vip_tests::failover::{Failover, SETTLED_WITHIN, calm, fail_over, never_two, up};
use vip_tests::probe::Probe;
use vip_tests::probe::client::TICK;
use vip_tests::{gate, say, wait};

/// On top of each target: these run on busy two-core machines too. The figures themselves are printed.
const SLACK: Duration = Duration::from_secs(3);
const STOP_TARGET: Duration = Duration::from_millis(50);
const KILL_TARGET: Duration = Duration::from_millis(1500);
const CUT_TARGET: Duration = Duration::from_millis(2800);
/// The TTL, and 4 s for etcd's own election and the longer lease after it.
const CUT_WITH_LEADER_TARGET: Duration = Duration::from_secs(6);

#[test]
fn owner_stopped_by_sigterm_hands_over_and_leaves_nothing_behind() -> Result<()> {
    scenario("owner stopped", Setup::default(), |bed| {
        let config = AgentConfig::new(VIP);
        let (owner, probe) = up(bed, &config)?;
        let failover = fail_over(bed, &probe, owner, |bed| {
            let status = bed.stop_agent(owner)?;
            ensure!(status.success(), "the stopped agent ended with {status}");
            Ok(())
        })?;
        judge("stop", &failover, STOP_TARGET)?;
        nothing_left_on(bed, owner)?;
        bed.start_agent(owner, &config)?;
        calm(bed, &probe, &failover)?;
        Ok(())
    })
}

#[test]
fn owner_killed_serves_until_its_deadline_and_no_longer() -> Result<()> {
    scenario("owner killed", Setup::default(), |bed| {
        let config = AgentConfig::new(VIP);
        let (owner, probe) = up(bed, &config)?;
        bed.cluster.lead_elsewhere(owner)?;
        let failover = fail_over(bed, &probe, owner, |bed| bed.kill_agent(owner))?;
        judge("kill -9", &failover, KILL_TARGET)?;
        ensure!(
            !bed.nodes[owner].pins()?.is_empty(),
            "the guard of a killed agent must stand"
        );
        silent_past_its_deadline(bed, &probe, owner)?;
        wait::until_true(
            "the kernel to drop the dead agent's address",
            Duration::from_secs(20),
            || Ok(!bed.nodes[owner].has_address(VIP)?),
        )?;
        bed.start_agent(owner, &config)?;
        calm(bed, &probe, &failover)?;
        Ok(())
    })
}

#[test]
fn owner_frozen_is_shut_by_its_gate_and_wakes_as_a_follower() -> Result<()> {
    scenario("owner frozen", Setup::default(), |bed| {
        let (owner, probe) = up(bed, &AgentConfig::new(VIP))?;
        bed.cluster.lead_elsewhere(owner)?;
        let failover = fail_over(bed, &probe, owner, |bed| bed.freeze_agent(owner))?;
        judge("freeze", &failover, KILL_TARGET)?;
        silent_past_its_deadline(bed, &probe, owner)?;
        bed.thaw_agent(owner)?;
        calm(bed, &probe, &failover)?;
        ensure!(
            !bed.nodes[owner].has_address(VIP)?,
            "the old owner kept the address"
        );
        Ok(())
    })
}

#[test]
fn owner_without_power_is_replaced() -> Result<()> {
    power_cut("power cut", false, CUT_TARGET)
}

#[test]
fn owner_without_power_is_replaced_also_when_it_leads_etcd() -> Result<()> {
    power_cut("power cut with etcd's leader", true, CUT_WITH_LEADER_TARGET)
}

#[test]
fn owner_without_cable_is_replaced() -> Result<()> {
    cable("cable", false, CUT_TARGET)
}

#[test]
fn owner_without_cable_is_replaced_also_when_it_leads_etcd() -> Result<()> {
    cable("cable with etcd's leader", true, CUT_WITH_LEADER_TARGET)
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
            let (owner, probe) = up(bed, &AgentConfig::new(VIP))?;
            bed.cluster.lead_elsewhere(owner)?;
            let failover = fail_over(bed, &probe, owner, |bed| bed.cut_off_from_etcd(owner))?;
            judge("cut off from etcd", &failover, CUT_TARGET)?;
            silent_past_its_deadline(bed, &probe, owner)?;
            let old = bed.status(owner)?;
            ensure!(old.vip(VIP)?.gate() == "closed", "{}", old.0);
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
            let (owner, probe) = up(bed, &AgentConfig::new(VIP))?;
            bed.cluster.lead_elsewhere(owner)?;
            let epoch = bed.status(owner)?.vip(VIP)?.epoch();
            let mark = probe.mark()?;
            bed.cut_off_from_etcd(owner)?;
            // Half a second: a quarter of the TTL.
            wait::until_true("half a second without etcd", SETTLED_WITHIN, || {
                Ok(probe.since(mark)?.rounds >= 250)
            })?;
            bed.reconnect_to_etcd(owner)?;
            probe.steady(Duration::from_secs(4), SETTLED_WITHIN)?;
            let report = probe.since(mark)?;
            never_two(&report)?;
            say::measured(
                "outage for 0.5 s without etcd",
                report.longest_outage(),
                Duration::ZERO,
            );
            ensure!(
                bed.owner_of(VIP)? == Some(owner) && bed.status(owner)?.vip(VIP)?.epoch() == epoch,
                "the shared IP changed hands"
            );
            ensure!(
                report.longest_outage() < Duration::from_millis(500),
                "{report:#?}"
            );
            Ok(())
        },
    )
}

#[test]
fn control_with_its_gate_held_open_a_frozen_owner_answers_beside_the_next() -> Result<()> {
    scenario("control: gate held open by hand", Setup::default(), |bed| {
        let (owner, probe) = up(bed, &AgentConfig::new(VIP))?;
        let mark = probe.mark()?;
        bed.freeze_agent(owner)?;
        gate::set_lease_deadline_ns(&bed.nodes[owner], u64::MAX)?;
        bed.next_owner(VIP, owner, SETTLED_WITHIN)?;
        wait::until_true("rounds answered by two", SETTLED_WITHIN, || {
            Ok(probe.since(mark)?.by_two > 100)
        })?;
        let report = probe.finish()?;
        say::line(&format!(
            "measured: control, gate held open: {} rounds answered by two (target more than 0)",
            report.by_two
        ));
        ensure!(
            report.arp_by_two > 0 && report.echo_by_two > 0,
            "{report:#?}"
        );
        Ok(())
    })
}

fn power_cut(what: &str, with_leader: bool, target: Duration) -> Result<()> {
    scenario(what, Setup::default(), |bed| {
        let config = AgentConfig::new(VIP);
        let (owner, probe) = up(bed, &config)?;
        place_leader(bed, owner, with_leader)?;
        let failover = fail_over(bed, &probe, owner, |bed| bed.cut_power(owner))?;
        judge(what, &failover, target)?;
        bed.restore_power(owner, &config)?;
        calm(bed, &probe, &failover)?;
        Ok(())
    })
}

fn cable(what: &str, with_leader: bool, target: Duration) -> Result<()> {
    scenario(what, Setup::default(), |bed| {
        let (owner, probe) = up(bed, &AgentConfig::new(VIP))?;
        place_leader(bed, owner, with_leader)?;
        let failover = fail_over(bed, &probe, owner, |bed| bed.pull_cable(owner))?;
        judge(what, &failover, target)?;
        bed.plug_cable(owner)?;
        calm(bed, &probe, &failover)?;
        ensure!(
            !bed.nodes[owner].has_address(VIP)?,
            "the old owner kept the address"
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

fn judge(what: &str, failover: &Failover, target: Duration) -> Result<()> {
    let report = &failover.report;
    say::measured(&format!("{what} outage"), report.longest_outage(), target);
    if report.longest_pause > 5 * TICK {
        let pause = say::told(report.longest_pause);
        say::line(&format!(
            "measured: {what}: the probe itself once paused for {pause}"
        ));
    }
    never_two(report)?;
    ensure!(
        report.longest_outage() <= target + SLACK,
        "{what}: the outage was far above its target of {target:?}: {report:#?}"
    );
    Ok(())
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
        answers.arp + answers.echo + answers.ordinary == 0,
        "{} still answers past its deadline: {answers:?}",
        node.name()
    );
    Ok(())
}

fn nothing_left_on(bed: &Bed, index: usize) -> Result<()> {
    let node = &bed.nodes[index];
    ensure!(!node.has_address(VIP)?, "{} kept the address", node.name());
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
