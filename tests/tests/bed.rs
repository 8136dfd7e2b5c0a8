//! The testbed tested by itself, without agents: does it count what it should, and clear up after itself?

use std::env;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use vip_tests::bed::{BOTH, Bed, Setup, scenario};
use vip_tests::conversation::Conversation;
use vip_tests::etcd::Security;
use vip_tests::etcd_load::Load;
use vip_tests::etcd_watch::Watch;
use vip_tests::netns::Netns;
use vip_tests::probe::Report;
use vip_tests::probe::report::Noticed;
use vip_tests::run::Run;
use vip_tests::{privilege, say, wait};

const SECOND: Duration = Duration::from_secs(1);
const NO_ETCD: Setup = Setup {
    nodes: 2,
    mgmt: false,
    two_cables: false,
    security: Security::Open,
    etcd: false,
};

#[test]
fn one_node_with_the_address_is_never_two() -> Result<()> {
    scenario("one node with the address", NO_ETCD, |bed| {
        give_address(bed, 0)?;
        let probe = bed.probe(&BOTH)?;
        probe.steady(SECOND, 5 * SECOND)?;
        let report = probe.finish()?;
        ensure!(report.oddities.is_empty(), "{report:?}");
        for noticed in &report.noticed {
            ensure!(
                noticed.by_two == 0 && noticed.look_up_by_two_macs == 0,
                "{report:?}"
            );
            let n1 = noticed.answers_of("n1");
            // The first rounds may fall into the client's own neighbour look-up.
            ensure!(
                n1.look_up + 5 > report.rounds
                    && n1.echo + 5 > report.rounds
                    && n1.ordinary + 5 > report.rounds,
                "{report:?}"
            );
            ensure!(noticed.answers.len() == 1, "{report:?}");
        }
        say::line(&format!(
            "measured: {} rounds, longest pause {:?}, longest burst {:?}",
            report.rounds, report.longest_pause, report.longest_burst
        ));
        Ok(())
    })
}

#[test]
fn two_nodes_with_the_address_are_counted_in_every_round() -> Result<()> {
    scenario("two nodes with the address", NO_ETCD, |bed| {
        give_address(bed, 0)?;
        give_address(bed, 1)?;
        let probe = bed.probe(&BOTH)?;
        probe.steady(SECOND, 5 * SECOND)?;
        let report = probe.finish()?;
        for noticed in &report.noticed {
            for counted in [
                noticed.by_two,
                noticed.look_up_by_two,
                noticed.echo_by_two,
                noticed.look_up_by_two_macs,
            ] {
                ensure!(counted + 5 > report.rounds, "{report:?}");
            }
        }
        Ok(())
    })
}

#[test]
fn a_pulled_cable_is_an_outage_as_long_as_it_is_out() -> Result<()> {
    scenario("cable of a plain node", NO_ETCD, |bed| {
        give_address(bed, 0)?;
        let probe = bed.probe(&BOTH)?;
        probe.steady(SECOND / 2, 5 * SECOND)?;
        let mark = probe.mark()?;
        bed.pull_cable(0)?;
        wait::until_true("an outage of 300 ms", 5 * SECOND, || {
            let report = probe.since(mark)?;
            Ok(outages(&report).all(|outage| outage >= SECOND * 3 / 10))
        })?;
        bed.plug_cable(0)?;
        probe.steady(SECOND / 2, 10 * SECOND)?;
        let report = probe.finish()?;
        let likely = SECOND * 3 / 10..5 * SECOND;
        ensure!(
            outages(&report).all(|outage| likely.contains(&outage))
                && report.outages().all(|outage| outage.over),
            "{report:?}"
        );
        ensure!(report.by_two() == 0, "{report:?}");
        Ok(())
    })
}

#[test]
fn a_conversation_notices_what_is_lost_on_its_way_and_nothing_else() -> Result<()> {
    scenario("conversation", NO_ETCD, |bed| {
        let interface = bed.nodes[0].interface("eth0")?;
        let address = interface.addresses.v4.into();
        let node = bed.nodes[0].netns();
        let began = Instant::now();
        let talk = Conversation::begin(&bed.client, node, address)?;
        let disturbed = Conversation::begin(&bed.client, node, address)?;
        let more = |talk: &Conversation| {
            let enough = talk.answered() + 100;
            let what = "a hundred messages to be answered";
            wait::until_true(what, 5 * SECOND, || Ok(talk.answered() >= enough))
        };
        more(&talk)?;
        let undisturbed = talk.end(began)?;
        ensure!(
            undisturbed.answered >= 100 && undisturbed.sent_again == 0,
            "{undisturbed:?}"
        );

        let cut = Instant::now();
        bed.switch.port_black_holed(interface)?;
        // Three times what TCP waits at least before it sends again.
        wait::holds("a black hole", 3 * SECOND / 5, || Ok(true))?;
        bed.switch.port_forwarding(interface)?;
        more(&disturbed)?;
        let disturbed = disturbed.end(cut - SECOND / 10)?;
        ensure!(
            disturbed.sent_again > 0 && disturbed.longest_gap >= SECOND / 2,
            "{disturbed:?}"
        );
        Ok(())
    })
}

