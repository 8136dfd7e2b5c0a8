//! A model of etcd: one history of commits by a quorum, its leases, and a deposed leader that may
//! go on answering renewals.
//!
//! What it copies of the real one:
//! - a TTL has a floor; what is granted may be more than was asked for;
//! - expired leases are looked for each 500 ms, and their keys go in one revision;
//! - a new leader gives every lease its full TTL and an election timeout on top;
//! - a renewal of a lease that has gone is answered, with a TTL of zero;
//! - renewals are answered from the leader's memory, without a quorum: a leader that was deposed and
//!   has not noticed goes on, in its old term, whatever its successor does with the lease;
//! - a transaction that puts a key on a lease that has gone fails as a whole;
//! - a backup that is restored brings back old keys on old leases, at an old revision.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use vip_agent::election::{
    Change, DrainRecord, Keyed, LeaseId, MemberRecord, Outcome, OwnerRecord, Snapshot, Version,
};

use super::clock::{MS, SECOND, TrueNs};

const SMALLEST_TTL: Duration = Duration::from_secs(2);
pub const EXPIRY_TICK: TrueNs = 500 * MS;
const ELECTION_TIMEOUT: TrueNs = SECOND;

#[derive(Clone, Debug)]
pub struct Etcd {
    data: Data,
    pub raft_term: u64,
    /// Without a leader nothing is committed and nothing is read.
    pub leaderless_until: TrueNs,
    /// What a second of true time is to the leader's clock, in millionths more.
    pub drift_ppm: i32,
    deposed: Option<Deposed>,
    backup: Option<Data>,
    next_lease: i64,
    next_cluster: u64,
}

#[derive(Clone, Debug)]
struct Data {
    cluster_id: u64,
    revision: i64,
    members: BTreeMap<String, Keyed<MemberRecord>>,
    owners: BTreeMap<IpAddr, Keyed<OwnerRecord>>,
    drained: BTreeMap<String, DrainRecord>,
    leases: BTreeMap<i64, Lease>,
    history: Vec<Change>,
    compacted: i64,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    ttl: Duration,
    expires_at: TrueNs,
}

/// A leader that has been replaced and does not know it.
#[derive(Clone, Debug)]
struct Deposed {
    raft_term: u64,
    until: TrueNs,
    leases: BTreeMap<i64, Lease>,
}

/// An answered renewal.
#[derive(Clone, Copy, Debug)]
pub struct Renewal {
    pub ttl: Duration,
    pub raft_term: u64,
}

impl Etcd {
    pub fn new(drift_ppm: i32) -> Self {
        Self {
            data: Data {
                cluster_id: 1,
                revision: 1,
                members: BTreeMap::new(),
                owners: BTreeMap::new(),
                drained: BTreeMap::new(),
                leases: BTreeMap::new(),
                history: Vec::new(),
                compacted: 0,
            },
            raft_term: 2,
            leaderless_until: 0,
            drift_ppm,
            deposed: None,
            backup: None,
            next_lease: 0x1000,
            next_cluster: 2,
        }
    }

    pub fn revision(&self) -> i64 {
        self.data.revision
    }

    pub fn owner(&self, vip: IpAddr) -> Option<&Keyed<OwnerRecord>> {
        self.data.owners.get(&vip)
    }

    pub fn member(&self, node: &str) -> Option<&Keyed<MemberRecord>> {
        self.data.members.get(node)
    }

    pub fn is_drained(&self, node: &str) -> bool {
        self.data.drained.contains_key(node)
    }

    pub fn vips_on(&self, lease: LeaseId) -> BTreeSet<IpAddr> {
        let on = |owner: &Keyed<OwnerRecord>| owner.lease == lease;
        let owners = self.data.owners.iter();
        owners
            .filter(|(_, owner)| on(owner))
            .map(|(vip, _)| *vip)
            .collect()
    }

    pub fn read(&self) -> Snapshot {
        Snapshot {
            cluster_id: self.data.cluster_id,
            raft_term: self.raft_term,
            revision: self.data.revision,
            members: self.data.members.clone(),
            owners: self.data.owners.clone(),
            drained: self.data.drained.clone(),
        }
    }

    /// What a watch from this revision on has to be told; `None` if that was compacted.
    pub fn changes_since(&self, revision: i64) -> Option<Vec<Change>> {
        let later = |change: &&Change| change.revision() >= revision;
        let changes = self.data.history.iter().filter(later);
        (revision > self.data.compacted).then(|| changes.cloned().collect())
    }

