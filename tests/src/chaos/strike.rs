//! Breaks and mends parts of the bed without waiting for what follows.

use anyhow::Result;
use nix::sys::signal::Signal;

use super::plan::Kind;
use super::timeline::{Event, Timeline};
use crate::agent::AgentConfig;
use crate::bed::{BOTH, Bed};

/// Does it to a node.
pub fn strike(bed: &mut Bed, timeline: &mut Timeline, kind: Kind, node: usize) -> Result<()> {
    let mut had_address = false;
    match kind {
        Kind::Stop => bed.agent(node)?.signal(Signal::SIGTERM)?,
        Kind::Hold => bed.agent(node)?.signal(Signal::SIGUSR1)?,
        Kind::Kill => bed.kill_agent(node)?,
        Kind::Freeze => bed.freeze_agent(node)?,
        Kind::Cable => bed.pull_cable(node)?,
        Kind::CutOff => bed.cut_off_from_etcd(node)?,
        Kind::PowerCut => bed.cut_power(node)?,
        Kind::EtcdKilled => bed.cluster.stop(node)?,
        Kind::EtcdFrozen => bed.cluster.signal(node, Signal::SIGSTOP)?,
        Kind::AddressDeleted => {
            for vip in BOTH {
                if bed.nodes[node].has_address(vip)? {
                    had_address = true;
                    // Its owner may have been quicker to give it up.
                    let _ = bed.delete_address(node, vip);
                }
            }
        }
    }
    // Deleting what is not there breaks nothing.
    if kind != Kind::AddressDeleted || had_address {
        timeline.note(Event::Fault);
    }
    parts(kind, node, false).for_each(|event| timeline.note(event));
    Ok(())
}

/// Undoes it.
pub fn mend(
    bed: &mut Bed,
    timeline: &mut Timeline,
    config: &AgentConfig,
    kind: Kind,
    node: usize,
) -> Result<()> {
    match kind {
        Kind::Stop | Kind::Hold => {
            bed.agent_ends(node)?;
            bed.start_agent(node, config)?;
        }
        Kind::Kill => bed.start_agent(node, config)?,
        Kind::Freeze => bed.thaw_agent(node)?,
        Kind::Cable => bed.plug_cable(node)?,
        Kind::CutOff => bed.reconnect_to_etcd(node)?,
        Kind::PowerCut => {
            bed.boot(node)?;
            bed.start_agent(node, config)?;
        }
        Kind::EtcdKilled => bed.cluster.start(node)?,
        Kind::EtcdFrozen => bed.cluster.signal(node, Signal::SIGCONT)?,
        Kind::AddressDeleted => {}
    }
    parts(kind, node, true).for_each(|event| timeline.note(event));
    Ok(())
}

/// What it takes away of a node and gives back; etcd's part is asked of etcd.
fn parts(kind: Kind, node: usize, there: bool) -> impl Iterator<Item = Event> {
    let agent = Some(Event::Agent(node, there));
    let lan = Some(Event::Lan(node, there));
    let mgmt = Some(Event::Mgmt(node, there));
    let parts = match kind {
        Kind::Stop | Kind::Hold | Kind::Kill | Kind::Freeze => [agent, None, None],
        Kind::Cable => [lan, None, None],
        Kind::CutOff => [mgmt, None, None],
        Kind::PowerCut => [agent, lan, mgmt],
        Kind::EtcdKilled | Kind::EtcdFrozen | Kind::AddressDeleted => [None; 3],
    };
    parts.into_iter().flatten()
}
