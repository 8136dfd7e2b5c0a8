//! What the election wants done.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    time::Duration,
};

use super::{
    event::RoundId,
    record::{History, LeaseId, Mac, MemberRecord, OwnerRecord, Version},
    time::BootInstant,
};

/// A shared IP's gate in this node's kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Open for as long as the lease deadline lies ahead.
    Open {
        /// The owner key's revision.
        epoch: i64,
    },
    /// Closed.
    Closed {
        /// The owner key's revision, 0 where there is none.
        epoch: i64,
        /// At which MAC the owner answers, as etcd has it.
        owner: Option<Mac>,
    },
}

impl Gate {
    /// Whether it is an open one.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Open { .. })
    }
}

/// Something to do. Actions of one call are done in their order, each before the next begins,
/// except that requests to etcd and netlink are only sent off: their answers are events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Read everything under the prefix, linearizably. → `Read`, `ReadFailed`
    Read,
    /// Watch the prefix from this revision on. → `Watched` …, `WatchLost`
    Watch {
        /// The first revision to be told of.
        from_revision: i64,
        /// Silence longer than this is a lost watch.
        silence: Duration,
    },
    /// Ask for a lease. → `Granted`, `GrantFailed`
    Grant {
        /// The TTL to ask for.
        ttl: Duration,
    },
    /// Renew the lease and read our keys at the same time. → `Renewed` and `Confirmed`, `RoundFailed`
    Renew {
        /// Which round the answers belong to.
        round: RoundId,
        /// The lease.
        lease: LeaseId,
        /// When an answer is no longer of use.
        patience: Duration,
    },
    /// Put our member key on the lease: if there is none (`replacing` is `None`), or over the one
    /// of that version. → `Joined`
    Join {
        /// The lease.
        lease: LeaseId,
        /// What it says.
        record: MemberRecord,
        /// What to replace.
        replacing: Option<Version>,
    },
    /// Put all these owner keys on the lease if there is none of them. → `Claimed`, for each
    Claim {
        /// The lease.
        lease: LeaseId,
        /// What the keys say.
        records: BTreeMap<IpAddr, OwnerRecord>,
    },
    /// Put all these owner keys on another member's lease, if they are still of these versions and
    /// that member's key is still on that lease. → `Transferred`, for each
    Transfer {
        /// The member.
        to: String,
        /// Its lease.
        lease: LeaseId,
        /// What must still be there, and what the keys say then.
        records: BTreeMap<IpAddr, (Version, OwnerRecord)>,
    },
    /// Put the owner key again over our own, for a new revision. → `Reasserted`
    Reassert {
        /// The shared IP.
        vip: IpAddr,
        /// What must still be there; it stays on this lease.
        version: Version,
        /// What the key says.
        record: OwnerRecord,
    },
    /// Delete the owner key if it is still of this version. → `Released`
    Release {
        /// The shared IP.
        vip: IpAddr,
        /// What must still be there.
        version: Version,
    },
    /// Revoke the lease: nothing is held any more. → `Left`
    Leave {
        /// The lease.
        lease: LeaseId,
    },
    /// Keep the lease's number where the next start finds it.
    Remember(Option<LeaseId>),
    /// Keep where the next start finds it how far this history of etcd had come: what was ours up to then is
    /// another's since, and a store that knows nothing of that is not to be believed.
    Note(History),
    /// Store the lease's deadline in the kernel: all open gates close there.
    SetLeaseDeadline(BootInstant),
    /// Store a gate in the kernel. → `GateSet`
    SetGate(IpAddr, Gate),
    /// Tell the kernel the MACs of the live members.
    SetMembers(BTreeSet<Mac>),
    /// Put the address on its interface, with a finite lifetime, and keep it there. → `AddressAdded`, `AddressFailed`
    AddAddress(IpAddr),
    /// Take it off. → `AddressRemoved`
    RemoveAddress(IpAddr),
    /// It is no longer configured, and nothing of it is left here but its shut gate.
    Forget(IpAddr),
    /// Tell the network that we own it, now and from time to time.
    Announce(IpAddr),
    /// Stop telling.
    Silence(IpAddr),
    /// Ask the network whether anybody has it. Whoever answers is told of by → `Conflict`
    Probe(IpAddr),
    /// Write it down: somebody will want to know.
    Report(Report),
    /// Everything that was to be done before the process ends is done.
    Exit(Exit),
}

