//! The host around an agent: what others do to address, interface, programs, pins and disk behind its back.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::net::if_::if_nametoindex;
use serde_json::Value;
use vip_tests::agent::{self, AgentConfig};
use vip_tests::bed::{Bed, Setup, VIP, scenario};
use vip_tests::failover::{SETTLED_WITHIN, STEADY, calm, fail_over, never_two, up};
use vip_tests::probe::{Probe, Report};
use vip_tests::wall_clock::{self, WallClock};
use vip_tests::xdp_pass::XdpPass;
use vip_tests::{say, undo, wait};

/// etcd has a network of its own, so that what is done to `eth0` is done to the shared IP alone.
const SETUP: Setup = Setup {
    nodes: 3,
    mgmt: true,
    two_cables: false,
    security: vip_tests::etcd::Security::Open,
    etcd: true,
};
/// What is put back at once may cost a client this, on a busy machine.
const MOMENT: Duration = Duration::from_secs(2);

#[test]
fn an_address_that_somebody_deletes_is_put_back() -> Result<()> {
    scenario("address deleted", SETUP, |bed| {
        let (owner, probe) = up(bed, &AgentConfig::new(VIP))?;
        let epoch = bed.status(owner)?.vip(VIP)?.epoch();
        let mark = probe.mark()?;
        for _ in 0..3 {
            bed.delete_address(owner, VIP)?;
            wait::until_true("the address to be back", SETTLED_WITHIN, || {
                bed.nodes[owner].has_address(VIP)
            })?;
            probe.steady(STEADY, SETTLED_WITHIN)?;
        }
        undisturbed(bed, owner, epoch, "address deleted", &probe.since(mark)?)?;
        ensure!(
            bed.status(owner)?.vip(VIP)?.0["address"] == true,
            "status does not see the address"
        );
        let log = bed.agent(owner)?.log_text()?;
        let complaints = log
            .lines()
            .filter(|line| line.contains("WARN") && line.contains("its address was taken off"));
        let complaints: Vec<&str> = complaints.collect();
        let [complaint] = complaints[..] else {
            anyhow::bail!("said {} times instead of once: {log}", complaints.len());
        };
        ensure!(
            complaint.contains(&VIP.to_string()) && complaint.contains("process"),
            "{complaint}"
        );
        Ok(())
    })
}

#[test]
fn a_link_that_goes_down_hands_over_and_comes_back_as_a_follower() -> Result<()> {
    scenario("link down", SETUP, |bed| {
        let (owner, probe) = up(bed, &AgentConfig::new(VIP))?;
        let failover = fail_over(bed, &probe, owner, |bed| {
            bed.nodes[owner]
                .netns()
                .ip(&["link", "set", "eth0", "down"])
                .map(drop)
        })?;
        say::measured("link down outage", failover.report.longest_outage(), MOMENT);
        never_two(&failover.report)?;
        given_up(bed, owner, "eth0: it is down")?;
        bed.nodes[owner]
            .netns()
            .ip(&["link", "set", "eth0", "up"])?;
        fit_again(bed, owner)?;
        calm(bed, &probe, &failover)?;
        Ok(())
    })
}

#[test]
fn a_link_that_is_renamed_is_given_up_behind_its_gate_and_taken_up_again() -> Result<()> {
    scenario("link renamed", SETUP, |bed| {
        let (owner, probe) = up(bed, &AgentConfig::new(VIP))?;
        let failover = fail_over(bed, &probe, owner, |bed| rename(bed, owner, "eth0", "x"))?;
        say::measured("rename outage", failover.report.longest_outage(), MOMENT);
        never_two(&failover.report)?;
        given_up(bed, owner, "interface eth0: it is called x now")?;
        let node = &bed.nodes[owner];
        let link = node.netns().ip(&["-d", "link", "show", "x"])?;
        ensure!(link.contains("xdp"), "x lost its program: {link}");
        let interface = bed.status(owner)?.interface("eth0")?;
        ensure!(interface["fenced"] == true, "{interface}");

        rename(bed, owner, "x", "eth0")?;
        fit_again(bed, owner)?;
        calm(bed, &probe, &failover)?;
        serves_alone(bed, owner, &probe)
    })
}

