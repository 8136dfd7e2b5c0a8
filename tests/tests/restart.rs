//! An agent that comes back keeps its shared IPs; one too many is refused.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use vip_tests::agent::{self, AgentConfig};
use vip_tests::bed::{BOTH, Bed, Setup, VIP, VIP6, scenario};
use vip_tests::failover::{SETTLED_WITHIN, STEADY, epochs, never_two, unnoticed, up};
use vip_tests::process::Process;

/// For agents that are to come back within it: on a busy machine the kernel can take seconds to load their programs.
const TTL: Duration = Duration::from_secs(6);

#[test]
fn an_agent_on_hold_leaves_its_shared_ip_served_and_the_next_goes_on() -> Result<()> {
    goes_on("hold and restart", |bed, owner, config| {
        hold(bed, owner)?;
        bed.start_agent(owner, config)
    })
}

#[test]
fn an_agent_killed_and_started_at_once_goes_on() -> Result<()> {
    goes_on("kill -9 and restart at once", |bed, owner, config| {
        bed.kill_agent(owner)?;
        bed.start_agent(owner, config)
    })
}

#[test]
fn an_agent_replaced_by_another_binary_goes_on() -> Result<()> {
    goes_on("upgrade to another binary", |bed, owner, _| {
        let another = bed.nodes[owner].directory().join("vip-agent-next");
        fs::copy(agent::binary()?, &another)?;
        hold(bed, owner)?;
        bed.start_program(owner, &another)?;
        let runs = fs::read_link(format!("/proc/{}/exe", bed.agent(owner)?.pid()?))?;
        ensure!(runs == another, "{} runs", runs.display());
        Ok(())
    })
}

#[test]
fn cleanup_takes_away_what_a_dead_agent_left() -> Result<()> {
    scenario("cleanup", Setup::default(), |bed| {
        let (owner, probe) = up(bed, &AgentConfig::new(VIP))?;
        let killed = probe.mark()?;
        bed.kill_agent(owner)?;
        let node = &bed.nodes[owner];
        let config = node.directory().join("agent.yaml");
        let output = agent::run(node, &["cleanup", "--config", &config.to_string_lossy()])?;
        ensure!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        ensure!(node.pins()?.is_empty(), "pins are left: {:?}", node.pins()?);
        ensure!(!node.has_address(VIP)?, "the address is left");
        ensure!(
            !node
                .netns()
                .ip(&["-d", "link", "show", "eth0"])?
                .contains("xdp"),
            "the XDP program is left"
        );
        let cleaned = probe.mark()?;
        bed.next_owner(VIP, owner, SETTLED_WITHIN)?;
        probe.steady(STEADY, SETTLED_WITHIN)?;
        never_two(&probe.since(killed)?)?;
        let report = probe.since(cleaned)?;
        let answers = report.answers_of(bed.nodes[owner].name());
        ensure!(
            answers.all() == 0,
            "the cleaned node still answers: {report:#?}"
        );
        Ok(())
    })
}

#[test]
fn a_second_agent_on_the_same_state_directory_is_refused() -> Result<()> {
    scenario("second agent on a node", Setup::default(), |bed| {
        let (owner, probe) = up(bed, &AgentConfig::new(VIP))?;
        let mark = probe.mark()?;
        let config = bed.nodes[owner].directory().join("agent.yaml");
        let mut second = agent::start_with(
            &bed.nodes[owner],
            &["run", "--config", &config.to_string_lossy()],
            "second.log",
        )?;
        refused(&mut second, &bed.nodes[owner].state_dir().to_string_lossy())?;
        probe.steady(Duration::from_secs(2), SETTLED_WITHIN)?;
        let report = probe.since(mark)?;
        never_two(&report)?;
        ensure!(
            report.outages().next().is_none(),
            "the first one was disturbed: {report:#?}"
        );
        ensure!(bed.owner_of(VIP)? == Some(owner));
        Ok(())
    })
}

#[test]
fn a_second_node_of_the_same_name_is_refused() -> Result<()> {
    scenario("second node of a name", Setup::default(), |bed| {
        let config = AgentConfig::new(VIP);
        bed.start_agent(0, &config)?;
        bed.settled(VIP, &[0], SETTLED_WITHIN)?;
        bed.start_agent(
            1,
            &AgentConfig {
                node: Some("n1".to_owned()),
                ..config
            },
        )?;
        refused(bed.agent(1)?, "n1")?;
        ensure!(bed.owner_of(VIP)? == Some(0));
        ensure!(
            bed.nodes[1].pins()?.is_empty() && !bed.nodes[1].has_address(VIP)?,
            "the refused one left something behind"
        );
        Ok(())
    })
}

/// Plays an interruption of the owner's agent, up to its being started again, that a restart within the TTL must hide from everybody.
fn goes_on(
    what: &str,
    interrupt: impl FnOnce(&mut Bed, usize, &AgentConfig) -> Result<()>,
) -> Result<()> {
    scenario(what, Setup::default(), |bed| {
        let config = AgentConfig {
            ttl: format!("{}s", TTL.as_secs()),
            ..AgentConfig::of_both_families()
        };
        let (owner, probe) = up(bed, &config)?;
        let before = epochs(bed, owner)?;
        let mark = probe.mark()?;
        interrupt(bed, owner, &config)?;
        for vip in BOTH {
            bed.settled(vip, &[0, 1, 2], SETTLED_WITHIN)?;
        }
        // Past the old lease's end, had nobody taken it up.
        probe.steady(TTL + STEADY, SETTLED_WITHIN)?;
        unnoticed(what, &probe, mark)?;
        ensure!(
            bed.owner_of(VIP)? == Some(owner) && bed.owner_of(VIP6)? == Some(owner),
            "the shared IP changed hands"
        );
        // A gate found open is adopted as it is; the same owner key, hence the same epoch.
        ensure!(epochs(bed, owner)? == before, "the owner key changed");
        Ok(())
    })
}

fn hold(bed: &mut Bed, owner: usize) -> Result<()> {
    let status = bed.hold_agent(owner)?;
    ensure!(status.success(), "the agent on hold ended with {status}");
    ensure!(
        bed.nodes[owner].has_address(VIP)?
            && bed.nodes[owner].has_address(VIP6)?
            && !bed.nodes[owner].pins()?.is_empty(),
        "hold must leave address and pins"
    );
    Ok(())
}

fn refused(process: &mut Process, names: &str) -> Result<()> {
    let status = process.wait(SETTLED_WITHIN)?;
    let log = process.log_text()?;
    ensure!(
        status.code() == Some(1),
        "ended with {status} instead of exit code 1; its log: {log}"
    );
    ensure!(log.contains(names), "the log does not name {names}: {log}");
    ensure!(!log.contains("panicked"), "{log}");
    Ok(())
}