    pub fn grant(&mut self, now: TrueNs, ttl: Duration) -> (LeaseId, Duration) {
        let ttl = ttl.max(SMALLEST_TTL);
        self.next_lease += 1;
        let expires_at = now + self.by_own_clock(ttl);
        self.data
            .leases
            .insert(self.next_lease, Lease { ttl, expires_at });
        (LeaseId(self.next_lease), ttl)
    }

    /// Of the leader. A lease that has run out and was not yet taken away is not renewed any more.
    pub fn renew(&mut self, now: TrueNs, lease: LeaseId) -> Renewal {
        let raft_term = self.raft_term;
        let fresh = |ttl| now + self.by_own_clock(ttl);
        let ttl = match self.data.leases.get(&lease.0) {
            Some(standing) if standing.expires_at > now => standing.ttl,
            _ => Duration::ZERO,
        };
        let expires_at = fresh(ttl);
        if let Some(standing) = self.data.leases.get_mut(&lease.0)
            && !ttl.is_zero()
        {
            standing.expires_at = expires_at;
        }
        Renewal { ttl, raft_term }
    }

    /// Of a leader that is one no longer, if there is such a one.
    pub fn renew_at_deposed(&self, now: TrueNs, lease: LeaseId) -> Option<Renewal> {
        let deposed = self
            .deposed
            .as_ref()
            .filter(|deposed| now < deposed.until)?;
        let standing = deposed.leases.get(&lease.0)?;
        Some(Renewal {
            ttl: standing.ttl,
            raft_term: deposed.raft_term,
        })
    }

    pub fn revoke(&mut self, lease: LeaseId) {
        if self.data.leases.remove(&lease.0).is_some() {
            self.drop_keys_of(lease);
        }
    }

    /// Takes away what has expired.
    pub fn expire(&mut self, now: TrueNs) {
        let leases = self.data.leases.iter();
        let expired = leases.filter(|(_, lease)| lease.expires_at <= now);
        for lease in expired.map(|(id, _)| LeaseId(*id)).collect::<Vec<_>>() {
            self.revoke(lease);
        }
    }

    pub fn put_member(
        &mut self,
        record: MemberRecord,
        lease: LeaseId,
        expected: Option<Version>,
    ) -> Outcome<MemberRecord> {
        let current = self.data.members.get(&record.node).cloned();
        self.guarded(current, Some(lease), expected, |data, revision| {
            let node = record.node.clone();
            let keyed = keyed(lease, revision, record);
            data.members.insert(node.clone(), keyed.clone());
            Change::MemberPut(node, keyed)
        })
    }

    /// All or none: if all keys are as expected, and the member `holder` is on the lease, where that is
    /// asked for.
    pub fn put_owners(
        &mut self,
        records: BTreeMap<IpAddr, (Option<Version>, OwnerRecord)>,
        lease: LeaseId,
        holder: Option<&str>,
    ) -> Vec<(IpAddr, Outcome<OwnerRecord>)> {
        let as_expected = |(vip, (expected, _)): (&IpAddr, &(Option<Version>, OwnerRecord))| {
            self.data.owners.get(vip).map(Keyed::version) == *expected
        };
        let is_there = holder.is_none_or(|node| {
            let member = self.data.members.get(node);
            member.is_some_and(|member| member.lease == lease)
        });
        let agrees = is_there && records.iter().all(as_expected);
        if !agrees {
            let revision = self.data.revision;
            let look = |vip| {
                let current = self.data.owners.get(&vip).cloned();
                (vip, Outcome::Refused { current, revision })
            };
            return records.into_keys().map(look).collect();
        }
        if !self.data.leases.contains_key(&lease.0) {
            let vips = records.into_keys();
            return vips.map(|vip| (vip, Outcome::LeaseGone)).collect();
        }
        self.data.revision += 1;
        let revision = self.data.revision;
        let data = &mut self.data;
        let put = |(vip, (_, record))| {
            let keyed = keyed(lease, revision, record);
            data.owners.insert(vip, keyed.clone());
            data.history.push(Change::OwnerPut(vip, keyed));
            (vip, Outcome::Committed { revision })
        };
        records.into_iter().map(put).collect()
    }

    pub fn delete_owner(&mut self, vip: IpAddr, expected: Version) -> Outcome<OwnerRecord> {
        let current = self.data.owners.get(&vip).cloned();
        self.guarded(current, None, Some(expected), |data, revision| {
            data.owners.remove(&vip);
            Change::OwnerGone { vip, revision }
        })
    }

    /// By hand, with etcdctl.
    pub fn delete_member(&mut self, node: &str) {
        if self.data.members.remove(node).is_some() {
            self.data.revision += 1;
            let (node, revision) = (node.to_owned(), self.data.revision);
            self.data
                .history
                .push(Change::MemberGone { node, revision });
        }
    }