/// What people are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// A shared IP changed its role on this node.
    Transition {
        /// The shared IP.
        vip: IpAddr,
        /// What it was.
        old: Role,
        /// What it is.
        new: Role,
        /// Why.
        cause: String,
        /// The owner key's revision, 0 where there is none.
        epoch: i64,
        /// Who owns it now, as far as known.
        owner: Option<String>,
    },
    /// This node is a member now, on this lease.
    Joined {
        /// The lease.
        lease: LeaseId,
        /// Its granted TTL.
        ttl: Duration,
        /// Whether an earlier process of this node had it already.
        resumed: bool,
    },
    /// etcd granted another TTL than was asked for.
    TtlRaised {
        /// What was asked for.
        asked: Duration,
        /// What was granted.
        granted: Duration,
    },
    /// The lease has gone.
    LeaseLost {
        /// Which.
        lease: LeaseId,
        /// How that was seen.
        cause: String,
    },
    /// A renewal was answered, but by a leader that is one no longer: it does not count.
    StaleRenewal {
        /// The renewal's Raft term.
        renewed_in: u64,
        /// The confirming read's.
        read_in: u64,
    },
    /// The view of etcd was lost or is not there yet; a full read follows.
    Resync {
        /// Why.
        cause: String,
    },
    /// The lease lives although by all that is known it should have ended: the store's history may be
    /// another one. A full read follows.
    LeaseOutlived,
    /// Another cluster, or one restored from a backup, answers under these endpoints.
    HistoryReset {
        /// The revision that was known.
        known: i64,
        /// The revision that was read.
        read: i64,
    },
    /// A vacant shared IP was found, not seen to become vacant: its last owner's gate may still be
    /// open, so it is left alone for a while.
    WaitingOut {
        /// The shared IP.
        vip: IpAddr,
        /// For how long.
        wait: Duration,
    },
    /// A member of our name is there that is not us; it may be what this machine left behind.
    NameBusy {
        /// Its record.
        other: MemberRecord,
    },
    /// A transaction's fate is not known.
    Doubt {
        /// The shared IP.
        vip: IpAddr,
        /// What was tried, and the error.
        cause: String,
    },
    /// Shared IPs that move as one are handed over.
    HandOver {
        /// Which.
        vips: Vec<IpAddr>,
        /// To whom.
        to: String,
        /// Why.
        why: Why,
        /// How far it has come.
        progress: Progress,
    },
    /// Shared IPs that move as one are given up, and nobody can take them.
    GivenUp {
        /// Which.
        vips: Vec<IpAddr>,
        /// Why.
        why: Why,
    },
    /// A machine that is no member claims a shared IP.
    Conflict {
        /// The shared IP.
        vip: IpAddr,
        /// The machine's MAC.
        mac: Mac,
        /// What is done about it.
        response: Response,
    },
}

/// Why shared IPs are handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// This node stops.
    Stopping,
    /// They are no longer configured here.
    Unconfigured,
    /// This node is drained.
    Drained,
    /// It is not fit to serve them.
    Unfit,
    /// The others of their group are there.
    Grouped,
    /// Somebody asked for it.
    Asked,
    /// The other has a higher priority.
    Preferred,
    /// The other holds less.
    Uneven,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stopping => "this node stops",
            Self::Unconfigured => "no longer configured here",
            Self::Drained => "this node is drained",
            Self::Unfit => "this node is not fit",
            Self::Grouped => "the rest of its group is there",
            Self::Asked => "asked for",
            Self::Preferred => "it has a higher priority",
            Self::Uneven => "it holds less",
        })
    }
}

/// How far a hand-over has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The successor is named.
    Begun,
    /// The keys are the successor's.
    Done,
    /// They are not. Why.
    Failed(String),
}

/// What is done about a machine that is no member and claims a shared IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Response {
    /// It is ours, and announced again.
    Defended,
    /// Likewise, as soon as 10 s have passed since it last was (RFC 5227 §2.4).
    DefendedSoon,
    /// It is given up, or not taken up.
    Yielded,
    /// Nobody owns it, and it is not claimed.
    NotClaimed,
    /// Nothing: it is another's to defend, or about to be claimed.
    Noted,
}

/// Why the process ends.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "there is one in a process' life")]
pub enum Exit {
    /// All was given up: programs and maps go too.
    Released,
    /// All was left as it is.
    Held,
    /// Another machine goes by our name.
    NameTaken {
        /// Its record.
        other: MemberRecord,
    },
}

/// What a shared IP is on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// etcd was not read yet.
    Unknown,
    /// Nobody owns it.
    Vacant,
    /// Nobody owns it, and we have asked for it.
    Claiming,
    /// It is ours in etcd; address and gate are being made ready.
    TakingOver,
    /// Ours, and the gate is open.
    Owner,
    /// Ours as far as we know, but the lease was not confirmed in time: the gate is shut.
    Suspended,
    /// Gate, address and key are being given up.
    GivingUp,
    /// Another node owns it.
    Follower,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "unknown",
            Self::Vacant => "vacant",
            Self::Claiming => "claiming",
            Self::TakingOver => "taking-over",
            Self::Owner => "owner",
            Self::Suspended => "suspended",
            Self::GivingUp => "giving-up",
            Self::Follower => "follower",
        })
    }
}
