//! What this node knows of the cluster, for people: who holds what, who is next, and what may be asked for.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use super::{
    DrainRecord, Election, LeaseId, MemberRecord, OwnerRecord, handover::Stage,
    placement::Placement, units::UnitId,
};

/// What moves as one, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitView<'a> {
    /// Its shared IPs.
    pub vips: &'a [IpAddr],
    /// The name of its group, if it is one.
    pub group: Option<&'a str>,
    /// Who owns it. Those who own its parts, where a group has not come together.
    pub owners: Vec<OwnerView<'a>>,
    /// Who could take it from its owner, who would be first.
    pub line: Vec<Candidate<'a>>,
}

/// Who owns a shared IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnerView<'a> {
    /// The node on whose lease its key is; what the record says, if that is no member's.
    pub node: &'a str,
    /// The record.
    pub record: &'a OwnerRecord,
}

/// A member that could take a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// Its name.
    pub node: &'a str,
    /// Its priority for the unit: the highest that it has for one of it.
    pub priority: u8,
    /// How many shared IPs it holds.
    pub holds: usize,
}

/// Why a node cannot take a shared IP, and what moves with it: what follows its name in a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// It is drained. Since when, in RFC 3339, as far as its record says.
    Drained(String),
    /// It says why it cannot, or should not.
    Unfit(IpAddr, String),
    /// It does not offer to: it is not configured there, or the node is leaving.
    NotOffered(IpAddr),
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Drained(since) if since.is_empty() => write!(f, "is drained"),
            Self::Drained(since) => write!(f, "is drained since {since}"),
            Self::Unfit(vip, why) => write!(f, "is not fit for {vip}: {why}"),
            Self::NotOffered(vip) => {
                write!(f, "does not offer {vip}: not configured there, or leaving")
            }
        }
    }
}

/// Why a shared IP cannot go where somebody wants it to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskRefused {
    /// This node is no member, or has lost sight of etcd: it cannot ask, and does not know.
    #[error("this node is no member at present, or has lost sight of etcd; see `vip-agent status`")]
    NotIn,
    /// It is none of the shared IPs of this node.
    #[error("{vip} is no shared IP of this node; it has {}", a_few(known, 5))]
    UnknownVip {
        /// What was asked for.
        vip: IpAddr,
        /// What there is.
        known: Vec<IpAddr>,
    },
    /// It is with nobody, so nobody can hand it over.
    #[error("nobody owns {0} at present: whoever is next in line claims it")]
    Vacant(IpAddr),
    /// There is no such member.
    #[error("{to} is no member; members are {}", members.join(", "))]
    NoMember {
        /// Who was asked for.
        to: String,
        /// Who there is.
        members: Vec<String>,
    },
    /// It is a member, and will not take it.
    #[error("{to} {obstacle}{}", mend(to, obstacle))]
    Hindered {
        /// Who was asked for.
        to: String,
        /// What stands in the way.
        obstacle: Obstacle,
    },
    /// It is there already, with all that moves with it.
    #[error("{to} owns it already")]
    AlreadyThere {
        /// Who was asked for.
        to: String,
    },
}

fn mend(to: &str, obstacle: &Obstacle) -> String {
    match obstacle {
        Obstacle::Drained(_) => format!("; `vip-agent undrain --node {to}` first"),
        Obstacle::Unfit(..) | Obstacle::NotOffered(_) => String::new(),
    }
}

/// How far a hand-over has come that somebody waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Passage {
    /// All of the unit is there.
    There,
    /// The node is no member any more, or will not take it.
    Refused(AskRefused),
    /// These owners have not named it as their successor.
    NotNamed(Vec<String>),
    /// It was named, and has not said that it is ready.
    NotReady,
    /// It has, and these owners have not put the keys on its lease yet.
    NotGiven(Vec<String>),
    /// It is there, and about to go to this other node.
    Leaving(String),
    /// Somebody else was asked for here since.
    Superseded(String),
}

/// A hand-over that this node makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passing<'a> {
    /// To whom.
    pub to: &'a str,
    /// Why.
    pub why: super::Why,
    /// Whether the successor is still waited for: the gate is open until it is ready.
    pub waits: bool,
}

impl OwnerView<'_> {
    /// Whether it is this node's, and is not about to go elsewhere.
    fn stays_at(&self, node: &str) -> bool {
        self.node == node && self.record.successor.is_none()
    }
}

impl Election {
    /// The drained nodes, members or not.
    pub fn drained(&self) -> &BTreeMap<String, DrainRecord> {
        &self.view.drained
    }

