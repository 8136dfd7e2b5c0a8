//! The first claim, under the conditions in which agents start; and what stands then, in etcd, in the kernel and on the wire.

use std::net::{IpAddr, Ipv6Addr};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use vip_tests::agent::{self, AgentConfig};
use vip_tests::bed::{Bed, Setup, VIP, scenario};
use vip_tests::etcd::Security;
use vip_tests::failover::{SETTLED_WITHIN, agents_up, calm, fail_over, never_two, up};
use vip_tests::probe::tap::ArpTap;
use vip_tests::{command, gate, wait};

const ALL: [usize; 3] = [0, 1, 2];

#[test]
fn first_claim_has_one_owner_that_all_know() -> Result<()> {
    scenario("first claim", Setup::default(), |bed| {
        let probe = bed.probe(&[VIP])?;
        bed.start_agents(&AgentConfig::new(VIP))?;
        let owner = bed.settled(VIP, &ALL, SETTLED_WITHIN)?;
        probe.steady(Duration::from_secs(2), SETTLED_WITHIN)?;
        never_two(&probe.finish()?)?;
        for index in ALL {
            let (node, status) = (&bed.nodes[index], bed.status(index)?);
            ensure!(
                status.state() == "joined" && status.members() == ["n1", "n2", "n3"],
                "{}",
                status.0
            );
            ensure!(
                node.has_address(VIP)? == (index == owner),
                "address on {}",
                node.name()
            );
            let vip = status.vip(VIP)?;
            let expected = if index == owner {
                ("owner", "open")
            } else {
                ("follower", "closed")
            };
            ensure!((vip.role(), vip.gate()) == expected, "{}", status.0);
            ensure!(
                status
                    .interface("eth0")?
                    .get("dataplane")
                    .and_then(Value::as_str)
                    == Some("native"),
                "{}",
                status.0
            );
        }
        keys_read_like_the_design(bed, owner)?;
        the_kernel_shows_it(bed, owner)?;
        a_reader_may_leave(bed, owner)
    })
}

#[test]
fn arp_for_the_shared_ip_is_answered_by_xdp_and_other_traffic_is_untouched() -> Result<()> {
    scenario("ARP in XDP", Setup::default(), |bed| {
        let (owner, probe) = up(bed, &AgentConfig::new(VIP))?;
        let follower = (owner + 1) % 3;
        let own = bed.nodes[owner].interface("eth0")?.addresses.v4.into();
        let before = (
            bed.status(owner)?.vip(VIP)?,
            bed.status(follower)?.vip(VIP)?,
        );

        let for_vip = ArpTap::start(bed.nodes[owner].netns(), "eth0", VIP)?;
        let for_own = ArpTap::start(bed.nodes[owner].netns(), "eth0", own)?;
        let mark = probe.mark()?;
        // The same questions about the node's own address: ARP, echo and an ordinary client.
        let beside = bed.probe(&[own])?;
        wait::until_true("1000 rounds", SETTLED_WITHIN, || {
            Ok(probe.since(mark)?.rounds >= 1000)
        })?;
        let beside = beside.finish()?;
        let answers = probe.since(mark)?.answers_of(bed.nodes[owner].name());
        let rounds = answers.look_up;
        let (vip_seen, own_seen) = (for_vip.finish()?, for_own.finish()?);

        let after = (
            bed.status(owner)?.vip(VIP)?,
            bed.status(follower)?.vip(VIP)?,
        );
        let answered = after.0.counter("answered") - before.0.counter("answered");
        let stale = after.1.counter("stale") - before.1.counter("stale");
        ensure!(
            rounds >= 990 && answered >= rounds as u64,
            "{rounds} ARP requests answered on the wire, {answered} by XDP's counter"
        );
        ensure!(
            vip_seen == 0,
            "the stack saw {vip_seen} ARP requests for the shared IP"
        );
        ensure!(
            own_seen >= 500,
            "the tap saw only {own_seen} ARP requests for the node's own address, so it proves nothing"
        );
        ensure!(
            stale >= 1990,
            "of 1000 ARP requests and 1000 echo requests the follower counted {stale} as stale"
        );
        ensure!(
            beside.outages().next().is_none()
                && beside.answered() == beside.rounds
                && beside.by_two() == 0,
            "the node's own address: {beside:#?}"
        );
        never_two(&probe.finish()?)
    })
}

