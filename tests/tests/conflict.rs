//! Machines that are no members and have, or claim, a shared IP. Each scenario has one of either family.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use pnet::util::MacAddr;
use vip_tests::addresses::Family;
use vip_tests::agent::AgentConfig;
use vip_tests::bed::{BOTH, Bed, Setup, VIP, scenario};
use vip_tests::failover::{SETTLED_WITHIN, STEADY, never_two, unnoticed, up};
use vip_tests::probe::socket::PacketSocket;
use vip_tests::stranger::{Stranger, announcement};
use vip_tests::wire::said::SOLICITED;
use vip_tests::wire::{Said, Sent, Tap};
use vip_tests::{say, wait};

const ALL: [usize; 3] = [0, 1, 2];
/// `DEFEND_INTERVAL` of RFC 5227, section 1.1.
const DEFEND_INTERVAL: Duration = Duration::from_secs(10);
/// An announcement goes out at once, and again after 1.1 s and 2.2 s.
const BURST: Duration = Duration::from_millis(2_200);
/// What a busy machine may be late by.
const LATE: Duration = Duration::from_secs(1);

#[test]
fn what_a_stranger_has_is_not_claimed_until_it_goes() -> Result<()> {
    scenario("a stranger has it first", Setup::default(), |bed| {
        let (stranger, tap) = (bed.stranger()?, bed.tap()?);
        for vip in BOTH {
            stranger.take(vip)?;
        }
        bed.start_agents(&both("defend"))?;
        for (vip, index) in everywhere() {
            wait::until_true("the agent to tell of the stranger", SETTLED_WITHIN, || {
                is_told(bed, vip, index, &stranger, "not-claimed")
            })?;
            let line = "the shared IP is in use by another machine; not claimed";
            log_says(bed, vip, index, &stranger, line)?;
            let text = bed.status_text(index)?;
            let line = format!("conflict {} claims it on eth0", stranger.mac());
            ensure!(text.contains(&line), "{text}");
            // An advertisement that answers one of them tells all.
            let sent = tap.all()?;
            let asks = |index| sent.iter().any(|sent| is_probe(sent, bed, vip, index));
            ensure!(ALL.into_iter().any(asks), "nobody asked for {vip}");
        }
        wait::holds("nobody claims them", DEFEND_INTERVAL, || {
            Ok(bed.owner_of(BOTH[0])?.is_none() && bed.owner_of(BOTH[1])?.is_none())
        })?;
        for (key, _) in bed.cluster.keys("/vip-agent")? {
            ensure!(!key.contains("owners"), "{key}");
        }
        let spoken = tap.all()?;
        for vip in BOTH {
            let spoken = spoken.iter().find(|sent| sent.spoken.speaks_for(vip));
            ensure!(spoken.is_none(), "{spoken:?}");
            stranger.leave(vip)?;
        }
        claimed_soon(bed)?;
        let probe = bed.probe(&BOTH)?;
        probe.steady(STEADY, SETTLED_WITHIN)?;
        never_two(&probe.finish()?)
    })
}

#[test]
fn a_first_claim_takes_no_longer_for_the_question() -> Result<()> {
    scenario("nobody has it", Setup::default(), |bed| {
        let tap = bed.tap()?;
        let started = Instant::now();
        bed.start_agents(&both("defend"))?;
        for vip in BOTH {
            let owner = bed.settled(vip, &ALL, SETTLED_WITHIN)?;
            let sent = tap.all()?;
            let announced = sent.iter().find(|sent| is_announcement(sent, vip));
            let after = announced.map(|sent| sent.at - started);
            say::line(&format!(
                "measured: {} announced {after:?} after the start of the first agent, with a TTL of 2 s",
                Family::from(vip)
            ));
            // The wait for what was found vacant, and what three agents take to start on a busy machine.
            ensure!(after.is_some_and(|after| after < Duration::from_secs(5)));
            let probes = sent.iter().filter(|sent| is_probe(sent, bed, vip, owner));
            let probes: Vec<_> = probes.map(|sent| sent.at - started).collect();
            ensure!(probes.len() == 3, "{probes:?}");
            ensure!(bed.status(owner)?.vip(vip)?.conflict().is_none());
        }
        Ok(())
    })
}