#[test]
fn the_cluster_elects_and_can_be_led_from_elsewhere_and_survives_a_member() -> Result<()> {
    scenario("etcd by itself", Setup::default(), |bed| {
        let leader = bed.cluster.leader()?;
        let next = (leader + 1) % 3;
        bed.cluster.lead_from(next)?;
        ensure!(bed.cluster.leader()? == next);
        bed.cluster.etcdctl(leader, &["put", "/vip-agent/x", "1"])?;
        bed.cluster.stop(next)?;
        wait::until("another leader", 20 * SECOND, || {
            Ok(bed.cluster.leader().ok())
        })?;
        bed.cluster.start(next)?;
        bed.cluster.ready()?;
        ensure!(bed.cluster.keys("/vip-agent")? == [("/vip-agent/x".to_owned(), "1".to_owned())]);
        Ok(())
    })
}

#[test]
fn what_etcd_is_asked_is_counted_and_what_changes_is_heard() -> Result<()> {
    let setup = Setup {
        etcd: true,
        ..NO_ETCD
    };
    scenario("etcd's load", setup, |bed| {
        let cluster = &bed.cluster;
        let watch = Watch::begin(cluster, 0)?;
        let load = Load::of(cluster, || {
            for number in 0..7 {
                let value = number.to_string();
                cluster.etcdctl(number % 2, &["put", "/vip-agent/counted", &value])?;
            }
            cluster.etcdctl(0, &["del", "/vip-agent/counted"]).map(drop)
        })?;
        let asked = |method: &str| load.requests.get(method).copied();
        ensure!(
            asked("Put") == Some(7) && asked("DeleteRange") == Some(1),
            "{load:?}"
        );
        let last = watch.next_like("the last put", SECOND, |change| {
            change.value.as_deref() == Some("6")
        })?;
        ensure!(last.key == "/vip-agent/counted", "{last:?}");
        watch.next_like("the deletion", SECOND, |change| change.value.is_none())?;
        Ok(())
    })
}

#[test]
fn the_cluster_speaks_mtls() -> Result<()> {
    scenario(
        "etcd with mTLS by itself",
        Setup {
            security: Security::Mtls,
            ..Setup::default()
        },
        |bed| {
            bed.cluster.etcdctl(0, &["put", "/vip-agent/x", "1"])?;
            ensure!(
                bed.cluster
                    .endpoints()
                    .iter()
                    .all(|endpoint| endpoint.starts_with("https://"))
            );
            Ok(())
        },
    )
}

#[test]
fn the_cluster_asks_for_passwords() -> Result<()> {
    scenario(
        "etcd with users by itself",
        Setup {
            security: Security::Password,
            mgmt: true,
            ..Setup::default()
        },
        |bed| {
            bed.cluster.etcdctl(0, &["put", "/vip-agent/x", "1"])?;
            ensure!(
                bed.cluster
                    .etcdctl(0, &["--user", "vip-agent:wrong", "get", "/vip-agent/x"])
                    .is_err()
            );
            Ok(())
        },
    )
}

#[test]
fn what_a_killed_run_left_is_cleared_by_the_next() -> Result<()> {
    if !privilege::granted("leftovers")? {
        return Ok(());
    }
    let mut half_way = Command::new(env::current_exe()?)
        .args([
            "--exact",
            "raise_a_bed_and_hang",
            "--ignored",
            "--nocapture",
        ])
        .stdout(Stdio::null())
        .spawn()?;
    let prefix = format!("vt{}-", half_way.id());
    let raised = wait::until_true("the doomed run's etcd", 120 * SECOND, || {
        let namespaces = Netns::list(&prefix)?;
        Ok(namespaces
            .iter()
            .any(|netns| netns.pids().is_ok_and(|pids| !pids.is_empty())))
    });
    half_way.kill()?;
    half_way.wait()?;
    raised?;
    let directory = format!("/run/vip-testbed/vt{}", half_way.id());
    ensure!(!Netns::list(&prefix)?.is_empty() && std::fs::exists(&directory)?);

    let run = Run::begin()?;
    ensure!(
        Netns::list(&prefix)?.is_empty(),
        "namespaces are left: {:?}",
        Netns::list(&prefix)?
    );
    ensure!(!std::fs::exists(&directory)?, "{directory} is left");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    ensure!(!mounts.contains(&directory), "mounts are left: {mounts}");
    run.clear()
}

#[test]
#[ignore = "started, and killed, by what_a_killed_run_left_is_cleared_by_the_next"]
fn raise_a_bed_and_hang() -> Result<()> {
    let bed = Bed::raise(Setup::default())?;
    wait::holds("being killed", 60 * SECOND, || Ok(true))?;
    bed.take_down()
}

/// The longest in each family.
fn outages(report: &Report) -> impl Iterator<Item = Duration> {
    report.noticed.iter().map(Noticed::longest_outage)
}

fn give_address(bed: &Bed, index: usize) -> Result<()> {
    let netns = bed.nodes[index].netns();
    for vip in BOTH {
        let length = if vip.is_ipv4() { "/32" } else { "/128" };
        let address = format!("{vip}{length}");
        // Two may have it, so nobody looks for duplicates.
        netns.ip(&["address", "add", &address, "dev", "eth0", "nodad"])?;
    }
    Ok(())
}
