//! A shared IP that nobody owns: whether it is to be trusted, asked for, and claimed here.

use std::time::Duration;

use super::{
    action::Action,
    probing::{Asker, Probe},
    time::BootInstant,
    vip::{Key, Local, Surroundings, Vip},
};

/// A vacancy, from when it was first looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Vacancy {
    since: BootInstant,
}

impl Vip {
    pub fn is_vacant(&self) -> bool {
        matches!(self.key, Key::Vacant { .. })
    }

    /// Whether it was only found vacant, and may be taken up now but for who goes first.
    pub fn is_found(&self) -> bool {
        matches!(self.key, Key::Vacant { seen: false, .. })
    }

    /// How long to let others go first.
    pub fn let_others_first(&mut self, for_so_long: Duration) {
        if let Key::Vacant { turn, .. } = &mut self.key {
            *turn = for_so_long;
        }
    }

    /// Others are still taking what is vacant, and this may be next: who waits for its turn begins to
    /// count anew.
    pub fn others_go_on(&mut self, now: BootInstant) {
        if let Key::Vacant { free_at, turn, .. } = &mut self.key
            && !turn.is_zero()
        {
            *free_at = now.max(*free_at);
        }
    }

    /// A claim was not answered: it is made again, unless the watch has told more by then.
    pub fn ask_again(&mut self, at: BootInstant) {
        if let Key::Vacant { free_at, turn, .. } = &mut self.key {
            *free_at = at;
            *turn = Duration::ZERO;
        }
    }

    pub(super) fn look_at_vacancy(&mut self, now: BootInstant) {
        if self.is_vacant() {
            self.vacancy.get_or_insert(Vacancy { since: now });
        } else {
            self.vacancy = None;
            self.probe = Probe::Due;
        }
    }

    /// Whether somebody may have taken the address since its last owner gave it up, so that we ask
    /// before we claim it.
    pub(super) fn distrusts_vacancy(&self) -> bool {
        let (Key::Vacant { seen, .. }, Some(vacancy)) = (&self.key, self.vacancy) else {
            return false;
        };
        let left_to_a_stranger = self.conduct.yields && self.conflict.lasts_until() > vacancy.since;
        left_to_a_stranger || self.conduct.probes && !seen
    }

    /// Not to be taken up before this.
    pub(super) fn claim_at(&self) -> BootInstant {
        let waits_until = self.shunned_until.max(self.waits_until);
        let Key::Vacant { free_at, turn, .. } = self.key else {
            return waits_until;
        };
        let claim_at = (free_at + turn).max(waits_until);
        if self.distrusts_vacancy() {
            claim_at.max(self.conflict.lasts_until() + turn)
        } else {
            claim_at
        }
    }

    /// Only while the lease is good does the kernel program tell who answers.
    pub(super) fn probe_if_due(&mut self, around: &Surroundings<'_>, out: &mut Vec<Action>) {
        let hears = around
            .lease
            .is_some_and(|(_, deadline)| around.now < deadline);
        let asks = self.conduct.probes && self.distrusts_vacancy();
        if !(hears && asks && self.mac().is_some() && !around.stopping) {
            self.probe = Probe::Due;
            return;
        }
        let asker = Asker {
            now: around.now,
            claim_at: self.claim_at(),
            span: around.cool_down,
            heard_all: around.heard_all,
            seed: around.seed,
            ip: self.ip,
        };
        if self.probe.advance(&asker) {
            out.push(Action::Probe(self.ip));
        }
    }

    /// Whether it is vacant, and ours to claim as far as it knows itself.
    pub fn is_due_to_claim(&self, now: BootInstant) -> bool {
        let asked = !self.conduct.probes || !self.distrusts_vacancy() || self.probe.is_unanswered();
        let is_at_rest = matches!(self.local, Local::Down | Local::Ready) && self.pending.is_none();
        self.is_vacant() && is_at_rest && now >= self.claim_at() && asked
    }
}
