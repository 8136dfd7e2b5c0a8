//! A shared IP is handed over, in every way that it can be asked for: how long a client that sends every millisecond waits, and what becomes of it when
//! something breaks on the way.

use std::net::{IpAddr, Ipv4Addr};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use vip_tests::agent::AgentConfig;
use vip_tests::bed::{BOTH, Bed, Setup, VIP, scenario};
use vip_tests::conversation::Conversation;
use vip_tests::etcd_watch::{Change, Watch};
use vip_tests::failover::{SETTLED_WITHIN, STEADY, never_two};
use vip_tests::fault::Illness;
use vip_tests::figures::{Figures, rounds};
use vip_tests::probe::Probe;
use vip_tests::{say, wait};

const TICK: Duration = Duration::from_millis(1);
/// Of a plain run; the targets are stated for 20.
const ROUNDS: usize = 5;
/// The client's outage, in the middle and at worst.
const TARGET: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(30)];
/// The same, on a busy machine of two cores.
const ALLOWED: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(300)];
/// Rounds in which etcd itself stood still, for a lease's life, as it does when a busy machine's disk does.
const MOST_VOID: usize = 2;
/// How long the client must be served without a gap before and after each handover.
const UNBROKEN: Duration = Duration::from_millis(300);
/// A shared IP beside those that move, whose connection must not notice.
const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 101));
/// What its connection may wait longer than one to the node's own address, on a busy machine.
const DISTURBED: Duration = Duration::from_millis(50);
/// An owner's or successor's end in the midst: the lease's end and etcd's next look, and two looks more, as for any owner without power.
const ENDS: Duration = Duration::from_millis(2800 + 1000);
/// etcd's leader is frozen in the midst: as for an owner that takes it along.
const ENDS_WITH_LEADER: Duration = Duration::from_secs(6 + 2);
const ALL: [usize; 3] = [0, 1, 2];

#[test]
fn a_transfer_costs_a_client_milliseconds_and_other_shared_ips_nothing() -> Result<()> {
    scenario("handover by transfer", Setup::default(), |bed| {
        let config = pair(&[OTHER]);
        let probe = pair_up(bed, |_| config.clone())?;
        let talk = Talk::begin(bed, 0)?;
        // Back and forth, so that the connection is on the old owner in one round, and on the successor in the next.
        let other = |owner: usize| 1 - owner;
        play(
            "transfer",
            bed,
            &probe,
            0,
            |_, owner| Ok(owner),
            |bed, owner| bed.transfer(2, VIP, other(owner))?.good().map(drop),
        )?;
        talk.end(bed, "transfer")
    })
}

#[test]
fn a_drain_costs_a_client_milliseconds() -> Result<()> {
    scenario("handover by drain", Setup::default(), |bed| {
        let config = pair(&[]);
        let probe = pair_up(bed, |_| config.clone())?;
        let mut drained = None;
        play(
            "drain",
            bed,
            &probe,
            0,
            |bed, owner| {
                if let Some(back) = drained.replace(owner) {
                    bed.undrain(back)?.good()?;
                }
                Ok(owner)
            },
            |bed, owner| bed.drain(owner)?.good().map(drop),
        )
    })
}

#[test]
fn a_sigterm_costs_a_client_milliseconds() -> Result<()> {
    scenario("handover by SIGTERM", Setup::default(), |bed| {
        let config = pair(&[]);
        let probe = pair_up(bed, |_| config.clone())?;
        let mut stopped = None;
        play(
            "SIGTERM",
            bed,
            &probe,
            0,
            |bed, owner| {
                if let Some(back) = stopped.replace(owner) {
                    bed.start_agent(back, &config)?;
                    all_agree(bed)?;
                }
                Ok(owner)
            },
            |bed, owner| {
                let status = bed.stop_agent(owner)?;
                ensure!(status.success(), "the stopped agent ended with {status}");
                Ok(())
            },
        )
    })
}