#[test]
fn a_link_that_is_deleted_and_made_anew_serves_again() -> Result<()> {
    scenario("link deleted and made anew", SETUP, |bed| {
        let (owner, probe) = up(bed, &AgentConfig::new(VIP))?;
        let before = bed.status(owner)?.interface("eth0")?["ifindex"].clone();
        let failover = fail_over(bed, &probe, owner, |bed| {
            bed.nodes[owner].delete_interface("eth0")
        })?;
        say::measured(
            "deleted link outage",
            failover.report.longest_outage(),
            MOMENT,
        );
        never_two(&failover.report)?;
        given_up(bed, owner, "eth0: there is none of that name")?;

        let Bed { nodes, switch, .. } = bed;
        nodes[owner].make_interface_anew(switch, "eth0")?;
        fit_again(bed, owner)?;
        let interface = bed.status(owner)?.interface("eth0")?;
        ensure!(
            interface["ifindex"] != before && interface["fenced"] == true,
            "{interface}"
        );
        calm(bed, &probe, &failover)?;
        serves_alone(bed, owner, &probe)
    })
}

#[test]
fn an_owner_with_a_new_mac_answers_announces_and_records_that_one() -> Result<()> {
    const MAC: &str = "02:76:69:aa:bb:cc";
    scenario("new MAC", SETUP, |bed| {
        let (owner, probe) = up(bed, &AgentConfig::new(VIP))?;
        let mark = probe.mark()?;
        let neighbour = |bed: &Bed| bed.client.ip(&["neigh", "show", &VIP.to_string()]);
        bed.nodes[owner]
            .netns()
            .ip(&["link", "set", "eth0", "address", MAC])?;
        wait::until_true("the announcement to reach the client", MOMENT * 5, || {
            Ok(neighbour(bed)?.contains(MAC))
        })?;
        wait::until_true("the owner record to say it", SETTLED_WITHIN, || {
            let keys = bed.cluster.keys("/vip-agent/owners/")?;
            Ok(keys.iter().any(|(_, value)| value.contains(MAC)))
        })?;
        bed.client.ip(&["neigh", "flush", "dev", "eth0"])?;
        wait::until_true("the gate to answer with it", SETTLED_WITHIN, || {
            Ok(neighbour(bed)?.contains(MAC))
        })?;
        probe.steady(STEADY, SETTLED_WITHIN)?;
        let outage = probe.since(mark)?.longest_outage();
        say::measured("new MAC outage", outage, MOMENT);
        ensure!(
            bed.owner_of(VIP)? == Some(owner),
            "the shared IP changed hands"
        );
        let interface = bed.status(owner)?.interface("eth0")?;
        ensure!(interface["mac"] == MAC, "{interface}");
        Ok(())
    })
}

#[test]
fn pins_that_somebody_removes_are_made_again() -> Result<()> {
    scenario("pins removed", SETUP, |bed| {
        let config = AgentConfig::new(VIP);
        let (owner, probe) = up(bed, &config)?;
        let epoch = bed.status(owner)?.vip(VIP)?.epoch();
        let mark = probe.mark()?;
        let mut pins = undo::remove_pins(&bed.nodes[owner])?;
        pins.sort();
        wait::until_true("the pins to be back", SETTLED_WITHIN, || {
            let mut now = bed.nodes[owner].pins()?;
            now.sort();
            Ok(now == pins)
        })?;
        let log = bed.agent(owner)?.log_text()?;
        ensure!(log.contains("pins were removed"), "{log}");
        // They are what they were: a start finds the open gate through them, and goes on.
        bed.kill_agent(owner)?;
        bed.start_agent(owner, &config)?;
        bed.settled(VIP, &[0, 1, 2], SETTLED_WITHIN)?;
        probe.steady(4 * STEADY, SETTLED_WITHIN)?;
        undisturbed(bed, owner, epoch, "pins removed", &probe.since(mark)?)
    })
}

