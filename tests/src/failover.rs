//! One fail-over from fault to verdict: what the scenarios and the demo have in common.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::addresses::Family;
use crate::agent::AgentConfig;
use crate::bed::{BOTH, Bed};
use crate::probe::client::Mark;
use crate::probe::{Probe, Report};
use crate::say;

/// How long a cluster may take to agree on an owner, on a busy machine.
pub const SETTLED_WITHIN: Duration = Duration::from_secs(30);
/// How long the client must have been answered without a gap before anything is broken, and before an outage counts as over.
pub const STEADY: Duration = Duration::from_secs(1);

/// What a fault did.
pub struct Failover {
    /// Who owned the shared IPs before.
    pub old: usize,
    /// Who owns the first of them now.
    pub new: usize,
    /// Who owns which now.
    pub owners: Vec<(IpAddr, usize)>,
    /// The last instant before the fault.
    pub mark: Mark,
    /// What the client noticed, up to [`STEADY`] after it was served again.
    pub report: Report,
}

/// Starts all agents and a probe for the first shared IP of each family, and waits until the client is served steadily; returns the node that owns them.
pub fn up(bed: &mut Bed, config: &AgentConfig) -> Result<(usize, Probe)> {
    let owner = agents_up(bed, config)?;
    let probe = bed.probe(&first_of_each_family(&config.vips))?;
    probe.steady(STEADY, SETTLED_WITHIN)?;
    Ok((owner, probe))
}

/// Starts all agents, and waits until all agree; returns the node that owns the first shared IP of each family.
pub fn agents_up(bed: &mut Bed, config: &AgentConfig) -> Result<usize> {
    let vips = first_of_each_family(&config.vips);
    let all: Vec<usize> = (0..bed.nodes.len()).collect();
    // With several one starts alone, and has taken up all when the others come: so a fault hits all at one instant.
    let alone = if vips.len() > 1 { 1 } else { all.len() };
    for some in [&all[..alone], &all[alone..]] {
        for index in some {
            bed.start_agent(*index, config)?;
        }
        for vip in &vips {
            bed.settled(*vip, some, SETTLED_WITHIN)?;
        }
    }
    let owners = owners(bed, &vips, &all)?;
    let owner = owners[0].1;
    ensure!(
        owners.iter().all(|(_, other)| *other == owner),
        "the shared IPs are not on one node: {owners:?}"
    );
    Ok(owner)
}

/// Breaks the owner of all that the probe asks for, and waits until others serve the client steadily.
pub fn fail_over(
    bed: &mut Bed,
    probe: &Probe,
    old: usize,
    fault: impl FnOnce(&mut Bed) -> Result<()>,
) -> Result<Failover> {
    probe.steady(STEADY, SETTLED_WITHIN)?;
    let mark = probe.mark()?;
    fault(bed)?;
    let next = probe.vips().iter().map(|vip| {
        let next = bed.next_owner(*vip, old, SETTLED_WITHIN)?;
        Ok((*vip, next))
    });
    let owners = next.collect::<Result<Vec<_>>>()?;
    probe.steady(STEADY, SETTLED_WITHIN)?;
    Ok(Failover {
        old,
        new: owners[0].1,
        owners,
        mark,
        report: probe.since(mark)?,
    })
}

/// After the fault was mended: waits until all agree again and nothing moves, and checks that no round since the fault was answered by two.
pub fn calm(bed: &Bed, probe: &Probe, failover: &Failover) -> Result<Report> {
    let all: Vec<usize> = (0..bed.nodes.len()).collect();
    let now = owners(bed, probe.vips(), &all)?;
    ensure!(
        now == failover.owners,
        "shared IPs changed hands again: {:?}, then {now:?}",
        failover.owners
    );
    // Long enough for a late give-up or announcement of the old owner to show.
    probe.steady(2 * STEADY, SETTLED_WITHIN)?;
    let report = probe.since(failover.mark)?;
    never_two(&report)?;
    Ok(report)
}

/// At most so many rounds, of 2 ms, may a client miss of what is to be no outage.
pub const MOST_MISSED: usize = 2;

/// Waits until all rounds since a mark are decided, and checks that the client missed next to none and none was answered by two. A busy machine
/// does not fail this: see [`Report::missed`].
pub fn unnoticed(what: &str, probe: &Probe, mark: Mark) -> Result<Report> {
    let report = probe.decided_since(mark)?;
    say::line(&format!(
        "measured: {what}: of {} rounds missed {} (target at most {MOST_MISSED}); longest outage {}, the probe's own longest pause {}",
        report.rounds,
        report.told(|noticed| noticed.missed.to_string()),
        report.told(|noticed| say::told(noticed.longest_outage())),
        say::told(report.longest_pause)
    ));
    never_two(&report)?;
    ensure!(
        report.missed() <= MOST_MISSED,
        "{what}: the client noticed: {report:#?}"
    );
    Ok(report)
}

/// Fails if any round was answered by two, or an answer contradicted itself.
pub fn never_two(report: &Report) -> Result<()> {
    ensure!(report.by_two() == 0, "rounds answered by two: {report:#?}");
    ensure!(
        report.oddities.is_empty(),
        "answers that contradict themselves: {report:#?}"
    );
    Ok(())
}

/// The revisions of the owner keys of [`BOTH`], as an agent knows them: the same for as long as nothing changes hands.
pub fn epochs(bed: &Bed, index: usize) -> Result<Vec<u64>> {
    let status = bed.status(index)?;
    let epochs = BOTH.iter().map(|vip| Ok(status.vip(*vip)?.epoch()));
    epochs.collect()
}

fn owners(bed: &Bed, vips: &[IpAddr], known_to: &[usize]) -> Result<Vec<(IpAddr, usize)>> {
    let owners = vips
        .iter()
        .map(|vip| Ok((*vip, bed.settled(*vip, known_to, SETTLED_WITHIN)?)));
    owners.collect()
}

fn first_of_each_family(vips: &[IpAddr]) -> Vec<IpAddr> {
    let of = |family| vips.iter().find(|vip| Family::from(**vip) == family);
    let firsts = [Family::Ipv4, Family::Ipv6].into_iter().filter_map(of);
    firsts.copied().collect()
}