#[test]
fn a_preemption_costs_a_client_milliseconds_and_other_shared_ips_nothing() -> Result<()> {
    scenario("handover by preemption", Setup::default(), |bed| {
        // The pair goes to n1, or else to n2; the other one is n2's.
        let of_pair = [200, 150, 100];
        let of_other = [100, 200, 100];
        let probe = pair_up(bed, |index| {
            pair(&[OTHER])
                .with("preempt: 1s")
                .saying(&BOTH, &format!("priority: {}", of_pair[index]))
                .saying(&[OTHER], &format!("priority: {}", of_other[index]))
        })?;
        bed.owned_by(OTHER, 1, SETTLED_WITHIN)?;
        let talk = Talk::begin(bed, 1)?;
        play(
            "preemption",
            bed,
            &probe,
            0,
            |bed, _| {
                bed.drain(0)?.good()?;
                all_agree(bed)?;
                bed.owned_by(VIP, 1, SETTLED_WITHIN)?;
                Ok(1)
            },
            |bed, _| bed.undrain(0)?.good().map(drop),
        )?;
        talk.end(bed, "preemption")
    })
}

#[test]
fn what_breaks_during_a_transfer_ends_with_one_owner() -> Result<()> {
    let setup = Setup {
        mgmt: true,
        ..Setup::default()
    };
    scenario("transfer that breaks", setup, |bed| {
        let config = pair(&[]);
        let probe = pair_up(bed, |_| config.clone())?;
        let mut owner = 0;
        for breakage in BREAKAGES {
            owner = breaks(bed, &probe, &config, owner, breakage)?;
        }
        Ok(())
    })
}

/// How far a transfer has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The owner's record names the successor.
    Named,
    /// The successor's record says that it is ready.
    Ready,
}

/// Who falls ill then. etcd's leader is the third node's member, which takes no part otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Breakage {
    SuccessorKilled(Stage),
    SuccessorFrozen(Stage),
    SuccessorCutOff(Stage),
    OwnerKilled(Stage),
    LeaderFrozen(Stage),
}

const BREAKAGES: [Breakage; 8] = [
    Breakage::SuccessorKilled(Stage::Named),
    Breakage::SuccessorKilled(Stage::Ready),
    Breakage::SuccessorFrozen(Stage::Named),
    Breakage::SuccessorCutOff(Stage::Named),
    Breakage::SuccessorCutOff(Stage::Ready),
    Breakage::OwnerKilled(Stage::Named),
    Breakage::OwnerKilled(Stage::Ready),
    // Last: an etcd before 3.4.31 may revoke live leases when its deposed leader goes on.
    Breakage::LeaderFrozen(Stage::Named),
];

impl Breakage {
    fn stage(self) -> Stage {
        match self {
            Breakage::SuccessorKilled(stage)
            | Breakage::SuccessorFrozen(stage)
            | Breakage::SuccessorCutOff(stage)
            | Breakage::OwnerKilled(stage)
            | Breakage::LeaderFrozen(stage) => stage,
        }
    }
}

/// Breaks one transfer, judges it, and mends what was broken; returns the owner.
fn breaks(
    bed: &mut Bed,
    probe: &Probe,
    config: &AgentConfig,
    owner: usize,
    breakage: Breakage,
) -> Result<usize> {
    let successor = (owner + 1) % ALL.len();
    let third = (owner + 2) % ALL.len();
    bed.cluster.lead_from(third)?;
    probe.steady(STEADY, SETTLED_WITHIN)?;
    let since = bed.cluster.revision()? + 1;
    let mark = probe.mark()?;
    let watch = Watch::begin(&bed.cluster, third)?;
    let mut command = typed_transfer(bed, third, successor)?;
    await_stage(bed, &watch, breakage.stage(), successor)?;
    match breakage {
        Breakage::SuccessorKilled(_) => bed.kill_agent(successor)?,
        Breakage::SuccessorFrozen(_) => bed.freeze_agent(successor)?,
        Breakage::SuccessorCutOff(_) => bed.cut_off_from_etcd(successor)?,
        Breakage::OwnerKilled(_) => bed.kill_agent(owner)?,
        Breakage::LeaderFrozen(_) => bed.sicken_etcd(third, Illness::Frozen)?,
    }
    drop(watch);
    // The lease of whoever went has to be over before what is seen is the end of it.
    probe.steady(3 * STEADY, SETTLED_WITHIN)?;
    let report = probe.decided_since(mark)?;
    let outage = report.longest_outage();
    let allowed = match breakage {
        Breakage::LeaderFrozen(_) => ENDS_WITH_LEADER,
        _ => ENDS,
    };
    say::line(&format!(
        "measured: {breakage:?}: outage {}, rounds by two {}",
        report.told(|noticed| say::told(noticed.longest_outage())),
        report.by_two()
    ));
    never_two(&report)?;
    ensure!(outage <= allowed, "{breakage:?}: {report:#?}");

    let mark = probe.mark()?;
    match breakage {
        Breakage::SuccessorKilled(_) => bed.start_agent(successor, config)?,
        Breakage::SuccessorFrozen(_) => bed.thaw_agent(successor)?,
        Breakage::SuccessorCutOff(_) => {
            bed.reconnect_to_etcd(successor)?;
            bed.cluster.ready()?;
        }
        Breakage::OwnerKilled(_) => bed.start_agent(owner, config)?,
        Breakage::LeaderFrozen(_) => {
            let healthy = bed.settled(VIP, &ALL, SETTLED_WITHIN)?;
            let last = BREAKAGES.last() == Some(&breakage);
            ensure!(last, "whoever is next would be blamed for it");
            command.wait()?;
            return Ok(healthy);
        }
    }
    let now = all_agree(bed)?;
    probe.steady(2 * STEADY, SETTLED_WITHIN)?;
    ensure!(all_agree(bed)? == now, "shared IPs changed hands again");
    never_two(&probe.decided_since(mark)?)?;
    bed.cluster.never_apart(&BOTH, since)?;
    // It has to have come to an end by itself, whatever that was.
    let status = command.wait()?;
    ensure!(
        status.code().is_some_and(|code| code <= 1),
        "{breakage:?}: the command ended with {status}"
    );
    Ok(now)
}

