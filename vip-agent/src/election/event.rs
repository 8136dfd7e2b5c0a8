//! What the election is told.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use super::{
    Policy, VipSettings,
    record::{DrainRecord, Keyed, LeaseId, Mac, MemberRecord, OwnerRecord},
    time::BootInstant,
};

/// One renewal of the lease, with the read that proves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoundId(pub u64);

/// Everything under the prefix, from one linearizable read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Which etcd cluster answered.
    pub cluster_id: u64,
    /// The answering member's Raft term.
    pub raft_term: u64,
    /// The store's revision.
    pub revision: i64,
    /// Members by node name.
    pub members: BTreeMap<String, Keyed<MemberRecord>>,
    /// Owners by shared IP.
    pub owners: BTreeMap<IpAddr, Keyed<OwnerRecord>>,
    /// Drained nodes by name.
    pub drained: BTreeMap<String, DrainRecord>,
}

/// One change that the watch saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A member wrote its record.
    MemberPut(String, Keyed<MemberRecord>),
    /// A member's key went.
    MemberGone {
        /// Its name.
        node: String,
        /// The revision at which it went.
        revision: i64,
    },
    /// A shared IP has a new record.
    OwnerPut(IpAddr, Keyed<OwnerRecord>),
    /// A shared IP became vacant.
    OwnerGone {
        /// The shared IP.
        vip: IpAddr,
        /// The revision at which its key went.
        revision: i64,
    },
    /// A node was drained.
    Drained {
        /// Its name.
        node: String,
        /// How.
        record: DrainRecord,
        /// The revision at which that was written.
        revision: i64,
    },
    /// A node is drained no longer.
    Undrained {
        /// Its name.
        node: String,
        /// The revision at which the key went.
        revision: i64,
    },
}

impl Change {
    /// The revision of the change.
    pub fn revision(&self) -> i64 {
        match self {
            Self::MemberPut(_, member) => member.mod_revision,
            Self::OwnerPut(_, owner) => owner.mod_revision,
            Self::MemberGone { revision, .. }
            | Self::OwnerGone { revision, .. }
            | Self::Drained { revision, .. }
            | Self::Undrained { revision, .. } => *revision,
        }
    }
}

/// How a guarded transaction on one key ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome<T> {
    /// It was committed, at this revision.
    Committed {
        /// The store's revision of the commit.
        revision: i64,
    },
    /// Its condition did not hold; this is what stands there.
    Refused {
        /// The key as the transaction found it.
        current: Option<Keyed<T>>,
        /// The store's revision of that look.
        revision: i64,
    },
    /// etcd does not know the lease that the key was to be put on.
    LeaseGone,
    /// No answer: it may have been committed, or may yet be.
    Unknown(String),
}

impl<T> Outcome<T> {
    /// The store's revision, as far as the answer told of it.
    pub fn revision(&self) -> Option<i64> {
        match self {
            Self::Committed { revision } | Self::Refused { revision, .. } => Some(*revision),
            Self::LeaseGone | Self::Unknown(_) => None,
        }
    }
}

/// Whether this node can serve a shared IP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fitness {
    /// Its interface can carry it, with this MAC, and its health checks pass.
    Fit(Mac),
    /// It could carry it, and others should rather. Why, in a few words that stay the same.
    Unhealthy(Mac, String),
    /// It cannot carry it. Why.
    Unable(String),
}

impl Fitness {
    /// Our MAC on its interface, if that can carry it.
    pub fn mac(&self) -> Option<Mac> {
        match self {
            Self::Fit(mac) | Self::Unhealthy(mac, _) => Some(*mac),
            Self::Unable(_) => None,
        }
    }

    /// Whether all is well.
    pub fn is_fit(&self) -> bool {
        matches!(self, Self::Fit(_))
    }

    /// What is amiss.
    pub fn why_not(&self) -> Option<&str> {
        match self {
            Self::Fit(_) => None,
            Self::Unhealthy(_, why) | Self::Unable(why) => Some(why),
        }
    }
}

/// How a stop is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Give everything up, in order, and leave nothing behind.
    Release,
    /// Leave all as it is, for the next start.
    Hold,
}

/// Something that happened. The answers of earlier [`Action`](super::Action)s come back as these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The timeout that the election asked for has come, and every `Conflict` until now was told.
    Tick,
    /// A full read was answered.
    Read(Snapshot),
    /// A full read was not.
    ReadFailed(String),
    /// The watch brought changes: all those of every revision that it mentions.
    Watched(Vec<Change>),
    /// The watch ended, was cancelled, compacted away, or fell silent.
    WatchLost(String),
    /// A lease was granted.
    Granted {
        /// Taken before the request was sent.
        sent_at: BootInstant,
        /// The new lease.
        lease: LeaseId,
        /// What etcd granted, which may be more than was asked for.
        ttl: Duration,
    },
    /// No lease was granted.
    GrantFailed(String),
    /// A renewal was answered.
    Renewed {
        /// Which.
        round: RoundId,
        /// What the lease has from the time of the answer; zero: etcd knows no such lease.
        ttl: Duration,
        /// The Raft term in the answer's header.
        raft_term: u64,
    },
    /// The confirming read of a round was answered.
    Confirmed {
        /// Which round.
        round: RoundId,
        /// What it read.
        snapshot: Snapshot,
    },
    /// A renewal or its confirming read was not answered in time: the round does not count.
    RoundFailed {
        /// Which.
        round: RoundId,
        /// Why.
        error: String,
    },
    /// Our member key's transaction ended.
    Joined(Outcome<MemberRecord>),
    /// A claim ended, for this one of the shared IPs that it was of.
    Claimed(IpAddr, Outcome<OwnerRecord>),
    /// A rewrite of our own owner key, to give it a new revision, ended.
    Reasserted(IpAddr, Outcome<OwnerRecord>),
    /// A release ended.
    Released(IpAddr, Outcome<OwnerRecord>),
    /// A transfer ended, for this one of the shared IPs that it was of.
    Transferred(IpAddr, Outcome<OwnerRecord>),
    /// Our lease was revoked, or could not be.
    Left,
    /// The kernel has the gate as the last `SetGate` said.
    GateSet(IpAddr),
    /// The address is on the interface.
    AddressAdded(IpAddr),
    /// It could not be put there.
    AddressFailed(IpAddr, String),
    /// The address is off the interface.
    AddressRemoved(IpAddr),
    /// How well this node can serve a shared IP has changed.
    Fitness(IpAddr, Fitness),
    /// Somebody wants a shared IP, and what moves with it, to go to this node.
    Ask {
        /// The shared IP.
        vip: IpAddr,
        /// The node.
        to: String,
    },
    /// How this node goes about all of them from now on.
    Policy(Policy),
    /// Nobody asks any more for a shared IP to go to this node. What has begun goes on, and so does what was
    /// asked for since.
    Unask {
        /// The shared IP.
        vip: IpAddr,
        /// The node.
        to: String,
    },
    /// These are the shared IPs from now on, all of them.
    Configure(BTreeMap<IpAddr, VipSettings>),
    /// A machine with this MAC claims a shared IP on the interface that carries it. It was heard while
    /// our lease was good.
    Conflict {
        /// The shared IP.
        vip: IpAddr,
        /// The machine's MAC.
        mac: Mac,
    },
    /// Somebody wants us to stop.
    Stop(Stop),
}