#[test]
fn a_program_that_somebody_detaches_is_attached_again_and_guards_as_before() -> Result<()> {
    scenario("programs detached", SETUP, |bed| {
        let (owner, probe) = up(bed, &AgentConfig::new(VIP))?;
        bed.cluster.lead_elsewhere(owner)?;
        let epoch = bed.status(owner)?.vip(VIP)?.epoch();
        let mark = probe.mark()?;
        let attached = |bed: &Bed| {
            let link = bed.nodes[owner]
                .netns()
                .ip(&["-d", "link", "show", "eth0"])?;
            anyhow::Ok(link.contains("xdp"))
        };
        for hook in ["-xdp-native", "-egress", "-guard"] {
            undo::detach(&bed.nodes[owner], hook)?;
            let said = format!("{hook}\"");
            wait::until_true("the detachment to be noticed", SETTLED_WITHIN, || {
                let log = bed.agent(owner)?.log_text()?;
                let noticed =
                    |line: &str| line.contains("a program was detached") && line.contains(&said);
                Ok(log.lines().any(noticed))
            })?;
            wait::until_true("it to be attached again", SETTLED_WITHIN, || {
                let pins = bed.nodes[owner].pins()?;
                Ok(pins.iter().any(|pin| pin.ends_with(hook)) && attached(bed)?)
            })?;
        }
        probe.steady(STEADY, SETTLED_WITHIN)?;
        undisturbed(bed, owner, epoch, "programs detached", &probe.since(mark)?)?;
        // A frozen owner without a fence would answer beside the next.
        let failover = fail_over(bed, &probe, owner, |bed| bed.freeze_agent(owner))?;
        never_two(&failover.report)?;
        bed.thaw_agent(owner)?;
        calm(bed, &probe, &failover)?;
        Ok(())
    })
}

#[test]
fn a_program_that_takes_the_place_of_ours_sends_the_owner_down_to_tc() -> Result<()> {
    scenario("another program in our place", SETUP, |bed| {
        let (owner, probe) = up(bed, &AgentConfig::new(VIP))?;
        bed.cluster.lead_elsewhere(owner)?;
        let epoch = bed.status(owner)?.vip(VIP)?.epoch();
        let mark = probe.mark()?;
        let pin = take_the_hook(bed, owner)?;
        wait::until_true("the same verdicts in TC", SETTLED_WITHIN, || {
            let interface = bed.status(owner)?.interface("eth0")?;
            Ok(interface.get("dataplane").and_then(Value::as_str) == Some("tc"))
        })?;
        probe.steady(STEADY, SETTLED_WITHIN)?;
        let report = probe.since(mark)?;
        undisturbed(bed, owner, epoch, "another program", &report)?;
        // A frozen owner without them would answer beside the next.
        let failover = fail_over(bed, &probe, owner, |bed| bed.freeze_agent(owner))?;
        never_two(&failover.report)?;
        bed.thaw_agent(owner)?;
        calm(bed, &probe, &failover)?;
        ensure!(pin.exists(), "the other program is not there any more");
        Ok(())
    })
}

#[test]
fn a_program_that_takes_the_place_of_ours_makes_the_owner_give_up_where_nothing_else_will_do()
-> Result<()> {
    scenario("another program in our only place", SETUP, |bed| {
        let config = AgentConfig {
            dataplane: "native".to_owned(),
            ..AgentConfig::new(VIP)
        };
        let (owner, probe) = up(bed, &config)?;
        let mut pin = None;
        let failover = fail_over(bed, &probe, owner, |bed| {
            pin = Some(take_the_hook(bed, owner)?);
            Ok(())
        })?;
        say::measured(
            "another program outage",
            failover.report.longest_outage(),
            MOMENT,
        );
        never_two(&failover.report)?;
        given_up(bed, owner, "eth0: another XDP program is attached")?;
        std::fs::remove_file(pin.context("it was taken")?)?;
        fit_again(bed, owner)?;
        calm(bed, &probe, &failover)?;
        Ok(())
    })
}

