//! Where shared IPs go: to the highest priority, to the emptiest node, and when to another while nothing is broken.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use vip_tests::agent::AgentConfig;
use vip_tests::bed::{BOTH, Bed, Setup, VIP, scenario};
use vip_tests::etcd_watch::{Change, Watch};
use vip_tests::failover::{SETTLED_WITHIN, STEADY, never_two};
use vip_tests::probe::Probe;
use vip_tests::{say, wait};

const ALL: [usize; 3] = [0, 1, 2];
/// By node, for a pair.
const PRIORITIES: [u8; 3] = [100, 200, 150];
/// How long a higher priority has to wait, and unevenness.
const DELAY: Duration = Duration::from_secs(2);
/// What a handover may cost a client, on a busy machine.
const HANDOVER: Duration = Duration::from_millis(300);
/// Of a rebalance: a few a second.
const MOST_PER_S: usize = 10;

#[test]
fn the_highest_priority_claims_and_the_next_takes_over_and_nobody_preempts() -> Result<()> {
    scenario("priorities", Setup::default(), |bed| {
        for index in ALL {
            bed.start_agent(index, &pair(index))?;
        }
        ensure!(pair_owner(bed, &ALL)? == 1, "not by priority");
        let probe = bed.probe(&BOTH)?;
        let since = bed.cluster.revision()? + 1;
        for (dies, left, next) in [(1, &[0, 2][..], 2), (2, &[0], 0)] {
            probe.steady(STEADY, SETTLED_WITHIN)?;
            bed.kill_agent(dies)?;
            bed.owned_by(VIP, next, SETTLED_WITHIN)?;
            ensure!(pair_owner(bed, left)? == next, "not by priority");
        }
        for index in [2, 1] {
            bed.start_agent(index, &pair(index))?;
            bed.settled(VIP, &[0, index], SETTLED_WITHIN)?;
        }
        // They are back for longer than a preemption would wait elsewhere.
        let mark = probe.mark()?;
        let epoch = bed.cluster.owner_revision(VIP)?;
        probe.steady(2 * DELAY, SETTLED_WITHIN)?;
        ensure!(
            bed.cluster.owner_revision(VIP)? == epoch,
            "it moved, and nothing was broken"
        );
        ensure!(probe.decided_since(mark)?.missed() == 0);
        bed.cluster.never_apart(&BOTH, since)?;
        never_two(&probe.finish()?)
    })
}

#[test]
fn a_higher_priority_preempts_after_it_was_fit_for_so_long_and_not_before() -> Result<()> {
    scenario("preemption", Setup::default(), |bed| {
        let config = |index| pair(index).with(&format!("preempt: {}s", DELAY.as_secs()));
        for index in [0, 2] {
            bed.start_agent(index, &config(index))?;
        }
        ensure!(pair_owner(bed, &[0, 2])? == 2, "not by priority");
        let probe = bed.probe(&BOTH)?;
        probe.steady(STEADY, SETTLED_WITHIN)?;
        let mark = probe.mark()?;
        let watch = Watch::begin(&bed.cluster, 0)?;
        bed.start_agent(1, &config(1))?;
        let joined = watch.next_like("n2 to join", SETTLED_WITHIN, |change| {
            change.key == "/vip-agent/members/n2" && change.value.is_some()
        })?;
        let moved = watch.next_like("the pair to be n2's", SETTLED_WITHIN, |change| {
            moved(change).is_some_and(|(_, owner)| owner == "n2")
        })?;
        let waited = moved.at.duration_since(joined.at);
        say::line(&format!(
            "measured: a higher priority took over {} after it had joined (preempt: {})",
            say::told(waited),
            say::told(DELAY)
        ));
        ensure!(waited >= DELAY, "too early: {waited:?}");
        ensure!(waited <= 3 * DELAY, "late: {waited:?}");
        ensure!(pair_owner(bed, &ALL)? == 1);
        by_handover(bed, &probe, mark, "preemption")
    })
}

#[test]
fn a_rebalance_evens_out_by_transfers_at_a_limited_rate() -> Result<()> {
    scenario("rebalance", Setup::default(), |bed| {
        let vips: Vec<IpAddr> = (100..130)
            .map(|host| Ipv4Addr::new(10, 77, 0, host).into())
            .collect();
        let config = AgentConfig::new(VIP)
            .with_vips(&vips)
            .with(&format!("rebalance: {}s", DELAY.as_secs()));
        bed.start_agent(0, &config)?;
        bed.all_owned(&vips, SETTLED_WITHIN)?;
        let probe = bed.probe_every(&vips[..4], Duration::from_millis(5))?;
        probe.steady(STEADY, SETTLED_WITHIN)?;
        let mark = probe.mark()?;
        let since = bed.cluster.revision()? + 1;
        let watch = Watch::begin(&bed.cluster, 0)?;
        for index in [1, 2] {
            bed.start_agent(index, &config)?;
        }
        wait::until_true("ten on each node", 2 * SETTLED_WITHIN, || {
            let spread = bed.spread(&bed.cluster.owners()?);
            Ok(spread.iter().all(|count| (9..=11).contains(count)))
        })?;
        let even = bed.cluster.owner_revision(VIP)?;
        probe.steady(2 * STEADY, SETTLED_WITHIN)?;
        for revision in since..=bed.cluster.revision()?.max(even) {
            let owned = bed.cluster.owners_at(revision)?.len();
            ensure!(
                owned == vips.len(),
                "by force: {owned} owners at {revision}"
            );
        }
        let moves = moves(&watch.so_far(), "n1");
        let peak = most_within(&moves, Duration::from_secs(1));
        let lasted = moves.last().zip(moves.first());
        say::line(&format!(
            "measured: rebalance: {} moves in {}, at most {peak} a second",
            moves.len(),
            say::told(lasted.map_or(Duration::ZERO, |(last, first)| *last - *first))
        ));
        ensure!(peak <= MOST_PER_S, "{peak} moves in one second");
        // From 30, 0 and 0 to ten each, give or take one, and none to and fro.
        ensure!((18..=22).contains(&moves.len()), "{} moves", moves.len());
        by_handover(bed, &probe, mark, "rebalance")
    })
}

