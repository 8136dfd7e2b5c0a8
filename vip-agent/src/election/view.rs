//! What this node knows of etcd's contents, and whether it may rely on it.

use std::{
    collections::BTreeMap,
    hash::{Hash as _, Hasher as _},
    net::IpAddr,
    time::Duration,
};

use siphasher::sip::SipHasher13;

use super::{
    event::{Change, Snapshot},
    record::{DrainRecord, History, Keyed, LeaseId, MemberRecord},
    time::BootInstant,
};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// A watch that held for so long was a good one.
const A_WHILE: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct View {
    pub members: BTreeMap<String, Keyed<MemberRecord>>,
    pub drained: BTreeMap<String, DrainRecord>,
    /// The leases that owner keys are on, also of shared IPs that are none of this node's.
    pub holders: BTreeMap<IpAddr, LeaseId>,
    pub cluster_id: u64,
    /// The highest that any answer told of. What is asked later shows no lower one, in one history.
    pub revision: i64,
    /// Since when another instance has been going by our name, with one leader of etcd answering all
    /// the time.
    pub namesake_since: Option<BootInstant>,
    /// When a confirming read last showed it.
    pub namesake_seen_at: BootInstant,
    raft_term: u64,
    phase: Phase,
    /// Up to which revision all changes are known, and not those of our own transactions alone.
    complete_to: i64,
    /// Whether another read than a full one has shown another history.
    contradicted: bool,
    /// Reads that failed and watches that were lost, since one last held for a while.
    failures: u32,
    seed: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    /// A full read is due at this time.
    Due(BootInstant),
    Reading {
        /// The revision that was known when it was asked for.
        known: i64,
    },
    Watching {
        since: BootInstant,
    },
}

impl View {
    /// `history` is what an earlier process knew: what is read first must not contradict it.
    pub fn new(instance: &str, history: History) -> Self {
        let mut hasher = SipHasher13::new();
        hasher.write(instance.as_bytes());
        Self {
            members: BTreeMap::new(),
            drained: BTreeMap::new(),
            holders: BTreeMap::new(),
            cluster_id: history.cluster_id,
            revision: history.revision,
            namesake_since: None,
            namesake_seen_at: BootInstant::BOOT,
            raft_term: 0,
            phase: Phase::Due(BootInstant::BOOT),
            complete_to: 0,
            contradicted: false,
            failures: 0,
            seed: hasher.finish(),
        }
    }

    pub fn is_watching(&self) -> bool {
        matches!(self.phase, Phase::Watching { .. })
    }

    /// Another number on each node, and in each life of it.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Whether a full read is due; it counts as begun then.
    pub fn should_read(&mut self, now: BootInstant) -> bool {
        let due = matches!(self.phase, Phase::Due(at) if now >= at);
        if due {
            self.phase = Phase::Reading {
                known: self.revision,
            };
        }
        due
    }

    pub fn next_timeout(&self) -> BootInstant {
        match self.phase {
            Phase::Due(at) => at,
            Phase::Reading { .. } | Phase::Watching { .. } => BootInstant::BOOT,
        }
    }

    pub fn read_failed(&mut self, now: BootInstant) {
        self.failures += 1;
        self.phase = Phase::Due(now + self.back_off(self.failures));
    }

    /// A new leader of etcd gives every lease its whole time again.
    pub fn answered_in(&mut self, raft_term: u64, now: BootInstant) {
        if std::mem::replace(&mut self.raft_term, raft_term) != raft_term {
            self.namesake_may_be_gone(now);
        }
    }

    /// While etcd does not answer, it may be unable to end the lease of one that has long gone.
    pub fn namesake_may_be_gone(&mut self, now: BootInstant) {
        if let Some(since) = &mut self.namesake_since {
            *since = now;
        }
    }

    pub fn lose_watch(&mut self, now: BootInstant) {
        if let Phase::Watching { since } = self.phase {
            if now >= since + A_WHILE {
                self.failures = 0;
            }
            self.failures += 1;
            // The first time at once: most often it was a member that went away.
            let pause = if self.failures == 1 {
                Duration::ZERO
            } else {
                self.back_off(self.failures)
            };
            self.phase = Phase::Due(now + pause);
        }
    }

    /// What is known is of a history that is no longer etcd's; the next full read begins another.
    pub fn lose_history(&mut self, now: BootInstant) {
        self.contradicted = true;
        self.lose_watch(now);
    }