    pub fn drain(&mut self, node: &str, force: bool) {
        let record = DrainRecord {
            force,
            since: String::new(),
        };
        self.data.revision += 1;
        let revision = self.data.revision;
        self.data.drained.insert(node.to_owned(), record.clone());
        let node = node.to_owned();
        self.data.history.push(Change::Drained {
            node,
            record,
            revision,
        });
    }

    pub fn undrain(&mut self, node: &str) {
        if self.data.drained.remove(node).is_some() {
            self.data.revision += 1;
            let (node, revision) = (node.to_owned(), self.data.revision);
            self.data.history.push(Change::Undrained { node, revision });
        }
    }

    /// What the watch of our prefix does not tell of.
    pub fn write_elsewhere(&mut self, keys: u8) {
        self.data.revision += i64::from(keys);
    }

    pub fn compact(&mut self) {
        self.data.compacted = self.data.revision;
    }

    /// The leader is replaced; until `answering_until` the old one has not noticed.
    pub fn elect(&mut self, now: TrueNs, answering_until: TrueNs) {
        self.deposed = (answering_until > now).then(|| Deposed {
            raft_term: self.raft_term,
            until: answering_until,
            leases: self.data.leases.clone(),
        });
        self.raft_term += 1;
        self.extend_leases(now);
    }

    pub fn back_up(&mut self) {
        self.backup = Some(self.data.clone());
    }

    /// Comes back with the data of the last backup, or empty without one. What was connected is
    /// cut off, and Raft begins anew.
    pub fn restore(&mut self, now: TrueNs, as_another_cluster: bool) {
        let lost = self.backup.clone();
        let empty = || Self::new(0).data;
        let same_cluster = self.data.cluster_id;
        self.data = lost.unwrap_or_else(empty);
        self.data.cluster_id = same_cluster;
        if as_another_cluster {
            self.data.cluster_id = self.next_cluster;
            self.next_cluster += 1;
        }
        self.data.compacted = self.data.revision;
        self.raft_term = 2;
        self.deposed = None;
        self.extend_leases(now);
    }

    fn extend_leases(&mut self, now: TrueNs) {
        let drift_ppm = self.drift_ppm;
        for lease in self.data.leases.values_mut() {
            lease.expires_at = now + by_clock(lease.ttl, drift_ppm) + ELECTION_TIMEOUT;
        }
    }

    fn guarded<T>(
        &mut self,
        current: Option<Keyed<T>>,
        lease: Option<LeaseId>,
        expected: Option<Version>,
        change: impl FnOnce(&mut Data, i64) -> Change,
    ) -> Outcome<T> {
        if current.as_ref().map(Keyed::version) != expected {
            let revision = self.data.revision;
            return Outcome::Refused { current, revision };
        }
        if lease.is_some_and(|lease| !self.data.leases.contains_key(&lease.0)) {
            return Outcome::LeaseGone;
        }
        self.data.revision += 1;
        let revision = self.data.revision;
        let change = change(&mut self.data, revision);
        self.data.history.push(change);
        Outcome::Committed { revision }
    }

    fn drop_keys_of(&mut self, lease: LeaseId) {
        let data = &mut self.data;
        let revision = data.revision + 1;
        let members = data
            .members
            .extract_if(.., |_, member| member.lease == lease);
        let gone = members.map(|(node, _)| Change::MemberGone { node, revision });
        data.history.extend(gone);
        let owners = data.owners.extract_if(.., |_, owner| owner.lease == lease);
        let gone = owners.map(|(vip, _)| Change::OwnerGone { vip, revision });
        data.history.extend(gone);
        if data
            .history
            .last()
            .is_some_and(|last| last.revision() == revision)
        {
            data.revision = revision;
        }
    }

    fn by_own_clock(&self, span: Duration) -> TrueNs {
        by_clock(span, self.drift_ppm)
    }
}

/// How long, in truth, a clock of this drift takes to count `span`.
fn by_clock(span: Duration, drift_ppm: i32) -> TrueNs {
    let counted = i128::try_from(span.as_nanos()).expect("a TTL fits");
    let truth = counted * 1_000_000 / i128::from(1_000_000 + drift_ppm);
    TrueNs::try_from(truth).expect("a TTL fits")
}

/// A record as it stands in etcd.
pub fn keyed<T>(lease: LeaseId, mod_revision: i64, record: T) -> Keyed<T> {
    Keyed {
        lease,
        mod_revision,
        record,
    }
}