#[test]
fn several_shared_ips_have_one_owner_each() -> Result<()> {
    scenario("several shared IPs", Setup::default(), |bed| {
        let vips = [
            VIP,
            [10, 77, 0, 101].into(),
            [10, 77, 0, 102].into(),
            [10, 77, 0, 103].into(),
        ];
        let config = AgentConfig {
            vips: vips.to_vec(),
            ..AgentConfig::new(VIP)
        };
        let (_, probe) = up(bed, &config)?;
        for vip in vips {
            let owner = bed.settled(vip, &ALL, SETTLED_WITHIN)?;
            ensure!(bed.nodes[owner].has_address(vip)?);
        }
        let owner = bed.settled(VIP, &ALL, SETTLED_WITHIN)?;
        let failover = fail_over(bed, &probe, owner, |bed| bed.stop_agent(owner).map(drop))?;
        never_two(&failover.report)?;
        let left: Vec<usize> = ALL.into_iter().filter(|index| *index != owner).collect();
        for vip in vips {
            bed.settled(vip, &left, SETTLED_WITHIN)?;
        }
        Ok(())
    })
}

#[test]
fn two_interfaces_on_one_segment_answer_as_one() -> Result<()> {
    scenario(
        "two interfaces on one segment",
        Setup {
            two_cables: true,
            ..Setup::default()
        },
        |bed| {
            let config = AgentConfig::new(VIP);
            // Alone at first, so that the node with two cables is the owner.
            bed.start_agent(0, &config)?;
            bed.settled(VIP, &[0], SETTLED_WITHIN)?;
            bed.start_agent(1, &config)?;
            bed.start_agent(2, &config)?;
            ensure!(bed.settled(VIP, &ALL, SETTLED_WITHIN)? == 0);
            let probe = bed.probe(&[VIP])?;
            probe.steady(Duration::from_secs(2), SETTLED_WITHIN)?;

            let status = bed.status(0)?;
            let guards = status
                .interface("eth0")?
                .get("guards")
                .cloned()
                .unwrap_or_default();
            ensure!(
                guards
                    .as_array()
                    .is_some_and(|guards| guards.contains(&"eth2".into())),
                "{}",
                status.0
            );
            ensure!(status.vip(VIP)?.counter("guarded") > 0, "{}", status.0);
            let failover = fail_over(bed, &probe, 0, |bed| bed.freeze_agent(0))?;
            bed.thaw_agent(0)?;
            calm(bed, &probe, &failover)?;
            let report = probe.finish()?;
            ensure!(
                report.of_vip(VIP)?.look_up_by_two_macs == 0,
                "both interfaces answered ARP: {report:#?}"
            );
            never_two(&report)
        },
    )
}

#[test]
fn etcd_with_mtls_works_alike() -> Result<()> {
    scenario(
        "mTLS",
        Setup {
            security: Security::Mtls,
            ..Setup::default()
        },
        hands_over,
    )
}

#[test]
fn etcd_with_users_works_alike() -> Result<()> {
    scenario(
        "users",
        Setup {
            security: Security::Password,
            ..Setup::default()
        },
        hands_over,
    )
}

#[test]
fn generic_xdp_works_alike() -> Result<()> {
    scenario("generic XDP", Setup::default(), |bed| {
        works_alike(bed, "generic")
    })
}

#[test]
fn tc_works_alike() -> Result<()> {
    scenario("TC", Setup::default(), |bed| works_alike(bed, "tc"))
}

