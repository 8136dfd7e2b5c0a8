//! What is learnt of the owner keys: from full reads, from the watch, and from the answers to our
//! own transactions.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use super::{
    Action, Change, Election, History, Keyed, Outcome, OwnerRecord, QUEUE_STEP, Report, Snapshot,
    units::UnitId,
    view::is_impossible,
    vip::{Key, Local, Pending, Vip},
};

/// Until a claim is made again that was not answered.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// What one more vacancy may take whoever is first for several.
const EACH: Duration = Duration::from_millis(2);

impl Election {
    pub(super) fn take_in_read(&mut self, snapshot: Snapshot) {
        let longest = self.longest_ttl(&snapshot);
        if self.is_contradicted_by(&snapshot, self.view.known_when_asked()) {
            self.begin_another_history(&snapshot, longest);
        }
        self.view.take_in(self.now, &snapshot);
        self.resume(&snapshot);
        for (ip, vip) in &mut self.vips {
            // While nobody watched it may have been owned again.
            if let Key::Vacant {
                free_at,
                turn,
                seen,
            } = &mut vip.key
                && std::mem::take(seen)
                && !snapshot.owners.contains_key(ip)
            {
                *free_at = self.now + longest;
                *turn = Duration::ZERO;
            }
        }
        for ip in self.all_vips() {
            let found = snapshot.owners.get(&ip).cloned();
            self.learn_by_reading(ip, found, snapshot.revision, longest);
        }
        self.give_up_the_unconfigured(snapshot.owners.iter());
        let silence = 2 * self.ttl();
        self.out.push(Action::Watch {
            from_revision: snapshot.revision + 1,
            silence,
        });
        if self.vips.values().any(|vip| vip.key == Key::Unknown) {
            // It came to be in doubt while this read was under way.
            self.view.lose_watch(self.now);
        }
    }

    /// Whether a read that was asked for when `known` was the revision is from another history.
    pub(super) fn is_contradicted_by(&self, snapshot: &Snapshot, known: i64) -> bool {
        let complete = self.view.is_complete_at(snapshot.revision);
        let otherwise = |vip: &Vip| match (&vip.key, snapshot.owners.get(&vip.ip)) {
            (Key::Held(known), Some(read)) => is_impossible(snapshot.revision, known, read),
            // It was vacant in between.
            (Key::Vacant { .. }, Some(read)) => {
                complete || snapshot.revision >= vip.revision && read.mod_revision <= vip.revision
            }
            (Key::Held(_), None) => complete,
            (Key::Unknown, _) | (Key::Vacant { .. }, None) => false,
        };
        self.view.is_contradicted_by(snapshot, known) || self.vips.values().any(otherwise)
    }

    /// What was known is void. Whoever owned a shared IP before may serve it up to its deadline,
    /// whatever this history says: nothing is taken up until then.
    fn begin_another_history(&mut self, snapshot: &Snapshot, longest_ttl: Duration) {
        self.report(Report::HistoryReset {
            known: self.view.revision,
            read: snapshot.revision,
        });
        self.view.begin_another_history();
        let now = self.now;
        if let Some(lease) = self.lease_mut() {
            lease.forget_rounds(now);
        }
        // Its revision says nothing in this one.
        self.forget_member_key();
        self.found_queue = Default::default();
        self.wait_out(longest_ttl);
    }

    /// The history that is known may not be etcd's any more: until a full read says what is, nothing is
    /// served that is not served right now.
    pub(super) fn distrust_history(&mut self) {
        let longest = self.longest_ttl_known();
        self.wait_out(longest);
        self.view.lose_history(self.now);
    }

    fn wait_out(&mut self, longest_ttl: Duration) {
        let deadline = self.lease().map(|(.., deadline)| deadline);
        let serving = deadline.is_some_and(|deadline| self.now < deadline);
        for vip in self.vips.values_mut() {
            vip.begin_another_history(self.now + longest_ttl, serving);
        }
    }

