//! One fail-over from fault to verdict: what the scenarios and the demo have in common.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::agent::AgentConfig;
use crate::bed::{Bed, VIP};
use crate::probe::client::Mark;
use crate::probe::{Probe, Report};
use crate::say;

/// How long a cluster may take to agree on an owner, on a busy machine.
pub const SETTLED_WITHIN: Duration = Duration::from_secs(30);
/// How long the client must have been answered without a gap before anything is broken, and before an outage counts as over.
pub const STEADY: Duration = Duration::from_secs(1);

/// What a fault did.
pub struct Failover {
    /// Who owned the shared IP before.
    pub old: usize,
    /// Who owns it now.
    pub new: usize,
    /// The last instant before the fault.
    pub mark: Mark,
    /// What the client noticed, up to [`STEADY`] after it was served again.
    pub report: Report,
}

/// Starts all agents and a probe, and waits until the client is served steadily; returns the owner.
pub fn up(bed: &mut Bed, config: &AgentConfig) -> Result<(usize, Probe)> {
    bed.start_agents(config)?;
    let all: Vec<usize> = (0..bed.nodes.len()).collect();
    let owner = bed.settled(VIP, &all, SETTLED_WITHIN)?;
    let probe = bed.probe(VIP)?;
    probe.steady(STEADY, SETTLED_WITHIN)?;
    Ok((owner, probe))
}

/// Breaks the owner and waits until another serves the client steadily.
pub fn fail_over(
    bed: &mut Bed,
    probe: &Probe,
    old: usize,
    fault: impl FnOnce(&mut Bed) -> Result<()>,
) -> Result<Failover> {
    probe.steady(STEADY, SETTLED_WITHIN)?;
    let mark = probe.mark()?;
    fault(bed)?;
    let new = bed.next_owner(VIP, old, SETTLED_WITHIN)?;
    probe.steady(STEADY, SETTLED_WITHIN)?;
    Ok(Failover {
        old,
        new,
        mark,
        report: probe.since(mark)?,
    })
}

/// After the fault was mended: waits until all agree again and nothing moves, and checks that no round since the fault was answered by two.
pub fn calm(bed: &Bed, probe: &Probe, failover: &Failover) -> Result<Report> {
    let all: Vec<usize> = (0..bed.nodes.len()).collect();
    let owner = bed.settled(VIP, &all, SETTLED_WITHIN)?;
    ensure!(
        owner == failover.new,
        "{} took the shared IP back",
        bed.nodes[owner].name()
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
        "measured: {what}: {} of {} rounds missed (target at most {MOST_MISSED}); longest outage {}, the probe's own longest pause {}",
        report.missed,
        report.rounds,
        say::told(report.longest_outage()),
        say::told(report.longest_pause)
    ));
    never_two(&report)?;
    ensure!(
        report.missed <= MOST_MISSED,
        "{what}: the client noticed: {report:#?}"
    );
    Ok(report)
}

/// Fails if any round was answered by two, or an answer contradicted itself.
pub fn never_two(report: &Report) -> Result<()> {
    ensure!(report.by_two == 0, "rounds answered by two: {report:#?}");
    ensure!(
        report.oddities.is_empty(),
        "answers that contradict themselves: {report:#?}"
    );
    Ok(())
}