#[test]
fn a_full_disk_costs_no_service_and_is_told_with_the_mend() -> Result<()> {
    let alone = Setup { nodes: 1, ..SETUP };
    scenario("state directory full", alone, |bed| {
        let config = AgentConfig::new(VIP);
        undo::put_state_on_a_small_disk(&bed.nodes[0])?;
        let state = bed.nodes[0].state_dir();
        let ballast = undo::fill(&state)?;
        bed.start_agent(0, &config)?;
        let ended = bed.agent(0)?.wait(SETTLED_WITHIN)?;
        let log = bed.agent(0)?.log_text()?;
        ensure!(ended.code() == Some(1), "{log}");
        ensure!(
            log.contains(&format!("{}/instance: No space left", state.display()))
                && log.contains("free some space"),
            "{log}"
        );

        std::fs::remove_file(&ballast)?;
        let (_, probe) = up(bed, &config)?;
        // The room of the old lease is not to become free for the new one.
        std::fs::hard_link(state.join("lease"), state.join("old"))?;
        let ballast = undo::fill(&state)?;
        // A lease that was slept through is followed by a new one, which cannot be kept.
        bed.freeze_agent(0)?;
        wait::until_true("the lease to end", SETTLED_WITHIN, || {
            Ok(bed.cluster.keys("/vip-agent/members/")?.is_empty())
        })?;
        bed.thaw_agent(0)?;
        bed.settled(VIP, &[0], SETTLED_WITHIN)?;
        probe.steady(STEADY, SETTLED_WITHIN)?;
        let warning = bed.status(0)?.text("/warnings/0").to_owned();
        ensure!(
            warning.contains(&format!("{}/lease: No space left", state.display()))
                && warning.contains("free some space"),
            "{warning}"
        );
        let log = bed.agent(0)?.log_text()?;
        ensure!(
            log.lines()
                .any(|line| line.contains("WARN") && line.contains(&warning)),
            "{log}"
        );
        std::fs::remove_file(&ballast)?;
        wait::until_true("the lease to be kept after all", SETTLED_WITHIN, || {
            Ok(bed.status(0)?.text("/warnings/0").is_empty() && state.join("lease").exists())
        })
    })
}

#[test]
fn an_interface_without_an_address_of_its_own_does_not_answer_either() -> Result<()> {
    let two_cables = Setup {
        two_cables: true,
        ..SETUP
    };
    scenario("second cable without an address", two_cables, |bed| {
        let netns = bed.nodes[0].netns();
        netns.ip(&["address", "flush", "dev", "eth2"])?;
        bed.start_agent(0, &AgentConfig::new(VIP))?;
        bed.settled(VIP, &[0], SETTLED_WITHIN)?;
        let probe = bed.probe(&[VIP])?;
        probe.steady(STEADY, SETTLED_WITHIN)?;
        let report = probe.finish()?;
        let macs = report.of_vip(VIP)?.look_up_by_two_macs;
        ensure!(macs == 0, "eth2 answered: {report:#?}");
        let guards = bed.status(0)?.interface("eth0")?["guards"].clone();
        ensure!(guards.to_string().contains("eth2"), "{guards}");
        Ok(())
    })
}

#[test]
fn cleanup_after_an_agent_without_gates_takes_its_address_off_and_refuses_before() -> Result<()> {
    let alone = Setup { nodes: 1, ..SETUP };
    scenario("cleanup without gates", alone, |bed| {
        let config = AgentConfig {
            dataplane: "kernel".to_owned(),
            // So long that the address does not go by itself meanwhile.
            ttl: "15s".to_owned(),
            ..AgentConfig::new(VIP)
        };
        bed.start_agent(0, &config)?;
        // A shared IP that was found vacant is waited out.
        bed.settled(VIP, &[0], Duration::from_secs(15) + SETTLED_WITHIN)?;
        let file = bed.nodes[0].directory().join("agent.yaml");
        let file = file.to_string_lossy();
        let arguments = ["cleanup", "--config", &*file];
        let refused = agent::run(&bed.nodes[0], &arguments)?;
        let why = String::from_utf8_lossy(&refused.stderr).into_owned();
        ensure!(
            refused.status.code() == Some(1) && why.contains("another vip-agent"),
            "{why}"
        );
        ensure!(
            bed.nodes[0].has_address(VIP)?,
            "a refused cleanup cleaned up"
        );

        bed.kill_agent(0)?;
        ensure!(bed.nodes[0].has_address(VIP)?, "the scenario is void");
        let done = agent::run(&bed.nodes[0], &arguments)?;
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        ensure!(
            done.status.success() && said.contains(&format!("took {VIP} off eth0")),
            "{said}{}",
            String::from_utf8_lossy(&done.stderr)
        );
        ensure!(!bed.nodes[0].has_address(VIP)?, "the address is left");
        Ok(())
    })
}

