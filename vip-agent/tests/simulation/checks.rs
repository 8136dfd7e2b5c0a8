//! What must hold, and at which step it is looked at.

use std::{net::IpAddr, time::Duration};

use vip_agent::election::BootInstant;

use super::{clock::TrueNs, etcd::Etcd, node::Node, schedule::Conduct};

/// A rule that did not hold.
#[derive(Clone, Debug, thiserror::Error)]
#[error("at {:?}: {what}", Duration::from_nanos(*at))]
pub struct Violation {
    pub at: TrueNs,
    pub what: Broken,
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum Broken {
    /// Invariant 1.
    #[error("two gates open for {vip}: {nodes:?}")]
    TwoOpenGates { vip: IpAddr, nodes: [String; 2] },
    /// A gate stands open, and the key is not on the lease that it was opened on.
    #[error("{node}'s gate for {vip} is open without the key")]
    OpenWithoutTheKey { vip: IpAddr, node: String },
    #[error("{node} removes {vip} behind an open gate")]
    AddressRemovedBehindAnOpenGate { vip: IpAddr, node: String },
    #[error("{node} gives up the key of {vip} before gate and address")]
    KeyGivenUpBeforeGateAndAddress { vip: IpAddr, node: String },
    /// All was well for long enough, and nobody serves it.
    #[error("nobody serves {vip}")]
    NobodyServes { vip: IpAddr },
    /// The store's history has been one and the same.
    #[error("{node} sees another history where there is none")]
    FalseAlarm { node: String },
    /// Every node has a name of its own.
    #[error("{node} takes what it left behind for another machine")]
    TakesItselfForAnother { node: String },
    #[error("{node} claims {vip}, although it heard a stranger do so, or asked nobody")]
    ClaimsWhatAStrangerHas { vip: IpAddr, node: String },
    #[error(
        "{node} hands {vip} over behind an open gate, or without one and with the address there"
    )]
    HandedOverWhileServed { vip: IpAddr, node: String },
    #[error("{node} hands {vip} over to {to}, which has not said that it is ready for this")]
    HandedOverUnready {
        vip: IpAddr,
        node: String,
        to: String,
    },
    #[error("{vip} was handed over to {to}, on a lease that is not its")]
    HandedOverToNobody { vip: IpAddr, to: String },
    #[error("{node} opens {vip} on a revision that it gave up")]
    OpensOnWhatItGaveUp { vip: IpAddr, node: String },
    #[error("{node} claims {vip}, and knows that it is drained")]
    ClaimsWhileDrained { vip: IpAddr, node: String },
    #[error("{node} claims a part of a group without {vip}, which is not its own")]
    ClaimsHalfAGroup { vip: IpAddr, node: String },
    /// All was well for long enough.
    #[error("{what}")]
    Misplaced { what: String },
    /// Events that cause one another without end.
    #[error("{node} works without end")]
    Livelock { node: String },
}

/// At most one open gate, and that one on what is in etcd.
pub fn gates(now: TrueNs, vip: IpAddr, nodes: &[Node], etcd: &Etcd) -> Result<(), Broken> {
    let mut open = nodes.iter().filter(|node| node.is_gate_open(vip, now));
    let Some(first) = open.next() else {
        return Ok(());
    };
    if let Some(second) = open.next() {
        let nodes = [first.name.clone(), second.name.clone()];
        return Err(Broken::TwoOpenGates { vip, nodes });
    }
    let lease = etcd.owner(vip).map(|owner| owner.lease);
    if first.open_on(vip) != lease {
        let node = first.name.clone();
        return Err(Broken::OpenWithoutTheKey { vip, node });
    }
    Ok(())
}

/// The gate is shut, by the agent's own word, before the address goes.
pub fn withdrawal(vip: IpAddr, node: &Node) -> Result<(), Broken> {
    if node.open_epoch(vip).is_some() {
        let node = node.name.clone();
        return Err(Broken::AddressRemovedBehindAnOpenGate { vip, node });
    }
    Ok(())
}

/// Gate and address are away before the key goes.
pub fn give_up(vip: IpAddr, node: &Node) -> Result<(), Broken> {
    if node.open_epoch(vip).is_some() || node.kernel.addresses.contains_key(&vip) {
        let node = node.name.clone();
        return Err(Broken::KeyGivenUpBeforeGateAndAddress { vip, node });
    }
    Ok(())
}

/// Who yields claims nothing that a stranger was heard to claim within 10 s; who probes, nothing that
/// was only found vacant, and then not without having asked thrice.
pub fn claim(vip: IpAddr, node: &Node, now: BootInstant, conduct: Conduct) -> Result<(), Broken> {
    const SILENCE: Duration = Duration::from_secs(10);
    let process = node.process.as_ref();
    let heard = process.and_then(|process| process.strangers.get(&vip).copied());
    let heard = heard.unwrap_or_default();
    let is_there = heard.at.is_some_and(|at| now < at + SILENCE);
    let is_asked_for = conduct.probes && heard.asked.is_some();
    let unasked = is_asked_for && heard.asked < Some(3);
    if is_there && (conduct.yields || is_asked_for) || unasked {
        let node = node.name.clone();
        return Err(Broken::ClaimsWhatAStrangerHas { vip, node });
    }
    Ok(())
}

/// Gate shut, and where there is none the address away, before the key is another's.
pub fn hand_over(vip: IpAddr, node: &Node) -> Result<(), Broken> {
    let is_there = !node.fenced && node.kernel.addresses.contains_key(&vip);
    if node.open_epoch(vip).is_some() || is_there {
        let node = node.name.clone();
        return Err(Broken::HandedOverWhileServed { vip, node });
    }
    Ok(())
}
