//! A node is taken out for maintenance, and what is refused to who asks for the impossible.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use vip_tests::agent::AgentConfig;
use vip_tests::bed::{BOTH, Bed, Setup, VIP, scenario};
use vip_tests::failover::{SETTLED_WITHIN, STEADY, never_two, unnoticed};
use vip_tests::probe::Probe;
use vip_tests::{say, wait};

const ALL: [usize; 3] = [0, 1, 2];
const COUNT: u8 = 12;
/// Beyond the lease of whoever went.
const LONG_ENOUGH: Duration = Duration::from_secs(4);
/// What a handover may cost a client, on a busy machine.
const HANDOVER: Duration = Duration::from_millis(300);

#[test]
fn a_drain_moves_all_away_and_keeps_the_node_from_claiming_until_it_is_undone() -> Result<()> {
    scenario("drain", Setup::default(), |bed| {
        let (config, probe) = n1_has_all(bed)?;
        let mark = probe.mark()?;
        let answer = bed.drain(0)?;
        let told = answer.text();
        answer.good()?;
        // By the time that it returns.
        let owners = bed.cluster.owners()?;
        ensure!(
            owners.len() == config.vips.len() && owners.values().all(|owner| owner != "n1"),
            "`drain --wait` returned, and n1 is an owner: {owners:?}"
        );
        let spread = bed.spread(&owners);
        say::line(&format!(
            "measured: drain of {COUNT}: spread {spread:?} afterwards; it said: {told}",
        ));
        ensure!(spread[1].abs_diff(spread[2]) <= 1, "{spread:?}");
        ensure!(told.contains("left"), "no progress is told: {told}");
        probe.steady(STEADY, SETTLED_WITHIN)?;
        let report = probe.decided_since(mark)?;
        never_two(&report)?;
        ensure!(report.longest_outage() <= HANDOVER, "{report:#?}");
        is_drained(bed, true)?;

        // A drained node that is started anew is drained, however it ended.
        bed.stop_agent(0)?;
        bed.start_agent(0, &config)?;
        is_drained(bed, true)?;
        bed.kill_agent(0)?;
        bed.start_agent(0, &config)?;
        is_drained(bed, true)?;
        bed.cut_power(0)?;
        probe.steady(LONG_ENOUGH, SETTLED_WITHIN)?;
        bed.restore_power(0, &config)?;
        is_drained(bed, true)?;

        // It claims nothing, even where only it is left to.
        for index in [1, 2] {
            bed.kill_agent(index)?;
        }
        wait::until_true("all leases to end", SETTLED_WITHIN, || {
            Ok(bed.cluster.owners()?.is_empty())
        })?;
        wait::holds("nobody owns anything", LONG_ENOUGH / 2, || {
            Ok(bed.cluster.owners()?.is_empty())
        })?;
        bed.undrain(0)?.good()?;
        bed.all_owned(&config.vips, SETTLED_WITHIN)?;
        is_drained(bed, false)?;
        probe.steady(STEADY, SETTLED_WITHIN)?;
        never_two(&probe.finish()?)
    })
}

#[test]
fn a_drain_of_another_node_may_be_asked_for_anywhere() -> Result<()> {
    scenario("drain from afar", Setup::default(), |bed| {
        let (config, probe) = n1_has_all(bed)?;
        bed.type_at(2, &["drain", "--node", "n1", "--wait"])?
            .good()?;
        let owners = bed.cluster.owners()?;
        ensure!(owners.values().all(|owner| owner != "n1"), "{owners:?}");
        is_drained(bed, true)?;
        bed.type_at(1, &["undrain", "--node", "n1"])?.good()?;
        is_drained(bed, false)?;
        // Also of a node whose agent does not run: it is found drained when it starts.
        bed.stop_agent(0)?;
        bed.type_at(1, &["drain", "--node", "n1"])?.good()?;
        bed.start_agent(0, &config)?;
        is_drained(bed, true)?;
        never_two(&probe.finish()?)
    })
}