    /// Whether what this node knows of the cluster is what etcd has, as far as anybody can tell.
    pub fn sees_cluster(&self) -> bool {
        self.view.is_watching() && self.is_lease_good()
    }

    /// Whether this node has heard of all that etcd holds up to this revision.
    pub fn knows_all_to(&self, revision: i64) -> bool {
        !self.view.is_news(revision)
    }

    /// Whether a shared IP can be handed to a node, with all that moves with it. Refused only for what
    /// is known here; the owner may know better.
    pub fn may_go(&self, vip: IpAddr, to: &str) -> Result<(), AskRefused> {
        if !self.is_joined() || !self.sees_cluster() {
            return Err(AskRefused::NotIn);
        }
        let unit = self.unit(vip)?;
        self.may_take(unit, to)?;
        let owners = self.owners_of(unit);
        if owners.is_empty() {
            return Err(AskRefused::Vacant(vip));
        }
        if owners.len() == unit.len() && owners.iter().all(|(_, owner)| owner.stays_at(to)) {
            return Err(AskRefused::AlreadyThere { to: to.to_owned() });
        }
        Ok(())
    }

    /// How far the hand-over has come that was asked for.
    pub fn passage(&self, vip: IpAddr, to: &str) -> Passage {
        let unit = match self.unit(vip) {
            Ok(unit) => unit,
            Err(refused) => return Passage::Refused(refused),
        };
        let owners = self.owners_of(unit);
        let elsewhere = || owners.iter().filter(|(_, owner)| owner.node != to);
        if owners.len() == unit.len() && owners.iter().all(|(_, owner)| owner.stays_at(to)) {
            return Passage::There;
        }
        if let Err(refused) = self.may_take(unit, to) {
            return Passage::Refused(refused);
        }
        if let Some((other, _)) = self
            .handovers
            .asked_of_us(vip)
            .filter(|(one, _)| *one != to)
        {
            return Passage::Superseded(other.to_owned());
        }
        if elsewhere().next().is_none()
            && let Some(next) = owners
                .iter()
                .find_map(|(_, owner)| owner.record.successor.as_ref())
        {
            return Passage::Leaving(next.clone());
        }
        let names = |owners: &mut dyn Iterator<Item = &(IpAddr, OwnerView<'_>)>| {
            let mut names: Vec<String> = owners.map(|(_, owner)| owner.node.to_owned()).collect();
            names.sort();
            names.dedup();
            names
        };
        let is_named = |owner: &OwnerView<'_>| owner.record.successor.as_deref() == Some(to);
        let mut unnamed = elsewhere().filter(|(_, owner)| !is_named(owner)).peekable();
        if unnamed.peek().is_some() {
            return Passage::NotNamed(names(&mut unnamed));
        }
        let member = self.view.members.get(to).map(|member| &member.record);
        let is_ready = |vip: &IpAddr| member.is_some_and(|one| self.vips[vip].is_awaited_by(one));
        if elsewhere().all(|(vip, _)| is_ready(vip)) {
            Passage::NotGiven(names(&mut elsewhere()))
        } else {
            Passage::NotReady
        }
    }

    /// The shared IPs that move with this one, itself included; none if it is none of this node's.
    pub fn moves_with(&self, vip: IpAddr) -> &[IpAddr] {
        self.units.of(vip).map_or(&[], |id| self.units.ips(id))
    }

    /// What each node holds, by its lease; what is on nobody's is left out.
    pub fn holdings(&self) -> BTreeMap<&str, Vec<IpAddr>> {
        let members = self.view.members.iter();
        let names: BTreeMap<i64, &str> =
            members.map(|(name, one)| (one.lease.0, &**name)).collect();
        let foreign = self.view.holders.iter();
        let foreign = foreign.filter(|(ip, _)| !self.vips.contains_key(ip));
        let own = self.vips.values();
        let own = own.filter_map(|vip| Some((&vip.ip, &vip.held()?.lease)));
        let mut holdings: BTreeMap<&str, Vec<IpAddr>> = BTreeMap::new();
        for (ip, lease) in foreign.chain(own) {
            if let Some(name) = names.get(&lease.0) {
                holdings.entry(name).or_default().push(*ip);
            }
        }
        for vips in holdings.values_mut() {
            vips.sort();
        }
        holdings
    }