#[test]
fn a_link_local_shared_ip_is_served_and_handed_over() -> Result<()> {
    scenario("a link-local shared IP", Setup::default(), |bed| {
        let vip = IpAddr::from(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0x77, 0x1000));
        let config = AgentConfig {
            vips: vec![vip],
            ..AgentConfig::new(VIP)
        };
        let first = agents_up(bed, &config)?;
        answers_by(bed, vip, first)?;
        bed.stop_agent(first)?;
        let second = bed.next_owner(vip, first, SETTLED_WITHIN)?;
        answers_by(bed, vip, second)
    })
}

#[test]
fn without_a_data_plane_the_agent_says_that_it_is_unfenced() -> Result<()> {
    scenario("dataplane: kernel", Setup::default(), |bed| {
        let config = AgentConfig {
            dataplane: "kernel".to_owned(),
            // The address's whole seconds of lifetime, less one, leave nothing of 2 s.
            ttl: "3s".to_owned(),
            ..AgentConfig::new(VIP)
        };
        let (owner, probe) = up(bed, &config)?;
        let status = bed.status(owner)?;
        ensure!(status.vip(VIP)?.gate() == "unfenced", "{}", status.0);
        ensure!(
            bed.agent(owner)?.log_text()?.contains("UNFENCED"),
            "the log does not say UNFENCED"
        );
        let failover = fail_over(bed, &probe, owner, |bed| bed.stop_agent(owner).map(drop))?;
        ensure!(failover.new != owner);
        Ok(())
    })
}

#[test]
fn etcd_that_is_not_up_yet_is_waited_for() -> Result<()> {
    scenario(
        "etcd not up yet",
        Setup {
            etcd: false,
            ..Setup::default()
        },
        |bed| {
            bed.start_agents(&AgentConfig::new(VIP))?;
            for index in ALL {
                wait::until_true(
                    "the agent to say that it waits for etcd",
                    SETTLED_WITHIN,
                    || {
                        let status = bed.status(index)?;
                        Ok(status.state() == "waiting" && status.waiting_for().contains("etcd"))
                    },
                )?;
            }
            bed.cluster.start_all()?;
            bed.settled(VIP, &ALL, SETTLED_WITHIN)?;
            Ok(())
        },
    )
}

#[test]
fn an_interface_that_is_not_there_yet_is_waited_for() -> Result<()> {
    scenario("interface not there yet", Setup::default(), |bed| {
        let config = AgentConfig {
            interface: "eth2".to_owned(),
            ..AgentConfig::new(VIP)
        };
        bed.start_agents(&config)?;
        for index in ALL {
            wait::until_true(
                "the agent to say that it waits for eth2",
                SETTLED_WITHIN,
                || Ok(bed.status(index)?.waiting_for().contains("eth2")),
            )?;
        }
        let Bed { nodes, switch, .. } = bed;
        nodes
            .iter_mut()
            .try_for_each(|node| node.plug_lan_twice(switch))?;
        bed.settled(VIP, &ALL, SETTLED_WITHIN)?;
        let probe = bed.probe(&[VIP])?;
        probe.steady(Duration::from_secs(1), SETTLED_WITHIN)?;
        never_two(&probe.finish()?)
    })
}

/// The client's kernel finds it at this node, and is answered.
fn answers_by(bed: &Bed, vip: IpAddr, node: usize) -> Result<()> {
    let mac = bed.nodes[node].interface("eth0")?.mac.to_string();
    let on_the_link = format!("{vip}%eth0");
    wait::until_true(&format!("{vip} to answer at {mac}"), SETTLED_WITHIN, || {
        let ping = ["-c", "1", "-W", "2", &on_the_link];
        let answered = command::run_in(&bed.client, "ping", &ping).is_ok();
        Ok(answered && bed.client.neighbour(vip)?.contains(&mac))
    })
}

fn works_alike(bed: &mut Bed, dataplane: &str) -> Result<()> {
    for node in &bed.nodes {
        node.leave_vlan_tags("eth0")?;
    }
    let config = AgentConfig {
        dataplane: dataplane.to_owned(),
        ..AgentConfig::new(VIP)
    };
    let (owner, probe) = up(bed, &config)?;
    let interface = bed.status(owner)?.interface("eth0")?;
    let attached = interface.get("dataplane").and_then(Value::as_str);
    ensure!(attached == Some(dataplane), "{attached:?}");
    let failover = fail_over(bed, &probe, owner, |bed| bed.stop_agent(owner).map(drop))?;
    bed.start_agent(owner, &config)?;
    calm(bed, &probe, &failover)?;
    Ok(())
}