fn await_stage(bed: &Bed, watch: &Watch, stage: Stage, successor: usize) -> Result<Change> {
    let name = bed.nodes[successor].name();
    let (key, value) = match stage {
        Stage::Named => (
            format!("/vip-agent/owners/{VIP}"),
            format!("\"successor\":\"{name}\""),
        ),
        Stage::Ready => (
            format!("/vip-agent/members/{name}"),
            "\"ready\":{\"".to_owned(),
        ),
    };
    watch.next_like(&format!("{value} in {key}"), SETTLED_WITHIN, |change| {
        let said = change.value.as_deref().unwrap_or_default();
        change.key == key && said.contains(&value)
    })
}

/// Begins `vip-agent transfer` at a node.
fn typed_transfer(bed: &Bed, at: usize, to: usize) -> Result<Child> {
    let (vip, to) = (VIP.to_string(), bed.nodes[to].name());
    let arguments = ["transfer", &vip, "--to", to, "--timeout", "10s"];
    let mut command = bed.typed_at(at, &arguments)?;
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.spawn().context("starting `vip-agent transfer`")
}

/// A shared IP of each family that go together, and others.
fn pair(others: &[IpAddr]) -> AgentConfig {
    AgentConfig::new(VIP)
        .with_vips(&[&BOTH[..], others].concat())
        .saying(&BOTH, "group: pair")
}

/// Starts n1's agent alone, which takes up everything, then the others, and a probe for the pair.
fn pair_up(bed: &mut Bed, config: impl Fn(usize) -> AgentConfig) -> Result<Probe> {
    bed.start_agent(0, &config(0))?;
    bed.all_owned(&config(0).vips, SETTLED_WITHIN)?;
    for index in [1, 2] {
        bed.start_agent(index, &config(index))?;
    }
    all_agree(bed)?;
    let probe = bed.probe_every(&BOTH, TICK)?;
    probe.steady(STEADY, SETTLED_WITHIN)?;
    Ok(probe)
}

/// Waits until all nodes know one owner of the pair, and returns it.
fn all_agree(bed: &Bed) -> Result<usize> {
    let first = bed.settled(BOTH[0], &ALL, SETTLED_WITHIN)?;
    let second = bed.settled(BOTH[1], &ALL, SETTLED_WITHIN)?;
    ensure!(first == second, "the pair is apart");
    Ok(first)
}

