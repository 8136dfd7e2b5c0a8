//! The shared IPs on interfaces as hosts have them: on a bridge, on a macvlan, on what a macvlan lies on.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pnet::util::MacAddr;
use vip_tests::addresses::Addresses;
use vip_tests::agent::AgentConfig;
use vip_tests::bed::{BOTH, Bed, Setup, scenario};
use vip_tests::failover::{SETTLED_WITHIN, STEADY, calm, fail_over, never_two, up};
use vip_tests::netns::Netns;
use vip_tests::{say, wait};

const ALL: [usize; 3] = [0, 1, 2];
/// Its own network for etcd, which a node's LAN interface is taken apart beside.
const ETCD_ELSEWHERE: Setup = Setup {
    nodes: 3,
    mgmt: true,
    two_cables: false,
    security: vip_tests::etcd::Security::Open,
    etcd: true,
};
const MACVLAN: MacAddr = MacAddr(2, 0x76, 0x69, 77, 0, 51);

#[test]
fn a_bridge_serves_and_its_port_is_refused_by_name() -> Result<()> {
    scenario("on a bridge", ETCD_ELSEWHERE, |bed| {
        make_bridge(bed, 0)?;
        bed.start_agent(0, &AgentConfig::of_both_families())?;
        wait::until_true("the port to be refused", SETTLED_WITHIN, || {
            let why = bed.status(0)?.waiting_for();
            Ok(why.contains("a port of bridge br0") && why.contains("name br0"))
        })?;
        let link = bed.nodes[0].netns().ip(&["-d", "link", "show", "eth0"])?;
        ensure!(!link.contains("xdp"), "attached to the port: {link}");
        bed.stop_agent(0)?;
        serves_and_fails_over(bed, "br0")
    })
}

#[test]
fn a_port_that_leaves_its_bridge_serves() -> Result<()> {
    scenario("off a bridge", ETCD_ELSEWHERE, |bed| {
        make_bridge(bed, 0)?;
        bed.start_agent(0, &AgentConfig::of_both_families())?;
        wait::until_true("the port to be refused", SETTLED_WITHIN, || {
            Ok(bed.status(0)?.waiting_for().contains("name br0"))
        })?;
        bed.nodes[0].netns().ip(&["link", "delete", "br0"])?;
        wait::until_true(
            "the port to be unfit without addresses",
            SETTLED_WITHIN,
            || {
                Ok(bed
                    .status(0)?
                    .waiting_for()
                    .contains("no IPv4 address of its own"))
            },
        )?;
        put_addresses_on(bed, 0, "eth0")?;
        for vip in BOTH {
            bed.settled(vip, &[0], SETTLED_WITHIN)?;
        }
        // And an owner whose interface becomes a port gives up.
        let netns = bed.nodes[0].netns();
        netns.ip(&["link", "add", "br0", "type", "bridge"])?;
        netns.ip(&["link", "set", "eth0", "master", "br0"])?;
        wait::until_true("the owner to give up", SETTLED_WITHIN, || {
            let mut owned = Vec::new();
            for vip in BOTH {
                owned.push(bed.owner_of(vip)?.is_some() || bed.nodes[0].has_address(vip)?);
            }
            Ok(!owned.contains(&true))
        })
    })
}

#[test]
fn a_macvlan_serves_in_a_namespace_of_its_own_and_is_refused_beside_its_parent() -> Result<()> {
    scenario("on a macvlan", ETCD_ELSEWHERE, |bed| {
        let host = helper(bed, "host")?;
        let netns = bed.nodes[0].netns();
        take_addresses_off(bed, 0)?;
        let mac = MACVLAN.to_string();
        let macvlan = [
            "link", "add", "mv0", "link", "eth0", "address", &mac, "type", "macvlan", "mode",
            "bridge",
        ];
        netns.ip(&macvlan)?;
        // Beside its parent it would be deaf to what the parent's guard drops.
        let config = AgentConfig {
            interface: "mv0".to_owned(),
            ..AgentConfig::of_both_families()
        };
        bed.start_agent(0, &config)?;
        wait::until_true("the macvlan to be refused", SETTLED_WITHIN, || {
            let why = bed.status(0)?.waiting_for();
            Ok(why.contains("a macvlan on eth0") && why.contains("name eth0"))
        })?;
        bed.stop_agent(0)?;
        let netns = bed.nodes[0].netns();
        netns.ip(&["link", "set", "eth0", "netns", host.name()])?;
        host.ip(&["link", "set", "eth0", "up"])?;
        put_addresses_on(bed, 0, "mv0")?;
        bed.nodes[0].lan_is_now("mv0", MACVLAN);
        serves_and_fails_over(bed, "mv0")
    })
}

