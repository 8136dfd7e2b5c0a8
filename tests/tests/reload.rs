//! Another configuration for agents that run.

use std::fs;
use std::net::IpAddr;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use vip_tests::agent::AgentConfig;
use vip_tests::bed::{BOTH, Bed, Setup, VIP, scenario};
use vip_tests::failover::{SETTLED_WITHIN, epochs, never_two, unnoticed, up};
use vip_tests::{gate, wait};

const ALL: [usize; 3] = [0, 1, 2];
const MORE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 77, 0, 101));

#[test]
fn shared_ips_come_and_go_and_the_others_are_not_touched() -> Result<()> {
    scenario("reload", Setup::default(), |bed| {
        let config = AgentConfig::of_both_families();
        let (owner, probe) = up(bed, &config)?;
        let (mark, before) = (probe.mark()?, epochs(bed, owner)?);

        let more = config.clone().with_vips(&[VIP, BOTH[1], MORE]);
        for index in ALL {
            let said = reload(bed, index, &more)?;
            ensure!(said == "taken up: added 10.77.0.101\n", "{said}");
        }
        let owner_of_more = bed.settled(MORE, &ALL, SETTLED_WITHIN)?;
        ensure!(bed.nodes[owner_of_more].has_address(MORE)?);

        // It is handed on to who has it still, and gone where it is configured no longer.
        let said = reload(bed, owner_of_more, &config)?;
        ensure!(said == "taken up: removed 10.77.0.101\n", "{said}");
        let next = wait::until("another owner of it", SETTLED_WITHIN, || {
            let mut owners = ALL.into_iter().filter(|index| *index != owner_of_more);
            let owns = |index: &usize| {
                bed.status(*index)?
                    .vip(MORE)
                    .map(|vip| vip.role() == "owner")
            };
            Ok(owners.find(|index| owns(index).unwrap_or(false)))
        })?;
        forgotten(bed, owner_of_more, MORE)?;

        for index in ALL {
            reload(bed, index, &config)?;
        }
        for index in ALL {
            forgotten(bed, index, MORE)?;
        }
        let keys = bed.cluster.keys("/vip-agent/owners/")?;
        ensure!(keys.len() == 2, "{keys:?}");
        ensure!(next != owner_of_more);

        // And once more: nothing of the first time is in its way.
        for index in ALL {
            reload(bed, index, &more)?;
        }
        bed.settled(MORE, &ALL, SETTLED_WITHIN)?;

        ensure!(epochs(bed, owner)? == before, "the others changed hands");
        unnoticed("reloads", &probe, mark)?;
        never_two(&probe.finish()?)
    })
}

#[test]
fn an_interface_comes_and_goes() -> Result<()> {
    let setup = Setup {
        nodes: 1,
        two_cables: true,
        ..Setup::default()
    };
    scenario("reload of interfaces", setup, |bed| {
        let config = AgentConfig::of_both_families();
        let (_, probe) = up(bed, &config)?;
        let mark = probe.mark()?;
        ensure!(bed.status(0)?.interface("eth2").is_err());
        let mut more = config.clone();
        more.other_interfaces.push(("eth2".to_owned(), vec![MORE]));
        for _ in 0..2 {
            reload(bed, 0, &more)?;
            bed.settled(MORE, &[0], SETTLED_WITHIN)?;
            let eth2 = bed.status(0)?.interface("eth2")?;
            ensure!(eth2["fenced"] == true, "{eth2}");
            reload(bed, 0, &config)?;
            forgotten(bed, 0, MORE)?;
            wait::until_true("the interface to be guarded again", SETTLED_WITHIN, || {
                let eth0 = bed.status(0)?.interface("eth0")?;
                Ok(bed.status(0)?.interface("eth2").is_err()
                    && eth0["guards"].to_string().contains("eth2"))
            })?;
        }
        unnoticed("reloads of another interface", &probe, mark)?;
        never_two(&probe.finish()?)
    })
}

#[test]
fn a_bad_new_configuration_is_refused_and_the_old_one_goes_on() -> Result<()> {
    let setup = Setup {
        nodes: 1,
        ..Setup::default()
    };
    scenario("reload of what is bad", setup, |bed| {
        let config = AgentConfig::of_both_families();
        let (owner, probe) = up(bed, &config)?;
        let (mark, before) = (probe.mark()?, epochs(bed, owner)?);
        let file = config.write(&bed.nodes[0], &bed.cluster)?;
        let good = fs::read_to_string(&file)?;
        for (bad, says) in [
            (
                good.replace("interfaces:", "interfaecs:"),
                "unknown key `interfaecs`",
            ),
            (
                good.replace("ttl: 2s", "ttl: 5s"),
                "only a restart can change lease.ttl",
            ),
            (
                good.replace("node: n1", "node: n9").replace("auto", "tc"),
                "only a restart can change node; dataplane of interface eth0",
            ),
            (
                good.replace("fd77::1000", "fd77::1"),
                "vip fd77::1 is the interface's own address",
            ),
            (String::new(), "etcd.endpoints: there is none"),
            (
                format!("{good}hooks: {{ conflict: [/nowhere/at-all] }}\n"),
                "hooks.conflict `/nowhere/at-all`",
            ),
        ] {
            fs::write(&file, bad)?;
            bed.type_at(0, &["reload"])?.refused(&[says])?;
            let log = bed.agent_log(0)?;
            let told = |line: &str| {
                line.contains("ERROR")
                    && line.contains("the old one goes on")
                    && line.contains(says)
            };
            ensure!(log.lines().any(told), "{log}");
        }
        // A good one is taken up all the same, also at a signal.
        fs::write(&file, format!("{good}preempt: 30s\n"))?;
        bed.agent(0)?.signal(Signal::SIGHUP)?;
        wait::until_true("the log to say that it is taken up", SETTLED_WITHIN, || {
            let log = bed.agent_log(0)?;
            let told =
                |line: &str| line.contains("configured anew changes=changed what is said of all");
            Ok(log.lines().any(told))
        })?;
        ensure!(epochs(bed, owner)? == before);
        unnoticed("reloads of what is bad", &probe, mark)?;
        never_two(&probe.finish()?)
    })
}

/// Has the agent take up another configuration; returns what it says of that.
fn reload(bed: &Bed, index: usize, config: &AgentConfig) -> Result<String> {
    config.write(&bed.nodes[index], &bed.cluster)?;
    bed.type_at(index, &["reload"])?.good()
}

/// Nothing is left of a shared IP on a node: no address, no gate, no word in the status.
fn forgotten(bed: &Bed, index: usize, vip: IpAddr) -> Result<()> {
    let name = bed.nodes[index].name();
    wait::until_true(&format!("{name} to forget {vip}"), SETTLED_WITHIN, || {
        let node = &bed.nodes[index];
        Ok(bed.status(index)?.vip(vip).is_err()
            && !node.has_address(vip)?
            && !gate::gates(node)?.contains(&vip))
    })?;
    // Those that are left have theirs.
    let gates = gate::gates(&bed.nodes[index])?;
    ensure!(BOTH.iter().all(|vip| gates.contains(vip)), "{gates:?}");
    Ok(())
}