/// Has the pair handed over some times, each time from the owner that `prepare` leaves, by `hand_over`; prints and judges the client's outages.
fn play(
    what: &str,
    bed: &mut Bed,
    probe: &Probe,
    first: usize,
    mut prepare: impl FnMut(&mut Bed, usize) -> Result<usize>,
    mut hand_over: impl FnMut(&mut Bed, usize) -> Result<()>,
) -> Result<()> {
    let since = bed.cluster.revision()? + 1;
    let start = probe.mark()?;
    let mut outages = BOTH.map(|vip| (vip, Figures::default()));
    let mut owner = first;
    let mut left = rounds(ROUNDS)?;
    let mut voids = 0;
    while left > 0 {
        owner = prepare(bed, owner)?;
        probe.steady(UNBROKEN, SETTLED_WITHIN)?;
        let others: Vec<usize> = ALL.into_iter().filter(|index| *index != owner).collect();
        let leases = leases(bed, &others)?;
        let mark = probe.mark()?;
        hand_over(bed, owner)?;
        let old = bed.nodes[owner].name().to_owned();
        let next = wait::until(
            &format!("{what}: another owner than {old}"),
            SETTLED_WITHIN,
            || {
                let owners = bed.cluster.owners()?;
                let found = BOTH.map(|vip| owners.get(&vip).filter(|name| **name != old));
                Ok(found[0].filter(|_| found[0] == found[1]).cloned())
            },
        )?;
        owner = bed
            .nodes
            .iter()
            .position(|node| node.name() == next)
            .context("the owner is a node")?;
        probe.steady(UNBROKEN, SETTLED_WITHIN)?;
        let report = probe.since(mark)?;
        if self::leases(bed, &others)? != leases {
            voids += 1;
            say::line(&format!(
                "measured: {what}: a round is void: etcd stalled until leases ended (outage {})",
                say::told(report.longest_outage())
            ));
            ensure!(voids <= MOST_VOID, "etcd stalls again and again");
            continue;
        }
        left -= 1;
        for (vip, outages) in &mut outages {
            outages.add(report.of_vip(*vip)?.longest_outage());
        }
    }
    let report = probe.decided_since(start)?;
    let all: Vec<String> = outages
        .iter()
        .map(|(vip, outages)| format!("{vip} {outages}"))
        .collect();
    say::line(&format!(
        "measured: handover by {what}: {} (target {}, {}), rounds by two {}",
        all.join("; "),
        say::told(TARGET[0]),
        say::told(TARGET[1]),
        report.by_two()
    ));
    never_two(&report)?;
    bed.cluster.never_apart(&BOTH, since)?;
    for (vip, outages) in &outages {
        ensure!(
            outages.median() <= ALLOWED[0] && outages.worst() <= ALLOWED[1],
            "{what}: the outages of {vip} were far above their target: {outages:?}"
        );
    }
    Ok(())
}

/// The leases of nodes that take no harm by a handover: another lease is etcd's doing.
fn leases(bed: &Bed, of: &[usize]) -> Result<Vec<String>> {
    let lease = |index: &usize| Ok(bed.status(*index)?.text("/lease/id").to_owned());
    of.iter().map(lease).collect()
}

/// Two connections to one node, by the shared IP that stays there and by the node's own address.
struct Talk {
    index: usize,
    /// Of the node, and the revision of the other shared IP's owner key.
    held_by: (Vec<String>, i64),
    began: Instant,
    other: Conversation,
    own: Conversation,
}

impl Talk {
    fn begin(bed: &Bed, index: usize) -> Result<Talk> {
        let node = &bed.nodes[index];
        let own = node.interface("eth0")?.addresses.v4.into();
        let talk = |address| Conversation::begin(&bed.client, node.netns(), address);
        Ok(Talk {
            index,
            held_by: (leases(bed, &[index])?, bed.cluster.owner_revision(OTHER)?),
            other: talk(OTHER)?,
            own: talk(own)?,
            began: Instant::now(),
        })
    }

    fn end(self, bed: &Bed, what: &str) -> Result<()> {
        if leases(bed, &[self.index])? != self.held_by.0 {
            say::line(&format!(
                "measured: {what}: connections are not judged: etcd stalled until the node's lease ended"
            ));
            return Ok(());
        }
        if bed.cluster.owner_revision(OTHER)? != self.held_by.1 {
            let log = bed.agent_log(self.index)?;
            let other = OTHER.to_string();
            let of_other: Vec<&str> = log.lines().filter(|line| line.contains(&other)).collect();
            bail!("{other} did not stay: {of_other:#?}");
        }
        let other = self.other.end(self.began)?;
        let own = self.own.end(self.began)?;
        say::line(&format!(
            "measured: {what}: a connection of another shared IP was answered {} times, longest gap {}, {} segments sent again; to the node's own \
             address {} times, {}, {}",
            other.answered,
            say::told(other.longest_gap),
            other.sent_again,
            own.answered,
            say::told(own.longest_gap),
            own.sent_again
        ));
        ensure!(
            other.answered > 500 && other.sent_again == 0,
            "{what}: the connection was disturbed: {other:?}"
        );
        ensure!(
            other.longest_gap <= own.longest_gap + DISTURBED,
            "{what}: the connection waited: {other:?}, and to the node's own address {own:?}"
        );
        Ok(())
    }
}
