//! What the election is told.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use super::{
    record::{Keyed, LeaseId, Mac, MemberRecord, OwnerRecord},
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
}

impl Change {
    /// The revision of the change.
    pub fn revision(&self) -> i64 {
        match self {
            Self::MemberPut(_, member) => member.mod_revision,
            Self::OwnerPut(_, owner) => owner.mod_revision,
            Self::MemberGone { revision, .. } | Self::OwnerGone { revision, .. } => *revision,
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
    /// A claim ended.
    Claimed(IpAddr, Outcome<OwnerRecord>),
    /// A rewrite of our own owner key, to give it a new revision, ended.
    Reasserted(IpAddr, Outcome<OwnerRecord>),
    /// A release ended.
    Released(IpAddr, Outcome<OwnerRecord>),
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
    /// The interface of a shared IP can serve (with this MAC), or no longer can.
    Fitness(IpAddr, Option<Mac>),
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