#[test]
fn a_drain_of_the_last_node_says_so_and_changes_nothing_unless_forced() -> Result<()> {
    scenario("drain of the last", Setup::default(), |bed| {
        let config = AgentConfig::of_both_families();
        bed.start_agent(0, &config)?;
        bed.all_owned(&BOTH, SETTLED_WITHIN)?;
        let probe = bed.probe(&BOTH)?;
        probe.steady(STEADY, SETTLED_WITHIN)?;

        // Nobody else is in at all.
        let mark = probe.mark()?;
        changes_nothing(bed, &[&VIP.to_string(), "no other member"])?;
        // There are others, and they are drained.
        for index in [1, 2] {
            bed.start_agent(index, &config)?;
            bed.settled(VIP, &[0, index], SETTLED_WITHIN)?;
            bed.type_at(index, &["drain"])?.good()?;
        }
        changes_nothing(bed, &[&VIP.to_string(), "n2", "n3", "drained"])?;
        unnoticed("a drain of the last node", &probe, mark)?;
        // So it claims again what it lost.
        bed.kill_agent(0)?;
        wait::until_true("its lease to end", SETTLED_WITHIN, || {
            Ok(bed.cluster.owners()?.is_empty())
        })?;
        bed.start_agent(0, &config)?;
        bed.all_owned(&BOTH, SETTLED_WITHIN)?;

        let answer = bed.type_at(0, &["drain", "--wait", "--force"])?;
        say::line(&format!("drain --force said: {}", answer.text()));
        answer.good()?;
        wait::until_true("nobody to own it", SETTLED_WITHIN, || {
            Ok(bed.cluster.owners()?.is_empty())
        })?;
        for vip in BOTH {
            ensure!(!bed.nodes[0].has_address(vip)?, "n1 kept {vip}");
        }
        bed.undrain(1)?.good()?;
        bed.owned_by(VIP, 1, SETTLED_WITHIN)?;
        keeps_what_became_its_alone(bed)?;
        never_two(&probe.finish()?)
    })
}

#[test]
fn a_transfer_that_cannot_be_is_refused_with_the_reason_and_changes_nothing() -> Result<()> {
    let setup = Setup {
        mgmt: true,
        ..Setup::default()
    };
    scenario("transfers refused", setup, |bed| {
        let (_, probe) = n1_has_all(bed)?;
        let mark = probe.mark()?;
        let epochs = epochs(bed)?;
        let refused = |bed: &Bed, what: &str, arguments: &[&str], words: &[&str]| -> Result<()> {
            // Asked of the owner, and of another.
            for at in [0, 1] {
                let answer = bed.type_at(at, arguments)?;
                say::line(&format!(
                    "transfer, {what}, at n{}: {}",
                    at + 1,
                    answer.text()
                ));
                answer.refused(words).with_context(|| what.to_owned())?;
            }
            Ok(())
        };
        let to = |node: &'static str| ["transfer", "10.77.0.100", "--to", node];
        refused(bed, "to a node that there is not", &to("n9"), &["n9"])?;
        let none = ["transfer", "10.77.0.99", "--to", "n2"];
        refused(
            bed,
            "of an address that is not shared",
            &none,
            &["10.77.0.99"],
        )?;
        bed.type_at(2, &["drain"])?.good()?;
        is_drained_node(bed, 2, true)?;
        refused(bed, "to a drained node", &to("n3"), &["n3", "drained"])?;
        bed.undrain(2)?.good()?;
        is_drained_node(bed, 2, false)?;
        bed.pull_cable(2)?;
        wait::until_true("n3 to be known as unfit", SETTLED_WITHIN, || {
            let members = bed.members(0)?;
            let mut members = members.as_array().into_iter().flatten();
            let n3 = members.find(|member| member["node"] == "n3");
            Ok(n3.context("n3 is no member")?["fit_for"] == 0)
        })?;
        refused(bed, "to an unfit node", &to("n3"), &["n3", "eth0"])?;
        ensure!(self::epochs(bed)? == epochs, "owner keys were written");
        unnoticed("refused transfers", &probe, mark)?;

        // To whom it is already: nothing to do, and that is no failure.
        let answer = bed.transfer(1, VIP, 0)?;
        say::line(&format!("transfer to the owner: {}", answer.text()));
        answer.good()?;
        ensure!(self::epochs(bed)? == epochs, "owner keys were written");
        Ok(())
    })
}