fn hands_over(bed: &mut Bed) -> Result<()> {
    let config = AgentConfig::new(VIP);
    let (owner, probe) = up(bed, &config)?;
    let failover = fail_over(bed, &probe, owner, |bed| bed.stop_agent(owner).map(drop))?;
    bed.start_agent(owner, &config)?;
    calm(bed, &probe, &failover)?;
    Ok(())
}

fn keys_read_like_the_design(bed: &Bed, owner: usize) -> Result<()> {
    let keys = bed.cluster.keys("/vip-agent")?;
    let names: Vec<&str> = keys.iter().map(|(key, _)| key.as_str()).collect();
    let expected = [
        "/vip-agent/members/n1",
        "/vip-agent/members/n2",
        "/vip-agent/members/n3",
        "/vip-agent/owners/10.77.0.100",
    ];
    ensure!(names == expected, "{keys:#?}");
    for (key, value) in &keys {
        let record: Value =
            serde_json::from_str(value).with_context(|| format!("{key} is {value}"))?;
        let (fields, node): (&[&str], &str) = match key.strip_prefix("/vip-agent/members/") {
            Some(node) => (&["node", "instance", "macs", "ttl_ms", "version"], node),
            None => (
                &["node", "instance", "mac", "ttl_ms", "since"],
                bed.nodes[owner].name(),
            ),
        };
        ensure!(
            fields.iter().all(|field| record.get(field).is_some()),
            "{key} lacks one of {fields:?}: {value}"
        );
        ensure!(
            record.get("node").and_then(Value::as_str) == Some(node)
                && record.get("ttl_ms") == Some(&2000.into()),
            "{key}: {value}"
        );
        let read: Value = serde_json::from_str(
            &bed.cluster
                .etcdctl(0, &["get", key, "--write-out", "json"])?,
        )?;
        ensure!(
            read.pointer("/kvs/0/lease")
                .and_then(Value::as_i64)
                .is_some_and(|lease| lease != 0),
            "{key} hangs on no lease"
        );
    }
    Ok(())
}

/// As `head` does when it has seen enough.
fn a_reader_may_leave(bed: &Bed, index: usize) -> Result<()> {
    let node = &bed.nodes[index];
    let (reader, writer) = std::io::pipe()?;
    drop(reader);
    let mut status = Command::new(agent::binary()?);
    status
        .args(["status", "--json", "--state-dir"])
        .arg(node.state_dir())
        .stdout(writer)
        .stderr(Stdio::piped());
    let output = status.spawn()?.wait_with_output()?;
    ensure!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
    Ok(())
}

fn the_kernel_shows_it(bed: &Bed, owner: usize) -> Result<()> {
    let node = &bed.nodes[owner];
    let link = node.netns().ip(&["-d", "link", "show", "eth0"])?;
    ensure!(link.contains("prog/xdp"), "{link}");
    let address = node.netns().ip(&["-4", "address", "show", "dev", "eth0"])?;
    let vip_lines: Vec<&str> = address
        .lines()
        .skip_while(|line| !line.contains("10.77.0.100/32"))
        .take(2)
        .collect();
    ensure!(
        vip_lines.len() == 2
            && vip_lines[0].contains("scope host")
            && !vip_lines[1].contains("forever"),
        "{address}"
    );
    let pin = gate::pin_of(node, "GATES")?;
    let dump = command::run(
        "bpftool",
        &["map", "dump", "pinned", &pin.to_string_lossy()],
    )?;
    ensure!(
        ["deadline_ns", "epoch", "ifindex", "owner_mac"]
            .iter()
            .all(|field| dump.contains(field)),
        "bpftool printed {dump}"
    );
    Ok(())
}