#[test]
fn a_step_of_the_time_of_day_moves_nothing() -> Result<()> {
    scenario("time of day stepped", SETUP, |bed| {
        let clock = WallClock::build(bed.directory())?;
        let config = AgentConfig {
            environment: clock.environment(),
            ..AgentConfig::new(VIP)
        };
        let (owner, probe) = up(bed, &config)?;
        let epoch = bed.status(owner)?.vip(VIP)?.epoch();
        let mark = probe.mark()?;
        // Another name of a guarded interface is a line in the log; changed back at once it might be none.
        let renames = [("eth1", "y"), ("y", "eth1"), ("eth1", "y")];
        for (years, (from, to)) in [10, -10, 0].into_iter().zip(renames) {
            clock.step(years)?;
            probe.steady(3 * STEADY, SETTLED_WITHIN)?;
            // An agent that is asked to write something down dates it by the stepped clock, or the test is void.
            rename(bed, owner, from, to)?;
            let year = wall_clock::year()? + years;
            wait::until_true("a log line of that time", SETTLED_WITHIN, || {
                let log = bed.agent(owner)?.log_text()?;
                let last = log.lines().last().and_then(|line| line.get(..4));
                let dated: i64 = last.context("a log")?.parse()?;
                Ok((dated - year).abs() <= 1)
            })?;
        }
        undisturbed(
            bed,
            owner,
            epoch,
            "time of day stepped",
            &probe.since(mark)?,
        )
    })
}

fn rename(bed: &Bed, index: usize, from: &str, to: &str) -> Result<()> {
    let node = &bed.nodes[index];
    node.netns()
        .ip(&["link", "set", from, "name", to])
        .map(drop)
}

/// Checks that the shared IP stayed where it was, as it was, and that a client hardly noticed.
fn undisturbed(bed: &Bed, owner: usize, epoch: u64, what: &str, report: &Report) -> Result<()> {
    say::measured(&format!("{what} outage"), report.longest_outage(), MOMENT);
    never_two(report)?;
    ensure!(
        bed.owner_of(VIP)? == Some(owner) && bed.status(owner)?.vip(VIP)?.epoch() == epoch,
        "the shared IP changed hands"
    );
    ensure!(report.longest_outage() < MOMENT, "{report:#?}");
    Ok(())
}

/// Waits until a node that cannot serve says why, with its gate shut and the address off.
/// Detaches our XDP program and attaches another one, which stays for as long as its pin does.
fn take_the_hook(bed: &Bed, index: usize) -> Result<PathBuf> {
    let node = &bed.nodes[index];
    let pin = node.bpffs().join("another");
    undo::detach(node, "-xdp-native")?;
    let another = XdpPass::load()?;
    node.netns()
        .within(|| another.attach(if_nametoindex("eth0")?, &pin))?;
    Ok(pin)
}

fn given_up(bed: &Bed, index: usize, why: &str) -> Result<()> {
    wait::until_true(&format!("{why:?} in the status"), SETTLED_WITHIN, || {
        let status = bed.status(index)?;
        let vip = status.vip(VIP)?;
        Ok(status.waiting_for().contains(why)
            && vip.gate() == "closed"
            && vip.role() == "follower"
            && !bed.nodes[index].has_address(VIP)?)
    })
}

fn fit_again(bed: &Bed, index: usize) -> Result<()> {
    wait::until_true("the interface to serve again", SETTLED_WITHIN, || {
        let status = bed.status(index)?;
        Ok(status.waiting_for().is_empty() && status.vip(VIP)?.role() == "follower")
    })
}

/// Stops all others: the one that is left takes over and serves.
fn serves_alone(bed: &mut Bed, index: usize, probe: &Probe) -> Result<()> {
    let mark = probe.mark()?;
    for other in (0..bed.nodes.len()).filter(|other| *other != index) {
        let status = bed.stop_agent(other)?;
        ensure!(status.success(), "ended with {status}");
    }
    bed.settled(VIP, &[index], SETTLED_WITHIN)
        .context("after all others were stopped")?;
    probe.steady(STEADY, SETTLED_WITHIN)?;
    never_two(&probe.since(mark)?)
}
