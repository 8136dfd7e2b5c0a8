//! What this node knows of etcd's contents, and whether it may rely on it.

use std::{collections::BTreeMap, hash::Hasher as _, time::Duration};

use siphasher::sip::SipHasher13;

use super::{
    event::{Change, Snapshot},
    record::{Keyed, MemberRecord},
    time::BootInstant,
};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct View {
    pub members: BTreeMap<String, Keyed<MemberRecord>>,
    pub cluster_id: u64,
    pub revision: i64,
    /// Since when another instance has been going by our name.
    pub namesake_since: Option<BootInstant>,
    phase: Phase,
    /// Full reads since one last held for a while.
    failures: u32,
    seed: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    /// A full read is due at this time.
    Due(BootInstant),
    Reading,
    Watching,
}

impl View {
    pub fn new(instance: &str) -> Self {
        let mut hasher = SipHasher13::new();
        hasher.write(instance.as_bytes());
        Self {
            members: BTreeMap::new(),
            cluster_id: 0,
            revision: 0,
            namesake_since: None,
            phase: Phase::Due(BootInstant::BOOT),
            failures: 0,
            seed: hasher.finish(),
        }
    }

    pub fn is_watching(&self) -> bool {
        self.phase == Phase::Watching
    }

    /// Whether a full read is due; it counts as begun then.
    pub fn should_read(&mut self, now: BootInstant) -> bool {
        let due = matches!(self.phase, Phase::Due(at) if now >= at);
        if due {
            self.phase = Phase::Reading;
        }
        due
    }

    pub fn next_timeout(&self) -> BootInstant {
        match self.phase {
            Phase::Due(at) => at,
            Phase::Reading | Phase::Watching => BootInstant::BOOT,
        }
    }

    pub fn read_failed(&mut self, now: BootInstant) {
        self.failures += 1;
        self.phase = Phase::Due(now + self.back_off(self.failures));
    }

    pub fn lose_watch(&mut self, now: BootInstant) {
        if self.phase == Phase::Watching {
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

    /// The revision that was known, if this read is from another history: another cluster, or one
    /// restored from a backup.
    pub fn history_reset_by(&self, snapshot: &Snapshot) -> Option<i64> {
        let reset = self.is_of_another_cluster(snapshot) || snapshot.revision < self.revision;
        reset.then_some(self.revision)
    }

    pub fn is_of_another_cluster(&self, snapshot: &Snapshot) -> bool {
        self.cluster_id != 0 && snapshot.cluster_id != self.cluster_id
    }

    pub fn take_in(&mut self, snapshot: &Snapshot) {
        self.members.clone_from(&snapshot.members);
        self.cluster_id = snapshot.cluster_id;
        self.revision = snapshot.revision;
        self.phase = Phase::Watching;
    }

    pub fn take_in_change(&mut self, change: &Change) {
        let revision = match change {
            Change::MemberPut(node, member) => {
                if self.is_news_of(node, member.mod_revision) {
                    self.members.insert(node.clone(), member.clone());
                }
                member.mod_revision
            }
            Change::MemberGone { node, revision } => {
                if self.is_news_of(node, *revision) {
                    self.members.remove(node);
                }
                *revision
            }
            Change::OwnerPut(_, owner) => owner.mod_revision,
            Change::OwnerGone { revision, .. } => *revision,
        };
        self.revision = self.revision.max(revision);
        self.failures = 0;
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
