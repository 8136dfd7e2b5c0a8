//! Random faults on the real testbed, several at once, under a client that never stops asking.
//!
//! | module | what it knows |
//! |---|---|
//! | [`plan`] | which faults, when, on whom: from a seed |
//! | [`strike`] | how to break and mend them |
//! | [`health`], [`timeline`] | from when on an outage could have ended |
//! | [`findings`] | the table at the end |

pub mod findings;
pub mod health;
pub mod plan;
pub mod strike;
pub mod timeline;

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::agent::AgentConfig;
use crate::bed::{Bed, Setup, VIP};
use crate::failover::{SETTLED_WITHIN, STEADY, up};
use crate::interrupt;
use crate::netns::Netns;
use crate::probe::{Outage, Probe};
use crate::say::told;

use findings::{Findings, Outcome, Row};
use health::Health;
use plan::{Fault, Storms, Target};
use timeline::{Event, Timeline};

/// The TTL of the agents in a run.
pub const TTL: Duration = Duration::from_secs(2);
/// How soon after it could end an outage has to end: the TTL, what etcd adds to it after its own election, its 500 ms tick, and the claim.
pub const BOUND: Duration = Duration::from_millis(3_800);

/// The bed that a run wants: etcd on a network of its own, so that each can fail alone.
pub const SETUP: Setup = Setup {
    nodes: 3,
    mgmt: true,
    two_cables: false,
    security: crate::etcd::Security::Open,
    etcd: true,
};

/// Storms for so long, and what came of them. Every storm is told as it ends.
pub fn run(bed: &mut Bed, lasting: Duration, seed: u64, tell: impl Fn(&str)) -> Result<Findings> {
    let began = Instant::now();
    let config = AgentConfig::of_both_families();
    let (_, probe) = up(bed, &config)?;
    let mut run = Run::begin(bed, &probe, config)?;
    for (number, storm) in (1..).zip(Storms::new(seed, bed.nodes.len())) {
        if began.elapsed() >= lasting {
            break;
        }
        let told = run
            .weather(bed, &storm)
            .with_context(|| format!("storm {number} of seed {seed}: {storm:?}"))?;
        tell(&format!(
            "{:>4} s  storm {number}: {told}",
            began.elapsed().as_secs()
        ));
    }
    let mut findings = run.findings;
    let report = probe.finish()?;
    findings.rounds = report.rounds;
    findings.by_two = report.by_two();
    findings.oddities = report.oddities;
    Ok(findings)
}

struct Run<'a> {
    probe: &'a Probe,
    health: Health,
    timeline: Timeline,
    config: AgentConfig,
    findings: Findings,
}

impl<'a> Run<'a> {
    fn begin(bed: &Bed, probe: &'a Probe, config: AgentConfig) -> Result<Run<'a>> {
        let mut timeline = Timeline::default();
        for node in 0..bed.nodes.len() {
            timeline.note(Event::Agent(node, true));
            timeline.note(Event::Lan(node, true));
            timeline.note(Event::Mgmt(node, true));
        }
        let members: Vec<Netns> = bed.nodes.iter().map(|node| node.netns().clone()).collect();
        Ok(Run {
            probe,
            health: Health::watch(&members)?,
            timeline,
            config,
            findings: Findings::default(),
        })
    }

    /// Lets a storm pass, waits until all is well again, and says what the client noticed.
    fn weather(&mut self, bed: &mut Bed, storm: &[Fault]) -> Result<String> {
        let owner = bed
            .owner_of(VIP)?
            .context("nobody owned the shared IP before it")?;
        let mark = self.probe.mark()?;
        self.play(bed, storm, owner)?;
        self.settle(bed)?;
        let report = self.probe.since(mark)?;
        let waited = report
            .outages()
            .map(|outage| self.waited(outage, bed.nodes.len()));
        let waited = waited.collect::<Result<Vec<_>>>()?;
        let row = match storm {
            [one] => Row::Alone(one.kind, one.target == Target::Owner),
            _ => Row::Several,
        };
        let outcome = Outcome {
            row,
            outage: report.longest_outage(),
            after_it_could_end: waited.into_iter().max().unwrap_or_default(),
        };
        self.findings.outcomes.push(outcome);
        let faults = storm.iter().map(|fault| {
            let name = bed.nodes[place(fault, owner, bed.nodes.len())].name();
            let lasts = told(fault.ends - fault.begins);
            format!("{name} {} ({lasts})", fault.kind)
        });
        Ok(format!(
            "{} owned; {}; outage {}; {} after it could end; answered by two: {}",
            bed.nodes[owner].name(),
            faults.collect::<Vec<_>>().join(", "),
            report.told(|noticed| told(noticed.longest_outage())),
            told(outcome.after_it_could_end),
            report.told(|noticed| noticed.by_two.to_string())
        ))
    }

    fn play(&mut self, bed: &mut Bed, storm: &[Fault], owner: usize) -> Result<()> {
        let breaks = storm.iter().map(|fault| (fault.begins, true, fault));
        let mends = storm.iter().map(|fault| (fault.ends, false, fault));
        let mut steps: Vec<_> = breaks.chain(mends).collect();
        // A fault that lasts no time is broken first.
        steps.sort_by_key(|(at, breaks, _)| (*at, !breaks));
        let began = Instant::now();
        for (at, breaks, fault) in steps {
            pause_until(began + at)?;
            let node = place(fault, owner, bed.nodes.len());
            if breaks {
                *self.findings.faults.entry(fault.kind).or_default() += 1;
                strike::strike(bed, &mut self.timeline, fault.kind, node)?;
            } else {
                strike::mend(bed, &mut self.timeline, &self.config, fault.kind, node)?;
            }
        }
        Ok(())
    }

    fn settle(&mut self, bed: &mut Bed) -> Result<()> {
        bed.cluster.ready()?;
        let all: Vec<usize> = (0..bed.nodes.len()).collect();
        for index in &all {
            if let Some(status) = bed.agent(*index)?.exited()? {
                bail!(
                    "the agent on {} has ended with {status}",
                    bed.nodes[*index].name()
                );
            }
        }
        for vip in self.probe.vips() {
            bed.settled(*vip, &all, SETTLED_WITHIN)?;
        }
        self.probe.steady(STEADY, SETTLED_WITHIN)
    }

    fn waited(&self, outage: &Outage, nodes: usize) -> Result<Duration> {
        let began = self.probe.started() + outage.began;
        let ended = began + outage.lasted;
        let timeline = self.timeline.with(&self.health.changes()?);
        // Not at all, if it ended although by what we saw it could not.
        let from = timeline
            .could_end_from(began, ended, nodes)
            .unwrap_or(ended);
        Ok(ended - from)
    }
}

fn place(fault: &Fault, owner: usize, nodes: usize) -> usize {
    match fault.target {
        Target::Owner => owner,
        Target::Behind(places) => (owner + places) % nodes,
    }
}

/// The plan's own time: nothing is waited for here.
fn pause_until(at: Instant) -> Result<()> {
    while let Some(left) = at.checked_duration_since(Instant::now()) {
        interrupt::check()?;
        thread::sleep(left.min(Duration::from_millis(50)));
    }
    Ok(())
}