/// Has the drain of n1 refused, with a reason of these words, and everything left as it was.
fn changes_nothing(bed: &Bed, words: &[&str]) -> Result<()> {
    let before = epochs(bed)?;
    let (wait, plain) = (&["drain", "--wait"][..], &["drain"][..]);
    for arguments in [wait, plain] {
        let answer = bed.type_at(0, arguments)?;
        say::line(&format!("drain of the last node said: {}", answer.text()));
        answer.refused(words)?;
        let answer = bed.type_at(0, &[arguments, &["--json"]].concat())?;
        ensure!(kind(&answer.out)? == "nobody-else", "{answer:?}");
        let drained = bed.cluster.keys("/vip-agent/drained/n1")?;
        ensure!(drained.is_empty(), "n1 is drained: {drained:?}");
    }
    ensure!(epochs(bed)? == before, "owner keys were written");
    is_drained_node(bed, 0, false)
}

/// Of n2 and n1 the second is gone by the time that n2, which has the shared IP, is to be drained of it.
fn keeps_what_became_its_alone(bed: &mut Bed) -> Result<()> {
    bed.undrain(0)?.good()?;
    bed.settled(VIP, &[0, 1], SETTLED_WITHIN)?;
    wait::until_true("n1 to be known as fit", SETTLED_WITHIN, || {
        let members = bed.members(1)?;
        let mut members = members.as_array().into_iter().flatten();
        Ok(members.any(|member| member["node"] == "n1" && member["fit_for"] == 2))
    })?;
    bed.freeze_agent(0)?;
    let answer = bed.type_at(1, &["drain", "--wait", "--json"])?;
    say::line(&format!("drain that nobody took up: {answer:?}"));
    ensure!(
        answer.code == Some(1) && kind(&answer.out)? == "stuck",
        "{answer:?}"
    );
    ensure!(bed.owner_of(VIP)? == Some(1), "n2 has lost it");
    is_drained_node(bed, 1, true)?;
    // And it goes as soon as somebody is there.
    bed.thaw_agent(0)?;
    bed.owned_by(VIP, 0, SETTLED_WITHIN)
}

fn kind(document: &str) -> Result<String> {
    let document: serde_json::Value = serde_json::from_str(document)?;
    let kind = document
        .pointer("/error/kind")
        .and_then(|kind| kind.as_str());
    Ok(kind.context("it names no kind")?.to_owned())
}

/// Starts n1's agent alone, which takes up everything, then the others, and a probe for two of them.
fn n1_has_all(bed: &mut Bed) -> Result<(AgentConfig, Probe)> {
    let vips: Vec<IpAddr> = (100..100 + COUNT)
        .map(|host| Ipv4Addr::new(10, 77, 0, host).into())
        .collect();
    let config = AgentConfig::new(VIP).with_vips(&vips);
    bed.start_agent(0, &config)?;
    bed.all_owned(&vips, SETTLED_WITHIN)?;
    for index in [1, 2] {
        bed.start_agent(index, &config)?;
    }
    bed.settled(VIP, &ALL, SETTLED_WITHIN)?;
    let probe = bed.probe(&vips[..2])?;
    probe.steady(STEADY, SETTLED_WITHIN)?;
    Ok((config, probe))
}

fn epochs(bed: &Bed) -> Result<Vec<i64>> {
    let vips = bed.cluster.owners()?.into_keys();
    vips.map(|vip| bed.cluster.owner_revision(vip)).collect()
}

/// Waits until all running agents know whether n1 is drained, and checks that a drained n1 owns nothing.
fn is_drained(bed: &Bed, drained: bool) -> Result<()> {
    is_drained_node(bed, 0, drained)?;
    if drained {
        let owners = bed.cluster.owners()?;
        ensure!(owners.values().all(|owner| owner != "n1"), "{owners:?}");
    }
    Ok(())
}

fn is_drained_node(bed: &Bed, index: usize, drained: bool) -> Result<()> {
    let name = bed.nodes[index].name();
    let what = format!("{name} to be in, and drained: {drained}");
    wait::until_true(&what, SETTLED_WITHIN, || {
        let members = bed.members(index)?;
        let members = members.as_array().context("members are a list")?;
        let found = members
            .iter()
            .find(|member| member.get("node").and_then(|node| node.as_str()) == Some(name));
        let member = found.with_context(|| format!("{name} is no member: {members:?}"))?;
        Ok(member.get("drained").and_then(|drained| drained.as_bool()) == Some(drained))
    })
}