#[test]
fn a_macvlan_on_the_shared_ips_interface_hears_all_that_is_its_own() -> Result<()> {
    scenario("under a macvlan", Setup::default(), |bed| {
        let container = helper(bed, "container")?;
        let mac = MACVLAN.to_string();
        bed.nodes[0].netns().ip(&[
            "link",
            "add",
            "eth9",
            "link",
            "eth0",
            "address",
            &mac,
            "netns",
            container.name(),
            "type",
            "macvlan",
            "mode",
            "bridge",
        ])?;
        let own = Addresses::new(77, 51);
        for address in [format!("{}/24", own.v4), format!("{}/64", own.v6)] {
            container.ip(&["address", "add", &address, "dev", "eth9"])?;
        }
        container.ip(&["link", "set", "eth9", "up"])?;
        let (owner, probe) = up(bed, &AgentConfig::of_both_families())?;
        ensure!(owner == 0);
        let beside = bed.probe(&[own.v4.into(), own.v6.into()])?;
        beside.steady(2 * STEADY, SETTLED_WITHIN)?;
        let mark = beside.mark()?;
        wait::until_true("500 rounds", SETTLED_WITHIN, || {
            Ok(beside.since(mark)?.rounds >= 500)
        })?;
        let report = beside.decided_since(mark)?;
        let stranger = format!("stranger {MACVLAN}");
        for noticed in &report.noticed {
            // A look-up that goes to all is answered by it alone, and by nobody less.
            let answers = noticed.answers_of(&stranger);
            ensure!(
                noticed.answers.len() == 1
                    && answers.look_up == report.rounds
                    && answers.ordinary == report.rounds,
                "{report:#?}"
            );
        }
        never_two(&probe.finish()?)
    })
}

/// The shared IPs are on this interface of the first node, which owns them, and on `eth0` of the others.
fn serves_and_fails_over(bed: &mut Bed, interface: &str) -> Result<()> {
    let elsewhere = AgentConfig::of_both_families();
    let config = AgentConfig {
        interface: interface.to_owned(),
        ..elsewhere.clone()
    };
    bed.start_agent(0, &config)?;
    for vip in BOTH {
        bed.settled(vip, &[0], SETTLED_WITHIN)?;
    }
    bed.start_agent(1, &elsewhere)?;
    bed.start_agent(2, &elsewhere)?;
    for vip in BOTH {
        ensure!(bed.settled(vip, &ALL, SETTLED_WITHIN)? == 0);
    }
    let attached = bed.status(0)?.interface(interface)?;
    say::line(&format!(
        "measured: {interface} is attached to so: {}",
        attached["dataplane"]
    ));
    let probe = bed.probe(&BOTH)?;
    probe.steady(2 * STEADY, SETTLED_WITHIN)?;
    let failover = fail_over(bed, &probe, 0, |bed| bed.freeze_agent(0))?;
    never_two(&failover.report)?;
    bed.thaw_agent(0)?;
    calm(bed, &probe, &failover)?;
    // And back to it.
    for index in [1, 2] {
        ensure!(bed.stop_agent(index)?.success());
    }
    for vip in BOTH {
        ensure!(bed.settled(vip, &[0], SETTLED_WITHIN)? == 0);
    }
    probe.steady(Duration::from_secs(1), SETTLED_WITHIN)?;
    never_two(&probe.finish()?)
}

/// As hosts with virtual machines have it: the cable is a port of the host's own bridge, which has the addresses.
fn make_bridge(bed: &mut Bed, index: usize) -> Result<()> {
    take_addresses_off(bed, index)?;
    let node = &mut bed.nodes[index];
    let mac = node.interface("eth0")?.mac;
    let address = mac.to_string();
    let bridge = [
        "link",
        "add",
        "br0",
        "address",
        &address,
        "type",
        "bridge",
        "forward_delay",
        "0",
    ];
    node.netns().ip(&bridge)?;
    node.netns().ip(&["link", "set", "eth0", "master", "br0"])?;
    put_addresses_on(bed, index, "br0")
}

fn take_addresses_off(bed: &Bed, index: usize) -> Result<()> {
    let flush = ["address", "flush", "dev", "eth0"];
    bed.nodes[index].netns().ip(&flush).map(drop)
}

fn put_addresses_on(bed: &Bed, index: usize, name: &str) -> Result<()> {
    let node = &bed.nodes[index];
    let Addresses { v4, v6 } = node.interface("eth0")?.addresses;
    let netns = node.netns();
    netns.ip(&["address", "add", &format!("{v4}/24"), "dev", name])?;
    netns.ip(&["address", "add", &format!("{v6}/64"), "dev", name, "nodad"])?;
    netns.ip(&["link", "set", name, "up"]).map(drop)
}

fn helper(bed: &Bed, role: &str) -> Result<Netns> {
    let run = bed
        .directory()
        .file_name()
        .context("a run has a directory")?;
    Netns::create(&format!("{}-{role}", run.to_string_lossy()))
}