#[test]
fn a_stranger_that_comes_later_is_defended_against_once_in_ten_seconds() -> Result<()> {
    scenario("a stranger comes later", Setup::default(), |bed| {
        let (stranger, tap) = (bed.stranger()?, bed.tap()?);
        let (owner, probe) = up(bed, &both("defend"))?;
        quiet(&tap)?;
        let mark = probe.mark()?;
        let first = Instant::now();
        for vip in BOTH {
            stranger.announce(vip)?;
        }
        for vip in BOTH {
            wait::until_true("the owner to announce it again", SETTLED_WITHIN, || {
                Ok(!announced_since(&tap, first, vip)?.is_empty())
            })?;
        }
        probe.steady(STEADY, SETTLED_WITHIN)?;
        let report = probe.since(mark)?;
        say::line(&format!(
            "measured: defended after {:?}; longest outage {}",
            BOTH.map(|vip| Some(announced_since(&tap, first, vip).ok()?.first()?.0 - first)),
            report.told(|noticed| say::told(noticed.longest_outage()))
        ));
        ensure!(report.longest_outage() < LATE, "{report:#?}");
        for (vip, index) in everywhere() {
            let response = if index == owner {
                "defended"
            } else {
                "dropped"
            };
            wait::until_true("the agent to tell of the stranger", SETTLED_WITHIN, || {
                is_told(bed, vip, index, &stranger, response)
            })?;
            let line = "another machine claims the shared IP";
            log_says(bed, vip, index, &stranger, line)?;
        }

        // Again and again, for longer than one interval.
        let mut claimed = first;
        while first.elapsed() < DEFEND_INTERVAL + BURST + LATE {
            wait::until_true("the next claim", LATE, || Ok(claimed.elapsed() > LATE / 2))?;
            claimed = Instant::now();
            for vip in BOTH {
                stranger.announce(vip)?;
            }
        }
        for vip in BOTH {
            let announced = announced_since(&tap, first, vip)?;
            ensure!(announced.iter().all(|(_, node)| *node == owner));
            let bursts = bursts(&announced);
            ensure!(bursts.len() == 2, "{bursts:?} of {announced:?}");
            let apart = bursts[1] - bursts[0];
            let family = Family::from(vip);
            say::line(&format!(
                "measured: {family} defended again after {apart:?}"
            ));
            ensure!(apart >= DEFEND_INTERVAL - Duration::from_millis(100));
            let log = bed.agent_log(owner)?;
            let told = log.lines().filter(|line| tells_of(line, vip, &stranger));
            ensure!(told.count() <= 2, "{log}");
            ensure!(bed.settled(vip, &ALL, SETTLED_WITHIN)? == owner);
            // Members' kernels never heard of it.
            let mac = bed.nodes[owner].interface("eth0")?.mac.to_string();
            for node in bed
                .nodes
                .iter()
                .filter(|node| node.name() != bed.nodes[owner].name())
            {
                let entry = node.netns().neighbour(vip)?;
                ensure!(entry.contains(&mac), "{}: {entry}", node.name());
            }
        }
        probe.steady(STEADY, SETTLED_WITHIN)?;
        never_two(&probe.finish()?)
    })
}

#[test]
fn who_yields_gives_it_up_and_takes_it_again_when_the_stranger_has_gone() -> Result<()> {
    scenario("yield", Setup::default(), |bed| {
        let (stranger, tap) = (bed.stranger()?, bed.tap()?);
        let (owner, probe) = up(bed, &both("yield"))?;
        quiet(&tap)?;
        let taken = Instant::now();
        for vip in BOTH {
            stranger.take(vip)?;
            stranger.announce(vip)?;
            wait::until_true("the owner to give it up", SETTLED_WITHIN, || {
                Ok(!bed.nodes[owner].has_address(vip)? && bed.owner_of(vip)?.is_none())
            })?;
            let line = "left to it (on-conflict: yield)";
            log_says(bed, vip, owner, &stranger, line)?;
        }
        say::line(&format!(
            "measured: both given up after {:?}",
            taken.elapsed()
        ));
        // The stranger answered beside the owner until then, which is nobody's fault.
        let (mark, given_up) = (probe.mark()?, Instant::now());
        // Others neither: they ask first, and the stranger answers.
        wait::holds("nobody claims them", DEFEND_INTERVAL + BURST, || {
            Ok(bed.owner_of(BOTH[0])?.is_none() && bed.owner_of(BOTH[1])?.is_none())
        })?;
        for vip in BOTH {
            let announced = announced_since(&tap, given_up, vip)?;
            ensure!(announced.is_empty(), "{announced:?}");
            stranger.leave(vip)?;
        }
        claimed_soon(bed)?;
        probe.steady(STEADY, SETTLED_WITHIN)?;
        never_two(&probe.since(mark)?)
    })
}

#[test]
fn our_own_announcements_come_back_and_are_no_conflict() -> Result<()> {
    scenario("a loop", Setup::default(), |bed| {
        let (owner, probe) = up(bed, &both("yield"))?;
        let own = bed.nodes[owner].interface("eth0")?.mac;
        let mark = probe.mark()?;
        for (vip, index) in everywhere() {
            let before = bed.status(index)?.vip(vip)?;
            let port = bed.switch.port(bed.nodes[index].interface("eth0")?);
            let netns = bed.switch.netns();
            let socket = netns.within(|| PacketSocket::open(port, 0))?;
            socket.send(&announcement(own, vip));
            let counter = if index == owner {
                "looped"
            } else {
                "claims_passed"
            };
            wait::until_true("the frame to be counted", SETTLED_WITHIN, || {
                let after = bed.status(index)?.vip(vip)?;
                Ok(after.counter(counter) > before.counter(counter))
            })?;
            let after = bed.status(index)?.vip(vip)?;
            ensure!(
                after.counter("conflicts") == 0 && after.conflict().is_none(),
                "{:#}",
                after.0
            );
        }
        ensure!(!bed.agent_log(owner)?.contains("another machine"));
        probe.steady(STEADY, SETTLED_WITHIN)?;
        unnoticed("our own announcements come back", &probe, mark)?;
        for vip in BOTH {
            ensure!(bed.settled(vip, &ALL, SETTLED_WITHIN)? == owner);
        }
        never_two(&probe.finish()?)
    })
}