    /// Shared IPs that are ours and not to be served here: an earlier process of this node held them, or
    /// they were handed over to it just as they ceased to be configured.
    fn give_up_the_unconfigured<'a>(
        &mut self,
        owners: impl Iterator<Item = (&'a IpAddr, &'a Keyed<OwnerRecord>)>,
    ) {
        let lease = self.lease_id();
        for (vip, held) in owners {
            if Some(held.lease) == lease && !self.vips.contains_key(vip) {
                self.out.push(Action::Release {
                    vip: *vip,
                    version: held.version(),
                });
            }
        }
    }

    pub(super) fn take_in_changes(&mut self, changes: Vec<Change>) {
        if !self.view.is_watching() {
            return;
        }
        let mut changes = changes;
        changes.retain(|change| self.view.is_news(change.revision()));
        // Members first: who is a candidate for a vacancy is decided after all of its revision.
        for change in &changes {
            self.view.take_in_change(change);
        }
        self.forget_member_key_if_gone();
        let puts = changes.iter().filter_map(|change| match change {
            Change::OwnerPut(ip, held) => Some((ip, held)),
            _ => None,
        });
        self.give_up_the_unconfigured(puts);
        let mut vacated: BTreeMap<UnitId, Option<String>> = BTreeMap::new();
        let mut is_being_taken = false;
        for change in changes {
            match change {
                Change::OwnerPut(ip, held) => {
                    let revision = held.mod_revision;
                    if let Some(vip) = self
                        .vips
                        .get_mut(&ip)
                        .filter(|vip| vip.revision <= revision)
                    {
                        vip.revision = revision;
                        is_being_taken |= vip.is_vacant();
                        vip.key = Key::Held(held);
                    }
                }
                Change::OwnerGone { vip, revision } => {
                    vacated.extend(self.learn_vacancy(vip, revision));
                }
                Change::MemberPut(..)
                | Change::MemberGone { .. }
                | Change::Drained { .. }
                | Change::Undrained { .. } => {}
            }
        }
        if is_being_taken {
            for vip in self.vips.values_mut() {
                vip.others_go_on(self.now);
            }
        }
        self.queue_for(vacated);
    }

    /// A vacancy that we watched arise: it may be claimed as soon as it is our turn. Returns its unit, and
    /// who had it.
    pub(super) fn learn_vacancy(
        &mut self,
        ip: IpAddr,
        revision: i64,
    ) -> Option<(UnitId, Option<String>)> {
        let vip = self.vips.get_mut(&ip);
        let vip = vip.filter(|vip| vip.revision <= revision && !vip.is_vacant())?;
        vip.revision = revision;
        let owner = vip.owner().map(str::to_owned);
        self.cause = match &owner {
            Some(owner) => {
                format!("{owner} released it, its lease ended, or somebody deleted its key")
            }
            None => "its key was deleted".to_owned(),
        };
        vip.key = Key::Vacant {
            free_at: self.now,
            turn: Duration::ZERO,
            seen: true,
        };
        Some((self.units.of(ip)?, owner))
    }

    /// Our place in the queue for each of these, one after the other: who is to have the one counts as
    /// holding it when it comes to the next.
    fn queue_for(&mut self, vacated: BTreeMap<UnitId, Option<String>>) {
        if vacated.is_empty() {
            return;
        }
        let mut placement = self.placement();
        let mut turns = Vec::new();
        let vacancies = u32::try_from(vacated.len()).unwrap_or(u32::MAX);
        let step = QUEUE_STEP + EACH.saturating_mul(vacancies - 1);
        for (id, previous) in vacated {
            let ips = self.units.ips(id);
            let queue = placement.queue(ips, previous.as_deref());
            let place = self.place_in(&queue);
            if let Some(first) = queue.first() {
                placement.count(first, ips.len());
            }
            turns.push((id, step.saturating_mul(place)));
        }
        self.take_turns(turns);
    }

    /// Likewise for what was only found vacant. Who is first may not be free to claim it yet, for each
    /// waits since its own first look: the others give it one TTL more.
    pub(super) fn queue_for_the_found(&mut self) {
        let is_found = |id: &UnitId| {
            self.units
                .ips(*id)
                .iter()
                .any(|ip| self.vips[ip].is_found())
        };
        let found: BTreeSet<UnitId> = self.units.ids().into_iter().filter(is_found).collect();
        let basis = self.view.candidates();
        if self.found_queue == (basis, found.clone()) {
            return;
        }
        // What others have taken of it meanwhile was theirs by the same queue: to draw it up anew would have
        // those that are halfway through change places.
        let (known_basis, known) = std::mem::replace(&mut self.found_queue, (basis, found.clone()));
        if found.is_empty() || basis == known_basis && found.is_subset(&known) {
            return;
        }
        let patience = self.ttl();
        let mut placement = self.placement();
        let mut turns = Vec::new();
        for id in found {
            let ips = self.units.ips(id);
            let queue = placement.queue(ips, None);
            let turn = match self.place_in(&queue) {
                0 => Duration::ZERO,
                place => patience + QUEUE_STEP.saturating_mul(place),
            };
            if let Some(first) = queue.first() {
                placement.count(first, ips.len());
            }
            turns.push((id, turn));
        }
        self.take_turns(turns);
    }

    /// Who is no candidate comes after all that are.
    fn place_in(&self, queue: &[&str]) -> u32 {
        let place = queue.iter().position(|node| *node == self.settings.node);
        u32::try_from(place.unwrap_or(queue.len())).unwrap_or(u32::MAX)
    }

    fn take_turns(&mut self, turns: Vec<(UnitId, Duration)>) {
        let lease = self.lease_id();
        for (id, turn) in turns {
            // Who has a part of it takes the rest.
            let has_part = self
                .units
                .ips(id)
                .iter()
                .any(|ip| self.vips[ip].is_on(lease));
            let turn = if has_part { Duration::ZERO } else { turn };
            for ip in self.units.ips(id) {
                if let Some(vip) = self.vips.get_mut(ip) {
                    vip.let_others_first(turn);
                }
            }
        }
    }

    /// What a read says of an owner key. A vacancy that was only found may be one whose last
    /// owner's gate is still open: it waits out the longest TTL.
    pub(super) fn learn_by_reading(
        &mut self,
        ip: IpAddr,
        found: Option<Keyed<OwnerRecord>>,
        revision: i64,
        longest_ttl: Duration,
    ) {
        let free_at = self.now + longest_ttl;
        let Some(vip) = self
            .vips
            .get_mut(&ip)
            .filter(|vip| vip.revision <= revision)
        else {
            return;
        };
        vip.revision = revision;
        match found {
            Some(held) => vip.key = Key::Held(held),
            None if vip.is_vacant() => {}
            None => {
                vip.key = Key::Vacant {
                    free_at,
                    turn: Duration::ZERO,
                    seen: false,
                };
                self.report(Report::WaitingOut {
                    vip: ip,
                    wait: longest_ttl,
                });
            }
        }
    }

    pub(super) fn take_in_outcome(&mut self, ip: IpAddr, outcome: Outcome<OwnerRecord>) {
        self.view.saw(outcome.revision().unwrap_or(0));
        let longest = self.ttl();
        let lease = self.lease_id();
        let Some(vip) = self.vips.get_mut(&ip) else {
            if let Outcome::Unknown(_) = outcome {
                self.view.lose_watch(self.now);
            }
            return;
        };
        let (pending, sent) = (vip.pending.take(), vip.sent.take());
        if let (Some(Pending::Transfer | Pending::Release), Outcome::Committed { revision }) =
            (pending, &outcome)
        {
            self.out.push(Action::Note(History {
                cluster_id: self.view.cluster_id,
                revision: *revision,
            }));
        }
        match outcome {
            Outcome::Committed { revision } if revision < vip.revision => {}
            // The watch was here first, and knows more of it: since when.
            Outcome::Committed { revision } if vip.epoch() == revision => {}
            Outcome::Committed { revision } => {
                vip.revision = revision;
                vip.key = match sent.filter(|_| pending.is_some()) {
                    Some((lease, record)) => Key::Held(Keyed {
                        lease,
                        mod_revision: revision,
                        record,
                    }),
                    // It gave up its turn by this: whoever is next goes first.
                    None => Key::Vacant {
                        free_at: self.now,
                        turn: longest,
                        seen: true,
                    },
                };
            }
            Outcome::Refused { current, revision } => {
                self.learn_by_reading(ip, current, revision, longest);
            }
            // The successor's.
            Outcome::LeaseGone if pending == Some(Pending::Transfer) => {}
            Outcome::LeaseGone => {
                if let Some(id) = lease {
                    self.lose_lease(id, "etcd refused to attach a key to it".to_owned());
                }
            }
            Outcome::Unknown(cause) => {
                match pending {
                    // Asked for once more it shows: ours is committed once at most.
                    Some(Pending::Claim) => vip.ask_again(self.now + ASK_AGAIN),
                    // It is ours, on either revision.
                    Some(Pending::Reassert) if vip.local == Local::Up => {
                        self.view.lose_watch(self.now);
                    }
                    _ => {
                        vip.key = Key::Unknown;
                        self.view.lose_watch(self.now);
                    }
                }
                self.report(Report::Doubt { vip: ip, cause });
            }
        }
    }

    pub(super) fn all_vips(&self) -> Vec<IpAddr> {
        self.vips.keys().copied().collect()
    }

    /// The longest TTL in use, as far as records tell: those that were read, and those known before.
    pub(super) fn longest_ttl(&self, snapshot: &Snapshot) -> Duration {
        let members = snapshot.members.values().map(|one| one.record.ttl_ms);
        let owners = snapshot.owners.values().map(|one| one.record.ttl_ms);
        let longest = members.chain(owners).max().unwrap_or(0);
        Duration::from_millis(longest).max(self.longest_ttl_known())
    }

    fn longest_ttl_known(&self) -> Duration {
        let members = self.view.members.values().map(|one| one.record.ttl_ms);
        let owners = self.vips.values().filter_map(Vip::held);
        let owners = owners.map(|one| one.record.ttl_ms);
        let longest = members.chain(owners).max().unwrap_or(0);
        Duration::from_millis(longest).max(self.ttl())
    }
}