    /// All units of this node, each with its owner and who would be next.
    pub fn units(&self) -> Vec<UnitView<'_>> {
        let placement = self.placement();
        let ids = self.units.ids().into_iter();
        ids.map(|id| self.unit_view(id, &placement)).collect()
    }

    /// Who could take a shared IP from its owner, who would be first.
    pub fn line(&self, vip: IpAddr) -> Vec<Candidate<'_>> {
        let unit = self.units.of(vip);
        unit.map_or_else(Vec::new, |id| self.unit_view(id, &self.placement()).line)
    }

    /// Of each member but `owner` why it cannot take a shared IP, and what moves with it; none where there is
    /// one that can.
    pub fn obstacles(&self, vip: IpAddr, owner: &str) -> Option<BTreeMap<&str, Obstacle>> {
        let unit = match self.moves_with(vip) {
            // It is none of this node's, which knows of nothing that moves with it.
            [] => std::slice::from_ref(&vip),
            unit => unit,
        };
        let others = self.view.members.iter();
        let others = others.filter(|(name, _)| *name != owner);
        others
            .map(|(name, member)| Some((&**name, self.obstacle(&member.record, unit)?)))
            .collect()
    }

    /// What this node is handing over of a shared IP's unit.
    pub fn passing(&self, vip: IpAddr) -> Option<Passing<'_>> {
        let (to, why, stage) = self.handovers.of(self.units.of(vip)?)?;
        let waits = stage == Stage::Waiting;
        Some(Passing { to, why, waits })
    }

    /// To whom a shared IP's owner is about to hand it, as its record says.
    pub fn successor(&self, vip: IpAddr) -> Option<&str> {
        self.vips.get(&vip)?.successor()
    }

    fn unit(&self, vip: IpAddr) -> Result<&[IpAddr], AskRefused> {
        let id = self.units.of(vip).ok_or_else(|| AskRefused::UnknownVip {
            vip,
            known: self.vips.keys().copied().collect(),
        })?;
        Ok(self.units.ips(id))
    }

    fn may_take(&self, unit: &[IpAddr], to: &str) -> Result<(), AskRefused> {
        let Some(member) = self.view.members.get(to) else {
            return Err(AskRefused::NoMember {
                to: to.to_owned(),
                members: self.view.members.keys().cloned().collect(),
            });
        };
        let holds_all = |vip: &IpAddr| self.vips[vip].is_on(Some(member.lease));
        match self.obstacle(&member.record, unit) {
            // It is not to take what it has.
            Some(obstacle) if !unit.iter().all(holds_all) => Err(AskRefused::Hindered {
                to: to.to_owned(),
                obstacle,
            }),
            _ => Ok(()),
        }
    }

    fn obstacle(&self, member: &MemberRecord, unit: &[IpAddr]) -> Option<Obstacle> {
        if let Some(drained) = self.view.drained.get(&member.node) {
            return Some(Obstacle::Drained(drained.since.clone()));
        }
        let vip = unit.iter().find(|vip| !member.vips.contains(vip))?;
        Some(match member.unfit.get(vip) {
            Some(why) => Obstacle::Unfit(*vip, why.clone()),
            None => Obstacle::NotOffered(*vip),
        })
    }

    fn unit_view<'a>(&'a self, id: UnitId, placement: &Placement<'a>) -> UnitView<'a> {
        let vips = self.units.ips(id);
        let mut owners: Vec<OwnerView<'_>> = Vec::new();
        for (_, owner) in self.owners_of(vips) {
            if owners.iter().all(|known| known.node != owner.node) {
                owners.push(owner);
            }
        }
        let queue = placement.queue(vips, None).into_iter();
        let others = queue.filter(|node| owners.iter().all(|owner| owner.node != *node));
        let line = others.map(|node| Candidate {
            node,
            priority: placement.priority(node, vips).unwrap_or_default(),
            holds: placement.load(node),
        });
        let settings = vips.first().and_then(|vip| self.settings.vips.get(vip));
        UnitView {
            vips,
            group: settings.and_then(|one| one.group.as_deref()),
            line: line.collect(),
            owners,
        }
    }

    fn owners_of(&self, unit: &[IpAddr]) -> Vec<(IpAddr, OwnerView<'_>)> {
        let name_of = |lease: LeaseId| {
            let mut members = self.view.members.iter();
            members.find_map(|(name, member)| (member.lease == lease).then_some(&**name))
        };
        let owned = unit
            .iter()
            .filter_map(|ip| Some((*ip, self.vips.get(ip)?.held()?)));
        let owners = owned.map(|(ip, held)| {
            let record = &held.record;
            let node = name_of(held.lease).unwrap_or(&record.node);
            (ip, OwnerView { node, record })
        });
        owners.collect()
    }
}

/// The first of them, and how many more there are.
pub fn a_few(vips: &[IpAddr], shown: usize) -> String {
    let first: Vec<String> = vips.iter().take(shown).map(ToString::to_string).collect();
    match vips.len().saturating_sub(shown) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}