    /// The revision that was known when the full read that is under way was asked for.
    pub fn known_when_asked(&self) -> i64 {
        match self.phase {
            Phase::Reading { known } => known,
            Phase::Due(_) | Phase::Watching { .. } => self.revision,
        }
    }

    /// Whether this read, asked for when `known` was the revision, is from another history than what
    /// is known: from another cluster, or from one that was restored from a backup.
    pub fn is_contradicted_by(&self, snapshot: &Snapshot, known: i64) -> bool {
        let members = self.members.iter();
        let mut pairs =
            members.filter_map(|(node, known)| Some((known, snapshot.members.get(node)?)));
        let of_another_cluster = self.cluster_id != 0 && snapshot.cluster_id != self.cluster_id;
        self.contradicted
            || of_another_cluster
            || snapshot.revision < known
            || pairs.any(|(known, read)| is_impossible(snapshot.revision, known, read))
            || self.is_complete_at(snapshot.revision) && self.members != snapshot.members
    }

    /// Whether all that this revision holds is known: then a read at it shows just that.
    pub fn is_complete_at(&self, revision: i64) -> bool {
        self.complete_to == revision && self.revision == revision
    }

    pub fn begin_another_history(&mut self) {
        self.revision = 0;
        self.complete_to = 0;
    }

    /// An answer told of this revision.
    pub fn saw(&mut self, revision: i64) {
        self.revision = self.revision.max(revision);
    }

    pub fn take_in(&mut self, now: BootInstant, snapshot: &Snapshot) {
        self.members.clone_from(&snapshot.members);
        self.drained.clone_from(&snapshot.drained);
        let owners = snapshot.owners.iter();
        self.holders = owners.map(|(ip, held)| (*ip, held.lease)).collect();
        self.cluster_id = snapshot.cluster_id;
        self.saw(snapshot.revision);
        self.complete_to = snapshot.revision;
        self.contradicted = false;
        self.phase = Phase::Watching { since: now };
    }

    /// A number that is another one when who could take what is otherwise.
    pub fn candidates(&self) -> u64 {
        let mut hasher = SipHasher13::new();
        for (node, member) in &self.members {
            let record = &member.record;
            (node, &record.vips, &record.priorities).hash(&mut hasher);
            self.drained.contains_key(node).hash(&mut hasher);
        }
        hasher.finish()
    }

    /// Whether what is of this revision is not known yet. What the watch before the last read still
    /// brought is: it may long be otherwise.
    pub fn is_news(&self, revision: i64) -> bool {
        revision > self.complete_to
    }

    pub fn take_in_change(&mut self, change: &Change) {
        match change {
            Change::MemberPut(node, member) if self.is_news_of(node, member.mod_revision) => {
                self.members.insert(node.clone(), member.clone());
            }
            Change::MemberGone { node, revision } if self.is_news_of(node, *revision) => {
                self.members.remove(node);
            }
            Change::MemberPut(..) | Change::MemberGone { .. } => {}
            Change::OwnerPut(ip, held) => {
                self.holders.insert(*ip, held.lease);
            }
            Change::OwnerGone { vip, .. } => {
                self.holders.remove(vip);
            }
            Change::Drained { node, record, .. } => {
                self.drained.insert(node.clone(), record.clone());
            }
            Change::Undrained { node, .. } => {
                self.drained.remove(node);
            }
        }
        self.saw(change.revision());
        self.complete_to = self.complete_to.max(change.revision());
    }

    /// A transaction of our own may have been answered before the watch tells of what came earlier.
    fn is_news_of(&self, node: &str, revision: i64) -> bool {
        self.members
            .get(node)
            .is_none_or(|known| known.mod_revision <= revision)
    }

    /// How long to wait before the next try, after this many failures: doubling, with a part that
    /// differs from node to node so that they don't come all at once.
    pub fn back_off(&self, failures: u32) -> Duration {
        let pause = FIRST_PAUSE
            .saturating_mul(1 << failures.min(6))
            .min(LONGEST_PAUSE);
        let mut hasher = SipHasher13::new();
        hasher.write_u64(self.seed);
        hasher.write_u32(failures);
        let share = u32::try_from(hasher.finish() % 512).unwrap_or(0);
        pause / 2 + pause * share / 1024
    }
}

/// Whether a read at `revision` shows a key as it can't be in the history that is known: older than
/// it is, or of the same revision and yet another one.
pub(super) fn is_impossible<T>(revision: i64, known: &Keyed<T>, read: &Keyed<T>) -> bool {
    let older = revision >= known.mod_revision && read.mod_revision < known.mod_revision;
    older || read.mod_revision == known.mod_revision && read.lease != known.lease
}