#[test]
fn one_group_moves_as_one_and_singles_fill_up_the_others() -> Result<()> {
    scenario("groups", Setup::default(), |bed| {
        let vips: Vec<IpAddr> = (100..112)
            .map(|host| Ipv4Addr::new(10, 77, 0, host).into())
            .collect();
        let (web, singles) = vips.split_at(4);
        let config = AgentConfig::new(VIP)
            .with_vips(&vips)
            .saying(web, "group: web");
        bed.start_agents(&config)?;
        let owners = bed.all_owned(&vips, SETTLED_WITHIN)?;
        let since = bed.cluster.revision()?;
        let of_web = &owners[&web[0]];
        ensure!(
            web.iter().all(|vip| owners[vip] == *of_web),
            "the group is apart: {owners:?}"
        );
        let old = bed.nodes.iter().position(|node| node.name() == of_web);
        let old = old.context("the owner is a node")?;
        bed.cluster.lead_elsewhere(old)?;
        bed.cut_power(old)?;
        wait::until_true("all to be owned by others", SETTLED_WITHIN, || {
            let owners = bed.cluster.owners()?;
            Ok(owners.len() == vips.len() && owners.values().all(|owner| owner != of_web))
        })?;
        bed.cluster.never_apart(web, since)?;
        let spread = bed.spread(&bed.cluster.owners()?);
        say::line(&format!(
            "measured: a group of {} and {} singles: spread {spread:?} after a power cut",
            web.len(),
            singles.len()
        ));
        // The emptiest takes the next, so they are apart by what moves as one at most.
        let others: Vec<usize> = (0..spread.len())
            .filter(|index| *index != old)
            .map(|index| spread[index])
            .collect();
        ensure!(
            others[0].abs_diff(others[1]) <= web.len(),
            "uneven: {spread:?}"
        );
        Ok(())
    })
}

/// A shared IP of each family that go together, with a node's priority for both.
fn pair(index: usize) -> AgentConfig {
    AgentConfig::of_both_families()
        .saying(&BOTH, "group: pair")
        .saying(&BOTH, &format!("priority: {}", PRIORITIES[index]))
}

/// Waits until all these know one owner of the pair, and returns it.
fn pair_owner(bed: &Bed, known_to: &[usize]) -> Result<usize> {
    let first = bed.settled(BOTH[0], known_to, SETTLED_WITHIN)?;
    let second = bed.settled(BOTH[1], known_to, SETTLED_WITHIN)?;
    ensure!(first == second, "the pair is apart");
    Ok(first)
}

/// Checks that since a mark the client noticed no more than handovers.
fn by_handover(
    bed: &Bed,
    probe: &Probe,
    mark: vip_tests::probe::client::Mark,
    what: &str,
) -> Result<()> {
    probe.steady(STEADY, SETTLED_WITHIN)?;
    let report = probe.decided_since(mark)?;
    say::line(&format!(
        "measured: {what}: longest outage {}, rounds by two {}",
        say::told(report.longest_outage()),
        report.by_two()
    ));
    never_two(&report)?;
    ensure!(report.longest_outage() <= HANDOVER, "{what}: {report:#?}");
    for index in 0..bed.nodes.len() {
        let log = bed.agent_log(index)?;
        ensure!(!log.contains("panicked"), "{log}");
    }
    Ok(())
}

/// A shared IP and its owner, if that is what the change says.
fn moved(change: &Change) -> Option<(IpAddr, String)> {
    let vip = change.key.strip_prefix("/vip-agent/owners/")?;
    let record: serde_json::Value = serde_json::from_str(change.value.as_deref()?).ok()?;
    Some((vip.parse().ok()?, record.get("node")?.as_str()?.to_owned()))
}

/// When shared IPs, all of one node at first, got another owner than they had.
fn moves(changes: &[Change], first: &str) -> Vec<Instant> {
    let mut owners: BTreeMap<IpAddr, String> = BTreeMap::new();
    let mut moves = Vec::new();
    for change in changes {
        let Some((vip, owner)) = moved(change) else {
            continue;
        };
        let old = owners.insert(vip, owner.clone());
        if old.as_deref().unwrap_or(first) != owner {
            moves.push(change.at);
        }
    }
    moves
}

fn most_within(instants: &[Instant], window: Duration) -> usize {
    let from = |(at, first): (usize, &Instant)| {
        let in_window = instants[at..]
            .iter()
            .take_while(|one| **one - *first < window);
        in_window.count()
    };
    instants.iter().enumerate().map(from).max().unwrap_or(0)
}