fn both(on_conflict: &str) -> AgentConfig {
    AgentConfig {
        vips: BOTH.to_vec(),
        on_conflict: on_conflict.to_owned(),
        ..AgentConfig::new(VIP)
    }
}

fn everywhere() -> impl Iterator<Item = (IpAddr, usize)> {
    BOTH.into_iter()
        .flat_map(|vip| ALL.map(|index| (vip, index)))
}

/// Once the stranger has been silent for 10 s, and has not answered since.
fn claimed_soon(bed: &Bed) -> Result<()> {
    let left = Instant::now();
    for vip in BOTH {
        bed.settled(vip, &ALL, DEFEND_INTERVAL + SETTLED_WITHIN)?;
        say::line(&format!(
            "measured: {} claimed {:?} after the stranger had gone",
            Family::from(vip),
            left.elapsed()
        ));
    }
    Ok(())
}

fn is_told(
    bed: &Bed,
    vip: IpAddr,
    index: usize,
    stranger: &Stranger,
    response: &str,
) -> Result<bool> {
    let mac = stranger.mac().to_string();
    let status = bed.status(index)?.vip(vip)?;
    Ok(status.conflict() == Some((&mac, response)) && status.counter("conflicts") > 0)
}

fn log_says(bed: &Bed, vip: IpAddr, index: usize, stranger: &Stranger, what: &str) -> Result<()> {
    let log = bed.agent_log(index)?;
    let told = |line: &str| line.contains(what) && tells_of(line, vip, stranger);
    ensure!(log.lines().any(told), "no `{what}` of {vip} in {log}");
    Ok(())
}

fn tells_of(line: &str, vip: IpAddr, stranger: &Stranger) -> bool {
    let via = match vip {
        IpAddr::V4(_) => "via=\"ARP re",
        IpAddr::V6(_) => "via=\"Neighbour Advertisement\"",
    };
    let mac = format!("mac={} ", stranger.mac());
    line.contains(&format!("vip={vip} ")) && line.contains(&mac) && line.contains(via)
}

/// Waits until the announcements of a take-over are over.
fn quiet(tap: &Tap) -> Result<()> {
    wait::until_true(
        "the take-over's announcements to end",
        SETTLED_WITHIN,
        || {
            let sent = tap.all()?;
            let mut announced = sent
                .iter()
                .filter(|sent| BOTH.iter().any(|vip| is_announcement(sent, *vip)));
            Ok(announced.all(|sent| sent.at.elapsed() > BURST + LATE))
        },
    )
}

/// When, and by which node.
fn announced_since(tap: &Tap, since: Instant, vip: IpAddr) -> Result<Vec<(Instant, usize)>> {
    let sent = tap.all()?;
    let announced = sent
        .iter()
        .filter(|sent| sent.at >= since && is_announcement(sent, vip));
    Ok(announced.map(|sent| (sent.at, sent.node)).collect())
}

fn is_announcement(sent: &Sent, vip: IpAddr) -> bool {
    match (&sent.spoken.said, vip) {
        (Said::Arp { sender, target, .. }, IpAddr::V4(vip)) => sender.1 == vip && target.1 == vip,
        (Said::Advertisement { flags, target, .. }, IpAddr::V6(vip)) => {
            *target == vip && flags & SOLICITED == 0
        }
        _ => false,
    }
}

/// A probe of a node's: of RFC 5227, section 2.1.1, or of RFC 4862, section 5.4.2.
fn is_probe(sent: &Sent, bed: &Bed, vip: IpAddr, index: usize) -> bool {
    let Ok(interface) = bed.nodes[index].interface("eth0") else {
        return false;
    };
    let from = interface.mac;
    let says = match (&sent.spoken.said, vip) {
        (
            Said::Arp {
                operation,
                sender,
                target,
            },
            IpAddr::V4(vip),
        ) => {
            let speaker = (from, Ipv4Addr::UNSPECIFIED);
            (*operation, *sender, *target) == (1, speaker, (MacAddr::zero(), vip))
                && sent.spoken.to == MacAddr::broadcast()
        }
        (
            Said::Solicitation {
                ip,
                target,
                link_layer,
            },
            IpAddr::V6(vip),
        ) => {
            let [.., a, b, c] = vip.octets();
            *target == vip
                && ip.0 == Ipv6Addr::UNSPECIFIED
                && link_layer.is_none()
                && sent.spoken.to == MacAddr::new(0x33, 0x33, 0xff, a, b, c)
        }
        _ => false,
    };
    says && sent.node == index && sent.spoken.from == from
}

/// When each burst of announcements began.
fn bursts(announced: &[(Instant, usize)]) -> Vec<Instant> {
    let mut bursts: Vec<Instant> = Vec::new();
    for (at, _) in announced {
        if bursts.last().is_none_or(|last| *at > *last + BURST + LATE) {
            bursts.push(*at);
        }
    }
    bursts
}
